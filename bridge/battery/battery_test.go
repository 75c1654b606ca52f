package battery

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the zones below, wherever the test runs

	"github.com/google/go-cmp/cmp"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// at is a time in UTC.
func at(t *testing.T, text string) time.Time {
	t.Helper()
	v, err := time.Parse("2006-01-02 15:04:05", text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestNextDay(t *testing.T) {
	for _, c := range []struct{ zone, from, want, what string }{
		{"UTC", "2026-11-21T12:00:00Z", "2026-11-22T00:00:00Z", "a usual day"},
		{"UTC", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z", "midnight belongs to the new day"},
		{"UTC", "2026-12-31T23:59:59.999999999Z", "2027-01-01T00:00:00Z", "the year ends"},
		{"UTC", "2028-02-28T06:00:00Z", "2028-02-29T00:00:00Z", "a leap day"},
		{"Asia/Kathmandu", "2026-11-21T18:14:00Z", "2026-11-22T00:00:00+05:45", "an odd offset"},
		{"Europe/Copenhagen", "2026-03-29T00:30:00+01:00", "2026-03-30T00:00:00+02:00", "a day of 23 hours"},
		{"Europe/Copenhagen", "2026-03-28T12:00:00+01:00", "2026-03-29T00:00:00+01:00", "the day before it"},
		{"Europe/Copenhagen", "2026-10-25T00:30:00+02:00", "2026-10-26T00:00:00+01:00", "a day of 25 hours"},
		{"Europe/Copenhagen", "2026-10-25T02:30:00+01:00", "2026-10-26T00:00:00+01:00", "its second 2:30"},
		{"America/Sao_Paulo", "2018-11-03T12:00:00-03:00", "2018-11-04T01:00:00-02:00", "0:00 is left out"},
		{"America/Sao_Paulo", "2018-11-03T23:59:59-03:00", "2018-11-04T01:00:00-02:00", "a second before"},
		{"America/Sao_Paulo", "2018-02-17T12:00:00-02:00", "2018-02-18T00:00:00-03:00", "23:00 comes twice"},
		{"America/Sao_Paulo", "2018-02-17T23:30:00-02:00", "2018-02-18T00:00:00-03:00", "the first 23:30"},
		{"America/Sao_Paulo", "2018-02-17T23:30:00-03:00", "2018-02-18T00:00:00-03:00", "the second 23:30"},
		{"America/Havana", "2018-11-03T12:00:00-04:00", "2018-11-04T00:00:00-04:00", "0:00 comes twice"},
		{"America/Havana", "2018-11-04T00:30:00-04:00", "2018-11-05T00:00:00-05:00", "and is one day"},
		{"Pacific/Apia", "2011-12-29T12:00:00-10:00", "2011-12-31T00:00:00+14:00", "a day that was none"},
	} {
		from, err := time.Parse(time.RFC3339Nano, c.from)
		if err != nil {
			t.Fatal(err)
		}
		got := NextDay(from.In(zone(t, c.zone)))
		if text := got.Format(time.RFC3339Nano); text != c.want {
			t.Errorf("%s: after %s comes %s, want %s", c.what, c.from, text, c.want)
		}
	}
}

// In every zone with odd midnights, hour by hour over years: the next day is a later
// date, and the moment before it is not.
func TestNextDayIsTheFirst(t *testing.T) {
	for _, name := range []string{"Europe/Copenhagen", "America/Sao_Paulo", "America/Havana", "Asia/Beirut", "Africa/Cairo", "Pacific/Apia", "Australia/Lord_Howe", "America/Nuuk"} {
		loc := zone(t, name)
		for now := time.Date(2010, 1, 1, 0, 17, 0, 0, loc); now.Year() < 2020; now = now.Add(time.Hour) {
			next := NextDay(now)
			if !next.After(now) || dateOf(next) <= dateOf(now) || dateOf(next.Add(-1)) > dateOf(now) || next.Sub(now) > 26*time.Hour {
				t.Fatalf("%s: after %v comes %v", name, now, next)
			}
		}
	}
}

func TestNote(t *testing.T) {
	var u Usage
	copenhagen := zone(t, "Europe/Copenhagen")
	read := Day{Reads: 1, Frames: 2, Bytes: 100, Awake: 1.6}
	u.Note(at(t, "2026-11-20 22:59:59").In(copenhagen), read)
	u.Note(at(t, "2026-11-20 23:00:00").In(copenhagen), read) // midnight there
	u.Note(at(t, "2026-11-21 11:00:00").In(copenhagen), Day{Date: "1999-01-01", Reads: 1, Commands: 1, Awake: 1.7})
	u.Note(at(t, "2026-11-21 12:00:00").In(copenhagen), Day{Frames: 3})
	want := Usage{
		Days: []Day{
			{Date: "2026-11-21", Reads: 2, Commands: 1, Frames: 5, Bytes: 100, Awake: 3.3},
			{Date: "2026-11-20", Reads: 1, Frames: 2, Bytes: 100, Awake: 1.6},
		},
		Total: Day{Date: "2026-11-20", Reads: 3, Commands: 1, Frames: 7, Bytes: 200, Awake: 4.9},
		Last:  at(t, "2026-11-21 11:00:00"),
	}
	if diff := cmp.Diff(want, u); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}
	for when, reads := range map[string]uint64{"2026-11-21 22:00:00": 2, "2026-11-21 23:00:00": 0, "2026-11-20 12:00:00": 1, "2026-11-10 12:00:00": 0} {
		now := at(t, when).In(copenhagen)
		if got := u.Today(now); got.Reads != reads || got.Date != now.Format("2006-01-02") {
			t.Errorf("Today(%v): %+v, want %d reads", now, got, reads)
		}
	}
	b, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	wantText := `{"days":[{"date":"2026-11-21","reads":2,"commands":1,"frames":5,"bytes":100,"awake_s":3.3},` +
		`{"date":"2026-11-20","reads":1,"commands":0,"frames":2,"bytes":100,"awake_s":1.6}],` +
		`"total":{"date":"2026-11-20","reads":3,"commands":1,"frames":7,"bytes":200,"awake_s":4.9},"last":"2026-11-21T12:00:00+01:00"}`
	if diff := cmp.Diff(wantText, string(b)); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
	var again Usage
	if err := json.Unmarshal(b, &again); err != nil || again.Check() != nil {
		t.Fatal(err, again.Check())
	}
	if diff := cmp.Diff(u, again); diff != "" {
		t.Errorf("read again (-want +got):\n%s", diff)
	}
}

// A copy of a Usage is a value: it does not follow what is noted later.
func TestNoteLeavesCopies(t *testing.T) {
	var u Usage
	now := at(t, "2026-11-21 12:00:00")
	u.Note(now, Day{Reads: 1})
	before := u
	u.Note(now, Day{Reads: 1})
	u.Note(now.AddDate(0, 0, -1), Day{Reads: 1})
	if before.Today(now).Reads != 1 || len(before.Days) != 1 {
		t.Errorf("the copy became %+v", before)
	}
}

func TestAwake(t *testing.T) {
	var u Usage
	now := at(t, "2026-11-21 12:00:00")
	for range 1000 {
		u.Note(now, Day{Reads: 1, Awake: 0.1})
	}
	for _, none := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, math.MaxFloat64} {
		u.Note(now, Day{Awake: none})
	}
	if got := u.Today(now).Awake; got != 100 {
		t.Errorf("awake %v s, want 100", got)
	}
	if err := u.Check(); err != nil {
		t.Error(err)
	}
}

func dates(u Usage) string {
	var list []string
	for _, d := range u.Days {
		list = append(list, strings.TrimPrefix(d.Date, "2026-"))
	}
	return strings.Join(list, " ")
}

func TestDaysKept(t *testing.T) {
	first := at(t, "2026-11-01 12:00:00")
	var u Usage
	note := func(day int) { u.Note(first.AddDate(0, 0, day-1), Day{Reads: 1}) }
	for day := range 10 {
		note(day + 1)
	}
	if got, want := dates(u), "11-10 11-09 11-08 11-07 11-06 11-05 11-04 11-03"; got != want {
		t.Errorf("days %s, want %s", got, want)
	}
	if u.Total.Reads != 10 || u.Total.Date != "2026-11-01" {
		t.Errorf("total %+v", u.Total)
	}
	// The clock was ahead all the time: the real day is kept nevertheless.
	note(1)
	note(1)
	if got := u.Today(first).Reads; got != 2 {
		t.Errorf("%d reads on the real day, want 2", got)
	}
	note(2)
	if got, want := dates(u), "11-10 11-09 11-08 11-07 11-06 11-05 11-04 11-02"; got != want {
		t.Errorf("days %s, want %s", got, want)
	}
	if err := u.Check(); err != nil {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	if err := (Usage{}).Check(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
	nine := make([]Day, 9)
	for i := range nine {
		nine[i].Date = fmt.Sprintf("2026-11-%02d", 20-i)
	}
	total := Day{Date: "2026-11-01"}
	if err := (Usage{Days: nine[:8], Total: total}).Check(); err != nil {
		t.Errorf("eight days: %v", err)
	}
	for name, u := range map[string]Usage{
		"nine days":         {Days: nine, Total: total},
		"no date":           {Days: []Day{{}}, Total: total},
		"a bad date":        {Days: []Day{{Date: "2026-02-30"}}, Total: total},
		"twice":             {Days: []Day{nine[0], nine[0]}, Total: total},
		"oldest first":      {Days: []Day{nine[1], nine[0]}, Total: total},
		"too many reads":    {Days: []Day{{Date: "2026-11-20", Reads: math.MaxUint64}}, Total: total},
		"too many bytes":    {Days: []Day{{Date: "2026-11-20", Bytes: 1 << 60}}, Total: total},
		"too many commands": {Days: []Day{{Date: "2026-11-20", Reads: 1, Commands: 2}}, Total: total},
		"awake before":      {Days: []Day{{Date: "2026-11-20", Awake: -1}}, Total: total},
		"awake for ever":    {Days: []Day{{Date: "2026-11-20", Awake: math.Inf(1)}}, Total: total},
		"awake NaN":         {Total: Day{Date: "2026-11-20", Awake: math.NaN()}},
		"total without day": {Total: Day{Reads: 1}},
		"total's frames":    {Total: Day{Date: "2026-11-20", Frames: math.MaxUint64}},
	} {
		if err := u.Check(); err == nil || !strings.HasPrefix(err.Error(), "battery: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNext(t *testing.T) {
	type day = Day
	const today = "2026-11-21"
	for _, c := range []struct {
		what          string
		b             Budget
		day           day
		last          string // of the readings
		now, wanted   string
		want          string
		tomorrowsFull bool
	}{
		{what: "no limit", b: Budget{}, day: day{Reads: 1e6}, last: "11:59:00", now: "12:00:00", wanted: "12:01:00", want: "21 12:01:00"},
		{what: "late", b: Budget{PerDay: 96}, now: "12:00:00", wanted: "11:00:00", want: "21 12:00:00"},
		{what: "late without limit", b: Budget{}, now: "12:00:00", wanted: "11:00:00", want: "21 12:00:00"},
		{what: "half at any pace", b: Budget{PerDay: 96}, day: day{Reads: 47}, last: "00:47:00", now: "00:47:00", wanted: "00:48:00", want: "21 00:48:00"},
		{what: "then spread", b: Budget{PerDay: 96}, day: day{Reads: 48}, last: "11:45:00", now: "11:45:00", wanted: "11:46:00", want: "21 12:00:00"},
		{what: "spread, asked again", b: Budget{PerDay: 96}, day: day{Reads: 48}, last: "11:45:00", now: "11:59:00", wanted: "11:46:00", want: "21 12:00:00"},
		{what: "spread, its time has come", b: Budget{PerDay: 96}, day: day{Reads: 48}, last: "11:45:00", now: "12:00:00", wanted: "12:00:00", want: "21 12:00:00"},
		{what: "slow enough", b: Budget{PerDay: 96}, day: day{Reads: 48}, last: "11:45:00", now: "11:45:00", wanted: "12:15:00", want: "21 12:15:00"},
		{what: "the last one", b: Budget{PerDay: 96}, day: day{Reads: 95}, last: "12:00:00", now: "12:00:00", wanted: "12:15:00", want: "21 18:00:00"},
		{what: "none left", b: Budget{PerDay: 96}, day: day{Reads: 96}, last: "12:00:00", now: "12:00:00", wanted: "12:15:00", want: "22 00:00:00"},
		{what: "none left, tomorrow wanted", b: Budget{PerDay: 96}, day: day{Reads: 96}, last: "12:00:00", now: "23:59:00", wanted: "24:05:00", want: "22 00:05:00"},
		{what: "none left for days", b: Budget{PerDay: 96}, day: day{Reads: 200}, tomorrowsFull: true, last: "12:00:00", now: "12:00:00", wanted: "12:15:00", want: "23 00:00:00"},
		{what: "grace", b: Budget{PerDay: 2, Grace: at(t, today+" 13:00:00")}, day: day{Reads: 200}, last: "12:00:00", now: "12:00:00", wanted: "12:00:05", want: "21 12:00:05"},
		{what: "grace is over", b: Budget{PerDay: 2, Grace: at(t, today+" 13:00:00")}, day: day{Reads: 200}, last: "12:00:00", now: "12:00:00", wanted: "13:00:00", want: "22 00:00:00"},
		{what: "the clock was set back", b: Budget{PerDay: 10}, day: day{Reads: 8}, last: "20:00:00", now: "10:00:00", wanted: "10:30:00", want: "21 10:30:00"},
		{what: "one a day, free", b: Budget{PerDay: 1}, now: "12:00:00", wanted: "12:01:00", want: "21 12:01:00"},
		{what: "one a day, had", b: Budget{PerDay: 1}, day: day{Reads: 1}, last: "12:00:00", now: "12:00:00", wanted: "12:01:00", want: "22 00:00:00"},
		{what: "two a day, one had", b: Budget{PerDay: 2}, day: day{Reads: 1}, last: "12:00:00", now: "12:00:00", wanted: "12:01:00", want: "21 18:00:00"},
		{what: "three a day, one had", b: Budget{PerDay: 3}, day: day{Reads: 1}, last: "12:00:00", now: "12:00:00", wanted: "12:01:00", want: "21 12:01:00"},
		{what: "three a day, two had", b: Budget{PerDay: 3}, day: day{Reads: 2}, last: "12:00:00", now: "12:00:00", wanted: "12:01:00", want: "21 18:00:00"},
	} {
		u := Usage{}
		if c.last != "" {
			u.Last = at(t, today+" "+c.last)
			c.day.Date = today
			u.Days = []Day{c.day}
		}
		if c.tomorrowsFull {
			u.Days = slices.Insert(u.Days, 0, Day{Date: "2026-11-22", Reads: 96})
		}
		var h, m, s int
		if _, err := fmt.Sscanf(c.wanted, "%d:%d:%d", &h, &m, &s); err != nil {
			t.Fatal(err)
		}
		wanted := time.Date(2026, 11, 21, h, m, s, 0, time.UTC)
		if got := c.b.Next(u, at(t, today+" "+c.now), wanted).Format("02 15:04:05"); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

// 96 a day are a reading each quarter of an hour: the default budget never stretches that.
func TestNextUsualPace(t *testing.T) {
	b, u := Budget{PerDay: 96}, Usage{}
	start := at(t, "2026-11-21 00:00:00")
	for now := start; now.Before(start.AddDate(0, 0, 3)); now = now.Add(15 * time.Minute) {
		if got := b.Next(u, now, now); !got.Equal(now) {
			t.Fatalf("wanted at %v, put off to %v", now, got)
		}
		u.Note(now, Day{Reads: 1})
	}
}

func TestNextLocation(t *testing.T) {
	copenhagen := zone(t, "Europe/Copenhagen")
	now := at(t, "2026-11-21 22:30:00").In(copenhagen)
	var u Usage
	u.Note(now, Day{Reads: 4})
	got := Budget{PerDay: 4}.Next(u, now, now.Add(10*time.Minute).UTC())
	if want := "2026-11-22T00:00:00+01:00"; got.Format(time.RFC3339) != want {
		t.Errorf("%v, want %s", got, want)
	}
}

func TestCommand(t *testing.T) {
	const now, midnight = "2026-11-21 12:00:00", "2026-11-22 00:00:00"
	for _, c := range []struct {
		perDay          int
		reads, commands uint64
		ok              bool
	}{
		{0, 1e6, 1e6, true},
		{-1, 1, 1, true},
		{96, 0, 0, true},
		{96, 95, 47, true},
		{96, 96, 47, false},
		{96, 500, 0, false},
		{96, 48, 48, false},
		{1, 0, 0, true},
		{1, 1, 0, false},
		{1, 1, 1, false},
		{2, 0, 0, true},
		{2, 1, 0, true},
		{2, 1, 1, false},
		{3, 1, 1, true},
		{3, 2, 2, false},
		{3, 3, 1, false},
		{math.MaxInt, 5, 5, true},
	} {
		b := Budget{PerDay: c.perDay, Grace: at(t, "2026-11-21 13:00:00")} // grace is for the schedule
		u := Usage{Days: []Day{{Date: "2026-11-21", Reads: c.reads, Commands: c.commands}}}
		want := at(t, now)
		if !c.ok {
			want = at(t, midnight)
		}
		if ok, next := b.Command(u, at(t, now)); ok != c.ok || !next.Equal(want) {
			t.Errorf("%d of %d used, %d by commands: %t, %v; want %t", c.reads, c.perDay, c.commands, ok, next, c.ok)
		}
	}
}

// A meter's life at random: schedules of every pace, commands at any time, a clock that
// is set forward and back, days of 23 and 25 hours. Whatever comes, no day has more
// readings than its budget, commands have no more than their half, and no time is in the
// past or far away.
func TestBudgetHolds(t *testing.T) {
	zones := []*time.Location{time.UTC, zone(t, "Europe/Copenhagen"), zone(t, "America/Sao_Paulo"), zone(t, "Pacific/Apia")}
	starts := []string{"2026-03-27 08:00:00", "2026-10-23 08:00:00", "2018-11-02 08:00:00", "2018-02-16 08:00:00", "2011-12-28 08:00:00"}
	for seed := range uint64(280) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		loc := zones[rnd.IntN(len(zones))]
		b := Budget{PerDay: []int{1, 2, 3, 4, 7, 24, 96}[seed%7]}
		now := at(t, starts[rnd.IntN(len(starts))]).In(loc)
		end := now.AddDate(0, 0, 5)
		steps := rnd.IntN(2) == 0 // the clock is set
		pace := time.Duration(1+rnd.IntN(7200)) * time.Second
		eager := rnd.IntN(20) // commands between two readings
		var u Usage
		reads, commands := make(map[string]int), make(map[string]int)
		due := now
		for events := 0; now.Before(end) && events < 5000; events++ {
			next := b.Next(u, now, due)
			if next.Before(now) || next.Before(due) || next.After(due) && next.Sub(now) > 10*26*time.Hour {
				t.Fatalf("seed %d: at %v wanted %v, next is %v", seed, now, due, next)
			}
			if again := b.Next(u, now, next); !again.Equal(next) {
				t.Fatalf("seed %d: at %v, %v became %v by asking again", seed, now, next, again)
			}
			switch {
			case rnd.IntN(20) < eager:
				now = now.Add(time.Duration(rnd.Int64N(int64(pace))))
				ok, next := b.Command(u, now)
				if ok != next.Equal(now) || next.Before(now) || next.Sub(now) > 10*26*time.Hour {
					t.Fatalf("seed %d: at %v a command: %t, %v", seed, now, ok, next)
				}
				if !ok {
					continue
				}
				if ok, _ := b.Command(u, next); !ok {
					t.Fatalf("seed %d: a command may come at %v, and may not", seed, next)
				}
				u.Note(now, Day{Reads: 1, Commands: 1, Frames: 1})
				reads[dateOf(now)]++
				commands[dateOf(now)]++
			case steps && rnd.IntN(50) == 0:
				now = now.Add(time.Duration(rnd.Int64N(int64(12*time.Hour))) - 6*time.Hour)
				continue
			case next.After(now): // sleeps, perhaps not to the end
				due = next
				now = now.Add(time.Duration(rnd.Int64N(2 * int64(next.Sub(now)))))
				if rnd.IntN(2) == 0 {
					now = next
				}
				continue
			default:
				u.Note(now, Day{Reads: 1, Frames: 1})
				reads[dateOf(now)]++
				due = now.Add(pace)
			}
			if day := dateOf(now); reads[day] > b.PerDay || commands[day] > (b.PerDay+1)/2 {
				t.Fatalf("seed %d: %s has %d reads, %d by commands, of %d", seed, day, reads[day], commands[day], b.PerDay)
			}
		}
		if err := u.Check(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// Commands as often as they are let: the schedule still gets every reading that they may
// not have, and the day's budget is used to its end.
func TestScheduleGetsItsShare(t *testing.T) {
	copenhagen := zone(t, "Europe/Copenhagen")
	for _, perDay := range []int{1, 2, 3, 4, 5, 24, 96} {
		for _, every := range []time.Duration{time.Minute, 10 * time.Minute, time.Hour} { // the commands
			b := Budget{PerDay: perDay}
			var u Usage
			start := time.Date(2026, 3, 28, 0, 0, 0, 0, copenhagen) // and a day of 23 hours
			scheduled := make(map[string]int)
			due, ask := start, start
			for now := start; now.Before(start.AddDate(0, 0, 3)); now = now.Add(15 * time.Second) {
				if !ask.After(now) {
					ask = now.Add(every)
					if ok, _ := b.Command(u, now); ok {
						u.Note(now, Day{Reads: 1, Commands: 1})
					}
				}
				if due = b.Next(u, now, due); !due.After(now) {
					u.Note(now, Day{Reads: 1})
					scheduled[dateOf(now)]++
					due = now.Add(time.Minute)
				}
			}
			for _, d := range u.Days {
				if d.Reads != uint64(perDay) || scheduled[d.Date] < perDay/2 {
					t.Errorf("%d a day, commands each %v: %s had %d reads, %d scheduled", perDay, every, d.Date, d.Reads, scheduled[d.Date])
				}
			}
			if len(u.Days) != 3 {
				t.Errorf("%d days, want 3", len(u.Days))
			}
		}
	}
}

// The second half of a budget lies over the rest of the day: no hours without a reading.
func TestSpread(t *testing.T) {
	b, u := Budget{PerDay: 96}, Usage{}
	start := at(t, "2026-11-21 00:00:00")
	due, last := start, start
	var gaps []time.Duration
	for now := start; now.Before(start.AddDate(0, 0, 1)); now = due {
		u.Note(now, Day{Reads: 1})
		gaps = append(gaps, now.Sub(last))
		last = now
		due = b.Next(u, now, now.Add(time.Minute))
	}
	if len(gaps) != 96 || slices.Max(gaps[:48]) > time.Minute {
		t.Fatalf("%d readings, %v", len(gaps), gaps)
	}
	rest := append(gaps[48:], due.Sub(last))
	if shortest, longest := slices.Min(rest), slices.Max(rest); longest-shortest > time.Second || longest > 30*time.Minute {
		t.Errorf("the rest of the day: gaps of %v to %v", shortest, longest)
	}
}

// A Usage from a file that Check lets through gives times that are sound.
func FuzzUsage(f *testing.F) {
	f.Add(`{"days":[{"date":"2026-11-21","reads":96}],"total":{"date":"2026-11-21","reads":96},"last":"2026-11-21T12:00:00+01:00"}`, 96)
	f.Add(`{"days":[{"date":"2026-11-22","reads":3,"commands":2},{"date":"2026-11-21","reads":2}],"total":{},"last":"9999-12-31T23:59:59Z"}`, 3)
	f.Add(`{"days":null,"total":{},"last":"0000-01-01T00:00:00-23:59"}`, 1)
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string, perDay int) {
		var u Usage
		if json.Unmarshal([]byte(text), &u) != nil || u.Check() != nil {
			return
		}
		b := Budget{PerDay: perDay}
		next := b.Next(u, now, now)
		ok, command := b.Command(u, now)
		for _, at := range []time.Time{next, command} {
			if at.Before(now) || at.Sub(now) > (maxDays+1)*24*time.Hour {
				t.Errorf("%v is out of reach: %s", at, text)
			}
		}
		if ok != command.Equal(now) {
			t.Errorf("a command: %t, %v", ok, command)
		}
		if perDay > 0 && next.Equal(now) && u.Today(now).Reads >= uint64(perDay) {
			t.Errorf("more than %d readings: %s", perDay, text)
		}
		u.Note(now, Day{Reads: 1})
		if u.Today(now).Reads == 0 || len(u.Days) > maxDays {
			t.Errorf("after a reading: %+v", u)
		}
	})
}

// A time that a clock has measured stays one: whoever waits for it waits as long as was
// meant, also when the clock is set meanwhile.
func TestNextKeepsClock(t *testing.T) {
	now := time.Now()
	wanted := now.Add(time.Hour)
	for _, b := range []Budget{{}, {PerDay: 96}, {PerDay: 96, Grace: wanted.Add(time.Hour)}} {
		if got := b.Next(Usage{}, now, wanted); got != wanted {
			t.Errorf("%+v: next %v, want %v", b, got, wanted)
		}
	}
}

// A computer without a clock of its own begins in 1970 and is set a minute later: what the
// day has cost already still counts.
func TestClockSetLate(t *testing.T) {
	var u Usage
	today := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	for i := range 20 {
		u.Note(today.AddDate(0, 0, i-19), Day{Reads: 96})
	}
	boot := time.Unix(20, 0).UTC()
	u.Note(boot, Day{Reads: 1})
	if got := u.Today(boot).Reads; got != 1 {
		t.Errorf("%d reads in 1970, want 1", got)
	}
	if got := u.Today(today).Reads; got != 96 {
		t.Errorf("%d reads today, want 96", got)
	}
	if next := (Budget{PerDay: 96}).Next(u, today, today); next.Day() == today.Day() {
		t.Errorf("a spent budget allows a reading at %v", next)
	}
}
