package bridge

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/sim"
)

// published is a row as the history topic shows it.
type published struct {
	Log        string
	ID         uint32
	Time       string
	Correction int             `json:"correction_s"`
	Energy     json.RawMessage `json:"energy_gj"`
	Volume     json.RawMessage `json:"volume_m3"`
}

// history decodes what was published of a meter's log, in order.
func (l *lab) rows(meter, log string) (rows []published) {
	l.t.Helper()
	for _, payload := range l.sent("kmp2mqtt/" + meter + "/history") {
		var p published
		if err := json.Unmarshal([]byte(payload), &p); err != nil {
			l.t.Fatalf("%s: %v", payload, err)
		}
		if p.Log == log {
			rows = append(rows, p)
		}
	}
	return rows
}

// stampOf is when a row was written, by registers 1003 and 1002.
func stampOf(row kmp.LogRow) string {
	var date, clock string
	for _, r := range row.Registers {
		switch v, _ := r.Value(); r.ID {
		case 1003:
			date = v.String()
		case 1002:
			clock = v.String()
		}
	}
	return date + "T" + clock
}

// rowsBetween are the rows written after one moment and before another.
func rowsBetween(log []kmp.LogRow, after, before string) (rows []kmp.LogRow) {
	for _, row := range log {
		if s := stampOf(row); s > after && s < before {
			rows = append(rows, row)
		}
	}
	return rows
}

// sameAsLog holds what was published against the log that the meter has: the same rows, in
// the same order, once each.
func sameAsLog(t *testing.T, rows []published, want []kmp.LogRow) {
	t.Helper()
	if len(rows) != len(want) {
		t.Errorf("%d rows published, the log has %d", len(rows), len(want))
	}
	for i := range min(len(rows), len(want)) {
		text := func(id uint16) string {
			for _, r := range want[i].Registers {
				if r.ID == id {
					v, _ := r.Value()
					return v.String()
				}
			}
			return ""
		}
		stamp := stampOf(want[i])
		got := rows[i]
		if got.ID != want[i].ID || got.Time[:len(stamp)] != stamp || string(got.Energy) != text(60) || string(got.Volume) != text(68) {
			t.Fatalf("row %d: %+v, the log has id %d at %s, energy %s, volume %s", i, got, want[i].ID, stamp, text(60), text(68))
		}
	}
}

// toToday lets the bubble's time pass from the year 2000 to one whose past fits into the meter's
// calendar, which has two digits for the year.
func toToday() { time.Sleep(time.Until(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC))) }

// TestLogsHealAnOutage: what the bridge misses while the line is down arrives in order when
// it is back, and nothing twice.
func TestLogsHealAnOutage(t *testing.T) {
	for _, model := range []string{"403", "603"} {
		t.Run(model, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				toToday()
				l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: model, LogDepth: 100}}, "METERS=house=/dev/a?model="+model, "DATA_DIR="+t.TempDir())
				m := sims["/dev/a"]
				l.start()
				l.pass(40 * time.Minute)
				first := m.Log(kmp.LogHour)
				sameAsLog(t, l.rows("house", "hour"), first)                   // the first contact brings what there is
				older := rowsBetween(m.Log(kmp.LogDay), "", stampOf(first[0])) // the others are there hour by hour
				sameAsLog(t, l.rows("house", "day"), older)
				l.pass(5 * time.Hour)
				if n := len(l.rows("house", "hour")); n != len(first) {
					t.Errorf("%d rows without need", n-len(first))
				}
				l.lines.cut("/dev/a")
				l.pass(48 * time.Hour)
				l.lines.mend("/dev/a")
				l.pass(5 * time.Minute)
				now := m.Log(kmp.LogHour)
				missed := now[len(now)-53:]
				rows := l.rows("house", "hour")
				if len(rows) <= len(first) {
					t.Fatalf("nothing came; log:\n%s", fmt.Sprint(l.logs.lines("")))
				}
				sameAsLog(t, rows[len(first):], missed)
				sameAsLog(t, l.rows("house", "day"), older)
			})
		})
	}
}

// TestLogsLongOutage: what the hour log no longer has comes from the day log.
func TestLogsLongOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		toToday()
		l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: "403", LogDepth: 30}}, "METERS=house=/dev/a?model=403", "DATA_DIR="+t.TempDir())
		m := sims["/dev/a"]
		l.start()
		l.pass(40 * time.Minute)
		hours, days := len(l.rows("house", "hour")), len(l.rows("house", "day"))
		last := stampOf(m.Log(kmp.LogHour)[29])
		l.lines.cut("/dev/a")
		l.pass(10 * 24 * time.Hour)
		l.lines.mend("/dev/a")
		l.pass(5 * time.Minute)
		sameAsLog(t, l.rows("house", "hour")[hours:], m.Log(kmp.LogHour))
		now := m.Log(kmp.LogHour)
		sameAsLog(t, l.rows("house", "day")[days:], rowsBetween(m.Log(kmp.LogDay), last, stampOf(now[0])))
	})
}

// TestLogsEveryHour: with history=hour and a visit a day each hour is published once, and
// what else is asked of the meter stays little.
func TestLogsEveryHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		toToday()
		l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: "403", EmptyLogs: true}},
			"METERS=house=/dev/a?model=403&interval=24h&history=hour&budget=4", "DATA_DIR="+t.TempDir())
		m := sims["/dev/a"]
		l.start()
		l.pass(24*time.Hour + 2*time.Minute)
		before := m.Counts().Requests
		for day := range 7 {
			l.pass(24 * time.Hour)
			sameAsLog(t, l.rows("house", "hour"), m.Log(kmp.LogHour))
			requests := m.Counts().Requests
			if n := requests - before; n > 8 {
				t.Errorf("day %d: %d requests", day, n)
			}
			before = requests
		}
	})
}

// TestLogsAfterARestart: what was missed while the bridge was off comes when it is back, and
// nothing that was published before.
func TestLogsAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		toToday()
		l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: "603", LogDepth: 200}}, "METERS=house=/dev/a?model=603", "DATA_DIR="+t.TempDir())
		m := sims["/dev/a"]
		l.start()
		l.pass(40 * time.Minute)
		first := m.Log(kmp.LogHour)
		for range 3 {
			l.stop()
			l.pass(31 * time.Hour)
			l.start()
			l.pass(5 * time.Minute)
		}
		now := m.Log(kmp.LogHour)
		sameAsLog(t, l.rows("house", "hour"), append(first, now[len(now)-93:]...))
	})
}

// A clock that runs 288 times as fast as time, as in the demo, whose first hour is not over at
// the second look: the log is empty then, but not for an hour of ours.
func TestLogsEmptyAndFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		toToday()
		start := time.Now().Truncate(time.Hour).AddDate(0, -1, 0).Add(time.Minute)
		l, _ := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: "403", Seed: 1, Speed: 288, EmptyLogs: true, Start: start}},
			"METERS=house=/dev/a?model=403&history=hour&tz=UTC", "READ_INTERVAL=5s", "DATA_DIR="+t.TempDir(), usual)
		l.start()
		l.pass(2 * time.Minute)
		if rows := len(l.sent("kmp2mqtt/house/history")); rows < 6 {
			t.Errorf("%d rows in two minutes, in which 9 hours of the meter pass:\n%s", rows, strings.Join(l.logs.lines(""), ""))
		}
	})
}
