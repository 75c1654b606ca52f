package kmp

import (
	"context"
	"encoding/binary"
)

// SetClockRequest sets the meter's clock (command 09). The meter acknowledges it, or
// keeps silent when it refuses.
type SetClockRequest struct {
	Date  Date // year 2000 to 2099
	Clock Clock
}

// Command implements [Message].
func (*SetClockRequest) Command() Command { return CmdSetClock }

// NewAnswer implements [Request].
func (*SetClockRequest) NewAnswer() Answer { return new(SetClockAnswer) }

// AppendData implements [Message]. What the meter would refuse is a *[RangeError]:
// the year, a day that its month has not, a time outside the day.
func (q *SetClockRequest) AppendData(dst []byte) ([]byte, error) {
	date, err := q.Date.digits()
	if err != nil {
		return dst, err
	}
	clock, err := q.Clock.digits()
	if err != nil {
		return dst, err
	}
	dst = binary.BigEndian.AppendUint32(dst, date)
	return binary.BigEndian.AppendUint32(dst, clock), nil
}

// DecodeData implements [Message]. It refuses what the meter would.
func (q *SetClockRequest) DecodeData(data []byte) error {
	if err := exactly("SetClock request", data, 8); err != nil {
		return err
	}
	date, err := dateOf(binary.BigEndian.Uint32(data))
	if err != nil {
		return dataError(0, err)
	}
	clock, err := clockOf(binary.BigEndian.Uint32(data[4:]))
	if err != nil {
		return dataError(4, err)
	}
	*q = SetClockRequest{date, clock}
	return nil
}

func dateOf(n uint32) (Date, error) {
	if n > 991231 {
		return Date{}, &RangeError{What: "date", Got: int64(n), Min: 101, Max: 991231}
	}
	d := Date{2000 + int(n/10000), int(n / 100 % 100), int(n % 100)}
	return d, d.check()
}

func clockOf(n uint32) (Clock, error) {
	if n > 235959 {
		return Clock{}, &RangeError{What: "clock", Got: int64(n), Max: 235959}
	}
	c := Clock{int(n / 10000), int(n / 100 % 100), int(n % 100)}
	return c, c.check()
}

// SetClockAnswer is the acknowledgement of [SetClockRequest].
type SetClockAnswer struct{ acknowledgement }

// Command implements [Message].
func (*SetClockAnswer) Command() Command { return CmdSetClock }

// NewRequest implements [Answer].
func (*SetClockAnswer) NewRequest() Request { return new(SetClockRequest) }

// SetClock sets the clock of the meter at addr. The request is sent once: repeated,
// it would set a time that has passed. Silence means that the meter refused, and is
// [ErrNoReply] in an *[ExchangeError]; whether it did is for the caller to read.
// Other errors are those of [Conn.Do].
//
// The time is set when the request has arrived, which takes 0.2 s at 1200 baud. After a
// failure the Conn keeps silence for 1.6 s before it: a good answer just before, such as
// that of [Conn.GetRegister], makes sure that there is no such wait.
func (c *Conn) SetClock(ctx context.Context, addr Address, date Date, clock Clock) error {
	return c.Do(ctx, addr, &SetClockRequest{date, clock}, new(SetClockAnswer))
}
