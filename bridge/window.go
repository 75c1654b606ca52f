package bridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"kmp2mqtt/bridge/web"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/diagnosis"
)

// maxAlign bounds how long somebody may hold a line to move its head.
const maxAlign = 5 * time.Minute

// window is the bridge as package web sees it: its Source.
type window struct {
	bridge   *bridge
	commands *commands

	mu        sync.Mutex
	followers map[int]func(web.Message)
	next      int
}

func newWindow(b *bridge, c *commands) *window {
	return &window{bridge: b, commands: c, followers: make(map[int]func(web.Message))}
}

// Follow implements [web.Source].
func (w *window) Follow(fn func(web.Message)) (stop func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := w.next
	w.next++
	w.followers[id] = fn
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.followers, id)
	}
}

// publish shows messages to those who look. What is not of a meter or the bridge is not for them.
func (w *window) publish(msgs []Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.followers) == 0 {
		return
	}
	for _, m := range msgs {
		meter, leaf, ours := w.bridge.topics.split(m.Topic)
		if !ours {
			continue
		}
		if meter == "bridge" {
			meter = ""
		}
		shown := web.Message{Topic: m.Topic, Meter: meter, Kind: cmp.Or(leaf, "state"), Payload: slices.Clone(m.Payload)}
		for _, fn := range w.followers {
			fn(shown)
		}
	}
}

// split takes a topic below the base apart.
func (t topics) split(topic string) (meter, leaf string, ours bool) {
	rest, ours := strings.CutPrefix(topic, t.base+"/")
	meter, leaf, _ = strings.Cut(rest, "/")
	return meter, leaf, ours
}

// Bridge implements [web.Source].
func (w *window) Bridge() web.Bridge {
	b := w.bridge
	box := b.box.Stats()
	var brokers []string
	for _, u := range b.cfg.MQTT.URLs {
		brokers = append(brokers, (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String())
	}
	return web.Bridge{
		Version: b.deps.Version, Commit: b.deps.Commit, Started: b.deps.Started, Topic: b.topics.base,
		Connected: b.session.Connected(), Brokers: brokers, Queue: box.Due + box.InFlight, Dropped: box.Dropped,
		Memory: memory(), Settings: b.cfg.Redacted(), Stuck: b.stuck(),
	}
}

// Meters implements [web.Source].
func (w *window) Meters() []web.Meter {
	statuses := w.bridge.roster.statuses()
	meters := make([]web.Meter, len(statuses))
	for i, s := range statuses {
		meters[i] = w.meter(i, s)
	}
	return meters
}

// placeName is what a meter is called here as long as it has no name of its own.
func (w *window) placeName(index int) string {
	name := fmt.Sprintf("line-%d", index+1)
	for {
		if _, taken := w.bridge.roster.find(name); !taken {
			return name
		}
		name += "-"
	}
}

func (w *window) meter(index int, s status) web.Meter {
	b := w.bridge
	m := web.Meter{
		Name: s.meter.Name, Title: s.meter.Label, Serial: s.meter.Serial, Model: s.meter.Model, Revision: s.meter.Revision, Line: s.meter.Line,
		Interval: s.interval, Info: s.info, Reading: s.lastReading, Next: s.next, Quality: s.quality, Rated: s.rated,
		Today: s.usage.Today(time.Now()), Total: s.usage.Total, Budget: s.budget.PerDay,
		ReadsOK: s.ok, ReadsFailed: maps.Clone(s.reasons), Durations: s.durations.shown(), ChecksumErrors: s.checksum,
		Echo: s.echo, ClockDrift: s.drift, Profile: s.profile,
	}
	if m.ReadsFailed == nil {
		m.ReadsFailed = map[string]int{}
	}
	if m.Name == "" {
		m.Name = w.placeName(index)
		m.Title = cmp.Or(m.Title, s.meter.Line)
	} else {
		m.Title = cmp.Or(m.Title, m.Name)
		m.Availability = string(b.box.payload(b.topics.meter(m.Name, "availability")))
		m.State = b.box.payload(b.topics.state(m.Name))
		m.Diagnostics = b.box.payload(b.topics.meter(m.Name, "diagnostics"))
		m.Diagnosis = b.box.payload(b.topics.meter(m.Name, "diagnosis"))
	}
	class := diagnosis.Lookup(cmp.Or(s.diagnosis.code, diagnosis.NotRead))
	m.Condition = web.Condition{
		Code: class.Code, Title: class.Title, Text: s.diagnosis.evidence.Text(class.Code), NextStep: class.NextStep, Since: s.diagnosis.since,
	}
	for _, v := range s.values {
		m.Values = append(m.Values, web.Value{
			Key: v.Key, Register: v.Register.Name, ID: v.Register.ID, Title: v.Register.Title, Unit: symbol(v.Unit), Value: v.Value,
			Why: s.unknown[v.Key], Counter: v.Register.Kind == catalog.Counter,
		})
	}
	return m
}

// find returns a meter's index by its name, or by its place while it has none.
func (w *window) find(name string) (int, bool) {
	if i, ok := w.bridge.roster.find(name); ok {
		return i, true
	}
	for i, s := range w.bridge.roster.statuses() {
		if s.meter.Name == "" && name == w.placeName(i) {
			return i, true
		}
	}
	return 0, false
}

// index is find with an error that lists the names that there are.
func (w *window) index(name string) (int, error) {
	if i, ok := w.find(name); ok {
		return i, nil
	}
	_, err := w.commands.find(name)
	return 0, fmt.Errorf("%w: %w", web.ErrUnknownMeter, err)
}

// failure says an error of a wish as package web knows it.
func failure(err error) error {
	if rate, ok := errors.AsType[*rateError](err); ok {
		return &web.RetryError{After: rate.after, Err: err}
	}
	switch {
	case errors.Is(err, errBusy):
		return &web.RetryError{After: 5 * time.Second, Err: err}
	case errors.Is(err, errStopped):
		return fmt.Errorf("%w: %w", web.ErrStopping, err)
	}
	return err
}

// Read implements [web.Source].
func (w *window) Read(ctx context.Context, meter string, request []byte) ([]byte, error) {
	refuse := func(transaction []byte, kind, err error) ([]byte, error) {
		response := responseJSON(transaction, nil, err)
		if kind != nil {
			return response, fmt.Errorf("%w: %w", kind, err)
		}
		return response, failure(err)
	}
	index, ok := w.find(meter)
	if !ok {
		_, err := w.commands.find(meter)
		return refuse(nil, web.ErrUnknownMeter, err)
	}
	o, transaction, err := decodeObject(request, "registers")
	if err == nil {
		_, err = o.registers()
	}
	if err != nil {
		return refuse(transaction, web.ErrRequest, err)
	}
	done := make(chan outcome, 1)
	if err := w.commands.readAt(index, o, func(r outcome) { done <- r }); err != nil {
		return refuse(transaction, nil, err)
	}
	select {
	case r := <-done:
		return responseJSON(transaction, r.values, r.err, r.unsupported...), failure(r.err)
	case <-ctx.Done():
		return refuse(transaction, nil, ctx.Err())
	}
}

// alignment is what a wish to align a head brings along.
type alignment struct {
	ctx    context.Context // of the one who looks
	length time.Duration

	mu     sync.Mutex
	show   func(diagnosis.Sample) // nil: nobody looks any more
	result diagnosis.Summary
}

// sample shows a read to whoever still looks.
func (a *alignment) sample(s diagnosis.Sample) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.show != nil {
		a.show(s)
	}
}

// end notes the result. Nothing is shown any more.
func (a *alignment) end(s diagnosis.Summary) diagnosis.Summary {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.show != nil {
		a.show, a.result = nil, s
	}
	return a.result
}

// Align implements [web.Source].
func (w *window) Align(ctx context.Context, meter string, length time.Duration, show func(diagnosis.Sample)) (diagnosis.Summary, error) {
	index, err := w.index(meter)
	if err != nil {
		return diagnosis.Summary{}, err
	}
	a := &alignment{ctx: ctx, length: min(length, maxAlign), show: show}
	done := make(chan outcome, 1)
	if err := w.bridge.roster.wish(index, 1, wish{task: alignHead, align: a, done: func(r outcome) { done <- r }}); err != nil {
		return diagnosis.Summary{}, failure(err)
	}
	select {
	case r := <-done:
		return a.end(diagnosis.Summary{}), failure(r.err)
	case <-ctx.Done(): // the poller may have something else to do first
		return a.end(diagnosis.Summary{}), ctx.Err()
	}
}

// Frames implements [web.Source].
func (w *window) Frames(meter string) []web.Frame {
	if i, ok := w.find(meter); ok {
		return w.bridge.tapes[i].newest()
	}
	return nil
}

// Chart implements [web.Source].
func (w *window) Chart(_ context.Context, meter string) (web.Chart, error) {
	index, err := w.index(meter)
	if err != nil {
		return web.Chart{}, err
	}
	c, zone := w.bridge.charts[index], w.bridge.cfg.Meters[index].zone()
	out := c.bars(w.logged(c, w.bridge.roster.serial(index), zone), zone)
	out.Times, out.Series = c.curves()
	return out, nil
}

// logged is the meter's counter as the kept rows of its own hour log have it.
func (w *window) logged(c *chart, serial string, zone *time.Location) []mark {
	rows := w.bridge.history
	if rows == nil || serial == "" {
		return nil
	}
	c.logMu.Lock()
	defer c.logMu.Unlock()
	if c.of == serial && time.Since(c.made) < chartFresh {
		return c.log
	}
	c.of, c.made, c.log = serial, time.Now(), nil
	last, found, err := rows.Last(serial, kmp.LogHour)
	if err != nil || !found {
		return nil
	}
	const most = 25 * (chartDays + 1)
	if list, err := rows.After(serial, kmp.LogHour, int64(last.ID)-most, most); err == nil {
		c.log = newest(c.marks(list, zone), (chartDays+1)*24*time.Hour)
	}
	return c.log
}

// Recording implements [web.Source].
func (w *window) Recording(_ context.Context, meter string, to io.Writer) error {
	index, err := w.index(meter)
	if err != nil {
		return err
	}
	b := w.bridge
	m := w.meter(index, b.roster.statuses()[index])
	type frame struct {
		Time      string `json:"time"`
		Direction string `json:"direction"`
		Wire      string `json:"wire"`
	}
	frames := []frame{}
	for _, f := range b.tapes[index].all() {
		frames = append(frames, frame{f.Time.UTC().Format("2006-01-02T15:04:05.000Z07:00"), f.Direction.String(), fmt.Sprintf("% X", f.Wire)})
	}
	type identity struct {
		Name     *string `json:"name"`
		Serial   *string `json:"serial"`
		Model    *string `json:"model"`
		Revision *string `json:"software_revision"`
		Line     string  `json:"line"`
		Interval float64 `json:"interval_s"`
	}
	_, err = to.Write(append(encodeJSON(map[string]any{
		"kmp2mqtt": b.deps.Version, "commit": b.deps.Commit, "made": timeText(time.Now()), "platform": runtime.GOOS + "/" + runtime.GOARCH,
		"settings": b.cfg.Redacted(),
		"meter":    identity{optional(m.Name), optional(m.Serial), optional(m.Model), optional(m.Revision), m.Line, seconds(m.Interval)},
		"state":    m.State, "diagnostics": m.Diagnostics, "diagnosis": m.Diagnosis, "profile": m.Profile, "frames": frames,
	}), '\n'))
	return err
}

// buckets count how long readings take.
type buckets struct {
	counts [len(bounds) + 1]uint64
	sum    time.Duration
}

// bounds are the upper bounds of the buckets, in seconds: a reading that takes one request is
// over in half a second, one that is told nothing in some.
var bounds = [...]float64{0.25, 0.5, 1, 2, 4, 8, 16, 32}

func (b *buckets) note(d time.Duration) {
	i, _ := slices.BinarySearch(bounds[:], d.Seconds())
	b.counts[i]++
	b.sum += d
}

func (b buckets) shown() web.Histogram {
	return web.Histogram{Bounds: bounds[:], Counts: b.counts[:], Sum: b.sum.Seconds()}
}
