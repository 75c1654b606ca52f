package bridge

import (
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/sim"
)

// value is a member of a JSON object as it stands there; "" when it is not there.
func value(t *testing.T, object, key string) string {
	t.Helper()
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(object), &members); err != nil {
		t.Fatalf("%q: %v", object, err)
	}
	return string(members[key])
}

// values are a member of all states so far.
func (l *lab) values(meter, key string) []string {
	l.t.Helper()
	var list []string
	for _, state := range l.sent("kmp2mqtt/" + meter) {
		list = append(list, value(l.t, state, key))
	}
	return list
}

// unknown is why values are held or not known.
func (l *lab) unknown(meter string) map[string]string {
	l.t.Helper()
	var d struct{ Unknown map[string]string }
	if err := json.Unmarshal([]byte(l.retained("kmp2mqtt/"+meter+"/diagnostics")), &d); err != nil || d.Unknown == nil {
		l.t.Fatalf("diagnostics of %s: %v", meter, err)
	}
	return d.Unknown
}

func (m *testMeter) energy(t *testing.T, digits string) {
	t.Helper()
	m.set(number(t, 60, kmp.UnitGJ, digits))
}

// TestTrustOneBadNumber has a counter fall in one reading: nobody ever sees it.
func TestTrustOneBadNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60,80", "READ_INTERVAL=30m", "MQTT_VALUES=true")
		l.start()
		l.pass(90*time.Minute - time.Second)
		m.energy(t, "0.445")
		reads := len(m.reads())
		l.pass(3 * time.Second)
		m.energy(t, "227.446")
		held := l.eventsOf("value_held")
		if len(held) != 1 || held[0].Meter != "house" || held[0].Data["key"] != "energy_gj" || held[0].Data["register"] != "energy" ||
			held[0].Data["held"] != 0.445 || held[0].Data["kept"] != 227.445 || held[0].Data["reason"] == "" {
			t.Fatalf("%+v", held)
		}
		if why := l.unknown("house")["energy_gj"]; !strings.HasPrefix(why, "held: ") {
			t.Errorf("%q", why)
		}
		l.pass(20 * time.Second)
		if n := len(m.reads()) - reads; n != 2 {
			t.Errorf("%d readings where one and a second soon were due", n)
		}
		if got := l.unknown("house"); len(got) != 0 {
			t.Errorf("%q", got)
		}
		l.pass(time.Hour)
		for _, topic := range []string{"kmp2mqtt/house", "kmp2mqtt/house/energy_gj"} {
			for _, payload := range l.sent(topic) {
				if strings.Contains(payload, "0.445") && !strings.Contains(payload, "227.445") || strings.Contains(payload, "null") {
					t.Errorf("%s: %s", topic, payload)
				}
			}
		}
		if diff := cmp.Diff("227.446", value(t, l.retained("kmp2mqtt/house"), "energy_gj")); diff != "" {
			t.Error(diff)
		}
		if len(l.eventsOf("value_held")) != 1 || l.eventsOf("meter_changed") != nil {
			t.Errorf("%q", l.events())
		}
		if got := l.logs.lines("a value is held back"); len(got) != 1 {
			t.Errorf("log: %q", got)
		}
	})
}

// TestTrustThreeReadings lets through what three readings agree on.
func TestTrustThreeReadings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60,80", "READ_INTERVAL=30m")
		l.start()
		l.pass(90*time.Minute - time.Second)
		m.energy(t, "0.445")
		before := len(l.values("house", "energy_gj"))
		l.pass(time.Minute)
		if diff := cmp.Diff([]string{"227.445", "227.445", "0.445"}, l.values("house", "energy_gj")[before:]); diff != "" {
			t.Error(diff)
		}
		released := l.eventsOf("value_released")
		if len(released) != 1 || released[0].Data["value"] != 0.445 || released[0].Data["before"] != 227.445 {
			t.Errorf("%+v", released)
		}
		if n := len(l.eventsOf("value_held")); n != 2 {
			t.Errorf("held %d times", n)
		}
	})
}

// TestTrustSecondReadings has a counter that says something else each time: the meter is
// not asked for ever.
func TestTrustSecondReadings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60,80", "READ_INTERVAL=30m")
		l.start()
		l.pass(censusOver)
		reads := len(m.reads())
		begin := time.Now()
		for time.Since(begin) < 10*time.Hour {
			m.energy(t, []string{"150.1", "99.9", "42.0", "12.5"}[len(m.reads())%4])
			l.pass(time.Second)
		}
		if n := len(m.reads()) - reads; n > 20*(1+secondReadings)+secondReadings {
			t.Errorf("%d readings in ten hours", n)
		}
		for _, v := range l.values("house", "energy_gj") {
			if v != "227.445" {
				t.Fatalf("published: %s", v)
			}
		}
	})
}

// TestTrustAccept lets a held value through because somebody says so.
func TestTrustAccept(t *testing.T) {
	for _, word := range []string{`"energy"`, `"energy_gj"`, ""} {
		t.Run(word, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				meters, m := one(t)
				l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60,68,80", "READ_INTERVAL=30m")
				l.start()
				l.pass(time.Hour - time.Second)
				accept := func(payload string) reply {
					t.Helper()
					got := l.command("kmp2mqtt/bridge/request/accept", payload, "kmp2mqtt/bridge/response/accept", time.Second)
					if len(got) != 1 {
						t.Fatalf("%s: %s", payload, got)
					}
					return decodeReply(t, got[0])
				}
				payload := "house"
				if word != "" {
					payload = `{"meter":"house","register":` + word + `}`
				}
				if r := accept(payload); r.Status != "ok" || string(r.Data["accepted"]) != "[]" {
					t.Errorf("nothing is held: %+v", r)
				}
				for _, unknown := range []string{"enrgy", "energy_mwh", "power_w", ""} {
					r := accept(`{"meter":"house","register":` + string(encodeJSON(unknown)) + `}`)
					if r.Status != "error" || !strings.Contains(r.Error, `"`+unknown+`"`) {
						t.Errorf("%q: %+v", unknown, r)
					}
				}
				l.pass(30*time.Minute - 6*time.Second)
				m.energy(t, "0.445")
				l.pass(3 * time.Second)
				if n := len(l.eventsOf("value_held")); n != 1 {
					t.Fatalf("held %d times: %q", n, l.events())
				}
				if r := accept(payload); r.Status != "ok" || string(r.Data["accepted"]) != `["energy_gj"]` {
					t.Errorf("%+v", r)
				}
				if got := value(t, l.retained("kmp2mqtt/house"), "energy_gj"); got != "0.445" {
					t.Errorf("energy is %s after it was accepted", got)
				}
				if e := l.eventsOf("value_released"); len(e) != 1 || e[0].Data["reason"] != "it was accepted" {
					t.Errorf("%+v", e)
				}
				if len(l.unknown("house")) != 0 {
					t.Errorf("%q", l.unknown("house"))
				}
			})
		})
	}
}

// TestTrustRestart holds a counter against what was known before a restart.
func TestTrustRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := "DATA_DIR=" + t.TempDir()
		meters, m := one(t)
		settings := []string{"METERS=house=/dev/a", "REGISTERS=60,80", dir}
		l := newLab(t, meters, settings...)
		l.start()
		l.pass(censusOver)
		l.stop()
		m.energy(t, "0.445")
		l = newLab(t, meters, settings...)
		l.start()
		l.pass(2 * time.Second)
		m.energy(t, "227.450")
		l.pass(time.Hour)
		if diff := cmp.Diff([]string{"227.445", "227.450", "227.450", "227.450"}, l.values("house", "energy_gj")); diff != "" {
			t.Error(diff)
		}
		if n := len(l.eventsOf("value_held")); n != 1 {
			t.Errorf("%q", l.events())
		}
	})
}

// TestTrustSensors has temperature sensors that are broken.
func TestTrustSensors(t *testing.T) {
	for _, tt := range []struct{ fault, key, raw string }{
		{"t1_short", "supply_temperature_c", "0.00"},
		{"t1_open", "supply_temperature_c", "185.00"},
		{"t2_short", "return_temperature_c", "0.00"},
		{"t2_open", "return_temperature_c", "185.00"},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Start: time.Date(2026, 1, 15, 8, 0, 0, 0, time.UTC)}}, "METERS=house=/dev/a?interval=10m")
				l.start()
				l.pass(time.Hour)
				if got := value(t, l.retained("kmp2mqtt/house"), "info"); got != "[]" {
					t.Errorf("info is %s", got)
				}
				sims["/dev/a"].SetFaults(sim.Faults{Sensor: tt.fault})
				before := len(l.values("house", tt.key))
				l.pass(time.Hour)
				for _, v := range l.values("house", tt.key)[before:] {
					if v != "null" {
						t.Errorf("%s is %s", tt.key, v)
					}
				}
				state := l.retained("kmp2mqtt/house")
				for _, key := range []string{"power_kw", "temperature_difference_k"} {
					if got := value(t, state, key); got != "null" {
						t.Errorf("%s is %s without a sensor", key, got)
					}
				}
				if why := l.unknown("house")[tt.key]; why == "" {
					t.Errorf("no reason: %q", l.unknown("house"))
				}
				if info := value(t, state, "info"); info == "[]" || info == "null" {
					t.Errorf("info is %s", info)
				}
				events := l.eventsOf("value_unknown")
				n := 0
				for _, e := range events {
					if e.Data["key"] == tt.key {
						n++
					}
				}
				if n != 1 {
					t.Errorf("%+v", events)
				}
				if n := len(l.eventsOf("info_code")); n != 1 {
					t.Errorf("%d events of the info code", n)
				}
				l.want("kmp2mqtt/house/availability", "online")
				sims["/dev/a"].SetFaults(sim.Faults{})
				l.pass(20 * time.Minute)
				if got := value(t, l.retained("kmp2mqtt/house"), tt.key); got == "null" || got == tt.raw {
					t.Errorf("%s is %s afterwards", tt.key, got)
				}
				for key := range l.unknown("house") {
					if !strings.HasPrefix(key, "weighted_") { // too little has flowed yet
						t.Errorf("%s: %s", key, l.unknown("house")[key])
					}
				}
				if got := value(t, l.retained("kmp2mqtt/house"), "info"); got != "[]" {
					t.Errorf("info is %s", got)
				}
			})
		})
	}
}

// TestTrustInfo has an info register that is not answered: the list is not known then.
func TestTrustInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Faults: sim.Faults{Info: 1}}}, "METERS=house=/dev/a?interval=10m", "MQTT_VALUES=true")
		l.start()
		l.pass(time.Minute)
		var info []string
		if err := json.Unmarshal([]byte(value(t, l.retained("kmp2mqtt/house"), "info")), &info); err != nil || len(info) != 1 {
			t.Errorf("%q, %v", info, err)
		}
		l.want("kmp2mqtt/house/info", info[0])
		if config := l.retained("homeassistant/device/kmp_80123456/config"); !strings.Contains(config, `"kmp_80123456_problem"`) {
			t.Error(config)
		}
		sims["/dev/a"].SetFaults(sim.Faults{MissingRegisters: []uint16{99}})
		l.pass(time.Hour)
		state := l.retained("kmp2mqtt/house")
		if a, b := value(t, state, "info"), value(t, state, "info_code"); a != "null" || b != "null" {
			t.Errorf("info is %s, info_code %s", a, b)
		}
		if n := len(l.eventsOf("info_code")); n != 0 {
			t.Errorf("%q", l.events())
		}
	})
	// A meter that has none has no entity for it.
	synctest.Test(t, func(t *testing.T) {
		l, _ := newSimLab(t, map[string]sim.Config{"/dev/e": {Model: "382"}}, "METERS=power=/dev/e")
		l.start()
		l.pass(time.Minute)
		if config := l.retained("homeassistant/device/kmp_80123456/config"); config == "" || strings.Contains(config, `"kmp_80123456_problem"`) {
			t.Error(config)
		}
		if got := value(t, l.retained("kmp2mqtt/power"), "info"); got != "" {
			t.Errorf("info is %s", got)
		}
	})
}

// rat is a number of a state.
func rat(t *testing.T, digits string) *big.Rat {
	t.Helper()
	x, ok := new(big.Rat).SetString(digits)
	if !ok {
		t.Fatalf("%q is no number", digits)
	}
	return x
}

// TestTrustFine follows the exact counter over restarts and many wraps of its register.
func TestTrustFine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := "DATA_DIR=" + t.TempDir()
		m, err := sim.New(sim.Config{FineModulus: 100_000, Start: time.Date(2026, 1, 10, 0, 0, 0, 0, time.UTC), Seed: 3})
		if err != nil {
			t.Fatal(err)
		}
		last, wraps, fineBefore := new(big.Rat), 0, new(big.Rat)
		step := big.NewRat(1, 1000)
		for life := range 4 {
			l := newLab(t, nil, "METERS=house=sim://403?interval=10m", dir)
			l.lines.sims = map[string]*sim.Meter{"sim://403": m}
			l.start()
			l.pass(36 * time.Hour)
			states := l.sent("kmp2mqtt/house")
			for i, state := range states {
				fine, coarse, register := value(t, state, "energy_fine_gj"), value(t, state, "energy_gj"), value(t, state, "energy_high_resolution_wh")
				if life > 0 && (fine == "null" || fine == "") {
					t.Fatalf("life %d, state %d: %s", life, i, state)
				}
				if fine == "null" {
					continue
				}
				x := rat(t, fine)
				if x.Cmp(last) < 0 {
					t.Errorf("life %d, state %d: %s after %s", life, i, fine, last.FloatString(7))
				}
				if off := new(big.Rat).Sub(x, rat(t, coarse)); off.Abs(off).Cmp(step) > 0 {
					t.Errorf("life %d, state %d: fine %s, coarse %s", life, i, fine, coarse)
				}
				last = x
				r := rat(t, register)
				if r.Cmp(fineBefore) < 0 {
					wraps++
				}
				fineBefore = r
			}
			if len(states) < 200 {
				t.Errorf("%d readings", len(states))
			}
			if held := l.eventsOf("value_held"); held != nil {
				t.Errorf("%+v", held)
			}
			l.stop()
			time.Sleep(10 * time.Minute)
		}
		if wraps == 0 {
			t.Error("the register never began again")
		}
	})
}

// TestTrustGlance reads chosen registers: the guards see to what is answered, and nothing
// else becomes of it.
func TestTrustGlance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60,80", "READ_INTERVAL=1h")
		l.start()
		l.pass(censusOver)
		states, events := len(l.sent("kmp2mqtt/house")), len(l.events())
		m.energy(t, "0.445")
		for range 4 {
			got := l.command("kmp2mqtt/house/get", `{"registers":["energy","flow",86,7000]}`, "kmp2mqtt/house/response", time.Minute)
			if len(got) != 1 {
				t.Fatalf("%s", got)
			}
			r := decodeReply(t, got[0])
			if r.Status != "ok" || string(r.Data["energy_gj"]) != "227.445" || string(r.Data["flow_l_h"]) != "128" || !slices.Equal(r.Unsupported, []int{7000}) {
				t.Errorf("%s", got)
			}
		}
		m.energy(t, "227.446")
		if n := len(l.sent("kmp2mqtt/house")); n != states {
			t.Errorf("%d states came of it", n-states)
		}
		if got := l.events(); len(got) != events {
			t.Errorf("%q", got[events:])
		}
		l.pass(2 * time.Hour)
		if diff := cmp.Diff([]string{"227.446", "227.446"}, l.values("house", "energy_gj")[states:]); diff != "" {
			t.Error(diff)
		}
		if got := l.events(); len(got) != events {
			t.Errorf("%q", got[events:])
		}
		if state := l.retained("kmp2mqtt/house"); strings.Contains(state, "flow") {
			t.Errorf("what was tried stays: %s", state)
		}
	})
}
