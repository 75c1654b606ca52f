package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"kmp2mqtt/kmp/diagnosis"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kmp2mqtt": main})
}

// TestScripts runs the verbs as a user does. Every script has a free port in PORT and may
// wait with await for a port or a file.
func TestScripts(t *testing.T) {
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
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"await": await, "status": status},
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
