package kmp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

var aClock = SetClockRequest{Date{2007, 7, 30}, Clock{16, 15, 57}}

func setClock(ctx context.Context, c *Conn) error {
	return c.SetClock(ctx, HeatMeter, aClock.Date, aClock.Clock)
}

// A bare 06 after the request is the acknowledgement, and only where nothing that
// could be noise stands before it.
func TestConnAcknowledgement(t *testing.T) {
	ask := must(AppendMessage(nil, ToMeter, HeatMeter, &aClock))(t)
	late := reply(t, HeatMeter, 60)
	for name, tt := range map[string]struct {
		parts [][]byte
		want  error
		check func(Stats) bool
	}{
		"acknowledged":           {[][]byte{{Ack}}, nil, func(s Stats) bool { return s.Answers == 1 && !s.Echo }},
		"after the echo":         {[][]byte{ask, {Ack}}, nil, func(s Stats) bool { return s.Answers == 1 && s.Echo }},
		"together with the echo": {[][]byte{append(bytes.Clone(ask), Ack)}, nil, nil},
		"the echo in pieces":     {append(slices.Collect(slices.Chunk(ask, 1)), []byte{Ack}), nil, nil},
		"before the echo":        {[][]byte{append([]byte{Ack}, ask...)}, nil, nil},
		"after zeros":            {[][]byte{{0, 0}, ask, {0}, {Ack}}, nil, nil},
		"after a late answer":    {[][]byte{ask, late, {Ack}}, nil, func(s Stats) bool { return s.Foreign == 1 && s.Answers == 1 }},
		"after a damaged answer": {[][]byte{late[:6], ask, {Ack}}, ErrCodec, nil},
		"silence":                {nil, ErrNoReply, func(s Stats) bool { return s.Answers == 0 && s.Requests == 1 && s.Retries == 0 }},
		"only the echo":          {[][]byte{ask}, ErrNoReply, func(s Stats) bool { return s.Echo && s.Requests == 1 }},
		"after noise":            {[][]byte{{0xF7, 0x13}, {Ack}}, ErrNoFrame, nil},
		"noise of its own":       {[][]byte{{Ack ^ 0x80}, {Ack}}, ErrNoFrame, nil},
		"a damaged echo with 06": {[][]byte{ask[:4], {Ack}, ask[5:]}, ErrNoFrame, nil},
		"a late answer alone":    {[][]byte{late}, ErrForeign, func(s Stats) bool { return s.Foreign == 1 && s.Requests == 1 }},
		"06 inside a frame":      {[][]byte{late[:6], {Ack}, late[6:]}, ErrCodec, nil},
		"a frame of the command": {[][]byte{AppendFrame(nil, FromMeter, HeatMeter, CmdSetClock, nil)}, ErrForeign, nil},
		"06 of another meter's":  {[][]byte{late[:1], {Ack}}, ErrCodec, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipe(t, func(_ int, _ Frame, w io.Writer) {
					for i, part := range tt.parts {
						if i > 0 {
							time.Sleep(5 * time.Millisecond)
						}
						w.Write(part)
					}
				})
				c := NewConn(p.client, Options{Retries: 5})
				start := time.Now()
				err := setClock(t.Context(), c)
				if (err == nil) != (tt.want == nil) || !errors.Is(err, tt.want) {
					t.Fatalf("%v, want %v", err, tt.want)
				}
				var e *ExchangeError
				if err != nil && (!errors.As(err, &e) || e.Attempts != 1 || e.Command != CmdSetClock) {
					t.Errorf("%v is not about one attempt", err)
				}
				if s := c.Stats(); tt.check != nil && !tt.check(s) || s.Requests != 1 {
					t.Errorf("stats %+v", s)
				}
				if took := time.Since(start); err == nil && took > time.Second {
					t.Errorf("took %v", took)
				}
				if requests, _ := p.requests(); len(requests) != 1 || !bytes.Equal(requests[0].Data, unhex(t, "0001144A 00027715")) {
					t.Errorf("sent %v", requests)
				}
			})
		})
	}
}

// An acknowledgement that comes too late is nobody's: not the next request's, if that
// has data to answer, nor that of a next one of the same kind.
func TestConnLateAcknowledgement(t *testing.T) {
	for name, next := range map[string]func(context.Context, *Conn) error{
		"a reading": func(ctx context.Context, c *Conn) error {
			registers, err := c.GetRegister(ctx, HeatMeter, 60)
			if err == nil && !slices.Equal(ids(registers), []uint16{60}) {
				err = errors.New("no register")
			}
			return err
		},
		"the clock again": func(ctx context.Context, c *Conn) error {
			if err := setClock(ctx, c); !errors.Is(err, ErrNoReply) {
				return errors.New("taken for acknowledged")
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipe(t, func(n int, f Frame, w io.Writer) {
					switch {
					case n == 0:
						time.Sleep(3 * time.Second)
						w.Write([]byte{Ack})
					case f.Command == CmdGetRegister:
						w.Write([]byte{Ack}) // one more, while the answer is waited for
						w.Write(reply(t, HeatMeter, 60))
					}
				})
				c := NewConn(p.client, Options{})
				if err := setClock(t.Context(), c); !errors.Is(err, ErrNoReply) {
					t.Errorf("%v, want ErrNoReply", err)
				}
				if err := next(t.Context(), c); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// After an acknowledgement the next request may follow at once, after a refusal the
// meter needs its silence; neither teaches the Conn that answers are slow.
func TestConnAfterAcknowledgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, func(n int, f Frame, w io.Writer) {
			switch {
			case n == 0:
				w.Write([]byte{Ack})
			case f.Command == CmdGetRegister:
				w.Write(reply(t, HeatMeter, 60))
			}
		})
		c := NewConn(p.client, Options{})
		before := c.Stats()
		if err := setClock(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if s := c.Stats(); s.Awake != quiet || s.FirstByte == 0 {
			t.Errorf("stats %+v", s)
		}
		read := func() (waited time.Duration) {
			start := time.Now()
			if _, err := c.GetRegister(t.Context(), HeatMeter, 60); err != nil {
				t.Error(err)
			}
			return time.Since(start)
		}
		if waited := read(); waited < DefaultByteTime || waited > 100*time.Millisecond {
			t.Errorf("%v until the next answer", waited)
		}
		if err := c.PutRegister(t.Context(), HeatMeter, 0, Register{ID: 60, Raw: []byte{1}}); !errors.Is(err, ErrNoReply) {
			t.Errorf("%v, want ErrNoReply", err)
		}
		if waited := read(); waited < quiet {
			t.Errorf("%v until the next answer, want at least %v", waited, quiet)
		}
		if s := c.Stats(); s.Timeout != before.Timeout || s.Gap != before.Gap {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestConnPutRegister(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, func(_ int, f Frame, w io.Writer) {
			var q PutRegisterRequest
			if err := q.DecodeData(f.Data); err == nil && q.Password == 0x1234 {
				w.Write([]byte{Ack})
			}
		})
		c := NewConn(p.client, Options{})
		r := must(NewRegister(84, UnitCubicMetre, number(t, "12.50"), 4))(t)
		if err := c.PutRegister(t.Context(), LoggerTop, 0x1234, r); err != nil {
			t.Error(err)
		}
		err := c.PutRegister(t.Context(), LoggerTop, 0x4321, r)
		var e *ExchangeError
		if !errors.Is(err, ErrNoReply) || !errors.As(err, &e) || e.Attempts != 1 || !e.Timeout() {
			t.Errorf("a wrong password: %v", err)
		}
		requests, _ := p.requests()
		if len(requests) != 2 || requests[0].Address != LoggerTop || !bytes.Equal(requests[0].Data, unhex(t, "1234 0054 28 04 42 000004E2")) {
			t.Errorf("sent %v", requests)
		}
		// What cannot be sent is not.
		var long *LengthError
		if err := c.PutRegister(t.Context(), LoggerTop, 0, Register{ID: 84}); !errors.As(err, &long) {
			t.Errorf("no value: %v", err)
		}
	})
}

// The bounds are those that the meter checks: nothing that it would refuse is sent.
func TestSetClockRange(t *testing.T) {
	for _, tt := range []struct {
		date  Date
		clock Clock
		want  error
	}{
		{Date{2000, 1, 1}, Clock{0, 0, 0}, nil},
		{Date{2099, 12, 31}, Clock{23, 59, 59}, nil},
		{Date{2024, 2, 29}, Clock{12, 0, 0}, nil},
		{Date{2026, 2, 29}, Clock{12, 0, 0}, &RangeError{"day", 29, 1, 28}},
		{Date{1999, 12, 31}, Clock{}, &RangeError{"year", 1999, 2000, 2099}},
		{Date{2100, 1, 1}, Clock{}, &RangeError{"year", 2100, 2000, 2099}},
		{Date{2026, 0, 1}, Clock{}, &RangeError{"month", 0, 1, 12}},
		{Date{2026, 13, 1}, Clock{}, &RangeError{"month", 13, 1, 12}},
		{Date{2026, 4, 31}, Clock{}, &RangeError{"day", 31, 1, 30}},
		{Date{2026, 4, 0}, Clock{}, &RangeError{"day", 0, 1, 30}},
		{Date{2026, 4, 1}, Clock{24, 0, 0}, &RangeError{"hour", 24, 0, 23}},
		{Date{2026, 4, 1}, Clock{0, 60, 0}, &RangeError{"minute", 60, 0, 59}},
		{Date{2026, 4, 1}, Clock{0, 0, 60}, &RangeError{"second", 60, 0, 59}},
		{Date{2026, 4, 1}, Clock{-1, 0, 0}, &RangeError{"hour", -1, 0, 23}},
	} {
		want := &SetClockRequest{tt.date, tt.clock}
		data, err := want.AppendData(nil)
		if !reflect.DeepEqual(err, tt.want) {
			t.Errorf("%v %v: error %v, want %v", tt.date, tt.clock, err, tt.want)
		}
		if err != nil {
			continue
		}
		got := new(SetClockRequest)
		if err := got.DecodeData(data); err != nil || *got != *want {
			t.Errorf("%v %v comes back as %v (error %v)", tt.date, tt.clock, got, err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, func(int, Frame, io.Writer) { t.Error("something was sent") })
		var outside *RangeError
		if err := NewConn(p.client, Options{}).SetClock(t.Context(), HeatMeter, Date{2026, 2, 30}, Clock{}); !errors.As(err, &outside) {
			t.Errorf("%v, want a *RangeError", err)
		}
		synctest.Wait()
	})
}

func TestSetClockDecodeErrors(t *testing.T) {
	at := func(offset int, err error) error { return &FrameError{Application, offset, err} }
	for data, want := range map[string]error{
		"0001144A 000277":      at(9, &LengthError{"SetClock request", 8, 7, false}),
		"0001144A 00027715 00": at(10, &LengthError{"SetClock request", 8, 9, false}),
		"00000000 00000000":    at(2, &RangeError{"month", 0, 1, 12}),
		"FFFFFFFF 00000000":    at(2, &RangeError{"date", 1<<32 - 1, 101, 991231}),
		"0001144A 0003A980":    at(6, &RangeError{"clock", 240000, 0, 235959}),
		"0001144A 00001770":    at(6, &RangeError{"minute", 60, 0, 59}),
	} {
		_, err := DecodeMessage(Frame{ToMeter, HeatMeter, CmdSetClock, unhex(t, data)})
		if !reflect.DeepEqual(err, want) {
			t.Errorf("%s: error %v, want %v", data, err, want)
		}
	}
}

func TestPutRegisterDecodeErrors(t *testing.T) {
	at := func(offset int, err error) error { return &FrameError{Application, offset, err} }
	for data, want := range map[string]error{
		"":                        at(2, &LengthError{"PutRegister request", 7, 0, true}),
		"1234 0054 28 04":         at(8, &LengthError{"PutRegister request", 7, 6, true}),
		"1234 0054 28 02 42 00":   at(10, &LengthError{"register", 7, 6, false}),
		"1234 0054 28 00 42":      at(9, &LengthError{"register 84", 1, 0, true}),
		"1234 0054 28 01 42 0000": at(10, &LengthError{"PutRegister request", 8, 9, false}),
	} {
		_, err := DecodeMessage(Frame{ToMeter, HeatMeter, CmdPutRegister, unhex(t, data)})
		if !reflect.DeepEqual(err, want) {
			t.Errorf("%s: error %v, want %v", data, err, want)
		}
	}
}

// An acknowledgement is one byte and no frame, on the way out and on the way in.
func TestAcknowledgementIsNoFrame(t *testing.T) {
	for _, a := range []Answer{new(SetClockAnswer), new(PutRegisterAnswer)} {
		if wire, err := AppendMessage([]byte("x"), FromMeter, HeatMeter, a); err != nil || string(wire) != "x\x06" {
			t.Errorf("%s: % X (error %v), want 06", a.Command(), wire, err)
		}
		if data, err := a.AppendData(nil); err != nil || len(data) != 0 {
			t.Errorf("%s: data % X (error %v), want none", a.Command(), data, err)
		}
		for _, data := range [][]byte{nil, {Ack}} {
			m, err := DecodeMessage(Frame{FromMeter, HeatMeter, a.Command(), data})
			if m != nil || !errors.Is(err, ErrForeign) || !errors.Is(err, ErrCodec) {
				t.Errorf("%s: %v (error %v), want ErrForeign", a.Command(), m, err)
			}
		}
		req := a.NewRequest()
		if req.Command() != a.Command() || reflect.TypeOf(req.NewAnswer()) != reflect.TypeOf(a) {
			t.Errorf("%T leads to %T", a, req)
		}
	}
}

// The answer to 9C is taken with the command 9B, as the document prints it, and with
// 9C; that to 9B only with 9B.
func TestConnEventStatus(t *testing.T) {
	for _, command := range []Command{CmdGetEventStatus, CmdClearEventStatus} {
		synctest.Test(t, func(t *testing.T) {
			p := newPipe(t, func(_ int, f Frame, w io.Writer) {
				w.Write(AppendFrame(nil, FromMeter, f.Address, command, []byte{1, 2, 3, 4}))
			})
			c := NewConn(p.client, Options{Retries: -1})
			status, err := c.ClearEventStatus(t.Context(), LoggerBase, EventStatus{2: EventIntervalLog}, EventStatus{3: 0x80})
			if err != nil || status != (EventStatus{1, 2, 3, 4}) {
				t.Errorf("answered by %s: %v, %v", command, status, err)
			}
			status, err = c.EventStatus(t.Context(), LoggerBase)
			if command == CmdGetEventStatus && (err != nil || status != (EventStatus{1, 2, 3, 4})) {
				t.Errorf("answered by %s: %v, %v", command, status, err)
			}
			if command == CmdClearEventStatus && !errors.Is(err, ErrForeign) {
				t.Errorf("answered by %s: %v, %v, want ErrForeign", command, status, err)
			}
			requests, _ := p.requests()
			if !bytes.Equal(requests[0].Data, []byte{0, 0, 1, 0, 0, 0, 0, 0x80}) || requests[0].Address != LoggerBase || len(requests[1].Data) != 0 {
				t.Errorf("sent %v", requests)
			}
		})
	}
}
