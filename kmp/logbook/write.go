package logbook

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

// Format is a way to write rows as text.
type Format string

// The formats.
const (
	// Table is for people: columns of the width that the first rows need.
	Table Format = "table"
	// CSV is RFC 4180 with a header: serial, meter, log, id, time, correction_s, then a
	// column for each key. What is unknown is empty.
	CSV Format = "csv"
	// JSON is one object a line, see [AppendJSON].
	JSON Format = "json"
	// Influx is InfluxDB's line protocol: the measurement kmp2mqtt with the tags serial,
	// meter and log; the id and what is known of each key are fields. The timestamp is the
	// true time in nanoseconds: Time with its Correction.
	Influx Format = "influx"
)

// Origin is the meter that rows are from.
type Origin struct {
	Serial string // decimal, as on the meter's label
	Meter  string // its name, empty when it has none
}

// ColumnError says that a row has a value for which a CSV file, whose header is written
// already, has no column: the meter counts in another unit, or logs another register.
type ColumnError struct {
	Key string
	Row Row
}

// Error implements error.
func (e *ColumnError) Error() string {
	return fmt.Sprintf("logbook: row %d of the %s log has %s, for which the CSV has no column", e.Row.ID, e.Row.Log, e.Key)
}

// Writer writes rows, a line each, with exactly the meter's digits. What one call of
// Write was given is written in one piece, so that nothing of it is half there when the
// program is interrupted.
type Writer struct {
	out     io.Writer
	format  Format
	keys    []string // columns
	begun   bool     // keys are known, and of CSV the header is written
	widths  []int    // of a table's columns
	skipped int
	buf     bytes.Buffer
}

// NewWriter returns a Writer to out. The keys are the columns of CSV, see [Keys]; when
// none are given, those of the first row are.
func NewWriter(out io.Writer, format Format, keys ...string) *Writer {
	return &Writer{out: out, format: format, keys: keys}
}

// Continue makes w go on behind what was written before, with the columns that CSV has
// already; nil: none.
func (w *Writer) Continue(keys []string) { w.keys, w.begun = keys, keys != nil }

// Skipped is how many rows could not be written: those without a time, which the line
// protocol has no way to say.
func (w *Writer) Skipped() int { return w.skipped }

// Write writes rows of one meter. Errors are those of the underlying writer, or of CSV a
// *[ColumnError], before anything is written.
func (w *Writer) Write(from Origin, rows ...Row) error {
	w.buf.Reset()
	var err error
	switch w.format {
	case JSON:
		for _, r := range rows {
			w.buf.Write(append(AppendJSON(nil, from, r), '\n'))
		}
	case CSV:
		err = w.csv(from, rows)
	case Influx:
		for _, r := range rows {
			w.influx(from, r)
		}
	case Table:
		w.table(rows)
	default:
		err = fmt.Errorf("logbook: format %q is not known", w.format)
	}
	if err != nil || w.buf.Len() == 0 {
		return err
	}
	_, err = w.out.Write(w.buf.Bytes())
	return err
}

// Keys returns the keys of a row's registers as [catalog.Key] makes them, each once.
func Keys(r Row) []string {
	keys := make([]string, 0, len(r.Registers))
	for _, f := range fields(r) {
		keys = append(keys, f.key)
	}
	return keys
}

// field is a register as it is written; a nil value is unknown.
type field struct {
	key   string
	value kmp.Value
}

func fields(r Row) []field {
	list := make([]field, 0, len(r.Registers))
	for _, register := range r.Registers {
		key := catalog.Key(catalog.Lookup(register.ID).Name, register.Unit)
		if slices.ContainsFunc(list, func(f field) bool { return f.key == key }) {
			continue
		}
		value, err := catalog.Value(register)
		if err != nil {
			value = nil // it cannot be what its unit promises
		}
		list = append(list, field{key, value})
	}
	return list
}

// cells are the values of the keys, each with what stands for the unknown.
func cells(r Row, keys []string, unknown string) []string {
	known := fields(r)
	texts := make([]string, len(keys))
	for i, key := range keys {
		texts[i] = unknown
		if j := slices.IndexFunc(known, func(f field) bool { return f.key == key }); j >= 0 && known[j].value != nil {
			texts[i] = known[j].value.String()
		}
	}
	return texts
}

// AppendJSON appends a row as an object:
//
//	{"log":"hour","id":188,"serial":"4711","meter":"house","time":"2026-11-21T07:00:00+01:00","energy_gj":227.445}
//
// Serial and meter are left out where the origin has none. The time is null for a row
// without one. Behind it is correction_s, what to add for the true time, where the meter's
// clock was compared and was off. A value that is unknown is null.
func AppendJSON(dst []byte, from Origin, r Row) []byte {
	dst = appendText(append(dst, `{"log":`...), r.Log.String())
	dst = strconv.AppendUint(append(dst, `,"id":`...), uint64(r.ID), 10)
	for _, member := range []struct{ key, text string }{{"serial", from.Serial}, {"meter", from.Meter}} {
		if member.text != "" {
			dst = appendText(append(appendText(append(dst, ','), member.key), ':'), member.text)
		}
	}
	dst = append(dst, `,"time":`...)
	if r.Time.IsZero() {
		dst = append(dst, "null"...)
	} else {
		dst = appendText(dst, r.Time.Format(time.RFC3339))
	}
	if s := seconds(r.Correction); r.Corrected && s != "0" {
		dst = append(append(dst, `,"correction_s":`...), s...)
	}
	for _, f := range fields(r) {
		dst = append(appendText(append(dst, ','), f.key), ':')
		text := []byte("null")
		if f.value != nil {
			if t, err := f.value.MarshalJSON(); err == nil {
				text = t
			}
		}
		dst = append(dst, text...)
	}
	return append(dst, '}')
}

// appendText appends a JSON string, without the escapes for HTML.
func appendText(dst []byte, s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string and a buffer never fail
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}

// seconds are whole: a meter tells no fractions.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64(d.Round(time.Second)/time.Second), 10)
}

// csvColumns stand before those of the keys.
var csvColumns = [...]string{"serial", "meter", "log", "id", "time", "correction_s"}

func (w *Writer) csv(from Origin, rows []Row) error {
	if !w.begun && w.keys == nil && len(rows) > 0 {
		w.keys = Keys(rows[0])
	}
	for _, r := range rows {
		for _, key := range Keys(r) {
			if !slices.Contains(w.keys, key) {
				return &ColumnError{key, r}
			}
		}
	}
	lines := csv.NewWriter(&w.buf)
	lines.UseCRLF = true
	if !w.begun && (len(rows) > 0 || w.keys != nil) {
		_ = lines.Write(slices.Concat(csvColumns[:], w.keys)) // a buffer never fails
		w.begun = true
	}
	for _, r := range rows {
		at, correction := "", ""
		if !r.Time.IsZero() {
			at = r.Time.Format(time.RFC3339)
		}
		if r.Corrected {
			correction = seconds(r.Correction)
		}
		line := []string{from.Serial, from.Meter, r.Log.String(), strconv.FormatUint(uint64(r.ID), 10), at, correction}
		_ = lines.Write(append(line, cells(r, w.keys, "")...))
	}
	lines.Flush()
	return lines.Error()
}

// The characters that the line protocol escapes, by where they stand
// (docs.influxdata.com, "Line protocol", special characters). A line feed ends a line
// whatever stands before it.
var (
	influxTag    = strings.NewReplacer(`,`, `\,`, `=`, `\=`, ` `, `\ `, "\n", `\n`, "\r", `\r`)
	influxString = strings.NewReplacer(`"`, `\"`, `\`, `\\`, "\n", `\n`, "\r", `\r`)
)

func (w *Writer) influx(from Origin, r Row) {
	if r.Time.IsZero() {
		w.skipped++ // without a timestamp it would be taken to be of now
		return
	}
	b := &w.buf
	b.WriteString("kmp2mqtt")
	for _, tag := range []struct{ key, value string }{{"log", r.Log.String()}, {"meter", from.Meter}, {"serial", from.Serial}} {
		// Nothing escapes a backslash, so one at the end would escape the comma behind it.
		if value := strings.TrimRight(tag.value, `\`); value != "" {
			fmt.Fprintf(b, ",%s=%s", tag.key, influxTag.Replace(value))
		}
	}
	fmt.Fprintf(b, " id=%di", r.ID)
	for _, f := range fields(r) {
		switch v := f.value.(type) {
		case nil:
		case kmp.Decimal, kmp.Bits:
			fmt.Fprintf(b, ",%s=%s", influxTag.Replace(f.key), v)
		default:
			fmt.Fprintf(b, `,%s="%s"`, influxTag.Replace(f.key), influxString.Replace(v.String()))
		}
	}
	fmt.Fprintf(b, " %d\n", r.Time.Add(r.Correction).UnixNano())
}

// table writes rows in columns, under a heading that comes again when the keys change.
func (w *Writer) table(rows []Row) {
	for i, r := range rows {
		if keys := Keys(r); !w.begun || !slices.Equal(keys, w.keys) {
			w.keys, w.begun = keys, true
			head := append([]string{"id", "time"}, keys...)
			w.widths = make([]int, len(head))
			w.widen(head)
			for _, r := range rows[i:] {
				w.widen(tableCells(r, keys))
			}
			w.line(head)
		}
		w.line(tableCells(r, w.keys))
	}
}

func tableCells(r Row, keys []string) []string {
	at := "-"
	if !r.Time.IsZero() {
		at = r.Time.Format(time.RFC3339)
	}
	return append([]string{strconv.FormatUint(uint64(r.ID), 10), at}, cells(r, keys, "-")...)
}

func (w *Writer) widen(texts []string) {
	for i, s := range texts {
		w.widths[i] = max(w.widths[i], utf8.RuneCountInString(s))
	}
}

func (w *Writer) line(texts []string) {
	for i, s := range texts {
		w.buf.WriteString(s)
		if i < len(texts)-1 {
			w.buf.WriteString(strings.Repeat(" ", 2+max(0, w.widths[i]-utf8.RuneCountInString(s))))
		}
	}
	w.buf.WriteByte('\n')
}
