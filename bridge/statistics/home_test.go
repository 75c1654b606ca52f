package statistics

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/bridge/statistics/hatest"
	"kmp2mqtt/kmp"
)

const (
	token    = "eyJ0.secret.token"
	sensorID = "sensor.heat_meter_energy"
	uniqueID = "kmp_12345678_energy"
	otherID  = "kmp2mqtt:12345678_energy"
)

// start is when a test begins, in its own time.
func start() time.Time { return time.Date(2026, 11, 21, 12, 20, 0, 0, time.UTC) }

// hour is so many hours from noon of that day.
func hour(n int) time.Time {
	return time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Hour)
}

// home is a Home Assistant in the test's own network.
type home struct {
	*hatest.Server
	t     *testing.T
	conns chan net.Conn
	log   *logLines
	front http.Handler // instead of Home Assistant

	mu       sync.Mutex
	refusal  error // instead of a connection
	attempts int   // to connect
}

// newHome returns a Home Assistant that knows the meter's sensor. It is for the bubble of one test, whose time it sets.
func newHome(t *testing.T) *home {
	t.Helper()
	time.Sleep(time.Until(start()))
	h := &home{Server: hatest.New(token), t: t, conns: make(chan net.Conn), log: &logLines{}}
	h.SetEntities(
		hatest.Entity{ID: "light.kitchen", UniqueID: uniqueID, Platform: "hue"},
		hatest.Entity{ID: sensorID, UniqueID: uniqueID},
	)
	h.SetStatistic(hatest.Statistic{ID: sensorID, Unit: "GJ", UnitClass: "energy"})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.front != nil {
			h.front.ServeHTTP(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})}
	go server.Serve(h)
	t.Cleanup(func() {
		server.Close()
		h.Hangup()
		synctest.Wait()
		if text := h.log.String(); strings.Contains(text, token) {
			t.Errorf("the log shows the token:\n%s", text)
		}
	})
	return h
}

// Accept, Close and Addr make it a listener.
func (h *home) Accept() (net.Conn, error) {
	if c, ok := <-h.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (h *home) Close() error {
	close(h.conns)
	return nil
}

func (h *home) Addr() net.Addr { return &net.TCPAddr{} }

func (h *home) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	h.mu.Lock()
	h.attempts++
	err := h.refusal
	h.mu.Unlock()
	if err != nil {
		return nil, err
	}
	client, server := net.Pipe()
	select {
	case h.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (h *home) config() Config {
	return Config{
		URL: &url.URL{Scheme: "http", Host: "homeassistant.local:8123"}, Token: token, Dial: h.dial,
		Log: slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
}

// refuse lets no connection through, but for nil.
func (h *home) refuse(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refusal = err
}

// run runs the importer for a while.
func (h *home) run(src Source, d time.Duration) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), d)
	defer cancel()
	Run(ctx, h.config(), src)
	synctest.Wait()
	if n := h.Connections(); n != 0 {
		h.t.Errorf("%d connections are left", n)
	}
}

// count lets Home Assistant count hours of the sensor: values by hour, as hour takes them.
func (h *home) count(values map[int]string) {
	hours := []int{}
	for n := range values {
		hours = append(hours, n)
	}
	slices.Sort(hours)
	for _, n := range hours {
		h.Count(sensorID, hour(n), values[n])
	}
}

// rows shows a statistic: "hour state sum" for each row.
func (h *home) rows(id string) (rows []string) {
	for _, r := range h.Rows(id) {
		rows = append(rows, fmt.Sprintf("%d %s %s", int(r.Start.Sub(hour(0))/time.Hour), r.State, r.Sum))
	}
	return rows
}

// imported is how many rows were sent to be imported since it was asked last.
func (h *home) imported() (rows int) {
	for _, c := range h.Calls() {
		var command struct{ Stats []any }
		if c.Command == "recorder/import_statistics" && json.Unmarshal(c.Message, &command) == nil {
			rows += len(command.Stats)
		}
	}
	return rows
}

// logLines is a log.
type logLines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// count is how many lines hold a text.
func (l *logLines) count(text string) (n int) {
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// source keeps series until they are done.
type source struct {
	mu      sync.Mutex
	series  []Series
	changed chan struct{}
	settled int
	err     error // of Pending
	doneErr error
	most    int // points of a series that are handed out at once; 0: all
}

func newSource(series ...Series) *source {
	return &source{series: series, changed: make(chan struct{}, 1)}
}

func (s *source) Pending() ([]Series, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	var pending []Series
	for _, series := range s.series {
		if len(series.Points) == 0 {
			continue
		}
		series.Points = slices.Clone(series.Points)
		if s.most > 0 && len(series.Points) > s.most {
			series.Points = series.Points[:s.most]
		}
		pending = append(pending, series)
	}
	return pending, nil
}

func (s *source) Done(done Series) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doneErr != nil {
		return s.doneErr
	}
	s.settled += len(done.Points)
	for i := range s.series {
		if s.series[i].UniqueID == done.UniqueID {
			s.series[i].Points = slices.DeleteFunc(s.series[i].Points, func(p Point) bool { return slices.Contains(done.Points, p) })
		}
	}
	return nil
}

func (s *source) Changed() <-chan struct{} { return s.changed }

// add makes points pending.
func (s *source) add(points ...Point) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.series[0].Points = append(s.series[0].Points, points...)
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *source) left() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, series := range s.series {
		n += len(series.Points)
	}
	return n
}

// energy is a series of the meter's energy in GJ: values by the hour whose row they become.
func energy(values map[int]string) Series {
	s := Series{Serial: "12345678", UniqueID: uniqueID, Name: "Heat meter energy", Register: "energy", Unit: kmp.UnitGJ, Log: kmp.LogHour}
	for n, value := range values {
		s.Points = append(s.Points, point(n, value))
	}
	return s
}

func point(n int, value string) Point {
	d, err := kmp.ParseDecimal(value)
	if err != nil {
		panic(err) // a mistake in the test
	}
	return Point{hour(n + 1), d}
}
