package web

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp/diagnosis"
)

// told is one event of a stream, or a comment.
type told struct{ name, data, comment string }

// next reads a stream up to the end of an event or comment.
func next(t *testing.T, r *bufio.Reader) (e told) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream ends with %v", err)
		}
		switch field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); field {
		case "":
			if value != "" {
				e.comment = value
				continue
			}
			if e != (told{}) {
				return e
			}
		case "event":
			e.name = value
		case "data":
			e.data += value
		case "retry":
		default:
			t.Fatalf("line %q", line)
		}
	}
}

// all reads all events of a stream that has ended.
func all(t *testing.T, stream string) (events []told) {
	t.Helper()
	r := bufio.NewReader(strings.NewReader(stream))
	for {
		if _, err := r.Peek(1); err != nil {
			return events
		}
		events = append(events, next(t, r))
	}
}

// follow opens a stream of events.
func follow(t *testing.T, p *pipes, query string) *bufio.Reader {
	t.Helper()
	response := get(t, p.dial("127.0.0.1"), "/api/v1/events"+query)
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s %v", response.Status, response.Header)
	}
	return bufio.NewReader(response.Body)
}

// Who begins to look sees what is known, then what is new, digit by digit.
func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(time.Now())
		p := open(t, openConfig, src)
		r := follow(t, p, "")
		known := map[string]string{}
		for range 6 {
			e := next(t, r)
			var data struct {
				Meter, Topic string
				Payload      json.RawMessage
			}
			if err := json.Unmarshal([]byte(e.data), &data); err != nil {
				t.Fatalf("%s: %v", e.data, err)
			}
			known[data.Topic] = e.name + " of " + data.Meter + ": " + string(data.Payload)
		}
		house, garage := src.Meters()[0], src.Meters()[1]
		for topic, want := range map[string]string{
			"kmp2mqtt/house":               "state of house: " + string(house.State),
			"kmp2mqtt/house/availability":  `availability of house: "online"`,
			"kmp2mqtt/house/diagnostics":   "diagnostics of house: " + string(house.Diagnostics),
			"kmp2mqtt/house/diagnosis":     "diagnosis of house: " + string(house.Diagnosis),
			"kmp2mqtt/garage/availability": `availability of garage: "offline"`,
			"kmp2mqtt/garage/diagnosis":    "diagnosis of garage: " + string(garage.Diagnosis),
		} {
			if known[topic] != want {
				t.Errorf("%s:\n%s, want\n%s", topic, known[topic], want)
			}
		}

		synctest.Wait()
		for _, m := range []struct {
			message Message
			want    told
		}{
			{
				Message{Topic: "kmp2mqtt/house", Meter: "house", Kind: "state", Payload: []byte("{\n \"power_kw\": 6.50,\r\n \"info\": [\"<&>\"]}")},
				told{name: "state", data: `{"meter":"house","topic":"kmp2mqtt/house","payload":{"power_kw":6.50,"info":["<&>"]}}`},
			},
			{
				Message{Topic: "kmp2mqtt/bridge/state", Kind: "state", Payload: []byte("online")},
				told{name: "state", data: `{"meter":null,"topic":"kmp2mqtt/bridge/state","payload":"online"}`},
			},
			{
				Message{Topic: "kmp2mqtt/bridge/event", Kind: "event", Payload: []byte(`{"type":"census"}`)},
				told{name: "event", data: `{"meter":null,"topic":"kmp2mqtt/bridge/event","payload":{"type":"census"}}`},
			},
			{
				Message{Topic: "kmp2mqtt/house/availability", Meter: "house", Kind: "availability", Payload: []byte("off\nevent: x\n\n")},
				told{name: "availability", data: `{"meter":"house","topic":"kmp2mqtt/house/availability","payload":"off\nevent: x\n\n"}`},
			},
		} {
			src.publish(Message{Topic: "kmp2mqtt/house/power_kw", Meter: "house", Kind: "power_kw", Payload: []byte("6.5")}) // stands in the state
			src.publish(m.message)
			if e := next(t, r); e != m.want {
				t.Errorf("%+v, want %+v", e, m.want)
			}
		}
		start := time.Now()
		if e := next(t, r); e.comment == "" || time.Since(start) > heartbeat {
			t.Errorf("silence is broken by %+v after %s", e, time.Since(start))
		}
	})
}

func TestEventsOfOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(time.Now())
		p := open(t, openConfig, src)
		r := follow(t, p, "?meter=garage")
		if a, b := next(t, r), next(t, r); a.name != "availability" || b.name != "diagnosis" {
			t.Errorf("at first %+v, %+v", a, b)
		}
		synctest.Wait()
		src.state("house", `{"power_kw":1}`)
		src.publish(Message{Topic: "kmp2mqtt/bridge/health", Kind: "health", Payload: []byte(`{}`)})
		src.state("garage", `{"power_kw":2.0}`)
		if e := next(t, r); e.data != `{"meter":"garage","topic":"kmp2mqtt/garage","payload":{"power_kw":2.0}}` {
			t.Errorf("then %+v", e)
		}
	})
	if rw := ask(openConfig, newFake(fakeTime), http.MethodGet, "/api/v1/events?meter=cellar"); rw.Code != http.StatusNotFound {
		t.Errorf("of none: %d", rw.Code)
	}
	if rw := ask(openConfig, newFake(fakeTime), http.MethodHead, "/api/v1/events"); rw.Code != http.StatusOK {
		t.Errorf("HEAD: %d", rw.Code)
	}
}

// So many streams and no more. Who goes makes room.
func TestStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(time.Now())
		p := open(t, openConfig, src)
		c := p.dial("127.0.0.1")
		get(t, c, "/api/v1/events")
		for range maxStreams - 1 {
			get(t, p.dial("127.0.0.1"), "/api/v1/events")
		}
		one := p.dial("127.0.0.1")
		response := get(t, one, "/api/v1/events")
		if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
			t.Errorf("one too many: %s %v", response.Status, response.Header)
		}
		go io.Copy(io.Discard, one)
		c.Close()
		synctest.Wait()
		if response := get(t, p.dial("127.0.0.1"), "/api/v1/events"); response.StatusCode != http.StatusOK {
			t.Errorf("when one has gone: %s", response.Status)
		}
	})
}

// A hundred readers who take nothing cost the publisher no time and bounded memory, and are
// cut off.
func TestSlowReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(time.Now())
		p := open(t, openConfig, src)
		for range 100 {
			get(t, p.dial("127.0.0.1"), "/api/v1/events")
		}
		synctest.Wait()
		if n := src.following(); n != 100 {
			t.Fatalf("%d follow", n)
		}
		start := time.Now()
		for i := range 2000 {
			src.state("house", fmt.Sprintf(`{"power_kw":%d}`, i))
			src.publish(Message{Topic: "kmp2mqtt/bridge/event", Kind: "event", Payload: []byte(`{}`)})
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("the publisher waited %s", waited)
		}
		time.Sleep(writeTimeout)
		synctest.Wait()
		if n := src.following(); n != 0 {
			t.Errorf("after %s, %d still follow", writeTimeout, n)
		}
	})
}

func TestQueue(t *testing.T) {
	q := newQueue("")
	due, anew, missed := q.take()
	if len(due) != 0 || !anew || missed != 0 {
		t.Errorf("at first %v, %t, %d", due, anew, missed)
	}
	state := func(i int) Message {
		return Message{Topic: "kmp2mqtt/house", Kind: "state", Payload: fmt.Append(nil, i)}
	}
	event := Message{Topic: "kmp2mqtt/bridge/event", Kind: "event", Payload: []byte("{}")}
	q.put(event)
	for i := range 5000 {
		q.put(state(i))
	}
	q.put(event)
	due, anew, missed = q.take()
	if len(due) != 3 || anew || missed != 0 || string(due[1].Payload) != "4999" || due[0].Kind != "event" || due[2].Kind != "event" {
		t.Errorf("%d messages, %t, %d", len(due), anew, missed)
	}
	for range maxQueue {
		q.put(event)
	}
	q.put(state(1))
	q.put(event)
	due, anew, missed = q.take()
	if len(due) != 2 || !anew || missed != maxQueue {
		t.Errorf("after too many: %d messages, %t, %d", len(due), anew, missed)
	}
	if due, anew, missed = q.take(); len(due) != 0 || anew || missed != 0 {
		t.Errorf("empty: %v, %t, %d", due, anew, missed)
	}
}

// Who cannot keep up is told what is known now instead of what was missed.
func TestOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(time.Now())
		p := open(t, openConfig, src)
		r := follow(t, p, "?meter=house")
		next(t, r) // the others wait in the pipe
		for range maxQueue + 2 {
			src.publish(Message{Topic: "kmp2mqtt/house/history", Meter: "house", Kind: "history", Payload: []byte(`{}`)})
		}
		src.state("house", `{"power_kw":7.00}`)
		var names []string
		for range 3 + 1 + 4 + 3 {
			e := next(t, r)
			names = append(names, e.name+e.comment)
		}
		want := []string{
			"state", "diagnostics", "diagnosis", fmt.Sprintf("%d messages were too many", maxQueue),
			"availability", "state", "diagnostics", "diagnosis", "history", "history", "state",
		}
		if !slices.Equal(names, want) {
			t.Errorf("%q, want %q", names, want)
		}
	})
}

// What a hundred open pages cost whoever publishes: nobody reads, all queues are as full as
// they get.
func BenchmarkPublish(b *testing.B) {
	for _, readers := range []int{1, 100} {
		b.Run(fmt.Sprintf("readers=%d", readers), func(b *testing.B) {
			src := newFake(fakeTime)
			for range readers {
				src.Follow(newQueue("").put)
			}
			messages := make([]Message, 40)
			for i := range messages {
				name := fmt.Sprintf("meter-%d", i)
				messages[i] = Message{Topic: "kmp2mqtt/" + name, Meter: name, Kind: "state", Payload: src.meters[0].State}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				src.publish(messages[i%len(messages)])
			}
		})
	}
}

func TestAlign(t *testing.T) {
	src := newFake(fakeTime)
	rw := ask(openConfig, src, http.MethodPost, "/api/v1/meters/house/align?length=90s")
	events := all(t, rw.Body.String())
	if rw.Code != http.StatusOK || rw.Header().Get("Content-Type") != "text/event-stream" || len(events) != 11 {
		t.Fatalf("%d %v, %d events", rw.Code, rw.Header(), len(events))
	}
	var sample struct {
		Sample struct {
			Code   string
			Row    int
			Locked bool
		}
		Frames []struct{ Direction, Wire, Decode string }
	}
	if err := json.Unmarshal([]byte(events[9].data), &sample); err != nil || events[9].name != "sample" {
		t.Fatalf("%+v: %v", events[9], err)
	}
	if s := sample.Sample; s.Code != "ok" || s.Row != 10 || !s.Locked || len(sample.Frames) != 3 || sample.Frames[0].Wire != "80 3F 02 35 E9 0D" {
		t.Errorf("%+v", sample)
	}
	if e := events[10]; e.name != "summary" || !strings.Contains(e.data, `"reads":10,"good":10,"duration_s":2,"locked":true,"code":"ok"`) {
		t.Errorf("%+v", e)
	}

	var asked time.Duration
	src.align = func(_ context.Context, _ string, length time.Duration, _ func(diagnosis.Sample)) (diagnosis.Summary, error) {
		asked = length
		return diagnosis.Summary{Code: diagnosis.PortBusy}, errors.New("bridge: /dev/ttyUSB0 is in use by another program")
	}
	for query, want := range map[string]int{"": 502, "?length=5m": 502, "?length=1s": 502, "?length=999ms": 400, "?length=5m1s": 400, "?length=-1s": 400, "?length=x": 400} {
		asked = 0
		rw := ask(openConfig, src, http.MethodPost, "/api/v1/meters/house/align"+query)
		if rw.Code != want || rw.Header().Get("Content-Type") != "application/problem+json" || (asked == 0) != (want == 400) {
			t.Errorf("%q: %d %s, asked for %s", query, rw.Code, rw.Body, asked)
		}
	}
	if asked = 0; ask(openConfig, src, http.MethodPost, "/api/v1/meters/house/align").Code != 502 || asked != usualAlign {
		t.Errorf("usually %s", asked)
	}
}

// A line that fails after some reads has an end, too.
func TestAlignFails(t *testing.T) {
	src := newFake(fakeTime)
	src.align = func(_ context.Context, _ string, _ time.Duration, show func(diagnosis.Sample)) (diagnosis.Summary, error) {
		show(diagnosis.Sample{Code: diagnosis.Silent, Of: 1})
		return diagnosis.Summary{Reads: 1, Code: diagnosis.LineLost}, errors.New("bridge: the line is gone")
	}
	events := all(t, ask(openConfig, src, http.MethodPost, "/api/v1/meters/house/align").Body.String())
	if len(events) != 3 || events[1].name != "failure" || !strings.Contains(events[1].data, `"status":502,"detail":"the line is gone"`) || events[2].name != "summary" {
		t.Errorf("%+v", events)
	}
}

// The line is free again as soon as nobody looks: the reader has gone, or takes nothing.
func TestAlignEnds(t *testing.T) {
	for name, gone := range map[string]bool{"gone": true, "deaf": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := newFake(time.Now())
				busy := make(chan time.Duration, 1)
				src.align = func(ctx context.Context, _ string, length time.Duration, show func(diagnosis.Sample)) (diagnosis.Summary, error) {
					start := time.Now()
					for ctx.Err() == nil && time.Since(start) < length {
						before := time.Now()
						show(diagnosis.Sample{Code: diagnosis.OK})
						if waited := time.Since(before); waited != 0 {
							t.Errorf("show took %s", waited)
						}
						time.Sleep(time.Second / 4)
					}
					busy <- time.Since(start)
					return diagnosis.Summary{}, ctx.Err()
				}
				p := open(t, openConfig, src)
				c := p.dial("127.0.0.1")
				io.WriteString(c, "POST /api/v1/meters/house/align?length=5m HTTP/1.1\r\nHost: localhost\r\n\r\n")
				response, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Fatal(err)
				}
				r := bufio.NewReader(response.Body)
				for range 3 {
					next(t, r)
				}
				if gone {
					c.Close()
				}
				if took := <-busy; took > writeTimeout {
					t.Errorf("the line was busy for %s", took)
				}
			})
		})
	}
}
