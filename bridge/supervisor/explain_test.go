package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestExplainer: who may see which page.
func TestExplainer(t *testing.T) {
	devices := t.TempDir()
	for _, name := range []string{"usb-head<1>", "usb-other"} {
		if err := os.WriteFile(filepath.Join(devices, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	settings := errors.New("the settings are not usable:\n  METERS: meter \"<b>\": no port")
	for _, tt := range []struct {
		name, method, path, remote string
		problem                    error
		status                     int
		want                       []string
	}{
		{"no meters", "GET", "/", "172.30.32.2:1", ErrNoMeters, 200, []string{"Name your first meter", "usb-head&lt;1&gt;", "usb-other"}},
		{"no broker", "GET", "/", "172.30.32.2:1", ErrNoBroker, 200, []string{"Waiting for an MQTT broker", "install and start the app Mosquitto broker", "goes on by itself"}},
		{"wrong settings", "GET", "/", "[::ffff:172.30.32.2]:1", settings, 200, []string{"cannot start like this", "option meters: meter &#34;&lt;b&gt;&#34;: no port"}},
		{"another app", "GET", "/", "172.30.33.5:1", settings, 403, []string{"Open this page in Home Assistant"}},
		{"no address", "GET", "/", "@", settings, 403, nil},
		{"watchdog", "GET", "/healthz", "172.30.33.5:1", settings, 200, []string{"ok"}},
		{"another page", "GET", "/options.json", "172.30.32.2:1", settings, 404, nil},
		{"traversal", "GET", "/../etc/passwd", "172.30.32.2:1", settings, 307, nil},
		{"a change", "POST", "/", "172.30.32.2:1", settings, 405, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), tt.method, tt.path, nil)
			r.RemoteAddr = tt.remote
			w := httptest.NewRecorder()
			Options{Devices: devices}.filled().explainer(tt.problem).ServeHTTP(w, r)
			if w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}
			for _, want := range tt.want {
				if !strings.Contains(w.Body.String(), want) {
					t.Errorf("%q is not in %s", want, w.Body)
				}
			}
			if w.Code != http.StatusOK && strings.Contains(w.Body.String(), "no port") {
				t.Errorf("says too much: %s", w.Body)
			}
		})
	}
}

// TestExplain: the page is there until the end, and its port is free after it.
func TestExplain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	o := Options{Listen: address, Ingress: netip.MustParseAddr("127.0.0.1"), Devices: filepath.Join(t.TempDir(), "none")}.filled()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- o.explain(ctx, l, ErrNoMeters) }()

	resp, err := http.Get("http://" + address + "/")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(body), "Name your first meter") || !strings.Contains(string(body), "None that has a lasting name") {
		t.Errorf("got %s", body)
	}
	if err := Explain(ctx, o, ErrNoMeters); err == nil || !strings.Contains(err.Error(), address) {
		t.Errorf("a port that is taken: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	again, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("the port is still taken: %v", err)
	}
	again.Close()
}

// TestBrokerComes: the app goes on when the Supervisor tells a broker, and only where that
// was the problem.
func TestBrokerComes(t *testing.T) {
	for _, problem := range []error{ErrNoBroker, fmt.Errorf("x: %w", &notReadyError{errors.New("status 503")})} {
		synctest.Test(t, func(t *testing.T) {
			asked := 0
			o := Options{Client: &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
				if asked++; asked < 4 {
					return response(400, `{"result":"error","message":"Service not enabled"}`), nil
				}
				return response(200, mosquitto), nil
			})}}.filled()
			start := time.Now()
			if err := o.hold(t.Context(), problem, nil); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); asked != 4 || took != time.Minute {
				t.Errorf("asked %d times in %v", asked, took)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		o := Options{Client: &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			t.Error("the Supervisor was asked")
			return response(200, mosquitto), nil
		})}}.filled()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		start := time.Now()
		if err := o.hold(ctx, ErrNoMeters, nil); err != nil || time.Since(start) != time.Hour {
			t.Errorf("ended after %v: %v", time.Since(start), err)
		}
	})
}
