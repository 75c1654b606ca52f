package logbook

import (
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
)

// fake is a meter made for the reader alone: it does what the simulated one does not.
type fake struct {
	t      *testing.T
	chance *rand.Rand
	rows   []fakeRow // ascending; pushed out from the front
	depth  int
	buffer int // bytes of an answer's data
	config []uint16

	silent    bool   // does not tell by flags why an answer is short
	strict    bool   // no row for an offset beyond the oldest one
	picky     bool   // no rows when a register is not in the log, but a flag
	reversed  bool   // takes a time with the year last
	most      int    // registers in an answer; 0: all
	grows     int    // one answer in so many comes after a new row; 0: none
	glitches  int    // one answer in so many has a wrong value; 0: none
	spare     uint32 // rows up to this one have no wrong value
	fails     int    // one request in so many gets no answer; 0: all get one
	lastTime  time.Time
	lastCount uint32
	requests  int
}

// fakeRow is a row of a format: the registers that it has, and what holds its time.
type fakeRow struct {
	id        uint32
	registers []kmp.Register
}

// add writes a row an hour or more after the one before, or before it.
func (f *fake) add(after time.Duration, format []uint16) {
	id := uint32(1)
	if n := len(f.rows); n > 0 {
		id = f.rows[n-1].id + 1
	}
	f.lastTime = f.lastTime.Add(after)
	f.lastCount += uint32(f.chance.IntN(3))
	row := fakeRow{id: id}
	at := f.lastTime
	date := kmp.Date{Year: at.Year(), Month: int(at.Month()), Day: at.Day()}
	clock := kmp.Clock{Hour: at.Hour(), Minute: at.Minute(), Second: at.Second()}
	for _, id := range format {
		var r kmp.Register
		var err error
		switch id {
		case regDateTime:
			r, err = kmp.NewDSTDateTimeRegister(id, kmp.DateTime{Date: date, Clock: clock})
		case regDate:
			r, err = kmp.NewDateRegister(id, date)
		case regClock:
			r, err = kmp.NewClockRegister(id, clock)
		case 60: // a counter
			r = kmp.Register{ID: id, Unit: kmp.UnitGJ, Raw: binary.BigEndian.AppendUint32(nil, f.lastCount)}
		default: // of any width, whatever it holds
			r = kmp.Register{ID: id, Unit: kmp.UnitNone, Raw: make([]byte, 1+int(id)%9)}
			for i := range r.Raw {
				r.Raw[i] = byte(f.chance.Uint32())
			}
		}
		if err != nil {
			f.t.Fatal(err)
		}
		row.registers = append(row.registers, r)
	}
	if f.rows = append(f.rows, row); len(f.rows) > f.depth {
		f.rows = f.rows[len(f.rows)-f.depth:]
	}
}

func (f *fake) newest() uint32 { return f.rows[len(f.rows)-1].id }

func (f *fake) oldest() uint32 { return f.rows[0].id }

func (f *fake) row(id uint32) fakeRow { return f.rows[id-f.oldest()] }

func (f *fake) one(in int) bool { return in > 0 && f.chance.IntN(in) == 0 }

// answer is what the meter says, nil for nothing.
func (f *fake) answer(m kmp.Message) kmp.Answer {
	f.requests++
	if f.one(f.grows) && len(f.rows) > 0 {
		var format []uint16
		for _, r := range f.rows[len(f.rows)-1].registers {
			format = append(format, r.ID)
		}
		f.add(time.Hour, format)
	}
	if f.one(f.fails) {
		return nil
	}
	switch q := m.(type) {
	case *kmp.GetSerialNoRequest:
		return &kmp.GetSerialNoAnswer{SerialNo: 1}
	case *kmp.GetEventStatusRequest:
		return &kmp.GetEventStatusAnswer{}
	case *kmp.LogRecordsRequest:
		return f.records(q)
	case *kmp.LogConfigRequest:
		return &kmp.LogConfigAnswer{LogConfig: kmp.LogConfig{Log: q.Log, Depth: uint16(f.depth), Registers: f.config}}
	case *kmp.LogByIDRequest:
		return &kmp.LogByIDAnswer{LogPage: f.page(q.Log, int64(q.From), int(q.Entries), q.IDs)}
	case *kmp.LogLastRequest:
		if len(f.rows) == 0 {
			return &kmp.LogLastAnswer{LogPage: kmp.LogPage{Log: q.Log, Info: kmp.LogEmpty}}
		}
		from := int64(f.newest()) - int64(q.Offset)
		if !f.strict {
			from = max(from, int64(f.oldest()))
		}
		return &kmp.LogLastAnswer{LogPage: f.page(q.Log, from, int(q.Entries), q.IDs)}
	}
	return nil
}

// page are the rows from an id on, towards older ones.
func (f *fake) page(log kmp.LogType, from int64, entries int, ids []uint16) kmp.LogPage {
	if len(f.rows) == 0 {
		return kmp.LogPage{Log: log, Info: kmp.LogEmpty}
	}
	p := kmp.LogPage{Log: log, First: uint32(from), Newest: f.newest()}
	if from < int64(f.oldest()) || from > int64(f.newest()) {
		p.First, p.Info = 0, kmp.LogOutOfRange
		return p
	}
	format := f.row(p.First).registers
	var has []uint16
	for _, id := range ids {
		if find(format, id) != nil {
			has = append(has, id)
		} else {
			p.Info |= kmp.LogUnsupported
		}
	}
	if f.most > 0 && len(has) > f.most {
		has = has[:f.most]
		p.Info |= kmp.LogCut
	}
	if len(has) == 0 || f.picky && p.Info&kmp.LogUnsupported != 0 {
		return p
	}
	size := 15 + 5*len(has)
	for n := range entries {
		id := from - int64(n)
		if id < int64(f.oldest()) {
			break
		}
		row := f.row(uint32(id))
		if !slices.EqualFunc(row.registers, format, func(a, b kmp.Register) bool { return a.ID == b.ID }) {
			p.Info |= kmp.LogFormatChanged
			break
		}
		var registers []kmp.Register
		for _, id := range has {
			r := *find(row.registers, id)
			size += len(r.Raw)
			registers = append(registers, r)
		}
		if size > f.buffer {
			p.Info |= kmp.LogMore
			break
		}
		p.Rows = append(p.Rows, kmp.LogRow{ID: uint32(id), Registers: registers})
	}
	if len(p.Rows) > 0 && p.First == p.Newest {
		p.Info |= kmp.LogAtNewest
	}
	if n := len(p.Rows); n > 0 && p.Rows[n-1].ID == f.oldest() {
		p.Info |= kmp.LogAtOldest
	}
	if n := len(p.Rows); n > 0 && f.one(f.glitches) {
		if row := p.Rows[f.chance.IntN(n)]; row.ID > f.spare && row.ID > f.oldest() {
			f.spoil(row.Registers)
		}
	}
	if f.silent {
		p.Info &= kmp.LogOutOfRange | kmp.LogUnsupported | kmp.LogCut
	}
	return p
}

// records are the rows of a module from an id or a time on.
func (f *fake) records(q *kmp.LogRecordsRequest) kmp.Answer {
	a := &kmp.LogRecordsAnswer{Kind: q.Kind, LogRecords: kmp.LogRecords{LogID: q.LogID}}
	if len(f.rows) == 0 {
		a.Info = kmp.RecordsEmpty
		return a
	}
	a.Newest = uint16(f.newest())
	var rows []fakeRow
	for i, row := range f.rows {
		at, _ := timeOf(row.registers, time.UTC, false)
		wanted := time.Date(q.Time.Date.Year, time.Month(q.Time.Date.Month), q.Time.Date.Day, q.Time.Clock.Hour, q.Time.Clock.Minute, q.Time.Clock.Second, 0, time.UTC)
		if q.Kind == kmp.CmdGetLogIDPresent && int16(uint16(row.id)-q.Record) >= 0 ||
			q.Kind == kmp.CmdGetLogTimePresent && q.TimeReversed == f.reversed && !at.Before(wanted) {
			rows = f.rows[i:]
			break
		}
	}
	if len(rows) == 0 {
		a.Info = kmp.RecordsOutOfRange
	}
	size := 8
	for i, row := range rows {
		if i == int(q.Records) {
			break
		}
		size += 2
		var registers []kmp.Register
		for _, id := range q.IDs {
			if r := find(row.registers, id); r != nil {
				registers = append(registers, kmp.Register{ID: r.ID, Unit: r.Unit, SiEx: r.SiEx, Raw: slices.Clone(r.Raw)})
				size += len(r.Raw)
				if i == 0 {
					size += 5
				}
			}
		}
		if len(registers) == 0 {
			break
		}
		if size > min(int(q.MaxLength), f.buffer) {
			a.Info |= kmp.RecordsMaxLength
			break
		}
		a.Rows = append(a.Rows, kmp.LogRow{ID: row.id & 0xFFFF, Registers: registers})
		if row.id == f.newest() {
			a.Info |= kmp.RecordsEnd
		}
	}
	if n := len(a.Rows); n > 0 && f.one(f.glitches) {
		if i := f.chance.IntN(n); rows[i].id > f.spare {
			f.spoil(a.Rows[i].Registers)
		}
	}
	if f.silent && a.Info != 0 { // an answer of another form: two bytes too many
		a.Rest = []byte{0, 0, 0, 0, byte(a.Newest >> 8), byte(a.Newest)}
		if len(a.Rows) == 0 {
			a.Rest = []byte{q.LogID}
		}
	}
	return a
}

// spoil makes the time of a row one that cannot be.
func (f *fake) spoil(registers []kmp.Register) {
	month, day := byte(1+f.chance.IntN(12)), byte(1+f.chance.IntN(28))
	for i, r := range registers {
		switch r.ID {
		case regDate:
			registers[i].Raw = binary.BigEndian.AppendUint32(nil, 10000+100*uint32(month)+uint32(day)) // 2001
			return
		case regDateTime:
			registers[i].Raw = []byte{0, 1, month, day, 0, 0, 0}
			return
		}
	}
}

// serve answers what comes over a line until it ends.
func (f *fake) serve(line io.ReadWriter) {
	frames := kmp.NewReader(line, kmp.ToMeter)
	for {
		frame, err := frames.Next()
		if err != nil {
			return
		}
		m, err := kmp.DecodeMessage(frame)
		if err != nil {
			f.t.Errorf("request % X: %v", frame.Data, err)
			continue
		}
		answer := f.answer(m)
		if answer == nil {
			continue
		}
		wire, err := kmp.AppendMessage(nil, kmp.FromMeter, frame.Address, answer)
		if err != nil {
			f.t.Errorf("answer %v: %v", answer, err)
			return
		}
		if _, err := line.Write(wire); err != nil {
			return
		}
	}
}

// onFake runs a test with a fake meter on fake time.
func onFake(t *testing.T, seed uint64, test func(t *testing.T, f *fake, src Source)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(begin))
		f := &fake{t: t, chance: rand.New(rand.NewPCG(seed, 0)), depth: 0xFFFF, buffer: 1000, lastTime: begin}
		meter, line := net.Pipe()
		defer meter.Close()
		go f.serve(meter)
		conn := kmp.NewConn(line, kmp.Options{})
		defer conn.Close()
		test(t, f, Source{Conn: conn, Address: kmp.HeatMeter, Zone: time.UTC})
	})
}

// formats are those of the fake meter's rows, as one meter's over the years.
var formats = [][]uint16{
	{regDate, regClock, 60, 100, 101},
	{regDate, regClock, 60, 100, 101, 102, 103, 104, 105, 106, 107, 108},
	{60, 100, 101, 102, 103, 104, 105, 106, 107, 108, regDateTime, regDate, regClock},
	{regDateTime, 60, 100, 104},
	{60, 104}, // no time at all
}

// Whatever the meter's log is like and however it answers, the rows are those of the log,
// none is missing and none comes twice.
func FuzzReader(f *testing.F) {
	for seed := range uint64(60) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		onFake(t, seed, func(t *testing.T, f *fake, src Source) {
			t.Helper()
			n := func(most int) int { return f.chance.IntN(most + 1) }
			f.depth = 20 + n(300)
			f.buffer = 70 + n(600)
			f.silent, f.strict, f.picky = n(2) == 0, n(2) == 0, n(3) == 0
			f.most = n(8)
			f.lastTime = begin.Add(-time.Duration(n(400)) * time.Hour)
			if n(3) == 0 {
				f.rows = []fakeRow{{id: f.chance.Uint32() - 1000}}
			}
			format := formats[n(len(formats)-1)]
			for range n(400) {
				after := time.Hour
				switch n(30) {
				case 0:
					after += time.Duration(n(100)) * time.Hour
				case 1:
					after -= time.Duration(n(5)) * time.Hour
				case 2:
					if !f.picky && len(format) > 2 { // knows one format alone
						format = formats[n(len(formats)-2)]
					}
				}
				f.add(after, format)
			}
			if n := len(f.rows); n > 0 && f.rows[0].registers == nil { // the one that ids began after
				f.rows = f.rows[1:]
			}
			f.config = format
			f.grows, f.glitches, f.fails = 5+n(20), 20+n(20), 10+n(40)
			check(t, f, src)
		})
	})
}

// check reads a fake meter's log and compares.
func check(t *testing.T, f *fake, src Source) {
	t.Helper()
	want := Range{}
	if f.chance.IntN(3) > 0 {
		want.Registers = []uint16{60, 104, 101, 999, 100, 103, 102, 105, 106, 107, 108}[:f.chance.IntN(12)]
	}
	next := uint32(0)
	if len(f.rows) > 0 {
		next = f.oldest()
		if f.chance.IntN(2) == 0 {
			want.Known = true
			want.After = uint32(max(int(f.oldest())+f.chance.IntN(len(f.rows))-f.chance.IntN(3), 0))
			next = want.After + 1
			if f.chance.IntN(2) == 0 {
				want.AfterTime = begin.Add(-time.Duration(f.chance.IntN(100)) * time.Hour)
			}
		}
	}
	f.spare = next + 25
	truth := map[uint32]fakeRow{}
	r := NewReader(src, kmp.LogHour, want)
	began := false
	for range 20_000 {
		for _, row := range f.rows {
			truth[row.id] = row
		}
		sent := f.requests
		rows, err := r.Next(t.Context())
		synctest.Wait()
		for _, row := range f.rows {
			truth[row.id] = row
		}
		if f.requests-sent > 6 {
			t.Fatalf("%d requests", f.requests-sent)
		}
		if len(f.rows) > 0 && !want.Known && !began && len(rows) > 0 {
			if next = rows[0].ID; next > f.oldest()+3 {
				t.Fatalf("begins with %d, the oldest is %d", next, f.oldest())
			}
		}
		for from, to, ok := r.Lost(); ok; from, to, ok = r.Lost() {
			if from != next || to >= f.oldest() {
				t.Fatalf("%d to %d are said to be lost, want %d on, before %d", from, to, next, f.oldest())
			}
			next = to + 1
		}
		for _, row := range rows {
			began = true
			if row.ID != next {
				t.Fatalf("row %d, want %d", row.ID, next)
			}
			next++
			compare(t, r, row, truth[row.ID], f)
		}
		if errors.Is(err, ErrEnd) {
			if newest, ok := r.Newest(); ok && next != newest+1 {
				t.Fatalf("ends before %d, the newest is %d", next, newest)
			}
			if newest, ok := r.Newest(); len(f.rows) > 0 && (!ok || f.newest()-newest > 1) {
				t.Fatalf("newest is %d, should be %d", newest, f.newest())
			}
			return
		}
		if err != nil && !errors.Is(err, kmp.ErrNoReply) && !errors.Is(err, ErrUnsteady) {
			t.Fatal(err)
		}
	}
	t.Fatal("no end")
}

// compare compares a row with that of the meter.
func compare(t *testing.T, r *Reader, got Row, truth fakeRow, f *fake) {
	t.Helper()
	wanted := r.want.Registers
	if wanted == nil {
		wanted = f.config
	}
	at, _ := timeOf(truth.registers, time.UTC, false)
	if !got.Time.Equal(at) && !r.picky { // else no more is asked for than the newest row has
		t.Fatalf("row %d is from %s, want %s", got.ID, got.Time, at)
	}
	var may, must []kmp.Register // what the newest row does not have may be missing
	for _, id := range wanted {
		if r := find(truth.registers, id); r != nil && !isTime(id) {
			may = append(may, *r)
			if slices.Contains(f.config, id) {
				must = append(must, *r)
			}
		}
	}
	i := 0
	for _, r := range got.Registers {
		for i < len(may) && may[i].ID != r.ID {
			i++
		}
		if i == len(may) || !sameRegister(r, may[i]) {
			t.Fatalf("row %d is %v, want of %v", got.ID, got.Registers, may)
		}
	}
	for _, r := range must {
		if find(got.Registers, r.ID) == nil {
			t.Fatalf("row %d is %v, want %v", got.ID, got.Registers, must)
		}
	}
}

// The same for a logger module.
func FuzzRecords(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		onFake(t, seed, func(t *testing.T, f *fake, src Source) {
			t.Helper()
			src.Address = kmp.LoggerTop
			n := func(most int) int { return f.chance.IntN(most + 1) }
			f.depth = 20 + n(300)
			f.buffer = 80 + n(170)
			f.silent, f.reversed = n(2) == 0, n(2) == 0
			f.lastTime = begin.Add(-time.Duration(n(400)) * time.Hour)
			f.rows = []fakeRow{{id: uint32(n(200_000))}}
			for range n(400) {
				after := time.Hour
				if n(30) == 0 {
					after += time.Duration(n(100)) * time.Hour
				}
				f.add(after, formats[0])
			}
			f.rows = slices.DeleteFunc(f.rows, func(row fakeRow) bool { return row.registers == nil })
			f.config = formats[0]
			f.grows, f.glitches, f.fails = 5+n(20), 20+n(20), 10+n(40)
			checkRecords(t, f, src)
		})
	})
}

func checkRecords(t *testing.T, f *fake, src Source) {
	t.Helper()
	want := Range{}
	if f.chance.IntN(3) > 0 {
		want.Registers = []uint16{60, 104, 101, 999, 100, 103, 102, 105, 106, 107, 108}[:f.chance.IntN(12)]
	}
	next, began := uint32(0), false
	if len(f.rows) > 0 {
		next = f.oldest()
		if f.chance.IntN(2) == 0 {
			want.Known = true
			want.After = f.oldest() + uint32(f.chance.IntN(len(f.rows)))
			next = want.After + 1
		}
	}
	f.spare = next + 25
	r := NewReader(src, kmp.LogHour, want)
	shift := uint32(0) // without a row before, ids begin with the 16 bits that come
	truth := map[uint32]fakeRow{}
	note := func() {
		for _, row := range f.rows {
			truth[row.id] = row
		}
	}
	for range 20_000 {
		note()
		rows, err := r.Next(t.Context())
		synctest.Wait()
		note()
		if !want.Known && !began && len(rows) > 0 {
			shift = f.oldest() - f.oldest()&0xFFFF
			for shift > 0 && rows[0].ID+shift > f.newest() {
				shift -= 0x10000
			}
			if next = rows[0].ID + shift; next > f.oldest()+3 {
				t.Fatalf("begins with %d, the oldest is %d", next, f.oldest())
			}
		}
		for from, to, ok := r.Lost(); ok; from, to, ok = r.Lost() {
			if from+shift != next || to+shift >= f.oldest() {
				t.Fatalf("%d to %d are said to be lost, want %d on, before %d", from, to, next, f.oldest())
			}
			next = to + shift + 1
		}
		for _, row := range rows {
			began = true
			if row.ID += shift; row.ID != next {
				t.Fatalf("row %d, want %d", row.ID, next)
			}
			next++
			wanted := truth[row.ID]
			if want.Registers == nil { // those that may be in a module
				wanted.registers = slices.DeleteFunc(slices.Clone(wanted.registers), func(r kmp.Register) bool {
					return !isTime(r.ID) && !slices.Contains(moduleRegisters, r.ID)
				})
			}
			at, _ := timeOf(wanted.registers, time.UTC, false)
			if !row.Time.Equal(at) {
				t.Fatalf("row %d is from %s, want %s", row.ID, row.Time, at)
			}
			for _, register := range wanted.registers {
				got := find(row.Registers, register.ID)
				if asked := want.Registers == nil || slices.Contains(want.Registers, register.ID); asked == (got == nil) && !isTime(register.ID) {
					t.Fatalf("row %v, want %v of %v", row, wanted, want.Registers)
				}
				if got != nil && !sameRegister(*got, register) {
					t.Fatalf("row %v, want %v", row, wanted)
				}
			}
		}
		if errors.Is(err, ErrEnd) {
			if newest, ok := r.Newest(); ok && next != newest+shift+1 || began && f.newest()-next > 1 && next != f.newest()+1 {
				t.Fatalf("ends before %d, the newest is %d, in truth %d", next, newest+shift, f.newest())
			}
			return
		}
		if err != nil && !errors.Is(err, kmp.ErrNoReply) && !errors.Is(err, ErrUnsteady) {
			t.Fatal(err)
		}
	}
	t.Fatal("no end")
}
