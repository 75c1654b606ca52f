package statistics

import (
	"encoding/json"
	"fmt"
	"math/big"
	"net/url"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kmp2mqtt/kmp"
)

func rat(t *testing.T, s string) *big.Rat {
	t.Helper()
	if s == "" {
		return nil
	}
	v, ok := new(big.Rat).SetString(s)
	if !ok {
		t.Fatalf("%q is no number", s)
	}
	return v
}

func TestScaled(t *testing.T) {
	for _, tt := range []struct {
		value    string
		from, to string
		want     string
		step     string
	}{
		{"227.445", "GJ", "GJ", "227.445", "1/1000"},
		{"227.445", "GJ", "MJ", "227445", "1"},
		{"227.445", "GJ", "kWh", "63179.1666667", "5/18"},
		{"227.445", "GJ", "MWh", "63.1791666667", "1/3600"},
		{"36", "GJ", "MWh", "10", "5/18"},
		{"1.5E3", "kWh", "GJ", "5.4", "9/25"},
		{"-0.001", "MWh", "Wh", "-1000", "1000"},
		{"123", "m³", "L", "123000", "1000"},
		{"123", "L", "m³", "0.123", "1/1000"},
		{"1", "Gcal", "GJ", "4.184", "523/125"},
		{"1.00", "m³", "gal", "264.172052", "2500000000/946352946"},
		{"1", "MCF", "CCF", "10", "10"},
		{"1", "gal", "fl. oz.", "128", "128"},
		{"7", "m³·°C", "m³·°C", "7", "1"},
		{"1", "J", "TWh", "0.0000000000000002777778", "1/3600000000000000"},
	} {
		t.Run(tt.value+tt.from+tt.to, func(t *testing.T) {
			d, err := kmp.ParseDecimal(tt.value)
			if err != nil {
				t.Fatal(err)
			}
			factor, ok := convert(tt.from, tt.to)
			if !ok {
				t.Fatal("cannot be converted")
			}
			value, step := scaled(d, factor)
			if got := number(value); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if step.Cmp(rat(t, tt.step)) != 0 {
				t.Errorf("step %s, want %s", step, tt.step)
			}
		})
	}
	for _, other := range [][2]string{{"GJ", "m³"}, {"GJ", ""}, {"", "GJ"}, {"m³·°C", "m³"}, {"t", "kg"}} {
		if factor, ok := convert(other[0], other[1]); ok {
			t.Errorf("%q to %q: %v", other[0], other[1], factor)
		}
	}
}

// TestSizes: Home Assistant's units of these classes, all of them, in the sizes that international definitions give.
func TestSizes(t *testing.T) {
	for unit, joules := range map[string]string{
		"J": "1", "kJ": "1e3", "MJ": "1e6", "GJ": "1e9", "mWh": "3.6", "Wh": "3600", "kWh": "3.6e6", "MWh": "3.6e9",
		"GWh": "3.6e12", "TWh": "3.6e15", "cal": "4.184", "kcal": "4184", "Mcal": "4.184e6", "Gcal": "4.184e9",
	} {
		if factor, ok := convert(unit, "J"); !ok || factor.Cmp(rat(t, joules)) != 0 {
			t.Errorf("%s is %v J", unit, factor)
		}
	}
	for unit, litres := range map[string]string{
		"L": "1", "mL": "0.001", "m³": "1000", "gal": "3.785411784", "fl. oz.": "0.0295735295625",
		"ft³": "28.316846592", "CCF": "2831.6846592", "MCF": "28316.846592",
	} {
		if factor, ok := convert(unit, "L"); !ok || factor.Cmp(rat(t, litres)) != 0 {
			t.Errorf("%s is %v L", unit, factor)
		}
	}
	for unit, want := range map[kmp.Unit]string{
		kmp.UnitGJ: "GJ", kmp.UnitMWh: "MWh", kmp.UnitKWh: "kWh", kmp.UnitWh: "Wh", kmp.UnitLitre: "L", kmp.UnitCubicMetre: "m³",
		0x39: "GJ", 0x37: "m³", 0x0C: "Gcal", 0x46: "gal", kmp.UnitNone: "", kmp.UnitHour: "h",
	} {
		if got := homeUnit(unit); got != want {
			t.Errorf("unit %d: %q, want %q", unit, got, want)
		}
	}
}

// TestJoin: what the whole import cannot show as well.
func TestJoin(t *testing.T) {
	type r struct {
		hour       int64
		state, sum string
	}
	type s struct {
		hour  int64
		value string
	}
	for _, tt := range []struct {
		name    string
		rows    []r
		samples []s
		slack   string
		want    []r
		no      refused
	}{
		{name: "nothing", want: nil},
		{name: "no rows", samples: []s{{1, "5"}, {2, "4"}, {3, "6.5"}}, want: []r{{1, "5", "0"}, {3, "6.5", "1.5"}}, no: refused{refusedFall: 1}},
		{
			name: "several gaps", rows: []r{{2, "10", "1"}, {5, "20", "11"}, {8, "30", "21"}},
			samples: []s{{1, "9"}, {2, "10"}, {3, "12"}, {4, "14"}, {6, "31"}, {7, "29"}, {9, "33"}},
			want:    []r{{1, "9", "0"}, {3, "12", "3"}, {4, "14", "5"}, {7, "29", "20"}, {9, "33", "24"}}, no: refused{refusedNeighbour: 1},
		},
		{
			name: "after rows that say nothing", rows: []r{{1, "10", "1"}, {2, "", "5"}, {4, "", ""}},
			samples: []s{{3, "12"}, {5, "13"}}, want: []r{{3, "12", "3"}, {5, "13", "4"}},
		},
		{
			name: "before rows that say nothing", rows: []r{{2, "", "5"}, {4, "15", "1"}},
			samples: []s{{1, "12"}, {3, "13"}}, want: []r{{1, "12", "-2"}, {3, "13", "-1"}},
		},
		{name: "equal values", rows: []r{{1, "10", "1"}, {4, "10", "1"}}, samples: []s{{2, "10"}, {3, "10"}}, want: []r{{2, "10", "1"}, {3, "10", "1"}}},
		{
			name: "within slack", rows: []r{{1, "10.4", "1"}, {4, "11.6", "2"}}, slack: "0.5", samples: []s{{2, "10"}, {3, "12"}},
			want: []r{{2, "10", "1"}, {3, "12", "2"}},
		},
		{name: "sums off by less than slack", rows: []r{{1, "10", "1"}, {4, "12", "3.4"}}, slack: "0.5", samples: []s{{2, "11"}}, want: []r{{2, "11", "2"}}},
		{name: "sums off by more", rows: []r{{1, "10", "1"}, {4, "12", "3.6"}}, slack: "0.5", samples: []s{{2, "11"}}, no: refused{refusedReset: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var rows []row
			for _, r := range tt.rows {
				rows = append(rows, row{r.hour, rat(t, r.state), rat(t, r.sum)})
			}
			var samples []sample
			for _, s := range tt.samples {
				samples = append(samples, sample{s.hour, rat(t, s.value)})
			}
			slack := new(big.Rat)
			if tt.slack != "" {
				slack = rat(t, tt.slack)
			}
			missing, no := join(rows, samples, slack)
			var got []string
			for _, r := range missing {
				got = append(got, fmt.Sprint(r.hour, " ", number(r.state), " ", number(r.sum)))
			}
			var want []string
			for _, r := range tt.want {
				want = append(want, fmt.Sprint(r.hour, " ", r.state, " ", r.sum))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if tt.no == nil {
				tt.no = refused{}
			}
			if diff := cmp.Diff(tt.no, no); diff != "" {
				t.Errorf("refused: -want +got\n%s", diff)
			}
		})
	}
}

// TestSortRows: rows as a database in disorder gives them.
func TestSortRows(t *testing.T) {
	f := func(v float64) *float64 { return &v }
	const ms = 3600e3
	rows := sortRows([]period{
		{Start: 7 * ms, State: f(3), Sum: f(1)},
		{Start: 5 * ms, State: f(1), Sum: f(0)},
		{Start: 7 * ms, State: f(3), Sum: f(1)},       // the same again
		{Start: 6 * ms, State: f(2), Sum: f(0.1)},     // two that differ
		{Start: 6*ms + 5, State: f(2), Sum: f(0.2)},   //
		{Start: 8 * ms, State: f(1e300), Sum: f(0.2)}, // no counter
		{Start: 9 * ms, State: f(4)},
		{Start: 4 * ms, State: f(4), Sum: f(1)},  // not asked for
		{Start: 10 * ms, State: f(4), Sum: f(1)}, // neither
		{Start: 1e300, State: f(4), Sum: f(1)},
	}, 5, 10)
	var got []string
	for _, r := range rows {
		got = append(got, fmt.Sprint(r.hour, r.state, r.sum))
	}
	want := []string{"5 1/1 0/1", "6 <nil> <nil>", "7 3/1 1/1", "8 <nil> 1/5", "9 4/1 <nil>"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestHourOf(t *testing.T) {
	for text, want := range map[string]int64{
		"1970-01-01T00:00:00Z": 0, "1970-01-01T00:59:59Z": 0, "1970-01-01T01:00:00Z": 1, "1969-12-31T23:30:00Z": -1, "1969-12-31T23:00:00Z": -1,
		"2026-11-21T13:00:00+01:00": 498684,
	} {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		if got := hourOf(at); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
	if got := startOf(498684); got != "2026-11-21T12:00:00Z" {
		t.Error(got)
	}
}

func TestWebsocketURL(t *testing.T) {
	for given, want := range map[string]string{
		"http://homeassistant.local:8123":        "ws://homeassistant.local:8123/api/websocket",
		"http://homeassistant.local:8123/":       "ws://homeassistant.local:8123/api/websocket",
		"https://ha.example":                     "wss://ha.example/api/websocket",
		"HTTPS://ha.example/":                    "wss://ha.example/api/websocket",
		"https://ha.example/house":               "wss://ha.example/house/api/websocket",
		"ws://10.0.0.7:8123/api/websocket":       "ws://10.0.0.7:8123/api/websocket",
		"wss://ha.example/api/":                  "wss://ha.example/api/websocket",
		"ws://supervisor/core/websocket":         "ws://supervisor/core/websocket",
		"http://supervisor/core":                 "ws://supervisor/core/websocket",
		"http://[fd00::7]:8123":                  "ws://[fd00::7]:8123/api/websocket",
		"http://user:secret@ha.example/?a=b#c":   "ws://ha.example/api/websocket",
		"ws://homeassistant.local:8123":          "ws://homeassistant.local:8123/api/websocket",
		"http://homeassistant.local:8123/core":   "ws://homeassistant.local:8123/core/api/websocket",
		"http://homeassistant.local/a/websocket": "ws://homeassistant.local/a/websocket",
	} {
		u, err := url.Parse(given)
		if err != nil {
			t.Fatal(err)
		}
		if got := websocketURL(u).String(); got != want {
			t.Errorf("%s: %s, want %s", given, got, want)
		}
	}
}

// haStatisticID is Home Assistant's rule for the ids of external statistics (core, components/recorder/statistics.py),
// said in other words: Go has no look-ahead.
var haStatisticID = regexp.MustCompile(`^[0-9a-z]+(_[0-9a-z]+)*:[0-9a-z]+(_[0-9a-z]+)*$`)

func TestExternalID(t *testing.T) {
	for _, tt := range []struct{ serial, register, want string }{
		{"12345678", "energy", "kmp2mqtt:12345678_energy"},
		{"12345678", "energy_e1", "kmp2mqtt:12345678_energy_e1"},
		{"A-1", "Volume V1", "kmp2mqtt:a_1_volume_v1"},
		{"_7_", "__energy__", "kmp2mqtt:7_energy"},
		{"", "energy", "kmp2mqtt:energy"},
		{"ÄÖ7", "mål", "kmp2mqtt:7_m_l"},
		{"-", "_", ""},
		{"", "", ""},
	} {
		got, ok := ExternalID(tt.serial, tt.register)
		if ok != (tt.want != "") || ok && got != tt.want {
			t.Errorf("%q %q: %q %v, want %q", tt.serial, tt.register, got, ok, tt.want)
		}
		if ok && !haStatisticID.MatchString(got) {
			t.Errorf("%q is no id for Home Assistant", got)
		}
	}
}

func TestVersion(t *testing.T) {
	for text, older := range map[string]bool{
		"2025.10.4": true, "2024.12.0": true, "2025.11.0": false, "2025.11.0b3": false, "2026.1.1": false, "2026.12.0.dev0": false, "": false, "next": false,
	} {
		if got := parseVersion(text).before(2025, 11); got != older {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func FuzzExternalID(f *testing.F) {
	f.Add("12345678", "energy")
	f.Add("_A__", "ÿ\x00")
	f.Fuzz(func(t *testing.T, serial, register string) {
		if id, ok := ExternalID(serial, register); ok && !haStatisticID.MatchString(id) {
			t.Errorf("%q %q: %q", serial, register, id)
		}
	})
}

// FuzzMessage: whatever comes, it becomes rows in order or an error, and nothing that is there is written.
func FuzzMessage(f *testing.F) {
	for _, seed := range []string{
		`{"type":"auth_required","ha_version":"2026.11.0"}`,
		`{"type":"auth_invalid","message":"Invalid access token or password"}`,
		`{"id":1,"type":"result","success":true,"result":[{"entity_id":"sensor.a","unique_id":7,"platform":"mqtt","disabled_by":null}]}`,
		`{"id":2,"type":"result","success":false,"error":{"code":"unauthorized","message":"Unauthorized"}}`,
		`{"id":3,"type":"result","success":true,"result":[{"statistic_id":"sensor.a","source":"recorder","name":null,"has_sum":true,"mean_type":0,"unit_class":"energy","statistics_unit_of_measurement":"GJ"}]}`,
		`{"id":4,"type":"result","success":true,"result":{"sensor.a":[{"start":1795258800000,"end":1795262400000,"state":227.445,"sum":0.1},{"start":1795266000000,"end":1795269600000,"state":null,"sum":1e308}]}}`,
		`{"id":4,"type":"result","success":true,"result":{"sensor.a":[{"start":-1e308,"end":1e308,"state":-0,"sum":5e-324}]}}`,
		`[]`, `null`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decodeMessage(data)
		if err != nil {
			return
		}
		var list []metadata
		if json.Unmarshal(m.Result, &list) == nil {
			for _, m := range list {
				convert("GJ", m.unit())
			}
		}
		var found map[string][]period
		if json.Unmarshal(m.Result, &found) != nil {
			return
		}
		for _, periods := range found {
			from, to := int64(498000), int64(499000)
			rows := sortRows(periods, from, to)
			var samples []sample
			for hour := from; hour < to; hour += 7 {
				samples = append(samples, sample{hour, big.NewRat(hour, 1000)})
			}
			for i, r := range rows {
				if r.hour < from || r.hour >= to || i > 0 && rows[i-1].hour >= r.hour {
					t.Fatalf("rows in disorder: %v", rows)
				}
			}
			missing, no := join(rows, samples, big.NewRat(1, 1000))
			written := 0
			for _, r := range missing {
				if has(rows, r.hour) {
					t.Fatalf("hour %d is written again", r.hour)
				}
				if !json.Valid([]byte(number(r.state))) || !json.Valid([]byte(number(r.sum))) {
					t.Fatalf("%s %s are no numbers", number(r.state), number(r.sum))
				}
				written++
			}
			for _, n := range no {
				written += n
			}
			for _, s := range samples {
				if has(rows, s.hour) {
					written++
				}
			}
			if written != len(samples) {
				t.Fatalf("%d samples of %d are accounted for", written, len(samples))
			}
		}
	})
}
