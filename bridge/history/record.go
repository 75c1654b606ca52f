package history

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/logbook"
)

// version is the form of the records. A change that older programs would misread counts it up.
const version = 1

// A record is a key and a value in the file's only bucket. The key begins with its kind;
// the value begins with the CRC-32 (IEEE) of key and payload, which follows. Records stand
// for themselves: those that are found in what is left of a file can be used. Numbers have
// their most significant byte first. Nothing is ever deleted.
//
//	v                                        version: uint32
//	l [n serial] log                         log: generation uint16, known byte, last id uint32
//	n [n serial]                             name: transaction uint64, text
//	p [n serial] log generation2 consumer    position: transaction uint64, id uint32
//	r [n serial] log generation2 id4         row
//
// The transaction is the one that wrote the record: of two of the same key in a damaged
// file the later one counts. The generation counts how often the ids of a log began anew.
const (
	kindVersion  = 'v'
	kindLog      = 'l'
	kindName     = 'n'
	kindPosition = 'p'
	kindRow      = 'r'
)

// errRecord means that a record is not what was written.
var errRecord = errors.New("a damaged record")

// key is what a record's key says.
type key struct {
	kind       byte
	serial     string
	log        kmp.LogType
	generation uint16
	id         uint32
	consumer   string
}

func appendSerial(b []byte, serial string) []byte {
	return append(append(b, byte(len(serial))), serial...)
}

func versionKey() []byte { return []byte{kindVersion} }

func logKey(serial string, log kmp.LogType) []byte {
	return logPrefix(kindLog, serial, log)
}

func nameKey(serial string) []byte { return appendSerial([]byte{kindName}, serial) }

// logPrefix is what the keys of a kind begin with that belong to a log.
func logPrefix(kind byte, serial string, log kmp.LogType) []byte {
	return append(appendSerial([]byte{kind}, serial), byte(log))
}

// generationKey is what the keys of a kind begin with that belong to a generation of a log.
func generationKey(kind byte, serial string, log kmp.LogType, generation uint16) []byte {
	return binary.BigEndian.AppendUint16(logPrefix(kind, serial, log), generation)
}

func positionKey(consumer, serial string, log kmp.LogType, generation uint16) []byte {
	return append(generationKey(kindPosition, serial, log, generation), consumer...)
}

func rowKey(serial string, log kmp.LogType, generation uint16, id uint32) []byte {
	return binary.BigEndian.AppendUint32(generationKey(kindRow, serial, log, generation), id)
}

// parseKey takes a key apart.
func parseKey(b []byte) (k key, err error) {
	c := cutter{b: b}
	k.kind = c.byte()
	if k.kind != kindVersion {
		k.serial = string(c.cut(int(c.byte())))
	}
	switch k.kind {
	case kindVersion, kindName:
	case kindLog:
		k.log = kmp.LogType(c.byte())
	case kindPosition:
		k.log, k.generation = kmp.LogType(c.byte()), c.uint16()
		k.consumer = string(c.rest())
	case kindRow:
		k.log, k.generation, k.id = kmp.LogType(c.byte()), c.uint16(), c.uint32()
	default:
		return key{}, errRecord
	}
	return k, c.end()
}

// seal gives the value of a record.
func seal(key, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(payload)), checksum(key, payload))
	return append(b, payload...)
}

// unseal gives the payload of a record; it is a part of value.
func unseal(key, value []byte) ([]byte, error) {
	if len(value) < 4 || binary.BigEndian.Uint32(value) != checksum(key, value[4:]) {
		return nil, errRecord
	}
	return value[4:], nil
}

func checksum(key, payload []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE(key), crc32.IEEETable, payload)
}

// decodeVersion returns the version of the records: ErrNewer if that is not known here.
func decodeVersion(b []byte) (uint32, error) {
	c := cutter{b: b}
	v := c.uint32()
	if err := c.end(); err != nil || v == 0 {
		return 0, errRecord
	}
	if v > version {
		return v, fmt.Errorf("%w: version %d, this program knows %d", ErrNewer, v, version)
	}
	return v, nil
}

// logState is the state of a log.
type logState struct {
	generation uint16
	known      bool   // rows were read up to last, without a hole that the meter could fill
	last       uint32 // the highest id
}

func appendLogState(b []byte, s logState) []byte {
	b = binary.BigEndian.AppendUint16(b, s.generation)
	b = append(b, flag(s.known, 1))
	return binary.BigEndian.AppendUint32(b, s.last)
}

func decodeLogState(b []byte) (s logState, err error) {
	c := cutter{b: b}
	s = logState{c.uint16(), c.byte() != 0, c.uint32()}
	return s, c.end()
}

func appendPosition(b []byte, tx uint64, id uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, tx), id)
}

func decodePosition(b []byte) (id uint32, err error) {
	c := cutter{b: b}
	c.cut(8)
	id = c.uint32()
	return id, c.end()
}

func appendName(b []byte, tx uint64, name string) []byte {
	return append(binary.BigEndian.AppendUint64(b, tx), name...)
}

func decodeName(b []byte) (name string, err error) {
	c := cutter{b: b}
	c.cut(8)
	name = string(c.rest())
	return name, c.end()
}

// Bits of the first byte of a row.
const (
	hasTime   = 1 << iota // seconds since 1970 (varint), nanoseconds (uvarint) and the offset from UTC in seconds (varint) follow
	corrected             // the correction in nanoseconds (varint) follows
)

// maxRow is the longest payload of a row in bytes: some thousand registers.
const maxRow = 32 << 10

// encodeRow gives the payload of a row: all but the log and the id, which the key has.
// The registers stand as on the wire, in the answer to GetRegister (5512-447 section
// 6.2.4), but as many as there are. A value of more than 255 bytes and a row of more
// than maxRow are errors.
func encodeRow(row logbook.Row) ([]byte, error) {
	b := []byte{flag(!row.Time.IsZero(), hasTime) | flag(row.Corrected, corrected)}
	if !row.Time.IsZero() {
		_, offset := row.Time.Zone()
		b = binary.AppendVarint(b, row.Time.Unix())
		b = binary.AppendUvarint(b, uint64(row.Time.Nanosecond()))
		b = binary.AppendVarint(b, int64(offset))
	}
	if row.Corrected {
		b = binary.AppendVarint(b, int64(row.Correction))
	}
	for _, r := range row.Registers {
		if len(r.Raw) > 0xFF {
			return nil, fmt.Errorf("history: %s log, row %d, register %d: %d bytes, at most 255", row.Log, row.ID, r.ID, len(r.Raw))
		}
		b = binary.BigEndian.AppendUint16(b, r.ID)
		b = append(b, byte(r.Unit), byte(len(r.Raw)), r.SiEx)
		b = append(b, r.Raw...)
	}
	if len(b) > maxRow {
		return nil, fmt.Errorf("history: %s log, row %d: %d bytes, at most %d", row.Log, row.ID, len(b), maxRow)
	}
	return b, nil
}

// decodeRow is the reverse of encodeRow. The row has its own memory.
func decodeRow(log kmp.LogType, id uint32, payload []byte) (logbook.Row, error) {
	row := logbook.Row{Log: log, ID: id}
	c := cutter{b: payload}
	flags := c.byte()
	if flags&hasTime != 0 {
		seconds, nanoseconds, offset := c.varint(), c.uvarint(), c.varint()
		if nanoseconds >= uint64(time.Second) || offset <= -maxOffset || offset >= maxOffset {
			return logbook.Row{}, errRecord
		}
		row.Time = time.Unix(seconds, int64(nanoseconds)).In(time.FixedZone("", int(offset)))
	}
	if flags&corrected != 0 {
		row.Corrected, row.Correction = true, time.Duration(c.varint())
	}
	if c.failed || flags&^(hasTime|corrected) != 0 || flags&hasTime != 0 && row.Time.IsZero() {
		return logbook.Row{}, errRecord
	}
	var a kmp.GetRegisterAnswer
	if err := a.DecodeData(bytes.Clone(c.rest())); err != nil {
		return logbook.Row{}, errRecord
	}
	row.Registers = a.Registers
	return row, nil
}

// maxOffset bounds the offset of a time from UTC, in seconds.
const maxOffset = 48 * 60 * 60

// flag is f if on.
func flag(on bool, f byte) byte {
	if on {
		return f
	}
	return 0
}

// cutter takes bytes apart. When there are too few, what it returns is zero and it has failed.
type cutter struct {
	b      []byte
	failed bool
}

func (c *cutter) cut(n int) []byte {
	if n > len(c.b) {
		c.failed, c.b = true, nil
		return make([]byte, min(n, 0xFF))
	}
	b := c.b[:n]
	c.b = c.b[n:]
	return b
}

func (c *cutter) byte() byte     { return c.cut(1)[0] }
func (c *cutter) uint16() uint16 { return binary.BigEndian.Uint16(c.cut(2)) }
func (c *cutter) uint32() uint32 { return binary.BigEndian.Uint32(c.cut(4)) }
func (c *cutter) rest() []byte   { return c.cut(len(c.b)) }

func (c *cutter) varint() int64 {
	v, n := binary.Varint(c.b)
	c.cut(c.size(n))
	return v
}

func (c *cutter) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	c.cut(c.size(n))
	return v
}

// size is n, the size of a varint, or more than there is when it is none.
func (c *cutter) size(n int) int {
	if n <= 0 {
		return len(c.b) + 1
	}
	return n
}

// end returns an error unless everything was cut, and no more.
func (c *cutter) end() error {
	if c.failed || len(c.b) > 0 {
		return errRecord
	}
	return nil
}
