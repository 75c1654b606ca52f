package sim

import (
	"math"
	"testing"
	"time"
)

// november is just behind a step of every grid.
var november = time.Date(2026, 11, 21, 7, 0, 1, 0, time.UTC)

func TestHouseYear(t *testing.T) {
	for seed := range uint64(2) {
		s := newState(newHouse(seed), november.Unix(), 32)
		start := s
		var cold, warm int64 = math.MaxInt64, math.MinInt64
		for step := range 365 * 2700 {
			before := s.counters
			s.step(32)
			dv, de := s.volume-before.volume, s.energy()-before.energy()
			if dv < 0 || de < 0 || s.volumeT[0] < before.volumeT[0] || s.volumeT[1] < before.volumeT[1] {
				t.Fatalf("seed %d, step %d: a counter fell: %+v after %+v", seed, step, s.counters, before)
			}
			// What the step added is its volume times its temperature difference, within 1 J.
			want := float64(dv) * float64(s.temp[0]-s.temp[1]) * 4.15 / 100
			if math.Abs(float64(de)-want) > 1 {
				t.Fatalf("seed %d, step %d: %d J for %d ml × %d cK, want %.1f J", seed, step, de, dv, s.temp[0]-s.temp[1], want)
			}
			if s.power != 0 && math.Abs(float64(s.power)-want/32) > 1 {
				t.Fatalf("seed %d, step %d: power %d W, want %.1f", seed, step, s.power, want/32)
			}
			plausible(t, s)
			outside := s.house.outside(s.t)
			cold, warm = min(cold, outside), max(warm, outside)
		}
		if cold > 0 || cold < -1500 || warm < 2000 || warm > 3200 {
			t.Errorf("seed %d: outside it was %d to %d (0.01 °C)", seed, cold, warm)
		}
		gj, m3 := (s.energy()-start.energy())/1e9, (s.volume-start.volume)/1e6
		if gj < 36 || gj > 65 || m3 < 300 || m3 > 700 { // 10 to 18 MWh, as in Danish houses
			t.Errorf("seed %d: %d GJ and %d m³ in a year", seed, gj, m3)
		}
		// Over the whole life: energy is 4.15 MJ/(m³·K) × (E8 − E9).
		want := 4.15 * float64(s.volumeT[0]-s.volumeT[1]) / 100
		if math.Abs(float64(s.energy())-want) > 1 {
			t.Errorf("seed %d: %d J, want %.0f", seed, s.energy(), want)
		}
	}
}

func plausible(t *testing.T, s state) {
	t.Helper()
	t1, t2 := s.temp[0], s.temp[1]
	if t1 < 3000 || t1 > 9500 || t2 < 1500 || t2 > t1-100 || s.flow < 0 || s.flow > 1_500_000 || s.power < 0 || s.power > 60_000 {
		t.Fatalf("at %d: flow %d ml/h, power %d W, %d and %d (0.01 °C)", s.t, s.flow, s.power, t1, t2)
	}
}

func TestHouseStartsWithAPast(t *testing.T) {
	for seed := range uint64(5) {
		s := newState(newHouse(seed), november.Unix(), 32)
		if gj := s.energy() / 1e9; gj < 90 || gj > 150 {
			t.Errorf("seed %d: E1 is %d GJ", seed, gj)
		}
		if m3 := s.volume / 1e6; m3 < 800 || m3 > 1500 {
			t.Errorf("seed %d: V1 is %d m³", seed, m3)
		}
		if behind := november.Unix() - s.t; s.t%32 != 0 || behind < 0 || behind >= 32 {
			t.Errorf("seed %d: the past ends %d s before the start", seed, behind)
		}
	}
}

// Each month is what a house of 130 m² uses in it, at a cooling that district heating
// companies would not complain about.
func TestHouseMonths(t *testing.T) {
	for seed := range uint64(3) {
		s := newState(newHouse(seed), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Unix(), 32)
		for month := time.January; month <= time.December; month++ {
			before := s.counters
			for end := monthEnd(s.t); s.t < end; {
				s.step(32)
			}
			least, most := int64(600), int64(2000) // kWh
			switch month {
			case time.December, time.January, time.February, time.March:
				least, most = 1400, 2600
			case time.June, time.July, time.August:
				least, most = 300, 800
			}
			used, volume := s.energy()-before.energy(), s.volume-before.volume
			if kwh := used / 3_600_000; kwh < least || kwh > most {
				t.Errorf("seed %d: %d kWh in %v, want %d to %d", seed, kwh, month, least, most)
			}
			if delta := float64(used) / 4.15 / float64(volume); delta < 20 || delta > 35 {
				t.Errorf("seed %d: the water of %v cooled by %.1f K", seed, month, delta)
			}
		}
	}
}

func TestHouseWinterAndSummer(t *testing.T) {
	used := func(month time.Month) int64 {
		s := newState(newHouse(7), time.Date(2026, month, 1, 0, 0, 0, 0, time.UTC).Unix(), 32)
		before := s.energy()
		for range 20 * 2700 {
			s.step(32)
		}
		return s.energy() - before
	}
	if january, july := used(time.January), used(time.July); january < 3*july || july == 0 {
		t.Errorf("heat in January %d J, in July %d J", january, july)
	}
}

func TestHouseExtremes(t *testing.T) {
	s := newState(newHouse(3), time.Date(2026, 12, 31, 22, 0, 0, 0, time.UTC).Unix(), 32)
	if s.year.maxPower.date()/10000 != 26 || s.year.maxPower.value < s.month.maxPower.value || s.month.maxFlow.value < s.month.minFlow.value {
		t.Errorf("year %+v, month %+v", s.year, s.month)
	}
	for s.t < time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC).Unix() {
		s.step(32)
	}
	if none := (extreme{}); s.year.maxFlow != none || s.month.minPower != none || s.month.maxPower.date() != 0 {
		t.Errorf("the new year began with extremes: %+v", s.year)
	}
	if s.mean(s.year.began, 0) > 9500 {
		t.Errorf("average T1 %d", s.mean(s.year.began, 0))
	}
	for range 3 * 113 { // three hours
		s.step(32)
	}
	if got := s.year.maxFlow.date(); got != 270101 {
		t.Errorf("date of the largest flow is %d", got)
	}
	if s.year.maxFlow != s.month.maxFlow {
		t.Errorf("in January year %+v and month %+v are the same", s.year.maxFlow, s.month.maxFlow)
	}
}

func TestCosine(t *testing.T) {
	for at := int64(-7200); at < 100_000; at += 97 {
		got := float64(cosine(at, day)) / (1 << 15)
		if want := math.Cos(2 * math.Pi * float64(at) / day); math.Abs(got-want) > 0.003 {
			t.Errorf("cosine(%d) = %.4f, want %.4f", at, got, want)
		}
	}
}

func BenchmarkStep(b *testing.B) {
	s := newState(newHouse(1), november.Unix(), 32)
	for b.Loop() {
		s.step(32)
	}
}

func BenchmarkPast(b *testing.B) {
	for b.Loop() {
		newState(newHouse(1), november.Unix(), 32)
	}
}

// lifeOf is the state of another kind of house at t.
func lifeOf(seed uint64, k kind, cooling bool, t time.Time, dt int64) state {
	h := newHouse(seed)
	h.kind, h.cooling = k, cooling
	return newState(h, t.Unix(), dt)
}

// Four people draw some 100 m³ a year, more by day than by night.
func TestHouseWater(t *testing.T) {
	for seed := range uint64(3) {
		s := lifeOf(seed, water, false, november, 32)
		start := s.volume
		var day, night int64
		for range 365 * 2700 {
			before, hour := s.volume, s.t%86400/3600
			s.step(32)
			if s.volume < before || s.flow < 0 || s.flow > 1_000_000 {
				t.Fatalf("seed %d: volume %d after %d, flow %d", seed, s.volume, before, s.flow)
			}
			if hour < 5 {
				night += s.volume - before
			} else {
				day += s.volume - before
			}
		}
		if m3 := (s.volume - start) / 1e6; m3 < 60 || m3 > 150 {
			t.Errorf("seed %d: %d m³ in a year", seed, m3)
		}
		if night*10 > day {
			t.Errorf("seed %d: %d ml by night and %d by day", seed, night, day)
		}
	}
}

func TestHouseElectricity(t *testing.T) {
	for seed := range uint64(2) {
		s := lifeOf(seed, electricity, false, november.Truncate(time.Hour), 30)
		start := s.counters
		var noon, midnight int64
		for range 365 * 2880 {
			before := s.counters
			s.step(30)
			sum := s.phases[0] + s.phases[1] + s.phases[2]
			imported := s.imported[0] + s.imported[1] - before.imported[0] - before.imported[1]
			exported := s.exported[0] + s.exported[1] - before.exported[0] - before.exported[1]
			if imported < 0 || exported < 0 || imported > 0 && exported > 0 || imported-exported != sum*30 {
				t.Fatalf("seed %d: %d J and %d J in 30 s at %d W", seed, imported, exported, sum)
			}
			switch s.t % 86400 {
			case 12 * 3600:
				noon += s.house.sun(s.t)
			case 0:
				midnight += s.house.sun(s.t)
			}
			for i, v := range s.voltages {
				if w := s.phases[i]; v < 220 || v > 240 || w < -2000 || w > 5000 {
					t.Fatalf("seed %d: phase %d: %d V, %d W", seed, i, v, w)
				}
			}
		}
		used := [2]int64{s.imported[0] - start.imported[0], s.imported[1] - start.imported[1]}
		given := s.exported[0] + s.exported[1] - start.exported[0] - start.exported[1]
		if kwh := (used[0] + used[1]) / 3_600_000; kwh < 2000 || kwh > 5000 || used[1] == 0 || used[1] > used[0] {
			t.Errorf("seed %d: %d kWh in a year, %v J by tariff", seed, kwh, used)
		}
		if kwh := given / 3_600_000; kwh < 1000 || kwh > 5000 {
			t.Errorf("seed %d: gave %d kWh in a year", seed, kwh)
		}
		if midnight != 0 || noon < 365*200 {
			t.Errorf("seed %d: the sun gives %d W at noon and %d at midnight, over a year", seed, noon, midnight)
		}
	}
}

// Cooling counts on warm days alone, beside the heat and not in it.
func TestHouseCooling(t *testing.T) {
	for seed := range uint64(2) {
		s := lifeOf(seed, heat, true, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), 32)
		start := s.counters
		var winter int64
		for step := range 365 * 2700 {
			before := s.counters
			s.step(32)
			heat, cold := s.energy()-before.energy(), s.cold()-before.cold()
			if heat < 0 || cold < 0 || heat > 1 && cold > 1 {
				t.Fatalf("seed %d: %d J and %d J in one step", seed, heat, cold)
			}
			if warmer := s.temp[1] > s.temp[0]; s.flow > 0 && warmer != (s.power < 0) || !warmer && cold > 1 {
				t.Fatalf("seed %d: power %d W at %v, %d J of cold", seed, s.power, s.temp, cold)
			}
			if step < 80*2700 {
				winter += cold
			}
		}
		if kwh := (s.cold() - start.cold()) / 3_600_000; winter != 0 || kwh < 50 || kwh > 2000 {
			t.Errorf("seed %d: %d J of cold in winter, %d kWh in the year", seed, winter, kwh)
		}
		// Over the whole life: E1 − E3 is 4.15 MJ/(m³·K) × (E8 − E9).
		want := 4.15 * float64(s.volumeT[0]-s.volumeT[1]) / 100
		if math.Abs(float64(s.energy()-s.cold())-want) > 2 {
			t.Errorf("seed %d: %d J − %d J, want %.0f", seed, s.energy(), s.cold(), want)
		}
		without := newState(newHouse(seed), s.t, 32)
		if without.cold() != 0 {
			t.Errorf("seed %d: a house that is not cooled used %d J of cold", seed, without.cold())
		}
	}
}
