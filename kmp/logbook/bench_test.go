package logbook

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/sim"
)

// turnaround is how long the simulated meter takes to answer.
const turnaround = 20 * time.Millisecond

// BenchmarkDay reads 24 hours of 4 registers at 1200 baud. The line is a simulated one on
// fake time: line-s is exact, whatever the machine. limit-s is what the bytes of the
// requests and answers need at least, 11 bits each, with the meter's turnaround.
func BenchmarkDay(b *testing.B) {
	for _, bench := range []struct {
		name  string
		model string
		days  int // read before: the reader knows the log then
	}{
		{"603", "603", 1},
		{"603-first", "603", 0},
		{"403", "403", 0},
	} {
		b.Run(bench.name, func(b *testing.B) {
			var took, limit time.Duration
			var requests, rows int
			for b.Loop() {
				ok := testing.RunTests(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: b.Name(), F: func(t *testing.T) {
					t.Helper()
					synctest.Test(t, func(t *testing.T) {
						took, limit, requests, rows = day(t, bench.model, bench.days)
					})
				}}})
				if !ok || rows != 24 {
					b.Fatalf("%d rows", rows)
				}
			}
			b.ReportMetric(took.Seconds(), "line-s")
			b.ReportMetric(limit.Seconds(), "limit-s")
			b.ReportMetric(100*(took.Seconds()/limit.Seconds()-1), "%over")
			b.ReportMetric(float64(requests), "requests")
		})
	}
}

// day reads the last of some days, the ones before for practice.
func day(t *testing.T, model string, before int) (took, limit time.Duration, requests, rows int) {
	t.Helper()
	time.Sleep(time.Until(begin))
	meter, err := sim.New(sim.Config{Model: model, Paced: true, Turnaround: turnaround})
	if err != nil {
		t.Fatal(err)
	}
	conn := kmp.NewConn(meter.Line(t.Context()), kmp.Options{})
	defer conn.Close()
	log := meter.Log(kmp.LogHour)
	newest := log[len(log)-1]
	at, _ := timeOf(newest.Registers, time.UTC, false)
	src := Source{Conn: conn, Address: kmp.HeatMeter, Zone: time.UTC}
	r := NewReader(src, kmp.LogHour, Range{After: newest.ID, Known: true, AfterTime: at, Registers: four})
	for range before + 1 {
		time.Sleep(24 * time.Hour)
		stats, start := conn.Stats(), time.Now()
		rows = drain(t, r)
		took = time.Since(start)
		now := conn.Stats()
		requests = int(now.Requests - stats.Requests)
		bytes := now.BytesSent - stats.BytesSent + now.BytesReceived - stats.BytesReceived
		limit = time.Duration(bytes)*kmp.DefaultByteTime + time.Duration(requests)*turnaround
	}
	return took, limit, requests, rows
}

func drain(t *testing.T, r *Reader) (n int) {
	t.Helper()
	for {
		rows, err := r.Next(context.Background())
		n += len(rows)
		if errors.Is(err, ErrEnd) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
