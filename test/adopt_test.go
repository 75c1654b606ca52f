//go:build e2e

package test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// letGo is what makes Home Assistant let go of an entity and keep what it knows of it.
const letGo = `{"migrate_discovery": true}`

// oldTopic is where WobwobRt's reader announces a parameter.
func oldTopic(name string) string { return "homeassistant/sensor/kamstrup_" + name + "/config" }

// oldReader has the broker keep what WobwobRt's reader leaves there: announcements with Home
// Assistant's long names or its short ones, and its own values.
func oldReader(t *testing.T, b *broker, short bool, names ...string) {
	t.Helper()
	units := map[string]string{"energy": "kWh", "volume": "m³", "temp1": "°C", "minpower_m": "W"}
	for _, name := range names {
		payload := fmt.Sprintf(`{"name": "Energy", "unique_id": "kamstrup_%[1]s", "state_topic": "kamstrup/%[1]s", "availability_topic": "kamstrup/status", "payload_available": "online", "payload_not_available": "offline", "device": {"identifiers": ["kamstrup_meter"], "name": "Kamstrup Meter", "manufacturer": "Kamstrup", "model": "Multical 402"}, "unit_of_measurement": "%[2]s", "icon": "mdi:flash", "state_class": "total_increasing"}`, name, units[name])
		if short {
			payload = fmt.Sprintf(`{"name":"Energy","uniq_id":"kamstrup_%[1]s","stat_t":"kamstrup/%[1]s","avty_t":"kamstrup/status","dev":{"ids":["kamstrup_meter"],"name":"Kamstrup Meter","mf":"Kamstrup","mdl":"Multical 402"}}`, name)
		}
		publish(t, b.client(), oldTopic(name), payload, "-r")
	}
	publish(t, b.client(), "kamstrup/status", "online", "-r")
	publish(t, b.client(), "kamstrup/energy", "227.445", "-r")
	// Others have such names, too.
	publish(t, b.client(), oldTopic("water"), `{"unique_id":"kamstrup_water","state_topic":"wmbus/kamstrup","device":{"identifiers":["w"],"manufacturer":"Kamstrup"}}`, "-r")
	publish(t, b.client(), oldTopic("power"), `{"unique_id":"my_power","state_topic":"kamstrup/power","device":{"identifiers":["m"],"manufacturer":"me"}}`, "-r")
}

// payloads are what a broker keeps but for what changes with time.
func payloads(t *testing.T, b *broker) map[string]string {
	t.Helper()
	kept := make(map[string]string)
	for topic, m := range retained(t, b.client()) {
		if !strings.HasPrefix(topic, "kmp2mqtt/bridge/health") && !strings.HasPrefix(topic, "kmp2mqtt/bridge/info") && !strings.HasPrefix(topic, "kmp2mqtt/house/diag") {
			kept[topic] = m.Payload
		}
	}
	return kept
}

// adoptable starts a bridge that announces its meter with the ids of WobwobRt's reader, beside
// what that reader left.
func adoptable(t *testing.T, short bool) (b *broker, settings []string) {
	t.Helper()
	b = mosquitto(t, open)
	oldReader(t, b, short, "energy", "volume", "temp1", "minpower_m")
	settings = []string{"METERS=house=" + still("7").line() + "&entities=wobwobrt", "MQTT_URL=" + b.url(), "HTTP_LISTEN=off"}
	live := subscribe(t, b.client(), "homeassistant/device/kmp_80123456/config")
	bridge(t, settings...)
	live.wait("homeassistant/device/kmp_80123456/config", "the energy under its former id", func(m message) bool {
		return strings.Contains(m.Payload, `"unique_id":"kamstrup_energy"`)
	})
	return b, settings
}

// adopt starts the verb.
func adopt(t *testing.T, settings []string, args ...string) *process {
	t.Helper()
	return start(t, settings, program, append([]string{"adopt", "wobwobrt"}, args...)...)
}

// TestAdopt takes over the entities that another reader has announced at a real broker.
func TestAdopt(t *testing.T) {
	t.Parallel()
	for _, short := range []bool{false, true} {
		t.Run(fmt.Sprintf("short names %t", short), func(t *testing.T) {
			t.Parallel()
			b, settings := adoptable(t, short)
			before := payloads(t, b)

			plan := adopt(t, settings)
			if status := plan.status(t); status != 0 || !strings.Contains(plan.out.String(), "with -yes it adopts 3") ||
				!strings.Contains(plan.out.String(), "register 145 min_power_month, not read") ||
				short == strings.Contains(plan.out.String(), "it was shown in kWh, the meter sends GJ") {
				t.Errorf("status %d: %s", status, plan.out.String())
			}
			if diff := cmp.Diff(before, payloads(t, b)); diff != "" {
				t.Errorf("a plan changes something: %s", diff)
			}

			live := subscribe(t, b.client(), "homeassistant/#")
			done := adopt(t, settings, "-yes", "-json")
			if status := done.status(t); status != 0 {
				t.Fatalf("status %d", status)
			}
			var report struct {
				From     string
				Done     bool
				Entities []struct {
					UniqueID string `json:"unique_id"`
					State    string
				}
			}
			if err := json.Unmarshal([]byte(done.out.String()), &report); err != nil {
				t.Fatal(err)
			}
			states := make(map[string]string)
			for _, e := range report.Entities {
				states[e.UniqueID] = e.State
			}
			want := map[string]string{"kamstrup_energy": "adopted", "kamstrup_volume": "adopted", "kamstrup_temp1": "adopted", "kamstrup_minpower_m": "unread"}
			if diff := cmp.Diff(want, states); diff != "" || !report.Done || report.From != "wobwobrt" {
				t.Errorf("%+v: %s", report, diff)
			}
			checkAdopted(t, before, payloads(t, b))

			// Home Assistant lets go, is told of the entities anew, and forgets: in this order.
			var order []string
			for _, m := range live.all("#") {
				if m.Retain == 1 {
					continue
				}
				what := "forget"
				switch {
				case m.Topic == "homeassistant/device/kmp_80123456/config":
					what = "announce"
				case strings.HasPrefix(m.Topic, "homeassistant/device/"):
					continue
				case m.Payload == letGo:
					what = "let go"
				}
				if len(order) == 0 || order[len(order)-1] != what {
					order = append(order, what)
				}
			}
			if wanted := []string{"announce", "let go", "announce", "forget", "announce"}; !slices.Equal(order, wanted) {
				t.Errorf("%q, want %q", order, wanted)
			}

			again := adopt(t, settings, "-yes")
			if status := again.status(t); status != 0 {
				t.Errorf("again: status %d", status)
			}
			checkAdopted(t, before, payloads(t, b))
		})
	}
}

// checkAdopted looks at what a broker keeps after an adoption: all that was there before, but for
// the announcements of what the bridge reads.
func checkAdopted(t *testing.T, before, after map[string]string) {
	t.Helper()
	want := maps.Clone(before)
	for _, name := range []string{"energy", "volume", "temp1"} {
		if want[oldTopic(name)] == "" {
			t.Errorf("%s was not announced", name)
		}
		delete(want, oldTopic(name))
	}
	if diff := cmp.Diff(want, after); diff != "" {
		t.Error(diff)
	}
}

// TestAdoptKilled kills the adoption as soon as a step of it is seen; the next one ends as if
// nothing had been.
func TestAdoptKilled(t *testing.T) {
	t.Parallel()
	for name, seen := range map[string]func(m message) bool{
		"when the first is let go":  func(m message) bool { return m.Payload == letGo },
		"when the last is let go":   func(m message) bool { return m.Payload == letGo && m.Topic == oldTopic("volume") },
		"when the first is cleared": func(m message) bool { return m.Payload == "" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, settings := adoptable(t, false)
			before := payloads(t, b)
			live := subscribe(t, b.client(), "homeassistant/sensor/#")
			p := adopt(t, settings, "-yes")
			eventually(t, name, func() bool { return slices.ContainsFunc(live.all("#"), seen) })
			p.end(t, syscall.SIGKILL)
			if again := adopt(t, settings, "-yes"); again.status(t) != 0 {
				t.Errorf("again: %s", again.log.tail())
			}
			checkAdopted(t, before, payloads(t, b))
		})
	}
}

// TestAdoptInterrupted stops it by hand: what it had begun with is restored.
func TestAdoptInterrupted(t *testing.T) {
	t.Parallel()
	b, settings := adoptable(t, false)
	before := payloads(t, b)
	live := subscribe(t, b.client(), "homeassistant/sensor/#")
	p := adopt(t, settings, "-yes")
	live.says(oldTopic("volume"), letGo)
	if status := p.end(t, syscall.SIGINT); status == 0 {
		t.Errorf("status %d: %s", status, p.log.tail())
	}
	if diff := cmp.Diff(before, payloads(t, b)); diff != "" {
		t.Error(diff)
	}
}

// TestAdoptRefused asks for it where the bridge cannot take over.
func TestAdoptRefused(t *testing.T) {
	t.Parallel()
	b := mosquitto(t, open)
	oldReader(t, b, false, "energy")
	settings := []string{"METERS=house=" + still("7").line(), "MQTT_URL=" + b.url(), "HTTP_LISTEN=off"}
	before := payloads(t, b)
	if p := adopt(t, settings, "-yes"); p.status(t) != 1 || !strings.Contains(p.log.String(), "no bridge answers") {
		t.Errorf("without a bridge: %s", p.log.tail())
	}
	if diff := cmp.Diff(before, payloads(t, b)); diff != "" {
		t.Error(diff)
	}
	live := subscribe(t, b.client())
	bridge(t, settings...)
	live.any("homeassistant/device/kmp_80123456/config")
	if p := adopt(t, settings, "-yes"); p.status(t) != 1 || !strings.Contains(p.log.String(), "option entities=wobwobrt") {
		t.Errorf("without the option: %s", p.log.tail())
	}
	if now := payloads(t, b)[oldTopic("energy")]; now != before[oldTopic("energy")] {
		t.Error(now)
	}
}

// TestAdoptGolles explains what nobody can do from here, for people and for programs.
func TestAdoptGolles(t *testing.T) {
	t.Parallel()
	settings := []string{"METERS=house=/dev/ttyUSB0", "REGISTERS=60,68,99", "HTTP_LISTEN=off"}
	p := start(t, settings, program, "adopt", "golles")
	if p.status(t) != 0 || !strings.Contains(p.out.String(), "METERS=house=/dev/ttyUSB0?entities=golles") || !strings.Contains(p.out.String(), "sensor.kamstrup_403_heat_energy_e1") {
		t.Errorf("%s%s", p.out.tail(), p.log.tail())
	}
	p = start(t, settings, program, "adopt", "golles", "-json")
	if p.status(t) != 0 || !json.Valid([]byte(p.out.String())) || !strings.Contains(p.out.String(), `"entity_id": "sensor.kamstrup_403_infoevent"`) && !strings.Contains(p.out.String(), `"entity_id":"sensor.kamstrup_403_infoevent"`) {
		t.Errorf("%s%s", p.out.tail(), p.log.tail())
	}
}

// TestCompat has a bridge publish as kamstrup-402-mqtt did; the broker keeps it.
func TestCompat(t *testing.T) {
	t.Parallel()
	b := mosquitto(t, open)
	live := subscribe(t, b.client())
	bridge(t, "METERS=house="+still("7").line(), "MQTT_URL="+b.url(), "HTTP_LISTEN=off", "MQTT_COMPAT=kamstrup-402-mqtt")
	values := object(t, live.any("kamstrup/values").Payload)
	state := object(t, live.any("kmp2mqtt/house").Payload)
	for name, key := range map[string]string{"energy": "energy_gj", "volume": "volume_m3", "power": "power_kw", "temp1": "supply_temperature_c", "temp2": "return_temperature_c", "flow": "flow_l_h"} {
		if values[name] == "" || values[name] != state[key] {
			t.Errorf("%s is %q, %s is %q", name, values[name], key, state[key])
		}
	}
	if m := retained(t, b.client())["kamstrup/values"]; m.QoS != 1 || m.Payload != live.any("kamstrup/values").Payload {
		t.Errorf("%+v", m)
	}
}
