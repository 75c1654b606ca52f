package logbook

import (
	"context"
	"errors"
	"time"

	"kmp2mqtt/kmp"
)

// nominal is the time from one row of a log to the next, at least; 0: not known.
func nominal(log kmp.LogType) time.Duration {
	const day = 24 * time.Hour
	switch log {
	case kmp.LogYear:
		return 365 * day
	case kmp.LogMonth:
		return 28 * day
	case kmp.LogDay:
		return day
	case kmp.LogHour:
		return time.Hour
	case kmp.LogMinute, kmp.LogMinute2:
		return time.Minute
	}
	return 0
}

// usual is how many rows are new when it is not known since when.
func usual(log kmp.LogType) int {
	switch log {
	case kmp.LogYear:
		return 1
	case kmp.LogMonth:
		return 2
	case kmp.LogDay:
		return 7
	case kmp.LogHour:
		return 24
	case kmp.LogMinute, kmp.LogMinute2:
		return 60
	}
	return 8
}

// margin is by how much a clock may have been set back within the log without hiding
// rows that are between Since and Until.
const margin = 2 * time.Hour

// search is the way to the first row.
type search struct {
	probe  int64 // the row whose time is asked next; 0: none was yet
	stride int64 // how far the next one is from it at least
	bottom bool  // the oldest row is searched for
	halves bool  // by halving what lies between these two
	gone   int64 // a row that the log no longer has, or none
	there  int64 // one that it has; 0: not begun yet
}

// timeIDs are the registers that tell a row's time, or another one when there are none.
func (r *Reader) timeIDs() []uint16 { return r.group(r.asked[:max(r.times, 1)]) }

// expected is how many rows there are from the next one, or Since, to the newest.
func (r *Reader) expected() int {
	since := r.last.Time
	if r.next == none && !r.want.Since.IsZero() {
		since = r.want.Since.Add(-margin)
	}
	if since.IsZero() || r.step == 0 {
		return usual(r.log)
	}
	n := int64(time.Since(since) / r.step)
	if r.next == none {
		n = r.rowsSince(since, time.Now()) + 1
	}
	return int(min(max(n, 1), 1<<20))
}

// rowsSince is how many rows there are at most from a time to another, if no clock was
// set back.
func (r *Reader) rowsSince(since, until time.Time) int64 {
	return max(int64((until.Sub(since)+r.step-1)/r.step), 0)
}

// newestBy is when the newest row was written at the latest.
func (r *Reader) newestBy() time.Time {
	if now := time.Now(); !r.newestTime.After(now) {
		return now
	}
	return r.newestTime
}

// look asks for the newest rows: all that are new, if they fit into one answer, else the
// time of the newest one alone.
func (r *Reader) look(ctx context.Context) error {
	if r.next == none && r.want.Since.IsZero() && r.want.Until.IsZero() && !r.search.halves {
		return r.findOldest(ctx) // which tells the newest as well
	}
	rows := r.expected()
	if rows > r.fits() || r.want.Most > 0 && rows > r.want.Most-r.count ||
		r.next == none && r.want.Since.IsZero() ||
		!r.want.Until.IsZero() && time.Since(r.want.Until) > margin {
		return r.lookFor(ctx, request{last: true, rows: 2, ids: r.timeIDs()}, nil) // the second one tells the step
	}
	return r.lookFor(ctx, request{last: true, rows: rows, ids: r.group(r.asked)}, &page{wanted: r.asked[r.times:], left: r.asked})
}

// lookFor asks for the newest rows, which begin a page unless that is nil.
func (r *Reader) lookFor(ctx context.Context, q request, part *page) error {
	p, ok, err := r.send(ctx, q)
	switch {
	case !ok:
		return err
	case len(p.Rows) == 0 && !r.other(p):
		return r.noRows(q, p.Info)
	}
	r.looked, r.refused = true, 0
	if part == nil || len(p.Rows) == 0 {
		return nil
	}
	part.first = int64(p.First)
	return r.join(part, p, q.ids)
}

// find takes a step on the way to the first row not before Since: down from the newest
// one by as many rows as there can be since then, until a row is from before. Time
// without power makes the rows fewer, never more. A clock that was set back makes them
// more; then the way goes on down.
func (r *Reader) find(ctx context.Context) error {
	if r.want.Since.IsZero() || r.step == 0 {
		return r.findOldest(ctx)
	}
	s := &r.search
	bound := r.want.Since.Add(-margin)
	switch {
	case len(r.held) > 0 && before(r.held[0].Time, bound):
		r.next = int64(r.held[0].ID)
		return nil
	case s.probe == 0:
		from, at := r.newest, r.newestBy()
		if len(r.held) > 0 {
			from, at = int64(r.held[0].ID), r.held[0].Time
		}
		s.probe, s.stride = from, 1
		r.down(bound, at)
	}
	if s.probe <= 0 {
		return r.findOldest(ctx)
	}
	p, ok, err := r.send(ctx, request{from: s.probe, rows: 1, ids: r.timeIDs()})
	if !ok {
		return err
	}
	var at time.Time
	switch {
	case r.other(p):
	case len(p.Rows) == 0 || int64(p.First) != s.probe:
		s.bottom = true
		return nil
	default:
		at, _ = r.timeOf(p.Rows[0].Registers)
	}
	switch {
	case p.Info&kmp.LogAtOldest != 0:
		r.foundOldest(s.probe)
	case before(at, bound):
		r.next = s.probe
		*s = search{}
	default:
		r.down(bound, at)
	}
	return nil
}

// down moves the probe by as many rows as there can be from bound to the row's time, and
// each time by more.
func (r *Reader) down(bound, at time.Time) {
	s := &r.search
	n := s.stride
	if !at.IsZero() {
		n = max(n, r.rowsSince(bound, at))
	}
	s.probe = max(s.probe-n, 0)
	s.stride *= 2
}

// before reports whether a row's time is known and before a bound.
func before(t, bound time.Time) bool { return !t.IsZero() && t.Before(bound) }

// findOldest takes a step on the way to the log's oldest row. As a rule it is the only
// one: a row from too far back is answered with the oldest.
func (r *Reader) findOldest(ctx context.Context) error {
	if r.search.halves && r.newest != none {
		return r.halve(ctx)
	}
	r.search.bottom = r.newest != none
	p, ok, err := r.send(ctx, request{last: true, offset: 0xFFFF, rows: 1, ids: r.timeIDs()})
	switch {
	case errors.Is(err, kmp.ErrForeign): // it was a row, and not one that was asked for
		r.search.halves = true
		return nil
	case !ok:
		return err
	}
	r.looked = true
	if len(p.Rows) > 0 && (p.Info&kmp.LogAtOldest != 0 || p.First < p.Newest) {
		r.foundOldest(int64(p.First))
		return nil
	}
	r.search.bottom, r.search.halves = true, true
	return nil
}

// halve asks for a row in the middle between one that is gone and one that is there.
func (r *Reader) halve(ctx context.Context) error {
	s := &r.search
	if s.there == 0 {
		depth := int64(0xFFFF)
		if r.config != nil && r.config.Depth > 0 {
			depth = int64(r.config.Depth)
		}
		s.gone, s.there = max(r.newest-depth-1, none), r.newest
	}
	if s.there-s.gone > 1 {
		middle := s.gone + (s.there-s.gone)/2
		p, ok, err := r.send(ctx, request{from: middle, rows: 1, ids: r.timeIDs()})
		if !ok {
			return err
		}
		if len(p.Rows) > 0 && int64(p.First) == middle || r.other(p) {
			s.there = middle
			if p.Info&kmp.LogAtOldest != 0 {
				s.gone = middle - 1
			}
		} else {
			s.gone = middle
		}
	}
	if s.there-s.gone <= 1 {
		r.foundOldest(s.there)
	}
	return nil
}

// foundOldest takes in which row is the oldest. Older ones that were wanted are lost.
func (r *Reader) foundOldest(id int64) {
	r.oldest, r.search = id, search{}
	if r.next == none {
		r.next = id
		return
	}
	if len(r.held) > 0 {
		id = min(id, int64(r.held[0].ID))
	}
	if id <= r.next {
		return
	}
	if r.want.Known || r.inside {
		r.lost = append(r.lost, idRun{uint32(r.next), uint32(id - 1)})
	}
	r.next = id
}
