package web

import (
	"bytes"
	compare "cmp"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"

	"kmp2mqtt/bridge/battery"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/diagnosis"
)

var update = flag.Bool("update", false, "write generated documents anew instead of comparing them")

// numbers is a bridge of which only the numbers are looked at.
type numbers struct {
	Source
	bridge Bridge
	meters []Meter
}

func (n numbers) Bridge() Bridge  { return n.bridge }
func (n numbers) Meters() []Meter { return n.meters }

// scraped is what the handler answers to a scrape.
func scraped(t *testing.T, src Source) string {
	t.Helper()
	w := httptest.NewRecorder()
	metrics(src).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Fatalf("status %d, content type %q\n%s", w.Code, w.Header().Get("Content-Type"), w.Body)
	}
	return w.Body.String()
}

// families reads a scrape with Prometheus' own parser.
func families(t *testing.T, text string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	all, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return all
}

// values are the series of a metric that is no histogram, by the values of their labels in the
// order of the labels' names.
func values(f *dto.MetricFamily) map[string]float64 {
	all := map[string]float64{}
	for _, m := range f.GetMetric() {
		var key []string
		for _, l := range m.GetLabel() {
			key = append(key, l.GetValue())
		}
		all[strings.Join(key, " ")] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	return all
}

func number(t *testing.T, s string) kmp.Decimal {
	t.Helper()
	d, err := kmp.ParseDecimal(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// house is a bridge with a meter of which everything is known.
func house(t *testing.T) numbers {
	t.Helper()
	drift := int64(-75)
	at := time.Date(2026, 11, 21, 7, 45, 1, 0, time.UTC)
	return numbers{
		bridge: Bridge{
			Version: "1.2.3", Commit: "abc1234", Started: at.Add(-time.Hour), Connected: true,
			Queue: 3, Dropped: 7, Memory: 12 << 20, Stuck: []string{"/dev/ttyUSB1"},
		},
		meters: []Meter{{
			Name: "house", Title: "House, \"old\" part", Serial: "80123456", Model: "MULTICAL 403", Revision: "F1",
			Line: "/dev/ttyUSB0", Interval: 30 * time.Minute, Availability: "online",
			Values: []Value{
				{Register: "energy", Unit: "GJ", Value: number(t, "227.445"), Counter: true},
				{Register: "power", Unit: "kW", Value: number(t, "6.4")},
				{Register: "flow", Unit: "l/h", Value: nil, Why: "a sensor is broken"},
				{Register: "volume", Unit: "m³", Value: number(t, "2131.93"), Why: "it fell"},
				{Register: "supply_temperature", Unit: "°C", Value: number(t, "-0.05")},
				{Register: "info_bits", Value: kmp.Bits(520)},
				{Register: "date", Value: kmp.Date{Year: 2026, Month: 11, Day: 21}},
				{Register: "clock", Value: kmp.Clock{Hour: 7}},
				{Register: "customer_number", Value: kmp.Text("42")},
			},
			Info: []string{"leak", "air in the flow sensor"}, Reading: at, Next: at.Add(30*time.Minute + time.Millisecond),
			Condition: Condition{Code: diagnosis.Asleep}, Quality: 95, Rated: true,
			Today:  battery.Day{Reads: 15, Commands: 2, Frames: 60, Bytes: 2000, Awake: 30.5},
			Total:  battery.Day{Reads: 1500, Commands: 20, Frames: 6000, Bytes: 200000, Awake: 3050.125},
			Budget: 48, ReadsOK: 14, ReadsFailed: map[string]int{"no_reply": 2, "checksum": 1},
			Durations:      Histogram{Bounds: []float64{0.5, 1, 5}, Counts: []uint64{3, 10, 3, 1}, Sum: 21.25},
			ChecksumErrors: 4, ClockDrift: &drift,
		}},
	}
}

// What is served of one meter, to the letter.
func TestMetrics(t *testing.T) {
	got := strings.ReplaceAll(scraped(t, house(t)), fmt.Sprintf("goversion=%q", runtime.Version()), `goversion="go"`)
	got = regexp.MustCompile(`(?m)^kmp2mqtt_goroutines \d+$`).ReplaceAllString(got, "kmp2mqtt_goroutines 1")
	got = regexp.MustCompile(`(?m)^# HELP .*\n`).ReplaceAllString(got, "")
	want := `# TYPE kmp2mqtt_awake_seconds_total counter
kmp2mqtt_awake_seconds_total{meter="house"} 3050.125
# TYPE kmp2mqtt_broker_connected gauge
kmp2mqtt_broker_connected 1
# TYPE kmp2mqtt_budget_reads gauge
kmp2mqtt_budget_reads{meter="house"} 48
# TYPE kmp2mqtt_build_info gauge
kmp2mqtt_build_info{commit="abc1234",goversion="go",version="1.2.3"} 1
# TYPE kmp2mqtt_bytes_total counter
kmp2mqtt_bytes_total{meter="house"} 200000
# TYPE kmp2mqtt_checksum_errors_total counter
kmp2mqtt_checksum_errors_total{meter="house"} 4
# TYPE kmp2mqtt_clock_drift_seconds gauge
kmp2mqtt_clock_drift_seconds{meter="house"} -75
# TYPE kmp2mqtt_commands_today gauge
kmp2mqtt_commands_today{meter="house"} 2
# TYPE kmp2mqtt_dropped_messages_total counter
kmp2mqtt_dropped_messages_total 7
# TYPE kmp2mqtt_frames_total counter
kmp2mqtt_frames_total{meter="house"} 6000
# TYPE kmp2mqtt_goroutines gauge
kmp2mqtt_goroutines 1
# TYPE kmp2mqtt_last_reading_timestamp_seconds gauge
kmp2mqtt_last_reading_timestamp_seconds{meter="house"} 1.795247101e+09
# TYPE kmp2mqtt_link_quality_ratio gauge
kmp2mqtt_link_quality_ratio{meter="house"} 0.95
# TYPE kmp2mqtt_memory_bytes gauge
kmp2mqtt_memory_bytes 1.2582912e+07
# TYPE kmp2mqtt_meter_diagnosis gauge
kmp2mqtt_meter_diagnosis{code="asleep",meter="house"} 1
# TYPE kmp2mqtt_meter_info gauge
kmp2mqtt_meter_info{meter="house",model="MULTICAL 403",revision="F1",serial="80123456",title="House, \"old\" part"} 1
# TYPE kmp2mqtt_meter_messages gauge
kmp2mqtt_meter_messages{meter="house"} 2
# TYPE kmp2mqtt_meter_up gauge
kmp2mqtt_meter_up{meter="house"} 1
# TYPE kmp2mqtt_next_reading_timestamp_seconds gauge
kmp2mqtt_next_reading_timestamp_seconds{meter="house"} 1.795248901001e+09
# TYPE kmp2mqtt_queued_messages gauge
kmp2mqtt_queued_messages 3
# TYPE kmp2mqtt_read_duration_seconds histogram
kmp2mqtt_read_duration_seconds_bucket{meter="house",le="0.5"} 3
kmp2mqtt_read_duration_seconds_bucket{meter="house",le="1"} 13
kmp2mqtt_read_duration_seconds_bucket{meter="house",le="5"} 16
kmp2mqtt_read_duration_seconds_bucket{meter="house",le="+Inf"} 17
kmp2mqtt_read_duration_seconds_sum{meter="house"} 21.25
kmp2mqtt_read_duration_seconds_count{meter="house"} 17
# TYPE kmp2mqtt_read_interval_seconds gauge
kmp2mqtt_read_interval_seconds{meter="house"} 1800
# TYPE kmp2mqtt_reads_today gauge
kmp2mqtt_reads_today{meter="house"} 15
# TYPE kmp2mqtt_reads_total counter
kmp2mqtt_reads_total{meter="house",result="checksum"} 1
kmp2mqtt_reads_total{meter="house",result="no_reply"} 2
kmp2mqtt_reads_total{meter="house",result="ok"} 14
# TYPE kmp2mqtt_start_time_seconds gauge
kmp2mqtt_start_time_seconds 1.795243501e+09
# TYPE kmp2mqtt_stuck_lines gauge
kmp2mqtt_stuck_lines 1
# TYPE kmp_register gauge
kmp_register{meter="house",register="energy",serial="80123456",unit="GJ"} 227.445
kmp_register{meter="house",register="info_bits",serial="80123456",unit=""} 520
kmp_register{meter="house",register="power",serial="80123456",unit="kW"} 6.4
kmp_register{meter="house",register="supply_temperature",serial="80123456",unit="°C"} -0.05
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Every row of the table is served where everything is known, as what it says it is, and
// nothing else; Prometheus' linter has nothing to say about it.
func TestMetricsConventions(t *testing.T) {
	src := house(t)
	problems, err := testutil.CollectAndLint(newCollector(src))
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", err, problems)
	}
	all := families(t, scraped(t, src))
	for _, row := range metricTable() {
		f := all[row.name]
		if f == nil {
			t.Errorf("%s is not served", row.name)
			continue
		}
		if kind := strings.ToLower(f.GetType().String()); kind != row.kind || f.GetHelp() != row.help {
			t.Errorf("%s is a %s, %q", row.name, kind, f.GetHelp())
		}
		delete(all, row.name)
	}
	if len(all) > 0 {
		t.Errorf("not in the table: %v", all)
	}
}

// What is not known is absent, never 0.
func TestMetricsUnknown(t *testing.T) {
	src := numbers{meters: []Meter{{Name: "new", Title: "new", Interval: time.Minute, ReadsFailed: map[string]int{}}}}
	all := families(t, scraped(t, src))
	for name, want := range map[string]map[string]float64{
		"kmp_register":                            {},
		"kmp2mqtt_meter_up":                       {},
		"kmp2mqtt_meter_messages":                 {},
		"kmp2mqtt_link_quality_ratio":             {},
		"kmp2mqtt_last_reading_timestamp_seconds": {},
		"kmp2mqtt_next_reading_timestamp_seconds": {},
		"kmp2mqtt_budget_reads":                   {},
		"kmp2mqtt_clock_drift_seconds":            {},
		"kmp2mqtt_read_duration_seconds":          {},
		"kmp2mqtt_start_time_seconds":             {},
		"kmp2mqtt_meter_diagnosis":                {"not_read new": 1},
		"kmp2mqtt_reads_total":                    {"new ok": 0},
		"kmp2mqtt_read_interval_seconds":          {"new": 60},
	} {
		if diff := cmp.Diff(want, values(all[name])); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// A meter is read or not, and neither before it was tried.
func TestMetricsUp(t *testing.T) {
	for _, test := range []struct {
		availability string
		code         diagnosis.Code
		want         map[string]float64
	}{
		{"online", diagnosis.OK, map[string]float64{"a": 1}},
		{"online", diagnosis.Silent, map[string]float64{"a": 1}}, // the first failure
		{"offline", diagnosis.Silent, map[string]float64{"a": 0}},
		{"", diagnosis.PortMissing, map[string]float64{"a": 0}}, // it is to be named by its serial number
		{"", diagnosis.NotRead, map[string]float64{}},
		{"", "", map[string]float64{}},
	} {
		all := families(t, scraped(t, numbers{meters: []Meter{{Name: "a", Availability: test.availability, Condition: Condition{Code: test.code}}}}))
		if diff := cmp.Diff(test.want, values(all["kmp2mqtt_meter_up"])); diff != "" {
			t.Errorf("%q, %q: %s", test.availability, test.code, diff)
		}
	}
}

// Where a meter is connected is not told, not even where that is all it is known by.
func TestMetricsLine(t *testing.T) {
	text := scraped(t, numbers{meters: []Meter{{Title: "tcp://192.0.2.7:2001", Line: "tcp://192.0.2.7:2001"}}})
	if !strings.Contains(text, `title=""`) || strings.Contains(text, "192.0.2.7") {
		t.Error(text)
	}
}

// However the bridge contradicts itself, the scrape succeeds, and what makes sense is in it.
func TestMetricsInconsistent(t *testing.T) {
	one := number(t, "1")
	huge := number(t, "1"+strings.Repeat("0", 60))
	for range 5 {
		var err error
		if huge, err = huge.Shift(60); err != nil {
			break // as large as they come
		}
	}
	for _, test := range []struct {
		name   string
		meters []Meter
		metric string
		want   map[string]float64
	}{
		{
			"meters that have no name yet",
			[]Meter{{Interval: time.Second}, {Name: "a", Interval: 2 * time.Second}, {Interval: 3 * time.Second}},
			"kmp2mqtt_read_interval_seconds",
			map[string]float64{"#1": 1, "a": 2, "#3": 3},
		},
		{
			"two of one name",
			[]Meter{{Name: "a", Interval: time.Second}, {Name: "a", Interval: 2 * time.Second}},
			"kmp2mqtt_read_interval_seconds",
			map[string]float64{"a": 1, "#2": 2},
		},
		{
			"two of one serial number",
			[]Meter{
				{Name: "a", Serial: "7", Values: []Value{{Register: "power", Unit: "kW", Value: one}}},
				{Name: "b", Serial: "7", Values: []Value{{Register: "power", Unit: "kW", Value: one}}},
			},
			"kmp_register",
			map[string]float64{"a power 7 kW": 1, "b power 7 kW": 1},
		},
		{
			"one value twice",
			[]Meter{{Name: "a", Values: []Value{{Register: "x", Value: one}, {Register: "x", Value: huge}, {Register: "x", Unit: "h", Value: one}}}},
			"kmp_register",
			map[string]float64{"a x  ": 1, "a x  h": 1},
		},
		{
			"a reason that is called ok",
			[]Meter{{Name: "a", ReadsOK: 3, ReadsFailed: map[string]int{"ok": 1}}},
			"kmp2mqtt_reads_total",
			map[string]float64{"a ok": 3},
		},
		{
			"a serial number that is none",
			[]Meter{{Name: "a", Serial: "1\"} 5", Values: []Value{{Register: "x", Value: one}}}},
			"kmp_register",
			map[string]float64{"a x  ": 1},
		},
		{
			"texts that are none",
			[]Meter{{Name: "a\xff\"\n\\", ReadsFailed: map[string]int{"\n# TYPE x counter\nx 1\n": 1}}},
			"kmp2mqtt_reads_total",
			map[string]float64{"a�\"\n\\ ok": 0, "a�\"\n\\ \n# TYPE x counter\nx 1\n": 1},
		},
		{
			"names that differ in what is no text",
			[]Meter{{Name: "\xfe", Interval: time.Second}, {Name: "\xff", Interval: 2 * time.Second}},
			"kmp2mqtt_read_interval_seconds",
			map[string]float64{"�": 1, "#2": 2},
		},
		{
			"a name as of those that have none",
			[]Meter{{Name: "#2", Interval: time.Second}, {Interval: 2 * time.Second}},
			"kmp2mqtt_read_interval_seconds",
			map[string]float64{"#1": 1, "#2": 2},
		},
		{
			"a time that is no number",
			[]Meter{{Name: "a", Total: battery.Day{Awake: math.NaN()}}, {Name: "b", Total: battery.Day{Awake: math.Inf(1)}}},
			"kmp2mqtt_awake_seconds_total",
			map[string]float64{},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := families(t, scraped(t, numbers{meters: test.meters}))
			if diff := cmp.Diff(test.want, values(all[test.metric])); diff != "" {
				t.Error(diff)
			}
			if got := len(all["kmp2mqtt_meter_diagnosis"].GetMetric()); got != len(test.meters) {
				t.Errorf("%d meters, want %d", got, len(test.meters))
			}
		})
	}
}

// Durations that contradict themselves are left out; the others are there.
func TestMetricsDurations(t *testing.T) {
	for _, h := range []Histogram{
		{},
		{Bounds: []float64{1}, Counts: []uint64{1}},
		{Counts: []uint64{1, 2}},
		{Bounds: []float64{2, 1}, Counts: []uint64{1, 1, 1}},
		{Bounds: []float64{1, 1}, Counts: []uint64{1, 1, 1}},
		{Bounds: []float64{math.NaN()}, Counts: []uint64{1, 1}},
		{Bounds: []float64{1, math.Inf(1)}, Counts: []uint64{1, 1, 1}},
	} {
		good := Histogram{Bounds: []float64{1}, Counts: []uint64{1, 2}, Sum: 7}
		all := families(t, scraped(t, numbers{meters: []Meter{{Name: "bad", Durations: h}, {Name: "good", Durations: good}}}))
		got := all["kmp2mqtt_read_duration_seconds"].GetMetric()
		if len(got) != 1 || got[0].GetLabel()[0].GetValue() != "good" || got[0].GetHistogram().GetSampleCount() != 3 || got[0].GetHistogram().GetSampleSum() != 7 {
			t.Errorf("%v: %v", h, got)
		}
	}
}

// stalled is a bridge that does not answer before it is let go.
type stalled struct {
	numbers
	release chan struct{}
}

func (s stalled) Meters() []Meter {
	<-s.release
	return s.numbers.Meters()
}

// Whatever holds a scrape up, only some wait for it, and no longer than they must.
func TestMetricsBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := stalled{house(t), make(chan struct{})}
		handler := metrics(src)
		scrape := func() *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			return w
		}
		begin := time.Now()
		answers := make(chan *httptest.ResponseRecorder, maxScrapes)
		for range maxScrapes {
			go func() { answers <- scrape() }()
		}
		synctest.Wait()
		if w := scrape(); w.Code != http.StatusServiceUnavailable || time.Since(begin) != 0 {
			t.Errorf("one too many: status %d after %v", w.Code, time.Since(begin))
		}
		for range maxScrapes {
			if w := <-answers; w.Code != http.StatusServiceUnavailable || time.Since(begin) != scrapeTime {
				t.Errorf("status %d after %v", w.Code, time.Since(begin))
			}
		}
		close(src.release)
		synctest.Wait()
		if w := scrape(); w.Code != http.StatusOK {
			t.Errorf("afterwards: status %d", w.Code)
		}
	})
}

// Whatever texts and numbers come from meters and settings, Prometheus can read the scrape and
// finds them in it.
func FuzzMetrics(f *testing.F) {
	f.Add("house", "80123456", "energy", "GJ", "no_reply", "1.5", 0.5)
	f.Add("", "", "", "", "", "-0", math.Inf(-1))
	f.Add("a\"b\\c\n", "12a", "ü\xff", "m³\r", "# HELP x\nx 1", "99999999999999999999", math.NaN())
	f.Fuzz(func(t *testing.T, name, serial, register, unit, reason, value string, bound float64) {
		d, err := kmp.ParseDecimal(value)
		if err != nil {
			d = kmp.Decimal{}
		}
		all := families(t, scraped(t, numbers{meters: []Meter{
			{
				Name: name, Serial: serial, Title: name, Model: unit, Revision: register, Values: []Value{{Register: register, Unit: unit, Value: d}},
				ReadsFailed: map[string]int{reason: 1}, Durations: Histogram{Bounds: []float64{bound}, Counts: []uint64{1, 1}},
				Condition: Condition{Code: diagnosis.Code(reason)},
			},
			{Name: name, Serial: serial},
		}}))
		if n := len(all["kmp2mqtt_meter_info"].GetMetric()); n != 2 {
			t.Errorf("%d meters", n)
		}
		if got := all["kmp_register"].GetMetric(); len(got) != 1 || got[0].GetGauge().GetValue() != d.Float64() {
			if !math.IsInf(d.Float64(), 0) {
				t.Errorf("%v, want %v", got, d)
			}
		}
	})
}

// The table of what is served.
func TestMetricsPage(t *testing.T) {
	b := []byte("| metric | type | labels | what it is |\n|---|---|---|---|\n")
	for _, row := range newCollector(numbers{}).table {
		labels := make([]string, 0, len(row.labels))
		for _, l := range row.labels {
			labels = append(labels, "`"+l+"`")
		}
		b = fmt.Appendf(b, "| `%s` | %s | %s | %s |\n", row.name, row.kind, strings.Join(labels, ", "), row.help)
	}
	monitoringPage(t, "metrics", b)
}

// The table of alerts.
func TestAlertsPage(t *testing.T) {
	file, err := os.ReadFile(filepath.FromSlash("../../deploy/prometheus/rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert       string
				For         string
				Labels      struct{ Severity string }
				Annotations struct{ Summary, Description string }
			}
		}
	}
	if err := yaml.Unmarshal(file, &rules); err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(` ?\{\{ *\$labels.instance *\}\}`)
	b := []byte("| alert | severity | after | what it says |\n|---|---|---|---|\n")
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			summary := strings.ReplaceAll(names.ReplaceAllString(r.Annotations.Summary, " ..."), "{{ $labels.meter }}", "...")
			after := compare.Or(r.For, "at once")
			b = fmt.Appendf(b, "| `%s` | %s | %s | %s |\n", r.Alert, r.Labels.Severity, after, summary)
		}
	}
	monitoringPage(t, "alerts", b)
}

// monitoringPage compares a part of docs/monitoring.md with what the code says, or writes it.
func monitoringPage(t *testing.T, part string, want []byte) {
	t.Helper()
	path := filepath.FromSlash("../../docs/monitoring.md")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := []byte("<!-- "+part+":begin -->\n"), []byte("<!-- "+part+":end -->")
	head, rest, found := bytes.Cut(page, begin)
	was, tail, closed := bytes.Cut(rest, end)
	switch {
	case !found || !closed:
		t.Fatalf("%s lacks the markers %q and %q", path, begin, end)
	case bytes.Equal(was, want):
	case !*update:
		t.Fatalf("%s differs from the code; run go test ./bridge/web -update\n%s", path, cmp.Diff(string(want), string(was)))
	default:
		if err := os.WriteFile(path, slices.Concat(head, begin, want, end, tail), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// dashboard is what of docs/grafana-dashboard.json is looked at.
type dashboard struct {
	Title         string
	UID           string
	SchemaVersion int
	Templating    struct {
		List []struct {
			Name, Type string
			Definition string
		}
	}
	Panels []panel
}

type panel struct {
	ID         int
	Type       string
	Title      string
	GridPos    struct{ X, Y, W, H int }
	Datasource struct{ Type, UID string }
	Targets    []struct {
		RefID      string
		Expr       string
		Datasource struct{ Type, UID string }
	}
}

// The dashboard fits Grafana 10 and this program: its panels do not overlap, ask the data source
// of whoever imports it, and name only metrics, labels and registers that there are.
// (That Prometheus understands the expressions is for test/metrics_test.go to show.)
func TestDashboard(t *testing.T) {
	file, err := os.ReadFile(filepath.FromSlash("../../docs/grafana-dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(file, &d); err != nil {
		t.Fatal(err)
	}
	if d.SchemaVersion < 38 || d.Title == "" || d.UID == "" {
		t.Errorf("schema %d, title %q, uid %q", d.SchemaVersion, d.Title, d.UID)
	}
	var variables []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name+" "+v.Type)
		if v.Type == "query" {
			checkNames(t, "variable "+v.Name, v.Definition)
		}
	}
	if !slices.Equal(variables, []string{"datasource datasource", "meter query"}) {
		t.Errorf("variables %q", variables)
	}
	ids := map[int]bool{}
	for i, p := range d.Panels {
		g := p.GridPos
		if g.X < 0 || g.Y < 0 || g.W < 1 || g.H < 1 || g.X+g.W > 24 || ids[p.ID] || p.Title == "" {
			t.Errorf("panel %d %q is at %+v", p.ID, p.Title, g)
		}
		ids[p.ID] = true
		for _, o := range d.Panels[:i] {
			if h := o.GridPos; g.X < h.X+h.W && h.X < g.X+g.W && g.Y < h.Y+h.H && h.Y < g.Y+g.H {
				t.Errorf("panels %q and %q overlap", o.Title, p.Title)
			}
		}
		if p.Type == "row" {
			continue
		}
		if len(p.Targets) == 0 || p.Datasource.UID != "${datasource}" || p.Datasource.Type != "prometheus" {
			t.Errorf("panel %q asks %d times of %+v", p.Title, len(p.Targets), p.Datasource)
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if target.Expr == "" || target.Datasource != p.Datasource || refs[target.RefID] {
				t.Errorf("panel %q asks %+v", p.Title, target)
			}
			refs[target.RefID] = true
			checkNames(t, "panel "+p.Title, target.Expr)
		}
	}
}

// The alerts name only what is served, too. (What they do is for promtool to show.)
func TestAlertNames(t *testing.T) {
	file, err := os.ReadFile(filepath.FromSlash("../../deploy/prometheus/rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	checkNames(t, "alerts", string(file))
}

// checkNames finds the metrics in a text, and the registers and diagnoses that are asked for.
func checkNames(t *testing.T, where, text string) {
	t.Helper()
	known := map[string]bool{}
	for _, row := range metricTable() {
		known[row.name] = true
		if row.kind == "histogram" {
			known[row.name+"_bucket"], known[row.name+"_sum"], known[row.name+"_count"] = true, true, true
		}
	}
	found := 0
	for _, name := range regexp.MustCompile(`\bkmp(2mqtt)?_\w+`).FindAllString(text, -1) {
		found++
		if !known[name] {
			t.Errorf("%s: there is no %s", where, name)
		}
	}
	if found == 0 {
		t.Errorf("%s names no metric", where)
	}
	for _, m := range regexp.MustCompile(`\bregister=~?"([^"]*)"`).FindAllStringSubmatch(text, -1) {
		for name := range strings.SplitSeq(m[1], "|") {
			if _, ok := catalog.ByName(name); !ok && !slices.Contains([]string{"energy_fine", "power_calculated"}, name) {
				t.Errorf("%s: there is no register %q", where, name)
			}
		}
	}
	for _, m := range regexp.MustCompile(`\bcode!?=~?"([^"]*)"`).FindAllStringSubmatch(text, -1) {
		for code := range strings.SplitSeq(m[1], "|") {
			if !slices.ContainsFunc(diagnosis.Classes(), func(c diagnosis.Class) bool { return string(c.Code) == code }) {
				t.Errorf("%s: there is no diagnosis %q", where, code)
			}
		}
	}
}
