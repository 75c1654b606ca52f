package history

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kmp2mqtt/kmp"
)

func copyOf(t *testing.T, dir string) *Store {
	t.Helper()
	c, err := Copy(dir)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// tempDir makes the system's directory for temporary files an empty one, or none.
func tempDir(t *testing.T, there bool) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "temporary")
	if there {
		must(t, os.Mkdir(dir, 0o700))
	}
	for _, name := range []string{"TMPDIR", "TMP", "TEMP"} {
		t.Setenv(name, dir)
	}
	return dir
}

func TestCopy(t *testing.T) {
	temp := tempDir(t, true)
	dir := t.TempDir()
	s := sound(t, dir)
	must(t, errors.Join(s.Append(serial, hourRows(1, 300)), s.SetPosition("mqtt", serial, kmp.LogHour, 200), s.SetName(serial, "house")))
	c := copyOf(t, dir)
	must(t, errors.Join(s.Append(serial, hourRows(301, 310)), c.Damaged()))
	wantKept(t, c, hourRows(1, 300))
	wantPosition(t, c, "mqtt", 200)
	wantLast(t, c, 300)
	if meters, err := c.Meters(); err != nil || len(meters) != 1 || meters[0].Name != "house" {
		t.Errorf("meters: %v, %v", meters, err)
	}
	if err := c.Append(serial, hourRows(301, 302)); !errors.Is(err, errReadOnly) {
		t.Errorf("a copy takes rows: %v", err)
	}
	if err := c.SetPosition("mqtt", serial, kmp.LogHour, 1); !errors.Is(err, errReadOnly) {
		t.Errorf("a copy takes a position: %v", err)
	}
	wantKept(t, c, hourRows(1, 300))
	if got := names(t, temp); len(got) != 1 {
		t.Errorf("temporary files: %q", got)
	}
	must(t, errors.Join(c.Close(), c.Close()))
	if got := names(t, temp); len(got) != 0 {
		t.Errorf("temporary files: %q", got)
	}
	if diff := cmp.Diff([]string{fileName}, names(t, dir)); diff != "" {
		t.Errorf("directory (-want +got):\n%s", diff)
	}
	wantKept(t, s, hourRows(1, 310))
}

// In a container there may be no directory for temporary files.
func TestCopyBeside(t *testing.T) {
	tempDir(t, false)
	dir := t.TempDir()
	must(t, sound(t, dir).Append(serial, hourRows(1, 3)))
	c := copyOf(t, dir)
	wantKept(t, c, hourRows(1, 3))
	must(t, c.Close())
	if diff := cmp.Diff([]string{fileName}, names(t, dir)); diff != "" {
		t.Errorf("directory (-want +got):\n%s", diff)
	}
}

func TestCopyOfNothing(t *testing.T) {
	temp := tempDir(t, true)
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "one"), 0o700))
	must(t, os.MkdirAll(filepath.Join(dir, "two", fileName), 0o700))
	for _, dir := range []string{filepath.Join(dir, "one"), filepath.Join(dir, "none")} {
		if c, err := Copy(dir); !errors.Is(err, fs.ErrNotExist) || c != nil {
			t.Errorf("%v, want fs.ErrNotExist", err)
		}
	}
	if c, err := Copy(filepath.Join(dir, "two")); err == nil || c != nil {
		t.Error("a directory was copied")
	}
	if got := names(t, temp); len(got) != 0 {
		t.Errorf("temporary files: %q", got)
	}
}

func TestCopyOfDamage(t *testing.T) {
	temp := tempDir(t, true)
	b := sample(t, 300)
	clear(b[:2*pageSize])
	dir := write(t, b)
	c := copyOf(t, dir)
	want := "history: " + filepath.Join(dir, fileName) + " is damaged: page 0: not what it should be; left as it is; rows that can be read: 600"
	if err := c.Damaged(); err == nil || err.Error() != want {
		t.Errorf("told: %v, want %s", err, want)
	}
	if got := wantTrue(t, c, 300); got != 600 {
		t.Errorf("%d rows", got)
	}
	must(t, c.Close())
	if got := names(t, temp); len(got) != 0 {
		t.Errorf("temporary files: %q", got)
	}
	if got, err := os.ReadFile(filepath.Join(dir, fileName)); err != nil || !bytes.Equal(got, b) || len(names(t, dir)) != 1 {
		t.Errorf("the directory was changed: %v", err)
	}
}

// A copy has whole transactions, whatever is written meanwhile, and the writer goes on.
func TestCopyWhileRowsCome(t *testing.T) {
	tempDir(t, true)
	dir := t.TempDir()
	s := sound(t, dir)
	const each = 7
	must(t, s.Append(serial, hourRows(1, each)))
	done := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		for id := uint32(each + 1); ; id += each {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := errors.Join(s.Append(serial, hourRows(id, id+each-1)), s.SetPosition("mqtt", serial, kmp.LogHour, id)); err != nil {
				done <- err
				return
			}
			runtime.Gosched()
		}
	}()
	rows := 0
	for range 50 {
		c := copyOf(t, dir)
		must(t, c.Damaged())
		got := kept(t, c, serial, kmp.LogHour)
		if len(got)%each != 0 || len(got) < rows {
			t.Fatalf("%d rows after %d", len(got), rows)
		}
		rows = len(got)
		wantKept(t, c, hourRows(1, uint32(rows)))
		if id, ok, err := c.Position("mqtt", serial, kmp.LogHour); err != nil || ok && id != uint32(rows-each+1) && id != uint32(rows-2*each+1) {
			t.Fatalf("position %d of %d rows, %v", id, rows, err)
		}
		must(t, c.Close())
	}
	close(stop)
	must(t, <-done)
	if rows <= each {
		t.Error("nothing was written meanwhile")
	}
	t.Logf("%d rows came while it was copied", rows)
}
