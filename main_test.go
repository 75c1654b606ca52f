package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
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
