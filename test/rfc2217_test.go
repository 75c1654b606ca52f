//go:build e2e

package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"kmp2mqtt/kmp/link"
)

// rfc2217 starts a real ser2net whose port the client sets. Until then it has 9600 baud, 8N1.
func rfc2217(t *testing.T, port int, device string) *process {
	t.Helper()
	return ser2netAs(t, "telnet(rfc2217),tcp", port, device+",9600n81,local")
}

// termios says how a serial device is set. A pseudo terminal takes any speed and stop bits, but no parity.
func termios(t *testing.T, device string) string {
	t.Helper()
	f, err := os.OpenFile(device, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tio, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	speed := map[uint32]string{unix.B1200: "1200", unix.B2400: "2400", unix.B9600: "9600"}[tio.Cflag&unix.CBAUD]
	switch tio.Cflag & (unix.CSIZE | unix.PARENB | unix.CSTOPB) {
	case unix.CS8:
		return speed + " 8N1"
	case unix.CS8 | unix.CSTOPB:
		return speed + " 8N2"
	}
	return fmt.Sprintf("%s, flags %#x", speed, tio.Cflag)
}

// TestRFC2217 has the port behind ser2net set by the line's options, and reads a meter there, with the verb read and
// with the bridge. ser2net dies and comes back.
func TestRFC2217(t *testing.T) {
	t.Parallel()
	device := filepath.Join(t.TempDir(), "meter")
	simulatePTY(t, device, still("7").flags("-echo")...)
	port := freePort(t)
	server := rfc2217(t, port, device)
	line := "rfc2217://" + address(port)

	for query, want := range map[string]string{
		"?baud=1200&stopbits=2":                        "1200 8N2",
		"?baud=2400&databits=8&parity=none&stopbits=1": "2400 8N1",
		"": "1200 8N2",
	} {
		target, err := link.Parse(line + query)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := link.Open(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		if got := termios(t, device); got != want { // ser2net puts back what it found when we leave
			t.Errorf("with %q the port is at %s, want %s", query, got, want)
		}
		if err := opened.Close(); err != nil {
			t.Error(err)
		}
	}

	energy := still("7").values(t, 1)["energy_gj"]
	out := output(t, "", program, "read", line, "energy")
	if fields := strings.Fields(out); len(fields) != 4 || fields[1] != "energy" || !energy[fields[2]] {
		t.Errorf("read says %q", out)
	}

	b := mosquitto(t, open)
	live := subscribe(t, b.client())
	p := bridge(t, "METERS=house="+line, "READ_INTERVAL=1s", "MQTT_URL="+b.url())
	sameState(t, live.any("kmp2mqtt/house").Payload, still("7").values(t, 1))
	server.end(t, syscall.SIGKILL)
	p.says(t, "cannot open the line")
	live.says("kmp2mqtt/house/availability", "offline")
	rfc2217(t, port, device)
	p.says(t, "line is open again")
	live.more("kmp2mqtt/house", 2)
	if got := termios(t, device); got != "1200 8N2" {
		t.Errorf("the port is at %s", got)
	}
	sameState(t, live.newest()["kmp2mqtt/house"].Payload, still("7").values(t, 1))
}

// TestRFC2217Unfit opens ports that cannot be set: a raw one, and wires that a pseudo terminal does not have.
func TestRFC2217Unfit(t *testing.T) {
	t.Parallel()
	device := filepath.Join(t.TempDir(), "meter")
	simulatePTY(t, device, still("7").flags("-echo")...)
	raw, port := freePort(t), freePort(t)
	ser2net(t, raw, device)
	rfc2217(t, port, device)
	for line, want := range map[string]string{
		"rfc2217://" + address(raw):               "use tcp://" + address(raw),
		"rfc2217://" + address(port) + "?dtr=on":  "dtr",
		"rfc2217://u:secret@" + address(port):     "no user and password",
		"rfc2217://" + address(port) + "?baud=up": "baud",
	} {
		p := start(t, nil, program, "read", line, "energy")
		if code := p.status(t); code == 0 || !strings.Contains(p.log.String(), want) || strings.Contains(p.log.String(), "secret") {
			t.Errorf("read %s ends with status %d: %s", line, code, p.log)
		}
	}
}
