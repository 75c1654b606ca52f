package statistics

import (
	"cmp"
	"math/big"
	"slices"
)

// row is the row of one hour in Home Assistant's statistics.
type row struct {
	hour  int64    // since 1970, of its start
	state *big.Rat // what the counter showed at its end; nil: not known
	sum   *big.Rat // how far it has grown since some beginning; nil: not known
}

// anchor says whether other rows can be joined to it.
func (r row) anchor() bool { return r.state != nil && r.sum != nil }

// sample is a value that may become the row of an hour.
type sample struct {
	hour  int64
	value *big.Rat
}

// refusal is why a sample cannot become a row.
type refusal string

// The reasons for which hours are not imported.
const (
	refusedNeighbour refusal = "the meter's values do not lie between those that Home Assistant has before and after them"
	refusedFall      refusal = "the counter fell within the gap"
	refusedReset     refusal = "Home Assistant's sum does not follow its own states over this gap: it began to count anew, or somebody changed it"
	refusedTime      refusal = "the values are not of full hours, or there is another one of the same hour"
)

// refused counts samples by reason.
type refused map[refusal]int

// join returns the rows that are missing: those for samples whose hour has none. Rows and samples are in order and one
// for each hour. Among the rows are those nearest to the samples on both sides, if there are any.
//
// A row is joined to the nearest one before it: sum = sumA + (v - vA). Without one before, it is joined to the first
// one after it, which makes sums below that one's: sum = sumB - (vB - v). Without any, the first sample has sum 0. What
// contradicts the rows around it is refused: where those on both sides disagree between themselves, nothing fits.
//
// Differences up to slack are none, because Home Assistant counts in binary fractions and a log may have fewer digits
// than a sensor. Sums never fall for it.
func join(rows []row, samples []sample, slack *big.Rat) (missing []row, no refused) {
	no = refused{}
	for len(samples) > 0 {
		i, taken := slices.BinarySearchFunc(rows, samples[0].hour, func(r row, hour int64) int { return cmp.Compare(r.hour, hour) })
		if taken {
			samples = samples[1:]
			continue
		}
		n := len(samples) // of the samples in this gap
		if i < len(rows) {
			n, _ = slices.BinarySearchFunc(samples, rows[i].hour, func(s sample, hour int64) int { return cmp.Compare(s.hour, hour) })
		}
		g := newGap(rows[:i], rows[i:])
		missing = append(missing, g.fill(samples[:n], slack, no)...)
		samples = samples[n:]
	}
	return missing, no
}

// gap is hours without rows, and the nearest rows that say something: at least one, but in statistics that are empty.
type gap struct{ before, after *row }

func newGap(before, after []row) (g gap) {
	for i := range slices.Backward(before) {
		if before[i].anchor() {
			g.before = &before[i]
			break
		}
	}
	if i := slices.IndexFunc(after, row.anchor); i >= 0 {
		g.after = &after[i]
	}
	return g
}

// fill returns the rows of the samples that fit into the gap.
func (g gap) fill(samples []sample, slack *big.Rat, no refused) (rows []row) {
	if g.before != nil && g.after != nil && !g.sound(slack) {
		no[refusedReset] += len(samples)
		return nil
	}
	var low, high, last *big.Rat
	if g.before != nil {
		low = g.before.state
	}
	if g.after != nil {
		high = g.after.state
	}
	if low == nil && high == nil {
		g.before = &row{state: samples[0].value, sum: new(big.Rat)}
	}
	for _, s := range samples {
		v := s.value
		switch {
		case low != nil && below(v, low, slack), high != nil && below(high, v, slack):
			no[refusedNeighbour]++
			continue
		case last != nil && below(v, last, slack):
			no[refusedFall]++
			continue
		}
		v = least(most(most(v, low), last), high)
		last = v
		rows = append(rows, row{hour: s.hour, state: s.value, sum: g.sum(v)})
	}
	return rows
}

// sound says whether the sums on both sides differ as the states do, and the counter did not fall.
func (g gap) sound(slack *big.Rat) bool {
	states := new(big.Rat).Sub(g.after.state, g.before.state)
	sums := new(big.Rat).Sub(g.after.sum, g.before.sum)
	return !below(g.after.state, g.before.state, slack) && states.Sub(states, sums).Abs(states).Cmp(slack) <= 0
}

// sum is the sum at which the counter shows v.
func (g gap) sum(v *big.Rat) *big.Rat {
	by := cmp.Or(g.before, g.after)
	grown := new(big.Rat).Sub(v, by.state)
	sum := grown.Add(grown, by.sum)
	if g.before != nil && g.after != nil {
		return least(sum, g.after.sum)
	}
	return sum
}

// below says whether a is less than b by more than slack.
func below(a, b, slack *big.Rat) bool {
	return new(big.Rat).Add(a, slack).Cmp(b) < 0
}

// most is the greater one; b may be nil.
func most(a, b *big.Rat) *big.Rat {
	if b != nil && b.Cmp(a) > 0 {
		return b
	}
	return a
}

// least is the lesser one; b may be nil.
func least(a, b *big.Rat) *big.Rat {
	if b != nil && b.Cmp(a) < 0 {
		return b
	}
	return a
}
