package kmp

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"testing"
)

// goldenFrame is one entry of testdata/frames.json. What its "decoded" says in
// words stands in golden as values.
type goldenFrame struct {
	ID            string
	Source        string
	Request       string
	Response      string
	RequestCRCOK  *bool `json:"request_crc_ok"`
	ResponseCRCOK *bool `json:"response_crc_ok"`
}

func goldenFrames(t testing.TB) []goldenFrame {
	t.Helper()
	text, err := os.ReadFile("testdata/frames.json")
	if err != nil {
		t.Fatal(err)
	}
	var frames []goldenFrame
	if err := json.Unmarshal(text, &frames); err != nil {
		t.Fatal(err)
	}
	return frames
}

// What a golden frame is expected to be, besides a Message.
type (
	// goldenRegisters is a GetRegister answer, as the values that its registers decode to.
	goldenRegisters []goldenRegister
	goldenRegister  struct {
		id    uint16
		unit  Unit
		width int
		value Value
	}
	// goldenFrameOnly is a good frame of a command without messages.
	goldenFrameOnly struct {
		cmd  Command
		data string
	}
	// goldenMalformed is a good frame whose data is not what its command promises.
	goldenMalformed struct {
		data   string
		offset int
		err    error
	}
	// goldenError is a frame that must fail: why, where.
	goldenError struct {
		layer  Layer
		offset int
		err    error
	}
	// goldenAck is a bare acknowledgement.
	goldenAck struct{}
)

type goldenPair struct {
	addr              Address // 0 is HeatMeter
	request, response any     // nil: there is none
}

func number(t testing.TB, s string) Decimal {
	t.Helper()
	d, err := ParseDecimal(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func golden(t testing.TB) map[string]goldenPair {
	t.Helper()
	n := func(s string) Decimal { t.Helper(); return number(t, s) }
	ask := func(ids ...uint16) *GetRegisterRequest { return &GetRegisterRequest{ids} }
	one := func(id uint16, unit Unit, width int, v Value) goldenRegisters {
		return goldenRegisters{{id, unit, width, v}}
	}
	clock := &SetClockRequest{Date{2007, 7, 30}, Clock{16, 15, 57}}
	row := func(id uint32, energy, volume string) LogRow {
		return LogRow{id, []Register{{60, UnitGJ, 0, unhex(t, energy)}, {68, UnitLitre, 0, unhex(t, volume)}}}
	}
	records := LogRecords{LogID: 1, LastRead: 0x10F5, Newest: 0x1102, Rows: []LogRow{
		row(0x10F3, "FF068662", "E993DC05"), row(0x10F4, "B50A5C5E", "93E05047"), row(0x10F5, "CF065396", "F2584C96"),
	}}
	day := LogTime{Date: Date{2007, 5, 24}, Clock: Clock{10, 30, 0}}

	return map[string]goldenPair{
		"doc-gettype":            {0, &GetTypeRequest{}, &GetTypeAnswer{0x0004, Revision{6, 1}}},
		"doc-getserial":          {0, &GetSerialNoRequest{}, &GetSerialNoAnswer{19088743}},
		"doc-setclock":           {0, goldenError{DataLink, 10, &ChecksumError{0x774E, 0xC34A}}, goldenAck{}},
		"doc-setclock-corrected": {0, clock, goldenAck{}},
		"doc-getregister-80":     {0, ask(128), one(128, UnitKW, 4, n("19591204E17"))},

		"doc-getregister-80-misprint": {0, nil, goldenError{DataLink, 11, &ChecksumError{0x6303, 0xF38A}}},
		"pykmp-client-gettype-addr3a": {0x3A, &GetTypeRequest{}, &GetSerialNoAnswer{1234567}},

		"pykmp-docs-1002": {0, ask(1002), one(1002, UnitClock, 4, Clock{20, 2, 43})},
		"jkt-req-346-154": {0, ask(346, 154), nil},
		"jkt-1001":        {0, ask(1001), one(1001, UnitNumber, 4, n("0"))},
		"jkt-logcfg-year": {0, &LogConfigRequest{LogYear}, &LogConfigAnswer{LogConfig{
			Log: LogYear, TargetDates: [2]MonthDay{{1, 1}, {}}, Formats: [4]byte{1, 1, 1, 1}, Depth: 20,
			Registers: []uint16{
				60, 63, 97, 110, 64, 65, 362, 68, 84, 85, 369, 99, 123, 383, 124, 125, 384, 126, 127, 385, 128, 129, 386, 130, 1004, 175,
				94, 61, 62, 95, 96, 473, 474, 69, 224, 225, 72, 73, 515, 338, 348, 1003, 1002,
			},
		}}},
		"jkt-bad-cid-ff":       {0xFF, goldenFrameOnly{0xFF, ""}, goldenFrameOnly{0xFF, ""}},
		"jkt-bad-subcmd":       {0, goldenFrameOnly{0xB8, "FF02"}, nil},
		"jkt-bad-logger":       {0, &LogConfigRequest{0xFF}, nil},
		"jkt-bad-len-long":     {0, goldenMalformed{"0707FFFF00010103EA00", 11, &LengthError{What: "log request", Want: 9, Got: 10}}, nil},
		"jkt-bad-len-short":    {0, goldenError{Physical, 12, errUnstuffed}, nil},
		"jkt-stuffing-bug":     {0, nil, goldenError{DataLink, 11, &ChecksumError{0x8B0E, 0x0FC8}}},
		"ml-serial":            {0, nil, &GetSerialNoAnswer{6892850}},
		"ml-1004":              {0, nil, one(1004, UnitHour, 4, n("7127"))},
		"tasmota38-60":         {0, ask(60), one(60, UnitMWh, 4, n("55.006"))},
		"tasmota38-80":         {0, ask(80), one(80, UnitKW, 2, n("0.0"))},
		"tasmota38-86":         {0, ask(86), one(86, UnitCelsius, 2, n("53.65"))},
		"tasmota38-89":         {0, ask(89), one(89, UnitKelvin, 2, n("7.86"))},
		"tasmota38-74":         {0, ask(74), one(74, UnitLitrePerH, 2, n("0"))},
		"tasmota38-68":         {0, ask(68), one(68, UnitCubicMetre, 4, n("1875.56"))},
		"tasmota38-141":        {0, ask(141), one(141, UnitLitrePerH, 2, n("0"))},
		"tasmota38-139":        {0, ask(139), one(139, UnitLitrePerH, 2, n("245"))},
		"flowiq2200-68":        {0, ask(68), nil},
		"mc21-1002-req":        {0, ask(1002), nil},
		"mc21-99-req":          {0, ask(99), nil},
		"golles188-req8":       {0, ask(60, 63, 80, 86, 87, 89, 74, 68), nil},
		"golles-test-wrongcrc": {0, nil, goldenError{DataLink, 2, &ChecksumError{0x079A, 0xFFFF}}},
		"conpot-1054-req":      {0, ask(1054), nil},
		"conpot-1033-req":      {0, ask(1033), nil},
		"conpot-1":             {0, nil, one(1, UnitKWh, 4, n("139"))},
		"conpot-badcrc-1":      {0, goldenError{DataLink, 5, &ChecksumError{0x0CF1, 0x55A1}}, nil},
		"conpot-badcrc-2":      {0, goldenError{DataLink, 5, &ChecksumError{0x65C2, 0x65CF}}, nil},
		"conpot-old-1054":      {0, goldenError{DataLink, 5, &ChecksumError{0x7ABB, 0x55A1}}, nil},
		"web-serial-60-req":    {0, ask(60), nil},
		"empty-getregister":    {0, ask(0xFFFF), goldenRegisters{}},
		"stuff-trap-1B7F":      {0, nil, one(1004, UnitHour, 4, n("7039"))},
		"stuff-trap-1BE4":      {0, nil, one(1004, UnitHour, 4, n("7140"))},
		"k382-real-1058":       {0, ask(1058), one(1058, UnitASCII, 10, Text("070422JA83"))},
		"k382-real-1126":       {0, ask(1126), one(1126, UnitASCII, 13, Text("070422JA83486"))},
		"k382-real-1010":       {0, ask(1010), one(1010, UnitNumber, 10, n("15085488"))},
		"k382-real-1005":       {0, ask(1005), one(1005, UnitNumber, 4, n("53011401"))},

		"jkt-log-id-past-year": {0, &LogByIDRequest{LogYear, 2, 2, []uint16{1003}}, &LogByIDAnswer{LogPage{
			Log: LogYear, First: 2, Newest: 2, Info: LogAtNewest | LogAtOldest, Rows: []LogRow{
				{2, []Register{{1003, UnitDate, 0, unhex(t, "0003F805")}}},
				{1, []Register{{1003, UnitDate, 0, unhex(t, "0003D0F5")}}},
			},
		}}},
		"jkt-log-last-empty": {0, &LogLastRequest{LogMinute2, 0xFFFF, 1, []uint16{1002}}, &LogLastAnswer{LogPage{
			Log: LogMinute2, Info: LogEmpty, Rows: []LogRow{{0, []Register{{1002, UnitClock, 0, make([]byte, 4)}}}},
		}}},
		"tasmota38-74-60-123":     {0, ask(74, 60, 123), goldenRegisters{{74, UnitLitrePerH, 2, n("5")}, {60, UnitMWh, 4, n("55.648")}, {123, UnitDate, 4, Date{2022, 1, 12}}}},
		"tasmota38-74-68-123b":    {0, ask(74, 68, 123), goldenRegisters{{74, UnitLitrePerH, 2, n("231")}, {68, UnitCubicMetre, 4, n("1917.60")}, {123, UnitDate, 4, Date{2022, 1, 12}}}},
		"flowiq2200-a0-unstuffed": {0, goldenError{Physical, 8, errUnstuffed}, nil},
		"flowiq2200-a0-echo": {0, &LogRecordsRequest{
			Kind: CmdGetLogTimePresent, LogID: 1, IDs: []uint16{68}, Records: 12, MaxLength: 128, Time: LogTime{Date: Date{2023, 5, 9}, Clock: Clock{23, 45, 0}},
		}, nil},
		"doc-a0": {
			LoggerTop, &LogRecordsRequest{Kind: CmdGetLogTimePresent, LogID: 1, IDs: []uint16{60, 68}, Records: 3, MaxLength: 128, Time: day},
			&LogRecordsAnswer{CmdGetLogTimePresent, records},
		},
		"doc-a1": {
			LoggerTop, &LogRecordsRequest{Kind: CmdGetLogLastPresent, LogID: 1, IDs: []uint16{60, 68}, Records: 3, MaxLength: 128},
			&LogRecordsAnswer{CmdGetLogLastPresent, records},
		},
		"doc-a2": {
			LoggerTop, &LogRecordsRequest{Kind: CmdGetLogIDPresent, LogID: 1, IDs: []uint16{60, 68}, Records: 3, MaxLength: 128, Record: 0x10F3},
			&LogRecordsAnswer{CmdGetLogIDPresent, records},
		},
		"doc-9b": {LoggerTop, &GetEventStatusRequest{}, &GetEventStatusAnswer{EventStatus{2: EventIntervalLog}}},
		"doc-9c": {LoggerTop, &ClearEventStatusRequest{Conditional: EventStatus{2: EventIntervalLog}}, &GetEventStatusAnswer{}},
	}
}

// TestGolden decodes every collected frame to what stands beside it, or sees it
// fail as it should, and encodes it again to the same bytes.
func TestGolden(t *testing.T) {
	left := golden(t)
	for _, g := range goldenFrames(t) {
		t.Run(g.ID, func(t *testing.T) {
			want, known := left[g.ID]
			if !known {
				t.Fatal("no expectation stands for this frame, or it comes twice")
			}
			delete(left, g.ID)
			if want.addr == 0 {
				want.addr = HeatMeter
			}
			if g.Source == "" {
				t.Error("the frame has no source")
			}
			checkGolden(t, ToMeter, want.addr, g.Request, g.RequestCRCOK, want.request)
			checkGolden(t, FromMeter, want.addr, g.Response, g.ResponseCRCOK, want.response)
		})
	}
	for id := range left {
		t.Errorf("%s is expected and is not in frames.json", id)
	}
}

func checkGolden(t *testing.T, dir Direction, addr Address, text string, crcOK *bool, want any) {
	t.Helper()
	if text == "" || want == nil {
		if text != "" || want != nil {
			t.Errorf("%s: frame %q, expected %v", dir, text, want)
		}
		return
	}
	wire := unhex(t, text)
	f, err := DecodeFrame(wire)
	var sum *ChecksumError
	if crcOK != nil && *crcOK == errors.As(err, &sum) {
		t.Errorf("%s: CRC noted as right: %t; %v", dir, *crcOK, err)
	}

	switch want := want.(type) {
	case goldenAck:
		if !errors.Is(err, ErrAck) {
			t.Errorf("%s: error %v, want ErrAck", dir, err)
		}
		return
	case goldenError:
		if w := (&FrameError{want.layer, want.offset, want.err}); !reflect.DeepEqual(err, error(w)) {
			t.Errorf("%s: error %v, want %v", dir, err, w)
		}
		if !errors.Is(err, ErrCodec) {
			t.Errorf("%s: %v does not match ErrCodec", dir, err)
		}
		return
	}

	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	if f.Direction != dir || f.Address != addr {
		t.Errorf("%s: decoded as %s, address %02X, want address %02X", dir, f.Direction, byte(f.Address), byte(addr))
	}
	if again := AppendFrame(nil, f.Direction, f.Address, f.Command, f.Data); !bytes.Equal(again, wire) {
		t.Errorf("%s: frame encodes again as\n% X, want\n% X", dir, again, wire)
	}
	m, err := DecodeMessage(f)
	switch want := want.(type) {
	case goldenFrameOnly:
		if f.Command != want.cmd || !bytes.Equal(f.Data, unhex(t, want.data)) {
			t.Errorf("%s: %s, data % X, want %s, data %s", dir, f.Command, f.Data, want.cmd, want.data)
		}
		if !errors.Is(err, ErrUnknownCommand) || !errors.Is(err, ErrCodec) {
			t.Errorf("%s: error %v, want ErrUnknownCommand", dir, err)
		}
		return
	case goldenMalformed:
		if w := (&FrameError{Application, want.offset, want.err}); !bytes.Equal(f.Data, unhex(t, want.data)) || !reflect.DeepEqual(err, error(w)) {
			t.Errorf("%s: data % X, error %v, want %s, %v", dir, f.Data, err, want.data, w)
		}
		return
	case goldenRegisters:
		if err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		checkRegisters(t, m.(*GetRegisterAnswer).Registers, want)
	default:
		if err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		if !reflect.DeepEqual(m, want) {
			t.Errorf("%s: decoded\n%+v, want\n%+v", dir, m, want)
		}
	}
	if again, err := AppendMessage(nil, dir, addr, m); err != nil || !bytes.Equal(again, wire) {
		t.Errorf("%s: message encodes again as\n% X, want\n% X (error %v)", dir, again, wire, err)
	}
}

func checkRegisters(t *testing.T, got []Register, want goldenRegisters) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d registers, want %d", len(got), len(want))
	}
	for i, w := range want {
		r := got[i]
		v, err := r.Value()
		if err != nil || v != w.value || r.ID != w.id || r.Unit != w.unit || len(r.Raw) != w.width {
			t.Errorf("register %d, unit %02X, %d bytes: %v (error %v); want %d, %02X, %d: %v", r.ID, byte(r.Unit), len(r.Raw), v, err, w.id, byte(w.unit), w.width, w.value)
		}
	}
}

// TestGoldenContents checks what stands in golden frames beside or inside their
// messages.
func TestGoldenContents(t *testing.T) {
	frames := map[string]goldenFrame{}
	for _, g := range goldenFrames(t) {
		frames[g.ID] = g
	}
	data := func(wire string) []byte {
		t.Helper()
		f, err := DecodeFrame(unhex(t, wire))
		if err != nil {
			t.Fatal(err)
		}
		return f.Data
	}

	t.Run("revision", func(t *testing.T) {
		var a GetTypeAnswer
		if err := a.DecodeData(data(frames["doc-gettype"].Response)); err != nil || a.Revision.String() != "F1" {
			t.Errorf("revision %s (error %v), want F1", a.Revision, err)
		}
	})
	t.Run("shortened frame", func(t *testing.T) {
		_, link, err := DecodePhysical(nil, unhex(t, frames["jkt-stuffing-bug"].Response))
		if err != nil || !bytes.Contains(link, []byte{0x00, 0x0B, 0x1B, 0x7F}) {
			t.Errorf("data link bytes % X (error %v) lack 00 0B 1B 7F", link, err)
		}
	})
	t.Run("echo", func(t *testing.T) {
		r := NewReader(bytes.NewReader(unhex(t, frames["flowiq2200-a0-echo"].Request)), FromMeter)
		if f, err := r.Next(); err == nil {
			t.Errorf("an echo was taken for the answer %v", f)
		}
		if n := len(frames["flowiq2200-a0-echo"].Request) / 2; r.Skipped() != uint64(n) {
			t.Errorf("skipped %d bytes, want %d", r.Skipped(), n)
		}
	})
}
