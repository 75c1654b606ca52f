package store

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The files of a data directory.
const (
	fileName  = "kmp2mqtt.json"
	tempName  = "kmp2mqtt.json.tmp" // being written; one writer holds the lock, so one name will do
	lockName  = "kmp2mqtt.lock"
	asideName = "kmp2mqtt.json.damaged-" // and the time, as asideTime says
	asideTime = "20060102T150405.000Z"
)

// maxSize is the largest file in bytes that is written or read.
const maxSize = 64 << 20

// version is the form of the file. A change that older programs would misread counts it up.
const version = 1

// The file is JSON for people: one entry begins on a line of its own, four columns in.
// That also lets the sound entries be told apart in a file that is damaged.
const (
	fileHead  = "{\n  \"version\": 1,\n  \"entries\": {"
	entryHead = "\n    \""
	entryMid  = "\": "
	fileTail  = "\n  }\n}\n"
)

// frameSize is the size of a file without entries, in bytes.
const frameSize = len(fileHead) + len(fileTail)

// entrySize is what one entry adds to the file, in bytes, with the comma.
func entrySize(key string, v json.RawMessage) int {
	return len(entryHead) + len(key) + len(entryMid) + len(v) + 1
}

// appendFile appends the file that holds the entries, sorted by key.
func appendFile(b []byte, entries map[string]json.RawMessage) []byte {
	b = append(b, fileHead...)
	for i, key := range slices.Sorted(maps.Keys(entries)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, entryHead...)
		b = append(b, key...) // holds nothing that JSON escapes: checkKey
		b = append(b, entryMid...)
		b = append(b, entries[key]...)
	}
	return append(b, fileTail...)
}

// load reads the file of dir. A file that is damaged is set aside: damage says why and
// where, and entries are those that could be saved. Without a file there are none.
func load(dir string, limit int) (entries map[string]json.RawMessage, damage, err error) {
	name := filepath.Join(dir, fileName)
	b, err := read(name, limit)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return make(map[string]json.RawMessage), nil, nil
	case errors.Is(err, fs.ErrPermission):
		return nil, nil, fmt.Errorf("store: %w", err)
	case err == nil:
		entries, err = parse(b)
	}
	if err == nil {
		return entries, nil, nil
	}
	if errors.Is(err, ErrNewer) {
		return nil, nil, fmt.Errorf("%w: %s", err, name)
	}
	if entries == nil {
		entries = salvage(b)
	}
	aside := filepath.Join(dir, asideName+time.Now().UTC().Format(asideTime))
	if e := os.Rename(name, aside); e != nil {
		aside = fmt.Sprintf("its place (%v)", e)
	}
	return entries, fmt.Errorf("store: %s is damaged: %w; kept as %s; entries saved: %d", name, err, aside, len(entries)), nil
}

// read returns a regular file of at most limit bytes.
func read(name string, limit int) ([]byte, error) {
	info, err := os.Stat(name) // before it is opened: a pipe would wait for a writer
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a file")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(b) > limit {
		return nil, fmt.Errorf("more than %d bytes", limit)
	}
	return b, err
}

// parse decodes a file. With an error, entries are the sound ones of a file that is
// otherwise whole, or nil.
func parse(b []byte) (entries map[string]json.RawMessage, err error) {
	var file struct {
		Version json.Number     `json:"version"`
		Entries json.RawMessage `json:"entries"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, err
	}
	switch n, err := file.Version.Int64(); {
	case err != nil || n < version:
		return nil, fmt.Errorf("not a file of this program: version %q", file.Version.String())
	case n > version:
		return nil, fmt.Errorf("%w: version %d, this program knows %d", ErrNewer, n, version)
	}
	if err := json.Unmarshal(file.Entries, &entries); err != nil {
		return nil, fmt.Errorf("entries: %w", err)
	}
	if entries == nil {
		return nil, errors.New("entries: null")
	}
	var bad []error
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		if err := checkKey(key); err != nil {
			bad = append(bad, err)
			delete(entries, key)
		}
	}
	return entries, errors.Join(bad...)
}

// salvage finds the sound entries in what is left of a file that this program wrote.
func salvage(b []byte) map[string]json.RawMessage {
	entries := make(map[string]json.RawMessage)
	rest, ours := bytes.CutPrefix(b, []byte(fileHead))
	if !ours {
		return entries
	}
	for part := range bytes.SplitSeq(rest, []byte(entryHead)) {
		// The end must be there, too: half a number looks like a number.
		part, ended := cutEnd(part)
		key, v, found := bytes.Cut(part, []byte(entryMid))
		if ended && found && checkKey(string(key)) == nil && json.Valid(v) {
			entries[string(key)] = bytes.Clone(bytes.TrimSpace(v))
		}
	}
	return entries
}

// cutEnd returns an entry without what follows it in the file.
func cutEnd(part []byte) (before []byte, found bool) {
	if before, found = bytes.CutSuffix(bytes.TrimRight(part, " \n"), []byte(",")); found {
		return before, true
	}
	return bytes.CutSuffix(part, []byte(fileTail))
}

// write replaces the file of dir. After a crash at any moment the file is the old one or
// the new one, whole.
func write(dir string, b []byte) error {
	temp := filepath.Join(dir, tempName)
	err := writeSynced(temp, b)
	if err == nil {
		err = os.Rename(temp, filepath.Join(dir, fileName))
	}
	if err != nil {
		_ = os.Remove(temp) // gives a full disk its space back; the first error is the one to tell
		return err
	}
	return syncDir(dir)
}

// writeSynced writes a file that only its owner may read, down to the disk.
func writeSynced(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// whoami is what the lock file says of the process that holds it.
func whoami() string {
	host, err := os.Hostname()
	if err != nil {
		host = "this computer"
	}
	return fmt.Sprintf("process %d on %s\n", os.Getpid(), host)
}

// lockedBy is ErrLocked with what the lock file says.
func lockedBy(name string) error {
	who := "another process"
	if f, err := os.Open(name); err == nil {
		defer f.Close()
		line, _ := bufio.NewReader(io.LimitReader(f, 256)).ReadString('\n') // what there is
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "process ") && checkKey(line) == nil {
			who = line
		}
	}
	return fmt.Errorf("%w: %s, by %s", ErrLocked, filepath.Dir(name), who)
}
