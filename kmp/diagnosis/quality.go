package diagnosis

import "math/bits"

// window is how many exchanges a quality is made of.
const window = 20

// Quality is how good a line is: which of the last 20 exchanges brought a good frame.
// The zero value has seen none.
type Quality struct {
	last uint32 // newest in bit 0; 1 is good
	n    int    // how many, at most window
}

// Note adds an exchange.
func (q *Quality) Note(good bool) {
	q.last = q.last << 1 & (1<<window - 1)
	if good {
		q.last |= 1
	}
	q.n = min(q.n+1, window)
}

// Good is how many of the last exchanges, 20 at most, were good, and how many there were.
func (q Quality) Good() (good, of int) { return bits.OnesCount32(q.last), q.n }

// Percent is the share of good ones, rounded down; not ok before the first exchange.
func (q Quality) Percent() (percent int, ok bool) {
	if q.n == 0 {
		return 0, false
	}
	good, of := q.Good()
	return 100 * good / of, true
}
