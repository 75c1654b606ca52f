package numbers

import (
	"fmt"
	"math/big"
	"slices"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

// pair is a counter that comes twice: coarse and complete, and fine without its leading
// digits. Together they are one exact number.
type pair struct {
	name   string   // of the derived number
	coarse uint16   // register
	fine   []uint16 // registers, the best first
}

// pairs are all that heat and water meters have. The high-resolution registers of
// electricity meters (13, 14) are not known to lack digits: they are totals themselves.
var pairs = []pair{
	{"energy_fine", 60, []uint16{266, 155}},
	{"cooling_energy_fine", 63, []uint16{267}},
	{"volume_fine", 68, []uint16{239, 223}},
}

// moduli returns where a high-resolution register may wrap, in its own steps: at a
// power of ten or at the end of a binary number. Which it is no source tells; 10^7 fits
// the example in the technical description of the MULTICAL 403, page 127. The largest
// power of ten stands for a register that does not wrap.
func moduli() []int64 {
	return []int64{1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1 << 16, 1 << 24, 1 << 31, 1 << 32}
}

// fusion is what is remembered of a pair.
type fusion struct {
	Fine     string       `json:"fine"`     // key of the fine register
	Exponent int          `json:"exponent"` // of the fine register
	Coarse   string       `json:"coarse"`   // key of the coarse register
	Unit     kmp.Unit     `json:"unit"`     // of the fused number
	Moduli   []int64      `json:"moduli"`   // those that no reading has ruled out
	Learned  int64        `json:"learned,omitempty"`
	Lost     bool         `json:"lost,omitempty"`   // none fits; it was told
	Doubts   int          `json:"doubts,omitempty"` // readings in a row that rule out all
	Last     *kmp.Decimal `json:"last,omitempty"`   // the newest fused number
	Falls    int          `json:"falls,omitempty"`  // readings in a row after which it would fall
}

func (f fusion) sound() bool {
	all := moduli()
	for i, m := range f.Moduli {
		if !slices.Contains(all, m) || slices.Contains(f.Moduli[:i], m) {
			return false
		}
	}
	return isKey(f.Fine) && isKey(f.Coarse) && f.Exponent >= -12 && f.Exponent <= 12 &&
		(f.Unit == kmp.UnitGJ || f.Unit == kmp.UnitKWh || f.Unit == kmp.UnitCubicMetre) &&
		(f.Learned == 0 || slices.Contains(all, f.Learned)) &&
		f.Doubts >= 0 && f.Doubts < enough && f.Falls >= 0 && f.Falls <= enough && (f.Last == nil || soundNumber(*f.Last))
}

// fuse derives the exact counters.
func (r *reading) fuse() {
	for _, p := range pairs {
		r.fusePair(p)
	}
}

func (r *reading) fusePair(p pair) {
	coarse, hasCoarse := r.places[p.coarse]
	fine, hasFine := r.fineOf(p)
	if !hasCoarse && !hasFine {
		return // nothing can be said
	}
	if hasCoarse && hasFine {
		f, ok := newFusion(r.values[coarse], r.values[fine])
		if old, known := r.Fine[p.name]; ok && (!known || !old.same(f)) {
			r.Fine[p.name] = f
		}
	}
	f, ok := r.Fine[p.name]
	if !ok {
		return // the two were never seen together
	}
	var value kmp.Value
	var reason string
	switch {
	case !hasCoarse:
		reason = catalog.Lookup(p.coarse).Name + " was not read"
	case !hasFine:
		reason = "the high-resolution register was not read"
	case r.doubts[coarse] == held:
		reason = r.values[coarse].Register.Name + " is " + r.result.Unknown[r.values[coarse].Key]
		if r.beside(f, coarse, fine) {
			value = *f.Last
		}
	default:
		value, reason = r.observe(p, &f, coarse, fine)
	}
	r.Fine[p.name] = f
	r.derive(p.name, f.Unit, value, reason)
}

// fineOf finds the fine register of a pair among the values.
func (r *reading) fineOf(p pair) (place int, ok bool) {
	for _, id := range p.fine {
		if i, ok := r.places[id]; ok && r.values[i].Register.Kind == catalog.TruncatedCounter {
			return i, true
		}
	}
	return 0, false
}

// newFusion begins with two registers; false when what they count cannot be told
// exactly in one unit.
func newFusion(coarse, fine Value) (fusion, bool) {
	d, ok := fine.Value.(kmp.Decimal)
	if !ok || !isKey(coarse.Key) || !isKey(fine.Key) || d.Exponent() < -12 || d.Exponent() > 12 {
		return fusion{}, false
	}
	f := fusion{Fine: fine.Key, Exponent: d.Exponent(), Coarse: coarse.Key, Moduli: moduli()}
	switch _, ok := catalog.Convert(coarse.Unit, fine.Unit); {
	case !ok:
		return fusion{}, false
	case coarse.Unit >= kmp.UnitWh && coarse.Unit <= 0x04 && fine.Unit >= kmp.UnitWh && fine.Unit <= 0x04: // Wh to GWh
		f.Unit = kmp.UnitKWh
	case coarse.Unit >= 0x05 && coarse.Unit <= kmp.UnitGJ, coarse.Unit == 0x39: // J to GJ, and GJ × 10
		f.Unit = kmp.UnitGJ
	case coarse.Unit == kmp.UnitLitre, coarse.Unit == kmp.UnitCubicMetre, coarse.Unit == 0x37: // and m³ × 10
		f.Unit = kmp.UnitCubicMetre
	default:
		return fusion{}, false // 1 GJ is no finite number of kWh, and calories differ
	}
	return f, true
}

func (f fusion) same(o fusion) bool {
	return f.Fine == o.Fine && f.Exponent == o.Exponent && f.Coarse == o.Coarse && f.Unit == o.Unit
}

// observation is one pair of readings in steps of the fine register.
type observation struct {
	fine         int64
	coarse, step *big.Rat // of the coarse register
	near, far    window   // the totals within one and two coarse steps
}

// window is a range of whole numbers.
type window struct{ low, high int64 }

// newObservation compares two values; false when one of them is no number that counts.
func newObservation(coarse, fine Value, exponent int) (observation, bool) {
	c, ok := coarse.Value.(kmp.Decimal)
	d, ok2 := fine.Value.(kmp.Decimal)
	if !ok || !ok2 || !soundNumber(c) || d.Exponent() != exponent {
		return observation{}, false
	}
	factor, ok := catalog.Convert(coarse.Unit, fine.Unit)
	shifted, err := d.Shift(-exponent)
	if !ok || err != nil {
		return observation{}, false
	}
	factor.Quo(factor, step(exponent))
	o := observation{coarse: rational(c), step: step(c.Exponent())}
	o.coarse.Mul(o.coarse, factor)
	o.step.Mul(o.step, factor)
	o.fine, ok = shifted.Int64()
	var ok3 bool
	o.near, ok2 = around(o.coarse, o.step)
	o.far, ok3 = around(o.coarse, new(big.Rat).Add(o.step, o.step))
	return o, ok && ok2 && ok3 && o.fine >= 0
}

// around are the whole numbers that are no farther from x than margin; false beyond
// what is reckoned with.
func around(x, margin *big.Rat) (window, bool) {
	high, ok := floor(new(big.Rat).Add(x, margin))
	low, ok2 := floor(new(big.Rat).Sub(margin, x))
	return window{-low, high}, ok && ok2
}

// floor is the largest integer that is not more than x; false beyond 2^61.
func floor(x *big.Rat) (int64, bool) {
	n := new(big.Int).Div(x.Num(), x.Denom()) // the denominator is positive: this is the floor
	return n.Int64(), n.IsInt64() && n.BitLen() < 62
}

// total is the number of fine steps within a window that a modulus makes of the fine
// value.
func (o observation) total(modulus int64, w window) (int64, bool) {
	k := max(0, (w.low-o.fine+modulus-1)/modulus)
	total := k*modulus + o.fine
	return total, o.fine < modulus && total >= w.low && total <= w.high
}

// fitting are the moduli that an observation does not rule out. A coarse value is
// truncated, so it is up to one step off; another one is for registers that were read
// one after the other. A modulus of four coarse steps or less would be of no use.
func (o observation) fitting(moduli []int64) []int64 {
	least, _ := floor(new(big.Rat).Mul(o.step, big.NewRat(4, 1)))
	var fit []int64
	for _, m := range moduli {
		if m <= least {
			continue
		}
		if _, ok := o.total(m, o.far); ok {
			fit = append(fit, m)
		}
	}
	return fit
}

// observe learns from two values and returns the fused number, or nil and why not.
func (r *reading) observe(p pair, f *fusion, coarse, fine int) (kmp.Value, string) {
	c, d := r.values[coarse], r.values[fine]
	o, ok := newObservation(c, d, f.Exponent)
	if !ok || c.Key != f.Coarse || d.Key != f.Fine {
		return nil, c.Register.Name + " or " + d.Register.Name + " is not known"
	}
	if r.doubts[coarse] == released {
		f.Last, f.Doubts = nil, enough // it starts anew from here; if the two disagree, so does the learning
	}
	possible := f.Moduli
	if len(possible) == 0 {
		possible = moduli() // none fitted before: any may now
	}
	fit := o.fitting(possible)
	if len(fit) == 0 {
		if f.Doubts++; f.Doubts < enough {
			r.result.Again = r.result.Again || !f.Lost
			return nil, "it does not fit " + c.Register.Name
		}
		fit = r.learnAgain(p, f, o)
	}
	f.Doubts = 0
	f.Moduli = fit
	if len(fit) == 0 {
		return nil, "no modulus fits " + d.Register.Name + " to " + c.Register.Name
	}
	total, _ := o.total(fit[0], o.far)
	for _, m := range fit[1:] {
		if other, _ := o.total(m, o.far); other != total {
			return nil, fmt.Sprintf("it is not certain yet where %s wraps", d.Register.Name)
		}
	}
	value, ok := fused(total, f, d.Unit)
	if !ok {
		return nil, "it is larger than a counter can be"
	}
	if _, near := o.total(fit[0], o.near); !near {
		return nil, "the registers were read too far apart"
	}
	if f.Last != nil && value.Cmp(*f.Last) < 0 {
		return r.noFall(f, o, d.Unit)
	}
	f.Last, f.Falls = &value, 0
	if f.Lost {
		f.Lost = false
		r.event(ValueReleased, map[string]any{"register": p.name, "key": catalog.Key(p.name, f.Unit), "value": value, "reason": "a modulus fits again"})
	}
	r.tellModulus(f, d)
	return value, ""
}

// beside tells whether the last fused number is within a step of the coarse counter as it is
// published: the two must never contradict each other, also when one of them was wrong.
func (r *reading) beside(f fusion, coarse, fine int) bool {
	o, ok := newObservation(r.values[coarse], r.values[fine], f.Exponent)
	if !ok || f.Last == nil {
		return false
	}
	distance := f.steps(r.values[fine].Unit)
	distance.Sub(distance, o.coarse)
	return distance.Abs(distance).Cmp(o.step) <= 0
}

// steps is the last fused number in steps of the fine register.
func (f fusion) steps(fine kmp.Unit) *big.Rat {
	last := rational(*f.Last)
	factor, _ := catalog.Convert(f.Unit, fine) // it was converted the other way
	return last.Mul(last, factor.Quo(factor, step(f.Exponent)))
}

// noFall is for a fused number that would fall though its coarse counter does not: the
// last one stays as long as it is within a coarse step. A second reading soon tells
// whether the fine register was wrong this time; when it was wrong before, the meter has
// to catch up, and to ask it more often would only cost its battery.
func (r *reading) noFall(f *fusion, o observation, fine kmp.Unit) (kmp.Value, string) {
	last := f.steps(fine)
	f.Falls = min(f.Falls+1, enough)
	r.result.Again = r.result.Again || f.Falls < enough
	if last.Sub(last, o.coarse).Cmp(o.step) > 0 {
		return nil, "it would fall"
	}
	return *f.Last, "held: the high-resolution register fell"
}

// learnAgain starts over after readings that ruled out every modulus.
func (r *reading) learnAgain(p pair, f *fusion, o observation) []int64 {
	f.Last, f.Learned = nil, 0
	fit := o.fitting(moduli())
	if !f.Lost {
		f.Lost = true
		r.event(ValueUnknown, map[string]any{
			"register": p.name, "key": catalog.Key(p.name, f.Unit), "raw": nil,
			"reason": "its two registers do not fit each other; where the fine one wraps is learned again",
		})
	}
	return fit
}

// tellModulus tells once where the fine register wraps.
func (r *reading) tellModulus(f *fusion, fine Value) {
	if len(f.Moduli) != 1 || f.Learned == f.Moduli[0] {
		return
	}
	f.Learned = f.Moduli[0]
	modulus, ok := rounded(new(big.Rat).Mul(new(big.Rat).SetInt64(f.Learned), step(f.Exponent)), f.Exponent)
	if !ok {
		return
	}
	unit, _ := catalog.LookupUnit(fine.Unit)
	r.event(FineLearned, map[string]any{"register": fine.Register.Name, "modulus": modulus, "unit": unit.Symbol})
}

// fused is a number of fine steps in the unit of the fused number, exactly.
func fused(total int64, f *fusion, fine kmp.Unit) (kmp.Decimal, bool) {
	factor, ok := catalog.Convert(fine, f.Unit)
	if !ok {
		return kmp.Decimal{}, false
	}
	factor.Mul(factor, step(f.Exponent))
	digits, ten := 0, big.NewRat(10, 1)
	for x := new(big.Rat).Set(factor); !x.IsInt(); digits++ {
		if digits > 24 {
			return kmp.Decimal{}, false // not a finite decimal
		}
		x.Mul(x, ten)
	}
	return rounded(factor.Mul(factor, new(big.Rat).SetInt64(total)), -digits)
}

// contradiction says why a counter cannot be right beside its high-resolution register,
// once the two were found to fit; empty when nothing speaks against it.
func (r *reading) contradiction(id uint16) string {
	for _, p := range pairs {
		f, known := r.Fine[p.name]
		if p.coarse != id || !known || f.Last == nil {
			continue
		}
		fine, ok := r.fineOf(p)
		if !ok {
			continue
		}
		c, d := r.values[r.places[id]], r.values[fine]
		o, ok := newObservation(c, d, f.Exponent)
		if !ok || c.Key != f.Coarse || d.Key != f.Fine {
			continue
		}
		o.far.high += r.meanwhile(c, o)
		if len(o.fitting(f.Moduli)) == 0 {
			return "it does not fit " + d.Register.Name
		}
	}
	return ""
}

// meanwhile is how many fine steps a meter can count between its coarse and its fine
// register: on a bad line they come in two answers, up to a minute apart, the coarse one
// first. More than ten of its steps would leave too little to compare, and are more than
// a house uses meanwhile.
func (r *reading) meanwhile(coarse Value, o observation) int64 {
	most := new(big.Rat).Mul(o.step, big.NewRat(10, 1))
	bound, ok := catalog.RateOf(r.model, coarse.Register.ID, coarse.Unit)
	d, isNumber := coarse.Value.(kmp.Decimal)
	if !ok || !isNumber {
		return 0
	}
	if _, rate := bound.Limits(coarse.Unit, r.nominal()); rate != nil {
		minute := new(big.Rat).Quo(rate, new(big.Rat).Mul(step(d.Exponent()), big.NewRat(60, 1)))
		if minute.Mul(minute, o.step).Cmp(most) < 0 {
			most = minute
		}
	}
	n, _ := floor(most)
	return n
}
