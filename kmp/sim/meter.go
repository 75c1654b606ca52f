package sim

import (
	"math"
	"slices"
	"sync"
	"time"

	"kmp2mqtt/kmp"
)

// Meter is a simulated meter. It may be read and served by several goroutines at
// once: each line is a head on the same meter.
type Meter struct {
	config Config // as it was at the beginning; what changes is below
	model  model
	index  map[uint16]int // of a register in rows

	energyUnit     kmp.Unit
	energyExponent int
	joules         int64 // in one step of the energy registers

	local    *time.Location // where the house stands
	standard *time.Location // the same without daylight saving time
	offset   int64          // of standard, in seconds east of Greenwich
	began    time.Time      // when, in real time, the simulation started

	mu         sync.Mutex
	state      state
	clock      clock
	powerless  [2]time.Duration // since the start: the last power cut
	logs       map[kmp.LogType]*record
	changes    []change
	serial     uint32
	faults     Faults
	missing    map[uint16]bool
	overridden map[uint16]kmp.Register
	written    map[uint16]kmp.Register // by PutRegister
	modules    map[kmp.Address]*module
	counts     Counts
	awake      time.Time // when the meter was woken last; zero: not served yet
	served     uint64    // lines so far
	contact    time.Time // when the last request came
	sessions   int       // since the port was open again
}

// Counts is what a meter has done on all its lines. Requests is the sum of Asleep,
// Throttled, Answers, Lost and the requests that no meter answers (another address, an
// unknown command).
type Counts struct {
	// Requests arrived as whole frames, at whatever address.
	Requests uint64
	// Asleep and Throttled are requests that were not answered because the meter was
	// asleep, silent or without power, or its port shut.
	Asleep, Throttled uint64
	// Answers left, whatever happened to them; one that is sent twice counts once.
	Answers uint64
	// Lost answers never left. The others left late, changed or with bytes around them;
	// one answer may have several faults.
	Lost, Late, Corrupted, Truncated, Duplicated, Noisy, Stray, Forged, Garbled, ASCII, Foreign uint64
	// Cut answers were longer than MaxAnswer and damaged for it.
	Cut uint64
}

// New returns a meter whose simulated time begins now. Errors name every field that
// is wrong and what it may be, and wrap [ErrOption].
func New(cfg Config) (*Meter, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	began := time.Now()
	if cfg.Start.IsZero() {
		cfg.Start = began.Round(0)
	}
	m := install(cfg)
	m.began = began
	m.start()
	return m, nil
}

// install returns the meter when it was installed, long before the start. The fields
// of cfg are set and checked.
func install(cfg Config) *Meter {
	m := &Meter{config: cfg, serial: cfg.Serial, index: map[uint16]int{}, logs: map[kmp.LogType]*record{}, overridden: map[uint16]kmp.Register{}, written: map[uint16]kmp.Register{}}
	m.model, _ = modelByName(cfg.Model) // checked before, as is the unit
	m.energyUnit, _, _ = energyUnitByName(cfg.EnergyUnit)
	switch m.energyUnit {
	case kmp.UnitGJ:
		m.joules, m.energyExponent = 1e9, m.model.gj
	case kmp.UnitMWh:
		m.joules, m.energyExponent = 3600e6, m.model.mwh
	default:
		m.joules, m.energyExponent = 3600e3, m.model.kwh
	}
	for range -m.energyExponent {
		m.joules /= 10
	}
	for i, r := range m.model.rows {
		if r.widths[m.model.column] > 0 {
			m.index[r.id] = i
		}
	}
	start := cfg.Start
	m.local = start.Location()
	_, offset := start.Zone()
	if start.IsDST() {
		offset -= 3600
	}
	m.standard = time.FixedZone("", offset)
	m.offset = int64(offset)
	h := newHouse(cfg.Seed)
	h.kind, h.cooling = m.model.kind, cfg.Cooling
	m.state = installed(h, m.seconds(0))
	m.clock = clock{shown: cfg.ClockOffset, drift: cfg.ClockDrift / 1e6}
	m.cutPower(cfg.PowerCut.After, cfg.PowerCut.For)
	m.modules = newModules(m)
	return m
}

// start brings a meter that was installed to the start of the simulation, when its
// faults begin.
func (m *Meter) start() {
	m.record(-1)
	m.state.advance(m.seconds(0), int64(m.config.Integration/time.Second))
	m.setFaults(m.config.Faults)
}

// maxElapsed is when simulated time stands still: after 200 years.
const maxElapsed = 200 * 365 * 24 * time.Hour

// elapsed is the simulated time since the start.
func (m *Meter) elapsed() time.Duration {
	d := float64(time.Since(m.began)) * m.config.Speed
	return time.Duration(math.Min(d, float64(maxElapsed)))
}

// Now returns the simulated time.
func (m *Meter) Now() time.Time { return m.config.Start.Add(m.elapsed()) }

// Read returns what the meter would send for a register now; false if it has no such
// register. Missing registers are missing here, too.
func (m *Meter) Read(id uint16) (kmp.Register, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.register(id, m.advance())
}

// registers reads several registers at one moment and leaves out those it does not have.
func (m *Meter) registers(ids []uint16) []kmp.Register {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.advance()
	var list []kmp.Register
	for _, id := range ids {
		if r, ok := m.register(id, now); ok {
			list = append(list, r)
		}
	}
	return list
}

// advance brings the state to the last step of the grid and returns what the meter's
// clock shows. m.mu is held.
func (m *Meter) advance() time.Time { return m.advanceTo(m.elapsed()) }

// advanceTo is advance to a time since the start.
func (m *Meter) advanceTo(now time.Duration) time.Time {
	m.record(now)
	m.state.advance(m.seconds(now), int64(m.config.Integration/time.Second))
	return m.config.Start.Add(m.clock.at(now))
}

// change is something that was done to a meter, and when, since the start.
type change struct {
	at time.Duration
	do func(m *Meter, now time.Duration)
}

// change does something to the meter now. It is remembered when the meter has logs, so
// that a log that nobody has read yet can still be made. m.mu is held.
func (m *Meter) change(do func(m *Meter, now time.Duration)) {
	now := m.elapsed()
	m.advanceTo(now)
	if m.model.kind == heat {
		m.changes = append(m.changes, change{now, do})
	}
	do(m, now)
}

// Registers returns the ids of the registers that the meter answers, in ascending order.
func (m *Meter) Registers() []uint16 {
	ids := []uint16{registerClock, registerDate}
	switch {
	case m.model.column == in603:
		ids = append(ids, registerDateTime)
	case m.model.kind == electricity:
		ids = append(ids, registerRTC, registerType, registerFullType)
	}
	for id := range m.index {
		ids = append(ids, id)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.overridden {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	ids = slices.DeleteFunc(ids, func(id uint16) bool { return m.missing[id] })
	slices.Sort(ids)
	return ids
}

// Wake wakes a meter that sleeps (see Faults.SleepAfter), as a key or a magnet does.
func (m *Meter) Wake() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.awake = time.Now()
}

// SetFaults changes what is wrong from now on, for tests and demonstrations. A value
// that [New] would refuse is no error here: a chance below 0 is never and one above 1
// always, the rest is as if it were not set.
func (m *Meter) SetFaults(f Faults) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f = f.withDefaults()
	if f.Sensor == m.faults.Sensor && f.Info == m.faults.Info { // no row of a log is another for it
		m.advance()
		m.setFaults(f)
		return
	}
	m.change(func(m *Meter, _ time.Duration) { m.setFaults(f) })
}

// setFaults is SetFaults while m.mu is held, or before anybody else knows m.
func (m *Meter) setFaults(f Faults) {
	f.MissingRegisters = slices.Clone(f.MissingRegisters)
	switch m.model.kind {
	case water:
		f.Sensor, f.Info = "", f.Info&math.MaxUint16
	case electricity:
		f.Sensor, f.Info = "", 0
	}
	m.faults = f
	m.missing = map[uint16]bool{}
	for _, id := range f.MissingRegisters {
		m.missing[id] = true
	}
	_, m.state.blind = sensors[f.Sensor]
	if m.state.blind {
		m.state.flow, m.state.power = 0, 0
	}
}

// fault returns what is wrong at the moment.
func (m *Meter) fault() Faults {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.faults
}

// SetSerial gives the meter another serial number, for tests and demonstrations: on
// the line it is another meter that happens to show the same values.
func (m *Meter) SetSerial(n uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.serial = n
}

// Replace puts a new meter with this serial number in the place of the old one, for
// tests and demonstrations: the house lives on, all counters begin at 0 and all logs
// empty. The clock goes on as it was.
func (m *Meter) Replace(serial uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.serial = serial
	m.change(func(m *Meter, _ time.Duration) {
		m.state.begin()
		clear(m.written)
		for _, r := range m.logs {
			r.newest = 0
		}
		for _, l := range m.modules {
			l.read, l.sent = 0, 0
		}
	})
}

// PowerCut takes the power from the meter for d of simulated time, from now on: it
// answers nothing, counts nothing and writes no rows of logs. Its clock runs on. The
// power comes back earlier when PowerCut is called again, with 0, and another cut that
// was still to come does not.
func (m *Meter) PowerCut(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d = min(d, maxElapsed)
	m.change(func(m *Meter, now time.Duration) { m.cutPower(now, d) })
}

// cutPower takes the power at a time since the start.
func (m *Meter) cutPower(at, d time.Duration) {
	m.powerless, m.state.dark = [2]time.Duration{at, at}, [2]int64{}
	if d > 0 {
		m.powerless[1], m.state.dark = at+d, [2]int64{m.seconds(at), m.seconds(at + d)}
	}
}

// dark reports whether the meter has no power at a time since the start.
func (m *Meter) dark(at time.Duration) bool { return at >= m.powerless[0] && at < m.powerless[1] }

// Override lets the meter send r for register id instead of its own value, also for
// one that it does not have, for tests and demonstrations. An r without bytes (the
// zero Register) ends that. More than 255 bytes are cut off. Logs take the value, too,
// when it has the unit, the exponent and the width of the meter's own.
func (m *Meter) Override(id uint16, r kmp.Register) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.override(id, r)
}

// override is Override while m.mu is held.
func (m *Meter) override(id uint16, r kmp.Register) {
	r.ID, r.Raw = id, slices.Clone(r.Raw[:min(len(r.Raw), math.MaxUint8)])
	m.change(func(m *Meter, _ time.Duration) {
		if len(r.Raw) == 0 {
			delete(m.overridden, id)
			return
		}
		m.overridden[id] = r
	})
}

// Counts returns what the meter has done so far.
func (m *Meter) Counts() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.counts
}

// count changes the counts.
func (m *Meter) count(change func(*Counts)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.counts)
}

// sessionPause is the pause between two requests that ends a session.
const sessionPause = 10 * time.Second

// throttled notes a request and reports whether the port is shut to it.
func (m *Meter) throttled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if pause := now.Sub(m.contact); m.contact.IsZero() || pause >= sessionPause {
		t := m.faults.Throttle
		switch {
		case t.Sessions <= 0 || m.sessions < t.Sessions:
			m.sessions++
		case pause < sessionPause+t.Shut:
			return true
		default:
			m.sessions = 1
		}
	}
	m.contact = now
	return false
}

// asleep reports whether the meter answers nothing at the moment.
func (m *Meter) asleep() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.faults
	return m.dark(m.elapsed()) || f.Silence || f.SleepAfter > 0 && time.Since(m.awake) >= f.SleepAfter
}

// newLine counts a line and returns its number.
func (m *Meter) newLine() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.awake.IsZero() {
		m.awake = time.Now()
	}
	m.served++
	return m.served
}

func (m *Meter) serialNo() uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.serial
}
