package kmp_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"kmp2mqtt/kmp"
)

// wire is bytes as one writes them by hand.
func wire(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// A request for two registers; the CRC's 40 is stuffed.
func ExampleAppendMessage() {
	request := &kmp.GetRegisterRequest{IDs: []uint16{346, 154}}
	out, err := kmp.AppendMessage(nil, kmp.ToMeter, kmp.HeatMeter, request)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("% X\n", out)
	// Output: 80 3F 10 02 01 5A 00 9A 1B BF 2B 0D
}

// The flow temperature of a MULTICAL 403.
func ExampleDecodeMessage() {
	frame, err := kmp.DecodeFrame(wire("40 3F 10 00 56 25 02 42 14 F5 69 DC 0D"))
	if err != nil {
		fmt.Println(err)
		return
	}
	message, err := kmp.DecodeMessage(frame)
	if err != nil {
		fmt.Println(err)
		return
	}
	switch answer := message.(type) {
	case *kmp.GetRegisterAnswer:
		for _, register := range answer.Registers {
			value, err := register.Value()
			fmt.Println(register.ID, value, err)
		}
	case *kmp.GetSerialNoAnswer:
		fmt.Println("serial number", answer.SerialNo)
	}
	// Output: 86 53.65 <nil>
}

// What a frame lacks is found by its type.
func ExampleDecodeFrame() {
	_, err := kmp.DecodeFrame(wire("40 3F 10 00 56 25 02 42 14 F4 69 DC 0D"))
	if checksum, ok := errors.AsType[*kmp.ChecksumError](err); ok {
		fmt.Printf("computed %04X, found %04X\n", checksum.Want, checksum.Got)
	}
	fmt.Println(err)
	fmt.Println(errors.Is(err, kmp.ErrCodec))
	// Output:
	// computed 79FD, found 69DC
	// kmp: data link layer, byte 9: checksum is 69DC, should be 79FD
	// true
}

// An optical head's echo, a damaged answer and a good one.
func ExampleReader() {
	line := bytes.NewReader(wire("80 3F 02 35 E9 0D  00  40 3F 02 00 69 2D 33 CD 5D 0D  40 3F 02 00 69 2D 32 CD 5D 0D"))
	r := kmp.NewReader(line, kmp.FromMeter)
	for {
		frame, err := r.Next()
		var dropped *kmp.FrameError
		switch {
		case err == nil:
			fmt.Printf("%s: % X\n", frame.Command, frame.Data)
		case errors.As(err, &dropped):
			fmt.Println("dropped:", err)
		case errors.Is(err, io.EOF):
			fmt.Println("bytes of no use:", r.Skipped())
			return
		}
	}
	// Output:
	// dropped: kmp: data link layer, byte 6: checksum is CD5D, should be DD7C
	// GetSerialNo: 00 69 2D 32
	// bytes of no use: 17
}

// Numbers keep their digits.
func ExampleDecimal() {
	d, n, err := kmp.DecodeDecimal(wire("02 42 04 E2"))
	fmt.Println(d, n, err)
	js, err := json.Marshal(map[string]any{"flow_temperature": d})
	fmt.Println(string(js), err)
	litres, err := d.Shift(3)
	fmt.Println(litres, err)
	// Output:
	// 12.50 4 <nil>
	// {"flow_temperature":12.50} <nil>
	// 12500 <nil>
}

// The least number of bytes, a chosen one, and one that is too small.
func ExampleAppendDecimal() {
	d, err := kmp.ParseDecimal("-123.45")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, width := range []int{0, 4, 1} {
		out, err := kmp.AppendDecimal(nil, d, width)
		fmt.Printf("% X %v\n", out, err)
	}
	// Output:
	// 02 C2 30 39 <nil>
	// 04 C2 00 00 30 39 <nil>
	//  kmp: mantissa of -123.45 has 2 bytes, should have 1
}

// A value's type follows from the unit in the frame.
func ExampleRegister_Value() {
	for _, r := range []kmp.Register{
		{ID: 60, Unit: kmp.UnitMWh, SiEx: 0x43, Raw: wire("00 00 D6 DE")},
		{ID: 1003, Unit: kmp.UnitDate, Raw: wire("00 03 5B D0")},
		{ID: 1002, Unit: kmp.UnitClock, Raw: wire("00 03 0E 33")},
		{ID: 1058, Unit: kmp.UnitASCII, Raw: wire("30 37 30 34 32 32 4A 41 38 33")},
		{ID: 124, Unit: kmp.UnitDate, Raw: wire("00 00 00 00")}, // nothing has happened yet
	} {
		value, err := r.Value()
		if err != nil {
			fmt.Println(err)
			continue
		}
		switch v := value.(type) {
		case nil:
			fmt.Println(r.ID, "none")
		case kmp.Decimal:
			fmt.Println(r.ID, "number", v)
		case kmp.Date:
			fmt.Println(r.ID, "date", v, "of year", v.Year)
		default:
			fmt.Println(r.ID, v)
		}
	}
	// Output:
	// 60 number 55.006
	// 1003 date 2022-01-12 of year 2022
	// 1002 20:02:43
	// 1058 070422JA83
	// 124 none
}

// A meter's side: an answer with a register.
func ExampleNewRegister() {
	power, err := kmp.ParseDecimal("3.2")
	if err != nil {
		fmt.Println(err)
		return
	}
	register, err := kmp.NewRegister(80, kmp.UnitKW, power, 2)
	if err != nil {
		fmt.Println(err)
		return
	}
	answer := &kmp.GetRegisterAnswer{Registers: []kmp.Register{register}}
	out, err := kmp.AppendMessage(nil, kmp.FromMeter, kmp.HeatMeter, answer)
	fmt.Printf("% X %v\n", out, err)
	// Output: 40 3F 10 00 50 16 02 41 00 20 0B 3E 0D <nil>
}
