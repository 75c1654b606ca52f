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

// clockSensor reports whether a discovery message announces the drift of the meter's clock.
func clockSensor(t *testing.T, payload string) bool {
	t.Helper()
	var device struct{ Components map[string]json.RawMessage }
	if err := json.Unmarshal([]byte(payload), &device); err != nil {
		t.Fatal(err)
	}
	_, ok := device.Components["clock_drift"]
	return ok
}

// TestLogsWrongClock: rows keep the time of a clock that is wrong and carry the correction; the
// drift is in the diagnostics, and Home Assistant learns of the sensor.
func TestLogsWrongClock(t *testing.T) {
	for _, tt := range []struct {
		offset  time.Duration
		history string
	}{
		{20 * time.Second, "gaps"}, // too little to matter
		{5 * time.Minute, "gaps"},
		{-7 * time.Minute, "hour"},
		{time.Hour, "gaps"},
		{72 * time.Hour, "gaps"},
		{-72 * time.Hour, "hour"},
		{5 * 365 * 24 * time.Hour, "gaps"},
	} {
		t.Run(fmt.Sprint(tt.offset, " ", tt.history), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				toToday()
				dir := t.TempDir()
				l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: "403", LogDepth: 40, ClockOffset: tt.offset, Start: time.Now().UTC()}},
					"METERS=house=/dev/a?model=403&tz=UTC&history="+tt.history, "DATA_DIR="+dir)
				m := sims["/dev/a"]
				l.start()
				l.pass(10 * time.Minute)
				if drift, known := l.drift("house"); !known || time.Duration(drift)*time.Second != tt.offset {
					t.Errorf("clock_drift_s is %d (%t), the clock is off by %v", drift, known, tt.offset)
				}
				l.pass(40 * time.Minute)
				configs := l.sent("homeassistant/device/kmp_80123456/config")
				if n := len(configs); n < 2 || clockSensor(t, configs[0]) || !clockSensor(t, configs[n-1]) {
					t.Errorf("announced %d times, and not the clock last", n)
				}
				announced := len(configs)
				l.pass(3*time.Hour + 30*time.Minute)

				check := func(what string) {
					t.Helper()
					log := m.Log(kmp.LogHour)
					rows := kept(t, dir, "80123456", kmp.LogHour)
					keptAsLogged(t, what, rows[max(0, len(rows)-len(log)):], log, 0)
					toldAsKept(t, what, l.heard("house", "80123456", "hour"), rows)
					for i, r := range l.heard("house", "80123456", "hour") {
						want := -int(tt.offset / time.Second)
						if tt.offset.Abs() < time.Minute {
							want = 0
						}
						if off := r.Correction - want; off < -1 || off > 1 || // a meter tells no fractions
							(want == 0 && off != 0) || strings.Contains(r.payload, "correction_s") != (want != 0) {
							t.Fatalf("%s: row %d is corrected by %d s, the clock is off by %v: %s", what, i, r.Correction, tt.offset, r.payload)
						}
					}
				}
				l.lines.cut("/dev/a") // healed without a restart
				l.pass(9 * time.Hour)
				l.lines.mend("/dev/a")
				l.pass(10 * time.Minute)
				check("after an outage of the line")

				l.stop() // and with one
				l.pass(30 * time.Hour)
				l.start()
				l.pass(10 * time.Minute)
				check("after a restart")
				l.pass(3 * time.Hour)
				configs = l.sent("homeassistant/device/kmp_80123456/config")[announced:]
				for _, c := range configs {
					if !clockSensor(t, c) {
						t.Error("announced without the clock after it was known")
					}
				}
			})
		})
	}
}

// TestLogsDriftingClock: a clock that gains or loses is compared with each visit, so that no hour
// is far from where it belongs.
func TestLogsDriftingClock(t *testing.T) {
	for _, ppm := range []float64{1000, -1000} { // 86 s a day
		t.Run(fmt.Sprint(ppm), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				toToday()
				dir := t.TempDir()
				start := time.Now().UTC()
				l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: "403", EmptyLogs: true, ClockDrift: ppm, Start: start}},
					"METERS=house=/dev/a?model=403&tz=UTC&history=gaps", "DATA_DIR="+dir)
				m := sims["/dev/a"]
				l.start()
				for range 3 {
					l.pass(30 * time.Hour)
					l.lines.cut("/dev/a")
					l.pass(12 * time.Hour)
					l.lines.mend("/dev/a")
					l.pass(5 * time.Minute)
					if drift, known := l.drift("house"); !known || (time.Duration(drift)*time.Second-m.Clock().Sub(m.Now())).Abs() > 2*time.Second {
						t.Errorf("clock_drift_s is %d (%t), the clock is off by %v", drift, known, m.Clock().Sub(m.Now()))
					}
				}
				rows := kept(t, dir, "80123456", kmp.LogHour)
				keptAsLogged(t, "store", rows, m.Log(kmp.LogHour), 0)
				gains := ppm / 1e6
				for _, row := range rows {
					// A row is written when start + elapsed·(1+gains) is its time.
					elapsed := time.Duration(float64(row.Time.Sub(start)) / (1 + gains))
					if off := row.Time.Add(row.Correction).Sub(start.Add(elapsed)); off.Abs() > 2*time.Minute {
						t.Errorf("row %d was written at %v and is corrected to %v", row.ID, start.Add(elapsed), row.Time.Add(row.Correction))
					}
				}
			})
		})
	}
}

// TestLogsClockSet: the clock is set during an outage, forward or back; what is kept is what the
// meter has, and nothing is twice.
func TestLogsClockSet(t *testing.T) {
	for _, by := range []time.Duration{-50 * time.Hour, -3 * time.Hour, -10 * time.Minute, 10 * time.Minute, 5 * time.Hour, 100 * time.Hour} {
		for _, off := range []bool{false, true} {
			t.Run(fmt.Sprint(by, " ", off), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					toToday()
					dir := t.TempDir()
					l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: "403", EmptyLogs: true, Start: time.Now().UTC()}},
						"METERS=house=/dev/a?model=403&tz=UTC", "DATA_DIR="+dir)
					m := sims["/dev/a"]
					away := func(d time.Duration, meanwhile func()) {
						if off {
							l.stop()
						} else {
							l.lines.cut("/dev/a")
						}
						l.pass(d)
						meanwhile()
						l.pass(d)
						if off {
							l.start()
						} else {
							l.lines.mend("/dev/a")
						}
						l.pass(10 * time.Minute)
					}
					l.start()
					l.pass(5*time.Hour + 5*time.Minute)
					away(2*time.Hour, func() {})
					l.pass(time.Hour)
					var written int // before the clock is set
					away(6*time.Hour, func() {
						written = len(m.Log(kmp.LogHour))
						m.SetClock(m.Clock().Add(by))
					})
					l.pass(3 * time.Hour)
					away(2*time.Hour, func() {})
					rows := kept(t, dir, "80123456", kmp.LogHour)
					keptAsLogged(t, "store", rows, m.Log(kmp.LogHour), 0)
					toldAsKept(t, "subscriber", l.heard("house", "80123456", "hour"), rows)
					const exact = time.Second // a meter tells no fractions
					if drift, known := l.drift("house"); !known || (time.Duration(drift)*time.Second-by).Abs() > exact {
						t.Errorf("clock_drift_s is %d (%t), the clock was set by %v", drift, known, by)
					}
					for _, row := range rows[written:] {
						if !row.Corrected || (row.Correction+by).Abs() > exact {
							t.Errorf("row %d is corrected by %v (%t), the clock was set by %v", row.ID, row.Correction, row.Corrected, by)
						}
					}
				})
			})
		}
	}
}

// TestLogsErased: the meter's log begins anew. What was there is kept, what is new comes from
// its first row on.
func TestLogsErased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		toToday()
		dir := t.TempDir()
		l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: "603", LogDepth: 50, Start: time.Now().UTC()}},
			"METERS=house=/dev/a?model=603&tz=UTC", "DATA_DIR="+dir)
		m := sims["/dev/a"]
		l.start()
		l.pass(40 * time.Minute)
		before := m.Log(kmp.LogHour)
		l.lines.cut("/dev/a")
		l.pass(10 * time.Hour)
		m.Replace(80123456) // the same meter, empty
		l.pass(20*time.Hour + 30*time.Minute)
		l.lines.mend("/dev/a")
		l.pass(10 * time.Minute)
		after := m.Log(kmp.LogHour)
		keptAsLogged(t, "new rows", kept(t, dir, "80123456", kmp.LogHour), after, 0)
		keptAsLogged(t, "all rows", keptAll(t, dir, "80123456", kmp.LogHour), append(before, after...), 0)
		toldAsKept(t, "subscriber", l.heard("house", "80123456", "hour"), keptAll(t, dir, "80123456", kmp.LogHour))
		l.stop()
		l.pass(5 * time.Hour)
		l.start()
		l.pass(10 * time.Minute)
		keptAsLogged(t, "new rows after a restart", kept(t, dir, "80123456", kmp.LogHour), m.Log(kmp.LogHour), 0)
		toldAsKept(t, "subscriber after a restart", l.heard("house", "80123456", "hour"), keptAll(t, dir, "80123456", kmp.LogHour))
	})
}

// TestLogsPowerCut: a meter without power has no rows for that time, and is no reason to doubt the
// others.
func TestLogsPowerCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		toToday()
		dir := t.TempDir()
		l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: "403", EmptyLogs: true, Start: time.Now().UTC()}},
			"METERS=house=/dev/a?model=403&tz=UTC", "DATA_DIR="+dir)
		m := sims["/dev/a"]
		l.start()
		l.pass(12*time.Hour + 10*time.Minute)
		m.PowerCut(30 * time.Hour)
		l.pass(33 * time.Hour)
		l.lines.cut("/dev/a")
		m.PowerCut(4 * time.Hour)
		l.pass(9 * time.Hour)
		l.lines.mend("/dev/a")
		l.pass(10 * time.Minute)
		rows := kept(t, dir, "80123456", kmp.LogHour)
		keptAsLogged(t, "store", rows, m.Log(kmp.LogHour), 0)
		toldAsKept(t, "subscriber", l.heard("house", "80123456", "hour"), rows)
		if len(rows) < 19 || len(rows) > 21 {
			t.Errorf("%d rows in 54 hours of which 34 were without power", len(rows))
		}
	})
}
