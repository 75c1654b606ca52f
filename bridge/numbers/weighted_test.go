package numbers

import (
	"fmt"
	"testing"
	"time"

	"kmp2mqtt/kmp"
)

// look is a meter through which every hour 1 m³ flows, 70 °C there and 40 °C back.
func look(t *testing.T, s *State, at time.Time) Result {
	t.Helper()
	hours := at.Sub(time.Date(2025, 12, 1, 0, 0, 0, 0, time.UTC)).Hours()
	return s.Judge(at, "403", []Value{
		value(t, 68, kmp.UnitCubicMetre, fmt.Sprintf("%.2f", 100+hours)),
		value(t, 97, kmp.UnitCubicMC, fmt.Sprintf("%.0f", 7000+70*hours)),
		value(t, 110, kmp.UnitCubicMC, fmt.Sprintf("%.0f", 4000+40*hours)),
	})
}

const today, month = "weighted_cooling_today_k", "weighted_cooling_month_k"

func TestAnchors(t *testing.T) {
	copenhagen, err := time.LoadLocation("Europe/Copenhagen")
	if err != nil {
		t.Fatal(err)
	}
	at := func(day, hour, minute int) time.Time { return time.Date(2026, 1, day, hour, minute, 0, 0, time.UTC) }
	for _, tt := range []struct {
		name  string
		looks []time.Time
		today string // at the last one
		month string
	}{
		{"a reading before midnight", []time.Time{at(15, 22, 30), at(16, 9, 0)}, "30.00", "null"},
		{"too long before", []time.Time{at(15, 22, 29), at(16, 9, 0)}, "null", "null"},
		{"one behind it", []time.Time{at(16, 1, 30), at(16, 12, 0)}, "30.00", "null"},
		{"too late", []time.Time{at(16, 1, 31), at(16, 12, 0), at(16, 23, 0)}, "null", "null"},
		{"the next day", []time.Time{at(16, 1, 31), at(16, 23, 0), at(17, 10, 0)}, "30.00", "null"},
		{"not yesterday's", []time.Time{at(15, 23, 0), at(16, 12, 0), at(17, 12, 0)}, "null", "null"},
		{"too little has flowed", []time.Time{at(15, 23, 59), at(16, 3, 0)}, "null", "null"},
		{"nothing has flowed", []time.Time{at(15, 23, 59)}, "null", "null"},
		{"the month, before it began", []time.Time{at(1, -20, 0), at(5, 12, 0)}, "null", "30.00"},
		{"the month, after it began", []time.Time{at(1, 23, 0), at(5, 12, 0)}, "null", "30.00"},
		{"the month, too late", []time.Time{at(2, 1, 0), at(5, 12, 0)}, "null", "null"},
		{"midnight where the house stands", []time.Time{at(15, 22, 0).In(copenhagen), at(16, 9, 0).In(copenhagen)}, "30.00", "null"},
		{"and not elsewhere", []time.Time{at(15, 23, 50).In(time.FixedZone("", 6*3600)), at(16, 9, 0).In(time.FixedZone("", 6*3600))}, "null", "null"},
		{"a day of 23 hours", []time.Time{
			time.Date(2026, 3, 29, 0, 10, 0, 0, copenhagen), time.Date(2026, 3, 29, 23, 0, 0, 0, copenhagen),
		}, "30.00", "null"},
		{"a clock that goes back", []time.Time{at(15, 23, 30), at(16, 12, 0), at(15, 12, 0)}, "null", "null"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s State
			var result Result
			for _, moment := range tt.looks {
				s = reopened(t, s)
				result = look(t, &s, moment)
			}
			if shown(result, today) != tt.today || shown(result, month) != tt.month {
				t.Errorf("today %s, month %s, want %s, %s: %v", shown(result, today), shown(result, month), tt.today, tt.month, result.Unknown)
			}
		})
	}
}

func TestWeightedTemperatures(t *testing.T) {
	var s State
	look(t, &s, time.Date(2025, 12, 31, 23, 0, 0, 0, time.UTC))
	result := look(t, &s, time.Date(2026, 1, 1, 20, 0, 0, 0, time.UTC))
	for key, want := range map[string]string{
		"weighted_supply_temperature_today_c": "70.00", "weighted_return_temperature_today_c": "40.00", today: "30.00",
		"weighted_supply_temperature_month_c": "70.00", "weighted_return_temperature_month_c": "40.00", month: "30.00",
	} {
		if got := shown(result, key); got != want {
			t.Errorf("%s is %s, want %s", key, got, want)
		}
	}
	// Only some of the registers: what cannot be said is null, what has nothing to do
	// with them is not there.
	result = s.Judge(noon, "403", []Value{value(t, 110, kmp.UnitCubicMC, "90000")})
	if shown(result, today) != "null" || shown(result, "weighted_supply_temperature_today_c") != "" {
		t.Error(result.Values)
	}
}

// The value appears as soon as its error cannot be more than half a degree: with steps
// of 1 m³·°C and 0.01 m³ and 70 °C, from (1 + 70 × 0.01) / (V - 0.01) = 0.5 on.
func TestResolution(t *testing.T) {
	for _, tt := range []struct{ volume, supply, shows string }{
		{"103.40", "7238", "null"},
		{"103.41", "7238", "69.79"},
		{"100.00", "7000", "null"},
		{"100.01", "7000", "null"},
	} {
		var s State
		midnight := time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)
		s.Judge(midnight, "403", []Value{value(t, 68, kmp.UnitCubicMetre, "100.00"), value(t, 97, kmp.UnitCubicMC, "7000")})
		result := s.Judge(midnight.Add(9*time.Hour), "403", []Value{
			value(t, 68, kmp.UnitCubicMetre, tt.volume), value(t, 97, kmp.UnitCubicMC, tt.supply),
		})
		if got := shown(result, "weighted_supply_temperature_today_c"); got != tt.shows {
			t.Errorf("%s m³: %s, want %s", tt.volume, got, tt.shows)
		}
		if shown(result, today) != "" {
			t.Error("cooling without E9")
		}
	}
}

// A counter that is held says nothing; one that is let through voids the day.
func TestWeightedWithHeldCounter(t *testing.T) {
	var s State
	day := time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)
	look(t, &s, day)
	for i, want := range []string{"null", "null", "null", "null"} {
		result := s.Judge(day.Add(time.Duration(10+i)*time.Hour), "403", []Value{
			value(t, 68, kmp.UnitCubicMetre, fmt.Sprintf("%d.00", 5+i)),
			value(t, 97, kmp.UnitCubicMC, "99000"), value(t, 110, kmp.UnitCubicMC, "60000"),
		})
		if got := shown(result, today); got != want {
			t.Errorf("reading %d: %s, want %s", i, got, want)
		}
	}
	if s.m.Day.From != nil {
		t.Error("the day goes on from before the jump")
	}
}

// A computer without a clock of its own starts anew in the middle of the month, reads once in
// 1970 and is set then: what the month began with still counts.
func TestClockSetLate(t *testing.T) {
	var s State
	look(t, &s, time.Date(2026, 1, 1, 0, 10, 0, 0, time.UTC))
	result := s.Judge(time.Unix(30, 0), "403", []Value{
		value(t, 68, kmp.UnitCubicMetre, "1204.00"), value(t, 97, kmp.UnitCubicMC, "84280"), value(t, 110, kmp.UnitCubicMC, "48160"),
	})
	if got := shown(result, month); got != "null" {
		t.Errorf("in 1970: %s", got)
	}
	look(t, &s, time.Date(2026, 1, 20, 12, 0, 0, 0, time.UTC))
	result = look(t, &s, time.Date(2026, 1, 20, 13, 0, 0, 0, time.UTC))
	if got := shown(result, month); got != "30.00" {
		t.Errorf("%s, want 30.00: %v", got, result.Unknown)
	}
}
