package kmp

import (
	"errors"
	"time"
)

// The bounds of what a Conn learns of its line, and how quickly.
const (
	// maxTimeout and maxGap end the learning, so that a line that is dead or babbles
	// is never waited for without end. Larger values in [Options] stand.
	maxTimeout = 10 * time.Second
	maxGap     = 2 * time.Second

	// growAfter good answers in a row make requests larger again. Each growth that
	// ends in damage doubles the number, up to growAtMost: a head that sits badly for
	// good shall not cost the meter's battery a failed request every few readings.
	growAfter  = 10
	growAtMost = 160

	// leastFirst is the shortest time to a first byte that is told: a line without a
	// pace, such as a simulated one, answers before the request can have left.
	leastFirst = time.Millisecond
)

// pace is how long a line needs. An answer that came too late raises the time-out, a
// pause inside one that was cut short the gap; good answers bring both down again.
type pace struct {
	timeout, gap           time.Duration // in force
	leastTimeout, leastGap time.Duration // as the options have them
	slowest, longest       time.Duration // first byte and pause of good answers; forgotten by and by
}

func newPace(o Options) pace {
	return pace{
		timeout: min(max(o.Timeout, o.StartTimeout), max(o.Timeout, maxTimeout)), leastTimeout: o.Timeout,
		gap: min(max(o.Gap, o.StartGap), max(o.Gap, maxGap)), leastGap: o.Gap,
	}
}

// good takes in an answer in time: its first byte, and the longest pause inside it.
func (p *pace) good(first, pause time.Duration) {
	p.slowest = max(first, p.slowest-p.slowest/32)
	p.longest = max(pause, p.longest-p.longest/32)
	p.timeout = ease(p.timeout, p.slowest, p.leastTimeout, maxTimeout)
	p.gap = ease(p.gap, p.longest, p.leastGap, maxGap)
}

// late takes in an answer after its time, first after the request; 0: not known.
func (p *pace) late(first time.Duration) {
	if first > maxTimeout { // it waited on the line for somebody to read it
		first = 0
	}
	p.slowest = max(p.slowest, first)
	p.timeout = raise(p.timeout, p.slowest, p.leastTimeout, maxTimeout)
}

// cut takes in an answer that was whole but for a pause.
func (p *pace) cut(pause time.Duration) {
	p.longest = max(p.longest, pause)
	p.gap = raise(p.gap, p.longest, p.leastGap, maxGap)
}

// raise makes a limit half as long again, or long enough for what was seen.
func raise(limit, seen, least, most time.Duration) time.Duration {
	return min(max(limit+limit/2, seen+seen/4), max(least, most))
}

// ease lets a limit come back to a quarter more than what was seen lately, and never
// less than least, by a sixteenth of the way at each good answer.
func ease(limit, seen, least, most time.Duration) time.Duration {
	enough := max(least, min(seen+seen/4, most))
	return max(enough, limit-max(limit-enough, 0)/16-time.Millisecond)
}

// ear follows everything that comes after a request, whatever the deadlines say: it
// recognises the answer that came too late, or with a pause too long.
type ear struct {
	reader  *Reader // gets its bytes by push alone
	addr    Address // of the request
	command Command
	began   time.Time     // when the last frame's first byte came
	last    time.Time     // when the last bytes came
	pause   time.Duration // the longest inside that frame
}

// expect forgets what came before and is for the answer to a request.
func (e *ear) expect(addr Address, cmd Command) {
	e.reader.Reset()
	e.addr, e.command = addr, cmd
}

// hear takes in bytes as they come. In time means that somebody waits for an answer;
// whole answers that come otherwise are owed to a request that was given up.
func (c *Conn) hear(p []byte, inTime bool) {
	if len(p) == 0 { // a deadline passed
		return
	}
	e, now := &c.ear, time.Now()
	if e.reader.InFrame() {
		e.pause = max(e.pause, now.Sub(e.last))
	}
	e.last = now
	for _, b := range p {
		whole, _ := e.reader.push(b) // damage is the business of who waits
		if b == byte(FromMeter) {
			e.began, e.pause = now, 0
			c.wake(now)
		}
		if !whole {
			continue
		}
		f, err := e.reader.finish()
		if err != nil || f.Address != e.addr || !answers(f.Command, e.command) {
			continue
		}
		if e.pause > c.pace.gap && e.pause <= maxGap {
			c.pace.cut(e.pause)
		}
		if !inTime {
			c.paid(e.began.Sub(c.left))
		}
		c.tell()
	}
}

// paid notes an answer to a request that was given up, first after the last request
// or longer: nobody knows which of several it answers.
func (c *Conn) paid(first time.Duration) {
	if c.owed == 0 {
		return
	}
	c.owed--
	c.pace.late(first)
}

// tell puts what was learned where everybody may read it.
func (c *Conn) tell() {
	c.count(func(s *Stats) { s.Timeout, s.Gap = c.pace.timeout, c.pace.gap })
}

// wake counts the 1.6 s that a meter stays awake from the first byte of an answer.
func (c *Conn) wake(now time.Time) {
	from := now
	if c.awake.After(from) {
		from = c.awake
	}
	c.awake = now.Add(quiet)
	c.count(func(s *Stats) { s.Awake += c.awake.Sub(from) })
}

// fit notes how a request of n registers went. Again says that fewer are worth trying
// at once.
//
// Damage alone makes requests smaller, and that includes an answer that was cut
// short. Silence does not, nor do bytes without a frame: so answer a meter that
// sleeps, a magnet that slipped and a line of another speed, which smaller requests
// would only wake more often.
func (c *Conn) fit(n int, err error) (again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	size := &c.stats.RequestSize
	switch {
	case errors.Is(err, ErrCodec) && !errors.Is(err, ErrNoFrame):
		for *size >= n && *size > 1 {
			*size /= 2
		}
		if c.grown {
			c.need = min(2*c.need, growAtMost)
		}
		c.row, c.grown = 0, false
		return n > 1
	case err != nil:
		c.row = 0
	case n == *size:
		c.row++
		if c.row == growAfter && c.grown {
			c.need, c.grown = growAfter, false
		}
		if c.row >= c.need && n < MaxRegisters {
			*size = min(2*n, MaxRegisters)
			c.row, c.grown = 0, true
		}
	}
	return false
}
