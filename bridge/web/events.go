package web

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"kmp2mqtt/kmp/diagnosis"
)

const (
	// maxQueue is how many messages wait for one reader. More than that, and he is told the
	// newest of everything instead.
	maxQueue = 256
	// heartbeat keeps what stands between from ending a stream that has nothing to tell.
	heartbeat = 15 * time.Second
	// reconnect is when a browser comes again after the end of a stream.
	reconnect = 3 * time.Second
	// maxSamples is how many reads of an alignment wait for one reader.
	maxSamples = 16
	// shownWhileAligning is how many frames come with each read of an alignment.
	shownWhileAligning = 4

	shortestAlign = time.Second
	usualAlign    = time.Minute
	longestAlign  = 5 * time.Minute
)

// queue is what waits for one reader of the events: of each topic that is retained the newest
// message, and the others. It is bounded, and to put something in never blocks.
type queue struct {
	meter string // of this one alone; empty: of all
	wake  chan struct{}

	mu     sync.Mutex
	due    []Message // oldest first
	anew   bool      // everything that is known is to be sent first
	missed int       // messages that were pushed out
}

// newQueue returns a queue for a reader who knows nothing yet.
func newQueue(meter string) *queue {
	q := &queue{meter: meter, wake: make(chan struct{}, 1), anew: true}
	q.wake <- struct{}{}
	return q
}

// put takes a message. Its payload is not copied: it must not change.
func (q *queue) put(m Message) {
	retained, shown := kinds(m.Kind)
	if !shown || q.meter != "" && m.Meter != q.meter {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if retained {
		if i := slices.IndexFunc(q.due, func(o Message) bool { return o.Topic == m.Topic }); i >= 0 {
			q.due[i] = m
			return
		}
	}
	if len(q.due) == maxQueue {
		q.missed += len(q.due)
		q.due, q.anew = q.due[:0], true
	}
	q.due = append(q.due, m)
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// kinds says which messages are shown, and of which the newest replaces those before. Not
// shown are answers to others, and single values, which stand in the state.
func kinds(kind string) (retained, shown bool) {
	switch kind {
	case "state", "availability", "diagnostics", "diagnosis", "info", "health":
		return true, true
	case "event", "history":
		return false, true
	}
	return false, false
}

// take empties the queue.
func (q *queue) take() (due []Message, anew bool, missed int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	due, anew, missed = q.due, q.anew, q.missed
	q.due, q.anew, q.missed = nil, false, 0
	return due, anew, missed
}

// events tells what is published, as it happens; first what is known of each meter.
func (w *window) events(rw http.ResponseWriter, r *http.Request) {
	meter := r.URL.Query().Get("meter")
	if _, ok := w.named(meter); meter != "" && !ok {
		fail(rw, r, http.StatusNotFound, fmt.Sprintf("there is no meter %q; /api/v1/meters lists them", clip(meter)))
		return
	}
	if !w.openStream(rw, r) {
		return
	}
	defer w.streams.Add(-1)
	s := newStream(rw)
	if r.Method == http.MethodHead {
		return
	}
	q := newQueue(meter)
	stop := w.source.Follow(q.put)
	defer stop()

	s.print("retry: %d\n\n", reconnect.Milliseconds())
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for s.flush() == nil {
		select {
		case <-r.Context().Done():
			return
		case <-beat.C:
			s.print(": still here\n\n")
		case <-q.wake:
			due, anew, missed := q.take()
			if missed > 0 {
				s.print(": %d messages were too many\n\n", missed)
			}
			if anew {
				w.tellAll(s, meter)
			}
			for _, m := range due {
				s.message(m)
			}
		}
	}
}

// tellAll writes what is known of each meter as if it were published now.
func (w *window) tellAll(s *stream, meter string) {
	base := w.source.Bridge().Topic
	for _, m := range w.source.Meters() {
		if m.Name == "" || meter != "" && m.Name != meter {
			continue
		}
		topic := base + "/" + m.Name
		for _, known := range []struct {
			kind    string
			payload []byte
		}{{"availability", []byte(m.Availability)}, {"state", m.State}, {"diagnostics", m.Diagnostics}, {"diagnosis", m.Diagnosis}} {
			if len(known.payload) == 0 {
				continue
			}
			leaf := "/" + known.kind
			if known.kind == "state" {
				leaf = ""
			}
			s.message(Message{Topic: topic + leaf, Meter: m.Name, Kind: known.kind, Payload: known.payload})
		}
	}
}

// openStream counts a stream, or refuses it when there are too many; who has opened one
// counts it back.
func (w *window) openStream(rw http.ResponseWriter, r *http.Request) bool {
	if w.streams.Add(1) > maxStreams {
		w.streams.Add(-1)
		(&refusal{status: http.StatusServiceUnavailable, detail: "too many pages are open; try again", after: writeTimeout}).write(rw, r)
		return false
	}
	return true
}

// stream writes server-sent events. After the first error it writes nothing.
type stream struct {
	rw      http.ResponseWriter
	control *http.ResponseController
	buf     bytes.Buffer
	err     error
}

// newStream begins an answer that is a stream.
func newStream(rw http.ResponseWriter) *stream {
	rw.Header().Set("Content-Type", "text/event-stream")
	rw.Header().Set("X-Accel-Buffering", "no") // a proxy must not collect
	rw.WriteHeader(http.StatusOK)
	return &stream{rw: rw, control: http.NewResponseController(rw)}
}

// print writes a line that is none of an event.
func (s *stream) print(format string, args ...any) {
	s.buf.Reset()
	fmt.Fprintf(&s.buf, format, args...)
	s.write()
}

// message writes a message as an event.
func (s *stream) message(m Message) {
	payload := json.RawMessage(m.Payload)
	if !json.Valid(payload) { // "online"
		payload, _ = json.Marshal(string(m.Payload))
	}
	s.event(m.Kind, struct {
		Meter   *string         `json:"meter"` // nil: the bridge's own
		Topic   string          `json:"topic"`
		Payload json.RawMessage `json:"payload"`
	}{text(m.Meter), m.Topic, payload})
}

// event writes an event. JSON is one line: its line breaks are escaped.
func (s *stream) event(name string, data any) {
	s.buf.Reset()
	fmt.Fprintf(&s.buf, "event: %s\ndata: ", name)
	e := json.NewEncoder(&s.buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(data); err != nil {
		return
	}
	s.buf.WriteByte('\n')
	s.write()
}

func (s *stream) write() {
	if s.err == nil {
		_, s.err = s.rw.Write(s.buf.Bytes())
	}
}

// flush sends what was written; the error says that the reader has gone or is too slow.
func (s *stream) flush() error {
	if s.err == nil {
		s.err = s.control.Flush()
	}
	return s.err
}

// align has a meter read again and again while somebody moves its head, and shows each read.
func (w *window) align(rw http.ResponseWriter, r *http.Request) {
	name, length := r.PathValue("name"), usualAlign
	if v := r.URL.Query().Get("length"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil || d < shortestAlign || d > longestAlign {
			fail(rw, r, http.StatusBadRequest, fmt.Sprintf("length %q is not a time from %s to %s such as 60s", clip(v), shortestAlign, longestAlign))
			return
		}
		length = d
	}
	if _, ok := w.find(rw, r); !ok {
		return
	}
	if _, refused := body(r); refused != nil {
		rw.Header().Set("Connection", "close")
		refused.write(rw, r)
		return
	}
	if !w.openStream(rw, r) {
		return
	}
	defer w.streams.Add(-1)

	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	type end struct {
		summary diagnosis.Summary
		err     error
	}
	samples, done := make(chan diagnosis.Sample, maxSamples), make(chan end, 1)
	go func() {
		sum, err := w.source.Align(ctx, name, length, func(s diagnosis.Sample) {
			select {
			case samples <- s:
			default: // nobody reads; the line is for others
				cancel()
			}
		})
		done <- end{sum, err}
	}()

	var s *stream // nil before the first read: until then an error has a status of its own
	show := func(sample diagnosis.Sample) {
		if s == nil {
			s = newStream(rw)
		}
		frames := w.source.Frames(name)
		s.event("sample", alignSample{sample, shownFrames(frames[max(0, len(frames)-shownWhileAligning):])})
		if s.flush() != nil {
			cancel()
		}
	}
	for {
		select {
		case sample := <-samples:
			show(sample)
		case <-ctx.Done(): // the source lets go of the line in its own time
			return
		case e := <-done:
			for len(samples) > 0 {
				show(<-samples)
			}
			if e.err != nil && s == nil {
				w.failed(rw, r, e.err)
				return
			}
			if s == nil {
				s = newStream(rw)
			}
			if e.err != nil {
				s.event("failure", problem{Title: http.StatusText(status(e.err)), Status: status(e.err), Detail: plain(e.err)})
			}
			s.event("summary", summaryOf(e.summary))
			_ = s.flush() // the end
			return
		}
	}
}

// alignSample is one read of an alignment and the newest frames.
type alignSample struct {
	Sample diagnosis.Sample `json:"sample"`
	Frames []shownFrame     `json:"frames"`
}

// alignSummary is how an alignment ended.
type alignSummary struct {
	Reads    int                `json:"reads"`
	Good     int                `json:"good"`
	Duration float64            `json:"duration_s"`
	Locked   bool               `json:"locked"`
	Code     diagnosis.Code     `json:"code"`
	Title    string             `json:"title"`
	Text     string             `json:"text"`
	NextStep string             `json:"next_step"`
	Evidence diagnosis.Evidence `json:"evidence"`
}

func summaryOf(s diagnosis.Summary) alignSummary {
	class := diagnosis.Lookup(s.Code)
	return alignSummary{
		Reads: s.Reads, Good: s.Good, Duration: s.Duration.Round(time.Millisecond).Seconds(), Locked: s.Locked,
		Code: s.Code, Title: class.Title, Text: s.Evidence.Text(s.Code), NextStep: class.NextStep, Evidence: s.Evidence,
	}
}
