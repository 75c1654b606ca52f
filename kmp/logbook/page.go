package logbook

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

// page is rows of a log of which some registers are there and others yet to be read,
// as a request has room for eight.
type page struct {
	first  int64        // id of the first row
	rows   []kmp.LogRow // newest first; nil before the first answer
	asked  []uint16     // the registers
	todo   []uint16     // those to be read yet
	bottom bool         // the last row is the log's oldest
}

// read asks for rows from the one with an id on, towards older ones.
func (r *Reader) read(ctx context.Context, from int64, rows int) error {
	asked := r.asked // which the answer may change
	group := r.group(asked)
	q := request{from: from, rows: min(rows, r.fits()), ids: group}
	p, ok, err := r.ask(ctx, q)
	if !ok {
		return err
	}
	if int64(p.First) != from {
		return r.noRows(q, p.Info|kmp.LogOutOfRange)
	}
	r.part = &page{first: from, asked: asked, todo: asked}
	return r.join(p, group)
}

// complete asks for more registers of the rows of a page.
func (r *Reader) complete(ctx context.Context) error {
	part := r.part
	group := r.group(part.todo)
	q := request{from: part.first, rows: min(len(part.rows), r.fit.rows(group)), ids: group}
	p, ok, err := r.ask(ctx, q)
	if !ok {
		return err
	}
	if int64(p.First) != part.first {
		return r.noRows(q, p.Info|kmp.LogOutOfRange)
	}
	return r.join(p, group)
}

// join takes the registers of a group, as far as they came, into the page under way.
func (r *Reader) join(p kmp.LogPage, group []uint16) error {
	part := r.part
	if part.rows == nil {
		part.rows, part.bottom = p.Rows, p.Info&kmp.LogAtOldest != 0
	} else {
		if len(p.Rows) < len(part.rows) {
			part.rows, part.bottom = part.rows[:len(p.Rows)], false
		}
		for i := range part.rows {
			part.rows[i].Registers = append(part.rows[i].Registers, p.Rows[i].Registers...)
		}
	}
	came := p.Rows[0].Registers
	missing := slices.DeleteFunc(slices.Clone(group), func(id uint16) bool { return find(came, id) != nil })
	part.todo = part.todo[len(group):]
	switch {
	case len(missing) == 0:
	case p.Info&kmp.LogCut != 0 && len(came) > 0: // there was no room for them
		r.fit.size = len(came)
		part.todo = append(missing, part.todo...)
	case p.First == p.Newest || p.Info&kmp.LogUnsupported != 0:
		r.absent = append(r.absent, missing...)
		r.choose()
	}
	if len(part.todo) > 0 {
		return nil
	}
	r.part = nil
	return r.arrived(part)
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
	if r.dateTime && !r.allTimes && find(p.rows[0].Registers, regDateTime) == nil { // older rows of another format
		r.allTimes = true
		r.choose()
		return nil
	}
	lowest := int64(p.rows[len(p.rows)-1].ID)
	rows := r.rows(p)
	if r.wrong(rows) && !same(r.suspect, rows) {
		r.suspect = rows
		if r.again++; r.again <= suspicion {
			return nil
		}
		r.suspect, r.again = nil, 0
		return r.wrap(ErrUnsteady)
	}
	r.suspect, r.again = nil, 0
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
		for _, id := range p.asked {
			if reg := find(row.Registers, id); reg != nil && !isTime(id) {
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
	for _, row := range append(rows[:len(rows):len(rows)], r.held[:min(len(r.held), 1)]...) {
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
