package kmp

import (
	"context"
	"encoding/binary"
	"fmt"
)

// LogRecordInfo says in bits what there is to know about [LogRecords].
type LogRecordInfo byte

// The bits of LogRecordInfo (5512-447 section 6.3).
const (
	RecordsEmpty      LogRecordInfo = 0x01 // the log has no records
	RecordsOutOfRange LogRecordInfo = 0x04 // no such record or time
	RecordsMaxLength  LogRecordInfo = 0x08 // MaxLength was reached: there is more
	RecordsEnd        LogRecordInfo = 0x10 // the end of the log was reached
)

var logRecordInfoNames = []string{"empty", 2: "out of range", "longest answer", "end"}

// String returns the names of the bits with commas between them, "" for none.
func (i LogRecordInfo) String() string { return bitNames(uint16(i), logRecordInfoNames) }

// LogTime is a time in a request for records, 8 bytes.
type LogTime struct {
	Date    Date // year 2000 to 2099
	Clock   Clock
	Weekday byte // 1 is Monday; captured requests have 0
	Info    byte // as on the wire; captured requests have 0
}

// LogRecordsRequest asks a logger for records (commands A0 to A3, 5512-447 section
// 6.3). The four commands differ in where the records begin.
type LogRecordsRequest struct {
	// Kind is the command: [CmdGetLogTimePresent] has the records from Time on,
	// [CmdGetLogLastPresent] those after the last one that was read and cleared
	// ([ClearEventStatusRequest]), [CmdGetLogIDPresent] those from Record on, all of
	// them towards the present; [CmdGetLogTimePast] has those before Time, Record
	// records further back, towards the past.
	Kind      Command
	LogID     byte     // 1 is the interval log
	IDs       []uint16 // 1 to 8 registers
	Records   byte     // at most
	MaxLength byte     // of the answer's application layer, in bytes; 80h is the document's example
	Time      LogTime  // A0 and A3
	Record    uint16   // A2: id of the first record; A3: offset in records
	// TimeReversed sends the time's bytes from the last to the first. The document's
	// text and a concentrator's firmware put the year first, its figures the year last.
	TimeReversed bool
}

// Command implements [Message].
func (q *LogRecordsRequest) Command() Command { return q.Kind }

// NewAnswer implements [Request].
func (q *LogRecordsRequest) NewAnswer() Answer { return &LogRecordsAnswer{Kind: q.Kind} }

// hasTime and hasRecord say what a kind of request ends with.
func (q *LogRecordsRequest) hasTime() bool {
	return q.Kind == CmdGetLogTimePresent || q.Kind == CmdGetLogTimePast
}

func (q *LogRecordsRequest) hasRecord() bool {
	return q.Kind == CmdGetLogIDPresent || q.Kind == CmdGetLogTimePast
}

// AppendData implements [Message]. A number of registers other than 1 to 8 and a time
// that is none are a *[RangeError], a Kind other than A0 to A3 wraps [ErrUnknownCommand].
func (q *LogRecordsRequest) AppendData(dst []byte) ([]byte, error) {
	if err := logKind(q.Kind); err != nil {
		return dst, err
	}
	if err := inRange("number of registers", len(q.IDs), 1, MaxRegisters); err != nil {
		return dst, err
	}
	start := len(dst)
	dst = append(appendIDs(append(dst, q.LogID), q.IDs), q.Records, q.MaxLength)
	if q.hasTime() {
		t, err := q.Time.bytes(q.TimeReversed)
		if err != nil {
			return dst[:start], err
		}
		dst = append(dst, t[:]...)
	}
	if q.hasRecord() {
		dst = binary.BigEndian.AppendUint16(dst, q.Record)
	}
	return dst, nil
}

// logKind checks that a command is one of A0 to A3.
func logKind(cmd Command) error {
	if cmd >= CmdGetLogTimePresent && cmd <= CmdGetLogTimePast {
		return nil
	}
	return &contextError{"request for records", fmt.Errorf("%w: %s", ErrUnknownCommand, cmd)}
}

// DecodeData implements [Message] for a request whose Kind is set. It reuses the
// memory of IDs. A time that makes sense only from its end is TimeReversed.
func (q *LogRecordsRequest) DecodeData(data []byte) error {
	if err := logKind(q.Kind); err != nil {
		return dataError(-1, err)
	}
	if len(data) < 2 {
		return dataError(len(data), &LengthError{"request for records", 2, len(data), true})
	}
	n := int(data[1])
	if err := inRange("number of registers", n, 1, MaxRegisters); err != nil {
		return dataError(1, err)
	}
	at := 2 + 2*n // of what follows the ids
	want := at + 2
	if q.hasTime() {
		want += 8
	}
	if q.hasRecord() {
		want += 2
	}
	if err := exactly("request for records", data, want); err != nil {
		return err
	}
	ids, err := decodeIDs("request for records", data[:at], 1, q.IDs)
	if err != nil {
		return err
	}
	got := LogRecordsRequest{Kind: q.Kind, LogID: data[0], IDs: ids, Records: data[at], MaxLength: data[at+1]}
	if q.hasTime() {
		if got.Time, got.TimeReversed, err = decodeLogTime([8]byte(data[at+2:])); err != nil {
			return dataError(at+2, err)
		}
	}
	if q.hasRecord() {
		got.Record = binary.BigEndian.Uint16(data[want-2:])
	}
	*q = got
	return nil
}

// bytes returns [YY][MM][DD][hh][mm][ss][weekday][info], or the reverse.
func (t LogTime) bytes(reversed bool) ([8]byte, error) {
	if err := t.check(); err != nil {
		return [8]byte{}, err
	}
	d, c := t.Date, t.Clock
	b := [8]byte{byte(d.Year - 2000), byte(d.Month), byte(d.Day), byte(c.Hour), byte(c.Minute), byte(c.Second), t.Weekday, t.Info}
	if reversed {
		b = turned(b)
	}
	return b, nil
}

func (t LogTime) check() error {
	if err := inRange("year", t.Date.Year, 2000, 2099); err != nil {
		return err
	}
	if err := t.Date.check(); err != nil {
		return err
	}
	return t.Clock.check()
}

// decodeLogTime decodes a time, the year first when that is possible.
func decodeLogTime(b [8]byte) (t LogTime, reversed bool, err error) {
	if t = logTimeOf(b); t.check() == nil {
		return t, false, nil
	}
	if t := logTimeOf(turned(b)); t.check() == nil {
		return t, true, nil
	}
	return LogTime{}, false, t.check()
}

func logTimeOf(b [8]byte) LogTime {
	return LogTime{Date{2000 + int(b[0]), int(b[1]), int(b[2])}, Clock{int(b[3]), int(b[4]), int(b[5])}, b[6], b[7]}
}

func turned(b [8]byte) [8]byte {
	return [8]byte{b[7], b[6], b[5], b[4], b[3], b[2], b[1], b[0]}
}

// check refuses records that were not asked for.
func (q *LogRecordsRequest) check(a Answer) error {
	answer, ok := a.(*LogRecordsAnswer)
	if !ok {
		return nil
	}
	if len(answer.Rows) == 0 && answer.Rest != nil {
		return nil // says nothing but its INFO
	}
	if answer.LogID != q.LogID {
		return fmt.Errorf("%w: records of log %d", ErrForeign, answer.LogID)
	}
	if len(answer.Rows) == 0 {
		return nil
	}
	if n := len(answer.Rows); n > int(q.Records) {
		return fmt.Errorf("%w: %d records", ErrForeign, n)
	}
	// A record that is missing is answered with the one after it. Ids go on with 0
	// after FFFF.
	if first := uint16(answer.Rows[0].ID); q.Kind == CmdGetLogIDPresent && int16(first-q.Record) < 0 {
		return fmt.Errorf("%w: records from %d on", ErrForeign, first)
	}
	return checkIDs(q.IDs, answer.Rows[0].Registers)
}

// LogRecords is a part of a logger's log: rows ascend in answers to A0, A1 and A2
// and descend in those to A3.
type LogRecords struct {
	LogID    byte
	LastRead uint16 // LRORecID: the record that CmdGetLogLastPresent begins after
	Newest   uint16 // id of the newest record
	Info     LogRecordInfo
	Rows     []LogRow // ids have 16 bits
	// Rest is not nil when the answer, having bits of Info set, is not of the usual
	// form: it is what stands between the rows that are whole, or the command when
	// there are none, and Info. LastRead and Newest are not known then, nor is LogID
	// without rows.
	Rest []byte
}

// LogRecordsAnswer is the answer to [LogRecordsRequest].
type LogRecordsAnswer struct {
	Kind Command // A0 to A3
	LogRecords
}

// Command implements [Message].
func (a *LogRecordsAnswer) Command() Command { return a.Kind }

// NewRequest implements [Answer].
func (a *LogRecordsAnswer) NewRequest() Request { return &LogRecordsRequest{Kind: a.Kind} }

// The lengths of what stands before the rows, after them and in each.
const (
	logRecordsHead = 2 // log, number of registers
	logRecordsTail = 5 // last read, newest, info
	recordID       = 2 // before each row's values
)

// AppendData implements [Message]. Row ids beyond 16 bits and more than eight
// registers are a *[RangeError], values that have not the first row's width a
// *[LengthError], another unit or SiEx than there a *[FormatError], a Kind other than
// A0 to A3 wraps [ErrUnknownCommand].
func (a *LogRecordsAnswer) AppendData(dst []byte) ([]byte, error) {
	if err := logKind(a.Kind); err != nil {
		return dst, err
	}
	if len(a.Rows) == 0 && a.Rest != nil {
		return append(append(dst, a.Rest...), byte(a.Info)), nil
	}
	var format []Register
	if len(a.Rows) > 0 {
		format = a.Rows[0].Registers
		if err := inRange("number of registers", len(format), 1, MaxRegisters); err != nil {
			return dst, err
		}
	}
	start := len(dst)
	dst = append(dst, a.LogID, byte(len(format)))
	for i, r := range a.Rows {
		if r.ID > 0xFFFF {
			return dst[:start], &RangeError{What: "id of a record", Got: int64(r.ID), Max: 0xFFFF}
		}
		dst = binary.BigEndian.AppendUint16(dst, uint16(r.ID))
		var err error
		if dst, err = appendRow(dst, i == 0, format, r.Registers); err != nil {
			return dst[:start], err
		}
	}
	if a.Rest != nil {
		return append(append(dst, a.Rest...), byte(a.Info)), nil
	}
	dst = binary.BigEndian.AppendUint16(dst, a.LastRead)
	dst = binary.BigEndian.AppendUint16(dst, a.Newest)
	return append(dst, byte(a.Info)), nil
}

// DecodeData implements [Message] for an answer whose Kind is set. It reuses the
// memory of Rows; values are parts of data.
func (a *LogRecordsAnswer) DecodeData(data []byte) error {
	if err := logKind(a.Kind); err != nil {
		return dataError(-1, err)
	}
	if len(data) == 0 {
		return dataError(0, &LengthError{"records", 1, 0, true})
	}
	info := LogRecordInfo(data[len(data)-1])
	got, err := decodeRecords(data, a.Rows[:0])
	switch {
	case info == 0 && err != nil:
		return err
	case info != 0 && (err != nil || a.inRow(got.Rows) < len(got.Rows)):
		got = a.whole(data)
	}
	got.Info = info
	a.LogRecords = got
	return nil
}

// decodeRecords decodes an answer of the usual form into the memory of rows.
func decodeRecords(data []byte, rows []LogRow) (LogRecords, error) {
	if least := logRecordsHead + logRecordsTail; len(data) < least {
		return LogRecords{}, dataError(len(data), &LengthError{"records", least, len(data), true})
	}
	end := len(data) - logRecordsTail
	rows, at, err := decodeRecordRows(data[:end], rows)
	if err != nil {
		return LogRecords{}, err
	}
	if at < end {
		return LogRecords{}, dataError(end, &LengthError{What: "records", Want: at + logRecordsTail, Got: len(data)})
	}
	return LogRecords{
		LogID:    data[0],
		LastRead: binary.BigEndian.Uint16(data[end:]),
		Newest:   binary.BigEndian.Uint16(data[end+2:]),
		Rows:     rows,
	}, nil
}

// inRow returns how many rows have the id after that of the row before.
func (a *LogRecordsAnswer) inRow(rows []LogRow) int {
	step := uint16(1)
	if a.Kind == CmdGetLogTimePast {
		step = 0xFFFF // ids descend
	}
	for i := 1; i < len(rows); i++ {
		if uint16(rows[i].ID) != uint16(rows[i-1].ID)+step {
			return i
		}
	}
	return len(rows)
}

// whole takes the rows that are whole from an answer of another form. Four bytes
// before INFO may be the usual end and are not taken for values; an id that does not
// follow the one before is none.
func (a *LogRecordsAnswer) whole(data []byte) LogRecords {
	end := len(data) - 1
	rest := LogRecords{Rows: a.Rows[:0], Rest: data[:end:end]}
	if len(data) < logRecordsHead+logRecordsTail {
		return rest
	}
	rows, at, err := decodeRecordRows(data[:len(data)-logRecordsTail], a.Rows[:0])
	if err != nil || len(rows) == 0 {
		return rest
	}
	n := a.inRow(rows)
	at -= (len(rows) - n) * (recordID + rowWidth(rows[0].Registers))
	return LogRecords{LogID: data[0], Rows: rows[:n], Rest: data[at:end:end]}
}

// decodeRecordRows decodes as many rows as data, which begins with log and number of
// registers, has whole, and says where they end.
func decodeRecordRows(data []byte, rows []LogRow) ([]LogRow, int, error) {
	n := int(data[1])
	at := logRecordsHead
	if n == 0 && at == len(data) {
		return rows, at, nil
	}
	if err := inRange("number of registers", n, 1, MaxRegisters); err != nil {
		return nil, 0, dataError(1, err)
	}
	if len(data) < at+recordID {
		return nil, 0, dataError(len(data), &LengthError{"record", recordID, len(data) - at, true})
	}
	var registers [MaxRegisters]Register
	format := registers[:n]
	end, err := decodeFirstRow(format, data, at+recordID)
	if err != nil {
		return nil, 0, err
	}
	width := recordID + rowWidth(format)
	if width == recordID {
		return nil, 0, dataError(end, &LengthError{"row", 1, 0, true})
	}
	more := (len(data) - end) / width
	rows = appendRows(rows, format, data[end:], 1+more, recordID)
	rows[0].ID = uint32(binary.BigEndian.Uint16(data[at:]))
	for i := range more {
		rows[1+i].ID = uint32(binary.BigEndian.Uint16(data[end+i*width:]))
	}
	return rows, end + more*width, nil
}

// LogRecords reads records of a logger, [LoggerTop] or [LoggerBase], in one request.
// Errors are those of [Conn.Do].
func (c *Conn) LogRecords(ctx context.Context, addr Address, q LogRecordsRequest) (LogRecords, error) {
	a := LogRecordsAnswer{Kind: q.Kind}
	if err := c.Do(ctx, addr, &q, &a); err != nil {
		return LogRecords{}, err
	}
	return a.LogRecords, nil
}
