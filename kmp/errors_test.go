package kmp

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Every error says what is wrong and where, and is found by errors.Is and errors.As
// however deep it lies.
func TestErrors(t *testing.T) {
	request := []byte{0x80, 0x3F, 0x01, 0x05, 0x8A, 0x0D}
	for _, tt := range []struct {
		err   error
		text  string
		match []error // sentinels
	}{
		{&FrameError{Physical, 3, errUnstuffed}, "kmp: physical layer, byte 3: reserved byte is not escaped", []error{ErrCodec}},
		{&FrameError{DataLink, 2, &ChecksumError{0x774E, 0xC34A}}, "kmp: data link layer, byte 2: checksum is C34A, should be 774E", []error{ErrCodec}},
		{&FrameError{Application, 1, ErrUnknownCommand}, "kmp: application layer, byte 1: unknown command", []error{ErrCodec, ErrUnknownCommand}},
		{&FrameError{Physical, 9, ErrTooLong}, "kmp: physical layer, byte 9: frame too long", []error{ErrCodec, ErrTooLong}},
		{&FrameError{Physical, 9, ErrTruncated}, "kmp: physical layer, byte 9: cut short", []error{ErrCodec, ErrTruncated}},
		{&FrameError{Layer(7), 0, errors.New("elsewhere: x")}, "kmp: layer 7, byte 0: elsewhere: x", []error{ErrCodec}},
		{&ChecksumError{0x079A, 0xFFFF}, "kmp: checksum is FFFF, should be 079A", []error{ErrCodec}},
		{&StuffingError{0x0D}, "kmp: escape 1B is followed by 0D", []error{ErrCodec}},
		{&BoundaryError{"start", 0, 0x55}, "kmp: start byte is 55, should be 80 or 40", []error{ErrCodec}},
		{&BoundaryError{"start", 0x40, 0x80}, "kmp: start byte is 80, should be 40", []error{ErrCodec}},
		{&BoundaryError{"stop", Stop, 0x00}, "kmp: stop byte is 00, should be 0D", []error{ErrCodec}},
		{&AddressError{HeatMeter, LoggerTop}, "kmp: address is 7F, should be 3F", []error{ErrCodec}},
		{&LengthError{"GetType answer", 4, 3, false}, "kmp: GetType answer has 3 bytes, should have 4", []error{ErrCodec, ErrTruncated}},
		{&LengthError{"frame", 4, 3, true}, "kmp: frame has 3 bytes, should have at least 4", []error{ErrCodec, ErrTruncated}},
		{&LengthError{"GetType answer", 4, 5, false}, "kmp: GetType answer has 5 bytes, should have 4", []error{ErrCodec}},
		{&RangeError{"number of registers", 9, 1, 8}, "kmp: number of registers is 9, should be 1 to 8", []error{ErrCodec}},
		{&ExponentError{-64}, "kmp: exponent is -64, should be -63 to 63", []error{ErrCodec}},
		{fmt.Errorf("%w: x", ErrUnknownLayout), "kmp: unknown command: no public layout: x", []error{ErrUnknownCommand}},
		{&FormatError{Register{60, UnitGJ, 0x43, nil}, Register{68, UnitMWh, 0x42, nil}}, "kmp: register 68, unit 03, SiEx 42 in a row, 60, 08, 43 in the first", []error{ErrCodec}},
		{&contextError{"register 60", &RangeError{"day", 32, 1, 31}}, "kmp: register 60: day is 32, should be 1 to 31", []error{ErrCodec}},
		{
			&ExchangeError{Command: CmdGetType, Address: HeatMeter, Request: request, Attempts: 2, Err: ErrNoReply},
			"kmp: GetType at address 3F: no reply (sent 80 3F 01 05 8A 0D, nothing came)",
			[]error{ErrNoReply},
		},
		{
			&ExchangeError{Command: CmdGetType, Address: HeatMeter, Request: request, Received: request, Echo: true, Attempts: 2, Err: ErrNoReply},
			"kmp: GetType at address 3F: no reply (sent 80 3F 01 05 8A 0D, only its echo came)",
			[]error{ErrNoReply},
		},
		{
			&ExchangeError{Command: CmdGetType, Address: HeatMeter, Request: request, Received: []byte{0x40, 0x0D}, Attempts: 1, Err: &FrameError{DataLink, 0, &LengthError{"frame", 4, 0, true}}},
			"kmp: GetType at address 3F: data link layer, byte 0: frame has 0 bytes, should have at least 4 (sent 80 3F 01 05 8A 0D, came 40 0D)",
			[]error{ErrCodec, ErrTruncated},
		},
		{
			&ExchangeError{Command: CmdGetType, Address: HeatMeter, Request: request, Received: make([]byte, 512), Attempts: 1, Err: ErrNoFrame},
			"kmp: GetType at address 3F: malformed data: no frame in what came (sent 80 3F 01 05 8A 0D, came " + strings.Repeat("00 ", 64) + "and 448 bytes more)",
			[]error{ErrNoFrame, ErrCodec},
		},
	} {
		if got := tt.err.Error(); got != tt.text {
			t.Errorf("%T says\n%q, want\n%q", tt.err, got, tt.text)
		}
		wrapped := fmt.Errorf("meter 7: %w", tt.err)
		want := map[error]bool{}
		for _, m := range tt.match {
			want[m] = true
		}
		for _, sentinel := range []error{ErrNoReply, ErrNoFrame, ErrAck, ErrCodec, ErrTruncated, ErrTooLong, ErrUnknownCommand, ErrForeign, ErrSyntax} {
			if errors.Is(wrapped, sentinel) != want[sentinel] {
				t.Errorf("%v matches %v: %t", tt.err, sentinel, !want[sentinel])
			}
		}
	}
}

func TestErrorsAs(t *testing.T) {
	inside := func(err error) error {
		return fmt.Errorf("meter 7: %w", &ExchangeError{Command: CmdGetType, Err: &FrameError{DataLink, 2, err}})
	}
	var (
		checksum *ChecksumError
		stuffing *StuffingError
		boundary *BoundaryError
		address  *AddressError
		length   *LengthError
		outside  *RangeError
		exponent *ExponentError
		format   *FormatError
		frame    *FrameError
		exchange *ExchangeError
	)
	for _, tt := range []struct {
		err error
		as  any
	}{
		{&ChecksumError{1, 2}, &checksum},
		{&StuffingError{3}, &stuffing},
		{&BoundaryError{"stop", 4, 5}, &boundary},
		{&AddressError{6, 7}, &address},
		{&LengthError{"frame", 8, 9, false}, &length},
		{&RangeError{"day", 10, 11, 12}, &outside},
		{&ExponentError{64}, &exponent},
		{&FormatError{Got: Register{ID: 65}}, &format},
		{ErrTruncated, &frame},
		{ErrTruncated, &exchange},
	} {
		if !errors.As(inside(tt.err), tt.as) {
			t.Errorf("%T is not found", tt.as)
		}
	}
	if checksum.Got != 2 || stuffing.Next != 3 || boundary.Got != 5 || address.Got != 7 || length.Got != 9 || outside.Got != 10 || exponent.Got != 64 || format.Got.ID != 65 || frame.Offset != 2 || exchange.Command != CmdGetType {
		t.Error("the errors found lack what they hold")
	}
}

func TestExchangeErrorTimeout(t *testing.T) {
	var timeout interface{ Timeout() bool }
	for err, want := range map[error]bool{ErrNoReply: true, ErrForeign: false} {
		if wrapped := fmt.Errorf("x: %w", &ExchangeError{Err: err}); !errors.As(wrapped, &timeout) || timeout.Timeout() != want {
			t.Errorf("%v is a time-out: %t", err, !want)
		}
	}
}
