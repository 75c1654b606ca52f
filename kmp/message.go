package kmp

import (
	"encoding/binary"
	"fmt"
)

// Command is the command id (CID), the first byte of the application layer. An
// answer carries the command of its request.
type Command byte

// The commands whose messages this package encodes and decodes (5512-447 sections 6.2 and 6.3).
const (
	CmdGetType           Command = 0x01
	CmdGetSerialNo       Command = 0x02
	CmdSetClock          Command = 0x09
	CmdGetRegister       Command = 0x10
	CmdPutRegister       Command = 0x11
	CmdGetEventStatus    Command = 0x9B
	CmdClearEventStatus  Command = 0x9C
	CmdGetLogTimePresent Command = 0xA0
	CmdGetLogLastPresent Command = 0xA1
	CmdGetLogIDPresent   Command = 0xA2
	CmdGetLogTimePast    Command = 0xA3
	CmdLogger            Command = 0xB8 // not in the document; see LogCommand
)

// commandNames has every command id with a known name, for logs and explanations;
// that a name is known does not mean that its messages are.
var commandNames = map[Command]string{
	CmdGetType: "GetType", CmdGetSerialNo: "GetSerialNo", CmdSetClock: "SetClock",
	CmdGetRegister: "GetRegister", CmdPutRegister: "PutRegister",
	CmdGetEventStatus: "GetEventStatus", CmdClearEventStatus: "ClearEventStatus",
	CmdGetLogTimePresent: "GetLogTimePresent", CmdGetLogLastPresent: "GetLogLastPresent",
	CmdGetLogIDPresent: "GetLogIDPresent", CmdGetLogTimePast: "GetLogTimePast",
	CmdLogger: "Logger",
	0x07:      "Reset", 0x92: "Login", 0x97: "SetCutOffState", 0x98: "GetCutOffState",
}

// String returns the command's name in the protocol document, or its number.
func (c Command) String() string {
	if name, ok := commandNames[c]; ok {
		return name
	}
	return fmt.Sprintf("command %02X", byte(c))
}

// MaxRegisters is the largest number of registers in one request (5512-447 section 6.2.4).
const MaxRegisters = 8

// Message is the application data of one command in one direction: what a program
// asks, or what a meter answers.
type Message interface {
	// Command returns the command id that goes before the data.
	Command() Command
	// AppendData appends the message's data, not stuffed, without the command id.
	// A message that the format cannot carry is an error that matches [ErrCodec].
	AppendData(dst []byte) ([]byte, error)
	// DecodeData sets the message from data and may keep parts of data. Errors are
	// a *[FrameError] of the application layer.
	DecodeData(data []byte) error
}

// Request is a message to the meter.
type Request interface {
	Message
	// NewAnswer returns an empty answer of the matching type.
	NewAnswer() Answer
}

// Answer is a message from the meter.
type Answer interface {
	Message
	// NewRequest returns an empty request of the matching type.
	NewRequest() Request
}

// NewRequest returns an empty request of a command, to be decoded into. A command
// without messages in this package gives an error that wraps [ErrUnknownCommand], and
// so does [CmdLogger]: [NewLogRequest] has its requests.
func NewRequest(cmd Command) (Request, error) {
	switch cmd {
	case CmdGetType:
		return new(GetTypeRequest), nil
	case CmdGetSerialNo:
		return new(GetSerialNoRequest), nil
	case CmdGetRegister:
		return new(GetRegisterRequest), nil
	case CmdSetClock:
		return new(SetClockRequest), nil
	case CmdPutRegister:
		return new(PutRegisterRequest), nil
	case CmdGetEventStatus:
		return new(GetEventStatusRequest), nil
	case CmdClearEventStatus:
		return new(ClearEventStatusRequest), nil
	case CmdGetLogTimePresent, CmdGetLogLastPresent, CmdGetLogIDPresent, CmdGetLogTimePast:
		return &LogRecordsRequest{Kind: cmd}, nil
	case CmdLogger:
		return nil, fmt.Errorf("%w: %s without a sub-command", ErrUnknownCommand, cmd)
	}
	return nil, fmt.Errorf("%w: %s", ErrUnknownCommand, cmd)
}

// NewAnswer returns an empty answer of a command, as [NewRequest] does a request.
func NewAnswer(cmd Command) (Answer, error) {
	req, err := NewRequest(cmd)
	if err != nil {
		return nil, err
	}
	return req.NewAnswer(), nil
}

// AppendMessage appends m as a whole frame, ready for the wire, to or from addr. An
// answer that acknowledges, such as [SetClockAnswer], is the byte [Ack] alone.
func AppendMessage(dst []byte, dir Direction, addr Address, m Message) ([]byte, error) {
	if _, ok := m.(interface{ acknowledges() }); ok {
		return append(dst, Ack), nil
	}
	start := len(dst)
	dst, err := m.AppendData(append(dst, byte(dir), byte(addr), byte(m.Command())))
	if err != nil {
		return dst[:start], err
	}
	if n := len(dst) - start - 1 + 2; n > MaxFrame {
		return dst[:start], &RangeError{What: "length of the frame", Got: int64(n), Min: minFrame, Max: MaxFrame}
	}
	return closeFrame(dst, start), nil
}

// DecodeMessage decodes a frame's data as a request or an answer, by its direction.
// The message may keep parts of f.Data.
func DecodeMessage(f Frame) (Message, error) {
	var req Request
	var err error
	if f.Command == CmdLogger {
		req, err = newLogRequest(f.Data)
	} else if req, err = NewRequest(f.Command); err != nil {
		err = &FrameError{Application, 1, err}
	}
	if err != nil {
		return nil, err
	}
	var m Message = req
	if f.Direction != ToMeter {
		m = req.NewAnswer()
	}
	if err := m.DecodeData(f.Data); err != nil {
		return nil, err
	}
	return m, nil
}

// acknowledgement is the answer of one byte, 06, to a command that has nothing else
// to answer. It is no frame: in one, it can neither be sent nor be found.
type acknowledgement struct{}

func (acknowledgement) acknowledges() {}

// AppendData implements [Message]: there is none. [AppendMessage] sends the byte 06.
func (acknowledgement) AppendData(dst []byte) ([]byte, error) { return dst, nil }

// DecodeData implements [Message]: a frame is not the answer.
func (acknowledgement) DecodeData([]byte) error {
	return dataError(-1, fmt.Errorf("%w: a frame instead of the byte 06", ErrForeign))
}

// dataError is an error at an index of a command's data; in the unstuffed frame,
// address and command stand before it.
func dataError(index int, err error) error {
	return &FrameError{Application, 2 + index, err}
}

// exactly checks the length of data that has no variable part.
func exactly(what string, data []byte, want int) error {
	if len(data) == want {
		return nil
	}
	return dataError(min(len(data), want), &LengthError{What: what, Want: want, Got: len(data)})
}

// GetTypeRequest asks for the meter's type and software revision (command 01).
type GetTypeRequest struct{}

// Command implements [Message].
func (*GetTypeRequest) Command() Command { return CmdGetType }

// NewAnswer implements [Request].
func (*GetTypeRequest) NewAnswer() Answer { return new(GetTypeAnswer) }

// AppendData implements [Message]: there is none.
func (*GetTypeRequest) AppendData(dst []byte) ([]byte, error) { return dst, nil }

// DecodeData implements [Message].
func (*GetTypeRequest) DecodeData(data []byte) error { return exactly("GetType request", data, 0) }

// GetTypeAnswer is the answer to [GetTypeRequest].
type GetTypeAnswer struct {
	MeterType uint16 // package catalog knows some of them
	Revision  Revision
}

// Command implements [Message].
func (*GetTypeAnswer) Command() Command { return CmdGetType }

// NewRequest implements [Answer].
func (*GetTypeAnswer) NewRequest() Request { return new(GetTypeRequest) }

// AppendData implements [Message].
func (a *GetTypeAnswer) AppendData(dst []byte) ([]byte, error) {
	dst = binary.BigEndian.AppendUint16(dst, a.MeterType)
	return append(dst, a.Revision.Letter, a.Revision.Number), nil
}

// DecodeData implements [Message].
func (a *GetTypeAnswer) DecodeData(data []byte) error {
	if err := exactly("GetType answer", data, 4); err != nil {
		return err
	}
	*a = GetTypeAnswer{binary.BigEndian.Uint16(data), Revision{data[2], data[3]}}
	return nil
}

// Revision is a software revision: 06 01 is F1.
type Revision struct {
	Letter byte // 1 is A, 26 is Z, 27 is AA
	Number byte
}

// String returns the revision as on a label, "F1"; "" for the zero Revision.
func (r Revision) String() string {
	if r == (Revision{}) {
		return ""
	}
	letters := "?"
	if r.Letter > 0 {
		n := int(r.Letter) - 1
		letters = string(rune('A' + n%26))
		if n >= 26 {
			letters = string(rune('A'+n/26-1)) + letters
		}
	}
	return fmt.Sprintf("%s%d", letters, r.Number)
}

// GetSerialNoRequest asks for the serial number (command 02).
type GetSerialNoRequest struct{}

// Command implements [Message].
func (*GetSerialNoRequest) Command() Command { return CmdGetSerialNo }

// NewAnswer implements [Request].
func (*GetSerialNoRequest) NewAnswer() Answer { return new(GetSerialNoAnswer) }

// AppendData implements [Message]: there is none.
func (*GetSerialNoRequest) AppendData(dst []byte) ([]byte, error) { return dst, nil }

// DecodeData implements [Message].
func (*GetSerialNoRequest) DecodeData(data []byte) error {
	return exactly("GetSerialNo request", data, 0)
}

// GetSerialNoAnswer is the answer to [GetSerialNoRequest].
type GetSerialNoAnswer struct {
	SerialNo uint32 // in decimal, as printed on the label
}

// Command implements [Message].
func (*GetSerialNoAnswer) Command() Command { return CmdGetSerialNo }

// NewRequest implements [Answer].
func (*GetSerialNoAnswer) NewRequest() Request { return new(GetSerialNoRequest) }

// AppendData implements [Message].
func (a *GetSerialNoAnswer) AppendData(dst []byte) ([]byte, error) {
	return binary.BigEndian.AppendUint32(dst, a.SerialNo), nil
}

// DecodeData implements [Message].
func (a *GetSerialNoAnswer) DecodeData(data []byte) error {
	if err := exactly("GetSerialNo answer", data, 4); err != nil {
		return err
	}
	a.SerialNo = binary.BigEndian.Uint32(data)
	return nil
}

// GetRegisterRequest asks for the values of one to eight registers (command 10).
type GetRegisterRequest struct {
	IDs []uint16
}

// Command implements [Message].
func (*GetRegisterRequest) Command() Command { return CmdGetRegister }

// NewAnswer implements [Request].
func (*GetRegisterRequest) NewAnswer() Answer { return new(GetRegisterAnswer) }

// AppendData implements [Message]. A number of registers other than 1 to 8 is a
// *[RangeError].
func (q *GetRegisterRequest) AppendData(dst []byte) ([]byte, error) {
	if err := inRange("number of registers", len(q.IDs), 1, MaxRegisters); err != nil {
		return dst, err
	}
	return appendIDs(dst, q.IDs), nil
}

// DecodeData implements [Message]. It reuses the memory of IDs.
func (q *GetRegisterRequest) DecodeData(data []byte) error {
	if len(data) == 0 {
		return dataError(0, &LengthError{"GetRegister request", 1, 0, true})
	}
	if err := inRange("number of registers", int(data[0]), 1, MaxRegisters); err != nil {
		return dataError(0, err)
	}
	ids, err := decodeIDs("GetRegister request", data, 0, q.IDs)
	if err != nil {
		return err
	}
	q.IDs = ids
	return nil
}

// GetRegisterAnswer is the answer to [GetRegisterRequest]. Registers that the meter
// does not have are left out of it; no register at all is a valid answer.
type GetRegisterAnswer struct {
	Registers []Register
}

// Command implements [Message].
func (*GetRegisterAnswer) Command() Command { return CmdGetRegister }

// NewRequest implements [Answer].
func (*GetRegisterAnswer) NewRequest() Request { return new(GetRegisterRequest) }

// AppendData implements [Message]. More than eight registers are a *[RangeError], a
// value of no or more than 255 bytes a *[LengthError].
func (a *GetRegisterAnswer) AppendData(dst []byte) ([]byte, error) {
	if err := inRange("number of registers", len(a.Registers), 0, MaxRegisters); err != nil {
		return dst, err
	}
	start := len(dst)
	for _, r := range a.Registers {
		var err error
		if dst, err = appendRegister(dst, r); err != nil {
			return dst[:start], err
		}
	}
	return dst, nil
}

// DecodeData implements [Message]. It reuses the memory of Registers, whose Raw are
// parts of data.
func (a *GetRegisterAnswer) DecodeData(data []byte) error {
	a.Registers = a.Registers[:0]
	for i := 0; i < len(data); {
		r, size, err := decodeRegister(data[i:])
		if err != nil {
			return dataError(len(data), err)
		}
		a.Registers = append(a.Registers, r)
		i += size
	}
	return nil
}

// registerHeader is the length of what stands before a value: id, unit, NoB, SiEx.
const registerHeader = 5

// Register is one register of an answer as it was on the wire. [Register.Value]
// decodes it by its unit.
type Register struct {
	ID   uint16
	Unit Unit
	SiEx byte // sign of the value, sign and size of the exponent
	// Raw is the value, NoB bytes, most significant first. 1 to 16 bytes have been
	// seen; the format allows 255.
	Raw []byte
}

// Decimal returns the register as a number, whatever its unit says. No bytes at all
// give a *[LengthError].
func (r Register) Decimal() (Decimal, error) {
	if len(r.Raw) == 0 {
		return Decimal{}, r.noBytes()
	}
	return decodeNumber(r.SiEx, r.Raw), nil
}

// noBytes is the error about a value of no bytes where there has to be one.
func (r Register) noBytes() error {
	return &LengthError{What: fmt.Sprintf("register %d", r.ID), Want: 1, Minimum: true}
}

// NewRegister returns a register that holds a number in width bytes, 1 to 255, or
// in as few as possible when width is 0. Errors are those of [AppendDecimal].
func NewRegister(id uint16, unit Unit, v Decimal, width int) (Register, error) {
	wire, err := AppendDecimal(nil, v, width) // NoB, SiEx, value
	if err != nil {
		return Register{}, &contextError{fmt.Sprintf("register %d", id), err}
	}
	return Register{ID: id, Unit: unit, SiEx: wire[1], Raw: wire[2:]}, nil
}
