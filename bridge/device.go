package bridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
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

// device is what a poller knows of one of its meters. Only its goroutine touches it.
type device struct {
	cfg      MeterConfig
	index    int // in the settings, over all lines
	schedule schedule
	due      time.Time
	survey   time.Time // when its census goes on
	surveyed bool      // it is complete

	identified bool
	confirm    bool // ask for the serial number before the next reading
	confirmed  time.Time
	serial     uint32
	strange    bool // its register of the serial number holds another number
	record     record
	place      place

	keys  []announced
	last  []numbers.Value   // as published by the newest good reading
	whole time.Time         // when also those registers were read that are read once a day
	again int               // second readings in a row
	units map[string]string // registers that came with another unit last time, and the key

	logs      logVisits
	clockTold bool   // Home Assistant knows of the clock
	rowsNamed string // the serial number and name that belong were told last

	stretched bool // the budget puts off what the schedule wants

	known    bool // whether online says something yet
	logged   bool // the outage is in the log
	failures int  // in a row
	quality  diagnosis.Quality
	evidence diagnosis.Evidence // of the newest visit

	explained      Message   // the diagnosis as published
	explainedSince time.Time // when its code began
	woke           bool      // the meter answered in it, well or not
	status         status
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

// usual are the registers that the settings ask for, or those that are usual and those that
// were announced when less was known, without what the meter is known not to have.
func (d *device) usual() []uint16 {
	ids := d.cfg.Registers
	switch {
	case len(ids) > 0:
	case d.record.Profile.Serial != "":
		ids = d.record.Profile.Usual()
		for _, a := range d.keys {
			if id := a.register.ID; d.record.Profile.Has(id) && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
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
	if !d.surveyed {
		d.surveyed = d.record.Profile.Complete()
	}
	return d.status.online && d.failures == 0 && !d.surveyed
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
func (d *device) account(began time.Time, before, after kmp.Stats, e errand) {
	answers, requests := after.Answers-before.Answers, after.Requests-before.Requests
	received := after.BytesReceived - before.BytesReceived
	for i := range requests {
		d.quality.Note(i < answers)
	}
	cost := battery.Day{Frames: answers, Bytes: received + after.BytesSent - before.BytesSent, Awake: (after.Awake - before.Awake).Seconds()}
	d.woke = after.Awake > before.Awake // what nobody answered woke nobody; damaged answers cost as much
	rides := e.survey && !e.command || e.log && began.Sub(d.record.LastGood) < logRides
	if d.woke && !rides { // a census goes with its reading, and so does the log behind one
		cost.Reads = 1
		if e.command {
			cost.Commands = 1
		}
	}
	d.record.Usage.Note(time.Now(), cost)
	d.status.checksum += after.ChecksumErrors - before.ChecksumErrors
	d.status.echo = after.Echo
	if e.survey && !e.command || e.log {
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

// alignFrames of an alignment count as one reading: as many answers as it takes to keep the
// meter awake for half a minute.
const alignFrames = 64

// aligned notes what an alignment cost the battery, and says of the line.
func (d *device) aligned(s kmp.Stats, sum diagnosis.Summary) {
	for i := range uint64(sum.Reads) { // one that somebody broke off says nothing
		d.quality.Note(i < s.Answers)
	}
	cost := battery.Day{Frames: s.Answers, Bytes: s.BytesReceived + s.BytesSent, Awake: s.Awake.Seconds()}
	if s.Awake > 0 {
		cost.Reads = 1 + s.Answers/alignFrames
		cost.Commands = cost.Reads
	}
	d.record.Usage.Note(time.Now(), cost)
	d.status.checksum += s.ChecksumErrors
	d.status.echo = s.Echo
}

// judge classifies the newest visit by its evidence.
func (d *device) judge(err error, now time.Time) diagnosis.Code {
	v := &d.evidence
	v.Err, v.Now, v.Failures = err, now, 0
	if d.status.ok > 0 { // what was before a restart is too long ago to be counted on
		v.Failures = d.failures
	}
	v.Family, v.LastGood, v.Sessions = d.model().Family, d.record.LastGood, 0
	for _, t := range d.record.Good {
		if age := now.Sub(t); age >= 0 && age < 24*time.Hour {
			v.Sessions++
		}
	}
	if x, ok := errors.AsType[*kmp.ExchangeError](err); ok {
		v.Sample = x.Received
	}
	return diagnosis.Classify(*v)
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
