//go:build e2e

package test

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// kept403 are the counters that the bridge keeps of a MULTICAL 403's logs.
const kept403 = "60,63,68,97,110"

// historyTopic is where the rows of the meter in these tests appear.
const historyTopic = "kmp2mqtt/house/history"

// result is what a verb said, and how it ended.
type result struct {
	status   int
	out, log string
}

// tool runs a verb of the program to its end.
func tool(t *testing.T, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := runTool(ctx, args...)
	if err != nil {
		t.Fatalf("kmp2mqtt %s: %v", strings.Join(args, " "), err)
	}
	return r
}

// runTool is tool for those who may not end the test.
func runTool(ctx context.Context, args ...string) (result, error) {
	var out, log bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TZ=UTC", raceDetector}
	cmd.Stdout, cmd.Stderr = &out, &log
	err := cmd.Run()
	r := result{out: out.String(), log: log.String()}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		r.status, err = exit.ExitCode(), nil
	}
	if strings.Contains(r.log, "WARNING: DATA RACE") {
		err = errors.Join(err, errors.New(r.log))
	}
	return r, err
}

// fine is the standard output of a verb that has to succeed.
func fine(t *testing.T, args ...string) string {
	t.Helper()
	r := tool(t, args...)
	if r.status != 0 {
		t.Fatalf("kmp2mqtt %s: status %d: %s", strings.Join(args, " "), r.status, r.log)
	}
	return r.out
}

// row is a row of a log in JSON: its members as they were written, digit by digit.
type row map[string]string

func (r row) id() int {
	n, err := strconv.Atoi(r["id"])
	if err != nil {
		return -1
	}
	return n
}

// stamp is the time of a row, zero for one without.
func (r row) stamp() time.Time {
	at, err := time.Parse(`"`+time.RFC3339+`"`, r["time"])
	if err != nil {
		return time.Time{}
	}
	return at
}

func (r row) log() string { return strings.Trim(r["log"], `"`) }

// rowsIn reads rows, one in a line.
func rowsIn(t *testing.T, text string) (rows []row) {
	t.Helper()
	for line := range strings.Lines(text) {
		rows = append(rows, object(t, line))
	}
	return rows
}

// logOf is what a meter's log says, read past the bridge, in the registers that the bridge keeps.
func logOf(t *testing.T, line, log string) []row {
	t.Helper()
	return rowsIn(t, fine(t, "log", "house="+utc(line), log, "-json", "-registers", kept403))
}

// utc is a line whose meter is at home in UTC, as the programs under test are.
func utc(line string) string {
	if strings.Contains(line, "?") {
		return line + "&tz=UTC"
	}
	return line + "?tz=UTC"
}

// exported are the rows that the bridge keeps.
func exported(t *testing.T, data string, args ...string) []row {
	t.Helper()
	return rowsIn(t, fine(t, append([]string{"export", "-data", data, "-json"}, args...)...))
}

// arrived are the rows that a subscriber has got so far.
func (s *subscriber) arrived() (rows []row) {
	s.t.Helper()
	for _, m := range s.all(historyTopic) {
		rows = append(rows, object(s.t, m.Payload))
	}
	return rows
}

// only are the rows of one log.
func only(rows []row, log string) []row {
	return slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return r.log() != log })
}

// sameRows holds rows against those of the meter, digit by digit. By how much the meter's clock is off is left out: the
// verb log tells single seconds, and they change.
func sameRows(t *testing.T, what string, got, want []row) {
	t.Helper()
	bare := func(r row) row {
		r = maps.Clone(r)
		delete(r, "meter")
		delete(r, "correction_s")
		return r
	}
	for i := range min(len(got), len(want)) {
		if !maps.Equal(bare(got[i]), bare(want[i])) {
			t.Fatalf("%s: row %d of %d is\n%v, of the meter's %d\n%v", what, i, len(got), got[i], len(want), want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d rows, want %d", what, len(got), len(want))
	}
}

// once checks that of each log every row follows the one before, and returns them without those that came again right
// behind themselves, and how many those were.
func once(t *testing.T, rows []row) (list []row, again int) {
	t.Helper()
	last := make(map[string]row)
	for i, r := range rows {
		before, known := last[r.log()]
		switch {
		case known && maps.Equal(r, before):
			again++
			continue
		case known && r.id() != before.id()+1:
			t.Fatalf("row %d: %v follows %v", i, r, before)
		}
		last[r.log()] = r
		list = append(list, r)
	}
	return list, again
}

// firsts are the rows without those that had come before, however long ago.
func firsts(rows []row) (list []row) {
	seen := make(map[string]bool)
	for _, r := range rows {
		if key := r.log() + r["id"]; !seen[key] {
			seen[key] = true
			list = append(list, r)
		}
	}
	return list
}

// meterLogs are the rows that a bridge without any is to read of a meter: its hours, and the days before them.
type meterLogs struct{ hours, days []row }

func logsOf(t *testing.T, line string) meterLogs {
	t.Helper()
	hours, days := logOf(t, line, "hour"), logOf(t, line, "day")
	if len(hours) == 0 || len(days) == 0 {
		t.Fatal("the meter has no logs")
	}
	return meterLogs{hours, days}
}

// as are the rows as of the first hour that the bridge got, which may have been the second one by then, up to the
// newest that it can have got for sure.
func (l meterLogs) as(t *testing.T, got []row) (hours, days []row) {
	t.Helper()
	hours = l.hours
	if len(got) > 0 && got[0].id() == hours[0].id()+1 {
		hours = hours[1:]
	}
	days = slices.DeleteFunc(slices.Clone(l.days), func(r row) bool { return !r.stamp().Before(hours[0].stamp()) })
	return hours, days
}

// check holds rows of both logs against those of the meter; an hour that has passed meanwhile may be there as well.
func (l meterLogs) check(t *testing.T, what string, rows []row) {
	t.Helper()
	gotHours := only(rows, "hour")
	hours, days := l.as(t, gotHours)
	if len(gotHours) == len(hours)+1 {
		gotHours = gotHours[:len(hours)]
	}
	sameRows(t, what+", hours", gotHours, hours)
	sameRows(t, what+", days", only(rows, "day"), days)
}

// total is how many rows there will be, one or two less or more when an hour passes.
func (l meterLogs) total(t *testing.T) int {
	t.Helper()
	_, days := l.as(t, nil)
	return len(l.hours) + len(days)
}

// complete says whether both logs have arrived to their ends.
func (l meterLogs) complete(t *testing.T, rows []row) bool {
	t.Helper()
	hours, days := only(rows, "hour"), only(rows, "day")
	if len(hours) == 0 || len(days) == 0 {
		return false
	}
	_, wantDays := l.as(t, hours)
	return hours[len(hours)-1].id() >= l.hours[len(l.hours)-1].id() && days[len(days)-1].id() == wantDays[len(wantDays)-1].id()
}

// keeper are options of a subscriber for whom the broker keeps what comes while he is away.
func keeper(b *broker) []string { return append(b.client(), "-c", "-i", "keeper") }

// TestHistoryKilled kills the bridge thirty times while it reads and publishes what its meter remembers, most times when
// a given number of rows has been published, sometimes at any moment. There is no hole and no wrong row in the end, on
// the topic and in the file, and a kill has one row repeated at most.
func TestHistoryKilled(t *testing.T) {
	t.Parallel()
	const kills = 30
	_, line := simulate(t, "-log-depth=400", "-log-buffer=160", "-serial=501")
	truth := logsOf(t, line)
	b := mosquitto(t, open)
	live := subscribe(t, keeper(b), historyTopic)
	data := filepath.Join(t.TempDir(), "data")
	settings := []string{"METERS=house=" + utc(line) + unlimited, "DATA_DIR=" + data, "MQTT_URL=" + b.url()}
	var after []int // so many rows
	for range kills {
		after = append(after, rand.IntN(truth.total(t)*9/10))
	}
	slices.Sort(after)
	logs := ""
	for n := range kills {
		p := bridge(t, settings...)
		if n%3 < 2 {
			eventually(t, fmt.Sprintf("%d rows", after[n]), func() bool { return len(live.all(historyTopic)) >= after[n] })
			pause(20 * time.Millisecond)
		} else {
			pause(700 * time.Millisecond)
		}
		p.end(t, syscall.SIGKILL)
		logs += p.log.String()
		if n%10 == 9 {
			rows := exported(t, data)
			if hours := only(rows, "hour"); len(hours) > 0 {
				all, _ := truth.as(t, hours)
				sameRows(t, "export after a kill", hours, all[:min(len(hours), len(all))])
			}
		}
	}
	if truth.complete(t, live.arrived()) {
		t.Error("all rows have arrived before the last kill")
	}
	p := bridge(t, settings...)
	eventually(t, "all rows arrive", func() bool { return truth.complete(t, live.arrived()) })
	rows, again := once(t, live.arrived())
	t.Logf("%d rows, %d of them twice", len(rows), again)
	if again > kills {
		t.Errorf("%d rows were repeated", again)
	}
	truth.check(t, "published", rows)
	truth.check(t, "export", exported(t, data))
	stopped(t, p, syscall.SIGTERM)
	truth.check(t, "export without the bridge", exported(t, data))
	logs += p.log.String()
	if strings.Contains(logs, "damaged") || strings.Contains(logs, " ERR ") {
		t.Errorf("a life ended badly:\n%s", logs)
	}
	if list, err := filepath.Glob(filepath.Join(data, "history.db*")); err != nil || len(list) != 1 {
		t.Errorf("files %v: %v", list, err)
	}
}

// lasting are the settings of a broker that loses nothing when it is restarted.
func lasting(t *testing.T) []string {
	t.Helper()
	return []string{
		open, "persistence true", "persistence_location " + t.TempDir() + "/", "autosave_on_changes true",
		"autosave_interval 1", "max_queued_messages 0",
	}
}

// TestHistoryBroker stops, kills and freezes the broker while rows are published. Nothing is lost, the order is kept, and
// of an outage the bridge repeats one row at most. What the subscriber has not acknowledged the broker repeats as well.
func TestHistoryBroker(t *testing.T) {
	t.Parallel()
	for name, outage := range map[string]func(*testing.T, *broker){
		"stopped": func(t *testing.T, b *broker) {
			t.Helper()
			b.end(t, syscall.SIGTERM)
			b.start()
		},
		"away": func(t *testing.T, b *broker) {
			t.Helper()
			b.end(t, syscall.SIGTERM)
			pause(3 * time.Second)
			b.start()
		},
		"killed": func(t *testing.T, b *broker) {
			t.Helper()
			b.kill()
			b.start()
		},
		"frozen": func(t *testing.T, b *broker) {
			t.Helper()
			b.signal(t, syscall.SIGSTOP)
			pause(3 * time.Second)
			b.signal(t, syscall.SIGCONT)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const outages = 4
			_, line := simulate(t, "-log-depth=250", "-log-buffer=160", "-serial=502")
			truth := logsOf(t, line)
			b := mosquitto(t, lasting(t)...)
			live := subscribe(t, keeper(b), historyTopic)
			data := t.TempDir()
			p := bridge(t, "METERS=house="+utc(line)+unlimited, "DATA_DIR="+data, "MQTT_URL="+b.url())
			brokers := []*process{b.process}
			for n := range outages {
				within(t, recovery, "some rows", func() bool { return len(live.all(historyTopic)) > truth.total(t)*n/(outages+1) })
				outage(t, b)
				brokers = append(brokers, b.process)
			}
			within(t, recovery, "all rows arrive", func() bool { return truth.complete(t, live.arrived()) })
			rows, _ := once(t, firsts(live.arrived()))
			published := 0
			for _, b := range slices.Compact(brokers) {
				for line := range strings.Lines(b.log.String()) {
					if strings.Contains(line, "Received PUBLISH") && strings.Contains(line, historyTopic) {
						published++
					}
				}
			}
			t.Logf("%d rows, published %d times", len(rows), published)
			if published > len(rows)+outages {
				t.Errorf("%d rows were published %d times", len(rows), published)
			}
			truth.check(t, "published", rows)
			truth.check(t, "export", exported(t, data))
			if strings.Contains(p.log.String(), " ERR ") {
				t.Error("errors in the log")
			}
		})
	}
}

// TestHistoryAway has no broker at all while the logs are read: readings and reading the logs go on, and the rows wait.
func TestHistoryAway(t *testing.T) {
	t.Parallel()
	_, line := simulate(t, "-log-depth=60", "-serial=503")
	truth := logsOf(t, line)
	b := mosquitto(t, lasting(t)...)
	live := subscribe(t, keeper(b), historyTopic)
	b.end(t, syscall.SIGTERM)
	data := t.TempDir()
	p := bridge(t, "METERS=house="+utc(line)+unlimited, "DATA_DIR="+data, "LOG_LEVEL=debug", "READ_INTERVAL=1s", "MQTT_URL="+b.url())
	eventually(t, "all rows are kept", func() bool {
		if _, err := os.Stat(filepath.Join(data, "history.db")); err != nil {
			return false
		}
		return truth.complete(t, exported(t, data))
	})
	reads(t, p, 2)
	b.start()
	within(t, recovery, "all rows arrive", func() bool { return truth.complete(t, live.arrived()) })
	rows, again := once(t, live.arrived())
	if again > 1 {
		t.Errorf("%d rows were repeated", again)
	}
	truth.check(t, "published", rows)
	for _, m := range live.all(historyTopic) {
		if m.QoS != 1 || m.Retain != 0 {
			t.Fatalf("a row with QoS %d, retain %d", m.QoS, m.Retain)
		}
	}
}

// TestHistoryAgain asks for a range to be published again.
func TestHistoryAgain(t *testing.T) {
	t.Parallel()
	_, line := simulate(t, "-log-depth=30", "-serial=504")
	truth := logsOf(t, line)
	b := mosquitto(t, open)
	live := subscribe(t, b.client())
	bridge(t, "METERS=house="+utc(line)+unlimited, "DATA_DIR="+t.TempDir(), "MQTT_URL="+b.url())
	eventually(t, "all rows arrive", func() bool { return truth.complete(t, live.arrived()) })
	before := live.arrived()
	truth.check(t, "published", before)
	from, to := truth.hours[5], truth.hours[9]
	ask := fmt.Sprintf(`{"meter":"house","log":"hour","since":%s,"until":%s,"transaction":7}`, from["time"], to["time"])
	publish(t, b.client(), "kmp2mqtt/bridge/request/history", ask)
	reply := live.any("kmp2mqtt/bridge/response/history")
	var answer struct {
		Status      string
		Transaction int
		Data        json.RawMessage
	}
	if err := json.Unmarshal([]byte(reply.Payload), &answer); err != nil || answer.Status != "ok" || answer.Transaction != 7 {
		t.Fatalf("the answer is %s", reply.Payload)
	}
	sameRows(t, "published again", live.arrived()[len(before):], truth.hours[5:9])
}

// TestHistoryExport exports while the bridge writes, and then in every form and part.
func TestHistoryExport(t *testing.T) {
	t.Parallel()
	_, house := simulate(t, "-log-depth=120", "-log-buffer=160", "-serial=505")
	_, garage := simulate(t, "-log-depth=20", "-serial=506", "-seed=2")
	truth, other := logsOf(t, house), logsOf(t, garage)
	b := mosquitto(t, open)
	live := subscribe(t, b.client())
	data := t.TempDir()
	bridge(t, "METERS=house="+utc(house)+unlimited+" garage="+utc(garage)+unlimited, "DATA_DIR="+data, "MQTT_URL="+b.url())
	live.any(historyTopic)
	for n, done := 0, false; !done; n++ {
		rows := exported(t, data, "-meter", "house")
		hours := only(rows, "hour")
		all, days := truth.as(t, hours)
		sameRows(t, "hours so far", hours, all[:min(len(hours), len(all))])
		soFar := only(rows, "day")
		sameRows(t, "days so far", soFar, days[:min(len(soFar), len(days))])
		done = truth.complete(t, rows)
		if n > 1000 {
			t.Fatal("the export does not get complete")
		}
	}
	eventually(t, "the other meter's rows are there", func() bool { return other.complete(t, exported(t, data, "-meter", "garage")) })
	truth.check(t, "by name", exported(t, data, "-meter", "house"))
	truth.check(t, "by serial number", exported(t, data, "-meter", "505"))
	both := exported(t, data)
	other.check(t, "both", slices.DeleteFunc(slices.Clone(both), func(r row) bool { return r["serial"] != `"506"` }))
	for _, r := range both {
		if want := map[string]string{`"505"`: `"house"`, `"506"`: `"garage"`}[r["serial"]]; r["meter"] != want {
			t.Fatalf("a row of another: %v", r)
		}
	}
	from, to := truth.hours[20], truth.hours[50]
	part := []string{"-meter", "house", "-log", "hour", "-since", strings.Trim(from["time"], `"`), "-until", strings.Trim(to["time"], `"`)}
	rows := exported(t, data, part...)
	sameRows(t, "a part", rows, truth.hours[20:50])

	lines, err := csv.NewReader(strings.NewReader(fine(t, append([]string{"export", "-data", data, "-csv"}, part...)...))).ReadAll()
	if err != nil || len(lines) != len(rows)+1 {
		t.Fatalf("%d lines of CSV: %v", len(lines), err)
	}
	for i, r := range rows {
		for c, key := range lines[0] {
			if want := strings.Trim(r[key], `"`); lines[i+1][c] != want && key != "correction_s" {
				t.Fatalf("CSV: %s of row %d is %q, want %q", key, i, lines[i+1][c], want)
			}
		}
	}
	i := 0
	for line := range strings.Lines(fine(t, append([]string{"export", "-data", data, "-influx"}, part...)...)) {
		r := rows[i]
		i++
		if want := fmt.Sprintf("kmp2mqtt,log=hour,meter=house,serial=505 id=%di,", r.id()); !strings.HasPrefix(line, want) ||
			!strings.Contains(line, ",energy_gj="+r["energy_gj"]+",") || !strings.HasSuffix(line, fmt.Sprintf(" %d\n", r.stamp().UnixNano())) {
			t.Fatalf("Influx: %q of %v", line, r)
		}
	}
	if i != len(rows) {
		t.Errorf("Influx: %d lines, want %d", i, len(rows))
	}
	if r := tool(t, "export", "-data", data, "-json", "-meter", "shed"); r.status != 2 || !strings.Contains(r.log, "house") || r.out != "" {
		t.Errorf("a meter that is not there: %+v", r)
	}
}

// damages are what can become of the file of the rows while no bridge runs.
var damages = map[string]struct {
	do    func(t *testing.T, name string)
	again bool // nobody knows any more what was published
	aside bool // there is something to be set aside
}{
	"a page of rows": {do: spoilRows, aside: true},
	"cut off": {do: func(t *testing.T, name string) {
		t.Helper()
		if err := os.Truncate(name, 5000); err != nil {
			t.Fatal(err)
		}
	}, again: true, aside: true},
	"something else": {do: func(t *testing.T, name string) {
		t.Helper()
		if err := os.WriteFile(name, bytes.Repeat([]byte("no database\n"), 2000), 0o600); err != nil {
			t.Fatal(err)
		}
	}, again: true, aside: true},
	"gone": {do: func(t *testing.T, name string) {
		t.Helper()
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}, again: true},
}

// spoilRows flips a bit in the fullest page that holds rows.
func spoilRows(t *testing.T, name string) {
	t.Helper()
	db, err := bbolt.Open(name, 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	fullest, most, size := 0, 0, db.Info().PageSize
	if err := db.View(func(tx *bbolt.Tx) error {
		for id := 0; ; id++ {
			info, err := tx.Page(id)
			if err != nil || info == nil {
				return err
			}
			if info.Type == "leaf" && info.Count > most {
				fullest, most = id, info.Count
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil || most < 10 {
		t.Fatalf("a page with %d rows: %v", most, err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	one, at := make([]byte, 1), int64(fullest*size+size*3/4)
	if _, err := f.ReadAt(one, at); err != nil {
		t.Fatal(err)
	}
	one[0] ^= 0x10
	if _, err := f.WriteAt(one, at); err != nil {
		t.Fatal(err)
	}
}

// TestHistoryDamaged damages the file of the rows between two runs of the bridge. It says so, sets the file aside and
// reads the rows again; what is known to be published is not published again.
func TestHistoryDamaged(t *testing.T) {
	t.Parallel()
	_, line := simulate(t, "-log-depth=200", "-serial=507")
	truth := logsOf(t, line)
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := mosquitto(t, open)
			live := subscribe(t, b.client())
			data := t.TempDir()
			settings := []string{"METERS=house=" + utc(line) + unlimited, "DATA_DIR=" + data, "MQTT_URL=" + b.url()}
			p := bridge(t, settings...)
			within(t, recovery, "all rows arrive", func() bool { return truth.complete(t, live.arrived()) })
			stopped(t, p, syscall.SIGTERM)
			before := live.arrived()
			truth.check(t, "published", before)
			damage.do(t, filepath.Join(data, "history.db"))

			p = bridge(t, settings...)
			if damage.aside {
				p.says(t, "history.db", "damaged")
			}
			within(t, recovery, "all rows are kept again", func() bool {
				_, err := os.Stat(filepath.Join(data, "history.db"))
				if err != nil {
					return false
				}
				rows := exported(t, data)
				return len(rows) >= len(before) && truth.complete(t, rows)
			})
			if damage.again {
				within(t, recovery, "all rows arrive again", func() bool { return truth.complete(t, live.arrived()[len(before):]) })
				truth.check(t, "published again", live.arrived()[len(before):])
			}
			stopped(t, p, syscall.SIGTERM)
			truth.check(t, "export", exported(t, data))
			if n := len(live.arrived()) - len(before); !damage.again && n != 0 {
				t.Errorf("%d rows are published again", n)
			}
			list, err := filepath.Glob(filepath.Join(data, "history.db.damaged-*"))
			if err != nil || len(list) != map[bool]int{true: 1}[damage.aside] {
				t.Errorf("set aside: %v, %v", list, err)
			}
			if said := strings.Count(p.log.String(), " ERR "); said > 1 {
				t.Errorf("%d errors", said)
			}
		})
	}
}

// TestLogInterrupted reads a log over a serial port at 1200 baud. It is interrupted again and again, and goes on each
// time where it was; in the end the file has every row once.
func TestLogInterrupted(t *testing.T) {
	t.Parallel()
	device := filepath.Join(t.TempDir(), "meter")
	meter := simulatePTY(t, device, "-pace", "-log-buffer=100", "-serial=508")
	port := freePort(t)
	ser2net(t, port, device)
	now := time.Now().UTC().Truncate(time.Hour)
	name := filepath.Join(t.TempDir(), "rows.json")
	command := func(more ...string) []string {
		return append([]string{
			"log", utc("tcp://" + address(port)), "hour", "-since", now.Add(-12 * time.Hour).Format(time.RFC3339),
			"-until", now.Format(time.RFC3339), "-registers", kept403, "-json",
		}, more...)
	}
	lines := func() int {
		content, err := os.ReadFile(name)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return bytes.Count(content, []byte("\n"))
	}
	for range 2 {
		had := lines()
		p := start(t, nil, program, command("-out", name)...)
		eventually(t, "more rows are in the file", func() bool { return lines() > had || !p.running() })
		if code := p.end(t, syscall.SIGINT); code != 1 {
			t.Fatalf("interrupted, status %d", code)
		}
		p.says(t, "the same command goes on after them")
	}
	if n := lines(); n >= 12 {
		t.Fatalf("all %d rows are there before the last run", n)
	}
	p := start(t, nil, program, command("-out", name)...)
	within(t, recovery, "the last run ends", func() bool { return !p.running() })
	if code := p.status(t); code != 0 {
		t.Fatalf("status %d", code)
	}
	if r := tool(t, command("-out", name)...); r.status != 0 || !strings.Contains(r.log, "the meter has none that are newer") {
		t.Errorf("nothing is left: %+v", r)
	}
	whole := start(t, nil, program, command()...)
	within(t, recovery, "it is read in one piece", func() bool { return !whole.running() })
	rows := rowsIn(t, read(t, name))
	sameRows(t, "in pieces", rows, rowsIn(t, whole.out.String()))
	for i, r := range rows {
		if want := now.Add(time.Duration(i-12) * time.Hour); !r.stamp().Equal(want) || len(rows) != 12 {
			t.Errorf("row %d of %d is of %v, want %v", i, len(rows), r.stamp(), want)
		}
	}
	if !meter.running() {
		t.Error("the meter has ended")
	}
}

// TestClock sets a clock that is wrong, when told so twice. It drifts on from there.
func TestClock(t *testing.T) {
	t.Parallel()
	_, line := simulate(t, "-clock-offset=-1h30m", "-clock-drift=100000", "-serial=509")
	drift := func() (d int) {
		t.Helper()
		if _, err := fmt.Sscan(object(t, fine(t, "clock", utc(line), "-json"))["drift_s"], &d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	before := drift()
	if before < -5401 || before > -5000 {
		t.Fatalf("the clock is off by %d s", before)
	}
	hours := logOf(t, line, "hour")
	if r := tool(t, "clock", utc(line), "-set"); r.status != 2 || !strings.Contains(r.log, "-yes") || r.out != "" {
		t.Errorf("-set without -yes: %+v", r)
	}
	if d := drift(); d > -5000 {
		t.Errorf("the clock was set without -yes: it is off by %d s", d)
	}
	said := object(t, fine(t, "clock", utc(line), "-set", "-yes", "-json"))
	if !slices.Contains([]string{"-2", "-1", "0", "1", "2"}, said["drift_s"]) {
		t.Errorf("set, it is off by %s s", said["drift_s"])
	}
	eventually(t, "the clock runs ahead", func() bool { return drift() >= 2 })
	sameRows(t, "the rows of before", logOf(t, line, "hour")[:len(hours)-2], hours[:len(hours)-2])
}

// TestDemoUnplugged pulls the plug of the demo by the key that it names, and puts it back: the hours that pass meanwhile
// arrive in order behind it.
func TestDemoUnplugged(t *testing.T) {
	t.Parallel()
	port, broker := freePort(t), freePort(t)
	// A terminal is what makes the demo listen to keys.
	terminal := start(t, []string{"MQTT_LISTEN=" + address(broker), "TMPDIR=" + t.TempDir()}, "socat",
		fmt.Sprintf("TCP-LISTEN:%d,bind=%s,reuseaddr", port, host), "EXEC:"+program+" demo,pty,setsid,ctty,stderr,echo=0")
	var keys net.Conn
	eventually(t, "the terminal is there", func() bool {
		var err error
		keys, err = net.Dial("tcp", address(port)) //nolint:noctx // on this machine
		return err == nil || !terminal.running()
	})
	screen := &transcript{}
	go io.Copy(screen, keys) //nolint:errcheck // it ends with the connection
	t.Cleanup(func() {
		keys.Close()
		if t.Failed() {
			t.Log(screen.tail())
		}
	})
	shows := func(text string) {
		t.Helper()
		eventually(t, fmt.Sprintf("the demo shows %q", text), func() bool { return strings.Contains(screen.String(), text) })
	}
	press := func() {
		t.Helper()
		if _, err := keys.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
	}
	shows("Press Enter")
	listens(t, broker, terminal)
	live := subscribe(t, clientOptions(broker))
	within(t, recovery, "the first hour", func() bool { return len(live.arrived()) > 0 })
	press()
	shows("unplugged")
	states, before := len(live.all("kmp2mqtt/house")), live.arrived()
	live.says("kmp2mqtt/house/availability", "offline")
	press()
	shows("plugged in again")
	within(t, recovery, "it is read again", func() bool { return len(live.all("kmp2mqtt/house")) > states })
	within(t, recovery, "the hours of the outage", func() bool { return len(live.arrived()) >= len(before)+2 })
	rows, again := once(t, live.arrived())
	if again > 0 {
		t.Errorf("%d rows were repeated", again)
	}
	for i := range len(rows) - 1 {
		if d := rows[i+1].stamp().Sub(rows[i].stamp()); d != time.Hour {
			t.Errorf("%v lies between %v and %v", d, rows[i], rows[i+1])
		}
	}
	for _, r := range rows[1:] { // at the first one it may not be known yet how fast the clock runs
		if r["correction_s"] != "" {
			t.Errorf("a clock that runs faster is taken to be wrong: %v", r)
		}
	}
}
