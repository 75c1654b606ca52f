package kmp

import "context"

// EventStatus are the four status bytes of commands 9B and 9C, ES0 to ES3. Those of
// electricity meters are other ones than those of the heat meters' loggers.
type EventStatus [4]byte

// The bits of ES2 of a heat meter's logger (5512-447 section 6.3.5).
const (
	EventIntervalLog byte = 0x01 // the interval log has rows that were not read
	EventRTCLog      byte = 0x02 // the clock's log has rows that were not read
)

// GetEventStatusRequest asks for the event status (command 9B).
type GetEventStatusRequest struct{}

// Command implements [Message].
func (*GetEventStatusRequest) Command() Command { return CmdGetEventStatus }

// NewAnswer implements [Request].
func (*GetEventStatusRequest) NewAnswer() Answer { return new(GetEventStatusAnswer) }

// AppendData implements [Message]: there is none.
func (*GetEventStatusRequest) AppendData(dst []byte) ([]byte, error) { return dst, nil }

// DecodeData implements [Message].
func (*GetEventStatusRequest) DecodeData(data []byte) error {
	return exactly("GetEventStatus request", data, 0)
}

// GetEventStatusAnswer is the answer to [GetEventStatusRequest].
type GetEventStatusAnswer struct {
	Status EventStatus
}

// Command implements [Message].
func (*GetEventStatusAnswer) Command() Command { return CmdGetEventStatus }

// NewRequest implements [Answer].
func (*GetEventStatusAnswer) NewRequest() Request { return new(GetEventStatusRequest) }

// AppendData implements [Message].
func (a *GetEventStatusAnswer) AppendData(dst []byte) ([]byte, error) {
	return append(dst, a.Status[:]...), nil
}

// DecodeData implements [Message].
func (a *GetEventStatusAnswer) DecodeData(data []byte) error {
	if err := exactly("GetEventStatus answer", data, 4); err != nil {
		return err
	}
	a.Status = EventStatus(data)
	return nil
}

// ClearEventStatusRequest clears bits of the event status (command 9C). Heat meters'
// loggers know conditional bits of ES2 alone; clearing them is what moves on the
// record that [CmdGetLogLastPresent] begins after (5512-447 section 6.3.6).
type ClearEventStatusRequest struct {
	Conditional   EventStatus // bits to clear if nothing happened since they were read
	Unconditional EventStatus // bits to clear in any case
}

// Command implements [Message].
func (*ClearEventStatusRequest) Command() Command { return CmdClearEventStatus }

// NewAnswer implements [Request].
func (*ClearEventStatusRequest) NewAnswer() Answer { return new(ClearEventStatusAnswer) }

// AppendData implements [Message].
func (q *ClearEventStatusRequest) AppendData(dst []byte) ([]byte, error) {
	return append(append(dst, q.Conditional[:]...), q.Unconditional[:]...), nil
}

// DecodeData implements [Message].
func (q *ClearEventStatusRequest) DecodeData(data []byte) error {
	if err := exactly("ClearEventStatus request", data, 8); err != nil {
		return err
	}
	*q = ClearEventStatusRequest{EventStatus(data[:4]), EventStatus(data[4:])}
	return nil
}

// ClearEventStatusAnswer is the answer to [ClearEventStatusRequest]. The document
// prints it with the command 9B; [Conn.Do] takes it with either.
type ClearEventStatusAnswer struct {
	Status EventStatus // afterwards
}

// Command implements [Message].
func (*ClearEventStatusAnswer) Command() Command { return CmdClearEventStatus }

// NewRequest implements [Answer].
func (*ClearEventStatusAnswer) NewRequest() Request { return new(ClearEventStatusRequest) }

// AppendData implements [Message].
func (a *ClearEventStatusAnswer) AppendData(dst []byte) ([]byte, error) {
	return append(dst, a.Status[:]...), nil
}

// DecodeData implements [Message].
func (a *ClearEventStatusAnswer) DecodeData(data []byte) error {
	if err := exactly("ClearEventStatus answer", data, 4); err != nil {
		return err
	}
	a.Status = EventStatus(data)
	return nil
}

// EventStatus asks the logger at addr for its event status. Errors are those of
// [Conn.Do].
func (c *Conn) EventStatus(ctx context.Context, addr Address) (EventStatus, error) {
	var a GetEventStatusAnswer
	err := c.Do(ctx, addr, new(GetEventStatusRequest), &a)
	return a.Status, err
}

// ClearEventStatus clears bits of the event status of the logger at addr and returns
// what it is afterwards. Errors are those of [Conn.Do].
func (c *Conn) ClearEventStatus(ctx context.Context, addr Address, conditional, unconditional EventStatus) (EventStatus, error) {
	var a ClearEventStatusAnswer
	err := c.Do(ctx, addr, &ClearEventStatusRequest{conditional, unconditional}, &a)
	return a.Status, err
}
