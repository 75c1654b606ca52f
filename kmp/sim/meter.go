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
	config  Config
	model   model
	missing map[uint16]bool
	index   map[uint16]int // of a register in rows

	energyUnit     kmp.Unit
	energyExponent int
	joules         int64 // in one step of the energy registers

	local    *time.Location // where the house stands
	standard *time.Location // the same without daylight saving time
	offset   int64          // of standard, in seconds east of Greenwich
	began    time.Time      // when, in real time, the simulation started

	mu     sync.Mutex
	state  state
	awake  time.Time // when the meter was woken last; zero: not served yet
	served uint64    // lines so far
}

// New returns a meter whose simulated time begins now. Errors name every field that
// is wrong and what it may be, and wrap [ErrOption].
func New(cfg Config) (*Meter, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg.Faults.MissingRegisters = slices.Clone(cfg.Faults.MissingRegisters)
	m := &Meter{config: cfg, began: time.Now(), missing: map[uint16]bool{}, index: map[uint16]int{}}
	m.model, _ = modelByName(cfg.Model) // checked above, as is the unit
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
	for _, id := range cfg.Faults.MissingRegisters {
		m.missing[id] = true
	}
	for i, r := range rows {
		if r.widths[m.model.column] > 0 {
			m.index[r.id] = i
		}
	}
	if cfg.Start.IsZero() {
		m.config.Start = m.began.Round(0)
	}
	start := m.config.Start
	m.local = start.Location()
	_, offset := start.Zone()
	if start.IsDST() {
		offset -= 3600
	}
	m.standard = time.FixedZone("", offset)
	m.offset = int64(offset)
	m.state = newState(cfg.Seed, start.Unix()+m.offset, int64(cfg.Integration/time.Second))
	return m, nil
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

// advance brings the state to the last step of the grid and returns the simulated
// time. m.mu is held.
func (m *Meter) advance() time.Time {
	now := m.Now()
	m.state.advance(now.Unix()+m.offset, int64(m.config.Integration/time.Second))
	return now
}

// Registers returns the ids of the registers that the meter answers, in ascending order.
func (m *Meter) Registers() []uint16 {
	ids := []uint16{registerClock, registerDate}
	if m.model.column == in603 {
		ids = append(ids, registerDateTime)
	}
	for id := range m.index {
		ids = append(ids, id)
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

// asleep reports whether the meter answers nothing at the moment.
func (m *Meter) asleep() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.config.Faults
	return f.Silence || f.SleepAfter > 0 && time.Since(m.awake) >= f.SleepAfter
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

// answer returns the answer to a checked frame, or nil for silence.
func (m *Meter) answer(f kmp.Frame) kmp.Answer {
	if f.Address != m.config.Address {
		return nil
	}
	request, err := kmp.DecodeMessage(f)
	if err != nil {
		return nil // an unknown command or a malformed request
	}
	switch q := request.(type) {
	case *kmp.GetTypeRequest:
		return &kmp.GetTypeAnswer{MeterType: m.model.meterType, Revision: m.model.revision}
	case *kmp.GetSerialNoRequest:
		return &kmp.GetSerialNoAnswer{SerialNo: m.config.Serial}
	case *kmp.GetRegisterRequest:
		return &kmp.GetRegisterAnswer{Registers: m.registers(q.IDs)}
	}
	return nil // a command that this meter does not have
}
