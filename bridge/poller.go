package bridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

const (
	// offlineAfter failed readings in a row take a meter offline. A single one is
	// everyday life on an optical head; at the very first contact one is enough, since
	// nothing speaks for the meter being there.
	offlineAfter = 3
	// A failed reading is tried again after retryFirst, then twice as long each time, up to
	// retrySlow. After manyFailures in a row, a meter that sleeps or is gone, up to
	// retryGone: every attempt may wake its receiver. Never later than its interval.
	retryFirst   = 5 * time.Second
	retrySlow    = time.Minute
	retryGone    = 5 * time.Minute
	manyFailures = 15
	// A line that cannot be opened is tried again after lineFirst, up to lineSlow. It costs
	// no meter anything.
	lineFirst = time.Second
	lineSlow  = time.Minute
	// openLimit bounds the opening of a line: a host that swallows packets would
	// hold its dialer for minutes.
	openLimit = 10 * time.Second
	// reopenAfter failed readings in a row, with no meter of the line answering, close a line
	// that still seems open: half-open connections and stuck adapters come back that way.
	reopenAfter = 3
	// absentAfter answers without a register it is not asked for any more, until the line
	// is opened again.
	absentAfter = 2
	// confirmEvery is how long a serial number is trusted while every reading is good.
	confirmEvery = 24 * time.Hour
	// defaultTimeout is how long a meter may take to the first byte of its answer.
	defaultTimeout = 2 * time.Second
	// serialRegister holds the serial number, too. It rides along where a request has
	// room, so that an exchanged meter is seen at once and for nothing.
	serialRegister = 1001
)

// defaultModel lends its registers to a meter whose model nobody told: the widest set of
// a heat meter; what a meter does not have it leaves out.
const defaultModel = "403"

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

// identityError says that a meter is not one that this place may have.
type identityError struct{ text string }

func (e *identityError) Error() string { return "bridge: " + e.text }

// outcome is how a wish ended.
type outcome struct {
	values      []byte   // JSON object; nil with an error
	unsupported []uint16 // asked for and not there
	err         error
}

// wish is what somebody wants of a poller. Exactly one of the three kinds: the usual
// reading (registers nil, interval 0), chosen registers, or another interval.
type wish struct {
	meter     int // in the poller's meters
	registers []uint16
	interval  time.Duration
	done      func(outcome) // called once, by the poller; must not block
}

func (w wish) usual() bool { return w.registers == nil && w.interval == 0 }

// maxWishes bounds what may wait for one line.
const maxWishes = 64

// errBusy says that too much waits for a line already.
var errBusy = errors.New("bridge: too many requests wait for this line; try again later")

// wishes is the only way into a poller: a short list that commands write and the
// poller reads.
type wishes struct {
	mu      sync.Mutex
	list    []wish
	reading int           // the meter that is being read in the usual way, else -1
	signal  chan struct{} // holds a token when the list may have grown
}

func newWishes() *wishes { return &wishes{reading: -1, signal: make(chan struct{}, 1)} }

// post adds a wish. A usual reading joins the one that runs or waits; for everything else
// allow decides, which is asked only then, and whose error is returned.
func (w *wishes) post(one wish, allow func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.list) >= maxWishes {
		return errBusy
	}
	if !one.usual() || !w.joins(one.meter) {
		if err := allow(); err != nil {
			return err
		}
	}
	w.list = append(w.list, one)
	select {
	case w.signal <- struct{}{}:
	default:
	}
	return nil
}

func (w *wishes) joins(meter int) bool {
	return w.reading == meter ||
		slices.ContainsFunc(w.list, func(x wish) bool { return x.usual() && x.meter == meter })
}

// wanted reports whether a usual reading of the meter waits.
func (w *wishes) wanted(meter int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.list, func(x wish) bool { return x.usual() && x.meter == meter })
}

// pop takes the oldest wish that is not a usual reading.
func (w *wishes) pop() (wish, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.list, func(x wish) bool { return !x.usual() })
	if i < 0 {
		return wish{}, false
	}
	one := w.list[i]
	w.list = slices.Delete(w.list, i, i+1)
	return one, true
}

// begin starts a usual reading: from here to finish wishes for the same join it.
func (w *wishes) begin(meter int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reading = meter
}

// finish ends a usual reading and takes all who waited for it.
func (w *wishes) finish(meter int) []wish {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reading = -1
	var waited []wish
	w.list = slices.DeleteFunc(w.list, func(x wish) bool {
		if x.usual() && x.meter == meter {
			waited = append(waited, x)
			return true
		}
		return false
	})
	return waited
}

// end answers everybody who still waits. What is posted later gets no answer: the bridge
// is gone by then.
func (w *wishes) end() {
	w.mu.Lock()
	left := w.list
	w.list = nil
	w.mu.Unlock()
	for _, one := range left {
		one.done(outcome{err: errStopped})
	}
}

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

// device is what a poller knows of one of its meters. Only its goroutine touches it.
type device struct {
	cfg      MeterConfig
	index    int // in the settings, over all lines
	schedule schedule
	due      time.Time

	identified bool
	confirm    bool // ask for the serial number before the next reading
	confirmed  time.Time
	serial     uint32
	model      string // name in package catalog; empty: unknown

	keys   []announced
	last   []Value         // of the newest good reading
	seen   map[uint16]bool // registers that were answered once
	absent map[uint16]int  // answers in a row without a register

	known    bool // whether online says something yet
	logged   bool // the outage is in the log
	failures int  // in a row
	status   status
}

// poller reads the meters of one line, one after the other.
type poller struct {
	line     string // for the dialer
	shown    string // the line without secrets
	devices  []*device
	wishes   *wishes
	roster   *roster
	dial     func(ctx context.Context, line string) (kmp.Line, error)
	put      func(...Message)
	info     func() // bridge/info has changed
	topics   topics
	each     bool // values on topics of their own
	announce bool // to Home Assistant
	version  string
	log      *slog.Logger
	started  time.Time
	count    int // meters over all lines

	conn    *kmp.Conn
	opens   int       // failed attempts to open in a row
	reopen  time.Time // not before, unless somebody asks
	silence int       // failed readings in a row, over all meters of the line
}

// run reads until ctx ends.
func (p *poller) run(ctx context.Context) {
	defer p.hangUp()
	defer p.wishes.end()
	for _, d := range p.devices {
		d.schedule = newSchedule(p.started, d.cfg.Interval, d.index, p.count)
		d.due = p.started
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wishes.signal:
		case <-timer.C:
		}
		for ctx.Err() == nil && p.step(ctx) {
		}
		due := p.devices[0].due
		for _, d := range p.devices {
			if d.due.Before(due) {
				due = d.due
			}
		}
		timer.Reset(time.Until(due))
	}
}

// step does one thing that is to be done now; false: there is none.
func (p *poller) step(ctx context.Context) bool {
	if w, ok := p.wishes.pop(); ok {
		d := p.devices[w.meter]
		if w.interval > 0 {
			p.setInterval(d, w)
		} else {
			p.readChosen(ctx, d, w)
		}
		return true
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
		if !d.due.After(now) && (first == nil || d.due.Before(first.due)) {
			first = d
		}
	}
	if first == nil {
		return false
	}
	p.readUsual(ctx, first)
	return true
}

func (p *poller) setInterval(d *device, w wish) {
	if w.interval != d.cfg.Interval { // to say the same again must neither fill the log nor put off a reading
		d.cfg.Interval = w.interval
		d.status.interval = w.interval
		d.schedule = newSchedule(p.started, w.interval, d.index, p.count)
		if d.failures == 0 {
			d.due = d.schedule.next(time.Now())
		}
		p.log.Info("interval changed", "meter", d.status.meter.Name, "interval", w.interval)
		p.publish(d)
	}
	w.done(outcome{values: encodeJSON(struct {
		Interval string  `json:"interval"`
		Seconds  float64 `json:"interval_s"`
	}{short(w.interval), seconds(w.interval)})})
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
	reading, err := p.visit(ctx, d, nil)
	switch {
	case ctx.Err() != nil:
		err = errStopped
		result.err = err
	case err != nil:
		p.failDue(d, err)
		result.err = err
	default:
		result.values = p.succeed(d, reading)
		after := reading.Time
		if !onTime && !asked {
			after = after.Add(d.cfg.Interval / 10) // a first reading needs no second at once
		}
		d.due = d.schedule.next(after)
	}
	for _, w := range p.wishes.finish(position) {
		w.done(result)
	}
}

// errStopped answers those who wait while the bridge stops.
var errStopped = errors.New("bridge: stopping")

// readChosen reads what somebody asked for and gives it to him alone.
func (p *poller) readChosen(ctx context.Context, d *device, w wish) {
	reading, err := p.visit(ctx, d, w.registers)
	switch {
	case ctx.Err() != nil:
		w.done(outcome{err: errStopped})
		return
	case err != nil:
		p.fail(d, err)
		w.done(outcome{err: err})
		return
	}
	var unsupported []uint16
	for _, id := range w.registers {
		if !slices.ContainsFunc(reading.Values, func(v Value) bool { return v.Register.ID == id }) {
			unsupported = append(unsupported, id)
		}
	}
	p.good(d, reading.Duration)
	if !d.known || !d.status.online {
		d.due = time.Now() // it is there after all
	}
	p.publish(d)
	w.done(outcome{values: valuesJSON(reading), unsupported: unsupported})
}

// UsualRegisters returns what is read of a model (a name of package catalog) when the
// settings do not say; of an unknown one, what most heat meters have.
func UsualRegisters(model string) []uint16 {
	m, ok := catalog.ModelByName(model)
	if !ok {
		m, _ = catalog.ModelByName(defaultModel)
	}
	return m.Registers
}

// usual are the registers of the usual reading.
func (p *poller) usual(d *device) []uint16 {
	ids := d.cfg.Registers
	if len(ids) == 0 {
		ids = UsualRegisters(d.model)
	}
	var asked []uint16
	for _, id := range ids {
		if d.seen[id] || d.absent[id] < absentAfter {
			asked = append(asked, id)
		}
	}
	if len(asked) == 0 { // better to ask in vain than not at all
		return ids
	}
	return asked
}

// visit reads the chosen registers of a meter, or the usual ones if there are none. A line
// that stood open since an earlier visit may be dead by now, as gateways close what is
// idle: then the visit begins anew on a new one.
func (p *poller) visit(ctx context.Context, d *device, chosen []uint16) (Reading, error) {
	idle := p.conn != nil
	r, err := p.attempt(ctx, d, chosen)
	if idle && err != nil && ctx.Err() == nil && p.lost(err) && !errors.Is(err, context.DeadlineExceeded) {
		return p.attempt(ctx, d, chosen)
	}
	return r, err
}

// attempt has one exchange with a meter: it opens the line where need be, makes sure who is
// there, and reads registers.
func (p *poller) attempt(ctx context.Context, d *device, chosen []uint16) (Reading, error) {
	d.status.duration = 0
	if err := p.open(ctx); err != nil {
		return Reading{}, err
	}
	requests := max(len(chosen), len(p.usual(d)))/kmp.MaxRegisters + 4 // and those that identify
	limited, cancel := context.WithTimeout(ctx, time.Duration(requests)*(2*p.timeout()+5*time.Second))
	defer cancel()

	began := time.Now()
	before := p.conn.Stats()
	values, err := p.exchange(limited, d, chosen)
	after := p.conn.Stats()
	d.status.checksum += after.ChecksumErrors - before.ChecksumErrors
	d.status.echo = after.Echo
	d.status.duration = time.Since(began)
	if err != nil {
		if ctx.Err() == nil {
			d.confirm = true
			p.silence++
			if p.lost(err) || p.silence >= reopenAfter && p.allSilent(d) {
				p.log.Debug("line closed", "line", p.shown, "error", err)
				p.hangUp()
			}
		}
		return Reading{}, err
	}
	p.silence = 0
	p.log.Debug("meter read", "meter", d.status.meter.Name, "values", len(values), "duration", d.status.duration)
	return Reading{Meter: d.status.meter, Time: time.Now(), Duration: d.status.duration, Values: values}, nil
}

// lost says whether an error means that the line itself is gone.
func (p *poller) lost(err error) bool {
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
		longest = max(longest, cmp.Or(d.cfg.Timeout, defaultTimeout))
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
	p.opens, p.silence, p.reopen = 0, 0, time.Time{}
	p.conn = kmp.NewConn(line, kmp.Options{Timeout: p.timeout(), ByteTime: p.devices[0].cfg.ByteTime, Trace: p.trace})
	for _, d := range p.devices {
		d.confirm = true
		clear(d.absent)
	}
	return nil
}

func (p *poller) hangUp() {
	if p.conn != nil {
		p.conn.Close()
		p.conn = nil
	}
}

// trace logs a frame in hex.
func (p *poller) trace(dir kmp.Direction, wire []byte) {
	p.log.Debug("frame", "line", p.shown, "direction", dir.String(), "bytes", frameBytes(wire))
}

// frameBytes are bytes that a log shows in hex, written only if they are logged.
type frameBytes []byte

// LogValue writes the bytes as pairs of digits.
func (b frameBytes) LogValue() slog.Value { return slog.StringValue(fmt.Sprintf("% X", []byte(b))) }

// exchange makes sure who is there and reads registers. A meter that was exchanged since
// the last time is introduced before its values count.
func (p *poller) exchange(ctx context.Context, d *device, chosen []uint16) ([]Value, error) {
	if !d.identified || d.confirm || time.Since(d.confirmed) >= confirmEvery {
		if err := p.identify(ctx, d); err != nil {
			return nil, err
		}
	}
	values, again, err := p.registers(ctx, d, chosen)
	if again && err == nil {
		if err := p.identify(ctx, d); err != nil {
			return nil, err
		}
		values, _, err = p.registers(ctx, d, chosen)
	}
	return values, err
}

// registers reads registers. Again says that another meter may have answered than the one
// that is known.
func (p *poller) registers(ctx context.Context, d *device, chosen []uint16) (values []Value, again bool, err error) {
	ids := chosen
	if ids == nil {
		ids = p.usual(d)
	}
	asked := ids
	rides := len(ids)%kmp.MaxRegisters != 0 && !slices.Contains(ids, serialRegister) && d.absent[serialRegister] < absentAfter
	if rides {
		asked = append(slices.Clone(ids), serialRegister)
	}
	registers, err := p.conn.GetRegister(ctx, d.cfg.Address, asked...)
	if err != nil {
		return nil, false, err
	}
	for _, id := range asked {
		d.absent[id]++
	}
	serialSeen := false
	for _, r := range registers {
		d.seen[r.ID] = true
		delete(d.absent, r.ID)
		if r.ID == serialRegister {
			serial, err := r.Decimal()
			if n, ok := serial.Int64(); err == nil && ok {
				serialSeen = true
				again = n != int64(d.serial)
			}
			if rides {
				continue
			}
		}
		v, err := newValue(r)
		if err != nil {
			p.log.Debug("value cannot be decoded; published as null", "meter", d.status.meter.Name, "register", r.ID, "error", err)
		}
		values = append(values, v)
	}
	if serialSeen && !again {
		d.confirmed = time.Now()
	}
	return values, again || !serialSeen && runsBack(d.last, values), nil
}

// runsBack reports whether a counter that only grows became less: another meter, perhaps.
func runsBack(before, after []Value) bool {
	for _, now := range after {
		if now.Register.Kind != catalog.Counter {
			continue
		}
		for _, old := range before {
			a, ok1 := old.Value.(kmp.Decimal)
			b, ok2 := now.Value.(kmp.Decimal)
			if old.Key == now.Key && ok1 && ok2 && b.Cmp(a) < 0 {
				return true
			}
		}
	}
	return false
}

// identify asks for the serial number, which is who a meter is, and of one that is new
// also for type and software.
func (p *poller) identify(ctx context.Context, d *device) error {
	serial, err := p.conn.GetSerialNo(ctx, d.cfg.Address)
	if err != nil {
		return err
	}
	if d.identified && serial == d.serial {
		d.confirm, d.confirmed = false, time.Now()
		return nil
	}
	text := strconv.FormatUint(uint64(serial), 10)
	former := d.status.meter
	name := d.cfg.Name
	if name == "" {
		name = text
	}
	if err := p.roster.claim(d.index, name, text); err != nil {
		d.identified = false
		return &identityError{err.Error()}
	}
	meter := Meter{Name: name, Label: d.cfg.Label, Serial: text, Line: p.shown}
	model, known := catalog.ModelByName(d.cfg.Model)
	answer, err := p.conn.GetType(ctx, d.cfg.Address)
	switch {
	case err == nil:
		meter.Revision = answer.Revision.String()
		if !known {
			model, _ = catalog.ModelByType(answer.MeterType)
		}
	case p.lost(err):
		return err // the line went away in between; all is asked again next time
	default:
		p.log.Debug("meter does not tell its type", "meter", name, "error", err)
	}
	d.model, meter.Model = model.Name, model.Title
	d.identified, d.confirm, d.confirmed, d.serial = true, false, time.Now(), serial
	d.status.meter = meter
	if former.Serial != text {
		d.keys, d.last = nil, nil
		clear(d.seen)
		clear(d.absent)
		d.status.retained = nil
		if former.Serial != "" {
			p.exchanged(d, former)
		}
	}
	p.roster.update(d.index, d.status)
	p.info()
	p.log.Info("meter found", "meter", name, "serial", text, "model", meter.Model, "software", meter.Revision, "line", p.shown)
	return nil
}

// exchanged tells that another meter answers in the place of a former one. The former's
// entities go: they would show the new meter's values.
func (p *poller) exchanged(d *device, former Meter) {
	now := d.status.meter
	p.log.Warn("another meter answers here", "meter", now.Name, "serial", now.Serial, "before", former.Serial)
	p.put(eventMessage(p.topics, time.Now(), "meter_changed", now.Name, map[string]any{"from": former.Serial, "to": now.Serial}))
	if p.announce {
		p.put(Message{Topic: p.topics.meterDiscovery(former.Serial), Retain: true, Rank: RankDiscovery})
	}
	if former.Name != now.Name { // named by the serial number: the topics change as well
		p.put(availabilityMessage(p.topics, former.Name, false))
		d.known, d.status.online = false, false
	}
}

// good notes a good reading.
func (p *poller) good(d *device, duration time.Duration) {
	d.status.ok++
	d.status.lastError = ""
	d.status.duration = duration
	d.failures = 0
}

// succeed publishes a good reading. It returns the state.
func (p *poller) succeed(d *device, r Reading) []byte {
	p.good(d, r.Duration)
	d.status.lastReading = r.Time
	name := r.Meter.Name

	var news bool
	var changes []unitChange
	d.keys, news, changes = announce(d.keys, r.Values, p.usual(d))
	var msgs []Message
	if p.announce && (news || len(d.status.retained) == 0) {
		msg, err := meterDiscovery(p.topics, r.Meter, d.keys, p.version, p.roster.shortest(d.index))
		if err != nil {
			p.log.Error("cannot announce the meter to Home Assistant", "meter", name, "error", err)
		} else {
			msgs = append(msgs, msg)
			d.status.retained = []Message{msg}
		}
	}
	if !d.known || !d.status.online {
		msgs = append(msgs, availabilityMessage(p.topics, name, true),
			eventMessage(p.topics, r.Time, "meter_online", name, map[string]any{"serial": r.Meter.Serial}))
		if d.logged {
			p.log.Info("meter is online again", "meter", name)
		}
		d.known, d.logged, d.status.online = true, false, true
	}
	for _, c := range changes {
		p.log.Warn("the meter sends another unit", "meter", name, "register", c.register.Name, "from", c.from, "to", c.to)
		msgs = append(msgs, eventMessage(p.topics, r.Time, "unit_changed", name,
			map[string]any{"register": c.register.Name, "from": c.from, "to": c.to}))
	}
	for _, data := range infoCodeChanges(d.last, r.Values) {
		msgs = append(msgs, eventMessage(p.topics, r.Time, "info_code", name, data))
	}
	d.last = r.Values
	state := stateMessages(p.topics, r, d.keys, p.each)
	p.put(append(msgs, state...)...)
	d.status.retained = append(discoveryOnly(d.status.retained), state[0])
	p.publish(d)
	if len(r.Values) == 0 && d.status.ok == 1 {
		p.log.Warn("the meter has none of the registers; set REGISTERS or the option registers", "meter", name)
	}
	return state[0].Payload
}

// discoveryOnly keeps the discovery message of what Home Assistant needs again.
func discoveryOnly(msgs []Message) []Message {
	var kept []Message
	for _, m := range msgs {
		if m.Rank == RankDiscovery {
			kept = append(kept, m)
		}
	}
	return kept
}

// failDue notes a failed reading. When the line is not there, all its meters whose turn
// it is have failed.
func (p *poller) failDue(d *device, err error) {
	p.fail(d, err)
	if _, open := errors.AsType[*lineError](err); !open {
		return
	}
	now := time.Now()
	for _, other := range p.devices {
		if other != d && !other.due.After(now) {
			p.fail(other, err)
		}
	}
}

// fail notes a failed reading, and takes the meter offline after some.
func (p *poller) fail(d *device, err error) {
	now := time.Now()
	why := reason(err)
	d.failures++
	d.status.failed++
	d.status.reasons = maps.Clone(d.status.reasons)
	if d.status.reasons == nil {
		d.status.reasons = make(map[string]int)
	}
	d.status.reasons[why]++
	d.status.lastError = clipTo(err.Error(), 300)

	var open *lineError
	if errors.As(err, &open) {
		d.due = p.reopen
	} else {
		d.due = now.Add(min(d.cfg.Interval, retryDelay(d.failures)))
	}
	p.log.Debug("reading failed", "meter", d.status.meter.Name, "line", p.shown, "failures", d.failures, "error", err)
	if !d.known && d.failures == 1 || d.status.online && d.failures >= offlineAfter {
		d.known, d.status.online = true, false
		if name := d.status.meter.Name; name != "" {
			p.put(availabilityMessage(p.topics, name, false),
				eventMessage(p.topics, now, "meter_offline", name, map[string]any{"reason": why, "error": d.status.lastError}))
		}
	}
	if !d.status.online && !d.logged && open == nil { // a line that is not there has been logged as such
		d.logged = true
		p.log.Warn("meter is offline", "meter", d.status.meter.Name, "line", p.shown, "error", err, "hint", Hint(err, d.status.echo))
	}
	p.publish(d)
}

// publish shares what is known of a meter: as diagnostics, and with the roster.
func (p *poller) publish(d *device) {
	s := d.status
	if s.meter.Name != "" {
		msg := diagnosticsMessage(p.topics, s)
		p.put(msg)
		s.retained = slices.Clone(s.retained)
		if d.known {
			s.retained = append(s.retained, availabilityMessage(p.topics, s.meter.Name, s.online))
		}
		s.retained = append(s.retained, msg)
	}
	p.roster.update(d.index, s)
}

// reason is one word for why a reading failed, for counting.
func reason(err error) string {
	var open *lineError
	var identity *identityError
	var checksum *kmp.ChecksumError
	switch {
	case errors.As(err, &open):
		return "line_closed"
	case errors.As(err, &identity):
		return "identity"
	case errors.As(err, &checksum):
		return "checksum"
	case errors.Is(err, kmp.ErrNoReply), errors.Is(err, context.DeadlineExceeded):
		return "no_reply"
	case errors.Is(err, kmp.ErrCodec), errors.Is(err, kmp.ErrForeign), errors.Is(err, kmp.ErrAck):
		return "bad_frame"
	}
	return "line_lost"
}

// Hint says what the owner of a meter can do about an error of kmp or of the line; echo
// is whether the request came back.
func Hint(err error, echo bool) string {
	switch reason(err) {
	case "no_reply":
		if echo {
			return "the head hears itself but not the meter: move or turn the head, or press a button on the meter to wake it"
		}
		return "nothing is heard: check that the head is powered and sits on the meter, and press a button on the meter to wake it"
	case "checksum", "bad_frame":
		return "bytes arrive but no valid frame: check the head's position and the line's settings (1200 baud, 8N2)"
	case "identity":
		return "give every meter one line"
	}
	return "check the cable or the network"
}

// retryDelay is the time to the next attempt after some failed ones in a row.
func retryDelay(failures int) time.Duration {
	if failures > manyFailures {
		return backOff(failures-manyFailures+4, retryFirst, retryGone)
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

func clipTo(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
