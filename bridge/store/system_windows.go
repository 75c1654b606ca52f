package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"
)

// lock is the right to write to a directory. It goes with the process, also by a crash.
type lock struct{ f *os.File }

// newLock opens the lock file so that others may read it, but not open it to write.
func newLock(dir string) (*lock, error) {
	name := filepath.Join(dir, lockName)
	path, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	h, err := windows.CreateFile(path, windows.GENERIC_READ|windows.GENERIC_WRITE, windows.FILE_SHARE_READ,
		nil, windows.OPEN_ALWAYS, windows.FILE_ATTRIBUTE_NORMAL, 0)
	if errors.Is(err, windows.ERROR_SHARING_VIOLATION) {
		return nil, lockedBy(name)
	}
	if err != nil {
		return nil, fmt.Errorf("store: %w", &os.PathError{Op: "open", Path: name, Err: err})
	}
	f := os.NewFile(uintptr(h), name)
	// A courtesy to the one who finds it locked; a full disk must not stop us here.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(whoami()), 0)
	}
	return &lock{f}, nil
}

// holds: an open file cannot be taken away on Windows.
func (*lock) holds(string) bool { return true }

func (l *lock) close() { _ = l.f.Close() }

// syncDir does nothing: Windows has no such call.
func syncDir(string) error { return nil }
