package web

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// guard decides who may look.
type guard struct {
	config   Config
	user     [sha256.Size]byte // of the user name
	password [sha256.Size]byte
	origins  *http.CrossOriginProtection
	guesses  *guesses
}

func newGuard(cfg Config) guard {
	return guard{
		config: cfg, user: sha256.Sum256([]byte(cfg.Username)), password: sha256.Sum256([]byte(cfg.Password)),
		origins: http.NewCrossOriginProtection(), guesses: &guesses{paid: map[netip.Addr]time.Time{}},
	}
}

// visitor is who looks.
type visitor struct {
	trusted bool // may see everything; else no more than whether all is well
}

type visitorKey struct{}

// visitorOf returns who sent a request that was let in.
func visitorOf(r *http.Request) visitor {
	v, _ := r.Context().Value(visitorKey{}).(visitor)
	return v
}

// refusal is a request that is not let in, and why.
type refusal struct {
	status int
	detail string
	after  time.Duration // when to come back; 0: it does not matter
}

func (e *refusal) write(rw http.ResponseWriter, r *http.Request) {
	switch e.status {
	case http.StatusUnauthorized:
		rw.Header().Set("WWW-Authenticate", `Basic realm="kmp2mqtt", charset="UTF-8"`)
	case http.StatusServiceUnavailable:
		rw.Header().Set("Connection", "close")
	}
	if e.after > 0 {
		retryAfter(rw, e.after)
	}
	fail(rw, r, e.status, e.detail)
}

// admit lets a request in or says why not.
func (g *guard) admit(r *http.Request) (visitor, *refusal) {
	if err := checkRequest(r); err != nil {
		return visitor{}, err
	}
	health := r.URL.Path == healthPath || r.URL.Path == readyPath
	if crowded, _ := r.Context().Value(crowdedKey{}).(bool); crowded && !health {
		return visitor{}, &refusal{status: http.StatusServiceUnavailable, detail: "too many connections; try again", after: writeTimeout}
	}
	v, refused := g.recognize(r, health)
	if refused != nil {
		if health {
			return visitor{}, nil
		}
		return visitor{}, refused
	}
	if err := g.checkOrigin(r); err != nil {
		return visitor{}, err
	}
	return v, nil
}

// recognize says who sent a request. Who asks after the health from this machine needs no
// password to be told all.
func (g *guard) recognize(r *http.Request, health bool) (visitor, *refusal) {
	peer := peerOf(r.RemoteAddr)
	if g.config.Ingress.IsValid() && peer == g.config.Ingress.Unmap() {
		return visitor{trusted: true}, checkIngressPath(r.Header.Values("X-Ingress-Path"))
	}
	r.Header.Del("X-Ingress-Path") // nobody else can know it
	local := peer.IsLoopback()
	switch {
	case g.config.Username != "" && !(health && local && g.localHost(r.Host)):
		return visitor{trusted: true}, g.checkPassword(peer, r)
	case !local:
		return visitor{}, &refusal{status: http.StatusForbidden, detail: "without HTTP_USERNAME and HTTP_PASSWORD this is for its own machine and Home Assistant's ingress alone"}
	case !g.localHost(r.Host):
		return visitor{}, &refusal{status: http.StatusForbidden, detail: fmt.Sprintf("%q is not a name of this machine; use http://%s", clip(r.Host), g.config.Listen)}
	}
	return visitor{trusted: true}, nil
}

// localHost reports whether a Host header names this machine as seen from itself. A page of
// somebody else whose name leads here has another (DNS rebinding).
func (g *guard) localHost(host string) bool {
	name := hostname(host)
	if addr, err := netip.ParseAddr(name); err == nil && (addr.IsLoopback() || addr.IsUnspecified()) {
		return addr.IsLoopback()
	}
	return strings.EqualFold(name, "localhost") || name != "" && strings.EqualFold(name, hostname(g.config.Listen))
}

// hostname is a host without its port.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

// checkPassword looks at name and password. Who was wrong some times has to wait, and is not
// told whether he is right meanwhile.
func (g *guard) checkPassword(peer netip.Addr, r *http.Request) *refusal {
	username, password, given := r.BasicAuth()
	if !given {
		return &refusal{status: http.StatusUnauthorized, detail: "user name and password, please (HTTP_USERNAME, HTTP_PASSWORD)"}
	}
	user, pass := sha256.Sum256([]byte(username)), sha256.Sum256([]byte(password))
	right := subtle.ConstantTimeCompare(user[:], g.user[:])&subtle.ConstantTimeCompare(pass[:], g.password[:]) == 1
	first, wait := g.guesses.note(household(peer), right, time.Now())
	switch {
	case wait > 0:
		return &refusal{status: http.StatusTooManyRequests, detail: "too many wrong passwords from this address; wait a little", after: wait}
	case right:
		return nil
	case first && g.config.Log != nil:
		g.config.Log.Warn("wrong user name or password for the page", slog.String("peer", peer.String()))
	}
	return &refusal{status: http.StatusUnauthorized, detail: "wrong user name or password"}
}

// checkOrigin refuses what another site's page had the browser send. Behind the ingress the
// name that the browser knows stands in X-Forwarded-Host.
func (g *guard) checkOrigin(r *http.Request) *refusal {
	const detail = "this was sent by a page of another site"
	if strings.HasPrefix(r.URL.Path, apiPrefix) && r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		return &refusal{status: http.StatusForbidden, detail: detail}
	}
	seen := *r
	if g.config.Ingress.IsValid() && peerOf(r.RemoteAddr) == g.config.Ingress.Unmap() {
		host, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Host"), ",")
		seen.Host = cmp.Or(strings.TrimSpace(host), r.Host)
	}
	if g.origins.Check(&seen) != nil {
		return &refusal{status: http.StatusForbidden, detail: detail}
	}
	return nil
}

// Wrong passwords of one address: so many at once, then one every guessPause.
const (
	freeGuesses = 10
	guessPause  = 2 * time.Second
	maxGuessers = 1024 // addresses that are remembered
)

// guesses slows down who guesses passwords. Each address is on its own, so that nobody is
// locked out by somebody else.
type guesses struct {
	mu   sync.Mutex
	paid map[netip.Addr]time.Time // when all wrong guesses of an address have been waited for
}

// note takes a guess. Wait is how long this address has to wait before another one counts;
// first says that it is its first wrong one in a while.
func (g *guesses) note(peer netip.Addr, right bool, now time.Time) (first bool, wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	paid, known := g.paid[peer]
	if known && paid.Before(now) {
		delete(g.paid, peer)
		known = false
	}
	if !known {
		paid = now
	}
	if wait := paid.Sub(now) - (freeGuesses-1)*guessPause; wait > 0 {
		return false, wait
	}
	if right {
		return false, 0
	}
	if !known && len(g.paid) >= maxGuessers {
		g.forget()
	}
	g.paid[peer] = paid.Add(guessPause)
	return !known, 0
}

// forget drops the address that has waited the longest.
func (g *guesses) forget() {
	var oldest netip.Addr
	for peer, paid := range g.paid {
		if t, ok := g.paid[oldest]; !ok || paid.Before(t) {
			oldest = peer
		}
	}
	delete(g.paid, oldest)
}

// peerOf is the address of host:port; zero: it has none.
func peerOf(remote string) netip.Addr {
	p, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr().Unmap().WithZone("")
}

// household is by what visitors are counted: an address, and of IPv6 the whole network of one
// house, which has more addresses than anybody can count.
func household(addr netip.Addr) netip.Addr {
	if !addr.Is6() {
		return addr
	}
	return netip.PrefixFrom(addr, 64).Masked().Addr()
}

// checkIngressPath checks the path under which the ingress shows the window.
func checkIngressPath(values []string) *refusal {
	if len(values) == 0 {
		return nil
	}
	path := values[0]
	odd := strings.ContainsFunc(path, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("/-_.~", c))
	})
	if len(values) > 1 || odd || checkPath(path) != nil {
		return &refusal{status: http.StatusBadRequest, detail: "X-Ingress-Path is not a path"}
	}
	return nil
}

// checkRequest refuses what nothing here could be asked for with.
func checkRequest(r *http.Request) *refusal {
	if err := checkPath(r.URL.Path); err != nil {
		return err
	}
	if r.Method != http.MethodPost && r.ContentLength != 0 {
		return &refusal{status: http.StatusBadRequest, detail: "a body belongs to POST alone"}
	}
	return nil
}

// checkPath refuses a path that leads anywhere but straight down.
func checkPath(path string) *refusal {
	odd := &refusal{status: http.StatusBadRequest, detail: "the path is odd"}
	if len(path) > 512 || !utf8.ValidString(path) || !strings.HasPrefix(path, "/") || strings.Contains(path, `\`) || strings.ContainsFunc(path, unicode.IsControl) {
		return odd
	}
	for part := range strings.SplitSeq(strings.TrimSuffix(path[1:], "/"), "/") {
		if part == "." || part == ".." || part == "" && path != "/" {
			return odd
		}
	}
	return nil
}

// secure sets the headers that keep a browser from doing with an answer what it is not for.
// The page loads its own files alone; Home Assistant shows it in a frame of its own origin.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// problem is why a request to the API was not served (RFC 9457).
type problem struct {
	Title  string   `json:"title"`
	Status int      `json:"status"`
	Detail string   `json:"detail"`
	After  *float64 `json:"retry_after_s,omitempty"`
}

// fail answers a request that is not served: JSON for programs, plain text for people.
func fail(rw http.ResponseWriter, r *http.Request, status int, detail string) {
	h := rw.Header()
	h.Set("Cache-Control", "no-store")
	h.Del("Content-Disposition")
	text := []byte(detail + "\n")
	if strings.HasPrefix(r.URL.Path, apiPrefix) {
		p := problem{Title: http.StatusText(status), Status: status, Detail: detail}
		if s, err := strconv.ParseFloat(h.Get("Retry-After"), 64); err == nil {
			p.After = &s
		}
		h.Set("Content-Type", "application/problem+json")
		text, _ = json.Marshal(p) // texts and numbers always can
	} else {
		h.Set("Content-Type", "text/plain; charset=utf-8")
	}
	rw.WriteHeader(status)
	_, _ = rw.Write(text) // who does not read it has gone
}

// retryAfter says when to come back, in whole seconds.
func retryAfter(rw http.ResponseWriter, after time.Duration) {
	rw.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(max(after.Seconds(), 1)))))
}

// accepts reports whether Accept headers allow a media type; none at all allow any.
func accepts(headers []string, media string) bool {
	if len(headers) == 0 {
		return true
	}
	kind, _, _ := strings.Cut(media, "/")
	best, found := 0, false // the most exact range that fits, and whether it is wanted
	for _, header := range headers {
		for item := range strings.SplitSeq(header, ",") {
			name, rest, _ := strings.Cut(item, ";")
			exact := 0
			switch strings.ToLower(strings.TrimSpace(name)) {
			case media:
				exact = 3
			case kind + "/*":
				exact = 2
			case "*/*":
				exact = 1
			}
			if exact > best {
				best, found = exact, wanted(rest)
			}
		}
	}
	return found
}

// wanted reports whether the parameters of a media range have a weight above 0.
func wanted(params string) bool {
	for p := range strings.SplitSeq(params, ";") {
		if weight, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(p)), "q="); ok {
			q, err := strconv.ParseFloat(strings.TrimSpace(weight), 64)
			return err != nil || q > 0
		}
	}
	return true
}

// clip shortens what somebody sent for an error's text.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}
