package logbook

import (
	"slices"
	"testing"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/sim"
)

// Whatever the line does, the rows are those of the meter's log: none is missing, none
// comes twice, none is another.
func TestFaults(t *testing.T) {
	tests := []struct {
		name   string
		cfg    sim.Config
		faults sim.Faults
		errs   int // how many may come
	}{
		{"none", sim.Config{}, sim.Faults{}, 0},
		{"echo", sim.Config{}, sim.Faults{Echo: true}, 0},
		{"noise", sim.Config{}, sim.Faults{Noise: 1, StrayBytes: 1}, 0},
		{"lost", sim.Config{}, sim.Faults{Lost: 0.3}, 60},
		{"late", sim.Config{}, sim.Faults{Late: 0.3}, 30},
		{"corrupted", sim.Config{}, sim.Faults{Corrupted: 0.25}, 40},
		{"truncated", sim.Config{}, sim.Faults{Truncated: 0.25}, 40},
		{"duplicated", sim.Config{}, sim.Faults{Duplicated: 0.7}, 0},
		{"byte by byte", sim.Config{}, sim.Faults{ByteByByte: true}, 0},
		{"missing registers", sim.Config{}, sim.Faults{MissingRegisters: []uint16{68, 86}}, 0},
		{"all", sim.Config{}, sim.Faults{Echo: true, Noise: 0.1, StrayBytes: 0.1, Lost: 0.1, Late: 0.1, Corrupted: 0.1, Truncated: 0.1, Duplicated: 0.1}, 60},
		{"answers of 300 bytes", sim.Config{}, sim.Faults{MaxAnswer: 300}, 0},
		{"answers of 100 bytes", sim.Config{}, sim.Faults{MaxAnswer: 100}, 0},
		{"answers of 60 bytes", sim.Config{}, sim.Faults{MaxAnswer: 60}, 0},
		{"answers of 50 bytes", sim.Config{}, sim.Faults{MaxAnswer: 50}, 0},
		{"small buffer", sim.Config{LogBuffer: 128}, sim.Faults{}, 0},
		{"smallest buffer", sim.Config{LogBuffer: 64}, sim.Faults{}, 0},
		{"small buffer, bad line", sim.Config{LogBuffer: 200}, sim.Faults{Lost: 0.1, Corrupted: 0.2, Echo: true}, 30},
		{"shallow log", sim.Config{LogDepth: 30}, sim.Faults{}, 0},
		{"meter without 348", sim.Config{Model: "403"}, sim.Faults{}, 0},
		{"clock ahead", sim.Config{ClockOffset: 20 * time.Minute, ClockDrift: 500}, sim.Faults{}, 0},
		{"clock of another year", sim.Config{ClockOffset: -5 * 365 * 24 * time.Hour}, sim.Faults{}, 0},
	}
	for _, test := range tests {
		for _, registers := range [][]uint16{four, nil} {
			name := test.name + ", four registers"
			if registers == nil {
				if n := test.faults.MaxAnswer; n > 0 && n < 100 {
					continue // which registers there are does not come through
				}
				name = test.name + ", all registers"
			}
			t.Run(name, func(t *testing.T) {
				cfg := test.cfg
				cfg.Seed, cfg.EmptyLogs = 7, true
				onMeter(t, cfg, kmp.Options{}, func(b *bed) {
					time.Sleep(3 * 24 * time.Hour)
					b.meter.SetFaults(test.faults)
					r := NewReader(b.src, kmp.LogHour, Range{Registers: registers})
					var got []Row
					for range 3 {
						rows, err := b.read(r, test.errs)
						if err != nil {
							b.Fatal(err)
						}
						got = append(got, rows...)
						time.Sleep(25 * time.Hour)
					}
					rows, err := b.read(r, test.errs)
					if err != nil {
						b.Fatal(err)
					}
					got = append(got, rows...)
					want := b.truth(kmp.LogHour, registers, nil)
					if n := cfg.LogDepth; n > 0 { // what was read before is no longer in the log
						got = got[len(got)-len(want):]
					}
					for i := range want {
						want[i].Registers = slices.DeleteFunc(want[i].Registers, func(r kmp.Register) bool {
							return slices.Contains(test.faults.MissingRegisters, r.ID)
						})
					}
					b.equal(got, want)
					b.Logf("%d rows in %d requests", len(got), b.requests())
				})
			})
		}
	}
}
