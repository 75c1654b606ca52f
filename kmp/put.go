package kmp

import (
	"context"
	"encoding/binary"
)

// PutRegisterRequest writes a register (command 11). The meter acknowledges it, or
// keeps silent when it refuses, a wrong password included (5512-447 section 6.3.7).
type PutRegisterRequest struct {
	Password uint16
	Register Register
}

// Command implements [Message].
func (*PutRegisterRequest) Command() Command { return CmdPutRegister }

// NewAnswer implements [Request].
func (*PutRegisterRequest) NewAnswer() Answer { return new(PutRegisterAnswer) }

// AppendData implements [Message]. A value of no or more than 255 bytes is a
// *[LengthError].
func (q *PutRegisterRequest) AppendData(dst []byte) ([]byte, error) {
	return appendRegister(binary.BigEndian.AppendUint16(dst, q.Password), q.Register)
}

// DecodeData implements [Message]. The value is a part of data.
func (q *PutRegisterRequest) DecodeData(data []byte) error {
	const password = 2
	if len(data) < password+registerHeader {
		return dataError(len(data), &LengthError{"PutRegister request", password + registerHeader, len(data), true})
	}
	r, size, err := decodeRegister(data[password:])
	if err != nil {
		return dataError(len(data), err)
	}
	if err := exactly("PutRegister request", data, password+size); err != nil {
		return err
	}
	if len(r.Raw) == 0 {
		return dataError(len(data), r.noBytes())
	}
	*q = PutRegisterRequest{binary.BigEndian.Uint16(data), r}
	return nil
}

// PutRegisterAnswer is the acknowledgement of [PutRegisterRequest].
type PutRegisterAnswer struct{ acknowledgement }

// Command implements [Message].
func (*PutRegisterAnswer) Command() Command { return CmdPutRegister }

// NewRequest implements [Answer].
func (*PutRegisterAnswer) NewRequest() Request { return new(PutRegisterRequest) }

// PutRegister writes a register of the meter at addr. The request is sent once: a
// register may count what is written to it. Silence means that the meter refused,
// for whatever reason, and is [ErrNoReply] in an *[ExchangeError]. Other errors are
// those of [Conn.Do].
func (c *Conn) PutRegister(ctx context.Context, addr Address, password uint16, r Register) error {
	return c.Do(ctx, addr, &PutRegisterRequest{password, r}, new(PutRegisterAnswer))
}
