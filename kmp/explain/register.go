package explain

import (
	"strings"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

// Register is one register in words.
type Register struct {
	ID          uint16    `json:"id"`
	Name        string    `json:"name"`
	Description string    `json:"description"`
	Value       kmp.Value `json:"value"` // nil: unknown
	Unit        string    `json:"unit"`
}

// Describe puts a register into words. With an error, the value cannot be what its unit
// promises and is unknown; the rest is good.
func Describe(r kmp.Register) (Register, error) {
	known := catalog.Lookup(r.ID)
	value, err := catalog.Value(r)
	if err != nil {
		value = nil
	}
	unit, _ := catalog.LookupUnit(r.Unit)
	return Register{r.ID, known.Name, known.Description, value, unit.Symbol}, err
}

// Text is the value, or "-" when it is unknown.
func (r Register) Text() string {
	if r.Value == nil {
		return "-"
	}
	return r.Value.String()
}

// String returns name, value and unit: "energy 227.445 GJ".
func (r Register) String() string {
	return strings.TrimRight(r.Name+" "+r.Text()+" "+r.Unit, " ")
}
