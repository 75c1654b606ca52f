package statistics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// Limits of one connection. The largest message is the entity registry: some 700 bytes for each entity of a house.
const (
	connectTimeout = 15 * time.Second // stream, TLS and websocket together
	answerTimeout  = time.Minute      // to the last byte of an answer: the recorder may be busy
	writeTimeout   = 20 * time.Second
	closeTimeout   = time.Second

	maxMessage   = 32 << 20
	maxHandshake = 256 << 10 // bytes up to the answer to the upgrade, certificates included
	maxShown     = 200       // of a text from the other side
)

// message is what Home Assistant sends, as far as it matters here.
type message struct {
	ID        int64           `json:"id"`
	Type      string          `json:"type"`
	Success   bool            `json:"success"`
	Result    json.RawMessage `json:"result"`
	Error     messageError    `json:"error"`
	Message   text            `json:"message"`    // of auth_invalid
	HAVersion text            `json:"ha_version"` // of auth_required
}

type messageError struct {
	Code    text `json:"code"`
	Message text `json:"message"`
}

// text is a string; what is none becomes its JSON. Some integrations give numbers as unique ids.
type text string

func (t *text) UnmarshalJSON(data []byte) error {
	var s string
	if json.Unmarshal(data, &s) != nil {
		s = string(data)
	}
	*t = text(s)
	return nil
}

func decodeMessage(data []byte) (message, error) {
	var m message
	if err := json.Unmarshal(data, &m); err != nil {
		return message{}, fmt.Errorf("%w: %w", errProtocol, err)
	}
	return m, nil
}

// websocketURL is where the websocket of the Home Assistant at u is: behind a path, if there is one, and behind the
// supervisor at ws://supervisor/core/websocket.
func websocketURL(u *url.URL) *url.URL {
	ws := &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}
	switch strings.ToLower(u.Scheme) {
	case "http":
		ws.Scheme = "ws"
	case "https":
		ws.Scheme = "wss"
	}
	switch {
	case strings.HasSuffix(ws.Path, "/websocket"):
	case strings.HasSuffix(ws.Path, "/api"), ws.Host == "supervisor" && ws.Path == "/core":
		ws.Path += "/websocket"
	default:
		ws.Path += "/api/websocket"
	}
	return ws
}

// conn is one connection, for one goroutine.
type conn struct {
	ws      *websocket.Conn
	token   string // never shown, even when the other side repeats it
	version version
	last    int64 // the id of the last command
	release func() bool
}

// dial connects and logs in. The connection ends with ctx.
func dial(ctx context.Context, cfg Config) (*conn, error) {
	var handshake *handshakeConn
	dialer := websocket.Dialer{
		NetDialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			open := cfg.Dial
			if open == nil {
				open = new(net.Dialer).DialContext
			}
			stream, err := open(ctx, network, address)
			if err != nil {
				return nil, err
			}
			handshake = &handshakeConn{Conn: stream}
			handshake.left.Store(maxHandshake)
			return handshake, nil
		},
		HandshakeTimeout: connectTimeout,
	}
	answered := false
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: func() { answered = true }})
	ws, resp, err := dialer.DialContext(traced, websocketURL(cfg.URL).String(), nil)
	switch reason, _ := explain(err); {
	case err == nil:
	case errors.Is(err, websocket.ErrBadHandshake) && resp != nil:
		return nil, &statusError{resp.StatusCode}
	case errors.Is(err, errProtocol):
		return nil, err
	case answered && reason == unexplained: // it cannot be read as HTTP
		return nil, fmt.Errorf("%w: %w", errProtocol, err)
	default:
		return nil, fmt.Errorf("statistics: %w", err)
	}
	handshake.left.Store(math.MaxInt64)
	ws.SetReadLimit(maxMessage)
	c := &conn{ws: ws, token: cfg.Token, release: context.AfterFunc(ctx, func() { ws.NetConn().Close() })}
	if err := c.login(); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// login: auth_required, auth, and auth_ok or auth_invalid.
func (c *conn) login() error {
	m, err := c.read(time.Now().Add(connectTimeout))
	if err != nil {
		return err
	}
	c.version = parseVersion(string(m.HAVersion))
	if m.Type != "auth_required" {
		return fmt.Errorf("%w: %q instead of auth_required", errProtocol, c.show(m.Type))
	}
	if err := c.write(struct {
		Type  string `json:"type"`
		Token string `json:"access_token"`
	}{"auth", c.token}); err != nil {
		return err
	}
	if m, err = c.read(time.Now().Add(connectTimeout)); err != nil {
		return err
	}
	switch m.Type {
	case "auth_ok":
		return nil
	case "auth_invalid":
		return fmt.Errorf("%w: %s", errToken, c.show(string(m.Message)))
	}
	return fmt.Errorf("%w: %q instead of auth_ok", errProtocol, c.show(m.Type))
}

// call sends a command, whose fields are in the map, and decodes what it results in. A refusal is a *[CommandError].
func (c *conn) call(command string, fields map[string]any, result any) error {
	c.last++
	request := map[string]any{"id": c.last, "type": command}
	maps.Copy(request, fields)
	if err := c.write(request); err != nil {
		return err
	}
	for deadline := time.Now().Add(answerTimeout); ; {
		m, err := c.read(deadline)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", command, err)
		case m.Type != "result" || m.ID != c.last:
			continue // of no command that was sent here
		case !m.Success:
			return &CommandError{command, c.show(string(m.Error.Code)), c.show(string(m.Error.Message))}
		}
		if result == nil {
			return nil
		}
		if err := json.Unmarshal(m.Result, result); err != nil {
			return fmt.Errorf("%s: %w: %w", command, errProtocol, err)
		}
		return nil
	}
}

// read returns the next message. Pings are answered meanwhile.
func (c *conn) read(deadline time.Time) (message, error) {
	if err := c.ws.SetReadDeadline(deadline); err != nil {
		return message{}, fmt.Errorf("statistics: %w", err)
	}
	kind, data, err := c.ws.ReadMessage()
	if err != nil {
		return message{}, fmt.Errorf("statistics: %w", err)
	}
	if kind != websocket.TextMessage {
		return message{}, fmt.Errorf("%w: a binary message", errProtocol)
	}
	return decodeMessage(data)
}

func (c *conn) write(v any) error {
	if err := c.ws.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("statistics: %w", err)
	}
	if err := c.ws.WriteJSON(v); err != nil {
		return fmt.Errorf("statistics: %w", err)
	}
	return nil
}

// close says farewell and hangs up.
func (c *conn) close() {
	c.release()
	farewell := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = c.ws.WriteControl(websocket.CloseMessage, farewell, time.Now().Add(closeTimeout)) // it may be gone already
	c.ws.Close()
}

// show makes a text of the other side fit for the log: short, and without the token.
func (c *conn) show(s string) string {
	if c.token != "" {
		s = strings.ReplaceAll(s, c.token, "<token>")
	}
	if r := []rune(s); len(r) > maxShown {
		s = string(r[:maxShown]) + "…"
	}
	return s
}

// handshakeConn bounds what is read before the websocket, whose own limit counts from then on.
type handshakeConn struct {
	net.Conn
	left atomic.Int64
}

func (c *handshakeConn) Read(p []byte) (int, error) {
	if c.left.Load() <= 0 {
		return 0, fmt.Errorf("%w: an endless answer", errProtocol)
	}
	n, err := c.Conn.Read(p)
	c.left.Add(-int64(n))
	return n, err
}

// version is a version of Home Assistant, such as 2026.11.0b1, as far as it counts; zero: not known.
type version struct{ year, month int }

func parseVersion(s string) (v version) {
	if n, _ := fmt.Sscanf(s, "%4d.%2d", &v.year, &v.month); n != 2 {
		return version{}
	}
	return v
}

// before says whether v is older; a version that is not known is new.
func (v version) before(year, month int) bool {
	return v != version{} && (v.year < year || v.year == year && v.month < month)
}

// isHTTPRedirect says whether Home Assistant is said to be elsewhere.
func isHTTPRedirect(status int) bool {
	return status >= http.StatusMultipleChoices && status < http.StatusBadRequest
}
