package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	s := sound(t, dir)
	put(t, s, "a", 1)
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", filepath.Join(dir, tempName)); err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", 2)
	if err := s.Flush(); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("Flush: %v, want ENOSPC", err)
	}
	wantStored(t, dir, map[string]string{"a": "1"})
	if diff := cmp.Diff([]string{fileName, lockName}, names(t, dir)); diff != "" { // what is half written takes no space
		t.Errorf("directory (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"a": "2"}, all(t, s)); diff != "" {
		t.Errorf("in memory (-want +got):\n%s", diff)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	wantStored(t, dir, map[string]string{"a": "2"})
}
