package bridge

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
)

// TestStepTurns floods a poller with commands that cost nothing: each brings the next. What
// the schedule wants is done all the same, and no command is forgotten.
func TestStepTurns(t *testing.T) {
	dials := 0
	cfg, err := ParseConfig([]string{"METERS=house=/dev/a", "READ_INTERVAL=10m"}, ParseOptions{ParseLine: testLine, ReadFile: testFiles(nil)})
	if err != nil {
		t.Fatal(err)
	}
	b := newBridge(cfg, Deps{
		Log: slog.New(slog.DiscardHandler),
		Dial: func(context.Context, string) (kmp.Line, error) {
			dials++
			return nil, errors.New("no line")
		},
	}, nil, nil)
	p := b.pollers[0]
	d := p.devices[0]
	d.schedule = newSchedule(p.started, d.cfg.Interval, 0, 1)
	free := func(int) error { return nil }
	done := 0
	var next func(outcome)
	next = func(outcome) {
		if done++; done < 50 {
			if err := p.wishes.post(wish{task: setInterval, interval: d.cfg.Interval, done: next}, free); err != nil {
				t.Error(err)
			}
		}
	}
	next(outcome{})
	d.due = time.Now()
	for range 3 {
		p.step(t.Context())
	}
	if dials != 1 {
		t.Errorf("%d readings were tried among the commands, want 1", dials)
	}
	for p.step(t.Context()) {
		continue
	}
	if done != 50 {
		t.Errorf("%d commands were done, want 50", done)
	}
}

// TestAcceptAsleep accepts a held value again and again while the meter is silent: that must
// not wake it more often than its own retries.
func TestAcceptAsleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60", "READ_INTERVAL=10m")
		l.start()
		l.pass(censusOver)
		m.set(number(t, 60, kmp.UnitGJ, "5.000"))
		l.pass(2 * time.Second) // the reading at 20 minutes
		if l.unknown("house")["energy_gj"] == "" {
			t.Fatal("nothing is held")
		}
		m.change(func(m *testMeter) { m.silent = true })
		l.pass(30 * time.Minute)
		before := m.visited()
		for range 30 {
			l.command("kmp2mqtt/bridge/request/accept", "", "kmp2mqtt/bridge/response/accept", time.Second)
		}
		if n := m.visited() - before; n > 4 {
			t.Errorf("%d requests in half a minute", n)
		}
	})
}

// TestAnnounceNewest announces meters again while a poller has just put a newer state: that
// one has to stay.
func TestAnnounceNewest(t *testing.T) {
	cfg, err := ParseConfig([]string{"METERS=house=/dev/a"}, ParseOptions{ParseLine: testLine, ReadFile: testFiles(nil)})
	if err != nil {
		t.Fatal(err)
	}
	b := newBridge(cfg, Deps{Log: slog.New(slog.DiscardHandler)}, nil, nil)
	old := Message{Topic: "kmp2mqtt/house", Payload: []byte("old"), Retain: true, Rank: RankState}
	b.put(old)
	b.roster.update(0, status{meter: Meter{Name: "house"}, retained: []Message{old}})
	epoch := b.box.begin()
	send := func() (payloads []string) {
		for taken, ok := b.box.take(epoch); ok; taken, ok = b.box.take(epoch) {
			if taken.msg.Topic == old.Topic {
				payloads = append(payloads, string(taken.msg.Payload))
			}
			b.box.acknowledge(taken)
		}
		return payloads
	}
	if got := strings.Join(send(), " "); got != "old" {
		t.Fatalf("sent %q", got)
	}
	b.announce()
	if got := strings.Join(send(), " "); got != "old" {
		t.Errorf("announced %q", got)
	}
	newer := old
	newer.Payload = []byte("new")
	b.put(newer) // the roster does not know yet
	b.announce()
	if got := strings.Join(send(), " "); got != "new" {
		t.Errorf("announced %q, want the newest", got)
	}
}
