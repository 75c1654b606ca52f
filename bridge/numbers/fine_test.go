package numbers

import (
	"strings"
	"testing"
	"time"

	"kmp2mqtt/kmp"
)

func TestFusion(t *testing.T) {
	// look is one reading, half an hour after the one before; "" is not read.
	type look struct{ coarse, fine, shows, events string }
	energy := func(t *testing.T, unit kmp.Unit, l look) []Value {
		t.Helper()
		var values []Value
		if l.coarse != "" {
			values = append(values, value(t, 60, unit, l.coarse))
		}
		if l.fine != "" {
			values = append(values, value(t, 266, kmp.UnitWh, l.fine))
		}
		return values
	}
	for _, tt := range []struct {
		name  string
		unit  kmp.Unit
		key   string
		looks []look
	}{
		// PyKMP's meter: 60 = 0.303 GJ beside 266 = 84208 Wh.
		{"a real meter", kmp.UnitGJ, "energy_fine_gj", []look{{"0.303", "84208", "0.3031488", ""}}},
		// The example of the MULTICAL 403's technical description, page 127: both are of one moment.
		{"wraps at 10^7 Wh", kmp.UnitKWh, "energy_fine_kwh", []look{{"1234567.8", "4567890.1", "1234567.8901", "fine_learned"}}},
		{"begins anew", kmp.UnitMWh, "energy_fine_kwh", []look{
			{"9.999", "9999990", "9999.990", ""},
			{"10.000", "5", "10000.005", "fine_learned"},
			{"10.000", "990", "10000.990", ""},
		}},
		{"where it wraps does not matter yet", kmp.UnitGJ, "energy_fine_gj", []look{{"0.000", "0", "0.0000000", ""}, {"0.001", "300", "0.0010800", ""}}},
		{"a steady meter", kmp.UnitGJ, "energy_fine_gj", []look{
			{"227.445", "3179166", "227.4449976", "fine_learned"}, // 63 179 166 Wh, read a moment before E1
			{"227.445", "3179170", "227.4450120", ""},
			{"227.446", "3179500", "227.4462000", ""},
		}},
		{"E1 not read", kmp.UnitGJ, "energy_fine_gj", []look{
			{"0.303", "84208", "0.3031488", ""}, {"", "84210", "null", ""}, {"0.303", "84210", "0.3031560", ""},
		}},
		{"266 not read", kmp.UnitGJ, "energy_fine_gj", []look{{"0.303", "84208", "0.3031488", ""}, {"0.303", "", "null", ""}}},
		{"neither read", kmp.UnitGJ, "energy_fine_gj", []look{{"0.303", "84208", "0.3031488", ""}, {"", "", "", ""}}},
		{"never together", kmp.UnitGJ, "energy_fine_gj", []look{{"0.303", "", "", ""}, {"", "84208", "", ""}}},
		{"E1 is held", kmp.UnitGJ, "energy_fine_gj", []look{
			{"0.303", "84208", "0.3031488", ""},
			{"0.001", "84300", "0.3031488", "value_held"},
			{"0.303", "84300", "0.3034800", ""},
		}},
		{"266 is wrong once", kmp.UnitGJ, "energy_fine_gj", []look{
			{"0.303", "84208", "0.3031488", ""}, {"0.303", "4284208", "null", ""}, {"0.303", "84300", "0.3034800", ""},
		}},
		{"266 falls a little", kmp.UnitGJ, "energy_fine_gj", []look{
			{"0.303", "84208", "0.3031488", ""}, {"0.303", "84200", "0.3031488", ""}, {"0.303", "84209", "0.3031524", ""},
		}},
		{"E1 does not fit a register that is well known", kmp.UnitGJ, "energy_fine_gj", []look{
			{"227.445", "3179166", "227.4449976", "fine_learned"},
			{"228.445", "3179200", "227.4449976", "value_held"}, // the rise alone is plausible
			{"227.446", "3179500", "227.4462000", ""},
		}},
		{"E1 is set back", kmp.UnitGJ, "energy_fine_gj", []look{
			{"227.445", "3179166", "227.4449976", "fine_learned"},
			{"0.000", "3", "227.4449976", "value_held"},
			{"0.000", "4", "227.4449976", "value_held"},
			{"0.000", "5", "0.0000180", "value_released"},
		}},
		{"266 goes astray for good", kmp.UnitGJ, "energy_fine_gj", []look{
			{"227.445", "3179166", "227.4449976", "fine_learned"},
			{"227.445", "1", "null", ""},
			{"227.445", "2", "null", ""},
			{"227.445", "3", "null", "value_unknown"},
			{"227.445", "4", "null", ""},
			{"227.446", "3179500", "227.4462000", "value_released fine_learned"},
		}},
		{"gigacalories are no exact number of watt-hours", 0x0C, "energy_fine_gj", []look{{"0.303", "352000", "", ""}}},
		{"another unit of E1", kmp.UnitMWh, "energy_fine_kwh", []look{{"63.180", "3180166", "63180.166", "fine_learned"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s State
			for i, look := range tt.looks {
				result := s.Judge(noon.Add(time.Duration(i)*30*time.Minute), "403", energy(t, tt.unit, look))
				if got := shown(result, tt.key); got != look.shows {
					t.Errorf("reading %d: %q, want %q (%v)", i, got, look.shows, result.Unknown)
				}
				if got := kinds(result.Events); got != look.events {
					t.Errorf("reading %d: events %q, want %q: %v", i, got, look.events, result.Events)
				}
				if look.shows == "null" && result.Unknown[tt.key] == "" {
					t.Errorf("reading %d: unknown without a reason", i)
				}
				s = reopened(t, s)
			}
		})
	}
}

func TestFineLearnedEvent(t *testing.T) {
	var s State
	result := s.Judge(noon, "403", []Value{value(t, 60, kmp.UnitGJ, "227.445"), value(t, 266, kmp.UnitWh, "3179166")})
	data := result.Events[0].Data
	if data["register"] != "energy_high_resolution" || data["modulus"].(kmp.Decimal).String() != "10000000" || data["unit"] != "Wh" {
		t.Error(data)
	}
}

// While several moduli are possible and make different numbers, the number is unknown;
// the truth is learned, never guessed.
func TestModulusInDoubt(t *testing.T) {
	var s State
	// 10 737 418 240 l are 5 × 2^31 and 2.5 × 2^32: the first fits, and by chance 10^4
	// and 2^16 do nearly, with a coarse step of 10 m³.
	look := func(hours int, coarse, fine string) Result {
		return s.Judge(noon.Add(time.Duration(hours)*time.Hour), "803", []Value{
			value(t, 68, 0x37, coarse), value(t, 239, kmp.UnitLitre, fine),
		})
	}
	result := look(0, "1073741", "0") // × 10 m³
	if got := shown(result, "volume_fine_m3"); got != "null" || !strings.Contains(result.Unknown["volume_fine_m3"], "not certain") {
		t.Fatalf("volume %s: %v", got, result.Unknown)
	}
	// 2^24 divides 2^31: as long as both are possible, they make the same number.
	result = look(1, "1073771", "300000")
	if got := shown(result, "volume_fine_m3"); got != "10737718.240" || len(result.Events) > 0 {
		t.Errorf("volume %s: %v, %v", got, result.Unknown, s.m.Fine)
	}
	// Once it has counted beyond the small one, only 2^31 is left.
	result = look(2, "1075741", "20000000")
	if got := shown(result, "volume_fine_m3"); got != "10757418.240" {
		t.Errorf("volume %s: %v, %v", got, result.Unknown, s.m.Fine)
	}
	if kinds(result.Events) != FineLearned {
		t.Error(result.Events)
	}
}

func TestCoolingAndVolume(t *testing.T) {
	var s State
	result := s.Judge(noon, "403", []Value{
		value(t, 63, kmp.UnitMWh, "1.250"), value(t, 267, kmp.UnitWh, "1250300"),
		value(t, 68, kmp.UnitCubicMetre, "2131.93"), value(t, 239, kmp.UnitLitre, "2131934"),
	})
	if shown(result, "cooling_energy_fine_kwh") != "1250.300" || shown(result, "volume_fine_m3") != "2131.934" {
		t.Error(result.Values, result.Unknown)
	}
	for i, name := range []string{"cooling_energy_fine", "volume_fine"} {
		v := result.Values[4+i]
		if v.Register.Name != name || v.Register.ID != 0 || v.Register.Title == "" {
			t.Errorf("derived %d is %+v", i, v.Register)
		}
	}
}

// The high-resolution registers of electricity meters lack no digits.
func TestElectricityIsNotFused(t *testing.T) {
	var s State
	result := s.Judge(noon, "382", []Value{value(t, 1, kmp.UnitKWh, "12345"), value(t, 13, kmp.UnitKWh, "12345.6789")})
	if len(result.Values) != 2 {
		t.Error(result.Values)
	}
}
