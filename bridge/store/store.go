// Package store keeps what must survive a restart: entries of JSON under keys such as
// "meter/80123456", in one file of the data directory.
//
// The file is replaced as a whole or not at all, so it is sound whenever the process
// ends; what changed in the last [Pace] may be missing then. Only one process may have a
// directory open.
package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"time"
)

// Pace is the time that Run gathers changes before it writes them, and the time after
// which it tries again: a card or a stick of flash wears out by being written.
const Pace = time.Minute

// maxKey is the longest key in bytes.
const maxKey = 256

// Errors of Open and Put that callers test for.
var (
	// ErrLocked means that another process has the directory open; the error names it.
	ErrLocked = errors.New("store: the directory is in use")
	// ErrNewer means that a newer version of the program wrote the file. It is left as it is.
	ErrNewer = errors.New("store: the file is of a newer version")
	// ErrFull means that an entry was not taken because the file would be too large.
	ErrFull = errors.New("store: too much to keep")
)

// A Store holds the entries in memory and writes them to its directory in Run, Flush and
// Close. All methods may be called at the same time. A nil Store forgets everything.
type Store struct {
	dir     string // "": memory only
	limit   int    // of the file, in bytes
	damaged error

	mu      sync.Mutex
	entries map[string]json.RawMessage
	size    int           // of the file that holds them
	changes uint64        // counted up by each
	changed chan struct{} // tells Run; holds one

	file    sync.Mutex // one writer at a time; guards what follows
	lock    *lock      // nil: closed
	written uint64     // the changes that the file holds
}

// Open makes dir (0700) unless it is there, locks it and reads its file; with an empty
// dir the entries live in memory only. A damaged file is set aside beside the new one and
// told by [Store.Damaged]. Errors: ErrLocked, ErrNewer, and what the system says of a
// directory that cannot be made, read or locked.
func Open(dir string) (*Store, error) { return openBounded(dir, maxSize) }

// openBounded is Open with another bound of the file in bytes.
func openBounded(dir string, limit int) (*Store, error) {
	s := &Store{
		dir: dir, limit: limit, entries: make(map[string]json.RawMessage), size: frameSize,
		changed: make(chan struct{}, 1),
	}
	if dir == "" {
		return s, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	l, err := newLock(dir)
	if err != nil {
		return nil, err
	}
	entries, damage, err := load(dir, limit)
	if err != nil {
		l.close()
		return nil, err
	}
	s.lock, s.damaged, s.entries = l, damage, entries
	for key, v := range entries {
		s.size += entrySize(key, v)
	}
	if damage != nil {
		s.noteChange() // what was saved of the damaged file goes to the new one
	}
	return s, nil
}

// Damaged returns what was wrong with the file that Open found, and where it lies now;
// nil: nothing was.
func (s *Store) Damaged() error {
	if s == nil {
		return nil
	}
	return s.damaged
}

// Get decodes the entry of key into what into points to. When the entry does not fit,
// found is true, err says why and into is as it was.
func (s *Store) Get(key string, into any) (found bool, err error) {
	if s == nil {
		return false, nil
	}
	s.mu.Lock()
	v, found := s.entries[key] // never changed in place
	s.mu.Unlock()
	if !found {
		return false, nil
	}
	to := reflect.ValueOf(into)
	if to.Kind() != reflect.Pointer || to.IsNil() {
		return true, fmt.Errorf("store: %s: cannot decode into %T", key, into)
	}
	fresh := reflect.New(to.Type().Elem()) // or an error would leave a mixture
	if err := json.Unmarshal(v, fresh.Interface()); err != nil {
		return true, fmt.Errorf("store: %s: %w", key, err)
	}
	to.Elem().Set(fresh.Elem())
	return true, nil
}

// Put keeps v, anything that encoding/json encodes, under key. On an error (a key that is
// empty, too long or not text, a value that does not encode, ErrFull) the entry is as it was.
func (s *Store) Put(key string, v any) error {
	if s == nil {
		return nil
	}
	if err := checkKey(key); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	text, err := encode(v)
	if err != nil {
		return fmt.Errorf("store: %s: %w", key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, found := s.entries[key]
	if found && bytes.Equal(old, text) {
		return nil
	}
	size := s.size + entrySize(key, text)
	if found {
		size -= entrySize(key, old)
	}
	if size > s.limit {
		return fmt.Errorf("%w: %s: %d bytes", ErrFull, key, len(text))
	}
	s.entries[key], s.size = text, size
	s.noteChange()
	return nil
}

// Delete forgets the entry of key, if there is one.
func (s *Store) Delete(key string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, found := s.entries[key]
	if !found {
		return
	}
	delete(s.entries, key)
	s.size -= entrySize(key, v)
	s.noteChange()
}

// Keys returns the keys of all entries, sorted.
func (s *Store) Keys() []string {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.entries))
}

// Run writes what changed, [Pace] after the first change, until ctx ends, and then the
// rest. failed is told once when writing begins to fail, and nil when it works again;
// meanwhile everything stays in memory and Run tries on.
func (s *Store) Run(ctx context.Context, failed func(error)) {
	if s == nil {
		<-ctx.Done()
		return
	}
	failing := false
	flush := func() {
		err := s.Flush()
		if (err != nil) != failing {
			failed(err)
		}
		failing = err != nil
	}
	for ctx.Err() == nil {
		if !failing {
			select {
			case <-ctx.Done():
			case <-s.changed:
			}
		}
		wait(ctx, Pace)
		flush()
	}
	flush() // what changed during the last one
}

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Flush writes the entries now if any changed since they were written.
func (s *Store) Flush() error {
	if s == nil || s.dir == "" {
		return nil
	}
	s.file.Lock()
	defer s.file.Unlock()
	return s.flush()
}

// flush is called with s.file held.
func (s *Store) flush() error {
	s.mu.Lock()
	entries, size, changes := maps.Clone(s.entries), s.size, s.changes
	s.mu.Unlock()
	if changes == s.written {
		return nil
	}
	if s.lock == nil {
		return fmt.Errorf("store: %s: %w", s.dir, fs.ErrClosed)
	}
	if err := s.relock(); err != nil {
		return err
	}
	if err := write(s.dir, appendFile(make([]byte, 0, size), entries)); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	s.written = changes
	return nil
}

// relock locks the directory again when its lock file was taken away, with or without
// the directory, so that there are never two who write.
func (s *Store) relock() error {
	if s.lock.holds(filepath.Join(s.dir, lockName)) {
		return nil
	}
	l, err := newLock(s.dir)
	if err != nil {
		return err
	}
	s.lock.close()
	s.lock = l
	return nil
}

// Close writes what changed and lets the directory go, also when writing fails. What is
// put later stays in memory.
func (s *Store) Close() error {
	if s == nil || s.dir == "" {
		return nil
	}
	s.file.Lock()
	defer s.file.Unlock()
	if s.lock == nil {
		return nil
	}
	err := s.flush()
	s.lock.close()
	s.lock = nil
	return err
}

// noteChange is called with s.mu held, or before anyone else knows s.
func (s *Store) noteChange() {
	s.changes++
	select {
	case s.changed <- struct{}{}:
	default: // Run knows already
	}
}

// checkKey says what is wrong with a key.
func checkKey(key string) error {
	switch {
	case key == "":
		return errors.New("an empty key")
	case len(key) > maxKey:
		return fmt.Errorf("a key of %d bytes, at most %d", len(key), maxKey)
	}
	for _, r := range key {
		if r < ' ' || r == '"' || r == '\\' || r == 0x7F || r == '\uFFFD' {
			return fmt.Errorf("key %q: control characters, quotes and backslashes are not allowed", key)
		}
	}
	return nil
}

// encode gives the entry as it stands in the file, on one line.
func encode(v any) (json.RawMessage, error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(text.Bytes(), "\n"), nil
}
