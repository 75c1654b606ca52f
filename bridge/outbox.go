package bridge

import (
	"bytes"
	"cmp"
	"container/list"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// Limits of what the outbox takes. Longer topics cannot be written in MQTT; larger payloads, deeper topics and
// control characters make brokers cut the connection, and a retained one would do so again after every connect.
const (
	maxTopicBytes   = 65535
	maxTopicLevels  = 200 // what Mosquitto accepts
	maxPayloadBytes = 256 << 10
	maxUnretained   = 256 // waiting unretained messages; beyond it the oldest is dropped
	maxInFlight     = 16  // sent and not yet acknowledged, over all topics
)

var (
	// ErrTopic says that a topic cannot be published to; the error's text names the topic and the reason.
	ErrTopic = errors.New("not a topic to publish to")
	// ErrPayload says that a payload is larger than the bridge sends.
	ErrPayload = errors.New("payload too large")
)

// MessageError is a message that [Outbox.Put] refused.
type MessageError struct {
	Topic string // as it was given, possibly not UTF-8
	Err   error  // wraps ErrTopic or ErrPayload
}

// Error names the topic and what is wrong.
func (e *MessageError) Error() string {
	topic := e.Topic
	if len(topic) > 80 {
		topic = topic[:80] + "..."
	}
	return fmt.Sprintf("bridge: message to %q: %v", topic, e.Err)
}

// Unwrap returns the cause.
func (e *MessageError) Unwrap() error { return e.Err }

// Rank orders what is due: the lower rank is sent first.
type Rank uint8

// Ranks. Consumers learn what exists before they learn whether it is there, and that before its values. The past can
// wait for the present.
const (
	RankDiscovery Rank = iota
	RankAvailability
	RankState
	RankEvent
	RankHistory  // messages with Acked
	rankFarewell // the bridge's own last word
	ranks        // how many there are
)

// Message is one MQTT message that the bridge wants the broker to have. All are sent with QoS 1.
type Message struct {
	Topic   string
	Payload []byte // retained and empty: clears the topic
	Retain  bool
	Rank    Rank // of retained messages; all others are RankEvent, or RankHistory with Acked

	// Acked, of a message that is not retained, is called once the broker has acknowledged it; that is never, where it
	// never does. Such a message waits however many others come, and is sent again after a connection that ended before
	// the acknowledgement. It is for its sender not to have more than a few of them. Acked is called without a lock,
	// from any goroutine, and the bridge's last word waits for its return.
	Acked func()
}

// droppable says whether an outage may push a message out.
func (m Message) droppable() bool { return !m.Retain && m.Acked == nil }

// Outbox holds the newest retained message of every topic, a bounded queue of the others, and those whose sender waits
// for the acknowledgement, until a broker has them. Put never blocks. One session at a time takes from it; after every connect everything retained is due again.
// Never are two messages of one topic in flight, so the broker's last value is always the newest.
type Outbox struct {
	mu       sync.Mutex
	retained map[string]*outEntry
	queues   [ranks]list.List    // of *outEntry, what is due
	busy     map[string]outTaken // by topic, what is in flight
	waiting  int                 // those in the queues that an outage may push out
	owed     int                 // calls of Acked that have not returned
	versions uint64              // counts Puts
	epoch    uint64              // counts connects
	dropped  uint64
	hurried  bool          // only the farewell is still sent
	wake     chan struct{} // holds one token when there may be something to take
}

// outEntry is one message with its place in a queue.
type outEntry struct {
	msg     Message
	version uint64
	place   *list.Element // nil when it is not due
}

// outTaken is one message on its way. Version and epoch tell a late acknowledgement from one that counts.
type outTaken struct {
	entry   *outEntry
	msg     Message
	version uint64
	epoch   uint64
}

// OutboxStats says what an [Outbox] holds.
type OutboxStats struct {
	Topics   int    // retained topics known
	Due      int    // messages that wait to be sent
	InFlight int    // messages sent and not yet acknowledged
	Dropped  uint64 // messages, neither retained nor with Acked, that an outage pushed out, since the start
}

// NewOutbox returns an empty outbox.
func NewOutbox() *Outbox {
	return &Outbox{retained: map[string]*outEntry{}, busy: map[string]outTaken{}, wake: make(chan struct{}, 1)}
}

// Put makes messages due. A retained one replaces what was due for its topic. The payload is copied. Put refuses
// what a broker would refuse, one [MessageError] for each; the others are taken all the same.
func (o *Outbox) Put(msgs ...Message) error {
	var errs []error
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, m := range msgs {
		if err := checkMessage(m); err != nil {
			errs = append(errs, err)
			continue
		}
		m.Payload = bytes.Clone(m.Payload)
		if m.Retain {
			o.putRetained(m)
		} else {
			o.putUnretained(m)
		}
	}
	o.signal()
	return errors.Join(errs...)
}

func (o *Outbox) putRetained(m Message) {
	m.Acked = nil
	if m.Rank >= ranks {
		m.Rank = RankEvent
	}
	e := o.retained[m.Topic]
	if e == nil {
		e = &outEntry{}
		o.retained[m.Topic] = e
	} else if e.place != nil && e.msg.Rank != m.Rank {
		o.queues[e.msg.Rank].Remove(e.place)
		e.place = nil
	}
	o.versions++
	e.msg, e.version = m, o.versions
	if e.place == nil {
		e.place = o.queues[m.Rank].PushBack(e)
	}
}

func (o *Outbox) putUnretained(m Message) {
	m.Rank = RankHistory
	if m.droppable() {
		m.Rank = RankEvent
		o.makeRoom()
		o.waiting++
	}
	o.versions++
	e := &outEntry{msg: m, version: o.versions}
	e.place = o.queues[m.Rank].PushBack(e)
}

// makeRoom drops the oldest events until there is room for one.
func (o *Outbox) makeRoom() {
	queue := &o.queues[RankEvent]
	for place := queue.Front(); place != nil && o.waiting >= maxUnretained; {
		next := place.Next()
		if old := place.Value.(*outEntry); old.msg.droppable() {
			queue.Remove(place)
			o.waiting--
			o.dropped++
		}
		place = next
	}
}

// Repeat makes the retained messages of some topics due again, as they are now. A topic without one is passed over.
func (o *Outbox) Repeat(topics ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, topic := range topics {
		if e := o.retained[topic]; e != nil && e.place == nil {
			o.versions++
			e.version = o.versions
			e.place = o.queues[e.msg.Rank].PushBack(e)
		}
	}
	o.signal()
}

// payload is the newest retained payload of a topic; nil: there is none.
func (o *Outbox) payload(topic string) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if e := o.retained[topic]; e != nil {
		return e.msg.Payload // never changed once it is here
	}
	return nil
}

// Len is the number of messages that the broker does not have yet.
func (o *Outbox) Len() int {
	s := o.Stats()
	return s.Due + s.InFlight
}

// Stats says what the outbox holds.
func (o *Outbox) Stats() OutboxStats {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := OutboxStats{Topics: len(o.retained), InFlight: len(o.busy), Dropped: o.dropped}
	for i := range o.queues {
		s.Due += o.queues[i].Len()
	}
	return s
}

// begin starts a connection: what was in flight on the one before counts as lost, everything retained is due.
// It returns the connection's epoch for take.
func (o *Outbox) begin() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.epoch++
	o.hurried = false
	var lost []*outEntry
	for _, taken := range o.busy {
		if !taken.msg.Retain {
			lost = append(lost, taken.entry)
		}
	}
	clear(o.busy)
	slices.SortFunc(lost, func(a, b *outEntry) int { return cmp.Compare(b.version, a.version) })
	for _, e := range lost {
		e.place = o.queues[e.msg.Rank].PushFront(e)
		if e.msg.droppable() {
			o.waiting++
		}
	}
	var idle []*outEntry
	for _, e := range o.retained {
		if e.place == nil {
			idle = append(idle, e)
		}
	}
	slices.SortFunc(idle, func(a, b *outEntry) int { return cmp.Compare(a.version, b.version) })
	for _, e := range idle {
		e.place = o.queues[e.msg.Rank].PushBack(e)
	}
	o.signal()
	return o.epoch
}

// take hands out the next message; false when there is none, when the window is full or when a newer connection
// has begun.
func (o *Outbox) take(epoch uint64) (outTaken, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if epoch != o.epoch || len(o.busy) >= maxInFlight && !o.hurried {
		return outTaken{}, false
	}
	waiting := false
	for i := range o.queues {
		queue := &o.queues[i]
		if o.hurried != (Rank(i) == rankFarewell) {
			if o.hurried || waiting || len(o.busy) > 0 || o.owed > 0 {
				continue // the last word waits until everything else is said, or is all that is still said
			}
		}
		waiting = waiting || queue.Len() > 0
		for place := queue.Front(); place != nil; place = place.Next() {
			e := place.Value.(*outEntry)
			if _, busy := o.busy[e.msg.Topic]; busy {
				continue
			}
			queue.Remove(place)
			e.place = nil
			if e.msg.droppable() {
				o.waiting--
			}
			taken := outTaken{entry: e, msg: e.msg, version: e.version, epoch: epoch}
			o.busy[e.msg.Topic] = taken
			return taken, true
		}
	}
	return outTaken{}, false
}

// acknowledge says that the broker has a message. A late word from an older connection changes nothing, and a newer
// message for the same topic stays due.
func (o *Outbox) acknowledge(taken outTaken) {
	if !o.landed(taken) || taken.msg.Acked == nil {
		return
	}
	taken.msg.Acked()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.owed--
	o.signal()
}

// landed takes a message out of flight; false when it was not in flight any more.
func (o *Outbox) landed(taken outTaken) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if taken.epoch != o.epoch || taken.version != o.busy[taken.msg.Topic].version {
		return false
	}
	delete(o.busy, taken.msg.Topic)
	if taken.msg.Retain && len(taken.msg.Payload) == 0 && taken.entry.version == taken.version {
		delete(o.retained, taken.msg.Topic)
	}
	if taken.msg.Acked != nil {
		o.owed++
	}
	o.signal()
	return true
}

// hurry gives up everything but the farewell, which then waits for nothing: for a stop that takes too long.
func (o *Outbox) hurry() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hurried = true
	o.signal()
}

// delivered says whether the broker has the newest retained message of a topic.
func (o *Outbox) delivered(topic string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.retained[topic]
	_, busy := o.busy[topic]
	return e != nil && e.place == nil && !busy
}

// oldest is the message that has been in flight longest.
func (o *Outbox) oldest() (Message, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var first outTaken
	for _, taken := range o.busy {
		if first.entry == nil || taken.version < first.version {
			first = taken
		}
	}
	return first.msg, first.entry != nil
}

func (o *Outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func checkMessage(m Message) error {
	if err := checkPublishTopic(m.Topic); err != nil {
		return &MessageError{Topic: m.Topic, Err: err}
	}
	if len(m.Payload) > maxPayloadBytes {
		return &MessageError{Topic: m.Topic, Err: fmt.Errorf("%w: %d bytes, at most %d", ErrPayload, len(m.Payload), maxPayloadBytes)}
	}
	return nil
}

// checkPublishTopic accepts what every broker lets one publish to (MQTT 3.1.1 sections 1.5.3 and 4.7).
func checkPublishTopic(topic string) error {
	switch {
	case topic == "":
		return fmt.Errorf("%w: it is empty", ErrTopic)
	case len(topic) > maxTopicBytes:
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTopic, len(topic), maxTopicBytes)
	case strings.ContainsAny(topic, "+#"):
		return fmt.Errorf("%w: + and # are wildcards", ErrTopic)
	case !utf8.ValidString(topic):
		return fmt.Errorf("%w: it is not UTF-8", ErrTopic)
	case strings.Count(topic, "/") >= maxTopicLevels:
		return fmt.Errorf("%w: more than %d levels", ErrTopic, maxTopicLevels)
	}
	for _, r := range topic {
		switch {
		case r < 0x20, r >= 0x7F && r <= 0x9F:
			return fmt.Errorf("%w: control character %U", ErrTopic, r)
		case r >= 0xFDD0 && r <= 0xFDEF, r&0xFFFE == 0xFFFE:
			return fmt.Errorf("%w: %U is not a character", ErrTopic, r)
		}
	}
	return nil
}
