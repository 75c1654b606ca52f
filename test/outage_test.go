//go:build e2e

package test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// unlimited lets a meter be read as often as a storm needs it: an option of its line.
const unlimited = "&budget=0"

// lines is a set of meters, each on a line of its own that can be disturbed, and one that is left in peace.
type lines struct {
	meters  string // METERS
	names   []string
	disturb []func(t *testing.T) // each begins an outage
	mend    []func(t *testing.T) // each ends one
	lines   map[string]string    // those that the test can ask itself, past what is disturbed
}

func newLines(t *testing.T) *lines {
	t.Helper()
	l := &lines{lines: make(map[string]string)}
	l.add("calm", l.simulated(t, "calm"))
	for name, w := range map[string]weather{"slow": slow, "cut": cutting, "reset": jolting, "half_open": mute} {
		p, line := newProxy(t, l.simulated(t, name))
		l.add(name, line)
		l.disturb = append(l.disturb, func(*testing.T) { p.turn(w) })
		l.mend = append(l.mend, func(*testing.T) { p.turn(fair) })
	}
	l.addSerialServer(t)
	l.addAdapter(t)
	return l
}

func (l *lines) simulated(t *testing.T, name string) string {
	t.Helper()
	_, line := simulate(t, quick("6").flags("-serial", fmt.Sprint(100+len(l.names)))...)
	l.lines[name] = line
	return line
}

func (l *lines) add(name, line string) {
	l.names = append(l.names, name)
	l.meters += fmt.Sprintf(" %s=%s?timeout=500ms%s", name, line, unlimited)
}

// addSerialServer adds a meter behind a ser2net that is killed and started again.
func (l *lines) addSerialServer(t *testing.T) {
	t.Helper()
	device := filepath.Join(t.TempDir(), "meter")
	simulatePTY(t, device, quick("6").flags("-serial", "201")...)
	port := freePort(t)
	server := ser2net(t, port, device)
	l.add("ser2net", "tcp://"+address(port))
	l.disturb = append(l.disturb, func(t *testing.T) { t.Helper(); server.end(t, syscall.SIGKILL) })
	l.mend = append(l.mend, func(t *testing.T) { t.Helper(); server = ser2net(t, port, device) })
}

// addAdapter adds a meter on a device that is unplugged and comes back as another one under the same name, as in
// /dev/serial/by-id.
func (l *lines) addAdapter(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join(dir, "usb-FTDI_FT232R_USB_UART_A50285BI-if00-port0")
	device := filepath.Join(dir, "ttyUSB0")
	if err := os.Symlink("ttyUSB0", name); err != nil {
		t.Fatal(err)
	}
	alike := still("6").flags("-serial", "202") // a new life says what the one before said
	meter := simulatePTY(t, device, alike...)
	l.add("adapter", "serial://"+name)
	l.disturb = append(l.disturb, func(t *testing.T) {
		t.Helper()
		if code := meter.end(t, syscall.SIGTERM); code != 0 {
			t.Errorf("simulate ends with status %d", code)
		}
		simulatePTY(t, filepath.Join(dir, "other"), "-serial", "203") // takes the number
	})
	l.mend = append(l.mend, func(t *testing.T) {
		t.Helper()
		meter = simulatePTY(t, device, alike...)
	})
}

// failed is how many readings of a meter have failed so far.
func failed(t *testing.T, live *subscriber, name string) int {
	t.Helper()
	return counted(t, live, name, "reads_failed")
}

// good is how many have not.
func good(t *testing.T, live *subscriber, name string) int {
	t.Helper()
	return counted(t, live, name, "reads_ok")
}

func counted(t *testing.T, live *subscriber, name, member string) int {
	t.Helper()
	list := live.all("kmp2mqtt/" + name + "/diagnostics")
	if len(list) == 0 {
		return 0
	}
	n := 0
	if _, err := fmt.Sscan(object(t, list[len(list)-1].Payload)[member], &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestStormLines disturbs lines in every way that lines know, again and again. Reading goes on by itself each time, the
// line that is left in peace notices nothing, and nothing is leaked.
func TestStormLines(t *testing.T) {
	t.Parallel()
	l := newLines(t)
	b := mosquitto(t, open)
	live := subscribe(t, b.client(), "kmp2mqtt/#")
	p := bridge(t, "METERS="+l.meters, "READ_INTERVAL=2s", "MQTT_VALUES=true", "DATA_DIR="+t.TempDir(), "MQTT_URL="+b.url())
	began := time.Now()
	online(t, live, l.names)
	before := p.resources(t)
	for range rounds(2, 30) {
		last := make(map[string]int)
		for _, name := range l.names {
			last[name] = failed(t, live, name)
		}
		for _, disturb := range l.disturb {
			disturb(t)
		}
		for _, name := range l.names {
			if name != "calm" && name != "slow" { // it learns to wait for a slow one
				eventually(t, "readings of "+name+" fail", func() bool { return failed(t, live, name) > last[name] })
			}
		}
		if *soak {
			pause(20 * time.Second)
		}
		for _, mend := range l.mend {
			mend(t)
		}
		mended := time.Now()
		for _, name := range l.names {
			last[name] = good(t, live, name)
		}
		for _, name := range l.names {
			within(t, recovery, name+" is read again", func() bool { return good(t, live, name) >= last[name]+2 })
		}
		t.Logf("all lines are well again after %v", time.Since(mended).Round(time.Second))
	}
	online(t, live, l.names)
	if n := failed(t, live, "calm"); n != 0 {
		t.Errorf("%d readings failed of the meter whose line was left in peace", n)
	}
	checkKept(t, b, l.lines, began)
	for _, name := range l.names {
		checkRising(t, live, name)
	}
	p.keeps(t, before)
	sameGoroutines(t, b, live, p, l.names)
}

// TestLinesLate starts a bridge whose lines are all disturbed. Its meters are read seldom, so what brings them back is
// not the schedule but that failed readings are tried again.
func TestLinesLate(t *testing.T) {
	t.Parallel()
	l := newLines(t)
	b := mosquitto(t, open)
	live := subscribe(t, b.client(), "kmp2mqtt/#")
	for _, disturb := range l.disturb {
		disturb(t)
	}
	bridge(t, "METERS="+l.meters, "READ_INTERVAL=168h", "MQTT_URL="+b.url())
	disturbed := slices.DeleteFunc(slices.Clone(l.names), func(name string) bool { return name == "calm" || name == "slow" })
	for _, name := range disturbed {
		within(t, recovery, "readings of "+name+" fail twice", func() bool { return failed(t, live, name) >= 2 })
		if n := good(t, live, name); n != 0 {
			t.Errorf("%d readings of %s while its line is disturbed", n, name)
		}
	}
	if *soak {
		time.Sleep(5 * time.Minute) // an outage that nobody mends for a while
	}
	for _, mend := range l.mend {
		mend(t)
	}
	online(t, live, l.names)
}

// TestStormBroker kills a broker every few seconds while meters are read every second. It comes back with what it
// kept, or with nothing. In the end it has all that is true, and nothing else.
func TestStormBroker(t *testing.T) {
	t.Parallel()
	store := t.TempDir()
	b := mosquitto(t, open, "persistence true", "persistence_location "+store+"/", "autosave_on_changes true", "autosave_interval 1")
	meters, at := "", make(map[string]string)
	for i := range 4 {
		name := fmt.Sprintf("meter%d", i)
		_, at[name] = simulate(t, quick("3").flags("-serial", fmt.Sprint(301+i))...)
		meters += fmt.Sprintf(" %s=%s?interval=1s%s", name, at[name], unlimited)
	}
	names := slices.Sorted(maps.Keys(at))
	live := subscribe(t, b.client(), "kmp2mqtt/#")
	p := bridge(t, "METERS="+meters, "MQTT_VALUES=true", "DATA_DIR="+t.TempDir(), "LOG_LEVEL=debug", "MQTT_URL="+b.url())
	began := time.Now()
	online(t, live, names)
	before := p.resources(t)
	for round := range rounds(5, 100) {
		pause(4 * time.Second)
		b.kill()
		if round%2 == 1 {
			kept := filepath.Join(store, "mosquitto.db")
			if err := os.Remove(kept); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
		if *soak {
			pause(4 * time.Second)
		}
		reads(t, p, 1) // the meters are read whatever the broker does
		b.start()
	}
	restarted := time.Now()
	within(t, recovery, "the bridge is back", func() bool { return retained(t, b.client())["kmp2mqtt/bridge/state"].Payload == "online" })
	t.Logf("the bridge is back after %v", time.Since(restarted).Round(time.Second))
	online(t, live, names)
	checkKept(t, b, at, began)
	for _, name := range names {
		if n := failed(t, live, name); n != 0 {
			t.Errorf("%d readings of %s failed", n, name)
		}
		checkRising(t, live, name)
		live.more("kmp2mqtt/"+name, 2)
	}
	p.keeps(t, before)
	sameGoroutines(t, b, live, p, names)
}

// TestStormKills kills the bridge again and again at moments that nobody can foresee. The last one finds its data
// sound, and puts everything right that those before left behind.
func TestStormKills(t *testing.T) {
	t.Parallel()
	b := mosquitto(t, open)
	meters, at := "", make(map[string]string)
	for i := range 3 {
		name := fmt.Sprintf("meter%d", i)
		_, at[name] = simulate(t, quick("4").flags("-serial", fmt.Sprint(401+i))...)
		meters += fmt.Sprintf(" %s=%s?interval=1s%s", name, at[name], unlimited)
	}
	names := slices.Sorted(maps.Keys(at))
	live := subscribe(t, b.client(), "kmp2mqtt/#")
	data := filepath.Join(t.TempDir(), "data")
	settings := []string{"METERS=" + meters, "MQTT_VALUES=true", "DATA_DIR=" + data, "MQTT_URL=" + b.url()}
	// Most lives are short; one in five is long enough to see values and to keep something.
	for round := range rounds(10, 50) {
		p := bridge(t, settings...)
		pause(2 * time.Second)
		if round%5 == 4 {
			online(t, live, names)
			if *soak {
				pause(25 * time.Second)
			}
		}
		p.end(t, syscall.SIGKILL)
		if log := p.log.String(); strings.Contains(log, "ERR") || strings.Contains(log, "damaged") {
			t.Errorf("life %d begins badly:\n%s", round, p.log.tail())
		}
		sound(t, data)
	}
	began := time.Now()
	p := bridge(t, settings...)
	online(t, live, names)
	checkKept(t, b, at, began)
	for _, name := range names {
		live.more("kmp2mqtt/"+name, 2)
		checkRising(t, live, name)
	}
	kept := retained(t, b.client())
	for _, topic := range []string{"kmp2mqtt/bridge/state", "kmp2mqtt/meter0/availability", "kmp2mqtt/meter1/availability", "kmp2mqtt/meter2/availability"} {
		if kept[topic].Payload != "online" {
			t.Errorf("%s is %q", topic, kept[topic].Payload)
		}
	}
	stopped(t, p, syscall.SIGTERM)
	sound(t, data)
	if kept := read(t, filepath.Join(data, "kmp2mqtt.json")); !strings.Contains(kept, "401") {
		t.Errorf("nothing is kept of the meters: %.300s", kept)
	}
}

// sound checks that what a bridge left in its DATA_DIR is whole, and no heap of files: what it keeps, what it was just
// writing, and its lock.
func sound(t *testing.T, data string) {
	t.Helper()
	list, err := os.ReadDir(data)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if len(list) > 4 { // the two that are kept, the lock, and one that a kill has left behind
		t.Errorf("%d files are in %s: %v", len(list), data, list)
	}
	for _, entry := range list {
		if name := entry.Name(); filepath.Ext(name) == ".json" && !json.Valid([]byte(read(t, filepath.Join(data, name)))) {
			t.Errorf("%s is damaged", name)
		}
	}
}
