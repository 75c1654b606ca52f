//go:build e2e

package test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hostileTopics are all that the bridge listens to, and some that look alike.
func hostileTopics() []string {
	topics := []string{
		"kmp2mqtt/house/get", "kmp2mqtt/house/set", "kmp2mqtt/nobody/get", "kmp2mqtt/bridge/get", "kmp2mqtt/a b/set",
		"kmp2mqtt/house/get/more", "kmp2mqtt/" + strings.Repeat("x", 4000) + "/get", "homeassistant/status",
	}
	for _, verb := range []string{"read", "discovery", "log_level", "census", "accept", "dance", "", strings.Repeat("y", 4000), "../read"} {
		topics = append(topics, "kmp2mqtt/bridge/request/"+verb)
	}
	return topics
}

// hostilePayloads are what nobody should send. None of them is a command that could be obeyed.
func hostilePayloads() map[string]string {
	const large = 1 << 20
	noise := make([]byte, large)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	return map[string]string{
		"1 MiB of text":         strings.Repeat("x", large),
		"1 MiB of noise":        string(noise),
		"a little noise":        "\x00" + string(noise[:1000]),
		"1 MiB deep":            strings.Repeat("[", large/2) + strings.Repeat("]", large/2),
		"16 KiB deep":           strings.Repeat(`{"registers":`, 1200),
		"a long list":           `{"registers":[` + strings.Repeat("60,", 5000) + `60]}`,
		"a large transaction":   `{"interval":"1ns","meter":"\u0000","level":"loud","transaction":"` + strings.Repeat("z", 16000) + `"}`,
		"numbers out of bounds": `{"registers":[-1,1e999999999,99999999999999999999999999],"interval":1e400,"level":[],"meter":{}}`,
		"half a character":      "{\"registers\":[\"\xe2\x82\"]}",
		"many members":          "{" + strings.Repeat(`"registers":[],`, 1000) + `"x":0}`,
	}
}

// TestStormCommands throws everything that is hostile at everything that listens, while a meter is read every second.
// Memory is bounded, nothing is leaked, the log does not grow, and the readings keep coming.
func TestStormCommands(t *testing.T) {
	t.Parallel()
	const most = 16 << 20 // more memory than before; more than ten times as much is sent
	plain := filepath.Join(t.TempDir(), "kmp2mqtt")
	output(t, "", "go", "build", "-o", plain, "kmp2mqtt") // the race detector's own memory grows with what happens
	b := mosquitto(t, open)
	live := subscribe(t, b.client(), "kmp2mqtt/house", "kmp2mqtt/house/diagnostics", "kmp2mqtt/bridge/response/discovery")
	data := t.TempDir()
	settings := []string{"METERS=house=" + quick("7").line() + unlimited, "READ_INTERVAL=1s", "DATA_DIR=" + data, "MQTT_URL=" + b.url()}
	p := start(t, settings, plain)
	live.more("kmp2mqtt/house", 2)
	before, memory, peak, sent := p.resources(t), p.memory(t), 0, 0
	began := len(live.all("kmp2mqtt/house"))
	send := func(topic, payload string, flags ...string) {
		publish(t, b.client(), topic, payload, flags...)
		sent += len(payload)
		peak = max(peak, p.memory(t))
	}
	var small, large bytes.Buffer // floods, a command a line
	for i := range 2000 {
		fmt.Fprintf(&small, "{\"registers\":[60],\"transaction\":%d}\n", i)
	}
	for i := range 64 {
		fmt.Fprintf(&large, "{\"registers\":[60],\"transaction\":%d%s}\n", i, strings.Repeat(" ", 1<<20))
	}
	flood := func(lines string) {
		output(t, lines, "mosquitto_pub", append(b.client(), "-t", "kmp2mqtt/house/get", "-l")...)
		sent += len(lines)
		peak = max(peak, p.memory(t))
	}
	for range rounds(1, 30) {
		for _, payload := range hostilePayloads() {
			for _, topic := range hostileTopics() {
				send(topic, payload)
			}
			// An old one that stays with the broker is another road in. This topic is of no meter.
			send("kmp2mqtt/nobody/set", payload, "-r")
			flood(small.String())
		}
		flood(large.String())
		flood(large.String())
	}
	t.Logf("%d MiB sent in all; memory %d MiB before, %d MiB at most", sent>>20, memory>>20, peak>>20)
	if peak > memory+most {
		t.Errorf("memory grows from %d to %d MiB", memory>>20, peak>>20)
	}
	if n := len(p.log.String()); n > 1<<20 {
		t.Errorf("the log has %d bytes", n)
	}
	live.more("kmp2mqtt/house", 3)
	during := live.all("kmp2mqtt/house")[began-1:]
	for i := range during[1:] {
		if gap := stamp(t, during[i+1]).Sub(stamp(t, during[i])); gap > 10*time.Second {
			t.Errorf("%v without a reading, %d readings in all", gap, len(during))
		}
	}
	if n := failed(t, live, "house"); n != 0 {
		t.Errorf("%d readings failed", n)
	}
	if a := ask(t, b.client(), live, "kmp2mqtt/bridge/request/discovery", "", "kmp2mqtt/bridge/response/discovery"); a.Status != "ok" {
		t.Errorf("after all that: %+v", a)
	}
	p.keeps(t, before)
	sound(t, data)
}

// stamp is when the reading of a state ended.
func stamp(t *testing.T, state message) time.Time {
	t.Helper()
	at, err := time.Parse(`"`+time.RFC3339+`"`, object(t, state.Payload)["time"])
	if err != nil {
		t.Fatal(err)
	}
	return at
}
