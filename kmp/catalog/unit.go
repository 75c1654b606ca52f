package catalog

import (
	"fmt"
	"slices"
	"strconv"

	"kmp2mqtt/kmp"
)

// Unit is what is known of one unit code. It is a plain value.
type Unit struct {
	// Code is the code on the wire.
	Code kmp.Unit
	// Symbol is how people write the unit: "GJ", "l/h", "m³", "°C", "m³·°C". It is
	// empty for plain numbers, dates, clocks, text, bits, and unknown codes.
	Symbol string
	// Suffix is the unit in a JSON key: "gj", "l_h", "m3", "c", "m3c". It is empty
	// for what has no unit, and "unit_<code>" for an unknown code.
	Suffix string
	// Shift is the power of ten by which a value must be multiplied, on top of the
	// value's own exponent, to be in Symbol: 1 for the three codes that count in
	// tens (0x37 to 0x39), else 0.
	Shift int
	// Meaning says it in words: "tonne", "date: decimal YYMMDD, year from 2000";
	// "unknown" for an unknown code.
	Meaning string
	// Notes holds what else is known, such as where sources disagree.
	Notes string
	// Source says where this is known from, separated by "; ". Empty only for an
	// unknown code.
	Source string
}

// LookupUnit returns what is known of a unit code. It returns false when nobody has
// published the code's meaning; the unit then still has its code and suffix.
//
// Where the public lists disagree, the right one was taken: 0x15 is W and 0x19 is
// var, not kW and kvar, as many clients print.
func LookupUnit(code kmp.Unit) (Unit, bool) {
	t := load()
	return t.units[code], t.knownUnits[code]
}

// Units returns the unit codes 0 to 90 in order, the unknown ones among them
// included. The slice is the caller's own.
func Units() []Unit {
	return slices.Clone(load().unitRows)
}

// Key returns the key of a value in a JSON object: the register's name and the
// unit that the meter sent, as in "energy_gj". What has no unit (numbers, dates,
// clocks, text, bits) is the name alone. A code of unknown meaning gives
// "energy_unit_75", so that the key changes once the unit does, whether we know it
// or not.
func Key(name string, unit kmp.Unit) string {
	if suffix := load().units[unit].Suffix; suffix != "" {
		return name + "_" + suffix
	}
	return name
}

// addUnit takes one row of units.csv.
func (t *tables) addUnit(r row) error {
	code, err := r.number("code", 8)
	if err != nil {
		return err
	}
	if err := r.checkHex(code, 2); err != nil {
		return err
	}
	shift, err := r.number("shift", 4)
	if err != nil {
		return err
	}
	if t.units[code].Meaning != "" {
		return fmt.Errorf("unit %d: %w", code, errDuplicate)
	}
	if r["meaning"] == "" {
		return fmt.Errorf("unit %d: column meaning: is empty", code)
	}
	known := r["meaning"] != "unknown"
	if known == (r["source"] == "") {
		return fmt.Errorf("unit %d: a known unit has a source, an unknown one has none", code)
	}
	unit := Unit{
		Code:    kmp.Unit(code),
		Symbol:  r["symbol"],
		Suffix:  r["suffix"],
		Shift:   int(shift),
		Meaning: r["meaning"],
		Notes:   r["notes"],
		Source:  r["source"],
	}
	t.units[code] = unit
	t.knownUnits[code] = known
	t.unitRows = append(t.unitRows, unit)
	return nil
}

// fillUnits gives the codes that have no row what every unknown code has.
func (t *tables) fillUnits() {
	for code := range t.units {
		if u := &t.units[code]; u.Meaning == "" {
			*u = Unit{Code: kmp.Unit(code), Suffix: "unit_" + strconv.Itoa(code), Meaning: "unknown"}
		}
	}
}
