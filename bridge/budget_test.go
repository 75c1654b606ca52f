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

// spent is what diagnostics say of the battery.
type spent struct {
	Budget   *int
	Interval float64 `json:"interval_s"`
	Reads    int     `json:"reads_today"`
	Commands int     `json:"commands_today"`
	Frames   int     `json:"frames_today"`
	Bytes    int     `json:"bytes_today"`
	Awake    float64 `json:"awake_today_s"`
	Usage    struct {
		Days  []spentDay
		Total spentDay
	}
}

type spentDay struct {
	Date            string
	Reads, Commands int
}

func (l *lab) spent(meter string) (s spent) {
	l.t.Helper()
	if err := json.Unmarshal([]byte(l.retained("kmp2mqtt/"+meter+"/diagnostics")), &s); err != nil {
		l.t.Fatalf("diagnostics of %s: %v", meter, err)
	}
	return s
}

// get sends a read-now and says whether it was answered with values; if not, when the next
// one is allowed.
func (l *lab) get(meter, payload string) (ok bool, retry time.Time) {
	l.t.Helper()
	got := l.command("kmp2mqtt/"+meter+"/get", payload, "kmp2mqtt/"+meter+"/response", 5*time.Second)
	if len(got) != 1 {
		l.t.Fatalf("%d answers: %s", len(got), got)
	}
	return l.allowed(got[0])
}

func (l *lab) allowed(answer string) (ok bool, retry time.Time) {
	l.t.Helper()
	r := decodeReply(l.t, answer)
	if r.Status == "ok" {
		return true, time.Time{}
	}
	var after float64
	if err := json.Unmarshal(r.Data["retry_at"], &retry); err != nil {
		l.t.Fatalf("%s: %v", answer, err)
	}
	if err := json.Unmarshal(r.Data["retry_after_s"], &after); err != nil || after <= 0 {
		l.t.Fatalf("%s: %v", answer, err)
	}
	if off := time.Until(retry) - time.Duration(after)*time.Second; off > 7*time.Second || off < -7*time.Second {
		l.t.Errorf("come back at %v or in %v s: %s", retry, after, answer)
	}
	return false, retry
}

// day is the nth day of the lab's calendar.
func (l *lab) day(n int) time.Time { return l.began.AddDate(0, 0, n) }

// until lets fake time pass to a moment.
func (l *lab) until(at time.Time) { l.pass(time.Until(at)) }

func timesIn(times []time.Time, from, to time.Time) (n int) {
	for _, at := range times {
		if !at.Before(from) && at.Before(to) {
			n++
		}
	}
	return n
}

// TestBudgetDefault reads a heat meter more often than its battery bears.
func TestBudgetDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, batteries, "METERS=house=/dev/a?model=403", "REGISTERS=60,80", "READ_INTERVAL=1m")
		l.start()
		l.until(l.began.Add(time.Hour))
		if n := len(m.reads()); n < 60 || n > 62 {
			t.Errorf("%d readings in the first hour, which is free", n)
		}
		if s := l.spent("house"); s.Budget == nil || *s.Budget != BatteryBudget {
			t.Errorf("%+v", s)
		}
		l.until(l.day(1))
		if n := timesIn(m.reads(), l.began, l.day(1)); n > BatteryBudget+1 {
			t.Errorf("%d readings on the first day", n)
		}
		l.until(l.day(1).Add(40 * time.Minute))
		if n := timesIn(m.reads(), l.day(1), l.day(2)); n < 39 {
			t.Errorf("%d readings in the first 40 minutes of the next day", n)
		}
		l.until(l.day(4))
		for i := 1; i < 4; i++ {
			if n := timesIn(m.reads(), l.day(i), l.day(i+1)); n < BatteryBudget-2 || n > BatteryBudget {
				t.Errorf("%d readings on day %d", n, i)
			}
		}
		longest := time.Duration(0)
		reads := m.reads()
		for i := 1; i < len(reads); i++ {
			longest = max(longest, reads[i].Sub(reads[i-1]))
		}
		if longest > 45*time.Minute {
			t.Errorf("%v without a reading", longest)
		}
		l.want("kmp2mqtt/house/availability", "online")
	})
}

// TestBudgetExplicit holds schedule and commands to a budget that somebody chose.
func TestBudgetExplicit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, batteries, "METERS=house=/dev/a?model=403&budget=20", "REGISTERS=60,80", "READ_INTERVAL=10m")
		l.start()
		l.pass(5 * time.Second)
		allowed, refused := 0, 0
		var retry time.Time
		for range 60 {
			l.pass(10 * time.Minute)
			if ok, at := l.get("house", `{"registers":["energy"]}`); ok {
				allowed++
			} else {
				refused++
				retry = at
			}
		}
		if allowed != 10 || refused != 50 {
			t.Errorf("%d commands allowed, %d refused, of a budget of 20", allowed, refused)
		}
		if !retry.Equal(l.day(1)) {
			t.Errorf("the next command is allowed at %v", retry)
		}
		l.until(l.day(1).Add(-time.Minute))
		s := l.spent("house")
		if s.Reads > 20 || s.Commands != 10 || s.Reads < 18 || s.Frames < s.Reads || s.Bytes == 0 || s.Awake <= 0 {
			t.Errorf("%+v", s)
		}
		if ok, _ := l.get("house", ""); ok {
			t.Error("a command beyond the budget")
		}
		l.until(retry.Add(time.Second))
		if ok, _ := l.get("house", ""); !ok {
			t.Error("refused although its time has come")
		}
		l.until(l.day(3))
		for i := range 3 {
			visits := map[time.Time]bool{}
			for _, v := range m.asked(0) {
				if !v.at.Before(l.day(i)) && v.at.Before(l.day(i+1)) {
					visits[v.at.Truncate(10*time.Second)] = true
				}
			}
			if i > 0 && len(visits) > 20 { // the first day has a census
				t.Errorf("%d visits on day %d", len(visits), i)
			}
		}
	})
}

// TestBudgetRestart counts on where the bridge stopped.
func TestBudgetRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		settings := []string{batteries, "METERS=house=/dev/a?model=403&budget=12", "REGISTERS=60,80", "READ_INTERVAL=10m", "DATA_DIR=" + t.TempDir()}
		var l *lab
		for range 8 {
			l = newLab(t, meters, settings...)
			l.start()
			l.pass(90 * time.Minute)
			l.get("house", "")
			l.stop()
		}
		s := l.spent("house")
		if s.Reads > 12 || s.Commands > 6 || s.Usage.Total.Reads != s.Reads || len(s.Usage.Days) != 1 || s.Usage.Days[0].Reads != s.Reads {
			t.Errorf("%+v", s)
		}
		if n := len(m.reads()); n > 12 {
			t.Errorf("%d readings", n)
		}
		l = newLab(t, meters, settings...)
		l.start()
		l.pass(24 * time.Hour)
		if s := l.spent("house"); len(s.Usage.Days) != 2 || s.Usage.Total.Reads != s.Usage.Days[0].Reads+s.Usage.Days[1].Reads || s.Usage.Days[0].Reads != s.Reads {
			t.Errorf("%+v", s)
		}
	})
}

// TestBudgetCrowd sends many commands at once: none slips through.
func TestBudgetCrowd(t *testing.T) {
	for _, payload := range []string{"", `{"registers":["energy"]}`} {
		synctest.Test(t, func(t *testing.T) {
			meters, m := one(t)
			l := newLab(t, meters, batteries, "METERS=house=/dev/a?model=403&budget=6", "REGISTERS=60,80", "READ_INTERVAL=2h")
			l.start()
			l.pass(30 * time.Minute)
			before := l.spent("house")
			m.change(func(m *testMeter) { m.slow = time.Second })
			for range 50 {
				l.broker.publish("kmp2mqtt/house/get", payload, false)
			}
			l.pass(2 * time.Minute)
			answers := l.sent("kmp2mqtt/house/response")
			if len(answers) != 50 {
				t.Fatalf("%d answers", len(answers))
			}
			allowed := 0
			for _, a := range answers {
				if ok, _ := l.allowedLater(a); ok {
					allowed++
				}
			}
			s := l.spent("house")
			switch {
			case payload == "" && (allowed != 50 || s.Commands != 1 || s.Reads != before.Reads+1): // they join
				t.Errorf("%d answered with values; before %+v, now %+v", allowed, before, s)
			case payload != "" && (allowed != 3 || s.Commands != 3 || s.Reads != before.Reads+3):
				t.Errorf("%d answered with values; before %+v, now %+v", allowed, before, s)
			}
		})
	}
}

// allowedLater is allowed for an answer that came some time ago.
func (l *lab) allowedLater(answer string) (ok bool, r reply) {
	r = decodeReply(l.t, answer)
	return r.Status == "ok", r
}

// TestBudgetAllCommands counts whatever makes the meter answer.
func TestBudgetAllCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, _ := one(t)
		l := newLab(t, meters, batteries, "METERS=house=/dev/a?model=403&budget=4", "REGISTERS=60,80", "READ_INTERVAL=12h")
		l.start()
		l.pass(censusOver)
		for i, tt := range []struct {
			topic, payload, reply string
			ok                    bool
		}{
			{"kmp2mqtt/bridge/request/census", "house", "kmp2mqtt/bridge/response/census", true},
			{"kmp2mqtt/bridge/request/read", "", "kmp2mqtt/bridge/response/read", true},
			{"kmp2mqtt/bridge/request/read", `{"meter":"house"}`, "kmp2mqtt/bridge/response/read", false},
			{"kmp2mqtt/bridge/request/census", "house", "kmp2mqtt/bridge/response/census", false},
			{"kmp2mqtt/house/get", `{"registers":[80]}`, "kmp2mqtt/house/response", false},
			{"kmp2mqtt/bridge/request/accept", "house", "kmp2mqtt/bridge/response/accept", true}, // costs nothing
			{"kmp2mqtt/house/set", `{"interval":"6h"}`, "kmp2mqtt/house/response", true},         // costs nothing
		} {
			got := l.command(tt.topic, tt.payload, tt.reply, 30*time.Minute)
			if len(got) != 1 || (decodeReply(t, got[0]).Status == "ok") != tt.ok {
				t.Errorf("command %d: %s", i, got)
			}
		}
	})
}

// TestBudgetElectricity does not bound a meter that hangs on the mains.
func TestBudgetElectricity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := newSimLab(t, map[string]sim.Config{"/dev/e": {Model: "382"}}, batteries, "METERS=power=/dev/e")
		l.start()
		l.pass(26 * time.Hour)
		s := l.spent("power")
		if s.Budget != nil || s.Interval != 60 || len(s.Usage.Days) < 2 || s.Usage.Days[1].Reads < 1400 {
			t.Errorf("%+v", s)
		}
		for i := range 5 {
			l.pass(10 * time.Minute)
			if ok, _ := l.get("power", ""); !ok {
				t.Errorf("command %d refused", i)
			}
		}
	})
}

// TestBudgetNone has no limit where somebody said so.
func TestBudgetNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, batteries, "METERS=house=/dev/a?model=403&budget=0", "REGISTERS=60", "READ_INTERVAL=1m")
		l.start()
		l.pass(24 * time.Hour)
		if n := len(m.reads()); n < 1439 {
			t.Errorf("%d readings", n)
		}
		if s := l.spent("house"); s.Budget != nil {
			t.Errorf("%+v", s)
		}
	})
}

// TestBudgetSpentInSilence counts no reading that woke nobody, and every one that did.
func TestBudgetSpentInSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, batteries, "METERS=house=/dev/a?model=403&budget=30", "REGISTERS=60", "READ_INTERVAL=1h")
		l.start()
		l.pass(censusOver)
		m.change(func(m *testMeter) { m.silent = true })
		l.pass(6 * time.Hour)
		if s := l.spent("house"); s.Reads != 1 {
			t.Errorf("%+v", s)
		}
		m.change(func(m *testMeter) { m.silent = false })
		l.pass(2 * time.Minute)
		l.want("kmp2mqtt/house/availability", "online") // the budget is still there
		// Damaged answers cost as much as good ones.
		m.change(func(m *testMeter) { m.corrupt = true })
		requests := m.count(kmp.CmdGetSerialNo) + m.count(kmp.CmdGetRegister)
		l.until(l.day(1))
		if n := m.count(kmp.CmdGetSerialNo) + m.count(kmp.CmdGetRegister) - requests; n > 2*2*60 {
			t.Errorf("%d requests, all of which the meter heard and answered", n)
		}
	})
}

// TestBudgetMeters has a budget for each of several meters on one line.
func TestBudgetMeters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newTestMeter(t, 1), newTestMeter(t, 2)
		l := newLab(t, map[string]*testMeter{"/dev/x": a, "/dev/x@logger": b}, batteries,
			"METERS=a=/dev/x?budget=4 b=/dev/x?address=0x7F&budget=0", "REGISTERS=60", "READ_INTERVAL=30m")
		l.start()
		l.until(l.day(1))
		if n := len(a.reads()); n > 4 {
			t.Errorf("%d readings", n)
		}
		if n := len(b.reads()); n < 47 {
			t.Errorf("%d readings of the one without a limit", n)
		}
		for _, name := range []string{"a", "b"} {
			l.want(fmt.Sprintf("kmp2mqtt/%s/availability", name), "online")
		}
		if s := l.retained("kmp2mqtt/b/diagnostics"); !strings.Contains(s, `"budget":null`) {
			t.Error(s)
		}
	})
}
