package bridge

import (
	"bufio"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/caarlos0/env/v10"
)

// settings is the environment as it came, one field a variable. It is the one table that
// the parser, the README's settings table and .env.example are made from: env and
// envDefault are read by caarlos0/env, default is what the documents show when that is
// not the value itself, group and doc explain, and secret marks what may come from a
// file named by the variable with _FILE and is never shown.
type settings struct {
	Meters       string `env:"METERS" group:"Meters" default:"(required)" example:"house=/dev/ttyUSB0" doc:"The meters: ~name=line~, several separated by white space. A line is ~/dev/ttyUSB0~, ~serial:///dev/serial/by-id/...~, ~tcp://host:port~ (also ~socket://~), ~rfc2217://host:port~, ~usb://VID:PID[/serial]~ or ~sim://403~. Without ~name=~ the serial number is the name. Options follow as a query: ~?interval=10m&registers=60,68,power&address=0x3F&timeout=2s&model=403&label=Heat%20meter&budget=96&continue=true&history=gaps&entities=golles&tz=Europe/Copenhagen&baud=1200&stopbits=2&warmup=2s~"`
	ReadInterval string `env:"READ_INTERVAL" group:"Meters" envDefault:"30m" doc:"How often each meter is read (1s to 168h); the first time as soon as its line is there. When it is not set, meters of electricity are read every minute, and water meters whose port closes after some readings every 6h. The battery of a MULTICAL is calculated for one reading an hour"`
	Registers    string `env:"REGISTERS" group:"Meters" default:"the model's usual ones" example:"energy,volume,power" doc:"What is read: ids (~60~, ~0x3C~) or names (~energy~), separated by commas"`

	MQTTURL      string `env:"MQTT_URL" group:"MQTT" secret:"url" default:"(built-in broker)" example:"mqtt://mosquitto:1883" doc:"The broker: ~mqtt://host:1883~, ~mqtts://~, ~ws://~ or ~wss://~; several, separated by white space, are tried in order"`
	MQTTUsername string `env:"MQTT_USERNAME" group:"MQTT" secret:"yes" doc:"User name at the broker"`
	MQTTPassword string `env:"MQTT_PASSWORD" group:"MQTT" secret:"yes" doc:"Password at the broker"`
	MQTTClientID string `env:"MQTT_CLIENT_ID" group:"MQTT" default:"made from topic and host name" doc:"Client id at the broker; two programs must not share one"`
	MQTTTopic    string `env:"MQTT_TOPIC" group:"MQTT" envDefault:"kmp2mqtt" doc:"Base of all topics"`
	MQTTCAFile   string `env:"MQTT_CA_FILE" group:"MQTT" default:"the system's" doc:"Certificate authorities that may sign the broker's certificate, PEM"`
	MQTTCertFile string `env:"MQTT_CERT_FILE" group:"MQTT" doc:"Client certificate, PEM"`
	MQTTKeyFile  string `env:"MQTT_KEY_FILE" group:"MQTT" doc:"Key of the client certificate, PEM"`
	MQTTValues   string `env:"MQTT_VALUES" group:"MQTT" envDefault:"false" doc:"Also publish every value as plain text on a topic of its own"`
	MQTTListen   string `env:"MQTT_LISTEN" group:"MQTT" envDefault:"127.0.0.1:1883" doc:"Where the built-in broker listens when MQTT_URL is not set; beyond loopback it demands MQTT_USERNAME and MQTT_PASSWORD"`
	MQTTCompat   string `env:"MQTT_COMPAT" group:"MQTT" default:"(nothing)" example:"kamstrup-402-mqtt" doc:"Also publish as another reader did, for what was built on it: ~kamstrup-402-mqtt~ (one JSON object on ~kamstrup/values~, or ~topic/values~ with ~MQTT_COMPAT=kamstrup-402-mqtt:topic~)"`

	HADiscovery string `env:"HA_DISCOVERY" group:"Home Assistant" envDefault:"true" doc:"Announce meters and bridge to Home Assistant"`
	HAPrefix    string `env:"HA_PREFIX" group:"Home Assistant" envDefault:"homeassistant" doc:"Home Assistant's discovery prefix"`
	HAURL       string `env:"HA_URL" group:"Home Assistant" default:"(no import)" example:"http://homeassistant.local:8123" doc:"Home Assistant itself, to import the hours that the meter remembers into its statistics; needs ~HA_TOKEN~ and ~DATA_DIR~. Inside an app it is found by itself"`
	HAToken     string `env:"HA_TOKEN" group:"Home Assistant" secret:"yes" example:"eyJhbGciOiJIUzI1NiJ9..." doc:"Long-lived access token of an administrator of Home Assistant"`

	HTTPListen   string `env:"HTTP_LISTEN" group:"Page" envDefault:"127.0.0.1:8099" doc:"Where the page, the API, ~/metrics~ and ~/healthz~ are served; ~off~ or empty: nowhere. Beyond loopback it demands HTTP_USERNAME and HTTP_PASSWORD, or HTTP_INGRESS"`
	HTTPUsername string `env:"HTTP_USERNAME" group:"Page" secret:"yes" doc:"User name for the page"`
	HTTPPassword string `env:"HTTP_PASSWORD" group:"Page" secret:"yes" doc:"Password for the page"`
	HTTPIngress  string `env:"HTTP_INGRESS" group:"Page" default:"(none)" example:"172.30.32.2" doc:"Address of Home Assistant's ingress, which has checked who comes: it needs no password. The app sets it"`

	DataDir string `env:"DATA_DIR" group:"Data" default:"(nothing is kept)" example:"/var/lib/kmp2mqtt" doc:"Where what must survive a restart is kept: which registers each meter has, what guards its counters, what its battery was asked for, and the rows of its logs. One small JSON file, and a database of the rows"`

	LogLevel  string `env:"LOG_LEVEL" group:"Log" envDefault:"info" doc:"~debug~ (every frame in hex), ~info~, ~warn~ or ~error~"`
	LogFormat string `env:"LOG_FORMAT" group:"Log" envDefault:"text" doc:"~text~ (coloured on a terminal) or ~json~"`
}

// field is one row of the settings table.
type field struct {
	name    string // of the variable
	initial string // what the parser takes when the variable is not set
	shown   string // the default as the documents show it
	group   string
	example string
	secret  string // "": no; "yes": the value; "url": a part of it
	doc     string
	index   int // in settings
}

// value is the field's value in s.
func (f field) value(s *settings) string { return reflect.ValueOf(s).Elem().Field(f.index).String() }

// fields lists the settings in the order in which they are documented.
func fields() []field {
	params, err := env.GetFieldParams(new(settings))
	if err != nil {
		panic("bridge: the settings table is wrong: " + err.Error()) // a typing error in the struct above; every test sees it
	}
	list := make([]field, 0, len(params))
	t := reflect.TypeFor[settings]()
	for i, p := range params {
		tag := t.Field(i).Tag
		f := field{
			name: p.Key, initial: p.DefaultValue, shown: tag.Get("default"), index: i,
			group: tag.Get("group"), example: tag.Get("example"), secret: tag.Get("secret"), doc: tag.Get("doc"),
		}
		if f.shown == "" {
			f.shown = f.initial
		}
		list = append(list, f)
	}
	return list
}

// SettingNames lists the variables in the order in which they are documented.
func SettingNames() []string {
	var names []string
	for _, f := range fields() {
		names = append(names, f.name)
	}
	return names
}

// WriteSettingsTable writes the settings as a table in Markdown, for the README.
func WriteSettingsTable(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintln(b, "| variable | default | meaning |")
	fmt.Fprintln(b, "|---|---|---|")
	for _, f := range fields() {
		shown := f.shown
		if shown != "" && shown == f.initial {
			shown = "`" + shown + "`"
		}
		name := "`" + f.name + "`"
		if f.secret != "" {
			name += ", `" + f.name + "_FILE`"
		}
		doc := strings.ReplaceAll(f.doc, "~", "`")
		fmt.Fprintf(b, "| %s | %s | %s |\n", name, shown, strings.ReplaceAll(doc, "|", "\\|"))
	}
	return b.Flush()
}

// WriteEnvExample writes the settings as a file for docker compose (.env.example): every
// variable with its explanation, commented out unless it is required.
func WriteEnvExample(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintln(b, "# Settings of kmp2mqtt. Copy this file to .env and edit it.")
	fmt.Fprintln(b, "# Every secret X may come from a file instead: X_FILE=/run/secrets/x.")
	group := ""
	for _, f := range fields() {
		if f.group != group {
			group = f.group
			fmt.Fprintf(b, "\n# --- %s ---\n", group)
		}
		fmt.Fprintln(b)
		doc := strings.ReplaceAll(f.doc, "~", "")
		if f.shown != "" && f.shown != f.initial && f.shown != "(required)" {
			doc += ". Default: " + strings.Trim(f.shown, "()")
		}
		for _, line := range wrap(doc+".", 96) {
			fmt.Fprintln(b, "# "+line)
		}
		value := f.initial
		if f.example != "" {
			value = f.example
		}
		if f.shown != "(required)" {
			fmt.Fprint(b, "#")
		}
		fmt.Fprintf(b, "%s=%s\n", f.name, value)
	}
	return b.Flush()
}

// wrap breaks text into lines of at most width bytes where its words allow it.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
