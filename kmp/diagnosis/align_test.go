package diagnosis

import (
	"context"
	"encoding/json"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/link"
	"kmp2mqtt/kmp/sim"
)

// aligned runs Align over a simulated meter and returns what it showed.
func aligned(ctx context.Context, t *testing.T, cfg sim.Config, length time.Duration) ([]Sample, Summary) {
	t.Helper()
	var writes atomic.Int32
	var samples []Sample
	s, err := Align(ctx, Options{Target: target(t, "sim://403"), Dial: dialSim(t, cfg, &writes)}, length, func(s Sample) { samples = append(samples, s) })
	if err != nil {
		t.Error(err)
	}
	if s.Reads != len(samples) {
		t.Errorf("%d reads, %d shown", s.Reads, len(samples))
	}
	return samples, s
}

func TestAlignGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		samples, s := aligned(t.Context(), t, sim.Config{Paced: true, Faults: sim.Faults{Echo: true}}, time.Minute)
		if !s.Locked || s.Code != OK || s.Good != s.Reads || time.Since(start) != time.Minute || s.Duration != time.Minute {
			t.Errorf("%+v", s)
		}
		for i, sample := range samples {
			want := Sample{Code: OK, Echo: true, FirstByte: sample.FirstByte, Good: min(i+1, 20), Of: min(i+1, 20), Row: i + 1, Locked: i >= 9}
			if sample != want || sample.FirstByte < 20*time.Millisecond || sample.FirstByte > 50*time.Millisecond {
				t.Fatalf("sample %d: %+v, want %+v", i, sample, want)
			}
		}
		if n := len(samples); n < 150 || n > 240 {
			t.Errorf("%d reads in a minute", n)
		}
	})
}

func TestAlignSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		samples, s := aligned(t.Context(), t, sim.Config{Faults: sim.Faults{Silence: true, Echo: true}}, 5*time.Minute)
		if s.Locked || s.Good != 0 || s.Code != EchoOnly || s.Duration != 5*time.Minute {
			t.Errorf("%+v", s)
		}
		for _, sample := range samples {
			if sample.Code != EchoOnly || !sample.Echo || sample.Row != 0 || sample.Good != 0 || sample.FirstByte != 0 {
				t.Fatalf("%+v", sample)
			}
		}
		if most := int(5 * time.Minute / (1600 * time.Millisecond)); s.Reads == 0 || s.Reads > most {
			t.Errorf("%d reads: a meter that is silent needs 1.6 s of quiet", s.Reads)
		}
	})
}

// The head is put on after a while, and taken off again.
func TestAlignMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := sim.New(sim.Config{})
		if err != nil {
			t.Fatal(err)
		}
		near, far := net.Pipe()
		meter := m.Line(t.Context())
		t.Cleanup(func() { near.Close(); far.Close(); meter.Close() })
		var on atomic.Bool
		time.AfterFunc(20*time.Second, func() { on.Store(true) })
		time.AfterFunc(40*time.Second, func() { on.Store(false) })
		forward := func(from, to kmp.Line) {
			p := make([]byte, 64)
			for {
				n, err := from.Read(p)
				if err != nil {
					return
				}
				if on.Load() {
					to.Write(p[:n])
				}
			}
		}
		go forward(far, meter)
		go forward(meter, far)
		var changes []string
		was := Sample{Code: "none"}
		s, err := Align(t.Context(), Options{Target: target(t, "sim://403"), Dial: func(context.Context, link.Target) (kmp.Line, error) { return near, nil }}, time.Minute, func(s Sample) {
			if s.Code != was.Code || s.Locked != was.Locked {
				b, _ := json.Marshal([]any{s.Code, s.Locked})
				changes = append(changes, string(b))
			}
			was = s
		})
		if err != nil || s.Locked || s.Code != Asleep || s.Good == 0 {
			t.Errorf("%+v, %v", s, err)
		}
		want := []string{`["silent",false]`, `["ok",false]`, `["ok",true]`, `["silent",true]`, `["silent",false]`}
		if len(changes) != len(want) {
			t.Fatal(changes)
		}
		for i := range want {
			if changes[i] != want[i] {
				t.Errorf("change %d: %s, want %s", i, changes[i], want[i])
			}
		}
	})
}

func TestAlignEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Second, cancel)
		if _, s := aligned(ctx, t, sim.Config{}, time.Minute); !s.Locked || s.Duration != 10*time.Second {
			t.Errorf("given up: %+v", s)
		}

		m, err := sim.New(sim.Config{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(10*time.Second, cancel)
		dial := func(context.Context, link.Target) (kmp.Line, error) { return m.Line(ctx), nil }
		s, err := Align(t.Context(), Options{Target: target(t, "sim://403"), Dial: dial}, time.Minute, func(Sample) {})
		if Classify(FromError(err)) != LineLost || s.Locked || s.Code != LineLost || s.Good == 0 {
			t.Errorf("a line that ends: %+v, %v", s, err)
		}

		s, err = Align(t.Context(), Options{Target: target(t, "/dev/ttyUSB0"), Dial: func(context.Context, link.Target) (kmp.Line, error) {
			return nil, opened(link.ErrBusy)
		}}, time.Minute, func(Sample) {})
		if err == nil || s.Code != PortBusy || s.Reads != 0 {
			t.Errorf("a line that does not open: %+v, %v", s, err)
		}
	})
}

func TestSampleJSON(t *testing.T) {
	for want, s := range map[string]Sample{
		`{"code":"silent","echo":false,"first_byte_s":null,"good":0,"of":1,"row":0,"locked":false}`: {Code: Silent, Of: 1},
		`{"code":"ok","echo":true,"first_byte_s":0.045,"good":20,"of":20,"row":31,"locked":true}`:   {Code: OK, Echo: true, FirstByte: 45 * time.Millisecond, Good: 20, Of: 20, Row: 31, Locked: true},
	} {
		if got, err := json.Marshal(s); err != nil || string(got) != want {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
	}
}
