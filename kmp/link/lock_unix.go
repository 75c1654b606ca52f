//go:build linux || darwin || freebsd || openbsd

package link

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// openLocked opens the device a second time, beside the serial library, and locks
// it against every other program that does the same: the library's own claim
// (TIOCEXCL) does not stop root. The lock goes when the file is closed, also by a
// crash.
func openLocked(name string) (int, error) {
	// Not blocking, or a port without carrier would wait for one; no controlling
	// terminal, or a hang-up of the line would be a signal that ends this process.
	fd, err := retry(func() (int, error) {
		return unix.Open(name, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if errors.Is(err, unix.EBUSY) {
		return -1, ErrBusy
	}
	if err != nil {
		return -1, err
	}
	_, err = retry(func() (int, error) { return 0, unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if err != nil {
		_ = unix.Close(fd) // the lock's error is the one to tell
		if errors.Is(err, unix.EWOULDBLOCK) {
			return -1, ErrBusy
		}
		return -1, fmt.Errorf("lock: %w", err)
	}
	return fd, nil
}

// retry calls again when a signal came in between.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func closeLocked(fd int) error { return unix.Close(fd) }

// unplugged reports what the system says about a device that is not there any more.
func unplugged(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV)
}

func isRefused(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }

func isUnreachable(err error) bool {
	return errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH)
}
