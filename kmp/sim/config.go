package sim

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"kmp2mqtt/kmp"
)

// Config says what meter is simulated, in which house, and on how bad a line. A
// field's zero value stands for its default.
type Config struct {
	// Model is "403" (the default), "601" or "603" for heat, "21" for water or "382"
	// for electricity.
	Model string
	// Serial is the serial number; default 80123456.
	Serial uint32
	// Seed chooses the house, its weather and the faults. Equal seeds, equal lives.
	Seed uint64
	// Start is the simulated time at which the meter begins, within the years 2000
	// to 2099; default now. Its location is where the house stands.
	Start time.Time
	// Speed is how many simulated seconds pass in a real one, up to 86400; default 1.
	Speed float64
	// Integration is how often the meter's values change in simulated time: whole
	// seconds, 2 s to 1 h; default 32 s.
	Integration time.Duration
	// EnergyUnit is the unit of a heat meter's energy registers: "GJ" (the default),
	// "MWh" or "kWh". The high resolution registers stay in Wh, as in real meters.
	EnergyUnit string
	// Cooling lets a heat meter's house be cooled by the same pipes on warm days: the
	// water comes back warmer than it came, and E3 counts instead of E1.
	Cooling bool
	// FineModulus is how many steps a high resolution register counts before it starts
	// again at 0, 1000 to 10^9; default 10^7 (technical description of the 403, p 127).
	FineModulus int64
	// Address is the data link address; default [kmp.HeatMeter].
	Address kmp.Address
	// Paced makes the bytes take their time: a request counts as received when it
	// would have been through a line of ByteTime a byte, and the bytes of the answer
	// leave one by one.
	Paced bool
	// ByteTime is one byte on the line; default 11 bits at 1200 baud, 9.17 ms.
	ByteTime time.Duration
	// Turnaround is the time from the last byte of a request to the first of its
	// answer; default 20 ms, negative for none.
	Turnaround time.Duration
	// Strict drops a request with a gap of more than 27 ms inside it, as real meters
	// do. A gap is what lies between two reads from the line.
	Strict bool
	// LogDepth is how many rows each log keeps, up to 65535; 0 is what real ones keep:
	// 20 years, 36 months, 460 days, 1400 hours and, invented, 1400 minutes.
	LogDepth int
	// LogBuffer is how many bytes of command data an answer with rows may have, 64 to
	// 4000; rows that do not fit are left off. Default 1024; how large a real one is
	// is not known.
	LogBuffer int
	// EmptyLogs lets the logs begin at the start of the simulation, empty, instead of
	// when the meter was installed.
	EmptyLogs bool
	// NoLogs makes the meter silent to the commands that read logs.
	NoLogs bool
	// ClockOffset is how far the meter's clock is ahead of the simulated time at the
	// start and before it, up to ten years in either direction.
	ClockOffset time.Duration
	// ClockDrift is how much it gains from then on, in parts per million: 11.6 is a
	// second a day. -100000 to 100000.
	ClockDrift float64
	// PowerCut is a time without power, the same as [Meter.PowerCut] makes one.
	PowerCut Outage
	// Password is what PutRegister has to say; default 1234, which is invented: those
	// of real meters are not public.
	Password uint16
	Faults   Faults
}

// Faults are what can be wrong with a line and its meter. Chances are between 0 (never)
// and 1 (always); times are real ones, whatever the simulation's speed is.
type Faults struct {
	// Echo sends every byte that arrives back at once, as an optical head does.
	Echo bool
	// Noise is the chance of random bytes before an answer, and of some behind it.
	Noise float64
	// StrayBytes is the chance of single 00 bytes: before an answer, and once a
	// second while nothing happens.
	StrayBytes float64
	// Lost is the chance that an answer never leaves.
	Lost float64
	// Late is the chance that an answer leaves LateBy later than it should.
	Late float64
	// LateBy is how late; default 3 s, which is longer than clients wait.
	LateBy time.Duration
	// Corrupted is the chance that one to three bits of an answer are flipped.
	Corrupted float64
	// Truncated is the chance that an answer ends too early.
	Truncated float64
	// Duplicated is the chance that an answer is sent twice.
	Duplicated float64
	// ByteByByte hands an answer over in single bytes, a millisecond apart if not paced.
	ByteByByte bool
	// MissingRegisters are left out of answers as if the meter did not have them.
	MissingRegisters []uint16
	// SleepAfter is how long the meter answers after it was woken (see [Meter.Wake])
	// or first served; default always. A real one sleeps when no magnet holds its eye open.
	SleepAfter time.Duration
	// Silence makes the meter answer nothing at all. The echo is the head's: it stays.
	Silence bool
	// Throttle shuts the optical port after some sessions, as water meters do.
	Throttle Throttle
	// Sensor is a heat meter's faulty temperature sensor: "t1_short", "t1_open",
	// "t2_short" or "t2_open". It reads 0.00 °C or 185.00 °C, and the info code says so;
	// power, flow and temperature difference read 0, and nothing is counted (technical
	// description of the 403, p 94).
	Sensor string
	// Info is set in the info code of a heat or water meter, with what a faulty sensor
	// sets. Its bits mean what they mean in the model.
	Info uint32
	// Forged is the chance that one to three bits of a value, of a register or in a row
	// of a log, are flipped and the checksum is made to fit. An answer that another fault spoils
	// is not forged.
	Forged float64
	// Garbled mangles every byte of every answer, as a wrong baud rate does: no frame
	// ever comes.
	Garbled bool
	// ASCII makes the meter speak the dialect of a MULTICAL 66C or 401: it answers every
	// frame that arrives with ten groups of seven digits in 7E2.
	ASCII bool
	// Foreign is the address that answers carry; default the one that was asked.
	Foreign kmp.Address
	// MaxAnswer is how many bytes of an answer come through unharmed: longer ones are
	// damaged behind it, as with a badly placed head. 0: all.
	MaxAnswer int
}

// Throttle shuts a port. The zero Throttle never does.
type Throttle struct {
	// Sessions is how many sessions the port stays open for. A session begins with a
	// request that comes 10 s or more after the one before.
	Sessions int
	// Shut is how long nothing is answered then, counted from the end of the last
	// session.
	Shut time.Duration
}

// String returns the throttle as an option has it, "5/12h0m0s"; "" for none.
func (t Throttle) String() string {
	if t.Sessions == 0 {
		return ""
	}
	return fmt.Sprintf("%d/%s", t.Sessions, t.Shut)
}

// parseThrottle parses what String returns.
func parseThrottle(s string) (Throttle, error) {
	sessions, shut, ok := strings.Cut(s, "/")
	if !ok {
		return Throttle{}, errValue
	}
	n, err := strconv.Atoi(sessions)
	if err != nil {
		return Throttle{}, err
	}
	d, err := time.ParseDuration(shut)
	if err != nil {
		return Throttle{}, err
	}
	t := Throttle{n, d}
	if t == (Throttle{}) || !t.ok() {
		return Throttle{}, errValue
	}
	return t, nil
}

func (t Throttle) ok() bool {
	return t == (Throttle{}) || t.Sessions > 0 && t.Sessions <= maxSessions && t.Shut > 0
}

// Outage is a time without power, in simulated time. The zero Outage is none.
type Outage struct {
	// After is when it begins, counted from the start; negative for one in the past
	// that the logs tell of, up to two years back.
	After time.Duration
	// For is how long it lasts.
	For time.Duration
}

// String returns the outage as an option has it, "-5h0m0s/3h0m0s"; "" for none.
func (o Outage) String() string {
	if o.For == 0 {
		return ""
	}
	return fmt.Sprintf("%s/%s", o.After, o.For)
}

// parseOutage parses what String returns.
func parseOutage(s string) (Outage, error) {
	after, duration, ok := strings.Cut(s, "/")
	if !ok {
		return Outage{}, errValue
	}
	a, err1 := time.ParseDuration(after)
	d, err2 := time.ParseDuration(duration)
	if err := errors.Join(err1, err2); err != nil {
		return Outage{}, err
	}
	o := Outage{a, d}
	if d == 0 || !o.ok() {
		return Outage{}, errValue
	}
	return o, nil
}

func (o Outage) ok() bool {
	return o.After >= -2*365*24*time.Hour && o.After <= maxElapsed && o.For >= 0 && o.For <= maxOffset
}

const (
	defaultModel      = "403"
	defaultSerial     = 80123456
	defaultTurnaround = 20 * time.Millisecond
	defaultLateBy     = 3 * time.Second

	minIntegration = 2 * time.Second
	maxIntegration = time.Hour
	maxSpeed       = 86400
	maxSessions    = 1_000_000
	maxAnswer      = 4096
	minModulus     = 1000
	maxModulus     = 1_000_000_000
	defaultModulus = 10_000_000
	maxByteTime    = time.Second
	noTurnaround   = -1

	maxDepth        = math.MaxUint16
	minBuffer       = 64
	maxBuffer       = 4000
	defaultBuffer   = 1024
	maxOffset       = 10 * 365 * 24 * time.Hour
	maxDrift        = 100_000
	defaultPassword = 1234
)

// withDefaults returns c with every field set.
func (c Config) withDefaults() Config {
	if c.Model == "" {
		c.Model = defaultModel
	}
	if c.Serial == 0 {
		c.Serial = defaultSerial
	}
	if c.Speed == 0 {
		c.Speed = 1
	}
	if c.Integration == 0 {
		c.Integration = 32 * time.Second
		if m, err := modelByName(c.Model); err == nil {
			c.Integration = m.integration
		}
	}
	if c.EnergyUnit == "" {
		c.EnergyUnit = "GJ"
	}
	if c.FineModulus == 0 {
		c.FineModulus = defaultModulus
	}
	if c.Address == 0 {
		c.Address = kmp.HeatMeter
	}
	if c.ByteTime == 0 {
		c.ByteTime = kmp.DefaultByteTime
	}
	if c.Turnaround == 0 {
		c.Turnaround = defaultTurnaround
	}
	if c.LogBuffer == 0 {
		c.LogBuffer = defaultBuffer
	}
	if c.Password == 0 {
		c.Password = defaultPassword
	}
	c.Faults = c.Faults.withDefaults()
	return c
}

// withDefaults returns f with every field set.
func (f Faults) withDefaults() Faults {
	if f.LateBy == 0 {
		f.LateBy = defaultLateBy
	}
	return f
}

// check returns what is wrong with a Config whose defaults are filled in, all of it.
func (c Config) check() error {
	var errs []error
	wrong := func(ok bool, option string, got any, allowed string) {
		if !ok {
			errs = append(errs, optionError(option, fmt.Sprint(got), allowed))
		}
	}
	m, err := modelByName(c.Model)
	wrong(err == nil, "model", c.Model, allowedModels)
	known := err == nil
	wrong(!known || m.kind == heat || !c.Cooling, "cooling", c.Cooling, allowedHeat)
	wrong(!known || m.kind == heat || c.Faults.Sensor == "", "sensor", c.Faults.Sensor, allowedHeat)
	wrong(!known || m.kind != electricity || c.Faults.Info == 0, "info", c.Faults.Info, allowedNoInfo)
	wrong(!known || m.kind != water || c.Faults.Info <= math.MaxUint16, "info", c.Faults.Info, allowedInfo16)
	_, _, err = energyUnitByName(c.EnergyUnit)
	wrong(err == nil, "energy", c.EnergyUnit, allowedUnits)
	wrong(c.Speed > 0 && c.Speed <= maxSpeed, "speed", c.Speed, allowedSpeed)
	wrong(c.Integration >= minIntegration && c.Integration <= maxIntegration && c.Integration%time.Second == 0,
		"integration", c.Integration, allowedIntegration)
	wrong(c.ByteTime > 0 && c.ByteTime <= maxByteTime, "byte-time", c.ByteTime, allowedByteTime)
	wrong(c.Start.IsZero() || c.Start.UTC().Year() >= 2000 && c.Start.UTC().Year() < 2100, "start", c.Start.Format(time.RFC3339), allowedStart)
	wrong(c.LogDepth >= 0 && c.LogDepth <= maxDepth, "log-depth", c.LogDepth, allowedDepth)
	wrong(c.LogBuffer >= minBuffer && c.LogBuffer <= maxBuffer, "log-buffer", c.LogBuffer, allowedBuffer)
	wrong(c.ClockOffset >= -maxOffset && c.ClockOffset <= maxOffset, "clock-offset", c.ClockOffset, allowedOffset)
	wrong(c.ClockDrift >= -maxDrift && c.ClockDrift <= maxDrift, "clock-drift", c.ClockDrift, allowedDrift)
	wrong(c.PowerCut.ok(), "power-cut", c.PowerCut, allowedOutage)
	for _, chance := range []struct {
		option string
		p      float64
	}{
		{"noise", c.Faults.Noise},
		{"stray", c.Faults.StrayBytes},
		{"lost", c.Faults.Lost},
		{"late", c.Faults.Late},
		{"corrupted", c.Faults.Corrupted},
		{"truncated", c.Faults.Truncated},
		{"duplicated", c.Faults.Duplicated},
		{"forged", c.Faults.Forged},
	} {
		wrong(chance.p >= 0 && chance.p <= 1, chance.option, chance.p, allowedChance)
	}
	wrong(c.Faults.LateBy > 0, "late-by", c.Faults.LateBy, allowedPositive)
	wrong(c.Faults.SleepAfter >= 0, "sleep-after", c.Faults.SleepAfter, allowedDuration)
	wrong(c.FineModulus >= minModulus && c.FineModulus <= maxModulus, "fine-modulus", c.FineModulus, allowedModulus)
	wrong(c.Faults.Throttle.ok(), "throttle", c.Faults.Throttle, allowedThrottle)
	_, ok := sensors[c.Faults.Sensor]
	wrong(ok || c.Faults.Sensor == "", "sensor", c.Faults.Sensor, allowedSensor)
	wrong(c.Faults.MaxAnswer >= 0 && c.Faults.MaxAnswer <= maxAnswer, "max-answer", c.Faults.MaxAnswer, allowedAnswer)
	return errors.Join(errs...)
}

// What an option may be, for its error.
const (
	allowedModels      = "21, 382, 403, 601 or 603"
	allowedUnits       = "GJ, MWh or kWh"
	allowedSpeed       = "a number above 0, up to 86400"
	allowedIntegration = "whole seconds from 2s to 1h"
	allowedByteTime    = "a duration such as 9.166ms, up to 1s"
	allowedStart       = "a date or time such as 2026-01-15 or 2026-01-15T08:00:00Z, in the years 2000 to 2099"
	allowedChance      = "a chance from 0 to 1 such as 0.1"
	allowedPositive    = "a duration above 0 such as 3s"
	allowedDuration    = "a duration such as 20ms or 4m, not negative"
	allowedSerial      = "a whole number from 1 to 4294967295"
	allowedSeed        = "a whole number, not negative"
	allowedAddress     = "a byte such as 0x3F, not 0"
	allowedBool        = "true or false"
	allowedMissing     = "register numbers such as 63,97"
	allowedModulus     = "a whole number from 1000 to 1e9 such as 1e7"
	allowedThrottle    = "sessions and how long it is shut then, such as 5/12h"
	allowedSensor      = "t1_short, t1_open, t2_short or t2_open"
	allowedInfo        = "a whole number from 0 to 4294967295 such as 16 or 0x10"
	allowedInfo16      = "at most 65535 for a water meter"
	allowedAnswer      = "a number of bytes from 0 (all) to 4096"
	allowedHeat        = "it left out: only a heat meter has it"
	allowedDepth       = "a number of rows from 0 (as in real meters) to 65535"
	allowedBuffer      = "a number of bytes from 64 to 4000"
	allowedOffset      = "a duration such as 90s or -2h, up to ten years"
	allowedDrift       = "parts per million from -100000 to 100000 such as 25"
	allowedOutage      = "when it begins and how long it lasts, such as 2h/45m, or -5h/3h for one before the start"
	allowedPassword    = "a whole number from 1 to 65535"
	allowedNoInfo      = "it left out: this meter has no info code"
)

// ErrOption is wrapped by every error about an option or a field of a [Config].
var ErrOption = errors.New("sim: bad option")

func optionError(option, got, allowed string) error {
	return fmt.Errorf("%w %s=%q: want %s", ErrOption, option, got, allowed)
}

func modelByName(name string) (model, error) {
	for _, m := range models {
		if m.name == name {
			return m, nil
		}
	}
	return model{}, optionError("model", name, allowedModels)
}

// energyUnitByName returns the unit that a name in any case means, and the name as
// it is written.
func energyUnitByName(name string) (unit kmp.Unit, canonical string, err error) {
	switch strings.ToLower(name) {
	case "gj":
		return kmp.UnitGJ, "GJ", nil
	case "mwh":
		return kmp.UnitMWh, "MWh", nil
	case "kwh":
		return kmp.UnitKWh, "kWh", nil
	}
	return 0, "", optionError("energy", name, allowedUnits)
}

// RegisterFlags defines the options of the simulated meter in fs; parsing sets c.
// Fields that are not set get their defaults first, so that fs shows them.
//
// Faults that have a chance may be given without one: -late is always, -late=0.1
// one in ten. Noise and lost always need theirs.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	*c = c.withDefaults()
	set := func(name, usage, allowed, def string, parse func(string) error) {
		fs.Var(&option{name: name, allowed: allowed, text: def, parse: parse}, name, usage)
	}
	bare := func(name, usage, allowed, def string, parse func(string) error) {
		fs.Var(&option{name: name, allowed: allowed, text: def, parse: parse, bare: true}, name, usage)
	}
	truth := func(name, usage string, p *bool) {
		text := ""
		if *p {
			text = "true"
		}
		bare(name, usage, allowedBool, text, func(s string) (err error) {
			*p, err = strconv.ParseBool(s)
			return err
		})
	}
	chance := func(p *float64) (string, func(string) error) {
		text := ""
		if *p > 0 {
			text = formatFloat(*p)
		}
		return text, func(s string) error {
			v, err := strconv.ParseFloat(s, 64)
			if always, isBool := parseBool(s); isBool {
				v, err = 0, nil
				if always {
					v = 1
				}
			}
			if err == nil && !(v >= 0 && v <= 1) { // not a number is neither
				return errValue
			}
			*p = v
			return err
		}
	}
	duration := func(p *time.Duration, least, most time.Duration) (string, func(string) error) {
		text := ""
		if *p != 0 {
			text = max(*p, least).String()
		}
		return text, func(s string) error {
			d, err := time.ParseDuration(s)
			if err == nil && (d < least || most > 0 && d > most) {
				return errValue
			}
			*p = d
			return err
		}
	}

	set("model", "`MODEL` of the meter: "+allowedModels, allowedModels, c.Model, func(s string) error {
		m, err := modelByName(s)
		c.Model = m.name
		return err
	})
	set("serial", "serial `NUMBER`", allowedSerial, strconv.FormatUint(uint64(c.Serial), 10), func(s string) error {
		v, err := strconv.ParseUint(s, 10, 32)
		if err == nil && v == 0 {
			return errValue
		}
		c.Serial = uint32(v)
		return err
	})
	set("seed", "`NUMBER` that chooses the house, its weather and the faults", allowedSeed, strconv.FormatUint(c.Seed, 10), func(s string) (err error) {
		c.Seed, err = strconv.ParseUint(s, 10, 64)
		return err
	})
	start := ""
	if !c.Start.IsZero() {
		start = c.Start.Format(time.RFC3339)
	}
	set("start", "simulated `TIME` at the beginning (default now)", allowedStart, start, func(s string) error {
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t, err = time.ParseInLocation(time.DateOnly, s, time.Local)
		}
		if err == nil && (t.UTC().Year() < 2000 || t.UTC().Year() >= 2100) {
			return errValue
		}
		c.Start = t
		return err
	})
	set("speed", "simulated `SECONDS` in a real one; 288 makes a day five minutes", allowedSpeed, formatFloat(c.Speed), func(s string) error {
		v, err := strconv.ParseFloat(s, 64)
		if err == nil && !(v > 0 && v <= maxSpeed) {
			return errValue
		}
		c.Speed = v
		return err
	})
	text, interval := duration(&c.Integration, minIntegration, maxIntegration)
	set("integration", "simulated `TIME` between changes of the values", allowedIntegration, text, func(s string) error {
		if err := interval(s); err != nil || c.Integration%time.Second != 0 {
			return errValue
		}
		return nil
	})
	set("energy", "`UNIT` of the energy registers: "+allowedUnits, allowedUnits, c.EnergyUnit, func(s string) (err error) {
		_, c.EnergyUnit, err = energyUnitByName(s)
		return err
	})
	truth("cooling", "cool the house on warm days, counted as E3 (heat meters)", &c.Cooling)
	set("fine-modulus", "`STEPS` after which high resolution registers start again at 0", allowedModulus, strconv.FormatInt(c.FineModulus, 10), func(s string) (err error) {
		c.FineModulus, err = parseModulus(s)
		return err
	})
	address := func(p *kmp.Address) (string, func(string) error) {
		text := ""
		if *p != 0 {
			text = fmt.Sprintf("0x%02X", byte(*p))
		}
		return text, func(s string) error {
			v, err := strconv.ParseUint(s, 0, 8)
			if err == nil && v == 0 {
				return errValue
			}
			*p = kmp.Address(v)
			return err
		}
	}
	text, parse := address(&c.Address)
	set("address", "data link `ADDRESS`", allowedAddress, text, parse)
	truth("pace", "let bytes take their time on the line, in both directions", &c.Paced)
	text, parse = duration(&c.ByteTime, 1, maxByteTime)
	set("byte-time", "`TIME` of one byte when paced", allowedByteTime, text, parse)
	text, turnaround := duration(&c.Turnaround, 0, 0)
	set("turnaround", "`TIME` from a request to its answer", allowedDuration, text, func(s string) error {
		err := turnaround(s)
		if err == nil && c.Turnaround == 0 {
			c.Turnaround = noTurnaround
		}
		return err
	})
	truth("strict", "drop a request with a gap of more than 27 ms in it", &c.Strict)
	number := func(p *int, least, most int) (string, func(string) error) {
		text := ""
		if *p != 0 {
			text = strconv.Itoa(*p)
		}
		return text, func(s string) error {
			v, err := strconv.Atoi(s)
			if err == nil && (v < least || v > most) {
				return errValue
			}
			*p = v
			return err
		}
	}
	text, parse = number(&c.LogDepth, 0, maxDepth)
	set("log-depth", "`ROWS` that each log keeps (default as real meters do)", allowedDepth, text, parse)
	text, parse = number(&c.LogBuffer, minBuffer, maxBuffer)
	set("log-buffer", "`BYTES` of an answer with rows of a log; what does not fit is left off", allowedBuffer, text, parse)
	truth("empty-logs", "begin with empty logs", &c.EmptyLogs)
	truth("no-logs", "be silent to commands that read logs", &c.NoLogs)
	text, parse = duration(&c.ClockOffset, -maxOffset, maxOffset)
	set("clock-offset", "`TIME` by which the meter's clock is ahead at the start", allowedOffset, text, parse)
	drift := ""
	if c.ClockDrift != 0 {
		drift = formatFloat(c.ClockDrift)
	}
	set("clock-drift", "`PPM` by which it gains: 11.6 is a second a day", allowedDrift, drift, func(s string) error {
		v, err := strconv.ParseFloat(s, 64)
		if err == nil && !(v >= -maxDrift && v <= maxDrift) {
			return errValue
		}
		c.ClockDrift = v
		return err
	})
	set("power-cut", "`AFTER/TIME`: cut the power AFTER the start for TIME, simulated; a negative AFTER is in the past", allowedOutage, c.PowerCut.String(), func(s string) (err error) {
		c.PowerCut, err = parseOutage(s)
		return err
	})
	set("password", "`NUMBER` that PutRegister has to say", allowedPassword, strconv.Itoa(int(c.Password)), func(s string) error {
		v, err := strconv.ParseUint(s, 0, 16)
		if err == nil && v == 0 {
			return errValue
		}
		c.Password = uint16(v)
		return err
	})

	f := &c.Faults
	truth("echo", "send what arrives back, as an optical head does", &f.Echo)
	text, parse = chance(&f.Noise)
	set("noise", "`CHANCE` of random bytes around an answer", allowedChance, text, parse)
	text, parse = chance(&f.StrayBytes)
	bare("stray", "`CHANCE` of stray 00 bytes, as -stray=0.1; without it always", allowedChance, text, parse)
	text, parse = chance(&f.Lost)
	set("lost", "`CHANCE` that an answer is lost", allowedChance, text, parse)
	text, parse = chance(&f.Late)
	bare("late", "`CHANCE` that an answer comes too late, as -late=0.1; without it always", allowedChance, text, parse)
	text, parse = duration(&f.LateBy, 1, 0)
	set("late-by", "`TIME` by which it is late", allowedPositive, text, parse)
	text, parse = chance(&f.Corrupted)
	bare("corrupted", "`CHANCE` of flipped bits in an answer, as -corrupted=0.1; without it always", allowedChance, text, parse)
	text, parse = chance(&f.Truncated)
	bare("truncated", "`CHANCE` that an answer ends too early, as -truncated=0.1; without it always", allowedChance, text, parse)
	text, parse = chance(&f.Duplicated)
	bare("duplicated", "`CHANCE` that an answer comes twice, as -duplicated=0.1; without it always", allowedChance, text, parse)
	truth("byte-by-byte", "hand answers over byte by byte", &f.ByteByByte)
	set("missing", "`REGISTERS` the meter does not have, such as 63,97", allowedMissing, "", func(s string) error {
		for field := range strings.SplitSeq(s, ",") {
			id, err := strconv.ParseUint(strings.TrimSpace(field), 0, 16)
			if err != nil {
				return errValue
			}
			f.MissingRegisters = append(f.MissingRegisters, uint16(id))
		}
		return nil
	})
	text, parse = duration(&f.SleepAfter, 0, 0)
	set("sleep-after", "`TIME` after which the meter sleeps (default never)", allowedDuration, text, parse)
	truth("silence", "answer nothing", &f.Silence)
	set("throttle", "`SESSIONS/TIME`: shut the port for TIME after so many sessions, such as 5/12h", allowedThrottle, f.Throttle.String(), func(s string) (err error) {
		f.Throttle, err = parseThrottle(s)
		return err
	})
	set("sensor", "`FAULT` of a temperature sensor: "+allowedSensor, allowedSensor, f.Sensor, func(s string) error {
		if _, ok := sensors[s]; !ok {
			return errValue
		}
		f.Sensor = s
		return nil
	})
	info := ""
	if f.Info != 0 {
		info = strconv.FormatUint(uint64(f.Info), 10)
	}
	set("info", "raw info `CODE` to show", allowedInfo, info, func(s string) error {
		v, err := strconv.ParseUint(s, 0, 32)
		f.Info = uint32(v)
		return err
	})
	text, parse = chance(&f.Forged)
	bare("forged", "`CHANCE` of a changed value under a checksum that fits, as -forged=0.01; without it always", allowedChance, text, parse)
	truth("garbled", "mangle all answers, as a wrong baud rate does", &f.Garbled)
	truth("ascii", "answer in the dialect of a MULTICAL 66C or 401", &f.ASCII)
	text, parse = address(&f.Foreign)
	set("foreign", "`ADDRESS` that answers carry instead of the right one", allowedAddress, text, parse)
	text, parse = number(&f.MaxAnswer, 0, maxAnswer)
	set("max-answer", "`BYTES` of an answer that come through; longer answers are damaged behind them", allowedAnswer, text, parse)
}

// parseModulus parses a whole number that may be written as 1e7.
func parseModulus(s string) (int64, error) {
	d, err := kmp.ParseDecimal(s)
	if err != nil {
		return 0, err
	}
	v, ok := d.Int64()
	if !ok || v < minModulus || v > maxModulus {
		return 0, errValue
	}
	return v, nil
}

// errValue is a value that could be read but is not allowed.
var errValue = errors.New("not allowed")

// option is one flag.
type option struct {
	name, allowed string
	text          string // as it was set
	bare          bool   // may stand without a value
	parse         func(string) error
}

// String returns the value as it was set, or the default; "" for what is off.
func (o *option) String() string { return o.text }

// Set parses a value. Errors name the option and what it may be.
func (o *option) Set(s string) error {
	if o.parse(s) != nil {
		return optionError(o.name, s, o.allowed)
	}
	o.text = s
	return nil
}

// IsBoolFlag tells package flag that the option may stand without a value.
func (o *option) IsBoolFlag() bool { return o.bare }

func parseBool(s string) (v, ok bool) {
	switch s {
	case "true":
		return true, true
	case "false":
		return false, true
	}
	return false, false
}

func formatFloat(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// ParseConfig returns the Config that a line such as sim://403?echo=true&lost=0.1&speed=60
// means: options have the names of the flags that [Config.RegisterFlags] defines. An
// option without a value is true. An empty model is the default. Every option that is
// wrong is named, with what it may be; the errors wrap [ErrOption].
func ParseConfig(modelName string, q url.Values) (Config, error) {
	c := Config{Model: modelName}
	var errs []error
	if _, err := modelByName(c.withDefaults().Model); err != nil {
		errs = append(errs, err)
	}
	fs := flag.NewFlagSet("sim", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	c.RegisterFlags(fs)
	for _, name := range slices.Sorted(maps.Keys(q)) {
		f := fs.Lookup(name)
		switch {
		case name == "model":
			errs = append(errs, fmt.Errorf("%w %s=%q: the model stands before the options: sim://%s", ErrOption, name, q.Get(name), q.Get(name)))
			continue
		case f == nil:
			errs = append(errs, fmt.Errorf("%w %q: want one of %s", ErrOption, name, names(fs)))
			continue
		case len(q[name]) > 1 && name != "missing":
			errs = append(errs, fmt.Errorf("%w %s: given %d times", ErrOption, name, len(q[name])))
			continue
		}
		for _, value := range q[name] {
			if value == "" && f.Value.(*option).bare {
				value = "true"
			}
			if err := fs.Set(name, value); err != nil {
				errs = append(errs, err)
			}
		}
	}
	if len(errs) == 0 {
		errs = append(errs, c.check()) // what is wrong with options together
	}
	if err := errors.Join(errs...); err != nil {
		return Config{}, err
	}
	return c, nil
}

// names lists the options that a line may have.
func names(fs *flag.FlagSet) string {
	var list []string
	fs.VisitAll(func(f *flag.Flag) {
		if f.Name != "model" {
			list = append(list, f.Name)
		}
	})
	return strings.Join(list, ", ")
}
