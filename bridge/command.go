package bridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/logbook"
)

const (
	// Commands may cause burst requests to a meter at once, then one every refill. The
	// battery of a MULTICAL is calculated for one reading an hour; polls every minute are
	// known to be survived. The readings of the schedule do not count.
	burst  = 10
	refill = time.Minute
	// censusCost is what a census takes of that: it is one or two dozen requests, but hardly ever.
	censusCost = burst / 2
	// shortestSet is the least interval that a command may set, unless the settings have
	// a shorter one for the meter: whoever can write to the broker must not drain a battery.
	shortestSet = time.Minute
	// maxChosen is how many registers one command may ask for: in eight requests.
	maxChosen = 8 * kmp.MaxRegisters
	// The bounds of a payload.
	maxCommand = 16 << 10
	maxDepth   = 16
	// maxTold bounds the memory of retained commands that were logged.
	maxTold = 1000
)

// bucket of tokens: how many requests commands may still cause, for a rate.
type bucket struct {
	tokens float64
	filled time.Time
}

// spend takes cost tokens; if there are not as many, the error says when there will be.
func (b *bucket) spend(now time.Time, cost int) error {
	if !b.filled.IsZero() {
		b.tokens = min(burst, b.tokens+float64(now.Sub(b.filled))/float64(refill))
	}
	b.filled = now
	if missing := float64(cost) - b.tokens; missing > 0 {
		after := time.Duration(math.Ceil(missing*refill.Seconds())) * time.Second
		return &rateError{after: after, next: now.Add(after)}
	}
	b.tokens -= float64(cost)
	return nil
}

// rateError says that a meter was asked too often.
type rateError struct {
	after  time.Duration // from now to next
	next   time.Time     // when the next command is allowed
	perDay int           // the battery's budget, where that is why; else 0
	spent  bool          // all of it
}

func (e *rateError) Error() string {
	switch {
	case e.spent:
		return fmt.Sprintf("bridge: the battery's budget of %d readings a day is used up; the next command is allowed at %s", e.perDay, timeText(e.next))
	case e.perDay > 0:
		return fmt.Sprintf("bridge: commands have used their share of the battery's budget of %d readings a day; the next one is allowed at %s",
			e.perDay, timeText(e.next))
	}
	return fmt.Sprintf("bridge: too many requests to this meter, its battery would suffer; try again in %s", short(e.after))
}

// commands takes what arrives by MQTT. Its method message may be called from any
// goroutine.
type commands struct {
	bridge *bridge
	topics topics
	roster *roster
	put    func(...Message)
	log    *slog.Logger
	birth  string

	mu   sync.Mutex
	told map[string]bool // topics whose retained message was logged
}

func newCommands(b *bridge) *commands {
	return &commands{
		bridge: b, topics: b.topics, roster: b.roster, put: b.put, log: b.deps.Log,
		birth: b.birthTopic(), told: make(map[string]bool),
	}
}

// message does what a message demands. Whatever it holds, it is answered on the topic
// beside; only a retained message, which nobody sent just now, is not.
func (c *commands) message(topic string, payload []byte, retained bool) {
	if topic == c.birth {
		if !retained && string(payload) == payloadOnline {
			c.log.Debug("Home Assistant has started; announcing again")
			c.bridge.announce()
		}
		return
	}
	rest, ours := strings.CutPrefix(topic, c.topics.base+"/")
	if !ours {
		return
	}
	if retained {
		if len(payload) > 0 && c.first(topic) {
			c.log.Warn("retained command ignored; send commands without the retain flag", "topic", topic)
		}
		return
	}
	if verb, ok := strings.CutPrefix(rest, "bridge/request/"); ok {
		c.request(verb, payload)
		return
	}
	meter, leaf, _ := strings.Cut(rest, "/")
	if leaf != "get" && leaf != "set" {
		return
	}
	reply := c.reply(rest)
	if err := checkName(meter); err != nil {
		_, transaction, _ := decodeObject(payload)
		c.respond(reply, transaction, nil, fmt.Errorf("bridge: %q is not a meter: %w", clip(meter), err))
		return
	}
	if leaf == "get" {
		c.get(reply, meter, payload)
	} else {
		c.set(reply, meter, payload)
	}
}

// tooLarge answers a message that was too large to be kept.
func (c *commands) tooLarge(topic string, size int) {
	if rest, ours := strings.CutPrefix(topic, c.topics.base+"/"); ours {
		if reply := c.reply(rest); reply != "" {
			c.respond(reply, nil, nil, tooLong(size))
		}
	}
}

// reply is where a command on a topic below the base is answered, empty for what is none.
// A name that cannot be has no topic of its own.
func (c *commands) reply(rest string) string {
	if verb, ok := strings.CutPrefix(rest, "bridge/request/"); ok {
		if checkName(verb) != nil {
			verb = "unknown"
		}
		return c.topics.bridge("response/" + verb)
	}
	meter, leaf, _ := strings.Cut(rest, "/")
	switch {
	case leaf != "get" && leaf != "set":
		return ""
	case checkName(meter) != nil:
		return c.topics.bridge("response/" + leaf)
	}
	return c.topics.meter(meter, "response")
}

// first reports whether a topic is seen for the first time.
func (c *commands) first(topic string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told[topic] || len(c.told) >= maxTold {
		return false
	}
	c.told[topic] = true
	return true
}

// answer is what every command gets.
type answer struct {
	Status      string          `json:"status"` // "ok" or "error"
	Error       string          `json:"error,omitempty"`
	Data        json.RawMessage `json:"data"`
	Unsupported []uint16        `json:"unsupported,omitempty"` // registers that the meter does not have
	Transaction json.RawMessage `json:"transaction,omitempty"` // as it came
}

// respond answers: with data, or with an error, whose data says when to come back.
func (c *commands) respond(topic string, transaction, data json.RawMessage, err error, unsupported ...uint16) {
	if err != nil {
		c.log.Debug("command refused or failed", "answer", topic, "error", err)
	}
	c.put(Message{Topic: topic, Payload: responseJSON(transaction, data, err, unsupported...), Rank: RankEvent})
}

// responseJSON is the answer to a command.
func responseJSON(transaction, data json.RawMessage, err error, unsupported ...uint16) []byte {
	a := answer{Status: "ok", Data: data, Transaction: transaction, Unsupported: unsupported}
	if err != nil {
		a.Status, a.Error = "error", strings.TrimPrefix(err.Error(), "bridge: ")
		if rate := new(rateError); errors.As(err, &rate) {
			a.Data = encodeJSON(rate.retry())
		}
	}
	if a.Data == nil {
		a.Data = json.RawMessage("{}")
	}
	return encodeJSON(a)
}

// retryAfter tells a caller when to come back.
type retryAfter struct {
	Seconds float64 `json:"retry_after_s"`
	At      string  `json:"retry_at"`
}

// retry is what the answer says of when to come back.
func (e *rateError) retry() retryAfter {
	return retryAfter{math.Ceil(e.after.Seconds()), timeText(e.next)}
}

// object is a command's JSON, one level deep.
type object map[string]json.RawMessage

func tooLong(size int) error {
	return fmt.Errorf("bridge: the payload has %d bytes, the most is %d", size, maxCommand)
}

// decodeObject reads a command's payload: an object, or nothing at all. The transaction is
// returned whenever it can be read.
func decodeObject(payload []byte, allowed ...string) (o object, transaction json.RawMessage, err error) {
	if len(payload) > maxCommand {
		return nil, nil, tooLong(len(payload))
	}
	if !utf8.Valid(payload) {
		return nil, nil, errors.New("bridge: the payload is not UTF-8 text")
	}
	payload = bytes.TrimSpace(payload)
	if len(payload) == 0 {
		return nil, nil, nil
	}
	if depth(payload) > maxDepth {
		return nil, nil, fmt.Errorf("bridge: the JSON is nested more than %d deep", maxDepth)
	}
	if err := json.Unmarshal(payload, &o); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return nil, nil, fmt.Errorf("bridge: malformed JSON at byte %d: %w", syntax.Offset, err)
		}
		return nil, nil, errors.New("bridge: the payload must be a JSON object such as {}")
	}
	if o == nil {
		return nil, nil, errors.New("bridge: the payload must be a JSON object such as {}")
	}
	transaction = o["transaction"]
	delete(o, "transaction")
	for name := range o {
		if !slices.Contains(allowed, name) {
			known := append(slices.Clone(allowed), "transaction")
			return nil, transaction, fmt.Errorf("bridge: unknown member %q; there are %s", clip(name), strings.Join(known, ", "))
		}
	}
	return o, transaction, nil
}

// depth is how deep the brackets of a text are nested, strings left aside.
func depth(text []byte) int {
	deepest, now, quoted, escaped := 0, 0, false, false
	for _, b := range text {
		switch {
		case escaped:
			escaped = false
		case quoted:
			escaped, quoted = b == '\\', b != '"'
		case b == '"':
			quoted = true
		case b == '{' || b == '[':
			now++
			deepest = max(deepest, now)
		case b == '}' || b == ']':
			now--
		}
	}
	return deepest
}

// registers reads the member registers: ids and names.
func (o object) registers() ([]uint16, error) {
	raw, ok := o["registers"]
	if !ok {
		return nil, nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil || len(list) == 0 {
		return nil, errors.New(`bridge: registers must be a list such as ["energy",80,"0x4A"]`)
	}
	if len(list) > maxChosen {
		return nil, fmt.Errorf("bridge: %d registers are too many, the most is %d", len(list), maxChosen)
	}
	var ids []uint16
	for _, item := range list {
		word := string(item)
		if item[0] == '"' {
			if err := json.Unmarshal(item, &word); err != nil {
				return nil, fmt.Errorf("bridge: registers: %w", err)
			}
		}
		id, err := parseRegister(word)
		if err != nil {
			return nil, fmt.Errorf("bridge: %w", err)
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// text reads a member that is a text; ok is false when it is not there.
func (o object) text(name string) (s string, ok bool, err error) {
	raw, ok := o[name]
	if !ok {
		return "", false, nil
	}
	if err := json.Unmarshal(raw, &s); err != nil || raw[0] != '"' {
		return "", true, fmt.Errorf("bridge: %s must be a text", name)
	}
	return s, true, nil
}

// get answers <base>/<meter>/get: it has the meter read now.
func (c *commands) get(reply, meter string, payload []byte) {
	o, transaction, err := decodeObject(payload, "registers")
	if err == nil {
		err = c.read(meter, o, func(r outcome) { c.respond(reply, transaction, r.values, r.err, r.unsupported...) })
	}
	if err != nil {
		c.respond(reply, transaction, nil, err)
	}
}

// read leaves the wish to read a meter. With an error, done is not called.
func (c *commands) read(meter string, o object, done func(outcome)) error {
	index, err := c.find(meter)
	if err != nil {
		return err
	}
	return c.readAt(index, o, done)
}

// readAt is read for a meter that is found already.
func (c *commands) readAt(index int, o object, done func(outcome)) error {
	ids, err := o.registers()
	if err != nil {
		return err
	}
	cost := max(1, (len(ids)+kmp.MaxRegisters-1)/kmp.MaxRegisters)
	kind := readUsual
	if len(ids) > 0 {
		kind = readChosen
	}
	return c.roster.wish(index, cost, wish{task: kind, registers: ids, done: done})
}

// find returns a meter's index by its name; the error lists the names that there are.
func (c *commands) find(meter string) (int, error) {
	index, ok := c.roster.find(meter)
	if !ok {
		names := c.roster.names()
		if len(names) > 20 {
			names = append(names[:20], "…")
		}
		return 0, fmt.Errorf("bridge: unknown meter %q; known: %s", clip(meter), strings.Join(names, ", "))
	}
	return index, nil
}

// set answers <base>/<meter>/set: it changes the meter's interval.
func (c *commands) set(reply, meter string, payload []byte) {
	o, transaction, err := decodeObject(payload, "interval")
	if err == nil {
		err = c.setInterval(meter, o, func(r outcome) { c.respond(reply, transaction, r.values, r.err) })
	}
	if err != nil {
		c.respond(reply, transaction, nil, err)
	}
}

func (c *commands) setInterval(meter string, o object, done func(outcome)) error {
	index, err := c.find(meter)
	if err != nil {
		return err
	}
	s, ok, err := o.text("interval")
	if err == nil && !ok {
		err = errors.New(`bridge: nothing to set; write {"interval":"10m"}`)
	}
	if err != nil {
		return err
	}
	interval, err := parseDuration(s, c.roster.shortest(index), MaxInterval)
	if err != nil {
		return fmt.Errorf("bridge: interval: %w", err)
	}
	return c.roster.wish(index, 0, wish{task: setInterval, interval: interval, done: done})
}

// request answers <base>/bridge/request/<verb>: what somebody wants of the bridge.
func (c *commands) request(verb string, payload []byte) {
	reply := c.reply("bridge/request/" + verb)
	members := map[string][]string{
		"read": {"meter", "registers"}, "census": {"meter"}, "accept": {"meter", "register"},
		"history": {"meter", "log", "since", "until"}, "discovery": {}, "log_level": {"level"},
	}
	allowed, known := members[verb]
	if !known {
		_, transaction, _ := decodeRequest(payload, "")
		c.respond(reply, transaction, nil, fmt.Errorf("bridge: unknown request %q; there are read, census, accept, history, discovery and log_level", clip(verb)))
		return
	}
	bare := ""
	if len(allowed) > 0 {
		bare = allowed[0]
	}
	o, transaction, err := decodeRequest(payload, bare, allowed...)
	if err != nil {
		c.respond(reply, transaction, nil, err)
		return
	}
	switch verb {
	case "read":
		err = c.requestRead(reply, transaction, o)
	case "census":
		err = c.requestCensus(reply, transaction, o)
	case "accept":
		err = c.requestAccept(reply, transaction, o)
	case "history":
		err = c.requestHistory(reply, transaction, o)
	case "discovery":
		c.bridge.announce()
		c.respond(reply, transaction, nil, nil)
	case "log_level":
		err = c.requestLogLevel(reply, transaction, o)
	}
	if err != nil {
		c.respond(reply, transaction, nil, err)
	}
}

// decodeRequest reads the payload of a request: an object, or a bare value, which then is
// the member named bare.
func decodeRequest(payload []byte, bare string, allowed ...string) (object, json.RawMessage, error) {
	text := bytes.TrimSpace(payload)
	if len(text) == 0 || text[0] == '{' || len(text) > maxCommand || !utf8.Valid(text) {
		return decodeObject(payload, allowed...)
	}
	if bare == "" {
		return nil, nil, errors.New("bridge: no value is expected here")
	}
	var quoted string
	if text[0] == '"' && json.Unmarshal(text, &quoted) == nil {
		return object{bare: json.RawMessage(text)}, nil, nil
	}
	return object{bare: encodeJSON(string(text))}, nil, nil
}

// requestRead reads one meter, or all of them and answers when the last is done.
func (c *commands) requestRead(reply string, transaction json.RawMessage, o object) error {
	meter, one, err := o.text("meter")
	if err != nil {
		return err
	}
	if one {
		return c.read(meter, o, func(r outcome) { c.respond(reply, transaction, r.values, r.err, r.unsupported...) })
	}
	names := c.roster.names()
	if len(names) == 0 {
		return errors.New("bridge: no meter is known yet; one without a name must have answered once")
	}
	all := &gathering{
		missing: len(names), data: make(map[string]json.RawMessage),
		done: func(data json.RawMessage, err error) { c.respond(reply, transaction, data, err) },
	}
	for _, name := range names {
		if err := c.read(name, o, func(r outcome) { all.add(name, r) }); err != nil {
			all.add(name, outcome{err: err})
		}
	}
	return nil
}

// one is the meter that a request is for: the one it names, or the only one.
func (c *commands) one(o object) (int, error) {
	meter, named, err := o.text("meter")
	if err != nil {
		return 0, err
	}
	if names := c.roster.names(); !named && len(names) == 1 {
		meter = names[0]
	} else if !named {
		return 0, fmt.Errorf("bridge: which meter? Known: %s", strings.Join(names[:min(len(names), 20)], ", "))
	}
	return c.find(meter)
}

// requestCensus finds out anew which registers a meter has.
func (c *commands) requestCensus(reply string, transaction json.RawMessage, o object) error {
	index, err := c.one(o)
	if err != nil {
		return err
	}
	return c.roster.wish(index, censusCost, wish{task: takeCensus, done: func(r outcome) { c.respond(reply, transaction, r.values, r.err) }})
}

// requestAccept lets held values through: those of one register, or all.
func (c *commands) requestAccept(reply string, transaction json.RawMessage, o object) error {
	index, err := c.one(o)
	if err != nil {
		return err
	}
	key, one, err := o.text("register")
	if err != nil {
		return err
	}
	var keys []string
	if one {
		keys = []string{key}
	}
	return c.roster.wish(index, 0, wish{task: acceptHeld, keys: keys, done: func(r outcome) { c.respond(reply, transaction, r.values, r.err) }})
}

// requestHistory publishes rows of a meter's log again that were published before.
func (c *commands) requestHistory(reply string, transaction json.RawMessage, o object) error {
	if c.bridge.feed == nil {
		return errors.New("bridge: no rows are kept; set DATA_DIR")
	}
	index, err := c.one(o)
	if err != nil {
		return err
	}
	zone := c.bridge.cfg.Meters[index].zone()
	log := kmp.LogHour
	name, named, err := o.text("log")
	if err != nil {
		return err
	}
	if named {
		var known bool
		if log, known = kmp.ParseLogType(name); !known || !slices.Contains(feedLogs[:], log) {
			return fmt.Errorf("bridge: log: %q is not one of year, month, day, hour and minute", clip(name))
		}
	}
	var bounds [2]time.Time
	for i, member := range []string{"since", "until"} {
		text, there, err := o.text(member)
		if err != nil {
			return err
		}
		if !there {
			continue
		}
		if bounds[i], err = logbook.ParseMoment(text, time.Now(), zone); err != nil {
			return fmt.Errorf("bridge: %s: %q %w", member, clip(text), err)
		}
	}
	if !bounds[1].IsZero() && !bounds[0].Before(bounds[1]) {
		return errors.New("bridge: until is not after since")
	}
	serial := c.roster.serial(index)
	if serial == "" {
		return errors.New("bridge: the meter has not answered yet: its serial number is not known")
	}
	return c.bridge.feed.replay(serial, log, bounds[0], bounds[1], func(rows int, err error) {
		c.respond(reply, transaction, encodeJSON(struct {
			Serial string `json:"serial"`
			Log    string `json:"log"`
			Rows   int    `json:"rows"`
		}{serial, log.String(), rows}), err)
	})
}

// gathering collects the readings of several meters.
type gathering struct {
	mu      sync.Mutex
	missing int
	data    map[string]json.RawMessage
	failed  []string
	done    func(data json.RawMessage, err error)
}

// add notes a meter's outcome. After the last one all is handed over.
func (g *gathering) add(name string, r outcome) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.err != nil {
		g.failed = append(g.failed, name+": "+strings.TrimPrefix(r.err.Error(), "bridge: "))
		if rate := new(rateError); errors.As(r.err, &rate) {
			g.data[name] = encodeJSON(rate.retry())
		}
	} else {
		g.data[name] = r.values
	}
	if g.missing--; g.missing > 0 {
		return
	}
	var err error
	if len(g.failed) > 0 {
		slices.Sort(g.failed)
		err = errors.New("bridge: " + strings.Join(g.failed, "; "))
	}
	g.done(encodeJSON(g.data), err)
}

// requestLogLevel changes how much is logged.
func (c *commands) requestLogLevel(reply string, transaction json.RawMessage, o object) error {
	s, ok, err := o.text("level")
	if err == nil && !ok {
		err = errors.New("bridge: which level? There are debug, info, warn and error")
	}
	if err != nil {
		return err
	}
	level, err := parseLevel(s)
	if err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	if level != c.bridge.deps.Level.Level() {
		c.bridge.deps.Level.Set(level)
		c.log.Info("log level changed", "level", levelName(level))
		c.bridge.info()
	}
	c.respond(reply, transaction, encodeJSON(struct {
		Level string `json:"level"`
	}{levelName(level)}), nil)
	return nil
}
