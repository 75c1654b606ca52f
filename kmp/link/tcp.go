package link

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"time"

	"kmp2mqtt/kmp"
)

// tcpLine is a serial server's raw port. It adds to the net.Conn a bound for Write
// and errors that say what to do.
type tcpLine struct {
	conn         net.Conn
	name         string
	writeTimeout time.Duration
}

func openTCP(ctx context.Context, t Target) (kmp.Line, error) {
	name := t.String()
	dialer := net.Dialer{
		Timeout: connectTimeout,
		// A serial server that lost its power says nothing. The line must notice by
		// itself, idle or not: a new connection is all that helps.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: deadAfter / 3, Interval: deadAfter / 3, Count: 2},
		Control:         limitSilence,
	}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port))))
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, &Error{Op: "open", Line: name, Err: cause, Advice: "gave up connecting before there was an answer"}
		}
		return nil, &Error{Op: "open", Line: name, Err: err, Advice: dialAdvice(err)}
	}
	return &tcpLine{conn: conn, name: name, writeTimeout: writeTimeout}, nil
}

// dialAdvice says what to look at when there is no connection.
func dialAdvice(err error) string {
	var (
		dns     *net.DNSError
		timeout net.Error
	)
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "check the host's name, or write its IP address"
	case errors.As(err, &dns):
		return "the name server did not answer: check the network, or write the IP address"
	case isRefused(err):
		return "check the port, that the serial server (ser2net or the like) is running, and that no other client has its port if it takes one only"
	case isUnreachable(err):
		return "no way to that address: check the address and this machine's network"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer: check the address, that the serial server has power, and that no firewall is between"
	}
	return "check the address and the serial server"
}

// Read reads what has arrived, at least one byte.
func (l *tcpLine) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := l.conn.Read(p)
	if err != nil && n == 0 { // an error with bytes comes again
		return 0, l.fail("read", err)
	}
	return n, nil
}

// Write sends all of p within the time limit, or fails.
func (l *tcpLine) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := l.conn.SetWriteDeadline(time.Now().Add(l.writeTimeout)); err != nil {
		return 0, l.fail("write", err)
	}
	n, err := l.conn.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return n, &Error{Op: "write", Line: l.name, Err: ErrStuck, Advice: "the serial server does not read: restart it"}
	}
	if err != nil {
		return n, l.fail("write", err)
	}
	return n, nil
}

// SetReadDeadline sets when Read gives up; the zero time is never.
func (l *tcpLine) SetReadDeadline(t time.Time) error {
	if err := l.conn.SetReadDeadline(t); err != nil {
		return l.fail("set deadline", err)
	}
	return nil
}

// Close closes the connection. A second Close does nothing.
func (l *tcpLine) Close() error {
	if err := l.conn.Close(); err != nil && !isClosed(err) {
		return l.fail("close", err)
	}
	return nil
}

func (l *tcpLine) fail(op string, err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	case isClosed(err):
		return closedError(op, l.name)
	}
	// Whatever else goes wrong on an open connection (reset, keep-alive without
	// answer, no route) ends it.
	return goneError(op, l.name, "the serial server ended the connection", err,
		"if that happens again and again, it may serve one client at a time or close idle connections: look at its settings")
}
