// Package history keeps the rows of the meters' logs: those that a bridge read, by serial
// number, log and id, with the meter's time and the registers as they were on the wire.
//
// They are in one file of the data directory, a bbolt database, for ever: an hour log of
// four registers takes 0.9 MB a year. Each change is one transaction, on the disk (two
// fsync) when the method returns, so a crash loses at most the change under way: a day of
// 24 rows, each read and acknowledged by two consumers, costs 144 fsync.
//
// The file is open, and locked, only while a method works, so others may [Copy] it at any
// time. Every record has a checksum. A file that anyone else changed is read whole before
// it is used. Damage never becomes a row: a damaged file is set aside, what is sound in it
// goes to a new one, and [Store.Last] tells nothing until the logs are read again, for the
// meters still have what is missing.
package history

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/logbook"
)

// Errors that callers test for.
var (
	// ErrNewer means that a newer version of the program wrote the file. It is left as it is.
	ErrNewer = errors.New("history: the file is of a newer version")
	// ErrLocked means that another process worked with the file for all of 20 s.
	ErrLocked = errors.New("history: the file is in use")
)

// pageRows is how many rows are looked at while the file is open.
const pageRows = 1024

// maxText is the longest serial number or name of a consumer in bytes, maxName that of a
// meter's name.
const (
	maxText = 64
	maxName = 1024
)

// A Store is the file of a data directory. All methods may be called at the same time. A
// nil Store forgets everything.
type Store struct {
	dir    string // of the file
	origin string // the file that this one is a copy of, or ""

	mu      sync.Mutex
	closed  bool
	seen    fs.FileInfo // the file when it was known to be sound; nil: it is to be checked
	damaged []error     // not told yet
}

// Meter is a meter of which there are rows, or a name.
type Meter struct {
	Serial string
	Name   string // "": none was set
	Logs   []kmp.LogType
}

// Open makes dir (0700) unless it is there, and checks its file; the file itself is made
// by the first change. A damaged file is set aside beside the new one and told by
// [Store.Damaged]. With an empty dir the Store is nil. Errors: ErrNewer, ErrLocked, and
// what the system says of a file that cannot be read or made.
func Open(dir string) (*Store, error) {
	if dir == "" {
		return nil, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	s := &Store{dir: dir}
	if _, err := s.ready(false); err != nil {
		return nil, err
	}
	return s, nil
}

// Damaged returns what was found damaged since it was last asked, and where it lies now;
// nil: nothing was. Damage may also be found after Open.
func (s *Store) Damaged() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := errors.Join(s.damaged...)
	s.damaged = nil
	return err
}

// Close ends the Store, and removes the file when it is a copy. Later calls give fs.ErrClosed.
func (s *Store) Close() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.origin == "" {
		return nil
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return nil
}

// Append keeps rows of a meter, of one log or of several, in one transaction. A row that
// is there stays as it is. Errors are those of the system: nothing was kept then, and the
// same rows may be appended again.
func (s *Store) Append(serial string, rows []logbook.Row) error {
	if s == nil || len(rows) == 0 {
		return nil
	}
	if err := checkText("serial number", serial); err != nil {
		return err
	}
	encoded := make([][]byte, len(rows))
	for i, row := range rows {
		var err error
		if encoded[i], err = encodeRow(row); err != nil {
			return err
		}
	}
	return s.run(true, func(r *records) error {
		logs := make(map[kmp.LogType]logState)
		for i, row := range rows {
			state, found := logs[row.Log]
			if !found {
				var err error
				if state, _, err = r.log(serial, row.Log); err != nil {
					return err
				}
			}
			key := rowKey(serial, row.Log, state.generation, row.ID)
			_, there, err := r.get(key)
			if err == nil && !there {
				err = r.put(key, encoded[i])
			}
			if err != nil {
				return err
			}
			if !state.known || row.ID > state.last {
				state.known, state.last = true, row.ID
			}
			logs[row.Log] = state
		}
		for log, state := range logs {
			if err := r.putLog(serial, log, state); err != nil {
				return err
			}
		}
		return nil
	})
}

// Last returns the row up to which the log was read. There is none, too, after damage,
// until rows are appended again: the log is then to be read from its first row, to fill
// what the damage may have taken. Rows that are there stay, and so do the positions.
func (s *Store) Last(serial string, log kmp.LogType) (row logbook.Row, found bool, err error) {
	if s == nil {
		return logbook.Row{}, false, nil
	}
	err = s.run(false, func(r *records) error {
		row, found = logbook.Row{}, false
		state, _, err := r.log(serial, log)
		if err != nil || !state.known {
			return err
		}
		payload, there, err := r.get(rowKey(serial, log, state.generation, state.last))
		if err != nil || !there {
			return err
		}
		row, err = decodeRow(log, state.last, payload)
		found = err == nil
		return err
	})
	return row, found, err
}

// After returns the rows with an id above id, -1 for all, ascending, at most as many as said,
// without those of before a [Store.Restart].
func (s *Store) After(serial string, log kmp.LogType, id int64, most int) (rows []logbook.Row, err error) {
	if s == nil || most <= 0 || id >= math.MaxUint32 {
		return nil, nil
	}
	err = s.run(false, func(r *records) error {
		rows = nil
		state, _, err := r.log(serial, log)
		if err != nil {
			return err
		}
		_, err = r.rows(serial, log, rowKey(serial, log, state.generation, uint32(id+1)), most, func(row logbook.Row) {
			rows = append(rows, row)
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// Range calls do with each row not before since and before until, by the true time where
// that is known and else by the meter's; zero is no bound. A row without a time counts as
// of the time of the row before it. The rows come as they were written: those of before a
// [Store.Restart] first, ascending by id. An error of do ends it. do may call the Store.
func (s *Store) Range(serial string, log kmp.LogType, since, until time.Time, do func(logbook.Row) error) error {
	if s == nil {
		return nil
	}
	var at time.Time
	for from := rowKey(serial, log, 0, 0); from != nil; {
		var rows []logbook.Row
		var next []byte
		err := s.run(false, func(r *records) (err error) {
			rows = rows[:0]
			next, err = r.rows(serial, log, from, pageRows, func(row logbook.Row) { rows = append(rows, row) })
			return err
		})
		if err != nil {
			return err
		}
		for _, row := range rows {
			if t := trueTime(row); !t.IsZero() {
				at = t
			}
			if !since.IsZero() && at.Before(since) || !until.IsZero() && !at.Before(until) {
				continue
			}
			if err := do(row); err != nil {
				return err
			}
		}
		from = next
	}
	return nil
}

// trueTime is the time of a row as far as it is known.
func trueTime(row logbook.Row) time.Time {
	if row.Corrected && !row.Time.IsZero() {
		return row.Time.Add(row.Correction)
	}
	return row.Time
}

// Position returns the id that SetPosition noted for a consumer: ok says whether there is one.
func (s *Store) Position(consumer, serial string, log kmp.LogType) (id uint32, ok bool, err error) {
	if s == nil {
		return 0, false, nil
	}
	err = s.run(false, func(r *records) error {
		id, ok = 0, false
		state, _, err := r.log(serial, log)
		if err != nil {
			return err
		}
		payload, there, err := r.get(positionKey(consumer, serial, log, state.generation))
		if err != nil || !there {
			return err
		}
		id, err = decodePosition(payload)
		ok = err == nil
		return err
	})
	return id, ok, err
}

// SetPosition notes the id of the last row that a consumer has. It is on the disk when
// SetPosition returns nil.
func (s *Store) SetPosition(consumer, serial string, log kmp.LogType, id uint32) error {
	if s == nil {
		return nil
	}
	if err := errors.Join(checkText("serial number", serial), checkText("consumer", consumer)); err != nil {
		return err
	}
	return s.run(true, func(r *records) error {
		state, _, err := r.log(serial, log)
		if err != nil {
			return err
		}
		key := positionKey(consumer, serial, log, state.generation)
		payload, there, err := r.get(key)
		if err != nil {
			return err
		}
		if there {
			switch old, err := decodePosition(payload); {
			case err != nil:
				return err
			case old == id:
				return nil
			}
		}
		return r.put(key, appendPosition(nil, r.tx, id))
	})
}

// Restart says that the ids of a log began anew: the meter erased it. The rows that are
// there stay for Range alone; Last, After and all positions begin anew, too.
func (s *Store) Restart(serial string, log kmp.LogType) error {
	if s == nil {
		return nil
	}
	if err := checkText("serial number", serial); err != nil {
		return err
	}
	return s.run(true, func(r *records) error {
		state, _, err := r.log(serial, log)
		if err != nil {
			return err
		}
		if !r.any(generationKey(kindRow, serial, log, state.generation)) && !r.any(generationKey(kindPosition, serial, log, state.generation)) {
			return nil // it has begun anew
		}
		if state.generation == math.MaxUint16 {
			return fmt.Errorf("%s log of %s: began anew %d times", log, serial, math.MaxUint16)
		}
		return r.putLog(serial, log, logState{generation: state.generation + 1})
	})
}

// SetName notes what a meter is called; "" is no name.
func (s *Store) SetName(serial, name string) error {
	if s == nil {
		return nil
	}
	if err := checkText("serial number", serial); err != nil {
		return err
	}
	if len(name) > maxName {
		return fmt.Errorf("history: a name of %d bytes, at most %d", len(name), maxName)
	}
	return s.run(true, func(r *records) error {
		key := nameKey(serial)
		payload, there, err := r.get(key)
		if err != nil || !there && name == "" {
			return err
		}
		if there {
			switch old, err := decodeName(payload); {
			case err != nil:
				return err
			case old == name:
				return nil
			}
		}
		return r.put(key, appendName(nil, r.tx, name))
	})
}

// Meters returns the meters and their logs, by serial number and log.
func (s *Store) Meters() (meters []Meter, err error) {
	if s == nil {
		return nil, nil
	}
	err = s.run(false, func(r *records) error {
		known := make(map[string]*Meter)
		at := func(serial string) *Meter {
			if known[serial] == nil {
				known[serial] = &Meter{Serial: serial}
			}
			return known[serial]
		}
		err := r.each(kindLog, func(k key, _ []byte) error {
			m := at(k.serial)
			m.Logs = append(m.Logs, k.log)
			return nil
		})
		if err == nil {
			err = r.each(kindName, func(k key, payload []byte) error {
				name, err := decodeName(payload)
				if err == nil && name != "" {
					at(k.serial).Name = name
				}
				return err
			})
		}
		meters = make([]Meter, 0, len(known))
		for _, m := range known {
			meters = append(meters, *m)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(meters, func(a, b Meter) int { return strings.Compare(a.Serial, b.Serial) })
	return meters, nil
}

// checkText says what is wrong with a text that is part of a key.
func checkText(what, text string) error {
	switch {
	case text == "":
		return fmt.Errorf("history: %s: empty", what)
	case len(text) > maxText:
		return fmt.Errorf("history: %s: %d bytes, at most %d", what, len(text), maxText)
	case !utf8.ValidString(text):
		return fmt.Errorf("history: %s: %q is no text", what, text)
	}
	return nil
}

// file is the name of the file.
func (s *Store) file() string { return filepath.Join(s.dir, fileName) }
