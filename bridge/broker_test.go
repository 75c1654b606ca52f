package bridge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"
	mochi "github.com/mochi-mqtt/server/v2"
	mochipackets "github.com/mochi-mqtt/server/v2/packets"
)

const patience = 20 * time.Second // for what must come; nothing waits for it to pass

func startBroker(t *testing.T, listen, username, password string) *Broker {
	t.Helper()
	b, err := StartBroker(t.Context(), listen, username, password, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// listenAt is somebody else at a real broker.
func listenAt(t *testing.T, u *url.URL, username, password string, filters ...string) (mqtt.Client, <-chan received) {
	t.Helper()
	got := make(chan received, 100)
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(u.String()).SetProtocolVersion(4).SetClientID("listener").
		SetUsername(username).SetPassword(password).SetAutoReconnect(false).SetOrderMatters(true))
	for _, start := range []func() mqtt.Token{
		client.Connect,
		func() mqtt.Token {
			qos := map[string]byte{}
			for _, filter := range filters {
				qos[filter] = 1
			}
			return client.SubscribeMultiple(qos, func(_ mqtt.Client, m mqtt.Message) {
				if !m.Retained() { // one that comes while the broker still sends the retained ones may come twice
					got <- received{m.Topic(), string(m.Payload()), false}
				}
			})
		},
	} {
		if token := start(); !token.WaitTimeout(patience) || token.Error() != nil {
			t.Fatalf("listener: %v", token.Error())
		}
	}
	t.Cleanup(func() { client.Disconnect(100) })
	return client, got
}

func next[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// From the outbox over a real socket and the built-in broker to a listener, and back.
func TestBrokerRoundTrip(t *testing.T) {
	for _, login := range [][2]string{{"", ""}, {"kmp", "s3cret"}} {
		b := startBroker(t, "127.0.0.1:0", login[0], login[1])
		client, got := listenAt(t, b.URL(), login[0], login[1],
			"k/bridge/state", "k/house", "k/house/get", "k/house/availability")
		expect := func(want ...string) {
			t.Helper()
			for _, want := range want {
				if m := next(t, got); m.topic+"="+m.payload != want {
					t.Errorf("got %+v, want %s", m, want)
				}
			}
		}

		box := NewOutbox()
		putAll(t, box, retainedMsg("k/house", `{"energy_gj":227.445}`, RankState))
		heard := make(chan received, 10)
		s := NewSession(MQTTConfig{URLs: []*url.URL{b.URL()}, ClientID: "me", Topic: "k", Username: login[0], Password: login[1]},
			box, []string{"k/+/get"},
			func(topic string, payload []byte, retained bool) { heard <- received{topic, string(payload), retained} },
			func(string, int) {}, func() {}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()

		expect("k/bridge/state=online", `k/house={"energy_gj":227.445}`)
		client.Publish("k/house/get", 1, false, "now")
		if m := next(t, heard); m != (received{"k/house/get", "now", false}) {
			t.Errorf("heard %+v", m)
		}
		expect("k/house/get=now")
		putAll(t, box, retainedMsg("k/house/availability", "offline", RankAvailability))
		cancel()
		if err := next(t, done); err != nil {
			t.Error(err)
		}
		expect("k/house/availability=offline", "k/bridge/state=offline")
	}
}

func TestBrokerWantsALogin(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0", "kmp", "s3cret")
	for _, login := range [][2]string{{"", ""}, {"kmp", "wrong"}, {"other", "s3cret"}, {"kmp", ""}} {
		reason, advice := attempt(t, MQTTConfig{Username: login[0], Password: login[1]}, b.URL())
		if reason != "not authorised" || !strings.Contains(advice, "MQTT_PASSWORD") {
			t.Errorf("%q: %s, %s", login, reason, advice)
		}
	}
}

func TestBrokerRefusesToBeOpen(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for _, listen := range []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.invalid:0"} {
		b, err := StartBroker(t.Context(), listen, "", "", log)
		if !errors.Is(err, ErrOpenBroker) || b != nil {
			t.Errorf("%s: %v", listen, err)
		} else if !strings.Contains(err.Error(), "MQTT_USERNAME and MQTT_PASSWORD") || !strings.Contains(err.Error(), "MQTT_LISTEN") {
			t.Errorf("%s: unclear: %v", listen, err)
		}
	}
	if b := startBroker(t, "0.0.0.0:0", "kmp", "s3cret"); b.URL().Hostname() != "127.0.0.1" || b.URL().Port() == "0" {
		t.Errorf("URL %s", b.URL())
	}
	startBroker(t, "localhost:0", "", "")
	if _, err := StartBroker(t.Context(), "127.0.0.1:0", "kmp", "", log); err == nil || !strings.Contains(err.Error(), "MQTT_PASSWORD") {
		t.Errorf("half a login: %v", err)
	}
	if _, err := StartBroker(t.Context(), "1883", "", "", log); err == nil || !strings.Contains(err.Error(), "MQTT_LISTEN") {
		t.Errorf("no host: %v", err)
	}
}

func TestBrokerPortInUse(t *testing.T) {
	first := startBroker(t, "127.0.0.1:0", "", "")
	_, err := StartBroker(t.Context(), first.Addr().String(), "", "", slog.New(slog.DiscardHandler))
	if !errors.Is(err, ErrPortInUse) || !strings.Contains(err.Error(), "MQTT_LISTEN") {
		t.Errorf("%v", err)
	}
}

// A connection that says nothing does not hold up the end.
func TestBrokerCloses(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0", "", "")
	silent, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	listenAt(t, b.URL(), "", "", "#")
	closed := make(chan error, 2)
	go func() { closed <- b.Close(); closed <- b.Close() }()
	for range 2 {
		if err := next(t, closed); err != nil {
			t.Error(err)
		}
	}
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("the silent connection lives")
	}
}

// What is kept is bounded by number and by bytes; a topic that is cleared makes room.
func TestBrokerRetainsSoMuch(t *testing.T) {
	h := &brokerHook{sizes: map[string]int{}}
	publish := func(topic string, size int) bool {
		pk, err := h.OnPublish(nil, mochipackets.Packet{
			FixedHeader: mochipackets.FixedHeader{Retain: true}, TopicName: topic, Payload: make([]byte, size),
		})
		if err != nil {
			t.Fatal(err)
		}
		return pk.FixedHeader.Retain
	}
	for i := range brokerRetained {
		if !publish(fmt.Sprint("t", i), 1) {
			t.Fatalf("no room for topic %d", i)
		}
	}
	if publish("one more", 1) || !publish("t0", 2) {
		t.Error("number of topics")
	}
	publish("t1", 0)
	if !publish("one more", 1) {
		t.Error("a cleared topic made no room")
	}
	h.OnRetainedExpired("t2")
	if !publish("another", 1) {
		t.Error("an expired topic made no room")
	}
	if publish("t3", brokerRetainedBytes) || !publish("t3", 3) {
		t.Error("number of bytes")
	}
	if pk, err := h.OnPublish(nil, mochipackets.Packet{TopicName: "x"}); err != nil || pk.FixedHeader.Retain || len(h.sizes) != brokerRetained {
		t.Error("a message that is not retained counted")
	}
	for b := range byte(100) {
		want := b == mochi.OnConnectAuthenticate || b == mochi.OnACLCheck || b == mochi.OnPublish || b == mochi.OnRetainedExpired
		if h.Provides(b) != want {
			t.Errorf("Provides(%d)", b)
		}
	}
}

// The broker's own words are for debugging only.
func TestBrokerIsQuiet(t *testing.T) {
	for level, want := range map[slog.Level]bool{slog.LevelInfo: false, slog.LevelDebug: true} {
		var logs logBuffer
		b, err := StartBroker(t.Context(), "127.0.0.1:0", "", "", logs.logger(level))
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		lines := logs.lines("")
		if (len(lines) > 0) != want || len(lines) != len(logs.lines("level=DEBUG")) {
			t.Errorf("%v: %q", level, lines)
		}
	}
}

// attempt is one connection, and what the log would say about its failure; "" when it works.
func attempt(t *testing.T, cfg MQTTConfig, u *url.URL) (reason, advice string) {
	t.Helper()
	cfg.Topic, cfg.ClientID = "k", "me"
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s := NewSession(cfg, NewOutbox(), []string{"k/+/get"}, func(string, []byte, bool) {}, func(string, int) {}, cancel, slog.New(slog.DiscardHandler))
	lived, err := s.connection(ctx, u)
	if lived > 0 && errors.Is(err, context.Canceled) {
		return "", ""
	}
	username, _ := cfg.login(u)
	return explain(err, username, cfg)
}

// authority makes certificates.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	_, a.file, _ = a.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

// issue signs a certificate, the first one with its own key, and writes it beside its key.
func (a *authority) issue(template *x509.Certificate) (pair tls.Certificate, certFile, keyFile string) {
	a.t.Helper()
	must := func(err error) {
		a.t.Helper()
		if err != nil {
			a.t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<60))
	must(err)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	template.NotBefore = time.Now().Add(-2 * time.Hour)
	if a.cert == nil {
		a.cert, a.key = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	must(err)
	cert, err := x509.ParseCertificate(der)
	must(err)
	if template.IsCA {
		a.cert = cert
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	certFile = filepath.Join(a.dir, template.SerialNumber.String()+".crt")
	keyFile = filepath.Join(a.dir, template.SerialNumber.String()+".key")
	must(os.WriteFile(certFile, certPEM, 0o600))
	must(os.WriteFile(keyFile, keyPEM, 0o600))
	pair, err = tls.X509KeyPair(certPEM, keyPEM)
	must(err)
	return pair, certFile, keyFile
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a *authority) server(names ...string) tls.Certificate {
	pair, _, _ := a.issue(&x509.Certificate{
		DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return pair
}

// serveMini puts a mini broker behind a real listener.
func serveMini(t *testing.T, conf *tls.Config) string {
	t.Helper()
	b := newMiniBroker(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if conf != nil {
		listener = tls.NewListener(listener, conf)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			b.accept(conn)
		}
	}()
	return listener.Addr().String()
}

func TestSessionTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	server := ca.server("localhost")
	plain := serveMini(t, nil)
	open := serveMini(t, &tls.Config{Certificates: []tls.Certificate{server}})
	strict := serveMini(t, &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool()})
	strict12 := serveMini(t, &tls.Config{
		Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool(), MaxVersion: tls.VersionTLS12,
	})
	foreign, _, _ := ca.issue(&x509.Certificate{DNSNames: []string{"elsewhere.invalid"}})
	wrongName := serveMini(t, &tls.Config{Certificates: []tls.Certificate{foreign}})
	expired, _, _ := ca.issue(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(-time.Hour)})
	old := serveMini(t, &tls.Config{Certificates: []tls.Certificate{expired}})
	_, cert, key := ca.issue(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	_, strangeCert, strangeKey := other.issue(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})

	trust := MQTTConfig{CAFile: ca.file}
	mutual := MQTTConfig{CAFile: ca.file, CertFile: cert, KeyFile: key}
	for name, tc := range map[string]struct {
		cfg            MQTTConfig
		url            string
		reason, advice string // reasons, | between them: what arrives first decides
	}{
		"plain":              {MQTTConfig{}, "mqtt://" + plain, "", ""},
		"TLS":                {trust, "mqtts://" + open, "", ""},
		"TLS by name":        {trust, "ssl://localhost:" + open[strings.LastIndexByte(open, ':')+1:], "", ""},
		"client certificate": {mutual, "mqtts://" + strict, "", ""},
		"the same, TLS 1.2":  {mutual, "mqtts://" + strict12, "", ""},
		"unknown CA":         {MQTTConfig{}, "mqtts://" + open, "unknown certificate authority", "MQTT_CA_FILE"},
		"other CA":           {MQTTConfig{CAFile: other.file}, "mqtts://" + open, "unknown certificate authority", "MQTT_CA_FILE"},
		"wrong name":         {trust, "mqtts://" + wrongName, "certificate is for another host", "MQTT_URL"},
		"expired":            {trust, "mqtts://" + old, "certificate invalid", "clock"},
		"no certificate":     {trust, "mqtts://" + strict, "client certificate required|" + reasonClosed, "certificate|MQTT_CERT_FILE"},
		"none, TLS 1.2":      {trust, "mqtts://" + strict12, "client certificate required|" + reasonClosed, "certificate|MQTT_CERT_FILE"},
		"strange certificate": {
			MQTTConfig{CAFile: ca.file, CertFile: strangeCert, KeyFile: strangeKey},
			"mqtts://" + strict,
			"TLS refused by the broker|" + reasonClosed, "certificate|MQTT_CERT_FILE",
		},
		"TLS to a plain port": {trust, "mqtts://" + plainServer(t, "220 hello\r\n"), "no TLS there", "mqtt://"},
		"plain to a TLS port": {MQTTConfig{}, "mqtt://" + open, "not an MQTT broker|" + reasonClosed, "mqtts://"},
		"nobody listens":      {MQTTConfig{}, "mqtt://" + freePort(t), reasonRefused, "MQTT_URL"},
		"no CA file":          {MQTTConfig{CAFile: "/nowhere/ca.crt"}, "mqtts://" + open, "bad MQTT_CA_FILE", "MQTT_CA_FILE"},
		"CA file is a key":    {MQTTConfig{CAFile: key}, "mqtts://" + open, "bad MQTT_CA_FILE", "MQTT_CA_FILE"},
		"no key file":         {MQTTConfig{CertFile: cert, KeyFile: "/nowhere/key"}, "mqtts://" + open, "bad MQTT_CERT_FILE", "MQTT_CERT_FILE"},
		"unknown scheme":      {MQTTConfig{}, "gopher://" + plain, "bad MQTT_URL", "MQTT_URL"},
	} {
		t.Run(name, func(t *testing.T) {
			reason, advice := attempt(t, tc.cfg, brokerURLs(tc.url)[0])
			if !strings.Contains("|"+tc.reason+"|", "|"+reason+"|") {
				t.Errorf("%q (%s), want %q", reason, advice, tc.reason)
			}
			if !containsAny(advice, tc.advice) {
				t.Errorf("advice %q, want %q", advice, tc.advice)
			}
		})
	}
}

func containsAny(s, words string) bool {
	for word := range strings.SplitSeq(words, "|") {
		if strings.Contains(s, word) {
			return true
		}
	}
	return false
}

// plainServer answers whatever it hears.
func plainServer(t *testing.T, answer string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = conn.Read(make([]byte, 1))
				_, _ = io.WriteString(conn, answer)
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	return listener.Addr().String()
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// A renewed client certificate counts from the next connection on.
func TestSessionRenewedCertificate(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	address := serveMini(t, &tls.Config{
		Certificates: []tls.Certificate{ca.server()}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool(),
	})
	_, badCert, badKey := other.issue(&x509.Certificate{})
	_, cert, key := ca.issue(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	cfg := MQTTConfig{CAFile: ca.file, CertFile: badCert, KeyFile: badKey}
	if reason, _ := attempt(t, cfg, brokerURLs("mqtts://" + address)[0]); reason == "" {
		t.Fatal("a strange certificate was accepted")
	}
	if err := errors.Join(os.Rename(cert, badCert), os.Rename(key, badKey)); err != nil {
		t.Fatal(err)
	}
	if reason, _ := attempt(t, cfg, brokerURLs("mqtts://" + address)[0]); reason != "" {
		t.Errorf("the renewed one was not: %s", reason)
	}
}

func TestSessionWebsocket(t *testing.T) {
	b := newMiniBroker(t)
	upgrader := websocket.Upgrader{Subprotocols: []string{"mqtt"}}
	mux := http.NewServeMux()
	mux.HandleFunc("/mqtt", func(w http.ResponseWriter, r *http.Request) {
		ws, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		if ws.Subprotocol() != "mqtt" {
			ws.Close()
			return
		}
		b.accept(&webConn{Conn: ws})
	})
	mux.HandleFunc("/text", func(w http.ResponseWriter, r *http.Request) {
		ws, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		_ = ws.WriteMessage(websocket.TextMessage, []byte("hello"))
	})
	plain := httptest.NewServer(mux)
	defer plain.Close()
	ca := newAuthority(t)
	secure := httptest.NewUnstartedServer(mux)
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{ca.server()}}
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	secure.StartTLS()
	defer secure.Close()

	for name, tc := range map[string]struct {
		url, reason string
		cfg         MQTTConfig
	}{
		"ws":         {"ws://" + plain.Listener.Addr().String() + "/mqtt", "", MQTTConfig{}},
		"user":       {"ws://a:b@" + plain.Listener.Addr().String() + "/mqtt", "", MQTTConfig{}},
		"wss":        {"wss://" + secure.Listener.Addr().String() + "/mqtt", "", MQTTConfig{CAFile: ca.file}},
		"unknown CA": {"wss://" + secure.Listener.Addr().String() + "/mqtt", "unknown certificate authority", MQTTConfig{}},
		"bad file":   {"wss://" + secure.Listener.Addr().String() + "/mqtt", "bad MQTT_CA_FILE", MQTTConfig{CAFile: "/nowhere"}},
		"wrong path": {"ws://" + plain.Listener.Addr().String() + "/", "no websocket there", MQTTConfig{}},
		"text":       {"ws://" + plain.Listener.Addr().String() + "/text", "not an MQTT broker", MQTTConfig{}},
	} {
		t.Run(name, func(t *testing.T) {
			if reason, advice := attempt(t, tc.cfg, brokerURLs(tc.url)[0]); reason != tc.reason {
				t.Errorf("%q (%s), want %q", reason, advice, tc.reason)
			}
		})
	}
	if got := b.retained()["k/bridge/state"]; got != payloadOffline {
		t.Errorf("bridge/state %q", got)
	}
}

// What cannot be brought about here.
func TestExplain(t *testing.T) {
	for _, tc := range []struct {
		err            error
		reason, advice string
	}{
		{&net.DNSError{Err: "no such host", Name: "brokr", IsNotFound: true}, "unknown host", "MQTT_URL"},
		{&net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, reasonUnreachable, "MQTT_URL"},
		{&net.OpError{Op: "dial", Err: syscall.ENETUNREACH}, reasonUnreachable, "MQTT_URL"},
		{context.DeadlineExceeded, reasonTimeout, "port"},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, reasonTimeout, "port"},
		{packets.ErrorRefusedIDRejected, "client id rejected", "MQTT_CLIENT_ID"},
		{packets.ErrorRefusedBadProtocolVersion, "protocol version refused", "3.1.1"},
		{packets.ErrorRefusedNotAuthorised, "not authorised", "set MQTT_USERNAME"},
		{syscall.ECONNRESET, reasonClosed, "log"},
		{errNoAck, "no acknowledgements", "log"},
		{errors.New("odd"), "it failed", "error"},
	} {
		reason, advice := explain(fmt.Errorf("around: %w", tc.err), "", MQTTConfig{})
		if reason != tc.reason || !strings.Contains(advice, tc.advice) {
			t.Errorf("%v: %q, %q", tc.err, reason, advice)
		}
	}
}
