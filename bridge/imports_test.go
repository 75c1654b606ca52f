package bridge

import (
	"context"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"kmp2mqtt/bridge/history"
	"kmp2mqtt/bridge/statistics"
	"kmp2mqtt/bridge/statistics/hatest"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/logbook"
	"kmp2mqtt/kmp/sim"
)

// importLab is a history and what offers its rows.
type importLab struct {
	t     *testing.T
	store *history.Store
	*imports
}

func newImportLab(t *testing.T) *importLab {
	t.Helper()
	s, err := history.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	l := &importLab{t, s, newImports(s, slog.New(slog.DiscardHandler))}
	l.is(rowsOf{serial: "80123456", name: "house", identity: "80123456", label: "Heat"})
	return l
}

// hourRow is a row of the hour log that was written n hours after the beginning of 2026 in
// Copenhagen, with these values of registers 60 and 68; empty: it has none.
func hourRow(t *testing.T, id uint32, n int, energy, volume string) logbook.Row {
	t.Helper()
	row := logbook.Row{Log: kmp.LogHour, ID: id, Time: logStart.Add(time.Duration(n) * time.Hour)}
	if energy != "" {
		row.Registers = append(row.Registers, number(t, 60, kmp.UnitGJ, energy))
	}
	if volume != "" {
		row.Registers = append(row.Registers, number(t, 68, kmp.UnitCubicMetre, volume))
	}
	return row
}

func (l *importLab) keep(rows ...logbook.Row) {
	l.t.Helper()
	if err := l.store.Append("80123456", rows); err != nil {
		l.t.Fatal(err)
	}
}

// offers are what is pending, as text: register, log, and each point's hour and value.
func (l *importLab) offersNow() (list []statistics.Series, text []string) {
	l.t.Helper()
	list, err := l.Pending()
	if err != nil {
		l.t.Fatal(err)
	}
	list = slices.DeleteFunc(list, func(s statistics.Series) bool { return s.OwnOnly }) // see settled
	for _, s := range list {
		line := s.Log.String() + " " + s.Register
		for _, p := range s.Points {
			line += fmt.Sprintf(" %g=%s", p.End.Sub(logStart).Hours(), p.Value)
		}
		text = append(text, line)
	}
	return list, text
}

func (l *importLab) want(want ...string) []statistics.Series {
	l.t.Helper()
	list, got := l.offersNow()
	if diff := cmp.Diff(want, got); diff != "" {
		l.t.Error(diff)
	}
	return list
}

func (l *importLab) settled(s statistics.Series, points ...int) {
	l.t.Helper()
	done := s
	if len(points) > 0 {
		done.Points = nil
		for _, p := range points {
			done.Points = append(done.Points, s.Points[p])
		}
	}
	if err := l.Done(done); err != nil {
		l.t.Fatal(err)
	}
	done.Register += "_fine" // goes with it
	if err := l.Done(done); err != nil {
		l.t.Fatal(err)
	}
}

// TestImportsFullResolution: what the log counts belongs to the sensor at full resolution as
// well, and to nothing else when there is none.
func TestImportsFullResolution(t *testing.T) {
	l := newImportLab(t)
	l.keep(hourRow(t, 1, 1, "1.250", "10.5"))
	list, err := l.Pending()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range list {
		got = append(got, fmt.Sprintf("%s %s %v %s", s.UniqueID, s.Register, s.OwnOnly, s.Points[0].Value))
	}
	if diff := cmp.Diff([]string{
		"kmp_80123456_energy energy false 1.250", "kmp_80123456_energy_fine energy_fine true 1.250",
		"kmp_80123456_volume volume false 10.5", "kmp_80123456_volume_fine volume_fine true 10.5",
	}, got); diff != "" {
		t.Error(diff)
	}
	for i, s := range list {
		l.position(0)
		if err := l.Done(s); err != nil {
			t.Fatal(i, err)
		}
	}
	l.position(1)
}

func (l *importLab) position(want uint32) {
	l.t.Helper()
	id, _, err := l.store.Position(importConsumer, "80123456", kmp.LogHour)
	if err != nil || id != want {
		l.t.Errorf("the position is %d (%v), want %d", id, err, want)
	}
}

func TestImportsOffer(t *testing.T) {
	l := newImportLab(t)
	l.want()
	l.keep(hourRow(t, 1, 1, "1.250", "10.5"), hourRow(t, 2, 2, "1.500", "11.5"), hourRow(t, 3, 3, "1.750", "12.5"))
	list := l.want("hour energy 1=1.250 2=1.500 3=1.750", "hour volume 1=10.5 2=11.5 3=12.5")
	if s := list[0]; s.Serial != "80123456" || s.UniqueID != "kmp_80123456_energy" || !strings.HasPrefix(s.Name, "Heat ") || s.Unit != kmp.UnitGJ || s.Always {
		t.Errorf("%+v", s)
	}

	// The position follows what is settled of all counters.
	l.settled(list[0])
	l.position(0)
	l.settled(list[1], 0)
	l.position(1)
	l.settled(list[1], 2) // the second one has to wait
	l.position(1)
	list = l.want("hour volume 2=11.5")       // what is settled is not offered again
	l.keep(hourRow(t, 4, 4, "2.000", "13.5")) // comes with the next look
	l.settled(list[0])
	l.position(3)
	list = l.want("hour energy 4=2.000", "hour volume 4=13.5")
	l.settled(list[0])
	l.settled(list[1])
	l.position(4)
	l.want()
	l.settled(list[1]) // once more changes nothing
	l.position(4)
}

// TestImportsRows: rows of all kinds.
func TestImportsRows(t *testing.T) {
	timeless := func(row logbook.Row) logbook.Row { row.Time = time.Time{}; return row }
	corrected := func(row logbook.Row, by time.Duration) logbook.Row {
		row.Time, row.Correction, row.Corrected = row.Time.Add(-by), by, true
		return row
	}
	other := func(row logbook.Row, registers ...kmp.Register) logbook.Row {
		row.Registers = append(row.Registers, registers...)
		return row
	}
	for _, tt := range []struct {
		name string
		rows []logbook.Row
		want []string
	}{
		{"without a time", []logbook.Row{
			timeless(hourRow(t, 1, 1, "1", "10")), hourRow(t, 2, 2, "2", "11"), timeless(hourRow(t, 3, 3, "3", "12")),
		}, []string{"hour energy 2=2", "hour volume 2=11"}},
		{"none with a time", []logbook.Row{timeless(hourRow(t, 1, 1, "1", "10")), timeless(hourRow(t, 2, 2, "2", "11"))}, nil},
		{"several of an hour", []logbook.Row{ // the clock was set back
			hourRow(t, 1, 1, "1", "10"), hourRow(t, 2, 2, "2", "11"), hourRow(t, 3, 1, "3", "12"), hourRow(t, 4, 2, "4", "13"), hourRow(t, 5, 3, "5", "14"),
		}, []string{"hour energy 1=1 2=2 3=5", "hour volume 1=10 2=11 3=14"}},
		{"of a clock that is wrong", []logbook.Row{
			corrected(hourRow(t, 1, 1, "1", "10"), 72*time.Hour), corrected(hourRow(t, 2, 2, "2", "11"), -5*time.Minute), corrected(hourRow(t, 3, 3, "3", "12"), time.Hour),
		}, []string{"hour energy 1=1 2=2 3=3", "hour volume 1=10 2=11 3=12"}},
		{"of a clock that is compared to the second", []logbook.Row{ // as far off as the comparison may be
			corrected(hourRow(t, 1, 1, "1", "10"), 59*time.Second), hourRow(t, 2, 2, "2", "11"),
		}, []string{"hour energy 1=1 2=2", "hour volume 1=10 2=11"}},
		{"with a counter that comes later, and one that goes", []logbook.Row{
			hourRow(t, 1, 1, "1", ""), hourRow(t, 2, 2, "2", "11"), hourRow(t, 3, 3, "", "12"),
		}, []string{"hour energy 1=1 2=2", "hour volume 2=11 3=12"}},
		{"with what is no energy and no volume", []logbook.Row{
			other(hourRow(t, 1, 1, "1", ""), number(t, 74, kmp.UnitLitrePerH, "120"), number(t, 86, kmp.UnitCelsius, "70.1"), number(t, 1004, kmp.UnitHour, "7000"), number(t, 99, kmp.UnitNone, "0")),
		}, []string{"hour energy 1=1"}},
		{"with a value that says nothing", []logbook.Row{
			other(hourRow(t, 1, 1, "", "10"), kmp.Register{ID: 60, Unit: kmp.UnitGJ, Raw: nil}), hourRow(t, 2, 2, "2", "11"),
		}, []string{"hour volume 1=10 2=11", "hour energy 2=2"}},
		{"without any counter", []logbook.Row{hourRow(t, 1, 1, "", ""), hourRow(t, 2, 2, "", "")}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newImportLab(t)
			l.keep(tt.rows...)
			for _, s := range l.want(tt.want...) {
				l.settled(s)
			}
			l.position(uint32(len(tt.rows))) // nothing stops what comes behind
			l.want()
		})
	}
}

// TestImportsPages offers a long log in pages.
func TestImportsPages(t *testing.T) {
	l := newImportLab(t)
	var rows []logbook.Row
	const count = 2*importPage + 60
	for n := range count {
		rows = append(rows, hourRow(t, uint32(n+1), n, fmt.Sprint(n), fmt.Sprint(2*n)))
	}
	for n := range importPage { // a page of which nothing can be imported is no end
		rows[importPage+n].Time = time.Time{}
	}
	l.keep(rows...)
	var got []int
	for range 10 {
		list, _ := l.offersNow()
		if len(list) == 0 {
			break
		}
		got = append(got, len(list[0].Points))
		for _, s := range list {
			l.settled(s)
		}
	}
	if diff := cmp.Diff([]int{importPage, 60}, got); diff != "" {
		t.Error(diff)
	}
	l.position(count)
}

// TestImportsOffsets: what a place counted before its meter is added, and the sensor is that of
// the place.
func TestImportsOffsets(t *testing.T) {
	l := newImportLab(t)
	offset, err := kmp.ParseDecimal("100.5")
	if err != nil {
		t.Fatal(err)
	}
	m := rowsOf{serial: "80123456", name: "house", identity: "222", label: "Heat", offsets: map[string]kmp.Decimal{"energy_gj": offset}, external: true}
	l.is(m)
	m.offsets["energy_gj"] = kmp.Decimal{} // that is the caller's
	l.keep(hourRow(t, 1, 1, "1.250", "10.5"))
	list := l.want("hour energy 1=101.750", "hour volume 1=10.5")
	for _, s := range list {
		if s.Serial != "80123456" || s.UniqueID != "kmp_222_"+s.Register || !s.Always {
			t.Errorf("%+v", s)
		}
		l.settled(s)
	}
	l.position(1)
}

// TestImportsLogs offers the days besides the hours, and several meters.
func TestImportsLogs(t *testing.T) {
	l := newImportLab(t)
	day := hourRow(t, 7, 0, "0.500", "5")
	day.Log = kmp.LogDay
	month := hourRow(t, 8, 0, "0.250", "3")
	month.Log = kmp.LogMonth
	l.keep(day, month, hourRow(t, 1, 1, "1.250", "10.5"))
	l.is(rowsOf{serial: "222", name: "other", identity: "222", label: "Other"})
	if err := l.store.Append("222", []logbook.Row{hourRow(t, 5, 3, "9", "")}); err != nil {
		t.Fatal(err)
	}
	if err := l.store.Append("333", []logbook.Row{hourRow(t, 5, 3, "9", "")}); err != nil { // nobody knows whose
		t.Fatal(err)
	}
	list := l.want("hour energy 3=9", "day energy 0=0.500", "day volume 0=5", "hour energy 1=1.250", "hour volume 1=10.5")
	l.settled(list[1])
	l.settled(list[2])
	l.want("hour energy 3=9", "hour energy 1=1.250", "hour volume 1=10.5")
}

// TestImportsRestarted: the meter's log begins anew while rows of before are under way.
func TestImportsRestarted(t *testing.T) {
	l := newImportLab(t)
	l.keep(hourRow(t, 500, 1, "500", ""), hourRow(t, 501, 2, "501", ""))
	list := l.want("hour energy 1=500 2=501")
	if err := l.store.Restart("80123456", kmp.LogHour); err != nil {
		t.Fatal(err)
	}
	l.keep(hourRow(t, 1, 5, "1", ""), hourRow(t, 2, 6, "2", ""))
	l.settled(list[0])
	list = l.want("hour energy 5=1 6=2")
	l.settled(list[0])
	l.position(2)
	l.want()
}

// TestImportsIntoHomeAssistant carries the rows of a meter that was out of reach into the
// statistics: those of the sensor for the energy, statistics of their own for the volume, which
// has no sensor.
func TestImportsIntoHomeAssistant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		toToday()
		dir := t.TempDir()
		l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: "403", EmptyLogs: true, ClockOffset: 10 * time.Minute, Start: time.Now().UTC()}},
			"METERS=house=/dev/a?model=403&tz=UTC", "DATA_DIR="+dir)
		m := sims["/dev/a"]
		began := time.Now().Truncate(time.Hour)
		l.start()
		l.pass(5*time.Hour + 5*time.Minute)
		l.lines.cut("/dev/a")
		l.pass(40 * time.Hour)
		l.lines.mend("/dev/a")
		l.pass(10 * time.Minute)
		l.stop()
		log := m.Log(kmp.LogHour)
		value := func(row kmp.LogRow, id uint16) string {
			for _, r := range row.Registers {
				if r.ID == id {
					v, err := r.Value()
					if err != nil {
						t.Fatal(err)
					}
					return v.String()
				}
			}
			t.Fatalf("the log has no register %d", id)
			return ""
		}
		rows, err := history.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		src := newImports(rows, slog.New(slog.DiscardHandler))
		src.is(rowsOf{serial: "80123456", name: "house", identity: "80123456", label: "Heat"})

		const sensor, other = "sensor.house_energy", "kmp2mqtt:80123456_volume"
		home := hatest.New("token")
		home.SetEntities(hatest.Entity{ID: sensor, UniqueID: "kmp_80123456_energy"})
		home.SetStatistic(hatest.Statistic{ID: sensor, Unit: "GJ", UnitClass: "energy"})
		for n := range 4 { // which Home Assistant counted itself
			home.Count(sensor, began.Add(time.Duration(n)*time.Hour), value(log[n], 60))
		}
		lines := &pipeListener{conns: make(chan net.Conn)}
		server := &http.Server{Handler: home}
		go server.Serve(lines)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			statistics.Run(ctx, statistics.Config{
				URL: &url.URL{Scheme: "http", Host: "home:8123"}, Token: "token", Log: slog.New(slog.NewTextHandler(&l.logs, nil)), Dial: lines.dial,
			}, src)
		}()
		time.Sleep(2 * time.Hour)

		for id, register := range map[string]uint16{sensor: 60, other: 68} {
			got := home.Rows(id)
			if len(got) != len(log) {
				t.Errorf("%s: %d rows, the meter's log has %d", id, len(got), len(log))
			}
			var first *big.Rat
			for i, row := range got[:min(len(got), len(log))] {
				// The clock is 10 minutes ahead: what it calls the full hour is 10 minutes before it.
				if want := began.Add(time.Duration(i) * time.Hour); !row.Start.Equal(want) {
					t.Fatalf("%s: row %d is of %v, want %v", id, i, row.Start, want)
				}
				state, ok := new(big.Rat).SetString(row.State)
				sum, ok2 := new(big.Rat).SetString(row.Sum)
				want, _ := new(big.Rat).SetString(value(log[i], register))
				if first == nil {
					first = want
				}
				if !ok || !ok2 || state.Cmp(want) != 0 || sum.Cmp(new(big.Rat).Sub(want, first)) != 0 {
					t.Fatalf("%s: row %d is %+v, the meter showed %v, and %v at first", id, i, row, want, first)
				}
			}
		}
		if pending, err := src.Pending(); err != nil || len(pending) > 0 {
			t.Errorf("still pending: %v, %v", pending, err)
		}
		cancel()
		<-ended
		server.Close()
		home.Hangup()
		synctest.Wait()
	})
}

// pipeListener takes connections inside a bubble.
type pipeListener struct{ conns chan net.Conn }

func (p *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept, Close and Addr make it a listener.
func (p *pipeListener) Accept() (net.Conn, error) {
	if c, ok := <-p.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p *pipeListener) Close() error {
	close(p.conns)
	return nil
}

func (p *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// A log may begin with id 0.
func TestImportsFirstID(t *testing.T) {
	l := newImportLab(t)
	l.keep(hourRow(t, 0, 1, "10.000", ""), hourRow(t, 1, 2, "10.100", ""))
	s := l.want("hour energy 1=10.000 2=10.100")
	l.settled(s[0], 0)
	l.position(0)
	l.want("hour energy 2=10.100")
}

// Hours of one register that wait, maybe for ever, neither hold up those of another one nor have
// them offered again and again.
func TestImportsOneWaits(t *testing.T) {
	l := newImportLab(t)
	const rows = 2*importPage + 100
	var all []logbook.Row
	for id := range uint32(rows) {
		all = append(all, hourRow(t, id, int(id)+1, "10.000", "5.00"))
	}
	l.keep(all...)
	done := 0
	for range 10 {
		list, err := l.Pending()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list {
			if s.Register == "energy" {
				done += len(s.Points)
				l.settled(s)
			}
		}
	}
	if done != rows {
		t.Errorf("%d hours of energy were offered, there are %d", done, rows)
	}
	if _, known, err := l.store.Position(importConsumer, "80123456", kmp.LogHour); known || err != nil {
		t.Errorf("there is a position, though no row is settled: %v", err)
	}
}
