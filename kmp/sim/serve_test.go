package sim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
)

// request is a GetRegister request as it goes on the wire.
func request(t testing.TB, ids ...uint16) []byte {
	t.Helper()
	wire, err := kmp.AppendMessage(nil, kmp.ToMeter, kmp.HeatMeter, &kmp.GetRegisterRequest{IDs: ids})
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// client is the far end of a line on which a meter is served.
type client struct {
	t    *testing.T
	line kmp.Line
	m    *Meter
}

func newClient(t *testing.T, c Config) client {
	t.Helper()
	m := newMeter(t, c)
	line := m.Line(t.Context())
	t.Cleanup(func() { line.Close() })
	return client{t, line, m}
}

func (c client) send(wire []byte) {
	c.t.Helper()
	if _, err := c.line.Write(wire); err != nil {
		c.t.Fatal(err)
	}
}

// piece is what one read brought, and how long after the start of listening.
type piece struct {
	bytes []byte
	after time.Duration
}

// listen collects what comes within d.
func (c client) listen(d time.Duration) (pieces []piece, all []byte) {
	c.t.Helper()
	start := time.Now()
	c.line.SetReadDeadline(start.Add(d))
	for {
		buf := make([]byte, 1024)
		n, err := c.line.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return pieces, all
		}
		if err != nil {
			c.t.Fatal(err)
		}
		pieces = append(pieces, piece{buf[:n], time.Since(start)})
		all = append(all, buf[:n]...)
	}
}

// ask sends a request for registers and returns what comes back within five seconds.
func (c client) ask(ids ...uint16) []byte {
	c.t.Helper()
	c.send(request(c.t, ids...))
	_, all := c.listen(5 * time.Second)
	return all
}

// want is the answer that a request for registers gets when nothing is wrong.
func (c client) want(ids ...uint16) []byte {
	c.t.Helper()
	wire, err := kmp.AppendMessage(nil, kmp.FromMeter, kmp.HeatMeter, &kmp.GetRegisterAnswer{Registers: c.m.registers(ids)})
	if err != nil {
		c.t.Fatal(err)
	}
	return wire
}

// still keeps the values of a meter the same for an hour.
const still = time.Hour

func TestServeAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: still, Serial: 19088743})
		conn := kmp.NewConn(c.line, kmp.Options{})
		serial, err := conn.GetSerialNo(t.Context(), kmp.HeatMeter)
		if err != nil || serial != 19088743 {
			t.Errorf("serial %d, %v", serial, err)
		}
		kind, err := conn.GetType(t.Context(), kmp.HeatMeter)
		if err != nil || kind.MeterType != 0x0403 || kind.Revision.String() != "F1" {
			t.Errorf("type %+v, %v", kind, err)
		}
		ids := []uint16{89, 60, 68, 0xFFFF, 86, 74, 80, 87, 1001, 266, 1004}
		got, err := conn.GetRegister(t.Context(), kmp.HeatMeter, ids...)
		if err != nil {
			t.Fatal(err)
		}
		if want := c.m.registers(ids); !slices.EqualFunc(got, want, equal) {
			t.Errorf("got %v, want %v", got, want)
		}
		if s := conn.Stats(); s.Retries != 0 || s.Echo || s.BadFrames != 0 {
			t.Errorf("a clean line had %+v", s)
		}
	})
}

func equal(a, b kmp.Register) bool {
	return a.ID == b.ID && a.Unit == b.Unit && a.SiEx == b.SiEx && bytes.Equal(a.Raw, b.Raw)
}

func TestServeOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: still})
		ids := []uint16{1004, 60, 89, 86, 60}
		f, err := kmp.DecodeFrame(c.ask(ids...))
		if err != nil {
			t.Fatal(err)
		}
		var a kmp.GetRegisterAnswer
		if err := a.DecodeData(f.Data); err != nil {
			t.Fatal(err)
		}
		for i, r := range a.Registers {
			if r.ID != ids[i] {
				t.Errorf("register %d of the answer is %d, want %d", i, r.ID, ids[i])
			}
		}
		if len(a.Registers) != len(ids) {
			t.Errorf("%d registers", len(a.Registers))
		}
	})
}

func TestServeTurnaround(t *testing.T) {
	for _, test := range []struct{ set, want time.Duration }{
		{0, 20 * time.Millisecond},
		{150 * time.Millisecond, 150 * time.Millisecond},
		{-1, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newClient(t, Config{Turnaround: test.set})
			c.send(request(t, 60))
			if pieces, _ := c.listen(time.Second); len(pieces) != 1 || pieces[0].after != test.want {
				t.Errorf("%v: %v", test.set, pieces)
			}
		})
	}
}

func TestServeSilence(t *testing.T) {
	good := request(t, 60)
	badCRC := slices.Clone(good)
	badCRC[len(good)-2] ^= 1
	frame := func(cmd kmp.Command, data ...byte) []byte {
		return kmp.AppendFrame(nil, kmp.ToMeter, kmp.HeatMeter, cmd, data)
	}
	for name, wire := range map[string][]byte{
		"bad CRC":             badCRC,
		"foreign address":     kmp.AppendFrame(nil, kmp.ToMeter, kmp.LoggerTop, kmp.CmdGetType, nil),
		"unknown command":     frame(0xA0),
		"answer's start byte": append([]byte{0x40}, good[1:]...),
		"odd escape":          {0x80, 0x3F, 0x10, 0x1B, 0x00, 0x0D},
		"lone escape":         {0x80, 0x3F, 0x10, 0x01, 0x00, 0x3C, 0xB2, 0x1B, 0x0D},
		"no registers":        frame(kmp.CmdGetRegister, 0),
		"no count":            frame(kmp.CmdGetRegister),
		"nine registers":      frame(kmp.CmdGetRegister, append([]byte{9}, make([]byte, 18)...)...),
		"count too large":     frame(kmp.CmdGetRegister, 2, 0, 60),
		"count too small":     frame(kmp.CmdGetRegister, 1, 0, 60, 0, 68),
		"type with data":      frame(kmp.CmdGetType, 1),
		"serial with data":    frame(kmp.CmdGetSerialNo, 1, 2),
		"no stop byte":        good[:len(good)-1],
		"nothing":             nil,
		"only a start byte":   {0x80},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClient(t, Config{Integration: still})
				c.send(wire)
				if _, got := c.listen(5 * time.Second); len(got) != 0 {
					t.Errorf("it answered % X", got)
				}
				if got := c.ask(60); !bytes.Equal(got, c.want(60)) {
					t.Errorf("the next good request got % X", got)
				}
			})
		})
	}
}

func TestServeUnknownRegisters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: still, Faults: Faults{MissingRegisters: []uint16{63, 97}}})
		if got := c.ask(0xFFFF); !bytes.Equal(got, []byte{0x40, 0x3F, 0x10, 0x07, 0x9A, 0x0D}) {
			t.Errorf("no register at all: % X", got)
		}
		if got := c.ask(60, 63, 68, 97); !bytes.Equal(got, c.want(60, 68)) {
			t.Errorf("two missing registers: % X", got)
		}
		if _, ok := c.m.Read(97); ok || slices.Contains(c.m.Registers(), 97) {
			t.Error("a missing register can be read")
		}
	})
}

func TestServeOtherAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Address: 0x41, Serial: 5})
		c.send(kmp.AppendFrame(nil, kmp.ToMeter, 0x41, kmp.CmdGetSerialNo, nil))
		_, got := c.listen(time.Second)
		if f, err := kmp.DecodeFrame(got); err != nil || f.Address != 0x41 || !bytes.Equal(f.Data, []byte{0, 0, 0, 5}) {
			t.Errorf("% X: %v", got, err)
		}
	})
}

func TestServeStrict(t *testing.T) {
	for _, test := range []struct {
		strict bool
		gap    time.Duration
		answer bool
	}{
		{true, 27 * time.Millisecond, true},
		{true, 28 * time.Millisecond, false},
		{false, time.Second, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newClient(t, Config{Integration: still, Strict: test.strict})
			wire := request(t, 60)
			c.send(wire[:4])
			time.Sleep(test.gap)
			c.send(wire[4:])
			if _, got := c.listen(time.Second); (len(got) > 0) != test.answer {
				t.Errorf("strict %v, gap %v: % X", test.strict, test.gap, got)
			}
			for range 2 { // requests far apart are no gap
				if got := c.ask(60); !bytes.Equal(got, c.want(60)) {
					t.Errorf("strict %v, gap %v: the next request got % X", test.strict, test.gap, got)
				}
			}
		})
	}
}

// On a line with a pace a request counts when its last byte is through, and each
// byte of the answer comes 9.167 ms after the one before.
func TestServePaced(t *testing.T) {
	const byteTime = 11 * time.Second / 1200
	ids := []uint16{60, 68, 74, 80, 86, 87, 89, 1004}
	for name, send := range map[string]func(c client, wire []byte){
		"at once": func(c client, wire []byte) {
			c.send(wire)
			time.Sleep(time.Duration(len(wire)) * byteTime)
		},
		"byte by byte": func(c client, wire []byte) {
			for _, b := range wire {
				time.Sleep(byteTime)
				c.send([]byte{b})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClient(t, Config{Integration: still, Paced: true})
				for range 3 {
					send(c, request(t, ids...))
					want := c.want(ids...)
					pieces, all := c.listen(3 * time.Second)
					if !bytes.Equal(all, want) || len(pieces) != len(want) {
						t.Fatalf("% X in %d pieces", all, len(pieces))
					}
					for i, p := range pieces {
						if want := 20*time.Millisecond + time.Duration(i+1)*byteTime; p.after != want {
							t.Fatalf("byte %d after %v, want %v", i, p.after, want)
						}
					}
				}
			})
		})
	}
}

func TestServePacedEcho(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: still, Paced: true, ByteTime: 10 * time.Millisecond, Faults: Faults{Echo: true}})
		wire := request(t, 60)
		c.send(wire)
		pieces, all := c.listen(3 * time.Second)
		if want := slices.Concat(wire, c.want(60)); !bytes.Equal(all, want) {
			t.Fatalf("got % X, want % X", all, want)
		}
		for i, p := range pieces {
			want := time.Duration(i+1) * 10 * time.Millisecond
			if i >= len(wire) {
				want += 20 * time.Millisecond
			}
			if p.after != want {
				t.Errorf("byte %d after %v, want %v", i, p.after, want)
			}
		}
	})
}

func TestFaultEcho(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: still, Faults: Faults{Echo: true}})
		if got, want := c.ask(60), append(request(t, 60), c.want(60)...); !bytes.Equal(got, want) {
			t.Errorf("got % X, want % X", got, want)
		}
		conn := kmp.NewConn(c.line, kmp.Options{})
		if _, err := conn.GetRegister(t.Context(), kmp.HeatMeter, 60); err != nil || !conn.Stats().Echo {
			t.Errorf("%v, %+v", err, conn.Stats())
		}
	})
}

func TestFaultSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Faults: Faults{Silence: true, StrayBytes: 1}})
		if got := c.ask(60); len(got) != 0 {
			t.Errorf("% X", got)
		}
		c = newClient(t, Config{Faults: Faults{Silence: true, Echo: true}})
		if got := c.ask(60); !bytes.Equal(got, request(t, 60)) {
			t.Errorf("only the echo: % X", got)
		}
	})
}

func TestFaultNoise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: still, Faults: Faults{Noise: 1}})
		var before, behind int
		for range 20 {
			got, want := c.ask(60), c.want(60)
			i := bytes.Index(got, want)
			if i < 0 {
				t.Fatalf("no answer in % X", got)
			}
			before, behind = before+i, behind+len(got)-len(want)-i
		}
		if before < 20 || behind < 20 || before > 20*maxNoise || behind > 20*maxNoise {
			t.Errorf("%d bytes before and %d behind 20 answers", before, behind)
		}
	})
}

func TestFaultStrayBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: still, Faults: Faults{StrayBytes: 1}})
		pieces, all := c.listen(5500 * time.Millisecond)
		if len(pieces) != 5 || !bytes.Equal(all, make([]byte, 5)) {
			t.Errorf("while nothing happened: %v", pieces)
		}
		c.send(request(t, 60))
		if _, got := c.listen(400 * time.Millisecond); !bytes.Equal(got, append([]byte{0}, c.want(60)...)) {
			t.Errorf("before an answer: % X", got)
		}
	})
}

func TestFaultLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: still, Faults: Faults{Lost: 1}})
		if got := c.ask(60); len(got) != 0 {
			t.Errorf("always lost: % X", got)
		}
		c = newClient(t, Config{Integration: still, Seed: 3, Faults: Faults{Lost: 0.3}})
		lost := 0
		for range 200 {
			switch got := c.ask(60); {
			case len(got) == 0:
				lost++
			case !bytes.Equal(got, c.want(60)):
				t.Fatalf("% X", got)
			}
		}
		if lost < 40 || lost > 80 {
			t.Errorf("%d of 200 were lost", lost)
		}
	})
}

func TestFaultLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: still, Faults: Faults{Late: 1}})
		c.send(request(t, 60))
		if pieces, all := c.listen(5 * time.Second); len(pieces) != 1 || pieces[0].after != 3020*time.Millisecond || !bytes.Equal(all, c.want(60)) {
			t.Errorf("%v", pieces)
		}
		conn := kmp.NewConn(c.line, kmp.Options{Retries: -1})
		if _, err := conn.GetRegister(t.Context(), kmp.HeatMeter, 60); !errors.Is(err, kmp.ErrNoReply) {
			t.Errorf("a client that waits two seconds: %v", err)
		}
	})
}

func TestFaultCorrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: still, Faults: Faults{Corrupted: 1}})
		for range 50 {
			got, want := c.ask(60), c.want(60)
			if len(got) != len(want) || bytes.Equal(got, want) {
				t.Errorf("% X", got)
			}
			if _, err := kmp.DecodeFrame(got); err == nil {
				t.Errorf("% X is a good frame", got)
			}
		}
	})
}

func TestFaultTruncated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: still, Faults: Faults{Truncated: 1}})
		lengths := map[int]bool{}
		for range 50 {
			got, want := c.ask(60), c.want(60)
			if len(got) == 0 || len(got) >= len(want) || !bytes.HasPrefix(want, got) {
				t.Errorf("% X", got)
			}
			lengths[len(got)] = true
		}
		if len(lengths) < 5 {
			t.Errorf("always cut at the same places: %v", lengths)
		}
	})
}

func TestFaultDuplicated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: still, Faults: Faults{Duplicated: 1}})
		if got := c.ask(60); !bytes.Equal(got, bytes.Repeat(c.want(60), 2)) {
			t.Errorf("% X", got)
		}
	})
}

func TestFaultByteByByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: still, Faults: Faults{ByteByByte: true}})
		c.send(request(t, 60))
		want := c.want(60)
		pieces, all := c.listen(time.Second)
		if !bytes.Equal(all, want) || len(pieces) != len(want) {
			t.Errorf("% X in %d pieces", all, len(pieces))
		}
		if pieces[0].after != 20*time.Millisecond || pieces[1].after != 21*time.Millisecond {
			t.Errorf("%v", pieces)
		}
	})
}

func TestFaultSleepAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Integration: still, Faults: Faults{SleepAfter: 4 * time.Minute}})
		time.Sleep(time.Hour) // not served yet: its time has not begun
		line := m.Line(t.Context())
		defer line.Close()
		c := client{t, line, m}
		synctest.Wait()
		time.Sleep(4*time.Minute - time.Second)
		if got := c.ask(60); len(got) == 0 {
			t.Error("it slept too early")
		}
		if got := c.ask(60); len(got) != 0 {
			t.Errorf("it did not sleep: % X", got)
		}
		second := m.Line(t.Context()) // another head does not wake it
		defer second.Close()
		if got := (client{t, second, m}).ask(60); len(got) != 0 {
			t.Errorf("it woke up: % X", got)
		}
		m.Wake()
		if got := c.ask(60); !bytes.Equal(got, c.want(60)) {
			t.Errorf("after waking: % X", got)
		}
	})
}

// The same seed spoils the same answers.
func TestFaultsAreDeterministic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults := Faults{Noise: 0.3, Lost: 0.2, Corrupted: 0.3, Truncated: 0.2, Duplicated: 0.2, StrayBytes: 0.2}
		run := func(seed uint64) (all []byte) {
			c := newClient(t, Config{Integration: still, Seed: seed, Faults: faults})
			for range 20 {
				all = append(all, c.ask(60, 68)...)
			}
			return all
		}
		if a, b := run(1), run(1); !bytes.Equal(a, b) {
			t.Error("two runs of one seed differ")
		}
		if a, b := run(1), run(2); bytes.Equal(a, b) {
			t.Error("two seeds give the same faults")
		}
	})
}

// A client reads the right values over a line on which everything goes wrong now and then.
func TestClientSurvivesAllFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: 1800 * time.Second, Paced: true, Faults: Faults{
			Echo: true, Noise: 0.2, StrayBytes: 0.1, Lost: 0.1, Late: 0.1, Corrupted: 0.1, Truncated: 0.1, Duplicated: 0.1,
		}})
		conn := kmp.NewConn(c.line, kmp.Options{Retries: 20})
		for range 50 {
			got, err := conn.GetRegister(t.Context(), kmp.HeatMeter, 1001, 60, 0xFFFF)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 2 || !slices.EqualFunc(got[:1], c.m.registers([]uint16{1001}), equal) {
				t.Fatalf("%v", got)
			}
		}
	})
}

func TestServeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{})
		here, there := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- m.Serve(t.Context(), there) }()
		here.Close()
		if err := <-done; err != nil {
			t.Errorf("the client closed: %v", err)
		}

		here, there = net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- m.Serve(ctx, there) }()
		if _, err := here.Write(request(t, 60)); err != nil {
			t.Fatal(err)
		}
		cancel() // in the middle of the turnaround
		if err := <-done; err != nil {
			t.Errorf("ctx ended: %v", err)
		}
		if _, err := here.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the line was left open: %v", err)
		}
	})
}

var errBroken = errors.New("broken")

// broken is a line that fails.
type broken struct{ net.Conn }

func (b broken) Read([]byte) (int, error) { return 0, errBroken }

func TestServeReportsABrokenLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer here.Close()
		if err := newMeter(t, Config{}).Serve(t.Context(), broken{there}); !errors.Is(err, errBroken) {
			t.Errorf("%v", err)
		}
	})
}

// A client that does not read loses answers; it does not hold the meter up.
func TestServeClientThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Integration: still})
		here, there := net.Pipe()
		defer here.Close()
		go m.Serve(t.Context(), there)
		for range 50 {
			if _, err := here.Write(request(t, 60)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		if _, err := here.Write(request(t, 68)); err != nil {
			t.Fatal(err)
		}
		c := client{t, here, m}
		if _, got := c.listen(time.Second); !bytes.Equal(got, c.want(68)) {
			t.Errorf("% X", got)
		}
	})
}

func TestLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		line := newMeter(t, Config{Integration: still, Turnaround: -1}).Line(ctx)
		if n, err := line.Read(nil); n != 0 || err != nil {
			t.Errorf("an empty read: %d, %v", n, err)
		}
		line.SetReadDeadline(time.Now().Add(-time.Second))
		if _, err := line.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a deadline in the past: %v", err)
		}
		line.SetReadDeadline(time.Time{})
		go func() {
			time.Sleep(time.Second)
			line.SetReadDeadline(time.Now())
		}()
		if _, err := line.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a deadline set while a read waits: %v", err)
		}
		line.SetReadDeadline(time.Time{})

		for range 10_000 { // nobody reads; what does not fit is lost, nobody waits
			if _, err := line.Write(request(t, 60)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		all, err := io.ReadAll(line)
		if err != nil || len(all) == 0 || len(all) > buffered {
			t.Errorf("%d bytes, %v", len(all), err)
		}
		if _, err := line.Write([]byte{1}); err == nil {
			t.Error("a write to a line that has ended succeeded")
		}
		line.Close()
		if _, err := line.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
			t.Errorf("read after close: %v", err)
		}
		if _, err := line.Write([]byte{1}); !errors.Is(err, os.ErrClosed) {
			t.Errorf("write after close: %v", err)
		}
		if err := line.SetReadDeadline(time.Time{}); !errors.Is(err, os.ErrClosed) {
			t.Errorf("deadline after close: %v", err)
		}
	})
}

func TestServeListener(t *testing.T) {
	m := newMeter(t, Config{Integration: still, Turnaround: -1})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.ServeListener(ctx, l) }()
	var conns []*kmp.Conn
	for range 3 {
		line, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer line.Close()
		conns = append(conns, kmp.NewConn(line, kmp.Options{}))
	}
	for _, conn := range conns {
		if got, err := conn.GetRegister(t.Context(), kmp.HeatMeter, 60, 86); err != nil || !slices.EqualFunc(got, m.registers([]uint16{60, 86}), equal) {
			t.Errorf("%v, %v", got, err)
		}
	}
	conns[0].Close()
	if _, err := conns[1].GetSerialNo(t.Context(), kmp.HeatMeter); err != nil {
		t.Errorf("another client left: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("ServeListener: %v", err)
	}

	l, err = net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := m.ServeListener(t.Context(), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a listener that is closed already: %v", err)
	}
}

func FuzzServe(f *testing.F) {
	f.Add([]byte{}, true)
	f.Add(request(f, 60), false)
	f.Add([]byte{0x80, 0x3F, 0x10, 0x1B, 0x0D, 0x80, 0x80, 0x06, 0x40}, true)
	f.Add(bytes.Repeat([]byte{0x80, 0x3F}, 600), false)
	f.Add(bytes.Repeat([]byte{0x55}, 5000), true)
	f.Fuzz(func(t *testing.T, input []byte, pieces bool) {
		synctest.Test(t, func(t *testing.T) {
			c := newClient(t, Config{Integration: still, Strict: pieces, Faults: Faults{Echo: pieces}})
			if pieces {
				for chunk := range slices.Chunk(input, 7) {
					c.send(chunk)
					time.Sleep(time.Millisecond)
				}
			} else {
				c.send(input)
			}
			c.listen(time.Minute)
			if got := c.ask(60, 1001); !bytes.HasSuffix(got, c.want(60, 1001)) {
				t.Errorf("a good request got % X", got)
			}
		})
	})
}
