package numbers

import (
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

// State is what is remembered of one meter. The zero value knows nothing. It is JSON,
// bounded in size; [State.Check] judges one that comes from a file.
type State struct{}

// Judge takes the values of one reading that ended at a moment; in the time zone of at
// days begin at midnight. The model is its name or title, empty when it is not known.
func (s *State) Judge(at time.Time, model string, values []Value) Result {
	return Result{Values: values}
}

// Accept lets the held values of some keys, or of all when none is given, through at
// the next reading that shows them. It returns the keys that were held.
func (s *State) Accept(keys ...string) []string { return nil }

// Check tells whether a state from a file is sound.
func (s State) Check() error { return nil }

// Derived returns the numbers that are worked out from several registers, for
// documents. Their ID is 0.
func Derived() []catalog.Register { return nil }
