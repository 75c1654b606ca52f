package history

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmp2mqtt/kmp"
)

// asNobody calls f as a user who owns nothing, if the tests run as root.
func asNobody(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		if os.Geteuid() == 0 {
			_ = unix.Setfsuid(65534) // for the files that this thread opens; the cases below tell whether it worked
		}
		f()
	}()
	<-done
}

// limit bounds the size of files, as a full disk does, until the function it returns is called.
func limit(t *testing.T, size uint64) (lift func()) {
	t.Helper()
	signal.Ignore(unix.SIGXFSZ)
	var old unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &old))
	now := old
	now.Cur = size
	must(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &now))
	return func() { must(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &old)) }
}

// limited in the environment makes TestDiskFull the process whose files are bounded.
const limited = "HISTORY_TEST_LIMITED"

func TestDiskFull(t *testing.T) {
	if os.Getenv(limited) == "" { // the files that go test itself writes must not be bounded
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDiskFull$", "-test.v")
		cmd.Env = append(os.Environ(), limited+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Count(string(out), "--- PASS: TestDiskFull/") != 3 {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	t.Run("new", func(t *testing.T) {
		dir := t.TempDir()
		s := sound(t, dir)
		lift := limit(t, 2*pageSize)
		err := s.Append(serial, hourRows(1, 2))
		lift()
		if !errors.Is(err, unix.EFBIG) || !strings.HasPrefix(err.Error(), "history: ") {
			t.Errorf("%v, want EFBIG", err)
		}
		if got := names(t, dir); len(got) != 0 { // what is half written takes no space
			t.Errorf("directory: %q", got)
		}
		must(t, s.Append(serial, hourRows(1, 2)))
		wantKept(t, sound(t, dir), hourRows(1, 2))
	})
	t.Run("growing", func(t *testing.T) {
		dir := t.TempDir()
		s := sound(t, dir)
		must(t, s.Append(serial, hourRows(1, 200)))
		info, err := os.Stat(s.file())
		must(t, err)
		lift := limit(t, uint64(info.Size()))
		safe, err := uint32(200), error(nil)
		for range 100 {
			if err = s.Append(serial, hourRows(safe+1, safe+24)); err != nil {
				break
			}
			safe += 24
		}
		if err == nil || !strings.HasPrefix(err.Error(), "history: ") || !strings.Contains(err.Error(), "file too large") {
			t.Errorf("after %d rows: %v", safe, err)
		}
		wantKept(t, s, hourRows(1, safe))
		wantLast(t, s, safe)
		lift()
		must(t, s.Append(serial, hourRows(safe+1, safe+24)))
		wantKept(t, sound(t, dir), hourRows(1, safe+24))
	})
	t.Run("rebuilding", func(t *testing.T) {
		b := sample(t, 300)
		clear(b[:2*pageSize])
		dir := write(t, b)
		lift := limit(t, 5*pageSize)
		s, err := Open(dir)
		lift()
		if err == nil || s != nil || !strings.Contains(err.Error(), "is damaged") || !strings.Contains(err.Error(), "cannot be rebuilt") {
			t.Errorf("Open: %v", err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, fileName)); err != nil || string(got) != string(b) || len(names(t, dir)) != 1 {
			t.Errorf("the directory was changed: %v", err)
		}
		if got := wantTrue(t, open(t, dir), 300); got != 600 {
			t.Errorf("%d rows", got)
		}
	})
}

func TestNotAllowed(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	s := sound(t, dir)
	must(t, s.Append(serial, hourRows(1, 5)))
	file := filepath.Join(dir, fileName)
	b, err := os.ReadFile(file)
	must(t, err)
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, fs.ErrPermission) || !strings.HasPrefix(err.Error(), "history: ") || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v, want fs.ErrPermission", what, err)
		}
	}

	must(t, os.Chmod(file, 0))
	asNobody(func() {
		_, err := Open(dir)
		refused("a file that cannot be read", err)
		_, err = Copy(dir)
		refused("a copy of it", err)
		refused("rows for it", s.Append(serial, hourRows(6, 7)))
	})

	must(t, os.Chmod(file, 0o444))
	asNobody(func() {
		s, err := Open(dir)
		must(t, err)
		wantKept(t, s, hourRows(1, 5))
		refused("a file that cannot be written", s.Append(serial, hourRows(6, 7)))
		refused("a position in it", s.SetPosition("mqtt", serial, kmp.LogHour, 2))
		wantKept(t, s, hourRows(1, 5))
	})

	must(t, os.Chmod(dir, 0o555))
	damaged := append(make([]byte, 2*pageSize), b[2*pageSize:]...)
	must(t, errors.Join(os.Chmod(file, 0o666), os.WriteFile(file, damaged, 0o666)))
	asNobody(func() {
		_, err := Open(dir)
		refused("a damaged file that cannot be replaced", err)
		if !strings.Contains(err.Error(), "is damaged") {
			t.Errorf("%v, want both", err)
		}
		c, err := Copy(dir)
		must(t, err)
		wantKept(t, c, hourRows(1, 5))
		must(t, c.Close())
	})
	must(t, os.WriteFile(file, b, 0o666))
	asNobody(func() {
		must(t, s.Append(serial, hourRows(6, 7))) // the file is enough
		wantKept(t, s, hourRows(1, 7))
	})

	must(t, os.Remove(file))
	asNobody(func() { refused("a directory that cannot be written", s.Append(serial, hourRows(8, 9))) })
	must(t, os.Chmod(dir, 0o700))
	must(t, s.Append(serial, hourRows(8, 9)))
	wantKept(t, s, hourRows(8, 9))
}
