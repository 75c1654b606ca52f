package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"kmp2mqtt/bridge/store"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/diagnosis"
	"kmp2mqtt/kmp/sim"
)

// journal is everything that a bridge hands to its outbox, in order.
type journal struct {
	mu   sync.Mutex
	msgs []Message
}

func (j *journal) tap(m Message) {
	j.mu.Lock()
	defer j.mu.Unlock()
	m.Payload = slices.Clone(m.Payload)
	j.msgs = append(j.msgs, m)
}

func (j *journal) all() []Message {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.msgs)
}

// houseMeter has the registers by which places go on, and its own serial number in one.
func houseMeter(t *testing.T, serial uint32, energy, volume, hours string) *testMeter {
	t.Helper()
	m := newTestMeter(t, serial)
	m.become(t, serial, energy, volume, hours)
	return m
}

// become puts another meter in the place of m.
func (m *testMeter) become(t *testing.T, serial uint32, energy, volume, hours string) {
	t.Helper()
	m.change(func(m *testMeter) { m.serial = serial })
	m.set(number(t, serialRegister, kmp.UnitNumber, fmt.Sprint(serial)), number(t, 60, kmp.UnitGJ, energy),
		number(t, 68, kmp.UnitCubicMetre, volume), number(t, 1004, kmp.UnitHour, hours))
}

const placeRegisters = "REGISTERS=60,68,80,1004"

// TestPlaceChanged looks at every message around the change of a meter: nothing that the new
// one counts appears under the identity of the former.
func TestPlaceChanged(t *testing.T) {
	for _, tt := range []struct {
		name    string
		line    string
		off     bool // the bridge is off while the meter is changed
		without bool // the register of the serial number
	}{
		{"while it runs", "house=/dev/a", false, false},
		{"while it runs, without the register", "house=/dev/a", false, true},
		{"while it is off", "house=/dev/a", true, false},
		{"while it is off, without the register", "house=/dev/a", true, true},
		{"without a name", "/dev/a", false, false},
		{"without a name, while it is off", "/dev/a", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := houseMeter(t, 111, "227.445", "2131.93", "7039")
				settings := []string{"METERS=" + tt.line, placeRegisters, "READ_INTERVAL=10m", "DATA_DIR=" + t.TempDir()}
				meters := map[string]*testMeter{"/dev/a": m}
				l := newLab(t, meters, settings...)
				var j journal
				l.tap = j.tap
				broker := l.broker
				l.start()
				l.pass(censusOver)
				if tt.off {
					l.stop()
				}
				// More energy than before: no counter falls that would betray it.
				m.become(t, 222, "500.5", "9000.01", "9000")
				if tt.without {
					m.change(func(m *testMeter) { delete(m.registers, serialRegister) })
				}
				changed := len(j.all())
				if tt.off {
					l = newLab(t, meters, settings...)
					l.broker = broker // it keeps what was retained
					l.cfg.MQTT.Dial = broker.dial
					l.tap = j.tap
					l.start()
				}
				l.pass(11 * time.Minute)
				name, former := "house", "111"
				if tt.line == "/dev/a" {
					name = "222"
				}
				introduced := false
				for _, msg := range j.all()[changed:] {
					payload := string(msg.Payload)
					if strings.Contains(payload, `"meter_changed"`) {
						introduced = true
						if !strings.Contains(payload, `"data":{"continued":false,"from":"111","to":"222"}`) {
							t.Error(payload)
						}
					}
					if strings.Contains(payload, "500.5") && (!introduced || msg.Topic != "kmp2mqtt/"+name) {
						t.Errorf("%s: %s", msg.Topic, payload)
					}
					if msg.Topic == "homeassistant/device/kmp_111/config" && strings.Contains(payload, `"kmp2mqtt/`+name+`"`) && introduced {
						t.Errorf("the former meter has the topics of the new one: %s", payload)
					}
				}
				if !introduced {
					t.Error("nothing tells of the change")
				}
				if got := broker.retained()["kmp2mqtt/"+former+"/availability"]; got != "offline" {
					t.Errorf("the former meter is %q", got)
				}
				l.want("kmp2mqtt/"+name+"/availability", "online")
				if config := broker.retained()["homeassistant/device/kmp_111/config"]; !strings.Contains(config, `"kmp2mqtt/111/availability"`) || !strings.Contains(config, "kmp_111_energy") {
					t.Errorf("the former meter is announced as %s", config)
				}
				if config := broker.retained()["homeassistant/device/kmp_222/config"]; !strings.Contains(config, `"kmp2mqtt/`+name+`/availability"`) {
					t.Errorf("the new meter is announced as %s", config)
				}
				if d := l.diagnostics(name); d.Serial == nil || *d.Serial != "222" {
					t.Errorf("%+v", d)
				}
				if len(l.eventsOf("value_held")) > 0 {
					t.Errorf("%q", l.events())
				}
			})
		})
	}
}

// TestPlaceContinues changes the meter of a place twice, once while the bridge is off: its
// totals go on.
func TestPlaceContinues(t *testing.T) {
	for _, line := range []string{"house=/dev/a?continue=true", "/dev/a?continue=true"} {
		t.Run(line, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				settings := []string{"METERS=" + line, placeRegisters, "READ_INTERVAL=10m", "DATA_DIR=" + t.TempDir()}
				m := houseMeter(t, 111, "227.445", "2131.93", "7039")
				meters := map[string]*testMeter{"/dev/a": m}
				name := "house"
				if !strings.HasPrefix(line, name) {
					name = "111"
				}
				var l *lab
				begin := func() {
					l = newLab(t, meters, settings...)
					l.start()
				}
				want := func(state string) {
					t.Helper()
					got := []string{value(t, l.retained("kmp2mqtt/"+name), "energy_gj"), value(t, l.retained("kmp2mqtt/"+name), "volume_m3"), value(t, l.retained("kmp2mqtt/"+name), "operating_hours_h")}
					if diff := cmp.Diff(state, strings.Join(got, " ")); diff != "" {
						t.Error(diff)
					}
					if config := l.retained("homeassistant/device/kmp_111/config"); !strings.Contains(config, `"kmp_111_energy"`) || !strings.Contains(config, `"kmp2mqtt/`+name+`"`) {
						t.Errorf("announced as %s", config)
					}
					for topic := range l.broker.retained() {
						if strings.Contains(topic, "kmp_222") || strings.Contains(topic, "kmp_333") || topic == "kmp2mqtt/222" || topic == "kmp2mqtt/333" {
							t.Errorf("%s is there", topic)
						}
					}
					l.want("kmp2mqtt/"+name+"/availability", "online")
				}
				begin()
				l.pass(censusOver)
				want("227.445 2131.93 7039")
				m.become(t, 222, "0.010", "0.20", "1")
				l.pass(10 * time.Minute)
				want("227.445 2131.93 7039")
				if e := l.eventsOf("meter_changed"); len(e) != 1 || fmt.Sprint(e[0].Data["continued"]) != "true" {
					t.Errorf("%+v", e)
				}
				m.become(t, 222, "0.510", "5.20", "9")
				l.pass(10 * time.Minute)
				want("227.945 2136.93 7047")
				if d := l.diagnostics(name); *d.Serial != "222" {
					t.Errorf("%+v", d)
				}
				l.stop()
				m.become(t, 222, "1.510", "6.20", "10")
				begin()
				l.pass(11 * time.Minute)
				want("228.945 2137.93 7048")
				if got := l.command("kmp2mqtt/"+name+"/get", `{"registers":["energy"]}`, "kmp2mqtt/"+name+"/response", 5*time.Second); len(got) != 1 || !strings.Contains(got[0], `"energy_gj":228.945`) {
					t.Errorf("%s", got)
				}
				l.stop()
				m.become(t, 333, "40.000", "400.00", "500") // it was used elsewhere before
				begin()
				l.pass(11 * time.Minute)
				want("228.945 2137.93 7048")
				m.become(t, 333, "40.055", "400.50", "501")
				l.pass(10 * time.Minute)
				want("229.000 2138.43 7049")
				l.stop()
				begin()
				l.pass(time.Minute)
				want("229.000 2138.43 7049")
				if e := l.eventsOf("meter_changed", "value_held"); e != nil {
					t.Errorf("%+v", e)
				}
				// One bad number is held in the total, too.
				l.pass(9*time.Minute - time.Second)
				m.become(t, 333, "12.000", "400.50", "501")
				l.pass(2 * time.Minute / 60)
				m.become(t, 333, "40.056", "400.50", "501")
				l.pass(15 * time.Minute)
				want("229.001 2138.43 7049")
				for _, v := range l.values(name, "energy_gj") {
					if v != "229.000" && v != "229.001" {
						t.Errorf("published: %s", v)
					}
				}
			})
		})
	}
}

// TestPlaceBack puts the first meter back after another one had its place.
func TestPlaceBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := houseMeter(t, 111, "100.000", "10.00", "10")
		l := newLab(t, map[string]*testMeter{"/dev/a": m}, "METERS=house=/dev/a?continue=true", placeRegisters, "READ_INTERVAL=10m", "DATA_DIR="+t.TempDir())
		l.start()
		l.pass(censusOver)
		m.become(t, 222, "5.000", "1.00", "1")
		l.pass(10 * time.Minute)
		m.become(t, 222, "6.000", "2.00", "2")
		l.pass(10 * time.Minute)
		m.become(t, 111, "100.000", "10.00", "10")
		l.pass(10 * time.Minute)
		if got := value(t, l.retained("kmp2mqtt/house"), "energy_gj"); got != "101.000" {
			t.Errorf("energy is %s", got)
		}
		m.become(t, 111, "100.500", "10.50", "11")
		l.pass(10 * time.Minute)
		if got := value(t, l.retained("kmp2mqtt/house"), "energy_gj"); got != "101.500" {
			t.Errorf("energy is %s", got)
		}
		if got := l.eventsOf("value_held"); got != nil {
			t.Errorf("%+v", got)
		}
	})
}

// TestPlaceUnit goes on with a meter that counts in another unit: that is another key.
func TestPlaceUnit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := houseMeter(t, 111, "100.000", "10.00", "10")
		l := newLab(t, map[string]*testMeter{"/dev/a": m}, "METERS=house=/dev/a?continue=true", placeRegisters, "READ_INTERVAL=10m", "DATA_DIR="+t.TempDir())
		l.start()
		l.pass(censusOver)
		m.become(t, 222, "0", "1.00", "1")
		m.set(number(t, 60, kmp.UnitMWh, "3.250"))
		l.pass(10 * time.Minute)
		state := l.retained("kmp2mqtt/house")
		if got := value(t, state, "energy_mwh"); got != "3.250" {
			t.Errorf("energy is %s in %s", got, state)
		}
		if got := value(t, state, "volume_m3"); got != "10.00" {
			t.Errorf("volume is %s in %s", got, state)
		}
		if got := value(t, state, "energy_gj"); got != "" && got != "null" {
			t.Errorf("energy in GJ is %s", got)
		}
		m.set(number(t, 60, kmp.UnitMWh, "3.350"))
		l.pass(10 * time.Minute)
		if got := value(t, l.retained("kmp2mqtt/house"), "energy_mwh"); got != "3.350" {
			t.Errorf("energy is %s", got)
		}
		var device struct {
			Components map[string]struct {
				Template string `json:"value_template"`
			}
		}
		if err := json.Unmarshal([]byte(l.retained("homeassistant/device/kmp_111/config")), &device); err != nil {
			t.Fatal(err)
		}
		if got := device.Components["energy"].Template; !strings.Contains(got, "energy_mwh") {
			t.Errorf("Home Assistant takes %s", got)
		}
	})
}

// TestPlaceRestart keeps who a meter is and what is known of it, and tells of nothing new.
func TestPlaceRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settings := []string{"METERS=/dev/a", placeRegisters, "READ_INTERVAL=10m", "DATA_DIR=" + t.TempDir()}
		m := houseMeter(t, 111, "100.000", "10.00", "10")
		meters := map[string]*testMeter{"/dev/a": m}
		l := newLab(t, meters, settings...)
		l.start()
		l.pass(censusOver)
		config, state := l.retained("homeassistant/device/kmp_111/config"), l.retained("kmp2mqtt/111")
		l.stop()
		m.change(func(m *testMeter) { m.silent = true })
		l = newLab(t, meters, settings...)
		l.start()
		l.pass(time.Minute)
		l.want("kmp2mqtt/111/availability", "offline") // its name is known before it answers
		m.change(func(m *testMeter) { m.silent = false })
		l.pass(10 * time.Minute)
		l.want("kmp2mqtt/111/availability", "online")
		l.want("homeassistant/device/kmp_111/config", config)
		if diff := cmp.Diff(members(t, []byte(state)), members(t, []byte(l.retained("kmp2mqtt/111")))); diff != "" {
			t.Error(diff)
		}
		if e := l.eventsOf("meter_changed", "census", "value_held", "info_code"); e != nil {
			t.Errorf("%+v", e)
		}
	})
}

// TestPlaceContinuesLater sets continue=true when the new meter is there already, as owners
// do who read about it then.
func TestPlaceContinuesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := "DATA_DIR=" + t.TempDir()
		m := houseMeter(t, 111, "100.000", "10.00", "10")
		meters := map[string]*testMeter{"/dev/a": m}
		l := newLab(t, meters, "METERS=house=/dev/a", placeRegisters, dir)
		l.start()
		l.pass(censusOver)
		l.stop()
		m.become(t, 222, "5.000", "1.00", "1")
		l = newLab(t, meters, "METERS=house=/dev/a?continue=true", placeRegisters, dir)
		l.start()
		l.pass(time.Minute)
		if got := value(t, l.retained("kmp2mqtt/house"), "energy_gj"); got != "100.000" {
			t.Errorf("energy is %s", got)
		}
		if l.retained("homeassistant/device/kmp_111/config") == "" || l.retained("homeassistant/device/kmp_222/config") != "" {
			t.Error("the identity does not stay")
		}
	})
}

// TestPlaceFine goes on with exact counters, too, and with what is published at all.
func TestPlaceFine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Serial: 111, Start: time.Date(2026, 1, 10, 0, 0, 0, 0, time.UTC)}},
			"METERS=house=/dev/a?continue=true", "READ_INTERVAL=10m", "DATA_DIR="+t.TempDir())
		l.start()
		l.pass(30 * time.Hour)
		for i := range 2 {
			sims["/dev/a"].Replace(uint32(222 + i))
			l.pass(30 * time.Hour)
		}
		for _, key := range []string{"energy_gj", "energy_fine_gj", "volume_m3", "operating_hours_h"} {
			last, numbers := new(big.Rat), 0
			for i, v := range l.values("house", key) {
				if v == "null" || v == "" {
					continue
				}
				x := rat(t, v)
				rise := new(big.Rat).Sub(x, last)
				if numbers++; rise.Sign() < 0 || numbers > 1 && rise.Cmp(big.NewRat(2, 1)) > 0 {
					t.Errorf("%s rises by %s at state %d", key, rise.FloatString(6), i)
				}
				last = x
			}
			if n := len(l.values("house", key)); numbers < n*9/10 {
				t.Errorf("%s is known in %d of %d states", key, numbers, n)
			}
		}
		if e := l.eventsOf("value_held"); e != nil {
			t.Errorf("%+v", e)
		}
		if e := l.eventsOf("meter_changed"); len(e) != 2 {
			t.Errorf("%+v", e)
		}
	})
}

// TestPlaceDataDir begins with directories that cannot be used.
func TestPlaceDataDir(t *testing.T) {
	run := func(t *testing.T, dir string) error {
		t.Helper()
		meters, _ := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "DATA_DIR="+dir)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		return Run(ctx, l.cfg, Deps{Dial: l.lines.dial})
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"a file": file, "below a file": filepath.Join(file, "dir"), "in /proc": "/proc/kmp2mqtt"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				err := run(t, dir)
				wrong, ok := errors.AsType[*ConfigError](err)
				if !ok || wrong.Variable != "DATA_DIR" || !strings.HasPrefix(err.Error(), "DATA_DIR: ") || !strings.Contains(err.Error(), filepath.Dir(dir)) {
					t.Errorf("%v", err)
				}
			})
		})
	}
	t.Run("in use", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			meters, _ := one(t)
			l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60", "DATA_DIR="+dir)
			l.start()
			l.pass(time.Minute)
			err := run(t, dir)
			if !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), "DATA_DIR") { // the setting is right
				t.Errorf("%v", err)
			}
			l.pass(time.Hour)
			l.want("kmp2mqtt/house/availability", "online") // the first one goes on
			l.stop()
			if err := run(t, dir); err != nil {
				t.Errorf("when it is free again: %v", err)
			}
		})
	})
}

// TestPlaceDataDirGone takes the directory away from under a running bridge.
func TestPlaceDataDirGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent := t.TempDir()
		dir := filepath.Join(parent, "data")
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60", "READ_INTERVAL=1m", "DATA_DIR="+dir)
		l.start()
		l.pass(censusOver)
		if _, err := os.Stat(filepath.Join(dir, "kmp2mqtt.json")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir, dir+".away"); err != nil {
			t.Fatal(err)
		}
		reads := len(m.reads())
		l.pass(time.Hour)
		if n := len(m.reads()) - reads; n < 59 {
			t.Errorf("%d readings in an hour without the directory", n)
		}
		l.wantDiagnosis("house", diagnosis.OK)
		if got := l.logs.lines("cannot write DATA_DIR"); len(got) != 1 {
			t.Errorf("log: %q", got)
		}
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
		l.pass(2 * time.Minute)
		if got := l.logs.lines("DATA_DIR is written again"); len(got) != 1 {
			t.Errorf("log: %q", l.logs.lines("DATA_DIR"))
		}
		l.stop()
		if got := l.logs.lines("level=ERROR"); len(got) != 1 {
			t.Errorf("log: %q", got)
		}
		if p := profile(t, dir, "80123456"); !p.Complete() {
			t.Errorf("%+v", p)
		}
	})
}

// TestPlaceKilled begins with what a bridge that was killed had written by then: a change of
// meters is never forgotten.
func TestPlaceKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		m := houseMeter(t, 111, "100.000", "10.00", "10")
		meters := map[string]*testMeter{"/dev/a": m}
		l := newLab(t, meters, "METERS=house=/dev/a?continue=true", placeRegisters, "READ_INTERVAL=10m", "DATA_DIR="+dir)
		l.start()
		l.pass(censusOver)
		m.become(t, 222, "5.000", "1.00", "1")
		for len(l.eventsOf("meter_changed")) == 0 {
			l.pass(time.Second)
		}
		content, err := os.ReadFile(filepath.Join(dir, "kmp2mqtt.json")) // a second later
		if err != nil {
			t.Fatal(err)
		}
		killed := t.TempDir()
		if err := os.WriteFile(filepath.Join(killed, "kmp2mqtt.json"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		l.stop()
		m.become(t, 222, "5.500", "1.50", "2")
		l = newLab(t, meters, "METERS=house=/dev/a?continue=true", placeRegisters, "READ_INTERVAL=10m", "DATA_DIR="+killed)
		l.start()
		l.pass(time.Minute)
		if got := value(t, l.retained("kmp2mqtt/house"), "energy_gj"); got != "100.500" {
			t.Errorf("energy is %s", got)
		}
		if l.retained("homeassistant/device/kmp_111/config") == "" || l.retained("homeassistant/device/kmp_222/config") != "" {
			t.Error("the identity does not stay")
		}
	})
}

// TestPlaceSwapped lets two meters change places, with and without names, while the bridge
// runs and while it is off.
func TestPlaceSwapped(t *testing.T) {
	for _, lines := range []string{"a=/dev/a b=/dev/b", "/dev/a /dev/b"} {
		for _, off := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s off %t", lines, off), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					settings := []string{"METERS=" + lines, placeRegisters, "READ_INTERVAL=5m", "DATA_DIR=" + t.TempDir()}
					a, b := houseMeter(t, 111, "100.000", "10.00", "10"), houseMeter(t, 222, "200.000", "20.00", "20")
					meters := map[string]*testMeter{"/dev/a": a, "/dev/b": b}
					l := newLab(t, meters, settings...)
					l.start()
					l.pass(censusOver)
					if off {
						l.stop()
					}
					a.become(t, 222, "200.001", "20.00", "20")
					b.become(t, 111, "100.001", "10.00", "10")
					if off {
						l = newLab(t, meters, settings...)
						l.start()
					}
					l.pass(30 * time.Minute)
					onA, onB := "a", "b"
					if strings.HasPrefix(lines, "/") {
						onA, onB = "222", "111"
					}
					for name, energy := range map[string]string{onA: "200.001", onB: "100.001"} {
						if got := value(t, l.retained("kmp2mqtt/"+name), "energy_gj"); got != energy {
							t.Errorf("energy of %s is %s, want %s", name, got, energy)
						}
						l.want("kmp2mqtt/"+name+"/availability", "online")
					}
					if e := l.eventsOf("value_held"); e != nil {
						t.Errorf("%+v", e)
					}
					for serial, name := range map[string]string{"222": onA, "111": onB} {
						if config := l.retained("homeassistant/device/kmp_" + serial + "/config"); !strings.Contains(config, `"kmp2mqtt/`+name+`/availability"`) {
							t.Errorf("%s is announced as %s", serial, config)
						}
					}
				})
			})
		}
	}
}
