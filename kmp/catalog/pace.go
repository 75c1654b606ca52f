package catalog

import (
	"slices"
	"strings"
)

// Pace says how often a register is worth reading.
type Pace uint8

// The paces of registers.
const (
	// EachTime is for what changes from reading to reading, and for what tells that
	// the meter is still the same one.
	EachTime Pace = iota
	// Daily is for what a month or a year has brought so far, for settings, numbers
	// and text: once a day is enough.
	Daily
)

// String returns "each time" or "daily".
func (p Pace) String() string {
	if p == Daily {
		return "daily"
	}
	return "each time"
}

// pace follows from what a register is. A name speaks of a month, of a year or of an
// extreme in its own words; extremes of the day or the hour move with it.
func (r Register) pace() Pace {
	words := strings.Split(r.Name, "_")
	says := func(these ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(these, w) })
	}
	switch r.Kind {
	case ID:
		if r.Name == serialNumber {
			return EachTime
		}
		return Daily
	case Config, LogField, Text:
		return Daily
	case Counter:
		if r.Name == infoEvents {
			return Daily // the info code itself tells at once; so a usual reading is two requests
		}
	case Gauge, Clock, Date:
		extreme := words[0] == "min" || says("max", "maximum", "minimum")
		if says("month", "year") || extreme && !says("hour", "day") {
			return Daily
		}
	}
	return EachTime
}

const (
	// serialNumber is the register that tells which meter it is.
	serialNumber = "serial_number"
	// infoEvents is the register that counts what the info code has told.
	infoEvents = "info_events"
)
