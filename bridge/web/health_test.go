package web

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"kmp2mqtt/kmp/diagnosis"
)

func TestHealth(t *testing.T) {
	const line = "/dev/ttyUSB7"
	stuck := newFake(fakeTime)
	stuck.bridge.Stuck = []string{line}
	for name, tt := range map[string]struct {
		cfg  Config
		src  *fakeSource
		with []func(*http.Request)
		want int
		text string
	}{
		"alive":                     {openConfig, newFake(fakeTime), nil, 200, "ok\n"},
		"alive, to a stranger":      {passwordConfig, newFake(fakeTime), []func(*http.Request){from("192.0.2.66")}, 200, "ok\n"},
		"stuck":                     {openConfig, stuck, nil, 503, "stuck: " + line + "\n"},
		"stuck, with password":      {passwordConfig, stuck, []func(*http.Request){from("192.0.2.66"), login("owner", "käse")}, 503, "stuck: " + line + "\n"},
		"stuck, to this machine":    {passwordConfig, stuck, nil, 503, "stuck: " + line + "\n"},
		"stuck, to the ingress":     {ingressConfig, stuck, []func(*http.Request){from("172.30.32.2"), host("172.30.33.5")}, 503, "stuck: " + line + "\n"},
		"stuck, to a stranger":      {passwordConfig, stuck, []func(*http.Request){from("192.0.2.66")}, 503, "stuck\n"},
		"stuck, wrong password":     {passwordConfig, stuck, []func(*http.Request){from("192.0.2.66"), login("owner", "x")}, 503, "stuck\n"},
		"stuck, under another name": {openConfig, stuck, []func(*http.Request){host("evil.example")}, 503, "stuck\n"},
	} {
		t.Run(name, func(t *testing.T) {
			rw := ask(tt.cfg, tt.src, http.MethodGet, "/healthz", tt.with...)
			if rw.Code != tt.want || rw.Body.String() != tt.text {
				t.Errorf("%d %q, want %d %q", rw.Code, rw.Body, tt.want, tt.text)
			}
		})
	}
}

func TestReady(t *testing.T) {
	src := newFake(time.Now())
	type answer struct {
		Ready   bool
		Reasons []string
	}
	look := func(want int, with ...func(*http.Request)) (a answer) {
		t.Helper()
		rw := ask(passwordConfig, src, http.MethodGet, "/readyz", with...)
		if err := json.Unmarshal(rw.Body.Bytes(), &a); err != nil || rw.Code != want || a.Ready != (want == 200) {
			t.Errorf("%d %s, want %d", rw.Code, rw.Body, want)
		}
		return a
	}
	a := look(503)
	if len(a.Reasons) != 1 || !strings.HasPrefix(a.Reasons[0], "garage: not read yet: ") {
		t.Errorf("before one was read: %q", a.Reasons)
	}
	if a := look(503, from("192.0.2.66")); a.Reasons != nil {
		t.Errorf("a stranger is told %q", a.Reasons)
	}
	src.change(func() { src.meters[1].Reading = time.Now() })
	if a := look(200); a.Reasons == nil || len(a.Reasons) > 0 {
		t.Errorf("all is well, because of %q", a.Reasons)
	}
	look(200, from("192.0.2.66"))
	src.change(func() { src.bridge.Connected = false })
	if a := look(503); !slices.Equal(a.Reasons, []string{"the broker is not connected"}) {
		t.Errorf("without a broker: %q", a.Reasons)
	}
}

func TestLate(t *testing.T) {
	now := fakeTime
	for name, tt := range map[string]struct {
		meter Meter
		want  string
	}{
		"never read":             {Meter{Interval: time.Minute}, "not read yet: no reading was tried"},
		"never read, known why":  {Meter{Condition: Condition{Title: "Silence"}}, "not read yet: Silence"},
		"just read":              {Meter{Reading: now, Interval: time.Minute}, ""},
		"three intervals ago":    {Meter{Reading: now.Add(-3 * time.Minute), Interval: time.Minute}, ""},
		"longer ago, failing":    {Meter{Reading: now.Add(-3*time.Minute - 1), Interval: time.Minute, Next: now.Add(time.Hour), Condition: Condition{Code: diagnosis.Silent, Title: "Silence"}}, "not read for 3m0s, its interval is 1m0s: Silence"},
		"longer ago, on purpose": {Meter{Reading: now.Add(-time.Hour), Interval: time.Minute, Next: now.Add(time.Hour), Condition: Condition{Code: diagnosis.OK}}, ""},
		"on purpose, a bit late": {Meter{Reading: now.Add(-time.Hour), Interval: time.Minute, Next: now.Add(-59 * time.Second), Condition: Condition{Code: diagnosis.OK}}, ""},
		"it should have been":    {Meter{Reading: now.Add(-time.Hour), Interval: time.Minute, Next: now.Add(-time.Minute), Condition: Condition{Code: diagnosis.OK, Title: "Read"}}, "not read for 1h0m0s, its interval is 1m0s: Read"},
		"no word of it":          {Meter{Reading: now.Add(-time.Hour), Interval: time.Minute}, "not read for 1h0m0s, its interval is 1m0s: unknown why"},
	} {
		if got := tt.meter.late(now); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
