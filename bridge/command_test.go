package bridge

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"kmp2mqtt/kmp"
)

// reply is an answer as a consumer decodes it.
type reply struct {
	Status      string
	Error       string
	Data        map[string]json.RawMessage
	Unsupported []int
	Transaction json.RawMessage
}

func decodeReply(t *testing.T, payload string) reply {
	t.Helper()
	var r reply
	if err := json.Unmarshal([]byte(payload), &r); err != nil {
		t.Fatalf("answer %s: %v", payload, err)
	}
	if r.Data == nil {
		t.Errorf("answer %s has no data", payload)
	}
	return r
}

func TestCommandGet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60,80")
		l.start()
		l.pass(time.Minute)
		get := func(payload string) string {
			t.Helper()
			got := l.command("kmp2mqtt/house/get", payload, "kmp2mqtt/house/response", 5*time.Second)
			if len(got) != 1 {
				t.Fatalf("%d answers to %q: %s", len(got), payload, got)
			}
			return got[0]
		}
		m.set(number(t, 80, kmp.UnitKW, "7.0"))
		states := len(l.sent("kmp2mqtt/house"))
		for _, tt := range []struct{ payload, want string }{
			{"", `{"status":"ok","data":{"time":"2000-01-01T00:01:00Z","energy_gj":227.445,"power_kw":7.0}}`},
			{" \n", `{"status":"ok","data":{"time":"2000-01-01T00:01:05Z","energy_gj":227.445,"power_kw":7.0}}`},
			{"{}", `{"status":"ok","data":{"time":"2000-01-01T00:01:10Z","energy_gj":227.445,"power_kw":7.0}}`},
			{`{"transaction":"x"}`, `{"status":"ok","data":{"time":"2000-01-01T00:01:15Z","energy_gj":227.445,"power_kw":7.0},"transaction":"x"}`},
			{
				`{"registers":["volume",80,"0x4A"],"transaction":{"a":[1,null]}}`,
				`{"status":"ok","data":{"time":"2000-01-01T00:01:20Z","volume_m3":2131.93,"power_kw":7.0,"flow_l_h":128},"transaction":{"a":[1,null]}}`,
			},
			{`{"registers":[371,"register_60"],"transaction":7}`, `{"status":"ok","data":{"time":"2000-01-01T00:01:25Z","energy_gj":227.445},"unsupported":[371],"transaction":7}`},
			{`{"registers":[371]}`, `{"status":"ok","data":{"time":"2000-01-01T00:01:30Z"},"unsupported":[371]}`},
		} {
			if got := get(tt.payload); got != tt.want {
				t.Errorf("%s\nis answered\n%s\nwant\n%s", tt.payload, got, tt.want)
			}
		}
		if n := len(l.sent("kmp2mqtt/house")) - states; n != 4 {
			t.Errorf("the state was published %d times by 4 usual readings and 3 of chosen registers", n)
		}
		for _, tt := range []struct{ payload, want string }{
			{`{"registers":["energi"],"transaction":null}`, `unknown register "energi"; did you mean energy?`},
			{`{"registers":[70000]}`, "not in 0 to 65535"},
			{`{"registers":[1.5]}`, "unknown register"},
			{`{"registers":[]}`, "must be a list"},
			{`{"registers":"energy"}`, "must be a list"},
			{`{"registers":[[]]}`, "unknown register"},
			{`{"registers":[null]}`, "unknown register"},
			{`{"registers":[` + strings.Repeat("1,", 64) + `1]}`, "too many"},
			{`{"register":["energy"],"transaction":1}`, `unknown member "register"; there are registers, transaction`},
			{`{"registers":["energy"}`, "malformed JSON at byte"},
			{`now`, "malformed JSON"},
			{`[]`, "must be a JSON object"},
			{`null`, "must be a JSON object"},
			{`"x"`, "must be a JSON object"},
			{"\xff\xfe\x00", "not UTF-8"},
			{strings.Repeat("[", 5000), "nested more than"},
			{`{"registers":` + strings.Repeat("[", 50) + strings.Repeat("]", 50) + `}`, "nested more than"},
			{`{"transaction":"` + strings.Repeat("x", maxCommand) + `"}`, "the most is"},
			{strings.Repeat("x", 100<<10), "102400 bytes, the most is"},
			{strings.Repeat("x", 1<<20), "1048576 bytes, the most is"},
		} {
			reads := len(m.reads())
			r := decodeReply(t, get(tt.payload))
			if r.Status != "error" || !strings.Contains(r.Error, tt.want) || len(r.Error) > 400 {
				t.Errorf("%.60s is answered %+v, want an error with %q", tt.payload, r, tt.want)
			}
			if len(m.reads()) != reads {
				t.Errorf("%.60s reached the meter", tt.payload)
			}
		}
		if r := decodeReply(t, get(`{"register":[],"transaction":"t"}`)); string(r.Transaction) != `"t"` {
			t.Errorf("an error answer lacks the transaction: %+v", r)
		}
		// What asks for a meter that is not there, or for a name that cannot be one.
		if got := l.command("kmp2mqtt/attic/get", "", "kmp2mqtt/attic/response", time.Second); len(got) != 1 || !strings.Contains(got[0], "unknown meter \\\"attic\\\"; known: house") {
			t.Errorf("%s", got)
		}
		if got := l.command("kmp2mqtt/ü/set", `{"transaction":"t"}`, "kmp2mqtt/bridge/response/set", time.Second); len(got) != 1 ||
			!strings.Contains(got[0], "is not a meter") || !strings.HasSuffix(got[0], `"transaction":"t"}`) {
			t.Errorf("%s", got)
		}
	})
}

func TestCommandGetFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		m.silent = true
		l := newLab(t, meters, "METERS=house=/dev/a gone=/dev/gone", "REGISTERS=60")
		l.lines.cut("/dev/gone")
		l.start()
		l.pass(10 * time.Minute)
		got := l.command("kmp2mqtt/house/get", `{"transaction":1}`, "kmp2mqtt/house/response", 20*time.Second)
		if len(got) != 1 {
			t.Fatalf("%s", got)
		}
		if r := decodeReply(t, got[0]); r.Status != "error" || !strings.Contains(r.Error, "no reply") || string(r.Transaction) != "1" {
			t.Errorf("%+v", r)
		}
		dials := l.lines.dialled("/dev/gone")
		got = l.command("kmp2mqtt/gone/get", "", "kmp2mqtt/gone/response", 10*time.Millisecond)
		if len(got) != 1 || !strings.Contains(got[0], "file does not exist") || l.lines.dialled("/dev/gone") != dials+1 {
			t.Errorf("%s, dialled %d times", got, l.lines.dialled("/dev/gone")-dials)
		}
	})
}

func TestCommandJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60")
		l.start()
		l.pass(time.Minute)
		m.change(func(m *testMeter) { m.slow = time.Second })
		before := len(m.reads())
		for i := range 30 { // more than the budget: who joins costs nothing
			l.broker.publish("kmp2mqtt/house/get", fmt.Sprintf(`{"transaction":%d}`, i), false)
			l.pass(10 * time.Millisecond)
		}
		l.pass(5 * time.Second)
		if n := len(m.reads()) - before; n != 1 {
			t.Errorf("%d readings, want one that all joined", n)
		}
		answers := l.sent("kmp2mqtt/house/response")
		seen := map[string]bool{}
		for _, a := range answers {
			r := decodeReply(t, a)
			if r.Status != "ok" {
				t.Error(a)
			}
			seen[string(r.Transaction)] = true
		}
		if len(seen) != 30 {
			t.Errorf("%d different answers, want 30", len(seen))
		}
	})
}

func TestCommandRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60", "READ_INTERVAL=168h")
		l.start()
		l.pass(time.Minute)
		before := len(m.reads())
		const hours = 6
		var refused reply
		for range hours * 60 * 6 { // every ten seconds
			for _, a := range l.command("kmp2mqtt/house/get", "", "kmp2mqtt/house/response", 10*time.Second) {
				if r := decodeReply(t, a); r.Status == "error" {
					refused = r
				}
			}
		}
		if n := len(m.reads()) - before; n > hours*60+burst || n < hours*60 {
			t.Errorf("%d readings", n)
		}
		if !strings.Contains(refused.Error, "try again in ") || string(refused.Data["retry_after_s"]) == "" {
			t.Errorf("%+v", refused)
		}
		l.pass(10 * time.Minute)
		// Many registers cost as many requests as they take.
		many := make([]string, 64)
		for i := range many {
			many[i] = fmt.Sprint(2000 + i)
		}
		payload := `{"registers":[` + strings.Join(many, ",") + `]}`
		got := append(l.command("kmp2mqtt/house/get", payload, "kmp2mqtt/house/response", 5*time.Second),
			l.command("kmp2mqtt/house/get", payload, "kmp2mqtt/house/response", 5*time.Second)...)
		if len(got) != 2 || decodeReply(t, got[0]).Status != "ok" || decodeReply(t, got[1]).Status != "error" {
			t.Errorf("%s", got)
		}
		// A flood of what costs nothing stays within bounds, too.
		for range 1000 {
			l.broker.publish("kmp2mqtt/house/set", `{"interval":"1h"}`, false)
		}
		l.pass(time.Minute)
		if d := l.diagnostics("house"); d.Interval != 3600 {
			t.Errorf("%+v", d)
		}
	})
}

func TestCommandDemo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60", "READ_INTERVAL=5s")
		l.start()
		l.pass(time.Minute)
		if n := len(m.reads()); n < 12 || n > 14 {
			t.Errorf("%d readings in a minute, want one every 5s", n)
		}
		for range 5 {
			if got := l.command("kmp2mqtt/house/get", "{}", "kmp2mqtt/house/response", 4*time.Second); len(got) != 1 || decodeReply(t, got[0]).Status != "ok" {
				t.Errorf("%s", got)
			}
		}
	})
}

func TestCommandRetained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60")
		for _, topic := range []string{"kmp2mqtt/house/get", "kmp2mqtt/house/set", "kmp2mqtt/bridge/request/log_level", "kmp2mqtt/bridge/request/read"} {
			l.broker.publish(topic, "debug", true)
		}
		l.broker.publish("homeassistant/status", "online", true)
		l.start()
		l.pass(time.Minute)
		l.broker.kill()
		l.pass(time.Minute)
		if n := len(m.reads()); n != 1 {
			t.Errorf("%d readings", n)
		}
		if got := l.logs.lines("retained command ignored"); len(got) != 4 {
			t.Errorf("log:\n%s", strings.Join(got, ""))
		}
		if got := slices.Concat(l.sent("kmp2mqtt/house/response"), l.sent("kmp2mqtt/bridge/response/log_level")); got != nil {
			t.Errorf("answered: %s", got)
		}
	})
}

func TestCommandSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60")
		l.start()
		l.pass(time.Minute)
		got := l.command("kmp2mqtt/house/set", `{"interval":"10m","transaction":"x"}`, "kmp2mqtt/house/response", time.Second)
		if diff := cmp.Diff([]string{`{"status":"ok","data":{"interval":"10m","interval_s":600},"transaction":"x"}`}, got); diff != "" {
			t.Error(diff)
		}
		if d := l.diagnostics("house"); d.Interval != 600 {
			t.Errorf("%+v", d)
		}
		for range 100 {
			l.command("kmp2mqtt/house/set", `{"interval":"10m"}`, "kmp2mqtt/house/response", 0)
			l.command("kmp2mqtt/bridge/request/log_level", "info", "kmp2mqtt/bridge/response/log_level", 0)
		}
		if lines := l.logs.lines("changed"); len(lines) != 1 {
			t.Errorf("what changes nothing is logged:\n%s", strings.Join(lines, ""))
		}
		l.pass(time.Hour)
		if n := len(m.reads()); n != 7 {
			t.Errorf("%d readings in an hour of one every 10m and the first", n)
		}
		for _, tt := range []struct{ payload, want string }{
			{`{"interval":"59s"}`, "out of range; the least is 1m"},
			{`{"interval":"8000h"}`, "the most is 168h"},
			{`{"interval":"-1h"}`, "out of range"},
			{`{"interval":10}`, "interval must be a text"},
			{`{"interval":null}`, "interval must be a text"},
			{`{"interval":"soon"}`, "not a duration"},
			{`{"intervall":"10m"}`, "unknown member"},
			{`{}`, "nothing to set"},
			{``, "nothing to set"},
			{`10m`, "malformed JSON"},
		} {
			got := l.command("kmp2mqtt/house/set", tt.payload, "kmp2mqtt/house/response", time.Second)
			if len(got) != 1 || decodeReply(t, got[0]).Status != "error" || !strings.Contains(got[0], tt.want) {
				t.Errorf("%s is answered %s, want %q", tt.payload, got, tt.want)
			}
		}
		if d := l.diagnostics("house"); d.Interval != 600 {
			t.Errorf("%+v", d)
		}
	})
}

func TestCommandLogLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, _ := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60")
		l.start()
		l.pass(time.Minute)
		if got := l.logs.lines("msg=frame"); got != nil {
			t.Errorf("frames at info: %s", got)
		}
		for _, tt := range []struct {
			payload, want string
			level         slog.Level
		}{
			{"debug", `{"status":"ok","data":{"level":"debug"}}`, slog.LevelDebug},
			{`{"level":"WARN","transaction":[1]}`, `{"status":"ok","data":{"level":"warn"},"transaction":[1]}`, slog.LevelWarn},
			{`"error"`, `{"status":"ok","data":{"level":"error"}}`, slog.LevelError},
			{"loud", `{"status":"error","error":"\"loud\" is not a log level; there are debug, info, warn and error","data":{}}`, slog.LevelError},
			{"", `{"status":"error","error":"which level? There are debug, info, warn and error","data":{}}`, slog.LevelError},
			{`{"level":1}`, `{"status":"error","error":"level must be a text","data":{}}`, slog.LevelError},
			{`debug`, `{"status":"ok","data":{"level":"debug"}}`, slog.LevelDebug},
		} {
			got := l.command("kmp2mqtt/bridge/request/log_level", tt.payload, "kmp2mqtt/bridge/response/log_level", time.Second)
			if diff := cmp.Diff([]string{tt.want}, got); diff != "" {
				t.Errorf("%s: %s", tt.payload, diff)
			}
			if l.level.Level() != tt.level {
				t.Errorf("after %s the level is %v", tt.payload, l.level.Level())
			}
			if info := l.retained("kmp2mqtt/bridge/info"); !strings.Contains(info, `"log_level":"`+levelName(tt.level)+`"`) {
				t.Error(info)
			}
		}
		l.command("kmp2mqtt/house/get", "", "kmp2mqtt/house/response", time.Second)
		if got := l.logs.lines(`bytes="80 3F 10 02 `); len(got) != 1 {
			t.Errorf("the request is not in the log in hex: %s", l.logs.lines("msg=frame"))
		}
	})
}

func TestCommandRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters := map[string]*testMeter{"/dev/a": newTestMeter(t, 1), "/dev/b": newTestMeter(t, 2)}
		l := newLab(t, meters, "METERS=a=/dev/a b=/dev/b", "REGISTERS=80")
		l.start()
		l.pass(time.Minute)
		read := func(payload string, d time.Duration) reply {
			t.Helper()
			got := l.command("kmp2mqtt/bridge/request/read", payload, "kmp2mqtt/bridge/response/read", d)
			if len(got) != 1 {
				t.Fatalf("%d answers to %s", len(got), payload)
			}
			return decodeReply(t, got[0])
		}
		if r := read("a", time.Second); r.Status != "ok" || string(r.Data["power_kw"]) != "6.4" {
			t.Errorf("%+v", r)
		}
		if r := read(`{"meter":"b","registers":["energy"],"transaction":"x"}`, time.Second); r.Status != "ok" || string(r.Data["energy_gj"]) != "227.445" || string(r.Transaction) != `"x"` {
			t.Errorf("%+v", r)
		}
		if r := read(``, time.Second); r.Status != "ok" || !strings.Contains(string(r.Data["a"]), `"power_kw":6.4`) || !strings.Contains(string(r.Data["b"]), `"power_kw":6.4`) {
			t.Errorf("%+v", r)
		}
		meters["/dev/b"].change(func(m *testMeter) { m.silent = true })
		if r := read(`{"transaction":3}`, time.Minute); r.Status != "error" || !strings.HasPrefix(r.Error, "b: ") || len(r.Data["a"]) == 0 || string(r.Transaction) != "3" {
			t.Errorf("%+v", r)
		}
		for payload, want := range map[string]string{
			"c": `unknown meter "c"; known: a, b`, `{"meter":7}`: "meter must be a text", `{"meters":"a"}`: "unknown member", `{"meter":`: "malformed JSON", "[]": "unknown meter",
			"\xff": "not UTF-8", strings.Repeat("x", 20000): "the most is",
		} {
			if r := read(payload, time.Second); r.Status != "error" || !strings.Contains(r.Error, want) {
				t.Errorf("%.40s: %+v, want %q", payload, r, want)
			}
		}
		for verb, at := range map[string]string{"restart": "restart", "": "unknown", "ü": "unknown", "a/b": "unknown"} {
			got := l.command("kmp2mqtt/bridge/request/"+verb, `{"transaction":5}`, "kmp2mqtt/bridge/response/"+at, time.Second)
			if len(got) != 1 || !strings.Contains(got[0], "unknown request") || !strings.Contains(got[0], "read, census, accept, history, discovery and log_level") {
				t.Errorf("%q: %s", verb, got)
			}
		}
		if got := l.command("kmp2mqtt/bridge/request/discovery", "all", "kmp2mqtt/bridge/response/discovery", time.Second); len(got) != 1 || decodeReply(t, got[0]).Status != "error" {
			t.Errorf("%s", got)
		}
	})
}

// TestCommandLatency holds the promise that a read-now costs the reading and at most 5 ms.
func TestCommandLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, _ := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60,68,74,80,86,99,1004,124")
		l.start()
		l.pass(time.Minute)
		got := l.command("kmp2mqtt/house/get", "", "kmp2mqtt/house/response", turnaround+5*time.Millisecond)
		if len(got) != 1 {
			t.Error("no answer 5 ms after the meter's")
		}
	})
}

// TestBirthRetained ignores a birth that nobody sent just now.
func TestBirthRetained(t *testing.T) {
	c, errs := parse(t, nil, "METERS=house=/dev/a", "MQTT_URL=mqtt://h")
	if errs != nil {
		t.Fatal(errs)
	}
	published := 0
	b := newBridge(c, Deps{Level: new(slog.LevelVar), Log: slog.New(slog.DiscardHandler), Tap: func(Message) { published++ }}, nil, nil)
	commands := newCommands(b)
	commands.message("homeassistant/status", []byte("online"), true)
	if published != 0 {
		t.Errorf("%d messages after a retained birth", published)
	}
	commands.message("homeassistant/status", []byte("online"), false)
	if published == 0 {
		t.Error("no message after a birth")
	}
}

func TestDepth(t *testing.T) {
	for text, want := range map[string]int{"": 0, "{}": 1, `{"a":[[1]]}`: 3, `"[[["`: 0, `["\"[[",[]]`: 2, `["\\",[]]`: 2, "]]]": 0} {
		if got := depth([]byte(text)); got != want {
			t.Errorf("depth(%s) = %d, want %d", text, got, want)
		}
	}
}

// FuzzCommand sends anything to every command topic. Each command gets exactly one answer at
// once or leaves a wish, and never more than bounded.
func FuzzCommand(f *testing.F) {
	for _, payload := range []string{
		"", "{}", `{"registers":["energy",80,"0x4A"],"transaction":"x"}`, `{"interval":"10m"}`, `debug`, `"debug"`, `{"level":"info"}`,
		`{"meter":"house"}`, "\xff", `{"registers":[1e400]}`, `{"transaction":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}`, "null", "[", `{"interval":null}`,
	} {
		for topic := range 6 {
			f.Add(topic, payload)
		}
	}
	c, err := ParseConfig([]string{"METERS=house=/dev/a", "MQTT_URL=mqtt://h"}, ParseOptions{ParseLine: testLine, ReadFile: testFiles(nil)})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, topic int, payload string) {
		topics := []struct{ topic, reply string }{
			{"house/get", "house/response"},
			{"house/set", "house/response"},
			{"attic/get", "attic/response"},
			{"bridge/request/read", "bridge/response/read"},
			{"bridge/request/log_level", "bridge/response/log_level"},
			{"bridge/request/discovery", "bridge/response/discovery"},
		}
		b := newBridge(c, Deps{Level: new(slog.LevelVar), Log: slog.New(slog.DiscardHandler)}, nil, nil)
		var answers []string
		commands := newCommands(b)
		commands.put = func(msgs ...Message) {
			for _, m := range msgs {
				answers = append(answers, m.Topic)
				var r reply
				if err := json.Unmarshal(m.Payload, &r); err != nil || r.Status != "ok" && r.Status != "error" || (r.Status == "error") != (r.Error != "") {
					t.Errorf("%q is answered %s (%v)", payload, m.Payload, err)
				}
				if checkMessage(m) != nil {
					t.Errorf("%q: the answer cannot be sent", payload)
				}
			}
		}
		at := topics[uint(topic)%uint(len(topics))]
		commands.message("kmp2mqtt/"+at.topic, []byte(payload), false)
		wishes := b.pollers[0].wishes.list
		if len(answers)+len(wishes) != 1 {
			t.Errorf("%q to %s: %d answers and %d wishes", payload, at.topic, len(answers), len(wishes))
		}
		for _, w := range wishes {
			if len(w.registers) > maxChosen || w.interval != 0 && (w.interval < shortestSet || w.interval > MaxInterval) {
				t.Errorf("%q: wish %+v", payload, w)
			}
			w.done(outcome{values: []byte("{}")})
		}
		if len(answers) != 1 || answers[0] != "kmp2mqtt/"+at.reply {
			t.Errorf("%q to %s: answers %q", payload, at.topic, answers)
		}
	})
}
