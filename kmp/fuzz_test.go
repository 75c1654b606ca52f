package kmp

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"
)

// seedFrames adds every golden frame.
func seedFrames(f *testing.F, add func(wire []byte)) {
	f.Helper()
	for _, g := range goldenFrames(f) {
		for _, text := range []string{g.Request, g.Response} {
			if text != "" {
				add(unhex(f, text))
			}
		}
	}
}

// seedRegisters adds every register of the golden frames.
func seedRegisters(f *testing.F, add func(r Register)) {
	f.Helper()
	seedFrames(f, func(wire []byte) {
		frame, err := DecodeFrame(wire)
		if err != nil || frame.Direction != FromMeter {
			return
		}
		if m, err := DecodeMessage(frame); err == nil {
			if a, ok := m.(*GetRegisterAnswer); ok {
				for _, r := range a.Registers {
					add(r)
				}
			}
		}
	})
	for _, tt := range valueCases {
		add(Register{1, tt.unit, tt.siEx, unhex(f, tt.raw)})
	}
}

// A frame that decodes encodes to the same bytes; one that does not says why.
func FuzzDecodeFrame(f *testing.F) {
	seedFrames(f, func(wire []byte) { f.Add(wire) })
	f.Fuzz(func(t *testing.T, wire []byte) {
		frame, err := DecodeFrame(wire)
		if err != nil {
			if !errors.Is(err, ErrCodec) && !errors.Is(err, ErrAck) {
				t.Fatalf("% X: %v is of no known kind", wire, err)
			}
			return
		}
		if again := AppendFrame(nil, frame.Direction, frame.Address, frame.Command, frame.Data); !bytes.Equal(again, wire) {
			t.Fatalf("% X encodes again as % X", wire, again)
		}
		if len(frame.Data) <= MaxFrame-minFrame {
			if read, err := NewReader(bytes.NewReader(wire), frame.Direction).Next(); err != nil || !reflect.DeepEqual(read, frame) {
				t.Fatalf("% X: a Reader finds %v (error %v)", wire, read, err)
			}
		}
		// Each of the bytes that stand for data may be anything: stuffing still holds.
		link := append([]byte(nil), wire...)
		if _, back, err := DecodePhysical(nil, AppendPhysical(nil, ToMeter, link)); err != nil || !bytes.Equal(back, link) {
			t.Fatalf("% X as data comes back as % X (error %v)", link, back, err)
		}
	})
}

// Whatever comes before it, a good frame after a stop byte is found, what comes in
// other pieces gives the same, and no byte is lost from the count.
func FuzzReader(f *testing.F) {
	for _, tt := range readerCases {
		f.Add(unhex(f, tt.stream), byte(3))
	}
	seedFrames(f, func(wire []byte) { f.Add(wire, byte(1)) })
	f.Fuzz(func(t *testing.T, stream []byte, piece byte) {
		good := unhex(t, goodAnswer)
		stream = append(append(append([]byte(nil), stream...), Stop), good...)
		all := func(src io.Reader) (frames []Frame, bad int, skipped uint64) {
			r := NewReader(src, FromMeter)
			for {
				frame, err := r.Next()
				var wrong *FrameError
				switch {
				case err == nil:
					frame.Data = bytes.Clone(frame.Data)
					frames = append(frames, frame)
				case errors.As(err, &wrong):
					bad++
				case errors.Is(err, io.EOF):
					return frames, bad, r.Skipped()
				default:
					t.Fatal(err)
				}
			}
		}
		frames, bad, skipped := all(bytes.NewReader(stream))
		if len(frames) == 0 || frames[len(frames)-1].Command != CmdGetSerialNo {
			t.Fatalf("% X: the good frame at the end is not found, but %v", stream, frames)
		}
		total := skipped
		for _, frame := range frames {
			total += uint64(len(AppendFrame(nil, frame.Direction, frame.Address, frame.Command, frame.Data)))
		}
		if total != uint64(len(stream)) {
			t.Fatalf("% X: %d bytes counted, %d came", stream, total, len(stream))
		}
		frames2, bad2, skipped2 := all(&evenPieces{bytes.NewReader(stream), 1 + int(piece)%16})
		if !reflect.DeepEqual(frames, frames2) || bad != bad2 || skipped != skipped2 {
			t.Fatalf("% X: in pieces %v, %d bad, %d skipped; at once %v, %d, %d", stream, frames2, bad2, skipped2, frames, bad, skipped)
		}
	})
}

type evenPieces struct {
	src io.Reader
	n   int
}

func (e *evenPieces) Read(p []byte) (int, error) { return e.src.Read(p[:min(e.n, len(p))]) }

// A message that decodes encodes to the same data and is not larger than what it came from.
func FuzzDecodeMessage(f *testing.F) {
	seedFrames(f, func(wire []byte) {
		if frame, err := DecodeFrame(wire); err == nil {
			f.Add(frame.Direction == ToMeter, byte(frame.Command), bytes.Clone(frame.Data))
		}
	})
	for _, tt := range messageCases {
		f.Add(tt.dir == ToMeter, byte(tt.cmd), unhex(f, tt.data))
	}
	f.Fuzz(func(t *testing.T, toMeter bool, cmd byte, data []byte) {
		dir := FromMeter
		if toMeter {
			dir = ToMeter
		}
		m, err := DecodeMessage(Frame{dir, HeatMeter, Command(cmd), data})
		if err != nil {
			if !errors.Is(err, ErrCodec) {
				t.Fatalf("% X: %v does not match ErrCodec", data, err)
			}
			return
		}
		if m.Command() != Command(cmd) {
			t.Fatalf("command %02X became %s", cmd, m.Command())
		}
		if readOnly(m, data) {
			return
		}
		if again, err := m.AppendData(nil); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("% X encodes again as % X (error %v)", data, again, err)
		}
	})
}

// A number on the wire has the value that the format's definition says, and comes
// back from wire, text and JSON.
func FuzzDecimal(f *testing.F) {
	for _, tt := range decimalCases {
		f.Add(unhex(f, tt.wire))
	}
	seedRegisters(f, func(r Register) { f.Add(append([]byte{byte(len(r.Raw)), r.SiEx}, r.Raw...)) })
	f.Fuzz(func(t *testing.T, wire []byte) {
		_, n, err := DecodeDecimal(wire)
		if err != nil {
			if !errors.Is(err, ErrTruncated) {
				t.Fatalf("% X: %v", wire, err)
			}
			return
		}
		checkDecimal(t, wire[:n])
	})
}

// A text that parses is the same number for the standard library, fits on the wire
// and comes back from there.
func FuzzParseDecimal(f *testing.F) {
	for _, tt := range decimalCases {
		f.Add(tt.text)
	}
	for _, text := range []string{"255E3", "1e-64", "1e64", "-0.0e-70", "1.", ".5", "+5", "NaN", "1_0", "0x1p3", "1e40000"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDecimal(text)
		if err != nil {
			if !errors.Is(err, ErrSyntax) && !errors.Is(err, ErrCodec) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if !d.IsZero() && textRat(t, d.String()).Cmp(textRat(t, text)) != 0 {
			t.Fatalf("%q became %s", text, d)
		}
		wire, err := AppendDecimal(nil, d, 0)
		if err != nil {
			t.Fatal(err)
		}
		if back, n, err := DecodeDecimal(wire); err != nil || n != len(wire) || back != d {
			t.Fatalf("%q: % X comes back as %s (error %v)", text, wire, back, err)
		}
		if again, err := ParseDecimal(d.String()); err != nil || again.Cmp(d) != 0 {
			t.Fatalf("%q: %s parses as %s (error %v)", text, d, again, err)
		}
	})
}

// A register's value is of the kind that its unit promises, is valid JSON, and
// encodes to a register of the same value where there is an encoder.
func FuzzRegisterValue(f *testing.F) {
	seedRegisters(f, func(r Register) { f.Add(byte(r.Unit), r.SiEx, r.Raw) })
	f.Fuzz(func(t *testing.T, unit, siEx byte, raw []byte) {
		r := Register{1, Unit(unit), siEx, raw}
		v, err := r.Value()
		if err != nil {
			if v != nil || !errors.Is(err, ErrCodec) {
				t.Fatalf("%v: %v, error %v", r, v, err)
			}
			return
		}
		if v == nil {
			return
		}
		js, err := json.Marshal(v)
		if err != nil || !json.Valid(js) {
			t.Fatalf("%v: JSON %s (error %v)", r, js, err)
		}
		var again Register
		switch v := v.(type) {
		case Decimal:
			again, err = NewRegister(1, r.Unit, v, min(len(raw), maxNoB))
			if len(raw) > maxNoB {
				return // more than a frame can hold
			}
		case Date:
			if r.Unit != UnitDate {
				return
			}
			again, err = NewDateRegister(1, v)
		case Clock:
			again, err = NewClockRegister(1, v)
		case DateTime:
			if r.Unit != UnitDSTDateTime {
				return
			}
			again, err = NewDSTDateTimeRegister(1, v)
		case Raw:
			if v != Raw(raw) {
				t.Fatalf("%v became %v", r, v)
			}
			return
		default:
			return
		}
		if err != nil {
			t.Fatalf("%v: %v does not encode: %v", r, v, err)
		}
		if back, err := again.Value(); err != nil || back != v {
			t.Fatalf("%v: %v comes back as %v (error %v)", r, v, back, err)
		}
	})
}

// readOnly reports whether a message was read that is not to be sent: of more than eight
// registers, with a value without bytes, or a log page without rows that tells of registers.
func readOnly(m Message, data []byte) bool {
	var registers []Register
	switch m := m.(type) {
	case *GetRegisterAnswer:
		if registers = m.Registers; len(registers) > MaxRegisters {
			return true
		}
	case *LogByIDAnswer:
		if registers = firstRow(m.Rows); registers == nil {
			return data[4] > 0
		}
	case *LogLastAnswer:
		if registers = firstRow(m.Rows); registers == nil {
			return data[4] > 0
		}
	case *LogRecordsAnswer:
		registers = firstRow(m.Rows)
	}
	return slices.ContainsFunc(registers, func(r Register) bool { return len(r.Raw) == 0 })
}

func firstRow(rows []LogRow) []Register {
	if len(rows) == 0 {
		return nil
	}
	return rows[0].Registers
}

// checkRows sees that every row has the first one's format and its values from data, in
// their order and nothing twice.
func checkRows(t *testing.T, rows []LogRow, data []byte) {
	t.Helper()
	total := 0
	for i, row := range rows {
		if len(row.Registers) == 0 || len(row.Registers) > MaxRegisters {
			t.Fatalf("% X: row %d has %d registers", data, i, len(row.Registers))
		}
		for j, r := range row.Registers {
			f := rows[0].Registers[j]
			if r.ID != f.ID || r.Unit != f.Unit || r.SiEx != f.SiEx || len(r.Raw) != len(f.Raw) {
				t.Fatalf("% X: row %d has %v, the first %v", data, i, r, f)
			}
			total += len(r.Raw)
			at := bytes.Index(data, r.Raw)
			if at < 0 {
				t.Fatalf("% X: row %d has % X", data, i, r.Raw)
			}
			data = data[at+len(r.Raw):]
		}
	}
	if len(rows) > 0 && total == 0 {
		t.Fatalf("%d rows of nothing", len(rows))
	}
}

// seedData adds the data of golden frames and of message cases of a command and direction.
func seedData(f *testing.F, dir Direction, add func(cmd Command, data []byte)) {
	f.Helper()
	seedFrames(f, func(wire []byte) {
		if frame, err := DecodeFrame(wire); err == nil && frame.Direction == dir {
			add(frame.Command, frame.Data)
		}
	})
	for _, tt := range messageCases {
		if tt.dir == dir {
			add(tt.cmd, unhex(f, tt.data))
		}
	}
}

// A page of a log has as many rows as it says, with ids in a row, and what the wire has.
func FuzzLogPage(f *testing.F) {
	seedData(f, FromMeter, func(cmd Command, data []byte) {
		if cmd == CmdLogger {
			f.Add(data)
		}
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		byID, last := new(LogByIDAnswer), new(LogLastAnswer)
		errByID, errLast := byID.DecodeData(data), last.DecodeData(data)
		for page, err := range map[*LogPage]error{&byID.LogPage: errByID, &last.LogPage: errLast} {
			if err != nil {
				if !errors.Is(err, ErrCodec) {
					t.Fatalf("% X: %v", data, err)
				}
				continue
			}
			if rows := int(binary.BigEndian.Uint16(data[2:])); rows != len(page.Rows) || rows > len(data) {
				t.Fatalf("% X: %d rows", data, len(page.Rows))
			}
			for i, row := range page.Rows {
				if int64(row.ID) != int64(page.First)-int64(i) {
					t.Fatalf("% X: row %d has the id %d", data, i, row.ID)
				}
			}
			checkRows(t, page.Rows, data[min(logPageHeader, len(data)):])
			_ = page.Info.String()
		}
		if errByID == nil && errLast == nil {
			t.Fatalf("% X is the answer to both sub-commands", data)
		}
	})
}

// A log's configuration keeps every byte.
func FuzzLogConfig(f *testing.F) {
	seedData(f, FromMeter, func(cmd Command, data []byte) {
		if cmd == CmdLogger {
			f.Add(data)
		}
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		var a LogConfigAnswer
		if err := a.DecodeData(data); err != nil {
			if !errors.Is(err, ErrCodec) {
				t.Fatalf("% X: %v", data, err)
			}
			return
		}
		if again, err := a.AppendData(nil); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("% X encodes again as % X (error %v)", data, again, err)
		}
		if l, ok := ParseLogType(a.Log.String()); ok && l != a.Log {
			t.Fatalf("%s is %s", a.Log, l)
		}
	})
}

// Records are those of the wire, whatever form the answer has, and nothing of it is lost.
func FuzzLogRecords(f *testing.F) {
	seedData(f, FromMeter, func(cmd Command, data []byte) {
		if logKind(cmd) == nil {
			f.Add(byte(cmd), data)
		}
	})
	f.Fuzz(func(t *testing.T, kind byte, data []byte) {
		a := LogRecordsAnswer{Kind: CmdGetLogTimePresent + Command(kind)%4}
		if err := a.DecodeData(data); err != nil {
			if !errors.Is(err, ErrCodec) || len(data) > 0 && data[len(data)-1] != 0 {
				t.Fatalf("% X: %v", data, err)
			}
			return
		}
		if a.Info != 0 && a.inRow(a.Rows) != len(a.Rows) {
			t.Fatalf("% X: ids of %v do not follow", data, a.Rows)
		}
		if a.Rest != nil && (a.Info == 0 || a.LastRead != 0 || a.Newest != 0) {
			t.Fatalf("% X: %+v", data, a)
		}
		checkRows(t, a.Rows, data)
		if readOnly(&a, data) {
			return
		}
		if again, err := a.AppendData(nil); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("% X encodes again as % X (error %v)", data, again, err)
		}
	})
}

// A request that decodes is one that may be sent, and the same bytes.
func FuzzLogRequests(f *testing.F) {
	seedData(f, ToMeter, func(cmd Command, data []byte) {
		if cmd == CmdLogger || logKind(cmd) == nil {
			f.Add(byte(cmd), data)
		}
	})
	f.Fuzz(func(t *testing.T, cmd byte, data []byte) {
		for _, q := range []Request{&LogConfigRequest{}, &LogByIDRequest{}, &LogLastRequest{}, &LogRecordsRequest{Kind: CmdGetLogTimePresent + Command(cmd)%4}} {
			err := q.DecodeData(data)
			if err != nil {
				if !errors.Is(err, ErrCodec) {
					t.Fatalf("%T, % X: %v", q, data, err)
				}
				continue
			}
			if again, err := q.AppendData(nil); err != nil || !bytes.Equal(again, data) {
				t.Fatalf("%T, % X encodes again as % X (error %v)", q, data, again, err)
			}
			if r, ok := q.(*LogRecordsRequest); ok && r.hasTime() {
				at := time.Date(r.Time.Date.Year, time.Month(r.Time.Date.Month), r.Time.Date.Day, r.Time.Clock.Hour, r.Time.Clock.Minute, r.Time.Clock.Second, 0, time.UTC)
				if at.Year() != r.Time.Date.Year || at.Day() != r.Time.Date.Day || at.Second() != r.Time.Clock.Second {
					t.Fatalf("% X: there is no %v", data, r.Time)
				}
			}
		}
	})
}

// A clock that decodes is one that there is, and comes back the same.
func FuzzSetClock(f *testing.F) {
	seedData(f, ToMeter, func(cmd Command, data []byte) {
		if cmd == CmdSetClock {
			f.Add(data)
		}
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		var q SetClockRequest
		if err := q.DecodeData(data); err != nil {
			if !errors.Is(err, ErrCodec) {
				t.Fatalf("% X: %v", data, err)
			}
			return
		}
		if _, err := time.Parse(time.DateTime, q.Date.String()+" "+q.Clock.String()); err != nil {
			t.Fatal(err)
		}
		if again, err := q.AppendData(nil); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("% X encodes again as % X (error %v)", data, again, err)
		}
	})
}

// A register to be written comes back the same.
func FuzzPutRegister(f *testing.F) {
	seedData(f, ToMeter, func(cmd Command, data []byte) {
		if cmd == CmdPutRegister {
			f.Add(data)
		}
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		var q PutRegisterRequest
		if err := q.DecodeData(data); err != nil {
			if !errors.Is(err, ErrCodec) {
				t.Fatalf("% X: %v", data, err)
			}
			return
		}
		if again, err := q.AppendData(nil); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("% X encodes again as % X (error %v)", data, again, err)
		}
	})
}

// Event status, asked for and cleared: four and eight bytes, whatever they are.
func FuzzEventStatus(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0})
	f.Add([]byte{0, 0, 1, 0, 0, 0, 0, 0x80})
	f.Fuzz(func(t *testing.T, data []byte) {
		for want, m := range map[int][]Message{0: {&GetEventStatusRequest{}}, 4: {&GetEventStatusAnswer{}, &ClearEventStatusAnswer{}}, 8: {&ClearEventStatusRequest{}}} {
			for _, m := range m {
				if err := m.DecodeData(data); (err == nil) != (len(data) == want) {
					t.Fatalf("%T, % X: %v", m, data, err)
				} else if err != nil {
					continue
				}
				if again, err := m.AppendData(nil); err != nil || !bytes.Equal(again, data) {
					t.Fatalf("%T, % X encodes again as % X (error %v)", m, data, again, err)
				}
			}
		}
	})
}

// Whatever follows a request, it is acknowledged by a 06 that stands for itself, with
// nothing but the echo and zeros before it. Frames may as well: those are not looked at.
func FuzzAcknowledgement(f *testing.F) {
	ask := must(AppendMessage(nil, ToMeter, HeatMeter, &aClock))(f)
	for _, s := range []string{"", "06", "00 06", "FF 06", "06 06", "80 06", "80 3F 06", "40 06", "40 3F 02 01 23 45 67 E9 56 0D 06"} {
		f.Add(unhex(f, s))
		f.Add(append(bytes.Clone(ask), unhex(f, s)...))
		f.Add(append(unhex(f, s), ask...))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		err := setClock(t.Context(), NewConn(&shortLife{came: bytes.NewReader(stream)}, Options{}))
		before, _, found := bytes.Cut(stream, []byte{Ack})
		if bytes.Contains(before, []byte{byte(FromMeter)}) {
			found = found && err == nil // whether it is one depends on the frame
		} else if other := bytes.Trim(before, "\x00"); len(other) > 0 && !bytes.Equal(other, ask) {
			found = false
		}
		if found != (err == nil) {
			t.Fatalf("% X: %v", stream, err)
		}
	})
}

// shortLife is a line on which something comes after the first write, and then nothing
// more. Nobody has to wait for it.
type shortLife struct {
	came    *bytes.Reader
	written bool
}

func (l *shortLife) Read(p []byte) (int, error) {
	if l.written && l.came.Len() > 0 {
		return l.came.Read(p)
	}
	return 0, os.ErrDeadlineExceeded
}

func (l *shortLife) Write(p []byte) (int, error) {
	l.written = true
	return len(p), nil
}

func (*shortLife) SetReadDeadline(time.Time) error { return nil }
func (*shortLife) Close() error                    { return nil }
