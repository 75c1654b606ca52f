//go:build linux || darwin || freebsd || openbsd

package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lock is the right to write to a directory. It goes with the process, also by a crash.
type lock struct{ f *os.File }

func newLock(dir string) (*lock, error) {
	name := filepath.Join(dir, lockName)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := flock(f); err != nil {
		_ = f.Close() // the lock's error is the one to tell
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, lockedBy(name)
		}
		return nil, fmt.Errorf("store: lock %s: %w", name, err)
	}
	l := &lock{f}
	if !l.holds(name) { // taken away between opening and locking
		l.close()
		return nil, lockedBy(name)
	}
	// A courtesy to the one who finds it locked; a full disk must not stop us here.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(whoami()), 0)
	}
	return l, nil
}

func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// holds reports whether the lock file that everyone sees is still the locked one.
func (l *lock) holds(name string) bool {
	ours, err := l.f.Stat()
	if err != nil {
		return false
	}
	theirs, err := os.Stat(name)
	return err == nil && os.SameFile(ours, theirs)
}

func (l *lock) close() { _ = l.f.Close() }

// syncDir makes a rename in dir last. Some network file systems cannot, and say so.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}
