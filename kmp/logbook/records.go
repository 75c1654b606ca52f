package logbook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"kmp2mqtt/kmp"
)

// A logger module of a MULTICAL 601, and what an 801 has of its own, answers the commands
// A0 to A3 instead of the logger command (5512-447 section 6.3). They read towards the
// present, and ids have 16 bits: after 65535 comes 0. The reader counts on.

const (
	intervalLog = 1   // the number of the hour log
	maxAnswer   = 255 // bytes, as a request can say

	recordsHeader = 8 // bytes of an answer that are no record
	recordHeader  = 2 // bytes of a record that are no value
)

// moduleRegisters are those that the log of a module may have: no command tells which ones
// it has.
var moduleRegisters = []uint16{60, 68, 86, 87, 80, 74, 63, 61, 97, 110, 69, 72, 73, 84, 85, 99, 1004}

// inModule reports whether the log is in a logger module.
func (r *Reader) inModule() bool {
	return r.src.Address == kmp.LoggerTop || r.src.Address == kmp.LoggerBase
}

// nextRecords is the part of Next that asks a module. It reads upwards from the next
// row; every answer tells the newest one as well.
func (r *Reader) nextRecords(ctx context.Context) error {
	if r.log != kmp.LogHour {
		return fmt.Errorf("%w: a logger module has no %s log", ErrNoLogs, r.log)
	}
	part := r.part
	if part == nil {
		part = &page{first: r.next, wanted: r.asked[r.times:], left: r.asked}
		if r.suspects != nil {
			part.first = int64(r.suspects[len(r.suspects)-1][0].ID)
		} else if r.next != none && r.looked && r.next > r.newest && !r.more {
			r.looked = false
			return ErrEnd
		}
	}
	group := r.group(part.left)
	rows := min(r.fit.rows(group), (maxAnswer-recordsHeader-registerHeader*len(group))/(recordHeader+r.fit.rowWidth(group)))
	if r.looked && part.first != none && !r.more {
		rows = min(rows, int(r.newest-part.first+1))
	}
	if part.rows != nil {
		rows = min(rows, len(part.rows))
	}
	if r.want.Most > 0 && (r.inside || r.want.Since.IsZero()) {
		rows = min(rows, r.want.Most-r.count)
	}
	return r.readRecords(ctx, part, group, max(rows, 1))
}

// readRecords asks for a group of registers of the records of a page.
func (r *Reader) readRecords(ctx context.Context, part *page, group []uint16, rows int) error {
	q := kmp.LogRecordsRequest{
		Kind: kmp.CmdGetLogIDPresent, LogID: intervalLog, IDs: group, Records: byte(rows), Record: uint16(part.first),
		MaxLength: byte(recordsHeader + registerHeader*len(group) + rows*(recordHeader+r.fit.rowWidth(group))),
	}
	if part.first == none {
		q.Kind, q.Record = kmp.CmdGetLogTimePresent, 0
		q.Time, q.TimeReversed = logTime(r.want.Since.Add(-margin), r.src.Zone), r.turned > 0
	}
	a, err := r.src.Conn.LogRecords(ctx, r.src.Address, q)
	if err != nil {
		return r.failed(ctx, request{rows: rows, ids: group}, err)
	}
	r.answered = true
	if a.Info&kmp.RecordsEmpty != 0 {
		r.looked, r.part, r.suspects = false, nil, nil
		return ErrEnd
	}
	p, newest := pageOf(a, part.first)
	if a.Rest != nil { // the newest id is not told
		newest = max(newest, r.newest)
	}
	if newest < max(r.newest, r.next-1) || r.tooFar(p, part) {
		return r.wentBack()
	}
	r.renewed = false
	if len(p.Rows) == 0 {
		return r.noRecords(a, newest, part, group)
	}
	r.newest, r.looked, r.refused = newest, true, 0
	r.more = a.Rest != nil && a.Info&kmp.RecordsEnd == 0
	r.noteRows(p)
	lowest := int64(p.Rows[len(p.Rows)-1].ID)
	switch {
	case part.first == none:
		if r.next = lowest; r.want.Since.IsZero() {
			r.oldest = lowest
		}
	case part.rows == nil && r.suspects == nil && lowest > part.first:
		r.foundOldest(lowest)
	}
	part.first = lowest
	return r.join(part, p, group)
}

// logTime is a moment as the clock of a meter at home in zone shows it, within the years
// that a request can say.
func logTime(t time.Time, zone *time.Location) kmp.LogTime {
	if t.Year() < 2000 {
		return kmp.LogTime{Date: kmp.Date{Year: 2000, Month: 1, Day: 1}}
	}
	t = StandardTime(t, zone)
	return kmp.LogTime{
		Date:  kmp.Date{Year: min(t.Year(), 2099), Month: int(t.Month()), Day: t.Day()},
		Clock: kmp.Clock{Hour: t.Hour(), Minute: t.Minute(), Second: t.Second()},
	}
}

// pageOf returns the rows of an answer as the logger command has them, newest first, with
// ids counted on from the one that was asked for, and the newest id. Where it is not
// told, that is the last one of the rows. Rows behind a hole are left out.
func pageOf(a kmp.LogRecords, from int64) (p kmp.LogPage, newest int64) {
	if from == none && len(a.Rows) > 0 {
		from = int64(a.Rows[0].ID)
	}
	next := from
	for i, row := range a.Rows {
		id := from + int64(uint16(row.ID)-uint16(from))
		if i > 0 && id != next {
			break
		}
		row.ID = uint32(id)
		p.Rows = append(p.Rows, row)
		next = id + 1
	}
	slices.Reverse(p.Rows)
	switch {
	case a.Rest != nil:
		newest = next - 1
	case from == none:
		newest = int64(a.Newest)
	default: // it may be before the one that was asked for
		newest = max(from-1+int64(int16(a.Newest-uint16(from-1))), none)
	}
	if len(p.Rows) > 0 {
		p.First = p.Rows[0].ID
		newest = max(newest, int64(p.First))
	}
	p.Newest = uint32(max(newest, 0))
	return p, newest
}

// tooFar reports whether the first row is further from the last one known than there can
// be rows in the time between them: ids of 16 bits that began anew look like that.
func (r *Reader) tooFar(p kmp.LogPage, part *page) bool {
	if len(p.Rows) == 0 || part.first != r.next || r.last.Time.IsZero() {
		return false
	}
	lowest := p.Rows[len(p.Rows)-1]
	at, _ := r.timeOf(lowest.Registers)
	const spare = 24 // clocks are set
	return !at.IsZero() && int64(lowest.ID)-r.next > r.rowsSince(r.last.Time, at)+spare
}

// noRecords takes in an answer without records.
func (r *Reader) noRecords(a kmp.LogRecords, newest int64, part *page, group []uint16) error {
	r.refused++
	switch {
	case part.first == none:
		// There are none so new. Or the module takes the time the other way round: the
		// document shows both.
		if r.turned++; r.turned < 2 {
			return nil
		}
		r.turned = 0
		return ErrEnd
	case newest < part.first && part.rows == nil:
		r.newest, r.looked, r.more, r.suspects = newest, true, false, nil
		return nil
	case a.Info&kmp.RecordsMaxLength != 0 && r.fit.damaged(group, 1):
		return nil
	case a.Info == 0 && (part.rows != nil || len(part.left) > len(group)): // the log has none of the group
		r.absent = append(r.absent, group...)
		r.choose()
		r.part = part
		if part.left = part.left[len(group):]; len(part.left) > 0 {
			return nil
		}
		return r.whole(part, 0)
	}
	r.part, r.suspects = nil, nil
	if r.refused <= patience {
		return nil
	}
	return r.wrap(fmt.Errorf("no records, though there are some: %s", a.Info))
}

// doubtModule is doubt for a module: the meter that it is in answers at its own address.
func (r *Reader) doubtModule(ctx context.Context, silence error) error {
	if _, err := r.src.Conn.GetSerialNo(ctx, kmp.HeatMeter); ctx.Err() != nil {
		return r.wrap(err)
	} else if err != nil {
		return r.wrap(silence)
	}
	_, err := r.src.Conn.EventStatus(ctx, r.src.Address)
	switch {
	case err == nil:
		return r.wrap(silence)
	case errors.Is(err, kmp.ErrNoReply) && ctx.Err() == nil:
		return fmt.Errorf("%w: %w", ErrNoLogs, silence)
	}
	return r.wrap(err)
}
