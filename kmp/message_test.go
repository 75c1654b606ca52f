package kmp

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// messageCases drive encode and decode of messages, data being what follows the command.
var messageCases = []struct {
	name string
	dir  Direction
	m    Message
	cmd  Command
	data string
}{
	{"GetType request", ToMeter, &GetTypeRequest{}, CmdGetType, ""},
	{"GetType answer", FromMeter, &GetTypeAnswer{0x0004, Revision{6, 1}}, CmdGetType, "00 04 06 01"},
	{"GetSerialNo request", ToMeter, &GetSerialNoRequest{}, CmdGetSerialNo, ""},
	{"GetSerialNo answer", FromMeter, &GetSerialNoAnswer{6906867}, CmdGetSerialNo, "00 69 63 F3"},
	{"GetSerialNo answer, greatest", FromMeter, &GetSerialNoAnswer{1<<32 - 1}, CmdGetSerialNo, "FF FF FF FF"},
	{"GetRegister request", ToMeter, &GetRegisterRequest{[]uint16{60}}, CmdGetRegister, "01 00 3C"},
	{"GetRegister request of 8", ToMeter, &GetRegisterRequest{[]uint16{0, 1, 63, 128, 1004, 65535, 6, 13}}, CmdGetRegister, "08 00 00 00 01 00 3F 00 80 03 EC FF FF 00 06 00 0D"},
	{"GetRegister answer", FromMeter, &GetRegisterAnswer{[]Register{{86, UnitCelsius, 0x42, []byte{0x14, 0xF5}}}}, CmdGetRegister, "00 56 25 02 42 14 F5"},
	{"GetRegister answer of several widths", FromMeter, &GetRegisterAnswer{[]Register{
		{74, UnitLitrePerH, 0, []byte{0, 5}},
		{60, UnitMWh, 0x43, []byte{0, 0, 0xD9, 0x60}},
		{348, UnitDSTDateTime, 0, []byte{0, 0x18, 0x0C, 0x1F, 0, 0, 4}},
	}}, CmdGetRegister, "00 4A 29 02 00 00 05  00 3C 03 04 43 00 00 D9 60  01 5C 4F 07 00 00 18 0C 1F 00 00 04"},
	{"SetClock request", ToMeter, &SetClockRequest{Date{2026, 11, 21}, Clock{7, 0, 1}}, CmdSetClock, "00 03 FC 01 00 01 11 71"},
	{"PutRegister request", ToMeter, &PutRegisterRequest{0x8040, Register{84, UnitCubicMetre, 0x42, []byte{0, 0, 4, 0xE2}}}, CmdPutRegister, "80 40 00 54 28 04 42 00 00 04 E2"},
	{"GetEventStatus request", ToMeter, &GetEventStatusRequest{}, CmdGetEventStatus, ""},
	{"GetEventStatus answer", FromMeter, &GetEventStatusAnswer{EventStatus{1, 2, EventIntervalLog | EventRTCLog, 4}}, CmdGetEventStatus, "01 02 03 04"},
	{"ClearEventStatus request", ToMeter, &ClearEventStatusRequest{EventStatus{2: EventRTCLog}, EventStatus{0x80, 0, 0, 1}}, CmdClearEventStatus, "00 00 02 00 80 00 00 01"},
	{"ClearEventStatus answer", FromMeter, &ClearEventStatusAnswer{EventStatus{0, 0, 1, 0}}, CmdClearEventStatus, "00 00 01 00"},
	{"log configuration request", ToMeter, &LogConfigRequest{LogHour}, CmdLogger, "05 05"},
	{"log configuration answer", FromMeter, &LogConfigAnswer{LogConfig{
		Log: LogMonth, TargetDates: [2]MonthDay{{0, 1}, {6, 15}}, Formats: [4]byte{1, 2, 3, 4}, MaxRecords: 5, Interval: 60, Depth: 1400, Registers: []uint16{60, 1003},
	}}, CmdLogger, "05 03  01 00 01  02 06 0F  03 05  04 3C  05 78  02 00 3C 03 EB"},
	{"log by id request", ToMeter, &LogByIDRequest{LogDay, 0x01020304, 0xFFFF, []uint16{60}}, CmdLogger, "06 04 01 02 03 04 FF FF 01 00 3C"},
	{"log by id answer", FromMeter, &LogByIDAnswer{LogPage{LogDay, 2, 9, LogMore, []LogRow{
		{2, []Register{{60, UnitMWh, 0x43, []byte{1, 2}}, {1002, UnitClock, 0, []byte{3}}}},
		{1, []Register{{60, UnitMWh, 0x43, []byte{4, 5}}, {1002, UnitClock, 0, []byte{6}}}},
	}}}, CmdLogger, "06 04 00 02 02 00 00 00 02 00 00 00 09 00 10  00 3C 03 02 43 01 02  03 EA 2F 01 00 03  04 05 06"},
	{"last of a log request", ToMeter, &LogLastRequest{LogMinute, 0, 24, []uint16{60, 68, 1003, 1002, 348, 99, 86, 87}}, CmdLogger, "07 06 00 00 00 18 08 00 3C 00 44 03 EB 03 EA 01 5C 00 63 00 56 00 57"},
	{"last of a log answer", FromMeter, &LogLastAnswer{LogPage{LogInfoCodes, 0, 0, LogAtNewest | LogAtOldest, []LogRow{{0, []Register{{99, UnitNone, 0, []byte{8}}}}}}}, CmdLogger, "07 01 00 01 01 00 00 00 00 00 00 00 00 00 C0  00 63 00 01 00 08"},
	{"GetLogTimePresent request", ToMeter, &LogRecordsRequest{Kind: CmdGetLogTimePresent, LogID: 3, IDs: []uint16{1}, Records: 4, MaxLength: 200, Time: LogTime{Date{2099, 12, 31}, Clock{23, 59, 58}, 4, 2}}, CmdGetLogTimePresent, "03 01 00 01 04 C8 63 0C 1F 17 3B 3A 04 02"},
	{"GetLogTimePast request", ToMeter, &LogRecordsRequest{Kind: CmdGetLogTimePast, LogID: 1, IDs: []uint16{60, 68}, Records: 3, MaxLength: 128, Time: LogTime{Date: Date{2007, 5, 24}, Clock: Clock{10, 30, 0}}, Record: 0x0102}, CmdGetLogTimePast, "01 02 00 3C 00 44 03 80 07 05 18 0A 1E 00 00 00 01 02"},
	{"GetLogTimePast answer", FromMeter, &LogRecordsAnswer{CmdGetLogTimePast, LogRecords{LogID: 1, LastRead: 0x10F2, Newest: 0x1102, Info: RecordsEnd, Rows: []LogRow{
		{1, []Register{{60, UnitGJ, 0, []byte{7}}}},
		{0, []Register{{60, UnitGJ, 0, []byte{6}}}},
	}}}, CmdGetLogTimePast, "01 01  00 01 00 3C 08 01 00 07  00 00 06  10 F2 11 02 10"},
	{"GetLogIDPresent answer of another form", FromMeter, &LogRecordsAnswer{CmdGetLogIDPresent, LogRecords{Info: RecordsOutOfRange, Rest: []byte{1}}}, CmdGetLogIDPresent, "01 04"},
}

func TestMessages(t *testing.T) {
	for _, tt := range messageCases {
		t.Run(tt.name, func(t *testing.T) {
			data := unhex(t, tt.data)
			if tt.m.Command() != tt.cmd {
				t.Errorf("command %s, want %s", tt.m.Command(), tt.cmd)
			}
			if got, err := tt.m.AppendData([]byte("x")); err != nil || !bytes.Equal(got, append([]byte("x"), data...)) {
				t.Errorf("AppendData: % X (error %v), want % X", got, err, data)
			}
			wire, err := AppendMessage([]byte("x"), tt.dir, LoggerBase, tt.m)
			if want := AppendFrame([]byte("x"), tt.dir, LoggerBase, tt.cmd, data); err != nil || !bytes.Equal(wire, want) {
				t.Errorf("AppendMessage: % X (error %v), want % X", wire, err, want)
			}
			m, err := DecodeMessage(Frame{tt.dir, LoggerBase, tt.cmd, data})
			if err != nil || !reflect.DeepEqual(m, tt.m) {
				t.Errorf("DecodeMessage: %+v (error %v), want %+v", m, err, tt.m)
			}
			// Every message leads to its counterpart and back.
			switch m := tt.m.(type) {
			case Request:
				if back := m.NewAnswer().NewRequest(); reflect.TypeOf(back) != reflect.TypeOf(m) {
					t.Errorf("the answer's request is %T, want %T", back, m)
				}
			case Answer:
				if back := m.NewRequest().NewAnswer(); reflect.TypeOf(back) != reflect.TypeOf(m) {
					t.Errorf("the request's answer is %T, want %T", back, m)
				}
			}
		})
	}
}

func TestEmptyRegisterAnswer(t *testing.T) {
	m, err := DecodeMessage(Frame{FromMeter, HeatMeter, CmdGetRegister, nil})
	if err != nil || len(m.(*GetRegisterAnswer).Registers) != 0 {
		t.Errorf("%v (error %v), want no registers", m, err)
	}
	if data, err := m.AppendData(nil); err != nil || len(data) != 0 {
		t.Errorf("% X (error %v), want no data", data, err)
	}
}

func TestDecodeMessageErrors(t *testing.T) {
	at := func(offset int, err error) error { return &FrameError{Application, offset, err} }
	for _, tt := range []struct {
		name string
		dir  Direction
		cmd  Command
		data string
		want error
	}{
		{"GetEventStatus request with data", ToMeter, CmdGetEventStatus, "00", at(2, &LengthError{"GetEventStatus request", 0, 1, false})},
		{"GetEventStatus answer, short", FromMeter, CmdGetEventStatus, "000001", at(5, &LengthError{"GetEventStatus answer", 4, 3, false})},
		{"ClearEventStatus request, short", ToMeter, CmdClearEventStatus, "00000100 000000", at(9, &LengthError{"ClearEventStatus request", 8, 7, false})},
		{"ClearEventStatus answer, long", FromMeter, CmdClearEventStatus, "00000100 00", at(6, &LengthError{"ClearEventStatus answer", 4, 5, false})},
		{"Logger request without data", ToMeter, CmdLogger, "", at(2, &LengthError{"Logger message", 2, 0, true})},
		{"Logger answer without data", FromMeter, CmdLogger, "", at(2, &LengthError{"Logger message", 2, 0, true})},
		{"Logger sub-command by name", ToMeter, CmdLogger, "08 05", at(2, fmt.Errorf("%w: Logger GetLogID", ErrUnknownLayout))},
		{"Logger sub-command without a name", FromMeter, CmdLogger, "FF 05", at(2, fmt.Errorf("%w: Logger sub-command FF", ErrUnknownCommand))},
		{"log configuration request, short", ToMeter, CmdLogger, "05", at(3, &LengthError{"log configuration request", 2, 1, false})},
		{"log configuration, short", FromMeter, CmdLogger, "05 02 010101 010000 0100 0100 0014", at(16, &LengthError{"log configuration", 15, 14, true})},
		{"log configuration, an id too few", FromMeter, CmdLogger, "05 02 010101 010000 0100 0100 0014 02 003C", at(19, &LengthError{"log configuration", 19, 17, false})},
		{"log by id request, short", ToMeter, CmdLogger, "06 02 00000002 0002", at(10, &LengthError{"log request", 9, 8, true})},
		{"log by id request of 0", ToMeter, CmdLogger, "06 02 00000002 0002 00", at(10, &RangeError{"number of registers", 0, 1, 8})},
		{"last of a log request of 255", ToMeter, CmdLogger, "07 07 FFFF 0001 FF 03EA", at(8, &RangeError{"number of registers", 255, 1, 8})},
		{"last of a log request, id too many", ToMeter, CmdLogger, "07 07 FFFF 0001 01 03EA 00", at(11, &LengthError{"log request", 9, 10, false})},
		{"log rows, short", FromMeter, CmdLogger, "06 02 0002 01 00000002 00000002 00", at(16, &LengthError{"log rows", 15, 14, true})},
		{"log rows of no registers", FromMeter, CmdLogger, "06 02 0002 00 00000002 00000002 0000", at(6, &RangeError{"number of registers", 0, 1, 8})},
		{"log rows of 9 registers", FromMeter, CmdLogger, "06 02 0002 09 00000002 00000002 0000", at(6, &RangeError{"number of registers", 9, 1, 8})},
		{"log rows below id 0", FromMeter, CmdLogger, "06 02 0004 01 00000002 00000002 0000 03EB300100 01 02 03 04", at(7, &RangeError{"id of the first row", 2, 3, 1<<32 - 1})},
		{"log rows, half a register", FromMeter, CmdLogger, "06 02 0002 01 00000002 00000002 0000 03EB30", at(20, &LengthError{"register", 5, 3, true})},
		{"log rows, half a row", FromMeter, CmdLogger, "06 02 0002 01 00000002 00000002 0000 03EB300200 0102 03", at(25, &LengthError{"log rows", 24, 23, false})},
		{"log rows, one too many", FromMeter, CmdLogger, "06 02 0001 01 00000002 00000002 0000 03EB300100 01 02", at(23, &LengthError{"log rows", 21, 22, false})},
		{"log rows without bytes", FromMeter, CmdLogger, "06 02 0001 01 00000002 00000002 0000 03EB300000", at(22, &LengthError{"row", 1, 0, true})},
		{"log without rows, but data", FromMeter, CmdLogger, "06 02 0000 01 00000002 00000002 0002 03", at(17, &LengthError{"log without rows", 15, 16, false})},
		{"GetType request with data", ToMeter, CmdGetType, "00", at(2, &LengthError{"GetType request", 0, 1, false})},
		{"GetType answer without data", FromMeter, CmdGetType, "", at(2, &LengthError{"GetType answer", 4, 0, false})},
		{"GetType answer, short", FromMeter, CmdGetType, "00 04 06", at(5, &LengthError{"GetType answer", 4, 3, false})},
		{"GetType answer, long", FromMeter, CmdGetType, "00 04 06 01 00", at(6, &LengthError{"GetType answer", 4, 5, false})},
		{"GetSerialNo request with data", ToMeter, CmdGetSerialNo, "00 00", at(2, &LengthError{"GetSerialNo request", 0, 2, false})},
		{"GetSerialNo answer, short", FromMeter, CmdGetSerialNo, "00 69 63", at(5, &LengthError{"GetSerialNo answer", 4, 3, false})},
		{"GetSerialNo answer, long", FromMeter, CmdGetSerialNo, "00 69 63 F3 00", at(6, &LengthError{"GetSerialNo answer", 4, 5, false})},
		{"GetRegister request without data", ToMeter, CmdGetRegister, "", at(2, &LengthError{"GetRegister request", 1, 0, true})},
		{"GetRegister request of 0", ToMeter, CmdGetRegister, "00", at(2, &RangeError{"number of registers", 0, 1, 8})},
		{"GetRegister request of 9", ToMeter, CmdGetRegister, "09" + strings.Repeat("0001", 9), at(2, &RangeError{"number of registers", 9, 1, 8})},
		{"GetRegister request, half an id", ToMeter, CmdGetRegister, "01 00", at(4, &LengthError{"GetRegister request", 3, 2, false})},
		{"GetRegister request, id too many", ToMeter, CmdGetRegister, "01 00 3C 00 3D", at(5, &LengthError{"GetRegister request", 3, 5, false})},
		{"GetRegister answer, half a header", FromMeter, CmdGetRegister, "00 3C 03 04", at(6, &LengthError{"register", 5, 4, true})},
		{"GetRegister answer, no value", FromMeter, CmdGetRegister, "00 3C 03 04 43", at(7, &LengthError{"register", 9, 5, false})},
		{"GetRegister answer, half a value", FromMeter, CmdGetRegister, "00 3C 03 04 43 00 00", at(9, &LengthError{"register", 9, 7, false})},
		{"GetRegister answer, second one cut", FromMeter, CmdGetRegister, "00 4A 29 02 00 00 05 00 3C 03 FF 43 00", at(15, &LengthError{"register", 260, 6, false})},
		{"unknown command", FromMeter, 0xFF, "", at(1, fmt.Errorf("%w: %s", ErrUnknownCommand, Command(0xFF)))},
		{"command with a name only", ToMeter, 0x92, "00", at(1, fmt.Errorf("%w: %s", ErrUnknownCommand, Command(0x92)))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := DecodeMessage(Frame{tt.dir, HeatMeter, tt.cmd, unhex(t, tt.data)})
			if m != nil || !reflect.DeepEqual(err, tt.want) {
				t.Errorf("%v, error %v; want no message, %v", m, err, tt.want)
			}
			if !errors.Is(err, ErrCodec) {
				t.Errorf("%v does not match ErrCodec", err)
			}
		})
	}
	for _, f := range []func() error{
		func() error { _, err := NewRequest(0x97); return err },
		func() error { _, err := NewAnswer(0x97); return err },
	} {
		if err := f(); !errors.Is(err, ErrUnknownCommand) || !strings.Contains(err.Error(), "SetCutOffState") {
			t.Errorf("error %v, want ErrUnknownCommand that names SetCutOffState", err)
		}
	}
}

func TestAppendMessageErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		m    Message
		want error
	}{
		{"no registers asked", &GetRegisterRequest{}, &RangeError{"number of registers", 0, 1, 8}},
		{"9 registers asked", &GetRegisterRequest{make([]uint16, 9)}, &RangeError{"number of registers", 9, 1, 8}},
		{"9 registers answered", &GetRegisterAnswer{make([]Register, 9)}, &RangeError{"number of registers", 9, 0, 8}},
		{"a value without bytes", &GetRegisterAnswer{[]Register{{ID: 60}}}, &LengthError{"register 60", 1, 0, true}},
		{"a value of 256 bytes", &GetRegisterAnswer{[]Register{{ID: 60, Raw: make([]byte, 256)}}}, &LengthError{"register 60", 255, 256, false}},
		{"more than a frame", longMessage{}, &RangeError{"length of the frame", MaxFrame + 1, 4, MaxFrame}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := AppendMessage([]byte("abc"), ToMeter, HeatMeter, tt.m)
			if string(got) != "abc" || !reflect.DeepEqual(err, tt.want) || !errors.Is(err, ErrCodec) {
				t.Errorf("%q, error %v; want %v", got, err, tt.want)
			}
		})
	}
}

// longMessage is of a kind that a program may add: its data just does not fit.
type longMessage struct{ Message }

func (longMessage) Command() Command { return 0xB8 }

func (longMessage) AppendData(dst []byte) ([]byte, error) {
	return append(dst, make([]byte, MaxFrame-minFrame+1)...), nil
}

// The largest answer that the format allows fits in a frame.
func TestLargestAnswer(t *testing.T) {
	var want GetRegisterAnswer
	for i := range MaxRegisters {
		want.Registers = append(want.Registers, Register{uint16(i), UnitNumber, 0, bytes.Repeat([]byte{0x80}, 255)})
	}
	wire, err := AppendMessage(nil, FromMeter, HeatMeter, &want)
	if err != nil {
		t.Fatal(err)
	}
	f, err := NewReader(bytes.NewReader(wire), FromMeter).Next()
	if err != nil {
		t.Fatal(err)
	}
	if m, err := DecodeMessage(f); err != nil || !reflect.DeepEqual(m, &want) {
		t.Errorf("%v (error %v)", m, err)
	}
}

func TestRegisterAnswerRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(17, 18))
	for range 2000 {
		want := &GetRegisterAnswer{}
		for range 1 + rng.IntN(MaxRegisters) {
			want.Registers = append(want.Registers, Register{uint16(rng.Uint32()), Unit(rng.Uint32()), byte(rng.Uint32()), randomBytes(rng, 1+rng.IntN(16))})
		}
		wire, err := AppendMessage(nil, FromMeter, HeatMeter, want)
		if err != nil {
			t.Fatal(err)
		}
		f, err := DecodeFrame(wire)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeMessage(f); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%v (error %v), want %v", got, err, want)
		}
	}
}

// Decoding into a message that was used before leaves nothing of it.
func TestDecodeDataReuse(t *testing.T) {
	var a GetRegisterAnswer
	var q GetRegisterRequest
	for _, n := range []int{8, 1, 0, 3} {
		var data []byte
		for i := range n {
			data = append(data, 0, byte(i), byte(UnitNumber), 1, 0, byte(i))
		}
		if err := a.DecodeData(data); err != nil || len(a.Registers) != n {
			t.Errorf("%d registers (error %v), want %d", len(a.Registers), err, n)
		}
		if n == 0 {
			continue
		}
		ids := append([]byte{byte(n)}, make([]byte, 2*n)...)
		if err := q.DecodeData(ids); err != nil || len(q.IDs) != n {
			t.Errorf("%d ids (error %v), want %d", len(q.IDs), err, n)
		}
	}
	// What a caller appends to one value does not run into the next register.
	if err := a.DecodeData(unhex(t, "00 01 33 01 00 AA 00 02 33 01 00 BB")); err != nil {
		t.Fatal(err)
	}
	_ = append(a.Registers[0].Raw, 0xFF)
	if a.Registers[1].ID != 2 {
		t.Error("an append to one value changed the next register")
	}
}

// What a caller appends to one value must not reach the next.
func TestDecodedValuesAreApart(t *testing.T) {
	data := unhex(t, "00 3C 03 02 43 01 02 00 44 28 02 42 03 04")
	var a GetRegisterAnswer
	if err := a.DecodeData(data); err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(data)
	_ = append(a.Registers[0].Raw, 0xAA)
	if !bytes.Equal(data, want) {
		t.Errorf("the data is % X, was % X", data, want)
	}
}

func TestNewRegister(t *testing.T) {
	for _, tt := range []struct {
		text  string
		width int
		siEx  byte
		raw   string
	}{
		{"53.65", 2, 0x42, "14 F5"},
		{"-53.65", 4, 0xC2, "00 00 14 F5"},
		{"0", 0, 0, "00"},
		{"15085488", 10, 0, "00 00 00 00 00 00 00 E6 2F B0"},
		{"7040", 0, 0, "1B 80"},
	} {
		r, err := NewRegister(80, UnitKW, number(t, tt.text), tt.width)
		if want := (Register{80, UnitKW, tt.siEx, unhex(t, tt.raw)}); err != nil || !reflect.DeepEqual(r, want) {
			t.Errorf("%s in %d bytes: %v (error %v), want %v", tt.text, tt.width, r, err, want)
		}
		if d, err := r.Decimal(); err != nil || d != number(t, tt.text) {
			t.Errorf("%s: decoded %s (error %v)", tt.text, d, err)
		}
	}
	var long *LengthError
	if _, err := NewRegister(80, UnitKW, number(t, "65536"), 2); !errors.As(err, &long) || err.Error() != "kmp: register 80: mantissa of 65536 has 3 bytes, should have 2" {
		t.Errorf("error %v, want a *LengthError", err)
	}
	for _, width := range []int{-1, 256} {
		var out *RangeError
		if _, err := NewRegister(80, UnitKW, Decimal{}, width); !errors.As(err, &out) {
			t.Errorf("width %d: error %v, want a *RangeError", width, err)
		}
	}
	if _, err := (Register{ID: 80}).Decimal(); !errors.As(err, &long) || err.Error() != "kmp: register 80 has 0 bytes, should have at least 1" {
		t.Errorf("no bytes: error %v, want a *LengthError", err)
	}
	// A register is a number for those who ask, whatever its unit.
	if d, err := (Register{Unit: UnitDate, Raw: unhex(t, "00 03 5B D0")}).Decimal(); err != nil || d.String() != "220112" {
		t.Errorf("%s (error %v), want 220112", d, err)
	}
}

func TestCommandString(t *testing.T) {
	for c, want := range map[Command]string{
		CmdGetType: "GetType", CmdGetSerialNo: "GetSerialNo", CmdGetRegister: "GetRegister", 0x09: "SetClock", 0xA0: "GetLogTimePresent", 0xB8: "Logger", 0xFF: "command FF",
	} {
		if got := c.String(); got != want {
			t.Errorf("%02X: %q, want %q", byte(c), got, want)
		}
	}
}

func TestRevisionString(t *testing.T) {
	for r, want := range map[Revision]string{
		{}: "", {1, 0}: "A0", {6, 1}: "F1", {26, 9}: "Z9", {27, 1}: "AA1", {52, 1}: "AZ1", {53, 1}: "BA1", {255, 255}: "IU255", {0, 3}: "?3", {20, 1}: "T1",
	} {
		if got := r.String(); got != want {
			t.Errorf("%v: %q, want %q", [2]byte{r.Letter, r.Number}, got, want)
		}
	}
}
