package link

import (
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// A request leaves at once, since the meter drops one with a gap of 27 ms in it; and
// a serial server that lost its power is noticed although nothing is sent.
func TestTCPOptions(t *testing.T) {
	line, _ := dial(t)
	conn, err := line.(*tcpLine).conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name                string
		level, option, want int
	}{
		{"no delay", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{"keep-alive", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"seconds until the first probe", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 5},
		{"seconds between probes", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 5},
		{"probes", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 2},
		{"milliseconds until what was sent must be confirmed", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 15000},
	} {
		var got int
		var optionErr error
		err := conn.Control(func(fd uintptr) { got, optionErr = unix.GetsockoptInt(int(fd), tt.level, tt.option) })
		if err := errors.Join(err, optionErr); err != nil || got != tt.want {
			t.Errorf("%s: %d (error %v), want %d", tt.name, got, err, tt.want)
		}
	}
}
