package web

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// ask has a window answer one request from this machine.
func ask(cfg Config, src Source, method, target string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	rw := httptest.NewRecorder()
	Handler(cfg, src).ServeHTTP(rw, request(method, target, change...))
	return rw
}

func request(method, target string, change ...func(*http.Request)) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	r.RemoteAddr, r.Host = "127.0.0.1:40000", "localhost:8099"
	for _, c := range change {
		c(r)
	}
	return r
}

// header sets a header of a request.
func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// from sets who sends a request.
func from(peer string) func(*http.Request) {
	return func(r *http.Request) { r.RemoteAddr = peer + ":40000" }
}

// pipes is a listener without a network, whose pipes hold nothing: what is not read at once
// blocks the writer.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	ended chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), ended: make(chan struct{})} }

type pipeConn struct {
	net.Conn
	remote net.Addr
}

func (c pipeConn) RemoteAddr() net.Addr { return c.remote }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.ended) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8099} }

// dial connects from an address.
func (p *pipes) dial(peer string) net.Conn {
	client, server := net.Pipe()
	p.conns <- pipeConn{server, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(peer), 40000))}
	return client
}

// get sends a request and reads the head of the answer.
func get(t *testing.T, c net.Conn, target string) *http.Response {
	t.Helper()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost:8099\r\n\r\n", target); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// open runs a server on pipes until the test's end.
func open(t *testing.T, cfg Config, src Source) *pipes {
	t.Helper()
	p := newPipes()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- newServer(cfg, src, p).Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestListen(t *testing.T) {
	cfg := Config{Listen: "127.0.0.1:0"}
	s, err := Listen(t.Context(), cfg, newFake(fakeTime))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = Listen(t.Context(), Config{Listen: s.Addr().String()}, newFake(fakeTime))
	if !errors.Is(err, ErrPortInUse) || !strings.Contains(err.Error(), "set HTTP_LISTEN to another") {
		t.Errorf("a port that is taken: %v", err)
	}
	if _, err := Listen(t.Context(), Config{Listen: "nowhere"}, nil); err == nil || !strings.Contains(err.Error(), "HTTP_LISTEN") {
		t.Errorf("no address: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	response, err := http.Get("http://" + s.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if string(text) != "ok\n" {
		t.Errorf("/healthz says %q", text)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := http.Get("http://" + s.Addr().String() + "/healthz"); err == nil {
		t.Error("it still answers")
	}
}

// At the end streams end at once, and answers that take their time get a moment.
func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(time.Now())
		reading := make(chan struct{})
		src.read = func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
			close(reading)
			<-ctx.Done()
			return []byte(`{"status":"error","error":"stopped","data":{}}`), fmt.Errorf("%w: %w", ErrStopping, ctx.Err())
		}
		p := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- newServer(Config{}, src, p).Run(ctx) }()

		stream := get(t, p.dial("127.0.0.1"), "/api/v1/events")
		streamed := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, stream.Body)
			streamed <- err
		}()
		deaf := p.dial("127.0.0.1") // takes nothing
		fmt.Fprint(deaf, "GET /api/v1/meters HTTP/1.1\r\nHost: localhost\r\n\r\n")
		p.dial("127.0.0.1") // and one that never says what it wants
		asking := p.dial("127.0.0.1")
		fmt.Fprint(asking, "POST /api/v1/meters/house/read HTTP/1.1\r\nHost: localhost\r\n\r\n")
		<-reading
		synctest.Wait()

		start := time.Now()
		cancel()
		answer, err := http.ReadResponse(bufio.NewReader(asking), nil)
		if err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("a read at the end: %s", answer.Status)
		}
		if err := <-streamed; err != nil {
			t.Errorf("the stream ends with %v", err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 300*time.Millisecond {
			t.Errorf("the end took %s", took)
		}
		synctest.Wait()
		if n := src.following(); n != 0 {
			t.Errorf("%d still follow", n)
		}
	})
}

// So many connections and no more; the health is told beyond that.
func TestConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t, Config{}, newFake(time.Now()))
		var held []net.Conn
		for range maxConns {
			held = append(held, p.dial("127.0.0.1"))
		}
		crowded := get(t, p.dial("127.0.0.1"), "/api/v1/meters")
		if crowded.StatusCode != http.StatusServiceUnavailable || crowded.Header.Get("Retry-After") == "" || !crowded.Close {
			t.Errorf("one too many: %s, %v", crowded.Status, crowded.Header)
		}
		crowded.Body.Close()
		synctest.Wait()
		for range spareConns {
			c := p.dial("127.0.0.1")
			if health := get(t, c, "/healthz"); health.StatusCode != http.StatusOK {
				t.Errorf("health on a spare connection: %s", health.Status)
			}
			held = append(held, c)
		}
		beyond := p.dial("127.0.0.1")
		if _, err := beyond.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("beyond all: %v", err)
		}
		for _, c := range held {
			c.Close()
		}
		synctest.Wait()
		if r := get(t, p.dial("127.0.0.1"), "/api/v1/meters"); r.StatusCode != http.StatusOK {
			t.Errorf("when they have gone: %s", r.Status)
		}
	})
}

// One machine on the network cannot take all connections; this one and the ingress may.
func TestConnectionsOfOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Username: "owner", Password: "secret", Ingress: netip.MustParseAddr("172.30.32.2")}
		p := open(t, cfg, newFake(time.Now()))
		greedy := make([]net.Conn, maxPeerConns)
		for i := range greedy {
			greedy[i] = p.dial("192.0.2.66")
		}
		if _, err := p.dial("192.0.2.66").Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("one more of the same: %v", err)
		}
		for _, peer := range []string{"192.0.2.67", "127.0.0.1", "172.30.32.2"} {
			if r := get(t, p.dial(peer), "/readyz"); r.StatusCode != http.StatusServiceUnavailable && r.StatusCode != http.StatusOK {
				t.Errorf("%s: %s", peer, r.Status)
			}
		}
		greedy[0].Close()
		synctest.Wait()
		if r := get(t, p.dial("192.0.2.66"), "/healthz"); r.StatusCode != http.StatusOK {
			t.Errorf("when one has gone: %s", r.Status)
		}
	})
}

// Who takes too long to ask is cut off.
func TestSlowRequests(t *testing.T) {
	for name, tt := range map[string]struct {
		sent  string
		after time.Duration
	}{
		"nothing":     {"", headerTimeout},
		"half a head": {"GET / HTTP/1.1\r\nHost: local", headerTimeout},
		"half a body": {"POST /api/v1/meters/house/read HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", readTimeout},
		"idle":        {"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", idleTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := open(t, Config{}, newFake(time.Now()))
				c := p.dial("127.0.0.1")
				start := time.Now()
				if _, err := io.WriteString(c, tt.sent); err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, c); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took < tt.after || took > tt.after+time.Second {
					t.Errorf("cut off after %s, want %s", took, tt.after)
				}
			})
		})
	}
}

// A request that is huge in any part of it is refused, and the connection with it.
func TestHugeRequests(t *testing.T) {
	long := strings.Repeat("a", 20<<10)
	for name, tt := range map[string]struct {
		sent string
		want int
	}{
		"path":   {"GET /" + long + " HTTP/1.1\r\nHost: localhost\r\n\r\n", http.StatusRequestHeaderFieldsTooLarge},
		"header": {"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + long + "\r\n\r\n", http.StatusRequestHeaderFieldsTooLarge},
		"body": {
			fmt.Sprintf("POST /api/v1/meters/house/read HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(long), long),
			http.StatusRequestEntityTooLarge,
		},
		"announced": {
			"POST /api/v1/meters/house/read HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000000000000\r\n\r\n",
			http.StatusRequestEntityTooLarge,
		},
		"chunks": {
			fmt.Sprintf("POST /api/v1/meters/house/read HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(long), long),
			http.StatusRequestEntityTooLarge,
		},
		"body of a GET": {"GET /api/v1/meters HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n", http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := open(t, Config{}, newFake(time.Now()))
				c := p.dial("127.0.0.1")
				go io.WriteString(c, tt.sent)
				response, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Fatal(err)
				}
				if response.StatusCode != tt.want {
					t.Errorf("%s, want %d", response.Status, tt.want)
				}
				if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("the connection does not end: %v", err)
				}
			})
		})
	}
}
