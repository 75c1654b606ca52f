package bridge

import (
	"errors"
	"slices"
	"sync"
	"time"
)

// outcome is how a wish ended.
type outcome struct {
	values      []byte   // JSON object; nil with an error
	unsupported []uint16 // asked for and not there
	err         error
}

// task is the kind of a wish.
type task byte

const (
	readUsual   task = iota // what the schedule reads, now
	readChosen              // some registers, for the one who asks
	setInterval             // another interval
	takeCensus              // which registers does the meter have?
	acceptHeld              // let held values through
	alignHead               // read again and again while somebody moves the head
)

// wish is what somebody wants of a poller.
type wish struct {
	task      task
	meter     int           // in the poller's meters
	registers []uint16      // of readChosen
	interval  time.Duration // of setInterval
	keys      []string      // of acceptHeld; empty: all
	align     *alignment    // of alignHead
	done      func(outcome) // called once, by the poller; must not block
}

// maxWishes bounds what may wait for one line.
const maxWishes = 64

// errBusy says that too much waits for a line already.
var errBusy = errors.New("bridge: too many requests wait for this line; try again later")

// wishes is the only way into a poller: a short list that commands write and the
// poller reads.
type wishes struct {
	mu      sync.Mutex
	list    []wish
	reading int           // the meter that is being read in the usual way, else -1
	visited int           // the meter that is being visited for another wish, else -1
	signal  chan struct{} // holds a token when the list may have grown
}

func newWishes() *wishes { return &wishes{reading: -1, visited: -1, signal: make(chan struct{}, 1)} }

// post adds a wish. A usual reading joins the one that runs or waits; for everything else
// allow decides, which is asked only then, is told how many wait, and whose error is returned.
func (w *wishes) post(one wish, allow func(waiting int) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.list) >= maxWishes {
		return errBusy
	}
	if one.task != readUsual || !w.joins(one.meter) {
		if err := allow(w.waiting(one.meter)); err != nil {
			return err
		}
	}
	w.list = append(w.list, one)
	select {
	case w.signal <- struct{}{}:
	default:
	}
	return nil
}

func (w *wishes) joins(meter int) bool {
	return w.reading == meter ||
		slices.ContainsFunc(w.list, func(x wish) bool { return x.task == readUsual && x.meter == meter })
}

// waiting counts the visits to a meter that are wanted and not yet over.
func (w *wishes) waiting(meter int) int {
	n := 0
	if w.joins(meter) {
		n++ // however many join it
	}
	if w.visited == meter {
		n++
	}
	for _, x := range w.list {
		if x.meter == meter && x.visits() {
			n++
		}
	}
	return n
}

// wanted reports whether a usual reading of the meter waits.
func (w *wishes) wanted(meter int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.list, func(x wish) bool { return x.task == readUsual && x.meter == meter })
}

// any reports whether somebody wants something.
func (w *wishes) any() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.list) > 0
}

// visits reports whether a wish is a visit of its own to the meter.
func (w wish) visits() bool {
	return w.task == readChosen || w.task == takeCensus || w.task == alignHead
}

// pop takes the oldest wish that is not a usual reading. Until it is done it counts as
// waiting.
func (w *wishes) pop() (wish, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.list, func(x wish) bool { return x.task != readUsual })
	if i < 0 {
		return wish{}, false
	}
	one := w.list[i]
	w.list = slices.Delete(w.list, i, i+1)
	if one.visits() {
		w.visited = one.meter
		done := one.done
		one.done = func(o outcome) {
			w.mu.Lock()
			w.visited = -1
			w.mu.Unlock()
			done(o)
		}
	}
	return one, true
}

// begin starts a usual reading: from here to finish wishes for the same join it.
func (w *wishes) begin(meter int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reading = meter
}

// finish ends a usual reading and takes all who waited for it.
func (w *wishes) finish(meter int) []wish {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reading = -1
	var waited []wish
	w.list = slices.DeleteFunc(w.list, func(x wish) bool {
		if x.task == readUsual && x.meter == meter {
			waited = append(waited, x)
			return true
		}
		return false
	})
	return waited
}

// end answers everybody who still waits. What is posted later gets no answer: the bridge
// is gone by then.
func (w *wishes) end() {
	w.mu.Lock()
	left := w.list
	w.list = nil
	w.mu.Unlock()
	for _, one := range left {
		one.done(outcome{err: errStopped})
	}
}
