package discovery

import (
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

const topicWanted = "a topic without wildcards and control characters"

// maxInterval is the end of the "Read interval" number, in minutes: a week, the
// longest interval that the settings take. Home Assistant logs an error for a state beyond it.
const maxInterval = 7 * 24 * 60

// Device is a meter as Home Assistant shows it, and the topics it lives on. All
// topics but DiagnosisTopic are needed; Name, Model, Family, Revision and Version may
// be empty.
type Device struct {
	Serial   string         // serial number; letters, digits, - and _
	Name     string         // label, or the meter's name in the settings
	Model    string         // such as "MULTICAL 403"
	Family   catalog.Family // what the meter measures; counts when Model is not known
	Revision string         // the meter's software revision, such as "F1"

	StateTopic        string // <base>/<meter>
	DiagnosticsTopic  string // <base>/<meter>/diagnostics
	AvailabilityTopic string // <base>/<meter>/availability
	BridgeStateTopic  string // <base>/bridge/state; <base> also tells which bridge the meter belongs to
	GetTopic          string // <base>/<meter>/get
	SetTopic          string // <base>/<meter>/set

	Version string // the program's version

	// DiagnosisTopic is <base>/<meter>/diagnosis. Empty: the meter has no entities for
	// its diagnosis, link quality and readings of the day.
	DiagnosisTopic string
	// Diagnoses are all codes that a diagnosis can have, each once. Needed with DiagnosisTopic.
	Diagnoses []string
	// HasInfo says that the state message holds "info", the list of what the meter reports.
	HasInfo bool
	// HasClock says that the diagnostics hold "clock_drift_s", what the meter's clock is ahead.
	HasClock bool

	// ShortestInterval is the least interval that a command may set for this meter,
	// where the "Read interval" number begins: below a minute in steps of a hundredth, else in
	// whole minutes. 0: not known, the number takes everything from a second on.
	ShortestInterval time.Duration
}

// Measurement is one value that the meter sends.
type Measurement struct {
	Register catalog.Register
	Unit     kmp.Unit // the unit that the meter sent
	Key      string   // the value's key in the state message, as catalog.Key gives it
	Decimals int      // digits after the point that the meter sent, 0 if none

	// UniqueID is the entity's identity where another reader has announced it before: with
	// it Home Assistant keeps the entity's id, its name by its owner, and its history. Empty:
	// our own. Where it is set, an entity that we announced under our own id is taken away.
	UniqueID string
	// EntityID is the id that Home Assistant gives to the entity when it is new, without
	// "sensor." before it: lower-case letters, digits and _. Empty: made of the names.
	EntityID string
}

// Topic returns the topic of a discovery message, <prefix>/device/<id>/config;
// id is that of [MeterID] or [BridgeID], prefix is "homeassistant" unless Home
// Assistant was told otherwise.
func Topic(prefix, id string) string {
	return prefix + "/device/" + id + "/config"
}

// MeterID returns the id of the meter with this serial number.
func MeterID(serial string) string {
	return "kmp_" + serial
}

// Meter returns the discovery message of a meter: one sensor for each measurement,
// in the order given, then what the bridge itself knows of the meter and the controls. It belongs on
// Topic(prefix, MeterID(d.Serial)). Equal arguments give equal bytes.
//
// A name that is shown in the settings' spelling is made readable ("guest_house"
// becomes "Guest house"); a label stays as it is. A second measurement with the same key is
// left out, since the state message holds it once; one with the same register name
// but another unit gets an entity of its own. The error is a [*FieldError].
func Meter(d Device, ms []Measurement) ([]byte, error) {
	base, err := d.check()
	if err != nil {
		return nil, err
	}
	own := d.own()
	cs := make(components, 0, len(ms)+len(own))
	ids, keys, names := map[string]bool{}, map[string]bool{}, map[string]bool{}
	taken := map[string]bool{} // what another reader called them
	for _, c := range own {
		ids[c.id], names[c.Name] = true, true
	}
	for _, m := range ms {
		if !attribute(m.Key) {
			return nil, &FieldError{"Key", m.Key, "lower-case letters, digits and _, not starting with a digit"}
		}
		if !idCharacters(m.Register.Name) {
			return nil, &FieldError{"Register.Name", m.Register.Name, "letters, digits, - and _"}
		}
		if m.UniqueID != "" && !idCharacters(m.UniqueID) {
			return nil, &FieldError{"UniqueID", m.UniqueID, "letters, digits, - and _"}
		}
		if m.EntityID != "" && !objectID(m.EntityID) {
			return nil, &FieldError{"EntityID", m.EntityID, "words of lower-case letters and digits with one _ between them"}
		}
		if keys[m.Key] {
			continue
		}
		keys[m.Key] = true
		c := sensor(d, m)
		// The first of a name keeps it: its history is bound to the id.
		for _, id := range []string{m.Register.Name, m.Key, "register_" + m.Key} {
			if c.id = id; !ids[id] {
				break
			}
		}
		switch {
		case names[c.Name] && c.Unit != "":
			c.Name += " (" + c.Unit + ")"
		case names[c.Name]:
			c.Name += " (register " + strconv.Itoa(int(m.Register.ID)) + ")"
		}
		ids[c.id], names[c.Name] = true, true
		c.UniqueID = MeterID(d.Serial) + "_" + c.id
		if m.EntityID != "" && !taken[m.EntityID] {
			c.DefaultEntityID, c.ObjectID = c.Platform+"."+m.EntityID, m.EntityID
			taken[m.EntityID] = true
		}
		if m.UniqueID != "" && !ids[m.UniqueID] && !strings.HasPrefix(m.UniqueID, MeterID(d.Serial)+"_") {
			// A component of its own: Home Assistant would not change the id of one that it has.
			cs = append(cs, component{id: c.id, Platform: c.Platform})
			c.id, c.UniqueID = m.UniqueID, m.UniqueID
			ids[c.id] = true
		}
		cs = append(cs, c)
	}
	return encode(message{
		Device: device{
			Identifiers:  []string{MeterID(d.Serial)},
			Name:         d.displayName(),
			Manufacturer: "Kamstrup",
			Model:        line(d.Model),
			SerialNumber: d.Serial,
			SWVersion:    line(d.Revision),
			ViaDevice:    BridgeID(base),
		},
		Origin:           origin{Name: "kmp2mqtt", SWVersion: line(d.Version)},
		Availability:     []availability{{d.BridgeStateTopic}, {d.AvailabilityTopic}},
		AvailabilityMode: "all",
		StateTopic:       d.StateTopic,
		Components:       append(cs, own...),
	})
}

// check validates the device and returns the bridge's base topic.
func (d Device) check() (base string, err error) {
	if !idCharacters(d.Serial) {
		return "", &FieldError{"Serial", d.Serial, "letters, digits, - and _"}
	}
	for _, f := range []struct{ name, value string }{
		{"StateTopic", d.StateTopic},
		{"DiagnosticsTopic", d.DiagnosticsTopic},
		{"AvailabilityTopic", d.AvailabilityTopic},
		{"BridgeStateTopic", d.BridgeStateTopic},
		{"GetTopic", d.GetTopic},
		{"SetTopic", d.SetTopic},
	} {
		if !topic(f.value) {
			return "", &FieldError{f.name, f.value, topicWanted}
		}
	}
	if err := d.checkDiagnosis(); err != nil {
		return "", err
	}
	base, ok := strings.CutSuffix(d.BridgeStateTopic, "/bridge/state")
	if !ok || base == "" {
		return "", &FieldError{"BridgeStateTopic", d.BridgeStateTopic, "<base>/bridge/state"}
	}
	return base, nil
}

// checkDiagnosis validates what the entities of the diagnosis need, if there are any.
func (d Device) checkDiagnosis() error {
	if d.DiagnosisTopic == "" {
		return nil
	}
	if !topic(d.DiagnosisTopic) {
		return &FieldError{"DiagnosisTopic", d.DiagnosisTopic, topicWanted}
	}
	if len(d.Diagnoses) == 0 {
		return &FieldError{"Diagnoses", "", "at least one code"}
	}
	for i, code := range d.Diagnoses {
		if !attribute(code) || slices.Contains(d.Diagnoses[:i], code) {
			return &FieldError{"Diagnoses", code, "codes of lower-case letters, digits and _, each once"}
		}
	}
	return nil
}

// displayName returns the name under which Home Assistant shows the device. What
// differs from the last part of the state topic is a label that somebody chose.
func (d Device) displayName() string {
	name := line(d.Name)
	meter := line(path.Base(d.StateTopic))
	if name != "" && name != meter {
		return name
	}
	if name = title(meter); name == "" || meter == d.Serial {
		return "Meter " + d.Serial // entity ids are made of it: not of digits alone
	}
	return name
}

// own returns the entities that do not come from a register: what the bridge knows
// of the meter, and the controls. They explain an outage or end it, so all but
// "Problem" stay available while the meter is silent.
func (d Device) own() components {
	bridge := []availability{{d.BridgeStateTopic}}
	least, step := d.intervalRange()
	cs := components{
		{
			id:             "last_reading",
			Platform:       "sensor",
			Name:           "Last reading",
			ValueTemplate:  "{{ value_json.last_reading }}",
			DeviceClass:    "timestamp",
			EntityCategory: "diagnostic",
			StateTopic:     d.DiagnosticsTopic,
		},
		{
			id:             "failed_reads",
			Platform:       "sensor",
			Name:           "Failed reads",
			ValueTemplate:  "{{ value_json.reads_failed }}",
			StateClass:     "total_increasing", // starts again with the bridge
			EntityCategory: "diagnostic",
			StateTopic:     d.DiagnosticsTopic,
		},
		{
			id:             "serial",
			Platform:       "sensor",
			Name:           "Serial number",
			ValueTemplate:  "{{ value_json.serial }}",
			EntityCategory: "diagnostic",
			StateTopic:     d.DiagnosticsTopic,
		},
		{
			id:           "read_now",
			Platform:     "button",
			Name:         "Read now",
			CommandTopic: d.GetTopic,
			PayloadPress: "{}",
		},
		{
			id:             "read_interval",
			Platform:       "number",
			Name:           "Read interval",
			ValueTemplate:  "{{ (value_json.interval_s / 60) | round(2) }}",
			Unit:           "min",
			DeviceClass:    "duration",
			EntityCategory: "config",
			Min:            least,
			Max:            maxInterval,
			Step:           step,
			Mode:           "box",
			CommandTopic:   d.SetTopic,
			// Seconds, so that half a minute is not cut to nothing.
			CommandTemplate: `{"interval":"{{ (value * 60) | round | int }}s"}`,
			StateTopic:      d.DiagnosticsTopic,
		},
	}
	cs = append(cs, d.diagnosis()...)
	for i := range cs {
		cs[i].Availability = bridge
	}
	cs = append(cs, d.problem()...)
	for i := range cs {
		cs[i].UniqueID = MeterID(d.Serial) + "_" + cs[i].id
		cs[i].QoS = 1
	}
	return cs
}

// intervalRange returns where the "Read interval" number begins and its step, in minutes.
func (d Device) intervalRange() (least, step float64) {
	shortest := max(d.ShortestInterval, time.Second)
	if shortest >= time.Minute {
		return math.Floor(shortest.Minutes()), 1
	}
	// Rounded down, so that the interval itself, shown with two digits, is within.
	return math.Floor(shortest.Minutes()*100) / 100, 0.01
}
