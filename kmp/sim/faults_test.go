package sim

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

// answered decodes the registers of a whole answer.
func answered(t *testing.T, wire []byte) []kmp.Register {
	t.Helper()
	f, err := kmp.DecodeFrame(wire)
	if err != nil {
		t.Fatalf("% X: %v", wire, err)
	}
	m, err := kmp.DecodeMessage(f)
	if err != nil {
		t.Fatalf("% X: %v", wire, err)
	}
	return m.(*kmp.GetRegisterAnswer).Registers
}

func TestFaultForged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: still, Faults: Faults{Forged: 1}})
		ids := []uint16{60, 68, 86}
		changed := map[uint16]bool{}
		for range 50 {
			got, want := answered(t, c.ask(ids...)), c.m.registers(ids)
			differ := 0
			for i, r := range got {
				flipped := 0
				for j := range r.Raw {
					flipped += bits.OnesCount8(r.Raw[j] ^ want[i].Raw[j])
				}
				if flipped > 3 {
					t.Errorf("register %d: %d bits changed", r.ID, flipped)
				}
				if flipped > 0 {
					differ++
					changed[r.ID] = true
				}
				r.Raw = want[i].Raw
				if !equal(r, want[i]) {
					t.Errorf("more than the value changed: %v, want %v", r, want[i])
				}
			}
			if differ != 1 {
				t.Errorf("%d values changed in %v", differ, got)
			}
		}
		if len(changed) != len(ids) {
			t.Errorf("only %v were ever changed", changed)
		}
		if got := c.m.Counts(); got != (Counts{Requests: 50, Answers: 50, Forged: 50}) {
			t.Errorf("counts %+v", got)
		}
		conn := kmp.NewConn(c.line, kmp.Options{})
		if serial, err := conn.GetSerialNo(t.Context(), kmp.HeatMeter); err != nil || serial != defaultSerial {
			t.Errorf("serial number %d, %v", serial, err)
		}
		if got := c.ask(0xFFFF); !bytes.Equal(got, c.want(0xFFFF)) { // there is no value to change
			t.Errorf("% X", got)
		}
		if got := c.m.Counts().Forged; got != 50 {
			t.Errorf("%d forged", got)
		}
	})
}

// A forged frame is as good as the one before and differs from it; what is no answer
// with registers stays as it is.
func FuzzForge(f *testing.F) {
	f.Add([]byte{}, uint64(1))
	f.Add([]byte{0x40, 0x3F, 0x10, 0x00, 0x56, 0x25, 0x02, 0x42, 0x14, 0xF5, 0x69, 0xDC, 0x0D}, uint64(2)) // a real 403
	f.Add([]byte{0x40, 0x3F, 0x02, 0x01, 0x23, 0x45, 0x67, 0xE9, 0x56, 0x0D}, uint64(3))
	f.Add(kmp.AppendFrame(nil, kmp.FromMeter, kmp.HeatMeter, kmp.CmdGetRegister, []byte{0, 60, 8, 0, 0}), uint64(4)) // no bytes
	f.Fuzz(func(t *testing.T, frame []byte, seed uint64) {
		s := &session{forger: rand.New(rand.NewPCG(seed, 0))}
		given := slices.Clone(frame)
		got, forged := s.forge(frame)
		if !bytes.Equal(frame, given) {
			t.Errorf("% X became % X", given, frame)
		}
		if !forged {
			if !bytes.Equal(got, given) {
				t.Errorf("% X was changed to % X", given, got)
			}
			return
		}
		before, after := answered(t, given), answered(t, got)
		differ := 0
		for i := range before {
			if !bytes.Equal(before[i].Raw, after[i].Raw) {
				differ++
			}
			if before[i].ID != after[i].ID || before[i].Unit != after[i].Unit || before[i].SiEx != after[i].SiEx || len(before[i].Raw) != len(after[i].Raw) {
				t.Errorf("%v became %v", before[i], after[i])
			}
		}
		if differ != 1 || len(before) != len(after) {
			t.Errorf("%v became %v", before, after)
		}
	})
}

// Forging leaves the other faults where they are.
func TestFaultForgedBesideOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults := Faults{Noise: 0.3, Lost: 0.2, Corrupted: 0.3, Truncated: 0.2}
		run := func(forged float64) (lengths []int, counts Counts) {
			faults.Forged = forged
			c := newClient(t, Config{Integration: still, Seed: 8, Faults: faults})
			for range 30 {
				lengths = append(lengths, len(c.ask(1001, 0xFFFF)))
			}
			return lengths, c.m.Counts()
		}
		without, a := run(0)
		with, b := run(1)
		same := 0
		for i := range without {
			if with[i] == without[i] { // stuffing may lengthen a forged answer
				same++
			}
		}
		if same < 20 {
			t.Errorf("lengths %v and, forged, %v", without, with)
		}
		if b.Forged == 0 || b.Forged > b.Answers-max(b.Corrupted, b.Truncated) {
			t.Errorf("%d of %d answers forged, %d corrupted, %d truncated", b.Forged, b.Answers, b.Corrupted, b.Truncated)
		}
		if b.Forged = 0; a != b {
			t.Errorf("(-without +with):\n%s", cmp.Diff(a, b))
		}
	})
}

func TestFaultGarbled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: still, Faults: Faults{Garbled: true, Noise: 0.5, Echo: true}})
		for range 50 {
			sent := request(t, 60, 68, 74, 80, 86, 87)
			got, echoed := bytes.CutPrefix(c.ask(60, 68, 74, 80, 86, 87), sent)
			if !echoed || len(got) < 20 || bytes.IndexByte(got, 0x40) >= 0 {
				t.Errorf("% X", got)
			}
		}
		if got := c.m.Counts(); got.Garbled != 50 || got.Answers != 50 || got.Noisy == 0 {
			t.Errorf("counts %+v", got)
		}
		conn := kmp.NewConn(c.line, kmp.Options{Retries: -1})
		var exchange *kmp.ExchangeError
		if _, err := conn.GetRegister(t.Context(), kmp.HeatMeter, 60); !errors.As(err, &exchange) || errors.Is(err, kmp.ErrNoReply) {
			t.Errorf("%v", err)
		}
	})
}

func TestFaultASCII(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: still, Faults: Faults{ASCII: true}})
		foreign, err := kmp.AppendMessage(nil, kmp.ToMeter, 0x7F, &kmp.GetTypeRequest{})
		if err != nil {
			t.Fatal(err)
		}
		groups := regexp.MustCompile(`^(\d{7} ){9}\d{7}\r$`)
		for _, wire := range [][]byte{request(t, 60), foreign} {
			c.send(wire)
			_, got := c.listen(time.Second)
			text := slices.Clone(got)
			for i, b := range got {
				if bits.OnesCount8(b)%2 != 0 {
					t.Errorf("byte %02X has odd parity", b)
				}
				text[i] = b & 0x7F
			}
			if !groups.Match(text) {
				t.Errorf("%q", text)
			}
			gj := number(t, c.m, 60)
			if want := fmt.Sprintf("%07d ", int(gj.Float64()*100)); !strings.HasPrefix(string(text), want) {
				t.Errorf("%q does not begin with the energy, %s GJ", text, gj)
			}
		}
		if got := c.m.Counts(); got.ASCII != 2 || got.Requests != 2 {
			t.Errorf("counts %+v", got)
		}
	})
}

func TestFaultForeign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: still, Faults: Faults{Foreign: 0x7F}})
		got := c.ask(60)
		if f, err := kmp.DecodeFrame(got); err != nil || f.Address != 0x7F {
			t.Errorf("% X: %v, %v", got, f, err)
		}
		if !slices.EqualFunc(answered(t, got), c.m.registers([]uint16{60}), equal) || c.m.Counts().Foreign != 1 {
			t.Errorf("% X, %+v", got, c.m.Counts())
		}
		conn := kmp.NewConn(c.line, kmp.Options{Retries: -1})
		if _, err := conn.GetRegister(t.Context(), kmp.HeatMeter, 60); err == nil {
			t.Error("a client took the answer of another address")
		}
	})
}

func TestFaultMaxAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: still})
		short, long := []uint16{60, 68}, []uint16{60, 68, 86}
		limit := len(c.want(short...))
		c.m.SetFaults(Faults{MaxAnswer: limit})
		for range 20 {
			if got := c.ask(short...); !bytes.Equal(got, c.want(short...)) {
				t.Errorf("an answer of %d bytes: % X", limit, got)
			}
			got, want := c.ask(long...), c.want(long...)
			if len(got) != len(want) || !bytes.HasPrefix(got, want[:limit]) {
				t.Errorf("% X, want % X in front", got, want[:limit])
			}
			if _, err := kmp.DecodeFrame(got); err == nil {
				t.Errorf("% X is a good frame", got)
			}
		}
		if got := c.m.Counts(); got != (Counts{Requests: 40, Answers: 40, Cut: 20}) {
			t.Errorf("counts %+v", got)
		}
	})
}

func TestFaultThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: still, Faults: Faults{Throttle: Throttle{3, 12 * time.Hour}}})
		session := func(open bool) {
			t.Helper()
			for range 4 { // five seconds apart: one session
				if got := c.ask(60); len(got) > 0 != open {
					t.Errorf("after %+v: % X", c.m.Counts(), got)
				}
			}
		}
		for range 2 {
			for range 3 {
				session(true)
				time.Sleep(time.Minute)
			}
			session(false)
			time.Sleep(11 * time.Hour)
			session(false) // asking does not make it longer
			time.Sleep(time.Hour)
		}
		if got := c.m.Counts(); got != (Counts{Requests: 40, Answers: 24, Throttled: 16}) {
			t.Errorf("counts %+v", got)
		}
	})
}

// A faulty sensor reads as the technical description of the 403 (p 94) says, nothing is
// counted meanwhile, and the info code says which one it is.
func TestFaultSensor(t *testing.T) {
	for _, test := range []struct {
		model, sensor string
		t1, t2        string // "": as before
		info          string
		says          string
	}{
		{"403", "t1_short", "0.00", "", "32", "t1 below range"},
		{"403", "t1_open", "185.00", "", "8", "t1 above range"},
		{"403", "t2_short", "", "0.00", "64", "t2 below range"},
		{"403", "t2_open", "", "185.00", "16", "t2 above range"},
		{"601", "t1_open", "185.00", "", "8", "T1 outside range"},
		{"601", "t2_short", "", "0.00", "4", "T2 outside range"},
		{"603", "t2_open", "", "185.00", "16", "t2 above range"},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := newMeter(t, Config{Model: test.model})
			read := func(id uint16) string { return number(t, m, id).String() }
			healthy, t1, t2 := read(60), read(86), read(87)
			m.SetFaults(Faults{Sensor: test.sensor})
			if test.t1 != "" {
				t1 = test.t1
			}
			if test.t2 != "" {
				t2 = test.t2
			}
			want := map[uint16]string{86: t1, 87: t2, 89: "0.00", 80: "0.0", 74: "0", 60: healthy, 99: test.info}
			for id, want := range want {
				if got := read(id); got != want {
					t.Errorf("%s with %s: register %d is %s, want %s", test.model, test.sensor, id, got, want)
				}
			}
			id := uint16(99)
			if test.model == "603" { // what its 99 means is not known
				id = 369
			}
			v, _ := number(t, m, id).Int64()
			if text := catalog.InfoText(test.model, id, uint64(v)); len(text) != 1 || !strings.Contains(text[0], test.says) {
				t.Errorf("%s: catalog reads info code %d as %q", test.model, v, text)
			}
			time.Sleep(6 * time.Hour)
			if got := read(60); got != healthy {
				t.Errorf("energy was counted: %s after %s", got, healthy)
			}
			m.SetFaults(Faults{})
			time.Sleep(6 * time.Hour)
			if read(60) == healthy || read(99) != "0" || read(86) == "185.00" {
				t.Errorf("still faulty: energy %s, info %s, T1 %s", read(60), read(99), read(86))
			}
		})
	}
}

func TestFaultInfo(t *testing.T) {
	for _, test := range []struct {
		model  string
		faults Faults
		want   string
	}{
		{"403", Faults{Info: 16}, "16"},
		{"403", Faults{Info: 16, Sensor: "t1_open"}, "24"},
		{"601", Faults{Info: 1 << 14}, "16384"},
		{"603", Faults{Info: 1 << 31}, "2147483648"},
		{"21", Faults{Info: 0x1004}, "4100"},
	} {
		if got := number(t, newMeter(t, Config{Model: test.model, Faults: test.faults}), 99).String(); got != test.want {
			t.Errorf("%s with %+v: info code %s, want %s", test.model, test.faults, got, test.want)
		}
	}
}

// Faults can begin and end while the meter is being read.
func TestSetFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: still})
		missing := []uint16{68}
		for _, test := range []struct {
			faults Faults
			ok     bool
		}{
			{Faults{}, true},
			{Faults{Silence: true}, false},
			{Faults{Lost: 1}, false},
			{Faults{Late: 1}, true}, // within the five seconds of ask
			{Faults{MissingRegisters: missing}, true},
			{Faults{Sensor: "none such", MaxAnswer: -1, Lost: -1}, true},
		} {
			c.m.SetFaults(test.faults)
			missing[0] = 60 // the meter has its own copy
			if got := c.ask(60, 68); test.ok && !bytes.Equal(got, c.want(60, 68)) || !test.ok && len(got) > 0 {
				t.Errorf("%+v: % X", test.faults, got)
			}
		}
		if got := c.m.Counts(); got != (Counts{Requests: 6, Asleep: 1, Answers: 4, Lost: 1, Late: 1}) {
			t.Errorf("counts %+v", got)
		}
	})
}

// What only other kinds of meter have is left out.
func TestSetFaultsOfOtherMeters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Model: "21"})
		before := number(t, m, 68)
		m.SetFaults(Faults{Sensor: "t1_open", Info: 0x10004})
		time.Sleep(24 * time.Hour)
		if got := number(t, m, 99).String(); got != "4" || number(t, m, 68).Cmp(before) <= 0 {
			t.Errorf("info code %s, volume %s after %s", got, number(t, m, 68), before)
		}
	})
}

func TestReplace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			model   string
			counter uint16
		}{{"403", 60}, {"601", 68}, {"21", 68}, {"382", 1}} {
			m := newMeter(t, Config{Model: test.model})
			before := number(t, m, test.counter)
			m.SetSerial(7)
			if number(t, m, 1001).String() != "7" || number(t, m, test.counter) != before {
				t.Errorf("%s: after SetSerial: serial %s, counter %s", test.model, number(t, m, 1001), number(t, m, test.counter))
			}
			m.Replace(8)
			if got := number(t, m, 1001).String(); got != "8" || !number(t, m, test.counter).IsZero() || !number(t, m, 1004).IsZero() {
				t.Errorf("%s: a new meter begins with serial %s, counter %s, %s h", test.model, got, number(t, m, test.counter), number(t, m, 1004))
			}
			time.Sleep(24 * time.Hour)
			if got := number(t, m, test.counter); got.IsZero() || got.Cmp(before) >= 0 || number(t, m, 1004).String() != "24" {
				t.Errorf("%s: after a day the new meter shows %s, %s h", test.model, got, number(t, m, 1004))
			}
		}
	})
}

func TestOverride(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{Integration: still})
		own := c.want(60, 371)
		huge := kmp.Register{Unit: kmp.UnitGJ, Raw: bytes.Repeat([]byte{0xFF}, 300)}
		c.m.Override(60, huge)
		c.m.Override(371, kmp.Register{ID: 5, Unit: kmp.UnitNumber, Raw: []byte{1}}) // a 403 has no such register
		if !slices.Contains(c.m.Registers(), 371) {
			t.Errorf("registers: %v", c.m.Registers())
		}
		got := answered(t, c.ask(60, 371))
		if len(got) != 2 || len(got[0].Raw) != 255 || got[1].ID != 371 || got[1].Raw[0] != 1 {
			t.Errorf("%v", got)
		}
		c.m.Override(60, kmp.Register{})
		c.m.Override(371, kmp.Register{})
		if got := c.ask(60, 371); !bytes.Equal(got, own) {
			t.Errorf("% X", got)
		}
	})
}
