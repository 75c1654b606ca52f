package link

import (
	"errors"
	"time"

	"go.bug.st/serial"
	"golang.org/x/sys/unix"
)

// ttyDevice is opened and set up by the serial library, but reads and writes go
// through the locked file, which never blocks. The library's own Read waits for
// ever when another program takes the bytes in between, and panics when the process
// has more than 1024 files open; its Write waits for as long as the device takes
// nothing.
type ttyDevice struct {
	port serial.Port
	fd   int
}

func openDevice(name string, mode *serial.Mode) (device, error) {
	port, fd, err := openPort(name, mode)
	if err != nil {
		return nil, err
	}
	return &ttyDevice{port: port, fd: fd}, nil
}

// wait waits until the port is ready, and returns what for.
func (d *ttyDevice) wait(events int16, wait time.Duration) (int16, error) {
	fds := []unix.PollFd{{Fd: int32(d.fd), Events: events}}
	limit := unix.NsecToTimespec(wait.Nanoseconds())
	n, err := unix.Ppoll(fds, &limit, nil)
	if errors.Is(err, unix.EINTR) || err == nil && n == 0 {
		return 0, nil
	}
	return fds[0].Revents, err
}

func (d *ttyDevice) read(p []byte, wait time.Duration) (int, error) {
	ready, err := d.wait(unix.POLLIN, wait)
	if err != nil || ready == 0 {
		return 0, err
	}
	n, err := unix.Read(d.fd, p)
	switch {
	case err == nil && n == 0 && ready&(unix.POLLHUP|unix.POLLERR) != 0:
		return 0, errGone
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return 0, nil
	case err != nil:
		return 0, err
	}
	return n, nil
}

func (d *ttyDevice) write(p []byte, wait time.Duration) (int, error) {
	n, err := unix.Write(d.fd, p)
	if errors.Is(err, unix.EAGAIN) {
		if _, err := d.wait(unix.POLLOUT, wait); err != nil {
			return 0, err
		}
		n, err = unix.Write(d.fd, p)
	}
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return 0, nil
	case err != nil:
		return 0, err
	}
	return n, nil
}

func (d *ttyDevice) close() error {
	// Neither can help any more when the device is gone; the files are closed in
	// any case.
	_ = d.port.ResetOutputBuffer()
	return errors.Join(d.port.Close(), closeLocked(d.fd))
}
