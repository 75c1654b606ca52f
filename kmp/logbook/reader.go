package logbook

import (
	"context"
	"io"

	"kmp2mqtt/kmp"
)

// Reader reads a range of a meter's log from its oldest row up. It keeps what it has
// learned of the log, so it is worth keeping: after [io.EOF], Next looks for new rows.
// It is not for use by several goroutines at once.
type Reader struct {
	src            Source
	log            kmp.LogType
	want           Range
	config         *kmp.LogConfig
	newest, oldest int64 // ids; none when not known
	lost           []idRun
	next           int64
	looked         bool
}

// none is no id.
const none = -1

// idRun are the ids from the first to the last.
type idRun struct{ from, to uint32 }

// NewReader returns a reader of the rows in a range of a meter's log. It sends nothing
// yet.
func NewReader(src Source, log kmp.LogType, r Range) *Reader {
	n := &Reader{src: src, log: log, want: r, newest: none, oldest: none, next: none}
	if r.Known {
		n.next = int64(r.After) + 1
	}
	return n
}

// Retarget lets the reader go on over another connection: the line was opened again.
func (r *Reader) Retarget(conn *kmp.Conn) { r.src.Conn = conn }

// Config returns the log's configuration, if it was asked for: that is so when all
// registers are wanted, and where the meter refused some.
func (r *Reader) Config() (kmp.LogConfig, bool) {
	if r.config == nil {
		return kmp.LogConfig{}, false
	}
	return *r.config, true
}

// Newest returns the id of the newest row of the log when last heard of.
func (r *Reader) Newest() (uint32, bool) { return id(r.newest) }

// Oldest returns the id of the oldest row of the log when last heard of.
func (r *Reader) Oldest() (uint32, bool) { return id(r.oldest) }

func id(n int64) (uint32, bool) { return uint32(max(n, 0)), n != none }

// Lost returns the next run of rows that were wanted and that the log no longer had when
// they were to be read: they lie before the rows of the last Next. Each run is told once.
func (r *Reader) Lost() (from, to uint32, ok bool) {
	if len(r.lost) == 0 {
		return 0, 0, false
	}
	run := r.lost[0]
	r.lost = r.lost[1:]
	return run.from, run.to, true
}

// Next sends one request, which the connection may repeat once, and returns the rows
// that can be delivered then: ascending, without holes and continuing those of the Next
// before, but for what Lost tells. There may be none yet: the end is [io.EOF], when the
// newest row of the log was delivered or the range is over. Called again after that, it
// looks for new rows.
//
// Only a meter that never answered a logger command and is silent costs more: up to two
// more requests, to tell a meter without logs ([ErrNoLogs]) from one that is not there.
//
// Errors are those of [kmp.Conn.Do], [ErrNoLogs], [ErrRestarted], [ErrUnsteady] and
// *[InfoError]. After any of them, and when ctx ended, Next may be called again: it
// goes on where it was, skips nothing and delivers nothing twice.
func (r *Reader) Next(ctx context.Context) ([]Row, error) {
	ids := []uint16{regDate, regClock}
	ids = append(ids, r.want.Registers[:min(len(r.want.Registers), kmp.MaxRegisters-len(ids))]...)
	var page kmp.LogPage
	var err error
	switch {
	case !r.looked:
		page, err = r.src.Conn.LogLast(ctx, r.src.Address, r.log, 0, 1, ids...)
	case r.next > r.newest:
		r.looked = false
		return nil, io.EOF
	default:
		page, err = r.src.Conn.LogByID(ctx, r.src.Address, r.log, uint32(r.next), 1, ids...)
	}
	if err != nil {
		return nil, err
	}
	r.newest = int64(page.Newest)
	if !r.looked {
		r.looked = true
		if r.next == none {
			r.next = r.newest
		}
		return nil, nil
	}
	var rows []Row
	for _, row := range page.Rows {
		t, _ := timeOf(row.Registers, r.src.Zone, false)
		rows = append(rows, Row{Log: r.log, ID: row.ID, Time: t, Registers: row.Registers})
		r.next++
	}
	return rows, nil
}
