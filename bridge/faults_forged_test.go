package bridge

import (
	"math/big"
	"slices"
	"strings"
	"time"

	"kmp2mqtt/bridge/numbers"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

// forgeries are what became of values that the meter never held, in answers whose
// checksum fits.
type forgeries struct {
	model     catalog.Model
	registers map[string]catalog.Register // by key
	recent    []forgery                   // since the newest reading began
	wrong     map[string]time.Time        // keys that are published wrong, and since when
	held      map[string]time.Time        // keys of forged values that are held
	settled   []time.Duration             // how long they were
	answers   int                         // forged ones that the bridge heard
	given     map[string]*fate            // by kind of register
	shown     map[string]*showing         // by kind of published value
}

// forgery is a value that an answer carried.
type forgery struct {
	id    uint16
	key   string
	value string // as it would be published
	same  bool   // the bits that were changed make no other value
}

// fate counts what became of forged values of one kind.
type fate struct {
	given   int
	unseen  int // nobody would have seen it: published nowhere, or no other value
	again   int // the answer was not believed, and the meter asked again at once
	held    int // a guard kept the last good value
	unknown int // a guard made it null
	wrong   int // published
}

// showing counts published values of one kind.
type showing struct {
	published, wrong int
	longest          time.Duration // that one stayed wrong
}

func newForgeries(model string) *forgeries {
	m, _ := catalog.ModelByName(model)
	f := &forgeries{
		model: m, registers: map[string]catalog.Register{}, wrong: map[string]time.Time{}, held: map[string]time.Time{},
		given: map[string]*fate{}, shown: map[string]*showing{},
	}
	for _, kind := range forgedKinds {
		f.given[kind] = &fate{}
	}
	for _, kind := range shownKinds {
		f.shown[kind] = &showing{}
	}
	return f
}

// The kinds of values in the report.
const (
	withTwin    = "counter with a high-resolution register"
	withoutTwin = "counter without one"
	truncated   = "high-resolution register"
	gauge       = "gauge"
	date        = "date"
	info        = "info code"
	identity    = "serial number"
	fused       = "derived: counter at full resolution"
	mean        = "derived: average by volume"
	power       = "derived: power from flow and temperatures"
)

// forgedKinds and shownKinds are in the order of the report.
var (
	forgedKinds = []string{withTwin, withoutTwin, truncated, gauge, date, info, identity}
	shownKinds  = []string{withTwin, withoutTwin, truncated, gauge, date, info, fused, mean, power}
)

// kind is that of a register.
func (f *forgeries) kind(r catalog.Register) string {
	switch r.Kind {
	case catalog.Counter, catalog.ResettableCounter:
		for coarse, fine := range map[uint16][]uint16{60: {266, 155}, 63: {267}, 68: {239}} {
			if r.ID == coarse && slices.ContainsFunc(fine, func(id uint16) bool { return slices.Contains(f.model.Registers, id) }) {
				return withTwin
			}
		}
		return withoutTwin
	case catalog.TruncatedCounter:
		return truncated
	case catalog.Date, catalog.Clock:
		return date
	case catalog.Bitfield:
		return info
	}
	if r.ID == serialRegister {
		return identity
	}
	return gauge
}

// kindOf is that of a published value.
func (f *forgeries) kindOf(key string) string {
	switch {
	case key == "info":
		return info
	case strings.HasPrefix(key, "weighted_"):
		return mean
	case strings.HasPrefix(key, "power_calculated"):
		return power
	case strings.Contains(key, "_fine_"):
		return fused
	}
	return f.kind(f.registers[key])
}

// pass is for forged values that are in no reading: a census asked for them, or the
// reading failed.
func (f *forgeries) pass() {
	for _, x := range f.recent {
		n := f.given[f.kind(catalog.Lookup(x.id))]
		n.given++
		n.unseen++
	}
	f.recent = nil
}

// hear finds the values in an answer that the meter does not hold.
func (p *probe) hear(wire []byte) {
	f, err := kmp.DecodeFrame(wire)
	if err != nil {
		return
	}
	var a kmp.GetRegisterAnswer
	if f.Command != kmp.CmdGetRegister || a.DecodeData(f.Data) != nil {
		return
	}
	p.sample(p.recent)
	for _, r := range a.Registers {
		if slices.ContainsFunc(p.window[r.ID], func(o kmp.Register) bool { return slices.Equal(o.Raw, r.Raw) }) {
			continue
		}
		p.forgeries.answers++
		v, _ := numbers.Decode(r)
		value := string(encodeJSON(v.Value))
		same := false
		for _, o := range p.window[r.ID] {
			old, _ := numbers.Decode(o)
			same = same || string(encodeJSON(old.Value)) == value
		}
		p.forgeries.recent = append(p.forgeries.recent, forgery{r.ID, v.Key, value, same})
	}
}

// waits tells whether a counter at full resolution is held less than a step of its coarse
// register above what the meter counts: it never falls, so it waits for the meter.
func (p *probe) waits(key string) bool {
	if !isHeld(p.unknown[key]) {
		return false
	}
	for id, name := range fineRegisters {
		unit, found := strings.CutPrefix(key, name+"_")
		coarse, ok := p.meter.Read(map[string]uint16{"energy_fine": 60, "cooling_energy_fine": 63, "volume_fine": 68}[name])
		fine, ok2 := p.exact.Read(id)
		if !found || !ok || !ok2 {
			continue
		}
		d, err := coarse.Decimal()
		exact, err2 := fine.Decimal()
		step, err3 := kmp.NewDecimal(1, d.Exponent())
		x, isNumber := new(big.Rat).SetString(p.published[key])
		if err != nil || err2 != nil || err3 != nil || !isNumber {
			return false
		}
		above := x.Sub(inSmall(x, unit), inUnit(exact, fine.Unit))
		return above.Sign() > 0 && above.Cmp(inUnit(step, coarse.Unit)) < 0
	}
	return false
}

// judge says of every forged value what became of it, and of every published value
// whether it is wrong.
func (p *probe) judge(state, unknown map[string]string) {
	f := p.forgeries
	for _, x := range f.recent {
		kind := f.kind(catalog.Lookup(x.id))
		n := f.given[kind]
		n.given++
		got, published := state[x.key]
		switch {
		case x.id == serialRegister:
			n.again++
		case x.same || !published || p.window[x.id] == nil:
			n.unseen++
		case isHeld(unknown[x.key]):
			n.held++
			if _, before := f.held[x.key]; !before {
				f.held[x.key] = time.Now()
			}
		case got == "null":
			n.unknown++
		case p.right(x.key, got):
			n.again++
		default:
			n.wrong++
		}
	}
	f.recent = nil
	for key, since := range f.held {
		if !isHeld(unknown[key]) {
			f.settled = append(f.settled, time.Since(since))
			delete(f.held, key)
		}
	}
	for key, got := range state {
		if key == "time" {
			continue
		}
		kind := f.kindOf(key)
		n := f.shown[kind]
		n.published++
		since, before := f.wrong[key]
		kept := isHeld(unknown[key]) && got == p.published[key]
		switch {
		case got == "null", p.right(key, got), kept && !before:
			if before {
				n.longest = max(n.longest, time.Since(since))
				delete(f.wrong, key)
			}
			continue
		case !before:
			f.wrong[key] = time.Now()
		}
		n.wrong++
	}
}
