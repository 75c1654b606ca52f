// Package bridge is the daemon: it reads meters on a schedule, publishes what they say
// by MQTT, and takes commands.
//
// A reading goes one way: the poller of its line (poller.go) asks the meter, package
// numbers guards the values, pure functions turn them into messages (reading.go), the outbox
// keeps the newest message of every topic (outbox.go), and the session sends what is due
// (session.go). Nothing in front of the outbox ever waits for a broker. Only wishes run the
// other way: a command (command.go) leaves one with the poller of its meter (wish.go).
//
// [ParseConfig] makes the settings, [Run] runs all of it until its context ends.
package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"runtime/metrics"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"kmp2mqtt/bridge/battery"
	"kmp2mqtt/bridge/history"
	"kmp2mqtt/bridge/statistics"
	"kmp2mqtt/bridge/store"
	"kmp2mqtt/kmp"
)

const (
	healthEvery = time.Minute
	// infoPause gathers changes of bridge/info into one message.
	infoPause = 50 * time.Millisecond
	// stopLimit is how long the end waits for lines that do not let go, so that the
	// farewell still fits into two seconds.
	stopLimit = 300 * time.Millisecond
)

// Deps is what the bridge needs from outside.
type Deps struct {
	// Dial opens a line that ParseOptions.ParseLine returned. Required.
	Dial func(ctx context.Context, line string) (kmp.Line, error)
	// Log gets one line for each event; nil: nothing is logged.
	Log *slog.Logger
	// Level is the level of Log, which a command can change; nil: it can not.
	Level *slog.LevelVar
	// Tap, when set, sees every message that is to be published; it must not block.
	Tap func(Message)
	// Notify tells the service manager how the bridge is, in the words of systemd's
	// sd_notify; nil: nobody wants to know.
	Notify func(state string)
	// Watchdog is within which time the service manager wants to hear of it; 0: it does not watch.
	Watchdog time.Duration
	// Version and Commit say what runs here.
	Version, Commit string
	// Started is when the program began; zero: now.
	Started time.Time
}

// Run reads the meters and serves the broker until ctx ends, then says goodbye within two
// seconds and returns nil. It fails only when it cannot begin: the built-in broker's
// port is taken (ErrPortInUse), another bridge has DATA_DIR, or it cannot be used (a
// *ConfigError).
func Run(ctx context.Context, cfg Config, deps Deps) error {
	if deps.Dial == nil {
		return errors.New("bridge: Deps.Dial is missing")
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Level == nil {
		deps.Level = new(slog.LevelVar)
		deps.Level.Set(cfg.LogLevel)
	}
	if deps.Started.IsZero() {
		deps.Started = time.Now()
	}
	var kept *store.Store
	var rows *history.Store
	if cfg.DataDir != "" {
		var err error
		kept, err = store.Open(cfg.DataDir)
		switch {
		case errors.Is(err, store.ErrLocked): // it may be free in a moment
			return fmt.Errorf("bridge: DATA_DIR: %w", err)
		case err != nil:
			return &ConfigError{Variable: "DATA_DIR", Err: err}
		}
		defer kept.Close()
		if damage := kept.Damaged(); damage != nil {
			deps.Log.Warn("what was kept is damaged and set aside; it is found out again", "error", damage)
		}
		if rows, err = history.Open(cfg.DataDir); err != nil {
			return &ConfigError{Variable: "DATA_DIR", Err: err}
		}
		defer rows.Close()
	}
	if len(cfg.MQTT.URLs) == 0 {
		broker, err := StartBroker(ctx, cfg.Listen, cfg.MQTT.Username, cfg.MQTT.Password, deps.Log)
		if err != nil {
			return err
		}
		defer broker.Close()
		cfg.MQTT.URLs = []*url.URL{broker.URL()}
		deps.Log.Info("built-in broker listens", "address", broker.Addr().String())
	}
	b := newBridge(cfg, deps, kept, rows)
	return b.run(ctx)
}

// bridge joins the pollers and the session. All its fields are set before anything runs.
type bridge struct {
	cfg     Config
	deps    Deps
	topics  topics
	box     *Outbox
	store   *store.Store // nil: nothing survives a restart
	history *history.Store
	feed    *feed    // nil without history
	imports *imports // nil: nothing is imported into Home Assistant's statistics
	roster  *roster
	pollers []*poller
	session *Session
	window  *window
	tapes   []*tape       // what was said on the line of each meter
	charts  []*chart      // the recent past of each meter
	infoDue chan struct{} // holds a token when bridge/info has changed
}

func newBridge(cfg Config, deps Deps, kept *store.Store, rows *history.Store) *bridge {
	b := &bridge{
		cfg: cfg, deps: deps, box: NewOutbox(), store: kept, history: rows, infoDue: make(chan struct{}, 1),
		topics: topics{base: cfg.MQTT.Topic, discovery: cfg.MQTT.HAPrefix},
		roster: newRoster(cfg.Meters),
	}
	c := newCommands(b)
	b.window = newWindow(b, c)
	if rows != nil {
		b.feed = newFeed(rows, b.put, b.topics, deps.Log)
		if cfg.HAURL != nil {
			b.imports = newImports(rows, deps.Log)
		}
		b.formerRows()
	}
	b.charts, b.tapes = make([]*chart, len(cfg.Meters)), make([]*tape, len(cfg.Meters))
	for i := range b.charts {
		b.charts[i] = new(chart)
	}
	start := time.Now()
	pollers := make(map[string]*poller, len(cfg.Meters)) // by line
	for i, m := range cfg.Meters {
		p := pollers[m.Line]
		if p == nil {
			p = &poller{
				line: m.Line, shown: redactURL(m.Line), wishes: newWishes(), roster: b.roster, store: kept, dial: deps.Dial,
				history: rows, stored: b.stored, belong: b.belong,
				put: b.put, info: b.info, topics: b.topics, each: cfg.Values, compat: cfg.Compat, announce: cfg.Discovery,
				version: deps.Version, log: deps.Log, started: start, count: len(cfg.Meters),
				tape: new(tape), charts: b.charts,
			}
			pollers[m.Line] = p
			b.pollers = append(b.pollers, p)
		}
		b.tapes[i] = p.tape
		d := &device{cfg: m, index: i}
		d.status = status{meter: Meter{Name: m.Name, Label: m.Label, Line: p.shown, Model: d.model().Title}, interval: m.Interval}
		d.status.budget = d.budget(start)
		p.recallPlace(d)
		b.roster.settle(i, p.wishes, len(p.devices), d.status)
		p.devices = append(p.devices, d)
	}
	filters := []string{b.topics.meter("+", "get"), b.topics.meter("+", "set"), b.topics.bridge("request/#")}
	if cfg.Discovery {
		filters = append(filters, b.birthTopic())
	}
	b.session = NewSession(cfg.MQTT, b.box, filters, c.message, c.tooLarge, b.putHealth, deps.Log)
	return b
}

// birthTopic is where Home Assistant says that it is there.
func (b *bridge) birthTopic() string { return b.topics.discovery + "/status" }

// put hands messages to the outbox. That it refuses one is a mistake in this program, but
// no reason to stop.
func (b *bridge) put(msgs ...Message) {
	if b.deps.Tap != nil {
		for _, m := range msgs {
			b.deps.Tap(m)
		}
	}
	if err := b.box.Put(msgs...); err != nil {
		b.deps.Log.Error("message not published", "error", err)
	}
	b.window.publish(msgs)
}

// info has bridge/info published soon: once for many changes at a time.
func (b *bridge) info() {
	select {
	case b.infoDue <- struct{}{}:
	default:
	}
}

func (b *bridge) putInfo() {
	b.put(infoMessage(b.topics, b.deps, b.deps.Level.Level(), b.roster.statuses(), b.cfg.Redacted()))
}

// announce tells Home Assistant of the bridge and of all meters that are known, and
// repeats their newest state. No meter is touched.
func (b *bridge) announce() {
	if b.cfg.Discovery {
		msg, err := bridgeDiscoveryMessage(b.topics, b.deps.Version)
		if err != nil {
			b.deps.Log.Error("cannot announce the bridge to Home Assistant", "error", err)
		} else {
			b.put(msg)
		}
	}
	b.info()
	for _, s := range b.roster.statuses() {
		for _, m := range s.retained {
			b.box.Repeat(m.Topic) // as it is by now: s may be older than what a poller has put meanwhile
		}
	}
}

func (b *bridge) run(ctx context.Context) error {
	b.deps.Log.Info("bridge started", "version", b.deps.Version, "meters", len(b.cfg.Meters), "lines", len(b.pollers),
		"topic", b.topics.base, "client_id", b.cfg.MQTT.ClientID)
	b.historyDamage()
	b.announce()
	b.putHealth() // before there is a connection that it would have to tell of

	sessionCtx, stopSession := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSession()
	var group errgroup.Group
	group.Go(func() error { return b.session.Run(sessionCtx) })

	var pollers sync.WaitGroup
	for _, p := range b.pollers {
		pollers.Go(func() { p.run(ctx) })
	}
	storeCtx, stopStore := context.WithCancel(context.WithoutCancel(ctx))
	defer stopStore()
	group.Go(func() error { b.store.Run(storeCtx, b.storeFailed); return nil })
	if b.feed != nil {
		group.Go(func() error { b.feed.run(ctx); return nil })
	}
	if b.imports != nil {
		target := statistics.Config{URL: b.cfg.HAURL, Token: b.cfg.HAToken, Log: b.deps.Log}
		group.Go(func() error { statistics.Run(ctx, target, b.imports); return nil })
	}
	if b.cfg.HTTP.Listen != "" {
		group.Go(func() error { b.serve(ctx); return nil })
	}
	if b.deps.Notify != nil {
		group.Go(func() error { b.report(ctx); return nil })
	}
	b.watch(ctx)

	stopped := make(chan struct{})
	go func() { pollers.Wait(); close(stopped) }()
	timer := time.NewTimer(stopLimit)
	defer timer.Stop()
	select {
	case <-stopped:
	case <-timer.C:
		b.deps.Log.Warn("a line does not let go; stopping all the same")
	}
	for _, s := range b.roster.statuses() {
		if s.meter.Name != "" {
			b.put(availabilityMessage(b.topics, s.meter.Name, false))
		}
	}
	stopSession()
	stopStore()
	err := group.Wait()
	b.deps.Log.Info("bridge stopped")
	return err
}

// formerRows names the meters whose rows are kept from earlier runs: what of them is not
// published yet still is, whoever answers now.
func (b *bridge) formerRows() {
	meters, err := b.history.Meters()
	if err != nil {
		b.deps.Log.Error("cannot read the rows of the meters' logs", "error", err)
	}
	for _, m := range meters {
		if checkName(m.Name) == nil {
			b.feed.is(m.Serial, m.Name, nil)
			b.imports.is(rowsOf{serial: m.Serial, name: m.Name, identity: m.Serial, label: m.Name, entities: b.cfg.entities(m.Name)})
		}
	}
}

// historyDamage tells what was found damaged of the history, also while it is used.
func (b *bridge) historyDamage() {
	if damage := b.history.Damaged(); damage != nil {
		b.deps.Log.Warn("the rows of the meters' logs are damaged and set aside; they are read again", "error", damage)
	}
}

// stored passes on that there are new rows of a meter.
func (b *bridge) stored(serial string) {
	b.feed.rows(serial)
	b.imports.rows()
}

// belong passes on whose rows a serial number's are.
func (b *bridge) belong(m rowsOf) {
	if m.renamed {
		if err := b.history.SetName(m.serial, m.name); err != nil {
			b.deps.Log.Error("cannot note the meter's name beside its rows", "meter", m.name, "error", err)
		}
	}
	b.feed.is(m.serial, m.name, m.offsets)
	b.imports.is(m)
}

// storeFailed tells when what must survive a restart cannot be written, and when it can again.
func (b *bridge) storeFailed(err error) {
	if err != nil {
		b.deps.Log.Error("cannot write DATA_DIR; trying again", "error", err)
		return
	}
	b.deps.Log.Info("DATA_DIR is written again")
}

// watch publishes the bridge's own messages until ctx ends.
func (b *bridge) watch(ctx context.Context) {
	ticker := time.NewTicker(healthEvery)
	defer ticker.Stop()
	info := time.NewTimer(infoPause)
	defer info.Stop()
	pending := true
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			b.putHealth()
			b.historyDamage()
		case <-b.infoDue:
			if !pending {
				pending = true
				info.Reset(infoPause)
			}
		case <-info.C:
			pending = false
			b.putInfo()
		}
	}
}

func (b *bridge) putHealth() {
	box := b.box.Stats()
	b.put(healthMessage(b.topics, health{
		now: time.Now(), started: b.deps.Started, memory: memory(),
		queue: box.Due + box.InFlight, dropped: box.Dropped, connected: b.session.Connected(),
	}, b.roster.statuses()))
}

// memory is what the Go runtime holds of the operating system's memory, in bytes.
func memory() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	for _, s := range samples {
		if s.Value.Kind() != metrics.KindUint64 {
			return 0
		}
	}
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}

// roster is what all goroutines know of the meters, under one mutex.
type roster struct {
	mu      sync.Mutex
	members []member // in the order of the settings
}

// member is one meter in the roster.
type member struct {
	name     string // empty while it is unknown
	named    bool   // by the settings, not by its serial number
	serial   string // empty while it is unknown
	recalled bool   // name and serial are those of the run before; nothing has answered yet
	shortest time.Duration
	status   status
	wishes   *wishes // of its poller
	position int     // on its line
	rate     bucket  // of commands
}

func newRoster(meters []MeterConfig) *roster {
	r := &roster{members: make([]member, len(meters))}
	for i, m := range meters {
		r.members[i] = member{name: m.Name, named: m.Name != "", shortest: min(m.Interval, shortestSet), rate: bucket{tokens: burst}}
	}
	return r
}

// settle says where a meter can be asked.
func (r *roster) settle(index int, w *wishes, position int, s status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := &r.members[index]
	m.wishes, m.position, m.status = w, position, s
}

// claim gives a meter its name and serial number, unless another one has them.
func (r *roster) claim(index int, name, serial string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members[index].serial = "" // whoever it was, it is not that one any more
	taken := index
	for i, other := range r.members {
		switch {
		case i == index:
		case other.serial == serial && other.recalled && (other.name != name || !other.named):
			r.members[i].serial = "" // it was there, and answers here now
			if other.name == name {
				taken = i
			}
		case other.serial == serial:
			return fmt.Errorf("meter %s, serial number %s, is read as %s already: two lines lead to it", name, serial, other.name)
		case other.name == name && other.serial == "" && !other.named:
			taken = i // it was named by a serial number that is not its own any more
		case other.name == name:
			return fmt.Errorf("the name %s belongs to another meter: give the meter with that serial number a name of its own (name=line)", name)
		}
	}
	r.members[taken].name = ""
	me := &r.members[index]
	me.name, me.serial, me.recalled = name, serial, false
	return nil
}

// recall is a claim that rests on what was remembered: it gives way to a meter that answers.
func (r *roster) recall(index int, name, serial string) error {
	if r.elsewhere(index, serial) {
		return errors.New("bridge: it is remembered in two places")
	}
	err := r.claim(index, name, serial)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members[index].recalled = err == nil
	return err
}

// owns reports whether a meter still has its name.
func (r *roster) owns(index int, name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.members[index].name == name
}

// serial is the serial number of a meter, empty while it is unknown.
func (r *roster) serial(index int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.members[index].serial
}

// elsewhere reports whether a serial number is read in another place than index.
func (r *roster) elsewhere(index int, serial string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.members, func(m member) bool { return m.serial == serial })
	return i >= 0 && i != index
}

// update notes what is known of a meter now.
func (r *roster) update(index int, s status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members[index].status = s
}

// statuses are all meters, in the order of the settings.
func (r *roster) statuses() []status {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]status, len(r.members))
	for i, m := range r.members {
		list[i] = m.status
	}
	return list
}

// find returns a meter's index by its name.
func (r *roster) find(name string) (index int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	index = slices.IndexFunc(r.members, func(m member) bool { return name != "" && m.name == name })
	return index, index >= 0
}

// names are the meters that have a name, in the order of the settings.
func (r *roster) names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for _, m := range r.members {
		if m.name != "" {
			names = append(names, m.name)
		}
	}
	return names
}

// shortest is the least interval that a command may set for a meter.
func (r *roster) shortest(index int) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.members[index].shortest
}

// wish leaves a wish with the meter's poller, if rate and battery budget allow what it
// costs in requests; 0: it does not touch the meter.
func (r *roster) wish(index, cost int, w wish) error {
	r.mu.Lock()
	place := r.members[index]
	r.mu.Unlock()
	w.meter = place.position
	return place.wishes.post(w, func(waiting int) error {
		if cost == 0 {
			return nil
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		now := time.Now()
		m := &r.members[index]
		if err := m.status.affords(now, waiting); err != nil {
			return err
		}
		return m.rate.spend(now, cost)
	})
}

// affords says whether the battery's budget allows a command more, with some waiting.
func (s status) affords(now time.Time, waiting int) error {
	usage := s.usage
	usage.Days = slices.Clone(usage.Days)
	usage.Note(now, battery.Day{Reads: uint64(waiting), Commands: uint64(waiting)})
	if ok, next := s.budget.Command(usage, now); !ok {
		return &rateError{after: next.Sub(now), next: next, perDay: s.budget.PerDay, spent: usage.Today(now).Reads >= uint64(s.budget.PerDay)}
	}
	return nil
}
