package link

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"kmp2mqtt/kmp"
)

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// dial opens a line to a new listener and returns the serial server's side, too.
func dial(t *testing.T) (kmp.Line, *net.TCPConn) {
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	target, err := Parse("tcp://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	line, err := Open(context.Background(), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = line.Close() })
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return line, server.(*net.TCPConn)
}

func TestTCPBytes(t *testing.T) {
	line, server := dial(t)
	if n, err := line.Write([]byte("request")); n != 7 || err != nil {
		t.Fatalf("Write = %d, %v", n, err)
	}
	got := make([]byte, 7)
	if _, err := io.ReadFull(server, got); err != nil || string(got) != "request" {
		t.Fatalf("the server got %q, %v", got, err)
	}
	if _, err := server.Write([]byte("answer!")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(line, got); err != nil || string(got) != "answer!" {
		t.Fatalf("the line got %q, %v", got, err)
	}
	if n, err := line.Read(nil); n != 0 || err != nil {
		t.Errorf("Read of an empty buffer = %d, %v", n, err)
	}
	if n, err := line.Write(nil); n != 0 || err != nil {
		t.Errorf("Write of nothing = %d, %v", n, err)
	}
}

func TestTCPReadDeadline(t *testing.T) {
	line, _ := dial(t)
	ended := make(chan error)
	go func() {
		_, err := line.Read(make([]byte, 1))
		ended <- err
	}()
	if err := line.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v, want os.ErrDeadlineExceeded", err)
	}
}

func TestTCPGone(t *testing.T) {
	line, server := dial(t)
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := line.Read(make([]byte, 1))
	if !errors.Is(err, io.EOF) {
		t.Fatalf("Read: %v, want io.EOF", err)
	}
	if s := err.Error(); !strings.Contains(s, "tcp://127.0.0.1:") || !strings.Contains(s, "one client") {
		t.Errorf("error %q does not name the line and the next step", s)
	}
}

func TestTCPReset(t *testing.T) {
	line, server := dial(t)
	if err := server.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := line.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("Read: %v, want io.EOF", err)
	}
	if _, err := line.Write([]byte{1}); !errors.Is(err, io.EOF) {
		t.Errorf("Write: %v, want io.EOF", err)
	}
}

func TestTCPAfterClose(t *testing.T) {
	line, _ := dial(t)
	ended := make(chan error)
	go func() {
		_, err := line.Read(make([]byte, 1))
		ended <- err
	}()
	for range 2 {
		if err := line.Close(); err != nil {
			t.Fatal(err)
		}
	}
	readErr := <-ended
	_, writeErr := line.Write([]byte{1})
	for op, err := range map[string]error{"read": readErr, "write": writeErr, "set deadline": line.SetReadDeadline(time.Now())} {
		var e *Error
		if !errors.Is(err, os.ErrClosed) || !errors.As(err, &e) || e.Op != op {
			t.Errorf("%s: %v, want os.ErrClosed", op, err)
		}
	}
}

func TestTCPStuck(t *testing.T) {
	line, _ := dial(t)
	line.(*tcpLine).writeTimeout = 30 * time.Millisecond
	_, err := line.Write(make([]byte, 64<<20))
	if !errors.Is(err, ErrStuck) || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write: %v, want ErrStuck", err)
	}
}

func TestTCPCloseWhileStuck(t *testing.T) {
	line, server := dial(t)
	line.(*tcpLine).writeTimeout = time.Hour
	ended := make(chan error)
	go func() {
		_, err := line.Write(make([]byte, 64<<20))
		ended <- err
	}()
	if _, err := io.ReadFull(server, make([]byte, 1)); err != nil { // Write is at work
		t.Fatal(err)
	}
	if err := line.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write: %v, want os.ErrClosed", err)
	}
}

func TestTCPRefused(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	target, err := Parse("tcp://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	line, err := Open(context.Background(), target)
	if err == nil || line != nil {
		t.Fatalf("Open = %v, %v; want an error alone", line, err)
	}
	for _, want := range []string{target.String(), "refused", "ser2net"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
}

func TestTCPCancelled(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	target, err := Parse("tcp://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithDeadline(context.Background(), time.Unix(1, 0))
	defer cancel()
	if _, err := Open(ctx, target); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open: %v, want context.DeadlineExceeded", err)
	}
	if _, err := openTCP(ctx, target); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("openTCP: %v, want context.DeadlineExceeded", err)
	}
}

func TestDialAdvice(t *testing.T) {
	tests := map[string]error{
		"host's name": &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "cellar", IsNotFound: true}},
		"name server": &net.OpError{Op: "dial", Err: &net.DNSError{Err: "i/o timeout", Name: "cellar", IsTimeout: true}},
		"no answer":   &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded},
		"check":       errors.New("else"),
	}
	for want, err := range tests {
		if got := dialAdvice(err); !strings.Contains(got, want) {
			t.Errorf("%v: advice %q does not say %q", err, got, want)
		}
	}
}
