package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmp2mqtt/kmp"
)

// pty is the far end of a pseudo terminal, where a meter would be.
type pty struct {
	*os.File
	fd int // for ioctl: File.Fd would make the file block
}

// openPTY makes a pseudo terminal and returns its far end and the path of the near one.
func openPTY(t *testing.T) (pty, string) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatalf("open /dev/ptmx: %v", err)
	}
	master := os.NewFile(uintptr(fd), "/dev/ptmx")
	t.Cleanup(func() { _ = master.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatalf("unlock the pseudo terminal: %v", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatalf("number of the pseudo terminal: %v", err)
	}
	return pty{master, fd}, fmt.Sprintf("/dev/pts/%d", n)
}

func openLine(t *testing.T, raw string) kmp.Line {
	t.Helper()
	target, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	line, err := Open(context.Background(), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = line.Close() })
	return line
}

func openFails(t *testing.T, raw string) error {
	t.Helper()
	target, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	line, err := Open(context.Background(), target)
	if err == nil {
		_ = line.Close()
		t.Fatalf("open %s: no error", raw)
	}
	if line != nil {
		t.Errorf("open %s: a line beside an error", raw)
	}
	var bad *Error
	if !errors.As(err, &bad) || bad.Op != "open" || bad.Line != target.String() {
		t.Errorf("error %#v does not name the operation and the line", err)
	}
	return err
}

func wantText(t *testing.T, err error, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not say %q", err, text)
		}
	}
}

// The settings are read back from the kernel. A pseudo terminal keeps 8 data bits
// and no parity whatever it is told; TestSerialMode has the others.
func TestSerialSettings(t *testing.T) {
	tests := []struct {
		query         string
		speed, cstopb uint32
	}{
		{"", unix.B1200, unix.CSTOPB},
		{"?baud=2400", unix.B2400, unix.CSTOPB},
		{"?baud=9600&stopbits=1", unix.B9600, 0},
	}
	for _, tt := range tests {
		t.Run(tt.query, func(t *testing.T) {
			meter, name := openPTY(t)
			openLine(t, name+tt.query)
			got, err := unix.IoctlGetTermios(meter.fd, unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			if got.Cflag&unix.CBAUD != tt.speed {
				t.Errorf("speed is %#o, want %#o", got.Cflag&unix.CBAUD, tt.speed)
			}
			const bits = unix.CSIZE | unix.CSTOPB | unix.PARENB | unix.CRTSCTS | unix.CLOCAL | unix.CREAD
			if want := unix.CS8 | unix.CLOCAL | unix.CREAD | tt.cstopb; got.Cflag&bits != want {
				t.Errorf("cflag is %#o, want %#o", got.Cflag&bits, want)
			}
			if got.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 || got.Iflag&(unix.IXON|unix.ICRNL|unix.ISTRIP) != 0 || got.Oflag&unix.OPOST != 0 {
				t.Errorf("not raw: lflag %#o, iflag %#o, oflag %#o", got.Lflag, got.Iflag, got.Oflag)
			}
		})
	}
}

func TestSerialOddSpeed(t *testing.T) {
	meter, name := openPTY(t)
	openLine(t, name+"?baud=1234")
	got, err := unix.IoctlGetTermios(meter.fd, unix.TCGETS2)
	if err != nil {
		t.Fatal(err)
	}
	if got.Ospeed != 1234 {
		t.Errorf("speed is %d, want 1234", got.Ospeed)
	}
}

// Every byte value passes both ways, also those that a terminal would act upon.
func TestSerialBytes(t *testing.T) {
	meter, name := openPTY(t)
	line := openLine(t, name)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	if n, err := line.Write(every); n != len(every) || err != nil {
		t.Fatalf("Write = %d, %v", n, err)
	}
	got := make([]byte, len(every))
	if _, err := io.ReadFull(meter, got); err != nil || !bytes.Equal(got, every) {
		t.Fatalf("the meter got % x, %v", got, err)
	}
	if _, err := meter.Write(every); err != nil {
		t.Fatal(err)
	}
	got = make([]byte, len(every))
	if _, err := io.ReadFull(line, got); err != nil || !bytes.Equal(got, every) {
		t.Fatalf("the line got % x, %v", got, err)
	}
}

func TestSerialDropsWhatCameBefore(t *testing.T) {
	meter, name := openPTY(t)
	raw := openLine(t, name) // sets the terminal raw, so that the old bytes are readable at once
	if _, err := meter.Write([]byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := raw.Close(); err != nil {
		t.Fatal(err)
	}
	line := openLine(t, name)
	if _, err := meter.Write([]byte("new")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 3)
	if _, err := io.ReadFull(line, got); err != nil || string(got) != "new" {
		t.Errorf("read %q, %v; want new", got, err)
	}
}

func TestSerialUnplugged(t *testing.T) {
	meter, name := openPTY(t)
	line := openLine(t, name)
	if err := meter.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := line.Read(make([]byte, 1))
	if !errors.Is(err, io.EOF) {
		t.Fatalf("Read: %v, want io.EOF", err)
	}
	wantText(t, err, name, "gone", "plug it in")
	_, err = line.Write([]byte{1})
	if !errors.Is(err, io.EOF) {
		t.Fatalf("Write: %v, want io.EOF", err)
	}
	if err := line.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestSerialUnpluggedWhileReading(t *testing.T) {
	meter, name := openPTY(t)
	line := openLine(t, name)
	ended := make(chan error)
	go func() {
		buf := make([]byte, 1)
		_, err := line.Read(buf) // the byte below: from here on it waits
		ended <- err
		_, err = line.Read(buf)
		ended <- err
	}()
	if _, err := meter.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err := meter.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Errorf("Read: %v, want io.EOF", err)
	}
}

func TestSerialCloseWhileReading(t *testing.T) {
	meter, name := openPTY(t)
	line := openLine(t, name)
	ended := make(chan error)
	go func() {
		buf := make([]byte, 1)
		_, err := line.Read(buf) // the byte below: from here on it waits
		ended <- err
		_, err = line.Read(buf)
		ended <- err
	}()
	if _, err := meter.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err := line.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read: %v, want os.ErrClosed", err)
	}
}

// A number of a closed port goes to the next file that is opened: nothing written
// to the line may land there.
func TestSerialWriteAfterClose(t *testing.T) {
	_, name := openPTY(t)
	line := openLine(t, name)
	if err := line.Close(); err != nil {
		t.Fatal(err)
	}
	var files []*os.File
	for i := range 8 {
		f, err := os.Create(filepath.Join(t.TempDir(), fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	if n, err := line.Write([]byte("request")); n != 0 || !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write = %d, %v; want os.ErrClosed", n, err)
	}
	for _, f := range files {
		if info, err := f.Stat(); err != nil || info.Size() != 0 {
			t.Errorf("%s: %v, %v; want it empty", f.Name(), info.Size(), err)
		}
	}
}

func TestSerialBusy(t *testing.T) {
	_, name := openPTY(t)
	line := openLine(t, name)
	err := openFails(t, "serial://"+name)
	if !errors.Is(err, ErrBusy) {
		t.Fatalf("error %v, want ErrBusy", err)
	}
	wantText(t, err, name, "in use by another program", "stop the other program")
	if err := line.Close(); err != nil {
		t.Fatal(err)
	}
	openLine(t, name) // free again
}

func TestSerialOpenErrors(t *testing.T) {
	err := openFails(t, "/dev/no-such-port")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want fs.ErrNotExist", err)
	}
	wantText(t, err, "/dev/no-such-port")

	wantText(t, openFails(t, "/dev/null"), "/dev/null", "check that it is a serial port")
	wantText(t, openFails(t, "/dev"), "open /dev:", "directory")

	_, name := openPTY(t)
	wantText(t, openFails(t, name+"?dtr=on"), name, "leave out the options dtr and rts")
	openLine(t, name) // the failed one left nothing locked

	target, err := Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Open(ctx, target); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	if _, err := Open(context.Background(), Target{}); err == nil {
		t.Error("the zero target opens")
	}
}

// A device that takes nothing makes Write fail in the end, and never holds up Close.
func TestSerialStuck(t *testing.T) {
	_, name := openPTY(t)
	line := openLine(t, name)
	line.(*serialLine).writeTimeout = 30 * time.Millisecond
	n, err := line.Write(make([]byte, 1<<20))
	if !errors.Is(err, ErrStuck) || n == 0 || n == 1<<20 {
		t.Fatalf("Write = %d, %v; want ErrStuck half way", n, err)
	}
	wantText(t, err, name)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a stuck write looks like a passed read deadline")
	}

	line.(*serialLine).writeTimeout = time.Hour
	if n, err := line.Write([]byte{1}); n != 0 || !errors.Is(err, ErrStuck) {
		t.Errorf("second Write = %d, %v; want ErrStuck again", n, err)
	}
	if err := line.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestSerialCloseWhileStuck(t *testing.T) {
	meter, name := openPTY(t)
	line := openLine(t, name)
	line.(*serialLine).writeTimeout = time.Hour
	ended := make(chan error)
	go func() {
		_, err := line.Write(make([]byte, 1<<20))
		ended <- err
	}()
	if _, err := io.ReadFull(meter, make([]byte, 1)); err != nil { // Write is at work
		t.Fatal(err)
	}
	if err := line.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write: %v, want os.ErrClosed", err)
	}
}

// A process with a thousand connections open still has its serial ports: the sets
// of select(2) end at 1023.
func TestSerialManyFiles(t *testing.T) {
	for range 600 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
	}
	meter, name := openPTY(t)
	if meter.fd < 1024 {
		t.Fatalf("file number %d: the test opens too few files", meter.fd)
	}
	line := openLine(t, name)
	if _, err := meter.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 6)
	if _, err := io.ReadFull(line, got); err != nil || string(got) != "answer" {
		t.Errorf("read %q, %v", got, err)
	}
}
