package bridge

import (
	"context"
	"flag"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/diagnosis"
	"kmp2mqtt/kmp/sim"
)

// manyReadings in each combination of faults make the report of docs/faults.md.
const manyReadings = 950

var readings = flag.Int("readings", 20, "good readings in each combination of faults; with -update at least 950")

// fault is one thing that may be wrong with a line or its meter.
type fault struct {
	name  string
	text  string // for the report
	spell bool   // not all the time: for eight minutes in two hours
	set   func(f *sim.Faults, random *rand.Rand, usual []uint16)
	codes []diagnosis.Code // what it may be found to be when it is alone
	must  bool             // it is found, however few the readings are
}

// faults are all of them.
func faults() []fault {
	always := func(set func(f *sim.Faults)) func(*sim.Faults, *rand.Rand, []uint16) {
		return func(f *sim.Faults, _ *rand.Rand, _ []uint16) { set(f) }
	}
	codes := func(c ...diagnosis.Code) []diagnosis.Code { return c }
	silence := codes(diagnosis.Missed, diagnosis.Asleep, diagnosis.Throttled, diagnosis.Silent)
	return []fault{
		{"echo", "every byte sent comes back", false, always(func(f *sim.Faults) { f.Echo = true }), nil, false},
		{"noise", "random bytes before 30 % of the answers, and behind as many", false, always(func(f *sim.Faults) { f.Noise = 0.3 }), codes(diagnosis.BadChecksums), false},
		{"stray", "bytes 00 before 30 % of the answers and in 30 % of all seconds", false, always(func(f *sim.Faults) { f.StrayBytes = 0.3 }), nil, false},
		{"lost", "20 % of the answers never come", false, always(func(f *sim.Faults) { f.Lost = 0.2 }), silence, false},
		{"late", "30 % of the answers come 3 s late", false, always(func(f *sim.Faults) { f.Late = 0.3 }), append(silence, diagnosis.ForeignFrames), false},
		{"duplicated", "50 % of the answers come twice", false, always(func(f *sim.Faults) { f.Duplicated = 0.5 }), nil, false},
		{"corrupted", "one to three bits are flipped in 12 % of the answers", false, always(func(f *sim.Faults) { f.Corrupted = 0.12 }), codes(diagnosis.BadChecksums), false},
		{"truncated", "12 % of the answers end too early", false, always(func(f *sim.Faults) { f.Truncated = 0.12 }), codes(diagnosis.BadChecksums), false},
		{"single bytes", "answers come byte by byte", false, always(func(f *sim.Faults) { f.ByteByByte = true }), nil, false},
		{"long damaged", "answers are damaged behind 60 bytes", false, always(func(f *sim.Faults) { f.MaxAnswer = 60 }), nil, false},
		{"missing", "up to four of the usual registers are not there", false, func(f *sim.Faults, random *rand.Rand, usual []uint16) {
			for range 4 {
				f.MissingRegisters = append(f.MissingRegisters, usual[random.IntN(len(usual))])
			}
		}, nil, false},
		{"asleep", "nothing answers for eight minutes in two hours", true, always(func(f *sim.Faults) { f.SleepAfter = 1 }), silence, true},
		{"garbled", "another baud rate for eight minutes in two hours", true, always(func(f *sim.Faults) { f.Garbled = true }), codes(diagnosis.NoFrame), true},
		{"foreign", "answers carry another address for eight minutes in two hours", true, always(func(f *sim.Faults) { f.Foreign = kmp.LoggerTop }), codes(diagnosis.WrongAddress), true},
	}
}

// faultyMeter is a meter and how it is set up.
type faultyMeter struct {
	model, energy string
	modulus       int64 // where its high-resolution registers wrap
	cooling       bool
	named         bool // the settings say the model
}

// faultyMeters take turns. Their number shares no factor with that of the faults.
func faultyMeters() []faultyMeter {
	return []faultyMeter{
		{"403", "GJ", 1e7, false, true},
		{"601", "MWh", 1e5, false, true},
		{"21", "", 1e5, false, true},
		{"603", "kWh", 1e4, true, true},
		{"382", "", 1e9, false, true},
		{"403", "kWh", 1e5, true, false},
		{"601", "GJ", 1e7, false, false},
		{"603", "GJ", 1e5, false, false},
		{"403", "MWh", 1e4, false, true},
		{"21", "", 1e7, false, false},
		{"382", "", 1e9, false, false},
	}
}

// trial is one run of a bridge and its meter.
type trial struct {
	faultyMeter
	faults   []fault
	seed     uint64
	readings int     // good ones
	forged   float64 // chance of an answer
	strict   bool    // what is forged counts as any other wrong value
}

func (x trial) name() string {
	var names []string
	for _, f := range x.faults {
		names = append(names, f.name)
	}
	return strings.Join(names, ", ")
}

// combinations are no fault, each fault alone, and each two of them.
func combinations() []trial {
	meters := faultyMeters()
	var list []trial
	add := func(f ...fault) {
		i := len(list)
		list = append(list, trial{faultyMeter: meters[i%len(meters)], faults: f, seed: uint64(i + 1), readings: *readings})
	}
	all := faults()
	add()
	for _, a := range all {
		add(a)
	}
	for i, a := range all {
		for _, b := range all[i+1:] {
			add(a, b)
		}
	}
	return list
}

// Whatever is wrong with a line, no wrong value is published, no right one held back, and
// every failure has a cause. Beside that, what becomes of values that were forged so that
// the checksum fits. docs/faults.md is the report.
func TestFaults(t *testing.T) {
	trials := combinations()
	tallies := make([]tally, len(trials))
	t.Run("line", func(t *testing.T) {
		for i, x := range trials {
			t.Run(x.model+" "+x.name(), func(t *testing.T) {
				t.Parallel()
				tallies[i] = x.run(t)
				checkTally(t, x, tallies[i])
			})
		}
	})
	meters := faultyMeters()
	found := make([]tally, len(meters))
	t.Run("forged", func(t *testing.T) {
		for i, m := range meters {
			t.Run(m.model, func(t *testing.T) {
				t.Parallel()
				x := trial{faultyMeter: m, seed: uint64(1000 + i), readings: 2 * *readings, forged: 0.02}
				found[i] = x.run(t)
				if n := found[i].failed; n > 0 {
					t.Errorf("%d readings failed: %v", n, found[i].codes)
				}
			})
		}
	})
	if !t.Failed() {
		reportFaults(t, trials, tallies, found)
	}
}

// The suite sees what is wrong when something is: answers are forged and it is not told.
func TestFaultsSeen(t *testing.T) {
	got := trial{faultyMeter: faultyMeters()[0], seed: 1, readings: 100, forged: 0.3, strict: true}.run(t)
	if got.wrong == 0 || got.held == 0 {
		t.Errorf("%d wrong, %d held of %d values", got.wrong, got.held, got.values)
	}
}

// checkTally looks for what must never be.
func checkTally(t *testing.T, x trial, got tally) {
	t.Helper()
	if got.wrong > 0 || got.held > 0 {
		t.Errorf("%d values are wrong, %d are held, of %d:\n%s", got.wrong, got.held, got.values, strings.Join(got.first, "\n"))
	}
	classified := 0
	for code, n := range got.codes {
		classified += n
		if code == diagnosis.Failed || code == diagnosis.OK || code == diagnosis.NotRead || diagnosis.Lookup(code).Code != code {
			t.Errorf("%d failures are %q", n, code)
		}
	}
	if classified != got.failed {
		t.Errorf("%d of %d failures have a cause: %v", classified, got.failed, got.codes)
	}
	var allowed []diagnosis.Code
	seen := false
	for _, f := range x.faults {
		allowed = append(allowed, f.codes...)
	}
	for _, code := range allowed {
		seen = seen || got.codes[code] > 0
	}
	if len(x.faults) == 1 && x.faults[0].must && !seen {
		t.Errorf("found as %v, want one of %v", got.codes, allowed)
	}
	for code := range got.codes {
		if len(x.faults) == 1 && !slices.Contains(allowed, code) {
			t.Errorf("found as %s, want one of %v", code, allowed)
		}
	}
}

// run lets a bridge read a meter, with all of the bridge but its session with a broker.
func (x trial) run(t *testing.T) (result tally) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { result = x.inBubble(t) })
	return result
}

const (
	wellFor  = 108 * time.Minute // of two hours
	phase    = 4 * time.Minute
	cureTime = 26 * time.Hour // a reading of what is read once a day, and two that confirm it: nothing forged may be left
)

// phases are the faults of the last twelve minutes of two hours: the first for eight of them, the
// second begins and ends four later.
func phases(spells []fault) [3][]fault {
	switch len(spells) {
	case 0:
		return [3][]fault{}
	case 1:
		return [3][]fault{spells, spells, nil}
	}
	return [3][]fault{spells[:1], spells, spells[1:]}
}

func (x trial) inBubble(t *testing.T) tally {
	t.Helper()
	random := rand.New(rand.NewPCG(x.seed, 1))
	model, _ := catalog.ModelByName(x.model)
	p := x.probe(t)
	config := x.config(t)
	ctx, cancel := context.WithCancel(t.Context())
	b := newBridge(config, Deps{
		Dial: func(context.Context, string) (kmp.Line, error) {
			near, far := net.Pipe()
			go p.meter.Serve(ctx, far)
			return &heardLine{Conn: near, p: p}, nil
		},
		Tap: p.tap, Log: slog.New(slog.DiscardHandler),
	}, nil, nil)

	var always sim.Faults
	var spells []fault
	for _, f := range x.faults {
		if f.spell {
			spells = append(spells, f)
			continue
		}
		f.set(&always, random, model.Registers)
	}
	always.Forged = x.forged
	began, done := time.Now(), make(chan struct{})
	go func() { defer close(done); b.pollers[0].run(ctx) }()
	time.Sleep(phase / 2) // so that midnight is within the last phase
	for cycle := 0; int(p.progress.Load()) < x.readings; cycle++ {
		if cycle > 10*x.readings {
			t.Errorf("only %d good readings in %s", p.progress.Load(), time.Since(began))
			break
		}
		now := always
		if cycle%3 == 1 && model.Family != catalog.Electricity {
			now.Info = 1
		}
		p.meter.SetFaults(now)
		time.Sleep(wellFor)
		for _, sick := range phases(spells) {
			spell := now
			for _, f := range sick {
				f.set(&spell, random, nil)
			}
			if x.forged > 0 && time.Now().Hour() == 23 { // what is read once a day shall have its share
				spell.Forged = 0.2
			}
			p.meter.SetFaults(spell)
			time.Sleep(phase)
		}
	}
	if x.forged > 0 {
		p.meter.SetFaults(sim.Faults{})
		time.Sleep(cureTime)
	}
	cancel()
	<-done
	synctest.Wait()
	p.tally.lasted = time.Since(began)
	if f := p.forgeries; f != nil {
		f.pass()
		p.tally.forgeries = f
		if f.answers != int(p.meter.Counts().Forged) {
			t.Errorf("%d forged values were heard, the meter gave %d", f.answers, p.meter.Counts().Forged)
		}
		for key := range f.wrong {
			if p.waits(key) {
				continue
			}
			t.Errorf("%s is still %s days later, the meter holds %s", key, p.published[key], p.allowed(key))
		}
	}
	return p.tally
}

// probe makes the meter and its twin.
func (x trial) probe(t *testing.T) *probe {
	t.Helper()
	cfg := sim.Config{
		Model: x.model, EnergyUnit: x.energy, FineModulus: x.modulus, Cooling: x.cooling, Seed: x.seed,
		Start: time.Now().AddDate(0, int(x.seed%12), 0), // at any season
	}
	meter, err := sim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.FineModulus = 1e9
	exact := meter
	if cfg.FineModulus != x.modulus {
		if exact, err = sim.New(cfg); err != nil {
			t.Fatal(err)
		}
	}
	p := newProbe(meter, exact)
	p.models = []string{x.model}
	if !x.named {
		p.models = []string{"", x.model}
	}
	if x.forged > 0 && !x.strict {
		p.forgeries = newForgeries(x.model)
	}
	return p
}

func (x trial) config(t *testing.T) Config {
	t.Helper()
	line := "METERS=house=/dev/a?interval=10m&budget=0"
	if x.named {
		line += "&model=" + x.model
	}
	c, err := ParseConfig([]string{"MQTT_URL=mqtt://broker", line}, ParseOptions{ParseLine: testLine, ReadFile: testFiles(nil)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
