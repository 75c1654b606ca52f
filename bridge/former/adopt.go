package former

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"kmp2mqtt/kmp/catalog"
)

// quiet is how long nothing may come before everything that the broker keeps has come.
const quiet = 300 * time.Millisecond

// undoLimit is how long restoring may take once nobody waits for it any more.
const undoLimit = 5 * time.Second

// migrate makes Home Assistant let go of an entity and keep what it knows of it (Home Assistant
// 2024.12 and newer).
const migrate = `{"migrate_discovery": true}`

// unreadNote tells what to do about entities whose registers are not read.
const unreadNote = "What is not read has no entity: add its register to REGISTERS (or to the meter's option registers), and run this again."

var (
	// ErrNoBridge says that no bridge answers: nothing has been changed, or all of it is restored.
	ErrNoBridge = errors.New("no bridge answers; it must run while its entities are adopted")
	// ErrChanged says that other announcements came on topics that were to be cleared: they are kept.
	ErrChanged = errors.New("some announcements have changed meanwhile and are left as they are; if the old reader runs, stop it, then run it again")
	// ErrNotAnnounced says that the bridge does not announce the entities as its own.
	ErrNotAnnounced = errors.New("the bridge does not announce these entities; give its meter the option entities=wobwobrt, and let it be read once")
)

// Message is one MQTT message that came.
type Message struct {
	Topic   string
	Payload []byte
}

// Broker is a connection to the MQTT broker that hears [Adoption.Filters], at first all that the
// broker keeps of them.
type Broker interface {
	// Publish returns once the broker has the message, or with an error.
	Publish(ctx context.Context, topic string, payload []byte, retain bool) error
	// Next waits for the next message.
	Next(ctx context.Context) (Message, error)
}

// Adoption takes over the entities that WobwobRt's reader has announced to Home Assistant by
// MQTT, so that they keep their ids, names and history. The bridge must run meanwhile, with the option
// entities=wobwobrt: it announces the same unique ids.
//
// It can be stopped at any moment; the next run goes on where it was.
type Adoption struct {
	Base   string        // of the bridge's topics
	Prefix string        // Home Assistant's discovery prefix
	Act    bool          // false: tell only what would be done
	Wait   time.Duration // for an answer of broker or bridge
	Settle time.Duration // what Home Assistant gets for each step
	// Planned, when set, is told what will be done, before anything is.
	Planned func(Report)
}

// Filters are the topics that the adoption must hear.
func (a Adoption) Filters() []string {
	return []string{
		a.Prefix + "/sensor/+/config", a.Prefix + "/device/+/config",
		a.Base + "/bridge/state", a.Base + "/bridge/response/+",
	}
}

// Run plans the adoption and, if it shall act, does it. An error before the bridge has taken over
// leaves nothing adopted: what was changed is restored as far as it was known. After that some or all
// may be adopted, as the report counts them; the next run does the rest.
func (a Adoption) Run(ctx context.Context, b Broker) (Report, error) {
	r := &run{Adoption: a, broker: b, old: make(map[string]*Entity), devices: make(map[string]map[string]component)}
	if err := r.collect(ctx); err != nil {
		return Report{}, fmt.Errorf("former: adopt: %w", err)
	}
	if len(r.ready()) > 0 && a.Act { // as it is announced now, not as it once was
		if err := r.announce(ctx); err != nil {
			return r.report(), fmt.Errorf("former: adopt: %w; nothing has been changed", err)
		}
	}
	report := r.report()
	if a.Planned != nil {
		a.Planned(report)
	}
	switch {
	case !a.Act, report.Done:
		return report, nil
	case len(r.ready()) == 0 && r.state != "online":
		return report, fmt.Errorf("former: adopt: %w; nothing has been changed", ErrNoBridge)
	case len(r.ready()) == 0:
		return report, fmt.Errorf("former: adopt: %w; nothing has been changed", ErrNotAnnounced)
	}
	err := r.adopt(ctx)
	return r.report(), err
}

// run is one adoption.
type run struct {
	Adoption
	broker  Broker
	old     map[string]*Entity              // by topic
	devices map[string]map[string]component // the bridge's announcements: by topic, by unique id
	state   string                          // of the bridge
	answer  string                          // transaction of the newest answer
	acting  bool                            // the plan stands
}

// component is what the bridge announces of one entity.
type component struct {
	Platform string `json:"platform"`
	UniqueID string `json:"unique_id"`
	Unit     string `json:"unit_of_measurement"`
}

// collect takes in what the broker keeps.
func (r *run) collect(ctx context.Context) error {
	if err := r.hear(ctx); err != nil {
		return err
	}
	for {
		pause, cancel := context.WithTimeout(ctx, quiet)
		err := r.next(pause)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			return nil
		case err != nil:
			return err
		}
	}
}

// hear takes in all that came to the broker until now: a message of our own comes behind it.
func (r *run) hear(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, r.Wait)
	defer cancel()
	mark := rand.Text()
	if err := r.broker.Publish(waiting, r.Base+"/bridge/response/adopt", encode(map[string]string{"transaction": mark}), false); err != nil {
		return err
	}
	for r.answer != mark {
		err := r.next(waiting)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return ctx.Err()
		default:
			return fmt.Errorf("the broker does not send back what this user publishes; may it read %s/bridge/response/+? %w", r.Base, err)
		}
	}
	return nil
}

// next takes in one message.
func (r *run) next(ctx context.Context) error {
	m, err := r.broker.Next(ctx)
	if err != nil {
		return err
	}
	switch {
	case m.Topic == r.Base+"/bridge/state":
		r.state = string(m.Payload)
	case strings.HasPrefix(m.Topic, r.Base+"/bridge/response/"):
		var answer struct {
			Transaction string `json:"transaction"`
		}
		if json.Unmarshal(m.Payload, &answer) == nil {
			r.answer = answer.Transaction
		}
	case strings.HasPrefix(m.Topic, r.Prefix+"/device/"):
		if components, ours := decodeDevice(m.Payload); ours {
			r.devices[m.Topic] = components
		} else {
			delete(r.devices, m.Topic)
		}
	case r.acting:
		if e := r.old[m.Topic]; e != nil {
			e.newest = m.Payload
		}
	default:
		if e, theirs := decodeEntity(r.Prefix, m); theirs {
			e.newest = m.Payload
			r.old[m.Topic] = &e
		} else {
			delete(r.old, m.Topic)
		}
	}
	return nil
}

// announce has the bridge announce its meters, and waits until all entities that are ready have
// come again.
func (r *run) announce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.Wait)
	defer cancel()
	wanted := make(map[string]bool)
	for _, e := range r.ready() {
		wanted[e.UniqueID] = true
	}
	clear(r.devices)
	ask := rand.Text()
	if err := r.broker.Publish(ctx, r.Base+"/bridge/request/discovery", encode(map[string]string{"transaction": ask}), false); err != nil {
		return err
	}
	answered := false
	for {
		for uniqueID := range wanted {
			if _, _, there := r.announced(uniqueID); there {
				delete(wanted, uniqueID)
			}
		}
		if answered && len(wanted) == 0 {
			return nil
		}
		err := r.next(ctx)
		answered = answered || r.answer == ask
		switch {
		case err == nil:
		case !errors.Is(err, context.DeadlineExceeded):
			return err
		case !answered:
			return ErrNoBridge
		default:
			return ErrNotAnnounced
		}
	}
}

// announced finds what the bridge announces under a unique id, and on which topic.
func (r *run) announced(uniqueID string) (topic string, c component, there bool) {
	for topic, components := range r.devices {
		if c, there := components[uniqueID]; there {
			return topic, c, true
		}
	}
	return "", component{}, false
}

// announces reports whether the bridge announces anything as WobwobRt's reader did.
func (r *run) announces() bool {
	return slices.ContainsFunc(WobwobRtParameters(), func(p Parameter) bool {
		_, _, there := r.announced(wobwobrtPrefix + p.Name)
		return there
	})
}

// ready are the old entities that the bridge announces, in the order of their topics.
func (r *run) ready() []*Entity {
	var list []*Entity
	for _, e := range r.old {
		if _, _, there := r.announced(e.UniqueID); there && e.State != StateAdopted {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b *Entity) int { return cmp.Compare(a.Topic, b.Topic) })
	return list
}

// adopt has Home Assistant let go of the old entities, find those of the bridge, and forget the
// old announcements: in this order, or it would forget the entities with them.
func (r *run) adopt(ctx context.Context) error {
	entities := r.ready()
	r.acting = true
	if err := r.handOver(ctx, entities); err != nil {
		return fmt.Errorf("former: adopt: %w; %s", err, r.undo(ctx, entities))
	}
	for _, e := range entities {
		if err := r.clear(ctx, e); err != nil {
			return fmt.Errorf("former: adopt: the old announcements are not all cleared; run it again: %w", err)
		}
	}
	// Once more, should Home Assistant have been slow to let go. Whoever restarts it has the same.
	ctx, cancel := context.WithTimeout(ctx, r.Wait)
	defer cancel()
	if err := r.broker.Publish(ctx, r.Base+"/bridge/request/discovery", nil, false); err != nil {
		return fmt.Errorf("former: adopt: the old announcements are cleared, but the bridge cannot be asked to announce again: %w", err)
	}
	if slices.ContainsFunc(entities, func(e *Entity) bool { return e.left }) {
		return fmt.Errorf("former: adopt: %w", ErrChanged)
	}
	return nil
}

// clear has Home Assistant forget an old announcement, unless another one has come on its topic.
func (r *run) clear(ctx context.Context, e *Entity) error {
	if e.left {
		return nil
	}
	if err := r.hear(ctx); err != nil {
		return err
	}
	switch {
	case len(e.newest) == 0: // somebody was faster
	case !migrating(e.newest):
		e.left = true
		return nil
	default:
		if err := r.publish(ctx, e.Topic, nil); err != nil {
			return err
		}
	}
	e.State = StateAdopted
	return nil
}

func (r *run) handOver(ctx context.Context, entities []*Entity) error {
	for _, e := range entities {
		if err := r.hear(ctx); err != nil {
			return err
		}
		if e.left = e.changed(); e.left {
			continue
		}
		if e.begun = true; e.State == StateBegun {
			continue
		}
		if err := r.publish(ctx, e.Topic, []byte(migrate)); err != nil {
			return err
		}
	}
	if err := r.settle(ctx); err != nil {
		return err
	}
	if err := r.announce(ctx); err != nil {
		return err
	}
	return r.settle(ctx)
}

// changed reports whether there is something else on the topic than what was found there, and
// what Home Assistant is told.
func (e *Entity) changed() bool {
	return !migrating(e.newest) && (e.payload == nil || !bytes.Equal(e.newest, e.payload))
}

// undo restores the old announcements and says so.
func (r *run) undo(ctx context.Context, entities []*Entity) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	hearing, stop := context.WithTimeout(ctx, undoLimit/2)
	_ = r.hear(hearing) // else what is known decides
	stop()
	lost, left := 0, 0
	for _, e := range entities {
		if e.left = e.left || e.changed(); e.left {
			left++
			continue
		}
		switch {
		case !e.begun:
		case e.payload == nil: // begun by an earlier run
			lost++
		default:
			if err := r.publish(ctx, e.Topic, e.payload); err != nil {
				return "the old announcements cannot be restored; run it again, or start the old reader: " + err.Error()
			}
		}
	}
	said := "the old announcements are restored"
	if lost > 0 {
		said += fmt.Sprintf(", but for %d that an earlier run had begun with; run it again, or start the old reader", lost)
	}
	if left > 0 {
		said += fmt.Sprintf("; %d had changed meanwhile and stay as they are", left)
	}
	return said
}

func (r *run) publish(ctx context.Context, topic string, payload []byte) error {
	ctx, cancel := context.WithTimeout(ctx, r.Wait)
	defer cancel()
	return r.broker.Publish(ctx, topic, payload, true)
}

func (r *run) settle(ctx context.Context) error {
	timer := time.NewTimer(r.Settle)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// report is what is known by now.
func (r *run) report() Report {
	report, left := Report{From: WobwobRt, Entities: []Entity{}}, 0
	for _, e := range r.old {
		shown := *e
		topic, c, there := r.announced(e.UniqueID)
		if there {
			shown.Device = strings.Split(strings.TrimPrefix(topic, r.Prefix), "/")[2]
			shown.NewUnit = c.Unit
			shown.Warning = unitWarning(shown)
		}
		if e.left {
			left++
			shown.Warning = "another announcement has come on its topic meanwhile: that is left as it is"
		}
		switch {
		case e.State == StateAdopted:
		case there && e.State != StateBegun:
			shown.State = StateReady
		case there:
		case e.Register == 0:
			shown.State = StateUnknown
		default:
			shown.State = StateUnread
		}
		report.Entities = append(report.Entities, shown)
	}
	slices.SortFunc(report.Entities, func(a, b Entity) int { return cmp.Compare(a.Topic, b.Topic) })
	ready := report.Count(StateReady) + report.Count(StateBegun)
	nothing := len(report.Entities) == report.Count(StateUnknown)
	announces := r.announces()
	report.Done = nothing || ready == 0 && announces
	if report.Count(StateUnread) > 0 && announces {
		report.Notes = append(report.Notes, unreadNote)
	}
	if left > 0 {
		report.Notes = append(report.Notes, fmt.Sprintf("Not adopted because their announcements have changed meanwhile: %d. If the old reader runs, stop it; then run this again.", left))
	}
	switch {
	case nothing:
		report.Notes = append(report.Notes, "There is nothing to adopt: this broker keeps no announcement of WobwobRt's reader.")
	case r.state != "online" && !report.Done:
		report.Notes = append(report.Notes, fmt.Sprintf("No bridge is there (%s/bridge/state is not online). Start it with the option entities=wobwobrt at its meter.", r.Base))
	case !announces:
		report.Notes = append(report.Notes, "The bridge does not announce these entities. Give its meter the option entities=wobwobrt, start it again, and let it read the meter once.")
	case ready > 0 && !r.Act:
		report.Notes = append(report.Notes, fmt.Sprintf("Nothing has been changed; with -yes it adopts %d. Stop the old reader before: it announces its entities again whenever it starts.", ready))
	}
	return report
}

// unitWarning tells what follows when an entity comes with another unit than before.
func unitWarning(e Entity) string {
	switch {
	case e.State == StateAdopted, e.payload == nil, e.Unit == e.NewUnit:
		return ""
	case e.counts:
		return fmt.Sprintf("it was shown in %s, the meter sends %s: its statistics make one false step, which Home Assistant lets you correct under Developer tools > Statistics",
			cmp.Or(e.Unit, "no unit"), cmp.Or(e.NewUnit, "no unit"))
	}
	return fmt.Sprintf("it was shown in %s, the meter sends %s", cmp.Or(e.Unit, "no unit"), cmp.Or(e.NewUnit, "no unit"))
}

// decodeEntity reads an announcement of WobwobRt's reader: <prefix>/sensor/kamstrup_<name>/config
// with the unique id kamstrup_<name> and a state topic that ends with the name, of a device that
// Kamstrup made. One with which an adoption has begun is known by its topic alone. Everything else is
// not its.
func decodeEntity(prefix string, m Message) (Entity, bool) {
	id, ok := strings.CutPrefix(m.Topic, prefix+"/sensor/")
	id, config := strings.CutSuffix(id, "/config")
	name, former := strings.CutPrefix(id, wobwobrtPrefix)
	if !ok || !config || !former || name == "" || strings.Contains(name, "/") || len(m.Payload) == 0 {
		return Entity{}, false
	}
	e := Entity{Topic: m.Topic, UniqueID: id}
	parameter, known := find(WobwobRtParameters(), name)
	known = known && parameter.Name == name
	if known {
		e.Register, e.RegisterName = parameter.Register, catalog.Lookup(parameter.Register).Name
	}
	if migrating(m.Payload) {
		e.State = StateBegun
		return e, known
	}
	var o announcement
	if json.Unmarshal(m.Payload, &o) != nil {
		return Entity{}, false
	}
	device := o.Device
	if device == nil {
		device = o.Dev
	}
	state := cmp.Or(o.StateTopic, o.StatT)
	base, ours := strings.CutSuffix(strings.ToLower(state), "/"+strings.ToLower(name))
	if cmp.Or(o.UniqueID, o.UniqID) != id || !ours || base == "" || device == nil || cmp.Or(device.Manufacturer, device.Mf) != "Kamstrup" {
		return Entity{}, false
	}
	e.Unit, e.counts = cmp.Or(o.Unit, o.UnitOfMeas), cmp.Or(o.StateClass, o.StatCla) != ""
	e.payload = bytes.Clone(m.Payload)
	return e, true
}

// announcement is what is looked at in a message for one entity, by Home Assistant's long names
// and its short ones.
type announcement struct {
	UniqueID   string `json:"unique_id"`
	UniqID     string `json:"uniq_id"`
	StateTopic string `json:"state_topic"`
	StatT      string `json:"stat_t"`
	Unit       string `json:"unit_of_measurement"`
	UnitOfMeas string `json:"unit_of_meas"`
	StateClass string `json:"state_class"`
	StatCla    string `json:"stat_cla"`
	Device     *maker `json:"device"`
	Dev        *maker `json:"dev"`
}

type maker struct {
	Manufacturer string `json:"manufacturer"`
	Mf           string `json:"mf"`
}

// migrating reports whether Home Assistant has been told to let go of an entity.
func migrating(payload []byte) bool {
	var o map[string]bool
	return json.Unmarshal(payload, &o) == nil && len(o) == 1 && o["migrate_discovery"]
}

// decodeDevice reads an announcement of the bridge: its entities by unique id. False when it is
// another program's.
func decodeDevice(payload []byte) (map[string]component, bool) {
	var o struct {
		Origin struct {
			Name string `json:"name"`
		} `json:"origin"`
		Components map[string]component `json:"components"`
	}
	if json.Unmarshal(payload, &o) != nil || o.Origin.Name != "kmp2mqtt" {
		return nil, false
	}
	list := make(map[string]component, len(o.Components))
	for _, c := range o.Components {
		if c.Platform == "sensor" && c.UniqueID != "" {
			list[c.UniqueID] = c
		}
	}
	return list, true
}

// encode marshals what cannot fail.
func encode(o map[string]string) []byte {
	b, err := json.Marshal(o)
	if err != nil {
		return nil
	}
	return b
}
