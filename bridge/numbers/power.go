package numbers

import (
	"math/big"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

// Registers that heat power follows from.
const (
	flow              = 74
	power             = 80
	supplyTemperature = 86
	returnTemperature = 87
)

// heatCoefficient is the heat that water gives away, in kJ for each litre and K: 4.15.
// Density times specific heat capacity (EN 1434-1, OIML R 75) make 4.17 at 20 °C, 4.15
// at 40 °C, 4.08 at 80 °C and 4.06 at 90 °C; where the flow sensor sits, supply or
// return, is not known, and the flow is rounded more coarsely than that.
var heatCoefficient = big.NewRat(415, 100)

// powerCheck compares the power with what it follows from.
type powerCheck struct {
	Count  int  `json:"count,omitempty"`  // readings in a row that speak against Active
	Active bool `json:"active,omitempty"` // they differ
}

// checkPower derives the power from flow and temperatures and compares it with the
// meter's own. It never changes that one.
func (r *reading) checkPower() {
	const name = "power_calculated"
	needs := []uint16{flow, power, supplyTemperature, returnTemperature}
	if !r.announced(name, needs) {
		return
	}
	i, ok := r.places[power]
	if !ok {
		r.derive(name, kmp.UnitKW, nil, registerName(power)+" was not read")
		return
	}
	unit := r.values[i].Unit
	reason := r.missing(needs)
	if reason != "" {
		r.derive(name, unit, nil, reason)
		return
	}
	litres, ok := r.in(flow, kmp.UnitLitrePerH)
	t1, ok1 := r.in(supplyTemperature, kmp.UnitCelsius)
	t2, ok2 := r.in(returnTemperature, kmp.UnitCelsius)
	measured, ok3 := r.in(power, kmp.UnitKW)
	if !ok || !ok1 || !ok2 || !ok3 {
		r.derive(name, unit, nil, "the registers are in units of another kind")
		return
	}
	exponent := 0
	if d, _, ok := r.number(power); ok {
		exponent = d.Exponent()
	}
	factor, _ := catalog.Convert(kmp.UnitKW, unit) // measured was converted the other way
	calculated := t1.Sub(t1, t2)
	calculated.Mul(calculated, litres).Mul(calculated, heatCoefficient).Quo(calculated, big.NewRat(3600, 1))
	d, ok := rounded(new(big.Rat).Mul(calculated, factor), exponent)
	if !ok {
		r.derive(name, unit, nil, "it is too large")
		return
	}
	r.derive(name, unit, d, "")
	r.comparePower(measured, calculated, new(big.Rat).Quo(step(exponent), factor), d)
}

// comparePower tells when the power does not follow from flow and temperatures, and
// when it does again: in enough readings in a row. All are in kW; a cooling meter's
// sign does not count.
func (r *reading) comparePower(measured, calculated, step *big.Rat, shown kmp.Decimal) {
	a, b := new(big.Rat).Abs(measured), new(big.Rat).Abs(calculated)
	larger := a
	if b.Cmp(a) > 0 {
		larger = b
	}
	apart := new(big.Rat).Sub(a, b)
	apart.Abs(apart)
	share := new(big.Rat).Mul(larger, big.NewRat(3, 10))
	least := new(big.Rat).Add(new(big.Rat).Mul(step, big.NewRat(5, 1)), big.NewRat(1, 2))
	differs := apart.Cmp(share) > 0 && apart.Cmp(least) > 0
	if differs == r.Power.Active {
		r.Power.Count = 0
		return
	}
	if r.Power.Count++; r.Power.Count < enough {
		return
	}
	r.Power = powerCheck{Active: differs}
	v := r.values[r.places[power]]
	data := map[string]any{"register": v.Register.Name, "key": v.Key, "value": v.Value, "calculated": shown}
	if differs {
		data["reason"] = "the power does not follow from flow and temperatures"
		r.event(PowerMismatch, data)
		return
	}
	data["reason"] = "the power follows from flow and temperatures again"
	r.event(ValueReleased, data)
}
