package sim

import (
	"slices"
	"time"

	"kmp2mqtt/kmp"
)

// hears reports whether the meter, or a module in it, has an address.
func (m *Meter) hears(addr kmp.Address) bool {
	return addr == m.config.Address || m.modules[addr] != nil
}

// answer returns the answer to a checked frame, or nil for silence.
func (m *Meter) answer(f kmp.Frame) kmp.Answer {
	request, err := kmp.DecodeMessage(f)
	if err != nil {
		return nil // an unknown command or a malformed request
	}
	if f.Address != m.config.Address {
		return m.answerModule(f.Address, request)
	}
	switch q := request.(type) {
	case *kmp.GetTypeRequest:
		return &kmp.GetTypeAnswer{MeterType: m.model.meterType, Revision: m.model.revision}
	case *kmp.GetSerialNoRequest:
		return &kmp.GetSerialNoAnswer{SerialNo: m.serialNo()}
	case *kmp.GetRegisterRequest:
		return &kmp.GetRegisterAnswer{Registers: m.registers(q.IDs)}
	}
	if m.model.kind != heat {
		return nil // what other meters make of the rest is not known
	}
	switch q := request.(type) {
	case *kmp.SetClockRequest:
		d, c := q.Date, q.Clock
		m.SetClock(time.Date(d.Year, time.Month(d.Month), d.Day, c.Hour, c.Minute, c.Second, 0, m.standard))
		return new(kmp.SetClockAnswer)
	case *kmp.PutRegisterRequest:
		return m.put(q)
	case *kmp.LogConfigRequest:
		return m.logConfig(q.Log)
	case *kmp.LogByIDRequest:
		if page, ok := m.logByID(q); ok {
			return &kmp.LogByIDAnswer{LogPage: page}
		}
	case *kmp.LogLastRequest:
		if page, ok := m.logLast(q); ok {
			return &kmp.LogLastAnswer{LogPage: page}
		}
	}
	return nil
}

// writable are the registers that PutRegister writes, in a meter that has them: pulse
// inputs, target date, customer number, count of info events. Which ones a real meter
// lets write is not public.
var writable = []uint16{84, 85, 98, 112, 113, 1010}

// put writes a register. The format has to be the meter's own.
func (m *Meter) put(q *kmp.PutRegisterRequest) kmp.Answer {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := q.Register
	own, ok := m.own(r.ID, m.config.Start)
	if !ok || m.missing[r.ID] || q.Password != m.config.Password || !slices.Contains(writable, r.ID) ||
		r.Unit != own.Unit || r.SiEx != own.SiEx || len(r.Raw) != len(own.Raw) {
		return nil
	}
	r.Raw = slices.Clone(r.Raw)
	m.change(func(m *Meter, _ time.Duration) { m.written[r.ID] = r })
	return new(kmp.PutRegisterAnswer)
}

// logged are the places, in a log's format, of those of the ids that it has. Missing
// registers are missing in logs, too. m.mu is held.
func (m *Meter) logged(r *record, ids []uint16) (places []int) {
	for _, id := range ids {
		i := slices.IndexFunc(r.format, func(f kmp.Register) bool { return f.ID == id })
		if i >= 0 && !m.missing[id] {
			places = append(places, i)
		}
	}
	return places
}

// readable is a log that is read with the command B8: not that of a 601.
func (m *Meter) readable(log kmp.LogType) *record {
	if m.model.column == in601 {
		return nil
	}
	return m.kept(log)
}

// logConfig is the answer to a request for a log's configuration, after that of a real
// 603's year log.
func (m *Meter) logConfig(log kmp.LogType) kmp.Answer {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.readable(log)
	if r == nil {
		return nil
	}
	c := kmp.LogConfig{Log: log, Formats: [4]byte{1, 1, 1, 1}, Depth: uint16(r.depth)}
	switch log {
	case kmp.LogYear:
		c.TargetDates[0] = kmp.MonthDay{Month: 1, Day: 1}
	case kmp.LogMonth:
		c.TargetDates[0].Day = 1
	case kmp.LogMinute:
		c.Interval = 1
	}
	for _, f := range r.format {
		if !m.missing[f.ID] {
			c.Registers = append(c.Registers, f.ID)
		}
	}
	return &kmp.LogConfigAnswer{LogConfig: c}
}

// logByID is the answer to a request for rows by their ids; false for silence.
func (m *Meter) logByID(q *kmp.LogByIDRequest) (kmp.LogPage, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.readable(q.Log)
	if r == nil {
		return kmp.LogPage{}, false
	}
	return m.page(r, q.From, q.Entries, q.IDs), true
}

// logLast is the answer to a request for the last rows; false for silence. An offset
// beyond the oldest row means that row.
func (m *Meter) logLast(q *kmp.LogLastRequest) (kmp.LogPage, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.readable(q.Log)
	if r == nil {
		return kmp.LogPage{}, false
	}
	return m.page(r, r.newest-min(uint32(q.Offset), r.newest-r.oldest()), q.Entries, q.IDs), true
}

// page is a part of a log from one row on, towards the past, as much of it as the
// buffer holds. m.mu is held.
func (m *Meter) page(r *record, from uint32, entries uint16, ids []uint16) kmp.LogPage {
	const head = 15 // bytes before the rows
	p := kmp.LogPage{Log: r.log, First: from, Newest: r.newest}
	places := m.logged(r, ids)
	if len(places) < len(ids) {
		p.Info |= kmp.LogUnsupported
	}
	n := len(places)
	for head+5*n+r.size(places[:n]) > m.config.LogBuffer {
		n--
		p.Info |= kmp.LogCut
	}
	places = places[:n]
	switch {
	case r.newest == 0:
		p.Info |= kmp.LogEmpty
	case from < r.oldest() || from > r.newest:
		p.Info |= kmp.LogOutOfRange
		return p
	case entries == 0:
		p.Info |= kmp.LogInvalid
		return p
	}
	if n == 0 {
		return p
	}
	if r.newest == 0 { // a real 603 fills a row with zeros that stands for none
		row := kmp.LogRow{ID: from}
		for _, i := range places {
			f := r.format[i]
			f.Raw = make([]byte, len(f.Raw))
			row.Registers = append(row.Registers, f)
		}
		p.Rows = []kmp.LogRow{row}
		return p
	}
	count := min(uint32(entries), from-r.oldest()+1)
	if most := uint32((m.config.LogBuffer - head - 5*n) / r.size(places)); count > most {
		count = most
		p.Info |= kmp.LogMore
	}
	for id := from; id > from-count; id-- {
		p.Rows = append(p.Rows, kmp.LogRow{ID: id, Registers: r.registers(id, places)})
	}
	if from == r.newest {
		p.Info |= kmp.LogAtNewest
	}
	if from-count+1 == r.oldest() {
		p.Info |= kmp.LogAtOldest
	}
	return p
}
