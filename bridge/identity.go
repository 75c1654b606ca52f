package bridge

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"kmp2mqtt/bridge/battery"
	"kmp2mqtt/bridge/numbers"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/census"
	"kmp2mqtt/kmp/diagnosis"
)

// identityError says that a meter is not one that this place may have.
type identityError struct{ text string }

func (e *identityError) Error() string { return "bridge: " + e.text }

// Is makes it match the error by which a diagnosis knows it.
func (e *identityError) Is(target error) bool { return target == diagnosis.ErrWrongMeter }

// record is what is remembered of a meter, by its serial number. It survives a restart.
type record struct {
	Profile   census.Profile `json:"profile"`
	Numbers   numbers.State  `json:"numbers"`
	Usage     battery.Usage  `json:"usage"`
	LastGood  time.Time      `json:"last_good"`
	Good      []time.Time    `json:"good"`      // the newest good readings, at most maxGood
	Echo      bool           `json:"echo"`      // requests have come back
	Announced []savedKey     `json:"announced"` // to Home Assistant
	HasInfo   bool           `json:"has_info"`  // the state has a list of infos
	Logs      logRecord      `json:"logs"`
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

// maxDecimals bounds the digits behind the point that a meter can send.
const maxDecimals = 63

func restoredKeys(saved []savedKey) []announced {
	var keys []announced
	derived := numbers.Derived()
	for _, k := range saved {
		register, ok := catalog.ByName(k.Register)
		if i := slices.IndexFunc(derived, func(r catalog.Register) bool { return r.Name == k.Register }); i >= 0 {
			register, ok = derived[i], true
		}
		twice := slices.ContainsFunc(keys, func(a announced) bool { return a.key == k.Key })
		if ok && !twice && catalog.Key(register.Name, k.Unit) == k.Key { // a file may hold anything
			keys = append(keys, announced{register, k.Unit, k.Key, min(max(0, k.Decimals), maxDecimals), k.Former})
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

// check tells whether a place that comes from a file is sound.
func (s place) check() error {
	if len(s.Totals) > 4*MaxRegisters || len(s.Totals) != len(s.Offsets) {
		return errors.New("bridge: too much is remembered, or too little")
	}
	if _, err := strconv.ParseUint(s.Identity, 10, 32); s.Identity != "" && err != nil {
		return errors.New("bridge: the identity is no serial number")
	}
	for _, text := range []string{s.Name, s.Model, s.Revision} {
		if len(text) > maxNameLength || checkText(text) != nil {
			return errors.New("bridge: a text is too long or not text")
		}
	}
	for key, o := range s.Offsets { // totals and offsets belong together
		total, ok := s.Totals[key]
		if !ok || max(len(total.String()), len(o.Value.String())) > maxTotal {
			return errors.New("bridge: totals and offsets do not fit each other")
		}
	}
	return nil
}

// maxTotal bounds a total and an offset in characters.
const maxTotal = 40

// offset is what is added to a counter so that the total goes on where that of the former
// meter ended.
type offset struct {
	Serial string      `json:"serial"` // of the meter whose counter it is
	Value  kmp.Decimal `json:"value"`
}

// maxPlaceKey bounds the part of a place's key that is made of a line.
const maxPlaceKey = 200

// placeKey is the place's key in the store.
func (d *device) placeKey() string {
	at := d.cfg.Line + "@" + strconv.Itoa(int(d.cfg.Address))
	if len(at) > maxPlaceKey || strings.ContainsAny(at, "\"\\") { // no key of the store
		at = fmt.Sprintf("%x", sha256.Sum256([]byte(at)))
	}
	return "place/" + cmp.Or(d.cfg.Name, at)
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
	if d.place.Serial != "" && d.place.Serial != text { // a checksum may fit by chance, but not twice
		again, err := p.conn.GetSerialNo(ctx, d.cfg.Address)
		if err != nil {
			return err
		}
		if again != serial {
			return &identityError{"the meter tells two serial numbers, one after the other"}
		}
	}
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
		d.keys, d.last, d.whole, d.again, d.strange = nil, nil, time.Time{}, 0, false
		d.status.retained, d.status.unknown, d.status.hasInfo, d.status.drift = nil, nil, false, nil
		d.status.values, d.status.info = nil, nil
		p.recall(d, text)
		d.keys = d.remembered()
	}
	profile := &d.record.Profile
	if code == "" && profile.MeterType != "" { // the answer got lost: what the meter told before still counts
		code, meter.Revision = profile.MeterType, profile.Revision
		if kind, err := strconv.ParseUint(code, 16, 16); err == nil && !known {
			model, _ = catalog.ModelByType(uint16(kind))
		}
		meter.Model = model.Title
		d.status.meter = meter
	}
	if profile.Revision != "" && meter.Revision != "" && profile.Revision != meter.Revision {
		p.log.Info("the meter has another software; its registers are found out anew", "meter", name, "from", profile.Revision, "to", meter.Revision)
		*profile = census.New(text)
		d.record.Logs.Silent = 0
	}
	profile.MeterType, profile.Model = cmp.Or(code, profile.MeterType), model.Name
	profile.Revision = cmp.Or(meter.Revision, profile.Revision)
	d.surveyed = false // what there is to ask depends on all that
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
	p.rowsBelong(d)
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

// remembers returns what is remembered of a meter. What is damaged is left out: the rest
// still counts.
func (p *poller) remembers(serial string) record {
	var r record
	_, err := p.store.Get("meter/"+serial, &r)
	if err == nil && r.check() == nil {
		return r
	}
	var parts struct {
		Profile census.Profile  `json:"profile"`
		Usage   battery.Usage   `json:"usage"`
		Other   json.RawMessage `json:"numbers"` // whatever it is
	}
	_, partsErr := p.store.Get("meter/"+serial, &parts)
	r = record{}
	if partsErr == nil && parts.Profile.Check() == nil {
		r.Profile = parts.Profile
	}
	if partsErr == nil && parts.Usage.Check() == nil {
		r.Usage = parts.Usage
	}
	p.log.Warn("a part of what was remembered of the meter is damaged; beginning anew with that", "serial", serial, "error", err)
	return r
}

// recallPlace fills in what is remembered of the place and of the meter that was there
// last: who it was counts before it answers, as for a diagnosis.
func (p *poller) recallPlace(d *device) {
	var saved place
	_, err := p.store.Get(d.placeKey(), &saved)
	if err = cmp.Or(err, saved.check()); err != nil {
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
	if err := p.roster.recall(d.index, name, saved.Serial); err != nil {
		d.place = place{} // somebody else has it now
		return
	}
	d.status.meter = Meter{
		Name: name, Label: d.cfg.Label, Serial: saved.Serial, Identity: identity,
		Model: cmp.Or(d.status.meter.Model, saved.Model), Revision: saved.Revision, Line: p.shown,
	}
	p.recall(d, saved.Serial)
	d.keys = d.remembered()
	d.status.usage, d.status.hasInfo, d.status.drift = d.record.Usage, d.record.HasInfo, d.record.Logs.Drift
	p.rowsBelong(d)
	if !p.announce || len(d.keys) == 0 {
		return
	}
	keys := slices.Clone(d.keys)
	for _, a := range restoredKeys(d.record.Announced) { // Home Assistant knows what is derived, too
		if a.register.ID == 0 && !a.former {
			keys = append(keys, a)
		}
	}
	msg, err := discoveryMessage(p.topics, d.status.meter, keys, d.cfg.Entities, d.model().Family, d.record.HasInfo, d.status.drift != nil, p.version, p.roster.shortest(d.index))
	if err != nil {
		p.log.Warn("cannot announce the meter before it answers", "meter", name, "error", err)
		return
	}
	d.status.retained, d.clockTold = []Message{msg}, d.status.drift != nil
	p.put(msg)
}

// save has it remembered what is known of a meter and its place.
func (p *poller) save(d *device) {
	if p.store == nil || d.record.Profile.Serial == "" {
		return
	}
	d.record.Announced, d.record.HasInfo = savedKeys(d.keys), d.status.hasInfo
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
	keys := restoredKeys(d.record.Announced)
	if len(d.cfg.Registers) == 0 {
		return slices.DeleteFunc(keys, func(a announced) bool { return !d.record.Profile.Has(a.register.ID) || a.former })
	}
	return slices.DeleteFunc(keys, func(a announced) bool { return !slices.Contains(d.cfg.Registers, a.register.ID) || a.former })
}

// exchanged tells that another meter answers in the place of a former one. Either the
// place goes on under its identity, or the former's entities move to topics below its own
// serial number and are offline there.
func (p *poller) exchanged(d *device, former Meter, previous record) {
	now := d.status.meter
	p.log.Warn("another meter answers here", "meter", now.Name, "serial", now.Serial, "before", former.Serial, "continued", d.cfg.Continue)
	p.put(eventMessage(p.topics, time.Now(), "meter_changed", now.Name,
		map[string]any{"from": former.Serial, "to": now.Serial, "continued": d.cfg.Continue}))
	if p.each && former.Name == now.Name { // what only the former counts must not stay
		for _, key := range append(restoredKeys(previous.Announced), announced{key: "info"}) {
			p.put(Message{Topic: p.topics.meter(now.Name, key.key), Retain: true, Rank: RankState})
		}
	}
	if d.cfg.Continue {
		return
	}
	d.place.Totals, d.place.Offsets = nil, nil
	alone := former.Name != now.Name // named by the serial number: the topics are its own
	if alone {
		d.known, d.status.online = false, false
	}
	if p.roster.elsewhere(d.index, former.Serial) {
		return // the two have changed places: it speaks for itself
	}
	former.Name = former.Serial
	p.put(availabilityMessage(p.topics, former.Name, false))
	switch {
	case alone:
	case p.announce && len(previous.Announced) > 0 && !d.cfg.idsOfPlace():
		msg, err := discoveryMessage(p.topics, former, restoredKeys(previous.Announced), d.cfg.Entities, previous.Profile.Family, false, false, p.version, time.Minute)
		if err != nil {
			p.log.Error("cannot announce the former meter", "serial", former.Serial, "error", err)
			return
		}
		p.put(msg)
	case p.announce:
		p.put(Message{Topic: p.topics.meterDiscovery(former.Identity), Retain: true, Rank: RankDiscovery})
	}
}

// shifted adds the offsets of a place that goes on with another meter.
func (d *device) shifted(values []numbers.Value) []numbers.Value {
	if !d.cfg.Continue {
		return values
	}
	values = slices.Clone(values)
	for i, v := range values {
		o, ok := d.place.Offsets[v.Key]
		n, isNumber := v.Value.(kmp.Decimal)
		if !ok || !isNumber {
			continue
		}
		values[i].Value = nil
		if sum, err := n.Add(o.Value); err == nil && o.Serial == d.place.Serial {
			values[i].Value = sum
		} else if total, ok := d.place.Totals[v.Key]; ok {
			values[i].Value = total // that of the former meter, until it is known how it goes on
		}
	}
	return values
}

// join lets the counters of a place go on with another meter where that is wanted, and keeps
// the totals as they are published.
func (d *device) join(values []numbers.Value) []numbers.Value {
	if d.place.Totals == nil || d.place.Offsets == nil {
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
			if difference, err := d.difference(values, key, n); err == nil {
				d.place.Offsets[key] = offset{d.place.Serial, difference}
			}
		default:
			coarse, _ := d.coarseOffset(values, key) // 0 without one: it is the first meter, or the counter is new
			d.place.Offsets[key] = offset{d.place.Serial, coarse}
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

// difference is what a counter of another meter is to be raised by. A number at full resolution
// may be known later than its register: it follows that one, as long as it does not fall.
func (d *device) difference(values []numbers.Value, key string, n kmp.Decimal) (kmp.Decimal, error) {
	difference, err := d.place.Totals[key].Add(n.Neg())
	if coarse, ok := d.coarseOffset(values, key); ok && err == nil && coarse.Cmp(difference) > 0 {
		return coarse, nil
	}
	return difference, err
}

// coarseOffset is the offset of the register whose number at full resolution a key is.
func (d *device) coarseOffset(values []numbers.Value, key string) (kmp.Decimal, bool) {
	i := slices.IndexFunc(values, func(v numbers.Value) bool { return v.Key == key })
	id, derived := numbers.Coarse(values[i].Register.Name)
	for _, v := range values {
		if o, ok := d.place.Offsets[v.Key]; derived && ok && v.Register.ID == id && o.Serial == d.place.Serial {
			return converted(o.Value, v.Unit, values[i].Unit)
		}
	}
	return kmp.Decimal{}, false
}

// converted is a number in another unit that is a power of ten apart.
func converted(d kmp.Decimal, from, to kmp.Unit) (kmp.Decimal, bool) {
	factor, ok := catalog.Convert(from, to)
	for e := -12; ok && e <= 12; e++ {
		if ten, _ := new(big.Rat).SetString("1e" + strconv.Itoa(e)); factor.Cmp(ten) == 0 {
			shifted, err := d.Shift(e)
			return shifted, err == nil
		}
	}
	return kmp.Decimal{}, false
}
