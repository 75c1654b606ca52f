package sim

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
)

// asRecord is a row as a module sends it.
func asRecord(row kmp.LogRow, ids []uint16) kmp.LogRow {
	row = pick(row, ids)
	row.ID &= 0xFFFF
	return row
}

// logTime is the time of a row in a request.
func logTime(t time.Time) kmp.LogTime {
	return kmp.LogTime{
		Date:  kmp.Date{Year: t.Year(), Month: int(t.Month()), Day: t.Day()},
		Clock: kmp.Clock{Hour: t.Hour(), Minute: t.Minute(), Second: t.Second()},
	}
}

// The four commands find the rows that the log has, in both modules.
func TestModuleRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Model: "601", LogDepth: 100})
		conn := kmp.NewConn(m.Line(t.Context()), kmp.Options{})
		truth := m.Log(kmp.LogHour)
		ids := []uint16{60, 1003, 1002}
		at := func(i int) kmp.LogTime { return logTime(stamp(t, truth[i])) }
		before := at(0)
		before.Date.Year--
		after := at(99)
		after.Clock.Second = 1
		between := at(50)
		between.Clock.Minute = 30
		for _, test := range []struct {
			name    string
			request kmp.LogRecordsRequest
			first   int // in the log; the rows go on from there
			rows    int
			info    kmp.LogRecordInfo
		}{
			{"from a time on", kmp.LogRecordsRequest{Kind: kmp.CmdGetLogTimePresent, Time: at(10), Records: 3}, 10, 3, 0},
			{"from between two", kmp.LogRecordsRequest{Kind: kmp.CmdGetLogTimePresent, Time: between, Records: 3}, 51, 3, 0},
			{"from before the oldest", kmp.LogRecordsRequest{Kind: kmp.CmdGetLogTimePresent, Time: before, Records: 2}, 0, 2, 0},
			{"to the newest", kmp.LogRecordsRequest{Kind: kmp.CmdGetLogTimePresent, Time: at(97), Records: 9}, 97, 3, kmp.RecordsEnd},
			{"from the future", kmp.LogRecordsRequest{Kind: kmp.CmdGetLogTimePresent, Time: after, Records: 9}, 0, 0, kmp.RecordsOutOfRange},
			{"what was not read", kmp.LogRecordsRequest{Kind: kmp.CmdGetLogLastPresent, Records: 4}, 0, 4, 0},
			{"from an id on", kmp.LogRecordsRequest{Kind: kmp.CmdGetLogIDPresent, Record: uint16(truth[20].ID), Records: 2}, 20, 2, 0},
			{"from an id that is gone", kmp.LogRecordsRequest{Kind: kmp.CmdGetLogIDPresent, Record: uint16(truth[0].ID) - 7, Records: 2}, 0, 2, 0},
			{"from an id to come", kmp.LogRecordsRequest{Kind: kmp.CmdGetLogIDPresent, Record: uint16(truth[99].ID) + 1, Records: 2}, 0, 0, kmp.RecordsOutOfRange},
			{"the newest by id", kmp.LogRecordsRequest{Kind: kmp.CmdGetLogIDPresent, Record: uint16(truth[99].ID), Records: 2}, 99, 1, kmp.RecordsEnd},
			{"towards the past", kmp.LogRecordsRequest{Kind: kmp.CmdGetLogTimePast, Time: at(50), Records: 3}, 50, 3, 0},
			{"towards the past, from between two", kmp.LogRecordsRequest{Kind: kmp.CmdGetLogTimePast, Time: between, Records: 3}, 50, 3, 0},
			{"further back", kmp.LogRecordsRequest{Kind: kmp.CmdGetLogTimePast, Time: after, Record: 30, Records: 3}, 69, 3, 0},
			{"to the oldest", kmp.LogRecordsRequest{Kind: kmp.CmdGetLogTimePast, Time: at(5), Record: 3, Records: 9}, 2, 3, kmp.RecordsEnd},
			{"beyond the oldest", kmp.LogRecordsRequest{Kind: kmp.CmdGetLogTimePast, Time: at(5), Record: 6, Records: 9}, 0, 0, kmp.RecordsOutOfRange},
			{"before the oldest", kmp.LogRecordsRequest{Kind: kmp.CmdGetLogTimePast, Time: before, Records: 9}, 0, 0, kmp.RecordsOutOfRange},
			{"a short answer", kmp.LogRecordsRequest{Kind: kmp.CmdGetLogIDPresent, Record: uint16(truth[20].ID), Records: 9, MaxLength: 65}, 20, 3, kmp.RecordsMaxLength},
			{"no room", kmp.LogRecordsRequest{Kind: kmp.CmdGetLogIDPresent, Record: uint16(truth[20].ID), Records: 9, MaxLength: 36}, 20, 0, kmp.RecordsMaxLength},
			{"the time reversed", kmp.LogRecordsRequest{Kind: kmp.CmdGetLogTimePresent, Time: at(10), Records: 1, TimeReversed: true}, 10, 1, 0},
		} {
			for _, addr := range []kmp.Address{kmp.LoggerTop, kmp.LoggerBase} {
				q := test.request
				q.LogID, q.IDs = 1, ids
				if q.MaxLength == 0 {
					q.MaxLength = 255
				}
				got, err := conn.LogRecords(t.Context(), addr, q)
				if err != nil {
					t.Fatalf("%s: %v", test.name, err)
				}
				var want []kmp.LogRow
				for i := range test.rows {
					if q.Kind == kmp.CmdGetLogTimePast {
						i = -i
					}
					want = append(want, asRecord(truth[test.first+i], ids))
				}
				if !slices.EqualFunc(got.Rows, want, equalRows) || got.Info != test.info {
					t.Errorf("%s: %q, %v; want %q, %v", test.name, got.Info, got.Rows, test.info, want)
				}
				if got.Newest != uint16(truth[99].ID) || got.LastRead != 0 || got.LogID != 1 {
					t.Errorf("%s: newest %d, last read %d, log %d", test.name, got.Newest, got.LastRead, got.LogID)
				}
				frame := kmp.LogRecordsAnswer{Kind: q.Kind, LogRecords: got}
				if data, err := frame.AppendData(nil); err != nil || 1+len(data) > max(int(q.MaxLength), 8) {
					t.Errorf("%s: %d bytes, at most %d were asked for, %v", test.name, 1+len(data), q.MaxLength, err)
				}
			}
		}
	})
}

// What was read is told by clearing the event status, not by reading; each module for
// itself.
func TestModuleLastRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Model: "601", LogDepth: 10})
		conn := kmp.NewConn(m.Line(t.Context()), kmp.Options{})
		ctx := t.Context()
		read := func(addr kmp.Address) (ids []uint32, info kmp.LogRecordInfo) {
			t.Helper()
			got, err := conn.LogRecords(ctx, addr, kmp.LogRecordsRequest{Kind: kmp.CmdGetLogLastPresent, LogID: 1, IDs: []uint16{60}, Records: 6, MaxLength: 255})
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range got.Rows {
				ids = append(ids, row.ID)
			}
			return ids, got.Info
		}
		status := func(addr kmp.Address, want byte) {
			t.Helper()
			if got, err := conn.EventStatus(ctx, addr); err != nil || got != (kmp.EventStatus{0, 0, want, 0}) {
				t.Errorf("event status of %02X is % X, %v; want ES2 = %02X", byte(addr), got, err, want)
			}
		}
		clearStatus := func(addr kmp.Address, q kmp.EventStatus, want byte) {
			t.Helper()
			if got, err := conn.ClearEventStatus(ctx, addr, q, kmp.EventStatus{}); err != nil || got[2] != want {
				t.Errorf("after clearing, event status of %02X is % X, %v; want ES2 = %02X", byte(addr), got, err, want)
			}
		}
		interval := kmp.EventStatus{0, 0, kmp.EventIntervalLog, 0}
		oldest := m.Log(kmp.LogHour)[0].ID
		first, _ := read(kmp.LoggerTop)
		again, _ := read(kmp.LoggerTop)
		if len(first) != 6 || first[0] != oldest || !slices.Equal(first, again) {
			t.Errorf("reading twice: %v, %v", first, again)
		}
		status(kmp.LoggerTop, 1)
		clearStatus(kmp.LoggerTop, kmp.EventStatus{0xFF, 0xFF, kmp.EventRTCLog, 0xFF}, 1) // not the interval log
		if got, _ := read(kmp.LoggerTop); !slices.Equal(got, first) {
			t.Errorf("clearing something else moved on to %v", got)
		}
		clearStatus(kmp.LoggerTop, interval, 1)
		rest, info := read(kmp.LoggerTop)
		if len(rest) != 4 || rest[0] != first[5]+1 || info != kmp.RecordsEnd {
			t.Errorf("the rest: %v, %q", rest, info)
		}
		clearStatus(kmp.LoggerTop, interval, 0)
		status(kmp.LoggerTop, 0)
		if got, info := read(kmp.LoggerTop); len(got) != 0 || info != kmp.RecordsEnd {
			t.Errorf("nothing is new: %v, %q", got, info)
		}
		if got, _ := read(kmp.LoggerBase); !slices.Equal(got, first) {
			t.Errorf("the other module: %v", got)
		}
		time.Sleep(2 * time.Hour)
		status(kmp.LoggerTop, 1)
		if got, _ := read(kmp.LoggerTop); len(got) != 2 || got[0] != rest[3]+1 {
			t.Errorf("two hours later: %v", got)
		}
		clearStatus(kmp.LoggerTop, interval, 0)
		time.Sleep(20 * time.Hour) // more than the log holds
		if got, _ := read(kmp.LoggerTop); len(got) != 6 || got[0] != m.Log(kmp.LogHour)[0].ID {
			t.Errorf("a day later: %v", got)
		}
		m.Replace(9)
		if got, info := read(kmp.LoggerTop); len(got) != 0 || info != kmp.RecordsEmpty {
			t.Errorf("a new meter: %v, %q", got, info)
		}
		status(kmp.LoggerTop, 0)
	})
}

// Ids have 16 bits on the wire: after seven years they begin again.
func TestModuleIDsWrap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Model: "601", Speed: maxSpeed, Integration: time.Hour, LogDepth: 20})
		time.Sleep((1<<16 + 5 - (842*24 + 7)) * time.Hour / maxSpeed)
		conn := kmp.NewConn(m.Line(t.Context()), kmp.Options{})
		truth := m.Log(kmp.LogHour)
		newest := truth[19].ID
		if newest < 1<<16 || newest > 1<<16+10 {
			t.Fatalf("the newest id is %d", newest)
		}
		got, err := conn.LogRecords(t.Context(), kmp.LoggerTop, kmp.LogRecordsRequest{Kind: kmp.CmdGetLogIDPresent, LogID: 1, IDs: []uint16{1003, 1002}, Records: 12, MaxLength: 255, Record: 0xFFFE})
		if err != nil || len(got.Rows) != 12 && got.Info&kmp.RecordsEnd == 0 {
			t.Fatalf("%d rows, %q, %v", len(got.Rows), got.Info, err)
		}
		for i, row := range got.Rows {
			if row.ID != uint32(0xFFFE+i)&0xFFFF {
				t.Errorf("row %d has id %04X", i, row.ID)
			}
			if want := asRecord(truth[0], []uint16{1003, 1002}); truth[0].ID == uint32(0xFFFE+i) && !equalRows(row, want) {
				t.Errorf("row %d: %v, want %v", i, row, want)
			}
		}
	})
}

// Modules have a type and a serial number; only a 601 has modules.
func TestModules(t *testing.T) {
	ask := func(ctx context.Context, conn *kmp.Conn, addr kmp.Address) (uint16, uint32, error) {
		typ, err1 := conn.GetType(ctx, addr)
		serial, err2 := conn.GetSerialNo(ctx, addr)
		return typ.MeterType, serial, errors.Join(err1, err2)
	}
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Config{Model: "601", Serial: 6892850})
		conn := kmp.NewConn(m.Line(t.Context()), kmp.Options{})
		for addr, want := range map[kmp.Address]uint16{kmp.HeatMeter: 0x0004, kmp.LoggerTop: 0x0901, kmp.LoggerBase: 0x1601} {
			typ, serial, err := ask(t.Context(), conn, addr)
			if err != nil || typ != want || serial != 6892850 {
				t.Errorf("%02X: type %04X, serial number %d, %v", byte(addr), typ, serial, err)
			}
		}
		if _, err := conn.GetRegister(t.Context(), kmp.LoggerTop, 60); !errors.Is(err, kmp.ErrNoReply) {
			t.Errorf("registers of a module: %v", err)
		}
		q := kmp.LogRecordsRequest{Kind: kmp.CmdGetLogLastPresent, LogID: 3, IDs: []uint16{60}, Records: 1, MaxLength: 255}
		if _, err := conn.LogRecords(t.Context(), kmp.LoggerTop, q); !errors.Is(err, kmp.ErrNoReply) {
			t.Errorf("another log: %v", err)
		}
		q.LogID = 1
		if _, err := conn.LogRecords(t.Context(), kmp.HeatMeter, q); !errors.Is(err, kmp.ErrNoReply) {
			t.Errorf("at the meter's address: %v", err)
		}
		if rows := m.Log(kmp.LogDay); rows != nil {
			t.Errorf("a day log of %d rows", len(rows))
		}
	})
	for _, c := range []Config{{Model: "403"}, {Model: "603"}, {Model: "21"}, {Model: "382"}, {Model: "601", NoLogs: true}} {
		synctest.Test(t, func(t *testing.T) {
			conn := kmp.NewConn(newMeter(t, c).Line(t.Context()), kmp.Options{Retries: -1})
			for _, addr := range []kmp.Address{kmp.LoggerTop, kmp.LoggerBase} {
				if _, _, err := ask(t.Context(), conn, addr); !errors.Is(err, kmp.ErrNoReply) {
					t.Errorf("%s: %02X: %v", c.Model, byte(addr), err)
				}
			}
		})
	}
}
