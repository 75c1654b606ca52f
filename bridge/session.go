package bridge

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"
)

// The session's times. A half-open link is found after keepAlive + 5 s + pingTimeout.
const (
	connectTimeout = 10 * time.Second // stream and MQTT handshake, each
	writeTimeout   = 5 * time.Second
	keepAlive      = 30 * time.Second
	pingTimeout    = 10 * time.Second
	ackTimeout     = 20 * time.Second // PUBACK or SUBACK; a broker that only answers pings is left

	firstPause = time.Second // pauses between attempts: full jitter, limit doubled from here
	lastPause  = time.Minute // to here
	leastPause = 100 * time.Millisecond
	stableLife = 10 * time.Second // a connection that lived as long makes the pauses short again

	shortLife  = 5 * time.Second // three connections one straight after the other that lived no
	shortLives = 3               // longer are not an accident,
	longLife   = 2 * lastPause   // until one lives as long as this

	drainTime    = time.Second            // when stopping: for everything due
	farewellTime = 400 * time.Millisecond // then for the bridge's own offline alone
	quiesceTime  = 250 * time.Millisecond // then for the DISCONNECT
)

// maxShown is how much of a topic a log line shows.
const maxShown = 200

// The payloads of every availability topic.
const (
	payloadOnline  = "online"
	payloadOffline = "offline"
)

var (
	errNoAck     = errors.New("bridge: the broker acknowledges nothing")
	errNoBrokers = errors.New("bridge: no MQTT broker to connect to")
)

// MQTTConfig says which broker and who we are there. ParseConfig makes and checks it.
type MQTTConfig struct {
	URLs               []*url.URL // schemes mqtt, mqtts, ws, wss (tcp, ssl, tls); tried in order; a user in one overrides Username and Password
	Username, Password string
	ClientID           string // must be this instance's own
	Topic              string // base of all topics; empty: a guest, which has no state to tell
	HAPrefix           string
	CAFile             string // PEM; empty: the system's roots
	CertFile, KeyFile  string // PEM; read anew for each connection

	// Dial replaces the real stream in tests.
	Dial func(ctx context.Context, u *url.URL) (net.Conn, error)
}

// Session keeps one connection to a broker: it sends what is due in an [Outbox] and hands on what arrives. Every
// connection has a client of its own, without queue or memory: all that must survive an outage is in the outbox.
type Session struct {
	cfg        MQTTConfig
	box        *Outbox
	filters    []string
	onMessage  func(topic string, payload []byte, retained bool)
	onTooLarge func(topic string, size int)
	onConnect  func()
	log        *slog.Logger
	connected  atomic.Bool
	tried      atomic.Bool // all brokers were tried once, or one has connected

	// Of Run's goroutine alone: what the log has been told.
	began    time.Time       // when the outage began; zero: none
	said     map[string]bool // reasons of this outage
	refused  map[string]bool // filters that the broker did not grant
	short    int             // connections in a row that did not last
	reported uint64          // Dropped of the outbox

	large largeLog
}

// NewSession prepares a session; [Session.Run] starts it. It subscribes to the filters subscribe. onMessage gets
// what arrives, from any goroutine and in no certain order; retained tells an old message from one that was sent
// just now. onTooLarge is told of a message whose payload was not kept. onConnect is called on each connect, before
// anything is sent: what it puts into box is sent in its place among all that is due. None of them may block.
func NewSession(cfg MQTTConfig, box *Outbox, subscribe []string, onMessage func(topic string, payload []byte, retained bool),
	onTooLarge func(topic string, size int), onConnect func(), log *slog.Logger,
) *Session {
	return &Session{
		cfg: cfg, box: box, filters: subscribe, onMessage: onMessage, onTooLarge: onTooLarge, onConnect: onConnect, log: log,
		said: map[string]bool{}, refused: map[string]bool{},
	}
}

// Connected says whether the session has a broker just now.
func (s *Session) Connected() bool { return s.connected.Load() }

// Run connects, and connects again, until ctx ends. Then it sends what is still due, for a second at most, and
// `offline` on bridge/state as the last; it is back within two seconds even when the broker hangs, and returns nil.
func (s *Session) Run(ctx context.Context) error {
	if len(s.cfg.URLs) == 0 {
		return errNoBrokers
	}
	for failures := 0; ctx.Err() == nil; failures++ {
		for _, u := range s.cfg.URLs {
			lived, err := s.connection(ctx, u)
			if ctx.Err() != nil {
				return nil //nolint:nilerr // ended as asked: no failure
			}
			s.failed(u, lived, err)
			if lived >= stableLife && s.short < shortLives {
				failures = 0
			}
			if lived > 0 {
				break // the order of the brokers begins again
			}
		}
		s.tried.Store(true)
		pause := time.NewTimer(leastPause + rand.N(pauseLimit(failures)))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
	return nil
}

// pauseLimit is the longest pause after so many failures in a row.
func pauseLimit(failures int) time.Duration {
	return min(firstPause<<min(failures, 10), lastPause)
}

// connection is one connection from beginning to end. lived is how long it worked, 0 when it never did; err is why it
// did not or ended.
func (s *Session) connection(ctx context.Context, u *url.URL) (lived time.Duration, err error) {
	broker := normalBroker(u)
	conn, err := s.cfg.open(ctx, broker)
	if err != nil {
		return 0, err
	}
	lost := make(chan error, 1) // the first reason for which the connection is of no use any more
	var once sync.Once          // whoever took the first reason must not find one that only followed from it
	lose := func(err error) { once.Do(func() { lost <- cmp.Or(err, io.EOF) }) }
	guard := newGuardConn(conn, len(s.filters), s.tooLarge, lose)
	client := mqtt.NewClient(s.options(u, broker, guard, lose))
	clean := false
	defer func() {
		s.connected.Store(false)
		if !clean {
			conn.Close() // no DISCONNECT: the broker shall publish our will
		}
		client.Disconnect(uint(quiesceTime.Milliseconds()))
		conn.Close()
	}()

	connecting := client.Connect()
	select {
	case <-connecting.Done():
	case <-ctx.Done():
		conn.Close()
		<-connecting.Done()
		return 0, ctx.Err()
	}
	if err := connecting.Error(); err != nil {
		return 0, err
	}
	if err := s.subscribe(ctx, client, lost); err != nil {
		return 0, firstReason(lost, err)
	}

	s.restored(u)
	start := time.Now()
	s.connected.Store(true)
	s.tried.Store(true)
	if !s.guest() {
		if err := s.box.Put(s.bridgeState(payloadOnline, RankAvailability)); err != nil {
			return 0, err
		}
	}
	s.onConnect()
	sending := newSender(client, s.box)
	defer sending.stop()

	settled := time.NewTimer(longLife)
	defer settled.Stop()
	minute := time.NewTicker(time.Minute)
	defer minute.Stop()
	for {
		select {
		case err := <-lost:
			return max(time.Since(start), 1), err
		case err := <-sending.failed:
			return max(time.Since(start), 1), firstReason(lost, err)
		case <-settled.C:
			s.settled(u)
		case <-minute.C:
			s.tellDropped() // somebody may send more than the broker takes
		case <-ctx.Done():
			clean = s.farewell(sending, lost)
			return time.Since(start), ctx.Err()
		}
	}
}

// firstReason is why the connection was lost, if it was: err may only follow from it.
func firstReason(lost <-chan error, err error) error {
	select {
	case reason := <-lost:
		return reason
	default:
		return err
	}
}

func (s *Session) options(u, broker *url.URL, conn net.Conn, lose func(error)) *mqtt.ClientOptions {
	username, password := s.cfg.login(u)
	o := mqtt.NewClientOptions().
		AddBroker(broker.String()).
		SetClientID(s.cfg.ClientID).
		SetUsername(username).
		SetPassword(password).
		SetProtocolVersion(4).
		SetCleanSession(true).
		SetAutoReconnect(false).
		SetConnectRetry(false).
		SetOrderMatters(false).
		SetConnectTimeout(connectTimeout).
		SetWriteTimeout(writeTimeout).
		SetKeepAlive(keepAlive).
		SetPingTimeout(pingTimeout).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { s.receive(m) }).
		SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) { return conn, nil }).
		SetConnectionNotificationHandler(func(_ mqtt.Client, n mqtt.ConnectionNotification) {
			if n, ok := n.(mqtt.ConnectionNotificationLost); ok {
				lose(n.Reason)
			}
		})
	if !s.guest() {
		o.SetWill(s.stateTopic(), payloadOffline, 1, true)
	}
	return o
}

// guest says that the session is not the bridge's own.
func (s *Session) guest() bool { return s.cfg.Topic == "" }

func (s *Session) stateTopic() string { return s.cfg.Topic + "/bridge/state" }

func (s *Session) bridgeState(payload string, rank Rank) Message {
	return Message{Topic: s.stateTopic(), Payload: []byte(payload), Retain: true, Rank: rank}
}

// subscribe asks with QoS 0: with a clean session QoS 1 loses no less, and it would repeat commands.
func (s *Session) subscribe(ctx context.Context, client mqtt.Client, lost <-chan error) error {
	if len(s.filters) == 0 {
		return nil
	}
	filters := map[string]byte{}
	for _, filter := range s.filters {
		filters[filter] = 0
	}
	token := client.SubscribeMultiple(filters, nil)
	timeout := time.NewTimer(ackTimeout)
	defer timeout.Stop()
	select {
	case <-token.Done():
	case err := <-lost:
		return err
	case <-timeout.C:
		return errNoAck
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := token.Error(); err != nil {
		return err
	}
	for filter, code := range token.(*mqtt.SubscribeToken).Result() {
		switch {
		case code != 0x80:
			delete(s.refused, filter)
		case !s.refused[filter]:
			s.refused[filter] = true
			s.log.Warn("MQTT broker refuses a subscription; messages to it will not be heard",
				"filter", filter, "advice", "let this user read the topic in the broker's access list")
		}
	}
	return nil
}

func (s *Session) receive(m mqtt.Message) {
	if len(m.Payload()) > maxCommandBytes {
		s.tooLarge(m.Topic(), len(m.Payload()), m.Retained())
		return
	}
	s.onMessage(m.Topic(), m.Payload(), m.Retained())
}

// tooLarge logs a dropped message: one line a minute, whoever sends them. Who has sent it just now gets an answer.
func (s *Session) tooLarge(topic string, size int, retained bool) {
	if !retained {
		s.onTooLarge(topic, size)
	}
	s.log.Log(context.Background(), s.large.level(), "MQTT message dropped, it is too large",
		"topic", clipTo(topic, maxShown), "bytes", size, "limit", maxCommandBytes)
}

// largeLog says how loudly the next one is logged.
type largeLog struct {
	mu   sync.Mutex
	last time.Time
}

func (l *largeLog) level() slog.Level {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); l.last.IsZero() || now.Sub(l.last) >= time.Minute {
		l.last = now
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// farewell sends what is due and `offline` after it; false when the broker did not take that.
func (s *Session) farewell(sending *sender, lost <-chan error) bool {
	if !s.guest() {
		if err := s.box.Put(s.bridgeState(payloadOffline, rankFarewell)); err != nil {
			return false
		}
	}
	timer := time.NewTimer(drainTime)
	defer timer.Stop()
	hurried := false
	for {
		select {
		case <-sending.idle:
			if s.guest() && s.box.Len() == 0 || s.box.delivered(s.stateTopic()) {
				return true
			}
		case <-lost: //nolint:errcheck // why it was lost no longer matters
			return false
		case <-sending.failed: //nolint:errcheck // likewise
			return false
		case <-timer.C:
			if hurried {
				return false
			}
			hurried = true
			s.box.hurry()
			timer.Reset(farewellTime)
		}
	}
}

// sender carries messages from the outbox to one client.
type sender struct {
	client mqtt.Client
	box    *Outbox
	epoch  uint64
	failed chan error    // at most one: why it gave up
	idle   chan struct{} // a token whenever there is nothing to take
	done   chan struct{} // closed by stop
}

func newSender(client mqtt.Client, box *Outbox) *sender {
	s := &sender{
		client: client, box: box, epoch: box.begin(),
		failed: make(chan error, 1), idle: make(chan struct{}, 1), done: make(chan struct{}),
	}
	go s.run()
	return s
}

// run is the only one that publishes, so messages leave in the order in which they were taken.
func (s *sender) run() {
	defer s.box.signal() // a token taken too late belongs to the next sender
	for {
		taken, ok := s.box.take(s.epoch)
		if ok {
			token := s.client.Publish(taken.msg.Topic, 1, taken.msg.Retain, taken.msg.Payload)
			go s.await(token, taken)
			select {
			case <-s.done:
				return
			default:
			}
			continue
		}
		select {
		case s.idle <- struct{}{}:
		default:
		}
		select {
		case <-s.box.wake:
		case <-s.done:
			return
		}
	}
}

// await waits for one acknowledgement. There are never more of them than the window is wide.
func (s *sender) await(token mqtt.Token, taken outTaken) {
	timeout := time.NewTimer(ackTimeout)
	defer timeout.Stop()
	err := errNoAck
	select {
	case <-token.Done():
		err = token.Error()
	case <-timeout.C:
	case <-s.done:
		return
	}
	if err == nil {
		s.box.acknowledge(taken)
		return
	}
	select {
	case s.failed <- err:
	default:
	}
}

func (s *sender) stop() { close(s.done) }

// failed tells the log of an attempt that failed or a connection that ended: once for each reason of an outage.
func (s *Session) failed(u *url.URL, lived time.Duration, err error) {
	username, _ := s.cfg.login(u)
	reason, advice := explain(err, username, s.cfg)
	broker := redactURL(u.String())
	if s.began.IsZero() {
		s.began = time.Now()
	}
	level := slog.LevelWarn
	if lived > 0 {
		advice = ""
		if lived <= shortLife {
			s.short++
		} else if s.short < shortLives {
			s.short = 0
		}
		// That a broker which has just gone does not answer is no news.
		for _, known := range []string{reasonRefused, reasonTimeout, reasonClosed, reasonUnreachable} {
			s.said[broker+known] = true
		}
	} else {
		if s.said[broker+reason] {
			level = slog.LevelDebug
		}
		if s.short < shortLives {
			s.short = 0 // the broker itself is away: nobody throws us out
		}
	}
	s.said[broker+reason] = true
	if lived > 0 && s.short >= shortLives {
		level = slog.LevelDebug
	}
	attrs := []any{"broker", broker, "reason", reason}
	if advice != "" {
		attrs = append(attrs, "advice", advice)
	}
	attrs = append(attrs, "error", err)
	if lived > 0 {
		s.log.Log(context.Background(), level, "MQTT connection lost, connecting again", attrs...)
	} else {
		s.log.Log(context.Background(), level, "MQTT broker cannot be reached", attrs...)
	}
	if lived > 0 && lived <= shortLife && s.short == shortLives {
		attrs := []any{
			"broker", broker, "client_id", s.cfg.ClientID,
			"advice", "another program may use this client id: set MQTT_CLIENT_ID; or the broker refuses a message: see its log",
		}
		if m, ok := s.box.oldest(); ok {
			attrs = append(attrs, "unacknowledged_topic", clipTo(m.Topic, maxShown), "bytes", len(m.Payload))
		}
		s.log.Warn("MQTT connections end again and again right after they begin", attrs...)
	}
}

// restored tells the log that there is a connection.
func (s *Session) restored(u *url.URL) {
	level := slog.LevelInfo
	if s.short >= shortLives {
		level = slog.LevelDebug
	}
	attrs := []any{"broker", redactURL(u.String()), "client_id", s.cfg.ClientID}
	if !s.began.IsZero() {
		attrs = append(attrs, "outage", time.Since(s.began).Round(time.Millisecond))
	}
	s.log.Log(context.Background(), level, "MQTT connected", attrs...)
	s.began = time.Time{}
	clear(s.said)
	s.tellDropped()
}

// tellDropped tells the log of messages that were dropped since it was told last.
func (s *Session) tellDropped() {
	if dropped := s.box.Stats().Dropped; dropped != s.reported {
		s.log.Warn("MQTT messages dropped, too many waited for the broker: the oldest events and answers", "count", dropped-s.reported)
		s.reported = dropped
	}
}

// settled tells the log that a connection lasts, when it has been told that they do not.
func (s *Session) settled(u *url.URL) {
	if s.short >= shortLives {
		s.log.Info("MQTT connection lasts again", "broker", redactURL(u.String()), "client_id", s.cfg.ClientID)
	}
	s.short = 0
}

// Reasons of a failure that have the same cause, a broker that is gone.
const (
	reasonRefused     = "connection refused"
	reasonTimeout     = "no answer"
	reasonClosed      = "connection closed by the broker"
	reasonUnreachable = "host unreachable"
)

// explain says in a few words why a connection failed, and what to do about it.
func explain(err error, username string, cfg MQTTConfig) (reason, advice string) {
	var (
		setting  *settingError
		dns      *net.DNSError
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		record   tls.RecordHeaderError
		timeout  net.Error
	)
	switch {
	case errors.As(err, &setting):
		return "bad " + setting.setting, "correct " + setting.setting
	case errors.Is(err, packets.ErrorRefusedNotAuthorised), errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword):
		if username == "" {
			return "not authorised", "the broker wants a login: set MQTT_USERNAME and MQTT_PASSWORD"
		}
		return "not authorised", "check MQTT_USERNAME and MQTT_PASSWORD, and whether the broker knows this user"
	case errors.Is(err, packets.ErrorRefusedIDRejected):
		return "client id rejected", "set MQTT_CLIENT_ID to one that the broker accepts"
	case errors.Is(err, packets.ErrorRefusedBadProtocolVersion):
		return "protocol version refused", "the broker must speak MQTT 3.1.1"
	case errors.Is(err, packets.ErrorRefusedServerUnavailable):
		return "broker says it is unavailable", "see the broker's log"
	case errors.As(err, &unknown):
		return "unknown certificate authority", "set MQTT_CA_FILE to the certificate of the authority that signed the broker's"
	case errors.As(err, &hostname):
		return "certificate is for another host", "use one of the certificate's names in MQTT_URL"
	case errors.As(err, &invalid):
		return "certificate invalid", "renew the broker's certificate, and check this machine's clock"
	case errors.As(err, &record):
		return "no TLS there", "the port does not speak TLS: use mqtt:// (ws://), or the broker's TLS port, often 8883"
	case tlsAlert(err, "certificate required"), cfg.CertFile == "" && tlsAlert(err, "bad certificate", "handshake failure"):
		return "client certificate required", "set MQTT_CERT_FILE and MQTT_KEY_FILE"
	case tlsAlert(err, ""):
		return "TLS refused by the broker", "check MQTT_CERT_FILE: the broker must know the authority that signed it"
	case errors.Is(err, websocket.ErrBadHandshake):
		return "no websocket there", "check the path in MQTT_URL (often /mqtt) and the port"
	case errors.Is(err, errNotBroker):
		return "not an MQTT broker", "check the port in MQTT_URL; with TLS it is mqtts://, often port 8883"
	case errors.Is(err, errBadPacket):
		return "broken MQTT", "the broker sends what MQTT 3.1.1 does not allow: see its version and log"
	case errors.As(err, &dns) && dns.IsNotFound:
		return "unknown host", "check the host name in MQTT_URL"
	case errors.Is(err, syscall.ECONNREFUSED):
		return reasonRefused, "nothing listens there: is the broker running, are host and port in MQTT_URL right?"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return reasonUnreachable, "check the network and the host in MQTT_URL"
	case errors.Is(err, errNoAck):
		return "no acknowledgements", "the broker hangs: see its log"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout(), err != nil && strings.Contains(err.Error(), "pingresp not received"):
		return reasonTimeout, "check host, port and firewall; a TLS port needs mqtts://"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, io.ErrClosedPipe), errors.Is(err, net.ErrClosed):
		return reasonClosed, "see the broker's log; a TLS port needs mqtts:// and perhaps a client certificate, any other mqtt://"
	}
	return "it failed", "see the error"
}

// tlsAlert says whether the broker ended the TLS connection with one of these alerts ("" is any). The standard
// library has no type for them outside QUIC.
func tlsAlert(err error, alerts ...string) bool {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return false
	}
	for _, alert := range alerts {
		if strings.Contains(op.Err.Error(), alert) {
			return true
		}
	}
	return false
}
