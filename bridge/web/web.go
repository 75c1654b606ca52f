package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// What visitors may take, all together. A browser that looks at the page has one stream open
// and loads the rest over two or three connections.
const (
	maxConns     = 256              // at a time
	spareConns   = 16               // beyond these, for those who ask after the health
	maxPeerConns = 3 * maxConns / 4 // of one address beyond this machine and the ingress
	maxStreams   = 128              // events and alignments at a time
	maxHeader    = 8 << 10          // bytes of a request's line and headers; net/http adds 4 KiB
	maxBody      = 4 << 10          // bytes of a request's body

	headerTimeout = 5 * time.Second        // for a request's headers to come
	readTimeout   = 10 * time.Second       // for all of a request to come
	writeTimeout  = 10 * time.Second       // for a reader to take some of an answer
	idleTimeout   = time.Minute            // between two requests
	farewell      = 200 * time.Millisecond // for the answers that are on their way at the end
)

// ErrPortInUse says that another program listens where the window should be.
var ErrPortInUse = errors.New("web: the port is in use")

// Config says where the window is and who may look.
type Config struct {
	Listen   string // host:port
	Username string // empty: nobody needs a password
	Password string
	Ingress  netip.Addr // Home Assistant's ingress, which needs no password; zero: there is none
	Log      *slog.Logger
}

// window is what all that is served has in common.
type window struct {
	config  Config
	source  Source
	guard   guard
	mux     *http.ServeMux
	streams atomic.Int32 // that are open
}

// route is one thing that is served. GET serves HEAD, too.
type route struct {
	method, path string
	media        string // what it answers with, for those who accept some types alone; empty: it is not looked at
	serve        http.HandlerFunc
}

// routes are all things that are served.
func (w *window) routes() []route {
	const jsonMedia, eventMedia = "application/json", "text/event-stream"
	return []route{
		{http.MethodGet, "/{$}", "", page(w.source).ServeHTTP},
		{http.MethodGet, "/assets/{file...}", "", assets().ServeHTTP},
		{http.MethodGet, "/api/v1/meters", jsonMedia, w.meters},
		{http.MethodGet, "/api/v1/meters/{name}", jsonMedia, w.meter},
		{http.MethodPost, "/api/v1/meters/{name}/read", jsonMedia, w.read},
		{http.MethodPost, "/api/v1/meters/{name}/align", eventMedia, w.align},
		{http.MethodGet, "/api/v1/meters/{name}/chart", jsonMedia, w.chart},
		{http.MethodGet, "/api/v1/meters/{name}/frames", jsonMedia, w.frames},
		{http.MethodGet, "/api/v1/meters/{name}/bundle", jsonMedia, w.bundle},
		{http.MethodGet, "/api/v1/events", eventMedia, w.events},
		{http.MethodGet, "/metrics", "", metrics(w.source).ServeHTTP},
		{http.MethodGet, healthPath, "", w.health},
		{http.MethodGet, readyPath, "", w.ready},
	}
}

// Handler returns everything that the window serves.
func Handler(cfg Config, src Source) http.Handler {
	w := &window{config: cfg, source: src, guard: newGuard(cfg), mux: http.NewServeMux()}
	methods := map[string]string{}
	for _, r := range w.routes() {
		w.mux.HandleFunc(r.method+" "+r.path, func(rw http.ResponseWriter, req *http.Request) {
			if r.media != "" && !accepts(req.Header.Values("Accept"), r.media) {
				fail(rw, req, http.StatusNotAcceptable, "this is served as "+r.media+" alone")
				return
			}
			r.serve(rw, req)
		})
		allowed := r.method
		if allowed == http.MethodGet {
			allowed = "GET, HEAD"
		}
		methods[r.path] = allowed
	}
	for path, allowed := range methods {
		w.mux.HandleFunc(path, func(rw http.ResponseWriter, req *http.Request) {
			rw.Header().Set("Allow", allowed)
			fail(rw, req, http.StatusMethodNotAllowed, "this takes "+allowed+" alone")
		})
	}
	for _, path := range []string{"/", "/assets"} { // the mux would lead from the latter to /assets/, wherever that is behind an ingress
		w.mux.HandleFunc(path, func(rw http.ResponseWriter, req *http.Request) {
			fail(rw, req, http.StatusNotFound, "there is nothing at "+clip(req.URL.Path))
		})
	}
	return w
}

// ServeHTTP lets in who may look, and serves.
func (w *window) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	rw = &patientWriter{rw, http.NewResponseController(rw)}
	secure(rw.Header())
	v, refused := w.guard.admit(r)
	if refused != nil {
		refused.write(rw, r)
		return
	}
	w.mux.ServeHTTP(rw, r.WithContext(context.WithValue(r.Context(), visitorKey{}, v)))
}

// patientWriter gives a reader some time for each piece of an answer.
type patientWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

// Unwrap is for [http.ResponseController].
func (p *patientWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// Write writes in pieces that a slow line can take in time.
func (p *patientWriter) Write(b []byte) (n int, err error) {
	const piece = 16 << 10
	for {
		_ = p.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // a recorder in a test has none
		part := b[n:min(n+piece, len(b))]
		m, err := p.ResponseWriter.Write(part)
		n += m
		if err != nil || n == len(b) {
			return n, err
		}
	}
}

// Server is a window that is open.
type Server struct {
	http     http.Server
	listener *listener
	stop     context.CancelFunc // ends all streams
}

// Listen opens the window; nothing is served before [Server.Run]. A port that is taken is
// ErrPortInUse.
func Listen(ctx context.Context, cfg Config, src Source) (*Server, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", cfg.Listen)
	switch {
	case portInUse(err):
		return nil, fmt.Errorf("%w: set HTTP_LISTEN to another, or to off for no page: %w", ErrPortInUse, err)
	case err != nil:
		return nil, fmt.Errorf("web: HTTP_LISTEN: %w", err)
	}
	return newServer(cfg, src, l), nil
}

func newServer(cfg Config, src Source, l net.Listener) *Server {
	ctx, stop := context.WithCancel(context.Background()) // Run's context ends before what is on its way
	s := &Server{stop: stop, listener: &listener{Listener: l, free: cfg.Ingress.Unmap(), peers: map[netip.Addr]int{}}}
	s.http = http.Server{
		Handler:                      Handler(cfg, src),
		ReadHeaderTimeout:            headerTimeout,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true,
		BaseContext:                  func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if c, ok := c.(*conn); ok && c.spare {
				return context.WithValue(ctx, crowdedKey{}, true)
			}
			return ctx
		},
	}
	if cfg.Log != nil {
		s.http.ErrorLog = slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug)
	}
	return s
}

// Addr is where the window is.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Run serves until ctx ends. Then it ends all streams and gives other answers a moment.
func (s *Server) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(s.listener) }()
	defer s.Close()
	select {
	case err := <-served:
		return ended(err)
	case <-ctx.Done():
	}
	s.stop()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	_ = s.http.Shutdown(last) // who is not done by then is cut off
	return ended(<-served)
}

// ended is how serving ended; to be closed is no error.
func ended(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("web: %w", err)
}

// Close closes the window and ends all connections.
func (s *Server) Close() {
	s.stop()
	s.http.Close()
	s.listener.Close()
}

// portInUse reports whether a port is taken.
func portInUse(err error) bool {
	const windows = syscall.Errno(10048) // WSAEADDRINUSE
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, windows)
}

// crowdedKey marks the context of a connection that is served no more than the health.
type crowdedKey struct{}

// listener accepts so many connections at a time, and no more.
type listener struct {
	net.Listener
	free netip.Addr // an address for which maxPeerConns does not count, as this machine's own

	mu    sync.Mutex
	open  int
	peers map[netip.Addr]int // connections by address; those that count alone
}

// conn is a connection that counts.
type conn struct {
	net.Conn
	listener *listener
	peer     netip.Addr // zero: maxPeerConns does not count
	spare    bool       // one of spareConns
	once     sync.Once
}

// Accept closes at once what there is no room for.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if counted := l.take(c); counted != nil {
			return counted, nil
		}
		c.Close()
	}
}

// take counts a connection; it is nil when there is no room for it.
func (l *listener) take(c net.Conn) *conn {
	peer := peerOf(c.RemoteAddr().String())
	if peer.IsLoopback() || peer == l.free {
		peer = netip.Addr{}
	} else {
		peer = household(peer)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == maxConns+spareConns || peer.IsValid() && l.peers[peer] == maxPeerConns {
		return nil
	}
	l.open++
	if peer.IsValid() {
		l.peers[peer]++
	}
	return &conn{Conn: c, listener: l, peer: peer, spare: l.open > maxConns}
}

// Close makes room for another.
func (c *conn) Close() error {
	c.once.Do(func() {
		l := c.listener
		l.mu.Lock()
		defer l.mu.Unlock()
		l.open--
		if l.peers[c.peer]--; l.peers[c.peer] <= 0 {
			delete(l.peers, c.peer)
		}
	})
	return c.Conn.Close()
}
