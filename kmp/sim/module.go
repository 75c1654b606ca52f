package sim

import (
	"time"

	"kmp2mqtt/kmp"
)

// module is a logger module of a 601. Both show the meter's hour log as log 1; each
// knows itself what was read from it.
type module struct {
	meterType uint16
	read      uint32 // id of the last row that was read and cleared: LRORecID
	sent      uint32 // id of the last row that was read
}

// intervalLog is the number of the hour log in a module.
const intervalLog = 1

// newModules are the modules of a meter. Of their types only the first byte is known
// (5512-447 section 6.2.1).
func newModules(m *Meter) map[kmp.Address]*module {
	if m.model.column != in601 || m.model.kind != heat || m.config.NoLogs {
		return nil
	}
	return map[kmp.Address]*module{
		kmp.LoggerTop:  {meterType: 0x0901},
		kmp.LoggerBase: {meterType: 0x1601},
	}
}

// answerModule returns what a module answers, or nil for silence. Its serial number is
// that of the meter; what a real one answers is not known.
func (m *Meter) answerModule(addr kmp.Address, request kmp.Message) kmp.Answer {
	l := m.modules[addr]
	if l == nil {
		return nil
	}
	switch q := request.(type) {
	case *kmp.GetTypeRequest:
		return &kmp.GetTypeAnswer{MeterType: l.meterType, Revision: kmp.Revision{Letter: 1, Number: 1}}
	case *kmp.GetSerialNoRequest:
		return &kmp.GetSerialNoAnswer{SerialNo: m.serialNo()}
	case *kmp.PutRegisterRequest:
		return m.put(q)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.kept(kmp.LogHour)
	switch q := request.(type) {
	case *kmp.LogRecordsRequest:
		if q.LogID != intervalLog {
			return nil
		}
		return m.records(l, r, q)
	case *kmp.GetEventStatusRequest:
		return &kmp.GetEventStatusAnswer{Status: l.status(r)}
	case *kmp.ClearEventStatusRequest:
		if q.Conditional[2]&kmp.EventIntervalLog != 0 {
			l.read = max(l.read, l.sent)
		}
		return &kmp.ClearEventStatusAnswer{Status: l.status(r)}
	}
	return nil
}

// status says whether there are rows that were not read.
func (l *module) status(r *record) (s kmp.EventStatus) {
	if r.newest > l.read {
		s[2] = kmp.EventIntervalLog
	}
	return s
}

// records is the answer to a request for rows of a module's log. m.mu is held.
func (m *Meter) records(l *module, r *record, q *kmp.LogRecordsRequest) kmp.Answer {
	a := &kmp.LogRecordsAnswer{Kind: q.Kind, LogRecords: kmp.LogRecords{
		LogID: q.LogID, LastRead: uint16(l.read), Newest: uint16(r.newest),
	}}
	if r.newest == 0 {
		a.Info = kmp.RecordsEmpty
		return a
	}
	id, left := l.find(r, q)
	if left == 0 {
		a.Info = kmp.RecordsOutOfRange
		if q.Kind == kmp.CmdGetLogLastPresent {
			a.Info = kmp.RecordsEnd // nothing is new
		}
		return a
	}
	places := m.logged(r, q.IDs)
	if len(places) == 0 {
		return a
	}
	room := int(q.MaxLength) - 8 - 5*len(places) // 5512-447 section 6.3: what is no row
	for range min(uint32(q.Records), left) {
		if room -= 2 + r.size(places); room < 0 {
			a.Info |= kmp.RecordsMaxLength
			return a
		}
		a.Rows = append(a.Rows, kmp.LogRow{ID: id & 0xFFFF, Registers: r.registers(id, places)})
		if q.Kind == kmp.CmdGetLogLastPresent {
			l.sent = id
		}
		if q.Kind == kmp.CmdGetLogTimePast {
			id--
		} else {
			id++
		}
		left--
	}
	if left == 0 {
		a.Info |= kmp.RecordsEnd
	}
	return a
}

// find is the row that an answer begins with, and how many there are from it to the end
// of the log.
func (l *module) find(r *record, q *kmp.LogRecordsRequest) (id, left uint32) {
	oldest := r.oldest()
	switch q.Kind {
	case kmp.CmdGetLogLastPresent:
		id = max(l.read+1, oldest)
	case kmp.CmdGetLogIDPresent:
		id = r.newest + 1
		if back := uint16(r.newest) - q.Record; uint32(back) <= r.newest-oldest {
			id = r.newest - uint32(back)
		} else if int16(back) > 0 {
			id = oldest
		}
	case kmp.CmdGetLogTimePresent:
		for id = oldest; id <= r.newest && r.stamp(id) < seconds(q.Time); {
			id++
		}
	default:
		for id = r.newest; id >= oldest && r.stamp(id) > seconds(q.Time); {
			id--
		}
		if id < oldest || id-oldest < uint32(q.Record) {
			return 0, 0
		}
		id -= uint32(q.Record)
		return id, id - oldest + 1
	}
	return id, r.newest + 1 - id
}

// seconds is a time of a request in seconds of local standard time.
func seconds(t kmp.LogTime) int64 {
	d, c := t.Date, t.Clock
	return time.Date(d.Year, time.Month(d.Month), d.Day, c.Hour, c.Minute, c.Second, 0, time.UTC).Unix()
}

// stamp is what a row is stamped with, in seconds of local standard time.
func (r *record) stamp(id uint32) int64 {
	var t kmp.LogTime
	for _, register := range r.registers(id, r.times) {
		switch v, _ := register.Value(); v := v.(type) {
		case kmp.Date:
			t.Date = v
		case kmp.Clock:
			t.Clock = v
		}
	}
	return seconds(t)
}
