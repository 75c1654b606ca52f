//go:build e2e

package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"kmp2mqtt/bridge/statistics/hatest"
)

// imported is how long an import may take: the bridge waits up to a minute before it looks for Home Assistant again.
const imported = 3 * time.Minute

// home is a Home Assistant with statistics of a meter's energy and volume.
type home struct {
	*hatest.Server

	t      *testing.T
	port   int
	token  string
	server *http.Server

	mu  sync.Mutex
	own map[string][]hatest.Row // what it counted itself, by statistic
}

// countedSensors are the sensors of energy and volume that Home Assistant has of a meter, by the member of the state.
var countedSensors = map[string]hatest.Statistic{
	"energy_gj": {ID: "sensor.house_energy", Unit: "GJ", DisplayUnit: "MWh", UnitClass: "energy"},
	"volume_m3": {ID: "sensor.house_volume", Unit: "m³", UnitClass: "volume"},
}

// newHome returns a Home Assistant that knows a meter's sensors, and listens when it is opened.
func newHome(t *testing.T, serial string) *home {
	t.Helper()
	h := &home{Server: hatest.New("a-long-lived-token"), t: t, port: freePort(t), token: "a-long-lived-token", own: make(map[string][]hatest.Row)}
	for _, s := range countedSensors {
		h.SetStatistic(s)
	}
	h.SetEntities(
		hatest.Entity{ID: "sensor.house_energy", UniqueID: "kmp_" + serial + "_energy"},
		hatest.Entity{ID: "sensor.house_volume", UniqueID: "kmp_" + serial + "_volume"},
	)
	t.Cleanup(h.close)
	return h
}

// open lets it be reached.
func (h *home) open() {
	h.t.Helper()
	l, err := net.Listen("tcp", address(h.port)) //nolint:noctx // returns at once
	if err != nil {
		h.t.Fatal(err)
	}
	h.server = &http.Server{Handler: h.Server, ReadHeaderTimeout: patience}
	go h.server.Serve(l) //nolint:errcheck // it ends with close
}

// close ends it, with all connections.
func (h *home) close() {
	if h.server != nil {
		h.server.Close()
	}
	h.Hangup()
}

// settings are those of a bridge that uses it.
func (h *home) settings() []string {
	return []string{"HA_URL=http://" + address(h.port), "HA_TOKEN=" + h.token}
}

// count makes it have the rows that it had counted itself if it had seen the meter at the ends of these hours.
func (h *home) count(rows ...row) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range rows {
		hour := r.stamp().Add(-time.Hour).UTC()
		for key, s := range countedSensors {
			if find(h.Rows(s.ID), hour) != nil {
				continue
			}
			h.Count(s.ID, hour, r[key])
			h.own[s.ID] = append(h.own[s.ID], *find(h.Rows(s.ID), hour))
		}
	}
}

// has says whether it shows the hours that end with these rows.
func (h *home) has(rows []row) bool {
	for _, s := range countedSensors {
		there := h.Rows(s.ID)
		if slices.ContainsFunc(rows, func(r row) bool { return find(there, r.stamp().Add(-time.Hour)) == nil }) {
			return false
		}
	}
	return true
}

// settled are the hours that an import does not leave to Home Assistant itself: not the newest one.
func (l meterLogs) settled() []row { return l.hours[:len(l.hours)-1] }

// find is the row of an hour, nil when there is none.
func find(rows []hatest.Row, hour time.Time) *hatest.Row {
	i := slices.IndexFunc(rows, func(r hatest.Row) bool { return r.Start.Equal(hour) })
	if i < 0 {
		return nil
	}
	return &rows[i]
}

// check looks at all statistics: what it had counted itself is as it was, the hours that end with these rows have the
// meter's values, and from its first row to the last the sums grow exactly as the values do.
func (h *home) check(t *testing.T, rows []row) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, s := range countedSensors {
		checkStatistic(t, s.ID, h.Rows(s.ID), key, rows)
		there := h.Rows(s.ID)
		for _, own := range h.own[s.ID] {
			if now := find(there, own.Start); now == nil || *now != own {
				t.Errorf("%s: Home Assistant's own row %v became %v", s.ID, own, now)
			}
		}
		meta, ok := h.Statistic(s.ID)
		if !ok || meta.Unit != s.Unit || meta.UnitClass != s.UnitClass || meta.Source != "recorder" {
			t.Errorf("%s: %+v", s.ID, meta)
		}
	}
}

func checkStatistic(t *testing.T, id string, there []hatest.Row, key string, rows []row) {
	t.Helper()
	for _, r := range rows {
		hour := r.stamp().Add(-time.Hour)
		if got := find(there, hour); got == nil || number(t, got.State).Cmp(number(t, r[key])) != 0 {
			t.Fatalf("%s: the hour from %v is %v, the meter showed %s at its end", id, hour, got, r[key])
		}
	}
	for i := range len(there) - 1 {
		grown := func(text func(hatest.Row) string) *big.Rat {
			return new(big.Rat).Sub(number(t, text(there[i+1])), number(t, text(there[i])))
		}
		states := grown(func(r hatest.Row) string { return r.State })
		sums := grown(func(r hatest.Row) string { return r.Sum })
		if states.Cmp(sums) != 0 || sums.Sign() < 0 {
			t.Fatalf("%s: a step between %v and %v", id, there[i], there[i+1])
		}
	}
}

// checkSensors checks that the sensors with the unique ids that a Home Assistant knows are those that the bridge has
// announced, with the values that are held against each other here.
func checkSensors(t *testing.T, live *subscriber, serial string) {
	t.Helper()
	var device struct {
		Components map[string]struct {
			UniqueID   string `json:"unique_id"`
			Template   string `json:"value_template"`
			Unit       string `json:"unit_of_measurement"`
			StateClass string `json:"state_class"`
		}
	}
	config := live.any("homeassistant/device/kmp_" + serial + "/config").Payload
	if err := json.Unmarshal([]byte(config), &device); err != nil {
		t.Fatal(err)
	}
	for key, s := range countedSensors {
		_, name, _ := strings.Cut(s.ID, ".house_")
		member := regexp.MustCompile(`\b` + key + `\b`)
		found := false
		for _, c := range device.Components {
			if c.UniqueID == "kmp_"+serial+"_"+name {
				found = true
				if !member.MatchString(c.Template) || c.Unit != s.Unit || !strings.HasPrefix(c.StateClass, "total") {
					t.Errorf("%s is announced as %+v", s.ID, c)
				}
			}
		}
		if !found {
			t.Errorf("nothing is announced as %s", s.ID)
		}
	}
}

// TestStatisticsGap starts a bridge beside a Home Assistant that knows the meter, but not two of its days. They are
// imported; a new start changes nothing, nor does a lost file.
func TestStatisticsGap(t *testing.T) {
	t.Parallel()
	_, line := simulate(t, "-log-depth=72", "-serial=601")
	truth := logsOf(t, line)
	h := newHome(t, "601")
	h.count(truth.hours[:12]...)
	h.count(truth.hours[60:]...)
	h.open()
	b := mosquitto(t, open)
	live := subscribe(t, b.client())
	data := filepath.Join(t.TempDir(), "data")
	settings := append(h.settings(), "METERS=house="+utc(line)+unlimited, "DATA_DIR="+data, "MQTT_URL="+b.url())
	p := bridge(t, settings...)
	_, days := truth.as(t, nil)
	within(t, imported, "the two days are there, and the days before the hours", func() bool { return h.has(truth.hours) && h.has(days) })
	h.check(t, slices.Concat(days, truth.hours))
	checkSensors(t, live, "601")
	before := map[string][]hatest.Row{}
	for _, s := range countedSensors {
		before[s.ID] = h.Rows(s.ID)
	}
	stopped(t, p, syscall.SIGTERM)

	sameStatistics := func() {
		t.Helper()
		for id, rows := range before {
			if now := h.Rows(id); !slices.Equal(now[:min(len(now), len(rows))], rows) {
				t.Errorf("%s has changed", id)
			}
		}
	}
	p = bridge(t, settings...)
	within(t, imported, "it has published", func() bool { return len(live.all("kmp2mqtt/house")) > 1 })
	stopped(t, p, syscall.SIGTERM)
	sameStatistics()
	h.Calls()
	bridge(t, append(settings, "DATA_DIR="+t.TempDir())...) // the last one counts
	var calls []string
	within(t, imported, "it has asked for what is there", func() bool {
		for _, c := range h.Calls() {
			calls = append(calls, c.Command)
		}
		return slices.Contains(calls, "recorder/statistics_during_period") && h.Connections() == 0
	})
	sameStatistics()
	if slices.Contains(calls, "recorder/import_statistics") {
		t.Error("what is there is imported again")
	}
}

// TestStatisticsUnplugged unplugs the line for two days of the meter's life and plugs it back in. The missing hours
// arrive in order, are in the export while the bridge runs, and Home Assistant, which had gone on without them, shows
// them without a step.
func TestStatisticsUnplugged(t *testing.T) {
	t.Parallel()
	const speed = 7200 // two days are 24 s
	begin := time.Now().UTC().Add(-60 * 24 * time.Hour).Truncate(time.Hour).Add(time.Minute)
	_, direct := simulate(t, "-empty-logs", fmt.Sprint("-speed=", speed), "-start="+begin.Format(time.RFC3339), "-serial=602")
	socket, line := newProxy(t, direct)
	h := newHome(t, "602")

	// Home Assistant counts each hour at whose end the line is plugged in, before anybody asks it for its rows.
	var mu sync.Mutex
	var unplugged, plugged time.Time // by the meter's clock
	counts := func(r row) bool {
		mu.Lock()
		defer mu.Unlock()
		at := r.stamp()
		return unplugged.IsZero() || !at.After(unplugged) || !plugged.IsZero() && at.After(plugged)
	}
	count := func(ctx context.Context) error {
		said, err := runTool(ctx, "log", utc(direct), "hour", "-json", "-registers", kept403)
		if err == nil && said.status != 0 {
			err = errors.New(said.log)
		}
		if err != nil {
			return err
		}
		for line := range strings.Lines(said.out) {
			var members map[string]json.RawMessage
			if err := json.Unmarshal([]byte(line), &members); err != nil {
				return err
			}
			r := make(row)
			for k, v := range members {
				r[k] = string(v)
			}
			if counts(r) {
				h.count(r)
			}
		}
		return nil
	}
	h.Hook = func(command string, _ []byte) *hatest.Reply {
		if command == "recorder/statistics_during_period" {
			if err := count(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		}
		return nil
	}
	h.open()

	b := mosquitto(t, open)
	live := subscribe(t, b.client())
	data := t.TempDir()
	p := bridge(t, append(h.settings(), "METERS=house="+utc(line)+"&history=hour"+unlimited, "READ_INTERVAL=1s", "DATA_DIR="+data, "MQTT_URL="+b.url())...)
	within(t, imported, "some hours are published", func() bool { return len(live.all(historyTopic)) >= 12 })
	socket.turn(cutting)
	live.says("kmp2mqtt/house/availability", "offline")
	mu.Lock()
	unplugged = clockOf(t, direct)
	mu.Unlock()
	before := len(live.all(historyTopic))
	within(t, imported, "two days pass", func() bool { return clockOf(t, direct).Sub(unplugged) >= 48*time.Hour })
	mu.Lock()
	plugged = clockOf(t, direct)
	mu.Unlock()
	socket.turn(fair)

	var missing []row
	for _, r := range logOf(t, direct, "hour") {
		if !counts(r) {
			missing = append(missing, r)
		}
	}
	if len(missing) < 48 {
		t.Fatalf("%d hours are missing", len(missing))
	}
	within(t, imported, "the missing hours arrive", func() bool {
		list := live.arrived()
		return list[len(list)-1].id() >= missing[len(missing)-1].id()
	})
	all, again := once(t, live.arrived())
	if again > 0 {
		t.Errorf("%d rows were repeated", again)
	}
	behind := slices.DeleteFunc(all, func(r row) bool { return r.id() < missing[0].id() || r.id() > missing[len(missing)-1].id() })
	sameRows(t, "published", behind, missing)
	if slices.ContainsFunc(all, func(r row) bool { return r["correction_s"] != "" }) {
		t.Error("rows are corrected: the clock runs faster, it is not wrong")
	}
	if len(live.all(historyTopic)) < before+48 {
		t.Error("the missing hours came before the line was plugged in")
	}
	kept := slices.DeleteFunc(exported(t, data, "-log", "hour"), func(r row) bool { return r.id() < missing[0].id() || r.id() > missing[len(missing)-1].id() })
	sameRows(t, "export", kept, missing)

	within(t, imported, "Home Assistant shows them", func() bool { return h.has(missing) })
	stopped(t, p, syscall.SIGTERM)
	if err := count(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.check(t, missing)
	for _, s := range countedSensors {
		rows := h.Rows(s.ID)
		for i := range len(rows) - 1 {
			if !rows[i+1].Start.Equal(rows[i].Start.Add(time.Hour)) {
				t.Errorf("%s: no hour between %v and %v", s.ID, rows[i].Start, rows[i+1].Start)
			}
		}
		if n := len(rows) - len(h.own[s.ID]); n != len(missing) {
			t.Errorf("%s: %d hours were imported, %d were missing", s.ID, n, len(missing))
		}
	}
	checkSensors(t, live, "602")
}

// clockOf is what a meter's clock shows.
func clockOf(t *testing.T, line string) time.Time {
	t.Helper()
	at, err := time.Parse(`"`+time.RFC3339+`"`, object(t, fine(t, "clock", utc(line), "-json"))["meter"])
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// TestStatisticsExternal has a meter that is visited seldom and read for every hour. Its hours become statistics of their
// own; those of the sensor, which shows too little, are left alone.
func TestStatisticsExternal(t *testing.T) {
	t.Parallel()
	_, line := simulate(t, "-log-depth=48", "-serial=603")
	truth := logsOf(t, line)
	h := newHome(t, "603")
	h.count(truth.hours[:5]...)
	h.open()
	b := mosquitto(t, open)
	bridge(t, append(h.settings(), "METERS=house="+utc(line)+"&history=hour&interval=2h", "DATA_DIR="+t.TempDir(), "MQTT_URL="+b.url())...)
	_, days := truth.as(t, nil)
	rows := slices.Concat(days, truth.settled())
	for key, id := range map[string]string{"energy_gj": "kmp2mqtt:603_energy", "volume_m3": "kmp2mqtt:603_volume"} {
		within(t, imported, id+" has all hours", func() bool {
			there := h.Rows(id)
			return !slices.ContainsFunc(rows, func(r row) bool { return find(there, r.stamp().Add(-time.Hour)) == nil })
		})
		checkStatistic(t, id, h.Rows(id), key, rows)
		meta, _ := h.Statistic(id)
		if own := countedSensors[key]; meta.Source != "kmp2mqtt" || meta.Unit != own.Unit || meta.UnitClass != own.UnitClass || !strings.HasPrefix(meta.Name, "house ") {
			t.Errorf("%s: %+v", id, meta)
		}
	}
	h.check(t, truth.hours[:5])
	for _, s := range countedSensors {
		if n := len(h.Rows(s.ID)); n != 5 {
			t.Errorf("%s has %d rows", s.ID, n)
		}
	}
}

// TestStatisticsClock has a meter whose clock is slow. Its rows keep its time and carry the correction; in Home Assistant
// they are in the right hours.
func TestStatisticsClock(t *testing.T) {
	t.Parallel()
	_, line := simulate(t, "-log-depth=48", "-serial=604", "-clock-offset=-12m")
	truth := logsOf(t, line)
	_, days := truth.as(t, nil)
	right := slices.Concat(days, truth.settled()) // the full hour that is nearest to the true time
	h := newHome(t, "604")
	h.count(right[len(days) : len(days)+5]...)
	h.open()
	b := mosquitto(t, open)
	live := subscribe(t, b.client())
	data := t.TempDir()
	bridge(t, append(h.settings(), "METERS=house="+utc(line)+unlimited, "DATA_DIR="+data, "MQTT_URL="+b.url())...)
	within(t, imported, "all hours are imported", func() bool { return h.has(right) })
	h.check(t, right)
	eventually(t, "all rows arrive", func() bool { return truth.complete(t, live.arrived()) })
	truth.check(t, "published", live.arrived())
	for _, r := range slices.Concat(live.arrived(), exported(t, data)) {
		if !slices.Contains([]string{"719", "720", "721"}, r["correction_s"]) {
			t.Fatalf("a row of a clock that is twelve minutes slow: %v", r)
		}
	}
	// What is asked for by the true time is found by it.
	from := truth.hours[10].stamp()
	if rows := exported(t, data, "-since", from.Add(11*time.Minute).Format(time.RFC3339), "-log", "hour"); len(rows) == 0 || rows[0].id() != truth.hours[10].id() {
		t.Errorf("rows of 11 minutes past %v: %v", from, rows[:min(len(rows), 1)])
	}
	if rows := exported(t, data, "-since", from.Add(13*time.Minute).Format(time.RFC3339), "-log", "hour"); len(rows) == 0 || rows[0].id() != truth.hours[11].id() {
		t.Errorf("rows of 13 minutes past %v: %v", from, rows[:min(len(rows), 1)])
	}
}

// atHome are a meter, a bridge that reads it every second, and a Home Assistant that had counted some of its hours.
func atHome(t *testing.T, serial string, settings ...string) (h *home, p *process, live *subscriber, truth meterLogs, all []string) {
	t.Helper()
	_, line := simulate(t, "-log-depth=48", "-serial="+serial)
	truth = logsOf(t, line)
	h = newHome(t, serial)
	h.count(truth.hours[:5]...)
	b := mosquitto(t, open)
	live = subscribe(t, b.client())
	all = append(h.settings(), "METERS=house="+utc(line)+unlimited, "READ_INTERVAL=1s", "DATA_DIR="+t.TempDir(), "MQTT_URL="+b.url())
	return h, bridge(t, append(slices.Clone(all), settings...)...), live, truth, all
}

// TestStatisticsAway has Home Assistant away at first. Readings and rows go on; when it is there, the hours are imported.
func TestStatisticsAway(t *testing.T) {
	t.Parallel()
	h, p, live, truth, _ := atHome(t, "605")
	const trouble, over = "Home Assistant's statistics cannot be reached", "Hours reach Home Assistant's statistics again"
	p.says(t, trouble, "connection refused")
	eventually(t, "all rows arrive", func() bool { return truth.complete(t, live.arrived()) })
	live.more("kmp2mqtt/house", 3)
	h.open()
	within(t, imported, "the hours are imported", func() bool { return h.has(truth.settled()) })
	p.says(t, over)
	h.check(t, truth.settled())
	live.more("kmp2mqtt/house", 1)
	if n := failed(t, live, "house"); n != 0 {
		t.Errorf("%d readings failed", n)
	}
	for _, text := range []string{trouble, over} {
		if n := strings.Count(p.log.String(), text); n != 1 {
			t.Errorf("%d times in the log: %s", n, text)
		}
	}
}

// TestStatisticsToken has a token that Home Assistant refuses. The log says what to do, once, and never the token;
// readings go on. With the right one the hours are imported.
func TestStatisticsToken(t *testing.T) {
	t.Parallel()
	const wrong = "a-token-of-yesterday"
	h, p, live, truth, settings := atHome(t, "606", "HA_TOKEN="+wrong)
	h.open()
	p.says(t, "token refused")
	eventually(t, "all rows arrive", func() bool { return truth.complete(t, live.arrived()) })
	live.more("kmp2mqtt/house", 3)
	if n := strings.Count(p.log.String(), "token refused"); n != 1 {
		t.Errorf("%d times in the log that the token is refused", n)
	}
	if n := h.Logins(); n != 0 {
		t.Errorf("%d logins", n)
	}
	stopped(t, p, syscall.SIGTERM)
	again := bridge(t, settings...)
	within(t, imported, "the hours are imported", func() bool { return h.has(truth.settled()) })
	h.check(t, truth.settled())
	rows, _ := once(t, live.arrived())
	truth.check(t, "published", rows)
	for _, log := range []*process{p, again} {
		if text := log.log.String(); strings.Contains(text, wrong) || strings.Contains(text, h.token) {
			t.Error("the log has the token in it")
		}
	}
}

// TestStatisticsRestart has Home Assistant restart in the middle of the import.
func TestStatisticsRestart(t *testing.T) {
	t.Parallel()
	_, line := simulate(t, "-log-depth=300", "-serial=607")
	truth := logsOf(t, line)
	h := newHome(t, "607")
	h.count(truth.hours[:5]...)
	var restarted atomic.Bool
	h.Hook = func(command string, _ []byte) *hatest.Reply {
		if command != "recorder/import_statistics" || restarted.Swap(true) {
			return nil
		}
		return &hatest.Reply{Close: true}
	}
	h.open()
	b := mosquitto(t, open)
	p := bridge(t, append(h.settings(), "METERS=house="+utc(line)+unlimited, "DATA_DIR="+t.TempDir(), "MQTT_URL="+b.url())...)
	within(t, imported, "the hours are imported", func() bool { return h.has(truth.settled()) })
	h.check(t, truth.settled())
	p.says(t, "connection closed")
}
