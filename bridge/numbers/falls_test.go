package numbers

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/sim"
)

// A high-resolution register that was once too large by less than a coarse step cannot be told
// from a right one. The fused number then waits for the meter, which nobody counts up in
// summer: it must not be asked again and again meanwhile.
func TestFusedFallAsksNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := newMeter(t, sim.Config{Model: "603", Seed: 5})
		var s State
		read := func(fine int64) Result {
			time.Sleep(30 * time.Minute)
			values := visit(t, meter, 63, 267) // a house that is not cooled: both are 0
			var err error
			if values[1].Value, err = kmp.NewDecimal(fine, 0); err != nil {
				t.Fatal(err)
			}
			return s.Judge(time.Now(), "603", values)
		}
		read(0)
		read(64) // Wh, a quarter of a step of 0.001 GJ
		again := 0
		for range 20 {
			result := read(0)
			v, ok := find(result, "cooling_energy_fine_gj")
			if !ok || v.Value == nil || v.Value.String() != "0.0002304" {
				t.Fatalf("fused number %v, want the last one, 0.0002304", v.Value)
			}
			if !strings.HasPrefix(result.Unknown[v.Key], "held") {
				t.Errorf("not told as held: %v", result.Unknown)
			}
			if result.Again {
				again++
			}
			s = reopened(t, s)
		}
		if again != enough-1 {
			t.Errorf("asked again %d times, want %d", again, enough-1)
		}
		if result := read(65); result.Again || result.Unknown["cooling_energy_fine_gj"] != "" {
			t.Errorf("the meter has caught up: again %t, %v", result.Again, result.Unknown)
		}
		if result := read(64); !result.Again {
			t.Error("a new fall asks for no second reading")
		}
	})
}

// On a bad line the registers of a pair come in two answers, and the meter has counted
// meanwhile: that is no reason to hold the coarse one. A coarse one that is ahead is.
func TestPairReadApart(t *testing.T) {
	for _, tt := range []struct {
		name         string
		coarse, fine string // m³, l
		held         bool
	}{
		{"together", "199.061", "9061.4", false},
		{"the fine one five steps later", "199.056", "9061.4", false},
		{"the fine one long after it", "199.041", "9061.4", true},
		{"the coarse one ahead", "199.067", "9061.4", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s State
			at := time.Unix(1_700_000_000, 0)
			judge := func(coarse, fine string) Result {
				at = at.Add(10 * time.Minute)
				values := []Value{decimal(t, 68, kmp.UnitCubicMetre, coarse), decimal(t, 239, kmp.UnitLitre, fine)}
				return s.Judge(at, "21", values)
			}
			judge("199.021", "9021.7")
			result := judge(tt.coarse, tt.fine)
			if held := result.Unknown["volume_m3"] != ""; held != tt.held {
				t.Errorf("held: %t, want %t: %v", held, tt.held, result.Unknown)
			}
		})
	}
}

func decimal(t *testing.T, id uint16, unit kmp.Unit, digits string) Value {
	t.Helper()
	d, err := kmp.ParseDecimal(digits)
	if err != nil {
		t.Fatal(err)
	}
	r, err := kmp.NewRegister(id, unit, d, 4)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Decode(r)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
