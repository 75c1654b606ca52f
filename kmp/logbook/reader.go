package logbook

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"kmp2mqtt/kmp"
)

// Reader reads a range of a meter's log from its oldest row up. It keeps what it has
// learned of the log, so it is worth keeping: after [ErrEnd], Next looks for new rows.
// It is not for use by several goroutines at once.
type Reader struct {
	src  Source
	log  kmp.LogType
	want Range

	// What was learned of the log.
	config         *kmp.LogConfig
	newest, oldest int64 // ids; none when not known
	newestTime     time.Time
	step           time.Duration // from row to row at least; 0: not known
	stepSeen       bool          // it is what was seen between two rows
	asked          []uint16      // the registers to ask for: what holds the time, then what is wanted
	times          int           // how many of them are not wanted themselves
	absent         []uint16      // registers that the log does not have
	dateTime       bool          // register 348 was among those that came
	allTimes       bool          // not in all rows, though: ask for all that holds the time
	mixed          bool          // there are rows without any register of the configuration
	fit            fit
	answered       bool // the meter has answered a logger command
	came           bool // with rows
	picky          bool // it has refused a request for what it does not have

	// Where the reading is.
	next     int64   // id of the row to be delivered next; none while that is searched for
	last     Row     // the row before; its registers only when it was delivered
	held     []Row   // rows that wait for the ones before them, ascending
	beyond   []Row   // not before Until: delivered if a row before it follows
	inside   bool    // the first row not before Since was met
	count    int     // rows delivered
	over     bool    // the last row wanted was delivered
	looked   bool    // newest is what the meter said since the last ErrEnd
	search   search  // for the first row, or the oldest
	part     *page   // some registers of it are yet to be read
	suspects [][]Row // the same rows, which look wrong and are read again
	renewed  bool    // the newest id went back, once
	more     bool    // there may be newer rows in the module than newest
	turned   int     // how often in a row a module had no rows since a time
	refused  int     // answers in a row without the rows asked for
	lost     []idRun // not told yet
}

// none is no id.
const none = -1

// idRun are the ids from the first to the last.
type idRun struct{ from, to uint32 }

// NewReader returns a reader of the rows in a range of a meter's log. It sends nothing
// yet.
func NewReader(src Source, log kmp.LogType, r Range) *Reader {
	n := &Reader{src: src, log: log, want: r, newest: none, oldest: none, next: none, step: nominal(log), fit: newFit()}
	n.want.Registers = slices.Clone(r.Registers)
	if r.Known {
		n.next = int64(r.After) + 1
		n.last = Row{Log: log, ID: r.After, Time: r.AfterTime}
	}
	if n.inModule() {
		n.absent = []uint16{regDateTime} // younger than they are
	}
	n.choose()
	return n
}

// Again returns a reader of another range of the same log, which begins with what this
// one has learned of it: it asks for what the log has alone, as much as fits at once.
func (r *Reader) Again(w Range) *Reader {
	n := NewReader(r.src, r.log, w)
	n.config, n.absent, n.step, n.stepSeen = r.config, slices.Clone(r.absent), r.step, r.stepSeen
	n.dateTime, n.allTimes, n.mixed, n.picky = r.dateTime, r.allTimes, r.mixed, r.picky
	n.answered, n.came, n.fit = r.answered, r.came, r.fit
	n.fit.width = maps.Clone(r.fit.width)
	n.choose()
	return n
}

// Retarget lets the reader go on over another connection: the line was opened again.
func (r *Reader) Retarget(conn *kmp.Conn) { r.src.Conn = conn }

// Config returns the log's configuration, if it was asked for: that is so when all
// registers are wanted, and where the meter did not like a request.
func (r *Reader) Config() (kmp.LogConfig, bool) {
	if r.config == nil {
		return kmp.LogConfig{}, false
	}
	c := *r.config
	c.Registers = slices.Clone(c.Registers)
	return c, true
}

// Newest returns the id of the newest row of the log when last heard of.
func (r *Reader) Newest() (id uint32, ok bool) { return known(r.newest) }

// Oldest returns the id of the oldest row of the log when last heard of, which is not in
// every reading.
func (r *Reader) Oldest() (id uint32, ok bool) { return known(r.oldest) }

func known(id int64) (uint32, bool) { return uint32(max(id, 0)), id != none }

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

// Next sends one request, which the connection may repeat, and returns the rows that can
// be delivered then: ascending, without holes and continuing those of the Next before,
// but for what Lost tells. There may be none yet: the end is [ErrEnd], when every row up
// to the newest one known was delivered, or the range is over. Called again after that,
// it looks for new rows. An answer is not longer than 9 s at 1200 baud.
//
// Only silence of a meter that never answered a logger command costs more: up to two
// more requests, to tell a meter without this log ([ErrNoLogs]) from one that is not
// there.
//
// Rows whose time does not go up, or in which a counter falls, are read again, up to
// three times: what comes twice is the truth, and delivered.
//
// Errors are those of [kmp.Conn.Do], [ErrNoLogs], [ErrRestarted], [ErrUnsteady] and
// *[InfoError]. A damaged answer is none as long as less can be asked for. After any
// error, and when ctx ended, Next may be called again: it goes on where it was, skips
// nothing and delivers nothing twice.
func (r *Reader) Next(ctx context.Context) ([]Row, error) {
	var err error
	switch {
	case r.over:
		return nil, ErrEnd
	case r.inModule():
		err = r.nextRecords(ctx)
	case r.config == nil && (r.want.Registers == nil || r.picky):
		err = r.configure(ctx)
	case r.part != nil:
		err = r.complete(ctx)
	case r.suspects != nil:
		rows := r.suspects[len(r.suspects)-1]
		err = r.read(ctx, int64(rows[len(rows)-1].ID), len(rows))
	case r.search.bottom:
		err = r.findOldest(ctx)
	case !r.looked:
		err = r.look(ctx)
	case r.next == none:
		err = r.find(ctx)
	case r.next > r.newest:
		r.looked = false
		return nil, ErrEnd
	default:
		from, rows := r.gap()
		err = r.read(ctx, from, rows)
	}
	if err != nil {
		return nil, err
	}
	return r.deliver(), nil
}

// request is one request for rows: the newest ones, from a number of rows before the
// newest on, or those from an id on; always towards older ones.
type request struct {
	last   bool
	offset uint16
	from   int64
	rows   int
	ids    []uint16
}

// send sends a request for rows. Without an error, ok is false when no answer is of use
// and there is something else to ask. The page may have no rows.
func (r *Reader) send(ctx context.Context, q request) (p kmp.LogPage, ok bool, err error) {
	rows := uint16(min(q.rows, 0xFFFF))
	if q.last {
		p, err = r.src.Conn.LogLast(ctx, r.src.Address, r.log, q.offset, rows, q.ids...)
	} else {
		p, err = r.src.Conn.LogByID(ctx, r.src.Address, r.log, uint32(q.from), rows, q.ids...)
	}
	if err != nil {
		return p, false, r.failed(ctx, q, err)
	}
	r.answered = true
	if p.Info&kmp.LogEmpty != 0 {
		r.looked, r.part, r.suspects = false, nil, nil
		return p, false, ErrEnd
	}
	if int64(p.Newest) < max(r.newest, r.next-1) {
		return p, false, r.wentBack()
	}
	r.renewed = false
	r.newest = int64(p.Newest)
	if len(p.Rows) == 0 {
		return p, !r.refuses(p.Info), nil
	}
	r.noteRows(p)
	if p.Info&kmp.LogMore != 0 && len(p.Rows) < q.rows {
		r.fit.cut(q.ids, len(p.Rows))
	}
	return p, true, nil
}

// noteRows learns from what came.
func (r *Reader) noteRows(p kmp.LogPage) {
	r.came = true
	if !r.dateTime && find(p.Rows[0].Registers, regDateTime) != nil {
		r.dateTime = true
		r.choose()
	}
	r.fit.came(p.Rows[0].Registers)
	r.learnStep(p.Rows)
	if p.First == p.Newest {
		if t, _ := r.timeOf(p.Rows[0].Registers); !t.IsZero() {
			r.newestTime = t
		}
	}
}

// failed says what becomes of a request without an answer.
func (r *Reader) failed(ctx context.Context, q request, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		r.fit.damaged(q.ids, q.rows) // less may be in time
	case ctx.Err() != nil:
	case errors.Is(err, kmp.ErrCodec) && !errors.Is(err, kmp.ErrNoFrame) && r.fit.damaged(q.ids, q.rows):
		return nil
	case errors.Is(err, kmp.ErrNoReply) && !r.answered:
		return r.doubt(ctx, err)
	case errors.Is(err, kmp.ErrNoReply) && !r.came:
		r.fit.damaged(q.ids, q.rows) // it may be too much for a meter that has the log
	}
	return r.wrap(err)
}

func (r *Reader) wrap(err error) error { return fmt.Errorf("logbook: %s log: %w", r.log, err) }

// doubt finds out what the silence of a meter means that has answered no logger command
// yet: that it is not there, has no such log, or did not like the request.
func (r *Reader) doubt(ctx context.Context, silence error) error {
	if r.inModule() {
		return r.doubtModule(ctx, silence)
	}
	if _, err := r.src.Conn.GetSerialNo(ctx, r.src.Address); ctx.Err() != nil {
		return r.wrap(err)
	} else if err != nil {
		return r.wrap(silence)
	}
	config, err := r.src.Conn.LogConfig(ctx, r.src.Address, r.log)
	switch {
	case err == nil:
		r.configured(config)
		return nil
	case errors.Is(err, kmp.ErrNoReply) && ctx.Err() == nil:
		return fmt.Errorf("%w: %w", ErrNoLogs, silence)
	}
	return r.wrap(err)
}

// configure asks which registers the log has.
func (r *Reader) configure(ctx context.Context) error {
	config, err := r.src.Conn.LogConfig(ctx, r.src.Address, r.log)
	switch {
	case err == nil:
		r.configured(config)
		return nil
	case errors.Is(err, kmp.ErrNoReply) && !r.answered && ctx.Err() == nil:
		return r.doubt(ctx, err)
	}
	return r.wrap(err)
}

func (r *Reader) configured(config kmp.LogConfig) {
	r.answered, r.config = true, &config
	r.part = nil
	r.choose()
}

// wentBack takes in that the newest row has a lower id than one known before. It takes
// two answers that say so: one may be an old answer that came late.
func (r *Reader) wentBack() error {
	r.looked, r.part, r.suspects = false, nil, nil
	if r.renewed {
		r.renewed = false
		return ErrRestarted
	}
	r.renewed = true
	return nil
}

// patience is how many answers in a row may be without the rows asked for.
const patience = 3

// refuses takes in that a meter refuses to answer for registers that are not in the log,
// if it does and that is new. Then only those are asked for that its configuration has.
func (r *Reader) refuses(info kmp.LogInfo) bool {
	if info&(kmp.LogUnsupported|kmp.LogInvalid) == 0 || r.picky && r.config != nil {
		return false
	}
	r.picky, r.part, r.suspects = true, nil, nil
	r.choose()
	return true
}

// other reports whether an answer without rows means that there are some, of another
// format than the configuration's, with none of the registers asked for.
func (r *Reader) other(p kmp.LogPage) bool {
	return len(p.Rows) == 0 && p.Info&kmp.LogUnsupported != 0 && p.Info&kmp.LogOutOfRange == 0
}

// noRows takes in an answer without rows.
func (r *Reader) noRows(q request, info kmp.LogInfo) error {
	r.part, r.suspects = nil, nil
	r.refused++
	switch {
	case info&kmp.LogOutOfRange == 0 && r.fit.damaged(q.ids, 1):
		return nil // a row with so many registers is too much for the meter's buffer
	case info&kmp.LogOutOfRange != 0 && r.refused <= patience:
		r.search = search{bottom: true}
		return nil
	}
	return &InfoError{Log: r.log, Info: info}
}

// choose sets what to ask for in each row. A date and a clock are not needed beside
// register 348, which is asked for in any case: the rows may be of several formats.
func (r *Reader) choose() {
	wanted := r.want.Registers
	switch {
	case wanted != nil:
	case r.inModule():
		wanted = moduleRegisters
	case r.config != nil:
		wanted = r.config.Registers
	}
	inLog := func(id uint16) bool { return r.config == nil || slices.Contains(r.config.Registers, id) }
	r.asked = nil
	ask := func(id uint16) {
		if !slices.Contains(r.asked, id) && !slices.Contains(r.absent, id) && (inLog(id) || isTime(id) && (r.mixed || !r.picky)) {
			r.asked = append(r.asked, id)
		}
	}
	ask(regDateTime)
	if r.allTimes || !r.dateTime && (r.config == nil || !inLog(regDateTime)) {
		ask(regDate)
		ask(regClock)
	}
	r.times = len(r.asked)
	for _, id := range wanted {
		if !isTime(id) {
			ask(id)
		}
	}
	if len(r.asked) == 0 { // something has to be
		r.asked, r.times = []uint16{regDate}, 1
		if r.config != nil && len(r.config.Registers) > 0 {
			r.asked = r.config.Registers[:1:1]
		}
	}
}

// group is the registers of the next request.
func (r *Reader) group(ids []uint16) []uint16 { return ids[:min(len(ids), r.fit.size)] }

// fits is how many rows fit into an answer, whichever of the registers it is for.
func (r *Reader) fits() int {
	n := math.MaxInt
	for left := r.asked; len(left) > 0; {
		group := r.group(left)
		n = min(n, r.fit.rows(group))
		left = left[len(group):]
	}
	return n
}

// gap returns the rows to be read next: as many as fit of those that come next and are
// not held already.
func (r *Reader) gap() (from int64, rows int) {
	top := r.newest
	if len(r.held) > 0 {
		top = int64(r.held[0].ID) - 1
	}
	n := min(top-r.next+1, int64(r.fits()))
	if r.want.Most > 0 && (r.inside || r.want.Since.IsZero()) {
		n = min(n, int64(r.want.Most-r.count))
	}
	n = max(min(n, r.untilRows()), 1)
	return r.next + n - 1, int(n)
}

// untilRows is how many rows there can be before Until and a little more.
func (r *Reader) untilRows() int64 {
	if r.want.Until.IsZero() || r.step == 0 {
		return math.MaxInt64
	}
	bound := r.want.Until.Add(margin)
	if last := r.last.Time; before(last, bound) {
		return r.rowsSince(last, bound)
	}
	if end := r.lastID(); r.next <= end {
		return end - r.next + 1 + r.rowsSince(r.want.Until, bound)
	}
	return math.MaxInt64
}

// lastID is the row at Until or one before it, whatever times the rows around it show: so
// many rows at most are between it and the newest.
func (r *Reader) lastID() int64 {
	if r.step == 0 {
		return 0
	}
	return r.newest - r.rowsSince(r.want.Until, r.newestBy())
}

// deliver takes from the rows held those that come next and are in the range.
func (r *Reader) deliver() (out []Row) {
	for len(r.held) > 0 && int64(r.held[0].ID) == r.next && !r.over {
		row := r.held[0]
		r.held = r.held[1:]
		r.next++
		r.last = row
		if !r.inside && before(row.Time, r.want.Since) {
			continue
		}
		r.inside = true
		if !r.want.Until.IsZero() && (len(r.beyond) > 0 && row.Time.IsZero() || !row.Time.Before(r.want.Until)) {
			r.beyond = append(r.beyond, row)
			r.over = !row.Time.Before(r.want.Until.Add(margin)) && r.next > r.lastID()
			continue
		}
		out = append(append(out, r.beyond...), row)
		r.beyond = nil
		if n := r.want.Most - r.count; r.want.Most > 0 && len(out) >= n {
			out, r.over = out[:n], true
		}
	}
	r.count += len(out)
	return out
}
