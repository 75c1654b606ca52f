package bridge

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"kmp2mqtt/bridge/numbers"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/diagnosis"
)

// good notes a good reading.
func (p *poller) good(d *device, r Reading) {
	last := d.record.LastGood
	d.status.ok++
	d.status.lastError = ""
	d.failures = 0
	d.record.LastGood = r.Time
	d.record.Good = append(d.record.Good, r.Time)
	d.record.Good = slices.Clone(d.record.Good[max(0, len(d.record.Good)-maxGood):])
	p.diagnose(d, nil, r.Time)
	p.wantLogs(d, r.Time, last)
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

// succeed publishes the values of a good reading. It returns the state, and whether a second
// reading soon would settle a doubt.
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
	doubted := d.status.unknown
	d.status.unknown = result.Unknown
	for key := range result.Unknown {
		if i := slices.IndexFunc(r.Values, func(v numbers.Value) bool { return v.Key == key }); i < 0 {
			delete(d.status.unknown, key)
		}
	}
	var doubtful bool
	r.Values, doubtful = d.settled(r.Values)
	if again = (result.Again || doubtful) && d.again < secondReadings; again {
		d.again++
		d.whole = time.Time{} // the doubt may be about what is read once a day
	} else {
		d.again = 0
	}

	var news bool
	var changes []unitChange
	d.keys, news, changes = announce(d.keys, r.Values, d.usual())
	r.Values = d.repeated(r)
	var msgs []Message
	if p.announce && (news || d.status.hasInfo && !hadInfo || d.status.drift != nil && !d.clockTold || len(d.status.retained) == 0) {
		msg, err := discoveryMessage(p.topics, r.Meter, d.keys, d.cfg.Entities, d.model().Family, d.status.hasInfo, d.status.drift != nil, p.version, p.roster.shortest(d.index))
		if err != nil {
			p.log.Error("cannot announce the meter to Home Assistant", "meter", name, "error", err)
		} else {
			msgs = append(msgs, msg)
			d.status.retained, d.clockTold = []Message{msg}, d.status.drift != nil
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
		key, _ := e.Data["key"].(string)
		if _, known := doubted[key]; e.Type == numbers.ValueHeld && !known { // once, however long it lasts
			p.log.Warn("a value is held back", "meter", name, "register", e.Data["register"], "held", e.Data["held"], "reason", e.Data["reason"])
		}
		msgs = append(msgs, eventMessage(p.topics, r.Time, e.Type, name, e.Data))
	}
	if d.cfg.Continue {
		p.rowsBelong(d)
	}
	first := d.last == nil
	d.last = r.Values
	d.status.values, d.status.info = r.Values, r.Info
	p.charts[d.index].note(d.cfg, r)
	messages := stateMessages(p.topics, r, d.keys, p.each)
	messages = append(messages, compatMessages(p.compat, d.index, r, d.status.unknown)...)
	p.put(append(msgs, messages...)...)
	d.status.retained = append(discoveryOnly(d.status.retained), messages[0])
	p.save(d)
	if first {
		p.keep() // where a place goes on is decided now
	}
	if len(r.Values) == 0 && d.status.ok == 1 {
		p.log.Warn("the meter has none of the registers; set REGISTERS or the option registers", "meter", name)
	}
	return messages[0].Payload, again
}

// maxKeys bounds the keys of a meter's state: several units of each register.
const maxKeys = 4 * MaxRegisters

// settled leaves out the values that come with another unit for the first time: one wrong byte
// would make a key of it, so a second reading has to agree. It reports whether there are any.
func (d *device) settled(values []numbers.Value) (there []numbers.Value, doubtful bool) {
	seen := d.units
	d.units = make(map[string]string)
	for _, v := range values {
		name := v.Register.Name
		current := func(a announced) bool { return a.register.Name == name && !a.former }
		i := slices.IndexFunc(d.keys, current)
		if i < 0 || d.keys[i].key == v.Key || seen[name] == v.Key {
			there = append(there, v)
			continue
		}
		if len(d.keys) < maxKeys { // only a meter that has lost its mind has more
			d.units[name] = v.Key
			doubtful = true
		}
	}
	return there, doubtful
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
	if !p.roster.owns(d.index, d.status.meter.Name) { // another meter has the number that was its name
		d.status.meter, d.status.retained = Meter{Label: d.cfg.Label, Line: p.shown}, nil
		d.known, d.status.online = false, false
	}
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
		delay := retryDelay(d.failures, class.Code)
		if d.failures < offlineAfter { // it may have been nothing
			delay = min(delay, d.cfg.Interval)
		}
		d.due = now.Add(delay)
		if d.woke { // that counts
			d.due = p.afford(d, now, d.due)
			p.save(d)
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
	d.status.next = d.due
	d.status.usage = d.record.Usage
	d.status.usage.Days = slices.Clone(d.record.Usage.Days) // it leaves this goroutine
	d.status.quality, d.status.rated = d.quality.Percent()
	d.status.budget = d.budget(p.started)
	d.status.drift = d.record.Logs.Drift
	d.status.profile = d.record.Profile
	s := d.status
	if s.meter.Name != "" {
		msgs := []Message{diagnosticsMessage(p.topics, s, time.Now())}
		if d.explained.Topic != p.topics.meter(s.meter.Name, "diagnosis") || d.failures > 0 || s.diagnosis.since != d.explainedSince { // that all is well need not be said again
			d.explained, d.explainedSince = diagnosisMessage(p.topics, s), s.diagnosis.since
			msgs = append(msgs, d.explained)
		}
		p.put(msgs...)
		s.retained = slices.Clone(s.retained)
		if d.known {
			s.retained = append(s.retained, availabilityMessage(p.topics, s.meter.Name, s.online))
		}
		s.retained = append(s.retained, msgs[0], d.explained)
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
