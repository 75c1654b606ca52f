// Command kmp2mqtt reads Kamstrup meters over KMP, by an optical head or over TCP,
// and publishes their values on MQTT. README.md says how to use it.
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"
	_ "time/tzdata" // containers have no time zones

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/lmittmann/tint"
	"golang.org/x/term"

	"kmp2mqtt/bridge"
	"kmp2mqtt/bridge/former"
	"kmp2mqtt/bridge/history"
	"kmp2mqtt/bridge/supervisor"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/census"
	"kmp2mqtt/kmp/diagnosis"
	"kmp2mqtt/kmp/explain"
	"kmp2mqtt/kmp/link"
	"kmp2mqtt/kmp/logbook"
	"kmp2mqtt/kmp/sim"
)

// version and commit are set by the linker (make build, Dockerfile).
var version, commit = "0.1.0", ""

// The exit statuses.
const (
	exitFine = iota
	exitFailed
	exitUsage
)

func main() {
	if os.Getenv("GOMAXPROCS") == "" {
		// Nearly all of the time is waiting, so one processor is enough for thousands of
		// meters, and waking up costs less without others that spin in search of work.
		runtime.GOMAXPROCS(1)
	}
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	context.AfterFunc(ctx, stop) // a second signal ends the program the hard way
	p := program{environ: os.Environ(), out: os.Stdout, err: os.Stderr, terminal: isTerminal(os.Stderr)}
	if in, err := os.Stdin.Stat(); err == nil && (isTerminal(os.Stdin) || in.Mode()&fs.ModeNamedPipe != 0) {
		p.keys = os.Stdin
		signal.Ignore(sigTTIN) // a shell's background job, which has no keyboard, reads an error
	}
	os.Exit(p.run(ctx, os.Args[1:]))
}

// sigTTIN stops a program, unless ignored; the same number on all systems that have it.
const sigTTIN = syscall.Signal(21)

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// program is what a verb may use of the world.
type program struct {
	environ  []string
	out, err io.Writer // data; everything else
	terminal bool      // err is one
	keys     io.Reader // lines that somebody types; nil: nobody does
}

// setting is the value of an environment variable.
func (p program) setting(name string) string {
	for _, s := range p.environ {
		if v, ok := strings.CutPrefix(s, name+"="); ok && v != "" {
			return v
		}
	}
	return ""
}

// zoneAdvice is what to do about a TZ that is not known.
const zoneAdvice = "write a name such as TZ=Europe/Copenhagen, or tz=Europe/Copenhagen on a meter's line"

// unknownZone is the value of TZ when it is no time zone that this program knows, which
// then runs in UTC without a word. POSIX rules such as CET-1CEST are not known.
func (p program) unknownZone() string {
	value := p.setting("TZ")
	name := strings.TrimPrefix(value, ":")
	var err error
	if filepath.IsAbs(name) {
		var data []byte
		if data, err = os.ReadFile(name); err == nil {
			_, err = time.LoadLocationFromTZData(name, data)
		}
	} else {
		_, err = time.LoadLocation(name)
	}
	if err == nil || runtime.GOOS == "windows" { // where TZ has no meaning
		return ""
	}
	return value
}

// warnOfZone says that TZ is not known, unless each meter has a zone of its own.
func (p program) warnOfZone(meters ...bridge.MeterConfig) {
	if tz := p.unknownZone(); tz != "" && needsZone(meters) {
		fmt.Fprintf(p.err, "TZ=%s is no time zone that is known, so UTC is taken: %s\n", tz, zoneAdvice)
	}
}

// needsZone says whether the zone of this machine counts: a meter has none of its own, or
// there is none.
func needsZone(meters []bridge.MeterConfig) bool {
	return len(meters) == 0 || slices.ContainsFunc(meters, func(m bridge.MeterConfig) bool { return m.Zone == nil })
}

type verb struct {
	name, args, does string
	run              func(p program, ctx context.Context, args []string) error
}

func verbs() []verb {
	return []verb{
		{"run", "", "the bridge, settings from the environment; this is what happens without a verb", program.bridge},
		{"demo", "", "the bridge with a simulated meter and a broker of its own: nothing else is needed", program.demo},
		{"read", "LINE [REGISTER...]", "one reading: id, name, value, unit", program.read},
		{"log", "LINE LOG", "the rows of one of the meter's own logs: " + logNames, program.log},
		{"clock", "LINE", "the meter's clock and how far it is off; with -set it is set", program.clock},
		{"identify", "LINE", "type, serial number, software revision", program.identify},
		{"diagnose", "LINE", "looks at a line step by step and says what is wrong and what to do", program.diagnose},
		{"align", "LINE", "many small reads for the hand that moves the head: shows when it sits", program.align},
		{"census", "LINE", "which registers the meter has, with unit, width and exponent: a profile to share", program.census},
		{"decode", "HEX...", "explains a captured frame, either direction", program.decode},
		{"simulate", "[flags]", "a meter for others to read, by TCP or on a pseudo terminal", program.simulate},
		{"export", "", "the rows that the bridge keeps in DATA_DIR, also while it runs: CSV, JSON or Influx", program.export},
		{"migrate", "READER [FILE...]", "what the settings of another reader become: " + strings.Join(former.Readers(), ", "), program.migrate},
		{"adopt", "READER", "takes over what another reader has in Home Assistant: wobwobrt or golles", program.adopt},
		{"health", "", "asks the bridge that runs here whether it lives, with -ready whether all is well: for scripts", program.health},
		{"app", "", "the bridge as an app of Home Assistant, settings from its Supervisor", program.app},
		{"check", "", "validates the settings and prints them, secrets redacted", program.check},
		{"version", "", "version, commit, Go version", program.version},
	}
}

// usageError is a mistake on the command line or in the settings.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run dispatches to a verb and turns its error into an exit status.
func (p program) run(ctx context.Context, args []string) int {
	name := "run"
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	if slices.Contains([]string{"help", "-h", "-help", "--help"}, name) {
		p.usage(p.out)
		return exitFine
	}
	i := slices.IndexFunc(verbs(), func(v verb) bool { return v.name == name })
	if i < 0 {
		fmt.Fprintf(p.err, "kmp2mqtt: there is no verb %q\n\n", name)
		p.usage(p.err)
		return exitUsage
	}
	err := verbs()[i].run(p, ctx, args)
	if err != nil && ctx.Err() != nil {
		err = errInterrupted // whatever it was doing
	}
	_, usage := errors.AsType[usageError](err)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitFine
	case usage:
		fmt.Fprintf(p.err, "kmp2mqtt %s: %v\n", name, err)
		return exitUsage
	}
	fmt.Fprintf(p.err, "kmp2mqtt %s: %v\n", name, err)
	if e, ok := errors.AsType[*kmp.ExchangeError](err); ok && ctx.Err() == nil {
		class := diagnosis.Lookup(diagnosis.Classify(diagnosis.FromError(e)))
		fmt.Fprintf(p.err, "What it is: %s\nWhat to do: %s\n", class.Text, class.NextStep)
	}
	return exitFailed
}

// arguments explains what verbs take.
const arguments = "LINE is a device or URL: /dev/ttyUSB0, serial:///dev/serial/by-id/..., tcp://host:port,\n" +
	"rfc2217://host:port, usb://VID:PID, sim://403. Options follow in quotes: '/dev/ttyUSB0?baud=9600&stopbits=1'.\n" +
	"REGISTER is a name or an id: energy, 60, 0x3C. Without one the model's usual registers are read.\n"

func (p program) usage(w io.Writer) {
	fmt.Fprint(w, "kmp2mqtt reads Kamstrup meters and publishes their values on MQTT.\n\nUsage: kmp2mqtt [VERB] [ARGUMENTS]\n\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, v := range verbs() {
		fmt.Fprintf(t, "  %s %s\t%s\n", v.name, v.args, v.does)
	}
	t.Flush()
	fmt.Fprint(w, "\n"+arguments+
		"The flags of a verb: kmp2mqtt VERB -h.\n"+
		"The settings of the bridge are environment variables; kmp2mqtt check shows them.\n"+
		"Exit status: 0 fine, 1 it failed, 2 used wrongly.\n")
}

// parse reads flags wherever they stand among the arguments and checks how many
// others there are; most < 0 is any number.
func (p program) parse(fs *flag.FlagSet, args []string, least, most int) ([]string, error) {
	fs.SetOutput(io.Discard) // a mistake gets one line, not this package's page
	i := slices.IndexFunc(verbs(), func(v verb) bool { return v.name == fs.Name() })
	v := verbs()[i]
	fs.Usage = func() {}
	var others []string
	for {
		if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(p.err, "Usage: %s\n%s\n", strings.TrimSpace("kmp2mqtt "+v.name+" "+v.args), v.does)
			if strings.Contains(v.args, "LINE") {
				fmt.Fprint(p.err, "\n"+arguments+"\n")
			}
			fs.SetOutput(p.err)
			fs.PrintDefaults()
			return nil, err
		} else if err != nil {
			return nil, usagef("%w; see kmp2mqtt %s -h", err, v.name)
		}
		if fs.NArg() == 0 {
			break
		}
		others, args = append(others, fs.Arg(0)), fs.Args()[1:]
	}
	if n := len(others); n < least || most >= 0 && n > most {
		return nil, usagef("takes %q, got %q", strings.TrimSpace(v.name+" "+v.args), strings.Join(others, " "))
	}
	return others, nil
}

func newFlags(name string) (fs *flag.FlagSet, asJSON *bool) {
	fs = flag.NewFlagSet(name, flag.ContinueOnError)
	return fs, fs.Bool("json", false, "print JSON")
}

func (p program) printJSON(v any) error {
	e := json.NewEncoder(p.out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// table prints rows in columns.
func (p program) table(rows [][]string) error {
	t := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

// build tells which program this is.
func build() (string, string) {
	rev := commit
	if info, ok := debug.ReadBuildInfo(); ok && rev == "" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				rev = s.Value
			}
		}
	}
	if rev == "" {
		rev = "unknown"
	}
	return version, rev
}

func (p program) version(_ context.Context, args []string) error {
	fs, asJSON := newFlags("version")
	if _, err := p.parse(fs, args, 0, 0); err != nil {
		return err
	}
	v, c := build()
	if *asJSON {
		return p.printJSON(map[string]string{"version": v, "commit": c, "go": runtime.Version()})
	}
	_, err := fmt.Fprintf(p.out, "kmp2mqtt %s, commit %s, %s %s/%s\n", v, c, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// settings parses the environment. missing lists the devices that are not there
// now; the bridge waits for such a device, so they are a mistake only beside others.
func (p program) settings(environ []string) (cfg bridge.Config, missing []string, err error) {
	host, _ := os.Hostname() // only keeps the client ids of two machines apart
	lines := make(map[string]string)
	cfg, err = bridge.ParseConfig(environ, bridge.ParseOptions{
		Hostname: host,
		ParseLine: func(raw string) (string, time.Duration, error) {
			t, err := link.Parse(raw)
			if err != nil {
				return "", 0, err
			}
			if other, ok := lines[t.Endpoint()]; ok && other != t.String() && t.Scheme != link.SchemeSim {
				return "", 0, fmt.Errorf("%s is set up in another way by another meter: %s; one line has one set of options", t, other)
			}
			lines[t.Endpoint()] = t.String()
			if t.Device != "" {
				if _, err := os.Stat(t.Device); errors.Is(err, fs.ErrNotExist) {
					missing = append(missing, fmt.Sprintf("METERS: %s does not exist; plug the optical head in, and see ls /dev/serial/by-id", t.Device))
				}
			}
			return t.String(), t.ByteTime(), nil
		},
	})
	if err != nil {
		problems := append(strings.Split(err.Error(), "\n"), missing...)
		return cfg, missing, usagef("the settings are not usable:\n  %s", strings.Join(problems, "\n  "))
	}
	return cfg, missing, nil
}

func (p program) check(_ context.Context, args []string) error {
	fs, asJSON := newFlags("check")
	if _, err := p.parse(fs, args, 0, 0); err != nil {
		return err
	}
	cfg, missing, err := p.settings(p.environ)
	if err != nil {
		return err
	}
	p.warnOfZone(cfg.Meters...)
	if len(missing) > 0 {
		return usagef("the settings are fine, but a device is not there:\n  %s", strings.Join(missing, "\n  "))
	}
	shown := cfg.Redacted()
	if *asJSON {
		return p.printJSON(shown)
	}
	var rows [][]string
	for _, name := range bridge.SettingNames() {
		rows = append(rows, []string{name, shown[name]})
	}
	return p.table(rows)
}

// logger writes to standard error, in colour on a terminal only.
func (p program) logger(format string, level slog.Leveler) *slog.Logger {
	if format == "json" {
		return slog.New(slog.NewJSONHandler(p.err, &slog.HandlerOptions{Level: level}))
	}
	noColor := !p.terminal || slices.ContainsFunc(p.environ, func(s string) bool {
		v, ok := strings.CutPrefix(s, "NO_COLOR=")
		return ok && v != ""
	})
	return slog.New(tint.NewTextHandler(p.err, &tint.Options{Level: level, TimeFormat: time.DateTime, NoColor: noColor}))
}

func dial(ctx context.Context, line string) (kmp.Line, error) {
	t, err := link.Parse(line)
	if err != nil {
		return nil, err
	}
	return link.Open(ctx, t)
}

func (p program) bridge(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("run", flag.ContinueOnError)
	if _, err := p.parse(fs, args, 0, 0); err != nil {
		return err
	}
	cfg, _, err := p.settings(p.environ) // a device that is missing is waited for, and logged by whoever opens it
	if err != nil {
		return err
	}
	return p.runBridge(ctx, cfg, dial, nil)
}

// manyMeters have so much to remember that collecting garbage sooner would cost more than it saves.
const manyMeters = 100

func (p program) runBridge(ctx context.Context, cfg bridge.Config, dial func(context.Context, string) (kmp.Line, error), tap func(bridge.Message)) error {
	level := new(slog.LevelVar)
	level.Set(cfg.LogLevel)
	log := p.logger(cfg.LogFormat, level)
	if tz := p.unknownZone(); tz != "" && needsZone(cfg.Meters) {
		log.Warn("TZ is no time zone that is known, so UTC is taken", "tz", tz, "advice", zoneAdvice)
	}
	if len(cfg.Meters) < manyMeters && p.setting("GOGC") == "" {
		debug.SetGCPercent(25) // what lives is about 1 MB: this keeps 2 MB of memory for a millisecond of work a minute
	}
	v, c := build()
	deps := bridge.Deps{Dial: dial, Log: log, Level: level, Version: v, Commit: c, Tap: tap}
	if p.setting("NOTIFY_SOCKET") != "" {
		deps.Notify = func(state string) {
			if _, err := daemon.SdNotify(false, state); err != nil {
				log.Debug("the service manager does not listen", "error", err)
			}
		}
		var err error
		if deps.Watchdog, err = daemon.SdWatchdogEnabled(false); err != nil {
			log.Warn("WATCHDOG_USEC cannot be understood; nobody watches", "error", err)
		}
	}
	err := bridge.Run(ctx, cfg, deps)
	if setting, ok := errors.AsType[*bridge.ConfigError](err); ok { // what only trying shows
		return usageError{setting}
	}
	return err
}

// app runs the bridge as an app of Home Assistant. What its owner has to do first stands on
// the app's page.
func (p program) app(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("app", flag.ContinueOnError)
	if _, err := p.parse(fs, args, 0, 0); err != nil {
		return err
	}
	if p.setting("SUPERVISOR_TOKEN") == "" {
		return usagef("SUPERVISOR_TOKEN is missing: the verb app is for Home Assistant's Supervisor; elsewhere use run")
	}
	log := p.logger("text", slog.LevelInfo)
	o := supervisor.Options{Environ: p.environ, Token: p.setting("SUPERVISOR_TOKEN"), Log: log}
	for ctx.Err() == nil {
		environ, err := supervisor.Environ(ctx, o)
		var cfg bridge.Config
		if err == nil {
			cfg, _, err = p.settings(environ)
		}
		if err == nil {
			p.environ = environ
			return p.runBridge(ctx, cfg, dial, nil)
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // ended as asked: no failure
		}
		log.Error("the app waits for its owner", "error", supervisor.Translate(err.Error()))
		if err := supervisor.Explain(ctx, o, err); err != nil {
			return err
		}
	}
	return nil
}

// migrate prints another reader's settings as ours: what goes into a file on standard output,
// what is to be known about it on standard error.
func (p program) migrate(_ context.Context, args []string) error {
	fs, asJSON := newFlags("migrate")
	args, err := p.parse(fs, args, 1, 20)
	if err != nil {
		return err
	}
	if !slices.Contains(former.Readers(), args[0]) {
		return usagef("reader %q is not known; there are %s", args[0], strings.Join(former.Readers(), ", "))
	}
	var files []former.File
	for _, name := range args[1:] {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		files = append(files, former.File{Name: name, Content: f})
	}
	var environ []string
	if len(files) == 0 { // as in the reader's own container
		environ = p.environ
	}
	m, err := former.Migrate(args[0], environ, files...)
	if err != nil {
		return err
	}
	if *asJSON {
		return p.printJSON(m)
	}
	if err := m.WriteEnv(p.out); err != nil {
		return err
	}
	return m.WriteText(p.err)
}

// adopt takes over the entities of another reader.
func (p program) adopt(ctx context.Context, args []string) error {
	fs, asJSON := newFlags("adopt")
	act := fs.Bool("yes", false, "do it; else only tell what would be done")
	args, err := p.parse(fs, args, 1, 1)
	if err != nil {
		return err
	}
	cfg, _, err := p.settings(p.environ)
	if err != nil {
		return err
	}
	o := bridge.AdoptOptions{Reader: args[0], Act: *act, Log: p.logger(cfg.LogFormat, cfg.LogLevel)}
	if *act && !*asJSON {
		o.Planned = func(r former.Report) {
			if err := r.WriteText(p.err); err != nil {
				o.Log.Error("cannot show what will be done", "error", err)
			}
		}
	}
	report, err := bridge.Adopt(ctx, cfg, o)
	if errors.Is(err, bridge.ErrReader) {
		return usageError{err}
	}
	if err != nil {
		// What was restored has to be known also where somebody pressed Ctrl-C.
		fmt.Fprintln(p.err, strings.TrimSpace(err.Error()))
		if report.Setting != "" {
			fmt.Fprintf(p.err, "The setting that it needs: %s\n", report.Setting)
		}
		return errors.New(report.Outcome())
	}
	if *asJSON {
		return p.printJSON(report)
	}
	return report.WriteText(p.out)
}

// healthLimit is how long health waits for an answer.
const healthLimit = 5 * time.Second

// health asks the bridge that runs with these settings how it is.
func (p program) health(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("health", flag.ContinueOnError)
	ready := fs.Bool("ready", false, "not only whether it lives: whether the broker is connected and every meter is read")
	base := fs.String("url", "", "where its page is, as `URL`; else HTTP_LISTEN tells")
	if _, err := p.parse(fs, args, 0, 0); err != nil {
		return err
	}
	if *base == "" {
		listen := bridge.DefaultHTTPListen
		for _, s := range p.environ { // empty means off
			if v, ok := strings.CutPrefix(s, "HTTP_LISTEN="); ok {
				listen = strings.TrimSpace(v)
			}
		}
		host, port, err := net.SplitHostPort(listen)
		if err != nil {
			return usagef("HTTP_LISTEN is %q: without the page nobody can be asked", listen)
		}
		if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
			host = "127.0.0.1"
		}
		*base = "http://" + net.JoinHostPort(host, port)
	}
	if !strings.Contains(*base, "://") {
		*base = "http://" + *base
	}
	path := "/healthz"
	if *ready {
		path = "/readyz"
	}
	ctx, cancel := context.WithTimeout(ctx, healthLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(*base, "/")+path, nil)
	if err != nil {
		return usagef("-url: %w", err)
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return fmt.Errorf("the bridge does not answer; does it run, with the same HTTP_LISTEN? %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", response.Status, strings.TrimSpace(string(text)))
	}
	_, err = fmt.Fprintln(p.out, strings.TrimSpace(string(text)))
	return err
}

// demo runs the bridge on a simulated meter whose day passes in five minutes. What
// the environment says about meters is left alone: this must show the same to all.
func (p program) demo(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	if _, err := p.parse(fs, args, 0, 0); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "kmp2mqtt-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	const options = "speed=288&echo=true&empty-logs=true"
	set := map[string]string{
		"METERS": "house=sim://403?history=hour&" + options, "READ_INTERVAL": "5s", "DATA_DIR": dir, "REGISTERS": "",
	}
	if p.setting("HTTP_LISTEN") == "" {
		if set["HTTP_LISTEN"], err = freeAddress(bridge.DefaultHTTPListen); err != nil {
			return err
		}
	}
	if p.setting("MQTT_URL") == "" && p.setting("MQTT_LISTEN") == "" {
		if set["MQTT_LISTEN"], err = freeAddress("127.0.0.1:1883"); err != nil {
			return err
		}
	}
	environ := slices.DeleteFunc(slices.Clone(p.environ), func(s string) bool {
		name, _, _ := strings.Cut(s, "=")
		_, ours := set[name]
		return ours
	})
	for name, value := range set {
		environ = append(environ, name+"="+value)
	}
	cfg, _, err := p.settings(environ)
	if err != nil {
		return err
	}
	host, port := "127.0.0.1", "1883"
	if len(cfg.MQTT.URLs) > 0 {
		host, port = cfg.MQTT.URLs[0].Hostname(), cfg.MQTT.URLs[0].Port()
	} else if h, p, err := net.SplitHostPort(cfg.Listen); err == nil {
		host, port = h, p
	}
	base := cfg.MQTT.Topic
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	broker := fmt.Sprintf("-h %s -p %s", host, port)
	if cfg.MQTT.Username != "" {
		broker += ` -u "$MQTT_USERNAME" -P "$MQTT_PASSWORD"`
	}
	page := ""
	if cfg.HTTP.Listen != "" {
		page = fmt.Sprintf("Look at it in a browser: http://%s\n", cfg.HTTP.Listen)
	}
	sub, pub := "mosquitto_sub "+broker, "mosquitto_pub "+broker
	fmt.Fprintf(p.out, "A simulated MULTICAL 403 lives through a day in five minutes, from a month ago on, and is read every 5 s.\n"+
		"%sThe broker is %s:%s. Try, in another terminal:\n\n", page, host, port)
	if err := p.table([][]string{
		{"  everything, as it comes", fmt.Sprintf("%s -v -t '%s/#'", sub, base)},
		{"  read now", fmt.Sprintf("%s -t %s/house/get -n", pub, base)},
		{"  read some registers", fmt.Sprintf(`%s -t %s/house/get -m '{"registers":["energy",74,"0x7C"]}'`, pub, base)},
		{"  another interval", fmt.Sprintf(`%s -t %s/house/set -m '{"interval":"10s"}'`, pub, base)},
		{"  the hours that it remembers", fmt.Sprintf("DATA_DIR=%s %s export -json", dir, self())},
	}); err != nil {
		return err
	}
	fmt.Fprint(p.out, "\nHome Assistant finds the meter by itself when it uses this broker. Ctrl-C ends the demo.\n")
	query, err := url.ParseQuery(options)
	if err != nil {
		return err
	}
	house, err := sim.ParseConfig("403", query)
	if err != nil {
		return err
	}
	house.Start = time.Now().AddDate(0, -1, 0) // so that its hours are over, as Home Assistant wants them
	meter, err := sim.New(house)
	if err != nil {
		return err
	}
	line := &plug{meter: meter}
	if p.keys != nil {
		fmt.Fprint(p.out, "Press Enter to unplug the line, and again to plug it back in: the meter remembers what the bridge has missed.\n")
		go func() {
			for keys := bufio.NewScanner(p.keys); keys.Scan(); {
				fmt.Fprintln(p.out, line.pull())
			}
		}()
	}
	fmt.Fprintln(p.out)
	return p.runBridge(ctx, cfg, line.dial, func(m bridge.Message) {
		if m.Topic == base+"/house" || m.Topic == base+"/house/history" {
			fmt.Fprintf(p.out, "%s %s\n", m.Topic, m.Payload)
		}
	})
}

// self is how this program was called, as far as one can call it so again.
func self() string {
	if strings.Contains(os.Args[0], "go-build") {
		return "go run ."
	}
	return os.Args[0]
}

// plug is the line to a simulated meter. Somebody may pull it out; the meter lives on.
type plug struct {
	meter *sim.Meter

	mu   sync.Mutex
	out  bool
	line kmp.Line // the last one that was opened
}

var errUnplugged = errors.New("the line is unplugged; Enter plugs it back in")

func (g *plug) dial(ctx context.Context, _ string) (kmp.Line, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.out {
		return nil, errUnplugged
	}
	g.line = g.meter.Line(context.WithoutCancel(ctx)) // until it is closed
	return g.line, nil
}

// pull pulls the plug, or puts it back, and says so.
func (g *plug) pull() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.out = !g.out; !g.out {
		return "The line is plugged in again; the bridge notices within a minute."
	}
	if g.line != nil {
		g.line.Close()
	}
	return "The line is unplugged. An hour of the meter passes in 12.5 s; Enter plugs the line back in."
}

// freeAddress returns address, or one on another port when that is taken.
func freeAddress(address string) (string, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// parseLine reads the LINE of a verb. Options that concern a meter stand in its settings.
func parseLine(raw string) (m bridge.MeterConfig, t link.Target, err error) {
	m, err = bridge.ParseMeter(raw, func(raw string) (string, time.Duration, error) {
		var err error
		t, err = link.Parse(raw)
		return t.String(), t.ByteTime(), err
	})
	if err != nil {
		err = usageError{err}
	}
	return m, t, err
}

// open opens the line of a verb such as read.
func (p program) open(ctx context.Context, line string) (*kmp.Conn, bridge.MeterConfig, error) {
	m, t, err := parseLine(line)
	if err != nil {
		return nil, m, err
	}
	l, err := link.Open(ctx, t)
	if err != nil {
		return nil, m, err
	}
	return kmp.NewConn(l, kmp.Options{Timeout: m.Timeout, ByteTime: m.ByteTime}), m, nil
}

// identity is what a meter says of itself; what it does not answer is null.
type identity struct {
	Serial   *string `json:"serial"`
	Type     *string `json:"meter_type"`
	Model    *string `json:"model"`
	Revision *string `json:"software_revision"`

	model string // name in the catalog, empty when it is not known
}

// identify asks who the meter is. Every meter answers with its serial number, which is
// how a silent one shows; the type is extra.
func identify(ctx context.Context, c *kmp.Conn, m bridge.MeterConfig) (identity, error) {
	var id identity
	n, err := c.GetSerialNo(ctx, m.Address)
	if err != nil {
		return id, err
	}
	serial := fmt.Sprint(n)
	id.Serial = &serial
	model, known := catalog.ModelByName(m.Model)
	if t, err := c.GetType(ctx, m.Address); err == nil {
		code, revision := fmt.Sprintf("%04X", t.MeterType), t.Revision.String()
		id.Type, id.Revision = &code, &revision
		if !known {
			model, known = catalog.ModelByType(t.MeterType)
		}
	}
	if known {
		id.Model, id.model = &model.Title, model.Name
	}
	return id, nil
}

// meet opens the line of a verb and asks who the meter is.
func (p program) meet(ctx context.Context, line string) (*kmp.Conn, bridge.MeterConfig, identity, error) {
	c, m, err := p.open(ctx, line)
	if err != nil {
		return nil, m, identity{}, err
	}
	id, err := identify(ctx, c, m)
	if err != nil {
		c.Close()
	}
	return c, m, id, err
}

func (p program) identify(ctx context.Context, args []string) error {
	fs, asJSON := newFlags("identify")
	args, err := p.parse(fs, args, 1, 1)
	if err != nil {
		return err
	}
	c, _, id, err := p.meet(ctx, args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	if *asJSON {
		return p.printJSON(id)
	}
	orUnknown := func(s *string) string {
		if s == nil {
			return "unknown"
		}
		return *s
	}
	return p.table([][]string{
		{"serial number", orUnknown(id.Serial)},
		{"meter type", orUnknown(id.Type)},
		{"model", orUnknown(id.Model)},
		{"software revision", orUnknown(id.Revision)},
	})
}

// examined is the line that diagnose and align look at.
func examined(raw string) (diagnosis.Options, error) {
	m, target, err := parseLine(raw)
	return diagnosis.Options{Target: target, Address: m.Address, Timeout: m.Timeout, Model: m.Model, Registers: m.Registers, Dial: link.Open}, err
}

func (p program) diagnose(ctx context.Context, args []string) error {
	fs, asJSON := newFlags("diagnose")
	args, err := p.parse(fs, args, 1, 1)
	if err != nil {
		return err
	}
	o, err := examined(args[0])
	if err != nil {
		return err
	}
	report := func(s diagnosis.Step) {
		mark := "ok"
		if !s.OK {
			mark = "no"
		}
		fmt.Fprintf(p.out, "%s  %-20s %s\n", mark, s.Name, s.Result)
	}
	if *asJSON {
		report = nil
	}
	v := diagnosis.Examine(ctx, o, report)
	if ctx.Err() != nil {
		return errInterrupted // half an examination has no verdict
	}
	if *asJSON {
		err = p.printJSON(v)
	} else {
		_, err = fmt.Fprintf(p.out, "\nverdict     %s (%s)\n            %s\nnext step   %s\nevidence    %s\n", v.Title, v.Code, v.Text, v.NextStep, v.Evidence)
	}
	if err == nil && v.Code != diagnosis.OK {
		err = errors.New(v.Title)
	}
	return err
}

func (p program) align(ctx context.Context, args []string) error {
	fs, asJSON := newFlags("align")
	length := fs.Duration("for", 5*time.Minute, "stop after this `TIME`, to spare the battery")
	args, err := p.parse(fs, args, 1, 1)
	if err != nil {
		return err
	}
	if *length <= 0 || *length > time.Hour {
		return usagef("-for %s: want a duration above 0 such as 5m, up to 1h", *length)
	}
	o, err := examined(args[0])
	if err != nil {
		return err
	}
	screen := screen{out: p.out, err: p.err, json: *asJSON, width: width(p.out), bell: p.terminal}
	screen.begin(*length)
	s, err := diagnosis.Align(ctx, o, *length, screen.show)
	screen.end(s)
	switch {
	case err != nil:
		return err
	case !s.Locked:
		return errors.New("the head does not sit yet")
	}
	return nil
}

// width is how many columns w has, 0 when it is no terminal.
func width(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !isTerminal(f) {
		return 0
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil || columns <= 0 {
		columns = 80
	}
	return columns
}

// screen shows an alignment: on a terminal one line that is written over again and
// again, elsewhere a line for each change, or JSON for each read.
type screen struct {
	out, err io.Writer
	json     bool
	width    int  // columns of the terminal, 0: none
	bell     bool // err is a terminal, to ring when out is none
	before   diagnosis.Sample
	shown    bool // before is set
}

func (s *screen) begin(length time.Duration) {
	if !s.json {
		fmt.Fprintf(s.out, "Move the head slowly; turn it by 180° if nothing comes. It locks after 10 good reads in a row. Ends after %s, or with Ctrl-C.\n", length)
	}
}

// show shows one read, and rings when the head has locked.
func (s *screen) show(r diagnosis.Sample) {
	switch {
	case s.json:
		e := json.NewEncoder(s.out)
		_ = e.Encode(r) // whoever reads it has gone: the alignment ends as it is told to
	case s.width > 0:
		fmt.Fprintf(s.out, "\r%s\x1b[K", bar(r, s.width-1)) // the last column stays free, or some terminals begin a new line
	case !s.shown || r.Code != s.before.Code || r.Echo != s.before.Echo || r.Locked != s.before.Locked:
		fmt.Fprintln(s.out, bar(r, 0))
	}
	if r.Locked && !s.before.Locked {
		s.ring()
	}
	s.before, s.shown = r, true
}

func (s *screen) ring() {
	switch {
	case s.width > 0 && !s.json:
		fmt.Fprint(s.out, "\a")
	case s.bell:
		fmt.Fprint(s.err, "\a")
	}
}

func (s *screen) end(sum diagnosis.Summary) {
	if s.json {
		return
	}
	if s.width > 0 && s.shown {
		fmt.Fprintln(s.out)
	}
	fmt.Fprintf(s.out, "%d reads in %s, %d good.", sum.Reads, sum.Duration.Round(time.Second), sum.Good)
	if sum.Locked {
		fmt.Fprintln(s.out, " The head sits: fix it there.")
		return
	}
	class := diagnosis.Lookup(sum.Code)
	fmt.Fprintf(s.out, " %s.\n%s\nnext step   %s\n", class.Title, sum.Evidence.Text(sum.Code), class.NextStep)
}

// bar is one read in at most columns columns; 0 is any number. It is plain ASCII, so
// that a byte is a column.
func bar(r diagnosis.Sample, columns int) string {
	echo, first, state := "no echo", "    -", "searching"
	if r.Echo {
		echo = "echo   "
	}
	if r.FirstByte > 0 {
		first = fmt.Sprintf("%5s", r.FirstByte.Round(time.Millisecond))
	}
	switch {
	case r.Locked:
		state = "LOCKED"
	case r.Code != diagnosis.OK:
		state = strings.ReplaceAll(string(r.Code), "_", " ")
	}
	const length = 20
	line := fmt.Sprintf("[%s%s] %2d/%-2d good  %s  first byte %s  %s",
		strings.Repeat("#", r.Good), strings.Repeat(".", length-min(r.Good, length)), r.Good, r.Of, echo, first, state)
	if columns > 0 && len(line) > columns {
		line = line[:columns]
	}
	return line
}

// errInterrupted ends a verb that somebody ended.
var errInterrupted = errors.New("interrupted")

// census finds out which registers a meter has. The profile is what the bridge keeps.
func (p program) census(ctx context.Context, args []string) error {
	fs, asJSON := newFlags("census")
	args, err := p.parse(fs, args, 1, 1)
	if err != nil {
		return err
	}
	c, m, id, err := p.meet(ctx, args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	profile := census.New(*id.Serial)
	profile.Model = id.model
	if id.Type != nil {
		profile.MeterType, profile.Revision = *id.Type, *id.Revision
	}
	err = census.Take(ctx, func(ctx context.Context, ids []uint16) ([]kmp.Register, error) {
		fmt.Fprintf(p.err, "asking for %d registers, %d found so far\n", len(ids), len(profile.Registers))
		return c.GetRegister(ctx, m.Address, ids...)
	}, &profile)
	if err != nil {
		return err
	}
	if *asJSON {
		return p.printJSON(profile)
	}
	rows := [][]string{{"id", "name", "unit", "bytes", "exponent"}}
	for _, r := range profile.Registers {
		rows = append(rows, []string{fmt.Sprint(r.ID), r.Name, r.Unit, fmt.Sprint(r.Width), fmt.Sprint(r.Exponent)})
	}
	fmt.Fprintf(p.err, "meter %s, family %s, %d registers; it lacks %d that others of its family have\n",
		profile.Serial, profile.Family, len(profile.Registers), len(profile.Absent))
	return p.table(rows)
}

func (p program) read(ctx context.Context, args []string) error {
	fs, asJSON := newFlags("read")
	args, err := p.parse(fs, args, 1, -1)
	if err != nil {
		return err
	}
	ids, err := registerIDs(args[1:])
	if err != nil {
		return err
	}
	c, m, id, err := p.meet(ctx, args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	if len(ids) == 0 {
		ids = m.Registers
	}
	if len(ids) == 0 {
		if ids, err = usual(ctx, c, m, id); err != nil {
			return err
		}
	}
	registers, err := c.GetRegister(ctx, m.Address, ids...)
	if err != nil {
		return err
	}
	result := struct {
		Serial      *string            `json:"serial"`
		Time        time.Time          `json:"time"`
		Registers   []explain.Register `json:"registers"`
		Unsupported []uint16           `json:"unsupported"`
	}{id.Serial, time.Now().UTC().Truncate(time.Second), []explain.Register{}, []uint16{}}
	for _, id := range ids {
		i := slices.IndexFunc(registers, func(r kmp.Register) bool { return r.ID == id })
		if i < 0 {
			result.Unsupported = append(result.Unsupported, id)
			continue
		}
		r, err := explain.Describe(registers[i])
		if err != nil {
			fmt.Fprintln(p.err, err)
		}
		result.Registers = append(result.Registers, r)
	}
	if *asJSON {
		return p.printJSON(result)
	}
	var rows [][]string
	for _, r := range result.Registers {
		rows = append(rows, []string{fmt.Sprint(r.ID), r.Name, r.Text(), r.Unit})
	}
	for _, id := range result.Unsupported {
		fmt.Fprintf(p.err, "register %d (%s) is not supported by this meter\n", id, catalog.Lookup(id).Name)
	}
	return p.table(rows)
}

// registerIDs are the registers that words name, several in one with commas between them.
func registerIDs(words []string) ([]uint16, error) {
	var ids []uint16
	for _, word := range words {
		for name := range strings.SplitSeq(word, ",") {
			r, ok := catalog.ByName(name)
			if !ok {
				return nil, usagef("register %q is not known; an id such as 60 or 0x3C, or a name of docs/registers.md", name)
			}
			ids = append(ids, r.ID)
		}
	}
	return ids, nil
}

// usual are the registers that a meter is usually read for. Of one that does not tell its
// model the kind is found out: heat, water or electricity.
func usual(ctx context.Context, c *kmp.Conn, m bridge.MeterConfig, id identity) ([]uint16, error) {
	profile := census.New(*id.Serial)
	if profile.Model = id.model; id.model == "" {
		ids := profile.Next()
		found, err := c.GetRegister(ctx, m.Address, ids...)
		if err != nil {
			return nil, err
		}
		profile.Note(time.Now(), ids, found)
	}
	return profile.Usual(), nil
}

// rowFlags are what the verbs that write rows of logs have in common.
type rowFlags struct {
	since, until string
	formats      []logbook.Format
}

func newRowFlags(fs *flag.FlagSet, formats ...logbook.Format) *rowFlags {
	f := new(rowFlags)
	fs.StringVar(&f.since, "since", "", "only rows from `T` on: 2026-11-21, 2026-11-21T07:00, 2026-11-21T07:00:00+01:00, or how long ago: 48h, 7d")
	fs.StringVar(&f.until, "until", "", "only rows before `T`")
	for _, format := range formats {
		fs.BoolFunc(string(format), "the rows as "+string(format), func(value string) error {
			on, err := strconv.ParseBool(value)
			if err != nil {
				return errors.New("neither true nor false")
			}
			f.formats = slices.DeleteFunc(f.formats, func(other logbook.Format) bool { return other == format })
			if on {
				f.formats = append(f.formats, format)
			}
			return nil
		})
	}
	return f
}

// format is the one that was chosen, or the other one.
func (f *rowFlags) format(other logbook.Format) (logbook.Format, error) {
	if len(f.formats) > 1 {
		return "", usagef("-%s and -%s: one format at a time", f.formats[0], f.formats[1])
	}
	return slices.Concat(f.formats, []logbook.Format{other})[0], nil
}

// bounds are the moments of -since and -until, zero where there is none.
func (f *rowFlags) bounds(zone *time.Location) (since, until time.Time, err error) {
	now := time.Now()
	for _, b := range []struct {
		name, text string
		t          *time.Time
	}{{"since", f.since, &since}, {"until", f.until, &until}} {
		if b.text == "" {
			continue
		}
		if *b.t, err = logbook.ParseMoment(b.text, now, zone); err != nil {
			return since, until, usagef("-%s %q: %w", b.name, b.text, err)
		}
	}
	if f.since != "" && f.until != "" && !since.Before(until) {
		err = usagef("-since %s is not before -until %s", f.since, f.until)
	}
	return since, until, err
}

// logNames are the logs of rows; not every meter has each.
const logNames = "year, month, day, hour, minute and minute2"

// parseLog reads the name of a log.
func parseLog(name string) (kmp.LogType, error) {
	log, ok := kmp.ParseLogType(name)
	if !ok || log < kmp.LogYear || log > kmp.LogMinute2 {
		return log, usagef("there is no log %q; there are %s", name, logNames)
	}
	return log, nil
}

func (p program) log(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("log", flag.ContinueOnError)
	rows := newRowFlags(fs, logbook.CSV, logbook.JSON)
	chosen := fs.String("registers", "", "only these `REGISTERS`, ids or names with commas between them")
	file := fs.String("out", "", "write to the end of `FILE`: only rows newer than its last one of this meter and log are read and added, older ones never")
	args, err := p.parse(fs, args, 2, 2)
	if err != nil {
		return err
	}
	m, _, err := parseLine(args[0])
	if err != nil {
		return err
	}
	log, err := parseLog(args[1])
	if err != nil {
		return err
	}
	format, err := rows.format(logbook.Table)
	if err != nil {
		return err
	}
	if *file != "" && format == logbook.Table {
		return usagef("-out needs -csv or -json: a table cannot be gone on with")
	}
	if info, err := os.Stat(*file); err == nil && !info.Mode().IsRegular() {
		return usagef("-out %s: is no ordinary file, whose rows could be read first; without -out the rows go to standard output", *file)
	}
	p.warnOfZone(m)
	var want logbook.Range
	if want.Since, want.Until, err = rows.bounds(zone(m)); err != nil {
		return err
	}
	if *chosen != "" {
		if want.Registers, err = registerIDs([]string{*chosen}); err != nil {
			return err
		}
	}
	c, m, id, err := p.meet(ctx, args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	w, from := logbook.NewWriter(p.out, format), logbook.Origin{Serial: *id.Serial, Meter: m.Name}
	var tail logbook.Tail
	if *file != "" {
		var f *os.File
		if f, tail, err = openTail(*file, format, from.Serial, log); err != nil {
			return err
		}
		defer f.Close()
		if !want.Since.IsZero() && want.Since.Before(tail.First) {
			fmt.Fprintf(p.err, "%s begins with %s: older rows are not added to it; for those, write to another file\n", *file, tail.First.Format(time.RFC3339))
		}
		want.After, want.Known, want.AfterTime = tail.ID, tail.Known, tail.Time
		w = logbook.NewWriter(f, format)
		w.Continue(tail.Keys)
	}
	model, _ := catalog.ModelByName(id.model)
	addresses := []kmp.Address{m.Address}
	if model.Logs == catalog.LogsInModule && m.Address == kmp.HeatMeter {
		addresses = []kmp.Address{kmp.LoggerTop, kmp.LoggerBase}
	}
	clock, clockErr := logbook.Clock(ctx, logbook.Source{Conn: c, Address: m.Address, Zone: zone(m)})
	var n int
	var last logbook.Row
	for _, address := range addresses {
		r := logbook.NewReader(logbook.Source{Conn: c, Address: address, Zone: zone(m)}, log, want)
		n, last, err = p.copyLog(ctx, r, func(rows []logbook.Row) error {
			if clockErr == nil {
				clock.Correct(rows)
			}
			return w.Write(from, rows...)
		})
		if !errors.Is(err, logbook.ErrNoLogs) {
			break
		}
	}
	_, column := errors.AsType[*logbook.ColumnError](err)
	switch {
	case err == nil && n == 0:
		fmt.Fprintln(p.err, nothing(log, want, *file, tail))
		if clockErr == nil {
			p.tellDrift(want, clock)
		}
	case errors.Is(err, logbook.ErrNoLogs) && model.Logs == catalog.LogsInModule:
		err = fmt.Errorf("no logger module answers; a %s keeps its hour log, and no other, in one", model.Title)
	case errors.Is(err, logbook.ErrNoLogs):
		err = fmt.Errorf("the meter does not answer when it is asked for its %s log: it has none, or none that can be read this way; kmp2mqtt read shows what it counts now", log)
	case errors.Is(err, logbook.ErrRestarted), *file != "" && column:
		err = fmt.Errorf("%w; go on in another file", err)
	case err != nil && *file != "":
		fmt.Fprintf(p.err, "%d more rows are in %s; the same command goes on after them\n", n, *file)
	case err != nil && n > 0:
		fmt.Fprintf(p.err, "%d rows; go on with -since %s\n", n, last.Time.Add(time.Second).Format(time.RFC3339))
	}
	return err
}

// nothing says that there is no row to write, and where the file ends that has the others.
func nothing(log kmp.LogType, want logbook.Range, file string, tail logbook.Tail) string {
	bounds := ""
	if !want.Since.IsZero() {
		bounds += " from " + want.Since.Format(time.RFC3339) + " on"
	}
	if !want.Until.IsZero() {
		bounds += " up to before " + want.Until.Format(time.RFC3339)
	}
	switch {
	case !tail.Known:
		return fmt.Sprintf("the meter has no rows of the %s log%s", log, bounds)
	case tail.Time.IsZero():
		return fmt.Sprintf("%s has the rows of the %s log up to id %d; the meter has none that are newer%s", file, log, tail.ID, bounds)
	}
	return fmt.Sprintf("%s has the rows of the %s log up to %s; the meter has none that are newer%s", file, log, tail.Time.Format(time.RFC3339), bounds)
}

// tellDrift says that bounds found nothing because the meter lives at another time.
func (p program) tellDrift(want logbook.Range, clock logbook.ClockReading) {
	if want.Since.IsZero() && want.Until.IsZero() || clock.Drift.Abs() < time.Hour && !clock.Meter.Before(want.Since) {
		return
	}
	where := "ahead"
	if clock.Drift < 0 {
		where = "behind"
	}
	fmt.Fprintf(p.err, "The meter's clock is %s %s: it shows %s. -since and -until go by the times in the rows, which are those of the meter's clock.\n",
		clock.Drift.Abs(), where, clock.Meter.Format(time.RFC3339))
}

// zone is where the clock of a meter is at home.
func zone(m bridge.MeterConfig) *time.Location { return cmp.Or(m.Zone, time.Local) }

// openTail opens a file of rows to write behind what is whole in it.
func openTail(name string, format logbook.Format, serial string, log kmp.LogType) (*os.File, logbook.Tail, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, logbook.Tail{}, err
	}
	tail, err := logbook.ReadTail(f, format, serial, log)
	if err == nil {
		err = f.Truncate(tail.Size)
	}
	if err == nil {
		_, err = f.Seek(tail.Size, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, tail, fmt.Errorf("%s: %w", name, err)
	}
	return f, tail, nil
}

// copyLog hands the rows of a reader on, page by page. It returns how many there were and
// the last one, also with an error.
func (p program) copyLog(ctx context.Context, r *logbook.Reader, write func([]logbook.Row) error) (n int, last logbook.Row, err error) {
	for {
		rows, err := r.Next(ctx)
		for from, to, ok := r.Lost(); ok; from, to, ok = r.Lost() {
			fmt.Fprintf(p.err, "the meter has no longer the rows %d to %d\n", from, to)
		}
		if err == nil {
			err = write(rows)
		}
		if errors.Is(err, logbook.ErrEnd) {
			return n, last, nil
		} else if err != nil {
			return n, last, err
		}
		if n += len(rows); len(rows) > 0 {
			last = rows[len(rows)-1]
		}
	}
}

func (p program) clock(ctx context.Context, args []string) error {
	fs, asJSON := newFlags("clock")
	set := fs.Bool("set", false, "set the meter's clock to the time of this machine; only with -yes")
	yes := fs.Bool("yes", false, "with -set: do it")
	args, err := p.parse(fs, args, 1, 1)
	if err != nil {
		return err
	}
	if *yes && !*set {
		return usagef("-yes alone does nothing: give both, -set -yes, to set the meter's clock")
	}
	c, m, err := p.open(ctx, args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	p.warnOfZone(m)
	src := logbook.Source{Conn: c, Address: m.Address, Zone: zone(m)}
	r, err := logbook.Clock(ctx, src)
	if err != nil {
		return err
	}
	if *set && !*yes {
		return usagef("would set the meter's clock from %s to %s, the standard time of its zone; add -yes to do it",
			r.Meter.Format(time.RFC3339), logbook.StandardTime(time.Now(), src.Zone).Format(time.RFC3339))
	}
	before := r
	if *set {
		r, err = logbook.SetClock(ctx, src)
		if errors.Is(err, kmp.ErrNoReply) {
			return errors.New("the meter did not take the time: it refuses, or does not let its clock be set over this line")
		} else if err != nil {
			return err
		}
	}
	drift := int64(r.Drift / time.Second)
	if *set {
		fmt.Fprintf(p.err, "The meter's clock was set from %s to %s; it was %+d s off and is now %+d s.\n", setFrom(before, r).Format(time.RFC3339),
			r.Meter.Format(time.RFC3339), before.Drift/time.Second, drift)
	}
	if *asJSON {
		return p.printJSON(struct {
			Meter time.Time `json:"meter"`
			Time  time.Time `json:"time"`
			Drift int64     `json:"drift_s"`
		}{r.Meter, r.At.In(r.Meter.Location()).Truncate(time.Second), drift})
	}
	if err := p.table([][]string{
		{"meter", r.Meter.Format(time.RFC3339)},
		{"this machine", r.At.In(r.Meter.Location()).Format(time.RFC3339)},
		{"drift", fmt.Sprintf("%+d s", drift)},
	}); err != nil {
		return err
	}
	if off := r.Drift.Abs() - time.Hour; off.Abs() < 5*time.Minute {
		fmt.Fprintln(p.err, "An hour off looks like summer time: KMP meters run on standard time all year. If the meter is elsewhere, say where: tz=Europe/Copenhagen on LINE.")
	}
	return nil
}

// setFrom is what the meter's clock would show now if it had not been set.
func setFrom(before, now logbook.ClockReading) time.Time {
	return before.Meter.Add(now.At.Sub(before.At)).Truncate(time.Second)
}

// export writes the rows that the bridge has kept.
func (p program) export(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("export", flag.ContinueOnError)
	rows := newRowFlags(fs, logbook.CSV, logbook.JSON, logbook.Influx)
	meter := fs.String("meter", "", "only the meter with this `NAME` or serial number")
	only := fs.String("log", "", "only this `LOG` of "+logNames)
	dir := fs.String("data", p.setting("DATA_DIR"), "the bridge's `DATA_DIR`")
	if _, err := p.parse(fs, args, 0, 0); err != nil {
		return err
	}
	format, err := rows.format("")
	if err != nil {
		return err
	}
	p.warnOfZone()
	since, until, err := rows.bounds(time.Local)
	if err != nil {
		return err
	}
	if *only != "" {
		if _, err := parseLog(*only); err != nil {
			return err
		}
	}
	switch {
	case format == "":
		return usagef("takes one of -csv, -json and -influx")
	case *dir == "":
		return usagef("does not know where the rows are: set DATA_DIR as for the bridge, or -data DIR")
	}
	store, err := history.Copy(*dir)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s has no rows: is it the DATA_DIR of a bridge that reads logs? %w", *dir, err)
	} else if err != nil {
		return err
	}
	defer store.Close()
	meters, err := store.Meters()
	if err != nil {
		return err
	}
	var names []string
	for _, m := range meters {
		names = append(names, cmp.Or(m.Name, m.Serial))
	}
	meters = slices.DeleteFunc(meters, func(m history.Meter) bool { return *meter != "" && m.Name != *meter && m.Serial != *meter })
	if len(meters) == 0 && len(names) > 0 {
		return usagef("-meter %q: there are rows of %s", *meter, strings.Join(names, ", "))
	}
	each := func(do func(logbook.Origin, logbook.Row) error) error {
		for _, m := range meters {
			for _, log := range m.Logs {
				if *only != "" && log.String() != *only {
					continue
				}
				if err := store.Range(m.Serial, log, since, until, func(r logbook.Row) error {
					if ctx.Err() != nil {
						return ctx.Err()
					}
					return do(logbook.Origin{Serial: m.Serial, Meter: m.Name}, r)
				}); err != nil {
					return err
				}
			}
		}
		return nil
	}
	keys := []string{} // of all rows: they share the columns
	if format == logbook.CSV {
		if err := each(func(_ logbook.Origin, r logbook.Row) error {
			for _, key := range logbook.Keys(r) {
				if !slices.Contains(keys, key) {
					keys = append(keys, key)
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	out := bufio.NewWriter(p.out)
	w := logbook.NewWriter(out, format, keys...)
	err = w.Write(logbook.Origin{}) // the header, also of no rows
	if err == nil {
		err = each(func(from logbook.Origin, r logbook.Row) error { return w.Write(from, r) })
	}
	if w.Skipped() > 0 {
		fmt.Fprintf(p.err, "%d rows have no time and are left out\n", w.Skipped())
	}
	if err == nil {
		err = out.Flush()
	}
	return errors.Join(err, store.Damaged()) // what is sound is written
}

func (p program) decode(_ context.Context, args []string) error {
	fs, asJSON := newFlags("decode")
	args, err := p.parse(fs, args, 1, -1)
	if err != nil {
		return err
	}
	text := strings.NewReplacer(" ", "", "\n", "", "\r", "", "\t", "", ":", "", ",", "", "0x", "", `\x`, "").Replace(strings.Join(args, " "))
	wire, err := hex.DecodeString(text)
	if err != nil {
		return usagef("%q is not hexadecimal: %w", strings.Join(args, " "), err)
	}
	if len(wire) == 0 {
		return usagef("%q holds no bytes", strings.Join(args, " "))
	}
	for _, frame := range explain.Split(wire) {
		e, err := explain.Frame(frame)
		if err != nil {
			return err
		}
		for _, problem := range e.Problems {
			fmt.Fprintln(p.err, problem)
		}
		if *asJSON {
			err = p.printJSON(e)
		} else {
			err = p.table(e.Lines())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p program) simulate(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("simulate", flag.ContinueOnError)
	listen := fs.String("listen", "", "serve TCP at `URL` (tcp://127.0.0.1:2002 unless -pty is given)")
	pty := fs.String("pty", "", "serve a pseudo terminal and put a link to it at `PATH`")
	replay := fs.String("replay", "", "answer as the meter in the support bundle `FILE` did")
	var cfg sim.Config
	cfg.RegisterFlags(fs)
	if _, err := p.parse(fs, args, 0, 0); err != nil {
		return err
	}
	if *listen == "" && *pty == "" {
		*listen = "tcp://127.0.0.1:2002"
	}
	meter, err := simulated(cfg, *replay)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	failed := make(chan error, 2)
	serve := func(f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				failed <- err
				cancel()
			}
		})
	}
	if *listen != "" {
		u, err := url.Parse(*listen)
		if err != nil || u.Scheme != "tcp" && u.Scheme != "socket" || u.Host == "" {
			return usagef("-listen %q: should be tcp://host:port", *listen)
		}
		l, err := net.Listen("tcp", u.Host)
		if err != nil {
			return err
		}
		fmt.Fprintf(p.out, "tcp://%s\n", l.Addr())
		serve(func() error { return meter.ServeListener(ctx, l) })
	}
	if *pty != "" {
		line, name, err := sim.OpenPTY(*pty)
		if err != nil {
			return err
		}
		defer line.Close()
		fmt.Fprintln(p.out, name)
		serve(func() error { return meter.Serve(ctx, line) })
	}
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// server is a meter that others can read: a simulated one, or one that was recorded.
type server interface {
	Serve(ctx context.Context, rw io.ReadWriteCloser) error
	ServeListener(ctx context.Context, l net.Listener) error
}

// simulated returns a simulated meter, or the one that a support bundle holds.
func simulated(cfg sim.Config, bundle string) (server, error) {
	if bundle == "" {
		meter, err := sim.New(cfg)
		if err != nil {
			return nil, usageError{err}
		}
		return meter, nil
	}
	f, err := os.Open(bundle)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	recording, err := sim.ReadRecording(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", bundle, err)
	}
	return recording, nil
}
