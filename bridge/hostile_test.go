package bridge

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// leaves calls found with every place of a JSON document where a value stands, and a function
// that puts another one there. Of lists the first element stands for all.
func leaves(path string, v any, put func(any), found func(path string, put func(any))) {
	found(path, put)
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			leaves(path+" "+key, v[key], func(x any) { v[key] = x }, found)
		}
	case []any:
		if len(v) > 0 {
			leaves(path+" 0", v[0], func(x any) { v[0] = x }, found)
		}
	}
}

// TestHostileDataDir begins with what somebody has changed by hand, everywhere and to anything:
// the meter is read all the same, and nothing strange is published.
func TestHostileDataDir(t *testing.T) {
	topics := regexp.MustCompile(`^(kmp2mqtt/(bridge/(state|info|health|event)|(222|111|house)(/(availability|diagnostics|diagnosis|[a-z0-9_]+_(gj|m3|kw|h)))?)|homeassistant/(device/(kmp_(111|222)|kmp2mqtt_bridge)/config))$`)
	long := strings.Repeat("x", 5000)
	nasty := []any{nil, "", "a/+/#", "bridge", long, json.Number("-1"), json.Number("1e99"), map[string]any{}, "9999-12-31T23:59:59-23:00"}
	for _, line := range []string{"house=/dev/a", "/dev/a?continue=true"} {
		m := houseMeter(t, 222, "5.000", "1.00", "1")
		meters := map[string]*testMeter{"/dev/a": m}
		settings := []string{"METERS=" + line, placeRegisters, "READ_INTERVAL=10m", "MQTT_VALUES=true"}
		run := func(t *testing.T, dir string, d time.Duration, do func(l *lab)) (l *lab) {
			t.Helper()
			synctest.Test(t, func(t *testing.T) {
				l = newLab(t, meters, append(slices.Clone(settings), "DATA_DIR="+dir)...)
				l.start()
				l.pass(d)
				if do != nil {
					do(l)
				}
				l.stop()
			})
			return l
		}
		dir := t.TempDir()
		m.become(t, 111, "227.445", "2131.93", "7039")
		run(t, dir, censusOver, func(l *lab) {
			m.become(t, 222, "5.000", "1.00", "1")
			l.pass(censusOver)
		})
		content, err := os.ReadFile(filepath.Join(dir, "kmp2mqtt.json"))
		if err != nil {
			t.Fatal(err)
		}
		decode := func() (v any) {
			d := json.NewDecoder(strings.NewReader(string(content)))
			d.UseNumber()
			if err := d.Decode(&v); err != nil {
				t.Fatal(err)
			}
			return v
		}
		var paths []string
		leaves("", decode(), nil, func(path string, _ func(any)) {
			if strings.Contains(path, " entries ") && !strings.Contains(path, "numbers memory") && !strings.Contains(path, " meter/111") &&
				(line == "house=/dev/a" || strings.Contains(path, " place/")) { // the meters are the same
				paths = append(paths, path)
			}
		})
		for _, path := range paths {
			for _, x := range nasty {
				v := decode()
				leaves("", v, nil, func(p string, put func(any)) {
					if p == path {
						put(x)
					}
				})
				changed := t.TempDir()
				file, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(changed, "kmp2mqtt.json"), file, 0o600); err != nil {
					t.Fatal(err)
				}
				l := run(t, changed, 3*time.Second, nil)
				what := path + " = " + string(encodeJSON(x))
				if len(what) > 200 {
					what = what[:200]
				}
				for topic, payloads := range l.seen {
					if !topics.MatchString(topic) {
						t.Errorf("%s: %s: %.100s", what, topic, payloads[0])
					}
					for _, payload := range payloads {
						if len(payload) > 20000 {
							t.Errorf("%s: %d bytes on %s", what, len(payload), topic)
						}
						if !json.Valid([]byte(payload)) && (strings.HasSuffix(topic, "/config") || strings.HasSuffix(topic, "/diagnostics")) {
							t.Errorf("%s: %s: %.100s", what, topic, payload)
						}
					}
				}
				state, want := "kmp2mqtt/house", "5.000"
				switch continued := l.broker.retained()["kmp2mqtt/111"]; {
				case line == "house=/dev/a":
				case strings.HasSuffix(path, " identity"):
					continue
				case continued == "": // what the place was is not known any more
					state = "kmp2mqtt/222"
				case strings.HasSuffix(path, " value"), strings.Contains(path, " totals "): // other numbers that may be
					continue
				default:
					state, want = "kmp2mqtt/111", "227.445"
				}
				if got := l.broker.retained()[state]; !strings.Contains(got, `"energy_gj":`+want+",") || strings.Count(got, `"energy_gj"`) > 1 {
					t.Errorf("%s: state %q", what, got)
				}
				if got := l.logs.lines("level=ERROR"); len(got) > 0 {
					t.Errorf("%s: %q", what, got)
				}
			}
		}
	}
}
