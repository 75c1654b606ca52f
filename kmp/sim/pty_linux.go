package sim

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// OpenPTY makes a pseudo terminal whose other end, name, a client opens like a
// serial port. With a path, a symbolic link to it is made there and removed at
// Close; a link that is there already is replaced, anything else is an error. The
// terminal is in raw mode and survives clients that open and close it.
func OpenPTY(path string) (rw io.ReadWriteCloser, name string, err error) {
	p := &pty{path: path}
	if err := p.open(); err != nil {
		p.Close()
		return nil, "", fmt.Errorf("sim: pty: %w", err)
	}
	return p, p.client.Name(), nil
}

// pty is the meter's end of a pseudo terminal.
type pty struct {
	*os.File          // the master
	client   *os.File // kept open, or the master would fail whenever no client is there
	path     string
	linked   bool
	once     sync.Once
}

func (p *pty) open() (err error) {
	if p.File, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return err
	}
	var number int
	conn, err := p.SyscallConn()
	if err != nil {
		return err
	}
	control := func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}
	if cerr := conn.Control(control); cerr != nil || err != nil {
		return fmt.Errorf("unlock %s: %w", p.Name(), errors.Join(cerr, err))
	}
	name := "/dev/pts/" + strconv.Itoa(number)
	if p.client, err = os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return err
	}
	if err := setRaw(p.client); err != nil {
		return fmt.Errorf("raw mode of %s: %w", name, err)
	}
	if p.path == "" {
		return nil
	}
	switch info, err := os.Lstat(p.path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink == 0:
		return fmt.Errorf("%s exists and is not a symbolic link: choose another path or remove it", p.path)
	default:
		if err := os.Remove(p.path); err != nil {
			return err
		}
	}
	if err := os.Symlink(name, p.path); err != nil {
		return err
	}
	p.linked = true
	return nil
}

// setRaw passes every byte through as it is, at 1200 baud with two stop bits: a
// client that asks sees the line settings of a meter.
func setRaw(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) {
		var t *unix.Termios
		if t, err = unix.IoctlGetTermios(int(fd), unix.TCGETS); err != nil {
			return
		}
		t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
		t.Cflag = unix.B1200 | unix.CS8 | unix.CSTOPB | unix.CREAD | unix.CLOCAL
		t.Ispeed, t.Ospeed = unix.B1200, unix.B1200
		t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
		err = unix.IoctlSetTermios(int(fd), unix.TCSETS, t)
	})
	return errors.Join(cerr, err)
}

// Close closes both ends and removes the link, if it still is ours.
func (p *pty) Close() error {
	p.once.Do(func() {
		if p.linked {
			if to, err := os.Readlink(p.path); err == nil && to == p.client.Name() {
				os.Remove(p.path)
			}
		}
		if p.client != nil {
			p.client.Close()
		}
	})
	if p.File == nil {
		return nil
	}
	return p.File.Close()
}
