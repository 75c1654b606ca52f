package link

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/sim"
)

// sim reads the rest of a sim:// URL. What its options mean, and what is wrong with
// them, package sim knows.
func (p *parser) sim(model, query string) {
	p.target.Scheme = SchemeSim
	if model == "" {
		p.fail("names no model; write sim://403")
		return
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		p.fail("bad options %q: %w", query, err)
		return
	}
	if _, err := sim.ParseConfig(model, values); err != nil {
		p.errs = append(p.errs, each(err)...)
		return
	}
	p.target.Model = model
	p.target.Options = values.Encode()
}

// each takes joined errors apart: they would fill a line each, and a URL's errors
// stand on one.
func each(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	// Only what errors.Join made is nothing but its parts; a sentence that wraps
	// two errors stays whole.
	var texts []string
	for _, part := range joined.Unwrap() {
		texts = append(texts, part.Error())
	}
	if strings.Join(texts, "\n") != err.Error() {
		return []error{err}
	}
	var parts []error
	for _, part := range joined.Unwrap() {
		parts = append(parts, each(part)...)
	}
	return parts
}

// openSim makes the meter and a line to it. Both live until the line is closed,
// whatever becomes of ctx.
func openSim(ctx context.Context, t Target) (kmp.Line, error) {
	meter, err := newMeter(t)
	if err != nil {
		return nil, &Error{Op: "open", Line: t.String(), Err: err}
	}
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	return &simLine{line: meter.Line(ctx), name: t.String(), end: end}, nil
}

func newMeter(t Target) (*sim.Meter, error) {
	values, err := url.ParseQuery(t.Options)
	if err != nil {
		return nil, fmt.Errorf("bad options: %w", err)
	}
	config, err := sim.ParseConfig(t.Model, values)
	if err != nil {
		return nil, err
	}
	return sim.New(config)
}

// simLine ends its meter when it is closed.
type simLine struct {
	line kmp.Line
	name string
	end  context.CancelFunc
	once sync.Once
}

// Close closes the line and ends the meter. A second Close does nothing.
func (l *simLine) Close() error {
	var err error
	l.once.Do(func() {
		err = l.line.Close()
		l.end()
	})
	if err != nil {
		return &Error{Op: "close", Line: l.name, Err: err}
	}
	return nil
}

// Read reads what has arrived, at least one byte.
func (l *simLine) Read(p []byte) (int, error) {
	n, err := l.line.Read(p)
	return n, l.fail("read", err)
}

// Write sends p. It never waits.
func (l *simLine) Write(p []byte) (int, error) {
	n, err := l.line.Write(p)
	return n, l.fail("write", err)
}

// SetReadDeadline sets when Read gives up; the zero time is never.
func (l *simLine) SetReadDeadline(t time.Time) error {
	return l.fail("set deadline", l.line.SetReadDeadline(t))
}

func (l *simLine) fail(op string, err error) error {
	switch {
	case err == nil || errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case isClosed(err):
		return closedError(op, l.name)
	}
	return goneError(op, l.name, "the simulated meter has ended", err, "")
}
