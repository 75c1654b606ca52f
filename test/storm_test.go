//go:build e2e

package test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// soak makes the storms last for many rounds: `make soak`. Without it they pass by in seconds.
var soak = flag.Bool("soak", false, "storms of many minutes instead of seconds")

const (
	// recovery is how long it may take until all is well after an outage: the minute that is promised, and half of one
	// for a busy machine.
	recovery = 90 * time.Second
	// slack is how many goroutines of a kind more than in a new bridge are no leak: a message may be on its way.
	slack = 2
	// moreThreads is how many threads more than before are none: the runtime makes them as it needs them and never gives
	// them back.
	moreThreads = 12
)

// rounds is how often a storm strikes.
func rounds(few, many int) int {
	if *soak {
		return many
	}
	return few
}

// pause lets a storm strike at a moment that nobody can foresee.
func pause(most time.Duration) { time.Sleep(rand.N(most)) }

// resources are what a program holds of the system.
type resources struct{ descriptors, threads int }

func (p *process) resources(t *testing.T) resources {
	t.Helper()
	count := func(what string) int {
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, what))
		if err != nil {
			t.Fatalf("%s: %v", p.name, err)
		}
		return len(list)
	}
	return resources{count("fd"), count("task")}
}

// keeps waits until a program holds no more than before a storm.
func (p *process) keeps(t *testing.T, before resources) {
	t.Helper()
	var now resources
	defer func() { t.Logf("%s: before the storm %+v, after it %+v", p.name, before, now) }()
	eventually(t, fmt.Sprintf("no more descriptors and threads than %+v", before), func() bool {
		now = p.resources(t)
		return now.descriptors <= before.descriptors && now.threads <= before.threads+moreThreads
	})
}

// memory is what a program occupies, in bytes.
func (p *process) memory(t *testing.T) int {
	t.Helper()
	var kilobytes int
	for line := range strings.Lines(read(t, fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			if _, err := fmt.Sscan(rest, &kilobytes); err != nil {
				t.Fatal(err)
			}
		}
	}
	return kilobytes << 10
}

// goroutines ends a bridge as only SIGQUIT does: with a list of its goroutines. It counts them by what started them.
func (p *process) goroutines(t *testing.T) map[string]int {
	t.Helper()
	before := len(p.log.String())
	if code := p.end(t, syscall.SIGQUIT); code != 2 {
		t.Fatalf("%s: SIGQUIT ends it with status %d", p.name, code)
	}
	count := make(map[string]int)
	creator := regexp.MustCompile(`(?m)^created by (\S+)|^(main\.main)\(`)
	for stack := range strings.SplitSeq(p.log.from(before), "\n\n") {
		if m := creator.FindStringSubmatch(stack); strings.HasPrefix(stack, "goroutine ") && m != nil {
			count[m[1]+m[2]]++
		}
	}
	if count["main.main"] != 1 {
		t.Fatalf("%s: no list of goroutines", p.name)
	}
	return count
}

// hush has meters be read once a week, and waits until nothing moves.
func hush(t *testing.T, b *broker, live *subscriber, meters []string) {
	t.Helper()
	for _, name := range meters {
		if a := ask(t, b.client(), live, "kmp2mqtt/"+name+"/set", `{"interval":"168h"}`, "kmp2mqtt/"+name+"/response"); a.Status != "ok" {
			t.Fatalf("set %s: %+v", name, a)
		}
	}
	heard, since := 0, time.Now()
	eventually(t, "nothing is published any more", func() bool {
		if n := len(live.all("#")); n != heard {
			heard, since = n, time.Now()
		}
		return time.Since(since) > time.Second
	})
}

// sameGoroutines compares a bridge that went through a storm with one of the same settings that has just begun. Both
// have ended after that.
func sameGoroutines(t *testing.T, b *broker, live *subscriber, stormy *process, meters []string) {
	t.Helper()
	hush(t, b, live, meters)
	after := stormy.goroutines(t)
	eventually(t, "the end of the bridge is known", func() bool { return live.newest()["kmp2mqtt/bridge/state"].Payload == "offline" })
	seen := make(map[string]int)
	for _, name := range meters {
		seen[name] = len(live.all("kmp2mqtt/" + name))
	}
	calm := start(t, stormy.cmd.Env, program)
	online(t, live, meters)
	for _, name := range meters {
		eventually(t, name+" is read", func() bool { return len(live.all("kmp2mqtt/"+name)) > seen[name] })
	}
	hush(t, b, live, meters)
	before := calm.goroutines(t)
	t.Logf("goroutines: %d in a new bridge, %d after the storm", total(before), total(after))
	for _, creator := range slices.Sorted(maps.Keys(after)) {
		if after[creator] > before[creator]+slack {
			t.Errorf("%d goroutines of %s, in a new bridge %d", after[creator], creator, before[creator])
		}
	}
}

func total(count map[string]int) int {
	sum := 0
	for _, n := range count {
		sum += n
	}
	return sum
}

// online waits until the bridge and its meters are.
func online(t *testing.T, live *subscriber, meters []string) {
	t.Helper()
	within(t, recovery, "the bridge and its meters are online", func() bool {
		newest := live.newest()
		return newest["kmp2mqtt/bridge/state"].Payload == "online" && !slices.ContainsFunc(meters, func(name string) bool {
			return newest["kmp2mqtt/"+name+"/availability"].Payload != "online"
		})
	})
}

// counters are the keys of a state that never fall.
func counters() map[string]string {
	return map[string]string{"energy": "energy_gj", "volume": "volume_m3", "operating_hours": "operating_hours_h"}
}

// asked are the counters of a meter as the verb read sees them just now.
func asked(t *testing.T, line string) map[string]*big.Rat {
	t.Helper()
	type answer struct {
		Registers []struct {
			Name  string
			Value json.Number
		}
	}
	var a answer
	out := output(t, "", program, append([]string{"read", "-json", line}, slices.Sorted(maps.Keys(counters()))...)...)
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	now := make(map[string]*big.Rat)
	for _, r := range a.Registers {
		now[counters()[r.Name]] = number(t, r.Value.String())
	}
	if len(now) != len(counters()) {
		t.Fatalf("read says %s", out)
	}
	return now
}

func number(t *testing.T, text string) *big.Rat {
	t.Helper()
	n, ok := new(big.Rat).SetString(text)
	if !ok {
		t.Fatalf("%q is not a number", text)
	}
	return n
}

// checkKept looks at everything that a broker keeps after a storm: it is what the meters said a moment ago, between
// what they were asked before and after, and nothing of a bridge that is no more. The bridge began at began, with
// MQTT_VALUES=true; lines are its meters'.
func checkKept(t *testing.T, b *broker, lines map[string]string, began time.Time) {
	t.Helper()
	earlier := make(map[string]map[string]*big.Rat)
	for name, line := range lines {
		earlier[name] = asked(t, line)
	}
	since := time.Now().Truncate(time.Second).Add(time.Second) // the stamps have no fractions
	var kept map[string]message
	within(t, recovery, "the broker keeps a new reading of every meter, with all of its values", func() bool {
		kept = retained(t, b.client())
		for name := range lines {
			if !whole(t, kept, name, since) {
				return false
			}
		}
		return true
	})
	for name, line := range lines {
		later, state := asked(t, line), object(t, kept["kmp2mqtt/"+name].Payload)
		for _, key := range counters() {
			if n := number(t, state[key]); n.Cmp(earlier[name][key]) < 0 || n.Cmp(later[key]) > 0 {
				t.Errorf("%s: %s is %s; the meter had %s before and %s after", name, key, state[key],
					earlier[name][key].FloatString(3), later[key].FloatString(3))
			}
		}
		if got := kept["kmp2mqtt/"+name+"/availability"].Payload; got != "online" {
			t.Errorf("availability of %s is %q", name, got)
		}
	}
	if got := kept["kmp2mqtt/bridge/state"].Payload; got != "online" {
		t.Errorf("the bridge's state is %q", got)
	}
	info := object(t, kept["kmp2mqtt/bridge/info"].Payload)
	if started, err := time.Parse(`"`+time.RFC3339+`"`, info["started"]); err != nil || started.Before(began.Truncate(time.Second)) {
		t.Errorf("the info is of a bridge that started at %s, this one began at %s", info["started"], began)
	}
}

// whole reports whether a broker keeps a meter's reading of since or later, and each of its values on a topic of its
// own as it stands there.
func whole(t *testing.T, kept map[string]message, name string, since time.Time) bool {
	t.Helper()
	if kept["kmp2mqtt/"+name].Payload == "" {
		return false
	}
	state := object(t, kept["kmp2mqtt/"+name].Payload)
	if at, err := time.Parse(`"`+time.RFC3339+`"`, state["time"]); err != nil || at.Before(since) {
		return false
	}
	for _, key := range keys403() {
		if kept["kmp2mqtt/"+name+"/"+key].Payload != strings.Trim(state[key], `"`) {
			return false
		}
	}
	return true
}

// checkRising looks at all states that a subscriber saw of a meter: its counters never fall, whichever bridge read them.
func checkRising(t *testing.T, live *subscriber, name string) {
	t.Helper()
	last := make(map[string]*big.Rat)
	for _, m := range live.all("kmp2mqtt/" + name) {
		if m.Retain == 1 {
			continue // what a broker remembers of the time before it was killed
		}
		state := object(t, m.Payload)
		for _, key := range []string{"energy_gj", "energy_fine_gj", "volume_m3", "volume_fine_m3", "operating_hours_h"} {
			if state[key] == "null" {
				continue
			}
			n := number(t, state[key])
			if last[key] != nil && n.Cmp(last[key]) < 0 {
				t.Errorf("%s: %s falls from %s: %s", name, key, last[key].FloatString(3), m.Payload)
			}
			last[key] = n
		}
	}
}
