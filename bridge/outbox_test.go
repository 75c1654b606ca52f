package bridge

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func retainedMsg(topic, payload string, rank Rank) Message {
	return Message{Topic: topic, Payload: []byte(payload), Retain: true, Rank: rank}
}

func eventMsg(topic, payload string) Message {
	return Message{Topic: topic, Payload: []byte(payload), Rank: RankEvent}
}

func putAll(t *testing.T, box *Outbox, msgs ...Message) {
	t.Helper()
	if err := box.Put(msgs...); err != nil {
		t.Fatal(err)
	}
}

// drain takes and acknowledges until nothing is due.
func drainBox(box *Outbox, epoch uint64) []string {
	var got []string
	for {
		taken, ok := box.take(epoch)
		if !ok {
			return got
		}
		got = append(got, taken.msg.Topic+"="+string(taken.msg.Payload))
		box.acknowledge(taken)
	}
}

func TestOutboxOrder(t *testing.T) {
	box := NewOutbox()
	putAll(t, box,
		eventMsg("e", "1"), retainedMsg("s", "1", RankState), retainedMsg("a", "1", RankAvailability),
		retainedMsg("d", "1", RankDiscovery), eventMsg("e", "2"), retainedMsg("s", "2", RankState))
	want := []string{"d=1", "a=1", "s=2", "e=1", "e=2"}
	if diff := cmp.Diff(want, drainBox(box, box.begin())); diff != "" {
		t.Error(diff)
	}
	// Retained ones again, events not.
	if diff := cmp.Diff(want[:3], drainBox(box, box.begin())); diff != "" {
		t.Error(diff)
	}
	if box.Len() != 0 {
		t.Errorf("Len() = %d", box.Len())
	}
}

func TestOutboxSamePayloadIsDueAgain(t *testing.T) {
	box := NewOutbox()
	epoch := box.begin()
	for range 2 {
		putAll(t, box, retainedMsg("d", "1", RankDiscovery))
		if diff := cmp.Diff([]string{"d=1"}, drainBox(box, epoch)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestOutboxOneOfATopicInFlight(t *testing.T) {
	box := NewOutbox()
	epoch := box.begin()
	putAll(t, box, retainedMsg("s", "1", RankState), eventMsg("e", "1"), eventMsg("e", "2"))
	state, _ := box.take(epoch)
	first, _ := box.take(epoch)
	putAll(t, box, retainedMsg("s", "2", RankState))
	if taken, ok := box.take(epoch); ok {
		t.Fatalf("took %q while its topic is in flight", taken.msg.Topic)
	}
	// The acknowledgement of 1 does not clear 2.
	box.acknowledge(state)
	box.acknowledge(first)
	if diff := cmp.Diff([]string{"s=2", "e=2"}, drainBox(box, epoch)); diff != "" {
		t.Error(diff)
	}
}

func TestOutboxWindow(t *testing.T) {
	box := NewOutbox()
	for i := range 3 * maxInFlight {
		putAll(t, box, retainedMsg(fmt.Sprint("t", i), "1", RankState))
	}
	epoch := box.begin()
	var flying []outTaken
	for {
		taken, ok := box.take(epoch)
		if !ok {
			break
		}
		flying = append(flying, taken)
	}
	if len(flying) != maxInFlight {
		t.Fatalf("%d in flight, want %d", len(flying), maxInFlight)
	}
	if diff := cmp.Diff(OutboxStats{Topics: 48, Due: 32, InFlight: 16}, box.Stats()); diff != "" {
		t.Error(diff)
	}
	box.acknowledge(flying[3])
	if _, ok := box.take(epoch); !ok {
		t.Error("an acknowledgement made no room")
	}
}

func TestOutboxLateAcknowledgement(t *testing.T) {
	box := NewOutbox()
	old := box.begin()
	putAll(t, box, retainedMsg("s", "1", RankState), eventMsg("e", "1"))
	state, _ := box.take(old)
	first, _ := box.take(old)
	epoch := box.begin()
	if _, ok := box.take(old); ok {
		t.Error("the old connection still takes")
	}
	again, _ := box.take(epoch)
	box.acknowledge(state) // from the old connection
	box.acknowledge(first)
	if got := box.Stats().InFlight; got != 1 {
		t.Errorf("a late acknowledgement counted: %d in flight", got)
	}
	putAll(t, box, retainedMsg("s", "2", RankState))
	if diff := cmp.Diff([]string{"e=1"}, drainBox(box, epoch)); diff != "" {
		t.Error(diff)
	}
	box.acknowledge(again)
	if diff := cmp.Diff([]string{"s=2"}, drainBox(box, epoch)); diff != "" {
		t.Error(diff)
	}
}

func TestOutboxClear(t *testing.T) {
	box := NewOutbox()
	epoch := box.begin()
	putAll(t, box, retainedMsg("s", "1", RankState))
	drainBox(box, epoch)
	putAll(t, box, Message{Topic: "s", Retain: true, Rank: RankState})
	clearing, _ := box.take(epoch)

	// The connection dies before the acknowledgement: the topic is cleared on the next one.
	epoch = box.begin()
	box.acknowledge(clearing)
	if diff := cmp.Diff([]string{"s="}, drainBox(box, epoch)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(OutboxStats{}, box.Stats()); diff != "" {
		t.Error(diff)
	}
	if got := drainBox(box, box.begin()); got != nil {
		t.Errorf("sent again after it was cleared: %q", got)
	}

	// A value that comes while the topic is being cleared stays.
	putAll(t, box, Message{Topic: "s", Retain: true, Rank: RankState})
	epoch = box.begin()
	clearing, _ = box.take(epoch)
	putAll(t, box, retainedMsg("s", "2", RankState))
	box.acknowledge(clearing)
	if diff := cmp.Diff([]string{"s=2"}, drainBox(box, epoch)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"s=2"}, drainBox(box, box.begin())); diff != "" {
		t.Error(diff)
	}
}

func TestOutboxDropsTheOldestEvents(t *testing.T) {
	box := NewOutbox()
	putAll(t, box, retainedMsg("r", "1", RankEvent))
	for i := range maxUnretained + 10 {
		putAll(t, box, eventMsg("e", fmt.Sprint(i)))
	}
	if got := box.Stats().Dropped; got != 10 {
		t.Errorf("dropped %d, want 10", got)
	}
	got := drainBox(box, box.begin())
	if len(got) != maxUnretained+1 || got[0] != "r=1" || got[1] != "e=10" || got[maxUnretained] != fmt.Sprint("e=", maxUnretained+9) {
		t.Errorf("%d sent: %q", len(got), got)
	}
}

// ackedMsg is a message that notes its acknowledgement.
func ackedMsg(topic, payload string, acked *[]string) Message {
	return Message{Topic: topic, Payload: []byte(payload), Acked: func() { *acked = append(*acked, payload) }}
}

func TestOutboxAcked(t *testing.T) {
	box := NewOutbox()
	var acked []string
	putAll(t, box, ackedMsg("h", "1", &acked), ackedMsg("h", "2", &acked), ackedMsg("i", "1", &acked))
	for i := range maxUnretained + 10 {
		putAll(t, box, eventMsg("e", fmt.Sprint(i)))
	}
	putAll(t, box, retainedMsg("s", "1", RankState), retainedMsg("d", "1", RankDiscovery))
	old := box.begin()
	got := []string{}
	for range 2 + maxUnretained { // all of those are sent first
		taken, ok := box.take(old)
		if !ok {
			t.Fatal("nothing to take")
		}
		got = append(got, taken.msg.Topic)
		box.acknowledge(taken)
	}
	if got[0] != "d" || got[1] != "s" || slices.Contains(got, "h") || box.Stats().Dropped != 10 {
		t.Errorf("taken %q, dropped %d", got, box.Stats().Dropped)
	}

	first, _ := box.take(old)
	other, _ := box.take(old)
	if got := []string{first.msg.Topic, other.msg.Topic}; !slices.Equal(got, []string{"h", "i"}) {
		t.Fatalf("taken %q", got)
	}
	if taken, ok := box.take(old); ok {
		t.Errorf("took %s while its topic is in flight", taken.msg.Topic)
	}
	box.acknowledge(other)
	if !slices.Equal(acked, []string{"1"}) {
		t.Errorf("acknowledged %q", acked)
	}

	// The connection ends: what was not acknowledged is sent again, before what came after it.
	acked = nil
	epoch := box.begin()
	box.acknowledge(first) // of the old connection
	if acked != nil {
		t.Errorf("a late acknowledgement counted: %q", acked)
	}
	if diff := cmp.Diff([]string{"d=1", "s=1", "h=1", "h=2"}, drainBox(box, epoch)); diff != "" {
		t.Error(diff)
	}
	if !slices.Equal(acked, []string{"1", "2"}) {
		t.Errorf("acknowledged %q", acked)
	}
	for i := range maxUnretained { // and takes none of the room of the others
		putAll(t, box, eventMsg("e", fmt.Sprint(i)))
	}
	if diff := cmp.Diff(OutboxStats{Topics: 2, Due: maxUnretained, Dropped: 10}, box.Stats()); diff != "" {
		t.Error(diff)
	}
}

// One message in flight may be acknowledged twice, another be sent from within the call, and neither a retained message
// nor a hurried end makes one.
func TestOutboxAckedOnce(t *testing.T) {
	box := NewOutbox()
	epoch := box.begin()
	calls := 0
	retained := retainedMsg("r", "1", RankHistory)
	retained.Acked = func() { t.Error("Acked of a retained message") }
	putAll(t, box, retained, Message{Topic: "h", Acked: func() {
		calls++
		putAll(t, box, Message{Topic: "h", Payload: []byte("2"), Acked: func() { calls++ }})
	}})
	first, _ := box.take(epoch)
	box.acknowledge(first)
	first, _ = box.take(epoch)
	box.acknowledge(first)
	second, _ := box.take(epoch)
	box.acknowledge(first)
	if calls != 1 || box.Stats().InFlight != 1 {
		t.Errorf("%d calls, %d in flight, want 1 and 1", calls, box.Stats().InFlight)
	}
	putAll(t, box, retainedMsg("k/bridge/state", "offline", rankFarewell))
	box.hurry()
	if diff := cmp.Diff([]string{"k/bridge/state=offline"}, drainBox(box, epoch)); diff != "" {
		t.Error(diff)
	}
	if string(second.msg.Payload) != "2" || calls != 1 {
		t.Errorf("%d calls for %q, want none", calls-1, second.msg.Payload)
	}
}

// The last word waits for whoever is told of an acknowledgement, unless there is no time.
func TestOutboxFarewellWaitsForAcked(t *testing.T) {
	box := NewOutbox()
	epoch := box.begin()
	called, back := make(chan struct{}), make(chan struct{})
	putAll(t, box, Message{Topic: "h", Acked: func() { close(called); <-back }}, retainedMsg("bye", "1", rankFarewell))
	taken, _ := box.take(epoch)
	returned := make(chan struct{})
	go func() { box.acknowledge(taken); close(returned) }()
	<-called
	if _, ok := box.take(epoch); ok {
		t.Error("the last word did not wait")
	}
	close(back)
	<-returned
	if diff := cmp.Diff([]string{"bye=1"}, drainBox(box, epoch)); diff != "" {
		t.Error(diff)
	}
}

func TestOutboxRankMayChange(t *testing.T) {
	box := NewOutbox()
	putAll(t, box, retainedMsg("x", "1", RankState), retainedMsg("y", "1", RankState), retainedMsg("x", "2", rankFarewell))
	if diff := cmp.Diff([]string{"y=1", "x=2"}, drainBox(box, box.begin())); diff != "" {
		t.Error(diff)
	}
	putAll(t, box, retainedMsg("z", "1", Rank(200))) // no such rank: an event's, not a crash
	if diff := cmp.Diff([]string{"y=1", "z=1", "x=2"}, drainBox(box, box.begin())); diff != "" {
		t.Error(diff)
	}
}

func TestOutboxRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		msg  Message
		want error
	}{
		"empty":         {Message{}, ErrTopic},
		"plus":          {Message{Topic: "a/+/b"}, ErrTopic},
		"hash":          {Message{Topic: "a/#"}, ErrTopic},
		"nul":           {Message{Topic: "a\x00b"}, ErrTopic},
		"control":       {Message{Topic: "a\nb"}, ErrTopic},
		"delete":        {Message{Topic: "a\u0085b"}, ErrTopic},
		"not UTF-8":     {Message{Topic: "a\xffb"}, ErrTopic},
		"surrogate":     {Message{Topic: "a\xed\xa0\x80b"}, ErrTopic},
		"non-character": {Message{Topic: "a\uFFFFb"}, ErrTopic},
		"long":          {Message{Topic: strings.Repeat("a", 65536)}, ErrTopic},
		"deep":          {Message{Topic: strings.Repeat("a/", 200) + "b"}, ErrTopic},
		"payload":       {Message{Topic: "a", Payload: make([]byte, maxPayloadBytes+1)}, ErrPayload},
	} {
		t.Run(name, func(t *testing.T) {
			box := NewOutbox()
			for _, retain := range []bool{false, true} {
				tc.msg.Retain = retain
				err := box.Put(tc.msg, retainedMsg("good", "1", RankState))
				var refused *MessageError
				if !errors.Is(err, tc.want) || !errors.As(err, &refused) || refused.Topic != tc.msg.Topic {
					t.Fatalf("Put: %v, want %v", err, tc.want)
				}
				if !strings.HasPrefix(err.Error(), "bridge: ") || len(err.Error()) > 600 {
					t.Errorf("unclear: %v", err)
				}
			}
			if diff := cmp.Diff([]string{"good=1"}, drainBox(box, box.begin())); diff != "" {
				t.Error(diff)
			}
		})
	}
	box := NewOutbox()
	putAll(t, box,
		Message{Topic: strings.Repeat("a", 65535)}, Message{Topic: "å/水/𝄞"}, Message{Topic: strings.Repeat("a/", 199) + "b"},
		Message{Topic: "a", Payload: make([]byte, maxPayloadBytes)})
	if box.Len() != 4 {
		t.Errorf("Len() = %d, want 4", box.Len())
	}
}

func TestOutboxKeepsItsOwnPayload(t *testing.T) {
	box := NewOutbox()
	payload := []byte("1")
	putAll(t, box, Message{Topic: "s", Payload: payload, Retain: true})
	payload[0] = '2'
	if diff := cmp.Diff([]string{"s=1"}, drainBox(box, box.begin())); diff != "" {
		t.Error(diff)
	}
}

// Random life: whatever happens between, after a last quiet drain a broker that applies what is taken in the order of
// taking has the newest of everything, and every acknowledgement that was asked for has come once.
func TestOutboxRandom(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		box := NewOutbox()
		epoch := box.begin()
		newest, broker := map[string]string{}, map[string]string{}
		var flying []outTaken
		events, eventsSeen := 0, map[string]bool{}
		rows, acked := 0, map[int]int{}
		apply := func(taken outTaken) {
			switch {
			case !taken.msg.Retain:
				eventsSeen[string(taken.msg.Payload)] = true
			case len(taken.msg.Payload) == 0:
				delete(broker, taken.msg.Topic)
			default:
				broker[taken.msg.Topic] = string(taken.msg.Payload)
			}
		}
		for step := range 400 {
			switch rng.IntN(8) {
			case 0, 1, 2:
				topic, payload := fmt.Sprint("t", rng.IntN(20)), fmt.Sprint(step)
				if rng.IntN(10) == 0 {
					payload = ""
					delete(newest, topic)
				} else {
					newest[topic] = payload
				}
				putAll(t, box, retainedMsg(topic, payload, Rank(rng.IntN(int(ranks)))))
			case 3:
				events++
				putAll(t, box, eventMsg("e", fmt.Sprint(events)))
				rows++
				row := rows
				putAll(t, box, Message{Topic: fmt.Sprint("h", rows%3), Payload: []byte(fmt.Sprint("row ", row)), Acked: func() { acked[row]++ }})
			case 4, 5:
				if taken, ok := box.take(epoch); ok {
					if slices.ContainsFunc(flying, func(f outTaken) bool { return f.epoch == epoch && f.msg.Topic == taken.msg.Topic }) {
						t.Fatalf("seed %d: two of %s in flight", seed, taken.msg.Topic)
					}
					flying = append(flying, taken)
					if rng.IntN(4) != 0 { // else the connection is dead and the message lost
						apply(taken)
					} else {
						epoch = box.begin()
					}
				}
			case 6:
				if len(flying) > 0 {
					i := rng.IntN(len(flying))
					box.acknowledge(flying[i]) // perhaps of a dead connection
					flying = slices.Delete(flying, i, i+1)
				}
			case 7:
				if rng.IntN(10) == 0 {
					epoch = box.begin()
					if rng.IntN(2) == 0 {
						clear(broker)
					}
				}
			}
		}
		epoch = box.begin()
		for {
			taken, ok := box.take(epoch)
			if !ok {
				break
			}
			apply(taken)
			box.acknowledge(taken)
		}
		if diff := cmp.Diff(newest, broker); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
		if len(eventsSeen) != events+rows {
			t.Fatalf("seed %d: %d of %d events and rows", seed, len(eventsSeen), events+rows)
		}
		for row := range rows {
			if acked[row+1] != 1 {
				t.Fatalf("seed %d: row %d of %d acknowledged %d times", seed, row+1, rows, acked[row+1])
			}
		}
		if box.Len() != 0 {
			t.Fatalf("seed %d: Len() = %d", seed, box.Len())
		}
	}
}
