package numbers

import (
	"testing"
	"time"

	"kmp2mqtt/kmp"
)

// value is a register as it would be decoded.
func value(t testing.TB, id uint16, unit kmp.Unit, digits string) Value {
	t.Helper()
	d, err := kmp.ParseDecimal(digits)
	if err != nil {
		t.Fatal(err)
	}
	r, err := kmp.NewRegister(id, unit, d, 0)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Decode(r)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Two requests of eight registers and the nominal flow, as a heat meter is read.
func BenchmarkJudge(b *testing.B) {
	values := []Value{
		value(b, 60, kmp.UnitGJ, "227.445"), value(b, 266, kmp.UnitWh, "3179166"),
		value(b, 68, kmp.UnitCubicMetre, "2131.93"), value(b, 239, kmp.UnitLitre, "2131934"),
		value(b, 74, kmp.UnitLitrePerH, "128"), value(b, 80, kmp.UnitKW, "5.2"),
		value(b, 86, kmp.UnitCelsius, "69.12"), value(b, 87, kmp.UnitCelsius, "33.41"),
		value(b, 89, kmp.UnitKelvin, "35.71"), value(b, 97, kmp.UnitCubicMC, "150432"),
		value(b, 110, kmp.UnitCubicMC, "71234"), value(b, 99, kmp.UnitNumber, "0"),
		value(b, 63, kmp.UnitGJ, "0.000"), value(b, 267, kmp.UnitWh, "0"),
		value(b, 1004, kmp.UnitHour, "7039"), value(b, 113, kmp.UnitNumber, "2"),
		value(b, 259, kmp.UnitCubicMPerH, "1.5"),
	}
	at := time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)
	var s State
	b.ReportAllocs()
	for b.Loop() {
		at = at.Add(32 * time.Second)
		result := s.Judge(at, "MULTICAL 403", values)
		if len(result.Unknown) > 6 {
			b.Fatal(result.Unknown)
		}
	}
}
