package history

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/logbook"
)

const serial = "80123456"

// diff compares rows: times with their offset, and no registers are no registers.
func diff(want, got []logbook.Row) string {
	if slices.EqualFunc(want, got, same) {
		return ""
	}
	return cmp.Diff(want, got, alike) // slow
}

func same(a, b logbook.Row) bool {
	return a.Log == b.Log && a.ID == b.ID && sameTime(a.Time, b.Time) && a.Correction == b.Correction && a.Corrected == b.Corrected &&
		slices.EqualFunc(a.Registers, b.Registers, func(a, b kmp.Register) bool {
			return a.ID == b.ID && a.Unit == b.Unit && a.SiEx == b.SiEx && bytes.Equal(a.Raw, b.Raw)
		})
}

func sameTime(a, b time.Time) bool {
	_, oa := a.Zone()
	_, ob := b.Zone()
	return a.Equal(b) && oa == ob && a.IsZero() == b.IsZero()
}

// alike is how diff tells what differs.
var alike = cmp.Options{
	cmpopts.EquateEmpty(),
	cmp.Comparer(sameTime),
}

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// sound opens dir, which must hold a file without damage, or none.
func sound(t testing.TB, dir string) *Store {
	t.Helper()
	s := open(t, dir)
	if err := s.Damaged(); err != nil {
		t.Fatal(err)
	}
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var winter = time.FixedZone("", 3600)

// hour is the time of a row of an hour log, and hourRow the row, as a 403 with four
// registers wrote them.
func hour(id uint32) time.Time {
	return time.Date(2026, 11, 21, 0, 0, 0, 0, winter).Add(time.Duration(id) * time.Hour)
}

func hourRow(id uint32) logbook.Row { return rowOf(kmp.LogHour, id, hour(id)) }

func rowOf(log kmp.LogType, id uint32, at time.Time) logbook.Row {
	be := func(v uint32) []byte { return []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)} }
	return logbook.Row{Log: log, ID: id, Time: at, Registers: []kmp.Register{
		{ID: 60, Unit: 0x08, SiEx: 0x43, Raw: be(227445 + 3*id)},
		{ID: 68, Unit: 0x27, SiEx: 0x42, Raw: be(10042 + 11*id)},
		{ID: 86, Unit: 0x25, SiEx: 0x42, Raw: be(8123 + id%7)},
		{ID: 87, Unit: 0x25, SiEx: 0x42, Raw: be(4123 + id%5)},
	}}
}

func hourRows(from, to uint32) (rows []logbook.Row) {
	for id := from; id <= to; id++ {
		rows = append(rows, hourRow(id))
	}
	return rows
}

// kept returns all rows of a log.
func kept(t testing.TB, s *Store, serial string, log kmp.LogType) (rows []logbook.Row) {
	t.Helper()
	must(t, s.Range(serial, log, time.Time{}, time.Time{}, func(row logbook.Row) error {
		rows = append(rows, row)
		return nil
	}))
	return rows
}

func wantKept(t *testing.T, s *Store, want []logbook.Row) {
	t.Helper()
	if diff := diff(want, kept(t, s, serial, kmp.LogHour)); diff != "" {
		t.Fatalf("rows (-want +got):\n%s", diff)
	}
}

func wantLast(t testing.TB, s *Store, want uint32) {
	t.Helper()
	row, found, err := s.Last(serial, kmp.LogHour)
	must(t, err)
	if !found && want == 0 {
		return
	}
	if !found || !same(row, hourRow(want)) {
		t.Fatalf("the last row: %v, %t; want %d", row, found, want)
	}
}

func wantPosition(t *testing.T, s *Store, consumer string, want uint32) {
	t.Helper()
	id, ok, err := s.Position(consumer, serial, kmp.LogHour)
	must(t, err)
	if id != want || ok != (want != 0) {
		t.Fatalf("position of %s: %d, %t; want %d", consumer, id, ok, want)
	}
}

func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func ids(rows []logbook.Row) (ids []uint32) {
	for _, row := range rows {
		ids = append(ids, row.ID)
	}
	return ids
}

func TestRows(t *testing.T) {
	many := make([]kmp.Register, 43) // the year log of a 603
	for i := range many {
		many[i] = kmp.Register{ID: uint16(i), Unit: kmp.Unit(i), SiEx: byte(i), Raw: slices.Repeat([]byte{byte(i)}, 1+i*6)}
	}
	rows := []logbook.Row{
		hourRow(1),
		{Log: kmp.LogHour, ID: 2, Time: hour(2)},
		{Log: kmp.LogHour, ID: 3, Registers: hourRow(3).Registers}, // it has no time
		{Log: kmp.LogHour, ID: 4, Time: hour(4).In(time.UTC), Correction: -83*time.Second - 7, Corrected: true},
		{Log: kmp.LogHour, ID: 5, Time: hour(5).In(time.FixedZone("", -12*3600-1)), Corrected: true},
		{Log: kmp.LogHour, ID: 6, Time: time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC), Correction: math.MinInt64, Corrected: true},
		{Log: kmp.LogHour, ID: 7, Time: time.Date(9999, 12, 31, 23, 59, 59, 999999999, winter), Correction: math.MaxInt64, Corrected: true},
		{Log: kmp.LogHour, ID: 8, Registers: many},
		{Log: kmp.LogHour, ID: 9, Time: hour(9), Registers: []kmp.Register{{ID: 60}, {ID: 60, Unit: 0xFF, SiEx: 0xFF, Raw: slices.Repeat([]byte{0xFF}, 255)}}},
		{Log: kmp.LogHour, ID: math.MaxUint32, Corrected: true},
	}
	dir := t.TempDir()
	s := sound(t, dir)
	must(t, s.Append(serial, rows))
	wantKept(t, s, rows)
	wantKept(t, sound(t, dir), rows)
	got, err := s.After(serial, kmp.LogHour, 7, 2)
	must(t, err)
	if diff := diff(rows[7:9], got); diff != "" {
		t.Errorf("after 7 (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{fileName}, names(t, dir)); diff != "" {
		t.Errorf("directory (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(filepath.Join(dir, fileName)); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; want 0600", info.Mode(), err)
	}
	// What was handed out is the caller's.
	for i := range got {
		for _, r := range got[i].Registers {
			clear(r.Raw)
		}
	}
	wantKept(t, s, rows)
}

func TestNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "kmp")
	s := sound(t, dir)
	wantKept(t, s, nil)
	wantLast(t, s, 0)
	wantPosition(t, s, "mqtt", 0)
	must(t, s.Append(serial, nil))
	if meters, err := s.Meters(); err != nil || len(meters) != 0 {
		t.Errorf("meters: %v, %v", meters, err)
	}
	if got := names(t, dir); len(got) != 0 {
		t.Errorf("directory: %q", got)
	}
	if info, err := os.Stat(dir); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v; want 0700", info.Mode(), err)
	}
}

func TestAppendAgain(t *testing.T) {
	dir := t.TempDir()
	s := sound(t, dir)
	must(t, s.Append(serial, hourRows(10, 20)))
	before, err := os.ReadFile(filepath.Join(dir, fileName))
	must(t, err)

	other := hourRow(15)
	other.Time, other.Registers = hour(99), nil
	must(t, s.Append(serial, append(hourRows(12, 14), other))) // a row that is there stays
	after, err := os.ReadFile(filepath.Join(dir, fileName))
	must(t, err)
	if string(before) != string(after) {
		t.Error("rows that were there were written again")
	}
	wantKept(t, s, hourRows(10, 20))

	must(t, s.Append(serial, hourRows(19, 25))) // some are new
	wantLast(t, s, 25)
	must(t, s.Append(serial, hourRows(3, 9))) // a hole is filled
	wantLast(t, s, 25)
	wantKept(t, s, hourRows(3, 25))
}

// A row that cannot be kept keeps none of its transaction.
func TestAppendRefuses(t *testing.T) {
	s := sound(t, t.TempDir())
	must(t, s.Append(serial, hourRows(1, 2)))
	wide := hourRow(4)
	wide.Registers[0].Raw = make([]byte, 256)
	long := hourRow(4)
	long.Registers = slices.Repeat([]kmp.Register{{ID: 60, Raw: make([]byte, 255)}}, 127)
	for name, err := range map[string]error{
		"a value of 256 bytes":      s.Append(serial, []logbook.Row{hourRow(3), wide}),
		"a row of 33020 bytes":      s.Append(serial, []logbook.Row{hourRow(3), long}),
		"no serial number":          s.Append("", hourRows(3, 4)),
		"a long serial number":      s.Append(strings.Repeat("8", 65), hourRows(3, 4)),
		"bytes for a serial number": s.Append("\xFF", hourRows(3, 4)),
		"a position of nobody":      s.SetPosition("", serial, kmp.LogHour, 1),
		"a position of no meter":    s.SetPosition("mqtt", "", kmp.LogHour, 1),
		"the restart of no meter":   s.Restart("", kmp.LogHour),
		"the name of no meter":      s.SetName("", "house"),
		"a name of 1025 bytes":      s.SetName(serial, strings.Repeat("x", 1025)),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), "history: ") || strings.Count(err.Error(), "history: ") != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantKept(t, s, hourRows(1, 2))
	wantLast(t, s, 2)
	long.Registers = long.Registers[:125]
	must(t, s.Append(serial, []logbook.Row{hourRow(3), long}))
	wantKept(t, s, append(hourRows(1, 3), long))
}

func TestLogsApart(t *testing.T) {
	s := sound(t, t.TempDir())
	day := rowOf(kmp.LogDay, 5, hour(24))
	must(t, s.Append(serial, append(hourRows(1, 3), day)))
	must(t, s.Append("8012345", hourRows(2, 2))) // a serial number that begins another
	must(t, s.Append("801234567", hourRows(1, 1)))
	wantKept(t, s, hourRows(1, 3))
	wantLast(t, s, 3)
	if got, found, err := s.Last(serial, kmp.LogDay); err != nil || !found || got.ID != 5 {
		t.Errorf("the last day: %v, %t, %v", got, found, err)
	}
	if got := ids(kept(t, s, "8012345", kmp.LogHour)); !slices.Equal(got, []uint32{2}) {
		t.Errorf("rows of 8012345: %d", got)
	}
	must(t, s.SetName(serial, "Haus Süd"))
	must(t, s.SetName("99", "garage"))
	must(t, s.SetName("98", ""))
	must(t, s.SetName("801234567", "old"))
	must(t, s.SetName("801234567", ""))
	want := []Meter{
		{Serial: "8012345", Logs: []kmp.LogType{kmp.LogHour}},
		{Serial: serial, Name: "Haus Süd", Logs: []kmp.LogType{kmp.LogDay, kmp.LogHour}},
		{Serial: "801234567", Logs: []kmp.LogType{kmp.LogHour}},
		{Serial: "99", Name: "garage"},
	}
	got, err := s.Meters()
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("meters (-want +got):\n%s", diff)
	}
}

func TestAfter(t *testing.T) {
	s := sound(t, t.TempDir())
	must(t, s.Append(serial, append(append(hourRows(0, 4), hourRows(8, 9)...), rowOf(kmp.LogHour, math.MaxUint32, hour(10)))))
	for _, c := range []struct {
		id   int64
		most int
		want []uint32
	}{
		{-1, 2, []uint32{0, 1}},
		{0, 100, []uint32{1, 2, 3, 4, 8, 9, math.MaxUint32}},
		{0, 2, []uint32{1, 2}},
		{2, 1, []uint32{3}},
		{3, 3, []uint32{4, 8, 9}},
		{4, 2, []uint32{8, 9}},
		{9, 2, []uint32{math.MaxUint32}},
		{math.MaxUint32 - 1, 2, []uint32{math.MaxUint32}},
		{math.MaxUint32, 2, nil},
		{0, 0, nil},
		{0, -1, nil},
	} {
		got, err := s.After(serial, kmp.LogHour, c.id, c.most)
		if err != nil || !slices.Equal(ids(got), c.want) {
			t.Errorf("after %d, at most %d: %d, %v; want %d", c.id, c.most, ids(got), err, c.want)
		}
	}
}

func TestRange(t *testing.T) {
	s := sound(t, t.TempDir())
	at := func(id uint32, h int, correction time.Duration) logbook.Row {
		return logbook.Row{Log: kmp.LogHour, ID: id, Time: hour(uint32(h)), Correction: correction, Corrected: correction != 0}
	}
	must(t, s.Append(serial, []logbook.Row{
		{Log: kmp.LogHour, ID: 1}, // before the first that tells a time
		at(2, 1, 0),
		at(3, 2, 0),
		{Log: kmp.LogHour, ID: 4},
		at(5, 9, 0), // the clock ran ahead
		at(6, 10, -6*time.Hour),
		at(7, 5, 0), // and was set back
		at(8, 6, 0),
		{Log: kmp.LogHour, ID: 9, Correction: -time.Hour, Corrected: true}, // nothing to correct
	}))
	none := time.Time{}
	for name, c := range map[string]struct {
		since, until time.Time
		want         []uint32
	}{
		"all":               {none, none, []uint32{1, 2, 3, 4, 5, 6, 7, 8, 9}},
		"since an hour":     {hour(2), none, []uint32{3, 4, 5, 6, 7, 8, 9}},
		"until an hour":     {none, hour(2), []uint32{1, 2}},
		"by the true time":  {hour(4), hour(5), []uint32{6}},
		"where it ran back": {hour(5), hour(10), []uint32{5, 7, 8, 9}},
		"in another zone":   {hour(2).In(time.UTC), hour(3).In(time.UTC), []uint32{3, 4}},
		"nothing":           {hour(11), none, nil},
		"the wrong way":     {hour(3), hour(2), nil},
	} {
		var got []uint32
		err := s.Range(serial, kmp.LogHour, c.since, c.until, func(row logbook.Row) error {
			got = append(got, row.ID)
			return nil
		})
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %d, %v; want %d", name, got, err, c.want)
		}
	}
	enough := errors.New("enough")
	n := 0
	err := s.Range(serial, kmp.LogHour, none, none, func(row logbook.Row) error {
		if n++; row.ID == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || n != 3 {
		t.Errorf("Range ended with %v after %d rows", err, n)
	}
}

// What is called for each row may use the Store, and rows may come meanwhile.
func TestRangeWhileRowsCome(t *testing.T) {
	s := sound(t, t.TempDir())
	const rows = 2*pageRows + 10
	must(t, s.Append(serial, hourRows(1, rows)))
	next := uint32(rows)
	var got []uint32
	err := s.Range(serial, kmp.LogHour, time.Time{}, time.Time{}, func(row logbook.Row) error {
		got = append(got, row.ID)
		if row.ID%1000 != 0 {
			return nil
		}
		next++
		return errors.Join(s.SetPosition("mqtt", serial, kmp.LogHour, row.ID), s.Append(serial, hourRows(next, next)))
	})
	must(t, err)
	want := ids(hourRows(1, rows+2))
	if !slices.Equal(got, want) {
		t.Errorf("%d rows up to %d, want %d", len(got), got[len(got)-1], len(want))
	}
	wantPosition(t, s, "mqtt", 2000)
}

func TestPositions(t *testing.T) {
	dir := t.TempDir()
	s := sound(t, dir)
	must(t, s.SetPosition("mqtt", serial, kmp.LogHour, 7)) // rows may come later
	must(t, s.SetPosition("mq", serial, kmp.LogHour, 8))   // begins another
	must(t, s.SetPosition("mqtt", serial, kmp.LogDay, 9))
	must(t, s.SetPosition("mqtt", "80123457", kmp.LogHour, 10))
	wantPosition(t, s, "mqtt", 7)
	wantPosition(t, s, "mq", 8)
	wantPosition(t, s, "m", 0)
	wantPosition(t, s, "", 0)
	must(t, s.SetPosition("mqtt", serial, kmp.LogHour, 5)) // backwards, too
	wantPosition(t, sound(t, dir), "mqtt", 5)
	if meters, err := s.Meters(); err != nil || len(meters) != 0 {
		t.Errorf("a position is no meter: %v, %v", meters, err)
	}
	if id, ok, err := s.Position("mqtt", serial, kmp.LogMonth); id != 0 || ok || err != nil {
		t.Errorf("no position: %d, %t, %v", id, ok, err)
	}
	must(t, s.SetPosition("mqtt", serial, kmp.LogMonth, 0))
	if id, ok, err := s.Position("mqtt", serial, kmp.LogMonth); id != 0 || !ok || err != nil {
		t.Errorf("position 0: %d, %t, %v", id, ok, err)
	}
	before, err := os.ReadFile(filepath.Join(dir, fileName))
	must(t, err)
	must(t, s.SetPosition("mqtt", serial, kmp.LogHour, 5))
	if after, err := os.ReadFile(filepath.Join(dir, fileName)); err != nil || string(before) != string(after) {
		t.Errorf("the same position was written again: %v", err)
	}
}

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	s := sound(t, dir)
	must(t, s.Restart(serial, kmp.LogHour)) // nothing is there to restart
	must(t, s.Append(serial, append(hourRows(100, 103), rowOf(kmp.LogDay, 5, hour(24)))))
	must(t, s.SetPosition("mqtt", serial, kmp.LogHour, 102))
	must(t, s.SetPosition("mqtt", serial, kmp.LogDay, 5))
	must(t, s.Restart(serial, kmp.LogHour))
	must(t, s.Restart(serial, kmp.LogHour)) // once more is once

	wantLast(t, s, 0)
	wantPosition(t, s, "mqtt", 0)
	if got, err := s.After(serial, kmp.LogHour, 0, 10); err != nil || len(got) != 0 {
		t.Errorf("rows of before: %d, %v", ids(got), err)
	}
	again := hourRows(1, 2)
	for i := range again {
		again[i].Time = hour(103 + again[i].ID)
	}
	must(t, s.Append(serial, again))
	must(t, s.SetPosition("mqtt", serial, kmp.LogHour, 1))
	wantKept(t, s, append(hourRows(100, 103), again...))
	s = sound(t, dir)
	if got, err := s.After(serial, kmp.LogHour, 0, 10); err != nil || !slices.Equal(ids(got), []uint32{1, 2}) {
		t.Errorf("rows: %d, %v", ids(got), err)
	}
	wantPosition(t, s, "mqtt", 1)
	if id, ok, err := s.Position("mqtt", serial, kmp.LogDay); id != 5 || !ok || err != nil {
		t.Errorf("the day log did not restart: %d, %t, %v", id, ok, err)
	}
	if meters, err := s.Meters(); err != nil || len(meters) != 1 || len(meters[0].Logs) != 2 {
		t.Errorf("meters: %v, %v", meters, err)
	}
	// A position alone is forgotten, too.
	must(t, s.Restart(serial, kmp.LogHour))
	must(t, s.SetPosition("mqtt", serial, kmp.LogHour, 1))
	must(t, s.Restart(serial, kmp.LogHour))
	wantPosition(t, s, "mqtt", 0)
}

func TestNil(t *testing.T) {
	none, err := Open("")
	must(t, err)
	for _, s := range []*Store{nil, none} {
		must(t, errors.Join(s.Append(serial, hourRows(1, 2)), s.SetPosition("mqtt", serial, kmp.LogHour, 1),
			s.SetName(serial, "house"), s.Restart(serial, kmp.LogHour), s.Damaged(), s.Close()))
		wantKept(t, s, nil)
		wantLast(t, s, 0)
		wantPosition(t, s, "mqtt", 0)
		if meters, err := s.Meters(); err != nil || len(meters) != 0 {
			t.Errorf("meters: %v, %v", meters, err)
		}
		if rows, err := s.After(serial, kmp.LogHour, 0, 10); err != nil || len(rows) != 0 {
			t.Errorf("rows: %v, %v", rows, err)
		}
	}
}

func TestClosed(t *testing.T) {
	dir := t.TempDir()
	s := sound(t, dir)
	must(t, s.Append(serial, hourRows(1, 2)))
	must(t, s.Close())
	must(t, s.Close())
	_, _, last := s.Last(serial, kmp.LogHour)
	for _, err := range []error{s.Append(serial, hourRows(3, 4)), last} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%v, want fs.ErrClosed", err)
		}
	}
	wantKept(t, sound(t, dir), hourRows(1, 2))
}

// A file that is taken away is begun again; one that comes back is read.
func TestTakenAway(t *testing.T) {
	dir := t.TempDir()
	s := sound(t, dir)
	must(t, s.Append(serial, hourRows(1, 5)))
	name := filepath.Join(dir, fileName)
	must(t, os.Rename(name, name+".away"))
	wantKept(t, s, nil)
	must(t, s.Append(serial, hourRows(6, 7)))
	wantKept(t, s, hourRows(6, 7))
	must(t, os.Rename(name+".away", name))
	wantKept(t, s, hourRows(1, 5))
	must(t, s.Damaged())
}

// Ten years of hours are read in pages, and the package comment says what they take.
func TestTenYears(t *testing.T) {
	dir := t.TempDir()
	s := sound(t, dir)
	const year, years = 8760, 10
	for id := uint32(1); id <= years*year; id += year {
		must(t, s.Append(serial, hourRows(id, id+year-1)))
	}
	c, err := Copy(dir)
	must(t, err)
	defer c.Close()
	start, n := time.Now(), uint32(0)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	peak := uint64(0)
	must(t, c.Range(serial, kmp.LogHour, time.Time{}, time.Time{}, func(row logbook.Row) error {
		if n++; row.ID != n {
			return fmt.Errorf("row %d follows %d", row.ID, n-1)
		}
		if n%(2*year) == 0 {
			runtime.GC()
			runtime.ReadMemStats(&after)
			peak = max(peak, after.HeapAlloc-min(after.HeapAlloc, before.HeapAlloc))
		}
		return nil
	}))
	if n != years*year {
		t.Errorf("%d rows, want %d", n, years*year)
	}
	if peak > 4<<20 {
		t.Errorf("%d bytes are held while the rows are read", peak)
	}
	t.Logf("%d rows in %v, %d bytes held at most", n, time.Since(start), peak)
}

// The sizes of the package comment: rows that come one by one.
func TestSizeOfAYear(t *testing.T) {
	dir := t.TempDir()
	s := sound(t, dir)
	const year = 8760
	for id := uint32(1); id <= year; id += 24 {
		must(t, s.Append(serial, hourRows(id, id+23)))
		must(t, s.SetPosition("mqtt", serial, kmp.LogHour, id+23))
	}
	f, err := os.Open(filepath.Join(dir, fileName))
	must(t, err)
	defer f.Close()
	m, err := readMeta(f, 0)
	must(t, err)
	size := m.end * pageSize
	if size < 800_000 || size > 1_000_000 { // "0.9 MB"
		t.Errorf("a year takes %d bytes", size)
	}
	t.Logf("a year takes %d bytes, %d a row", size, size/year)
}

func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	a, b := sound(t, dir), sound(t, dir) // as two processes
	const rows = 200
	var all sync.WaitGroup
	for i := range 4 {
		s, serial := a, fmt.Sprint(70000000+i)
		if i%2 == 1 {
			s = b
		}
		all.Go(func() {
			for id := uint32(1); id <= rows; id += 10 {
				if err := errors.Join(s.Append(serial, hourRows(id, id+9)), s.SetPosition("mqtt", serial, kmp.LogHour, id)); err != nil {
					t.Error(err)
				}
			}
		})
		all.Go(func() {
			for {
				n := uint32(0)
				err := s.Range(serial, kmp.LogHour, time.Time{}, time.Time{}, func(row logbook.Row) error {
					if n++; row.ID != n {
						return fmt.Errorf("row %d follows %d", row.ID, n-1)
					}
					return nil
				})
				if err != nil || n%10 != 0 { // a transaction is seen as a whole
					t.Errorf("%d rows, %v", n, err)
					return
				}
				if n == rows {
					return
				}
			}
		})
	}
	all.Wait()
	must(t, errors.Join(a.Damaged(), b.Damaged()))
	for i := range 4 {
		if got := len(kept(t, b, fmt.Sprint(70000000+i), kmp.LogHour)); got != rows {
			t.Errorf("%d rows, want %d", got, rows)
		}
	}
}

// Random changes: the Store holds what a map would.
func TestModel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	dir := t.TempDir()
	s := sound(t, dir)
	serials, logs := []string{"1", "12", "123"}, []kmp.LogType{kmp.LogDay, kmp.LogHour}
	type log struct {
		rows     [][]logbook.Row // by generation, then id
		position uint32
	}
	model := make(map[string]*log)
	for i := range 300 {
		serial, l := serials[random.IntN(len(serials))], logs[random.IntN(len(logs))]
		m := model[serial+l.String()]
		if m == nil {
			m = &log{rows: make([][]logbook.Row, 1)}
			model[serial+l.String()] = m
		}
		now := &m.rows[len(m.rows)-1]
		switch random.IntN(10) {
		case 0:
			must(t, s.Restart(serial, l))
			if len(*now) > 0 || m.position != 0 {
				m.rows, m.position = append(m.rows, nil), 0
			}
		case 1, 2, 3:
			m.position = 1 + random.Uint32N(100)
			must(t, s.SetPosition("mqtt", serial, l, m.position))
		case 4:
			s = sound(t, dir)
		default:
			from := random.Uint32N(30)
			var rows []logbook.Row
			for id := from; id < from+random.Uint32N(10); id++ {
				rows = append(rows, rowOf(l, id, hour(uint32(i))))
			}
			must(t, s.Append(serial, rows))
			for _, row := range rows {
				if !slices.ContainsFunc(*now, func(r logbook.Row) bool { return r.ID == row.ID }) {
					*now = append(*now, row)
				}
			}
			slices.SortFunc(*now, func(a, b logbook.Row) int { return int(a.ID) - int(b.ID) })
		}
		if diff := diff(slices.Concat(m.rows...), kept(t, s, serial, l)); diff != "" {
			t.Fatalf("rows (-want +got):\n%s", diff)
		}
		now = &m.rows[len(m.rows)-1]
		if id, ok, err := s.Position("mqtt", serial, l); err != nil || id != m.position || ok != (m.position != 0) {
			t.Fatalf("position: %d, %t, %v; want %d", id, ok, err, m.position)
		}
		last, found, err := s.Last(serial, l)
		if err != nil || found != (len(*now) > 0) || found && last.ID != (*now)[len(*now)-1].ID {
			t.Fatalf("last: %v, %t, %v", last, found, err)
		}
	}
}
