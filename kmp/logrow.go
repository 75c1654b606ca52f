package kmp

import (
	"encoding/binary"
	"fmt"
)

// Rows of a log on the wire: the first one has registers as in a GetRegister answer,
// the ones after it have bare values in the same format.

// rowWidth is the length of a row of bare values.
func rowWidth(format []Register) (width int) {
	for _, r := range format {
		width += len(r.Raw)
	}
	return width
}

// decodeFirstRow decodes registers from data[at:] on and says where they end. Values
// are parts of data.
func decodeFirstRow(registers []Register, data []byte, at int) (end int, err error) {
	for i := range registers {
		r, size, err := decodeRegister(data[at:])
		if err != nil {
			return 0, dataError(len(data), err)
		}
		registers[i] = r
		at += size
	}
	return at, nil
}

// appendRows appends the first row and those whose bare values are in data, count
// rows in all; each but the first has head bytes before its values. The caller sets
// the ids. The rows share one piece of memory and cannot grow into one another.
func appendRows(rows []LogRow, first []Register, data []byte, count, head int) []LogRow {
	n := len(first)
	all := make([]Register, 0, count*n)
	all = append(all, first...)
	rows = append(rows, LogRow{Registers: all[:n:n]})
	for len(rows) < count {
		data = data[head:]
		from := len(all)
		for _, r := range first {
			w := len(r.Raw)
			r.Raw, data = data[:w:w], data[w:]
			all = append(all, r)
		}
		rows = append(rows, LogRow{Registers: all[from:len(all):len(all)]})
	}
	return rows
}

// appendRow appends one row: registers when it is the first, bare values in their
// format when not.
func appendRow(dst []byte, first bool, format, row []Register) ([]byte, error) {
	if len(row) != len(format) {
		return dst, &RangeError{What: "number of registers in a row", Got: int64(len(row)), Min: int64(len(format)), Max: int64(len(format))}
	}
	for i, r := range row {
		f := format[i]
		if first {
			var err error
			if dst, err = appendRegister(dst, r); err != nil {
				return dst, err
			}
			continue
		}
		if r.ID != f.ID || r.Unit != f.Unit || r.SiEx != f.SiEx {
			return dst, &FormatError{Want: f, Got: r}
		}
		if len(r.Raw) != len(f.Raw) {
			return dst, &LengthError{What: fmt.Sprintf("register %d", r.ID), Want: len(f.Raw), Got: len(r.Raw)}
		}
		dst = append(dst, r.Raw...)
	}
	return dst, nil
}

// decodeRegister decodes a register from the front of data and returns its size.
func decodeRegister(data []byte) (Register, int, error) {
	if len(data) < registerHeader {
		return Register{}, 0, &LengthError{"register", registerHeader, len(data), true}
	}
	end := registerHeader + int(data[3])
	if len(data) < end {
		return Register{}, 0, &LengthError{What: "register", Want: end, Got: len(data)}
	}
	return Register{
		ID:   binary.BigEndian.Uint16(data),
		Unit: Unit(data[2]),
		SiEx: data[4],
		Raw:  data[registerHeader:end:end],
	}, end, nil
}

// appendRegister appends a register. A value of no or more than 255 bytes is a
// *[LengthError].
func appendRegister(dst []byte, r Register) ([]byte, error) {
	if len(r.Raw) == 0 {
		return dst, r.noBytes()
	}
	if n := len(r.Raw); n > maxNoB {
		return dst, &LengthError{What: fmt.Sprintf("register %d", r.ID), Want: maxNoB, Got: n}
	}
	dst = binary.BigEndian.AppendUint16(dst, r.ID)
	dst = append(dst, byte(r.Unit), byte(len(r.Raw)), r.SiEx)
	return append(dst, r.Raw...), nil
}
