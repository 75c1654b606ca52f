package numbers

import (
	"math/big"
	"slices"
	"time"

	"kmp2mqtt/kmp"
)

// Registers of volume and volume × temperature.
const (
	volume        = 68
	volumeXSupply = 97  // E8
	volumeXReturn = 110 // E9
)

// How old a reading may be at midnight, or how late after it, to stand for midnight.
const (
	dayAnchor   = 90 * time.Minute
	monthAnchor = 24 * time.Hour
)

// clockSet is the year 2000: a computer without a clock of its own begins long before, and
// is set some minutes later.
const clockSet = 946684800

// snapshot is the state of the volumes at one moment. A number's last digit is its
// resolution.
type snapshot struct {
	At     int64        `json:"at"`
	Volume kmp.Decimal  `json:"volume"`           // m³
	Supply *kmp.Decimal `json:"supply,omitempty"` // m³·°C
	Return *kmp.Decimal `json:"return,omitempty"` // m³·°C
}

func (s *snapshot) sound() bool {
	return s == nil || soundTime(s.At) && soundNumber(s.Volume) &&
		(s.Supply == nil || soundNumber(*s.Supply)) && (s.Return == nil || soundNumber(*s.Return))
}

// anchor is where a day or a month began.
type anchor struct {
	Began int64     `json:"began,omitempty"` // midnight
	From  *snapshot `json:"from,omitempty"`  // nil: nobody looked when it began
}

func (a anchor) sound() bool { return soundTime(a.Began) && a.From.sound() }

// weighted are the numbers that follow from volumes, in the order of publication.
var weighted = []struct {
	name    string
	month   bool
	unit    kmp.Unit
	needs   []uint16
	average func(from, to snapshot) (value, mistake *big.Rat, ok bool)
}{
	{"weighted_supply_temperature_today", false, kmp.UnitCelsius, []uint16{volume, volumeXSupply}, supplyAverage},
	{"weighted_return_temperature_today", false, kmp.UnitCelsius, []uint16{volume, volumeXReturn}, returnAverage},
	{"weighted_cooling_today", false, kmp.UnitKelvin, []uint16{volume, volumeXSupply, volumeXReturn}, coolingAverage},
	{"weighted_supply_temperature_month", true, kmp.UnitCelsius, []uint16{volume, volumeXSupply}, supplyAverage},
	{"weighted_return_temperature_month", true, kmp.UnitCelsius, []uint16{volume, volumeXReturn}, returnAverage},
	{"weighted_cooling_month", true, kmp.UnitKelvin, []uint16{volume, volumeXSupply, volumeXReturn}, coolingAverage},
}

// weigh derives the temperatures by volume since midnight and since the first of the
// month.
func (r *reading) weigh() {
	now := r.snapshot()
	for _, id := range []uint16{volume, volumeXSupply, volumeXReturn} {
		if i, ok := r.places[id]; ok && r.doubts[i] == released {
			r.Last, r.Day.From, r.Month.From = nil, nil, nil
		}
	}
	if r.now >= clockSet { // where a day began is not forgotten for a clock that is still to be set
		y, m, d := r.at.Date()
		r.anchor(&r.Day, time.Date(y, m, d, 0, 0, 0, 0, r.at.Location()), dayAnchor, now)
		r.anchor(&r.Month, time.Date(y, m, 1, 0, 0, 0, 0, r.at.Location()), monthAnchor, now)
		if now != nil {
			r.Last = now
		}
	}
	for _, w := range weighted {
		if !r.announced(w.name, w.needs) {
			continue
		}
		value, reason := kmp.Value(nil), r.missing(w.needs)
		from := r.Day.From
		if w.month {
			from = r.Month.From
		}
		switch {
		case reason != "":
		case r.now < clockSet:
			reason = "the clock is not set yet"
		case now == nil:
			reason = "the registers are not in cubic metres and degrees"
		case from == nil:
			reason = "nobody read the meter when the period began"
		default:
			value, reason = average(*from, *now, w.average)
		}
		r.derive(w.name, w.unit, value, reason)
	}
}

// announced tells whether a derived number is to be published with this reading: one of
// its registers is here, and all of them were, now or earlier.
func (r *reading) announced(name string, needs []uint16) bool {
	here := 0
	for _, id := range needs {
		if _, ok := r.places[id]; ok {
			here++
		}
	}
	known := slices.Contains(r.Derived, name)
	if here == len(needs) && !known {
		r.Derived, known = append(r.Derived, name), true
	}
	return here > 0 && known
}

// missing says which of some registers is not known; empty when all are.
func (r *reading) missing(needs []uint16) string {
	for _, id := range needs {
		i, ok := r.places[id]
		if !ok {
			return registerName(id) + " was not read"
		}
		if r.doubts[i] == held {
			return registerName(id) + " is held"
		}
		if _, _, ok := r.number(id); !ok {
			return registerName(id) + " is not known"
		}
	}
	return ""
}

// snapshot is the state of the volumes in this reading; nil when it lacks something.
func (r *reading) snapshot() *snapshot {
	v, ok := r.cubicMetres()
	if !ok {
		return nil
	}
	s := &snapshot{At: r.now, Volume: v}
	for id, to := range map[uint16]**kmp.Decimal{volumeXSupply: &s.Supply, volumeXReturn: &s.Return} {
		if d, value, ok := r.number(id); ok && value.Unit == kmp.UnitCubicMC && soundNumber(d) {
			*to = &d
		}
	}
	if s.Supply == nil && s.Return == nil {
		return nil
	}
	return s
}

// cubicMetres is the volume, as fine as it is known.
func (r *reading) cubicMetres() (kmp.Decimal, bool) {
	d, v, ok := r.number(volume)
	if !ok || !soundNumber(d) {
		return kmp.Decimal{}, false
	}
	for _, fine := range r.values {
		if d, ok := fine.Value.(kmp.Decimal); ok && fine.Register.Name == "volume_fine" {
			return d, true
		}
	}
	switch v.Unit {
	case kmp.UnitCubicMetre, 0x37: // and m³ × 10
		return d, true
	case kmp.UnitLitre:
		d, err := d.Shift(-3)
		return d, err == nil
	}
	return kmp.Decimal{}, false
}

// anchor moves on to a new day or month: it began with the last reading before, or with
// the first one in it, when that is near enough.
func (r *reading) anchor(a *anchor, midnight time.Time, near time.Duration, now *snapshot) {
	began, seconds := second(midnight), int64(near/time.Second)
	if a.Began != began {
		*a = anchor{Began: began}
		if r.Last != nil && r.Last.At <= began && began-r.Last.At <= seconds {
			a.From = r.Last
		}
	}
	if a.From == nil && now != nil && now.At-began <= seconds {
		a.From = now
	}
}

// maxMistake is the largest error of a derived temperature, in K.
var maxMistake = big.NewRat(1, 2)

// average is a mean since a snapshot to 0.01, or why it is not known.
func average(from, to snapshot, mean func(from, to snapshot) (value, mistake *big.Rat, ok bool)) (kmp.Value, string) {
	if to.Volume.Cmp(from.Volume) == 0 {
		return nil, "no volume has flowed"
	}
	value, mistake, ok := mean(from, to)
	if !ok || mistake.Cmp(maxMistake) > 0 {
		return nil, "too little volume has flowed for the resolution of the registers: the error may be more than 0.5 K"
	}
	d, ok := rounded(value, -2)
	if !ok {
		return nil, "it is too large"
	}
	return d, ""
}

func supplyAverage(from, to snapshot) (value, mistake *big.Rat, ok bool) {
	return quotient(from, to, difference(from.Supply, to.Supply))
}

func returnAverage(from, to snapshot) (value, mistake *big.Rat, ok bool) {
	return quotient(from, to, difference(from.Return, to.Return))
}

func coolingAverage(from, to snapshot) (value, mistake *big.Rat, ok bool) {
	supply, back := difference(from.Supply, to.Supply), difference(from.Return, to.Return)
	if supply == nil || back == nil {
		return nil, nil, false
	}
	return quotient(from, to, &rise{supply.by.Sub(supply.by, back.by), supply.step.Add(supply.step, back.step)})
}

// rise is by how much a counter rose, and how wrong that may be: both of its readings
// were truncated, so by up to one step up or down.
type rise struct{ by, step *big.Rat }

// difference of two readings of a counter; nil when one is missing or it fell.
func difference(from, to *kmp.Decimal) *rise {
	if from == nil || to == nil || to.Cmp(*from) < 0 {
		return nil
	}
	by := rational(*to)
	return &rise{by.Sub(by, rational(*from)), step(max(from.Exponent(), to.Exponent()))}
}

// quotient divides by the volume. With steps s of what is divided and v of the volume
// V, the quotient T is wrong by no more than (s + |T|·v) / (V - v).
func quotient(from, to snapshot, r *rise) (value, mistake *big.Rat, ok bool) {
	v := difference(&from.Volume, &to.Volume)
	if r == nil || v == nil || v.by.Cmp(v.step) <= 0 {
		return nil, nil, false
	}
	value = new(big.Rat).Quo(r.by, v.by)
	mistake = new(big.Rat).Mul(new(big.Rat).Abs(value), v.step)
	mistake.Add(mistake, r.step)
	return value, mistake.Quo(mistake, v.by.Sub(v.by, v.step)), true
}
