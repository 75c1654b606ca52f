package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"kmp2mqtt/kmp"
)

const (
	// maxGap is the longest gap inside a request (5512-447 section 2.1).
	maxGap = 27 * time.Millisecond
	// byteGap lies between the bytes of an answer that is handed over in single
	// bytes without being paced.
	byteGap = time.Millisecond
	// strayEvery is how often a stray byte may come while nothing happens.
	strayEvery = time.Second
	// writeTimeout is how long a client may leave an answer unread. After that the
	// rest of it is lost, as on any line at whose end nobody listens.
	writeTimeout = time.Second
	// maxNoise is the most random bytes before or behind an answer.
	maxNoise = 8
	// maxClients is how many clients of a listener are served at once.
	maxClients = 64
)

// Serve answers the requests that arrive on rw until ctx ends or rw does, which is
// no error, and closes rw. Close must end a Read that waits, as it does for net.Conn,
// ptys and pipes. If rw has SetWriteDeadline, what nobody reads within a second is
// lost; without it Serve waits for the reader.
func (m *Meter) Serve(ctx context.Context, rw io.ReadWriteCloser) error {
	ctx, cancel := context.WithCancel(ctx)
	var receiver sync.WaitGroup
	stop := context.AfterFunc(ctx, func() { rw.Close() })
	defer func() {
		stop()
		cancel()
		rw.Close()
		receiver.Wait()
	}()

	s := &session{
		ctx: ctx, meter: m, line: rw,
		arrivals: make(chan arrival, 16),
	}
	number := m.newLine()
	s.random = rand.New(rand.NewPCG(m.config.Seed, number))
	s.forger = rand.New(rand.NewPCG(^m.config.Seed, number))
	receiver.Go(s.receive)
	frames := kmp.NewReader(s, kmp.ToMeter)
	for {
		f, err := frames.Next()
		var bad *kmp.FrameError
		switch {
		case err == nil:
			err = s.reply(f)
		case errors.As(err, &bad), errors.Is(err, errGap):
			continue // silence
		}
		if ctx.Err() != nil || isEnd(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("sim: line: %w", err)
		}
	}
}

// ServeListener answers every client that l accepts, up to 64 at once, until ctx
// ends, and closes l. All clients look at the same meter.
func (m *Meter) ServeListener(ctx context.Context, l net.Listener) error {
	return serveListener(ctx, l, m.Serve)
}

// serveListener serves every client that l accepts, until ctx ends.
func serveListener(ctx context.Context, l net.Listener, serve func(context.Context, io.ReadWriteCloser) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	context.AfterFunc(ctx, func() { l.Close() })
	free := make(chan struct{}, maxClients)
	for {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("sim: accept a client on %s: %w", l.Addr(), err)
		}
		clients.Go(func() {
			_ = serve(ctx, conn) // how one client's connection broke does not matter to the meter
			<-free
		})
	}
}

// isEnd reports whether err says that the other side has gone.
func isEnd(err error) bool {
	for _, end := range []error{io.EOF, io.ErrClosedPipe, os.ErrClosed, net.ErrClosed, syscall.EPIPE, syscall.ECONNRESET} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// arrival is what one read from the line brought.
type arrival struct {
	bytes []byte
	at    time.Time
	err   error
}

// session is one line being served.
type session struct {
	ctx      context.Context
	meter    *Meter
	line     io.ReadWriteCloser
	arrivals chan arrival
	random   *rand.Rand
	forger   *rand.Rand // apart, so that forging leaves the other faults where they are

	pending []byte    // arrived, not yet read by the frame reader
	last    time.Time // when the last bytes arrived
	through time.Time // when they were through the line, if it has a pace
	err     error     // the end of the line
}

// receive takes bytes from the line as they come, so that their time is known even
// when the meter is busy. It ends with the line.
func (s *session) receive() {
	for {
		buf := make([]byte, 256)
		n, err := s.line.Read(buf)
		if n == 0 && err == nil {
			continue
		}
		select {
		case s.arrivals <- arrival{buf[:n], time.Now(), err}:
		case <-s.ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// errGap says that bytes came after a gap that no request may have.
var errGap = errors.New("sim: gap inside a request")

// Read gives the frame reader what arrives. In strict mode a gap is an error, upon
// which the reader drops a frame in progress; the bytes behind the gap come next.
func (s *session) Read(p []byte) (int, error) {
	for len(s.pending) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		a, ok := s.next()
		if !ok {
			return 0, io.EOF // ctx has ended
		}
		s.err = a.err
		if len(a.bytes) == 0 {
			continue
		}
		gap := !s.last.IsZero() && a.at.Sub(s.last) > maxGap
		s.pending, s.last = a.bytes, a.at
		if err := s.pass(a); err != nil {
			return 0, err
		}
		if gap && s.meter.config.Strict {
			return 0, errGap
		}
	}
	n := copy(p, s.pending)
	s.pending = s.pending[n:]
	return n, nil
}

// next waits for the next arrival and sends stray bytes meanwhile.
func (s *session) next() (arrival, bool) {
	for {
		var stray <-chan time.Time
		f := s.meter.fault()
		if f.StrayBytes > 0 {
			stray = time.After(strayEvery)
		}
		select {
		case a := <-s.arrivals:
			return a, true
		case <-s.ctx.Done():
			return arrival{}, false
		case <-stray:
			if s.chance(f.StrayBytes) && !s.meter.asleep() {
				if err := s.write([]byte{0}); err != nil {
					return arrival{err: err}, true
				}
			}
		}
	}
}

// pass lets bytes that arrived pass through a line that has a pace, and echoes them.
func (s *session) pass(a arrival) error {
	c := s.meter.config
	if c.Paced {
		if n := len(a.bytes); n > 1 {
			// More than one byte at once: the stream has no pace of its own.
			s.through = later(s.through, a.at).Add(time.Duration(n) * c.ByteTime)
		} else {
			s.through = later(s.through.Add(c.ByteTime), a.at)
		}
	} else {
		s.through = a.at
	}
	switch {
	case !s.meter.fault().Echo:
		return nil
	case c.Paced:
		return s.writePaced(a.bytes, s.through.Add(-time.Duration(len(a.bytes))*c.ByteTime), c.ByteTime)
	}
	return s.write(a.bytes)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// reply answers one frame, or is silent.
func (s *session) reply(f kmp.Frame) error {
	received := s.through
	if !s.wait(received) {
		return nil
	}
	s.meter.count(func(c *Counts) { c.Requests++ })
	if s.meter.asleep() {
		s.meter.count(func(c *Counts) { c.Asleep++ })
		return nil
	}
	faults := s.meter.fault()
	wire, err := s.answer(f, faults)
	if err != nil || wire == nil {
		return err
	}
	wire, delay := s.spoil(wire, faults)
	c := s.meter.config
	at := received.Add(max(c.Turnaround, 0) + delay)
	if !s.wait(at) {
		return nil
	}
	switch {
	case len(wire) == 0:
		return nil
	case c.Paced:
		return s.writePaced(wire, later(at, time.Now()), c.ByteTime)
	case faults.ByteByByte:
		return s.writePaced(wire, later(at, time.Now()).Add(-byteGap), byteGap)
	}
	return s.write(wire)
}

// answer returns the bytes of the answer to a frame; nil for silence.
func (s *session) answer(f kmp.Frame, faults Faults) ([]byte, error) {
	if !faults.ASCII && !s.meter.hears(f.Address) {
		return nil, nil
	}
	if s.meter.throttled() {
		s.meter.count(func(c *Counts) { c.Throttled++ })
		return nil, nil
	}
	if faults.ASCII {
		s.meter.count(func(c *Counts) { c.ASCII++ })
		return s.meter.ascii(), nil
	}
	answer := s.meter.answer(f)
	if answer == nil {
		return nil, nil
	}
	from := f.Address
	if faults.Foreign != 0 {
		from = faults.Foreign
		s.meter.count(func(c *Counts) { c.Foreign++ })
	}
	return kmp.AppendMessage(nil, kmp.FromMeter, from, answer)
}

// spoil applies the faults to an answer and returns what goes on the line instead,
// and how much later. Every answer takes the same draws for its decisions, whatever
// is switched on.
func (s *session) spoil(frame []byte, f Faults) (wire []byte, delay time.Duration) {
	stray, before, behind := s.chance(f.StrayBytes), s.chance(f.Noise), s.chance(f.Noise)
	lost, late, twice := s.chance(f.Lost), s.chance(f.Late), s.chance(f.Duplicated)
	corrupted, truncated := s.chance(f.Corrupted), s.chance(f.Truncated)
	forged := s.forger.Float64() < f.Forged
	cut := f.MaxAnswer > 0 && len(frame) > f.MaxAnswer
	if lost || corrupted || truncated || cut || f.Garbled {
		forged = false // nobody would see it
	}
	if forged {
		frame, forged = s.forge(frame)
	}
	s.meter.count(func(c *Counts) {
		add := func(n *uint64, happened bool) {
			if happened {
				*n++
			}
		}
		add(&c.Answers, !lost)
		add(&c.Lost, lost)
		add(&c.Late, late && !lost)
		add(&c.Corrupted, corrupted && !lost)
		add(&c.Truncated, truncated && !lost)
		add(&c.Duplicated, twice && !lost)
		add(&c.Noisy, before || behind)
		add(&c.Stray, stray)
		add(&c.Forged, forged)
		add(&c.Garbled, f.Garbled && !lost)
		add(&c.Cut, cut && !lost)
	})

	if stray {
		wire = append(wire, 0)
	}
	if before {
		wire = s.appendNoise(wire)
	}
	if corrupted {
		frame = s.corrupt(frame, 0)
	}
	if cut {
		frame = s.corrupt(frame, f.MaxAnswer)
	}
	if truncated && len(frame) > 1 {
		frame = frame[:1+s.random.IntN(len(frame)-1)]
	}
	if !lost {
		wire = append(wire, frame...)
	}
	if twice && !lost {
		wire = append(wire, frame...)
	}
	if behind {
		wire = s.appendNoise(wire)
	}
	if late {
		delay = f.LateBy
	}
	if f.Garbled {
		garble(wire)
	}
	return wire, delay
}

// forge flips one to three bits of one value, of a GetRegister answer or a row of a log,
// and makes the checksum fit; false if the frame has no value.
func (s *session) forge(frame []byte) ([]byte, bool) {
	f, err := kmp.DecodeFrame(frame)
	if err != nil {
		return frame, false // not KMP
	}
	m, err := kmp.DecodeMessage(f)
	if err != nil {
		return frame, false
	}
	registers := values(m)
	if len(registers) == 0 {
		return frame, false
	}
	raw := registers[s.forger.IntN(len(registers))].Raw
	if len(raw) == 0 {
		return frame, false
	}
	bits := s.forger.Perm(len(raw) * 8) // each bit once: what is flipped stays flipped
	for _, bit := range bits[:1+s.forger.IntN(3)] {
		raw[bit/8] ^= 1 << (bit % 8)
	}
	forged, err := kmp.AppendMessage(nil, kmp.FromMeter, f.Address, m)
	if err != nil {
		return frame, false
	}
	return forged, true
}

// values are the registers in an answer.
func values(m kmp.Message) (list []kmp.Register) {
	var rows []kmp.LogRow
	switch a := m.(type) {
	case *kmp.GetRegisterAnswer:
		return a.Registers
	case *kmp.LogByIDAnswer:
		rows = a.Rows
	case *kmp.LogLastAnswer:
		rows = a.Rows
	case *kmp.LogRecordsAnswer:
		rows = a.Rows
	}
	for _, r := range rows {
		list = append(list, r.Registers...)
	}
	return list
}

// garble replaces every byte by one that a port at the wrong baud rate would see:
// runs of equal bits. None is the start byte of an answer.
func garble(wire []byte) {
	const seen = "\x00\x80\xC0\xE0\xF0\xF8\xFC\xFE\xFF\x78\x1E\x3C\x9E\xE6\x66\x18"
	for i, b := range wire {
		wire[i] = seen[(b^b>>4)&0x0F]
	}
}

// chance is true with probability p.
func (s *session) chance(p float64) bool { return s.random.Float64() < p }

func (s *session) appendNoise(dst []byte) []byte {
	for range 1 + s.random.IntN(maxNoise) {
		dst = append(dst, byte(s.random.Uint32()))
	}
	return dst
}

// corrupt flips one to three bits behind the first bytes so that the frame is no
// longer good.
func (s *session) corrupt(frame []byte, behind int) []byte {
	for {
		bad := slices.Clone(frame)
		for range 1 + s.random.IntN(3) {
			bad[behind+s.random.IntN(len(bad)-behind)] ^= 1 << s.random.IntN(8)
		}
		if _, err := kmp.DecodeFrame(bad); err != nil && !bytes.Equal(bad, frame) {
			return bad
		}
	}
}

// wait waits until t; false if ctx ended first.
func (s *session) wait(t time.Time) bool {
	d := time.Until(t)
	if d <= 0 {
		return s.ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// writePaced writes bytes one by one on a line that starts at a moment: each arrives
// when its byte time has passed, on a schedule that does not drift.
func (s *session) writePaced(p []byte, start time.Time, byteTime time.Duration) error {
	for i := range p {
		if !s.wait(start.Add(time.Duration(i+1) * byteTime)) {
			return nil
		}
		if err := s.write(p[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

// write writes p to the line. What nobody takes in time is lost.
func (s *session) write(p []byte) error {
	if d, ok := s.line.(interface{ SetWriteDeadline(time.Time) error }); ok {
		err := d.SetWriteDeadline(time.Now().Add(writeTimeout))
		if err != nil && !errors.Is(err, os.ErrNoDeadline) { // not every file can wait with a limit
			return err
		}
	}
	_, err := s.line.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}
