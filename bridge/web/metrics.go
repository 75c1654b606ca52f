package web

import (
	"cmp"
	"math"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/diagnosis"
)

const (
	// maxScrapes is how many may ask for the numbers at the same time; who comes next is told to
	// come again (503). One Prometheus, a spare one and somebody with curl.
	maxScrapes = 4
	// scrapeTime is how long a scrape may take; all it needs is in memory.
	scrapeTime = 5 * time.Second
)

// metrics serves the numbers for Prometheus. They are taken from the bridge when somebody asks:
// nothing is counted a second time.
func metrics(src Source) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector(src)) // its table is fixed, and the tests gather it
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError, // one bad number must not hide the others
		MaxRequestsInFlight: maxScrapes,
		Timeout:             scrapeTime,
		DisableCompression:  true, // a compressor takes more memory than all the numbers
	})
}

// metric is one row of the table in docs/monitoring.md: a name, and how its series follow from
// what the bridge says of itself or of one meter. It has one of the three functions.
type metric struct {
	name   string
	kind   string // as Prometheus calls it: "gauge", "counter" or "histogram"
	labels []string
	help   string

	bridge    func(Bridge, adder)
	meter     func(Meter, adder) // the label meter is there already
	durations func(Meter) Histogram
}

// add adders a series to a scrape. A value that is no finite number is not known and adds none.
type adder func(value float64, labels ...string)

// metricTable is all that is served, in the order in which it is documented. Names are a promise as
// those of the topics are: they are added to, never renamed.
func metricTable() []metric {
	gauge := func(name, help string, value func(Meter) float64) metric {
		return metric{name: name, kind: "gauge", help: help, meter: func(m Meter, add adder) { add(value(m)) }}
	}
	counter := func(name, help string, value func(Meter) uint64) metric {
		return metric{name: name, kind: "counter", help: help, meter: func(m Meter, add adder) { add(float64(value(m))) }}
	}
	program := func(name, kind, help string, value func(Bridge) float64) metric {
		return metric{name: name, kind: kind, help: help, bridge: func(b Bridge, add adder) { add(value(b)) }}
	}
	return []metric{
		{
			name: "kmp_register", kind: "gauge", labels: []string{"serial", "register", "unit"}, meter: registerSeries,
			help: "Newest value of a register, in the unit that the meter sent. Absent while it is unknown or held.",
		},
		{
			name: "kmp2mqtt_meter_info", kind: "gauge", labels: []string{"serial", "model", "revision", "title"},
			help: "What the meter is, always 1; to be joined by the label meter.",
			meter: func(m Meter, add adder) {
				title := m.Title
				if title == m.Line { // for want of a name; a line is nobody's business here
					title = ""
				}
				add(1, onlyDigits(m.Serial), m.Model, m.Revision, title)
			},
		},
		{
			name: "kmp2mqtt_meter_up", kind: "gauge", meter: upSeries,
			help: "Whether the meter is read (1), as its availability on MQTT, or not (0). Absent before it was tried.",
		},
		{
			name: "kmp2mqtt_meter_diagnosis", kind: "gauge", labels: []string{"code"},
			help:  "Why the newest reading failed, or ok: always 1, with the code as a label. A meter has one such series at a time.",
			meter: func(m Meter, add adder) { add(1, string(cmp.Or(m.Condition.Code, diagnosis.NotRead))) },
		},
		{
			name: "kmp2mqtt_meter_messages", kind: "gauge",
			help: "How many things the meter reports of itself, such as a leak or a broken sensor. Absent before that is known.",
			meter: func(m Meter, add adder) {
				if m.Info != nil {
					add(float64(len(m.Info)))
				}
			},
		},
		{
			name: "kmp2mqtt_reads_total", kind: "counter", labels: []string{"result"}, meter: readSeries,
			help: "Readings since the program started, by result: ok, or the reason for which one failed.",
		},
		{
			name: "kmp2mqtt_read_duration_seconds", kind: "histogram",
			help:      "How long readings took, good or not, since the program started.",
			durations: func(m Meter) Histogram { return m.Durations },
		},
		gauge("kmp2mqtt_last_reading_timestamp_seconds", "When the newest good reading ended, in Unix time. Absent before there was one.", func(m Meter) float64 { return unixSeconds(m.Reading) }),
		gauge("kmp2mqtt_next_reading_timestamp_seconds", "When the meter is read again, in Unix time.", func(m Meter) float64 { return unixSeconds(m.Next) }),
		gauge("kmp2mqtt_read_interval_seconds", "How often the meter is to be read.", func(m Meter) float64 { return m.Interval.Seconds() }),
		gauge("kmp2mqtt_link_quality_ratio", "Share of the last 20 exchanges with the meter that went well, 0 to 1. Absent before the first.", linkQuality),
		counter("kmp2mqtt_checksum_errors_total", "Frames with a wrong checksum since the program started.", func(m Meter) uint64 { return m.ChecksumErrors }),
		counter("kmp2mqtt_frames_total", "Frames that the meter answered. Goes on after a restart where DATA_DIR is set.", func(m Meter) uint64 { return m.Total.Frames }),
		counter("kmp2mqtt_bytes_total", "Bytes on the line to and from the meter. Goes on after a restart where DATA_DIR is set.", func(m Meter) uint64 { return m.Total.Bytes }),
		{
			name: "kmp2mqtt_awake_seconds_total", kind: "counter",
			help:  "How long readings kept the meter awake: what they cost its battery. Goes on after a restart where DATA_DIR is set.",
			meter: func(m Meter, add adder) { add(m.Total.Awake) },
		},
		gauge("kmp2mqtt_reads_today", "Readings that the meter answered since midnight.", func(m Meter) float64 { return float64(m.Today.Reads) }),
		gauge("kmp2mqtt_commands_today", "Those of them that somebody asked for.", func(m Meter) float64 { return float64(m.Today.Commands) }),
		{
			name: "kmp2mqtt_budget_reads", kind: "gauge",
			help: "Readings a day that the meter's battery may be asked for. Absent without a limit.",
			meter: func(m Meter, add adder) {
				if m.Budget > 0 {
					add(float64(m.Budget))
				}
			},
		},
		{
			name: "kmp2mqtt_clock_drift_seconds", kind: "gauge",
			help: "How far the meter's clock is ahead. Absent while that is unknown.",
			meter: func(m Meter, add adder) {
				if m.ClockDrift != nil {
					add(float64(*m.ClockDrift))
				}
			},
		},
		{
			name: "kmp2mqtt_build_info", kind: "gauge", labels: []string{"version", "commit", "goversion"},
			help:   "The program, always 1.",
			bridge: func(b Bridge, add adder) { add(1, b.Version, b.Commit, runtime.Version()) },
		},
		program("kmp2mqtt_start_time_seconds", "gauge", "When the program started, in Unix time.", func(b Bridge) float64 { return unixSeconds(b.Started) }),
		program("kmp2mqtt_memory_bytes", "gauge", "Memory that the program took from the operating system.", func(b Bridge) float64 { return float64(b.Memory) }),
		program("kmp2mqtt_goroutines", "gauge", "Goroutines of the program.", func(Bridge) float64 { return float64(runtime.NumGoroutine()) }),
		program("kmp2mqtt_broker_connected", "gauge", "Whether the program is connected to the broker (1) or not (0).", func(b Bridge) float64 { return oneIf(b.Connected) }),
		program("kmp2mqtt_queued_messages", "gauge", "Messages that wait for the broker.", func(b Bridge) float64 { return float64(b.Queue) }),
		program("kmp2mqtt_dropped_messages_total", "counter", "Events and answers that an outage of the broker pushed out.", func(b Bridge) float64 { return float64(b.Dropped) }),
		program("kmp2mqtt_stuck_lines", "gauge", "Lines whose reading shows no sign of life.", func(b Bridge) float64 { return float64(len(b.Stuck)) }),
	}
}

// registerSeries adds the values that are numbers. Dates, clocks and texts are none: a meter's time
// has no zone, so that no Unix time can be made of it.
func registerSeries(m Meter, add adder) {
	for _, v := range m.Values {
		if v.Why != "" { // held: it is not what the meter says now
			continue
		}
		switch value := v.Value.(type) {
		case kmp.Decimal:
			add(value.Float64(), onlyDigits(m.Serial), v.Register, v.Unit)
		case kmp.Bits:
			add(float64(value), onlyDigits(m.Serial), v.Register, v.Unit)
		}
	}
}

// upSeries adds whether the meter is read. One that has no name before it answers has no
// availability either, only a diagnosis.
func upSeries(m Meter, add adder) {
	switch code := cmp.Or(m.Condition.Code, diagnosis.NotRead); {
	case m.Availability == "online":
		add(1)
	case m.Availability != "" || code != diagnosis.OK && code != diagnosis.NotRead:
		add(0)
	}
}

func readSeries(m Meter, add adder) {
	add(float64(m.ReadsOK), "ok")
	for reason, n := range m.ReadsFailed {
		add(float64(n), reason)
	}
}

// linkQuality is the link's, 0 to 1, and no number while it says nothing yet.
func linkQuality(m Meter) float64 {
	if !m.Rated {
		return math.NaN()
	}
	return float64(m.Quality) / 100
}

// unixSeconds is a time as Prometheus counts it, to the millisecond, and no number for none.
func unixSeconds(t time.Time) float64 {
	if t.IsZero() {
		return math.NaN()
	}
	return float64(t.UnixMilli()) / 1000
}

func oneIf(set bool) float64 {
	if set {
		return 1
	}
	return 0
}

// onlyDigits is a serial number, and nothing if it is none.
func onlyDigits(serial string) string {
	if strings.Trim(serial, "0123456789") != "" {
		return ""
	}
	return serial
}

// collector makes the numbers of a scrape from what the bridge knows at that moment.
type collector struct {
	src   Source
	table []metric
	descs []*prometheus.Desc // of the rows of table
}

func newCollector(src Source) *collector {
	c := &collector{src: src, table: metricTable()}
	for i, m := range c.table {
		if m.bridge == nil {
			c.table[i].labels = append([]string{"meter"}, m.labels...)
		}
		c.descs = append(c.descs, prometheus.NewDesc(m.name, m.help, c.table[i].labels, nil))
	}
	return c
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		descs <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(series chan<- prometheus.Metric) {
	bridge, meters := c.src.Bridge(), c.src.Meters()
	names := meterLabels(meters)
	for i, row := range c.table {
		s := scrape{desc: c.descs[i], kind: prometheus.GaugeValue, out: series, seen: map[string]bool{}}
		if row.kind == "counter" {
			s.kind = prometheus.CounterValue
		}
		if row.bridge != nil {
			row.bridge(bridge, s.add)
			continue
		}
		for j, m := range meters {
			if row.durations != nil {
				s.histogram(row.durations(m), names[j])
				continue
			}
			row.meter(m, func(value float64, more ...string) { s.add(value, append([]string{names[j]}, more...)...) })
		}
	}
}

// meterLabels are what the meters are called in the label meter: by name, and one that has none
// or that of another one by its place in the settings, "#2", which is nobody's name.
func meterLabels(meters []Meter) []string {
	names := make([]string, len(meters))
	taken := map[string]bool{"": true}
	for i, m := range meters {
		name := strings.ToValidUTF8(m.Name, "�")
		if taken[name] || name[0] == '#' {
			name = "#" + strconv.Itoa(i+1)
		}
		names[i], taken[name] = name, true
	}
	return names
}

// scrape is one metric of a scrape. What would make Prometheus refuse the whole of it is left
// out: two values of one series, and labels that are no text.
type scrape struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	out  chan<- prometheus.Metric
	seen map[string]bool
}

func (s scrape) add(value float64, labels ...string) {
	if math.IsNaN(value) || math.IsInf(value, 0) || !s.first(labels) {
		return
	}
	if m, err := prometheus.NewConstMetric(s.desc, s.kind, value, labels...); err == nil {
		s.out <- m
	}
}

// histogram adds the durations of a meter, unless they contradict themselves.
func (s scrape) histogram(h Histogram, labels ...string) {
	if len(h.Counts) != len(h.Bounds)+1 || !s.first(labels) {
		return
	}
	total, below := uint64(0), make(map[float64]uint64, len(h.Bounds))
	for i, bound := range h.Bounds {
		if math.IsNaN(bound) || math.IsInf(bound, 0) || i > 0 && bound <= h.Bounds[i-1] {
			return
		}
		total += h.Counts[i]
		below[bound] = total
	}
	total += h.Counts[len(h.Bounds)]
	if m, err := prometheus.NewConstHistogram(s.desc, total, h.Sum, below, labels...); err == nil {
		s.out <- m
	}
}

// first makes the labels valid text and reports whether they are new.
func (s scrape) first(labels []string) bool {
	for i, l := range labels {
		labels[i] = strings.ToValidUTF8(l, "�")
	}
	key := strings.Join(labels, "\xff") // which valid text does not have
	if s.seen[key] {
		return false
	}
	s.seen[key] = true
	return true
}
