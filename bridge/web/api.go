package web

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/diagnosis"
	"kmp2mqtt/kmp/explain"
)

// apiPrefix is where programs come in.
const apiPrefix = "/api/"

// summary is a meter in the list of meters.
type summary struct {
	Name         *string        `json:"name"` // nil: it has none before it has answered once
	Title        string         `json:"title"`
	Serial       *string        `json:"serial"`
	Model        *string        `json:"model"`
	Revision     *string        `json:"software_revision"`
	Line         string         `json:"line"`
	Interval     float64        `json:"interval_s"`
	Availability *string        `json:"availability"`
	Reading      *time.Time     `json:"last_reading"`
	Next         *time.Time     `json:"next_reading"`
	Code         diagnosis.Code `json:"diagnosis_code"`
	Quality      *int           `json:"link_quality"` // percent; nil: not known yet
}

func (m Meter) summary() summary {
	s := summary{
		Name: text(m.Name), Title: m.Title, Serial: text(m.Serial), Model: text(m.Model), Revision: text(m.Revision),
		Line: m.Line, Interval: m.Interval.Seconds(), Availability: text(m.Availability), Reading: moment(m.Reading), Next: moment(m.Next), Code: m.Condition.Code,
	}
	if m.Rated {
		s.Quality = &m.Quality
	}
	return s
}

// text is nil for what is empty.
func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// moment is a time in UTC to the second, nil for none.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Second)
	return &t
}

// meters lists all meters.
func (w *window) meters(rw http.ResponseWriter, _ *http.Request) {
	list := []summary{}
	for _, m := range w.source.Meters() {
		list = append(list, m.summary())
	}
	writeJSON(rw, http.StatusOK, list)
}

// meter is one meter, with its payloads as they are on MQTT.
func (w *window) meter(rw http.ResponseWriter, r *http.Request) {
	m, ok := w.find(rw, r)
	if !ok {
		return
	}
	writeJSON(rw, http.StatusOK, struct {
		summary
		State       json.RawMessage `json:"state"` // nil: there is none yet
		Diagnostics json.RawMessage `json:"diagnostics"`
		Diagnosis   json.RawMessage `json:"diagnosis"`
	}{m.summary(), m.State, m.Diagnostics, m.Diagnosis})
}

// find returns the meter that a path names, or answers that there is none.
func (w *window) find(rw http.ResponseWriter, r *http.Request) (Meter, bool) {
	name := r.PathValue("name")
	m, ok := w.named(name)
	if !ok {
		fail(rw, r, http.StatusNotFound, fmt.Sprintf("there is no meter %q; /api/v1/meters lists them", clip(name)))
	}
	return m, ok
}

// named returns the meter with a name.
func (w *window) named(name string) (Meter, bool) {
	for _, m := range w.source.Meters() {
		if m.Name == name && name != "" {
			return m, true
		}
	}
	return Meter{}, false
}

// read has a meter read now and answers as the topic <meter>/response does.
func (w *window) read(rw http.ResponseWriter, r *http.Request) {
	request, refused := body(r)
	if refused != nil {
		rw.Header().Set("Connection", "close")
		refused.write(rw, r)
		return
	}
	response, err := w.source.Read(r.Context(), r.PathValue("name"), request)
	if err != nil && len(response) == 0 {
		w.failed(rw, r, err)
		return
	}
	comeBack(rw, err)
	writeRaw(rw, status(err), response)
}

// body reads a request's body: JSON, or nothing at all.
func body(r *http.Request) ([]byte, *refusal) {
	tooLarge := &refusal{status: http.StatusRequestEntityTooLarge, detail: fmt.Sprintf("the body may have %d bytes", maxBody)}
	if r.ContentLength > maxBody {
		return nil, tooLarge
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); {
	case err != nil:
		return nil, &refusal{status: http.StatusBadRequest, detail: "the body did not come whole"}
	case len(b) > maxBody:
		return nil, tooLarge
	case len(b) > 0 && media != "application/json":
		return nil, &refusal{status: http.StatusUnsupportedMediaType, detail: "the body must be application/json"}
	}
	return b, nil
}

// status is how an error of the source is told.
func status(err error) int {
	_, retry := errors.AsType[*RetryError](err)
	switch {
	case err == nil:
		return http.StatusOK
	case retry:
		return http.StatusTooManyRequests
	case errors.Is(err, ErrUnknownMeter):
		return http.StatusNotFound
	case errors.Is(err, ErrRequest):
		return http.StatusBadRequest
	case errors.Is(err, ErrStopping), errors.Is(err, context.Canceled):
		return http.StatusServiceUnavailable
	}
	return http.StatusBadGateway
}

// failed answers with an error of the source.
func (w *window) failed(rw http.ResponseWriter, r *http.Request, err error) {
	comeBack(rw, err)
	fail(rw, r, status(err), plain(err))
}

// comeBack says when what failed may be tried again.
func comeBack(rw http.ResponseWriter, err error) {
	if retry, ok := errors.AsType[*RetryError](err); ok {
		retryAfter(rw, retry.After)
	} else if status(err) == http.StatusServiceUnavailable {
		retryAfter(rw, reconnect)
	}
}

// plain is an error's text for people.
func plain(err error) string {
	return strings.TrimPrefix(strings.TrimPrefix(err.Error(), "bridge: "), "web: ")
}

// chart is the recent past of a meter.
func (w *window) chart(rw http.ResponseWriter, r *http.Request) {
	if _, ok := w.find(rw, r); !ok {
		return
	}
	c, err := w.source.Chart(r.Context(), r.PathValue("name"))
	if err != nil {
		w.failed(rw, r, err)
		return
	}
	c.Times, c.Series, c.Hours, c.Days = list(c.Times), list(c.Series), list(c.Hours), list(c.Days)
	writeJSON(rw, http.StatusOK, c)
}

// list is an empty list instead of none.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

// frames are the newest frames on the meter's line, with what they say.
func (w *window) frames(rw http.ResponseWriter, r *http.Request) {
	if _, ok := w.find(rw, r); !ok {
		return
	}
	writeJSON(rw, http.StatusOK, shownFrames(w.source.Frames(r.PathValue("name"))))
}

// shownFrame is a frame in hexadecimal and in words.
type shownFrame struct {
	Time      time.Time  `json:"time"`
	Direction string     `json:"direction"` // "to_meter" or "from_meter"
	Wire      string     `json:"wire"`      // "80 3F 02 35 E9 0D"
	Explained [][]string `json:"explained"` // lines of name and text
	Error     *string    `json:"error"`     // why some of it cannot be explained
	Decode    *string    `json:"decode"`    // a command that explains it again; nil: there are no bytes
}

func shownFrames(frames []Frame) []shownFrame {
	shown := make([]shownFrame, 0, len(frames))
	for _, f := range frames {
		shown = append(shown, f.shown())
	}
	return shown
}

func (f Frame) shown() shownFrame {
	s := shownFrame{Time: f.Time.UTC().Truncate(time.Millisecond), Direction: "from_meter", Wire: fmt.Sprintf("% X", f.Wire), Explained: [][]string{}}
	if f.Direction == kmp.ToMeter {
		s.Direction = "to_meter"
	}
	var errs []error
	for _, part := range explain.Split(f.Wire) {
		e, err := explain.Frame(part)
		errs = append(append(errs, err), e.Problems...)
		s.Explained = append(s.Explained, e.Lines()...)
	}
	if err := errors.Join(errs...); err != nil {
		s.Error = text(err.Error())
	}
	if len(f.Wire) > 0 {
		s.Decode = text("kmp2mqtt decode " + strings.ToUpper(hex.EncodeToString(f.Wire)))
	}
	return s
}

// bundle is what to send along when something is wrong.
func (w *window) bundle(rw http.ResponseWriter, r *http.Request) {
	m, ok := w.find(rw, r)
	if !ok {
		return
	}
	h := rw.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{
		"filename": fmt.Sprintf("kmp2mqtt-%s-%s.json", m.Name, time.Now().Format(time.DateOnly)),
	}))
	if r.Method == http.MethodHead {
		return
	}
	to := &started{Writer: rw}
	err := w.source.Recording(r.Context(), m.Name, to)
	switch {
	case err == nil:
	case to.begun: // too late for another status: the connection ends in the middle
		_ = http.NewResponseController(rw).SetWriteDeadline(time.Unix(1, 0))
	default:
		w.failed(rw, r, err)
	}
}

// started knows whether something was written.
type started struct {
	io.Writer
	begun bool
}

func (s *started) Write(b []byte) (int, error) {
	s.begun = true
	return s.Writer.Write(b)
}

// writeJSON answers with a value as JSON. The digits of numbers that come as text stay.
func writeJSON(rw http.ResponseWriter, status int, v any) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		status = http.StatusInternalServerError
		b.Reset()
		fmt.Fprintf(&b, "{\"title\":%q,\"status\":%d,\"detail\":%q}\n", http.StatusText(status), status, "this cannot be said in JSON")
	}
	writeRaw(rw, status, []byte(b.String()))
}

// writeRaw answers with JSON as it is.
func writeRaw(rw http.ResponseWriter, status int, b []byte) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	_, _ = rw.Write(b) // who does not read it has gone
}
