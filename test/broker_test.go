//go:build e2e

package test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// userFile makes Mosquitto's file of users with one in it.
func userFile(t *testing.T, user, password string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "users")
	output(t, "", "mosquitto_passwd", "-b", "-c", name, user, password)
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// file writes a file and returns its name.
func file(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestBroker publishes through each kind of connection to a broker, and looks at all that
// is published.
func TestBroker(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	server, client := ours.issue(t, "broker"), theirs.issue(t, "heat-meters")
	acl := file(t, "user heat-meters\ntopic readwrite kmp2mqtt/#\ntopic readwrite homeassistant/#\ntopic readwrite test/#\n")
	withTLS := []string{"cafile " + ours.file, "certfile " + server.cert, "keyfile " + server.key}
	withCertificates := []string{
		"cafile " + theirs.file, "certfile " + server.cert, "keyfile " + server.key,
		"require_certificate true", "use_identity_as_username true", "acl_file " + acl,
	}
	login := []string{"allow_anonymous false", "password_file " + userFile(t, "meters", "s3cret #1")}

	for _, c := range []struct {
		name     string
		scheme   string
		listener []string
		settings []string
		options  []string // how mosquitto_sub comes in; nil: by a second listener
	}{
		{name: "anonymous", scheme: "mqtt", listener: []string{open}, options: []string{}},
		{
			name: "password", scheme: "mqtt", listener: login,
			settings: []string{"MQTT_USERNAME=meters", "MQTT_PASSWORD_FILE=" + file(t, "s3cret #1\n")},
			options:  []string{"-u", "meters", "-P", "s3cret #1"},
		},
		{
			name: "TLS", scheme: "mqtts", listener: append(withTLS, open),
			settings: []string{"MQTT_CA_FILE=" + ours.file}, options: []string{"--cafile", ours.file},
		},
		{
			name: "client certificate", scheme: "mqtts", listener: withCertificates,
			settings: []string{"MQTT_CA_FILE=" + ours.file, "MQTT_CERT_FILE=" + client.cert, "MQTT_KEY_FILE=" + client.key},
			options:  []string{"--cafile", ours.file, "--cert", client.cert, "--key", client.key},
		},
		{name: "websockets", scheme: "ws", listener: []string{"protocol websockets", open}},
		{
			name: "websockets with TLS", scheme: "wss", listener: append([]string{"protocol websockets", open}, withTLS...),
			settings: []string{"MQTT_CA_FILE=" + ours.file},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			listener, options := c.listener, []string(nil)
			if c.options == nil {
				second := freePort(t)
				listener = append(slices.Clone(listener), fmt.Sprintf("listener %d %s", second, host), open)
				options = clientOptions(second)
			}
			b := mosquitto(t, listener...)
			if c.options != nil {
				options = append(b.client(), c.options...)
			}
			live := subscribe(t, options)
			url := fmt.Sprintf("%s://%s", c.scheme, address(b.port))
			bridge(t, append(c.settings, "METERS=house="+still("7").line(), "MQTT_URL="+url)...)
			for _, topic := range []string{"kmp2mqtt/house", "kmp2mqtt/house/diagnostics", "kmp2mqtt/bridge/health", "kmp2mqtt/bridge/event"} {
				live.any(topic)
			}
			live.says("kmp2mqtt/house/availability", "online")
			checkPublished(t, live, retained(t, options), url)
		})
	}
}

// checkPublished looks at everything that a bridge with one meter publishes.
func checkPublished(t *testing.T, live *subscriber, kept map[string]message, url string) {
	t.Helper()
	for _, m := range live.all("#") {
		if m.QoS != 1 && !strings.HasPrefix(m.Topic, "test/") {
			t.Errorf("%s has QoS %d", m.Topic, m.QoS)
		}
	}
	want := []string{
		"homeassistant/device/kmp2mqtt_bridge/config", "homeassistant/device/kmp_80123456/config",
		"kmp2mqtt/bridge/health", "kmp2mqtt/bridge/info", "kmp2mqtt/bridge/state",
		"kmp2mqtt/house", "kmp2mqtt/house/availability", "kmp2mqtt/house/diagnosis", "kmp2mqtt/house/diagnostics",
	}
	if got := slices.Sorted(maps.Keys(kept)); !slices.Equal(got, want) {
		t.Errorf("kept are %v\nwant %v", got, want)
	}
	for topic, payload := range map[string]string{"kmp2mqtt/bridge/state": "online", "kmp2mqtt/house/availability": "online"} {
		if kept[topic].Payload != payload {
			t.Errorf("%s is %q", topic, kept[topic].Payload)
		}
	}
	sameState(t, kept["kmp2mqtt/house"].Payload, still("7").values(t, 1))

	diagnostics := decode[diagnostics](t, kept["kmp2mqtt/house/diagnostics"].Payload)
	state := object(t, kept["kmp2mqtt/house"].Payload)
	if d := diagnostics; d.Serial != "80123456" || d.Model != "MULTICAL 403" || d.Revision == "" || d.Interval != 1800 ||
		d.ReadsOK != 1 || d.ReadsFailed != 0 || d.LastError != nil || `"`+d.LastReading+`"` != state["time"] || d.Duration <= 0 || d.Echo {
		t.Errorf("diagnostics are %+v", d)
	}
	info := decode[struct {
		Version, Commit, Started string
		LogLevel                 string `json:"log_level"`
		Meters                   []struct{ Name, Serial, Model, Line string }
		Settings                 map[string]string
	}](t, kept["kmp2mqtt/bridge/info"].Payload)
	if len(info.Meters) != 1 || info.Meters[0].Name != "house" || info.Meters[0].Serial != "80123456" || info.Meters[0].Model != "MULTICAL 403" ||
		info.Meters[0].Line != diagnostics.Line || info.Version == "" || info.LogLevel != "info" || info.Settings["MQTT_URL"] != url {
		t.Errorf("info is %+v", info)
	}
	if strings.Contains(kept["kmp2mqtt/bridge/info"].Payload, "s3cret") {
		t.Error("info tells the password")
	}
	health := decode[health](t, kept["kmp2mqtt/bridge/health"].Payload)
	if _, ok := health.Meters["house"]; !ok || health.Memory == 0 {
		t.Errorf("health is %+v", health)
	}
	event := decode[event](t, live.wait("kmp2mqtt/bridge/event", "a meter is online", func(m message) bool {
		return decode[event](t, m.Payload).Type == "meter_online"
	}).Payload)
	if event.Meter != "house" || event.Time == "" || event.Data["serial"] != "80123456" {
		t.Errorf("event is %+v", event)
	}
	checkDiscovery(t, kept)
}

// The JSON of CONTRACT section 1 that is no state.
type (
	diagnostics struct {
		Serial      string  `json:"serial"`
		Model       string  `json:"model"`
		Revision    string  `json:"software_revision"`
		Line        string  `json:"line"`
		Interval    float64 `json:"interval_s"`
		LastReading string  `json:"last_reading"`
		LastError   *string `json:"last_error"`
		ReadsOK     int     `json:"reads_ok"`
		ReadsFailed int     `json:"reads_failed"`
		Duration    float64 `json:"read_duration_s"`
		Echo        bool    `json:"echo"`
		LinkQuality *int    `json:"link_quality"` // in percent; null while nothing has been asked

		Budget        *int `json:"budget"`
		ReadsToday    int  `json:"reads_today"`
		CommandsToday int  `json:"commands_today"`
		FramesToday   int  `json:"frames_today"`
		BytesToday    int  `json:"bytes_today"`

		AwakeToday float64           `json:"awake_today_s"`
		Next       *string           `json:"next_reading"`
		Unknown    map[string]string // why a key is null or held
		Drift      *int              `json:"clock_drift_s"` // null where no log is read
		Kept       *string           `json:"history_until"`
		Usage      json.RawMessage
	}
	health struct {
		Time      string
		Uptime    float64 `json:"uptime_s"`
		Memory    uint64  `json:"memory_bytes"`
		Queue     int
		Dropped   int
		Connected bool
		Meters    map[string]struct {
			Online   bool
			OK       int            `json:"reads_ok"`
			Failed   int            `json:"reads_failed"`
			Reasons  map[string]int `json:"failed_by_reason"`
			LastGood *string        `json:"last_good_read"`
			Duration float64        `json:"read_duration_s"`
			Checksum int            `json:"crc_errors"`
			Echo     bool

			Diagnosis   string
			LinkQuality *int `json:"link_quality"`
		}
	}
	event struct {
		Time, Type, Meter string
		Data              map[string]any
	}
)

// checkDiscovery looks at what Home Assistant is told.
func checkDiscovery(t *testing.T, kept map[string]message) {
	t.Helper()
	type component map[string]any
	type config struct {
		Device           map[string]any
		Origin           map[string]any
		Availability     []map[string]string
		AvailabilityMode string `json:"availability_mode"`
		StateTopic       string `json:"state_topic"`
		Components       map[string]component
	}
	meter := decode[config](t, kept["homeassistant/device/kmp_80123456/config"].Payload)
	if fmt.Sprint(meter.Device["identifiers"]) != "[kmp_80123456]" || meter.Device["serial_number"] != "80123456" ||
		meter.Device["model"] != "MULTICAL 403" || meter.Device["manufacturer"] != "Kamstrup" || meter.Device["via_device"] != "kmp2mqtt_bridge" {
		t.Errorf("device is %v", meter.Device)
	}
	if meter.Origin["name"] != "kmp2mqtt" || meter.StateTopic != "kmp2mqtt/house" || meter.AvailabilityMode != "all" ||
		fmt.Sprint(meter.Availability) != "[map[topic:kmp2mqtt/bridge/state] map[topic:kmp2mqtt/house/availability]]" {
		t.Errorf("origin, state or availability are wrong: %+v", meter)
	}
	state := object(t, kept["kmp2mqtt/house"].Payload)
	shown := 0
	for name, c := range meter.Components {
		if c["unique_id"] != "kmp_80123456_"+name || c["platform"] == nil || c["name"] == nil {
			t.Errorf("component %s is %v", name, c)
		}
		source := state
		if topic, other := c["state_topic"].(string); other {
			source = object(t, kept[topic].Payload)
		} else if c["platform"] == "sensor" {
			shown++
		}
		if template, ok := c["value_template"].(string); ok {
			_, key, _ := strings.Cut(strings.Replace(template, "value_json.get('", "value_json.", 1), "value_json.")
			key = key[:strings.IndexFunc(key, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9') })]
			if _, ok := source[key]; !ok {
				t.Errorf("component %s takes %q, which is not published", name, key)
			}
		}
	}
	if values := members403() - 2; shown != values { // the time has another sensor, info is no sensor
		t.Errorf("%d sensors for %d values", shown, values)
	}
	energy := meter.Components["energy"]
	if energy["device_class"] != "energy" || energy["state_class"] != "total" || energy["unit_of_measurement"] != "GJ" {
		t.Errorf("energy is %v", energy)
	}
	if c := meter.Components["read_now"]; c["command_topic"] != "kmp2mqtt/house/get" || c["platform"] != "button" {
		t.Errorf("read_now is %v", c)
	}
	if c := meter.Components["read_interval"]; c["command_topic"] != "kmp2mqtt/house/set" || c["platform"] != "number" {
		t.Errorf("read_interval is %v", c)
	}
	bridge := decode[config](t, kept["homeassistant/device/kmp2mqtt_bridge/config"].Payload)
	if bridge.Components["connection"]["state_topic"] != "kmp2mqtt/bridge/state" ||
		bridge.Components["log_level"]["command_topic"] != "kmp2mqtt/bridge/request/log_level" {
		t.Errorf("the bridge announces %v", bridge.Components)
	}
}

// TestBrokerRefuses has a broker refuse the bridge. The log says what to do, readings go
// on, and once the broker is put right, all is well without a restart.
func TestBrokerRefuses(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	right, wrong := ours.issue(t, "broker"), theirs.issue(t, "broker")
	theirClient := theirs.issue(t, "meters")
	good := []string{"cafile " + ours.file, "certfile " + right.cert, "keyfile " + right.key, open}
	both := file(t, read(t, ours.file)+read(t, theirs.file))
	login := []string{"MQTT_USERNAME=meters", "MQTT_PASSWORD=abc"}

	for _, c := range []struct {
		name          string
		scheme        string
		before, after []string // the listener
		settings      []string
		reason        string
		advice        string
	}{
		{
			"wrong password", "mqtt",
			[]string{"password_file " + userFile(t, "meters", "xyz")},
			[]string{"password_file " + userFile(t, "meters", "abc")},
			login, "not authorised", "check MQTT_USERNAME and MQTT_PASSWORD",
		},
		{
			"no login", "mqtt",
			[]string{"allow_anonymous false"},
			[]string{open},
			nil,
			"not authorised", "set MQTT_USERNAME and MQTT_PASSWORD",
		},
		{
			"wrong authority", "mqtts",
			[]string{"cafile " + theirs.file, "certfile " + wrong.cert, "keyfile " + wrong.key, open},
			good,
			[]string{"MQTT_CA_FILE=" + ours.file},
			"unknown certificate authority", "set MQTT_CA_FILE",
		},
		{
			"no client certificate", "mqtts", append(slices.Clone(good), "require_certificate true"), good,
			[]string{"MQTT_CA_FILE=" + ours.file},
			"client certificate required", "set MQTT_CERT_FILE and MQTT_KEY_FILE",
		},
		{
			"unknown client certificate", "mqtts", append(slices.Clone(good), "require_certificate true"),
			[]string{"cafile " + both, "certfile " + right.cert, "keyfile " + right.key, open, "require_certificate true"},
			[]string{"MQTT_CA_FILE=" + ours.file, "MQTT_CERT_FILE=" + theirClient.cert, "MQTT_KEY_FILE=" + theirClient.key},
			"TLS refused by the broker", "check MQTT_CERT_FILE",
		},
		{
			"TLS where none is", "mqtts",
			[]string{open},
			good,
			[]string{"MQTT_CA_FILE=" + ours.file},
			"", "mqtt://",
		},
		{
			"no TLS where it is", "mqtt", good, []string{open}, nil, "", "mqtts://",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := mosquitto(t, c.before...)
			p := bridge(t, append(c.settings, "METERS=house="+still("7").line(), "READ_INTERVAL=1s", "LOG_LEVEL=debug",
				fmt.Sprintf("MQTT_URL=%s://%s", c.scheme, address(b.port)))...)
			p.says(t, "MQTT broker cannot be reached", c.reason, "advice=", c.advice)
			reads(t, p, 2)
			b.kill()
			b.configure(c.after...)
			b.start()
			p.says(t, "MQTT connected")
			reads(t, p, 2)
			if !p.running() {
				t.Error("the bridge has ended")
			}
			if strings.Contains(p.log.String(), "abc") {
				t.Error("the password is in the log")
			}
		})
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// readings is how many good readings a bridge that logs at level debug has had.
func readings(p *process) int { return strings.Count(p.log.String(), "meter read ") }

// reads waits for n more good readings.
func reads(t *testing.T, p *process, n int) {
	t.Helper()
	before := readings(p)
	eventually(t, fmt.Sprintf("%d more readings", n), func() bool { return readings(p) >= before+n })
}

// TestBrokerKilled kills a broker that keeps nothing in the middle of the bridge's life.
func TestBrokerKilled(t *testing.T) {
	t.Parallel()
	b := mosquitto(t, open)
	meter, line := simulate(t, quick("3").flags()...)
	live := subscribe(t, b.client())
	p := bridge(t, "METERS=house="+line+"?timeout=300ms", "READ_INTERVAL=1s", "LOG_LEVEL=debug", "MQTT_VALUES=true", "MQTT_URL="+b.url())
	live.more("kmp2mqtt/house", 2)
	before := retained(t, b.client())

	b.kill()
	p.says(t, "MQTT connection lost")
	reads(t, p, 3)
	meter.signal(t, syscall.SIGSTOP) // from here on nothing is newer than what has been read
	eventually(t, "a reading fails", func() bool { return strings.Contains(p.log.String(), "reading failed") })
	b.start()
	eventually(t, "everything is back", func() bool {
		after := retained(t, b.client())
		return slices.Equal(slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before))) && newestKept(t, p, after, before)
	})
	meter.signal(t, syscall.SIGCONT)
	live.says("kmp2mqtt/house/availability", "online") // mosquitto_sub has come back by itself, too
	live.more("kmp2mqtt/house", 2)
	sameState(t, retained(t, b.client())["kmp2mqtt/house"].Payload, quick("3").values(t, 20*120)) // the first two minutes
}

// newestKept reports whether the broker holds the bridge's newest reading: the diagnostics
// have counted all of them, and the state is the last one's.
func newestKept(t *testing.T, p *process, after, before map[string]message) bool {
	t.Helper()
	d := decode[diagnostics](t, after["kmp2mqtt/house/diagnostics"].Payload)
	old := decode[diagnostics](t, before["kmp2mqtt/house/diagnostics"].Payload)
	state := object(t, after["kmp2mqtt/house"].Payload)
	if after["kmp2mqtt/house/energy_gj"].Payload != state["energy_gj"] {
		return false
	}
	return d.ReadsOK == readings(p) && d.ReadsOK >= old.ReadsOK+3 && d.LastReading > old.LastReading &&
		state["time"] == `"`+d.LastReading+`"` && after["kmp2mqtt/bridge/state"].Payload == "online"
}

// TestBrokerLate starts the bridge before there is a broker.
func TestBrokerLate(t *testing.T) {
	t.Parallel()
	b := mosquitto(t, open)
	b.kill()
	p := bridge(t, "METERS=house="+still("7").line(), "READ_INTERVAL=1s", "LOG_LEVEL=debug", "MQTT_URL="+b.url())
	p.says(t, "MQTT broker cannot be reached", "connection refused", "is the broker running")
	reads(t, p, 2)
	if n := strings.Count(p.log.String(), "WRN MQTT broker cannot be reached"); n != 1 {
		t.Errorf("the same outage is logged %d times", n)
	}
	b.start()
	live := subscribe(t, b.client())
	live.says("kmp2mqtt/house/availability", "online")
	live.says("kmp2mqtt/bridge/state", "online")
	sameState(t, live.any("kmp2mqtt/house").Payload, still("7").values(t, 1))
}

// TestBrokerHangs stops a broker for a while. Readings do not wait for it, and it has the
// newest ones afterwards.
func TestBrokerHangs(t *testing.T) {
	t.Parallel()
	b := mosquitto(t, open)
	live := subscribe(t, b.client())
	p := bridge(t, "METERS=house="+quick("4").line(), "READ_INTERVAL=1s", "LOG_LEVEL=debug", "MQTT_URL="+b.url())
	live.any("kmp2mqtt/house")
	b.signal(t, syscall.SIGSTOP)
	reads(t, p, 4)
	during := readings(p)
	b.signal(t, syscall.SIGCONT)
	live.wait("kmp2mqtt/house/diagnostics", "a reading of the pause", func(m message) bool {
		return decode[diagnostics](t, m.Payload).ReadsOK >= during
	})
	live.more("kmp2mqtt/house", 1)
}

// TestBrokers gives the bridge several brokers, the first of them dead.
func TestBrokers(t *testing.T) {
	t.Parallel()
	b := mosquitto(t, open)
	dead := freePort(t)
	live := subscribe(t, b.client())
	p := bridge(t, "METERS=house="+still("7").line(), fmt.Sprintf("MQTT_URL=mqtt://%s %s", address(dead), b.url()))
	live.says("kmp2mqtt/house/availability", "online")
	p.says(t, fmt.Sprintf("broker=mqtt://%s", address(dead)), "MQTT connected")
}

// back waits until the bridge has connected n times in all, and the broker keeps its newest reading.
func back(t *testing.T, p *process, n int, client []string) {
	t.Helper()
	within(t, recovery, "the bridge connects again", func() bool { return strings.Count(p.log.String(), "MQTT connected") >= n })
	since := readings(p)
	within(t, recovery, "the broker has what has been read since", func() bool {
		kept := retained(t, client)
		d := kept["kmp2mqtt/house/diagnostics"].Payload
		return d != "" && decode[diagnostics](t, d).ReadsOK >= since && kept["kmp2mqtt/bridge/state"].Payload == "online"
	})
}

// TestLoginWithdrawn takes the bridge's login away while it is connected, and gives it back later.
func TestLoginWithdrawn(t *testing.T) {
	t.Parallel()
	users := userFile(t, "meters", "abc-right")
	output(t, "", "mosquitto_passwd", "-b", users, "viewer", "xyz")
	b := mosquitto(t, "allow_anonymous false", "password_file "+users)
	viewer := append(b.client(), "-u", "viewer", "-P", "xyz")
	p := bridge(t, "METERS=house="+still("7").line(), "READ_INTERVAL=1s", "LOG_LEVEL=debug", "MQTT_USERNAME=meters", "MQTT_PASSWORD=abc-right", "MQTT_URL="+b.url())
	back(t, p, 1, viewer)

	output(t, "", "mosquitto_passwd", "-b", users, "meters", "another")
	b.signal(t, syscall.SIGHUP)
	p.says(t, "MQTT connection lost", "not authorised", "check MQTT_USERNAME and MQTT_PASSWORD")
	reads(t, p, 2)

	output(t, "", "mosquitto_passwd", "-b", users, "meters", "abc-right")
	b.signal(t, syscall.SIGHUP)
	back(t, p, 2, viewer)
	if strings.Contains(p.log.String(), "abc-right") {
		t.Error("the password is in the log")
	}
}

// TestCertificateExpires lets certificates expire and renews them under their names. The bridge goes on by itself.
func TestCertificateExpires(t *testing.T) {
	t.Parallel()
	past, future := time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	settings := func(b *broker, ours authority, more ...string) []string {
		return append(more, "METERS=house="+still("7").line(), "READ_INTERVAL=1s", "LOG_LEVEL=debug", "MQTT_CA_FILE="+ours.file, "MQTT_URL=mqtts://"+address(b.port))
	}
	t.Run("the broker's", func(t *testing.T) {
		t.Parallel()
		ours := newAuthority(t, "ours")
		server := ours.issueUntil(t, "broker", future)
		b := mosquitto(t, "cafile "+ours.file, "certfile "+server.cert, "keyfile "+server.key, open)
		p := bridge(t, settings(b, ours)...)
		client := append(b.client(), "--cafile", ours.file)
		back(t, p, 1, client)

		b.kill()
		server.replace(t, ours.issueUntil(t, "broker", past))
		b.start()
		p.says(t, "certificate invalid", "renew the broker's certificate")
		reads(t, p, 2)

		server.replace(t, ours.issueUntil(t, "broker", future))
		b.signal(t, syscall.SIGHUP) // it reads its certificate again
		back(t, p, 2, client)
	})
	t.Run("the bridge's", func(t *testing.T) {
		t.Parallel()
		ours := newAuthority(t, "ours")
		server, viewer := ours.issue(t, "broker"), ours.issue(t, "viewer")
		own := ours.issueUntil(t, "bridge", past)
		b := mosquitto(t, "cafile "+ours.file, "certfile "+server.cert, "keyfile "+server.key, open, "require_certificate true")
		p := bridge(t, settings(b, ours, "MQTT_CERT_FILE="+own.cert, "MQTT_KEY_FILE="+own.key)...)
		p.says(t, "TLS refused by the broker", "check MQTT_CERT_FILE")
		reads(t, p, 2)

		own.replace(t, ours.issueUntil(t, "bridge", future))
		back(t, p, 1, append(b.client(), "--cafile", ours.file, "--cert", viewer.cert, "--key", viewer.key))
	})
}
