package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
)

var (
	// ErrBusy means that somebody else holds the serial port: another program, or
	// this one under another name of the port.
	ErrBusy = errors.New("in use by another program")

	// ErrStuck means that the line took no more bytes for 5 s. The request may have
	// left in part: the line is of no use any more and is to be closed.
	ErrStuck = errors.New("takes no more bytes")

	// ErrRefused means that a serial server does not do what rfc2217:// demands of
	// it, or does not set its port as asked.
	ErrRefused = errors.New("the serial server refuses")
)

// Error says what failed on which line, and what to do about it. [Open] and the
// lines it returns give no other errors, except for [os.ErrDeadlineExceeded], which
// a Read returns plainly.
type Error struct {
	Op     string // "open", "read", "write", "close" or "set deadline"
	Line   string // the line, as [Target.String] gives it
	Err    error  // the cause: ErrBusy, ErrStuck, ErrRefused, io.EOF, os.ErrClosed, fs.ErrNotExist and others, for errors.Is
	Advice string // what to do next, or empty
}

// Error returns the operation, the line, the cause and the advice.
func (e *Error) Error() string {
	s := "link: " + e.Op + " " + e.Line + ": " + e.Err.Error()
	if e.Advice != "" {
		s += "; " + e.Advice
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// URLError says all that is wrong with a line's URL.
type URLError struct {
	URL  string  // as it was given, without a password
	Errs []error // at least one
}

// Error returns everything that is wrong, in one line.
func (e *URLError) Error() string {
	parts := make([]string, len(e.Errs))
	for i, err := range e.Errs {
		parts[i] = err.Error()
	}
	return fmt.Sprintf("link: line %q: %s", e.URL, strings.Join(parts, "; "))
}

// Unwrap returns everything that is wrong.
func (e *URLError) Unwrap() []error { return e.Errs }

// closedError is the answer to a call that came after Close, or that Close
// interrupted. The packages below have different errors for it; callers should need
// to know one.
func closedError(op, line string) error {
	return &Error{Op: op, Line: line, Err: os.ErrClosed}
}

func isClosed(err error) bool {
	return errors.Is(err, os.ErrClosed) || errors.Is(err, net.ErrClosed)
}

// goneError is the answer of a line whose other end went away: what happened,
// io.EOF for the caller's test, and the cause.
func goneError(op, line, what string, cause error, advice string) error {
	err := fmt.Errorf("%s: %w", what, io.EOF)
	if cause != nil && !errors.Is(cause, io.EOF) {
		err = fmt.Errorf("%s: %w (%w)", what, io.EOF, cause)
	}
	return &Error{Op: op, Line: line, Err: err, Advice: advice}
}
