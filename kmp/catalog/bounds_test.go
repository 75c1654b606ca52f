package catalog

import (
	"math/big"
	"strings"
	"testing"
	"testing/fstest"

	"kmp2mqtt/kmp"
)

// What is said of a bound goes into events: it is short, and it has a source.
func TestBoundsAreSound(t *testing.T) {
	count := map[Rule]int{}
	for _, b := range Bounds() {
		count[b.Rule]++
		if len(b.Reason) > 120 || b.Source == "" {
			t.Errorf("reason %q, source %q", b.Reason, b.Source)
		}
		for _, id := range b.Registers {
			kind := Lookup(id).Kind
			counts := kind == Counter || kind == ResettableCounter
			if counts != (b.Rule == Rate || b.Rule == Falls) {
				t.Errorf("rule %s for register %d, a %s", b.Rule, id, kind)
			}
		}
	}
	for _, rule := range []Rule{Rate, Falls, Range, Fault, WithInfo} {
		if count[rule] == 0 {
			t.Errorf("no rule %s", rule)
		}
	}
}

// What an info rule waits for is what InfoText says for one of the codes.
func TestInfoBoundsAreWords(t *testing.T) {
	for _, b := range Bounds() {
		if b.Rule != WithInfo {
			continue
		}
		for _, model := range b.Models {
			said := false
			for bit := range 32 {
				for _, register := range []uint16{99, 369} {
					for _, words := range InfoText(model, register, 1<<bit) {
						said = said || words == b.Info
					}
				}
			}
			if !said {
				t.Errorf("model %s never reports %q", model, b.Info)
			}
		}
	}
}

func TestRateOf(t *testing.T) {
	for _, tt := range []struct {
		model    string
		register uint16
		unit     kmp.Unit
		nominal  string
		want     string
	}{
		{"403", 60, kmp.UnitKWh, "", "6300"},
		{"403", 60, kmp.UnitMWh, "", "63/10"},
		{"403", 60, kmp.UnitGJ, "", "567/25"},
		{"403", 60, kmp.UnitKWh, "1.5", "1875/2"},
		{"403", 60, kmp.UnitKWh, "150", "6300"},
		{"302", 68, kmp.UnitLitre, "", "7500"},
		{"403", 97, kmp.UnitCubicMC, "", "8325"},
		{"", 68, kmp.UnitCubicMetre, "", "45000"},
		{"382", 1, kmp.UnitKWh, "", "110"},
		{"351", 1, kmp.UnitKWh, "", "10000"},
		{"21", 68, kmp.UnitCubicMetre, "", "6"},
		{"403", 84, kmp.UnitCubicMetre, "", "3600"},
		{"403", 1004, kmp.UnitHour, "", "101/100"},
		{"403", 113, kmp.UnitNumber, "", ""},
		{"403", 60, kmp.UnitCelsius, "", ""},
	} {
		m, _ := ModelByName(tt.model)
		var nominal *big.Rat
		if tt.nominal != "" {
			nominal, _ = new(big.Rat).SetString(tt.nominal)
		}
		got := ""
		if b, ok := RateOf(m, tt.register, tt.unit); ok {
			_, high := b.Limits(tt.unit, nominal)
			got = high.RatString()
		}
		if got != tt.want {
			t.Errorf("%q, register %d, unit %02X: %s, want %s", tt.model, tt.register, byte(tt.unit), got, tt.want)
		}
	}
}

func TestBoundsOf(t *testing.T) {
	m, _ := ModelByName("403")
	var ranges []string
	for _, b := range BoundsOf(m, 74) {
		if b.Rule == Range {
			ranges = append(ranges, b.High)
		}
	}
	if got := strings.Join(ranges, " "); got != "45 45000" {
		t.Errorf("ranges of the flow: %s, want the model's first", got)
	}
	if got := BoundsOf(Model{}, 99); len(got) != 0 {
		t.Errorf("info code: %v", got)
	}
	b := BoundsOf(m, 74)
	low, high := b[len(b)-1].Limits(kmp.UnitKWh, nil)
	if low != nil || high != nil {
		t.Error("a limit in another kind of unit")
	}
	low, high = BoundsOf(m, 80)[0].Limits(kmp.UnitKW, big.NewRat(3, 2))
	if low.RatString() != "-1875/2" || high.RatString() != "1875/2" {
		t.Errorf("power with a nominal flow: %s to %s", low.RatString(), high.RatString())
	}
}

func TestConvert(t *testing.T) {
	for _, tt := range []struct {
		from, to kmp.Unit
		want     string
	}{
		{kmp.UnitGJ, kmp.UnitWh, "2500000/9"},
		{kmp.UnitWh, kmp.UnitGJ, "9/2500000"},
		{kmp.UnitMWh, kmp.UnitKWh, "1000"},
		{0x39, kmp.UnitGJ, "1"}, // catalog.Value has multiplied by ten
		{0x37, kmp.UnitLitre, "1000"},
		{kmp.UnitCubicMPerH, kmp.UnitLitrePerH, "1000"},
		{0x18, kmp.UnitKW, "1000000"},
		{0x0C, 0x0A, "1000000"},
		{0x23, 0x21, "1000"},
		{0x24, 0x22, "1000"},
		{0x3E, kmp.UnitHour, "24"},
		{0x3A, 0x3C, "60"},
		{0x0C, kmp.UnitGJ, ""}, // which calorie is not known
		{0x0E, kmp.UnitKWh, ""},
		{0x21, 0x22, ""},
		{kmp.UnitCelsius, kmp.UnitKelvin, ""},
		{kmp.UnitNumber, kmp.UnitNumber, ""},
		{200, 200, ""},
	} {
		got := ""
		if factor, ok := Convert(tt.from, tt.to); ok {
			got = factor.RatString()
		}
		if got != tt.want {
			t.Errorf("from %02X to %02X: %s, want %s", byte(tt.from), byte(tt.to), got, tt.want)
		}
	}
}

func TestBoundErrors(t *testing.T) {
	const head = "rule,models,registers,unit,low,high,nominal,info,unknown,reason,source\n"
	for _, tt := range []struct{ row, want string }{
		{"rate,,,kWh,,100,,,,,manual", "lacks a reason"},
		{"rate,,,kWh,,100,,,,fast,", "lacks a reason"},
		{"rate,999,,kWh,,100,,,,fast,manual", `model "999"`},
		{"rate,,x,kWh,,100,,,,fast,manual", "column registers"},
		{"rate,,7777,kWh,,100,,,,fast,manual", "7777 is not in registers.csv"},
		{"fault,,86,°C,0,0,,,7777,short,manual", "column unknown"},
		{"rate,,,furlong,,100,,,,fast,manual", `unit "furlong"`},
		{"rate,,,imp/l,,100,,,,fast,manual", "cannot be converted"},
		{"rate,,,kWh,,x,,,,fast,manual", "column high"},
		{"rate,,,kWh,,,,,,fast,manual", `rule "rate"`},
		{"rate,,,kWh,,-1,,,,fast,manual", `rule "rate"`},
		{"rate,,,,,100,,,,fast,manual", `rule "rate"`},
		{"falls,,,,,,,,,down,manual", `rule "falls"`},
		{"range,,86,°C,5,1,,,,odd,manual", `rule "range"`},
		{"range,,86,°C,5,,,,,odd,manual", `rule "range"`},
		{"fault,,,°C,5,5,,,,odd,manual", `rule "fault"`},
		{"info,,74,,,,,,,air,manual", `rule "info"`},
		{"info,,74,,0,,,air,,air,manual", `rule "info"`},
		{"nope,,74,,,,,,,air,manual", `rule "nope"`},
	} {
		// The other tables are those of the program.
		good := load()
		tables := &tables{registerIDs: good.registerIDs, modelNames: good.modelNames, unitRows: good.unitRows}
		err := eachRow(fstest.MapFS{"bounds.csv": {Data: []byte(head + tt.row + "\n")}}, "bounds.csv", tables.addBound)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %s", tt.row, err, tt.want)
		}
	}
}
