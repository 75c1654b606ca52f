package catalog

import (
	"bytes"
	"encoding/csv"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	"unicode"
	"unicode/utf8"

	"kmp2mqtt/kmp"
)

// readFile returns a file of testdata.
func readFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The embedded files are what load panics on, so every row of them is parsed here.
func TestFilesParse(t *testing.T) {
	if _, err := parse(files); err != nil {
		t.Fatal(err)
	}
}

// testdata/register_ids.txt holds every register that has been found in a public
// source: none may be lost.
func TestRegistersAreComplete(t *testing.T) {
	var got []string
	for _, r := range Registers() {
		got = append(got, strconv.Itoa(int(r.ID)))
	}
	want := strings.Fields(string(readFile(t, "register_ids.txt")))
	if len(want) != 677 {
		t.Fatalf("register_ids.txt has %d ids, should have 677", len(want))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d registers, want the %d of testdata/register_ids.txt", len(got), len(want))
	}
}

func TestUnitsAreComplete(t *testing.T) {
	units := Units()
	if len(units) != 91 {
		t.Fatalf("%d units, want 91", len(units))
	}
	for i, u := range units {
		if int(u.Code) != i {
			t.Errorf("unit %d stands at position %d", u.Code, i)
		}
	}
}

// The number of rows is that of the public sources. A row about several digits of a
// display becomes several codes.
func TestInfoCodesAreComplete(t *testing.T) {
	data, err := fs.ReadFile(files, "infocodes.csv")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(data)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows)-1 != 187 {
		t.Errorf("%d rows, want 187", len(rows)-1)
	}
	got := map[string]int{}
	for _, table := range InfoTables() {
		got[table.Name] = len(table.Codes)
	}
	want := map[string]int{
		"sum602": 16, "sum402": 15, "bits403": 15, "display403": 15, "display603": 30, "bits603": 32, "bits303": 10,
		"water16": 8, "duration": 8, "water32": 9, "durations_kwm": 3, "event_status_0": 8, "event_status_1": 2,
		"event_status_2": 5, "event_status_2_heat": 2, "log_info": 4, "log_info_word": 12, "cutoff_state": 9,
	}
	for name, n := range want {
		if got[name] != n {
			t.Errorf("table %s has %d codes, want %d", name, got[name], n)
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("table %s: how many codes it should have is not written here", name)
	}
}

func TestRegisterNames(t *testing.T) {
	pattern := regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	generic := regexp.MustCompile(`^register_(\d+)$`)
	// Keys of the state and of the entities that the bridge adds to a meter.
	reserved := []string{"time", "last_reading", "failed_reads", "read_now", "read_interval"}
	names, titles := map[string]uint16{}, map[string]uint16{}
	for _, r := range Registers() {
		if !pattern.MatchString(r.Name) || slices.Contains(reserved, r.Name) {
			t.Errorf("register %d: name %q", r.ID, r.Name)
		}
		if other, ok := names[r.Name]; ok {
			t.Errorf("registers %d and %d are both named %s", other, r.ID, r.Name)
		}
		if other, ok := titles[r.Title]; ok {
			t.Errorf("registers %d and %d both have the title %q", other, r.ID, r.Title)
		}
		names[r.Name], titles[r.Title] = r.ID, r.ID
		m := generic.FindStringSubmatch(r.Name)
		if m != nil && m[1] != strconv.Itoa(int(r.ID)) {
			t.Errorf("register %d is named %s", r.ID, r.Name)
		}
		if (m != nil) != (r.Kind == Unknown) {
			t.Errorf("register %d: name %s and kind %s do not fit: exactly those of unknown meaning have a generic name", r.ID, r.Name, r.Kind)
		}
		first, _ := utf8.DecodeRuneInString(r.Title)
		if !unicode.IsUpper(first) && !strings.HasPrefix(r.Title, "wM-Bus") {
			t.Errorf("register %d: title %q does not begin with a capital", r.ID, r.Title)
		}
		for _, text := range []string{r.Title, r.Description, r.Label, r.Notes, r.Unit} {
			if strings.ContainsAny(text, "[]\n") || strings.TrimSpace(text) != text {
				t.Errorf("register %d: text %q is not clean", r.ID, text)
			}
		}
	}
}

// Two different values must never get the same key, whatever units a meter sends.
func TestKeysCannotCollide(t *testing.T) {
	names := map[string]bool{}
	for _, r := range Registers() {
		names[r.Name] = true
	}
	for name := range names {
		for code := range 256 {
			key := Key(name, kmp.Unit(code))
			if key != name && names[key] {
				t.Errorf("%s in unit %d has the key %s, which is another register's name", name, code, key)
			}
		}
	}
}

// The names that docs and dashboards rely on.
func TestCoreNames(t *testing.T) {
	for id, want := range map[uint16]string{
		60: "energy", 63: "cooling_energy", 68: "volume", 69: "volume2", 72: "mass", 74: "flow", 75: "flow2",
		80: "power", 84: "input_a", 85: "input_b", 86: "supply_temperature", 87: "return_temperature",
		88: "temperature3", 89: "temperature_difference", 97: "volume_x_supply_temperature",
		110: "volume_x_return_temperature", 99: "info_code", 113: "info_events", 266: "energy_high_resolution",
		1004: "operating_hours", 124: "max_flow_year", 123: "max_flow_year_date",
		149: "average_supply_temperature_month", 1: "active_energy_import", 19: "active_energy_import_tariff_1",
		1054: "voltage_l1", 1076: "current_l1", 1080: "power_import_l1", 1001: "serial_number", 1002: "clock",
		1003: "date", 175: "error_hours", 369: "info_bits",
	} {
		r := Lookup(id)
		if r.Name != want {
			t.Errorf("register %d is named %s, want %s", id, r.Name, want)
		}
		if byName, ok := ByName(want); !ok || byName != r {
			t.Errorf("ByName(%q) = %v, %v, want register %d", want, byName.ID, ok, id)
		}
	}
}

// Titles and keys of the messages that a running Home Assistant has accepted.
func TestExampleMessages(t *testing.T) {
	for _, tt := range []struct {
		id         uint16
		unit       kmp.Unit
		key, title string
		rare       bool
	}{
		{60, kmp.UnitGJ, "energy_gj", "Energy", false},
		{63, kmp.UnitGJ, "cooling_energy_gj", "Cooling energy", true},
		{68, kmp.UnitCubicMetre, "volume_m3", "Volume", false},
		{74, kmp.UnitLitrePerH, "flow_l_h", "Flow", false},
		{80, kmp.UnitKW, "power_kw", "Power", false},
		{86, kmp.UnitCelsius, "supply_temperature_c", "Supply temperature", false},
		{87, kmp.UnitCelsius, "return_temperature_c", "Return temperature", false},
		{89, kmp.UnitKelvin, "temperature_difference_k", "Temperature difference", false},
		{97, kmp.UnitCubicMC, "volume_x_supply_temperature_m3c", "Volume × supply temperature", true},
		{266, kmp.UnitWh, "energy_high_resolution_wh", "Energy, high resolution (wraps)", true},
		{99, kmp.UnitNumber, "info_code", "Info code", false},
		{1004, kmp.UnitHour, "operating_hours_h", "Operating hours", true},
		{124, kmp.UnitLitrePerH, "max_flow_year_l_h", "Maximum flow this year", true},
		{123, kmp.UnitDate, "max_flow_year_date", "Date of maximum flow this year", true},
	} {
		r := Lookup(tt.id)
		if got := Key(r.Name, tt.unit); got != tt.key {
			t.Errorf("register %d, unit %d: key %s, want %s", tt.id, tt.unit, got, tt.key)
		}
		if r.Title != tt.title || r.Rare != tt.rare {
			t.Errorf("register %d: title %q, rare %v, want %q, %v", tt.id, r.Title, r.Rare, tt.title, tt.rare)
		}
	}
}

func TestKinds(t *testing.T) {
	for id, want := range map[uint16]Kind{
		60: Counter, 17: ResettableCounter, 266: TruncatedCounter, 239: TruncatedCounter, 80: Gauge, 124: Gauge,
		123: Date, 1003: Date, 1002: Clock, 348: Clock, 99: Bitfield, 1001: ID, 153: Config, 1460: LogField,
		1058: Text, 515: Unknown,
	} {
		if got := Lookup(id).Kind; got != want {
			t.Errorf("register %d is a %s, want %s", id, got, want)
		}
	}
	for k := Unknown; k <= Text; k++ {
		if got, err := parseKind(k.String()); err != nil || got != k {
			t.Errorf("parseKind(%q) = %v, %v", k.String(), got, err)
		}
	}
	if got := Kind(200).String(); got != "kind 200" {
		t.Errorf("Kind(200) is %q", got)
	}
}

func TestByName(t *testing.T) {
	for _, tt := range []struct {
		name string
		id   uint16
		ok   bool
	}{
		{"power", 80, true},
		{" Power\t", 80, true},
		{"80", 80, true},
		{" 80 ", 80, true},
		{"0x50", 80, true},
		{"0X4a", 74, true},
		{"register_80", 80, true},
		{"register_515", 515, true},
		{"0", 0, true},
		{"65535", 65535, true},
		{"59", 59, true}, // not in the catalog: only the meter knows
		{"0xFFFF", 65535, true},
		{"65536", 0, false},
		{"-1", 0, false},
		{"+80", 0, false},
		{"8_0", 0, false},
		{"0x", 0, false},
		{"50h", 0, false},
		{"", 0, false},
		{"register_", 0, false},
		{"energy_gj", 0, false},
		{"heat", 0, false},
	} {
		got, ok := ByName(tt.name)
		if ok != tt.ok || got.ID != tt.id {
			t.Errorf("ByName(%q) = register %d, %v, want %d, %v", tt.name, got.ID, ok, tt.id, tt.ok)
		}
		if ok && got != Lookup(tt.id) {
			t.Errorf("ByName(%q) is not what Lookup(%d) gives", tt.name, tt.id)
		}
	}
}

func TestLookupUnknown(t *testing.T) {
	want := Register{ID: 59, Name: "register_59", Title: "Register 59", Rare: true}
	if got := Lookup(59); got != want {
		t.Errorf("Lookup(59) = %+v, want %+v", got, want)
	}
}

func TestUnits(t *testing.T) {
	for _, tt := range []struct {
		code           kmp.Unit
		symbol, suffix string
		shift          int
		known          bool
	}{
		{0x00, "", "", 0, true},
		{0x03, "MWh", "mwh", 0, true},
		{0x08, "GJ", "gj", 0, true},
		{0x15, "W", "w", 0, true}, // many lists say kW
		{0x16, "kW", "kw", 0, true},
		{0x19, "var", "var", 0, true}, // many lists say kvar
		{0x1A, "kvar", "kvar", 0, true},
		{0x25, "°C", "c", 0, true},
		{0x26, "K", "k", 0, true},
		{0x28, "m³", "m3", 0, true},
		{0x29, "l/h", "l_h", 0, true},
		{0x2A, "m³/h", "m3_h", 0, true},
		{0x2B, "m³·°C", "m3c", 0, true},
		{0x2C, "t", "t", 0, true},
		{0x2E, "h", "h", 0, true},
		{0x2F, "", "", 0, true},
		{0x30, "", "", 0, true},
		{0x33, "", "", 0, true},
		{0x36, "", "", 0, true},
		{0x37, "m³", "m3", 1, true},
		{0x38, "t", "t", 1, true},
		{0x39, "GJ", "gj", 1, true},
		{0x3B, "", "", 0, true},
		{0x45, "%", "percent", 0, true},
		{0x4B, "", "unit_75", 0, false},
		{0x4F, "", "", 0, true},
		{0x5B, "", "unit_91", 0, false},
		{0xFF, "", "unit_255", 0, false},
	} {
		u, known := LookupUnit(tt.code)
		if u.Code != tt.code || u.Symbol != tt.symbol || u.Suffix != tt.suffix || u.Shift != tt.shift || known != tt.known {
			t.Errorf("LookupUnit(0x%02X) = %+v, %v, want %+v", byte(tt.code), u, known, tt)
		}
	}
}

// A unit that can be seen has a suffix, and a suffix belongs to one symbol: else
// two units would share a key.
func TestUnitSuffixes(t *testing.T) {
	pattern := regexp.MustCompile(`^[a-z0-9]+(_[a-z0-9]+)*$`)
	symbols := map[string]string{}
	for _, u := range Units() {
		if u.Suffix == "" {
			if u.Symbol != "" {
				t.Errorf("unit %d has the symbol %s but no suffix", u.Code, u.Symbol)
			}
			continue
		}
		if !pattern.MatchString(u.Suffix) {
			t.Errorf("unit %d: suffix %q", u.Code, u.Suffix)
		}
		if symbol, ok := symbols[u.Suffix]; ok && symbol != u.Symbol {
			t.Errorf("suffix %s belongs to both %s and %s", u.Suffix, symbol, u.Symbol)
		}
		symbols[u.Suffix] = u.Symbol
	}
}

func TestModels(t *testing.T) {
	models := Models()
	for _, want := range []string{"302", "303", "402", "403", "601", "602", "603", "801", "803", "21", "62", "382"} {
		if !slices.ContainsFunc(models, func(m Model) bool { return m.Name == want }) {
			t.Errorf("model %s is missing", want)
		}
	}
	for _, m := range models {
		for _, name := range []string{m.Name, m.Title, " " + strings.ToLower(m.Title) + " "} {
			if got, ok := ModelByName(name); !ok || got.Name != m.Name {
				t.Errorf("ModelByName(%q) = %q, %v, want %q", name, got.Name, ok, m.Name)
			}
		}
		if n := len(m.Registers); n <= kmp.MaxRegisters || n > 4*kmp.MaxRegisters {
			t.Errorf("model %s has %d usual registers, want two to four requests", m.Name, n)
		}
		seen := map[uint16]bool{}
		for i, id := range m.Registers {
			if i > 0 && Lookup(m.Registers[i-1]).Pace > Lookup(id).Pace {
				t.Errorf("model %s: register %d is read each time and stands behind one that is not", m.Name, id)
			}
			if seen[id] {
				t.Errorf("model %s: register %d stands there twice", m.Name, id)
			}
			seen[id] = true
			if !m.Has(id) {
				t.Errorf("model %s: no source says that it has register %d", m.Name, id)
			}
		}
		if m.Like != "" {
			if _, ok := ModelByName(m.Like); !ok {
				t.Errorf("model %s is like %q, which is no model", m.Name, m.Like)
			}
		}
		if m.Baud == 0 || m.Source == "" {
			t.Errorf("model %s lacks its speed or source", m.Name)
		}
		if m.Battery != (m.Family != Electricity) || m.Usual < time.Minute || m.Usual > 6*time.Hour {
			t.Errorf("model %s: battery %v, usual interval %v", m.Name, m.Battery, m.Usual)
		}
		if each := eachTime(m); m.Battery && each > 2*kmp.MaxRegisters {
			t.Errorf("model %s: %d registers are read each time, want at most two requests", m.Name, each)
		}
	}
	first := []uint16{60, 266, 68, 239, 74, 80, 86, 87}
	if m, _ := ModelByName("403"); !slices.Equal(m.Registers[:8], first) || m.Title != "MULTICAL 403" || m.Family != Heat {
		t.Errorf("model 403 is %+v", m)
	}
	if _, ok := ModelByName("401"); ok {
		t.Error("there is a model 401, which does not speak KMP")
	}
}

// eachTime counts the usual registers that are read each time.
func eachTime(m Model) int {
	n := 0
	for _, id := range m.Registers {
		if Lookup(id).Pace == EachTime {
			n++
		}
	}
	return n
}

// A coarse counter and its fine twin are answered at one moment only when one request
// asks for both.
func TestPairsShareRequest(t *testing.T) {
	pairs := [][2]uint16{{60, 266}, {60, 155}, {63, 267}, {68, 239}, {68, 223}, {1, 13}, {2, 14}}
	for _, m := range Models() {
		found := 0
		for _, pair := range pairs {
			coarse, fine := slices.Index(m.Registers, pair[0]), slices.Index(m.Registers, pair[1])
			if fine < 0 {
				continue
			}
			found++
			if coarse < 0 || coarse/kmp.MaxRegisters != fine/kmp.MaxRegisters {
				t.Errorf("model %s: register %d stands at %d, its fine twin %d at %d", m.Name, pair[0], coarse, pair[1], fine)
			}
		}
		if found == 0 {
			t.Errorf("model %s has no fine counter", m.Name)
		}
	}
}

// How often the families are read.
func TestUsualIntervals(t *testing.T) {
	for name, want := range map[string]time.Duration{
		"302": 30 * time.Minute, "303": 30 * time.Minute, "402": 30 * time.Minute, "403": 30 * time.Minute,
		"601": 30 * time.Minute, "602": 30 * time.Minute, "603": 30 * time.Minute, "801": 30 * time.Minute,
		"803": 30 * time.Minute, "62": 30 * time.Minute, "flowiq2200": 30 * time.Minute, "kwm2231": 30 * time.Minute,
		"21": 6 * time.Hour, "flowiq2101": 6 * time.Hour, "flowiq3100": 6 * time.Hour,
		"162": time.Minute, "351": time.Minute, "382": time.Minute, "omnipower": time.Minute,
	} {
		if m, ok := ModelByName(name); !ok || m.Usual != want {
			t.Errorf("model %s is read every %v, want %v", name, m.Usual, want)
		}
	}
}

func TestPaces(t *testing.T) {
	for name, want := range map[string]Pace{
		"serial_number": EachTime, "energy": EachTime, "info_code": EachTime, "info_events": Daily,
		"clock": EachTime, "date": EachTime, "date_time": EachTime, "rtc": EachTime, "operating_hours": EachTime,
		"max_flow_day": EachTime, "max_flow_day_date": EachTime, "max_flow_hour": EachTime, "register_515": EachTime,
		"average_voltage_10_min_l1": EachTime, "volume_in_flow_range_1": EachTime, "power_import_l1": EachTime,
		"max_flow_year": Daily, "min_power_month": Daily, "max_flow_year_date": Daily, "max_flow_year_time": Daily,
		"average_supply_temperature_month": Daily, "max_water_temperature_month": Daily, "cop_year": Daily,
		"max_power_import": Daily, "accumulated_max_power_import": Daily, "power_import_minimum": Daily,
		"max_power_import_timestamp": Daily, "target_date": Daily, "configuration_1": Daily, "nominal_flow": Daily,
		"customer_number_low": Daily, "top_module_id": Daily, "meter_type_text": Daily, "voltage_quality_1_max": Daily,
	} {
		if r, ok := ByName(name); !ok || r.Pace != want {
			t.Errorf("%s is read %s, want %s", name, r.Pace, want)
		}
	}
	if got := Lookup(59).Pace; got != EachTime {
		t.Errorf("an unknown register is read %s", got)
	}
}

func TestCandidates(t *testing.T) {
	for _, f := range Families() {
		ids := Candidates(f)
		if len(ids) < 80 || len(ids) > MaxCandidates {
			t.Errorf("%d candidates for %s", len(ids), f)
		}
		sorted := slices.Sorted(slices.Values(ids))
		if len(slices.Compact(sorted)) != len(ids) {
			t.Errorf("a candidate for %s stands there twice", f)
		}
		for _, id := range ids {
			if !f.Has(id) {
				t.Errorf("no source says that a meter of the family %s has register %d", f, id)
			}
		}
		for _, m := range Models() {
			for _, id := range m.Registers {
				if m.Family == f && !slices.Contains(ids, id) {
					t.Errorf("register %d, usual for model %s, is no candidate", id, m.Name)
				}
			}
		}
		if !slices.Contains(ids, 1001) || slices.Contains(ids, 1180) {
			t.Errorf("the candidates for %s lack the serial number or ask for a password", f)
		}
		if m := FamilyModel(f); m.Family != f {
			t.Errorf("model %q stands in for the family %s", m.Name, f)
		}
		ids[0] = 0
		if Candidates(f)[0] == 0 {
			t.Errorf("the candidates for %s are overwritten", f)
		}
	}
	if m := FamilyModel(""); m.Name != "403" {
		t.Errorf("model %q stands in for an unknown one", m.Name)
	}
}

// One request tells the families apart: each has registers in it that no other has,
// but water, which is known by what it lacks.
func TestDetectingRegisters(t *testing.T) {
	ids := Candidates("")
	if len(ids) == 0 || len(ids) > kmp.MaxRegisters {
		t.Fatalf("%d registers", len(ids))
	}
	own, shared := map[Family]int{}, 0
	for _, id := range ids {
		having := slices.DeleteFunc(Families(), func(f Family) bool { return !f.Has(id) })
		if len(having) == 1 {
			own[having[0]]++
		} else if slices.Equal(having, []Family{Heat, Water}) {
			shared++
		}
	}
	if own[Heat] < 2 || own[Electricity] < 2 || shared < 2 || own[Heat]+own[Electricity]+shared != len(ids) {
		t.Errorf("%v tells apart %v, %d are of heat and water", ids, own, shared)
	}
	ids[0] = 0
	if Candidates("")[0] == 0 {
		t.Error("the list is overwritten")
	}
}

// Every model that registers.csv names is a model or a family.
func TestRegisterModels(t *testing.T) {
	for _, r := range Registers() {
		for name := range strings.SplitSeq(r.Models, "; ") {
			if _, ok := ModelByName(name); !ok && name != string(Electricity) {
				t.Errorf("register %d: model %q is not in models.csv", r.ID, name)
			}
		}
	}
}

// What a caller gets is its own.
func TestCopies(t *testing.T) {
	Registers()[0].Name = "overwritten"
	Units()[8].Symbol = "overwritten"
	Types()[0].Model = "overwritten"
	Models()[0].Registers[0] = 0
	m, _ := ModelByName("403")
	m.Registers[0] = 0
	InfoTables()[0].Codes[1].Meaning = "overwritten"
	table, _ := InfoTableByName("sum602")
	table.Codes[1].Meaning = "overwritten"
	if strings.Contains(markdown(), "overwritten") {
		t.Error("the catalog has overwritten")
	}
	if m, _ := ModelByName("403"); m.Registers[0] != 60 {
		t.Error("the registers of the 403 have overwritten")
	}
}

func TestTypes(t *testing.T) {
	for _, tt := range []struct {
		code    uint16
		model   string
		meaning string
	}{
		{0x0001, "601", "MULTICAL 601 with Pt500 sensors"},
		{0x1505, "601", "MULTICAL 601 with Pt500 sensors in 4-wire connection, seen through a 6705 top module"},
		{0x5301, "382", "K382 J"},
		{0x53FF, "382", "K382"},
		{0x5600, "162", "K162 B/C or D/E"},
		{0x5A00, "omnipower", "OMNIPOWER"},
		{0x6200, "382", "K382L"},
		{0x0912, "", "top module (answers at address 7F)"},
		{0x1600, "", "base module (answers at address BF)"},
		{0x0403, "", ""},
	} {
		m, ok := ModelByType(tt.code)
		if ok != (tt.model != "") || m.Name != tt.model {
			t.Errorf("ModelByType(%04X) = %q, %v, want %q", tt.code, m.Name, ok, tt.model)
		}
		typ, known := LookupType(tt.code)
		if known != (tt.meaning != "") || typ.Meaning != tt.meaning {
			t.Errorf("LookupType(%04X) = %q, %v, want %q", tt.code, typ.Meaning, known, tt.meaning)
		}
	}
	for _, typ := range Types() {
		if typ.Meaning == "" || typ.Source == "" {
			t.Errorf("type %s lacks its meaning or source", typ.Pattern)
		}
	}
}

func TestInfoText(t *testing.T) {
	for _, tt := range []struct {
		model    string
		register uint16
		value    uint64
		want     []string
	}{
		// T1 is 8 and T2 is 4 on the older generation, something else on a 403.
		{"601", 99, 8, []string{"temperature sensor T1 outside range"}},
		{"602", 99, 4, []string{"temperature sensor T2 outside range"}},
		{"801", 99, 12, []string{"temperature sensor T2 outside range", "temperature sensor T1 outside range"}},
		{"302", 99, 8, []string{"T1 outside range"}},
		{"402", 99, 4, []string{"T2 outside range"}},
		{"403", 99, 8, []string{"t1 above range / disconnected"}},
		{"403", 99, 4, []string{"external alarm (e.g. set via KMP)"}},
		{"MULTICAL 403", 369, 16, []string{"t2 above range / disconnected"}},
		{"602", 99, 0, nil},
		{"602", 99, 1 | 2 | 1<<16, []string{"supply voltage interrupted", "bit 1 (unknown)", "bit 16 (unknown)"}},
		{"402", 99, 32768, []string{"V2 wrong direction"}},
		{"403", 99, 1024, []string{"bit 10 (unknown)"}},
		// Register 99 of the newest generation is presumably the display's digits.
		{"603", 99, 0, nil},
		{"603", 99, 4000, []string{"code 4000 (unknown)"}},
		{"603", 369, 1 << 9, []string{"V1 wrong direction"}},
		{"803", 369, 1<<31 | 1<<10, []string{"bit 10 (reserved)", "V1/V2 leakage, penetration"}},
		{"303", 369, 1<<3 | 1<<16, []string{"t1 above range", "bit 16 (unknown)"}},
		// Water: flags and how long they lasted.
		{"21", 99, 1 | 2<<4, []string{"dry", "dry for 9-24 h"}},
		{"flowiq3100", 99, 1<<2 | 7<<10, []string{"leak", "leak for 22-31 days"}},
		{"flowiq2101", 99, 1 << 7, []string{"reverse flow for 1-8 h"}},
		{"flowiq2200", 99, 1 << 9, []string{"no consumption"}},
		{"kwm2231", 458, 128, []string{"flow above Q4, or meter temperature too high"}},
		{"kwm2231", 409, 8589934593, []string{"dry for 1-8 h", "no consumption for 1-8 h"}},
		{"kwm2231", 409, 17181966337, []string{"dry for 1-8 h", "meter temperature too high for 1-8 h", "no consumption for 9-24 h"}},
		{"382", 1087, 4, []string{"connected"}},
		{"382", 1087, 0, []string{"no relay"}},
		{"omnipower", 1087, 11, []string{"disconnected by push button"}},
		{"382", 1087, 2, []string{"code 2 (unknown)"}},
		// No table.
		{"62", 99, 3, []string{"code 3 (unknown)"}},
		{"", 99, 3, []string{"code 3 (unknown)"}},
		{"403", 80, 3, []string{"code 3 (unknown)"}},
		{"", 99, 0, nil},
	} {
		if got := InfoText(tt.model, tt.register, tt.value); !slices.Equal(got, tt.want) {
			t.Errorf("InfoText(%q, %d, %d) = %q, want %q", tt.model, tt.register, tt.value, got, tt.want)
		}
	}
}

func TestInfoTableText(t *testing.T) {
	for _, tt := range []struct {
		table string
		value uint64
		want  []string
	}{
		{"display403", 4000, []string{"V1 wrong direction"}},
		{"display403", 9900000, []string{"invalid temperature difference t1-t2"}},
		{"display403", 10000000, []string{"no voltage supply"}},
		{"display403", 1200000, []string{"t1 above range", "t2 below range"}},
		{"display403", 89, []string{"In-A leakage", "In-B external alarm"}},
		{"display403", 70005, []string{"digit 4 is 7 (unknown)", "digit 8 is 5 (unknown)"}},
		{"display403", 100000000, []string{"code 100000000 (unknown)"}},
		{"display403", 0, nil},
		{"display603", 5700, []string{"V1/V2 burst, penetration", "digit 5 is 5 (unknown)"}},
		{"display603", 20003400, []string{"low battery (on an 803 the backup battery)", "V1 air", "V2 wrong flow direction"}},
		{"display603", 700, []string{"V1/V2 burst, penetration"}},
		{"log_info", 1 | 16, []string{"log empty", "end of log reached"}},
		{"log_info_word", 0x0210, []string{"not all entries returned", "invalid request"}},
		{"event_status_0", 4, []string{"critical magnetic field"}},
		{"event_status_2_heat", 3, []string{"interval log has unread records", "RTC log has unread records"}},
		{"duration", 3, []string{"2-3 days"}},
	} {
		table, ok := InfoTableByName(tt.table)
		if !ok {
			t.Errorf("there is no table %s", tt.table)
			continue
		}
		if got := table.Text(tt.value); !slices.Equal(got, tt.want) {
			t.Errorf("table %s, value %d: %q, want %q", tt.table, tt.value, got, tt.want)
		}
	}
	if _, ok := InfoTableByName("no such table"); ok {
		t.Error("a table that does not exist was found")
	}
}

// Each register of an info table is one that can be read, and of two tables for the
// same model and register only the first would ever be used.
func TestInfoTables(t *testing.T) {
	used := map[string]string{} // by model and register
	for _, table := range InfoTables() {
		for _, id := range table.Registers {
			if Lookup(id).Source == "" {
				t.Errorf("table %s: register %d is not in registers.csv", table.Name, id)
			}
			for _, model := range table.Models {
				key := model + " " + strconv.Itoa(int(id))
				if other := used[key]; other != "" {
					t.Errorf("tables %s and %s are both for register %d of model %s", other, table.Name, id, model)
				}
				used[key] = table.Name
			}
		}
		if len(table.Codes) == 0 {
			t.Errorf("table %s is empty", table.Name)
		}
	}
}

// Every mistake in a file is found, and the error says where it is.
func TestParseErrors(t *testing.T) {
	const (
		registers  = "id,hex,name,title,description,unit,kind,rare,models,label,notes,source\n"
		units      = "code,hex,symbol,suffix,shift,meaning,notes,source\n"
		models     = "name,title,family,like,baud,interval_s,usual_min,registers,logs,notes,source\n"
		types      = "pattern,model,meaning,source\n"
		infoTables = "name,title,format,models,registers,classes,notes\n"
		infoCodes  = "table,code,meaning,source\n"
		energy     = "60,0x003C,energy,Energy,Heat energy,GJ,counter,,403,E1,,manual\n"
		flags      = "bits,Bits,flags,,,,\nshown,Shown,digits,,,,\n"
	)
	good := map[string]string{
		"registers.csv":  registers + energy,
		"units.csv":      units + "8,0x08,GJ,gj,0,GJ,,manual\n",
		"models.csv":     models + "403,MULTICAL 403,heat,,1200,32,30,60,meter,,manual\n",
		"typecodes.csv":  types + "0001,403,MULTICAL 403,manual\n",
		"infotables.csv": infoTables + flags,
		"infocodes.csv":  infoCodes + "bits,bit 0,on,manual\n",
		"bounds.csv":     "rule,models,registers,unit,low,high,nominal,info,unknown,reason,source\nfalls,403,60,,,,,,,may fall,manual\n",
	}
	for _, tt := range []struct {
		name, file, content, want string
	}{
		{"missing file", "units.csv", "", "units.csv"},
		{"no rows", "units.csv", units, "units.csv: has no rows"},
		{"ragged row", "units.csv", units + "8,0x08\n", "units.csv: record on line 2"},
		{"register id", "registers.csv", registers + strings.Replace(energy, "60,", "x,", 1), "registers.csv: row 2: column id"},
		{"register hex", "registers.csv", registers + strings.Replace(energy, "3C", "3D", 1), "should be 0x003C"},
		{"register kind", "registers.csv", registers + strings.Replace(energy, "counter", "conter", 1), `kind "conter"`},
		{"register without source", "registers.csv", registers + strings.Replace(energy, "manual", "", 1), "column source"},
		{"register order", "registers.csv", registers + energy + strings.Replace(energy, ",energy", ",other", 1), "row 3: register 60"},
		{"register name twice", "registers.csv", registers + energy + strings.Replace(energy, "60,0x003C", "61,0x003D", 1), "name energy"},
		{"unit code", "units.csv", units + "256,0x100,,,0,x,,manual\n", "column code"},
		{"unit hex", "units.csv", units + "8,0x09,GJ,gj,0,GJ,,manual\n", "column hex"},
		{"unit shift", "units.csv", units + "8,0x08,GJ,gj,-1,GJ,,manual\n", "column shift"},
		{"unit twice", "units.csv", units + strings.Repeat("8,0x08,GJ,gj,0,GJ,,manual\n", 2), "row 3: unit 8"},
		{"unit without meaning", "units.csv", units + "8,0x08,GJ,gj,0,,,manual\n", "column meaning"},
		{"unit without source", "units.csv", units + "8,0x08,GJ,gj,0,GJ,,\n", "has a source"},
		{"model speed", "models.csv", models + "403,MULTICAL 403,heat,,fast,32,30,60,meter,,manual\n", "column baud"},
		{"model family", "models.csv", models + "403,MULTICAL 403,gas,,1200,32,30,60,meter,,manual\n", `family "gas"`},
		{"model interval", "models.csv", models + "403,MULTICAL 403,heat,,1200,32s,30,60,meter,,manual\n", "column interval_s"},
		{"model usual interval", "models.csv", models + "403,MULTICAL 403,heat,,1200,32,half an hour,60,meter,,manual\n", "column usual_min"},
		{"model register", "models.csv", models + "403,MULTICAL 403,heat,,1200,32,30,6O,meter,,manual\n", "column registers"},
		{"model logs", "models.csv", models + "403,MULTICAL 403,heat,,1200,32,30,60,somewhere,,manual\n", "column logs"},
		{"model unknown register", "models.csv", models + "403,MULTICAL 403,heat,,1200,32,30,61,meter,,manual\n", "61 is not in registers.csv"},
		{"model twice", "models.csv", models + strings.Repeat("403,MULTICAL 403,heat,,1200,32,30,60,meter,,manual\n", 2), "model 403"},
		{"type pattern", "typecodes.csv", types + "001,403,MULTICAL 403,manual\n", "pattern"},
		{"type digit", "typecodes.csv", types + "00g1,403,MULTICAL 403,manual\n", "pattern"},
		{"type model", "typecodes.csv", types + "0001,404,MULTICAL 404,manual\n", `model "404"`},
		{"table format", "infotables.csv", infoTables + "bits,Bits,flag,,,,\n", `format "flag"`},
		{"table model", "infotables.csv", infoTables + "bits,Bits,flags,404,,,\n", `model "404"`},
		{"table register", "infotables.csv", infoTables + "bits,Bits,flags,403,x,,\n", "column registers"},
		{"table classes", "infotables.csv", infoTables + "bits,Bits,flags,,,nope,\n", `classes "nope"`},
		{"table twice", "infotables.csv", infoTables + flags + flags, "table bits"},
		{"code table", "infocodes.csv", infoCodes + "bit,bit 0,on,manual\n", `table "bit"`},
		{"code without meaning", "infocodes.csv", infoCodes + "bits,bit 0,,manual\n", "lacks"},
		{"code without source", "infocodes.csv", infoCodes + "bits,bit 0,on,\n", "lacks"},
		{"code twice", "infocodes.csv", infoCodes + strings.Repeat("bits,bit 0,on,manual\n", 2), "code bit 0"},
		{"code bit", "infocodes.csv", infoCodes + "bits,bit 64,on,manual\n", `code "bit 64"`},
		{"code neither bit nor group", "infocodes.csv", infoCodes + "bits,3-4,on,manual\n", `does not fit`},
		{"code bit with a dash", "infocodes.csv", infoCodes + "bits,bit 3-4,on,manual\n", `code "bit 3-4"`},
		{"code word", "infocodes.csv", infoCodes + "bits,3,on,manual\n", `does not fit`},
		{"code group", "infocodes.csv", infoCodes + "bits,bits 4-3,on,manual\n", `code "bits 4-3"`},
		{"code group without classes", "infocodes.csv", infoCodes + "bits,bits 3-4,on,manual\n", "no classes"},
		{"digits and meanings", "infocodes.csv", infoCodes + "shown,1....... 2.......,on,manual\n", "2 codes, but 1 meanings"},
		{"code open group", "infocodes.csv", infoCodes + "bits,bits 4,on,manual\n", `code "bits 4"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fsys := fstest.MapFS{}
			for name, content := range good {
				fsys[name] = &fstest.MapFile{Data: []byte(content)}
			}
			if _, err := parse(fsys); err != nil {
				t.Fatalf("the good files fail: %v", err)
			}
			fsys[tt.file] = &fstest.MapFile{Data: []byte(tt.content)}
			if tt.content == "" {
				delete(fsys, tt.file)
			}
			_, err := parse(fsys)
			if err == nil || !strings.HasPrefix(err.Error(), "catalog: ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one that says %q", err, tt.want)
			}
		})
	}
	for _, tt := range []struct{ format, code string }{
		{"digits", "1......"}, {"digits", "0......."}, {"digits", "1......x"}, {"values", "-1"}, {"values", "one"},
	} {
		if code, err := parseInfoCode(Format(tt.format), tt.code); err == nil {
			t.Errorf("code %q of format %s is accepted: %+v", tt.code, tt.format, code)
		}
	}
}

// The units that count in tens are multiplied, all others are left alone.
func TestValue(t *testing.T) {
	for _, tt := range []struct {
		name string
		r    kmp.Register
		want string
	}{
		{"GJ", kmp.Register{Unit: kmp.UnitGJ, SiEx: 0x43, Raw: []byte{0x03, 0x78, 0x75}}, "227.445"},
		{"m³ × 10", kmp.Register{Unit: 0x37, SiEx: 0x42, Raw: []byte{0x04, 0xD2}}, "123.4"},
		{"GJ × 10", kmp.Register{Unit: 0x39, Raw: []byte{7}}, "70"},
		{"date", kmp.Register{Unit: kmp.UnitDate, Raw: []byte{0x03, 0xF8, 0x22}}, "2026-01-30"},
		{"unknown unit", kmp.Register{Unit: 75, SiEx: 0x41, Raw: []byte{15}}, "0F"},
	} {
		got, err := Value(tt.r)
		if err != nil || got == nil || got.String() != tt.want {
			t.Errorf("%s: %v, %v, want %s", tt.name, got, err, tt.want)
		}
	}
	if got, err := Value(kmp.Register{Unit: kmp.UnitDate, Raw: []byte{0}}); got != nil || err != nil {
		t.Errorf("a date of 0 is %v, %v, want nothing", got, err)
	}
	if got, err := Value(kmp.Register{Unit: kmp.UnitDate, Raw: []byte{99}}); err == nil {
		t.Errorf("the date 99 is %v", got)
	}
}

func FuzzByName(f *testing.F) {
	for _, s := range []string{"power", " 80 ", "0x50", "register_80", "REGISTER_0x50", "", "0x", "65536", "register_register_80", "\x00é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, ok := ByName(s)
		if !ok {
			if r != (Register{}) {
				t.Fatalf("ByName(%q) found nothing, but returned %+v", s, r)
			}
			return
		}
		if r != Lookup(r.ID) {
			t.Fatalf("ByName(%q) is not what Lookup(%d) gives", s, r.ID)
		}
		if again, ok := ByName(r.Name); !ok || again != r {
			t.Fatalf("ByName(%q) is register %d, but its own name %q is not", s, r.ID, r.Name)
		}
	})
}

func FuzzInfoText(f *testing.F) {
	f.Add("602", uint16(99), uint64(12))
	f.Add("21", uint16(99), uint64(0xFFFF))
	f.Add("kwm2231", uint16(409), uint64(17184063489))
	f.Add("382", uint16(1087), uint64(0))
	f.Add("", uint16(0), uint64(1<<63))
	f.Fuzz(func(t *testing.T, model string, register uint16, value uint64) {
		words := InfoText(model, register, value)
		if value != 0 && len(words) == 0 {
			t.Fatalf("value %d of register %d of %q says nothing", value, register, model)
		}
		if len(words) > 64 {
			t.Fatalf("%d words", len(words))
		}
		for _, word := range words {
			if word == "" || strings.HasSuffix(word, " ") {
				t.Fatalf("word %q", word)
			}
		}
		for _, table := range InfoTables() {
			if words := table.Text(value); value != 0 && len(words) == 0 {
				t.Fatalf("value %d of table %s says nothing", value, table.Name)
			}
		}
	})
}
