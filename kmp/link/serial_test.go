package link

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.bug.st/serial"
)

// slowDevice gives its bytes one by one and says "nothing" in between, as the
// serial library does: (0, nil).
type slowDevice struct {
	silent time.Duration // how long before each byte
	next   time.Duration // what is left of it
	give   string
	took   string
	full   bool // takes nothing
	err    error
	closed int
}

func (d *slowDevice) read(p []byte, wait time.Duration) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	if d.give == "" || d.next > wait {
		time.Sleep(wait)
		d.next -= wait
		return 0, nil
	}
	time.Sleep(d.next)
	d.next = d.silent
	p[0] = d.give[0]
	d.give = d.give[1:]
	return 1, nil
}

func (d *slowDevice) write(p []byte, wait time.Duration) (int, error) {
	if d.full {
		time.Sleep(wait)
		return 0, d.err
	}
	d.took += string(p[:1])
	return 1, d.err
}

func (d *slowDevice) close() error {
	d.closed++
	return nil
}

func slowLine(d *slowDevice) *serialLine {
	d.next = d.silent
	return &serialLine{name: "/dev/slow", dev: d, writeTimeout: writeTimeout}
}

func TestSerialReadNeverZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := slowLine(&slowDevice{silent: 7 * time.Second, give: "ab"})
		for _, want := range []byte("ab") {
			buf := make([]byte, 4)
			if n, err := line.Read(buf); n != 1 || err != nil || buf[0] != want {
				t.Fatalf("Read = %d, %v, %q", n, err, buf)
			}
		}
		if n, err := line.Read(nil); n != 0 || err != nil {
			t.Errorf("Read of an empty buffer = %d, %v", n, err)
		}
	})
}

func TestSerialReadDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := slowLine(&slowDevice{silent: time.Second, give: "abc"})
		start := time.Now()
		if err := line.SetReadDeadline(start.Add(333 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4)
		if n, err := line.Read(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("Read = %d, %v; want os.ErrDeadlineExceeded", n, err)
		}
		if got := time.Since(start); got != 333*time.Millisecond {
			t.Errorf("the deadline took %v, want 333ms", got)
		}

		// One that has passed already: at once, and also when there are bytes.
		if n, err := line.Read(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read = %d, %v; want os.ErrDeadlineExceeded", n, err)
		}
		if got := time.Since(start); got != 333*time.Millisecond {
			t.Errorf("a passed deadline took %v more", got-333*time.Millisecond)
		}

		if err := line.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		if n, err := line.Read(buf); n != 1 || err != nil {
			t.Errorf("Read without a deadline = %d, %v", n, err)
		}
	})
}

// A deadline set by another goroutine reaches a Read that waits already.
func TestSerialReadInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := slowLine(&slowDevice{silent: time.Hour, give: "a"})
		for _, before := range []time.Time{{}, time.Now().Add(time.Minute)} {
			if err := line.SetReadDeadline(before); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error)
			go func() {
				_, err := line.Read(make([]byte, 1))
				ended <- err
			}()
			time.Sleep(time.Second + time.Millisecond) // fake time: Read waits, in the middle of a slice
			start := time.Now()
			if err := line.SetReadDeadline(start); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Read: %v, want os.ErrDeadlineExceeded", err)
			}
			if late := time.Since(start); late > slice {
				t.Errorf("Read ended after %v", late)
			}
		}
	})
}

func TestSerialAfterClose(t *testing.T) {
	dev := &slowDevice{give: "a"}
	line := slowLine(dev)
	for range 2 {
		if err := line.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if dev.closed != 1 {
		t.Errorf("the device was closed %d times", dev.closed)
	}
	_, readErr := line.Read(make([]byte, 1))
	_, writeErr := line.Write([]byte{1})
	for op, err := range map[string]error{"read": readErr, "write": writeErr, "set deadline": line.SetReadDeadline(time.Now())} {
		var e *Error
		if !errors.Is(err, os.ErrClosed) || !errors.As(err, &e) || e.Op != op || e.Line != "/dev/slow" {
			t.Errorf("%s: %v, want os.ErrClosed", op, err)
		}
	}
	if dev.took != "" || dev.give != "a" {
		t.Errorf("the device was used after Close: %+v", dev)
	}
}

func TestSerialWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev := &slowDevice{}
		line := slowLine(dev)
		if n, err := line.Write([]byte("request")); n != 7 || err != nil || dev.took != "request" {
			t.Errorf("Write = %d, %v; the device took %q", n, err, dev.took)
		}
		if n, err := line.Write(nil); n != 0 || err != nil {
			t.Errorf("Write of nothing = %d, %v", n, err)
		}

		dev.full = true
		start := time.Now()
		if n, err := line.Write([]byte("x")); n != 0 || !errors.Is(err, ErrStuck) {
			t.Errorf("Write = %d, %v; want ErrStuck", n, err)
		}
		if got := time.Since(start); got != writeTimeout {
			t.Errorf("Write gave up after %v, want %v", got, writeTimeout)
		}
	})
}

func TestSerialDeviceError(t *testing.T) {
	broken := errors.New("parity of the moon")
	line := slowLine(&slowDevice{err: broken})
	_, readErr := line.Read(make([]byte, 1))
	_, writeErr := line.Write([]byte{1})
	for _, err := range []error{readErr, writeErr} {
		if !errors.Is(err, broken) || !strings.Contains(err.Error(), "/dev/slow: parity of the moon") {
			t.Errorf("error %v, want the device's own", err)
		}
	}
}

func TestSerialMode(t *testing.T) {
	tests := map[string]serial.Mode{
		"":                        {BaudRate: 1200, DataBits: 8, Parity: serial.NoParity, StopBits: serial.TwoStopBits},
		"baud=9600&stopbits=1":    {BaudRate: 9600, DataBits: 8, Parity: serial.NoParity, StopBits: serial.OneStopBit},
		"databits=5&stopbits=1.5": {BaudRate: 1200, DataBits: 5, Parity: serial.NoParity, StopBits: serial.OnePointFiveStopBits},
		"parity=even":             {BaudRate: 1200, DataBits: 8, Parity: serial.EvenParity, StopBits: serial.TwoStopBits},
		"parity=odd":              {BaudRate: 1200, DataBits: 8, Parity: serial.OddParity, StopBits: serial.TwoStopBits},
		"parity=mark":             {BaudRate: 1200, DataBits: 8, Parity: serial.MarkParity, StopBits: serial.TwoStopBits},
		"parity=space&databits=7": {BaudRate: 1200, DataBits: 7, Parity: serial.SpaceParity, StopBits: serial.TwoStopBits},
		"dtr=off":                 {BaudRate: 1200, DataBits: 8, StopBits: serial.TwoStopBits, InitialStatusBits: &serial.ModemOutputBits{RTS: true}},
		"rts=off":                 {BaudRate: 1200, DataBits: 8, StopBits: serial.TwoStopBits, InitialStatusBits: &serial.ModemOutputBits{DTR: true}},
	}
	for query, want := range tests {
		target, err := parse("COM1?"+query, "windows")
		if err != nil {
			t.Fatal(err)
		}
		got := serialMode(target)
		gotBits, wantBits := got.InitialStatusBits, want.InitialStatusBits
		got.InitialStatusBits, want.InitialStatusBits = nil, nil
		if *got != want {
			t.Errorf("%s: mode %+v, want %+v", query, *got, want)
		}
		if (gotBits == nil) != (wantBits == nil) || gotBits != nil && *gotBits != *wantBits {
			t.Errorf("%s: wires %+v, want %+v", query, gotBits, wantBits)
		}
	}
}

func TestOpenErrorAdvice(t *testing.T) {
	target := serialTarget("/dev/ttyUSB0", nil)
	ports := t.TempDir()

	err := openError(target, &fs.PathError{Op: "open", Path: "x", Err: fs.ErrNotExist}, ports)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "/dev/ttyUSB0") || !strings.Contains(err.Error(), "plug the adapter in") {
		t.Errorf("missing, nothing else there: %v", err)
	}

	candidate := filepath.Join(ports, "usb-FTDI_A9-if00-port0")
	if err := os.WriteFile(candidate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err = openError(target, fs.ErrNotExist, ports)
	if !strings.Contains(err.Error(), "there is "+candidate) {
		t.Errorf("missing, another there: %v", err)
	}

	err = openError(target, fs.ErrPermission, ports)
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "dialout") {
		t.Errorf("not allowed: %v", err)
	}
}
