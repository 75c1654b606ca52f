//go:build linux || darwin || freebsd || openbsd

package history

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

	"kmp2mqtt/kmp"
)

// writerDir in the environment makes the test binary a process that writes to that directory.
const writerDir = "HISTORY_TEST_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerDir); dir != "" {
		fmt.Fprintln(os.Stderr, writeOn(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// portion is how many rows the writer appends in one transaction when it has so many.
func portion(have uint32) uint32 { return 1 + have%37 }

// writeOn goes on where the file ends, prints how many rows are safe, and notes and prints
// some of them as positions.
func writeOn(dir string) error {
	s, err := Open(dir)
	if err != nil {
		return err
	}
	if err := s.Damaged(); err != nil {
		return err
	}
	last, _, err := s.Last(serial, kmp.LogHour)
	if err != nil {
		return err
	}
	for have := last.ID; ; {
		next := have + portion(have)
		if err := s.Append(serial, hourRows(have+1, next)); err != nil {
			return err
		}
		fmt.Println("rows", next)
		for id := have + 1; id <= next; id += 5 {
			if err := s.SetPosition("mqtt", serial, kmp.LogHour, id); err != nil {
				return err
			}
			fmt.Println("position", id)
		}
		have = next
	}
}

func startWriter(t *testing.T, dir string) (cmd *exec.Cmd, out *bufio.Reader) {
	t.Helper()
	cmd = exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), writerDir+"="+dir)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	return cmd, bufio.NewReader(pipe)
}

func TestKilled(t *testing.T) {
	dir := t.TempDir()
	rows, position := uint32(0), uint32(0)
	for i := range 30 {
		cmd, out := startWriter(t, dir)
		read := func() bool {
			var what string
			var n uint32
			if _, err := fmt.Fscanln(out, &what, &n); err != nil {
				return false // half a number cannot be: one write each
			}
			if what == "rows" {
				rows = n
			} else {
				position = n
			}
			return true
		}
		if i%3 > 0 && !read() { // else it may be killed while it makes the file
			t.Fatal("the writer ended by itself")
		}
		time.AfterFunc(rand.N(30*time.Millisecond), func() { _ = cmd.Process.Kill() })
		for read() {
		}
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait() // says that it was killed

		s := sound(t, dir)
		got := kept(t, s, serial, kmp.LogHour)
		if n := uint32(len(got)); n != rows && n != rows+portion(rows) {
			t.Fatalf("the file has %d rows, %d were safe, %d are one transaction more", n, rows, rows+portion(rows))
		}
		rows = uint32(len(got))
		wantKept(t, s, hourRows(1, rows))
		if rows > 0 {
			wantLast(t, s, rows)
		}
		id, _, err := s.Position("mqtt", serial, kmp.LogHour)
		must(t, err)
		if id < position || id > position+5 && id+portion(id) < rows {
			t.Fatalf("the file has position %d, %d was safe", id, position)
		}
		position = id
		must(t, s.Close())
	}
	t.Logf("%d rows; directory: %q", rows, names(t, dir))
}

// Another process writes, this one copies: both go on, and no copy has half a transaction.
func TestCopyOfAnother(t *testing.T) {
	dir := t.TempDir()
	cmd, out := startWriter(t, dir)
	if _, err := out.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, out)
	}()
	first, rows := uint32(0), uint32(0)
	for range 30 {
		c := copyOf(t, dir)
		must(t, c.Damaged())
		got := uint32(len(kept(t, c, serial, kmp.LogHour)))
		wantKept(t, c, hourRows(1, got))
		n := uint32(0)
		for n < got {
			n += portion(n)
		}
		if n != got || got < rows {
			t.Fatalf("%d rows after %d: not whole transactions", got, rows)
		}
		if rows = got; first == 0 {
			first = rows
		}
		must(t, c.Close())
	}
	must(t, cmd.Process.Kill())
	<-ended
	_ = cmd.Wait() // says that it was killed
	must(t, sound(t, dir).Close())
	if rows == first {
		t.Error("the writer did not go on")
	}
}

// Two processes write to the same file: neither undoes what the other one wrote.
func TestTwoWriters(t *testing.T) {
	dir := t.TempDir()
	cmd, out := startWriter(t, dir)
	if _, err := out.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, out)
	}()
	s := sound(t, dir)
	const other, n = "70000000", 100
	for id := uint32(1); id <= n; id++ {
		must(t, s.Append(other, hourRows(id, id)))
	}
	must(t, cmd.Process.Kill())
	<-ended
	_ = cmd.Wait() // says that it was killed
	s = sound(t, dir)
	if diff := diff(hourRows(1, n), kept(t, s, other, kmp.LogHour)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	rows := kept(t, s, serial, kmp.LogHour)
	wantKept(t, s, hourRows(1, uint32(len(rows))))
	t.Logf("%d rows of the other process", len(rows))
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	must(t, sound(t, dir).Append(serial, hourRows(1, 2)))
	db, err := openDB(filepath.Join(dir, fileName), false)
	must(t, err)
	defer db.close(nil)
	if _, err := openDBWithin(filepath.Join(dir, fileName), true, 50*time.Millisecond); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("%v, want ErrLocked", err)
	}
}

func TestPipe(t *testing.T) {
	dir := t.TempDir()
	must(t, unix.Mkfifo(filepath.Join(dir, fileName), 0o600))
	if c, err := Copy(dir); err == nil || c != nil {
		t.Error("a pipe was copied")
	}
	s := open(t, dir)
	wantTold(t, s, dir)
	must(t, s.Append(serial, hourRows(1, 2)))
	wantKept(t, s, hourRows(1, 2))
}
