package web

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"
	"time"

	"kmp2mqtt/kmp/diagnosis"
)

// Where machines ask after the health.
const (
	healthPath = "/healthz"
	readyPath  = "/readyz"
)

// health says whether the program is alive: no line is stuck. A restart would help if not.
func (w *window) health(rw http.ResponseWriter, r *http.Request) {
	status, text := http.StatusOK, "ok\n"
	if stuck := w.source.Bridge().Stuck; len(stuck) > 0 {
		status, text = http.StatusServiceUnavailable, "stuck\n"
		if visitorOf(r).trusted {
			text = "stuck: " + strings.Join(stuck, ", ") + "\n"
		}
	}
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	rw.WriteHeader(status)
	_, _ = rw.Write([]byte(text))
}

// ready says whether the program does what it is for: the broker is connected and every
// meter is read.
func (w *window) ready(rw http.ResponseWriter, r *http.Request) {
	reasons := lateness(w.source, time.Now())
	answer := struct {
		Ready   bool      `json:"ready"`
		Reasons *[]string `json:"reasons,omitempty"` // not for everybody
	}{Ready: len(reasons) == 0}
	if visitorOf(r).trusted {
		answer.Reasons = &reasons
	}
	status := http.StatusOK
	if !answer.Ready {
		status = http.StatusServiceUnavailable
	}
	writeJSON(rw, status, answer)
}

// lateness says in words what is missing for the program to be ready; never nil.
func lateness(src Source, now time.Time) []string {
	reasons := []string{}
	if !src.Bridge().Connected {
		reasons = append(reasons, "the broker is not connected")
	}
	for _, m := range src.Meters() {
		if why := m.late(now); why != "" {
			reasons = append(reasons, fmt.Sprintf("%s: %s", cmp.Or(m.Name, m.Title), why))
		}
	}
	return reasons
}

// late says why a meter does not count as read, empty if it does. It does as long as its
// newest good reading is at most three intervals old, or as it answered the last time and is
// left alone until later on purpose, because of its battery. After the start it does not
// until it has been read.
func (m Meter) late(now time.Time) string {
	switch {
	case m.Reading.IsZero():
		return "not read yet: " + cmp.Or(m.Condition.Title, "no reading was tried")
	case now.Sub(m.Reading) <= 3*m.Interval:
		return ""
	case m.Condition.Code == diagnosis.OK && now.Before(m.Next.Add(m.Interval)):
		return ""
	}
	return fmt.Sprintf("not read for %s, its interval is %s: %s", now.Sub(m.Reading).Round(time.Second), m.Interval, cmp.Or(m.Condition.Title, "unknown why"))
}
