package statistics

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"

	"kmp2mqtt/bridge/statistics/hatest"
	"kmp2mqtt/kmp"
)

// TestImport: what becomes of the hours of a gap.
func TestImport(t *testing.T) {
	for _, tt := range []struct {
		name    string
		home    func(h *home)
		counted map[int]string // by Home Assistant itself
		points  map[int]string
		change  func(s *Series)
		rows    []string
		id      string // of the statistic; empty: the sensor's
		left    int    // that stay pending
		log     string
	}{
		{
			name: "gap", counted: map[int]string{-10: "100.5", -9: "101", -5: "104.25", -4: "105"},
			points: map[int]string{-8: "101.75", -7: "102", -6: "103.125"},
			rows:   []string{"-10 100.5 0", "-9 101 0.5", "-8 101.75 1.25", "-7 102 1.5", "-6 103.125 2.625", "-5 104.25 3.75", "-4 105 4.5"},
			log:    `hours=3 from=2026-11-21T04:00:00Z to=2026-11-21T07:00:00Z`,
		},
		{
			name: "all there", counted: map[int]string{-10: "100.5", -9: "101"},
			points: map[int]string{-10: "100.6", -9: "101.1"},
			rows:   []string{"-10 100.5 0", "-9 101 0.5"},
		},
		{
			name: "before the first", counted: map[int]string{-3: "50", -2: "51"},
			points: map[int]string{-6: "48", -4: "49.5", -5: "49"},
			rows:   []string{"-6 48 -2", "-5 49 -1", "-4 49.5 -0.5", "-3 50 0", "-2 51 1"},
		},
		{
			name: "after the last", counted: map[int]string{-9: "50", -8: "51"},
			points: map[int]string{-7: "52", -2: "60.001"},
			rows:   []string{"-9 50 0", "-8 51 1", "-7 52 2", "-2 60.001 10.001"},
		},
		{
			name: "far from any row", counted: map[int]string{-9000: "10", -8999: "11", -20: "500"},
			points: map[int]string{-5000: "100", -4999: "101"},
			rows:   []string{"-9000 10 0", "-8999 11 1", "-5000 100 90", "-4999 101 91", "-20 500 490"},
		},
		{
			name: "far before the first", counted: map[int]string{-20: "500", -19: "501"},
			points: map[int]string{-5000: "100"},
			rows:   []string{"-5000 100 -400", "-20 500 0", "-19 501 1"},
		},
		{
			name: "months begin elsewhere", counted: map[int]string{-2000: "10", -20: "500"},
			home:   func(h *home) { h.Zone = time.FixedZone("India", 19800) },
			points: map[int]string{-900: "100"},
			rows:   []string{"-2000 10 0", "-900 100 90", "-20 500 490"},
		},
		{
			name:   "no row yet",
			points: map[int]string{-6: "48"},
			left:   1, log: "the first row must be Home Assistant's own",
		},
		{
			name: "not between its neighbours", counted: map[int]string{-10: "100", -5: "104"},
			points: map[int]string{-9: "99.00", -8: "101.00", -7: "105.00", -6: "103.00"},
			rows:   []string{"-10 100 0", "-8 101 1", "-6 103 3", "-5 104 4"},
			log:    `hours=2 between=2026-11-21T04:00:00.000Z and=2026-11-21T07:00:00.000Z reason="` + string(refusedNeighbour),
		},
		{
			name: "fell within the gap", counted: map[int]string{-10: "100", -5: "104"},
			points: map[int]string{-9: "103", -8: "101", -7: "103.5"},
			rows:   []string{"-10 100 0", "-9 103 3", "-7 103.5 3.5", "-5 104 4"},
			log:    string(refusedFall),
		},
		{
			name: "sums that begin anew", counted: map[int]string{-10: "100", -9: "101"},
			home: func(h *home) {
				h.SetRows(sensorID, hatest.Row{Start: hour(-5), State: "104", Sum: "0"}, hatest.Row{Start: hour(-4), State: "105", Sum: "1"})
			},
			points: map[int]string{-8: "102", -3: "106"},
			rows:   []string{"-10 100 0", "-9 101 1", "-5 104 0", "-4 105 1", "-3 106 2"},
			log:    "began to count anew",
		},
		{
			name: "a counter that fell", counted: map[int]string{-10: "100", -5: "4"},
			points: map[int]string{-9: "101", -8: "2"},
			rows:   []string{"-10 100 0", "-5 4 -96"},
			log:    "began to count anew",
		},
		{
			name: "rows that say nothing", counted: map[int]string{-10: "100", -5: "104"},
			home: func(h *home) {
				h.SetRows(sensorID, hatest.Row{Start: hour(-9), Sum: "3"}, hatest.Row{Start: hour(-6), State: "103"})
			},
			points: map[int]string{-9: "100.5", -8: "101", -6: "102"},
			rows:   []string{"-10 100 0", "-9  3", "-8 101 1", "-6 103 ", "-5 104 4"},
		},
		{
			name: "only rows that say nothing",
			home: func(h *home) {
				h.SetRows(sensorID, hatest.Row{Start: hour(-900), Sum: "3"}, hatest.Row{Start: hour(-9), Sum: "3"})
			},
			points: map[int]string{-8: "101"},
			rows:   []string{"-900  3", "-9  3"},
			left:   1, log: "the first row must be Home Assistant's own",
		},
		{
			name: "fractions that are binary", counted: map[int]string{},
			home: func(h *home) {
				h.SetRows(sensorID, hatest.Row{Start: hour(-9), State: "0.30000000000000004", Sum: "0.1"}, hatest.Row{Start: hour(-5), State: "0.5", Sum: "0.29999999999999993"})
			},
			points: map[int]string{-8: "0.3", -7: "0.4", -6: "0.5"},
			rows: []string{
				"-9 0.30000000000000004 0.1", "-8 0.3 0.1", "-7 0.4 0.19999999999999996",
				"-6 0.5 0.29999999999999993", "-5 0.5 0.29999999999999993",
			},
		},
		{
			name: "statistics in another unit",
			home: func(h *home) {
				h.SetStatistic(hatest.Statistic{ID: sensorID, Unit: "kWh", UnitClass: "energy"})
				h.SetRows(sensorID, hatest.Row{Start: hour(-9), State: "1000", Sum: "7"})
			},
			points: map[int]string{-8: "3.601", -7: "3.6036"},
			rows:   []string{"-9 1000 7", "-8 1000.2777778 7.2777778", "-7 1001 8"},
		},
		{
			name: "shown in another unit", counted: map[int]string{-9: "100", -4: "104"},
			home: func(h *home) {
				h.SetStatistic(hatest.Statistic{ID: sensorID, Unit: "GJ", DisplayUnit: "MWh", UnitClass: "energy"})
			},
			points: map[int]string{-8: "101"},
			rows:   []string{"-9 100 0", "-8 101 1", "-4 104 4"},
		},
		{
			name: "a unit of another class", counted: map[int]string{-9: "100"},
			home: func(h *home) {
				h.SetStatistic(hatest.Statistic{ID: sensorID, Unit: "m³", UnitClass: "volume"})
			},
			points: map[int]string{-8: "101"},
			rows:   []string{"-9 100 0"}, left: 1,
			log: `reason="the units do not fit" statistic=sensor.heat_meter_energy unit=m³ meter_unit=GJ`,
		},
		{
			name: "a mean", counted: map[int]string{-9: "100"},
			home: func(h *home) {
				h.SetStatistic(hatest.Statistic{ID: sensorID, Unit: "GJ", UnitClass: "energy", Mean: true})
			},
			points: map[int]string{-8: "101"},
			rows:   []string{"-9 100 0"}, left: 1, log: "keeps no sums",
		},
		{
			name: "renamed", counted: map[int]string{-9: "100"},
			home: func(h *home) {
				h.SetEntities(hatest.Entity{ID: "sensor.cellar", UniqueID: uniqueID})
				h.SetStatistic(hatest.Statistic{ID: "sensor.cellar", Unit: "GJ", UnitClass: "energy"})
				h.Count("sensor.cellar", hour(-12), "99")
			},
			points: map[int]string{-8: "101"},
			id:     "sensor.cellar", rows: []string{"-12 99 0", "-8 101 2"},
		},
		{
			name:   "not recorded",
			home:   func(h *home) { h.SetEntities(hatest.Entity{ID: "sensor.cellar", UniqueID: uniqueID}) },
			points: map[int]string{-8: "101"},
			left:   1, log: "entity=sensor.cellar",
		},
		{
			name:   "disabled",
			home:   func(h *home) { h.SetEntities(hatest.Entity{ID: sensorID, UniqueID: uniqueID, Disabled: true}) },
			points: map[int]string{-8: "101", -7: "102", -12: "90"},
			id:     otherID, // nobody wants them, so they are settled
		},
		{
			name:   "its own sensor or none",
			home:   func(h *home) { h.SetEntities(hatest.Entity{ID: "sensor.volume", UniqueID: "kmp_12345678_volume"}) },
			points: map[int]string{-8: "101"}, change: func(s *Series) { s.OwnOnly = true },
			id: otherID,
		},
		{
			name:   "no sensor of this register",
			home:   func(h *home) { h.SetEntities(hatest.Entity{ID: "sensor.volume", UniqueID: "kmp_12345678_volume"}) },
			points: map[int]string{-8: "101"},
			id:     otherID, rows: []string{"-8 101 0"},
		},
		{
			name:   "no sensor of this meter",
			home:   func(h *home) { h.SetEntities() },
			points: map[int]string{-8: "101"},
			id:     otherID, rows: []string{"-8 101 0"}, log: "does not know the meter yet",
		},
		{
			name: "external anyway", counted: map[int]string{-9: "100"},
			points: map[int]string{-8: "101"}, change: func(s *Series) { s.Always = true },
			id: otherID, rows: []string{"-8 101 0"},
		},
		{
			name: "external, continued",
			home: func(h *home) {
				h.SetStatistic(hatest.Statistic{ID: otherID, Source: "kmp2mqtt", Name: "Cellar", Unit: "MWh", UnitClass: "energy"})
				h.Count(otherID, hour(-3000), "1")
			},
			points: map[int]string{-8: "7.2", -4000: "1.8"}, change: func(s *Series) { s.Always = true },
			id: otherID, rows: []string{"-4000 0.5 -0.5", "-3000 1 0", "-8 2 1"},
		},
		{
			name:   "external without a unit that anybody knows",
			points: map[int]string{-8: "7"}, change: func(s *Series) { s.Always, s.Unit = true, kmp.UnitCubicMC },
			id: otherID, rows: []string{"-8 7 0"},
		},
		{
			name: "nothing for an id", change: func(s *Series) { s.Always, s.Serial, s.Register = true, "-", "_" },
			points: map[int]string{-8: "7"}, left: 1, log: "make no id",
		},
		{
			name: "water in litres",
			home: func(h *home) {
				h.SetStatistic(hatest.Statistic{ID: sensorID, Unit: "L", UnitClass: "volume"})
				h.SetRows(sensorID, hatest.Row{Start: hour(-9), State: "1000", Sum: "0"})
			},
			points: map[int]string{-8: "1.001"}, change: func(s *Series) { s.Unit = kmp.UnitCubicMetre },
			rows: []string{"-9 1000 0", "-8 1001 1"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHome(t)
				h.count(tt.counted)
				if tt.home != nil {
					tt.home(h)
				}
				series := energy(tt.points)
				if tt.change != nil {
					tt.change(&series)
				}
				id := sensorID
				if tt.id != "" {
					id = tt.id
				}
				meta, known := h.Statistic(id)
				src := newSource(series)
				h.run(src, 20*time.Minute)
				if diff := cmp.Diff(tt.rows, h.rows(id)); diff != "" {
					t.Errorf("rows of %s: -want +got\n%s", id, diff)
				}
				if got := src.left(); got != tt.left {
					t.Errorf("%d points are left, should be %d", got, tt.left)
				}
				if after, _ := h.Statistic(id); known && after != meta {
					t.Errorf("%+v became %+v", meta, after)
				}
				if tt.log != "" && h.log.count(tt.log) != 1 {
					t.Errorf("the log should say once %q:\n%s", tt.log, h.log)
				}

				// Once more, and nothing is written.
				h.imported()
				series = energy(tt.points)
				if tt.change != nil {
					tt.change(&series)
				}
				h.run(newSource(series), 20*time.Minute)
				if n := h.imported(); n != 0 {
					t.Errorf("%d rows are imported again", n)
				}
				if diff := cmp.Diff(tt.rows, h.rows(id)); diff != "" {
					t.Errorf("rows, the second time: -want +got\n%s", diff)
				}
			})
		})
	}
}

// TestExternalMetadata: external statistics say what they are.
func TestExternalMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		series := energy(map[int]string{-8: "7"})
		series.Always = true
		h.run(newSource(series), time.Minute)
		want := hatest.Statistic{ID: otherID, Source: "kmp2mqtt", Name: "Heat meter energy", Unit: "GJ", UnitClass: "energy"}
		if got, _ := h.Statistic(otherID); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// TestVersions: every version gets the metadata that it takes, and its log has nothing to warn of.
func TestVersions(t *testing.T) {
	for version, want := range map[string][]string{
		"2024.12.5":  {`"has_mean":false`},
		"2025.10.4":  {`"has_mean":false`},
		"2025.11.0":  {`"mean_type":0`, `"unit_class":"energy"`},
		"2026.9.2":   {`"mean_type":0`, `"unit_class":"energy"`},
		"2026.11.0":  {`"mean_type":0`, `"unit_class":"energy"`},
		"2027.1.0b3": {`"mean_type":0`, `"unit_class":"energy"`},
	} {
		t.Run(version, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHome(t)
				h.Version = version
				h.count(map[int]string{-9: "100"})
				src := newSource(energy(map[int]string{-8: "101"}))
				h.run(src, time.Minute)
				if src.left() != 0 {
					t.Fatalf("not imported:\n%s", h.log)
				}
				for _, c := range h.Calls() {
					for _, text := range want {
						if c.Command == "recorder/import_statistics" && !strings.Contains(string(c.Message), text) {
							t.Errorf("%s lacks %s", c.Message, text)
						}
					}
				}
			})
		})
	}
}

// TestYoungHours: an hour is Home Assistant's own for a quarter of an hour after its end.
func TestYoungHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		h.count(map[int]string{-9: "100"})
		src := newSource(energy(map[int]string{-1: "108", 0: "109", 1: "110"})) // at 12:20: 108 is ripe
		h.run(src, 30*time.Second)
		if diff := cmp.Diff([]string{"-9 100 0", "-1 108 8"}, h.rows(sensorID)); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		if h.Logins() != 1 || src.left() != 2 {
			t.Errorf("%d logins, %d left", h.Logins(), src.left())
		}
		h.run(src, 50*time.Minute) // to 13:10
		if h.Logins() != 1 || src.left() != 2 {
			t.Errorf("at 13:10: %d logins, %d left", h.Logins(), src.left())
		}
		h.Count(sensorID, hour(0), "109.5") // Home Assistant counts itself
		h.run(src, 90*time.Minute)          // to 14:40
		if diff := cmp.Diff([]string{"-9 100 0", "-1 108 8", "0 109.5 9.5", "1 110 10"}, h.rows(sensorID)); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		if h.Logins() != 3 || src.left() != 0 {
			t.Errorf("at 14:40: %d logins, %d left", h.Logins(), src.left())
		}
	})
}

// TestWaits: what has to wait is imported when it can be, and the log told once.
func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		src := newSource(energy(map[int]string{-8: "101", -7: "102"}))
		go func() {
			time.Sleep(150 * time.Minute)
			h.Count(sensorID, hour(0), "109")
		}()
		h.run(src, 200*time.Minute)
		if diff := cmp.Diff([]string{"-8 101 -8", "-7 102 -7", "0 109 0"}, h.rows(sensorID)); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		if n := h.log.count("Hours wait"); n != 1 {
			t.Errorf("the log says %d times that they wait:\n%s", n, h.log)
		}
	})
}

// TestWaitsAgain: a new reason to wait is told, and an old one that comes back.
func TestWaitsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		h.count(map[int]string{-9: "100"})
		unit := func(after time.Duration, unit, class string) {
			time.AfterFunc(after, func() { h.SetStatistic(hatest.Statistic{ID: sensorID, Unit: unit, UnitClass: class}) })
		}
		unit(0, "m³", "volume")
		src := newSource(energy(map[int]string{-8: "101", 7: "110"}))
		unit(4*time.Hour, "GJ", "energy")
		unit(7*time.Hour, "m³", "volume")
		unit(12*time.Hour, "L", "volume")
		time.Sleep(time.Second)
		h.run(src, 14*time.Hour)
		if h.log.count("unit=m³") != 2 || h.log.count("unit=L") != 1 || src.left() != 1 {
			t.Errorf("%d left, log:\n%s", src.left(), h.log)
		}
	})
}

// TestChanged: something new is imported soon, and nothing connects meanwhile.
func TestChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		h.count(map[int]string{-9: "100"})
		src := newSource(energy(nil))
		go func() {
			time.Sleep(10 * time.Hour)
			if h.Logins() != 0 {
				t.Error("connected for nothing")
			}
			for n := -8; n < 0; n++ {
				src.add(point(n, fmt.Sprint(109+n)))
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(10 * time.Second)
			if h.Logins() != 1 || src.left() != 0 {
				t.Errorf("%d logins, %d points are left", h.Logins(), src.left())
			}
		}()
		h.run(src, 20*time.Hour)
		if h.Logins() > 2 {
			t.Errorf("%d logins", h.Logins())
		}
	})
}

// TestOddPoints: what is not of a full hour is settled, and never written.
func TestOddPoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		h.count(map[int]string{-9: "100"})
		series := energy(map[int]string{-8: "101"})
		odd := point(-7, "102")
		odd.End = odd.End.Add(12 * time.Second)
		src := newSource(series)
		src.series[0].Points = append(src.series[0].Points, odd, point(-8, "101.5"))
		h.run(src, time.Minute)
		if diff := cmp.Diff([]string{"-9 100 0", "-8 101 1"}, h.rows(sensorID)); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		if src.left() != 0 || h.log.count("not of full hours") != 1 {
			t.Errorf("%d left, log:\n%s", src.left(), h.log)
		}
	})
}

// TestLongHistory: many hours go in pieces.
func TestLongHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		h.SetEntities(hatest.Entity{ID: "sensor.power", UniqueID: "kmp_12345678_power"})
		values := map[int]string{}
		for n := -3500; n < -1; n++ {
			if n < -2900 || n > -1400 { // and a long hole
				values[n] = fmt.Sprint(5000 + n)
			}
		}
		series := energy(values)
		slices.SortFunc(series.Points, func(a, b Point) int { return a.End.Compare(b.End) }) // the oldest are handed out first
		src := newSource(series)
		src.most = 1700
		h.run(src, time.Minute)
		rows := h.Rows(otherID)
		if len(rows) != len(values) || src.left() != 0 {
			t.Fatalf("%d rows of %d, %d left\n%s", len(rows), len(values), src.left(), h.log)
		}
		first := rows[0]
		for _, r := range rows {
			if want := minus(t, r.State, first.State); r.Sum != want {
				t.Fatalf("%v: sum %s, should be %s", r.Start, r.Sum, want)
			}
		}
		for _, c := range h.Calls() {
			if n := strings.Count(string(c.Message), `"start":`); n > chunkHours {
				t.Errorf("%s with %d rows", c.Command, n)
			}
		}
		if h.Logins() != 1 {
			t.Errorf("%d logins", h.Logins())
		}
	})
}

// minus is a - b.
func minus(t *testing.T, a, b string) string {
	t.Helper()
	x, err := kmp.ParseDecimal(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := kmp.ParseDecimal(b)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := x.Add(y.Neg())
	if err != nil {
		t.Fatal(err)
	}
	return sum.String()
}

// TestLag: an hour is done when it is shown, not when it is taken.
func TestLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		h.Lag = 20 * time.Second
		h.count(map[int]string{-9: "100"})
		src := newSource(energy(map[int]string{-8: "101"}))
		h.run(src, 10*time.Second)
		if src.left() != 1 {
			t.Error("done before it is shown")
		}
		time.Sleep(time.Minute)
		h.run(src, time.Minute)
		if src.left() != 0 {
			t.Error("not done when it is shown")
		}
		if diff := cmp.Diff([]string{"-9 100 0", "-8 101 1"}, h.rows(sensorID)); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	})
}

// TestCut: the connection breaks at every step, in several ways; in the end everything is there, once.
func TestCut(t *testing.T) {
	replies := map[string]hatest.Reply{
		"hangup": {Close: true},
		"half":   {Raw: []byte(`{"id":1,"type":"resu`), Close: true},
		"silent": {Silent: true},
		"binary": {Raw: []byte(`{"id":1,"type":"result","success":true,"result":null}`), Binary: true},
		"number": {Raw: []byte(`42`)},
		"busy":   {Code: "timeout", Message: "Timeout"},
	}
	for name, reply := range replies {
		for step := 1; ; step++ {
			reached := false
			t.Run(fmt.Sprintf("%s %d", name, step), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHome(t)
					h.count(map[int]string{-9: "100", -4: "105"})
					n := 0
					h.Hook = func(string, []byte) *hatest.Reply {
						if n++; n == step {
							reached = true
							return &reply
						}
						return nil
					}
					src := newSource(energy(map[int]string{-8: "101", -7: "102", -2: "107"}))
					h.run(src, 3*time.Hour)
					want := []string{"-9 100 0", "-8 101 1", "-7 102 2", "-4 105 5", "-2 107 7"}
					if diff := cmp.Diff(want, h.rows(sensorID)); diff != "" {
						t.Errorf("-want +got\n%s\n%s", diff, h.log)
					}
					if src.left() != 0 {
						t.Errorf("%d points are left\n%s", src.left(), h.log)
					}
				})
			})
			if !reached {
				break
			}
		}
	}
}

// TestFailures: the log says once why, and what to do; and it is tried again ever more slowly.
func TestFailures(t *testing.T) {
	status := func(code int) func(h *home) {
		return func(h *home) {
			h.front = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "https://elsewhere.example/")
				w.WriteHeader(code)
			})
		}
	}
	refuses := func(command, code string) func(h *home) {
		return func(h *home) {
			h.Hook = func(c string, _ []byte) *hatest.Reply {
				if c == command {
					return &hatest.Reply{Code: code, Message: "No, " + token}
				}
				return nil
			}
		}
	}
	says := func(command string, raw []byte) func(h *home) {
		return func(h *home) {
			h.Hook = func(c string, _ []byte) *hatest.Reply {
				if c == command {
					return &hatest.Reply{Raw: raw, Close: true}
				}
				return nil
			}
		}
	}
	for _, tt := range []struct {
		name, reason string
		home         func(h *home)
		least, most  int // attempts in a day
	}{
		{"token", "token refused", func(h *home) { h.Token = "another" }, 4, 4},
		{"token echoed", "token refused", says("auth", []byte(`{"type":"auth_invalid","message":"`+token+` is wrong"}`)), 4, 4},
		{"not an administrator", "not an administrator", func(h *home) { h.User = true }, 45, 110},
		{"old or starting", "command unknown", refuses("recorder/get_statistics_metadata", "unknown_command"), 45, 110},
		{"not found", "no Home Assistant there", status(404), 45, 110},
		{"starting", "Home Assistant is not running", status(502), 45, 110},
		{"redirect", "sent elsewhere", status(301), 45, 110},
		{"banned", "refused", status(403), 45, 110},
		{"silence", "no answer", func(h *home) {
			h.Hook = func(string, []byte) *hatest.Reply { return &hatest.Reply{Silent: true} }
		}, 45, 110},
		{"rubbish", "not Home Assistant's protocol", says("connect", []byte("220 mail.example ESMTP")), 45, 110},
		{"no HTTP", "not Home Assistant's protocol", sends("SSH-2.0-OpenSSH_9.9\r\n\r\n"), 45, 110},
		{"HTTP with a broken header", "not Home Assistant's protocol", sends("HTTP/1.1 101 Switching\r\n: x\r\n\r\n"), 45, 110},
		{"half an answer", "connection closed", sends("HTTP/1.1 101 Swi"), 45, 110},
		{"another greeting", "not Home Assistant's protocol", says("connect", []byte(`{"type":"hello `+token+`"}`)), 45, 110},
		{"another answer", "not Home Assistant's protocol", says("auth", []byte(`{"type":"event"}`)), 45, 110},
		{"giant", "not Home Assistant's protocol", says("config/entity_registry/list",
			[]byte(`{"id":1,"type":"result","success":true,"result":[],"x":"`+strings.Repeat("x", maxMessage)+`"}`)), 45, 110},
		{"rows of another shape", "not Home Assistant's protocol", says("recorder/statistics_during_period",
			[]byte(`{"id":3,"type":"result","success":true,"result":{"`+sensorID+`":[{"start":"2026-11-21T00:00:00Z","sum":"many"}]}}`)), 45, 110},
		{"refused connection", "connection refused", func(h *home) { h.refuse(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}) }, 45, 110},
		{"host", "unknown host", func(h *home) { h.refuse(&net.DNSError{Err: "no such host", Name: "h", IsNotFound: true}) }, 45, 110},
		{"recorder stopped", "recorder does not write", func(h *home) { h.Lag = 1000 * time.Hour }, 45, 110},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHome(t)
				h.count(map[int]string{-9: "100"})
				tt.home(h)
				src := newSource(energy(map[int]string{-8: "101"}))
				h.run(src, 24*time.Hour-time.Minute)
				if attempts := h.attempts; attempts < tt.least || attempts > tt.most {
					t.Errorf("%d attempts in a day, should be %d to %d", attempts, tt.least, tt.most)
				}
				if src.left() != 1 {
					t.Error("settled")
				}
				if n := h.log.count("cannot be reached"); n != 1 {
					t.Errorf("the log says so %d times:\n%s", n, h.log)
				}
				if h.log.count(`reason="`+tt.reason+`" advice="`) != 1 && h.log.count(`reason=`+tt.reason+` advice="`) != 1 {
					t.Errorf("the log should say once: %q\n%s", tt.reason, h.log)
				}

				h.refuse(nil)
				h.Token, h.User, h.Hook, h.front, h.Lag = token, false, nil, nil, 0
				h.run(src, 10*time.Minute)
				if diff := cmp.Diff([]string{"-9 100 0", "-8 101 1"}, h.rows(sensorID)); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
			})
		})
	}
}

// sends answers the upgrade with a text.
func sends(text string) func(*home) {
	return func(h *home) {
		h.front = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			stream, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return // an answer of another kind, with another reason
			}
			defer stream.Close()
			_, _ = io.WriteString(stream, text) // it may have hung up
		})
	}
}

// TestEndlessHandshake: an answer to the upgrade that never ends is given up.
func TestEndlessHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		sent := 0
		h.front = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			stream, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer stream.Close()
			for err == nil {
				var n int
				n, err = stream.Write([]byte("HTTP/1.1 101 Switching\r\nX: " + strings.Repeat("x", 4000)))
				sent += n
			}
		})
		h.run(newSource(energy(map[int]string{-8: "101"})), 10*time.Second)
		if sent > 2*maxHandshake || h.log.count("not Home Assistant's protocol") != 1 || h.log.count("statistics: statistics:") != 0 {
			t.Errorf("%d bytes were taken, log:\n%s", sent, h.log)
		}
	})
}

// TestExplain: every failure has a reason and a next step.
func TestExplain(t *testing.T) {
	for _, tt := range []struct {
		err    error
		reason string
	}{
		{x509.HostnameError{Certificate: &x509.Certificate{}, Host: "h"}, "certificate is for another host"},
		{x509.CertificateInvalidError{Reason: x509.Expired}, "certificate invalid"},
		{&net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, "host unreachable"},
		{context.DeadlineExceeded, "no answer"},
		{io.ErrUnexpectedEOF, "connection closed"},
		{&websocket.CloseError{Code: 1001}, "connection closed"},
		{&CommandError{Command: "c", Code: "invalid_format"}, "message refused"},
		{&CommandError{Command: "c", Code: "timeout"}, "command failed"},
		{errors.New("else"), "it failed"},
	} {
		if reason, advice := explain(fmt.Errorf("statistics: %w", tt.err)); reason != tt.reason || advice == "" {
			t.Errorf("%v: %q, advice %q", tt.err, reason, advice)
		}
	}
}

// TestOutageEnds: the log says when it is over.
func TestOutageEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		h.count(map[int]string{-9: "100"})
		h.refuse(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED})
		src := newSource(energy(map[int]string{-8: "101"}))
		time.AfterFunc(time.Hour, func() { h.refuse(nil) })
		h.run(src, 3*time.Hour)
		if h.log.count("cannot be reached") != 1 || h.log.count("statistics again\" outage=1h") != 1 || src.left() != 0 {
			t.Errorf("%d left, log:\n%s", src.left(), h.log)
		}
	})
}

// TestOneSeriesFails: the others are imported all the same.
func TestOneSeriesFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		h.SetEntities(hatest.Entity{ID: "sensor.power", UniqueID: "kmp_12345678_power"})
		h.Hook = func(command string, message []byte) *hatest.Reply {
			if command == "recorder/import_statistics" && strings.Contains(string(message), "_volume") {
				return &hatest.Reply{Code: "home_assistant_error", Message: "Unknown error"}
			}
			return nil
		}
		volume := energy(map[int]string{-8: "7"})
		volume.UniqueID, volume.Register, volume.Unit = "kmp_12345678_volume", "volume", kmp.UnitCubicMetre
		src := newSource(volume, energy(map[int]string{-8: "101"}))
		h.run(src, 10*time.Hour)
		if src.left() != 1 || len(h.Rows(otherID)) != 1 {
			t.Errorf("%d left, log:\n%s", src.left(), h.log)
		}
		if h.log.count("the import fails") != 1 || h.Logins() > 45 {
			t.Errorf("%d logins, log:\n%s", h.Logins(), h.log)
		}
	})
}

// TestSourceFails: our own store is no reason to stop.
func TestSourceFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		h.count(map[int]string{-9: "100"})
		src := newSource(energy(map[int]string{-8: "101"}))
		src.err = errors.New("disk full")
		h.run(src, time.Hour)
		if h.Logins() != 0 || h.log.count("disk full") != 1 || h.log.count("cannot be reached") != 0 {
			t.Errorf("%d logins, log:\n%s", h.Logins(), h.log)
		}
		src.err, src.doneErr = nil, errors.New("disk full")
		h.run(src, time.Hour)
		src.doneErr = nil
		h.run(src, time.Hour)
		if diff := cmp.Diff([]string{"-9 100 0", "-8 101 1"}, h.rows(sensorID)); diff != "" || src.left() != 0 {
			t.Errorf("%d left, -want +got\n%s", src.left(), diff)
		}
	})
}

// TestStop: a stop does not wait for Home Assistant, wherever it is.
func TestStop(t *testing.T) {
	for step := range 8 {
		synctest.Test(t, func(t *testing.T) {
			h := newHome(t)
			h.count(map[int]string{-9: "100"})
			n := 0
			h.Hook = func(string, []byte) *hatest.Reply {
				if n++; n > step {
					return &hatest.Reply{Silent: true}
				}
				return nil
			}
			began := time.Now()
			h.run(newSource(energy(map[int]string{-8: "101"})), 5*time.Second)
			if took := time.Since(began); took > 7*time.Second {
				t.Errorf("step %d: stopped after %v", step, took)
			}
			if h.log.count("cannot be reached") != 0 {
				t.Errorf("a stop is no outage:\n%s", h.log)
			}
		})
	}
}

// TestNoise: what is not for us is passed over.
func TestNoise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		h.count(map[int]string{-9: "100"})
		h.Hook = func(command string, _ []byte) *hatest.Reply {
			if command == "connect" || command == "auth" {
				return nil
			}
			return &hatest.Reply{Before: [][]byte{
				[]byte(`{"id":99,"type":"result","success":false,"error":null}`),
				[]byte(`{"id":1,"type":"event","event":{"data":{}}}`),
				[]byte(`{"id":null,"type":7}`),
			}}
		}
		src := newSource(energy(map[int]string{-8: "101"}))
		h.run(src, time.Minute)
		if src.left() != 1 || h.log.count("not Home Assistant's protocol") != 1 {
			t.Errorf("a type that is no text: %d left, log:\n%s", src.left(), h.log)
		}
		h.Hook = func(command string, _ []byte) *hatest.Reply {
			switch command {
			case "connect", "auth":
				return nil
			case "config/entity_registry/list": // ids that are no text, of somebody else
				return &hatest.Reply{Raw: []byte(`{"id":1,"type":"result","success":true,"result":[{"entity_id":"sensor.other","unique_id":77,"platform":"mqtt"},` +
					`{"entity_id":"` + sensorID + `","unique_id":"` + uniqueID + `","platform":"mqtt","disabled_by":null,"options":{"x":[]}}]}`)}
			}
			return &hatest.Reply{Before: [][]byte{
				[]byte(`{"id":99,"type":"result","success":false,"error":null}`),
				[]byte(`{"id":2,"type":"event","event":{"data":{}}}`),
				[]byte(`{"type":"pong"}`),
			}}
		}
		h.run(src, time.Minute)
		if src.left() != 0 {
			t.Errorf("%d left, log:\n%s", src.left(), h.log)
		}
	})
}

// TestNeverInterrupted is the property that all this is for: hours of a true history are missing at random. After the
// import the sums are those of a Home Assistant that never missed one, and no row that was there is another.
func TestNeverInterrupted(t *testing.T) {
	for seed := range uint64(150) {
		random := rand.New(rand.NewPCG(seed, 7))
		synctest.Test(t, func(t *testing.T) {
			h := newHome(t)
			const whole = "sensor.never_interrupted"
			h.SetStatistic(hatest.Statistic{ID: whole, Unit: "GJ", UnitClass: "energy"})
			length := 3 + random.IntN(200)
			if seed%10 == 0 {
				length += 1500 + random.IntN(1500)
			}
			share := random.IntN(101) // per cent of the hours that are missing
			counter := int64(random.IntN(1e6))
			values, kept := map[int]string{}, 0
			for n := -length; n < -1; n++ {
				if random.IntN(3) > 0 {
					counter += int64(random.IntN(500))
				}
				d, err := kmp.NewDecimal(counter, -3)
				if err != nil {
					t.Fatal(err)
				}
				values[n] = d.String()
				h.Count(whole, hour(n), d.String())
			}
			for i, r := range h.Rows(whole) {
				if random.IntN(100) < share && (i != length/2 || seed%3 == 0) {
					continue
				}
				h.Count(sensorID, r.Start, r.State)
				kept++
			}
			before := h.Rows(sensorID)
			src := newSource(energy(values))
			if random.IntN(2) == 0 {
				src.most = 1 + random.IntN(length)
			}
			for src.left() > 0 && kept > 0 {
				h.run(src, time.Minute)
			}
			after := h.Rows(sensorID)
			if kept == 0 {
				if len(after) != 0 {
					t.Fatalf("seed %d: a sensor without rows got %d", seed, len(after))
				}
				return
			}
			if len(after) != len(values) {
				t.Fatalf("seed %d: %d rows of %d\n%s", seed, len(after), len(values), h.log)
			}
			// Sums are the same but for where they begin.
			want := h.Rows(whole)
			begin := minus(t, after[0].Sum, want[0].Sum)
			for i, r := range after {
				if minus(t, r.State, want[i].State) != "0.000" && r.State != want[i].State || strings.Trim(minus(t, minus(t, r.Sum, want[i].Sum), begin), "-0.") != "" {
					t.Fatalf("seed %d: %v, never interrupted %v, begins at %s", seed, r, want[i], begin)
				}
			}
			byHour := map[time.Time]hatest.Row{}
			for _, r := range after {
				byHour[r.Start] = r
			}
			for _, r := range before {
				if byHour[r.Start] != r {
					t.Fatalf("seed %d: %v became %v", seed, r, byHour[r.Start])
				}
			}
		})
	}
}

// TestRenamedMeanwhile: the entity gets another id while hours are pending.
func TestRenamedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		h.count(map[int]string{-9: "100"})
		src := newSource(energy(map[int]string{-8: "101", 0: "109"}))
		time.AfterFunc(30*time.Minute, func() {
			h.SetEntities(hatest.Entity{ID: "sensor.cellar", UniqueID: uniqueID})
			h.SetStatistic(hatest.Statistic{ID: "sensor.cellar", Unit: "GJ", UnitClass: "energy"})
			h.SetRows("sensor.cellar", h.Rows(sensorID)...) // Home Assistant takes the statistics along
		})
		h.run(src, 2*time.Hour)
		synctest.Wait()
		if diff := cmp.Diff([]string{"-9 100 0", "-8 101 1", "0 109 9"}, h.rows("sensor.cellar")); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		if len(h.rows(sensorID)) != 2 {
			t.Errorf("the old id has %v", h.rows(sensorID))
		}
	})
}
