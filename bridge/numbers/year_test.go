package numbers

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/sim"
)

// usual are the registers that a heat meter is read for.
var usual = []uint16{60, 266, 155, 68, 239, 74, 80, 86, 87, 89, 97, 110, 99, 63, 267, 1004, 113, 369}

// visit reads registers of a simulated meter.
func visit(t *testing.T, m *sim.Meter, ids ...uint16) []Value {
	t.Helper()
	var values []Value
	for _, id := range ids {
		r, ok := m.Read(id)
		if !ok {
			continue
		}
		v, err := Decode(r)
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, v)
	}
	return values
}

// reopened is a state after a restart.
func reopened(t *testing.T, s State) State {
	t.Helper()
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 10_000 {
		t.Fatalf("a state of %d bytes: %s", len(data), data)
	}
	var again State
	if err := json.Unmarshal(data, &again); err != nil {
		t.Fatal(err)
	}
	if err := again.Check(); err != nil {
		t.Fatal(err)
	}
	return again
}

// find returns the value with a key.
func find(r Result, key string) (Value, bool) {
	for _, v := range r.Values {
		if v.Key == key {
			return v, true
		}
	}
	return Value{}, false
}

// A year, or a winter, in a house: the fused counters are the truth to the last digit from the moment
// they are there, never fall, stay within a step of their coarse register, and nothing
// is held or reported on the way.
func TestYear(t *testing.T) {
	for _, tt := range []struct {
		model, unit string
		modulus     int64
		months      int
		key         string
		wattHours   *big.Rat // of one unit of key
	}{
		{"403", "GJ", 1e7, 12, "energy_fine_gj", big.NewRat(2_500_000, 9)},
		{"403", "kWh", 1e6, 3, "energy_fine_kwh", big.NewRat(1000, 1)},
		{"603", "MWh", 1e7, 3, "energy_fine_kwh", big.NewRat(1000, 1)},
		{"603", "GJ", 1 << 24, 3, "energy_fine_gj", big.NewRat(2_500_000, 9)},
		{"403", "MWh", 1 << 16, 3, "energy_fine_kwh", big.NewRat(1000, 1)},
		{"403", "GJ", 1e8, 3, "energy_fine_gj", big.NewRat(2_500_000, 9)},
		{"601", "kWh", 1e5, 3, "energy_fine_kwh", big.NewRat(1000, 1)},
		{"601", "GJ", 1e7, 3, "energy_fine_gj", big.NewRat(2_500_000, 9)},
		{"601", "MWh", 1e6, 3, "energy_fine_kwh", big.NewRat(1000, 1)},
	} {
		t.Run(fmt.Sprintf("%s %s %d", tt.model, tt.unit, tt.modulus), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				seed := uint64(tt.modulus)
				config := sim.Config{Model: tt.model, EnergyUnit: tt.unit, FineModulus: tt.modulus, Seed: seed, Cooling: true}
				meter := newMeter(t, config)
				config.FineModulus = 1e9 // beyond what a house uses: the whole truth
				truth := newMeter(t, config)
				random := rand.New(rand.NewPCG(seed, 1))
				var state State
				var last kmp.Decimal
				known, learned, wrapped := 0, 0, 0
				fineBefore := int64(0)
				readings := 0
				for end := time.Now().AddDate(0, tt.months, 0); time.Now().Before(end); readings++ {
					time.Sleep(pause(random))
					if random.IntN(50) == 0 {
						state = reopened(t, state)
					}
					result := state.Judge(time.Now(), tt.model, visit(t, meter, usual...))
					for _, e := range result.Events {
						if e.Type != FineLearned {
							t.Fatalf("%s: event %s %v", time.Now(), e.Type, e.Data)
						}
						if e.Data["register"] != "cooling_energy_high_resolution" && e.Data["register"] != "volume_high_resolution" {
							learned++
						}
					}
					id := uint16(266)
					if tt.model == "601" {
						id = 155
					}
					v := visit(t, meter, id)[0].Value.(kmp.Decimal)
					if f, _ := v.Shift(-v.Exponent()); true {
						n, _ := f.Int64()
						if n < fineBefore {
							wrapped++
						}
						fineBefore = n
					}
					fused, ok := find(result, tt.key)
					if !ok {
						t.Fatal("the fused number is not there")
					}
					if fused.Value == nil {
						if known > 0 {
							t.Fatalf("%s: was known, is not: %v", time.Now(), result.Unknown)
						}
						continue
					}
					known++
					d := fused.Value.(kmp.Decimal)
					if d.Cmp(last) < 0 {
						t.Fatalf("%s: fell from %s to %s", time.Now(), last, d)
					}
					last = d
					got := rational(d)
					got.Mul(got, tt.wattHours)
					want := rational(visit(t, truth, id)[0].Value.(kmp.Decimal))
					if id == 155 {
						want.Mul(want, big.NewRat(1000, 1))
					}
					if got.Cmp(want) != 0 {
						t.Fatalf("%s: fused %s Wh, true %s Wh", time.Now(), got.FloatString(3), want.FloatString(3))
					}
					coarse := result.Values[0]
					apart := rational(d)
					factor, _ := catalog.Convert(fused.Unit, coarse.Unit)
					apart.Mul(apart, factor)
					e1 := coarse.Value.(kmp.Decimal)
					apart.Sub(apart, rational(e1))
					if apart.Abs(apart).Cmp(step(e1.Exponent())) > 0 {
						t.Fatalf("%s: fused %s, coarse %s", time.Now(), d, e1)
					}
				}
				if known < readings*9/10 {
					t.Errorf("known in %d of %d readings", known, readings)
				}
				if wrapped > 0 && learned != 1 {
					t.Errorf("the modulus was learned %d times, with %d wraps", learned, wrapped)
				}
			})
		})
	}
}

// pause is a time between two readings: mostly long, sometimes as short as the meter's
// integration, rarely an outage.
func pause(random *rand.Rand) time.Duration {
	switch n := random.IntN(100); {
	case n == 0:
		return time.Duration(1+random.IntN(72)) * time.Hour
	case n < 20:
		return 32 * time.Second
	default:
		return time.Duration(20+random.IntN(80)) * time.Minute
	}
}

func newMeter(t *testing.T, config sim.Config) *sim.Meter {
	t.Helper()
	config.Start = time.Now()
	m, err := sim.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// mix sums up what flows at which temperatures, in steps of the meter's integration.
type mix struct{ volume, supply, back float64 }

func (m *mix) add(t *testing.T, meter *sim.Meter) {
	t.Helper()
	values := visit(t, meter, 74, 86, 87)
	flow := values[0].Value.(kmp.Decimal).Float64()
	m.volume += flow
	m.supply += flow * values[1].Value.(kmp.Decimal).Float64()
	m.back += flow * values[2].Value.(kmp.Decimal).Float64()
}

// The temperatures by volume are those that flow and temperatures make, within the half
// degree that is promised, and the calculated power is the meter's own.
func TestTemperaturesByVolume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const integration = time.Minute
		meter := newMeter(t, sim.Config{Model: "603", Seed: 3, Integration: integration})
		var state State
		var day, month mix
		compared := map[string]int{}
		for range 45 * 48 {
			for range 30 * time.Minute / integration {
				time.Sleep(integration)
				day.add(t, meter)
				month.add(t, meter)
			}
			result := state.Judge(time.Now(), "603", visit(t, meter, usual...))
			if len(result.Events) > 0 && result.Events[0].Type != FineLearned {
				t.Fatalf("event %v", result.Events[0])
			}
			power, _ := find(result, "power_calculated_kw")
			own, _ := find(result, "power_kw")
			if p, q := power.Value.(kmp.Decimal).Float64(), own.Value.(kmp.Decimal).Float64(); math.Abs(p-q) > 0.3 {
				t.Fatalf("power %v, calculated %v", q, p)
			}
			for _, want := range []struct {
				key    string
				number float64
			}{
				{"weighted_supply_temperature_today_c", day.supply / day.volume},
				{"weighted_return_temperature_today_c", day.back / day.volume},
				{"weighted_cooling_today_k", (day.supply - day.back) / day.volume},
				{"weighted_supply_temperature_month_c", month.supply / month.volume},
				{"weighted_return_temperature_month_c", month.back / month.volume},
				{"weighted_cooling_month_k", (month.supply - month.back) / month.volume},
			} {
				v, ok := find(result, want.key)
				if !ok {
					t.Fatalf("%s is not there", want.key)
				}
				if v.Value == nil {
					continue
				}
				compared[want.key]++
				// 0.1 K more for the flow register, which leaves out what is below 1 l/h.
				if got := v.Value.(kmp.Decimal).Float64(); math.Abs(got-want.number) > 0.6 {
					t.Fatalf("%s: %s is %v, want %v", time.Now(), want.key, got, want.number)
				}
			}
			// The last reading before midnight, half an hour before it, is the anchor.
			if next := time.Now().Add(30 * time.Minute); next.Hour() == 0 && next.Minute() == 0 {
				day = mix{}
				if next.Day() == 1 {
					month = mix{}
				}
			}
		}
		if compared["weighted_supply_temperature_today_c"] < 50 || compared["weighted_cooling_month_k"] < 1000 {
			t.Errorf("compared: %v", compared)
		}
	})
}
