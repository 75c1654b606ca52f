package bridge

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"kmp2mqtt/bridge/numbers"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/diagnosis"
	"kmp2mqtt/kmp/sim"
)

// probe stands between a bridge and a simulated meter: it hears every request, notes what
// the meter holds at that moment, and compares each state that is published with it.
type probe struct {
	meter  *sim.Meter
	exact  *sim.Meter // lives the same life, but its high-resolution registers keep all digits
	models []string   // what the bridge may take it for

	window  map[uint16][]kmp.Register // what the registers of the reading that goes on held since it began
	whole   map[uint16][]*big.Rat     // the same of the high-resolution registers, with all digits
	recent  []uint16                  // registers of the newest request
	touched time.Time                 // when that left

	truth     map[string][]string   // what may be published, by key, as of the newest good reading
	fine      map[string][]*big.Rat // likewise what is derived exactly, by name
	published map[string]string     // the newest state
	unknown   map[string]string     // of its values, and why
	volumes   []volumes             // at good readings, newest last
	pending   map[string]json.RawMessage
	outcome   string // of the reading that the next diagnosis belongs to: good, failed, or empty
	ok, bad   uint64

	forgeries *forgeries   // nil: answers are not forged
	progress  atomic.Int64 // good readings
	tally     tally
}

// tally is what a run came to.
type tally struct {
	good, failed int
	values       int // published, those without a value included
	nulls        int // of these, each with a reason
	held         int // events value_held, and values that are held
	wrong        int
	first        []string // of what is wrong or held, in words
	codes        map[diagnosis.Code]int
	lasted       time.Duration
	forgeries    *forgeries // nil: there were none
}

// volumes are what the meter had counted at a good reading.
type volumes struct {
	at           time.Time
	volume       []*big.Rat // m³: exact, and as register 68 has it
	supply, back []*big.Rat // m³·°C; none: not read
}

func newProbe(meter, exact *sim.Meter) *probe {
	return &probe{
		meter: meter, exact: exact, window: map[uint16][]kmp.Register{}, whole: map[uint16][]*big.Rat{},
		truth: map[string][]string{}, fine: map[string][]*big.Rat{}, published: map[string]string{},
		tally: tally{codes: map[diagnosis.Code]int{}},
	}
}

// heardLine is the bridge's end of a line.
type heardLine struct {
	net.Conn
	p      *probe
	answer []byte // what came since the newest request
}

func (l *heardLine) Write(b []byte) (int, error) {
	l.answer = nil
	l.p.request(b)
	return l.Conn.Write(b)
}

func (l *heardLine) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if l.p.forgeries == nil || n == 0 {
		return n, err
	}
	if l.answer = append(l.answer, b[:n]...); l.answer[len(l.answer)-1] == kmp.Stop {
		l.p.hear(l.answer)
		l.answer = nil
	}
	return n, err
}

// readingGap is longer than any pause between two requests of one reading.
const readingGap = 30 * time.Second

// request notes what the registers hold that are asked for, and those of the request
// before: its answer has come by now.
func (p *probe) request(wire []byte) {
	f, err := kmp.DecodeFrame(wire)
	if err != nil {
		return
	}
	now := time.Now()
	if now.Sub(p.touched) > readingGap {
		p.forget()
	}
	p.touched = now
	p.sample(p.recent)
	p.recent = nil
	var q kmp.GetRegisterRequest
	if f.Command == kmp.CmdGetRegister && q.DecodeData(f.Data) == nil {
		p.recent = slices.Clone(q.IDs)
		p.sample(p.recent)
	}
}

func (p *probe) forget() {
	if p.forgeries != nil {
		p.forgeries.pass()
	}
	clear(p.window)
	clear(p.whole)
	p.recent = nil
}

// fineRegisters are those that the exact meter is asked for, with what they count.
var fineRegisters = map[uint16]string{266: "energy_fine", 155: "energy_fine", 267: "cooling_energy_fine", 239: "volume_fine"}

func (p *probe) sample(ids []uint16) {
	for _, id := range ids {
		r, ok := p.meter.Read(id)
		if !ok {
			continue
		}
		known := p.window[id]
		if n := len(known); n > 0 && bytes.Equal(known[n-1].Raw, r.Raw) && known[n-1].SiEx == r.SiEx {
			continue
		}
		p.window[id] = append(known, r)
		if fineRegisters[id] == "" || p.exact == nil {
			continue
		}
		if r, ok := p.exact.Read(id); ok {
			if d, err := r.Decimal(); err == nil {
				p.whole[id] = append(p.whole[id], inUnit(d, r.Unit))
			}
		}
	}
}

// inUnit is an amount in J or in litres.
func inUnit(d kmp.Decimal, unit kmp.Unit) *big.Rat {
	factors := map[kmp.Unit]int64{
		kmp.UnitWh: 3600, kmp.UnitKWh: 3600e3, kmp.UnitMWh: 3600e6, kmp.UnitGJ: 1e9, kmp.UnitLitre: 1, kmp.UnitCubicMetre: 1000,
	}
	x, _ := new(big.Rat).SetString(d.String())
	return x.Mul(x, big.NewRat(factors[unit], 1))
}

// tap sees what is published.
func (p *probe) tap(m Message) {
	switch _, leaf, _ := strings.Cut(strings.TrimPrefix(m.Topic, "kmp2mqtt/"), "/"); {
	case m.Topic == "kmp2mqtt/house":
		p.pending = map[string]json.RawMessage{}
		if err := json.Unmarshal(m.Payload, &p.pending); err != nil {
			p.wrong("state %s: %v", m.Payload, err)
		}
	case leaf == "diagnostics":
		var d struct {
			OK      uint64            `json:"reads_ok"`
			Failed  uint64            `json:"reads_failed"`
			Unknown map[string]string `json:"unknown"`
		}
		if err := json.Unmarshal(m.Payload, &d); err != nil {
			p.wrong("diagnostics %s: %v", m.Payload, err)
		}
		if d.OK > p.ok && p.pending != nil {
			p.learn()
			p.compare(d.Unknown)
		}
		switch {
		case d.OK > p.ok:
			p.outcome = "good"
			p.forget()
		case d.Failed > p.bad:
			p.outcome = "failed"
			p.forget()
		}
		p.ok, p.bad, p.pending = d.OK, d.Failed, nil
		p.tally.good, p.tally.failed = int(d.OK), int(d.Failed)
		p.progress.Store(int64(d.OK))
	case leaf == "diagnosis" && p.outcome == "good":
		if !bytes.HasPrefix(m.Payload, []byte(`{"code":"ok",`)) {
			p.wrong("a good reading is diagnosed %s", m.Payload)
		}
		p.outcome = ""
	case leaf == "diagnosis" && p.outcome == "failed":
		var d struct{ Code diagnosis.Code }
		if err := json.Unmarshal(m.Payload, &d); err != nil {
			p.wrong("diagnosis %s: %v", m.Payload, err)
		}
		p.tally.codes[d.Code]++
		p.outcome = ""
	case m.Topic == "kmp2mqtt/bridge/event":
		if bytes.Contains(m.Payload, []byte(`"value_held"`)) {
			p.tally.held++
			if p.forgeries == nil {
				p.note(string(m.Payload))
			}
		}
	}
}

// learn takes what was noted since the reading began as what it may tell.
func (p *probe) learn() {
	p.sample(p.recent)
	for id, list := range p.window {
		for i, r := range list {
			v, _ := numbers.Decode(r) // without a value it is null
			if i == 0 {
				p.truth[v.Key] = nil
			}
			if p.forgeries != nil {
				p.forgeries.registers[v.Key] = v.Register
			}
			p.truth[v.Key] = append(p.truth[v.Key], string(encodeJSON(v.Value)))
		}
		if name := fineRegisters[id]; name != "" {
			p.fine[name] = p.whole[id]
		}
	}
	p.remember()
}

// remember notes the volumes for averages.
func (p *probe) remember() {
	v := volumes{at: time.Now(), supply: p.rationals(97), back: p.rationals(110)}
	if p.window[68] == nil || len(v.supply)+len(v.back) == 0 {
		return
	}
	for _, litres := range p.whole[239] {
		v.volume = append(v.volume, new(big.Rat).Quo(litres, big.NewRat(1000, 1)))
	}
	v.volume = append(v.volume, p.rationals(68)...)
	p.volumes = append(p.volumes, v)
}

// compare compares a state with what the meter held.
func (p *probe) compare(unknown map[string]string) {
	state := make(map[string]string, len(p.pending))
	for key, raw := range p.pending {
		state[key] = string(raw)
	}
	if p.forgeries != nil {
		p.judge(state, unknown)
		p.published, p.unknown = state, unknown
		return
	}
	for key, got := range state {
		p.tally.values++
		held := isHeld(unknown[key])
		if held {
			p.tally.held++
			p.note(key + " is " + unknown[key])
		}
		switch {
		case got == "null":
			p.tally.nulls++
			if unknown[key] == "" && p.asked(key) {
				p.wrong("%s is null without a reason, the meter holds %s", key, p.allowed(key))
			}
		case !p.right(key, got) && !(held && got == p.published[key]):
			p.wrong("%s is %s, the meter holds %s (before: %s, unknown: %q)", key, got, p.allowed(key), p.published[key], unknown[key])
		}
	}
	p.published, p.unknown = state, unknown
}

// isHeld tells whether a reason says that an older value stands in the place of a new one.
func isHeld(reason string) bool {
	return strings.HasPrefix(reason, "held") || strings.Contains(reason, " is held")
}

func (p *probe) allowed(key string) string {
	if list := p.truth[key]; list != nil {
		return strings.Join(list, " or ")
	}
	return "something else"
}

// asked tells whether a register was part of this reading.
func (p *probe) asked(key string) bool {
	for _, list := range p.window {
		if v, _ := numbers.Decode(list[0]); v.Key == key {
			return v.Value != nil
		}
	}
	return false
}

// right tells whether a value is what the meter held during the reading, or follows from it.
func (p *probe) right(key, got string) bool {
	if list, ok := p.truth[key]; ok {
		return slices.Contains(list, got)
	}
	switch key {
	case "time":
		return got == string(jsonTime(time.Now()))
	case "info":
		return p.rightInfo(got)
	}
	x, ok := new(big.Rat).SetString(got)
	if !ok {
		return false
	}
	for _, r := range numbers.Derived() {
		unit, found := strings.CutPrefix(key, r.Name+"_")
		if !found {
			continue
		}
		switch {
		case p.fine[r.Name] != nil:
			return p.rightFine(r.Name, unit, x)
		case r.Name == "power_calculated":
			return p.rightPower(got)
		case strings.HasPrefix(r.Name, "weighted_"):
			return p.rightMean(r.Name, got)
		}
	}
	return false
}

// rightFine compares with all the digits that the meter counts.
func (p *probe) rightFine(name, unit string, x *big.Rat) bool {
	x = inSmall(x, unit)
	return slices.ContainsFunc(p.fine[name], func(y *big.Rat) bool { return x.Cmp(y) == 0 })
}

// inSmall is an amount in J or in litres; the unit is the end of a key.
func inSmall(x *big.Rat, unit string) *big.Rat {
	factors := map[string]int64{"kwh": 3600e3, "gj": 1e9, "m3": 1000}
	return new(big.Rat).Mul(x, big.NewRat(factors[unit], 1))
}

func (p *probe) rightInfo(got string) bool {
	var words []string
	if json.Unmarshal([]byte(got), &words) != nil {
		return false
	}
	register := uint16(99)
	if p.window[369] != nil {
		register = 369
	}
	for _, r := range p.window[register] {
		d, err := r.Decimal()
		n, ok := d.Int64()
		if err != nil || !ok {
			continue
		}
		for _, model := range p.models {
			if slices.Equal(words, catalog.InfoText(model, register, uint64(n))) {
				return true
			}
		}
	}
	return false
}

// rationals are what a register held, in the meter's unit.
func (p *probe) rationals(id uint16) []*big.Rat {
	var list []*big.Rat
	for _, r := range p.window[id] {
		if d, err := r.Decimal(); err == nil {
			x, _ := new(big.Rat).SetString(d.String())
			list = append(list, x)
		}
	}
	return list
}

// rightPower works the power out from flow (l/h) and temperatures, at 4.15 kJ for each
// litre and K.
func (p *probe) rightPower(got string) bool {
	digits := 0
	if _, after, ok := strings.Cut(got, "."); ok {
		digits = len(after)
	}
	for _, flow := range p.rationals(74) {
		for _, supply := range p.rationals(86) {
			for _, back := range p.rationals(87) {
				x := new(big.Rat).Sub(supply, back)
				x.Mul(x, flow).Mul(x, big.NewRat(415, 360000))
				if sameNumber(x.FloatString(digits), got) {
					return true
				}
			}
		}
	}
	return false
}

func sameNumber(a, b string) bool {
	x, ok := new(big.Rat).SetString(a)
	y, ok2 := new(big.Rat).SetString(b)
	return ok && ok2 && x.Cmp(y) == 0
}

// rightMean works out an average by volume since midnight or the first of the month: since
// the last reading before it or, when that was too long before, the first one behind it.
func (p *probe) rightMean(name, got string) bool {
	if len(p.volumes) == 0 {
		return false
	}
	now := p.volumes[len(p.volumes)-1]
	y, m, d := now.at.Date()
	near := 90 * time.Minute
	if strings.HasSuffix(name, "_month") {
		d, near = 1, 24*time.Hour
	}
	began := time.Date(y, m, d, 0, 0, 0, 0, now.at.Location())
	first, _ := slices.BinarySearchFunc(p.volumes, began, func(v volumes, t time.Time) int { return v.at.Compare(t) })
	switch {
	case first > 0 && began.Sub(p.volumes[first-1].at) <= near:
		first--
	case p.volumes[first].at.Sub(began) > near:
		return false
	}
	if meanSince(p.volumes[first], now, name, got) {
		return true
	}
	// What was held or read again may have moved the beginning.
	return p.forgeries != nil && slices.ContainsFunc(p.volumes, func(v volumes) bool {
		return began.Sub(v.at).Abs() <= near && meanSince(v, now, name, got)
	})
}

// meanSince tells whether a number is the mean between two readings, by one of the values
// that each may have seen.
func meanSince(from, now volumes, name, got string) bool {
	none := []*big.Rat{new(big.Rat)}
	supply, back := none, none // how much volume × temperature has grown
	if !strings.Contains(name, "return") {
		supply = differences(now.supply, from.supply)
	}
	if !strings.Contains(name, "supply") {
		back = differences(now.back, from.back)
	}
	for _, volume := range differences(now.volume, from.volume) {
		for _, s := range supply {
			for _, b := range back {
				x := new(big.Rat).Sub(s, b)
				if strings.Contains(name, "return") {
					x.Neg(x)
				}
				if volume.Sign() > 0 && sameNumber(x.Quo(x, volume).FloatString(2), got) {
					return true
				}
			}
		}
	}
	return false
}

// differences are those of all pairs.
func differences(now, from []*big.Rat) []*big.Rat {
	var list []*big.Rat
	for _, a := range now {
		for _, b := range from {
			list = append(list, new(big.Rat).Sub(a, b))
		}
	}
	return list
}

func (p *probe) wrong(format string, args ...any) {
	p.tally.wrong++
	p.note(fmt.Sprintf(format, args...))
}

// note keeps the first few.
func (p *probe) note(text string) {
	if len(p.tally.first) < 5 {
		p.tally.first = append(p.tally.first, time.Now().Format(time.DateTime)+" "+text)
	}
}
