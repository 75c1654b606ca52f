package bridge

import (
	"bytes"
	"cmp"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"kmp2mqtt/bridge/battery"
	"kmp2mqtt/bridge/former"
	"kmp2mqtt/bridge/numbers"
	"kmp2mqtt/discovery"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/census"
	"kmp2mqtt/kmp/diagnosis"
)

// Meter says which meter a reading comes from.
type Meter struct {
	Name     string // level of its topics; empty while it is unknown
	Label    string // name for people; empty: made from Name
	Serial   string // decimal, as on the meter's label; empty while it is unknown
	Identity string // the serial number that Home Assistant knows it by: Serial, or that of a former meter in its place
	Model    string // title such as "MULTICAL 403"; empty: unknown
	Revision string // software revision such as "F1"; empty: unknown
	Line     string // without secrets
}

// Reading is what one visit to a meter brought.
type Reading struct {
	Meter   Meter
	Time    time.Time // when it ended
	Values  []numbers.Value
	Info    []string // what the meter reports, in words; nil: not known
	HasInfo bool     // the state has a list of infos

	asked []uint16 // registers
}

// announced is one key of a meter's state. Once there, it stays.
type announced struct {
	register catalog.Register
	unit     kmp.Unit
	key      string
	decimals int
	former   bool // the register came with another unit since
}

// unitChange says that a register came with another unit than before.
type unitChange struct {
	register catalog.Register
	from, to string // the keys
}

// announce adds the keys of a reading to those known before, in the order of asked; the
// argument stays as it was. It reports whether anything is new that a consumer must be
// told, and which registers changed their unit.
func announce(before []announced, values []numbers.Value, asked []uint16) (after []announced, news bool, changes []unitChange) {
	after = slices.Clone(before)
	for _, v := range values {
		known := false
		for i := range after {
			a := &after[i]
			switch {
			case a.key == v.Key:
				known = true
				if a.former {
					a.former, news = false, true
				}
				if d := v.Decimals(); d > a.decimals {
					a.decimals, news = d, true
				}
			case a.register.Name == v.Register.Name && !a.former:
				a.former = true // news, since the new key is
				changes = append(changes, unitChange{a.register, a.key, v.Key})
			}
		}
		if !known {
			after, news = append(after, announced{v.Register, v.Unit, v.Key, v.Decimals(), false}), true
		}
	}
	place := func(a announced) int { // what is derived stands behind all
		if i := slices.Index(asked, a.register.ID); i >= 0 {
			return i
		}
		return len(asked)
	}
	slices.SortStableFunc(after, func(a, b announced) int { return place(a) - place(b) })
	return after, news, changes
}

// measurements is what discovery announces: every register with its newest unit. entities is the
// reader whose names Home Assistant keeps, empty for none.
func measurements(keys []announced, entities string) []discovery.Measurement {
	list := make([]discovery.Measurement, 0, len(keys))
	for _, a := range keys {
		if !a.former {
			m := discovery.Measurement{Register: a.register, Unit: a.unit, Key: a.key, Decimals: a.decimals}
			m.UniqueID, _ = former.UniqueID(entities, a.register.ID)
			m.EntityID, _ = former.EntityID(entities, a.register.ID)
			list = append(list, m)
		}
	}
	return list
}

// stateJSON is the object on a meter's topic: the time, then every announced key, null
// where the reading has no value for it.
func stateJSON(r Reading, keys []announced) []byte {
	b := append([]byte(nil), `{"time":`...)
	b = append(b, jsonTime(r.Time)...)
	for _, a := range keys {
		var value kmp.Value
		for _, v := range r.Values {
			if v.Key == a.key {
				value = v.Value
			}
		}
		b = appendMember(b, a.key, value)
	}
	if r.HasInfo {
		b = append(append(b, `,"info":`...), encodeJSON(r.Info)...)
	}
	return append(b, '}')
}

// valuesJSON is the object that answers the reading of chosen registers.
func valuesJSON(r Reading) []byte {
	b := append([]byte(nil), `{"time":`...)
	b = append(b, jsonTime(r.Time)...)
	for _, v := range r.Values {
		b = appendMember(b, v.Key, v.Value)
	}
	return append(b, '}')
}

// appendMember appends ,"key":value with exactly the meter's digits.
func appendMember(b []byte, key string, value kmp.Value) []byte {
	b = append(b, ',')
	b = append(b, encodeJSON(key)...)
	b = append(b, ':')
	if value == nil {
		return append(b, "null"...)
	}
	return append(b, encodeJSON(value)...)
}

// encodeJSON marshals without HTML escapes. What cannot be marshalled is null: a single
// strange value must not cost the others.
func encodeJSON(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return []byte("null")
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func jsonTime(t time.Time) []byte { return strconv.AppendQuote(nil, timeText(t)) }

// optional is null in JSON where s is empty.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func optionalTime(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	return optional(timeText(t))
}

// seconds is a duration to the millisecond, as it stands in JSON.
func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

// topics builds the names of topics.
type topics struct {
	base      string // MQTT_TOPIC
	discovery string // HA_PREFIX
}

func (t topics) bridge(leaf string) string { return t.base + "/bridge/" + leaf }

func (t topics) state(meter string) string { return t.base + "/" + meter }

func (t topics) meter(meter, leaf string) string { return t.base + "/" + meter + "/" + leaf }

// stateMessages are the messages that a good reading becomes.
func stateMessages(t topics, r Reading, keys []announced, each bool) []Message {
	msgs := []Message{{Topic: t.state(r.Meter.Name), Payload: stateJSON(r, keys), Retain: true, Rank: RankState}}
	if !each {
		return msgs
	}
	for _, a := range keys {
		var text []byte // empty: the topic is cleared
		for _, v := range r.Values {
			if v.Key == a.key && v.Value != nil {
				text = []byte(v.Value.String())
			}
		}
		msgs = append(msgs, Message{Topic: t.meter(r.Meter.Name, a.key), Payload: text, Retain: true, Rank: RankState})
	}
	if r.HasInfo {
		text := []byte(strings.Join(r.Info, "; "))
		msgs = append(msgs, Message{Topic: t.meter(r.Meter.Name, "info"), Payload: text, Retain: true, Rank: RankState})
	}
	return msgs
}

func availabilityMessage(t topics, meter string, online bool) Message {
	payload := "offline"
	if online {
		payload = "online"
	}
	return Message{Topic: t.meter(meter, "availability"), Payload: []byte(payload), Retain: true, Rank: RankAvailability}
}

// status is what the bridge knows of a meter at one moment: the source of diagnostics,
// info and health. It is a value; the map is never changed once it is here.
type status struct {
	meter       Meter
	interval    time.Duration
	online      bool
	lastReading time.Time      // end of the newest good one; zero: none yet
	lastError   string         // why the newest reading failed; empty: it was good
	ok          uint64         // good readings
	failed      uint64         // failed ones
	reasons     map[string]int // failed ones by reason
	duration    time.Duration  // of the newest reading, good or not
	durations   buckets        // of all
	checksum    uint64         // frames dropped for their checksum
	echo        bool           // the head hears itself
	retained    []Message      // what Home Assistant needs again after its restart

	diagnosis condition
	quality   int  // of the link, in percent of the last exchanges
	rated     bool // whether quality says something yet
	usage     battery.Usage
	budget    battery.Budget
	next      time.Time         // when it is read again
	hasInfo   bool              // the state has a list of infos
	unknown   map[string]string // keys whose value is held or not known, and why
	drift     *int64            // what the meter's clock is ahead, in seconds; nil: not known
	values    []numbers.Value   // as published last; never changed once it is here
	info      []string          // what the meter reports, in words
	profile   census.Profile    // which registers it has
	kept      time.Time         // when the newest row of its log that is kept was written; zero: none is
}

// condition is what is wrong, or that nothing is.
type condition struct {
	code     diagnosis.Code // empty: nothing is known yet
	since    time.Time
	evidence diagnosis.Evidence // of the newest visit
}

func diagnosisMessage(t topics, s status) Message {
	class := diagnosis.Lookup(cmp.Or(s.diagnosis.code, diagnosis.NotRead))
	payload := encodeJSON(struct {
		Code     diagnosis.Code     `json:"code"`
		Text     string             `json:"text"`
		NextStep string             `json:"next_step"`
		Since    *string            `json:"since"`
		Evidence diagnosis.Evidence `json:"evidence"`
	}{class.Code, s.diagnosis.evidence.Text(class.Code), class.NextStep, optionalTime(s.diagnosis.since), s.diagnosis.evidence})
	return Message{Topic: t.meter(s.meter.Name, "diagnosis"), Payload: payload, Retain: true, Rank: RankState}
}

func diagnosticsMessage(t topics, s status, now time.Time) Message {
	type usage struct {
		Days  []battery.Day `json:"days"`
		Total battery.Day   `json:"total"`
	}
	day := s.usage.Today(now)
	unknown := s.unknown
	if unknown == nil {
		unknown = map[string]string{}
	}
	payload := encodeJSON(struct {
		Serial      *string           `json:"serial"`
		Model       *string           `json:"model"`
		Revision    *string           `json:"software_revision"`
		Line        string            `json:"line"`
		Interval    float64           `json:"interval_s"`
		LastReading *string           `json:"last_reading"`
		LastError   *string           `json:"last_error"`
		ReadsOK     uint64            `json:"reads_ok"`
		ReadsFailed uint64            `json:"reads_failed"`
		Duration    float64           `json:"read_duration_s"`
		Echo        bool              `json:"echo"`
		Quality     *int              `json:"link_quality"`
		Budget      *int              `json:"budget"`
		Reads       uint64            `json:"reads_today"`
		Commands    uint64            `json:"commands_today"`
		Frames      uint64            `json:"frames_today"`
		Bytes       uint64            `json:"bytes_today"`
		Awake       float64           `json:"awake_today_s"`
		Next        *string           `json:"next_reading"`
		Unknown     map[string]string `json:"unknown"`
		Drift       *int64            `json:"clock_drift_s"`
		Kept        *string           `json:"history_until"`
		Usage       usage             `json:"usage"`
	}{
		optional(s.meter.Serial), optional(s.meter.Model), optional(s.meter.Revision), s.meter.Line,
		seconds(s.interval), optionalTime(s.lastReading), optional(s.lastError), s.ok, s.failed, seconds(s.duration), s.echo,
		s.linkQuality(), s.perDay(), day.Reads, day.Commands, day.Frames, day.Bytes, day.Awake, optionalTime(s.next), unknown, s.drift, optionalTime(s.kept),
		usage{s.usage.Days, s.usage.Total},
	})
	return Message{Topic: t.meter(s.meter.Name, "diagnostics"), Payload: payload, Retain: true, Rank: RankState}
}

// linkQuality is null in JSON before anything was exchanged.
func (s status) linkQuality() *int {
	if !s.rated {
		return nil
	}
	return &s.quality
}

// perDay is null in JSON without a limit.
func (s status) perDay() *int {
	if s.budget.PerDay == 0 {
		return nil
	}
	return &s.budget.PerDay
}

// discoveryMessage is the message by which Home Assistant learns of a meter; shortest is the
// least interval that may be set for it.
func discoveryMessage(t topics, m Meter, keys []announced, entities string, family catalog.Family, hasInfo, hasClock bool, version string, shortest time.Duration) (Message, error) {
	name := m.Label
	if name == "" {
		name = m.Name
	}
	var diagnoses []string
	for _, class := range diagnosis.Classes() {
		diagnoses = append(diagnoses, string(class.Code))
	}
	payload, err := discovery.Meter(discovery.Device{
		Serial: m.Identity, Name: name, Model: m.Model, Revision: m.Revision, Version: version, Family: family,
		DiagnosisTopic: t.meter(m.Name, "diagnosis"), Diagnoses: diagnoses, HasInfo: hasInfo, HasClock: hasClock,
		StateTopic:        t.state(m.Name),
		DiagnosticsTopic:  t.meter(m.Name, "diagnostics"),
		AvailabilityTopic: t.meter(m.Name, "availability"),
		BridgeStateTopic:  t.bridge("state"),
		GetTopic:          t.meter(m.Name, "get"),
		SetTopic:          t.meter(m.Name, "set"),
		ShortestInterval:  shortest,
	}, measurements(keys, entities))
	return Message{Topic: t.meterDiscovery(m.Identity), Payload: payload, Retain: true, Rank: RankDiscovery}, err
}

func (t topics) meterDiscovery(serial string) string {
	return discovery.Topic(t.discovery, discovery.MeterID(serial))
}

// bridgeDiscoveryMessage is the one by which it learns of the bridge.
func bridgeDiscoveryMessage(t topics, version string) (Message, error) {
	payload, err := discovery.Bridge(discovery.BridgeDevice{BaseTopic: t.base, Version: version})
	return Message{
		Topic:   discovery.Topic(t.discovery, discovery.BridgeID(t.base)),
		Payload: payload, Retain: true, Rank: RankDiscovery,
	}, err
}

// infoMessage says what runs here, with which settings, for which meters.
func infoMessage(t topics, deps Deps, level slog.Level, meters []status, settings map[string]string) Message {
	type meter struct {
		Name   *string `json:"name"`
		Serial *string `json:"serial"`
		Model  *string `json:"model"`
		Line   string  `json:"line"`
	}
	info := struct {
		Version  string            `json:"version"`
		Commit   string            `json:"commit"`
		Started  string            `json:"started"`
		LogLevel string            `json:"log_level"`
		Meters   []meter           `json:"meters"`
		Settings map[string]string `json:"settings"`
		LeftOut  int               `json:"meters_left_out,omitempty"` // too many for one message
	}{deps.Version, deps.Commit, timeText(deps.Started), levelName(level), []meter{}, settings, 0}
	for _, s := range meters {
		info.Meters = append(info.Meters, meter{optional(s.meter.Name), optional(s.meter.Serial), optional(s.meter.Model), s.meter.Line})
	}
	payload := encodeJSON(info)
	if len(payload) > maxPayloadBytes {
		info.LeftOut, info.Meters = len(info.Meters), []meter{}
		info.Settings = maps.Clone(settings)
		delete(info.Settings, "METERS")
		payload = encodeJSON(info)
	}
	return Message{Topic: t.bridge("info"), Payload: payload, Retain: true, Rank: RankState}
}

// health is the bridge's own condition.
type health struct {
	now       time.Time
	started   time.Time
	memory    uint64 // bytes taken from the operating system
	queue     int    // messages that wait for the broker
	dropped   uint64 // events and answers that an outage of the broker pushed out
	connected bool   // to the broker
}

func healthMessage(t topics, h health, meters []status) Message {
	type meter struct {
		Online   bool           `json:"online"`
		OK       uint64         `json:"reads_ok"`
		Failed   uint64         `json:"reads_failed"`
		Reasons  map[string]int `json:"failed_by_reason"`
		LastGood *string        `json:"last_good_read"`
		Duration float64        `json:"read_duration_s"`
		Checksum uint64         `json:"crc_errors"`
		Echo     bool           `json:"echo"`
		Code     diagnosis.Code `json:"diagnosis"`
		Quality  *int           `json:"link_quality"`
	}
	list := make(map[string]meter, len(meters))
	for _, s := range meters {
		name := s.meter.Name
		if name == "" {
			name = s.meter.Line // a meter that is named by its serial number has none yet
		}
		reasons := s.reasons
		if reasons == nil {
			reasons = map[string]int{}
		}
		list[name] = meter{
			s.online, s.ok, s.failed, reasons, optionalTime(s.lastReading), seconds(s.duration), s.checksum, s.echo,
			cmp.Or(s.diagnosis.code, diagnosis.NotRead), s.linkQuality(),
		}
	}
	report := struct {
		Time      string           `json:"time"`
		Uptime    float64          `json:"uptime_s"`
		Memory    uint64           `json:"memory_bytes"`
		Queue     int              `json:"queue"`
		Dropped   uint64           `json:"dropped"`
		Connected bool             `json:"connected"`
		Meters    map[string]meter `json:"meters"`
		LeftOut   int              `json:"meters_left_out,omitempty"` // too many for one message
	}{timeText(h.now), seconds(h.now.Sub(h.started).Truncate(time.Second)), h.memory, h.queue, h.dropped, h.connected, list, 0}
	payload := encodeJSON(report)
	if len(payload) > maxPayloadBytes {
		report.LeftOut = len(list)
		clear(list)
		payload = encodeJSON(report)
	}
	return Message{Topic: t.bridge("health"), Payload: payload, Retain: true, Rank: RankState}
}

// eventMessage tells of something that happened once.
func eventMessage(t topics, at time.Time, kind, meter string, data map[string]any) Message {
	if data == nil {
		data = map[string]any{}
	}
	payload := encodeJSON(struct {
		Time  string         `json:"time"`
		Type  string         `json:"type"`
		Meter *string        `json:"meter"`
		Data  map[string]any `json:"data"`
	}{timeText(at), kind, optional(meter), data})
	return Message{Topic: t.bridge("event"), Payload: payload, Rank: RankEvent}
}
