package bridge

import (
	"cmp"
	"fmt"

	"kmp2mqtt/bridge/former"
	"kmp2mqtt/bridge/numbers"
	"kmp2mqtt/discovery"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

// compatMessages are what kamstrup-402-mqtt would have published of a good reading: one object
// with its names on <topic>/values. None without a topic, or when no value is known. It had one
// meter; the first of the settings takes its place, any other has <topic>/<meter>/values.
//
// Unlike there it is retained, so that a restart of who listens does not lose it.
func compatMessages(topic string, index int, r Reading, unknown map[string]string) []Message {
	if topic == "" {
		return nil
	}
	payload := compatJSON(r.Values, unknown)
	if payload == nil {
		return nil
	}
	if index > 0 {
		topic += "/" + r.Meter.Name
	}
	return []Message{{Topic: topic + "/values", Payload: payload, Retain: true, Rank: RankState}}
}

// compatJSON is the object of the numbers that kamstrup-402-mqtt knew, without units, with the
// meter's digits. What is unknown or held back is left out, as what could not be read was. Nil
// when nothing is left.
func compatJSON(values []numbers.Value, unknown map[string]string) []byte {
	b := []byte{'{'}
	for _, p := range former.Parameters() {
		for _, v := range values {
			if _, doubted := unknown[v.Key]; doubted || v.Register.ID != p.Register {
				continue
			}
			n, ok := compatNumber(v)
			if !ok {
				continue
			}
			if len(b) > 1 {
				b = append(b, ',')
			}
			b = append(append(append(b, encodeJSON(p.Name)...), ':'), encodeJSON(n)...)
			break
		}
	}
	if len(b) == 1 {
		return nil
	}
	return append(b, '}')
}

// compatNumber is a value as the plain number that the meter sends: without the factor of a
// unit that counts in tens, and a day as the digits of its year, month and day.
func compatNumber(v numbers.Value) (kmp.Decimal, bool) {
	switch value := v.Value.(type) {
	case kmp.Decimal:
		u, _ := catalog.LookupUnit(v.Unit)
		if u.Shift == 0 {
			return value, true
		}
		n, err := value.Shift(-u.Shift)
		return n, err == nil
	case kmp.Date:
		year := value.Year
		if v.Unit == kmp.UnitDate {
			year %= 100
		}
		n, err := kmp.NewDecimal(int64(year*10000+value.Month*100+value.Day), 0)
		return n, err == nil
	}
	return kmp.Decimal{}, false
}

// sensorID is under which id Home Assistant knows the sensor of a register, or of the number named
// name that is derived from it.
func sensorID(m rowsOf, r catalog.Register, name string) string {
	if id, ok := former.UniqueID(m.entities, r.ID); ok && name == r.Name {
		return id
	}
	return discovery.MeterID(m.identity) + "_" + name
}

// entities is whose names the meter of this name keeps in Home Assistant, empty for our own.
func (c Config) entities(meter string) string {
	for _, m := range c.Meters {
		if m.Name == meter {
			return m.Entities
		}
	}
	return ""
}

// idsOfPlace says that the ids of the meter's entities have no serial number in them: the next
// meter in its place has them, too.
func (m MeterConfig) idsOfPlace() bool { return m.Entities == former.WobwobRt }

// entities checks that only one meter keeps the names of another reader, which had one.
func (p *parser) entities(meters []MeterConfig) {
	var first string
	for _, m := range meters {
		name := cmp.Or(m.Name, redactURL(m.Line))
		switch {
		case m.Entities == "":
		case first == "":
			first = name
		default:
			p.errs = append(p.errs, &ConfigError{
				Variable: "METERS", Meter: name, Option: "entities",
				Err: fmt.Errorf("meter %s keeps such names already, and other readers had one meter: leave the option away here", first),
			})
		}
	}
}
