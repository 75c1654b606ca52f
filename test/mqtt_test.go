//go:build e2e

package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// broker is a real Mosquitto, without persistence unless its configuration says so.
type broker struct {
	*process

	t      *testing.T
	port   int
	config string // the file
}

// open lets everybody in.
const open = "allow_anonymous true"

// mosquitto starts a broker whose listener has these lines of configuration.
func mosquitto(t *testing.T, listener ...string) *broker {
	t.Helper()
	b := &broker{t: t, port: freePort(t), config: filepath.Join(t.TempDir(), "mosquitto.conf")}
	b.configure(listener...)
	b.start()
	return b
}

// configure writes the configuration, which counts from the next start on.
func (b *broker) configure(listener ...string) {
	b.t.Helper()
	lines := append([]string{
		"user root", // it reads the test's files; without root it stays who it is
		"log_type all", "connection_messages true",
		fmt.Sprintf("listener %d %s", b.port, host),
	}, listener...)
	if err := os.WriteFile(b.config, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *broker) start() {
	b.t.Helper()
	b.process = start(b.t, nil, "mosquitto", "-c", b.config)
	b.says(b.t, " running")
}

// kill ends the broker without a chance to say or keep anything.
func (b *broker) kill() {
	b.t.Helper()
	b.end(b.t, syscall.SIGKILL)
}

// url is the broker for kmp2mqtt.
func (b *broker) url() string { return "mqtt://" + address(b.port) }

// client are the options by which mosquitto_sub and mosquitto_pub find the broker.
func (b *broker) client() []string { return clientOptions(b.port) }

func clientOptions(port int) []string { return []string{"-h", host, "-p", fmt.Sprint(port)} }

// message is what a subscriber got.
type message struct {
	Topic   string `json:"topic"`
	Payload string `json:"payload"`
	QoS     int    `json:"qos"`
	Retain  int    `json:"retain"` // 1: an old message that the broker kept
}

// subscriber is a real mosquitto_sub.
type subscriber struct {
	*process

	t     *testing.T
	taken int                  // bytes of its output that are in list
	list  []message            // all so far
	topic map[string][]message // the same, by topic
}

// subscribe starts mosquitto_sub for all topics. It is there when this returns.
func subscribe(t *testing.T, client []string, filters ...string) *subscriber {
	t.Helper()
	if len(filters) == 0 {
		filters = []string{"#"}
	}
	// Line by line, or what -d says would stay in mosquitto_sub's buffer.
	args := append([]string{"-oL", "mosquitto_sub", "-d", "-q", "1", "-F", "%j"}, client...)
	for _, f := range filters {
		args = append(args, "-t", f)
	}
	s := &subscriber{process: start(t, nil, "stdbuf", args...), t: t, topic: make(map[string][]message)}
	eventually(t, "mosquitto_sub has subscribed", func() bool { return strings.Contains(s.out.String(), "Subscribed (mid:") })
	return s
}

// all are the messages so far on a topic, the oldest first; on any if it is "#".
func (s *subscriber) all(topic string) []message {
	s.take()
	if topic == "#" {
		return slices.Clone(s.list)
	}
	return slices.Clone(s.topic[topic])
}

// take sorts in what has come since the last look.
func (s *subscriber) take() {
	rest := s.out.from(s.taken)
	for {
		line, behind, complete := strings.Cut(rest, "\n")
		if !complete {
			return
		}
		s.taken, rest = s.taken+len(line)+1, behind
		var m message
		if json.Unmarshal([]byte(line), &m) == nil { // what is no JSON is what mosquitto_sub says of its own doings
			s.list = append(s.list, m)
			s.topic[m.Topic] = append(s.topic[m.Topic], m)
		}
	}
}

// newest is the newest message on each topic.
func (s *subscriber) newest() map[string]message {
	latest := make(map[string]message)
	for _, m := range s.all("#") {
		latest[m.Topic] = m
	}
	return latest
}

// wait waits for a message on a topic that fits and returns the first.
func (s *subscriber) wait(topic, what string, fits func(m message) bool) message {
	s.t.Helper()
	var found message
	eventually(s.t, topic+": "+what, func() bool {
		list := s.all(topic)
		i := slices.IndexFunc(list, fits)
		if i >= 0 {
			found = list[i]
		}
		return i >= 0
	})
	return found
}

// any waits for any message on a topic.
func (s *subscriber) any(topic string) message {
	s.t.Helper()
	return s.wait(topic, "any message", func(message) bool { return true })
}

// says waits for a payload on a topic.
func (s *subscriber) says(topic, payload string) message {
	s.t.Helper()
	return s.wait(topic, payload, func(m message) bool { return m.Payload == payload })
}

// more waits for n messages on a topic beyond those that are there.
func (s *subscriber) more(topic string, n int) []message {
	s.t.Helper()
	before := len(s.all(topic))
	eventually(s.t, fmt.Sprintf("%d more messages on %s", n, topic), func() bool { return len(s.all(topic)) >= before+n })
	return s.all(topic)[before:]
}

// publish sends a message with a real mosquitto_pub.
func publish(t *testing.T, client []string, topic, payload string, flags ...string) {
	t.Helper()
	args := append(slices.Clone(client), "-t", topic, "-q", "1")
	if payload == "" {
		args = append(args, "-n")
	} else {
		args = append(args, "-s")
	}
	output(t, payload, "mosquitto_pub", append(args, flags...)...)
}

// retained are the messages that a broker keeps, as a new subscriber sees them.
func retained(t *testing.T, client []string) map[string]message {
	t.Helper()
	s := subscribe(t, client)
	publish(t, client, "test/end", "of what was kept") // comes behind all that is kept
	s.any("test/end")
	kept := make(map[string]message)
	for _, m := range s.all("#") {
		if m.Retain == 1 {
			kept[m.Topic] = m
		}
	}
	s.end(t, syscall.SIGKILL) // it has nothing to say goodbye for, and waits for a busy broker if it may
	return kept
}

// object decodes a flat JSON object into its members as they were written, digit by digit.
func object(t *testing.T, payload string) map[string]string {
	t.Helper()
	var raw map[string]json.RawMessage
	if err := json.Unmarshal([]byte(payload), &raw); err != nil {
		t.Fatalf("%v in %s", err, payload)
	}
	members := make(map[string]string)
	for k, v := range raw {
		members[k] = string(v)
	}
	return members
}

// decode decodes JSON; members that the type does not have are an error.
func decode[T any](t *testing.T, payload string) T {
	t.Helper()
	var v T
	d := json.NewDecoder(strings.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, payload)
	}
	return v
}
