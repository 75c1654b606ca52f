package kmp

import (
	"cmp"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

const (
	maxExponent = 63  // six bits
	maxNoB      = 255 // NoB, "number of bytes", is itself one byte
	maxText     = 800 // characters: more than 255 bytes and a point ever need

	signBit     = 0x80 // SiEx bit 7: the value is negative
	exponentBit = 0x40 // SiEx bit 6: the exponent is negative
)

// Decimal is a number exactly as the meter sends it: sign, integer mantissa of up
// to 255 bytes and a power of ten from -63 to 63 (5512-447 section 4.2). It never
// passes through a binary float, and 12.50 stays 12.50.
//
// Decimals are values: copy them, compare representations with == and numbers with
// [Decimal.Cmp]. The zero Decimal is 0.
type Decimal struct {
	high     string // mantissa bytes above the low eight, without leading zeros
	low      uint64 // the low eight bytes: all of it, but for serial and type numbers
	exponent int8
	negative bool
}

// ErrSyntax says that a text is not a decimal number. It matches [ErrCodec].
var ErrSyntax = fmt.Errorf("%w: not a decimal number", ErrCodec)

// NewDecimal returns mantissa × 10^exponent. The exponent must be within -63 to 63,
// else the error is an *[ExponentError].
func NewDecimal(mantissa int64, exponent int) (Decimal, error) {
	if exponent < -maxExponent || exponent > maxExponent {
		return Decimal{}, &ExponentError{exponent}
	}
	d := Decimal{low: uint64(mantissa), exponent: int8(exponent), negative: mantissa < 0}
	if d.negative {
		d.low = -d.low
	}
	return d, nil
}

// ParseDecimal reads a decimal text such as "227.445", "-12.50" or "255E3". The
// digits after the point are kept. Errors wrap [ErrSyntax] (NaN and infinities are
// no decimals), or are an *[ExponentError] or a *[LengthError] when the wire format
// cannot say the number exactly.
func ParseDecimal(s string) (Decimal, error) {
	syntax := func() (Decimal, error) { return Decimal{}, fmt.Errorf("%w: %.40q", ErrSyntax, s) }
	if len(s) > maxText {
		return syntax()
	}
	digits, negative := strings.CutPrefix(s, "-")
	if !negative {
		digits = strings.TrimPrefix(digits, "+")
	}
	exponent := 0
	if i := strings.IndexAny(digits, "eE"); i >= 0 {
		e, err := strconv.ParseInt(digits[i+1:], 10, 31)
		if err != nil && !errors.Is(err, strconv.ErrRange) { // out of range stays the nearest: too large as well
			return syntax()
		}
		digits, exponent = digits[:i], int(e)
	}
	whole, fraction, point := strings.Cut(digits, ".")
	if whole == "" || point && fraction == "" {
		return syntax()
	}
	digits = whole + fraction
	exponent -= len(fraction)
	if strings.Trim(digits, "0123456789") != "" {
		return syntax()
	}
	mantissa, _ := new(big.Int).SetString(digits, 10) // digits, at least one
	return decimalFromBig(negative, mantissa, exponent)
}

// decimalFromBig builds a Decimal from a mantissa that is not negative, moving
// zeros between mantissa and exponent where one of the two would not fit.
func decimalFromBig(negative bool, mantissa *big.Int, exponent int) (Decimal, error) {
	asked := exponent
	if mantissa.Sign() == 0 {
		exponent = min(max(exponent, -maxExponent), maxExponent)
	}
	if exponent > maxExponent {
		if exponent > maxExponent+maxText {
			return Decimal{}, &ExponentError{asked}
		}
		mantissa = new(big.Int).Mul(mantissa, power10(exponent-maxExponent))
		exponent = maxExponent
	}
	if exponent < -maxExponent {
		if exponent < -maxExponent-maxText {
			return Decimal{}, &ExponentError{asked}
		}
		quotient, rest := new(big.Int).QuoRem(mantissa, power10(-maxExponent-exponent), new(big.Int))
		if rest.Sign() != 0 {
			return Decimal{}, &ExponentError{asked}
		}
		mantissa, exponent = quotient, -maxExponent
	}
	for ten := big.NewInt(10); mantissa.BitLen() > 8*maxNoB && exponent < maxExponent; exponent++ {
		quotient, rest := new(big.Int).QuoRem(mantissa, ten, new(big.Int))
		if rest.Sign() != 0 {
			break
		}
		mantissa = quotient
	}
	raw := mantissa.Bytes()
	if len(raw) > maxNoB {
		return Decimal{}, &LengthError{What: "mantissa", Want: maxNoB, Got: len(raw)}
	}
	d := decimalFromBytes(raw)
	d.exponent, d.negative = int8(exponent), negative
	return d, nil
}

func power10(n int) *big.Int {
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
}

// decimalFromBytes reads an unsigned mantissa, most significant byte first.
func decimalFromBytes(raw []byte) Decimal {
	var d Decimal
	if len(raw) > 8 {
		high := raw[:len(raw)-8]
		for len(high) > 0 && high[0] == 0 {
			high = high[1:]
		}
		d.high = string(high)
		raw = raw[len(raw)-8:]
	}
	for _, b := range raw {
		d.low = d.low<<8 | uint64(b)
	}
	return d
}

// decodeNumber is the number that SiEx and mantissa say.
func decodeNumber(siEx byte, raw []byte) Decimal {
	d := decimalFromBytes(raw)
	d.negative = siEx&signBit != 0
	d.exponent = int8(siEx & maxExponent)
	if siEx&exponentBit != 0 {
		d.exponent = -d.exponent
	}
	return d
}

// DecodeDecimal reads a number in the wire's format from the front of data, NoB,
// SiEx and NoB bytes of mantissa, and returns how many bytes it took. Numbers are
// sign and magnitude, not two's complement. Too few bytes, or a NoB of 0, give a
// *[LengthError].
func DecodeDecimal(data []byte) (d Decimal, n int, err error) {
	if len(data) < 2 {
		return Decimal{}, 0, &LengthError{"number", 3, len(data), true}
	}
	nob := int(data[0])
	if nob == 0 {
		return Decimal{}, 0, &LengthError{"mantissa", 1, 0, true}
	}
	if len(data) < 2+nob {
		return Decimal{}, 0, &LengthError{"mantissa", nob, len(data) - 2, false}
	}
	return decodeNumber(data[1], data[2:2+nob]), 2 + nob, nil
}

// AppendDecimal appends d in the wire's format with a mantissa of width bytes, 1 to
// 255, or of as few as possible when width is 0. A mantissa that does not fit gives
// a *[LengthError]: nothing is ever rounded.
func AppendDecimal(dst []byte, d Decimal, width int) ([]byte, error) {
	if err := inRange("width of a number", width, 0, maxNoB); err != nil {
		return dst, err
	}
	least := d.width()
	if width == 0 {
		width = max(1, least)
	}
	if least > width {
		return dst, &LengthError{What: "mantissa of " + d.String(), Want: width, Got: least}
	}
	dst = append(dst, byte(width), d.siEx())
	for i := width - 1; i >= 0; i-- {
		var b byte
		if i < 8 {
			b = byte(d.low >> (8 * i))
		} else if j := len(d.high) - 1 - (i - 8); j >= 0 {
			b = d.high[j]
		}
		dst = append(dst, b)
	}
	return dst, nil
}

// siEx is the byte that holds the sign and the exponent.
func (d Decimal) siEx() byte {
	b := byte(d.exponent)
	if d.exponent < 0 {
		b = byte(-d.exponent) | exponentBit
	}
	if d.negative {
		b |= signBit
	}
	return b
}

// width is the least number of bytes that hold the mantissa, 0 for zero.
func (d Decimal) width() int {
	if d.high != "" {
		return len(d.high) + 8
	}
	n := 0
	for v := d.low; v != 0; v >>= 8 {
		n++
	}
	return n
}

// Exponent is the power of ten; -2 means two digits after the point.
func (d Decimal) Exponent() int { return int(d.exponent) }

// IsZero reports whether the number is 0, with whatever sign and exponent.
func (d Decimal) IsZero() bool { return d.high == "" && d.low == 0 }

// mantissa is the integer without sign and exponent.
func (d Decimal) mantissa() *big.Int {
	m := new(big.Int).SetBytes([]byte(d.high))
	return m.Or(m.Lsh(m, 64), new(big.Int).SetUint64(d.low))
}

// AppendText appends the number in plain digits, with exactly as many after the
// point as the exponent says; a positive exponent is written out as zeros. The
// error is always nil.
func (d Decimal) AppendText(dst []byte) ([]byte, error) {
	if d.negative {
		dst = append(dst, '-')
	}
	start := len(dst)
	if d.high == "" {
		dst = strconv.AppendUint(dst, d.low, 10)
	} else {
		dst = d.mantissa().Append(dst, 10)
	}
	if d.exponent >= 0 {
		if !d.IsZero() { // not 000
			for range d.exponent {
				dst = append(dst, '0')
			}
		}
		return dst, nil
	}
	fraction := int(-d.exponent)
	for len(dst)-start <= fraction { // at least one digit before the point
		dst = slices.Insert(dst, start, '0')
	}
	return slices.Insert(dst, len(dst)-fraction, '.'), nil
}

// String returns what [Decimal.AppendText] appends.
func (d Decimal) String() string {
	var buf [32]byte
	text, _ := d.AppendText(buf[:0])
	return string(text)
}

// MarshalText implements [encoding.TextMarshaler].
func (d Decimal) MarshalText() ([]byte, error) { return d.AppendText(nil) }

// UnmarshalText implements [encoding.TextUnmarshaler] with [ParseDecimal].
func (d *Decimal) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDecimal(string(text))
	return err
}

// MarshalJSON returns the number with the digits that the meter sent.
func (d Decimal) MarshalJSON() ([]byte, error) { return d.AppendText(nil) }

// UnmarshalJSON reads a JSON number. It refuses null: no number is not 0.
func (d *Decimal) UnmarshalJSON(text []byte) error { return d.UnmarshalText(text) }

// Float64 returns the nearest binary float. Digits may be lost: sums and
// comparisons belong on the Decimal.
func (d Decimal) Float64() float64 {
	f, _ := strconv.ParseFloat(d.String(), 64) // the range of 255 bytes × 10^63 is exceeded as ±Inf
	return f
}

// Int64 returns the number as an integer; ok is false when it has a fraction or
// does not fit.
func (d Decimal) Int64() (v int64, ok bool) {
	m := d.mantissa()
	if d.exponent >= 0 {
		m.Mul(m, power10(int(d.exponent)))
	} else if _, rest := m.QuoRem(m, power10(int(-d.exponent)), new(big.Int)); rest.Sign() != 0 {
		return 0, false
	}
	if d.negative {
		m.Neg(m)
	}
	return m.Int64(), m.IsInt64()
}

// Shift returns the number times 10^n, exactly. The error is an *[ExponentError] or
// a *[LengthError] when the wire format cannot say it.
func (d Decimal) Shift(n int) (Decimal, error) {
	e := int(d.exponent) + n
	if e >= -maxExponent && e <= maxExponent {
		d.exponent = int8(e)
		return d, nil
	}
	return decimalFromBig(d.negative, d.mantissa(), e)
}

// Cmp compares two numbers by value: -1 when d is less than o, 0 when they are
// equal (12.5 and 12.50 are), 1 when d is greater.
func (d Decimal) Cmp(o Decimal) int {
	if d.high == "" && o.high == "" && d.exponent == o.exponent && !d.negative && !o.negative {
		return cmp.Compare(d.low, o.low)
	}
	a, b := d.signed(), o.signed()
	if shift := int(d.exponent) - int(o.exponent); shift >= 0 {
		a.Mul(a, power10(shift))
	} else {
		b.Mul(b, power10(-shift))
	}
	return a.Cmp(b)
}

// Add returns the sum of two numbers, exactly, with the digits of the finer one. The error
// is an *[ExponentError] or a *[LengthError] when the wire format cannot say it.
func (d Decimal) Add(o Decimal) (Decimal, error) {
	a, b := d.signed(), o.signed()
	exponent := min(int(d.exponent), int(o.exponent))
	a.Mul(a, power10(int(d.exponent)-exponent))
	b.Mul(b, power10(int(o.exponent)-exponent))
	a.Add(a, b)
	return decimalFromBig(a.Sign() < 0, a.Abs(a), exponent)
}

// Neg returns the number with the other sign; 0 stays 0.
func (d Decimal) Neg() Decimal {
	d.negative = !d.negative && !d.IsZero()
	return d
}

func (d Decimal) signed() *big.Int {
	m := d.mantissa()
	if d.negative {
		m.Neg(m)
	}
	return m
}
