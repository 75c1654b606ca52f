package bridge

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"kmp2mqtt/bridge/battery"
	"kmp2mqtt/bridge/numbers"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/census"
	"kmp2mqtt/kmp/diagnosis"
)

const (
	// confirmEvery is how long a serial number is trusted whatever is read; confirmRecent is
	// too short a time for anybody to exchange a meter.
	confirmEvery  = 24 * time.Hour
	confirmRecent = time.Minute
	// serialRegister holds the serial number, too. It rides along where a request has
	// room, so that an exchanged meter is seen at once and for nothing.
	serialRegister = 1001
	// graceAfterStart is how long the default budget lets a short interval have its way:
	// somebody is setting the meter up.
	graceAfterStart = time.Hour
	// secondReadings follow at most upon a doubtful one at once; then the schedule has its
	// turn again.
	secondReadings = 3
)

// identityError says that a meter is not one that this place may have.
type identityError struct{ text string }

func (e *identityError) Error() string { return "bridge: " + e.text }

// Is makes it what a diagnosis knows.
func (e *identityError) Is(target error) bool { return target == diagnosis.ErrWrongMeter }

// device is what a poller knows of one of its meters. Only its goroutine touches it.
type device struct {
	cfg      MeterConfig
	index    int // in the settings, over all lines
	schedule schedule
	due      time.Time
	survey   time.Time // when its census goes on

	identified bool
	confirm    bool // ask for the serial number before the next reading
	confirmed  time.Time
	serial     uint32
	record     record
	place      place

	keys  []announced
	last  []numbers.Value // as published by the newest good reading
	whole time.Time       // when also those registers were read that are read once a day
	again int             // second readings in a row

	known    bool // whether online says something yet
	logged   bool // the outage is in the log
	failures int  // in a row
	quality  diagnosis.Quality
	evidence diagnosis.Evidence // of the newest visit
	status   status
}

// record is what is remembered of a meter, by its serial number. It survives a restart.
type record struct {
	Profile   census.Profile `json:"profile"`
	Numbers   numbers.State  `json:"numbers"`
	Usage     battery.Usage  `json:"usage"`
	LastGood  time.Time      `json:"last_good"`
	Good      []time.Time    `json:"good"`      // the newest good readings, at most maxGood
	Echo      bool           `json:"echo"`      // requests have come back
	Announced []savedKey     `json:"announced"` // to Home Assistant
}

// savedKey is an announced key as it is remembered.
type savedKey struct {
	Register string   `json:"register"` // its name
	Unit     kmp.Unit `json:"unit"`
	Key      string   `json:"key"`
	Decimals int      `json:"decimals"`
	Former   bool     `json:"former,omitempty"`
}

// savedKeys are keys as they are remembered; restoredKeys is the way back.
func savedKeys(keys []announced) []savedKey {
	saved := make([]savedKey, len(keys))
	for i, a := range keys {
		saved[i] = savedKey{a.register.Name, a.unit, a.key, a.decimals, a.former}
	}
	return saved
}

func restoredKeys(saved []savedKey) []announced {
	var keys []announced
	derived := numbers.Derived()
	for _, k := range saved {
		register, ok := catalog.ByName(k.Register)
		if i := slices.IndexFunc(derived, func(r catalog.Register) bool { return r.Name == k.Register }); i >= 0 {
			register, ok = derived[i], true
		}
		if ok && catalog.Key(register.Name, k.Unit) == k.Key { // a file may hold anything
			keys = append(keys, announced{register, k.Unit, k.Key, max(0, k.Decimals), k.Former})
		}
	}
	return keys
}

// maxGood readings are remembered to tell a port that is shut after some from one that
// never opened.
const maxGood = 20

// check tells whether a record that comes from a file is sound.
func (m record) check() error {
	if len(m.Good) > maxGood || len(m.Announced) > 4*MaxRegisters {
		return errors.New("bridge: too much is remembered")
	}
	return errors.Join(m.Profile.Check(), m.Numbers.Check(), m.Usage.Check())
}

// place is what is remembered of the place that a meter has in the settings.
type place struct {
	Serial   string                 `json:"serial"`   // of the meter that answered last; empty: none yet
	Identity string                 `json:"identity"` // serial number that the place is known by; empty: Serial
	Name     string                 `json:"name"`
	Model    string                 `json:"model"`
	Revision string                 `json:"revision"`
	Totals   map[string]kmp.Decimal `json:"totals"`  // counters as published, by key
	Offsets  map[string]offset      `json:"offsets"` // by key
}

// offset is what is added to a counter so that the total goes on where that of the former
// meter ended.
type offset struct {
	Serial string      `json:"serial"` // of the meter whose counter it is
	Value  kmp.Decimal `json:"value"`
}

// placeKey is the place's key in the store.
func (d *device) placeKey() string {
	return "place/" + cmp.Or(d.cfg.Name, d.cfg.Line+"@"+strconv.Itoa(int(d.cfg.Address)))
}

// budget bounds the readings of a day. started is when the bridge began.
func (d *device) budget(started time.Time) battery.Budget {
	switch {
	case d.cfg.Budget != DefaultBudget:
		return battery.Budget{PerDay: d.cfg.Budget}
	case d.model().Battery || d.model().Name == "":
		return battery.Budget{PerDay: BatteryBudget, Grace: started.Add(graceAfterStart)}
	}
	return battery.Budget{}
}

// model is the meter's, or the one that stands for its family; without a name if neither is known.
func (d *device) model() catalog.Model {
	for _, name := range []string{d.cfg.Model, d.record.Profile.Model} {
		if m, ok := catalog.ModelByName(name); ok {
			return m
		}
	}
	if f := d.record.Profile.Family; f != "" {
		return catalog.FamilyModel(f)
	}
	return catalog.Model{}
}

// familyUnknown reports whether it is still to be found out what the meter measures.
func (d *device) familyUnknown() bool {
	return len(d.cfg.Registers) == 0 && d.model().Name == "" && !d.record.Profile.Complete()
}

// usualRegisters returns what is read of a model (a name of package catalog) when the
// settings do not say; of an unknown one, what most heat meters have.
func usualRegisters(model string) []uint16 {
	m, ok := catalog.ModelByName(model)
	if !ok {
		m = catalog.FamilyModel(catalog.Heat)
	}
	return m.Registers
}

// usual are the registers that the settings ask for, or those that are usual, without
// what the meter is known not to have.
func (d *device) usual() []uint16 {
	ids := d.cfg.Registers
	switch {
	case len(ids) > 0:
	case d.record.Profile.Serial != "":
		ids = d.record.Profile.Usual()
	default:
		ids = usualRegisters(d.model().Name)
	}
	there := slices.DeleteFunc(slices.Clone(ids), d.record.Profile.Lacks)
	if len(there) == 0 { // better to ask in vain than not at all
		return ids
	}
	return there
}

// plan is what the next reading asks for: registers that change slowly only at the first
// reading of a day, or when all is wanted.
func (d *device) plan(now time.Time, all bool) []uint16 {
	ids := d.usual()
	if all || !sameDay(d.whole, now) {
		return ids
	}
	fast := slices.DeleteFunc(slices.Clone(ids), func(id uint16) bool { return catalog.Lookup(id).Pace == catalog.Daily })
	if len(fast) == 0 {
		return ids
	}
	return fast
}

// sameDay compares days of the local calendar.
func sameDay(a, b time.Time) bool {
	y, m, day := a.Date()
	y2, m2, day2 := b.Date()
	return y == y2 && m == m2 && day == day2
}

// surveying reports whether a census is to go on: of a meter that answers.
func (d *device) surveying() bool {
	return d.status.online && d.failures == 0 && !d.record.Profile.Complete()
}

// runsBack reports whether a counter that only grows became less: another meter, perhaps.
func (d *device) runsBack(values []numbers.Value) bool {
	for _, now := range values {
		if now.Register.Kind != catalog.Counter || d.cfg.Continue {
			continue
		}
		for _, old := range d.last {
			a, ok1 := old.Value.(kmp.Decimal)
			b, ok2 := now.Value.(kmp.Decimal)
			if old.Key == now.Key && ok1 && ok2 && b.Cmp(a) < 0 {
				return true
			}
		}
	}
	return false
}

// newProfile is that of a meter of which only the identity is known.
func (d *device) newProfile() census.Profile {
	old := d.record.Profile
	p := census.New(old.Serial)
	p.MeterType, p.Revision, p.Model = old.MeterType, old.Revision, old.Model
	return p
}

// account notes what happened between two states of the line's counters: as evidence, as
// the link's quality, and as what it cost the battery.
func (d *device) account(before, after kmp.Stats, e errand) {
	answers, requests := after.Answers-before.Answers, after.Requests-before.Requests
	received := after.BytesReceived - before.BytesReceived
	for i := range requests {
		d.quality.Note(i < answers)
	}
	cost := battery.Day{Frames: answers, Bytes: received + after.BytesSent - before.BytesSent, Awake: (after.Awake - before.Awake).Seconds()}
	if answers > 0 && !(e.survey && !e.command) { // what nobody answered woke nobody; a census goes with its reading
		cost.Reads = 1
		if e.command {
			cost.Commands = 1
		}
	}
	d.record.Usage.Note(time.Now(), cost)
	d.status.checksum += after.ChecksumErrors - before.ChecksumErrors
	d.status.echo = after.Echo
	if e.survey && !e.command {
		return
	}
	v := &d.evidence
	v.Sent, v.Received = after.BytesSent-before.BytesSent, received
	v.Answers, v.BadFrames = answers, after.BadFrames-before.BadFrames
	v.ChecksumErrors, v.Foreign = after.ChecksumErrors-before.ChecksumErrors, after.Foreign-before.Foreign
	v.Echo, v.EchoBefore = after.Echo, d.record.Echo
	v.FirstByte = after.FirstByte
	d.record.Echo = d.record.Echo || after.Echo
}

// judge classifies the newest visit by its evidence.
func (d *device) judge(err error, now time.Time) diagnosis.Code {
	v := &d.evidence
	v.Err, v.Now = err, now
	v.Family, v.LastGood, v.Sessions = d.model().Family, d.record.LastGood, 0
	for _, t := range d.record.Good {
		if d := now.Sub(t); d >= 0 && d < 24*time.Hour {
			v.Sessions++
		}
	}
	if x, ok := errors.AsType[*kmp.ExchangeError](err); ok {
		v.Sample = tail(x.Received, maxSample)
	}
	return diagnosis.Classify(*v)
}

// maxSample bytes of what came last go with a diagnosis.
const maxSample = 64

func tail(b []byte, most int) []byte { return b[max(0, len(b)-most):] }

// ascertain asks who is there where that is not certain.
func (p *poller) ascertain(ctx context.Context, d *device) error {
	if d.identified && !d.confirm && time.Since(d.confirmed) < confirmEvery {
		return nil
	}
	return p.identify(ctx, d)
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
	identity := text
	if d.cfg.Continue {
		identity = cmp.Or(d.place.Identity, d.place.Serial, text)
	}
	name := cmp.Or(d.cfg.Name, identity)
	if err := p.roster.claim(d.index, name, text); err != nil {
		d.identified = false
		return &identityError{err.Error()}
	}
	meter := Meter{Name: name, Label: d.cfg.Label, Serial: text, Identity: identity, Line: p.shown}
	model, known := catalog.ModelByName(d.cfg.Model)
	code := ""
	answer, err := p.conn.GetType(ctx, d.cfg.Address)
	switch {
	case err == nil:
		code, meter.Revision = fmt.Sprintf("%04X", answer.MeterType), answer.Revision.String()
		if !known {
			model, _ = catalog.ModelByType(answer.MeterType)
		}
	case lost(err):
		return err // the line went away in between; all is asked again next time
	default:
		p.log.Debug("meter does not tell its type", "meter", name, "error", err)
	}
	meter.Model = model.Title

	former := Meter{Name: d.place.Name, Label: d.cfg.Label, Serial: d.place.Serial, Identity: cmp.Or(d.place.Identity, d.place.Serial), Model: d.place.Model, Revision: d.place.Revision}
	previous := d.record
	if d.last != nil {
		previous.Announced = savedKeys(d.keys)
	}
	d.identified, d.confirm, d.confirmed, d.serial = true, false, time.Now(), serial
	d.status.meter = meter
	if d.record.Profile.Serial != text {
		d.keys, d.last, d.whole, d.again = nil, nil, time.Time{}, 0
		d.status.retained, d.status.unknown, d.status.hasInfo = nil, nil, false
		p.recall(d, text)
		d.keys = d.remembered()
	}
	profile := &d.record.Profile
	if profile.Revision != "" && meter.Revision != "" && profile.Revision != meter.Revision {
		p.log.Info("the meter has another software; its registers are found out anew", "meter", name, "from", profile.Revision, "to", meter.Revision)
		*profile = census.New(text)
	}
	profile.MeterType, profile.Model = cmp.Or(code, profile.MeterType), model.Name
	profile.Revision = cmp.Or(meter.Revision, profile.Revision)
	if former.Serial != "" && former.Serial != text {
		if previous.Profile.Serial != former.Serial { // it was exchanged while the bridge was off
			previous = p.remembers(former.Serial)
		}
		p.exchanged(d, former, previous)
	}
	if old := d.place.Identity; old != "" && old != identity && p.announce { // it is not continued any more
		p.put(Message{Topic: p.topics.meterDiscovery(old), Retain: true, Rank: RankDiscovery})
	}
	d.place.Serial, d.place.Name, d.place.Model, d.place.Revision = text, name, meter.Model, meter.Revision
	d.place.Identity = ""
	if identity != text {
		d.place.Identity = identity
	}
	p.usualInterval(d)
	p.save(d)
	p.keep()
	p.roster.update(d.index, d.status)
	p.info()
	p.log.Info("meter found", "meter", name, "serial", text, "model", meter.Model, "software", meter.Revision, "line", p.shown)
	return nil
}

// usualInterval reads a meter as often as its kind is usually read, where nobody chose.
func (p *poller) usualInterval(d *device) {
	if usual := d.model().Usual; !d.cfg.Chosen && usual > 0 && usual != d.cfg.Interval {
		p.newInterval(d, usual)
		p.log.Info("interval as usual for this kind of meter", "meter", d.status.meter.Name, "interval", usual)
	}
}

// recall fills in what is remembered of a meter.
func (p *poller) recall(d *device, serial string) {
	d.record = p.remembers(serial)
	if d.record.Profile.Serial != serial {
		d.record.Profile = census.New(serial)
	}
}

// remembers returns what is remembered of a meter, nothing if that is unsound.
func (p *poller) remembers(serial string) record {
	var m record
	found, err := p.store.Get("meter/"+serial, &m)
	if err == nil && found {
		err = m.check()
	}
	if err != nil {
		p.log.Warn("what was remembered of the meter is damaged; beginning anew", "serial", serial, "error", err)
		return record{}
	}
	return m
}

// recallPlace fills in what is remembered of the place and of the meter that was there
// last: who it was counts before it answers, as for a diagnosis.
func (p *poller) recallPlace(d *device) {
	var saved place
	if _, err := p.store.Get(d.placeKey(), &saved); err != nil || len(saved.Totals) > 4*MaxRegisters || len(saved.Offsets) > 4*MaxRegisters {
		p.log.Warn("what was remembered of the place is damaged; beginning anew", "meter", d.cfg.Name, "line", p.shown, "error", err)
		return
	}
	if _, err := strconv.ParseUint(saved.Serial, 10, 32); err != nil {
		return // nobody was there yet
	}
	d.place = saved
	identity := saved.Serial
	if d.cfg.Continue {
		identity = cmp.Or(saved.Identity, identity)
	}
	name := cmp.Or(d.cfg.Name, identity)
	if err := p.roster.claim(d.index, name, saved.Serial); err != nil {
		d.place = place{} // somebody else has it now
		return
	}
	d.status.meter = Meter{
		Name: name, Label: d.cfg.Label, Serial: saved.Serial, Identity: identity,
		Model: cmp.Or(d.status.meter.Model, saved.Model), Revision: saved.Revision, Line: p.shown,
	}
	p.recall(d, saved.Serial)
	d.keys = d.remembered()
}

// save has it remembered what is known of a meter and its place.
func (p *poller) save(d *device) {
	if p.store == nil {
		return
	}
	d.record.Announced = savedKeys(d.keys)
	if err := errors.Join(p.store.Put("meter/"+d.record.Profile.Serial, d.record), p.store.Put(d.placeKey(), d.place)); err != nil {
		p.log.Error("cannot remember the meter", "meter", d.status.meter.Name, "error", err)
	}
}

// keep writes at once what is remembered: what follows from it must not be forgotten by a
// crash.
func (p *poller) keep() {
	if err := p.store.Flush(); err != nil {
		p.log.Debug("cannot write DATA_DIR yet", "error", err) // whoever writes it as a rule tells
	}
}

// remembered are the keys that were announced before a restart and are still asked for.
// Derived ones come back with the registers that they are made of.
func (d *device) remembered() []announced {
	ids := d.usual()
	return slices.DeleteFunc(restoredKeys(d.record.Announced), func(a announced) bool {
		return !slices.Contains(ids, a.register.ID) || a.former
	})
}

// exchanged tells that another meter answers in the place of a former one. Either the
// place goes on under its identity, or the former's entities move to topics below its own
// serial number and are offline there.
func (p *poller) exchanged(d *device, former Meter, previous record) {
	now := d.status.meter
	p.log.Warn("another meter answers here", "meter", now.Name, "serial", now.Serial, "before", former.Serial, "continued", d.cfg.Continue)
	p.put(eventMessage(p.topics, time.Now(), "meter_changed", now.Name,
		map[string]any{"from": former.Serial, "to": now.Serial, "continued": d.cfg.Continue}))
	if d.cfg.Continue {
		return
	}
	d.place.Totals, d.place.Offsets = nil, nil
	alone := former.Name != now.Name // named by the serial number: the topics are its own
	former.Name = former.Serial
	p.put(availabilityMessage(p.topics, former.Name, false))
	switch {
	case alone:
		d.known, d.status.online = false, false
	case p.announce && len(previous.Announced) > 0:
		msg, err := meterDiscovery(p.topics, former, restoredKeys(previous.Announced), previous.Profile.Family, false, p.version, time.Minute)
		if err != nil {
			p.log.Error("cannot announce the former meter", "serial", former.Serial, "error", err)
			return
		}
		p.put(msg)
	case p.announce:
		p.put(Message{Topic: p.topics.meterDiscovery(former.Identity), Retain: true, Rank: RankDiscovery})
	}
}

// looked are the values of a reading of chosen registers, as the guards leave them. What is
// remembered stays as it was: a glance is no reading.
func (d *device) looked(r Reading) []numbers.Value {
	var copied numbers.State
	if b, err := json.Marshal(d.record.Numbers); err == nil {
		_ = json.NewDecoder(bytes.NewReader(b)).Decode(&copied) // what it wrote itself
	}
	values := copied.Judge(r.Time, d.record.Profile.Model, r.Values).Values
	values = slices.DeleteFunc(values, func(v numbers.Value) bool { return v.Register.ID == 0 })
	return d.shifted(values)
}

// shifted adds the offsets of a place that goes on with another meter.
func (d *device) shifted(values []numbers.Value) []numbers.Value {
	if !d.cfg.Continue {
		return values
	}
	values = slices.Clone(values)
	for i, v := range values {
		o, ok := d.place.Offsets[v.Key]
		if n, isNumber := v.Value.(kmp.Decimal); ok && isNumber && o.Serial == d.place.Serial {
			if sum, err := n.Add(o.Value); err == nil {
				values[i].Value = sum
			}
		}
	}
	return values
}

// join lets the counters of a place go on with another meter where that is wanted, and keeps
// the totals as they are published.
func (d *device) join(values []numbers.Value) []numbers.Value {
	if d.place.Totals == nil {
		d.place.Totals, d.place.Offsets = make(map[string]kmp.Decimal), make(map[string]offset)
	}
	counters := func(do func(key string, n kmp.Decimal), values []numbers.Value) {
		for _, v := range values {
			if n, ok := v.Value.(kmp.Decimal); ok && v.Register.Kind == catalog.Counter {
				do(v.Key, n)
			}
		}
	}
	counters(func(key string, n kmp.Decimal) {
		o, joined := d.place.Offsets[key]
		switch {
		case joined && o.Serial == d.place.Serial || len(d.place.Offsets) >= 2*MaxRegisters:
		case joined:
			if difference, err := d.place.Totals[key].Add(n.Neg()); err == nil {
				d.place.Offsets[key] = offset{d.place.Serial, difference}
			}
		default:
			d.place.Offsets[key] = offset{Serial: d.place.Serial}
		}
	}, values)
	values = d.shifted(values)
	counters(func(key string, n kmp.Decimal) {
		if _, joined := d.place.Offsets[key]; joined {
			d.place.Totals[key] = n
		}
	}, values)
	return values
}

// good notes a good reading.
func (p *poller) good(d *device, r Reading) {
	d.status.ok++
	d.status.lastError = ""
	d.status.duration = r.Duration
	d.failures = 0
	d.record.LastGood = r.Time
	d.record.Good = append(d.record.Good, r.Time)
	d.record.Good = slices.Clone(d.record.Good[max(0, len(d.record.Good)-maxGood):])
	p.diagnose(d, nil, r.Time)
}

// diagnose publishes what a visit says about line and meter, and an event when that is
// something else than before.
func (p *poller) diagnose(d *device, err error, now time.Time) {
	code := d.judge(err, now)
	before := d.status.diagnosis
	if code != before.code {
		d.status.diagnosis = condition{code: code, since: now}
	}
	d.status.diagnosis.evidence = d.evidence
	if code == before.code || d.status.meter.Name == "" {
		return
	}
	if before.code == "" && code == diagnosis.OK {
		return // nothing has changed; it has only been found out
	}
	p.put(eventMessage(p.topics, now, "diagnosis", d.status.meter.Name, map[string]any{
		"from": optional(string(before.code)), "to": code, "text": d.evidence.Text(code), "next_step": diagnosis.Lookup(code).NextStep,
	}))
}

// succeed publishes a good reading. It returns the state, and whether a second reading
// soon would settle a doubt.
func (p *poller) succeed(d *device, r Reading) (state []byte, again bool) {
	p.good(d, r)
	d.status.lastReading = r.Time
	name := r.Meter.Name
	if slices.Equal(r.asked, d.usual()) {
		d.whole = r.Time
	}

	result := d.record.Numbers.Judge(r.Time, d.record.Profile.Model, r.Values)
	r.Values = d.join(result.Values)
	hadInfo := d.status.hasInfo
	r.Info, d.status.hasInfo = result.Info, hadInfo || result.HasInfo
	if !result.HasInfo {
		r.Info = nil
	} else if r.Info == nil {
		r.Info = []string{}
	}
	r.HasInfo = d.status.hasInfo
	d.status.unknown = result.Unknown
	for key := range result.Unknown {
		if i := slices.IndexFunc(r.Values, func(v numbers.Value) bool { return v.Key == key }); i < 0 {
			delete(d.status.unknown, key)
		}
	}
	if again = result.Again && d.again < secondReadings; again {
		d.again++
	} else {
		d.again = 0
	}

	var news bool
	var changes []unitChange
	d.keys, news, changes = announce(d.keys, r.Values, d.usual())
	r.Values = d.repeated(r)
	var msgs []Message
	if p.announce && (news || d.status.hasInfo && !hadInfo || len(d.status.retained) == 0) {
		msg, err := meterDiscovery(p.topics, r.Meter, d.keys, d.model().Family, d.status.hasInfo, p.version, p.roster.shortest(d.index))
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
	for _, e := range result.Events {
		if e.Type == numbers.ValueHeld {
			p.log.Warn("a value is held back", "meter", name, "register", e.Data["register"], "held", e.Data["held"], "reason", e.Data["reason"])
		}
		msgs = append(msgs, eventMessage(p.topics, r.Time, e.Type, name, e.Data))
	}
	d.last = r.Values
	messages := stateMessages(p.topics, r, d.keys, p.each)
	p.put(append(msgs, messages...)...)
	d.status.retained = append(discoveryOnly(d.status.retained), messages[0])
	p.publish(d)
	p.save(d)
	if len(r.Values) == 0 && d.status.ok == 1 {
		p.log.Warn("the meter has none of the registers; set REGISTERS or the option registers", "meter", name)
	}
	return messages[0].Payload, again
}

// repeated are the values of a reading, with those behind them that were not asked for this
// time, since they change once a day.
func (d *device) repeated(r Reading) []numbers.Value {
	values := slices.Clone(r.Values)
	ids := d.usual()
	for _, old := range d.last {
		id := old.Register.ID
		if id != 0 && slices.Contains(ids, id) && !slices.Contains(r.asked, id) &&
			!slices.ContainsFunc(values, func(v numbers.Value) bool { return v.Key == old.Key }) {
			values = append(values, old)
		}
	}
	return values
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

// surveyed tells that a census is complete.
func (p *poller) surveyed(d *device) {
	profile := d.record.Profile
	name := d.status.meter.Name
	p.log.Info("census complete", "meter", name, "registers", len(profile.Registers), "family", profile.Family)
	p.put(eventMessage(p.topics, time.Now(), "census", name, map[string]any{
		"serial": profile.Serial, "family": profile.Family, "registers": len(profile.Registers), "absent": len(profile.Absent),
	}))
	p.usualInterval(d)
	p.save(d)
	p.keep()
	p.publish(d)
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
			other.evidence = diagnosis.Evidence{Address: other.cfg.Address}
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
	p.diagnose(d, err, now)
	class := diagnosis.Lookup(d.status.diagnosis.code)

	var open *lineError
	if errors.As(err, &open) {
		d.due = p.reopen
	} else {
		d.due = now.Add(min(d.cfg.Interval, retryDelay(d.failures, class.Code)))
		if d.evidence.Answers > 0 { // the meter was awake: that counts
			d.due = p.afford(d, now, d.due)
		}
	}
	p.log.Debug("reading failed", "meter", d.status.meter.Name, "line", p.shown, "failures", d.failures, "diagnosis", class.Code, "error", err)
	if !d.known && d.failures == 1 || d.status.online && d.failures >= offlineAfter {
		d.known, d.status.online = true, false
		if name := d.status.meter.Name; name != "" {
			p.put(availabilityMessage(p.topics, name, false),
				eventMessage(p.topics, now, "meter_offline", name, map[string]any{"reason": why, "error": d.status.lastError, "diagnosis": class.Code}))
		}
	}
	if !d.status.online && !d.logged && open == nil { // a line that is not there has been logged as such
		d.logged = true
		p.log.Warn("meter is offline", "meter", d.status.meter.Name, "line", p.shown, "diagnosis", class.Code, "error", err, "next_step", class.NextStep)
	}
	p.publish(d)
}

// publish shares what is known of a meter: as diagnostics and diagnosis, and with the roster.
func (p *poller) publish(d *device) {
	d.status.usage = d.record.Usage
	d.status.usage.Days = slices.Clone(d.record.Usage.Days) // it leaves this goroutine
	d.status.quality, d.status.rated = d.quality.Percent()
	d.status.budget = d.budget(p.started)
	s := d.status
	if s.meter.Name != "" {
		msgs := []Message{diagnosticsMessage(p.topics, s, time.Now()), diagnosisMessage(p.topics, s)}
		p.put(msgs...)
		s.retained = slices.Clone(s.retained)
		if d.known {
			s.retained = append(s.retained, availabilityMessage(p.topics, s.meter.Name, s.online))
		}
		s.retained = append(s.retained, msgs...)
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
