package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"kmp2mqtt/kmp"
)

// Telnet's commands (RFC 854).
const (
	cmdSE   = 240 // ends a sub-negotiation
	cmdSB   = 250 // begins one
	cmdWill = 251
	cmdWont = 252
	cmdDo   = 253
	cmdDont = 254
	iac     = 255 // begins every command; doubled it is a byte of data
)

// Telnet's options.
const (
	optBinary  = 0  // all 256 values are data (RFC 856); without it, 0Dh, the end of every frame, is half a line end
	optSGA     = 3  // both sides may talk at once (RFC 858)
	optComPort = 44 // the server's serial port is set from here (RFC 2217)
)

// The commands of COM port control, as the client sends them. The server's answer
// has the code plus comPortAnswer, and the value that is now in force.
const (
	comPortBaud     = 1 // 4 bytes
	comPortDataBits = 2
	comPortParity   = 3
	comPortStopBits = 4
	comPortControl  = 5
	comPortPurge    = 12

	comPortAnswer = 100

	purgeBoth = 3 // what came from the meter and what is still to go there
)

// The values of comPortControl that the options dtr and rts ask for.
const (
	dtrOn  = 8
	dtrOff = 9
	rtsOn  = 11
	rtsOff = 12
)

// Nothing that a server sends may grow the program or keep it busy for ever.
const (
	maxSubNegotiation = 4096 // bytes of one, of which the first few are kept
	maxAnswers        = 1024 // to the server's wishes between two requests: some send one every few seconds to see whether we live
)

var (
	errNoControl = fmt.Errorf("%w COM port control (RFC 2217)", ErrRefused)
	errNotBinary = fmt.Errorf("%w binary transmission", ErrRefused)
	errEcho      = errors.New("what was sent comes back, and nobody answers it")
	errEndless   = errors.New("it sends a command without end")
	errInsistent = errors.New("it does not stop asking for options")
)

// rfc2217Line is the port of a serial server that is set from here. What it adds to
// the line below is Telnet's quoting and the answers to the server's wishes.
type rfc2217Line struct {
	kmp.Line
	name   string
	telnet telnet // belongs to Read once the line is open
	broken error  // as does this: what Read ends with for good

	replies atomic.Int32 // to the server's wishes, since the last request
}

func openRFC2217(ctx context.Context, t Target) (kmp.Line, error) {
	latest := time.Now().Add(connectTimeout)
	raw, err := openTCP(ctx, t)
	if err != nil {
		return nil, err
	}
	return controlPort(ctx, raw, t, latest)
}

// controlPort makes a line with COM port control of a connection. It closes the
// connection when that fails.
func controlPort(ctx context.Context, raw kmp.Line, t Target, latest time.Time) (kmp.Line, error) {
	l := &rfc2217Line{Line: raw, name: t.String(), telnet: telnet{settings: portSettings(t)}}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() }) // ends what waits below
	err := l.negotiate(latest)
	if !stop() {
		return nil, &Error{Op: "open", Line: l.name, Err: context.Cause(ctx), Advice: "gave up before the serial server had answered: " + controlAdvice(err, t)}
	}
	if err == nil {
		return l, nil
	}
	_ = raw.Close() // the first error is the one to tell
	// One of the line below needs only another name of what was tried.
	if e, ok := errors.AsType[*Error](err); ok {
		return nil, &Error{Op: "open", Line: e.Line, Err: e.Err, Advice: e.Advice}
	}
	return nil, &Error{Op: "open", Line: l.name, Err: err, Advice: controlAdvice(err, t)}
}

// controlAdvice says what to do with a server that does not do what it was asked.
func controlAdvice(err error, t Target) string {
	plain := t.Endpoint()
	value, ok := errors.AsType[*valueError](err)
	switch {
	case ok && value.wire:
		return "leave out the options dtr and rts: the port does not have these wires, or does not let them be set"
	case ok:
		return "check what this port can do and that its settings may be changed; or set it there and use " + plain + " (raw)"
	}
	return "use " + plain + " if the serial server passes bytes through as they are (raw); else switch RFC 2217 on there, in ser2net with telnet(rfc2217)"
}

// negotiate agrees with the server on the options, then sets the port.
func (l *rfc2217Line) negotiate(latest time.Time) error {
	if err := l.SetReadDeadline(latest); err != nil {
		return err
	}
	if _, err := l.Line.Write(l.telnet.begin()); err != nil {
		return err
	}
	if err := l.await(l.telnet.disagreed); err != nil {
		return err
	}
	if _, err := l.Line.Write(l.telnet.set()); err != nil {
		return err
	}
	if err := l.await(l.telnet.unset); err != nil {
		return err
	}
	l.telnet.phase = opened
	return l.SetReadDeadline(time.Time{})
}

// await takes in what the server says until nothing is missing any more. Bytes that
// are not part of a command are old: nothing was asked yet.
func (l *rfc2217Line) await(missing func() error) error {
	buf := make([]byte, 512)
	for {
		what := missing()
		if what == nil {
			return nil
		}
		n, err := l.Line.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return what
		}
		if err == nil {
			_, err = l.receive(buf[:n])
		}
		if err != nil {
			return err
		}
	}
}

// receive takes the commands out of p, answers them, and returns how many bytes of
// data are left in it.
func (l *rfc2217Line) receive(p []byte) (int, error) {
	n, err := l.telnet.receive(p)
	if out := l.telnet.answers(); err == nil && len(out) > 0 {
		if l.replies.Add(int32(len(out)/3)) > maxAnswers {
			return n, errInsistent
		}
		_, err = l.Line.Write(out)
	}
	return n, err
}

// Read reads what has arrived from the meter, at least one byte.
func (l *rfc2217Line) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for l.broken == nil {
		n, err := l.Line.Read(p)
		if err != nil {
			return 0, err
		}
		n, l.broken = l.receive(p[:n])
		if n > 0 {
			return n, nil // an error with it comes with the next Read
		}
	}
	if _, ok := errors.AsType[*Error](l.broken); ok { // of the line below
		return 0, l.broken
	}
	return 0, goneError("read", l.name, "the serial server cannot be understood", l.broken, "restart it")
}

// Write sends all of p within the time limit, or fails.
func (l *rfc2217Line) Write(p []byte) (int, error) {
	l.replies.Store(0)
	quoted := quote(make([]byte, 0, len(p)+8), p)
	n, err := l.Line.Write(quoted)
	if err == nil {
		return len(p), nil
	}
	sent := 0
	for i := 0; i < n; i++ {
		if quoted[i] == iac {
			i++ // the second half
		}
		if i < n {
			sent++
		}
	}
	return sent, err
}

// quote appends p as data.
func quote(dst, p []byte) []byte {
	for _, b := range p {
		dst = append(dst, b)
		if b == iac {
			dst = append(dst, iac)
		}
	}
	return dst
}

// portSetting is one thing to be set at the server's port.
type portSetting struct {
	option string // as the line's URL has it
	code   byte
	value  uint32
	done   bool
}

// portSettings lists what the target asks for. The two wires are left to the
// server's system, which raises both when it opens the port, unless an option says
// otherwise: some servers have a port without them and do not even answer.
func portSettings(t Target) []portSetting {
	parity := map[Parity]uint32{ParityNone: 1, ParityOdd: 2, ParityEven: 3, ParityMark: 4, ParitySpace: 5}
	stopBits := map[float64]uint32{1: 1, 2: 2, 1.5: 3}
	list := []portSetting{
		{option: "baud", code: comPortBaud, value: uint32(t.Baud)},
		{option: "databits", code: comPortDataBits, value: uint32(t.DataBits)},
		{option: "parity", code: comPortParity, value: parity[t.Parity]},
		{option: "stopbits", code: comPortStopBits, value: stopBits[t.StopBits]},
	}
	switch t.DTR {
	case On:
		list = append(list, portSetting{option: "dtr", code: comPortControl, value: dtrOn})
	case Off:
		list = append(list, portSetting{option: "dtr", code: comPortControl, value: dtrOff})
	}
	switch t.RTS {
	case On:
		list = append(list, portSetting{option: "rts", code: comPortControl, value: rtsOn})
	case Off:
		list = append(list, portSetting{option: "rts", code: comPortControl, value: rtsOff})
	}
	return list
}

// text says a value in the words of the line's options.
func (s portSetting) text(value uint32) string {
	words := map[byte][]string{
		comPortParity:   {1: string(ParityNone), 2: string(ParityOdd), 3: string(ParityEven), 4: string(ParityMark), 5: string(ParitySpace)},
		comPortStopBits: {1: "1", 2: "2", 3: "1.5"},
		comPortControl:  {dtrOn: string(On), dtrOff: string(Off), rtsOn: string(On), rtsOff: string(Off)},
	}[s.code]
	if value < uint32(len(words)) && words[value] != "" {
		return words[value]
	}
	return strconv.FormatUint(uint64(value), 10)
}

// isAbout tells whether a server's answer is about this setting. One code has the
// two wires and more.
func (s portSetting) isAbout(code byte, value uint32) bool {
	if code != s.code {
		return false
	}
	switch s.option {
	case "dtr":
		return value == dtrOn || value == dtrOff
	case "rts":
		return value == rtsOn || value == rtsOff
	}
	return true
}

// valueError says which setting the server did not take.
type valueError struct {
	wire bool // dtr or rts
	err  error
}

func (e *valueError) Error() string { return e.err.Error() }

func (e *valueError) Unwrap() error { return e.err }

// unansweredError says what a server did not answer in time. It refuses by silence.
type unansweredError string

func (e unansweredError) Error() string {
	return "the serial server does not answer the request for " + string(e) + ": " + os.ErrDeadlineExceeded.Error()
}

// Is makes it match [ErrRefused].
func (e unansweredError) Is(target error) bool { return target == ErrRefused }

// Unwrap returns the time-out.
func (e unansweredError) Unwrap() error { return os.ErrDeadlineExceeded }

// telnet takes a server's bytes apart and keeps what is agreed. Its zero value has
// agreed on nothing.
type telnet struct {
	state telnetState
	verb  byte   // the command whose option comes next
	sub   []byte // the sub-negotiation's first bytes
	long  int    // how many there were

	ours   [256]consent // options that this side uses
	theirs [256]consent // options that the server uses
	out    []byte       // answers, 3 bytes each

	settings []portSetting
	phase    phase
}

// phase is how far the opening has come. What a server tells of its port before it was
// asked, and later, is news and no answer.
type phase byte

const (
	agreeing phase = iota // on the options
	setting               // the port
	opened
)

// telnetState is where in a command the next byte stands.
type telnetState byte

const (
	inData       telnetState = iota
	inCommand                // after IAC
	inOption                 // after IAC and WILL, WONT, DO or DONT
	inSub                    // after IAC SB
	inSubCommand             // after IAC in there
)

// consent is the state of an option on one side. Who only confirms what is agreed
// already says nothing: that keeps two sides from confirming for ever (RFC 854,
// page 3).
type consent byte

const (
	unused consent = iota
	requested
	used
)

// begin asks for what is needed and returns the bytes to send.
func (t *telnet) begin() []byte {
	t.ours[optBinary], t.theirs[optBinary] = requested, requested
	t.ours[optSGA], t.theirs[optSGA] = requested, requested
	t.ours[optComPort] = requested
	return []byte{
		iac, cmdWill, optBinary, iac, cmdDo, optBinary, iac, cmdWill, optSGA, iac, cmdDo, optSGA, iac, cmdWill, optComPort,
	}
}

// disagreed returns what the server has not agreed to yet, or nil.
func (t *telnet) disagreed() error {
	var missing []string
	if t.ours[optComPort] != used {
		missing = append(missing, "COM port control (RFC 2217)")
	}
	if t.ours[optBinary] != used || t.theirs[optBinary] != used {
		missing = append(missing, "binary transmission")
	}
	if missing == nil {
		return nil
	}
	return unansweredError(strings.Join(missing, " and "))
}

// set returns the bytes that set the port. Old bytes on the way are dropped; not
// every server confirms that.
func (t *telnet) set() []byte {
	t.phase = setting
	var out []byte
	for _, s := range t.settings {
		value := []byte{byte(s.value)}
		if s.code == comPortBaud {
			value = binary.BigEndian.AppendUint32(nil, s.value)
		}
		out = appendSub(out, s.code, value)
	}
	return appendSub(out, comPortPurge, []byte{purgeBoth})
}

func appendSub(dst []byte, code byte, value []byte) []byte {
	dst = append(dst, iac, cmdSB, optComPort, code)
	return append(quote(dst, value), iac, cmdSE)
}

// unset returns which settings the server has not answered yet, or nil.
func (t *telnet) unset() error {
	var missing []string
	e := &valueError{wire: true}
	for _, s := range t.settings {
		if s.done {
			continue
		}
		missing = append(missing, s.option+" "+s.text(s.value))
		e.wire = e.wire && s.code == comPortControl
	}
	if missing == nil {
		return nil
	}
	e.err = unansweredError(strings.Join(missing, ", "))
	return e
}

// answers returns what is to be sent, until the next call of receive.
func (t *telnet) answers() []byte {
	out := t.out
	t.out = t.out[:0]
	return out
}

// receive takes the commands out of p and returns how many bytes of data are left
// at its beginning. A command may begin in one call and end in another.
func (t *telnet) receive(p []byte) (int, error) {
	n := 0
	for _, b := range p {
		switch t.state {
		case inData:
			if b == iac {
				t.state = inCommand
				continue
			}
			p[n] = b
			n++
		case inCommand:
			if b == iac {
				p[n] = b
				n++
			}
			t.command(b)
		case inOption:
			t.state = inData
			if err := t.negotiate(b); err != nil {
				return n, err
			}
		case inSub:
			if b == iac {
				t.state = inSubCommand
				continue
			}
			t.keep(b)
		case inSubCommand:
			switch b {
			case iac:
				t.state = inSub
				t.keep(b)
			case cmdSE:
				t.state = inData
				if err := t.answered(t.sub); err != nil {
					return n, err
				}
			default: // the end is missing
				t.command(b)
			}
		}
		if t.long > maxSubNegotiation {
			return n, errEndless
		}
	}
	return n, nil
}

// command begins the command b. All that have no option (are you there, break, data
// mark, no operation) mean nothing to a meter.
func (t *telnet) command(b byte) {
	t.state = inData
	switch b {
	case cmdWill, cmdWont, cmdDo, cmdDont:
		t.state, t.verb = inOption, b
	case cmdSB:
		t.state, t.sub, t.long = inSub, t.sub[:0], 0
	}
}

// keep adds a byte to the sub-negotiation. The longest of interest is option, code
// and 4 bytes; the fifth shows that one is too long.
func (t *telnet) keep(b byte) {
	t.long++
	if len(t.sub) < 7 {
		t.sub = append(t.sub, b)
	}
}

// negotiate hears what the server says about an option: it is agreed to if it is
// one of ours, and else turned down.
func (t *telnet) negotiate(option byte) error {
	side, yes, no := &t.theirs[option], byte(cmdDo), byte(cmdDont)
	if t.verb == cmdDo || t.verb == cmdDont {
		side, yes, no = &t.ours[option], cmdWill, cmdWont
	}
	before := *side
	if t.verb == cmdWont || t.verb == cmdDont {
		*side = unused
		if before == used {
			t.out = append(t.out, iac, no, option)
		}
		switch {
		case option == optBinary:
			return errNotBinary
		case option == optComPort && t.phase != opened && t.ours[optComPort] != used:
			return errNoControl
		}
		return nil
	}
	if option != optBinary && option != optSGA && option != optComPort {
		t.out = append(t.out, iac, no, option)
		return nil
	}
	*side = used
	if before == unused {
		t.out = append(t.out, iac, yes, option)
	}
	return nil
}

// answered compares what the server has set with what was asked for.
func (t *telnet) answered(sub []byte) error {
	if t.phase != setting || len(sub) < 2 || sub[0] != optComPort {
		return nil
	}
	code := sub[1]
	var value uint32
	switch len(sub) {
	case 3:
		value = uint32(sub[2])
	case 6:
		value = binary.BigEndian.Uint32(sub[2:])
	default:
		return nil
	}
	for i := range t.settings {
		s := &t.settings[i]
		if s.isAbout(code, value) && !s.done {
			return errEcho // only a client says this
		}
		if code < comPortAnswer || !s.isAbout(code-comPortAnswer, value) {
			continue
		}
		if value != s.value {
			return &valueError{wire: s.code == comPortControl, err: fmt.Errorf(
				"%w %s %s and keeps %s", ErrRefused, s.option, s.text(s.value), s.text(value))}
		}
		s.done = true
	}
	return nil
}
