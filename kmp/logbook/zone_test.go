package logbook

import (
	"testing"
	"time"

	"kmp2mqtt/kmp"
)

func TestStandardOffset(t *testing.T) {
	tests := []struct {
		zone string
		at   string
		want time.Duration
	}{
		{"UTC", "2026-07-01T12:00:00Z", 0},
		{"Europe/Berlin", "2026-01-15T12:00:00Z", time.Hour},
		{"Europe/Berlin", "2026-07-15T12:00:00Z", time.Hour},
		{"Europe/Berlin", "2026-03-29T00:59:59Z", time.Hour}, // the second before summer time
		{"Europe/Berlin", "2026-03-29T01:00:00Z", time.Hour},
		{"Europe/Berlin", "2026-10-25T00:59:59Z", time.Hour},
		{"Europe/Berlin", "2026-10-25T01:00:00Z", time.Hour},
		{"Europe/Berlin", "2060-07-15T12:00:00Z", time.Hour}, // by rule, beyond the table
		{"Europe/London", "2026-07-15T12:00:00Z", 0},
		{"Europe/Dublin", "2026-07-15T12:00:00Z", 0}, // by law this is the standard, and winter the exception
		{"Europe/Dublin", "2026-01-15T12:00:00Z", 0},
		{"Australia/Sydney", "2026-01-15T12:00:00Z", 10 * time.Hour}, // summer in the south
		{"Australia/Sydney", "2026-07-15T12:00:00Z", 10 * time.Hour},
		{"Australia/Lord_Howe", "2026-01-15T12:00:00Z", 10*time.Hour + 30*time.Minute}, // half an hour of it
		{"America/St_Johns", "2026-07-15T12:00:00Z", -3*time.Hour - 30*time.Minute},
		{"Asia/Kolkata", "2026-07-15T12:00:00Z", 5*time.Hour + 30*time.Minute},
		{"Europe/Moscow", "2010-07-15T12:00:00Z", 3 * time.Hour}, // summer time
		{"Europe/Moscow", "2012-07-15T12:00:00Z", 4 * time.Hour}, // standard time was another one
		{"Europe/Moscow", "2026-07-15T12:00:00Z", 3 * time.Hour},
		{"Europe/Istanbul", "2015-12-15T12:00:00Z", 2 * time.Hour},
		{"Europe/Istanbul", "2016-08-15T12:00:00Z", 2 * time.Hour}, // the last summer time
		{"Europe/Istanbul", "2016-12-15T12:00:00Z", 3 * time.Hour}, // which has been standard time since
		{"Pacific/Apia", "2012-01-15T12:00:00Z", 13 * time.Hour},   // crossed the date line in summer time
		{"America/Sao_Paulo", "2018-12-15T12:00:00Z", -3 * time.Hour},
		{"America/Sao_Paulo", "2026-01-15T12:00:00Z", -3 * time.Hour}, // summer time was given up
	}
	for _, test := range tests {
		zone, err := time.LoadLocation(test.zone)
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, test.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := standardOffset(at, zone); got != test.want {
			t.Errorf("%s at %s: %s, want %s", test.zone, test.at, got, test.want)
		}
	}
	if got := standardOffset(time.Now(), nil); got != 0 {
		t.Errorf("no zone: %s", got)
	}
}

func register(t testing.TB) func(kmp.Register, error) kmp.Register {
	t.Helper()
	return func(r kmp.Register, err error) kmp.Register {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

func TestTimeOf(t *testing.T) {
	ok := register(t)
	date := func(year, month, day int) kmp.Register {
		return ok(kmp.NewDateRegister(regDate, kmp.Date{Year: year, Month: month, Day: day}))
	}
	clock := func(hour, minute, second int) kmp.Register {
		return ok(kmp.NewClockRegister(regClock, kmp.Clock{Hour: hour, Minute: minute, Second: second}))
	}
	both := func(month, day, hour, dst int) kmp.Register {
		return ok(kmp.NewDSTDateTimeRegister(regDateTime, kmp.DateTime{
			Date: kmp.Date{Year: 2026, Month: month, Day: day}, Clock: kmp.Clock{Hour: hour}, DSTMinutes: dst,
		}))
	}
	number := func(id uint16, unit kmp.Unit, v int64) kmp.Register {
		return kmp.Register{ID: id, Unit: unit, Raw: []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}}
	}
	tests := []struct {
		name      string
		registers []kmp.Register
		want      string // "" for none
		dst       bool
	}{
		{"standard time in winter", []kmp.Register{date(2026, 1, 15), clock(7, 0, 0)}, "2026-01-15T07:00:00+01:00", false},
		{"standard time in summer", []kmp.Register{clock(7, 0, 0), date(2026, 7, 15)}, "2026-07-15T07:00:00+01:00", false},
		{"an hour that people skip", []kmp.Register{date(2026, 3, 29), clock(2, 30, 0)}, "2026-03-29T02:30:00+01:00", false},
		{"an hour that people live twice", []kmp.Register{date(2026, 10, 25), clock(2, 30, 0)}, "2026-10-25T02:30:00+01:00", false},
		{"348 in winter", []kmp.Register{both(1, 15, 7, 0)}, "2026-01-15T07:00:00+01:00", true},
		{"348 in summer", []kmp.Register{both(7, 15, 7, 60)}, "2026-07-15T07:00:00+02:00", true},
		{"348 in summer without summer time", []kmp.Register{both(7, 15, 7, 0)}, "2026-07-15T07:00:00+01:00", true},
		{"348 the first time", []kmp.Register{both(10, 25, 2, 60)}, "2026-10-25T02:00:00+02:00", true},
		{"348 the second time", []kmp.Register{both(10, 25, 2, 0)}, "2026-10-25T02:00:00+01:00", true},
		{"348 goes before the others", []kmp.Register{date(2026, 1, 14), clock(6, 0, 0), both(1, 15, 7, 0)}, "2026-01-15T07:00:00+01:00", true},
		{"348 that cannot be", []kmp.Register{{ID: regDateTime, Unit: kmp.UnitDSTDateTime, Raw: make([]byte, 7)}, date(2026, 1, 15), clock(7, 0, 0)}, "2026-01-15T07:00:00+01:00", false},
		{"348 of another unit", []kmp.Register{number(regDateTime, kmp.UnitNumber, 5)}, "", false},
		{"no date yet", []kmp.Register{number(regDate, kmp.UnitDate, 0), clock(7, 0, 0)}, "", false},
		{"30 February", []kmp.Register{number(regDate, kmp.UnitDate, 260230), clock(7, 0, 0)}, "", false},
		{"24:00", []kmp.Register{date(2026, 1, 15), number(regClock, kmp.UnitClock, 240000)}, "", false},
		{"a clock alone", []kmp.Register{clock(7, 0, 0)}, "", false},
		{"a date in another register", []kmp.Register{number(98, kmp.UnitDate, 260115), clock(7, 0, 0)}, "", false},
		{"nothing", nil, "", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, dst := timeOf(test.registers, berlin(t), false)
			text := ""
			if !got.IsZero() {
				text = got.Format(time.RFC3339)
			}
			if text != test.want || dst != test.dst {
				t.Errorf("%q, %v, want %q, %v", text, dst, test.want, test.dst)
			}
		})
	}
	t.Run("a date alone", func(t *testing.T) {
		if got, _ := timeOf([]kmp.Register{date(2026, 7, 15)}, berlin(t), true); got.Format(time.RFC3339) != "2026-07-15T00:00:00+01:00" {
			t.Error(got)
		}
		if got, _ := timeOf([]kmp.Register{date(2026, 7, 15)}, berlin(t), false); !got.IsZero() {
			t.Error(got)
		}
	})
}

// The day of a meter has 24 hours, also where people's has 23 or 25.
func TestDigitsOfEveryHour(t *testing.T) {
	for _, name := range []string{"Europe/Berlin", "Australia/Sydney", "America/New_York", "Europe/Dublin"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		var last time.Time
		wall := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for range 365 * 24 {
			d := digits{kmp.Date{Year: wall.Year(), Month: int(wall.Month()), Day: wall.Day()}, kmp.Clock{Hour: wall.Hour()}, 0}
			got := d.in(zone)
			if !last.IsZero() && got.Sub(last) != time.Hour {
				t.Fatalf("%s: %s after %s", name, got, last)
			}
			if got.Hour() != wall.Hour() || got.Day() != wall.Day() {
				t.Fatalf("%s: %s, want the digits of %s", name, got, wall)
			}
			last, wall = got, wall.Add(time.Hour)
		}
	}
}
