package hatest

import (
	"encoding/json"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"time"
)

// scales are the units that are converted: by how much a value in the class's smallest one is divided.
var scales = map[string]map[string]*big.Rat{
	"energy": {
		"Wh": big.NewRat(3600, 1), "kWh": big.NewRat(3600e3, 1), "MWh": big.NewRat(3600e6, 1),
		"MJ": big.NewRat(1e6, 1), "GJ": big.NewRat(1e9, 1), "Gcal": big.NewRat(4184e6, 1),
	},
	"volume": {"L": big.NewRat(1, 1), "m³": big.NewRat(1000, 1)},
}

// fieldOf is one field of a schema: what is in it, and whether it must be there.
type fieldOf struct {
	kind     string // string, number, bool, object, list, "string?" may be null
	required bool
}

// check is what a schema says of an object: the text of the error, empty if it fits.
func check(at string, object map[string]json.RawMessage, schema map[string]fieldOf) string {
	for name, value := range object {
		f, known := schema[name]
		if !known {
			return fmt.Sprintf("extra keys not allowed @ data%s['%s']. Got %s", at, name, value)
		}
		if !fits(value, f.kind) {
			return fmt.Sprintf("expected %s for dictionary value @ data%s['%s']. Got %s", f.kind, at, name, value)
		}
	}
	for name, f := range schema {
		if _, there := object[name]; f.required && !there {
			return fmt.Sprintf("required key not provided @ data%s['%s']. Got None", at, name)
		}
	}
	return ""
}

func fits(value json.RawMessage, kind string) bool {
	plain, null := strings.CutSuffix(kind, "?")
	if string(value) == "null" {
		return null
	}
	switch value[0] {
	case '"':
		return plain == "string"
	case '{':
		return plain == "object"
	case '[':
		return plain == "list"
	case 't', 'f':
		return plain == "bool"
	}
	return plain == "number"
}

// command decodes a command and checks its fields; the error is answered.
func (s *session) command(id int64, data []byte, schema map[string]fieldOf, into any) bool {
	var object map[string]json.RawMessage
	if json.Unmarshal(data, &object) != nil {
		return false
	}
	schema["id"], schema["type"] = fieldOf{"number", true}, fieldOf{"string", true}
	if wrong := check("", object, schema); wrong != "" {
		s.fail(id, "invalid_format", wrong)
		return false
	}
	if err := json.Unmarshal(data, into); err != nil {
		s.fail(id, "invalid_format", err.Error())
		return false
	}
	return true
}

func (s *session) metadata(id int64, data []byte) bool {
	var command struct {
		IDs []string `json:"statistic_ids"`
	}
	if !s.command(id, data, map[string]fieldOf{"statistic_ids": {"list", false}}, &command) {
		return true
	}
	s.mu.Lock()
	list := []map[string]any{}
	for _, st := range s.statistics {
		if len(command.IDs) > 0 && !slices.Contains(command.IDs, st.ID) {
			continue
		}
		entry := map[string]any{
			"statistic_id": st.ID, "source": st.Source, "name": orNil(st.Name), "has_sum": !st.Mean,
			"statistics_unit_of_measurement": orNil(st.Unit), "display_unit_of_measurement": orNil(st.display()), "unit_class": orNil(st.UnitClass),
		}
		if s.older("2026.11") {
			entry["has_mean"] = st.Mean
		}
		if !s.older("2025.4") {
			entry["mean_type"] = 0
			if st.Mean {
				entry["mean_type"] = 1
			}
		}
		list = append(list, entry)
	}
	s.mu.Unlock()
	return s.result(id, list)
}

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (st Statistic) display() string {
	if st.DisplayUnit == "" {
		return st.Unit
	}
	return st.DisplayUnit
}

func (s *session) during(id int64, data []byte) bool {
	var command struct {
		Start  string            `json:"start_time"`
		End    string            `json:"end_time"`
		IDs    []string          `json:"statistic_ids"`
		Period string            `json:"period"`
		Units  map[string]string `json:"units"`
		Types  []string          `json:"types"`
	}
	if !s.command(id, data, map[string]fieldOf{
		"start_time": {"string", true}, "end_time": {"string", false}, "statistic_ids": {"list", true},
		"period": {"string", true}, "units": {"object", false}, "types": {"list", false},
	}, &command) {
		return true
	}
	start, err := time.Parse(time.RFC3339, command.Start)
	if err != nil {
		return s.fail(id, "invalid_start_time", "Invalid start_time")
	}
	end, err := time.Parse(time.RFC3339, command.End)
	if err != nil {
		return s.fail(id, "invalid_end_time", "Invalid end_time")
	}
	for class, unit := range command.Units {
		if scales[class][unit] == nil {
			return s.fail(id, "invalid_format", fmt.Sprintf("value must be one of the units @ data['units']['%s']. Got '%s'", class, unit))
		}
	}
	month := command.Period == "month"
	if month {
		start, end = s.monthOf(start), s.monthOf(end).AddDate(0, 1, 0)
	}
	result := map[string][]map[string]any{}
	s.mu.Lock()
	for _, name := range command.IDs {
		st := s.statistics[name]
		if st == nil {
			continue
		}
		convert := st.converter(command.Units)
		for _, r := range s.sorted(name) {
			if r.Start.Before(start) || !r.Start.Before(end) {
				continue
			}
			from, to := r.Start, r.Start.Add(time.Hour)
			if month {
				from, to = s.monthOf(r.Start), s.monthOf(r.Start).AddDate(0, 1, 0)
			}
			row := map[string]any{"start": from.UnixMilli(), "end": to.UnixMilli()}
			if slices.Contains(command.Types, "state") {
				row["state"] = convert(r.State)
			}
			if slices.Contains(command.Types, "sum") {
				row["sum"] = convert(r.Sum)
			}
			if rows := result[name]; month && len(rows) > 0 && rows[len(rows)-1]["start"] == row["start"] {
				rows[len(rows)-1] = row
				continue
			}
			result[name] = append(result[name], row)
		}
	}
	s.mu.Unlock()
	return s.result(id, result)
}

// monthOf is when the month began that t is in, where Home Assistant is.
func (s *session) monthOf(t time.Time) time.Time {
	zone := s.Zone
	if zone == nil {
		zone = time.UTC
	}
	t = t.In(zone)
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, zone)
}

// converter shows values in the unit that was asked for, or in which they are shown.
func (st Statistic) converter(units map[string]string) func(string) any {
	to := st.display()
	if asked := units[st.UnitClass]; asked != "" {
		to = asked
	}
	from, into := scales[st.UnitClass][st.Unit], scales[st.UnitClass][to]
	return func(value string) any {
		switch {
		case value == "":
			return nil
		case from == nil || into == nil || st.Unit == to:
			return json.RawMessage(value)
		}
		f, _ := new(big.Rat).Quo(new(big.Rat).Mul(rat(value), from), into).Float64()
		return f
	}
}

var (
	entityID   = regexp.MustCompile(`^[a-z0-9_]+\.[a-z0-9_]+$`)
	externalID = regexp.MustCompile(`^[a-z0-9]+(_[a-z0-9]+)*:[a-z0-9]+(_[a-z0-9]+)*$`)
)

// add takes rows into the recorder's queue.
func (s *session) add(id int64, data []byte) bool {
	var command struct {
		Meta  map[string]json.RawMessage   `json:"metadata"`
		Stats []map[string]json.RawMessage `json:"stats"`
	}
	if !s.command(id, data, map[string]fieldOf{"metadata": {"object", true}, "stats": {"list", true}}, &command) {
		return true
	}
	schema := map[string]fieldOf{
		"has_sum": {"bool", true}, "name": {"string?", true}, "source": {"string", true},
		"statistic_id": {"string", true}, "unit_of_measurement": {"string?", true},
	}
	switch {
	case s.older("2025.11"):
		schema["has_mean"] = fieldOf{"bool", true}
	case s.older("2026.11"):
		schema["has_mean"], schema["mean_type"], schema["unit_class"] = fieldOf{"bool", false}, fieldOf{"number", false}, fieldOf{"string?", false}
	default:
		schema["mean_type"], schema["unit_class"] = fieldOf{"number", true}, fieldOf{"string?", true}
	}
	if wrong := check("['metadata']", command.Meta, schema); wrong != "" {
		return s.fail(id, "invalid_format", wrong)
	}
	meta := Statistic{
		ID: str(command.Meta["statistic_id"]), Source: str(command.Meta["source"]), Name: str(command.Meta["name"]),
		Unit: str(command.Meta["unit_of_measurement"]), UnitClass: str(command.Meta["unit_class"]),
		Mean: string(command.Meta["has_sum"]) == "false",
	}
	var rows []Row
	for i, stat := range command.Stats {
		at := fmt.Sprintf("['stats'][%d]", i)
		if wrong := check(at, stat, map[string]fieldOf{"start": {"string", true}, "state": {"number", false}, "sum": {"number", false}}); wrong != "" {
			return s.fail(id, "invalid_format", wrong)
		}
		start, err := time.Parse(time.RFC3339, str(stat["start"]))
		if err != nil {
			return s.fail(id, "home_assistant_error", "Naive timestamp")
		}
		if start.Minute() != 0 || start.Second() != 0 || start.Nanosecond() != 0 {
			return s.fail(id, "home_assistant_error", "Invalid timestamp")
		}
		rows = append(rows, Row{start.UTC(), string(stat["state"]), string(stat["sum"])})
	}
	switch {
	case entityID.MatchString(meta.ID):
		if meta.Source != "recorder" {
			return s.fail(id, "home_assistant_error", "Invalid source")
		}
	case !externalID.MatchString(meta.ID):
		return s.fail(id, "home_assistant_error", "Invalid statistic_id")
	case meta.Source != strings.SplitN(meta.ID, ":", 2)[0]:
		return s.fail(id, "home_assistant_error", "Invalid source")
	}
	if s.Lag > 0 {
		time.AfterFunc(s.Lag, func() { s.write(meta, rows) })
	} else {
		s.write(meta, rows)
	}
	return s.result(id, nil)
}

// write is the recorder's job: what is known of the statistic becomes what the import said, and rows are overwritten.
func (s *session) write(meta Statistic, rows []Row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.statistics[meta.ID]
	if st == nil {
		st = &statistic{rows: map[int64]Row{}}
		s.statistics[meta.ID] = st
	}
	if meta.UnitClass == "" && s.older("2025.11") {
		meta.UnitClass = st.UnitClass
	}
	meta.DisplayUnit = st.DisplayUnit
	st.Statistic = meta
	for _, r := range rows {
		st.rows[r.Start.Unix()] = r
	}
}

func str(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}
