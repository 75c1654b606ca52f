package logbook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kmp2mqtt/kmp"
)

// setTolerance is how far off a clock may be that was just set: the time goes over a slow
// line, and the meter tells whole seconds.
const setTolerance = 2 * time.Second

// ErrNotSet says that the meter took a time and shows another one.
var ErrNotSet = errors.New("logbook: the meter's clock was not set")

// StandardTime is what a meter's clock at home in zone should show at a moment: meters run
// on standard time all year.
func StandardTime(t time.Time, zone *time.Location) time.Time {
	return t.In(time.FixedZone("", int(standardOffset(t, zone)/time.Second)))
}

// SetClock sets the meter's clock to the standard time of its zone, at the beginning of
// the next second, and reads it back. One that is off by more than two seconds then wraps
// [ErrNotSet]. Other errors are those of [kmp.Conn.SetClock] and [Clock]; a meter that
// refuses is silent ([kmp.ErrNoReply]). It is not tried again.
func SetClock(ctx context.Context, src Source) (ClockReading, error) {
	next := time.Now().Truncate(time.Second).Add(time.Second)
	wait := time.NewTimer(time.Until(next))
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return ClockReading{}, ctx.Err()
	case <-wait.C:
	}
	t := StandardTime(next, src.Zone)
	date := kmp.Date{Year: t.Year(), Month: int(t.Month()), Day: t.Day()}
	if err := src.Conn.SetClock(ctx, src.Address, date, kmp.Clock{Hour: t.Hour(), Minute: t.Minute(), Second: t.Second()}); err != nil {
		return ClockReading{}, fmt.Errorf("logbook: set clock: %w", err)
	}
	c, err := Clock(ctx, src)
	if err == nil && c.Drift.Abs() > setTolerance {
		err = fmt.Errorf("%w: it is off by %s", ErrNotSet, c.Drift)
	}
	return c, err
}
