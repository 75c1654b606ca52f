package sim

import "time"

// What a house is made of. Temperatures are in units of 0.01 °C, powers in W, flows
// in ml/h, times in seconds.
const (
	year = 31556952 // the mean Gregorian year
	day  = 86400

	// pastStep is the grid on which the time before the start is integrated.
	pastStep = 600

	// heatCoefficient is the heat that 1 ml of water gives away when it cools by
	// 0.01 K, in units of 0.1 mJ: 4.15 MJ/(m³·K).
	heatCoefficient = 415
	// density is the mass of 10 l of water in g at the return temperature.
	density = 9933

	indoor      = 1700 // below this outside temperature the house heats
	conductance = 175  // W/K of the average house: some 14 MWh a year, hot water included
	ratedHeat   = 5000 // W: radiators at full load
	drawSlot    = 240  // a draw of hot water lasts as long
	drawReturn  = 2200 // return temperature while hot water is made from cold
	bypassSlot  = 1800 // in summer a bypass opens now and then to keep the pipe warm
	bypassFlow  = 14000

	coolAbove   = 2000 // above this outside temperature the house is cooled, if it can be
	coolance    = 250  // W/K against it
	coolSupply  = 700
	coolReturn  = 1500
	tapLeast    = 150_000 // ml/h: what runs while water is drawn, some 100 m³ a year
	tapRange    = 450_000
	sunPeak     = 3600 // W that the cells on the roof give at most
	dayTariff   = 6    // tariff 1 from this hour
	nightTariff = 22   // to this one
)

// heating is the share of the heat demand by hour of the day, in percent: a night
// setback, a boost in the morning, a long evening.
var heating = [24]int64{82, 74, 68, 66, 68, 90, 128, 132, 118, 106, 100, 97, 95, 93, 92, 94, 100, 108, 112, 112, 110, 108, 104, 94}

// draws is the chance of a draw of hot water in a slot, by hour of the day, in permille.
var draws = [24]uint64{4, 2, 1, 1, 3, 20, 85, 95, 60, 30, 22, 20, 30, 22, 16, 18, 25, 45, 60, 50, 38, 36, 24, 10}

// standing is what lights and appliances that run for long take, by hour of the day,
// in percent of 100 W a phase.
var standing = [24]int64{60, 55, 52, 50, 50, 55, 85, 110, 95, 80, 75, 78, 85, 80, 75, 80, 100, 140, 170, 175, 165, 150, 120, 85}

// The streams of randomness; each is independent of the others.
const (
	streamFront = iota + 1
	streamShower
	streamSupply
	streamHabit
	streamReturn
	streamDraw
	streamBypass
	streamSize
	streamTap
	streamCold
	streamSun
	streamAppliance
	streamStanding // and the two behind it, one a phase
	_
	_
	streamVoltage // likewise
)

// house tells what happens at any moment. It has no state: a moment's weather and
// demand are a function of the seed and the time.
type house struct {
	seed        uint64
	conductance int64 // W/K
	kind        kind  // what its meter measures
	cooling     bool
}

func newHouse(seed uint64) house {
	h := house{seed: seed}
	h.conductance = conductance * (90 + int64(h.random(streamSize, 0)%21)) / 100
	return h
}

// random is a number that depends on the seed, the stream and the index alone
// (the finalizer of SplitMix64).
func (h house) random(stream, index int64) uint64 {
	x := h.seed + uint64(stream)*0x9E3779B97F4A7C15 + uint64(index)*0xD1342543DE82EF95
	x ^= x >> 30
	x *= 0xBF58476D1CE4E5B9
	x ^= x >> 27
	x *= 0x94D049BB133111EB
	return x ^ x>>31
}

// noise wanders smoothly between -amplitude and amplitude and is new after period seconds.
func (h house) noise(stream, t, period, amplitude int64) int64 {
	i := t / period
	a := int64(h.random(stream, i)>>48) - 1<<15
	b := int64(h.random(stream, i+1)>>48) - 1<<15
	x := (t - i*period) << 12 / period
	x = x * x * (3<<12 - 2*x) >> 24
	return (a + (b-a)*x>>12) * amplitude >> 15
}

// cosine is the cosine of a full turn's part at/period, times 1<<15, within 0.2 %
// (Bhaskara's approximation; integers, so that it is the same everywhere).
func cosine(at, period int64) int64 {
	x := ((at%period+period)%period<<16/period + 1<<14) & (1<<16 - 1) // the sine a quarter later
	sign := int64(1)
	if x >= 1<<15 {
		x, sign = x-1<<15, -1
	}
	p := x * (1<<15 - x) // of half a turn, 0 to 1<<28
	return sign * (16 * p << 15) / (5<<30 - 4*p)
}

// outside is the outside temperature, coldest at about 20 January and 04:30.
func (h house) outside(t int64) int64 {
	season := -cosine(t-19*day-day/2, year)
	swing := 250 + 150*season>>15
	return 850 + 830*season>>15 -
		swing*cosine(t-16200, day)>>15 +
		h.noise(streamFront, t, 60*3600, 450) +
		h.noise(streamShower, t, 9*3600, 130)
}

// moment is what the house asks for and what the district supplies.
type moment struct {
	flow         int64 // ml/h
	supply, back int64 // 0.01 °C: where the temperatures tend to
}

// cool is a moment of a warm day: cold water in, less cold water back.
func (h house) cool(t, outside int64) moment {
	noise := h.noise(streamCold, t, 5400, 80)
	return moment{
		flow:   flowFor(500+(outside-coolAbove)*coolance/100, coolReturn-coolSupply),
		supply: coolSupply + noise,
		back:   coolReturn + noise,
	}
}

// tap is the moment t of the cold water: drawn when hot water would be, and as cold
// as the ground.
func (h house) tap(t int64) moment {
	cold := 1000 + 300*-cosine(t-19*day, year)>>15
	m := moment{supply: cold, back: cold}
	if r := h.random(streamTap, t/drawSlot); r%1000 < draws[t%day/3600] {
		m.flow = tapLeast + int64(r>>32%tapRange)
	}
	return m
}

// load is the power that each phase takes from the grid at the moment t, in W;
// negative when the sun gives more than the house needs.
func (h house) load(t int64) (w [3]int64) {
	hour, rest := t%day/3600, t%3600
	share := standing[hour] + (standing[(hour+1)%24]-standing[hour])*rest/3600
	sun := h.sun(t) / 3
	for i := range w {
		w[i] = share + share*h.noise(streamStanding+int64(i), t, 1200, 350)/1000 - sun
	}
	if r := h.random(streamAppliance, t/drawSlot); r%1000 < 2*draws[hour] {
		w[r>>16%3] += 1000 + int64(r>>32%2000)
	}
	return w
}

// sun is what the cells on the roof give, in W: by season, hour and clouds.
func (h house) sun(t int64) int64 {
	height := (330*-cosine(t+10*day, year) - 540*cosine(t, day)) >> 15 // 1000 at the zenith
	sky := min(600+h.noise(streamSun, t, 3*3600, 500), 1000)
	return max(height, 0) * sky / 1000 * sunPeak / 1000
}

// voltage is that of a phase from which w is taken, in V.
func (h house) voltage(phase int, t, w int64) int64 {
	return 231 + h.noise(streamVoltage+int64(phase), t, 1800, 4) - w/1500
}

// at is the moment t, in seconds since 1970 of local standard time.
func (h house) at(t int64) moment {
	outside := h.outside(t)
	second := t % day
	hour, rest := second/3600, second%3600

	supply := 6300 + min(max((800-outside)*9/10, 0), 1900) + h.noise(streamSupply, t, 5400, 80)

	share := heating[hour] + (heating[(hour+1)%24]-heating[hour])*rest/3600
	heat := max(indoor-outside, 0) * h.conductance / 100 * share / 100
	heat += heat * h.noise(streamHabit, t, 2700, 120) / 1000
	if heat < 250 {
		heat = 0 // the thermostats have closed
	}
	if h.cooling && outside > coolAbove {
		return h.cool(t, outside)
	}
	heatReturn := 3450 + heat*1100/ratedHeat + h.noise(streamReturn, t, 4000, 60)
	flow := flowFor(heat, supply-heatReturn)

	drawn := int64(0)
	if r := h.random(streamDraw, t/drawSlot); r%1000 < draws[hour] {
		drawn = flowFor(8000+int64(r>>32%16000), supply-drawReturn)
	}

	m := moment{flow: flow + drawn}
	switch {
	case m.flow > 0:
		m.supply = supply - 30_000_000/(m.flow+30_000) // the less flows, the more it cools on its way
		m.back = (flow*heatReturn + drawn*drawReturn) / m.flow
	case h.random(streamBypass, t/bypassSlot)%4 == 0:
		m.flow = bypassFlow
		m.supply = supply - 30_000_000/(m.flow+30_000)
		m.back = m.supply - 900
	default: // nothing flows, the pipes cool down
		m.supply, m.back = 3500, 2800
	}
	return m
}

// flowFor is the flow that brings the power w when the water cools by delta.
func flowFor(w, delta int64) int64 { return w * 36_000_000 / (heatCoefficient * delta) }

// counters are what a meter adds up.
type counters struct {
	volume  int64    // ml
	volumeT [2]int64 // volume × T1 and × T2, in ml × 0.01 °C
	cooled  int64    // volume × (T2 − T1) of what came back warmer

	imported [2]int64 // J by tariff
	exported [2]int64 // J by tariff
}

// energy is E1 in J.
func (c counters) energy() int64 { return joules(c.volumeT[0] - c.volumeT[1] + c.cooled) }

// cold is E3 in J.
func (c counters) cold() int64 { return joules(c.cooled) }

// joules is the heat in d, an amount of volume × temperature.
func joules(d int64) int64 {
	return d/10_000*heatCoefficient + d%10_000*heatCoefficient/10_000
}

// mean is the average of T1 (0) or T2 (1) by volume since an earlier state, in 0.01 °C.
func (c counters) mean(since counters, i int) int64 {
	v := c.volume - since.volume
	if v == 0 {
		return 0
	}
	return (c.volumeT[i] - since.volumeT[i] + v/2) / v
}

// extreme is the largest or smallest of the hourly means of a period, and its date.
type extreme struct {
	value int64
	day   int64 // days since 1970; 0: none yet
}

func (e *extreme) note(value, day int64, larger bool) {
	if e.day == 0 || larger && value > e.value || !larger && value < e.value {
		*e = extreme{value, day}
	}
}

// period is what a meter keeps of this year or this month.
type period struct {
	began              counters
	ends               int64   // local seconds
	maxFlow, minFlow   extreme // l/h
	maxPower, minPower extreme // W
}

// state is all that a meter knows after a step.
type state struct {
	house     house
	t         int64 // local seconds since 1970: the end of the last step
	installed int64

	counters
	flow  int64    // ml/h, over the last step
	power int64    // W, over the last step; negative while it cools
	temp  [2]int64 // T1 and T2, 0.01 °C
	inert [2]int64 // the same times 1000, before rounding
	blind bool     // a sensor is faulty: nothing is counted
	dark  [2]int64 // from and until when there is no power: steps in it count nothing, not even hours
	past  int64    // what is older is integrated in larger steps

	phases   [3]int64 // W, negative when it is given to the grid
	voltages [3]int64 // V

	hour      int64 // the hour that is being averaged, since 1970
	hourBegan counters
	hourTime  int64 // seconds of it so far
	month     period
	year      period
	lastMonth period // the ones before, as they ended
	lastYear  period
}

// newState is the state at the last step of the grid before t, of a meter that was
// installed two years before the last first of August.
func newState(h house, t, dt int64) state {
	s := installed(h, t)
	s.advance(t, dt)
	return s
}

// installed is the state that newState begins with.
func installed(h house, t int64) state {
	began := installation(t)
	s := state{house: h, t: began, installed: began, past: (t/day - 1) * day}
	s.inert = [2]int64{3500_000, 2800_000}
	s.hour = s.t / 3600
	s.month.ends, s.year.ends = monthEnd(s.t), yearEnd(s.t)
	return s
}

// begin is what becomes of the state when a new meter takes the place of the old one.
func (s *state) begin() {
	s.installed = s.t
	s.counters, s.hourBegan, s.hourTime = counters{}, counters{}, 0
	s.hour = s.t / 3600
	s.month, s.year = period{ends: monthEnd(s.t)}, period{ends: yearEnd(s.t)}
	s.lastMonth, s.lastYear = period{}, period{}
}

// advance takes the steps of the grid that are complete at t. All are multiples of dt
// since 1970; only what is older than yesterday was when the simulation started is
// integrated in larger ones.
func (s *state) advance(t, dt int64) {
	for s.t < s.past && s.t+pastStep <= t {
		s.step(pastStep)
	}
	if s.t < s.past {
		return
	}
	if late := s.t % dt; late > 0 && s.t+dt-late <= t {
		s.step(dt - late)
	}
	for s.t+dt <= t {
		s.step(dt)
	}
}

// installation is when the meter was installed that is read at t.
func installation(t int64) int64 {
	d := time.Unix(t, 0).UTC()
	y := d.Year()
	if d.Month() < time.August {
		y--
	}
	return time.Date(y-2, time.August, 1, 0, 0, 0, 0, time.UTC).Unix()
}

// step lets the house live for dt seconds.
func (s *state) step(dt int64) {
	switch {
	case s.t+dt > s.dark[0] && s.t < s.dark[1]:
		s.draw([3]int64{}, dt)
		s.run(moment{supply: s.temp[0], back: s.temp[1]}, dt)
		s.installed += dt
	case s.house.kind == electricity:
		s.draw(s.house.load(s.t), dt)
	case s.house.kind == water:
		s.run(s.house.tap(s.t), dt)
	default:
		s.run(s.house.at(s.t), dt)
	}
	s.t += dt
	s.hourTime += dt

	if s.t < (s.hour+1)*3600 {
		return
	}
	s.closeHour()
	if s.t >= s.month.ends {
		s.lastMonth = s.month
		s.month = period{began: s.counters, ends: monthEnd(s.t)}
	}
	if s.t >= s.year.ends {
		s.lastYear = s.year
		s.year = period{began: s.counters, ends: yearEnd(s.t)}
	}
}

// draw counts the energy of a step. The phases add up before they are counted, as in
// a vector sum.
func (s *state) draw(phases [3]int64, dt int64) {
	tariff := 1
	if hour := s.t % day / 3600; hour >= dayTariff && hour < nightTariff {
		tariff = 0
	}
	sum := phases[0] + phases[1] + phases[2]
	s.imported[tariff] += max(sum, 0) * dt
	s.exported[tariff] += max(-sum, 0) * dt
	s.phases = phases
	for i, w := range phases {
		s.voltages[i] = s.house.voltage(i, s.t, w)
	}
}

// run counts the water of a step and its heat.
func (s *state) run(m moment, dt int64) {
	inertia := int64(64)
	if m.flow == 0 {
		inertia = 3600
	}
	s.inert[0] += (m.supply*1000 - s.inert[0]) * dt / (dt + inertia)
	s.inert[1] += (m.back*1000 - s.inert[1]) * dt / (dt + inertia)
	s.temp = [2]int64{(s.inert[0] + 500) / 1000, (s.inert[1] + 500) / 1000}

	volume := (m.flow*dt + 1800) / 3600
	if s.blind {
		volume = 0
	}
	s.flow = volume * 3600 / dt
	s.power = volume * (s.temp[0] - s.temp[1]) * heatCoefficient / (10_000 * dt)
	s.volume += volume
	s.volumeT[0] += volume * s.temp[0]
	s.volumeT[1] += volume * s.temp[1]
	if s.house.cooling {
		s.cooled += volume * max(s.temp[1]-s.temp[0], 0)
	}
}

// closeHour ends the hour of averaging: the largest and smallest values that a meter
// keeps are means of 60 minutes, its default averaging time.
func (s *state) closeHour() {
	flow := (s.volume - s.hourBegan.volume) * 3600 / (1000 * s.hourTime)
	power := (s.energy() - s.hourBegan.energy()) / s.hourTime
	date := s.hour / 24
	for _, p := range []*period{&s.month, &s.year} {
		p.maxFlow.note(flow, date, true)
		p.minFlow.note(flow, date, false)
		p.maxPower.note(power, date, true)
		p.minPower.note(power, date, false)
	}
	s.hour, s.hourBegan, s.hourTime = s.t/3600, s.counters, 0
}

// monthEnd is when the month of t ends.
func monthEnd(t int64) int64 {
	d := time.Unix(t, 0).UTC()
	return time.Date(d.Year(), d.Month()+1, 1, 0, 0, 0, 0, time.UTC).Unix()
}

// yearEnd is when the year of t ends.
func yearEnd(t int64) int64 {
	return time.Date(time.Unix(t, 0).UTC().Year()+1, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
}
