package sim

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
)

// When the clock shows something is the first moment at which it does.
func TestClockWhen(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, drift := range []float64{0, 25e-6, -25e-6, 0.1, -0.1} {
		for _, offset := range []time.Duration{0, 90 * time.Second, -7 * time.Hour} {
			c := clock{since: time.Hour, shown: time.Hour + offset, drift: drift}
			for range 1000 {
				moment := time.Duration(random.Int64N(int64(4*365*24*time.Hour))) - 2*365*24*time.Hour
				shown := c.at(moment)
				when := c.when(shown)
				if when > moment || c.at(when) < shown || c.at(when-1) >= shown {
					t.Fatalf("%+v: at %v it shows %v; that it shows from %v on, and before it %v", c, moment, shown, when, c.at(when-1))
				}
				if moment < c.since && shown-moment != offset {
					t.Fatalf("%+v: at %v, before it was set, it shows %v", c, moment, shown)
				}
			}
		}
	}
}

func TestClockStandsStillAtTheEndOfTime(t *testing.T) {
	c := clock{since: time.Hour, shown: 100 * 365 * 24 * time.Hour, drift: 0.1}
	if got := c.at(maxElapsed); got != latest {
		t.Errorf("after 200 years it shows %v", got)
	}
	if got := c.when(latest + 1); got != never {
		t.Errorf("it shows more after %v", got)
	}
	if got := c.when(latest); c.at(got) != latest || c.at(got-1) == latest {
		t.Errorf("the last that it shows it shows from %v on", got)
	}
}

// Registers and Clock show the meter's clock, Now the truth.
func TestClockOffsetAndDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Model: "603", ClockOffset: -90 * time.Second, ClockDrift: 1000, Speed: 24})
		check := func(clock string) {
			t.Helper()
			if got := text(t, m, 1003) + " " + text(t, m, 1002); got != clock {
				t.Errorf("at %v registers show %s, want %s", m.Now(), got, clock)
			}
			if got := m.Clock().Format("2006-01-02 15:04:05"); got != clock {
				t.Errorf("at %v the clock shows %s, want %s", m.Now(), got, clock)
			}
		}
		check("2026-11-21 06:58:31")
		time.Sleep(10 * time.Hour)   // ten days, of which the clock makes 864 s more
		check("2026-12-01 07:12:55") // - 90 s + 864 s
		if got := m.Now().Format(time.DateTime); got != "2026-12-01 07:00:01" {
			t.Errorf("Now is %s", got)
		}
	})
}

// SetClock on the line: the clock moves, the counters do not.
func TestSetClock(t *testing.T) {
	copenhagen, err := time.LoadLocation("Europe/Copenhagen")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Model: "603", Start: time.Date(2026, 7, 1, 12, 0, 0, 0, copenhagen), ClockDrift: 1e6 / 86400})
		conn := kmp.NewConn(m.Line(t.Context()), kmp.Options{})
		before := text(t, m, 60) + text(t, m, 1004)
		if err := conn.SetClock(t.Context(), kmp.HeatMeter, kmp.Date{Year: 2030, Month: 2, Day: 28}, kmp.Clock{Hour: 23, Minute: 59, Second: 58}); err != nil {
			t.Fatal(err)
		}
		if got := text(t, m, 1003) + " " + text(t, m, 1002); got != "2030-02-28 23:59:58" {
			t.Errorf("the clock shows %s", got)
		}
		if after := text(t, m, 60) + text(t, m, 1004); after != before {
			t.Errorf("counters %s, before %s", after, before)
		}
		set := m.Now()
		time.Sleep(24 * time.Hour)
		if got := m.Clock().Sub(time.Date(2030, 3, 1, 0, 0, 0, 0, time.FixedZone("", 3600))) - (m.Now().Sub(set) - 2*time.Second); got.Round(100*time.Millisecond) != time.Second {
			t.Errorf("it drifted by %v in a day", got)
		}
		m.SetClock(m.Now())
		if got := text(t, m, 348); got != "2026-07-02T12:00:00" && got != "2026-07-02T12:00:01" {
			t.Errorf("the clock was set right and shows %s", got)
		}
	})
}

// A clock that no day has is refused by silence, and so is one for a module.
func TestSetClockRefused(t *testing.T) {
	frame := func(addr kmp.Address, cmd kmp.Command, data ...byte) []byte {
		return kmp.AppendFrame(nil, kmp.ToMeter, addr, cmd, data)
	}
	for _, test := range []struct {
		name, model string
		wire        []byte
		want        []byte
	}{
		{"doc-setclock-corrected", "601", frame(kmp.HeatMeter, kmp.CmdSetClock, 0, 1, 0x14, 0x4A, 0, 2, 0x77, 0x15), []byte{kmp.Ack}},
		{"29 February 2026", "601", frame(kmp.HeatMeter, kmp.CmdSetClock, 0, 3, 0xF8, 0xC5, 0, 0, 0, 0), nil},
		{"24:00:00", "601", frame(kmp.HeatMeter, kmp.CmdSetClock, 0, 1, 0x14, 0x4A, 0, 3, 0xA9, 0x80), nil},
		{"one byte short", "601", frame(kmp.HeatMeter, kmp.CmdSetClock, 0, 1, 0x14, 0x4A, 0, 2, 0x77), nil},
		{"a module", "601", frame(kmp.LoggerTop, kmp.CmdSetClock, 0, 1, 0x14, 0x4A, 0, 2, 0x77, 0x15), nil},
		{"water", "21", frame(kmp.HeatMeter, kmp.CmdSetClock, 0, 1, 0x14, 0x4A, 0, 2, 0x77, 0x15), nil},
		{"electricity", "382", frame(kmp.HeatMeter, kmp.CmdSetClock, 0, 1, 0x14, 0x4A, 0, 2, 0x77, 0x15), nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newClient(t, Config{Model: test.model})
			c.send(test.wire)
			if _, got := c.listen(time.Second); !bytes.Equal(got, test.want) {
				t.Errorf("%s: % X, want % X", test.name, got, test.want)
			}
			moved := c.m.Clock().Sub(c.m.Now()).Abs() > time.Hour
			if moved != (test.want != nil) {
				t.Errorf("%s: the clock shows %v at %v", test.name, c.m.Clock(), c.m.Now())
			}
		})
	}
}
