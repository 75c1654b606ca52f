package logbook

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/sim"
)

// A clock that is set shows standard time, in summer as in winter, on the second.
func TestSetClock(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Copenhagen")
	if err != nil {
		t.Fatal(err)
	}
	for _, start := range []time.Time{
		time.Date(2026, 7, 1, 12, 0, 0, 300e6, time.UTC),
		time.Date(2026, 12, 31, 22, 59, 58, 900e6, time.UTC),
	} {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Until(start))
			meter, err := sim.New(sim.Config{Model: "603", Start: start.In(zone), ClockOffset: -17 * time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			conn := kmp.NewConn(meter.Line(t.Context()), kmp.Options{})
			defer conn.Close()
			src := Source{Conn: conn, Address: kmp.HeatMeter, Zone: zone}
			before, err := Clock(t.Context(), src)
			if err != nil || before.Drift != -17*time.Minute {
				t.Fatalf("%+v, %v", before, err)
			}
			got, err := SetClock(t.Context(), src)
			if err != nil || got.Drift != 0 {
				t.Errorf("%+v, %v", got, err)
			}
			if want := StandardTime(time.Now(), zone); got.Meter.Sub(want).Abs() > 2*time.Second {
				t.Errorf("it shows %s, want %s", got.Meter, want)
			}
		})
	}
}

// A meter that is silent has refused; one that takes a time and shows another was not set.
func TestSetClockFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter, err := sim.New(sim.Config{Model: "21"})
		if err != nil {
			t.Fatal(err)
		}
		conn := kmp.NewConn(meter.Line(t.Context()), kmp.Options{})
		defer conn.Close()
		src := Source{Conn: conn, Address: kmp.HeatMeter, Zone: time.UTC}
		if _, err := SetClock(t.Context(), src); !errors.Is(err, kmp.ErrNoReply) {
			t.Errorf("silent: %v", err)
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if _, err := SetClock(ended, src); !errors.Is(err, context.Canceled) {
			t.Errorf("ended: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		meter, err := sim.New(sim.Config{Model: "603", Speed: 288}) // 30 s go by while it is asked
		if err != nil {
			t.Fatal(err)
		}
		conn := kmp.NewConn(meter.Line(t.Context()), kmp.Options{})
		defer conn.Close()
		_, err = SetClock(t.Context(), Source{Conn: conn, Address: kmp.HeatMeter, Zone: time.UTC})
		if !errors.Is(err, ErrNotSet) {
			t.Errorf("fast: %v", err)
		}
	})
}

func TestStandardTime(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Copenhagen")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	if got := StandardTime(at, zone).Format(time.RFC3339); got != "2026-07-01T13:00:00+01:00" {
		t.Error(got)
	}
}
