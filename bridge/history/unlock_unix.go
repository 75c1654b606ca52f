//go:build linux || darwin || freebsd || openbsd

package history

import (
	"os"
	"syscall"
)

// unlock lets go of a file's lock, which memory mapped to it would hold longer than f.
func unlock(f *os.File) { _ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN) } // that it is closed is as good
