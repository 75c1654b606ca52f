//go:build e2e

package test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// measured runs a bridge with a meter that answers and one that is not there, and returns
// where its numbers are, once both were tried.
func measured(t *testing.T) (p *process, port int, settings []string) {
	t.Helper()
	broker, port := freePort(t), freePort(t)
	settings = []string{
		"METERS=house=" + still("7").line() + "&budget=5000 shed=tcp://" + address(freePort(t)) + "?interval=1h",
		"MQTT_LISTEN=" + address(broker), "READ_INTERVAL=1s",
		"HTTP_LISTEN=" + address(port), "HTTP_USERNAME=prometheus", "HTTP_PASSWORD=s3cret",
	}
	p = bridge(t, settings...)
	listens(t, port, p)
	eventually(t, "both meters were tried", func() bool {
		status, text := get(t, port, "prometheus:s3cret", "/metrics")
		return status == http.StatusOK && strings.Contains(text, `register="energy",`) &&
			strings.Contains(text, `kmp2mqtt_meter_up{meter="shed"} 0`)
	})
	return p, port, settings
}

// get asks the bridge's page as a user, "name:password".
func get(t *testing.T, port int, user, path string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address(port)+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if name, password, ok := strings.Cut(user, ":"); ok {
		req.SetBasicAuth(name, password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// promtool runs Prometheus' own tool. It complains on both of its outputs.
func promtool(t *testing.T, stdin, dir string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "promtool", args...)
	cmd.Stdin, cmd.Dir = strings.NewReader(stdin), dir
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(stdin, "# HELP") && len(out) > 0 { // warnings of the linter
		t.Fatalf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// prometheus runs Prometheus on data with a configuration, and returns its port.
func prometheus(t *testing.T, data, config string) int {
	t.Helper()
	port := freePort(t)
	p := start(t, nil, "prometheus", "--config.file="+file(t, config), "--storage.tsdb.path="+data, "--web.listen-address="+address(port),
		"--storage.tsdb.retention.time=10y", "--log.level=warn")
	eventually(t, "prometheus is ready", func() bool {
		if !p.running() {
			t.Fatal("prometheus has ended")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address(port)+"/-/ready", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return port
}

// series is one series of an answer of Prometheus.
type series struct {
	Metric map[string]string
	Value  [2]any // time, and value as text
	Values [][2]any
}

// number is the value of an instant query's series.
func (s series) number(t *testing.T) float64 {
	t.Helper()
	text, ok := s.Value[1].(string)
	v, err := strconv.ParseFloat(text, 64)
	if !ok || err != nil {
		t.Fatalf("%v: %v", s, err)
	}
	return v
}

// query asks Prometheus' API; what it does not understand fails the test.
func query(t *testing.T, port int, path string, parameters url.Values, result any) {
	t.Helper()
	status, body := get(t, port, "", path+"?"+parameters.Encode())
	answer := struct {
		Status string
		Error  string
		Data   any
	}{Data: result}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Status != "success" {
		t.Fatalf("%s %v: status %d: %v %s", path, parameters, status, err, body)
	}
}

// instant is what an expression is at a moment; zero: now.
func instant(t *testing.T, port int, expr string, at time.Time) []series {
	t.Helper()
	parameters := url.Values{"query": {expr}}
	if !at.IsZero() {
		parameters.Set("time", fmt.Sprint(at.Unix()))
	}
	var data struct{ Result []series }
	query(t, port, "/api/v1/query", parameters, &data)
	return data.Result
}

// A real Prometheus scrapes the real program with a password, has nothing to say against its
// numbers, finds the meter's values in them, and knows the alerts.
func TestMetrics(t *testing.T) {
	t.Parallel()
	_, port, settings := measured(t)
	for _, user := range []string{"", "prometheus:", "prometheus:wrong", "other:s3cret"} {
		if status, body := get(t, port, user, "/metrics"); status != http.StatusUnauthorized || strings.Contains(body, "kmp") {
			t.Errorf("%q: status %d\n%s", user, status, body)
		}
	}
	status, text := get(t, port, "prometheus:s3cret", "/metrics")
	if status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	promtool(t, text, "", "check", "metrics")

	rules, err := filepath.Abs("../deploy/prometheus/rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	server := prometheus(t, t.TempDir(), fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: kmp2mqtt
    basic_auth: {username: prometheus, password: s3cret}
    static_configs: [{targets: [%q]}]
`, rules, address(port)))
	eventually(t, "prometheus has scraped", func() bool { return len(instant(t, server, `up{job="kmp2mqtt"} == 1`, time.Time{})) == 1 })

	// The values are those on MQTT, register by register.
	_, broker, _ := strings.Cut(settings[1], ":")
	brokerPort, err := strconv.Atoi(broker)
	if err != nil {
		t.Fatal(err)
	}
	live := subscribe(t, clientOptions(brokerPort), "kmp2mqtt/house")
	var state map[string]any
	if err := json.Unmarshal([]byte(live.any("kmp2mqtt/house").Payload), &state); err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, s := range instant(t, server, `kmp_register{meter="house"}`, time.Time{}) {
		got[s.Metric["register"]] = s.number(t)
		if s.Metric["serial"] != "80123456" {
			t.Errorf("serial number %q", s.Metric["serial"])
		}
	}
	suffix := map[string]string{"energy": "_gj", "power": "_kw", "flow": "_l_h", "volume": "_m3", "supply_temperature": "_c", "temperature_difference": "_k", "info_code": "", "operating_hours": "_h"}
	for register, unit := range suffix {
		if want, ok := state[register+unit].(float64); !ok || got[register] != want {
			t.Errorf("%s is %v, want %v", register, got[register], state[register+unit])
		}
	}
	if _, ok := got["max_flow_year_date"]; ok || len(got) < 20 {
		t.Errorf("%d registers: %v", len(got), slices.Sorted(maps.Keys(got)))
	}

	for expr, want := range map[string]float64{
		`kmp2mqtt_meter_up{meter="house"}`:                                  1,
		`kmp2mqtt_meter_up{meter="shed"}`:                                   0,
		`kmp2mqtt_meter_diagnosis{meter="house",code="ok"}`:                 1,
		`kmp2mqtt_meter_diagnosis{meter="shed",code="connection_refused"}`:  1,
		`kmp2mqtt_reads_total{meter="shed",result="line_closed"} >= bool 1`: 1,
		`kmp2mqtt_read_duration_seconds_count{meter="house"} >= bool 1`:     1,
		`kmp2mqtt_frames_total{meter="house"} >= bool 1`:                    1,
		`kmp2mqtt_awake_seconds_total{meter="house"} >= bool 0`:             1,
		`kmp2mqtt_read_interval_seconds{meter="shed"}`:                      3600,
		`kmp2mqtt_broker_connected`:                                         1,
		`kmp2mqtt_stuck_lines`:                                              0,
		`time() - kmp2mqtt_start_time_seconds < bool 600`:                   1,
	} {
		if s := instant(t, server, expr, time.Time{}); len(s) != 1 || s[0].number(t) != want {
			t.Errorf("%s is %v, want %v", expr, s, want)
		}
	}

	// All alerts work on what is really there; one is about to be raised.
	eventually(t, "the alert for the meter that is not there is pending", func() bool {
		var data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError, State string }
			}
		}
		query(t, server, "/api/v1/rules", nil, &data)
		pending := false
		for _, r := range data.Groups[0].Rules {
			if r.Health == "err" {
				t.Fatalf("%s: %s", r.Name, r.LastError)
			}
			pending = pending || r.Name == "MeterOffline" && r.State == "pending"
		}
		return pending
	})
}

// promtool finds the alerts' rules right, and that they fire when rules_test.yml says.
func TestAlerts(t *testing.T) {
	t.Parallel()
	dir := "../deploy/prometheus"
	promtool(t, "", dir, "check", "rules", "rules.yml")
	promtool(t, "", dir, "test", "rules", "rules_test.yml")
}

// dashboardQuery is an expression of docs/grafana-dashboard.json.
type dashboardQuery struct{ panel, expr string }

// dashboardQueries are the expressions, as Grafana sends them with all meters chosen.
func dashboardQueries(t *testing.T) (queries []dashboardQuery) {
	t.Helper()
	content, err := os.ReadFile("../docs/grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(content, &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			expr := strings.ReplaceAll(target.Expr, "$meter", ".*")
			if strings.Contains(expr, "$") {
				t.Fatalf("%s: %s has a variable that is not known here", p.Title, expr)
			}
			queries = append(queries, dashboardQuery{p.Title, expr})
		}
	}
	return queries
}

// sample is a line of Prometheus' text format: name, labels, value.
var sample = regexp.MustCompile(`(?m)^([a-z0-9_]+)(?:\{(.*)\})? (\S+)$`)

const (
	pastStep = 4 * time.Minute // less than the 5 minutes for which Prometheus takes a value as true
	pastSpan = 50 * time.Hour
)

// past is what the program would have said in the past, in the format of OpenMetrics: energy rose
// by 0.01 of its unit in each step and its finer counter by 0.001, what is counted rose by 1, and
// other values were what they are in a scrape.
func past(t *testing.T, scrape string, now time.Time) string {
	t.Helper()
	counted := regexp.MustCompile(`_(total|count|sum|bucket)$`)
	energy := regexp.MustCompile(`register="(energy|active_energy_import|volume)"`)
	var b strings.Builder
	for _, m := range sample.FindAllStringSubmatch(scrape, -1) {
		name, labels := m[1], strings.TrimSuffix(`job="kmp2mqtt",instance="here",`+m[2], ",")
		value, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			t.Fatal(err)
		}
		rise := 0.0
		switch {
		case counted.MatchString(name):
			rise = 1
		case energy.MatchString(labels):
			rise = 0.01
		case strings.Contains(labels, `register="energy_fine"`):
			rise = 0.001
		}
		n := int(pastSpan / pastStep)
		for i := range n + 1 {
			at := now.Add(-pastStep * time.Duration(n-i))
			fmt.Fprintf(&b, "%s{%s} %g %d\n", name, labels, value+rise*float64(i), at.Unix())
		}
	}
	b.WriteString("# EOF\n")
	return b.String()
}

// Every panel of the dashboard shows something where the program has run for some days, and
// energy in watt hours whatever the meter counts in. The days before are made of what the program
// says now, and given to a real Prometheus.
func TestDashboard(t *testing.T) {
	t.Parallel()
	_, port, _ := measured(t)
	_, text := get(t, port, "prometheus:s3cret", "/metrics")
	text += "kmp2mqtt_clock_drift_seconds{meter=\"house\"} -75\n" // known to those who read the meter's log
	hour := map[string]float64{"house": 15 * 0.001 * 1e6 / 3.6}   // watt hours; it is the finer counter that is shown
	for unit, wh := range map[string]float64{"Wh": 1, "kWh": 1e3, "MWh": 1e6, "MJ": 1e3 / 3.6, "GJ": 1e6 / 3.6, "Gcal": 1.163e6} {
		text += fmt.Sprintf("kmp_register{meter=%q,serial=\"1\",register=\"energy\",unit=%q} 5\n", "in-"+unit, unit)
		hour["in-"+unit] = 15 * 0.01 * wh
	}
	text += `kmp_register{meter="grid",serial="1",register="active_energy_import",unit="kWh"} 5` + "\n"
	hour["grid"] = 15 * 0.01 * 1e3

	data, now := t.TempDir(), time.Now().Truncate(time.Hour)
	promtool(t, "", "", "tsdb", "create-blocks-from", "--max-block-duration=100h", "openmetrics", file(t, past(t, text, now)), data)
	server := prometheus(t, data, "")
	for _, q := range dashboardQueries(t) {
		found := instant(t, server, q.expr, now)
		if len(found) == 0 {
			t.Errorf("%s: nothing is found by %s", q.panel, q.expr)
		}
		span, ok := map[string]float64{"Energy per hour": 1, "Energy per day": 24, "Energy in the last 24 hours": 24}[q.panel]
		if !ok {
			continue
		}
		got := map[string]float64{}
		for _, s := range found {
			got[s.Metric["meter"]] = s.number(t)
		}
		for meter, wh := range hour {
			if math.Abs(got[meter]/(wh*span)-1) > 1e-6 {
				t.Errorf("%s: %s has %v Wh, want %v", q.panel, meter, got[meter], wh*span)
			}
		}
		if len(got) != len(hour) {
			t.Errorf("%s: %v", q.panel, got)
		}
	}
}
