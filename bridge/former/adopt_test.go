package former

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// house is a broker's memory with a bridge at it, which
// announces its entities when it is asked to.
type house struct {
	kept      map[string]string
	queue     []Message
	announces map[string]string // what the bridge announces, by topic
	silent    bool              // the bridge does not answer
	published []string
	budget    int // publishes until the power fails; negative: it does not
	asked     func(n int)
	planned   func()
	late      bool // the broker sends what it keeps behind what is published
	waiting   []Message
	requests  int
}

var errPower = errors.New("the power has failed")

func newHouse() *house {
	h := &house{kept: map[string]string{"kmp2mqtt/bridge/state": "online"}, announces: map[string]string{}, budget: -1}
	maps.Copy(h.kept, oldReader("energy", "volume", "temp1", "minflowDate_m"))
	h.announce("80123456", "kamstrup_energy GJ", "kamstrup_volume m³", "kamstrup_temp1 °C", "kamstrup_minflowDate_m ", "kmp_80123456_power kW")
	return h
}

// oldReader is what WobwobRt's reader leaves with these parameters, as its code writes it.
func oldReader(names ...string) map[string]string {
	units := map[string]string{"energy": `, "unit_of_measurement": "kWh", "state_class": "total_increasing"`, "volume": `, "unit_of_measurement": "m³", "state_class": "total_increasing"`, "temp1": `, "unit_of_measurement": "°C"`}
	all := make(map[string]string)
	for _, name := range names {
		all["homeassistant/sensor/kamstrup_"+name+"/config"] = fmt.Sprintf(
			`{"name": "X", "unique_id": "kamstrup_%[1]s", "state_topic": "kamstrup/%[1]s", "availability_topic": "kamstrup/status", "payload_available": "online", "payload_not_available": "offline", "device": {"identifiers": ["kamstrup_meter"], "name": "Kamstrup Meter", "manufacturer": "Kamstrup", "model": "Multical 402"}%[2]s, "icon": "mdi:gauge"}`, name, units[name])
	}
	return all
}

// announce has the bridge announce sensors, given as unique id and unit.
func (h *house) announce(serial string, sensors ...string) {
	components := map[string]any{}
	for _, s := range sensors {
		id, unit, _ := strings.Cut(s, " ")
		components[id] = map[string]string{"platform": "sensor", "unique_id": id, "unit_of_measurement": unit}
	}
	payload, err := json.Marshal(map[string]any{"origin": map[string]string{"name": "kmp2mqtt"}, "components": components})
	if err != nil {
		panic(err)
	}
	topic := "homeassistant/device/kmp_" + serial + "/config"
	h.announces[topic] = string(payload)
	h.kept[topic] = string(payload)
}

func (h *house) Publish(_ context.Context, topic string, payload []byte, retain bool) error {
	if h.budget == 0 {
		return errPower
	}
	h.budget--
	switch {
	case retain && len(payload) == 0:
		delete(h.kept, topic)
	case retain:
		h.kept[topic] = string(payload)
	}
	if retain {
		h.published = append(h.published, topic+" "+string(payload))
	}
	h.queue = append(h.queue, Message{topic, slices.Clone(payload)})
	h.queue, h.waiting = append(h.queue, h.waiting...), nil
	if topic == "kmp2mqtt/bridge/request/discovery" {
		h.requests++
		if h.asked != nil {
			h.asked(h.requests)
		}
		if h.silent {
			return nil
		}
		for topic, payload := range h.announces {
			h.kept[topic] = payload
			h.queue = append(h.queue, Message{topic, []byte(payload)})
		}
		h.queue = append(h.queue, Message{"kmp2mqtt/bridge/response/discovery", slices.Clone(payload)})
	}
	return nil
}

func (h *house) Next(ctx context.Context) (Message, error) {
	if len(h.queue) == 0 {
		<-ctx.Done()
		return Message{}, ctx.Err()
	}
	m := h.queue[0]
	h.queue = h.queue[1:]
	return m, nil
}

// adopt runs an adoption as a client that has just come.
func (h *house) adopt(ctx context.Context, act bool) (Report, error) {
	a := Adoption{Base: "kmp2mqtt", Prefix: "homeassistant", Act: act, Wait: 20 * time.Second, Settle: 5 * time.Second}
	if h.planned != nil {
		a.Planned = func(Report) { h.planned() }
	}
	h.queue = nil
	for topic, payload := range h.kept {
		for _, filter := range a.Filters() {
			if matched, err := path.Match(strings.ReplaceAll(filter, "+", "*"), topic); err == nil && matched {
				h.queue = append(h.queue, Message{topic, []byte(payload)})
			}
		}
	}
	if h.late {
		h.queue, h.waiting = nil, h.queue
	}
	return a.Run(ctx, h)
}

// bystanders are announcements of other programs that look a little like those of the reader.
var bystanders = map[string]string{
	"homeassistant/sensor/kamstrup_water/config":        `{"unique_id":"kamstrup_water","state_topic":"wmbus/kamstrup_water","device":{"identifiers":["x"],"manufacturer":"Kamstrup"}}`,
	"homeassistant/sensor/kamstrup_power/config":        `{"unique_id":"my_power","state_topic":"kamstrup/power","device":{"identifiers":["x"],"manufacturer":"Kamstrup"}}`,
	"homeassistant/sensor/kamstrup_temp2/config":        `{"unique_id":"kamstrup_temp2","state_topic":"kamstrup/temp2","device":{"identifiers":["x"],"manufacturer":"me"}}`,
	"homeassistant/sensor/kamstrup_flow/config":         `{"unique_id":"kamstrup_flow","state_topic":"kamstrup/values","device":{"manufacturer":"Kamstrup"}}`,
	"homeassistant/sensor/kamstrup_tempdiff/config":     `not JSON`,
	"homeassistant/sensor/kamstrup_mine/config":         migrate,
	"homeassistant/sensor/energy/config":                `{"unique_id":"kamstrup_energy","state_topic":"kamstrup/energy","device":{"manufacturer":"Kamstrup"}}`,
	"homeassistant/device/kamstrup_meter/config":        `{"origin":{"name":"another"},"components":{"a":{"platform":"sensor","unique_id":"kamstrup_power"}}}`,
	"homeassistant/binary_sensor/kamstrup_power/config": `{"unique_id":"kamstrup_power"}`,
}

// states are the entities of a report with how far they are.
func states(r Report) map[string]State {
	m := make(map[string]State)
	for _, e := range r.Entities {
		m[e.UniqueID] = e.State
	}
	return m
}

func TestAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse()
		maps.Copy(h.kept, bystanders)
		maps.Copy(h.kept, oldReader("hourcounter")) // which the bridge does not read
		foreign := oldReader("foo")                 // a name that the reader does not have any more
		maps.Copy(h.kept, foreign)
		before := maps.Clone(h.kept)

		plan, err := h.adopt(t.Context(), false)
		if err != nil || plan.Done || h.requests > 0 {
			t.Fatalf("%v, done %t, %d requests", err, plan.Done, h.requests)
		}
		want := map[string]State{
			"kamstrup_energy": StateReady, "kamstrup_volume": StateReady, "kamstrup_temp1": StateReady,
			"kamstrup_minflowDate_m": StateReady, "kamstrup_hourcounter": StateUnread, "kamstrup_foo": StateUnknown,
		}
		if diff := cmp.Diff(want, states(plan)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(before, h.kept); diff != "" {
			t.Errorf("a plan changes something: %s", diff)
		}
		for _, e := range plan.Entities {
			if warned := e.Warning != ""; warned != (e.UniqueID == "kamstrup_energy") {
				t.Errorf("%s: warning %q", e.UniqueID, e.Warning)
			}
		}

		report, err := h.adopt(t.Context(), true)
		if err != nil || !report.Done || report.Count(StateAdopted) != 4 {
			t.Fatalf("%v: %+v", err, report)
		}
		for topic := range oldReader("energy", "volume", "temp1", "minflowDate_m") {
			delete(before, topic)
		}
		if diff := cmp.Diff(before, h.kept); diff != "" {
			t.Error(diff)
		}
		// Home Assistant lets go of all, then forgets the announcements, in this order.
		var steps []string
		for _, p := range h.published {
			_, payload, _ := strings.Cut(p, " ")
			steps = append(steps, payload)
		}
		if diff := cmp.Diff([]string{migrate, migrate, migrate, migrate, "", "", "", ""}, steps); diff != "" {
			t.Error(diff)
		}

		again, err := h.adopt(t.Context(), true)
		if err != nil || !again.Done || again.Count(StateReady) > 0 || len(h.published) != 8 {
			t.Errorf("again: %v: %+v, %q", err, again, h.published)
		}
	})
}

// TestAdoptLate has all that the broker keeps come after the answer of the broker.
func TestAdoptLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse()
		h.late = true
		plan, err := h.adopt(t.Context(), false)
		if err != nil || plan.Count(StateReady) != 4 {
			t.Errorf("%v: %+v", err, plan)
		}
	})
}

// TestAdoptPower has the power fail after each publish: whatever was left, the next run ends as
// if nothing had happened.
func TestAdoptPower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		whole := newHouse()
		if _, err := whole.adopt(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		failed := 0
		for n := 0; ; n++ {
			h := newHouse()
			h.budget = n
			if _, err := h.adopt(t.Context(), true); err == nil {
				break
			} else if !errors.Is(err, errPower) {
				t.Errorf("after %d: %v", n, err)
			}
			failed++
			h.budget = -1
			report, err := h.adopt(t.Context(), true)
			if err != nil || !report.Done {
				t.Errorf("after %d: %v: %+v", n, err, report)
			}
			if diff := cmp.Diff(whole.kept, h.kept); diff != "" {
				t.Errorf("after %d: %s", n, diff)
			}
		}
		// The mark, a request, four to let go, a request, four cleared, the last request; and before
		// each of the eight a mark.
		if failed != 20 {
			t.Errorf("it failed at %d places", failed)
		}
	})
}

// TestAdoptOutcome has the power fail late: what is adopted by then is told.
func TestAdoptOutcome(t *testing.T) {
	for _, tt := range []struct {
		budget, adopted int
		want            string
	}{
		{0, 0, "nothing is adopted"},
		{10, 0, "nothing is adopted"}, // all have let go, the bridge is not asked
		{12, 0, "nothing is adopted"},
		{13, 1, "1 of 4 are adopted; run it again"},
		{18, 3, "3 of 4 are adopted; run it again"},
		{19, 4, "4 of 4 are adopted; run it again"}, // the bridge is not asked once more
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse()
			h.budget = tt.budget
			report, err := h.adopt(t.Context(), true)
			if !errors.Is(err, errPower) || report.Count(StateAdopted) != tt.adopted {
				t.Errorf("after %d: %v: %+v", tt.budget, err, report)
			}
			if got := report.Outcome(); got != tt.want {
				t.Errorf("after %d: %q, want %q", tt.budget, got, tt.want)
			}
		})
	}
}

// TestAdoptChanged has another announcement come on one of the topics at some moment after the plan:
// it is never lost.
func TestAdoptChanged(t *testing.T) {
	const topic = "homeassistant/sensor/kamstrup_energy/config"
	foreign := `{"unique_id":"mine","state_topic":"x/energy","device":{"manufacturer":"me"}}`
	own := oldReader("energy")[topic]
	for _, tt := range []struct {
		name    string
		payload string
		change  func(h *house, come func())
		want    error
		says    string
		adopted int
	}{
		{"foreign, before Home Assistant lets go", foreign, func(h *house, come func()) { h.planned = come }, ErrChanged, "", 3},
		{"foreign, before it is cleared", foreign, func(h *house, come func()) { h.asked = at(2, come) }, ErrChanged, "", 3},
		{"the old reader again", own, func(h *house, come func()) { h.asked = at(2, come) }, ErrChanged, "", 3},
		{"cleared by somebody", "", func(h *house, come func()) { h.asked = at(2, come) }, nil, "", 4},
		{"foreign, and the bridge ends", foreign, func(h *house, come func()) {
			h.asked = at(2, func() { come(); h.silent = true })
		}, ErrNoBridge, "the old announcements are restored; 1 had changed meanwhile and stay as they are", 0},
		{"foreign before the plan", foreign, func(h *house, come func()) { h.asked = at(1, come) }, nil, "", 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse()
				tt.change(h, func() {
					if err := h.Publish(t.Context(), topic, []byte(tt.payload), true); err != nil {
						t.Error(err)
					}
				})
				report, err := h.adopt(t.Context(), true)
				if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.says) || report.Count(StateAdopted) != tt.adopted {
					t.Errorf("%v: %+v", err, report)
				}
				if got := h.kept[topic]; got != tt.payload {
					t.Errorf("kept is %q, want %q", got, tt.payload)
				}
				noted := slices.ContainsFunc(report.Notes, func(s string) bool {
					return strings.HasPrefix(s, "Not adopted because their announcements have changed meanwhile: 1.")
				})
				if left := err != nil; noted != left || report.Done == left {
					t.Errorf("noted %t, done %t, want %t: %q", noted, report.Done, left, report.Notes)
				}
			})
		})
	}
}

// at does something at the nth request.
func at(n int, do func()) func(int) {
	return func(request int) {
		if request == n {
			do()
		}
	}
}

// TestAdoptRefused has everything as it was when the bridge does not take over.
func TestAdoptRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(h *house)
		want   error
		says   string
	}{
		{"no bridge", func(h *house) { h.kept["kmp2mqtt/bridge/state"] = "offline"; h.silent = true }, ErrNoBridge, "nothing has been changed"},
		{"never a bridge", func(h *house) {
			h.kept = oldReader("energy")
		}, ErrNoBridge, "nothing has been changed"},
		{"without the option", func(h *house) { h.announce("80123456", "kmp_80123456_energy GJ") }, ErrNotAnnounced, "nothing has been changed"},
		{"the option is gone meanwhile", func(h *house) {
			h.announces = map[string]string{"homeassistant/device/kmp_80123456/config": `{"origin":{"name":"kmp2mqtt"},"components":{}}`}
		}, ErrNotAnnounced, "nothing has been changed"},
		{"the bridge ends in the middle", func(h *house) { h.asked = func(n int) { h.silent = n > 1 } }, ErrNoBridge, "the old announcements are restored"},
		{"the option goes in the middle", func(h *house) {
			h.asked = func(n int) {
				if n > 1 {
					clear(h.announces)
				}
			}
		}, ErrNotAnnounced, "the old announcements are restored"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse()
				tt.change(h)
				before := maps.Clone(h.kept)
				report, err := h.adopt(t.Context(), true)
				if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) || report.Count(StateAdopted) > 0 {
					t.Errorf("%v: %+v", err, report)
				}
				for topic := range h.announces {
					delete(before, topic)
					delete(h.kept, topic)
				}
				if diff := cmp.Diff(before, h.kept); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// TestAdoptStopped stops the adoption while Home Assistant is given its time.
func TestAdoptStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse()
		before := maps.Clone(h.kept)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := h.adopt(ctx, true); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "are restored") {
			t.Error(err)
		}
		if diff := cmp.Diff(before, h.kept); diff != "" {
			t.Error(diff)
		}
	})
}

// TestDecodeEntity knows both spellings of Home Assistant's names, and nothing else.
func TestDecodeEntity(t *testing.T) {
	short := `{"uniq_id":"kamstrup_energy","stat_t":"heat/meter/energy","unit_of_meas":"GJ","stat_cla":"total_increasing","avty_t":"heat/meter/status","dev":{"ids":["kamstrup_meter"],"mf":"Kamstrup"}}`
	e, ok := decodeEntity("ha/own", Message{"ha/own/sensor/kamstrup_energy/config", []byte(short)})
	if !ok || e.Register != 60 || e.RegisterName != "energy" || e.Unit != "GJ" || !e.counts || string(e.payload) != short {
		t.Errorf("%+v, %t", e, ok)
	}
	lower := `{"unique_id":"kamstrup_minflowDate_m","state_topic":"kamstrup/minflowdate_m","device":{"manufacturer":"Kamstrup"}}`
	if e, ok := decodeEntity("homeassistant", Message{"homeassistant/sensor/kamstrup_minflowDate_m/config", []byte(lower)}); !ok || e.Register != 140 {
		t.Errorf("%+v, %t", e, ok)
	}
	for topic, payload := range bystanders {
		if e, ok := decodeEntity("homeassistant", Message{topic, []byte(payload)}); ok && e.Register != 0 {
			t.Errorf("%s: %+v", topic, e)
		}
	}
	if _, ok := decodeEntity("homeassistant", Message{"homeassistant/sensor/kamstrup_energy/config", nil}); ok {
		t.Error("an empty message")
	}
}

func FuzzDecodeEntity(f *testing.F) {
	for topic, payload := range bystanders {
		f.Add(topic, []byte(payload))
	}
	for topic, payload := range oldReader("energy", "minflowDate_m") {
		f.Add(topic, []byte(payload))
	}
	f.Fuzz(func(t *testing.T, topic string, payload []byte) {
		if e, ok := decodeEntity("homeassistant", Message{topic, payload}); ok {
			if topic != "homeassistant/sensor/"+e.UniqueID+"/config" || e.State != StateBegun && e.payload == nil {
				t.Errorf("%q: %+v", topic, e)
			}
		}
		if list, ours := decodeDevice(payload); !ours && list != nil {
			t.Error("entities of another program")
		}
	})
}

// TestReportText holds what people read of a plan.
func TestReportText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse()
		maps.Copy(h.kept, oldReader("hourcounter", "foo"))
		report, err := h.adopt(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		report.Setting = "METERS=house=/dev/ttyUSB0?entities=wobwobrt"
		var b strings.Builder
		if err := report.WriteText(&b); err != nil {
			t.Fatal(err)
		}
		want := `METERS=house=/dev/ttyUSB0?entities=wobwobrt

kamstrup_energy         register 60 energy of kmp_80123456
                          it was shown in kWh, the meter sends GJ: its statistics make one false step, which Home Assistant lets you correct under Developer tools > Statistics
kamstrup_foo            no register is known for it: it stays as it is
kamstrup_hourcounter    register 1004 operating_hours, not read
kamstrup_minflowDate_m  register 140 min_flow_month_date of kmp_80123456
kamstrup_temp1          register 86 supply_temperature of kmp_80123456
kamstrup_volume         register 68 volume of kmp_80123456
What is not read has no entity: add its register to REGISTERS (or to the meter's option registers), and run this again.
Nothing has been changed; with -yes it adopts 4. Stop the old reader before: it announces its entities again whenever it starts.
`
		if diff := cmp.Diff(want, b.String()); diff != "" {
			t.Error(diff)
		}
	})
}
