package link

import (
	"errors"

	"golang.org/x/sys/windows"
)

// openLocked does nothing: Windows gives a serial port to one program only.
func openLocked(string) (int, error) { return -1, nil }

func closeLocked(int) error { return nil }

// unplugged reports what the system says about a device that is not there any more.
func unplugged(err error) bool {
	return errors.Is(err, windows.ERROR_DEVICE_NOT_CONNECTED) || errors.Is(err, windows.ERROR_BAD_COMMAND) ||
		errors.Is(err, windows.ERROR_GEN_FAILURE) || errors.Is(err, windows.ERROR_DEVICE_REMOVED)
}

func isRefused(err error) bool { return errors.Is(err, windows.WSAECONNREFUSED) }

func isUnreachable(err error) bool {
	return errors.Is(err, windows.WSAEHOSTUNREACH) || errors.Is(err, windows.WSAENETUNREACH)
}
