package bridge

import (
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
)

// TestAgreeFine goes on with a meter whose high-resolution register answers only later: what
// is counted until then is not missing in the number at full resolution.
func TestAgreeFine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := houseMeter(t, 111, "227.445", "2131.93", "7039")
		m.set(number(t, 60, kmp.UnitMWh, "63.179"), number(t, 266, kmp.UnitWh, "3179166"))
		l := newLab(t, map[string]*testMeter{"/dev/a": m}, "METERS=house=/dev/a?continue=true&model=403", "REGISTERS=60,266", "READ_INTERVAL=10m")
		l.start()
		l.pass(censusOver)
		if got := value(t, l.retained("kmp2mqtt/house"), "energy_fine_kwh"); got != "63179.166" {
			t.Fatalf("at first %s", got)
		}
		m.become(t, 222, "5.000", "1.00", "1")
		m.set(number(t, 60, kmp.UnitMWh, "5.000"))
		m.change(func(m *testMeter) { delete(m.registers, 266) })
		l.pass(censusOver)
		m.set(number(t, 60, kmp.UnitMWh, "5.010"), number(t, 266, kmp.UnitWh, "5010400"))
		l.command("kmp2mqtt/bridge/request/census", "", "kmp2mqtt/bridge/response/census", 10*time.Second)
		l.pass(censusOver)
		state := l.retained("kmp2mqtt/house")
		if coarse, fine := value(t, state, "energy_mwh"), value(t, state, "energy_fine_kwh"); coarse != "63.189" || fine != "63189.400" {
			t.Errorf("energy %s, at full resolution %s", coarse, fine)
		}
	})
}

// TestAgreeFineNew goes on with a meter that has a high-resolution register, where the former
// had none.
func TestAgreeFineNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := houseMeter(t, 111, "227.445", "2131.93", "7039")
		m.set(number(t, 60, kmp.UnitMWh, "63.179"))
		l := newLab(t, map[string]*testMeter{"/dev/a": m}, "METERS=house=/dev/a?continue=true&model=403", "REGISTERS=60,266", "READ_INTERVAL=10m")
		l.start()
		l.pass(censusOver)
		m.become(t, 222, "5.000", "1.00", "1")
		m.set(number(t, 60, kmp.UnitMWh, "5.000"), number(t, 266, kmp.UnitWh, "5000400"))
		l.pass(censusOver)
		state := l.retained("kmp2mqtt/house")
		if coarse, fine := value(t, state, "energy_mwh"), value(t, state, "energy_fine_kwh"); coarse != "63.179" || fine != "63179.400" {
			t.Errorf("energy %s, at full resolution %s", coarse, fine)
		}
	})
}
