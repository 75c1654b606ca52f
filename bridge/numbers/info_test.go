package numbers

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"kmp2mqtt/kmp"
)

func TestInfo(t *testing.T) {
	for _, tt := range []struct {
		name   string
		model  string
		values []Value
		info   []string
		has    bool
	}{
		{"nothing read", "403", []Value{value(t, 60, kmp.UnitGJ, "1")}, nil, false},
		{"nothing to report", "403", []Value{value(t, 99, kmp.UnitNumber, "0")}, nil, true},
		{"two things", "403", []Value{value(t, 99, kmp.UnitNumber, "24")}, []string{"t1 above range / disconnected", "t2 above range / disconnected"}, true},
		{"the same number elsewhere", "602", []Value{value(t, 99, kmp.UnitNumber, "24")}, []string{"temperature sensor T1 outside range", "flow sensor V1 data communication error"}, true},
		{"369 goes before 99", "603", []Value{value(t, 99, kmp.UnitNumber, "100000"), value(t, 369, kmp.UnitNumber, "8")}, []string{"t1 above range"}, true},
		{"99 where there is no 369", "603", []Value{value(t, 99, kmp.UnitNumber, "100000")}, []string{"code 100000 (unknown)"}, true},
		{"an unknown model", "", []Value{value(t, 99, kmp.UnitNumber, "8")}, []string{"code 8 (unknown)"}, true},
		{"a relay that is on", "382", []Value{value(t, 1087, kmp.UnitNumber, "4")}, nil, true},
		{"a relay that is off", "382", []Value{value(t, 1087, kmp.UnitNumber, "6")}, []string{"cutoff"}, true},
		{"not a code", "403", []Value{value(t, 99, kmp.UnitNumber, "-8")}, nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s State
			result := s.Judge(noon, tt.model, tt.values)
			if !slices.Equal(result.Info, tt.info) || result.HasInfo != tt.has || len(result.Events) > 0 {
				t.Errorf("info %q, %t, events %v", result.Info, result.HasInfo, result.Events)
			}
		})
	}
}

func TestInfoEvents(t *testing.T) {
	var s State
	for i, tt := range []struct{ code, data string }{
		{"8", ""},
		{"8", ""},
		{"24", "map[began:[t2 above range / disconnected] ended:[] from:8 info:[t1 above range / disconnected t2 above range / disconnected] register:info_code to:24]"},
		{"16", "map[began:[] ended:[t1 above range / disconnected] from:24 info:[t2 above range / disconnected] register:info_code to:16]"},
		{"0", "map[began:[] ended:[t2 above range / disconnected] from:16 info:[] register:info_code to:0]"},
		{"0", ""},
	} {
		result := s.Judge(noon.Add(time.Duration(i)*time.Hour), "403", []Value{value(t, 99, kmp.UnitNumber, tt.code)})
		got := ""
		for _, e := range result.Events {
			got += fmt.Sprint(e.Data)
		}
		if got != tt.data {
			t.Errorf("code %s: %s\nwant %s", tt.code, got, tt.data)
		}
		s = reopened(t, s)
	}
}

// A bit field is told as one.
func TestInfoBits(t *testing.T) {
	var s State
	for i, raw := range [][]byte{{0, 0, 0, 8}, {0, 0, 0, 0}} {
		v, err := Decode(kmp.Register{ID: 369, Unit: kmp.UnitBits, Raw: raw})
		if err != nil {
			t.Fatal(err)
		}
		result := s.Judge(noon.Add(time.Duration(i)*time.Hour), "603", []Value{v})
		if i == 1 && (len(result.Events) != 1 || result.Events[0].Data["from"] != kmp.Bits(8) || result.Events[0].Data["to"] != kmp.Bits(0)) {
			t.Error(result.Events)
		}
	}
}
