package kmp_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
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

// Two rows of a MULTICAL 603's year log. The second one has bare values on the wire;
// decoded, both are complete.
func ExampleLogByIDAnswer() {
	frame, err := kmp.DecodeFrame(wire("40 3F B8 1B F9 02 00 02 01 00 00 00 02 00 00 00 02 00 C0 03 EB 30 04 00 00 03 F8 05 00 03 D0 F5 AA 3A 0D"))
	if err != nil {
		fmt.Println(err)
		return
	}
	var page kmp.LogByIDAnswer
	if err := page.DecodeData(frame.Data); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(page.Log, "log:", page.Info)
	for _, row := range page.Rows {
		for _, register := range row.Registers {
			value, err := register.Value()
			fmt.Println(row.ID, register.ID, value, err)
		}
	}
	// Output:
	// year log: newest, oldest
	// 2 1003 2026-01-01 <nil>
	// 1 1003 2025-01-01 <nil>
}

// Two sub-commands of the logger are known by their names alone.
func ExampleNewLogRequest() {
	_, err := kmp.NewLogRequest(kmp.LogGetNextFormat)
	fmt.Println(err)
	fmt.Println(errors.Is(err, kmp.ErrUnknownLayout), errors.Is(err, kmp.ErrUnknownCommand))
	// Output:
	// kmp: unknown command: no public layout: Logger GetLogNextFormat
	// true true
}

// The whole hour log of a meter, newest rows first. Each answer goes as far back as the
// meter's buffer reaches; the next request goes on from there.
func ExampleConn_LogByID() {
	conn := kmp.NewConn(meterWithLog(), kmp.Options{})
	defer conn.Close()
	page, err := conn.LogLast(context.Background(), kmp.HeatMeter, kmp.LogHour, 0, 24, 60)
	for err == nil {
		for _, row := range page.Rows {
			energy, err := row.Registers[0].Value()
			fmt.Println(row.ID, energy, err)
		}
		if page.Info&kmp.LogAtOldest != 0 || len(page.Rows) == 0 {
			return
		}
		page, err = conn.LogByID(context.Background(), kmp.HeatMeter, kmp.LogHour, page.Rows[len(page.Rows)-1].ID-1, 24, 60)
	}
	fmt.Println(err)
	// Output:
	// 645 227.447 <nil>
	// 644 227.446 <nil>
	// 643 227.445 <nil>
}

// meterWithLog is a line to a meter whose buffer holds two rows.
func meterWithLog() kmp.Line {
	row := func(id uint32, raw string) kmp.LogRow {
		return kmp.LogRow{ID: id, Registers: []kmp.Register{{ID: 60, Unit: kmp.UnitGJ, SiEx: 0x43, Raw: wire(raw)}}}
	}
	last := &kmp.LogLastAnswer{LogPage: kmp.LogPage{
		Log: kmp.LogHour, First: 645, Newest: 645, Info: kmp.LogMore | kmp.LogAtNewest,
		Rows: []kmp.LogRow{row(645, "00 03 78 77"), row(644, "00 03 78 76")},
	}}
	older := &kmp.LogByIDAnswer{LogPage: kmp.LogPage{
		Log: kmp.LogHour, First: 643, Newest: 645, Info: kmp.LogAtOldest,
		Rows: []kmp.LogRow{row(643, "00 03 78 75")},
	}}
	client, meter := net.Pipe()
	go func() {
		requests := kmp.NewReader(meter, kmp.ToMeter)
		for _, answer := range []kmp.Answer{last, older} {
			if _, err := requests.Next(); err != nil {
				return
			}
			out, err := kmp.AppendMessage(nil, kmp.FromMeter, kmp.HeatMeter, answer)
			if err != nil {
				return
			}
			meter.Write(out)
		}
	}()
	return client
}
