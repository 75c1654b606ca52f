package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/bridge/history"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/logbook"
)

// logRows are rows of a log, from one id to another, an hour apart.
func logRows(t *testing.T, log kmp.LogType, from, to uint32) []logbook.Row {
	t.Helper()
	var rows []logbook.Row
	for id := from; id <= to; id++ {
		rows = append(rows, logbook.Row{
			Log: log, ID: id, Time: logStart.Add(time.Duration(id) * time.Hour),
			Registers: []kmp.Register{number(t, 60, kmp.UnitGJ, fmt.Sprintf("%d.250", id))},
		})
	}
	return rows
}

var logStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.FixedZone("", 3600))

// feedHouse is a feed, its history, a session and a mini broker inside a bubble.
type feedHouse struct {
	*house
	store *faultyRows
	feed  *feed
	quit  context.CancelFunc
	ended chan struct{}
	seen  int // messages of the broker's log that are looked at no more
}

// newFeedHouse has a history in memory: thousands of rows, each on the disk, would take minutes.
func newFeedHouse(t *testing.T) *feedHouse {
	t.Helper()
	return newFeedHouseOn(t, &memoryHistory{logs: map[string][]logbook.Row{}, positions: map[string]uint32{}})
}

func newFeedHouseOn(t *testing.T, rows rowHistory) *feedHouse {
	t.Helper()
	h := &feedHouse{house: newHouse(t), store: &faultyRows{rowHistory: rows}}
	h.run()
	h.start()
	return h
}

// run begins a feed.
func (h *feedHouse) run() {
	h.feed = newFeed(h.store, h.put, topics{base: "k"}, h.logs.logger(slog.LevelInfo))
	ctx, quit := context.WithCancel(context.Background())
	h.quit, h.ended = quit, make(chan struct{})
	f, ended := h.feed, h.ended
	go func() { defer close(ended); f.run(ctx) }()
	h.t.Cleanup(func() { quit(); <-ended })
}

func (h *feedHouse) put(msgs ...Message) {
	if err := h.box.Put(msgs...); err != nil {
		h.t.Error(err)
	}
}

// crash is the end of the program without a word; reboot begins anew on what it left.
func (h *feedHouse) crash() {
	h.b.down(true)
	h.end()
}

// end stops feed and session in order.
func (h *feedHouse) end() {
	h.quit()
	<-h.ended
	h.stop()
	synctest.Wait()
}

func (h *feedHouse) reboot() {
	h.box = NewOutbox()
	h.run()
	h.start()
	h.b.down(false)
}

// add puts rows into the history and tells the feed.
func (h *feedHouse) add(serial string, rows ...logbook.Row) {
	h.t.Helper()
	if err := h.store.Append(serial, rows); err != nil {
		h.t.Fatal(err)
	}
	h.feed.rows(serial)
}

// sent are the rows that the broker got on a topic: connection, log and id.
func (h *feedHouse) sent(topic string) (rows []sentRow) {
	h.t.Helper()
	for _, p := range h.b.log()[h.seen:] {
		if p.topic != topic {
			continue
		}
		row := sentRow{conn: p.conn}
		if err := json.Unmarshal([]byte(p.payload), &row); err != nil {
			h.t.Fatalf("%s: %v", p.payload, err)
		}
		if p.retain || p.qos != 1 {
			h.t.Errorf("retain %v, QoS %d", p.retain, p.qos)
		}
		rows = append(rows, row)
	}
	return rows
}

type sentRow struct {
	conn   int
	Log    string
	ID     uint32
	Energy json.Number `json:"energy_gj"`
}

// ids are the rows on a topic in short: runs of ids that follow one on the other.
func (h *feedHouse) ids(topic string) string {
	h.t.Helper()
	var runs []string
	rows := h.sent(topic)
	for i := 0; i < len(rows); {
		first := rows[i]
		last := first
		for i++; i < len(rows) && rows[i].Log == last.Log && rows[i].ID == last.ID+1; i++ {
			last = rows[i]
		}
		runs = append(runs, fmt.Sprintf("%s %d-%d", first.Log, first.ID, last.ID))
	}
	return strings.Join(runs, ", ")
}

// inOrder fails unless the broker has the rows from one id to another in order, each repeated
// only on a connection after the one before, and so at most once for each.
func (h *feedHouse) inOrder(topic string, from, to uint32) {
	h.t.Helper()
	next, repeats := from, 0
	var last sentRow
	for _, row := range h.sent(topic) {
		switch {
		case row.ID == next:
			next++
		case row.ID+1 == next && row.conn != last.conn:
			repeats++
		default:
			h.t.Fatalf("row %d behind %d, on connections %d and %d", row.ID, last.ID, row.conn, last.conn)
		}
		last = row
	}
	if next != to+1 {
		h.t.Errorf("the last row is %d, want %d; log:\n%s", next-1, to, strings.Join(h.logs.lines(""), ""))
	}
	if repeats > h.b.connects {
		h.t.Errorf("%d repeats over %d connections", repeats, h.b.connects)
	}
}

// awaitIDs waits until the broker has just these rows on a topic.
func (h *feedHouse) awaitIDs(topic, want string) {
	h.t.Helper()
	got := ""
	for range 400 {
		synctest.Wait()
		if got = h.ids(topic); got == want && h.box.Len() == 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	h.t.Fatalf("%s: %s, want %s; log:\n%s", topic, got, want, strings.Join(h.logs.lines(""), ""))
}

// position is what the history has for the feed.
func (h *feedHouse) position(serial string, log kmp.LogType) string {
	h.t.Helper()
	id, ok, err := h.store.Position(feedConsumer, serial, log)
	if err != nil {
		h.t.Fatal(err)
	}
	return fmt.Sprint(id, " ", ok)
}

// rowHistory is what the tests need of a history.
type rowHistory interface {
	rowStore
	Append(serial string, rows []logbook.Row) error
	Restart(serial string, log kmp.LogType) error
}

// faultyRows is a history that fails on request.
type faultyRows struct {
	rowHistory

	mu    sync.Mutex
	fails map[string]error // by method, or method and serial number
	calls map[string]int
	set   func(id uint32) // called before a position is set, when not nil
}

func (s *faultyRows) fail(call string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails == nil {
		s.fails = map[string]error{}
	}
	s.fails[call] = err
}

func (s *faultyRows) call(method, serial string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls == nil {
		s.calls = map[string]int{}
	}
	s.calls[method]++
	return errors.Join(s.fails[method], s.fails[method+" "+serial])
}

func (s *faultyRows) After(serial string, log kmp.LogType, id int64, most int) ([]logbook.Row, error) {
	if err := s.call("After", serial); err != nil {
		return nil, err
	}
	return s.rowHistory.After(serial, log, id, most)
}

func (s *faultyRows) Position(consumer, serial string, log kmp.LogType) (uint32, bool, error) {
	if err := s.call("Position", serial); err != nil {
		return 0, false, err
	}
	return s.rowHistory.Position(consumer, serial, log)
}

func (s *faultyRows) SetPosition(consumer, serial string, log kmp.LogType, id uint32) error {
	if err := s.call("SetPosition", serial); err != nil {
		return err
	}
	s.mu.Lock()
	set := s.set
	s.mu.Unlock()
	if set != nil {
		set(id)
	}
	return s.rowHistory.SetPosition(consumer, serial, log, id)
}

func TestFeedOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFeedHouse(t)
		h.b.delayAcks(10 * time.Millisecond)
		h.add("1", logRows(t, kmp.LogHour, 100, 299)...)
		h.add("1", logRows(t, kmp.LogDay, 7, 16)...)
		h.add("1", logRows(t, kmp.LogMonth, 1, 2)...)
		h.feed.is("1", "house", nil)
		h.awaitIDs("k/house/history", "month 1-2, day 7-16, hour 100-299")
		if got := h.position("1", kmp.LogHour) + h.position("1", kmp.LogDay); got != "299 true16 true" {
			t.Errorf("positions %s", got)
		}
		// What comes later follows; what is there already is not sent again.
		h.add("1", logRows(t, kmp.LogHour, 298, 300)...)
		h.awaitIDs("k/house/history", "month 1-2, day 7-16, hour 100-300")
		rows := h.sent("k/house/history")
		if got := rows[len(rows)-1].Energy; got != "300.250" {
			t.Errorf("energy %s", got)
		}
		if lines := h.logs.lines("meters' logs"); lines != nil {
			t.Errorf("logged: %q", lines)
		}
	})
}

// Rows come all the time while connections end at random.
func TestFeedReconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFeedHouse(t)
		rng := rand.New(rand.NewPCG(3, 4))
		h.b.delayAcks(5 * time.Millisecond)
		h.feed.is("1", "house", nil)
		last := uint32(0)
		for range 60 {
			n := uint32(rng.IntN(60))
			h.add("1", logRows(t, kmp.LogHour, last+1, last+n)...)
			last += n
			h.awaitConnected()
			time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond)
			switch rng.IntN(4) {
			case 0:
				h.b.down(true)
				time.Sleep(time.Duration(rng.IntN(5)) * time.Second)
				h.b.down(false)
			case 1:
				h.b.kill()
			}
		}
		h.await("all rows", 10*time.Minute, func() bool { return h.position("1", kmp.LogHour) == fmt.Sprint(last, " true") })
		h.inOrder("k/house/history", 1, last)
		if h.b.connects < 10 {
			t.Errorf("%d connections", h.b.connects)
		}
	})
}

// A broker that acknowledges nothing gets the same row again and again, and none behind it.
func TestFeedNoAcknowledgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFeedHouse(t)
		h.b.delayAcks(time.Hour)
		h.add("1", logRows(t, kmp.LogHour, 1, 500)...)
		h.feed.is("1", "house", nil)
		time.Sleep(30 * time.Minute)
		for _, row := range h.sent("k/house/history") {
			if row.ID != 1 {
				t.Fatalf("row %d before the first was acknowledged", row.ID)
			}
		}
		if s := h.box.Stats(); s.Due+s.InFlight > 2 || h.position("1", kmp.LogHour) != "0 false" {
			t.Errorf("outbox %+v, position %s", s, h.position("1", kmp.LogHour))
		}
		h.b.kill()
		h.b.delayAcks(0)
		h.await("all rows", 5*time.Minute, func() bool { return h.position("1", kmp.LogHour) == "500 true" })
		h.inOrder("k/house/history", 1, 500)
	})
}

// The broker is away for a day; events push each other out, rows stay in the history.
func TestFeedFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFeedHouse(t)
		h.awaitConnected()
		h.feed.is("1", "house", nil)
		h.b.down(true)
		time.Sleep(time.Second)
		for i := range 300 {
			h.add("1", logRows(t, kmp.LogHour, uint32(i)+1, uint32(i)+1)...)
			putAll(t, h.box, eventMsg("k/bridge/event", fmt.Sprint(i)))
			time.Sleep(5 * time.Minute)
		}
		s := h.box.Stats()
		if s.Due > maxUnretained+2 || s.Dropped != 300-maxUnretained {
			t.Errorf("outbox %+v", s)
		}
		h.b.down(false)
		h.await("all rows", 5*time.Minute, func() bool { return h.position("1", kmp.LogHour) == "300 true" })
		h.inOrder("k/house/history", 1, 300)
		events := 0
		for _, p := range h.b.log() {
			if p.topic == "k/bridge/event" {
				events++
			}
		}
		if events != maxUnretained {
			t.Errorf("%d events, want %d", events, maxUnretained)
		}
	})
}

// The program is killed again and again, at random.
func TestFeedCrashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFeedHouse(t)
		rng := rand.New(rand.NewPCG(5, 6))
		h.b.delayAcks(3 * time.Millisecond)
		h.add("1", logRows(t, kmp.LogHour, 10, 999)...)
		h.feed.is("1", "house", nil)
		for range 30 {
			time.Sleep(time.Duration(rng.IntN(200)) * time.Millisecond)
			h.crash()
			h.reboot()
			h.feed.is("1", "house", nil)
		}
		h.await("all rows", 5*time.Minute, func() bool { return h.position("1", kmp.LogHour) == "999 true" })
		h.inOrder("k/house/history", 10, 999)
		if h.b.connects < 10 {
			t.Errorf("%d connections", h.b.connects)
		}
	})
}

// An orderly end writes down what the broker has acknowledged in the last moment, and a restart
// repeats nothing.
func TestFeedEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFeedHouse(t)
		h.b.delayAcks(7 * time.Millisecond)
		h.add("1", logRows(t, kmp.LogHour, 1, 400)...)
		h.feed.is("1", "house", nil)
		for range 10 {
			h.awaitConnected()
			time.Sleep(100 * time.Millisecond)
			h.quit()
			<-h.ended
			if took := h.stop(); took > 100*time.Millisecond+quiesceTime {
				t.Errorf("the session ended after %v", took)
			}
			rows := h.sent("k/house/history")
			if got := h.position("1", kmp.LogHour); len(rows) > 0 && got != fmt.Sprint(rows[len(rows)-1].ID, " true") {
				t.Fatalf("position %s, the last row is %d", got, rows[len(rows)-1].ID)
			}
			h.reboot()
			h.feed.is("1", "house", nil)
		}
		h.awaitIDs("k/house/history", "hour 1-400")
	})
}

// Nothing holds up the end: no broker that hangs, no history that fails.
func TestFeedEndsQuickly(t *testing.T) {
	for name, trouble := range map[string]func(h *feedHouse){
		"no broker":   func(h *feedHouse) { h.b.down(true) },
		"stalled":     func(h *feedHouse) { h.b.stall(true) },
		"mute":        func(h *feedHouse) { h.b.mute(true) },
		"no history":  func(h *feedHouse) { h.store.fail("Position", errors.New("disk")) },
		"no position": func(h *feedHouse) { h.store.fail("SetPosition", errors.New("disk")) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFeedHouse(t)
				h.awaitConnected()
				trouble(h)
				h.add("1", logRows(t, kmp.LogHour, 1, 400)...)
				h.feed.is("1", "house", nil)
				time.Sleep(time.Second)
				outcome := h.replay("1", kmp.LogHour, time.Time{}, time.Time{})
				time.Sleep(time.Minute)
				start := time.Now()
				h.end()
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("it took %v", took)
				}
				if r := outcome(); r.calls != 1 || !errors.Is(r.err, errFeedStopped) {
					t.Errorf("replay: %+v", r)
				}
				if err := h.feed.replay("1", kmp.LogHour, time.Time{}, time.Time{}, nil); !errors.Is(err, errFeedStopped) {
					t.Errorf("replay afterwards: %v", err)
				}
				h.feed.is("2", "flat", nil)
				h.feed.rows("1")
				h.b.stall(false)
			})
		})
	}
}

// replayed is the outcome of a replay.
type replayed struct {
	rows  int
	err   error
	calls int
}

// replay returns what tells the outcome so far.
func (h *feedHouse) replay(serial string, log kmp.LogType, since, until time.Time) func() replayed {
	h.t.Helper()
	var r replayed
	var mu sync.Mutex
	err := h.feed.replay(serial, log, since, until, func(rows int, err error) {
		mu.Lock()
		defer mu.Unlock()
		r = replayed{rows, err, r.calls + 1}
	})
	if err != nil {
		h.t.Error(err)
	}
	return func() replayed {
		mu.Lock()
		defer mu.Unlock()
		return r
	}
}

func TestFeedReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFeedHouse(t)
		rows := logRows(t, kmp.LogHour, 1, 299)
		for i := range rows[99:199] { // from 100 to 199 its clock was a day fast
			rows[99+i].Correction, rows[99+i].Corrected = -24*time.Hour, true
		}
		rows[249].Time = time.Time{} // and once it had none
		h.add("1", rows...)
		h.feed.is("1", "house", nil)
		h.awaitIDs("k/house/history", "hour 1-299")
		at := func(hours int) time.Time { return logStart.Add(time.Duration(hours) * time.Hour) }
		for _, tt := range []struct {
			since, until time.Time
			want         string
			rows         int
		}{
			{time.Time{}, time.Time{}, "hour 1-299", 299},
			{at(20), at(23).UTC(), "hour 20-22", 3},
			{at(299), time.Time{}, "hour 299-299", 1},
			{time.Time{}, at(2), "hour 1-1", 1},
			{at(76), at(78), "hour 76-77, hour 100-101", 4},
			{at(249), at(252), "hour 249-251", 3},
			{at(250), at(252), "hour 251-251", 1},
			{at(175), at(199), "hour 199-199", 1},
			{at(300), time.Time{}, "", 0},
			{at(9), at(9), "", 0},
		} {
			h.seen = len(h.b.log())
			outcome := h.replay("1", kmp.LogHour, tt.since, tt.until)
			h.awaitIDs("k/house/history", tt.want)
			if r := outcome(); r != (replayed{tt.rows, nil, 1}) {
				t.Errorf("%v to %v: %+v, want %d rows", tt.since, tt.until, r, tt.rows)
			}
		}
		h.seen = len(h.b.log())
		outcome := h.replay("1", kmp.LogDay, time.Time{}, time.Time{})
		synctest.Wait()
		if r := outcome(); r != (replayed{0, nil, 1}) {
			t.Errorf("a log that is not there: %+v", r)
		}
		if got := h.position("1", kmp.LogHour); got != "299 true" {
			t.Errorf("position %s", got)
		}
	})
}

// While new rows are published, ranges are wanted again: each comes as a whole between two of
// the new ones, and those go on behind it.
func TestFeedReplayWhileLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFeedHouse(t)
		h.b.delayAcks(10 * time.Millisecond)
		h.add("1", logRows(t, kmp.LogHour, 1, 600)...)
		h.feed.is("1", "house", nil)
		h.await("some", time.Minute, func() bool { return len(h.sent("k/house/history")) > 200 })
		all := h.replay("1", kmp.LogHour, time.Time{}, time.Time{})
		some := h.replay("1", kmp.LogHour, logStart, logStart.Add(51*time.Hour))
		h.await("all rows", time.Minute, func() bool { return h.position("1", kmp.LogHour) == "600 true" && some().calls > 0 })
		again := uint32(0) // the row of a range before this one
		next, ranges := uint32(1), 0
		for i, row := range h.sent("k/house/history") {
			switch {
			case row.ID == next:
				next++
				again = 0
			case row.ID == again+1 && row.ID < next:
				again++
			case row.ID == 1 && again == uint32(all().rows): // the second range straight behind the first
				again = 1
			default:
				t.Fatalf("message %d: row %d, the last new one is %d, the last again %d", i, row.ID, next-1, again)
			}
			if again == 1 {
				ranges++
			}
		}
		first, second := all(), some()
		if next != 601 || ranges != 2 || second != (replayed{50, nil, 1}) || first.rows <= 200 || first.err != nil || first.calls != 1 {
			t.Errorf("new rows up to %d, %d ranges, %+v and %+v", next-1, ranges, first, second)
		}
		if got := len(h.sent("k/house/history")); got != 600+first.rows+second.rows {
			t.Errorf("%d rows, want 600, %d and %d", got, first.rows, second.rows)
		}
	})
}

func TestFeedReplayLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFeedHouse(t)
		h.add("1", logRows(t, kmp.LogHour, 1, 10)...)
		h.add("2", logRows(t, kmp.LogHour, 1, 10)...)
		if err := h.feed.replay("1", kmp.LogHour, time.Time{}, time.Time{}, nil); !errors.Is(err, errFeedNobody) {
			t.Errorf("a meter without a name: %v", err)
		}
		h.feed.is("1", "house", nil)
		h.feed.is("2", "flat", nil)
		h.awaitIDs("k/flat/history", "hour 1-10")
		h.awaitIDs("k/house/history", "hour 1-10")
		h.b.down(true)
		time.Sleep(time.Second)
		var outcomes []func() replayed
		for i := range maxReplays {
			outcomes = append(outcomes, h.replay(fmt.Sprint(1+i%2), kmp.LogHour, time.Time{}, time.Time{}))
		}
		if err := h.feed.replay("1", kmp.LogHour, time.Time{}, time.Time{}, nil); !errors.Is(err, errReplays) {
			t.Errorf("one too many: %v", err)
		}
		h.add("1", logRows(t, kmp.LogHour, 11, 20)...) // while they wait
		time.Sleep(time.Hour)
		if s := h.box.Stats(); s.Due+s.InFlight > 3 {
			t.Errorf("outbox %+v", s)
		}
		h.b.down(false)
		h.await("all", 5*time.Minute, func() bool {
			return outcomes[maxReplays-1]().calls > 0 && outcomes[maxReplays-2]().calls > 0 && h.box.Len() == 0
		})
		synctest.Wait()
		for i, r := range outcomes {
			want := replayed{10, nil, 1}
			if i%2 == 0 && i > 0 {
				want.rows = 20
			}
			if r() != want {
				t.Errorf("%d: %+v, want %+v", i, r(), want)
			}
		}
		h.replay("1", kmp.LogHour, time.Time{}, time.Time{}) // there is room again
	})
}

func TestFeedNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFeedHouse(t)
		h.feed.is("1", "", nil)
		h.feed.rows("1")
		h.add("1", logRows(t, kmp.LogHour, 1, 10)...)
		time.Sleep(time.Minute)
		h.feed.is("1", "house", nil)
		h.awaitIDs("k/house/history", "hour 1-10")

		// Another name, none, and the old one again.
		h.feed.is("1", "cellar", nil)
		h.add("1", logRows(t, kmp.LogHour, 11, 20)...)
		h.awaitIDs("k/cellar/history", "hour 11-20")
		h.b.delayAcks(time.Second)
		h.add("1", logRows(t, kmp.LogHour, 21, 30)...)
		time.Sleep(1500 * time.Millisecond)
		outcome := h.replay("1", kmp.LogHour, time.Time{}, time.Time{})
		h.feed.is("1", "", nil)
		time.Sleep(time.Minute)
		h.awaitIDs("k/cellar/history", "hour 11-22")
		if r := outcome(); r.calls != 1 || r.rows != 0 || !errors.Is(r.err, errFeedNobody) {
			t.Errorf("replay for nobody: %+v", r)
		}
		if got := h.position("1", kmp.LogHour); got != "22 true" {
			t.Errorf("position %s", got)
		}
		h.b.delayAcks(0)
		h.feed.is("1", "house", nil)
		h.awaitIDs("k/house/history", "hour 1-10, hour 23-30")

		// Another meter takes its place, and the name: what is left of the old one still comes.
		h.add("2", logRows(t, kmp.LogHour, 5, 9)...)
		h.feed.is("2", "house", nil)
		h.awaitIDs("k/house/history", "hour 1-10, hour 23-30, hour 5-9")
		h.add("1", logRows(t, kmp.LogHour, 31, 40)...)
		h.awaitIDs("k/house/history", "hour 1-10, hour 23-30, hour 5-9, hour 31-40")
		h.feed.is("1", "1", nil)
		h.add("1", logRows(t, kmp.LogHour, 41, 42)...)
		h.awaitIDs("k/1/history", "hour 41-42")
		h.feed.is("1", "", nil)
		synctest.Wait()
		h.feed.mu.Lock()
		defer h.feed.mu.Unlock()
		if len(h.feed.meters) != 1 || h.feed.replays != 0 || h.feed.turns != 0 {
			t.Errorf("%d meters are known, %d replays wait, %d turns; want the one with a name", len(h.feed.meters), h.feed.replays, h.feed.turns)
		}
	})
}

func TestFeedOffsets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFeedHouse(t)
		offset, err := kmp.ParseDecimal("1000.1")
		if err != nil {
			t.Fatal(err)
		}
		offsets := map[string]kmp.Decimal{"energy_gj": offset}
		h.feed.is("1", "house", offsets)
		offsets["energy_gj"] = kmp.Decimal{} // the caller's own
		h.add("1", logRows(t, kmp.LogHour, 1, 2)...)
		h.awaitIDs("k/house/history", "hour 1-2")
		h.feed.is("1", "house", nil)
		h.add("1", logRows(t, kmp.LogHour, 3, 3)...)
		h.awaitIDs("k/house/history", "hour 1-3")
		rows := h.sent("k/house/history")
		if got := []string{rows[0].Energy.String(), rows[1].Energy.String(), rows[2].Energy.String()}; !slices.Equal(got, []string{"1001.350", "1002.350", "3.250"}) {
			t.Errorf("energy %s", got)
		}
	})
}

// The history fails for hours: that is told once, and nothing is left out or repeated.
func TestFeedStoreFails(t *testing.T) {
	disk := errors.New("the disk is full")
	for _, call := range []string{"After", "Position", "SetPosition", "SetPosition 1"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFeedHouse(t)
				h.b.delayAcks(10 * time.Millisecond)
				last := uint32(0)
				for i := range 10 {
					h.feed.is(fmt.Sprint(i), fmt.Sprint("m", i), nil)
				}
				add := func(n uint32) {
					for i := range 10 {
						h.add(fmt.Sprint(i), logRows(t, kmp.LogHour, last+1, last+n)...)
					}
					last += n
				}
				add(200)
				for i := range 2 {
					h.await("the middle", time.Minute, func() bool { return len(h.sent("k/m1/history")) > 100*(i+1) })
					h.store.fail(call, disk)
					time.Sleep(time.Minute)
					before := h.ids("k/m1/history")
					add(100)
					h.store.mu.Lock()
					clear(h.store.calls)
					h.store.mu.Unlock()
					time.Sleep(time.Hour)
					if got := h.ids("k/m1/history"); got != before {
						t.Errorf("%s, then %s, without a history", before, got)
					}
					h.store.mu.Lock()
					for method, n := range h.store.calls {
						if n > 10*len(feedLogs)*int(time.Hour/feedPause) {
							t.Errorf("%s was tried %d times in an hour", method, n)
						}
					}
					h.store.mu.Unlock()
					if strings.Contains(call, " ") {
						h.inOrder("k/m2/history", 1, last)
					}
					h.store.fail(call, nil)
				}
				h.await("all rows", time.Minute, func() bool { return h.position("1", kmp.LogHour) == fmt.Sprint(last, " true") })
				for i := range 10 {
					h.awaitIDs(fmt.Sprintf("k/m%d/history", i), fmt.Sprint("hour 1-", last))
				}
				if bad, good := h.logs.lines("ERROR"), h.logs.lines("published again"); len(bad) != 2 || len(good) != 2 || !strings.Contains(bad[0], disk.Error()) {
					t.Errorf("log: %q, %q", bad, good)
				}
			})
		})
	}
}

// Many meters and a distant broker: what happens now does not wait for what has happened, and
// while the broker is away nothing grows.
func TestFeedManyMeters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const meters, delay = 100, 200 * time.Millisecond
		h := newFeedHouse(t)
		h.awaitConnected()
		h.b.down(true)
		time.Sleep(time.Second)
		for i := range meters {
			h.feed.is(fmt.Sprint(i), fmt.Sprint("m", i), nil)
			h.add(fmt.Sprint(i), logRows(t, kmp.LogHour, 1, 30)...)
		}
		time.Sleep(time.Hour)
		h.feed.mu.Lock()
		turns := h.feed.turns
		h.feed.mu.Unlock()
		if s := h.box.Stats(); s.Due+s.InFlight > feedTurns+1 || turns != feedTurns {
			t.Errorf("outbox %+v, %d turns", s, turns)
		}
		h.b.delayAcks(delay)
		h.b.down(false)
		h.awaitConnected()
		time.Sleep(10 * delay)
		late := 0
		for i := range 10 {
			putAll(t, h.box, retainedMsg("k/m1", fmt.Sprint(i), RankState), retainedMsg("k/m2", fmt.Sprint(i), RankState))
			synctest.Wait()
			if r := h.b.retained(); r["k/m1"] != fmt.Sprint(i) || r["k/m2"] != fmt.Sprint(i) {
				late++
			}
			time.Sleep(1300 * time.Millisecond)
		}
		h.b.mu.Lock()
		window := h.b.maxWindow
		h.b.mu.Unlock()
		if late > 0 || window < feedTurns || window > feedTurns+2 {
			t.Errorf("%d states were late, the window was %d", late, window)
		}
		h.await("all rows", 10*time.Minute, func() bool {
			for i := range meters {
				if h.position(fmt.Sprint(i), kmp.LogHour) != "30 true" {
					return false
				}
			}
			return true
		})
		for i := range meters {
			h.inOrder(fmt.Sprintf("k/m%d/history", i), 1, 30)
		}
	})
}

// newRows are those of an hour log that began anew, a year later.
func newRows(t *testing.T, n uint32) []logbook.Row {
	t.Helper()
	rows := logRows(t, kmp.LogHour, 1, n)
	for i := range rows {
		rows[i].Time = rows[i].Time.AddDate(1, 0, 0)
	}
	return rows
}

// A log that begins anew is published from its first row, whatever is on its way of the one before.
func TestFeedRestart(t *testing.T) {
	for _, before := range []int{0, 1, 30, 65} { // rows that were published
		t.Run(fmt.Sprint(before), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFeedHouse(t)
				h.awaitConnected()
				h.feed.is("1", "house", nil)
				h.add("1", logRows(t, kmp.LogHour, 101, 101+uint32(before)-1)...)
				h.await("the first", time.Minute, func() bool { return before == 0 || h.position("1", kmp.LogHour) == fmt.Sprint(100+before, " true") })
				h.b.delayAcks(time.Second)
				h.add("1", logRows(t, kmp.LogHour, 101+uint32(before), 400)...)
				time.Sleep(500 * time.Millisecond) // one is on its way
				if err := h.store.Restart("1", kmp.LogHour); err != nil {
					t.Fatal(err)
				}
				h.add("1", newRows(t, 200)...)
				h.b.delayAcks(0)
				want := fmt.Sprintf("hour 101-%d, hour 1-200", 101+before)
				h.awaitIDs("k/house/history", want)
			})
		})
	}
}

// The same in the worst moment: the row is acknowledged, and the log begins anew before that is
// written down.
func TestFeedRestartAtTheWorstMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFeedHouse(t)
		rows := newRows(t, 200)
		h.store.set = func(id uint32) {
			if id != 107 {
				return
			}
			h.store.mu.Lock()
			h.store.set = nil
			h.store.mu.Unlock()
			if err := errors.Join(h.store.Restart("1", kmp.LogHour), h.store.Append("1", rows)); err != nil {
				t.Error(err)
			}
			h.feed.rows("1")
		}
		h.feed.is("1", "house", nil)
		h.add("1", logRows(t, kmp.LogHour, 101, 400)...)
		h.awaitIDs("k/house/history", "hour 101-107, hour 1-200")
		if got := h.position("1", kmp.LogHour); got != "200 true" {
			t.Errorf("position %s", got)
		}
	})
}

// openHistory is the history of a directory.
func openHistory(t *testing.T, dir string) *history.Store {
	t.Helper()
	store, err := history.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// The rows and positions are on the disk; the program is killed again and again, the log begins
// anew, and what is published again is what the file has.
func TestFeedOnDisk(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store := openHistory(t, dir)
		h := newFeedHouseOn(t, store)
		rng := rand.New(rand.NewPCG(7, 8))
		h.b.delayAcks(3 * time.Millisecond)
		h.add("1", logRows(t, kmp.LogHour, 100, 149)...)
		h.feed.is("1", "house", nil)
		for i := range uint32(10) {
			time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
			h.crash()
			store.Close()
			store = openHistory(t, dir)
			h.store = &faultyRows{rowHistory: store}
			h.reboot()
			h.feed.is("1", "house", nil)
			h.add("1", logRows(t, kmp.LogHour, 150+10*i, 159+10*i)...)
		}
		h.await("all rows", 5*time.Minute, func() bool { return h.position("1", kmp.LogHour) == "249 true" })
		h.inOrder("k/house/history", 100, 249)

		h.seen = len(h.b.log())
		if err := store.Restart("1", kmp.LogHour); err != nil {
			t.Fatal(err)
		}
		h.add("1", newRows(t, 70)...)
		h.awaitIDs("k/house/history", "hour 1-70")
		h.seen = len(h.b.log())
		since, until := logStart.AddDate(1, 0, 1), logStart.AddDate(1, 0, 2)
		outcome := h.replay("1", kmp.LogHour, since, until)
		h.awaitIDs("k/house/history", "hour 24-47")
		var kept []uint32
		if err := store.Range("1", kmp.LogHour, since, until, func(row logbook.Row) error { kept = append(kept, row.ID); return nil }); err != nil {
			t.Fatal(err)
		}
		if r := outcome(); r != (replayed{24, nil, 1}) || len(kept) != 24 || kept[0] != 24 || kept[23] != 47 {
			t.Errorf("%+v, while the file has %d", r, kept)
		}
	})
}

// Without a directory there is nothing to publish, and with a history that is closed nothing but
// one complaint.
func TestFeedWithoutRows(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := newFeedHouseOn(t, (*history.Store)(nil))
		h.feed.is("1", "house", nil)
		h.add("1", logRows(t, kmp.LogHour, 1, 9)...)
		outcome := h.replay("1", kmp.LogHour, time.Time{}, time.Time{})
		time.Sleep(time.Minute)
		if r := outcome(); h.ids("k/house/history") != "" || r != (replayed{0, nil, 1}) {
			t.Errorf("published %s, %+v", h.ids("k/house/history"), r)
		}
		h.end()
		store := openHistory(t, dir)
		h.store = &faultyRows{rowHistory: store}
		h.reboot()
		h.add("1", logRows(t, kmp.LogHour, 1, 9)...)
		store.Close()
		h.feed.is("1", "house", nil)
		time.Sleep(time.Hour)
		if lines := h.logs.lines("ERROR"); len(lines) != 1 || h.ids("k/house/history") != "" {
			t.Errorf("logged %q, published %s", lines, h.ids("k/house/history"))
		}
	})
}

// What no broker would take does not stop what stands behind it.
func TestFeedRowTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFeedHouse(t)
		rows := logRows(t, kmp.LogHour, 1, 3)
		for i := range uint16(3000) {
			rows[1].Registers = append(rows[1].Registers, kmp.Register{ID: 9999 + i, Unit: kmp.UnitASCII, Raw: []byte(strings.Repeat("x", 100))})
		}
		h.feed.is("1", "house", nil)
		h.add("1", rows...)
		h.awaitIDs("k/house/history", "hour 1-1, hour 3-3")
		if lines := h.logs.lines("ERROR"); len(lines) != 1 || !strings.Contains(lines[0], "id=2") {
			t.Errorf("log: %q", lines)
		}
	})
}

func TestHistoryMessage(t *testing.T) {
	berlin := time.FixedZone("", 3600)
	seven := time.Date(2026, 11, 21, 7, 0, 0, 0, berlin)
	energy := number(t, 60, kmp.UnitGJ, "227.445")
	decimal := func(text string) kmp.Decimal {
		d, err := kmp.ParseDecimal(text)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, tt := range []struct {
		name    string
		row     logbook.Row
		offsets map[string]kmp.Decimal
		want    string
	}{
		{
			"an hour",
			logbook.Row{Log: kmp.LogHour, ID: 188, Time: seven, Registers: []kmp.Register{energy, number(t, 80, kmp.UnitKW, "6.40")}},
			nil,
			`{"log":"hour","id":188,"serial":"4711","time":"2026-11-21T07:00:00+01:00","energy_gj":227.445,"power_kw":6.40}`,
		},
		{
			"a clock that is slow",
			logbook.Row{Log: kmp.LogDay, ID: 1<<32 - 1, Time: seven.UTC(), Correction: 371600 * time.Millisecond, Corrected: true},
			nil,
			`{"log":"day","id":4294967295,"serial":"4711","time":"2026-11-21T06:00:00Z","correction_s":372}`,
		},
		{
			"a clock that is fast",
			logbook.Row{Log: kmp.LogMonth, Time: seven, Correction: -372 * time.Second, Corrected: true, Registers: []kmp.Register{energy}},
			nil,
			`{"log":"month","id":0,"serial":"4711","time":"2026-11-21T07:00:00+01:00","correction_s":-372,"energy_gj":227.445}`,
		},
		{
			"a clock that is right",
			logbook.Row{Log: kmp.LogYear, ID: 3, Time: seven, Correction: 499 * time.Millisecond, Corrected: true},
			nil,
			`{"log":"year","id":3,"serial":"4711","time":"2026-11-21T07:00:00+01:00"}`,
		},
		{
			"a clock that was not compared",
			logbook.Row{Log: kmp.LogMinute, ID: 3, Time: seven, Correction: time.Hour},
			nil,
			`{"log":"minute","id":3,"serial":"4711","time":"2026-11-21T07:00:00+01:00"}`,
		},
		{"no time", logbook.Row{Log: kmp.LogHour, ID: 3}, nil, `{"log":"hour","id":3,"serial":"4711","time":null}`},
		{
			"what cannot be decoded",
			logbook.Row{Log: kmp.LogHour, ID: 3, Registers: []kmp.Register{
				{ID: 63, Unit: kmp.UnitGJ}, {ID: 68, Unit: 0xEE, Raw: []byte{7}}, energy,
			}},
			nil,
			`{"log":"hour","id":3,"serial":"4711","time":null,"cooling_energy_gj":null,"volume_unit_238":"07","energy_gj":227.445}`,
		},
		{
			"offsets",
			logbook.Row{Log: kmp.LogHour, ID: 3, Registers: []kmp.Register{energy, number(t, 80, kmp.UnitKW, "6.4"), number(t, 68, kmp.UnitCubicMetre, "1.5")}},
			map[string]kmp.Decimal{"energy_gj": decimal("-0.0005"), "energy_kwh": decimal("7"), "volume_m3": decimal("100")},
			`{"log":"hour","id":3,"serial":"4711","time":null,"energy_gj":227.4445,"power_kw":6.4,"volume_m3":101.5}`,
		},
	} {
		got := historyMessage(topics{base: "k"}, "house", "4711", tt.row, tt.offsets)
		if string(got.Payload) != tt.want || !json.Valid(got.Payload) {
			t.Errorf("%s:\n %s\nwant\n %s", tt.name, got.Payload, tt.want)
		}
		if got.Topic != "k/house/history" || got.Retain {
			t.Errorf("%s: %s, retain %v", tt.name, got.Topic, got.Retain)
		}
	}
}

// memoryHistory does in memory what the history's file does.
type memoryHistory struct {
	mu        sync.Mutex
	logs      map[string][]logbook.Row
	positions map[string]uint32
}

func (s *memoryHistory) Append(serial string, rows []logbook.Row) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, row := range rows {
		key := serial + row.Log.String()
		if n := len(s.logs[key]); n == 0 || s.logs[key][n-1].ID < row.ID {
			s.logs[key] = append(s.logs[key], row)
		}
	}
	return nil
}

func (s *memoryHistory) After(serial string, log kmp.LogType, id int64, most int) ([]logbook.Row, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows := s.logs[serial+log.String()]
	from := slices.IndexFunc(rows, func(row logbook.Row) bool { return int64(row.ID) > id })
	if from < 0 {
		return nil, nil
	}
	return slices.Clone(rows[from:min(len(rows), from+most)]), nil
}

func (s *memoryHistory) Position(_, serial string, log kmp.LogType) (uint32, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.positions[serial+log.String()]
	return id, ok, nil
}

func (s *memoryHistory) SetPosition(_, serial string, log kmp.LogType, id uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.positions[serial+log.String()] = id
	return nil
}

func (s *memoryHistory) Restart(serial string, log kmp.LogType) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.positions, serial+log.String())
	delete(s.logs, serial+log.String())
	return nil
}

// A log may begin with id 0: 16-bit ids do, after the last one.
func TestFeedFirstID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFeedHouse(t)
		h.add("1", logRows(t, kmp.LogHour, 0, 3)...)
		h.feed.is("1", "house", nil)
		h.awaitIDs("k/house/history", "hour 0-3")
		rows := -1
		if err := h.feed.replay("1", kmp.LogHour, time.Time{}, time.Time{}, func(n int, _ error) { rows = n }); err != nil {
			t.Fatal(err)
		}
		h.awaitIDs("k/house/history", "hour 0-3, hour 0-3")
		if time.Sleep(time.Second); rows != 4 {
			t.Errorf("%d rows again", rows)
		}
	})
}
