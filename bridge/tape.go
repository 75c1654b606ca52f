package bridge

import (
	"slices"
	"sync"
	"time"

	"kmp2mqtt/bridge/web"
	"kmp2mqtt/kmp"
)

// A tape keeps the newest frames of a line, and the newest answer to each request that tells who
// the meter is or what its registers hold.
const (
	tapeFrames = 50       // as many as anybody looks at
	tapeBytes  = 64 << 10 // of them in all
	tapeKinds  = 32       // different requests that are kept beside them
	tapeLong   = 2 << 10  // an exchange that is longer is not kept beside them
)

// tape is what was said on a line last. Its poller writes it, anybody may read.
type tape struct {
	mu     sync.Mutex
	frames []web.Frame            // newest last
	bytes  int                    // of frames
	asked  web.Frame              // the request that has no answer yet
	kinds  map[string][]web.Frame // by request: it, and its newest answer
}

// note takes a frame.
func (t *tape) note(at time.Time, dir kmp.Direction, wire []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := web.Frame{Time: at, Direction: dir, Wire: slices.Clone(wire)}
	t.frames, t.bytes = append(t.frames, f), t.bytes+len(f.Wire)
	drop := max(0, len(t.frames)-tapeFrames)
	for i := range t.frames {
		if i >= drop && t.bytes <= tapeBytes {
			break
		}
		t.bytes -= len(t.frames[i].Wire)
		drop = i + 1
	}
	t.frames = slices.Delete(t.frames, 0, drop)

	if dir == kmp.ToMeter {
		t.asked = f
		return
	}
	request := string(t.asked.Wire)
	if !keeps(request) || len(f.Wire) == 0 || len(request)+len(f.Wire) > tapeLong {
		return // that a meter was silent is no answer to keep
	}
	if _, there := t.kinds[request]; !there && len(t.kinds) >= tapeKinds {
		oldest := ""
		for kind, exchange := range t.kinds {
			if oldest == "" || exchange[0].Time.Before(t.kinds[oldest][0].Time) {
				oldest = kind
			}
		}
		delete(t.kinds, oldest)
	}
	if t.kinds == nil {
		t.kinds = make(map[string][]web.Frame)
	}
	t.kinds[request] = []web.Frame{t.asked, f}
}

// keeps says whether a request is of a kind whose answers are kept: who the meter is, and its
// registers. Each page of a log is another request.
func keeps(request string) bool {
	const command = 2 // behind the start byte and the address
	if len(request) <= command {
		return false
	}
	switch kmp.Command(request[command]) {
	case kmp.CmdGetType, kmp.CmdGetSerialNo, kmp.CmdGetRegister:
		return true
	}
	return false
}

// newest are the newest frames, oldest first.
func (t *tape) newest() []web.Frame {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.frames)
}

// all are the newest frames, and before them the newest answer to each other request.
func (t *tape) all() []web.Frame {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := time.Now()
	if len(t.frames) > 0 {
		first = t.frames[0].Time
	}
	var older [][]web.Frame
	for _, exchange := range t.kinds {
		if exchange[0].Time.Before(first) {
			older = append(older, exchange)
		}
	}
	slices.SortFunc(older, func(a, b []web.Frame) int { return a[0].Time.Compare(b[0].Time) })
	frames := slices.Concat(older...)
	newest := t.frames
	if len(frames) > 0 && len(newest) > 0 && newest[0].Direction == kmp.FromMeter {
		newest = newest[1:] // the answer of an exchange that stands there already
	}
	return append(frames, newest...)
}
