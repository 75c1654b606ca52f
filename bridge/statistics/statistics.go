// Package statistics writes hours that a meter's own log has healed into Home Assistant's long-term statistics.
//
// MQTT cannot do it: what arrives there counts from now on. Home Assistant's websocket can, with the command
// recorder/import_statistics (developers.home-assistant.io, "WebSocket API" and the blog of 2025-10-16, "Changes to the
// recorder statistics API"; HOMEASSISTANT.md section 7). The websocket is spoken with github.com/gorilla/websocket, which
// the MQTT session has anyway: MQTT over websockets needs it, so a second library would only be a second one to keep up
// to date.
//
// One rule stands above all: an hour that has a row is never written. So an import can be repeated at any time, what
// Home Assistant counted itself stays as it is, and an hour is done when Home Assistant shows a row for it:
//
//	Source.Pending -> which statistic? -> rows that are there -> join -> import -> read again -> Source.Done
package statistics

import (
	"context"
	"log/slog"
	"net"
	"net/url"
	"time"

	"kmp2mqtt/kmp"
)

// Config says which Home Assistant and who we are there.
type Config struct {
	URL   *url.URL // http, https, ws or wss; "/api/websocket" is added unless the path ends in "/websocket"
	Token string   // of an administrator, or the supervisor's
	Log   *slog.Logger

	// Dial replaces the real stream in tests; nil: TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Point is what a counter showed at a full hour.
type Point struct {
	End   time.Time // the full hour at which it showed Value: the end of the hour whose row it becomes
	Value kmp.Decimal
}

// Series is one counter of one meter, and hours that are to be imported.
//
// They go to the statistics of the sensor with UniqueID, whatever its entity id is by now. When Home Assistant has no
// such sensor, or Always is set, they go to the external statistic that [ExternalID] names instead. Hours of a sensor
// that is disabled, or that is not there with OwnOnly, go nowhere: nobody wants them.
type Series struct {
	Serial   string   // of the meter
	UniqueID string   // of its sensor in Home Assistant: kmp_<serial>_<register name>
	Name     string   // for people: the name of external statistics
	Register string   // the register's name in the catalog
	Unit     kmp.Unit // of the values, which are as catalog.Value gives them
	Log      kmp.LogType
	Always   bool    // external statistics, whatever sensor there is
	OwnOnly  bool    // no external statistics
	Points   []Point // in any order; of several for an hour the first counts
}

// Source is where the hours come from. Its methods are called from Run's goroutine alone.
type Source interface {
	// Pending returns what is not done yet, or some of it: it is asked again as soon as that is done. An error is logged,
	// and it is asked again later.
	Pending() ([]Series, error)
	// Done says that these points of a series are settled: Home Assistant has rows for their hours, or the log tells why
	// it will never get them from here. Points that must wait are not among them and stay pending, so a series may be
	// told several times. After an error the connection ends; the points are settled again later, which changes nothing.
	Done(Series) error
	// Changed gives a token when there may be something new.
	Changed() <-chan struct{}
}

// Run imports what is pending until ctx ends. It is connected only while there is something to import. It fails only
// into the log: an outage logs once for each reason, and once when it ends.
func Run(ctx context.Context, cfg Config, src Source) {
	im := newImporter(cfg, src)
	for failures := 0; ctx.Err() == nil; {
		again, err := im.round(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			im.failed(err)
			if !sleep(ctx, pauseAfter(err, failures)) {
				return
			}
			failures++
			continue
		}
		failures = 0
		select {
		case <-ctx.Done():
			return
		case <-src.Changed():
			if !sleep(ctx, settleTime) { // what comes together is imported together
				return
			}
		case <-after(again):
		}
	}
}

// after is time.After; 0 is never.
func after(d time.Duration) <-chan time.Time {
	if d == 0 {
		return nil
	}
	return time.After(d)
}

// sleep waits; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
