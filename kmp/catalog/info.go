package catalog

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// Format tells how the codes of an [InfoTable] are read.
type Format string

// The formats of info tables.
const (
	// Flags: every bit, or group of bits, has a meaning of its own. Codes are
	// "bit 3", "bits 4-6", or "0" for a value without any.
	Flags Format = "flags"
	// Values: every value stands for one meaning. Codes are decimal numbers.
	Values Format = "values"
	// Digits: every decimal digit of an 8-digit number, as a display shows it, has a
	// meaning of its own. Codes are patterns such as ".99.....", where a dot stands
	// for any digit.
	Digits Format = "digits"
)

// InfoTable says what the values of an info register, or of a status byte in some
// command's answer, mean.
type InfoTable struct {
	// Name is the table's stable name, [a-z0-9_]: "log_info_word".
	Name string
	// Title says in words what it explains.
	Title string
	// Format tells how Codes are read.
	Format Format
	// Models and Registers are those that the table is for. Without both, it
	// explains something that is not a register.
	Models    []string
	Registers []uint16
	// Codes are its rows.
	Codes []InfoCode
	// Notes holds how sure it is, and other things to know.
	Notes string

	// classes names the table that explains the value of a group of bits.
	classes string
}

// InfoCode is one meaning in an [InfoTable].
type InfoCode struct {
	// Code is the bit, value or pattern, see [Format].
	Code string
	// Meaning says it in words.
	Meaning string
	// Source says where this is known from, separated by "; ".
	Source string

	low, width int    // of the bits, for Flags
	value      uint64 // for Values
}

// displayDigits is the length of an info code on a display, and of a pattern.
const displayDigits = 8

// InfoText puts the value of an info register into words, one for each thing that
// the meter reports, by the model's name or title. The registers are 99 and 369
// and, on some models, 409, 458 and 1087. The same value means different things on
// different models: 8 is sensor T1 out of range on a MULTICAL 602, and T1 above its
// range on a 403.
//
// A value that reports nothing gives nil. Nothing is left out: a bit without a
// meaning is "bit 10 (unknown)", and a value for which there is no table, or whose
// table is only presumed to be the right one (register 99 of a 303, 603 or 803), is
// "code 4000 (unknown)".
func InfoText(model string, register uint16, value uint64) []string {
	if m, ok := ModelByName(model); ok {
		for _, t := range load().infoTables {
			if slices.Contains(t.Models, m.Name) && slices.Contains(t.Registers, register) {
				return t.Text(value)
			}
		}
	}
	return unknownCode(value)
}

// InfoTableByName returns one table, also one that belongs to no register:
// "log_info" and "log_info_word" explain the info of a log, "event_status_0" to
// "event_status_2" and "event_status_2_heat" the bytes of an event status,
// "cutoff_state" the relay of an electricity meter, "display403" and "display603"
// what the display shows.
func InfoTableByName(name string) (InfoTable, bool) {
	t := load()
	i, ok := t.infoNames[name]
	if !ok {
		return InfoTable{}, false
	}
	return t.infoTables[i].clone(), true
}

// InfoTables returns all tables. The slice and what it holds are the caller's own.
func InfoTables() []InfoTable {
	tables := slices.Clone(load().infoTables)
	for i := range tables {
		tables[i] = tables[i].clone()
	}
	return tables
}

// Text puts a value into words as [InfoText] does.
func (t InfoTable) Text(value uint64) []string {
	switch t.Format {
	case Flags:
		return t.flagText(value)
	case Digits:
		return t.digitText(value)
	default:
		return t.valueText(value)
	}
}

// flagText has one word for each bit that is set, and for each group of bits that
// is not 0.
func (t InfoTable) flagText(value uint64) []string {
	var words []string
	rest := value
	for _, c := range t.Codes {
		mask := uint64(1)<<c.width - 1
		field := value >> c.low & mask
		rest &^= mask << c.low
		switch {
		case field == 0:
		case c.width == 1:
			words = append(words, c.Meaning)
		default:
			words = append(words, c.Meaning+" "+t.class(field))
		}
	}
	for ; rest != 0; rest &= rest - 1 {
		words = append(words, fmt.Sprintf("bit %d (unknown)", bits.TrailingZeros64(rest)))
	}
	return words
}

// class explains the value of a group of bits.
func (t InfoTable) class(field uint64) string {
	catalog := load()
	classes := catalog.infoTables[catalog.infoNames[t.classes]]
	return strings.Join(classes.Text(field), ", ")
}

// valueText has one word for the whole value.
func (t InfoTable) valueText(value uint64) []string {
	for _, c := range t.Codes {
		if c.value == value {
			return []string{c.Meaning}
		}
	}
	return unknownCode(value)
}

// digitText has one word for each pattern that the digits match, and for each other
// digit that is not 0.
func (t InfoTable) digitText(value uint64) []string {
	digits := fmt.Sprintf("%0*d", displayDigits, value)
	if len(digits) > displayDigits {
		return unknownCode(value)
	}
	var words []string
	rest := []byte(digits)
	for _, c := range t.Codes {
		if !matchDigits(c.Code, digits) {
			continue
		}
		words = append(words, c.Meaning)
		for i := range c.Code {
			if c.Code[i] != '.' {
				rest[i] = '0'
			}
		}
	}
	for i, digit := range rest {
		if digit != '0' {
			words = append(words, fmt.Sprintf("digit %d is %c (unknown)", i+1, digit))
		}
	}
	return words
}

// matchDigits tells whether digits match a pattern of the same length.
func matchDigits(pattern, digits string) bool {
	for i := range pattern {
		if pattern[i] != '.' && pattern[i] != digits[i] {
			return false
		}
	}
	return true
}

// unknownCode is what is said of a value that no table explains.
func unknownCode(value uint64) []string {
	if value == 0 {
		return nil
	}
	return []string{fmt.Sprintf("code %d (unknown)", value)}
}

// clone copies the slices, so that the caller cannot change the catalog.
func (t InfoTable) clone() InfoTable {
	t.Models = slices.Clone(t.Models)
	t.Registers = slices.Clone(t.Registers)
	t.Codes = slices.Clone(t.Codes)
	return t
}

// addInfoTable takes one row of infotables.csv.
func (t *tables) addInfoTable(r row) error {
	table := InfoTable{
		Name:    r["name"],
		Title:   r["title"],
		Format:  Format(r["format"]),
		Models:  r.list("models"),
		Notes:   r["notes"],
		classes: r["classes"],
	}
	switch table.Format {
	case Flags, Values, Digits:
	default:
		return fmt.Errorf("format %q is not known", table.Format)
	}
	for _, model := range table.Models {
		if _, ok := t.modelNames[model]; !ok {
			return fmt.Errorf("model %q is not in models.csv", model)
		}
	}
	for _, s := range r.list("registers") {
		id, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			return fmt.Errorf("column registers: %w", err)
		}
		table.Registers = append(table.Registers, uint16(id))
	}
	if _, ok := t.infoNames[table.Name]; ok {
		return fmt.Errorf("table %s: %w", table.Name, errDuplicate)
	}
	t.infoNames[table.Name] = len(t.infoTables)
	t.infoTables = append(t.infoTables, table)
	return nil
}

// addInfoCodes takes one row of infocodes.csv. A row of a table of digits may hold
// several patterns and as many meanings, as its source does.
func (t *tables) addInfoCodes(r row) error {
	i, ok := t.infoNames[r["table"]]
	if !ok {
		return fmt.Errorf("table %q is not in infotables.csv", r["table"])
	}
	table := &t.infoTables[i]
	codes, meanings := []string{r["code"]}, []string{r["meaning"]}
	if table.Format == Digits {
		codes, meanings = strings.Fields(r["code"]), r.list("meaning")
	}
	if len(codes) != len(meanings) {
		return fmt.Errorf("%d codes, but %d meanings", len(codes), len(meanings))
	}
	for i := range codes {
		if meanings[i] == "" || r["source"] == "" {
			return fmt.Errorf("code %s: lacks a meaning or a source", codes[i])
		}
		code, err := parseInfoCode(table.Format, codes[i])
		if err != nil {
			return err
		}
		code.Meaning, code.Source = meanings[i], r["source"]
		if slices.ContainsFunc(table.Codes, func(c InfoCode) bool { return c.Code == code.Code }) {
			return fmt.Errorf("code %s of table %s: %w", code.Code, table.Name, errDuplicate)
		}
		if code.width > 1 && table.classes == "" {
			return fmt.Errorf("code %s: table %s has no classes for a group of bits", code.Code, table.Name)
		}
		table.Codes = append(table.Codes, code)
	}
	return nil
}

// checkClasses makes sure that every table that names another one for its groups of
// bits finds it.
func (t *tables) checkClasses() error {
	for _, table := range t.infoTables {
		if _, ok := t.infoNames[table.classes]; table.classes != "" && !ok {
			return fmt.Errorf("catalog: infotables.csv: table %s: classes %q is no table", table.Name, table.classes)
		}
	}
	return nil
}

// parseInfoCode reads a code as its table's format wants it.
func parseInfoCode(format Format, s string) (InfoCode, error) {
	bad := fmt.Errorf("code %q does not fit a table of %s", s, format)
	code := InfoCode{Code: s}
	switch format {
	case Digits:
		if len(s) != displayDigits || strings.Trim(s, ".123456789") != "" {
			return InfoCode{}, bad
		}
	case Values:
		value, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return InfoCode{}, bad
		}
		code.value = value
	case Flags:
		if s == "0" {
			break // width 0: there for the reader, no bit of its own
		}
		low, ok := strings.CutPrefix(s, "bit ")
		high := low
		if !ok {
			low, ok = strings.CutPrefix(s, "bits ")
			low, high, _ = strings.Cut(low, "-")
		}
		if !ok {
			return InfoCode{}, bad
		}
		first, err := strconv.ParseUint(low, 10, 6)
		if err != nil {
			return InfoCode{}, bad
		}
		last, err := strconv.ParseUint(high, 10, 6)
		if err != nil || last < first {
			return InfoCode{}, bad
		}
		code.low, code.width = int(first), int(last-first)+1
	}
	return code, nil
}
