package diagnosis

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmp2mqtt/kmp/link"
	"kmp2mqtt/kmp/sim"
)

// The classes of a serial port, from real ones.
func TestFromPorts(t *testing.T) {
	t.Run("missing", func(t *testing.T) {
		wantClass(t, openError(t, filepath.Join(t.TempDir(), "ttyUSB0")), PortMissing)
		wantClass(t, func() error { _, err := os.Open(filepath.Join(t.TempDir(), "ttyUSB0")); return err }(), PortMissing)
	})
	t.Run("busy", func(t *testing.T) {
		pty, name, err := sim.OpenPTY("")
		if err != nil {
			t.Fatal(err)
		}
		defer pty.Close()
		holder, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer holder.Close()
		if err := unix.Flock(int(holder.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			t.Fatal(err)
		}
		wantClass(t, openError(t, name), PortBusy)
	})
	t.Run("no right", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "closed")
		if err := os.Mkdir(dir, 0); err != nil {
			t.Fatal(err)
		}
		failed := make(chan error)
		go func() {
			// Root may do everything; as somebody else, this thread may not. The thread
			// ends with the goroutine, since it is not unlocked.
			runtime.LockOSThread()
			err := unix.Setfsuid(65534)
			if os.Geteuid() != 0 {
				err = nil // already somebody else, to whom the call is forbidden
			}
			if err == nil {
				err = openNow(filepath.Join(dir, "ttyUSB0"))
			}
			failed <- err
		}()
		wantClass(t, <-failed, PortPermission)
	})
	t.Run("nobody answers", func(t *testing.T) {
		// A socket whose queue is full takes no connection and refuses none.
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
			t.Fatal(err)
		}
		sa, err := unix.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(sa.(*unix.SockaddrInet4).Port))
		full := false
		for range 20 {
			c, err := (&net.Dialer{Timeout: 200 * time.Millisecond}).DialContext(t.Context(), "tcp", addr)
			if full = err != nil; full {
				wantClass(t, err, HostUnreachable)
				break
			}
			defer c.Close()
		}
		if !full {
			t.Fatal("the queue does not fill")
		}
		target, err := link.Parse("tcp://" + addr)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err = link.Open(ctx, target)
		wantClass(t, err, HostUnreachable)
	})
}

// openNow opens a serial port on this goroutine.
func openNow(name string) error {
	target, err := link.Parse(name)
	if err != nil {
		return err
	}
	line, err := link.Open(context.Background(), target)
	if err == nil {
		line.Close()
	}
	return err
}
