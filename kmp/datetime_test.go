package kmp

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

// valueCases drive decoding of registers by their unit. json is what is published;
// "null" stands for none.
var valueCases = []struct {
	name string
	unit Unit
	siEx byte
	raw  string
	want Value
	json string
}{
	{"number", UnitMWh, 0x43, "00 00 D6 DE", Decimal{low: 55006, exponent: -3}, "55.006"},
	{"number without a unit", UnitNone, 0x80, "05", Decimal{low: 5, negative: true}, "-5"},
	{"number of 10 bytes", UnitNumber, 0, "00 00 00 00 00 00 00 E6 2F B0", Decimal{low: 15085488}, "15085488"},
	{"×10 unit is a number", 0x37, 0, "00 2A", Decimal{low: 42}, "42"},
	{"last known unit", 0x5A, 0, "2A", Decimal{low: 42}, "42"},

	{"clock: document", UnitClock, 0, "00 02 77 15", Clock{16, 15, 57}, `"16:15:57"`},
	{"clock: capture", UnitClock, 0, "00 03 0E 33", Clock{20, 2, 43}, `"20:02:43"`},
	{"clock: midnight", UnitClock, 0, "00 00 00 00", Clock{}, `"00:00:00"`},
	{"clock: last second", UnitClock, 0, "00 03 99 B7", Clock{23, 59, 59}, `"23:59:59"`},
	{"clock in 3 bytes", UnitClock, 0, "03 0E 33", Clock{20, 2, 43}, `"20:02:43"`},
	{"date: document", UnitDate, 0, "00 01 14 4A", Date{2007, 7, 30}, `"2007-07-30"`},
	{"date: capture", UnitDate, 0, "00 03 5B D0", Date{2022, 1, 12}, `"2022-01-12"`},
	{"date: first", UnitDate, 0, "65", Date{2000, 1, 1}, `"2000-01-01"`},
	{"date: last", UnitDate, 0, "0F 1F FF", Date{2099, 12, 31}, `"2099-12-31"`},
	{"date: leap day", UnitDate, 0, "9D 25", Date{2004, 2, 29}, `"2004-02-29"`},
	{"date: none", UnitDate, 0, "00 00 00 00", nil, "null"},
	{"date of four digits", UnitDate4, 0, "01 34 D7 62", Date{2024, 2, 26}, `"2024-02-26"`},
	{"date of four digits: none", UnitDate4, 0, "00 00 00 00", nil, "null"},
	{"month and day", UnitMonthDay, 0, "04 CF", MonthDay{12, 31}, `"12-31"`},
	{"month and day: leap day", UnitMonthDay, 0, "00 E5", MonthDay{2, 29}, `"02-29"`},
	{"month and day: none", UnitMonthDay, 0, "00 00", nil, "null"},

	{"RTC: 382J's clock", UnitRTC, 0, "83 07 1A 23 13 1B 07 0E", DateTime{Date: Date{2014, 7, 27}, Clock: Clock{19, 35, 26}, DST: true}, `"2014-07-27T19:35:26"`},
	{"RTC: winter", UnitRTC, 0, "02 01 00 00 00 01 01 00", DateTime{Date: Date{2000, 1, 1}}, `"2000-01-01T00:00:00"`},
	{"RTC: not valid", UnitRTC, 0, "81 07 1A 23 13 1B 07 0E", nil, "null"},
	{"RTC-Q", UnitRTCQ, 0, "02 07 1A 23 13 1B 07 0E", DateTime{Date: Date{2014, 7, 27}, Clock: Clock{19, 35, 26}}, `"2014-07-27T19:35:26"`},
	{"date and time: start", UnitDateTime, 0, "02 00 00 00 00", DateTime{Date: Date{2000, 1, 1}}, `"2000-01-01T00:00:00"`},
	{"date and time: summer", UnitDateTime, 0, "03 1B 68 10 FE", DateTime{Date: Date{2014, 7, 27}, Clock: Clock{19, 35, 26}, DST: true}, `"2014-07-27T19:35:26"`},
	{"date and time: last", UnitDateTime, 0, "02 FF FF FF FF", DateTime{Date: Date{2136, 2, 7}, Clock: Clock{6, 28, 15}}, `"2136-02-07T06:28:15"`},
	{"date and time: not valid", UnitDateTime, 0, "00 1B 68 10 FE", nil, "null"},
	{"DST date and time: 603", UnitDSTDateTime, 0, "00 18 0C 1F 00 00 04", DateTime{Date: Date{2024, 12, 31}, Clock: Clock{0, 0, 4}}, `"2024-12-31T00:00:04"`},
	{"DST date and time: summer", UnitDSTDateTime, 0, "3C 19 07 01 0C 1E 0F", DateTime{Date: Date{2025, 7, 1}, Clock: Clock{12, 30, 15}, DST: true, DSTMinutes: 60}, `"2025-07-01T12:30:15"`},

	{"text: 382J's type", UnitASCII, 0, "30 37 30 34 32 32 4A 41 38 33", Text("070422JA83"), `"070422JA83"`},
	{"text: padding", UnitASCII, 0, "41 42 20 00 00", Text("AB"), `"AB"`},
	{"text: Latin-1", UnitASCII, 0, "6D B3", Text("m³"), `"m³"`},
	{"text: only padding", UnitASCII, 0, "00 00", Text(""), `""`},
	{"bits", UnitBits, 0, "80 01", Bits(0x8001), "32769"},
	{"bits: 8 bytes", UnitBits, 0, "FF FF FF FF FF FF FF FF", Bits(1<<64 - 1), "18446744073709551615"},
	{"bits: leading zeros", UnitBits, 0, "00 00 00 00 00 00 00 00 00 05", Bits(5), "5"},
	{"bits: more than 8 bytes", UnitBits, 0, "01 00 00 00 00 00 00 00 00", Raw("\x01\x00\x00\x00\x00\x00\x00\x00\x00"), `"010000000000000000"`},
	{"unknown unit", 0x4B, 0, "DE AD", Raw("\xDE\xAD"), `"DEAD"`},
	{"unknown unit above the table", 0xFE, 0, "0B", Raw("\x0B"), `"0B"`},
	{"network address", 0x49, 0, "C0 00 02 01", Raw("\xC0\x00\x02\x01"), `"C0000201"`},
	{"no bytes", UnitGJ, 0, "", nil, "null"},
}

func TestValue(t *testing.T) {
	for _, tt := range valueCases {
		t.Run(tt.name, func(t *testing.T) {
			v, err := Register{ID: 1, Unit: tt.unit, SiEx: tt.siEx, Raw: unhex(t, tt.raw)}.Value()
			if err != nil || v != tt.want {
				t.Fatalf("%#v (error %v), want %#v", v, err, tt.want)
			}
			js, err := json.Marshal(v)
			if err != nil || string(js) != tt.json {
				t.Errorf("JSON %s (error %v), want %s", js, err, tt.json)
			}
			if v != nil && v.String() != strings.Trim(tt.json, `"`) {
				t.Errorf("text %q, want %s without quotes", v, tt.json)
			}
		})
	}
}

// Units of unknown meaning or layout are never taken for numbers.
func TestValueUnknownUnits(t *testing.T) {
	unknown := []Unit{0x40, 0x49, 0x4A, 0x4B, 0x4C, 0x4D, 0x4E, 0x50, 0x51, 0x52, 0x53, 0x54}
	for u := 0x5B; u <= 0xFF; u++ {
		unknown = append(unknown, Unit(u))
	}
	for _, u := range unknown {
		if v, err := (Register{ID: 1, Unit: u, Raw: []byte{0, 1}}).Value(); err != nil || v != Raw("\x00\x01") {
			t.Errorf("unit %02X: %#v (error %v), want the bytes", byte(u), v, err)
		}
	}
}

func TestValueErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		unit Unit
		siEx byte
		raw  string
		want string // after "kmp: register 1003: unit uu, bytes …: "
	}{
		{"hour 24", UnitClock, 0, "00 03 A9 80", "hour is 24, should be 0 to 23"},
		{"minute 60", UnitClock, 0, "17 70", "minute is 60, should be 0 to 59"},
		{"second 60", UnitClock, 0, "3C", "second is 60, should be 0 to 59"},
		{"clock below 0", UnitClock, 0x80, "01", "date or clock is -1, should be 0 to 99991231"},
		{"clock with a fraction", UnitClock, 0x41, "7B", "malformed data: date or clock is 12.3, should be an integer of 0 to 99991231"},
		{"clock of 9 bytes", UnitClock, 0, "01 00 00 00 00 00 00 00 00", "malformed data: date or clock is 18446744073709551616, should be an integer of 0 to 99991231"},
		{"month 0", UnitDate, 0, "01", "month is 0, should be 1 to 12"},
		{"month 13", UnitDate, 0, "05 15", "month is 13, should be 1 to 12"},
		{"day 0", UnitDate, 0, "64", "day is 0, should be 1 to 31"},
		{"30 February", UnitDate, 0, "9D 26", "day is 30, should be 1 to 29"},
		{"29 February of no leap year", UnitDate, 0, "76 15", "day is 29, should be 1 to 28"},
		{"31 April", UnitDate, 0, "01 AF", "day is 31, should be 1 to 30"},
		{"year of four digits", UnitDate, 0, "01 34 D7 62", "year is 2024, should be 0 to 99"},
		{"date4: year 0", UnitDate4, 0, "04 CF", "year is 0, should be 1 to 9999"},
		{"date4: 29 February 1900", UnitDate4, 0, "01 21 EB A5", "day is 29, should be 1 to 28"},
		{"month and day with a year", UnitMonthDay, 0, "00 03 5B D0", "month and day is 220112, should be 101 to 1231"},
		{"30 February of any year", UnitMonthDay, 0, "E6", "day is 30, should be 1 to 29"},
		{"RTC of 7 bytes", UnitRTC, 0, "83 07 1A 23 13 1B 07", "clock has 7 bytes, should have 8"},
		{"RTC of 9 bytes", UnitRTCQ, 0, "83 07 1A 23 13 1B 07 0E 00", "clock has 9 bytes, should have 8"},
		{"RTC: second 60", UnitRTC, 0, "82 07 3C 23 13 1B 07 0E", "second is 60, should be 0 to 59"},
		{"RTC: minute 60", UnitRTC, 0, "82 07 1A 3C 13 1B 07 0E", "minute is 60, should be 0 to 59"},
		{"RTC: hour 24", UnitRTC, 0, "82 07 1A 23 18 1B 07 0E", "hour is 24, should be 0 to 23"},
		{"RTC: day 32", UnitRTC, 0, "82 07 1A 23 13 20 07 0E", "day is 32, should be 1 to 31"},
		{"RTC: month 0", UnitRTC, 0, "82 07 1A 23 13 1B 00 0E", "month is 0, should be 1 to 12"},
		{"date and time of 4 bytes", UnitDateTime, 0, "02 00 00 00", "date and time has 4 bytes, should have 5"},
		{"DST date and time of 6 bytes", UnitDSTDateTime, 0, "00 18 0C 1F 00 00", "date and time has 6 bytes, should have 7"},
		{"DST date and time: day 0", UnitDSTDateTime, 0, "00 18 0C 00 00 00 04", "day is 0, should be 1 to 31"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := Register{ID: 1003, Unit: tt.unit, SiEx: tt.siEx, Raw: unhex(t, tt.raw)}.Value()
			if err == nil || v != nil {
				t.Fatalf("%v, error %v", v, err)
			}
			if !errors.Is(err, ErrCodec) {
				t.Errorf("%v does not match ErrCodec", err)
			}
			if !strings.HasPrefix(err.Error(), "kmp: register 1003: unit ") || !strings.HasSuffix(err.Error(), tt.raw+": "+tt.want) || strings.Count(err.Error(), "kmp: ") != 1 {
				t.Errorf("error %q, want it to end with %q", err, tt.raw+": "+tt.want)
			}
		})
	}
}

func TestNewDateRegister(t *testing.T) {
	for day := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC); day.Year() < 2100; day = day.AddDate(0, 0, 1) {
		want := Date{day.Year(), int(day.Month()), day.Day()}
		r, err := NewDateRegister(1003, want)
		if err != nil || r.ID != 1003 || r.Unit != UnitDate || len(r.Raw) != 4 {
			t.Fatalf("%v: %v (error %v)", want, r, err)
		}
		if v, err := r.Value(); err != nil || v != want {
			t.Fatalf("%v became %v (error %v)", want, v, err)
		}
	}
	r, err := NewDateRegister(1003, Date{})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := r.Value(); v != nil || err != nil {
		t.Errorf("no date became %v (error %v)", v, err)
	}
	for _, d := range []Date{{1999, 12, 31}, {2100, 1, 1}, {2023, 2, 29}, {2024, 13, 1}, {2024, 0, 1}, {2024, 1, 0}, {0, 1, 1}} {
		var out *RangeError
		if _, err := NewDateRegister(1003, d); !errors.As(err, &out) {
			t.Errorf("%v: error %v, want a *RangeError", d, err)
		}
	}
}

func TestNewClockRegister(t *testing.T) {
	for s := range 24 * 60 * 60 {
		want := Clock{s / 3600, s / 60 % 60, s % 60}
		r, err := NewClockRegister(1002, want)
		if err != nil || r.Unit != UnitClock || len(r.Raw) != 4 {
			t.Fatalf("%v: %v (error %v)", want, r, err)
		}
		if v, err := r.Value(); err != nil || v != want {
			t.Fatalf("%v became %v (error %v)", want, v, err)
		}
	}
	for _, c := range []Clock{{24, 0, 0}, {0, 60, 0}, {0, 0, 60}, {-1, 0, 0}, {0, -1, 0}, {0, 0, -1}} {
		var out *RangeError
		if _, err := NewClockRegister(1002, c); !errors.As(err, &out) {
			t.Errorf("%v: error %v, want a *RangeError", c, err)
		}
	}
}

func TestNewDSTDateTimeRegister(t *testing.T) {
	rng := rand.New(rand.NewPCG(15, 16))
	start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	for range 2000 {
		at := start.Add(time.Duration(rng.Int64N(255*365*24*3600)) * time.Second)
		offset := rng.IntN(256)
		want := DateTime{
			Date:  Date{at.Year(), int(at.Month()), at.Day()},
			Clock: Clock{at.Hour(), at.Minute(), at.Second()},
			DST:   offset != 0, DSTMinutes: offset,
		}
		r, err := NewDSTDateTimeRegister(348, want)
		if err != nil || r.Unit != UnitDSTDateTime {
			t.Fatalf("%v: %v (error %v)", want, r, err)
		}
		if v, err := r.Value(); err != nil || v != want {
			t.Fatalf("%v became %v (error %v)", want, v, err)
		}
	}
	good := DateTime{Date: Date{2024, 12, 31}, Clock: Clock{0, 0, 4}}
	for name, spoil := range map[string]func(*DateTime){
		"year":   func(t *DateTime) { t.Date.Year = 1999 },
		"late":   func(t *DateTime) { t.Date.Year = 2256 },
		"day":    func(t *DateTime) { t.Date.Day = 32 },
		"hour":   func(t *DateTime) { t.Clock.Hour = 24 },
		"offset": func(t *DateTime) { t.DSTMinutes = 256 },
		"below":  func(t *DateTime) { t.DSTMinutes = -1 },
	} {
		bad := good
		spoil(&bad)
		var out *RangeError
		if r, err := NewDSTDateTimeRegister(348, bad); !errors.As(err, &out) || !reflect.DeepEqual(r, Register{}) {
			t.Errorf("%s: %v, error %v; want a *RangeError", name, r, err)
		}
	}
}
