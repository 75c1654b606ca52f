package numbers

import (
	"fmt"
	"math/big"
	"slices"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

// fault is what makes other registers unknown, too.
type fault struct {
	registers []uint16
	reason    string
}

// checkGauge makes a value that cannot be true unknown. What the meter sends meanwhile
// for other registers is noted in r.faulty (technical descriptions of the MULTICAL 403,
// page 94, 603, page 107, and 803, page 121).
func (r *reading) checkGauge(i int) {
	v := r.values[i]
	d, ok := v.Value.(kmp.Decimal)
	if !ok || v.Register.Kind == catalog.Counter || v.Register.Kind == catalog.ResettableCounter {
		return
	}
	var x *big.Rat
	ranged := false // the narrowest range counts
	for _, b := range catalog.BoundsOf(r.model, v.Register.ID) {
		low, high := b.Limits(v.Unit, r.qp)
		if x == nil {
			x = rational(d)
		}
		inside := low != nil && high != nil && x.Cmp(low) >= 0 && x.Cmp(high) <= 0
		switch b.Rule {
		case catalog.Fault:
			if inside {
				r.fault(i, b.Reason, b.Unknown)
				return
			}
		case catalog.WithInfo:
			if slices.Contains(r.result.Info, b.Info) && (inside || b.Low == "") {
				r.fault(i, b.Reason+" (info: "+b.Info+")", b.Unknown)
				return
			}
		case catalog.Range:
			if !ranged && low != nil && !inside {
				r.fault(i, fmt.Sprintf("beyond %s to %s: %s", text(low), text(high), b.Reason), nil)
				_, before := r.Unknown[v.Key]
				r.result.Again = r.result.Again || !before
				return
			}
			ranged = ranged || low != nil
		}
	}
}

// text is a limit for people.
func text(x *big.Rat) string {
	if x.IsInt() {
		return x.Num().String()
	}
	return x.FloatString(2)
}

// fault notes that a value, and others with it, cannot be true.
func (r *reading) fault(i int, reason string, others []uint16) {
	r.doubts[i] = unknown
	r.result.Unknown[r.values[i].Key] = reason
	if len(others) > 0 {
		r.faulty = append(r.faulty, fault{others, reason})
	}
}

// applyUnknown makes what was found unknown nil, and tells when that begins and ends.
func (r *reading) applyUnknown() {
	for _, f := range r.faulty {
		for _, id := range f.registers {
			if i, ok := r.places[id]; ok && r.doubts[i] == trusted && r.values[i].Value != nil {
				r.doubts[i] = unknown
				r.result.Unknown[r.values[i].Key] = f.reason
			}
		}
	}
	for i := range r.values {
		v := &r.values[i]
		if v.Value == nil {
			continue // the meter sent none: nothing begins and nothing ends
		}
		if r.doubts[i] == unknown {
			r.unknownNow(*v, r.result.Unknown[v.Key])
			v.Value = nil
			continue
		}
		r.knownAgain(*v)
	}
}

// unknownNow tells of a value that is unknown from now on; its Value is what the meter
// sent.
func (r *reading) unknownNow(v Value, reason string) {
	before, ok := r.Unknown[v.Key]
	if before == reason || !isKey(v.Key) || !ok && len(r.Unknown) >= maxKeys {
		return
	}
	r.Unknown[v.Key] = reason
	if !ok {
		r.event(ValueUnknown, map[string]any{"register": v.Register.Name, "key": v.Key, "raw": v.Value, "reason": reason})
	}
}

// knownAgain tells of a value that was unknown until now.
func (r *reading) knownAgain(v Value) {
	reason, ok := r.Unknown[v.Key]
	if !ok {
		return
	}
	delete(r.Unknown, v.Key)
	r.event(ValueReleased, map[string]any{"register": v.Register.Name, "key": v.Key, "value": v.Value, "reason": "it is over: " + reason})
}
