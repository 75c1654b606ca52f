package bridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"kmp2mqtt/bridge/history"
	"kmp2mqtt/bridge/numbers"
	"kmp2mqtt/bridge/store"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/census"
	"kmp2mqtt/kmp/diagnosis"
)

const (
	// offlineAfter failed readings in a row take a meter offline. A single one is
	// everyday life on an optical head; at the very first contact one is enough, since
	// nothing speaks for the meter being there.
	offlineAfter = 3
	// A failed reading is tried again after retryFirst, then twice as long each time, up to
	// retrySlow; not later than the interval as long as the meter is not offline. A meter that
	// has shut its port for hours is left alone for retryShut: every attempt may prolong that.
	retryFirst = 5 * time.Second
	retrySlow  = time.Minute
	retryShut  = time.Hour
	// newValues is the time after which a meter has renewed its values, 32 s as a rule
	// (MULTICAL 403 and 603, technical descriptions).
	newValues = 40 * time.Second
	// A line that cannot be opened is tried again after lineFirst, up to lineSlow. It costs
	// no meter anything.
	lineFirst = time.Second
	lineSlow  = time.Minute
	// openLimit bounds the opening of a line, the warm-up of a head included: a host that
	// swallows packets would hold its dialer for minutes.
	openLimit = 45 * time.Second
	// reopenAfter failed readings in a row, with no meter of the line answering, close a line
	// that still seems open: half-open connections and stuck adapters come back that way.
	reopenAfter = 3
	// familyRequests may be asked to find out what kind of meter it is, before the first
	// reading: what is usual depends on it.
	familyRequests = 2
	// censusRequests are asked at a time of a meter whose registers are not known yet, behind
	// its first reading and then every censusPause.
	censusRequests = 3
	censusPause    = time.Minute
)

// lineError says that a line could not be opened.
type lineError struct {
	line string
	err  error
}

func (e *lineError) Error() string {
	text := e.err.Error()
	if !strings.Contains(text, e.line) { // a good dialer names it
		text = e.line + ": " + text
	}
	return "bridge: cannot open the line: " + text
}
func (e *lineError) Unwrap() error { return e.err }

// schedule is a fixed grid of times: it does not drift, however long readings take.
type schedule struct {
	base     time.Time
	interval time.Duration
}

// newSchedule spreads meters over their interval: index of count.
func newSchedule(start time.Time, interval time.Duration, index, count int) schedule {
	return schedule{start.Add(interval / time.Duration(count) * time.Duration(index)), interval}
}

// next is the first slot after t.
func (s schedule) next(t time.Time) time.Time {
	d := t.Sub(s.base)
	if d < 0 {
		return s.base
	}
	return s.base.Add(d - d%s.interval + s.interval)
}

// poller reads the meters of one line, one after the other.
type poller struct {
	line     string // for the dialer
	shown    string // the line without secrets
	devices  []*device
	wishes   *wishes
	roster   *roster
	store    *store.Store
	history  *history.Store      // nil: no rows of logs are kept
	stored   func(serial string) // it has new rows
	belong   func(rowsOf)
	dial     func(ctx context.Context, line string) (kmp.Line, error)
	put      func(...Message)
	info     func() // bridge/info has changed
	topics   topics
	each     bool   // values on topics of their own
	compat   string // topic for the values as kamstrup-402-mqtt had them; empty: none
	announce bool   // to Home Assistant
	version  string
	tape     *tape        // what was said on the line
	charts   []*chart     // of all meters, by device.index
	moved    atomic.Int64 // when it last did something, nanoseconds since started; 0: there is nothing to do
	log      *slog.Logger
	started  time.Time
	count    int         // meters over all lines
	tried    atomic.Bool // the line was tried once, or there is nothing to do on it

	conn    *kmp.Conn
	wire    kmp.Line  // of conn
	learned kmp.Stats // of the line, when it was used last
	opens   int       // failed attempts to open in a row
	reopen  time.Time // not before, unless somebody asks
	silence int       // failed readings in a row, over all meters of the line
	served  bool      // the last step was for a wish: now it is the schedule's turn
}

// run reads until ctx ends.
func (p *poller) run(ctx context.Context) {
	defer p.hangUp()
	defer p.wishes.end()
	for _, d := range p.devices {
		d.schedule = newSchedule(p.started, d.cfg.Interval, d.index, p.count)
		if d.due = p.afford(d, p.started, p.started); d.due.After(p.started) {
			p.publish(d) // why nothing comes
		}
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer p.moved.Store(0)
	for {
		p.moved.Store(0)
		select {
		case <-ctx.Done():
			return
		case <-p.wishes.signal:
		case <-timer.C:
		}
		p.alive()
		for ctx.Err() == nil && p.step(ctx) {
		}
		due := p.devices[0].due
		for _, d := range p.devices {
			due = earlier(due, d.due)
			if d.surveying() {
				due = earlier(due, d.survey)
			}
			if visit, ok := d.logsDue(); ok {
				due = earlier(due, visit)
			}
		}
		p.tried.Store(true)
		timer.Reset(time.Until(due))
	}
}

// step does one thing that is to be done now; false: there is none.
func (p *poller) step(ctx context.Context) bool {
	p.alive()
	served := p.served
	p.served = false
	if !served { // however many wishes come, what is due gets its turn between them
		if w, ok := p.wishes.pop(); ok {
			p.served = true
			p.fulfil(ctx, w)
			return true
		}
	}
	now := time.Now()
	var first *device
	for i, d := range p.devices {
		if p.wishes.wanted(i) {
			first = d
			break
		}
		if p.conn == nil && d.due.Before(p.reopen) {
			d.due = p.reopen // the line is not there yet
		}
		if !d.due.After(now) && d.failures == 0 {
			d.due = p.afford(d, now, d.due) // commands may have used the budget meanwhile
		}
		if !d.due.After(now) && (first == nil || d.due.Before(first.due)) {
			first = d
		}
	}
	if first != nil {
		p.readUsual(ctx, first)
		return true
	}
	for _, d := range p.devices {
		if d.surveying() && !d.survey.After(now) {
			p.surveyOn(ctx, d)
			return true
		}
	}
	for _, d := range p.devices {
		if visit, ok := d.logsDue(); ok && !visit.After(now) {
			p.readLogs(ctx, d)
			return true
		}
	}
	return served
}

// alive notes that the poller gets on with what it does.
func (p *poller) alive() { p.moved.Store(int64(time.Since(p.started)) + 1) }

// idle is how long the poller has been at one thing without a byte sent or received; 0: it has
// nothing to do.
func (p *poller) idle() time.Duration {
	if moved := p.moved.Load(); moved != 0 {
		return time.Since(p.started) - time.Duration(moved)
	}
	return 0
}

// patience is how long it may be: nothing may come for as long as an answer may take, and noise
// that looks like one holds a slow line for longer.
func (p *poller) patience() time.Duration {
	longest := stuckAfter
	for _, d := range p.devices {
		longest = max(longest, time.Minute+2*cmp.Or(d.cfg.Timeout, kmp.DefaultTimeout)+2*kmp.MaxFrame*d.cfg.ByteTime)
	}
	return longest
}

// fulfil does what somebody wants, a usual reading aside.
func (p *poller) fulfil(ctx context.Context, w wish) {
	d := p.devices[w.meter]
	switch w.task {
	case setInterval:
		p.setInterval(d, w)
	case acceptHeld:
		p.accept(d, w)
	case takeCensus:
		p.census(ctx, d, w)
	case alignHead:
		p.alignHead(ctx, d, w)
	default:
		p.readChosen(ctx, d, w)
	}
}

// setInterval does what a command wants: it gives a meter another interval.
func (p *poller) setInterval(d *device, w wish) {
	if w.interval != d.cfg.Interval { // to say the same again must neither fill the log nor put off a reading
		d.cfg.Chosen = true
		p.newInterval(d, w.interval)
		p.log.Info("interval changed", "meter", d.status.meter.Name, "interval", w.interval)
		p.publish(d)
	}
	w.done(outcome{values: encodeJSON(struct {
		Interval string  `json:"interval"`
		Seconds  float64 `json:"interval_s"`
	}{short(w.interval), seconds(w.interval)})})
}

// newInterval gives a meter another interval and plans its next reading by it.
func (p *poller) newInterval(d *device, interval time.Duration) {
	d.cfg.Interval, d.status.interval = interval, interval
	d.schedule = newSchedule(p.started, interval, d.index, p.count)
	if d.failures == 0 {
		now := time.Now()
		d.due = p.afford(d, now, d.schedule.next(now))
	}
}

// afford puts off what the schedule wants until the battery's budget allows it.
func (p *poller) afford(d *device, now, wanted time.Time) time.Time {
	return d.budget(p.started).Next(d.record.Usage, now, wanted)
}

// position is the device's place on its line.
func (p *poller) position(d *device) int { return slices.Index(p.devices, d) }

// readUsual does the reading that the settings ask for and publishes it.
func (p *poller) readUsual(ctx context.Context, d *device) {
	position := p.position(d)
	asked := p.wishes.wanted(position)
	onTime := d.failures == 0 && d.status.ok > 0 && !asked
	p.wishes.begin(position)

	var result outcome
	reading, err := p.visit(ctx, d, errand{all: asked, command: asked})
	switch {
	case ctx.Err() != nil:
		err = errStopped
		result.err = err
	case err != nil:
		p.failDue(d, err)
		result.err = err
	default:
		var again bool
		result.values, again = p.succeed(d, reading)
		after := reading.Time
		if !onTime && !asked {
			after = after.Add(d.cfg.Interval / 10) // a first reading needs no second at once
		}
		wanted := d.schedule.next(after)
		if again {
			wanted = earlier(wanted, reading.Time.Add(secondReading(d.again)))
		}
		d.due = p.afford(d, reading.Time, wanted)
		if late := d.due.Sub(wanted) > time.Second; late != d.stretched {
			d.stretched = late
			if late {
				p.log.Info("the battery's budget stretches the schedule; the option budget changes it",
					"meter", reading.Meter.Name, "budget", d.budget(p.started).PerDay, "next", timeText(d.due))
			}
		}
		p.publish(d)
	}
	for _, w := range p.wishes.finish(position) {
		w.done(result)
	}
}

// secondReading is the time to the n-th reading that is to settle a doubt: the first refutes
// what the line has garbled, those after it see new values of the meter.
func secondReading(n int) time.Duration {
	if n <= 1 {
		return retryFirst
	}
	return newValues
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// errStopped answers those who wait while the bridge stops.
var errStopped = errors.New("bridge: stopping")

// readChosen reads what somebody asked for and gives it to him alone. The values pass the
// same guards as all others.
func (p *poller) readChosen(ctx context.Context, d *device, w wish) {
	reading, err := p.visit(ctx, d, errand{chosen: w.registers, command: true})
	if p.unfulfilled(ctx, d, w, err) {
		return
	}
	var unsupported []uint16
	for _, id := range w.registers {
		if !slices.ContainsFunc(reading.Values, func(v numbers.Value) bool { return v.Register.ID == id }) {
			unsupported = append(unsupported, id)
		}
	}
	p.good(d, reading)
	if !d.known || !d.status.online {
		d.due = reading.Time // it is there after all
	}
	reading.Values = d.looked(reading)
	p.publish(d)
	p.save(d)
	w.done(outcome{values: valuesJSON(reading), unsupported: unsupported})
}

// unfulfilled reports whether a visit that a wish asked for came to nothing, as its error
// or the end of ctx says; then the failure is noted and the wish answered.
func (p *poller) unfulfilled(ctx context.Context, d *device, w wish, err error) bool {
	switch {
	case ctx.Err() != nil:
		err = errStopped
	case err != nil:
		p.fail(d, err)
	default:
		return false
	}
	w.done(outcome{err: err})
	return true
}

// accept lets held values through and reads at once where the budget allows it, so that it shows.
func (p *poller) accept(d *device, w wish) {
	var keys []string
	for _, word := range w.keys { // a register by its name, or a key of the state
		for _, a := range d.keys {
			if a.key == word || a.register.Name == word {
				keys = append(keys, a.key)
			}
		}
		if len(keys) == 0 {
			w.done(outcome{err: fmt.Errorf("bridge: the meter has no value %q; accept needs a register's name or a key of the state", clip(word))})
			return
		}
	}
	accepted := d.record.Numbers.Accept(keys...)
	if len(accepted) > 0 {
		p.log.Info("held values accepted", "meter", d.status.meter.Name, "keys", strings.Join(accepted, " "))
		if d.failures == 0 { // a meter that does not answer is tried again in its own time
			now := time.Now()
			d.due = p.afford(d, now, now)
		}
		p.save(d)
	} else {
		accepted = []string{}
	}
	w.done(outcome{values: encodeJSON(struct {
		Accepted []string `json:"accepted"`
	}{accepted})})
}

// census finds out anew, to its end, which registers the meter has.
func (p *poller) census(ctx context.Context, d *device, w wish) {
	err := p.contact(ctx, d, errand{survey: true, command: true}, func(ctx context.Context) error {
		if err := p.ascertain(ctx, d); err != nil {
			return err
		}
		profile := d.newProfile()
		if err := census.Take(ctx, p.asker(d), &profile); err != nil {
			return err
		}
		d.record.Profile, d.record.Logs.Silent = profile, 0
		return nil
	})
	if p.unfulfilled(ctx, d, w, err) {
		return
	}
	p.surveyed(d)
	d.due = time.Now() // with what is known now
	w.done(outcome{values: encodeJSON(d.record.Profile)})
}

// borrowed is a line that stays open when its borrower is done with it.
type borrowed struct{ kmp.Line }

// Close leaves the line open.
func (borrowed) Close() error { return nil }

// SetWriteDeadline passes on what a line may have beyond kmp.Line.
func (b borrowed) SetWriteDeadline(t time.Time) error {
	if w, ok := b.Line.(interface{ SetWriteDeadline(time.Time) error }); ok {
		return w.SetWriteDeadline(t)
	}
	return nil
}

// alignHead reads a meter again and again, for whoever moves its head. The line stays open: to
// open it anew would switch the head off and on. The battery is charged with one command, and
// with what the answers took.
func (p *poller) alignHead(ctx context.Context, d *device, w wish) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.align.ctx, cancel)()
	if w.align.ctx.Err() != nil { // nobody waits for it any more
		w.done(outcome{err: errStopped})
		return
	}
	idle, length := p.conn != nil, w.align.length
	began := time.Now()
	summary, err := p.align(ctx, d, w.align, length)
	if idle && err != nil && ctx.Err() == nil && summary.Good == 0 { // the line may have died before
		summary, err = p.align(ctx, d, w.align, length-time.Since(began))
	}
	w.align.end(summary)
	for _, other := range p.devices {
		other.confirm = true    // the head may sit on another meter now
		if other.failures > 0 { // now may be better than what was planned
			other.due = p.afford(other, time.Now(), time.Now())
		}
	}
	p.save(d)
	p.publish(d)
	w.done(outcome{err: err})
}

// align is one attempt of it. With an error the line is closed.
func (p *poller) align(ctx context.Context, d *device, a *alignment, length time.Duration) (diagnosis.Summary, error) {
	if err := p.open(ctx); err != nil {
		return diagnosis.Summary{}, err
	}
	c := kmp.NewConn(borrowed{p.wire}, kmp.Options{Timeout: diagnosis.AlignTimeout, ByteTime: p.devices[0].cfg.ByteTime, Retries: -1, Trace: p.trace})
	summary, err := diagnosis.AlignOn(ctx, c, d.cfg.Address, length, a.sample)
	d.aligned(c.Stats(), summary)
	if err != nil {
		p.hangUp()
	}
	return summary, err
}

// asker asks a meter for registers, for a census.
func (p *poller) asker(d *device) func(context.Context, []uint16) ([]kmp.Register, error) {
	return func(ctx context.Context, ids []uint16) ([]kmp.Register, error) {
		return p.conn.GetRegister(ctx, d.cfg.Address, ids...)
	}
}

// surveyOn goes on with the census of a meter by a few requests.
func (p *poller) surveyOn(ctx context.Context, d *device) {
	d.survey = time.Now().Add(censusPause)
	if d.model().Family == catalog.Water {
		d.survey = d.due // behind the next reading: every session counts for a port that closes after some
	}
	err := p.contact(ctx, d, errand{survey: true}, func(ctx context.Context) error {
		if err := p.ascertain(ctx, d); err != nil {
			return err
		}
		for range censusRequests {
			if d.record.Profile.Complete() {
				return nil
			}
			if err := p.survey(ctx, d); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		p.log.Debug("census interrupted", "meter", d.status.meter.Name, "error", err)
	}
	if d.record.Profile.Complete() {
		p.surveyed(d)
	}
	p.save(d)
}

// survey asks one request of a census.
func (p *poller) survey(ctx context.Context, d *device) error {
	ids := d.record.Profile.Next()
	if len(ids) == 0 {
		return nil
	}
	found, err := p.conn.GetRegister(ctx, d.cfg.Address, ids...)
	if err != nil {
		if p.refused(ctx, d, err) {
			d.record.Profile.Fail(time.Now(), ids)
		} else {
			d.survey = later(d.survey, d.due) // first a reading has to succeed
		}
		return err
	}
	d.record.Profile.Note(time.Now(), ids, found)
	return nil
}

// refused reports whether a meter that failed to answer a request answers others: then it
// is the request that it does not like. Some close the line instead.
func (p *poller) refused(ctx context.Context, d *device, err error) bool {
	if ctx.Err() != nil || d.status.ok == 0 {
		return false
	}
	if lost(err) {
		return true
	}
	if !errors.Is(err, kmp.ErrNoReply) {
		return false // it answers; what it said got lost
	}
	serial, err := p.conn.GetSerialNo(ctx, d.cfg.Address)
	return err == nil && serial == d.serial
}

// errand is what a visit to a meter is for.
type errand struct {
	chosen  []uint16 // these registers; nil: the usual ones
	all     bool     // also those that are read once a day
	command bool     // somebody asked for it
	survey  bool     // a part of a census: no reading
	log     bool     // a part of the meter's log: no reading
}

// visit reads a meter. A line that stood open since an earlier visit may be dead by now, as
// gateways close what is idle: then the visit begins anew on a new one.
func (p *poller) visit(ctx context.Context, d *device, e errand) (Reading, error) {
	idle := p.conn != nil
	r, err := p.attempt(ctx, d, e)
	if idle && err != nil && ctx.Err() == nil && lost(err) && !errors.Is(err, context.DeadlineExceeded) {
		return p.attempt(ctx, d, e)
	}
	return r, err
}

// attempt has one contact with a meter: it makes sure who is there, and reads registers.
func (p *poller) attempt(ctx context.Context, d *device, e errand) (Reading, error) {
	var values []numbers.Value
	var asked []uint16
	err := p.contact(ctx, d, e, func(ctx context.Context) (err error) {
		values, asked, err = p.exchange(ctx, d, e)
		return err
	})
	if err != nil {
		return Reading{}, err
	}
	p.log.Debug("meter read", "meter", d.status.meter.Name, "values", len(values), "duration", d.status.duration)
	return Reading{Meter: d.status.meter, Time: time.Now(), Values: values, asked: asked}, nil
}

// contact opens the line where need be, does something on it, and notes what that says of
// line and meter, and what it cost.
func (p *poller) contact(ctx context.Context, d *device, e errand, do func(context.Context) error) error {
	if !e.survey && !e.log {
		d.status.duration = 0
		d.evidence = diagnosis.Evidence{Address: d.cfg.Address}
	}
	if err := p.open(ctx); err != nil {
		return err
	}
	const whole = 16 // requests of most censuses; the longest has 24, and hardly one takes all of its time
	size := max(1, p.conn.Stats().RequestSize)
	requests := max(len(e.chosen), len(d.usual()))/size + 4 // and those that identify
	switch {
	case e.survey:
		requests += whole * kmp.MaxRegisters / size
	case e.log:
		requests += 4 * logPages
	}
	limited, cancel := context.WithTimeout(ctx, time.Duration(requests)*(2*p.timeout()+5*time.Second))
	defer cancel()

	began := time.Now()
	before := p.conn.Stats()
	err := do(limited)
	after := p.conn.Stats()
	d.account(began, before, after, e)
	p.learned = after
	if !e.survey && !e.log {
		d.status.duration = time.Since(began)
		d.status.durations.note(d.status.duration)
	}
	if err != nil {
		if ctx.Err() == nil {
			d.confirm = true
			p.silence++
			if lost(err) || p.silence >= reopenAfter && p.allSilent(d) {
				p.log.Debug("line closed", "line", p.shown, "error", err)
				p.hangUp()
			}
		}
		return err
	}
	p.silence = 0
	return nil
}

// lost says whether an error means that the line itself is gone.
func lost(err error) bool {
	var identity *identityError
	return !errors.Is(err, kmp.ErrNoReply) && !errors.Is(err, kmp.ErrCodec) && !errors.Is(err, kmp.ErrForeign) &&
		!errors.Is(err, kmp.ErrAck) && !errors.As(err, &identity)
}

// allSilent reports whether no meter of the line answers, with d just failing.
func (p *poller) allSilent(d *device) bool {
	return !slices.ContainsFunc(p.devices, func(o *device) bool { return o != d && o.failures == 0 })
}

// timeout is the longest of the line's meters': they share one client.
func (p *poller) timeout() time.Duration {
	var longest time.Duration
	for _, d := range p.devices {
		longest = max(longest, cmp.Or(d.cfg.Timeout, kmp.DefaultTimeout))
	}
	if p.conn != nil {
		longest = max(longest, p.conn.Stats().Timeout)
	}
	return longest
}

// open makes sure that the line is open.
func (p *poller) open(ctx context.Context) error {
	if p.conn != nil {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, openLimit)
	defer cancel()
	line, err := p.dial(limited, p.line)
	p.tried.Store(true)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if p.opens == 0 {
			p.log.Warn("cannot open the line; trying again until it is there", "line", p.shown, "error", err)
		}
		p.opens++
		p.reopen = time.Now().Add(backOff(p.opens, lineFirst, lineSlow))
		return &lineError{p.shown, err}
	}
	if p.opens > 0 {
		p.log.Info("line is open again", "line", p.shown, "attempts", p.opens+1)
	}
	p.opens, p.reopen = 0, time.Time{} // silence stays: an open line is not yet one that brings something
	p.wire = line
	p.conn = kmp.NewConn(line, kmp.Options{
		Timeout: p.timeout(), ByteTime: p.devices[0].cfg.ByteTime, Trace: p.trace,
		RequestSize: p.learned.RequestSize, StartTimeout: p.learned.Timeout, StartGap: p.learned.Gap,
	})
	for _, d := range p.devices {
		d.confirm = true
	}
	return nil
}

func (p *poller) hangUp() {
	if p.conn != nil {
		p.conn.Close()
		p.conn, p.wire = nil, nil
	}
}

// trace keeps a frame for those who look, and logs it in hex.
func (p *poller) trace(dir kmp.Direction, wire []byte) {
	p.alive()
	p.tape.note(time.Now(), dir, wire)
	p.log.Debug("frame", "line", p.shown, "direction", dir.String(), "bytes", frameBytes(wire))
}

// frameBytes are bytes that a log shows in hex, written only if they are logged.
type frameBytes []byte

// LogValue writes the bytes as pairs of digits.
func (b frameBytes) LogValue() slog.Value { return slog.StringValue(fmt.Sprintf("% X", []byte(b))) }

// exchange makes sure who is there and reads registers; it returns their values and which
// were asked for. A meter that was exchanged since the last time is introduced before its
// values count.
func (p *poller) exchange(ctx context.Context, d *device, e errand) ([]numbers.Value, []uint16, error) {
	if err := p.ascertain(ctx, d); err != nil {
		return nil, nil, err
	}
	for range familyRequests {
		if !d.familyUnknown() {
			break
		}
		if err := p.survey(ctx, d); err != nil {
			return nil, nil, err
		}
		p.usualInterval(d)
	}
	values, asked, again, err := p.registers(ctx, d, e)
	for n := 0; again && err == nil; n++ {
		before := d.serial
		if err := p.identify(ctx, d); err != nil {
			return nil, nil, err
		}
		switch n {
		case 1: // twice, and the meter says that it is the same
			d.strange = d.serial == before
		case 2:
			return nil, nil, &identityError{"two meters answer here by turns"}
		}
		values, asked, again, err = p.registers(ctx, d, e)
	}
	return values, asked, err
}

// registers reads registers. Again says that another meter answered than the one that is
// known: the serial number rides along, or is asked for behind them.
func (p *poller) registers(ctx context.Context, d *device, e errand) (values []numbers.Value, asked []uint16, again bool, err error) {
	ids := e.chosen
	if ids == nil {
		ids = d.plan(time.Now(), e.all)
	}
	asked = slices.Clone(ids)
	full := len(ids)%kmp.MaxRegisters == 0
	rides := !d.strange && !slices.Contains(ids, serialRegister) && !d.record.Profile.Lacks(serialRegister) &&
		(!full || time.Since(d.confirmed) >= confirmRecent)
	if rides {
		ids = append(slices.Clone(ids), serialRegister)
	}
	registers, err := p.conn.GetRegister(ctx, d.cfg.Address, ids...)
	if err != nil {
		return nil, nil, false, err
	}
	d.evidence.Asked, d.evidence.Got = len(asked), len(registers)
	seen := false
	for _, r := range registers {
		if r.ID == serialRegister && !d.strange {
			serial, err := r.Decimal()
			if n, ok := serial.Int64(); err == nil && ok {
				seen = true
				again = n != int64(d.serial)
			}
			if rides {
				d.evidence.Got--
				continue
			}
		}
		v, err := numbers.Decode(r)
		if err != nil {
			p.log.Debug("value cannot be decoded; published as null", "meter", d.status.meter.Name, "register", r.ID, "error", err)
		}
		values = append(values, v)
	}
	if !seen && (time.Since(d.confirmed) >= confirmRecent || d.runsBack(values)) {
		serial, err := p.conn.GetSerialNo(ctx, d.cfg.Address)
		if err != nil {
			return nil, nil, false, err
		}
		seen, again = true, serial != d.serial
	}
	if again {
		return nil, nil, true, nil
	}
	if seen {
		d.confirmed = time.Now()
	}
	if e.chosen == nil { // what somebody tries is no part of a profile
		d.record.Profile.Note(time.Now(), ids, registers)
	}
	return values, asked, false, nil
}

// retryDelay is the time to the next attempt after some failed ones in a row.
func retryDelay(failures int, code diagnosis.Code) time.Duration {
	if code == diagnosis.Throttled {
		return backOff(1, retryShut, retryShut)
	}
	return backOff(failures, retryFirst, retrySlow)
}

// backOff doubles first for every failure after the first, up to most, and takes off up
// to a half by chance, so that what failed together does not return together.
func backOff(failures int, first, most time.Duration) time.Duration {
	d := first
	for i := 1; i < failures && d < most; i++ {
		d *= 2
	}
	d = min(d, most)
	return d - rand.N(d/2)
}
