package numbers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/sim"
)

// lived is a state that holds something of everything.
func lived(t testing.TB) State {
	t.Helper()
	var s State
	for i := range 3 {
		s.Judge(noon.Add(time.Duration(i)*time.Hour), "603", []Value{
			value(t, 60, kmp.UnitGJ, "227.445"), value(t, 266, kmp.UnitWh, "3179166"),
			value(t, 68, kmp.UnitCubicMetre, []string{"2131.93", "2132.50", "7.00"}[i]), value(t, 239, kmp.UnitLitre, "2131934"),
			value(t, 74, kmp.UnitLitrePerH, "128"), value(t, 80, kmp.UnitKW, "52"),
			value(t, 86, kmp.UnitCelsius, "69.12"), value(t, 87, kmp.UnitCelsius, "33.41"), value(t, 88, kmp.UnitCelsius, "0.00"),
			value(t, 97, kmp.UnitCubicMC, "150432"), value(t, 110, kmp.UnitCubicMC, "71234"),
			value(t, 99, kmp.UnitNumber, "0"), value(t, 369, kmp.UnitNumber, "8"), value(t, 259, kmp.UnitCubicMPerH, "1.5"),
		})
	}
	return s
}

func TestStateRoundTrip(t *testing.T) {
	s := lived(t)
	m := s.m
	if len(m.Counters) == 0 || len(m.Unknown) == 0 || len(m.Nominal) != 2 || len(m.Info) != 2 || len(m.Fine) != 2 ||
		m.Last == nil || len(m.Derived) == 0 || !m.Power.Active || m.Counters["volume_m3"].Suspect == nil {
		t.Fatalf("something was not remembered: %+v", m)
	}
	again := reopened(t, s)
	if !reflect.DeepEqual(again.m, m) {
		t.Errorf("%+v\nbecame %+v", m, again.m)
	}
	// Indented and with other white space it is the same.
	data, err := json.Marshal(map[string]any{"numbers": s})
	if err != nil {
		t.Fatal(err)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, data, "", "\t"); err != nil {
		t.Fatal(err)
	}
	var file struct{ Numbers State }
	if err := json.Unmarshal(pretty.Bytes(), &file); err != nil || !reflect.DeepEqual(file.Numbers.m, m) {
		t.Errorf("%v: %+v", err, file.Numbers.m)
	}
	var zero State
	if err := zero.Check(); err != nil {
		t.Error(err)
	}
	zero = reopened(t, zero)
	if len(zero.m.Counters) != 0 {
		t.Error(zero.m)
	}
}

// Whatever single byte of a file is damaged, the state is refused or means the same.
func TestDamage(t *testing.T) {
	s := lived(t)
	good, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	refused := 0
	for range 3000 {
		data := bytes.Clone(good)
		switch random.IntN(3) {
		case 0:
			data[random.IntN(len(data))] ^= byte(1 << random.IntN(8))
		case 1:
			data = data[:random.IntN(len(data))]
		default:
			data[random.IntN(len(data))] = byte('0' + random.IntN(10))
		}
		var read State
		if err := json.Unmarshal(data, &read); err != nil {
			refused++
			var syntax *json.SyntaxError // found before the state is asked
			if !errors.Is(err, ErrDamaged) && !errors.As(err, &syntax) {
				t.Errorf("error %v", err)
			}
			if read.m != nil {
				t.Error("something of a damaged state was kept")
			}
			continue
		}
		if !reflect.DeepEqual(read.m, s.m) {
			t.Fatalf("accepted a damaged state: %s", data)
		}
	}
	if refused < 2500 {
		t.Errorf("refused %d of 3000", refused)
	}
}

func TestUnsoundStates(t *testing.T) {
	for _, tt := range []struct{ name, memory string }{
		{"nothing", `null`},
		{"key", `{"counters":{"Energy GJ":{"value":1,"at":1}}}`},
		{"no number", `{"counters":{"energy_gj":{"value":null,"at":1}}}`},
		{"time", `{"counters":{"energy_gj":{"value":1,"at":-1}}}`},
		{"far time", `{"counters":{"energy_gj":{"value":1,"at":999999999999}}}`},
		{"gap", `{"counters":{"energy_gj":{"value":1,"at":1,"gap":-5}}}`},
		{"count", `{"counters":{"energy_gj":{"value":1,"at":1,"suspect":{"value":1,"at":1,"count":3}}}}`},
		{"long number", `{"counters":{"energy_gj":{"value":1` + strings.Repeat("0", 50) + `,"at":1}}}`},
		{"info", `{"info":{"60":1}}`},
		{"nominal", `{"nominal":[1,2,3]}`},
		{"fine name", `{"fine":{"nope":{"fine":"a","exponent":0,"coarse":"b","unit":8,"moduli":[]}}}`},
		{"fine unit", `{"fine":{"energy_fine":{"fine":"a","exponent":0,"coarse":"b","unit":9,"moduli":[]}}}`},
		{"fine modulus", `{"fine":{"energy_fine":{"fine":"a","exponent":0,"coarse":"b","unit":8,"moduli":[7]}}}`},
		{"fine modulus twice", `{"fine":{"energy_fine":{"fine":"a","exponent":0,"coarse":"b","unit":8,"moduli":[10000,10000]}}}`},
		{"fine exponent", `{"fine":{"energy_fine":{"fine":"a","exponent":60,"coarse":"b","unit":8,"moduli":[]}}}`},
		{"fine doubts", `{"fine":{"energy_fine":{"fine":"a","exponent":0,"coarse":"b","unit":8,"moduli":[],"doubts":3}}}`},
		{"reason", `{"unknown":{"flow_l_h":"` + strings.Repeat("x", 300) + `"}}`},
		{"snapshot", `{"last":{"at":-1,"volume":1}}`},
		{"day", `{"day":{"began":-1}}`},
		{"power", `{"power":{"count":-1}}`},
		{"derived", `{"derived":["!"]}`},
		{"a field that is not ours", `{"more":1}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// With a checksum that fits: only the content is wrong.
			var m *memory
			sum := "00000000"
			if err := json.Unmarshal([]byte(tt.memory), &m); err != nil {
				m = nil
			} else if m != nil {
				if sum, err = m.sum(); err != nil {
					t.Fatal(err)
				}
			}
			var s State
			if err := json.Unmarshal(fmt.Appendf(nil, `{"sum":%q,"memory":%s}`, sum, tt.memory), &s); !errors.Is(err, ErrDamaged) {
				t.Errorf("error %v", err)
			}
			if m != nil && tt.name != "a field that is not ours" && (State{m}).Check() == nil {
				t.Error("Check finds nothing")
			}
		})
	}
}

// Any content of a file, its checksum made to fit, is refused or judged without a panic;
// what is published is then the reading, or what the file said was good, or null.
func FuzzState(f *testing.F) {
	good, err := json.Marshal(lived(f).m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, "227.445", int64(0))
	f.Add([]byte(`{}`), "0", int64(-1))
	f.Add([]byte(`{"counters":{"energy_gj":{"value":1e60,"at":1}}}`), "1E63", int64(1<<40))
	f.Add([]byte(`{"fine":{"energy_fine":{"fine":"energy_high_resolution_wh","exponent":0,"coarse":"energy_gj","unit":8,"moduli":[10000]}}}`), "-1", int64(5))
	f.Fuzz(func(t *testing.T, content []byte, digits string, seconds int64) {
		d, err := kmp.ParseDecimal(digits)
		if err != nil {
			return
		}
		data := content
		var m *memory
		if json.Unmarshal(content, &m) == nil && m != nil {
			if sum, err := m.sum(); err == nil {
				data, _ = json.Marshal(envelope{sum, m}) // it was marshalled a moment ago
			}
		}
		var s State
		if err := json.Unmarshal(data, &s); err != nil {
			if s.m != nil {
				t.Fatal("a refused state was kept")
			}
			return
		}
		var values []Value
		for _, v := range []struct {
			id   uint16
			unit kmp.Unit
		}{
			{60, kmp.UnitGJ},
			{266, kmp.UnitWh},
			{68, kmp.UnitCubicMetre},
			{239, kmp.UnitLitre},
			{97, kmp.UnitCubicMC},
			{110, kmp.UnitCubicMC},
			{74, kmp.UnitLitrePerH},
			{80, kmp.UnitKW},
			{86, kmp.UnitCelsius},
			{87, kmp.UnitCelsius},
			{99, kmp.UnitNumber},
			{259, kmp.UnitCubicMPerH},
		} {
			register := catalog.Lookup(v.id)
			values = append(values, Value{register, v.unit, catalog.Key(register.Name, v.unit), d})
		}
		before := maps.Clone(s.m.Counters)
		result := s.Judge(time.Unix(seconds%(1<<38), 0), "403", values)
		for i, v := range values {
			got := result.Values[i].Value
			if kept := before[v.Key]; got != nil && got != v.Value && got != kmp.Value(kept.Value) {
				t.Fatalf("%s is %v, from %v and %v", v.Key, got, v.Value, kept)
			}
		}
		if err := s.Check(); err != nil {
			t.Fatalf("an own state is not sound: %v", err)
		}
		if _, err := json.Marshal(s); err != nil {
			t.Fatal(err)
		}
		s.Accept()
	})
}

// Nothing is held or unknown because one register or the other was left out, and the
// values given keep their order.
func TestPartialReadings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := newMeter(t, sim.Config{Model: "603", Seed: 9})
		random := rand.New(rand.NewPCG(9, 9))
		var s State
		s.Judge(time.Now(), "603", visit(t, meter, usual...))
		for range 2000 {
			time.Sleep(pause(random))
			ids := slices.DeleteFunc(slices.Clone(usual), func(uint16) bool { return random.IntN(2) == 0 })
			given := visit(t, meter, ids...)
			result := s.Judge(time.Now(), "603", given)
			for i, v := range given {
				if result.Values[i] != v {
					t.Fatalf("%s: %v became %v: %v", v.Key, v.Value, result.Values[i].Value, result.Unknown)
				}
			}
			for _, v := range result.Values[len(given):] {
				if v.Register.ID != 0 || v.Value == nil && result.Unknown[v.Key] == "" {
					t.Fatalf("derived %s: %v, %v", v.Key, v.Value, result.Unknown)
				}
			}
		}
	})
}

// Every derived number is described, and described once.
func TestDerived(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Derived() {
		if r.ID != 0 || r.Name == "" || r.Title == "" || r.Description == "" || r.Kind == catalog.Unknown || seen[r.Name] {
			t.Errorf("%+v", r)
		}
		if _, taken := catalog.ByName(r.Name); taken {
			t.Errorf("%s is a register's name", r.Name)
		}
		seen[r.Name] = true
	}
	for _, p := range pairs {
		if !seen[p.name] {
			t.Errorf("%s is not described", p.name)
		}
	}
	for _, w := range weighted {
		if !seen[w.name] {
			t.Errorf("%s is not described", w.name)
		}
	}
}
