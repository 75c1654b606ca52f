package numbers

import (
	"math"
	"slices"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

// The registers that hold info codes.
const (
	infoCode     = 99
	infoBits     = 369
	infoDuration = 409
	infoLog      = 458
	cutoffState  = 1087
)

var infoRegisters = []uint16{infoCode, infoBits, infoDuration, infoLog, cutoffState}

// readInfo puts the info codes into words and tells of those that changed.
func (r *reading) readInfo() {
	_, bits := r.infoValue(infoBits)
	for _, id := range infoRegisters {
		if _, ok := r.places[id]; ok {
			r.result.HasInfo = true
		}
		code, ok := r.infoValue(id)
		if !ok {
			continue
		}
		words := catalog.InfoText(r.title, id, code)
		if !(id == infoCode && bits) && !(id == cutoffState && fine(code)) {
			for _, word := range words {
				if !slices.Contains(r.result.Info, word) {
					r.result.Info = append(r.result.Info, word)
				}
			}
		}
		r.infoChange(id, code, words)
	}
}

// fine tells whether the state of an electricity meter's relay is nothing to report:
// there is none (0), or it is connected (4).
func fine(state uint64) bool { return state == 0 || state == 4 }

// infoChange tells of an info register that is not as it was, and remembers it.
func (r *reading) infoChange(id uint16, code uint64, words []string) {
	before, known := r.memory.Info[id]
	r.memory.Info[id] = code
	if !known || before == code {
		return
	}
	v := r.values[r.places[id]]
	old := catalog.InfoText(r.title, id, before)
	r.event(InfoCode, map[string]any{
		"register": v.Register.Name, "from": like(v.Value, before), "to": v.Value,
		"info": list(words), "began": without(words, old), "ended": without(old, words),
	})
}

// infoValue is the value of an info register.
func (r *reading) infoValue(id uint16) (uint64, bool) {
	i, ok := r.places[id]
	if !ok {
		return 0, false
	}
	switch v := r.values[i].Value.(type) {
	case kmp.Bits:
		return uint64(v), true
	case kmp.Decimal:
		n, ok := v.Int64()
		return uint64(max(0, n)), ok && n >= 0
	}
	return 0, false
}

// like is a code as a value of the same form as another.
func like(v kmp.Value, code uint64) kmp.Value {
	if _, ok := v.(kmp.Bits); ok || code > math.MaxInt64 {
		return kmp.Bits(code)
	}
	d, _ := kmp.NewDecimal(int64(code), 0) // 0 is a good exponent
	return d
}

// without are the words of one list that are not in another, never nil.
func without(words, other []string) []string {
	return slices.DeleteFunc(list(words), func(w string) bool { return slices.Contains(other, w) })
}

// list is a copy that is an empty list in JSON, not null.
func list(words []string) []string { return append([]string{}, words...) }
