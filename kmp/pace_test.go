package kmp

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// slowPipe answers every request with what answer returns, each answer on its own and
// after the line's latency: a later request does not wait for it.
func slowPipe(t *testing.T, latency func() time.Duration, answer func(n int, q GetRegisterRequest) []byte) *pipe {
	t.Helper()
	out := make(chan []byte, 1000) // a net.Pipe carries one answer at a time
	p := newPipe(t, func(n int, f Frame, _ io.Writer) {
		var q GetRegisterRequest
		if err := q.DecodeData(f.Data); err != nil {
			t.Error(err)
		}
		wire := answer(n, q)
		time.AfterFunc(latency(), func() { out <- wire })
	})
	go func() {
		for {
			select {
			case wire := <-out:
				p.meter.Write(wire)
			case <-t.Context().Done():
				return
			}
		}
	}()
	return p
}

func constant(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

// counted is an answer that holds the number of its request as the value.
func counted(t testing.TB, n int, ids ...uint16) []byte {
	t.Helper()
	var a GetRegisterAnswer
	for _, id := range ids {
		a.Registers = append(a.Registers, Register{ID: id, Unit: UnitGJ, Raw: []byte{byte(n >> 8), byte(n)}})
	}
	wire, err := AppendMessage(nil, FromMeter, HeatMeter, &a)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// A line that takes longer than the time-out becomes readable and stays so; when it is
// quick again, the time-out comes back.
func TestConnLearnsTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const latency = 3 * time.Second
		var now atomic.Int64
		now.Store(int64(latency))
		p := slowPipe(t, func() time.Duration { return time.Duration(now.Load()) },
			func(n int, q GetRegisterRequest) []byte { return counted(t, n, q.IDs...) })
		c := NewConn(p.client, Options{})
		read := func() {
			t.Helper()
			if _, err := c.GetRegister(t.Context(), HeatMeter, 60, 68); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		read()
		if s := c.Stats(); s.Retries != 1 {
			t.Errorf("the first reading took %d repetitions, want 1: the second request waits long enough", s.Retries)
		}
		for range 300 {
			read()
			if s := c.Stats(); s.Timeout < latency*5/4-time.Second/5 || s.Timeout > 5*time.Second {
				t.Fatalf("time-out %v on a line of %v", s.Timeout, latency)
			}
		}
		if s := c.Stats(); s.Retries != 1 || s.Foreign != 0 {
			t.Errorf("stats %+v, want no repetition after the first reading", s)
		}
		now.Store(int64(100 * time.Millisecond))
		for range 300 {
			read()
		}
		if s := c.Stats(); s.Timeout != DefaultTimeout || s.Retries != 1 {
			t.Errorf("stats %+v, want the time-out back at %v", s, DefaultTimeout)
		}
	})
}

// Whatever the latency, a line becomes readable after a few readings, and no answer to
// a reading before is ever taken for one of this reading.
func TestConnTakesNoLateAnswer(t *testing.T) {
	for _, latency := range []time.Duration{
		1900 * time.Millisecond, 2100 * time.Millisecond, 3500 * time.Millisecond, 3700 * time.Millisecond, 4500 * time.Millisecond,
		5500 * time.Millisecond, 7 * time.Second, 9500 * time.Millisecond,
	} {
		for _, pause := range []time.Duration{11 * time.Second, 30 * time.Minute} { // longer than any latency
			synctest.Test(t, func(t *testing.T) {
				p := slowPipe(t, constant(latency), func(n int, q GetRegisterRequest) []byte { return counted(t, n, q.IDs...) })
				c := NewConn(p.client, Options{})
				failed := 0
				for range 40 {
					requests, _ := p.requests()
					first := len(requests)
					registers, err := c.GetRegister(t.Context(), HeatMeter, 60, 68)
					if err != nil {
						failed++
					}
					for _, r := range registers {
						if n := int(r.Raw[0])<<8 | int(r.Raw[1]); n < first {
							t.Errorf("latency %v: the answer to request %d, which came before request %d", latency, n, first)
						}
					}
					time.Sleep(pause)
				}
				if s := c.Stats(); failed > 4 || s.Timeout > maxTimeout {
					t.Errorf("latency %v, readings every %v: %d of 40 failed, stats %+v", latency, pause, failed, s)
				}
			})
		}
	}
}

// Answers that are late beyond measure, and pauses as long, do not raise the limits
// without end.
func TestConnLearnsWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := slowPipe(t, constant(time.Minute), func(n int, q GetRegisterRequest) []byte { return counted(t, n, q.IDs...) })
		c := NewConn(p.client, Options{})
		last := c.Stats().Timeout
		for range 10 {
			if _, err := c.GetRegister(t.Context(), HeatMeter, 60); !errors.Is(err, ErrNoReply) {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Minute)
			// Two answers at a time; how long they waited on the line says nothing.
			if now := c.Stats().Timeout; now < last || now > last*9/4 || now > 10*time.Second {
				t.Fatalf("time-out %v after %v", now, last)
			} else {
				last = now
			}
		}
	})
	for name, tt := range map[string]struct {
		opts         Options
		timeout, gap time.Duration
	}{
		"default":                  {Options{}, DefaultTimeout, DefaultGap},
		"kept from before":         {Options{StartTimeout: 4 * time.Second, StartGap: time.Second}, 4 * time.Second, time.Second},
		"less than the least":      {Options{StartTimeout: time.Second, StartGap: time.Millisecond}, DefaultTimeout, DefaultGap},
		"too much from before":     {Options{StartTimeout: time.Hour, StartGap: time.Hour}, maxTimeout, maxGap},
		"more than can be learned": {Options{Timeout: 20 * time.Second, Gap: 3 * time.Second}, 20 * time.Second, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPace(NewConn(nil, tt.opts).opts)
			if p.timeout != tt.timeout || p.gap != tt.gap {
				t.Fatalf("begins with %v and %v, want %v and %v", p.timeout, p.gap, tt.timeout, tt.gap)
			}
			for range 50 {
				p.late(9 * time.Second)
				p.cut(maxGap)
			}
			if p.timeout != max(tt.timeout, maxTimeout) || p.gap != max(tt.gap, maxGap) {
				t.Errorf("grew to %v and %v", p.timeout, p.gap)
			}
			for range 1000 {
				p.good(100*time.Millisecond, 16*time.Millisecond)
			}
			if p.timeout != p.leastTimeout || p.gap != p.leastGap {
				t.Errorf("came back to %v and %v, want %v and %v", p.timeout, p.gap, p.leastTimeout, p.leastGap)
			}
		})
	}
}

// A pause inside answers costs one repetition, and then the gap allows for it.
func TestConnLearnsTheGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pause = 400 * time.Millisecond
		var gone atomic.Bool
		p := newPipe(t, func(_ int, _ Frame, w io.Writer) {
			for part := range slices.Chunk(reply(t, HeatMeter, 60, 68), 6) {
				w.Write(part)
				if !gone.Load() {
					time.Sleep(pause)
				}
			}
		})
		c := NewConn(p.client, Options{})
		for i := range 200 {
			if _, err := c.GetRegister(t.Context(), HeatMeter, 60, 68); err != nil {
				t.Fatal(err)
			}
			if s := c.Stats(); s.Retries != 1 || s.Gap < pause || s.Gap > 600*time.Millisecond || s.RequestSize != 8 {
				t.Fatalf("reading %d: stats %+v", i, s)
			}
		}
		gone.Store(true)
		for range 200 {
			if _, err := c.GetRegister(t.Context(), HeatMeter, 60, 68); err != nil {
				t.Fatal(err)
			}
		}
		if s := c.Stats(); s.Gap != DefaultGap || s.Retries != 1 || s.Timeout != DefaultTimeout {
			t.Errorf("stats %+v", s)
		}
	})
}

// A cut answer whose rest never comes, and a pause beyond all bounds, teach nothing.
func TestConnLearnsNoGapFromDamage(t *testing.T) {
	good := reply(t, HeatMeter, 60)
	for name, rest := range map[string]func(w io.Writer){
		"no rest":     func(io.Writer) {},
		"other bytes": func(w io.Writer) { time.Sleep(400 * time.Millisecond); w.Write(good[9:]) },
		"too late":    func(w io.Writer) { time.Sleep(2100 * time.Millisecond); w.Write(good[7:]) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipe(t, func(n int, _ Frame, w io.Writer) {
					if n > 0 {
						w.Write(good)
						return
					}
					w.Write(good[:7])
					rest(w)
				})
				c := NewConn(p.client, Options{})
				if _, err := c.GetRegister(t.Context(), HeatMeter, 60); err != nil {
					t.Fatal(err)
				}
				if s := c.Stats(); s.Gap != DefaultGap || s.Timeout != DefaultTimeout || s.Retries != 1 {
					t.Errorf("stats %+v", s)
				}
			})
		})
	}
}

// An answer to another request than the one that waits is late when one was given up.
func TestConnLearnsFromForeignAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := slowPipe(t, func() func() time.Duration {
			latencies := []time.Duration{5 * time.Second, 1500 * time.Millisecond}
			return func() (d time.Duration) {
				d, latencies = latencies[0], latencies[1:]
				return d
			}
		}(), func(_ int, q GetRegisterRequest) []byte { return reply(t, HeatMeter, q.IDs...) })
		c := NewConn(p.client, Options{Retries: -1})
		if _, err := c.GetRegister(t.Context(), HeatMeter, 60); !errors.Is(err, ErrNoReply) {
			t.Fatal(err)
		}
		registers, err := c.GetRegister(t.Context(), HeatMeter, 68)
		if err != nil || !slices.Equal(ids(registers), []uint16{68}) {
			t.Fatalf("%v, %v", ids(registers), err)
		}
		if s := c.Stats(); s.Foreign != 1 || s.Timeout < 2800*time.Millisecond {
			t.Errorf("stats %+v", s)
		}
	})
}

// A repeated answer is not a late one: what was given up is too long ago.
func TestConnLearnsNothingFromRepetitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t, func(n int, f Frame, w io.Writer) {
			var q GetRegisterRequest
			if err := q.DecodeData(f.Data); err != nil {
				t.Error(err)
			}
			if n == 0 { // the meter sleeps
				return
			}
			answer := reply(t, HeatMeter, q.IDs...)
			w.Write(answer)
			if n > 3 {
				time.Sleep(5 * time.Millisecond)
				w.Write(answer)
			}
		})
		c := NewConn(p.client, Options{})
		for id := range uint16(20) {
			if _, err := c.GetRegister(t.Context(), HeatMeter, id); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute) // the repetition is on the line
		}
		if s := c.Stats(); s.Timeout != DefaultTimeout || s.Gap != DefaultGap {
			t.Errorf("stats %+v", s)
		}
	})
}

// From a head that damages long answers a meter is read with small requests, which
// are remembered, tried again with patience, and grow once the fault is gone.
func TestConnRemembersTheRequestSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const damaging = 40
		var longest atomic.Int64 // bytes of an answer that come through
		longest.Store(damaging)
		p := newPipe(t, func(_ int, f Frame, w io.Writer) {
			var q GetRegisterRequest
			if err := q.DecodeData(f.Data); err != nil {
				t.Error(err)
			}
			answer := reply(t, HeatMeter, q.IDs...)
			if len(answer) > int(longest.Load()) {
				answer[damaging] ^= 0x20
			}
			w.Write(answer)
		})
		want := []uint16{1, 2, 3, 4, 5, 7, 8, 9}
		c := NewConn(p.client, Options{})
		read := func() {
			t.Helper()
			registers, err := c.GetRegister(t.Context(), HeatMeter, want...)
			if err != nil || !slices.Equal(ids(registers), want) {
				t.Fatalf("%v, %v", ids(registers), err)
			}
		}
		read()
		if s := c.Stats(); s.RequestSize != 4 || s.Retries != 1 || s.Requests != 4 {
			t.Fatalf("after the damage: %+v", s)
		}
		for range 99 {
			read()
		}
		// Larger ones were tried again after 10, 20, 40 and 80 of the 200 requests.
		if s := c.Stats(); s.Retries != 5 || s.RequestSize != 4 {
			t.Errorf("after 100 readings: %+v", s)
		}
		longest.Store(MaxFrame)
		for range 120 {
			read()
		}
		if s := c.Stats(); s.Retries != 5 || s.RequestSize != 8 {
			t.Errorf("the fault is gone: %+v", s)
		}
		longest.Store(damaging) // once more: the patience of before is forgotten
		for range 7 {
			read()
		}
		if s := c.Stats(); s.Retries != 7 || s.RequestSize != 4 {
			t.Errorf("the fault is back: %+v", s)
		}
	})
}

func TestConnRequestSizeToBeginWith(t *testing.T) {
	for _, tt := range []struct {
		begin, want int
	}{{0, 8}, {1, 1}, {2, 2}, {8, 8}, {9, 8}, {-1, 8}} {
		synctest.Test(t, func(t *testing.T) {
			p := slowPipe(t, constant(0), func(_ int, q GetRegisterRequest) []byte { return reply(t, HeatMeter, q.IDs...) })
			c := NewConn(p.client, Options{RequestSize: tt.begin})
			if _, err := c.GetRegister(t.Context(), HeatMeter, 1, 2, 3, 4, 5, 7, 8, 9); err != nil {
				t.Fatal(err)
			}
			asked, _ := p.requests()
			if got := int(asked[0].Data[0]); got != tt.want || c.Stats().RequestSize != tt.want {
				t.Errorf("begin with %d: asked for %d, stats say %d, want %d", tt.begin, got, c.Stats().RequestSize, tt.want)
			}
		})
	}
}

// Silence and noise are no reason to ask for less; an answer that loses its end is.
func TestConnAsksForLessAfterDamageAlone(t *testing.T) {
	wanted := []uint16{1, 2, 3, 4, 5, 7, 8, 9}
	whole := reply(t, HeatMeter, wanted...)
	for name, tt := range map[string]struct {
		came []byte
		want int
	}{
		"silence":       {nil, 8},
		"noise":         {bytes.Repeat([]byte{0xFF}, 60), 8},
		"another meter": {reply(t, HeatMeter, 60), 8},
		"cut short":     {whole[:len(whole)-3], 1}, // and so at every size
		"without start": {whole[1:], 8},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipe(t, func(_ int, _ Frame, w io.Writer) { w.Write(tt.came) })
				c := NewConn(p.client, Options{})
				if _, err := c.GetRegister(t.Context(), HeatMeter, wanted...); err == nil {
					t.Fatal("no error")
				}
				if s := c.Stats(); s.RequestSize != tt.want {
					t.Errorf("asks for %d, want %d", s.RequestSize, tt.want)
				}
			})
		})
	}
}

func TestConnFirstByte(t *testing.T) {
	ask, err := AppendMessage(nil, ToMeter, HeatMeter, &GetRegisterRequest{[]uint16{60}})
	if err != nil {
		t.Fatal(err)
	}
	send := time.Duration(len(ask)) * DefaultByteTime
	type part struct {
		after time.Duration
		bytes []byte
	}
	for name, tt := range map[string]struct {
		parts []part
		want  time.Duration
	}{
		"nothing":         {nil, 0},
		"answer":          {[]part{{send + 300*time.Millisecond, reply(t, HeatMeter, 60)}}, 300 * time.Millisecond},
		"echo and answer": {[]part{{send, ask}, {250 * time.Millisecond, reply(t, HeatMeter, 60)}}, 250 * time.Millisecond},
		"echo alone":      {[]part{{send, ask}}, 0},
		"zero and answer": {[]part{{send, []byte{0}}, {time.Second, reply(t, HeatMeter, 60)}}, time.Second},
		"noise":           {[]part{{send + time.Second, []byte{0xFF}}}, time.Second},
		"at once":         {[]part{{0, reply(t, HeatMeter, 60)}}, time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipe(t, func(_ int, _ Frame, w io.Writer) {
					for _, part := range tt.parts {
						time.Sleep(part.after)
						w.Write(part.bytes)
					}
				})
				c := NewConn(p.client, Options{Retries: -1})
				_, err := c.GetRegister(t.Context(), HeatMeter, 60)
				if s := c.Stats(); s.FirstByte != tt.want {
					t.Errorf("first byte after %v, want %v (%v)", s.FirstByte, tt.want, err)
				}
			})
		})
	}
}

// The meter is awake for 1.6 s from each answer's first byte; what overlaps counts once.
func TestConnAwake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := reply(t, HeatMeter, 60)
		bad[7] ^= 0x10
		p := newPipe(t, func(n int, _ Frame, w io.Writer) {
			switch n {
			case 0, 1, 2, 3:
				w.Write(reply(t, HeatMeter, 60))
			case 4:
				w.Write(bad)
			}
		})
		c := NewConn(p.client, Options{Retries: -1})
		for i, step := range []struct {
			pause time.Duration // before the reading
			more  time.Duration
		}{
			{0, 1600 * time.Millisecond},
			{500 * time.Millisecond, 500 * time.Millisecond},
			{time.Second, time.Second},
			{time.Minute, 1600 * time.Millisecond},
			{time.Minute, 1600 * time.Millisecond}, // damaged
			{time.Minute, 0},                       // silent
		} {
			time.Sleep(step.pause)
			before := c.Stats().Awake
			_, _ = c.GetRegister(t.Context(), HeatMeter, 60)
			// A request waits up to a byte time for the line to settle.
			if more := c.Stats().Awake - before; more < step.more || more > step.more+12*time.Millisecond {
				t.Errorf("reading %d: %v more, want %v", i, more, step.more)
			}
		}
	})
}
