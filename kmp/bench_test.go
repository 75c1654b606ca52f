package kmp

import "testing"

// answer8 is a MULTICAL 403's answer to a request of eight registers.
func answer8(t testing.TB) []byte {
	t.Helper()
	var a GetRegisterAnswer
	for _, r := range []struct {
		id    uint16
		unit  Unit
		value string
		width int
	}{
		{60, UnitMWh, "55.006", 4},
		{63, UnitMWh, "0.000", 4},
		{80, UnitKW, "3.2", 2},
		{86, UnitCelsius, "53.65", 2},
		{87, UnitCelsius, "45.79", 2},
		{89, UnitKelvin, "7.86", 2},
		{74, UnitLitrePerH, "245", 2},
		{68, UnitCubicMetre, "1875.56", 4},
	} {
		register, err := NewRegister(r.id, r.unit, number(t, r.value), r.width)
		if err != nil {
			t.Fatal(err)
		}
		a.Registers = append(a.Registers, register)
	}
	wire, err := AppendMessage(nil, FromMeter, HeatMeter, &a)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// answerDecoder decodes answers and reuses its memory.
type answerDecoder struct {
	buf    []byte
	answer GetRegisterAnswer
	values []Decimal
}

func (a *answerDecoder) decode(wire []byte) error {
	f, err := DecodeFrameInto(a.buf, wire)
	if err != nil {
		return err
	}
	if err := a.answer.DecodeData(f.Data); err != nil {
		return err
	}
	a.values = a.values[:0]
	for _, r := range a.answer.Registers {
		d, err := r.Decimal()
		if err != nil {
			return err
		}
		a.values = append(a.values, d)
	}
	return nil
}

func newAnswerDecoder() *answerDecoder {
	return &answerDecoder{buf: make([]byte, 0, MaxFrame), values: make([]Decimal, 0, MaxRegisters)}
}

func request8() *GetRegisterRequest {
	return &GetRegisterRequest{[]uint16{60, 63, 80, 86, 87, 89, 74, 68}}
}

// The codec's everyday work allocates nothing.
func TestAllocations(t *testing.T) {
	wire, decoder, request := answer8(t), newAnswerDecoder(), request8()
	stream := &loop{wire: wire}
	reader := NewReader(stream, FromMeter)
	out, text := make([]byte, 0, 2*MaxFrame), make([]byte, 0, 64)
	value := number(t, "-1875.56")
	day := &LogByIDRequest{LogHour, 500, 24, []uint16{60, 68, 1003, 1002}}
	page := &LogByIDAnswer{hours(t, 500, 24)}
	clock := &SetClockRequest{Date{2026, 11, 21}, Clock{7, 0, 1}}
	for name, f := range map[string]func() error{
		"decode an answer of 8": func() error { return decoder.decode(wire) },
		"read a frame": func() error {
			_, err := reader.Next()
			return err
		},
		"encode a request of 8": func() (err error) {
			out, err = AppendMessage(out[:0], ToMeter, HeatMeter, request)
			return err
		},
		"encode an answer of 8": func() (err error) {
			out, err = AppendMessage(out[:0], FromMeter, HeatMeter, &decoder.answer)
			return err
		},
		"encode a request for a day of a log": func() (err error) {
			out, err = AppendMessage(out[:0], ToMeter, HeatMeter, day)
			return err
		},
		"encode a day of a log": func() (err error) {
			out, err = AppendMessage(out[:0], FromMeter, HeatMeter, page)
			return err
		},
		"encode a clock": func() (err error) {
			out, err = AppendMessage(out[:0], ToMeter, HeatMeter, clock)
			return err
		},
		"encode a number": func() (err error) {
			out, err = AppendDecimal(out[:0], value, 4)
			return err
		},
		"a number as text": func() (err error) {
			text, err = value.AppendText(text[:0])
			return err
		},
	} {
		var err error
		if n := testing.AllocsPerRun(100, func() { err = f() }); n != 0 || err != nil {
			t.Errorf("%s: %v allocations (error %v), want none", name, n, err)
		}
	}
	if len(decoder.values) != 8 || decoder.values[7].String() != "1875.56" {
		t.Errorf("decoded %v", decoder.values)
	}
}

// However many rows, a page of a log costs one piece of memory.
func TestLogAllocations(t *testing.T) {
	for _, rows := range []int{1, 24, 200} {
		data := must((&LogByIDAnswer{hours(t, 500, rows)}).AppendData(nil))(t)
		a, records := new(LogByIDAnswer), &LogRecordsAnswer{CmdGetLogIDPresent, LogRecords{Rows: hours(t, 500, rows).Rows}}
		recordData := must(records.AppendData(nil))(t)
		for name, f := range map[string]func() error{
			"log page": func() error { return a.DecodeData(data) },
			"records":  func() error { return records.DecodeData(recordData) },
		} {
			var err error
			if n := testing.AllocsPerRun(100, func() { err = f() }); n > 1 || err != nil {
				t.Errorf("%s of %d rows: %v allocations (error %v), want 1", name, rows, n, err)
			}
		}
		if len(a.Rows) != rows || len(records.Rows) != rows {
			t.Errorf("decoded %d and %d rows, want %d", len(a.Rows), len(records.Rows), rows)
		}
	}
}

// loop is a stream that repeats itself.
type loop struct {
	wire []byte
	at   int
}

// Read implements [io.Reader].
func (l *loop) Read(p []byte) (int, error) {
	n := copy(p, l.wire[l.at:])
	l.at = (l.at + n) % len(l.wire)
	return n, nil
}

func BenchmarkDecodeAnswer8(b *testing.B) {
	wire, decoder := answer8(b), newAnswerDecoder()
	b.ReportAllocs()
	b.SetBytes(int64(len(wire)))
	for b.Loop() {
		if err := decoder.decode(wire); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeRequest8(b *testing.B) {
	request, out := request8(), make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if out, err = AppendMessage(out[:0], ToMeter, HeatMeter, request); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReader(b *testing.B) {
	wire := answer8(b)
	r := NewReader(&loop{wire: wire}, FromMeter)
	b.ReportAllocs()
	b.SetBytes(int64(len(wire)))
	for b.Loop() {
		if _, err := r.Next(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCRC16(b *testing.B) {
	p := answer8(b)
	b.SetBytes(int64(len(p)))
	var sum uint16
	for b.Loop() {
		sum ^= CRC16(p)
	}
	if sum == 1 { // the sums stay in use
		b.Log(sum)
	}
}

func BenchmarkDecimalText(b *testing.B) {
	d, text := number(b, "1875.56"), make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		text, _ = d.AppendText(text[:0])
	}
}

// A day of an hour log, four registers: the answer's frame to registers.
func BenchmarkDecodeLogDay(b *testing.B) {
	wire := must(AppendMessage(nil, FromMeter, HeatMeter, &LogByIDAnswer{hours(b, 500, 24)}))(b)
	buf, a := make([]byte, 0, MaxFrame), new(LogByIDAnswer)
	b.ReportAllocs()
	b.SetBytes(int64(len(wire)))
	for b.Loop() {
		f, err := DecodeFrameInto(buf, wire)
		if err == nil {
			err = a.DecodeData(f.Data)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeLogDay(b *testing.B) {
	a, out := &LogByIDAnswer{hours(b, 500, 24)}, make([]byte, 0, 2*MaxFrame)
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if out, err = AppendMessage(out[:0], FromMeter, HeatMeter, a); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(out)))
}

// A day of a logger module's interval log, four registers.
func BenchmarkDecodeLogRecordsDay(b *testing.B) {
	rows := hours(b, 500, 24).Rows
	for i := range rows {
		rows[i].ID = uint32(i)
	}
	a := &LogRecordsAnswer{CmdGetLogIDPresent, LogRecords{Rows: rows}}
	data := must(a.AppendData(nil))(b)
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if err := a.DecodeData(data); err != nil {
			b.Fatal(err)
		}
	}
}
