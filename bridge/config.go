package bridge

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/caarlos0/env/v10"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

// The limits of the settings that carry a number.
const (
	// MinInterval and MaxInterval bound READ_INTERVAL and the interval of a meter.
	// A second is what a demonstration needs; a real meter renews its values every
	// 2 to 64 s, and its battery is calculated for one reading an hour.
	MinInterval = time.Second
	MaxInterval = 7 * 24 * time.Hour

	// MinTimeout and MaxTimeout bound the option timeout of a meter: how long it may
	// take to the first byte of an answer. Meters need up to 1.6 s.
	MinTimeout = 100 * time.Millisecond
	MaxTimeout = time.Minute

	// DefaultBudget stands for the budget of a meter that is not told one: BatteryBudget
	// readings a day where a battery feeds the meter, else no limit.
	DefaultBudget = -1
	BatteryBudget = 96
	// MaxBudget bounds the option budget: a reading every second.
	MaxBudget = 86400

	// MaxMeters and MaxRegisters keep a mistyped setting from becoming an endless reading.
	MaxMeters    = 10000
	MaxRegisters = 128

	// DefaultHTTPListen is where the page is unless the settings say something else.
	DefaultHTTPListen = "127.0.0.1:8099"

	maxNameLength  = 64
	maxTopicLength = 200
	maxFileSize    = 1 << 20
)

// Config is the program's settings after every check.
type Config struct {
	Meters    []MeterConfig
	MQTT      MQTTConfig // URLs empty: the built-in broker
	Values    bool       // every value also on its own topic
	Listen    string     // host:port of the built-in broker
	Discovery bool       // announce to Home Assistant
	DataDir   string     // what survives a restart; empty: nothing does
	HTTP      HTTPConfig // Listen empty: no page
	Compat    string     // topic below which kamstrup-402-mqtt's values are published as well; empty: nowhere
	HAURL     *url.URL   // Home Assistant, for its statistics; nil: nothing is imported
	HAToken   string
	LogLevel  slog.Level
	LogFormat string // "text" or "json"

	shown map[string]string // what Redacted returns
}

// HTTPConfig says where the page is and who may see it.
type HTTPConfig struct {
	Listen             string // host:port
	Username, Password string
	Ingress            netip.Addr // whose requests need no password; zero: none
}

// MeterConfig is one entry of METERS with the defaults of the other settings filled in.
type MeterConfig struct {
	Name      string        // topic level; empty: the serial number, once it is known
	Line      string        // canonical, for the dialer; equal strings are the same line
	ByteTime  time.Duration // time of one byte on the line
	Address   kmp.Address
	Interval  time.Duration
	Chosen    bool           // somebody chose the interval; else it follows the kind of meter
	Budget    int            // readings a day; 0: no limit; DefaultBudget: as the kind of meter needs it
	Continue  bool           // another meter in this place continues the counters of the former
	Timeout   time.Duration  // to the first byte of an answer; 0: the protocol's default
	Registers []uint16       // empty: the model's usual ones
	Model     string         // name in package catalog; empty: what the meter says
	Label     string         // name for people; empty: made from Name
	History   HistoryMode    // what is read of the meter's own logs; empty: HistoryGaps
	Zone      *time.Location // where the meter's clock runs; nil: the local zone
	Entities  string         // whose names Home Assistant's entities keep: "wobwobrt" or "golles"; empty: our own
}

// HistoryMode says what is read of a meter's own logs.
type HistoryMode string

// The history modes.
const (
	// HistoryGaps reads what the bridge missed when contact returns, and once a day what
	// else is new, so that the rows that are kept have no hole.
	HistoryGaps HistoryMode = "gaps"
	// HistoryHour reads every new hour with the next reading.
	HistoryHour HistoryMode = "hour"
	// HistoryOff reads nothing.
	HistoryOff HistoryMode = "off"
)

// zone is where the meter's clock runs.
func (m MeterConfig) zone() *time.Location {
	if m.Zone == nil {
		return time.Local
	}
	return m.Zone
}

// ConfigError is one thing wrong with the settings. Its text begins with the name of the
// variable.
type ConfigError struct {
	Variable string // "METERS"
	Meter    string // which meter of METERS: its name, or its line; else empty
	Option   string // which option of the meter; else empty
	Err      error
}

// Error names the variable, then meter and option if there are any, then what is wrong.
func (e *ConfigError) Error() string {
	var b strings.Builder
	b.WriteString(e.Variable)
	b.WriteString(": ")
	if e.Meter != "" {
		fmt.Fprintf(&b, "meter %s: ", e.Meter)
	}
	if e.Option != "" {
		fmt.Fprintf(&b, "option %s: ", e.Option)
	}
	b.WriteString(e.Err.Error())
	return b.String()
}

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

// ParseOptions is what ParseConfig needs to know of the world.
type ParseOptions struct {
	// ParseLine judges a line's URL, freed of the options that belong to the meter: it
	// returns the canonical form and the time of one byte. Required.
	ParseLine func(raw string) (line string, byteTime time.Duration, err error)
	// ReadFile reads secrets, certificates and keys; nil reads real files.
	ReadFile func(name string) ([]byte, error)
	// Hostname goes into the default client id, so that two hosts do not share one.
	Hostname string
}

// ParseConfig turns an environment ("NAME=value" strings, as of os.Environ) into checked
// settings. The error joins one *ConfigError for each thing that is wrong; the
// configuration is of no use then.
func ParseConfig(environ []string, opts ParseOptions) (Config, error) {
	p := parser{opts: opts, environment: toMap(environ)}
	if p.opts.ReadFile == nil {
		p.opts.ReadFile = readSmall
	}
	p.nearMisses()
	raw := p.raw()
	c := Config{shown: p.show(raw)}

	interval := p.interval("READ_INTERVAL", raw.ReadInterval)
	registers, err := parseRegisters(raw.Registers)
	if err != nil {
		p.fail("REGISTERS", err)
	}
	p.mqtt(&c, raw)
	c.Meters = p.meters(raw.Meters, interval, p.environment["READ_INTERVAL"] != "", registers)
	p.entities(c.Meters)
	c.Values = p.boolean("MQTT_VALUES", raw.MQTTValues)
	c.Discovery = p.boolean("HA_DISCOVERY", raw.HADiscovery)
	p.page(&c, raw)
	p.compat(&c, raw.MQTTCompat)
	if c.DataDir = raw.DataDir; strings.ContainsRune(c.DataDir, 0) {
		p.fail("DATA_DIR", errors.New("holds a zero byte"))
	}

	if c.LogLevel, err = parseLevel(raw.LogLevel); err != nil {
		p.fail("LOG_LEVEL", err)
	}
	p.homeAssistant(&c, raw)
	c.LogFormat = strings.ToLower(raw.LogFormat)
	if c.LogFormat != "text" && c.LogFormat != "json" {
		p.fail("LOG_FORMAT", fmt.Errorf("%q is neither text nor json", raw.LogFormat))
	}
	if len(p.errs) > 0 {
		return Config{}, errors.Join(p.errs...)
	}
	return c, nil
}

// Redacted returns the settings in force by the names of their variables, with
// everything secret replaced. The map is the caller's own.
func (c Config) Redacted() map[string]string {
	return maps.Clone(c.shown)
}

// redacted stands for a secret.
const redacted = "***"

// parser collects every error on the way.
type parser struct {
	opts        ParseOptions
	environment map[string]string
	errs        []error
}

func (p *parser) fail(variable string, err error) {
	p.errs = append(p.errs, &ConfigError{Variable: variable, Err: err})
}

func toMap(environ []string) map[string]string {
	m := make(map[string]string, len(environ))
	for _, e := range environ {
		if name, value, ok := strings.Cut(e, "="); ok && name != "" {
			m[name] = value
		}
	}
	return m
}

// raw reads the environment into its struct, with secrets taken from files where a file
// is named.
func (p *parser) raw() settings {
	environment := make(map[string]string, len(p.environment))
	for name, value := range p.environment {
		environment[name] = strings.TrimSpace(value)
	}
	for _, f := range fields() {
		if f.secret == "" {
			continue
		}
		if f.secret == "yes" { // a password may begin with a space
			if v, ok := p.environment[f.name]; ok {
				environment[f.name] = v
			}
		}
		file := environment[f.name+"_FILE"]
		switch {
		case file == "":
		case environment[f.name] != "":
			p.fail(f.name+"_FILE", fmt.Errorf("%s is set, too; keep one of them", f.name))
		default:
			content, err := p.readFile(file)
			if err != nil {
				p.fail(f.name+"_FILE", err)
				continue
			}
			if environment[f.name] = strings.TrimRight(string(content), "\r\n"); environment[f.name] == "" {
				p.fail(f.name+"_FILE", fmt.Errorf("%s is empty", file))
			}
		}
	}
	var raw settings
	if err := env.ParseWithOptions(&raw, env.Options{Environment: environment}); err != nil {
		// Every field is a string, so nothing in the environment can lead here.
		p.errs = append(p.errs, fmt.Errorf("bridge: settings: %w", err))
	}
	return raw
}

func (p *parser) readFile(name string) ([]byte, error) {
	content, err := p.opts.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read the file: %w", err)
	}
	if len(content) > maxFileSize {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, maxFileSize)
	}
	return content, nil
}

// readSmall reads a file whose size does not exceed maxFileSize by more than a byte. It waits
// neither for the writer of a pipe nor for the end of a device.
func readSmall(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFileSize+1))
}

func (p *parser) show(raw settings) map[string]string {
	shown := make(map[string]string)
	for _, f := range fields() {
		value := f.value(&raw)
		switch {
		case value == "":
		case f.secret == "yes":
			value = redacted
		case f.secret == "url" || f.name == "METERS" || f.name == "HA_URL":
			value = redactURLs(value)
		}
		shown[f.name] = value
	}
	return shown
}

// redactURLs hides the password in each of several URLs, with or without a name before
// them.
func redactURLs(s string) string {
	words := strings.Fields(s)
	for i, w := range words {
		name, line, named := splitName(w)
		if named {
			name += "="
		}
		words[i] = name + redactURL(line)
	}
	return strings.Join(words, " ")
}

// redactURL hides user and password in a URL: a user may be a token. It does not parse: a
// password that breaks the URL, or a URL without its scheme, must not show either.
func redactURL(s string) string {
	scheme, rest, found := strings.Cut(s, "://")
	if !found {
		scheme, rest = "", s
	}
	end := strings.LastIndex(rest, "@")
	switch {
	case end < 0, strings.HasPrefix(rest, "/"): // a path may hold what it likes
		return s
	case found:
		return scheme + "://" + redacted + rest[end:]
	case strings.Contains(rest[:end], ":"):
		return redacted + rest[end:]
	}
	return s
}

// nearMisses reports variables that are probably ours but for a slip of the finger.
func (p *parser) nearMisses() {
	var ours []string
	for _, f := range fields() {
		ours = append(ours, f.name)
		if f.secret != "" {
			ours = append(ours, f.name+"_FILE")
		}
	}
	var names []string
	for name := range p.environment {
		if !slices.Contains(ours, name) && !slices.Contains(strangers(), name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if near := nearest(strings.ToUpper(name), ours, 2); near != "" {
			p.fail(name, fmt.Errorf("no such setting; did you mean %s?", near))
		}
	}
}

// strangers are other programs' variables that happen to resemble one of ours.
func strangers() []string { return []string{"REGISTRY"} }

func (p *parser) boolean(variable, value string) bool {
	b, err := parseBoolean(value)
	if err != nil {
		p.fail(variable, err)
	}
	return b
}

func parseBoolean(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "true", "yes", "on", "1":
		return true, nil
	case "false", "no", "off", "0":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", clip(value))
}

func (p *parser) interval(variable, value string) time.Duration {
	d, err := parseDuration(value, MinInterval, MaxInterval)
	if err != nil {
		p.fail(variable, err)
	}
	return d
}

// parseDuration reads "10m" and the like within bounds.
func parseDuration(value string, lowest, highest time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration; write 90s, 10m or 1h", clip(value))
	}
	if d < lowest || d > highest {
		return 0, fmt.Errorf("%s is out of range; the least is %s, the most is %s", value, short(lowest), short(highest))
	}
	return d, nil
}

// short is a duration without its zero parts: "30m" rather than "30m0s".
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func parseLevel(s string) (slog.Level, error) {
	switch strings.ToLower(s) {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("%q is not a log level; there are debug, info, warn and error", clip(s))
}

// levelName is the inverse of parseLevel.
func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "debug"
	case l < slog.LevelWarn:
		return "info"
	case l < slog.LevelError:
		return "warn"
	}
	return "error"
}

// clip shortens foreign text so that it can stand in a message.
func clip(s string) string { return clipTo(s, 60) }

// clipTo is the beginning of a text, most bytes at the most, and says that it goes on.
func clipTo(s string, most int) string {
	if len(s) <= most {
		return s
	}
	n := most
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// supervisorURL is where an app of Home Assistant finds it, with the token that the
// supervisor gives to the app.
const supervisorURL = "ws://supervisor/core/websocket"

// homeAssistant checks where statistics are imported. What an app gets from the supervisor
// counts when nothing else is set.
func (p *parser) homeAssistant(c *Config, raw settings) {
	address, token := raw.HAURL, raw.HAToken
	if supervisor := p.environment["SUPERVISOR_TOKEN"]; address == "" && token == "" && supervisor != "" && c.DataDir != "" {
		address, token = supervisorURL, supervisor
	}
	if address == "" && token == "" {
		return
	}
	switch {
	case address == "":
		p.fail("HA_URL", errors.New("is missing; with HA_TOKEN, Home Assistant's address is needed as well, such as http://homeassistant.local:8123"))
		return
	case token == "" && strings.TrimSpace(p.environment["HA_TOKEN_FILE"]) != "": // it was told why it gives none
	case token == "":
		p.fail("HA_TOKEN", errors.New("is missing; make a long-lived access token in Home Assistant, in the profile of an administrator, under Security"))
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7F }):
		p.fail("HA_TOKEN", errors.New("holds white space or other characters that no token has"))
	case c.DataDir == "":
		p.fail("HA_URL", errors.New("needs DATA_DIR: what is imported is kept there first"))
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "":
		p.fail("HA_URL", fmt.Errorf("%q is not a URL; write http://homeassistant.local:8123", clip(redactURL(address))))
	case !slices.Contains([]string{"http", "https", "ws", "wss"}, u.Scheme):
		p.fail("HA_URL", fmt.Errorf("%q: unknown scheme %q; there are http, https, ws and wss", clip(redactURL(address)), clip(u.Scheme)))
	case u.User != nil:
		p.fail("HA_URL", errors.New("holds a user or password; Home Assistant wants HA_TOKEN instead"))
	case u.RawQuery != "" || u.Fragment != "":
		p.fail("HA_URL", fmt.Errorf("%q: a query or fragment has no meaning here", clip(redactURL(address))))
	case u.Port() != "":
		if n, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || n == 0 {
			p.fail("HA_URL", fmt.Errorf("%q: port %q is not in 1 to 65535", clip(redactURL(address)), clip(u.Port())))
		}
	}
	c.HAURL, c.HAToken = u, token
}

// mqtt checks everything that has to do with the broker.
func (p *parser) mqtt(c *Config, raw settings) {
	m := &c.MQTT
	tlsURL := false
	urls := strings.Fields(raw.MQTTURL)
	if slices.ContainsFunc(urls, func(s string) bool { return !strings.Contains(s, "://") }) && strings.Contains(raw.MQTTURL, "@") && len(urls) > 1 {
		// Parts of a password would be quoted as URLs.
		p.fail("MQTT_URL", errors.New("one of the URLs has no scheme (mqtt://), or a password holds white space: write that as %20"))
		urls = nil
	}
	for _, word := range urls {
		u, err := parseBrokerURL(word)
		if err != nil {
			p.fail("MQTT_URL", err)
			continue
		}
		tlsURL = tlsURL || u.Scheme == "mqtts" || u.Scheme == "wss"
		m.URLs = append(m.URLs, u)
	}
	m.Username, m.Password = raw.MQTTUsername, raw.MQTTPassword
	if m.Password != "" && m.Username == "" {
		p.fail("MQTT_PASSWORD", errors.New("MQTT_USERNAME is missing"))
	}
	if len(m.Username) > 65535 || len(m.Password) > 65535 {
		p.fail("MQTT_PASSWORD", errors.New("user name or password exceeds 65535 bytes"))
	}
	if m.ClientID = raw.MQTTClientID; m.ClientID == "" {
		h := fnv.New32a()
		h.Write([]byte(raw.MQTTTopic + "\x00" + p.opts.Hostname))
		m.ClientID = fmt.Sprintf("kmp2mqtt-%08x", h.Sum32())
	} else if err := checkText(m.ClientID); err != nil {
		p.fail("MQTT_CLIENT_ID", err)
	}
	m.Topic, m.HAPrefix = raw.MQTTTopic, raw.HAPrefix
	if err := checkBase(m.Topic); err != nil {
		p.fail("MQTT_TOPIC", err)
	}
	if err := checkBase(m.HAPrefix); err != nil {
		p.fail("HA_PREFIX", err)
	} else if m.HAPrefix == m.Topic {
		p.fail("HA_PREFIX", fmt.Errorf("%q is MQTT_TOPIC already; choose two different ones", m.HAPrefix))
	}
	m.CAFile, m.CertFile, m.KeyFile = raw.MQTTCAFile, raw.MQTTCertFile, raw.MQTTKeyFile
	p.certificates(m, raw.MQTTURL != "", tlsURL)

	c.Listen = raw.MQTTListen
	if raw.MQTTURL != "" {
		return // the built-in broker is not started
	}
	local, err := checkListen(c.Listen)
	switch {
	case err != nil:
		p.fail("MQTT_LISTEN", err)
	case m.Username != "" && m.Password == "":
		p.fail("MQTT_LISTEN", errors.New("the built-in broker needs both MQTT_USERNAME and MQTT_PASSWORD, or neither"))
	case !local && (m.Username == "" || m.Password == ""):
		p.fail("MQTT_LISTEN", fmt.Errorf("%s can be reached from other machines: set MQTT_USERNAME and MQTT_PASSWORD, or listen on 127.0.0.1", c.Listen))
	}
}

// certificates checks the files that TLS needs, so that a wrong path is found at the
// start and not at the first connect.
func (p *parser) certificates(m *MQTTConfig, external, tlsURL bool) {
	files := []struct{ variable, name string }{
		{"MQTT_CA_FILE", m.CAFile}, {"MQTT_CERT_FILE", m.CertFile}, {"MQTT_KEY_FILE", m.KeyFile},
	}
	content := make(map[string][]byte)
	for _, f := range files {
		if f.name == "" {
			continue
		}
		if !external || !tlsURL {
			p.fail(f.variable, errors.New("no MQTT_URL begins with mqtts:// or wss://, so it would not be used"))
		}
		b, err := p.readFile(f.name)
		if err == nil {
			if block, _ := pem.Decode(b); block == nil {
				err = fmt.Errorf("%s holds no PEM block", f.name)
			}
		}
		if err == nil && f.variable == "MQTT_CA_FILE" && !x509.NewCertPool().AppendCertsFromPEM(b) {
			err = fmt.Errorf("%s holds no certificate", f.name)
		}
		if err != nil {
			p.fail(f.variable, err)
			continue
		}
		content[f.variable] = b
	}
	cert, key := content["MQTT_CERT_FILE"], content["MQTT_KEY_FILE"]
	switch {
	case m.CertFile != "" && m.KeyFile == "":
		p.fail("MQTT_CERT_FILE", errors.New("MQTT_KEY_FILE is missing"))
	case m.KeyFile != "" && m.CertFile == "":
		p.fail("MQTT_KEY_FILE", errors.New("MQTT_CERT_FILE is missing"))
	case cert != nil && key != nil:
		if _, err := tls.X509KeyPair(cert, key); err != nil {
			p.fail("MQTT_CERT_FILE", fmt.Errorf("does not fit MQTT_KEY_FILE: %w", err))
		}
	}
}

// brokerPorts are the ports of a URL that names none.
func brokerPorts() map[string]string {
	return map[string]string{"mqtt": "1883", "mqtts": "8883", "ws": "80", "wss": "443"}
}

func parseBrokerURL(s string) (*url.URL, error) {
	shown := redactURL(s)
	if !strings.Contains(s, "://") {
		return nil, fmt.Errorf("%q has no scheme; write mqtt://%s", shown, shown)
	}
	u, err := url.Parse(s)
	if shown != s && (err != nil || u.User == nil || strings.Contains(u.Path+u.RawQuery+u.Fragment, "@")) {
		// A password ends the URL too early, and the errors below would quote it.
		return nil, fmt.Errorf("%q is not a URL; escape what is neither letter nor digit in its password (/ is %%2F), or use MQTT_USERNAME and MQTT_PASSWORD", shown)
	}
	if err != nil {
		if e := new(url.Error); errors.As(err, &e) {
			err = e.Err
		}
		return nil, fmt.Errorf("%q is not a URL: %w", shown, err)
	}
	port, ok := brokerPorts()[u.Scheme]
	switch {
	case !ok:
		return nil, fmt.Errorf("%q: unknown scheme %q; there are mqtt, mqtts, ws and wss", shown, u.Scheme)
	case u.Hostname() == "":
		return nil, fmt.Errorf("%q names no host", shown)
	case u.RawQuery != "" || u.Fragment != "":
		bare, _, _ := strings.Cut(shown, "?") // it may be a secret
		bare, _, _ = strings.Cut(bare, "#")
		return nil, fmt.Errorf("%q: a query or fragment has no meaning here", bare)
	case u.Path != "" && u.Path != "/" && (u.Scheme == "mqtt" || u.Scheme == "mqtts"):
		return nil, fmt.Errorf("%q: the path %q has no meaning here; topics are set by MQTT_TOPIC", shown, u.Path)
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), port)
	} else if n, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || n == 0 {
		return nil, fmt.Errorf("%q: port %q is not in 1 to 65535", shown, u.Port())
	}
	if u.Path == "/" && (u.Scheme == "mqtt" || u.Scheme == "mqtts") {
		u.Path = ""
	}
	return u, nil
}

// page reads the settings of the page. An empty HTTP_LISTEN means that there is none, while
// everywhere else empty is not set.
func (p *parser) page(c *Config, raw settings) {
	h := &c.HTTP
	h.Listen, h.Username, h.Password = raw.HTTPListen, raw.HTTPUsername, raw.HTTPPassword
	if v, set := p.environment["HTTP_LISTEN"]; set && strings.TrimSpace(v) == "" || strings.EqualFold(h.Listen, "off") {
		h.Listen, c.shown["HTTP_LISTEN"] = "", "off"
	}
	if raw.HTTPIngress != "" {
		var err error
		if h.Ingress, err = netip.ParseAddr(raw.HTTPIngress); err != nil {
			p.fail("HTTP_INGRESS", fmt.Errorf("%q is not an address such as 172.30.32.2", clip(raw.HTTPIngress)))
		}
	}
	if (h.Username == "") != (h.Password == "") {
		missing, there := "HTTP_PASSWORD", "HTTP_USERNAME"
		if h.Username == "" {
			missing, there = there, missing
		}
		if strings.TrimSpace(p.environment[missing+"_FILE"]) == "" { // else it was told why it gives none
			p.fail(missing, fmt.Errorf("is missing; %s is set, and the page needs both", there))
		}
	}
	if strings.Contains(h.Username, ":") {
		p.fail("HTTP_USERNAME", errors.New("holds a colon, which no browser can send in a user name"))
	}
	if h.Listen == "" {
		return
	}
	local, err := checkListen(h.Listen)
	switch {
	case err != nil:
		p.fail("HTTP_LISTEN", err)
	case !local && h.Username == "" && h.Password == "" && raw.HTTPIngress == "":
		p.fail("HTTP_LISTEN", fmt.Errorf("%s can be reached from other machines: set HTTP_USERNAME and HTTP_PASSWORD, or listen on 127.0.0.1", h.Listen))
	}
}

// compat reads whose topics are published as well.
func (p *parser) compat(c *Config, text string) {
	name, topic, named := strings.Cut(text, ":")
	switch {
	case text == "":
		return
	case name != "kamstrup-402-mqtt":
		p.fail("MQTT_COMPAT", fmt.Errorf("%q is not known; there is kamstrup-402-mqtt", clip(text)))
		return
	case !named:
		topic = "kamstrup"
	case topic == "":
		p.fail("MQTT_COMPAT", fmt.Errorf("%q names no topic; write %s:topic, or %s alone for kamstrup/values", text, name, name))
		return
	}
	if err := checkBase(topic); err != nil {
		p.fail("MQTT_COMPAT", err)
	} else if topic == c.MQTT.Topic || topic == c.MQTT.HAPrefix {
		p.fail("MQTT_COMPAT", fmt.Errorf("the topic %q is MQTT_TOPIC or HA_PREFIX already", topic))
	} else if strings.HasPrefix(topic, c.MQTT.Topic+"/") || strings.HasPrefix(c.MQTT.Topic, topic+"/") {
		p.fail("MQTT_COMPAT", fmt.Errorf("of the topic %q and MQTT_TOPIC %q one lies within the other; choose two that do not", topic, c.MQTT.Topic))
	}
	c.Compat = topic
}

// checkListen reports whether only this machine can reach an address.
func checkListen(address string) (local bool, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return false, fmt.Errorf("%q is not host:port", address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return false, fmt.Errorf("%q: port %q is not in 0 to 65535", address, port)
	}
	return loopback(host), nil
}

func checkText(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("is not UTF-8")
	}
	if i := strings.IndexFunc(s, unicode.IsControl); i >= 0 {
		return fmt.Errorf("%q holds a control character", clip(s))
	}
	if len(s) > maxTopicLength {
		return fmt.Errorf("is %d bytes long, the most is %d", len(s), maxTopicLength)
	}
	return nil
}

func checkBase(s string) error {
	if err := checkText(s); err != nil {
		return err
	}
	switch {
	case strings.ContainsAny(s, "+#"):
		return fmt.Errorf("%q: + and # are wildcards", s)
	case strings.HasPrefix(s, "$"):
		return fmt.Errorf("%q: topics that begin with $ belong to the broker", s)
	case strings.HasPrefix(s, "/") || strings.HasSuffix(s, "/") || strings.Contains(s, "//"):
		return fmt.Errorf("%q: a level is empty; remove the extra /", s)
	}
	return nil
}

// meters parses METERS.
func (p *parser) meters(value string, interval time.Duration, chosen bool, registers []uint16) []MeterConfig {
	words := strings.Fields(value)
	if len(words) == 0 {
		p.fail("METERS", errors.New("is missing; for a first look: METERS=house=sim://403"))
		return nil
	}
	if len(words) > MaxMeters {
		p.fail("METERS", fmt.Errorf("%d meters are too many, the most is %d", len(words), MaxMeters))
		return nil
	}
	type place struct {
		line    string
		address kmp.Address
	}
	var meters []MeterConfig
	names := make(map[string]bool)
	places := make(map[place]string)
	for _, word := range words {
		m, errs := parseMeter(word, p.opts.ParseLine)
		who := strconv.Quote(m.Name)
		if m.Name == "" {
			_, line, _ := splitName(word)
			who = clip(redactURL(line))
		}
		if m.Name != "" {
			if names[m.Name] {
				errs = append(errs, &ConfigError{Err: errors.New("the name is used twice")})
			}
			names[m.Name] = true
		}
		if m.Line != "" {
			at := place{m.Line, m.Address}
			if other, taken := places[at]; taken {
				errs = append(errs, &ConfigError{Err: fmt.Errorf("same line and address as meter %s; give each its own address (?address=0x3F)", other)})
			} else {
				places[at] = who
			}
		}
		for _, err := range errs {
			err.Variable, err.Meter = "METERS", who
			p.errs = append(p.errs, err)
		}
		m.Chosen = m.Interval > 0 || chosen
		if m.Interval == 0 {
			m.Interval = interval
		}
		if len(m.Registers) == 0 {
			m.Registers = registers
		}
		meters = append(meters, m)
	}
	return meters
}

// splitName parts "name=line". A line alone may hold "=" as well, so a name ends at the
// first "=" only if what comes before it does not begin a path, a URL or its options. What
// is then no name for other reasons, such as "attic/heat", is called a bad one.
func splitName(word string) (name, line string, named bool) {
	name, line, named = strings.Cut(word, "=")
	if !named || strings.HasPrefix(name, "/") || strings.ContainsAny(name, ":?") {
		return "", word, false
	}
	return name, line, true
}

// ParseMeter parses one entry of METERS on its own, as the verbs that take a line do.
// Interval and Registers stay empty where the entry does not set them. The error joins
// one *ConfigError for each thing that is wrong.
func ParseMeter(entry string, parseLine func(raw string) (line string, byteTime time.Duration, err error)) (MeterConfig, error) {
	m, errs := parseMeter(entry, parseLine)
	joined := make([]error, 0, len(errs))
	for _, err := range errs {
		err.Variable = "line"
		joined = append(joined, err)
	}
	return m, errors.Join(joined...)
}

// parseMeter parses one entry of METERS. Interval and Registers stay empty where the
// entry does not set them.
func parseMeter(word string, parseLine func(string) (string, time.Duration, error)) (MeterConfig, []*ConfigError) {
	m := MeterConfig{Address: kmp.HeatMeter, Budget: DefaultBudget}
	var errs []*ConfigError
	fail := func(option string, err error) {
		errs = append(errs, &ConfigError{Option: option, Err: err})
	}

	name, line, named := splitName(word)
	if named {
		m.Name = name
		if err := checkName(name); err != nil {
			fail("", err)
		}
	}
	base, query, _ := strings.Cut(line, "?")
	var rest []string // options of the line itself
	seen := make(map[string]bool)
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		rawKey, rawValue, _ := strings.Cut(part, "=")
		key, err := url.QueryUnescape(rawKey)
		if err != nil {
			fail(rawKey, err)
			continue
		}
		if seen[key] {
			fail(key, errors.New("is given twice"))
			continue
		}
		seen[key] = true
		switch key {
		case "interval", "registers", "address", "timeout", "model", "label", "budget", "continue", "history", "tz", "entities":
			if key == "address" && strings.HasPrefix(base, "sim://") {
				rest = append(rest, part) // a simulated meter has to know its address as well
			}
		default:
			rest = append(rest, part)
			continue
		}
		value, err := url.QueryUnescape(rawValue)
		if err == nil {
			err = m.set(key, value)
		}
		if err != nil {
			fail(key, err)
		}
	}
	if len(rest) > 0 {
		base += "?" + strings.Join(rest, "&")
	}
	if base == "" {
		fail("", errors.New("has no line; write name=/dev/ttyUSB0, name=tcp://host:port or name=sim://403"))
		return m, errs
	}
	canonical, byteTime, err := parseLine(base)
	if err != nil {
		fail("", err)
		return m, errs
	}
	m.Line, m.ByteTime = canonical, byteTime
	if strings.HasPrefix(canonical, "sim://") {
		if m.Model == "" {
			m.Model = simulatedModel(canonical)
		}
		if m.Budget == DefaultBudget {
			m.Budget = 0 // it has no battery
		}
	}
	return m, errs
}

// simulatedModel is the model that a simulated line names itself ("sim://403").
func simulatedModel(line string) string {
	rest, ok := strings.CutPrefix(line, "sim://")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "?")
	if m, ok := catalog.ModelByName(strings.Trim(name, "/")); ok {
		return m.Name
	}
	return ""
}

// set applies one option of a meter.
func (m *MeterConfig) set(option, value string) (err error) {
	if value == "" {
		return errors.New("has no value")
	}
	switch option {
	case "interval":
		m.Interval, err = parseDuration(value, MinInterval, MaxInterval)
	case "timeout":
		m.Timeout, err = parseDuration(value, MinTimeout, MaxTimeout)
	case "registers":
		m.Registers, err = parseRegisters(value)
	case "address":
		n, parseErr := strconv.ParseUint(value, 0, 8)
		if parseErr != nil {
			return fmt.Errorf("%q is not an address; write 0x3F or 63 (0 to 255)", clip(value))
		}
		m.Address = kmp.Address(n)
	case "model":
		model, ok := catalog.ModelByName(value)
		if !ok {
			var names []string
			for _, known := range catalog.Models() {
				names = append(names, known.Name)
			}
			return fmt.Errorf("%q is not a known model; there are %s", clip(value), strings.Join(names, ", "))
		}
		m.Model = model.Name
	case "label":
		if err := checkText(value); err != nil {
			return err
		}
		m.Label = value
	case "budget":
		n, parseErr := strconv.Atoi(value)
		if parseErr != nil || n < 0 || n > MaxBudget {
			return fmt.Errorf("%q is not a number of readings a day; write 0 (no limit) to %d", clip(value), MaxBudget)
		}
		m.Budget = n
	case "history":
		m.History = HistoryMode(strings.ToLower(value))
		if !slices.Contains([]HistoryMode{HistoryGaps, HistoryHour, HistoryOff}, m.History) {
			return fmt.Errorf("%q is not known; there are gaps, hour and off", clip(value))
		}
	case "tz":
		if m.Zone, err = time.LoadLocation(value); err != nil {
			return fmt.Errorf("%q is not a time zone; write Europe/Copenhagen or UTC", clip(value))
		}
	case "entities":
		if m.Entities = strings.ToLower(value); !slices.Contains([]string{"wobwobrt", "golles"}, m.Entities) {
			return fmt.Errorf("%q is not known; there are wobwobrt and golles", clip(value))
		}
	case "continue":
		if m.Continue, err = parseBoolean(value); err != nil {
			return err
		}
	}
	return err
}

// checkName says whether a meter can be a level of a topic.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("there is no name before =")
	case name == "bridge":
		return errors.New("the name bridge is reserved")
	case len(name) > maxNameLength:
		return fmt.Errorf("the name has %d characters, the most is %d", len(name), maxNameLength)
	}
	for _, r := range name {
		if !nameRune(r) {
			return fmt.Errorf("the name holds %q; letters a to z, digits, - and _ are allowed", r)
		}
	}
	return nil
}

func nameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
}

// parseRegisters reads ids and names separated by commas or white space. Each register
// is kept once, in the order of its first mention.
func parseRegisters(s string) ([]uint16, error) {
	var ids []uint16
	var errs []string
	for _, word := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
		id, err := parseRegister(word)
		if err != nil {
			if len(errs) < 10 {
				errs = append(errs, err.Error())
			}
			continue
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
		if len(ids) > MaxRegisters {
			return nil, fmt.Errorf("more than %d registers", MaxRegisters)
		}
	}
	if len(errs) > 0 {
		return nil, errors.New(strings.Join(errs, "; "))
	}
	return ids, nil
}

// parseRegister finds a register by id or name.
func parseRegister(word string) (uint16, error) {
	if r, ok := catalog.ByName(word); ok {
		return r.ID, nil
	}
	if _, err := strconv.ParseInt(word, 0, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("register %s is not in 0 to 65535", clip(word))
	}
	var names []string
	for _, r := range catalog.Registers() {
		names = append(names, r.Name)
	}
	if near := nearest(clip(word), names, max(2, len(clip(word))/4)); near != "" {
		return 0, fmt.Errorf("unknown register %q; did you mean %s?", clip(word), near)
	}
	return 0, fmt.Errorf("unknown register %q; give its id or a name from docs/registers.md", clip(word))
}

// nearest returns the candidate with the least distance to s, at most most; else "".
func nearest(s string, candidates []string, most int) string {
	best := ""
	for _, c := range candidates {
		if d := distance(s, c, most); d <= most {
			if best == "" || d < most {
				best, most = c, d
			}
		}
	}
	return best
}

// distance counts the letters that must be inserted, removed, replaced or swapped with
// their neighbour to make b of a. What exceeds most is returned as most+1.
func distance(a, b string, most int) int {
	if len(a)-len(b) > most || len(b)-len(a) > most {
		return most + 1
	}
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return min(last[len(b)], most+1)
}
