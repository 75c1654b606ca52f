// Package census finds out which registers a meter answers, a few requests at a time,
// and keeps that as a profile by serial number.
//
// A meter leaves out of its answer what it does not have (5512-447 section 6.2.4). A
// profile therefore asks for all that a meter of its family may have, the likeliest
// first, and twice for what was missing: once in the company of registers that made a
// long answer, once in that of others that were missing. What ordinary readings ask and
// learn counts just as well.
//
// A Profile does no I/O: [Profile.Next] says what to ask, [Profile.Note] takes what was
// answered; [Take] joins the two with a function that asks. A copy of a Profile is a
// profile of its own. The zero Profile knows nothing.
package census

import (
	"slices"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

// MaxRegisters bounds what a profile remembers, in registers: all of the catalog and a
// few hundred that only a person asked for.
const MaxRegisters = 1024

// maxForeign bounds among them those that the catalog does not have.
const maxForeign = 256

// Entry is a register that the meter has answered, as it was sent last.
type Entry struct {
	ID uint16 `json:"id"`
	// Name is the catalog's.
	Name string `json:"name"`
	// Unit is the symbol, "" for what has none.
	Unit     string   `json:"unit"`
	UnitCode kmp.Unit `json:"unit_code"`
	// Width is the number of bytes of the value.
	Width int `json:"width"`
	// Exponent is the power of ten, -63 to 63.
	Exponent int `json:"exponent"`
}

// Profile is what is known of one meter's registers. Who fills in Model or Family
// spares the meter the request that tells the families apart.
type Profile struct {
	Serial string `json:"serial"`
	// MeterType is the answer to GetType in four hexadecimal digits, Revision the
	// software revision beside it; "" when not known.
	MeterType string `json:"meter_type"`
	Revision  string `json:"revision"`
	// Model is a name of the catalog, "" when not known.
	Model string `json:"model"`
	// Family follows from Model or from the registers, "" when not known yet.
	Family catalog.Family `json:"family"`
	// Taken is when the census was complete; zero before that.
	Taken time.Time `json:"taken,omitzero"`
	// Registers are those that the meter has, by id.
	Registers []Entry `json:"registers"`
	// Absent are those that were missing in two answers, by id.
	Absent []uint16 `json:"absent"`
	// Doubtful are those that were missing in the last answer, by id.
	Doubtful []uint16 `json:"doubtful,omitempty"`

	shrunk int // how often the next request is to be halved
}

// New returns the profile of a meter of which nothing else is known.
func New(serial string) Profile {
	return Profile{Serial: serial, Registers: []Entry{}, Absent: []uint16{}}
}

// Next returns the registers to ask for in the next request, at most
// [kmp.MaxRegisters]; nil when the census is complete.
func (p *Profile) Next() []uint16 {
	size := max(1, kmp.MaxRegisters>>p.shrunk)
	var fresh, again []uint16
	for _, id := range p.candidates() {
		switch {
		case p.Has(id) || p.Lacks(id):
		case contains(p.Doubtful, id):
			again = append(again, id)
		default:
			fresh = append(fresh, id)
		}
	}
	ids := append(fresh, again...)
	return ids[:min(size, len(ids))]
}

// Note takes what a good answer to a request for the asked registers brought. What was
// not asked for says nothing about the meter and is left out.
//
// A register that is missing is doubtful at first, and absent when it is missing again
// without having been answered in between.
func (p *Profile) Note(at time.Time, asked []uint16, got []kmp.Register) {
	for i, id := range asked {
		if slices.Contains(asked[:i], id) {
			continue
		}
		if j := slices.IndexFunc(got, func(r kmp.Register) bool { return r.ID == id }); j >= 0 {
			p.found(got[j])
		} else {
			p.missed(id)
		}
	}
	p.shrunk = max(0, p.shrunk-1)
	p.settle(at)
}

// Fail takes that a request for the asked registers had no answer, although the meter
// answers others: some close the line when they are asked for many that they do not
// have. The next requests are shorter, and what fails all alone counts as missing.
func (p *Profile) Fail(at time.Time, asked []uint16) {
	if len(asked) > 1 {
		p.shrunk = min(p.shrunk+1, 3)
		return
	}
	for _, id := range asked {
		p.missed(id)
	}
	p.settle(at)
}

// Complete tells whether nothing is left to ask for.
func (p Profile) Complete() bool { return len(p.Next()) == 0 }

// Has tells whether the meter answers a register.
func (p Profile) Has(id uint16) bool {
	_, ok := p.find(id)
	return ok
}

// Lacks tells whether the meter was asked for a register and does not have it. What
// it neither has nor lacks has not been settled.
func (p Profile) Lacks(id uint16) bool { return contains(p.Absent, id) }

// Usual returns what to read of the meter when nobody says otherwise: the usual
// registers of its model without what it lacks. For a meter whose model is not known
// the family's stand in, and once the census is complete those of the family's model
// whose registers in the sources are the most like the meter's own.
func (p Profile) Usual() []uint16 {
	m, ok := catalog.ModelByName(p.Model)
	if !ok {
		m = p.nearest()
	}
	return slices.DeleteFunc(m.Registers, p.Lacks)
}

// candidates are all registers to ask for, the likeliest first.
func (p Profile) candidates() []uint16 {
	m, ok := catalog.ModelByName(p.Model)
	if ok {
		// What the sources list for the very model comes first.
		ids := catalog.Candidates(m.Family)
		rest := slices.DeleteFunc(slices.Clone(ids), m.Has)
		return slices.Concat(slices.DeleteFunc(ids, func(id uint16) bool { return !m.Has(id) }), rest)
	}
	if p.Family != "" {
		return catalog.Candidates(p.Family)
	}
	ids := catalog.Candidates("")
	if slices.ContainsFunc(ids, func(id uint16) bool { return !p.Lacks(id) }) {
		return ids
	}
	return catalog.Candidates(catalog.FamilyModel("").Family) // one that nothing told apart
}

// detect works out the family from the registers: one that only a single family has
// decides; without such a one, volume or flow in a meter that lacks all of heat and
// electricity is water.
func (p Profile) detect() catalog.Family {
	votes := map[catalog.Family]int{}
	for _, r := range p.Registers {
		if f, ok := only(r.ID); ok {
			votes[f]++
		}
	}
	var best catalog.Family
	for _, f := range catalog.Families() {
		if votes[f] > votes[best] {
			best = f
		}
	}
	if best != "" {
		return best
	}
	for _, id := range catalog.Candidates("") {
		if _, ok := only(id); ok && !p.Lacks(id) {
			return ""
		}
	}
	if slices.ContainsFunc(catalog.Candidates(""), p.Has) {
		return catalog.Water
	}
	return ""
}

// only returns the family that is the only one to have a register.
func only(id uint16) (catalog.Family, bool) {
	having := slices.DeleteFunc(catalog.Families(), func(f catalog.Family) bool { return !f.Has(id) })
	if len(having) != 1 {
		return "", false
	}
	return having[0], true
}

// nearest is the model whose usual registers stand in.
func (p Profile) nearest() catalog.Model {
	best := catalog.FamilyModel(p.Family)
	if p.Family == "" || !p.Complete() {
		return best
	}
	score := p.likeness(best)
	for _, m := range catalog.Models() {
		if m.Family != p.Family {
			continue
		}
		if n := p.likeness(m); n > score {
			best, score = m, n
		}
	}
	return best
}

// likeness counts the registers in which the meter and the sources about a model agree.
func (p Profile) likeness(m catalog.Model) int {
	n := 0
	for _, r := range p.Registers {
		if m.Has(r.ID) {
			n++
		}
	}
	for _, id := range p.Absent {
		if !m.Has(id) {
			n++
		}
	}
	return n
}

// found enters a register that was answered.
func (p *Profile) found(r kmp.Register) {
	p.Doubtful = without(p.Doubtful, r.ID)
	e := entry(r)
	i, ok := p.find(r.ID)
	switch {
	case ok && p.Registers[i] == e:
	case ok:
		p.Registers = slices.Clone(p.Registers)
		p.Registers[i] = e
	case p.remembers(r.ID):
		p.Absent = without(p.Absent, r.ID)
		p.Registers = slices.Insert(slices.Clone(p.Registers), i, e)
	}
}

// missed enters a register that was asked for and not answered.
func (p *Profile) missed(id uint16) {
	switch {
	case p.Lacks(id) || !p.remembers(id):
	case contains(p.Doubtful, id):
		p.Doubtful = without(p.Doubtful, id)
		if i, ok := p.find(id); ok {
			p.Registers = slices.Delete(slices.Clone(p.Registers), i, i+1)
		}
		p.Absent = with(p.Absent, id)
	default:
		p.Doubtful = with(p.Doubtful, id)
	}
}

// settle draws the conclusions from what was found and missed.
func (p *Profile) settle(at time.Time) {
	if m, ok := catalog.ModelByName(p.Model); ok {
		p.Family = m.Family
	} else if p.Family == "" {
		p.Family = p.detect()
	}
	switch complete := p.Complete(); {
	case !complete:
		p.Taken = time.Time{}
	case p.Taken.IsZero():
		p.Taken = at.UTC().Truncate(time.Second)
	}
}

// remembers tells whether the profile has a register or room for it.
func (p Profile) remembers(id uint16) bool {
	return !isForeign(id) || p.Has(id) || p.Lacks(id) || contains(p.Doubtful, id) || p.foreign() < maxForeign
}

// foreign counts the registers that the catalog does not have.
func (p Profile) foreign() int {
	n := 0
	for _, e := range p.Registers {
		if isForeign(e.ID) {
			n++
		}
	}
	for _, id := range p.Absent {
		if isForeign(id) {
			n++
		}
	}
	for _, id := range p.Doubtful {
		if isForeign(id) && !p.Has(id) {
			n++
		}
	}
	return n
}

// isForeign tells whether the catalog does not have a register.
func isForeign(id uint16) bool { return catalog.Lookup(id).Source == "" }

// find returns where a register stands, or belongs.
func (p Profile) find(id uint16) (int, bool) {
	return slices.BinarySearchFunc(p.Registers, id, func(e Entry, id uint16) int { return int(e.ID) - int(id) })
}

// entry describes a register as it was sent.
func entry(r kmp.Register) Entry {
	e := Entry{ID: r.ID, Name: catalog.Lookup(r.ID).Name, UnitCode: r.Unit, Width: len(r.Raw)}
	u, _ := catalog.LookupUnit(r.Unit)
	e.Unit = u.Symbol
	if d, err := r.Decimal(); err == nil {
		e.Exponent = d.Exponent()
	}
	return e
}

// contains tells whether an id stands in a sorted list.
func contains(ids []uint16, id uint16) bool {
	_, ok := slices.BinarySearch(ids, id)
	return ok
}

// with returns a sorted list with an id in its place.
func with(ids []uint16, id uint16) []uint16 {
	i, ok := slices.BinarySearch(ids, id)
	if ok {
		return ids
	}
	return slices.Insert(slices.Clone(ids), i, id)
}

// without returns a sorted list without an id.
func without(ids []uint16, id uint16) []uint16 {
	if i, ok := slices.BinarySearch(ids, id); ok {
		return slices.Delete(slices.Clone(ids), i, i+1)
	}
	return ids
}
