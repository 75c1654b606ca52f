package catalog

import (
	"cmp"
	"slices"
	"strings"
)

// Family is what a meter measures.
type Family string

// The families of meters.
const (
	Heat        Family = "heat" // heat and cooling
	Water       Family = "water"
	Electricity Family = "electricity"
)

// Families returns the families in the order in which they are usually written.
func Families() []Family { return []Family{Heat, Water, Electricity} }

// MaxCandidates bounds [Candidates]: a dozen requests of 8.
const MaxCandidates = 96

// detecting are the registers that tell the families apart, in one request: a heat
// meter has energy, power and supply temperature, a water meter of these only volume
// and flow, an electricity meter energy, power and the voltage of its first phase.
var detecting = [...]uint16{60, 68, 80, 86, 74, 1, 1023, 1054}

// Candidates returns the registers that a meter of the family may have, at most
// [MaxCandidates], the likeliest first: the usual ones of its models, then the others
// by the number of sources that know them. For a family that is not known ("") it is
// the one request that tells the families apart. The slice is the caller's own.
func Candidates(f Family) []uint16 {
	if ids, ok := load().candidates[f]; ok {
		return slices.Clone(ids)
	}
	return slices.Clone(detecting[:])
}

// FamilyModel returns the model whose usual registers stand in for a meter of which
// only the family is known. For a family that is not known it is that of heat, which
// most of these meters measure.
func FamilyModel(f Family) Model {
	name := "403"
	switch f {
	case Water:
		name = "62"
	case Electricity:
		name = "382"
	}
	m, _ := ModelByName(name)
	return m
}

// Has tells whether the sources list a register for any model of the family.
func (f Family) Has(id uint16) bool {
	return load().lists(f, Lookup(id))
}

// lists tells whether a register's models are, or belong to, the family.
func (t *tables) lists(f Family, r Register) bool {
	for name := range strings.SplitSeq(r.Models, "; ") {
		if i, ok := t.modelNames[name]; ok && t.models[i].Family == f || name == string(f) {
			return true
		}
	}
	return false
}

// fillCandidates works out what [Candidates] returns.
func (t *tables) fillCandidates() {
	for _, f := range Families() {
		var ids []uint16
		for _, m := range t.models {
			if m.Family == f {
				ids = append(ids, m.Registers...)
			}
		}
		usual := count(ids)
		var list []Register
		for _, r := range t.registers {
			if t.lists(f, r) || usual[r.ID] > 0 {
				list = append(list, r)
			}
		}
		slices.SortStableFunc(list, func(a, b Register) int {
			return cmp.Or(
				cmp.Compare(usual[b.ID], usual[a.ID]),
				cmp.Compare(strings.Count(b.Source, "; "), strings.Count(a.Source, "; ")),
				cmp.Compare(a.Kind.rank(), b.Kind.rank()),
			)
		})
		ids = ids[:0]
		for _, r := range list[:min(len(list), MaxCandidates)] {
			ids = append(ids, r.ID)
		}
		t.candidates[f] = ids
	}
}

// count tells how often each id stands in a list.
func count(ids []uint16) map[uint16]int {
	n := make(map[uint16]int, len(ids))
	for _, id := range ids {
		n[id]++
	}
	return n
}

// rank is 0 for what a meter measures, 1 for what it says about itself.
func (k Kind) rank() int {
	switch k {
	case ID, Config, LogField, Text, Unknown:
		return 1
	default:
		return 0
	}
}
