//go:build e2e

package test

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestBuiltInBroker reads from the broker that the bridge brings along.
func TestBuiltInBroker(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	p := bridge(t, "METERS=house="+still("7").line(), "MQTT_LISTEN="+address(port))
	listens(t, port, p)
	client := clientOptions(port)
	live := subscribe(t, client)
	sameState(t, live.any("kmp2mqtt/house").Payload, still("7").values(t, 1))
	live.says("kmp2mqtt/house/availability", "online")
	kept := retained(t, client)
	if m := kept["kmp2mqtt/bridge/state"]; m.Payload != "online" || m.QoS != 1 {
		t.Errorf("the bridge's state is %+v", m)
	}
	if a := ask(t, client, live, "kmp2mqtt/house/get", "", "kmp2mqtt/house/response"); a.Status != "ok" {
		t.Errorf("get: %+v", a)
	}

	// A second program of the same kind has to listen elsewhere, and says so.
	second := bridge(t, "METERS=house=sim://403", "MQTT_LISTEN="+address(port))
	if code := second.status(t); code != 1 {
		t.Errorf("a bridge without a port ends with status %d", code)
	}
	second.says(t, "the port is in use", "MQTT_LISTEN", "MQTT_URL")

	stopped(t, p, syscall.SIGTERM)
}

// TestBuiltInBrokerOpen has the built-in broker listen beyond this machine: never without
// a password.
func TestBuiltInBrokerOpen(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	listen := fmt.Sprintf("MQTT_LISTEN=0.0.0.0:%d", port)
	p := bridge(t, "METERS=house=sim://403", listen)
	if code := p.status(t); code != 2 {
		t.Errorf("an open broker ends with status %d", code)
	}
	p.says(t, "MQTT_LISTEN", "MQTT_USERNAME", "MQTT_PASSWORD")

	p = bridge(t, "METERS=house="+still("7").line(), listen, "MQTT_USERNAME=meters", "MQTT_PASSWORD=s3cret")
	listens(t, port, p)
	live := subscribe(t, append(clientOptions(port), "-u", "meters", "-P", "s3cret"))
	live.any("kmp2mqtt/house")
	for _, login := range [][]string{{}, {"-u", "meters", "-P", "wrong"}} {
		stranger := start(t, nil, "mosquitto_sub", append(clientOptions(port), append(login, "-t", "#")...)...)
		if code := stranger.status(t); code == 0 || stranger.out.String() != "" {
			t.Errorf("login %v: mosquitto_sub ends with status %d: %s", login, code, stranger.out)
		}
	}
	stopped(t, p, syscall.SIGTERM)
}

// stopped ends a bridge as service managers do, or a terminal, and says how long that took.
func stopped(t *testing.T, p *process, signal syscall.Signal) {
	t.Helper()
	began := time.Now()
	code := p.end(t, signal)
	took := time.Since(began)
	t.Logf("stopped %v after the signal; the promise is 2 s", took.Round(time.Millisecond))
	if code != 0 || took > 10*time.Second {
		t.Errorf("status %d after %v", code, took)
	}
}

// TestStop ends a bridge with one meter read and one silent. Whoever looks at the broker
// afterwards finds all of them offline.
func TestStop(t *testing.T) {
	t.Parallel()
	_, dead := simulate(t, "-silence")
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			b := mosquitto(t, open)
			live := subscribe(t, b.client())
			p := bridge(t, "METERS=house="+still("7").line()+" dead="+dead, "READ_INTERVAL=1s", "MQTT_URL="+b.url())
			live.says("kmp2mqtt/house/availability", "online")
			live.says("kmp2mqtt/dead/availability", "offline")
			stopped(t, p, signal)
			kept := retained(t, b.client())
			for _, topic := range []string{"kmp2mqtt/bridge/state", "kmp2mqtt/house/availability", "kmp2mqtt/dead/availability"} {
				if kept[topic].Payload != "offline" {
					t.Errorf("%s is %q", topic, kept[topic].Payload)
				}
			}
			if kept["kmp2mqtt/house"].Payload == "" {
				t.Error("the last values are gone")
			}
			if strings.Contains(p.log.String(), "ERR") {
				t.Error("errors in the log")
			}
		})
	}
}

// TestStopWithoutBroker ends bridges whose broker is gone, or hangs.
func TestStopWithoutBroker(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]syscall.Signal{"gone": syscall.SIGKILL, "hanging": syscall.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := mosquitto(t, open)
			p := bridge(t, "METERS=house="+still("7").line(), "READ_INTERVAL=1s", "LOG_LEVEL=debug", "MQTT_URL="+b.url())
			p.says(t, "MQTT connected")
			b.signal(t, s)
			reads(t, p, 2)
			stopped(t, p, syscall.SIGTERM)
		})
	}
}

// TestKilled kills the bridge. The broker publishes its last will, and a new bridge takes
// over what is there.
func TestKilled(t *testing.T) {
	t.Parallel()
	b := mosquitto(t, open)
	live := subscribe(t, b.client())
	settings := []string{"METERS=house=" + still("7").line(), "MQTT_URL=" + b.url()}
	p := bridge(t, settings...)
	live.any("kmp2mqtt/house")
	p.end(t, syscall.SIGKILL)
	live.says("kmp2mqtt/bridge/state", "offline")
	if got := retained(t, b.client())["kmp2mqtt/bridge/state"].Payload; got != "offline" {
		t.Errorf("the bridge's state is %q", got)
	}
	bridge(t, settings...)
	live.more("kmp2mqtt/house", 1)
	eventually(t, "online again", func() bool { return live.newest()["kmp2mqtt/bridge/state"].Payload == "online" })
}

// TestDemo runs the demo as a newcomer does who has a broker on port 1883 already, and
// then each of the commands that it proposes.
func TestDemo(t *testing.T) {
	t.Parallel()
	if l, err := net.Listen("tcp", address(1883)); err == nil { //nolint:noctx // returns at once
		t.Cleanup(func() { l.Close() })
	} // else somebody has it already, which does as well
	p := start(t, nil, program, "demo")
	command := regexp.MustCompile(`mosquitto_(sub|pub) -h \S+ -p (\d+) .*?( {2,}|\n)`)
	var proposed []string
	eventually(t, "the demo says what to try", func() bool {
		proposed = command.FindAllString(p.out.String(), -1)
		return strings.Contains(p.out.String(), "Ctrl-C") && len(proposed) >= 4
	})
	var port int
	if _, err := fmt.Sscan(command.FindStringSubmatch(p.out.String())[2], &port); err != nil || port == 1883 {
		t.Fatalf("port %d: %v", port, err)
	}
	listens(t, port, p)
	live := subscribe(t, clientOptions(port))
	first := live.any("kmp2mqtt/house")
	if members := object(t, first.Payload); len(members) != members403() || members["energy_gj"] == "null" {
		t.Errorf("the state is %s", first.Payload)
	}
	eventually(t, "the demo prints what it reads", func() bool { return strings.Contains(p.out.String(), "\nkmp2mqtt/house {") })
	for _, line := range proposed {
		line = strings.TrimSpace(line)
		if strings.Contains(line, "mosquitto_sub") {
			if out := output(t, "", "sh", "-c", line+" -C 3"); !strings.Contains(out, "kmp2mqtt/") {
				t.Errorf("%s: %q", line, out)
			}
			continue
		}
		before := len(live.all("kmp2mqtt/house/response"))
		output(t, "", "sh", "-c", line)
		eventually(t, "an answer to "+line, func() bool { return len(live.all("kmp2mqtt/house/response")) > before })
		if a := decode[answer](t, live.all("kmp2mqtt/house/response")[before].Payload); a.Status != "ok" {
			t.Errorf("%s: %+v", line, a)
		}
	}
	states := live.more("kmp2mqtt/house", 2)
	if slices.IndexFunc(states, func(m message) bool {
		return object(t, m.Payload)["volume_m3"] != object(t, first.Payload)["volume_m3"]
	}) < 0 {
		t.Error("nothing happens in the house")
	}
	stopped(t, p, syscall.SIGTERM)
}
