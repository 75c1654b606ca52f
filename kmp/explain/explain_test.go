package explain

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"kmp2mqtt/kmp"
)

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	wire, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// lines are the lines behind direction, address and command.
func lines(e Explanation) string {
	var b strings.Builder
	for _, l := range e.Lines() {
		if l[0] != "direction" && l[0] != "address" && l[0] != "command" {
			b.WriteString(l[0] + ": " + l[1] + "\n")
		}
	}
	return b.String()
}

// frame makes a frame of a message.
func frame(t testing.TB, dir kmp.Direction, addr kmp.Address, m kmp.Message) []byte {
	t.Helper()
	wire, err := kmp.AppendMessage(nil, dir, addr, m)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// What the frames say that were captured or are printed in the document.
func TestFrame(t *testing.T) {
	tests := []struct{ name, wire, lines, json string }{
		{"set clock", "803F090001144A00027715774E0D", "time: 2007-07-30T16:15:57\n", `"command":"SetClock","time":"2007-07-30T16:15:57"}`},
		{"acknowledged", "06", "acknowledgement: 06\n", `"acknowledgement":true}`},
		{
			"configuration asked for", "803FB8050270EE0D", "sub-command: GetConfiguration (05)\nlog: year\n",
			`"command":"Logger","sub_command":"GetConfiguration","log":"year"}`,
		},
		{
			"rows asked for by id", "803FB81BF9020000000200020103EB75070D",
			"sub-command: GetLogIDPastAbs (06)\nlog: year\nfrom row: 2\nrows at most: 2\nregister 1003: date\n",
			`"log":"year","from":2,"entries":2,"registers":[{"id":1003,"name":"date","description":"Date of the meter's clock"}]}`,
		},
		{
			"rows", "403FB81BF902000201000000020000000200C003EB3004000003F8050003D0F5AA3A0D",
			"sub-command: GetLogIDPastAbs (06)\nlog: year\nfirst row: 2\nnewest row: 2\ninfo: newest, oldest\nrow 2: date 2026-01-01\nrow 1: date 2025-01-01\n",
			`"first":2,"newest":2,"info":["newest","oldest"],"rows":[{"id":2,"registers":[{"id":1003,"name":"date","description":"Date of the meter's clock","value":"2026-01-01","unit":""}]},{"id":1,`,
		},
		{
			"last rows asked for", "803FB80707FFFF00010103EAB85E0D",
			"sub-command: GetLogLastEntryPastAbs (07)\nlog: minute2\nrows before the newest: 65535\nrows at most: 1\nregister 1002: clock\n",
			`"log":"minute2","offset":65535,"entries":1,`,
		},
		{
			"a row that stands for none", "403FB807070001010000000000000000000103EA2F0400000000001F2F0D",
			"sub-command: GetLogLastEntryPastAbs (07)\nlog: minute2\nfirst row: 0\nnewest row: 0\ninfo: empty\n", `"info":["empty"],"rows":[]}`,
		},
		{
			"records asked for by time", "807FA00102003C0044031B7F0705180A1E000000AC1C0D",
			"log: 1\ntime: 2007-05-24T10:30:00\nrecords at most: 3\nbytes at most: 128\nregister 60: energy\nregister 68: volume\n",
			`"log_id":1,"time":"2007-05-24T10:30:00","records":3,"max_length":128,"registers":[{"id":60,`,
		},
		{"event status", "407F9B0000010079DB0D", "event status: 00 00 01 00, interval log not read\n", `"event_status":{"bytes":"00000100","words":["interval log not read"]}}`},
		{
			"event status cleared", "807F9C000001000000000095CC0D",
			"cleared unless new: 00 00 01 00, interval log not read\ncleared: 00 00 00 00\n",
			`"conditional":{"bytes":"00000100","words":["interval log not read"]},"unconditional":{"bytes":"00000000"}}`,
		},
	}
	for _, tt := range tests {
		e, err := Frame(unhex(t, tt.wire))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := lines(e); got != tt.lines {
			t.Errorf("%s:\n%swant\n%s", tt.name, got, tt.lines)
		}
		text, err := json.Marshal(e)
		if err != nil || !strings.Contains(string(text), tt.json) {
			t.Errorf("%s: %s, %v, want %s", tt.name, text, err, tt.json)
		}
	}
}

// Messages that no public capture has.
func TestFrameMade(t *testing.T) {
	energy := kmp.Register{ID: 60, Unit: kmp.UnitGJ, SiEx: 0x43, Raw: []byte{0x03, 0x78, 0x75}}
	noDate := kmp.Register{ID: 1003, Unit: kmp.UnitDate, Raw: []byte{0, 0, 0, 99}}
	long := kmp.LogRecords{Info: kmp.RecordsMaxLength, Rest: []byte{0xAB}}
	tests := []struct {
		name     string
		wire     []byte
		lines    string
		problems int
	}{
		{
			"put register", frame(t, kmp.ToMeter, kmp.HeatMeter, &kmp.PutRegisterRequest{Password: 1234, Register: energy}),
			"password: 1234\nregister 60: energy 227.445 GJ\n", 0,
		},
		{
			"a value that is none", frame(t, kmp.FromMeter, kmp.HeatMeter, &kmp.GetRegisterAnswer{Registers: []kmp.Register{noDate}}),
			"register 1003: date -\n", 1,
		},
		{
			"records asked for towards the past", frame(t, kmp.ToMeter, kmp.LoggerBase, &kmp.LogRecordsRequest{
				Kind: kmp.CmdGetLogTimePast, LogID: 1, IDs: []uint16{60}, Records: 3, MaxLength: 128, Record: 5,
				Time: kmp.LogTime{Date: kmp.Date{Year: 2026, Month: 2, Day: 28}, Clock: kmp.Clock{Hour: 7, Minute: 45, Second: 50}}, TimeReversed: true,
			}),
			"log: 1\ntime: 2026-02-28T07:45:50, last byte first\nrecords before: 5\nrecords at most: 3\nbytes at most: 128\nregister 60: energy\n", 0,
		},
		{
			"records of another form", frame(t, kmp.FromMeter, kmp.LoggerTop, &kmp.LogRecordsAnswer{Kind: kmp.CmdGetLogIDPresent, LogRecords: long}),
			"info: longest answer\nnot understood: AB\n", 0,
		},
		{
			"event status of another meter", frame(t, kmp.FromMeter, kmp.HeatMeter, &kmp.GetEventStatusAnswer{Status: kmp.EventStatus{0, 0, 3, 0}}),
			"event status: 00 00 03 00\n", 0,
		},
		{
			"event status of a logger", frame(t, kmp.FromMeter, kmp.LoggerBase, &kmp.ClearEventStatusAnswer{Status: kmp.EventStatus{0, 0, 3, 0}}),
			"event status: 00 00 03 00, interval log not read, clock log not read\n", 0,
		},
		{
			"configuration", frame(t, kmp.FromMeter, kmp.HeatMeter, &kmp.LogConfigAnswer{LogConfig: kmp.LogConfig{
				Log: kmp.LogMonth, TargetDates: [2]kmp.MonthDay{{Day: 1}, {}}, MaxRecords: 1, Interval: 2, Depth: 36, Registers: []uint16{60},
			}}),
			"sub-command: GetConfiguration (05)\nlog: month\ntarget dates: 00-01\nrows kept: 36\nrows per interval: 1\ninterval: 2\nformats: 00000000\nregister 60: energy\n", 0,
		},
	}
	for _, tt := range tests {
		e, err := Frame(tt.wire)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := lines(e); got != tt.lines || len(e.Problems) != tt.problems {
			t.Errorf("%s:\n%swant\n%sproblems %v", tt.name, got, tt.lines, e.Problems)
		}
	}
}

// Every frame of the collection is explained, or refused as kmp refuses it; what is
// explained is one JSON object.
func TestFrameAll(t *testing.T) {
	text, err := os.ReadFile("../testdata/frames.json")
	if err != nil {
		t.Fatal(err)
	}
	var frames []struct{ ID, Request, Response string }
	if err := json.Unmarshal(text, &frames); err != nil {
		t.Fatal(err)
	}
	explained := 0
	for _, f := range frames {
		for _, wire := range []string{f.Request, f.Response} {
			for _, part := range Split(unhex(t, wire)) {
				if check(t, part) {
					explained++
				}
			}
		}
	}
	if explained < len(frames) {
		t.Errorf("%d frames explained of %d exchanges", explained, len(frames))
	}
}

// check holds the explanation of bytes against what kmp makes of them.
func check(t *testing.T, wire []byte) bool {
	t.Helper()
	f, want := kmp.DecodeFrame(bytes.Clone(wire))
	if want == nil {
		if _, want = kmp.DecodeMessage(f); errors.Is(want, kmp.ErrUnknownCommand) {
			want = nil
		}
	} else if errors.Is(want, kmp.ErrAck) {
		want = nil
	}
	e, err := Frame(wire)
	if (err == nil) != (want == nil) {
		t.Errorf("% X: %v, want %v", wire, err, want)
	}
	if err != nil {
		return false
	}
	text, err := json.Marshal(e)
	var object map[string]any
	if err == nil {
		err = json.Unmarshal(text, &object)
	}
	if err != nil || object["direction"] == nil {
		t.Errorf("% X: %s: %v", wire, text, err)
	}
	for _, l := range e.Lines() {
		if len(l) != 2 || l[0] == "" {
			t.Errorf("% X: line %q", wire, l)
		}
	}
	return true
}

// A command or sub-command without a known layout keeps its bytes.
func TestFrameUnknown(t *testing.T) {
	for data, want := range map[string]string{
		"803F92ABCD":   "data: ABCD\n",
		"803FB8080501": "sub-command: GetLogID (08)\ndata: 080501\n",
		"803FB8FF":     "sub-command: sub-command FF (FF)\ndata: FF\n",
	} {
		body := unhex(t, data)
		wire := kmp.AppendFrame(nil, kmp.ToMeter, kmp.HeatMeter, kmp.Command(body[2]), body[3:])
		e, err := Frame(wire)
		if err != nil || lines(e) != want {
			t.Errorf("%s: %q, %v, want %q", data, lines(e), err, want)
		}
	}
}

func TestSplit(t *testing.T) {
	for wire, want := range map[string]string{
		"":                         "",
		"803F0235E90D0640":         "803F0235E90D 06 40",
		"06":                       "06",
		"0606":                     "06 06",
		"803F0235E90D403F0200000D": "803F0235E90D 403F0200000D",
	} {
		var got []string
		for _, part := range Split(unhex(t, wire)) {
			got = append(got, strings.ToUpper(hex.EncodeToString(part)))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %s, want %s", wire, got, want)
		}
	}
}

func FuzzFrame(f *testing.F) {
	for _, wire := range []string{
		"06", "803F0235E90D", "403FB81BF902000201000000020000000200C003EB3004000003F8050003D0F5AA3A0D",
		"807FA00102003C0044031B7F0705180A1E000000AC1C0D", "407F9B0000010079DB0D", "403F10",
	} {
		f.Add(unhex(f, wire))
	}
	f.Fuzz(func(t *testing.T, wire []byte) { check(t, wire) })
}
