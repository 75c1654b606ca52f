//go:build linux || darwin || freebsd || openbsd

package store

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// writerDir in the environment makes the test binary a process that writes to that directory.
const writerDir = "STORE_TEST_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerDir); dir != "" {
		fmt.Fprintln(os.Stderr, writeOn(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// size is how many entries the writer has; all hold the same number.
const size = 100

// writeOn writes one version after the other and prints the number of each that is safe.
func writeOn(dir string) error {
	s, err := Open(dir)
	if err != nil {
		return err
	}
	if err := s.Damaged(); err != nil {
		return err
	}
	var last version1
	if _, err := s.Get(entryName(0), &last); err != nil {
		return err
	}
	for n := last.N + 1; ; n++ {
		for i := range size {
			if err := s.Put(entryName(i), version1{n, strings.Repeat(fmt.Sprint(n%10), 100+n%997)}); err != nil {
				return err
			}
		}
		if err := s.Flush(); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

type version1 struct {
	N    int    `json:"n"`
	Text string `json:"text"` // its length differs between versions
}

func entryName(i int) string { return fmt.Sprintf("meter/%08d", i) }

// startWriter starts the process and waits until it has written once.
func startWriter(t *testing.T, dir string) (cmd *exec.Cmd, out *bufio.Reader, first int) {
	t.Helper()
	cmd = exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), writerDir+"="+dir)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out = bufio.NewReader(pipe)
	if _, err := fmt.Fscanln(out, &first); err != nil {
		t.Fatal(err)
	}
	return cmd, out, first
}

func TestKilled(t *testing.T) {
	dir := t.TempDir()
	before, torn := 0, 0
	for range 50 {
		cmd, out, safe := startWriter(t, dir)
		if safe != before+1 {
			t.Fatalf("the writer went on with %d, the file holds %d", safe, before)
		}
		time.AfterFunc(rand.N(10*time.Millisecond), func() { _ = cmd.Process.Kill() })
		for {
			var n int
			if _, err := fmt.Fscanln(out, &n); err != nil {
				break // what it printed to its end; half a number cannot be: one write each
			}
			safe = n
		}
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait() // says that it was killed

		got := stored(t, dir) // fails unless the file is whole
		if len(got) != size {
			t.Fatalf("%d entries, want %d", len(got), size)
		}
		s, err := Open(dir)
		if err != nil || s.Damaged() != nil {
			t.Fatal(err, s.Damaged())
		}
		var first version1
		for i := range size {
			var v version1
			if found, err := s.Get(entryName(i), &v); !found || err != nil {
				t.Fatal(found, err)
			}
			if i == 0 {
				first = v
			}
			if v != first || len(v.Text) != 100+v.N%997 {
				t.Fatalf("%s is of version %d with %d bytes, the first of %d", entryName(i), v.N, len(v.Text), first.N)
			}
		}
		if first.N != safe && first.N != safe+1 {
			t.Fatalf("the file holds version %d, the last that was safe is %d", first.N, safe)
		}
		before = first.N
		if _, err := os.Stat(filepath.Join(dir, tempName)); err == nil {
			torn++
		}
		closed(t, s)
	}
	t.Logf("%d versions, %d of 50 kills in the middle of a write", before, torn)
}

func TestOtherProcess(t *testing.T) {
	dir := t.TempDir()
	cmd, _, _ := startWriter(t, dir)
	_, err := Open(dir)
	if want := fmt.Sprintf("process %d on ", cmd.Process.Pid); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), want) {
		t.Errorf("Open: %v, want ErrLocked by %s", err, want)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // says that it was killed
	if got := sound(t, dir).Keys(); len(got) != size {
		t.Errorf("%d entries, want %d", len(got), size)
	}
}

// What stands in the lock file is not ours to believe.
func TestLockedByNoise(t *testing.T) {
	dir := t.TempDir()
	sound(t, dir)
	for _, text := range []string{"", "\x00\x1b[2J", "process \x1b[2J\n", strings.Repeat("process 1", 1<<20)} {
		if err := os.WriteFile(filepath.Join(dir, lockName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(dir)
		if !errors.Is(err, ErrLocked) || len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\x00\x1b\n") {
			t.Errorf("Open: %q", err)
		}
	}
}

func TestPipe(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, fileName), 0o600); err != nil {
		t.Fatal(err)
	}
	if s := open(t, dir); s.Damaged() == nil {
		t.Error("a pipe in place of the file is no damage")
	}
}
