package catalog

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Model is what is known of one meter model.
type Model struct {
	// Name is the short name, as in a setting: "403".
	Name string
	// Title is the name on the meter: "MULTICAL 403".
	Title string
	// Family is what it measures.
	Family Family
	// Like names the model whose registers it shares for all that is known, "" when
	// the sources speak of this model itself.
	Like string
	// Baud is the speed of its optical port, in bits a second.
	Baud int
	// Interval is the integration interval in the meter's normal mode: its values
	// change no more often than that, so reading faster yields nothing. 0 when it
	// is not known.
	Interval time.Duration
	// Battery tells that a battery powers it, so that each reading has its price:
	// heat and water meters usually, electricity meters never.
	Battery bool
	// Usual is how often it is read when nobody says otherwise: heat every half
	// hour (a 402 falls asleep when it is read less, and a 403's battery is reckoned
	// with a reading an hour), water likewise, but four times a day where the port
	// closes after a few sessions, electricity every minute.
	Usual time.Duration
	// Registers are the usual ones, read when nothing else is asked for: those of
	// [EachTime] first, one request of 8, two or three, a coarse counter and its fine
	// twin side by side in the first; behind them those of [Daily].
	Registers []uint16
	// Logs says how its own logs are read.
	Logs LogAccess
	// Notes holds what else an owner should know.
	Notes string
	// Source says where this is known from, separated by "; ".
	Source string
}

// LogAccess says how a meter's logs are read.
type LogAccess string

// The ways to a meter's logs.
const (
	// LogsUnknown: no source tells of a way to read them.
	LogsUnknown LogAccess = ""
	// LogsInMeter: by the logger command B8, at the meter's own address.
	LogsInMeter LogAccess = "meter"
	// LogsInModule: by the commands A0 to A3, at the address of a logger module, which the
	// meter may lack.
	LogsInModule LogAccess = "module"
)

// Models returns all models, ordered by name. The slice and what it holds are the
// caller's own.
func Models() []Model {
	t := load()
	models := make([]Model, len(t.models))
	for i := range models {
		models[i] = t.model(i)
	}
	return models
}

// ModelByName returns the model with a name ("403") or title ("MULTICAL 403").
// White space around it and upper case do not matter.
func ModelByName(name string) (Model, bool) {
	t := load()
	i, ok := t.modelNames[strings.ToLower(strings.TrimSpace(name))]
	if !ok {
		return Model{}, false
	}
	return t.model(i), true
}

// ModelByType returns the model that answers GetType with a type code.
//
// Only the codes of the MULTICAL 601 and of electricity meters are published, and
// some belong to modules, not to a meter: for all others it returns false, and the
// model has to be told some other way.
func ModelByType(code uint16) (Model, bool) {
	typ, ok := LookupType(code)
	if !ok {
		return Model{}, false
	}
	return ModelByName(typ.Model)
}

// Has tells whether the sources list a register for the model, or for the model
// that it is like. A meter may know more registers, and by its configuration
// fewer.
func (m Model) Has(id uint16) bool {
	for name := range strings.SplitSeq(Lookup(id).Models, "; ") {
		if name == m.Name || name == m.Like || name == string(m.Family) {
			return true
		}
	}
	return false
}

// model returns the i-th model with a register list of its own.
func (t *tables) model(i int) Model {
	m := t.models[i]
	m.Registers = slices.Clone(m.Registers)
	return m
}

// addModel takes one row of models.csv.
func (t *tables) addModel(r row) error {
	baud, err := r.number("baud", 32)
	if err != nil {
		return err
	}
	m := Model{
		Name:   r["name"],
		Title:  r["title"],
		Family: Family(r["family"]),
		Like:   r["like"],
		Baud:   int(baud),
		Notes:  r["notes"],
		Source: r["source"],
	}
	if !slices.Contains(Families(), m.Family) {
		return fmt.Errorf("family %q is not known", m.Family)
	}
	if m.Logs = LogAccess(r["logs"]); !slices.Contains([]LogAccess{LogsUnknown, LogsInMeter, LogsInModule}, m.Logs) {
		return fmt.Errorf("column logs: %q is not known", m.Logs)
	}
	m.Battery = m.Family != Electricity
	minutes, err := r.number("usual_min", 16)
	if err != nil {
		return err
	}
	m.Usual = time.Duration(minutes) * time.Minute
	if r["interval_s"] != "" {
		seconds, err := r.number("interval_s", 16)
		if err != nil {
			return err
		}
		m.Interval = time.Duration(seconds) * time.Second
	}
	for s := range strings.FieldsSeq(r["registers"]) {
		id, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			return fmt.Errorf("column registers: %w", err)
		}
		if _, ok := t.registerIDs[uint16(id)]; !ok {
			return fmt.Errorf("column registers: %d is not in registers.csv", id)
		}
		m.Registers = append(m.Registers, uint16(id))
	}
	for _, name := range []string{m.Name, strings.ToLower(m.Title)} {
		// The title may be the name in other letters: that is one model, not two.
		if i, ok := t.modelNames[name]; ok && i != len(t.models) {
			return fmt.Errorf("model %s: %w", name, errDuplicate)
		}
		t.modelNames[name] = len(t.models)
	}
	t.models = append(t.models, m)
	return nil
}

// Type is what is known of one type code, or of a range of them. It is a plain
// value.
type Type struct {
	// Pattern is the code in four hexadecimal digits; an x stands for any digit:
	// "0001", "53xx".
	Pattern string
	// Model is the name of the [Model], "" for what is not a meter.
	Model string
	// Meaning says it in words: "MULTICAL 601 with Pt500 sensors".
	Meaning string
	// Source says where this is known from, separated by "; ".
	Source string
}

// LookupType returns what is known of a type code, as in the answer to GetType. An
// exact code goes before a pattern.
func LookupType(code uint16) (Type, bool) {
	for _, typ := range load().types {
		if typ.matches(code) {
			return typ, true
		}
	}
	return Type{}, false
}

// Types returns all type codes in the order in which [LookupType] tries them. The
// slice is the caller's own.
func Types() []Type {
	return slices.Clone(load().types)
}

// matches tells whether the pattern covers a code.
func (t Type) matches(code uint16) bool {
	digits := fmt.Sprintf("%04X", code)
	for i := range digits {
		if t.Pattern[i] != 'x' && t.Pattern[i] != digits[i] {
			return false
		}
	}
	return true
}

// addType takes one row of typecodes.csv.
func (t *tables) addType(r row) error {
	typ := Type{Pattern: r["pattern"], Model: r["model"], Meaning: r["meaning"], Source: r["source"]}
	if len(typ.Pattern) != 4 || strings.Trim(typ.Pattern, "0123456789ABCDEFx") != "" {
		return fmt.Errorf("pattern %q is not four digits or x", typ.Pattern)
	}
	if _, ok := t.modelNames[typ.Model]; typ.Model != "" && !ok {
		return fmt.Errorf("model %q is not in models.csv", typ.Model)
	}
	t.types = append(t.types, typ)
	return nil
}
