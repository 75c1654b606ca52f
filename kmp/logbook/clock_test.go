package logbook

import (
	"context"
	"errors"
	"testing"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/sim"
)

func TestClock(t *testing.T) {
	summer := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	midnight := time.Date(2026, 11, 30, 22, 59, 59, 500_000_000, time.UTC) // nearly December in Berlin
	tests := []struct {
		name  string
		cfg   sim.Config
		at    time.Time
		drift time.Duration
		dst   bool
	}{
		{"right", sim.Config{}, begin, 0, true},
		{"right, without 348", sim.Config{Model: "403"}, begin, 0, false},
		{"right in summer", sim.Config{}, summer, 0, true},
		{"right in summer, without 348", sim.Config{Model: "601"}, summer, 0, false},
		{"ahead", sim.Config{ClockOffset: 90 * time.Second}, begin, 90 * time.Second, true},
		{"behind", sim.Config{Model: "403", ClockOffset: -5 * time.Hour}, begin, -5 * time.Hour, false},
		{"years behind", sim.Config{ClockOffset: -7 * 365 * 24 * time.Hour}, begin, -7 * 365 * 24 * time.Hour, true},
		{"over midnight", sim.Config{Model: "403"}, midnight, 0, false},
		{"slow meter", sim.Config{Model: "403", Turnaround: 1500 * time.Millisecond}, begin, 0, false},
		{"lost now and then", sim.Config{Faults: sim.Faults{Lost: 0.3}}, begin, 0, true},
		{"bad head", sim.Config{Faults: sim.Faults{MaxAnswer: 30}}, begin, 0, false},
		{"echo", sim.Config{Faults: sim.Faults{Echo: true}}, begin, 0, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for fraction := time.Duration(0); fraction < time.Second; fraction += 190 * time.Millisecond {
				cfg := test.cfg
				cfg.Paced = true
				cfg.Start = test.at.Add(fraction).In(berlin(t))
				onMeter(t, cfg, kmp.Options{}, func(b *bed) {
					got, err := Clock(b.Context(), b.src)
					if err != nil {
						b.Fatal(err)
					}
					if off := (got.Drift - test.drift).Abs(); off > time.Second {
						b.Errorf("drift %s, want %s", got.Drift, test.drift)
					}
					if got.DSTKnown != test.dst {
						b.Errorf("daylight saving time is known: %v", got.DSTKnown)
					}
					if off := got.Meter.Sub(got.At) - got.Drift; off.Abs() > time.Second {
						b.Errorf("%s at %s is off by %s", got.Meter, got.At, got.Drift)
					}
					if since := time.Since(got.At); since < 0 || since > time.Minute {
						b.Errorf("at %s before now", since)
					}
				})
			}
		})
	}
}

func TestClockErrors(t *testing.T) {
	onMeter(t, sim.Config{Faults: sim.Faults{MissingRegisters: []uint16{regDate, regDateTime}}}, kmp.Options{}, func(b *bed) {
		if got, err := Clock(b.Context(), b.src); !errors.Is(err, ErrNoClock) {
			b.Errorf("%v, %v", got, err)
		}
		b.meter.SetFaults(sim.Faults{Lost: 1})
		if got, err := Clock(b.Context(), b.src); !errors.Is(err, kmp.ErrNoReply) {
			b.Errorf("%v, %v", got, err)
		}
		b.meter.SetFaults(sim.Faults{Corrupted: 1})
		if got, err := Clock(b.Context(), b.src); !errors.Is(err, kmp.ErrCodec) {
			b.Errorf("%v, %v", got, err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		cancel()
		if got, err := Clock(ctx, b.src); !errors.Is(err, context.Canceled) {
			b.Errorf("%v, %v", got, err)
		}
	})
}

func TestCorrect(t *testing.T) {
	rows := []Row{{ID: 1}, {ID: 2}}
	ClockReading{Drift: 90 * time.Second}.Correct(rows)
	for _, row := range rows {
		if row.Correction != -90*time.Second || !row.Corrected {
			t.Errorf("row %v", row)
		}
	}
}
