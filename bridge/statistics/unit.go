package statistics

import (
	"math/big"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

// The unit classes of Home Assistant whose values can be converted here.
const (
	classEnergy = "energy"
	classVolume = "volume"
)

// size is how much a unit is: so many joules or litres.
type size struct {
	class    string
	num, den int64
}

// sizes holds the units of Home Assistant's classes energy and volume, in its spelling (core 2026.4,
// util/unit_conversion.py). Its calorie is the thermochemical one, 4.184 J, so here it is, too: what is imported has to
// fit what Home Assistant converted itself. Gallon and foot are those of the United States.
var sizes = map[string]size{
	"J":       {classEnergy, 1, 1},
	"kJ":      {classEnergy, 1e3, 1},
	"MJ":      {classEnergy, 1e6, 1},
	"GJ":      {classEnergy, 1e9, 1},
	"mWh":     {classEnergy, 36, 10},
	"Wh":      {classEnergy, 3600, 1},
	"kWh":     {classEnergy, 3600e3, 1},
	"MWh":     {classEnergy, 3600e6, 1},
	"GWh":     {classEnergy, 3600e9, 1},
	"TWh":     {classEnergy, 3600e12, 1},
	"cal":     {classEnergy, 4184, 1e3},
	"kcal":    {classEnergy, 4184, 1},
	"Mcal":    {classEnergy, 4184e3, 1},
	"Gcal":    {classEnergy, 4184e6, 1},
	"L":       {classVolume, 1, 1},
	"mL":      {classVolume, 1, 1e3},
	"m³":      {classVolume, 1e3, 1},
	"gal":     {classVolume, 3785411784, 1e9},
	"fl. oz.": {classVolume, 3785411784, 128e9},
	"ft³":     {classVolume, 28316846592, 1e9},
	"CCF":     {classVolume, 28316846592, 1e7},
	"MCF":     {classVolume, 28316846592, 1e6},
}

// homeUnit is a unit in Home Assistant's spelling.
func homeUnit(unit kmp.Unit) string {
	u, _ := catalog.LookupUnit(unit)
	if u.Symbol == "l" {
		return "L"
	}
	return u.Symbol
}

// unitClass is Home Assistant's class of a unit, empty if it is neither energy nor volume.
func unitClass(unit string) string { return sizes[unit].class }

// convert returns by what a value in one unit of Home Assistant is multiplied to be in another; false when they do not
// measure the same.
func convert(from, to string) (*big.Rat, bool) {
	if from == to {
		return big.NewRat(1, 1), true
	}
	a, b := sizes[from], sizes[to]
	if a.class == "" || a.class != b.class {
		return nil, false
	}
	return new(big.Rat).Quo(big.NewRat(a.num, a.den), big.NewRat(b.num, b.den)), true
}

// extraDigits is how much finer than the counter's own last digit a value is that cannot be said in decimals.
const extraDigits = 6

// scaled returns a value times factor, and what one step of its last digit is then. The product is exact; only where
// its decimals do not end it is rounded, six digits below the step.
func scaled(d kmp.Decimal, factor *big.Rat) (value, step *big.Rat) {
	value, _ = new(big.Rat).SetString(d.String()) // a decimal always is a number
	value.Mul(value, factor)
	step = new(big.Rat).Mul(power10(d.Exponent()), factor)
	if _, ends := value.FloatPrec(); ends {
		return value, step
	}
	digits := extraDigits
	for unit := big.NewRat(1, 1); unit.Cmp(step) > 0; unit.Mul(unit, big.NewRat(1, 10)) {
		digits++
	}
	rounded, _ := new(big.Rat).SetString(value.FloatString(digits))
	return rounded, step
}

// power10 is 10^n.
func power10(n int) *big.Rat {
	p := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(n, -n))), nil))
	if n < 0 {
		p.Inv(p)
	}
	return p
}

// number is a value as a JSON number. Its decimals must end.
func number(v *big.Rat) string {
	digits, _ := v.FloatPrec()
	return v.FloatString(digits)
}

// Takes reports whether Home Assistant's statistics take a counter in this unit: one of energy or volume.
func Takes(unit kmp.Unit) bool { return unitClass(homeUnit(unit)) != "" }
