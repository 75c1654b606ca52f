//go:build !linux

package sim

import (
	"errors"
	"fmt"
	"io"
	"runtime"
)

// OpenPTY makes a pseudo terminal on Linux. Here it always fails: the error wraps
// [errors.ErrUnsupported].
func OpenPTY(path string) (rw io.ReadWriteCloser, name string, err error) {
	return nil, "", fmt.Errorf("sim: pty: %w on %s: serve the meter over TCP", errors.ErrUnsupported, runtime.GOOS)
}
