package discovery

import "fmt"

// FieldError says which field of a [Device], [Measurement] or [BridgeDevice]
// cannot stand in a discovery message.
type FieldError struct {
	Field string // the field's name, such as "Serial"
	Value string // what it held
	Want  string // what it should hold
}

// Error names the field, its value, and what is expected there.
func (e *FieldError) Error() string {
	return fmt.Sprintf("discovery: %s is %q: want %s", e.Field, e.Value, e.Want)
}
