package logbook

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"kmp2mqtt/kmp"
)

// written are rows of two meters and two logs in one file.
func written(t testing.TB, format Format) (text []byte, rows []Row) {
	t.Helper()
	rows = writerRows(t)
	other := rows[1]
	other.ID = 500
	day := rows[0]
	day.Log, day.ID, day.Time = kmp.LogDay, 9, time.Time{}
	var out bytes.Buffer
	w := NewWriter(&out, format)
	for _, part := range []struct {
		serial string
		row    Row
	}{{"4711", rows[0]}, {"4711", rows[1]}, {"4712", other}, {"4711", day}} {
		if err := w.Write(Origin{Serial: part.serial, Meter: "a,\nb"}, part.row); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes(), rows
}

func TestReadTail(t *testing.T) {
	for _, format := range []Format{CSV, JSON} {
		text, rows := written(t, format)
		tests := []struct {
			serial string
			log    kmp.LogType
			want   Tail
		}{
			{"4711", kmp.LogHour, Tail{ID: 189, Known: true, Time: rows[1].Time, First: rows[0].Time}},
			{"4712", kmp.LogHour, Tail{ID: 500, Known: true, Time: rows[1].Time, First: rows[1].Time}},
			{"4711", kmp.LogDay, Tail{ID: 9, Known: true}},
			{"4712", kmp.LogDay, Tail{}},
		}
		for _, tt := range tests {
			got, err := ReadTail(iotest.OneByteReader(bytes.NewReader(text)), format, tt.serial, tt.log)
			if err != nil {
				t.Fatal(err)
			}
			if got.ID != tt.want.ID || got.Known != tt.want.Known || !got.Time.Equal(tt.want.Time) || !got.First.Equal(tt.want.First) || got.Size != int64(len(text)) {
				t.Errorf("%s, %s of %s: %+v of %d bytes", format, tt.log, tt.serial, got, len(text))
			}
			if format == CSV && !slices.Equal(got.Keys, Keys(rows[0])) {
				t.Errorf("keys %q", got.Keys)
			}
		}
		if got, err := ReadTail(strings.NewReader(""), format, "4711", kmp.LogHour); err != nil || got.Size != 0 || got.Known || got.Keys != nil {
			t.Errorf("%s: empty file: %+v, %v", format, got, err)
		}
	}
}

// A file that was cut off anywhere goes on behind its last whole line: with what was lost
// written again it is as if nothing had happened.
func TestReadTailCutOff(t *testing.T) {
	for _, format := range []Format{CSV, JSON} {
		text, rows := written(t, format)
		var ends []int64 // of the lines; those of the header and of four rows
		var out bytes.Buffer
		w := NewWriter(&out, format, Keys(rows[0])...)
		if err := w.Write(Origin{}); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, int64(out.Len()))
		for rest := text[out.Len():]; len(rest) > 0; {
			n := bytes.Index(rest, []byte(map[Format]string{CSV: "\r\n47", JSON: "\n{"}[format]))
			if n < 0 {
				ends = append(ends, int64(len(text)))
				break
			}
			n += map[Format]int{CSV: 2, JSON: 1}[format]
			ends = append(ends, ends[len(ends)-1]+int64(n))
			rest = rest[n:]
		}
		if len(ends) != 5 {
			t.Fatalf("%s: lines end at %d", format, ends)
		}
		for n := range text {
			got, err := ReadTail(bytes.NewReader(text[:n]), format, "4711", kmp.LogHour)
			if err != nil {
				t.Fatalf("%s: %q: %v", format, text[:n], err)
			}
			var want int64
			for _, end := range ends {
				if end <= int64(n) {
					want = end
				}
			}
			if known := int64(n) >= ends[1]; got.Size != want || got.Known != known {
				t.Errorf("%s: %d bytes of %d: whole to %d, want %d; %+v", format, n, len(text), got.Size, want, got)
			}
		}
	}
}

// What is no file of rows is refused, so that nothing of it is cut off.
func TestReadTailRefuses(t *testing.T) {
	tests := []struct {
		format Format
		text   string
	}{
		{CSV, "hello"},
		{CSV, "hello\n"},
		{CSV, `he"llo`},
		{CSV, "serial,meter\n"},
		{CSV, "serial,meter,log,id,time,correction_s\n1,,hour,x,,\n"},
		{CSV, "serial,meter,log,id,time,correction_s\n1,,hour,4294967296,,\n"},
		{CSV, "serial,meter,log,id,time,correction_s\n1,,hour\n1,,hour,1,,\n"},
		{JSON, "hello"},
		{JSON, "hello\n"},
		{JSON, `{"a":1}`},
		{JSON, `[{"serial":"1","log":"hour","id":1}]`},
		{JSON, `{"serial":"1","log":"hour"}` + "\n"},
		{JSON, `{"serial":"1","id":1}` + "\n"},
		{JSON, `{"serial":"1","log":"hour","id":-1}` + "\n"},
		{JSON, `{"serial":"1","log":"hour","id":1,"time":"now"}` + "\n"},
	}
	for _, tt := range tests {
		if got, err := ReadTail(strings.NewReader(tt.text), tt.format, "1", kmp.LogHour); !errors.Is(err, ErrNotRows) {
			t.Errorf("%s %q: %+v, %v", tt.format, tt.text, got, err)
		}
	}
	for _, format := range []Format{CSV, JSON} {
		text, _ := written(t, format)
		_, err := ReadTail(io.MultiReader(bytes.NewReader(text), iotest.ErrReader(errBroken)), format, "1", kmp.LogHour)
		if !errors.Is(err, errBroken) {
			t.Errorf("%s: %v", format, err)
		}
	}
	if _, err := ReadTail(strings.NewReader(""), Table, "1", kmp.LogHour); err == nil {
		t.Error("a table was read")
	}
}

// Of a line without an end no more is read than a line of rows may have.
func TestReadTailBounds(t *testing.T) {
	for _, tt := range []struct {
		format    Format
		beginning string
	}{
		{CSV, ""},
		{JSON, ""},
		{JSON, `{"log":"`},
		{CSV, `"`},
		{CSV, "serial,meter,log,id,time,correction_s\n1,\""},
	} {
		source := &zeros{}
		_, err := ReadTail(io.MultiReader(strings.NewReader(tt.beginning), source), tt.format, "1", kmp.LogHour)
		if !errors.Is(err, ErrNotRows) || source.read > 2*maxLine {
			t.Errorf("%s %q: %v after %d bytes", tt.format, tt.beginning, err, source.read)
		}
	}
}

// zeros are endless, up to where a test ends that goes wrong.
type zeros struct{ read int }

func (z *zeros) Read(p []byte) (int, error) {
	if z.read > 10*maxLine {
		return 0, errBroken
	}
	clear(p)
	z.read += len(p)
	return len(p), nil
}

func FuzzReadTail(f *testing.F) {
	for _, format := range []Format{CSV, JSON} {
		text, _ := written(f, format)
		f.Add(text, format == CSV)
	}
	f.Fuzz(func(t *testing.T, text []byte, isCSV bool) {
		format := JSON
		if isCSV {
			format = CSV
		}
		got, err := ReadTail(bytes.NewReader(text), format, "4711", kmp.LogHour)
		if err != nil {
			return
		}
		if got.Size > int64(len(text)) {
			t.Fatalf("whole to %d of %d", got.Size, len(text))
		}
		again, err := ReadTail(bytes.NewReader(text[:got.Size]), format, "4711", kmp.LogHour)
		if err != nil || again.ID != got.ID || again.Known != got.Known || again.Size != got.Size {
			t.Errorf("%+v, of what is whole %+v, %v", got, again, err)
		}
	})
}
