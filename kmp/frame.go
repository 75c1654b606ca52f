package kmp

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// Direction tells who sent a frame. Its value is the start byte, which differs so
// that a reader can tell an answer from the optical echo of its own request
// (5512-447 section 3.1).
type Direction byte

// The two directions and their start bytes.
const (
	ToMeter   Direction = 0x80
	FromMeter Direction = 0x40
)

// String returns "to_meter" or "from_meter".
func (d Direction) String() string {
	switch d {
	case ToMeter:
		return "to_meter"
	case FromMeter:
		return "from_meter"
	}
	return fmt.Sprintf("direction %02X", byte(d))
}

// Address is the data link address. An answer carries the address of its request.
type Address byte

// The addresses of 5512-447 sections 3.2 and 6.3.
const (
	HeatMeter  Address = 0x3F // the meter itself, whatever it measures
	LoggerTop  Address = 0x7F // logger in the top module, or the 801's internal one
	LoggerBase Address = 0xBF // logger in the base module
)

// Bytes with a meaning of their own on the physical layer (5512-447 section 3.1).
// Together with the start bytes they never occur inside a frame.
const (
	Stop   byte = 0x0D // ends a frame
	Ack    byte = 0x06 // acknowledges a command that has no data to answer
	escape byte = 0x1B // the complement of the byte that follows is meant
)

const (
	// MaxFrame is the largest unstuffed frame that is accepted, in bytes. Stuffing may
	// double it on the wire.
	//
	// The largest GetRegister answer, eight registers of 255 bytes, has half of it. How
	// long a meter makes an answer with rows of a log is not documented; 24 rows of eight
	// registers of 16 bytes, the longest that were seen, fit, and take half a minute at
	// 1200 baud. Longer answers need not be asked for.
	MaxFrame = 4096

	minFrame = 4 // address, command, CRC
)

// Frame is one frame that passed every check of the physical and data link layers.
type Frame struct {
	Direction Direction
	Address   Address
	Command   Command
	// Data follows the command. It shares memory with the buffer it was decoded
	// into: with a [Reader], it is valid until the next call of Next.
	Data []byte
}

// AppendFrame appends a whole frame as it goes on the wire: start byte, then
// address, command, data and CRC with the stuffing applied, then the stop byte.
func AppendFrame(dst []byte, dir Direction, addr Address, cmd Command, data []byte) []byte {
	start := len(dst)
	dst = append(dst, byte(dir), byte(addr), byte(cmd))
	dst = append(dst, data...)
	return closeFrame(dst, start)
}

// closeFrame completes the frame whose start byte is at dst[start] and whose
// address, command and data follow it as they are: CRC, stuffing in place, stop.
func closeFrame(dst []byte, start int) []byte {
	crc := CRC16(dst[start+1:])
	dst = append(dst, byte(crc>>8), byte(crc))
	return append(stuff(dst, start+1), Stop)
}

// stuff replaces each byte of dst[from:] that has a meaning on the wire by the
// escape byte and its complement. It works from the end, so every byte moves once.
func stuff(dst []byte, from int) []byte {
	n := 0
	for _, b := range dst[from:] {
		if reserved[b] {
			n++
		}
	}
	if n == 0 {
		return dst
	}
	r := len(dst) - 1
	dst = slices.Grow(dst, n)[:len(dst)+n]
	for w := len(dst) - 1; w > r; r-- {
		if b := dst[r]; reserved[b] {
			dst[w-1], dst[w] = escape, ^b
			w -= 2
		} else {
			dst[w] = b
			w--
		}
	}
	return dst
}

// reserved marks the five bytes that are stuffed.
var reserved = [256]bool{byte(ToMeter): true, byte(FromMeter): true, Stop: true, Ack: true, escape: true}

// AppendPhysical appends data link bytes as a frame of the physical layer: start
// byte, stuffed bytes, stop byte.
func AppendPhysical(dst []byte, dir Direction, link []byte) []byte {
	dst = append(dst, byte(dir))
	from := len(dst)
	return append(stuff(append(dst, link...), from), Stop)
}

// DecodePhysical takes a frame's start byte, stuffing and stop byte off and appends
// the data link bytes to dst. A single byte 06 gives [ErrAck]. Other errors are a
// *[FrameError], which holds a *[BoundaryError], a *[StuffingError] or a *[LengthError]
// unless it is about a reserved byte that should have been escaped.
func DecodePhysical(dst, wire []byte) (Direction, []byte, error) {
	if len(wire) == 1 && wire[0] == Ack {
		return FromMeter, dst, ErrAck
	}
	if len(wire) < 2 {
		return 0, dst, &FrameError{Physical, len(wire), &LengthError{"frame", 2, len(wire), true}}
	}
	dir := Direction(wire[0])
	if dir != ToMeter && dir != FromMeter {
		return 0, dst, &FrameError{Physical, 0, &BoundaryError{"start", 0, wire[0]}}
	}
	last := len(wire) - 1
	if wire[last] != Stop {
		return dir, dst, &FrameError{Physical, last, &BoundaryError{"stop", Stop, wire[last]}}
	}
	from, run := len(dst), 1 // wire[run:i] stands for itself and is copied at once
	for i := 1; i < last; i++ {
		b := wire[i]
		if !reserved[b] {
			continue
		}
		if b != escape {
			return dir, dst[:from], &FrameError{Physical, i, errUnstuffed}
		}
		dst = append(dst, wire[run:i]...)
		i++
		if b = ^wire[i]; !reserved[b] {
			return dir, dst[:from], &FrameError{Physical, i, &StuffingError{wire[i]}}
		}
		dst = append(dst, b)
		run = i + 1
	}
	return dir, append(dst, wire[run:last]...), nil
}

// errUnstuffed is a reserved byte inside a frame. A sender escapes these, so the
// line has lost or damaged something.
var errUnstuffed = errors.New("kmp: reserved byte is not escaped")

// AppendDataLink appends address, application bytes and CRC, not yet stuffed.
func AppendDataLink(dst []byte, addr Address, app []byte) []byte {
	from := len(dst)
	dst = append(append(dst, byte(addr)), app...)
	crc := CRC16(dst[from:])
	return append(dst, byte(crc>>8), byte(crc))
}

// DecodeDataLink checks the CRC of unstuffed bytes and splits them. app is a part
// of link. Errors are a *[FrameError] that holds a *[LengthError] or a *[ChecksumError].
func DecodeDataLink(link []byte) (addr Address, app []byte, err error) {
	if len(link) < minFrame {
		return 0, nil, &FrameError{DataLink, len(link), &LengthError{"frame", minFrame, len(link), true}}
	}
	n := len(link) - 2
	want, got := CRC16(link[:n]), uint16(link[n])<<8|uint16(link[n+1])
	if want != got {
		return 0, nil, &FrameError{DataLink, n, &ChecksumError{want, got}}
	}
	return Address(link[0]), link[1:n], nil
}

// AppendApplication appends a command and its data, which may be empty.
func AppendApplication(dst []byte, cmd Command, data []byte) []byte {
	return append(append(dst, byte(cmd)), data...)
}

// DecodeApplication splits application bytes into the command and its data, which
// may be empty.
func DecodeApplication(app []byte) (Command, []byte, error) {
	if len(app) == 0 {
		return 0, nil, &FrameError{Application, 1, &LengthError{"command", 1, 0, true}}
	}
	return Command(app[0]), app[1:], nil
}

// DecodeFrame decodes exactly one frame of either direction. Errors are those of
// [DecodePhysical] and [DecodeDataLink].
func DecodeFrame(wire []byte) (Frame, error) {
	return DecodeFrameInto(make([]byte, 0, len(wire)), wire)
}

// DecodeFrameInto is [DecodeFrame] without an allocation as long as buf has room:
// the frame's data is a part of it.
func DecodeFrameInto(buf, wire []byte) (Frame, error) {
	dir, link, err := DecodePhysical(buf[:0], wire)
	if err != nil {
		return Frame{}, err
	}
	return splitFrame(dir, link)
}

func splitFrame(dir Direction, link []byte) (Frame, error) {
	addr, app, err := DecodeDataLink(link)
	if err != nil {
		return Frame{}, err
	}
	return Frame{dir, addr, Command(app[0]), app[1:]}, nil // a checked frame holds a command
}

// Reader finds frames of one direction in a stream of bytes. It hunts for the start
// byte and skips what stands before it: the echo of a request, stray 00 bytes,
// noise. It never keeps more than one frame of at most [MaxFrame] bytes.
type Reader struct {
	src  io.Reader
	dir  Direction
	in   [256]byte // read from src, next comes in[r]
	r, w int

	frame   []byte // the unstuffed frame so far; cap MaxFrame
	offset  int    // bytes of it on the wire, 0 while hunting
	escaped bool
	skipped uint64
	acks    bool // an acknowledgement outside of frames is worth an ErrAck
	stray   int  // bytes outside of frames since the last Reset, 00 not counted
}

// NewReader returns a Reader of the frames that src carries in direction dir.
func NewReader(src io.Reader, dir Direction) *Reader {
	return &Reader{src: src, dir: dir, frame: make([]byte, 0, MaxFrame)}
}

// Next returns the next frame. A *[FrameError] says that something began like a
// frame and was dropped; the stream goes on and so may the caller. Any other error
// comes from the underlying reader; a frame that it cut short is reported first.
func (r *Reader) Next() (Frame, error) {
	for {
		for r.r < r.w {
			b := r.in[r.r]
			r.r++
			if done, err := r.push(b); err != nil {
				return Frame{}, err
			} else if done {
				return r.finish()
			}
		}
		n, err := readSome(r.src, r.in[:])
		r.r, r.w = 0, n
		if n == 0 && r.InFrame() {
			err = r.drop(r.offset, ErrTruncated)
		}
		if n == 0 {
			return Frame{}, err
		}
	}
}

// readSome reads at least one byte or returns an error. A reader that keeps
// returning neither would be waited for without end.
func readSome(src io.Reader, p []byte) (int, error) {
	for range 100 {
		if n, err := src.Read(p); n > 0 {
			return n, nil // a lasting error comes again
		} else if err != nil {
			return 0, err
		}
	}
	return 0, io.ErrNoProgress
}

// finish checks the frame that has just ended.
func (r *Reader) finish() (Frame, error) {
	f, err := splitFrame(r.dir, r.frame)
	if err != nil {
		r.skipped += uint64(r.offset)
	}
	r.offset = 0
	return f, err
}

// InFrame reports whether a frame has begun and not ended.
func (r *Reader) InFrame() bool { return r.offset > 0 }

// Skipped counts the bytes that belonged to no good frame.
func (r *Reader) Skipped() uint64 { return r.skipped }

// buffered is how many bytes were read from the source and not looked at yet.
func (r *Reader) buffered() int { return r.w - r.r }

// Reset forgets what was read and not returned, a frame in progress included.
func (r *Reader) Reset() {
	r.skipped += uint64(r.buffered() + r.offset)
	r.r, r.w, r.offset, r.stray = 0, 0, 0, 0
}

// push takes one byte of the stream; done means that the frame in progress is whole.
func (r *Reader) push(b byte) (done bool, err error) {
	switch {
	case b == byte(r.dir): // never inside a frame: whatever was in progress is lost
		if r.InFrame() {
			err = r.drop(r.offset, errRestarted)
		}
		r.frame, r.offset, r.escaped = r.frame[:0], 1, false
		return false, err
	case !r.InFrame():
		r.skipped++
		if b != 0 {
			r.stray++
		}
		if b == Ack && r.acks {
			return false, ErrAck
		}
		return false, nil
	}
	at := r.offset
	r.offset++
	switch {
	case r.escaped:
		if !reserved[^b] {
			return false, r.drop(at, &StuffingError{b})
		}
		r.escaped = false
		b = ^b
	case b == escape:
		r.escaped = true
		return false, nil
	case b == Stop:
		return true, nil
	case reserved[b]:
		return false, r.drop(at, errUnstuffed)
	}
	if len(r.frame) == cap(r.frame) {
		return false, r.drop(at, ErrTooLong)
	}
	r.frame = append(r.frame, b)
	return false, nil
}

// errRestarted is a start byte inside a frame.
var errRestarted = fmt.Errorf("%w: a new frame begins", ErrTruncated)

// drop ends the frame in progress for a reason that lies in its byte at.
func (r *Reader) drop(at int, reason error) error {
	err := &FrameError{Physical, at, reason}
	r.skipped += uint64(r.offset)
	r.offset = 0
	return err
}

// CRC16 is the checksum of the data link layer: polynomial 1021h, initial value 0,
// not reflected, no final exclusive or (known as CRC-16/XMODEM), over address,
// command and data (5512-447 section 3.2).
func CRC16(p []byte) uint16 {
	var crc uint16
	for len(p) >= 8 { // the eight look-ups do not wait for one another
		crc = crcTable[7][p[0]^byte(crc>>8)] ^ crcTable[6][p[1]^byte(crc)] ^
			crcTable[5][p[2]] ^ crcTable[4][p[3]] ^ crcTable[3][p[4]] ^
			crcTable[2][p[5]] ^ crcTable[1][p[6]] ^ crcTable[0][p[7]]
		p = p[8:]
	}
	for _, b := range p {
		crc = crc<<8 ^ crcTable[0][byte(crc>>8)^b]
	}
	return crc
}

// crcTable[n][b] is the CRC of b and n bytes of 0 after it.
var crcTable = func() (t [8][256]uint16) {
	for b := range 256 {
		crc := uint16(b) << 8
		for n := range t {
			for range 8 {
				if crc&0x8000 != 0 {
					crc = crc<<1 ^ 0x1021
				} else {
					crc <<= 1
				}
			}
			t[n][b] = crc
		}
	}
	return t
}()
