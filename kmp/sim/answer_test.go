package sim

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
)

// realFrame is a request and its answer of kmp/testdata that came from a real meter.
func realFrame(t *testing.T, id string) (request, answer []byte) {
	t.Helper()
	text, err := os.ReadFile("../testdata/frames.json")
	if err != nil {
		t.Fatal(err)
	}
	var frames []struct{ ID, Request, Response string }
	if err := json.Unmarshal(text, &frames); err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		if f.ID == id {
			request, err1 := hex.DecodeString(f.Request)
			answer, err2 := hex.DecodeString(f.Response)
			if err := errors.Join(err1, err2); err != nil {
				t.Fatal(err)
			}
			return request, answer
		}
	}
	t.Fatalf("no frame %s", id)
	return nil, nil
}

// What a real meter answered that has lived through the same new years, byte by byte.
func TestLogAnswersAsRealMeters(t *testing.T) {
	minute2 := []byte{0x80, 0x3F, 0xB8, 7, 7, 0xFF, 0xFF, 0, 1, 1, 3, 0xEA, 0xB8, 0x5E, 0x0D}
	empty := []byte{0x40, 0x3F, 0xB8, 7, 7, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 0xEA, 0x2F, 4, 0, 0, 0, 0, 0, 0x1F, 0x2F, 0x0D}
	year, years := realFrame(t, "jkt-log-id-past-year")
	bad, _ := realFrame(t, "jkt-bad-logger")
	for _, test := range []struct {
		name, model     string
		request, answer []byte
	}{
		{"two years", "603", year, years},
		{"two years", "403", year, years},
		{"a log without rows", "603", minute2, empty},
		{"no such log", "603", bad, nil},
		{"a 601", "601", year, nil},
		{"water", "21", year, nil},
		{"electricity", "382", year, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newClient(t, Config{Model: test.model})
			c.send(test.request)
			if _, got := c.listen(time.Second); !bytes.Equal(got, test.answer) {
				t.Errorf("%s, %s: % X, want % X", test.model, test.name, got, test.answer)
			}
		})
	}
}

// The year log of the 603 is set up as a real one's, but for the registers that the
// simulated meter does not have.
func TestLogConfig(t *testing.T) {
	_, answer := realFrame(t, "jkt-logcfg-year")
	f, err := kmp.DecodeFrame(answer)
	if err != nil {
		t.Fatal(err)
	}
	var captured kmp.LogConfigAnswer
	if err := captured.DecodeData(f.Data); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Model: "603"})
		conn := kmp.NewConn(m.Line(t.Context()), kmp.Options{})
		got, err := conn.LogConfig(t.Context(), kmp.HeatMeter, kmp.LogYear)
		if err != nil {
			t.Fatal(err)
		}
		want := captured.LogConfig
		has := m.Registers()
		want.Registers = slices.DeleteFunc(slices.Clone(want.Registers), func(id uint16) bool { return !slices.Contains(has, id) })
		if len(want.Registers) != 37 || !slices.Equal(got.Registers, want.Registers) {
			t.Errorf("registers %v, want %v", got.Registers, want.Registers)
		}
		got.Registers, want.Registers = nil, nil
		if got.Log != want.Log || got.TargetDates != want.TargetDates || got.Formats != want.Formats || got.Depth != want.Depth || got.MaxRecords != want.MaxRecords || got.Interval != want.Interval {
			t.Errorf("%+v, want %+v", got, want)
		}
		for log, depth := range map[kmp.LogType]uint16{kmp.LogMonth: 36, kmp.LogDay: 460, kmp.LogHour: 1400, kmp.LogMinute: 1400, kmp.LogMinute2: 0} {
			c, err := conn.LogConfig(t.Context(), kmp.HeatMeter, log)
			if err != nil || c.Log != log || c.Depth != depth {
				t.Errorf("%s: %+v, %v", log, c, err)
			}
			if rows := m.Log(log); len(rows) > 0 {
				var ids []uint16
				for _, r := range rows[0].Registers {
					ids = append(ids, r.ID)
				}
				if !slices.Equal(c.Registers, ids) {
					t.Errorf("%s: registers %v, in its rows are %v", log, c.Registers, ids)
				}
			}
		}
		m.SetFaults(Faults{MissingRegisters: []uint16{60, 348}})
		c, err := conn.LogConfig(t.Context(), kmp.HeatMeter, kmp.LogHour)
		if err != nil || slices.Contains(c.Registers, 60) || slices.Contains(c.Registers, 348) || !slices.Contains(c.Registers, 68) {
			t.Errorf("with registers missing: %+v, %v", c, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{NoLogs: true})
		conn := kmp.NewConn(m.Line(t.Context()), kmp.Options{})
		if _, err := conn.LogConfig(t.Context(), kmp.HeatMeter, kmp.LogHour); !errors.Is(err, kmp.ErrNoReply) {
			t.Errorf("a meter without logs: %v", err)
		}
		if rows := m.Log(kmp.LogHour); rows != nil {
			t.Errorf("a meter without logs has %d rows", len(rows))
		}
	})
}

// pick keeps the registers that were asked for.
func pick(row kmp.LogRow, ids []uint16) kmp.LogRow {
	picked := kmp.LogRow{ID: row.ID}
	for _, id := range ids {
		for _, r := range row.Registers {
			if r.ID == id {
				picked.Registers = append(picked.Registers, r)
			}
		}
	}
	return picked
}

// Whatever the buffer holds: a reader that goes on where the rows ended has them all,
// as they are, and is told whether there are more.
func TestLogPages(t *testing.T) {
	for _, buffer := range []int{64, 100, 333, 1024, 4000} {
		synctest.Test(t, func(t *testing.T) {
			m := newMeter(t, Config{Model: "603", LogBuffer: buffer, LogDepth: 200})
			conn := kmp.NewConn(m.Line(t.Context()), kmp.Options{})
			for _, ids := range [][]uint16{{348, 60, 68}, {60}, {348}, {1003, 1002, 97, 110}} {
				truth := m.Log(kmp.LogHour)
				page, err := conn.LogLast(t.Context(), kmp.HeatMeter, kmp.LogHour, 0, 0xFFFF, ids...)
				if err != nil {
					t.Fatal(err)
				}
				if page.Info&kmp.LogAtNewest == 0 {
					t.Errorf("%d bytes: the first page says %q", buffer, page.Info)
				}
				left := truth
				for {
					if len(page.Rows) == 0 || page.Newest != truth[len(truth)-1].ID {
						t.Fatalf("%d bytes: %d rows, newest %d, %q", buffer, len(page.Rows), page.Newest, page.Info)
					}
					for _, row := range page.Rows {
						if want := pick(left[len(left)-1], ids); !equalRows(row, want) {
							t.Fatalf("%d bytes: row %v, want %v", buffer, row, want)
						}
						left = left[:len(left)-1]
					}
					data, err := (&kmp.LogByIDAnswer{LogPage: page}).AppendData(nil)
					if err != nil || len(data) > buffer {
						t.Errorf("%d bytes: an answer of %d, %v", buffer, len(data), err)
					}
					if oldest, more := page.Info&kmp.LogAtOldest != 0, page.Info&kmp.LogMore != 0; oldest != (len(left) == 0) || more != (len(left) > 0) {
						t.Fatalf("%d bytes: with %d rows left the answer says %q", buffer, len(left), page.Info)
					}
					if len(left) == 0 {
						break
					}
					if page, err = conn.LogByID(t.Context(), kmp.HeatMeter, kmp.LogHour, left[len(left)-1].ID, 0xFFFF, ids...); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

// Any part of a log is that part of the whole.
func TestLogRanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{LogDepth: 50, LogBuffer: 4000})
		conn := kmp.NewConn(m.Line(t.Context()), kmp.Options{})
		truth := m.Log(kmp.LogDay)
		oldest, newest := truth[0].ID, truth[len(truth)-1].ID
		random := rand.New(rand.NewPCG(1, 1))
		for range 300 {
			entries := uint16(1 + random.IntN(60))
			from := oldest - 5 + random.Uint32N(60)
			offset := uint16(random.IntN(60))
			byID, err := conn.LogByID(t.Context(), kmp.HeatMeter, kmp.LogDay, from, entries, 60)
			if err != nil {
				t.Fatal(err)
			}
			last, err := conn.LogLast(t.Context(), kmp.HeatMeter, kmp.LogDay, offset, entries, 60)
			if err != nil {
				t.Fatal(err)
			}
			for _, test := range []struct {
				page kmp.LogPage
				from uint32
			}{{byID, from}, {last, max(newest-uint32(offset), oldest)}} {
				var want []kmp.LogRow
				var info kmp.LogInfo
				switch {
				case test.from < oldest || test.from > newest:
					info = kmp.LogOutOfRange
				default:
					low := max(int(test.from-oldest)-int(entries)+1, 0)
					for _, row := range slices.Backward(truth[low : test.from-oldest+1]) {
						want = append(want, pick(row, []uint16{60}))
					}
					if test.from == newest {
						info |= kmp.LogAtNewest
					}
					if low == 0 {
						info |= kmp.LogAtOldest
					}
				}
				p := test.page
				if p.First != test.from || p.Newest != newest || p.Info != info || !slices.EqualFunc(p.Rows, want, equalRows) {
					t.Fatalf("%d rows from %d on: first %d, newest %d, %q, %d rows; want %q, %d rows", entries, test.from, p.First, p.Newest, p.Info, len(p.Rows), info, len(want))
				}
			}
		}
		if p, err := conn.LogByID(t.Context(), kmp.HeatMeter, kmp.LogDay, newest, 0, 60); err != nil || p.Info != kmp.LogInvalid || len(p.Rows) != 0 {
			t.Errorf("no rows asked: %+v, %v", p, err)
		}
	})
}

func TestLogInfo(t *testing.T) {
	for _, test := range []struct {
		name    string
		config  Config
		log     kmp.LogType
		offset  uint16
		ids     []uint16
		want    kmp.LogInfo
		rows    int
		columns int
	}{
		{"oldest and newest", Config{}, kmp.LogHour, 0xFFFF, []uint16{1002}, kmp.LogAtOldest, 1, 1},
		{"a register that is not logged", Config{}, kmp.LogHour, 0, []uint16{60, 266, 68}, kmp.LogUnsupported | kmp.LogAtNewest, 1, 2},
		{"none that is", Config{}, kmp.LogHour, 0, []uint16{266, 1, 4000}, kmp.LogUnsupported, 0, 0},
		{"a missing register", Config{Faults: Faults{MissingRegisters: []uint16{60}}}, kmp.LogHour, 0, []uint16{60, 68}, kmp.LogUnsupported | kmp.LogAtNewest, 1, 1},
		{"no 348 in a 403", Config{}, kmp.LogHour, 0, []uint16{348, 68}, kmp.LogUnsupported | kmp.LogAtNewest, 1, 1},
		{"more registers than the buffer holds", Config{LogBuffer: 64}, kmp.LogHour, 0, []uint16{60, 63, 68, 97, 110, 99, 1003, 1002}, kmp.LogCut | kmp.LogAtNewest, 1, 5},
		{"empty", Config{EmptyLogs: true}, kmp.LogHour, 0, []uint16{60, 348}, kmp.LogEmpty | kmp.LogUnsupported, 0, 0},
		{"empty, beyond the end", Config{EmptyLogs: true}, kmp.LogHour, 9, []uint16{60}, kmp.LogEmpty, 0, 0},
		{"a log of one row", Config{LogDepth: 1}, kmp.LogHour, 3, []uint16{60}, kmp.LogAtOldest | kmp.LogAtNewest, 1, 1},
		{"cooling: no power", Config{Cooling: true}, kmp.LogHour, 0, []uint16{80, 60}, kmp.LogUnsupported | kmp.LogAtNewest, 1, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := newMeter(t, test.config)
			conn := kmp.NewConn(m.Line(t.Context()), kmp.Options{})
			p, err := conn.LogLast(t.Context(), kmp.HeatMeter, test.log, test.offset, 1, test.ids...)
			if err != nil || p.Info != test.want || len(p.Rows) != test.rows {
				t.Fatalf("%s: %q, %d rows, %v; want %q, %d rows", test.name, p.Info, len(p.Rows), err, test.want, test.rows)
			}
			if test.rows > 0 && len(p.Rows[0].Registers) != test.columns {
				t.Errorf("%s: %d registers, want %d", test.name, len(p.Rows[0].Registers), test.columns)
			}
			if rows := m.Log(test.log); len(rows) > 0 && (p.Newest != rows[len(rows)-1].ID || test.offset == 0xFFFF && p.First != rows[0].ID) {
				t.Errorf("%s: first %d, newest %d; the log has %d to %d", test.name, p.First, p.Newest, rows[0].ID, rows[len(rows)-1].ID)
			}
		})
	}
}

// With the right password, registers that can be written are; else the meter is silent.
func TestPutRegister(t *testing.T) {
	register := func(m *Meter, id uint16) kmp.Register {
		r, _ := m.Read(id)
		r.Raw = slices.Clone(r.Raw)
		if len(r.Raw) > 0 {
			r.Raw[len(r.Raw)-1] += 5
		}
		return r
	}
	for _, test := range []struct {
		name, model string
		config      uint16
		addr        kmp.Address
		password    uint16
		id          uint16
		change      func(*kmp.Register)
		ok          bool
	}{
		{name: "customer number", model: "603", addr: kmp.HeatMeter, password: 1234, id: 1010, ok: true},
		{name: "pulse input", model: "601", addr: kmp.HeatMeter, password: 1234, id: 84, ok: true},
		{name: "through a module", model: "601", addr: kmp.LoggerTop, password: 1234, id: 112, ok: true},
		{name: "info events", model: "403", addr: kmp.HeatMeter, password: 1234, id: 113, ok: true},
		{name: "another password", model: "603", config: 4711, addr: kmp.HeatMeter, password: 4711, id: 1010, ok: true},
		{name: "wrong password", model: "603", addr: kmp.HeatMeter, password: 1235, id: 1010},
		{name: "a counter", model: "603", addr: kmp.HeatMeter, password: 1234, id: 60},
		{name: "no such register", model: "403", addr: kmp.HeatMeter, password: 1234, id: 1010, change: func(r *kmp.Register) { *r = kmp.Register{ID: 1010, Raw: []byte{1}} }},
		{name: "another width", model: "603", addr: kmp.HeatMeter, password: 1234, id: 1010, change: func(r *kmp.Register) { r.Raw = r.Raw[1:] }},
		{name: "another unit", model: "603", addr: kmp.HeatMeter, password: 1234, id: 1010, change: func(r *kmp.Register) { r.Unit = kmp.UnitGJ }},
		{name: "another meter", model: "21", addr: kmp.HeatMeter, password: 1234, id: 84},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := newMeter(t, Config{Model: test.model, Password: test.config})
			conn := kmp.NewConn(m.Line(t.Context()), kmp.Options{})
			before, _ := m.Read(test.id)
			r := register(m, test.id)
			if test.change != nil {
				test.change(&r)
			}
			err := conn.PutRegister(t.Context(), test.addr, test.password, r)
			if test.ok != (err == nil) || err != nil && !errors.Is(err, kmp.ErrNoReply) {
				t.Fatalf("%s: %v", test.name, err)
			}
			after, _ := m.Read(test.id)
			if written := equal(after, r); written != test.ok {
				t.Errorf("%s: it is % X, before % X", test.name, after.Raw, before.Raw)
			}
			m.Replace(m.serialNo())
			if got, _ := m.Read(test.id); test.ok && !equal(got, before) {
				t.Errorf("%s: the next meter shows % X", test.name, got.Raw)
			}
		})
	}
}

// What is written is in the rows from then on.
func TestPutRegisterInLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Model: "603"})
		conn := kmp.NewConn(m.Line(t.Context()), kmp.Options{})
		r, _ := m.Read(84)
		r.Raw = []byte{0, 0, 1, 0}
		if err := conn.PutRegister(t.Context(), kmp.HeatMeter, 1234, r); err != nil {
			t.Fatal(err)
		}
		until(m, time.Hour)
		rows := m.Log(kmp.LogHour)
		if a, b := value(t, rows[len(rows)-2], 84), value(t, rows[len(rows)-1], 84); a.Raw[2] != 0 || b.Raw[2] != 1 {
			t.Errorf("rows have % X and % X", a.Raw, b.Raw)
		}
	})
}

// Faults apply to rows of logs and to acknowledgements, too.
func TestFaultsOfLogs(t *testing.T) {
	newest := func(t *testing.T, f Faults) (page, truth kmp.LogPage, counts Counts, err error) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			f.LateBy = 3 * time.Second
			m := newMeter(t, Config{Faults: f})
			conn := kmp.NewConn(m.Line(t.Context()), kmp.Options{Retries: -1})
			page, err = conn.LogLast(t.Context(), kmp.HeatMeter, kmp.LogHour, 0, 24, 60, 1003, 1002)
			rows := m.Log(kmp.LogHour)
			for _, row := range slices.Backward(rows[len(rows)-24:]) {
				truth.Rows = append(truth.Rows, pick(row, []uint16{60, 1003, 1002}))
			}
			counts = m.Counts()
		})
		return page, truth, counts, err
	}
	for _, test := range []struct {
		name   string
		faults Faults
		err    error
		count  func(Counts) uint64
	}{
		{"lost", Faults{Lost: 1}, kmp.ErrNoReply, func(c Counts) uint64 { return c.Lost }},
		{"late", Faults{Late: 1}, kmp.ErrNoReply, func(c Counts) uint64 { return c.Late }},
		{"corrupted", Faults{Corrupted: 1}, kmp.ErrCodec, func(c Counts) uint64 { return c.Corrupted }},
		{"too long", Faults{MaxAnswer: 100}, kmp.ErrCodec, func(c Counts) uint64 { return c.Cut }},
		{"duplicated", Faults{Duplicated: 1}, nil, func(c Counts) uint64 { return c.Duplicated }},
	} {
		page, truth, counts, err := newest(t, test.faults)
		if !errors.Is(err, test.err) || test.count(counts) != 1 {
			t.Errorf("%s: %v, %+v", test.name, err, counts)
		}
		if err == nil && !slices.EqualFunc(page.Rows, truth.Rows, equalRows) {
			t.Errorf("%s: %v, want %v", test.name, page.Rows, truth.Rows)
		}
	}
	page, truth, counts, err := newest(t, Faults{Forged: 1})
	if err != nil || counts.Forged != 1 || len(page.Rows) != len(truth.Rows) {
		t.Fatalf("forged: %d rows, %v, %+v", len(page.Rows), err, counts)
	}
	changed := 0
	for i, row := range page.Rows {
		for j, r := range row.Registers {
			if !bytes.Equal(r.Raw, truth.Rows[i].Registers[j].Raw) {
				changed++
			}
		}
	}
	if changed != 1 {
		t.Errorf("forged: %d values have changed", changed)
	}
}

// An answer to one part of a log that comes late is not taken for another part.
func TestLateLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Faults: Faults{Late: 1, LateBy: 2500 * time.Millisecond}})
		conn := kmp.NewConn(m.Line(t.Context()), kmp.Options{Retries: -1})
		rows := m.Log(kmp.LogHour)
		newest := rows[len(rows)-1].ID
		if _, err := conn.LogByID(t.Context(), kmp.HeatMeter, kmp.LogHour, newest, 5, 60); !errors.Is(err, kmp.ErrNoReply) {
			t.Fatal(err)
		}
		m.SetFaults(Faults{})
		page, err := conn.LogByID(t.Context(), kmp.HeatMeter, kmp.LogHour, newest-5, 5, 60)
		if err != nil || page.First != newest-5 || !equalRows(page.Rows[0], pick(rows[len(rows)-6], []uint16{60})) {
			t.Errorf("%+v, %v", page, err)
		}
	})
}

// Every fault leaves an acknowledgement somehow spoilt, or as it is.
func TestFaultsOfAcknowledgements(t *testing.T) {
	set, err := kmp.AppendMessage(nil, kmp.ToMeter, kmp.HeatMeter, &kmp.SetClockRequest{Date: kmp.Date{Year: 2030, Month: 1, Day: 1}})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		faults Faults
		check  func([]byte) bool
	}{
		{"none", Faults{}, func(b []byte) bool { return bytes.Equal(b, []byte{6}) }},
		{"lost", Faults{Lost: 1}, func(b []byte) bool { return len(b) == 0 }},
		{"corrupted", Faults{Corrupted: 1}, func(b []byte) bool { return len(b) == 1 && b[0] != 6 }},
		{"truncated", Faults{Truncated: 1}, func(b []byte) bool { return bytes.Equal(b, []byte{6}) }},
		{"duplicated", Faults{Duplicated: 1}, func(b []byte) bool { return bytes.Equal(b, []byte{6, 6}) }},
		{"forged", Faults{Forged: 1}, func(b []byte) bool { return bytes.Equal(b, []byte{6}) }},
		{"garbled", Faults{Garbled: true}, func(b []byte) bool { return len(b) == 1 && b[0] != 6 }},
		{"foreign", Faults{Foreign: kmp.LoggerTop}, func(b []byte) bool { return bytes.Equal(b, []byte{6}) }},
		{"noise", Faults{Noise: 1}, func(b []byte) bool { return len(b) > 2 && bytes.Contains(b, []byte{6}) }},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newClient(t, Config{Faults: test.faults})
			c.send(set)
			if _, got := c.listen(time.Second); !test.check(got) {
				t.Errorf("%s: % X", test.name, got)
			}
			if c.m.Clock().Year() != 2030 {
				t.Errorf("%s: the clock shows %v", test.name, c.m.Clock())
			}
		})
	}
}

// Whatever arrives, the meter has an answer that goes on the wire, or none.
func FuzzAnswer(f *testing.F) {
	for _, id := range []string{"jkt-logcfg-year", "jkt-log-id-past-year", "jkt-bad-logger"} {
		frames, err := os.ReadFile("../testdata/frames.json")
		if err != nil {
			f.Fatal(err)
		}
		var list []struct{ ID, Request string }
		if err := json.Unmarshal(frames, &list); err != nil {
			f.Fatal(err)
		}
		for _, l := range list {
			wire, err := hex.DecodeString(l.Request)
			if frame, bad := kmp.DecodeFrame(wire); l.ID == id && err == nil && bad == nil {
				f.Add(byte(frame.Address), byte(frame.Command), bytes.Clone(frame.Data))
			}
		}
	}
	for _, q := range []kmp.Request{
		&kmp.LogRecordsRequest{Kind: kmp.CmdGetLogTimePresent, LogID: 1, IDs: []uint16{60, 68}, Records: 3, MaxLength: 128, Time: kmp.LogTime{Date: kmp.Date{Year: 2026, Month: 11, Day: 20}}},
		&kmp.LogRecordsRequest{Kind: kmp.CmdGetLogLastPresent, LogID: 1, IDs: []uint16{60, 68}, Records: 3, MaxLength: 128},
		&kmp.LogRecordsRequest{Kind: kmp.CmdGetLogIDPresent, LogID: 1, IDs: []uint16{60}, Records: 255, MaxLength: 255, Record: 20000},
		&kmp.LogRecordsRequest{Kind: kmp.CmdGetLogTimePast, LogID: 1, IDs: []uint16{60}, Records: 3, MaxLength: 20, Time: kmp.LogTime{Date: kmp.Date{Year: 2026, Month: 11, Day: 20}}, Record: 4},
		&kmp.LogLastRequest{Log: kmp.LogMinute2, Offset: 0xFFFF, Entries: 1, IDs: []uint16{60, 7}},
		&kmp.SetClockRequest{Date: kmp.Date{Year: 2026, Month: 2, Day: 28}},
		&kmp.PutRegisterRequest{Password: 1234, Register: kmp.Register{ID: 112, Unit: kmp.UnitNumber, Raw: []byte{1, 2, 3, 4}}},
		&kmp.ClearEventStatusRequest{Conditional: kmp.EventStatus{0, 0, 1, 0}},
	} {
		data, err := q.AppendData(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(kmp.LoggerTop), byte(q.Command()), data)
		f.Add(byte(kmp.HeatMeter), byte(q.Command()), data)
	}
	var meters []*Meter
	for _, c := range []Config{{Model: "601"}, {Model: "603", LogBuffer: 64, LogDepth: 3}, {EmptyLogs: true}, {Model: "21"}} {
		meters = append(meters, newMeter(f, c))
	}
	f.Fuzz(func(t *testing.T, addr, cmd byte, data []byte) {
		for _, m := range meters {
			if !m.hears(kmp.Address(addr)) {
				continue
			}
			answer := m.answer(kmp.Frame{Direction: kmp.ToMeter, Address: kmp.Address(addr), Command: kmp.Command(cmd), Data: data})
			if answer == nil {
				continue
			}
			wire, err := kmp.AppendMessage(nil, kmp.FromMeter, kmp.Address(addr), answer)
			if err != nil {
				t.Fatalf("%s: %v", m.model.name, err)
			}
			if len(wire) == 1 {
				continue // an acknowledgement
			}
			frame, err := kmp.DecodeFrame(wire)
			if err != nil {
				t.Fatalf("%s: %v", m.model.name, err)
			}
			if _, err := kmp.DecodeMessage(frame); err != nil {
				t.Fatalf("%s: %v", m.model.name, err)
			}
		}
	})
}
