package link

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
)

// headLine is a line whose head speaks once it has power.
type headLine struct {
	kmp.Line
	deadline time.Time
	says     []time.Duration // when, after its opening
	opened   time.Time
}

func (l *headLine) SetReadDeadline(t time.Time) error {
	l.deadline = t
	return nil
}

func (l *headLine) Read(p []byte) (int, error) {
	if len(l.says) > 0 {
		if at := l.opened.Add(l.says[0]); at.Before(l.deadline) {
			l.says = l.says[1:]
			time.Sleep(time.Until(at))
			return copy(p, []byte("boot")), nil
		}
	}
	time.Sleep(time.Until(l.deadline))
	return 0, os.ErrDeadlineExceeded
}

// What a head says while it comes up is dropped, what it says later is not.
func TestWarmUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := &headLine{opened: time.Now(), says: []time.Duration{0, time.Second, 1900 * time.Millisecond, 2100 * time.Millisecond}}
		start := time.Now()
		if err := warm(t.Context(), line, serialTarget("/dev/x", func(t *Target) { t.Warmup = 2 * time.Second })); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("took %v", took)
		}
		if len(line.says) != 1 || !line.deadline.IsZero() {
			t.Errorf("%d left to say, deadline %v", len(line.says), line.deadline)
		}
	})
}

// After the warm-up a line reads and writes as any other.
func TestSerialWarmUp(t *testing.T) {
	meter, name := openPTY(t)
	line := openLine(t, name+"?warmup=1ms")
	if _, err := meter.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 6)
	if _, err := io.ReadFull(line, got); err != nil || string(got) != "answer" {
		t.Errorf("read %q, %v", got, err)
	}
}

// An opening that is given up leaves nothing behind that holds the port.
func TestWarmUpCancelled(t *testing.T) {
	_, name := openPTY(t)
	target, err := Parse(name + "?warmup=30s")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err = Open(ctx, target)
	var e *Error
	if !errors.Is(err, context.Canceled) || !errors.As(err, &e) || e.Op != "open" || e.Line != target.String() {
		t.Fatal(err)
	}
	line := openLine(t, name)

	err = warm(ctx, line, target) // cancelled from the beginning
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	wantText(t, err, "warm-up of 30s")
}

func TestWarmUpUnplugged(t *testing.T) {
	meter, name := openPTY(t)
	target, err := Parse(name + "?warmup=30s")
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(time.Millisecond, func() { meter.Close() })
	_, err = Open(context.Background(), target)
	var e *Error
	if !errors.As(err, &e) || e.Op != "open" {
		t.Fatal(err)
	}
}

// A serial server's head, too, gets its time.
func TestRFC2217WarmUp(t *testing.T) {
	line, _ := controlled(t)
	err := warm(context.Background(), line, tcpTarget("h", 1, func(t *Target) { t.Scheme, t.Warmup = SchemeRFC2217, time.Millisecond }))
	if err != nil {
		t.Fatal(err)
	}
	if err := line.Close(); err != nil {
		t.Fatal(err)
	}
	err = warm(context.Background(), line, tcpTarget("h", 1, func(t *Target) { t.Scheme, t.Warmup = SchemeRFC2217, time.Millisecond }))
	var e *Error
	if !errors.Is(err, os.ErrClosed) || !errors.As(err, &e) || e.Op != "open" {
		t.Error(err)
	}
}
