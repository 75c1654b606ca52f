package kmp

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
)

// The logger command B8 has a sub-command as the first byte of its data. Kamstrup
// has published nothing about it: the layouts are those of jktjkt's PyKMP, which
// reads MULTICAL 303 and 603 by them, and agree with that program's captures.

// LogCommand is the sub-command of [CmdLogger].
type LogCommand byte

// The sub-commands that are known. The layouts of the last two are not: they are
// refused with [ErrUnknownLayout].
const (
	LogGetConfig     LogCommand = 0x05 // GetConfiguration
	LogGetByID       LogCommand = 0x06 // GetLogIDPastAbs
	LogGetLast       LogCommand = 0x07 // GetLogLastEntryPastAbs
	LogGetID         LogCommand = 0x08 // GetLogID
	LogGetNextFormat LogCommand = 0x09 // GetLogNextFormat
)

// String returns the sub-command's name, or its number.
func (c LogCommand) String() string {
	switch c {
	case LogGetConfig:
		return "GetConfiguration"
	case LogGetByID:
		return "GetLogIDPastAbs"
	case LogGetLast:
		return "GetLogLastEntryPastAbs"
	case LogGetID:
		return "GetLogID"
	case LogGetNextFormat:
		return "GetLogNextFormat"
	}
	return fmt.Sprintf("sub-command %02X", byte(c))
}

// NewLogRequest returns an empty request of a logger sub-command, to be decoded
// into. A sub-command that is known by name alone gives an error that wraps
// [ErrUnknownLayout], any other one that wraps [ErrUnknownCommand].
func NewLogRequest(sub LogCommand) (Request, error) {
	switch sub {
	case LogGetConfig:
		return new(LogConfigRequest), nil
	case LogGetByID:
		return new(LogByIDRequest), nil
	case LogGetLast:
		return new(LogLastRequest), nil
	case LogGetID, LogGetNextFormat:
		return nil, fmt.Errorf("%w: %s %s", ErrUnknownLayout, CmdLogger, sub)
	}
	return nil, fmt.Errorf("%w: %s %s", ErrUnknownCommand, CmdLogger, sub)
}

// newLogRequest is NewLogRequest for a command's data, whose first byte decides.
func newLogRequest(data []byte) (Request, error) {
	if len(data) == 0 {
		return nil, dataError(0, &LengthError{"Logger message", 2, 0, true})
	}
	req, err := NewLogRequest(LogCommand(data[0]))
	if err != nil {
		return nil, dataError(0, err)
	}
	return req, nil
}

// LogType is one of a meter's logs, as [CmdLogger] numbers them.
type LogType byte

// The logs of a meter. Which ones it has depends on the model.
const (
	LogConfiguration   LogType = 0 // what was changed in the configuration
	LogInfoCodes       LogType = 1 // when an info code came and went
	LogYear            LogType = 2
	LogMonth           LogType = 3
	LogDay             LogType = 4
	LogHour            LogType = 5
	LogMinute          LogType = 6 // the interval is set in the meter
	LogMinute2         LogType = 7 // another one, as LogMinute
	LogDownload        LogType = 8 // software downloads that succeeded
	LogDownloadAudited LogType = 9 // every software download
)

var logTypeNames = [...]string{"config", "info", "year", "month", "day", "hour", "minute", "minute2", "download", "audit"}

// String returns a lower-case word such as "hour", or "log 10" when it has no name.
func (l LogType) String() string {
	if int(l) < len(logTypeNames) {
		return logTypeNames[l]
	}
	return fmt.Sprintf("log %d", byte(l))
}

// ParseLogType returns the log of a name that [LogType.String] gives; ok is false
// for any other text.
func ParseLogType(name string) (l LogType, ok bool) {
	for i, n := range logTypeNames {
		if n == name {
			return LogType(i), true
		}
	}
	return 0, false
}

// LogInfo says in bits what there is to know about a [LogPage].
type LogInfo uint16

// The bits of LogInfo (jktjkt's PyKMP; a concentrator's firmware).
const (
	LogEmpty           LogInfo = 0x0001 // the log has no rows; see LogPage.Rows
	LogOutOfRange      LogInfo = 0x0002 // no such id
	LogIntervalChanged LogInfo = 0x0004 // electricity meters: the interval is another one from here on
	LogUnsupported     LogInfo = 0x0008 // a register is not in the log
	LogMore            LogInfo = 0x0010 // fewer rows than asked for: the meter's buffer was full
	LogFormatChanged   LogInfo = 0x0020 // the rows that follow have another format
	LogAtNewest        LogInfo = 0x0040 // the newest row is among the rows
	LogAtOldest        LogInfo = 0x0080 // the oldest row is among the rows
	LogMemoryError     LogInfo = 0x0100
	LogInvalid         LogInfo = 0x0200 // the meter did not like the request
	LogInternal        LogInfo = 0x0400 // electricity meters: internal error
	LogCut             LogInfo = 0x2000 // fewer registers than asked for
)

var logInfoNames = [16]string{
	"empty", "out of range", "interval changed", "unsupported register", "more", "format changed", "newest", "oldest",
	"memory error", "invalid request", "internal error", 13: "registers cut",
}

// String returns the names of the bits with commas between them, "" for none.
func (i LogInfo) String() string { return bitNames(uint16(i), logInfoNames[:]) }

// bitNames joins the names of the bits that are set; one without a name has its number.
func bitNames(bits uint16, names []string) string {
	var set []string
	for n := range 16 {
		switch {
		case bits>>n&1 == 0:
		case n < len(names) && names[n] != "":
			set = append(set, names[n])
		default:
			set = append(set, fmt.Sprintf("bit %d", n))
		}
	}
	return strings.Join(set, ", ")
}

// LogRow is one row of a log: a number of its own and the registers that were kept.
type LogRow struct {
	// ID is the row's number in its log. Each row has the next one, whatever the
	// time between them.
	ID uint32
	// Registers are complete, in every row: what the wire says in the first row
	// alone (id, unit, SiEx) stands in the others as well.
	Registers []Register
}

// LogConfigRequest asks how one log is set up (command B8, sub-command 05).
type LogConfigRequest struct {
	Log LogType
}

// Command implements [Message].
func (*LogConfigRequest) Command() Command { return CmdLogger }

// NewAnswer implements [Request].
func (*LogConfigRequest) NewAnswer() Answer { return new(LogConfigAnswer) }

// AppendData implements [Message].
func (q *LogConfigRequest) AppendData(dst []byte) ([]byte, error) {
	return append(dst, byte(LogGetConfig), byte(q.Log)), nil
}

// DecodeData implements [Message].
func (q *LogConfigRequest) DecodeData(data []byte) error {
	if err := subCommand(data, LogGetConfig); err != nil {
		return err
	}
	if err := exactly("log configuration request", data, 2); err != nil {
		return err
	}
	q.Log = LogType(data[1])
	return nil
}

// check refuses the configuration of another log.
func (q *LogConfigRequest) check(a Answer) error {
	if answer, ok := a.(*LogConfigAnswer); ok && answer.Log != q.Log {
		return fmt.Errorf("%w: configuration of the log %s", ErrForeign, answer.Log)
	}
	return nil
}

// subCommand checks the first byte of a logger message.
func subCommand(data []byte, want LogCommand) error {
	if len(data) == 0 {
		return dataError(0, &LengthError{"Logger message", 2, 0, true})
	}
	if got := LogCommand(data[0]); got != want {
		return dataError(0, fmt.Errorf("%w: %s", ErrForeign, got))
	}
	return nil
}

// LogConfig is how one log is set up. Nothing is known about its format bytes but
// that they were 1 in the only capture.
type LogConfig struct {
	Log LogType
	// TargetDates are the days on which the log takes a row. A zero is none; month
	// or day alone may be 0 as well.
	TargetDates [2]MonthDay
	MaxRecords  byte // rows per interval, as far as its name in PyKMP tells; 0 in a year log
	Interval    byte // as on the wire, unit not known; 0 in a year log
	// Formats are the bytes before the two dates, MaxRecords and Interval.
	Formats   [4]byte
	Depth     uint16   // rows that the log holds
	Registers []uint16 // that are kept in each row, at most 255
}

// LogConfigAnswer is the answer to [LogConfigRequest].
type LogConfigAnswer struct {
	LogConfig
}

// Command implements [Message].
func (*LogConfigAnswer) Command() Command { return CmdLogger }

// NewRequest implements [Answer].
func (*LogConfigAnswer) NewRequest() Request { return new(LogConfigRequest) }

// AppendData implements [Message]. A month or day beyond 0 to 255 and more than 255
// registers are a *[RangeError].
func (a *LogConfigAnswer) AppendData(dst []byte) ([]byte, error) {
	if err := inRange("number of registers", len(a.Registers), 0, 255); err != nil {
		return dst, err
	}
	for _, d := range a.TargetDates {
		if err := inRange("month", d.Month, 0, 255); err != nil {
			return dst, err
		}
		if err := inRange("day", d.Day, 0, 255); err != nil {
			return dst, err
		}
	}
	dst = append(dst, byte(LogGetConfig), byte(a.Log))
	for i, d := range a.TargetDates {
		dst = append(dst, a.Formats[i], byte(d.Month), byte(d.Day))
	}
	dst = append(dst, a.Formats[2], a.MaxRecords, a.Formats[3], a.Interval)
	dst = binary.BigEndian.AppendUint16(dst, a.Depth)
	return appendIDs(dst, a.Registers), nil
}

// logConfigHeader is the length of a configuration without the register ids.
const logConfigHeader = 15

// DecodeData implements [Message]. It reuses the memory of Registers.
func (a *LogConfigAnswer) DecodeData(data []byte) error {
	if err := subCommand(data, LogGetConfig); err != nil {
		return err
	}
	if len(data) < logConfigHeader {
		return dataError(len(data), &LengthError{"log configuration", logConfigHeader, len(data), true})
	}
	ids, err := decodeIDs("log configuration", data, logConfigHeader-1, a.Registers)
	if err != nil {
		return err
	}
	a.LogConfig = LogConfig{
		Log:         LogType(data[1]),
		TargetDates: [2]MonthDay{{int(data[3]), int(data[4])}, {int(data[6]), int(data[7])}},
		MaxRecords:  data[9],
		Interval:    data[11],
		Formats:     [4]byte{data[2], data[5], data[8], data[10]},
		Depth:       binary.BigEndian.Uint16(data[12:]),
		Registers:   ids,
	}
	return nil
}

// appendIDs appends a count and that many register ids.
func appendIDs(dst []byte, ids []uint16) []byte {
	dst = append(dst, byte(len(ids)))
	for _, id := range ids {
		dst = binary.BigEndian.AppendUint16(dst, id)
	}
	return dst
}

// decodeIDs decodes the register ids after their count at data[at], which end the
// data, into the memory of ids.
func decodeIDs(what string, data []byte, at int, ids []uint16) ([]uint16, error) {
	n := int(data[at])
	if err := exactly(what, data, at+1+2*n); err != nil {
		return nil, err
	}
	ids = ids[:0]
	for i := at + 1; i < len(data); i += 2 {
		ids = append(ids, binary.BigEndian.Uint16(data[i:]))
	}
	return ids, nil
}

// LogByIDRequest asks for rows from one with a known id on, towards older ones
// (command B8, sub-command 06).
type LogByIDRequest struct {
	Log     LogType
	From    uint32   // id of the first row, the newest of them
	Entries uint16   // rows at most; the meter returns what its buffer holds
	IDs     []uint16 // 1 to 8 registers
}

// Command implements [Message].
func (*LogByIDRequest) Command() Command { return CmdLogger }

// NewAnswer implements [Request].
func (*LogByIDRequest) NewAnswer() Answer { return new(LogByIDAnswer) }

// AppendData implements [Message]. A number of registers other than 1 to 8 is a
// *[RangeError].
func (q *LogByIDRequest) AppendData(dst []byte) ([]byte, error) {
	if err := inRange("number of registers", len(q.IDs), 1, MaxRegisters); err != nil {
		return dst, err
	}
	dst = append(dst, byte(LogGetByID), byte(q.Log))
	dst = binary.BigEndian.AppendUint32(dst, q.From)
	dst = binary.BigEndian.AppendUint16(dst, q.Entries)
	return appendIDs(dst, q.IDs), nil
}

// DecodeData implements [Message]. It reuses the memory of IDs.
func (q *LogByIDRequest) DecodeData(data []byte) error {
	const header = 9
	ids, err := decodeLogRequest(data, LogGetByID, header, q.IDs)
	if err != nil {
		return err
	}
	*q = LogByIDRequest{LogType(data[1]), binary.BigEndian.Uint32(data[2:]), binary.BigEndian.Uint16(data[6:]), ids}
	return nil
}

// decodeLogRequest checks a request for rows, whose header ends with the number of
// registers, and returns the ids after it.
func decodeLogRequest(data []byte, sub LogCommand, header int, ids []uint16) ([]uint16, error) {
	if err := subCommand(data, sub); err != nil {
		return nil, err
	}
	if len(data) < header {
		return nil, dataError(len(data), &LengthError{"log request", header, len(data), true})
	}
	if err := inRange("number of registers", int(data[header-1]), 1, MaxRegisters); err != nil {
		return nil, dataError(header-1, err)
	}
	return decodeIDs("log request", data, header-1, ids)
}

// check refuses rows that were not asked for. A request beyond the newest row may be
// answered from that one on.
func (q *LogByIDRequest) check(a Answer) error {
	answer, ok := a.(*LogByIDAnswer)
	if !ok {
		return nil
	}
	p := &answer.LogPage
	if p.First != q.From && p.Info&(LogEmpty|LogOutOfRange) == 0 && (p.First != p.Newest || q.From < p.Newest) {
		return fmt.Errorf("%w: rows from %d on", ErrForeign, p.First)
	}
	return p.check(q.Log, q.Entries, q.IDs)
}

// LogLastRequest asks for the newest rows, or for those a number of rows before,
// towards older ones (command B8, sub-command 07). An offset beyond the oldest row is
// answered with that row: FFFF and one entry tell the oldest and the newest id.
type LogLastRequest struct {
	Log     LogType
	Offset  uint16   // rows between the newest one and the first one wanted
	Entries uint16   // rows at most; the meter returns what its buffer holds
	IDs     []uint16 // 1 to 8 registers
}

// Command implements [Message].
func (*LogLastRequest) Command() Command { return CmdLogger }

// NewAnswer implements [Request].
func (*LogLastRequest) NewAnswer() Answer { return new(LogLastAnswer) }

// AppendData implements [Message]. A number of registers other than 1 to 8 is a
// *[RangeError].
func (q *LogLastRequest) AppendData(dst []byte) ([]byte, error) {
	if err := inRange("number of registers", len(q.IDs), 1, MaxRegisters); err != nil {
		return dst, err
	}
	dst = append(dst, byte(LogGetLast), byte(q.Log))
	dst = binary.BigEndian.AppendUint16(dst, q.Offset)
	dst = binary.BigEndian.AppendUint16(dst, q.Entries)
	return appendIDs(dst, q.IDs), nil
}

// DecodeData implements [Message]. It reuses the memory of IDs.
func (q *LogLastRequest) DecodeData(data []byte) error {
	const header = 7
	ids, err := decodeLogRequest(data, LogGetLast, header, q.IDs)
	if err != nil {
		return err
	}
	*q = LogLastRequest{LogType(data[1]), binary.BigEndian.Uint16(data[2:]), binary.BigEndian.Uint16(data[4:]), ids}
	return nil
}

// check refuses rows that were not asked for. A request beyond the oldest row may be
// answered with that one.
func (q *LogLastRequest) check(a Answer) error {
	answer, ok := a.(*LogLastAnswer)
	if !ok {
		return nil
	}
	p := &answer.LogPage
	oldest := p.Info&LogAtOldest != 0 && len(p.Rows) == 1
	if offset := p.Newest - p.First; offset != uint32(q.Offset) && p.Info&(LogEmpty|LogOutOfRange) == 0 && (!oldest || offset > uint32(q.Offset)) {
		return fmt.Errorf("%w: rows from %d on, the newest being %d", ErrForeign, p.First, p.Newest)
	}
	return p.check(q.Log, q.Entries, q.IDs)
}

// LogPage is a part of a log, newest row first. It is short when the meter's buffer
// holds no more ([LogMore]), the rows further back have another format
// ([LogFormatChanged]) or the log ends ([LogAtOldest]): what is missing is asked for
// by its id.
type LogPage struct {
	Log    LogType
	First  uint32 // id of the first row
	Newest uint32 // id of the newest row in the meter
	Info   LogInfo
	// Rows have the ids First, First-1 and so on. With [LogEmpty] a 603 fills a row
	// with zeros that stands for none; [Conn] leaves it out.
	Rows []LogRow
}

// check refuses rows that are not an answer to a request for entries rows of a log.
func (p *LogPage) check(log LogType, entries uint16, ids []uint16) error {
	if p.Log != log {
		return fmt.Errorf("%w: rows of the log %s", ErrForeign, p.Log)
	}
	if len(p.Rows) > int(entries) && p.Info&LogEmpty == 0 {
		return fmt.Errorf("%w: %d rows", ErrForeign, len(p.Rows))
	}
	if len(p.Rows) == 0 {
		return nil
	}
	return checkIDs(ids, p.Rows[0].Registers)
}

// logPageHeader is the length of a page without its rows.
const logPageHeader = 15

// appendData appends the page as the answer to a sub-command.
func (p *LogPage) appendData(dst []byte, sub LogCommand) ([]byte, error) {
	if err := inRange("number of rows", len(p.Rows), 0, 0xFFFF); err != nil {
		return dst, err
	}
	var format []Register
	for i, r := range p.Rows {
		if i == 0 {
			format = r.Registers
		}
		if want := p.First - uint32(i); r.ID != want {
			return dst, &RangeError{What: "id of a row", Got: int64(r.ID), Min: int64(want), Max: int64(want)}
		}
	}
	if len(p.Rows) > 0 {
		if err := inRange("number of registers", len(format), 1, MaxRegisters); err != nil {
			return dst, err
		}
	}
	dst = append(dst, byte(sub), byte(p.Log))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(p.Rows)))
	dst = append(dst, byte(len(format)))
	dst = binary.BigEndian.AppendUint32(dst, p.First)
	dst = binary.BigEndian.AppendUint32(dst, p.Newest)
	dst = binary.BigEndian.AppendUint16(dst, uint16(p.Info))
	var err error
	for i, r := range p.Rows {
		if dst, err = appendRow(dst, i == 0, format, r.Registers); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// decodeData decodes the answer to a sub-command.
func (p *LogPage) decodeData(data []byte, sub LogCommand) error {
	if err := subCommand(data, sub); err != nil {
		return err
	}
	if len(data) < logPageHeader {
		return dataError(len(data), &LengthError{"log rows", logPageHeader, len(data), true})
	}
	page := LogPage{
		Log:    LogType(data[1]),
		First:  binary.BigEndian.Uint32(data[5:]),
		Newest: binary.BigEndian.Uint32(data[9:]),
		Info:   LogInfo(binary.BigEndian.Uint16(data[13:])),
		Rows:   p.Rows[:0],
	}
	entries, n := int(binary.BigEndian.Uint16(data[2:])), int(data[4])
	if entries == 0 {
		if err := exactly("log without rows", data, logPageHeader); err != nil {
			return err
		}
		*p = page // a number of registers says nothing without rows
		return nil
	}
	if err := inRange("number of registers", n, 1, MaxRegisters); err != nil {
		return dataError(4, err)
	}
	if int64(page.First)-int64(entries-1) < 0 {
		return dataError(5, &RangeError{What: "id of the first row", Got: int64(page.First), Min: int64(entries - 1), Max: 1<<32 - 1})
	}
	var registers [MaxRegisters]Register
	format := registers[:n]
	end, err := decodeFirstRow(format, data, logPageHeader)
	if err != nil {
		return err
	}
	width := rowWidth(format)
	if width == 0 { // else a few bytes could stand for 65535 rows
		return dataError(end, &LengthError{"row", 1, 0, true})
	}
	if err := exactly("log rows", data, end+(entries-1)*width); err != nil {
		return err
	}
	page.Rows = appendRows(page.Rows, format, data[end:], entries, 0)
	for i := range page.Rows {
		page.Rows[i].ID = page.First - uint32(i)
	}
	*p = page
	return nil
}

// LogByIDAnswer is the answer to [LogByIDRequest].
type LogByIDAnswer struct {
	LogPage
}

// Command implements [Message].
func (*LogByIDAnswer) Command() Command { return CmdLogger }

// NewRequest implements [Answer].
func (*LogByIDAnswer) NewRequest() Request { return new(LogByIDRequest) }

// AppendData implements [Message]. Row ids that do not count down from First and
// more than eight registers are a *[RangeError], values that have not the first
// row's width a *[LengthError], another unit or SiEx than there a *[FormatError].
func (a *LogByIDAnswer) AppendData(dst []byte) ([]byte, error) { return a.appendData(dst, LogGetByID) }

// DecodeData implements [Message]. It reuses the memory of Rows; values are parts
// of data.
func (a *LogByIDAnswer) DecodeData(data []byte) error { return a.decodeData(data, LogGetByID) }

// LogLastAnswer is the answer to [LogLastRequest].
type LogLastAnswer struct {
	LogPage
}

// Command implements [Message].
func (*LogLastAnswer) Command() Command { return CmdLogger }

// NewRequest implements [Answer].
func (*LogLastAnswer) NewRequest() Request { return new(LogLastRequest) }

// AppendData implements [Message] as that of [LogByIDAnswer] does.
func (a *LogLastAnswer) AppendData(dst []byte) ([]byte, error) { return a.appendData(dst, LogGetLast) }

// DecodeData implements [Message]. It reuses the memory of Rows; values are parts
// of data.
func (a *LogLastAnswer) DecodeData(data []byte) error { return a.decodeData(data, LogGetLast) }

// LogConfig asks the meter at addr how one of its logs is set up. Errors are those
// of [Conn.Do]; a meter without that log, or without logs, is silent as a rule.
func (c *Conn) LogConfig(ctx context.Context, addr Address, log LogType) (LogConfig, error) {
	var a LogConfigAnswer
	if err := c.Do(ctx, addr, &LogConfigRequest{log}, &a); err != nil {
		return LogConfig{}, err
	}
	return a.LogConfig, nil
}

// LogByID reads rows of a log from the one with the id from on, towards older ones,
// at most entries of them: one request with the registers ids, 1 to 8. Errors are
// those of [Conn.Do]. An answer of more than [MaxFrame] bytes is one of them, after as
// long as it takes on the line: entries are not more than what fits.
func (c *Conn) LogByID(ctx context.Context, addr Address, log LogType, from uint32, entries uint16, ids ...uint16) (LogPage, error) {
	var a LogByIDAnswer
	if err := c.Do(ctx, addr, &LogByIDRequest{log, from, entries, ids}, &a); err != nil {
		return LogPage{}, err
	}
	return a.real(), nil
}

// LogLast reads rows of a log from the one that is offset rows older than the
// newest one on, as [Conn.LogByID] does.
func (c *Conn) LogLast(ctx context.Context, addr Address, log LogType, offset, entries uint16, ids ...uint16) (LogPage, error) {
	var a LogLastAnswer
	if err := c.Do(ctx, addr, &LogLastRequest{log, offset, entries, ids}, &a); err != nil {
		return LogPage{}, err
	}
	return a.real(), nil
}

// real returns the page without what fills it when the log is empty.
func (p *LogPage) real() LogPage {
	if p.Info&LogEmpty != 0 {
		p.Rows = nil
	}
	return *p
}
