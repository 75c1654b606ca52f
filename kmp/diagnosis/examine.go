package diagnosis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/link"
)

// Options say which line [Examine] and [Align] look at.
type Options struct {
	Target    link.Target
	Address   kmp.Address   // 0: the meter's usual one, 3F
	Timeout   time.Duration // for an answer's first byte; 0: Examine 2 s, Align 0.8 s
	Model     string        // name in package catalog; empty: what the meter says
	Registers []uint16      // of the long read, the first 8; none: the model's usual ones
	// Dial opens the line, as [link.Open] does.
	Dial func(context.Context, link.Target) (kmp.Line, error)
}

func (o Options) withDefaults() Options {
	if o.Address == 0 {
		o.Address = kmp.HeatMeter
	}
	return o
}

// serial reports whether a serial port is set from here, so that its settings can be
// tried.
func (o Options) serial() bool {
	return o.Target.Scheme != link.SchemeTCP && o.Target.Scheme != link.SchemeSim
}

// Step is one thing that [Examine] tried.
type Step struct {
	Name   string `json:"name"` // what was tried, in two or three words
	OK     bool   `json:"ok"`
	Result string `json:"result"`
}

// Verdict is what [Examine] found.
type Verdict struct {
	Code     Code     `json:"code"`
	Title    string   `json:"title"`
	Text     string   `json:"text"`
	NextStep string   `json:"next_step"`
	Serial   *string  `json:"serial"`        // nil: the meter did not say
	Add      string   `json:"add,omitempty"` // options of the line with which the meter answered: "baud=9600&stopbits=1"
	Steps    []Step   `json:"steps"`
	Evidence Evidence `json:"evidence"`
}

const (
	// longReads is how often Examine reads 8 registers, and mayFail how many of these
	// may fail on a line that is called good: repetition mends that.
	longReads = 5
	mayFail   = 1
	// textWait is how long an answer to /#1 may take; textLength is what one has: ten
	// groups of seven digits and a space each.
	textWait   = 3 * time.Second
	textLength = 80
)

// anyFamily are registers of the long read when the model is not known: of them, heat
// meters have six, water meters three, electricity meters two or three.
var anyFamily = []uint16{60, 68, 74, 86, 87, 1004, 1, 1023}

// examination is Examine at work.
type examination struct {
	Options
	report  func(Step)
	verdict Verdict
}

// Examine looks at a line on the spot and tells each step to report, which may be nil.
// It sends two requests and five long ones where the meter answers; to a silent one two,
// then one at each other usual address and, where it can set the port, with each other
// usual setting. Its end is the verdict, also when ctx ends it early. Nobody
// else may use the line meanwhile.
func Examine(ctx context.Context, o Options, report func(Step)) Verdict {
	x := &examination{Options: o.withDefaults(), report: report}
	x.verdict.Steps = []Step{}
	x.step("line", true, "%s", describe(x.Target, x.Address))
	line, err := x.open(ctx)
	if err != nil {
		return x.conclude(Evidence{Err: err})
	}
	c := x.client(line, x.Target)
	e := x.ask(ctx, c)
	code := Classify(e)
	if slices.Contains([]Code{Silent, EchoOnly, WrongAddress}, code) && ctx.Err() == nil {
		x.tryAddresses(ctx, c)
	}
	c.Close()
	unheard := slices.Contains([]Code{Silent, EchoOnly, WrongAddress, NoFrame}, code) && e.Foreign == 0
	if unheard && x.verdict.Add == "" && x.serial() {
		x.trySettings(ctx)
	}
	return x.conclude(e)
}

func (x *examination) step(name string, ok bool, format string, args ...any) {
	s := Step{name, ok, fmt.Sprintf(format, args...)}
	x.verdict.Steps = append(x.verdict.Steps, s)
	if x.report != nil {
		x.report(s)
	}
}

// describe puts a line into words.
func describe(t link.Target, addr kmp.Address) string {
	s := t.Endpoint()
	if t.Scheme == link.SchemeRFC2217 {
		s = strings.Replace(s, link.SchemeTCP, link.SchemeRFC2217, 1)
	}
	switch t.Scheme {
	case link.SchemeSim:
	case link.SchemeTCP:
		s += ", as the serial server is set"
	default:
		s += fmt.Sprintf(", %d baud %d%s%s", t.Baud, t.DataBits, strings.ToUpper(string(t.Parity[:1])), stopBits(t))
	}
	return fmt.Sprintf("%s, address %02X", s, byte(addr))
}

func stopBits(t link.Target) string { return strconv.FormatFloat(t.StopBits, 'f', -1, 64) }

// open opens the line. That its end is there and that it opens are two steps of one
// attempt: what fails tells how far it came.
func (x *examination) open(ctx context.Context) (kmp.Line, error) {
	start := time.Now()
	line, err := x.Dial(ctx, x.Target)
	there, does := "device", "there"
	switch x.Target.Scheme {
	case link.SchemeTCP, link.SchemeRFC2217:
		there, does = "host", "there and answers"
	case link.SchemeSim:
		there = "simulated meter"
	}
	if err != nil {
		switch c := Classify(FromError(err)); c {
		case PortMissing, HostUnknown, HostUnreachable, Failed:
			x.step(there, false, "%v", err)
		default:
			x.step(there, true, "%s", does)
			x.step("open", false, "%v", err)
		}
		return nil, err
	}
	x.step(there, true, "%s", does)
	x.step("open", true, "in %s", short(time.Since(start)))
	return line, nil
}

// client is a client with the line's timing. It repeats nothing: each request shows.
func (o Options) client(line kmp.Line, t link.Target) *kmp.Conn {
	return kmp.NewConn(line, kmp.Options{Timeout: o.Timeout, ByteTime: t.ByteTime(), Retries: -1})
}

// ask asks the meter who it is and for registers.
func (x *examination) ask(ctx context.Context, c *kmp.Conn) Evidence {
	serial, err := c.GetSerialNo(ctx, x.Address)
	if err != nil && lineClass(err) == "" && ctx.Err() == nil { // a meter that sleeps may miss the first request
		serial, err = c.GetSerialNo(ctx, x.Address)
	}
	x.answered("serial number", err, func() string {
		s := strconv.FormatUint(uint64(serial), 10)
		x.verdict.Serial = &s
		return s
	}, c)
	if err != nil {
		return x.evidence(c, err)
	}
	model, known := catalog.ModelByName(x.Model)
	typ, err := c.GetType(ctx, x.Address)
	x.answered("meter type", err, func() string {
		if m, ok := catalog.ModelByType(typ.MeterType); ok && !known {
			model, known = m, true
		}
		s := fmt.Sprintf("%04X, software %s", typ.MeterType, typ.Revision)
		if known {
			s = model.Title + ", " + s
		}
		return s
	}, c)
	ids := x.Registers
	if len(ids) == 0 && known {
		ids = model.Registers
	}
	if len(ids) == 0 {
		ids = anyFamily
	}
	return x.read(ctx, c, ids[:min(len(ids), kmp.MaxRegisters)])
}

// read reads 8 registers some times: long answers show what short ones do not.
func (x *examination) read(ctx context.Context, c *kmp.Conn, ids []uint16) Evidence {
	var failure error
	good, got := 0, 0
	for range longReads {
		var a kmp.GetRegisterAnswer
		err := c.Do(ctx, x.Address, &kmp.GetRegisterRequest{IDs: ids}, &a)
		if ctx.Err() != nil {
			failure = err
			break
		}
		if err != nil {
			failure = err
			if lineClass(err) != "" {
				break
			}
			continue
		}
		good++
		got = max(got, len(a.Registers))
	}
	ok := longReads-good <= mayFail
	result := fmt.Sprintf("%d of %d answers good", good, longReads)
	if good > 0 {
		result += fmt.Sprintf(", with %d of the %d registers asked for", got, len(ids))
	}
	if failure != nil {
		result += "; " + reason(failure)
	}
	x.step("long read", ok && got > 0, "%s", result)
	if ok {
		failure = nil
	}
	e := x.evidence(c, failure)
	e.Asked, e.Got = len(ids), got
	return e
}

// answered reports one request of a meter.
func (x *examination) answered(name string, err error, value func() string, c *kmp.Conn) {
	if err != nil {
		x.step(name, false, "%s", reason(err))
		return
	}
	s := c.Stats()
	echo := "no echo"
	if s.Echo {
		echo = "echo"
	}
	x.step(name, true, "%s (first byte after %s, %s)", value(), short(s.FirstByte), echo)
}

// reason is an error in a few words: its class, and what it says.
func reason(err error) string { return Lookup(Classify(FromError(err))).Title + ": " + err.Error() }

// short is a duration for people.
func short(d time.Duration) string { return d.Round(time.Millisecond).String() }

// evidence is what a client has seen since it was made.
func (o Options) evidence(c *kmp.Conn, err error) Evidence {
	s := c.Stats()
	e := FromError(err)
	e.Sent, e.Received, e.Echo, e.FirstByte = s.BytesSent, s.BytesReceived, s.Echo, s.FirstByte
	e.Answers, e.BadFrames, e.ChecksumErrors, e.Foreign = s.Answers, s.BadFrames, s.ChecksumErrors, s.Foreign
	e.Address, e.Now = o.Address, time.Now()
	return e
}

// tryAddresses asks at the other usual addresses, once each.
func (x *examination) tryAddresses(ctx context.Context, c *kmp.Conn) {
	for _, addr := range []kmp.Address{kmp.HeatMeter, kmp.LoggerTop, kmp.LoggerBase} {
		if addr != x.Address && x.verdict.Add == "" && ctx.Err() == nil {
			x.try(ctx, c, fmt.Sprintf("address %02X", byte(addr)), addr, fmt.Sprintf("address=0x%02X", byte(addr)))
		}
	}
}

// try asks for the serial number in another way, and keeps how when that worked.
func (x *examination) try(ctx context.Context, c *kmp.Conn, name string, addr kmp.Address, options string) {
	serial, err := c.GetSerialNo(ctx, addr)
	if err != nil {
		result := Lookup(Classify(FromError(err))).Title
		if errors.Is(err, kmp.ErrNoReply) {
			result = "no answer"
		}
		x.step(name, false, "%s", result)
		return
	}
	s := strconv.FormatUint(uint64(serial), 10)
	x.verdict.Serial, x.verdict.Add = &s, options
	x.step(name, true, "%s answers", s)
}

// trySettings opens the port with other usual settings: electricity meters have 9600
// 8N1, some MULTICAL 302 2400 8N2, all others 1200 8N2.
func (x *examination) trySettings(ctx context.Context) {
	for _, s := range []struct {
		baud int
		stop float64
	}{{1200, 2}, {9600, 1}, {2400, 2}} {
		t := x.Target
		t.Baud, t.DataBits, t.Parity, t.StopBits = s.baud, 8, link.ParityNone, s.stop
		if t == x.Target || x.verdict.Add != "" || ctx.Err() != nil {
			continue
		}
		name := fmt.Sprintf("%d baud 8N%s", t.Baud, stopBits(t))
		line, err := x.Dial(ctx, t)
		if err != nil {
			x.step(name, false, "%v", err)
			continue
		}
		c := x.client(line, t)
		x.try(ctx, c, name, x.Address, fmt.Sprintf("baud=%d&stopbits=%s", t.Baud, stopBits(t)))
		c.Close()
	}
	if x.verdict.Add == "" && ctx.Err() == nil {
		x.tryText(ctx)
	}
}

// tryText asks as the meters before KMP want it: /#1 at 300 baud 7E2, the answer comes
// at 1200 baud.
func (x *examination) tryText(ctx context.Context) {
	const name = "/#1 at 300 baud 7E2"
	t := x.Target
	t.Baud, t.DataBits, t.Parity, t.StopBits = 300, 7, link.ParityEven, 2
	came, err := x.talk(ctx, t, "/#1")
	switch {
	case err != nil:
		x.step(name, false, "%v", err)
	case speaksText(came):
		x.verdict.Code = OtherProtocol
		x.step(name, true, "%q", came)
	default:
		x.step(name, false, "%d bytes, no text of a MULTICAL 66C or 401", len(came))
	}
}

// talk sends text with the settings t, and listens at 1200 baud.
func (x *examination) talk(ctx context.Context, t link.Target, text string) ([]byte, error) {
	line, err := x.Dial(ctx, t)
	if err != nil {
		return nil, err
	}
	c := kmp.NewConn(line, kmp.Options{})
	err = c.Write(ctx, []byte(text))
	pause(ctx, time.Duration(len(text)+1)*t.ByteTime()) // closing would drop what has not left the port yet
	c.Close()
	if err != nil {
		return nil, err
	}
	t.Baud, t.Warmup = 1200, 0 // the answer does not wait
	if line, err = x.Dial(ctx, t); err != nil {
		return nil, err
	}
	c = kmp.NewConn(line, kmp.Options{Timeout: textWait})
	defer c.Close()
	came, _ := c.ReadN(ctx, textLength) // that no more came is no failure
	return came, nil
}

// pause waits, at most until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// conclude puts the verdict into words. What was found by trying goes before what the
// evidence says.
func (x *examination) conclude(e Evidence) Verdict {
	v := &x.verdict
	v.Evidence = e
	switch {
	case v.Code != "":
	case strings.HasPrefix(v.Add, "address="):
		v.Code = WrongAddress
	case v.Add != "":
		v.Code = NoFrame
	default:
		v.Code = Classify(e)
	}
	class := Lookup(v.Code)
	v.Title, v.Text, v.NextStep = class.Title, e.Text(v.Code), class.NextStep
	if v.Add != "" {
		v.Text = "The meter answers, but not with the options that this line has now."
		v.NextStep = fmt.Sprintf("Write the options %s on the line: with them the meter answered.", v.Add)
		if v.Add == fmt.Sprintf("address=0x%02X", byte(kmp.HeatMeter)) {
			v.NextStep = "Take the option address off the line: at the usual one the meter answered."
		}
	}
	return *v
}
