// Package explain puts frames into words: what stands in them, by name, with units, in
// either direction.
package explain

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

// Explanation is one frame in words.
type Explanation struct {
	parts []part
	// Problems are values that cannot be what their unit promises. They are unknown.
	Problems []error
}

// part is one thing that a frame says: a member in JSON, and lines of name and text.
type part struct {
	key   string
	value any
	lines [][]string
}

// Lines returns the explanation for people, each line a name and a text.
func (e Explanation) Lines() [][]string {
	var lines [][]string
	for _, p := range e.parts {
		lines = append(lines, p.lines...)
	}
	return lines
}

// MarshalJSON returns an object. Which members it has depends on the command.
func (e Explanation) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	text := json.NewEncoder(&b)
	text.SetEscapeHTML(false)
	for i, p := range e.parts {
		b.WriteByte("{,"[min(i, 1)])
		fmt.Fprintf(&b, "%q:", p.key)
		if err := text.Encode(p.value); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// Split cuts a capture, such as an echo and the answer behind it, after each stop byte.
// What is not a frame is left for [Frame] to refuse.
func Split(wire []byte) [][]byte {
	var frames [][]byte
	for len(wire) > 0 {
		end := slices.Index(wire, kmp.Stop) + 1
		if wire[0] == kmp.Ack {
			end = 1
		}
		if end == 0 {
			end = len(wire)
		}
		frames = append(frames, wire[:end])
		wire = wire[end:]
	}
	return frames
}

// Frame explains one frame as it was on the wire, or the byte 06. A command without a
// known layout has its data in hexadecimal. Errors are those of [kmp.DecodeFrame] and
// [kmp.DecodeMessage].
func Frame(wire []byte) (Explanation, error) {
	var e Explanation
	f, err := kmp.DecodeFrame(wire)
	if errors.Is(err, kmp.ErrAck) {
		e.say("direction", "direction", "from_meter")
		e.add("acknowledgement", true, "acknowledgement", "06")
		return e, nil
	}
	var m kmp.Message
	if err == nil {
		m, err = kmp.DecodeMessage(f)
	}
	if err != nil && !errors.Is(err, kmp.ErrUnknownCommand) {
		return e, fmt.Errorf("% X: %w", wire, err)
	}
	e.say("direction", "direction", f.Direction.String())
	e.add("address", f.Address, "address", fmt.Sprintf("%d (%02X)", f.Address, byte(f.Address)))
	e.add("command", f.Command.String(), "command", fmt.Sprintf("%s (%02X)", f.Command, byte(f.Command)))
	if f.Command == kmp.CmdLogger && len(f.Data) > 0 {
		sub := kmp.LogCommand(f.Data[0])
		e.add("sub_command", sub.String(), "sub-command", fmt.Sprintf("%s (%02X)", sub, byte(sub)))
	}
	if m == nil {
		e.say("data", "data", fmt.Sprintf("%X", f.Data))
		return e, nil
	}
	e.message(f.Address, m)
	return e, nil
}

// add adds a part with one line.
func (e *Explanation) add(key string, value any, name, text string) {
	e.parts = append(e.parts, part{key, value, [][]string{{name, text}}})
}

// say is add for what is the same text in both forms.
func (e *Explanation) say(key, name, text string) { e.add(key, text, name, text) }

// number is add for a number.
func number[T ~uint8 | ~uint16 | ~uint32](e *Explanation, key, name string, n T) {
	e.add(key, uint32(n), name, strconv.FormatUint(uint64(n), 10))
}

// message explains what stands behind the command. Requests that are nothing but their
// command have nothing there.
func (e *Explanation) message(addr kmp.Address, m kmp.Message) {
	switch m := m.(type) {
	case *kmp.GetTypeAnswer:
		e.say("meter_type", "meter type", fmt.Sprintf("%04X", m.MeterType))
		e.say("software_revision", "software revision", m.Revision.String())
		if model, ok := catalog.ModelByType(m.MeterType); ok {
			e.say("model", "model", model.Title)
		}
	case *kmp.GetSerialNoAnswer:
		e.say("serial", "serial", fmt.Sprint(m.SerialNo))
	case *kmp.SetClockRequest:
		t := kmp.DateTime{Date: m.Date, Clock: m.Clock}
		e.add("time", t, "time", t.String())
	case *kmp.GetRegisterRequest:
		e.asked(m.IDs)
	case *kmp.GetRegisterAnswer:
		e.registers(m.Registers)
	case *kmp.PutRegisterRequest:
		number(e, "password", "password", m.Password)
		e.registers([]kmp.Register{m.Register})
	case *kmp.GetEventStatusAnswer:
		e.events("event_status", "event status", addr, m.Status)
	case *kmp.ClearEventStatusRequest:
		e.events("conditional", "cleared unless new", addr, m.Conditional)
		e.events("unconditional", "cleared", addr, m.Unconditional)
	case *kmp.ClearEventStatusAnswer:
		e.events("event_status", "event status", addr, m.Status)
	case *kmp.LogRecordsRequest:
		e.recordsRequest(m)
	case *kmp.LogRecordsAnswer:
		e.records(m.LogRecords)
	case *kmp.LogConfigRequest:
		e.say("log", "log", m.Log.String())
	case *kmp.LogConfigAnswer:
		e.config(m.LogConfig)
	case *kmp.LogByIDRequest:
		e.say("log", "log", m.Log.String())
		number(e, "from", "from row", m.From)
		number(e, "entries", "rows at most", m.Entries)
		e.asked(m.IDs)
	case *kmp.LogLastRequest:
		e.say("log", "log", m.Log.String())
		number(e, "offset", "rows before the newest", m.Offset)
		number(e, "entries", "rows at most", m.Entries)
		e.asked(m.IDs)
	case *kmp.LogByIDAnswer:
		e.page(m.LogPage)
	case *kmp.LogLastAnswer:
		e.page(m.LogPage)
	}
}

// asked names registers without values.
func (e *Explanation) asked(ids []uint16) {
	type asked struct {
		ID          uint16 `json:"id"`
		Name        string `json:"name"`
		Description string `json:"description"`
	}
	list := []asked{}
	var lines [][]string
	for _, id := range ids {
		r := catalog.Lookup(id)
		list = append(list, asked{id, r.Name, r.Description})
		lines = append(lines, []string{fmt.Sprintf("register %d", id), r.Name})
	}
	e.parts = append(e.parts, part{"registers", list, lines})
}

// describe describes registers, and notes which values are no values.
func (e *Explanation) describe(registers []kmp.Register) []Register {
	list := []Register{}
	for _, r := range registers {
		d, err := Describe(r)
		if err != nil {
			e.Problems = append(e.Problems, err)
		}
		list = append(list, d)
	}
	return list
}

func (e *Explanation) registers(registers []kmp.Register) {
	list := e.describe(registers)
	var lines [][]string
	for _, r := range list {
		lines = append(lines, []string{fmt.Sprintf("register %d", r.ID), r.String()})
	}
	e.parts = append(e.parts, part{"registers", list, lines})
}

// events explains an event status. What the bits mean is known of heat meters' loggers
// alone.
func (e *Explanation) events(key, name string, addr kmp.Address, s kmp.EventStatus) {
	type events struct {
		Bytes string   `json:"bytes"`
		Words []string `json:"words,omitempty"`
	}
	var words []string
	if addr == kmp.LoggerTop || addr == kmp.LoggerBase {
		if s[2]&kmp.EventIntervalLog != 0 {
			words = append(words, "interval log not read")
		}
		if s[2]&kmp.EventRTCLog != 0 {
			words = append(words, "clock log not read")
		}
	}
	e.add(key, events{fmt.Sprintf("%X", s[:]), words}, name, strings.Join(append([]string{fmt.Sprintf("% X", s[:])}, words...), ", "))
}

// info explains the bits that come with rows.
func (e *Explanation) info(info fmt.Stringer) {
	words, text := []string{}, info.String()
	if text != "" {
		words = strings.Split(text, ", ")
	}
	e.add("info", words, "info", cmp.Or(text, "-"))
}

func (e *Explanation) recordsRequest(q *kmp.LogRecordsRequest) {
	number(e, "log_id", "log", q.LogID)
	if q.Kind == kmp.CmdGetLogTimePresent || q.Kind == kmp.CmdGetLogTimePast {
		t := kmp.DateTime{Date: q.Time.Date, Clock: q.Time.Clock}
		text := t.String()
		if q.TimeReversed {
			text += ", last byte first"
		}
		e.add("time", t, "time", text)
	}
	switch q.Kind {
	case kmp.CmdGetLogIDPresent:
		number(e, "record", "from record", q.Record)
	case kmp.CmdGetLogTimePast:
		number(e, "offset", "records before", q.Record)
	}
	number(e, "records", "records at most", q.Records)
	number(e, "max_length", "bytes at most", q.MaxLength)
	e.asked(q.IDs)
}

func (e *Explanation) records(r kmp.LogRecords) {
	if r.Rest == nil || len(r.Rows) > 0 {
		number(e, "log_id", "log", r.LogID)
	}
	if r.Rest == nil {
		number(e, "last_read", "last record read", r.LastRead)
		number(e, "newest", "newest record", r.Newest)
	}
	e.info(r.Info)
	e.rows("record", r.Rows)
	if r.Rest != nil {
		e.say("rest", "not understood", fmt.Sprintf("%X", r.Rest))
	}
}

func (e *Explanation) config(c kmp.LogConfig) {
	e.say("log", "log", c.Log.String())
	days := []string{}
	for _, d := range c.TargetDates {
		if d != (kmp.MonthDay{}) {
			days = append(days, d.String())
		}
	}
	e.add("target_dates", days, "target dates", strings.Join(days, ", "))
	number(e, "depth", "rows kept", c.Depth)
	number(e, "max_records", "rows per interval", c.MaxRecords)
	number(e, "interval", "interval", c.Interval)
	e.say("formats", "formats", fmt.Sprintf("%X", c.Formats[:]))
	e.asked(c.Registers)
}

func (e *Explanation) page(p kmp.LogPage) {
	e.say("log", "log", p.Log.String())
	number(e, "first", "first row", p.First)
	number(e, "newest", "newest row", p.Newest)
	e.info(p.Info)
	if p.Info&kmp.LogEmpty != 0 {
		p.Rows = nil // a row there may be, but it stands for none
	}
	e.rows("row", p.Rows)
}

func (e *Explanation) rows(name string, rows []kmp.LogRow) {
	type row struct {
		ID        uint32     `json:"id"`
		Registers []Register `json:"registers"`
	}
	list := []row{}
	var lines [][]string
	for _, r := range rows {
		registers := e.describe(r.Registers)
		texts := make([]string, len(registers))
		for i, d := range registers {
			texts[i] = d.String()
		}
		list = append(list, row{r.ID, registers})
		lines = append(lines, []string{fmt.Sprintf("%s %d", name, r.ID), strings.Join(texts, ", ")})
	}
	e.parts = append(e.parts, part{"rows", list, lines})
}
