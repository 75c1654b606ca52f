package numbers

import (
	"testing"
	"time"

	"kmp2mqtt/kmp"
)

// What a heat meter sends while a sensor has failed: technical description of the
// MULTICAL 403, page 94.
func TestSensorFaults(t *testing.T) {
	heat := func(t1, t2, difference, power, flow string) []Value {
		return []Value{
			value(t, 86, kmp.UnitCelsius, t1), value(t, 87, kmp.UnitCelsius, t2), value(t, 89, kmp.UnitKelvin, difference),
			value(t, 80, kmp.UnitKW, power), value(t, 74, kmp.UnitLitrePerH, flow),
		}
	}
	const short, open = "sensor short-circuited: the meter sends 0.00 °C", "sensor open or not connected: 185.00 °C"
	for _, tt := range []struct {
		name   string
		values []Value
		shows  [5]string
		reason string
	}{
		{"good", heat("69.12", "33.41", "35.71", "6.4", "128"), [5]string{"69.12", "33.41", "35.71", "6.4", "128"}, ""},
		{"T1 short", heat("0.00", "33.41", "0.00", "0.0", "0"), [5]string{"null", "33.41", "null", "null", "0"}, short},
		{"T1 open", heat("185.00", "33.41", "0.00", "0.0", "0"), [5]string{"null", "33.41", "null", "null", "0"}, open},
		{"T2 short", heat("69.12", "0.00", "0.00", "0.0", "0"), [5]string{"69.12", "null", "null", "null", "0"}, short},
		{"T2 open", heat("69.12", "185.00", "0.00", "0.0", "0"), [5]string{"69.12", "null", "null", "null", "0"}, open},
		{"cold, but measured", heat("0.01", "33.41", "-33.40", "0.0", "0"), [5]string{"0.01", "33.41", "-33.40", "0.0", "0"}, ""},
		{"hot, but measured", heat("184.99", "33.41", "151.58", "6.4", "30"), [5]string{"184.99", "33.41", "151.58", "6.4", "30"}, ""},
		{"hotter than can be", heat("200.00", "33.41", "35.71", "6.4", "128"), [5]string{"null", "33.41", "35.71", "6.4", "128"}, "beyond 0 to 185: no heat meter shows such a temperature"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s State
			result := s.Judge(noon, "403", tt.values)
			for i, v := range tt.values {
				if got := shown(result, v.Key); got != tt.shows[i] {
					t.Errorf("%s is %s, want %s", v.Key, got, tt.shows[i])
				}
				reason := result.Unknown[v.Key]
				if (reason != "") != (tt.shows[i] == "null") || reason != "" && reason != tt.reason {
					t.Errorf("%s: reason %q, want %q", v.Key, reason, tt.reason)
				}
			}
			if tt.values[0].Value == nil {
				t.Error("the values given were changed")
			}
		})
	}
}

// An event when it begins, and one when it is over; nothing in between, over restarts.
func TestUnknownEvents(t *testing.T) {
	var s State
	for i, tt := range []struct{ t3, shows, events string }{
		{"185.00", "null", "value_unknown"},
		{"185.00", "null", ""},
		{"0.00", "null", ""},
		{"41.20", "41.20", "value_released"},
		{"41.30", "41.30", ""},
		{"0.00", "null", "value_unknown"},
	} {
		result := s.Judge(noon.Add(time.Duration(i)*time.Hour), "603", []Value{value(t, 88, kmp.UnitCelsius, tt.t3)})
		if shown(result, "temperature3_c") != tt.shows || kinds(result.Events) != tt.events {
			t.Errorf("reading %d: %s, events %v", i, shown(result, "temperature3_c"), result.Events)
		}
		s = reopened(t, s)
	}
	var fresh State
	result := fresh.Judge(noon, "603", []Value{value(t, 88, kmp.UnitCelsius, "185.00")})
	data := result.Events[0].Data
	if data["register"] != "temperature3" || data["key"] != "temperature3_c" || data["raw"].(kmp.Decimal).String() != "185.00" ||
		data["reason"] != "sensor open or not connected: 185.00 °C" {
		t.Error(data)
	}
}

func TestGaugeBounds(t *testing.T) {
	for _, tt := range []struct {
		model   string
		id      uint16
		unit    kmp.Unit
		digits  string
		unknown bool
	}{
		{"403", 74, kmp.UnitLitrePerH, "45000", false},
		{"403", 74, kmp.UnitLitrePerH, "45001", true},
		{"403", 74, kmp.UnitCubicMPerH, "45.1", true},
		{"302", 74, kmp.UnitLitrePerH, "7501", true},
		{"803", 74, kmp.UnitLitrePerH, "30000000", false},
		{"", 74, kmp.UnitLitrePerH, "45000001", true},
		{"403", 80, kmp.UnitKW, "6300.0", false},
		{"403", 80, kmp.UnitKW, "6553.5", true},
		{"403", 80, 0x17, "6.4", true}, // MW
		{"403", 80, kmp.UnitGJ, "9999999", false},
		{"382", 1054, 0x21, "231", false},
		{"382", 1054, 0x21, "0", false},
		{"382", 1054, 0x21, "65535", true},
		{"382", 1076, 0x22, "151", true},
		{"382", 1080, kmp.UnitKW, "-4.2", false},
		{"flowiq2200", 292, kmp.UnitCelsius, "0.00", false},
		{"flowiq2200", 292, kmp.UnitCelsius, "255.00", true},
		{"603", 91, 0x34, "6.53", false},
		{"603", 91, 0x34, "655.35", true},
		{"603", 146, kmp.UnitCelsius, "0.00", false}, // nothing has flowed this year
	} {
		var s State
		v := value(t, tt.id, tt.unit, tt.digits)
		result := s.Judge(noon, tt.model, []Value{v})
		if got := result.Values[0].Value == nil; got != tt.unknown || got != (result.Unknown[v.Key] != "") {
			t.Errorf("%s of a %q: %s is unknown: %t (%v)", v.Key, tt.model, tt.digits, got, result.Unknown)
		}
		if result.Again != tt.unknown {
			t.Errorf("%s of a %q: again %t", v.Key, tt.model, result.Again)
		}
		if again := s.Judge(noon.Add(time.Minute), tt.model, []Value{v}); again.Again {
			t.Errorf("%s of a %q: a value that stays needs no third reading", v.Key, tt.model)
		}
	}
}

// The flow is unknown when the meter says that it does not hear its flow sensor.
func TestFlowSensor(t *testing.T) {
	for _, tt := range []struct {
		model, info, flow string
		id                uint16
		shows             string
	}{
		{"601", "16", "0", 99, "null"},
		{"601", "4096", "0", 99, "null"},
		{"601", "4096", "25", 99, "25"}, // some air, but it measures
		{"601", "8", "0", 99, "0"},
		{"403", "256", "0", 99, "null"},
		{"403", "0", "0", 99, "0"},
		{"603", "65536", "0", 369, "null"},
		{"", "16", "0", 99, "0"}, // what the code says is not known
	} {
		var s State
		result := s.Judge(noon, tt.model, []Value{
			value(t, 74, kmp.UnitLitrePerH, tt.flow), value(t, 80, kmp.UnitKW, "0.0"), value(t, tt.id, kmp.UnitNumber, tt.info),
		})
		want := "0.0"
		if tt.shows == "null" {
			want = "null"
		}
		if shown(result, "flow_l_h") != tt.shows || shown(result, "power_kw") != want {
			t.Errorf("%s with info %s: flow %s, power %s", tt.model, tt.info, shown(result, "flow_l_h"), shown(result, "power_kw"))
		}
	}
}
