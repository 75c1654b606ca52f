package bridge

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp/sim"
)

func TestTopicsTable(t *testing.T) {
	var b bytes.Buffer
	if err := WriteTopicsTable(&b); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"../README.md", "../docs/topics.md"} {
		between(t, file, "<!-- topics:begin -->\n", "<!-- topics:end -->", b.Bytes())
	}
}

// matches reports whether a topic is one of the row's. A literal row stands before one
// that would match as well.
func (r topicRow) matches(topic string) bool {
	want, got := strings.Split(r.below("kmp2mqtt"), "/"), strings.Split(topic, "/")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if strings.HasPrefix(want[i], "<") && got[i] != "bridge" {
			continue
		}
		if want[i] != got[i] {
			return false
		}
	}
	return true
}

// Everything that a bridge publishes in an eventful hour stands in the table, with the
// right retain flag, and every row of the table has been seen.
func TestTopicsTableIsTrue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		toToday()
		l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {LogDepth: 24}}, "METERS=house=/dev/a?interval=10m&model=403", "MQTT_VALUES=true", "MQTT_COMPAT=kamstrup-402-mqtt", "DATA_DIR="+t.TempDir())
		var mu sync.Mutex
		retained := make(map[string]bool)
		l.tap = func(m Message) {
			mu.Lock()
			defer mu.Unlock()
			retained[m.Topic] = m.Retain
		}
		l.start()
		l.pass(time.Minute)
		l.command("kmp2mqtt/house/get", "", "kmp2mqtt/house/response", time.Minute)
		l.command("kmp2mqtt/bridge/request/read", "house", "kmp2mqtt/bridge/response/read", time.Minute)
		sims["/dev/a"].SetFaults(sim.Faults{Silence: true})
		l.pass(time.Hour)

		mu.Lock()
		defer mu.Unlock()
		retained["kmp2mqtt/bridge/state"] = l.retained("kmp2mqtt/bridge/state") == "online" // the session's own
		seen := make(map[string]bool)
		for topic, flag := range retained {
			if strings.HasPrefix(topic, "homeassistant/") {
				continue
			}
			found := false
			for _, r := range topicRows() {
				if r.sent && !found && r.matches(topic) {
					found, seen[r.topic] = true, true
					if r.retained != flag {
						t.Errorf("%s: retained %v, the table says %v", topic, flag, r.retained)
					}
				}
			}
			if !found {
				t.Errorf("%s is not in the table", topic)
			}
		}
		for _, r := range topicRows() {
			if r.sent && !seen[r.topic] {
				t.Errorf("%s was never published", r.topic)
			}
		}
	})
}
