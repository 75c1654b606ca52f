package discovery

import "kmp2mqtt/kmp"

// form is how the values of a unit look in the state message.
type form int

const (
	text   form = iota // words, digits that are not a quantity, or a form unknown here
	number             // a JSON number
	date               // "YYYY-MM-DD"
)

// states is which state classes Home Assistant takes for a device class.
type states int

const (
	anyState     states = iota
	totals              // total and total_increasing
	measurements        // measurement
)

// quantity is what Home Assistant needs to know of a unit.
type quantity struct {
	form   form
	unit   string // in Home Assistant's spelling; empty if there is none
	class  string // device class; empty if Home Assistant has none for this unit
	states states
}

// quantities holds every unit code of the protocol. A code that is missing here
// is shown as text. Device classes, their units and state classes: Home Assistant core 2026.4,
// components/sensor/const.py. A unit that Home Assistant does not know for a class, such as
// Mvarh, has none.
var quantities = map[kmp.Unit]quantity{
	0x00: {form: number},
	0x01: {number, "Wh", "energy", totals},
	0x02: {number, "kWh", "energy", totals},
	0x03: {number, "MWh", "energy", totals},
	0x04: {number, "GWh", "energy", totals},
	0x05: {number, "J", "energy", totals},
	0x06: {number, "kJ", "energy", totals},
	0x07: {number, "MJ", "energy", totals},
	0x08: {number, "GJ", "energy", totals},
	0x09: {number, "cal", "energy", totals},
	0x0A: {number, "kcal", "energy", totals},
	0x0B: {number, "Mcal", "energy", totals},
	0x0C: {number, "Gcal", "energy", totals},
	0x0D: {number, "varh", "reactive_energy", totals},
	0x0E: {number, "kvarh", "reactive_energy", totals},
	0x0F: {form: number, unit: "Mvarh"},
	0x10: {form: number, unit: "Gvarh"},
	0x11: {form: number, unit: "VAh"},
	0x12: {form: number, unit: "kVAh"},
	0x13: {form: number, unit: "MVAh"},
	0x14: {form: number, unit: "GVAh"},
	0x15: {number, "W", "power", measurements},
	0x16: {number, "kW", "power", measurements},
	0x17: {number, "MW", "power", measurements},
	0x18: {number, "GW", "power", measurements},
	0x19: {number, "var", "reactive_power", measurements},
	0x1A: {number, "kvar", "reactive_power", measurements},
	0x1B: {form: number, unit: "Mvar"}, // Home Assistant's mvar is a thousandth
	0x1C: {form: number, unit: "Gvar"},
	0x1D: {number, "VA", "apparent_power", measurements},
	0x1E: {number, "kVA", "apparent_power", measurements},
	0x1F: {form: number, unit: "MVA"},
	0x20: {form: number, unit: "GVA"},
	0x21: {number, "V", "voltage", measurements},
	0x22: {number, "A", "current", measurements},
	0x23: {number, "kV", "voltage", measurements},
	0x24: {form: number, unit: "kA"},
	0x25: {number, "°C", "temperature", measurements},
	0x26: {number, "K", "temperature_delta", measurements},
	0x27: {number, "L", "volume", totals},
	0x28: {number, "m³", "volume", totals},
	0x29: {number, "L/h", "volume_flow_rate", measurements},
	0x2A: {number, "m³/h", "volume_flow_rate", measurements},
	0x2B: {form: number, unit: "m³·°C"},
	0x2C: {form: number, unit: "t"}, // weight has no tonnes
	0x2D: {form: number, unit: "t/h"},
	0x2E: {number, "h", "duration", anyState},
	0x2F: {form: text}, // clock
	0x30: {form: date},
	0x31: {form: date},
	0x32: {form: text}, // month and day
	0x33: {form: number},
	0x34: {number, "bar", "pressure", measurements},
	0x35: {form: text}, // local time; a timestamp would need its zone
	0x36: {form: text},
	0x37: {number, "m³", "volume", totals}, // times 10 on the wire
	0x38: {form: number, unit: "t"},        // times 10 on the wire
	0x39: {number, "GJ", "energy", totals}, // times 10 on the wire
	0x3A: {number, "min", "duration", anyState},
	0x3B: {form: text}, // bits
	0x3C: {number, "s", "duration", anyState},
	0x3D: {number, "ms", "duration", anyState},
	0x3E: {number, "d", "duration", anyState},
	0x3F: {form: text},
	0x40: {form: text},
	0x41: {form: number, unit: "imp/L"},
	0x42: {form: number, unit: "L/imp"},
	0x43: {number, "Hz", "frequency", measurements},
	0x44: {form: number, unit: "°"}, // the only class with ° is the wind's
	0x45: {form: number, unit: "%"},
	0x46: {number, "gal", "volume", totals},
	0x47: {number, "gal/min", "volume_flow_rate", measurements},
	0x48: {form: text},
	0x49: {form: text}, // IPv4
	0x4A: {form: text}, // IPv6
	0x4F: {form: text},
	0x55: {number, "%", "humidity", measurements},
	0x56: {form: number, unit: "%"}, // oxygen
	0x57: {number, "m/s", "speed", measurements},
	0x58: {form: number, unit: "kJ/kg"},
	0x59: {form: number, unit: "pH"},
	0x5A: {form: number, unit: "g/kg"},
}
