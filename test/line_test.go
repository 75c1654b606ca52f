//go:build e2e

package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// ser2net starts a real ser2net in front of a serial device. It listens on port, for raw TCP.
func ser2net(t *testing.T, port int, device string) *process {
	t.Helper()
	return ser2netAs(t, "tcp", port, device+",1200n82,local")
}

// ser2netAs starts a real ser2net that accepts what it is told to, in front of any connector.
func ser2netAs(t *testing.T, accepter string, port int, connector string) *process {
	t.Helper()
	config := file(t, fmt.Sprintf("%%YAML 1.1\n---\nconnection: &meter\n  accepter: %s,%s,%d\n  connector: serialdev,%s\n", accepter, host, port, connector))
	p := start(t, nil, "ser2net", "-n", "-c", config, "-P", filepath.Join(t.TempDir(), "pid"))
	eventually(t, "ser2net listens", func() bool {
		if !p.running() {
			t.Fatal("ser2net has ended")
		}
		// A connection would open the device; ask the system instead.
		return strings.Contains(read(t, "/proc/net/tcp"), fmt.Sprintf(":%04X 00000000:0000 0A", port))
	})
	return p
}

// TestSer2net reads a meter behind ser2net and a paced line of 1200 baud, with the verb
// read and with the bridge. ser2net dies and comes back: readings go on by themselves.
func TestSer2net(t *testing.T) {
	t.Parallel()
	device := filepath.Join(t.TempDir(), "meter")
	simulatePTY(t, device, still("7").flags("-pace", "-echo")...)
	port := freePort(t)
	server := ser2net(t, port, device)
	line := "tcp://" + address(port)

	energy := still("7").values(t, 1)["energy_gj"]
	out := output(t, "", program, "read", line, "energy")
	if fields := strings.Fields(out); len(fields) != 4 || fields[0] != "60" || fields[1] != "energy" || !energy[fields[2]] || fields[3] != "GJ" {
		t.Errorf("read says %q", out)
	}

	b := mosquitto(t, open)
	live := subscribe(t, b.client())
	p := bridge(t, "METERS=house="+line, "READ_INTERVAL=3s", "MQTT_URL="+b.url())
	sameState(t, live.any("kmp2mqtt/house").Payload, still("7").values(t, 1))
	live.wait("kmp2mqtt/house/diagnostics", "the head's echo", func(m message) bool { return decode[diagnostics](t, m.Payload).Echo })

	server.end(t, syscall.SIGKILL)
	p.says(t, "cannot open the line")
	live.says("kmp2mqtt/house/availability", "offline")
	ser2net(t, port, device)
	p.says(t, "line is open again")
	live.more("kmp2mqtt/house", 2)
	newest := live.newest()
	if got := newest["kmp2mqtt/house/availability"].Payload; got != "online" {
		t.Errorf("availability is %s", got)
	}
	sameState(t, newest["kmp2mqtt/house"].Payload, still("7").values(t, 1))
}

// TestSocat reads through another kind of serial server.
func TestSocat(t *testing.T) {
	t.Parallel()
	device := filepath.Join(t.TempDir(), "meter")
	simulatePTY(t, device, still("8").flags()...)
	port := freePort(t)
	start(t, nil, "socat", fmt.Sprintf("TCP-LISTEN:%d,bind=%s,reuseaddr,fork", port, host), device+",raw,echo=0,b1200,cstopb=1")
	b := mosquitto(t, open)
	live := subscribe(t, b.client())
	bridge(t, "METERS=house=socket://"+address(port), "READ_INTERVAL=1s", "MQTT_URL="+b.url())
	for _, m := range live.more("kmp2mqtt/house", 2) {
		sameState(t, m.Payload, still("8").values(t, 1))
	}
}

// TestSerial reads a serial port. The port goes away, as when an adapter is unplugged, and
// comes back as another device under the same name.
func TestSerial(t *testing.T) {
	t.Parallel()
	device := filepath.Join(t.TempDir(), "meter")
	meter := simulatePTY(t, device, still("9").flags()...)
	b := mosquitto(t, open)
	live := subscribe(t, b.client())
	p := bridge(t, "METERS=house=serial://"+device, "READ_INTERVAL=1s", "MQTT_URL="+b.url())
	sameState(t, live.any("kmp2mqtt/house").Payload, still("9").values(t, 1))

	if code := meter.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("simulate ends with status %d", code)
	}
	p.says(t, "cannot open the line", "does not exist")
	live.says("kmp2mqtt/house/availability", "offline")
	simulatePTY(t, device, still("9").flags()...)
	p.says(t, "line is open again")
	live.more("kmp2mqtt/house", 2)
	sameState(t, live.newest()["kmp2mqtt/house"].Payload, still("9").values(t, 1))
}

// TestSerialLate starts the bridge before the adapter is plugged in.
func TestSerialLate(t *testing.T) {
	t.Parallel()
	device := filepath.Join(t.TempDir(), "meter")
	b := mosquitto(t, open)
	live := subscribe(t, b.client())
	p := bridge(t, "METERS=house="+device, "READ_INTERVAL=1s", "MQTT_URL="+b.url())
	p.says(t, device+": file does not exist")
	live.says("kmp2mqtt/house/availability", "offline")
	simulatePTY(t, device, still("9").flags()...)
	live.says("kmp2mqtt/house/availability", "online")
	sameState(t, live.any("kmp2mqtt/house").Payload, still("9").values(t, 1))
}

// TestDeadMeter has one of two meters dead. The other is read as if it were alone.
func TestDeadMeter(t *testing.T) {
	t.Parallel()
	_, alive := simulate(t, still("1").flags()...)
	_, dead := simulate(t, "-silence", "-serial", "2")
	b := mosquitto(t, open)
	live := subscribe(t, b.client())
	p := bridge(t, "METERS=dead="+dead+" house="+alive, "READ_INTERVAL=1s", "MQTT_VALUES=true", "MQTT_URL="+b.url())
	live.says("kmp2mqtt/dead/availability", "offline")
	live.wait("kmp2mqtt/house/diagnostics", "five readings while the other meter fails", func(m message) bool {
		return decode[diagnostics](t, m.Payload).ReadsOK >= 5
	})
	newest := live.newest()
	if d := decode[diagnostics](t, newest["kmp2mqtt/house/diagnostics"].Payload); d.ReadsFailed != 0 || d.LastError != nil {
		t.Errorf("the living meter suffers: %+v", d)
	}
	d := decode[diagnostics](t, newest["kmp2mqtt/dead/diagnostics"].Payload)
	if d.ReadsOK != 0 || d.ReadsFailed == 0 || d.LastError == nil || !strings.Contains(*d.LastError, "no reply") {
		t.Errorf("the dead meter's diagnostics are %+v", d)
	}
	if _, ok := newest["kmp2mqtt/dead"]; ok {
		t.Error("a meter that never answered has a state")
	}
	p.says(t, "meter is offline", "a button on the meter")

	// MQTT_VALUES: each value on a topic of its own, as it stands in the state.
	state, kept := object(t, newest["kmp2mqtt/house"].Payload), retained(t, b.client())
	for _, key := range keys403() {
		if got, want := kept["kmp2mqtt/house/"+key].Payload, strings.Trim(state[key], `"`); got != want {
			t.Errorf("kmp2mqtt/house/%s is %q, want %q", key, got, want)
		}
	}
}

// TestTwoAddresses has two meters on one line, told apart by their addresses.
func TestTwoAddresses(t *testing.T) {
	t.Parallel()
	_, first := simulate(t, still("1").flags("-serial", "11111111")...)
	_, second := simulate(t, still("2").flags("-serial", "22222222", "-address", "0x7F")...)
	line := "tcp://" + bus(t, first, second)
	b := mosquitto(t, open)
	live := subscribe(t, b.client())
	bridge(t, fmt.Sprintf("METERS=first=%s?address=0x3F second=%s?address=0x7F&interval=2s", line, line), "READ_INTERVAL=1s", "MQTT_URL="+b.url())
	live.more("kmp2mqtt/second", 3)
	live.more("kmp2mqtt/first", 3)
	for name, seed := range map[string]string{"first": "1", "second": "2"} {
		newest := live.newest()
		sameState(t, newest["kmp2mqtt/"+name].Payload, still(seed).values(t, 1))
		d := decode[diagnostics](t, newest["kmp2mqtt/"+name+"/diagnostics"].Payload)
		if want := strings.Repeat(seed, 8); d.Serial != want || d.ReadsFailed != 0 {
			t.Errorf("%s: diagnostics are %+v", name, d)
		}
	}
}

// bus joins meters to one line: each hears everything, and what any of them says goes to
// the client. It returns the line's address.
func bus(t *testing.T, meters ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", address(0)) //nolint:noctx // returns at once
	if err != nil {
		t.Fatal(err)
	}
	var clients sync.WaitGroup
	t.Cleanup(func() { l.Close(); clients.Wait() })
	serve := func(client net.Conn) error {
		defer client.Close()
		var all []io.Writer
		for _, m := range meters {
			meter, err := net.Dial("tcp", strings.TrimPrefix(m, "tcp://")) //nolint:noctx // on this machine
			if err != nil {
				return err
			}
			defer meter.Close()
			all = append(all, meter)
			go io.Copy(client, meter) //nolint:errcheck // ends with the connection
		}
		_, err := io.Copy(io.MultiWriter(all...), client)
		return err
	}
	clients.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			if err := serve(client); err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("bus: %v", err)
			}
		}
	})
	return l.Addr().String()
}

// TestFaults reads meters on lines that are as bad as lines are. What is published is
// always what the meter really had at some moment.
func TestFaults(t *testing.T) {
	t.Parallel()
	faults := map[string][]string{
		"echo":       {"-echo"},
		"noise":      {"-noise=0.5"},
		"stray":      {"-stray"},
		"lost":       {"-lost=0.2"},
		"corrupted":  {"-corrupted=0.2"},
		"duplicated": {"-duplicated"},
		"bytes":      {"-byte-by-byte"},
		"truncated":  {"-truncated=0.2"},
		"late":       {"-late=0.2", "-late-by=400ms"},
		"missing":    {"-missing=63,97,266"},
		"all":        {"-echo", "-noise=0.1", "-stray=0.1", "-lost=0.1", "-corrupted=0.1", "-duplicated=0.1", "-truncated=0.1"},
	}
	meters, serial := "", 0
	for name, flags := range faults {
		serial++
		_, line := simulate(t, quick("5").flags(append(flags, "-serial", fmt.Sprint(serial))...)...)
		meters += fmt.Sprintf(" %s=%s?timeout=300ms", name, line)
	}
	b := mosquitto(t, open)
	live := subscribe(t, b.client())
	bridge(t, "METERS="+meters, "READ_INTERVAL=1s", "MQTT_URL="+b.url())
	for name := range faults {
		eventually(t, "six readings of "+name, func() bool { return len(live.all("kmp2mqtt/"+name)) >= 6 })
	}
	known := quick("5").values(t, 20*120) // the first two minutes
	for name := range faults {
		states := live.all("kmp2mqtt/" + name)
		for _, m := range states {
			members := object(t, m.Payload)
			if name != "missing" && len(members) != members403() {
				t.Errorf("%s: keys are wrong: %s", name, m.Payload)
			}
			for key, value := range members {
				if key != "time" && !slices.Contains(derived403(), key) && !known[key][value] {
					t.Errorf("%s: %s is %s, which the meter never said", name, key, value)
				}
			}
		}
		if first, last := states[0].Payload, states[len(states)-1].Payload; object(t, first)["volume_m3"] == object(t, last)["volume_m3"] {
			t.Errorf("%s: nothing has changed from %s to %s", name, first, last)
		}
	}
	newest := live.newest()
	for name, key := range map[string]string{
		"cooling_energy": "cooling_energy_gj", "energy_high_resolution": "energy_high_resolution_wh",
		"volume_x_supply_temperature": "volume_x_supply_temperature_m3c",
	} {
		for topic, m := range newest {
			if strings.Contains(m.Payload, `"kmp2mqtt/missing"`) && strings.Contains(m.Payload, `"`+name+`":`) {
				t.Errorf("%s announces %s, which the meter does not have", topic, name)
			}
		}
		if _, ok := object(t, newest["kmp2mqtt/missing"].Payload)[key]; ok {
			t.Errorf("the state has %s, which the meter does not have", key)
		}
	}
	for name, echo := range map[string]bool{"echo": true, "duplicated": false, "noise": false} {
		if d := decode[diagnostics](t, newest["kmp2mqtt/"+name+"/diagnostics"].Payload); d.Echo != echo {
			t.Errorf("%s: diagnostics are %+v", name, d)
		}
	}
}

// TestSerialShared has two programs want one serial port. The second says so.
func TestSerialShared(t *testing.T) {
	t.Parallel()
	device := filepath.Join(t.TempDir(), "meter")
	simulatePTY(t, device, still("9").flags()...)
	b := mosquitto(t, open)
	live := subscribe(t, b.client())
	bridge(t, "METERS=house="+device, "MQTT_URL="+b.url())
	live.any("kmp2mqtt/house")
	p := start(t, nil, program, "read", device)
	if code := p.status(t); code != 1 || !strings.Contains(p.log.String(), "in use") || p.out.String() != "" {
		t.Errorf("read ends with status %d: %s%s", code, p.out, p.log)
	}
}
