package link

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func serialTarget(device string, change func(*Target)) Target {
	t := Target{Scheme: SchemeSerial, Device: device, Baud: 1200, DataBits: 8, Parity: ParityNone, StopBits: 2}
	if change != nil {
		change(&t)
	}
	return t
}

func tcpTarget(host string, port uint16, change func(*Target)) Target {
	t := Target{Scheme: SchemeTCP, Host: host, Port: port, Baud: 1200, DataBits: 8, Parity: ParityNone, StopBits: 2}
	if change != nil {
		change(&t)
	}
	return t
}

func usbTarget(ids, serial string, change func(*Target)) Target {
	t := Target{Scheme: SchemeUSB, USB: ids, Serial: serial, Baud: 1200, DataBits: 8, Parity: ParityNone, StopBits: 2}
	if change != nil {
		change(&t)
	}
	return t
}

func TestParse(t *testing.T) {
	tests := []struct {
		goos, raw, canonical string
		want                 Target
	}{
		{"linux", "/dev/ttyUSB0", "/dev/ttyUSB0", serialTarget("/dev/ttyUSB0", nil)},
		{"linux", "serial:///dev/ttyUSB0", "/dev/ttyUSB0", serialTarget("/dev/ttyUSB0", nil)},
		{"linux", "SERIAL:///dev//./ttyUSB0/?", "/dev/ttyUSB0", serialTarget("/dev/ttyUSB0", nil)},
		{
			"linux", "serial:///dev/serial/by-id/usb-FTDI_FT232R_USB_UART_A9-if00-port0", "/dev/serial/by-id/usb-FTDI_FT232R_USB_UART_A9-if00-port0",
			serialTarget("/dev/serial/by-id/usb-FTDI_FT232R_USB_UART_A9-if00-port0", nil),
		},
		{"linux", "/dev/a%20b%3Fc%23d%25", "/dev/a%20b%3Fc%23d%25", serialTarget("/dev/a b?c#d%", nil)},
		{
			"linux", "/dev/ttyUSB0?baud=1200&databits=8&parity=none&stopbits=2", "/dev/ttyUSB0",
			serialTarget("/dev/ttyUSB0", nil),
		},
		{
			"linux", "/dev/ttyUSB0?stopbits=1&rts=off&baud=9600&dtr=on&databits=7&parity=E", "/dev/ttyUSB0?baud=9600&databits=7&parity=even&stopbits=1&dtr=on&rts=off",
			serialTarget("/dev/ttyUSB0", func(t *Target) {
				t.Baud, t.DataBits, t.Parity, t.StopBits, t.DTR, t.RTS = 9600, 7, ParityEven, 1, On, Off
			}),
		},
		{"linux", "/dev/x?parity=O", "/dev/x?parity=odd", serialTarget("/dev/x", func(t *Target) { t.Parity = ParityOdd })},
		{"linux", "/dev/x?parity=mark", "/dev/x?parity=mark", serialTarget("/dev/x", func(t *Target) { t.Parity = ParityMark })},
		{"linux", "/dev/x?parity=S", "/dev/x?parity=space", serialTarget("/dev/x", func(t *Target) { t.Parity = ParitySpace })},
		{"linux", "/dev/x?parity=n", "/dev/x", serialTarget("/dev/x", nil)},
		{"linux", "/dev/x?warmup=1500ms&rts=off", "/dev/x?rts=off&warmup=1.5s", serialTarget("/dev/x", func(t *Target) { t.RTS, t.Warmup = Off, 1500*time.Millisecond })},
		{"linux", "/dev/x?warmup=0s", "/dev/x", serialTarget("/dev/x", nil)},
		{"linux", "rfc2217://h:1?warmup=30s", "rfc2217://h:1?warmup=30s", tcpTarget("h", 1, func(t *Target) { t.Scheme, t.Warmup = SchemeRFC2217, 30*time.Second })},
		{"linux", "usb://10C4:EA60", "usb://10c4:ea60", usbTarget("10c4:ea60", "", nil)},
		{"linux", "USB://10c4:ea60/", "usb://10c4:ea60", usbTarget("10c4:ea60", "", nil)},
		{"linux", "usb://0403:6001/A9%20b%2Fc?dtr=on&warmup=2s", "usb://0403:6001/A9%20b%2Fc?dtr=on&warmup=2s", usbTarget("0403:6001", "A9 b/c", func(t *Target) {
			t.DTR, t.Warmup = On, 2*time.Second
		})},
		{"windows", "COM3", "COM3", serialTarget("COM3", nil)},
		{"windows", "serial://com12?baud=2400", "COM12?baud=2400", serialTarget("COM12", func(t *Target) { t.Baud = 2400 })},
		{"windows", `\\.\COM12`, "COM12", serialTarget("COM12", nil)},
		{"windows", "COM3?stopbits=1.5&databits=5", "COM3?databits=5&stopbits=1.5", serialTarget("COM3", func(t *Target) { t.StopBits, t.DataBits = 1.5, 5 })},
		{"linux", "tcp://10.0.0.7:2000", "tcp://10.0.0.7:2000", tcpTarget("10.0.0.7", 2000, nil)},
		{"linux", "socket://Cellar.Local:02000/", "tcp://cellar.local:2000", tcpTarget("cellar.local", 2000, nil)},
		{"linux", "tcp://[FD00:0::7]:2000", "tcp://[fd00::7]:2000", tcpTarget("fd00::7", 2000, nil)},
		{"linux", "tcp://[fe80::1%25eth0]:2000", "tcp://[fe80::1%25eth0]:2000", tcpTarget("fe80::1%eth0", 2000, nil)},
		{
			"linux", "tcp://h:1?baud=2400&stopbits=1.5&parity=even", "tcp://h:1?baud=2400&parity=even&stopbits=1.5",
			tcpTarget("h", 1, func(t *Target) { t.Baud, t.StopBits, t.Parity = 2400, 1.5, ParityEven }),
		},
		{"linux", "rfc2217://Cellar:2217/", "rfc2217://cellar:2217", tcpTarget("cellar", 2217, func(t *Target) { t.Scheme = SchemeRFC2217 })},
		{
			"linux", "RFC2217://[fe80::1%25eth0]:1?rts=off&dtr=on&baud=9600&stopbits=1.5", "rfc2217://[fe80::1%25eth0]:1?baud=9600&stopbits=1.5&dtr=on&rts=off",
			tcpTarget("fe80::1%eth0", 1, func(t *Target) {
				t.Scheme, t.Baud, t.StopBits, t.DTR, t.RTS = SchemeRFC2217, 9600, 1.5, On, Off
			}),
		},
	}
	for _, tt := range tests {
		t.Run(tt.raw, func(t *testing.T) {
			got, err := parse(tt.raw, tt.goos)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("parse (-want +got):\n%s", diff)
			}
			if got.String() != tt.canonical {
				t.Errorf("String() = %q, want %q", got.String(), tt.canonical)
			}
			again, err := parse(got.String(), tt.goos)
			if err != nil || again != got {
				t.Errorf("parse(String()) = %+v, %v; want the same target", again, err)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	tests := []struct {
		goos, raw string
		want      []string // all in the message
	}{
		{"linux", "", []string{"is empty", "sim://403"}},
		{"linux", "ttyUSB0", []string{"did you mean /dev/ttyUSB0?"}},
		{"linux", "serial://dev/ttyUSB0", []string{"did you mean /dev/ttyUSB0?"}},
		{"linux", "meter", []string{"neither a URL nor an absolute path"}},
		{"linux", "serial://", []string{"names no device"}},
		{"linux", "/", []string{"names no device"}},
		{"linux", "/dev/tty%zz", []string{"bad escape"}},
		{"linux", "/dev/tty%00", []string{"control character"}},
		{"linux", "/dev/tty#1", []string{"%23"}},
		{"linux", "COM3", []string{"serial port of Windows", "/dev/ttyUSB0"}},
		{"windows", "/dev/ttyUSB0", []string{"COM1"}},
		{"windows", "COM0", []string{"COM1"}},
		{"linux", "usb://", []string{"VID:PID", "usb://10c4:ea60"}},
		{"linux", "usb://10c4", []string{"VID:PID", "usb://10c4:ea60"}},
		{"linux", "usb://0x10c4:0xea60", []string{`"0x10c4:0xea60"`, "usb://10c4:ea60"}},
		{"linux", "usb://10c4:ea6g/1", []string{`"10c4:ea6g"`, "lsusb"}},
		{"linux", "usb://10c4:ea60/%zz", []string{"bad escape", "serial number"}},
		{"linux", "usb://10c4:ea60/%0a", []string{"control character"}},
		{"linux", "usb://10c4:ea60?stopbits=1.5", []string{"1.5 stop bits"}},
		{"darwin", "usb://10c4:ea60", []string{"on Linux only", "/dev/cu.usbserial-1"}},
		{"windows", "usb://10c4:ea60", []string{"on Linux only", "COM3"}},
		{"linux", "/dev/x?warmup=31s", []string{`warmup "31s"`, "0s to 30s", "warmup=2s"}},
		{"linux", "/dev/x?warmup=-1s", []string{`warmup "-1s"`}},
		{"linux", "/dev/x?warmup=2", []string{`warmup "2"`, "warmup=2s"}},
		{"linux", "tcp://h:1?warmup=2s", []string{"warmup is not for raw TCP", "rfc2217://"}},
		{"linux", "serail:///dev/ttyUSB0", []string{`"serail://"`, "did you mean serial://?"}},
		{"linux", "http://x", []string{`"http://"`, "tcp://host:port"}},
		{"linux", "rfc2217://server", []string{"has no port", "rfc2217://server:port"}},
		{"linux", "rfc2217://", []string{"names no host", "rfc2217://host:port"}},
		{"linux", "rfc2217://:2217", []string{"names no host", "rfc2217://host:port"}},
		{"linux", "rfc2217://a:b:c", []string{"brackets", "rfc2217://[fd00::7]"}},
		{"linux", "rfc2217://me:secret@host:1", []string{"no user and password", "rfc2217://host:1", "xxxxx@host:1"}},
		{"linux", "rfc2217://host:1/path", []string{"no path"}},
		{"linux", "rfc2217://host:1?rts=maybe", []string{`rts "maybe" is not on or off`}},
		{"linux", "rfc2271://host:1", []string{"did you mean rfc2217://?"}},
		{"linux", "tcp://", []string{"names no host"}},
		{"linux", "tcp://:2000", []string{"names no host"}},
		{"linux", "tcp://host", []string{"has no port", "tcp://host:port"}},
		{"linux", "tcp://host:", []string{"has no port"}},
		{"linux", "tcp://[fd00::7]", []string{"has no port", "tcp://[fd00::7]:port"}},
		{"linux", "tcp://fd00::7", []string{"has no port", "tcp://[fd00::7]:port"}},
		{"linux", "tcp://a:b:c", []string{"IPv6", "brackets"}},
		{"linux", "tcp://[10.0.0.7]:2000", []string{"not an IPv6 address"}},
		{"linux", "tcp://host:0", []string{`port "0"`, "1 to 65535"}},
		{"linux", "tcp://host:65536", []string{`port "65536"`}},
		{"linux", "tcp://host:http", []string{`port "http"`}},
		{"linux", "tcp://ho st:1", []string{"not a host's name"}},
		{"linux", "tcp://host:1/path", []string{"no path", `"/path"`}},
		{"linux", "tcp://me:secret@host:1", []string{"no user and password", "xxxxx@host:1"}},
		{"linux", "tcp://host:1?dtr=on", []string{"dtr", "serial server"}},
		{"linux", "/dev/x?buad=1200", []string{`unknown option "buad" (did you mean baud?)`, "baud, databits, parity, stopbits, dtr, rts"}},
		{"linux", "/dev/x?stopbit=1", []string{"did you mean stopbits?"}},
		{"linux", "/dev/x?Parity=none", []string{"did you mean parity?"}},
		{"linux", "/dev/x?interval=10m", []string{`unknown option "interval";`}},
		{"linux", "/dev/x?baud=1200&baud=2400", []string{"baud is given 2 times"}},
		{"linux", "/dev/x?baud=fast", []string{`baud "fast"`, "1200"}},
		{"linux", "/dev/x?baud=", []string{`baud ""`}},
		{"linux", "/dev/x?baud=49", []string{`baud "49"`}},
		{"linux", "/dev/x?databits=9", []string{`databits "9"`}},
		{"linux", "/dev/x?parity=nine", []string{`parity "nine"`}},
		{"linux", "/dev/x?stopbits=3", []string{`stopbits "3"`}},
		{"linux", "/dev/x?stopbits=1.5", []string{"1.5 stop bits are not possible on this system"}},
		{"linux", "/dev/x?dtr=maybe", []string{`dtr "maybe" is not on or off`}},
		{"linux", "/dev/x?rts=", []string{`rts "" is not on or off`}},
		{"linux", "/dev/x?baud=1;2", []string{"bad options"}},
		{"linux", "/dev/x?baud=%zz", []string{"bad options"}},
		{"linux", "/dev/x?baud=1&parity=2&speed=3", []string{`baud "1"`, `parity "2"`, `"speed"`}},
	}
	for _, tt := range tests {
		t.Run(tt.goos+" "+tt.raw, func(t *testing.T) {
			got, err := parse(tt.raw, tt.goos)
			if err == nil {
				t.Fatalf("parse = %+v, want an error", got)
			}
			if got != (Target{}) {
				t.Errorf("parse = %+v beside an error", got)
			}
			if _, ok := errors.AsType[*URLError](err); !ok {
				t.Errorf("error is a %T, want *URLError", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("error %q shows the password", err)
			}
		})
	}
}

func TestTargetEndpoint(t *testing.T) {
	for raw, want := range map[string]string{
		"/dev/ttyUSB0?baud=2400":      "/dev/ttyUSB0",
		"socket://H:1?baud=2400":      "tcp://h:1",
		"tcp://[::1]:1":               "tcp://[::1]:1",
		"rfc2217://H:1?dtr=on":        "tcp://h:1",
		"usb://10C4:ea60/1?baud=2400": "usb://10c4:ea60/1",
	} {
		target, err := parse(raw, "linux")
		if err != nil {
			t.Fatal(err)
		}
		if got := target.Endpoint(); got != want {
			t.Errorf("%s: Endpoint() = %q, want %q", raw, got, want)
		}
	}
}

func TestTargetByteTime(t *testing.T) {
	for raw, want := range map[string]time.Duration{
		"/dev/x":                              9166667, // 11 bits
		"tcp://h:1":                           9166667,
		"tcp://h:1?stopbits=1":                8333334, // 10 bits
		"rfc2217://h:1":                       9166667,
		"/dev/x?baud=2400&stopbits=1":         4166667,
		"/dev/x?parity=even":                  10 * time.Millisecond, // 12 bits
		"tcp://h:1?stopbits=1.5":              8750 * time.Microsecond,
		"/dev/x?baud=300&databits=7&parity=E": 36666667,
	} {
		target, err := parse(raw, "linux")
		if err != nil {
			t.Fatal(err)
		}
		if got := target.ByteTime(); got != want {
			t.Errorf("%s: ByteTime() = %v, want %v", raw, got, want)
		}
	}
	if got := (Target{}).ByteTime(); got != 9166667 {
		t.Errorf("zero target: ByteTime() = %v, want that of 1200 8N2", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, raw := range []string{
		"", "/dev/ttyUSB0", "serial:///dev/serial/by-id/x?baud=9600&parity=E&stopbits=1&dtr=on&rts=off", "COM3", `\\.\COM7`,
		"tcp://host:1", "socket://[fe80::1%25eth0]:65535?baud=2400", "tcp://u:p@h:1/x#y", "sim://403?a=b&a=c", "rfc2217://h:1?dtr=off&parity=E&stopbits=1.5",
		"usb://10c4:EA60/a/b%2F?warmup=1.50s", "usb://0403:6001", "tcp://[::ffff:10.0.0.1]:1", "/dev/%25%3f", "?", "://", "/..", "tcp://[::%25]:1",
	} {
		for _, goos := range []string{"linux", "windows"} {
			f.Add(raw, goos)
		}
	}
	f.Fuzz(func(t *testing.T, raw, goos string) {
		target, err := parse(raw, goos)
		if err != nil {
			var bad *URLError
			if !errors.As(err, &bad) || len(bad.Errs) == 0 || err.Error() == "" {
				t.Fatalf("parse(%q): error %#v says nothing", raw, err)
			}
			return
		}
		again, err := parse(target.String(), goos)
		if err != nil {
			t.Fatalf("parse(%q).String() = %q does not parse: %v", raw, target, err)
		}
		if again != target {
			t.Fatalf("parse(%q) = %+v, but its String() %q parses to %+v", raw, target, target, again)
		}
		if target.ByteTime() <= 0 {
			t.Fatalf("parse(%q).ByteTime() = %v", raw, target.ByteTime())
		}
	})
}
