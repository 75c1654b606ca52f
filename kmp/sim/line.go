package sim

import (
	"context"
	"io"
	"os"
	"sync"
	"time"

	"kmp2mqtt/kmp"
)

// buffered is how many bytes wait on an in-process line for their reader. What comes
// on top is lost, as in a serial port that nobody reads.
const buffered = 64 << 10

// Line returns the client's end of a line inside this process, at whose other end
// the meter is served until ctx ends or the line is closed. Unlike net.Pipe the line
// has a buffer: neither side ever waits for the other to read. When ctx ends the
// client reads io.EOF.
func (m *Meter) Line(ctx context.Context) kmp.Line {
	in, out := newWire(), newWire()
	go func() { _ = m.Serve(ctx, &end{in: out, out: in}) }() // its errors are those of the line, and this one has none
	return &end{in: in, out: out}
}

// end is one end of a line: it reads one wire and writes to the other.
type end struct{ in, out *wire }

// Read waits for bytes, the deadline (os.ErrDeadlineExceeded), the other side's
// Close (io.EOF) or this one's (os.ErrClosed).
func (e *end) Read(p []byte) (int, error) { return e.in.read(p) }

// Write never waits.
func (e *end) Write(p []byte) (int, error) { return e.out.write(p) }

// Close ends the line for both sides; what has been written can still be read.
func (e *end) Close() error {
	e.in.set(&e.in.unread)
	e.out.set(&e.out.ended)
	return nil
}

// SetReadDeadline sets when Read gives up, one that waits already included; the zero
// Time is never.
func (e *end) SetReadDeadline(t time.Time) error {
	e.in.mu.Lock()
	defer e.in.mu.Unlock()
	if e.in.unread {
		return os.ErrClosed
	}
	e.in.deadline = t
	e.in.changed()
	return nil
}

// wire carries bytes in one direction.
type wire struct {
	mu       sync.Mutex
	news     chan struct{} // closed at the next change
	bytes    []byte
	deadline time.Time
	unread   bool // its reader has closed the line
	ended    bool // its writer has
}

func newWire() *wire { return &wire{news: make(chan struct{})} }

// changed wakes whoever waits. mu is held.
func (w *wire) changed() {
	close(w.news)
	w.news = make(chan struct{})
}

// set sets one of the wire's flags.
func (w *wire) set(flag *bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*flag = true
	w.changed()
}

func (w *wire) write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.ended:
		return 0, os.ErrClosed
	case w.unread:
		return 0, io.ErrClosedPipe
	}
	w.bytes = append(w.bytes, p[:min(len(p), buffered-len(w.bytes))]...)
	w.changed()
	return len(p), nil
}

func (w *wire) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, news, deadline, err := w.take(p)
		if n > 0 || err != nil {
			return n, err
		}
		if deadline.IsZero() {
			<-news
			continue
		}
		timer := time.NewTimer(time.Until(deadline))
		select {
		case <-news:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// take reads what is there; without error and bytes, the caller waits for news or
// the deadline.
func (w *wire) take(p []byte) (n int, news <-chan struct{}, deadline time.Time, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.unread:
		return 0, nil, deadline, os.ErrClosed
	case !w.deadline.IsZero() && !time.Now().Before(w.deadline):
		return 0, nil, deadline, os.ErrDeadlineExceeded
	case len(w.bytes) > 0:
		n = copy(p, w.bytes)
		w.bytes = append(w.bytes[:0], w.bytes[n:]...)
		return n, nil, deadline, nil
	case w.ended:
		return 0, nil, deadline, io.EOF
	}
	return 0, w.news, w.deadline, nil
}
