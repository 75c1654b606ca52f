package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"kmp2mqtt/bridge/history"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/diagnosis"
	"kmp2mqtt/kmp/logbook"
	"kmp2mqtt/kmp/sim"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kmp2mqtt": main})
}

// TestScripts runs the verbs as a user does. Every script has a free port in PORT and may
// wait with await for a port or a file.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			// Nothing of the caller's settings.
			for _, name := range []string{"PATH", "HOME", "WORK", "TMPDIR"} {
				e.Setenv(name, e.Getenv(name))
			}
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // returns at once
			if err != nil {
				return err
			}
			e.Setenv("PORT", strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
			return l.Close()
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"await": await, "status": status, "history": keepRows},
	})
}

// status runs kmp2mqtt, which must fail with a certain exit status.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N VERB [ARGUMENTS]")
	}
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](ts.Exec("kmp2mqtt", args[1:]...)); ok {
		got = exit.ExitCode()
	}
	if want := args[0]; strconv.Itoa(got) != want {
		ts.Fatalf("the exit status is %d, want %s", got, want)
	}
}

// await waits until a file is there, or somebody listens on 127.0.0.1:port.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await FILE or await 127.0.0.1:PORT")
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var err error
		if strings.HasPrefix(args[0], "127.0.0.1:") {
			var conn net.Conn
			if conn, err = net.Dial("tcp", args[0]); err == nil { //nolint:noctx // on this machine: at once
				conn.Close()
			}
		} else {
			_, err = os.Stat(ts.MkAbs(args[0]))
		}
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("await: %v", err)
		}
	}
}

// keepRows keeps rows of two meters in a directory, as a bridge does, or with none the
// names of the meters alone. With damaged the beginning of the file is lost afterwards.
func keepRows(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: history DIR [none|damaged]")
	}
	store, err := history.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer store.Close()
	ts.Check(store.SetName("4711", "house"))
	if args[len(args)-1] == "none" {
		return
	}
	at := time.Date(2026, 11, 21, 0, 0, 0, 0, time.FixedZone("", 3600))
	number := func(id uint16, unit kmp.Unit, mantissa int64, exponent int) []kmp.Register {
		d, err := kmp.NewDecimal(mantissa, exponent)
		ts.Check(err)
		r, err := kmp.NewRegister(id, unit, d, 4)
		ts.Check(err)
		return []kmp.Register{r}
	}
	ts.Check(store.Append("4711", []logbook.Row{
		{Log: kmp.LogDay, ID: 9, Time: at, Registers: number(60, kmp.UnitGJ, 227400, -3)},
		{Log: kmp.LogHour, ID: 188, Time: at.Add(7 * time.Hour), Registers: append(number(60, kmp.UnitGJ, 227445, -3), number(68, kmp.UnitCubicMetre, 1000, -2)...)},
		{Log: kmp.LogHour, ID: 189, Time: at.Add(8 * time.Hour), Correction: -90 * time.Second, Corrected: true, Registers: number(60, kmp.UnitGJ, 227450, -3)},
	}))
	ts.Check(store.Append("4712", []logbook.Row{
		{Log: kmp.LogDay, ID: 1, Registers: number(68, kmp.UnitLitre, 5, 0)},
		{Log: kmp.LogDay, ID: 2, Time: at, Registers: number(68, kmp.UnitLitre, 7, 0)},
	}))
	if args[len(args)-1] == "damaged" {
		ts.Check(store.Close())
		name := filepath.Join(ts.MkAbs(args[0]), "history.db")
		kept, err := os.ReadFile(name)
		ts.Check(err)
		clear(kept[:8192]) // both of its first pages, which say where the others are
		ts.Check(os.WriteFile(name, kept, 0o600))
	}
}

// A log that was interrupted has whole rows, says how to go on, and does so without a hole.
func TestLogInterrupted(t *testing.T) {
	const line = "sim://603?start=2026-11-21T07:30:00Z&tz=UTC"
	args := []string{"log", line, "hour", "-since", "2026-11-17", "-json"}
	var whole bytes.Buffer
	if status := (program{out: &whole, err: io.Discard}).run(t.Context(), args); status != exitFine {
		t.Fatalf("exit status %d", status)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	var begun, rest, said bytes.Buffer
	p := program{out: writerFunc(func(b []byte) (int, error) { interrupt(); return begun.Write(b) }), err: &said}
	if status := p.run(ctx, args); status != exitFailed {
		t.Errorf("exit status %d", status)
	}
	hint := regexp.MustCompile(`(?s)^(\d+) rows; go on with (-since) (\S+)\nkmp2mqtt log: interrupted\n$`).FindStringSubmatch(said.String())
	if hint == nil || hint[1] != strconv.Itoa(strings.Count(begun.String(), "\n")) {
		t.Fatalf("%q after %q", said.String(), begun.String())
	}
	p = program{out: &rest, err: io.Discard}
	if status := p.run(t.Context(), []string{"log", line, "hour", hint[2], hint[3], "-json"}); status != exitFine {
		t.Errorf("exit status %d", status)
	}
	if rest.Len() == 0 || withoutCorrections(append(begun.Bytes(), rest.Bytes()...)) != withoutCorrections(whole.Bytes()) {
		t.Errorf("%d bytes, then %d, of %d", begun.Len(), rest.Len(), whole.Len())
	}

	// The same in a file, which was cut off in the middle of a line besides.
	for _, format := range []string{"-json", "-csv"} {
		name := filepath.Join(t.TempDir(), "rows")
		args := []string{"log", line, "hour", "-since", "2026-11-17", format, "-registers", "energy"}
		whole.Reset()
		if status := (program{out: &whole, err: io.Discard}).run(t.Context(), args); status != exitFine {
			t.Fatalf("exit status %d", status)
		}
		for _, n := range []int{0, 50, whole.Len() / 2, whole.Len() - 1} {
			if err := os.WriteFile(name, whole.Bytes()[:n], 0o600); err != nil {
				t.Fatal(err)
			}
			said.Reset()
			if status := (program{out: io.Discard, err: &said}).run(t.Context(), append(slices.Clone(args), "-out", name)); status != exitFine {
				t.Errorf("exit status %d: %s", status, said.String())
			}
			if got, err := os.ReadFile(name); err != nil || withoutCorrections(got) != withoutCorrections(whole.Bytes()) {
				t.Errorf("%s of %d bytes: %d, want %d, %v", format, n, len(got), whole.Len(), err)
			}
		}
	}
}

// withoutCorrections are rows without what the clocks of this machine and of a meter that
// lives at another time are apart.
func withoutCorrections(rows []byte) string {
	return regexp.MustCompile(`("correction_s":|Z,)-?\d+,`).ReplaceAllString(string(rows), "")
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// A TZ that the standard library does not know, and silently takes for UTC, is told.
func TestUnknownZone(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // TZ has no meaning there
	}
	name := filepath.Join(t.TempDir(), "rubbish")
	if err := os.WriteFile(name, []byte("no zone"), 0o600); err != nil {
		t.Fatal(err)
	}
	for tz, unknown := range map[string]bool{
		"": false, "UTC": false, "Local": false, "Europe/Copenhagen": false, ":Europe/Berlin": false, "CET": false, ":": false,
		"Foo/Bar": true, "CET-1CEST": true, ":Foo/Bar": true, "europe": true, "/no/such/file": true, name: true, ":" + name: true,
	} {
		want := ""
		if unknown {
			want = tz
		}
		if got := (program{environ: []string{"TZ=" + tz}}).unknownZone(); got != want {
			t.Errorf("TZ=%s: %q", tz, got)
		}
	}
	// The bridge logs it once.
	ctx, end := context.WithCancel(t.Context())
	var said transcript
	p := program{environ: []string{"METERS=sim://403", "MQTT_LISTEN=127.0.0.1:0", "TZ=Foo/Bar", "LOG_FORMAT=json"}, out: io.Discard, err: &said}
	ended := make(chan int, 1)
	go func() { ended <- p.run(ctx, []string{"run"}) }()
	said.await(t, `("level":"WARN","msg":"TZ is no time zone that is known, so UTC is taken","tz":"Foo/Bar","advice":"write )`)
	end()
	<-ended
}

// A line that was pulled out cannot be read or opened; the meter lives on.
func TestPlug(t *testing.T) {
	meter, err := sim.New(sim.Config{Model: "403"})
	if err != nil {
		t.Fatal(err)
	}
	g := plug{meter: meter}
	for range 2 {
		line, err := g.dial(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		conn := kmp.NewConn(line, kmp.Options{})
		if _, err := conn.GetSerialNo(t.Context(), kmp.HeatMeter); err != nil {
			t.Error(err)
		}
		g.pull()
		if _, err := conn.GetSerialNo(t.Context(), kmp.HeatMeter); err == nil || errors.Is(err, kmp.ErrNoReply) {
			t.Errorf("pulled out: %v", err)
		}
		if _, err := g.dial(t.Context(), ""); !errors.Is(err, errUnplugged) {
			t.Errorf("pulled out: %v", err)
		}
		conn.Close()
		g.pull()
	}
}

// The demo shows the hours of its meter as they pass, and exports them while it runs; its
// line is pulled out and put back by somebody at the keyboard.
func TestDemo(t *testing.T) {
	t.Parallel()
	ctx, end := context.WithCancel(t.Context())
	keyboard, keys := io.Pipe()
	defer keys.Close()
	defer end()
	demo := new(transcript)
	ended := make(chan int, 1)
	go func() { ended <- program{out: demo, err: demo, keys: keyboard}.run(ctx, []string{"demo"}) }()
	press := func() {
		if _, err := io.WriteString(keys, "\n"); err != nil {
			t.Error(err)
		}
	}
	dir := demo.await(t, `DATA_DIR=(\S+) `)
	demo.await(t, `(?m)^kmp2mqtt/house (\{.*"energy_gj":.*)$`)
	demo.await(t, `(?m)^kmp2mqtt/house/history (\{"log":"hour","id":1,.*)$`)
	press()
	demo.await(t, `The (line is unplugged)\.`)
	demo.await(t, `cannot open the line.*(the line is unplugged; Enter plugs it back in)`)
	press()
	demo.await(t, `The (line is plugged in again)`)
	demo.await(t, `(line is open again)`)
	var rows, said bytes.Buffer
	if status := (program{out: &rows, err: &said}).run(t.Context(), []string{"export", "-json", "-data", dir}); status != exitFine {
		t.Errorf("export: exit status %d, %s", status, said.String())
	}
	if want := `{"log":"hour","id":1,"serial":"80123456","meter":"house","time":"`; !strings.HasPrefix(rows.String(), want) {
		t.Errorf("%q", rows.String())
	}
	end()
	if status := <-ended; status != exitFailed && status != exitFine {
		t.Errorf("exit status %d", status)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}

// transcript is what a program writes while it runs.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *transcript) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

// await waits until the text has an expression, and returns the group in it.
func (r *transcript) await(t *testing.T, expression string) string {
	t.Helper()
	wanted := regexp.MustCompile(expression)
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		r.mu.Lock()
		found, text := wanted.FindSubmatch(r.text.Bytes()), r.text.String()
		r.mu.Unlock()
		if found != nil {
			return string(found[1])
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s in\n%s", expression, text)
		}
	}
}

// A bar fits its terminal, whatever its width.
func TestBar(t *testing.T) {
	good := diagnosis.Sample{Code: diagnosis.OK, Echo: true, FirstByte: 45 * time.Millisecond, Good: 20, Of: 20, Row: 31, Locked: true}
	tests := []struct {
		sample diagnosis.Sample
		want   string
	}{
		{good, "[####################] 20/20 good  echo     first byte  45ms  LOCKED"},
		{diagnosis.Sample{Code: diagnosis.OK, Good: 1, Of: 3, Row: 1}, "[#...................]  1/3  good  no echo  first byte     -  searching"},
		{diagnosis.Sample{Code: diagnosis.BadChecksums, Of: 1, FirstByte: 1234567 * time.Microsecond}, "[....................]  0/1  good  no echo  first byte 1.235s  bad checksums"},
	}
	for _, tt := range tests {
		if got := bar(tt.sample, 0); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
		for columns := 1; columns <= 100; columns++ {
			if got := bar(tt.sample, columns); got != tt.want[:min(columns, len(tt.want))] {
				t.Errorf("%d columns: %q", columns, got)
			}
		}
	}
}

// The screen writes over its line on a terminal, and rings once when the head has locked.
func TestScreen(t *testing.T) {
	found := []diagnosis.Sample{{Code: diagnosis.Silent, Of: 1}, {Code: diagnosis.Silent, Of: 2}, {Code: diagnosis.OK, Good: 1, Of: 3, Locked: true}, {Code: diagnosis.OK, Good: 2, Of: 4, Locked: true}}
	tests := []struct {
		name             string
		screen           screen
		lines, over      int // lines, and how often one was written over
		bells, errsBells int
	}{
		{"terminal", screen{width: 40}, 0, 4, 1, 0},
		{"file, with a terminal beside it", screen{bell: true}, 2, 0, 0, 1},
		{"file", screen{}, 2, 0, 0, 0},
		{"json", screen{json: true, width: 40, bell: true}, 4, 0, 0, 1},
		{"json in a file", screen{json: true}, 4, 0, 0, 0},
	}
	for _, tt := range tests {
		var out, errs bytes.Buffer
		tt.screen.out, tt.screen.err = &out, &errs
		for _, s := range found {
			tt.screen.show(s)
		}
		text := out.String()
		if n := strings.Count(text, "\n"); n != tt.lines {
			t.Errorf("%s: %d lines: %q", tt.name, n, text)
		}
		if n := strings.Count(text, "\r"); n != tt.over {
			t.Errorf("%s: written over %d times: %q", tt.name, n, text)
		}
		if n, e := strings.Count(text, "\a"), strings.Count(errs.String(), "\a"); n != tt.bells || e != tt.errsBells {
			t.Errorf("%s: rings %d and %d times", tt.name, n, e)
		}
	}
}
