package statistics

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"kmp2mqtt/bridge/statistics/hatest"
)

// TestStream: over the machine's own network, where pings are answered while both sides write.
func TestStream(t *testing.T) {
	h := hatest.New(token)
	h.SetEntities(hatest.Entity{ID: sensorID, UniqueID: uniqueID})
	h.SetStatistic(hatest.Statistic{ID: sensorID, Unit: "GJ", UnitClass: "energy"})
	h.Count(sensorID, hour(-500009), "100")
	h.Hook = func(string, []byte) *hatest.Reply { return &hatest.Reply{Ping: true} }
	server := httptest.NewServer(h)
	defer server.Close()
	src := newSource(energy(map[int]string{-500008: "101"}))
	runUntil(t, server.URL, src, &logLines{}, func() bool { return src.left() == 0 })
	if got := h.Rows(sensorID)[1]; got.Sum != "1" {
		t.Errorf("got %v", got)
	}
	if h.Pongs() < 4 {
		t.Errorf("%d pings were answered", h.Pongs())
	}
}

// TestTLS: a certificate that nobody signed is said to be one, and a port without TLS to have none.
func TestTLS(t *testing.T) {
	h := hatest.New(token)
	plain, secure := httptest.NewServer(h), httptest.NewTLSServer(h)
	defer plain.Close()
	defer secure.Close()
	for address, reason := range map[string]string{
		secure.URL: "unknown certificate authority",
		strings.Replace(plain.URL, "http:", "https:", 1): "no TLS there",
	} {
		log := &logLines{}
		runUntil(t, address, newSource(energy(map[int]string{-500008: "101"})), log, func() bool { return log.count("cannot be reached") > 0 })
		if log.count(reason) != 1 {
			t.Errorf("%s: should say %q\n%s", address, reason, log)
		}
	}
}

// runUntil runs the importer until something is so.
func runUntil(t *testing.T, address string, src Source, log *logLines, so func() bool) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		Run(ctx, Config{URL: u, Token: token, Log: slog.New(slog.NewTextHandler(log, nil))}, src)
	}()
	for ticks := time.NewTicker(10 * time.Millisecond); !so(); {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			t.Fatalf("it never was so\n%s", log)
		}
	}
	cancel()
	<-done
}
