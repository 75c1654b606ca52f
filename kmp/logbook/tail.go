package logbook

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"kmp2mqtt/kmp"
)

// Tail says how far a file of rows goes.
type Tail struct {
	ID    uint32    // of the last row of the log, if Known
	Known bool      // the file has rows of the log
	Time  time.Time // of that row; zero: it has none
	First time.Time // of the first row of the log that has one
	Keys  []string  // columns behind the fixed ones, of CSV that has its header
	Size  int64     // bytes of whole lines: what is behind them was cut off
}

// maxLine bounds what is read of a file that is no file of rows: bytes of a line, the
// longest of which a log's registers make some kilobytes long.
const maxLine = 64 << 10

// ErrNotRows says that a file holds something else than rows in its format.
var ErrNotRows = errors.New("logbook: not rows of a log")

// ReadTail finds the last row of a meter's log in what a [Writer] wrote as CSV or JSON,
// so that more rows can follow. Rows of other meters and logs may be among them. A last
// line that was cut off does not count. Errors wrap [ErrNotRows], or are the reader's.
func ReadTail(r io.Reader, format Format, serial string, log kmp.LogType) (Tail, error) {
	switch format {
	case CSV:
		return csvTail(r, serial, log)
	case JSON:
		return jsonTail(r, serial, log)
	}
	return Tail{}, fmt.Errorf("logbook: format %q cannot be read", format)
}

// note notes a row of the log.
func (t *Tail) note(id uint32, at time.Time) {
	t.ID, t.Known, t.Time = id, true, at
	if t.First.IsZero() {
		t.First = at
	}
}

func jsonTail(r io.Reader, serial string, log kmp.LogType) (Tail, error) {
	var t Tail
	lines := bufio.NewReaderSize(r, maxLine)
	for n := 1; ; n++ {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return t, cutOff(string(line), `{"log":"`)
		} else if errors.Is(err, bufio.ErrBufferFull) {
			return t, errLongLine
		} else if err != nil {
			return t, err
		}
		var row struct {
			Serial, Log string
			ID          *uint32
			Time        *time.Time
		}
		if err := json.Unmarshal(line, &row); err != nil {
			return t, fmt.Errorf("%w: line %d: %w", ErrNotRows, n, err)
		} else if row.ID == nil || row.Log == "" {
			return t, fmt.Errorf("%w: line %d: has no log and id", ErrNotRows, n)
		}
		t.Size += int64(len(line))
		if row.Serial == serial && row.Log == log.String() {
			at := time.Time{}
			if row.Time != nil {
				at = *row.Time
			}
			t.note(*row.ID, at)
		}
	}
}

// cutOff tells a line that was cut off from the end of some other file, by how all lines
// that matter begin.
func cutOff(line, beginning string) error {
	if n := min(len(line), len(beginning)); line[:n] != beginning[:n] {
		return fmt.Errorf("%w: the last line is %.40q", ErrNotRows, line)
	}
	return nil
}

var errLongLine = fmt.Errorf("%w: a line is longer than %d bytes", ErrNotRows, maxLine)

// ending counts bytes and keeps the last one. It ends with errLongLine when a line does
// not end.
type ending struct {
	r     io.Reader
	size  int64
	begin int64 // of the line that is read
	last  byte
}

func (e *ending) Read(p []byte) (int, error) {
	if e.size-e.begin > maxLine {
		return 0, errLongLine
	}
	n, err := e.r.Read(p)
	if n > 0 {
		e.size, e.last = e.size+int64(n), p[n-1]
	}
	return n, err
}

func csvTail(r io.Reader, serial string, log kmp.LogType) (Tail, error) {
	var t Tail
	source := &ending{r: r}
	lines := csv.NewReader(source)
	for {
		record, err := lines.Read()
		end := lines.InputOffset()
		source.begin = end
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		syntax, bad := errors.AsType[*csv.ParseError](err)
		if err != nil && !bad {
			return t, err
		}
		if end == source.size && (source.last != '\n' || bad && errors.Is(syntax, csv.ErrQuote)) {
			if t.Keys == nil && !bad { // the header
				return t, cutOff(strings.Join(record, ","), strings.Join(csvColumns[:], ","))
			}
			if t.Keys != nil {
				return t, nil // the last line was cut off, maybe inside of quotes
			}
		}
		if bad {
			return t, fmt.Errorf("%w: %w", ErrNotRows, err)
		}
		if t.Keys == nil {
			fixed := len(csvColumns)
			if len(record) < fixed || !slices.Equal(record[:fixed], csvColumns[:]) {
				return t, fmt.Errorf("%w: the header does not begin with %s", ErrNotRows, strings.Join(csvColumns[:], ","))
			}
			t.Keys, t.Size = slices.Clone(record[fixed:]), end
			continue
		}
		id, err := strconv.ParseUint(record[3], 10, 32)
		if err != nil {
			return t, fmt.Errorf("%w: line with id %.20q", ErrNotRows, record[3])
		}
		t.Size = end
		if record[0] != serial || record[2] != log.String() {
			continue
		}
		at, err := time.Parse(time.RFC3339, record[4])
		if err != nil {
			at = time.Time{}
		}
		t.note(uint32(id), at)
	}
}
