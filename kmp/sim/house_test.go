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
