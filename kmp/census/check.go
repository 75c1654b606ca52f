package census

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"kmp2mqtt/kmp/catalog"
)

// ErrUnsound says that a profile is not one that a census can have brought.
var ErrUnsound = errors.New("census: profile is not sound")

// maxText bounds the texts of a profile, in bytes.
const maxText = 64

// Check tells whether a profile that was read from a file is sound: bounded, its ids
// in order and each in one place, its family and model known. Errors wrap [ErrUnsound]
// and say what is wrong; such a profile is taken anew.
func (p Profile) Check() error {
	for _, field := range []struct{ name, text string }{
		{"serial", p.Serial}, {"meter_type", p.MeterType}, {"revision", p.Revision},
	} {
		if err := checkText(field.name, field.text); err != nil {
			return err
		}
	}
	m, known := catalog.ModelByName(p.Model)
	switch {
	case p.Model != "" && !known:
		return unsound("model %.*q is not known", maxText, p.Model)
	case p.Family != "" && !slices.Contains(catalog.Families(), p.Family):
		return unsound("family %.*q is not known", maxText, p.Family)
	case known && p.Family != "" && p.Family != m.Family:
		return unsound("model %s is not of the family %s", m.Name, p.Family)
	}
	return p.checkRegisters()
}

// checkRegisters checks the lists.
func (p Profile) checkRegisters() error {
	if max(len(p.Registers), len(p.Absent), len(p.Doubtful)) > MaxRegisters {
		return unsound("more than %d registers", MaxRegisters)
	}
	for i, e := range p.Registers {
		if err := e.check(); err != nil {
			return err
		}
		if i > 0 && p.Registers[i-1].ID >= e.ID {
			return unsound("register %d is not in ascending order", e.ID)
		}
	}
	for _, list := range [][]uint16{p.Absent, p.Doubtful} {
		for i, id := range list {
			if i > 0 && list[i-1] >= id {
				return unsound("register %d is not in ascending order", id)
			}
		}
	}
	for _, id := range p.Absent {
		if p.Has(id) || contains(p.Doubtful, id) {
			return unsound("register %d is absent and is not", id)
		}
	}
	if n := p.foreign(); n > maxForeign {
		return unsound("%d registers that the catalog does not have", n)
	}
	return nil
}

// check checks one register.
func (e Entry) check() error {
	if err := checkText("name", e.Name); err != nil {
		return err
	}
	if err := checkText("unit", e.Unit); err != nil {
		return err
	}
	if e.Width < 0 || e.Width > 255 || e.Exponent < -63 || e.Exponent > 63 {
		return unsound("register %d: width %d or exponent %d cannot be", e.ID, e.Width, e.Exponent)
	}
	return nil
}

// checkText checks a text that goes into logs and messages.
func checkText(name, text string) error {
	if len(text) > maxText || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7F }) {
		return unsound("%s is too long or not text", name)
	}
	return nil
}

// unsound is an error that wraps [ErrUnsound].
func unsound(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrUnsound}, args...)...)
}
