package kmp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"testing/iotest"
)

// frameCases drive encode and decode of the three layers. wire is the physical
// layer, link the data link layer with its CRC, data what follows the command.
var frameCases = []struct {
	name string
	wire string
	link string
	dir  Direction
	addr Address
	cmd  Command
	data string
}{
	{"request without data", "80 3F 01 05 8A 0D", "3F 01 05 8A", ToMeter, HeatMeter, CmdGetType, ""},
	{"answer without data", "40 3F 10 07 9A 0D", "3F 10 07 9A", FromMeter, HeatMeter, CmdGetRegister, ""},
	{"request with data", "80 3F 10 01 00 3C B2 5F 0D", "3F 10 01 00 3C B2 5F", ToMeter, HeatMeter, CmdGetRegister, "01 00 3C"},
	{"address stuffed", "80 1B 7F 01 0B B9 0D", "80 01 0B B9", ToMeter, 0x80, CmdGetType, ""},
	{"command stuffed", "40 3F 1B F9 75 6D 0D", "3F 06 75 6D", FromMeter, HeatMeter, 0x06, ""},
	{"data stuffed: 80", "80 3F 10 01 00 1B 7F D4 08 0D", "3F 10 01 00 80 D4 08", ToMeter, HeatMeter, CmdGetRegister, "01 00 80"},
	{"data stuffed: 40 0D 06 1B", "40 7F 10 1B BF 1B F2 1B F9 1B E4 A1 F4 0D", "7F 10 40 0D 06 1B A1 F4", FromMeter, LoggerTop, CmdGetRegister, "40 0D 06 1B"},
	{"CRC stuffed: high byte", "80 3F 10 02 01 5A 00 9A 1B BF 2B 0D", "3F 10 02 01 5A 00 9A 40 2B", ToMeter, HeatMeter, CmdGetRegister, "02 01 5A 00 9A"},
	{"CRC stuffed: low byte", "40 3F 10 00 02 02 04 00 00 00 00 00 09 1B F9 0D", "3F 10 00 02 02 04 00 00 00 00 00 09 06", FromMeter, HeatMeter, CmdGetRegister, "00 02 02 04 00 00 00 00 00"},
	{"hour counter 7039 h is 1B7F", "40 3F 10 03 EC 2E 04 00 00 00 1B E4 7F A6 1B F9 0D", "3F 10 03 EC 2E 04 00 00 00 1B 7F A6 06", FromMeter, HeatMeter, CmdGetRegister, "03 EC 2E 04 00 00 00 1B 7F"},
	{"base module", "80 BF 01 1E 12 0D", "BF 01 1E 12", ToMeter, LoggerBase, CmdGetType, ""},
}

func TestFrameLayers(t *testing.T) {
	for _, tt := range frameCases {
		t.Run(tt.name, func(t *testing.T) {
			wire, link, data := unhex(t, tt.wire), unhex(t, tt.link), unhex(t, tt.data)
			app := append([]byte{byte(tt.cmd)}, data...)

			if got := AppendFrame([]byte("x"), tt.dir, tt.addr, tt.cmd, data); !bytes.Equal(got, append([]byte("x"), wire...)) {
				t.Errorf("AppendFrame: % X, want % X", got[1:], wire)
			}
			if got := AppendPhysical([]byte("x"), tt.dir, link); !bytes.Equal(got, append([]byte("x"), wire...)) {
				t.Errorf("AppendPhysical: % X, want % X", got[1:], wire)
			}
			if got := AppendDataLink([]byte("x"), tt.addr, app); !bytes.Equal(got, append([]byte("x"), link...)) {
				t.Errorf("AppendDataLink: % X, want % X", got[1:], link)
			}
			if got := AppendApplication([]byte("x"), tt.cmd, data); !bytes.Equal(got, append([]byte("x"), app...)) {
				t.Errorf("AppendApplication: % X, want % X", got[1:], app)
			}

			want := Frame{tt.dir, tt.addr, tt.cmd, data}
			if f, err := DecodeFrame(wire); err != nil || !reflect.DeepEqual(f, want) {
				t.Errorf("DecodeFrame: %v (error %v), want %v", f, err, want)
			}
			if dir, got, err := DecodePhysical([]byte("x"), wire); err != nil || dir != tt.dir || !bytes.Equal(got, append([]byte("x"), link...)) {
				t.Errorf("DecodePhysical: %s % X (error %v)", dir, got, err)
			}
			if addr, got, err := DecodeDataLink(link); err != nil || addr != tt.addr || !bytes.Equal(got, app) {
				t.Errorf("DecodeDataLink: %02X % X (error %v)", byte(addr), got, err)
			}
			if cmd, got, err := DecodeApplication(app); err != nil || cmd != tt.cmd || !bytes.Equal(got, data) {
				t.Errorf("DecodeApplication: %s % X (error %v)", cmd, got, err)
			}
			if f, err := NewReader(bytes.NewReader(wire), tt.dir).Next(); err != nil || !reflect.DeepEqual(f, want) {
				t.Errorf("Reader: %v (error %v), want %v", f, err, want)
			}
			if CRC16(link) != 0 {
				t.Error("the CRC over a frame with its CRC is not 0")
			}
		})
	}
}

func TestDecodeFrameErrors(t *testing.T) {
	physical := func(at int, err error) error { return &FrameError{Physical, at, err} }
	link := func(at int, err error) error { return &FrameError{DataLink, at, err} }
	for _, tt := range []struct {
		name, wire string
		want       error
	}{
		{"nothing", "", physical(0, &LengthError{"frame", 2, 0, true})},
		{"start byte alone", "40", physical(1, &LengthError{"frame", 2, 1, true})},
		{"acknowledgement", "06", ErrAck},
		{"two acknowledgements", "06 06", physical(0, &BoundaryError{"start", 0, 0x06})},
		{"noise before the start", "00 40 3F 10 07 9A 0D", physical(0, &BoundaryError{"start", 0, 0x00})},
		{"no stop byte", "40 3F 10 07 9A", physical(4, &BoundaryError{"stop", Stop, 0x9A})},
		{"byte after the stop", "40 3F 10 07 9A 0D 00", physical(6, &BoundaryError{"stop", Stop, 0x00})},
		{"stop inside", "40 3F 0D 07 9A 0D", physical(2, errUnstuffed)},
		{"start inside", "40 3F 40 07 9A 0D", physical(2, errUnstuffed)},
		{"other start inside", "40 3F 80 07 9A 0D", physical(2, errUnstuffed)},
		{"acknowledgement inside", "40 3F 06 07 9A 0D", physical(2, errUnstuffed)},
		{"escape of a common byte", "40 3F 1B 10 07 9A 0D", physical(3, &StuffingError{0x10})},
		{"escape of nothing", "40 3F 10 07 1B 0D", physical(5, &StuffingError{0x0D})},
		{"escape twice", "40 3F 1B 1B 07 9A 0D", physical(3, &StuffingError{0x1B})},
		{"no bytes", "40 0D", link(0, &LengthError{"frame", 4, 0, true})},
		{"address alone", "40 3F 0D", link(1, &LengthError{"frame", 4, 1, true})},
		{"no command", "40 3F 77 77 0D", link(3, &LengthError{"frame", 4, 3, true})},
		{"no command, stuffed", "40 1B 7F 77 77 0D", link(3, &LengthError{"frame", 4, 3, true})},
		{"wrong CRC", "40 3F 10 07 9B 0D", link(2, &ChecksumError{0x079A, 0x079B})},
		{"wrong byte", "40 3F 11 07 9A 0D", link(2, &ChecksumError{0x17BB, 0x079A})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := DecodeFrame(unhex(t, tt.wire))
			if !reflect.DeepEqual(err, tt.want) || !reflect.DeepEqual(f, Frame{}) {
				t.Errorf("%v, error %v; want no frame, %v", f, err, tt.want)
			}
			if is := errors.Is(err, ErrCodec); is == errors.Is(err, ErrAck) {
				t.Errorf("%v matches ErrCodec: %t", err, is)
			}
		})
	}
	if _, _, err := DecodeApplication(nil); !reflect.DeepEqual(err, error(&FrameError{Application, 1, &LengthError{"command", 1, 0, true}})) {
		t.Errorf("no application bytes: %v", err)
	}
}

// A failed decode leaves what the caller had in dst and nothing more.
func TestDecodePhysicalKeepsPrefix(t *testing.T) {
	_, got, err := DecodePhysical([]byte("abc"), unhex(t, "40 3F 10 1B 00 0D"))
	if err == nil || string(got) != "abc" {
		t.Errorf("%q, error %v", got, err)
	}
}

func TestCRC16(t *testing.T) {
	// The check value of CRC-16/XMODEM in the usual catalogues.
	if got := CRC16([]byte("123456789")); got != 0x31C3 {
		t.Errorf("%04X, want 31C3", got)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 300 {
		p := randomBytes(rng, n)
		if got, want := CRC16(p), slowCRC(p); got != want {
			t.Fatalf("% X: %04X, want %04X", p, got, want)
		}
	}
}

// slowCRC is the definition: division of the bits by the polynomial.
func slowCRC(p []byte) uint16 {
	var crc uint32
	for _, b := range append(slices.Clone(p), 0, 0) {
		for bit := 7; bit >= 0; bit-- {
			crc = crc<<1 | uint32(b>>bit)&1
			if crc&0x10000 != 0 {
				crc ^= 0x11021
			}
		}
	}
	return uint16(crc)
}

func randomBytes(rng *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}

var reservedBytes = []byte{0x80, 0x40, 0x0D, 0x06, 0x1B}

// stuffingTraps are sequences on which replacing pair after pair goes wrong.
func stuffingTraps() [][]byte {
	special := append([]byte{0x7F, 0xBF, 0xF2, 0xF9, 0xE4}, reservedBytes...)
	var all [][]byte
	for _, a := range special {
		all = append(all, []byte{a})
		for _, b := range special {
			all = append(all, []byte{a, b})
			for _, c := range special {
				all = append(all, []byte{a, b, c})
			}
		}
	}
	return all
}

func checkStuffing(t *testing.T, link []byte) {
	t.Helper()
	wire := AppendPhysical(nil, FromMeter, link)
	inner := wire[1 : len(wire)-1]
	for i, b := range inner {
		if b != 0x1B && slices.Contains(reservedBytes, b) {
			t.Fatalf("% X: byte %d of % X is not escaped", link, i, wire)
		}
	}
	grown := 0
	for _, b := range link {
		if slices.Contains(reservedBytes, b) {
			grown++
		}
	}
	if len(inner) != len(link)+grown {
		t.Fatalf("% X became % X, want %d more bytes", link, wire, grown)
	}
	dir, got, err := DecodePhysical(nil, wire)
	if err != nil || dir != FromMeter || !bytes.Equal(got, link) {
		t.Fatalf("% X became % X became % X (%s, error %v)", link, wire, got, dir, err)
	}
}

func TestStuffing(t *testing.T) {
	traps := stuffingTraps()
	if len(traps) != 10+100+1000 {
		t.Fatalf("%d sequences", len(traps))
	}
	for _, link := range traps {
		checkStuffing(t, link)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for range 5000 {
		link := randomBytes(rng, rng.IntN(60))
		for range rng.IntN(4) {
			link = slices.Insert(link, rng.IntN(len(link)+1), traps[rng.IntN(len(traps))]...)
		}
		checkStuffing(t, link)
	}
	for v := range 1 << 16 { // every hour counter below 65536 h, 7039 (1B7F) among them
		checkStuffing(t, []byte{0, 0, byte(v >> 8), byte(v)})
	}
}

// The values on which a chained replacement fails, in whole frames.
func TestHourCounterTraps(t *testing.T) {
	for hours, raw := range map[int64]string{7039: "1B 7F", 7103: "1B BF", 7154: "1B F2", 7161: "1B F9", 7140: "1B E4"} {
		v, err := NewDecimal(hours, 0)
		if err != nil {
			t.Fatal(err)
		}
		r, err := NewRegister(1004, UnitHour, v, 4)
		if err != nil || !bytes.Equal(r.Raw[2:], unhex(t, raw)) {
			t.Fatalf("%d h: % X (error %v)", hours, r.Raw, err)
		}
		wire, err := AppendMessage(nil, FromMeter, HeatMeter, &GetRegisterAnswer{[]Register{r}})
		if err != nil {
			t.Fatal(err)
		}
		f, err := DecodeFrame(wire)
		if err != nil {
			t.Fatal(err)
		}
		m, err := DecodeMessage(f)
		if err != nil || !reflect.DeepEqual(m, &GetRegisterAnswer{[]Register{r}}) {
			t.Errorf("%d h: % X became %v (error %v)", hours, wire, m, err)
		}
	}
}

func TestFrameRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	var buf, wire []byte
	for range 5000 {
		want := Frame{[]Direction{ToMeter, FromMeter}[rng.IntN(2)], Address(rng.Uint32()), Command(rng.Uint32()), randomBytes(rng, rng.IntN(100))}
		wire = AppendFrame(wire[:0], want.Direction, want.Address, want.Command, want.Data)
		got, err := DecodeFrameInto(buf, wire)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("% X: %v (error %v), want %v", wire, got, err, want)
		}
		i, bit := rng.IntN(len(wire)), rng.IntN(8)
		wire[i] ^= 1 << bit // one wrong bit never gives a frame
		if f, err := DecodeFrame(wire); err == nil {
			t.Fatalf("bit %d of byte %d is wrong in % X, decoded as %v", bit, i, wire, f)
		}
	}
}

// event is what one call of Next gives: a command, or the error's text.
func events(t *testing.T, r *Reader) []string {
	t.Helper()
	var got []string
	for range 100 {
		f, err := r.Next()
		var bad *FrameError
		switch {
		case err == nil:
			got = append(got, fmt.Sprintf("%02X % X", byte(f.Command), f.Data))
		case errors.As(err, &bad):
			got = append(got, err.Error())
		case errors.Is(err, io.EOF):
			return got
		default:
			t.Fatal(err)
		}
	}
	t.Fatal("the reader does not come to its end")
	return nil
}

const goodAnswer = "40 3F 02 01 23 45 67 E9 56 0D"

// readerCases are streams with damage; each ends with a good frame, that must be found.
var readerCases = []struct {
	name, stream string
	want         []string // before the good frame
	skipped      int
}{
	{"nothing else", "", nil, 0},
	{"stray 00", "00 00", nil, 2},
	{"acknowledgement", "06", nil, 1},
	{"echo", "80 3F 02 35 E9 0D", nil, 6},
	{"echo with 40 in its CRC", "80 3F 10 02 01 5A 00 9A 1B BF 2B 0D", nil, 12},
	{"cut echo", "3F 02 35", nil, 3},
	{"noise", "FF 13 1B 0D 1B BF 0D 0D 55", nil, 9},
	{"frame before", "40 3F 10 07 9A 0D", []string{"10 "}, 0},
	{"00 between frames", "40 3F 10 07 9A 0D 00", []string{"10 "}, 1},
	{"restart at once", "40", []string{"kmp: physical layer, byte 1: cut short: a new frame begins"}, 1},
	{"restart", "40 3F 02 01", []string{"kmp: physical layer, byte 4: cut short: a new frame begins"}, 4},
	{"restart after an escape", "40 3F 1B", []string{"kmp: physical layer, byte 3: cut short: a new frame begins"}, 3},
	{"wrong CRC", "40 3F 10 07 9B 0D", []string{"kmp: data link layer, byte 2: checksum is 079B, should be 079A"}, 6},
	{"too short", "40 0D", []string{"kmp: data link layer, byte 0: frame has 0 bytes, should have at least 4"}, 2},
	{"lone escape", "40 3F 1B 0D", []string{"kmp: physical layer, byte 3: escape 1B is followed by 0D"}, 4},
	{"wrong escape", "40 3F 1B 41 07 9A 0D", []string{"kmp: physical layer, byte 3: escape 1B is followed by 41"}, 7},
	{"80 inside", "40 3F 80 07 9A 0D", []string{"kmp: physical layer, byte 2: reserved byte is not escaped"}, 6},
	{"06 inside", "40 3F 06 07 9A 0D", []string{"kmp: physical layer, byte 2: reserved byte is not escaped"}, 6},
}

func TestReader(t *testing.T) {
	for _, tt := range readerCases {
		t.Run(tt.name, func(t *testing.T) {
			stream := unhex(t, tt.stream+goodAnswer)
			want := append(slices.Clone(tt.want), "02 01 23 45 67")
			rng := rand.New(rand.NewPCG(7, 8))
			for name, src := range map[string]io.Reader{
				"at once":          bytes.NewReader(stream),
				"byte by byte":     iotest.OneByteReader(bytes.NewReader(stream)),
				"half by half":     iotest.HalfReader(bytes.NewReader(stream)),
				"end with data":    iotest.DataErrReader(bytes.NewReader(stream)),
				"in any pieces":    &piecesReader{bytes.NewReader(stream), rng, false},
				"with no-op reads": &piecesReader{bytes.NewReader(stream), rng, true},
			} {
				r := NewReader(src, FromMeter)
				if got := events(t, r); !slices.Equal(got, want) {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
				if r.Skipped() != uint64(tt.skipped) {
					t.Errorf("%s: skipped %d bytes, want %d", name, r.Skipped(), tt.skipped)
				}
				if r.InFrame() {
					t.Errorf("%s: still in a frame", name)
				}
			}
		})
	}
}

// piecesReader reads pieces of random length, and now and then nothing at all.
type piecesReader struct {
	src   io.Reader
	rng   *rand.Rand
	empty bool
}

func (p *piecesReader) Read(b []byte) (int, error) {
	n := 1 + p.rng.IntN(5)
	if p.empty && n > 2 {
		return 0, nil
	}
	return p.src.Read(b[:min(n, len(b))])
}

func TestReaderToMeter(t *testing.T) {
	stream := unhex(t, goodAnswer+"80 3F 02 35 E9 0D")
	if got := events(t, NewReader(bytes.NewReader(stream), ToMeter)); !slices.Equal(got, []string{"02 "}) {
		t.Errorf("%q", got)
	}
}

func TestReaderEndInFrame(t *testing.T) {
	r := NewReader(bytes.NewReader(unhex(t, "40 3F 02 01")), FromMeter)
	_, err := r.Next()
	if want := (&FrameError{Physical, 4, ErrTruncated}); !reflect.DeepEqual(err, error(want)) || !errors.Is(err, ErrTruncated) {
		t.Errorf("error %v, want %v", err, want)
	}
	if _, err = r.Next(); err != io.EOF { //nolint:errorlint // the reader's error is handed on as it is
		t.Errorf("error %v, want io.EOF as it is", err)
	}
}

// An error in the middle of a frame, such as a passed deadline, ends that frame;
// the error itself comes when it lasts, and reading goes on after it.
func TestReaderErrorInFrame(t *testing.T) {
	good := unhex(t, goodAnswer)
	broken := errors.New("broken")
	r := NewReader(io.MultiReader(
		bytes.NewReader(good[:5]), &failingReader{2, broken}, bytes.NewReader(good)), FromMeter)

	if _, err := r.Next(); !errors.Is(err, ErrTruncated) {
		t.Errorf("first: %v, want ErrTruncated", err)
	}
	if _, err := r.Next(); !errors.Is(err, broken) || errors.Is(err, ErrCodec) {
		t.Errorf("second: %v, want %v", err, broken)
	}
	if f, err := r.Next(); err != nil || f.Command != CmdGetSerialNo {
		t.Errorf("third: %v (error %v), want the frame", f, err)
	}
}

// failingReader fails n times and is at its end then.
type failingReader struct {
	n   int
	err error
}

func (f *failingReader) Read([]byte) (int, error) {
	if f.n == 0 {
		return 0, io.EOF
	}
	f.n--
	return 0, f.err
}

// A reader that never gives anything is not waited for without end.
func TestReaderNoProgress(t *testing.T) {
	empty := readerFunc(func([]byte) (int, error) { return 0, nil })
	if _, err := NewReader(empty, FromMeter).Next(); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("error %v, want io.ErrNoProgress", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestReaderLimit(t *testing.T) {
	data := bytes.Repeat([]byte{0x1B}, MaxFrame-minFrame) // stuffing does not count
	exact := AppendFrame(nil, FromMeter, HeatMeter, CmdGetRegister, data)
	f, err := NewReader(bytes.NewReader(exact), FromMeter).Next()
	if err != nil || !bytes.Equal(f.Data, data) {
		t.Fatalf("a frame of %d bytes: error %v", MaxFrame, err)
	}

	above := AppendFrame(nil, FromMeter, HeatMeter, CmdGetRegister, append(data, 1))
	r := NewReader(bytes.NewReader(append(above, unhex(t, goodAnswer)...)), FromMeter)
	if _, err = r.Next(); !errors.Is(err, ErrTooLong) || !errors.Is(err, ErrCodec) {
		t.Errorf("a frame of %d bytes: error %v, want ErrTooLong", MaxFrame+1, err)
	}
	if f, err = r.Next(); err != nil || f.Command != CmdGetSerialNo {
		t.Errorf("after it: %v, error %v", f, err)
	}
}

// Whatever comes, a Reader stays as large as it is.
func TestReaderMemory(t *testing.T) {
	endless := readerFunc(func(p []byte) (int, error) {
		for i := range p {
			p[i] = 0x55
		}
		return len(p), nil
	})
	r := NewReader(io.MultiReader(bytes.NewReader([]byte{0x40}), io.LimitReader(endless, 1<<22)), FromMeter)
	frame := cap(r.frame)
	if _, err := r.Next(); !errors.Is(err, ErrTooLong) {
		t.Fatalf("error %v, want ErrTooLong", err)
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Fatalf("error %v, want io.EOF", err)
	}
	if cap(r.frame) != frame || frame > MaxFrame {
		t.Errorf("room for %d bytes, was %d", cap(r.frame), frame)
	}
	if r.Skipped() != 1<<22+1 {
		t.Errorf("skipped %d bytes", r.Skipped())
	}
}

func TestReaderReset(t *testing.T) {
	var stream bytes.Buffer
	r := NewReader(&stream, FromMeter)
	stream.Write(unhex(t, goodAnswer+"40 3F 1B"))
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	r.Reset()
	stream.Write(unhex(t, "E4 0D"+goodAnswer))
	if f, err := r.Next(); err != nil || f.Command != CmdGetSerialNo {
		t.Errorf("%v, error %v", f, err)
	}
	if r.Skipped() != 5 || r.InFrame() {
		t.Errorf("skipped %d bytes, in a frame: %t", r.Skipped(), r.InFrame())
	}
}

// Good frames among random noise and damage are all found when no noise precedes
// them that could have begun a frame, and no bad frame passes.
func TestReaderRandomStreams(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	for range 300 {
		var stream []byte
		var want []string
		for range 1 + rng.IntN(8) {
			for range rng.IntN(20) { // noise that begins no frame
				if b := byte(rng.Uint32()); b != byte(FromMeter) {
					stream = append(stream, b)
				}
			}
			data := randomBytes(rng, rng.IntN(40))
			f := AppendFrame(nil, FromMeter, HeatMeter, Command(rng.Uint32()), data)
			switch rng.IntN(4) {
			case 0: // one wrong byte
				f[1+rng.IntN(len(f)-2)] ^= byte(1 + rng.IntN(255))
			case 1: // its end is lost
				f = f[:1+rng.IntN(len(f)-2)]
			default:
				g, err := DecodeFrame(f)
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, fmt.Sprintf("%02X % X", byte(g.Command), g.Data))
			}
			stream = append(stream, f...)
			if f[len(f)-1] != Stop { // what follows would complete it
				stream = append(stream, Stop)
			}
		}
		var got []string
		for _, e := range events(t, NewReader(&piecesReader{bytes.NewReader(stream), rng, true}, FromMeter)) {
			if e[0] != 'k' {
				got = append(got, e)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("% X:\n%q, want\n%q", stream, got, want)
		}
	}
}

func TestDirectionString(t *testing.T) {
	for d, want := range map[Direction]string{ToMeter: "to_meter", FromMeter: "from_meter", 0x07: "direction 07"} {
		if got := d.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
