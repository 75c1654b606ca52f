package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
)

// tape records what a Conn shows as its trace, in the form of a support bundle.
type tape struct {
	Made   time.Time         `json:"made"`
	Meter  map[string]string `json:"meter"`
	Frames []frame           `json:"frames"`
}

func (r *tape) trace(dir kmp.Direction, wire []byte) {
	r.Frames = append(r.Frames, frame{time.Now(), dir.String(), fmt.Sprintf("% X", wire)})
}

// play makes a meter of the tape.
func (r *tape) play(t testing.TB) *Recording {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := ReadRecording(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// look is what somebody sees who reads a meter a few times.
type look struct {
	Serial    uint32
	Type      kmp.GetTypeAnswer
	Registers [3][]kmp.Register
	Errs      []string
	Stats     kmp.Stats
	Took      time.Duration
}

func lookAt(t testing.TB, line kmp.Line, trace func(kmp.Direction, []byte)) (l look) {
	t.Helper()
	conn := kmp.NewConn(line, kmp.Options{Trace: trace})
	defer conn.Close()
	start := time.Now()
	failed := func(err error) {
		if err != nil {
			l.Errs = append(l.Errs, err.Error())
		}
	}
	var err error
	l.Serial, err = conn.GetSerialNo(t.Context(), kmp.HeatMeter)
	failed(err)
	l.Type, err = conn.GetType(t.Context(), kmp.HeatMeter)
	failed(err)
	for i := range l.Registers {
		l.Registers[i], err = conn.GetRegister(t.Context(), kmp.HeatMeter, 60, 68, 74, 80, 86, 87, 89, 99, 113, 1004, 371)
		failed(err)
		time.Sleep(time.Minute)
	}
	l.Stats, l.Took = conn.Stats(), time.Since(start)
	return l
}

// A recorded meter shows what the meter showed, whatever its line was like, and takes as long.
func TestReplay(t *testing.T) {
	for name, f := range map[string]Faults{
		"good":      {},
		"echo":      {Echo: true},
		"noise":     {Echo: true, Noise: 0.7},
		"corrupted": {Corrupted: 0.5},
		"lost":      {Lost: 0.5},
		"late":      {Late: 0.5, LateBy: 1500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &tape{Made: time.Now()}
				want := lookAt(t, newMeter(t, Config{Seed: 7, Paced: true, Turnaround: 300 * time.Millisecond, Faults: f}).Line(t.Context()), r.trace)
				again := &tape{}
				got := lookAt(t, r.play(t).Line(t.Context()), again.trace)
				if !reflect.DeepEqual(got.Registers, want.Registers) || got.Serial != want.Serial || got.Type != want.Type {
					t.Errorf("replayed %v\nrecorded %v", got, want)
				}
				if !reflect.DeepEqual(got.Errs, want.Errs) {
					t.Errorf("errors %q, recorded %q", got.Errs, want.Errs)
				}
				if len(again.Frames) != len(r.Frames) {
					t.Fatalf("%d frames of %d", len(again.Frames), len(r.Frames))
				}
				for i, f := range again.Frames {
					if f.Wire != r.Frames[i].Wire {
						t.Errorf("frame %d: %s, recorded %s", i+1, f.Wire, r.Frames[i].Wire)
					}
				}
				if name == "good" && (got.Took-want.Took).Abs() > 50*time.Millisecond { // of the fake clock
					t.Errorf("took %v, recorded %v", got.Took, want.Took)
				}
				if want.Stats.Echo != got.Stats.Echo {
					t.Errorf("echo %v", got.Stats.Echo)
				}
			})
		})
	}
}

// Requests that were not recorded.
func TestReplayOtherRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &tape{Meter: map[string]string{"name": "house", "serial": "80123456", "model": "MULTICAL 603", "software_revision": "C2", "line": "/dev/ttyUSB0"}}
		conn := kmp.NewConn(newMeter(t, Config{Seed: 7, Faults: Faults{Echo: true}}).Line(t.Context()), kmp.Options{Trace: r.trace})
		want, err := conn.GetRegister(t.Context(), kmp.HeatMeter, 60, 68, 80, 371)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		rec := r.play(t)
		if rec.Meter != "house" || rec.Serial != "80123456" || rec.Model != "MULTICAL 603" || rec.Revision != "C2" {
			t.Errorf("%+v", rec)
		}
		conn = kmp.NewConn(rec.Line(t.Context()), kmp.Options{})
		defer conn.Close()
		for _, w := range want {
			got, err := conn.GetRegister(t.Context(), kmp.HeatMeter, 371, w.ID, 99)
			if err != nil || !reflect.DeepEqual(got, []kmp.Register{w}) {
				t.Errorf("register %d: %v, %v", w.ID, got, err)
			}
			if !conn.Stats().Echo {
				t.Error("the head does not hear itself any more")
			}
		}
		if got, err := conn.GetRegister(t.Context(), kmp.HeatMeter, 99); err != nil || len(got) != 0 {
			t.Errorf("99: %v, %v", got, err)
		}
		if n, err := conn.GetSerialNo(t.Context(), kmp.HeatMeter); n != 80123456 || err != nil {
			t.Errorf("serial number %d, %v", n, err)
		}
		if a, err := conn.GetType(t.Context(), kmp.HeatMeter); a != (kmp.GetTypeAnswer{MeterType: 0x0603, Revision: kmp.Revision{Letter: 3, Number: 2}}) || err != nil {
			t.Errorf("type %v, %v", a, err)
		}
		if _, err := conn.GetRegister(t.Context(), kmp.LoggerTop, 60); !errors.Is(err, kmp.ErrNoReply) {
			t.Errorf("another address: %v", err)
		}
		var status kmp.GetEventStatusAnswer
		if err := conn.Do(t.Context(), kmp.HeatMeter, new(kmp.GetEventStatusRequest), &status); !errors.Is(err, kmp.ErrNoReply) {
			t.Errorf("another command: %v", err)
		}
	})
}

// The answers to one request come in the order of the recording, the last one for ever; two
// clients see one sequence.
func TestReplayTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &tape{}
		m := newMeter(t, Config{Seed: 7})
		conn := kmp.NewConn(m.Line(t.Context()), kmp.Options{Trace: r.trace})
		var want []kmp.Register
		for n := range 3 {
			v := kmp.Register{ID: 60, Unit: kmp.UnitGJ, SiEx: 0x43, Raw: []byte{0, 0, 1, byte(n)}}
			m.Override(60, v)
			want = append(want, v)
			if _, err := conn.GetRegister(t.Context(), kmp.HeatMeter, 60); err != nil {
				t.Fatal(err)
			}
		}
		conn.Close()
		r.Frames = r.Frames[1:]                                                                                                                              // as when the oldest frame has gone
		r.trace(kmp.ToMeter, request(t, 60))                                                                                                                 // whose answer is still to come
		r.Frames = append(r.Frames[:3:3], append([]frame{{time.Now(), "to_meter", "2F 3F 21 0D 0A"}, {time.Now(), "from_meter", "06"}}, r.Frames[3:]...)...) // not KMP
		rec := r.play(t)
		for i, w := range []kmp.Register{want[1], want[2], want[2], want[2]} {
			conn := kmp.NewConn(rec.Line(t.Context()), kmp.Options{})
			got, err := conn.GetRegister(t.Context(), kmp.HeatMeter, 60)
			if err != nil || !reflect.DeepEqual(got, []kmp.Register{w}) {
				t.Errorf("answer %d: %v, %v; want %v", i, got, err, w)
			}
			conn.Close()
		}
	})
}

// A recorded meter is served over TCP as a simulated one is.
func TestReplayListener(t *testing.T) {
	file, err := os.Open(filepath.Join("testdata", "recording.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	rec, err := ReadRecording(file)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- rec.ServeListener(ctx, l) }()
	for range 2 {
		line, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn := kmp.NewConn(line, kmp.Options{})
		got, err := conn.GetRegister(t.Context(), kmp.HeatMeter, 60)
		if err != nil || len(got) != 1 {
			t.Fatalf("%v, %v", got, err)
		}
		if v, err := got[0].Value(); err != nil || fmt.Sprint(v) != "227.445" {
			t.Errorf("%v, %v", v, err)
		}
		conn.Close()
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// What is wrong with a recording is told, with the frame.
func TestReadRecordingErrors(t *testing.T) {
	good := `{"time":"2026-11-21T07:45:01.123Z","direction":"to_meter","wire":"80 3F 02 35 E9 0D"},{"time":"2026-11-21T07:45:02Z","direction":"from_meter","wire":""}`
	if _, err := ReadRecording(strings.NewReader(`{"frames":[` + good + `]}`)); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ text, want string }{
		"empty":         {``, "unexpected end"},
		"not JSON":      {`METERS=house`, "invalid character"},
		"list":          {`[]`, "cannot unmarshal array"},
		"null":          {`null`, "no request to a meter"},
		"two documents": {`{"frames":[` + good + `]} {}`, "invalid character"},
		"no frames":     {`{"kmp2mqtt":"1.0.0"}`, "no request to a meter"},
		"frames":        {`{"frames":{}}`, "cannot unmarshal object"},
		"frame":         {`{"frames":[` + good + `,[]]}`, "frame 3: json"},
		"time":          {`{"frames":[{"time":"yesterday","direction":"to_meter","wire":""}]}`, `frame 1: parsing time`},
		"direction":     {`{"frames":[` + good + `,{"time":"2026-11-21T07:45:02Z","direction":"` + strings.Repeat("up", 100) + `"}]}`, `frame 3: direction "upupupupupupupupupup" is neither`},
		"wire":          {`{"frames":[` + good + `,{"direction":"to_meter","wire":"80 3"}]}`, "frame 3: wire is not hexadecimal"},
		"no answer":     {`{"frames":[{"direction":"to_meter","wire":"80 3F 02 35 E9 0D"}]}`, "no request to a meter"},
		"no request":    {`{"frames":[{"time":"2026-11-21T07:45:02Z","direction":"from_meter","wire":"00"}]}`, "no request to a meter"},
		"too large":     {`{"frames":[` + good + `],"profile":"` + strings.Repeat("x", maxRecording) + `"}`, "larger than 4194304 bytes"},
		"deep":          {strings.Repeat("[", 1<<20), "exceeded max depth"},
		"no serial":     {`{"meter":{"serial":80123456},"frames":[` + good + `]}`, "cannot unmarshal number"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadRecording(strings.NewReader(tt.text))
			var re *RecordingError
			if !errors.Is(err, ErrRecording) || !errors.As(err, &re) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	if _, err := ReadRecording(iotest.ErrReader(io.ErrUnexpectedEOF)); !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, ErrRecording) {
		t.Error(err)
	}
}

// A line's option baud gives its pace.
func TestByteTimeOf(t *testing.T) {
	for line, want := range map[string]time.Duration{
		"":                                   kmp.DefaultByteTime,
		"/dev/ttyUSB0":                       kmp.DefaultByteTime,
		"/dev/ttyUSB0?baud=9600":             11 * time.Second / 9600,
		"tcp://heads:2001?baud=2400&x=1":     11 * time.Second / 2400,
		"/dev/ttyUSB0?baud=0":                kmp.DefaultByteTime,
		"/dev/ttyUSB0?baud=9999999999999999": kmp.DefaultByteTime,
		"/dev/ttyUSB0?%":                     kmp.DefaultByteTime,
	} {
		if got := byteTimeOf(line); got != want {
			t.Errorf("%s: %v, want %v", line, got, want)
		}
	}
}

// Whatever a file holds: no panic, an error that is about the recording, and a recording
// answers without end.
func FuzzReadRecording(f *testing.F) {
	text, err := os.ReadFile(filepath.Join("testdata", "recording.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"frames":[{"time":"2026-11-21T07:45:01.123Z","direction":"to_meter","wire":"803F0235E90D"},{"time":"0001-01-01T00:00:00Z","direction":"from_meter","wire":"803F0235E90D40"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		rec, err := ReadRecording(bytes.NewReader(text))
		if err != nil {
			if !errors.Is(err, ErrRecording) {
				t.Fatal(err)
			}
			return
		}
		for k, to := range rec.exchanges {
			q, err := kmp.DecodeFrame([]byte(k))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range append(to.list, to.list[len(to.list)-1]) {
				if got := rec.answer(q); !reflect.DeepEqual(got, want) {
					t.Fatalf("%v, want %v", got, want)
				}
				if want.after < 0 || want.after > latestAnswer {
					t.Fatal(want.after)
				}
			}
			rec.answer(kmp.Frame{Direction: kmp.ToMeter, Address: q.Address, Command: kmp.CmdGetRegister, Data: []byte{1, 0, 60}})
			rec.answer(kmp.Frame{Direction: kmp.ToMeter, Address: q.Address, Command: kmp.CmdGetType})
		}
	})
}
