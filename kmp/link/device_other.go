//go:build !linux

package link

import (
	"errors"
	"fmt"
	"time"

	"go.bug.st/serial"
)

// portDevice reads and writes through the serial library alone.
type portDevice struct {
	port    serial.Port
	lock    int
	pending chan written // nil, or where the Write that is under way will tell its end
}

type written struct {
	n   int
	err error
}

func openDevice(name string, mode *serial.Mode) (device, error) {
	port, lock, err := openPort(name, mode)
	if err != nil {
		return nil, err
	}
	d := &portDevice{port: port, lock: lock}
	// The library panics in its first Read if the process has too many files open.
	// Better to know now.
	if _, err := d.read(make([]byte, 1), 0); err != nil {
		_ = d.close()
		return nil, err
	}
	return d, nil
}

func (d *portDevice) read(p []byte, wait time.Duration) (n int, err error) {
	// Outside Windows the library asks select(2), whose sets end at file number
	// 1023, and indexes them unchecked.
	defer func() {
		if r := recover(); r != nil {
			n, err = 0, fmt.Errorf("the process has too many files open for a serial port (%v)", r)
		}
	}()
	if err := d.port.SetReadTimeout(wait); err != nil {
		return 0, portError(err)
	}
	n, err = d.port.Read(p)
	return n, portError(err)
}

// write lets a goroutine of its own wait for the device, because the library's
// Write has no time limit. If it never returns, nothing is written any more, and it
// ends when the port is closed.
func (d *portDevice) write(p []byte, wait time.Duration) (int, error) {
	if d.pending == nil {
		done := make(chan written, 1)
		own := append([]byte(nil), p...) // the caller may use p again before the goroutine is through
		go func() {
			n, err := d.port.Write(own)
			done <- written{n, err}
		}()
		d.pending = done
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case w := <-d.pending:
		d.pending = nil
		return w.n, portError(w.err)
	case <-timer.C:
		return 0, nil
	}
}

func (d *portDevice) close() error {
	_ = d.port.ResetOutputBuffer() // cannot help any more when the device is gone
	return errors.Join(d.port.Close(), closeLocked(d.lock))
}

// portError tells an unplugged device, for which the library has the same word as
// for a closed port.
func portError(err error) error {
	var port *serial.PortError
	if errors.As(err, &port) && port.Code() == serial.PortClosed {
		return fmt.Errorf("%w (%w)", errGone, err)
	}
	return err
}
