package link

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.bug.st/serial"

	"kmp2mqtt/kmp"
)

// slice bounds one wait inside Read and Write, and so how late they notice a new
// deadline or Close. The port's own wait knows neither.
const slice = 20 * time.Millisecond

// device is an open serial port whose calls come back within wait. It is never
// called after close.
type device interface {
	read(p []byte, wait time.Duration) (int, error)  // (0, nil): nothing came
	write(p []byte, wait time.Duration) (int, error) // (0, nil): no room yet
	close() error
}

// errGone is what a device returns when it was unplugged.
var errGone = errors.New("no such device any more")

func openSerial(t Target) (kmp.Line, error) {
	name := t.String()
	dev, err := openDevice(t.Device, serialMode(t))
	if err != nil {
		return nil, openError(t, err, "/dev/serial/by-id")
	}
	return &serialLine{name: name, dev: dev, writeTimeout: writeTimeout}, nil
}

// openPort locks a port, opens it and drops what came before.
func openPort(name string, mode *serial.Mode) (port serial.Port, lock int, err error) {
	if lock, err = openLocked(name); err != nil {
		return nil, -1, err
	}
	if port, err = serial.Open(name, mode); err == nil {
		if err = port.ResetInputBuffer(); err == nil {
			return port, lock, nil
		}
		_ = port.Close() // the first error is the one to tell, here and below
	}
	_ = closeLocked(lock)
	return nil, -1, err
}

// serialMode tells the settings in the serial library's words.
func serialMode(t Target) *serial.Mode {
	mode := &serial.Mode{BaudRate: t.Baud, DataBits: t.DataBits}
	switch t.Parity {
	case ParityEven:
		mode.Parity = serial.EvenParity
	case ParityOdd:
		mode.Parity = serial.OddParity
	case ParityMark:
		mode.Parity = serial.MarkParity
	case ParitySpace:
		mode.Parity = serial.SpaceParity
	default:
		mode.Parity = serial.NoParity
	}
	switch t.StopBits {
	case 1:
		mode.StopBits = serial.OneStopBit
	case 1.5:
		mode.StopBits = serial.OnePointFiveStopBits
	default:
		mode.StopBits = serial.TwoStopBits
	}
	// Both wires are set together or not at all. Not at all unless asked for: a
	// port without these wires, such as a pseudo terminal, cannot be opened with
	// them. A wire that was not asked for keeps what the system gives it: on.
	if t.DTR != Untouched || t.RTS != Untouched {
		mode.InitialStatusBits = &serial.ModemOutputBits{DTR: t.DTR != Off, RTS: t.RTS != Off}
	}
	return mode
}

// openError names the next step. candidates is the folder where the system lists
// serial ports by name.
func openError(t Target, err error, candidates string) error {
	e := &Error{Op: "open", Line: t.String(), Err: err}
	code := serial.PortErrorCode(-1)
	if port, ok := errors.AsType[*serial.PortError](err); ok {
		code = port.Code()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) || code == serial.PortNotFound:
		e.Err = fs.ErrNotExist // the library's own error does not say so to errors.Is
		e.Advice = missingAdvice(candidates)
	case errors.Is(err, fs.ErrPermission) || code == serial.PermissionDenied:
		e.Err = fs.ErrPermission
		e.Advice = "add the user to the group of the device, usually dialout (sudo usermod -aG dialout USER), and log in again; in a container give it that group"
	case errors.Is(err, ErrBusy) || code == serial.PortBusy:
		e.Err = ErrBusy
		e.Advice = "stop the other program, and check that no other line here is the same port by another name"
	case unplugged(err):
		e.Err = fmt.Errorf("%w (%w)", fs.ErrNotExist, err)
		e.Advice = "the device node is there, but no device behind it: plug it in again"
	case code == serial.InvalidSerialPort && (t.DTR != Untouched || t.RTS != Untouched):
		e.Advice = "leave out the options dtr and rts: a pseudo terminal and some adapters do not have these wires"
	case code == serial.InvalidSerialPort:
		e.Advice = "check that it is a serial port, and that it can be set to the options given"
	}
	return e
}

func missingAdvice(candidates string) string {
	found, err := filepath.Glob(filepath.Join(candidates, "*"))
	if err != nil || len(found) == 0 {
		return "plug the adapter in; in a container, pass the device in"
	}
	const most = 8 // enough to choose from, and still one log line
	if len(found) > most {
		found = append(found[:most], "...")
	}
	return "there is " + strings.Join(found, ", ")
}

// serialLine makes a device a kmp.Line.
type serialLine struct {
	name         string
	dev          device
	writeTimeout time.Duration

	closed   atomic.Bool
	deadline atomic.Pointer[time.Time] // nil or zero: none

	reading sync.Mutex // held by Read
	writing sync.Mutex // held by Write
	stuck   bool       // under writing: a Write failed half way
}

// Read reads what has arrived, at least one byte.
func (l *serialLine) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	l.reading.Lock()
	defer l.reading.Unlock()
	for {
		if l.closed.Load() {
			return 0, closedError("read", l.name)
		}
		wait := slice
		if d := l.deadline.Load(); d != nil && !d.IsZero() {
			wait = min(wait, time.Until(*d))
			if wait <= 0 {
				return 0, os.ErrDeadlineExceeded
			}
		}
		n, err := l.dev.read(p, wait)
		if n > 0 {
			return n, nil // an error with it comes again
		}
		if err != nil {
			return 0, l.fail("read", err)
		}
	}
}

// Write hands all of p to the system within the time limit, or fails. A request
// fits the system's buffer at once, so that it goes out without a gap, and Write
// returns before it is on the wire.
func (l *serialLine) Write(p []byte) (int, error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	deadline := time.Now().Add(l.writeTimeout)
	for sent := 0; ; {
		switch {
		case l.closed.Load():
			return sent, closedError("write", l.name)
		case sent == len(p):
			return sent, nil
		}
		wait := min(slice, time.Until(deadline))
		if l.stuck || wait <= 0 {
			l.stuck = true
			return sent, &Error{Op: "write", Line: l.name, Err: ErrStuck, Advice: "unplug the adapter and plug it in again"}
		}
		n, err := l.dev.write(p[sent:], wait)
		sent += n
		if err != nil {
			return sent, l.fail("write", err)
		}
	}
}

// SetReadDeadline sets when Read gives up, also one that is waiting already; the
// zero time is never.
func (l *serialLine) SetReadDeadline(t time.Time) error {
	if l.closed.Load() {
		return closedError("set deadline", l.name)
	}
	l.deadline.Store(&t)
	return nil
}

// Close waits for Read and Write to leave, one slice at most, before it closes the
// port: a number that is in use by them would otherwise go to the next file opened
// in this process, and a request with it. What was written and is not yet on the
// wire is dropped, because the system would wait for a device that is stuck. A
// second Close does nothing.
func (l *serialLine) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	l.reading.Lock()
	defer l.reading.Unlock()
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.dev.close(); err != nil {
		return &Error{Op: "close", Line: l.name, Err: err}
	}
	return nil
}

// fail tells an unplugged device from the rest. The error of a read or write that
// is not that one is passed on as it is.
func (l *serialLine) fail(op string, err error) error {
	if errors.Is(err, errGone) || errors.Is(err, io.EOF) || unplugged(err) {
		return goneError(op, l.name, "the device is gone", err, "plug it in again, and check its cable")
	}
	return &Error{Op: op, Line: l.name, Err: err}
}
