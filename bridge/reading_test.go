package bridge

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kmp2mqtt/bridge/numbers"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

func values(t *testing.T, registers ...kmp.Register) []numbers.Value {
	t.Helper()
	var list []numbers.Value
	for _, r := range registers {
		v, err := numbers.Decode(r)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, v)
	}
	return list
}

func TestAnnounce(t *testing.T) {
	energy := func(unit kmp.Unit, digits string) kmp.Register { return number(t, 60, unit, digits) }
	power := number(t, 80, kmp.UnitKW, "6.4")
	asked := []uint16{60, 80}
	var keys []announced
	for _, tt := range []struct {
		name    string
		values  []numbers.Value
		keys    string // key/decimals, (former)
		news    bool
		changes int
	}{
		{"nothing", nil, "", false, 0},
		{"first, answered in another order", values(t, power, energy(kmp.UnitGJ, "1.5")), "energy_gj/1 power_kw/1", true, 0},
		{"the same", values(t, energy(kmp.UnitGJ, "2.5"), power), "energy_gj/1 power_kw/1", false, 0},
		{"fewer", values(t, power), "energy_gj/1 power_kw/1", false, 0},
		{"more digits", values(t, energy(kmp.UnitGJ, "2.512")), "energy_gj/3 power_kw/1", true, 0},
		{"fewer digits", values(t, energy(kmp.UnitGJ, "3")), "energy_gj/3 power_kw/1", false, 0},
		{"another unit", values(t, energy(kmp.UnitMWh, "0.8")), "(energy_gj/3) energy_mwh/1 power_kw/1", true, 1},
		{"still the other", values(t, energy(kmp.UnitMWh, "0.9")), "(energy_gj/3) energy_mwh/1 power_kw/1", false, 0},
		{"and back", values(t, energy(kmp.UnitGJ, "4")), "energy_gj/3 (energy_mwh/1) power_kw/1", true, 1},
		{"a stranger", values(t, number(t, 99, kmp.UnitNone, "0")), "energy_gj/3 (energy_mwh/1) power_kw/1 info_code/0", true, 0},
	} {
		before := fmt.Sprint(keys)
		after, news, changes := announce(keys, tt.values, asked)
		if fmt.Sprint(keys) != before {
			t.Errorf("%s: the argument was changed", tt.name)
		}
		var got []string
		for _, a := range after {
			s := fmt.Sprintf("%s/%d", a.key, a.decimals)
			if a.former {
				s = "(" + s + ")"
			}
			got = append(got, s)
		}
		if s := strings.Join(got, " "); s != tt.keys || news != tt.news || len(changes) != tt.changes {
			t.Errorf("%s: %s, news %t, %d changes; want %s, %t, %d", tt.name, s, news, len(changes), tt.keys, tt.news, tt.changes)
		}
		keys = after
	}
	var announcedKeys []string
	for _, m := range measurements(keys, "") {
		announcedKeys = append(announcedKeys, m.Key)
	}
	if diff := cmp.Diff([]string{"energy_gj", "power_kw", "info_code"}, announcedKeys); diff != "" {
		t.Error(diff)
	}
}

// TestStateDigits keeps every digit that the meter sent, and only those.
func TestStateDigits(t *testing.T) {
	for _, digits := range []string{"227.445", "12.50", "0.00", "-3.7", "4294967295", "0.000001", "1"} {
		vs := values(t, number(t, 60, kmp.UnitGJ, digits))
		keys, _, _ := announce(nil, vs, nil)
		at := time.Date(2026, 11, 21, 8, 45, 1, 999, time.FixedZone("", 3600))
		got := string(stateJSON(Reading{Time: at, Values: vs}, keys))
		if want := `{"time":"2026-11-21T07:45:01Z","energy_gj":` + digits + `}`; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestTopicsOfValues keeps the topics of values apart from those with a meaning.
func TestTopicsOfValues(t *testing.T) {
	for _, r := range catalog.Registers() {
		for _, u := range catalog.Units() {
			switch key := catalog.Key(r.Name, u.Code); key {
			case "availability", "diagnostics", "get", "set", "response", "time":
				t.Errorf("register %d in unit %02X has the key %s", r.ID, byte(u.Code), key)
			}
		}
	}
}

// TestManyMeters has more meters than fit into one message.
func TestManyMeters(t *testing.T) {
	list := make([]status, MaxMeters)
	for i := range list {
		list[i].meter = Meter{Name: fmt.Sprint("meter", i), Serial: fmt.Sprint(i), Line: "tcp://gateway.example:2001"}
	}
	settings := map[string]string{"METERS": strings.Repeat("x", maxPayloadBytes), "MQTT_TOPIC": "k"}
	topics := topics{base: "k", discovery: "h"}
	for _, m := range []Message{infoMessage(topics, Deps{}, 0, list, settings), healthMessage(topics, health{}, list)} {
		var content struct {
			LeftOut int `json:"meters_left_out"`
		}
		if err := json.Unmarshal(m.Payload, &content); err != nil || content.LeftOut != MaxMeters || checkMessage(m) != nil {
			t.Errorf("%s: %v, %+v, %v", m.Topic, err, content, checkMessage(m))
		}
	}
	if settings["METERS"] == "" {
		t.Error("the settings were changed")
	}
}

// BenchmarkReadingToMessages is what a reading of 16 registers costs after the line: decoding
// its values, state, diagnostics, and handing them to the outbox.
func BenchmarkReadingToMessages(b *testing.B) {
	var registers []kmp.Register
	for i, id := range usualRegisters("403") {
		registers = append(registers, number(b, id, kmp.UnitGJ, fmt.Sprintf("%d.%03d", 1000+i, i)))
	}
	topics, box := topics{base: "kmp2mqtt", discovery: "homeassistant"}, NewOutbox()
	s := status{meter: Meter{Name: "house", Serial: "80123456", Line: "/dev/ttyUSB0"}, interval: time.Minute}
	var keys []announced
	b.ReportAllocs()
	for b.Loop() {
		r := Reading{Meter: s.meter, Time: time.Unix(1_800_000_000, 0)}
		for _, register := range registers {
			v, err := numbers.Decode(register)
			if err != nil {
				b.Fatal(err)
			}
			r.Values = append(r.Values, v)
		}
		keys, _, _ = announce(keys, r.Values, nil)
		if err := box.Put(append(stateMessages(topics, r, keys, false), diagnosticsMessage(topics, s, time.Now()))...); err != nil {
			b.Fatal(err)
		}
	}
}
