package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"
)

// logBuffer collects log lines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// lines with any of the words.
func (b *logBuffer) lines(words ...string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []string
	for line := range strings.Lines(b.buf.String()) {
		if slices.ContainsFunc(words, func(w string) bool { return strings.Contains(line, w) }) {
			found = append(found, line)
		}
	}
	return found
}

func (b *logBuffer) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: level}))
}

func brokerURLs(urls ...string) []*url.URL {
	var all []*url.URL
	for _, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil {
			panic(err)
		}
		all = append(all, u)
	}
	return all
}

type received struct {
	topic, payload string
	retained       bool
}

// house is a session at a mini broker inside a bubble.
type house struct {
	t       *testing.T
	b       *miniBroker
	cfg     MQTTConfig
	box     *Outbox
	logs    logBuffer
	session *Session
	cancel  context.CancelFunc
	done    chan error

	mu       sync.Mutex
	got      []received
	connects int
	large    []string // too large to be kept: topic and size
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, b: newMiniBroker(t), box: NewOutbox()}
	h.cfg = MQTTConfig{URLs: brokerURLs("mqtt://broker"), ClientID: "me", Topic: "k", Dial: h.b.dial}
	return h
}

func (h *house) start() {
	h.session = NewSession(h.cfg, h.box, []string{"k/+/get", "k/bridge/request/+"},
		func(topic string, payload []byte, retained bool) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.got = append(h.got, received{topic, string(payload), retained})
		},
		func(topic string, size int) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.large = append(h.large, fmt.Sprint(topic, " ", size))
		},
		func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.connects++
		},
		h.logs.logger(slog.LevelInfo))
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel, h.done = cancel, make(chan error)
	go func() { h.done <- h.session.Run(ctx) }()
	h.t.Cleanup(func() {
		h.stop()
		time.Sleep(writeTimeout) // a Publish that hangs ends by then
	})
}

// stop ends the session and says how long that took.
func (h *house) stop() time.Duration {
	if h.cancel == nil {
		return 0
	}
	start := time.Now()
	h.cancel()
	h.cancel = nil
	if err := <-h.done; err != nil {
		h.t.Errorf("Run: %v", err)
	}
	return time.Since(start)
}

func (h *house) messages() []received {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.got)
}

// await lets fake time pass until ok.
func (h *house) await(what string, most time.Duration, ok func() bool) {
	h.t.Helper()
	for start := time.Now(); ; time.Sleep(max(time.Millisecond, most/2000)) {
		synctest.Wait()
		if ok() {
			return
		}
		if time.Since(start) > most {
			h.t.Fatalf("%s: not within %v; log:\n%s", what, most, strings.Join(h.logs.lines(""), ""))
		}
	}
}

func (h *house) awaitConnected() {
	h.t.Helper()
	h.await("connected", 5*time.Minute, h.session.Connected)
}

func TestSessionBrokerAbsentAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.b.down(true)
		h.start()
		for i := range 500 {
			putAll(t, h.box, retainedMsg("k/house", fmt.Sprint(i), RankState), eventMsg("k/bridge/event", fmt.Sprint(i)))
			time.Sleep(time.Second)
		}
		if h.session.Connected() {
			t.Error("connected to nothing")
		}
		h.b.down(false)
		h.await("whole", lastPause+2*time.Second, func() bool { return h.box.Len() == 0 })
		if diff := cmp.Diff(map[string]string{"k/house": "499", "k/bridge/state": "online"}, h.b.retained()); diff != "" {
			t.Error(diff)
		}
		warnings := h.logs.lines("WARN")
		if len(warnings) != 2 || !strings.Contains(warnings[0], reasonRefused) || !strings.Contains(warnings[0], "MQTT_URL") ||
			!strings.Contains(warnings[1], "count=244") {
			t.Errorf("warnings: %q", warnings)
		}
		if infos := h.logs.lines("INFO"); len(infos) != 1 || !strings.Contains(infos[0], "outage=") {
			t.Errorf("infos: %q", infos)
		}
	})
}

func TestSessionBrokerForgetsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.b.delayAcks(2 * time.Millisecond)
		h.start()
		h.awaitConnected()
		want := map[string]string{"k/bridge/state": "online"}
		for i := range 200 {
			topic := fmt.Sprintf("k/m%d", i)
			want[topic] = "1"
			putAll(t, h.box, retainedMsg(topic, "1", Rank(i%3)))
		}
		h.await("sent", time.Second, func() bool { return h.box.Len() == 0 })
		time.Sleep(time.Minute)
		h.b.down(true)
		h.b.forget()
		time.Sleep(10 * time.Minute)
		h.b.down(false)
		h.awaitConnected()
		time.Sleep(time.Second)
		if diff := cmp.Diff(want, h.b.retained()); diff != "" {
			t.Error(diff)
		}
		if warnings := h.logs.lines("WARN"); len(warnings) != 1 || !strings.Contains(warnings[0], "lost") {
			t.Errorf("an outage is one warning: %q", warnings)
		}
		if h.connects != 2 {
			t.Errorf("onConnect called %d times", h.connects)
		}
	})
}

// A stable connection that is lost is back within little more than a second.
func TestSessionReturnsQuickly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.start()
		h.awaitConnected()
		for range 20 {
			time.Sleep(time.Minute)
			h.b.kill()
			h.await("lost", time.Second, func() bool { return !h.session.Connected() })
			if got := h.b.retained()["k/bridge/state"]; got != payloadOffline {
				t.Errorf("will: %q", got)
			}
			h.await("back", leastPause+firstPause, h.session.Connected)
			h.await("online", time.Second, func() bool { return h.b.retained()["k/bridge/state"] == payloadOnline })
		}
	})
}

func TestSessionRandomKills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		rng := rand.New(rand.NewPCG(1, 2))
		h.b.delayAcks(700 * time.Microsecond)
		h.start()
		quit := make(chan struct{})
		newest := make([]int, 20)
		var writers sync.WaitGroup
		for i := range newest {
			writers.Go(func() {
				for {
					pause := time.Second
					if h.session.Connected() {
						pause = 5 * time.Millisecond
					}
					select {
					case <-quit:
						return
					case <-time.After(pause):
						newest[i]++
						if err := h.box.Put(retainedMsg(fmt.Sprintf("k/m%d", i), fmt.Sprint(newest[i]), Rank(i%3))); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		for round := range 80 {
			h.awaitConnected()
			time.Sleep(time.Duration(rng.Int64N(int64(300 * time.Millisecond))))
			switch round % 4 {
			case 0:
				h.b.down(true)
				h.b.forget()
				time.Sleep(time.Duration(rng.Int64N(int64(time.Second))))
				h.b.down(false)
			default:
				h.b.kill()
			}
			synctest.Wait()
		}
		close(quit)
		writers.Wait()
		h.awaitConnected()
		h.await("sent", 10*time.Second, func() bool { return h.box.Len() == 0 })
		want := map[string]string{"k/bridge/state": "online"}
		for i, n := range newest {
			want[fmt.Sprintf("k/m%d", i)] = fmt.Sprint(n)
		}
		if diff := cmp.Diff(want, h.b.retained()); diff != "" {
			t.Error(diff)
		}
		if len(h.b.overlaps) > 0 {
			t.Errorf("two in flight: %q", h.b.overlaps)
		}
		if h.b.maxWindow < 2 || h.b.maxWindow > maxInFlight {
			t.Errorf("window was %d", h.b.maxWindow)
		}
		if h.b.connects < 80 {
			t.Errorf("%d connects", h.b.connects)
		}
	})
}

func TestSessionOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.b.delayAcks(time.Millisecond)
		for i := range 60 {
			rank := Rank(i % 3)
			putAll(t, h.box, retainedMsg(fmt.Sprintf("k/r%d/%d", rank, i), "1", rank))
		}
		h.start()
		h.awaitConnected()
		h.await("sent", time.Second, func() bool { return h.box.Len() == 0 })
		time.Sleep(time.Minute)
		h.b.kill()
		synctest.Wait()
		h.awaitConnected()
		h.await("sent", time.Second, func() bool { return h.box.Len() == 0 })
		for conn := 1; conn <= 2; conn++ {
			var ranks []int
			for _, p := range h.b.log() {
				switch {
				case p.conn != conn:
				case p.qos != 1:
					t.Errorf("%s with QoS %d", p.topic, p.qos)
				case p.topic == "k/bridge/state":
					ranks = append(ranks, 1)
				default:
					ranks = append(ranks, int(p.topic[3]-'0'))
				}
			}
			if len(ranks) != 61 || !slices.IsSorted(ranks) {
				t.Errorf("connection %d sent ranks %v", conn, ranks)
			}
		}
	})
}

// A broker that hangs is left, in whatever way it hangs, and found again when it is back.
func TestSessionLeavesAHungBroker(t *testing.T) {
	for name, hang := range map[string]func(h *house, on bool){
		"answers nothing": func(h *house, on bool) { h.b.mute(on) },
		"reads nothing":   func(h *house, on bool) { h.b.stall(on) },
		"only pings": func(h *house, on bool) {
			if h.b.delayAcks(0); on {
				h.b.delayAcks(24 * time.Hour)
			}
		},
	} {
		for _, busy := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/busy=%v", name, busy), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHouse(t)
					h.start()
					h.awaitConnected()
					time.Sleep(time.Second)
					hang(h, true)
					if busy || name == "only pings" {
						putAll(t, h.box, retainedMsg("k/house", "1", RankState))
					}
					h.await("left", keepAlive+5*time.Second+pingTimeout+time.Second, func() bool { return !h.session.Connected() })
					time.Sleep(time.Minute)
					hang(h, false)
					h.b.kill()
					h.awaitConnected()
					putAll(t, h.box, retainedMsg("k/house", "2", RankState))
					h.await("sent", time.Minute, func() bool { return h.b.retained()["k/house"] == "2" && h.box.Len() == 0 })
				})
			})
		}
	}
}

func TestSessionStops(t *testing.T) {
	many := func(h *house) {
		for i := range 1000 {
			putAll(h.t, h.box, retainedMsg(fmt.Sprint("k/m", i), "1", RankState))
		}
	}
	for name, tc := range map[string]struct {
		prepare func(h *house) // before Run
		then    func(h *house) // when it has run for a while
		offline bool           // what the broker is told
	}{
		"idle":          {then: (*house).awaitConnected, offline: true},
		"much to do":    {prepare: func(h *house) { many(h); h.b.delayAcks(50 * time.Millisecond) }, then: (*house).awaitConnected, offline: true},
		"broker absent": {prepare: func(h *house) { h.b.down(true) }},
		"broker gone":   {then: func(h *house) { h.awaitConnected(); h.b.down(true) }},
		"broker mute":   {then: func(h *house) { h.awaitConnected(); h.b.mute(true); many(h) }},
		"broker hangs":  {then: func(h *house) { h.awaitConnected(); h.b.stall(true); many(h) }},
		"hangs, idle":   {then: func(h *house) { h.awaitConnected(); h.b.stall(true) }},
		"no CONNACK":    {prepare: func(h *house) { h.b.mute(true) }},
		"nothing read":  {prepare: func(h *house) { h.b.stall(true) }},
		"refused":       {prepare: func(h *house) { h.b.refuse(packets.ErrRefusedServerUnavailable) }},
		"dial hangs": {prepare: func(h *house) {
			h.cfg.Dial = func(ctx context.Context, _ *url.URL) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}},
		"no SUBACK": {prepare: func(h *house) {
			h.cfg.Dial = rawBroker([]byte{0x20, 2, 0, 0})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				if tc.prepare != nil {
					tc.prepare(h)
				}
				h.start()
				time.Sleep(20 * time.Millisecond)
				if tc.then != nil {
					tc.then(h)
				}
				synctest.Wait()
				putAll(t, h.box, retainedMsg("k/house/availability", "offline", RankAvailability))
				if took := h.stop(); took >= 2*time.Second {
					t.Errorf("took %v", took)
				}
				time.Sleep(time.Minute)
				if h.session.Connected() {
					t.Error("still connected")
				}
				if !tc.offline {
					return
				}
				last := h.b.log()[len(h.b.log())-1]
				if last.topic != "k/bridge/state" || last.payload != payloadOffline || !last.retain {
					t.Errorf("last word: %+v", last)
				}
				got := h.b.retained()
				if got["k/bridge/state"] != payloadOffline || got["k/house/availability"] != payloadOffline {
					t.Errorf("retained: %q %q", got["k/bridge/state"], got["k/house/availability"])
				}
				if h.b.connected() != 0 {
					t.Error("the connection is still there")
				}
				if len(h.b.overlaps) > 0 {
					t.Errorf("two in flight: %q", h.b.overlaps)
				}
			})
		})
	}
}

// rawBroker says its words, whatever it hears, and then nothing.
func rawBroker(words []byte) func(context.Context, *url.URL) (net.Conn, error) {
	return func(context.Context, *url.URL) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			_, _ = io.Copy(io.Discard, far)
		}()
		go func() { _, _ = far.Write(words) }()
		return near, nil
	}
}

func TestSessionWrongPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.b.login("kmp", "right")
		h.cfg.Username, h.cfg.Password = "kmp", "wrong"
		h.start()
		time.Sleep(time.Hour)
		warnings := h.logs.lines("WARN")
		if len(warnings) != 1 || !strings.Contains(warnings[0], "not authorised") || !strings.Contains(warnings[0], "MQTT_PASSWORD") {
			t.Errorf("warnings: %q", warnings)
		}
		if found := h.logs.lines("wrong"); found != nil {
			t.Errorf("the password is in the log: %q", found)
		}
		h.b.login("kmp", "wrong")
		h.awaitConnected()
	})
}

// Another reason is news, the same one is not.
func TestSessionLogsEachReasonOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.b.down(true)
		h.start()
		time.Sleep(10 * time.Minute)
		h.b.down(false)
		h.b.refuse(packets.ErrRefusedServerUnavailable)
		time.Sleep(10 * time.Minute)
		h.b.down(true)
		time.Sleep(10 * time.Minute)
		if warnings := h.logs.lines("WARN"); len(warnings) != 2 {
			t.Errorf("warnings: %q", warnings)
		}
		// The next outage is told again.
		h.b.refuse(0)
		h.b.down(false)
		h.awaitConnected()
		time.Sleep(time.Minute)
		h.b.refuse(packets.ErrRefusedServerUnavailable)
		h.b.kill()
		time.Sleep(time.Minute)
		if warnings := h.logs.lines("WARN"); len(warnings) != 4 {
			t.Errorf("warnings: %q", warnings)
		}
	})
}

func TestSessionIntroducesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		var got *packets.ConnectPacket
		h.b.onConnect = func(p *packets.ConnectPacket) { got = p }
		h.cfg.Username, h.cfg.Password = "nobody", "nothing"
		h.cfg.URLs = brokerURLs("mqtt://kmp:s3cret@broker")
		h.start()
		h.awaitConnected()
		if got.ProtocolName != "MQTT" || got.ProtocolVersion != 4 || !got.CleanSession || got.Keepalive != 30 || got.ClientIdentifier != "me" {
			t.Errorf("CONNECT: %v", got)
		}
		if got.Username != "kmp" || string(got.Password) != "s3cret" {
			t.Errorf("login %q %q", got.Username, got.Password)
		}
		if !got.WillFlag || got.WillQos != 1 || !got.WillRetain || got.WillTopic != "k/bridge/state" || string(got.WillMessage) != "offline" {
			t.Errorf("will: %v", got)
		}
		if diff := cmp.Diff([]string{"k/+/get", "k/bridge/request/+"}, h.b.subscriptions()); diff != "" {
			t.Error(diff)
		}
		if found := h.logs.lines("s3cret"); found != nil {
			t.Errorf("the password is in the log: %q", found)
		}
	})
}

func TestSessionHears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.b.publish("k/house/get", "old", true)
		h.start()
		h.awaitConnected()
		h.await("retained", time.Second, func() bool { return len(h.messages()) == 1 })
		h.b.publish("k/house/get", "", false)
		h.await("new", time.Second, func() bool { return len(h.messages()) == 2 })
		h.b.publish("k/house/other", "not ours", false)
		// Too large for us, and too large for anybody: neither ends the connection.
		h.b.publish("k/house/get", strings.Repeat("x", maxCommandBytes+1), false)
		h.b.publish("k/house/get", strings.Repeat("x", 3<<20), false)
		h.b.publish("k/bridge/request/read", strings.Repeat("x", maxCommandBytes), false)
		h.await("after the large ones", time.Second, func() bool { return len(h.messages()) == 3 })
		got := h.messages()
		if diff := cmp.Diff([]received{{"k/house/get", "old", true}, {"k/house/get", "", false}}, got[:2], cmp.AllowUnexported(received{})); diff != "" {
			t.Error(diff)
		}
		if got[2].topic != "k/bridge/request/read" || h.b.connects != 1 {
			t.Errorf("%d connects, then %q", h.b.connects, got[2].topic)
		}
		if dropped := h.logs.lines("too large"); len(dropped) != 1 || !strings.Contains(dropped[0], "k/house/get") {
			t.Errorf("log: %q", dropped)
		}
		if diff := cmp.Diff([]string{"k/house/get 65537", "k/house/get 3145728"}, h.large); diff != "" {
			t.Error(diff)
		}
		time.Sleep(time.Minute)
		h.b.publish("k/house/get", strings.Repeat("x", 100<<10), false)
		h.await("said again", time.Second, func() bool { return len(h.logs.lines("too large")) == 2 })
	})
}

func TestSessionSubscriptionRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.b.denySubscriptions(func(filter string) bool { return filter == "k/+/get" })
		h.start()
		for range 5 {
			h.awaitConnected()
			time.Sleep(time.Minute)
			h.b.kill()
			synctest.Wait()
		}
		h.awaitConnected()
		if refused := h.logs.lines("refuses a subscription"); len(refused) != 1 || !strings.Contains(refused[0], "k/+/get") {
			t.Errorf("log: %q", refused)
		}
		if diff := cmp.Diff([]string{"k/bridge/request/+"}, h.b.subscriptions()); diff != "" {
			t.Error(diff)
		}
	})
}

// Two programs with one client id throw each other out; both say so once and stay quiet.
func TestSessionTwoWithOneClientID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := newHouse(t), newHouse(t)
		two.b, two.cfg.Dial = one.b, one.b.dial
		one.start()
		two.start()
		time.Sleep(30 * time.Minute)
		for _, h := range []*house{one, two} {
			if told := h.logs.lines("MQTT_CLIENT_ID"); len(told) == 0 || !strings.Contains(told[0], "client_id=me") {
				t.Errorf("log: %q", told)
			}
		}
		if n := len(one.logs.lines("")) + len(two.logs.lines("")); n > 40 {
			t.Errorf("%d log lines", n)
		}
		one.stop()
		two.await("peace", 2*time.Minute, two.session.Connected)
		time.Sleep(time.Hour)
		if !two.session.Connected() || one.b.connected() != 1 || len(two.logs.lines("lasts")) != 1 {
			t.Errorf("no peace; log: %q", two.logs.lines(""))
		}
	})
}

func TestSessionSeveralBrokers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		first, second := h.b, newMiniBroker(t)
		first.down(true)
		h.cfg.URLs = brokerURLs("mqtt://first", "mqtt://second")
		h.cfg.Dial = func(ctx context.Context, u *url.URL) (net.Conn, error) {
			switch u.Host {
			case "first:1883":
				return first.dial(ctx, u)
			case "second:1883":
				return second.dial(ctx, u)
			}
			return nil, errors.New("who is " + u.Host)
		}
		putAll(t, h.box, retainedMsg("k/house", "1", RankState))
		h.start()
		h.awaitConnected()
		want := map[string]string{"k/house": "1", "k/bridge/state": "online"}
		h.await("second", time.Second, func() bool { return maps.Equal(second.retained(), want) })
		first.down(false)
		time.Sleep(time.Hour)
		if first.connected() != 0 {
			t.Error("left a broker that works")
		}
		second.down(true)
		h.await("first", 2*time.Second, func() bool { return maps.Equal(first.retained(), want) })
	})
}

func TestSessionNoBrokers(t *testing.T) {
	s := NewSession(MQTTConfig{Topic: "k"}, NewOutbox(), nil, nil, nil, nil, slog.New(slog.DiscardHandler))
	if err := s.Run(t.Context()); !errors.Is(err, errNoBrokers) {
		t.Error(err)
	}
}

// What a broker must not say: never a crash, never much memory, and the session tries again.
func TestSessionHostileBroker(t *testing.T) {
	accepted := []byte{0x20, 2, 0, 0}
	for name, tc := range map[string]struct {
		words  []byte
		reason string
	}{
		"web server":          {[]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), "not an MQTT broker"},
		"ssh server":          {[]byte("SSH-2.0-OpenSSH_9.2\r\n"), "not an MQTT broker"},
		"unknown code":        {[]byte{0x20, 2, 0, 99}, "not an MQTT broker"},
		"long CONNACK":        {[]byte{0x20, 3, 0, 0, 0}, "not an MQTT broker"},
		"PINGRESP first":      {[]byte{0xD0, 0}, "not an MQTT broker"},
		"SUBACK too long":     {append(accepted, 0x90, 5, 0, 1, 0, 0, 0), "broken MQTT"},
		"SUBACK too short":    {append(accepted, 0x90, 3, 0, 1, 0), "broken MQTT"},
		"huge PUBACK":         {append(accepted, 0x40, 0xFF, 0xFF, 0xFF, 0x7F), "broken MQTT"},
		"endless length":      {append(accepted, 0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01), "broken MQTT"},
		"CONNECT from broker": {append(accepted, 0x10, 0), "broken MQTT"},
		"kind 0":              {append(accepted, 0x00, 0), "broken MQTT"},
		"kind 15":             {append(accepted, 0xF0, 0), "broken MQTT"},
		"QoS 3":               {append(accepted, 0x36, 5, 0, 1, 'a', 0, 1), "broken MQTT"},
		"topic beyond packet": {append(accepted, 0x30, 4, 0xFF, 0xFF, 'a', 'b'), "broken MQTT"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				bad := rawBroker(tc.words)
				var cured atomic.Bool
				h.cfg.Dial = func(ctx context.Context, u *url.URL) (net.Conn, error) {
					if cured.Load() {
						return h.b.dial(ctx, u)
					}
					return bad(ctx, u)
				}
				h.start()
				h.await("a reason", time.Minute, func() bool { return len(h.logs.lines("WARN")) > 0 })
				if line := h.logs.lines("WARN")[0]; !strings.Contains(line, tc.reason) {
					t.Errorf("want %q: %s", tc.reason, line)
				}
				cured.Store(true)
				h.awaitConnected()
			})
		})
	}
}

// FuzzGuard: whatever a broker sends, the client library never gets more than it can bear.
func FuzzGuard(f *testing.F) {
	for _, seed := range []string{
		"\x20\x02\x00\x00", "\x20\x02\x00\x05", "\x20\x02\x00\x00\x90\x04\x00\x01\x00\x80\x30\x05\x00\x01a12\xd0\x00",
		"\x20\x02\x00\x00\x40\x02\x00\x01\x32\x07\x00\x01a\x00\x0112", "\x20\x02\x00\x00\x30\xff\xff\xff\x7f\x00\x01a",
		"\x20\x02\x00\x00\x30\x80\x80\x08\x00\x01a",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		guard := newGuardConn(nil, 2, func(string, int, bool) {}, func(error) {})
		guard.in.Reset(bytes.NewReader(data))
		for {
			before := guard.body
			p, err := packets.ReadPacket(guard)
			if err != nil {
				return
			}
			if before != 0 {
				t.Fatal("two packets overlap")
			}
			switch p := p.(type) {
			case *packets.PublishPacket:
				if p.RemainingLength > maxCommandBytes+2+maxTopicBytes {
					t.Fatalf("let through %d bytes", p.RemainingLength)
				}
			case *packets.SubackPacket:
				if len(p.ReturnCodes) != 2 {
					t.Fatalf("%d return codes", len(p.ReturnCodes))
				}
			case *packets.ConnackPacket:
				if p.ReturnCode > 5 {
					t.Fatalf("return code %d", p.ReturnCode)
				}
			}
		}
	})
}

func TestNormalBroker(t *testing.T) {
	for raw, want := range map[string]string{
		"mqtt://h":               "mqtt://h:1883",
		"tcp://h":                "mqtt://h:1883",
		"mqtts://h":              "mqtts://h:8883",
		"ssl://h:1":              "mqtts://h:1",
		"tls://h":                "mqtts://h:8883",
		"ws://h/mqtt":            "ws://h:80/mqtt",
		"wss://u:p@h/a/b":        "wss://h:443/a/b",
		"mqtt://[fe80::1]":       "mqtt://[fe80::1]:1883",
		"mqtt://user:pass@h:999": "mqtt://h:999",
	} {
		if got := normalBroker(brokerURLs(raw)[0]).String(); got != want {
			t.Errorf("%s: %s, want %s", raw, got, want)
		}
	}
}

func TestPauses(t *testing.T) {
	for failures, want := range map[int]time.Duration{0: time.Second, 1: 2 * time.Second, 5: 32 * time.Second, 6: time.Minute, math.MaxInt: time.Minute} {
		if got := pauseLimit(failures); got != want {
			t.Errorf("pauseLimit(%d) = %v, want %v", failures, got, want)
		}
	}
}

// A broker that comes and goes is no second program with our client id.
func TestSessionRestartsAreNoFight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.start()
		for range 10 {
			h.awaitConnected()
			h.b.down(true)
			time.Sleep(3 * time.Minute)
			h.b.down(false)
		}
		h.awaitConnected()
		if told := h.logs.lines("MQTT_CLIENT_ID"); told != nil {
			t.Errorf("log: %q", told)
		}
		if lost, connected := len(h.logs.lines("WARN")), len(h.logs.lines("MQTT connected")); lost != 10 || connected != 11 {
			t.Errorf("%d losses and %d connects in the log", lost, connected)
		}
	})
}

// TestSessionTellsWhatIsDropped: a flood that the broker does not take is in the log, also while
// the connection lasts.
func TestSessionTellsWhatIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.start()
		time.Sleep(time.Second)
		for i := range 1000 {
			if err := h.box.Put(Message{Topic: "k/bridge/response/read", Payload: fmt.Append(nil, i)}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Minute)
		if lines := h.logs.lines("MQTT messages dropped"); len(lines) != 1 {
			t.Errorf("logged %q", lines)
		}
		h.stop()
	})
}
