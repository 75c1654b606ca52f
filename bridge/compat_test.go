package bridge

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/bridge/former"
	"kmp2mqtt/bridge/numbers"
	"kmp2mqtt/discovery"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

func TestCompatJSON(t *testing.T) {
	for _, tt := range []struct {
		name    string
		values  []numbers.Value
		unknown map[string]string
		want    string
	}{
		{"nothing", nil, nil, ""},
		{"in the order of its table, with the meter's digits", values(t, number(t, 68, kmp.UnitCubicMetre, "2131.90"), number(t, 60, kmp.UnitGJ, "227.445")), nil, `{"energy":227.445,"volume":2131.90}`},
		{"what it did not know", values(t, number(t, 99, kmp.UnitNone, "0"), number(t, 63, kmp.UnitGJ, "1.0"), number(t, 1001, kmp.UnitNumber, "80123456")), nil, ""},
		{"the events, not the code", values(t, number(t, 99, kmp.UnitNone, "16"), number(t, 113, kmp.UnitNone, "7")), nil, `{"infoevent":7}`},
		{"any unit", values(t, number(t, 60, kmp.UnitKWh, "63179"), number(t, 74, kmp.UnitLitrePerH, "128")), nil, `{"energy":63179,"flow":128}`},
		{"a zero that the meter sends", values(t, number(t, 80, kmp.UnitKW, "0.0")), nil, `{"power":0.0}`},
		{"unknown or held", values(t, number(t, 60, kmp.UnitGJ, "227.445"), number(t, 80, kmp.UnitKW, "6.4")), map[string]string{"energy_gj": "it jumped"}, `{"power":6.4}`},
		{"all unknown", values(t, number(t, 60, kmp.UnitGJ, "227.445")), map[string]string{"energy_gj": "it jumped"}, ""},
		{"days", values(t, number(t, 140, kmp.UnitDate, "260114"), number(t, 123, kmp.UnitDate, "90105"), number(t, 127, kmp.UnitDate4, "20260114")), nil, `{"minflowDate_m":260114,"maxflowdate_y":90105,"maxpowerdate_y":20260114}`},
		{"no such day yet", values(t, number(t, 140, kmp.UnitDate, "0"), number(t, 141, kmp.UnitLitrePerH, "3")), nil, `{"minflow_m":3}`},
		{"a unit that counts in tens", values(t, number(t, 68, kmp.Unit(0x37), "213193")), nil, `{"volume":213193}`},
		{"not a number", []numbers.Value{{Register: catalog.Lookup(60), Key: "energy", Value: kmp.Text("much")}}, nil, ""},
		{"a null", []numbers.Value{{Register: catalog.Lookup(60), Key: "energy_gj"}}, nil, ""},
	} {
		got := string(compatJSON(tt.values, tt.unknown))
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		if got != "" && !json.Valid([]byte(got)) {
			t.Errorf("%s: %s is not JSON", tt.name, got)
		}
	}
}

// TestCompat runs a bridge with two meters beside the topics of kamstrup-402-mqtt.
func TestCompat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters := map[string]*testMeter{"/dev/a": newTestMeter(t, 111), "/dev/b": newTestMeter(t, 222)}
		l := newLab(t, meters, "METERS=house=/dev/a flat=/dev/b", "REGISTERS=60,68,80,99,113,123", "READ_INTERVAL=10m", "MQTT_COMPAT=kamstrup-402-mqtt:cellar")
		meters["/dev/a"].set(number(t, 113, kmp.UnitNone, "3"))
		l.start()
		l.pass(censusOver)
		l.want("cellar/values", `{"energy":227.445,"power":6.4,"volume":2131.93,"maxflowdate_y":260114,"infoevent":3}`)
		l.want("cellar/flat/values", `{"energy":227.445,"power":6.4,"volume":2131.93,"maxflowdate_y":260114}`)

		// What is held back is left out; the state shows the last good value instead.
		meters["/dev/a"].set(number(t, 60, kmp.UnitGJ, "9227.445"))
		l.pass(10 * time.Second)
		if state := l.retained("kmp2mqtt/house"); !strings.Contains(state, `"energy_gj":227.445`) {
			t.Error(state)
		}
		l.want("cellar/values", `{"power":6.4,"volume":2131.93,"maxflowdate_y":260114,"infoevent":3}`)

		// A meter that is silent publishes nothing, and above all no {}.
		before := len(l.sent("cellar/flat/values"))
		meters["/dev/b"].change(func(m *testMeter) { m.silent = true })
		l.pass(time.Hour)
		if after := len(l.sent("cellar/flat/values")); after-before > 1 {
			t.Errorf("%d messages of a silent meter", after-before)
		}
		l.want("cellar/flat/values", `{"energy":227.445,"power":6.4,"volume":2131.93,"maxflowdate_y":260114}`)
	})
}

func TestParseConfigEntities(t *testing.T) {
	for _, tt := range []struct{ meters, want string }{
		{"house=/dev/a?entities=wobwobrt flat=/dev/b", ""},
		{"flat=/dev/b house=/dev/a?entities=golles", ""},
		{"house=/dev/a?entities=golles flat=/dev/b?entities=golles", "METERS: meter flat: option entities: meter house keeps such names already, and other readers had one meter: leave the option away here"},
		{"/dev/a?entities=wobwobrt /dev/b?entities=golles", "METERS: meter /dev/b: option entities: meter /dev/a keeps such names already, and other readers had one meter: leave the option away here"},
	} {
		_, errs := parse(t, nil, "METERS="+tt.meters)
		if got := strings.Join(errs, "\n"); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.meters, got, tt.want)
		}
	}
}

// announcedSensors are the unique ids and entity ids of a discovery message, by component.
func announcedSensors(t *testing.T, payload string) map[string][2]string {
	t.Helper()
	var m struct {
		Components map[string]struct {
			UniqueID string `json:"unique_id"`
			EntityID string `json:"default_entity_id"`
		}
	}
	if err := json.Unmarshal([]byte(payload), &m); err != nil {
		t.Fatalf("%v: %.200s", err, payload)
	}
	list := make(map[string][2]string)
	for id, c := range m.Components {
		list[id] = [2]string{c.UniqueID, c.EntityID}
	}
	return list
}

// TestEntities announces a meter under the names of each reader; a restart, and a changed meter,
// keep to them.
func TestEntities(t *testing.T) {
	for _, tt := range []struct {
		reader     string
		id         string
		energy     [2]string
		high, code [2]string
	}{
		{"", "energy", [2]string{"kmp_111_energy", ""}, [2]string{"kmp_111_energy_high_resolution", ""}, [2]string{"kmp_111_info_code", ""}},
		{"wobwobrt", "kamstrup_energy", [2]string{"kamstrup_energy", ""}, [2]string{"kamstrup_e1highres", ""}, [2]string{"kmp_111_info_code", ""}},
		{"golles", "energy", [2]string{"kmp_111_energy", "sensor.kamstrup_403_heat_energy_e1"}, [2]string{"kmp_111_energy_high_resolution", ""}, [2]string{"kmp_111_info_code", "sensor.kamstrup_403_infoevent"}},
	} {
		t.Run(tt.reader, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newTestMeter(t, 111)
				m.set(number(t, serialRegister, kmp.UnitNumber, "111"), number(t, 266, kmp.UnitKWh, "63179"))
				line := "house=/dev/a"
				if tt.reader != "" {
					line += "?entities=" + tt.reader
				}
				settings := []string{"METERS=" + line, "REGISTERS=60,266,99", "READ_INTERVAL=10m", "DATA_DIR=" + t.TempDir()}
				check := func(l *lab, serial string) {
					t.Helper()
					list := announcedSensors(t, l.retained("homeassistant/device/kmp_"+serial+"/config"))
					high := "energy_high_resolution"
					if tt.reader == former.WobwobRt {
						high = "kamstrup_e1highres"
						if list["energy"] != [2]string{} {
							t.Errorf("ours is not taken away: %v", list["energy"])
						}
					}
					for id, want := range map[string][2]string{tt.id: tt.energy, high: tt.high, "info_code": tt.code} {
						want[0] = strings.Replace(want[0], "111", serial, 1)
						if list[id] != want {
							t.Errorf("%s: %v, want %v", id, list[id], want)
						}
					}
				}
				l := newLab(t, map[string]*testMeter{"/dev/a": m}, settings...)
				l.start()
				l.pass(censusOver)
				check(l, "111")
				l.stop()

				m.change(func(m *testMeter) { m.silent = true })
				l = newLab(t, map[string]*testMeter{"/dev/a": m}, settings...)
				l.start()
				l.pass(time.Minute)
				check(l, "111") // as it was, before it answers
				m.change(func(m *testMeter) { m.silent = false })
				l.pass(censusOver)
				m.become(t, 222, "5.000", "1.00", "1")
				l.pass(censusOver)
				check(l, "222")
				// Ids without a serial number go on with the place: nobody else may have them.
				if left := l.retained("homeassistant/device/kmp_111/config") != ""; left != (tt.reader != former.WobwobRt) {
					t.Errorf("the former meter is announced: %t", left)
				}
			})
		})
	}
}

// TestImportsEntities imports a meter's hours into the sensor that has another reader's unique id.
func TestImportsEntities(t *testing.T) {
	for entities, want := range map[string]string{"": "kmp_80123456_energy", "golles": "kmp_80123456_energy", "wobwobrt": "kamstrup_energy"} {
		l := newImportLab(t)
		l.is(rowsOf{serial: "80123456", name: "house", identity: "80123456", label: "Heat", entities: entities})
		l.keep(hourRow(t, 1, 1, "1.250", ""))
		for _, s := range l.want("hour energy 1=1.250") {
			if s.UniqueID != want {
				t.Errorf("%s: %s, want %s", entities, s.UniqueID, want)
			}
		}
	}
	// What is derived never was that reader's.
	fine := sensorID(rowsOf{identity: "80123456", entities: "wobwobrt"}, catalog.Lookup(60), "energy_fine")
	if fine != discovery.MeterID("80123456")+"_energy_fine" {
		t.Error(fine)
	}
	c := Config{Meters: []MeterConfig{{Name: "flat"}, {Name: "house", Entities: "wobwobrt"}}}
	if c.entities("house") != "wobwobrt" || c.entities("flat") != "" || c.entities("gone") != "" {
		t.Error("whose names a kept meter has")
	}
}
