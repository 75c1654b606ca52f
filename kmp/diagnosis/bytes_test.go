package diagnosis

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/link"
	"kmp2mqtt/kmp/sim"
)

// visitor reads a meter as a bridge does, and remembers what a bridge remembers.
type visitor struct {
	conn     *kmp.Conn
	addr     kmp.Address
	family   catalog.Family
	serial   uint32
	before   kmp.Stats
	echo     bool
	good     []time.Time
	lastGood time.Time
}

// simulated visits a simulated meter.
func simulated(t *testing.T, cfg sim.Config) *visitor {
	t.Helper()
	m, err := sim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	v := &visitor{conn: kmp.NewConn(m.Line(t.Context()), kmp.Options{}), addr: kmp.HeatMeter}
	t.Cleanup(func() { v.conn.Close() })
	return v
}

// read reads once: serial number, then registers.
func (v *visitor) read(ctx context.Context, ids ...uint16) Evidence {
	var e Evidence
	serial, err := v.conn.GetSerialNo(ctx, v.addr)
	if err == nil && v.serial != 0 && serial != v.serial {
		err = fmt.Errorf("%w: %d", ErrWrongMeter, serial)
	}
	var registers []kmp.Register
	if err == nil {
		v.serial = serial
		registers, err = v.conn.GetRegister(ctx, v.addr, ids...)
		e.Asked, e.Got = len(ids), len(registers)
	}
	s, b := v.conn.Stats(), v.before
	v.before = s
	e.Err, e.Address, e.Family, e.Now = err, v.addr, v.family, time.Now()
	e.Sent, e.Received = s.BytesSent-b.BytesSent, s.BytesReceived-b.BytesReceived
	e.Answers, e.BadFrames = s.Answers-b.Answers, s.BadFrames-b.BadFrames
	e.ChecksumErrors, e.Foreign = s.ChecksumErrors-b.ChecksumErrors, s.Foreign-b.Foreign
	e.Echo, e.FirstByte, e.EchoBefore = s.Echo, s.FirstByte, v.echo
	e.Sample = FromError(err).Sample
	e.LastGood, e.Sessions = v.lastGood, len(v.good)
	v.echo = v.echo || s.Echo
	if err == nil {
		v.lastGood = e.Now
		v.good = append(v.good, e.Now)
	}
	v.good = slices.DeleteFunc(v.good, func(t time.Time) bool { return e.Now.Sub(t) > 24*time.Hour })
	return e
}

// until reads at an interval until a reading fails, and returns that one.
func (v *visitor) until(t *testing.T, interval time.Duration, ids ...uint16) Evidence {
	t.Helper()
	for range 100 {
		if e := v.read(t.Context(), ids...); e.Err != nil {
			return e
		}
		time.Sleep(interval)
	}
	t.Fatal("no reading fails")
	return Evidence{}
}

// headOver is a head over a meter. Where it is cut off, its line stays open and silent.
func headOver(t *testing.T, cfg sim.Config) (near net.Conn, cut func()) {
	t.Helper()
	m, err := sim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	meter := m.Line(t.Context())
	t.Cleanup(func() { near.Close(); far.Close(); meter.Close() })
	var off atomic.Bool
	go func() {
		p := make([]byte, 64)
		for {
			n, err := far.Read(p)
			if err != nil {
				return
			}
			if !off.Load() {
				meter.Write(p[:n])
			}
		}
	}()
	go io.Copy(far, meter)
	return near, func() { off.Store(true) }
}

// Every class that a meter can cause, from the bytes on a simulated line. Fault by
// fault: the simulator makes the cause, the client sees what it sees.
func TestFromBytes(t *testing.T) {
	faults := func(f sim.Faults) func(*testing.T) Evidence {
		return func(t *testing.T) Evidence {
			t.Helper()
			return simulated(t, sim.Config{Faults: f}).read(t.Context(), 60, 68, 80)
		}
	}
	tests := []struct {
		name string
		want Code
		read func(t *testing.T) Evidence
	}{
		{"good", OK, faults(sim.Faults{})},
		{"good, with echo", OK, faults(sim.Faults{Echo: true})},
		{"nobody there", Silent, faults(sim.Faults{Silence: true})},
		{"nobody there, stray bytes", Silent, faults(sim.Faults{Silence: true, StrayBytes: 1})},
		{"every answer lost", Silent, faults(sim.Faults{Lost: 1})},
		{"head hears itself", EchoOnly, faults(sim.Faults{Silence: true, Echo: true})},
		{"wrong baud rate", NoFrame, faults(sim.Faults{Garbled: true})},
		{"wrong baud rate, with echo", NoFrame, faults(sim.Faults{Garbled: true, Echo: true})},
		{"a MULTICAL 66C", OtherProtocol, faults(sim.Faults{ASCII: true})},
		{"a MULTICAL 66C, with echo", OtherProtocol, faults(sim.Faults{ASCII: true, Echo: true})},
		{"flipped bits", BadChecksums, faults(sim.Faults{Corrupted: 1})},
		{"flipped bits, with echo", BadChecksums, faults(sim.Faults{Corrupted: 1, Echo: true})},
		{"a head that sits badly", BadChecksums, faults(sim.Faults{MaxAnswer: 8})},
		{"answers of another address", WrongAddress, faults(sim.Faults{Foreign: kmp.LoggerTop})},
		{"a logger's address, no logger", WrongAddress, func(t *testing.T) Evidence {
			t.Helper()
			v := simulated(t, sim.Config{})
			v.addr = kmp.LoggerTop
			return v.read(t.Context(), 60)
		}},
		{"none of the registers", NoRegisters, func(t *testing.T) Evidence {
			t.Helper()
			return simulated(t, sim.Config{}).read(t.Context(), 1054, 1055)
		}},
		{"another program's answers", ForeignFrames, func(t *testing.T) Evidence {
			t.Helper()
			near, far := net.Pipe()
			t.Cleanup(func() { near.Close(); far.Close() })
			go func() {
				requests := kmp.NewReader(far, kmp.ToMeter)
				for {
					if _, err := requests.Next(); err != nil {
						return
					}
					far.Write([]byte("\x40\x3F\x01\x00\x04\x1B\xF9\x01\x26\x99\x0D")) // a good answer to GetType
				}
			}()
			v := &visitor{conn: kmp.NewConn(near, kmp.Options{}), addr: kmp.HeatMeter}
			return v.read(t.Context(), 60)
		}},
		{"an answer is lost", Missed, func(t *testing.T) Evidence {
			t.Helper()
			e := simulated(t, sim.Config{Faults: sim.Faults{SleepAfter: 4 * time.Minute}}).until(t, 90*time.Second, 60)
			e.Failures = 1 // the first one since it answered
			return e
		}},
		{"the magnet does not hold", Asleep, func(t *testing.T) Evidence {
			t.Helper()
			return simulated(t, sim.Config{Faults: sim.Faults{SleepAfter: 4 * time.Minute}}).until(t, 90*time.Second, 60)
		}},
		{"the magnet does not hold, with echo", Asleep, func(t *testing.T) Evidence {
			t.Helper()
			return simulated(t, sim.Config{Faults: sim.Faults{SleepAfter: 4 * time.Minute, Echo: true}}).until(t, 90*time.Second, 60)
		}},
		{"a water meter closes its port", Throttled, func(t *testing.T) Evidence {
			t.Helper()
			v := simulated(t, sim.Config{Model: "21", Faults: sim.Faults{Throttle: sim.Throttle{Sessions: 5, Shut: 12 * time.Hour}}})
			v.family = catalog.Water
			return v.until(t, time.Hour, 68)
		}},
		{"the head falls off", EchoMissing, func(t *testing.T) Evidence {
			t.Helper()
			near, cut := headOver(t, sim.Config{Faults: sim.Faults{Echo: true}})
			v := &visitor{conn: kmp.NewConn(near, kmp.Options{}), addr: kmp.HeatMeter}
			if e := v.read(t.Context(), 60); e.Err != nil || !e.Echo {
				t.Fatalf("with the head on: %v", e)
			}
			cut()
			return v.read(t.Context(), 60)
		}},
		{"the meter is swapped", WrongMeter, func(t *testing.T) Evidence {
			t.Helper()
			v := simulated(t, sim.Config{})
			if e := v.read(t.Context(), 60); e.Err != nil {
				t.Fatal(e)
			}
			v.conn, v.before = simulated(t, sim.Config{Serial: 4711}).conn, kmp.Stats{}
			return v.read(t.Context(), 60)
		}},
		{"not tried", NotRead, func(*testing.T) Evidence { return Evidence{Now: time.Now()} }},
		{"given up", Failed, func(t *testing.T) Evidence {
			t.Helper()
			ctx, stop := context.WithCancel(t.Context())
			time.AfterFunc(500*time.Millisecond, stop)
			return simulated(t, sim.Config{Faults: sim.Faults{Silence: true}}).read(ctx, 60)
		}},
		{"the other end closes", LineLost, func(t *testing.T) Evidence {
			t.Helper()
			near, far := net.Pipe()
			v := &visitor{conn: kmp.NewConn(near, kmp.Options{}), addr: kmp.HeatMeter}
			t.Cleanup(func() { v.conn.Close() })
			time.AfterFunc(time.Second, func() { far.Close() })
			go io.Copy(io.Discard, far)
			return v.read(t.Context(), 60)
		}},
		{"the other end takes nothing", LineStuck, func(t *testing.T) Evidence {
			t.Helper()
			near, far := net.Pipe()
			t.Cleanup(func() { near.Close(); far.Close() })
			v := &visitor{conn: kmp.NewConn(near, kmp.Options{}), addr: kmp.HeatMeter}
			return v.read(t.Context(), 60)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := tt.read(t)
				if got := Classify(e); got != tt.want {
					t.Errorf("%s, want %s: %v, sample % X", got, tt.want, e, e.Sample)
				}
			})
		})
	}
	reached := func(c Code) bool {
		for _, tt := range tests {
			if tt.want == c {
				return true
			}
		}
		return slices.Contains(fromPorts, c)
	}
	for _, c := range Classes() {
		if !reached(c.Code) {
			t.Errorf("no bytes and no port lead to %s", c.Code)
		}
	}
}

// fromPorts are the classes that real ports and sockets lead to: TestFromSockets and, on
// Linux, TestFromPorts.
var fromPorts = []Code{PortMissing, PortBusy, PortPermission, HostUnknown, HostUnreachable, ConnectionRefused, ServerRefused, LineLost}

// openError opens a line that must not open.
func openError(t *testing.T, raw string) error {
	t.Helper()
	target, err := link.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	line, err := link.Open(ctx, target)
	if err == nil {
		line.Close()
		t.Fatalf("%s opens", raw)
	}
	return err
}

func wantClass(t *testing.T, err error, want Code) {
	t.Helper()
	if got := Classify(FromError(err)); got != want {
		t.Errorf("%s, want %s: %v", got, want, err)
	}
}

// listen serves every client with serve, on a port of this machine.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return l.Addr().String()
}

// The classes of a network line, from real sockets.
func TestFromSockets(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		wantClass(t, openError(t, "tcp://"+l.Addr().String()), ConnectionRefused)
	})
	t.Run("no port control", func(t *testing.T) {
		addr := listen(t, func(c net.Conn) {
			c.Write([]byte{255, 252, 44, 255, 254, 44}) // will not, do not: COM port control
			io.Copy(io.Discard, c)
			c.Close()
		})
		wantClass(t, openError(t, "rfc2217://"+addr), ServerRefused)
	})
	t.Run("closed while opening", func(t *testing.T) {
		addr := listen(t, func(c net.Conn) { c.Close() })
		wantClass(t, openError(t, "rfc2217://"+addr), LineLost)
	})
	t.Run("one client only", func(t *testing.T) {
		addr := listen(t, func(c net.Conn) { c.Close() })
		target, err := link.Parse("tcp://" + addr)
		if err != nil {
			t.Fatal(err)
		}
		line, err := link.Open(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		v := &visitor{conn: kmp.NewConn(line, kmp.Options{}), addr: kmp.HeatMeter}
		defer v.conn.Close()
		if e := v.read(t.Context(), 60); Classify(e) != LineLost {
			t.Errorf("%s: %v", Classify(e), e)
		}
	})
	t.Run("unknown name", func(t *testing.T) {
		server, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		go func() {
			p := make([]byte, 512)
			for {
				n, from, err := server.ReadFrom(p)
				if err != nil {
					return
				}
				if n > 4 {
					p[2], p[3] = 0x81, 0x83 // an answer: there is no such name
					server.WriteTo(p[:n], from)
				}
			}
		}()
		resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "udp", server.LocalAddr().String())
		}}
		_, err = (&net.Dialer{Resolver: resolver}).DialContext(t.Context(), "tcp", "nosuchhost.invalid:2001")
		if err == nil || !strings.Contains(err.Error(), "no such host") {
			t.Fatal(err)
		}
		wantClass(t, &link.Error{Op: "open", Line: "tcp://nosuchhost.invalid:2001", Err: err}, HostUnknown)
	})
}
