//go:build e2e

package test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// serviceManager is the socket that systemd gives to a service.
type serviceManager struct {
	path string
	mu   sync.Mutex
	said []string
}

func newServiceManager(t *testing.T) *serviceManager {
	t.Helper()
	m := &serviceManager{path: filepath.Join(t.TempDir(), "notify")}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.said = append(m.said, string(b[:n]))
			m.mu.Unlock()
		}
	}()
	return m
}

// heard counts the messages that begin with a word.
func (m *serviceManager) heard(word string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.said {
		if strings.HasPrefix(s, word) {
			n++
		}
	}
	return n
}

// fetch gets a page of a program.
func fetch(t *testing.T, url string) (status int, body string) {
	t.Helper()
	response, err := http.Get(url) //nolint:noctx // the test's own limit ends it
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(b)
}

// The service manager is told when broker and line were tried, then that the bridge lives,
// and that it stops. `health` says the same to scripts.
func TestServiceManager(t *testing.T) {
	t.Parallel()
	manager, broker := newServiceManager(t), freePort(t)
	page := address(freePort(t))
	settings := []string{
		"METERS=house=sim://403?address=0x3F", "READ_INTERVAL=1s", fmt.Sprintf("MQTT_LISTEN=%s", address(broker)),
		"HTTP_LISTEN=" + page, "NOTIFY_SOCKET=" + manager.path, "WATCHDOG_USEC=2000000",
	}
	p := start(t, settings, program)
	eventually(t, "it is ready", func() bool { return manager.heard("READY=1") == 1 })
	eventually(t, "it lives", func() bool { return manager.heard("WATCHDOG=1\nSTATUS=1 of 1 meters online, broker connected") > 2 })

	health := func(args ...string) *process {
		return start(t, settings[3:4], program, append([]string{"health"}, args...)...)
	}
	if h := health(); h.status(t) != 0 || strings.TrimSpace(h.out.String()) != "ok" {
		t.Errorf("health: %s%s", h.out, h.log)
	}
	eventually(t, "all is well", func() bool { return health("-ready").status(t) == 0 })

	if got := p.end(t, syscall.SIGTERM); got != 0 {
		t.Errorf("status %d", got)
	}
	if manager.heard("STOPPING=1") != 1 {
		t.Error("it did not say that it stops")
	}
	if h := health(); h.status(t) != 1 || !strings.Contains(h.log.String(), "does not answer") {
		t.Errorf("health of nobody: %s%s", h.out, h.log)
	}
}

// Without broker and line the bridge is ready all the same, for it tries; /readyz tells what
// is missing.
func TestServiceManagerNothingThere(t *testing.T) {
	t.Parallel()
	manager, page := newServiceManager(t), address(freePort(t))
	start(t, []string{
		"METERS=house=/dev/ttyNOTHING", "MQTT_URL=mqtt://" + address(freePort(t)), "HTTP_LISTEN=" + page, "NOTIFY_SOCKET=" + manager.path,
	}, program)
	eventually(t, "it is ready", func() bool { return manager.heard("READY=1\nSTATUS=0 of 1 meters online, no broker") == 1 })
	if status, body := fetch(t, "http://"+page+"/healthz"); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	if status, body := fetch(t, "http://"+page+"/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "house") || !strings.Contains(body, "broker") {
		t.Errorf("%d %s", status, body)
	}
}

// A port that is taken costs the page, not the readings; when it is free the page comes.
func TestPagePortTaken(t *testing.T) {
	t.Parallel()
	page := address(freePort(t))
	l, err := net.Listen("tcp", page) //nolint:noctx // returns at once
	if err != nil {
		t.Fatal(err)
	}
	broker := freePort(t)
	p := start(t, []string{"METERS=house=sim://403", "READ_INTERVAL=1s", "MQTT_LISTEN=" + address(broker), "HTTP_LISTEN=" + page}, program)
	p.says(t, "cannot serve the page; trying again", "HTTP_LISTEN", "meter found")
	l.Close()
	within(t, 2*patience, "the page comes", func() bool { status, _ := fetch(t, "http://"+page+"/"); return status == http.StatusOK })
}

// A support bundle is a meter again: the simulator answers from it as the meter did.
func TestSupportBundle(t *testing.T) {
	t.Parallel()
	page, broker := address(freePort(t)), freePort(t)
	start(t, []string{
		"METERS=house=sim://603?echo=true", "READ_INTERVAL=1s", "REGISTERS=energy,volume,operating_hours", "MQTT_LISTEN=" + address(broker), "HTTP_LISTEN=" + page,
		"MQTT_USERNAME=me", "MQTT_PASSWORD=s3cret-of-the-broker",
	}, program)
	var bundle string
	eventually(t, "there are frames", func() bool {
		var status int
		status, bundle = fetch(t, "http://"+page+"/api/v1/meters/house/bundle")
		return status == http.StatusOK && strings.Count(bundle, "from_meter") > 3
	})
	if strings.Contains(bundle, "s3cret") {
		t.Error("the password is in the bundle")
	}
	file := filepath.Join(t.TempDir(), "bundle.json")
	if err := os.WriteFile(file, []byte(bundle), 0o600); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	s := start(t, nil, program, "simulate", "-replay", file, "-listen", "tcp://"+address(port))
	listens(t, port, s)
	got := output(t, "", program, "read", "-json", fmt.Sprintf("tcp://%s", address(port)), "energy", "volume")
	for _, want := range []string{`"serial": "80123456"`, `"name": "energy"`, `"name": "volume"`} {
		if !strings.Contains(strings.ReplaceAll(got, `":"`, `": "`), want) {
			t.Errorf("%s does not have %s", got, want)
		}
	}
}
