package bridge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"kmp2mqtt/bridge/battery"
	"kmp2mqtt/bridge/history"
	"kmp2mqtt/bridge/numbers"
	"kmp2mqtt/bridge/web"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/diagnosis"
	"kmp2mqtt/kmp/logbook"
	"kmp2mqtt/kmp/sim"
)

// open starts the bridge of a lab and returns its window.
func (l *lab) open(deps Deps, rows *history.Store) *window {
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel, l.done, l.began = cancel, make(chan error, 1), time.Now()
	if deps.Dial = l.dial; deps.Dial == nil {
		deps.Dial = l.lines.dial
	}
	deps.Level, deps.Version, deps.Commit, deps.Started = &l.level, "0.1.0", "abc", l.began
	deps.Log = slog.New(slog.NewTextHandler(&l.logs, nil))
	b := newBridge(l.cfg, deps, nil, rows)
	go func() { l.done <- b.run(ctx) }()
	l.t.Cleanup(func() {
		l.stop()
		time.Sleep(writeTimeout)
	})
	return b.window
}

// The window shows what MQTT has, to the byte, and what stands behind it.
func TestWindowMeters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, _ := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a?model=403&label=Heat /dev/none", usual, "MQTT_URL=mqtt://me:secret@broker")
		l.lines.down["/dev/none"] = true
		w := l.open(Deps{}, nil)
		var heard []web.Message
		stop := w.Follow(func(m web.Message) { heard = append(heard, m) })
		l.pass(time.Minute)

		list := w.Meters()
		if len(list) != 2 || list[0].Name != "house" || list[1].Name != "line-2" {
			t.Fatalf("%+v", list)
		}
		m := list[0]
		for topic, payload := range map[string]string{
			"kmp2mqtt/house": string(m.State), "kmp2mqtt/house/availability": m.Availability,
			"kmp2mqtt/house/diagnostics": string(m.Diagnostics), "kmp2mqtt/house/diagnosis": string(m.Diagnosis),
		} {
			l.want(topic, payload)
		}
		if m.Title != "Heat" || m.Serial != "80123456" || m.ReadsOK != 1 || m.Condition.Code != diagnosis.OK || !m.Rated || m.Quality != 100 || m.Reading.IsZero() {
			t.Errorf("%+v", m)
		}
		if n := len(m.Durations.Counts); n != len(m.Durations.Bounds)+1 || inAll(m.Durations.Counts) != 1 {
			t.Errorf("%+v", m.Durations)
		}
		i := slices.IndexFunc(m.Values, func(v web.Value) bool { return v.Key == "energy_gj" })
		if i < 0 || m.Values[i].Unit != "GJ" || m.Values[i].Title != "Energy" || !m.Values[i].Counter || m.Values[i].Value == nil {
			t.Errorf("%+v", m.Values)
		}
		if other := list[1]; other.Condition.Code != diagnosis.PortMissing || other.Condition.NextStep == "" || other.ReadsFailed["line_closed"] == 0 || other.State != nil {
			t.Errorf("%+v", other)
		}
		b := w.Bridge()
		if b.Version != "0.1.0" || !b.Connected || strings.Contains(fmt.Sprint(b), "secret") || len(b.Brokers) != 1 || b.Brokers[0] != "mqtt://broker:1883" || b.Stuck != nil {
			t.Errorf("%+v", b)
		}
		if i := slices.IndexFunc(heard, func(m web.Message) bool {
			return m.Kind == "state" && m.Meter == "house" && m.Topic == "kmp2mqtt/house"
		}); i < 0 {
			t.Errorf("%v", heard)
		}
		if slices.ContainsFunc(heard, func(m web.Message) bool { return !strings.HasPrefix(m.Topic, "kmp2mqtt/") || m.Kind == "" }) {
			t.Error("something is shown that is not the bridge's")
		}
		stop()
		n := len(heard)
		l.pass(time.Hour)
		if len(heard) != n {
			t.Error("a follower who left still hears")
		}
	})
}

func inAll(counts []uint64) (n uint64) {
	for _, c := range counts {
		n += c
	}
	return n
}

// What can be asked for at the window, and how it is refused.
func TestWindowRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a?model=403", usual)
		w := l.open(Deps{}, nil)
		l.pass(time.Minute)
		ask := func(meter, request string) (string, error) {
			t.Helper()
			answer, err := w.Read(t.Context(), meter, []byte(request))
			if !json.Valid(answer) {
				t.Errorf("%s %s: %s", meter, request, answer)
			}
			return string(answer), err
		}
		if answer, err := ask("house", ""); err != nil || !strings.Contains(answer, `"status":"ok"`) || !strings.Contains(answer, `"energy_gj":`) {
			t.Errorf("%s, %v", answer, err)
		}
		l.pass(5 * time.Minute)
		if answer, err := ask("house", `{"registers":["power",9999],"transaction":7}`); err != nil || !strings.Contains(answer, `"power_`) || !strings.Contains(answer, `9999`) || !strings.Contains(answer, `"transaction":7`) {
			t.Errorf("%s, %v", answer, err)
		}
		for _, request := range []string{"{", `{"registers":[]}`, `{"registers":["rubbish"]}`, `[]`, `{"what":1}`} {
			if answer, err := ask("house", request); !errors.Is(err, web.ErrRequest) || !strings.Contains(answer, `"status":"error"`) {
				t.Errorf("%s: %s, %v", request, answer, err)
			}
		}
		if answer, err := ask("nobody", ""); !errors.Is(err, web.ErrUnknownMeter) || !strings.Contains(answer, `"error":"unknown meter \"nobody\"; known: house"`) {
			t.Errorf("%s, %v", answer, err)
		}
		var retry *web.RetryError
		var err error
		for range 100 {
			if _, err = ask("house", ""); err != nil {
				break
			}
		}
		if !errors.As(err, &retry) || retry.After <= 0 {
			t.Errorf("a hundred readings in a row: %v", err)
		}
		l.pass(10 * time.Minute)
		m.change(func(m *testMeter) { m.silent = true })
		if answer, err := ask("house", ""); err == nil || errors.As(err, &retry) || errors.Is(err, web.ErrRequest) || !strings.Contains(answer, `"status":"error"`) {
			t.Errorf("of a silent meter: %s, %v", answer, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		l.pass(10 * time.Minute)
		if _, err := w.Read(ctx, "house", nil); !errors.Is(err, context.Canceled) {
			t.Errorf("who has left is told %v", err)
		}
	})
}

// Somebody moves the head: each read shows, the meter's turn comes after it, and the
// battery's account has it.
func TestWindowAlign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, _ := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a?model=403&interval=1m", usual)
		w := l.open(Deps{}, nil)
		l.pass(90 * time.Second)
		before := w.Meters()[0]
		var samples []diagnosis.Sample
		summary, err := w.Align(t.Context(), "house", 20*time.Second, func(s diagnosis.Sample) { samples = append(samples, s) })
		if err != nil || !summary.Locked || summary.Reads != len(samples) || len(samples) < 50 || !samples[len(samples)-1].Locked {
			t.Fatalf("%+v of %d samples, %v", summary, len(samples), err)
		}
		after := w.Meters()[0]
		if after.Today.Commands != before.Today.Commands+1+uint64(len(samples))/alignFrames || after.Quality != 100 || after.Today.Awake <= before.Today.Awake {
			t.Errorf("it cost %+v, before %+v", after.Today, before.Today)
		}
		l.pass(2 * time.Minute)
		if m := w.Meters()[0]; m.ReadsOK < before.ReadsOK+2 || m.Availability != "online" {
			t.Errorf("after it: %d readings of %d, %s", m.ReadsOK, before.ReadsOK, m.Availability)
		}

		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began, n := time.Now(), 0
		if _, err := w.Align(ctx, "house", time.Hour, func(diagnosis.Sample) { n++ }); !errors.Is(err, context.DeadlineExceeded) && err != nil || time.Since(began) > 5*time.Second || n == 0 {
			t.Errorf("whoever left after 3 s was shown %d reads for %v: %v", n, time.Since(began), err)
		}
		l.pass(time.Second)
		seen := n
		l.pass(time.Minute)
		if n != seen {
			t.Error("reads go on for nobody")
		}
		if _, err := w.Align(t.Context(), "nobody", time.Second, nil); !errors.Is(err, web.ErrUnknownMeter) {
			t.Errorf("%v", err)
		}
		l.lines.cut("/dev/a")
		if _, err := w.Align(t.Context(), "house", time.Second, func(diagnosis.Sample) {}); err == nil || !strings.Contains(err.Error(), "/dev/a") {
			t.Errorf("on a line that is not there: %v", err)
		}
	})
}

// A meter that is really called line-2 keeps that name to itself.
func TestWindowPlaceNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, _ := one(t)
		l := newLab(t, meters, "METERS=line-2=/dev/a?model=403 /dev/none", usual)
		l.lines.down["/dev/none"] = true
		w := l.open(Deps{}, nil)
		l.pass(time.Minute)
		list := w.Meters()
		if list[0].Name != "line-2" || list[1].Name != "line-2-" {
			t.Errorf("%q and %q", list[0].Name, list[1].Name)
		}
		for i, m := range list {
			if at, ok := w.find(m.Name); !ok || at != i {
				t.Errorf("%s is found at %d", m.Name, at)
			}
		}
	})
}

// A meter that never answered can be aligned as well: that is when it is needed most.
func TestWindowAlignUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		m.silent = true
		l := newLab(t, meters, "METERS=/dev/a", usual)
		w := l.open(Deps{}, nil)
		l.pass(time.Minute)
		var last diagnosis.Sample
		go func() {
			time.Sleep(10 * time.Second)
			m.change(func(m *testMeter) { m.silent = false })
		}()
		summary, err := w.Align(t.Context(), "line-1", 40*time.Second, func(s diagnosis.Sample) { last = s })
		if err != nil || !summary.Locked || !last.Locked {
			t.Fatalf("%+v, %v", summary, err)
		}
		l.pass(10 * time.Second) // and it is read as soon as the head sits
		if list := w.Meters(); list[0].Name != "80123456" || list[0].ReadsOK == 0 {
			t.Errorf("%+v", list[0])
		}
	})
}

// What a window records is a meter again.
func TestWindowRecording(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, _ := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a?model=403", usual, "MQTT_PASSWORD=s3cret", "MQTT_USERNAME=me")
		w := l.open(Deps{}, nil)
		l.pass(26 * time.Hour)
		frames := w.Frames("house")
		if len(frames) != tapeFrames || frames[len(frames)-1].Direction != kmp.FromMeter || w.Frames("nobody") != nil {
			t.Errorf("%d frames", len(frames))
		}
		var bundle bytes.Buffer
		if err := w.Recording(t.Context(), "house", &bundle); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(bundle.String(), "s3cret") {
			t.Error("the password is in it")
		}
		r, err := sim.ReadRecording(&bundle)
		if err != nil {
			t.Fatal(err)
		}
		c := kmp.NewConn(r.Line(t.Context()), kmp.Options{})
		defer c.Close()
		serial, err := c.GetSerialNo(t.Context(), kmp.HeatMeter)
		if err != nil || serial != 80123456 {
			t.Errorf("serial number %d, %v", serial, err)
		}
		registers, err := c.GetRegister(t.Context(), kmp.HeatMeter, 60, 80)
		if err != nil || len(registers) != 2 {
			t.Fatalf("%v, %v", registers, err)
		}
		shown := w.Meters()[0].Values
		for _, reg := range registers {
			v, err := numbers.Decode(reg)
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(shown, func(o web.Value) bool { return o.ID == reg.ID })
			if i < 0 || shown[i].Value != v.Value {
				t.Errorf("register %d is %v in the recording, %v at the window", reg.ID, v.Value, shown)
			}
		}
		if err := w.Recording(t.Context(), "nobody", io.Discard); !errors.Is(err, web.ErrUnknownMeter) {
			t.Errorf("%v", err)
		}
	})
}

// The service manager hears when the bridge is ready, and nothing any more once a line is stuck.
func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, _ := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a?interval=10s", usual)
		var mu sync.Mutex
		stuck := false
		heard := map[string][]time.Time{}
		l.dial = func(ctx context.Context, line string) (kmp.Line, error) {
			mu.Lock()
			hangs := stuck
			mu.Unlock()
			if hangs { // a driver that does not come back, whatever one wants of it
				time.Sleep(time.Hour)
			}
			return l.lines.dial(ctx, line)
		}
		l.open(Deps{Watchdog: time.Minute, Notify: func(state string) {
			mu.Lock()
			defer mu.Unlock()
			word, _, _ := strings.Cut(state, "\n")
			heard[word] = append(heard[word], time.Now())
		}}, nil)
		l.pass(30 * time.Second)
		mu.Lock()
		if ready := heard["READY=1"]; len(ready) != 1 || ready[0].Sub(l.began) > 5*time.Second {
			t.Errorf("ready at %v, began %v", ready, l.began)
		}
		stuck = true
		mu.Unlock()
		l.lines.cut("/dev/a")
		cut := time.Now()
		l.pass(20 * time.Minute)
		mu.Lock()
		last := heard["WATCHDOG=1"][len(heard["WATCHDOG=1"])-1]
		mu.Unlock()
		if after := last.Sub(cut); after < time.Minute || after > stuckAfter+2*time.Minute {
			t.Errorf("the last sign of life came %v after the line got stuck", after)
		}
		if n := len(l.logs.lines("a line is stuck")); n != 1 {
			t.Errorf("logged %d times", n)
		}
		l.stop()
		l.pass(time.Second)
		mu.Lock()
		if len(heard["STOPPING=1"]) != 1 {
			t.Errorf("%v", heard)
		}
		mu.Unlock()
		time.Sleep(time.Hour) // the driver comes back
	})
}

// Without a line, without a broker: the bridge is ready as soon as it has tried.
func TestReportNothingThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, _ := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", usual)
		l.lines.down["/dev/a"] = true
		l.broker.down(true)
		ready := make(chan string, 100)
		l.open(Deps{Notify: func(state string) { ready <- state }}, nil)
		l.pass(readyLimit)
		if state := <-ready; state != "READY=1\nSTATUS=0 of 1 meters online, no broker" {
			t.Errorf("%q", state)
		}
	})
}

// chartReading is a reading of meters; what is empty is unknown.
func chartReading(serial string, at time.Time, values map[uint16]string) Reading {
	units := map[uint16]kmp.Unit{60: 0x08, 68: 0x27, 80: 0x16, 63: 0x08}
	r := Reading{Time: at, Meter: Meter{Serial: serial}}
	for id, s := range values {
		v := numbers.Value{Register: catalog.Lookup(id), Unit: units[id], Key: catalog.Key(catalog.Lookup(id).Name, units[id])}
		if d, err := kmp.ParseDecimal(s); err == nil {
			v.Value = d
		}
		r.Values = append(r.Values, v)
	}
	return r
}

func inPlace(t *testing.T, zone string, interval time.Duration) MeterConfig {
	t.Helper()
	z, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	return MeterConfig{Zone: z, Interval: interval}
}

// barTexts writes bars as one line each: their beginning and what was used, - where that is unknown.
func barTexts(list []web.Bar) []string {
	var lines []string
	for _, b := range list {
		used := "-"
		if b.Energy != nil {
			used = fmt.Sprint(*b.Energy)
		}
		lines = append(lines, b.Start.Format("2 15:04 ")+used)
	}
	return lines
}

// Memory has the curves of a day in a fixed number of points, and bars between full hours.
func TestChartMemory(t *testing.T) {
	m := inPlace(t, "Europe/Copenhagen", 10*time.Second)
	var c chart
	start := time.Date(2026, 11, 20, 21, 50, 0, 0, m.Zone)
	for i := range 4 * 24 * 360 { // four days, every 10 s: 0.36 GJ an hour
		at := start.Add(time.Duration(i) * 10 * time.Second)
		power := "1.5"
		if i%7 == 0 {
			power = ""
		}
		c.note(m, chartReading("1", at, map[uint16]string{60: fmt.Sprintf("%d.%03d", i/1000, i%1000), 80: power}))
		if len(c.points) > chartPoints || len(c.hours) > chartHours+1 || len(c.days) > chartDays+1 {
			t.Fatalf("%d points, %d hours, %d days", len(c.points), len(c.hours), len(c.days))
		}
	}
	times, series := c.curves()
	if span := times[len(times)-1] - times[0]; len(times) < chartPoints/3 || span < 23*3600 || span > 24*3600 || !slices.IsSorted(times) {
		t.Errorf("%d points over %d s", len(times), span)
	}
	if len(series) != 1 || series[0].Key != "power_kw" || series[0].Unit != "kW" || len(series[0].Values) != len(times) {
		t.Fatalf("%+v", series)
	}
	known := 0
	for _, v := range series[0].Values {
		if v != nil && *v != 1.5 {
			t.Fatalf("%v kW", *v)
		} else if v != nil {
			known++
		}
	}
	if known == 0 || known == len(times) {
		t.Errorf("%d of %d powers are known", known, len(times))
	}
	bars := c.bars(nil, m.Zone)
	if bars.Unit != "GJ" || bars.Title != "Energy" || bars.Source != "memory" || len(bars.Hours) != chartHours {
		t.Fatalf("%d hours of %s in %s", len(bars.Hours), bars.Title, bars.Unit)
	}
	for _, b := range bars.Hours[:chartHours-1] {
		if b.Energy == nil || *b.Energy != 0.36 || b.Start.Minute() != 0 {
			t.Fatalf("%v: %v", b.Start, b.Energy)
		}
	}
	if diff := cmp.Diff([]string{"21 00:00 8.64", "22 00:00 8.64", "23 00:00 8.64", "24 00:00 7.859"}, barTexts(bars.Days)); diff != "" {
		t.Error(diff)
	}

	// Three hours without a reading: nobody knows how they divide, nor whose what came after is.
	at := start.Add(4*24*time.Hour + 3*time.Hour)
	c.note(m, chartReading("1", at, map[uint16]string{60: "40.000"}))
	if h := barTexts(c.bars(nil, m.Zone).Hours); h[len(h)-1] != "24 20:00 0.36" {
		t.Errorf("%q", h[len(h)-3:])
	}
	for i := range 400 {
		c.note(m, chartReading("1", at.Add(time.Duration(i)*10*time.Second), map[uint16]string{60: fmt.Sprintf("40.%03d", i)}))
	}
	h := barTexts(c.bars(nil, m.Zone).Hours)
	if diff := cmp.Diff([]string{"24 20:00 0.36", "24 21:00 -", "24 22:00 -", "24 23:00 -", "25 00:00 -", "25 01:00 0.339"}, h[len(h)-6:]); diff != "" {
		t.Error(diff)
	}
	// Another meter, and a counter that fell: nothing of before is left.
	c.note(m, chartReading("2", at.Add(5*time.Hour), map[uint16]string{60: "1.000", 80: "1"}))
	if bars := c.bars(nil, m.Zone); len(bars.Hours) != 0 || len(c.points) != 1 {
		t.Errorf("%+v, %d points", bars, len(c.points))
	}
}

// The bars of the meter's own log are the differences of its rows, a missing row leaves a hole,
// and memory has what is newer.
func TestChartLog(t *testing.T) {
	m := inPlace(t, "UTC", 10*time.Minute)
	var c chart
	now := time.Date(2026, 11, 20, 12, 10, 0, 0, m.Zone)
	c.note(m, chartReading("1", now, map[uint16]string{60: "36.00", 68: "5"}))
	row := func(at time.Time, unscaled int64) logbook.Row {
		d, err := kmp.NewDecimal(unscaled, -2)
		if err != nil {
			t.Fatal(err)
		}
		register, err := kmp.NewRegister(60, 0x08, d, 4)
		if err != nil {
			t.Fatal(err)
		}
		return logbook.Row{Log: kmp.LogHour, Time: at, Registers: []kmp.Register{register}}
	}
	var rows []logbook.Row
	start := time.Date(2026, 10, 21, 0, 0, 0, 0, m.Zone)
	for i := range 30*24 + 1 { // up to 20 November, 0:00
		if i != 30*24-10 {
			rows = append(rows, row(start.Add(time.Duration(i)*time.Hour), int64(i*5)))
		}
	}
	log := c.marks(rows, m.Zone)
	bars := c.bars(log, m.Zone)
	if bars.Source != "log" || bars.Unit != "GJ" || len(bars.Hours) != chartHours || len(bars.Days) != 31 {
		t.Fatalf("%d hours and %d days of %s", len(bars.Hours), len(bars.Days), bars.Source)
	}
	h, d := barTexts(bars.Hours), barTexts(bars.Days)
	if diff := cmp.Diff([]string{"19 12:00 0.05", "19 13:00 -", "19 14:00 -", "19 15:00 0.05"}, h[36:40]); diff != "" {
		t.Error(diff)
	}
	if d[0] != "21 00:00 1.2" || d[29] != "19 00:00 1.2" || d[30] != "20 00:00 0" {
		t.Errorf("%q", d)
	}
	// Two hours of today are only in memory yet.
	for i := range 13 {
		c.note(m, chartReading("1", now.Add(time.Duration(i)*10*time.Minute), map[uint16]string{60: fmt.Sprintf("36.%02d", i)}))
	}
	h = barTexts(c.bars(log, m.Zone).Hours)
	if diff := cmp.Diff([]string{"20 12:00 -", "20 13:00 0.06", "20 14:00 0.01"}, h[len(h)-3:]); diff != "" {
		t.Error(diff)
	}
	d = barTexts(c.bars(log, m.Zone).Days)
	if d[len(d)-1] != "20 00:00 0.12" {
		t.Errorf("%q", d[len(d)-3:])
	}
	// Days without rows are not in the day before them.
	gap := c.marks(append(rows[:5*24+1:5*24+1], row(start.AddDate(0, 0, 9).Add(5*time.Hour), 9999)), m.Zone)
	if diff := cmp.Diff([]string{"24 00:00 1.2", "25 00:00 1.2"}, barTexts(c.bars(gap, m.Zone).Days)[3:5]); diff != "" {
		t.Error(diff)
	}
}

// Hours and days are those of the meter's clock: of zones with half hours, of days that begin
// at one o'clock, and across a computer's clock that was wrong.
func TestChartZones(t *testing.T) {
	for zone, start := range map[string]time.Time{
		"Asia/Kolkata":     time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC),
		"America/Santiago": time.Date(2026, 9, 4, 12, 0, 0, 0, time.UTC),
		"Europe/Berlin":    time.Date(2026, 10, 24, 12, 0, 0, 0, time.UTC),
	} {
		m := inPlace(t, zone, 10*time.Minute)
		var c chart
		var rows []logbook.Row
		for i := range 4 * 24 * 6 {
			at := start.Add(time.Duration(i) * 10 * time.Minute)
			c.note(m, chartReading("1", at, map[uint16]string{60: fmt.Sprint(i)}))
			if local := at.In(m.Zone); local.Minute() == 0 {
				d, err := kmp.NewDecimal(int64(i), 0)
				if err != nil {
					t.Fatal(err)
				}
				register, err := kmp.NewRegister(60, 0x08, d, 4)
				if err != nil {
					t.Fatal(err)
				}
				rows = append(rows, logbook.Row{Log: kmp.LogHour, Time: local, Registers: []kmp.Register{register}})
			}
		}
		memory, log := c.bars(nil, m.Zone), c.bars(c.marks(rows, m.Zone), m.Zone)
		for name, bars := range map[string]web.Chart{"memory": memory, "log": log} {
			if len(bars.Hours) != chartHours || len(bars.Days) < 3 || len(bars.Days) > 5 {
				t.Fatalf("%s, %s: %d hours, %q", zone, name, len(bars.Hours), barTexts(bars.Days))
			}
			for _, b := range bars.Hours[:chartHours-1] {
				if b.Start.In(m.Zone).Minute() != 0 || b.Energy == nil || *b.Energy != 6 {
					t.Errorf("%s, %s: %v %v", zone, name, b.Start, b.Energy)
				}
			}
			for _, b := range bars.Days[:len(bars.Days)-1] {
				hours := battery.NextDay(b.Start).Sub(b.Start).Hours()
				if b.Energy == nil || *b.Energy != 6*hours {
					t.Errorf("%s, %s: %v %v", zone, name, b.Start, b.Energy)
				}
			}
		}
		c.note(m, chartReading("1", start.AddDate(0, 5, 0), map[uint16]string{60: "2000"}))
		c.note(m, chartReading("1", start.AddDate(0, 5, 0).Add(90*time.Minute), map[uint16]string{60: "2009"}))
		if bars := c.bars(nil, m.Zone); len(bars.Hours) > 2 || len(bars.Days) > chartDays {
			t.Errorf("%s: %d hours, %d days after the clock was set right", zone, len(bars.Hours), len(bars.Days))
		}
	}
}

// A meter without energy has bars of what it counts; one that is read rarely has those of days.
func TestChartCounters(t *testing.T) {
	m := inPlace(t, "UTC", 6*time.Hour)
	var c chart
	start := time.Date(2026, 11, 20, 3, 0, 0, 0, time.UTC)
	for i := range 10 {
		c.note(m, chartReading("1", start.Add(time.Duration(i)*6*time.Hour), map[uint16]string{68: fmt.Sprint(i)}))
	}
	bars := c.bars(nil, m.Zone)
	if diff := cmp.Diff([]string{"21 00:00 4", "22 00:00 1.5"}, barTexts(bars.Days)); diff != "" || bars.Title != "Volume" || bars.Unit != "l" || len(bars.Hours) != 0 {
		t.Errorf("%s %s, %d hours: %s", bars.Title, bars.Unit, len(bars.Hours), diff)
	}
	c.note(m, chartReading("1", start.AddDate(0, 0, 3), map[uint16]string{68: "11", 63: "1", 60: "5"}))
	c.note(m, chartReading("1", start.AddDate(0, 0, 4), map[uint16]string{68: "12", 63: "2", 60: ""})) // held
	if bars := c.bars(nil, m.Zone); bars.Title != "Energy" {
		t.Errorf("%s where there is energy", bars.Title)
	}
}

// A tape is bounded, and keeps of each request the newest answer.
func TestTape(t *testing.T) {
	var tp tape
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	note := func(dir kmp.Direction, wire ...byte) {
		at = at.Add(time.Second)
		tp.note(at, dir, wire)
	}
	serial := []byte{0x80, 0x3F, byte(kmp.CmdGetSerialNo), 0x35, 0xE9, 0x0D}
	note(kmp.ToMeter, serial...)
	note(kmp.FromMeter, 2)
	for i := range 100 { // pages of a log
		note(kmp.ToMeter, 0x80, 0x3F, byte(kmp.CmdLogger), byte(i))
		note(kmp.FromMeter, 5)
	}
	for range 100 {
		note(kmp.ToMeter, 3)
		note(kmp.FromMeter, bytes.Repeat([]byte{4}, 1000)...)
	}
	if frames := tp.newest(); len(frames) != tapeFrames {
		t.Errorf("%d frames", len(frames))
	}
	if all := tp.all(); len(all) != tapeFrames+2 || !bytes.Equal(all[0].Wire, serial) || all[1].Wire[0] != 2 {
		t.Errorf("%d frames, %v", len(all), all[0])
	}
	for i := range 200 {
		note(kmp.ToMeter, 5, byte(i))
		note(kmp.FromMeter, bytes.Repeat([]byte{6}, 5000)...)
		note(kmp.ToMeter, 0x80, 0x3F, byte(kmp.CmdGetRegister), byte(i))
		note(kmp.FromMeter, 8)
		note(kmp.ToMeter, 9)
		note(kmp.FromMeter)
	}
	if len(tp.kinds) > tapeKinds || tp.bytes > tapeBytes || len(tp.frames) > tapeFrames {
		t.Errorf("%d kinds, %d bytes, %d frames", len(tp.kinds), tp.bytes, len(tp.frames))
	}
	total := 0
	for _, f := range tp.frames {
		total += len(f.Wire)
	}
	if total != tp.bytes {
		t.Errorf("%d bytes are %d", total, tp.bytes)
	}
}

// A hundred who look cost a publisher a list to walk.
func BenchmarkWindowPublish(b *testing.B) {
	br := &bridge{topics: topics{base: "kmp2mqtt", discovery: "homeassistant"}}
	w := newWindow(br, nil)
	for range 100 {
		defer w.Follow(func(web.Message) {})()
	}
	msgs := []Message{{Topic: "kmp2mqtt/house", Payload: bytes.Repeat([]byte("x"), 600), Retain: true}}
	b.ReportAllocs()
	for b.Loop() {
		w.publish(msgs)
	}
}
