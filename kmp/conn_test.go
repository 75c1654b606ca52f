package kmp

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipe is a fake line: the client's end for a Conn, and what a meter behind it
// does with each request. Time is fake throughout.
type pipe struct {
	client, meter net.Conn
	mu            sync.Mutex
	asked         []Frame     // requests as they came, data copied
	at            []time.Time // when
}

// newPipe answers each request with what answer writes; n counts from 0.
func newPipe(t *testing.T, answer func(n int, f Frame, w io.Writer)) *pipe {
	t.Helper()
	p := new(pipe)
	p.client, p.meter = net.Pipe()
	t.Cleanup(func() { p.client.Close(); p.meter.Close() })
	go func() {
		r := NewReader(p.meter, ToMeter)
		for n := 0; ; n++ {
			f, err := r.Next()
			if err != nil {
				return
			}
			f.Data = bytes.Clone(f.Data)
			p.mu.Lock()
			p.asked = append(p.asked, f)
			p.at = append(p.at, time.Now())
			p.mu.Unlock()
			answer(n, f, p.meter)
		}
	}()
	return p
}

// requests returns what the meter has been asked until now, and when.
func (p *pipe) requests() ([]Frame, []time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked), slices.Clone(p.at)
}

// reply is a whole answer frame with a number of two bytes in each register.
func reply(t testing.TB, addr Address, ids ...uint16) []byte {
	t.Helper()
	var a GetRegisterAnswer
	for _, id := range ids {
		a.Registers = append(a.Registers, Register{ID: id, Unit: UnitGJ, SiEx: 0x43, Raw: []byte{0x1B, byte(id)}})
	}
	wire, err := AppendMessage(nil, FromMeter, addr, &a)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func ids(registers []Register) []uint16 {
	out := []uint16{}
	for _, r := range registers {
		out = append(out, r.ID)
	}
	return out
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestConnCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := map[Command]string{
			CmdGetType:     "40 3F 01 00 04 1B F9 01 26 99 0D",
			CmdGetSerialNo: "40 3F 02 01 23 45 67 E9 56 0D",
			CmdGetRegister: "40 3F 10 00 56 25 02 42 14 F5 69 DC 0D",
		}
		p := newPipe(t, func(_ int, f Frame, w io.Writer) { w.Write(unhex(t, answers[f.Command])) })
		c := NewConn(p.client, Options{})
		typ, err := c.GetType(t.Context(), HeatMeter)
		if err != nil || typ.MeterType != 4 || typ.Revision.String() != "F1" {
			t.Errorf("GetType: %+v, %v", typ, err)
		}
		serial, err := c.GetSerialNo(t.Context(), HeatMeter)
		if err != nil || serial != 19088743 {
			t.Errorf("GetSerialNo: %d, %v", serial, err)
		}
		registers, err := c.GetRegister(t.Context(), HeatMeter, 86)
		if err != nil || len(registers) != 1 {
			t.Fatalf("GetRegister: %v, %v", registers, err)
		}
		if d, _ := registers[0].Decimal(); d.String() != "53.65" {
			t.Errorf("register 86 is %s", d)
		}
		if s := c.Stats(); s.Requests != 3 || s.Answers != 3 || s.Retries != 0 || s.Echo || s.BytesReceived != 11+10+13 {
			t.Errorf("stats %+v", s)
		}
	})
}

// What stands around or in front of the right answer must not matter, as long as
// the right answer comes in time.
func TestConnFindsTheAnswer(t *testing.T) {
	good := reply(t, HeatMeter, 60, 68)
	corrupt := bytes.Clone(good)
	corrupt[8] ^= 1
	ask, err := AppendMessage(nil, ToMeter, HeatMeter, &GetRegisterRequest{[]uint16{60, 68}})
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		parts [][]byte
		pause time.Duration // between parts
		check func(Stats) bool
	}{
		"echo":               {[][]byte{ask, good}, 20 * time.Millisecond, func(s Stats) bool { return s.Echo }},
		"echo of noise, too": {[][]byte{{0x80}, ask, good}, 9 * time.Millisecond, func(s Stats) bool { return s.Echo }},
		"no echo":            {[][]byte{good}, 0, func(s Stats) bool { return !s.Echo }},
		"damaged echo":       {[][]byte{ask[:5], ask[6:], good}, 9 * time.Millisecond, func(s Stats) bool { return !s.Echo }},
		"noise":              {[][]byte{{0xFF, 0x13, 0x0D, 0x06, 0x1B}, good}, 0, nil},
		"stray zero":         {[][]byte{{0}, {0}, good}, 500 * time.Millisecond, nil},
		"restart":            {[][]byte{good[:7], good}, 0, func(s Stats) bool { return s.BadFrames == 1 }},
		"bad checksum":       {[][]byte{corrupt, good}, 300 * time.Millisecond, func(s Stats) bool { return s.ChecksumErrors == 1 }},
		"cut by a gap":       {[][]byte{good[:7], good}, 201 * time.Millisecond, func(s Stats) bool { return s.BadFrames == 1 }},
		"other address":      {[][]byte{reply(t, LoggerTop, 60, 68), good}, 0, func(s Stats) bool { return s.Foreign == 1 }},
		"other command":      {[][]byte{unhex(t, "403F0201234567E9560D"), good}, 0, func(s Stats) bool { return s.Foreign == 1 }},
		"other registers":    {[][]byte{reply(t, HeatMeter, 74), good}, 0, func(s Stats) bool { return s.Foreign == 1 }},
		"a register twice":   {[][]byte{reply(t, HeatMeter, 60, 60), good}, 0, func(s Stats) bool { return s.Foreign == 1 }},
		"acknowledgement":    {[][]byte{{Ack}, good}, 0, nil},
		"slow bytes":         {slices.Collect(slices.Chunk(good, 1)), 199 * time.Millisecond, nil},
		"late start":         {[][]byte{{}, good}, 1990 * time.Millisecond, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipe(t, func(_ int, _ Frame, w io.Writer) {
					for i, part := range tt.parts {
						if i > 0 {
							time.Sleep(tt.pause)
						}
						w.Write(part)
					}
				})
				c := NewConn(p.client, Options{Retries: -1})
				registers, err := c.GetRegister(t.Context(), HeatMeter, 60, 68)
				if err != nil || !slices.Equal(ids(registers), []uint16{60, 68}) {
					t.Fatalf("%v, %v", registers, err)
				}
				if s := c.Stats(); tt.check != nil && !tt.check(s) {
					t.Errorf("stats %+v", s)
				}
			})
		})
	}
}

// countingLine counts what is written to it.
type countingLine struct {
	Line
	writes [][]byte
}

func (l *countingLine) Write(p []byte) (int, error) {
	l.writes = append(l.writes, bytes.Clone(p))
	return l.Line.Write(p)
}

// A gap inside a request makes the meter drop it: each request is one write.
func TestConnWritesARequestAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, func(_ int, _ Frame, w io.Writer) { w.Write(reply(t, HeatMeter, 0x80, 0x40)) })
		line := &countingLine{Line: p.client}
		if _, err := NewConn(line, Options{}).GetRegister(t.Context(), HeatMeter, 0x80, 0x40); err != nil {
			t.Fatal(err)
		}
		want := AppendFrame(nil, ToMeter, HeatMeter, CmdGetRegister, []byte{2, 0, 0x80, 0, 0x40})
		if len(line.writes) != 1 || !bytes.Equal(line.writes[0], want) {
			t.Errorf("written % X, want % X", line.writes, want)
		}
	})
}

// A line that takes only a part of a request has failed.
func TestConnShortWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, func(int, Frame, io.Writer) {})
		_, err := NewConn(shortLine{p.client}, Options{}).GetSerialNo(t.Context(), HeatMeter)
		var e *ExchangeError
		if !errors.Is(err, io.ErrShortWrite) || !errors.As(err, &e) || e.Attempts != 1 {
			t.Errorf("%v", err)
		}
	})
}

type shortLine struct{ Line }

func (l shortLine) Write(p []byte) (int, error) { return l.Line.Write(p[:3]) }

// A silence of more than 200 ms ends a frame: what comes after it does not complete it.
func TestConnGapInsideAnAnswer(t *testing.T) {
	good := reply(t, HeatMeter, 60)
	for _, tt := range []struct {
		gap  time.Duration
		want error
	}{
		{199 * time.Millisecond, nil},
		{201 * time.Millisecond, ErrTruncated},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPipe(t, func(_ int, _ Frame, w io.Writer) {
				w.Write(good[:7])
				time.Sleep(tt.gap)
				w.Write(good[7:])
			})
			c := NewConn(p.client, Options{Retries: -1})
			if _, err := c.GetRegister(t.Context(), HeatMeter, 60); !errors.Is(err, tt.want) {
				t.Errorf("a gap of %v: %v, want %v", tt.gap, err, tt.want)
			}
		})
	}
}

// The time for the first byte begins when the request has left: at 1200 baud, long
// after it was written.
func TestConnTimeoutBeginsAfterTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, func(_ int, _ Frame, w io.Writer) {
			time.Sleep(37*11*time.Second/1200 + 1990*time.Millisecond)
			w.Write(reply(t, HeatMeter, 1))
		})
		c := NewConn(p.client, Options{Retries: -1})
		// 23 bytes, and 14 more by stuffing.
		ids := []uint16{1, 0x8080, 0x8006, 0x800D, 0x801B, 0x8040, 0x4040, 0x0606}
		if _, err := c.GetRegister(t.Context(), HeatMeter, ids...); err != nil {
			t.Error(err)
		}
	})
}

func TestConnUnsupportedRegisters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, func(n int, _ Frame, w io.Writer) {
			if n == 0 {
				w.Write(reply(t, HeatMeter, 68)) // neither 60 nor 371
			} else {
				w.Write(unhex(t, "403F10079A0D")) // none at all
			}
		})
		c := NewConn(p.client, Options{})
		registers, err := c.GetRegister(t.Context(), HeatMeter, 60, 68, 371)
		if err != nil || !slices.Equal(ids(registers), []uint16{68}) {
			t.Errorf("%v, %v", registers, err)
		}
		registers, err = c.GetRegister(t.Context(), HeatMeter, 0xFFFF)
		if err != nil || len(registers) != 0 {
			t.Errorf("%v, %v", registers, err)
		}
	})
}

// More than eight registers take as few requests as possible, and the next begins
// at least a byte time after the answer's end and soon enough that the meter is
// still awake.
func TestConnSplits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended []time.Time
		p := newPipe(t, func(_ int, f Frame, w io.Writer) {
			var q GetRegisterRequest
			if err := q.DecodeData(f.Data); err != nil {
				t.Error(err)
			}
			time.Sleep(20 * time.Millisecond)
			w.Write(reply(t, HeatMeter, q.IDs...))
			ended = append(ended, time.Now())
		})
		want := []uint16{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}
		c := NewConn(p.client, Options{})
		registers, err := c.GetRegister(t.Context(), HeatMeter, append(want, 3, 20, 1)...)
		if err != nil || !slices.Equal(ids(registers), want) {
			t.Fatalf("%v, %v", registers, err)
		}
		for i, r := range registers { // each has memory of its own
			if !bytes.Equal(r.Raw, []byte{0x1B, byte(i + 1)}) {
				t.Errorf("register %d is % X", r.ID, r.Raw)
			}
		}
		synctest.Wait()
		asked, at := p.requests()
		if len(asked) != 3 {
			t.Fatalf("%d requests", len(asked))
		}
		for i := 1; i < len(asked); i++ {
			if pause := at[i].Sub(ended[i-1]); pause < 9200*time.Microsecond || pause > 20*time.Millisecond {
				t.Errorf("request %d starts %v after the answer before it", i, pause)
			}
		}
		if registers, err := c.GetRegister(t.Context(), HeatMeter); err != nil || len(registers) != 0 {
			t.Errorf("no register: %v, %v", registers, err)
		}
	})
}

func TestConnSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, func(int, Frame, io.Writer) {})
		c := NewConn(p.client, Options{})
		start := time.Now()
		_, err := c.GetRegister(t.Context(), HeatMeter, 60)
		took := time.Since(start)
		var e *ExchangeError
		if !errors.Is(err, ErrNoReply) || !errors.As(err, &e) {
			t.Fatal(err)
		}
		if e.Attempts != 2 || e.Echo || len(e.Received) != 0 || !e.Timeout() || e.Address != HeatMeter || e.Command != CmdGetRegister {
			t.Errorf("%+v", e)
		}
		if want := "kmp: GetRegister at address 3F: no reply (sent 80 3F 10 01 00 3C B2 5F 0D, nothing came)"; err.Error() != want {
			t.Errorf("got  %s\nwant %s", err, want)
		}
		// Two waits of a request's line time and 2 s, with 1.6 s of quiet in between.
		if took < 5600*time.Millisecond || took > 6*time.Second {
			t.Errorf("took %v", took)
		}
		_, at := p.requests()
		if pause := at[1].Sub(at[0]); pause < 3600*time.Millisecond || pause > 3800*time.Millisecond {
			t.Errorf("repeated after %v", pause)
		}
	})
}

func TestConnOnlyEcho(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, func(_ int, f Frame, w io.Writer) {
			w.Write(AppendFrame(nil, ToMeter, f.Address, f.Command, f.Data))
		})
		c := NewConn(p.client, Options{})
		_, err := c.GetSerialNo(t.Context(), HeatMeter)
		var e *ExchangeError
		if !errors.Is(err, ErrNoReply) || !errors.As(err, &e) || !e.Echo || !strings.Contains(err.Error(), "only its echo came") {
			t.Errorf("%v", err)
		}
		if !c.Stats().Echo {
			t.Error("echo not seen")
		}
	})
	synctest.Test(t, func(t *testing.T) { // what the last attempt heard counts
		p := newPipe(t, func(n int, f Frame, w io.Writer) {
			if n == 0 {
				w.Write(AppendFrame(nil, ToMeter, f.Address, f.Command, f.Data))
			}
		})
		c := NewConn(p.client, Options{})
		_, err := c.GetSerialNo(t.Context(), HeatMeter)
		if !errors.Is(err, ErrNoReply) || !strings.Contains(err.Error(), "nothing came") || c.Stats().Echo {
			t.Errorf("%v", err)
		}
	})
}

// Bytes without a frame are not silence: the line is noisy, or set otherwise than the
// meter. The echo and the 00 that a meter may send at any time are.
func TestConnNoiseIsNotSilence(t *testing.T) {
	ask := unhex(t, "803F0235E90D")
	for name, tt := range map[string]struct {
		came []byte
		want error
	}{
		"junk of a wrong speed":   {unhex(t, "80 02 12 F0 F0 0D"), ErrNoFrame},
		"acknowledgement":         {[]byte{Ack}, ErrNoFrame},
		"echo and noise":          {append(bytes.Clone(ask), 0xFF), ErrNoFrame},
		"damaged echo":            {append(bytes.Clone(ask[:3]), ask[4:]...), ErrNoFrame},
		"zeros":                   {[]byte{0, 0}, ErrNoReply},
		"echo between zeros":      {append(append([]byte{0}, ask...), 0), ErrNoReply},
		"more noise than is kept": {bytes.Repeat([]byte{0xFF}, 2*keep), ErrNoFrame},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipe(t, func(_ int, _ Frame, w io.Writer) { w.Write(tt.came) })
				_, err := NewConn(p.client, Options{Retries: -1}).GetSerialNo(t.Context(), HeatMeter)
				if !errors.Is(err, tt.want) || errors.Is(err, ErrCodec) != errors.Is(tt.want, ErrCodec) {
					t.Errorf("%v, want %v", err, tt.want)
				}
			})
		})
	}
}

// A first request that is lost is repeated, a bad answer as well, each after the
// silence that the meter needs.
func TestConnRetries(t *testing.T) {
	good := reply(t, HeatMeter, 60)
	bad := bytes.Clone(good)
	bad[6] ^= 0x10
	for name, first := range map[string][]byte{"lost": nil, "bad checksum": bad, "cut": good[:9], "foreign": reply(t, HeatMeter, 61)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipe(t, func(n int, _ Frame, w io.Writer) {
					if n == 0 {
						w.Write(first)
					} else {
						w.Write(good)
					}
				})
				c := NewConn(p.client, Options{})
				if _, err := c.GetRegister(t.Context(), HeatMeter, 60); err != nil {
					t.Fatal(err)
				}
				if s := c.Stats(); s.Requests != 2 || s.Retries != 1 {
					t.Errorf("stats %+v", s)
				}
			})
		})
	}
}

// Where long frames are always damaged, shorter ones are tried.
func TestConnAsksForLess(t *testing.T) {
	damaging := func(longest int) func(int, Frame, io.Writer) {
		return func(_ int, f Frame, w io.Writer) {
			var q GetRegisterRequest
			if err := q.DecodeData(f.Data); err != nil {
				t.Error(err)
			}
			answer := reply(t, HeatMeter, q.IDs...)
			if len(q.IDs) > longest {
				answer[5] ^= 0x20 // the unit
			}
			w.Write(answer)
		}
	}
	want := []uint16{60, 68, 74, 80, 86, 87, 89, 97, 99, 110, 113}
	for _, tt := range []struct {
		longest int
		asked   []int // registers in each request
	}{
		{4, []int{8, 8, 4, 4, 3}},
		{2, []int{8, 8, 4, 4, 2, 2, 2, 2, 2, 1}},
		{0, []int{8, 8, 4, 4, 2, 2, 1, 1}},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPipe(t, damaging(tt.longest))
			registers, err := NewConn(p.client, Options{}).GetRegister(t.Context(), HeatMeter, want...)
			if tt.longest > 0 && (err != nil || !slices.Equal(ids(registers), want)) {
				t.Errorf("frames of %d pass: %v, %v", tt.longest, ids(registers), err)
			}
			var checksum *ChecksumError
			if tt.longest == 0 && (!errors.As(err, &checksum) || len(registers) != 0) {
				t.Errorf("no frame passes: %v, %v", ids(registers), err)
			}
			requests, _ := p.requests()
			asked := []int{}
			for _, f := range requests {
				asked = append(asked, int(f.Data[0]))
			}
			if !slices.Equal(asked, tt.asked) {
				t.Errorf("frames of %d pass: asked for %v, want %v", tt.longest, asked, tt.asked)
			}
		})
	}
}

func TestConnReportsTheBadAnswer(t *testing.T) {
	good := reply(t, HeatMeter, 60)
	bad := bytes.Clone(good)
	bad[7] ^= 0x10
	tests := map[string]struct {
		answer []byte
		is     error
		as     any
		text   string
	}{
		"checksum": {bad, ErrCodec, new(*ChecksumError), "checksum is"},
		"stuffing": {unhex(t, "40 3F 10 1B 00 0D"), ErrCodec, new(*StuffingError), "escape 1B is followed by 00"},
		"address":  {reply(t, LoggerBase, 60), ErrCodec, new(*AddressError), "address is BF, should be 3F"},
		"command":  {unhex(t, "403F0201234567E9560D"), ErrForeign, new(*FrameError), "answer to something else: GetSerialNo"},
		"foreign":  {reply(t, HeatMeter, 61), ErrForeign, new(*ExchangeError), "register 61"},
		"cut":      {good[:9], ErrTruncated, new(*FrameError), "cut short"},
		"fields":   {AppendFrame(nil, FromMeter, HeatMeter, CmdGetRegister, []byte{0, 60, 8, 4, 0, 1}), ErrTruncated, new(*LengthError), "register has"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipe(t, func(_ int, _ Frame, w io.Writer) { w.Write(tt.answer) })
				_, err := NewConn(p.client, Options{}).GetRegister(t.Context(), HeatMeter, 60)
				if !errors.Is(err, tt.is) || !errors.As(err, tt.as) || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("%v", err)
				}
				if !strings.Contains(err.Error(), "came 40 ") || !strings.Contains(err.Error(), "sent 80 3F 10 01 00 3C B2 5F 0D") {
					t.Errorf("not what was asked or came: %v", err)
				}
			})
		})
	}
}

// A repeated or late answer to the request before must not become the answer to
// this one, whether it waits on the line or was read with the answer before.
func TestConnDiscardsWhatIsWaiting(t *testing.T) {
	for _, pause := range []time.Duration{0, time.Hour} { // between the readings
		testDiscards(t, pause)
	}
}

func testDiscards(t *testing.T, pause time.Duration) {
	t.Helper()
	stale := AppendFrame(nil, FromMeter, HeatMeter, CmdGetRegister, []byte{0, 60, 8, 2, 0x43, 9, 9})
	for name, first := range map[string]func(w io.Writer, answer []byte){
		"on the line": func(w io.Writer, answer []byte) {
			w.Write(answer)
			go w.Write(stale)
		},
		"in one piece": func(w io.Writer, answer []byte) { w.Write(append(answer, stale...)) },
		"half of it": func(w io.Writer, answer []byte) {
			w.Write(append(answer, stale[:8]...))
			go w.Write(stale[8:])
		},
	} {
		t.Run(fmt.Sprintf("%s, %v", name, pause), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipe(t, func(n int, _ Frame, w io.Writer) {
					if n == 0 {
						first(w, reply(t, HeatMeter, 60))
					} else {
						w.Write(reply(t, HeatMeter, 60))
					}
				})
				c := NewConn(p.client, Options{})
				for range 2 {
					registers, err := c.GetRegister(t.Context(), HeatMeter, 60)
					if err != nil || !bytes.Equal(registers[0].Raw, []byte{0x1B, 60}) {
						t.Errorf("%v, %v", registers, err)
					}
					time.Sleep(pause) // the repetition waits to be read
				}
				came := uint64(len(stale) + 2*len(reply(t, HeatMeter, 60)))
				if s := c.Stats(); s.Requests != 2 || s.BadFrames != 0 || s.BytesReceived != came {
					t.Errorf("stats %+v, %d bytes came", s, came)
				}
			})
		})
	}
}

// After a failure 1.6 s of quiet begin anew with every byte that still comes.
func TestConnWaitsForQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var last time.Time
		p := newPipe(t, func(n int, _ Frame, w io.Writer) {
			if n > 0 {
				w.Write(reply(t, HeatMeter, 60))
				return
			}
			for range 3 { // the wait for an answer ends after 2.1 s, the quiet would after 3.7 s
				time.Sleep(1100 * time.Millisecond)
				w.Write([]byte{0})
			}
			last = time.Now()
		})
		c := NewConn(p.client, Options{})
		if _, err := c.GetRegister(t.Context(), HeatMeter, 60); err != nil {
			t.Fatal(err)
		}
		_, at := p.requests()
		if pause := at[1].Sub(last); pause < 1600*time.Millisecond || pause > 1700*time.Millisecond {
			t.Errorf("repeated %v after the last byte", pause)
		}

		go p.meter.Write([]byte{0}) // after a good answer a byte is no reason to wait
		start := time.Now()
		if _, err := c.GetRegister(t.Context(), HeatMeter, 60); err != nil || time.Since(start) > 20*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// After a failure the line has to be quiet, but a line that babbles for ever does
// not stop the client for ever.
func TestConnBabble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, meter := net.Pipe()
		var babbler sync.WaitGroup
		defer babbler.Wait()
		defer client.Close()
		babbler.Go(func() {
			for {
				if _, err := meter.Write([]byte{0x40, 0x3F, 0x55}); err != nil {
					return
				}
				time.Sleep(30 * time.Millisecond)
			}
		})
		go func() { // a net.Pipe carries a write only as it is read
			for {
				if _, err := meter.Read(make([]byte, 64)); err != nil {
					return
				}
			}
		}()
		c := NewConn(client, Options{})
		start := time.Now()
		_, err := c.GetSerialNo(t.Context(), HeatMeter)
		var e *ExchangeError
		if !errors.As(err, &e) || !errors.Is(err, ErrCodec) || e.Attempts != 2 {
			t.Errorf("%v", err)
		}
		// Two waits for an answer, and the longest wait for quiet.
		if most := 2*2200*time.Millisecond + patience; time.Since(start) > most {
			t.Errorf("took %v", time.Since(start))
		}
		if len(e.Received) > keep {
			t.Errorf("kept %d bytes", len(e.Received))
		}
	})
}

func TestConnCancel(t *testing.T) {
	good := reply(t, HeatMeter, 60)
	tests := map[string]struct {
		answer []byte
		cancel time.Duration // into the exchange
	}{
		"waiting for an answer": {nil, 700 * time.Millisecond},
		"inside a frame":        {good[:8], 100 * time.Millisecond},
		"in the quiet":          {nil, 3 * time.Second},
		"at once":               {nil, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipe(t, func(_ int, _ Frame, w io.Writer) { w.Write(tt.answer) })
				c := NewConn(p.client, Options{})
				ctx, cancel := context.WithTimeout(t.Context(), tt.cancel)
				defer cancel()
				start := time.Now()
				_, err := c.GetRegister(ctx, HeatMeter, 60)
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v", err)
				}
				if took := time.Since(start); took != tt.cancel {
					t.Errorf("ended after %v", took)
				}
			})
		})
	}
	t.Run("stuck write", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			client, meter := net.Pipe() // nobody reads
			defer meter.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			start := time.Now()
			_, err := NewConn(client, Options{}).GetSerialNo(ctx, HeatMeter)
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
			}
			client, meter = net.Pipe() // the one above has its deadline from the cancelling
			defer meter.Close()
			start = time.Now()
			_, err = NewConn(client, Options{}).GetSerialNo(t.Context(), HeatMeter)
			if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) > DefaultTimeout+time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		})
	})
	t.Run("deadline set late", func(t *testing.T) {
		// The deadline by which the context ends a read must not hit the next call.
		synctest.Test(t, func(t *testing.T) {
			p := newPipe(t, func(n int, _ Frame, w io.Writer) {
				if n > 0 {
					w.Write(unhex(t, "403F0201234567E9560D"))
				}
			})
			c := NewConn(lateLine{p.client}, Options{})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := c.GetSerialNo(ctx, HeatMeter); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
			if _, err := c.GetSerialNo(t.Context(), HeatMeter); err != nil {
				t.Errorf("the next call: %v", err)
			}
		})
	})
	t.Run("waiting for the line", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPipe(t, func(int, Frame, io.Writer) {})
			c := NewConn(p.client, Options{})
			done := make(chan error)
			go func() { _, err := c.GetSerialNo(t.Context(), HeatMeter); done <- err }()
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := c.GetSerialNo(ctx, HeatMeter); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
			if err := <-done; !errors.Is(err, ErrNoReply) { // the other one is not disturbed
				t.Errorf("%v", err)
			}
		})
	})
}

// lateLine takes its time to end a write, but not a read.
type lateLine struct{ net.Conn }

func (l lateLine) SetWriteDeadline(t time.Time) error {
	if t.Before(time.Now()) {
		time.Sleep(2 * quiet)
	}
	return l.Conn.SetWriteDeadline(t)
}

// One request is in flight, however many callers there are.
func TestConnTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, func(_ int, f Frame, w io.Writer) {
			var q GetRegisterRequest
			if err := q.DecodeData(f.Data); err != nil {
				t.Error(err)
			}
			time.Sleep(100 * time.Millisecond)
			w.Write(reply(t, HeatMeter, q.IDs...))
		})
		c := NewConn(p.client, Options{Retries: -1})
		var wg sync.WaitGroup
		for id := range uint16(20) {
			wg.Go(func() {
				registers, err := c.GetRegister(t.Context(), HeatMeter, id)
				if err != nil || !slices.Equal(ids(registers), []uint16{id}) {
					t.Errorf("register %d: %v, %v", id, registers, err)
				}
			})
		}
		wg.Wait()
		_, at := p.requests()
		for i := 1; i < len(at); i++ {
			if at[i].Sub(at[i-1]) < 109*time.Millisecond {
				t.Errorf("request %d comes %v after the one before", i, at[i].Sub(at[i-1]))
			}
		}
	})
}

// closed tells a line that ended; a net.Pipe says so in either way.
func closed(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) }

func TestConnLineDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, func(n int, _ Frame, w io.Writer) {
			if n == 0 {
				w.Write(reply(t, HeatMeter, 1, 2, 3, 4, 5, 6, 7, 8))
			} else {
				w.(io.Closer).Close()
			}
		})
		c := NewConn(p.client, Options{})
		registers, err := c.GetRegister(t.Context(), HeatMeter, 1, 2, 3, 4, 5, 6, 7, 8, 9)
		var e *ExchangeError
		if !closed(err) || !errors.As(err, &e) || e.Attempts != 1 {
			t.Errorf("%v", err)
		}
		if len(registers) != 8 { // what came before is not lost
			t.Errorf("%v", registers)
		}
		c.Close()
		if _, err := c.GetSerialNo(t.Context(), HeatMeter); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%v", err)
		}
	})
}

func TestConnDoRefusesWhatCannotBeSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, func(int, Frame, io.Writer) { t.Error("something was sent") })
		c := NewConn(p.client, Options{})
		for _, n := range []int{0, 9} {
			var r *RangeError
			err := c.Do(t.Context(), HeatMeter, &GetRegisterRequest{make([]uint16, n)}, new(GetRegisterAnswer))
			if !errors.Is(err, ErrCodec) || !errors.As(err, &r) || r.Got != int64(n) || r.Max != 8 {
				t.Errorf("%d registers: %v", n, err)
			}
		}
	})
}

// A caller that asks for one register twice gets it twice.
func TestConnDoRegisterTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, func(_ int, _ Frame, w io.Writer) { w.Write(reply(t, HeatMeter, 60, 60)) })
		var a GetRegisterAnswer
		err := NewConn(p.client, Options{}).Do(t.Context(), HeatMeter, &GetRegisterRequest{[]uint16{60, 60}}, &a)
		if err != nil || !slices.Equal(ids(a.Registers), []uint16{60, 60}) {
			t.Errorf("%v, %v", ids(a.Registers), err)
		}
	})
}

// ownAnswer is an answer of a caller's own type.
type ownAnswer struct{ GetRegisterAnswer }

func TestConnDoOwnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, func(_ int, _ Frame, w io.Writer) { w.Write(reply(t, HeatMeter, 60)) })
		var a ownAnswer
		err := NewConn(p.client, Options{}).Do(t.Context(), HeatMeter, &GetRegisterRequest{[]uint16{60}}, &a)
		if err != nil || !slices.Equal(ids(a.Registers), []uint16{60}) {
			t.Errorf("%v, %v", a, err)
		}
	})
}

func TestConnTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, func(_ int, _ Frame, w io.Writer) { w.Write(unhex(t, "00 403F0201234567E9560D")) })
		var seen []string
		c := NewConn(p.client, Options{Trace: func(dir Direction, wire []byte) {
			seen = append(seen, dir.String()+" "+hex.EncodeToString(wire))
		}})
		if _, err := c.GetSerialNo(t.Context(), HeatMeter); err != nil {
			t.Fatal(err)
		}
		want := []string{"to_meter 803f0235e90d", "from_meter 00403f0201234567e9560d"}
		if !slices.Equal(seen, want) {
			t.Errorf("%q", seen)
		}
	})
}

func TestConnWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, func(_ int, f Frame, w io.Writer) { w.Write(reply(t, f.Address, 60)) })
		c := NewConn(p.client, Options{})
		if err := c.Write(t.Context(), unhex(t, "803F1001003CB25F0D")); err != nil {
			t.Fatal(err)
		}
		got, err := c.ReadUntilStop(t.Context())
		if err != nil || !bytes.Equal(got, reply(t, HeatMeter, 60)) {
			t.Errorf("% X, %v", got, err)
		}
	})
}

func TestConnReadUntilStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, meter := net.Pipe()
		defer client.Close()
		c := NewConn(client, Options{})
		go meter.Write([]byte{1, 2, Stop, 3, Stop, 4})
		for _, want := range [][]byte{{1, 2, Stop}, {3, Stop}} {
			if got, err := c.ReadUntilStop(t.Context()); err != nil || !bytes.Equal(got, want) {
				t.Errorf("% X, %v", got, err)
			}
		}
		start := time.Now()
		got, err := c.ReadUntilStop(t.Context())
		if !errors.Is(err, ErrNoReply) || !bytes.Equal(got, []byte{4}) || time.Since(start) != DefaultTimeout {
			t.Errorf("% X, %v after %v", got, err, time.Since(start))
		}
		go meter.Write(bytes.Repeat([]byte{0xAA}, 2*MaxFrame+1))
		if got, err := c.ReadUntilStop(t.Context()); !errors.Is(err, ErrTooLong) || len(got) != 2*MaxFrame {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

func TestConnReadN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, meter := net.Pipe()
		defer client.Close()
		c := NewConn(client, Options{})
		go meter.Write([]byte{1, Stop, 3, 4})
		if got, err := c.ReadN(t.Context(), 3); err != nil || !bytes.Equal(got, []byte{1, Stop, 3}) {
			t.Errorf("% X, %v", got, err)
		}
		if got, err := c.ReadN(t.Context(), 0); err != nil || len(got) != 0 {
			t.Errorf("% X, %v", got, err)
		}
		if got, err := c.ReadN(t.Context(), 2); !errors.Is(err, ErrNoReply) || !bytes.Equal(got, []byte{4}) {
			t.Errorf("% X, %v", got, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.ReadN(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		meter.Close()
		if _, err := c.ReadN(t.Context(), 1); !closed(err) {
			t.Errorf("%v", err)
		}
	})
}
