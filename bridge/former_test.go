package bridge

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

// TestFormerValues changes a meter for one that has less: nothing that only the former counted
// stays on the topics of the place.
func TestFormerValues(t *testing.T) {
	for _, line := range []string{"house=/dev/a", "house=/dev/a?continue=true"} {
		synctest.Test(t, func(t *testing.T) {
			m := houseMeter(t, 111, "227.445", "2131.93", "7039")
			m.set(number(t, 63, kmp.UnitGJ, "1.234"))
			l := newLab(t, map[string]*testMeter{"/dev/a": m}, "METERS="+line, "REGISTERS=60,63,68,99", "READ_INTERVAL=10m", "MQTT_VALUES=true", "DATA_DIR="+t.TempDir())
			l.start()
			l.pass(censusOver)
			l.want("kmp2mqtt/house/cooling_energy_gj", "1.234")
			m.become(t, 222, "5.000", "1.00", "1")
			m.change(func(m *testMeter) { delete(m.registers, 63); delete(m.registers, 99) })
			l.pass(censusOver)
			want := map[string]string{"energy_gj": "5.000", "cooling_energy_gj": "", "info_code": "", "info": ""}
			if strings.Contains(line, "continue") {
				want["energy_gj"] = "227.445"
			}
			for key, value := range want {
				l.want("kmp2mqtt/house/"+key, value)
			}
		})
	}
}

// TestContinueGlance asks for one register of a meter that has just come to a place which goes
// on: the answer does not fall back to the new meter's own count.
func TestContinueGlance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := houseMeter(t, 111, "227.445", "2131.93", "7039")
		l := newLab(t, map[string]*testMeter{"/dev/a": m}, "METERS=house=/dev/a?continue=true", placeRegisters, "READ_INTERVAL=10m")
		l.start()
		l.pass(censusOver + time.Minute)
		m.become(t, 222, "5.000", "1.00", "1")
		got := l.command("kmp2mqtt/house/get", `{"registers":["energy"]}`, "kmp2mqtt/house/response", 10*time.Second)
		if len(got) != 1 || !strings.Contains(got[0], `"energy_gj":227.445`) {
			t.Errorf("%q", got)
		}
		l.pass(10 * time.Minute)
		if got := value(t, l.retained("kmp2mqtt/house"), "energy_gj"); got != "227.445" {
			t.Errorf("energy is %s", got)
		}
	})
}

// TestTypeLost loses the answer that tells the model after a restart: what it told before
// still counts.
func TestTypeLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := houseMeter(t, 111, "227.445", "2131.93", "7039")
		m.kind = 0x0004 // MULTICAL 601
		meters := map[string]*testMeter{"/dev/a": m}
		settings := []string{"METERS=house=/dev/a", placeRegisters, "READ_INTERVAL=10m", "DATA_DIR=" + t.TempDir()}
		l := newLab(t, meters, settings...)
		l.start()
		l.pass(censusOver)
		l.stop()
		m.change(func(m *testMeter) { m.typeless = true })
		l = newLab(t, meters, settings...)
		l.start()
		l.pass(censusOver)
		if d := l.retained("kmp2mqtt/house/diagnostics"); !strings.Contains(d, `"model":"MULTICAL 601","software_revision":"F1"`) {
			t.Error(d)
		}
		if config := l.retained("homeassistant/device/kmp_111/config"); !strings.Contains(config, `"model":"MULTICAL 601"`) {
			t.Errorf("%.300s", config)
		}
		l.stop()
		// The next start knows, too.
		l = newLab(t, meters, settings...)
		l.start()
		l.pass(censusOver)
		if d := l.retained("kmp2mqtt/house/diagnostics"); !strings.Contains(d, `"model":"MULTICAL 601"`) {
			t.Error(d)
		}
	})
}

// TestMovedMeter starts with a meter on another line than before, while nothing is on that
// one: what was remembered does not keep the meter from being read.
func TestMovedMeter(t *testing.T) {
	for _, tt := range []struct{ lines, name, left string }{
		{"a=/dev/a b=/dev/b", "b", "a"},
		{"/dev/a b=/dev/b", "b", "111"},
		{"a=/dev/a /dev/b", "111", "a"},
		{"/dev/a /dev/b", "111", ""},
	} {
		t.Run(tt.lines, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := houseMeter(t, 111, "227.445", "2131.93", "7039")
				settings := []string{"METERS=" + tt.lines, placeRegisters, "READ_INTERVAL=10m", "DATA_DIR=" + t.TempDir()}
				l := newLab(t, map[string]*testMeter{"/dev/a": m}, settings...)
				l.lines.cut("/dev/b")
				broker := l.broker
				l.start()
				l.pass(censusOver)
				l.stop()
				m.set(number(t, 60, kmp.UnitGJ, "227.446"))
				l = newLab(t, map[string]*testMeter{"/dev/b": m}, settings...)
				l.broker = broker // it keeps what was retained
				l.cfg.MQTT.Dial = broker.dial
				l.lines.cut("/dev/a")
				l.start()
				l.pass(censusOver)
				if state := l.retained("kmp2mqtt/" + tt.name); !strings.Contains(state, `"energy_gj":227.446`) {
					t.Errorf("state %q", state)
				}
				l.want("kmp2mqtt/"+tt.name+"/availability", "online")
				if tt.left != "" {
					l.want("kmp2mqtt/"+tt.left+"/availability", "offline")
				}
				if d := l.retained("kmp2mqtt/" + tt.name + "/diagnosis"); !strings.Contains(d, `"code":"ok"`) {
					t.Error(d)
				}
				if config := l.retained("homeassistant/device/kmp_111/config"); !strings.Contains(config, `"kmp2mqtt/`+tt.name+`/availability"`) {
					t.Errorf("%.300s", config)
				}
			})
		})
	}
}

// TestOneWrongSerial has a single answer tell another serial number, with a checksum that fits:
// nobody is told of a change that was none.
func TestOneWrongSerial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := houseMeter(t, 111, "227.445", "2131.93", "7039")
		l := newLab(t, map[string]*testMeter{"/dev/a": m}, "METERS=house=/dev/a", placeRegisters, "READ_INTERVAL=10m")
		l.start()
		l.pass(censusOver - time.Second)
		m.change(func(m *testMeter) { m.corrupt = true })
		l.pass(10 * time.Minute) // who is there will be asked
		m.change(func(m *testMeter) { m.corrupt, m.serial = false, 999 })
		for n := m.count(kmp.CmdGetSerialNo); m.count(kmp.CmdGetSerialNo) == n; {
			l.pass(time.Millisecond)
		}
		m.change(func(m *testMeter) { m.serial = 111 })
		l.pass(20 * time.Minute)
		if e := l.eventsOf("meter_changed"); len(e) > 0 {
			t.Errorf("%+v", e)
		}
		if l.retained("kmp2mqtt/house/availability") != "online" || l.retained("kmp2mqtt/111/availability") != "" {
			t.Errorf("house is %s, 111 %s", l.retained("kmp2mqtt/house/availability"), l.retained("kmp2mqtt/111/availability"))
		}
	})
}

// TestSurveyOtherMeter changes the meter while its census is going on: what the new one lacks
// is not written down for the former.
func TestSurveyOtherMeter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		m := houseMeter(t, 111, "227.445", "2131.93", "7039")
		for _, id := range catalog.Candidates(catalog.Heat) {
			if _, ok := m.registers[id]; !ok {
				m.set(number(t, id, kmp.UnitNone, "1"))
			}
		}
		l := newLab(t, map[string]*testMeter{"/dev/a": m}, "METERS=house=/dev/a", "REGISTERS=60", "READ_INTERVAL=10m", "DATA_DIR="+dir)
		l.start()
		l.pass(30 * time.Second)
		l.lines.cut("/dev/a")
		had := m.registers
		m.change(func(m *testMeter) { m.serial, m.registers = 222, map[uint16]kmp.Register{60: m.registers[60]} })
		l.lines.mend("/dev/a")
		l.pass(9 * time.Minute) // no reading until then
		l.stop()
		p := profile(t, dir, "111")
		for id := range had {
			if p.Lacks(id) {
				t.Errorf("%d is absent", id)
			}
		}
	})
}
