package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// sound opens dir, which must hold a file without damage.
func sound(t *testing.T, dir string) *Store {
	t.Helper()
	s := open(t, dir)
	if err := s.Damaged(); err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *Store, key string, v any) {
	t.Helper()
	if err := s.Put(key, v); err != nil {
		t.Fatal(err)
	}
}

func closed(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// all returns the entries of s as compact JSON.
func all(t *testing.T, s *Store) map[string]string {
	t.Helper()
	got := make(map[string]string)
	for _, key := range s.Keys() {
		var v any
		if found, err := s.Get(key, &v); !found || err != nil {
			t.Fatalf("Get(%q): %t, %v", key, found, err)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		got[key] = string(b)
	}
	return got
}

func contents(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

type meter struct {
	Serial string      `json:"serial"`
	Energy json.Number `json:"energy"`
	Absent []uint16    `json:"absent"`
}

func TestFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "kmp")
	s := sound(t, dir)
	put(t, s, "place/house", "80123456")
	put(t, s, "meter/80123456", meter{"80123456", "227.4450", []uint16{371}})
	put(t, s, "note", "Wärme & <Wasser>")
	closed(t, s)
	want := `{
  "version": 1,
  "entries": {
    "meter/80123456": {"serial":"80123456","energy":227.4450,"absent":[371]},
    "note": "Wärme & <Wasser>",
    "place/house": "80123456"
  }
}
`
	if diff := cmp.Diff(want, contents(t, dir)); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{fileName, lockName}, names(t, dir)); diff != "" {
		t.Errorf("directory (-want +got):\n%s", diff)
	}
	for name, mode := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, fileName): 0o600} {
		if info, err := os.Stat(name); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want %v", name, info.Mode(), err, mode)
		}
	}

	s = sound(t, dir)
	var m meter
	if found, err := s.Get("meter/80123456", &m); !found || err != nil {
		t.Fatal(found, err)
	}
	if diff := cmp.Diff(meter{"80123456", "227.4450", []uint16{371}}, m); diff != "" {
		t.Errorf("entry (-want +got):\n%s", diff)
	}
	s.Delete("meter/80123456")
	s.Delete("never there")
	put(t, s, "place/house", "80123457")
	closed(t, s)
	want = "{\n  \"version\": 1,\n  \"entries\": {\n    \"note\": \"Wärme & <Wasser>\",\n    \"place/house\": \"80123457\"\n  }\n}\n"
	if diff := cmp.Diff(want, contents(t, dir)); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
}

func TestNothingToKeep(t *testing.T) {
	dir := t.TempDir()
	closed(t, sound(t, dir))
	if diff := cmp.Diff([]string{lockName}, names(t, dir)); diff != "" {
		t.Errorf("directory (-want +got):\n%s", diff)
	}
	s := sound(t, dir)
	put(t, s, "a", 1)
	s.Delete("a")
	closed(t, s)
	if got := contents(t, dir); !json.Valid([]byte(got)) {
		t.Errorf("an empty file is no JSON:\n%s", got)
	}
	if got := sound(t, dir).Keys(); len(got) != 0 {
		t.Errorf("keys: %q", got)
	}
}

func TestGet(t *testing.T) {
	s := open(t, "")
	put(t, s, "meter/1", map[string]any{"serial": "1", "energy": 3, "absent": "none"})
	m := meter{Serial: "before", Absent: []uint16{1}}
	found, err := s.Get("meter/1", &m)
	var mismatch *json.UnmarshalTypeError
	if !found || !errors.As(err, &mismatch) || !strings.HasPrefix(err.Error(), "store: meter/1: ") {
		t.Errorf("an entry that does not fit: %t, %v", found, err)
	}
	if diff := cmp.Diff(meter{Serial: "before", Absent: []uint16{1}}, m); diff != "" {
		t.Errorf("it changed what it did not fit (-want +got):\n%s", diff)
	}
	if found, err := s.Get("meter/2", &m); found || err != nil {
		t.Errorf("no entry: %t, %v", found, err)
	}
	for _, into := range []any{nil, m, (*meter)(nil)} {
		if _, err := s.Get("meter/1", into); err == nil {
			t.Errorf("decoded into %T", into)
		}
	}
}

func TestPutRefuses(t *testing.T) {
	s := open(t, "")
	put(t, s, "a", 1)
	for name, p := range map[string]struct {
		key string
		v   any
	}{
		"an empty key":    {"", 1},
		"a long key":      {strings.Repeat("x", maxKey+1), 1},
		"a key of bytes":  {"meter/\xff", 1},
		"a quote":         {`meter/"`, 1},
		"a backslash":     {`meter\1`, 1},
		"a new line":      {"meter\n1", 1},
		"a value of code": {"a", func() {}},
		"no number":       {"a", json.Number("seven")},
	} {
		if err := s.Put(p.key, p.v); err == nil || !strings.HasPrefix(err.Error(), "store: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if diff := cmp.Diff(map[string]string{"a": "1"}, all(t, s)); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

// What is put must be read again: the bound holds for the file, not for one entry.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	const limit, part = 64 << 10, 8 << 10
	bounded := func() *Store {
		t.Helper()
		s, err := openBounded(dir, limit)
		if err != nil || s.Damaged() != nil {
			t.Fatal(err, s.Damaged())
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	s := bounded()
	kept := 0
	for i := range 10 {
		switch err := s.Put(fmt.Sprint(i), strings.Repeat("x", part)); {
		case err == nil:
			kept++
		case !errors.Is(err, ErrFull):
			t.Fatal(err)
		}
	}
	if kept != 7 {
		t.Fatalf("%d entries of 8 KiB are kept, want 7", kept)
	}
	put(t, s, "0", strings.Repeat("y", part)) // in the place of another
	s.Delete("1")
	put(t, s, "7", strings.Repeat("x", part))
	rest := limit - s.size - entrySize("r", json.RawMessage(`""`))
	if err := s.Put("r", strings.Repeat("x", rest+1)); !errors.Is(err, ErrFull) {
		t.Fatalf("one byte too many: %v", err)
	}
	put(t, s, "r", strings.Repeat("x", rest))
	closed(t, s)
	if got := len(contents(t, dir)); got != limit-1 { // there is no comma behind the last
		t.Errorf("the file has %d bytes, the bound is %d", got, limit)
	}
	if got := bounded().Keys(); len(got) != 8 {
		t.Errorf("keys: %q", got)
	}
}

func TestMemoryOnly(t *testing.T) {
	var none *Store
	here := open(t, "")
	for _, s := range []*Store{none, here} {
		put(t, s, "a", 1)
		if err := errors.Join(s.Flush(), s.Close(), s.Flush(), s.Damaged()); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s.Run(ctx, func(err error) { t.Errorf("failed: %v", err) })
	}
	var v int
	if found, err := none.Get("a", &v); found || err != nil || len(none.Keys()) != 0 {
		t.Errorf("a nil store knows something: %t, %v", found, err)
	}
	none.Delete("a")
	if found, err := here.Get("a", &v); !found || err != nil || v != 1 {
		t.Errorf("Get: %t, %v, %d", found, err, v)
	}
}

func TestClosed(t *testing.T) {
	dir := t.TempDir()
	s := sound(t, dir)
	put(t, s, "a", 1)
	closed(t, s)
	closed(t, s)
	other := sound(t, dir)
	put(t, other, "a", 2)
	closed(t, other)
	put(t, s, "a", 3)
	if err := s.Flush(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Flush: %v, want fs.ErrClosed", err)
	}
	if diff := cmp.Diff(map[string]string{"a": "2"}, all(t, sound(t, dir))); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

const twoEntries = "{\n  \"version\": 1,\n  \"entries\": {\n    \"a\": {\n      \"x\": [\n        1\n      ]\n    },\n    \"b\": 1234\n  }\n}\n"

func TestDamage(t *testing.T) {
	both := map[string]string{"a": `{"x":[1]}`, "b": "1234"}
	onlyA := map[string]string{"a": `{"x":[1]}`}
	onlyB := map[string]string{"b": "1234"}
	none := map[string]string{}
	for name, c := range map[string]struct {
		file string
		want map[string]string
	}{
		"empty":                       {"", none},
		"zeros":                       {strings.Repeat("\x00", len(twoEntries)), none},
		"without its end":             {strings.TrimSuffix(twoEntries, "\n}\n"), onlyA},
		"cut in a number":             {twoEntries[:strings.Index(twoEntries, "34\n")], onlyA},
		"cut in the first entry":      {twoEntries[:strings.Index(twoEntries, "]")], none},
		"cut behind the first entry":  {twoEntries[:strings.Index(twoEntries, "\n    \"b\"")], onlyA},
		"an entry of noise":           {strings.Replace(twoEntries, "[\n        1", "\x00\xff{{", 1), onlyB},
		"an entry of words":           {strings.Replace(twoEntries, "1234", "none", 1), onlyA},
		"a key that is none":          {strings.Replace(twoEntries, `"b"`, `"b\n"`, 1), onlyA},
		"an empty key":                {strings.Replace(twoEntries, `"b"`, `""`, 1), onlyA},
		"something behind":            {twoEntries + "}", onlyA},
		"twice":                       {twoEntries + twoEntries, both},
		"noise between":               {strings.Replace(twoEntries, "},\n", "},\n\x01", 1), none},
		"not ours: a list":            {`[1,2]`, none},
		"not ours: a number":          {`7`, none},
		"not ours: null":              {`null`, none},
		"not ours: no version":        {`{"entries":{"a":1}}`, none},
		"not ours: version 0":         {`{"version":0,"entries":{"a":1}}`, none},
		"not ours: version of words":  {`{"version":"new","entries":{"a":1}}`, none},
		"not ours: version 1.5":       {`{"version":1.5,"entries":{"a":1}}`, none},
		"not ours: entries in a list": {`{"version":1,"entries":[1]}`, none},
		"not ours: no entries":        {`{"version":1}`, none},
		"not ours: null entries":      {`{"version":1,"entries":null}`, none},
		"deep":                        {strings.Repeat("[", 1<<20), none},
		"a program":                   {"\x7fELF\x02\x01\x01", none},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, fileName), []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
			s := open(t, dir)
			if err := s.Damaged(); err == nil || !strings.HasPrefix(err.Error(), "store: ") {
				t.Fatalf("Damaged: %v", err)
			}
			if diff := cmp.Diff(c.want, all(t, s)); diff != "" {
				t.Errorf("saved (-want +got):\n%s", diff)
			}
			aside, err := filepath.Glob(filepath.Join(dir, fileName+".damaged-*"))
			if err != nil || len(aside) != 1 {
				t.Fatalf("set aside: %q, %v", aside, err)
			}
			if !strings.Contains(s.Damaged().Error(), aside[0]) {
				t.Errorf("Damaged does not name %s: %v", aside[0], s.Damaged())
			}
			if b, err := os.ReadFile(aside[0]); err != nil || string(b) != c.file {
				t.Errorf("set aside is something else: %q, %v", b, err)
			}
			closed(t, s) // writes what was saved, though nothing was put
			if diff := cmp.Diff(c.want, all(t, sound(t, dir))); diff != "" {
				t.Errorf("afterwards (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("whole", func(t *testing.T) {
		dir := t.TempDir()
		for _, file := range []string{twoEntries, `{"entries":{"b":1234,"a":{"x":[1]}},"version":1,"hint":"by hand"}`} {
			if err := os.WriteFile(filepath.Join(dir, fileName), []byte(file), 0o600); err != nil {
				t.Fatal(err)
			}
			s := sound(t, dir)
			if diff := cmp.Diff(both, all(t, s)); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
			closed(t, s)
			if got := contents(t, dir); got != file {
				t.Errorf("the file changed though no entry did:\n%s", got)
			}
		}
	})
}

func TestTooLarge(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, fileName)
	if err := errors.Join(os.WriteFile(name, []byte(twoEntries), 0o600), os.Truncate(name, maxSize+1)); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	if s.Damaged() == nil || len(s.Keys()) != 0 {
		t.Errorf("%v, %q", s.Damaged(), s.Keys())
	}
}

func TestNotAFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, fileName), 0o700); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	if s.Damaged() == nil {
		t.Error("a directory in place of the file is no damage")
	}
	put(t, s, "a", 1)
	closed(t, s)
	if diff := cmp.Diff(map[string]string{"a": "1"}, all(t, sound(t, dir))); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func TestNewer(t *testing.T) {
	for _, file := range []string{`{"version":2,"entries":{"a":1}}`, `{"version":2,"entries":[{"key":"a"}]}`, `{"version":3}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(dir)
		if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), filepath.Join(dir, fileName)) {
			t.Errorf("Open: %v, want ErrNewer with the file's name", err)
		}
		if got := contents(t, dir); got != file {
			t.Errorf("the newer file changed: %s", got)
		}
		if err := os.Remove(filepath.Join(dir, fileName)); err != nil {
			t.Fatal(err)
		}
		sound(t, dir) // the lock was let go
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	s := sound(t, dir)
	_, err := Open(dir)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("process %d on ", os.Getpid())) ||
		!strings.Contains(err.Error(), dir) {
		t.Errorf("Open: %v, want ErrLocked with the directory and this process", err)
	}
	closed(t, s)
	closed(t, sound(t, dir))
}

func TestOpenFails(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{name, filepath.Join(name, "below"), "a\x00b"} {
		if s, err := Open(dir); err == nil || s != nil || !strings.HasPrefix(err.Error(), "store: ") {
			t.Errorf("Open(%q): %v, %v", dir, s, err)
		}
	}
}

func TestTogether(t *testing.T) {
	dir := t.TempDir()
	s := sound(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	var running, users sync.WaitGroup
	running.Go(func() { s.Run(ctx, func(err error) { t.Errorf("failed: %v", err) }) })
	want := make(map[string]string)
	for n := range 4 {
		want[fmt.Sprintf("meter/%d", n)] = "99"
		users.Go(func() {
			key := fmt.Sprintf("meter/%d", n)
			for i := range 100 {
				if err := s.Put(key, i); err != nil {
					t.Error(err)
				}
				var got int
				if found, err := s.Get(key, &got); !found || err != nil || got != i {
					t.Errorf("Get: %t, %v, %d; want %d", found, err, got, i)
				}
				if i%25 == 0 {
					if err := s.Flush(); err != nil {
						t.Error(err)
					}
				}
				if err := s.Put("passing", i); err != nil {
					t.Error(err)
				}
				s.Delete("passing")
				s.Keys()
			}
		})
	}
	users.Wait()
	cancel()
	running.Wait()
	closed(t, s)
	if diff := cmp.Diff(want, all(t, sound(t, dir))); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

// stored returns what the file of dir holds, nil if there is none.
func stored(t *testing.T, dir string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, fileName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	entries, err := parse(b)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for key, v := range entries {
		got[key] = string(v)
	}
	return got
}

func wantStored(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, stored(t, dir)); diff != "" {
		t.Fatalf("in the file (-want +got):\n%s", diff)
	}
}

func TestRunPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := sound(t, dir)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx, func(err error) { t.Errorf("failed: %v", err) }) })
		pass := func(d time.Duration) { t.Helper(); time.Sleep(d); synctest.Wait() }

		pass(time.Hour)
		wantStored(t, dir, nil)
		put(t, s, "a", 1)
		pass(Pace - time.Second)
		put(t, s, "a", 2)
		wantStored(t, dir, nil)
		pass(time.Second)
		wantStored(t, dir, map[string]string{"a": "2"})

		// Changes without end: one write in each pace, never more, never fewer.
		writes, last := 0, map[string]string{"a": "2"}
		for i := range 100 {
			put(t, s, "a", 100+i)
			pass(Pace / 10)
			if now := stored(t, dir); !maps.Equal(now, last) {
				writes, last = writes+1, now
			}
		}
		if writes < 9 || writes > 10 {
			t.Errorf("%d writes in ten times the pace, want one in each", writes)
		}
		pass(Pace)

		// The same again is no change: the file is not touched.
		if err := os.Remove(filepath.Join(dir, fileName)); err != nil {
			t.Fatal(err)
		}
		put(t, s, "a", 199)
		pass(time.Hour)
		wantStored(t, dir, nil)

		put(t, s, "a", 200)
		synctest.Wait()
		cancel()
		running.Wait()
		wantStored(t, dir, map[string]string{"a": "200"})
	})
}

// What is put just before the end is written, whatever Run was doing.
func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := sound(t, dir)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		put(t, s, "a", 1)
		s.Run(ctx, func(err error) { t.Errorf("failed: %v", err) })
		wantStored(t, dir, map[string]string{"a": "1"})
	})
}

func TestDirectoryVanishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "data")
		away := dir + "-away"
		s := sound(t, dir)
		var told []error
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx, func(err error) { told = append(told, err) }) })
		pass := func(d time.Duration) { t.Helper(); time.Sleep(d); synctest.Wait() }
		put(t, s, "a", 1)
		pass(Pace)

		if err := os.Rename(dir, away); err != nil {
			t.Fatal(err)
		}
		for i := range 60 { // changes all the time must not put off the next try
			put(t, s, "b", i)
			pass(time.Second)
		}
		if len(told) != 1 || !errors.Is(told[0], fs.ErrNotExist) {
			t.Fatalf("told %v, want once that the directory is not there", told)
		}
		if err := os.Rename(away, dir); err != nil {
			t.Fatal(err)
		}
		pass(Pace)
		wantStored(t, dir, map[string]string{"a": "1", "b": "59"})
		if len(told) != 2 || told[1] != nil {
			t.Fatalf("told %v, want that it works again", told)
		}

		// Made anew, and somebody else was quicker: two must not write.
		if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
			t.Fatal(err)
		}
		other := sound(t, dir)
		put(t, s, "b", 100)
		pass(time.Minute)
		if len(told) != 3 || !errors.Is(told[2], ErrLocked) {
			t.Fatalf("told %v, want ErrLocked", told)
		}
		wantStored(t, dir, nil)
		closed(t, other)
		pass(Pace)
		wantStored(t, dir, map[string]string{"a": "1", "b": "100"})
		if len(told) != 4 || told[3] != nil {
			t.Fatalf("told %v, want that it works again", told)
		}
		if _, err := Open(dir); !errors.Is(err, ErrLocked) {
			t.Errorf("Open: %v, want that the new directory is locked, too", err)
		}

		// Not there at the end: told, and not for ever.
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		put(t, s, "b", 101)
		synctest.Wait()
		cancel()
		running.Wait()
		if len(told) != 5 || told[4] == nil {
			t.Errorf("told %v, want that the last is lost", told)
		}
		if err := s.Close(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Close: %v", err)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(twoEntries))
	f.Add([]byte(twoEntries[:60]))
	f.Add([]byte(`{"version":1,"entries":{"a\n":null,"b":  [ 1 , 2 ] }}`))
	f.Add([]byte(fileHead + entryHead + "a" + entryMid + " 1 ," + entryHead + "b" + entryMid + "\"\xff\"" + fileTail))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := parse(b)
		if errors.Is(err, ErrNewer) {
			return
		}
		saved := salvage(b)
		for _, got := range []map[string]json.RawMessage{entries, saved} {
			size := frameSize
			for key, v := range got {
				size += entrySize(key, v)
			}
			file := appendFile(nil, got)
			if len(file) > size || len(file) < size-1 {
				t.Errorf("%d bytes, expected %d", len(file), size)
			}
			again, err := parse(file)
			if err != nil {
				t.Fatalf("a file of our own: %v\n%s", err, file)
			}
			if diff := cmp.Diff(len(got), len(again)); diff != "" {
				t.Fatalf("entries (-want +got):\n%s", diff)
			}
			for key, v := range got {
				if string(again[key]) != string(v) {
					t.Errorf("%s: %q became %q", key, v, again[key])
				}
			}
		}
	})
}

// Salvage must find every entry of a file that lost its last byte only.
func TestSalvage(t *testing.T) {
	want := make(map[string]json.RawMessage)
	for i := range 200 {
		v, err := encode(map[string]any{"n": i, "nested": map[string]any{"list": []any{i, "x\n    \"y\": 1,", nil}}, "empty": []int{}})
		if err != nil {
			t.Fatal(err)
		}
		want[fmt.Sprintf("meter/%d", i)] = v
	}
	file := appendFile(nil, want)
	keys := slices.Sorted(maps.Keys(want))
	for cut := len(file) - 1; cut > len(fileHead); cut -= 997 {
		got := salvage(file[:cut])
		whole := strings.Count(string(file[:cut]), "},\n")
		if len(got) != whole {
			t.Fatalf("cut at %d: %d entries, %d are whole", cut, len(got), whole)
		}
		for _, key := range keys[:whole] {
			if string(got[key]) != string(want[key]) {
				t.Fatalf("cut at %d: %s: %s", cut, key, got[key])
			}
		}
	}
}
