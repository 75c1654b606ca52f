package kmp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
)

// twoRegisters is a record as 5512-447 section 6.3 prints them, with a number in each.
func twoRegisters(id uint32, energy, volume byte) LogRow {
	return LogRow{id, []Register{{60, UnitGJ, 0x43, []byte{0, 0, 0, energy}}, {68, UnitLitre, 0, []byte{0, 0, 0, volume}}}}
}

// The answers of the document's formula: 13 + 2m + 5n + 4mn bytes for m records of n
// registers, start, address, CRC and stop byte included.
func TestLogRecordsLength(t *testing.T) {
	for m := range 5 {
		for n := 1; n <= MaxRegisters; n++ {
			a := &LogRecordsAnswer{Kind: CmdGetLogIDPresent}
			for i := range m {
				var registers []Register
				for id := range n {
					registers = append(registers, Register{uint16(id), UnitWh, 0, make([]byte, 4)})
				}
				a.Rows = append(a.Rows, LogRow{uint32(i), registers})
			}
			data, err := a.AppendData(nil)
			want := 13 + 2*m + 5*n + 4*m*n
			if m == 0 {
				want = 13 // no format without a record
			}
			if frame := 1 + 2 + len(data) + 2 + 1; err != nil || frame != want {
				t.Errorf("%d records of %d registers: %d bytes (error %v), want %d", m, n, frame, err, want)
			}
			var back LogRecordsAnswer
			back.Kind = a.Kind
			if err := back.DecodeData(data); err != nil || len(back.Rows) != m || m > 0 && !reflect.DeepEqual(&back, a) {
				t.Errorf("%+v (error %v), want %+v", back, err, a)
			}
		}
	}
}

// An answer with bits of INFO set may have any form: what is not of the usual one is
// kept as it is, but for the rows that are surely whole.
func TestLogRecordsOfAnotherForm(t *testing.T) {
	const (
		head   = "01 02"
		format = "10F3 003C080443 00000001 0044270400 0000000B"
		second = "10F4 00000002 0000000C"
		third  = "10F5 00000003 0000000D"
		tail   = "10F0 1102"
	)
	one, two, three := twoRegisters(0x10F3, 1, 11), twoRegisters(0x10F4, 2, 12), twoRegisters(0x10F5, 3, 13)
	for _, tt := range []struct {
		name string
		kind Command
		data []string // without INFO
		want LogRecords
	}{
		{"usual form", CmdGetLogIDPresent, []string{head, format, second, third, tail}, LogRecords{LogID: 1, LastRead: 0x10F0, Newest: 0x1102, Rows: []LogRow{one, two, three}}},
		{"no rows", CmdGetLogIDPresent, []string{"01 00", tail}, LogRecords{LogID: 1, LastRead: 0x10F0, Newest: 0x1102}},
		{"INFO alone", CmdGetLogIDPresent, nil, LogRecords{Rest: []byte{}}},
		{"log and INFO", CmdGetLogIDPresent, []string{"01"}, LogRecords{Rest: []byte{1}}},
		{"no rows, but their number of registers", CmdGetLogIDPresent, []string{head, tail}, LogRecords{Rest: unhex(t, head+tail)}},
		{"cut inside the third row", CmdGetLogIDPresent, []string{head, format, second, third[:14]}, LogRecords{LogID: 1, Rows: []LogRow{one, two}, Rest: unhex(t, third[:14])}},
		{"cut inside the third row, with the usual end", CmdGetLogIDPresent, []string{head, format, second, third[:16], tail}, LogRecords{LogID: 1, Rows: []LogRow{one, two}, Rest: unhex(t, third[:16]+tail)}},
		{"cut inside the format", CmdGetLogIDPresent, []string{head, format[:20]}, LogRecords{Rest: unhex(t, head+format[:20])}},
		{"a row less and no end", CmdGetLogIDPresent, []string{head, format, second}, LogRecords{LogID: 1, Rows: []LogRow{one}, Rest: unhex(t, second)}},
		{"ids that do not follow", CmdGetLogIDPresent, []string{head, format, third, tail}, LogRecords{LogID: 1, Rows: []LogRow{one}, Rest: unhex(t, third+tail)}},
		{"towards the past", CmdGetLogTimePast, []string{head, format, strings.Replace(second, "10F4", "10F2", 1), tail}, LogRecords{LogID: 1, LastRead: 0x10F0, Newest: 0x1102, Rows: []LogRow{one, twoRegisters(0x10F2, 2, 12)}}},
		{"the wrong way", CmdGetLogTimePast, []string{head, format, second, tail}, LogRecords{LogID: 1, Rows: []LogRow{one}, Rest: unhex(t, second+tail)}},
		{"too many registers", CmdGetLogIDPresent, []string{"01 09", format, tail}, LogRecords{Rest: unhex(t, "01 09"+format+tail)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data := unhex(t, strings.Join(tt.data, ""))
			for _, info := range []LogRecordInfo{RecordsMaxLength, RecordsOutOfRange, RecordsEmpty | RecordsEnd, 0x80} {
				want := &LogRecordsAnswer{tt.kind, tt.want}
				want.Info = info
				got := &LogRecordsAnswer{Kind: tt.kind}
				data := append(bytes.Clone(data), byte(info))
				if err := got.DecodeData(data); err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("%+v (error %v), want\n%+v", got, err, want)
				}
				if again, err := got.AppendData(nil); err != nil || !bytes.Equal(again, data) {
					t.Errorf("encodes again as\n% X (error %v), want\n% X", again, err, data)
				}
			}
			// Without bits of INFO, only the usual form will do.
			got := &LogRecordsAnswer{Kind: tt.kind}
			err := got.DecodeData(append(data, 0))
			usual := tt.want.Rest == nil || tt.name == "ids that do not follow" || tt.name == "the wrong way"
			if (err == nil) != usual || err != nil && !errors.Is(err, ErrCodec) {
				t.Errorf("without INFO: error %v", err)
			}
		})
	}
}

// Record ids have 16 bits and go on with 0.
func TestLogRecordsIDsWrap(t *testing.T) {
	up := &LogRecordsAnswer{CmdGetLogIDPresent, LogRecords{LogID: 1, Newest: 1, Info: RecordsEnd, Rows: []LogRow{twoRegisters(0xFFFF, 1, 1), twoRegisters(0, 2, 2)}}}
	down := &LogRecordsAnswer{CmdGetLogTimePast, LogRecords{LogID: 1, Newest: 1, Info: RecordsEnd, Rows: []LogRow{twoRegisters(0, 2, 2), twoRegisters(0xFFFF, 1, 1)}}}
	for _, want := range []*LogRecordsAnswer{up, down} {
		got := &LogRecordsAnswer{Kind: want.Kind}
		if err := got.DecodeData(must(want.AppendData(nil))(t)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v (error %v), want %+v", got, err, want)
		}
	}
	q := &LogRecordsRequest{Kind: CmdGetLogIDPresent, LogID: 1, IDs: []uint16{60, 68}, Records: 2, Record: 0xFFFF}
	if err := q.check(up); err != nil {
		t.Error(err)
	}
}

// The time's bytes go either way; what could be both has the year first.
func TestLogTimeOrder(t *testing.T) {
	at := LogTime{Date: Date{2007, 5, 24}, Clock: Clock{10, 30, 59}, Weekday: 4, Info: 1}
	for _, tt := range []struct {
		reversed bool
		bytes    string
	}{
		{false, "07 05 18 0A 1E 3B 04 01"},
		{true, "01 04 3B 1E 0A 18 05 07"},
	} {
		want := &LogRecordsRequest{Kind: CmdGetLogTimePresent, LogID: 1, IDs: []uint16{60}, Records: 3, MaxLength: 128, Time: at, TimeReversed: tt.reversed}
		data := unhex(t, "01 01 003C 03 80"+tt.bytes)
		if got, err := want.AppendData(nil); err != nil || !bytes.Equal(got, data) {
			t.Errorf("reversed %t: % X (error %v), want % X", tt.reversed, got, err, data)
		}
		got := &LogRecordsRequest{Kind: CmdGetLogTimePresent}
		if err := got.DecodeData(data); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("reversed %t: %+v (error %v), want %+v", tt.reversed, got, err, want)
		}
	}
	got := &LogRecordsRequest{Kind: CmdGetLogTimePresent}
	if err := got.DecodeData(unhex(t, "01 01 003C 03 80 0102030405060708")); err != nil || got.TimeReversed || got.Time.Date != (Date{2001, 2, 3}) {
		t.Errorf("%+v (error %v), want 2001-02-03", got, err)
	}
}

func TestLogRecordsErrors(t *testing.T) {
	at := func(offset int, err error) error { return &FrameError{Application, offset, err} }
	for _, tt := range []struct {
		name string
		dir  Direction
		cmd  Command
		data string
		want error
	}{
		{"request without data", ToMeter, CmdGetLogLastPresent, "", at(2, &LengthError{"request for records", 2, 0, true})},
		{"request of no registers", ToMeter, CmdGetLogLastPresent, "0100 0380", at(3, &RangeError{"number of registers", 0, 1, 8})},
		{"request of 9 registers", ToMeter, CmdGetLogLastPresent, "0109" + strings.Repeat("0001", 9) + "0380", at(3, &RangeError{"number of registers", 9, 1, 8})},
		{"A1 with a time", ToMeter, CmdGetLogLastPresent, "0101003C0380 0705180A1E000000", at(8, &LengthError{"request for records", 6, 14, false})},
		{"A0 without a time", ToMeter, CmdGetLogTimePresent, "0101003C0380", at(8, &LengthError{"request for records", 14, 6, false})},
		{"A2 without an id", ToMeter, CmdGetLogIDPresent, "0101003C0380 10", at(9, &LengthError{"request for records", 8, 7, false})},
		{"A3 without an offset", ToMeter, CmdGetLogTimePast, "0101003C0380 0705180A1E000000", at(16, &LengthError{"request for records", 16, 14, false})},
		{"A0 with a month of 13", ToMeter, CmdGetLogTimePresent, "0101003C0380 070D180A1E000000", at(8, &RangeError{"month", 13, 1, 12})},
		{"A0 on 29 February 2007", ToMeter, CmdGetLogTimePresent, "0101003C0380 07021D0A1E000000", at(8, &RangeError{"day", 29, 1, 28})},
		{"answer without data", FromMeter, CmdGetLogIDPresent, "", at(2, &LengthError{"records", 1, 0, true})},
		{"answer, short", FromMeter, CmdGetLogIDPresent, "0100 10F0 00", at(7, &LengthError{"records", 7, 5, true})},
		{"answer of 9 registers", FromMeter, CmdGetLogIDPresent, "0109 10F3 10F0 1102 00", at(3, &RangeError{"number of registers", 9, 1, 8})},
		{"answer, rows of no registers", FromMeter, CmdGetLogIDPresent, "0100 10F3 10F0 1102 00", at(3, &RangeError{"number of registers", 0, 1, 8})},
		{"answer, registers without rows", FromMeter, CmdGetLogIDPresent, "0101 10F0 1102 00", at(4, &LengthError{"record", 2, 0, true})},
		{"answer, half a register", FromMeter, CmdGetLogIDPresent, "0101 10F3 003C08 10F0 1102 00", at(9, &LengthError{"register", 5, 3, true})},
		{"answer, rows without bytes", FromMeter, CmdGetLogIDPresent, "0101 10F3 003C080000 10F4 10F0 1102 00", at(11, &LengthError{"row", 1, 0, true})},
		{"answer, half a row", FromMeter, CmdGetLogIDPresent, "0101 10F3 003C080200 0001 10F4 00 10F0 1102 00", at(16, &LengthError{"records", 16, 19, false})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := DecodeMessage(Frame{tt.dir, LoggerTop, tt.cmd, unhex(t, tt.data)})
			if m != nil || !reflect.DeepEqual(err, tt.want) || !errors.Is(err, ErrCodec) {
				t.Errorf("%v, error %v; want no message, %v", m, err, tt.want)
			}
		})
	}

	day := LogTime{Date: Date{2007, 5, 24}}
	wide := twoRegisters(2, 1, 1)
	wide.Registers[1].Raw = []byte{1}
	for _, tt := range []struct {
		name string
		m    Message
		want error
	}{
		{"no registers asked", &LogRecordsRequest{Kind: CmdGetLogLastPresent}, &RangeError{"number of registers", 0, 1, 8}},
		{"no time", &LogRecordsRequest{Kind: CmdGetLogTimePresent, IDs: []uint16{60}}, &RangeError{"year", 0, 2000, 2099}},
		{"year 2100", &LogRecordsRequest{Kind: CmdGetLogTimePast, IDs: []uint16{60}, Time: LogTime{Date: Date{2100, 1, 1}}}, &RangeError{"year", 2100, 2000, 2099}},
		{"hour 24", &LogRecordsRequest{Kind: CmdGetLogTimePast, IDs: []uint16{60}, Time: LogTime{Date: day.Date, Clock: Clock{24, 0, 0}}}, &RangeError{"hour", 24, 0, 23}},
		{"an id of 17 bits", &LogRecordsAnswer{Kind: CmdGetLogIDPresent, LogRecords: LogRecords{Rows: []LogRow{twoRegisters(0x10000, 1, 1)}}}, &RangeError{"id of a record", 0x10000, 0, 0xFFFF}},
		{"rows of no registers", &LogRecordsAnswer{Kind: CmdGetLogIDPresent, LogRecords: LogRecords{Rows: []LogRow{{ID: 1}}}}, &RangeError{"number of registers", 0, 1, 8}},
		{"another width", &LogRecordsAnswer{Kind: CmdGetLogIDPresent, LogRecords: LogRecords{Rows: []LogRow{twoRegisters(1, 1, 1), wide}}}, &LengthError{"register 68", 4, 1, false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := AppendMessage([]byte("abc"), FromMeter, LoggerTop, tt.m)
			if string(got) != "abc" || !reflect.DeepEqual(err, tt.want) {
				t.Errorf("%q, error %v; want %v", got, err, tt.want)
			}
		})
	}

	// A kind that is none of the four.
	for _, f := range map[string]func() error{
		"encode a request": func() error {
			_, err := (&LogRecordsRequest{Kind: CmdLogger, IDs: []uint16{60}}).AppendData(nil)
			return err
		},
		"encode an answer": func() error { _, err := new(LogRecordsAnswer).AppendData(nil); return err },
		"decode a request": func() error { return new(LogRecordsRequest).DecodeData(unhex(t, "0101003C0380")) },
		"decode an answer": func() error {
			return (&LogRecordsAnswer{Kind: CmdGetLogTimePast + 1}).DecodeData(unhex(t, "01000000000000"))
		},
	} {
		if err := f(); !errors.Is(err, ErrUnknownCommand) {
			t.Errorf("error %v, want ErrUnknownCommand", err)
		}
	}
}

func TestLogRecordInfoString(t *testing.T) {
	for i, want := range map[LogRecordInfo]string{
		0: "", RecordsEmpty: "empty", RecordsOutOfRange | RecordsMaxLength: "out of range, longest answer", RecordsEnd | 0x82: "bit 1, end, bit 7",
	} {
		if i.String() != want {
			t.Errorf("%02X is %q, want %q", byte(i), i, want)
		}
	}
}

func TestLogRecordsCheck(t *testing.T) {
	q := &LogRecordsRequest{Kind: CmdGetLogIDPresent, LogID: 1, IDs: []uint16{60, 68}, Records: 2, Record: 100}
	for _, tt := range []struct {
		name string
		a    LogRecords
		want bool
	}{
		{"as asked", LogRecords{LogID: 1, Rows: []LogRow{twoRegisters(100, 1, 1), twoRegisters(101, 2, 2)}}, true},
		{"from the next one on", LogRecords{LogID: 1, Rows: []LogRow{twoRegisters(103, 1, 1)}}, true},
		{"from one before", LogRecords{LogID: 1, Rows: []LogRow{twoRegisters(99, 1, 1)}}, false},
		{"too many", LogRecords{LogID: 1, Rows: []LogRow{twoRegisters(100, 1, 1), twoRegisters(101, 2, 2), twoRegisters(102, 3, 3)}}, false},
		{"another log", LogRecords{LogID: 2, Rows: []LogRow{twoRegisters(100, 1, 1)}}, false},
		{"another log, no rows", LogRecords{LogID: 2}, false},
		{"no rows", LogRecords{LogID: 1}, true},
		{"other registers", LogRecords{LogID: 1, Rows: []LogRow{{100, []Register{{ID: 74}}}}}, false},
		{"nothing but INFO", LogRecords{Info: RecordsOutOfRange, Rest: []byte{}}, true},
	} {
		err := q.check(&LogRecordsAnswer{q.Kind, tt.a})
		if (err == nil) != tt.want || err != nil && !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v, answer: %t", tt.name, err, tt.want)
		}
	}
}

func TestConnLogRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		frames := map[Command]string{}
		for _, g := range goldenFrames(t) {
			if len(g.ID) == len("doc-a0") && strings.HasPrefix(g.ID, "doc-a") {
				frames[CmdGetLogTimePresent+Command(g.ID[5]-'0')] = g.Response
			}
		}
		p := newPipe(t, func(_ int, f Frame, w io.Writer) { w.Write(unhex(t, frames[f.Command])) })
		c := NewConn(p.client, Options{Retries: -1})
		for _, q := range []LogRecordsRequest{
			{Kind: CmdGetLogTimePresent, LogID: 1, IDs: []uint16{60, 68}, Records: 3, MaxLength: 128, Time: LogTime{Date: Date{2007, 5, 24}, Clock: Clock{10, 30, 0}}},
			{Kind: CmdGetLogLastPresent, LogID: 1, IDs: []uint16{60, 68}, Records: 3, MaxLength: 128},
			{Kind: CmdGetLogIDPresent, LogID: 1, IDs: []uint16{60, 68}, Records: 3, MaxLength: 128, Record: 0x10F3},
		} {
			got, err := c.LogRecords(t.Context(), LoggerTop, q)
			if err != nil || got.Newest != 0x1102 || len(got.Rows) != 3 || fmt.Sprintf("%X", got.Rows[2].Registers[1].Raw) != "F2584C96" {
				t.Errorf("%s: %+v, %v", q.Kind, got, err)
			}
		}
		// An answer to a request for other records.
		got, err := c.LogRecords(t.Context(), LoggerTop, LogRecordsRequest{Kind: CmdGetLogIDPresent, LogID: 1, IDs: []uint16{60, 68}, Records: 3, Record: 0x10F4})
		if !errors.Is(err, ErrForeign) || !reflect.DeepEqual(got, LogRecords{}) {
			t.Errorf("%+v, %v, want ErrForeign", got, err)
		}
		if _, err := c.LogRecords(t.Context(), LoggerTop, LogRecordsRequest{IDs: []uint16{60}}); !errors.Is(err, ErrUnknownCommand) {
			t.Errorf("no kind: %v, want ErrUnknownCommand", err)
		}
	})
}
