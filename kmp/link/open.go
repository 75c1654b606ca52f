package link

import (
	"context"
	"errors"
	"os"
	"time"

	"kmp2mqtt/kmp"
)

const (
	// connectTimeout bounds the opening of a line over TCP; a serial server in the
	// same house answers in milliseconds.
	connectTimeout = 10 * time.Second

	// writeTimeout bounds one Write. A request of 8 registers is on the wire within
	// 0.25 s at 1200 baud.
	writeTimeout = 5 * time.Second

	// deadAfter is how long the other end of a TCP connection may be dead before the
	// connection is. A serial server confirms within milliseconds.
	deadAfter = 15 * time.Second
)

// Open opens the line. It gives up when ctx ends, and after 10 s at the latest, to
// which the target's warm-up adds; later ctx has no influence on the line. What
// arrived at a serial port before it was opened is dropped, and what comes during the
// warm-up.
//
// Errors are of type [*Error]. In them errors.Is finds [fs.ErrNotExist] (no such
// device or adapter), [fs.ErrPermission], [ErrBusy], [ErrRefused], the end of ctx and
// the system's numbers such as ECONNREFUSED and EHOSTUNREACH; errors.As finds a
// [*net.OpError] for all that fails on the way to a serial server, and a
// [*net.DNSError] for a host's name that is not known.
func Open(ctx context.Context, t Target) (kmp.Line, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, &Error{Op: "open", Line: t.String(), Err: err}
	}
	line, err := open(ctx, t)
	if err != nil || t.Warmup <= 0 {
		return line, err
	}
	if err := warm(ctx, line, t); err != nil {
		_ = line.Close() // the first error is the one to tell
		return nil, err
	}
	return line, nil
}

func open(ctx context.Context, t Target) (kmp.Line, error) {
	switch t.Scheme {
	case SchemeSerial:
		return openSerial(t)
	case SchemeUSB:
		return openUSB(t, "/")
	case SchemeTCP:
		return openTCP(ctx, t)
	case SchemeRFC2217:
		return openRFC2217(ctx, t)
	case SchemeSim:
		return openSim(ctx, t)
	}
	return nil, &Error{Op: "open", Line: t.String(), Err: errors.New("unknown kind of line"), Advice: "make the target with Parse"}
}

// warm gives a head that is powered by the port's wires the time to come up, and
// drops what it says meanwhile.
func warm(ctx context.Context, line kmp.Line, t Target) error {
	if err := line.SetReadDeadline(time.Now().Add(t.Warmup)); err != nil {
		return openFailed(t, err)
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		_ = line.SetReadDeadline(time.Unix(1, 0)) // a line that fails here fails the read as well
	})
	err := drop(line)
	if !stop() {
		<-ended
		return &Error{Op: "open", Line: t.String(), Err: context.Cause(ctx), Advice: "gave up during the warm-up of " + t.Warmup.String()}
	}
	if err == nil {
		err = line.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return openFailed(t, err)
	}
	return nil
}

// drop reads until the deadline passes.
func drop(line kmp.Line) error {
	var scratch [256]byte
	for {
		if _, err := line.Read(scratch[:]); errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// openFailed makes an error of an open line one of its opening.
func openFailed(t Target, err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return &Error{Op: "open", Line: e.Line, Err: e.Err, Advice: e.Advice}
	}
	return &Error{Op: "open", Line: t.String(), Err: err}
}
