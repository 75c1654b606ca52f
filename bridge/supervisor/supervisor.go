// Package supervisor is what an app of Home Assistant needs to know of its surroundings: it
// turns the options that the owner set in Home Assistant, and the broker that the Supervisor
// knows, into the settings that every other installation has in its environment.
//
// [Environ] makes the settings. Where the owner has something to do first, such as naming a
// meter, [Explain] says so on the app's page instead of letting the app fail again and again.
package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Where an app finds everything (developers.home-assistant.io, Apps: configuration,
// communication and presentation).
const (
	optionsFile  = "/data/options.json"
	dataDir      = "/data"
	baseURL      = "http://supervisor"
	listen       = "0.0.0.0:8099"
	ingress      = "172.30.32.2"
	serialByID   = "/dev/serial/by-id"
	tokenSetting = "SUPERVISOR_TOKEN"
)

// The limits of what comes from outside.
const (
	maxOptions = 1 << 20 // bytes of options.json
	maxAnswer  = 1 << 16 // bytes of an answer of the Supervisor

	askTimeout = 10 * time.Second // for one answer of the Supervisor
	patience   = 2 * time.Minute  // for a Supervisor that is about to start
	longWait   = 15 * time.Second // between two questions
)

var (
	// ErrNoMeters says that the option meters is empty, as it is after the installation.
	ErrNoMeters = errors.New("no meter is set up yet: open the app's Configuration, add one under meters with a name and its device, save, and restart the app")
	// ErrNoBroker says that there is no MQTT broker, neither one that the Supervisor knows
	// nor one in the option mqtt_url.
	ErrNoBroker = errors.New("there is no MQTT broker: install and start the app Mosquitto broker, or set the option mqtt_url to a broker elsewhere, such as mqtt://192.0.2.10:1883")
)

// OptionError is one thing wrong with the options.
type OptionError struct {
	Option string // as it is called in the app's configuration: "meters"
	Meter  string // which of the meters: its name, or its place in the list; else empty
	Field  string // which field of the meter: "interval"; else empty
	Err    error  // what is wrong, and what to do
}

// Error names the option, then meter and field if there are any, then what is wrong.
func (e *OptionError) Error() string {
	var b strings.Builder
	b.WriteString("option " + e.Option + ": ")
	if e.Meter != "" {
		b.WriteString("meter " + e.Meter + ": ")
	}
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	b.WriteString(e.Err.Error())
	return b.String()
}

// Unwrap returns the cause.
func (e *OptionError) Unwrap() error { return e.Err }

// Options is what Environ needs to know of the world. An empty field is what an app has.
type Options struct {
	OptionsFile string       // empty: /data/options.json
	Base        string       // of the Supervisor's API; empty: http://supervisor
	Token       string       // for the Supervisor; empty: SUPERVISOR_TOKEN of Environ
	Client      *http.Client // nil: one that uses no proxy
	Environ     []string     // what the app was started with, as of os.Environ
	Log         *slog.Logger // nil: nothing is logged

	// For Explain.
	Listen  string     // empty: 0.0.0.0:8099
	Ingress netip.Addr // who may see the page; zero: 172.30.32.2
	Devices string     // directory of serial ports; empty: /dev/serial/by-id
}

// filled is o with everything that was left empty.
func (o Options) filled() Options {
	o.OptionsFile = cmp.Or(o.OptionsFile, optionsFile)
	o.Base = strings.TrimRight(cmp.Or(o.Base, baseURL), "/")
	o.Listen = cmp.Or(o.Listen, listen)
	o.Devices = cmp.Or(o.Devices, serialByID)
	if o.Token == "" {
		for _, e := range o.Environ {
			if v, ok := strings.CutPrefix(e, tokenSetting+"="); ok {
				o.Token = v
			}
		}
	}
	if !o.Ingress.IsValid() {
		o.Ingress = netip.MustParseAddr(ingress)
	}
	if o.Client == nil {
		o.Client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Environ returns the environment that the options and the Supervisor's broker make: all of
// o.Environ, and in it the settings of kmp2mqtt. The error joins an *OptionError for each
// thing that is wrong with the options, or is ErrNoMeters or ErrNoBroker, or says why the
// Supervisor did not answer within two minutes. It never holds a password.
func Environ(ctx context.Context, o Options) ([]string, error) {
	o = o.filled()
	content, err := readOptions(o.OptionsFile)
	if err != nil {
		return nil, err
	}
	chosen, err := parseOptions(content)
	if err != nil {
		return nil, err
	}
	s, err := chosen.settings()
	if err != nil {
		return nil, err
	}
	if chosen.MQTTURL == "" {
		b, err := o.await(ctx)
		if err != nil {
			return nil, err
		}
		s.set("MQTT_URL", b.url())
		s.set("MQTT_USERNAME", b.Username)
		s.set("MQTT_PASSWORD", b.Password)
	}
	s.set("DATA_DIR", dataDir)
	s.set("HTTP_LISTEN", listen)
	s.set("HTTP_INGRESS", ingress)
	return s.over(o.Environ), nil
}

// readOptions reads the file that the Supervisor writes when it starts the app.
func readOptions(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("supervisor: the app's options cannot be read: %w; the Supervisor writes them when it starts the app, outside of Home Assistant use the verb run", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("supervisor: %s is no ordinary file", name)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxOptions+1))
	if err != nil {
		return nil, fmt.Errorf("supervisor: the app's options cannot be read: %w", err)
	}
	if len(content) > maxOptions {
		return nil, fmt.Errorf("supervisor: the app's options are larger than %d bytes; remove what is not needed", maxOptions)
	}
	return content, nil
}

// settings are variables and their values.
type settings map[string]string

// set keeps a value that is not empty.
func (s settings) set(name, value string) {
	if value != "" {
		s[name] = value
	}
}

// over returns the environment with s in it. Variables that the options decide do not
// shine through where an option is empty.
func (s settings) over(environ []string) []string {
	var result []string
	for _, e := range environ {
		name, _, _ := strings.Cut(e, "=")
		if _, ours := s[name]; !ours && optionOf(name) == "" {
			result = append(result, e)
		}
	}
	names := make([]string, 0, len(s))
	for name := range s {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		result = append(result, name+"="+s[name])
	}
	return result
}

// optionOf is the option that decides a variable, or nothing.
func optionOf(variable string) string {
	switch variable {
	case "METERS":
		return "meters"
	case "READ_INTERVAL":
		return "interval"
	case "LOG_LEVEL":
		return "log_level"
	case "MQTT_URL":
		return "mqtt_url"
	case "MQTT_USERNAME":
		return "mqtt_username"
	case "MQTT_PASSWORD":
		return "mqtt_password"
	case "HTTP_USERNAME":
		return "page_username"
	case "HTTP_PASSWORD":
		return "page_password"
	}
	if slices.Contains(Names(), variable) {
		return "settings, " + variable
	}
	return ""
}

// variable finds the name of a variable where a line about a setting begins with it.
var variable = regexp.MustCompile(`(?m)^(\s*)([A-Z][A-Z_]+): `)

// Translate returns text about the settings with the names of the variables, where a line
// begins with one, replaced by those of the app's options: "METERS: is missing" becomes
// "option meters: is missing".
func Translate(text string) string {
	return variable.ReplaceAllStringFunc(text, func(found string) string {
		m := variable.FindStringSubmatch(found)
		if option := optionOf(m[2]); option != "" {
			return m[1] + "option " + option + ": "
		}
		return found
	})
}
