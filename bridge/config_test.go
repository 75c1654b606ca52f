package bridge

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"io/fs"
	"log/slog"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"kmp2mqtt/kmp"
)

var update = flag.Bool("update", false, "write generated documents anew instead of comparing them")

// testLine judges lines as main does, but knows no schemes.
func testLine(raw string) (string, time.Duration, error) {
	if strings.Contains(raw, "bad") {
		return "", 0, errors.New("no such line")
	}
	return raw, time.Millisecond, nil
}

// testFiles is a file system of names and contents.
func testFiles(files map[string]string) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		if content, ok := files[name]; ok {
			return []byte(content), nil
		}
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
}

func parse(t *testing.T, files map[string]string, environ ...string) (Config, []string) {
	t.Helper()
	c, err := ParseConfig(environ, ParseOptions{ParseLine: testLine, ReadFile: testFiles(files), Hostname: "host"})
	if err == nil {
		return c, nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("error %v is not a joined one", err)
	}
	var lines []string
	for _, e := range joined.Unwrap() {
		if ce, ok := errors.AsType[*ConfigError](e); !ok {
			t.Errorf("%v is not a ConfigError", e)
		} else if !strings.HasPrefix(e.Error(), ce.Variable+": ") {
			t.Errorf("%q does not begin with its variable", e)
		}
		lines = append(lines, e.Error())
	}
	return c, lines
}

func TestParseConfigDefaults(t *testing.T) {
	c, errs := parse(t, nil, "METERS=house=/dev/ttyUSB0", "PATH=/bin", "MQTT_URL=", "=C:=odd", "bare")
	if errs != nil {
		t.Fatal(errs)
	}
	want := Config{
		Meters: []MeterConfig{{
			Name: "house", Line: "/dev/ttyUSB0", ByteTime: time.Millisecond,
			Address: kmp.HeatMeter, Interval: 30 * time.Minute, Budget: DefaultBudget,
		}},
		MQTT:   MQTTConfig{ClientID: c.MQTT.ClientID, Topic: "kmp2mqtt", HAPrefix: "homeassistant"},
		Listen: "127.0.0.1:1883", Discovery: true, LogLevel: slog.LevelInfo, LogFormat: "text",
		HTTP: HTTPConfig{Listen: "127.0.0.1:8099"},
	}
	if diff := cmp.Diff(want, c, cmpopts.IgnoreUnexported(Config{}), cmpopts.EquateComparable(netip.Addr{}), cmpopts.IgnoreFields(MQTTConfig{}, "Dial")); diff != "" {
		t.Error(diff)
	}
	if !strings.HasPrefix(c.MQTT.ClientID, "kmp2mqtt-") || len(c.MQTT.ClientID) > 23 {
		t.Errorf("client id %q: want kmp2mqtt-..., at most the 23 bytes that every broker takes", c.MQTT.ClientID)
	}
}

func TestParseConfigAll(t *testing.T) {
	certificate, key := testCertificate(t)
	files := map[string]string{"/pw": "s3cret\r\n", "/ca": certificate, "/cert": certificate, "/key": key}
	c, errs := parse(t, files,
		"METERS=house=/dev/ttyUSB0?interval=10m&registers=60,0x44,power&baud=2400&label=Heat%20meter&budget=24&history=hour&tz=UTC\n"+
			"flat=tcp://u:pw@h:2001?address=0x7F&timeout=500ms&model=603&continue=true&nodelay=1 tcp://h:2002 sim://403",
		"READ_INTERVAL=1h", "REGISTERS=energy, 80", "MQTT_URL=mqtts://u:p@a mqtt://b:1884 wss://c/mqtt",
		"MQTT_USERNAME=me", "MQTT_PASSWORD_FILE=/pw", "MQTT_CLIENT_ID=x", "MQTT_TOPIC=heat/house", "MQTT_CA_FILE=/ca",
		"MQTT_CERT_FILE=/cert", "MQTT_KEY_FILE=/key", "MQTT_VALUES=yes", "HA_DISCOVERY=off", "HA_PREFIX=ha",
		"LOG_LEVEL=DEBUG", "LOG_FORMAT=json", "DATA_DIR=/data")
	if errs != nil {
		t.Fatal(errs)
	}
	heat := kmp.HeatMeter
	want := []MeterConfig{
		{Name: "house", Line: "/dev/ttyUSB0?baud=2400", Address: heat, Interval: 10 * time.Minute, Registers: []uint16{60, 68, 80}, Label: "Heat meter", Budget: 24, History: HistoryHour, Zone: time.UTC},
		{Name: "flat", Line: "tcp://u:pw@h:2001?nodelay=1", Address: 0x7F, Interval: time.Hour, Timeout: 500 * time.Millisecond, Registers: []uint16{60, 80}, Model: "603", Continue: true},
		{Line: "tcp://h:2002", Address: heat, Interval: time.Hour, Registers: []uint16{60, 80}},
		{Line: "sim://403", Address: heat, Interval: time.Hour, Registers: []uint16{60, 80}, Model: "403"},
	}
	for i := range want {
		want[i].ByteTime, want[i].Chosen = time.Millisecond, true
		if want[i].Budget == 0 && !strings.HasPrefix(want[i].Line, "sim://") {
			want[i].Budget = DefaultBudget
		}
	}
	if diff := cmp.Diff(want, c.Meters, cmp.Comparer(func(a, b *time.Location) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	var urls []string
	for _, u := range c.MQTT.URLs {
		urls = append(urls, u.String())
	}
	if diff := cmp.Diff([]string{"mqtts://u:p@a:8883", "mqtt://b:1884", "wss://c:443/mqtt"}, urls); diff != "" {
		t.Error(diff)
	}
	if c.MQTT.Username != "me" || c.MQTT.Password != "s3cret" || !c.Values || c.Discovery || c.LogLevel != slog.LevelDebug || c.LogFormat != "json" || c.DataDir != "/data" {
		t.Errorf("%+v", c)
	}
	shown := c.Redacted()
	if got := shown["MQTT_URL"]; got != "mqtts://***@a mqtt://b:1884 wss://c/mqtt" {
		t.Errorf("MQTT_URL is shown as %q", got)
	}
	if got := shown["MQTT_PASSWORD"] + shown["MQTT_USERNAME"]; got != "******" {
		t.Errorf("user and password are shown as %q", got)
	}
	if got := shown["METERS"]; strings.Contains(got, "pw") || !strings.Contains(got, "flat=tcp://***@h:2001?address=0x7F") {
		t.Errorf("METERS is shown as %q", got)
	}
	for name, value := range shown {
		if strings.Contains(value, "s3cret") {
			t.Errorf("%s shows the password", name)
		}
	}
}

// Where the page is, and what it demands of whom.
func TestParseConfigPage(t *testing.T) {
	for _, tt := range []struct {
		name, want string // error
		set        []string
		page       HTTPConfig
	}{
		{"off", "", []string{"HTTP_LISTEN=off"}, HTTPConfig{}},
		{"empty", "", []string{"HTTP_LISTEN="}, HTTPConfig{}},
		{"password", "", []string{"HTTP_LISTEN=:80", "HTTP_USERNAME=me", "HTTP_PASSWORD= s3cret"}, HTTPConfig{Listen: ":80", Username: "me", Password: " s3cret"}},
		{"from a file", "", []string{"HTTP_LISTEN=[::1]:80", "HTTP_USERNAME=me", "HTTP_PASSWORD_FILE=/pw"}, HTTPConfig{Listen: "[::1]:80", Username: "me", Password: "s3cret"}},
		{"ingress", "", []string{"HTTP_LISTEN=0.0.0.0:8099", "HTTP_INGRESS=172.30.32.2"}, HTTPConfig{Listen: "0.0.0.0:8099", Ingress: netip.MustParseAddr("172.30.32.2")}},
		{"open", "HTTP_LISTEN: 0.0.0.0:8099 can be reached from other machines: set HTTP_USERNAME and HTTP_PASSWORD, or listen on 127.0.0.1", []string{"HTTP_LISTEN=0.0.0.0:8099"}, HTTPConfig{}},
		{"no port", `HTTP_LISTEN: "8099" is not host:port`, []string{"HTTP_LISTEN=8099"}, HTTPConfig{}},
		{"half", "HTTP_PASSWORD: is missing; HTTP_USERNAME is set, and the page needs both", []string{"HTTP_USERNAME=me"}, HTTPConfig{}},
		{"the other half", "HTTP_USERNAME: is missing; HTTP_PASSWORD is set, and the page needs both", []string{"HTTP_PASSWORD=x"}, HTTPConfig{}},
		{"colon", "HTTP_USERNAME: holds a colon, which no browser can send in a user name", []string{"HTTP_USERNAME=a:b", "HTTP_PASSWORD=x"}, HTTPConfig{}},
		{"all at once", "HTTP_INGRESS: \"supervisor\" is not an address such as 172.30.32.2\n" +
			"HTTP_PASSWORD: is missing; HTTP_USERNAME is set, and the page needs both\n" +
			"HTTP_USERNAME: holds a colon, which no browser can send in a user name\n" +
			`HTTP_LISTEN: "8099" is not host:port`, []string{"HTTP_INGRESS=supervisor", "HTTP_USERNAME=a:b", "HTTP_LISTEN=8099"}, HTTPConfig{}},
		{"half, open", "HTTP_USERNAME: is missing; HTTP_PASSWORD is set, and the page needs both", []string{"HTTP_PASSWORD=x", "HTTP_LISTEN=:80"}, HTTPConfig{}},
		{"ingress by name, open", `HTTP_INGRESS: "supervisor" is not an address such as 172.30.32.2`, []string{"HTTP_INGRESS=supervisor", "HTTP_LISTEN=:80"}, HTTPConfig{}},
		{"ingress by name", `HTTP_INGRESS: "supervisor" is not an address such as 172.30.32.2`, []string{"HTTP_INGRESS=supervisor"}, HTTPConfig{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, errs := parse(t, map[string]string{"/pw": "s3cret\n"}, append(tt.set, "METERS=sim://403")...)
			if got := strings.Join(errs, "\n"); got != tt.want {
				t.Fatalf("%q, want %q", got, tt.want)
			}
			if tt.want == "" && c.HTTP != tt.page {
				t.Errorf("%+v, want %+v", c.HTTP, tt.page)
			}
			for name, value := range c.Redacted() {
				if strings.Contains(value, "s3cret") {
					t.Errorf("%s shows the password", name)
				}
			}
		})
	}
}

// Whose topics are served as well.
func TestParseConfigCompat(t *testing.T) {
	for value, want := range map[string]string{
		"kamstrup-402-mqtt": "kamstrup", "kamstrup-402-mqtt:cellar/heat": "cellar/heat", "": "",
		"kamstrup":                         `MQTT_COMPAT: "kamstrup" is not known; there is kamstrup-402-mqtt`,
		"kamstrup-402-mqtt:kmp2mqtt":       `MQTT_COMPAT: the topic "kmp2mqtt" is MQTT_TOPIC or HA_PREFIX already`,
		"kamstrup-402-mqtt:":               `MQTT_COMPAT: "kamstrup-402-mqtt:" names no topic; write kamstrup-402-mqtt:topic, or kamstrup-402-mqtt alone for kamstrup/values`,
		"kamstrup-402-mqtt:kmp2mqtt/house": `MQTT_COMPAT: of the topic "kmp2mqtt/house" and MQTT_TOPIC "kmp2mqtt" one lies within the other; choose two that do not`,
		"kamstrup-402-mqtt:kmp2mqtts":      "kmp2mqtts",
	} {
		c, errs := parse(t, nil, "METERS=sim://403?entities=golles", "MQTT_COMPAT="+value)
		if got := c.Compat + strings.Join(errs, "\n"); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
		if errs == nil && c.Meters[0].Entities != "golles" {
			t.Errorf("entities %q", c.Meters[0].Entities)
		}
	}
	if _, errs := parse(t, nil, "METERS=sim://403", "MQTT_TOPIC=heat/kmp", "MQTT_COMPAT=kamstrup-402-mqtt:heat"); len(errs) != 1 || errs[0] != `MQTT_COMPAT: of the topic "heat" and MQTT_TOPIC "heat/kmp" one lies within the other; choose two that do not` {
		t.Errorf("%q", errs)
	}
	if _, errs := parse(t, nil, "METERS=house=sim://403?entities=mine"); len(errs) != 1 || errs[0] != `METERS: meter "house": option entities: "mine" is not known; there are wobwobrt and golles` {
		t.Errorf("%q", errs)
	}
}

func TestParseConfigErrors(t *testing.T) {
	certificate, key := testCertificate(t)
	_, other := testCertificate(t)
	files := map[string]string{"/pw": "x\n", "/empty": "\n", "/text": "no pem", "/cert": certificate, "/key": key, "/other": other}
	const meter = "METERS=house=/dev/ttyUSB0"
	for _, tt := range []struct {
		name    string
		environ []string
		want    []string // substrings, one for each error, in order
	}{
		{"nothing", nil, []string{"METERS: is missing"}},
		{"history", []string{"METERS=house=/dev/ttyUSB0?history=day&tz=Mars/Base"}, []string{`option history: "day" is not known; there are gaps, hour and off`, `option tz: "Mars/Base" is not a time zone`}},
		{"token alone", []string{meter, "HA_TOKEN=x", "DATA_DIR=/d"}, []string{"HA_URL: is missing"}},
		{"address alone", []string{meter, "HA_URL=http://h", "DATA_DIR=/d"}, []string{"HA_TOKEN: is missing"}},
		{"nowhere to keep it", []string{meter, "HA_URL=http://h", "HA_TOKEN=x"}, []string{"HA_URL: needs DATA_DIR"}},
		{"bad token", []string{meter, "HA_URL=http://h", "HA_TOKEN=a b", "DATA_DIR=/d"}, []string{"HA_TOKEN: holds white space"}},
		{"bad address", []string{meter, "HA_URL=ftp://h", "HA_TOKEN=x", "DATA_DIR=/d"}, []string{`HA_URL: "ftp://h": unknown scheme "ftp"`}},
		{"no address", []string{meter, "HA_URL=homeassistant.local", "HA_TOKEN=x", "DATA_DIR=/d"}, []string{`HA_URL: "homeassistant.local" is not a URL`}},
		{"port of the address", []string{meter, "HA_URL=http://h:65536", "HA_TOKEN=x", "DATA_DIR=/d"}, []string{`HA_URL: "http://h:65536": port "65536" is not in 1 to 65535`}},
		{"no port at all", []string{meter, "HA_URL=https://[::1]:0", "HA_TOKEN=x", "DATA_DIR=/d"}, []string{`HA_URL: "https://[::1]:0": port "0" is not in 1 to 65535`}},
		{"token file", []string{meter, "HA_URL=http://h", "HA_TOKEN_FILE=/none", "DATA_DIR=/d"}, []string{"HA_TOKEN_FILE: cannot read the file: open /none: file does not exist"}},
		{"empty token file", []string{meter, "HA_URL=http://h:65535", "HA_TOKEN_FILE=/empty", "DATA_DIR=/d"}, []string{"HA_TOKEN_FILE: /empty is empty"}},
		{"login in the address", []string{meter, "HA_URL=http://u:secret@h", "HA_TOKEN=x", "DATA_DIR=/d"}, []string{"HA_URL: holds a user or password"}},
		{"near misses", []string{meter, "MQTT_TOPC=x", "METER=x", "LOG_LEVLE=x", "mqtt_topic=x", "HA_DISCOVRY=x", "MQTT_PASSWRD_FILE=x"}, []string{
			"HA_DISCOVRY: no such setting; did you mean HA_DISCOVERY?",
			"LOG_LEVLE: no such setting; did you mean LOG_LEVEL?",
			"METER: no such setting; did you mean METERS?",
			"MQTT_PASSWRD_FILE: no such setting; did you mean MQTT_PASSWORD_FILE?",
			"MQTT_TOPC: no such setting; did you mean MQTT_TOPIC?",
			"mqtt_topic: no such setting; did you mean MQTT_TOPIC?",
		}},
		{"everything at once", []string{"METERS=a=bad:// a=/dev/x", "READ_INTERVAL=30", "REGISTERS=energie", "MQTT_URL=broker:1883", "HA_DISCOVERY=maybe", "LOG_LEVEL=loud", "LOG_FORMAT=xml"}, []string{
			`READ_INTERVAL: "30" is not a duration`, `REGISTERS: unknown register "energie"; did you mean energy?`,
			`MQTT_URL: "broker:1883" has no scheme; write mqtt://broker:1883`,
			`METERS: meter "a": no such line`, `METERS: meter "a": the name is used twice`, `HA_DISCOVERY: "maybe"`, `LOG_LEVEL: "loud"`, `LOG_FORMAT: "xml"`,
		}},
		{"meter names", []string{"METERS=bridge=/dev/a ü=/dev/b =/dev/c a.b=/dev/d " + strings.Repeat("n", 65) + "=/dev/e x= attic/heat=sim://403"}, []string{
			"the name bridge is reserved", `holds 'ü'`, "no name before =", "holds '.'", "65 characters", `meter "x": has no line`, `meter "attic/heat": the name holds '/'`,
		}},
		{"meter options", []string{"METERS=a=/dev/a?interval=1ms&registers=energi&address=256&timeout=1h&model=404&label=%01&label=x&interval=%zz"}, []string{
			`METERS: meter "a": option interval: 1ms is out of range`, "option registers: unknown register", "option address:", "option timeout:",
			"option model: ", "option label: ", "option label: is given twice", "option interval: is given twice",
		}},
		{"empty option", []string{"METERS=a=/dev/a?registers="}, []string{"option registers: has no value"}},
		{"bare line is named in errors", []string{"METERS=tcp://u:secret@h:1?address=x"}, []string{"METERS: meter tcp://***@h:1?address=x: option address"}},
		{"same line", []string{"METERS=a=/dev/x b=/dev/x c=/dev/x?address=1"}, []string{`METERS: meter "b": same line and address as meter "a"`}},
		{"interval bounds", []string{meter, "READ_INTERVAL=169h"}, []string{"READ_INTERVAL: 169h is out of range; the least is 1s, the most is 168h"}},
		{"register range", []string{meter, "REGISTERS=65536"}, []string{"REGISTERS: register 65536 is not in 0 to 65535"}},
		{"urls", []string{meter, "MQTT_URL=http://x mqtt:// mqtt://h/x mqtt://h?x mqtt://h:0 mqtt://u:se%zzcret@h"}, []string{
			`unknown scheme "http"`, "names no host", "the path", "query", "port", "not a URL",
		}},
		{"passwords that break the URL", []string{
			meter, "MQTT_URL=u:secret@h:1883 mqtt://u:ge/secret@h mqtt://u:12/secret@h mqtt://u:ge#secret@h mqtt://u:a@b/secret@h mqtt://u:12?secret@h ws://u:a@b/secret@h",
		}, []string{"MQTT_URL: one of the URLs has no scheme"}},
		{"no scheme", []string{meter, "MQTT_URL=u:secret@h:1883"}, []string{`MQTT_URL: "***@h:1883" has no scheme; write mqtt://***@h:1883`}},
		{"escapes missing", []string{
			meter, "MQTT_URL=mqtt://u:ge/secret@h mqtt://u:12/secret@h mqtt://u:ge#secret@h mqtt://u:a@b/secret@h mqtt://u:12?secret@h ws://u:a@b/secret@h",
		}, []string{
			`MQTT_URL: "mqtt://***@h" is not a URL; escape`, `"mqtt://***@h" is not a URL; escape`, `"mqtt://***@h" is not a URL; escape`,
			`"mqtt://***@h" is not a URL; escape`, `"mqtt://***@h" is not a URL; escape`, `"ws://***@h" is not a URL; escape`,
		}},
		{"white space in a password", []string{meter, "MQTT_URL=mqtt://u:my secret@h"}, []string{"MQTT_URL: one of the URLs has no scheme (mqtt://), or a password holds white space"}},
		{"both secrets", []string{meter, "MQTT_USERNAME=u", "MQTT_PASSWORD=x", "MQTT_PASSWORD_FILE=/pw"}, []string{"MQTT_PASSWORD_FILE: MQTT_PASSWORD is set, too"}},
		{"secret file", []string{meter, "MQTT_USERNAME_FILE=/none", "MQTT_URL=mqtt://h"}, []string{"MQTT_USERNAME_FILE: cannot read the file: open /none: file does not exist"}},
		{"empty secret file", []string{meter, "MQTT_USERNAME=u", "MQTT_PASSWORD_FILE=/empty", "MQTT_URL=mqtt://h"}, []string{"MQTT_PASSWORD_FILE: /empty is empty"}},
		{"password alone", []string{meter, "MQTT_PASSWORD=x", "MQTT_URL=mqtt://h"}, []string{"MQTT_PASSWORD: MQTT_USERNAME is missing"}},
		{"topics", []string{meter, "MQTT_TOPIC=a/+", "HA_PREFIX=/x"}, []string{"MQTT_TOPIC: ", "HA_PREFIX: "}},
		{"same topics", []string{meter, "HA_PREFIX=kmp2mqtt"}, []string{"HA_PREFIX: "}},
		{"control character", []string{meter, "MQTT_TOPIC=a\x00b", "MQTT_CLIENT_ID=a\nb"}, []string{"MQTT_CLIENT_ID: ", "MQTT_TOPIC: "}},
		{"listen", []string{meter, "MQTT_LISTEN=1883"}, []string{"MQTT_LISTEN: \"1883\" is not host:port"}},
		{"open listen", []string{meter, "MQTT_LISTEN=:1883"}, []string{"MQTT_LISTEN: :1883 can be reached from other machines"}},
		{"user without password", []string{meter, "MQTT_USERNAME=u"}, []string{"MQTT_LISTEN: the built-in broker needs both"}},
		{"certificate without tls", []string{meter, "MQTT_URL=mqtt://h", "MQTT_CA_FILE=/cert"}, []string{"MQTT_CA_FILE: no MQTT_URL begins with mqtts:// or wss://"}},
		{"certificate files", []string{meter, "MQTT_URL=mqtts://h", "MQTT_CA_FILE=/key", "MQTT_CERT_FILE=/none", "MQTT_KEY_FILE=/text"}, []string{
			"MQTT_CA_FILE: /key holds no certificate", "MQTT_CERT_FILE: cannot read", "MQTT_KEY_FILE: /text holds no PEM block",
		}},
		{"certificate without key", []string{meter, "MQTT_URL=mqtts://h", "MQTT_CERT_FILE=/cert"}, []string{"MQTT_CERT_FILE: MQTT_KEY_FILE is missing"}},
		{"key without certificate", []string{meter, "MQTT_URL=mqtts://h", "MQTT_KEY_FILE=/key"}, []string{"MQTT_KEY_FILE: MQTT_CERT_FILE is missing"}},
		{"another key", []string{meter, "MQTT_URL=mqtts://h", "MQTT_CERT_FILE=/cert", "MQTT_KEY_FILE=/other"}, []string{"MQTT_CERT_FILE: does not fit MQTT_KEY_FILE"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, got := parse(t, files, tt.environ...)
			if len(got) != len(tt.want) {
				t.Fatalf("%d errors, want %d:\n%s", len(got), len(tt.want), strings.Join(got, "\n"))
			}
			for i, want := range tt.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("error %d is\n%s\nwant\n%s", i, got[i], want)
				}
			}
			for _, line := range got {
				if strings.Contains(line, "secret@") || strings.Contains(line, "my") || strings.Contains(line, "zzcret") {
					t.Errorf("error shows a password: %s", line)
				}
			}
		})
	}
}

// TestHomeAssistantSettings: by hand, or as the supervisor of an app gives them.
func TestHomeAssistantSettings(t *testing.T) {
	const meter = "METERS=house=sim://403"
	for _, tt := range []struct {
		environ    []string
		url, token string
	}{
		{nil, "", ""},
		{[]string{"DATA_DIR=/data"}, "", ""},
		{[]string{"SUPERVISOR_TOKEN=s"}, "", ""}, // nothing is kept: nothing can be imported
		{[]string{"SUPERVISOR_TOKEN=s", "DATA_DIR=/data"}, "ws://supervisor/core/websocket", "s"},
		{[]string{"SUPERVISOR_TOKEN=s", "DATA_DIR=/data", "HA_URL=https://ha.example/x", "HA_TOKEN=t"}, "https://ha.example/x", "t"},
		{[]string{"DATA_DIR=/data", "HA_URL=http://h:8123", "HA_TOKEN_FILE=/token"}, "http://h:8123", "from.file"},
	} {
		c, errs := parse(t, map[string]string{"/token": "from.file\n"}, append([]string{meter}, tt.environ...)...)
		if errs != nil {
			t.Errorf("%q: %q", tt.environ, errs)
			continue
		}
		got := ""
		if c.HAURL != nil {
			got = c.HAURL.String()
		}
		if got != tt.url || c.HAToken != tt.token {
			t.Errorf("%q: %q %q, should be %q %q", tt.environ, got, c.HAToken, tt.url, tt.token)
		}
		for name, value := range c.Redacted() {
			if tt.token != "" && strings.Contains(value, tt.token) && name == "HA_TOKEN" {
				t.Errorf("%s shows the token", name)
			}
		}
	}
}

// TestForeignVariables uses names that container platforms, shells and other programs set.
func TestForeignVariables(t *testing.T) {
	names := strings.Fields(`PATH HOME USER TERM LANG PWD SHLVL HOSTNAME LOGNAME MAIL EDITOR TZ _ LC_ALL
		MQTT_PORT MQTT_HOST MQTT_SERVICE_HOST MQTT_SERVICE_PORT MQTT_PORT_1883_TCP MQTT_PORT_1883_TCP_ADDR MQTT_PORT_1883_TCP_PROTO
		MQTT_USER MQTT_PASS MQTT_QOS MQTT_RETAIN MQTT_CLIENT MQTT_TLS_ENABLED MQTT_TLS_CA_CERT MQTT_AUTHENTICATION
		HA_VERSION LOG_FILE LOG_DIR LOG_COLOR REGISTRY KUBERNETES_PORT SUPERVISOR_TOKEN
		SERIAL_COM_PORT KAMSTRUP_POLL_INTERVAL INVOCATION_ID JOURNAL_STREAM GOCOVERDIR`)
	environ := []string{"METERS=house=/dev/ttyUSB0"}
	for _, name := range names {
		environ = append(environ, name+"=x")
	}
	if _, errs := parse(t, nil, environ...); errs != nil {
		t.Error(strings.Join(errs, "\n"))
	}
}

// TestNearMisses makes every slip of one letter in every name.
func TestNearMisses(t *testing.T) {
	for _, f := range fields() {
		for i := range f.name {
			slips := []string{f.name[:i] + f.name[i+1:], f.name[:i] + "Q" + f.name[i:], f.name[:i] + "Q" + f.name[i+1:]}
			if i > 0 && f.name[i] != f.name[i-1] {
				slips = append(slips, f.name[:i-1]+f.name[i:i+1]+f.name[i-1:i]+f.name[i+1:])
			}
			for _, slip := range slips {
				if slip == f.name {
					continue
				}
				_, errs := parse(t, nil, "METERS=a=/dev/a", slip+"=x")
				if len(errs) != 1 || !strings.Contains(errs[0], "did you mean "+f.name+"?") {
					t.Errorf("%s for %s: %q", slip, f.name, errs)
				}
			}
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"a", "", 1},
		{"abc", "abc", 0},
		{"abc", "acb", 1},
		{"abc", "xbc", 1},
		{"abc", "ab", 1},
		{"MQTT_PORT", "MQTT_TOPIC", 4},
		{"METRES", "METERS", 1},
		{"abcdef", "fedcba", 4},
		{"a", "abcdefgh", 4},
	} {
		if got := distance(tt.a, tt.b, 3); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
		if a, b := distance(tt.a, tt.b, 9), distance(tt.b, tt.a, 9); a != b {
			t.Errorf("distance(%q, %q) is %d one way and %d the other", tt.a, tt.b, a, b)
		}
	}
}

// FuzzMeters feeds METERS with anything. Whatever passes must be usable.
func FuzzMeters(f *testing.F) {
	for _, s := range []string{
		"house=/dev/ttyUSB0", "sim://403", "a=tcp://h:1?address=0x3F&interval=1m b=sim://403?registers=60,power&label=%C3%BC",
		"=x", "a=", "a=?&&=", "x=/dev/a?label=%", "\x00=\xff", "a=b?interval=1s&interval=1s",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseConfig([]string{"METERS=" + s}, ParseOptions{ParseLine: testLine, ReadFile: testFiles(nil)})
		if err != nil {
			if err.Error() == "" {
				t.Error("empty error")
			}
			return
		}
		seen := map[string]bool{}
		for _, m := range c.Meters {
			if m.Name != "" && (checkName(m.Name) != nil || seen[m.Name]) {
				t.Errorf("name %q passed", m.Name)
			}
			seen[m.Name] = true
			if m.Line == "" || m.Interval < MinInterval || m.Interval > MaxInterval || len(m.Registers) > MaxRegisters {
				t.Errorf("%+v passed", m)
			}
		}
	})
}

func TestSettingsTable(t *testing.T) {
	var b bytes.Buffer
	if err := WriteSettingsTable(&b); err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(rows) != len(fields())+2 {
		t.Errorf("%d rows for %d settings", len(rows), len(fields()))
	}
	for _, row := range rows {
		if strings.Count(strings.ReplaceAll(row, `\|`, ""), "|") != 4 {
			t.Errorf("row has not three columns: %s", row)
		}
	}
	for _, f := range fields() {
		if f.doc == "" || f.group == "" {
			t.Errorf("%s has no explanation or group", f.name)
		}
	}
	between(t, "../README.md", "<!-- settings:begin -->\n", "<!-- settings:end -->", b.Bytes())
}

func TestEnvExample(t *testing.T) {
	var b bytes.Buffer
	if err := WriteEnvExample(&b); err != nil {
		t.Fatal(err)
	}
	var environ []string
	for line := range strings.Lines(b.String()) {
		if strings.HasPrefix(line, "# ") || strings.TrimSpace(line) == "" {
			continue
		}
		environ = append(environ, strings.TrimSpace(strings.TrimPrefix(line, "#")))
	}
	if len(environ) != len(fields()) {
		t.Errorf("%d variables for %d settings", len(environ), len(fields()))
	}
	if _, errs := parse(t, nil, environ...); errs != nil {
		t.Errorf("its own values are refused: %s", strings.Join(errs, "\n"))
	}
	between(t, "../.env.example", "", "", b.Bytes())
}

// between compares generated text with what stands in a file between two markers, or the
// whole file. With -update it writes it there.
func between(t *testing.T, file, begin, end string, want []byte) {
	t.Helper()
	path := filepath.FromSlash(file)
	content, err := os.ReadFile(path)
	if err != nil && (!*update || begin != "") {
		t.Fatal(err)
	}
	head, rest, found := bytes.Cut(content, []byte(begin))
	tail := []byte{}
	if begin != "" {
		i := bytes.Index(rest, []byte(end))
		if !found || i < 0 {
			t.Fatalf("%s lacks the markers %q and %q", file, begin, end)
		}
		rest, tail = rest[:i], rest[i:]
	}
	if bytes.Equal(rest, want) {
		return
	}
	if !*update {
		t.Fatalf("%s differs from the code; run go test ./bridge -update\n%s", file, cmp.Diff(string(want), string(rest)))
	}
	whole := slices.Concat(head, []byte(begin), want, tail)
	if begin == "" {
		whole = want
	}
	if err := os.WriteFile(path, whole, 0o644); err != nil {
		t.Fatal(err)
	}
}

func testCertificate(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, content []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}))
	}
	return block("CERTIFICATE", der), block("PRIVATE KEY", raw)
}
