package kmp

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Value is what a register holds, decoded by its unit: a [Decimal], [Date],
// [Clock], [MonthDay], [DateTime], [Text], [Bits] or [Raw]. Values can be compared
// with ==.
type Value interface {
	fmt.Stringer
	json.Marshaler
	isValue()
}

func (Decimal) isValue()  {}
func (Date) isValue()     {}
func (Clock) isValue()    {}
func (MonthDay) isValue() {}
func (DateTime) isValue() {}
func (Text) isValue()     {}
func (Bits) isValue()     {}
func (Raw) isValue()      {}

// Date is a day in the meter's own calendar, which has no zone (units 30 and 31).
type Date struct {
	Year  int // 2000 to 2099 by unit 30, 1 to 9999 by unit 31
	Month int // 1 to 12
	Day   int // 1 to 31
}

// String returns "YYYY-MM-DD".
func (d Date) String() string { return fmt.Sprintf("%04d-%02d-%02d", d.Year, d.Month, d.Day) }

// MarshalJSON returns the text in quotes.
func (d Date) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

func (d Date) check() error {
	if err := inRange("year", d.Year, 1, 9999); err != nil {
		return err
	}
	if err := inRange("month", d.Month, 1, 12); err != nil {
		return err
	}
	return inRange("day", d.Day, 1, daysIn(d.Year, d.Month))
}

// daysIn is the length of a month; the day before the next month's first.
func daysIn(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// Clock is a time of day in the meter's own time, which has no zone (unit 2F).
type Clock struct {
	Hour   int // 0 to 23
	Minute int // 0 to 59
	Second int // 0 to 59
}

// String returns "hh:mm:ss".
func (c Clock) String() string { return fmt.Sprintf("%02d:%02d:%02d", c.Hour, c.Minute, c.Second) }

// MarshalJSON returns the text in quotes.
func (c Clock) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

func (c Clock) check() error {
	if err := inRange("hour", c.Hour, 0, 23); err != nil {
		return err
	}
	if err := inRange("minute", c.Minute, 0, 59); err != nil {
		return err
	}
	return inRange("second", c.Second, 0, 59)
}

// MonthDay is a day of every year, such as the target date (unit 32).
type MonthDay struct {
	Month int // 1 to 12
	Day   int // 1 to 31; 29 February is possible
}

// String returns "MM-DD".
func (m MonthDay) String() string { return fmt.Sprintf("%02d-%02d", m.Month, m.Day) }

// MarshalJSON returns the text in quotes.
func (m MonthDay) MarshalJSON() ([]byte, error) { return json.Marshal(m.String()) }

func (m MonthDay) check() error { return Date{2000, m.Month, m.Day}.check() }

// DateTime is a point in the meter's own time, which has no zone. Units 35, 3F and
// 48h tell whether daylight saving time is in force; unit 4F tells by how much.
type DateTime struct {
	Date  Date
	Clock Clock
	// DST is set while daylight saving time is in force. A K382J's clock (unit 35)
	// runs on in standard time nevertheless; whether others' do is not known.
	DST bool
	// DSTMinutes is the daylight saving offset contained in the time, 0 to 255;
	// only unit 4F has it.
	DSTMinutes int
}

// String returns "YYYY-MM-DDThh:mm:ss", without a zone since the meter has none.
func (t DateTime) String() string { return t.Date.String() + "T" + t.Clock.String() }

// MarshalJSON returns the text in quotes.
func (t DateTime) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }

func (t DateTime) check() error {
	if err := t.Date.check(); err != nil {
		return err
	}
	return t.Clock.check()
}

// Text is a register of characters (unit 36), one byte each, Latin-1 beyond ASCII;
// padding at its end is taken off.
type Text string

// String returns the text.
func (t Text) String() string { return string(t) }

// MarshalJSON returns the text in quotes.
func (t Text) MarshalJSON() ([]byte, error) { return json.Marshal(string(t)) }

// Bits is a bit field of up to 8 bytes (unit 3B), bit 0 the least significant.
type Bits uint64

// String returns the field as an unsigned decimal number, as meters show it.
func (b Bits) String() string { return fmt.Sprint(uint64(b)) }

// MarshalJSON returns the field as a number.
func (b Bits) MarshalJSON() ([]byte, error) { return json.Marshal(uint64(b)) }

// Raw is a value whose format is not known: its bytes, most significant first.
type Raw string

// String returns the bytes in hexadecimal.
func (r Raw) String() string { return strings.ToUpper(hex.EncodeToString([]byte(r))) }

// MarshalJSON returns the hexadecimal text in quotes.
func (r Raw) MarshalJSON() ([]byte, error) { return json.Marshal(r.String()) }

// Value decodes the register by its unit. A nil Value without an error is a value
// that the meter does not have: no bytes, a date of 0, a clock whose valid flag is
// not set. An error says that the bytes cannot be what the unit promises: such a
// value is unknown.
func (r Register) Value() (Value, error) {
	if len(r.Raw) == 0 {
		return nil, nil
	}
	v, err := r.decode()
	if err != nil {
		return nil, &contextError{fmt.Sprintf("register %d: unit %02X, bytes % X", r.ID, byte(r.Unit), r.Raw), err}
	}
	return v, nil
}

func (r Register) decode() (Value, error) {
	switch r.Unit {
	case UnitClock, UnitDate, UnitDate4, UnitMonthDay:
		return r.decodeDigits()
	case UnitRTC, UnitRTCQ:
		return decodeRTC(r.Raw)
	case UnitDateTime:
		return decodeDateTime(r.Raw)
	case UnitDSTDateTime:
		return decodeDSTDateTime(r.Raw)
	case UnitASCII:
		return decodeText(r.Raw), nil
	case UnitBits:
		if d := decimalFromBytes(r.Raw); d.high == "" {
			return Bits(d.low), nil
		}
		return Raw(r.Raw), nil
	}
	if !r.Unit.isNumber() {
		return Raw(r.Raw), nil
	}
	return decodeNumber(r.SiEx, r.Raw), nil
}

// isNumber reports whether the unit's values are known to be plain numbers. The
// rest up to 5A is a date time and network addresses of unknown layout (40, 49, 4A)
// and codes that no public table has (units of package catalog).
func (u Unit) isNumber() bool {
	switch u {
	case 0x40, 0x49, 0x4A, 0x4B, 0x4C, 0x4D, 0x4E, 0x50, 0x51, 0x52, 0x53, 0x54:
		return false
	}
	return u <= 0x5A
}

// decodeDigits decodes the formats that write a date or a clock as the decimal
// digits of one number (5512-447 section 4.2).
func (r Register) decodeDigits() (Value, error) {
	d := decodeNumber(r.SiEx, r.Raw)
	n, ok := d.Int64()
	if !ok {
		return nil, fmt.Errorf("%w: date or clock is %s, should be an integer of 0 to 99991231", ErrCodec, d)
	}
	if n < 0 || n > 99991231 {
		return nil, &RangeError{What: "date or clock", Got: n, Min: 0, Max: 99991231}
	}
	high, mid, low := int(n/10000), int(n/100%100), int(n%100)
	if r.Unit == UnitClock {
		c := Clock{high, mid, low}
		return c, c.check()
	}
	if n == 0 { // no such day yet
		return nil, nil
	}
	switch r.Unit {
	case UnitDate:
		if err := inRange("year", high, 0, 99); err != nil {
			return nil, err
		}
		d := Date{2000 + high, mid, low}
		return d, d.check()
	case UnitDate4:
		d := Date{high, mid, low}
		return d, d.check()
	default:
		if err := inRange("month and day", int(n), 101, 1231); err != nil {
			return nil, err
		}
		m := MonthDay{mid, low}
		return m, m.check()
	}
}

// Flags of the clock formats, as an electricity concentrator's firmware names them.
const (
	flagDST   = 0x01
	flagValid = 0x02
)

// decodeRTC decodes [flags][weekday][ss][mm][hh][DD][MM][YY]. The weekday says
// nothing that the date does not and is not looked at.
func decodeRTC(raw []byte) (Value, error) {
	if len(raw) != 8 {
		return nil, &LengthError{What: "clock", Want: 8, Got: len(raw)}
	}
	if raw[0]&flagValid == 0 {
		return nil, nil
	}
	t := DateTime{
		Date:  Date{2000 + int(raw[7]), int(raw[6]), int(raw[5])},
		Clock: Clock{int(raw[4]), int(raw[3]), int(raw[2])},
		DST:   raw[0]&flagDST != 0,
	}
	return t, t.check()
}

// decodeDateTime decodes [flags][seconds since 2000-01-01 00:00 local, 32 bits].
func decodeDateTime(raw []byte) (Value, error) {
	if len(raw) != 5 {
		return nil, &LengthError{What: "date and time", Want: 5, Got: len(raw)}
	}
	if raw[0]&flagValid == 0 {
		return nil, nil
	}
	t := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(binary.BigEndian.Uint32(raw[1:])) * time.Second)
	return DateTime{
		Date:  Date{t.Year(), int(t.Month()), t.Day()},
		Clock: Clock{t.Hour(), t.Minute(), t.Second()},
		DST:   raw[0]&flagDST != 0,
	}, nil
}

// decodeDSTDateTime decodes [DST minutes][YY][MM][DD][hh][mm][ss].
func decodeDSTDateTime(raw []byte) (Value, error) {
	if len(raw) != 7 {
		return nil, &LengthError{What: "date and time", Want: 7, Got: len(raw)}
	}
	t := DateTime{
		Date:       Date{2000 + int(raw[1]), int(raw[2]), int(raw[3])},
		Clock:      Clock{int(raw[4]), int(raw[5]), int(raw[6])},
		DST:        raw[0] != 0,
		DSTMinutes: int(raw[0]),
	}
	return t, t.check()
}

func decodeText(raw []byte) Text {
	runes := make([]rune, len(raw))
	for i, b := range raw {
		runes[i] = rune(b)
	}
	return Text(strings.TrimRight(string(runes), "\x00 "))
}

func inRange(what string, got, least, most int) error {
	if got < least || got > most {
		return &RangeError{What: what, Got: int64(got), Min: int64(least), Max: int64(most)}
	}
	return nil
}

// digits returns the date as the number YYMMDD.
func (d Date) digits() (uint32, error) {
	if err := inRange("year", d.Year, 2000, 2099); err != nil {
		return 0, err
	}
	return uint32((d.Year-2000)*10000 + d.Month*100 + d.Day), d.check()
}

// digits returns the time of day as the number hhmmss.
func (c Clock) digits() (uint32, error) {
	return uint32(c.Hour*10000 + c.Minute*100 + c.Second), c.check()
}

// NewDateRegister returns a register that holds a date (unit 30), or none when d is
// the zero Date. Years outside 2000 to 2099 and days that no month has give a
// *[RangeError].
func NewDateRegister(id uint16, d Date) (Register, error) {
	var n uint32
	if d != (Date{}) {
		var err error
		if n, err = d.digits(); err != nil {
			return Register{}, err
		}
	}
	return NewRegister(id, UnitDate, Decimal{low: uint64(n)}, 4)
}

// NewClockRegister returns a register that holds a time of day (unit 2F). Times
// outside the day give a *[RangeError].
func NewClockRegister(id uint16, c Clock) (Register, error) {
	n, err := c.digits()
	if err != nil {
		return Register{}, err
	}
	return NewRegister(id, UnitClock, Decimal{low: uint64(n)}, 4)
}

// NewDSTDateTimeRegister returns a register that holds a date and time with its
// daylight saving offset (unit 4F). What the format cannot say gives a *[RangeError].
func NewDSTDateTimeRegister(id uint16, t DateTime) (Register, error) {
	if err := t.check(); err != nil {
		return Register{}, err
	}
	if err := inRange("year", t.Date.Year, 2000, 2255); err != nil {
		return Register{}, err
	}
	if err := inRange("daylight saving offset", t.DSTMinutes, 0, 255); err != nil {
		return Register{}, err
	}
	d, c := t.Date, t.Clock
	return Register{ID: id, Unit: UnitDSTDateTime, Raw: []byte{
		byte(t.DSTMinutes), byte(d.Year - 2000), byte(d.Month), byte(d.Day), byte(c.Hour), byte(c.Minute), byte(c.Second),
	}}, nil
}
