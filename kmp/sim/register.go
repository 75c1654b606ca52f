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
	// exponents of E1 in the three units
	gj, mwh, kwh int
}

// models are the meters that can be simulated. Integration intervals: technical
// descriptions of the 403 (p 36) and the 603 (p 43); the 601 has no fixed one. The
// type code of the 601 is that of the protocol document; those of the other two are
// not public, so theirs are invented: the model's name read as hexadecimal digits.
var models = []model{
	{"403", heat, in403, 32 * time.Second, 1e8, 0x0403, kmp.Revision{Letter: 6, Number: 1}, -3, -3, -1},
	{"601", heat, in601, 32 * time.Second, 1e7, 0x0004, kmp.Revision{Letter: 6, Number: 1}, -2, -3, 0},
	{"603", heat, in603, 32 * time.Second, 1e8, 0x0603, kmp.Revision{Letter: 6, Number: 1}, -3, -3, -1},
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
)

// energyUnit stands in the table for the unit and exponent that the meter is set to.
const energyUnit kmp.Unit = 0xFF

// rows are all registers but the date and time ones (see Meter.register), after
// register lists of 5512-447 (601) and the technical descriptions and readers of the
// other two; package catalog has the sources. What a simple heating installation does
// not have (a second flow sensor, pulse inputs, cooling, tariffs) reads 0.
var rows = []row{
	{60, energyUnit, 0, wide, func(m *Meter) int64 { return m.energy(m.state.energy()) }},
	{61, energyUnit, 0, older, zero},
	{62, energyUnit, 0, older, zero},
	{63, energyUnit, 0, wide, zero},
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
	{80, kmp.UnitKW, -1, narrow, func(m *Meter) int64 { return m.state.power / 100 }},
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
	{267, kmp.UnitWh, 0, newer, zero},
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

// The registers that are no plain numbers of the house's state.
const (
	registerDateTime uint16 = 348
	registerClock    uint16 = 1002
	registerDate     uint16 = 1003
)

// register encodes one register at the moment now; false if the meter has no such
// register. m.mu is held and the state is that of now.
func (m *Meter) register(id uint16, now time.Time) (kmp.Register, bool) {
	if m.missing[id] {
		return kmp.Register{}, false
	}
	if r, ok := m.overridden[id]; ok {
		return r, true
	}
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
	default:
		i, ok := m.index[id]
		if !ok {
			return kmp.Register{}, false
		}
		row := rows[i]
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
