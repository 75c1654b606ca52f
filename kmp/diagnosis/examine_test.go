package diagnosis

import (
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/link"
	"kmp2mqtt/kmp/sim"
)

// target parses a line.
func target(t *testing.T, raw string) link.Target {
	t.Helper()
	parsed, err := link.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// counted is a line that counts what is written to it.
type counted struct {
	kmp.Line
	writes *atomic.Int32
}

func (c counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Line.Write(p)
}

// dialSim opens lines to one simulated meter.
func dialSim(t *testing.T, cfg sim.Config, writes *atomic.Int32) func(context.Context, link.Target) (kmp.Line, error) {
	t.Helper()
	m, err := sim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return func(context.Context, link.Target) (kmp.Line, error) {
		return counted{m.Line(t.Context()), writes}, nil
	}
}

func TestExamine(t *testing.T) {
	const tcp = "tcp://192.0.2.7:2001"
	tests := []struct {
		name   string
		raw    string
		cfg    sim.Config
		addr   kmp.Address
		ids    []uint16
		want   Code
		add    string
		failed string // names of the steps that failed
		writes int32  // requests, at most
		text   string // in the verdict's text or next step
	}{
		{name: "good", raw: tcp, want: OK, writes: 7},
		{name: "good, with echo", raw: tcp, cfg: sim.Config{Faults: sim.Faults{Echo: true, StrayBytes: 1}}, want: OK, writes: 7},
		{name: "a water meter", raw: tcp, cfg: sim.Config{Model: "21"}, want: OK, writes: 7},
		{name: "an electricity meter", raw: tcp, cfg: sim.Config{Model: "382"}, want: OK, writes: 7},
		{name: "chosen registers", raw: tcp, ids: []uint16{60, 68, 74, 80, 86, 87, 89, 99, 1001, 1004}, want: OK, writes: 7},
		{name: "none of the registers", raw: tcp, ids: []uint16{1054}, want: NoRegisters, failed: "long read", writes: 7},
		{name: "silence", raw: tcp, cfg: sim.Config{Faults: sim.Faults{Silence: true}}, want: Silent, failed: "serial number, address 7F, address BF", writes: 4},
		{name: "only echo", raw: tcp, cfg: sim.Config{Faults: sim.Faults{Silence: true, Echo: true}}, want: EchoOnly, failed: "serial number, address 7F, address BF", writes: 4},
		{
			name: "silence on a serial line", raw: "/dev/ttyUSB0", cfg: sim.Config{Faults: sim.Faults{Silence: true}}, want: Silent, writes: 7,
			failed: "serial number, address 7F, address BF, 9600 baud 8N1, 2400 baud 8N2, /#1 at 300 baud 7E2",
		},
		{
			name: "silence on a serial line of its own", raw: "rfc2217://192.0.2.7:2001?baud=9600&stopbits=1", cfg: sim.Config{Faults: sim.Faults{Silence: true}}, want: Silent, writes: 7,
			failed: "serial number, address 7F, address BF, 1200 baud 8N2, 2400 baud 8N2, /#1 at 300 baud 7E2",
		},
		{name: "a logger", raw: tcp, cfg: sim.Config{Address: kmp.LoggerBase}, want: WrongAddress, add: "address=0xBF", failed: "serial number, address 7F", writes: 4, text: "Write the options address=0xBF on the line"},
		{name: "no logger", raw: tcp, addr: kmp.LoggerTop, want: WrongAddress, add: "address=0x3F", failed: "serial number", writes: 3, text: "Take the option address off"},
		{
			name: "answers of another address", raw: "/dev/ttyUSB0", cfg: sim.Config{Faults: sim.Faults{Foreign: kmp.LoggerTop}}, want: WrongAddress, writes: 4,
			failed: "serial number, address 7F, address BF", text: "the answer came from 7F",
		},
		{name: "garbled", raw: tcp, cfg: sim.Config{Faults: sim.Faults{Garbled: true}}, want: NoFrame, failed: "serial number", writes: 2},
		{name: "text", raw: "/dev/ttyUSB0", cfg: sim.Config{Faults: sim.Faults{ASCII: true}}, want: OtherProtocol, failed: "serial number", writes: 2},
		{name: "a head that sits badly", raw: tcp, cfg: sim.Config{Faults: sim.Faults{MaxAnswer: 30}}, want: BadChecksums, failed: "long read", writes: 8, text: "frames were bad"},
		{name: "a line that is disturbed", raw: tcp, cfg: sim.Config{Seed: 1, Faults: sim.Faults{Corrupted: 0.5}}, want: BadChecksums, failed: "long read", writes: 8, text: "frames were bad"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var writes atomic.Int32
				var told []Step
				o := Options{Target: target(t, tt.raw), Address: tt.addr, Registers: tt.ids, Dial: dialSim(t, tt.cfg, &writes)}
				v := Examine(t.Context(), o, func(s Step) { told = append(told, s) })
				if v.Code != tt.want || v.Add != tt.add {
					t.Errorf("%s %q, want %s %q: %+v", v.Code, v.Add, tt.want, tt.add, v)
				}
				if !slices.Equal(told, v.Steps) {
					t.Errorf("told %v, kept %v", told, v.Steps)
				}
				var failed []string
				for _, s := range v.Steps {
					if !s.OK {
						failed = append(failed, s.Name)
					}
				}
				if got := strings.Join(failed, ", "); got != tt.failed {
					t.Errorf("failed: %s, want %s", got, tt.failed)
				}
				if n := writes.Load(); n > tt.writes {
					t.Errorf("%d requests, want at most %d", n, tt.writes)
				}
				if tt.want == OK && (v.Serial == nil || *v.Serial != "80123456" || v.Evidence.FirstByte == 0) {
					t.Errorf("serial %v, %v", v.Serial, v.Evidence)
				}
				if !strings.Contains(v.Text+v.NextStep, tt.text) {
					t.Errorf("%q, %q: no %q", v.Text, v.NextStep, tt.text)
				}
				if b, err := json.Marshal(v); err != nil || !strings.Contains(string(b), `"code":"`+string(tt.want)+`"`) {
					t.Errorf("%s, %v", b, err)
				}
			})
		})
	}
}

// oldMeter is a serial port whose meter listens at certain settings only, and as a
// MULTICAL 66C if text is set.
func oldMeter(t *testing.T, baud int, stop float64, text string) func(context.Context, link.Target) (kmp.Line, error) {
	t.Helper()
	m, err := sim.New(sim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Bool
	return func(_ context.Context, at link.Target) (kmp.Line, error) {
		if at.Baud == baud && at.StopBits == stop && at.DataBits == 8 && at.Parity == link.ParityNone {
			return m.Line(t.Context()), nil
		}
		near, far := net.Pipe()
		t.Cleanup(func() { near.Close(); far.Close() })
		if asked.Load() && at.Baud == 1200 && at.DataBits == 7 {
			go io.WriteString(far, text)
		}
		go func() {
			p := make([]byte, 64)
			for {
				n, err := far.Read(p)
				if err != nil {
					return
				}
				if at.Baud == 300 && at.DataBits == 7 && at.Parity == link.ParityEven && string(p[:n]) == "/#1" {
					asked.Store(true)
				}
			}
		}()
		return near, nil
	}
}

func TestExamineSettings(t *testing.T) {
	tests := []struct {
		name string
		raw  string
		baud int     // at which the meter listens
		stop float64 // with these stop bits
		text string  // what it answers to /#1
		want Code
		add  string
		next string
	}{
		{"electricity", "/dev/ttyUSB0", 9600, 1, "", NoFrame, "baud=9600&stopbits=1", "baud=9600&stopbits=1"},
		{"a 302", "rfc2217://192.0.2.7:2001", 2400, 2, "", NoFrame, "baud=2400&stopbits=2", "baud=2400"},
		{"set up wrongly", "/dev/ttyUSB0?baud=9600&parity=even", 1200, 2, "", NoFrame, "baud=1200&stopbits=2", "baud=1200&stopbits=2"},
		{"not to be set from here", "tcp://192.0.2.7:2001", 9600, 1, "", Silent, "", "button"},
		{"a 66C", "/dev/ttyUSB0", 0, 0, strings.Repeat("0001234 ", 10), OtherProtocol, "", "cannot be read"},
		{"nothing", "/dev/ttyUSB0", 0, 0, "\x00\x01", Silent, "", "button"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := Examine(t.Context(), Options{Target: target(t, tt.raw), Dial: oldMeter(t, tt.baud, tt.stop, tt.text)}, nil)
				if v.Code != tt.want || v.Add != tt.add || !strings.Contains(v.NextStep, tt.next) {
					t.Errorf("%s %q %q, want %s %q %q", v.Code, v.Add, v.NextStep, tt.want, tt.add, tt.next)
				}
			})
		})
	}
}

func TestExamineUnopened(t *testing.T) {
	tests := []struct {
		raw  string
		err  error
		want Code
		step string // the one that fails
	}{
		{"/dev/ttyUSB0", fs.ErrNotExist, PortMissing, "device"},
		{"/dev/ttyUSB0", fs.ErrPermission, PortPermission, "open"},
		{"/dev/ttyUSB0", link.ErrBusy, PortBusy, "open"},
		{"tcp://192.0.2.7:2001", &net.DNSError{IsNotFound: true}, HostUnknown, "host"},
		{"tcp://192.0.2.7:2001", context.DeadlineExceeded, HostUnreachable, "host"},
		{"rfc2217://192.0.2.7:2001", link.ErrRefused, ServerRefused, "open"},
	}
	for _, tt := range tests {
		dial := func(context.Context, link.Target) (kmp.Line, error) { return nil, opened(tt.err) }
		v := Examine(t.Context(), Options{Target: target(t, tt.raw), Dial: dial}, nil)
		if last := v.Steps[len(v.Steps)-1]; v.Code != tt.want || last.OK || last.Name != tt.step {
			t.Errorf("%s, %+v, want %s, %s", v.Code, v.Steps, tt.want, tt.step)
		}
	}
}

// Whoever gives up gets a verdict at once, and no more requests are sent.
func TestExamineCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		var writes atomic.Int32
		start := time.Now()
		v := Examine(ctx, Options{Target: target(t, "/dev/ttyUSB0"), Dial: dialSim(t, sim.Config{Faults: sim.Faults{Silence: true}}, &writes)}, nil)
		if v.Code != Failed || writes.Load() != 1 || time.Since(start) != time.Second {
			t.Errorf("%s after %s and %d requests", v.Code, time.Since(start), writes.Load())
		}
	})
}
