package logbook

import (
	"bytes"
	"errors"
	"io"
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
}

// onMeter runs a test with a meter whose clock is right unless cfg says otherwise, at a
// house in Berlin.
func onMeter(t *testing.T, cfg sim.Config, opts kmp.Options, test func(b *bed)) {
	t.Helper()
	zone := berlin(t)
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(begin))
		if cfg.Model == "" {
			cfg.Model = "603"
		}
		if cfg.Start.IsZero() {
			cfg.Start = begin.In(zone)
		}
		meter, err := sim.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		conn := kmp.NewConn(meter.Line(t.Context()), opts)
		defer conn.Close()
		test(&bed{t, meter, Source{Conn: conn, Address: kmp.HeatMeter, Zone: zone}})
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
		got, err := r.Next(b.Context())
		if err != nil && len(got) > 0 {
			b.Fatalf("%d rows and %v", len(got), err)
		}
		rows = append(rows, got...)
		if errors.Is(err, io.EOF) {
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
				t.Errorf("%d rows", len(got))
			}
			if n := b.requests() - sent; n != 1 {
				t.Errorf("day %d took %d requests", day, n)
			}
			last = got[len(got)-1]
		}
		if _, _, ok := r.Lost(); ok {
			t.Error("rows are said to be lost")
		}
		sent := b.requests()
		if got := b.all(r); len(got) != 0 || b.requests() != sent+1 {
			t.Errorf("%d rows of nothing new in %d requests", len(got), b.requests()-sent)
		}
	})
}
