package sim

import (
	"time"

	"kmp2mqtt/kmp"
)

// model is what sets one kind of meter apart.
type model struct {
	name        string
	kind        kind
	column      int // in the tables below
	integration time.Duration
	digits      int64 // 10 to the number of digits in the display: counters start again at 0
	meterType   uint16
	revision    kmp.Revision
	// exponents of E1 in the three units; heat meters only
	gj, mwh, kwh int
	rows         []row
}

// models are the meters that can be simulated. Integration intervals: technical
// descriptions of the 403 (p 36) and the 603 (p 43); the others have no fixed or no
// public one. The type code of the 601 is that of the protocol document, that of the
// 382 a J as head ends know it (package catalog), with the revision of the dump in
// mushorg/conpot; those of the other three are not public, so theirs are invented: the
// model's name read as hexadecimal digits.
var models = []model{
	{"403", heat, in403, 32 * time.Second, 1e8, 0x0403, kmp.Revision{Letter: 6, Number: 1}, -3, -3, -1, rows},
	{"601", heat, in601, 32 * time.Second, 1e7, 0x0004, kmp.Revision{Letter: 6, Number: 1}, -2, -3, 0, rows},
	{"603", heat, in603, 32 * time.Second, 1e8, 0x0603, kmp.Revision{Letter: 6, Number: 1}, -3, -3, -1, rows},
	{"21", water, single, 32 * time.Second, 1e8, 0x0021, kmp.Revision{Letter: 6, Number: 1}, 0, 0, 0, waterRows},
	{"382", electricity, single, 32 * time.Second, 1e7, 0x5301, kmp.Revision{Letter: 14, Number: 1}, 0, 0, 0, electricityRows},
}

// kind is what a meter measures.
type kind int

const (
	heat kind = iota
	water
	electricity
)

// sensors are the faults of temperature sensors by name: which sensor, what it reads,
// and the bits of the info code by the table of the 601 and by that of the others
// (package catalog: sum602, bits403, bits603).
var sensors = map[string]struct {
	sensor           int   // 0: T1, 1: T2
	reads            int64 // 0.01 °C
	info601, info403 uint32
}{
	"t1_short": {0, 0, 1 << 3, 1 << 5},
	"t1_open":  {0, 18500, 1 << 3, 1 << 3},
	"t2_short": {1, 0, 1 << 2, 1 << 6},
	"t2_open":  {1, 18500, 1 << 2, 1 << 4},
}

// Columns of the width tables.
const (
	in403 = iota
	in601
	in603
	single = 0 // of a table for one model
)

// widths are the bytes of a value by model, 0 where the model has no such register.
// A 601 always sends four (5512-447 section 4.4.2); the 403 was seen to send two for
// what changes from moment to moment.
type widths [3]byte

var (
	wide   = widths{4, 4, 4}
	narrow = widths{2, 4, 4}
	older  = widths{0, 4, 4} // not in a 403
	newer  = widths{4, 0, 4} // not in a 601
	only6  = widths{0, 4, 0}
	only63 = widths{0, 0, 4}

	two  = widths{single: 2}
	four = widths{single: 4}
	ten  = widths{single: 10}
)

// row is a register: how it is sent and where its value comes from.
type row struct {
	id       uint16
	unit     kmp.Unit
	exponent int
	widths   widths
	value    func(m *Meter) int64 // the mantissa
}

// Units that only this table needs.
const (
	unitBar       kmp.Unit = 0x34
	unitMinutes   kmp.Unit = 0x3A
	unitPulses    kmp.Unit = 0x41
	unitLitresImp kmp.Unit = 0x42
	unitKvarh     kmp.Unit = 0x0E
	unitVolt      kmp.Unit = 0x21
	unitAmpere    kmp.Unit = 0x22
)

// energyUnit stands in the table for the unit and exponent that the meter is set to.
const energyUnit kmp.Unit = 0xFF

// rows are all registers of a heat meter but the date and time ones (see Meter.register), after
// register lists of 5512-447 (601) and the technical descriptions and readers of the
// other two; package catalog has the sources. What a simple heating installation does
// not have (a second flow sensor, pulse inputs, cooling, tariffs) reads 0.
var rows = []row{
	{60, energyUnit, 0, wide, func(m *Meter) int64 { return m.energy(m.state.energy()) }},
	{61, energyUnit, 0, older, zero},
	{62, energyUnit, 0, older, zero},
	{63, energyUnit, 0, wide, func(m *Meter) int64 { return m.energy(m.state.cold()) }},
	{64, energyUnit, 0, older, zero},
	{65, energyUnit, 0, older, zero},
	{66, kmp.UnitCelsius, 0, older, zero},
	{67, kmp.UnitCelsius, 0, older, zero},
	{68, kmp.UnitCubicMetre, -2, wide, func(m *Meter) int64 { return m.state.volume / 10_000 % m.model.digits }},
	{69, kmp.UnitCubicMetre, -2, older, zero},
	{72, kmp.UnitTonne, -2, older, func(m *Meter) int64 { return m.mass() % m.model.digits }},
	{73, kmp.UnitTonne, -2, older, zero},
	{74, kmp.UnitLitrePerH, 0, narrow, func(m *Meter) int64 { return m.state.flow / 1000 }},
	{75, kmp.UnitLitrePerH, 0, older, zero},
	{registerPower, kmp.UnitKW, -1, narrow, func(m *Meter) int64 { return m.state.power / 100 }},
	{84, kmp.UnitCubicMetre, -2, older, zero},
	{85, kmp.UnitCubicMetre, -2, older, zero},
	{86, kmp.UnitCelsius, -2, narrow, func(m *Meter) int64 { return m.temp(0) }},
	{87, kmp.UnitCelsius, -2, narrow, func(m *Meter) int64 { return m.temp(1) }},
	{88, kmp.UnitCelsius, -2, older, zero},
	{89, kmp.UnitKelvin, -2, narrow, func(m *Meter) int64 { return m.difference() }},
	{91, unitBar, -2, older, zero},
	{92, unitBar, -2, older, zero},
	{94, energyUnit, 0, older, zero},
	{95, energyUnit, 0, older, zero},
	{96, energyUnit, 0, older, zero},
	{97, kmp.UnitCubicMC, 0, wide, func(m *Meter) int64 { return m.state.volumeT[0] / 100_000_000 % m.model.digits }},
	{98, kmp.UnitMonthDay, 0, older, constant(101)},
	{99, kmp.UnitNumber, 0, wide, func(m *Meter) int64 { return m.info() }},
	{104, kmp.UnitNumber, 0, older, zero},
	{110, kmp.UnitCubicMC, 0, wide, func(m *Meter) int64 { return m.state.volumeT[1] / 100_000_000 % m.model.digits }},
	{112, kmp.UnitNumber, 0, older, zero},
	{113, kmp.UnitNumber, 0, wide, zero},
	{114, kmp.UnitNumber, 0, older, zero},
	{122, kmp.UnitCelsius, -2, older, zero},
	{123, kmp.UnitDate, 0, wide, func(m *Meter) int64 { return m.state.year.maxFlow.date() }},
	{124, kmp.UnitLitrePerH, 0, narrow, func(m *Meter) int64 { return m.state.year.maxFlow.value }},
	{125, kmp.UnitDate, 0, wide, func(m *Meter) int64 { return m.state.year.minFlow.date() }},
	{126, kmp.UnitLitrePerH, 0, narrow, func(m *Meter) int64 { return m.state.year.minFlow.value }},
	{127, kmp.UnitDate, 0, wide, func(m *Meter) int64 { return m.state.year.maxPower.date() }},
	{128, kmp.UnitKW, -1, narrow, func(m *Meter) int64 { return m.state.year.maxPower.value / 100 }},
	{129, kmp.UnitDate, 0, wide, func(m *Meter) int64 { return m.state.year.minPower.date() }},
	{130, kmp.UnitKW, -1, narrow, func(m *Meter) int64 { return m.state.year.minPower.value / 100 }},
	{138, kmp.UnitDate, 0, wide, func(m *Meter) int64 { return m.state.month.maxFlow.date() }},
	{139, kmp.UnitLitrePerH, 0, narrow, func(m *Meter) int64 { return m.state.month.maxFlow.value }},
	{140, kmp.UnitDate, 0, wide, func(m *Meter) int64 { return m.state.month.minFlow.date() }},
	{141, kmp.UnitLitrePerH, 0, narrow, func(m *Meter) int64 { return m.state.month.minFlow.value }},
	{142, kmp.UnitDate, 0, wide, func(m *Meter) int64 { return m.state.month.maxPower.date() }},
	{143, kmp.UnitKW, -1, narrow, func(m *Meter) int64 { return m.state.month.maxPower.value / 100 }},
	{144, kmp.UnitDate, 0, wide, func(m *Meter) int64 { return m.state.month.minPower.date() }},
	{145, kmp.UnitKW, -1, narrow, func(m *Meter) int64 { return m.state.month.minPower.value / 100 }},
	{146, kmp.UnitCelsius, -2, narrow, func(m *Meter) int64 { return m.state.mean(m.state.year.began, 0) }},
	{147, kmp.UnitCelsius, -2, narrow, func(m *Meter) int64 { return m.state.mean(m.state.year.began, 1) }},
	{149, kmp.UnitCelsius, -2, narrow, func(m *Meter) int64 { return m.state.mean(m.state.month.began, 0) }},
	{150, kmp.UnitCelsius, -2, narrow, func(m *Meter) int64 { return m.state.mean(m.state.month.began, 1) }},
	{152, kmp.UnitNumber, 0, only6, constant(34000419)},
	{153, kmp.UnitNumber, 0, older, constant(41900)},
	{154, kmp.UnitNumber, 0, older, constant(24317)},
	{155, kmp.UnitKWh, -2, only6, func(m *Meter) int64 { return m.state.energy() / 36_000 % m.config.FineModulus }},
	{157, kmp.UnitNumber, 0, only6, zero},
	{158, kmp.UnitNumber, 0, only6, zero},
	{168, kmp.UnitNumber, 0, older, zero},
	{175, kmp.UnitHour, 0, older, zero},
	{178, energyUnit, 0, only63, zero},
	{179, energyUnit, 0, only63, zero},
	{180, kmp.UnitCubicMetre, -2, only63, zero},
	{181, kmp.UnitCubicMetre, -2, only63, zero},
	{184, kmp.UnitNumber, 0, only63, zero},
	{185, kmp.UnitNumber, 0, only63, zero},
	{224, kmp.UnitCubicMetre, -2, only63, zero},
	{225, kmp.UnitCubicMetre, -2, only63, zero},
	{228, kmp.UnitNumber, 0, only63, zero},
	{229, kmp.UnitCelsius, -2, only63, func(m *Meter) int64 { return m.temp(0) }},
	{230, kmp.UnitCelsius, -2, only63, func(m *Meter) int64 { return m.temp(1) }},
	{234, unitLitresImp, 0, older, constant(1)},
	{235, unitLitresImp, 0, older, constant(1)},
	{239, kmp.UnitLitre, 0, newer, func(m *Meter) int64 { return m.state.volume / 1000 % m.config.FineModulus }},
	{257, unitPulses, 0, only63, constant(100)},
	{259, kmp.UnitCubicMPerH, -1, only63, constant(15)},
	{266, kmp.UnitWh, 0, newer, func(m *Meter) int64 { return m.state.energy() / 3600 % m.config.FineModulus }},
	{267, kmp.UnitWh, 0, newer, func(m *Meter) int64 { return m.state.cold() / 3600 % m.config.FineModulus }},
	{268, unitMinutes, 0, only63, constant(60)},
	{346, kmp.UnitNumber, 0, only63, zero},
	{347, kmp.UnitNumber, 0, only63, func(m *Meter) int64 { return m.customer() }},
	{362, energyUnit, 0, only63, zero},
	{364, energyUnit, 0, only63, zero},
	{365, energyUnit, 0, only63, zero},
	{366, kmp.UnitCelsius, -2, only63, constant(6000)},
	{367, kmp.UnitNumber, 0, only63, zero},
	{368, kmp.UnitNumber, 0, only63, zero},
	{369, kmp.UnitBits, 0, only63, func(m *Meter) int64 { return m.info() }},
	{398, kmp.UnitCelsius, -1, only63, func(m *Meter) int64 { return m.temp(0) / 10 }},
	{399, kmp.UnitCelsius, -1, only63, func(m *Meter) int64 { return m.temp(1) / 10 }},
	{400, kmp.UnitKelvin, -1, only63, func(m *Meter) int64 { return m.difference() / 10 }},
	{404, kmp.UnitNumber, 0, only63, func(m *Meter) int64 { return int64(m.model.meterType) }},
	{473, energyUnit, 0, only63, zero},
	{474, energyUnit, 0, only63, zero},
	{1001, kmp.UnitNumber, 0, wide, func(m *Meter) int64 { return int64(m.serial) }},
	{1004, kmp.UnitHour, 0, wide, func(m *Meter) int64 { return (m.state.t - m.state.installed) / 3600 }},
	{1005, kmp.UnitNumber, 0, older, func(m *Meter) int64 { return int64(m.model.meterType) }},
	{1010, kmp.UnitNumber, 0, older, func(m *Meter) int64 { return m.customer() }},
}

// waterRows are the registers of a MULTICAL 21. No reading of one is public: the ids
// are those that package catalog lists, the widths those of other meters, the steps
// those of its display (0.001 m³) and, for the fine register, a tenth of it. The info
// code has 16 bits (technical description of the flowIQ 3100, p 40).
var waterRows = []row{
	{68, kmp.UnitCubicMetre, -3, four, func(m *Meter) int64 { return m.state.volume / 1000 % m.model.digits }},
	{74, kmp.UnitLitrePerH, 0, four, func(m *Meter) int64 { return m.state.flow / 1000 }},
	{84, kmp.UnitCubicMetre, -2, four, zero},
	{85, kmp.UnitCubicMetre, -2, four, zero},
	{99, kmp.UnitNumber, 0, two, func(m *Meter) int64 { return m.info() }},
	{123, kmp.UnitDate, 0, four, func(m *Meter) int64 { return m.state.year.maxFlow.date() }},
	{124, kmp.UnitLitrePerH, 0, four, func(m *Meter) int64 { return m.state.year.maxFlow.value }},
	{125, kmp.UnitDate, 0, four, func(m *Meter) int64 { return m.state.year.minFlow.date() }},
	{126, kmp.UnitLitrePerH, 0, four, func(m *Meter) int64 { return m.state.year.minFlow.value }},
	{138, kmp.UnitDate, 0, four, func(m *Meter) int64 { return m.state.month.maxFlow.date() }},
	{139, kmp.UnitLitrePerH, 0, four, func(m *Meter) int64 { return m.state.month.maxFlow.value }},
	{140, kmp.UnitDate, 0, four, func(m *Meter) int64 { return m.state.month.minFlow.date() }},
	{141, kmp.UnitLitrePerH, 0, four, func(m *Meter) int64 { return m.state.month.minFlow.value }},
	{239, kmp.UnitLitre, -1, four, func(m *Meter) int64 { return m.state.volume / 100 % m.config.FineModulus }},
	{1001, kmp.UnitNumber, 0, four, func(m *Meter) int64 { return int64(m.serial) }},
	{1004, kmp.UnitHour, 0, four, func(m *Meter) int64 { return (m.state.t - m.state.installed) / 3600 }},
}

// electricityRows are registers of a 382 J, with the units, widths and exponents of
// the dump of a real one in mushorg/conpot (templates/kamstrup_382).
var electricityRows = []row{
	{1, kmp.UnitKWh, -1, four, func(m *Meter) int64 { return m.kWh(m.state.imported) }},
	{2, kmp.UnitKWh, -1, four, func(m *Meter) int64 { return m.kWh(m.state.exported) }},
	{3, unitKvarh, -1, four, func(m *Meter) int64 { return m.kWh(m.state.imported) / 5 }}, // a fifth: cos φ is 0.98
	{4, unitKvarh, -1, four, zero},
	{13, kmp.UnitKWh, -4, four, func(m *Meter) int64 { return m.fineKWh(m.state.imported) }},
	{14, kmp.UnitKWh, -4, four, func(m *Meter) int64 { return m.fineKWh(m.state.exported) }},
	{19, kmp.UnitKWh, -1, four, func(m *Meter) int64 { return m.kWh([2]int64{m.state.imported[0]}) }},
	{20, kmp.UnitKWh, -1, four, func(m *Meter) int64 { return m.kWh([2]int64{m.state.exported[0]}) }},
	{23, kmp.UnitKWh, -1, four, func(m *Meter) int64 { return m.kWh([2]int64{m.state.imported[1]}) }},
	{24, kmp.UnitKWh, -1, four, func(m *Meter) int64 { return m.kWh([2]int64{m.state.exported[1]}) }},
	{27, kmp.UnitKWh, -1, four, zero}, // two tariffs of four are in use
	{28, kmp.UnitKWh, -1, four, zero},
	{31, kmp.UnitKWh, -1, four, zero},
	{32, kmp.UnitKWh, -1, four, zero},
	{1001, kmp.UnitNumber, 0, four, func(m *Meter) int64 { return int64(m.serial) }},
	{1004, kmp.UnitHour, 0, four, func(m *Meter) int64 { return (m.state.t - m.state.installed) / 3600 }},
	{1005, kmp.UnitNumber, 0, four, constant(53011401)}, // type 5301, revision N1
	{1010, kmp.UnitNumber, 0, ten, func(m *Meter) int64 { return m.customer() }},
	{1023, kmp.UnitKW, -3, four, func(m *Meter) int64 { return max(m.load(), 0) }},
	{1024, kmp.UnitKW, -3, four, func(m *Meter) int64 { return max(-m.load(), 0) }},
	{1054, unitVolt, 0, two, func(m *Meter) int64 { return m.state.voltages[0] }},
	{1055, unitVolt, 0, two, func(m *Meter) int64 { return m.state.voltages[1] }},
	{1056, unitVolt, 0, two, func(m *Meter) int64 { return m.state.voltages[2] }},
	{1076, unitAmpere, -2, four, func(m *Meter) int64 { return m.current(0) }},
	{1077, unitAmpere, -2, four, func(m *Meter) int64 { return m.current(1) }},
	{1078, unitAmpere, -2, four, func(m *Meter) int64 { return m.current(2) }},
	{1080, kmp.UnitKW, -3, two, func(m *Meter) int64 { return max(m.state.phases[0], 0) }},
	{1081, kmp.UnitKW, -3, two, func(m *Meter) int64 { return max(m.state.phases[1], 0) }},
	{1082, kmp.UnitKW, -3, two, func(m *Meter) int64 { return max(m.state.phases[2], 0) }},
}

// kWh is energy in J, of both tariffs, in units of 0.1 kWh.
func (m *Meter) kWh(joule [2]int64) int64 { return (joule[0] + joule[1]) / 360_000 % m.model.digits }

// fineKWh is the same in units of 0.1 Wh, without the leading digits.
func (m *Meter) fineKWh(joule [2]int64) int64 {
	return (joule[0] + joule[1]) / 360 % m.config.FineModulus
}

// load is the power of all phases together, in W.
func (m *Meter) load() int64 { return m.state.phases[0] + m.state.phases[1] + m.state.phases[2] }

// current is that of a phase, in 0.01 A, in whichever direction.
func (m *Meter) current(phase int) int64 {
	w := m.state.phases[phase]
	return max(w, -w) * 100 / m.state.voltages[phase]
}

func zero(*Meter) int64 { return 0 }

func constant(v int64) func(*Meter) int64 { return func(*Meter) int64 { return v } }

// date is the extreme's date as YYMMDD; 0 as long as there is none.
func (e extreme) date() int64 {
	if e.day == 0 {
		return 0
	}
	y, m, d := time.Unix(e.day*day, 0).UTC().Date()
	return int64(y%100)*10_000 + int64(m)*100 + int64(d)
}

// The registers that have a name here; all but the power are no plain numbers of the
// house's state.
const (
	registerPower    uint16 = 80
	registerDateTime uint16 = 348
	registerClock    uint16 = 1002
	registerDate     uint16 = 1003
	registerRTC      uint16 = 1047
	registerType     uint16 = 1058
	registerFullType uint16 = 1126
)

// register encodes one register while the meter's clock shows now; false if the meter
// has no such register. m.mu is held and the state is that of now.
func (m *Meter) register(id uint16, now time.Time) (kmp.Register, bool) {
	if m.missing[id] {
		return kmp.Register{}, false
	}
	if r, ok := m.changed(id); ok {
		return r, true
	}
	return m.own(id, now)
}

// changed is a register that was overridden or written.
func (m *Meter) changed(id uint16) (kmp.Register, bool) {
	r, ok := m.overridden[id]
	if !ok {
		r, ok = m.written[id]
	}
	return r, ok
}

// own is register without what Faults, Override and PutRegister make of it.
func (m *Meter) own(id uint16, now time.Time) (kmp.Register, bool) {
	var r kmp.Register
	var err error
	clock := now.In(m.standard)
	switch id {
	case registerClock:
		r, err = kmp.NewClockRegister(id, kmp.Clock{Hour: clock.Hour(), Minute: clock.Minute(), Second: clock.Second()})
	case registerDate:
		r, err = kmp.NewDateRegister(id, kmp.Date{Year: 2000 + clock.Year()%100, Month: int(clock.Month()), Day: clock.Day()})
	case registerDateTime:
		if m.model.column != in603 {
			return kmp.Register{}, false
		}
		local := now.In(m.local)
		_, offset := local.Zone()
		_, standard := clock.Zone()
		t := kmp.DateTime{
			Date:       kmp.Date{Year: 2000 + local.Year()%100, Month: int(local.Month()), Day: local.Day()},
			Clock:      kmp.Clock{Hour: local.Hour(), Minute: local.Minute(), Second: local.Second()},
			DSTMinutes: max(0, offset-standard) / 60,
		}
		t.DST = t.DSTMinutes > 0
		r, err = kmp.NewDSTDateTimeRegister(id, t)
	case registerRTC, registerType, registerFullType:
		if m.model.kind != electricity {
			return kmp.Register{}, false
		}
		switch id {
		case registerRTC:
			r = kmp.Register{ID: id, Unit: kmp.UnitRTC, Raw: rtc(clock, now.In(m.local).IsDST())}
		case registerType:
			r = kmp.Register{ID: id, Unit: kmp.UnitASCII, Raw: []byte("070422JA83")}
		default:
			r = kmp.Register{ID: id, Unit: kmp.UnitASCII, Raw: []byte("070422JA83486")}
		}
	default:
		i, ok := m.index[id]
		if !ok {
			return kmp.Register{}, false
		}
		row := m.model.rows[i]
		unit, exponent := row.unit, row.exponent
		if unit == energyUnit {
			unit, exponent = m.energyUnit, m.energyExponent
		}
		var d kmp.Decimal
		if d, err = kmp.NewDecimal(row.value(m), exponent); err == nil {
			r, err = kmp.NewRegister(id, unit, d, int(row.widths[m.model.column]))
		}
	}
	return r, err == nil // what does not fit its width the meter cannot send
}

// rtc is the clock of an electricity meter: flags (a set bit 7, valid, daylight saving
// time), weekday, second, minute, hour, day, month, year. It shows standard time, as
// the dump of a real one does.
func rtc(t time.Time, dst bool) []byte {
	flags := byte(0x82)
	if dst {
		flags |= 1
	}
	weekday := byte(t.Weekday()+6)%7 + 1 // Monday is 1
	return []byte{flags, weekday, byte(t.Second()), byte(t.Minute()), byte(t.Hour()), byte(t.Day()), byte(t.Month()), byte(t.Year() % 100)}
}

// energy is an amount of heat in J as the mantissa of the unit the meter is set to.
func (m *Meter) energy(joule int64) int64 { return joule / m.joules % m.model.digits }

// temp is T1 (0) or T2 (1) as shown, in 0.01 °C.
func (m *Meter) temp(i int) int64 {
	if s, ok := sensors[m.faults.Sensor]; ok && s.sensor == i {
		return s.reads
	}
	return m.state.temp[i]
}

// difference is T1 − T2 as shown, in 0.01 K.
func (m *Meter) difference() int64 {
	if m.state.blind {
		return 0
	}
	return m.state.temp[0] - m.state.temp[1]
}

// info is the info code. A 603 is made to send it in both of its registers; what a
// real one sends in 99 is not known.
func (m *Meter) info() int64 {
	s := sensors[m.faults.Sensor]
	if m.model.column == in601 {
		return int64(s.info601 | m.faults.Info)
	}
	return int64(s.info403 | m.faults.Info)
}

// mass is M1 in units of 10 kg.
func (m *Meter) mass() int64 { return m.state.volume / 10_000 * density / 10_000 }

// customer is a customer number.
func (m *Meter) customer() int64 { return int64(m.serial % 100_000_000) }
