package bridge

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
)

// maxCommandBytes is the largest payload that is taken from a broker. What we subscribe to is small JSON.
const maxCommandBytes = 64 << 10

// Kinds of packets that a broker may send (MQTT 3.1.1 section 2.2.1).
const (
	packetConnack  = 2
	packetPublish  = 3
	packetPuback   = 4
	packetPubrec   = 5
	packetPubrel   = 6
	packetPubcomp  = 7
	packetSuback   = 9
	packetUnsuback = 11
	packetPingresp = 13
)

var (
	errNotBroker  = errors.New("bridge: what answers does not speak MQTT")
	errBadPacket  = errors.New("bridge: the broker sent a packet that MQTT does not know")
	errRootsEmpty = errors.New("no certificate in it")
)

// settingError is a connection that fails for one of the settings.
type settingError struct {
	setting string // its name
	err     error
}

func (e *settingError) Error() string { return "bridge: " + e.setting + ": " + e.err.Error() }
func (e *settingError) Unwrap() error { return e.err }

// normalBroker is the URL with one of the schemes mqtt, mqtts, ws, wss, a port, and no user.
func normalBroker(u *url.URL) *url.URL {
	n := &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	port := ""
	switch n.Scheme {
	case "mqtt", "tcp":
		n.Scheme, port = "mqtt", "1883"
	case "mqtts", "ssl", "tls":
		n.Scheme, port = "mqtts", "8883"
	case "ws":
		port = "80"
	case "wss":
		port = "443"
	}
	if n.Port() == "" {
		n.Host = net.JoinHostPort(n.Hostname(), port)
	}
	return n
}

// login is who to be at a broker: the URL's user if it names one.
func (c MQTTConfig) login(u *url.URL) (username, password string) {
	if u.User == nil {
		return c.Username, c.Password
	}
	password, _ = u.User.Password()
	return u.User.Username(), password
}

// open opens the byte stream to a broker; u is normal.
func (c MQTTConfig) open(ctx context.Context, u *url.URL) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if c.Dial != nil {
		return c.Dial(ctx, u)
	}
	switch u.Scheme {
	case "mqtt":
		return new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	case "mqtts":
		conf, err := c.tlsConfig(u.Hostname())
		if err != nil {
			return nil, err
		}
		conn, err := (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", u.Host)
		if err != nil {
			return nil, err
		}
		return tlsConn{conn}, nil
	case "ws", "wss":
		dialer := websocket.Dialer{
			Proxy:            http.ProxyFromEnvironment,
			HandshakeTimeout: connectTimeout,
			Subprotocols:     []string{"mqtt"},
		}
		if u.Scheme == "wss" {
			conf, err := c.tlsConfig(u.Hostname())
			if err != nil {
				return nil, err
			}
			dialer.TLSClientConfig = conf
		}
		ws, resp, err := dialer.DialContext(ctx, u.String(), nil)
		if err != nil {
			if resp != nil {
				err = fmt.Errorf("%w: %s", err, resp.Status)
			}
			return nil, err
		}
		return &webConn{Conn: ws}, nil
	}
	return nil, &settingError{"MQTT_URL", fmt.Errorf("unknown scheme %q", u.Scheme)}
}

// tlsConfig reads the files anew, so that renewed certificates count from the next connection on.
func (c MQTTConfig) tlsConfig(host string) (*tls.Config, error) {
	conf := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err == nil {
			conf.RootCAs = x509.NewCertPool()
			if !conf.RootCAs.AppendCertsFromPEM(pem) {
				err = errRootsEmpty
			}
		}
		if err != nil {
			return nil, &settingError{"MQTT_CA_FILE", err}
		}
	}
	if c.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, &settingError{"MQTT_CERT_FILE", err}
		}
		conf.Certificates = []tls.Certificate{cert}
	}
	return conf, nil
}

// tlsConn finds out why the broker closed a TLS connection. Since TLS 1.3 the handshake is over for us before the broker
// has judged our certificate. On a slow machine its refusal is there, and the connection reset, before the first write.
type tlsConn struct{ net.Conn }

func (c tlsConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		// Such a connection makes nobody wait for what it still holds.
		if _, refusal := c.Read(make([]byte, 1)); tlsAlert(refusal, "") {
			err = refusal
		}
	}
	return n, err
}

// webConn is a websocket as a stream of bytes (MQTT 3.1.1 section 6: packets may lie across messages).
type webConn struct {
	*websocket.Conn
	message io.Reader  // what is left of the message being read
	writing sync.Mutex // a websocket takes one writer at a time
}

func (c *webConn) Read(p []byte) (int, error) {
	for {
		if c.message == nil {
			kind, r, err := c.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errNotBroker
			}
			c.message = r
		}
		n, err := c.message.Read(p)
		if errors.Is(err, io.EOF) {
			c.message = nil
			err = nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (c *webConn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *webConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// guardConn stands between the broker and the client library. It lets through what a broker may say, because the
// library allocates whatever length a packet announces and trusts what is in it; and it bounds every write, because
// the library does so for some only.
type guardConn struct {
	net.Conn
	in       *bufio.Reader
	filters  int // how many the SUBSCRIBE will have
	tooLarge func(topic string, size int, retained bool)
	broken   func(error) // called with every error before the library sees it: it does not report them all

	greeted bool   // the CONNACK has come
	head    []byte // checked bytes that Read has not handed out yet
	body    int    // bytes of the packet behind them
}

func newGuardConn(conn net.Conn, filters int, tooLarge func(topic string, size int, retained bool), broken func(error)) *guardConn {
	return &guardConn{Conn: conn, in: bufio.NewReader(conn), filters: filters, tooLarge: tooLarge, broken: broken}
}

func (g *guardConn) Write(p []byte) (int, error) {
	n := 0
	err := g.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err == nil {
		n, err = g.Conn.Write(p)
	}
	if err != nil {
		g.broken(err)
	}
	return n, err
}

func (g *guardConn) Read(p []byte) (int, error) {
	n, err := g.read(p)
	if err != nil {
		g.broken(err)
	}
	return n, err
}

func (g *guardConn) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(g.head) == 0 && g.body == 0 {
		if err := g.next(); err != nil {
			return 0, err
		}
	}
	if len(g.head) > 0 {
		n := copy(p, g.head)
		g.head = g.head[n:]
		return n, nil
	}
	n, err := g.in.Read(p[:min(len(p), g.body)])
	g.body -= n
	return n, err
}

// next reads the fixed header of the next packet and judges it.
func (g *guardConn) next() error {
	first, err := g.in.ReadByte()
	if err != nil {
		return err
	}
	if !g.greeted {
		return g.greeting(first)
	}
	head := []byte{first}
	size := 0
	for shift := 0; ; shift += 7 {
		b, err := g.in.ReadByte()
		if err != nil {
			return unexpected(err)
		}
		head = append(head, b)
		size |= int(b&0x7F) << shift
		if b < 0x80 {
			break
		}
		if len(head) == 5 {
			return fmt.Errorf("%w: endless length", errBadPacket)
		}
	}
	ok := false
	switch kind := first >> 4; kind {
	case packetPublish:
		if size > maxCommandBytes+2+maxTopicBytes {
			return g.skip(size, first&0x01 != 0)
		}
		topic, err := g.in.Peek(2)
		if err != nil {
			return unexpected(err)
		}
		least := 2 + int(binary.BigEndian.Uint16(topic))
		if first&0x06 != 0 {
			least += 2 // the packet's identifier
		}
		ok = size >= least && first&0x06 != 0x06
	case packetPuback, packetPubrec, packetPubrel, packetPubcomp, packetUnsuback:
		ok = size == 2
	case packetSuback:
		ok = size == 2+g.filters
	case packetPingresp:
		ok = size == 0
	}
	if !ok {
		return fmt.Errorf("%w: first byte %#02x, length %d", errBadPacket, first, size)
	}
	g.head, g.body = head, size
	return nil
}

// greeting judges the first packet: a CONNACK with a return code that exists.
func (g *guardConn) greeting(first byte) error {
	head := []byte{first, 0, 0, 0}
	if first != packetConnack<<4 {
		return fmt.Errorf("%w: first byte %#02x", errNotBroker, first)
	}
	if _, err := io.ReadFull(g.in, head[1:]); err != nil {
		return unexpected(err)
	}
	if head[1] != 2 || head[3] > 5 {
		return fmt.Errorf("%w: began with % x", errNotBroker, head)
	}
	g.greeted, g.head = true, head
	return nil
}

// skip drops a PUBLISH that is too large to be for us, without keeping it.
func (g *guardConn) skip(size int, retained bool) error {
	var length [2]byte
	if _, err := io.ReadFull(g.in, length[:]); err != nil {
		return unexpected(err)
	}
	topic := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(g.in, topic); err != nil {
		return unexpected(err)
	}
	rest := size - len(length) - len(topic)
	if _, err := g.in.Discard(rest); err != nil {
		return unexpected(err)
	}
	g.tooLarge(string(topic), rest, retained)
	return nil
}

// unexpected: an end in the middle of a packet.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
