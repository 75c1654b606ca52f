package bridge

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"kmp2mqtt/bridge/numbers"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/logbook"
)

const (
	// feedConsumer is whose positions in the history the feed keeps.
	feedConsumer = "mqtt"
	// feedPage is how many rows of a meter are in memory at once.
	feedPage = 64
	// feedTurns is how many meters have a row on its way at once; the other half of the
	// window is for what happens now.
	feedTurns = maxInFlight / 2
	// feedPause is how long a history that fails is left alone.
	feedPause = 10 * time.Second
	// maxReplays is how many ranges wait to be published again, over all meters.
	maxReplays = 16
)

// feedLogs are the logs that are published, those that reach back farther first.
var feedLogs = [...]kmp.LogType{kmp.LogYear, kmp.LogMonth, kmp.LogDay, kmp.LogHour, kmp.LogMinute, kmp.LogMinute2}

var (
	errReplays     = errors.New("bridge: too many ranges wait to be published again; try later")
	errFeedNobody  = errors.New("bridge: the rows of this meter are not published")
	errFeedStopped = errors.New("bridge: stopped before the range was published")
)

// rowStore is what the feed needs of the history.
type rowStore interface {
	After(serial string, log kmp.LogType, id int64, most int) ([]logbook.Row, error)
	Position(consumer, serial string, log kmp.LogType) (id uint32, ok bool, err error)
	SetPosition(consumer, serial string, log kmp.LogType, id uint32) error
}

// feed publishes the rows of the history, each once the broker has acknowledged the one
// before and that is written down: a crash repeats one row at most, and nothing is left out.
//
// The meters are served side by side, of each one row at a time; its logs one after the other.
// A range that is to be published again goes as a whole, ahead of the rows that are new. The
// feed waits for the broker in the outbox: while there is none, it holds a page of rows of a
// few meters and nothing else.
type feed struct {
	store  rowStore
	put    func(...Message)
	topics topics
	log    *slog.Logger

	mu      sync.Mutex
	meters  map[string]*fedMeter // by serial number
	waiting []*fedMeter          // for a turn
	going   []*fedMeter          // have a turn and no row on its way
	turns   int                  // meters that have a turn
	replays int                  // over all meters
	failing int                  // meters whose rows the history does not give or take
	stopped bool
	wake    chan struct{} // holds a token when there may be something to do
}

// fedMeter is a meter in the feed. What stands behind the mutex belongs to whoever has its
// turn: run, or the acknowledgement of its row on its way.
type fedMeter struct {
	serial string

	// Under the feed's mutex.
	name    string // empty: nobody
	offsets map[string]kmp.Decimal
	replays []*replay
	busy    bool // it waits, has a turn or is left alone for a while
	again   bool // there may be more than when it was last looked
	failing bool

	page     []logbook.Row // still to be published; the first may be on its way
	replayed *replay       // what page is of; nil: new rows
	acked    bool          // the first of page is acknowledged, and that is not written down yet
	newFirst bool          // a replay has just ended: new rows before the next one
}

// replay is a range that is published again.
type replay struct {
	log          kmp.LogType
	since, until time.Time
	done         func(rows int, err error)
	rows         int // acknowledged; under the feed's mutex

	begun bool
	over  bool      // all of it has been read
	at    int64     // read so far; -1: nothing
	when  time.Time // of that row
	last  uint32    // the newest row that had been published when it began
}

// newFeed returns a feed of the rows in store. It publishes them with put below the topics t.
func newFeed(store rowStore, put func(...Message), t topics, log *slog.Logger) *feed {
	return &feed{store: store, put: put, topics: t, log: log, meters: make(map[string]*fedMeter), wake: make(chan struct{}, 1)}
}

// is says who a serial number is from now on: its rows are published below name, with offsets
// added to the numbers with those keys. With an empty name they are not published any more.
// Several may have one name: what is left of a meter that was exchanged is still published.
func (f *feed) is(serial, name string, offsets map[string]kmp.Decimal) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.meters[serial]
	if m == nil {
		if name == "" || f.stopped {
			return
		}
		m = &fedMeter{serial: serial}
		f.meters[serial] = m
	}
	if m.name == "" || name == "" {
		f.queue(m)
	}
	m.name, m.offsets = name, maps.Clone(offsets)
}

// rows says that the history has new rows of a meter.
func (f *feed) rows(serial string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := f.meters[serial]; m != nil {
		f.queue(m)
	}
}

// replay publishes again what was published of a log, in order: the rows from since (included)
// to until (not included), by their true time where that is known; one without a time counts
// as of the time of the row before it. A zero time is no bound. Rows that were not published
// yet come by themselves. done is called once, with the number of rows that were acknowledged;
// it must not block. With an error of replay it is not called.
func (f *feed) replay(serial string, log kmp.LogType, since, until time.Time, done func(rows int, err error)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.meters[serial]
	switch {
	case f.stopped:
		return errFeedStopped
	case m == nil || m.name == "":
		return errFeedNobody
	case f.replays >= maxReplays:
		return errReplays
	}
	f.replays++
	m.replays = append(m.replays, &replay{at: -1, log: log, since: since, until: until, done: done})
	f.queue(m)
	return nil
}

// queue has a meter looked at soon; f.mu is held.
func (f *feed) queue(m *fedMeter) {
	m.again = true
	if !m.busy {
		m.busy = true
		f.waiting = append(f.waiting, m)
	}
	f.signal()
}

func (f *feed) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// run publishes until ctx ends. What is on its way then may still be acknowledged, and is
// written down; nothing follows it.
func (f *feed) run(ctx context.Context) {
	defer f.stop()
	var failed []*fedMeter
	var retry <-chan time.Time
	for ctx.Err() == nil {
		if m := f.next(); m != nil {
			if err := f.serve(m); err != nil {
				f.fail(m, err)
				failed = append(failed, m)
			}
			if retry == nil && len(failed) > 0 {
				retry = time.After(feedPause)
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-f.wake:
		case <-retry:
			f.mu.Lock()
			f.waiting = append(f.waiting, failed...)
			f.mu.Unlock()
			failed, retry = nil, nil
		}
	}
}

// next is the meter to serve now, nil when there is none. It has a turn.
func (f *feed) next() *fedMeter {
	f.mu.Lock()
	defer f.mu.Unlock()
	var m *fedMeter
	switch {
	case len(f.going) > 0:
		m, f.going = f.going[0], f.going[1:]
	case len(f.waiting) > 0 && f.turns < feedTurns:
		m, f.waiting = f.waiting[0], f.waiting[1:]
		f.turns++
	}
	return m
}

// serve sends the next row of a meter, or ends its turn. With an error of the history it has
// done neither.
func (f *feed) serve(m *fedMeter) error {
	if m.acked {
		if err := f.settle(m); err != nil {
			return err
		}
	}
	f.mu.Lock()
	name, offsets := m.name, m.offsets
	f.mu.Unlock()
	if name != "" && len(m.page) == 0 {
		if err := f.load(m); err != nil {
			return err
		}
	}
	f.recovered(m)
	if name == "" || len(m.page) == 0 {
		f.rest(m)
		return nil
	}
	msg := historyMessage(f.topics, name, m.serial, m.page[0], offsets)
	msg.Acked = func() { f.acknowledged(m) }
	if err := checkMessage(msg); err != nil { // it must not stop those behind it
		f.log.Error("row of a meter's log cannot be published", "meter", name, "id", m.page[0].ID, "error", err)
		f.acknowledged(m)
		return nil
	}
	f.put(msg)
	return nil
}

// acknowledged hands a meter back whose row the broker has. The position is written here, so
// that the session's end waits for it.
func (f *feed) acknowledged(m *fedMeter) {
	m.acked = true
	_ = f.settle(m) // with an error serve tries again
	f.mu.Lock()
	defer f.mu.Unlock()
	if m.acked || len(m.page) > 0 {
		f.going = append(f.going, m)
	} else { // others may have theirs first
		f.turns--
		m.again = true
		f.waiting = append(f.waiting, m)
	}
	f.signal()
}

// settle notes that the first row of the page is acknowledged.
func (f *feed) settle(m *fedMeter) error {
	row := m.page[0]
	if m.replayed != nil {
		f.mu.Lock()
		m.replayed.rows++
		f.mu.Unlock()
		m.acked, m.page = false, m.page[1:]
		return nil
	}
	if err := f.store.SetPosition(feedConsumer, m.serial, row.Log, row.ID); err != nil {
		return err
	}
	rows, err := f.store.After(m.serial, row.Log, int64(row.ID)-1, 1)
	if err != nil {
		return err
	}
	if len(rows) == 0 || rows[0].ID != row.ID || !rows[0].Time.Equal(row.Time) {
		// The log began anew meanwhile: the page is of the one before, and the position belongs there.
		if err := f.store.SetPosition(feedConsumer, m.serial, row.Log, 0); err != nil {
			return err
		}
		m.acked, m.page = false, nil
		return nil
	}
	m.acked, m.page = false, m.page[1:]
	return nil
}

// rest ends a meter's turn: there is nothing of it to publish, or nobody to publish it for.
func (f *feed) rest(m *fedMeter) {
	f.mu.Lock()
	f.turns--
	m.busy = false
	var ends []func()
	switch {
	case m.name == "":
		ends = f.end(m, errFeedNobody)
		delete(f.meters, m.serial)
	case m.again || len(m.page) > 0 || len(m.replays) > 0:
		f.queue(m)
	}
	f.mu.Unlock()
	for _, end := range ends {
		end()
	}
}

// end gives up the replays of a meter. What it returns tells those who wanted them, and is to
// be called without f.mu, which is held here.
func (f *feed) end(m *fedMeter, err error) (ends []func()) {
	for _, r := range m.replays {
		rows := r.rows
		ends = append(ends, func() { r.done(rows, err) })
	}
	f.replays -= len(m.replays)
	m.replays = nil
	return ends
}

// load reads the page that is next: of a replay, or of the rows that are new. It is empty when
// there is none.
func (f *feed) load(m *fedMeter) error {
	f.mu.Lock()
	var r *replay
	if len(m.replays) > 0 && !m.newFirst {
		r = m.replays[0]
	} else {
		m.again = false
	}
	f.mu.Unlock()
	m.replayed, m.newFirst = r, false
	if r != nil {
		return f.loadReplay(m, r)
	}
	for _, log := range feedLogs {
		last, known, err := f.store.Position(feedConsumer, m.serial, log)
		if err != nil {
			return err
		}
		rows, err := f.store.After(m.serial, log, behind(last, known), feedPage)
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			m.page = rows
			return nil
		}
	}
	return nil
}

// behind is the id after which rows are new, when the position of a consumer is known, or is not:
// -1, as a log may begin with id 0.
func behind(position uint32, known bool) int64 {
	if !known {
		return -1
	}
	return int64(position)
}

// loadReplay reads the next page of a range, and ends the replay behind its last one.
func (f *feed) loadReplay(m *fedMeter, r *replay) error {
	if !r.begun {
		last, known, err := f.store.Position(feedConsumer, m.serial, r.log)
		if err != nil {
			return err
		}
		r.begun, r.over, r.last = true, !known, last
	}
	if !r.over {
		rows, err := f.store.After(m.serial, r.log, r.at, feedPage)
		if err != nil {
			return err
		}
		r.over = len(rows) < feedPage
		for _, row := range rows {
			if row.ID > r.last {
				r.over = true
				break
			}
			if r.at = int64(row.ID); r.covers(row) {
				m.page = append(m.page, row)
			}
		}
	}
	if len(m.page) > 0 || !r.over {
		return nil
	}
	m.newFirst = true
	f.mu.Lock()
	m.replays = m.replays[1:]
	f.replays--
	f.mu.Unlock()
	r.done(r.rows, nil)
	return nil
}

// covers says whether the next row is in the range.
func (r *replay) covers(row logbook.Row) bool {
	if !row.Time.IsZero() {
		r.when = row.Time
		if row.Corrected {
			r.when = r.when.Add(row.Correction)
		}
	}
	return (r.since.IsZero() || !r.when.Before(r.since)) && (r.until.IsZero() || r.when.Before(r.until))
}

// fail leaves a meter alone for a while. An outage is told once, however many meters it hits.
func (f *feed) fail(m *fedMeter, err error) {
	if m.acked { // the others are read again: all meters may fail
		m.page = slices.Clone(m.page[:1])
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turns--
	if m.failing {
		return
	}
	m.failing = true
	if f.failing++; f.failing == 1 {
		f.log.Error("cannot publish the rows of the meters' logs; trying again", "serial", m.serial, "error", err)
	}
}

// recovered notes that the history gives and takes a meter's rows.
func (f *feed) recovered(m *fedMeter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !m.failing {
		return
	}
	m.failing = false
	if f.failing--; f.failing == 0 {
		f.log.Info("the rows of the meters' logs are published again")
	}
}

// stop ends all replays.
func (f *feed) stop() {
	f.mu.Lock()
	f.stopped = true
	var ends []func()
	for _, m := range f.meters {
		ends = append(ends, f.end(m, errFeedStopped)...)
	}
	f.mu.Unlock()
	for _, end := range ends {
		end()
	}
}

// historyMessage is what a row of a meter's log becomes: a [logbook.AppendJSON] object, with
// offsets added to the numbers with those keys.
func historyMessage(t topics, meter, serial string, row logbook.Row, offsets map[string]kmp.Decimal) Message {
	row.Registers = raisedRegisters(row.Registers, offsets)
	payload := logbook.AppendJSON(nil, logbook.Origin{Serial: serial}, row)
	return Message{Topic: t.meter(meter, "history"), Payload: payload, Rank: RankHistory}
}

// raisedRegisters are registers with the offsets of their keys.
func raisedRegisters(registers []kmp.Register, offsets map[string]kmp.Decimal) []kmp.Register {
	if len(offsets) == 0 {
		return registers
	}
	registers = slices.Clone(registers)
	for i, r := range registers {
		v, err := numbers.Decode(r)
		if _, ok := offsets[v.Key]; !ok || err != nil {
			continue
		}
		registers[i].Raw = nil // unknown, unless the sum can be said
		if sum, isNumber := raised(v, offsets).(kmp.Decimal); isNumber {
			if sum, err := kmp.NewRegister(r.ID, r.Unit, sum, 0); err == nil {
				registers[i] = sum
			}
		}
	}
	return registers
}

// raised is a value with the offset of its key.
func raised(v numbers.Value, offsets map[string]kmp.Decimal) kmp.Value {
	n, isNumber := v.Value.(kmp.Decimal)
	offset, ok := offsets[v.Key]
	if !ok || !isNumber {
		return v.Value
	}
	sum, err := n.Add(offset)
	if err != nil {
		return nil
	}
	return sum
}
