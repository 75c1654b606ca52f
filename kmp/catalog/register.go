package catalog

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Register is what is known of one register. It is a plain value.
type Register struct {
	// ID is the register's number on the wire.
	ID uint16
	// Name is the stable name, [a-z0-9_]: "supply_temperature". A register of
	// unknown meaning is "register_<id>".
	Name string
	// Title is a heading for people, in sentence case, without the unit: "Supply
	// temperature".
	Title string
	// Description says in plain words what the value is: "Supply (inlet)
	// temperature T1".
	Description string
	// Unit tells in which units meters send the value, for people: "l/h or m³/h",
	// "date". What counts is the unit beside the value; it differs from meter to
	// meter. Empty when it is not known.
	Unit string
	// Kind says how the value behaves over time.
	Kind Kind
	// Pace says how often it is worth reading; it follows from kind and name.
	Pace Pace
	// Rare is false for the few values that nearly every owner looks at, true for
	// the others: yearly maxima, dates, configuration and so on.
	Rare bool
	// Models lists, separated by "; ", the models that have the register according
	// to the sources, by [Model] name; "electricity" stands for that whole family.
	Models string
	// Label is what the sources call it: "E1", "MAX FLOW1 Y". It may be empty.
	Label string
	// Notes holds what else is known, such as doubts and peculiarities.
	Notes string
	// Source says where this is known from, separated by "; ". Empty only for a
	// register that is not in the catalog.
	Source string
}

// Kind says how a register's value behaves over time, and so what may be done
// with it.
type Kind uint8

// The kinds of registers.
const (
	// Unknown is a register whose meaning nobody has published.
	Unknown Kind = iota
	// Counter only grows, until a service resets it or the meter is swapped.
	Counter
	// ResettableCounter grows until somebody resets it.
	ResettableCounter
	// TruncatedCounter grows but lacks its leading digits: it wraps at a modulus
	// that differs by model, so it must not be published as a total.
	TruncatedCounter
	// Gauge goes up and down.
	Gauge
	// Date is a day, such as that of a maximum.
	Date
	// Clock is a time of day, or a full timestamp.
	Clock
	// Bitfield is a number whose bits, or whose value, stand for words; see
	// [InfoText].
	Bitfield
	// ID is a number that names the meter, a part of it or its owner.
	ID
	// Config is a setting of the meter.
	Config
	// LogField is a column of the meter's own logs.
	LogField
	// Text is characters.
	Text
)

// kindNames holds the kinds as registers.csv spells them. Nothing changes it.
var kindNames = [...]string{
	Unknown:           "unknown",
	Counter:           "counter",
	ResettableCounter: "resettable counter",
	TruncatedCounter:  "truncated counter",
	Gauge:             "gauge",
	Date:              "date",
	Clock:             "clock",
	Bitfield:          "bitfield",
	ID:                "id",
	Config:            "config",
	LogField:          "log field",
	Text:              "text",
}

// String returns the kind in lower-case words: "truncated counter".
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "kind " + strconv.Itoa(int(k))
}

// parseKind is the inverse of [Kind.String].
func parseKind(s string) (Kind, error) {
	for k, name := range kindNames {
		if name == s {
			return Kind(k), nil
		}
	}
	return Unknown, fmt.Errorf("kind %q is not known", s)
}

// Lookup returns what is known of a register. For an id that is not in the
// catalog this is its generic name and title; the kind is Unknown, and it is Rare.
func Lookup(id uint16) Register {
	t := load()
	if i, ok := t.registerIDs[id]; ok {
		return t.registers[i]
	}
	n := strconv.Itoa(int(id))
	return Register{ID: id, Name: "register_" + n, Title: "Register " + n, Rare: true}
}

// ByName returns the register that a person means: by name ("power"), by number,
// decimal ("80") or hexadecimal ("0x50"), or by generic name ("register_80").
// White space around it and upper case do not matter.
//
// Every number from 0 to 65535 is a register, whether the catalog has it or not;
// only the meter knows. Any other unknown name returns false.
func ByName(name string) (Register, bool) {
	name = strings.ToLower(strings.TrimSpace(name))
	t := load()
	if i, ok := t.names[name]; ok {
		return t.registers[i], true
	}
	digits, base := strings.TrimPrefix(name, "register_"), 10
	if hex, ok := strings.CutPrefix(digits, "0x"); ok {
		digits, base = hex, 16
	}
	id, err := strconv.ParseUint(digits, base, 16)
	if err != nil {
		return Register{}, false
	}
	return Lookup(uint16(id)), true
}

// Registers returns all registers of the catalog, ordered by id. The slice is the
// caller's own.
func Registers() []Register {
	return slices.Clone(load().registers)
}

// addRegister takes one row of registers.csv.
func (t *tables) addRegister(r row) error {
	id, err := r.number("id", 16)
	if err != nil {
		return err
	}
	if err := r.checkHex(id, 4); err != nil {
		return err
	}
	kind, err := parseKind(r["kind"])
	if err != nil {
		return err
	}
	for _, column := range []string{"name", "title", "description", "models", "source"} {
		if r[column] == "" {
			return fmt.Errorf("column %s: is empty", column)
		}
	}
	register := Register{
		ID:          uint16(id),
		Name:        r["name"],
		Title:       r["title"],
		Description: r["description"],
		Unit:        r["unit"],
		Kind:        kind,
		Rare:        r["rare"] == "yes",
		Models:      r["models"],
		Label:       r["label"],
		Notes:       r["notes"],
		Source:      r["source"],
	}
	register.Pace = register.pace()
	if n := len(t.registers); n > 0 && t.registers[n-1].ID >= register.ID {
		return fmt.Errorf("register %d: is not in ascending order", id)
	}
	if _, ok := t.names[register.Name]; ok {
		return fmt.Errorf("name %s: %w", register.Name, errDuplicate)
	}
	t.registerIDs[register.ID] = len(t.registers)
	t.names[register.Name] = len(t.registers)
	t.registers = append(t.registers, register)
	return nil
}
