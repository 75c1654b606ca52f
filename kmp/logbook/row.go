package logbook

import (
	"errors"
	"fmt"
	"time"

	"kmp2mqtt/kmp"
)

// Row is one row of a meter's log. It shares no memory with any other.
type Row struct {
	Log kmp.LogType
	ID  uint32 // the next row has the next id
	// Time is when the row was written: digits as the meter's clock showed them, with
	// the offset from UTC that the clock then had. It is zero when the row tells none.
	Time time.Time
	// Correction is what to add to Time for the true time, and Corrected whether that
	// is known: see [ClockReading.Correct]. A Reader leaves both empty.
	Correction time.Duration
	Corrected  bool
	// Registers are those that were asked for and that the log has, in the order asked,
	// without those that only hold the time (348, 1002 and 1003).
	Registers []kmp.Register
}

// Source is a meter whose log is read.
type Source struct {
	Conn    *kmp.Conn
	Address kmp.Address    // of the meter, or of a logger module in it
	Zone    *time.Location // where the meter's clock is at home; nil: UTC
}

// Range says which rows are wanted. The zero Range is the whole log.
type Range struct {
	// After is the id of the last row that is there already, if Known: the next one is
	// the first wanted. Otherwise the first one that the log still has is.
	After uint32
	Known bool
	// AfterTime is the Time of row After, zero when it is not known. It only helps to
	// ask for as many rows as there will be.
	AfterTime time.Time
	// Since and Until bound the rows by their Time: the first row is the first one not
	// before Since, the last one is the last before Until, and all rows between the two
	// are wanted, whatever their time. Zero: no bound. Only where a clock was set back by
	// more than two hours may rows from before that be missed.
	Since, Until time.Time
	// Registers are those wanted; nil: all that the log has, or of a logger module, which
	// does not tell, those that it usually may have.
	Registers []uint16
	// Most is how many rows are wanted at most, the oldest ones first; 0: no bound.
	Most int
}

// The conditions a caller may want to test with [errors.Is].
var (
	// ErrEnd says that every row up to the newest was delivered. It is not io.EOF, which
	// a line gives that was closed at its other end.
	ErrEnd = errors.New("logbook: no more rows")
	// ErrNoLogs says that the meter answers, but not to what reads this log: it has
	// none that could be read, or another command for it. The error wraps a
	// *[kmp.ExchangeError].
	ErrNoLogs = errors.New("logbook: the meter does not answer the logger command")
	// ErrRestarted says that the newest row of the log has a lower id than a row that
	// was read before: the log was erased, or this is another meter.
	ErrRestarted = errors.New("logbook: the log began anew")
	// ErrUnsteady says that rows which looked wrong came differently each time they
	// were read.
	ErrUnsteady = errors.New("logbook: the same rows read differently each time")
	// ErrNoClock says that the meter tells no time, or one that cannot be.
	ErrNoClock = errors.New("logbook: the meter tells no time")
)

// InfoError is what a meter says instead of rows.
type InfoError struct {
	Log  kmp.LogType
	Info kmp.LogInfo
}

// Error implements error.
func (e *InfoError) Error() string {
	return fmt.Sprintf("logbook: %s log: the meter says: %s", e.Log, e.Info)
}
