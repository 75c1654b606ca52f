//go:build e2e

package test

import (
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp/sim"
)

// keys403 are the members of a MULTICAL 403's state, beside the time, by register.
func keys403() map[uint16]string {
	return map[uint16]string{
		60: "energy_gj", 63: "cooling_energy_gj", 68: "volume_m3", 74: "flow_l_h", 80: "power_kw",
		86: "supply_temperature_c", 87: "return_temperature_c", 89: "temperature_difference_k",
		97: "volume_x_supply_temperature_m3c", 110: "volume_x_return_temperature_m3c", 266: "energy_high_resolution_wh",
		99: "info_code", 113: "info_events", 1004: "operating_hours_h", 124: "max_flow_year_l_h", 123: "max_flow_year_date",
		239: "volume_high_resolution_l", 267: "cooling_energy_high_resolution_wh", 128: "max_power_year_kw", 127: "max_power_year_date",
		139: "max_flow_month_l_h", 143: "max_power_month_kw",
		149: "average_supply_temperature_month_c", 150: "average_return_temperature_month_c",
	}
}

// derived403 are the members that the bridge works out of them.
func derived403() []string {
	return []string{
		"energy_fine_gj", "cooling_energy_fine_gj", "volume_fine_m3", "power_calculated_kw", "info",
		"weighted_supply_temperature_today_c", "weighted_return_temperature_today_c", "weighted_cooling_today_k",
		"weighted_supply_temperature_month_c", "weighted_return_temperature_month_c", "weighted_cooling_month_k",
	}
}

// members403 is how many members a state of a MULTICAL 403 has, with its time.
func members403() int { return 1 + len(keys403()) + len(derived403()) }

// life says how a simulated meter lives. Two of the same life agree, so the test knows
// what the one under test said.
type life struct {
	seed        string
	integration string // how often its values change
	speed       string
}

// still is the life of a meter whose values do not change during a test.
func still(seed string) life { return life{seed, "1h", "1"} }

// quick is the life of a meter whose values change twenty times a second.
func quick(seed string) life { return life{seed, "10s", "200"} }

func (l life) options() map[string]string {
	return map[string]string{"seed": l.seed, "integration": l.integration, "speed": l.speed, "start": "2026-01-15T08:00:00Z"}
}

// flags are the options of the verb simulate.
func (l life) flags(more ...string) []string {
	var list []string
	for name, value := range l.options() {
		list = append(list, "-"+name+"="+value)
	}
	return append(list, more...)
}

// line is a simulated meter inside the bridge.
func (l life) line() string {
	q := url.Values{}
	for name, value := range l.options() {
		q.Set(name, value)
	}
	return "sim://403?" + q.Encode()
}

// values are the values of each key that such a meter has in its first steps, as JSON.
func (l life) values(t *testing.T, steps int) map[string]map[string]bool {
	t.Helper()
	q := url.Values{}
	for name, value := range l.options() {
		q.Set(name, value)
	}
	q.Set("speed", "1")
	had := make(map[string]map[string]bool)
	synctest.Test(t, func(t *testing.T) { // its clock runs through the steps in no time
		config, err := sim.ParseConfig("403", q)
		if err != nil {
			t.Fatal(err)
		}
		meter, err := sim.New(config)
		if err != nil {
			t.Fatal(err)
		}
		for range steps {
			for id, key := range keys403() {
				r, ok := meter.Read(id)
				if !ok {
					t.Fatalf("the simulated meter has no register %d", id)
				}
				v, err := r.Value()
				if err != nil {
					t.Fatal(err)
				}
				text, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				if had[key] == nil {
					had[key] = make(map[string]bool)
				}
				had[key][string(text)] = true
			}
			time.Sleep(config.Integration)
		}
	})
	return had
}

// sameState checks that a state is exactly what the meter says: all keys, no others,
// every digit.
func sameState(t *testing.T, state string, want map[string]map[string]bool) {
	t.Helper()
	members := object(t, state)
	at := members["time"]
	delete(members, "time")
	if stamp, err := time.Parse(`"`+time.RFC3339+`"`, at); err != nil || !strings.HasSuffix(at, `Z"`) || time.Since(stamp).Abs() > 10*time.Minute {
		t.Errorf("time is %s", at)
	}
	all := slices.Sorted(slices.Values(append(slices.Collect(maps.Keys(want)), derived403()...)))
	if got := slices.Sorted(maps.Keys(members)); !slices.Equal(got, all) {
		t.Errorf("keys are %v\nwant %v", got, all)
	}
	checkFine(t, members)
	for _, key := range derived403() {
		delete(members, key)
	}
	for key, value := range members {
		if !want[key][value] {
			t.Errorf("%s is %s, which the meter never said", key, value)
		}
	}
}

// checkFine checks that what is worked out at full resolution is what the meter says coarsely, to less than one of its
// steps.
func checkFine(t *testing.T, members map[string]string) {
	t.Helper()
	for fine, coarse := range map[string]string{"energy_fine_gj": "energy_gj", "volume_fine_m3": "volume_m3"} {
		_, digits, _ := strings.Cut(members[coarse], ".")
		step := number(t, "1e-"+strconv.Itoa(len(digits)))
		if gap := number(t, members[fine]); gap.Sub(gap, number(t, members[coarse])).Abs(gap).Cmp(step) > 0 {
			t.Errorf("%s is %s, %s is %s", fine, members[fine], coarse, members[coarse])
		}
	}
}
