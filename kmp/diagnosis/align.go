package diagnosis

import (
	"context"
	"encoding/json"
	"time"

	"kmp2mqtt/kmp"
)

const (
	// AlignTimeout is how long Align waits for an answer's first byte: meters need 20
	// to 250 ms, and what moves under a hand should show at once.
	AlignTimeout = 800 * time.Millisecond
	// sampleEvery is the least time between two reads of Align.
	sampleEvery = 250 * time.Millisecond
	// lockAfter good reads in a row lock, unlockAfter failed ones in a row unlock.
	lockAfter, unlockAfter = 10, 2
)

// Sample is one small read of [Align], and the line's quality with it.
type Sample struct {
	Code      Code          // OK, or why this read failed
	Echo      bool          // the request came back
	FirstByte time.Duration // to the first byte that is no echo; 0: none came
	Good, Of  int           // good reads of the last 20
	Row       int           // good reads in a row
	Locked    bool          // the head sits: 10 good reads in a row, and no two failed ones since
}

// MarshalJSON writes the read as one object; what is not known is null.
func (s Sample) MarshalJSON() ([]byte, error) {
	v := struct {
		Code      Code     `json:"code"`
		Echo      bool     `json:"echo"`
		FirstByte *float64 `json:"first_byte_s"`
		Good      int      `json:"good"`
		Of        int      `json:"of"`
		Row       int      `json:"row"`
		Locked    bool     `json:"locked"`
	}{Code: s.Code, Echo: s.Echo, Good: s.Good, Of: s.Of, Row: s.Row, Locked: s.Locked}
	if s.FirstByte > 0 {
		f := seconds(s.FirstByte)
		v.FirstByte = &f
	}
	return json.Marshal(v)
}

// Summary is how an alignment ended.
type Summary struct {
	Reads    int
	Good     int
	Duration time.Duration
	Locked   bool
	Evidence Evidence // of all reads, with the error of the newest one that failed
	Code     Code     // OK when locked, else what to look at
}

// Align reads the serial number again and again, a few times a second while the meter
// answers, and shows each read. It ends after length, when ctx ends, or with the error
// of a line that cannot be opened or fails; a meter that does not answer is no error.
// The meter's pauses after silence (1.6 s) are kept.
func Align(ctx context.Context, o Options, length time.Duration, show func(Sample)) (Summary, error) {
	o = o.withDefaults()
	if o.Timeout == 0 {
		o.Timeout = AlignTimeout
	}
	line, err := o.Dial(ctx, o.Target)
	if err != nil {
		return Summary{Evidence: FromError(err), Code: Classify(FromError(err))}, err
	}
	c := o.client(line, o.Target)
	defer c.Close()
	return AlignOn(ctx, c, o.Address, length, show)
}

// AlignOn is [Align] on a line that is open. The client's time-out should be
// [AlignTimeout], and it should repeat nothing: each request shows.
func AlignOn(ctx context.Context, c *kmp.Conn, addr kmp.Address, length time.Duration, show func(Sample)) (Summary, error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()

	var (
		s       Summary
		quality Quality
		last    Sample
		failed  int // in a row
		failure error
		broken  error
	)
	for ctx.Err() == nil && broken == nil {
		began := time.Now()
		_, err := c.GetSerialNo(ctx, addr)
		if ctx.Err() != nil {
			break
		}
		last.Code, last.Echo, last.FirstByte = OK, c.Stats().Echo, c.Stats().FirstByte
		if err == nil {
			s.Good++
			last.Row, failed = last.Row+1, 0
		} else {
			last.Code = Classify(FromError(err))
			last.Row, failed, failure = 0, failed+1, err
			if lineClass(err) != "" {
				broken = err
			}
		}
		s.Reads++
		quality.Note(err == nil)
		last.Good, last.Of = quality.Good()
		last.Locked = broken == nil && (last.Row >= lockAfter || last.Locked && failed < unlockAfter)
		show(last)
		pause(ctx, sampleEvery-time.Since(began))
	}
	s.Duration, s.Locked = time.Since(start), last.Locked
	s.Evidence = Options{Address: addr}.evidence(c, failure)
	if s.Code = OK; !s.Locked {
		s.Code = Classify(s.Evidence)
	}
	return s, broken
}
