package catalog

import (
	"fmt"
	"math/big"
	"slices"
	"strconv"

	"kmp2mqtt/kmp"
)

// Rule tells what a [Bound] limits.
type Rule string

// The rules of bounds.csv.
const (
	// Rate is the most by which a counter rises in an hour.
	Rate Rule = "rate"
	// Falls marks a counter that may fall.
	Falls Rule = "falls"
	// Range is between which values a gauge stays.
	Range Rule = "range"
	// Fault is a value by which the meter says that a sensor has failed.
	Fault Rule = "fault"
	// WithInfo is a value that means nothing while the meter reports something.
	WithInfo Rule = "info"
)

// Bound is what a register of a meter can show at most: one row of bounds.csv. It
// belongs to the catalog and is not to be changed.
type Bound struct {
	Rule Rule
	// Models are the models or families that it is for; none: all.
	Models []string
	// Registers are those that it is for; none: every counter in that unit.
	Registers []uint16
	// Unit is that of the limits; a value may be in any other one of the kind.
	Unit kmp.Unit
	// Low and High are the limits in decimals, empty where there is none.
	Low, High string
	// Nominal is the limit for each m³/h of nominal flow, empty where the nominal
	// flow tells nothing.
	Nominal string
	// Info is what the meter reports meanwhile, for [WithInfo].
	Info string
	// Unknown are the registers that are not known, either.
	Unknown []uint16
	// Reason says it in words.
	Reason string
	// Source says where this is known from, separated by "; ".
	Source string

	low, high, nominal *big.Rat // nil: none
}

// boundTables is bounds.csv, indexed.
type boundTables struct {
	bounds   []Bound
	boundIDs map[uint16][]int // by register
	rates    []int            // those of every counter in a unit
}

// Bounds returns all rows of bounds.csv.
func Bounds() []Bound { return slices.Clone(load().bounds) }

// BoundsOf returns the bounds of a register, those for the model first, then those for
// its family, then those for every meter. The zero Model is one that is not known.
// Bounds without registers are not among them, see [RateOf].
func BoundsOf(m Model, register uint16) []*Bound {
	t := load()
	rows := t.boundIDs[register]
	found := make([]*Bound, 0, len(rows))
	for _, name := range m.boundNames() {
		for _, i := range rows {
			if b := &t.bounds[i]; b.isFor(name) {
				found = append(found, b)
			}
		}
	}
	return found
}

// RateOf returns by how much a counter rises in an hour at most, in a unit: first what
// is known of that register, then of all counters in that unit, each for the model, its
// family, any meter. False says that nothing bounds it.
func RateOf(m Model, register uint16, unit kmp.Unit) (*Bound, bool) {
	t := load()
	names := m.boundNames()
	for _, rows := range [][]int{t.boundIDs[register], t.rates} {
		for _, name := range names {
			for _, i := range rows {
				b := &t.bounds[i]
				if b.Rule == Rate && b.isFor(name) && sameQuantity(b.Unit, unit) {
					return b, true
				}
			}
		}
	}
	return nil, false
}

// boundNames are the names under which a model's bounds stand, the narrowest first; ""
// stands for every meter.
func (m Model) boundNames() []string {
	if m.Name == "" {
		return []string{""}
	}
	return []string{m.Name, string(m.Family), ""}
}

// isFor tells whether the bound is for a model or family; "" stands for every meter.
func (b *Bound) isFor(name string) bool {
	if name == "" {
		return len(b.Models) == 0
	}
	return slices.Contains(b.Models, name)
}

// Limits returns the limits in a unit, not to be changed. They are nil where there is
// none and where the unit measures something else. A nominal flow in m³/h, nil when it
// is not known, narrows them.
func (b *Bound) Limits(unit kmp.Unit, nominal *big.Rat) (low, high *big.Rat) {
	if b.Unit != kmp.UnitNone && !sameQuantity(b.Unit, unit) {
		return nil, nil
	}
	low, high = b.low, b.high
	if nominal != nil && b.nominal != nil {
		narrow := new(big.Rat).Mul(nominal, b.nominal)
		if high != nil && narrow.Cmp(high) < 0 {
			high = narrow
			if low != nil {
				low = new(big.Rat).Neg(narrow)
			}
		}
	}
	if b.Unit == unit || b.Unit == kmp.UnitNone {
		return low, high
	}
	factor, _ := Convert(b.Unit, unit) // of the same quantity
	if low != nil {
		low = new(big.Rat).Mul(low, factor)
	}
	if high != nil {
		high = new(big.Rat).Mul(high, factor)
	}
	return low, high
}

// Convert returns by what a value in one unit is multiplied to be in another one of the
// same kind, exactly; false when there is no such number. A calorie is that of the
// International Table, 4.1868 J: which one a meter counts is not published.
func Convert(from, to kmp.Unit) (*big.Rat, bool) {
	quantity, a := scale(from)
	other, b := scale(to)
	if quantity == "" || quantity != other {
		return nil, false
	}
	return big.NewRat(a, b), true
}

// sameQuantity tells whether two units measure the same.
func sameQuantity(a, b kmp.Unit) bool {
	quantity, _ := scale(a)
	other, _ := scale(b)
	return quantity != "" && quantity == other
}

// scale returns what a unit measures and how many of the smallest unit of that it is;
// the quantity of a unit that cannot be converted is empty. Units that count in tens
// need nothing here: [Value] has multiplied already.
func scale(unit kmp.Unit) (quantity string, factor int64) {
	thousands := func(quantity string, first kmp.Unit, n int64) (string, int64) {
		for ; first < unit; first++ {
			n *= 1000
		}
		return quantity, n
	}
	switch {
	case unit >= kmp.UnitWh && unit <= 0x04: // Wh to GWh
		return thousands("energy", kmp.UnitWh, 3600)
	case unit >= 0x05 && unit <= kmp.UnitGJ: // J to GJ
		return thousands("energy", 0x05, 1)
	case unit == 0x39: // GJ × 10
		return "energy", 1e9
	case unit >= 0x09 && unit <= 0x0C: // cal to Gcal
		return thousands("heat in calories", 0x09, 1)
	case unit >= 0x0D && unit <= 0x10: // varh to Gvarh
		return thousands("reactive energy", 0x0D, 1)
	case unit >= 0x11 && unit <= 0x14: // VAh to GVAh
		return thousands("apparent energy", 0x11, 1)
	case unit >= 0x15 && unit <= 0x18: // W to GW
		return thousands("power", 0x15, 1)
	case unit >= 0x21 && unit <= 0x24: // V, A, kV, kA
		quantity = "voltage"
		if (unit-0x21)%2 == 1 {
			quantity = "current"
		}
		if unit >= 0x23 {
			return quantity, 1000
		}
		return quantity, 1
	case unit == kmp.UnitCelsius:
		return "temperature", 1
	case unit == kmp.UnitKelvin:
		return "difference of temperatures", 1
	case unit == kmp.UnitLitre:
		return "volume", 1
	case unit == kmp.UnitCubicMetre, unit == 0x37:
		return "volume", 1000
	case unit == kmp.UnitLitrePerH:
		return "flow", 1
	case unit == kmp.UnitCubicMPerH:
		return "flow", 1000
	case unit == kmp.UnitCubicMC:
		return "volume × temperature", 1
	case unit == kmp.UnitTonne, unit == 0x38:
		return "mass", 1
	case unit == kmp.UnitHour:
		return "time", 3600
	case unit == 0x34:
		return "pressure", 1
	case unit == 0x3A: // minutes
		return "time", 60
	case unit == 0x3C: // seconds
		return "time", 1
	case unit == 0x3E: // days
		return "time", 86400
	case unit == 0x43:
		return "frequency", 1
	}
	return "", 0
}

// addBound takes one row of bounds.csv.
func (t *tables) addBound(r row) error {
	b := Bound{
		Rule: Rule(r["rule"]), Models: r.list("models"),
		Low: r["low"], High: r["high"], Nominal: r["nominal"],
		Info: r["info"], Reason: r["reason"], Source: r["source"],
	}
	if b.Reason == "" || b.Source == "" {
		return fmt.Errorf("rule %s: lacks a reason or a source", b.Rule)
	}
	for _, name := range b.Models {
		_, known := t.modelNames[name]
		if f := Family(name); !known && f != Heat && f != Water && f != Electricity {
			return fmt.Errorf("model %q is not in models.csv", name)
		}
	}
	var err error
	if b.Registers, err = t.boundRegisters(r, "registers"); err != nil {
		return err
	}
	if b.Unknown, err = t.boundRegisters(r, "unknown"); err != nil {
		return err
	}
	if r["unit"] != "" {
		i := slices.IndexFunc(t.unitRows, func(u Unit) bool { return u.Symbol == r["unit"] && u.Shift == 0 })
		if i < 0 {
			return fmt.Errorf("unit %q is not in units.csv", r["unit"])
		}
		b.Unit = t.unitRows[i].Code
		if quantity, _ := scale(b.Unit); quantity == "" {
			return fmt.Errorf("unit %q cannot be converted", r["unit"])
		}
	}
	for _, limit := range []struct {
		column string
		to     **big.Rat
	}{{"low", &b.low}, {"high", &b.high}, {"nominal", &b.nominal}} {
		if r[limit.column] == "" {
			continue
		}
		d, err := kmp.ParseDecimal(r[limit.column])
		if err != nil {
			return fmt.Errorf("column %s: %w", limit.column, err)
		}
		*limit.to, _ = new(big.Rat).SetString(d.String()) // digits and a point
	}
	if err := b.check(); err != nil {
		return err
	}
	if len(b.Registers) == 0 {
		t.rates = append(t.rates, len(t.bounds))
	}
	if t.boundIDs == nil {
		t.boundIDs = map[uint16][]int{}
	}
	for _, id := range b.Registers {
		t.boundIDs[id] = append(t.boundIDs[id], len(t.bounds))
	}
	t.bounds = append(t.bounds, b)
	return nil
}

// boundRegisters reads a column of register numbers.
func (t *tables) boundRegisters(r row, column string) ([]uint16, error) {
	var ids []uint16
	for _, s := range r.list(column) {
		id, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", column, err)
		}
		if _, ok := t.registerIDs[uint16(id)]; !ok {
			return nil, fmt.Errorf("column %s: %d is not in registers.csv", column, id)
		}
		ids = append(ids, uint16(id))
	}
	return ids, nil
}

// check makes sure that a row has what its rule needs.
func (b *Bound) check() error {
	var ok bool
	switch b.Rule {
	case Rate:
		ok = b.Unit != kmp.UnitNone && b.high != nil && b.high.Sign() > 0
	case Falls:
		ok = len(b.Registers) > 0
	case Range, Fault:
		ok = len(b.Registers) > 0 && b.Unit != kmp.UnitNone && b.low != nil && b.high != nil && b.low.Cmp(b.high) <= 0
	case WithInfo:
		ok = len(b.Registers) > 0 && b.Info != "" && (b.low == nil) == (b.high == nil)
	}
	if !ok {
		return fmt.Errorf("rule %q: lacks something or is not known", b.Rule)
	}
	return nil
}
