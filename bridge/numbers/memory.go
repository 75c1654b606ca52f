package numbers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"time"

	"kmp2mqtt/kmp"
)

// State is what is remembered of one meter. The zero value knows nothing. It is JSON
// with a checksum, so that a damaged file is noticed and never becomes a value, and
// bounded in size. A copy shares what it remembers.
type State struct {
	m *memory
}

// memory is the content of a [State].
type memory struct {
	Counters map[string]counter `json:"counters,omitempty"` // by key
	Unknown  map[string]string  `json:"unknown,omitempty"`  // key to reason, as long as it lasts
	Nominal  []kmp.Decimal      `json:"nominal,omitempty"`  // the last two nominal flows, m³/h
	Info     map[uint16]uint64  `json:"info,omitempty"`     // by register
	Fine     map[string]fusion  `json:"fine,omitempty"`     // by name of the derived number
	Last     *snapshot          `json:"last,omitempty"`
	Day      anchor             `json:"day"`
	Month    anchor             `json:"month"`
	Power    powerCheck         `json:"power"`
	Derived  []string           `json:"derived,omitempty"` // keys that were published
}

// Bounds of a state: a meter has a few dozen keys; a line that brings nonsense with
// checksums that fit must not grow the program.
const (
	maxKeys   = 256
	maxKey    = 100 // characters
	maxReason = 200
	maxDigits = 40 // of a number
)

// ErrDamaged says that a state is not what was written. Nothing of it may be used.
var ErrDamaged = errors.New("numbers: damaged state")

// memory returns what is remembered, to be changed.
func (s *State) memory() *memory {
	if s.m == nil {
		s.m = &memory{}
	}
	if s.m.Counters == nil {
		s.m.Counters = map[string]counter{}
	}
	if s.m.Unknown == nil {
		s.m.Unknown = map[string]string{}
	}
	if s.m.Info == nil {
		s.m.Info = map[uint16]uint64{}
	}
	if s.m.Fine == nil {
		s.m.Fine = map[string]fusion{}
	}
	return s.m
}

// envelope is a state in a file.
type envelope struct {
	Sum    string  `json:"sum"` // CRC-32 of the memory as this package writes it
	Memory *memory `json:"memory"`
}

// MarshalJSON implements [json.Marshaler].
func (s State) MarshalJSON() ([]byte, error) {
	m := s.memory()
	sum, err := m.sum()
	if err != nil {
		return nil, fmt.Errorf("numbers: %w", err)
	}
	return json.Marshal(envelope{sum, m})
}

// UnmarshalJSON implements [json.Unmarshaler]. A state that is not sound leaves s as it
// was; the error wraps [ErrDamaged].
func (s *State) UnmarshalJSON(data []byte) error {
	var e envelope
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&e); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if e.Memory == nil {
		return fmt.Errorf("%w: it is empty", ErrDamaged)
	}
	if err := e.Memory.check(); err != nil {
		return err
	}
	sum, err := e.Memory.sum()
	if err != nil || sum != e.Sum {
		return fmt.Errorf("%w: the checksum does not fit", ErrDamaged)
	}
	s.m = e.Memory
	return nil
}

// sum is the checksum of the memory.
func (m *memory) sum() (string, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%08x", crc32.ChecksumIEEE(data)), nil
}

// Check tells whether a state is sound. One that [State.UnmarshalJSON] accepted is.
// The error wraps [ErrDamaged].
func (s State) Check() error {
	if s.m == nil {
		return nil
	}
	return s.m.check()
}

func (m *memory) check() error {
	damaged := func(what, key string) error { return fmt.Errorf("%w: %s %.40q", ErrDamaged, what, key) }
	if len(m.Counters) > maxKeys || len(m.Unknown) > maxKeys || len(m.Info) > len(infoRegisters) ||
		len(m.Nominal) > 2 || len(m.Fine) > len(pairs) || len(m.Derived) > maxKeys {
		return damaged("too much of", "everything")
	}
	for key, c := range m.Counters {
		if !isKey(key) || !c.sound() {
			return damaged("counter", key)
		}
	}
	for key, reason := range m.Unknown {
		if !isKey(key) || len(reason) > maxReason {
			return damaged("unknown", key)
		}
	}
	for _, d := range m.Nominal {
		if !soundNumber(d) {
			return damaged("nominal flow", d.String())
		}
	}
	for id := range m.Info {
		if !slices.Contains(infoRegisters, id) {
			return damaged("info register", fmt.Sprint(id))
		}
	}
	for name, f := range m.Fine {
		if !slices.ContainsFunc(pairs, func(p pair) bool { return p.name == name }) || !f.sound() {
			return damaged("fine counter", name)
		}
	}
	if !m.Last.sound() || !m.Day.sound() || !m.Month.sound() {
		return damaged("snapshot of", "volumes")
	}
	if m.Power.Count < 0 || m.Power.Count > enough {
		return damaged("count of", "power")
	}
	for _, key := range m.Derived {
		if !isKey(key) {
			return damaged("derived", key)
		}
	}
	return nil
}

// isKey tells whether s may be a key of a meter's state.
func isKey(s string) bool {
	return s != "" && len(s) <= maxKey && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// soundNumber tells whether a remembered number is of a size that registers have.
func soundNumber(d kmp.Decimal) bool { return len(d.String()) <= maxDigits }

// lastSecond is the end of the year 9999: no moment is later.
const lastSecond = 253402300799

// second is a moment in seconds since 1970, never before that or after lastSecond,
// whatever the clock says.
func second(t time.Time) int64 { return min(max(0, t.Unix()), lastSecond) }

func soundTime(t int64) bool { return t >= 0 && t <= lastSecond }
