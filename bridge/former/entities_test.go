package former

import (
	"regexp"
	"testing"

	"kmp2mqtt/kmp/catalog"
)

func TestEntityIDs(t *testing.T) {
	for register, want := range map[uint16]string{
		60: "kamstrup_403_heat_energy_e1", 63: "kamstrup_403_cooling_energy_e3", 80: "kamstrup_403_power", 99: "kamstrup_403_infoevent",
		113: "kamstrup_403_infoevent_counter", 1001: "kamstrup_403_serial_number", 1004: "kamstrup_403_hourcounter", 140: "kamstrup_403_minflowdate_m",
	} {
		if got, ok := EntityID(Golles, register); !ok || got != want {
			t.Errorf("%d: %q, %t, want %q", register, got, ok, want)
		}
		if got, ok := EntityID(WobwobRt, register); ok {
			t.Errorf("%d: %q", register, got)
		}
	}
	if _, ok := EntityID(Golles, 72); ok {
		t.Error("a register that the integration does not know")
	}
}

func TestUniqueIDs(t *testing.T) {
	for register, want := range map[uint16]string{
		60: "kamstrup_energy", 140: "kamstrup_minflowDate_m", 125: "kamstrup_minflowdate_y", 113: "kamstrup_infoevent", 266: "kamstrup_e1highres",
	} {
		if got, ok := UniqueID(WobwobRt, register); !ok || got != want {
			t.Errorf("%d: %q, %t, want %q", register, got, ok, want)
		}
		for _, reader := range []string{"", Golles} {
			if got, ok := UniqueID(reader, register); ok {
				t.Errorf("%s, %d: %q", reader, register, got)
			}
		}
	}
	for _, register := range []uint16{0, 99, 63} {
		if got, ok := UniqueID(WobwobRt, register); ok {
			t.Errorf("%d: %q", register, got)
		}
	}
}

// TestEntitiesAreDistinct holds the tables against the rules of Home Assistant's ids.
func TestEntitiesAreDistinct(t *testing.T) {
	id := regexp.MustCompile(`^[a-z0-9_]+$`)
	seen := make(map[string]bool)
	for _, p := range GollesEntities() {
		entity, _ := EntityID(Golles, p.Register)
		if seen[entity] || !id.MatchString(entity) || catalog.Lookup(p.Register).Source == "" {
			t.Errorf("%+v: %q", p, entity)
		}
		seen[entity] = true
	}
	for _, p := range WobwobRtParameters() {
		unique, _ := UniqueID(WobwobRt, p.Register)
		if seen[unique] || unique != "kamstrup_"+p.Name || catalog.Lookup(p.Register).Source == "" {
			t.Errorf("%+v: %q", p, unique)
		}
		seen[unique] = true
	}
}

func TestGollesReport(t *testing.T) {
	r := GollesReport([]uint16{60, 68, 72})
	if r.Count(StateFree) != 2 || r.Count(StateUnread) != len(GollesEntities())-2 {
		t.Errorf("%d free, %d not read", r.Count(StateFree), r.Count(StateUnread))
	}
}
