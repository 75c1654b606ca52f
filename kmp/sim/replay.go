package sim

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"kmp2mqtt/kmp"
)

const (
	// maxRecording is the largest recording that is read, in bytes. A support bundle of
	// fifty frames has some 50 KB.
	maxRecording = 4 << 20
	// latestAnswer bounds how long a recorded answer keeps its client waiting.
	latestAnswer = 10 * time.Second
)

// ErrRecording is matched by every error about the content of a recording.
var ErrRecording = errors.New("sim: bad recording")

// RecordingError is what is wrong with a recording. It matches [ErrRecording].
type RecordingError struct {
	Frame int // which of its frames, counted from 1; 0: it is about none of them
	Err   error
}

// Error names the frame, if it is about one.
func (e *RecordingError) Error() string {
	if e.Frame == 0 {
		return fmt.Sprintf("%v: %v", ErrRecording, e.Err)
	}
	return fmt.Sprintf("%v: frame %d: %v", ErrRecording, e.Frame, e.Err)
}

// Is reports whether target is [ErrRecording].
func (e *RecordingError) Is(target error) bool { return target == ErrRecording }

// Unwrap returns the cause.
func (e *RecordingError) Unwrap() error { return e.Err }

// Recording is a meter that answers as another one did while it was recorded. The same
// request gets the recorded answers in turn, the last of them again and again; noise,
// damage, echo and silence included. A GetRegister request that was not recorded gets the
// newest recorded values of its registers. Who asks for the serial number or the type,
// which the frames of a recording may not hold, gets those that the recording names beside
// the frames. Everything else is silence.
//
// It takes its time as the meter did: bytes come one by one, an answer begins as late as
// the recorded one. Like a [Meter] it may be served on several lines at once, which then
// see one sequence of answers.
type Recording struct {
	Meter    string    // its name in the settings
	Serial   string    // serial number; empty: not known
	Model    string    // title such as "MULTICAL 403"; empty: not known
	Revision string    // software revision such as "F1"; empty: not known
	Made     time.Time // when it was recorded; zero: not known

	byteTime  time.Duration
	echo      bool // the head heard itself
	registers map[kmp.Address]map[uint16]kmp.Register
	mu        sync.Mutex
	exchanges map[string]*answers // by request
}

// answers are what came after the same request.
type answers struct {
	list []recorded
	next int // which comes next
}

// recorded is what came after a request.
type recorded struct {
	echo  bool          // first the request itself
	wire  []byte        // then this; nothing: silence
	after time.Duration // from the end of the request to the first byte of wire
}

// bundle is a recording as it is written, as far as it is looked at.
type bundle struct {
	Made  time.Time `json:"made"`
	Meter struct {
		Name     string `json:"name"`
		Serial   string `json:"serial"`
		Model    string `json:"model"`
		Revision string `json:"software_revision"`
		Line     string `json:"line"`
	} `json:"meter"`
	Frames []json.RawMessage `json:"frames"`
}

// frame is what went over the line in one direction.
type frame struct {
	Time      time.Time `json:"time"`
	Direction string    `json:"direction"`
	Wire      string    `json:"wire"`
}

// ReadRecording reads a support bundle: one JSON document of at most 4 MiB with the
// frames that were on a meter's line. Fields that it does not know are ignored. What is
// wrong with it is a *[RecordingError]; other errors are those of r.
func ReadRecording(r io.Reader) (*Recording, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxRecording+1))
	if err != nil {
		return nil, fmt.Errorf("sim: read the recording: %w", err)
	}
	if len(text) > maxRecording {
		return nil, &RecordingError{Err: fmt.Errorf("larger than %d bytes", maxRecording)}
	}
	var b bundle
	if err := json.Unmarshal(text, &b); err != nil {
		return nil, &RecordingError{Err: err}
	}
	rec := &Recording{
		Meter: b.Meter.Name, Serial: b.Meter.Serial, Model: b.Meter.Model, Revision: b.Meter.Revision, Made: b.Made,
		byteTime:  byteTimeOf(b.Meter.Line),
		registers: map[kmp.Address]map[uint16]kmp.Register{},
		exchanges: map[string]*answers{},
	}
	var asked *exchange // what the next frames answer
	for i, raw := range b.Frames {
		f, dir, wire, err := decodeFrame(raw)
		if err != nil {
			return nil, &RecordingError{Frame: i + 1, Err: err}
		}
		if dir == kmp.FromMeter {
			asked.came(f.Time, wire)
			continue
		}
		rec.add(asked)
		asked = ask(f.Time, wire)
	}
	rec.add(asked)
	if len(rec.exchanges) == 0 {
		return nil, &RecordingError{Err: errors.New("no request to a meter is in its frames, with what came after it")}
	}
	return rec, nil
}

// byteTimeOf is how long a byte takes on a recorded line, from its option baud.
func byteTimeOf(line string) time.Duration {
	_, query, _ := strings.Cut(line, "?")
	options, err := url.ParseQuery(query)
	if err != nil {
		return kmp.DefaultByteTime
	}
	baud, err := strconv.Atoi(options.Get("baud"))
	if err != nil || baud < 50 || baud > 4_000_000 { // as package kmp/link has it
		return kmp.DefaultByteTime
	}
	return 11 * time.Second / time.Duration(baud)
}

func decodeFrame(raw json.RawMessage) (f frame, dir kmp.Direction, wire []byte, err error) {
	if err := json.Unmarshal(raw, &f); err != nil {
		return f, 0, nil, err
	}
	switch f.Direction {
	case kmp.ToMeter.String():
		dir = kmp.ToMeter
	case kmp.FromMeter.String():
		dir = kmp.FromMeter
	default:
		return f, 0, nil, fmt.Errorf("direction %.20q is neither to_meter nor from_meter", f.Direction)
	}
	if wire, err = hex.DecodeString(strings.Join(strings.Fields(f.Wire), "")); err != nil {
		return f, 0, nil, fmt.Errorf("wire is not hexadecimal: %w", err)
	}
	return f, dir, wire, nil
}

// key is a request as it stands in the table of exchanges.
func key(request kmp.Frame) string {
	return string(kmp.AppendFrame(nil, request.Direction, request.Address, request.Command, request.Data))
}

// exchange is a request and what came after it.
type exchange struct {
	request    string // its key
	sent, over time.Time
	wire       []byte
}

// ask begins an exchange; nil if no meter would understand the request.
func ask(at time.Time, wire []byte) *exchange {
	request, err := kmp.DecodeFrame(wire)
	if err != nil || request.Direction != kmp.ToMeter {
		return nil
	}
	return &exchange{request: key(request), sent: at}
}

// came takes what came after the request, nothing included. What nobody asked for is dropped.
func (e *exchange) came(at time.Time, wire []byte) {
	if e != nil {
		e.over, e.wire = at, append(e.wire, wire...)
	}
}

// add adds an exchange, unless its end was not recorded.
func (r *Recording) add(e *exchange) {
	if e == nil || e.over.IsZero() {
		return
	}
	if r.exchanges[e.request] == nil {
		r.exchanges[e.request] = new(answers)
	}
	wire, echo := bytes.CutPrefix(e.wire, []byte(e.request))
	a := recorded{echo: echo, wire: wire, after: defaultTurnaround}
	r.echo = r.echo || echo
	if r.learn(wire) { // it was over with the frame; else it was waited for longer, nobody knows how much
		took := e.over.Sub(e.sent) - time.Duration(len(e.request)+len(wire))*r.byteTime
		a.after = min(max(took, defaultTurnaround), latestAnswer)
	}
	to := r.exchanges[e.request]
	to.list = append(to.list, a)
}

// learn keeps the registers of the good frames in what came from a meter, and reports
// whether there is such a frame at all.
func (r *Recording) learn(wire []byte) (good bool) {
	frames := kmp.NewReader(bytes.NewReader(wire), kmp.FromMeter)
	for {
		f, err := frames.Next()
		var bad *kmp.FrameError
		switch {
		case errors.As(err, &bad):
			continue
		case err != nil:
			return good
		}
		good = true
		if f.Command != kmp.CmdGetRegister {
			continue
		}
		f.Data = bytes.Clone(f.Data) // the next frame overwrites it
		m, err := kmp.DecodeMessage(f)
		if err != nil {
			continue
		}
		if r.registers[f.Address] == nil {
			r.registers[f.Address] = map[uint16]kmp.Register{}
		}
		for _, register := range values(m) {
			r.registers[f.Address][register.ID] = register
		}
	}
}

// answer is what comes after a request.
func (r *Recording) answer(request kmp.Frame) recorded {
	r.mu.Lock()
	defer r.mu.Unlock()
	if to := r.exchanges[key(request)]; to != nil {
		a := to.list[to.next]
		to.next = min(to.next+1, len(to.list)-1)
		return a
	}
	a := recorded{echo: r.echo, after: defaultTurnaround}
	if m := r.compose(request); m != nil {
		if wire, err := kmp.AppendMessage(nil, kmp.FromMeter, request.Address, m); err == nil {
			a.wire = wire
		}
	}
	return a
}

// compose makes an answer of what is known besides the exchanges; nil for silence.
func (r *Recording) compose(request kmp.Frame) kmp.Answer {
	m, err := kmp.DecodeMessage(request)
	if err != nil {
		return nil
	}
	known := r.registers[request.Address]
	if known == nil && request.Address != kmp.HeatMeter {
		return nil
	}
	switch q := m.(type) {
	case *kmp.GetSerialNoRequest:
		if n, err := strconv.ParseUint(r.Serial, 10, 32); err == nil {
			return &kmp.GetSerialNoAnswer{SerialNo: uint32(n)}
		}
	case *kmp.GetTypeRequest:
		if model, err := modelByName(strings.TrimPrefix(r.Model, "MULTICAL ")); err == nil {
			return &kmp.GetTypeAnswer{MeterType: model.meterType, Revision: r.revision(model.revision)}
		}
	case *kmp.GetRegisterRequest:
		if known == nil {
			return nil
		}
		a := new(kmp.GetRegisterAnswer)
		for _, id := range q.IDs {
			if register, ok := known[id]; ok {
				a.Registers = append(a.Registers, register)
			}
		}
		return a
	}
	return nil
}

// revision is the recorded software revision, or another one if it cannot be read.
func (r *Recording) revision(other kmp.Revision) kmp.Revision {
	if len(r.Revision) < 2 || r.Revision[0] < 'A' || r.Revision[0] > 'Z' {
		return other
	}
	n, err := strconv.ParseUint(r.Revision[1:], 10, 8)
	if err != nil {
		return other
	}
	return kmp.Revision{Letter: r.Revision[0] - 'A' + 1, Number: byte(n)}
}

// Serve answers the requests that arrive on rw as [Meter.Serve] does.
func (r *Recording) Serve(ctx context.Context, rw io.ReadWriteCloser) error {
	ctx, cancel := context.WithCancel(ctx)
	var receiver sync.WaitGroup
	stop := context.AfterFunc(ctx, func() { rw.Close() })
	defer func() {
		stop()
		cancel()
		rw.Close()
		receiver.Wait()
	}()

	// The line alone, of a meter without faults: those of the recorded one are in its frames.
	line := &Meter{config: Config{Paced: true, ByteTime: r.byteTime}}
	s := &session{ctx: ctx, meter: line, line: rw, arrivals: make(chan arrival, 16), random: rand.New(rand.NewPCG(0, 0))}
	receiver.Go(s.receive)
	frames := kmp.NewReader(s, kmp.ToMeter)
	for {
		f, err := frames.Next()
		var bad *kmp.FrameError
		switch {
		case err == nil:
			err = s.replay(key(f), r.answer(f))
		case errors.As(err, &bad):
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

// replay sends what came after a request that has just arrived.
func (s *session) replay(request string, a recorded) error {
	received, byteTime := s.through, s.meter.config.ByteTime
	if a.echo {
		if err := s.writePaced([]byte(request), received.Add(-time.Duration(len(request))*byteTime), byteTime); err != nil {
			return err
		}
	}
	return s.writePaced(a.wire, received.Add(a.after), byteTime)
}

// ServeListener answers every client that l accepts as [Meter.ServeListener] does.
func (r *Recording) ServeListener(ctx context.Context, l net.Listener) error {
	return serveListener(ctx, l, r.Serve)
}

// Line returns the client's end of a line inside this process as [Meter.Line] does.
func (r *Recording) Line(ctx context.Context) kmp.Line {
	in, out := newWire(), newWire()
	go func() { _ = r.Serve(ctx, &end{in: out, out: in}) }() // its errors are those of the line, and this one has none
	return &end{in: in, out: out}
}
