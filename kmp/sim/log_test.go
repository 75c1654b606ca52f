package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
)

var allLogs = []kmp.LogType{kmp.LogYear, kmp.LogMonth, kmp.LogDay, kmp.LogHour, kmp.LogMinute, kmp.LogMinute2}

// value is a register of a row.
func value(t testing.TB, row kmp.LogRow, id uint16) kmp.Register {
	t.Helper()
	i := slices.IndexFunc(row.Registers, func(r kmp.Register) bool { return r.ID == id })
	if i < 0 {
		t.Fatalf("row %d has no register %d", row.ID, id)
	}
	return row.Registers[i]
}

// stamp is the time of a row, of which the zone is not known.
func stamp(t testing.TB, row kmp.LogRow) time.Time {
	t.Helper()
	date, err := value(t, row, 1003).Value()
	if err != nil {
		t.Fatal(err)
	}
	clock, err := value(t, row, 1002).Value()
	if err != nil {
		t.Fatal(err)
	}
	if date == nil || clock == nil {
		t.Fatalf("row %d has no time", row.ID)
	}
	s, err := time.Parse(time.DateTime, date.String()+" "+clock.String())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// until sleeps until the meter's clock shows the next full interval, and returns that.
func until(m *Meter, interval time.Duration) time.Time {
	next := m.Clock().Truncate(interval).Add(interval)
	m.mu.Lock()
	due := m.clock.when(next.Sub(m.config.Start))
	m.mu.Unlock()
	time.Sleep(time.Duration(float64(due-m.elapsed()) / m.config.Speed))
	for m.elapsed() < due { // what was lost in dividing
		time.Sleep(time.Nanosecond)
	}
	return next
}

func checkIDs(t *testing.T, what string, rows []kmp.LogRow) {
	t.Helper()
	for i, row := range rows[1:] {
		if row.ID != rows[i].ID+1 {
			t.Fatalf("%s: row %d comes after row %d", what, row.ID, rows[i].ID)
		}
	}
}

func equalRows(a, b kmp.LogRow) bool {
	return a.ID == b.ID && slices.EqualFunc(a.Registers, b.Registers, equal)
}

func checkLogs(t *testing.T, what string, a, b *Meter) {
	t.Helper()
	for _, log := range allLogs {
		if got, want := a.Log(log), b.Log(log); !slices.EqualFunc(got, want, equalRows) {
			t.Errorf("%s: the %s logs differ: %d and %d rows", what, log, len(got), len(want))
			for i := range min(len(got), len(want)) {
				if !equalRows(got[i], want[i]) {
					t.Fatalf("row %d: %v and %v", i, got[i], want[i])
				}
			}
		}
	}
}

// The row of a full hour holds what the registers showed at that moment, byte by byte,
// whether the log was being kept then or is made later.
func TestLogHoldsWhatRegistersShow(t *testing.T) {
	for _, test := range []Config{
		{Model: "403"},
		{Model: "601", Integration: 7 * time.Second},
		{Model: "603", Integration: 64 * time.Second, Speed: 288},
		{Model: "603", ClockOffset: 10*time.Minute + 3*time.Second, ClockDrift: 30},
		{Model: "603", ClockOffset: -50 * time.Minute, ClockDrift: -5000, Integration: time.Hour},
		{Model: "403", ClockDrift: 77_777, Speed: 3.3, Cooling: true, Start: time.Date(2026, 7, 3, 4, 5, 6, 789, time.UTC)},
		{Model: "603", ClockOffset: time.Second, Faults: Faults{Sensor: "t1_open", Info: 1 << 20}},
	} {
		name := fmt.Sprintf("%s %v %v %v", test.Model, test.Integration, test.ClockOffset, test.ClockDrift)
		synctest.Test(t, func(t *testing.T) {
			kept, made := newMeter(t, test), newMeter(t, test)
			kept.Log(kmp.LogHour)
			random := rand.New(rand.NewPCG(3, 4))
			shown := map[time.Time]map[uint16]kmp.Register{}
			for range 60 {
				time.Sleep(time.Duration(random.Int64N(int64(5*time.Hour))) / time.Duration(max(1, test.Speed)))
				kept.Read(60)
				hour := until(kept, time.Hour)
				shown[hour] = map[uint16]kmp.Register{}
				for _, id := range kept.Registers() {
					shown[hour][id], _ = kept.Read(id)
				}
			}
			for _, m := range []*Meter{kept, made} {
				rows, found := m.Log(kmp.LogHour), 0
				checkIDs(t, name, rows)
				for _, row := range rows {
					want, ok := shown[stamp(t, row)]
					if !ok {
						continue
					}
					found++
					for _, r := range row.Registers {
						if !equal(r, want[r.ID]) {
							t.Errorf("%s: row of %v, register %d: % X, it showed % X", name, stamp(t, row), r.ID, r.Raw, want[r.ID].Raw)
						}
					}
				}
				if found != len(shown) {
					t.Errorf("%s: %d rows of %d full hours", name, found, len(shown))
				}
			}
			checkLogs(t, name, kept, made)
		})
	}
}

// A log that is made later is the one that would have been kept, whatever was done to
// the meter meanwhile; and all of it is the same in a meter with the same life.
func TestLogMadeLater(t *testing.T) {
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 5))
			c := Config{Model: []string{"403", "601", "603"}[seed%3], Seed: seed, Speed: 60, LogDepth: 100 * int(seed), ClockDrift: 200 * float64(seed), EmptyLogs: seed == 3}
			if seed > 0 {
				c.PowerCut = Outage{time.Duration(seed-2) * 100 * time.Hour, 9 * time.Hour}
			}
			kept, made := newMeter(t, c), newMeter(t, c)
			for range 40 {
				time.Sleep(time.Duration(random.Int64N(int64(40 * time.Minute))))
				if kept.Read(60); len(kept.logs) == 0 {
					for _, log := range allLogs {
						kept.Log(log)
					}
				}
				if random.IntN(3) == 0 {
					made.Read(60)
				}
				n, d := uint32(random.IntN(1000)), time.Duration(random.Int64N(int64(30*time.Hour)))
				do := func(m *Meter) { m.PowerCut(d) }
				switch random.IntN(7) {
				case 0:
					do = func(m *Meter) { m.SetFaults(Faults{Sensor: "t2_open", Info: n}) }
				case 1:
					do = func(m *Meter) { m.SetFaults(Faults{Lost: 1}) }
				case 2:
					do = func(m *Meter) { m.SetClock(m.Now().Add(d - 20*time.Hour)) }
				case 3:
					do = func(m *Meter) {
						m.Override(68, kmp.Register{Unit: kmp.UnitCubicMetre, SiEx: 0x42, Raw: []byte{0, 0, 1, byte(n)}})
					}
				case 4:
					do = func(m *Meter) { m.Override(68, kmp.Register{}) }
				case 5:
					do = func(m *Meter) { m.Replace(n) }
				}
				do(kept)
				do(made)
			}
			time.Sleep(time.Hour)
			checkLogs(t, fmt.Sprint("seed ", seed), kept, made)
			for _, id := range kept.Registers() {
				a, _ := kept.Read(id)
				if b, _ := made.Read(id); !equal(a, b) {
					t.Errorf("seed %d: register %d: %v and %v", seed, id, a, b)
				}
			}
		})
	}
}

// At the start the meter has lived for two years: its logs are full, except where two
// years are not enough, and end with the last full minute, hour, day, month and year.
func TestLogsAtTheStart(t *testing.T) {
	for _, test := range []struct {
		log         kmp.LogType
		rows        int
		newest      uint32
		first, last string
	}{
		{kmp.LogYear, 2, 2, "2025-01-01 00:00:00", "2026-01-01 00:00:00"},
		{kmp.LogMonth, 27, 27, "2024-09-01 00:00:00", "2026-11-01 00:00:00"},
		{kmp.LogDay, 460, 842, "2025-08-19 00:00:00", "2026-11-21 00:00:00"},
		{kmp.LogHour, 1400, 842*24 + 7, "2026-09-24 00:00:00", "2026-11-21 07:00:00"},
		{kmp.LogMinute, 1400, (842*24 + 7) * 60, "2026-11-20 07:41:00", "2026-11-21 07:00:00"},
	} {
		for _, model := range []string{"403", "603"} {
			m := newMeter(t, Config{Model: model})
			rows := m.Log(test.log)
			if len(rows) != test.rows || rows[len(rows)-1].ID != test.newest {
				t.Fatalf("%s: %d rows up to id %d in the %s log, want %d up to %d", model, len(rows), rows[len(rows)-1].ID, test.log, test.rows, test.newest)
			}
			checkIDs(t, test.log.String(), rows)
			if first, last := stamp(t, rows[0]).Format(time.DateTime), stamp(t, rows[len(rows)-1]).Format(time.DateTime); first != test.first || last != test.last {
				t.Errorf("%s: the %s log goes from %s to %s, want %s to %s", model, test.log, first, last, test.first, test.last)
			}
			for i, row := range rows[1:] {
				before := rows[i]
				for _, id := range []uint16{60, 68} {
					a, _ := value(t, before, id).Decimal()
					if b, _ := value(t, row, id).Decimal(); b.Cmp(a) < 0 {
						t.Fatalf("%s: %s log: register %d falls from %s to %s at %v", model, test.log, id, a, b, stamp(t, row))
					}
				}
			}
		}
	}
	m := newMeter(t, Config{Model: "603"})
	for _, log := range []kmp.LogType{kmp.LogMinute2, kmp.LogInfoCodes, kmp.LogConfiguration, 200} {
		if rows := m.Log(log); rows != nil {
			t.Errorf("the %s log has %d rows", log, len(rows))
		}
	}
}

// The rows of the past hold what the house had used by then.
func TestLogOfThePast(t *testing.T) {
	m := newMeter(t, Config{Model: "603", Seed: 3})
	s := installed(newHouse(3), november.Unix())
	checked := 0
	for _, row := range m.Log(kmp.LogHour) {
		for s.t < stamp(t, row).Unix() && s.t < s.past {
			s.step(pastStep)
		}
		if s.t != stamp(t, row).Unix() {
			break // yesterday began
		}
		checked++
		if got, _ := value(t, row, 60).Decimal(); got.String() != fmt.Sprintf("%.3f", float64(s.energy()/1e6)/1e3) {
			t.Fatalf("at %v E1 is %s GJ, want %d J", stamp(t, row), got, s.energy())
		}
		if got, _ := value(t, row, 1004).Decimal(); got.String() != fmt.Sprint((s.t-s.installed)/3600) {
			t.Fatalf("at %v the hour counter is %s", stamp(t, row), got)
		}
	}
	if checked != 1400-31 {
		t.Errorf("%d rows checked", checked)
	}
}

// Nobody who does not read logs pays for them.
func TestLogsAreMadeWhenAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Model: "603"})
		time.Sleep(100 * time.Hour)
		m.Read(60)
		if len(m.logs) != 0 || len(m.changes) != 0 {
			t.Errorf("%d logs, %d changes", len(m.logs), len(m.changes))
		}
		m.Log(kmp.LogDay)
		if len(m.logs) != 1 {
			t.Errorf("%d logs, one was asked for", len(m.logs))
		}
	})
	for _, model := range []string{"21", "382"} {
		m := newMeter(t, Config{Model: model})
		m.SetClock(november)
		for _, log := range allLogs {
			if rows := m.Log(log); rows != nil {
				t.Errorf("%s: the %s log has %d rows", model, log, len(rows))
			}
		}
		if len(m.logs) != 0 || len(m.changes) != 0 {
			t.Errorf("%s: %d logs, %d changes", model, len(m.logs), len(m.changes))
		}
	}
}

func TestLogDepth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{LogDepth: 5})
		for range 3 {
			for _, log := range allLogs[:5] {
				rows := m.Log(log)
				if want := 5 - 3*max(0, 1-int(log-kmp.LogYear)); len(rows) != want { // two years
					t.Errorf("%d rows in the %s log, want %d", len(rows), log, want)
				}
				if last := stamp(t, rows[len(rows)-1]); m.Now().Sub(last) > 366*24*time.Hour {
					t.Errorf("%s log ends with %v", log, last)
				}
			}
			time.Sleep(9 * time.Hour)
		}
	})
}

func TestEmptyLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Model: "603", EmptyLogs: true})
		for _, log := range allLogs {
			if rows := m.Log(log); len(rows) != 0 {
				t.Errorf("%d rows in the %s log", len(rows), log)
			}
		}
		time.Sleep(2 * time.Hour)
		rows := m.Log(kmp.LogHour)
		if len(rows) != 2 || rows[0].ID != 1 || stamp(t, rows[0]).Hour() != 8 {
			t.Errorf("after two hours: %v", rows)
		}
	})
}

// A new meter in the old one's place has no rows.
func TestLogReplace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Model: "601"})
		m.Log(kmp.LogHour)
		m.Replace(7)
		if rows := m.Log(kmp.LogHour); len(rows) != 0 {
			t.Fatalf("%d rows", len(rows))
		}
		time.Sleep(90 * time.Minute)
		rows := m.Log(kmp.LogHour)
		if len(rows) != 1 || rows[0].ID != 1 {
			t.Fatalf("after 90 minutes: %v", rows)
		}
		if got, _ := value(t, rows[0], 1004).Decimal(); got.String() != "1" {
			t.Errorf("hour counter %s", got)
		}
	})
}

// A meter that takes the old one's place just before its clock begins the month knows
// nothing of the month that ended.
func TestLogReplaceAtTheEndOfAMonth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Start: time.Date(2026, 12, 31, 23, 0, 0, 0, time.UTC), ClockOffset: -10 * time.Minute})
		time.Sleep(65 * time.Minute) // the house is in the new year, the clock shows 23:55
		m.Replace(7)
		time.Sleep(10 * time.Minute)
		rows := m.Log(kmp.LogMonth)
		if len(rows) != 1 || stamp(t, rows[0]).Format(time.DateTime) != "2027-01-01 00:00:00" {
			t.Fatalf("%v", rows)
		}
		if v, err := value(t, rows[0], 142).Value(); v != nil || err != nil {
			t.Errorf("the largest power is of %v, %v", v, err)
		}
	})
}

// Without power there are no rows, and nothing is counted; ids go on.
func TestPowerCut(t *testing.T) {
	for _, read := range []bool{true, false} { // whether the log is kept meanwhile
		synctest.Test(t, func(t *testing.T) {
			c := newClient(t, Config{Model: "603", Start: time.Date(2026, 1, 15, 7, 30, 0, 0, time.UTC)})
			if read {
				c.m.Log(kmp.LogHour)
			}
			energy, hours := number(t, c.m, 60), number(t, c.m, 1004)
			c.m.PowerCut(3 * time.Hour)
			if got := c.ask(60); len(got) != 0 {
				t.Errorf("without power it answers % X", got)
			}
			if counts := c.m.Counts(); counts.Requests != 1 || counts.Asleep != 1 {
				t.Errorf("%+v", counts)
			}
			time.Sleep(3*time.Hour - time.Second - c.m.elapsed())
			if got := number(t, c.m, 60); got != energy {
				t.Errorf("without power E1 went from %s to %s", energy, got)
			}
			time.Sleep(time.Second)
			if got := c.ask(60); len(got) == 0 {
				t.Error("it is silent with power")
			}
			if got := number(t, c.m, 1004); got != hours {
				t.Errorf("without power the hour counter went from %s to %s", hours, got)
			}
			time.Sleep(time.Hour)
			if got := number(t, c.m, 60); got.Cmp(energy) <= 0 {
				t.Errorf("E1 stands still at %s", got)
			}
			if got := text(t, c.m, 1002); got[:5] != "11:30" {
				t.Errorf("the clock shows %s", got)
			}
			rows := c.m.Log(kmp.LogHour)
			a, b := rows[len(rows)-2], rows[len(rows)-1]
			if b.ID != a.ID+1 || stamp(t, a).Hour() != 7 || stamp(t, b).Hour() != 11 {
				t.Errorf("row %d of %v, then row %d of %v", a.ID, stamp(t, a), b.ID, stamp(t, b))
			}
		})
	}
}

// The power comes back when the cut is ended.
func TestPowerCutEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{PowerCut: Outage{0, 100 * time.Hour}})
		time.Sleep(5 * time.Hour)
		if got := c.ask(60); len(got) != 0 {
			t.Errorf("without power it answers % X", got)
		}
		before := number(t, c.m, 60)
		c.m.PowerCut(0)
		if got := c.ask(60); len(got) == 0 {
			t.Error("it is silent with power")
		}
		time.Sleep(2 * time.Hour)
		if got := number(t, c.m, 60); got.Cmp(before) <= 0 {
			t.Errorf("E1 stands still at %s", got)
		}
		rows := c.m.Log(kmp.LogHour)
		var stamps []int
		for _, row := range rows[len(rows)-3:] {
			stamps = append(stamps, stamp(t, row).Hour())
		}
		if want := []int{7, 13, 14}; !slices.Equal(stamps, want) {
			t.Errorf("rows of %v, want %v", stamps, want)
		}
	})
}

// A cut before the start is a gap in the logs from the start on, and one behind it comes.
func TestConfiguredPowerCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, whole := newMeter(t, Config{Model: "603", PowerCut: Outage{-30 * time.Hour, 3 * time.Hour}}), newMeter(t, Config{Model: "603"})
		for log, interval := range map[kmp.LogType]time.Duration{kmp.LogHour: time.Hour, kmp.LogMinute: time.Minute} {
			rows, all := m.Log(log), whole.Log(log)
			checkIDs(t, log.String(), rows)
			if a, b := rows[len(rows)-1].ID, all[len(all)-1].ID; a != b-uint32(3*time.Hour/interval) {
				t.Errorf("%s: %d rows, %d without the cut", log, a, b)
			}
			var gaps []string
			for i, row := range rows[1:] {
				if d := stamp(t, row).Sub(stamp(t, rows[i])); d != interval {
					gaps = append(gaps, fmt.Sprint(stamp(t, row).Format("02 15:04 "), d))
				}
			}
			if want := []string{"20 05:00 4h0m0s"}; log == kmp.LogHour && !slices.Equal(gaps, want) || log == kmp.LogMinute && len(gaps) > 0 {
				t.Errorf("%s: gaps %v", log, gaps)
			}
		}
		if a, b := number(t, m, 1004).Float64(), number(t, whole, 1004).Float64(); a != b-3 {
			t.Errorf("hour counter %v, %v without the cut", a, b)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{PowerCut: Outage{time.Hour, 2 * time.Hour}})
		for hour, answers := range []bool{true, false, false, true} {
			time.Sleep(time.Hour*time.Duration(hour) - c.m.elapsed())
			if got := c.ask(60); len(got) > 0 != answers {
				t.Errorf("after %d hours: % X", hour, got)
			}
		}
	})
}

// A row is written when the clock passes the hour: hours that are jumped over have none,
// hours that are lived twice have two.
func TestLogSetClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{})
		stamps := func(n int) (list []string) {
			rows := m.Log(kmp.LogHour)
			checkIDs(t, "clock set", rows)
			for _, row := range rows[len(rows)-n:] {
				list = append(list, stamp(t, row).Format("02 15"))
			}
			return list
		}
		time.Sleep(2 * time.Hour) // 09:00:01
		m.SetClock(m.Clock().Add(-90 * time.Minute))
		time.Sleep(2 * time.Hour)
		if got, want := stamps(4), []string{"21 08", "21 09", "21 08", "21 09"}; !slices.Equal(got, want) {
			t.Errorf("set back: %v, want %v", got, want)
		}
		m.SetClock(m.Clock().Add(3*time.Hour + 45*time.Minute)) // from 09:30 to 13:15
		time.Sleep(time.Hour)
		if got, want := stamps(2), []string{"21 09", "21 14"}; !slices.Equal(got, want) {
			t.Errorf("set forward: %v, want %v", got, want)
		}
		m.SetClock(time.Date(2026, 11, 21, 18, 0, 0, 0, time.UTC)) // to a full hour: it was not passed
		time.Sleep(time.Hour)
		if got, want := stamps(2), []string{"21 14", "21 19"}; !slices.Equal(got, want) {
			t.Errorf("set to a full hour: %v, want %v", got, want)
		}
	})
}

// On the days on which daylight saving time begins and ends there are 24 rows in standard
// time. Register 348 shows the summer's digits and says so.
func TestLogDaylightSavingTime(t *testing.T) {
	copenhagen, err := time.LoadLocation("Europe/Copenhagen")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		start time.Time
		want  []string // 1003, 1002 and 348 with its minutes, of some rows
	}{
		{time.Date(2026, 3, 28, 23, 30, 0, 0, copenhagen), []string{
			"2026-03-29 00:00:00 2026-03-29T00:00:00 +0",
			"2026-03-29 01:00:00 2026-03-29T01:00:00 +0",
			"2026-03-29 02:00:00 2026-03-29T03:00:00 +60",
			"2026-03-29 03:00:00 2026-03-29T04:00:00 +60",
		}},
		{time.Date(2026, 10, 24, 23, 30, 0, 0, copenhagen), []string{
			"2026-10-24 23:00:00 2026-10-25T00:00:00 +60",
			"2026-10-25 00:00:00 2026-10-25T01:00:00 +60",
			"2026-10-25 01:00:00 2026-10-25T02:00:00 +60",
			"2026-10-25 02:00:00 2026-10-25T02:00:00 +0",
			"2026-10-25 03:00:00 2026-10-25T03:00:00 +0",
		}},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := newMeter(t, Config{Model: "603", Start: test.start, Speed: 288})
			show := func(row kmp.LogRow) string {
				r := value(t, row, 348)
				v, err := r.Value()
				if err != nil {
					t.Fatal(err)
				}
				return fmt.Sprintf("%s %s +%d", stamp(t, row).Format(time.DateTime), v, r.Raw[0])
			}
			before := len(m.Log(kmp.LogDay))
			time.Sleep(25 * time.Hour / 288)
			rows := m.Log(kmp.LogHour)[1400-25:]
			for i, want := range test.want {
				if got := show(rows[i]); got != want {
					t.Errorf("row %d is %s, want %s", i, got, want)
				}
			}
			for i, row := range rows[1:] {
				if d := stamp(t, row).Sub(stamp(t, rows[i])); d != time.Hour {
					t.Errorf("row of %v is %v after the one before", stamp(t, row), d)
				}
			}
			days := m.Log(kmp.LogDay)
			if last := stamp(t, days[len(days)-1]); len(days) != before || last.Hour() != 0 || m.Now().In(time.FixedZone("", 3600)).Format(time.DateOnly) != last.Format(time.DateOnly) {
				t.Errorf("the last day is %v at %v", last, m.Now())
			}
		})
	}
}

// The rows of months and years hold the largest and smallest values of the one that
// ended, also when the meter's clock changes the day earlier or later than the house.
func TestLogPeriods(t *testing.T) {
	for _, offset := range []time.Duration{0, 10 * time.Minute, -10 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			m := newMeter(t, Config{Start: time.Date(2026, 12, 31, 12, 0, 0, 0, time.UTC), ClockOffset: offset})
			largest, average := number(t, m, 128), number(t, m, 149).Float64()
			time.Sleep(14 * time.Hour)
			if got := text(t, m, 127); got != "2027-01-01" {
				t.Errorf("%v: the largest power of the new year is of %s", offset, got)
			}
			for _, log := range []kmp.LogType{kmp.LogMonth, kmp.LogYear} {
				rows := m.Log(log)
				for _, row := range rows {
					end := stamp(t, row)
					begin := end.AddDate(-1, 0, 0)
					ids := []uint16{123, 125, 127, 129}
					if log == kmp.LogMonth {
						begin = end.AddDate(0, -1, 0)
						ids = []uint16{138, 140, 142, 144}
					}
					if row.ID == 1 {
						begin = time.Date(2024, 8, 1, 0, 0, 0, 0, time.UTC) // the meter was installed
					}
					if begin.Equal(end) {
						continue // ten minutes later
					}
					for _, id := range ids {
						v, err := value(t, row, id).Value()
						if err != nil || v == nil {
							t.Fatalf("%v: %s row of %v: register %d is %v, %v", offset, log, end, id, v, err)
						}
						d, err := time.Parse(time.DateOnly, v.String())
						if err != nil || d.Before(begin) || !d.Before(end) {
							t.Errorf("%v: %s row of %v: register %d is of %v", offset, log, end, id, v)
						}
					}
				}
				last := rows[len(rows)-1]
				if got := stamp(t, last).Format(time.DateTime); got != "2027-01-01 00:00:00" {
					t.Fatalf("%v: the %s log ends with %s", offset, log, got)
				}
				if log == kmp.LogYear {
					if got, _ := value(t, last, 128).Decimal(); got != largest {
						t.Errorf("%v: the year's largest power is %s, at noon it was %s", offset, got, largest)
					}
				} else if got, _ := value(t, last, 149).Decimal(); got.Float64()-average > 1 || average-got.Float64() > 1 {
					t.Errorf("%v: the month's average T1 is %s, at noon it was %.2f", offset, got, average)
				}
			}
		})
	}
}

// A week passes at any speed, read or not.
func TestLogWeek(t *testing.T) {
	for _, speed := range []float64{1, 288, 86400} {
		synctest.Test(t, func(t *testing.T) {
			m := newMeter(t, Config{Model: "603", Speed: speed})
			before := m.Log(kmp.LogHour)
			for range 7 * 24 {
				time.Sleep(time.Duration(float64(time.Hour) / speed))
				m.Read(60)
			}
			time.Sleep(time.Millisecond) // what was lost in dividing
			after := m.Log(kmp.LogHour)
			if got := after[len(after)-1].ID - before[len(before)-1].ID; got != 7*24 {
				t.Errorf("speed %v: %d rows in a week", speed, got)
			}
			if !slices.EqualFunc(before[7*24:], after[:len(after)-7*24], equalRows) {
				t.Errorf("speed %v: rows have changed", speed)
			}
		})
	}
}

// Overridden values reach the log when its rows can hold them.
func TestLogOverride(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{})
		own := number(t, m, 68)
		m.Override(60, kmp.Register{Unit: kmp.UnitGJ, SiEx: 0x43, Raw: []byte{0, 0, 0, 9}})
		m.Override(68, kmp.Register{Unit: kmp.UnitCubicMetre, Raw: []byte{1}})
		until(m, time.Hour)
		rows := m.Log(kmp.LogHour)
		last := rows[len(rows)-1]
		if got, _ := value(t, last, 60).Decimal(); got.String() != "0.009" {
			t.Errorf("E1 is %s", got)
		}
		if got, _ := value(t, last, 68).Decimal(); got.Cmp(own) < 0 {
			t.Errorf("V1 is %s, it was %s", got, own)
		}
	})
}

func BenchmarkLog(b *testing.B) {
	for _, log := range allLogs {
		b.Run(log.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m := newMeter(b, Config{Model: "603"})
				m.mu.Lock()
				m.kept(log)
				m.mu.Unlock()
			}
		})
	}
}
