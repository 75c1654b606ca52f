package logbook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kmp2mqtt/kmp"
)

// ClockReading is a meter's clock beside the true time, exact to a second: the meter
// tells no fractions, and when in the exchange it looked at its clock is not known.
type ClockReading struct {
	Meter    time.Time     // what the meter's clock showed, as [Row].Time
	At       time.Time     // when it did
	Drift    time.Duration // Meter minus At, in whole seconds: more than 0 is a clock that is ahead
	DSTKnown bool          // the meter tells daylight saving time; else its clock is taken to run on standard time
}

// Correct notes in rows that the meter's clock was compared: it takes the clock to have
// been off by the same when it wrote them.
func (c ClockReading) Correct(rows []Row) {
	for i := range rows {
		rows[i].Correction, rows[i].Corrected = -c.Drift, true
	}
}

const (
	// clockTries is how often the clock is read at most, and quickly how long an
	// exchange may take whose middle is exact enough: a retry, or the quiet after a
	// failure before it, takes longer.
	clockTries = 3
	quickly    = 2 * time.Second
)

// Clock reads the meter's clock and compares it with the true time, which is that of
// the middle of the exchange: one of 2 s at most, else the shortest of three. Date and
// time of day come in one answer, so that midnight cannot fall between them. A meter
// that does not tell them gives [ErrNoClock]; other errors are those of [kmp.Conn.Do].
func Clock(ctx context.Context, src Source) (ClockReading, error) {
	var best ClockReading
	shortest := time.Duration(-1)
	ids := []uint16{regDate, regClock, regDateTime}
	for range clockTries {
		var a kmp.GetRegisterAnswer
		sent := time.Now()
		err := src.Conn.Do(ctx, src.Address, &kmp.GetRegisterRequest{IDs: ids}, &a)
		took := time.Since(sent)
		if errors.Is(err, kmp.ErrCodec) && len(ids) > 2 {
			ids = ids[:2] // a shorter answer may come through
			continue
		}
		if err != nil && shortest >= 0 {
			return best, nil // what is known will do
		} else if err != nil {
			return ClockReading{}, fmt.Errorf("logbook: clock: %w", err)
		}
		meter, dst := timeOf(a.Registers, src.Zone, false)
		if meter.IsZero() {
			return ClockReading{}, ErrNoClock
		}
		if shortest < 0 || took < shortest {
			at := sent.Add(took / 2)
			// The clock shows a second from its beginning to its end.
			drift := meter.Add(time.Second / 2).Sub(at).Round(time.Second)
			best, shortest = ClockReading{Meter: meter, At: at, Drift: drift, DSTKnown: dst}, took
		}
		if shortest <= quickly {
			break
		}
	}
	return best, nil
}
