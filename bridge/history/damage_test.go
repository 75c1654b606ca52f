package history

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/logbook"
)

// sample is a file as a bridge leaves it: rows 1 to n of before a restart, rows 1 to n of
// after it, with positions.
func sample(t testing.TB, n uint32) []byte {
	t.Helper()
	dir := t.TempDir()
	s := sound(t, dir)
	must(t, s.SetName(serial, "house"))
	for range 2 {
		must(t, s.Restart(serial, kmp.LogHour))
		for id := uint32(1); id <= n; id += 24 {
			last := min(id+23, n)
			must(t, s.Append(serial, hourRows(id, last)))
			must(t, s.SetPosition("mqtt", serial, kmp.LogHour, last))
		}
	}
	must(t, s.Close())
	b, err := os.ReadFile(filepath.Join(dir, fileName))
	must(t, err)
	return b
}

func write(t testing.TB, b []byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, fileName), b, 0o600))
	return dir
}

// aside returns what was set aside in dir.
func aside(t *testing.T, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, asideName+"*"))
	must(t, err)
	return list
}

// wantTold returns what the Store tells of damage, which must name both files.
func wantTold(t *testing.T, s *Store, dir string) string {
	t.Helper()
	err := s.Damaged()
	files := aside(t, dir)
	if err == nil || len(files) != 1 || !strings.Contains(err.Error(), filepath.Join(dir, fileName)+" is damaged: ") || !strings.Contains(err.Error(), "kept as "+files[0]) {
		t.Fatalf("Damaged: %v; aside: %q", err, files)
	}
	if again := s.Damaged(); again != nil {
		t.Fatalf("told twice: %v", again)
	}
	return err.Error()
}

// wantTrue checks that every row of a damaged file's Store is one that was written, in
// order, and returns how many there are.
func wantTrue(t testing.TB, s *Store, n uint32) (rows int) {
	t.Helper()
	generations, before := 1, uint32(0)
	for _, row := range kept(t, s, serial, kmp.LogHour) {
		if row.ID <= before {
			generations++
		}
		before = row.ID
		if row.ID < 1 || row.ID > n || !same(hourRow(row.ID), row) {
			t.Fatalf("a row that was not written: %v", row)
		}
		rows++
	}
	if generations > 2 {
		t.Fatalf("%d generations", generations)
	}
	return rows
}

// damages are ways in which files come back from a card that wore out.
var damages = map[string]func(random *rand.Rand, b []byte) []byte{
	"a bit": func(random *rand.Rand, b []byte) []byte {
		b[random.IntN(len(b))] ^= 1 << random.IntN(8)
		return b
	},
	"a bit of a header": func(random *rand.Rand, b []byte) []byte {
		b[random.IntN(len(b)/pageSize)*pageSize+random.IntN(128)] ^= 1 << random.IntN(8)
		return b
	},
	"bits": func(random *rand.Rand, b []byte) []byte {
		for range 1 + random.IntN(100) {
			b[random.IntN(len(b))] ^= 1 << random.IntN(8)
		}
		return b
	},
	"the end": func(random *rand.Rand, b []byte) []byte { return b[:random.IntN(len(b))] },
	"a page of zeros": func(random *rand.Rand, b []byte) []byte {
		clear(b[random.IntN(len(b)/pageSize)*pageSize:][:pageSize])
		return b
	},
	"a sector of noise": func(random *rand.Rand, b []byte) []byte {
		at := random.IntN(len(b)/512) * 512
		for i := range 512 {
			b[at+i] = byte(random.Uint32())
		}
		return b
	},
	"a page in the place of another": func(random *rand.Rand, b []byte) []byte {
		from, to := random.IntN(len(b)/pageSize), random.IntN(len(b)/pageSize)
		copy(b[to*pageSize:][:pageSize], b[from*pageSize:][:pageSize])
		return b
	},
	"a page of before": func(random *rand.Rand, b []byte) []byte { // with a number that fits
		from, to := random.IntN(len(b)/pageSize), random.IntN(len(b)/pageSize)
		copy(b[to*pageSize+8:][:pageSize-8], b[from*pageSize+8:][:pageSize-8])
		return b
	},
}

func TestDamage(t *testing.T) {
	for _, n := range []uint32{3, 200} { // a bucket inside of a page, and a tree
		whole := sample(t, n)
		for name, damage := range damages {
			t.Run(fmt.Sprintf("%s, %d rows", name, n), func(t *testing.T) {
				random := rand.New(rand.NewPCG(3, uint64(n)))
				set, least := 0, 2*int(n)
				for range 40 {
					b := damage(random, bytes.Clone(whole))
					dir := write(t, b)
					s := open(t, dir)
					rows := wantTrue(t, s, n)
					if damaged := s.Damaged(); damaged != nil {
						set++
						least = min(least, rows)
						files := aside(t, dir)
						if len(files) != 1 {
							t.Fatalf("%v; aside: %q", damaged, files)
						}
						if got, err := os.ReadFile(files[0]); err != nil || !bytes.Equal(got, b) {
							t.Fatalf("what is set aside is not the file that was damaged: %v", err)
						}
						wantLast(t, s, 0)
						if id, _, err := s.Position("mqtt", serial, kmp.LogHour); err != nil || id > n {
							t.Fatalf("position %d, %v", id, err)
						}
					} else if missing := 2*int(n) - rows; missing != 0 { // one transaction back, as after a crash
						t.Fatalf("%d rows are missing and nothing was told", missing)
					}
					// The meter still has what is missing.
					must(t, s.Append(serial, hourRows(1, n+1)))
					wantLast(t, s, n+1)
					got, err := s.After(serial, kmp.LogHour, 0, int(n)+2)
					must(t, err)
					if diff := diff(hourRows(1, n+1), got); diff != "" {
						t.Fatalf("rows (-want +got):\n%s", diff)
					}
					must(t, s.Close())
					must(t, sound(t, dir).Close())
				}
				t.Logf("set aside %d of 40, of %d rows at least %d saved", set, 2*n, least)
			})
		}
	}
}

// A meta that was half written is none: the one before counts, with the transaction before.
func TestHalfAMeta(t *testing.T) {
	dir := t.TempDir()
	s := sound(t, dir)
	must(t, s.Append(serial, hourRows(1, 300)))
	must(t, s.Append(serial, hourRows(301, 400)))
	must(t, s.Close())
	f, err := os.OpenFile(filepath.Join(dir, fileName), os.O_RDWR, 0)
	must(t, err)
	m0, err := readMeta(f, 0)
	must(t, err)
	m1, err := readMeta(f, 1)
	must(t, err)
	newer := int64(0)
	if m1.tx > m0.tx {
		newer = 1
	}
	_, err = f.WriteAt(make([]byte, 32), newer*pageSize+pageHeader+32)
	must(t, errors.Join(err, f.Close()))
	s = sound(t, dir)
	wantKept(t, s, hourRows(1, 300))
	wantLast(t, s, 300)
	must(t, s.Append(serial, hourRows(301, 400)))
	wantKept(t, sound(t, dir), hourRows(1, 400))
}

// All that is told of a file of 500 rows in which one page does not count any more.
func TestRebuilt(t *testing.T) {
	b := sample(t, 500)
	f := bytes.NewReader(b)
	m0, err := readMeta(f, 0)
	must(t, err)
	m1, err := readMeta(f, 1)
	must(t, err)
	clear(b[max(m0.root*b2u(m0.tx > m1.tx), m1.root*b2u(m1.tx > m0.tx))*pageSize:][:pageSize]) // where all begins
	dir := write(t, b)
	s := open(t, dir)
	told := wantTold(t, s, dir)
	if !strings.HasPrefix(told, "history: ") || !strings.HasSuffix(told, "; rows saved: 1000") {
		t.Errorf("told: %s", told)
	}
	if got := wantTrue(t, s, 500); got != 1000 {
		t.Errorf("%d rows", got)
	}
	wantPosition(t, s, "mqtt", 500) // nothing is published again
	wantLast(t, s, 0)               // but everything is read again
	if meters, err := s.Meters(); err != nil || !cmp.Equal(meters, []Meter{{serial, "house", []kmp.LogType{kmp.LogHour}}}) {
		t.Errorf("meters: %v, %v", meters, err)
	}
	must(t, s.Append(serial, hourRows(1, 7)))
	wantLast(t, s, 7) // it goes on here, also after a restart
	wantLast(t, sound(t, dir), 7)
	must(t, s.SetPosition("mqtt", serial, kmp.LogHour, 3))
	wantPosition(t, sound(t, dir), "mqtt", 3)
}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// Of the positions in a damaged file, in use or not, the last one that was set counts.
func TestLatestPosition(t *testing.T) {
	dir := t.TempDir()
	s := sound(t, dir)
	must(t, s.Append(serial, hourRows(1, 100)))
	for _, id := range []uint32{10, 99, 50, 7} {
		must(t, s.SetPosition("mqtt", serial, kmp.LogHour, id))
		must(t, s.SetName(serial, fmt.Sprint("name ", id)))
	}
	must(t, s.Close())
	name := filepath.Join(dir, fileName)
	b, err := os.ReadFile(name)
	must(t, err)
	clear(b[:2*pageSize])
	must(t, os.WriteFile(name, b, 0o600))
	s = open(t, dir)
	wantTold(t, s, dir)
	wantPosition(t, s, "mqtt", 7)
	wantKept(t, s, hourRows(1, 100))
	if meters, err := s.Meters(); err != nil || len(meters) != 1 || meters[0].Name != "name 7" {
		t.Errorf("meters: %v, %v", meters, err)
	}
}

// put replaces the value of a key behind the Store's back, by bbolt's own hand.
func put(t *testing.T, dir string, key []byte, change func(value []byte) []byte) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, fileName), 0o600, nil)
	must(t, err)
	must(t, errors.Join(db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucketName))
		return b.Put(key, change(bytes.Clone(b.Get(key))))
	}), db.Close()))
}

// flip changes a bit of row 42 in all copies that are in a file.
func flip(t *testing.T, b []byte) {
	t.Helper()
	key := rowKey(serial, kmp.LogHour, 0, 42)
	row, err := encodeRow(hourRow(42))
	must(t, err)
	whole := append(bytes.Clone(key), seal(key, row)...)
	n := 0
	for at := 0; ; n++ {
		i := bytes.Index(b[at:], whole)
		if i < 0 {
			break
		}
		at += i + len(whole)
		b[at-1] ^= 0x10
	}
	if n == 0 {
		t.Fatal("no such row")
	}
}

// One row that is not what was written, in a file that is otherwise sound.
func TestDamagedRow(t *testing.T) {
	dir := t.TempDir()
	s := sound(t, dir)
	must(t, s.Append(serial, hourRows(1, 60)))
	must(t, s.Append(serial, hourRows(61, 100)))
	must(t, s.SetPosition("mqtt", serial, kmp.LogHour, 90))
	b, err := os.ReadFile(filepath.Join(dir, fileName))
	must(t, err)
	without := slices.DeleteFunc(hourRows(1, 100), func(r logbook.Row) bool { return r.ID == 42 })
	for _, inUse := range []bool{false, true} {
		t.Run(fmt.Sprintf("in use %t", inUse), func(t *testing.T) {
			dir, b := write(t, b), bytes.Clone(b)
			var s *Store
			if inUse {
				s = sound(t, dir)
				wantKept(t, s, hourRows(1, 100))
			}
			flip(t, b)
			must(t, os.WriteFile(filepath.Join(dir, fileName), b, 0o600))
			if !inUse {
				s = open(t, dir)
			}
			wantKept(t, s, without)
			if told := wantTold(t, s, dir); !strings.Contains(told, "a damaged record") || !strings.HasSuffix(told, "rows saved: 99") {
				t.Errorf("told: %s", told)
			}
			wantPosition(t, s, "mqtt", 90)
			must(t, s.Append(serial, hourRows(40, 45)))
			wantKept(t, sound(t, dir), hourRows(1, 100))
		})
	}
}

// Damage that leaves no trace in the directory shows when a record is read.
func TestDamagedUnseen(t *testing.T) {
	for name, use := range map[string]func(s *Store) error{
		"by Range": func(s *Store) error {
			return s.Range(serial, kmp.LogHour, time.Time{}, time.Time{}, func(logbook.Row) error { return nil })
		},
		"by After":  func(s *Store) error { _, err := s.After(serial, kmp.LogHour, 41, 1); return err },
		"by Append": func(s *Store) error { return s.Append(serial, hourRows(40, 101)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := sound(t, dir)
			must(t, s.Append(serial, hourRows(1, 100)))
			file := filepath.Join(dir, fileName)
			info, err := os.Stat(file)
			must(t, err)
			b, err := os.ReadFile(file)
			must(t, err)
			flip(t, b)
			must(t, os.WriteFile(file, b, 0o600))
			must(t, os.Chtimes(file, info.ModTime(), info.ModTime()))
			must(t, use(s))
			wantTold(t, s, dir)
			must(t, s.Append(serial, hourRows(1, 101)))
			wantKept(t, s, hourRows(1, 101))
		})
	}
}

// The memory that a file is mapped to ends with the file.
func TestCutWhileUsed(t *testing.T) {
	for _, writing := range []bool{false, true} {
		t.Run(fmt.Sprintf("writing %t", writing), func(t *testing.T) {
			dir := t.TempDir()
			s := sound(t, dir)
			must(t, s.Append(serial, hourRows(1, 2000)))
			calls := 0
			err := s.run(writing, func(r *records) error {
				if calls++; calls == 1 {
					if err := os.Truncate(s.file(), 3*pageSize); err != nil {
						return err
					}
				}
				if _, err := r.rows(serial, kmp.LogHour, rowKey(serial, kmp.LogHour, 0, 0), 5000, func(logbook.Row) {}); err != nil {
					return err
				}
				return nil
			})
			must(t, err)
			if calls != 2 {
				t.Errorf("called %d times, want once more after the file was rebuilt", calls)
			}
			wantTold(t, s, dir)
			wantTrue(t, s, 2000)
			must(t, s.Append(serial, hourRows(1, 2000)))
			wantKept(t, sound(t, dir), hourRows(1, 2000))
		})
	}
}

// A panic in a file that is sound does not set it aside.
func TestPanic(t *testing.T) {
	dir := t.TempDir()
	s := sound(t, dir)
	must(t, s.Append(serial, hourRows(1, 10)))
	err := s.run(true, func(r *records) error {
		if err := r.put(rowKey(serial, kmp.LogHour, 0, 3), nil); err != nil {
			return err
		}
		panic("told")
	})
	var fault *faultError
	if !errors.As(err, &fault) || !strings.Contains(err.Error(), "told") {
		t.Errorf("%v, want a fault", err)
	}
	must(t, s.Append(serial, hourRows(11, 12)))
	wantKept(t, s, hourRows(1, 12))
	must(t, s.Damaged())
	if got := aside(t, dir); len(got) != 0 {
		t.Errorf("aside: %q", got)
	}
}

func TestNotOurs(t *testing.T) {
	other := filepath.Join(t.TempDir(), "other.db")
	db, err := bbolt.Open(other, 0o600, nil)
	must(t, err)
	must(t, errors.Join(db.Update(func(tx *bbolt.Tx) error {
		for _, name := range []string{"one", "two"} {
			b, err := tx.CreateBucket([]byte(name))
			if err != nil {
				return err
			}
			for i := range 1000 {
				if err := b.Put(fmt.Append(nil, i), make([]byte, 100)); err != nil {
					return err
				}
			}
		}
		return nil
	}), db.Close()))
	program, err := os.ReadFile(other)
	must(t, err)
	empty := filepath.Join(t.TempDir(), "empty.db")
	db, err = bbolt.Open(empty, 0o600, nil)
	must(t, errors.Join(err, db.Close()))
	nothing, err := os.ReadFile(empty)
	must(t, err)
	for name, b := range map[string][]byte{
		"no bytes":                {},
		"one byte":                {0},
		"a text":                  []byte("hour;188;2026-11-21\n"),
		"a long text":             bytes.Repeat([]byte("hour;188;2026-11-21\n"), 5000),
		"zeros":                   make([]byte, 1<<16),
		"ones":                    bytes.Repeat([]byte{0xFF}, 1<<16),
		"JSON":                    []byte(`{"version": 1, "entries": {}}`),
		"another program's":       program,
		"a database without rows": nothing,
		"half of a page of it":    nothing[:pageSize/2],
		"three of its four pages": nothing[:3*pageSize],
		"pages of another size":   otherPages(t),
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, b)
			s := open(t, dir)
			if told := wantTold(t, s, dir); !strings.HasSuffix(told, "rows saved: 0") {
				t.Errorf("told: %s", told)
			}
			if got, err := os.ReadFile(aside(t, dir)[0]); err != nil || !bytes.Equal(got, b) {
				t.Errorf("what is set aside is another file: %v", err)
			}
			must(t, s.Append(serial, hourRows(1, 3)))
			wantKept(t, sound(t, dir), hourRows(1, 3))
		})
	}
	t.Run("a directory", func(t *testing.T) {
		dir := t.TempDir()
		must(t, os.MkdirAll(filepath.Join(dir, fileName, "inside"), 0o700))
		s := open(t, dir)
		if told := wantTold(t, s, dir); !strings.Contains(told, "not a file") {
			t.Errorf("told: %s", told)
		}
		if _, err := os.Stat(filepath.Join(aside(t, dir)[0], "inside")); err != nil {
			t.Error(err)
		}
		must(t, s.Append(serial, hourRows(1, 3)))
		wantKept(t, sound(t, dir), hourRows(1, 3))
	})
}

// otherPages is a file as this program would write it with pages of another size.
func otherPages(t *testing.T) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "pages.db")
	db, err := bbolt.Open(name, 0o600, &bbolt.Options{PageSize: 2 * pageSize})
	must(t, err)
	must(t, errors.Join(db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket([]byte(bucketName))
		return err
	}), db.Close()))
	b, err := os.ReadFile(name)
	must(t, err)
	return b
}

func TestNewer(t *testing.T) {
	newer := func(t *testing.T) string {
		t.Helper()
		dir := t.TempDir()
		s := sound(t, dir)
		must(t, s.Append(serial, hourRows(1, 500)))
		must(t, s.Close())
		put(t, dir, versionKey(), func([]byte) []byte {
			return seal(versionKey(), binary.BigEndian.AppendUint32(nil, version+1))
		})
		return dir
	}
	for name, damage := range map[string]func(b []byte){
		"sound":              func([]byte) {},
		"without its metas":  func(b []byte) { clear(b[:2*pageSize]) },
		"with records of it": func(b []byte) { copy(b[len(b)-pageSize:], "more") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := newer(t)
			file := filepath.Join(dir, fileName)
			b, err := os.ReadFile(file)
			must(t, err)
			damage(b)
			must(t, os.WriteFile(file, b, 0o600))
			for _, f := range []func(string) (*Store, error){Open, Copy} {
				if s, err := f(dir); !errors.Is(err, ErrNewer) || s != nil || !strings.Contains(err.Error(), fileName) {
					t.Errorf("%v, want ErrNewer", err)
				}
			}
			if diff := cmp.Diff([]string{fileName}, names(t, dir)); diff != "" {
				t.Errorf("directory (-want +got):\n%s", diff)
			}
			if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, b) {
				t.Errorf("the file was changed: %v", err)
			}
		})
	}
	t.Run("while it is used", func(t *testing.T) {
		dir := t.TempDir()
		s := sound(t, dir)
		must(t, os.Rename(filepath.Join(newer(t), fileName), filepath.Join(dir, fileName)))
		if err := s.Append(serial, hourRows(1, 2)); !errors.Is(err, ErrNewer) {
			t.Errorf("%v, want ErrNewer", err)
		}
	})
}

// Pages that lead to themselves, to each other, to the free ones: bbolt would not come back.
func TestPages(t *testing.T) {
	b := sample(t, 700)
	f := bytes.NewReader(b)
	must(t, check(f, int64(len(b))))
	m, err := readMeta(f, 0)
	must(t, err)
	if m1, err := readMeta(f, 1); err == nil && m1.tx > m.tx {
		m = m1
	}
	root, err := readPage(f, m.root, m.end, 0)
	must(t, err)
	top, ok := root.element(0)
	if !ok {
		t.Fatal("no bucket")
	}
	branch, _, err := top.bucket()
	must(t, err)
	children, err := readPage(f, branch, m.end, 0)
	must(t, err)
	if children.flags != flagBranch || children.count < 10 {
		t.Fatalf("the bucket's page: %d, %d elements", children.flags, children.count)
	}
	first, _ := children.element(0)
	at := func(page uint64, offset int) []byte { return b[page*pageSize+uint64(offset):] }
	child := func(i int) []byte { return at(branch, pageHeader+elementHeader*i+8) } // of the branch
	remeta := func(change func(meta []byte)) {
		for id := range uint64(2) {
			meta := at(id, pageHeader)[:metaSize]
			change(meta)
			sum := fnv.New64a()
			sum.Write(meta[:metaSize-8])
			native.PutUint64(meta[metaSize-8:], sum.Sum64())
		}
	}
	for name, change := range map[string]func(){
		"itself":                  func() { native.PutUint64(child(0), branch) },
		"one page twice":          func() { copy(child(1)[:8], child(0)) },
		"children in disorder":    func() { copy(child(1)[:8], child(2)) },
		"the root":                func() { native.PutUint64(child(3), m.root) },
		"a meta":                  func() { native.PutUint64(child(3), 1) },
		"the free pages":          func() { native.PutUint64(child(3), m.freelist) },
		"a page beyond":           func() { native.PutUint64(child(3), m.end) },
		"a page far beyond":       func() { native.PutUint64(child(3), 1<<60) },
		"no children":             func() { native.PutUint16(at(branch, 10), 0) },
		"children out of it":      func() { native.PutUint16(at(branch, 10), 1000) },
		"a key out of it":         func() { native.PutUint32(at(branch, pageHeader), 1<<31) },
		"a long key":              func() { native.PutUint32(at(branch, pageHeader+4), 1<<31) },
		"a key of nothing":        func() { native.PutUint32(at(branch, pageHeader+4), 0) },
		"a long page":             func() { native.PutUint32(at(first.page, 12), 1) },
		"a very long page":        func() { native.PutUint32(at(first.page, 12), 1<<31) },
		"a leaf of all kinds":     func() { native.PutUint16(at(first.page, 8), 3) },
		"a bucket in the bucket":  func() { native.PutUint32(at(first.page, pageHeader), flagBucket) },
		"a value out of its page": func() { native.PutUint32(at(first.page, pageHeader+12), 5000) },
		"a key in the header":     func() { native.PutUint32(at(first.page, pageHeader+4), 16) },
		"free and in use":         func() { native.PutUint64(at(m.freelist, pageHeader), branch) },
		"a free meta":             func() { native.PutUint64(at(m.freelist, pageHeader), 1) },
		"free twice":              func() { copy(at(m.freelist, pageHeader)[:8], at(m.freelist, pageHeader+8)) },
		"too many free":           func() { native.PutUint16(at(m.freelist, 10), 0xFFFE) },
		"the root is a meta":      func() { remeta(func(b []byte) { native.PutUint64(b[16:], 0) }) },
		"no free pages":           func() { remeta(func(b []byte) { native.PutUint64(b[32:], 1<<64-1) }) },
		"fewer pages":             func() { remeta(func(b []byte) { native.PutUint64(b[40:], 3) }) },
		"more pages":              func() { remeta(func(b []byte) { native.PutUint64(b[40:], 1<<40) }) },
	} {
		t.Run(name, func(t *testing.T) {
			whole := bytes.Clone(b)
			defer copy(b, whole)
			change()
			if err := check(bytes.NewReader(b), int64(len(b))); err == nil {
				t.Fatal("taken to be sound")
			}
			dir := write(t, b)
			s := open(t, dir)
			wantTold(t, s, dir)
			wantTrue(t, s, 700)
			if id, ok, err := s.Position("mqtt", serial, kmp.LogHour); err != nil || !ok || id > 700 || id < 600 {
				t.Errorf("position %d, %t, %v", id, ok, err) // an earlier one, if the page of the last is lost
			}
		})
	}
}

// What bbolt itself says of a file is what check says.
func TestCheckAgrees(t *testing.T) {
	for _, n := range []uint32{1, 30, 3000} {
		dir := write(t, sample(t, n))
		s := sound(t, dir)
		long := hourRow(n + 1)
		long.Registers = slices.Repeat([]kmp.Register{{ID: 60, Raw: make([]byte, 200)}}, 100) // a leaf of several pages
		must(t, s.Append(serial, []logbook.Row{long}))
		db, err := bbolt.Open(filepath.Join(dir, fileName), 0o600, nil)
		must(t, err)
		must(t, errors.Join(db.View(func(tx *bbolt.Tx) error {
			for err := range tx.Check() {
				t.Error(err)
			}
			return nil
		}), db.Close()))
		must(t, sound(t, dir).Damaged())
	}
}

// A directory that cannot be used says so, and what was to be kept can be kept later.
func TestNoDirectory(t *testing.T) {
	base := t.TempDir()
	must(t, os.WriteFile(filepath.Join(base, "file"), nil, 0o600))
	if s, err := Open(filepath.Join(base, "file")); err == nil || s != nil || !strings.HasPrefix(err.Error(), "history: ") {
		t.Errorf("a file for a directory: %v", err)
	}
	dir := filepath.Join(base, "dir")
	s := sound(t, dir)
	must(t, os.Remove(dir))
	if err := s.Append(serial, hourRows(1, 2)); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "history: ") {
		t.Errorf("no directory: %v", err)
	}
	must(t, os.Mkdir(dir, 0o700))
	must(t, s.Append(serial, hourRows(1, 2)))
	wantKept(t, s, hourRows(1, 2))
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	old, fresh := filepath.Join(dir, "history.db.new-1"), filepath.Join(dir, "history.db.new-2")
	must(t, errors.Join(os.WriteFile(old, nil, 0o600), os.WriteFile(fresh, nil, 0o600), os.Chtimes(old, time.Now(), time.Now().Add(-2*stale))))
	must(t, sound(t, dir).Append(serial, hourRows(1, 2)))
	if diff := cmp.Diff([]string{fileName, "history.db.new-2"}, names(t, dir)); diff != "" {
		t.Errorf("directory (-want +got):\n%s", diff)
	}
}
