package bridge

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// miniBroker is an MQTT 3.1.1 broker as small as the tests allow: retained store, QoS 1, wills, take-over of a
// client id. It speaks over net.Pipe, so it lives inside a testing/synctest bubble, and it misbehaves on demand.
type miniBroker struct {
	mu        sync.Mutex
	store     map[string]string
	conns     map[*miniConn]struct{}
	watchers  []miniWatcher
	received  []miniPublish
	connects  int // accepted CONNECTs so far
	maxWindow int // most PUBLISHes that one connection had unacknowledged
	overlaps  []string

	isDown     bool
	refusal    byte
	muted      bool
	stalled    chan struct{} // not nil while the broker does not read
	ackDelay   time.Duration
	deny       func(filter string) bool
	user, pass string
	onConnect  func(*packets.ConnectPacket)
}

type miniWatcher struct {
	filter string
	fn     func(topic, payload string, retain bool)
}

// miniPublish is one PUBLISH that the broker received.
type miniPublish struct {
	conn    int // number of the connection, from 1
	topic   string
	payload string
	retain  bool
	qos     byte
}

type miniConn struct {
	b       *miniBroker
	conn    net.Conn
	n       int
	id      string
	will    *packets.PublishPacket
	filters []string
	unacked map[string]int

	mu     sync.Mutex
	out    []packets.ControlPacket
	wake   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newMiniBroker(t testing.TB) *miniBroker {
	t.Helper()
	b := &miniBroker{store: map[string]string{}, conns: map[*miniConn]struct{}{}}
	t.Cleanup(func() { b.down(true); b.stall(false) })
	return b
}

// dial is for MQTTConfig.Dial.
func (b *miniBroker) dial(ctx context.Context, _ *url.URL) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isDown {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	near, far := net.Pipe()
	b.attach(far)
	return near, nil
}

// attach serves a connection; b.mu is held.
func (b *miniBroker) attach(conn net.Conn) {
	c := &miniConn{b: b, conn: conn, wake: make(chan struct{}, 1), closed: make(chan struct{}), unacked: map[string]int{}}
	b.conns[c] = struct{}{}
	go c.write()
	go c.serve()
}

// accept serves a connection from a real listener.
func (b *miniBroker) accept(conn net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attach(conn)
}

// retained is a copy of everything retained.
func (b *miniBroker) retained() map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.store)
}

// log is a copy of every PUBLISH received so far, in order.
func (b *miniBroker) log() []miniPublish {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.received)
}

// connected is the number of connections that have got their CONNACK and live.
func (b *miniBroker) connected() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for c := range b.conns {
		if c.n != 0 {
			n++
		}
	}
	return n
}

// subscriptions are the filters of the living connections, sorted.
func (b *miniBroker) subscriptions() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []string
	for c := range b.conns {
		all = append(all, c.filters...)
	}
	slices.Sort(all)
	return all
}

// publish is a message from somebody else.
func (b *miniBroker) publish(topic, payload string, retain bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deliver(topic, payload, retain)
}

// subscribeFunc calls fn for every message that matches, from now on; fn must not call the broker.
func (b *miniBroker) subscribeFunc(filter string, fn func(topic, payload string, retain bool)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.watchers = append(b.watchers, miniWatcher{filter, fn})
}

// kill cuts every connection; the broker itself lives, so wills are published.
func (b *miniBroker) kill() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.conns {
		c.close()
	}
}

// down(true) is the death of the broker: connections cut, no wills, nobody listens. Its memory stays (see forget).
func (b *miniBroker) down(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.isDown = down
	if !down {
		return
	}
	for c := range b.conns {
		c.will = nil
		c.close()
		delete(b.conns, c)
	}
}

// forget loses all retained messages.
func (b *miniBroker) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.store)
}

// refuse answers the next CONNECTs with a return code; 0 accepts again.
func (b *miniBroker) refuse(code byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refusal = code
}

// login demands a user name and a password.
func (b *miniBroker) login(user, pass string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.user, b.pass = user, pass
}

// mute(true): the broker reads but answers nothing at all.
func (b *miniBroker) mute(mute bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.muted = mute
}

// stall(true): the broker does not even read (but for one packet, which it keeps for later).
func (b *miniBroker) stall(stall bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case stall && b.stalled == nil:
		b.stalled = make(chan struct{})
	case !stall && b.stalled != nil:
		close(b.stalled)
		b.stalled = nil
	}
}

// delayAcks makes every PUBACK late by d.
func (b *miniBroker) delayAcks(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ackDelay = d
}

// denySubscriptions answers SUBACK 0x80 where deny says so.
func (b *miniBroker) denySubscriptions(deny func(filter string) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deny = deny
}

// deliver stores and hands on; b.mu is held.
func (b *miniBroker) deliver(topic, payload string, retain bool) {
	if retain {
		if payload == "" {
			delete(b.store, topic)
		} else {
			b.store[topic] = payload
		}
	}
	for _, w := range b.watchers {
		if miniMatch(w.filter, topic) {
			w.fn(topic, payload, retain)
		}
	}
	for c := range b.conns {
		if slices.ContainsFunc(c.filters, func(f string) bool { return miniMatch(f, topic) }) {
			c.sendPublish(topic, payload, false)
		}
	}
}

// answers says whether the broker answers just now.
func (b *miniBroker) answers() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.muted
}

func (c *miniConn) close() {
	c.once.Do(func() {
		close(c.closed)
		c.conn.Close()
	})
}

func (c *miniConn) send(p packets.ControlPacket) {
	c.mu.Lock()
	c.out = append(c.out, p)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *miniConn) sendPublish(topic, payload string, retain bool) {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Retain = topic, []byte(payload), retain
	c.send(p)
}

// write sends what is queued: a queue, because a pipe has no buffer and the client may be writing itself.
func (c *miniConn) write() {
	for {
		select {
		case <-c.wake:
		case <-c.closed:
			return
		}
		c.mu.Lock()
		out := c.out
		c.out = nil
		c.mu.Unlock()
		for _, p := range out {
			var buf bytes.Buffer
			if err := p.Write(&buf); err != nil {
				panic(err)
			}
			if _, err := c.conn.Write(buf.Bytes()); err != nil {
				c.close()
				return
			}
			// A refusal is the last that this connection hears.
			if ack, ok := p.(*packets.ConnackPacket); ok && ack.ReturnCode != packets.Accepted {
				c.close()
				return
			}
		}
	}
}

func (c *miniConn) serve() {
	err := c.read()
	c.close()
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	delete(c.b.conns, c)
	if err != nil && c.will != nil {
		c.b.deliver(c.will.TopicName, string(c.will.Payload), c.will.Retain)
	}
}

// read returns nil after a clean DISCONNECT.
func (c *miniConn) read() error {
	for {
		p, err := packets.ReadPacket(c.conn)
		if err != nil {
			return err
		}
		c.b.mu.Lock()
		stalled := c.b.stalled
		c.b.mu.Unlock()
		if stalled != nil {
			select {
			case <-stalled:
			case <-c.closed:
				return net.ErrClosed
			}
		}
		if !c.b.answers() {
			continue
		}
		switch p := p.(type) {
		case *packets.ConnectPacket:
			c.connect(p)
		case *packets.SubscribePacket:
			c.subscribe(p)
		case *packets.PublishPacket:
			if err := c.publish(p); err != nil {
				return err
			}
		case *packets.PingreqPacket:
			c.send(packets.NewControlPacket(packets.Pingresp))
		case *packets.DisconnectPacket:
			return nil
		}
	}
}

func (c *miniConn) connect(p *packets.ConnectPacket) {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	ack := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
	switch {
	case c.b.refusal != 0:
		ack.ReturnCode = c.b.refusal
	case c.b.user != "" && (p.Username != c.b.user || string(p.Password) != c.b.pass):
		ack.ReturnCode = packets.ErrRefusedNotAuthorised
	}
	if c.b.onConnect != nil {
		c.b.onConnect(p)
	}
	if ack.ReturnCode == packets.Accepted {
		for other := range c.b.conns {
			if other != c && other.id == p.ClientIdentifier {
				other.close()
			}
		}
		c.b.connects++
		c.n = c.b.connects
		c.id = p.ClientIdentifier
		if p.WillFlag {
			c.will = packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
			c.will.TopicName, c.will.Payload, c.will.Retain = p.WillTopic, p.WillMessage, p.WillRetain
		}
	}
	c.send(ack)
}

func (c *miniConn) subscribe(p *packets.SubscribePacket) {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	ack := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
	ack.MessageID = p.MessageID
	var granted []string
	for i, filter := range p.Topics {
		if c.b.deny != nil && c.b.deny(filter) {
			ack.ReturnCodes = append(ack.ReturnCodes, 0x80)
			continue
		}
		ack.ReturnCodes = append(ack.ReturnCodes, p.Qoss[i])
		granted = append(granted, filter)
	}
	c.send(ack)
	for _, filter := range granted {
		c.filters = append(c.filters, filter)
		for _, topic := range slices.Sorted(maps.Keys(c.b.store)) {
			if miniMatch(filter, topic) {
				c.sendPublish(topic, c.b.store[topic], true)
			}
		}
	}
}

func (c *miniConn) publish(p *packets.PublishPacket) error {
	if p.TopicName == "" || strings.ContainsAny(p.TopicName, "+#\x00") {
		return fmt.Errorf("minibroker: bad topic %q", p.TopicName) // as real brokers do: cut the connection
	}
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.b.received = append(c.b.received, miniPublish{c.n, p.TopicName, string(p.Payload), p.Retain, p.Qos})
	c.b.deliver(p.TopicName, string(p.Payload), p.Retain)
	if p.Qos == 0 {
		return nil
	}
	c.unacked[p.TopicName]++
	if c.unacked[p.TopicName] > 1 {
		c.b.overlaps = append(c.b.overlaps, p.TopicName)
	}
	c.b.maxWindow = max(c.b.maxWindow, len(c.unacked))
	ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
	ack.MessageID = p.MessageID
	acknowledge := func() {
		if c.unacked[p.TopicName]--; c.unacked[p.TopicName] <= 0 {
			delete(c.unacked, p.TopicName)
		}
		if !c.b.muted {
			c.send(ack)
		}
	}
	if c.b.ackDelay == 0 {
		acknowledge()
		return nil
	}
	time.AfterFunc(c.b.ackDelay, func() {
		c.b.mu.Lock()
		defer c.b.mu.Unlock()
		acknowledge()
	})
	return nil
}

// miniMatch: + and # as in MQTT.
func miniMatch(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i, level := range f {
		switch {
		case level == "#":
			return true
		case i >= len(t), level != "+" && level != t[i]:
			return false
		}
	}
	return len(f) == len(t)
}

func TestMiniMatch(t *testing.T) {
	for _, tc := range []struct {
		filter, topic string
		want          bool
	}{
		{"a/b", "a/b", true},
		{"a/+", "a/b", true},
		{"a/+", "a/b/c", false},
		{"a/#", "a/b/c", true},
		{"a/#", "a", true},
		{"+/b", "a/b", true},
		{"a/b", "a", false},
		{"a", "a/b", false},
	} {
		if got := miniMatch(tc.filter, tc.topic); got != tc.want {
			t.Errorf("miniMatch(%q, %q) = %v", tc.filter, tc.topic, got)
		}
	}
}
