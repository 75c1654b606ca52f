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
