package logbook

import (
	"errors"
	"testing"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/sim"
)

// onModule is onMeter for a logger module of a 601.
func onModule(t *testing.T, cfg sim.Config, test func(b *bed)) {
	t.Helper()
	for _, address := range []kmp.Address{kmp.LoggerTop, kmp.LoggerBase} {
		cfg.Model = "601"
		onMeter(t, cfg, kmp.Options{}, func(b *bed) {
			b.src.Address = address
			test(b)
		})
	}
}

func TestModuleDay(t *testing.T) {
	onModule(t, sim.Config{}, func(b *bed) {
		before := b.truth(kmp.LogHour, four, nil)
		last := before[len(before)-1]
		r := NewReader(b.src, kmp.LogHour, Range{After: last.ID, Known: true, AfterTime: last.Time, Registers: four})
		for range 3 {
			time.Sleep(24 * time.Hour)
			sent := b.requests()
			got := b.all(r)
			b.equal(got, b.truth(kmp.LogHour, four, func(row Row) bool { return row.ID > last.ID }))
			if n := b.requests() - sent; len(got) != 24 || n > 3 {
				b.Errorf("%d rows in %d requests", len(got), n)
			}
			last = got[len(got)-1]
		}
	})
}

func TestModuleRange(t *testing.T) {
	at := func(hours int) time.Time { return begin.Add(15*time.Minute + time.Duration(hours)*time.Hour) }
	for name, want := range map[string]Range{
		"all":                  {},
		"four":                 {Registers: four},
		"times":                {Registers: []uint16{}},
		"since":                {Since: at(-30), Registers: four},
		"since the future":     {Since: at(30), Registers: four},
		"since before the log": {Since: at(-100_000), Registers: four},
		"a day":                {Since: at(-100), Until: at(-76), Registers: four},
		"until":                {Until: at(-150), Registers: four},
		"ten":                  {Since: at(-100), Most: 10, Registers: four},
	} {
		t.Run(name, func(t *testing.T) {
			onModule(t, sim.Config{LogDepth: 200}, func(b *bed) {
				truth := b.truth(kmp.LogHour, moduleRegisters, func(row Row) bool {
					return !row.Time.Before(want.Since) && (want.Until.IsZero() || row.Time.Before(want.Until))
				})
				if want.Registers != nil {
					truth = b.truth(kmp.LogHour, want.Registers, func(row Row) bool {
						return !row.Time.Before(want.Since) && (want.Until.IsZero() || row.Time.Before(want.Until))
					})
				}
				if n := want.Most; n > 0 {
					truth = truth[:n]
				}
				b.equal(b.all(NewReader(b.src, kmp.LogHour, want)), truth)
			})
		})
	}
}

func TestModuleFaults(t *testing.T) {
	for name, faults := range map[string]sim.Faults{
		"echo":                 {Echo: true},
		"lost":                 {Lost: 0.3},
		"late":                 {Late: 0.3},
		"corrupted":            {Corrupted: 0.25},
		"truncated":            {Truncated: 0.25},
		"duplicated":           {Duplicated: 0.7},
		"answers of 100 bytes": {MaxAnswer: 100},
		"answers of 60 bytes":  {MaxAnswer: 60},
	} {
		t.Run(name, func(t *testing.T) {
			onModule(t, sim.Config{EmptyLogs: true, Seed: 3}, func(b *bed) {
				time.Sleep(72 * time.Hour)
				b.meter.SetFaults(faults)
				r := NewReader(b.src, kmp.LogHour, Range{})
				var got []Row
				for range 4 {
					rows, err := b.read(r, 60)
					if err != nil {
						b.Fatal(err)
					}
					got = append(got, rows...)
					time.Sleep(25 * time.Hour)
				}
				b.equal(got, b.truth(kmp.LogHour, moduleRegisters, nil)[:len(got)])
				if len(got) < 147 {
					b.Errorf("%d rows", len(got))
				}
			})
		})
	}
}

func TestModuleLost(t *testing.T) {
	onModule(t, sim.Config{LogDepth: 48}, func(b *bed) {
		before := b.truth(kmp.LogHour, four, nil)
		last := before[len(before)-1]
		time.Sleep(10 * 24 * time.Hour)
		r := NewReader(b.src, kmp.LogHour, Range{After: last.ID, Known: true, AfterTime: last.Time, Registers: four})
		b.equal(b.all(r), b.truth(kmp.LogHour, four, nil))
		if from, to, ok := r.Lost(); !ok || from != last.ID+1 || to != last.ID+240-48 {
			b.Errorf("lost %d to %d, %v", from, to, ok)
		}
	})
}

func TestModuleRestarted(t *testing.T) {
	onModule(t, sim.Config{EmptyLogs: true}, func(b *bed) {
		for _, after := range []uint32{500, 60000, 131000} { // the new ids are behind, or seem to be ahead
			r := NewReader(b.src, kmp.LogHour, Range{After: after, Known: true, AfterTime: begin.Add(-time.Hour), Registers: four})
			time.Sleep(5 * time.Hour)
			if rows, err := b.read(r, 0); !errors.Is(err, ErrRestarted) || len(rows) > 0 {
				b.Errorf("after %d: %d rows, %v", after, len(rows), err)
			}
		}
	})
}

func TestModuleEmpty(t *testing.T) {
	onModule(t, sim.Config{EmptyLogs: true}, func(b *bed) {
		for _, want := range []Range{{}, {Since: begin}, {After: 5, Known: true}} {
			if rows := b.all(NewReader(b.src, kmp.LogHour, want)); len(rows) > 0 {
				b.Error(rows)
			}
		}
	})
}

func TestModuleNoLogs(t *testing.T) {
	onModule(t, sim.Config{NoLogs: true}, func(b *bed) {
		_, err := NewReader(b.src, kmp.LogHour, Range{Registers: four}).Next(b.Context())
		if !errors.Is(err, ErrNoLogs) || !errors.Is(err, kmp.ErrNoReply) {
			b.Error(err)
		}
		b.meter.SetFaults(sim.Faults{Silence: true})
		_, err = NewReader(b.src, kmp.LogHour, Range{Registers: four}).Next(b.Context())
		if errors.Is(err, ErrNoLogs) || !errors.Is(err, kmp.ErrNoReply) {
			b.Error(err)
		}
	})
	onModule(t, sim.Config{}, func(b *bed) {
		if _, err := NewReader(b.src, kmp.LogDay, Range{}).Next(b.Context()); !errors.Is(err, ErrNoLogs) {
			b.Error(err)
		}
	})
}

// After id 65535 a module goes on with 0; the rows go on counting.
func TestModuleWraps(t *testing.T) {
	onModule(t, sim.Config{EmptyLogs: true, LogDepth: 2000, Integration: time.Hour}, func(b *bed) {
		time.Sleep(66_000 * time.Hour)
		log := b.truth(kmp.LogHour, four, nil)
		first := log[100]
		if log[0].ID > 65_000 || log[len(log)-1].ID < 65_900 {
			b.Fatalf("rows %d to %d", log[0].ID, log[len(log)-1].ID)
		}
		r := NewReader(b.src, kmp.LogHour, Range{After: first.ID, Known: true, AfterTime: first.Time, Registers: four})
		b.equal(b.all(r), log[101:])
		b.equal(b.all(NewReader(b.src, kmp.LogHour, Range{Registers: four})), log)
	})
}
