package bridge

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"syscall"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
)

// Limits of the built-in broker: enough for a house, and nothing in it grows without end.
const (
	brokerPacketBytes   = 1 << 20
	brokerClients       = 64
	brokerPending       = 1024 // messages waiting for one client
	brokerInflight      = 256  // of one client
	brokerSessionSecond = 3600 // how long a client that is away is remembered
	brokerRetained      = 20000
	brokerRetainedBytes = 64 << 20
)

var (
	// ErrPortInUse says that another program listens where the built-in broker should.
	ErrPortInUse = errors.New("bridge: the port is in use")
	// ErrOpenBroker says that the built-in broker would be open to everybody on the network.
	ErrOpenBroker = errors.New("bridge: the built-in broker may listen beyond this machine only with MQTT_USERNAME and MQTT_PASSWORD set")
)

// Broker is the built-in MQTT broker. It keeps retained messages in memory only.
type Broker struct {
	server *mochi.Server
	conns  *connListener
	once   sync.Once
	err    error
}

// StartBroker listens on listen (host:port, TCP) and serves until [Broker.Close]; ctx bounds the listening's start
// only, because at the end the bridge still has a farewell to send. Without username and password everybody on this
// machine may come in; listening beyond loopback demands both (ErrOpenBroker). A port that is taken is ErrPortInUse.
func StartBroker(ctx context.Context, listen, username, password string, log *slog.Logger) (*Broker, error) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, fmt.Errorf("bridge: MQTT_LISTEN %q is not host:port: %w", listen, err)
	}
	if (username == "") != (password == "") {
		return nil, errors.New("bridge: the built-in broker needs both MQTT_USERNAME and MQTT_PASSWORD, or neither")
	}
	if username == "" && !loopback(host) {
		return nil, fmt.Errorf("MQTT_LISTEN %s: %w", listen, ErrOpenBroker)
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", listen)
	if err != nil {
		if portInUse(err) {
			return nil, fmt.Errorf("%w: set MQTT_LISTEN to another, or MQTT_URL to the broker that is there: %w", ErrPortInUse, err)
		}
		return nil, fmt.Errorf("bridge: MQTT_LISTEN: %w", err)
	}
	if tcp, ok := listener.Addr().(*net.TCPAddr); ok && username == "" && !tcp.IP.IsLoopback() {
		listener.Close() // localhost, where it is something else
		return nil, fmt.Errorf("MQTT_LISTEN %s: %w", listen, ErrOpenBroker)
	}

	capabilities := mochi.NewDefaultServerCapabilities()
	capabilities.MaximumClients = brokerClients
	capabilities.MaximumClientWritesPending = brokerPending
	capabilities.MaximumInflight = brokerInflight
	capabilities.ReceiveMaximum = brokerInflight
	capabilities.MaximumPacketSize = brokerPacketBytes
	capabilities.MaximumSessionExpiryInterval = brokerSessionSecond
	capabilities.MaximumMessageExpiryInterval = 0 // else retained messages are gone after a day
	capabilities.TopicAliasMaximum = 64

	conns := &connListener{Listener: listener, open: map[net.Conn]struct{}{}}
	server := mochi.New(&mochi.Options{
		Capabilities:           capabilities,
		Logger:                 slog.New(debugHandler{log.Handler()}),
		SysTopicResendInterval: 60,
	})
	hook := &brokerHook{username: username, password: password, sizes: map[string]int{}}
	err = errors.Join(server.AddHook(hook, nil), server.AddListener(listeners.NewNet("tcp", conns)))
	if err == nil {
		err = server.Serve()
	}
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("bridge: built-in broker: %w", err)
	}
	return &Broker{server: server, conns: conns}, nil
}

// Addr is where the broker listens.
func (b *Broker) Addr() net.Addr { return b.conns.Addr() }

// URL is how to reach the broker from this machine.
func (b *Broker) URL() *url.URL {
	host, port, err := net.SplitHostPort(b.Addr().String())
	if ip, perr := netip.ParseAddr(host); err == nil && perr == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return &url.URL{Scheme: "mqtt", Host: net.JoinHostPort(host, port)}
}

// Close ends the broker and its connections.
func (b *Broker) Close() error {
	b.once.Do(func() {
		// The server waits for its connections, and ends those alone that have introduced themselves.
		b.conns.end()
		b.err = b.server.Close()
	})
	return b.err
}

// connListener knows the connections it accepted, and accepts so many at a time.
type connListener struct {
	net.Listener

	mu    sync.Mutex
	open  map[net.Conn]struct{}
	ended bool
}

// Accept closes at once what there is no room for.
func (l *connListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		l.mu.Lock()
		room := len(l.open) < 2*brokerClients && !l.ended
		if room {
			l.open[conn] = struct{}{}
		}
		l.mu.Unlock()
		if room {
			return &brokerConn{conn, l}, nil
		}
		conn.Close()
	}
}

func (l *connListener) end() {
	l.Listener.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	for conn := range l.open {
		conn.Close()
	}
}

type brokerConn struct {
	net.Conn
	listener *connListener
}

func (c *brokerConn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.open, c.Conn)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

// loopback says whether only this machine can reach a host.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

func portInUse(err error) bool {
	const windows = syscall.Errno(10048) // WSAEADDRINUSE
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, windows)
}

// brokerHook decides who comes in and what is kept.
type brokerHook struct {
	mochi.HookBase
	username, password string

	mu    sync.Mutex
	sizes map[string]int // bytes kept, by topic
	total int
}

func (h *brokerHook) ID() string { return "kmp2mqtt" }

func (h *brokerHook) Provides(b byte) bool {
	return bytes.IndexByte([]byte{mochi.OnConnectAuthenticate, mochi.OnACLCheck, mochi.OnPublish, mochi.OnRetainedExpired}, b) >= 0
}

func (h *brokerHook) OnConnectAuthenticate(_ *mochi.Client, pk packets.Packet) bool {
	if h.username == "" {
		return true
	}
	user := subtle.ConstantTimeCompare(pk.Connect.Username, []byte(h.username))
	pass := subtle.ConstantTimeCompare(pk.Connect.Password, []byte(h.password))
	return user&pass == 1
}

func (h *brokerHook) OnACLCheck(*mochi.Client, string, bool) bool { return true }

// OnPublish takes the retain flag from what there is no room for: it is delivered, not kept.
func (h *brokerHook) OnPublish(_ *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	if !pk.FixedHeader.Retain {
		return pk, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	old, known := h.sizes[pk.TopicName]
	size := len(pk.TopicName) + len(pk.Payload)
	switch {
	case len(pk.Payload) == 0:
		delete(h.sizes, pk.TopicName)
		h.total -= old
	case !known && len(h.sizes) >= brokerRetained, h.total-old+size > brokerRetainedBytes:
		pk.FixedHeader.Retain = false
	default:
		h.sizes[pk.TopicName] = size
		h.total += size - old
	}
	return pk, nil
}

func (h *brokerHook) OnRetainedExpired(topic string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.total -= h.sizes[topic]
	delete(h.sizes, topic)
}

// debugHandler makes every record one of level debug: the broker's own life is no news to an owner.
type debugHandler struct{ slog.Handler }

func (h debugHandler) Enabled(ctx context.Context, _ slog.Level) bool {
	return h.Handler.Enabled(ctx, slog.LevelDebug)
}

func (h debugHandler) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	r.Message = "built-in broker: " + r.Message
	return h.Handler.Handle(ctx, r)
}

func (h debugHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return debugHandler{h.Handler.WithAttrs(attrs)}
}

func (h debugHandler) WithGroup(name string) slog.Handler {
	return debugHandler{h.Handler.WithGroup(name)}
}
