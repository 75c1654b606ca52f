package link

import (
	"context"
	"errors"
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
)

// Open opens the line. It gives up when ctx ends, and after 10 s at the latest;
// later ctx has no influence on the line. What arrived at a serial port before it
// was opened is dropped. Errors are of type [*Error].
func Open(ctx context.Context, t Target) (kmp.Line, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, &Error{Op: "open", Line: t.String(), Err: err}
	}
	switch t.Scheme {
	case SchemeSerial:
		return openSerial(t)
	case SchemeTCP:
		return openTCP(ctx, t)
	case SchemeRFC2217:
		return openRFC2217(ctx, t)
	case SchemeSim:
		return openSim(ctx, t)
	}
	return nil, &Error{Op: "open", Line: t.String(), Err: errors.New("unknown kind of line"), Advice: "make the target with Parse"}
}
