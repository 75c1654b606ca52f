package web

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"kmp2mqtt/bridge/battery"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/census"
	"kmp2mqtt/kmp/diagnosis"
)

// fakeSource is a bridge with two meters: "house" is read, "garage" was never reached. Fields
// may be changed before it is used, and later between lock and unlock.
type fakeSource struct {
	mu        sync.Mutex
	bridge    Bridge
	meters    []Meter
	frames    map[string][]Frame
	charts    map[string]Chart
	followers map[int]func(Message)
	next      int

	// What the calls that take their time do; nil: what is usual.
	read   func(ctx context.Context, meter string, request []byte) ([]byte, error)
	align  func(ctx context.Context, meter string, length time.Duration, show func(diagnosis.Sample)) (diagnosis.Summary, error)
	record func(ctx context.Context, meter string, w io.Writer) error
}

// fakeTime is when the fake's newest reading ended.
var fakeTime = time.Date(2026, 11, 21, 7, 45, 1, 0, time.UTC)

// newFake returns a source whose reading ended at a time.
func newFake(read time.Time) *fakeSource {
	at := read.UTC().Format(time.RFC3339)
	next := read.Add(30 * time.Minute).UTC().Format(time.RFC3339)
	ok, asleep := diagnosis.Lookup(diagnosis.OK), diagnosis.Lookup(diagnosis.HostUnreachable)
	dec := func(unscaled int64, exponent int) kmp.Value { return decimal(unscaled, exponent) }
	number := func(f float64) *float64 { return &f }
	values := []Value{
		{Key: "energy_gj", Register: "energy", ID: 60, Title: "Heat energy E1", Unit: "GJ", Value: dec(227445, -3), Counter: true},
		{Key: "power_kw", Register: "power", ID: 80, Title: "Power", Unit: "kW", Value: dec(64, -1)},
		{Key: "flow_l_h", Register: "flow", ID: 74, Title: "Flow", Unit: "l/h", Value: dec(128, 0)},
		{Key: "supply_temperature_c", Register: "supply_temperature", ID: 86, Title: "Supply temperature T1", Unit: "°C", Value: dec(6912, -2)},
		{Key: "return_temperature_c", Register: "return_temperature", ID: 87, Title: "Return temperature T2", Unit: "°C", Why: "the meter did not answer it"},
		{Key: "volume_m3", Register: "volume", ID: 68, Title: "Volume V1", Unit: "m³", Value: dec(213193, -2), Counter: true},
		{Key: "info_code", Register: "info_code", ID: 99, Title: "Info code", Value: dec(0, 0)},
	}
	house := Meter{
		Name: "house", Title: "House", Serial: "80123456", Model: "MULTICAL 403", Revision: "F1", Line: "tcp://192.0.2.7:2001", Interval: 30 * time.Minute,
		Availability: "online",
		State: json.RawMessage(`{"time":"` + at + `","energy_gj":227.445,"power_kw":6.40,"flow_l_h":128,"supply_temperature_c":69.12,` +
			`"return_temperature_c":null,"volume_m3":2131.93,"info_code":0,"info":[]}`),
		Diagnostics: json.RawMessage(`{"serial":"80123456","model":"MULTICAL 403","software_revision":"F1","line":"tcp://192.0.2.7:2001","interval_s":1800,` +
			`"last_reading":"` + at + `","last_error":null,"reads_ok":7,"reads_failed":2,"read_duration_s":1.25,"echo":true,"link_quality":95,"next_reading":"` + next + `"}`),
		Diagnosis: json.RawMessage(`{"code":"ok","text":"` + ok.Text + `","next_step":"` + ok.NextStep + `","since":"` + at + `","evidence":{"error":null}}`),
		Values:    values, Info: []string{}, Reading: read, Next: read.Add(30 * time.Minute),
		Condition: Condition{Code: diagnosis.OK, Title: ok.Title, Text: ok.Text, NextStep: ok.NextStep, Since: read},
		Quality:   95, Rated: true,
		Today: battery.Day{Date: read.Format(time.DateOnly), Reads: 12, Commands: 2, Frames: 30, Bytes: 2400, Awake: 16.5},
		Total: battery.Day{Date: "2026-11-01", Reads: 900, Commands: 20, Frames: 2300, Bytes: 180000, Awake: 1250.25}, Budget: 96,
		ReadsOK: 7, ReadsFailed: map[string]int{"silent": 1, "bad_checksums": 1},
		Durations: Histogram{Bounds: []float64{0.5, 1, 2, 4}, Counts: []uint64{0, 3, 4, 1, 1}, Sum: 14.75}, ChecksumErrors: 3, Echo: true,
		Profile: census.Profile{Serial: "80123456", Model: "403", Revision: "F1", Taken: read, Registers: []census.Entry{}, Absent: []uint16{371}},
	}
	drift := int64(-42)
	house.ClockDrift = &drift
	garage := Meter{
		Name: "garage", Title: "Garage", Line: "tcp://192.0.2.8:2001", Interval: 10 * time.Minute, Availability: "offline",
		Diagnosis:   json.RawMessage(`{"code":"host_unreachable","text":"` + asleep.Text + `","next_step":"` + asleep.NextStep + `","since":"` + at + `","evidence":{}}`),
		Next:        read.Add(time.Minute),
		Condition:   Condition{Code: diagnosis.HostUnreachable, Title: asleep.Title, Text: asleep.Text, NextStep: asleep.NextStep, Since: read},
		ReadsFailed: map[string]int{"host_unreachable": 4},
		Durations:   Histogram{Bounds: []float64{0.5, 1, 2, 4}, Counts: []uint64{4, 0, 0, 0, 0}, Sum: 0.25},
	}
	request := kmp.AppendFrame(nil, kmp.ToMeter, kmp.HeatMeter, kmp.CmdGetSerialNo, nil)
	answer := kmp.AppendFrame(nil, kmp.FromMeter, kmp.HeatMeter, kmp.CmdGetSerialNo, []byte{0x04, 0xC6, 0x96, 0x40})
	return &fakeSource{
		bridge: Bridge{
			Version: "1.2.3", Commit: "abc1234", Started: read.Add(-24 * time.Hour), Topic: "kmp2mqtt", Connected: true, Brokers: []string{"mqtt://192.0.2.1:1883"},
			Memory: 12 << 20, Settings: map[string]string{"METERS": "house=tcp://192.0.2.7:2001 garage=tcp://192.0.2.8:2001", "MQTT_PASSWORD": "(redacted)"},
		},
		meters: []Meter{house, garage},
		frames: map[string][]Frame{"house": {
			{Time: read.Add(-time.Second), Direction: kmp.ToMeter, Wire: request},
			{Time: read.Add(-900 * time.Millisecond), Direction: kmp.FromMeter, Wire: slices.Concat(request, answer)},
			{Time: read.Add(-500 * time.Millisecond), Direction: kmp.FromMeter, Wire: []byte{0x40, 0x3F, 0xFF}},
		}},
		charts: map[string]Chart{"house": {
			Times: []int64{read.Unix() - 1800, read.Unix()},
			Series: []Series{
				{Key: "power_kw", Title: "Power", Unit: "kW", Values: []*float64{number(6.1), number(6.4)}},
				{Key: "return_temperature_c", Title: "Return temperature T2", Unit: "°C", Values: []*float64{number(33.4), nil}},
			},
			Hours: []Bar{{Start: read.Truncate(time.Hour), Energy: number(0.021)}, {Start: read.Truncate(time.Hour).Add(-time.Hour)}},
			Days:  []Bar{{Start: read.Truncate(24 * time.Hour), Energy: number(0.4)}}, Title: "Heat energy", Unit: "GJ", Source: "memory",
		}},
		followers: map[int]func(Message){},
	}
}

// decimal is unscaled times ten to the power of exponent, as a meter sends it.
func decimal(unscaled int64, exponent int) kmp.Decimal {
	d, err := kmp.NewDecimal(unscaled, exponent)
	if err != nil {
		panic(err) // a number in a test
	}
	return d
}

// publish shows a message to all followers, as the bridge does.
func (f *fakeSource) publish(m Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fn := range f.followers {
		fn(m)
	}
}

// state publishes a new state of a meter and keeps it.
func (f *fakeSource) state(meter, payload string) {
	f.change(func() {
		for i := range f.meters {
			if f.meters[i].Name == meter {
				f.meters[i].State = json.RawMessage(payload)
			}
		}
	})
	f.publish(Message{Topic: "kmp2mqtt/" + meter, Meter: meter, Kind: "state", Payload: []byte(payload)})
}

// change changes the source while others may use it.
func (f *fakeSource) change(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

// following is how many follow.
func (f *fakeSource) following() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.followers)
}

func (f *fakeSource) Bridge() Bridge {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bridge
}

func (f *fakeSource) Meters() []Meter {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.meters)
}

func (f *fakeSource) known(meter string) bool {
	return slices.ContainsFunc(f.Meters(), func(m Meter) bool { return m.Name == meter })
}

func (f *fakeSource) Read(ctx context.Context, meter string, request []byte) ([]byte, error) {
	if f.read != nil {
		return f.read(ctx, meter, request)
	}
	switch {
	case !f.known(meter):
		return []byte(`{"status":"error","error":"unknown meter","data":{}}`), fmt.Errorf("%w: %q", ErrUnknownMeter, meter)
	case len(request) > 0 && !json.Valid(request):
		return []byte(`{"status":"error","error":"malformed JSON","data":{}}`), ErrRequest
	}
	return []byte(`{"status":"ok","data":{"time":"2026-11-21T07:46:00Z","energy_gj":227.4450}}`), nil
}

func (f *fakeSource) Align(ctx context.Context, meter string, length time.Duration, show func(diagnosis.Sample)) (diagnosis.Summary, error) {
	if f.align != nil {
		return f.align(ctx, meter, length, show)
	}
	if !f.known(meter) {
		return diagnosis.Summary{}, ErrUnknownMeter
	}
	const reads = 10
	for i := range reads {
		show(diagnosis.Sample{Code: diagnosis.OK, Echo: true, FirstByte: 40 * time.Millisecond, Good: i + 1, Of: i + 1, Row: i + 1, Locked: i == reads-1})
	}
	return diagnosis.Summary{Reads: reads, Good: reads, Duration: 2 * time.Second, Locked: true, Code: diagnosis.OK}, nil
}

func (f *fakeSource) Frames(meter string) []Frame {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.frames[meter])
}

func (f *fakeSource) Chart(_ context.Context, meter string) (Chart, error) {
	if !f.known(meter) {
		return Chart{}, ErrUnknownMeter
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.charts[meter], nil
}

func (f *fakeSource) Recording(ctx context.Context, meter string, w io.Writer) error {
	if f.record != nil {
		return f.record(ctx, meter, w)
	}
	if !f.known(meter) {
		return ErrUnknownMeter
	}
	_, err := fmt.Fprintf(w, `{"kmp2mqtt":"1.2.3","meter":{"name":%q},"frames":[]}`+"\n", meter)
	return err
}

func (f *fakeSource) Follow(fn func(Message)) (stop func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := f.next
	f.next++
	f.followers[id] = fn
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.followers, id)
	}
}

// The fake is what it stands for.
func TestFake(t *testing.T) {
	var _ Source = newFake(fakeTime)
	for _, m := range newFake(fakeTime).Meters() {
		for _, payload := range []json.RawMessage{m.State, m.Diagnostics, m.Diagnosis} {
			if payload != nil && !json.Valid(payload) {
				t.Errorf("%s: %s", m.Name, payload)
			}
		}
	}
}
