package sim

import (
	"slices"
	"time"

	"kmp2mqtt/kmp"
)

// logKind is what sets one log apart.
type logKind struct {
	depth     int   // rows, unless Config.LogDepth says otherwise
	interval  int64 // seconds; 0: a month or a year
	registers []uint16
}

// logKinds are the logs of a heat meter. The registers of the year log are those of a
// real 603 in its order (github.com/jktjkt/PyKMP, tests/test_client.py), without the few
// that the simulated one does not have. Those of the other logs hold what that program
// reads from them (dump-logs.py), and else are invented, as is the depth of the minute
// log. The second minute log is not set up, as in that capture: it stays empty.
//
// A 601 keeps the hour log alone, in its logger modules.
var logKinds = map[kmp.LogType]logKind{
	kmp.LogYear: {20, 0, []uint16{
		60, 63, 97, 110, 64, 65, 362, 68, 84, 85, 369, 99, 123, 124, 125, 126, 127, 128, 129, 130, 1004, 175,
		94, 61, 62, 95, 96, 473, 474, 69, 224, 225, 72, 73, 348, 1003, 1002,
	}},
	kmp.LogMonth: {36, 0, []uint16{
		60, 63, 97, 110, 64, 65, 362, 68, 84, 85, 369, 99, 138, 139, 140, 141, 142, 143, 144, 145, 149, 150, 1004, 175,
		94, 61, 62, 95, 96, 473, 474, 69, 224, 225, 72, 73, 348, 1003, 1002,
	}},
	kmp.LogDay: {460, day, []uint16{
		60, 63, 97, 110, 64, 65, 362, 68, 84, 85, 369, 99, 74, 80, 86, 87, 1004, 175, 94, 61, 62, 95, 96, 69, 72, 73, 348, 1003, 1002,
	}},
	kmp.LogHour: {1400, 3600, []uint16{
		60, 63, 97, 110, 68, 84, 85, 369, 99, 74, 80, 86, 87, 229, 230, 1004, 72, 348, 1003, 1002,
	}},
	kmp.LogMinute:  {1400, 60, []uint16{60, 63, 68, 369, 99, 74, 80, 86, 87, 348, 1003, 1002}},
	kmp.LogMinute2: {0, 60, []uint16{60, 68, 348, 1003, 1002}},
}

// record is a log that somebody has asked for. Until then it is not kept: since a
// meter's life is a function of its configuration and of what was done to it, a log can
// be made at any time as if it had been kept from the beginning.
type record struct {
	log    kmp.LogType
	kind   logKind
	depth  uint32
	format []kmp.Register // of every row: ids, units, SiEx, and values of the right width
	at     []int          // where the value of each begins in a row
	times  []int          // which of them are date and clock
	width  int            // bytes of a row
	rows   []byte         // a ring: the row with an id stands at id modulo depth
	newest uint32         // id; 0: no rows

	next int64         // seconds of local standard time: what the next row is stamped with
	due  time.Duration // since the start: when the meter's clock shows that
}

// hasLog reports whether the meter keeps a log.
func (m *Meter) hasLog(log kmp.LogType) bool {
	switch {
	case m.model.kind != heat || m.config.NoLogs:
		return false
	case m.model.column == in601:
		return log == kmp.LogHour
	}
	_, ok := logKinds[log]
	return ok
}

// kept returns a log as it is now, and nil when the meter does not keep it. m.mu is
// held.
func (m *Meter) kept(log kmp.LogType) *record {
	if !m.hasLog(log) {
		return nil
	}
	now := m.elapsed()
	if m.logs[log] == nil {
		m.logs[log] = m.relive(log, now)
	}
	m.advanceTo(now)
	return m.logs[log]
}

// relive makes a log by living the meter's life again, up to now.
func (m *Meter) relive(log kmp.LogType, now time.Duration) *record {
	again := install(m.config)
	r := again.newRecord(log)
	again.logs[log] = r
	var begin time.Duration
	if !m.config.EmptyLogs {
		begin = again.since(again.state.t)
	}
	again.await(r, r.after(again.seconds(again.clock.at(begin))))
	again.start()
	for _, c := range m.changes {
		again.advanceTo(c.at)
		c.do(again, c.at)
	}
	again.advanceTo(now)
	return r
}

// newRecord returns a log without rows.
func (m *Meter) newRecord(log kmp.LogType) *record {
	r := &record{log: log, kind: logKinds[log]}
	r.depth = uint32(r.kind.depth)
	if m.config.LogDepth > 0 && r.depth > 0 {
		r.depth = uint32(m.config.LogDepth)
	}
	for _, id := range r.kind.registers {
		if id == registerPower && m.config.Cooling {
			continue // it is negative at times, and a row takes the signs of its numbers from another
		}
		if own, ok := m.own(id, m.config.Start); ok {
			if id == registerDate || id == registerClock {
				r.times = append(r.times, len(r.format))
			}
			r.format, r.at = append(r.format, own), append(r.at, r.width)
			r.width += len(own.Raw)
		}
	}
	r.rows = make([]byte, int(r.depth)*r.width)
	return r
}

// after is what the row behind a moment of the meter's clock is stamped with: the full
// minute or hour, the beginning of the day, month or year.
func (r *record) after(t int64) int64 {
	switch {
	case r.kind.interval > 0:
		return (t/r.kind.interval + 1) * r.kind.interval
	case r.log == kmp.LogMonth:
		return monthEnd(t)
	}
	return yearEnd(t)
}

// await sets what the next row is stamped with.
func (m *Meter) await(r *record, next int64) {
	r.next = next
	r.due = m.clock.when(m.since(next))
}

// record writes the rows that are due until now. A row holds what the registers showed
// when the meter's clock passed its time: the values of the last step of the grid until
// then.
func (m *Meter) record(now time.Duration) {
	if len(m.logs) == 0 {
		return
	}
	for _, change := range m.powerless { // one part with power, one without, one with it again
		m.recordPart(min(change-1, now))
	}
	m.recordPart(now)
}

// recordPart is record for a time in which power neither goes nor comes.
func (m *Meter) recordPart(now time.Duration) {
	for _, r := range m.logs {
		m.skip(r, now)
	}
	for {
		var first *record
		for _, r := range m.logs {
			if r.due <= now && (first == nil || r.due < first.due) {
				first = r
			}
		}
		if first == nil {
			return
		}
		m.state.advance(m.seconds(first.due), int64(m.config.Integration/time.Second))
		m.write(first)
	}
}

// skip counts rows without writing them that would not be kept until now.
func (m *Meter) skip(r *record, now time.Duration) {
	if r.kind.interval == 0 || m.dark(r.due) {
		return
	}
	if n := (m.seconds(m.clock.at(now))-r.next)/r.kind.interval - int64(r.depth); n > 0 {
		if r.depth > 0 {
			r.newest += uint32(n)
		}
		m.await(r, r.next+n*r.kind.interval)
	}
}

// write writes the row that is due. The state is that of the moment.
func (m *Meter) write(r *record) {
	if r.depth > 0 && !m.dark(r.due) {
		r.newest++
		m.fill(r)
	}
	m.await(r, r.after(r.next))
}

// fill writes the registers into the newest row. The largest and smallest values of a
// month or a year are those of the one that ends with the row.
func (m *Meter) fill(r *record) {
	month, year := m.state.month, m.state.year
	if r.log == kmp.LogMonth && m.state.lastMonth.ends == r.next {
		m.state.month = m.state.lastMonth
	}
	if r.log == kmp.LogYear && m.state.lastYear.ends == r.next {
		m.state.year = m.state.lastYear
	}
	shown := m.config.Start.Add(m.since(r.next))
	row := r.row(r.newest)
	for i, f := range r.format {
		v, ok := m.changed(f.ID)
		if !ok || v.Unit != f.Unit || v.SiEx != f.SiEx || len(v.Raw) != len(f.Raw) {
			v, _ = m.own(f.ID, shown)
		}
		copy(row[r.at[i]:], v.Raw)
	}
	m.state.month, m.state.year = month, year
}

// size is how many bytes the values of a row have.
func (r *record) size(places []int) (n int) {
	for _, i := range places {
		n += len(r.format[i].Raw)
	}
	return n
}

// row is the memory of a row.
func (r *record) row(id uint32) []byte {
	i := int(id%r.depth) * r.width
	return r.rows[i : i+r.width]
}

// oldest is the id of the oldest row; 0: no rows.
func (r *record) oldest() uint32 {
	if r.newest <= r.depth {
		return min(r.newest, 1)
	}
	return r.newest - r.depth + 1
}

// registers are those of a row, by their places in the format.
func (r *record) registers(id uint32, places []int) []kmp.Register {
	list := make([]kmp.Register, 0, len(places))
	row := r.row(id)
	for _, i := range places {
		f := r.format[i]
		f.Raw = slices.Clone(row[r.at[i] : r.at[i]+len(f.Raw)])
		list = append(list, f)
	}
	return list
}

// all are the places of all registers.
func (r *record) all() []int {
	places := make([]int, len(r.format))
	for i := range places {
		places[i] = i
	}
	return places
}

// Log returns a whole log as it is now, the oldest row first, with all registers that
// are logged; nil when the meter keeps no such log. It is what a reader should end up
// with.
//
// A row is written when the meter's clock passes a full minute or hour, the beginning
// of a day, of a month, or the 1st of January. It holds what the registers show then:
// the values of the last integration until that moment, the stamp as the time, and in
// the logs of months and years the largest and smallest values and the averages of the
// one that has just ended. Ids count up from 1, whatever happens to clock and power.
func (m *Meter) Log(log kmp.LogType) []kmp.LogRow {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.kept(log)
	if r == nil || r.newest == 0 {
		return nil
	}
	rows := make([]kmp.LogRow, 0, r.newest-r.oldest()+1)
	for id := r.oldest(); id <= r.newest; id++ {
		rows = append(rows, kmp.LogRow{ID: id, Registers: r.registers(id, r.all())})
	}
	return rows
}
