package kmp

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// decimalCases drive encode and decode of numbers on the wire and as text.
var decimalCases = []struct {
	name string
	wire string // NoB, SiEx, mantissa
	text string
}{
	{"zero", "01 00 00", "0"},
	{"zero with digits", "02 42 00 00", "0.00"},
	{"zero with a great exponent", "01 3F 00", "0"},
	{"minus zero", "01 80 00", "-0"},
	{"document: -123.45", "04 C2 00 00 30 39", "-123.45"},
	{"document: 87654321 E3", "04 03 05 39 7F B1", "87654321000"},
	{"document: 255 E3", "01 03 FF", "255000"},
	{"403: 53.65 °C", "02 42 14 F5", "53.65"},
	{"one byte after the point", "02 43 00 FB", "0.251"},
	{"trailing zero stays", "02 42 04 E2", "12.50"},
	{"smaller than one", "01 42 01", "0.01"},
	{"greatest in 8 bytes", "08 00 FF FF FF FF FF FF FF FF", "18446744073709551615"},
	{"least in 8 bytes", "08 80 FF FF FF FF FF FF FF FF", "-18446744073709551615"},
	{"least in 9 bytes", "09 00 01 00 00 00 00 00 00 00 00", "18446744073709551616"},
	{"9 bytes with digits", "09 C3 01 00 00 00 00 00 00 00 00", "-18446744073709551.616"},
	{"382J: 10 bytes", "0A 00 00 00 00 00 00 00 00 E6 2F B0", "15085488"},
	{"least exponent", "01 7F 01", "0." + strings.Repeat("0", 62) + "1"},
	{"greatest exponent", "01 3F 01", "1" + strings.Repeat("0", 63)},
}

func TestDecimalWire(t *testing.T) {
	for _, tt := range decimalCases {
		t.Run(tt.name, func(t *testing.T) {
			wire := unhex(t, tt.wire)
			d, n, err := DecodeDecimal(append(wire, 0xAA))
			if err != nil || n != len(wire) {
				t.Fatalf("took %d bytes (error %v), want %d", n, err, len(wire))
			}
			if d.String() != tt.text {
				t.Errorf("decoded %s, want %s", d, tt.text)
			}
			if got, err := AppendDecimal([]byte("x"), d, len(wire)-2); err != nil || !bytes.Equal(got, append([]byte("x"), wire...)) {
				t.Errorf("encoded % X (error %v), want % X", got, err, wire)
			}
			if back := number(t, tt.text); back.Cmp(d) != 0 {
				t.Errorf("parsed %s, want %s", back, tt.text)
			}
		})
	}
}

func TestDecodeDecimalErrors(t *testing.T) {
	for _, tt := range []struct {
		name, wire string
		want       *LengthError
	}{
		{"nothing", "", &LengthError{"number", 3, 0, true}},
		{"NoB alone", "04", &LengthError{"number", 3, 1, true}},
		{"NoB 0", "00 00", &LengthError{"mantissa", 1, 0, true}},
		{"no mantissa", "01 00", &LengthError{"mantissa", 1, 0, false}},
		{"cut mantissa", "04 42 00 00 30", &LengthError{"mantissa", 4, 3, false}},
		{"cut mantissa of 255", "FF 42" + strings.Repeat("00", 254), &LengthError{"mantissa", 255, 254, false}},
	} {
		_, n, err := DecodeDecimal(unhex(t, tt.wire))
		if n != 0 || !reflect.DeepEqual(err, error(tt.want)) || !errors.Is(err, ErrTruncated) {
			t.Errorf("%s: %d bytes, error %v; want %v", tt.name, n, err, tt.want)
		}
	}
}

func TestAppendDecimalWidth(t *testing.T) {
	for _, tt := range []struct {
		text  string
		width int
		want  string // "": it does not fit
	}{
		{"0", 0, "01 00 00"},
		{"0", 4, "04 00 00 00 00 00"},
		{"255", 0, "01 00 FF"},
		{"256", 0, "02 00 01 00"},
		{"256", 1, ""},
		{"2.56", 3, "03 42 00 01 00"},
		{"-1", 0, "01 80 01"},
		{"18446744073709551615", 0, "08 00 FF FF FF FF FF FF FF FF"},
		{"18446744073709551616", 8, ""},
		{"18446744073709551616", 0, "09 00 01 00 00 00 00 00 00 00 00"},
		{"18446744073709551616", 11, "0B 00 00 00 01 00 00 00 00 00 00 00 00"},
		{"4294967296", 4, ""},
	} {
		d := number(t, tt.text)
		got, err := AppendDecimal([]byte("x"), d, tt.width)
		var long *LengthError
		switch {
		case tt.want == "":
			if !errors.As(err, &long) || long.Want != tt.width || long.Got != tt.width+1 || !strings.Contains(err.Error(), tt.text) || string(got) != "x" {
				t.Errorf("%s in %d bytes: % X, error %v; want a *LengthError", tt.text, tt.width, got, err)
			}
		case err != nil || !bytes.Equal(got[1:], unhex(t, tt.want)):
			t.Errorf("%s in %d bytes: % X (error %v), want %s", tt.text, tt.width, got, err, tt.want)
		}
	}
	for _, width := range []int{-1, 256} {
		var out *RangeError
		if _, err := AppendDecimal(nil, Decimal{}, width); !errors.As(err, &out) || out.Got != int64(width) || out.Max != 255 {
			t.Errorf("width %d: error %v, want a *RangeError", width, err)
		}
	}
}

// rat is what the bytes on the wire say, by the definition and not by this package.
func rat(siEx byte, mantissa []byte) *big.Rat {
	m := new(big.Int).SetBytes(mantissa)
	if siEx&0x80 != 0 {
		m.Neg(m)
	}
	power := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(siEx&0x3F)), nil)
	if siEx&0x40 != 0 {
		return new(big.Rat).SetFrac(m, power)
	}
	return new(big.Rat).SetInt(m.Mul(m, power))
}

func textRat(t *testing.T, s string) *big.Rat {
	t.Helper()
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		t.Fatalf("%q is not a number", s)
	}
	return r
}

// checkDecimal holds every property of one number, given as it is on the wire.
func checkDecimal(t *testing.T, wire []byte) {
	t.Helper()
	siEx, mantissa := wire[1], wire[2:]
	want := rat(siEx, mantissa)

	d, n, err := DecodeDecimal(wire)
	if err != nil || n != len(wire) {
		t.Fatalf("% X: took %d bytes, error %v", wire, n, err)
	}
	text := d.String()
	if textRat(t, text).Cmp(want) != 0 {
		t.Fatalf("% X: text %s is %s, want %s", wire, text, textRat(t, text), want)
	}

	// Back to the wire, in the same width; the sign of an exponent of 0 means nothing.
	canonical := bytes.Clone(wire)
	if siEx&0x7F == 0x40 {
		canonical[1] &^= 0x40
	}
	if back, err := AppendDecimal(nil, d, len(mantissa)); err != nil || !bytes.Equal(back, canonical) {
		t.Fatalf("% X: encoded % X (error %v)", wire, back, err)
	}
	least, err := AppendDecimal(nil, d, 0)
	if trimmed := bytes.TrimLeft(mantissa, "\x00"); err != nil || int(least[0]) != max(1, len(trimmed)) || !bytes.HasSuffix(least, trimmed) {
		t.Fatalf("% X: least encoding % X (error %v)", wire, least, err)
	}
	if again, _, err := DecodeDecimal(least); err != nil || again != d {
		t.Fatalf("% X: least encoding decodes as %v (error %v)", wire, again, err)
	}

	// Text and JSON.
	parsed, err := ParseDecimal(text)
	if err != nil || parsed.Cmp(d) != 0 || textRat(t, parsed.String()).Cmp(want) != 0 {
		t.Fatalf("% X: %s parses as %s (error %v)", wire, text, parsed, err)
	}
	if d.Exponent() <= 0 && parsed != d && !(d.Exponent() < 0 && d.IsZero()) {
		t.Fatalf("% X: %s parses as another representation: %#v, want %#v", wire, text, parsed, d)
	}
	js, err := json.Marshal(d)
	var read Decimal
	if err != nil || string(js) != text || json.Unmarshal(js, &read) != nil || read != parsed {
		t.Fatalf("% X: JSON %s (error %v) reads as %s", wire, js, err, read)
	}

	// Conversions.
	i, ok := d.Int64()
	if isInt := want.IsInt() && want.Num().IsInt64(); ok != isInt || ok && i != want.Num().Int64() {
		t.Fatalf("% X: Int64 %d, %t; want %s", wire, i, ok, want)
	}
	if f, _ := want.Float64(); d.Float64() != f {
		t.Fatalf("% X: Float64 %v, want %v", wire, d.Float64(), f)
	}
	if d.IsZero() != (want.Sign() == 0) {
		t.Fatalf("% X: IsZero %t", wire, d.IsZero())
	}
}

// Every width, every exponent, both signs; mantissas of each kind. Up to 16 bytes and
// with 255 every combination.
func TestDecimalEveryWidthAndExponent(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for width := 1; width <= 255; width++ {
		for siEx := range 256 {
			if width > 16 && width < 255 && siEx%16 != width%16 {
				continue // between the widths that meters use and the greatest, some of each
			}
			wire := append([]byte{byte(width), byte(siEx)}, randomBytes(rng, width)...)
			switch rng.IntN(8) {
			case 0:
				clear(wire[2:])
			case 1:
				for i := range wire[2:] {
					wire[2+i] = 0xFF
				}
			case 2:
				clear(wire[2 : 2+rng.IntN(width)])
			case 3:
				clear(wire[2+rng.IntN(width):])
			}
			checkDecimal(t, wire)
		}
	}
}

func TestNewDecimal(t *testing.T) {
	for _, tt := range []struct {
		mantissa int64
		exponent int
		want     string
	}{
		{1250, -2, "12.50"},
		{-1250, -2, "-12.50"},
		{255, 3, "255000"},
		{0, 0, "0"},
		{math.MaxInt64, 0, "9223372036854775807"},
		{math.MinInt64, 0, "-9223372036854775808"},
		{math.MinInt64, -19, "-0.9223372036854775808"},
		{7, 63, "7" + strings.Repeat("0", 63)},
		{7, -63, "0." + strings.Repeat("0", 62) + "7"},
	} {
		d, err := NewDecimal(tt.mantissa, tt.exponent)
		if err != nil || d.String() != tt.want || d.Exponent() != tt.exponent {
			t.Errorf("%d, %d: %s (error %v), want %s", tt.mantissa, tt.exponent, d, err, tt.want)
		}
	}
	for _, e := range []int{-64, 64, math.MinInt, math.MaxInt} {
		var exp *ExponentError
		if _, err := NewDecimal(1, e); !errors.As(err, &exp) || exp.Got != e {
			t.Errorf("exponent %d: error %v, want an *ExponentError", e, err)
		}
	}
	if (Decimal{}).String() != "0" || !(Decimal{}).IsZero() {
		t.Error("the zero Decimal is not 0")
	}
}

func TestParseDecimal(t *testing.T) {
	for _, tt := range []struct {
		text, want string
		exponent   int
	}{
		{"0", "0", 0},
		{"-0", "-0", 0},
		{"+5", "5", 0},
		{"007", "7", 0},
		{"227.445", "227.445", -3},
		{"-12.50", "-12.50", -2},
		{"12.000", "12.000", -3},
		{"255E3", "255000", 3},
		{"255e+3", "255000", 3},
		{"255e-03", "0.255", -3},
		{"2.55E2", "255", 0},
		{"2.5E2", "250", 1},
		{"0E99999", "0", 63},
		{"0E-99999", "0." + strings.Repeat("0", 63), -63},
		{"0e99999999999999999999", "0", 63},
		{"1e64", "1" + strings.Repeat("0", 64), 63},
		{"100e-65", "0." + strings.Repeat("0", 62) + "1", -63},
		{"1." + strings.Repeat("0", 100), "1." + strings.Repeat("0", 63), -63},
		{"1" + strings.Repeat("0", 650), "1" + strings.Repeat("0", 650), 36},
	} {
		d, err := ParseDecimal(tt.text)
		if err != nil || d.String() != tt.want || d.Exponent() != tt.exponent {
			t.Errorf("%.50q: %s, exponent %d (error %v), want %s, %d", tt.text, d, d.Exponent(), err, tt.want, tt.exponent)
		}
	}
}

func TestParseDecimalErrors(t *testing.T) {
	for _, text := range []string{
		"", " ", "-", "+", ".", "-.", "1.", ".5", "1..2", "1.2.3", "--1", "+-1", "1-", " 1", "1 ", "1,5", "1_000", "0x10", "٣", "²",
		"NaN", "nan", "Inf", "-Infinity", "E5", "1e", "1e+", "1e1.5", "1ee1", "1e 1", "1e_1", "null", `"1"`, "\x00", "1\n", strings.Repeat("1", 801),
	} {
		if d, err := ParseDecimal(text); !errors.Is(err, ErrSyntax) || d != (Decimal{}) {
			t.Errorf("%.50q: %s, error %v; want ErrSyntax", text, d, err)
		} else if len(err.Error()) > 200 {
			t.Errorf("%.50q: the error has %d bytes", text, len(err.Error()))
		}
	}
	for text, want := range map[string]int{"1e-64": -64, "1.5e-63": -64, "1e40000": 40000, "-1e-40000": -40000, "1e99999999999999999999": 1<<30 - 1} {
		var exp *ExponentError
		if _, err := ParseDecimal(text); !errors.As(err, &exp) || exp.Got != want || !errors.Is(err, ErrCodec) {
			t.Errorf("%s: error %v, want an *ExponentError of %d", text, err, want)
		}
	}
	greatest := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 8*255), big.NewInt(1))
	if d, err := ParseDecimal(greatest.String()); err != nil || d.String() != greatest.String() {
		t.Errorf("the greatest number of 255 bytes: %s (error %v)", d, err)
	}
	for _, text := range []string{greatest.Add(greatest, big.NewInt(1)).String(), "1e700", strings.Repeat("9", 700)} {
		var long *LengthError
		if d, err := ParseDecimal(text); !errors.As(err, &long) || long.Want != 255 || long.Got < 256 {
			t.Errorf("%.20s…: %s, error %v; want a *LengthError", text, d, err)
		}
	}
}

func TestDecimalUnmarshal(t *testing.T) {
	var v struct{ D Decimal }
	if err := json.Unmarshal([]byte(`{"D": -12.50}`), &v); err != nil || v.D.String() != "-12.50" {
		t.Errorf("%s (error %v)", v.D, err)
	}
	for _, text := range []string{`{"D": null}`, `{"D": "1"}`, `{"D": true}`, `{"D": [1]}`} {
		if err := json.Unmarshal([]byte(text), &v); !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: error %v, want ErrSyntax", text, err)
		}
	}
	m := map[Decimal]int{number(t, "1.50"): 1} // a text, and so a key
	if js, err := json.Marshal(m); err != nil || string(js) != `{"1.50":1}` {
		t.Errorf("%s (error %v)", js, err)
	}
}

func TestDecimalShift(t *testing.T) {
	for _, tt := range []struct {
		text string
		n    int
		want string
	}{
		{"12.50", 1, "125.0"},
		{"12.50", 3, "12500"},
		{"12.50", -1, "1.250"},
		{"-7", 0, "-7"},
		{"5", 63, "5" + strings.Repeat("0", 63)},
		{"5", 64, "5" + strings.Repeat("0", 64)},
		{"500", -65, "0." + strings.Repeat("0", 62) + "5"},
	} {
		d, err := number(t, tt.text).Shift(tt.n)
		if err != nil || d.String() != tt.want {
			t.Errorf("%s by %d: %s (error %v), want %s", tt.text, tt.n, d, err, tt.want)
		}
	}
	var exp *ExponentError
	if _, err := number(t, "5").Shift(-64); !errors.As(err, &exp) || exp.Got != -64 {
		t.Errorf("error %v, want an *ExponentError", err)
	}
	var long *LengthError
	if _, err := number(t, "5").Shift(800); !errors.As(err, &long) {
		t.Errorf("error %v, want a *LengthError", err)
	}
}

func TestDecimalCmp(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 14))
	type pair struct {
		d Decimal
		r *big.Rat
	}
	var all []pair
	for _, tt := range decimalCases {
		all = append(all, pair{number(t, tt.text), textRat(t, tt.text)})
	}
	for _, text := range []string{"12.5", "12.50", "1250e-2", "-12.5", "0.000", "-0.0"} {
		all = append(all, pair{number(t, text), textRat(t, text)})
	}
	for range 60 {
		raw := randomBytes(rng, 1+rng.IntN(12))
		siEx := byte(rng.Uint32()) & 0xC3
		all = append(all, pair{decodeNumber(siEx, raw), rat(siEx, raw)})
	}
	for _, a := range all {
		for _, b := range all {
			if got, want := a.d.Cmp(b.d), a.r.Cmp(b.r); got != want {
				t.Errorf("%s and %s: %d, want %d", a.d, b.d, got, want)
			}
		}
	}
	if number(t, "12.5") == number(t, "12.50") {
		t.Error("12.5 and 12.50 have one representation")
	}
}

func TestDecimalAdd(t *testing.T) {
	for _, tt := range []struct{ a, b, sum, difference string }{
		{"227.445", "0.055", "227.500", "227.390"},
		{"12.5", "12.50", "25.00", "0.00"},
		{"-3", "1.25", "-1.75", "-4.25"},
		{"0", "0", "0", "0"},
		{"18446744073709551615", "1", "18446744073709551616", "18446744073709551614"},
		{"0.000001", "1000000", "1000000.000001", "-999999.999999"},
	} {
		a, errA := ParseDecimal(tt.a)
		b, errB := ParseDecimal(tt.b)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if sum, err := a.Add(b); err != nil || sum.String() != tt.sum {
			t.Errorf("%s + %s = %s, %v; want %s", tt.a, tt.b, sum, err, tt.sum)
		}
		if difference, err := a.Add(b.Neg()); err != nil || difference.String() != tt.difference {
			t.Errorf("%s - %s = %s, %v; want %s", tt.a, tt.b, difference, err, tt.difference)
		}
	}
}
