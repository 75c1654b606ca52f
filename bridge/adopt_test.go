package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"kmp2mqtt/bridge/former"
	"kmp2mqtt/kmp/catalog"
)

// leave has the broker keep what WobwobRt's reader announces of these parameters.
func leave(l *lab, names ...string) {
	for _, name := range names {
		l.broker.publish(fmt.Sprintf("homeassistant/sensor/kamstrup_%s/config", name), fmt.Sprintf(
			`{"name": "X", "unique_id": "kamstrup_%[1]s", "state_topic": "kamstrup/%[1]s", "availability_topic": "kamstrup/status", "device": {"identifiers": ["kamstrup_meter"], "name": "Kamstrup Meter", "manufacturer": "Kamstrup", "model": "Multical 402"}, "unit_of_measurement": "GJ"}`, name), true)
	}
}

// adopt runs an adoption at the lab's broker.
func (l *lab) adopt(act bool) (former.Report, error) {
	return Adopt(context.Background(), l.cfg, AdoptOptions{Reader: former.WobwobRt, Act: act, Log: slog.New(slog.NewTextHandler(&l.logs, nil))})
}

// TestAdopt takes the entities of WobwobRt's reader over while the bridge runs, over a connection
// of its own: nobody sees the bridge go.
func TestAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newTestMeter(t, 111)
		l := newLab(t, map[string]*testMeter{"/dev/a": m}, "METERS=house=/dev/a?entities=wobwobrt", "REGISTERS=60,68,80", "READ_INTERVAL=10m")
		leave(l, "energy", "power", "hourcounter")
		l.start()
		l.pass(censusOver + time.Minute)
		before := l.broker.retained()
		reads, states := len(m.reads()), len(l.sent("kmp2mqtt/bridge/state"))

		plan, err := l.adopt(false)
		if err != nil || plan.Done || plan.Count(former.StateReady) != 2 || plan.Count(former.StateUnread) != 1 || plan.Setting != "" {
			t.Fatalf("%v: %+v", err, plan)
		}
		report, err := l.adopt(true)
		if err != nil || !report.Done || report.Count(former.StateAdopted) != 2 {
			t.Fatalf("%v: %+v\n%s", err, report, strings.Join(l.logs.lines(""), ""))
		}
		after := l.broker.retained()
		for _, name := range []string{"energy", "power"} {
			delete(before, "homeassistant/sensor/kamstrup_"+name+"/config")
		}
		for _, topics := range []map[string]string{before, after} { // what the minutes change
			maps.DeleteFunc(topics, func(topic, _ string) bool { return strings.HasPrefix(topic, "kmp2mqtt/bridge/health") })
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Error(diff)
		}
		if n := len(m.reads()); n != reads {
			t.Errorf("the meter was read %d times for it", n-reads)
		}
		if said := l.sent("kmp2mqtt/bridge/state"); len(said) != states {
			t.Errorf("a guest said %q", said)
		}
		l.want("kmp2mqtt/bridge/state", "online")
		if subscribed := strings.Join(l.broker.subscriptions(), " "); strings.Contains(subscribed, "/sensor/") {
			t.Errorf("a guest is still there: %s", subscribed)
		}
	})
}

// TestAdoptWithoutOption changes nothing, and tells which line of the settings is missing.
func TestAdoptWithoutOption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, map[string]*testMeter{"/dev/a": newTestMeter(t, 111)}, "METERS=house=/dev/a?interval=10m", "REGISTERS=60")
		leave(l, "energy")
		l.start()
		l.pass(time.Minute)
		report, err := l.adopt(true)
		if !errors.Is(err, former.ErrNotAnnounced) || report.Setting != "METERS=house=/dev/a?interval=10m&entities=wobwobrt" {
			t.Errorf("%v: %+v", err, report)
		}
		if kept := l.retained("homeassistant/sensor/kamstrup_energy/config"); !strings.Contains(kept, "kamstrup/energy") {
			t.Error(kept)
		}
	})
}

// TestAdoptWithoutBroker gives up, and its log says why.
func TestAdoptWithoutBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil, "METERS=house=/dev/a")
		l.broker.down(true)
		if _, err := l.adopt(true); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no connection to the MQTT broker") {
			t.Error(err)
		}
		if !strings.Contains(strings.Join(l.logs.lines(""), ""), "connection refused") {
			t.Error(strings.Join(l.logs.lines(""), ""))
		}
	})
}

// TestAdoptDeaf may publish, but not hear.
func TestAdoptDeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil, "METERS=house=/dev/a")
		l.broker.denySubscriptions(func(filter string) bool { return strings.Contains(filter, "response") })
		if _, err := l.adopt(true); err == nil || !strings.Contains(err.Error(), "may it read kmp2mqtt/bridge/response/+?") {
			t.Error(err)
		}
	})
}

// TestGuestFlood sends a guest more than it looks at: that ends, instead of growing.
func TestGuestFlood(t *testing.T) {
	g := &guest{box: NewOutbox(), came: make(chan struct{}, 1)}
	for range adoptMost + 10 {
		g.take("homeassistant/device/x/config", nil, true)
	}
	if len(g.queue) != adoptMost {
		t.Errorf("%d messages wait", len(g.queue))
	}
	if _, err := g.Next(t.Context()); err == nil {
		t.Error("no error")
	}
}

// TestAdoptSetting proposes no line that lacks a password.
func TestAdoptSetting(t *testing.T) {
	for meters, want := range map[string]string{
		"house=/dev/a":       "METERS=house=/dev/a?entities=golles",
		"/dev/a?baud=2400":   "METERS=/dev/a?baud=2400&entities=golles",
		"a=/dev/a b=/dev/b":  "METERS=a=/dev/a?entities=golles b=/dev/b",
		"house=tcp://h:2001": "METERS=house=tcp://h:2001?entities=golles",

		"house=tcp://u:s3cret@h:2001":          "add the option entities=golles to the meter house in METERS",
		"tcp://s3cret@h:2001?interval=1h":      "add the option entities=golles to the first meter in METERS",
		"a=/dev/a b=tcp://u:s3cret@h:2001":     "add the option entities=golles to the meter a in METERS",
		"a=tcp://u:s3cret@h:1?entities=golles": "",
		"a=/dev/a b=/dev/b?entities=golles":    "",
	} {
		cfg, errs := parse(t, nil, "METERS="+meters)
		if errs != nil {
			t.Fatal(errs)
		}
		report, err := Adopt(t.Context(), cfg, AdoptOptions{Reader: former.Golles})
		if err != nil || report.Setting != want {
			t.Errorf("%s: %v: %q, want %q", meters, err, report.Setting, want)
		}
	}
}

// homeAnswers stands for Home Assistant's REST interface.
func homeAnswers(used ...string) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		answer := &http.Response{StatusCode: http.StatusNotFound, Status: "404 Not Found", Body: io.NopCloser(strings.NewReader(`{"message":"Entity not found."}`))}
		switch {
		case r.Header.Get("Authorization") != "Bearer token":
			answer.StatusCode = http.StatusUnauthorized
		case !strings.HasPrefix(r.URL.String(), "http://home:8123/api/states/sensor.kamstrup_403_"):
			answer.StatusCode, answer.Status = http.StatusInternalServerError, "500 "+r.URL.String()
		}
		for _, id := range used {
			if answer.StatusCode == http.StatusNotFound && strings.HasSuffix(r.URL.Path, "/"+id) {
				answer.StatusCode = http.StatusOK
			}
		}
		return answer, nil
	}
}

func TestAdoptGolles(t *testing.T) {
	home := &url.URL{Scheme: "http", Host: "home:8123"}
	for _, tt := range []struct {
		name       string
		registers  []uint16
		url        *url.URL
		token      string
		get        func(*http.Request) (*http.Response, error)
		free, used int
		err        string
	}{
		{"without Home Assistant", []uint16{60, 68, 72}, nil, "", nil, 2, 0, ""},
		{"all free", []uint16{60, 68}, home, "token", homeAnswers(), 2, 0, ""},
		{"used", []uint16{60, 68, 80}, home, "token", homeAnswers("sensor.kamstrup_403_power", "sensor.kamstrup_403_volume"), 1, 2, ""},
		{"the usual registers", nil, nil, "", nil, 8, 0, ""},
		{"a wrong token", []uint16{60}, home, "other", homeAnswers(), 0, 0, "it refuses HA_TOKEN"},
		{"trouble", []uint16{60}, home, "token", func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }, 0, 0, "unexpected EOF"},
		{"something else", []uint16{60}, &url.URL{Scheme: "http", Host: "other"}, "token", homeAnswers(), 0, 0, "it answers 500"},
	} {
		cfg, errs := parse(t, nil, "METERS=house=/dev/a")
		if errs != nil {
			t.Fatal(errs)
		}
		cfg.Meters[0].Registers, cfg.HAURL, cfg.HAToken = tt.registers, tt.url, tt.token
		report, err := Adopt(t.Context(), cfg, AdoptOptions{Reader: former.Golles, Act: true, Get: tt.get})
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		wantFree := tt.free
		if tt.registers == nil {
			wantFree = 0
			for _, id := range catalog.FamilyModel(catalog.Heat).Registers {
				if _, known := former.EntityID(former.Golles, id); known {
					wantFree++
				}
			}
		}
		if err != nil || report.Count(former.StateFree) != wantFree || report.Count(former.StateUsed) != tt.used || report.Done != (tt.used == 0) ||
			report.Setting != "METERS=house=/dev/a?entities=golles" {
			t.Errorf("%s: %v: %+v", tt.name, err, report)
		}
	}
}

func TestAdoptNothing(t *testing.T) {
	if _, err := Adopt(t.Context(), Config{}, AdoptOptions{Reader: "mine"}); !errors.Is(err, ErrReader) {
		t.Error(err)
	}
	if _, err := Adopt(t.Context(), Config{}, AdoptOptions{Reader: former.Golles}); err == nil {
		t.Error("no meter, no error")
	}
}
