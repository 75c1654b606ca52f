package discovery_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"kmp2mqtt/discovery"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

// house is the meter of testdata/example-messages.json.
func house() discovery.Device {
	return discovery.Device{
		Serial: "80123456", Name: "house", Model: "MULTICAL 403", Revision: "F1", Version: "0.1.0",
		StateTopic: "kmp2mqtt/house", DiagnosticsTopic: "kmp2mqtt/house/diagnostics",
		AvailabilityTopic: "kmp2mqtt/house/availability", BridgeStateTopic: "kmp2mqtt/bridge/state",
		GetTopic: "kmp2mqtt/house/get", SetTopic: "kmp2mqtt/house/set", ShortestInterval: time.Minute,
	}
}

// explained is the same meter with a diagnosis and with info codes in words.
func explained() discovery.Device {
	d := house()
	d.DiagnosisTopic = "kmp2mqtt/house/diagnosis"
	d.Diagnoses = []string{"ok", "not_read", "silent", "bad_checksums"}
	d.HasInfo = true
	return d
}

// measured is what the example's meter sends, in its order.
func measured() []discovery.Measurement {
	return []discovery.Measurement{
		measurement(60, kmp.UnitGJ, 3),
		measurement(63, kmp.UnitGJ, 3),
		measurement(68, kmp.UnitCubicMetre, 2),
		measurement(74, kmp.UnitLitrePerH, 0),
		measurement(80, kmp.UnitKW, 1),
		measurement(86, kmp.UnitCelsius, 2),
		measurement(87, kmp.UnitCelsius, 2),
		measurement(89, kmp.UnitKelvin, 2),
		measurement(97, kmp.UnitCubicMC, 0),
		measurement(266, kmp.UnitWh, 0),
		measurement(99, kmp.UnitNumber, 0),
		measurement(1004, kmp.UnitHour, 0),
		measurement(124, kmp.UnitLitrePerH, 0),
		measurement(123, kmp.UnitDate, 0),
	}
}

// The bridge's own entities of every meter, and those of a meter that explains itself.
var (
	own        = []string{"last_reading", "failed_reads", "serial", "read_now", "read_interval"}
	explaining = []string{"diagnosis", "reading_problem", "link_quality", "reads_today", "awake_today", "problem"}
)

func measurement(id uint16, unit kmp.Unit, decimals int) discovery.Measurement {
	r := catalog.Lookup(id)
	return discovery.Measurement{Register: r, Unit: unit, Key: catalog.Key(r.Name, unit), Decimals: decimals}
}

func meter(t testing.TB, d discovery.Device, ms ...discovery.Measurement) []byte {
	t.Helper()
	b, err := discovery.Meter(d, ms)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decode(t testing.TB, b []byte) object {
	t.Helper()
	var o object
	if err := json.Unmarshal(b, &o); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return o
}

// component returns one entity of a message.
func component(t testing.TB, message []byte, id string) object {
	t.Helper()
	e, ok := decode(t, message)["components"].(object)[id].(object)
	if !ok {
		t.Fatalf("no component %q in %s", id, message)
	}
	return e
}

// example returns the messages that a running Home Assistant took without a complaint.
func example(t testing.TB) object {
	t.Helper()
	b, err := os.ReadFile("testdata/example-messages.json")
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, b)
}

func TestMeterIsTheExample(t *testing.T) {
	want := example(t)[discovery.Topic("homeassistant", discovery.MeterID("80123456"))].(object)
	components := want["components"].(object)
	// What goes beyond the example:
	components["serial"] = object{
		"platform": "sensor", "unique_id": "kmp_80123456_serial", "name": "Serial number",
		"value_template": "{{ value_json.serial }}", "entity_category": "diagnostic",
		"state_topic":  "kmp2mqtt/house/diagnostics",
		"availability": []any{object{"topic": "kmp2mqtt/bridge/state"}}, "qos": 1.0,
	}
	interval := components["read_interval"].(object)
	interval["max"] = 10080.0 // the settings take a week
	interval["command_template"] = `{"interval":"{{ (value * 60) | round | int }}s"}`

	got := meter(t, house(), measured()...)
	if diff := cmp.Diff(want, decode(t, got)); diff != "" {
		t.Errorf("example and message differ (-example +message):\n%s", diff)
	}
}

func TestBridgeIsTheExample(t *testing.T) {
	want := example(t)[discovery.Topic("homeassistant", "kmp2mqtt_bridge")]
	got, err := discovery.Bridge(discovery.BridgeDevice{BaseTopic: "kmp2mqtt", Version: "0.1.0"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, any(decode(t, got))); diff != "" {
		t.Errorf("example and message differ (-example +message):\n%s", diff)
	}
}

// TestOrder checks that the entities come as measured, the bridge's own after them,
// and that nothing depends on the order of a map.
func TestOrder(t *testing.T) {
	for _, tt := range []struct {
		device discovery.Device
		own    []string
	}{
		{house(), own},
		{explained(), slices.Concat(own, explaining)},
	} {
		first := meter(t, tt.device, measured()...)
		var ids []string
		for _, m := range regexp.MustCompile(`"([a-z_0-9]+)":\{"platform"`).FindAllSubmatch(first, -1) {
			ids = append(ids, string(m[1]))
		}
		want := make([]string, 0, 30)
		for _, m := range measured() {
			want = append(want, m.Register.Name)
		}
		if want = append(want, tt.own...); !slices.Equal(ids, want) {
			t.Errorf("order %v, want %v", ids, want)
		}
		for range 20 {
			if again := meter(t, tt.device, measured()...); string(again) != string(first) {
				t.Fatalf("the same meter gave\n%s\nand\n%s", first, again)
			}
		}
	}
}

// TestTemplates evaluates the value templates on the example's state and
// diagnostics: each must find a key, and a value of the form that its class promises.
func TestTemplates(t *testing.T) {
	messages := example(t)
	root := decode(t, meter(t, house(), measured()...))
	for id, c := range root["components"].(object) {
		e := c.(object)
		if e["platform"] != "sensor" {
			continue
		}
		topic, _ := e["state_topic"].(string)
		if topic == "" {
			topic = root["state_topic"].(string)
		}
		key := templatePattern.FindStringSubmatch(e["value_template"].(string))[1]
		value, ok := messages[topic].(object)[key]
		if !ok {
			t.Errorf("%s: %s has no key %q", id, topic, key)
			continue
		}
		_, isNumber := value.(float64)
		if numeric := e["unit_of_measurement"] != nil || e["state_class"] != nil; numeric && !isNumber {
			t.Errorf("%s: %v is not a number", id, value)
		}
		var err error
		switch e["device_class"] {
		case "date":
			_, err = time.Parse(time.DateOnly, value.(string))
		case "timestamp":
			_, err = time.Parse(time.RFC3339, value.(string))
		}
		if err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// TestEveryRegister puts the whole catalog in every unit and on a meter of every
// family before Home Assistant's rules.
func TestEveryRegister(t *testing.T) {
	classes := readClasses(t)
	families := []catalog.Family{"", catalog.Heat, catalog.Water, catalog.Electricity}
	registers := catalog.Registers()
	if len(registers) < 600 {
		t.Fatalf("%d registers in the catalog", len(registers))
	}
	for code := range 256 {
		unit := kmp.Unit(code)
		if _, known := catalog.LookupUnit(unit); !known && code != 0xFF {
			continue // one unknown code stands for all
		}
		ms := make([]discovery.Measurement, 0, len(registers))
		for _, r := range registers {
			ms = append(ms, discovery.Measurement{Register: r, Unit: unit, Key: catalog.Key(r.Name, unit), Decimals: 3})
		}
		var judged []byte // the last message: most families give the same
		for _, family := range families {
			d := explained()
			d.Model, d.Family = "", family
			b := meter(t, d, ms...)
			if bytes.Equal(b, judged) {
				continue
			}
			judged = b
			for _, fault := range classes.validate(b) {
				t.Errorf("family %q, unit %#02x: %s", family, code, fault)
			}
			if n := bytes.Count(b, []byte(`{"platform":`)); n != len(registers)+len(own)+len(explaining) {
				t.Errorf("family %q, unit %#02x: %d entities of %d registers", family, code, n, len(registers))
			}
		}
	}
}

// TestFamilies checks every register that the catalog gives a family, in every unit
// that it may come in: the class follows from the unit, but the volume of a water
// meter is consumption, that of a heat meter is not.
func TestFamilies(t *testing.T) {
	classOf := map[string]string{
		"Wh": "energy", "kWh": "energy", "MWh": "energy", "GJ": "energy", "Gcal": "energy",
		"kvarh": "reactive_energy", "kW": "power", "MW": "power", "kvar": "reactive_power", "kVA": "apparent_power",
		"V": "voltage", "A": "current", "Hz": "frequency", "°C": "temperature", "K": "temperature_delta",
		"l/h": "volume_flow_rate", "m³/h": "volume_flow_rate", "h": "duration", "min": "duration", "s": "duration", "bar": "pressure",
		"l": "volume", "m³": "volume", "date": "date",
	}
	// What the unit alone does not tell.
	special := map[string]string{
		"heat 84 m³": "water", "heat 85 m³": "water", "heat 224 m³": "water", "heat 225 m³": "water",
		"water 84 m³": "water", "water 85 m³": "water", "water 68 l": "water", "water 68 m³": "water",
		"water 622 l": "water", "water 622 m³": "water",
		"electricity 1079 K":      "temperature",
		"electricity 1170 number": "power_factor", "electricity 1171 number": "power_factor",
		"electricity 1172 number": "power_factor", "electricity 1173 number": "power_factor",
		"electricity 1377 number": "power_factor", "electricity 1378 number": "power_factor",
		"electricity 1379 number": "power_factor", "electricity 1380 number": "power_factor",
	}
	codes := map[string]kmp.Unit{"number": kmp.UnitNumber, "date": kmp.UnitDate}
	for code := range 256 {
		if u, ok := catalog.LookupUnit(kmp.Unit(code)); ok && u.Symbol != "" && codes[u.Symbol] == 0 {
			codes[u.Symbol] = kmp.Unit(code)
		}
	}
	seen, used := map[string]int{}, map[string]bool{}
	for _, model := range catalog.Models() {
		for _, r := range catalog.Registers() {
			if !model.Has(r.ID) {
				continue
			}
			for unit := range strings.FieldsFuncSeq(strings.NewReplacer(",", " ", " or ", " ", "energy", "GJ").Replace(r.Unit), unicode.IsSpace) {
				code, ok := codes[unit]
				if !ok {
					continue // no code of its own, such as "timestamp"
				}
				what := fmt.Sprintf("%s %d %s", model.Family, r.ID, unit)
				want, isSpecial := special[what]
				if !isSpecial {
					want = classOf[unit]
				}
				used[what] = true
				seen[want]++
				m := measurement(r.ID, code, 0)
				known, told := house(), house()
				known.Model, told.Model, told.Family = model.Title, "", model.Family
				for _, d := range []discovery.Device{known, told} {
					if got, _ := component(t, meter(t, d, m), m.Register.Name)["device_class"].(string); got != want {
						t.Errorf("%s (%s) on %q %q has the class %q, want %q", what, r.Name, d.Model, d.Family, got, want)
					}
				}
			}
		}
	}
	for what := range special {
		if !used[what] {
			t.Errorf("%s is not in the catalog", what)
		}
	}
	for _, class := range append(slices.Collect(maps.Values(classOf)), "water", "power_factor", "") {
		if seen[class] == 0 {
			t.Errorf("no register of class %q was tried", class)
		}
	}
}

// TestDiagnosis compares what explains a reading with what Home Assistant takes. The
// templates were tried with Jinja 3.1.
func TestDiagnosis(t *testing.T) {
	const diagnosis, diagnostics = "kmp2mqtt/house/diagnosis", "kmp2mqtt/house/diagnostics"
	want := object{
		"diagnosis": object{
			"platform": "sensor", "name": "Diagnosis", "device_class": "enum", "entity_category": "diagnostic",
			"state_topic": diagnosis, "value_template": "{{ value_json.code }}",
			"options":                  []any{"ok", "not_read", "silent", "bad_checksums"},
			"json_attributes_topic":    diagnosis,
			"json_attributes_template": "{{ {'text': value_json.text, 'next_step': value_json.next_step, 'since': value_json.since} | tojson }}",
		},
		"reading_problem": object{
			"platform": "binary_sensor", "name": "Reading problem", "device_class": "problem", "entity_category": "diagnostic",
			"state_topic": diagnosis, "payload_on": "ON", "payload_off": "OFF",
			"value_template": "{{ none if value_json.code is none else 'OFF' if value_json.code in ['ok', 'not_read', 'missed'] else 'ON' }}",
		},
		"link_quality": object{
			"platform": "sensor", "name": "Link quality", "unit_of_measurement": "%", "state_class": "measurement",
			"suggested_display_precision": 0.0, "entity_category": "diagnostic",
			"state_topic": diagnostics, "value_template": "{{ value_json.link_quality }}",
		},
		"reads_today": object{
			"platform": "sensor", "name": "Reads today", "state_class": "total_increasing", "entity_category": "diagnostic",
			"state_topic": diagnostics, "value_template": "{{ value_json.reads_today }}",
		},
		"awake_today": object{
			"platform": "sensor", "name": "Awake today", "unit_of_measurement": "s", "device_class": "duration",
			"state_class": "total_increasing", "suggested_display_precision": 0.0, "entity_category": "diagnostic",
			"enabled_by_default": false, "state_topic": diagnostics, "value_template": "{{ value_json.awake_today_s }}",
		},
		"problem": object{
			"platform": "binary_sensor", "name": "Problem", "device_class": "problem", "payload_on": "ON", "payload_off": "OFF",
			"value_template":           "{{ none if value_json.get('info') is none else 'ON' if value_json.info else 'OFF' }}",
			"json_attributes_topic":    "kmp2mqtt/house",
			"json_attributes_template": "{{ {'info': value_json.get('info')} | tojson }}",
		},
	}
	for id, c := range want {
		e := c.(object)
		e["unique_id"], e["qos"] = "kmp_80123456_"+id, 1.0
		if id != "problem" { // which is as available as the meter's values
			e["availability"] = []any{object{"topic": "kmp2mqtt/bridge/state"}}
		}
	}
	classes := readClasses(t)
	for _, tt := range []struct {
		what     string
		change   func(*discovery.Device)
		entities []string
	}{
		{"all", func(*discovery.Device) {}, explaining},
		{"no info", func(d *discovery.Device) { d.HasInfo = false }, explaining[:5]},
		{"no diagnosis", func(d *discovery.Device) { d.DiagnosisTopic, d.Diagnoses = "", nil }, explaining[5:]},
		{"codes without a topic", func(d *discovery.Device) { d.DiagnosisTopic, d.HasInfo = "", false }, nil},
	} {
		d := explained()
		tt.change(&d)
		b := meter(t, d, measured()...)
		for _, fault := range classes.validate(b) {
			t.Errorf("%s: %s", tt.what, fault)
		}
		got := decode(t, b)["components"].(object)
		for _, m := range measured() {
			delete(got, m.Register.Name)
		}
		for _, id := range own {
			delete(got, id)
		}
		expected := object{}
		for _, id := range tt.entities {
			expected[id] = want[id]
		}
		if diff := cmp.Diff(expected, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.what, diff)
		}
	}
}

// TestDerived checks numbers that are worked out: without an id, the name must do.
func TestDerived(t *testing.T) {
	for _, tt := range []struct {
		name   string
		kind   catalog.Kind
		unit   kmp.Unit
		family catalog.Family
		want   []string // unit, device class, state class
	}{
		{"energy_fine", catalog.Counter, kmp.UnitGJ, catalog.Heat, []string{"GJ", "energy", "total"}},
		{"energy_fine", catalog.Counter, kmp.UnitKWh, catalog.Heat, []string{"kWh", "energy", "total"}},
		{"cooling_energy_fine", catalog.Counter, kmp.UnitMWh, catalog.Heat, []string{"MWh", "energy", "total"}},
		{"volume_fine", catalog.Counter, kmp.UnitCubicMetre, catalog.Heat, []string{"m³", "volume", "total"}},
		{"volume_fine", catalog.Counter, kmp.UnitCubicMetre, catalog.Water, []string{"m³", "water", "total"}},
		{"weighted_supply_temperature_today", catalog.Gauge, kmp.UnitCelsius, catalog.Heat, []string{"°C", "temperature", "measurement"}},
		{"weighted_return_temperature_month", catalog.Gauge, kmp.UnitCelsius, catalog.Heat, []string{"°C", "temperature", "measurement"}},
		{"weighted_cooling_today", catalog.Gauge, kmp.UnitKelvin, catalog.Heat, []string{"K", "temperature_delta", "measurement"}},
		{"weighted_cooling_month", catalog.Gauge, kmp.UnitKelvin, catalog.Heat, []string{"K", "temperature_delta", "measurement"}},
		{"power_calculated", catalog.Gauge, kmp.UnitKW, catalog.Heat, []string{"kW", "power", "measurement"}},
	} {
		d := house()
		d.Model, d.Family = "", tt.family
		b := meter(t, d, discovery.Measurement{
			Register: catalog.Register{Name: tt.name, Title: "Derived", Kind: tt.kind},
			Unit:     tt.unit, Key: catalog.Key(tt.name, tt.unit), Decimals: 3,
		})
		e := component(t, b, tt.name)
		got := make([]string, 0, 3)
		for _, key := range []string{"unit_of_measurement", "device_class", "state_class"} {
			s, _ := e[key].(string)
			got = append(got, s)
		}
		if !slices.Equal(got, tt.want) || e["suggested_display_precision"] != 3.0 {
			t.Errorf("%s in unit %#02x of a %s meter: %q and precision %v, want %q", tt.name, byte(tt.unit), tt.family, got, e["suggested_display_precision"], tt.want)
		}
		for _, fault := range readClasses(t).validate(b) {
			t.Errorf("%s: %s", tt.name, fault)
		}
	}
}

// TestUnitsAreTheCatalogs checks that a unit has a symbol here exactly when the catalog
// gives it one, and that the two mean the same.
func TestUnitsAreTheCatalogs(t *testing.T) {
	spelling := strings.NewReplacer("l/h", "L/h", "imp/l", "imp/L", "l/imp", "L/imp", "%RH", "%", "%O₂", "%")
	for code := range 256 {
		unit := kmp.Unit(code)
		u, ok := catalog.LookupUnit(unit)
		if !ok {
			continue
		}
		want := spelling.Replace(u.Symbol)
		if want == "l" {
			want = "L"
		}
		got, _ := component(t, meter(t, house(), measurement(65000, unit, 0)), "register_65000")["unit_of_measurement"].(string)
		if got != want {
			t.Errorf("unit %#02x is %q, the catalog's %q should be %q", code, got, u.Symbol, want)
		}
	}
}

// TestValidatorFinds breaks a good message in every way that the validator is there for.
func TestValidatorFinds(t *testing.T) {
	classes := readClasses(t)
	if faults := classes.validate(meter(t, explained(), measured()...)); len(faults) > 0 {
		t.Fatal(faults)
	}
	faults := func(t *testing.T, id string, breakIt func(m, e object)) []string {
		t.Helper()
		m := decode(t, meter(t, explained(), measured()...))
		breakIt(m, m["components"].(object)[id].(object))
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return classes.validate(b)
	}
	for what, breakIt := range map[string]func(m, energy object){
		"root key":        func(m, _ object) { m["~"] = "kmp2mqtt" },
		"no origin":       func(m, _ object) { delete(m, "origin") },
		"device key":      func(m, _ object) { m["device"].(object)["serial"] = "1" },
		"no identifiers":  func(m, _ object) { delete(m["device"].(object), "identifiers") },
		"mode":            func(m, _ object) { m["availability_mode"] = "latest" },
		"component key":   func(_, e object) { e["object_id"] = "x" },
		"platform":        func(_, e object) { e["platform"] = "heat" },
		"no unique_id":    func(_, e object) { delete(e, "unique_id") },
		"same unique_id":  func(_, e object) { e["unique_id"] = "kmp_80123456_flow" },
		"same name":       func(_, e object) { e["name"] = "Flow" },
		"id characters":   func(_, e object) { e["unique_id"] = "kmp.1" },
		"unit spelling":   func(_, e object) { e["unit_of_measurement"] = "gj" },
		"no unit":         func(_, e object) { delete(e, "unit_of_measurement") },
		"class":           func(_, e object) { e["device_class"] = "heat" },
		"state class":     func(_, e object) { e["state_class"] = "measurement" },
		"category config": func(_, e object) { e["entity_category"] = "config" },
		"qos":             func(_, e object) { delete(e, "qos") },
		"precision":       func(_, e object) { e["suggested_display_precision"] = 30 },
		"template":        func(_, e object) { e["value_template"] = "{{ value_json.items }}" },
	} {
		if len(faults(t, "energy", breakIt)) == 0 {
			t.Errorf("%s: not found", what)
		}
	}
	for _, tt := range []struct {
		id, key string
		value   any // nil: the key is taken away
	}{
		{"energy", "options", []any{"high", "low"}},
		{"energy", "payload_on", "ON"},
		{"energy", "json_attributes_template", "{{ {'text': value_json.text} | tojson }}"},
		{"diagnosis", "options", nil},
		{"diagnosis", "options", []any{}},
		{"diagnosis", "options", []any{"ok", ""}},
		{"diagnosis", "options", []any{"ok", "silent", "ok"}},
		{"diagnosis", "options", []any{"ok", 1}},
		{"diagnosis", "device_class", nil},
		{"diagnosis", "unit_of_measurement", "%"},
		{"diagnosis", "state_class", "measurement"},
		{"diagnosis", "suggested_display_precision", 0},
		{"diagnosis", "json_attributes_topic", nil},
		{"diagnosis", "json_attributes_topic", "kmp2mqtt/+/diagnosis"},
		{"diagnosis", "json_attributes_template", nil},
		{"diagnosis", "json_attributes_template", "{{ value_json }}"},
		{"diagnosis", "json_attributes_template", "{{ {'text': value_json.text} }}"},
		{"diagnosis", "json_attributes_template", "{{ {'state': value_json.code} | tojson }}"},
		{"diagnosis", "json_attributes_template", "{{ {'text': value_json.items} | tojson }}"},
		{"reading_problem", "device_class", "trouble"},
		{"reading_problem", "payload_on", nil},
		{"reading_problem", "payload_off", "ON"},
		{"reading_problem", "value_template", "{{ value_json.code != 'ok' }}"},
		{"reading_problem", "value_template", "{{ none if value_json.code is none else 'off' if value_json.code == 'ok' else 'on' }}"},
		{"reading_problem", "value_template", "{{ none if value_json.code is none else 'ON' if value_json.code == 'ok' else 'ON' }}"},
		{"reading_problem", "options", []any{"ON", "OFF"}},
		{"reading_problem", "state_class", "measurement"},
		{"read_now", "payload_on", "ON"},
		{"read_now", "options", []any{"ON", "OFF"}},
		{"problem", "entity_category", "config"},
	} {
		found := faults(t, tt.id, func(_, e object) {
			if e[tt.key] = tt.value; tt.value == nil {
				delete(e, tt.key)
			}
		})
		if len(found) == 0 {
			t.Errorf("%s: %s %v: not found", tt.id, tt.key, tt.value)
		}
	}
}

// TestSensor has one row for each rule that makes a sensor of a register. A field
// that is not listed must be absent.
func TestSensor(t *testing.T) {
	disabled, diagnostic := "disabled", "diagnostic"
	for _, tt := range []struct {
		id    uint16
		unit  kmp.Unit
		model string
		want  []string // unit, device class, state class; then category and disabled if so
	}{
		{60, kmp.UnitGJ, "", []string{"GJ", "energy", "total"}},
		{60, kmp.UnitMWh, "", []string{"MWh", "energy", "total"}},
		{60, 0x39, "", []string{"GJ", "energy", "total"}},
		{17, kmp.UnitKWh, "", []string{"kWh", "energy", "total_increasing", disabled}},
		{3, 0x0E, "", []string{"kvarh", "reactive_energy", "total", disabled}},
		{3, 0x0F, "", []string{"Mvarh", "", "total", disabled}},
		{266, kmp.UnitWh, "", []string{"Wh", "energy", "", diagnostic, disabled}},
		{239, kmp.UnitCubicMetre, "", []string{"m³", "volume", "", diagnostic, disabled}},
		{97, kmp.UnitCubicMC, "", []string{"m³·°C", "", "total", disabled}},
		{110, kmp.UnitCubicMC, "", []string{"m³·°C", "", "total", disabled}},
		{72, kmp.UnitTonne, "", []string{"t", "", "total", disabled}},
		{68, kmp.UnitCubicMetre, "MULTICAL 603", []string{"m³", "volume", "total"}},
		{68, kmp.UnitCubicMetre, "flowIQ 2200", []string{"m³", "water", "total"}},
		{68, kmp.UnitCubicMetre, "MULTICAL 21", []string{"m³", "water", "total"}},
		{68, kmp.UnitLitre, "MULTICAL 62", []string{"L", "water", "total"}},
		{243, kmp.UnitCubicMetre, "flowIQ 2200", []string{"m³", "volume", "total", disabled}},
		{84, kmp.UnitCubicMetre, "MULTICAL 403", []string{"m³", "water", "total"}},
		{85, kmp.UnitKWh, "MULTICAL 403", []string{"kWh", "energy", "total"}},
		{84, kmp.UnitNumber, "MULTICAL 403", []string{"", "", "total"}},
		{74, kmp.UnitLitrePerH, "", []string{"L/h", "volume_flow_rate", "measurement"}},
		{74, kmp.UnitCubicMPerH, "", []string{"m³/h", "volume_flow_rate", "measurement"}},
		{80, kmp.UnitKW, "", []string{"kW", "power", "measurement"}},
		{86, kmp.UnitCelsius, "", []string{"°C", "temperature", "measurement"}},
		{89, kmp.UnitKelvin, "", []string{"K", "temperature_delta", "measurement"}},
		{89, kmp.UnitCelsius, "", []string{"°C", "temperature_delta", "measurement"}},
		{1079, kmp.UnitKelvin, "", []string{"K", "temperature", "measurement", disabled}},
		{91, 0x34, "", []string{"bar", "pressure", "measurement", disabled}},
		{371, kmp.UnitNumber, "", []string{"", "", "measurement", disabled}},
		{1, kmp.UnitKWh, "Kamstrup 382", []string{"kWh", "energy", "total"}},
		{2, kmp.UnitKWh, "Kamstrup 382", []string{"kWh", "energy", "total"}},
		{13, kmp.UnitKWh, "Kamstrup 382", []string{"kWh", "energy", "total", disabled}},
		{1054, 0x21, "Kamstrup 382", []string{"V", "voltage", "measurement"}},
		{1076, 0x22, "Kamstrup 382", []string{"A", "current", "measurement"}},
		{1173, kmp.UnitNumber, "Kamstrup 382", []string{"", "power_factor", "measurement", disabled}},
		{1474, 0x44, "Kamstrup 382", []string{"°", "", "measurement", disabled}},
		{1390, 0x43, "Kamstrup 382", []string{"Hz", "frequency", "measurement", disabled}},
		{124, kmp.UnitLitrePerH, "", []string{"L/h", "volume_flow_rate", "", disabled}},
		{145, kmp.UnitKW, "", []string{"kW", "power", "", disabled}},
		{146, kmp.UnitCelsius, "", []string{"°C", "temperature", "", disabled}},
		{123, kmp.UnitDate, "", []string{"", "date", "", disabled}},
		{1002, kmp.UnitClock, "", []string{"", "", "", diagnostic, disabled}},
		{1003, kmp.UnitDate, "", []string{"", "date", "", diagnostic, disabled}},
		{98, kmp.UnitMonthDay, "", []string{"", "", "", diagnostic, disabled}},
		{348, kmp.UnitDSTDateTime, "", []string{"", "", "", diagnostic, disabled}},
		{99, kmp.UnitNumber, "", []string{"", "", "", diagnostic}},
		{369, kmp.UnitBits, "", []string{"", "", "", diagnostic}},
		{113, kmp.UnitNumber, "", []string{"", "", "total", diagnostic, disabled}},
		{1004, kmp.UnitHour, "", []string{"h", "duration", "total", diagnostic, disabled}},
		{175, kmp.UnitHour, "", []string{"h", "duration", "total", diagnostic, disabled}},
		{1001, kmp.UnitNumber, "", []string{"", "", "", diagnostic, disabled}},
		{259, kmp.UnitCubicMPerH, "", []string{"m³/h", "volume_flow_rate", "", diagnostic, disabled}},
		{1408, kmp.UnitKWh, "", []string{"kWh", "energy", "", disabled}},
		// A register that nobody knows: what the unit tells, and no guess at sums.
		{65000, kmp.UnitCelsius, "", []string{"°C", "temperature", "measurement", disabled}},
		{65000, kmp.UnitGJ, "", []string{"GJ", "energy", "", disabled}},
		{65000, kmp.UnitNumber, "", []string{"", "", "", disabled}},
		{65000, 0x4B, "", []string{"", "", "", disabled}},
	} {
		d := house()
		d.Model = tt.model
		m := measurement(tt.id, tt.unit, 0)
		e := component(t, meter(t, d, m), m.Register.Name)
		str := func(key string) string { s, _ := e[key].(string); return s }
		got := []string{str("unit_of_measurement"), str("device_class"), str("state_class")}
		if c := str("entity_category"); c != "" {
			got = append(got, c)
		}
		if enabled, set := e["enabled_by_default"].(bool); set && !enabled {
			got = append(got, disabled)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("register %d (%s) unit %#02x on %q: %q, want %q", tt.id, m.Register.Name, byte(tt.unit), tt.model, got, tt.want)
		}
	}
}

func TestPrecision(t *testing.T) {
	for _, tt := range []struct {
		id       uint16
		unit     kmp.Unit
		decimals int
		want     any
	}{
		{60, kmp.UnitGJ, 3, 3.0},
		{60, kmp.UnitGJ, 0, 0.0},
		{60, kmp.UnitGJ, -2, 0.0},
		{60, kmp.UnitGJ, 63, 9.0},
		{371, kmp.UnitNumber, 1, 1.0},
		{99, kmp.UnitNumber, 0, nil},
		{123, kmp.UnitDate, 0, nil},
	} {
		m := measurement(tt.id, tt.unit, tt.decimals)
		if got := component(t, meter(t, house(), m), m.Register.Name)["suggested_display_precision"]; got != tt.want {
			t.Errorf("register %d with %d decimals: precision %v, want %v", tt.id, tt.decimals, got, tt.want)
		}
	}
}

// TestReadInterval checks that the number takes every interval that the bridge has or
// accepts: Home Assistant refuses a state outside its range with an error.
func TestReadInterval(t *testing.T) {
	for _, tt := range []struct {
		shortest    time.Duration
		least, step float64
	}{
		{0, 0.01, 0.01},
		{time.Second, 0.01, 0.01},
		{5 * time.Second, 0.08, 0.01},
		{30 * time.Second, 0.5, 0.01},
		{59 * time.Second, 0.98, 0.01},
		{time.Minute, 1, 1},
		{90 * time.Second, 1, 1},
		{time.Hour, 60, 1},
	} {
		d := house()
		d.ShortestInterval = tt.shortest
		e := component(t, meter(t, d), "read_interval")
		if e["min"] != tt.least || e["step"] != tt.step {
			t.Errorf("shortest %v: from %v by %v, want from %v by %v", tt.shortest, e["min"], e["step"], tt.least, tt.step)
		}
		// What the value template shows, and what the command template makes of the number's beginning.
		shown := math.Round(tt.shortest.Minutes()*100) / 100
		if sent := time.Duration(math.Round(tt.least*60)) * time.Second; shown < tt.least && tt.shortest > 0 || sent > max(tt.shortest, time.Second) {
			t.Errorf("shortest %v: shown as %v, the beginning sets %v", tt.shortest, shown, sent)
		}
	}
}

// TestSameName checks that one register in two units makes two entities, and that the
// first keeps its identity.
func TestSameName(t *testing.T) {
	ms := []discovery.Measurement{
		measurement(60, kmp.UnitGJ, 3), measurement(60, kmp.UnitMWh, 3), measurement(60, kmp.UnitGJ, 3),
		measurement(1001, kmp.UnitNumber, 0),
	}
	// A register with the name of one of the bridge's own entities.
	serial := measurement(1001, kmp.UnitNumber, 0)
	serial.Register.Name, serial.Register.ID, serial.Key = "serial", 2, "serial"
	ms = append(ms, serial)
	b := meter(t, house(), ms...)
	got := map[string]string{}
	for id, c := range decode(t, b)["components"].(object) {
		got[id] = fmt.Sprint(c.(object)["unique_id"], " ", c.(object)["name"], " ", c.(object)["value_template"])
	}
	want := map[string]string{
		"energy":          "kmp_80123456_energy Energy {{ value_json.energy_gj }}",
		"energy_mwh":      "kmp_80123456_energy_mwh Energy (MWh) {{ value_json.energy_mwh }}",
		"serial_number":   "kmp_80123456_serial_number Serial number (register 1001) {{ value_json.serial_number }}",
		"register_serial": "kmp_80123456_register_serial Serial number (register 2) {{ value_json.serial }}",
		"serial":          "kmp_80123456_serial Serial number {{ value_json.serial }}",
		"last_reading":    got["last_reading"], "failed_reads": got["failed_reads"],
		"read_now": got["read_now"], "read_interval": got["read_interval"],
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, fault := range readClasses(t).validate(b) {
		t.Error(fault)
	}
}

// TestIdentity checks that an entity's identity is the serial number's alone.
func TestIdentity(t *testing.T) {
	other := house()
	other.Name, other.StateTopic, other.Model, other.Revision = "Cellar", "heat/cellar", "MULTICAL 603", "B2"
	other.BridgeStateTopic = "heat/bridge/state"
	ids := func(d discovery.Device) []string {
		var list []string
		root := decode(t, meter(t, d, measured()...))
		for _, c := range root["components"].(object) {
			list = append(list, c.(object)["unique_id"].(string))
		}
		slices.Sort(list)
		return append(list, root["device"].(object)["identifiers"].([]any)[0].(string))
	}
	if diff := cmp.Diff(ids(house()), ids(other)); diff != "" {
		t.Error(diff)
	}
}

func TestName(t *testing.T) {
	for _, tt := range []struct{ given, meter, want string }{
		{"house", "house", "House"},
		{"", "guest_house", "Guest house"},
		{"guest-house", "guest-house", "Guest house"},
		{"Heat meter", "house", "Heat meter"},
		{"heat-meter", "house", "heat-meter"},
		{"80123456", "80123456", "Meter 80123456"},
		{"Main \"1\" & <2>", "house", `Main "1" & <2>`},
		{"two\nlines\x00 \t", "house", "two lines"},
		{"æøå \xff", "house", "æøå \uFFFD"},
		{"_", "_", "Meter 80123456"},
		{"\x01", "house", "House"},
	} {
		d := house()
		d.Name, d.StateTopic = tt.given, "kmp2mqtt/"+tt.meter
		if got := decode(t, meter(t, d))["device"].(object)["name"]; got != tt.want {
			t.Errorf("name %q of meter %q is %q, want %q", tt.given, tt.meter, got, tt.want)
		}
	}
}

// TestBridges checks that bridges with different base topics are different devices,
// and that a meter points to its own.
func TestBridges(t *testing.T) {
	seen := map[string]string{}
	for base, want := range map[string]string{
		"kmp2mqtt":      "kmp2mqtt_bridge",
		"cellar":        "kmp2mqtt_bridge_cellar",
		"home/kmp2mqtt": "kmp2mqtt_bridge_home_kmp2mqtt_c7e3b630",
		"home_kmp2mqtt": "kmp2mqtt_bridge_home_kmp2mqtt",
		"home/kælder":   "kmp2mqtt_bridge_home_k_lder_fd193f30",
	} {
		id := discovery.BridgeID(base)
		if id != want {
			t.Errorf("BridgeID(%q) = %q, want %q", base, id, want)
		}
		if was, ok := seen[id]; ok {
			t.Errorf("%q and %q are both %q", was, base, id)
		}
		seen[id] = base
		b, err := discovery.Bridge(discovery.BridgeDevice{BaseTopic: base, Version: "1"})
		if err != nil {
			t.Fatal(err)
		}
		for _, fault := range readClasses(t).validate(b) {
			t.Error(fault)
		}
		d := house()
		d.BridgeStateTopic = base + "/bridge/state"
		via := decode(t, meter(t, d))["device"].(object)["via_device"]
		if ids := decode(t, b)["device"].(object)["identifiers"].([]any); ids[0] != via {
			t.Errorf("base %q: bridge %v, meter's via_device %v", base, ids[0], via)
		}
	}
}

func TestTopic(t *testing.T) {
	if got := discovery.Topic("homeassistant", discovery.MeterID("80123456")); got != "homeassistant/device/kmp_80123456/config" {
		t.Error(got)
	}
}

func TestErrors(t *testing.T) {
	for field, spoil := range map[string]func(*discovery.Device, *discovery.Measurement){
		"Serial":            func(d *discovery.Device, _ *discovery.Measurement) { d.Serial = "80/12" },
		"StateTopic":        func(d *discovery.Device, _ *discovery.Measurement) { d.StateTopic = "" },
		"DiagnosticsTopic":  func(d *discovery.Device, _ *discovery.Measurement) { d.DiagnosticsTopic = "a/+" },
		"AvailabilityTopic": func(d *discovery.Device, _ *discovery.Measurement) { d.AvailabilityTopic = "a\x00" },
		"BridgeStateTopic":  func(d *discovery.Device, _ *discovery.Measurement) { d.BridgeStateTopic = "kmp2mqtt/state" },
		"GetTopic":          func(d *discovery.Device, _ *discovery.Measurement) { d.GetTopic = "a\xff" },
		"SetTopic":          func(d *discovery.Device, _ *discovery.Measurement) { d.SetTopic = strings.Repeat("a", 65536) },
		"DiagnosisTopic":    func(d *discovery.Device, _ *discovery.Measurement) { d.DiagnosisTopic = "a/#" },
		"Diagnoses":         func(d *discovery.Device, _ *discovery.Measurement) { d.Diagnoses = nil },
		"Key":               func(_ *discovery.Device, m *discovery.Measurement) { m.Key = "a }}{{ b" },
		"Register.Name":     func(_ *discovery.Device, m *discovery.Measurement) { m.Register.Name = "a.b" },
		"UniqueID":          func(_ *discovery.Device, m *discovery.Measurement) { m.UniqueID = "kamstrup.energy" },
		"EntityID":          func(_ *discovery.Device, m *discovery.Measurement) { m.EntityID = "Kamstrup" },
	} {
		d, m := explained(), measurement(60, kmp.UnitGJ, 3)
		spoil(&d, &m)
		b, err := discovery.Meter(d, []discovery.Measurement{m})
		var fieldErr *discovery.FieldError
		if !errors.As(err, &fieldErr) || fieldErr.Field != field || b != nil {
			t.Errorf("%s: %v", field, err)
			continue
		}
		if !strings.Contains(err.Error(), field) || !strings.Contains(err.Error(), "want") {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, codes := range [][]string{{"ok", "Silent"}, {"ok", ""}, {"ok", "silent", "ok"}, {"it's"}} {
		d := explained()
		d.Diagnoses = codes
		var fieldErr *discovery.FieldError
		if _, err := discovery.Meter(d, nil); !errors.As(err, &fieldErr) || fieldErr.Field != "Diagnoses" || fieldErr.Value != codes[len(codes)-1] {
			t.Errorf("codes %q: %v", codes, err)
		}
	}
	var fieldErr *discovery.FieldError
	if _, err := discovery.Bridge(discovery.BridgeDevice{BaseTopic: "a/#"}); !errors.As(err, &fieldErr) || fieldErr.Field != "BaseTopic" {
		t.Error(err)
	}
}

// TestSize keeps the message of the richest meter small, and that of all registers together.
func TestSize(t *testing.T) {
	size := func(model string) int {
		var ms []discovery.Measurement
		for _, r := range catalog.Registers() {
			if strings.Contains(r.Models, model) {
				ms = append(ms, measurement(r.ID, kmp.UnitCubicMetre, 3))
			}
		}
		if len(ms) < 50 {
			t.Fatalf("%d registers of %q", len(ms), model)
		}
		return len(meter(t, house(), ms...))
	}
	if n := size("603"); n > 100_000 {
		t.Errorf("all registers of a 603: %d bytes", n)
	}
	if n := size(""); n > 250_000 {
		t.Errorf("all registers there are: %d bytes", n)
	}
}

func FuzzMeter(f *testing.F) {
	f.Add("80123456", "house", "MULTICAL 403", "F1", "kmp2mqtt/house", "kmp2mqtt/bridge/state", "0.1.0", "heat", "kmp2mqtt/house/diagnosis", "silent", uint16(60), byte(8), 3)
	f.Add("1", `say "hi"`, "a\nb", "\x00", "a/b", "a/bridge/state", "<&>", "water", "", "", uint16(68), byte(0x28), -70)
	f.Add("", "\xff\xfe", "\xc3\x28", "{{ x }}", "a/#", "bridge/state", "\u2028", "\x00", "a/+", "ok", uint16(0xFFFF), byte(0xFF), 1<<30)
	f.Add("2", "", "", "", "a/b", "a/bridge/state", "", "electricity", "a/b", "it's", uint16(1173), byte(0x33), 2)
	classes := readClasses(f)
	f.Fuzz(func(t *testing.T, serial, name, model, revision, state, bridge, version, family, diagnosis, code string, id uint16, unit byte, decimals int) {
		d := explained()
		d.Serial, d.Name, d.Model, d.Revision, d.StateTopic, d.BridgeStateTopic, d.Version = serial, name, model, revision, state, bridge, version
		d.Family, d.DiagnosisTopic, d.Diagnoses = catalog.Family(family), diagnosis, append(d.Diagnoses, code)
		b, err := discovery.Meter(d, []discovery.Measurement{measurement(id, kmp.Unit(unit), decimals)})
		if err != nil {
			if _, ok := errors.AsType[*discovery.FieldError](err); !ok {
				t.Fatal(err)
			}
			return
		}
		for _, fault := range classes.validate(b) {
			t.Error(fault)
		}
	})
}

func FuzzBridge(f *testing.F) {
	f.Add("kmp2mqtt", "0.1.0")
	f.Add("home/\"x\"\xff", "\n")
	classes := readClasses(f)
	f.Fuzz(func(t *testing.T, base, version string) {
		b, err := discovery.Bridge(discovery.BridgeDevice{BaseTopic: base, Version: version})
		if err != nil {
			if _, ok := errors.AsType[*discovery.FieldError](err); !ok {
				t.Fatal(err)
			}
			return
		}
		for _, fault := range classes.validate(b) {
			t.Error(fault)
		}
	})
}
