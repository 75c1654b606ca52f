package numbers

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"kmp2mqtt/kmp"
)

// noon is when the tests begin.
var noon = time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)

// kinds are the types of events in order.
func kinds(events []Event) string {
	var list []string
	for _, e := range events {
		list = append(list, e.Type)
	}
	return strings.Join(list, " ")
}

// shown is a value as text, "null" when it is not known, "" when it is not there.
func shown(r Result, key string) string {
	v, ok := find(r, key)
	switch {
	case !ok:
		return ""
	case v.Value == nil:
		return "null"
	}
	return v.Value.String()
}

func TestCounters(t *testing.T) {
	const soon = 30 * time.Minute
	// look is one reading: when it comes, what it brings and what becomes of it.
	type look struct {
		after  time.Duration
		digits string
		shows  string
		events string
	}
	for _, tt := range []struct {
		name  string
		model string
		id    uint16
		unit  kmp.Unit
		looks []look
	}{
		{"the first is trusted", "403", 60, kmp.UnitGJ, []look{{0, "99999.999", "99999.999", ""}}},
		{"rises and stays", "403", 60, kmp.UnitGJ, []look{
			{0, "227.445", "227.445", ""},
			{soon, "227.445", "227.445", ""},
			{soon, "227.460", "227.460", ""},
		}},
		{"falls once", "403", 60, kmp.UnitGJ, []look{
			{0, "227.445", "227.445", ""},
			{soon, "227.444", "227.445", "value_held"},
			{soon, "227.446", "227.446", ""},
			{soon, "227.400", "227.446", "value_held"},
			{soon, "227.447", "227.447", ""},
		}},
		{"falls for good", "403", 60, kmp.UnitGJ, []look{
			{0, "227.445", "227.445", ""},
			{soon, "0.010", "227.445", "value_held"},
			{soon, "0.020", "227.445", "value_held"},
			{soon, "0.030", "0.030", "value_released"},
			{soon, "0.040", "0.040", ""},
		}},
		{"jumps once", "403", 60, kmp.UnitGJ, []look{
			{0, "227.445", "227.445", ""},
			{soon, "1227.445", "227.445", "value_held"},
			{soon, "227.450", "227.450", ""},
		}},
		{"jumps for good", "403", 60, kmp.UnitGJ, []look{
			{0, "227.445", "227.445", ""},
			{soon, "1227.445", "227.445", "value_held"},
			{32 * time.Second, "1227.445", "227.445", "value_held"},
			{32 * time.Second, "1227.446", "1227.446", "value_released"},
		}},
		{"nonsense that does not agree with itself", "403", 60, kmp.UnitGJ, []look{
			{0, "227.445", "227.445", ""},
			{soon, "5000.000", "227.445", "value_held"},
			{soon, "4000.000", "227.445", "value_held"},
			{soon, "9000.000", "227.445", "value_held"},
			{soon, "3.000", "227.445", "value_held"},
			{soon, "227.500", "227.500", ""},
		}},
		{"a suspect is forgotten by a good reading", "403", 60, kmp.UnitGJ, []look{
			{0, "227.445", "227.445", ""},
			{soon, "5.000", "227.445", "value_held"},
			{soon, "5.001", "227.445", "value_held"},
			{soon, "227.450", "227.450", ""},
			{soon, "5.002", "227.450", "value_held"},
			{soon, "5.003", "227.450", "value_held"},
			{soon, "5.004", "5.004", "value_released"},
		}},
		{"an outage of a week", "403", 68, kmp.UnitCubicMetre, []look{
			{0, "2131.93", "2131.93", ""},
			{soon, "2160.00", "2131.93", "value_held"},
			{soon, "2131.95", "2131.95", ""},
			{7 * 24 * time.Hour, "6000.00", "6000.00", ""},
			{7 * 24 * time.Hour, "14000.00", "6000.00", "value_held"},
		}},
		{"the clock goes back", "403", 68, kmp.UnitCubicMetre, []look{
			{0, "2131.93", "2131.93", ""},
			{soon, "2132.10", "2132.10", ""},
			{-24 * time.Hour, "2133.10", "2133.10", ""},
			{soon, "2134.10", "2134.10", ""},
			{-48 * time.Hour, "2200.10", "2134.10", "value_held"},
		}},
		{"no time at all", "403", 68, kmp.UnitCubicMetre, []look{
			{0, "2131.93", "2131.93", ""},
			{0, "2131.95", "2131.95", ""}, // two steps and a minute's flow
			{0, "2140.00", "2131.95", "value_held"},
		}},
		{"another unit is another counter", "403", 60, kmp.UnitMWh, []look{{0, "63.180", "63.180", ""}, {soon, "63.181", "63.181", ""}}},
		{"fewer digits, more digits", "403", 60, kmp.UnitGJ, []look{
			{0, "227.44", "227.44", ""},
			{soon, "227.440", "227.440", ""},
			{soon, "227.445", "227.445", ""},
			{soon, "227.44", "227.445", "value_held"}, // less is less
			{soon, "227.45", "227.45", ""},
		}},
		{"hours", "403", 1004, kmp.UnitHour, []look{
			{0, "7039", "7039", ""},
			{soon, "7040", "7040", ""},
			{soon, "7200", "7040", "value_held"},
			{soon, "7041", "7041", ""},
		}},
		{"events have no rate", "403", 113, kmp.UnitNumber, []look{
			{0, "2", "2", ""},
			{soon, "200", "200", ""},
			{soon, "3", "200", "value_held"},
		}},
		{"a difference may fall", "603", 178, kmp.UnitGJ, []look{{0, "5.000", "5.000", ""}, {soon, "-3.000", "-3.000", ""}}},
		{"resettable: from the beginning", "382", 17, kmp.UnitKWh, []look{
			{0, "120.5", "120.5", ""},
			{soon, "0.4", "0.4", ""},
			{soon, "1.0", "1.0", ""},
		}},
		{"resettable: but not to anywhere", "382", 17, kmp.UnitKWh, []look{
			{0, "1020.5", "1020.5", ""},
			{soon, "900.0", "1020.5", "value_held"},
			{soon, "1021.0", "1021.0", ""},
		}},
		{"truncated: it wraps", "403", 266, kmp.UnitWh, []look{{0, "9999990", "9999990", ""}, {soon, "10", "10", ""}}},
		{"an unknown model has the widest bounds", "", 60, kmp.UnitGJ, []look{
			{0, "227.445", "227.445", ""},
			{soon, "1227.445", "1227.445", ""},
			{soon, "100000.000", "1227.445", "value_held"},
		}},
		{"electricity", "382", 1, kmp.UnitKWh, []look{
			{0, "12345.6", "12345.6", ""},
			{soon, "12390.0", "12390.0", ""},
			{soon, "12490.0", "12390.0", "value_held"},
		}},
		{"water", "21", 68, kmp.UnitCubicMetre, []look{
			{0, "120.001", "120.001", ""},
			{soon, "122.900", "122.900", ""},
			{soon, "130.000", "122.900", "value_held"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s State
			at := noon
			for i, look := range tt.looks {
				at = at.Add(look.after)
				v := value(t, tt.id, tt.unit, look.digits)
				result := s.Judge(at, tt.model, []Value{v})
				if got := shown(result, v.Key); got != look.shows {
					t.Errorf("reading %d: %s shows %s, want %s (%v)", i, look.digits, got, look.shows, result.Unknown)
				}
				if got := kinds(result.Events); got != look.events {
					t.Errorf("reading %d: events %q, want %q", i, got, look.events)
				}
				held := look.events == ValueHeld
				if _, told := result.Unknown[v.Key]; result.Again != held || told != held {
					t.Errorf("reading %d: again %t, unknown %v", i, result.Again, result.Unknown)
				}
				s = reopened(t, s)
			}
		})
	}
}

// An event about a held counter says all that its reader needs.
func TestHeldEvent(t *testing.T) {
	var s State
	s.Judge(noon, "403", []Value{value(t, 60, kmp.UnitGJ, "227.445")})
	result := s.Judge(noon.Add(time.Hour), "403", []Value{value(t, 60, kmp.UnitGJ, "5.000")})
	if len(result.Events) != 1 {
		t.Fatal(result.Events)
	}
	got := fmt.Sprint(result.Events[0].Data)
	want := "map[count:1 held:5.000 kept:227.445 key:energy_gj reason:a counter does not fall register:energy " +
		"released_by:2 more readings to confirm it, or a request on bridge/request/accept]"
	if got != want {
		t.Errorf("data %s\nwant %s", got, want)
	}
}

func TestAccept(t *testing.T) {
	energy := func(digits string) []Value {
		return []Value{value(t, 60, kmp.UnitGJ, digits), value(t, 68, kmp.UnitCubicMetre, digits)}
	}
	begin := func() State {
		var s State
		s.Judge(noon, "403", energy("227.445"))
		s.Judge(noon.Add(time.Hour), "403", energy("5.000"))
		return s
	}
	t.Run("nothing held", func(t *testing.T) {
		var s State
		if got := s.Accept(); got != nil {
			t.Error(got)
		}
	})
	t.Run("all", func(t *testing.T) {
		s := begin()
		if got := s.Accept(); !slices.Equal(got, []string{"energy_gj", "volume_m3"}) {
			t.Error(got)
		}
		s = reopened(t, s)
		result := s.Judge(noon.Add(2*time.Hour), "403", energy("5.001"))
		if shown(result, "energy_gj") != "5.001" || kinds(result.Events) != "value_released value_released" {
			t.Error(result)
		}
	})
	t.Run("one", func(t *testing.T) {
		s := begin()
		if got := s.Accept("volume_m3", "power_kw"); !slices.Equal(got, []string{"volume_m3"}) {
			t.Error(got)
		}
		result := s.Judge(noon.Add(2*time.Hour), "403", energy("5.001"))
		if shown(result, "energy_gj") != "227.445" || shown(result, "volume_m3") != "5.001" {
			t.Error(result)
		}
	})
	t.Run("not what was held", func(t *testing.T) {
		s := begin()
		s.Accept()
		result := s.Judge(noon.Add(2*time.Hour), "403", energy("9000.000"))
		if shown(result, "energy_gj") != "227.445" {
			t.Error(result)
		}
	})
}

// The nominal flow, once read twice, narrows the bounds.
func TestNominalFlow(t *testing.T) {
	look := func(s *State, at time.Time, nominal, volume string) Result {
		return s.Judge(at, "603", []Value{value(t, 259, kmp.UnitCubicMPerH, nominal), value(t, 68, kmp.UnitCubicMetre, volume)})
	}
	for _, tt := range []struct {
		name            string
		first, second   string
		volume, becomes string
	}{
		{"small", "1.5", "1.5", "130.00", "120.50"},
		{"small and enough", "1.5", "1.5", "125.00", "125.00"},
		{"large", "150.0", "150.0", "130.00", "130.00"},
		{"in doubt", "150.0", "1.5", "130.00", "130.00"},
		{"nonsense", "0.0", "0.0", "130.00", "130.00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s State
			look(&s, noon, tt.first, "120.00")
			look(&s, noon.Add(time.Hour), tt.second, "120.50")
			result := s.Judge(noon.Add(2*time.Hour), "603", []Value{value(t, 68, kmp.UnitCubicMetre, tt.volume)})
			if got := shown(result, "volume_m3"); got != tt.becomes {
				t.Errorf("volume %s, want %s", got, tt.becomes)
			}
		})
	}
}

// A line that brings ever new keys does not grow the state without end.
func TestStateIsBounded(t *testing.T) {
	var s State
	for i := range 3000 {
		unit := kmp.Unit(i % 0x2E)
		id := []uint16{60, 61, 62, 63, 64, 65, 68, 69, 72, 73, 86, 87, 88}[i%13]
		s.Judge(noon.Add(time.Duration(i)*time.Minute), "603", []Value{value(t, id, unit, fmt.Sprint(i*1000))})
	}
	if n := len(s.m.Counters); n != maxKeys {
		t.Errorf("%d counters", n)
	}
	if err := s.Check(); err != nil {
		t.Error(err)
	}
}
