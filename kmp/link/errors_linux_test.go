package link

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// What [Open] promises: the reason of a failed opening is found by errors.Is and
// errors.As, whatever the kind of line. Permission and busy are in TestOpenErrorAdvice
// and TestSerialBusy.
func TestOpenErrorsAreFound(t *testing.T) {
	refused := closedPort(t)
	raw := refused
	raw.Scheme = SchemeTCP
	for name, tt := range map[string]struct {
		target Target
		is     error
		as     any
	}{
		"tcp refused":     {raw, unix.ECONNREFUSED, new(*net.OpError)},
		"rfc2217 refused": {refused, unix.ECONNREFUSED, new(*net.OpError)},
		"tcp host":        {tcpTarget("no..such", 1, nil), nil, new(*net.DNSError)},
		"rfc2217 host":    {tcpTarget("no..such", 1, func(t *Target) { t.Scheme = SchemeRFC2217 }), nil, new(*net.DNSError)},
		"serial":          {serialTarget("/dev/no-such-port", nil), fs.ErrNotExist, new(*Error)},
		"usb":             {usbTarget("ffff:ffff", "", nil), fs.ErrNotExist, new(*Error)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(context.Background(), tt.target)
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v, want %v", err, tt.is)
			}
			if err == nil || !errors.As(err, tt.as) {
				t.Errorf("%v, want a %T", err, tt.as)
			}
		})
	}
	err := openError(serialTarget("/dev/ttyUSB0", nil), unix.ENXIO, t.TempDir())
	if !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, unix.ENXIO) {
		t.Errorf("a node without a device: %v", err)
	}
}

// A connection whose peer is just gone ends with an error that means: open it anew. It
// must not look like a passed deadline, after which the line would be used on.
func TestTCPHalfOpen(t *testing.T) {
	l := &tcpLine{name: "tcp://h:1"}
	for _, cause := range []error{unix.ETIMEDOUT, unix.EHOSTUNREACH, unix.ECONNRESET, unix.EPIPE} {
		err := l.fail("read", &net.OpError{Op: "read", Err: os.NewSyscallError("read", cause)})
		if !errors.Is(err, io.EOF) || !errors.Is(err, cause) || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v: %v", cause, err)
		}
	}
}

// A serial server that restarts ends the lines that were open.
func TestRFC2217Restarted(t *testing.T) {
	line, p := controlled(t)
	if err := p.conn.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it stays so
		if _, err := line.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("Read: %v, want io.EOF", err)
		}
	}
}
