package supervisor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// chosen is what the owner set in Home Assistant, as options.json has it. Its names are
// those of deploy/homeassistant/kmp2mqtt/config.yaml.
type chosen struct {
	Meters       []meter   `json:"meters"`
	Interval     int       `json:"interval"` // minutes
	LogLevel     string    `json:"log_level"`
	MQTTURL      string    `json:"mqtt_url"`
	MQTTUsername string    `json:"mqtt_username"`
	MQTTPassword string    `json:"mqtt_password"`
	PageUsername string    `json:"page_username"`
	PagePassword string    `json:"page_password"`
	Settings     []setting `json:"settings"`
}

// meter is one entry of the option meters.
type meter struct {
	Name     string `json:"name"`
	Device   string `json:"device"` // path of a serial port
	URL      string `json:"url"`    // any other line
	Interval int    `json:"interval"`
	Label    string `json:"label"`
	Model    string `json:"model"`
	Options  string `json:"options"` // a query: "address=0x3F&budget=48"
}

// setting is one entry of the option settings.
type setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Names are the variables that the option settings may set: those that have no option of
// their own and that an app does not need for itself.
func Names() []string {
	return []string{"HA_DISCOVERY", "HA_PREFIX", "LOG_FORMAT", "MQTT_CLIENT_ID", "MQTT_COMPAT", "MQTT_TOPIC", "MQTT_VALUES", "REGISTERS"}
}

// parseOptions reads options.json. Options that are not known are left alone: the
// Supervisor has removed them already, or they belong to another version.
func parseOptions(content []byte) (chosen, error) {
	var c chosen
	if !bytes.HasPrefix(bytes.TrimSpace(content), []byte("{")) {
		return chosen{}, errors.New("supervisor: the app's options are no JSON object; save them again in Home Assistant")
	}
	err := json.Unmarshal(content, &c)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		option, field, _ := strings.Cut(wrong.Field, ".")
		return chosen{}, &OptionError{Option: option, Field: field, Err: fmt.Errorf("%s stands where %s belongs; correct it in the app's Configuration", wrong.Value, kindOf(wrong.Type.Kind().String()))}
	}
	if err != nil {
		return chosen{}, fmt.Errorf("supervisor: the app's options are damaged (%w); save them again in Home Assistant", err)
	}
	return c, nil
}

// kindOf is a kind of Go in an owner's words.
func kindOf(kind string) string {
	switch kind {
	case "int":
		return "a whole number"
	case "slice":
		return "a list"
	case "struct":
		return "an entry with fields"
	}
	return "text"
}

// settings turns the options into variables. The error joins one *OptionError for each
// thing that is wrong, or is ErrNoMeters.
func (c chosen) settings() (settings, error) {
	s := make(settings)
	var errs []error
	var words []string
	for i, m := range c.Meters {
		word, wrong := m.word(i)
		errs = append(errs, wrong...)
		words = append(words, word)
	}
	s.set("METERS", strings.Join(words, " "))
	if c.Interval < 0 {
		errs = append(errs, &OptionError{Option: "interval", Err: fmt.Errorf("%d is no number of minutes; write 1 to 10080, or leave it empty", c.Interval)})
	}
	s.set("READ_INTERVAL", minutes(c.Interval))
	s.set("LOG_LEVEL", c.LogLevel)
	s.set("MQTT_URL", c.MQTTURL)
	s.set("MQTT_USERNAME", c.MQTTUsername)
	s.set("MQTT_PASSWORD", c.MQTTPassword)
	s.set("HTTP_USERNAME", c.PageUsername)
	s.set("HTTP_PASSWORD", c.PagePassword)
	for _, given := range []struct{ option, value string }{{"mqtt_username", c.MQTTUsername}, {"mqtt_password", c.MQTTPassword}} {
		if c.MQTTURL == "" && given.value != "" {
			errs = append(errs, &OptionError{Option: given.option, Err: errors.New("is for the broker in mqtt_url, which is empty: set mqtt_url, or clear this one; the broker of Home Assistant tells its own password")})
		}
	}
	for _, given := range c.Settings {
		switch {
		case !slices.Contains(Names(), given.Name):
			errs = append(errs, &OptionError{Option: "settings", Err: fmt.Errorf("%s cannot be set here; there are %s", quote(given.Name), strings.Join(Names(), ", "))})
		case s[given.Name] != "":
			errs = append(errs, &OptionError{Option: "settings", Err: fmt.Errorf("%s is there twice; keep one of them", given.Name)})
		}
		s.set(given.Name, given.Value)
	}
	for name, value := range s {
		if strings.ContainsRune(value, 0) { // no variable can hold it
			errs = append(errs, &OptionError{Option: optionOf(name), Err: errors.New("holds a zero byte; write it again")})
		}
	}
	switch {
	case len(errs) > 0:
		return nil, errors.Join(errs...)
	case len(c.Meters) == 0:
		return nil, ErrNoMeters
	}
	return s, nil
}

// minutes is a duration as the settings have it; 0 is none.
func minutes(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n) + "m"
}

// quote is foreign text that stands in a message: short, and on one line.
func quote(s string) string {
	if len(s) > 60 {
		s = s[:60] + "…"
	}
	return strconv.QuoteToGraphic(strings.ToValidUTF8(s, "�"))
}

// word is the meter as an entry of METERS, name=line?options. Whatever stands in a field
// stays in its place: nothing can end the entry or add an option, except in url and options,
// which are there to hold them.
func (m meter) word(i int) (string, []error) {
	who := strconv.Itoa(i + 1)
	if m.Name != "" {
		who = quote(m.Name)
	}
	var errs []error
	fail := func(field, format string, args ...any) {
		errs = append(errs, &OptionError{Option: "meters", Meter: who, Field: field, Err: fmt.Errorf(format, args...)})
	}
	if m.Name == "" {
		fail("name", "is empty; write a short one such as house")
	} else if strings.ContainsFunc(m.Name, notInName) {
		fail("name", "only letters a to z, digits, - and _ are allowed; what people should read goes into label")
	}

	address, line := strings.TrimSpace(m.URL), ""
	switch {
	case m.Device != "" && address != "":
		fail("url", "device is set, too; keep one of them")
	case m.Device != "":
		if !strings.HasPrefix(m.Device, "/dev/") {
			fail("device", "%s is no path that begins with /dev/; choose one from the list, or write a network address into url", quote(m.Device))
		}
		line = (&url.URL{Path: m.Device}).EscapedPath()
	case address == "":
		fail("device", "is empty, and so is url; choose the optical head's device, or write a url such as tcp://192.0.2.7:2001")
	case strings.ContainsFunc(address, unicode.IsSpace):
		fail("url", "holds white space; remove it, or write it as %%20")
	default:
		line = address
	}

	place, query, _ := strings.Cut(line, "?")
	options := newQuery(func(format string, args ...any) { fail("options", format, args...) })
	for part := range strings.SplitSeq(query, "&") {
		options.keep(part)
	}
	for part := range strings.SplitSeq(strings.TrimPrefix(strings.TrimSpace(m.Options), "?"), "&") {
		options.parse(part)
	}
	if m.Interval < 0 {
		fail("interval", "%d is no number of minutes; write 1 to 10080, or leave it empty", m.Interval)
	}
	options.add("interval", minutes(m.Interval))
	options.add("label", m.Label)
	options.add("model", m.Model)
	if len(options.parts) > 0 {
		place += "?" + strings.Join(options.parts, "&")
	}
	return m.Name + "=" + place, errs
}

func notInName(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_':
		return false
	}
	return true
}

// query gathers the options of one meter.
type query struct {
	parts []string
	names map[string]bool
	fail  func(format string, args ...any)
}

func newQuery(fail func(format string, args ...any)) *query {
	return &query{names: make(map[string]bool), fail: fail}
}

// keep takes an option as a url has it; the settings judge it.
func (q *query) keep(part string) {
	if part == "" {
		return
	}
	name, _, _ := strings.Cut(part, "=")
	if unescaped, err := url.QueryUnescape(name); err == nil {
		name = unescaped
	}
	q.names[name] = true
	q.parts = append(q.parts, part)
}

// parse takes one name=value of the field options.
func (q *query) parse(part string) {
	part = strings.TrimSpace(part)
	if part == "" {
		return
	}
	name, value, found := strings.Cut(part, "=")
	if !found || name == "" || strings.ContainsFunc(name, notInName) {
		q.fail("%s is not name=value; write options such as address=0x3F&budget=48", quote(part))
		return
	}
	plain, err := url.QueryUnescape(value)
	if err != nil {
		q.fail("%s: a %% that is part of a value is written %%25", name)
		return
	}
	if plain == "" {
		q.fail("%s has no value; write %s=... or remove it", name, name)
		return
	}
	q.add(name, plain)
}

// add takes an option with its value as it is; an empty one is none.
func (q *query) add(name, value string) {
	if value == "" {
		return
	}
	if q.names[name] {
		q.fail("%s is set twice; keep one of them", name)
		return
	}
	q.names[name] = true
	q.parts = append(q.parts, name+"="+url.QueryEscape(value))
}
