package logbook

import (
	"time"

	"kmp2mqtt/kmp"
)

// The registers that hold a meter's time (package catalog).
const (
	regClock    = 1002 // time of day, standard time
	regDate     = 1003 // date, standard time
	regDateTime = 348  // date, time of day and how much daylight saving time is in them
)

// isTime reports whether a register only holds the time of its row.
func isTime(id uint16) bool { return id == regClock || id == regDate || id == regDateTime }

// digits is a meter's clock at a moment: date and clock, and the minutes of daylight
// saving time in them.
type digits struct {
	date  kmp.Date
	clock kmp.Clock
	dst   time.Duration
}

// in returns the moment when a clock at home in zone shows the digits: that zone's
// standard time, and daylight saving time where the digits say so.
func (d digits) in(zone *time.Location) time.Time {
	wall := time.Date(d.date.Year, time.Month(d.date.Month), d.date.Day, d.clock.Hour, d.clock.Minute, d.clock.Second, 0, time.UTC)
	// The offset at a moment needs the moment, which needs the offset: what is in force
	// within a day of it is near enough, then once more with what that gave.
	offset := standardOffset(wall, zone)
	offset = standardOffset(wall.Add(-offset), zone) + d.dst
	return wall.Add(-offset).In(time.FixedZone("", int(offset/time.Second)))
}

// standardOffset returns by how much standard time in zone is ahead of UTC at a moment.
// It is the time without daylight saving; where the law calls summer time the standard
// and winter time the exception, as in Ireland, it is winter time nevertheless.
func standardOffset(t time.Time, zone *time.Location) time.Duration {
	if zone == nil {
		return 0
	}
	at := t.In(zone)
	least := offsetOf(at)
	start, end := at.ZoneBounds()
	for _, edge := range []struct{ at, beyond time.Time }{{start, start.Add(-time.Second)}, {end, end}} {
		if edge.at.IsZero() || edge.beyond.IsDST() == at.IsDST() {
			continue // the zone never changed, or changed its standard time
		}
		if !at.IsDST() && edge.at.Sub(at).Abs() > 366*24*time.Hour {
			continue // a rule long gone
		}
		least = min(least, offsetOf(edge.beyond))
	}
	return least
}

func offsetOf(t time.Time) time.Duration {
	_, seconds := t.Zone()
	return time.Duration(seconds) * time.Second
}

// timeOf returns the time that a row's registers, or a meter's, tell, and whether
// daylight saving time is known. It is zero when they tell none, or one that cannot be.
// A date alone is 00:00 where that is enough.
func timeOf(registers []kmp.Register, zone *time.Location, dateIsEnough bool) (t time.Time, dstKnown bool) {
	var d digits
	var date, clock bool
	for _, r := range registers {
		if !isTime(r.ID) {
			continue
		}
		v, err := r.Value()
		if err != nil {
			continue
		}
		switch v := v.(type) {
		case kmp.DateTime:
			if r.ID == regDateTime && r.Unit == kmp.UnitDSTDateTime {
				return digits{v.Date, v.Clock, time.Duration(v.DSTMinutes) * time.Minute}.in(zone), true
			}
		case kmp.Date:
			d.date, date = v, r.ID == regDate
		case kmp.Clock:
			d.clock, clock = v, r.ID == regClock
		}
	}
	if !date || !clock && !dateIsEnough {
		return time.Time{}, false
	}
	return d.in(zone), false
}
