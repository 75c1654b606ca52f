package link

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// limitSilence ends a connection whose peer does not confirm what was sent to it for
// deadAfter. Without it the system goes on sending for a quarter of an hour, and the
// keep-alive waits until that is over.
func limitSilence(_, _ string, conn syscall.RawConn) error {
	var failed error
	err := conn.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter.Milliseconds()))
	})
	return errors.Join(err, failed)
}
