package numbers

import (
	"fmt"
	"math/big"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

// enough is how many readings in a row are believed against what was known before.
const enough = 3

// counter is what is remembered of a counter.
type counter struct {
	Value   kmp.Decimal `json:"value"`         // the last one that was trusted
	At      int64       `json:"at"`            // when, in seconds since 1970
	Gap     int64       `json:"gap,omitempty"` // seconds since the one before
	Suspect *suspect    `json:"suspect,omitempty"`
}

// suspect is the newest of the values that do not follow from the trusted one, but from
// each other.
type suspect struct {
	Value    kmp.Decimal `json:"value"`
	At       int64       `json:"at"`
	Count    int         `json:"count"` // readings, 1 to enough-1
	Accepted bool        `json:"accepted,omitempty"`
}

func (c counter) sound() bool {
	ok := soundNumber(c.Value) && soundTime(c.At) && soundTime(c.Gap)
	if s := c.Suspect; s != nil {
		ok = ok && soundNumber(s.Value) && soundTime(s.At) && s.Count >= 1 && s.Count < enough
	}
	return ok
}

// checkCounter compares a counter with what was trusted last. A counter that falls, or
// rises faster than the meter can count, is held: one bad number would spoil a year of
// statistics.
func (r *reading) checkCounter(i int) {
	v := r.values[i]
	d, ok := v.Value.(kmp.Decimal)
	if !ok || v.Register.Kind != catalog.Counter && v.Register.Kind != catalog.ResettableCounter || r.mayFall(v) {
		return
	}
	if !soundNumber(d) || !isKey(v.Key) {
		return // longer than any counter: there is nothing to compare
	}
	c, ok := r.Counters[v.Key]
	if !ok { // a new counter, or one that came with another unit: there is nothing to compare
		r.makeRoom()
		r.Counters[v.Key] = counter{Value: d, At: r.now}
		return
	}
	elapsed := r.elapsed(c.At, c.Gap)
	reason := r.jump(v, d, c.Value, elapsed)
	if reason == "" && d.Cmp(c.Value) != 0 {
		reason = r.contradiction(v.Register.ID)
	}
	if reason == "" {
		r.Counters[v.Key] = counter{Value: d, At: r.now, Gap: elapsed}
		return
	}
	s := suspect{Value: d, At: r.now, Count: 1}
	if before := c.Suspect; before != nil && r.jump(v, d, before.Value, r.elapsed(before.At, c.Gap)) == "" {
		s.Count, s.Accepted = before.Count+1, before.Accepted
	}
	if s.Count >= enough || s.Accepted {
		r.Counters[v.Key] = counter{Value: d, At: r.now, Gap: c.Gap}
		r.doubts[i] = released
		how := fmt.Sprintf("%d readings in a row agree", enough)
		if s.Accepted {
			how = "it was accepted"
		}
		r.event(ValueReleased, map[string]any{"register": v.Register.Name, "key": v.Key, "value": d, "before": c.Value, "reason": how})
		return
	}
	c.Suspect = &s
	r.Counters[v.Key] = c
	r.values[i].Value = c.Value
	r.doubts[i] = held
	r.result.Again = true
	r.result.Unknown[v.Key] = "held: " + reason
	r.event(ValueHeld, map[string]any{
		"register": v.Register.Name, "key": v.Key, "held": d, "kept": c.Value, "reason": reason, "count": s.Count,
		"released_by": more(enough-s.Count) + " to confirm it, or a request on bridge/request/accept",
	})
}

// mayFall tells whether a register only looks like a counter.
func (r *reading) mayFall(v Value) bool {
	for _, b := range catalog.BoundsOf(r.model, v.Register.ID) {
		if b.Rule == catalog.Falls {
			return true
		}
	}
	return false
}

// elapsed is the time in seconds since a moment, by the wall clock, which goes on while
// the program does not. A clock that was set back does not tell: then the gap before
// stands in.
func (r *reading) elapsed(since, gap int64) int64 {
	if r.now < since {
		return gap
	}
	return r.now - since
}

// jump says why a counter cannot have come from one value to another in so many
// seconds; empty when it can. A counter that may be reset may fall to what it can have
// counted since.
func (r *reading) jump(v Value, now, before kmp.Decimal, elapsed int64) string {
	order := now.Cmp(before)
	if order == 0 {
		return ""
	}
	resettable := v.Register.Kind == catalog.ResettableCounter
	if order < 0 && !resettable {
		return "a counter does not fall"
	}
	bound, ok := catalog.RateOf(r.model, v.Register.ID, v.Unit)
	var rate *big.Rat
	if ok {
		_, rate = bound.Limits(v.Unit, r.qp)
	}
	rise := rational(now)
	if order > 0 {
		rise.Sub(rise, rational(before))
	}
	if rate == nil {
		rate = new(big.Rat)
		if order > 0 {
			return "" // nothing is known of how fast it may be
		}
	}
	// Two steps of its last digit and a minute are for what is truncated and for clocks.
	most := new(big.Rat).Mul(rate, big.NewRat(elapsed+60, 3600))
	last := step(max(now.Exponent(), before.Exponent()))
	most.Add(most, last.Mul(last, big.NewRat(2, 1)))
	switch {
	case rise.Cmp(most) <= 0 && (order > 0 || rise.Sign() >= 0):
		return ""
	case order < 0:
		return "it falls, but not to what it can have counted since"
	default:
		return "it rises faster than the meter can count: " + bound.Reason
	}
}

// makeRoom forgets the counter that was not seen for the longest time when there are
// too many.
func (r *reading) makeRoom() {
	if len(r.Counters) < maxKeys {
		return
	}
	oldest := ""
	for key, c := range r.Counters {
		if o := r.Counters[oldest]; oldest == "" || c.At < o.At || c.At == o.At && key < oldest {
			oldest = key
		}
	}
	delete(r.Counters, oldest)
}

// nominalFlow is the register of the nominal flow of V1.
const nominalFlow = 259

// noteNominal remembers the nominal flow of V1.
func (r *reading) noteNominal() {
	x, ok := r.in(nominalFlow, kmp.UnitCubicMPerH)
	if !ok || x.Cmp(big.NewRat(3, 10)) < 0 || x.Cmp(big.NewRat(30_000, 1)) > 0 {
		return // no flow sensor is so small or so large
	}
	d, ok := rounded(x, -3)
	if !ok {
		return
	}
	r.Nominal = append(r.Nominal, d)
	if len(r.Nominal) > 2 {
		r.Nominal = r.Nominal[len(r.Nominal)-2:]
	}
}

// nominal is the nominal flow in m³/h once two readings in a row agreed on it, else nil:
// a wrong one would hold everything.
func (r *reading) nominal() *big.Rat {
	if len(r.Nominal) < 2 || r.Nominal[0].Cmp(r.Nominal[1]) != 0 {
		return nil
	}
	return rational(r.Nominal[0])
}

// more counts readings that are still to come.
func more(n int) string {
	if n == 1 {
		return "one more reading"
	}
	return fmt.Sprintf("%d more readings", n)
}
