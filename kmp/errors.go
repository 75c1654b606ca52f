package kmp

import (
	"errors"
	"fmt"
)

// The conditions a caller may want to test with [errors.Is].
var (
	// ErrNoReply says that the meter was silent: nothing came in time, or only the
	// echo of the request.
	ErrNoReply = errors.New("kmp: no reply")
	// ErrNoFrame says that bytes came in time and none of them began a frame: noise,
	// or a line with other settings than the meter's. It matches [ErrCodec].
	ErrNoFrame = fmt.Errorf("%w: no frame in what came", ErrCodec)
	// ErrAck says that the answer is a bare acknowledgement (byte 06) and so
	// carries no data. It is not a failure of the line.
	ErrAck = errors.New("kmp: acknowledgement, no data")
	// ErrCodec is matched by every error that comes from encoding or decoding:
	// the bytes are wrong, not the line.
	ErrCodec = errors.New("kmp: malformed data")
	// ErrTruncated says that a frame or a field ended too early.
	ErrTruncated = errors.New("kmp: cut short")
	// ErrTooLong says that a frame exceeded [MaxFrame].
	ErrTooLong = errors.New("kmp: frame too long")
	// ErrUnknownCommand says that no message is known for a command id.
	ErrUnknownCommand = errors.New("kmp: unknown command")
	// ErrUnknownLayout says that a logger sub-command is known by its name alone. It
	// matches [ErrUnknownCommand].
	ErrUnknownLayout = fmt.Errorf("%w: no public layout", ErrUnknownCommand)
	// ErrForeign says that a valid frame is not the answer to the request: another
	// command, or registers or rows that were not asked for (a late or repeated answer).
	ErrForeign = errors.New("kmp: answer to something else")
)

// Layer names the part of the protocol in which a frame failed.
type Layer byte

// The layers, from the wire up.
const (
	Physical    Layer = iota + 1 // start and stop byte, stuffing
	DataLink                     // address, CRC
	Application                  // command and data
)

// String returns the layer's name as the protocol document writes it.
func (l Layer) String() string {
	switch l {
	case Physical:
		return "physical layer"
	case DataLink:
		return "data link layer"
	case Application:
		return "application layer"
	}
	return fmt.Sprintf("layer %d", byte(l))
}

// FrameError says where a frame is wrong. It matches [ErrCodec].
type FrameError struct {
	Layer Layer
	// Offset is the index of the offending byte: in the bytes of the wire, start
	// byte included, for the physical layer; in the unstuffed frame, address at 0,
	// for the layers above.
	Offset int
	Err    error
}

// Error implements error.
func (e *FrameError) Error() string {
	return fmt.Sprintf("kmp: %s, byte %d: %s", e.Layer, e.Offset, bare(e.Err))
}

// Unwrap returns the cause.
func (e *FrameError) Unwrap() error { return e.Err }

// Is makes every FrameError match [ErrCodec].
func (e *FrameError) Is(target error) bool { return target == ErrCodec }

// ChecksumError is a CRC that does not match the frame.
type ChecksumError struct {
	Want, Got uint16 // computed over the frame, and found at its end
}

// Error implements error.
func (e *ChecksumError) Error() string {
	return fmt.Sprintf("kmp: checksum is %04X, should be %04X", e.Got, e.Want)
}

// Is makes every ChecksumError match [ErrCodec].
func (e *ChecksumError) Is(target error) bool { return target == ErrCodec }

// StuffingError is an escape byte 1B that is followed by none of the five
// complements, or by nothing.
type StuffingError struct {
	Next byte // what follows 1B; the stop byte when nothing does
}

// Error implements error.
func (e *StuffingError) Error() string {
	return fmt.Sprintf("kmp: escape 1B is followed by %02X", e.Next)
}

// Is makes every StuffingError match [ErrCodec].
func (e *StuffingError) Is(target error) bool { return target == ErrCodec }

// BoundaryError is a first or last byte that is not the start or stop byte.
type BoundaryError struct {
	What      string // "start" or "stop"
	Want, Got byte   // Want is 0 when either start byte would do
}

// Error implements error.
func (e *BoundaryError) Error() string {
	if e.Want == 0 {
		return fmt.Sprintf("kmp: %s byte is %02X, should be 80 or 40", e.What, e.Got)
	}
	return fmt.Sprintf("kmp: %s byte is %02X, should be %02X", e.What, e.Got, e.Want)
}

// Is makes every BoundaryError match [ErrCodec].
func (e *BoundaryError) Is(target error) bool { return target == ErrCodec }

// AddressError is an answer from another address than the one asked.
type AddressError struct {
	Want, Got Address
}

// Error implements error.
func (e *AddressError) Error() string {
	return fmt.Sprintf("kmp: address is %02X, should be %02X", byte(e.Got), byte(e.Want))
}

// Is makes every AddressError match [ErrCodec].
func (e *AddressError) Is(target error) bool { return target == ErrCodec }

// LengthError is a field that has the wrong number of bytes.
type LengthError struct {
	What    string
	Want    int // bytes
	Got     int // bytes
	Minimum bool
}

// Error implements error.
func (e *LengthError) Error() string {
	least := ""
	if e.Minimum {
		least = "at least "
	}
	return fmt.Sprintf("kmp: %s has %d bytes, should have %s%d", e.What, e.Got, least, e.Want)
}

// Is makes every LengthError match [ErrCodec], and [ErrTruncated] when bytes are missing.
func (e *LengthError) Is(target error) bool {
	return target == ErrCodec || target == ErrTruncated && e.Got < e.Want
}

// RangeError is a number outside what the protocol allows, bounds included.
type RangeError struct {
	What     string
	Got      int64
	Min, Max int64
}

// Error implements error.
func (e *RangeError) Error() string {
	return fmt.Sprintf("kmp: %s is %d, should be %d to %d", e.What, e.Got, e.Min, e.Max)
}

// Is makes every RangeError match [ErrCodec].
func (e *RangeError) Is(target error) bool { return target == ErrCodec }

// ExponentError is a power of ten that the wire format cannot carry: its exponent
// has six bits and a sign, -63 to 63.
type ExponentError struct {
	Got int
}

// Error implements error.
func (e *ExponentError) Error() string {
	return fmt.Sprintf("kmp: exponent is %d, should be -%d to %d", e.Got, maxExponent, maxExponent)
}

// Is makes every ExponentError match [ErrCodec].
func (e *ExponentError) Is(target error) bool { return target == ErrCodec }

// FormatError is a register in a row of a log that is not of its first row's format.
type FormatError struct {
	Want, Got Register // the first row's, the row's
}

// Error implements error.
func (e *FormatError) Error() string {
	return fmt.Sprintf("kmp: register %d, unit %02X, SiEx %02X in a row, %d, %02X, %02X in the first",
		e.Got.ID, byte(e.Got.Unit), e.Got.SiEx, e.Want.ID, byte(e.Want.Unit), e.Want.SiEx)
}

// Is makes every FormatError match [ErrCodec].
func (e *FormatError) Is(target error) bool { return target == ErrCodec }

// shownBytes is how many of the bytes that came stand in an error's text: more than an
// echo and the head of an answer.
const shownBytes = 64

// ExchangeError is what [Conn] returns when a request got no usable answer: what
// was asked, and what came.
type ExchangeError struct {
	Command  Command
	Address  Address
	Request  []byte // as sent
	Received []byte // the last bytes that arrived, echo included, at most 512
	Echo     bool   // the request came back as an echo
	Attempts int    // how often the request was sent
	Err      error  // why the last attempt failed
}

// Error implements error.
func (e *ExchangeError) Error() string {
	came := "nothing came"
	switch {
	case len(e.Received) > 0 && e.Echo && len(e.Received) == len(e.Request):
		came = "only its echo came"
	case len(e.Received) > shownBytes:
		came = fmt.Sprintf("came % X and %d bytes more", e.Received[:shownBytes], len(e.Received)-shownBytes)
	case len(e.Received) > 0:
		came = fmt.Sprintf("came % X", e.Received)
	}
	return fmt.Sprintf("kmp: %s at address %02X: %s (sent % X, %s)", e.Command, byte(e.Address), bare(e.Err), e.Request, came)
}

// Unwrap returns the cause.
func (e *ExchangeError) Unwrap() error { return e.Err }

// Timeout reports whether the meter stayed silent, as [net.Error] has it.
func (e *ExchangeError) Timeout() bool { return errors.Is(e.Err, ErrNoReply) }

// contextError is an error with what it is about before it, and the package's name once.
type contextError struct {
	about string
	err   error
}

// Error implements error.
func (e *contextError) Error() string { return "kmp: " + e.about + ": " + bare(e.err) }

// Unwrap returns the cause.
func (e *contextError) Unwrap() error { return e.err }

// bare is an error's text without the package's name, for use inside another of
// this package's errors.
func bare(err error) string {
	const prefix = "kmp: "
	if s := err.Error(); len(s) > len(prefix) && s[:len(prefix)] == prefix {
		return s[len(prefix):]
	}
	return err.Error()
}
