// Command measure prints the numbers of docs/benchmarks.md that concern the whole
// program: what a reading costs beyond the time on the line, how long a command and
// a message take, memory, processor time and size. `make bench` runs it.
//
// The program is the real one, built as for a release; the meter is simulated, paced
// as 1200 baud 8N2 where the line's time matters, and recorded byte by byte.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"kmp2mqtt/bridge"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/sim"
)

const (
	turnaround = 20 * time.Millisecond
	eight      = "60,68,74,80,86,87,89,1004"
	sixteen    = eight + ",72,97,110,99,113,123,124,127"
)

func main() {
	log.SetFlags(0)
	if err := measure(); err != nil {
		log.Fatal("measure: ", err)
	}
}

func measure() error {
	dir, err := os.MkdirTemp("", "kmp2mqtt-measure")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "kmp2mqtt")
	build := exec.Command("go", "build", "-tags", "nethttpomithttp2", "-trimpath", "-gcflags", "all=-l", "-gcflags", "kmp2mqtt/...=", "-ldflags", "-s -w", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build: %w", err)
	}
	info, err := os.Stat(binary)
	if err != nil {
		return err
	}
	fmt.Printf("| what | measured | target |\n|---|---|---|\n")
	row("program, stripped", fmt.Sprintf("%.2f MB", float64(info.Size())/1e6), "under 15 MB")

	if err := line(binary); err != nil {
		return fmt.Errorf("line: %w", err)
	}
	for _, own := range []bool{false, true} {
		if err := process(binary, own); err != nil {
			return fmt.Errorf("process: %w", err)
		}
	}
	return nil
}

func row(what, measured, target string) { fmt.Printf("| %s | %s | %s |\n", what, measured, target) }

// line measures readings of eight and sixteen registers on a paced line.
func line(binary string) error {
	for _, tt := range []struct {
		name, registers string
		requests        int
	}{{"8", eight, 1}, {"16", sixteen, 2}} {
		b, err := start(binary, sim.Config{Model: "601", Seed: 1, Paced: true, Turnaround: turnaround}, tt.registers, "3s", false)
		if err != nil {
			return err
		}
		var durations, floors, gaps, publish, commands []time.Duration
		for range 10 {
			m, err := b.next(b.diagnostics)
			if err != nil {
				b.stop()
				return err
			}
			if m.duration == 0 {
				continue
			}
			exchanges := b.meter.exchanges(m.at)
			if len(exchanges) < tt.requests {
				continue
			}
			exchanges = exchanges[len(exchanges)-tt.requests:]
			var floor time.Duration
			for _, e := range exchanges {
				floor += time.Duration(e.sent+e.received)*kmp.DefaultByteTime + turnaround
			}
			for i := 1; i < len(exchanges); i++ {
				gap := exchanges[i].began.Sub(exchanges[i-1].ended)
				gaps = append(gaps, gap)
				floor += 10 * time.Millisecond // the pause that the protocol demands
			}
			durations, floors = append(durations, m.duration), append(floors, floor)
			state, err := b.lastState(exchanges[len(exchanges)-1].ended)
			if err == nil {
				publish = append(publish, state)
			}
		}
		durations, floors = durations[1:], floors[1:] // the first one identifies the meter as well
		d, f := median(durations), median(floors)
		row("reading of "+tt.name+" registers at 1200 baud", ms(d), "wire, turnaround and pauses "+ms(f)+" + 1 %")
		row("— beyond that", fmt.Sprintf("%s (%.2f %%)", ms(d-f), 100*float64(d-f)/float64(f)), "1 %")
		if len(gaps) > 0 {
			row("answer's end to second request's first byte", fmt.Sprintf("%s to %s", ms(slices.Min(gaps)), ms(slices.Max(gaps))), "9 to 20 ms")
		}
		if tt.requests == 1 {
			row("reading's end to message at a subscriber", fmt.Sprintf("%s, worst %s", ms(median(publish)), ms(slices.Max(publish))), "5 ms")
			for range 8 {
				took, err := b.readNow()
				if err != nil {
					b.stop()
					return err
				}
				commands = append(commands, took)
			}
			row("read-now to its answer, beyond the reading", fmt.Sprintf("%s, worst %s", ms(median(commands)), ms(slices.Max(commands))), "5 ms")
		}
		b.stop()
	}
	return nil
}

// process measures memory and processor time with one meter, read once a second on
// a line that takes no time, with the broker in the program or elsewhere.
func process(binary string, own bool) error {
	where, target := "the broker elsewhere", "under 1 ms"
	if own {
		where, target = "the built-in broker", "the broker's work included"
	}
	b, err := start(binary, sim.Config{Model: "601", Seed: 1, Turnaround: time.Millisecond}, eight, "1s", own)
	if err != nil {
		return err
	}
	defer b.stop()
	if _, err := b.next(b.diagnostics); err != nil {
		return err
	}
	before, err := b.cpu()
	if err != nil {
		return err
	}
	const readings = 60
	for range 2 {
		if err := b.look(); err != nil {
			return err
		}
	}
	for range readings {
		if _, err := b.next(b.diagnostics); err != nil {
			return err
		}
	}
	after, err := b.cpu()
	if err != nil {
		return err
	}
	if err := b.look(); err != nil {
		return err
	}
	rss, err := b.resident()
	if err != nil {
		return err
	}
	row("resident memory, one meter, page and metrics looked at, "+where, fmt.Sprintf("%.1f MB", float64(rss)/1e6), "under 20 MB")
	row("processor time a reading, everything included, "+where, ms((after-before)/readings), target)
	return nil
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/1e6) }

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	d = slices.Clone(d)
	slices.Sort(d)
	return d[len(d)/2]
}

// exchange is one request and its answer as the meter saw them.
type exchange struct {
	began, ended   time.Time // first byte of the request, last byte of the answer
	sent, received int
}

// recorder is a meter's end of a line that notes what passes.
type recorder struct {
	net.Conn
	mu   sync.Mutex
	list []exchange
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	if n > 0 {
		if last := len(r.list) - 1; last < 0 || r.list[last].received > 0 {
			r.list = append(r.list, exchange{began: time.Now()})
		}
		r.list[len(r.list)-1].sent += n
	}
	return n, err
}

func (r *recorder) Write(p []byte) (int, error) {
	n, err := r.Conn.Write(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	if last := len(r.list) - 1; last >= 0 {
		r.list[last].received += n
		r.list[last].ended = time.Now()
	}
	return n, err
}

// exchanges returns what has ended before t.
func (r *recorder) exchanges(t time.Time) []exchange {
	r.mu.Lock()
	defer r.mu.Unlock()
	var done []exchange
	for _, e := range r.list {
		if e.received > 0 && e.ended.Before(t) {
			done = append(done, e)
		}
	}
	return done
}

// arrival is a message as the subscriber got it.
type arrival struct {
	at       time.Time
	duration time.Duration // of the reading, in diagnostics
}

// bench is one running bridge with its meter and a subscriber.
type bench struct {
	page   string // its address
	cmd    *exec.Cmd
	meter  *recorder
	cancel context.CancelFunc
	client mqtt.Client

	diagnostics, answers chan arrival
	mu                   sync.Mutex
	states               []time.Time
}

// start runs a bridge that reads a meter every interval. Its broker is the built-in
// one, or the same kind in this process.
// free is an address that nobody has.
func free() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// look asks for everything that the page shows, and for the metrics.
func (b *bench) look() error {
	for _, path := range []string{"/", "/?view=expert", "/?part=m", "/api/v1/meters/m/chart", "/metrics"} {
		response, err := http.Get("http://" + b.page + path)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, response.Body)
		if response.Body.Close(); err != nil || response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s, %w", path, response.Status, err)
		}
	}
	return nil
}

func start(binary string, cfg sim.Config, registers, interval string, own bool) (*bench, error) {
	meter, err := sim.New(cfg)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &bench{cancel: cancel, meter: &recorder{}, diagnostics: make(chan arrival, 100), answers: make(chan arrival, 100)}
	go func() {
		defer l.Close()
		if b.meter.Conn, err = l.Accept(); err == nil {
			_ = meter.Serve(ctx, b.meter) // ends with the bridge
		}
	}()
	broker, err := free()
	if err != nil {
		return nil, err
	}
	if b.page, err = free(); err != nil {
		return nil, err
	}
	b.cmd = exec.CommandContext(ctx, binary, "run")
	b.cmd.Cancel = func() error { return b.cmd.Process.Signal(syscall.SIGTERM) }
	b.cmd.Env = []string{
		"METERS=m=tcp://" + l.Addr().String(), "REGISTERS=" + registers, "READ_INTERVAL=" + interval,
		"LOG_LEVEL=warn", "HTTP_LISTEN=" + b.page,
	}
	if own {
		b.cmd.Env = append(b.cmd.Env, "MQTT_LISTEN="+broker)
	} else {
		server, err := bridge.StartBroker(ctx, broker, "", "", slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { server.Close() })
		b.cmd.Env = append(b.cmd.Env, "MQTT_URL=mqtt://"+broker)
	}
	b.cmd.Stderr = os.Stderr
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	o := mqtt.NewClientOptions().AddBroker("tcp://" + broker).SetClientID("measure").SetConnectRetry(true).SetConnectRetryInterval(50 * time.Millisecond)
	o.SetOrderMatters(true)
	b.client = mqtt.NewClient(o)
	if t := b.client.Connect(); !t.WaitTimeout(10 * time.Second) {
		b.stop()
		return nil, fmt.Errorf("no broker at %s", broker)
	}
	t := b.client.SubscribeMultiple(map[string]byte{"kmp2mqtt/m": 1, "kmp2mqtt/m/diagnostics": 1, "kmp2mqtt/m/response": 1}, b.message)
	if t.Wait(); t.Error() != nil {
		b.stop()
		return nil, t.Error()
	}
	return b, nil
}

func (b *bench) message(_ mqtt.Client, m mqtt.Message) {
	at := time.Now()
	switch m.Topic() {
	case "kmp2mqtt/m":
		b.mu.Lock()
		b.states = append(b.states, at)
		b.mu.Unlock()
	case "kmp2mqtt/m/response":
		b.answers <- arrival{at: at}
	default:
		var d struct {
			Duration float64 `json:"read_duration_s"`
		}
		if err := json.Unmarshal(m.Payload(), &d); err == nil {
			b.diagnostics <- arrival{at, time.Duration(d.Duration * 1e9)}
		}
	}
}

func (b *bench) next(c chan arrival) (arrival, error) {
	select {
	case a := <-c:
		return a, nil
	case <-time.After(30 * time.Second):
		return arrival{}, fmt.Errorf("no message in 30 s")
	}
}

// lastState is how long after t the first state arrived.
func (b *bench) lastState(t time.Time) (time.Duration, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, at := range b.states {
		if at.After(t) {
			return at.Sub(t), nil
		}
	}
	return 0, io.EOF
}

// readNow publishes a command and returns how much longer than the reading itself
// its answer took.
func (b *bench) readNow() (time.Duration, error) {
	if _, err := b.next(b.diagnostics); err != nil { // a scheduled reading has just ended
		return 0, err
	}
	time.Sleep(50 * time.Millisecond)
	began := time.Now()
	b.client.Publish("kmp2mqtt/m/get", 1, false, []byte("{}"))
	a, err := b.next(b.answers)
	if err != nil {
		return 0, err
	}
	if _, err := b.next(b.diagnostics); err != nil {
		return 0, err
	}
	done := b.meter.exchanges(a.at)
	e := done[len(done)-1]
	return a.at.Sub(began) - e.ended.Sub(e.began), nil
}

// cpu is the processor time the bridge has used.
func (b *bench) cpu() (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", b.cmd.Process.Pid)) // nanoseconds of each thread
	if err != nil {
		return 0, err
	}
	var total time.Duration
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return 0, err
		}
		ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			return 0, err
		}
		total += time.Duration(ns)
	}
	return total, nil
}

// resident is the memory that the bridge occupies, in bytes.
func (b *bench) resident() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(text)) {
		if fields := strings.Fields(l); len(fields) > 1 && fields[0] == "VmRSS:" {
			kb, err := strconv.ParseInt(fields[1], 10, 64)
			return kb * 1024, err
		}
	}
	return 0, io.ErrUnexpectedEOF
}

func (b *bench) stop() {
	b.client.Disconnect(100)
	_ = b.cmd.Process.Signal(syscall.SIGTERM)
	_ = b.cmd.Wait() // ended on purpose
	b.cancel()       // after it, lest it complains of a broker that is gone
}
