package web

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var (
	openConfig     = Config{Listen: "127.0.0.1:8099"}
	passwordConfig = Config{Listen: "0.0.0.0:8099", Username: "owner", Password: "käse"}
	ingressConfig  = Config{Listen: "0.0.0.0:8099", Ingress: netip.MustParseAddr("172.30.32.2")}
)

// login sends a user name and password along.
func login(username, password string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(username, password) }
}

// host sets the name under which a request knows the window.
func host(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }

func TestGuard(t *testing.T) {
	bothConfig := ingressConfig
	bothConfig.Username, bothConfig.Password = "owner", "käse"
	named := Config{Listen: "meter.local:8099"}
	type changes []func(*http.Request)
	for name, tt := range map[string]struct {
		cfg  Config
		with changes
		want int
	}{
		"this machine":                  {openConfig, nil, 200},
		"by address":                    {openConfig, changes{host("127.0.0.1:8099")}, 200},
		"another of its addresses":      {openConfig, changes{host("127.0.0.2")}, 200},
		"by IPv6":                       {openConfig, changes{host("[::1]:8099"), func(r *http.Request) { r.RemoteAddr = "[::1]:40000" }}, 200},
		"IPv4 in IPv6":                  {openConfig, changes{func(r *http.Request) { r.RemoteAddr = "[::ffff:127.0.0.1]:40000" }}, 200},
		"without port":                  {openConfig, changes{host("LOCALHOST")}, 200},
		"name of the setting":           {named, changes{host("meter.local:8099")}, 200},
		"rebound name":                  {openConfig, changes{host("evil.example:8099")}, 403},
		"rebound look-alike":            {openConfig, changes{host("localhost.evil.example")}, 403},
		"no name":                       {openConfig, changes{host("")}, 403},
		"unspecified address":           {ingressConfig, changes{host("0.0.0.0:8099")}, 403},
		"stranger":                      {openConfig, changes{from("192.0.2.66")}, 403},
		"stranger who says localhost":   {openConfig, changes{from("192.0.2.66"), host("localhost")}, 403},
		"nobody":                        {openConfig, changes{func(r *http.Request) { r.RemoteAddr = "@" }}, 403},
		"password":                      {passwordConfig, changes{from("192.0.2.66"), login("owner", "käse")}, 200},
		"password, any name":            {passwordConfig, changes{from("192.0.2.66"), host("meter.example"), login("owner", "käse")}, 200},
		"no password":                   {passwordConfig, changes{from("192.0.2.66")}, 401},
		"no password, this machine":     {passwordConfig, nil, 401},
		"wrong password":                {passwordConfig, changes{login("owner", "kase")}, 401},
		"wrong user":                    {passwordConfig, changes{login("root", "käse")}, 401},
		"longer password":               {passwordConfig, changes{login("owner", "käsee")}, 401},
		"empty password":                {passwordConfig, changes{login("owner", "")}, 401},
		"all empty":                     {passwordConfig, changes{login("", "")}, 401},
		"another scheme":                {passwordConfig, changes{header("Authorization", "Bearer abc")}, 401},
		"not base64":                    {passwordConfig, changes{header("Authorization", "Basic %%%")}, 401},
		"ingress":                       {ingressConfig, changes{from("172.30.32.2"), host("172.30.33.5:8099"), header("X-Ingress-Path", "/api/hassio_ingress/a-b_C")}, 200},
		"ingress, with password":        {bothConfig, changes{from("172.30.32.2")}, 200},
		"ingress, odd path":             {ingressConfig, changes{from("172.30.32.2"), header("X-Ingress-Path", "//evil.example/")}, 400},
		"ingress, path with quotes":     {ingressConfig, changes{from("172.30.32.2"), header("X-Ingress-Path", `/"><script>`)}, 400},
		"ingress, path upwards":         {ingressConfig, changes{from("172.30.32.2"), header("X-Ingress-Path", "/a/../b")}, 400},
		"beside the ingress":            {ingressConfig, changes{from("172.30.32.3"), host("localhost")}, 403},
		"beside the ingress, its path":  {ingressConfig, changes{from("172.30.32.3"), header("X-Ingress-Path", "/api/hassio_ingress/abc")}, 403},
		"beside, with password":         {bothConfig, changes{from("172.30.32.3"), login("owner", "käse")}, 200},
		"beside, without":               {bothConfig, changes{from("172.30.32.3")}, 401},
		"this machine behind ingress":   {ingressConfig, nil, 200},
		"claims to come through one":    {ingressConfig, changes{from("192.0.2.66"), header("X-Forwarded-For", "172.30.32.2")}, 403},
		"fetched by another site":       {openConfig, changes{header("Sec-Fetch-Site", "cross-site")}, 403},
		"fetched by the page":           {openConfig, changes{header("Sec-Fetch-Site", "same-origin")}, 200},
		"typed into the browser":        {openConfig, changes{header("Sec-Fetch-Site", "none")}, 200},
		"a body where there is none":    {openConfig, changes{func(r *http.Request) { r.ContentLength = 1 }}, 400},
		"a body of unknown length":      {openConfig, changes{func(r *http.Request) { r.ContentLength = -1 }}, 400},
		"a path of an ingress, nowhere": {openConfig, changes{header("X-Ingress-Path", "//evil.example")}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			rw := ask(tt.cfg, newFake(fakeTime), http.MethodGet, "/api/v1/meters", tt.with...)
			if rw.Code != tt.want {
				t.Errorf("%d, want %d: %s", rw.Code, tt.want, rw.Body)
			}
			if got := rw.Header().Get("WWW-Authenticate") != ""; got != (tt.want == 401) {
				t.Errorf("WWW-Authenticate: %t", got)
			}
			if seen := strings.Contains(rw.Body.String(), "80123456"); seen != (tt.want == 200) {
				t.Errorf("the meter is seen: %t", seen)
			}
		})
	}
}

// Everything is behind the password, but for the health.
func TestEverythingGuarded(t *testing.T) {
	w := &window{source: newFake(fakeTime)}
	for _, route := range w.routes() {
		target := strings.NewReplacer("{$}", "", "{name}", "house", "{file...}", "page.css").Replace(route.path)
		for cfg, want := range map[Config]int{passwordConfig: 401, ingressConfig: 403} {
			rw := ask(cfg, newFake(time.Now()), route.method, target, from("192.0.2.66"))
			if health := route.path == healthPath || route.path == readyPath; health {
				if rw.Code == want || strings.Contains(rw.Body.String(), "garage") {
					t.Errorf("%s: %d %s", route.path, rw.Code, rw.Body)
				}
			} else if rw.Code != want {
				t.Errorf("%s: %d, want %d", route.path, rw.Code, want)
			}
		}
	}
}

// Nobody but the ingress can say where the page is.
func TestIngressPath(t *testing.T) {
	const mark = "/api/hassio_ingress/abc"
	for peer, want := range map[string]string{"172.30.32.2": mark, "127.0.0.1": ""} {
		r := request(http.MethodGet, "/api/v1/meters", from(peer), header("X-Ingress-Path", mark))
		g := newGuard(ingressConfig)
		if _, refused := g.admit(r); refused != nil {
			t.Fatalf("%s: %s", peer, refused.detail)
		}
		if got := r.Header.Get("X-Ingress-Path"); got != want {
			t.Errorf("%s: the page sees %q, want %q", peer, got, want)
		}
	}
}

// What changes something is not done for another site's page.
func TestCrossSite(t *testing.T) {
	type changes []func(*http.Request)
	behind := func(c ...func(*http.Request)) changes {
		return append(changes{from("172.30.32.2"), host("172.30.33.5:8099"), header("X-Forwarded-Host", "home.example:8123")}, c...)
	}
	for name, tt := range map[string]struct {
		cfg  Config
		with changes
		want int
	}{
		"a script":                     {openConfig, nil, 200},
		"the page":                     {openConfig, changes{header("Origin", "http://localhost:8099"), header("Sec-Fetch-Site", "same-origin")}, 200},
		"the page, older browser":      {openConfig, changes{header("Origin", "http://localhost:8099")}, 200},
		"another site":                 {openConfig, changes{header("Origin", "https://evil.example"), header("Sec-Fetch-Site", "cross-site")}, 403},
		"another site, older browser":  {openConfig, changes{header("Origin", "https://evil.example")}, 403},
		"another port":                 {openConfig, changes{header("Origin", "http://localhost:3000"), header("Sec-Fetch-Site", "same-site")}, 403},
		"a file":                       {openConfig, changes{header("Origin", "null")}, 403},
		"another site, with password":  {passwordConfig, changes{login("owner", "käse"), header("Origin", "https://evil.example")}, 403},
		"says it was forwarded":        {openConfig, changes{header("Origin", "https://evil.example"), header("X-Forwarded-Host", "evil.example")}, 403},
		"ingress":                      {ingressConfig, behind(header("Origin", "http://home.example:8123")), 200},
		"ingress, first of some":       {ingressConfig, behind(header("X-Forwarded-Host", "home.example, proxy"), header("Origin", "https://home.example")), 200},
		"ingress, newer browser":       {ingressConfig, behind(header("Sec-Fetch-Site", "same-origin")), 200},
		"ingress, another site":        {ingressConfig, behind(header("Origin", "https://evil.example")), 403},
		"ingress, another site, newer": {ingressConfig, behind(header("Sec-Fetch-Site", "cross-site")), 403},
		"ingress, that says no name":   {ingressConfig, changes{from("172.30.32.2"), host("home.example"), header("Origin", "http://home.example")}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			src := newFake(fakeTime)
			reads := 0
			src.read = func(context.Context, string, []byte) ([]byte, error) {
				reads++
				return []byte(`{"status":"ok","data":{}}`), nil
			}
			for _, action := range []string{"read", "align"} {
				rw := ask(tt.cfg, src, http.MethodPost, "/api/v1/meters/house/"+action, tt.with...)
				if rw.Code != tt.want {
					t.Errorf("%s: %d, want %d: %s", action, rw.Code, tt.want, rw.Body)
				}
				for h := range rw.Header() {
					if strings.HasPrefix(h, "Access-Control-") {
						t.Errorf("%s: header %s", action, h)
					}
				}
			}
			if (reads == 1) != (tt.want == 200) {
				t.Errorf("%d reads", reads)
			}
		})
	}
}

func TestPaths(t *testing.T) {
	for _, path := range []string{
		"/../web.go", "/assets/../page.go", "/assets/..%2fpage.go", "/assets/%2e%2e/page.go", "/assets/%2e%2e%2fpage.go", `/assets/..\page.go`, "/assets/%5c..%5cpage.go",
		"/./", "//evil.example/", "/api//v1/meters", "/api/v1/../v1/meters", "/%00", "/api/v1/meters/%0d%0aX:1", "/%ff", "/" + strings.Repeat("a", 600),
	} {
		rw := ask(openConfig, newFake(fakeTime), http.MethodGet, path)
		if rw.Code != http.StatusBadRequest || strings.Contains(rw.Body.String(), "package web") {
			t.Errorf("%s: %d %.80s", path, rw.Code, rw.Body)
		}
	}
	for _, path := range []string{"/assets", "/assets/", "/assets/uplot", "/assets/uplot/", "/index.html", "/api", "/api/", "/api/v1/", "/api/v1/meters/", "/api/v1/meters/house/", "/api/v1/meters/cellar", "/debug/pprof/", "/healthz/"} {
		rw := ask(openConfig, newFake(fakeTime), http.MethodGet, path)
		if rw.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, rw.Code)
		}
		wantType := "text/plain; charset=utf-8"
		if strings.HasPrefix(path, apiPrefix) {
			wantType = "application/problem+json"
		}
		if got := rw.Header().Get("Content-Type"); got != wantType {
			t.Errorf("%s: %s", path, got)
		}
	}
}

func TestMethods(t *testing.T) {
	for _, tt := range []struct{ method, path, allow string }{
		{http.MethodPost, "/", "GET, HEAD"},
		{http.MethodDelete, "/api/v1/meters", "GET, HEAD"},
		{http.MethodPut, "/api/v1/meters/house", "GET, HEAD"},
		{http.MethodGet, "/api/v1/meters/house/read", "POST"},
		{http.MethodOptions, "/api/v1/meters/house/align", "POST"},
		{http.MethodTrace, "/metrics", "GET, HEAD"},
		{"BREW", "/healthz", "GET, HEAD"},
	} {
		rw := ask(openConfig, newFake(fakeTime), tt.method, tt.path)
		if rw.Code != http.StatusMethodNotAllowed || rw.Header().Get("Allow") != tt.allow {
			t.Errorf("%s %s: %d, Allow %q", tt.method, tt.path, rw.Code, rw.Header().Get("Allow"))
		}
	}
}

// A browser is told what an answer is not for.
func TestSecurityHeaders(t *testing.T) {
	for _, path := range []string{"/", "/api/v1/meters", "/healthz", "/nothing", "/.."} {
		h := ask(openConfig, newFake(fakeTime), http.MethodGet, path).Header()
		policy := h.Get("Content-Security-Policy")
		if !strings.Contains(policy, "default-src 'self'") || !strings.Contains(policy, "frame-ancestors 'self'") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: Content-Security-Policy %q", path, policy)
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin"} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		if path == "/api/v1/meters" && h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: Cache-Control is %q", path, h.Get("Cache-Control"))
		}
	}
}

// Who guesses has to wait, right or wrong; everybody else has not.
func TestGuesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		cfg := passwordConfig
		cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		h := Handler(cfg, newFake(fakeTime))
		try := func(peer, password string) *httptest.ResponseRecorder {
			rw := httptest.NewRecorder()
			h.ServeHTTP(rw, request(http.MethodGet, "/api/v1/meters", from(peer), login("owner", password)))
			return rw
		}
		for i := range freeGuesses {
			if rw := try("192.0.2.66", fmt.Sprint(i)); rw.Code != http.StatusUnauthorized {
				t.Fatalf("guess %d: %d", i, rw.Code)
			}
		}
		for _, password := range []string{"another", "käse"} {
			rw := try("192.0.2.66", password)
			if rw.Code != http.StatusTooManyRequests || rw.Header().Get("Retry-After") != "2" || !strings.Contains(rw.Body.String(), `"retry_after_s":2`) {
				t.Errorf("%q after too many: %d %v %s", password, rw.Code, rw.Header(), rw.Body)
			}
		}
		if rw := try("192.0.2.67", "käse"); rw.Code != http.StatusOK {
			t.Errorf("the owner meanwhile: %d", rw.Code)
		}
		time.Sleep(guessPause)
		if rw := try("192.0.2.66", "käse"); rw.Code != http.StatusOK {
			t.Errorf("the right one after the pause: %d", rw.Code)
		}
		guessed := 0
		for start := time.Now(); time.Since(start) < time.Hour; time.Sleep(time.Second / 4) {
			if try("192.0.2.66", "wrong").Code == http.StatusUnauthorized {
				guessed++
			}
		}
		if most := int(time.Hour/guessPause) + freeGuesses; guessed > most || guessed < most/2 {
			t.Errorf("%d guesses in an hour, want about %d", guessed, most)
		}
		if n := strings.Count(log.String(), "wrong user name or password"); n != 1 || strings.Contains(log.String(), "another") {
			t.Errorf("logged %d times: %s", n, log.String())
		}
	})
}

// A flood from everywhere takes no memory and locks nobody out.
func TestGuessers(t *testing.T) {
	g := guesses{paid: map[netip.Addr]time.Time{}}
	now := fakeTime
	var address [16]byte
	for i := range 5 * maxGuessers {
		address[0], address[1], address[2] = 0xFD, byte(i>>8), byte(i)
		if first, wait := g.note(netip.AddrFrom16(address), false, now); !first || wait != 0 {
			t.Fatalf("address %d: %t, %s", i, first, wait)
		}
		now = now.Add(time.Microsecond)
	}
	if len(g.paid) != maxGuessers {
		t.Errorf("%d addresses are remembered", len(g.paid))
	}
	if _, wait := g.note(netip.MustParseAddr("192.0.2.67"), true, now); wait != 0 {
		t.Errorf("the owner waits %s", wait)
	}
}

func TestAccepts(t *testing.T) {
	for accept, want := range map[string]bool{
		"": false, "*/*": true, "application/json": true, "Application/JSON; q=0.5": true, "application/*": true, "text/html": false,
		"text/html,application/xhtml+xml,*/*;q=0.8": true, "application/json;q=0, */*": false, "*/*;q=0": false, "application/json;q=0.000": false,
		"text/event-stream": false, ";,;q=,": false, "application/json;q=x": true,
	} {
		if got := accepts([]string{accept}, "application/json"); got != want {
			t.Errorf("%q: %t", accept, got)
		}
	}
	if !accepts(nil, "text/event-stream") {
		t.Error("no header allows all")
	}
	rw := ask(openConfig, newFake(fakeTime), http.MethodGet, "/api/v1/meters", header("Accept", "text/html"))
	if rw.Code != http.StatusNotAcceptable {
		t.Errorf("HTML of the API: %d", rw.Code)
	}
}

// Whatever is asked, by whomever: who may not see a meter does not, and every answer keeps
// the browser on its leash.
func FuzzGuard(f *testing.F) {
	right := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("owner:käse")) + "\r\n"
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /api/v1/meters HTTP/1.1\r\nHost: evil.example\r\n" + right + "\r\n",
		"GET /api/v1/meters/house/../house HTTP/1.1\r\nHost: 127.0.0.1:8099\r\nX-Ingress-Path: /a\r\n\r\n",
		"GET http://evil.example/api/v1/events?meter=house HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream, */*;q=0\r\n\r\n",
		"POST /api/v1/meters/house/read HTTP/1.1\r\nHost: [::1]:8099\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
		"POST /api/v1/meters/house/align?length=90s HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\nSec-Fetch-Site: none\r\n\r\n",
		"HEAD /assets/%2e%2e/page.go HTTP/1.0\r\n\r\n",
		"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Host: ,\r\n\r\n",
		"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		for who := range 3 {
			for how := range 3 {
				f.Add([]byte(s), byte(who), byte(how))
			}
		}
	}
	configs := []Config{openConfig, passwordConfig, ingressConfig}
	handlers := make([]http.Handler, len(configs))
	for i, cfg := range configs {
		handlers[i] = Handler(cfg, newFake(fakeTime))
	}
	f.Fuzz(func(t *testing.T, raw []byte, who, how byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond) // streams have no end
		defer cancel()
		r = r.WithContext(ctx)
		peer := []string{"192.0.2.66", "127.0.0.1", "172.30.32.2"}[who%3]
		r.RemoteAddr = peer + ":40000"
		cfg := configs[how%3]
		username, password, _ := r.BasicAuth()
		name := strings.ToLower(hostname(r.Host))
		ip, _ := netip.ParseAddr(name)
		may := cfg.Ingress.IsValid() && peer == "172.30.32.2" ||
			cfg.Username != "" && username == cfg.Username && password == cfg.Password ||
			cfg.Username == "" && peer == "127.0.0.1" && (name == "localhost" || ip.IsLoopback())

		rw := httptest.NewRecorder()
		handlers[how%3].ServeHTTP(rw, r)
		if rw.Code < 200 || rw.Code > 599 {
			t.Errorf("status %d", rw.Code)
		}
		if !may && (strings.Contains(rw.Body.String(), "80123456") || rw.Code < 300 && r.URL.Path != healthPath && r.URL.Path != readyPath) {
			t.Errorf("%s sees %q of %s: %d", peer, r.URL, r.Host, rw.Code)
		}
		if strings.Contains(rw.Body.String(), "package web") {
			t.Error("source code")
		}
		for _, h := range []string{"Content-Security-Policy", "X-Content-Type-Options"} {
			if rw.Header().Get(h) == "" {
				t.Errorf("no %s", h)
			}
		}
	})
}

// A house has endless addresses of IPv6, and counts as one.
func TestHousehold(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "127.0.0.1": "127.0.0.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "2001:db8:1:2::9": "2001:db8:1:2::",
	} {
		if got := household(netip.MustParseAddr(text)).String(); got != want {
			t.Errorf("%s counts as %s, want %s", text, got, want)
		}
	}
}
