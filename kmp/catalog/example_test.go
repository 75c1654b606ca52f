package catalog_test

import (
	"fmt"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

func ExampleLookup() {
	r := catalog.Lookup(86)
	fmt.Println(r.Name)
	fmt.Println(r.Title)
	fmt.Println(r.Kind)
	fmt.Println(catalog.Lookup(4711).Name)
	// Output:
	// supply_temperature
	// Supply temperature
	// gauge
	// register_4711
}

func ExampleByName() {
	for _, name := range []string{"power", "80", "0x50", "horsepower"} {
		r, ok := catalog.ByName(name)
		fmt.Println(r.ID, ok)
	}
	// Output:
	// 80 true
	// 80 true
	// 80 true
	// 0 false
}

func ExampleKey() {
	fmt.Println(catalog.Key("energy", kmp.UnitGJ))
	fmt.Println(catalog.Key("flow", kmp.UnitLitrePerH))
	fmt.Println(catalog.Key("max_flow_year_date", kmp.UnitDate))
	fmt.Println(catalog.Key("energy", 75))
	// Output:
	// energy_gj
	// flow_l_h
	// max_flow_year_date
	// energy_unit_75
}

func ExampleLookupUnit() {
	u, _ := catalog.LookupUnit(0x37)
	fmt.Printf("in %s, after a shift by %d decimal place\n", u.Symbol, u.Shift)
	// Output:
	// in m³, after a shift by 1 decimal place
}

func ExampleInfoText() {
	fmt.Println(catalog.InfoText("602", 99, 8))
	fmt.Println(catalog.InfoText("403", 99, 8))
	fmt.Println(catalog.InfoText("403", 99, 0) == nil)
	// Output:
	// [temperature sensor T1 outside range]
	// [t1 above range / disconnected]
	// true
}

func ExampleModelByType() {
	m, ok := catalog.ModelByType(0x0001)
	fmt.Println(m.Title, ok)
	// Output:
	// MULTICAL 601 true
}
