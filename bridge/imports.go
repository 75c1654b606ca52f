package bridge

import (
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"kmp2mqtt/bridge/history"
	"kmp2mqtt/bridge/numbers"
	"kmp2mqtt/bridge/statistics"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/logbook"
)

const (
	// importConsumer is whose positions in the history the import keeps.
	importConsumer = "home_assistant"
	// importPage is how many rows of a log are offered at once.
	importPage = 720
	// importMost is how many are at most, where hours of one sensor wait for Home Assistant and
	// those of others need not.
	importMost = 20 * importPage
)

// importLogs are the logs whose rows become hours of statistics. That of a day is its last hour.
var importLogs = [...]kmp.LogType{kmp.LogDay, kmp.LogHour}

// imports offers the rows of the history to Home Assistant's statistics: a
// [statistics.Source]. A nil *imports offers nothing.
type imports struct {
	store   *history.Store
	log     *slog.Logger
	changed chan struct{} // holds a token when there may be rows

	mu     sync.Mutex
	meters map[string]rowsOf // by serial number

	offers map[offerKey]*offer // of Run's goroutine alone
}

// offerKey is a log of a meter.
type offerKey struct {
	serial string
	log    kmp.LogType
}

// offer is a page of rows of which some hours may not be settled yet.
type offer struct {
	rows []offered
	left hoursOf // not settled
	done hoursOf // settled, and not to be offered again while others of their rows wait
}

// hoursOf are hours by register.
type hoursOf map[string]map[time.Time]bool

func (h hoursOf) add(register string, end time.Time) {
	if h[register] == nil {
		h[register] = make(map[time.Time]bool)
	}
	h[register][end] = true
}

// any reports whether an hour is among those of any register.
func (h hoursOf) any(end time.Time) bool {
	for _, hours := range h {
		if hours[end] {
			return true
		}
	}
	return false
}

// offered is a row and the hour that it ends; zero: none.
type offered struct {
	id  uint32
	end time.Time
}

func newImports(store *history.Store, log *slog.Logger) *imports {
	return &imports{
		store: store, log: log, changed: make(chan struct{}, 1),
		meters: make(map[string]rowsOf), offers: make(map[offerKey]*offer),
	}
}

// is says whose rows a serial number's are.
func (i *imports) is(m rowsOf) {
	if i == nil {
		return
	}
	i.mu.Lock()
	m.offsets = maps.Clone(m.offsets)
	i.meters[m.serial] = m
	i.mu.Unlock()
	i.rows()
}

// rows says that there may be new rows.
func (i *imports) rows() {
	if i == nil {
		return
	}
	select {
	case i.changed <- struct{}{}:
	default:
	}
}

// Changed implements [statistics.Source].
func (i *imports) Changed() <-chan struct{} { return i.changed }

// Pending implements [statistics.Source]: a page of each log of each meter.
func (i *imports) Pending() ([]statistics.Series, error) {
	i.mu.Lock()
	meters := slices.Collect(maps.Values(i.meters))
	i.mu.Unlock()
	slices.SortFunc(meters, func(a, b rowsOf) int { return strings.Compare(a.serial, b.serial) })
	var all []statistics.Series
	for _, m := range meters {
		for _, log := range importLogs {
			series, err := i.page(m, log)
			if err != nil {
				return nil, err
			}
			all = append(all, series...)
		}
	}
	return all, nil
}

// page is what comes next of a log. Rows from which nothing can be imported are passed over.
func (i *imports) page(m rowsOf, log kmp.LogType) ([]statistics.Series, error) {
	for {
		var done hoursOf
		most := importPage
		if o := i.offers[offerKey{m.serial, log}]; o != nil {
			done = o.done
			for _, row := range o.rows {
				if most < importMost && done.any(row.end) {
					most++
				}
			}
		}
		last, known, err := i.store.Position(importConsumer, m.serial, log)
		if err != nil {
			return nil, err
		}
		rows, err := i.store.After(m.serial, log, behind(last, known), most)
		if err != nil || len(rows) == 0 {
			return nil, err
		}
		series, o := offerRows(m, log, rows, done)
		i.offers[offerKey{m.serial, log}] = o
		if len(series) > 0 {
			return series, nil
		}
		if err := i.store.SetPosition(importConsumer, m.serial, log, rows[len(rows)-1].ID); err != nil {
			return nil, err
		}
	}
}

// offerRows makes a series of each counter of energy or volume in rows, without the hours that are
// done.
func offerRows(m rowsOf, log kmp.LogType, rows []logbook.Row, done hoursOf) ([]statistics.Series, *offer) {
	o := &offer{left: make(hoursOf), done: make(hoursOf)}
	var all []statistics.Series
	index := make(map[string]int) // in all, by sensor and key
	for _, row := range rows {
		end := hourEnd(row)
		o.rows = append(o.rows, offered{row.ID, end})
		if end.IsZero() {
			continue
		}
		for _, r := range row.Registers {
			v, err := numbers.Decode(r)
			n, isNumber := raised(v, m.offsets).(kmp.Decimal)
			if err != nil || !isNumber || v.Register.Kind != catalog.Counter || !statistics.Takes(v.Unit) {
				continue
			}
			for _, name := range sensors(v.Register) {
				if done[name][end] {
					o.done.add(name, end)
					continue
				}
				id := name + " in " + v.Key
				at, ok := index[id]
				if !ok {
					at = len(all)
					index[id] = at
					all = append(all, statistics.Series{
						Serial: m.serial, UniqueID: sensorID(m, v.Register, name),
						Name: m.label + " " + v.Register.Title, Register: name, Unit: v.Unit, Log: log,
						Always: m.external && name == v.Register.Name, OwnOnly: name != v.Register.Name,
					})
				}
				if !o.left[name][end] {
					o.left.add(name, end)
					all[at].Points = append(all[at].Points, statistics.Point{End: end, Value: n})
				}
			}
		}
	}
	return all, o
}

// sensors are the names of those to whose statistics a counter in a log belongs: its own, and
// that of the number at full resolution, of which the log has the leading digits.
func sensors(r catalog.Register) []string {
	names := []string{r.Name}
	for _, derived := range numbers.Derived() {
		if id, ok := numbers.Coarse(derived.Name); ok && id == r.ID {
			names = append(names, derived.Name)
		}
	}
	return names
}

// hourEnd is the full hour at which a row was written by the true time; zero when that is
// not known.
func hourEnd(row logbook.Row) time.Time {
	if row.Time.IsZero() {
		return time.Time{}
	}
	return row.Time.Add(row.Correction).UTC().Round(time.Hour)
}

// Done implements [statistics.Source]. The position follows the rows all of whose hours are
// settled.
func (i *imports) Done(s statistics.Series) error {
	o := i.offers[offerKey{s.Serial, s.Log}]
	if o == nil {
		return nil
	}
	for _, p := range s.Points {
		delete(o.left[s.Register], p.End)
		o.done.add(s.Register, p.End)
	}
	settled := 0
	for settled < len(o.rows) && !o.left.any(o.rows[settled].end) {
		settled++
	}
	return i.settle(s.Serial, s.Log, o, settled)
}

// settle notes that the first rows of an offer are settled.
func (i *imports) settle(serial string, log kmp.LogType, o *offer, rows int) error {
	if rows == 0 {
		return nil
	}
	last := o.rows[rows-1]
	o.rows = o.rows[rows:]
	there, err := i.store.After(serial, log, int64(last.id)-1, 1)
	if err != nil {
		return err
	}
	if len(there) == 0 || there[0].ID != last.id || !hourEnd(there[0]).Equal(last.end) {
		o.rows = nil // the log began anew meanwhile: these are rows of the one before
		return nil
	}
	return i.store.SetPosition(importConsumer, serial, log, last.id)
}
