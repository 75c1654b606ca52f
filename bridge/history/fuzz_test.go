package history

import (
	"bytes"
	"errors"
	"testing"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/logbook"
)

// Whatever a row decodes from, it is kept as it is.
func FuzzRow(f *testing.F) {
	for _, row := range []logbook.Row{{}, hourRow(7), {Time: hour(1), Correction: -90e9, Corrected: true}, {Registers: []kmp.Register{{ID: 1003}}}} {
		b, err := encodeRow(row)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{hasTime, 0x80})
	f.Add([]byte{hasTime | corrected, 2, 2, 2, 2, 0, 60, 8})
	f.Fuzz(func(t *testing.T, b []byte) {
		row, err := decodeRow(kmp.LogHour, 7, b)
		if err != nil {
			if !errors.Is(err, errRecord) {
				t.Fatal(err)
			}
			return
		}
		whole := bytes.Clone(b)
		again, err := encodeRow(row)
		if len(b) > maxRow && err != nil {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		clear(b) // the row has its own memory
		got, err := decodeRow(kmp.LogHour, 7, again)
		if err != nil || !same(row, got) {
			t.Fatalf("%x became %x: %v, then %v, %v", whole, again, row, got, err)
		}
	})
}

// Keys and the other records.
func FuzzRecord(f *testing.F) {
	for _, r := range [][2][]byte{
		{versionKey(), {0, 0, 0, version}},
		{logKey(serial, kmp.LogHour), appendLogState(nil, logState{1, true, 9})},
		{nameKey(serial), appendName(nil, 7, "house")},
		{positionKey("mqtt", serial, kmp.LogHour, 1), appendPosition(nil, 7, 9)},
		{rowKey(serial, kmp.LogHour, 1, 9), {0}},
		{{kindRow, 200, '8'}, nil},
		{nil, nil},
	} {
		f.Add(r[0], r[1])
	}
	f.Fuzz(func(t *testing.T, b, payload []byte) {
		value := seal(b, payload)
		k, got, err := decodeRecord(b, value)
		if err == nil {
			var again []byte
			switch k.kind {
			case kindVersion:
				again = versionKey()
			case kindLog:
				again = logKey(k.serial, k.log)
			case kindName:
				again = nameKey(k.serial)
			case kindPosition:
				again = positionKey(k.consumer, k.serial, k.log, k.generation)
			case kindRow:
				again = rowKey(k.serial, k.log, k.generation, k.id)
			}
			if !bytes.Equal(again, b) || !bytes.Equal(got, payload) {
				t.Fatalf("%x, %x is %+v with %x", b, payload, k, got)
			}
		}
		if len(b) == 0 {
			return
		}
		b[len(b)/2] ^= 4
		if _, _, err := decodeRecord(b, value); err == nil {
			t.Fatalf("%x, %x: a bit of the key changed", b, value)
		}
	})
}

// Whatever the file is, it opens, tells no row that was not written, and takes rows.
func FuzzFile(f *testing.F) {
	f.Add([]byte{}, uint16(0), []byte{})
	for _, n := range []uint32{2, 30} {
		whole := sample(f, n)
		f.Add(whole, uint16(0), []byte{1})
		f.Add(whole, uint16(pageSize+40), []byte{1, 2, 3, 4, 5, 6, 7, 8})
		f.Add(whole[:len(whole)/2], uint16(3*pageSize), []byte{2, 0, 9, 0})
	}
	f.Fuzz(func(t *testing.T, b []byte, at uint16, change []byte) {
		if len(b) > 1<<20 {
			return
		}
		if int(at)+len(change) <= len(b) {
			for i, c := range change {
				b[int(at)+i] ^= c
			}
		}
		dir := write(t, b)
		s, err := Open(dir)
		if errors.Is(err, ErrNewer) {
			return
		}
		must(t, err)
		wantTrue(t, s, 30)
		must(t, s.Append(serial, hourRows(1, 40)))
		wantLast(t, s, 40)
		must(t, s.Close())
		wantLast(t, sound(t, dir), 40)
	})
}
