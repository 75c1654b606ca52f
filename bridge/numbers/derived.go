package numbers

import (
	"slices"

	"kmp2mqtt/kmp/catalog"
)

// Derived returns the numbers that are worked out from several registers, for
// documents. Their ID is 0. The slice is the caller's own.
func Derived() []catalog.Register { return slices.Clone(derived) }

// Coarse returns the register of the leading digits of a number at full resolution, by that
// number's name.
func Coarse(name string) (id uint16, ok bool) {
	i := slices.IndexFunc(pairs, func(p pair) bool { return p.name == name })
	if i < 0 {
		return 0, false
	}
	return pairs[i].coarse, true
}

// derived are all of them. Nothing changes it.
var derived = []catalog.Register{
	{
		Name: "energy_fine", Title: "Energy, full resolution", Unit: "kWh or GJ", Kind: catalog.Counter,
		Description: "Heat energy E1 to the last digit: the leading digits of energy, the others of its high-resolution register",
	},
	{
		Name: "cooling_energy_fine", Title: "Cooling energy, full resolution", Unit: "kWh or GJ", Kind: catalog.Counter,
		Description: "Cooling energy E3 to the last digit: the leading digits of cooling_energy, the others of its high-resolution register",
	},
	{
		Name: "volume_fine", Title: "Volume, full resolution", Unit: "m³", Kind: catalog.Counter,
		Description: "Volume V1 to the last digit: the leading digits of volume, the others of its high-resolution register",
	},
	{
		Name: "weighted_supply_temperature_today", Title: "Supply temperature by volume today", Unit: "°C", Kind: catalog.Gauge,
		Description: "Mean supply temperature T1 since midnight, weighted by volume (from E8 and V1)",
	},
	{
		Name: "weighted_return_temperature_today", Title: "Return temperature by volume today", Unit: "°C", Kind: catalog.Gauge,
		Description: "Mean return temperature T2 since midnight, weighted by volume (from E9 and V1)",
	},
	{
		Name: "weighted_cooling_today", Title: "Cooling by volume today", Unit: "K", Kind: catalog.Gauge,
		Description: "Mean difference T1 - T2 since midnight, weighted by volume (from E8, E9 and V1)",
	},
	{
		Name: "weighted_supply_temperature_month", Title: "Supply temperature by volume this month", Unit: "°C", Kind: catalog.Gauge, Rare: true,
		Description: "Mean supply temperature T1 since the first of the month, weighted by volume (from E8 and V1)",
	},
	{
		Name: "weighted_return_temperature_month", Title: "Return temperature by volume this month", Unit: "°C", Kind: catalog.Gauge, Rare: true,
		Description: "Mean return temperature T2 since the first of the month, weighted by volume (from E9 and V1)",
	},
	{
		Name: "weighted_cooling_month", Title: "Cooling by volume this month", Unit: "K", Kind: catalog.Gauge, Rare: true,
		Description: "Mean difference T1 - T2 since the first of the month, weighted by volume (from E8, E9 and V1)",
	},
	{
		Name: "power_calculated", Title: "Power from flow and temperatures", Unit: "kW or MW", Kind: catalog.Gauge, Rare: true,
		Description: "Heat power as it follows from flow, T1 and T2, to compare with the meter's own",
	},
}

// derivedRegister returns one of them by name.
func derivedRegister(name string) catalog.Register {
	for i := range derived {
		if derived[i].Name == name {
			return derived[i]
		}
	}
	return catalog.Register{Name: name, Title: name, Rare: true}
}

func registerName(id uint16) string { return catalog.Lookup(id).Name }
