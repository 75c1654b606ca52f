package discovery_test

import (
	"errors"
	"strings"
	"testing"

	"kmp2mqtt/discovery"
	"kmp2mqtt/kmp"
)

// TestUniqueIDOfAnother has sensors keep the unique ids of another reader; what was announced
// under our own id is taken away, or Home Assistant would have both.
func TestUniqueIDOfAnother(t *testing.T) {
	energy, power := measurement(60, kmp.UnitGJ, 3), measurement(80, kmp.UnitKW, 1)
	energy.UniqueID = "kamstrup_energy"
	b := meter(t, house(), energy, power)
	for _, fault := range readClasses(t).validate(b) {
		t.Error(fault)
	}
	if e := component(t, b, "kamstrup_energy"); e["unique_id"] != "kamstrup_energy" || e["name"] != "Energy" || e["value_template"] != "{{ value_json.energy_gj }}" || e["default_entity_id"] != nil {
		t.Error(e)
	}
	if e := component(t, b, "energy"); len(e) != 1 || e["platform"] != "sensor" {
		t.Error(e)
	}
	if e := component(t, b, "power"); e["unique_id"] != "kmp_80123456_power" {
		t.Error(e)
	}
}

// TestUniqueIDOnce gives the id to the first measurement that wants it.
func TestUniqueIDOnce(t *testing.T) {
	gj, mwh, own := measurement(60, kmp.UnitGJ, 3), measurement(60, kmp.UnitMWh, 3), measurement(80, kmp.UnitKW, 1)
	gj.UniqueID, mwh.UniqueID = "kamstrup_energy", "kamstrup_energy"
	gj.EntityID, mwh.EntityID = "kamstrup_403_energy", "kamstrup_403_energy"
	own.UniqueID = "kmp_80123456_serial" // that of another entity
	b := meter(t, house(), gj, mwh, own)
	for _, fault := range readClasses(t).validate(b) {
		t.Error(fault)
	}
	if e := component(t, b, "energy_mwh"); e["unique_id"] != "kmp_80123456_energy_mwh" || e["default_entity_id"] != nil {
		t.Error(e)
	}
	if e := component(t, b, "power"); e["unique_id"] != "kmp_80123456_power" {
		t.Error(e)
	}
}

// TestEntityIDOfAnother asks for an entity id, by the key of each version of Home Assistant.
func TestEntityIDOfAnother(t *testing.T) {
	energy := measurement(60, kmp.UnitGJ, 3)
	energy.EntityID = "kamstrup_403_heat_energy_e1"
	b := meter(t, house(), energy)
	for _, fault := range readClasses(t).validate(b) {
		t.Error(fault)
	}
	if e := component(t, b, "energy"); e["unique_id"] != "kmp_80123456_energy" || e["default_entity_id"] != "sensor.kamstrup_403_heat_energy_e1" || e["object_id"] != "kamstrup_403_heat_energy_e1" {
		t.Error(e)
	}
	if e := component(t, b, "serial"); e["default_entity_id"] != nil {
		t.Error(e)
	}
}

// TestValidatorFindsIDs has the validator object to what Home Assistant would.
func TestValidatorFindsIDs(t *testing.T) {
	energy, power := measurement(60, kmp.UnitGJ, 3), measurement(80, kmp.UnitKW, 1)
	energy.EntityID, power.EntityID = "kamstrup_403_energy", "kamstrup_403_power"
	good := string(meter(t, house(), energy, power))
	for _, tt := range []struct{ old, changed string }{
		{`"default_entity_id":"sensor.kamstrup_403_power"`, `"default_entity_id":"number.kamstrup_403_power"`},
		{`"default_entity_id":"sensor.kamstrup_403_power",`, ``},
		{`"object_id":"kamstrup_403_power",`, ``},
		{`kamstrup_403_power`, `kamstrup__power`},
		{`kamstrup_403_power`, `kamstrup_403_energy`},
		{`{"platform":"sensor",`, `"gone":{"platform":"heat"},"x":{"platform":"sensor",`},
	} {
		if !strings.Contains(good, tt.old) {
			t.Fatalf("the message has no %s", tt.old)
		}
		if faults := readClasses(t).validate([]byte(strings.ReplaceAll(good, tt.old, tt.changed))); len(faults) == 0 {
			t.Errorf("%s instead of %s: not found", tt.changed, tt.old)
		}
	}
}

func FuzzMeterIDs(f *testing.F) {
	f.Add("kamstrup_energy", "kamstrup_403_heat_energy_e1", "kamstrup_power", "")
	f.Add("energy", "_", "kmp_80123456_energy", "a__b")
	f.Add("power", "power", "power", "power")
	classes := readClasses(f)
	f.Fuzz(func(t *testing.T, unique1, entity1, unique2, entity2 string) {
		energy, power := measurement(60, kmp.UnitGJ, 3), measurement(80, kmp.UnitKW, 1)
		energy.UniqueID, energy.EntityID, power.UniqueID, power.EntityID = unique1, entity1, unique2, entity2
		b, err := discovery.Meter(explained(), []discovery.Measurement{energy, power})
		if err != nil {
			if _, ok := errors.AsType[*discovery.FieldError](err); !ok {
				t.Fatal(err)
			}
			return
		}
		for _, fault := range classes.validate(b) {
			t.Error(fault)
		}
	})
}
