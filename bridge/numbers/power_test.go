package numbers

import (
	"testing"
	"time"

	"kmp2mqtt/kmp"
)

func TestPower(t *testing.T) {
	type look struct{ flow, t1, t2, power, shows, events string }
	good := look{"128", "69.12", "33.41", "5.2", "5.3", ""} // 128 × 35.71 × 4.15 / 3600 = 5.269
	bad := look{"128", "69.12", "33.41", "52.0", "5.3", ""}
	told := func(l look, event string) look { l.events = event; return l }
	for _, tt := range []struct {
		name  string
		looks []look
	}{
		{"agrees", []look{good, good, good, good}},
		{"twice is not enough", []look{bad, bad, good, bad, bad, good}},
		{"three times", []look{bad, bad, told(bad, "power_mismatch"), bad, bad, bad}},
		{"and over", []look{bad, bad, told(bad, "power_mismatch"), good, bad, good, good, told(good, "value_released"), good}},
		{"small numbers may differ", []look{{"10", "40.00", "30.00", "0.9", "0.1", ""}, {"10", "40.00", "30.00", "0.9", "0.1", ""}, {"10", "40.00", "30.00", "0.9", "0.1", ""}}},
		{"a third may differ", []look{{"500", "70.00", "40.00", "13.5", "17.3", ""}, {"500", "70.00", "40.00", "13.5", "17.3", ""}, {"500", "70.00", "40.00", "13.5", "17.3", ""}}},
		{"cooling has the other sign", []look{{"500", "6.00", "12.00", "3.4", "-3.5", ""}, {"500", "6.00", "12.00", "3.4", "-3.5", ""}, {"500", "6.00", "12.00", "3.4", "-3.5", ""}}},
		{"a sensor fault says nothing", []look{{"128", "0.00", "33.41", "0.0", "null", "value_unknown value_unknown"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s State
			for i, l := range tt.looks {
				result := s.Judge(noon.Add(time.Duration(i)*time.Minute), "403", []Value{
					value(t, 74, kmp.UnitLitrePerH, l.flow), value(t, 86, kmp.UnitCelsius, l.t1),
					value(t, 87, kmp.UnitCelsius, l.t2), value(t, 80, kmp.UnitKW, l.power),
				})
				if got := shown(result, "power_calculated_kw"); got != l.shows {
					t.Errorf("reading %d: %s, want %s", i, got, l.shows)
				}
				if got := kinds(result.Events); got != l.events {
					t.Errorf("reading %d: events %q, want %q", i, got, l.events)
				}
				if l.shows != "null" && shown(result, "power_kw") != l.power {
					t.Error("the measured power was changed")
				}
				s = reopened(t, s)
			}
		})
	}
}

// In the unit and the steps of the power register, from a flow in whatever unit.
func TestPowerUnits(t *testing.T) {
	var s State
	result := s.Judge(noon, "803", []Value{
		value(t, 74, kmp.UnitCubicMPerH, "1280.0"), value(t, 86, kmp.UnitCelsius, "69.12"),
		value(t, 87, kmp.UnitCelsius, "33.41"), value(t, 80, 0x17, "52.69"),
	})
	if got := shown(result, "power_calculated_mw"); got != "52.69" {
		t.Errorf("%s: %v", got, result.Unknown)
	}
}
