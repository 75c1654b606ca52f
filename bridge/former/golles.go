package former

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// gollesDomain is the integration in Home Assistant's storage.
const gollesDomain = "kamstrup_403"

// gollesKeys are the options of golles' integration, and of Kitsok's, which is made from it.
func gollesKeys() []oldKey {
	return []oldKey{
		{"port", "", "~METERS~, ~name=/dev/serial/by-id/...~; ~socket://~ becomes ~tcp://~"},
		{"scan_interval", "", "~READ_INTERVAL~: a number of seconds becomes a duration, ~3600~ is ~1h~"},
		{"timeout", "", "~METERS~, option ~timeout~, if it is longer than 2 s"},
		{"baudrate", "", "~METERS~, option ~baud~ (Kitsok's only)"},
		{"debug", "", "~LOG_LEVEL=debug~ shows every frame (Kitsok's only)"},
		{"serial_communication_logging", "", "~LOG_LEVEL=debug~ shows every frame (Kitsok's only)"},
	}
}

// entry is one meter of the integration: its options by key.
type entry map[string]value

// storage takes the integration's entries out of .storage/core.config_entries.
func (in *input) storage(file string, entries *yaml.Node) {
	if entries.Kind != yaml.SequenceNode {
		in.errorAt(file, entries.Line, "data.entries is %s; it should be a list", kindOf(entries))
		return
	}
	off := 0
	for _, n := range entries.Content {
		if domain := child(n, "domain"); domain == nil || domain.Value != gollesDomain {
			continue
		}
		if by := child(n, "disabled_by"); by != nil && by.Tag != "!!null" {
			off++
			continue
		}
		e := entry{}
		for _, part := range []string{"data", "options"} { // options count more
			if table := child(n, part); table != nil && table.Kind == yaml.MappingNode {
				in.pairs(file, table, func(key string, v *yaml.Node) {
					if in.known(key) {
						e[key] = valueOf(file, v)
					}
				})
			}
		}
		in.entries = append(in.entries, e)
	}
	switch {
	case len(in.entries) == 0 && off > 0:
		in.errorAt(file, entries.Line, "the integration %s is there, but switched off", gollesDomain)
	case len(in.entries) == 0:
		in.errorAt(file, entries.Line, "the integration %s is not among the entries", gollesDomain)
	}
}

// golles translates the options of golles' integration.
func (m *migrator) golles() {
	entries := m.entries
	if len(m.values) > 0 {
		entries = append(entries, m.values)
	}
	if len(entries) == 0 {
		m.errorAt("", 0, "there are no options; name Home Assistant's file .storage/core.config_entries, or write port=, scan_interval= and timeout= to a file")
		return
	}
	const most = 100
	if len(entries) > most {
		m.errorAt("", 0, "%d entries of the integration are too many", len(entries))
		return
	}
	var meters []string
	debug, taken := false, map[string]bool{}
	var interval time.Duration
	comment := ""
	for i, e := range entries {
		m.values = e
		name := "kamstrup"
		if i > 0 {
			name += strconv.Itoa(i + 1)
		}
		line, advice, ok := m.line("port")
		meter := meter{name: name, line: line}
		if s := m.text("baudrate"); s != "" && s != "1200" {
			if n, err := strconv.Atoi(s); err != nil || n < 50 || n > 4_000_000 {
				m.fail("baudrate", "%q is not a number from 50 to 4000000", clip(s))
			}
			meter.option("baud", s)
		}
		m.timeout("timeout", &meter)
		every, set := m.interval("scan_interval", time.Second)
		if !set {
			every = time.Hour // the integration's own default
		}
		if i == 0 {
			interval = every
			meter.option("entities", Golles)
		} else if every != interval {
			meter.option("interval", short(every))
		}
		debug = debug || m.truth("debug") || m.truth("serial_communication_logging")
		if ok && taken[line] {
			m.fail("port", "%q is that of another entry already", clip(m.text("port")))
		}
		if taken[line] = true; ok {
			meters = append(meters, meter.String())
			comment = cmp.Or(comment, advice)
		}
	}
	if len(meters) > 0 {
		m.set("METERS", strings.Join(meters, " "), strings.TrimSpace("The name before = is a level of the topics. entities=golles gives the entities in Home Assistant the ids that they had. "+comment))
	}
	m.set("READ_INTERVAL", short(interval), "It was a number of seconds. A battery is calculated for one reading an hour.")
	if debug {
		m.note(Changed, "Debugging was on: LOG_LEVEL=debug shows every frame in hex, when it is needed.")
	}
	if len(entries) > 1 {
		m.note(Changed, "Only the first of %d meters keeps its entity ids: those of the others ended in _2, _3 and so on, which Home Assistant does not tell here. Rename theirs by hand.", len(entries))
	}
	m.gollesNotes()
}

// gollesNotes says what is different after golles' integration.
func (m *migrator) gollesNotes() {
	m.note(WasWrong, "Registers were told apart by their place in the answer: one that the meter does not have stopped all of them, or moved a value under another name. kmp2mqtt goes by the register's number.")
	m.note(WasWrong, "A frame whose checksum did not fit was logged and used all the same. kmp2mqtt drops it and asks again.")
	m.note(WasWrong, "The device was known by its port: another port was another device. kmp2mqtt knows it by the meter's serial number.")
	m.note(NoEquivalent, "\"Heat Energy to Gas\", which showed the energy's number as cubic metres of gas: add the energy itself as a gas source, Home Assistant takes GJ, MWh and kWh there")
	m.note(NoEquivalent, "the sensor of register 266 (version 3.2.0): its leading digits are missing and it begins again at 0; kmp2mqtt makes an exact total of it and of register 60, energy_fine, when it is among REGISTERS")
	m.note(Changed, "It runs beside Home Assistant and speaks MQTT; an update of Home Assistant does not break it.")
	m.note(Changed, "Which of its sensors you had switched on is not known here: the model's usual registers are read. Name others, such as min_flow_month, in REGISTERS (docs/registers.md).")
	m.note(DoNext, "Home Assistant needs a broker and its integration MQTT. Set MQTT_URL, MQTT_USERNAME and MQTT_PASSWORD to that broker.")
	m.note(DoNext, "Write the settings to a file: kmp2mqtt migrate %s ... > kmp2mqtt.env", Golles)
	m.note(DoNext, "See which ids the entities will have: kmp2mqtt adopt golles")
	m.note(DoNext, "Delete the integration in Home Assistant (Settings, Devices & services, Kamstrup 403). Its entities go, their statistics stay, by entity id.")
	m.note(DoNext, "Start kmp2mqtt, which must not have announced this meter before: its entities get the ids that are free now, such as sensor.%s, and with them the statistics.", slug("Kamstrup 403 Heat Energy (E1)"))
	m.note(DoNext, "Should it not work out: stop kmp2mqtt, delete its device, and add the integration again; the ids are the same once more.")
}
