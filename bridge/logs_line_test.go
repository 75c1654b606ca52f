package bridge

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/sim"
)

// shortLine ends after some bytes, as a gateway does that restarts.
type shortLine struct {
	kmp.Line
	left int
}

func (l *shortLine) Read(p []byte) (int, error) {
	if l.left <= 0 {
		l.Close()
	}
	n, err := l.Line.Read(p)
	l.left -= n
	return n, err
}

// TestLogsLineEnds: a line that ends while a log is read is no end of the log.
func TestLogsLineEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		toToday()
		l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: "403", LogDepth: 400}},
			"METERS=house=/dev/a?model=403&interval=10m&budget=0", "DATA_DIR="+t.TempDir())
		lines := 0
		l.dial = func(context.Context, string) (kmp.Line, error) {
			lines++
			left := 1 << 30
			if lines <= 6 {
				left = 700 * lines
			}
			return &shortLine{sims["/dev/a"].Line(t.Context()), left}, nil
		}
		log := sims["/dev/a"].Log(kmp.LogHour)
		l.start()
		l.pass(2*time.Hour + 5*time.Minute)
		if lines <= 6 {
			t.Fatalf("%d lines: none was short", lines)
		}
		rows := l.rows("house", "hour")
		sameAsLog(t, rows[:min(len(rows), len(log))], log)
	})
}
