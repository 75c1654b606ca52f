package sim

import (
	"math"
	"time"
)

// clock is the meter's own clock. Moments, and what it shows at them, are counted
// from the simulated time at which the simulation started. Before that it was as wrong
// as at the start.
type clock struct {
	since time.Duration // when it was set last, or 0
	shown time.Duration // what it showed then
	drift float64       // seconds that it gains in one
}

// Beyond latest the clock stands still; never is when it shows more.
const (
	latest = 250 * 365 * 24 * time.Hour
	never  = time.Duration(math.MaxInt64)
)

// at is what the clock shows at a moment that is not before it was set.
func (c clock) at(moment time.Duration) time.Duration {
	d := moment - c.since
	if d > latest-c.shown {
		return latest
	}
	shown := c.shown + d
	if d > 0 {
		shown += time.Duration(float64(d) * c.drift)
	}
	return min(shown, latest)
}

// when is the first moment at which the clock shows that much.
func (c clock) when(shown time.Duration) time.Duration {
	if shown > latest {
		return never
	}
	d := shown - c.shown
	if d > 0 {
		d -= time.Duration(float64(d) * c.drift / (1 + c.drift))
	}
	moment := c.since + d
	for c.at(moment) < shown { // what was lost in rounding
		moment++
	}
	for c.at(moment-1) >= shown {
		moment--
	}
	return moment
}

// seconds is a time since the start as seconds since 1970 of local standard time,
// rounded down.
func (m *Meter) seconds(d time.Duration) int64 {
	return m.config.Start.Add(d).Unix() + m.offset
}

// since is the reverse: seconds of local standard time as a time since the start.
func (m *Meter) since(seconds int64) time.Duration {
	return time.Unix(seconds-m.offset, 0).Sub(m.config.Start)
}

// Clock returns the time as the meter's own clock has it: [Meter.Now] when the clock
// is right.
func (m *Meter) Clock() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.advance()
}

// SetClock sets the meter's clock to t, as the command of that name does. From there
// it drifts on. Counters do not change. The logs go by the clock: a row is written when
// the clock passes the full hour, so hours that are jumped over have no row, and hours
// that are lived twice have two, the second with the higher id.
func (m *Meter) SetClock(t time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	shown := t.Sub(m.config.Start)
	m.change(func(m *Meter, now time.Duration) {
		m.clock = clock{since: now, shown: shown, drift: m.clock.drift}
		for _, r := range m.logs {
			m.await(r, r.after(m.seconds(shown)))
		}
	})
}
