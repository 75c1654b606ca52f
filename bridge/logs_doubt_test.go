package bridge

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/sim"
)

// TestLogsOwnClockWrong: a computer that was off for days starts with the time at which it
// stopped and is told the right one some minutes later. Here it is the meter's clock that seems to
// be ahead. No row is corrected by that.
func TestLogsOwnClockWrong(t *testing.T) {
	for _, history := range []string{"gaps", "hour"} {
		t.Run(history, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				toToday()
				dir := t.TempDir()
				l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: "603", LogDepth: 100, Start: time.Now().UTC()}},
					"METERS=house=/dev/a?model=603&tz=UTC&interval=1m&history="+history, "DATA_DIR="+dir)
				m := sims["/dev/a"]
				l.start()
				l.pass(10 * time.Minute)
				l.stop()
				l.pass(60 * time.Hour)
				m.SetClock(m.Clock().Add(60 * time.Hour))
				l.start()
				l.pass(3 * time.Minute)
				m.SetClock(m.Clock().Add(-60 * time.Hour))
				l.pass(10 * time.Minute)
				if drift, known := l.drift("house"); !known || drift != 0 {
					t.Errorf("clock_drift_s is %d (%t)", drift, known)
				}
				rows, log := kept(t, dir, "80123456", kmp.LogHour), m.Log(kmp.LogHour)
				if len(rows) < 60 || rows[len(rows)-1].ID != log[len(log)-1].ID {
					t.Fatalf("%d rows are kept", len(rows))
				}
				for _, row := range rows {
					if row.Correction != 0 || !row.Corrected {
						t.Fatalf("row %d of %v is corrected by %v", row.ID, row.Time, row.Correction)
					}
				}
			})
		})
	}
}

// TestLogsBeginAnewOften: a meter that always erases its log makes what is kept grow once a day.
func TestLogsBeginAnewOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		toToday()
		l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: "603", LogDepth: 50, Start: time.Now().UTC()}},
			"METERS=house=/dev/a?model=603&tz=UTC&history=hour", "DATA_DIR="+t.TempDir())
		l.start()
		for range 24 {
			l.pass(2*time.Hour + 10*time.Minute)
			sims["/dev/a"].Replace(80123456) // the same meter, empty
		}
		if n := len(l.logs.lines("has begun anew")); n < 1 || n > 4 {
			t.Errorf("in two days the hour log began anew %d times", n)
		}
	})
}

// TestLogsStoreFails: a store that does not take rows says nothing of the line, costs the meter
// little, and has the rows when it can.
func TestLogsStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		toToday()
		dir := t.TempDir() + "/data"
		l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: "603", EmptyLogs: true, Start: time.Now().UTC()}},
			"METERS=house=/dev/a?model=603&tz=UTC&interval=1m&history=hour", "DATA_DIR="+dir)
		heard := l.listen()
		l.start()
		l.pass(3*time.Hour + 30*time.Minute)
		opened, asked := l.lines.dialled("/dev/a"), len(heard.logs("/dev/a"))
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(os.Rename(dir, dir+".away"))
		must(os.WriteFile(dir, nil, 0o600))
		l.pass(6 * time.Hour)
		if n := l.lines.dialled("/dev/a") - opened; n != 0 {
			t.Errorf("the line was opened %d times for it", n)
		}
		if n := len(heard.logs("/dev/a")) - asked; n > 24 {
			t.Errorf("the log was asked for %d times in vain", n)
		}
		must(os.Remove(dir))
		must(os.Rename(dir+".away", dir))
		l.pass(2 * time.Hour)
		keptAsLogged(t, "store", kept(t, dir, "80123456", kmp.LogHour), sims["/dev/a"].Log(kmp.LogHour), 0)
	})
}

// TestLogsClockYearsAhead: rows of a clock that was years ahead do not hide those that follow when
// it has been set.
func TestLogsClockYearsAhead(t *testing.T) {
	for _, history := range []string{"gaps", "hour"} {
		t.Run(history, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				toToday()
				dir := t.TempDir()
				const ahead = 3*365*24*time.Hour + 40*time.Minute
				l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: "403", LogDepth: 40, ClockOffset: ahead, Start: time.Now().UTC()}},
					"METERS=house=/dev/a?model=403&tz=UTC&interval=10m&history="+history, "DATA_DIR="+dir)
				m := sims["/dev/a"]
				l.start()
				l.pass(4*time.Hour + 12*time.Minute) // 52 minutes past the hour by the meter's clock
				m.SetClock(m.Clock().Add(-ahead))
				l.pass(50 * time.Hour)
				rows, log := kept(t, dir, "80123456", kmp.LogHour), m.Log(kmp.LogHour)
				if n := len(rows); n == 0 || log[len(log)-1].ID-rows[n-1].ID > 25 {
					t.Errorf("the newest row kept is %d, the meter's is %d", rows[n-1].ID, log[len(log)-1].ID)
				}
			})
		})
	}
}
