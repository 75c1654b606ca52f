package kmp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"
)

// Line carries the bytes to and from a meter. A [net.Conn] is one; package
// kmp/link makes one of a serial port. Read must return [os.ErrDeadlineExceeded]
// when the deadline passes, also when it is set while Read waits. A Line that has
// SetWriteDeadline gets its writes bounded, too.
type Line interface {
	io.ReadWriteCloser
	SetReadDeadline(t time.Time) error
}

// The timing of 5512-447 section 2.1 and what experience adds to it.
const (
	// DefaultTimeout is how long the first byte of an answer may take once the
	// request has left: the document promises 1.6 s, patience adds some.
	DefaultTimeout = 2 * time.Second
	// DefaultGap is the longest silence inside an answer.
	DefaultGap = 200 * time.Millisecond
	// DefaultByteTime is one byte at 1200 baud: a start bit, eight data bits and
	// two stop bits.
	DefaultByteTime = 11 * time.Second / 1200
	// DefaultRetries is how often a failed request is repeated: a meter that
	// sleeps may miss the first request of a session.
	DefaultRetries = 1

	// quiet is the silence that a meter needs after no answer or a bad one before
	// it listens again.
	quiet = 1600 * time.Millisecond
	// patience bounds the wait for quiet on a line that never is.
	patience = 3 * quiet
	// drain is how long stale bytes are collected before a request.
	drain = time.Millisecond
	// keep is how many of the bytes received are kept for errors and the trace: the longest answer and an echo.
	keep = MaxFrame + 512
)

// Options tune a [Conn]. The zero value of each field is its default.
type Options struct {
	Timeout  time.Duration // for an answer's first byte, after the request has left: the least, see Stats.Timeout
	Gap      time.Duration // longest silence inside an answer: the least, see Stats.Gap
	ByteTime time.Duration // one byte on the line, start and stop bits included
	Retries  int           // repetitions of a failed request; negative: none
	// What the Stats of the Conn before had, for a line that was opened again.
	RequestSize  int           // registers per request to begin with, 1 to 8
	StartTimeout time.Duration // time-out to begin with, when more than Timeout
	StartGap     time.Duration // gap to begin with, when more than Gap
	// Trace, when set, is shown every request as sent and, after each attempt,
	// the bytes that came (the last 4608), echo and noise included. It must not
	// keep them.
	Trace func(dir Direction, wire []byte)
}

// Stats count what a [Conn] has seen since it was made, and say what it has learned
// of its line. Counters and Awake never become less.
type Stats struct {
	Requests       uint64 // sent, repetitions included
	Retries        uint64 // repetitions among them
	Answers        uint64 // accepted
	BytesSent      uint64
	BytesReceived  uint64 // echo and noise included
	BadFrames      uint64 // dropped: stuffing, length, CRC
	ChecksumErrors uint64 // the ones among them with a wrong CRC
	Foreign        uint64 // good frames dropped: other address, command or registers
	Echo           bool   // the last request came back as an echo

	// FirstByte is how long after the last request's end, as far as that can be
	// known, the first byte came that was neither its echo nor 00: at least 1 ms, or
	// 0 when none came.
	FirstByte time.Duration
	// Awake is how long the meter was awake, estimated: 1.6 s from the first byte of
	// each answer, damaged ones included (5512-447 section 2.1). What overlaps counts once.
	Awake time.Duration

	RequestSize int           // registers per request, 1 to 8
	Timeout     time.Duration // for an answer's first byte: Options.Timeout to 10 s
	Gap         time.Duration // longest silence inside an answer: Options.Gap to 2 s
}

// Conn is a client on one line. It has one request in flight, keeps the meter's
// timing rules and returns only what passed every check. Its methods may be called
// from several goroutines: they take turns.
type Conn struct {
	line Line
	opts Options
	turn chan struct{} // holds a token while nobody uses the line

	// What follows belongs to whoever holds the token.
	reader   *Reader
	out      []byte       // the request on its way
	ready    time.Time    // when the next request may start
	unquiet  bool         // the last exchange failed: bytes that still come delay ready
	answerBy time.Time    // end of the wait for a frame to begin
	giveUp   time.Time    // end of the wait for it to end
	received []byte       // this attempt's last bytes
	ended    func() error // the Err of the exchange's context
	echoed   int          // how much of the request has come back in a row
	left     time.Time    // when the request's last byte was on the line
	first    bool         // a byte has come since then that was neither echo nor 00
	pace     pace
	ear      ear
	owed     int       // requests that were given up in silence: their answers may come yet
	gaveUp   time.Time // when the last of them was
	awake    time.Time // until then the meter is awake

	mu    sync.Mutex
	stats Stats
	row   int  // good answers in a row to requests of stats.RequestSize
	need  int  // how many of them make requests larger
	grown bool // requests became larger, and whether that works is not known yet
}

// NewConn returns a client on line. It does not touch the line yet.
func NewConn(line Line, opts Options) *Conn {
	opts.Timeout = orDefault(opts.Timeout, DefaultTimeout)
	opts.Gap = orDefault(opts.Gap, DefaultGap)
	opts.ByteTime = orDefault(opts.ByteTime, DefaultByteTime)
	if opts.Retries == 0 {
		opts.Retries = DefaultRetries
	}
	if opts.RequestSize < 1 || opts.RequestSize > MaxRegisters {
		opts.RequestSize = MaxRegisters
	}
	c := &Conn{line: line, opts: opts, turn: make(chan struct{}, 1), pace: newPace(opts), need: growAfter}
	c.stats = Stats{RequestSize: opts.RequestSize, Timeout: c.pace.timeout, Gap: c.pace.gap}
	c.reader = NewReader(lineReader{c}, FromMeter)
	c.ear.reader = NewReader(nil, FromMeter)
	c.turn <- struct{}{}
	return c
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

// Close closes the line. A call that waits on it fails.
func (c *Conn) Close() error { return c.line.Close() }

// Stats returns the counters so far.
func (c *Conn) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

func (c *Conn) count(f func(*Stats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.stats)
}

// GetType asks the meter at addr for its type and software revision. Errors are
// those of [Conn.Do].
func (c *Conn) GetType(ctx context.Context, addr Address) (GetTypeAnswer, error) {
	var a GetTypeAnswer
	err := c.Do(ctx, addr, new(GetTypeRequest), &a)
	return a, err
}

// GetSerialNo asks the meter at addr for its serial number. Errors are those of
// [Conn.Do].
func (c *Conn) GetSerialNo(ctx context.Context, addr Address) (uint32, error) {
	var a GetSerialNoAnswer
	err := c.Do(ctx, addr, new(GetSerialNoRequest), &a)
	return a.SerialNo, err
}

// GetRegister reads any number of registers of the meter at addr, in as few
// requests as possible. Registers that the meter does not have are left out, which
// is no error; an id named twice is read once. When the answer to a request comes
// damaged each time, half as many are asked for at once, and from then on: from a head
// that sits badly, a short frame may come through where a long one does not. Good
// answers, ten in a row, let requests grow again. When a request fails, the registers
// read until then come with the error, which is one of [Conn.Do].
func (c *Conn) GetRegister(ctx context.Context, addr Address, ids ...uint16) ([]Register, error) {
	wanted := make([]uint16, 0, len(ids))
	for _, id := range ids {
		if !slices.Contains(wanted, id) {
			wanted = append(wanted, id)
		}
	}
	registers := make([]Register, 0, len(wanted))
	for len(wanted) > 0 {
		n := min(c.Stats().RequestSize, len(wanted))
		var a GetRegisterAnswer
		err := c.Do(ctx, addr, &GetRegisterRequest{wanted[:n]}, &a)
		if c.fit(n, err) {
			continue
		}
		if err != nil {
			return registers, err
		}
		registers = append(registers, a.Registers...)
		wanted = wanted[n:]
	}
	return registers, nil
}

// checker is a request that can tell its answer from a late answer to another
// request of the same command. Answers carry no number that would.
type checker interface{ check(a Answer) error }

// check refuses registers that were not asked for, or come more often than that.
func (q *GetRegisterRequest) check(a Answer) error {
	answer, ok := a.(*GetRegisterAnswer)
	if !ok {
		return nil // a type of the caller's own, who knows what it holds
	}
	return checkIDs(q.IDs, answer.Registers)
}

// checkIDs refuses registers that are not among ids, or are more often than there.
func checkIDs(ids []uint16, registers []Register) error {
	missing := slices.Clone(ids)
	for _, r := range registers {
		i := slices.Index(missing, r.ID)
		if i < 0 {
			return fmt.Errorf("%w: register %d", ErrForeign, r.ID)
		}
		missing = slices.Delete(missing, i, i+1)
	}
	return nil
}

// Do sends a request to addr and decodes the answer into ans, which keeps nothing
// of Conn's memory. A request without a usable answer is repeated as often as the
// options say, after the silence that the meter needs.
//
// A request that cannot be encoded gives an error that matches [ErrCodec]. A
// cancelled context ends Do at once with an error that wraps ctx.Err(). Any other
// failure is an *[ExchangeError]; errors.Is and errors.As find in it [ErrNoReply],
// [ErrNoFrame], [ErrForeign], a *[FrameError], an *[AddressError] or the line's own
// error. Bad and foreign frames are dropped, not returned: the right one may follow.
func (c *Conn) Do(ctx context.Context, addr Address, req Request, ans Answer) error {
	if err := c.take(ctx); err != nil {
		return &contextError{about(req, addr), err}
	}
	defer c.release()
	var err error
	if c.out, err = AppendMessage(c.out[:0], ToMeter, addr, req); err != nil {
		return &contextError{about(req, addr), err}
	}
	defer c.interrupt(ctx)()
	attempts := 0
	for {
		attempts++
		if err = c.attempt(ctx, addr, req, ans); err == nil {
			return nil
		}
		if attempts > c.opts.Retries || acknowledged(req.Command()) || !(errors.Is(err, ErrNoReply) || errors.Is(err, ErrForeign) || errors.Is(err, ErrCodec)) {
			break
		}
		c.count(func(s *Stats) { s.Retries++ })
	}
	return &ExchangeError{
		Command: req.Command(), Address: addr, Request: bytes.Clone(c.out), Received: bytes.Clone(c.received),
		Echo: c.echoed == len(c.out), Attempts: attempts, Err: err,
	}
}

// acknowledged reports whether a command is answered by the byte 06 alone.
func acknowledged(cmd Command) bool { return cmd == CmdSetClock || cmd == CmdPutRegister }

// answers reports whether an answer's command fits that of the request. 5512-447
// prints the answer to 9C with 9B; whether meters do that is not known.
func answers(got, asked Command) bool {
	return got == asked || asked == CmdClearEventStatus && got == CmdGetEventStatus
}

// about names a request in an error.
func about(req Request, addr Address) string {
	return fmt.Sprintf("%s at address %02X", req.Command(), byte(addr))
}

// take waits for the line; release gives it back.
func (c *Conn) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-c.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Conn) release() { c.turn <- struct{}{} }

// interrupt lets a cancelled context end whatever waits on the line. The function
// returned ends that, and must have returned before anybody else uses the line.
func (c *Conn) interrupt(ctx context.Context) func() {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		past := time.Unix(1, 0)
		_ = c.line.SetReadDeadline(past) // a line that fails here fails the read as well
		_ = c.setWriteDeadline(past)
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}

func (c *Conn) setWriteDeadline(t time.Time) error {
	if w, ok := c.line.(interface{ SetWriteDeadline(time.Time) error }); ok {
		return w.SetWriteDeadline(t)
	}
	return nil
}

// attempt sends the request in c.out once and waits for its answer.
func (c *Conn) attempt(ctx context.Context, addr Address, req Request, ans Answer) error {
	err := c.settle(ctx)
	if err == nil {
		c.ear.expect(addr, req.Command())
		c.reader.acks = acknowledged(req.Command())
		err = c.send(ctx)
	}
	if err == nil {
		err = c.receive(ctx, addr, req, ans)
	}
	if err == nil {
		if !c.reader.acks {
			c.pace.good(c.ear.began.Sub(c.left), c.ear.pause)
			c.tell()
		}
		// One byte time has to pass before the next request, and a tenth for clocks
		// that differ. It starts well within 1.6 s: the meter need not wake again.
		c.ready, c.unquiet = time.Now().Add(c.opts.ByteTime+c.opts.ByteTime/10), false
		return nil
	}
	c.ready, c.unquiet = time.Now().Add(quiet), true
	return err
}

// settle waits until a request may be sent and discards what arrives until then:
// the rest of an answer that came too late, a repeated one. That it came is all that
// is learned of it.
func (c *Conn) settle(ctx context.Context) error {
	c.reader.Reset()
	c.received, c.echoed = c.received[:0], 0
	start := time.Now()
	until := start.Add(drain)
	if c.ready.After(until) {
		until = c.ready
	}
	var scratch [256]byte
	for {
		if err := c.setReadDeadline(ctx, until); err != nil {
			return err
		}
		n, err := readSome(c.line, scratch[:])
		c.count(func(s *Stats) { s.BytesReceived += uint64(n) })
		c.hear(scratch[:n], false)
		if n > 0 && c.unquiet {
			until = time.Now().Add(quiet)
			if last := start.Add(patience); until.After(last) {
				until = last
			}
		}
		if err := c.lineError(ctx, err); errors.Is(err, os.ErrDeadlineExceeded) {
			if time.Since(c.gaveUp) > maxTimeout {
				c.owed = 0
			}
			return nil
		} else if err != nil {
			return err
		}
	}
}

// setReadDeadline sets a deadline unless the context has ended. The order matters:
// a context that ends later finds this deadline and replaces it (interrupt).
func (c *Conn) setReadDeadline(ctx context.Context, t time.Time) error {
	if err := c.line.SetReadDeadline(t); err != nil {
		return fmt.Errorf("kmp: line: %w", err)
	}
	return ctx.Err()
}

// lineError is what a read from the line means: the context's end counts more than
// the time-out by which it showed.
func (c *Conn) lineError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("kmp: line: %w", err)
}

// send writes the request in one call: a gap inside it would make the meter drop it.
func (c *Conn) send(ctx context.Context) error {
	if c.opts.Trace != nil {
		c.opts.Trace(ToMeter, c.out)
	}
	if err := c.setWriteDeadline(time.Now().Add(c.opts.Timeout)); err != nil {
		return fmt.Errorf("kmp: line: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	n, err := c.line.Write(c.out)
	c.first = false
	c.count(func(s *Stats) { s.Requests++; s.BytesSent += uint64(n); s.FirstByte = 0 })
	if err == nil && n < len(c.out) {
		err = io.ErrShortWrite
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("kmp: line: writing: %w", err)
	}
	// A serial port returns before the bytes have left it.
	c.left = time.Now().Add(time.Duration(len(c.out)) * c.opts.ByteTime)
	c.answerBy = c.left.Add(c.pace.timeout)
	c.giveUp = c.answerBy.Add(2 * MaxFrame * c.opts.ByteTime)
	return nil
}

// receive hunts for the answer until the time is over.
func (c *Conn) receive(ctx context.Context, addr Address, req Request, ans Answer) error {
	if c.opts.Trace != nil {
		defer func() { c.opts.Trace(FromMeter, c.received) }()
	}
	defer func() { c.count(func(s *Stats) { s.Echo = c.echoed == len(c.out) }) }()
	c.ended = ctx.Err
	var reason error // the last frame's, when there was one
	for {
		f, err := c.reader.Next()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			if err = c.accept(f, addr, req, ans); err == nil {
				c.count(func(s *Stats) { s.Answers++ })
				return nil
			}
		}
		switch {
		case errors.Is(err, ErrAck):
			if c.isAck() {
				c.wake(time.Now())
				c.count(func(s *Stats) { s.Answers++ })
				return nil
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			if reason == nil {
				reason = c.silence()
				if !c.reader.acks {
					c.owed++
					c.gaveUp = time.Now()
				}
			}
			return reason
		case errors.Is(err, ErrCodec), errors.Is(err, ErrForeign):
			c.countBad(err)
			if errors.Is(err, ErrForeign) {
				c.paid(0)
				c.tell()
			}
			reason = err
			if time.Now().After(c.answerBy) { // only a frame begun in time may end later
				return reason
			}
		default:
			return fmt.Errorf("kmp: line: %w", err)
		}
	}
}

// silence says what it means that no frame began in time. The echo is silence, and so
// are bytes 00, which a meter may send whenever it likes.
func (c *Conn) silence() error {
	other := len(c.received) - bytes.Count(c.received, []byte{0})
	if c.echoed == len(c.out) {
		other -= len(c.out) - bytes.Count(c.out, []byte{0})
	}
	if other > 0 {
		return ErrNoFrame
	}
	return ErrNoReply
}

// isAck reports whether the 06 that has just been read, outside of any frame, is an
// acknowledgement: nothing came outside of frames before it but the echo and bytes 00.
// Noise that happens to be 06 must not say that a clock was set. What has come after it
// already, and waits in the Reader, is of no account.
func (c *Conn) isAck() bool {
	before := c.received[:len(c.received)-c.reader.buffered()]
	other := c.reader.stray - 1
	if bytes.Contains(before, c.out) {
		other -= len(c.out) - bytes.Count(c.out, []byte{0})
	}
	return other == 0
}

// accept decodes a good frame as the answer, or says why it is not.
func (c *Conn) accept(f Frame, addr Address, req Request, ans Answer) error {
	if f.Address != addr {
		return &FrameError{DataLink, 0, &AddressError{Want: addr, Got: f.Address}}
	}
	if !answers(f.Command, req.Command()) {
		return &FrameError{Application, 1, fmt.Errorf("%w: %s", ErrForeign, f.Command)}
	}
	if err := ans.DecodeData(bytes.Clone(f.Data)); err != nil {
		return err
	}
	if q, ok := req.(checker); ok {
		return q.check(ans)
	}
	return nil
}

func (c *Conn) countBad(err error) {
	c.count(func(s *Stats) {
		var checksum *ChecksumError
		var address *AddressError
		switch {
		case errors.Is(err, ErrForeign), errors.As(err, &address):
			s.Foreign++
		case errors.As(err, &checksum):
			s.ChecksumErrors++
			s.BadFrames++
		default:
			s.BadFrames++
		}
	})
}

// lineReader is the Conn's line as its Reader sees it: each read gets the deadline
// that fits where in an answer the Reader is.
type lineReader struct{ c *Conn }

// Read implements [io.Reader].
func (l lineReader) Read(p []byte) (int, error) {
	c := l.c
	until := c.answerBy
	if c.reader.InFrame() {
		if until = time.Now().Add(c.pace.gap); until.After(c.giveUp) {
			until = c.giveUp
		}
	}
	if err := c.line.SetReadDeadline(until); err != nil {
		return 0, err
	}
	if err := c.ended(); err != nil { // in this order, as in setReadDeadline
		return 0, err
	}
	n, err := readSome(c.line, p)
	c.note(p[:n])
	c.hear(p[:n], true)
	return n, err
}

// note keeps what came for errors and traces, recognises the echo and what is none.
func (c *Conn) note(p []byte) {
	c.count(func(s *Stats) { s.BytesReceived += uint64(len(p)) })
	if c.received = append(c.received, p...); len(c.received) > keep {
		c.received = append(c.received[:0], c.received[len(c.received)-keep:]...)
	}
	for _, b := range p {
		switch {
		case c.echoed == len(c.out): // it is whole
			c.firstByte(b)
		case b == c.out[c.echoed]:
			c.echoed++
		case b == c.out[0]:
			c.echoed = 1
		default:
			c.echoed = 0
			c.firstByte(b)
		}
	}
}

// firstByte notes when the first byte came that is no echo. The meter may send 00 at
// any time: that is none, either.
func (c *Conn) firstByte(b byte) {
	if c.first || b == 0 {
		return
	}
	c.first = true
	after := max(time.Since(c.left), leastFirst)
	c.count(func(s *Stats) { s.FirstByte = after })
}

// Write sends bytes as they are, for those who do their own framing: in one call,
// bounded by the time-out. Most callers want [Conn.Do].
func (c *Conn) Write(ctx context.Context, p []byte) error {
	if err := c.take(ctx); err != nil {
		return fmt.Errorf("kmp: %w", err)
	}
	defer c.release()
	defer c.interrupt(ctx)()
	c.out = append(c.out[:0], p...)
	return c.send(ctx)
}

// ReadN reads exactly n bytes, whatever they are, each within the time-out. It
// returns what came until an error. Most callers want [Conn.Do].
func (c *Conn) ReadN(ctx context.Context, n int) ([]byte, error) {
	if n <= 0 {
		return nil, nil
	}
	return c.readRaw(ctx, n, func(p []byte) bool { return len(p) == n })
}

// ReadUntilStop reads up to and including the next stop byte 0D, at most two times
// [MaxFrame] bytes, each within the time-out. An echo ends with a stop byte as well:
// most callers want [Conn.Do], which knows an echo from an answer.
func (c *Conn) ReadUntilStop(ctx context.Context) ([]byte, error) {
	return c.readRaw(ctx, 2*MaxFrame, func(p []byte) bool { return p[len(p)-1] == Stop })
}

// readRaw reads byte by byte, so that nothing is taken from whoever reads next.
func (c *Conn) readRaw(ctx context.Context, most int, enough func([]byte) bool) ([]byte, error) {
	if err := c.take(ctx); err != nil {
		return nil, fmt.Errorf("kmp: %w", err)
	}
	defer c.release()
	defer c.interrupt(ctx)()
	var got []byte
	for len(got) < most {
		if err := c.setReadDeadline(ctx, time.Now().Add(c.opts.Timeout)); err != nil {
			return got, err
		}
		var b [1]byte
		_, err := readSome(c.line, b[:])
		if err := c.lineError(ctx, err); errors.Is(err, os.ErrDeadlineExceeded) {
			return got, fmt.Errorf("%w: %d bytes came", ErrNoReply, len(got))
		} else if err != nil {
			return got, err
		}
		if got = append(got, b[0]); enough(got) {
			return got, nil
		}
	}
	return got, ErrTooLong
}
