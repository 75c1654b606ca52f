package bridge

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kmp2mqtt/bridge/history"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/logbook"
)

// to lets the bubble's time pass to a moment.
func to(year int, month time.Month, day, hour int) {
	time.Sleep(time.Until(time.Date(year, month, day, hour, 0, 0, 0, time.UTC)))
}

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// kept is what the store of a data directory has of a log, without what was before it began anew.
func kept(t *testing.T, dir, serial string, log kmp.LogType) []logbook.Row {
	t.Helper()
	s, err := history.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	rows, err := s.After(serial, log, -1, 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// keptAll is the same with what was before.
func keptAll(t *testing.T, dir, serial string, log kmp.LogType) (rows []logbook.Row) {
	t.Helper()
	s, err := history.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Range(serial, log, time.Time{}, time.Time{}, func(r logbook.Row) error { rows = append(rows, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return rows
}

// wallOf is what a meter's clock showed when it wrote a row, by registers 1003 and 1002, which
// know no daylight saving time. It stands in UTC, whatever the meter's zone is.
func wallOf(t *testing.T, row kmp.LogRow) time.Time {
	t.Helper()
	wall, err := time.Parse("2006-01-02T15:04:05", stampOf(row))
	if err != nil {
		t.Fatal(err)
	}
	return wall
}

// keptAsLogged holds rows of the store against those of the meter: the same ids, times and
// registers, byte for byte. standard is by how much the meter's zone is ahead of UTC without
// daylight saving time.
func keptAsLogged(t *testing.T, what string, rows []logbook.Row, want []kmp.LogRow, standard time.Duration) {
	t.Helper()
	if len(rows) != len(want) {
		t.Errorf("%s: %d rows are kept, the meter has %d", what, len(rows), len(want))
	}
	for i := range min(len(rows), len(want)) {
		row, truth := rows[i], want[i]
		if row.ID != truth.ID || !row.Time.Equal(wallOf(t, truth).Add(-standard)) {
			t.Fatalf("%s: row %d has id %d and time %v, the meter has id %d at %s", what, i, row.ID, row.Time, truth.ID, stampOf(truth))
		}
		if len(row.Registers) < 2 {
			t.Fatalf("%s: row %d has %d registers", what, row.ID, len(row.Registers))
		}
		for _, r := range row.Registers {
			at := slices.IndexFunc(truth.Registers, func(x kmp.Register) bool { return x.ID == r.ID })
			if at < 0 {
				t.Fatalf("%s: row %d has register %d, which the meter does not log", what, row.ID, r.ID)
			}
			if x := truth.Registers[at]; x.Unit != r.Unit || x.SiEx != r.SiEx || !bytes.Equal(x.Raw, r.Raw) {
				t.Fatalf("%s: row %d has %+v, the meter %+v", what, row.ID, r, x)
			}
		}
	}
}

// toldRow is a row as a subscriber got it.
type toldRow struct {
	Serial, Log string
	ID          uint32
	Time        string
	Correction  int `json:"correction_s"`
	payload     string
}

// heard is what a subscriber got of a log of a meter, in order.
func (l *lab) heard(meter, serial, log string) (rows []toldRow) {
	l.t.Helper()
	for _, payload := range l.sent("kmp2mqtt/" + meter + "/history") {
		r := toldRow{payload: payload}
		if err := json.Unmarshal([]byte(payload), &r); err != nil {
			l.t.Fatalf("%s: %v", payload, err)
		}
		if r.Serial == serial && r.Log == log {
			rows = append(rows, r)
		}
	}
	return rows
}

// runs cuts rows where the next one has not the next id.
func runs(rows []toldRow) (list [][]toldRow) {
	for i, r := range rows {
		if i == 0 || r.ID != rows[i-1].ID+1 {
			list = append(list, nil)
		}
		list[len(list)-1] = append(list[len(list)-1], r)
	}
	return list
}

// toldAsKept holds what a subscriber got against what is kept: the same ids in the same order,
// and the same content.
func toldAsKept(t *testing.T, what string, told []toldRow, rows []logbook.Row) {
	t.Helper()
	if len(told) != len(rows) {
		t.Errorf("%s: %d rows were published, %d are kept", what, len(told), len(rows))
	}
	for i := range min(len(told), len(rows)) {
		if want := string(historyMessage(topics{}, "", told[i].Serial, rows[i], nil).Payload); told[i].payload != want {
			t.Fatalf("%s: row %d was published as\n%s\nand is kept as\n%s", what, i, told[i].payload, want)
		}
	}
}

// ears hear what a bridge asks its meters.
type ears struct {
	mu     sync.Mutex
	frames []asked
}

type asked struct {
	at      time.Time
	line    string
	command kmp.Command
	bytes   int
}

// listen puts ears on all lines of a lab.
func (l *lab) listen() *ears {
	e := &ears{}
	l.dial = func(ctx context.Context, line string) (kmp.Line, error) {
		conn, err := l.lines.dial(ctx, line)
		if err != nil {
			return nil, err
		}
		return &earedLine{conn.(net.Conn), line, e}, nil
	}
	return e
}

// earedLine is the bridge's end of a line.
type earedLine struct {
	net.Conn
	line string
	ears *ears
}

func (l *earedLine) Write(b []byte) (int, error) {
	if f, err := kmp.DecodeFrame(b); err == nil {
		l.ears.mu.Lock()
		l.ears.frames = append(l.ears.frames, asked{time.Now(), l.line, f.Command, len(b)})
		l.ears.mu.Unlock()
	}
	return l.Conn.Write(b)
}

// logs are the requests of a line that have to do with logs.
func (e *ears) logs(line string) (list []asked) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, a := range e.frames {
		if a.line == line && (a.command == kmp.CmdLogger || a.command >= kmp.CmdGetLogTimePresent && a.command <= kmp.CmdGetLogTimePast) {
			list = append(list, a)
		}
	}
	return list
}

// drift is clock_drift_s of a meter's diagnostics; false: it is null.
func (l *lab) drift(meter string) (seconds int, known bool) {
	l.t.Helper()
	var d struct {
		Drift *int `json:"clock_drift_s"`
	}
	if err := json.Unmarshal([]byte(l.retained("kmp2mqtt/"+meter+"/diagnostics")), &d); err != nil {
		l.t.Fatal(err)
	}
	if d.Drift == nil {
		return 0, false
	}
	return *d.Drift, true
}

// trouble are the lines of the log from WARN on, but for those with one of these texts.
func (l *lab) trouble(but ...string) (list []string) {
	for _, line := range l.logs.lines("level=WARN", "level=ERROR") {
		if !slices.ContainsFunc(but, func(s string) bool { return strings.Contains(line, s) }) {
			list = append(list, line)
		}
	}
	return list
}
