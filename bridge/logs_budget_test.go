package bridge

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/sim"
)

// watchStates notes when states of the meter are published.
func (l *lab) watchStates() *[]time.Time {
	var times []time.Time
	l.tap = func(m Message) {
		if m.Topic == "kmp2mqtt/house" {
			l.mu.Lock()
			defer l.mu.Unlock()
			times = append(times, time.Now())
		}
	}
	return &times
}

// TestLogsBudget has the longest backlog that a meter can have, within the battery's budget: it
// takes nothing from the readings, and is done in the end.
func TestLogsBudget(t *testing.T) {
	for _, tt := range []struct {
		budget   int
		interval string
		depth    int // 0: what a meter has, 1400 hours and 460 days
		days     int
	}{
		{4, "6h", 350, 3},
		{24, "1h", 0, 2},
		{96, "15m", 150, 2},
	} {
		t.Run(fmt.Sprint(tt.budget), func(t *testing.T) {
			var plain []time.Time
			for _, history := range []string{"off", "gaps"} {
				synctest.Test(t, func(t *testing.T) {
					toToday()
					dir := t.TempDir()
					l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: "403", Start: time.Now().UTC(), Paced: true, LogDepth: tt.depth}},
						fmt.Sprintf("METERS=house=/dev/a?model=403&tz=UTC&interval=%s&budget=%d&history=%s", tt.interval, tt.budget, history), "DATA_DIR="+dir)
					m := sims["/dev/a"]
					times := l.watchStates()
					l.start()
					for range tt.days * 24 * 4 {
						l.pass(15 * time.Minute)
						if s := l.spent("house"); s.Reads > tt.budget {
							t.Fatalf("%s: %d reads on a day with a budget of %d", history, s.Reads, tt.budget)
						}
					}
					if history == "off" {
						plain = *times
						if rows := kept(t, dir, "80123456", kmp.LogHour); len(rows) > 0 {
							t.Errorf("%d rows with history=off", len(rows))
						}
						return
					}
					if len(*times) != len(plain) {
						t.Errorf("%d readings, without the logs there are %d", len(*times), len(plain))
					}
					for i := range min(len(plain), len(*times)) {
						if late := (*times)[i].Sub(plain[i]); late > 15*time.Second {
							t.Errorf("reading %d is %v later than without the logs", i, late)
						}
					}
					l.stop()
					l.pass(20 * time.Hour)
					missed := m.Log(kmp.LogHour)
					newest := missed[len(missed)-1].ID
					l.start()
					l.pass(time.Duration(24/tt.budget)*time.Hour + 30*time.Minute)
					log, rows := m.Log(kmp.LogHour), kept(t, dir, "80123456", kmp.LogHour)
					if len(rows) == 0 || rows[len(rows)-1].ID < newest {
						t.Fatalf("%d rows of the hour log, and not those that were missed", len(rows))
					}
					told := l.heard("house", "80123456", "hour")
					toldAsKept(t, "subscriber", told, rows)
					if first := rows[0].ID; log[0].ID < first {
						t.Errorf("the first row is %d, the log begins with %d", first, log[0].ID)
					}
					rows = rows[log[0].ID-rows[0].ID:] // the meter has no older ones by now
					keptAsLogged(t, "hours", rows, log[:len(rows)], 0)
					days, dayLog := kept(t, dir, "80123456", kmp.LogDay), m.Log(kmp.LogDay)
					if want := len(dayLog) - len(log)/24 - tt.days; len(days) < want {
						t.Fatalf("%d rows of the day log, want %d", len(days), want)
					}
					days = days[dayLog[0].ID-days[0].ID:] // the meter has no older ones by now
					keptAsLogged(t, "days", days, dayLog[:len(days)], 0)
					began, err := time.Parse(time.RFC3339, told[0].Time)
					if err != nil {
						t.Fatal(err)
					}
					if gap := began.Sub(days[len(days)-1].Time); gap > 24*time.Hour {
						t.Errorf("%v between the days and the hours", gap)
					}
				})
			}
		})
	}
}

// TestLogsCommandGoesFirst asks for a reading while a long log is read, again and again: each waits
// for one request of the log at most.
func TestLogsCommandGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		toToday()
		dir := t.TempDir()
		l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: "403", LogDepth: 500, Start: time.Now().UTC(), Paced: true}},
			"METERS=house=/dev/a?model=403&tz=UTC&budget=0", "DATA_DIR="+dir)
		e := l.listen()
		l.start()
		l.pass(7 * time.Second)
		if len(e.logs("/dev/a")) == 0 {
			t.Fatal("the log is not read yet")
		}
		const oneRequest = 10 * time.Second // of the log, at 1200 baud, and the reading itself is 3 s
		waits := 0
		for n := range 6 {
			before := len(l.sent("kmp2mqtt/house/response"))
			l.broker.publish("kmp2mqtt/house/get", "", false)
			asked := time.Now()
			for len(l.sent("kmp2mqtt/house/response")) == before && time.Since(asked) < time.Minute {
				l.pass(100 * time.Millisecond)
			}
			if took := time.Since(asked); took > oneRequest+3*time.Second {
				t.Errorf("answered after %v", took)
			} else if took > 5*time.Second {
				waits++
			}
			l.pass(time.Duration(3+2*n) * time.Second)
		}
		if waits == 0 {
			t.Error("the log was not read meanwhile")
		}
		l.pass(20 * time.Minute)
		keptAsLogged(t, "hours", kept(t, dir, "80123456", kmp.LogHour), sims["/dev/a"].Log(kmp.LogHour), 0)
	})
}

// TestLogsOfWhom: the logs of which meters are asked for, and how often in vain.
func TestLogsOfWhom(t *testing.T) {
	const visits = 2
	for _, tt := range []struct {
		name    string
		cfg     sim.Config
		options string
		most    int // requests to do with logs, ever
		rows    bool
	}{
		{"a heat meter", sim.Config{Model: "403"}, "&model=403", 1000, true},
		{"whose model nobody knows", sim.Config{Model: "603"}, "", 1000, true},
		{"without logs", sim.Config{Model: "403", NoLogs: true}, "&model=403", visits * 4, false},
		{"without logs, wanted", sim.Config{Model: "603", NoLogs: true}, "&model=603&history=hour", visits * 4, false},
		{"not wanted", sim.Config{Model: "603"}, "&model=603&history=off", 0, false},
		{"water", sim.Config{Model: "21"}, "&model=21", 0, false},
		{"water, not told", sim.Config{Model: "21"}, "", 0, false},
		{"water, wanted", sim.Config{Model: "21"}, "&model=21&history=gaps", visits * 4, false},
		{"electricity", sim.Config{Model: "382"}, "&model=382", 0, false},
		{"electricity, not told", sim.Config{Model: "382"}, "", 0, false},
		{"electricity, wanted", sim.Config{Model: "382"}, "&model=382&history=gaps", visits * 4, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				toToday()
				dir := t.TempDir()
				tt.cfg.LogDepth = 20
				l, _ := newSimLab(t, map[string]sim.Config{"/dev/a": tt.cfg}, "METERS=house=/dev/a?interval=1h"+tt.options, "DATA_DIR="+dir)
				e := l.listen()
				for run := range 4 {
					l.start()
					l.pass(13 * time.Hour)
					l.want("kmp2mqtt/house/availability", "online")
					if d := l.diagnostics("house"); d.ReadsFailed > 0 {
						t.Errorf("run %d: %d readings failed", run, d.ReadsFailed)
					}
					l.stop()
					l.pass(5 * time.Hour)
				}
				asked := e.logs("/dev/a")
				if len(asked) > tt.most || tt.most > 0 && len(asked) == 0 {
					t.Errorf("%d requests for logs, at most %d", len(asked), tt.most)
				}
				if !tt.rows && tt.most > 0 {
					if after := asked[len(asked)-1].at.Sub(asked[0].at); after > 2*time.Hour {
						t.Errorf("still asked after %v", after)
					}
				}
				if rows := kept(t, dir, "80123456", kmp.LogHour); (len(rows) > 0) != tt.rows {
					t.Errorf("%d rows", len(rows))
				}
				if n := len(l.logs.lines("no log that can be read")); (n == 1) != (tt.most > 0 && !tt.rows) {
					t.Errorf("told %d times", n)
				}
			})
		})
	}
}
