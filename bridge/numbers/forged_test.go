package numbers

import (
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/sim"
)

// forge flips one to three bits of a register, as corruption does whose checksum fits
// by chance.
func forge(random *rand.Rand, r kmp.Register) kmp.Register {
	r.Raw = slices.Clone(r.Raw)
	for range 1 + random.IntN(3) {
		r.Raw[random.IntN(len(r.Raw))] ^= 1 << random.IntN(8)
	}
	return r
}

// One answer in ten is forged: a counter with a high-resolution register beside it is
// never published wrong by more than the twelve steps that the comparison leaves open.
func TestForgedCounters(t *testing.T) {
	for _, tt := range []struct {
		name     string
		forged   []uint16
		key      string
		id       uint16
		compared bool // it has a high-resolution register to be compared with
	}{
		{"energy", []uint16{60}, "energy_gj", 60, true},
		{"volume", []uint16{68}, "volume_m3", 68, true},
		{"hours", []uint16{1004}, "operating_hours_h", 1004, false},
		{"fine energy", []uint16{266}, "energy_gj", 60, true},
		{"volume and temperature", []uint16{97, 110}, "volume_x_supply_temperature_m3c", 97, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				meter := newMeter(t, sim.Config{Model: "603", Seed: 5})
				random := rand.New(rand.NewPCG(5, uint64(tt.id)))
				var s State
				s.Judge(time.Now(), "603", visit(t, meter, usual...))
				forged, wrong, gone, longest := 0, 0, 0, 0
				var before kmp.Value // one that stays is old, not wrong
				for range 2000 {
					time.Sleep(30 * time.Minute)
					var values []Value
					for _, id := range usual {
						r, ok := meter.Read(id)
						if !ok {
							continue
						}
						if slices.Contains(tt.forged, id) && random.IntN(10) == 0 {
							r = forge(random, r)
							forged++
						}
						v, err := Decode(r)
						if err != nil {
							t.Fatal(err)
						}
						values = append(values, v)
					}
					result := s.Judge(time.Now(), "603", values)
					truth := visit(t, meter, tt.id)[0].Value.(kmp.Decimal)
					published, _ := find(result, tt.key)
					apart := rational(published.Value.(kmp.Decimal))
					apart.Sub(apart, rational(truth)).Abs(apart)
					most := step(truth.Exponent())
					most.Mul(most, big.NewRat(12, 1))
					if _, held := result.Unknown[tt.key]; !held && apart.Cmp(most) > 0 && published.Value != before {
						wrong++
					}
					before = published.Value
					if gone++; published.Value.(kmp.Decimal).Cmp(truth) == 0 {
						gone = 0
					}
					longest = max(longest, gone)
				}
				if forged < 150 {
					t.Fatalf("only %d forged", forged)
				}
				if tt.compared && wrong > 0 {
					t.Errorf("%d of %d forged values were published", wrong, forged)
				}
				// What is a plausible rise cannot be told from the truth; it is right again
				// when the meter has caught up, or after three readings.
				if wrong > forged/2 || longest > 12 {
					t.Errorf("%d of %d forged values were published, for up to %d readings", wrong, forged, longest)
				}
				t.Logf("%d forged, %d published wrong, right again after %d readings at most", forged, wrong, longest)
			})
		})
	}
}
