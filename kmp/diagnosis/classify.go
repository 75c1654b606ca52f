package diagnosis

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"syscall"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/link"
)

// ErrWrongMeter is to be matched by the error of whoever finds a meter that cannot be
// read in this place, as one that another line leads to: the exchange itself went well.
var ErrWrongMeter = errors.New("diagnosis: this meter is read already")

// throttleAfter is how many readings of a water meter within a day make it likely that
// it has closed its port for the number of them (reports speak of about five).
const throttleAfter = 2

// Classify finds the one class that fits the evidence best. It goes from what is
// certain to what is concluded: an error of the port or the network speaks for itself;
// then what the bytes are; then, in silence, what was before.
func Classify(e Evidence) Code {
	switch {
	case e.Err == nil:
		return succeeded(e)
	case errors.Is(e.Err, ErrWrongMeter):
		return WrongMeter
	}
	if c := lineClass(e.Err); c != "" {
		return c
	}
	return meterClass(e)
}

func succeeded(e Evidence) Code {
	switch {
	case e.Asked > 0 && e.Got == 0:
		return NoRegisters
	case e.Asked == 0 && e.Sent == 0 && e.Answers == 0:
		return NotRead
	}
	return OK
}

// What Windows calls these errors of a connection; no other system has such numbers.
const (
	errWSANetUnreachable  = syscall.Errno(10051)
	errWSAAborted         = syscall.Errno(10053)
	errWSAReset           = syscall.Errno(10054)
	errWSARefused         = syscall.Errno(10061)
	errWSAHostUnreachable = syscall.Errno(10065)
)

// isAny reports whether err is one of targets.
func isAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
}

// lineClass is the class of an error of the port or the network, "" for any other. What
// it looks for is what package link promises to wrap.
func lineClass(err error) Code {
	_, isDNS := errors.AsType[*net.DNSError](err)
	op, isNet := errors.AsType[*net.OpError](err)
	l, isLink := errors.AsType[*link.Error](err)
	opening := isLink && l.Op == "open" || isNet && op.Op == "dial"
	switch {
	case isDNS:
		return HostUnknown
	case errors.Is(err, link.ErrRefused): // also by not answering
		return ServerRefused
	case isAny(err, syscall.ECONNREFUSED, errWSARefused):
		return ConnectionRefused
	case isNet && op.Op == "dial",
		isAny(err, syscall.EHOSTUNREACH, syscall.ENETUNREACH, errWSAHostUnreachable, errWSANetUnreachable),
		opening && isAny(err, context.DeadlineExceeded, os.ErrDeadlineExceeded):
		return HostUnreachable
	case errors.Is(err, link.ErrStuck), errors.Is(err, os.ErrDeadlineExceeded): // a read's deadline is silence, and has an error of its own
		return LineStuck
	case isAny(err, io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, os.ErrClosed, net.ErrClosed,
		syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, errWSAReset, errWSAAborted):
		return LineLost
	case isAny(err, link.ErrBusy, syscall.EBUSY):
		return PortBusy
	case errors.Is(err, fs.ErrPermission):
		return PortPermission
	case isAny(err, fs.ErrNotExist, syscall.ENXIO, syscall.ENODEV, syscall.EIO):
		return PortMissing
	case isLink && !opening:
		return LineLost
	}
	return ""
}

// meterClass is the class of an exchange that failed on a line that works.
func meterClass(e Evidence) Code {
	_, foreignAddress := errors.AsType[*kmp.AddressError](e.Err)
	came, request := e.Sample, []byte(nil)
	if x, ok := errors.AsType[*kmp.ExchangeError](e.Err); ok {
		came, request = x.Received, x.Request
		if e.Address == 0 {
			e.Address = x.Address
		}
	}
	came = bytes.Clone(withoutEcho(came, request))
	silent := isAny(e.Err, kmp.ErrNoReply, context.DeadlineExceeded)
	switch {
	case foreignAddress:
		return WrongAddress
	case errors.Is(e.Err, kmp.ErrForeign), e.Foreign > 0 && e.BadFrames == 0 && e.Answers == 0:
		return ForeignFrames
	case e.Answers == 0 && speaksText(came):
		return OtherProtocol
	case e.BadFrames > 0, errors.Is(e.Err, kmp.ErrCodec) && len(came) > 0, errors.Is(e.Err, kmp.ErrNoFrame):
		return damaged(e, came)
	case silent:
		return silence(e)
	}
	return Failed
}

// damaged tells a bad position of the head from a line that is set up in another way:
// in the first case something right was seen, now or before.
func damaged(e Evidence, came []byte) Code {
	known := e.Answers > 0 || !e.LastGood.IsZero()
	switch {
	case beginsAnswer(came, e.Address), known && e.BadFrames > 0:
		return BadChecksums
	case len(came) == 0 && e.BadFrames > 0 && 2*e.ChecksumErrors >= e.BadFrames: // the bytes are not at hand
		return BadChecksums
	}
	return NoFrame
}

// silence says what it means that nothing came but the echo.
func silence(e Evidence) Code {
	switch {
	case e.EchoBefore && !e.Echo:
		return EchoMissing
	case !e.LastGood.IsZero() && e.Failures == 1:
		return Missed // a meter that fell asleep stays silent
	case !e.LastGood.IsZero() && e.Family == catalog.Water && e.Sessions >= throttleAfter:
		return Throttled
	case !e.LastGood.IsZero(), e.Answers > 0:
		return Asleep
	case e.Address != 0 && e.Address != kmp.HeatMeter:
		return WrongAddress
	case e.Echo:
		return EchoOnly
	}
	return Silent
}

// withoutEcho takes the request out of what came, and the bytes 00 around it, which a
// meter may send whenever it likes (5512-447 section 2). Without a request everything
// that has its form goes.
func withoutEcho(came, request []byte) []byte {
	if i := bytes.Index(came, request); len(request) > 0 && i >= 0 {
		came = slices.Concat(came[:i], came[i+len(request):])
	}
	for len(request) == 0 {
		start := bytes.IndexByte(came, byte(kmp.ToMeter))
		if start < 0 {
			break
		}
		n := bytes.IndexByte(came[start:], kmp.Stop)
		if n < 0 {
			break
		}
		if _, err := kmp.DecodeFrame(came[start : start+n+1]); err != nil {
			break
		}
		came = slices.Concat(came[:start], came[start+n+1:])
	}
	return bytes.Trim(came, "\x00")
}

// beginsAnswer reports whether somewhere an answer of the meter begins: start byte,
// address and command, one of the three damaged at most. By chance that is rare.
func beginsAnswer(came []byte, addr kmp.Address) bool {
	if addr == 0 {
		addr = kmp.HeatMeter
	}
	came = slices.Concat([]byte{0}, came, []byte{0}) // either end may be what was lost
	for i := range max(len(came)-2, 0) {
		right := 0
		if came[i] == byte(kmp.FromMeter) {
			right++
		}
		if came[i+1] == byte(addr) {
			right++
		}
		switch kmp.Command(came[i+2]) {
		case kmp.CmdGetType, kmp.CmdGetSerialNo, kmp.CmdGetRegister:
			right++
		}
		if right >= 2 && came[i] != byte(kmp.ToMeter) {
			return true
		}
	}
	return false
}

// speaksText reports whether bytes are the answer of a meter before KMP (MULTICAL III,
// Compact, 66C, 401, 41): text with even parity in bit 7, groups of seven digits.
func speaksText(came []byte) bool {
	const group = 7
	text, digits, groups := 0, 0, 0
	end := func() {
		if digits == group {
			groups++
		}
		digits = 0
	}
	for _, b := range came {
		b &= 0x7F
		switch {
		case '0' <= b && b <= '9':
			digits++
			text++
			continue
		case ' ' <= b && b <= '~', b == '\r', b == '\n', b == 0x02, b == 0x03: // STX, ETX
			text++
		}
		end()
	}
	end()
	return groups > 0 && 10*text >= 9*len(came)
}
