package bridge

import (
	"slices"
	"strconv"
	"sync"
	"time"

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
	// between them to be worked out.
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

	barsMu sync.Mutex
	made   time.Time // when the bars were taken from the history
	bars   web.Chart // only the bars
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

// counted reports whether a counter makes the bars: energy, else volume.
func counted(v numbers.Value) bool {
	return v.Register.Name == "energy" || v.Register.Name == "volume"
}

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
func (c *chart) note(serial string, zone *time.Location, r Reading) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.serial != serial {
		c.serial, c.series, c.points, c.spacing = serial, nil, nil, 0
		c.counter, c.last, c.hours, c.days = catalog.Register{}, mark{}, nil, nil
	}
	p := point{at: r.Time.Unix()}
	for _, v := range r.Values {
		if counted(v) {
			c.count(v, zone, r.Time)
		}
		n, ok := drawable(v.Value)
		if i := c.curve(v); i >= 0 && ok {
			p.values[i], p.known[i] = float32(n), true
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
func (c *chart) count(v numbers.Value, zone *time.Location, at time.Time) {
	if c.counter.Name == "energy" && v.Register.Name != "energy" {
		return
	}
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
	if before.at.IsZero() || at.Sub(before.at) > chartBridged {
		return
	}
	between := func(edge time.Time) mark {
		share := float64(edge.Sub(before.at)) / float64(at.Sub(before.at))
		return mark{edge, before.value + (value-before.value)*share}
	}
	for edge := before.at.Truncate(time.Hour).Add(time.Hour); !edge.After(at); edge = edge.Add(time.Hour) {
		c.hours = trimmed(append(c.hours, between(edge)), chartHours+1)
	}
	if edge := midnight(at, zone); edge.After(before.at) {
		c.days = trimmed(append(c.days, between(edge)), chartDays+1)
	}
}

func trimmed(marks []mark, most int) []mark {
	return slices.Delete(marks, 0, max(0, len(marks)-most))
}

// midnight is the beginning of the day of t.
func midnight(t time.Time, zone *time.Location) time.Time {
	y, m, d := t.In(zone).Date()
	return time.Date(y, m, d, 0, 0, 0, 0, zone)
}

// nextDay is the midnight after that of t.
func nextDay(t time.Time) time.Time {
	y, m, d := t.Date()
	return time.Date(y, m, d+1, 0, 0, 0, 0, t.Location())
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

// remembered are the bars, as far as memory has them.
func (c *chart) remembered(zone *time.Location) web.Chart {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := web.Chart{Title: c.counter.Title, Unit: symbol(c.unit), Source: "memory"}
	bars := func(marks []mark, next func(time.Time) time.Time) []web.Bar {
		if n := len(marks); n > 0 && c.last.at.After(marks[n-1].at) { // the one that is not over
			marks = append(slices.Clone(marks), mark{next(marks[n-1].at), c.last.value})
		}
		return barsBetween(marks, next)
	}
	out.Hours = bars(c.hours, nextHour)
	days := slices.Clone(c.days)
	for i := range days {
		days[i].at = days[i].at.In(zone)
	}
	out.Days = bars(days, nextDay)
	return out
}

// short32 is a number without the digits that a float32 does not have.
func short32(v float32) float64 {
	short, err := strconv.ParseFloat(strconv.FormatFloat(float64(v), 'g', -1, 32), 64)
	if err != nil { // it is what was just written
		return float64(v)
	}
	return short
}

func nextHour(t time.Time) time.Time { return t.Add(time.Hour) }

// barsBetween makes bars of neighbouring marks. A bar whose end is missing is unknown.
func barsBetween(marks []mark, next func(time.Time) time.Time) []web.Bar {
	bars := []web.Bar{}
	for i := 1; i < len(marks); i++ {
		a, b := marks[i-1], marks[i]
		for at := a.at; at.Before(b.at) && len(bars) < 1000; at = next(at) {
			bar := web.Bar{Start: at}
			if used := b.value - a.value; next(at).Equal(b.at) && at.Equal(a.at) && used >= 0 {
				used = short32(float32(used))
				bar.Energy = &used
			}
			bars = append(bars, bar)
		}
	}
	return bars
}

// fromRows makes the bars of the rows of an hour log, which are in order.
func (c *chart) fromRows(rows []logbook.Row, zone *time.Location) (web.Chart, bool) {
	c.mu.Lock()
	id, title, unit := c.counter.ID, c.counter.Title, c.unit
	c.mu.Unlock()
	if id == 0 {
		return web.Chart{}, false
	}
	var hours, days []mark
	for _, row := range rows {
		i := slices.IndexFunc(row.Registers, func(r kmp.Register) bool { return r.ID == id && r.Unit == unit })
		if i < 0 || row.Time.IsZero() {
			continue
		}
		d, err := row.Registers[i].Decimal()
		if err != nil {
			continue
		}
		m := mark{row.Time.Add(row.Correction).Round(time.Hour), d.Float64()}
		if n := len(hours); n > 0 && !m.at.After(hours[n-1].at) {
			continue // a log that began anew, or a clock that was set back
		}
		hours = append(hours, m)
		if local := m.at.In(zone); midnight(m.at, zone).Equal(m.at) {
			days = append(days, mark{local, m.value})
		}
	}
	out := web.Chart{Title: title, Unit: symbol(unit), Source: "log"}
	if n := len(hours); n > 0 {
		if d := len(days); d > 0 && hours[n-1].at.After(days[d-1].at) { // the day that is not over
			days = append(days, mark{nextDay(days[d-1].at), hours[n-1].value})
		}
	}
	out.Hours, out.Days = barsBetween(trimmed(hours, chartHours+1), nextHour), barsBetween(trimmed(days, chartDays+1), nextDay)
	return out, len(out.Hours) > 0
}
