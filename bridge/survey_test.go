package bridge

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"kmp2mqtt/bridge/store"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/census"
	"kmp2mqtt/kmp/diagnosis"
	"kmp2mqtt/kmp/sim"
)

// asked are the register requests that reached a meter, from the nth on.
func (m *testMeter) asked(from int) []visit {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []visit
	for _, v := range m.visits[from:] {
		if v.command == kmp.CmdGetRegister {
			list = append(list, v)
		}
	}
	return list
}

func (m *testMeter) visited() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.visits)
}

// changeRecord changes what the directory remembers of a meter and returns it; the bridge
// must have stopped.
func changeRecord(t *testing.T, dir, serial string, change func(*record)) record {
	t.Helper()
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var r record
	if found, err := s.Get("meter/"+serial, &r); err != nil || !found {
		t.Fatalf("meter %s is in the file: %t, %v", serial, found, err)
	}
	change(&r)
	if err := s.Put("meter/"+serial, r); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return r
}

// profile is the profile that the directory remembers of a meter.
func profile(t *testing.T, dir, serial string) census.Profile {
	t.Helper()
	return changeRecord(t, dir, serial, func(*record) {}).Profile
}

// TestSurvey follows a census from the first contact to its use after a restart.
func TestSurvey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		m := newTestMeter(t, 80123456)
		m.set(number(t, serialRegister, kmp.UnitNumber, "80123456"))
		l := newLab(t, map[string]*testMeter{"/dev/a": m}, "METERS=house=/dev/a?model=403", "DATA_DIR="+dir)
		l.start()
		l.pass(20 * time.Second)
		l.want("kmp2mqtt/house/availability", "online")
		requests := m.asked(0)
		usual := usualRegisters("403")
		reading := (len(usual) + kmp.MaxRegisters) / kmp.MaxRegisters
		if diff := cmp.Diff(usual[:8], requests[0].ids); diff != "" {
			t.Errorf("the first reading waits for a census: %s", diff)
		}
		if n := len(requests) - reading; n < 1 || n > censusRequests {
			t.Errorf("%d requests of a census behind the first reading", n)
		}
		for i := range 5 {
			before := len(m.asked(0))
			l.pass(time.Minute)
			if n := len(m.asked(0)) - before; n > censusRequests {
				t.Errorf("%d requests in minute %d", n, i)
			}
		}
		l.pass(25 * time.Minute)
		events := l.eventsOf("census")
		if len(events) != 1 || events[0].Meter != "house" || events[0].Data["serial"] != "80123456" || events[0].Data["family"] != "heat" {
			t.Fatalf("%+v", events)
		}
		before := m.visited()
		l.pass(4 * time.Hour)
		for _, v := range m.asked(before) {
			for _, id := range v.ids {
				if _, ok := m.registers[id]; !ok {
					t.Fatalf("register %d is asked for, which the meter does not have", id)
				}
			}
		}
		l.stop()
		p := profile(t, dir, "80123456")
		if !p.Complete() || p.Taken.IsZero() || p.Model != "403" || p.Revision != "F1" {
			t.Errorf("%+v", p)
		}
		for _, id := range catalog.Candidates(catalog.Heat) {
			if _, ok := m.registers[id]; ok != p.Has(id) || ok == p.Lacks(id) {
				t.Errorf("register %d: there %t, has %t, lacks %t", id, ok, p.Has(id), p.Lacks(id))
			}
		}
		state := l.retained("kmp2mqtt/house")

		// The next life.
		before = m.visited()
		l = newLab(t, map[string]*testMeter{"/dev/a": m}, "METERS=house=/dev/a?model=403", "DATA_DIR="+dir)
		l.start()
		l.pass(2 * time.Hour)
		for _, v := range m.asked(before) {
			for _, id := range v.ids {
				if _, ok := m.registers[id]; !ok {
					t.Fatalf("register %d is asked for, which the meter does not have", id)
				}
			}
		}
		if got := l.eventsOf("census"); got != nil {
			t.Errorf("%+v", got)
		}
		if diff := cmp.Diff(members(t, []byte(state)), members(t, []byte(l.retained("kmp2mqtt/house")))); diff != "" {
			t.Errorf("other keys after a restart: %s", diff)
		}
		l.stop()

		// A meter with this number and another software: all is found out anew.
		changeRecord(t, dir, "80123456", func(r *record) { r.Profile.Revision = "E9" })
		before = m.visited()
		m.set(number(t, 87, kmp.UnitCelsius, "33.41"))
		l = newLab(t, map[string]*testMeter{"/dev/a": m}, "METERS=house=/dev/a?model=403", "DATA_DIR="+dir)
		l.start()
		l.pass(censusOver + 40*time.Minute)
		if got := l.eventsOf("census"); len(got) != 1 {
			t.Errorf("%+v", got)
		}
		if state := l.retained("kmp2mqtt/house"); !strings.Contains(state, `"return_temperature_c":33.41`) {
			t.Errorf("what the new software brought is not read: %s", state)
		}
		if !slices.ContainsFunc(m.asked(before), func(v visit) bool { return slices.Contains(v.ids, 110) }) {
			t.Error("no census")
		}
		l.stop()
		if p := profile(t, dir, "80123456"); p.Revision != "F1" || !p.Has(87) {
			t.Errorf("%+v", p)
		}
	})
}

// TestSurveyRequest takes a census because somebody asks for it.
func TestSurveyRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a")
		l.start()
		l.pass(censusOver)
		m.set(number(t, 87, kmp.UnitCelsius, "33.41"))
		got := l.command("kmp2mqtt/bridge/request/census", `{"meter":"house","transaction":7}`, "kmp2mqtt/bridge/response/census", 2*time.Minute)
		if len(got) != 1 {
			t.Fatalf("%s", got)
		}
		reply := decodeReply(t, got[0])
		var p census.Profile
		if err := json.Unmarshal(encodeJSON(reply.Data), &p); err != nil || reply.Status != "ok" {
			t.Fatalf("%s: %v", got, err)
		}
		if p.Serial != "80123456" || !p.Complete() || !p.Has(87) || p.Has(110) || !p.Lacks(110) {
			t.Errorf("%+v", p)
		}
		if i := slices.IndexFunc(p.Registers, func(e census.Entry) bool { return e.ID == 60 }); i < 0 ||
			p.Registers[i] != (census.Entry{ID: 60, Name: "energy", Unit: "GJ", UnitCode: kmp.UnitGJ, Width: 4, Exponent: -3}) {
			t.Errorf("%+v", p.Registers)
		}
		if state := l.retained("kmp2mqtt/house"); !strings.Contains(state, `"return_temperature_c":33.41`) {
			t.Errorf("what was found is not read: %s", state)
		}
		// A meter that does not answer: an error, and what was known stays.
		l.pass(20 * time.Minute)
		m.change(func(m *testMeter) { m.silent = true })
		got = l.command("kmp2mqtt/bridge/request/census", "house", "kmp2mqtt/bridge/response/census", 2*time.Minute)
		if len(got) != 1 || decodeReply(t, got[0]).Status != "error" {
			t.Errorf("%s", got)
		}
		m.change(func(m *testMeter) { m.silent = false })
		l.pass(2 * time.Minute)
		before := m.visited()
		l.pass(3 * time.Hour)
		for _, v := range m.asked(before) {
			if slices.Contains(v.ids, 110) {
				t.Errorf("asked for %v", v.ids)
			}
		}
		for payload, want := range map[string]string{
			`{"meter":"barn"}`: `unknown meter "barn"`, `{"metre":"house"}`: `unknown member`, `[`: "barn",
		} {
			got := l.command("kmp2mqtt/bridge/request/census", payload, "kmp2mqtt/bridge/response/census", time.Second)
			if len(got) != 1 || decodeReply(t, got[0]).Status != "error" || payload != "[" && !strings.Contains(got[0], strings.ReplaceAll(want, `"`, `\"`)) {
				t.Errorf("%s: %s", payload, got)
			}
		}
	})
}

// TestSurveyAsleep has a meter that falls asleep in the middle of its census: silence says
// nothing about registers, and a meter that sleeps is left alone.
func TestSurveyAsleep(t *testing.T) {
	for _, model := range []string{"403", "21"} {
		t.Run(model, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: model, Serial: 77, Faults: sim.Faults{SleepAfter: 30 * time.Second}}},
					"METERS=house=/dev/a?interval=6h", "DATA_DIR="+dir)
				m := sims["/dev/a"]
				l.start()
				l.pass(time.Minute)
				l.want("kmp2mqtt/house/availability", "online")
				before := m.Counts().Requests
				l.pass(5 * time.Hour)
				if n := m.Counts().Requests - before; n > 10 {
					t.Errorf("%d requests of a census to a meter that sleeps", n)
				}
				l.stop()
				p := profile(t, dir, "77")
				there := m.Registers()
				for _, id := range p.Absent {
					if slices.Contains(there, id) {
						t.Errorf("register %d counts as missing", id)
					}
				}
				if p.Complete() {
					t.Error("a census of a sleeping meter is complete")
				}
			})
		})
	}
}

// TestSurveyDamaged has a file that something has spoiled.
func TestSurveyDamaged(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(content []byte) []byte
	}{
		{"cut short", func(b []byte) []byte { return b[:len(b)/2] }},
		{"empty", func([]byte) []byte { return nil }},
		{"zeros", func(b []byte) []byte { return make([]byte, len(b)) }},
		{"another format", func([]byte) []byte { return []byte(`{"meter/80123456":[1,2]}`) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				meters, _ := one(t)
				l := newLab(t, meters, "METERS=house=/dev/a", "DATA_DIR="+dir)
				l.start()
				l.pass(censusOver)
				l.stop()
				name := filepath.Join(dir, "kmp2mqtt.json")
				content, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				spoilt := tt.spoil(content)
				if string(spoilt) == string(content) {
					t.Fatal("nothing is spoilt")
				}
				if err := os.WriteFile(name, spoilt, 0o600); err != nil {
					t.Fatal(err)
				}
				l = newLab(t, meters, "METERS=house=/dev/a", "DATA_DIR="+dir)
				l.start()
				l.pass(censusOver)
				l.want("kmp2mqtt/house/availability", "online")
				l.wantDiagnosis("house", diagnosis.OK)
				if got := l.logs.lines("damaged"); len(got) == 0 {
					t.Errorf("log:\n%s", strings.Join(l.logs.lines(""), ""))
				}
				if got := l.eventsOf("census"); len(got) != 1 {
					t.Errorf("%+v", got)
				}
				l.stop()
				if p := profile(t, dir, "80123456"); !p.Complete() {
					t.Errorf("%+v", p)
				}
			})
		})
	}
}

// untyped is a meter with the registers of a simulated one, of a type that nobody knows.
func untyped(source *sim.Meter, serial uint32) *testMeter {
	m := &testMeter{serial: serial, kind: 0x7777, registers: make(map[uint16]kmp.Register)}
	for _, id := range source.Registers() {
		if r, ok := source.Read(id); ok {
			m.set(r)
		}
	}
	return m
}

// TestSurveyUnsoundProfile has a file that is whole and says what cannot be.
func TestSurveyUnsoundProfile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		meters, _ := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "DATA_DIR="+dir)
		l.start()
		l.pass(censusOver)
		l.stop()
		changeRecord(t, dir, "80123456", func(r *record) { r.Profile.Absent = []uint16{60, 68, 60} })
		l = newLab(t, meters, "METERS=house=/dev/a", "DATA_DIR="+dir)
		l.start()
		l.pass(censusOver)
		if state := l.retained("kmp2mqtt/house"); !strings.Contains(state, `"energy_gj":227.445,"volume_m3":2131.93`) {
			t.Errorf("not read: %s", state)
		}
		if got := l.logs.lines("damaged"); len(got) != 1 {
			t.Errorf("log:\n%s", strings.Join(l.logs.lines(""), ""))
		}
		if got := l.eventsOf("census"); len(got) != 1 {
			t.Errorf("%+v", got)
		}
	})
}

// TestSurveyStrangeSerial has a meter whose register of the serial number holds another
// number than the one that it answers with.
func TestSurveyStrangeSerial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		m.set(number(t, serialRegister, kmp.UnitNumber, "4711"))
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60,80", "READ_INTERVAL=5m")
		l.start()
		l.pass(12 * time.Hour)
		for _, state := range l.sent("kmp2mqtt/house") {
			if !strings.Contains(state, `"energy_gj":227.445`) {
				t.Fatalf("nothing is read: %s", state)
			}
		}
		if diff := cmp.Diff([]string{"meter_online house", "census house"}, l.events()); diff != "" {
			t.Error(diff)
		}
		// It is exchanged all the same.
		m.change(func(m *testMeter) { m.serial = 99 })
		m.set(number(t, 60, kmp.UnitGJ, "300"))
		l.pass(10 * time.Minute)
		if d := l.diagnostics("house"); *d.Serial != "99" {
			t.Errorf("%+v", d)
		}
		if got := l.eventsOf("meter_changed"); len(got) != 1 {
			t.Errorf("%+v", got)
		}
	})
}

// TestSurveyFamilies reads meters that do not say what they are.
func TestSurveyFamilies(t *testing.T) {
	for _, tt := range []struct {
		model     string
		family    catalog.Family
		keys      []string
		class     string // an entity and its device class
		component string
		interval  float64
	}{
		{"21", catalog.Water, []string{"volume_m3", "flow_l_h"}, "water", "volume", 1800},
		{"382", catalog.Electricity, []string{"active_energy_import_kwh", "voltage_l1_v"}, "energy", "active_energy_import", 60},
		{"403", catalog.Heat, []string{"energy_gj", "supply_temperature_c"}, "energy", "energy", 1800},
	} {
		t.Run(tt.model, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source, err := sim.New(sim.Config{Model: tt.model})
				if err != nil {
					t.Fatal(err)
				}
				m := untyped(source, 5)
				m.set(number(t, serialRegister, kmp.UnitNumber, "5"))
				l := newLab(t, map[string]*testMeter{"/dev/a": m}, "METERS=m=/dev/a")
				l.start()
				l.pass(time.Minute)
				l.wantDiagnosis("m", diagnosis.OK)
				state := l.retained("kmp2mqtt/m")
				for _, key := range tt.keys {
					if !strings.Contains(state, `"`+key) {
						t.Errorf("no %s in %s", key, state)
					}
				}
				var device struct {
					Components map[string]struct {
						DeviceClass string `json:"device_class"`
					}
				}
				if err := json.Unmarshal([]byte(l.retained("homeassistant/device/kmp_5/config")), &device); err != nil {
					t.Fatal(err)
				}
				if c, ok := device.Components[tt.component]; !ok || c.DeviceClass != tt.class {
					t.Errorf("%s is of class %q (%t)", tt.component, c.DeviceClass, ok)
				}
				if d := l.diagnostics("m"); d.Interval != tt.interval {
					t.Errorf("read every %v s", d.Interval)
				}
				l.pass(36 * time.Hour) // a water meter's goes on behind its readings only
				if e := l.eventsOf("census"); len(e) != 1 || e[0].Data["family"] != string(tt.family) {
					t.Errorf("%+v", e)
				}
			})
		})
	}
}

// TestSurveyDaily reads once a day what changes once a day.
func TestSurveyDaily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", usual, "READ_INTERVAL=30m", "DATA_DIR="+dir)
		l.start()
		l.pass(censusOver)
		daily := func() (n int) {
			for _, v := range m.asked(0) {
				if slices.Contains(v.ids, 124) {
					n++
				}
			}
			return n
		}
		if n := daily(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		m.set(number(t, 124, kmp.UnitLitrePerH, "400"), number(t, 60, kmp.UnitGJ, "227.446"))
		l.pass(22 * time.Hour)
		if n := daily(); n != 1 {
			t.Errorf("asked %d times in a day", n)
		}
		for _, state := range l.sent("kmp2mqtt/house") {
			if !strings.Contains(state, `"max_flow_year_l_h":320,"max_flow_year_date":"2026-01-14"`) {
				t.Errorf("not repeated: %s", state)
			}
		}
		if state := l.retained("kmp2mqtt/house"); !strings.Contains(state, `227.446`) {
			t.Error(state)
		}
		// All of them upon read-now.
		got := l.command("kmp2mqtt/house/get", "", "kmp2mqtt/house/response", 10*time.Second)
		if len(got) != 1 || !strings.Contains(got[0], `"max_flow_year_l_h":400`) || daily() != 2 {
			t.Errorf("asked %d times: %s", daily(), got)
		}
		// The next day brings it.
		m.set(number(t, 124, kmp.UnitLitrePerH, "500"))
		l.pass(2*time.Hour + 10*time.Minute)
		if state := l.retained("kmp2mqtt/house"); !strings.Contains(state, `"max_flow_year_l_h":500`) || daily() != 3 {
			t.Errorf("asked %d times: %s", daily(), state)
		}
		l.stop()
	})
}

// TestSurveyMissing lacks every second of the usual registers.
func TestSurveyMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		usual := usualRegisters("403")
		var missing []uint16
		for i := 1; i < len(usual); i += 2 {
			missing = append(missing, usual[i])
		}
		l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Faults: sim.Faults{MissingRegisters: missing}}}, "METERS=house=/dev/a")
		l.start()
		l.pass(4 * time.Hour)
		l.wantDiagnosis("house", diagnosis.OK)
		if d := l.diagnostics("house"); d.ReadsFailed != 0 || d.ReadsOK < 8 {
			t.Errorf("%+v", d)
		}
		state := l.retained("kmp2mqtt/house")
		for i, id := range usual {
			name := catalog.Lookup(id).Name
			if there := strings.Contains(state, `"`+name+`_`) || strings.Contains(state, `"`+name+`"`); there != (i%2 == 0) && !strings.Contains(name, "date") && name != "energy" {
				t.Errorf("%s in the state: %t", name, there)
			}
		}
		// One that goes away while it is known: null, and nothing else suffers.
		sims["/dev/a"].SetFaults(sim.Faults{MissingRegisters: append(missing, 68)})
		l.pass(time.Hour)
		l.wantDiagnosis("house", diagnosis.OK)
		if state := l.retained("kmp2mqtt/house"); !strings.Contains(state, `"volume_m3":null`) || strings.Contains(state, `"energy_gj":null`) {
			t.Error(state)
		}
	})
}
