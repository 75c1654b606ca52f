package bridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"kmp2mqtt/bridge/former"
)

// How long an adoption waits where AdoptOptions does not say.
const (
	adoptWait   = 20 * time.Second
	adoptSettle = 5 * time.Second
	adoptPoll   = 10 * time.Millisecond
	adoptMost   = 20000 // messages that wait to be looked at
)

// AdoptOptions says how to take over what another reader left in Home Assistant.
type AdoptOptions struct {
	Reader string // former.WobwobRt or former.Golles
	Act    bool   // false: tell only what would be done
	// Planned, when set, is told what will be done before anything is.
	Planned func(former.Report)
	Log     *slog.Logger  // nil: nothing is logged
	Wait    time.Duration // for broker and bridge; 0: 20 s
	Settle  time.Duration // what Home Assistant gets for each step; 0: 5 s

	// Get asks Home Assistant; nil: by HTTP.
	Get func(*http.Request) (*http.Response, error)
}

// ErrReader says that nothing of that reader can be adopted.
var ErrReader = errors.New("nothing can be adopted of it; there are wobwobrt and golles")

// Adopt takes over the entities of another reader. Those of WobwobRt's are on the broker of the
// settings, and the bridge must run there at the same time. Of golles' integration nothing is: it is
// explained what to do, with the ids that the entities will have.
func Adopt(ctx context.Context, cfg Config, opts AdoptOptions) (former.Report, error) {
	opts.Wait, opts.Settle = cmp.Or(opts.Wait, adoptWait), cmp.Or(opts.Settle, adoptSettle)
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if len(cfg.MQTT.URLs) == 0 { // the built-in broker of the bridge that runs
		cfg.MQTT.URLs = []*url.URL{{Scheme: "mqtt", Host: cfg.Listen}}
	}
	switch opts.Reader {
	case former.WobwobRt:
		a := former.Adoption{
			Base: cfg.MQTT.Topic, Prefix: cfg.MQTT.HAPrefix, Act: opts.Act,
			Wait: opts.Wait, Settle: opts.Settle, Planned: opts.Planned,
		}
		var report former.Report
		err := asGuest(ctx, cfg.MQTT, a.Filters(), opts.Log, func(ctx context.Context, g *guest) error {
			var err error
			report, err = a.Run(ctx, g)
			return err
		})
		if len(report.Entities) > 0 {
			report.Setting = cfg.settingWith(former.WobwobRt)
		}
		return report, err
	case former.Golles:
		return adoptGolles(ctx, cfg, opts)
	}
	return former.Report{}, fmt.Errorf("bridge: adopt %q: %w", clip(opts.Reader), ErrReader)
}

// settingWith is the line of METERS with the option entities at its first meter; empty when a
// meter has it. Where a password of that line is not shown, it says what to add instead.
func (c Config) settingWith(reader string) string {
	words := strings.Fields(c.shown["METERS"])
	for i, m := range c.Meters {
		if m.Entities == reader || i >= len(words) {
			return ""
		}
	}
	if len(words) == 0 {
		return ""
	}
	if strings.Contains(c.shown["METERS"], redacted) {
		meter := "first meter"
		if name := c.Meters[0].Name; name != "" {
			meter = "meter " + name
		}
		return fmt.Sprintf("add the option entities=%s to the %s in METERS", reader, meter)
	}
	separator := "?"
	if strings.Contains(words[0], "?") {
		separator = "&"
	}
	words[0] += separator + "entities=" + reader
	return "METERS=" + strings.Join(words, " ")
}

// adoptGolles explains how the entities of golles' integration go on.
func adoptGolles(ctx context.Context, cfg Config, opts AdoptOptions) (former.Report, error) {
	if len(cfg.Meters) == 0 {
		return former.Report{}, errors.New("bridge: adopt golles: METERS names no meter")
	}
	m := cfg.Meters[0]
	registers := m.Registers
	if len(registers) == 0 {
		registers = usualRegisters(m.Model)
	}
	report := former.GollesReport(registers)
	report.Setting = cfg.settingWith(former.Golles)
	if cfg.HAURL == nil {
		report.Notes = append(report.Notes, "Whether one of these ids is used cannot be known without HA_URL and HA_TOKEN.")
		return report, nil
	}
	for i, e := range report.Entities {
		used, err := entityUsed(ctx, cfg, opts, e.EntityID)
		if err != nil {
			return report, fmt.Errorf("bridge: adopt golles: ask Home Assistant for %s: %w", e.EntityID, err)
		}
		if used {
			report.Entities[i].State = former.StateUsed
			report.Done = false
		}
	}
	if report.Count(former.StateUsed) > 0 {
		report.Notes = append(report.Notes, "Home Assistant uses some of these ids. While the old integration is there, that is as it should be; remove it before kmp2mqtt is started with the option. Any other entity must be renamed first, or ours gets _2 behind its id.")
	}
	return report, nil
}

// entityUsed asks Home Assistant whether an entity has a state. One that is disabled has none.
func entityUsed(ctx context.Context, cfg Config, opts AdoptOptions, entity string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, opts.Wait)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, cfg.HAURL.JoinPath("api", "states", entity).String(), nil)
	if err != nil {
		return false, err
	}
	request.Header.Set("Authorization", "Bearer "+cfg.HAToken)
	get := opts.Get
	if get == nil {
		get = (&http.Client{}).Do
	}
	response, err := get(request)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(response.Body, maxFileSize))
	switch {
	case response.StatusCode == http.StatusOK:
		return true, err
	case response.StatusCode == http.StatusNotFound:
		return false, err
	case response.StatusCode == http.StatusUnauthorized:
		return false, errors.New("it refuses HA_TOKEN")
	}
	return false, fmt.Errorf("it answers %s", response.Status)
}

// guest is a connection beside the bridge's own: a [former.Broker].
type guest struct {
	box     *Outbox
	session *Session

	mu    sync.Mutex
	queue []former.Message
	full  bool
	came  chan struct{} // holds a token when the queue may have grown
}

// asGuest does something at the broker as a client of its own, and is gone.
func asGuest(ctx context.Context, cfg MQTTConfig, filters []string, log *slog.Logger, do func(context.Context, *guest) error) error {
	g := &guest{box: NewOutbox(), came: make(chan struct{}, 1)}
	cfg.Topic, cfg.ClientID = "", cfg.ClientID+"-adopt" // not the bridge's: the broker would throw it out
	g.session = NewSession(cfg, g.box, filters, g.take, func(string, int) {}, func() {}, log)
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- g.session.Run(running) }()
	err := do(ctx, g)
	stop()
	return errors.Join(err, <-done)
}

// take keeps a message until it is asked for.
func (g *guest) take(topic string, payload []byte, _ bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.full = len(g.queue) >= adoptMost; !g.full {
		g.queue = append(g.queue, former.Message{Topic: topic, Payload: payload})
	}
	select {
	case g.came <- struct{}{}:
	default:
	}
}

// Next implements [former.Broker].
func (g *guest) Next(ctx context.Context) (former.Message, error) {
	for {
		g.mu.Lock()
		if g.full {
			g.mu.Unlock()
			return former.Message{}, errors.New("bridge: the broker sends more than can be looked at")
		}
		if len(g.queue) > 0 {
			m := g.queue[0]
			g.queue = g.queue[1:]
			g.mu.Unlock()
			return m, nil
		}
		g.mu.Unlock()
		select {
		case <-g.came:
		case <-ctx.Done():
			return former.Message{}, ctx.Err()
		}
	}
}

// Publish implements [former.Broker].
func (g *guest) Publish(ctx context.Context, topic string, payload []byte, retain bool) error {
	if err := g.box.Put(Message{Topic: topic, Payload: payload, Retain: retain, Rank: RankDiscovery}); err != nil {
		return err
	}
	ticker := time.NewTicker(adoptPoll)
	defer ticker.Stop()
	for g.box.Len() > 0 {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			if !g.session.Connected() {
				return fmt.Errorf("bridge: there is no connection to the MQTT broker: %w", ctx.Err())
			}
			return ctx.Err()
		}
	}
	return nil
}

var _ former.Broker = (*guest)(nil)
