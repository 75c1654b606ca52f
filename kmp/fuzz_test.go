package kmp

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"testing"
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
		if a, ok := m.(*GetRegisterAnswer); ok {
			if len(a.Registers) > MaxRegisters {
				return // read, but not to be sent
			}
			for _, r := range a.Registers {
				if len(r.Raw) == 0 {
					return // so is a value without bytes
				}
			}
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
