package kmp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// hours is a page of an hour log that reads like a MULTICAL 603's: energy, volume, date
// and clock, each hour another megajoule and ten litres.
func hours(t testing.TB, first uint32, rows int) LogPage {
	t.Helper()
	page := LogPage{Log: LogHour, First: first, Newest: first, Info: LogAtNewest}
	at := time.Date(2026, 11, 21, 7, 0, 0, 0, time.UTC)
	for i := range rows {
		id := first - uint32(i)
		page.Rows = append(page.Rows, LogRow{id, []Register{
			must(NewRegister(60, UnitGJ, number(t, fmt.Sprintf("227.%03d", id)), 4))(t),
			must(NewRegister(68, UnitCubicMetre, number(t, fmt.Sprintf("1875.%02d", id%100)), 4))(t),
			must(NewDateRegister(1003, Date{at.Year(), int(at.Month()), at.Day()}))(t),
			must(NewClockRegister(1002, Clock{at.Hour(), 0, 0}))(t),
		}})
		at = at.Add(-time.Hour)
	}
	return page
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// A page is on the wire what its layout says, field by field: the format once, in the
// first row.
func TestLogPageLayout(t *testing.T) {
	page := LogPage{Log: LogHour, First: 188, Newest: 645, Info: LogMore, Rows: []LogRow{
		{188, []Register{{60, UnitGJ, 0x43, []byte{0, 3, 0x78, 0x75}}, {86, UnitCelsius, 0x42, []byte{0x14, 0xF5}}}},
		{187, []Register{{60, UnitGJ, 0x43, []byte{0, 3, 0x78, 0x70}}, {86, UnitCelsius, 0x42, []byte{0x14, 0xF0}}}},
		{186, []Register{{60, UnitGJ, 0x43, []byte{0, 3, 0x78, 0x6B}}, {86, UnitCelsius, 0x42, []byte{0x14, 0xEA}}}},
	}}
	rest := strings.Join([]string{
		"05",           // log
		"0003",         // rows
		"02",           // registers
		"000000BC",     // first id
		"00000285",     // newest id
		"0010",         // info
		"003C 08 0443", // id, unit, NoB, SiEx
		"00037875",
		"0056 25 0242",
		"14F5",
		"00037870", "14F0",
		"0003786B", "14EA",
	}, "")
	for _, tt := range []struct {
		sub  string
		m    Message
		next Message
	}{
		{"06", &LogByIDAnswer{page}, new(LogByIDAnswer)},
		{"07", &LogLastAnswer{page}, new(LogLastAnswer)},
	} {
		data := unhex(t, tt.sub+rest)
		if got, err := tt.m.AppendData(nil); err != nil || !bytes.Equal(got, data) {
			t.Errorf("AppendData:\n% X (error %v), want\n% X", got, err, data)
		}
		if err := tt.next.DecodeData(data); err != nil || !reflect.DeepEqual(tt.next, tt.m) {
			t.Errorf("DecodeData:\n%+v (error %v), want\n%+v", tt.next, err, tt.m)
		}
		if err := tt.next.DecodeData(append([]byte{5}, data[1:]...)); !errors.Is(err, ErrForeign) {
			t.Errorf("another sub-command: error %v, want ErrForeign", err)
		}
	}
}

// Rows have values of their own: what a caller appends to one changes no other.
func TestLogRowsAreApart(t *testing.T) {
	data := must((&LogByIDAnswer{hours(t, 500, 3)}).AppendData(nil))(t)
	var a LogByIDAnswer
	if err := a.DecodeData(data); err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(data)
	for _, row := range a.Rows {
		for _, r := range row.Registers {
			_ = append(r.Raw, 0xAA)
		}
		_ = append(row.Registers, Register{ID: 0xFFFF})
	}
	if !bytes.Equal(data, want) || !reflect.DeepEqual(a.LogPage, hours(t, 500, 3)) {
		t.Errorf("appending changed % X to % X", want, data)
	}
}

// Decoding into a message that was used before leaves nothing of it.
func TestLogPageReuse(t *testing.T) {
	var a LogByIDAnswer
	for _, rows := range []int{24, 1, 0, 5} {
		want := hours(t, 500, rows)
		if err := a.DecodeData(must((&LogByIDAnswer{want}).AppendData(nil))(t)); err != nil {
			t.Fatal(err)
		}
		if len(a.Rows) != rows || rows > 0 && !reflect.DeepEqual(a.LogPage, want) {
			t.Errorf("%d rows are %+v", rows, a.LogPage)
		}
	}
}

// A few bytes must not stand for many rows.
func TestLogPageIsBounded(t *testing.T) {
	for name, data := range map[string]string{
		"rows without registers":  "06 05 FFFF 00 0000FFFF 0000FFFF 0000",
		"registers without bytes": "06 05 FFFF 02 0000FFFF 0000FFFF 0000 003C080000 0044270000",
		"rows that are not there": "06 05 FFFF 01 0000FFFF 0000FFFF 0000 003C080100 01",
	} {
		data := unhex(t, data)
		var a LogByIDAnswer
		if err := a.DecodeData(data); !errors.Is(err, ErrCodec) || cap(a.Rows) != 0 {
			t.Errorf("%s: error %v, memory for %d rows", name, err, cap(a.Rows))
		}
	}
}

// A register without bytes, say one that the log has not, hides none of the others.
func TestLogRegisterWithoutBytes(t *testing.T) {
	var a LogByIDAnswer
	if err := a.DecodeData(unhex(t, "06 05 0002 02 00000009 00000009 0008 0001000000 003C080143 07 08")); err != nil {
		t.Fatal(err)
	}
	for i, want := range []byte{7, 8} {
		r := a.Rows[i].Registers
		if len(r) != 2 || len(r[0].Raw) != 0 || !bytes.Equal(r[1].Raw, []byte{want}) {
			t.Errorf("row %d: %v", i, r)
		}
	}
	if v, err := a.Rows[1].Registers[0].Value(); v != nil || err != nil {
		t.Errorf("value %v (error %v), want none", v, err)
	}
}

// An answer without rows may repeat the number of registers.
func TestLogPageWithoutRows(t *testing.T) {
	for _, n := range []string{"00", "03"} {
		var a LogLastAnswer
		err := a.DecodeData(unhex(t, "07 05 0000"+n+"00000000 00000000 0003"))
		if want := (LogPage{Log: LogHour, Info: LogEmpty | LogOutOfRange}); err != nil || !reflect.DeepEqual(a.LogPage, want) {
			t.Errorf("%+v (error %v), want %+v", a.LogPage, err, want)
		}
	}
}

func TestNewLogRequest(t *testing.T) {
	for sub, want := range map[LogCommand]Request{LogGetConfig: &LogConfigRequest{}, LogGetByID: &LogByIDRequest{}, LogGetLast: &LogLastRequest{}} {
		if got, err := NewLogRequest(sub); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v (error %v), want %v", sub, got, err, want)
		}
	}
	for sub, want := range map[LogCommand]struct {
		layout bool
		text   string
	}{
		LogGetID:         {true, "kmp: unknown command: no public layout: Logger GetLogID"},
		LogGetNextFormat: {true, "kmp: unknown command: no public layout: Logger GetLogNextFormat"},
		0xFF:             {false, "kmp: unknown command: Logger sub-command FF"},
	} {
		_, err := NewLogRequest(sub)
		if !errors.Is(err, ErrUnknownCommand) || errors.Is(err, ErrUnknownLayout) != want.layout || err.Error() != want.text {
			t.Errorf("%s: error %v, want %s", sub, err, want.text)
		}
		// Frames of them are refused the same way, whichever direction they have.
		for _, dir := range []Direction{ToMeter, FromMeter} {
			_, err := DecodeMessage(Frame{dir, HeatMeter, CmdLogger, []byte{byte(sub), 5}})
			if !errors.Is(err, ErrUnknownCommand) || errors.Is(err, ErrUnknownLayout) != want.layout || !errors.Is(err, ErrCodec) {
				t.Errorf("%s %s: error %v", dir, sub, err)
			}
		}
	}
	for _, f := range []func() error{
		func() error { _, err := NewRequest(CmdLogger); return err },
		func() error { _, err := NewAnswer(CmdLogger); return err },
	} {
		if err := f(); !errors.Is(err, ErrUnknownCommand) || err.Error() != "kmp: unknown command: Logger without a sub-command" {
			t.Errorf("error %v", err)
		}
	}
}

func TestLogNames(t *testing.T) {
	for c, want := range map[LogCommand]string{
		5: "GetConfiguration", 6: "GetLogIDPastAbs", 7: "GetLogLastEntryPastAbs", 8: "GetLogID", 9: "GetLogNextFormat", 10: "sub-command 0A",
	} {
		if c.String() != want {
			t.Errorf("sub-command %d is %s, want %s", byte(c), c, want)
		}
	}
	for l, want := range map[LogType]string{
		LogConfiguration: "config", LogInfoCodes: "info", LogYear: "year", LogMonth: "month", LogDay: "day", LogHour: "hour",
		LogMinute: "minute", LogMinute2: "minute2", LogDownload: "download", LogDownloadAudited: "audit",
	} {
		if l.String() != want {
			t.Errorf("log %d is %s, want %s", byte(l), l, want)
		}
		if got, ok := ParseLogType(want); !ok || got != l {
			t.Errorf("%s is log %d (%t), want %d", want, byte(got), ok, byte(l))
		}
	}
	if LogType(10).String() != "log 10" || LogType(255).String() != "log 255" {
		t.Error("names of logs without a name")
	}
	for _, name := range []string{"", "Hour", "log 10", "hours"} {
		if l, ok := ParseLogType(name); ok {
			t.Errorf("%q is %s", name, l)
		}
	}
	for i, want := range map[LogInfo]string{
		0: "", LogEmpty: "empty", LogAtNewest | LogAtOldest: "newest, oldest", LogMore | LogFormatChanged | LogCut: "more, format changed, registers cut",
		LogOutOfRange | LogIntervalChanged | LogUnsupported: "out of range, interval changed, unsupported register",
		LogMemoryError | LogInvalid | LogInternal | 0x8800:  "memory error, invalid request, internal error, bit 11, bit 15",
	} {
		if i.String() != want {
			t.Errorf("%04X is %q, want %q", uint16(i), i, want)
		}
	}
}

func TestLogAppendErrors(t *testing.T) {
	r := func(id uint16, unit Unit, siEx byte, raw ...byte) []Register {
		return []Register{{id, unit, siEx, raw}}
	}
	page := func(rows ...LogRow) *LogByIDAnswer { return &LogByIDAnswer{LogPage{First: 9, Rows: rows}} }
	first := LogRow{9, r(60, UnitGJ, 0x43, 1, 2)}
	for _, tt := range []struct {
		name string
		m    Message
		want error
	}{
		{"no registers asked by id", &LogByIDRequest{}, &RangeError{"number of registers", 0, 1, 8}},
		{"9 registers asked by id", &LogByIDRequest{IDs: make([]uint16, 9)}, &RangeError{"number of registers", 9, 1, 8}},
		{"no registers asked of the last", &LogLastRequest{}, &RangeError{"number of registers", 0, 1, 8}},
		{"9 registers asked of the last", &LogLastRequest{IDs: make([]uint16, 9)}, &RangeError{"number of registers", 9, 1, 8}},
		{"256 registers configured", &LogConfigAnswer{LogConfig{Registers: make([]uint16, 256)}}, &RangeError{"number of registers", 256, 0, 255}},
		{"a month of 256", &LogConfigAnswer{LogConfig{TargetDates: [2]MonthDay{{256, 1}}}}, &RangeError{"month", 256, 0, 255}},
		{"a day before the first", &LogConfigAnswer{LogConfig{TargetDates: [2]MonthDay{{}, {1, -1}}}}, &RangeError{"day", -1, 0, 255}},
		{"rows of no registers", page(LogRow{ID: 9}), &RangeError{"number of registers", 0, 1, 8}},
		{"rows of 9 registers", page(LogRow{9, make([]Register, 9)}), &RangeError{"number of registers", 9, 1, 8}},
		{"a first row of another id", page(LogRow{8, first.Registers}), &RangeError{"id of a row", 8, 9, 9}},
		{"a row left out", page(first, LogRow{7, first.Registers}), &RangeError{"id of a row", 7, 8, 8}},
		{"a value without bytes", page(LogRow{9, r(60, UnitGJ, 0)}), &LengthError{"register 60", 1, 0, true}},
		{"another unit", page(first, LogRow{8, r(60, UnitMWh, 0x43, 1, 2)}), &FormatError{first.Registers[0], Register{60, UnitMWh, 0x43, []byte{1, 2}}}},
		{"another SiEx", page(first, LogRow{8, r(60, UnitGJ, 0x42, 1, 2)}), &FormatError{first.Registers[0], Register{60, UnitGJ, 0x42, []byte{1, 2}}}},
		{"another register", page(first, LogRow{8, r(68, UnitGJ, 0x43, 1, 2)}), &FormatError{first.Registers[0], Register{68, UnitGJ, 0x43, []byte{1, 2}}}},
		{"another width", page(first, LogRow{8, r(60, UnitGJ, 0x43, 1)}), &LengthError{"register 60", 2, 1, false}},
		{"a register less", page(first, LogRow{8, nil}), &RangeError{"number of registers in a row", 0, 1, 1}},
		{"65536 rows", page(make([]LogRow, 65536)...), &RangeError{"number of rows", 65536, 0, 65535}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := AppendMessage([]byte("abc"), FromMeter, HeatMeter, tt.m)
			if string(got) != "abc" || !reflect.DeepEqual(err, tt.want) || !errors.Is(err, ErrCodec) {
				t.Errorf("%q, error %v; want %v", got, err, tt.want)
			}
		})
	}
	// A page that no frame holds.
	var outside *RangeError
	if _, err := AppendMessage(nil, FromMeter, HeatMeter, &LogLastAnswer{hours(t, 999, 260)}); !errors.As(err, &outside) || outside.Max != MaxFrame {
		t.Errorf("260 rows: error %v", err)
	}
	if _, err := AppendMessage(nil, FromMeter, HeatMeter, &LogLastAnswer{hours(t, 999, 250)}); err != nil {
		t.Errorf("250 rows: error %v", err)
	}
}

// Each request knows its answer from those to other requests.
func TestLogCheck(t *testing.T) {
	page := func(change func(*LogPage)) LogPage {
		p := LogPage{Log: LogHour, First: 100, Newest: 110, Rows: []LogRow{{100, []Register{{ID: 60}, {ID: 68}}}, {99, []Register{{ID: 60}, {ID: 68}}}}}
		change(&p)
		return p
	}
	byID := &LogByIDRequest{LogHour, 100, 2, []uint16{60, 68}}
	last := &LogLastRequest{LogHour, 10, 2, []uint16{60, 68}}
	for name, tt := range map[string]struct {
		change     func(*LogPage)
		byID, last bool // whether it is the answer
	}{
		"as asked":               {func(*LogPage) {}, true, true},
		"fewer rows":             {func(p *LogPage) { p.Rows = p.Rows[:1] }, true, true},
		"no rows":                {func(p *LogPage) { p.Rows = nil }, true, true},
		"more rows":              {func(p *LogPage) { p.Rows = append(p.Rows, p.Rows[0]) }, false, false},
		"another log":            {func(p *LogPage) { p.Log = LogDay }, false, false},
		"another register":       {func(p *LogPage) { p.Rows[0].Registers[1].ID = 74 }, false, false},
		"a register twice":       {func(p *LogPage) { p.Rows[0].Registers[1].ID = 60 }, false, false},
		"a register less":        {func(p *LogPage) { p.Rows[0].Registers = p.Rows[0].Registers[:1] }, true, true},
		"another first row":      {func(p *LogPage) { p.First = 99 }, false, false},
		"out of range":           {func(p *LogPage) { p.First, p.Info = 99, LogOutOfRange }, true, true},
		"empty":                  {func(p *LogPage) { p.First, p.Newest, p.Info = 0, 0, LogEmpty }, true, true},
		"from the newest on":     {func(p *LogPage) { p.First, p.Newest = 99, 99 }, true, false},
		"newest, but not beyond": {func(p *LogPage) { p.First = 110 }, false, false},
		"a row more since":       {func(p *LogPage) { p.Newest = 111 }, true, false},
		"the oldest alone":       {func(p *LogPage) { p.First, p.Info, p.Rows = 105, LogAtOldest, p.Rows[:1] }, false, true},
		"down to the oldest":     {func(p *LogPage) { p.First, p.Info = 105, LogAtOldest }, false, false},
		"older than the oldest":  {func(p *LogPage) { p.First, p.Info, p.Rows = 95, LogAtOldest, p.Rows[:1] }, false, false},
		"first above the newest": {func(p *LogPage) { p.First, p.Newest = 100, 98 }, true, false},
	} {
		p := page(tt.change)
		for _, c := range []struct {
			q    checker
			a    Answer
			want bool
		}{{byID, &LogByIDAnswer{p}, tt.byID}, {last, &LogLastAnswer{p}, tt.last}} {
			if err := c.q.check(c.a); (err == nil) != c.want || err != nil && !errors.Is(err, ErrForeign) {
				t.Errorf("%s: %T says %v, answer: %t", name, c.q, err, c.want)
			}
		}
	}
	config := &LogConfigRequest{LogHour}
	if err := config.check(&LogConfigAnswer{LogConfig{Log: LogHour}}); err != nil {
		t.Error(err)
	}
	if err := config.check(&LogConfigAnswer{LogConfig{Log: LogDay}}); !errors.Is(err, ErrForeign) {
		t.Errorf("another log's configuration: %v", err)
	}
	// An answer of the caller's own type is his to judge.
	for _, q := range []checker{byID, last, config, &LogRecordsRequest{}} {
		if err := q.check(new(GetTypeAnswer)); err != nil {
			t.Errorf("%T: %v", q, err)
		}
	}
}

// answerWith writes a message as an answer frame.
func answerWith(t testing.TB, w io.Writer, addr Address, m Message) {
	t.Helper()
	w.Write(must(AppendMessage(nil, FromMeter, addr, m))(t))
}

func TestConnLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := LogConfig{Log: LogHour, Formats: [4]byte{1, 1, 1, 1}, Depth: 1400, Registers: []uint16{60, 68, 1003, 1002}}
		page := hours(t, 500, 5)
		p := newPipe(t, func(_ int, f Frame, w io.Writer) {
			m := must(DecodeMessage(f))(t)
			switch q := m.(type) {
			case *LogConfigRequest:
				answerWith(t, w, f.Address, &LogConfigAnswer{config})
			case *LogByIDRequest:
				older := page
				older.First, older.Rows, older.Info = q.From, page.Rows[page.First-q.From:], LogMore
				answerWith(t, w, f.Address, &LogByIDAnswer{older})
			case *LogLastRequest:
				if q.Log == LogMinute2 {
					w.Write(unhex(t, "40 3F B8 07 07 00 01 01 00 00 00 00 00 00 00 00 00 01 03 EA 2F 04 00 00 00 00 00 1F 2F 0D"))
					return
				}
				answerWith(t, w, f.Address, &LogLastAnswer{page})
			}
		})
		c := NewConn(p.client, Options{})
		if got, err := c.LogConfig(t.Context(), HeatMeter, LogHour); err != nil || !reflect.DeepEqual(got, config) {
			t.Errorf("LogConfig: %+v, %v", got, err)
		}
		got, err := c.LogLast(t.Context(), HeatMeter, LogHour, 0, 24, 60, 68, 1003, 1002)
		if err != nil || !reflect.DeepEqual(got, page) {
			t.Errorf("LogLast: %+v, %v", got, err)
		}
		older, err := c.LogByID(t.Context(), HeatMeter, LogHour, 498, 3, 60, 68, 1003, 1002)
		if err != nil || older.First != 498 || older.Info != LogMore || !reflect.DeepEqual(older.Rows, page.Rows[2:]) {
			t.Errorf("LogByID: %+v, %v", older, err)
		}
		if !reflect.DeepEqual(got, page) {
			t.Error("rows changed with the next answer")
		}
		// What fills an empty log's answer is no row.
		empty, err := c.LogLast(t.Context(), HeatMeter, LogMinute2, 0xFFFF, 1, 1002)
		if want := (LogPage{Log: LogMinute2, Info: LogEmpty}); err != nil || !reflect.DeepEqual(empty, want) {
			t.Errorf("an empty log: %+v, %v", empty, err)
		}
		if s := c.Stats(); s.Requests != 4 || s.Foreign != 0 || s.BadFrames != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// A late answer to another request for rows is dropped, and the right one, which
// follows it, is found.
func TestConnLogForeignAnswers(t *testing.T) {
	right := hours(t, 400, 3)
	above, day := hours(t, 403, 3), hours(t, 400, 3)
	above.Newest, day.Log = 500, LogDay
	for name, foreign := range map[string]Message{
		"another sub-command": &LogLastAnswer{right},
		"the configuration":   &LogConfigAnswer{LogConfig{Log: LogHour}},
		"rows further up":     &LogByIDAnswer{above},
		"more rows":           &LogByIDAnswer{hours(t, 400, 4)},
		"another log":         &LogByIDAnswer{day},
		"a register reading":  &GetRegisterAnswer{right.Rows[0].Registers},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipe(t, func(_ int, f Frame, w io.Writer) {
					answerWith(t, w, f.Address, foreign)
					answerWith(t, w, f.Address, &LogByIDAnswer{right})
				})
				c := NewConn(p.client, Options{Retries: -1})
				got, err := c.LogByID(t.Context(), HeatMeter, LogHour, 400, 3, 60, 68, 1003, 1002)
				if err != nil || !reflect.DeepEqual(got, right) || c.Stats().Foreign != 1 {
					t.Errorf("%+v, %v, stats %+v", got, err, c.Stats())
				}
			})
			synctest.Test(t, func(t *testing.T) {
				p := newPipe(t, func(_ int, f Frame, w io.Writer) { answerWith(t, w, f.Address, foreign) })
				c := NewConn(p.client, Options{})
				got, err := c.LogByID(t.Context(), HeatMeter, LogHour, 400, 3, 60, 68, 1003, 1002)
				var e *ExchangeError
				if !errors.Is(err, ErrForeign) || !errors.As(err, &e) || e.Attempts != 2 || !reflect.DeepEqual(got, LogPage{}) {
					t.Errorf("%+v, %v", got, err)
				}
			})
		})
	}
}

// A meter without logs is silent, and so is a sub-command without a layout: it is
// not even sent.
func TestConnLogSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, func(int, Frame, io.Writer) {})
		c := NewConn(p.client, Options{Retries: -1})
		for name, f := range map[string]func(context.Context) error{
			"LogConfig": func(ctx context.Context) error { _, err := c.LogConfig(ctx, HeatMeter, LogHour); return err },
			"LogByID":   func(ctx context.Context) error { _, err := c.LogByID(ctx, HeatMeter, LogHour, 1, 1, 60); return err },
			"LogLast":   func(ctx context.Context) error { _, err := c.LogLast(ctx, HeatMeter, LogHour, 0, 1, 60); return err },
		} {
			if err := f(t.Context()); !errors.Is(err, ErrNoReply) {
				t.Errorf("%s: %v, want ErrNoReply", name, err)
			}
		}
		before, _ := p.requests()
		if _, err := c.LogLast(t.Context(), HeatMeter, LogHour, 0, 1); !errors.Is(err, ErrCodec) {
			t.Errorf("no registers: %v", err)
		}
		if requests, _ := p.requests(); len(requests) != len(before) {
			t.Error("a request that cannot be encoded was sent")
		}
	})
}
