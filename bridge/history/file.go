package history

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/logbook"
)

// The files of a data directory.
const (
	fileName  = "history.db"
	newName   = "history.db.new-*"    // being made; a crash may leave one
	asideName = "history.db.damaged-" // and the time, as asideTime says
	asideTime = "20060102T150405.000Z"
	copyName  = "kmp2mqtt-history-*" // the directory of a copy
)

// bucketName is the file's only bucket.
const bucketName = "kmp2mqtt history"

// fill is how full of records a page becomes: rows are appended, so little comes between.
const fill = 0.9

const (
	patience = 20 * time.Second     // for the lock of a file
	pace     = 2 * time.Millisecond // between two tries: bbolt's own would rarely meet a gap between two writes
	stale    = time.Hour            // the age of a file that was never finished
)

// records are those of the file during one transaction.
type records struct {
	b  *bbolt.Bucket
	tx uint64 // its id
	// changed says that something was put.
	changed bool
}

// get returns the payload of a record; it is valid during the transaction.
func (r *records) get(key []byte) (payload []byte, found bool, err error) {
	value := r.b.Get(key)
	if value == nil {
		return nil, false, nil
	}
	payload, err = unseal(key, value)
	return payload, err == nil, err
}

func (r *records) put(key, payload []byte) error {
	r.changed = true
	return r.b.Put(key, seal(key, payload))
}

// any reports whether a key begins with prefix.
func (r *records) any(prefix []byte) bool {
	k, _ := r.b.Cursor().Seek(prefix)
	return k != nil && bytes.HasPrefix(k, prefix)
}

// log returns the state of a log.
func (r *records) log(serial string, log kmp.LogType) (s logState, found bool, err error) {
	payload, found, err := r.get(logKey(serial, log))
	if found {
		s, err = decodeLogState(payload)
	}
	return s, found, err
}

// putLog notes the state of a log, if it is another.
func (r *records) putLog(serial string, log kmp.LogType, s logState) error {
	old, found, err := r.log(serial, log)
	if err != nil || found && old == s {
		return err
	}
	return r.put(logKey(serial, log), appendLogState(nil, s))
}

// rows calls do with at most so many rows of a log, beginning with key from, and returns
// the key to go on with; nil: these were all.
func (r *records) rows(serial string, log kmp.LogType, from []byte, most int, do func(logbook.Row)) (next []byte, err error) {
	c := r.b.Cursor()
	prefix := logPrefix(kindRow, serial, log)
	for k, v := c.Seek(from); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		if most--; most < 0 {
			return bytes.Clone(k), nil
		}
		payload, err := unseal(k, v)
		if err != nil {
			return nil, err
		}
		what, err := parseKey(k)
		if err != nil {
			return nil, err
		}
		row, err := decodeRow(log, what.id, payload)
		if err != nil {
			return nil, err
		}
		do(row)
	}
	return nil, nil
}

// each calls do with all records of a kind.
func (r *records) each(kind byte, do func(k key, payload []byte) error) error {
	c := r.b.Cursor()
	for k, v := c.Seek([]byte{kind}); k != nil && k[0] == kind; k, v = c.Next() {
		payload, err := unseal(k, v)
		if err != nil {
			return err
		}
		what, err := parseKey(k)
		if err != nil {
			return err
		}
		if err := do(what, payload); err != nil {
			return err
		}
	}
	return nil
}

// run calls f with the records of the file: to write, in a transaction that is on the disk
// when run returns nil, and dropped when f changed nothing or returns an error. Without a
// file there is nothing to read, and f is not called. When damage shows, the file is
// checked and, if that confirms it, rebuilt, and f is called once more.
func (s *Store) run(write bool, f func(*records) error) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 2 {
		exists, e := s.ready(write)
		if e != nil || !exists {
			return e
		}
		s.seen, err = s.transact(write, f)
		if err == nil || !isDamage(err) {
			return err
		}
	}
	return err
}

// transact is one transaction. It returns the file as it left it.
func (s *Store) transact(write bool, f func(*records) error) (fs.FileInfo, error) {
	db, err := openDB(s.file(), !write)
	if err != nil {
		return nil, err
	}
	do := func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucketName))
		if b == nil {
			return errRecord
		}
		b.FillPercent = fill
		r := &records{b: b, tx: uint64(tx.ID())}
		if err := f(r); err != nil {
			return err
		}
		if !r.changed {
			return errUnchanged // or it would be written
		}
		return nil
	}
	err = guard(func() error {
		if write {
			return db.Update(do)
		}
		return db.View(do)
	})
	if errors.Is(err, errUnchanged) {
		err = nil
	}
	if e := db.close(err); err == nil {
		err = e
	}
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	info, _ := os.Stat(s.file()) // nil: it is checked next time
	return info, nil
}

// errReadOnly says why a copy takes no changes.
var errReadOnly = errors.New("it is only read")

// errUnchanged ends a transaction in which there is nothing to write.
var errUnchanged = errors.New("nothing changed")

// faultError is a panic: of the system when the file ends before the memory that it is
// mapped to, or of bbolt when it meets what it cannot have written.
type faultError struct{ cause any }

func (e *faultError) Error() string { return fmt.Sprintf("while it was used: %v", e.cause) }

// guard calls f and makes a panic an error.
func guard(f func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(old)
	defer func() {
		if p := recover(); p != nil {
			err = &faultError{p}
		}
	}()
	return f()
}

// isDamage reports whether an error may come from a file that is damaged.
func isDamage(err error) bool {
	var fault *faultError
	return errors.As(err, &fault) || errors.Is(err, errRecord) ||
		errors.Is(err, bolterrors.ErrInvalid) || errors.Is(err, bolterrors.ErrChecksum) || errors.Is(err, bolterrors.ErrVersionMismatch)
}

// A database is an open file, and locked: shared when it is only read.
type database struct {
	*bbolt.DB
	f *os.File
}

// openDB opens a file that exists. It waits for the lock as long as patience says.
func openDB(name string, readOnly bool) (*database, error) {
	return openDBWithin(name, readOnly, patience)
}

func openDBWithin(name string, readOnly bool, patience time.Duration) (*database, error) {
	for start := time.Now(); ; time.Sleep(pace) {
		db := new(database)
		err := guard(func() (err error) {
			db.DB, err = bbolt.Open(name, 0o600, &bbolt.Options{
				ReadOnly: readOnly, Timeout: 1, NoStatistics: true, PageSize: pageSize, // 1: one try
				OpenFile: func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
					db.f, err = os.OpenFile(name, flag&^os.O_CREATE, mode)
					return db.f, err
				},
			})
			return err
		})
		switch {
		case err == nil && db.isAt(name):
			return db, nil
		case err == nil: // it was replaced while this waited
			err = db.close(nil)
		case errors.Is(err, bolterrors.ErrTimeout):
			err = nil
		default:
			_ = db.close(err) // the first error is the one to tell
		}
		if err == nil && time.Since(start) > patience {
			return nil, fmt.Errorf("%w: %s", ErrLocked, name)
		}
		if err != nil {
			return nil, fmt.Errorf("history: %w", err)
		}
	}
}

// isAt reports whether the file is still the one of that name.
func (db *database) isAt(name string) bool {
	ours, err := db.f.Stat()
	if err != nil {
		return false
	}
	theirs, err := os.Stat(name)
	return err == nil && os.SameFile(ours, theirs)
}

// close lets the file go. After a fault bbolt may hold its own locks for ever, so that it
// is left alone, with the memory it has mapped.
func (db *database) close(err error) error {
	var fault *faultError
	if db.DB != nil && !errors.As(err, &fault) {
		return guard(db.DB.Close)
	}
	if db.f != nil {
		unlock(db.f)
		_ = db.f.Close() // it may be closed already
	}
	return nil
}

// ready reports whether there is a file, and sees to it that it is sound. It makes one to
// write to.
func (s *Store) ready(write bool) (exists bool, err error) {
	if s.closed {
		return false, fmt.Errorf("history: %s: %w", s.file(), fs.ErrClosed)
	}
	if write && s.origin != "" {
		return false, fmt.Errorf("history: a copy of %s: %w", s.origin, errReadOnly)
	}
	info, err := os.Stat(s.file())
	switch {
	case errors.Is(err, fs.ErrNotExist) && write:
		if err := s.create(); err != nil {
			return false, fmt.Errorf("history: %w", err)
		}
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("history: %w", err)
	case s.seen != nil && os.SameFile(s.seen, info) && s.seen.Size() == info.Size() && s.seen.ModTime().Equal(info.ModTime()):
		return true, nil
	}
	if err := s.inspect(info); err != nil {
		return false, err
	}
	return true, nil
}

// create makes a file without records, in one step: nobody sees half of it.
func (s *Store) create() error {
	name, _, err := s.build(func(func(key, payload []byte) error) error { return nil })
	if err != nil {
		return err
	}
	err = os.Link(name, s.file()) // fails if another process was faster; then that is the file
	if err == nil || errors.Is(err, fs.ErrExist) {
		err = os.Remove(name)
	} else {
		err = os.Rename(name, s.file()) // there are file systems without links
	}
	syncDir(s.dir)
	return err
}

// syncDir makes a new name in dir last, where the system can.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync() // without it a crash may bring the old file back, which is not worse
		_ = d.Close()
	}
}

// batch is how many records are put into a new file in one transaction.
const batch = 4096

// build makes a new file beside the Store's and returns its name and how many rows it has.
// write calls put for each record; of two with the same key the first one is kept.
func (s *Store) build(write func(put func(key, payload []byte) error) error) (name string, rows int, err error) {
	s.sweep()
	f, err := os.CreateTemp(s.dir, newName)
	if err != nil {
		return "", 0, err
	}
	name = f.Name()
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // gives a full disk its space back; the first error is the one to tell
		}
	}()
	if err := f.Close(); err != nil {
		return "", 0, err
	}
	db, err := openDB(name, false)
	if err != nil {
		return "", 0, err
	}
	type record struct{ key, payload []byte }
	gathered := []record{{versionKey(), binary.BigEndian.AppendUint32(nil, version)}}
	flush := func() error {
		return db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte(bucketName))
			if err != nil {
				return err
			}
			b.FillPercent = fill
			for _, r := range gathered {
				if b.Get(r.key) != nil {
					continue
				}
				if err := b.Put(r.key, seal(r.key, r.payload)); err != nil {
					return err
				}
				if r.key[0] == kindRow {
					rows++
				}
			}
			gathered = gathered[:0]
			return nil
		})
	}
	err = guard(func() error {
		err := write(func(key, payload []byte) error {
			gathered = append(gathered, record{bytes.Clone(key), bytes.Clone(payload)})
			if len(gathered) < batch {
				return nil
			}
			return flush()
		})
		if err != nil {
			return err
		}
		return flush()
	})
	return name, rows, errors.Join(err, db.close(err))
}

// sweep removes what crashes left of files that were being made.
func (s *Store) sweep() {
	names, err := filepath.Glob(filepath.Join(s.dir, newName))
	if err != nil {
		return
	}
	for _, name := range names {
		if info, err := os.Stat(name); err == nil && time.Since(info.ModTime()) > stale {
			_ = os.Remove(name)
		}
	}
}

// inspect checks the file that is there. When it is damaged, a new one takes its place,
// with what is sound in the old one.
func (s *Store) inspect(info fs.FileInfo) error {
	damage, name, rows, err := s.examine(info)
	if err != nil {
		return err
	}
	if damage == nil {
		s.seen = info
		return nil
	}
	aside := filepath.Join(s.dir, asideName+time.Now().UTC().Format(asideTime))
	err = os.Link(s.file(), aside) // so there is a file at any moment
	if err != nil {
		err = os.Rename(s.file(), aside)
	}
	if err == nil {
		err = os.Rename(name, s.file())
	}
	if err != nil {
		_ = os.Remove(name) // the first error is the one to tell
		return fmt.Errorf("history: %s is damaged: %w; it cannot be set aside: %w", s.file(), damage, err)
	}
	syncDir(s.dir)
	if s.origin != "" {
		damage = fmt.Errorf("history: %s is damaged: %w; left as it is; rows that can be read: %d", s.origin, damage, rows)
	} else {
		damage = fmt.Errorf("history: %s is damaged: %w; kept as %s; rows saved: %d", s.file(), damage, aside, rows)
	}
	s.damaged = append(s.damaged, damage)
	return nil
}

// examine checks the file. When it is damaged, name is a new file with the rows that are
// sound in it.
func (s *Store) examine(info fs.FileInfo) (damage error, name string, rows int, err error) {
	var f *os.File
	if info.Mode().IsRegular() { // before it is opened: a pipe would wait for a writer
		lock, err := openDB(s.file(), true) // it trusts the first two pages only
		if errors.Is(err, ErrLocked) || errors.Is(err, fs.ErrPermission) {
			return nil, "", 0, err
		}
		if err == nil {
			defer lock.close(nil)
		}
		if f, err = os.Open(s.file()); err != nil {
			return nil, "", 0, fmt.Errorf("history: %w", err)
		}
		defer f.Close()
		if info, err = f.Stat(); err != nil {
			return nil, "", 0, fmt.Errorf("history: %w", err)
		}
		damage = check(f, info.Size())
	} else {
		damage = errors.New("not a file")
	}
	if damage == nil {
		return nil, "", 0, nil
	}
	if !errors.Is(damage, ErrNewer) {
		name, rows, err = s.build(func(put func(key, payload []byte) error) error {
			if f == nil {
				return nil
			}
			return salvage(f, info.Size(), put)
		})
	}
	switch {
	case errors.Is(damage, ErrNewer):
		return nil, "", 0, fmt.Errorf("%w: %s", damage, s.file())
	case errors.Is(err, ErrNewer):
		return nil, "", 0, fmt.Errorf("%w: %s", err, s.file())
	case err != nil:
		return nil, "", 0, fmt.Errorf("history: %s is damaged: %w; it cannot be rebuilt: %w", s.file(), damage, err)
	}
	return damage, name, rows, nil
}
