package bridge

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/sim"
)

const (
	historyRequest  = "kmp2mqtt/bridge/request/history"
	historyResponse = "kmp2mqtt/bridge/response/history"
)

// rowsAgain is the answer to a request for rows that were published before.
type rowsAgain struct {
	Status, Error string
	Data          struct {
		Serial, Log string
		Rows        *int
	}
	Transaction json.RawMessage
}

// again asks for rows and waits for the answer.
func (l *lab) again(payload string) rowsAgain {
	l.t.Helper()
	got := l.command(historyRequest, payload, historyResponse, time.Minute)
	if len(got) != 1 {
		l.t.Fatalf("%s: %d answers: %s", payload, len(got), got)
	}
	var r rowsAgain
	if err := json.Unmarshal([]byte(got[0]), &r); err != nil {
		l.t.Fatalf("%s: %v", got[0], err)
	}
	return r
}

// TestHistoryRequest publishes rows again.
func TestHistoryRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		toToday()
		dir := t.TempDir()
		l, sims := newSimLab(t, map[string]sim.Config{
			"/dev/a": {Model: "403", LogDepth: 100, Start: time.Now().UTC()},
			"/dev/b": {Model: "603", LogDepth: 30, Serial: 222, Start: time.Now().In(zone(t, "Europe/Copenhagen"))},
			"/dev/c": {Serial: 333},
		}, "METERS=house=/dev/a?model=403&tz=UTC flat=/dev/b?model=603&tz=Europe/Copenhagen cellar=/dev/c", "DATA_DIR="+dir)
		l.lines.cut("/dev/c")
		l.start()
		l.pass(30 * time.Minute)
		hours, days := l.heard("house", "80123456", "hour"), l.heard("house", "80123456", "day")
		if len(hours) != 100 || len(days) == 0 {
			t.Fatalf("%d hours, %d days", len(hours), len(days))
		}
		for _, tt := range []struct {
			payload  string
			log      string
			from, to string // times of the rows, as they begin; empty: all
			rows     int    // -1: from and to say
		}{
			{`{"meter":"house"}`, "hour", "", "", 100},
			{`house`, "hour", "", "", 100},
			{`{"meter":"house","log":"hour","since":"2026-11-19","until":"2026-11-20"}`, "hour", "2026-11-19T00", "2026-11-19T23", 24},
			{`{"meter":"house","since":"2026-11-19T06:30:00Z","until":"2026-11-19T09:00:00Z"}`, "hour", "2026-11-19T07", "2026-11-19T08", 2},
			{`{"meter":"house","since":"2026-11-19T08:30:00+02:00","until":"2026-11-19T11:00:00+02:00"}`, "hour", "2026-11-19T07", "2026-11-19T08", 2},
			{`{"meter":"house","since":"5h"}`, "hour", "2026-11-20T20", "2026-11-21T00", 5},
			{`{"meter":"house","log":"day"}`, "day", "", "", len(days)},
			{`{"meter":"house","since":"2026-11-20T23:00"}`, "hour", "2026-11-20T23", "2026-11-21T00", 2},
			{`{"meter":"house","log":"month"}`, "month", "", "", 0},
			{`{"meter":"house","since":"2030-01-01"}`, "hour", "", "", 0},
			{`{"meter":"house","until":"2001-01-01"}`, "hour", "", "", 0},
		} {
			before := len(l.sent("kmp2mqtt/house/history"))
			r := l.again(tt.payload)
			if r.Status != "ok" || r.Data.Rows == nil || *r.Data.Rows != tt.rows || r.Data.Serial != "80123456" || r.Data.Log != tt.log {
				t.Errorf("%s: %+v, want %d rows", tt.payload, r, tt.rows)
			}
			got := l.sent("kmp2mqtt/house/history")[before:]
			if len(got) != tt.rows {
				t.Errorf("%s: %d rows came, want %d", tt.payload, len(got), tt.rows)
				continue
			}
			var rows []toldRow
			for _, payload := range got {
				row := toldRow{payload: payload}
				if err := json.Unmarshal([]byte(payload), &row); err != nil {
					t.Fatal(err)
				}
				rows = append(rows, row)
			}
			if len(rows) > 0 && (len(runs(rows)) != 1 || !strings.HasPrefix(rows[0].Time, tt.from) || !strings.HasPrefix(rows[len(rows)-1].Time, tt.to) || rows[0].Log != tt.log) {
				t.Errorf("%s: from %s to %s in %d runs", tt.payload, rows[0].payload, rows[len(rows)-1].payload, len(runs(rows)))
			}
		}

		// The zone is that of the meter.
		before := len(l.sent("kmp2mqtt/flat/history"))
		if r := l.again(`{"meter":"flat","since":"2026-11-20T23:30","until":"2026-11-21T00:30","transaction":"x"}`); r.Status != "ok" || string(r.Transaction) != `"x"` {
			t.Errorf("%+v", r)
		}
		if got := l.sent("kmp2mqtt/flat/history")[before:]; len(got) != 1 || !strings.Contains(got[0], `"time":"2026-11-21T00:00:00+01:00"`) {
			t.Errorf("%s", got)
		}

		for payload, want := range map[string]string{
			`{"meter":"nobody"}`:                     "nobody",
			`{}`:                                     "which meter",
			``:                                       "which meter",
			`{"meter":"house","log":"week"}`:         "week",
			`{"meter":"house","log":"load"}`:         "load",
			`{"meter":"house","log":7}`:              "log",
			`{"meter":"house","since":"yesterday"}`:  "since",
			`{"meter":"house","until":"2026-13-01"}`: "until",
			`{"meter":"house","since":1}`:            "since",
			`{"meter":"house","from":"2026-11-20"}`:  "from",
			`{"meter":"cellar"}`:                     "not answered yet",
			`{"meter":"house"`:                       "JSON",
			`["house"]`:                              "house",
			`{"meter":"house","since":"2026-11-20","until":"2026-11-20"}`: "until is not after since",
			`{"meter":"house","since":"2026-11-20","until":"2026-11-19"}`: "until is not after since",
			`{"meter":"house","since":"1h","until":"2h"}`:                 "until is not after since",
		} {
			sent := len(l.sent("kmp2mqtt/house/history"))
			if r := l.again(payload); r.Status != "error" || !strings.Contains(r.Error, want) {
				t.Errorf("%s: %+v, should say %q", payload, r, want)
			}
			if n := len(l.sent("kmp2mqtt/house/history")) - sent; n > 0 {
				t.Errorf("%s: %d rows", payload, n)
			}
		}

		// While new rows come: all of them, once, in order, and the range as well.
		l.lines.cut("/dev/a")
		l.pass(40 * time.Hour)
		log := sims["/dev/a"].Log(kmp.LogHour)
		known := len(l.heard("house", "80123456", "hour"))
		l.broker.delayAcks(200 * time.Millisecond)
		l.lines.mend("/dev/a")
		for n := 0; len(l.heard("house", "80123456", "hour")) < known+10; n++ {
			if l.pass(100 * time.Millisecond); n > 1200 {
				t.Fatal("nothing comes")
			}
		}
		l.broker.publish(historyRequest, `{"meter":"house","since":"2026-11-18","until":"2026-11-19"}`, false)
		l.pass(3 * time.Minute)
		var fresh []toldRow
		old := 0
		for _, row := range l.heard("house", "80123456", "hour")[known:] {
			if strings.HasPrefix(row.Time, "2026-11-18T") {
				old++
			} else {
				fresh = append(fresh, row)
			}
		}
		if old != 24 || len(runs(fresh)) != 1 || fresh[len(fresh)-1].ID < log[len(log)-1].ID {
			t.Errorf("%d rows of the range, and %d new ones in %d runs", old, len(fresh), len(runs(fresh)))
		}
		answers := l.sent(historyResponse)
		if last := answers[len(answers)-1]; !strings.Contains(last, `"rows":24`) {
			t.Errorf("the answer is %s", last)
		}
	})
}

// TestHistoryRequestWithoutStore says what is missing.
func TestHistoryRequestWithoutStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		toToday()
		l, _ := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: "403"}}, "METERS=house=/dev/a?model=403")
		e := l.listen()
		l.start()
		l.pass(2 * time.Hour)
		if r := l.again("house"); r.Status != "error" || !strings.Contains(r.Error, "DATA_DIR") {
			t.Errorf("%+v", r)
		}
		if n := len(e.logs("/dev/a")); n > 0 {
			t.Errorf("%d requests for a log that nobody keeps", n)
		}
		if got := l.trouble(); len(got) > 0 {
			t.Errorf("log: %s", got)
		}
	})
}

// TestHistoryRequestMany sends more requests than may wait.
func TestHistoryRequestMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		toToday()
		l, _ := newSimLab(t, map[string]sim.Config{"/dev/a": {Model: "403", LogDepth: 20}}, "METERS=house=/dev/a?model=403", "DATA_DIR="+t.TempDir())
		l.start()
		l.pass(10 * time.Minute)
		l.broker.delayAcks(time.Second)
		const many = 30
		for n := range many {
			l.broker.publish(historyRequest, fmt.Sprintf(`{"meter":"house","since":"5h","transaction":%d}`, n), false)
		}
		l.pass(10 * time.Minute)
		ok, refused := 0, 0
		for _, answer := range l.sent(historyResponse) {
			switch {
			case strings.Contains(answer, `"status":"ok"`) && strings.Contains(answer, `"rows":`):
				ok++
			case strings.Contains(answer, "too many"):
				refused++
			default:
				t.Errorf("%s", answer)
			}
		}
		if ok+refused != many || ok < maxReplays || refused == 0 {
			t.Errorf("%d answered, %d refused of %d", ok, refused, many)
		}
	})
}
