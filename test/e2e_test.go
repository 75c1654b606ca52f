//go:build e2e

// Package test runs kmp2mqtt as its users do: the real program between simulated meters,
// serial servers, brokers and what subscribes to them. `make e2e` runs it; test/setup.sh
// installs what it needs.
package test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	host = "127.0.0.1"
	// patience is how long a condition may take to come true before the test fails.
	// It is no promise about speed: the machine may be busy.
	patience = 30 * time.Second
	// glance is the time between two looks at a condition.
	glance = 20 * time.Millisecond
)

// raceDetector keeps the race detector from holding a program for a second at its end.
const raceDetector = "GORACE=atexit_sleep_ms=0"

// program is the binary under test, built once by TestMain.
var program string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	// Debian keeps daemons out of a user's path.
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	for _, tool := range []string{"mosquitto", "mosquitto_sub", "mosquitto_pub", "mosquitto_passwd", "ser2net", "socat", "node", "stdbuf", "prometheus", "promtool", "chromium"} {
		if _, err := exec.LookPath(tool); err != nil {
			fmt.Fprintf(os.Stderr, "%v; run test/setup.sh\n", err)
			return 1
		}
	}
	dir, err := os.MkdirTemp("", "kmp2mqtt-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "kmp2mqtt")
	build := exec.Command("go", "build", "-race", "-o", program, "kmp2mqtt") //nolint:noctx // go test's own limit ends it
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// process is a program that runs beside the test, with the programs that it starts.
type process struct {
	name string
	cmd  *exec.Cmd
	out  *transcript // standard output
	log  *transcript // standard error
	done chan struct{}
}

// start runs a program until the test ends. Its last words are shown if the test fails.
// The environment holds nothing of the caller's but what every program needs; a page is shown to those that want one.
func start(t *testing.T, env []string, name string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	p := &process{
		name: filepath.Base(name), cmd: exec.CommandContext(ctx, name, args...),
		out: &transcript{}, log: &transcript{}, done: make(chan struct{}),
	}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TZ=UTC", "HTTP_LISTEN=off", raceDetector}, env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Cancel = func() error { return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait() //nolint:errcheck // its status is asked for where it matters
		close(p.done)
	}()
	t.Cleanup(func() {
		cancel()
		<-p.done
		if strings.Contains(p.log.String(), "WARNING: DATA RACE") {
			t.Errorf("%s: data race", p.name)
		}
		if t.Failed() {
			t.Logf("--- %s %s\n%s%s", p.name, strings.Join(args, " "), p.out.tail(), p.log.tail())
		}
	})
	return p
}

// signal sends a signal to the program and those it started.
func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(-p.cmd.Process.Pid, s); err != nil {
		t.Fatalf("%s: %v: %v", p.name, s, err)
	}
}

// end sends a signal and waits until the program is gone. It returns the exit status.
func (p *process) end(t *testing.T, s syscall.Signal) int {
	t.Helper()
	p.signal(t, s)
	return p.status(t)
}

// status waits until the program is gone and returns its exit status, -1 for a signal.
func (p *process) status(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("%s does not end", p.name)
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// says waits until the program has logged every one of texts.
func (p *process) says(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		eventually(t, fmt.Sprintf("%s says %q", p.name, text), func() bool {
			ended := !p.running() // asked first: the last words count, too
			said := strings.Contains(p.log.String(), text)
			if ended && !said {
				t.Fatalf("%s has ended without saying %q", p.name, text)
			}
			return said
		})
	}
}

// transcript keeps what a program writes.
type transcript struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *transcript) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *transcript) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// from is what was written behind the first n bytes.
func (w *transcript) from(n int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.b.Bytes()[n:])
}

// tail is the end of it, without the frames, and short enough to be read.
func (w *transcript) tail() string {
	const most = 60
	lines := slices.DeleteFunc(strings.SplitAfter(w.String(), "\n"), func(line string) bool { return strings.Contains(line, " DBG frame ") })
	if n := len(lines) - most; n > 0 {
		lines = append([]string{"...\n"}, lines[n:]...)
	}
	return strings.Join(lines, "")
}

// eventually waits until ok is true. The test fails if that takes too long.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	within(t, patience, what, ok)
}

// within is eventually with a limit of its own.
func within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(glance) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain: %s", limit, what)
		}
	}
}

// ports are handed out from below the range that the system takes for itself, from a
// random beginning, so that two runs on one machine do not meet.
var ports = firstPort()

func firstPort() *atomic.Uint32 {
	p := new(atomic.Uint32)
	p.Store(15000 + rand.Uint32N(10000))
	return p
}

// freePort returns a port on which nobody listens.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := int(ports.Add(1))
		l, err := net.Listen("tcp", address(port)) //nolint:noctx // returns at once
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

func address(port int) string { return fmt.Sprintf("%s:%d", host, port) }

// listens waits until somebody accepts connections on a port.
func listens(t *testing.T, port int, who *process) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s listens on port %d", who.name, port), func() bool {
		if !who.running() {
			t.Fatalf("%s has ended", who.name)
		}
		conn, err := net.DialTimeout("tcp", address(port), time.Second) //nolint:noctx // has a limit
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// output runs a command to its end and returns its standard output.
func output(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, exit.Stderr)
		}
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return string(out)
}

// bridge starts kmp2mqtt with settings such as "METERS=house=sim://403".
func bridge(t *testing.T, settings ...string) *process {
	t.Helper()
	return start(t, settings, program)
}

// simulate starts a simulated meter on TCP and returns its line.
func simulate(t *testing.T, flags ...string) (*process, string) {
	t.Helper()
	p := start(t, nil, program, append([]string{"simulate", "-listen", "tcp://" + address(0)}, flags...)...)
	eventually(t, "the simulated meter says where it is", func() bool { return strings.Contains(p.out.String(), "\n") })
	return p, strings.TrimSpace(p.out.String())
}

// simulatePTY starts a simulated meter on a pseudo terminal that is linked at path.
func simulatePTY(t *testing.T, path string, flags ...string) *process {
	t.Helper()
	p := start(t, nil, program, append([]string{"simulate", "-pty", path}, flags...)...)
	eventually(t, "the pseudo terminal is there", func() bool {
		_, err := os.Stat(path)
		return err == nil
	})
	return p
}
