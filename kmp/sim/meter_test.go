package sim

import (
	"bytes"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

func newMeter(t testing.TB, c Config) *Meter {
	t.Helper()
	if c.Start.IsZero() {
		c.Start = november
	}
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func number(t testing.TB, m *Meter, id uint16) kmp.Decimal {
	t.Helper()
	r, ok := m.Read(id)
	if !ok {
		t.Fatalf("no register %d", id)
	}
	d, err := r.Decimal()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func text(t testing.TB, m *Meter, id uint16) string {
	t.Helper()
	r, ok := m.Read(id)
	if !ok {
		t.Fatalf("no register %d", id)
	}
	v, err := r.Value()
	if err != nil {
		t.Fatal(err)
	}
	if v == nil {
		return "none"
	}
	return v.String()
}

func TestMeterIndependentOfReads(t *testing.T) {
	for _, model := range []string{"403", "601", "603", "21", "382"} {
		synctest.Test(t, func(t *testing.T) {
			c := Config{Model: model, Cooling: model == "603", Seed: 11, Speed: 3}
			often, seldom := newMeter(t, c), newMeter(t, c)
			for range 10 * 24 * 6 {
				time.Sleep(10*time.Minute + 777*time.Millisecond)
				often.Read(60)
			}
			for _, id := range often.Registers() {
				a, _ := often.Read(id)
				b, ok := seldom.Read(id)
				if !ok || !equal(a, b) {
					t.Errorf("%s: register %d: %v and %v", model, id, a, b)
				}
			}
		})
	}
}

func TestMeterStartedAgain(t *testing.T) {
	for _, model := range []string{"403", "21", "382"} {
		synctest.Test(t, func(t *testing.T) {
			first := newMeter(t, Config{Model: model, Seed: 4})
			time.Sleep(3*time.Hour + 17*time.Minute + 5*time.Second)
			again := newMeter(t, Config{Model: model, Seed: 4, Start: first.Now()})
			for range 2 {
				for _, id := range first.Registers() {
					a, _ := first.Read(id)
					if b, _ := again.Read(id); !equal(a, b) {
						t.Errorf("%s: register %d is %v and, after a new start, %v", model, id, a, b)
					}
				}
				time.Sleep(30 * time.Hour)
			}
		})
	}
}

func TestMeterSeeds(t *testing.T) {
	a, b := newMeter(t, Config{Seed: 1}), newMeter(t, Config{Seed: 2})
	if number(t, a, 60) == number(t, b, 60) {
		t.Error("two seeds, one life")
	}
}

func TestMeterChangesOncePerIntegration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Integration: 64 * time.Second})
		changes, last := 0, number(t, m, 266)
		for range 64 * 10 {
			time.Sleep(time.Second)
			if now := number(t, m, 266); now != last {
				changes, last = changes+1, now
			}
		}
		if changes != 10 {
			t.Errorf("%d changes in ten intervals", changes)
		}
	})
}

func TestMeterCountersOnlyGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Model: "603", Speed: 1000})
		counters := []uint16{60, 68, 72, 97, 110, 113, 1004}
		last := map[uint16]kmp.Decimal{}
		for range 8000 { // 92 days
			time.Sleep(time.Second)
			for _, id := range counters {
				now := number(t, m, id)
				if now.Cmp(last[id]) < 0 {
					t.Fatalf("register %d fell from %s to %s", id, last[id], now)
				}
				last[id] = now
			}
		}
	})
}

func TestMeterRegistersAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Seed: 5})
		time.Sleep(40 * time.Minute)
		gj, wh := number(t, m, 60).Float64(), number(t, m, 266).Float64()
		total := gj / 0.0036 * 1000 // Wh
		wraps := float64(int64(total/1e7)) * 1e7
		if diff := total - wraps - wh; diff > 1 || diff < -280 { // E1 counts in steps of 278 Wh
			t.Errorf("E1 %v GJ and E1HighRes %v Wh differ by %v Wh", gj, wh, diff)
		}
		v, litres := number(t, m, 68).Float64(), number(t, m, 239).Float64()
		if diff := v*1000 - litres; diff > 1 || diff < -10 {
			t.Errorf("V1 %v m³ and V1HighRes %v l", v, litres)
		}
		if e8, e9 := number(t, m, 97).Float64(), number(t, m, 110).Float64(); (e8-e9)*0.00415-gj > 0.01 || gj-(e8-e9)*0.00415 > 0.01 {
			t.Errorf("E1 %v GJ, E8 %v, E9 %v", gj, e8, e9)
		}
		t1, t2, dt := number(t, m, 86), number(t, m, 87), number(t, m, 89)
		if d := t1.Float64() - t2.Float64() - dt.Float64(); d > 0.001 || d < -0.001 {
			t.Errorf("T1 %s − T2 %s is not %s", t1, t2, dt)
		}
		kw := number(t, m, 74).Float64() * dt.Float64() * 4.15 / 3600
		if d := kw - number(t, m, 80).Float64(); d > 0.15 || d < -0.15 {
			t.Errorf("power %s kW, flow × difference gives %.2f", number(t, m, 80), kw)
		}
		if got := text(t, m, 1004); got != "20215" { // 842 days, 7 hours
			t.Errorf("operating hours %s", got)
		}
	})
}

// Counters start again at 0 when the display has no more digits for them.
func TestMeterCountersWrap(t *testing.T) {
	m := newMeter(t, Config{Integration: still})
	m.state.counters = counters{volume: (1e8 + 7) * 10_000, volumeT: [2]int64{(1e8 + 4) * 1e8, 0}}
	want := map[uint16]string{68: "0.07", 97: "4", 110: "0"}
	for id, text := range want {
		if got := number(t, m, id).String(); got != text {
			t.Errorf("register %d is %s, want %s", id, got, text)
		}
	}
	full := int64(1e14) / heatCoefficient * 10_000 // 99999.999 GJ and a step more
	m.state.counters = counters{volumeT: [2]int64{full + 1e9, 0}}
	if got := number(t, m, 60).String(); got != "0.041" {
		t.Errorf("E1 is %s GJ", got)
	}
}

// Warm water weighs a little less than a tonne a cubic metre.
func TestMeterMass(t *testing.T) {
	for _, model := range []string{"601", "603"} {
		m := newMeter(t, Config{Model: model})
		tonnes, cubicMetres := number(t, m, 72).Float64(), number(t, m, 68).Float64()
		if ratio := tonnes / cubicMetres; ratio < 0.98 || ratio > 0.997 {
			t.Errorf("%s: %v t in %v m³", model, tonnes, cubicMetres)
		}
	}
}

func TestMeterUnits(t *testing.T) {
	for _, test := range []struct {
		model, unit string
		want        kmp.Unit
		exponent    int
	}{
		{"403", "", kmp.UnitGJ, -3},
		{"403", "GJ", kmp.UnitGJ, -3},
		{"403", "MWh", kmp.UnitMWh, -3},
		{"403", "kWh", kmp.UnitKWh, -1},
		{"601", "GJ", kmp.UnitGJ, -2},
		{"601", "MWh", kmp.UnitMWh, -3},
		{"601", "kWh", kmp.UnitKWh, 0},
		{"603", "MWh", kmp.UnitMWh, -3},
	} {
		m := newMeter(t, Config{Model: test.model, EnergyUnit: test.unit})
		r, _ := m.Read(60)
		d, err := r.Decimal()
		if err != nil || r.Unit != test.want || d.Exponent() != test.exponent {
			t.Errorf("%s in %s: %v = %s, %v", test.model, test.unit, r, d, err)
		}
		joule := map[kmp.Unit]float64{kmp.UnitGJ: 1e9, kmp.UnitMWh: 3.6e9, kmp.UnitKWh: 3.6e6}[r.Unit] * d.Float64()
		if diff := float64(m.state.energy()) - joule; diff < 0 || diff > 1.001e7 {
			t.Errorf("%s in %s: %s, off by %v J", test.model, test.unit, d, diff)
		}
	}
}

// Widths as captured from real meters (403) and as the document says (601).
func TestMeterWidths(t *testing.T) {
	for _, test := range []struct {
		model string
		id    uint16
		unit  kmp.Unit
		siEx  byte
		width int
	}{
		{"403", 60, kmp.UnitGJ, 0x43, 4},
		{"403", 68, kmp.UnitCubicMetre, 0x42, 4},
		{"403", 74, kmp.UnitLitrePerH, 0x00, 2},
		{"403", 80, kmp.UnitKW, 0x41, 2},
		{"403", 86, kmp.UnitCelsius, 0x42, 2},
		{"403", 89, kmp.UnitKelvin, 0x42, 2},
		{"403", 123, kmp.UnitDate, 0x00, 4},
		{"403", 139, kmp.UnitLitrePerH, 0x00, 2},
		{"403", 266, kmp.UnitWh, 0x00, 4},
		{"403", 1002, kmp.UnitClock, 0x00, 4},
		{"601", 74, kmp.UnitLitrePerH, 0x00, 4},
		{"601", 86, kmp.UnitCelsius, 0x42, 4},
		{"601", 1004, kmp.UnitHour, 0x00, 4},
		{"603", 348, kmp.UnitDSTDateTime, 0x00, 7},
		{"603", 369, kmp.UnitBits, 0x00, 4},
		{"21", 99, kmp.UnitNumber, 0x00, 2},
		{"382", 1, kmp.UnitKWh, 0x41, 4},
		{"382", 3, unitKvarh, 0x41, 4},
		{"382", 13, kmp.UnitKWh, 0x44, 4},
		{"382", 1010, kmp.UnitNumber, 0x00, 10},
		{"382", 1023, kmp.UnitKW, 0x43, 4},
		{"382", 1047, kmp.UnitRTC, 0x00, 8},
		{"382", 1054, unitVolt, 0x00, 2},
		{"382", 1058, kmp.UnitASCII, 0x00, 10},
		{"382", 1076, unitAmpere, 0x42, 4},
		{"382", 1080, kmp.UnitKW, 0x43, 2},
		{"382", 1126, kmp.UnitASCII, 0x00, 13},
	} {
		r, ok := newMeter(t, Config{Model: test.model}).Read(test.id)
		if !ok || r.Unit != test.unit || r.SiEx != test.siEx || len(r.Raw) != test.width {
			t.Errorf("%s: register %d is %+v, want unit %02X, SiEx %02X, %d bytes", test.model, test.id, r, byte(test.unit), test.siEx, test.width)
		}
	}
	m := newMeter(t, Config{Model: "601"})
	for _, id := range m.Registers() {
		if r, _ := m.Read(id); len(r.Raw) != 4 {
			t.Errorf("601: register %d has %d bytes", id, len(r.Raw))
		}
	}
}

func TestMeterRegistersAreKnown(t *testing.T) {
	for _, model := range models {
		m := newMeter(t, Config{Model: model.name})
		known, ok := catalog.ModelByName(model.name)
		if !ok {
			t.Fatalf("catalog knows no model %s", model.name)
		}
		for _, id := range known.Registers {
			if _, ok := m.Read(id); !ok {
				t.Errorf("%s: register %d, which is usually read, is missing", model.name, id)
			}
		}
		for _, id := range m.Registers() {
			r, ok := m.Read(id)
			if !ok {
				t.Errorf("%s: register %d is listed and cannot be read", model.name, id)
			}
			if _, err := r.Value(); err != nil {
				t.Errorf("%s: register %d: %v", model.name, id, err)
			}
			if r.SiEx == 0x40 { // minus zero as an exponent: readers that compare with 0 stumble over it
				t.Errorf("%s: register %d has SiEx 40", model.name, id)
			}
			if !known.Has(id) {
				t.Errorf("%s: catalog does not say that the model has register %d", model.name, id)
			}
			if _, ok := catalog.LookupUnit(r.Unit); !ok {
				t.Errorf("%s: register %d has unknown unit %02X", model.name, id, byte(r.Unit))
			}
		}
	}
}

func TestMeterClock(t *testing.T) {
	copenhagen, err := time.LoadLocation("Europe/Copenhagen")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Model: "603", Start: time.Date(2026, 3, 28, 23, 59, 30, 0, copenhagen), Speed: 60})
		if got := text(t, m, 1002) + " " + text(t, m, 1003); got != "23:59:30 2026-03-28" {
			t.Errorf("clock at the start: %s", got)
		}
		time.Sleep(time.Second)
		if got := text(t, m, 1002) + " " + text(t, m, 1003); got != "00:00:30 2026-03-29" {
			t.Errorf("clock after a minute: %s", got)
		}
		time.Sleep(3 * time.Minute) // the clocks have gone forward: it is 04:00:30
		r, _ := m.Read(348)
		if got := text(t, m, 1002) + " " + text(t, m, 348); got != "03:00:30 2026-03-29T04:00:30" || r.Raw[0] != 60 {
			t.Errorf("clock in summer time: %s, offset %d", got, r.Raw[0])
		}
		if got := m.Now().Format(time.RFC3339); got != "2026-03-29T04:00:30+02:00" {
			t.Errorf("Now is %s", got)
		}
		summer := newMeter(t, Config{Start: time.Date(2026, 7, 1, 12, 0, 0, 0, copenhagen)})
		if got := text(t, summer, 1002); got != "11:00:00" {
			t.Errorf("standard time in July is %s", got)
		}
	})
}

func TestMeterStandsStillAtTheEndOfTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Speed: maxSpeed, Integration: time.Hour})
		time.Sleep(40 * time.Hour) // 394 years
		a := m.Now()
		time.Sleep(time.Hour)
		if b := m.Now(); !a.Equal(b) || a.Year() != 2226 {
			t.Errorf("from %v to %v", a, b)
		}
		for _, id := range m.Registers() {
			if r, ok := m.Read(id); !ok || len(r.Raw) == 0 {
				t.Errorf("register %d after 200 years: %v, %v", id, r, ok)
			}
		}
	})
}

// remainder is v modulo m, as a fine register without its leading digits has it.
func remainder(v, m float64) float64 { return v - m*math.Floor(v/m) }

// Fine registers wrap where the modulus says, beside coarse ones that do not.
func TestMeterFineModulus(t *testing.T) {
	for _, test := range []struct {
		model        string
		modulus      int64 // steps of the fine register; 0: the default
		coarse, fine uint16
		scale, step  float64 // fine units in one coarse unit; a step of the coarse register in fine units
		wraps        float64 // fine units
	}{
		{"403", 0, 68, 239, 1000, 10, 1e7},
		{"403", 100_000, 68, 239, 1000, 10, 1e5},
		{"403", 1_000_000, 60, 266, 1e6 / 3.6, 278, 1e6},
		{"601", 1_000_000, 60, 155, 1e3 / 3.6, 3, 1e4},
		{"21", 0, 68, 239, 1000, 1, 1e6},
		{"21", 1_000_000, 68, 239, 1000, 1, 1e5},
		{"382", 0, 1, 13, 1, 0.1, 1000},
		{"382", 1_000_000, 2, 14, 1, 0.1, 100},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := newMeter(t, Config{Model: test.model, FineModulus: test.modulus})
			for range 20 {
				time.Sleep(5 * time.Hour)
				coarse, fine := number(t, m, test.coarse).Float64()*test.scale, number(t, m, test.fine).Float64()
				ahead := remainder(fine-coarse+test.step/10, test.wraps) - test.step/10
				if fine >= test.wraps || ahead < -1e-6*coarse || ahead > test.step*1.1 {
					t.Errorf("%s: register %d is %v and %d is %v, ahead by %v", test.model, test.coarse, coarse, test.fine, fine, ahead)
				}
			}
		})
	}
}

func TestElectricityRegistersAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Model: "382", Start: time.Date(2026, 6, 21, 7, 0, 0, 0, time.UTC)})
		read := func(id uint16) float64 { return number(t, m, id).Float64() }
		near := func(what string, got, want, within float64) {
			t.Helper()
			if math.Abs(got-want) > within {
				t.Errorf("at %v: %s is %v, want %v", m.Now(), what, got, want)
			}
		}
		for range 30 {
			time.Sleep(47 * time.Minute)
			near("import by tariff", read(19)+read(23), read(1), 0.11)
			near("export by tariff", read(20)+read(24), read(2), 0.11)
			if in, out := read(1023), read(1024); in > 0 && out > 0 {
				t.Errorf("imports %v kW and exports %v kW", in, out)
			}
			phases := read(1080) + read(1081) + read(1082)
			if in := read(1023); in > phases+0.001 {
				t.Errorf("imports %v kW, its phases %v", in, phases)
			}
			for i := range uint16(3) {
				if kw := read(1080 + i); kw > 0 {
					near("power of a phase", kw, read(1054+i)*read(1076+i)/1000, 0.003)
				}
			}
		}
	})
}

// The clock is laid out as in the dump of a real 382: 83 07 1A 23 13 1B 07 0E is Sunday,
// 2014-07-27, 19:35:26 standard time.
func TestElectricityClock(t *testing.T) {
	copenhagen, err := time.LoadLocation("Europe/Copenhagen")
	if err != nil {
		t.Fatal(err)
	}
	m := newMeter(t, Config{Model: "382", Start: time.Date(2014, 7, 27, 20, 35, 26, 0, copenhagen)})
	r, ok := m.Read(1047)
	if want := []byte{0x83, 7, 0x1A, 0x23, 0x13, 0x1B, 7, 0x0E}; !ok || !bytes.Equal(r.Raw, want) {
		t.Errorf("% X, want % X", r.Raw, want)
	}
	if got := text(t, m, 1047) + " " + text(t, m, 1058) + " " + text(t, m, 1126); got != "2014-07-27T19:35:26 070422JA83 070422JA83486" {
		t.Error(got)
	}
}

func TestMeterTypes(t *testing.T) {
	for name, want := range map[string]string{"21": "", "382": "382", "601": "601"} {
		m := newMeter(t, Config{Model: name})
		got, _ := catalog.ModelByType(m.model.meterType)
		if got.Name != want {
			t.Errorf("%s: type %04X is that of %q", name, m.model.meterType, got.Name)
		}
	}
}
