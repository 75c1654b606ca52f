package diagnosis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/link"
)

// opened is an error of link.Open, inUse one of an open line.
func opened(err error) error { return &link.Error{Op: "open", Line: "x", Err: err} }

func inUse(err error) error {
	return fmt.Errorf("kmp: line: %w", &link.Error{Op: "read", Line: "x", Err: err})
}

// exchange is an error of a kmp.Conn.
func exchange(err error, received string) error {
	return &kmp.ExchangeError{Command: kmp.CmdGetSerialNo, Address: kmp.HeatMeter, Request: []byte("\x80\x3F\x02\x35\xE9\x0D"), Received: []byte(received), Err: err}
}

func TestClassify(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	before := now.Add(-time.Hour)
	echo := "\x80\x3F\x02\x35\xE9\x0D"
	checksum := &kmp.FrameError{Layer: kmp.DataLink, Err: &kmp.ChecksumError{Want: 1, Got: 2}}
	cut := &kmp.FrameError{Layer: kmp.Physical, Err: kmp.ErrTruncated}
	address := &kmp.FrameError{Layer: kmp.DataLink, Err: &kmp.AddressError{Want: 0x3F, Got: 0x7F}}
	dial := func(err error) error { return opened(&net.OpError{Op: "dial", Net: "tcp", Err: err}) }
	silent := exchange(kmp.ErrNoReply, "")
	parity := "\xB1\xB2\x33\xB4\x35\x36\xB7 "
	tests := []struct {
		name string
		e    Evidence
		want Code
	}{
		{"nothing tried", Evidence{}, NotRead},
		{"nothing tried, known from before", Evidence{LastGood: before, Now: now, EchoBefore: true}, NotRead},
		{"good", Evidence{Sent: 12, Answers: 2, Asked: 8, Got: 1}, OK},
		{"good, identity only", Evidence{Sent: 12, Answers: 2}, OK},
		{"no registers", Evidence{Sent: 12, Answers: 2, Asked: 8}, NoRegisters},
		{"another meter", Evidence{Err: fmt.Errorf("bridge: %w: 1", ErrWrongMeter), Answers: 2, LastGood: before}, WrongMeter},

		{"no such device", Evidence{Err: opened(fs.ErrNotExist)}, PortMissing},
		{"nothing behind the node", Evidence{Err: opened(syscall.ENXIO)}, PortMissing},
		{"node of a device that is gone", Evidence{Err: opened(syscall.EIO)}, PortMissing},
		{"held", Evidence{Err: opened(link.ErrBusy)}, PortBusy},
		{"held, as the system says it", Evidence{Err: opened(syscall.EBUSY)}, PortBusy},
		{"no right", Evidence{Err: opened(fs.ErrPermission)}, PortPermission},
		{"no right, as the system says it", Evidence{Err: &fs.PathError{Op: "open", Path: "/dev/ttyS0", Err: syscall.EACCES}}, PortPermission},
		{"unknown name", Evidence{Err: dial(&net.DNSError{Name: "h", IsNotFound: true})}, HostUnknown},
		{"name server away", Evidence{Err: dial(&net.DNSError{Name: "h", IsTimeout: true})}, HostUnknown},
		{"no route", Evidence{Err: dial(os.NewSyscallError("connect", syscall.EHOSTUNREACH))}, HostUnreachable},
		{"no network", Evidence{Err: dial(os.NewSyscallError("connect", syscall.ENETUNREACH))}, HostUnreachable},
		{"no route, on Windows", Evidence{Err: dial(errWSAHostUnreachable)}, HostUnreachable},
		{"a firewall here", Evidence{Err: dial(os.NewSyscallError("connect", syscall.EPERM))}, HostUnreachable},
		{"connecting timed out", Evidence{Err: dial(os.ErrDeadlineExceeded)}, HostUnreachable},
		{"connecting gave up", Evidence{Err: opened(context.DeadlineExceeded)}, HostUnreachable},
		{"refused", Evidence{Err: dial(os.NewSyscallError("connect", syscall.ECONNREFUSED))}, ConnectionRefused},
		{"refused, on Windows", Evidence{Err: dial(errWSARefused)}, ConnectionRefused},
		{"no port control", Evidence{Err: opened(fmt.Errorf("%w COM port control", link.ErrRefused))}, ServerRefused},
		{"ended while opening", Evidence{Err: opened(fmt.Errorf("ended: %w", io.EOF))}, LineLost},
		{"ended", Evidence{Err: inUse(io.EOF), LastGood: before}, LineLost},
		{"unplugged", Evidence{Err: inUse(fmt.Errorf("the device is gone: %w (%w)", io.EOF, syscall.EIO))}, LineLost},
		{"reset", Evidence{Err: &net.OpError{Op: "read", Err: syscall.ECONNRESET}}, LineLost},
		{"closed here", Evidence{Err: inUse(os.ErrClosed)}, LineLost},
		{"another error of an open line", Evidence{Err: inUse(errors.New("parity"))}, LineLost},
		{"takes nothing", Evidence{Err: inUse(link.ErrStuck)}, LineStuck},
		{"writing timed out", Evidence{Err: fmt.Errorf("kmp: line: writing: %w", os.ErrDeadlineExceeded)}, LineStuck},

		{"silent", Evidence{Err: silent}, Silent},
		{"silent but for 00", Evidence{Err: exchange(kmp.ErrNoReply, "\x00\x00")}, Silent},
		{"silent until the deadline of the reading", Evidence{Err: fmt.Errorf("bridge: %w", context.DeadlineExceeded), Sent: 12}, Silent},
		{"echo", Evidence{Err: exchange(kmp.ErrNoReply, echo), Echo: true}, EchoOnly},
		{"echo, as always", Evidence{Err: exchange(kmp.ErrNoReply, echo), Echo: true, EchoBefore: true}, EchoOnly},
		{"echo gone", Evidence{Err: silent, EchoBefore: true, LastGood: before, Now: now}, EchoMissing},
		{"echo gone, never good", Evidence{Err: silent, EchoBefore: true}, EchoMissing},
		{"asleep", Evidence{Err: silent, LastGood: before, Now: now, Family: catalog.Heat, Sessions: 48}, Asleep},
		{"silent once", Evidence{Err: silent, LastGood: before, Now: now, Family: catalog.Heat, Failures: 1}, Missed},
		{"silent again", Evidence{Err: silent, LastGood: before, Now: now, Family: catalog.Heat, Failures: 2}, Asleep},
		{"silent at first contact", Evidence{Err: silent, Now: now, Failures: 1}, Silent},
		{"asleep, echo as before", Evidence{Err: exchange(kmp.ErrNoReply, echo), Echo: true, EchoBefore: true, LastGood: before, Now: now}, Asleep},
		{"asleep in mid-reading", Evidence{Err: silent, Answers: 2}, Asleep},
		{"water, once", Evidence{Err: silent, LastGood: before, Now: now, Family: catalog.Water, Sessions: 1}, Asleep},
		{"throttled", Evidence{Err: silent, LastGood: before, Now: now, Family: catalog.Water, Sessions: 5}, Throttled},
		{"electricity does not throttle", Evidence{Err: silent, LastGood: before, Now: now, Family: catalog.Electricity, Sessions: 5}, Asleep},
		{"silent at a logger's address", Evidence{Err: silent, Address: kmp.LoggerTop}, WrongAddress},
		{"a logger that fell asleep", Evidence{Err: silent, Address: kmp.LoggerTop, LastGood: before}, Asleep},

		{"no frame", Evidence{Err: exchange(kmp.ErrNoFrame, "\xF8\x12\xF0\x0D")}, NoFrame},
		{"no frame behind the echo", Evidence{Err: exchange(kmp.ErrNoFrame, echo+"\xF8\x12"), Echo: true}, NoFrame},
		{"no frame, good before", Evidence{Err: exchange(kmp.ErrNoFrame, "\xF8\x12"), LastGood: before}, NoFrame},
		{"junk that looks like frames", Evidence{Err: exchange(checksum, "\x40\xF8\x12\xF0\x0D"), BadFrames: 2, ChecksumErrors: 2}, NoFrame},
		{"older protocol", Evidence{Err: exchange(kmp.ErrNoFrame, "1234567 7654321 0000012 \r\n")}, OtherProtocol},
		{"older protocol, with parity", Evidence{Err: exchange(kmp.ErrNoFrame, echo+parity+parity), Echo: true}, OtherProtocol},
		{"text, but no meter's", Evidence{Err: exchange(kmp.ErrNoFrame, "login: 12345678")}, NoFrame},
		{"checksum", Evidence{Err: exchange(checksum, echo+"\x40\x3F\x02\x01\x23\x45\x67\xE9\x57\x0D"), BadFrames: 2, ChecksumErrors: 2}, BadChecksums},
		{"checksum, header damaged as well", Evidence{Err: exchange(checksum, "\x40\x3B\x02\x01\x23\x45\x67\xE9\x57\x0D"), BadFrames: 2, ChecksumErrors: 2}, BadChecksums},
		{"checksum, without the bytes", Evidence{Err: checksum, BadFrames: 3, ChecksumErrors: 2}, BadChecksums},
		{"cut short", Evidence{Err: exchange(cut, "\x40\x3F\x02\x01"), BadFrames: 2}, BadChecksums},
		{"start byte lost", Evidence{Err: exchange(kmp.ErrNoFrame, "\x3F\x02\x01\x23\x45\x67\xE9\x56\x0D")}, BadChecksums},
		{"damaged after good ones", Evidence{Err: exchange(cut, "\x40\xF0"), Answers: 2, BadFrames: 1}, BadChecksums},
		{"damaged, good yesterday", Evidence{Err: exchange(cut, "\x40\xF0"), BadFrames: 1, LastGood: before}, BadChecksums},
		{"damaged, then silent", Evidence{Err: silent, BadFrames: 1, ChecksumErrors: 1}, BadChecksums},
		{"another address", Evidence{Err: exchange(address, "\x40\x7F"), Foreign: 1}, WrongAddress},
		{"another answer", Evidence{Err: exchange(fmt.Errorf("%w: register 1", kmp.ErrForeign), "\x40\x3F"), Foreign: 1}, ForeignFrames},
		{"another answer, then silence", Evidence{Err: silent, Foreign: 2}, ForeignFrames},

		{"cancelled", Evidence{Err: exchange(context.Canceled, "")}, Failed},
		{"a request that cannot be", Evidence{Err: &kmp.RangeError{What: "registers", Got: 9, Min: 1, Max: 8}}, Failed},
		{"unknown", Evidence{Err: errors.New("what")}, Failed},
	}
	reached := make(map[Code]bool)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Classify(tt.e); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
		reached[tt.want] = true
	}
	for _, c := range Classes() {
		if !reached[c.Code] {
			t.Errorf("no case for %s", c.Code)
		}
	}
}

// FuzzClassify: whatever came, there is one class of the table, and the evidence can be
// shown.
func FuzzClassify(f *testing.F) {
	errs := []error{nil, kmp.ErrNoReply, kmp.ErrNoFrame, kmp.ErrForeign, kmp.ErrTruncated, &kmp.ChecksumError{}, &kmp.AddressError{}, io.EOF, errors.New("x")}
	for i := range errs {
		f.Add(byte(i), []byte("\x80\x3F\x02\x35\xE9\x0D"), []byte("\x80\x3F\x02\x35\xE9\x0D\x00\x40\x3F\x02\x01\x23\x45\x67\xE9\x56\x0D"), uint64(i), uint64(1))
	}
	f.Add(byte(2), []byte{}, []byte("1234567 1234567"), uint64(0), uint64(0))
	f.Add(byte(2), []byte{}, []byte("\x80\x80\x0D\x80\x3F\x02\x35\xE9\x0D"), uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, which byte, request, received []byte, bad, answers uint64) {
		e := Evidence{Sample: received, BadFrames: bad, ChecksumErrors: bad, Answers: answers}
		if err := errs[int(which)%len(errs)]; err != nil {
			e.Err = &kmp.ExchangeError{Request: request, Received: received, Err: err}
		}
		code := Classify(e)
		if !slices.ContainsFunc(Classes(), func(c Class) bool { return c.Code == code }) {
			t.Errorf("code %q is not in the table", code)
		}
		if _, err := e.MarshalJSON(); err != nil {
			t.Error(err)
		}
	})
}
