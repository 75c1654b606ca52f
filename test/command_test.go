//go:build e2e

package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// answer is what every command gets.
type answer struct {
	Status      string                     `json:"status"`
	Error       string                     `json:"error"`
	Data        map[string]json.RawMessage `json:"data"`
	Unsupported []int                      `json:"unsupported"`
	Transaction json.RawMessage            `json:"transaction"`
}

// ask sends a command and returns the next answer on a topic.
func ask(t *testing.T, client []string, live *subscriber, topic, payload, reply string) answer {
	t.Helper()
	before := len(live.all(reply))
	publish(t, client, topic, payload)
	eventually(t, fmt.Sprintf("an answer to %s %.100q", topic, payload), func() bool { return len(live.all(reply)) > before })
	m := live.all(reply)[before]
	if m.Retain != 0 || m.QoS != 1 {
		t.Errorf("the answer has QoS %d, retained %d", m.QoS, m.Retain)
	}
	if !strings.Contains(m.Payload, `"data":{`) {
		t.Errorf("the answer has no data: %s", m.Payload)
	}
	return decode[answer](t, m.Payload)
}

// TestCommands sends commands as a user does, and others that a user should not send.
func TestCommands(t *testing.T) {
	t.Parallel()
	b := mosquitto(t, open)
	publish(t, b.client(), "kmp2mqtt/house/set", `{"interval":"2m"}`, "-r")
	live := subscribe(t, b.client())
	p := bridge(t, "METERS=house="+still("7").line()+"&serial=4711", "MQTT_URL="+b.url())
	live.any("kmp2mqtt/house")
	p.says(t, "retained command ignored")
	if n := decode[diagnostics](t, live.any("kmp2mqtt/house/diagnostics").Payload).Interval; n != 1800 {
		t.Errorf("the retained command has set the interval to %v s", n)
	}
	values := still("7").values(t, 1)

	get := func(payload string) answer {
		return ask(t, b.client(), live, "kmp2mqtt/house/get", payload, "kmp2mqtt/house/response")
	}
	set := func(payload string) answer {
		return ask(t, b.client(), live, "kmp2mqtt/house/set", payload, "kmp2mqtt/house/response")
	}
	request := func(verb, payload string) answer {
		return ask(t, b.client(), live, "kmp2mqtt/bridge/request/"+verb, payload, "kmp2mqtt/bridge/response/"+verb)
	}
	fine := func(what string, a answer, transaction string) {
		t.Helper()
		if a.Status != "ok" || a.Error != "" || string(a.Transaction) != transaction {
			t.Errorf("%s: %+v", what, a)
		}
	}
	refused := func(what string, a answer, words ...string) {
		t.Helper()
		if a.Status != "error" || len(a.Data) != 0 {
			t.Errorf("%s: %+v", what, a)
		}
		for _, w := range words {
			if !strings.Contains(a.Error, w) {
				t.Errorf("%s: the error %q does not say %q", what, a.Error, w)
			}
		}
	}
	state := func(what string, data map[string]json.RawMessage) {
		t.Helper()
		text, err := json.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		sameState(t, string(text), values)
		if t.Failed() {
			t.Fatal(what)
		}
	}

	// Reading now, all or some.
	before := len(live.all("kmp2mqtt/house"))
	a := get("")
	fine("get", a, "")
	state("get", a.Data)
	eventually(t, "a read-now is published, too", func() bool { return len(live.all("kmp2mqtt/house")) > before })
	fine("get {}", get("{}"), "")
	a = get(`{"registers":["energy",80,"0x4A",371],"transaction":{"id":[1,"x"]}}`)
	fine("get registers", a, `{"id":[1,"x"]}`)
	if len(a.Data) != 4 || !slices.Equal(a.Unsupported, []int{371}) {
		t.Errorf("get registers: %+v", a)
	}
	for _, key := range []string{"energy_gj", "power_kw", "flow_l_h"} {
		if !values[key][string(a.Data[key])] {
			t.Errorf("get registers: %s is %s", key, a.Data[key])
		}
	}

	// Another interval, which Home Assistant's number shows.
	a = set(`{"interval":"10m","transaction":5}`)
	fine("set", a, "5")
	live.wait("kmp2mqtt/house/diagnostics", "the new interval", func(m message) bool { return decode[diagnostics](t, m.Payload).Interval == 600 })
	refused("set too short", set(`{"interval":"1s"}`), "interval", "1s", "1m")
	refused("set nonsense", set(`{"interval":"soon"}`), "interval", "soon")
	refused("set a number", set(`{"interval":10}`), "interval")
	refused("set nothing", set("{}"), "interval")
	refused("set something else", set(`{"registers":[60]}`), "registers")

	// Requests to the bridge.
	a = request("read", "house")
	fine("read house", a, "")
	state("read house", a.Data)
	a = request("read", `{"meter":"house","transaction":"x"}`)
	fine("read JSON", a, `"x"`)
	a = request("read", "")
	fine("read all", a, "")
	if len(a.Data) != 1 || !strings.Contains(string(a.Data["house"]), `"energy_gj":`) {
		t.Errorf("read all: %+v", a)
	}
	refused("read nobody", request("read", "nobody"), "nobody", "house")
	const config = "homeassistant/device/kmp_4711/config"
	before = len(live.all(config))
	fine("discovery", request("discovery", `{"transaction":"d"}`), `"d"`)
	eventually(t, "discovery again", func() bool { return len(live.all(config)) > before })
	before = len(live.all(config))
	publish(t, b.client(), "homeassistant/status", "online")
	eventually(t, "discovery at Home Assistant's birth", func() bool { return len(live.all(config)) > before })
	a = request("log_level", "debug")
	fine("log_level", a, "")
	if string(a.Data["level"]) != `"debug"` {
		t.Errorf("log_level: %+v", a)
	}
	live.wait("kmp2mqtt/bridge/info", "the new level", func(m message) bool { return strings.Contains(m.Payload, `"log_level":"debug"`) })
	fine("log_level JSON", request("log_level", `{"level":"info","transaction":null}`), "null")
	refused("log_level", request("log_level", "loud"), "loud", "debug, info, warn and error")
	refused("unknown verb", request("dance", `{"transaction":1}`), "dance", "read, census, accept, history, discovery and log_level")

	// What nobody should send.
	for what, c := range map[string]struct{ payload, says string }{
		"malformed JSON":        {`{"registers":[60`, "JSON"},
		"no object":             {`[60]`, "object"},
		"unknown member":        {`{"register":60}`, "register"},
		"unknown register":      {`{"registers":["enrgy"]}`, "did you mean energy"},
		"too large a register":  {`{"registers":[70000]}`, "70000"},
		"no registers":          {`{"registers":[]}`, "registers"},
		"registers of nonsense": {`{"registers":[{}]}`, "register"},
		"binary rubbish":        {"\x00\xff\xfe\x80{\"", "UTF-8"},
		"deep JSON":             {`{"registers":` + strings.Repeat("[", 8000) + strings.Repeat("]", 8000), "deep"},
		"17 kB":                 {`{"registers":["` + strings.Repeat("x", 17000) + `"]}`, "bytes"},
	} {
		refused(what, get(c.payload), c.says)
	}
	a = ask(t, b.client(), live, "kmp2mqtt/nobody/get", "", "kmp2mqtt/nobody/response")
	refused("get nobody", a, "nobody", "house")

	// Too large to be looked at.
	refused("300 kB", get(strings.Repeat("x", 300_000)), "300000 bytes")
	p.says(t, "too large", "bytes=300000")

	// A retained command is old: nobody has sent it just now.
	if n := strings.Count(p.log.String(), "retained command ignored"); n != 1 {
		t.Errorf("the retained command is logged %d times", n)
	}
	fine("after all that", request("discovery", ""), "")
}

// TestIntervalTakesEffect has a command make a meter be read more often.
func TestIntervalTakesEffect(t *testing.T) {
	t.Parallel()
	b := mosquitto(t, open)
	live := subscribe(t, b.client())
	bridge(t, "METERS=house="+quick("7").line(), "READ_INTERVAL=1s", "MQTT_URL="+b.url())
	live.more("kmp2mqtt/house", 2)
	reply := ask(t, b.client(), live, "kmp2mqtt/house/set", `{"interval":"168h"}`, "kmp2mqtt/house/response")
	if reply.Status != "ok" {
		t.Fatalf("set: %+v", reply)
	}
	// From here on nothing is read unless somebody asks; asking shows that time has passed.
	quiet := len(live.all("kmp2mqtt/house"))
	for i := range 3 {
		ask(t, b.client(), live, "kmp2mqtt/house/get", "{}", "kmp2mqtt/house/response")
		eventually(t, "the reading that was asked for", func() bool { return len(live.all("kmp2mqtt/house")) > quiet+i })
	}
	if n := len(live.all("kmp2mqtt/house")); n != quiet+3 {
		t.Errorf("%d readings after three were asked for", n-quiet)
	}
	reply = ask(t, b.client(), live, "kmp2mqtt/house/set", `{"interval":"1s"}`, "kmp2mqtt/house/response")
	if reply.Status != "ok" { // the settings have it as short as that
		t.Fatalf("set: %+v", reply)
	}
	live.more("kmp2mqtt/house", 3)
}

// TestFlood sends far more commands than a battery would stand. Each is answered, most with
// when to come back, and the schedule goes on.
func TestFlood(t *testing.T) {
	t.Parallel()
	const commands = 200
	b := mosquitto(t, open)
	live := subscribe(t, b.client(), "kmp2mqtt/#")
	bridge(t, "METERS=house="+quick("7").line(), "READ_INTERVAL=2s", "MQTT_URL="+b.url())
	live.any("kmp2mqtt/house")
	var lines bytes.Buffer
	for i := range commands {
		fmt.Fprintf(&lines, "{\"registers\":[60],\"transaction\":%d}\n", i)
	}
	output(t, lines.String(), "mosquitto_pub", append(b.client(), "-q", "1", "-t", "kmp2mqtt/house/get", "-l")...)
	eventually(t, "every command is answered", func() bool { return len(live.all("kmp2mqtt/house/response")) >= commands })
	seen, read, limited := make(map[string]bool), 0, 0
	when := regexp.MustCompile(`try again in [0-9ms]+$`)
	for _, m := range live.all("kmp2mqtt/house/response") {
		a := decode[answer](t, m.Payload)
		seen[string(a.Transaction)] = true
		switch {
		case a.Status == "ok":
			read++
		case when.MatchString(a.Error) && len(a.Data["retry_after_s"]) > 0:
			limited++
		case !strings.Contains(a.Error, "try again later"):
			t.Errorf("a strange answer: %s", m.Payload)
		}
	}
	if len(seen) != commands || read == 0 || read > 11 || limited == 0 {
		t.Errorf("%d of %d answered, %d read, %d told when to come back", len(seen), commands, read, limited)
	}
	live.more("kmp2mqtt/house", 2)
}
