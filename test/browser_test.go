//go:build e2e

package test

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// livelyMeter is a simulated meter whose day passes in five minutes. It remembers hours from
// before.
const livelyMeter = "sim://403?history=hour&speed=288&echo=true"

// pageOf starts a bridge with a page, and returns it with the page's address.
func pageOf(t *testing.T, settings ...string) (*process, string) {
	t.Helper()
	port := freePort(t)
	p := bridge(t, append([]string{"HTTP_LISTEN=" + address(port), "MQTT_LISTEN=" + address(freePort(t)), "READ_INTERVAL=1s"}, settings...)...)
	listens(t, port, p)
	return p, "http://" + address(port) + "/"
}

// browse has a browser go through checks of test/browser/checks.mjs. What a check asks for is
// done by one of deeds.
func browse(t *testing.T, env []string, page string, deeds map[string]func(), checks ...string) string {
	t.Helper()
	const patience = 5 * time.Minute // for all of them: a browser on a busy machine
	script, err := filepath.Abs("browser/checks.mjs")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("browser/node_modules/playwright-core"); err != nil {
		t.Fatalf("%v; run test/setup.sh", err)
	}
	asked, done := make(chan string), make(chan bool)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case asked <- strings.TrimPrefix(r.URL.Path, "/"):
			<-done
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(s.Close)
	p := start(t, append(env, "DEEDS="+s.URL), "node", append([]string{script, page}, checks...)...)
	for limit := time.After(patience); p.running(); {
		select {
		case what := <-asked:
			deeds[what]()
			done <- true
		case <-p.done:
		case <-limit:
			t.Fatalf("waited %v in vain for the browser to look at %s", patience, strings.Join(checks, ", "))
		}
	}
	if status := p.status(t); status != 0 {
		t.Fatalf("status %d", status)
	}
	return p.out.String()
}

func TestPage(t *testing.T) {
	t.Parallel()
	_, page := pageOf(t, "METERS=house="+livelyMeter, "DATA_DIR="+t.TempDir())
	browse(t, nil, page, nil, "values", "plain", "units", "charts", "keyboard", "narrow", "axe")
	out := browse(t, []string{"SECRET=hunter2"}, page, nil, "expert", "read")
	_, copied, _ := strings.Cut(out, "copied: kmp2mqtt ")
	copied, _, _ = strings.Cut(copied, "\n")
	if text := output(t, "", program, strings.Fields(copied)...); !strings.Contains(text, "command") {
		t.Errorf("kmp2mqtt %s says %q", copied, text)
	}
}

// The meter does not answer and the broker is away: the page says what to do.
func TestPageTrouble(t *testing.T) {
	t.Parallel()
	_, page := pageOf(t, "METERS=house=sim://403?silence=true&echo=true", fmt.Sprintf("MQTT_URL=mqtt://%s", address(freePort(t))))
	browse(t, nil, page, nil, "silent")
}

func TestPageManyMeters(t *testing.T) {
	t.Parallel()
	var meters []string
	for _, name := range []string{"one", "two", "three", "four", "five", "six", "seven"} {
		meters = append(meters, fmt.Sprintf("%s=sim://403?serial=%d&label=Flat+%s", name, 80123456+len(meters), name))
	}
	_, page := pageOf(t, "METERS="+strings.Join(meters, " "))
	browse(t, nil, page, nil, "many")
}

// Home Assistant shows the page below a path of its own, which it strips. It works with a
// slash at the end of that path and without one.
func TestPageBehindIngress(t *testing.T) {
	t.Parallel()
	const prefix = "/api/hassio_ingress/a1B2-c3"
	_, page := pageOf(t, "METERS=house="+livelyMeter, "DATA_DIR="+t.TempDir(), "HTTP_INGRESS="+host, "HTTP_USERNAME=owner", "HTTP_PASSWORD=s3cret")
	target, err := url.Parse(page)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0), // a browser that leaves a page breaks its streams off
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.URL.Path = "/" + strings.TrimPrefix(strings.TrimPrefix(r.In.URL.Path, prefix), "/")
			r.SetXForwarded()
			r.Out.Header.Set("X-Ingress-Path", prefix)
		},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != prefix && !strings.HasPrefix(r.URL.Path, prefix+"/") {
			t.Errorf("%s is asked for, which is not below %s", r.URL.Path, prefix)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	browse(t, nil, s.URL+prefix+"/", nil, "values", "charts", "expert", "keyboard")
	browse(t, nil, s.URL+prefix, nil, "values", "charts", "expert", "axe")
}

func TestPageWithPassword(t *testing.T) {
	t.Parallel()
	_, page := pageOf(t, "METERS=house="+livelyMeter, "DATA_DIR="+t.TempDir(), "HTTP_USERNAME=owner", "HTTP_PASSWORD=s3cret and long")
	browse(t, []string{"PAGE_USERNAME=owner", "PAGE_PASSWORD=s3cret and long", "SECRET=s3cret and long"}, page, nil, "values", "charts", "expert", "read", "password")
}

// Somebody puts the head on while the page shows how it sits.
func TestPageAlign(t *testing.T) {
	t.Parallel()
	_, line := simulate(t, "-echo")
	head := newHead(t, strings.TrimPrefix(line, "tcp://"))
	_, page := pageOf(t, "METERS=house=tcp://"+head.listen.Addr().String())
	browse(t, nil, page, map[string]func(){"put the head on": func() { head.on.Store(true) }}, "align")
}

func TestPageLost(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	run := func() *process {
		p := bridge(t, "HTTP_LISTEN="+address(port), "MQTT_LISTEN="+address(freePort(t)), "READ_INTERVAL=1s", "METERS=house="+livelyMeter)
		listens(t, port, p)
		return p
	}
	p := run()
	browse(t, nil, "http://"+address(port)+"/", map[string]func(){
		"stop the program":  func() { p.end(t, syscall.SIGTERM) },
		"start the program": func() { p = run() },
	}, "lost")
}

// head is an optical head beside a meter: what the meter says gets through once it is on.
type head struct {
	listen net.Listener
	on     atomic.Bool
}

func newHead(t *testing.T, meter string) *head {
	t.Helper()
	l, err := net.Listen("tcp", address(0)) //nolint:noctx // returns at once
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	h := &head{listen: l}
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			go h.carry(near, meter)
		}
	}()
	return h
}

// carry passes bytes on. Those of the meter get lost as long as the head is not on it.
func (h *head) carry(near net.Conn, meter string) {
	defer near.Close()
	far, err := net.Dial("tcp", meter) //nolint:noctx // on this machine
	if err != nil {
		return
	}
	defer far.Close()
	go func() {
		io.Copy(far, near) //nolint:errcheck // the end of a connection
		far.Close()
	}()
	p := make([]byte, 512)
	for {
		n, err := far.Read(p)
		if err != nil {
			return
		}
		if h.on.Load() {
			if _, err := near.Write(p[:n]); err != nil {
				return
			}
		}
	}
}
