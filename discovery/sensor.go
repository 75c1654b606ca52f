package discovery

import (
	"strings"

	"kmp2mqtt/kmp/catalog"
)

// maxPrecision bounds the digits after the point that a sensor asks to be shown:
// an exponent may be -63, but browsers refuse to format so many.
const maxPrecision = 9

// sensor returns the entity of one measurement, without its ids.
func sensor(d Device, m Measurement) component {
	r, q := m.Register, quantities[m.Unit]
	q.class = deviceClass(d, r, q)
	c := component{
		Platform:      "sensor",
		Name:          line(r.Title),
		ValueTemplate: "{{ value_json." + m.Key + " }}",
		Unit:          q.unit,
		DeviceClass:   q.class,
		StateClass:    stateClass(r, q),
		QoS:           1,
	}
	if c.Name == "" {
		c.Name = title(r.Name)
	}
	if q.unit != "" || c.StateClass == "measurement" {
		precision := min(max(m.Decimals, 0), maxPrecision)
		c.Precision = &precision
	}
	if diagnostic(r, q) {
		c.EntityCategory = "diagnostic"
	}
	if r.Rare {
		disabled := false
		c.EnabledByDefault = &disabled
	}
	return c
}

// deviceClass is the unit's class, unless the register says it better.
func deviceClass(d Device, r catalog.Register, q quantity) string {
	switch {
	case q.form == date:
		return "date"
	case q.class == "volume" && (pulseInput(r) || d.family() == catalog.Water && consumption(r)):
		// The volume of a heat meter is no consumption of water: it goes round in the pipes.
		return "water"
	case q.form == number && powerFactor(r) && (q.unit == "" || q.unit == "%"):
		return "power_factor"
	case q.class == "temperature" && strings.Contains(r.Name, "difference"):
		return "temperature_delta"
	case q.class == "temperature_delta" && strings.Contains(r.Name, "temperature") && !strings.Contains(r.Name, "difference"):
		return "temperature" // in kelvin from absolute zero
	}
	return q.class
}

// stateClass tells which statistics Home Assistant keeps; empty for none.
func stateClass(r catalog.Register, q quantity) string {
	if q.form != number {
		return ""
	}
	switch r.Kind {
	case catalog.Counter:
		if q.states != measurements {
			return "total"
		}
	case catalog.ResettableCounter:
		if q.states != measurements {
			return "total_increasing"
		}
	case catalog.Gauge:
		if q.states != totals && !ofPeriod(r) {
			return "measurement"
		}
	case catalog.Unknown:
		// Only what the unit alone tells: a temperature is no counter.
		if q.states == measurements {
			return "measurement"
		}
	}
	return ""
}

// diagnostic tells whether the register is about the meter rather than about what it measures.
func diagnostic(r catalog.Register, q quantity) bool {
	switch r.Kind {
	case catalog.Counter, catalog.ResettableCounter:
		return q.class == "duration" || q.unit == "" && !pulseInput(r) // hours, events
	case catalog.Gauge, catalog.Unknown:
		return false
	case catalog.Date:
		return r.ID == 1003 // the day on the meter's own clock
	}
	return true
}

// ofPeriod tells whether the register is the extreme of a period or the average of a
// day, month or year: it stands still most of the time, and a mean of it says nothing.
// A derived number (ID 0) moves with every reading.
func ofPeriod(r catalog.Register) bool {
	if r.ID == 0 {
		return false
	}
	for _, extreme := range []string{"max_", "min_", "accumulated_max_"} {
		if strings.HasPrefix(r.Name, extreme) {
			return true
		}
	}
	for _, period := range []string{"_year", "_month", "_day", "_hour", "_maximum", "_minimum"} {
		if strings.HasSuffix(r.Name, period) {
			return true
		}
	}
	return false
}

// pulseInput tells whether the register counts the pulses of another meter, most
// often one for water.
func pulseInput(r catalog.Register) bool {
	switch r.ID {
	case 84, 85, 224, 225:
		return true
	}
	return false
}

// consumption tells whether the register of a water meter counts all that went
// through it: its volume, also with an extra digit or worked out of the coarse and the
// fine one. What flowed backwards or within a range of flow is a part of it.
func consumption(r catalog.Register) bool {
	switch r.Name {
	case "volume", "volume_extra_digit", "volume_fine":
		return true
	}
	return false
}

// powerFactor tells whether the register is the cosine between current and voltage.
// Its angle has another unit.
func powerFactor(r catalog.Register) bool {
	return r.Kind == catalog.Gauge && strings.Contains(r.Name, "power_factor")
}

// family returns what the meter measures, empty if nobody knows.
func (d Device) family() catalog.Family {
	if m, ok := catalog.ModelByName(d.Model); ok {
		return m.Family
	}
	return d.Family
}
