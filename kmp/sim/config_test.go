package sim

import (
	"errors"
	"flag"
	"io"
	"math"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kmp2mqtt/kmp"
)

func TestParseConfig(t *testing.T) {
	defaults := Config{}.withDefaults()
	with := func(set func(*Config)) Config {
		c := defaults
		set(&c)
		return c
	}
	for _, test := range []struct {
		model, query string
		want         Config
	}{
		{"", "", defaults},
		{"403", "", defaults},
		{"601", "", with(func(c *Config) { c.Model = "601" })},
		{"403", "echo=true&lost=0.1&speed=60", with(func(c *Config) {
			c.Faults.Echo, c.Faults.Lost, c.Speed = true, 0.1, 60
		})},
		{"603", "echo&stray&late=0.5&late-by=5s&corrupted=1&truncated=true&duplicated=false&byte-by-byte=1&silence=0", with(func(c *Config) {
			c.Model = "603"
			c.Faults = Faults{Echo: true, StrayBytes: 1, Late: 0.5, LateBy: 5 * time.Second, Corrupted: 1, Truncated: 1, ByteByByte: true}
		})},
		{"403", "serial=1&seed=18446744073709551615&integration=4s&energy=mwh&address=0x41&pace&byte-time=1ms&turnaround=0&strict", with(func(c *Config) {
			c.Serial, c.Seed, c.Integration, c.EnergyUnit, c.Address = 1, 1<<64-1, 4*time.Second, "MWh", 0x41
			c.Paced, c.ByteTime, c.Turnaround, c.Strict = true, time.Millisecond, noTurnaround, true
		})},
		{"603", "cooling&fine-modulus=1e6&throttle=5/12h&sensor=t1_open&info=0x10&forged=0.01&garbled&ascii=true&foreign=0x7F&max-answer=40", with(func(c *Config) {
			c.Model, c.Cooling, c.FineModulus = "603", true, 1_000_000
			c.Faults = Faults{
				LateBy: 3 * time.Second, Throttle: Throttle{5, 12 * time.Hour}, Sensor: "t1_open", Info: 16, Forged: 0.01,
				Garbled: true, ASCII: true, Foreign: 0x7F, MaxAnswer: 40,
			}
		})},
		{"21", "info=65535&fine-modulus=1000000000&forged", with(func(c *Config) {
			c.Model, c.FineModulus, c.Faults.Info, c.Faults.Forged = "21", 1e9, 65535, 1
		})},
		{"382", "", with(func(c *Config) { c.Model = "382" })},
		{"603", "log-depth=65535&log-buffer=64&empty-logs&no-logs=false&clock-offset=1h&clock-drift=-100&password=0xFFFF&power-cut=2h/45m", with(func(c *Config) {
			c.Model, c.LogDepth, c.LogBuffer, c.EmptyLogs, c.ClockOffset, c.ClockDrift, c.Password = "603", 65535, 64, true, time.Hour, -100, 65535
			c.PowerCut = Outage{2 * time.Hour, 45 * time.Minute}
		})},
		{"403", "missing=63,0x61&missing=1004&sleep-after=4m&noise=0.25&start=2026-01-15T08:00:00Z", with(func(c *Config) {
			c.Faults.MissingRegisters = []uint16{63, 97, 1004}
			c.Faults.SleepAfter, c.Faults.Noise = 4*time.Minute, 0.25
			c.Start = time.Date(2026, 1, 15, 8, 0, 0, 0, time.UTC)
		})},
	} {
		q, err := url.ParseQuery(test.query)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseConfig(test.model, q)
		if err != nil {
			t.Errorf("%s?%s: %v", test.model, test.query, err)
			continue
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s?%s (-want +got):\n%s", test.model, test.query, diff)
		}
		if _, err := New(got); err != nil {
			t.Errorf("%s?%s: New: %v", test.model, test.query, err)
		}
	}
}

func TestParseConfigErrors(t *testing.T) {
	for _, test := range []struct {
		model, query string
		want         []string
	}{
		{"402", "", []string{`model="402"`, "403, 601 or 603"}},
		{"403", "model=601", []string{"sim://601"}},
		{"403", "spped=60", []string{`"spped"`, "speed", "turnaround"}},
		{"403", "speed=0", []string{`speed="0"`, "86400"}},
		{"403", "speed=-1", []string{`speed="-1"`}},
		{"403", "speed=NaN", []string{`speed="NaN"`}},
		{"403", "speed=fast", []string{`speed="fast"`}},
		{"403", "speed=1&speed=2", []string{"speed", "2 times"}},
		{"403", "serial=0", []string{`serial="0"`}},
		{"403", "serial=4294967296", []string{"serial"}},
		{"403", "seed=x", []string{"seed"}},
		{"403", "energy=BTU", []string{`energy="BTU"`, "GJ, MWh or kWh"}},
		{"403", "integration=1s", []string{"integration", "2s to 1h"}},
		{"403", "integration=2500ms", []string{"integration"}},
		{"403", "address=0", []string{"address", "0x3F"}},
		{"403", "address=0x100", []string{"address"}},
		{"403", "turnaround=20", []string{`turnaround="20"`, "20ms"}},
		{"403", "turnaround=-1s", []string{"turnaround"}},
		{"403", "byte-time=0s", []string{"byte-time"}},
		{"403", "lost", []string{`lost=""`, "0 to 1"}},
		{"403", "lost=1.1", []string{`lost="1.1"`, "0 to 1"}},
		{"403", "late=NaN", []string{"late"}},
		{"403", "late-by=0s", []string{"late-by"}},
		{"403", "echo=maybe", []string{`echo="maybe"`, "true or false"}},
		{"403", "missing=energy", []string{`missing="energy"`, "63,97"}},
		{"403", "missing=70000", []string{"missing"}},
		{"403", "sleep-after=-1m", []string{"sleep-after"}},
		{"403", "start=1999-01-01T00:00:00Z", []string{"start", "2000 to 2099"}},
		{"403", "start=today", []string{"start"}},
		{"403", "throttle=5", []string{`throttle="5"`, "5/12h"}},
		{"403", "throttle=0/0s", []string{"throttle"}},
		{"403", "throttle=-1/1h", []string{"throttle"}},
		{"403", "throttle=1/-1h", []string{"throttle"}},
		{"403", "throttle=5/12", []string{"throttle"}},
		{"403", "sensor=t3_open", []string{`sensor="t3_open"`, "t1_short, t1_open"}},
		{"403", "info=4294967296", []string{"info", "4294967295"}},
		{"403", "forged=2", []string{"forged", "0 to 1"}},
		{"403", "garbled=very", []string{"garbled", "true or false"}},
		{"403", "foreign=0", []string{"foreign", "0x3F"}},
		{"403", "max-answer=-1", []string{"max-answer", "4096"}},
		{"403", "log-depth=-1", []string{"log-depth", "65535"}},
		{"403", "log-depth=many", []string{`log-depth="many"`}},
		{"403", "log-buffer=63", []string{"log-buffer", "64 to 4000"}},
		{"403", "empty-logs=perhaps", []string{"empty-logs", "true or false"}},
		{"403", "clock-offset=87601h", []string{"clock-offset", "ten years"}},
		{"403", "clock-offset=60", []string{"clock-offset", "90s"}},
		{"403", "clock-drift=100001", []string{"clock-drift", "100000"}},
		{"403", "clock-drift=NaN", []string{"clock-drift"}},
		{"403", "power-cut=3h", []string{`power-cut="3h"`, "-5h/3h"}},
		{"403", "power-cut=1h/0s", []string{"power-cut"}},
		{"403", "power-cut=1h/-1h", []string{"power-cut"}},
		{"403", "power-cut=-17521h/1h", []string{"power-cut"}},
		{"403", "password=0", []string{"password", "1 to 65535"}},
		{"403", "password=65536", []string{"password"}},
		{"403", "fine-modulus=1e3.5", []string{"fine-modulus", "1e7"}},
		{"403", "fine-modulus=999", []string{"fine-modulus"}},
		{"403", "fine-modulus=1e10", []string{"fine-modulus"}},
		{"21", "cooling", []string{`cooling="true"`, "only a heat meter"}},
		{"382", "sensor=t1_open&info=1", []string{`sensor="t1_open"`, "only a heat meter", `info="1"`, "no info code"}},
		{"21", "info=65536", []string{"info", "65535"}},
		{"999", "lost=2&speed=x&unknown=1", []string{"model", "lost", "speed", `"unknown"`}}, // all at once
	} {
		q, err := url.ParseQuery(test.query)
		if err != nil {
			t.Fatal(err)
		}
		_, err = ParseConfig(test.model, q)
		if !errors.Is(err, ErrOption) {
			t.Errorf("%s?%s: %v", test.model, test.query, err)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s?%s: %q does not say %q", test.model, test.query, err, want)
			}
		}
	}
}

func TestRegisterFlags(t *testing.T) {
	parse := func(args ...string) (Config, error) {
		var c Config
		fs := flag.NewFlagSet("simulate", flag.ContinueOnError)
		fs.SetOutput(io.Discard)
		c.RegisterFlags(fs)
		err := fs.Parse(args)
		if err == nil && fs.NArg() > 0 {
			t.Errorf("%v: left over: %v", args, fs.Args())
		}
		return c, err
	}
	got, err := parse(strings.Fields("-model 603 -serial 7 -seed 9 -speed 288 -integration 8s -energy kWh -address 0x3f -pace -turnaround 50ms -strict " +
		"-echo -noise 0.1 -stray -lost 0.1 -late -corrupted=0.5 -truncated -duplicated -byte-by-byte -missing 63,97 -sleep-after 4m -silence " +
		"-log-depth 48 -log-buffer 200 -empty-logs -no-logs -clock-offset -90s -clock-drift 25.5 -password 4711 -power-cut -5h/3h " +
		"-cooling -fine-modulus 1e6 -throttle 5/12h -sensor t2_short -info 3 -forged=0.01 -garbled -ascii -foreign 0x7F -max-answer 40")...)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Model: "603", Serial: 7, Seed: 9, Speed: 288, Integration: 8 * time.Second, EnergyUnit: "kWh", Cooling: true, FineModulus: 1e6, Address: kmp.HeatMeter,
		Paced: true, ByteTime: kmp.DefaultByteTime, Turnaround: 50 * time.Millisecond, Strict: true,
		LogDepth: 48, LogBuffer: 200, EmptyLogs: true, NoLogs: true, ClockOffset: -90 * time.Second, ClockDrift: 25.5, Password: 4711, PowerCut: Outage{-5 * time.Hour, 3 * time.Hour},
		Faults: Faults{
			Echo: true, Noise: 0.1, StrayBytes: 1, Lost: 0.1, Late: 1, LateBy: 3 * time.Second, Corrupted: 0.5, Truncated: 1, Duplicated: 1,
			ByteByByte: true, MissingRegisters: []uint16{63, 97}, SleepAfter: 4 * time.Minute, Silence: true,
			Throttle: Throttle{5, 12 * time.Hour}, Sensor: "t2_short", Info: 3, Forged: 0.01, Garbled: true, ASCII: true, Foreign: 0x7F, MaxAnswer: 40,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	if _, err := parse("-lost", "often"); err == nil || !strings.Contains(err.Error(), "a chance from 0 to 1") {
		t.Errorf("%v", err)
	}

	var help strings.Builder
	fs := flag.NewFlagSet("simulate", flag.ContinueOnError)
	fs.SetOutput(&help)
	new(Config).RegisterFlags(fs)
	fs.PrintDefaults()
	for _, want := range []string{"-model MODEL", "(default 403)", "-turnaround TIME", "(default 20ms)", "-address ADDRESS", "(default 0x3F)", "-throttle SESSIONS/TIME", "(default 10000000)"} {
		if !strings.Contains(help.String(), want) {
			t.Errorf("help does not say %q:\n%s", want, &help)
		}
	}
}

func TestNewErrors(t *testing.T) {
	_, err := New(Config{
		Model: "42", Speed: -1, Integration: 1500 * time.Millisecond, EnergyUnit: "erg", ByteTime: -1,
		Start:       time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		Faults:      Faults{Noise: 2, StrayBytes: -1, Lost: 2, Late: 2, LateBy: -1, Corrupted: 2, Truncated: 2, Duplicated: 2, SleepAfter: -1, Throttle: Throttle{Shut: 1}, Sensor: "t3", Forged: -1, MaxAnswer: -1},
		FineModulus: 1,
		LogDepth:    -1, LogBuffer: 1, ClockOffset: -math.MaxInt64, ClockDrift: math.NaN(), PowerCut: Outage{For: -1},
	})
	if !errors.Is(err, ErrOption) {
		t.Fatal(err)
	}
	for _, want := range []string{"model", "speed", "integration", "energy", "byte-time", "start", "noise", "stray", "lost", "late", "late-by", "corrupted", "truncated", "duplicated", "sleep-after", "throttle", "sensor", "forged", "max-answer", "fine-modulus", "log-depth", "log-buffer", "clock-offset", "clock-drift", "power-cut"} {
		if !strings.Contains(err.Error(), " "+want+"=") {
			t.Errorf("%q does not name %s", err, want)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add("403", "echo=true&lost=0.1&speed=60")
	f.Add("21", "throttle=5/12h&info=16&fine-modulus=1e7&max-answer=40")
	f.Add("603", "sensor=t1_open&foreign=0x7F&forged&missing=1,0x2&start=2026-01-15")
	f.Add("403", "log-depth=24&log-buffer=100&empty-logs&clock-offset=-5m&clock-drift=20&password=1&power-cut=-1h/1h")
	f.Add("382", "energy=gj&turnaround=0&late-by=1h")
	f.Fuzz(func(t *testing.T, model, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		c, err := ParseConfig(model, q)
		if err != nil {
			if !errors.Is(err, ErrOption) {
				t.Errorf("%s?%s: %v", model, query, err)
			}
			return
		}
		if err := c.withDefaults().check(); err != nil {
			t.Errorf("%s?%s: New refuses what it means: %v", model, query, err)
		}
		if cut := c.PowerCut; cut != (Outage{}) {
			if again, err := parseOutage(cut.String()); err != nil || again != cut {
				t.Errorf("power cut %s is %s again, %v", cut, again, err)
			}
		}
		if throttle := c.Faults.Throttle; throttle != (Throttle{}) {
			if again, err := parseThrottle(throttle.String()); err != nil || again != throttle {
				t.Errorf("throttle %s is %s again, %v", throttle, again, err)
			}
		}
	})
}
