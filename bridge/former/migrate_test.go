package former_test

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"kmp2mqtt/bridge"
	"kmp2mqtt/bridge/former"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/link"
)

var update = flag.Bool("update-migrate", false, "write the expected settings and notes, and the tables in docs, anew")

// samples are settings of other readers as their owners have them.
var samples = []struct{ reader, file string }{
	{former.KamstrupMQTT, "kamstrup-402-mqtt.yaml"},
	{former.KamstrupMQTT, "kamstrup-402-mqtt-tls.yaml"},
	{former.WobwobRt, "wobwobrt.yaml"},
	{former.WobwobRt, "wobwobrt.env"},
	{former.WobwobRt, "wobwobrt-compose.yml"},
	{former.Golles, "golles.config_entries"},
	{former.Golles, "golles.env"},
	{former.Golles, "golles.yaml"},
}

// sample is a file in testdata.
func sample(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "migrate", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// file is a file with a content.
func file(name, content string) former.File {
	return former.File{Name: name, Content: strings.NewReader(content)}
}

// certificate is a client certificate with its key, PEM.
func certificate(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	return append(b, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
}

// parse has the bridge read settings. Every file holds the same certificate and key.
func parse(environ []string, content []byte) (bridge.Config, error) {
	return bridge.ParseConfig(environ, bridge.ParseOptions{
		ReadFile: func(string) ([]byte, error) { return content, nil },
		ParseLine: func(raw string) (string, time.Duration, error) {
			t, err := link.Parse(raw)
			return t.String(), t.ByteTime(), err
		},
	})
}

func environ(m former.Migration) (list []string) {
	for _, s := range m.Settings {
		list = append(list, s.Variable+"="+s.Value)
	}
	return list
}

// golden compares what came out with what is expected.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", "migrate", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: go test ./bridge/former -update-migrate; got\n%s", name, got)
	}
}

// The samples give the expected settings and notes, and the bridge takes the settings.
func TestMigrateSamples(t *testing.T) {
	certificates := certificate(t)
	for _, s := range samples {
		t.Run(s.file, func(t *testing.T) {
			m, err := former.Migrate(s.reader, nil, former.File{Name: s.file, Content: bytes.NewReader(sample(t, s.file))})
			if err != nil {
				t.Fatal(err)
			}
			var env, notes bytes.Buffer
			if err := cmp.Or(m.WriteEnv(&env), m.WriteText(&notes)); err != nil {
				t.Fatal(err)
			}
			golden(t, s.file+".kmp2mqtt.env", env.Bytes())
			golden(t, s.file+".notes.txt", notes.Bytes())
			if _, err := parse(environ(m), certificates); err != nil {
				t.Error(err)
			}
			names := bridge.SettingNames()
			for _, setting := range m.Settings {
				if !slices.Contains(names, setting.Variable) {
					t.Errorf("%s is no setting", setting.Variable)
				}
			}
			text, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			var back former.Migration
			if err := json.Unmarshal(text, &back); err != nil || !slices.Equal(back.Settings, m.Settings) || !slices.Equal(back.Notes, m.Notes) {
				t.Errorf("%s: %v", text, err)
			}
		})
	}
}

// A shell reads from the file what the settings are.
func TestWriteEnvShell(t *testing.T) {
	m := former.Migration{Settings: []former.Setting{
		{Variable: "A", Value: `it's $HOME \ "and" ` + "`id`"}, {Variable: "B", Value: "a b?c&d#e;f|g$h"}, {Variable: "C", Value: "plain/1.2:x=y,z"}, {Variable: "D", Comment: "# x\n$(exit 3)"}, {Variable: "E", Value: "ü\\n"},
	}}
	var b bytes.Buffer
	if err := m.WriteEnv(&b); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", b.String()+"\nprintf '%s\\n' \"$A\" \"$B\" \"$C\" \"$D\" \"$E\"\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	want := ""
	for _, s := range m.Settings {
		want += s.Value + "\n"
	}
	if string(out) != want {
		t.Errorf("%q, want %q", out, want)
	}
}

const minimal = "mqtt: {host: h, port: 1883, topic: kamstrup}\nserial_device: {com_port: /dev/ttyUSB0}\nkamstrup: {parameters: [energy], poll_interval: 28}\n"

// setting is a setting's value; "-" if it is not there.
func setting(m former.Migration, variable string) string {
	for _, s := range m.Settings {
		if s.Variable == variable {
			return s.Value
		}
	}
	return "-"
}

func noted(m former.Migration, text string) bool {
	return slices.ContainsFunc(m.Notes, func(n former.Note) bool { return strings.Contains(string(n.Kind)+": "+n.Text, text) })
}

// Single settings, one change to a small file at a time.
func TestMigrate(t *testing.T) {
	for _, tt := range []struct {
		name, reader, old, new string // what is replaced in the small file
		variable, value        string
		note                   string
	}{
		{"as it is", former.KamstrupMQTT, "", "", "METERS", "kamstrup=/dev/ttyUSB0", "do next: Stop kamstrup-402-mqtt"},
		{"minutes", former.KamstrupMQTT, "28", "90", "READ_INTERVAL", "1h30m", ""},
		{"hours", former.KamstrupMQTT, "28", "120", "READ_INTERVAL", "2h", ""},
		{"often", former.KamstrupMQTT, "28", "1", "READ_INTERVAL", "1m", "read 96 times a day at the most"},
		{"no pause", former.KamstrupMQTT, "28", "0", "READ_INTERVAL", "30m", "was wrong: kamstrup.poll_interval 0"},
		{"seldom", former.KamstrupMQTT, "28", "1e300", "READ_INTERVAL", "168h", "changed: kamstrup.poll_interval"},
		{"a week", former.KamstrupMQTT, "28", "10080", "READ_INTERVAL", "168h", ""},
		{"usual topic", former.KamstrupMQTT, "", "", "MQTT_COMPAT", "kamstrup-402-mqtt", ""},
		{"no topic", former.KamstrupMQTT, ", topic: kamstrup", "", "MQTT_COMPAT", "kamstrup-402-mqtt", ""},
		{"other topic", former.KamstrupMQTT, "topic: kamstrup", "topic: a/b", "MQTT_COMPAT", "kamstrup-402-mqtt:a/b", ""},
		{"our topic", former.KamstrupMQTT, "topic: kamstrup", "topic: kmp2mqtt", "MQTT_TOPIC", "kmp2mqtt2", ""},
		{"below our topic", former.KamstrupMQTT, "topic: kamstrup", "topic: kmp2mqtt/heat", "MQTT_TOPIC", "kmp2mqtt2", ""},
		{"no such topic", former.KamstrupMQTT, "topic: kamstrup", "topic: /kamstrup", "MQTT_COMPAT", "-", "no equivalent: the topic /kamstrup"},
		{"discovery's topic", former.KamstrupMQTT, "topic: kamstrup", "topic: homeassistant", "MQTT_COMPAT", "-", "discovery is there"},
		{"name", former.KamstrupMQTT, "topic: kamstrup", "topic: a/Wärme 1", "METERS", "W_rme_1=/dev/ttyUSB0", ""},
		{"reserved name", former.KamstrupMQTT, "topic: kamstrup", "topic: a/bridge", "METERS", "house=/dev/ttyUSB0", ""},
		{"IPv6", former.KamstrupMQTT, "host: h", `host: "fd00::7"`, "MQTT_URL", "mqtt://[fd00::7]:1883", ""},
		{"no broker", former.KamstrupMQTT, "host: h, ", "", "MQTT_URL", "-", "do next: No broker was set"},
		{"localhost", former.WobwobRt, "host: h, ", "", "MQTT_URL", "mqtt://localhost:1883", ""},
		{"path", former.KamstrupMQTT, "/dev/ttyUSB0", `"/dev//head?1&2=3 #%"`, "METERS", "kamstrup=/dev/head%3F1%262%3D3%20%23%25", ""},
		{"serial server", former.KamstrupMQTT, "/dev/ttyUSB0", `"socket://[fd00::7]:02001/"`, "METERS", "kamstrup=tcp://[fd00::7]:2001", ""},
		{"USB", former.KamstrupMQTT, "/dev/ttyUSB0", "hwgrep://0403:6001", "METERS", "kamstrup=usb://0403:6001", ""},
		{"unknown line", former.KamstrupMQTT, "/dev/ttyUSB0", "loop://", "METERS", "-", `no equivalent: the port "loop://"`},
		{"no port", former.KamstrupMQTT, "{com_port: /dev/ttyUSB0}", "", "METERS", "-", "do next: No port was set"},
		{"info code", former.KamstrupMQTT, "[energy]", "[energy, infoevent, volume]", "REGISTERS", "energy,info_code,info_events,volume", "was wrong: infoevent was register 113"},
		{"one parameter", former.KamstrupMQTT, "[energy]", "energy", "REGISTERS", "energy", ""},
		{"early names", former.KamstrupMQTT, "[energy]", "[Heat Energy, Volume, Temp1]", "REGISTERS", "energy,volume,supply_temperature", ""},
		{"unknown parameters", former.KamstrupMQTT, "[energy]", "[e7, 'a\tb']", "REGISTERS", "-", `does not have either: e7, "a\tb"`},
		{"no parameters", former.KamstrupMQTT, "[energy]", "[]", "REGISTERS", "-", "No parameters were named"},
		{"unused certificate", former.KamstrupMQTT, "host: h", "host: h, tls_ca_cert: /ca.pem", "MQTT_CA_FILE", "-", "TLS was not in use"},
		{"certificate without key", former.KamstrupMQTT, "host: h", "host: h, tls_enabled: true, tls_cert: /c.pem", "MQTT_CERT_FILE", "-", "without the other"},
		{"client certificate", former.KamstrupMQTT, "host: h", "host: h, tls_enabled: true, tls_cert: /c.pem, tls_key: /k.pem", "MQTT_KEY_FILE", "/k.pem", "was wrong: tls_cert and tls_key were ignored"},
		{"client certificate", former.WobwobRt, "host: h", "host: h, tls_enabled: true, tls_cert: /c.pem, tls_key: /k.pem, tls_key_password: p", "MQTT_URL", "mqtts://h:1883", "no equivalent: tls_key_password"},
		{"password in a list of lines", former.KamstrupMQTT, "host: h", `host: h, authentication: true, username: u, password: "a\nb"`, "MQTT_PASSWORD", "-", "set MQTT_PASSWORD_FILE"},
		{"password alone", former.KamstrupMQTT, "host: h", `host: h, authentication: true, password: x`, "MQTT_PASSWORD", "-", "a password without a user name"},
		{"password kept", former.KamstrupMQTT, "host: h", `host: h, username: u, password: " x "`, "MQTT_PASSWORD", " x ", ""},
		{"qos", former.KamstrupMQTT, "host: h", "host: h, qos: 0, retain: false", "MQTT_TOPIC", "-", "changed: QoS 0"},
		{"unknown key", former.KamstrupMQTT, "host: h", "host: h, will: x", "MQTT_URL", "mqtt://h:1883", "left out: mqtt.will"},
		{"unknown table", former.KamstrupMQTT, "mqtt:", "web: {a: [1, {b: *x}]}\nx: &x 1\nmqtt:", "MQTT_URL", "-", ""},
		{"model", former.WobwobRt, "poll_interval", "version: 603, poll_interval", "METERS", "kamstrup=/dev/ttyUSB0?model=603&entities=wobwobrt", "do next: When kmp2mqtt has read the meter once, run kmp2mqtt adopt wobwobrt"},
		{"no interval", former.WobwobRt, ", poll_interval: 28", "", "READ_INTERVAL", "-", "which was 5 minutes"},
		{"stop bits", former.WobwobRt, "{com_port: /dev/ttyUSB0}", "{com_port: /dev/ttyUSB0, stopbits: 1.5, parity: PARITY_EVEN, bytesize: 7, baudrate: 300}", "METERS", "kamstrup=/dev/ttyUSB0?baud=300&databits=7&parity=even&entities=wobwobrt", "1.5 stop bits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(minimal, tt.old, tt.new, 1)
			if tt.old != "" && text == minimal {
				t.Fatalf("%q is not there", tt.old)
			}
			m, err := former.Migrate(tt.reader, nil, file("config.yaml", text))
			if tt.name == "unknown table" { // an alias of something that does not exist yet
				if err == nil || !strings.Contains(err.Error(), "config.yaml: yaml: ") {
					t.Error(err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := setting(m, tt.variable); got != tt.value {
				t.Errorf("%s is %q, want %q", tt.variable, got, tt.value)
			}
			if !noted(m, tt.note) {
				t.Errorf("no note %q: %v", tt.note, m.Notes)
			}
			if setting(m, "METERS") == "-" {
				m.Settings = append(m.Settings, former.Setting{Variable: "METERS", Value: "sim://403"})
			}
			if _, err := parse(environ(m), certificate(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// What the environment says counts more than a file, a later file more than an earlier one.
func TestMigratePrecedence(t *testing.T) {
	m, err := former.Migrate(former.WobwobRt, []string{"MQTT_HOST=c", "PATH=/bin", "KAMSTRUP_POLL_INTERVAL=7", "port=/dev/ttyS9"},
		file("config.yaml", minimal), file("b.env", "MQTT_HOST=b\nMQTT_PORT=1884\n"))
	if err != nil {
		t.Fatal(err)
	}
	if setting(m, "MQTT_URL") != "mqtt://c:1884" || setting(m, "READ_INTERVAL") != "7m" || noted(m, "PATH") {
		t.Error(m)
	}
	m, err = former.Migrate(former.WobwobRt, []string{"SERIAL_COM_PORT=/dev/ttyUSB0"})
	if err != nil || setting(m, "METERS") != "kamstrup=/dev/ttyUSB0?entities=wobwobrt" {
		t.Errorf("%v, %v", m, err)
	}
}

// The forms in which an environment may come.
func TestMigrateEnvironments(t *testing.T) {
	for name, text := range map[string]string{
		"lines":         "\uFEFFMQTT_HOST=h\r\n\r\nSERIAL_COM_PORT=\"/dev/ttyUSB0\"\r\n",
		"list":          "- MQTT_HOST=h\n- SERIAL_COM_PORT=/dev/ttyUSB0\n",
		"table":         "MQTT_HOST: h\nSERIAL_COM_PORT: /dev/ttyUSB0\n",
		"environment":   "environment:\n  MQTT_HOST: h\n  SERIAL_COM_PORT: /dev/ttyUSB0\n",
		"compose list":  "services: {other: {environment: {A: b}}, x: {environment: [MQTT_HOST=h, SERIAL_COM_PORT=/dev/ttyUSB0]}}",
		"compose table": "services:\n  x:\n    image: wobwobrt/kamstrup2mqtt\n    environment: {MQTT_HOST: h, SERIAL_COM_PORT: /dev/ttyUSB0}\n",
		"JSON":          `{"MQTT_HOST": "h", "SERIAL_COM_PORT": "/dev/ttyUSB0"}`,
	} {
		m, err := former.Migrate(former.WobwobRt, nil, file("x", text))
		if err != nil || setting(m, "MQTT_URL") != "mqtt://h:1883" || setting(m, "METERS") != "kamstrup=/dev/ttyUSB0?entities=wobwobrt" {
			t.Errorf("%s: %v, %v", name, m.Settings, err)
		}
	}
}

// What cannot be understood is told with file and line, all of it at once.
func TestMigrateErrors(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'z'; c++ {
		prev := string(c - 1)
		bomb += string(c) + ": &" + string(c) + " [" + strings.TrimSuffix(strings.Repeat("*"+prev+",", 9), ",") + "]\n"
	}
	for _, tt := range []struct {
		name, reader, text string
		want               []string
	}{
		{"empty", former.KamstrupMQTT, "", []string{"former: old: is empty"}},
		{"comments", former.KamstrupMQTT, "# nothing\n", []string{"is empty"}},
		{"null", former.KamstrupMQTT, "~", []string{"line 1: is neither a table"}},
		{"scalar", former.KamstrupMQTT, "hello", []string{"line 1: is neither a table"}},
		{"not YAML", former.KamstrupMQTT, "mqtt:\n  host: [\n", []string{"former: old: yaml: line"}},
		{"two documents", former.KamstrupMQTT, minimal + "---\n" + minimal, []string{"line 4: holds a second document"}},
		{"alias", former.KamstrupMQTT, "x: &h h\nmqtt:\n  host: *h\n", []string{"line 3: mqtt.host: is an alias (\"*h\"); write a value"}},
		{"merge", former.KamstrupMQTT, "x: &x {host: h}\nmqtt:\n  <<: *x\n", []string{"line 3: a key that is a merge (<<) is not understood"}},
		{"bomb", former.KamstrupMQTT, bomb + "mqtt:\n  host: *y\n", []string{"line 27: mqtt.host: is an alias"}},
		{"deep", former.KamstrupMQTT, "mqtt: " + strings.Repeat("[", 100000), []string{"exceeded max depth"}},
		{"tag", former.KamstrupMQTT, "mqtt:\n  host: h\n  authentication: true\n  username: u\n  password: !secret mqtt\n", []string{"line 5: mqtt.password: is of the type \"!secret\""}},
		{"binary", former.KamstrupMQTT, "mqtt:\n  host: !!binary aGFsbG8=\n", []string{"line 2: mqtt.host: is of the type"}},
		{"table for a value", former.KamstrupMQTT, "mqtt:\n  host: {a: b}\n", []string{"line 2: mqtt.host: is a table; write a value"}},
		{"list for a value", former.KamstrupMQTT, "mqtt:\n  host: [a, b]\n", []string{"line 2: mqtt.host: is a list; write one value"}},
		{"value for a table", former.KamstrupMQTT, "mqtt: h\n", []string{"line 1: mqtt is of the type"}},
		{"twice", former.KamstrupMQTT, "mqtt:\n  host: a\n  port: 1\n  host: b\n", []string{"line 4: host is there twice, first in line 2"}},
		{"control character", former.KamstrupMQTT, "mqtt:\n  host: h\n  topic: \"a\\nb\"\n", []string{"line 3: mqtt.topic: holds a control character"}},
		{"all at once", former.KamstrupMQTT, "mqtt:\n  host: h/x\n  port: 70000\n  tls_enabled: maybe\nserial_device:\n  com_port: ttyUSB0\nkamstrup:\n  poll_interval: daily\n", []string{
			`line 2: mqtt.host: "h/x" is not`, `line 3: mqtt.port: "70000" is not a port`, `line 4: mqtt.tls_enabled: "maybe" is neither`, `line 6: serial_device.com_port: "ttyUSB0" is neither`, `line 8: kamstrup.poll_interval: "daily" is not a number of minutes`,
		}},
		{"not a number", former.KamstrupMQTT, strings.Replace(minimal, "28", "nan", 1), []string{`"nan" is not a number`}},
		{"line without port", former.KamstrupMQTT, strings.Replace(minimal, "/dev/ttyUSB0", "socket://host", 1), []string{`"socket://host" is not socket://host:port`}},
		{"root", former.KamstrupMQTT, strings.Replace(minimal, "/dev/ttyUSB0", "/.", 1), []string{`"/." is neither the path`}},
		{"baud", former.WobwobRt, "SERIAL_COM_PORT=/dev/ttyUSB0\nSERIAL_BAUDRATE=fast\nSERIAL_PARITY=x\nSERIAL_STOPBITS=3\nSERIAL_BYTESIZE=80\nSERIAL_TIMEOUT=-1\n", []string{
			"line 2: serial_device.baudrate", "line 3: serial_device.parity", "line 4: serial_device.stopbits", "line 5: serial_device.bytesize", "line 6: serial_device.timeout",
		}},
		{"nothing of it", former.WobwobRt, "A=b\n", []string{"the environment: there are no settings"}},
		{"another reader's", former.KamstrupMQTT, "MQTT_HOST=h\n", []string{"there are no settings; name the file config.yaml"}},
		{"environment", former.WobwobRt, "environment: 7\n", []string{"line 1: the environment is of the type"}},
		{"environment of tables", former.WobwobRt, "environment:\n  MQTT_HOST: {a: b}\n  MQTT_PORT: [1]\n", []string{"line 2: MQTT_HOST is a table", "line 3: MQTT_PORT is a list"}},
		{"environment of lists", former.WobwobRt, "- [MQTT_HOST=h]\n", []string{"line 1: a variable is a list"}},
		{"two services", former.WobwobRt, "services:\n  a: {environment: {SERIAL_COM_PORT: /dev/a}}\n  b: {environment: [SERIAL_COM_PORT=/dev/b]}\n", []string{"several services could be it (a, b)"}},
		{"no service", former.WobwobRt, "services:\n  a: {environment: {A: b}}\n", []string{"none of the services"}},
		{"services", former.WobwobRt, "services: 7\n", []string{"none of the services"}},
		{"no entry", former.Golles, `{"data":{"entries":[{"domain":"sun"}]}}`, []string{"kamstrup_403 is not among the entries"}},
		{"switched off", former.Golles, `{"data":{"entries":[{"domain":"kamstrup_403","disabled_by":"user","data":{"port":"/dev/a"}}]}}`, []string{"switched off"}},
		{"entries", former.Golles, `{"data":{"entries":{}}}`, []string{"data.entries is a table"}},
		{"one port twice", former.Golles, `{"data":{"entries":[{"domain":"kamstrup_403","data":{"port":"/dev/a"}},{"domain":"kamstrup_403","data":{"port":"/dev//a"}}]}}`, []string{"is that of another entry"}},
		{"options", former.Golles, "port: /dev/ttyUSB0\nscan_interval: hourly\ntimeout: long\nbaudrate: fast\n", []string{"line 2: scan_interval", "line 3: timeout", "line 4: baudrate"}},
		{"no options", former.Golles, "a: b\n", []string{"there are no options"}},
		{"not text", former.KamstrupMQTT, "mqtt: \xff\n", []string{"is not UTF-8 text"}},
		{"too large", former.KamstrupMQTT, "#" + strings.Repeat(" ", 1<<20), []string{"is larger than 1048576 bytes"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := former.Migrate(tt.reader, nil, file("old", tt.text))
			var in *former.InputError
			if !errors.As(err, &in) || len(m.Settings) > 0 {
				t.Fatalf("%v, %v", m, err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want %q", err, want)
				}
			}
			if n := strings.Count(err.Error(), "\n") + 1; n != len(tt.want) {
				t.Errorf("%d errors instead of %d: %v", n, len(tt.want), err)
			}
		})
	}
	if _, err := former.Migrate("vzlogger", nil); !errors.Is(err, former.ErrReader) || !strings.Contains(err.Error(), strings.Join(former.Readers(), ", ")) {
		t.Error(err)
	}
	if _, err := former.Migrate(former.Golles, nil, former.File{Name: "x", Content: iotest.ErrReader(io.ErrClosedPipe)}); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

// Every name of another reader is a register that the catalog knows, and no register has two.
func TestParameters(t *testing.T) {
	for _, list := range [][]former.Parameter{former.Parameters(), former.WobwobRtParameters(), former.GollesEntities()} {
		seen := map[uint16]string{}
		for _, p := range list {
			if other := seen[p.Register]; other != "" {
				t.Errorf("%s and %s are both register %d", p.Name, other, p.Register)
			}
			seen[p.Register] = p.Name
			if catalog.Lookup(p.Register).Source == "" {
				t.Errorf("%s: register %d is not in the catalog", p.Name, p.Register)
			}
		}
	}
	if p, ok := former.ByParameter("MinFlowDate_m"); !ok || p.Register != 140 {
		t.Error(p, ok)
	}
}

// The tables in the documents are those of the program.
func TestMigrateTables(t *testing.T) {
	for _, reader := range former.Readers() {
		name := filepath.Join("..", "..", "docs", "migrate-"+reader+".md")
		page, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"settings", "values"} {
			var want bytes.Buffer
			if err := former.WriteTable(&want, reader, part == "values"); err != nil {
				t.Fatal(err)
			}
			begin, end := "<!-- "+part+":begin -->\n", "<!-- "+part+":end -->"
			before, rest, found := strings.Cut(string(page), begin)
			got, after, ended := strings.Cut(rest, end)
			if !found || !ended {
				t.Fatalf("%s has no %s...%s", name, begin, end)
			}
			if *update {
				got = want.String()
				page = []byte(before + begin + got + end + after)
				if err := os.WriteFile(name, page, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got != want.String() {
				t.Errorf("%s is not what the program says: go test ./bridge/former -update-migrate", name)
			}
		}
	}
}

// The table for ESPHome, which is written by hand, names registers as the catalog does.
func TestESPHomeTable(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "migrate-esphome.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `[a-z0-9_]+` \\| `([a-z0-9_]+)` \\| ([0-9]+) \\|$").FindAllStringSubmatch(string(page), -1)
	if len(rows) != 7 {
		t.Errorf("%d rows", len(rows))
	}
	for _, row := range rows {
		if r, ok := catalog.ByName(row[1]); !ok || strconv.Itoa(int(r.ID)) != row[2] {
			t.Errorf("%q is register %d", row, r.ID)
		}
	}
}

// check has the bridge take the settings of a migration that succeeded.
func check(t *testing.T, m former.Migration, certificates []byte) {
	t.Helper()
	var env, notes bytes.Buffer
	if err := cmp.Or(m.WriteEnv(&env), m.WriteText(&notes)); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(env.String()) {
		name, _, _ := strings.Cut(line, "=")
		if line != "\n" && line[0] != '#' && !slices.ContainsFunc(m.Settings, func(s former.Setting) bool { return s.Variable == name }) {
			t.Fatalf("%q is no setting", line)
		}
	}
	meters := setting(m, "METERS")
	switch {
	case meters == "-":
		m.Settings = append(m.Settings, former.Setting{Variable: "METERS", Value: "sim://403"})
	case strings.Contains(strings.ToUpper(meters), "=COM"):
		return // a port of Windows
	}
	if _, err := parse(environ(m), certificates); err != nil {
		t.Fatalf("%v\n%s", err, env.String())
	}
}

// Whatever a file holds: no panic, errors that say where, and settings that the bridge takes.
func FuzzMigrate(f *testing.F) {
	for _, s := range samples {
		f.Add(byte(slices.Index(former.Readers(), s.reader)), sample(f, s.file))
	}
	f.Add(byte(0), []byte(minimal))
	f.Add(byte(1), []byte("SERIAL_COM_PORT='/dev/x'\nMQTT_PASSWORD=a'b\"c\n"))
	certificates := certificate(f)
	f.Fuzz(func(t *testing.T, n byte, text []byte) {
		reader := former.Readers()[int(n)%len(former.Readers())]
		m, err := former.Migrate(reader, nil, former.File{Name: "old", Content: bytes.NewReader(text)})
		if err == nil {
			check(t, m, certificates)
		} else if in := new(former.InputError); !errors.As(err, &in) || len(m.Settings) > 0 {
			t.Fatal(err)
		}
	})
}

// Whatever a setting is set to, while all others are good.
func FuzzMigrateValue(f *testing.F) {
	keys := []string{
		"mqtt.host", "mqtt.port", "mqtt.client", "mqtt.topic", "mqtt.qos", "mqtt.retain", "mqtt.authentication", "mqtt.username", "mqtt.password",
		"mqtt.tls_enabled", "mqtt.tls_ca_cert", "mqtt.tls_cert", "mqtt.tls_key", "mqtt.tls_key_password", "mqtt.tls_insecure", "mqtt.tls_version",
		"mqtt.device_id", "mqtt.device_name", "serial_device.url", "serial_device.com_port", "serial_device.baudrate", "serial_device.parity",
		"serial_device.stopbits", "serial_device.bytesize", "serial_device.timeout", "kamstrup.parameters", "kamstrup.poll_interval",
		"kamstrup.version", "logging.level", "homeassistant.discovery_prefix", "port", "scan_interval", "timeout", "baudrate",
	}
	for i, value := range []string{"1", "-1", "yes", "a/b", "fd00::7", "socket://[::1]:2000/?x", "rfc2217://a:1", "hwgrep://10C4:EA60", "COM3", "/dev/../x y", "1e9", "0.5", "kmp2mqtt", "homeassistant", "energy,infoevent", "'\"\\$`", "WARN", "402", "E"} {
		for n := range 3 {
			f.Add(byte(n), byte(i), value)
			f.Add(byte(n), byte(i+len(keys)/2), value)
		}
	}
	certificates := certificate(f)
	f.Fuzz(func(t *testing.T, n, k byte, value string) {
		reader := former.Readers()[int(n)%len(former.Readers())]
		old := map[string]map[string]string{
			"mqtt":          {"host": "h", "port": "1883", "topic": "kamstrup", "authentication": "true", "username": "u", "password": "p", "tls_enabled": "true"},
			"serial_device": {"com_port": "/dev/ttyUSB0"}, "kamstrup": {"parameters": "energy", "poll_interval": "28"}, "logging": {}, "homeassistant": {},
		}
		options := map[string]string{"port": "/dev/ttyUSB0"}
		section, key, nested := strings.Cut(keys[int(k)%len(keys)], ".")
		if nested {
			old[section][key] = value
		} else {
			options[section] = value
		}
		var text []byte
		var err error
		if reader == former.Golles {
			text, err = json.Marshal(options)
		} else {
			text, err = json.Marshal(old)
		}
		if err != nil {
			t.Fatal(err)
		}
		m, err := former.Migrate(reader, nil, former.File{Name: "old", Content: bytes.NewReader(text)})
		if err == nil {
			check(t, m, certificates)
		} else if in := new(former.InputError); !errors.As(err, &in) || len(m.Settings) > 0 {
			t.Fatal(err)
		}
	})
}
