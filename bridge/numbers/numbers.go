package numbers

import (
	"maps"
	"math/big"
	"slices"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

// Value is one register, or one derived number, as it is published.
type Value struct {
	Register catalog.Register // ID 0: derived, see [Derived]
	Unit     kmp.Unit         // as the meter sent it
	Key      string           // in the state
	Value    kmp.Value        // nil: not known, null in the state
}

// Decode decodes a register. With an error the value is not known; its key stays.
func Decode(r kmp.Register) (Value, error) {
	register := catalog.Lookup(r.ID)
	v := Value{Register: register, Unit: r.Unit, Key: catalog.Key(register.Name, r.Unit)}
	var err error
	v.Value, err = catalog.Value(r)
	return v, err
}

// Decimals is the number of digits behind the point.
func (v Value) Decimals() int {
	if d, ok := v.Value.(kmp.Decimal); ok {
		return max(0, -d.Exponent())
	}
	return 0
}

// The types of [Event].
const (
	ValueHeld     = "value_held"     // a counter jumped: its last good value stays
	ValueReleased = "value_released" // a doubt is over
	ValueUnknown  = "value_unknown"  // a value cannot be true
	InfoCode      = "info_code"      // an info register changed
	FineLearned   = "fine_learned"   // where a high-resolution register wraps is known now
	PowerMismatch = "power_mismatch" // the power does not follow from flow and temperatures
)

// Event is something that happened once.
type Event struct {
	Type string
	Data map[string]any
}

// Result is what comes of one reading.
type Result struct {
	Values  []Value           // what may be published: as given, derived ones behind
	Info    []string          // what the meter reports at the moment, in words
	HasInfo bool              // an info register was read
	Events  []Event           // in the order in which they were found
	Again   bool              // a second reading soon would settle a doubt
	Unknown map[string]string // key to why it is unknown or held
}

// Judge takes the values of one reading that ended at a moment; days begin at midnight
// in the time zone of at. The model is its name or title, empty when it is not known.
// The slice given stays as it was.
func (s *State) Judge(at time.Time, model string, values []Value) Result {
	r := reading{
		memory: s.memory(),
		at:     at,
		now:    second(at),
		title:  model,
		values: slices.Clone(values),
		doubts: make([]doubt, len(values)),
		places: make(map[uint16]int, len(values)),
	}
	r.model, _ = catalog.ModelByName(model)
	for i, v := range values {
		r.places[v.Register.ID] = i
	}
	r.result.Unknown = map[string]string{}
	r.readInfo()
	r.noteNominal()
	r.qp = r.nominal()
	for i := range r.values {
		r.checkGauge(i)
	}
	r.applyUnknown()
	for i := range r.values {
		r.checkCounter(i)
	}
	r.fuse()
	r.weigh()
	r.checkPower()
	r.result.Values = r.values
	return r.result
}

// Accept lets the held values of some keys, or of all when none is given, through at
// the next reading that shows them. It returns the keys that were held.
func (s *State) Accept(keys ...string) []string {
	m := s.memory()
	var held []string
	for _, key := range slices.Sorted(maps.Keys(m.Counters)) {
		c := m.Counters[key]
		if c.Suspect == nil || len(keys) > 0 && !slices.Contains(keys, key) {
			continue
		}
		suspect := *c.Suspect
		suspect.Accepted = true
		c.Suspect = &suspect
		m.Counters[key] = c
		held = append(held, key)
	}
	return held
}

// doubt is what became of a value.
type doubt uint8

const (
	trusted  doubt = iota
	held           // the last good value stands in its place
	unknown        // it is nil
	released       // trusted again after a jump: what follows from earlier values is void
)

// reading is one call of Judge: the values, and what they are compared with.
type reading struct {
	*memory
	at     time.Time
	now    int64 // at in seconds since 1970
	title  string
	model  catalog.Model // the zero one: not known
	values []Value
	doubts []doubt
	places map[uint16]int // of registers in values
	faulty []fault
	qp     *big.Rat // nominal flow in m³/h, nil: not known
	result Result
}

// number returns the value of a register that may be trusted.
func (r *reading) number(id uint16) (kmp.Decimal, Value, bool) {
	i, ok := r.places[id]
	if !ok || r.doubts[i] == held || r.doubts[i] == unknown {
		return kmp.Decimal{}, Value{}, false
	}
	d, ok := r.values[i].Value.(kmp.Decimal)
	return d, r.values[i], ok
}

// in returns the value of a register that may be trusted, in a unit of its kind.
func (r *reading) in(id uint16, unit kmp.Unit) (*big.Rat, bool) {
	d, v, ok := r.number(id)
	if !ok {
		return nil, false
	}
	factor, ok := catalog.Convert(v.Unit, unit)
	if !ok {
		return nil, false
	}
	return factor.Mul(factor, rational(d)), true
}

// event notes that something happened.
func (r *reading) event(kind string, data map[string]any) {
	r.result.Events = append(r.result.Events, Event{kind, data})
}

// derive appends a number that was worked out; a nil value is one that is not known
// for a reason.
func (r *reading) derive(name string, unit kmp.Unit, value kmp.Value, reason string) {
	v := Value{Register: derivedRegister(name), Unit: unit, Key: catalog.Key(name, unit), Value: value}
	r.values = append(r.values, v)
	if reason != "" {
		r.result.Unknown[v.Key] = reason
	}
}

// rational is a decimal as a number to reckon with.
func rational(d kmp.Decimal) *big.Rat {
	if e := d.Exponent(); e <= 0 && e > -18 {
		if m, err := d.Shift(-e); err == nil {
			if n, ok := m.Int64(); ok {
				return big.NewRat(n, tens(-e))
			}
		}
	}
	x, _ := new(big.Rat).SetString(d.String()) // digits and a point
	return x
}

// step is 10^exponent: what the last digit of a number stands for.
func step(exponent int) *big.Rat {
	switch {
	case exponent <= 0 && exponent > -18:
		return big.NewRat(1, tens(-exponent))
	case exponent > 0 && exponent < 18:
		return big.NewRat(tens(exponent), 1)
	}
	power := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(exponent, -exponent))), nil)
	if exponent < 0 {
		return new(big.Rat).SetFrac(big.NewInt(1), power)
	}
	return new(big.Rat).SetInt(power)
}

// tens is 10^n for n from 0 to 17.
func tens(n int) int64 {
	power := int64(1)
	for range n {
		power *= 10
	}
	return power
}

// rounded is a number rounded half away from zero to steps of 10^exponent; false when
// it is larger than a decimal can be.
func rounded(x *big.Rat, exponent int) (kmp.Decimal, bool) {
	d, err := kmp.ParseDecimal(new(big.Rat).Quo(x, step(exponent)).FloatString(0))
	if err != nil {
		return kmp.Decimal{}, false
	}
	d, err = d.Shift(exponent)
	return d, err == nil
}
