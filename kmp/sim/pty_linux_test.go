package sim

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmp2mqtt/kmp"
)

func TestPTY(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meter")
	if err := os.Symlink("/nowhere", path); err != nil { // left behind by an earlier run
		t.Fatal(err)
	}
	rw, name, err := OpenPTY(path)
	if err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(path); err != nil || to != name {
		t.Errorf("the link points to %q, %v; want %q", to, err, name)
	}
	m := newMeter(t, Config{Integration: still, Turnaround: -1})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Serve(ctx, rw) }()

	for range 3 { // clients come and go
		port, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		conn := kmp.NewConn(port, kmp.Options{})
		// 7039 h and what follows hold the bytes that a terminal would change: 0D, 1B, 11, 13.
		got, err := conn.GetRegister(t.Context(), kmp.HeatMeter, 1001, 60, 0x0D13, 1004, 97)
		if err != nil || len(got) != 4 {
			t.Errorf("%v, %v", got, err)
		}
		conn.Close()
	}

	port, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	settings, err := unix.IoctlGetTermios(int(port.Fd()), unix.TCGETS)
	if err != nil || settings.Cflag&unix.CBAUD != unix.B1200 || settings.Cflag&unix.CSTOPB == 0 || settings.Lflag&unix.ECHO != 0 {
		t.Errorf("line settings %+v, %v", settings, err)
	}

	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the link is still there: %v", err)
	}
}

func TestPTYClientThatDoesNotRead(t *testing.T) {
	rw, name, err := OpenPTY("")
	if err != nil {
		t.Fatal(err)
	}
	m := newMeter(t, Config{Integration: still, Turnaround: -1})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Serve(ctx, rw) }()
	port, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	if err := port.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	// 156 kB of answers, more than a terminal holds: the meter waits in the middle of one.
	_, err = port.Write(bytes.Repeat(request(t, 60, 68, 74, 80, 86, 87, 89, 97), 2000))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the meter took all requests: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestPTYKeepsOtherFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := OpenPTY(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "data" {
		t.Errorf("%q, %v", data, err)
	}
	if _, _, err := OpenPTY(filepath.Join(path, "x")); err == nil {
		t.Error("a link inside a file was made")
	}
}

// A link that somebody else has put in its place in the meantime stays.
func TestPTYLeavesForeignLink(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meter")
	rw, _, err := OpenPTY(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/elsewhere", path); err != nil {
		t.Fatal(err)
	}
	rw.Close()
	if to, err := os.Readlink(path); err != nil || to != "/elsewhere" {
		t.Errorf("%q, %v", to, err)
	}
}
