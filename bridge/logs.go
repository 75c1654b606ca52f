package bridge

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/logbook"
)

const (
	// logPages are read in one visit at most; between any two of them a live reading or
	// somebody's wish goes first.
	logPages = 8
	// A log that could not be read is tried again after logRetry, then twice as long each
	// time, up to logSlow. The rows wait in the meter.
	logRetry = time.Minute
	logSlow  = time.Hour
	// logDaily is how often the rows that nobody missed are read as well, so that what is kept
	// has no hole.
	logDaily = 24 * time.Hour
	// logSilences in a row mean that the meter has no log that could be read; after logSilent
	// one more is allowed, since all of them may have been chance.
	logSilences = 2
	logSilent   = 30 * 24 * time.Hour
	// logCounters are kept of each row: with date and time one request has room for them.
	logCounters = 6
	// logRides is how soon behind a reading a visit to the log wakes nobody up. Where a battery
	// counts there is no other.
	logRides = 10 * time.Second
	// wrongClock is how far a meter's clock may be off before its rows are corrected: less
	// moves no hour.
	wrongClock = time.Minute
	// clockSettles is when a clock that runs at another speed, as a simulated one may, shows it.
	clockSettles = 10 * time.Second
	// clockSurprise is by how much a clock is off that is looked at again before it counts, as
	// the wrong one may be ours: a computer without a clock of its own starts with the time at
	// which it stopped. After clockConfirms the network has told it the time, or never will.
	clockSurprise = 15 * time.Minute
	clockConfirms = 5 * time.Minute
)

var (
	errNoRows    = errors.New("bridge: the log brings no rows")
	errUnsettled = errors.New("bridge: the clocks differ more than they did; they are compared again before the log is read")
)

// logRecord is what is remembered of a meter's logs beside their rows.
type logRecord struct {
	Silent int       `json:"silent,omitempty"` // visits in a row that the log did not answer
	Wanted bool      `json:"wanted,omitempty"` // its newest row is to be reached
	Looked time.Time `json:"looked,omitzero"`  // when it was last
	Owed   *owed     `json:"owed,omitempty"`   // what the hour log has no more
	Drift  *int64    `json:"drift_s,omitempty"`

	// Restarted is when a log began anew, by its name.
	Restarted map[string]time.Time `json:"restarted,omitempty"`
}

// owed is a time of which the hour log has lost its rows; the day log may have them.
type owed struct {
	Since time.Time `json:"since,omitzero"` // zero: the beginning
	Until time.Time `json:"until"`
}

// logVisits is what a poller is about to read of a meter's logs. Only the poller's goroutine
// touches it.
type logVisits struct {
	serial   uint32    // whose logs
	due      time.Time // of the next visit; zero: with a reading, or none is wanted
	retry    time.Time // after a failure: not before
	reader   *logbook.Reader
	hours    *logbook.Reader // of the visits before: it knows what the hour log is like
	conn     *kmp.Conn       // of reader
	log      kmp.LogType
	before   time.Time // the newest row that is kept; zero: none
	fresh    bool      // reader has brought nothing yet
	lost     bool      // the log no longer has rows that were missed, before those that come next
	looked   bool      // in this run
	brought  bool      // the visit has brought rows
	failures int
	failing  bool                 // the store does not take rows
	clock    logbook.ClockReading // the newest; At zero: none yet
	since    logbook.ClockReading // the one that clock is compared with
	speed    float64              // seconds of the meter's clock in one; 0: not known
	doubt    logbook.ClockReading // the first one that was a surprise; At zero: none was
}

// believe reports whether a drift of the meter's clock may count, which was drift before, nil if
// that is not known.
func (v *logVisits) believe(c logbook.ClockReading, drift *int64) bool {
	near := func(other time.Duration) bool { return (c.Drift - other).Abs() < clockSurprise }
	asBefore := drift != nil && (c.Drift-time.Duration(*drift)*time.Second).Abs() < wrongClock
	switch {
	case v.speed == 0 && c.Drift.Abs() >= wrongClock && !asBefore && near(0): // it may be one that runs fast
		v.doubt = c
		return false
	case near(0), v.rate() != 1, drift != nil && near(time.Duration(*drift)*time.Second),
		near(v.doubt.Drift) && !v.doubt.At.IsZero() && c.At.Sub(v.doubt.At) >= clockConfirms:
		v.doubt = logbook.ClockReading{}
		return true
	case v.doubt.At.IsZero() || !near(v.doubt.Drift):
		v.doubt = c
	}
	return false
}

// again is when a clock that is not believed yet is looked at again: soon, as it may be a
// simulated one, then when it may be believed.
func (v *logVisits) again(now time.Time) time.Time {
	if soon := v.doubt.At.Add(clockSettles + time.Second); soon.After(now) { // to be sure that it shows by then
		return soon
	}
	return later(v.doubt.At.Add(clockConfirms), now.Add(clockSettles))
}

// note takes a look at the meter's clock into account. Only a simulated clock runs faster than
// time; one that runs as time does and is far from where it was has been set.
func (v *logVisits) note(c logbook.ClockReading) {
	v.clock = c
	passed := c.At.Sub(v.since.At)
	switch {
	case v.since.At.IsZero():
		v.since = c
	case passed >= clockSettles && v.speed != 1:
		if v.speed = float64(c.Meter.Sub(v.since.Meter)) / float64(passed); v.speed < 1.5 {
			v.speed = 1
		}
		v.since = c
	}
}

// rate is how fast the meter's clock runs, as far as that is known.
func (v *logVisits) rate() float64 { return max(1, v.speed) }

// correct notes in rows by how much the meter's clock was off, when that is known.
func (v *logVisits) correct(rows []logbook.Row) {
	if v.clock.At.IsZero() || v.rate() != 1 {
		return
	}
	c := v.clock
	if c.Drift.Abs() < wrongClock {
		c.Drift = 0
	}
	c.Correct(rows)
}

// nextRow is when the log has a row more than is kept: an hour after the newest by the
// meter's clock.
func (v *logVisits) nextRow() time.Time {
	if v.clock.At.IsZero() {
		return v.before.Add(time.Hour)
	}
	return v.clock.At.Add(time.Duration(float64(v.before.Add(time.Hour).Sub(v.clock.Meter)) / v.rate()))
}

// logSource says where the meter's logs are read; false: they are not, or nowhere.
func (p *poller) logSource(d *device) (kmp.Address, bool) {
	silent := d.record.Logs.Silent >= logSilences && time.Since(d.record.Logs.Looked).Abs() < logSilent
	if p.history == nil || d.cfg.History == HistoryOff || silent {
		return 0, false
	}
	model, known := catalog.ModelByName(cmp.Or(d.cfg.Model, d.record.Profile.Model))
	switch {
	case model.Logs == catalog.LogsInModule:
		return kmp.LoggerTop, true
	case model.Logs == catalog.LogsInMeter, d.cfg.History != "": // somebody wants it
		return d.cfg.Address, true
	}
	// Most heat meters do not tell their model, and asking costs little; a water meter
	// may close its port for it.
	return d.cfg.Address, !known && d.model().Family == catalog.Heat
}

// logRegisters are the counters that are kept of each hour.
func (d *device) logRegisters() []uint16 {
	counters := func(ids []uint16) (list []uint16) {
		for _, id := range ids {
			r := catalog.Lookup(id)
			amount := r.Unit != "h" && r.Unit != "number" // neither hours nor events
			if r.Kind == catalog.Counter && amount && len(list) < logCounters {
				list = append(list, id)
			}
		}
		return list
	}
	if list := counters(d.usual()); len(list) > 0 {
		return list
	}
	return counters(usualRegisters(d.model().Name))
}

// wantLogs has the meter's log read when a good reading shows that there is reason to. last
// is when the reading before it was.
func (p *poller) wantLogs(d *device, now, last time.Time) {
	v := &d.logs
	if v.serial != d.serial {
		*v = logVisits{serial: d.serial}
	}
	if _, ok := p.logSource(d); !ok || now.Before(v.retry) {
		return
	}
	if d.record.Logs.Wanted { // there is more
		v.due = now
		return
	}
	if v.before.IsZero() {
		newest, _, err := p.history.Last(d.record.Profile.Serial, kmp.LogHour)
		if err != nil {
			_ = p.logsFailed(d, err)
			return
		}
		v.before, d.status.kept = newest.Time, newest.Time // zero when there is none
	}
	if v.before.IsZero() && !v.looked || d.logsWanted(now, last) {
		v.due, d.record.Logs.Wanted = now, true
	}
}

// logsWanted decides by the clock whether a look at the log is worth its requests.
func (d *device) logsWanted(now, last time.Time) bool {
	v := &d.logs
	if d.cfg.History == HistoryHour && v.looked && v.speed == 0 && !v.clock.At.IsZero() {
		return now.Sub(v.clock.At) >= clockSettles
	}
	passed := time.Duration(float64(now.Sub(d.record.Logs.Looked).Abs()) * v.rate())
	if v.looked && v.before.IsZero() && passed < time.Hour { // an empty log
		return false
	}
	daily := now.Sub(d.record.Logs.Looked).Abs() >= logDaily // our own clock may have been ahead
	if v.looked && !daily && now.Before(v.nextRow()) {       // before that the meter's clock is not known: it may be years ahead
		return false
	}
	missed := time.Duration(float64(now.Sub(last)) * v.rate())
	return d.cfg.History == HistoryHour || d.record.Logs.Owed != nil || daily ||
		missed >= max(time.Hour, time.Duration(float64(d.cfg.Interval)*v.rate()*3/2))
}

// logsDue reports whether the meter's log is to be read on, and when.
func (d *device) logsDue() (time.Time, bool) {
	return d.logs.due, !d.logs.due.IsZero() && d.status.online && d.failures == 0
}

// readLogs visits the meter's log.
func (p *poller) readLogs(ctx context.Context, d *device) {
	v := &d.logs
	ended := false
	var fault error
	err := p.contact(ctx, d, errand{log: true}, func(ctx context.Context) error {
		if err := p.ascertain(ctx, d); err != nil {
			return err
		}
		ended, fault = p.readPages(ctx, d)
		if _, ofLine := errors.AsType[*kmp.ExchangeError](fault); ofLine || ctx.Err() != nil {
			return fault
		}
		return nil // what the log holds, and whether it can be stored, says nothing of the line
	})
	if err == nil {
		err = fault
	}
	now := time.Now()
	switch {
	case ctx.Err() != nil:
		return
	case v.serial != d.serial: // another meter answers
		*v = logVisits{serial: d.serial}
	case errors.Is(err, errUnsettled):
		v.retry = v.again(now)
		v.due = v.retry
		p.log.Debug("the log is not read yet", "meter", d.status.meter.Name, "drift", v.doubt.Drift.String(), "error", err)
	case err != nil:
		v.failures++
		v.retry = now.Add(backOff(v.failures, logRetry, logSlow))
		v.due = v.retry
		p.log.Debug("reading the log interrupted", "meter", d.status.meter.Name, "log", v.log.String(), "error", err)
	case ended:
		v.failures, v.due = 0, time.Time{}
	default:
		v.failures, v.due = 0, now
	}
	if d.budget(p.started).PerDay > 0 { // the rest waits for the next reading, so that it takes none of them
		v.due = time.Time{}
	}
	p.save(d)
	p.publish(d)
}

// readPages reads on in the log, page by page, until it ends or something else is due. A visit
// without any rows is an error: it would not end if a meter went on like that.
func (p *poller) readPages(ctx context.Context, d *device) (ended bool, err error) {
	v := &d.logs
	v.brought = false
	for page := range logPages {
		if page > 0 && p.busy() {
			return false, nil
		}
		if v.reader == nil {
			if err := p.beginLog(ctx, d); err != nil {
				return false, err
			}
		}
		if v.conn != p.conn {
			v.reader.Retarget(p.conn)
			v.conn = p.conn
		}
		rows, err := v.reader.Next(ctx)
		for _, _, lost := v.reader.Lost(); lost; _, _, lost = v.reader.Lost() {
			v.lost = true
		}
		switch {
		case errors.Is(err, logbook.ErrEnd):
			if p.endLog(d); v.reader == nil {
				return true, nil
			}
		case errors.Is(err, logbook.ErrNoLogs):
			p.noLog(d, err)
			return true, nil
		case errors.Is(err, logbook.ErrRestarted):
			if err := p.restartLog(d, err); err != nil {
				return false, err
			}
		case err != nil:
			return false, err
		default:
			if err := p.keepRows(d, rows); err != nil {
				return false, err
			}
		}
	}
	if !v.brought {
		return false, errNoRows
	}
	return false, nil
}

// restartLog begins a log anew that the meter has erased. That is not believed twice a day: what
// is kept would grow without end.
func (p *poller) restartLog(d *device, restarted error) error {
	v, record := &d.logs, &d.record.Logs
	v.reader = nil
	now, log := time.Now(), v.log.String()
	if last, once := record.Restarted[log]; once && now.Sub(last).Abs() < logDaily {
		return restarted
	}
	p.log.Warn("the meter's log has begun anew; what was read before is kept", "meter", d.status.meter.Name, "log", log)
	if err := p.history.Restart(d.record.Profile.Serial, v.log); err != nil {
		return p.logsFailed(d, err)
	}
	if record.Restarted == nil {
		record.Restarted = make(map[string]time.Time)
	}
	record.Restarted[log] = now
	return nil
}

// busy reports whether something waits for the line that goes before reading a log.
func (p *poller) busy() bool {
	now := time.Now()
	return p.wishes.any() || slices.ContainsFunc(p.devices, func(d *device) bool { return !d.due.After(now) })
}

// beginLog looks at the meter's clock and begins to read the hour log where it ended last.
func (p *poller) beginLog(ctx context.Context, d *device) error {
	v := &d.logs
	clock, err := logbook.Clock(ctx, logbook.Source{Conn: p.conn, Address: d.cfg.Address, Zone: d.cfg.zone()})
	switch {
	case err == nil:
		v.note(clock)
		if !v.believe(clock, d.record.Logs.Drift) {
			return errUnsettled
		}
		drift := int64(clock.Drift / time.Second)
		d.record.Logs.Drift = &drift
	case !errors.Is(err, logbook.ErrNoClock):
		return err
	}
	v.log = kmp.LogHour
	return p.openLog(d, logbook.Range{})
}

// openLog makes the reader of log v.log, behind what is kept of it.
func (p *poller) openLog(d *device, r logbook.Range) error {
	v := &d.logs
	newest, found, err := p.history.Last(d.record.Profile.Serial, v.log)
	if err != nil {
		return p.logsFailed(d, err)
	}
	r.After, r.Known, r.AfterTime, r.Registers = newest.ID, found, newest.Time, d.logRegisters()
	if v.log == kmp.LogHour && v.hours != nil {
		v.reader = v.hours.Again(r)
		v.reader.Retarget(p.conn)
	} else {
		address, _ := p.logSource(d)
		v.reader = logbook.NewReader(logbook.Source{Conn: p.conn, Address: address, Zone: d.cfg.zone()}, v.log, r)
	}
	v.conn, v.fresh, v.lost = p.conn, true, false
	if v.log == kmp.LogHour {
		v.before = newest.Time // zero when there is none
	}
	return nil
}

// endLog goes on to the day log where the hour log has lost what was missed; else there is
// nothing more to read.
func (p *poller) endLog(d *device) {
	v, record := &d.logs, &d.record.Logs
	if v.log == kmp.LogDay {
		record.Owed = nil
	} else {
		v.hours = v.reader
	}
	record.Silent, v.reader = 0, nil
	if o := record.Owed; o != nil {
		v.log = kmp.LogDay
		if err := p.openLog(d, logbook.Range{Since: o.Since, Until: o.Until}); err == nil {
			return
		}
	}
	record.Looked, record.Wanted, v.looked = time.Now(), false, true
}

// noLog notes that the meter does not answer what reads its log.
func (p *poller) noLog(d *device, err error) {
	v, record := &d.logs, &d.record.Logs
	v.reader = nil
	if v.log == kmp.LogDay {
		record.Owed, record.Looked, record.Wanted = nil, time.Now(), false
		return
	}
	record.Looked = time.Now()
	if record.Silent++; record.Silent == logSilences {
		p.log.Info("the meter has no log that can be read; what the bridge misses is lost", "meter", d.status.meter.Name, "error", err)
	}
}

// keepRows stores rows and has them published.
func (p *poller) keepRows(d *device, rows []logbook.Row) error {
	if len(rows) == 0 {
		return nil
	}
	v, record := &d.logs, &d.record.Logs
	first := v.fresh && v.before.IsZero()
	if v.log == kmp.LogHour && (v.lost || first) && !rows[0].Time.IsZero() {
		since := v.before
		if !since.IsZero() {
			since = since.Add(1) // that one is there
		}
		if record.Owed != nil { // from the time before the last crash
			since = record.Owed.Since
		}
		record.Owed = &owed{since, rows[0].Time}
		p.save(d)
		p.keep() // the rows would not tell it any more
	}
	v.correct(rows)
	if err := p.history.Append(d.record.Profile.Serial, rows); err != nil {
		return p.logsFailed(d, err)
	}
	if v.failing {
		v.failing = false
		p.log.Info("rows of the meter's log are kept again", "meter", d.status.meter.Name)
	}
	v.fresh, v.lost, v.brought = false, false, true
	if newest := rows[len(rows)-1]; v.log == kmp.LogHour && !newest.Time.IsZero() {
		v.before, d.status.kept = newest.Time, newest.Time
	}
	p.stored(d.record.Profile.Serial)
	return nil
}

// logsFailed notes that the store of the rows fails, with err. They are read again later.
func (p *poller) logsFailed(d *device, err error) error {
	v := &d.logs
	if !v.failing {
		p.log.Error("cannot keep the rows of the meter's log; trying again", "meter", d.status.meter.Name, "error", err)
	}
	v.failing, v.reader = true, nil
	return err
}

// rowsBelong tells those who pass the meter's rows on who it is now.
func (p *poller) rowsBelong(d *device) {
	if p.history == nil || d.record.Profile.Serial == "" {
		return
	}
	m := rowsOf{
		serial: d.record.Profile.Serial, name: d.status.meter.Name, identity: d.status.meter.Identity,
		label:    cmp.Or(d.status.meter.Label, d.status.meter.Name),
		external: d.cfg.History == HistoryHour && d.cfg.Interval > time.Hour, entities: d.cfg.Entities,
	}
	m.renamed = d.rowsNamed != m.serial+" "+m.name
	d.rowsNamed = m.serial + " " + m.name
	if d.cfg.Continue {
		m.offsets = make(map[string]kmp.Decimal)
		for key, o := range d.place.Offsets {
			if o.Serial == d.place.Serial {
				m.offsets[key] = o.Value
			}
		}
	}
	p.belong(m)
}

// rowsOf says whose rows a serial number's are.
type rowsOf struct {
	serial, name string
	renamed      bool                   // or new
	identity     string                 // the serial number that Home Assistant knows the meter by
	label        string                 // for people
	entities     string                 // the reader whose names Home Assistant keeps; empty: none
	offsets      map[string]kmp.Decimal // to be added to counters, by key
	external     bool                   // its live sensor shows too little: statistics of their own
}
