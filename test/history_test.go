//go:build e2e

package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
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
