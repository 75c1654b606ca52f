// Package battery counts what readings cost a meter's battery, and says how many it may
// have. It has no clock: a day is a calendar day in the location of the time it is given.
package battery

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// maxDays is how many days a Usage keeps.
const maxDays = 8

// maxCount bounds every count of a Usage from a file, so that adding to it is safe.
const maxCount = 1 << 53

// Day is what the readings of one day cost.
type Day struct {
	Date     string  `json:"date"`     // 2006-01-02; of a total: the day counting began
	Reads    uint64  `json:"reads"`    // visits that the meter answered, well or not
	Commands uint64  `json:"commands"` // those of the visits that a command caused
	Frames   uint64  `json:"frames"`   // answers
	Bytes    uint64  `json:"bytes"`    // both ways
	Awake    float64 `json:"awake_s"`  // seconds, to the millisecond
}

// add counts d too. A time awake that is no number counts as none.
func (day *Day) add(d Day) {
	day.Reads += d.Reads
	day.Commands += d.Commands
	day.Frames += d.Frames
	day.Bytes += d.Bytes
	if d.Awake > 0 && d.Awake <= maxCount {
		day.Awake = math.Round((day.Awake+d.Awake)*1000) / 1000
	}
}

func (day Day) check() error {
	for _, n := range []uint64{day.Reads, day.Commands, day.Frames, day.Bytes} {
		if n > maxCount {
			return fmt.Errorf("a count of %d", n)
		}
	}
	if day.Commands > day.Reads {
		return fmt.Errorf("%d commands in %d reads", day.Commands, day.Reads)
	}
	if !(day.Awake >= 0 && day.Awake <= maxCount) {
		return fmt.Errorf("%v s awake", day.Awake)
	}
	return nil
}

// Usage is what the readings of one meter cost. It is kept as JSON; the zero value has
// counted nothing.
type Usage struct {
	Days  []Day     `json:"days"`          // newest first, at most 8, days without a reading left out
	Total Day       `json:"total"`         // since Total.Date
	Last  time.Time `json:"last,omitzero"` // the last reading
}

// Note counts a reading at a time; d.Date does not matter.
func (u *Usage) Note(at time.Time, d Day) {
	date := dateOf(at)
	days := slices.Clone(u.Days) // copies of u share the old ones
	i, found := find(days, date)
	if !found {
		days = slices.Insert(days, i, Day{Date: date})
	}
	days[i].add(d)
	if len(days) > maxDays {
		if i == maxDays { // the clock was ahead for days, or is at 1970 until it is set: today must stay, whichever it is
			days = slices.Delete(days, maxDays-1, maxDays)
		} else {
			days = days[:maxDays]
		}
	}
	u.Days = days
	u.Total.Date = cmp.Or(u.Total.Date, date)
	u.Total.add(d)
	if d.Reads > 0 {
		u.Last = at.Round(0)
	}
}

// Today returns what the readings of the day of at cost so far.
func (u Usage) Today(at time.Time) Day {
	date := dateOf(at)
	if i, found := find(u.Days, date); found {
		return u.Days[i]
	}
	return Day{Date: date}
}

// Check says what is wrong with a Usage from a file.
func (u Usage) Check() error {
	if len(u.Days) > maxDays {
		return fmt.Errorf("battery: %d days, at most %d", len(u.Days), maxDays)
	}
	for i, d := range u.Days {
		if _, err := time.Parse(time.DateOnly, d.Date); err != nil {
			return fmt.Errorf("battery: %w", err)
		}
		if i > 0 && d.Date >= u.Days[i-1].Date {
			return fmt.Errorf("battery: %s: days out of order", d.Date)
		}
		if err := d.check(); err != nil {
			return fmt.Errorf("battery: %s: %w", d.Date, err)
		}
	}
	if err := u.Total.check(); err != nil {
		return fmt.Errorf("battery: total: %w", err)
	}
	if _, err := time.Parse(time.DateOnly, u.Total.Date); err != nil && u.Total != (Day{}) {
		return fmt.Errorf("battery: total: %w", err)
	}
	return nil
}

// find returns where the day of a date is among days, or belongs.
func find(days []Day, date string) (int, bool) {
	return slices.BinarySearchFunc(days, date, func(d Day, date string) int { return cmp.Compare(date, d.Date) })
}

// Budget is how many readings a meter may have.
type Budget struct {
	PerDay int       // scheduled and by command together; 0 or less: no limit
	Grace  time.Time // the schedule is free until then; the readings count all the same
}

// Next returns when a scheduled reading that is wanted at a time may be: then or later,
// never before now. Half of the day's budget (rounded up) goes at any pace, the rest is
// spread from the last reading over the rest of the day, and when none is left the next
// is at the next midnight. Asking again, as one should when the time has come, puts it off
// only if there were readings in between.
func (b Budget) Next(u Usage, now, wanted time.Time) time.Time {
	t := wanted // as it is: what is read from a clock need not follow when that is set
	if t.Before(now) {
		t = now
	}
	if b.PerDay <= 0 || t.Before(b.Grace) {
		return t
	}
	for b.left(u.Today(t.In(now.Location()))) == 0 {
		t = NextDay(t.In(now.Location()))
	}
	today := u.Today(t.In(now.Location()))
	last := u.Last.In(now.Location())
	if today.Reads < b.half() || dateOf(last) != today.Date || last.After(now) { // after: the clock was set back
		return t
	}
	// One share more than there are readings, so that the last one is before midnight.
	paced := last.Add(NextDay(last).Sub(last) / time.Duration(b.left(today)+1))
	if paced.After(t) {
		return paced
	}
	return t
}

// Command reports whether a command may have a reading now. Commands get half of the
// day's budget (rounded up), and never more than is left of it. If it may not, next is
// the midnight from which it may.
func (b Budget) Command(u Usage, now time.Time) (ok bool, next time.Time) {
	if b.PerDay <= 0 {
		return true, now
	}
	next = now
	for d := u.Today(next); d.Commands >= b.half() || b.left(d) == 0; d = u.Today(next) {
		next = NextDay(next)
	}
	return next.Equal(now), next
}

// half is half of the day's budget, rounded up.
func (b Budget) half() uint64 { return uint64(b.PerDay-1)/2 + 1 }

// left is how many readings a day may still have.
func (b Budget) left(d Day) uint64 { return uint64(b.PerDay) - min(d.Reads, uint64(b.PerDay)) }

func dateOf(t time.Time) string { return t.Format(time.DateOnly) }

// NextDay returns the first moment of a later date than t's. That is not always 0:00:
// clocks are set forward over midnight in some places, and back to before it in others.
func NextDay(t time.Time) time.Time {
	t = t.Round(0)
	y, m, d := t.Date()
	for at := t; ; {
		_, offset := at.Zone()
		midnight := time.Date(y, m, d+1, 0, 0, 0, 0, time.FixedZone("", offset)).In(t.Location())
		_, change := at.ZoneBounds()
		if change.IsZero() || midnight.Before(change) {
			return midnight
		}
		if dateOf(change) > dateOf(t) {
			return change
		}
		at = change
	}
}
