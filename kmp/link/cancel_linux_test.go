package link

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"kmp2mqtt/kmp"
)

// A cancelled context ends a call that waits for a silent meter, on every kind of
// line, and the line still is of use.
func TestCancelEndsACall(t *testing.T) {
	answer := []byte{0x40, 0x3F, 0x02, 0x01, 0x23, 0x45, 0x67, 0xE9, 0x56, 0x0D}
	tests := map[string]func(t *testing.T) (kmp.Line, io.ReadWriter){
		"tcp": func(t *testing.T) (kmp.Line, io.ReadWriter) {
			t.Helper()
			line, server := dial(t)
			return line, server
		},
		"serial": func(t *testing.T) (kmp.Line, io.ReadWriter) {
			t.Helper()
			meter, name := openPTY(t)
			return openLine(t, name), meter
		},
	}
	for name, open := range tests {
		t.Run(name, func(t *testing.T) {
			line, meter := open(t)
			conn := kmp.NewConn(line, kmp.Options{Timeout: time.Hour})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() {
				_, err := conn.GetSerialNo(ctx, kmp.HeatMeter)
				ended <- err
			}()
			request := make([]byte, 6)
			if _, err := io.ReadFull(meter, request); err != nil {
				t.Fatal(err)
			}
			cancel() // in the hour for the answer
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Fatalf("%v, want context.Canceled", err)
			}

			go func() {
				_, err := conn.GetSerialNo(t.Context(), kmp.HeatMeter)
				ended <- err
			}()
			if _, err := io.ReadFull(meter, request); err != nil {
				t.Fatal(err)
			}
			if _, err := meter.Write(answer); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err != nil {
				t.Errorf("the next call: %v", err)
			}
		})
	}
}
