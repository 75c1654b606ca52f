package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/diagnosis"
	"kmp2mqtt/kmp/sim"
)

// turnaround is the time that a testMeter takes to answer.
const turnaround = 20 * time.Millisecond

// testMeter is a meter that holds exactly the registers it is given. The registers travel
// as frames through kmp's codec.
type testMeter struct {
	mu        sync.Mutex
	serial    uint32
	typeless  bool // GetType is not answered
	kind      uint16
	silent    bool
	corrupt   bool // every answer has a wrong checksum
	slow      time.Duration
	registers map[uint16]kmp.Register
	visits    []visit
}

// visit is one request that reached a testMeter.
type visit struct {
	at      time.Time
	command kmp.Command
	ids     []uint16
}

func number(t testing.TB, id uint16, unit kmp.Unit, digits string) kmp.Register {
	t.Helper()
	d, err := kmp.ParseDecimal(digits)
	if err != nil {
		t.Fatal(err)
	}
	r, err := kmp.NewRegister(id, unit, d, 4)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// newTestMeter is a MULTICAL with a few of its registers.
func newTestMeter(t testing.TB, serial uint32) *testMeter {
	t.Helper()
	m := &testMeter{serial: serial, kind: 0xFEFE, registers: make(map[uint16]kmp.Register)}
	m.set(
		number(t, 60, kmp.UnitGJ, "227.445"), number(t, 68, kmp.UnitCubicMetre, "2131.93"), number(t, 74, kmp.UnitLitrePerH, "128"),
		number(t, 80, kmp.UnitKW, "6.4"), number(t, 86, kmp.UnitCelsius, "69.10"), number(t, 99, kmp.UnitNone, "0"),
		number(t, 1004, kmp.UnitHour, "7039"), number(t, 124, kmp.UnitLitrePerH, "320"), number(t, 123, kmp.UnitDate, "260114"),
	)
	return m
}

func (m *testMeter) set(registers ...kmp.Register) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range registers {
		m.registers[r.ID] = r
	}
}

func (m *testMeter) change(f func(*testMeter)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m)
}

// reads are the times at which registers were read: not those of a census, which never
// asks for what a reading has found.
func (m *testMeter) reads() []time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	var times []time.Time
	var first uint16
	for _, v := range m.visits {
		if v.command != kmp.CmdGetRegister {
			continue
		}
		if first == 0 {
			first = v.ids[0]
		}
		if v.ids[0] == first {
			times = append(times, v.at)
		}
	}
	return times
}

// count is the number of requests of a command.
func (m *testMeter) count(command kmp.Command) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, v := range m.visits {
		if v.command == command {
			n++
		}
	}
	return n
}

// answer returns the bytes that answer a request, nil for silence.
func (m *testMeter) answer(f kmp.Frame) ([]byte, time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := visit{at: time.Now(), command: f.Command}
	var a kmp.Answer
	switch f.Command {
	case kmp.CmdGetSerialNo:
		a = &kmp.GetSerialNoAnswer{SerialNo: m.serial}
	case kmp.CmdGetType:
		if !m.typeless {
			a = &kmp.GetTypeAnswer{MeterType: m.kind, Revision: kmp.Revision{Letter: 6, Number: 1}}
		}
	case kmp.CmdGetRegister:
		var q kmp.GetRegisterRequest
		if q.DecodeData(f.Data) == nil {
			v.ids = slices.Clone(q.IDs)
			var found kmp.GetRegisterAnswer
			for _, id := range q.IDs {
				if r, ok := m.registers[id]; ok {
					found.Registers = append(found.Registers, r)
				}
			}
			a = &found
		}
	}
	m.visits = append(m.visits, v)
	if a == nil || m.silent {
		return nil, 0
	}
	wire, err := kmp.AppendMessage(nil, kmp.FromMeter, f.Address, a)
	if err != nil {
		return nil, 0
	}
	if m.corrupt {
		wire[len(wire)-2] ^= 0x21 // one byte of the checksum, and not made a special one
	}
	return wire, turnaround + m.slow
}

// testLines are lines by name: what stands at their other end, and whether they can be opened.
type testLines struct {
	mu    sync.Mutex
	ends  map[string]map[kmp.Address]*testMeter
	down  map[string]bool
	hangs map[string]bool // opening takes for ever
	open  map[string]net.Conn
	dials map[string]int
	sims  map[string]*sim.Meter // where a simulated meter stands instead
}

// dial opens a line over net.Pipe.
func (l *testLines) dial(ctx context.Context, line string) (kmp.Line, error) {
	l.mu.Lock()
	l.dials[line]++
	hangs := l.hangs[line]
	l.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down[line] {
		return nil, &fs.PathError{Op: "open", Path: line, Err: fs.ErrNotExist}
	}
	near, far := net.Pipe()
	l.open[line] = far
	if m := l.sims[line]; m != nil {
		go m.Serve(context.Background(), far)
		return near, nil
	}
	meters := l.ends[line]
	go func() {
		defer far.Close()
		r := kmp.NewReader(far, kmp.ToMeter)
		for {
			f, err := r.Next()
			if errors.Is(err, kmp.ErrCodec) {
				continue
			}
			if err != nil {
				return
			}
			m := meters[f.Address]
			if m == nil {
				continue
			}
			wire, wait := m.answer(f)
			if wire == nil {
				continue
			}
			time.Sleep(wait)
			if _, err := far.Write(wire); err != nil {
				return
			}
		}
	}()
	return near, nil
}

// cut makes a line fail, and stay so until mend.
func (l *testLines) cut(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down[line] = true
	if conn := l.open[line]; conn != nil {
		conn.Close()
	}
}

func (l *testLines) mend(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down[line] = false
}

func (l *testLines) dialled(line string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dials[line]
}

// lab is a whole bridge in a bubble: meters, lines, broker.
type lab struct {
	t      *testing.T
	broker *miniBroker
	lines  testLines
	cfg    Config
	logs   logBuffer
	level  slog.LevelVar
	began  time.Time
	cancel context.CancelFunc
	done   chan error
	tap    func(Message)
	dial   func(context.Context, string) (kmp.Line, error) // nil: that of lines

	mu   sync.Mutex
	seen map[string][]string // everything that was published, by topic, in order
}

// newLab prepares a bridge; meters maps a line, or line and "@address", to its meter.
func newLab(t *testing.T, meters map[string]*testMeter, environ ...string) *lab {
	t.Helper()
	l := &lab{t: t, broker: newMiniBroker(t), seen: make(map[string][]string)}
	l.lines = testLines{
		ends: make(map[string]map[kmp.Address]*testMeter), down: make(map[string]bool), hangs: make(map[string]bool),
		open: make(map[string]net.Conn), dials: make(map[string]int),
	}
	for at, m := range meters {
		line, address := at, kmp.HeatMeter
		if name, logger := strings.CutSuffix(at, "@logger"); logger {
			line, address = name, kmp.LoggerTop
		}
		if l.lines.ends[line] == nil {
			l.lines.ends[line] = make(map[kmp.Address]*testMeter)
		}
		l.lines.ends[line][address] = m
	}
	c, err := ParseConfig(append([]string{"MQTT_URL=mqtt://broker"}, environ...), ParseOptions{ParseLine: testLine, ReadFile: testFiles(nil)})
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.Meters {
		if c.Meters[i].Budget == DefaultBudget && !slices.Contains(environ, batteries) {
			c.Meters[i].Budget = 0 // most tests are about something else
		}
	}
	l.cfg = c
	l.cfg.MQTT.Dial = l.broker.dial
	l.cfg.HTTP.Listen = "" // no real port in a bubble
	l.broker.subscribeFunc("#", func(topic, payload string, _ bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.seen[topic] = append(l.seen[topic], payload)
	})
	return l
}

// censusOver is when no census is going on any more, and nothing else since half past.
const censusOver = 20 * time.Minute

// batteries among the settings of a lab leaves the default budget to its meters.
const batteries = "TEST_BATTERIES=true"

func (l *lab) start() {
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel, l.done, l.began = cancel, make(chan error, 1), time.Now()
	l.level.Set(l.cfg.LogLevel)
	dial := l.dial
	if dial == nil {
		dial = l.lines.dial
	}
	go func() {
		l.done <- Run(ctx, l.cfg, Deps{
			Dial: dial, Tap: l.tap, Level: &l.level, Version: "0.1.0", Commit: "abc", Started: l.began,
			Log: slog.New(slog.NewTextHandler(&l.logs, &slog.HandlerOptions{Level: &l.level})),
		})
	}()
	l.t.Cleanup(func() {
		l.stop()
		time.Sleep(writeTimeout) // a publish that hangs ends by then
	})
}

// stop ends the bridge and says how long that took.
func (l *lab) stop() time.Duration {
	if l.cancel == nil {
		return 0
	}
	start := time.Now()
	l.cancel()
	l.cancel = nil
	if err := <-l.done; err != nil {
		l.t.Errorf("Run: %v", err)
	}
	return time.Since(start)
}

// pass lets fake time pass, and everything happen that does by then.
func (l *lab) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// retained is what a new subscriber would find.
func (l *lab) retained(topic string) string { return l.broker.retained()[topic] }

func (l *lab) want(topic, payload string) {
	l.t.Helper()
	if got := l.retained(topic); got != payload {
		l.t.Errorf("%s is\n%s\nwant\n%s\nlog:\n%s", topic, got, payload, strings.Join(l.logs.lines(""), ""))
	}
}

// sent are the payloads published to a topic so far.
func (l *lab) sent(topic string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[topic]
}

// events are the types of the events so far, with their meter.
func (l *lab) events() []string {
	l.t.Helper()
	var list []string
	for _, payload := range l.sent("kmp2mqtt/bridge/event") {
		var e struct{ Time, Type, Meter string }
		if err := json.Unmarshal([]byte(payload), &e); err != nil {
			l.t.Fatalf("event %s: %v", payload, err)
		}
		if _, err := time.Parse(time.RFC3339, e.Time); err != nil {
			l.t.Errorf("event %s: %v", payload, err)
		}
		list = append(list, e.Type+" "+e.Meter)
	}
	return list
}

// command sends one and returns the answers that come within d.
func (l *lab) command(topic, payload, reply string, d time.Duration) []string {
	before := len(l.sent(reply))
	l.broker.publish(topic, payload, false)
	l.pass(d)
	return l.sent(reply)[before:]
}

// diagnostics decodes a meter's diagnostics.
func (l *lab) diagnostics(meter string) (d struct {
	Serial      *string
	LastReading *string `json:"last_reading"`
	LastError   *string `json:"last_error"`
	ReadsOK     int     `json:"reads_ok"`
	ReadsFailed int     `json:"reads_failed"`
	Interval    float64 `json:"interval_s"`
},
) {
	l.t.Helper()
	if err := json.Unmarshal([]byte(l.retained("kmp2mqtt/"+meter+"/diagnostics")), &d); err != nil {
		l.t.Fatalf("diagnostics of %s: %v", meter, err)
	}
	return d
}

const usual = "REGISTERS=60,68,74,80,86,99,1004,124,123"

func one(t *testing.T) (map[string]*testMeter, *testMeter) {
	t.Helper()
	m := newTestMeter(t, 80123456)
	return map[string]*testMeter{"/dev/a": m}, m
}

func TestBridgeFirstReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, _ := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a?model=403", usual)
		l.start()
		l.pass(5 * time.Second)

		l.want("kmp2mqtt/house", `{"time":"2000-01-01T00:00:00Z","energy_gj":227.445,"volume_m3":2131.93,"flow_l_h":128,"power_kw":6.4,`+
			`"supply_temperature_c":69.10,"info_code":0,"operating_hours_h":7039,"max_flow_year_l_h":320,"max_flow_year_date":"2026-01-14","info":[]}`)
		l.want("kmp2mqtt/house/availability", "online")
		l.want("kmp2mqtt/bridge/state", "online")
		diagnostics := regexp.MustCompile(`"(read_duration_s|awake_today_s|awake_s)":[0-9.]+`).ReplaceAllString(l.retained("kmp2mqtt/house/diagnostics"), `"$1":0.5`)
		if want := `{"serial":"80123456","model":"MULTICAL 403","software_revision":"F1","line":"/dev/a",` +
			`"interval_s":1800,"last_reading":"2000-01-01T00:00:00Z","last_error":null,"reads_ok":1,"reads_failed":0,"read_duration_s":0.5,"echo":false,` +
			`"link_quality":100,"budget":null,"reads_today":1,"commands_today":0,"frames_today":4,"bytes_today":166,"awake_today_s":0.5,"next_reading":"2000-01-01T00:30:00Z","unknown":{},"clock_drift_s":null,"history_until":null,` +
			`"usage":{"days":[{"date":"2000-01-01","reads":1,"commands":0,"frames":4,"bytes":166,"awake_s":0.5}],` +
			`"total":{"date":"2000-01-01","reads":1,"commands":0,"frames":4,"bytes":166,"awake_s":0.5}}}`; diagnostics != want {
			t.Errorf("%s\nwant\n%s", diagnostics, want)
		}
		if diff := cmp.Diff([]string{"meter_online house"}, l.events()); diff != "" {
			t.Error(diff)
		}
		var info struct {
			Version, Commit, Started string
			LogLevel                 string `json:"log_level"`
			Meters                   []struct{ Name, Serial, Model, Line string }
			Settings                 map[string]string
		}
		if err := json.Unmarshal([]byte(l.retained("kmp2mqtt/bridge/info")), &info); err != nil {
			t.Fatal(err)
		}
		if len(info.Meters) != 1 || info.Meters[0].Serial != "80123456" || info.Meters[0].Model != "MULTICAL 403" || info.LogLevel != "info" ||
			info.Settings["READ_INTERVAL"] != "30m" || info.Version != "0.1.0" || info.Commit != "abc" || info.Started != "2000-01-01T00:00:00Z" {
			t.Errorf("%+v", info)
		}
		var device struct {
			Device     struct{ Name, Model string }
			Components map[string]json.RawMessage
		}
		if err := json.Unmarshal([]byte(l.retained("homeassistant/device/kmp_80123456/config")), &device); err != nil {
			t.Fatal(err)
		}
		if _, ok := device.Components["max_flow_year_date"]; !ok || device.Device.Name != "House" || device.Device.Model != "MULTICAL 403" {
			t.Errorf("%+v", device)
		}
		if l.retained("homeassistant/device/kmp2mqtt_bridge/config") == "" {
			t.Error("the bridge is not announced")
		}
	})
}

// TestExampleMessages holds what is published against the set that Home Assistant accepted.
func TestExampleMessages(t *testing.T) {
	content, err := os.ReadFile("../discovery/testdata/example-messages.json")
	if err != nil {
		t.Fatal(err)
	}
	var example map[string]json.RawMessage
	if err := json.Unmarshal(content, &example); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		m.set(number(t, 63, kmp.UnitGJ, "0.006"), number(t, 87, kmp.UnitCelsius, "33.41"), number(t, 89, kmp.UnitKelvin, "35.71"),
			number(t, 97, kmp.UnitCubicMC, "147353"), number(t, 266, kmp.UnitWh, "3179167"))
		l := newLab(t, meters, "METERS=house=/dev/a?model=403", "REGISTERS=60,63,68,74,80,86,87,89,97,266,99,1004,124,123")
		l.start()
		l.pass(5 * time.Second)
		for topic, want := range example {
			got := l.retained(topic)
			if got == "" {
				t.Errorf("nothing on %s", topic)
				continue
			}
			if want[0] != '{' || topic == "kmp2mqtt/bridge/info" || strings.HasPrefix(topic, "homeassistant/") {
				continue
			}
			now, promised := members(t, []byte(got)), members(t, want)
			if len(now) < len(promised) {
				t.Fatalf("%s: %v lacks some of %v", topic, now, promised)
			}
			if diff := cmp.Diff(promised, now[:len(promised)]); diff != "" { // what came later stands behind
				t.Errorf("%s: %s", topic, diff)
			}
		}
	})
}

// members are the keys of a JSON object in their order.
func members(t *testing.T, object []byte) []string {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(object)))
	var keys []string
	for i := 0; ; i++ {
		token, err := d.Token()
		if err != nil {
			return keys
		}
		if s, ok := token.(string); ok && i%2 == 1 {
			keys = append(keys, s)
		}
	}
}

func TestBridgeDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters := map[string]*testMeter{"/dev/a": newTestMeter(t, 1), "/dev/b": newTestMeter(t, 2), "/dev/c": newTestMeter(t, 3), "/dev/c@logger": newTestMeter(t, 4)}
		meters["/dev/b"].silent = true
		l := newLab(t, meters, "METERS=a=/dev/a b=/dev/b c=/dev/c d=/dev/c?address=0x7F&interval=30m e=/dev/gone", "READ_INTERVAL=10m", "REGISTERS=60,68")
		l.lines.hangs["/dev/gone"] = true
		l.start()
		l.pass(24 * time.Hour)
		for _, tt := range []struct {
			line            string
			phase, interval time.Duration
			most            time.Duration // from the slot to the request for registers
		}{
			{"/dev/a", 0, 10 * time.Minute, 10 * time.Millisecond},
			{"/dev/c", 4 * time.Minute, 10 * time.Minute, 10 * time.Millisecond},
			{"/dev/c@logger", 18 * time.Minute, 30 * time.Minute, 10 * time.Millisecond},
		} {
			reads := meters[tt.line].reads()
			first := reads[0].Sub(l.began)
			if first > time.Second {
				t.Errorf("%s: first reading after %v", tt.line, first)
			}
			if want := int((24*time.Hour - tt.phase - 1) / tt.interval); len(reads) < want || len(reads) > want+2 {
				t.Errorf("%s: %d readings in a day, want %d", tt.line, len(reads), want)
			}
			for _, at := range reads[1:] {
				late := (at.Sub(l.began) - tt.phase) % tt.interval
				if late < 0 || late > tt.most {
					t.Errorf("%s: read at %v, %v after its slot", tt.line, at.Sub(l.began), late)
				}
			}
		}
		l.want("kmp2mqtt/a/availability", "online")
		l.want("kmp2mqtt/b/availability", "offline")
		l.want("kmp2mqtt/c/availability", "online")
		l.want("kmp2mqtt/d/availability", "online")
		l.want("kmp2mqtt/e/availability", "offline")
		if lines := l.logs.lines("level=WARN"); len(lines) != 2 { // b is silent, e cannot be opened
			t.Errorf("an outage is logged more than once:\n%s", strings.Join(lines, ""))
		}
		// A meter that never answers is asked ever less: it costs what it must.
		if n := len(meters["/dev/b"].visits); n > 2*2*24*60 {
			t.Errorf("a silent meter got %d requests in a day", n)
		}

		var h struct {
			Uptime float64 `json:"uptime_s"`
			Memory int     `json:"memory_bytes"`
			Queue  *int
			Meters map[string]struct {
				OK      int            `json:"reads_ok"`
				Reasons map[string]int `json:"failed_by_reason"`
			}
		}
		if err := json.Unmarshal([]byte(l.retained("kmp2mqtt/bridge/health")), &h); err != nil {
			t.Fatal(err)
		}
		if h.Uptime < 86300 || h.Memory == 0 || h.Queue == nil || h.Meters["a"].OK < 140 ||
			h.Meters["b"].Reasons["no_reply"] == 0 || h.Meters["e"].Reasons["line_closed"] == 0 {
			t.Errorf("%+v", h)
		}
	})
}

// TestBridgeSimulatedDay reads a house for a day over a line as bad as they come.
func TestBridgeSimulatedDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := sim.New(sim.Config{Serial: 12345678, Seed: 1, Paced: true, Faults: sim.Faults{
			Echo: true, Noise: 0.1, StrayBytes: 0.1, Lost: 0.05, Late: 0.02, Corrupted: 0.05, Truncated: 0.05, Duplicated: 0.05, MissingRegisters: []uint16{113},
		}})
		if err != nil {
			t.Fatal(err)
		}
		l := newLab(t, nil, "METERS=house=sim://403", "READ_INTERVAL=5m")
		l.lines.sims = map[string]*sim.Meter{"sim://403": m}
		l.start()
		l.pass(24 * time.Hour)
		states := l.sent("kmp2mqtt/house")
		if len(states) < 24*12-30 {
			t.Errorf("%d readings in a day", len(states))
		}
		var energy, volume, hours float64
		first := ""
		for _, payload := range states {
			var s struct {
				Time   string
				Energy *float64 `json:"energy_gj"`
				Volume *float64 `json:"volume_m3"`
				Hours  *float64 `json:"operating_hours_h"`
				Supply *float64 `json:"supply_temperature_c"`
			}
			if err := json.Unmarshal([]byte(payload), &s); err != nil {
				t.Fatalf("%s: %v", payload, err)
			}
			if s.Energy == nil || s.Volume == nil || s.Hours == nil || s.Supply == nil {
				t.Fatalf("a value is missing: %s", payload)
			}
			if *s.Energy < energy || *s.Volume < volume || *s.Hours < hours || *s.Supply < 20 || *s.Supply > 120 {
				t.Errorf("no house is like that: %s", payload)
			}
			energy, volume, hours = *s.Energy, *s.Volume, *s.Hours
			if keys := strings.Join(members(t, []byte(payload)), " "); first == "" {
				first = keys
			} else if keys != first {
				t.Errorf("the keys changed from %s to %s", first, keys)
			}
			if strings.Contains(payload, "info_events") {
				t.Errorf("a register that the meter lacks: %s", payload)
			}
		}
		d := l.diagnostics("house")
		if d.ReadsOK != len(states) || d.ReadsFailed == 0 || !strings.Contains(l.retained("kmp2mqtt/house/diagnostics"), `"echo":true`) {
			t.Errorf("%+v after %d states: %s", d, len(states), l.retained("kmp2mqtt/house/diagnostics"))
		}
		l.want("kmp2mqtt/house/availability", "online")
		if health := l.retained("kmp2mqtt/bridge/health"); !regexp.MustCompile(`"crc_errors":[1-9]`).MatchString(health) {
			t.Errorf("no checksum error in %s", health)
		}
	})
}

func TestBridgeAnyOrder(t *testing.T) {
	for _, tt := range []struct {
		name          string
		broker, meter time.Duration // when they appear
	}{
		{"broker first", 10 * time.Minute, time.Hour},
		{"meter first", time.Hour, 10 * time.Minute},
		{"both at once", time.Hour, time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				meters, m := one(t)
				l := newLab(t, meters, "METERS=house=/dev/a", usual)
				l.broker.down(true)
				l.lines.cut("/dev/a")
				l.start()
				for time.Since(l.began) < max(tt.broker, tt.meter)+2*time.Minute {
					l.pass(time.Minute)
					if since := time.Since(l.began); since >= tt.broker {
						l.broker.down(false)
					}
					if since := time.Since(l.began); since >= tt.meter {
						l.lines.mend("/dev/a")
					}
				}
				l.want("kmp2mqtt/house/availability", "online")
				if l.retained("kmp2mqtt/house") == "" || l.retained("homeassistant/device/kmp_80123456/config") == "" {
					t.Error("not everything is there")
				}
				if after := m.reads()[0].Sub(l.began.Add(tt.meter)); after > lineSlow {
					t.Errorf("read %v after the line came back", after)
				}
			})
		})
	}
}

func TestBridgeLineLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "READ_INTERVAL=1m", usual)
		l.start()
		l.pass(90 * time.Second)
		l.lines.cut("/dev/a")
		l.pass(10 * time.Minute)
		l.want("kmp2mqtt/house/availability", "offline")
		if d := l.diagnostics("house"); d.LastError == nil || !strings.Contains(*d.LastError, "file does not exist") {
			t.Errorf("last_error is %v", d.LastError)
		}
		before := len(m.reads())
		l.lines.mend("/dev/a")
		l.pass(lineSlow)
		if len(m.reads()) == before {
			t.Error("not read at once when the line is back")
		}
		l.want("kmp2mqtt/house/availability", "online")
		if diff := cmp.Diff([]string{"meter_online house", "diagnosis house", "meter_offline house", "diagnosis house", "meter_online house"}, l.events()); diff != "" {
			t.Error(diff)
		}
		if got := l.logs.lines("cannot open the line", "line is open again"); len(got) != 2 {
			t.Errorf("log:\n%s", strings.Join(got, ""))
		}
	})
}

// TestBridgeIdleLine has a gateway that closes connections on which nothing happens.
func TestBridgeIdleLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "READ_INTERVAL=10m", usual)
		l.start()
		for range 10 {
			l.pass(5 * time.Minute)
			l.lines.cut("/dev/a")
			l.lines.mend("/dev/a")
			l.pass(5 * time.Minute)
		}
		l.pass(time.Second)
		if d := l.diagnostics("house"); d.ReadsOK != 11 || d.ReadsFailed != 0 {
			t.Errorf("%+v", d)
		}
		for i, at := range m.reads()[2:] {
			if late := at.Sub(l.began) % (10 * time.Minute); late > 100*time.Millisecond {
				t.Errorf("request %d came %v late", i, late)
			}
		}
		if got := l.logs.lines("level=WARN"); got != nil {
			t.Errorf("log:\n%s", strings.Join(got, ""))
		}
	})
}

func TestBridgeMeterAwayAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", usual)
		l.start()
		l.pass(10 * time.Minute)
		m.change(func(m *testMeter) { m.corrupt = true })
		l.pass(25 * time.Minute)
		l.want("kmp2mqtt/house/availability", "offline")
		if state := l.retained("kmp2mqtt/house"); !strings.Contains(state, "227.445") {
			t.Errorf("the last state is gone: %s", state)
		}
		if d := l.diagnostics("house"); d.ReadsFailed < 3 || d.LastError == nil || !strings.Contains(*d.LastError, "checksum") {
			t.Errorf("%+v", d)
		}
		m.change(func(m *testMeter) { m.corrupt = false })
		l.pass(retrySlow)
		l.want("kmp2mqtt/house/availability", "online")
		if d := l.diagnostics("house"); d.LastError != nil {
			t.Errorf("last_error is still %q", *d.LastError)
		}
		if l.lines.dialled("/dev/a") < 2 {
			t.Error("a line that brings nothing was never opened again")
		}
		if n := m.count(kmp.CmdGetType); n != 1 {
			t.Errorf("the type was asked %d times", n)
		}
		if got := l.logs.lines("meter is offline", "meter is online again"); len(got) != 2 {
			t.Errorf("log:\n%s", strings.Join(got, ""))
		}
	})
}

func TestBridgeRegisters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		delete(m.registers, 68)
		zero := number(t, 123, kmp.UnitDate, "0")
		wrong := number(t, 124, kmp.UnitDate, "261399")
		m.set(zero, wrong, number(t, 74, 0x37, "12.5"), kmp.Register{ID: 7777, Unit: 0x36, Raw: []byte("a\"<b")})
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60,68,74,123,124,7777,1002", "READ_INTERVAL=1m", "MQTT_VALUES=true")
		m.set(number(t, 1002, kmp.UnitClock, "70809"))
		l.start()
		l.pass(5 * time.Second)
		state := l.retained("kmp2mqtt/house")
		var values map[string]json.RawMessage
		if err := json.Unmarshal([]byte(state), &values); err != nil {
			t.Fatal(err)
		}
		for key, want := range map[string]string{"energy_gj": "227.445", "max_flow_year_date": "null", "register_7777": `"a\"\u003cb"`, "clock": `"07:08:09"`} {
			if got := string(values[key]); got != want {
				t.Errorf("%s is %s, want %s in %s", key, got, want, state)
			}
		}
		if _, ok := values["max_flow_year"]; !ok || string(values["max_flow_year"]) != "null" {
			t.Errorf("what cannot be decoded is not null: %s", state)
		}
		if strings.Contains(state, "volume") {
			t.Errorf("a register that the meter lacks is announced: %s", state)
		}
		if got := string(values["flow_m3"]); got != "125" { // unit 37 is ten cubic metres
			t.Errorf("ten times 12.5 is %s in %s", got, state)
		}
		l.want("kmp2mqtt/house/energy_gj", "227.445")
		l.want("kmp2mqtt/house/clock", "07:08:09")
		l.want("kmp2mqtt/house/max_flow_year_date", "")

		// Not asked any more.
		l.pass(censusOver)
		before := m.visited()
		l.pass(time.Minute)
		asked := m.asked(before)
		for _, v := range asked {
			if slices.Contains(v.ids, 68) {
				t.Errorf("asked for %v", v.ids)
			}
		}
		if len(asked) == 0 {
			t.Error("not read any more")
		}

		// What was there once stays, as null.
		m.change(func(m *testMeter) { delete(m.registers, 60) })
		l.pass(time.Minute)
		if state := l.retained("kmp2mqtt/house"); !strings.Contains(state, `"energy_gj":null`) {
			t.Error(state)
		}
		l.want("kmp2mqtt/house/energy_gj", "")
		l.want("kmp2mqtt/house/availability", "online")

		// Another unit is another key; the old one stays, as null.
		m.set(number(t, 60, kmp.UnitMWh, "63.18"))
		l.pass(time.Minute + 2*retryFirst) // a second reading has to agree
		if state := l.retained("kmp2mqtt/house"); !strings.Contains(state, `"energy_gj":null,"energy_mwh":63.18,`) {
			t.Error(state)
		}
		if config := l.retained("homeassistant/device/kmp_80123456/config"); strings.Contains(config, "energy_gj") || !strings.Contains(config, "energy_mwh") {
			t.Error(config)
		}
		if diff := cmp.Diff([]string{"meter_online house", "census house", "unit_changed house"}, l.events()); diff != "" {
			t.Error(diff)
		}
		if n := len(l.sent("homeassistant/device/kmp_80123456/config")); n != 2 {
			t.Errorf("announced %d times, want once for each set", n)
		}
	})
}

func TestBridgeInfoCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=99", "READ_INTERVAL=1m")
		l.start()
		l.pass(90 * time.Second)
		m.set(number(t, 99, kmp.UnitNone, "16"))
		l.pass(3 * time.Minute)
		events := l.sent("kmp2mqtt/bridge/event")
		if len(events) != 2 || !strings.Contains(events[1], `"type":"info_code","meter":"house","data":{"began":["code 16 (unknown)"],"ended":[],"from":0,"info":["code 16 (unknown)"],"register":"info_code","to":16}`) {
			t.Errorf("%s", events)
		}
	})
}

func TestBridgeMeterExchanged(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change kmp.Register // beside the serial number
		regs   string
	}{
		// With room in the request the serial number rides along.
		{"seen by its serial number", number(t, 1001, kmp.UnitNumber, "99"), "REGISTERS=60,1004"},
		// Without the register, the number is asked for.
		{"asked for its serial number", number(t, 1004, kmp.UnitHour, "3"), "REGISTERS=60,68,74,80,86,99,1004,124"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				meters, m := one(t)
				m.set(number(t, 1001, kmp.UnitNumber, "80123456"))
				l := newLab(t, meters, "METERS=house=/dev/a", "READ_INTERVAL=1m", tt.regs)
				l.start()
				l.pass(90 * time.Second)
				if l.retained("homeassistant/device/kmp_80123456/config") == "" {
					t.Fatal("not announced")
				}
				m.change(func(m *testMeter) { m.serial = 99 })
				if tt.change.ID != serialRegister {
					m.change(func(m *testMeter) { delete(m.registers, serialRegister) })
				}
				m.set(tt.change, number(t, 60, kmp.UnitGJ, "0.001"))
				l.pass(time.Minute)
				if config := l.retained("homeassistant/device/kmp_80123456/config"); !strings.Contains(config, `"kmp2mqtt/80123456/availability"`) || strings.Contains(config, `"kmp2mqtt/house`) {
					t.Errorf("the former meter is %s", config)
				}
				l.want("kmp2mqtt/80123456/availability", "offline")
				if l.retained("homeassistant/device/kmp_99/config") == "" {
					t.Error("the new meter is not announced")
				}
				if d := l.diagnostics("house"); d.Serial == nil || *d.Serial != "99" {
					t.Errorf("%+v", d)
				}
				if events := l.sent("kmp2mqtt/bridge/event"); len(events) != 2 || !strings.Contains(events[1], `"data":{"continued":false,"from":"80123456","to":"99"}`) {
					t.Errorf("%s", events)
				}
				l.pass(5 * time.Minute)
				l.want("kmp2mqtt/house/availability", "online")
			})
		})
	}
}

// TestBridgeSharedLine loses a line with two meters, of which only one notices at once.
func TestBridgeSharedLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newTestMeter(t, 1), newTestMeter(t, 2)
		l := newLab(t, map[string]*testMeter{"/dev/x": a, "/dev/x@logger": b}, "METERS=a=/dev/x?interval=1m b=/dev/x?interval=1h&address=0x7F",
			"REGISTERS=60,68,74,80,86,99,1004,124")
		l.start()
		l.pass(10*time.Minute + 30*time.Second)
		l.lines.cut("/dev/x")
		l.pass(10 * time.Minute)
		l.want("kmp2mqtt/a/availability", "offline")
		l.want("kmp2mqtt/b/availability", "online") // nobody wanted anything of it
		b.change(func(m *testMeter) { m.serial = 3 })
		l.lines.mend("/dev/x")
		l.pass(2 * time.Minute)
		l.want("kmp2mqtt/a/availability", "online")
		l.pass(time.Hour)
		if d := l.diagnostics("b"); d.Serial == nil || *d.Serial != "3" || d.ReadsFailed != 0 {
			t.Errorf("exchanged while the line was away: %+v", d)
		}

		dials := l.lines.dialled("/dev/x")
		l.lines.cut("/dev/x")
		l.pass(2 * time.Hour)
		l.want("kmp2mqtt/a/availability", "offline")
		l.want("kmp2mqtt/b/availability", "offline")
		if n := l.lines.dialled("/dev/x") - dials; n < 120 || n > 250 {
			t.Errorf("%d attempts to open the line in two hours", n)
		}
		if got := l.logs.lines("level=WARN"); len(got) != 3 { // the line twice, another meter once
			t.Errorf("log:\n%s", strings.Join(got, ""))
		}
	})
}

// TestBridgeSilentNeighbour has a dead and a living meter on one line.
func TestBridgeSilentNeighbour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newTestMeter(t, 1), newTestMeter(t, 2)
		b.silent = true
		l := newLab(t, map[string]*testMeter{"/dev/x": a, "/dev/x@logger": b}, "METERS=a=/dev/x b=/dev/x?address=0x7F", "REGISTERS=60", "READ_INTERVAL=10m")
		l.start()
		l.pass(5 * time.Hour)
		if n := l.lines.dialled("/dev/x"); n != 1 {
			t.Errorf("the line was opened %d times though one meter answers", n)
		}
		if n := len(a.reads()); n < 30 || n > 31 {
			t.Errorf("%d readings of the living one", n)
		}
		l.want("kmp2mqtt/a/availability", "online")
		l.want("kmp2mqtt/b/availability", "offline")
	})
}

// TestBridgeHeads moves heads from one meter to the other.
func TestBridgeHeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newTestMeter(t, 1), newTestMeter(t, 2)
		l := newLab(t, map[string]*testMeter{"/dev/a": a, "/dev/b": b}, "METERS=a=/dev/a b=/dev/b", "REGISTERS=60", "READ_INTERVAL=1m")
		serial := func(m *testMeter, n uint32) {
			m.change(func(m *testMeter) {
				m.serial, m.registers[serialRegister] = n, number(t, serialRegister, kmp.UnitNumber, fmt.Sprint(n))
			})
		}
		serial(a, 1)
		serial(b, 2)
		l.start()
		l.pass(5 * time.Minute)
		want := func(onA, onB string) {
			t.Helper()
			l.pass(10 * time.Minute)
			if da, db := l.diagnostics("a"), l.diagnostics("b"); *da.Serial != onA || *db.Serial != onB {
				t.Errorf("a is %s and b is %s, want %s and %s", *da.Serial, *db.Serial, onA, onB)
			}
		}
		want("1", "2")
		serial(a, 2)
		serial(b, 1)
		want("2", "1")
		// Both heads on one meter: the second is refused, and what it had before is free.
		serial(a, 1)
		want("2", "1")
		l.want("kmp2mqtt/a/availability", "offline")
		serial(a, 2)
		want("2", "1")
		l.want("kmp2mqtt/a/availability", "online")
		serial(b, 2)
		want("2", "1")
		l.want("kmp2mqtt/a/availability", "online")
		l.want("kmp2mqtt/b/availability", "offline")
	})
}

// TestBridgeRetries looks at how soon a failed reading is tried again.
func TestBridgeRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60", "READ_INTERVAL=5s")
		m.silent = true
		l.start()
		l.pass(time.Hour)
		if n := len(m.visits); n < 2*50 || n > 2*100 { // two requests, half a minute to a minute apart
			t.Errorf("%d requests in an hour of a silent meter that is to be read every 5 s", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60")
		l.start()
		l.pass(time.Minute)
		m.change(func(m *testMeter) { m.silent = true })
		l.pass(3 * time.Hour)
		l.want("kmp2mqtt/house/availability", "offline")
		m.change(func(m *testMeter) { m.silent = false })
		if got := l.command("kmp2mqtt/house/get", `{"registers":[80]}`, "kmp2mqtt/house/response", 10*time.Second); len(got) != 1 || decodeReply(t, got[0]).Status != "ok" {
			t.Errorf("%s", got)
		}
		l.want("kmp2mqtt/house/availability", "online") // a meter that answers one question is read at once
	})
}

// TestBridgeStubbornLine has a line whose opening nothing can end.
func TestBridgeStubbornLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, _ := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60")
		release := make(chan struct{})
		l.dial = func(context.Context, string) (kmp.Line, error) {
			<-release
			return nil, errors.New("late")
		}
		l.start()
		l.pass(time.Minute)
		if took := l.stop(); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
		close(release)
		l.want("kmp2mqtt/bridge/state", "offline")
	})
}

// TestBridgeUnnamedExchanged changes a meter that is named by its serial number.
func TestBridgeUnnamedExchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=/dev/a", "REGISTERS=60,1001", "READ_INTERVAL=1m")
		m.set(number(t, 1001, kmp.UnitNumber, "80123456"))
		l.start()
		l.pass(90 * time.Second)
		m.set(number(t, 1001, kmp.UnitNumber, "7"))
		m.change(func(m *testMeter) { m.serial = 7 })
		l.pass(time.Minute)
		l.want("kmp2mqtt/80123456/availability", "offline")
		l.want("kmp2mqtt/7/availability", "online")
		if state := l.retained("kmp2mqtt/7"); !strings.Contains(state, `"serial_number":7`) {
			t.Error(state)
		}
		if diff := cmp.Diff([]string{"meter_online 80123456", "meter_changed 7", "meter_online 7"}, l.events()); diff != "" {
			t.Error(diff)
		}
	})
}

// TestBridgeSpread has many meters at once.
func TestBridgeSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 50
		meters := make(map[string]*testMeter)
		var entries []string
		for i := range count {
			line := fmt.Sprintf("/dev/%d", i)
			meters[line] = newTestMeter(t, uint32(100+i))
			entries = append(entries, fmt.Sprintf("m%d=%s", i, line))
		}
		l := newLab(t, meters, "METERS="+strings.Join(entries, " "), "READ_INTERVAL=50m", "REGISTERS=60")
		l.start()
		l.pass(3 * time.Hour)
		slots := map[time.Duration]int{}
		for line, m := range meters {
			reads := m.reads()
			for i := 1; i < len(reads); i++ {
				if gap := reads[i].Sub(reads[i-1]); gap < 5*time.Minute || gap > 55*time.Minute {
					t.Errorf("%s: %v between two readings", line, gap)
				}
				slots[reads[i].Sub(l.began).Truncate(time.Second)]++
			}
		}
		for at, n := range slots {
			if n > 1 {
				t.Errorf("%d lines fire together at %v", n, at)
			}
		}
	})
}

// TestBridgeConfirms asks with every reading who is there: the meter could have been
// exchanged since the last one. Where there is a register for it, nothing more is asked.
func TestBridgeConfirms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "READ_INTERVAL=1h", "REGISTERS=60,68,74,80,86,99,1004,124")
		l.start()
		l.pass(10*time.Hour + time.Minute)
		if n := m.count(kmp.CmdGetSerialNo); n < 10 || n > 12 {
			t.Errorf("the serial number was asked %d times in ten hours", n)
		}
		m.set(number(t, serialRegister, kmp.UnitNumber, "80123456"))
		l.command("kmp2mqtt/bridge/request/census", "house", "kmp2mqtt/bridge/response/census", time.Minute)
		before := m.count(kmp.CmdGetSerialNo)
		l.pass(10 * time.Hour)
		if n := m.count(kmp.CmdGetSerialNo) - before; n != 0 {
			t.Errorf("the serial number was asked %d times, though its register is there", n)
		}
	})
}

// TestBridgeModelByType reads the registers of the model that the meter says it is.
func TestBridgeModelByType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		m.kind = 0x0004
		l := newLab(t, meters, "METERS=house=/dev/a")
		l.start()
		l.pass(time.Minute)
		var asked []uint16
		for _, v := range m.visits {
			asked = append(asked, v.ids...)
		}
		want := usualRegisters("601")
		if diff := cmp.Diff(want, asked[:len(want)]); diff != "" {
			t.Error(diff)
		}
		if d := l.retained("kmp2mqtt/house/diagnostics"); !strings.Contains(d, `"model":"MULTICAL 601"`) {
			t.Error(d)
		}
	})
}

func TestRosterClaim(t *testing.T) {
	r := newRoster([]MeterConfig{{Name: "a"}, {}, {}})
	for _, tt := range []struct {
		index        int
		name, serial string
		ok           bool
	}{
		{0, "a", "1", true},
		{1, "1", "1", false}, // two lines to one meter
		{1, "a", "2", false}, // a serial number that is another one's name
		{1, "2", "2", true},
		{0, "a", "2", false}, // two heads change places, one after the other
		{1, "1", "1", true},
		{0, "a", "2", true},
		{2, "2", "2", false},
	} {
		if err := r.claim(tt.index, tt.name, tt.serial); (err == nil) != tt.ok {
			t.Errorf("meter %d as %s with serial number %s: %v", tt.index, tt.name, tt.serial, err)
		}
	}
	if _, ok := r.find(""); ok {
		t.Error("a meter without a name was found")
	}
	if i, ok := r.find("1"); !ok || i != 1 {
		t.Errorf("1 is meter %d (%t)", i, ok)
	}
}

func TestBridgeSerialAsName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters := map[string]*testMeter{"/dev/a": newTestMeter(t, 111), "/dev/b": newTestMeter(t, 222), "/dev/c": newTestMeter(t, 111)}
		l := newLab(t, meters, "METERS=/dev/a 222=/dev/b /dev/c", "REGISTERS=60")
		l.lines.cut("/dev/c")
		l.start()
		l.pass(5 * time.Second)
		l.want("kmp2mqtt/111/availability", "online")
		l.want("kmp2mqtt/222/availability", "online")
		if got := l.command("kmp2mqtt/111/get", "", "kmp2mqtt/111/response", time.Second); len(got) != 1 || !strings.Contains(got[0], `"status":"ok"`) {
			t.Errorf("%s", got)
		}
		// A second line to the same meter is refused and disturbs nobody.
		l.lines.mend("/dev/c")
		l.pass(10 * time.Minute)
		if got := l.logs.lines("two lines lead to it"); len(got) != 1 {
			t.Errorf("log:\n%s", strings.Join(l.logs.lines(""), ""))
		}
		l.want("kmp2mqtt/111/availability", "online")
	})
}

func TestBridgeWithoutType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		m.typeless = true
		l := newLab(t, meters, "METERS=house=/dev/a?label=Wärme", "REGISTERS=60")
		l.start()
		l.pass(20 * time.Second)
		l.want("kmp2mqtt/house/availability", "online")
		if d := l.retained("kmp2mqtt/house/diagnostics"); !strings.Contains(d, `"model":null,"software_revision":null`) {
			t.Error(d)
		}
		if config := l.retained("homeassistant/device/kmp_80123456/config"); !strings.Contains(config, `"name":"Wärme"`) {
			t.Error(config)
		}
	})
}

func TestBridgeStops(t *testing.T) {
	for _, tt := range []struct {
		name string
		trim func(l *lab)
		keep bool // the broker hears the farewell
	}{
		{"quiet", func(*lab) {}, true},
		{"while a meter is awaited", func(l *lab) { l.broker.publish("kmp2mqtt/b/get", "", false); l.pass(time.Second) }, true},
		{"while a line hangs", func(l *lab) { l.lines.hangs["/dev/a"] = true; l.lines.cut("/dev/a"); l.pass(time.Hour) }, true},
		{"broker gone", func(l *lab) { l.broker.down(true); l.pass(time.Second) }, false},
		{"broker stalled", func(l *lab) { l.broker.stall(true); l.pass(time.Second) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				meters := map[string]*testMeter{"/dev/a": newTestMeter(t, 1), "/dev/b": newTestMeter(t, 2)}
				l := newLab(t, meters, "METERS=a=/dev/a b=/dev/b", "REGISTERS=60", "READ_INTERVAL=10m")
				l.start()
				l.pass(time.Minute)
				meters["/dev/b"].change(func(m *testMeter) { m.silent = true })
				tt.trim(l)
				if took := l.stop(); took > 2*time.Second {
					t.Errorf("it took %v", took)
				}
				if !tt.keep {
					return
				}
				l.want("kmp2mqtt/a/availability", "offline")
				l.want("kmp2mqtt/b/availability", "offline")
				l.want("kmp2mqtt/bridge/state", "offline")
			})
		})
	}
}

func TestBridgeBirth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60")
		l.start()
		l.pass(censusOver)
		topics := []string{"homeassistant/device/kmp_80123456/config", "homeassistant/device/kmp2mqtt_bridge/config", "kmp2mqtt/house", "kmp2mqtt/house/diagnostics", "kmp2mqtt/house/availability", "kmp2mqtt/bridge/info"}
		count := func() []int {
			var n []int
			for _, topic := range topics {
				n = append(n, len(l.sent(topic)))
			}
			return n
		}
		before, reads := count(), len(m.visits)
		l.broker.publish("homeassistant/device/kmp_80123456/config", "", true) // a user deleted an entity
		before[0]++
		l.broker.publish("homeassistant/status", "offline", false)
		l.pass(time.Second)
		if diff := cmp.Diff(before, count()); diff != "" {
			t.Errorf("offline: %s", diff)
		}
		l.broker.publish("homeassistant/status", "online", false)
		l.pass(time.Second)
		for i, n := range count() {
			if n != before[i]+1 {
				t.Errorf("%s was sent %d times more", topics[i], n-before[i])
			}
		}
		if len(m.visits) != reads {
			t.Error("the meter was touched")
		}
		if got := l.command("kmp2mqtt/bridge/request/discovery", "", "kmp2mqtt/bridge/response/discovery", time.Second); len(got) != 1 || got[0] != `{"status":"ok","data":{}}` {
			t.Errorf("%s", got)
		}
		if n := len(l.sent(topics[0])); n != before[0]+2 {
			t.Errorf("discovery sent %d times", n)
		}
	})
}

func TestBridgeWithoutDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, _ := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60", "HA_DISCOVERY=false")
		l.start()
		l.pass(time.Minute)
		l.want("kmp2mqtt/house/availability", "online")
		for topic := range l.broker.retained() {
			if !strings.HasPrefix(topic, "kmp2mqtt/") {
				t.Errorf("%s was published", topic)
			}
		}
		if got := l.broker.subscriptions(); slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "homeassistant") }) {
			t.Errorf("subscribed to %v", got)
		}
	})
}

// TestBridgeHealthAtConnect does not leave what was true before the broker was there.
func TestBridgeHealthAtConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, _ := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", usual)
		l.start()
		l.pass(10 * time.Second)
		if health := l.retained("kmp2mqtt/bridge/health"); !strings.Contains(health, `"connected":true`) {
			t.Error(health)
		}
	})
}

// TestBridgeForgetfulBroker kills a broker that keeps nothing.
func TestBridgeForgetfulBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", usual)
		l.start()
		l.pass(censusOver)
		want := l.broker.retained()
		delete(want, "kmp2mqtt/bridge/health")
		reads := len(m.visits)
		l.broker.down(true)
		l.broker.forget()
		l.broker.down(false)
		l.pass(10 * time.Second)
		got := l.broker.retained()
		delete(got, "kmp2mqtt/bridge/health")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if len(m.visits) != reads {
			t.Error("the meter was touched")
		}
	})
}

func TestBudget(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	b := bucket{tokens: burst}
	for i := range burst {
		if err := b.spend(now, 1); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	var rate *rateError
	if err := b.spend(now.Add(15*time.Second), 1); !errors.As(err, &rate) || rate.after != 45*time.Second {
		t.Errorf("%v, want to come back in 45s", err)
	}
	if err := b.spend(now.Add(time.Minute), 1); err != nil {
		t.Error(err)
	}
	if err := b.spend(now.Add(24*time.Hour), burst+1); err == nil {
		t.Error("the bucket overflows")
	}
	if err := b.spend(now.Add(24*time.Hour), burst); err != nil {
		t.Error(err)
	}
}

func TestSchedule(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := newSchedule(start, time.Minute, 1, 4)
	for _, tt := range []struct{ at, want time.Duration }{
		{-time.Hour, 15 * time.Second},
		{0, 15 * time.Second},
		{15*time.Second - 1, 15 * time.Second},
		{15 * time.Second, 75 * time.Second},
		{74 * time.Second, 75 * time.Second},
		{24 * time.Hour, 24*time.Hour + 15*time.Second},
	} {
		if got := s.next(start.Add(tt.at)).Sub(start); got != tt.want {
			t.Errorf("after %v comes %v, want %v", tt.at, got, tt.want)
		}
	}
}

func TestBackOff(t *testing.T) {
	for failures := 1; failures < 200; failures++ {
		if d := retryDelay(failures, diagnosis.Asleep); d < retryFirst/2 || d > retrySlow {
			t.Errorf("after %d failures: %v", failures, d)
		}
		if d := retryDelay(failures, diagnosis.Throttled); d < retryShut/2 || d > retryShut {
			t.Errorf("a port that shut is tried again after %v", d)
		}
	}
	if d := backOff(1, lineFirst, lineSlow); d > lineFirst {
		t.Errorf("%v", d)
	}
	if d := backOff(100, lineFirst, lineSlow); d < lineSlow/2 {
		t.Errorf("%v", d)
	}
}
