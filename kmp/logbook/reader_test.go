package logbook

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/sim"
)

// begin is when the tests' meters begin: a Saturday morning.
var begin = time.Date(2026, 11, 21, 7, 45, 0, 0, time.UTC)

func berlin(t testing.TB) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

// bed is a simulated meter and a connection to it, on fake time.
type bed struct {
	*testing.T
	meter *sim.Meter
	src   Source
	most  int // requests in one Next
}

// onMeter runs a test with a meter whose clock is right unless cfg says otherwise, at a
// house in Berlin.
func onMeter(t *testing.T, cfg sim.Config, opts kmp.Options, test func(b *bed)) {
	t.Helper()
	zone := berlin(t)
	synctest.Test(t, func(t *testing.T) {
		if cfg.Model == "" {
			cfg.Model = "603"
		}
		if cfg.Start.IsZero() {
			cfg.Start = begin.In(zone)
		}
		time.Sleep(time.Until(cfg.Start))
		meter, err := sim.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		conn := kmp.NewConn(meter.Line(t.Context()), opts)
		defer conn.Close()
		test(&bed{T: t, meter: meter, src: Source{Conn: conn, Address: kmp.HeatMeter, Zone: zone}})
	})
}

// truth is what the meter's log holds from one id to another.
func (b *bed) truth(log kmp.LogType, registers []uint16, keep func(row Row) bool) (rows []Row) {
	b.Helper()
	for _, r := range b.meter.Log(log) {
		row := Row{Log: log, ID: r.ID}
		row.Time, _ = timeOf(r.Registers, b.src.Zone, false)
		for _, reg := range r.Registers {
			if !isTime(reg.ID) && (registers == nil || slices.Contains(registers, reg.ID)) {
				row.Registers = append(row.Registers, reg)
			}
		}
		if registers != nil {
			slices.SortFunc(row.Registers, func(x, y kmp.Register) int {
				return slices.Index(registers, x.ID) - slices.Index(registers, y.ID)
			})
		}
		if keep == nil || keep(row) {
			rows = append(rows, row)
		}
	}
	return rows
}

// all reads to the end and lets nothing go wrong.
func (b *bed) all(r *Reader) (rows []Row) {
	b.Helper()
	rows, err := b.read(r, 0)
	if err != nil {
		b.Fatal(err)
	}
	return rows
}

// read reads to the end, and forgives some errors.
func (b *bed) read(r *Reader, errs int) (rows []Row, err error) {
	b.Helper()
	for range 10_000 {
		sent := b.requests()
		got, err := r.Next(b.Context())
		b.most = max(b.most, b.requests()-sent)
		if err != nil && len(got) > 0 {
			b.Fatalf("%d rows and %v", len(got), err)
		}
		rows = append(rows, got...)
		if errors.Is(err, ErrEnd) {
			return rows, nil
		}
		if err != nil {
			if errs--; errs < 0 {
				return rows, err
			}
		}
	}
	b.Fatal("no end")
	return nil, nil
}

// requests is how many requests the connection has sent.
func (b *bed) requests() int { return int(b.src.Conn.Stats().Requests) }

func sameRow(a, b Row) bool {
	return a.Log == b.Log && a.ID == b.ID && a.Time.Equal(b.Time) && a.Time.Format(time.RFC3339) == b.Time.Format(time.RFC3339) &&
		slices.EqualFunc(a.Registers, b.Registers, sameRegister)
}

// equal compares rows one by one.
func (b *bed) equal(got, want []Row) {
	b.Helper()
	if len(got) != len(want) {
		b.Errorf("%d rows, want %d: %s, want %s", len(got), len(want), span(got), span(want))
		return
	}
	for i := range got {
		if !sameRow(got[i], want[i]) {
			b.Errorf("row %d is %v, want %v", i, got[i], want[i])
			return
		}
	}
}

func span(rows []Row) string {
	if len(rows) == 0 {
		return "none"
	}
	first, last := rows[0], rows[len(rows)-1]
	var b bytes.Buffer
	b.WriteString(first.Time.Format(time.DateTime) + " to " + last.Time.Format(time.DateTime))
	return b.String()
}

var four = []uint16{60, 68, 86, 87}

// The usual day of a bridge that visits a meter once a day.
func TestDay(t *testing.T) {
	onMeter(t, sim.Config{}, kmp.Options{}, func(b *bed) {
		before := b.truth(kmp.LogHour, four, nil)
		last := before[len(before)-1]
		r := NewReader(b.src, kmp.LogHour, Range{After: last.ID, Known: true, AfterTime: last.Time, Registers: four})
		for day := range 3 {
			time.Sleep(24 * time.Hour)
			sent := b.requests()
			got := b.all(r)
			b.equal(got, b.truth(kmp.LogHour, four, func(row Row) bool { return row.ID > last.ID }))
			if len(got) != 24 {
				b.Errorf("%d rows", len(got))
			}
			if n := b.requests() - sent; n != 1 {
				b.Errorf("day %d took %d requests", day, n)
			}
			last = got[len(got)-1]
		}
		if _, _, ok := r.Lost(); ok {
			b.Error("rows are said to be lost")
		}
		sent := b.requests()
		if got := b.all(r); len(got) != 0 || b.requests() != sent+1 {
			b.Errorf("%d rows of nothing new in %d requests", len(got), b.requests()-sent)
		}
	})
}

// The whole log of every kind, with all registers and with some.
func TestWholeLogs(t *testing.T) {
	for _, model := range []string{"403", "603"} {
		for _, log := range []kmp.LogType{kmp.LogYear, kmp.LogMonth, kmp.LogDay, kmp.LogHour, kmp.LogMinute} {
			t.Run(model+" "+log.String(), func(t *testing.T) {
				onMeter(t, sim.Config{Model: model, LogDepth: 100}, kmp.Options{}, func(b *bed) {
					for _, registers := range [][]uint16{nil, four, {}} {
						r := NewReader(b.src, log, Range{Registers: registers})
						want := b.truth(log, registers, nil)
						b.equal(b.all(r), want)
						if id, ok := r.Newest(); !ok || id != want[len(want)-1].ID {
							b.Errorf("newest %d, %v", id, ok)
						}
						if id, ok := r.Oldest(); !ok || id != want[0].ID {
							b.Errorf("oldest %d, %v", id, ok)
						}
						config, ok := r.Config()
						if ok != (registers == nil) || ok && (config.Log != log || config.Depth != 100) {
							b.Errorf("configuration %v, %v", config, ok)
						}
						if from, to, ok := r.Lost(); ok {
							b.Errorf("%d to %d are said to be lost", from, to)
						}
					}
				})
			})
		}
	}
}

func TestEmptyLog(t *testing.T) {
	for name, want := range map[string]Range{
		"all":       {},
		"four":      {Registers: four},
		"since":     {Since: begin.Add(-time.Hour), Registers: four},
		"until":     {Until: begin, Registers: four},
		"after":     {After: 17, Known: true, Registers: four},
		"after all": {After: 17, Known: true},
	} {
		t.Run(name, func(t *testing.T) {
			onMeter(t, sim.Config{EmptyLogs: true}, kmp.Options{}, func(b *bed) {
				for _, log := range []kmp.LogType{kmp.LogHour, kmp.LogMinute2} {
					r := NewReader(b.src, log, want)
					for range 2 {
						if rows := b.all(r); len(rows) > 0 {
							b.Errorf("rows %v", rows)
						}
					}
					if id, ok := r.Newest(); ok {
						b.Errorf("newest %d", id)
					}
				}
			})
		})
	}
}

// A log that was empty grows.
func TestFirstRows(t *testing.T) {
	onMeter(t, sim.Config{EmptyLogs: true}, kmp.Options{}, func(b *bed) {
		r := NewReader(b.src, kmp.LogHour, Range{Registers: four})
		var got []Row
		for range 5 {
			got = append(got, b.all(r)...)
			time.Sleep(50 * time.Minute)
		}
		b.equal(got, b.truth(kmp.LogHour, four, nil)[:len(got)])
		if len(got) < 3 {
			b.Errorf("%d rows", len(got))
		}
	})
}

func TestRange(t *testing.T) {
	at := func(days, hours int) time.Time {
		return begin.Add(15*time.Minute + time.Duration(days*24+hours)*time.Hour)
	}
	tests := []struct {
		name     string
		want     Range
		requests int
	}{
		{"a day", Range{Since: at(-1, 0)}, 1},
		{"a day, nearly", Range{Since: at(-1, 0).Add(time.Second)}, 1},
		{"before the newest", Range{Since: at(0, -1).Add(time.Second)}, 1},
		{"the newest", Range{Since: at(0, -1)}, 1},
		{"a week", Range{Since: at(-7, 0)}, 12},
		{"a day long ago", Range{Since: at(-30, 0), Until: at(-29, 0)}, 5},
		{"an hour long ago", Range{Since: at(-30, 0), Until: at(-30, 1)}, 4},
		{"nothing long ago", Range{Since: at(-30, 0), Until: at(-30, 0)}, 4},
		{"the other way round", Range{Since: at(-30, 0), Until: at(-31, 0)}, 4},
		{"until long ago", Range{Until: at(-50, 0)}, 12},
		{"the future", Range{Since: at(1, 0)}, 2},
		{"before there was a log", Range{Since: at(-1000, 0), Until: at(-999, 0)}, 5},
		{"since before there was a log", Range{Since: at(-1000, 0)}, 80},
		{"ten", Range{Most: 10}, 2},
		{"ten since", Range{Since: at(-30, 0), Most: 10}, 6},
		{"one", Range{Most: 1, Since: at(-1, 0)}, 6},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			onMeter(t, sim.Config{}, kmp.Options{}, func(b *bed) {
				test.want.Registers = four
				want := b.truth(kmp.LogHour, four, func(row Row) bool {
					return !row.Time.Before(test.want.Since) && (test.want.Until.IsZero() || row.Time.Before(test.want.Until))
				})
				if n := test.want.Most; n > 0 {
					want = want[:n]
				}
				b.equal(b.all(NewReader(b.src, kmp.LogHour, test.want)), want)
				if b.most > 1 {
					b.Errorf("%d requests at once", b.most)
				}
				if n := b.requests(); n > test.requests {
					b.Errorf("%d requests for %d rows, want at most %d", n, len(want), test.requests)
				}
			})
		})
	}
}

// Rows are written while others are read, many of them while a slow line is busy.
func TestNewRowsMeanwhile(t *testing.T) {
	for _, speed := range []float64{1, 60} {
		onMeter(t, sim.Config{Speed: speed, Paced: true, LogDepth: 60000, EmptyLogs: true}, kmp.Options{}, func(b *bed) {
			time.Sleep(time.Duration(float64(20*time.Hour) / speed))
			r := NewReader(b.src, kmp.LogMinute, Range{Registers: four})
			got := b.all(r)
			newest, _ := r.Newest()
			if len(got) < 1000 || got[0].ID != 1 || got[len(got)-1].ID != newest {
				b.Fatalf("%d rows up to %d of %d", len(got), got[len(got)-1].ID, newest)
			}
			b.equal(got, b.truth(kmp.LogMinute, four, nil)[:len(got)])
		})
	}
}

// The log pushes out its oldest rows faster than the line can carry them: what is gone is
// told, and the rest is whole.
func TestPushedOut(t *testing.T) {
	onMeter(t, sim.Config{Speed: 300, Paced: true, LogDepth: 50, EmptyLogs: true}, kmp.Options{}, func(b *bed) {
		time.Sleep(10 * time.Minute)
		registers := []uint16{60, 63, 68, 74, 80, 86, 87, 369, 99}
		r := NewReader(b.src, kmp.LogMinute, Range{After: 5, Known: true, Registers: registers})
		next, lost := uint32(6), 0
		for range 200 {
			rows, err := r.Next(b.Context())
			if err != nil && !errors.Is(err, ErrEnd) {
				b.Fatal(err)
			}
			for from, to, ok := r.Lost(); ok; from, to, ok = r.Lost() {
				if from != next || to < from {
					b.Fatalf("%d to %d are lost, expected %d next", from, to, next)
				}
				next = to + 1
				lost++
			}
			for i, row := range rows {
				if row.ID != next {
					b.Fatalf("row %d, want %d", row.ID, next)
				}
				if i > 0 && row.Time.Sub(rows[i-1].Time) != time.Minute {
					b.Fatalf("row %d is from %s, the one before from %s", row.ID, row.Time, rows[i-1].Time)
				}
				if len(row.Registers) != len(registers) {
					b.Fatalf("row %v", row)
				}
				next++
			}
		}
		if lost < 2 {
			b.Errorf("lost %d times", lost)
		}
	})
}

// The bridge was away for longer than the log reaches back.
func TestLost(t *testing.T) {
	onMeter(t, sim.Config{LogDepth: 48}, kmp.Options{}, func(b *bed) {
		before := b.truth(kmp.LogHour, four, nil)
		last := before[len(before)-1]
		time.Sleep(10 * 24 * time.Hour)
		r := NewReader(b.src, kmp.LogHour, Range{After: last.ID, Known: true, AfterTime: last.Time, Registers: four})
		got := b.all(r)
		b.equal(got, b.truth(kmp.LogHour, four, nil))
		if from, to, ok := r.Lost(); !ok || from != last.ID+1 || to != last.ID+240-48 {
			b.Errorf("lost %d to %d, %v", from, to, ok)
		}
		if from, to, ok := r.Lost(); ok {
			b.Errorf("lost %d to %d as well", from, to)
		}
		if n := b.requests(); n > 6 {
			b.Errorf("%d requests", n)
		}
	})
}

func TestRestarted(t *testing.T) {
	onMeter(t, sim.Config{}, kmp.Options{}, func(b *bed) {
		r := NewReader(b.src, kmp.LogHour, Range{Since: begin.Add(-5 * time.Hour), Registers: four})
		got := b.all(r)
		b.meter.Replace(80123457)
		time.Sleep(5 * time.Hour)
		for range 3 {
			if rows, err := b.read(r, 0); !errors.Is(err, ErrRestarted) || len(rows) > 0 {
				b.Errorf("%d rows, %v", len(rows), err)
			}
		}
		again := NewReader(b.src, kmp.LogHour, Range{After: got[len(got)-1].ID, Known: true, Registers: four})
		if rows, err := b.read(again, 0); !errors.Is(err, ErrRestarted) || len(rows) > 0 {
			b.Errorf("%d rows, %v", len(rows), err)
		}
		b.equal(b.all(NewReader(b.src, kmp.LogHour, Range{Registers: four})), b.truth(kmp.LogHour, four, nil))
	})
}

func TestNoLogs(t *testing.T) {
	for name, cfg := range map[string]sim.Config{"no logs": {NoLogs: true}, "water": {Model: "21"}, "electricity": {Model: "382"}} {
		t.Run(name, func(t *testing.T) {
			onMeter(t, cfg, kmp.Options{}, func(b *bed) {
				for _, registers := range [][]uint16{nil, four} {
					_, err := NewReader(b.src, kmp.LogHour, Range{Registers: registers}).Next(b.Context())
					var exchange *kmp.ExchangeError
					if !errors.Is(err, ErrNoLogs) || !errors.Is(err, kmp.ErrNoReply) || !errors.As(err, &exchange) || exchange.Command != kmp.CmdLogger {
						b.Errorf("%v", err)
					}
				}
			})
		})
	}
	t.Run("one log alone", func(t *testing.T) {
		onMeter(t, sim.Config{}, kmp.Options{}, func(b *bed) {
			if _, err := NewReader(b.src, kmp.LogInfoCodes, Range{}).Next(b.Context()); !errors.Is(err, ErrNoLogs) {
				b.Error(err)
			}
			if rows := b.all(NewReader(b.src, kmp.LogYear, Range{})); len(rows) == 0 {
				b.Error("no rows")
			}
		})
	})
	t.Run("nobody there", func(t *testing.T) {
		onMeter(t, sim.Config{Faults: sim.Faults{Silence: true}}, kmp.Options{}, func(b *bed) {
			r := NewReader(b.src, kmp.LogHour, Range{Registers: four})
			if _, err := r.Next(b.Context()); errors.Is(err, ErrNoLogs) || !errors.Is(err, kmp.ErrNoReply) {
				b.Error(err)
			}
			b.meter.SetFaults(sim.Faults{})
			b.equal(b.all(r), b.truth(kmp.LogHour, four, nil))
		})
	})
	t.Run("silent later", func(t *testing.T) {
		onMeter(t, sim.Config{}, kmp.Options{}, func(b *bed) {
			r := NewReader(b.src, kmp.LogHour, Range{Registers: four})
			if _, err := r.Next(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.meter.SetFaults(sim.Faults{Lost: 1})
			sent := b.requests()
			if _, err := r.Next(b.Context()); errors.Is(err, ErrNoLogs) || !errors.Is(err, kmp.ErrNoReply) || b.requests()-sent != 2 {
				b.Errorf("%v after %d requests", err, b.requests()-sent)
			}
		})
	})
}

// A power cut is a hole in time and none in the ids; a clock that was set makes time go
// back. Both are the truth.
func TestPowerAndClock(t *testing.T) {
	tests := []struct {
		name string
		do   func(b *bed)
	}{
		{"power cut", func(b *bed) { b.meter.PowerCut(7 * time.Hour); time.Sleep(7 * time.Hour) }},
		{"clock ahead", func(b *bed) { b.meter.SetClock(b.meter.Clock().Add(5 * time.Hour)) }},
		{"clock back", func(b *bed) { b.meter.SetClock(b.meter.Clock().Add(-5 * time.Hour)) }},
		{"clock back by a minute", func(b *bed) { b.meter.SetClock(b.meter.Clock().Add(-50 * time.Minute)) }},
		{"clock back by years", func(b *bed) { b.meter.SetClock(b.meter.Clock().AddDate(-3, 0, 0)) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			onMeter(t, sim.Config{EmptyLogs: true}, kmp.Options{}, func(b *bed) {
				r := NewReader(b.src, kmp.LogHour, Range{Registers: four})
				var got []Row
				for range 4 {
					time.Sleep(9 * time.Hour)
					test.do(b)
					time.Sleep(5 * time.Hour)
					got = append(got, b.all(r)...)
				}
				b.equal(got, b.truth(kmp.LogHour, four, nil))
				b.equal(b.all(NewReader(b.src, kmp.LogHour, Range{Registers: four})), got)
			})
		})
	}
}

// Rows between Since and Until are found though the clock was set in between.
func TestRangeOfSetClock(t *testing.T) {
	tests := []struct {
		name string
		do   func(b *bed)
	}{
		{"back by two hours", func(b *bed) { b.meter.SetClock(b.meter.Clock().Add(-2 * time.Hour)) }},
		{"back by half an hour", func(b *bed) { b.meter.SetClock(b.meter.Clock().Add(-30 * time.Minute)) }},
		{"ahead", func(b *bed) { b.meter.SetClock(b.meter.Clock().Add(30 * time.Hour)) }},
		{"power cut", func(b *bed) { b.meter.PowerCut(30 * time.Hour); time.Sleep(30 * time.Hour) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			onMeter(t, sim.Config{EmptyLogs: true}, kmp.Options{}, func(b *bed) {
				for range 3 {
					time.Sleep(50 * time.Hour)
					test.do(b)
				}
				time.Sleep(50 * time.Hour)
				log := b.truth(kmp.LogHour, four, nil)
				for hours := range 250 {
					since := begin.Add(time.Duration(hours) * time.Hour)
					for _, length := range []time.Duration{time.Hour, 24 * time.Hour} {
						until := since.Add(length)
						first, last := len(log), 0 // the rows from the first not before since to the last before until
						for i, row := range log {
							if !row.Time.Before(since) {
								first = min(first, i)
							}
							if row.Time.Before(until) {
								last = i + 1
							}
						}
						var want []Row
						if first < last {
							want = log[first:last]
						}
						got := b.all(NewReader(b.src, kmp.LogHour, Range{Since: since, Until: until, Registers: four}))
						b.equal(got, want)
						if b.Failed() {
							b.Fatalf("since %s until %s", since, until)
						}
					}
				}
			})
		})
	}
}

// A register that the log does not have is left out, and asked for once.
func TestAbsentRegisters(t *testing.T) {
	onMeter(t, sim.Config{}, kmp.Options{}, func(b *bed) {
		wanted := []uint16{60, 1, 68, 2, 3, 4, 86, 5, 6, 60, 1003, 7}
		asked := map[uint16]int{}
		b.src.Conn = kmp.NewConn(b.meter.Line(b.Context()), kmp.Options{Trace: func(dir kmp.Direction, wire []byte) {
			if dir != kmp.ToMeter {
				return
			}
			f, err := kmp.DecodeFrame(slices.Clone(wire))
			if err != nil {
				b.Error(err)
			}
			m, err := kmp.DecodeMessage(f)
			if err != nil {
				b.Error(err)
			}
			var ids []uint16
			switch q := m.(type) {
			case *kmp.LogByIDRequest:
				ids = q.IDs
			case *kmp.LogLastRequest:
				ids = q.IDs
			}
			for _, id := range ids {
				asked[id]++
			}
		}})
		defer b.src.Conn.Close()
		r := NewReader(b.src, kmp.LogHour, Range{Since: begin.Add(-100 * time.Hour), Registers: wanted})
		b.equal(b.all(r), b.truth(kmp.LogHour, []uint16{60, 68, 86}, func(row Row) bool { return !row.Time.Before(begin.Add(-100 * time.Hour)) }))
		for _, id := range []uint16{1, 2, 3, 4, 5, 6, 7} {
			if asked[id] != 1 {
				b.Errorf("register %d was asked for %d times", id, asked[id])
			}
		}
		if asked[60] < 2 || asked[348] < 2 || asked[1003] > 2 || asked[1002] > 2 {
			b.Errorf("asked for %v", asked)
		}
	})
}

// The context of a Next ends, and the next one goes on; so does another connection.
func TestInterrupted(t *testing.T) {
	onMeter(t, sim.Config{Paced: true}, kmp.Options{}, func(b *bed) {
		since := begin.Add(-200 * time.Hour)
		r := NewReader(b.src, kmp.LogHour, Range{Since: since})
		var got []Row
		ended := 0
		for i := range 10_000 {
			ctx, cancel := context.WithTimeout(b.Context(), time.Duration(i%12)*time.Second)
			rows, err := r.Next(ctx)
			cancel()
			got = append(got, rows...)
			if errors.Is(err, ErrEnd) {
				break
			}
			if errors.Is(err, context.DeadlineExceeded) {
				if ended++; ended%3 == 0 {
					b.src.Conn.Close()
					b.src.Conn = kmp.NewConn(b.meter.Line(b.Context()), kmp.Options{})
					r.Retarget(b.src.Conn)
				}
			} else if err != nil {
				b.Fatal(err)
			}
		}
		b.src.Conn.Close()
		if ended < 10 {
			b.Errorf("ended %d times", ended)
		}
		b.equal(got, b.truth(kmp.LogHour, nil, func(row Row) bool { return !row.Time.Before(since) }))
	})
}

// A reader that is made of another one knows the log.
func TestAgain(t *testing.T) {
	onMeter(t, sim.Config{Faults: sim.Faults{MaxAnswer: 300}}, kmp.Options{}, func(b *bed) {
		first := NewReader(b.src, kmp.LogHour, Range{Since: begin.Add(-100 * time.Hour)})
		rows := b.all(first)
		last := rows[len(rows)-1]
		time.Sleep(48 * time.Hour)
		fresh, known := 0, 0
		for _, r := range []struct {
			*Reader
			sent *int
		}{
			{NewReader(b.src, kmp.LogHour, Range{After: last.ID, Known: true, AfterTime: last.Time}), &fresh},
			{first.Again(Range{After: last.ID, Known: true, AfterTime: last.Time}), &known},
		} {
			sent := b.requests()
			b.equal(b.all(r.Reader), b.truth(kmp.LogHour, nil, func(row Row) bool { return row.ID > last.ID }))
			*r.sent = b.requests() - sent
		}
		if known >= fresh {
			b.Errorf("%d requests, and %d by one that knows nothing", known, fresh)
		}
	})
}

// The night when clocks are changed has as many rows as any other. A meter that tells
// daylight saving time shows it; one that does not runs on.
func TestClockChange(t *testing.T) {
	for _, test := range []struct {
		model  string
		start  time.Time
		digits []string
	}{
		{"603", time.Date(2026, 3, 29, 0, 0, 0, 0, time.UTC), []string{"03:00+02:00", "04:00+02:00", "05:00+02:00"}},
		{"403", time.Date(2026, 3, 29, 0, 0, 0, 0, time.UTC), []string{"02:00+01:00", "03:00+01:00", "04:00+01:00"}},
		{"603", time.Date(2026, 10, 24, 23, 0, 0, 0, time.UTC), []string{"02:00+02:00", "02:00+01:00", "03:00+01:00"}},
		{"403", time.Date(2026, 10, 24, 23, 0, 0, 0, time.UTC), []string{"01:00+01:00", "02:00+01:00", "03:00+01:00"}},
	} {
		onMeter(t, sim.Config{Model: test.model, Start: test.start.In(berlin(t)), EmptyLogs: true}, kmp.Options{}, func(b *bed) {
			time.Sleep(4 * time.Hour)
			rows := b.all(NewReader(b.src, kmp.LogHour, Range{Registers: four}))
			if len(rows) < 3 {
				b.Fatalf("%d rows", len(rows))
			}
			for i, row := range rows {
				if want := test.start.Add(time.Duration(i+1) * time.Hour); !row.Time.Equal(want) {
					b.Errorf("%s: row %d is from %s, want %s", test.model, i, row.Time, want)
				}
				if i < len(test.digits) && row.Time.Format("15:04Z07:00") != test.digits[i] {
					b.Errorf("%s: row %d is from %s, want %s", test.model, i, row.Time, test.digits[i])
				}
			}
		})
	}
}
