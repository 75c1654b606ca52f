package former

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"kmp2mqtt/kmp/catalog"
)

// KamstrupMQTT is the reader kamstrup-402-mqtt, as MQTT_COMPAT and [Migrate] call it.
const KamstrupMQTT = "kamstrup-402-mqtt"

// ErrReader says that a reader is not one of [Readers].
var ErrReader = errors.New("former: unknown reader")

// Readers are the other readers whose settings [Migrate] understands.
func Readers() []string { return []string{KamstrupMQTT, WobwobRt, Golles} }

// titleOf is how a reader is called in a sentence.
func titleOf(reader string) string {
	switch reader {
	case WobwobRt:
		return "WobwobRt's kamstrup2mqtt"
	case Golles:
		return "golles' integration"
	}
	return reader
}

// Migration is what becomes of another reader's settings.
type Migration struct {
	Reader   string    `json:"reader"`
	Settings []Setting `json:"settings"` // in the order of the README's table
	Notes    []Note    `json:"notes"`
}

// Setting is one variable of kmp2mqtt's environment. A password is in its value as it is.
type Setting struct {
	Variable string `json:"variable"`
	Value    string `json:"value"`
	Comment  string `json:"comment,omitempty"` // where it comes from, and what else it could be
}

// Kind says what a note is about.
type Kind string

// The kinds of notes, in the order in which they are shown.
const (
	WasWrong     Kind = "was wrong"     // in the other reader, unnoticed
	NoEquivalent Kind = "no equivalent" // what kmp2mqtt does not have
	Changed      Kind = "changed"       // what looks different from now on
	DoNext       Kind = "do next"       // a step for the owner, in order
)

// Note is something that an owner should know.
type Note struct {
	Kind Kind   `json:"kind"`
	Text string `json:"text"`
}

// Migrate translates the settings of one of [Readers] into those of kmp2mqtt. They come
// from files, 1 MiB each at the most: the reader's own YAML, lines of NAME=value, a compose
// file; for golles' integration also Home Assistant's .storage/core.config_entries. A later
// file replaces what an earlier one says. Environ holds more of them as NAME=value, which
// counts more than any file; it may hold anything else as well.
//
// An unknown reader is an [ErrReader]. What cannot be understood is an *[InputError], all of
// it joined; other errors are those of the files.
func Migrate(reader string, environ []string, files ...File) (Migration, error) {
	readers := map[string]func(*migrator){KamstrupMQTT: (*migrator).kamstrupMQTT, WobwobRt: (*migrator).wobwobrt, Golles: (*migrator).golles}
	translate, ok := readers[reader]
	if !ok {
		return Migration{}, fmt.Errorf("%w %q; there are %s", ErrReader, clip(reader), strings.Join(Readers(), ", "))
	}
	m := &migrator{input: newInput(reader), Migration: Migration{Reader: reader}}
	for _, f := range files {
		m.read(f)
	}
	m.environ(environ)
	if len(m.errs) == 0 {
		translate(m)
	}
	if len(m.errs) > 0 {
		slices.SortStableFunc(m.errs, byPlace)
		return Migration{}, errors.Join(m.errs...)
	}
	m.unknown()
	slices.SortStableFunc(m.Notes, func(a, b Note) int { return rank(a.Kind) - rank(b.Kind) })
	return m.Migration, nil
}

// byPlace orders errors by file and line.
func byPlace(a, b error) int {
	x, y := new(InputError), new(InputError)
	errors.As(a, &x) // those of files have no place and come first
	errors.As(b, &y)
	return cmp.Or(strings.Compare(x.File, y.File), x.Line-y.Line)
}

// rank orders the kinds of notes.
func rank(k Kind) int { return slices.Index([]Kind{WasWrong, NoEquivalent, Changed, DoNext}, k) }

// migrator builds a Migration from an input.
type migrator struct {
	*input
	Migration
}

func (m *migrator) set(variable, value, comment string) {
	m.Settings = append(m.Settings, Setting{variable, value, comment})
}

func (m *migrator) note(kind Kind, format string, args ...any) {
	m.Notes = append(m.Notes, Note{kind, fmt.Sprintf(format, args...)})
}

// unknown tells what in the files is no setting of the reader.
func (m *migrator) unknown() {
	if len(m.strange) > 0 {
		m.note(NoEquivalent, "settings of %s that are not known here, left out: %s", titleOf(m.Reader), enumerate(m.strange))
	}
	if len(m.indirect) > 0 {
		m.note(DoNext, "Set what %s was: its value stands elsewhere, in .env or in the shell.", enumerate(m.indirect))
	}
}

// enumerate names the first twenty of many.
func enumerate(names []string) string {
	const most = 20
	var b strings.Builder
	for i, name := range names[:min(most, len(names))] {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(plain(name))
	}
	if more := len(names) - most; more > 0 {
		fmt.Fprintf(&b, " and %d more", more)
	}
	return b.String()
}

// plain is a foreign word as it can stand in a sentence: short, and quoted if it has to be.
func plain(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("_-./:", r)
	}) {
		return strconv.Quote(clip(s))
	}
	return clip(s)
}

// clip shortens foreign text so that it can stand in a message.
func clip(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// WriteEnv writes the settings as an environment file for docker compose, systemd or a
// shell, each with its comment.
func (m Migration) WriteEnv(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "# Settings of kmp2mqtt, made from those of %s.\n", titleOf(m.Reader))
	for _, s := range m.Settings {
		fmt.Fprintln(b)
		for _, line := range wrap(s.Comment, 96) {
			fmt.Fprintln(b, "# "+line)
		}
		fmt.Fprintf(b, "%s=%s\n", s.Variable, quoted(s.Value))
	}
	return b.Flush()
}

// WriteText writes the notes for people, kind by kind.
func (m Migration) WriteText(w io.Writer) error {
	b := bufio.NewWriter(w)
	heads := map[Kind]string{
		WasWrong: "What was wrong before:", NoEquivalent: "What has no equivalent:",
		Changed: "What changes:", DoNext: "What to do next:",
	}
	step := 0
	for i, n := range m.Notes {
		if i == 0 || n.Kind != m.Notes[i-1].Kind {
			if i > 0 {
				fmt.Fprintln(b)
			}
			fmt.Fprintln(b, heads[n.Kind])
		}
		mark := "- "
		if n.Kind == DoNext {
			step++
			mark = fmt.Sprintf("%d. ", step)
		}
		for j, line := range wrap(n.Text, 92) {
			if j > 0 {
				mark = strings.Repeat(" ", len(mark))
			}
			fmt.Fprintln(b, "  "+mark+line)
		}
	}
	return b.Flush()
}

// safe are values that no reader of an environment file changes.
var safe = regexp.MustCompile(`^[A-Za-z0-9_./:@%+,=-]*$`)

// quoted is a value as it stands in an environment file. Values have no control characters.
func quoted(value string) string {
	switch {
	case safe.MatchString(value):
		return value
	case !strings.Contains(value, "'"):
		return "'" + value + "'"
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "`", "\\`").Replace(value) + `"`
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
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// meter is an entry of METERS in the making.
type meter struct {
	name, line string
	options    []string // "interval=10m"
}

func (m *meter) option(name, value string) {
	m.options = append(m.options, name+"="+url.QueryEscape(value))
}

func (m meter) String() string {
	s := m.name + "=" + m.line
	if len(m.options) > 0 {
		s += "?" + strings.Join(m.options, "&")
	}
	return s
}

// meterName is a name for a meter made of another reader's topic: its last level.
func meterName(topic string) string {
	last := topic[strings.LastIndex(topic, "/")+1:]
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '_'
	}, last)
	if strings.Trim(name, "_") == "" || name == "bridge" || len(name) > 64 {
		return "house"
	}
	return name
}

var (
	numbered = regexp.MustCompile(`^/dev/tty(USB|ACM)[0-9]+$`)
	windows  = regexp.MustCompile(`^(\\\\\.\\)?(?i:COM[1-9][0-9]{0,2})$`)
	usbID    = regexp.MustCompile(`^[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}$`)
	hostName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)
)

// line translates a port as pySerial names it into a line of METERS, with a comment; false
// if there is no such line here, which is told.
func (m *migrator) line(key string) (line, comment string, ok bool) {
	port := m.text(key)
	scheme, rest, isURL := strings.Cut(port, "://")
	scheme = strings.ToLower(scheme)
	switch {
	case port == "":
		m.note(DoNext, "No port was set (%s): add METERS=house=/dev/serial/by-id/... yourself.", key)
		return "", "", false
	case isURL && (scheme == "socket" || scheme == "rfc2217"):
		rest, options, _ := strings.Cut(rest, "?")
		rest = strings.TrimSuffix(rest, "/")
		host, number, err := net.SplitHostPort(rest)
		n, bad := strconv.ParseUint(number, 10, 16)
		if err != nil || bad != nil || n == 0 || !isHost(host) {
			m.fail(key, "%q is not %s://host:port", clip(port), scheme)
			return "", "", false
		}
		if options != "" {
			m.note(NoEquivalent, "the options of the line, %s", strconv.Quote(clip(options)))
		}
		if scheme == "socket" {
			scheme = "tcp"
		}
		return scheme + "://" + net.JoinHostPort(host, strconv.FormatUint(n, 10)), "", true
	case isURL && scheme == "hwgrep" && usbID.MatchString(rest):
		return "usb://" + strings.ToLower(rest), "", true
	case isURL:
		m.note(NoEquivalent, "the port %s: a line is a serial port, usb://VID:PID, tcp://host:port or rfc2217://host:port", strconv.Quote(clip(port)))
		m.note(DoNext, "Add METERS=house=/dev/serial/by-id/... yourself.")
		return "", "", false
	case windows.MatchString(port):
		return strings.TrimPrefix(port, `\\.\`), "", true
	case strings.HasPrefix(port, "/") && path.Clean(port) != "/":
		if numbered.MatchString(port) {
			comment = "The name " + port + " may become another adapter's: `ls -l /dev/serial/by-id/` shows one that stays."
		}
		return escaped(path.Clean(port)), comment, true
	}
	m.fail(key, "%q is neither the path of a device, a URL nor a port of Windows", clip(port))
	return "", "", false
}

// isHost reports whether s is the name or address of a host.
func isHost(s string) bool { return hostName.MatchString(s) || net.ParseIP(s) != nil }

// escaped is the path of a device as it stands in METERS.
func escaped(device string) string {
	var b strings.Builder
	for _, c := range []byte(device) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("/-_.:+,@~", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// The bounds of READ_INTERVAL and of the option timeout; package bridge has them, too.
const (
	longestInterval = 7 * 24 * time.Hour
	usualTimeout    = 2 * time.Second
	longestTimeout  = time.Minute
	// oftenest is how often a meter with a battery is read at the most when nobody says
	// otherwise: 96 times a day.
	oftenest = 15 * time.Minute
)

// interval reads a whole number of units, and says what becomes of those that are not
// possible here. False if there is none.
func (m *migrator) interval(key string, unit time.Duration) (time.Duration, bool) {
	text := m.text(key)
	if text == "" {
		return 0, false
	}
	n, err := strconv.ParseFloat(text, 64)
	name := map[time.Duration]string{time.Minute: "minutes", time.Second: "seconds"}[unit]
	if err != nil || math.IsNaN(n) {
		m.fail(key, "%q is not a number of %s", clip(text), name)
		return 0, false
	}
	d := longestInterval
	if n < float64(longestInterval)/float64(unit) {
		d = time.Duration(n * float64(unit)).Truncate(time.Second)
	}
	switch {
	case n <= 0 || d < time.Second:
		m.note(WasWrong, "%s %s leaves the meter no pause; it is read every 30 minutes now", key, plain(text))
		return 30 * time.Minute, true
	case d == longestInterval && n*float64(unit) > float64(d):
		m.note(Changed, "%s %s is longer than the longest interval here, 168h", key, plain(text))
	}
	if d < oftenest {
		m.note(Changed, "A meter that lives on a battery is read 96 times a day at the most, which is less often than every %s; the option budget in METERS allows more.", short(d))
	}
	return d, true
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

// timeout makes an option of a time-out in seconds, if it is longer than the usual one.
func (m *migrator) timeout(key string, to *meter) {
	text := m.text(key)
	if text == "" {
		return
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || n < 0 || math.IsNaN(n) {
		m.fail(key, "%q is not a number of seconds", clip(text))
		return
	}
	d := longestTimeout
	if n < longestTimeout.Seconds() {
		d = time.Duration(n * float64(time.Second)).Truncate(time.Millisecond)
	}
	if d > usualTimeout {
		to.option("timeout", d.String())
	} else {
		m.note(Changed, "the time-out of %s s is not needed: an answer may take 2 s to begin, and longer on a line that proves to be slow", plain(text))
	}
}

// registers translates parameters into REGISTERS, in their order.
func (m *migrator) registers(key string, known []Parameter) {
	var ids []uint16
	var strange []string
	for _, name := range m.list(key) {
		if strings.EqualFold(name, "Heat Energy") { // what early versions called it
			name = "energy"
		}
		p, ok := find(known, name)
		switch {
		case !ok:
			strange = append(strange, name)
		case !slices.Contains(ids, p.Register):
			ids = append(ids, p.Register)
		}
	}
	if len(strange) > 0 {
		m.note(NoEquivalent, "parameters that %s does not have either: %s", titleOf(m.Reader), enumerate(strange))
	}
	comment := "The same values in the same order."
	if i := slices.Index(ids, infoEvents); i >= 0 {
		m.note(WasWrong, "infoevent was register 113, which counts how many events there have been. What is the matter with the meter is told by register 99, info_code; it is read now as well.")
		if !slices.Contains(ids, infoCode) {
			ids = slices.Insert(ids, i, infoCode)
			comment = "The same values in the same order, and info_code."
		}
	}
	if len(ids) == 0 {
		m.note(Changed, "No parameters were named: the model's usual registers are read.")
		return
	}
	var names []string
	for _, id := range ids {
		names = append(names, catalog.Lookup(id).Name)
	}
	m.set("REGISTERS", strings.Join(names, ","), comment+" Without this line the model's usual registers are read.")
}

const infoCode, infoEvents = 99, 113

// WriteTable writes what becomes of a reader's settings, or with values of its values, as a
// table in Markdown.
func WriteTable(w io.Writer, reader string, values bool) error {
	b := bufio.NewWriter(w)
	if !values {
		fmt.Fprintln(b, "| before | now |")
		fmt.Fprintln(b, "|---|---|")
		for _, k := range keysOf(reader) {
			name := "`" + k.key + "`"
			if k.variable != "" {
				name += ", `" + k.variable + "`"
			}
			fmt.Fprintf(b, "| %s | %s |\n", name, strings.ReplaceAll(k.now, "~", "`"))
		}
		return b.Flush()
	}
	list, head, kept := Parameters(), "| before | register | id | what it is | unit |", func(Parameter) string { return "" }
	switch reader {
	case WobwobRt:
		list, head = WobwobRtParameters(), "| before | kept unique id | register | id | what it is | unit |"
		kept = func(p Parameter) string {
			id, _ := UniqueID(reader, p.Register)
			return " `" + id + "` |"
		}
	case Golles:
		list, head = GollesEntities(), "| before | kept entity id | register | id | what it is | unit |"
		kept = func(p Parameter) string {
			id, _ := EntityID(reader, p.Register)
			return " `sensor." + id + "` |"
		}
	}
	fmt.Fprintln(b, head)
	fmt.Fprintln(b, strings.Repeat("|---", strings.Count(head, "|")-1)+"|")
	for _, p := range list {
		r := catalog.Lookup(p.Register)
		fmt.Fprintf(b, "| `%s` |%s `%s` | %d | %s | %s |\n", p.Name, kept(p), r.Name, r.ID, r.Description, r.Unit)
	}
	return b.Flush()
}
