package logbook

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

// page is rows of a log of which some registers are there and others yet to be read,
// as a request has room for eight.
type page struct {
	first  int64        // id of the first row
	count  int          // how many there are at most
	rows   []kmp.LogRow // newest first; nil before the first answer
	wanted []uint16     // the registers of its rows that are delivered
	left   []uint16     // those to be read yet
	bottom bool         // the last row is the log's oldest
}

// read begins a page with rows from the one with an id on, towards older ones.
func (r *Reader) read(ctx context.Context, from int64, rows int) error {
	part := &page{first: from, count: min(rows, r.fits()), wanted: r.asked[r.times:], left: r.asked}
	return r.readPart(ctx, part, part.count)
}

// complete asks for more registers of the page under way.
func (r *Reader) complete(ctx context.Context) error {
	part := r.part
	return r.readPart(ctx, part, min(part.count, r.fit.rows(r.group(part.left))))
}

func (r *Reader) readPart(ctx context.Context, part *page, rows int) error {
	group := r.group(part.left)
	q := request{from: part.first, rows: rows, ids: group}
	p, ok, err := r.send(ctx, q)
	switch {
	case !ok:
		return err
	case r.other(p):
		if part.left = part.left[len(group):]; len(part.left) == 0 {
			return r.whole(part, p.Info)
		}
		r.part = part
		return nil
	case len(p.Rows) == 0:
		return r.noRows(q, p.Info)
	case int64(p.First) != part.first:
		return r.noRows(q, p.Info|kmp.LogOutOfRange)
	}
	r.refused = 0
	return r.join(part, p, group)
}

// join takes the registers of a group, as far as they came, into a page.
func (r *Reader) join(part *page, p kmp.LogPage, group []uint16) error {
	r.part = part
	if part.rows == nil {
		part.rows, part.bottom = p.Rows, p.Info&kmp.LogAtOldest != 0
	} else {
		part.keep(p.Rows)
		if len(part.rows) == 0 {
			r.part = nil
			return nil
		}
	}
	part.count = len(part.rows)
	came := p.Rows[0].Registers
	missing := slices.DeleteFunc(slices.Clone(group), func(id uint16) bool { return find(came, id) != nil })
	part.left = part.left[len(group):]
	switch {
	case len(missing) == 0:
	case p.Info&kmp.LogCut != 0 && len(came) > 0: // there was no room for them
		r.fit.fewer(len(came))
		part.left = append(missing, part.left...)
	case p.First == p.Newest || r.inModule(): // whose log has one format
		r.absent = append(r.absent, slices.DeleteFunc(missing, isTime)...)
		r.choose()
	}
	if len(part.left) > 0 {
		return nil
	}
	return r.whole(part, p.Info)
}

// keep adds the registers of more rows, and keeps the rows that are in both.
func (p *page) keep(more []kmp.LogRow) {
	for len(more) > 0 && len(p.rows) > 0 && more[0].ID != p.rows[0].ID {
		if more[0].ID > p.rows[0].ID {
			more = more[1:]
		} else {
			p.rows = p.rows[1:]
		}
	}
	if len(more) < len(p.rows) {
		p.rows, p.bottom = p.rows[:len(more)], false
	}
	for i := range p.rows {
		p.rows[i].Registers = append(p.rows[i].Registers, more[i].Registers...)
	}
}

// whole takes in a page that is complete.
func (r *Reader) whole(part *page, info kmp.LogInfo) error {
	r.part = nil
	switch {
	case part.rows != nil:
		return r.arrived(part)
	case !r.mixed:
		r.mixed, r.allTimes = true, true
		r.choose()
		return nil
	}
	return &InfoError{Log: r.log, Info: info}
}

// find returns the register with an id, or nil.
func find(registers []kmp.Register, id uint16) *kmp.Register {
	for i := range registers {
		if registers[i].ID == id {
			return &registers[i]
		}
	}
	return nil
}

// suspicion is how often rows that look wrong are read again before that is an error.
const suspicion = 3

// arrived takes in rows that are complete: it holds them, or has them read again.
func (r *Reader) arrived(p *page) error {
	if !r.allTimes && find(p.rows[0].Registers, regDateTime) == nil {
		before := r.times
		r.allTimes = true
		if r.choose(); r.times > before { // the rows are of another format, and have another time
			return nil
		}
	}
	lowest := int64(p.rows[len(p.rows)-1].ID)
	rows := r.rows(p)
	if r.wrong(rows) && !slices.ContainsFunc(r.suspects, func(before []Row) bool { return same(before, rows) }) {
		if n := len(rows); n > 0 && len(r.held) > 0 && !follows(rows[n-1], r.held[0]) {
			rows, r.held = append(rows, r.held[0]), r.held[1:] // either may be the wrong one
		}
		if r.suspects = append(r.suspects, rows); len(r.suspects) <= suspicion {
			return nil
		}
		r.suspects = nil
		return fmt.Errorf("%w: %s log", ErrUnsteady, r.log)
	}
	r.suspects = nil
	r.held = append(rows, r.held...)
	if p.bottom {
		r.foundOldest(lowest)
	}
	return nil
}

// rows returns what is new of a page's rows, ascending, each with memory of its own.
func (r *Reader) rows(p *page) []Row {
	var rows []Row
	for _, row := range slices.Backward(p.rows) {
		if int64(row.ID) < r.next || len(r.held) > 0 && row.ID >= r.held[0].ID {
			continue
		}
		n := Row{Log: r.log, ID: row.ID}
		n.Time, _ = r.timeOf(row.Registers)
		for _, id := range p.wanted {
			if reg := find(row.Registers, id); reg != nil {
				c := *reg
				c.Raw = bytes.Clone(c.Raw)
				n.Registers = append(n.Registers, c)
			}
		}
		rows = append(rows, n)
	}
	return rows
}

// timeOf is the time that the registers of a row tell. In a log of days and longer the
// date is enough.
func (r *Reader) timeOf(registers []kmp.Register) (time.Time, bool) {
	return timeOf(registers, r.src.Zone, r.log == kmp.LogYear || r.log == kmp.LogMonth || r.log == kmp.LogDay)
}

// learnStep takes the shortest time between two rows for that of a log whose interval is
// set in the meter.
func (r *Reader) learnStep(newestFirst []kmp.LogRow) {
	if r.log != kmp.LogMinute && r.log != kmp.LogMinute2 {
		return
	}
	var after time.Time
	for _, row := range newestFirst {
		at, _ := r.timeOf(row.Registers)
		if d := after.Sub(at); !after.IsZero() && !at.IsZero() && d > 0 && (d < r.step || !r.stepSeen) {
			r.step, r.stepSeen = d, true
		}
		after = at
	}
}

// wrong reports whether rows do not fit to each other or to those around them: a time
// that does not go up, a counter that falls.
func (r *Reader) wrong(rows []Row) bool {
	before := r.last
	for _, row := range append(slices.Clip(rows), r.held[:min(len(r.held), 1)]...) {
		if !follows(before, row) {
			return true
		}
		before = row
	}
	return false
}

// follows reports whether a row can come after another one.
func follows(before, row Row) bool {
	if !before.Time.IsZero() && !row.Time.IsZero() && !row.Time.After(before.Time) {
		return false
	}
	for _, now := range row.Registers {
		was := find(before.Registers, now.ID)
		if was == nil || was.Unit != now.Unit || catalog.Lookup(now.ID).Kind != catalog.Counter {
			continue
		}
		a, errA := was.Decimal()
		b, errB := now.Decimal()
		if errA == nil && errB == nil && b.Cmp(a) < 0 {
			return false
		}
	}
	return true
}

// same reports whether two readings of rows agree where they overlap, and do so.
func same(a, b []Row) bool {
	overlap := 0
	for _, x := range a {
		i, ok := slices.BinarySearchFunc(b, x.ID, func(row Row, id uint32) int { return cmp.Compare(row.ID, id) })
		if !ok {
			continue
		}
		overlap++
		if y := b[i]; !x.Time.Equal(y.Time) || !slices.EqualFunc(x.Registers, y.Registers, sameRegister) {
			return false
		}
	}
	return overlap > 0
}

func sameRegister(a, b kmp.Register) bool {
	return a.ID == b.ID && a.Unit == b.Unit && a.SiEx == b.SiEx && bytes.Equal(a.Raw, b.Raw)
}
