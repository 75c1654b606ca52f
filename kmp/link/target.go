package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The kinds of line, as [Target.Scheme] names them.
const (
	SchemeSerial  = "serial"  // a serial port of this machine
	SchemeUSB     = "usb"     // the same, found by the adapter's USB ids; Linux only
	SchemeTCP     = "tcp"     // bytes as they are over TCP; socket:// is the same
	SchemeRFC2217 = "rfc2217" // a serial server whose port is set from here
	SchemeSim     = "sim"     // a simulated meter inside this process
)

// Parity says how a serial port guards each byte.
type Parity string

// The parities, as the option parity takes them.
const (
	ParityNone  Parity = "none"
	ParityEven  Parity = "even"
	ParityOdd   Parity = "odd"
	ParityMark  Parity = "mark"
	ParitySpace Parity = "space"
)

// Switch is what the options dtr and rts ask for: "on", "off", or "" to leave the
// wire to the system.
type Switch string

// The settings of a wire.
const (
	Untouched Switch = ""
	On        Switch = "on"
	Off       Switch = "off"
)

// The line of a MULTICAL: 1200 baud, 8 data bits, no parity, 2 stop bits (Kamstrup
// 5512-447, section 3.1).
const (
	defaultBaud     = 1200
	defaultDataBits = 8
	defaultStopBits = 2
)

// Target is a parsed line URL. It is a plain value: two Targets compared with ==
// are equal when they name the same line with the same options. Make one with
// [Parse].
type Target struct {
	Scheme string // SchemeSerial, SchemeUSB, SchemeTCP, SchemeRFC2217 or SchemeSim

	Device string // serial: the cleaned absolute path, or COM1 and so on
	USB    string // usb: vendor and product id in lower case, such as 10c4:ea60
	Serial string // usb: the adapter's serial number, or empty
	Host   string // tcp, rfc2217: name in lower case or address, without brackets
	Port   uint16 // tcp, rfc2217: 1 to 65535
	Model  string // sim: the model's name, such as 403

	// How the serial port is set; with tcp, how the port behind the serial server
	// is believed to be set.
	Baud     int     // 50 to 4000000
	DataBits int     // 5 to 8
	Parity   Parity  // never empty
	StopBits float64 // 1, 1.5 or 2

	// Serial, usb and rfc2217 only.
	DTR    Switch
	RTS    Switch
	Warmup time.Duration // from the opening until the line is handed out, 0 to 30 s

	Options string // sim: its options as a query in alphabetical order
}

// Parse reads a line URL, or the absolute path of a serial port. All that is wrong
// with it is reported at once, in a [*URLError]. Options that are not about the
// line (a meter's address, how often it is read) are unknown here.
func Parse(raw string) (Target, error) {
	return parse(raw, runtime.GOOS)
}

// parser gathers what is wrong with one URL, so that its owner can mend it in one go.
type parser struct {
	goos   string
	target Target
	errs   []error
}

func (p *parser) fail(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf(format, args...))
}

// parse takes the operating system as a parameter because it decides what a serial
// port is called.
func parse(raw, goos string) (Target, error) {
	p := parser{goos: goos, target: Target{
		Baud:     defaultBaud,
		DataBits: defaultDataBits,
		Parity:   ParityNone,
		StopBits: defaultStopBits,
	}}
	p.line(raw)
	if len(p.errs) > 0 {
		return Target{}, &URLError{URL: redact(raw), Errs: p.errs}
	}
	return p.target, nil
}

const kinds = "/dev/ttyUSB0, serial:///dev/ttyUSB0, usb://10c4:ea60, tcp://host:port, socket://host:port, rfc2217://host:port or sim://403"

func (p *parser) line(raw string) {
	if raw == "" {
		p.fail("is empty; a line is %s", kinds)
		return
	}
	if strings.Contains(raw, "#") {
		p.fail("a line has no fragment; write a # that is part of a name as %%23")
		return
	}
	place, query, _ := strings.Cut(raw, "?")
	scheme, rest, isURL := strings.Cut(place, "://")
	if !isURL {
		scheme, rest = SchemeSerial, place
	}
	switch strings.ToLower(scheme) {
	case SchemeSerial:
		p.serial(rest)
	case SchemeUSB:
		p.usb(rest)
	case SchemeTCP, "socket":
		p.tcp(SchemeTCP, rest)
	case SchemeRFC2217:
		p.tcp(SchemeRFC2217, rest)
	case SchemeSim:
		p.sim(rest, query)
		return // its options are its own
	default:
		p.fail("unknown kind of line %q%s; a line is %s", scheme+"://",
			didYouMean(strings.ToLower(scheme), "://", SchemeSerial, SchemeUSB, SchemeTCP, "socket", SchemeRFC2217, SchemeSim), kinds)
		return
	}
	p.options(query)
}

func (p *parser) serial(rest string) {
	name, err := url.PathUnescape(rest)
	if err != nil {
		p.fail("bad escape in the device's name: write a %% that is part of it as %%25")
		return
	}
	p.target.Scheme = SchemeSerial
	com := isCOM(strings.TrimPrefix(name, `\\.\`))
	switch {
	case strings.ContainsFunc(name, isControl):
		p.fail("control character in the device's name")
	case com && p.goos == "windows":
		p.target.Device = strings.ToUpper(strings.TrimPrefix(name, `\\.\`))
	case com:
		p.fail("%s is a serial port of Windows; here it is a path such as /dev/ttyUSB0 or /dev/serial/by-id/...", name)
	case p.goos == "windows":
		p.fail("%q is not a serial port of Windows; those are called COM1, COM2 and so on", name)
	case name == "":
		p.fail("names no device; write the absolute path, as in serial:///dev/ttyUSB0")
	case strings.HasPrefix(name, "/"):
		p.target.Device = path.Clean(name)
		if p.target.Device == "/" {
			p.fail("names no device; write the absolute path, as in serial:///dev/ttyUSB0")
		}
	case strings.HasPrefix(name, "dev/"):
		p.fail("the device's path is not absolute; did you mean /%s?", name)
	case strings.HasPrefix(name, "tty") || strings.HasPrefix(name, "cu."):
		p.fail("the device's path is not absolute; did you mean /dev/%s?", name)
	default:
		p.fail("is neither a URL nor an absolute path; a line is %s", kinds)
	}
}

func (p *parser) usb(rest string) {
	p.target.Scheme = SchemeUSB
	if p.goos != "linux" {
		p.fail("usb:// finds adapters on Linux only; use the port's name, such as /dev/cu.usbserial-1 or COM3")
		return
	}
	ids, number, _ := strings.Cut(rest, "/")
	vendor, product, _ := strings.Cut(ids, ":")
	if !isUSBID(vendor) || !isUSBID(product) {
		p.fail("%q is not VID:PID, four hexadecimal digits each as lsusb shows them; write usb://10c4:ea60, or usb://10c4:ea60/0001 with the adapter's serial number", ids)
		return
	}
	p.target.USB = strings.ToLower(ids)
	serial, err := url.PathUnescape(number)
	switch {
	case err != nil:
		p.fail("bad escape in the adapter's serial number: write a %% that is part of it as %%25")
	case strings.ContainsFunc(serial, isControl):
		p.fail("control character in the adapter's serial number")
	default:
		p.target.Serial = serial
	}
}

func isUSBID(s string) bool {
	return len(s) == 4 && strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

func isControl(r rune) bool { return r < ' ' || r == 0x7F }

// isCOM reports whether the name is that of a port of Windows, COM1 to COM999, in
// any case.
func isCOM(name string) bool {
	if len(name) < 4 || len(name) > 6 || !strings.EqualFold(name[:3], "COM") || name[3] == '0' {
		return false
	}
	return strings.Trim(name[3:], "0123456789") == ""
}

func (p *parser) tcp(scheme, rest string) {
	p.target.Scheme = scheme
	if strings.Contains(rest, "@") {
		p.fail("a line over TCP has no user and password; write %s://%s", scheme, withoutUser(rest))
		return
	}
	if hostport, tail, found := strings.Cut(rest, "/"); found {
		if tail != "" {
			p.fail("a line over TCP has no path; leave out %q", "/"+tail)
		}
		rest = hostport
	}
	if rest == "" {
		p.fail("names no host; write %s://host:port", p.target.Scheme)
		return
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		if addr, bad := netip.ParseAddr(strings.Trim(rest, "[]")); bad == nil {
			if addr.Is6() {
				rest = "[" + addr.String() + "]"
			}
			p.fail("has no port, and there is no usual one; write %s://%s:port with the port of the serial server", scheme, rest)
			return
		}
		var bad *net.AddrError
		if errors.As(err, &bad) && bad.Err == "missing port in address" {
			p.fail("has no port, and there is no usual one; write %s://%s:port with the port of the serial server", scheme, rest)
			return
		}
		p.fail("%q is not host:port (an IPv6 address goes in brackets, as in %s://[fd00::7]:2000)", rest, scheme)
		return
	}
	p.host(host, strings.HasPrefix(rest, "["))
	switch n, err := strconv.ParseUint(port, 10, 16); {
	case port == "":
		p.fail("has no port after the colon, and there is no usual one; write %s://%s:port with the port of the serial server", scheme, host)
	case err != nil || n == 0 || strings.HasPrefix(port, "+"):
		p.fail("port %q is not a number from 1 to 65535", port)
	default:
		p.target.Port = uint16(n)
	}
}

func (p *parser) host(host string, bracketed bool) {
	if host == "" {
		p.fail("names no host; write %s://host:port", p.target.Scheme)
		return
	}
	if bracketed {
		// In a URL the percent sign before a zone is escaped: fe80::1%25eth0.
		name := strings.Replace(host, "%25", "%", 1)
		addr, err := netip.ParseAddr(name)
		if err != nil || !addr.Is6() || strings.ContainsFunc(addr.Zone(), notInName) {
			p.fail("%q in brackets is not an IPv6 address", host)
			return
		}
		p.target.Host = addr.String()
		return
	}
	if strings.ContainsFunc(host, notInName) {
		p.fail("%q is not a host's name or address", host)
		return
	}
	p.target.Host = strings.ToLower(host)
}

// notInName finds what neither a host's name nor an address's zone may hold.
func notInName(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '.', r == '_':
		return false
	}
	return true
}

// The options of serial://, usb://, tcp:// and rfc2217://, and what reads each.
var optionNames = []string{"baud", "databits", "parity", "stopbits", "dtr", "rts", "warmup"}

func (p *parser) options(query string) {
	values, err := url.ParseQuery(query)
	if err != nil {
		p.fail("bad options %q: %w", query, err)
		return
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if !slices.Contains(optionNames, name) {
			p.fail("unknown option %q%s; a line's options are %s", name, didYouMean(strings.ToLower(name), "", optionNames...), strings.Join(optionNames, ", "))
			continue
		}
		if len(values[name]) > 1 {
			p.fail("option %s is given %d times", name, len(values[name]))
			continue
		}
		p.option(name, values[name][0])
	}
}

func (p *parser) option(name, value string) {
	t := &p.target
	switch name {
	case "baud":
		n, err := strconv.Atoi(value)
		if err != nil || n < 50 || n > 4_000_000 {
			p.fail("baud %q is not a number from 50 to 4000000; meters have 1200, some 2400 or 9600", value)
			return
		}
		t.Baud = n
	case "databits":
		if len(value) != 1 || value[0] < '5' || value[0] > '8' {
			p.fail("databits %q is not 5, 6, 7 or 8; meters have 8", value)
			return
		}
		t.DataBits = int(value[0] - '0')
	case "parity":
		for _, parity := range []Parity{ParityNone, ParityEven, ParityOdd, ParityMark, ParitySpace} {
			if strings.EqualFold(value, string(parity)) || strings.EqualFold(value, string(parity[:1])) {
				t.Parity = parity
				return
			}
		}
		p.fail("parity %q is not none, even, odd, mark or space; meters have none", value)
	case "stopbits":
		switch {
		case value == "1":
			t.StopBits = 1
		case value == "2":
			t.StopBits = 2
		case value == "1.5" && (t.Scheme == SchemeSerial || t.Scheme == SchemeUSB) && p.goos != "windows":
			p.fail("1.5 stop bits are not possible on this system; use 1 or 2")
		case value == "1.5":
			t.StopBits = 1.5
		default:
			p.fail("stopbits %q is not 1, 1.5 or 2; meters have 2", value)
		}
	case "dtr", "rts":
		wire := &t.DTR
		if name == "rts" {
			wire = &t.RTS
		}
		switch {
		case t.Scheme == SchemeTCP:
			p.fail("option %s is not for raw TCP; set it at the serial server instead, or use rfc2217://", name)
		case value == string(On) || value == string(Off):
			*wire = Switch(value)
		default:
			p.fail("%s %q is not on or off", name, value)
		}
	case "warmup":
		d, err := time.ParseDuration(value)
		switch {
		case t.Scheme == SchemeTCP:
			p.fail("option warmup is not for raw TCP, where the head's power does not depend on the connection; use rfc2217:// if it does")
		case err != nil || d < 0 || d > maxWarmup:
			p.fail("warmup %q is not a time from 0s to %v; write warmup=2s", value, maxWarmup)
		default:
			t.Warmup = d
		}
	}
}

// maxWarmup is longer than any head needs.
const maxWarmup = 30 * time.Second

// String returns the URL in its one canonical form, without what is the default: a
// serial port by its path alone, tcp:// for socket://. Two Targets are equal
// exactly when their strings are, and Parse reads it back.
func (t Target) String() string {
	q := make([]string, 0, len(optionNames))
	if t.Baud != defaultBaud {
		q = append(q, "baud="+strconv.Itoa(t.Baud))
	}
	if t.DataBits != defaultDataBits {
		q = append(q, "databits="+strconv.Itoa(t.DataBits))
	}
	if t.Parity != ParityNone {
		q = append(q, "parity="+string(t.Parity))
	}
	if t.StopBits != defaultStopBits {
		q = append(q, "stopbits="+strconv.FormatFloat(t.StopBits, 'f', -1, 64))
	}
	if t.DTR != Untouched {
		q = append(q, "dtr="+string(t.DTR))
	}
	if t.RTS != Untouched {
		q = append(q, "rts="+string(t.RTS))
	}
	if t.Warmup != 0 {
		q = append(q, "warmup="+t.Warmup.String())
	}
	s := t.Endpoint()
	if t.Scheme == SchemeRFC2217 {
		s = "rfc2217://" + t.authority()
	}
	if t.Scheme == SchemeSim {
		if t.Options != "" {
			s += "?" + t.Options
		}
		return s
	}
	if len(q) > 0 {
		s += "?" + strings.Join(q, "&")
	}
	return s
}

// Endpoint returns where the line ends, without its options. Two Targets with one
// Endpoint and different strings ask for one line with two settings, which cannot
// be; that is why rfc2217:// ends at the same tcp:// as a raw line. Simulated
// meters are made anew each time and are never in each other's way.
func (t Target) Endpoint() string {
	switch t.Scheme {
	case SchemeTCP, SchemeRFC2217:
		return "tcp://" + t.authority()
	case SchemeSim:
		return "sim://" + t.Model
	case SchemeUSB:
		return usbEndpoint(t.USB, t.Serial)
	default:
		return (&url.URL{Path: t.Device}).EscapedPath()
	}
}

// usbEndpoint returns the line of a USB adapter; the serial number may be empty.
func usbEndpoint(ids, serial string) string {
	s := "usb://" + ids
	if serial != "" {
		s += "/" + url.PathEscape(serial)
	}
	return s
}

// authority returns host:port as a URL has it.
func (t Target) authority() string {
	return strings.Replace(net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port))), "%", "%25", 1)
}

// ByteTime returns how long one byte takes on the wire: a start bit, the data bits,
// a parity bit if there is one, and the stop bits, rounded up to a nanosecond. At
// 1200 baud, 8N2, that is 11 bits in 9.167 ms.
func (t Target) ByteTime() time.Duration {
	if t.Baud <= 0 {
		return Target{Baud: defaultBaud, DataBits: defaultDataBits, Parity: ParityNone, StopBits: defaultStopBits}.ByteTime()
	}
	half := 2 + 2*t.DataBits + int(2*t.StopBits) // in half bits, for the sake of 1.5 stop bits
	if t.Parity != ParityNone && t.Parity != "" {
		half += 2
	}
	baud := time.Duration(2 * t.Baud)
	return (time.Duration(half)*time.Second + baud - 1) / baud
}

// redact keeps a password that does not belong in a line's URL out of the logs.
func redact(raw string) string {
	place, query, found := strings.Cut(raw, "?")
	scheme, rest, isURL := strings.Cut(place, "://")
	if !isURL || !strings.Contains(rest, "@") {
		return raw
	}
	place = scheme + "://xxxxx@" + withoutUser(rest)
	if found {
		place += "?" + query
	}
	return place
}

func withoutUser(authority string) string {
	return authority[strings.LastIndex(authority, "@")+1:]
}

// didYouMean returns " (did you mean x?)" for the known word that is at most two
// letters away, or nothing.
func didYouMean(word, suffix string, known ...string) string {
	best, distance := "", 3
	for _, k := range known {
		if d := letters(word, k); d < distance && d < len(k) {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return " (did you mean " + best + suffix + "?)"
}

// letters counts the letters to add, drop, replace or swap with their neighbour to
// make b of a. Words much longer than any option are not counted out: they are far
// from every one.
func letters(a, b string) int {
	if len(a) > len(b)+3 {
		return len(a) - len(b)
	}
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = min(row[j]+cost, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
