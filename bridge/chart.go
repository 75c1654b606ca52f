package bridge

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"kmp2mqtt/bridge/battery"
	"kmp2mqtt/bridge/numbers"
	"kmp2mqtt/bridge/web"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/logbook"
)

// The recent past of a meter, as far as memory goes. It is to be looked at: what is published
// and kept is exact, this is not. A meter takes 35 KB at the most, whatever its interval.
const (
	chartSpan   = 24 * time.Hour
	chartPoints = 720 // at most; then neighbours are joined
	chartSeries = 5
	chartHours  = 48
	chartDays   = 31
	// chartBridged is how far apart two readings may be for the counter at the full hour
	// between them to be worked out; at midnight also one and a half intervals.
	chartBridged = 2 * time.Hour
	// chartFresh is how long bars from the history are good: many may look at once.
	chartFresh = 10 * time.Second
)

// chart remembers the curves and the counter of one meter. Its poller writes, anybody reads.
type chart struct {
	mu      sync.Mutex
	serial  string
	series  []web.Series // without values
	points  []point      // ascending
	spacing time.Duration
	counter catalog.Register // of the bars; ID 0: not known yet
	unit    kmp.Unit
	last    mark
	hours   []mark // the counter at full hours, ascending
	days    []mark // and at midnights

	logMu sync.Mutex
	made  time.Time // when log was taken from the history
	of    string    // the serial number that it is of
	log   []mark    // the counter at full hours, as the meter's own log has it
}

// point is one moment of all curves.
type point struct {
	at     int64 // Unix time
	values [chartSeries]float32
	known  [chartSeries]bool
}

// mark is a counter at a time.
type mark struct {
	at    time.Time
	value float64
}

// drawn reports whether a value makes a curve: what flows, not what adds up.
func drawn(v numbers.Value) bool {
	switch symbol(v.Unit) {
	case "W", "kW", "MW", "l/h", "m³/h", "°C":
		return v.Register.Kind == catalog.Gauge && !v.Register.Rare && v.Register.ID != 0
	}
	return false
}

// counters are the registers that make the bars, the best first.
var counters = []string{"energy", "active_energy_import", "cooling_energy", "volume"}

// symbol is how people write a unit.
func symbol(u kmp.Unit) string {
	known, _ := catalog.LookupUnit(u)
	return known.Symbol
}

// drawable is a value to draw, if there is one.
func drawable(v kmp.Value) (float64, bool) {
	d, ok := v.(kmp.Decimal)
	if !ok {
		return 0, false
	}
	return d.Float64(), true
}

// note takes the values of a reading. A meter that is another one begins anew.
func (c *chart) note(m MeterConfig, r Reading) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.serial != r.Meter.Serial {
		c.serial, c.series, c.points, c.spacing = r.Meter.Serial, nil, nil, 0
		c.counter, c.last, c.hours, c.days = catalog.Register{}, mark{}, nil, nil
	}
	p := point{at: r.Time.Unix()}
	for _, v := range r.Values {
		n, ok := drawable(v.Value)
		if i := c.curve(v); i >= 0 && ok {
			p.values[i], p.known[i] = float32(n), true
		}
	}
	for _, name := range counters {
		i := slices.IndexFunc(r.Values, func(v numbers.Value) bool { return v.Register.Name == name })
		if i >= 0 {
			c.count(r.Values[i], m, r.Time)
		}
		if i >= 0 || name == c.counter.Name { // a better one than those that follow
			break
		}
	}
	if len(c.series) > 0 {
		c.add(p)
	}
}

// curve is the place of a value among the curves; -1: it is none.
func (c *chart) curve(v numbers.Value) int {
	i := slices.IndexFunc(c.series, func(s web.Series) bool { return s.Key == v.Key })
	if i < 0 && drawn(v) && len(c.series) < chartSeries {
		i = len(c.series)
		c.series = append(c.series, web.Series{Key: v.Key, Title: v.Register.Title, Unit: symbol(v.Unit)})
	}
	return i
}

// add keeps a point. When there are too many, points nearer to each other than twice before
// become one: the newer.
func (c *chart) add(p point) {
	if n := len(c.points); n > 0 && p.at < c.points[n-1].at {
		c.points = nil // the clock was set back
	}
	if n := len(c.points); n > 1 && time.Duration(p.at-c.points[n-2].at)*time.Second < c.spacing {
		c.points[n-1] = p
	} else {
		c.points = append(c.points, p)
	}
	old := p.at - int64(chartSpan/time.Second)
	c.points = slices.DeleteFunc(c.points, func(q point) bool { return q.at < old })
	for len(c.points) > chartPoints {
		c.spacing = max(time.Second, 2*c.spacing)
		kept := c.points[:1]
		for _, q := range c.points[1:] {
			if time.Duration(q.at-kept[len(kept)-1].at)*time.Second >= c.spacing {
				kept = append(kept, q)
			}
		}
		c.points = kept
	}
}

// count notes the counter at the full hours and midnights that have passed since the last reading.
func (c *chart) count(v numbers.Value, m MeterConfig, at time.Time) {
	value, ok := drawable(v.Value)
	if !ok {
		return
	}
	before := c.last
	if c.counter.ID != v.Register.ID || c.unit != v.Unit || value < before.value || at.Before(before.at) {
		c.counter, c.unit, c.hours, c.days = v.Register, v.Unit, nil, nil
		before = mark{}
	}
	c.last = mark{at, value}
	gap := at.Sub(before.at)
	if before.at.IsZero() || gap > max(chartBridged, m.Interval*3/2) {
		return
	}
	between := func(edge time.Time) mark {
		share := float64(edge.Sub(before.at)) / float64(gap)
		return mark{edge, before.value + (value-before.value)*share}
	}
	zone := m.zone()
	for edge := fullHour(before.at, zone).Add(time.Hour); gap <= chartBridged && !edge.After(at); edge = edge.Add(time.Hour) {
		c.hours = append(c.hours, between(edge))
	}
	if edge := dayOf(at, zone); edge.After(before.at) {
		c.days = append(c.days, between(edge))
	}
	c.hours, c.days = newest(c.hours, chartHours*time.Hour), newest(c.days, chartDays*24*time.Hour)
}

// newest leaves out what is older than span before the last mark.
func newest(marks []mark, span time.Duration) []mark {
	if len(marks) == 0 {
		return marks
	}
	first := marks[len(marks)-1].at.Add(-span)
	return slices.DeleteFunc(marks, func(m mark) bool { return m.at.Before(first) })
}

// fullHour is the beginning of the hour of t, as clocks in a zone show it.
func fullHour(t time.Time, zone *time.Location) time.Time {
	_, seconds := t.In(zone).Zone()
	offset := time.Duration(seconds) * time.Second
	return t.Add(offset).Truncate(time.Hour).Add(-offset)
}

// dayOf is the first moment of the day of t. That is not always 0:00.
func dayOf(t time.Time, zone *time.Location) time.Time {
	y, m, d := t.In(zone).Date()
	return battery.NextDay(time.Date(y, m, d-1, 12, 0, 0, 0, zone))
}

// curves are the lines of the chart.
func (c *chart) curves() (times []int64, series []web.Series) {
	c.mu.Lock()
	defer c.mu.Unlock()
	times = make([]int64, len(c.points))
	series = slices.Clone(c.series)
	for i := range series {
		series[i].Values = make([]*float64, len(c.points))
	}
	for n, p := range c.points {
		times[n] = p.at
		for i := range series {
			if p.known[i] {
				v := short32(p.values[i])
				series[i].Values[n] = &v
			}
		}
	}
	return times, series
}

// bars are what was used by the hour and by the day: as the meter's own log has it, and behind
// that as memory has it.
func (c *chart) bars(log []mark, zone *time.Location) web.Chart {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := web.Chart{Title: c.counter.Title, Unit: symbol(c.unit), Source: "memory"}
	var end time.Time // of the log
	if len(log) > 0 {
		out.Source, end = "log", log[len(log)-1].at
	}
	late := func(marks []mark) []mark {
		return slices.DeleteFunc(slices.Clone(marks), func(m mark) bool { return !m.at.After(end) })
	}
	hours := append(slices.Clone(log), late(c.hours)...)
	for i := range hours {
		hours[i].at = hours[i].at.In(zone)
	}
	var days []mark
	for _, m := range log {
		if at := m.at.In(zone); dayOf(at, zone).Equal(at) {
			days = append(days, mark{at, m.value})
		}
	}
	days = append(days, late(c.days)...)
	if c.last.at.After(end) { // what is not over
		hours, days = open(hours, c.last, nextHour), open(days, c.last, inZone(zone))
	} else if len(log) > 0 {
		days = open(days, log[len(log)-1], inZone(zone))
	}
	out.Hours = bars(newest(hours, chartHours*time.Hour), nextHour)
	out.Days = bars(newest(days, chartDays*24*time.Hour), inZone(zone))
	return out
}

func nextHour(t time.Time) time.Time { return t.Add(time.Hour) }

// inZone says when the next day begins in a zone.
func inZone(zone *time.Location) func(time.Time) time.Time {
	return func(t time.Time) time.Time { return battery.NextDay(t.In(zone)) }
}

// open adds the end of an hour or day that is not over, with what is counted so far. When its
// beginning is not known there is none.
func open(marks []mark, last mark, next func(time.Time) time.Time) []mark {
	n := len(marks)
	if n == 0 || !last.at.After(marks[n-1].at) || last.at.After(next(marks[n-1].at)) {
		return marks
	}
	return append(marks, mark{next(marks[n-1].at), last.value})
}

// bars are what was counted between neighbouring marks. A bar whose end is missing is unknown.
func bars(marks []mark, next func(time.Time) time.Time) []web.Bar {
	list := []web.Bar{}
	for i := 1; i < len(marks); i++ {
		a, b := marks[i-1], marks[i]
		for at := a.at; at.Before(b.at); at = next(at) {
			bar := web.Bar{Start: at}
			if used := b.value - a.value; at.Equal(a.at) && next(at).Equal(b.at) && used >= 0 {
				used = short32(float32(used))
				bar.Energy = &used
			}
			list = append(list, bar)
		}
	}
	return list
}

// short32 is a number without the digits that a float32 does not have.
func short32(v float32) float64 {
	short, err := strconv.ParseFloat(strconv.FormatFloat(float64(v), 'g', -1, 32), 64)
	if err != nil { // it is what was just written
		return float64(v)
	}
	return short
}

// marks are the counter at full hours, of the rows of an hour log, which are in order.
func (c *chart) marks(rows []logbook.Row, zone *time.Location) []mark {
	c.mu.Lock()
	id, unit := c.counter.ID, c.unit
	c.mu.Unlock()
	var hours []mark
	for _, row := range rows {
		i := slices.IndexFunc(row.Registers, func(r kmp.Register) bool { return r.ID == id && r.Unit == unit })
		if i < 0 || row.Time.IsZero() {
			continue
		}
		d, err := row.Registers[i].Decimal()
		if err != nil {
			continue
		}
		m := mark{fullHour(row.Time.Add(row.Correction+30*time.Minute), zone), d.Float64()}
		if n := len(hours); n > 0 && !m.at.After(hours[n-1].at) {
			continue // a log that began anew, or a clock that was set back
		}
		hours = append(hours, m)
	}
	return hours
}
