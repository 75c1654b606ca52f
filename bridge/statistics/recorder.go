package statistics

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	nearHours      = 48   // around the samples: as a rule the nearest rows are there
	maxMonths      = 1200 // of rows: more than anybody has
	maxNumber      = 1e15 // a counter that shows more is none
	secondsPerHour = 3600
)

// hourOf is the number of the hour, since 1970, that holds t.
func hourOf(t time.Time) int64 {
	s := t.Unix()
	if s < 0 {
		s -= secondsPerHour - 1
	}
	return s / secondsPerHour
}

// startOf is when an hour starts, as Home Assistant takes times.
func startOf(hour int64) string {
	return time.Unix(hour*secondsPerHour, 0).UTC().Format(time.RFC3339)
}

// entity is an entry of Home Assistant's entity registry.
type entity struct {
	id       string
	disabled bool
}

// entities returns the registry's sensors that came by MQTT, by unique id.
func (c *conn) entities() (map[string]entity, error) {
	var list []struct {
		EntityID   text            `json:"entity_id"`
		UniqueID   text            `json:"unique_id"`
		Platform   text            `json:"platform"`
		DisabledBy json.RawMessage `json:"disabled_by"`
	}
	if err := c.call("config/entity_registry/list", nil, &list); err != nil {
		return nil, err
	}
	found := map[string]entity{}
	for _, e := range list {
		if e.Platform == "mqtt" && strings.HasPrefix(string(e.EntityID), "sensor.") {
			disabled := len(e.DisabledBy) > 0 && string(e.DisabledBy) != "null"
			found[string(e.UniqueID)] = entity{string(e.EntityID), disabled}
		}
	}
	return found, nil
}

// metadata is what Home Assistant knows of one statistic.
type metadata struct {
	ID        string  `json:"statistic_id"`
	Source    string  `json:"source"`
	Name      *string `json:"name"`
	Unit      *string `json:"statistics_unit_of_measurement"`
	UnitClass *string `json:"unit_class"`
	HasSum    bool    `json:"has_sum"`
	HasMean   bool    `json:"has_mean"`
	MeanType  int     `json:"mean_type"`
}

// unit is the unit of what is stored, empty if it has none.
func (m metadata) unit() string {
	if m.Unit == nil {
		return ""
	}
	return *m.Unit
}

// own says whether Home Assistant counts this statistic itself, from a sensor.
func (m metadata) own() bool { return m.Source == "recorder" }

// metadata returns what is known of a statistic; false if there is none.
func (c *conn) metadata(id string) (metadata, bool, error) {
	var list []metadata
	if err := c.call("recorder/get_statistics_metadata", map[string]any{"statistic_ids": []string{id}}, &list); err != nil {
		return metadata{}, false, err
	}
	i := slices.IndexFunc(list, func(m metadata) bool { return m.ID == id })
	if i < 0 {
		return metadata{}, false, nil
	}
	return list[i], true, nil
}

// period is a row of recorder/statistics_during_period. Times are in milliseconds.
type period struct {
	Start float64  `json:"start"`
	End   float64  `json:"end"`
	State *float64 `json:"state"`
	Sum   *float64 `json:"sum"`
}

// hours is when a period starts and ends, in hours since 1970; false if it is no time.
func (p period) hours() (start, end int64, ok bool) {
	const ms = secondsPerHour * 1000
	const limit = 1e9 // hours
	if math.Abs(p.Start/ms) > limit || math.Abs(p.End/ms) > limit {
		return 0, 0, false
	}
	return int64(math.Floor(p.Start / ms)), int64(math.Ceil(p.End / ms)), true
}

// during returns the periods ("hour", "month") of a statistic from one hour to before another, in its own unit.
func (c *conn) during(m metadata, length string, from, to int64) ([]period, error) {
	fields := map[string]any{
		"start_time":    startOf(from),
		"end_time":      startOf(to),
		"statistic_ids": []string{m.ID},
		"period":        length,
		"types":         []string{"state", "sum"},
	}
	if class := unitClass(m.unit()); class != "" {
		// Else they come in the unit in which somebody wants to see them.
		fields["units"] = map[string]string{class: m.unit()}
	}
	var found map[string][]period
	if err := c.call("recorder/statistics_during_period", fields, &found); err != nil {
		return nil, err
	}
	return found[m.ID], nil
}

// rows returns the rows of the hours from one to before another: in order, one for each hour.
func (c *conn) rows(m metadata, from, to int64) ([]row, error) {
	periods, err := c.during(m, "hour", from, to)
	if err != nil {
		return nil, err
	}
	return sortRows(periods, from, to), nil
}

// sortRows puts rows in order. Where two are of one hour, and differ, nothing is known but that there is a row.
func sortRows(periods []period, from, to int64) []row {
	rows := make([]row, 0, len(periods))
	for _, p := range periods {
		if hour, _, ok := p.hours(); ok && hour >= from && hour < to {
			rows = append(rows, row{hour, exact(p.State), exact(p.Sum)})
		}
	}
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(a.hour, b.hour) })
	unique := rows[:0]
	for _, r := range rows {
		if n := len(unique); n > 0 && unique[n-1].hour == r.hour {
			if !r.anchor() || !unique[n-1].anchor() || r.state.Cmp(unique[n-1].state) != 0 || r.sum.Cmp(unique[n-1].sum) != 0 {
				unique[n-1].state, unique[n-1].sum = nil, nil
			}
			continue
		}
		unique = append(unique, r)
	}
	return unique
}

// exact is the decimal number that stands for a binary one: the shortest, which is the one that was sent. Nil if it is
// not known, or more than a counter ever shows.
func exact(f *float64) *big.Rat {
	if f == nil || math.IsNaN(*f) || math.Abs(*f) > maxNumber {
		return nil
	}
	v, _ := new(big.Rat).SetString(strconv.FormatFloat(*f, 'f', -1, 64))
	return v
}

// around returns the rows of the hours of some samples, and those nearest to them on both sides that others can be
// joined to, if there are any. joins says whether the samples can be: all have a row, there is one to join them to, or
// the statistic is empty, and not a sensor's.
func (c *conn) around(m metadata, samples []sample) (rows []row, joins bool, err error) {
	first, last := samples[0].hour, samples[len(samples)-1].hour
	from, to := first-nearHours, last+1+nearHours
	rows, err = c.rows(m, from, to)
	if err != nil {
		return nil, false, err
	}
	if !slices.ContainsFunc(samples, func(s sample) bool { return !has(rows, s.hour) }) {
		return rows, true, nil
	}
	before := slices.ContainsFunc(rows, func(r row) bool { return r.hour < first && r.anchor() })
	after := slices.ContainsFunc(rows, func(r row) bool { return r.hour > last && r.anchor() }) || to > hourOf(time.Now())
	if before && after {
		return rows, true, nil
	}
	far, months, err := c.far(m, from, to, !before, !after)
	if err != nil {
		return nil, false, err
	}
	rows = append(rows, far...)
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(a.hour, b.hour) })
	empty := len(rows) == 0 && months == 0
	return rows, slices.ContainsFunc(rows, row.anchor) || empty && !m.own(), nil
}

// has says whether there is a row for an hour. The rows are in order.
func has(rows []row, hour int64) bool {
	_, there := slices.BinarySearchFunc(rows, hour, func(r row, hour int64) int { return cmp.Compare(r.hour, hour) })
	return there
}

// far returns the nearest rows to join to before one hour and from another one on, as far as asked for, and how many
// months have rows at all. Home Assistant sums up months quickly; the row is then looked for in its month.
func (c *conn) far(m metadata, first, last int64, before, after bool) (rows []row, months int, err error) {
	epoch := hourOf(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
	all, err := c.during(m, "month", min(epoch, first), max(hourOf(time.Now()), last)+1)
	if err != nil {
		return nil, 0, err
	}
	if len(all) > maxMonths {
		return nil, 0, fmt.Errorf("%w: %d months of statistics", errProtocol, len(all))
	}
	slices.SortFunc(all, func(a, b period) int { return cmp.Compare(a.Start, b.Start) })
	for _, p := range slices.Backward(all) {
		from, to, ok := p.hours()
		if !before || !ok || from >= first {
			continue
		}
		found, err := c.rows(m, from, min(to, first))
		if err != nil {
			return nil, 0, err
		}
		if before = !slices.ContainsFunc(found, row.anchor); !before {
			rows = append(rows, found...)
		}
	}
	for _, p := range all {
		from, to, ok := p.hours()
		if !after || !ok || to <= last {
			continue
		}
		found, err := c.rows(m, max(from, last), to)
		if err != nil {
			return nil, 0, err
		}
		if after = !slices.ContainsFunc(found, row.anchor); !after {
			rows = append(rows, found...)
		}
	}
	return rows, len(all), nil
}

// add imports rows. Home Assistant only takes them into its queue: they are there when they are shown.
func (c *conn) add(m metadata, rows []row) error {
	meta := map[string]any{
		"statistic_id":        m.ID,
		"source":              m.Source,
		"name":                m.Name,
		"unit_of_measurement": m.Unit,
		"has_sum":             m.HasSum,
	}
	// The keys that every version takes, and no other: Home Assistant refuses those that it does not know.
	if c.version.before(2025, 11) {
		meta["has_mean"] = m.HasMean
	} else {
		meta["mean_type"], meta["unit_class"] = m.MeanType, m.UnitClass
	}
	type stat struct {
		Start string      `json:"start"`
		State json.Number `json:"state"`
		Sum   json.Number `json:"sum"`
	}
	stats := make([]stat, len(rows))
	for i, r := range rows {
		stats[i] = stat{startOf(r.hour), json.Number(number(r.state)), json.Number(number(r.sum))}
	}
	return c.call("recorder/import_statistics", map[string]any{"metadata": meta, "stats": stats}, nil)
}
