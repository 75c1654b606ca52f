package bridge

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/sim"
)

// TestWeek lives through a week with two outages, a meter that is exchanged during one of them,
// and the store lost on the way. Afterwards the store has what the meters have, row for row, and
// a subscriber has got every row in order. Rows come twice only when the store was lost.
func TestWeek(t *testing.T) {
	const former, next = "80123456", "80999999"
	for _, tt := range []struct {
		model, history string
		lost           string // file of the data directory, or "*"
		exchangedFirst bool
	}{
		{"403", "gaps", "history.db", false},
		{"603", "gaps", "history.db", true},
		{"403", "hour", "*", true},
		{"603", "hour", "history.db", false},
	} {
		t.Run(fmt.Sprintf("%s %s %s %t", tt.model, tt.history, tt.lost, tt.exchangedFirst), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				to(2026, 11, 15, 22)
				copenhagen := zone(t, "Europe/Copenhagen")
				dir := t.TempDir()
				l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: tt.model, LogDepth: 60, Start: time.Now().In(copenhagen)}},
					"METERS=house=/dev/a?tz=Europe/Copenhagen&history="+tt.history+"&model="+tt.model, "DATA_DIR="+dir)
				m := sims["/dev/a"]
				l.start()
				l.pass(30*time.Hour + 17*time.Minute)
				first := m.Log(kmp.LogHour) // not all of it is read yet
				var before []kmp.LogRow     // what the former meter had when it went

				off := func() { // the bridge is off, and the store is lost
					l.stop()
					l.pass(10 * time.Hour)
					lost := filepath.Join(dir, tt.lost)
					if tt.lost == "*" {
						entries, err := os.ReadDir(dir)
						if err != nil {
							t.Fatal(err)
						}
						for _, e := range entries {
							if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
								t.Fatal(err)
							}
						}
					} else if err := os.Remove(lost); err != nil {
						t.Fatal(err)
					}
					l.pass(21 * time.Hour)
					l.start()
				}
				exchange := func() { // the line is down, and the meter is exchanged
					l.lines.cut("/dev/a")
					l.pass(9*time.Hour + 20*time.Minute)
					before = m.Log(kmp.LogHour)
					m.Replace(80999999)
					l.pass(20 * time.Hour)
					l.lines.mend("/dev/a")
				}
				serial := former
				if tt.exchangedFirst {
					exchange()
					serial = next
				} else {
					off()
				}
				l.pass(31 * time.Hour)
				if rows := kept(t, dir, serial, kmp.LogHour); len(rows) < 31 {
					t.Errorf("%d rows after the first outage", len(rows))
				}
				var formerKept int
				if tt.exchangedFirst {
					formerKept = len(kept(t, dir, former, kmp.LogHour))
					off()
				} else {
					exchange()
				}
				l.pass(40 * time.Hour)
				l.stop() // what comes last is read when contact returns
				l.pass(3 * time.Hour)
				l.start()
				l.pass(5 * time.Minute)

				// The new meter.
				log := m.Log(kmp.LogHour)
				rows := kept(t, dir, next, kmp.LogHour)
				told := l.heard("house", next, "hour")
				keptAsLogged(t, "new meter", rows[max(0, len(rows)-len(log)):], log, time.Hour)
				parts := runs(told)
				if !tt.exchangedFirst {
					if len(parts) != 1 {
						t.Errorf("%d runs of rows of the new meter", len(parts))
					}
					toldAsKept(t, "new meter", told, rows)
				} else {
					if len(parts) != 2 {
						t.Fatalf("%d runs of rows of the new meter, the store was lost once", len(parts))
					}
					if last, from := parts[0][len(parts[0])-1].ID, parts[1][0].ID; parts[0][0].ID != 1 || from > last+1 {
						t.Errorf("rows are missing between %d and %d", last, from)
					}
					toldAsKept(t, "new meter", parts[1], rows)
				}

				// The former one.
				told = l.heard("house", former, "hour")
				parts = runs(told)
				if tt.exchangedFirst {
					if len(parts) != 1 || len(told) != formerKept {
						t.Errorf("%d rows of the former meter in %d runs, of %d that were kept", len(told), len(parts), formerKept)
					}
					if rows := kept(t, dir, former, kmp.LogHour); len(rows) != 0 {
						t.Errorf("%d rows of a meter that is gone, and so is the store", len(rows))
					}
				} else {
					if len(parts) != 2 {
						t.Fatalf("%d runs of rows of the former meter, the store was lost once", len(parts))
					}
					rows := kept(t, dir, former, kmp.LogHour)
					toldAsKept(t, "former meter", parts[1], rows)
					reached := rows[len(rows)-1].ID
					var want []kmp.LogRow // of what the meter still had, as far as it was read
					for _, row := range before {
						if row.ID <= reached {
							want = append(want, row)
						}
					}
					keptAsLogged(t, "former meter", rows[max(0, len(rows)-len(want)):], want, time.Hour)
					if last, from := parts[0][len(parts[0])-1].ID, parts[1][0].ID; from > last+1 {
						t.Errorf("rows are missing between %d and %d", last, from)
					}
				}
				if told[0].ID > first[0].ID {
					t.Errorf("the first row published is %d, the meter had %d", told[0].ID, first[0].ID)
				}
				if got := l.trouble("cannot open the line", "line is open", "another meter", "offline", "exchanged"); len(got) > 0 {
					t.Errorf("log: %s", got)
				}
			})
		})
	}
}

// TestWeekOfAClockChange reads on over both nights in which the clocks of Copenhagen change: each
// hour is there once, at the right instant, whether the bridge ran in that night or not.
func TestWeekOfAClockChange(t *testing.T) {
	spring, autumn := time.Date(2027, 3, 26, 9, 0, 0, 0, time.UTC), time.Date(2026, 10, 23, 9, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name           string
		start          time.Time
		model, history string
	}{
		{"spring, the line is down", spring, "603", "gaps"},
		{"spring, every hour", spring, "403", "hour"},
		{"autumn, the line is down", autumn, "403", "gaps"},
		{"autumn, every hour", autumn, "603", "hour"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(tt.start))
				copenhagen := zone(t, "Europe/Copenhagen")
				dir := t.TempDir()
				l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: tt.model, EmptyLogs: true, Start: time.Now().In(copenhagen)}},
					"METERS=house=/dev/a?tz=Europe/Copenhagen&history="+tt.history+"&model="+tt.model, "DATA_DIR="+dir)
				l.start()
				l.pass(30 * time.Hour)
				if tt.history == "gaps" { // the line is down in that night
					l.lines.cut("/dev/a")
					l.pass(24 * time.Hour)
					l.lines.mend("/dev/a")
				} else {
					l.pass(24 * time.Hour)
				}
				l.pass(25 * time.Hour)
				l.lines.cut("/dev/a")
				l.pass(2 * time.Hour)
				l.lines.mend("/dev/a")
				l.pass(5 * time.Minute)

				rows := kept(t, dir, "80123456", kmp.LogHour)
				keptAsLogged(t, "store", rows, sims["/dev/a"].Log(kmp.LogHour), time.Hour)
				toldAsKept(t, "subscriber", l.heard("house", "80123456", "hour"), rows)
				if want := int(time.Since(tt.start) / time.Hour); len(rows) != want {
					t.Errorf("%d rows in %d hours", len(rows), want)
				}
				for i, row := range rows {
					instant := tt.start.Add(time.Duration(i+1) * time.Hour)
					want := instant.In(time.FixedZone("", 3600))
					if tt.model == "603" {
						want = instant.In(copenhagen)
					}
					if got := row.Time.Format(time.RFC3339); got != want.Format(time.RFC3339) {
						t.Errorf("row %d of %v says %s, want %s", row.ID, instant, got, want.Format(time.RFC3339))
					}
					if row.Correction != 0 {
						t.Errorf("row %d of a clock that is right is corrected by %v", row.ID, row.Correction)
					}
				}
				if drift, known := l.drift("house"); !known || drift < -1 || drift > 1 {
					t.Errorf("the clock is off by %d s (%t)", drift, known)
				}
			})
		})
	}
}
