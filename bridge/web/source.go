// Package web is the bridge's window: a page for the owner, the same as JSON for programs,
// numbers for Prometheus, and what machines ask for to know that all is well.
//
// It sees the bridge as a [Source] and never waits for it; whoever looks through the window
// costs the schedule nothing.
package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"kmp2mqtt/bridge/battery"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/census"
	"kmp2mqtt/kmp/diagnosis"
)

// Source is the bridge as the window sees it. All methods may be called at the same time and
// return what is known already, at once; only Read, Align, Chart and Recording may take their time.
type Source interface {
	// Bridge is the program itself, now.
	Bridge() Bridge
	// Meters are all meters in the order of the settings.
	Meters() []Meter
	// Read does what the topic <meter>/get does: an empty request is a usual reading. The
	// response is the JSON that <meter>/response would have, in any case. The error says which
	// kind of failure it is: ErrUnknownMeter, ErrRequest, a *RetryError, ErrStopping, the end of
	// ctx; any other means that the meter could not be read.
	Read(ctx context.Context, meter string, request []byte) (response []byte, err error)
	// Align has a meter read a few times a second until the head sits, length has passed or ctx
	// ends, and shows each read; show must not block for long. The meter's line is busy meanwhile. Errors as of
	// Read, and those of a line that cannot be opened.
	Align(ctx context.Context, meter string, length time.Duration, show func(diagnosis.Sample)) (diagnosis.Summary, error)
	// Frames are the newest frames on the meter's line, 50 at most, oldest first.
	Frames(meter string) []Frame
	// Chart is the recent past of a meter.
	Chart(ctx context.Context, meter string) (Chart, error)
	// Recording writes a support bundle: one JSON document without secrets, of which
	// `kmp2mqtt simulate -replay` makes a meter again.
	Recording(ctx context.Context, meter string, w io.Writer) error
	// Follow has fn called with every message that is published, from the goroutine that
	// publishes it: fn must not block. After stop it is not called any more.
	Follow(fn func(Message)) (stop func())
}

var (
	// ErrUnknownMeter says that no meter has that name.
	ErrUnknownMeter = errors.New("web: unknown meter")
	// ErrRequest says that a request cannot be understood.
	ErrRequest = errors.New("web: bad request")
	// ErrStopping says that the bridge is about to end.
	ErrStopping = errors.New("web: the bridge stops")
)

// RetryError says that too much was asked for, and when there is room again.
type RetryError struct {
	After time.Duration
	Err   error
}

func (e *RetryError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *RetryError) Unwrap() error { return e.Err }

// Bridge is the program at one moment.
type Bridge struct {
	Version, Commit string
	Started         time.Time
	Topic           string            // base of all topics
	Connected       bool              // to the broker
	Brokers         []string          // without secrets
	Queue           int               // messages that wait for the broker
	Dropped         uint64            // events and answers that an outage of the broker pushed out
	Memory          uint64            // bytes taken from the operating system
	Settings        map[string]string // by variable, secrets redacted
	Stuck           []string          // lines, without secrets, whose poller shows no sign of life
}

// Meter is one meter at one moment. It is the caller's to read, not to change.
type Meter struct {
	Name     string // level of its topics; never empty: while it is unknown, "line-1" is the first of METERS
	Title    string // name for people, never empty
	Serial   string // empty while it is unknown
	Model    string // title such as "MULTICAL 403"; empty: unknown
	Revision string // software revision such as "F1"; empty: unknown
	Line     string // without secrets
	Interval time.Duration

	// The newest payloads, as on MQTT; nil: there is none yet.
	Availability                  string // "online", "offline" or ""
	State, Diagnostics, Diagnosis json.RawMessage

	Values  []Value   // of the state, in its order
	Info    []string  // what the meter reports, in words
	Reading time.Time // when the newest good reading ended; zero: there was none
	Next    time.Time // when it is read again

	Condition Condition
	Quality   int  // of the link, percent of the last 20 exchanges
	Rated     bool // whether Quality says something yet

	Today  battery.Day // what was asked of the battery today
	Total  battery.Day // and ever
	Budget int         // readings a day; 0: no limit

	ReadsOK        uint64
	ReadsFailed    map[string]int // by reason; never nil
	Durations      Histogram      // of readings, good or not, in seconds
	ChecksumErrors uint64
	Echo           bool           // the head hears itself
	ClockDrift     *int64         // seconds that the meter's clock is ahead; nil: not known
	Profile        census.Profile // which registers it has; Serial empty: nothing is known
}

// Value is one value of a state.
type Value struct {
	Key      string    // in the state: "energy_gj"
	Register string    // "energy"
	ID       uint16    // of the register; 0: derived
	Title    string    // for people: "Heat energy E1"
	Unit     string    // "GJ"; empty: none
	Value    kmp.Value // nil: unknown
	Why      string    // why it is unknown or held; empty: it is neither
	Counter  bool      // it counts up for the meter's life
}

// Condition is what is wrong with a meter, in plain words, or that nothing is.
type Condition struct {
	Code     diagnosis.Code
	Title    string
	Text     string
	NextStep string
	Since    time.Time // zero: not known
}

// Histogram counts durations: Counts[i] are those up to Bounds[i] seconds and not in a bucket
// before; the last count, one more than there are bounds, is of all others.
type Histogram struct {
	Bounds []float64
	Counts []uint64
	Sum    float64 // seconds
}

// Frame is one frame on a line, as it was on the wire.
type Frame struct {
	Time      time.Time
	Direction kmp.Direction
	Wire      []byte // nothing but an echo, noise or silence may have come from the meter, too
}

// Chart is the recent past of a meter, with numbers that are good enough to be drawn.
type Chart struct {
	Times  []int64  `json:"times"` // Unix time in seconds, ascending
	Series []Series `json:"series"`
	Hours  []Bar    `json:"hours"`  // what was used in the last 48 hours, as far as they are known
	Days   []Bar    `json:"days"`   // and in the last 31 days
	Title  string   `json:"title"`  // of the bars, for people: "Heat energy"; a water meter has its volume there
	Unit   string   `json:"unit"`   // of the bars: that of the meter's register, "GJ"
	Source string   `json:"source"` // where the bars come from: "log" (the meter's own) or "memory"
}

// Series is one curve.
type Series struct {
	Key    string     `json:"key"`   // in the state: "power_kw"
	Title  string     `json:"title"` // for people
	Unit   string     `json:"unit"`
	Values []*float64 `json:"values"` // one for each of Times; nil: unknown
}

// Bar is what a meter counted in one hour or day.
type Bar struct {
	Start  time.Time `json:"start"`
	Energy *float64  `json:"energy"` // nil: unknown
}

// Message is one message that is published.
type Message struct {
	Topic   string
	Meter   string // empty: it is the bridge's
	Kind    string // last level of the topic, or "state": "state", "availability", "diagnostics", "diagnosis", "history", "event", "info", "health"
	Payload []byte
}
