package link

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/sim"
)

func TestSim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target, err := Parse("sim://403?serial=12345678&echo=true")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		line, err := Open(ctx, target)
		if err != nil {
			t.Fatal(err)
		}
		cancel() // is about the opening alone
		conn := kmp.NewConn(line, kmp.Options{ByteTime: target.ByteTime()})
		if serial, err := conn.GetSerialNo(context.Background(), kmp.HeatMeter); serial != 12345678 || err != nil {
			t.Errorf("GetSerialNo = %d, %v", serial, err)
		}
		if err := line.SetReadDeadline(time.Now()); err != nil {
			t.Error(err)
		}
		if _, err := line.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read: %v, want os.ErrDeadlineExceeded", err)
		}
		for range 2 {
			if err := line.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
		_, readErr := line.Read(make([]byte, 1))
		_, writeErr := line.Write([]byte{1})
		for op, err := range map[string]error{"read": readErr, "write": writeErr, "set deadline": line.SetReadDeadline(time.Now())} {
			var e *Error
			if !errors.Is(err, os.ErrClosed) || !errors.As(err, &e) || e.Op != op || e.Line != target.String() {
				t.Errorf("%s: %v, want os.ErrClosed", op, err)
			}
		}
	})
}

func TestParseSim(t *testing.T) {
	a, err := Parse("sim://403?serial=7&echo=true")
	if err != nil {
		t.Fatal(err)
	}
	b, err := Parse("SIM://403?echo=true&serial=7")
	if err != nil {
		t.Fatal(err)
	}
	if a != b || a.String() != "sim://403?echo=true&serial=7" || a.Endpoint() != "sim://403" {
		t.Errorf("targets %+v and %+v, want equal ones", a, b)
	}

	for raw, want := range map[string][]string{
		"sim://":                        {"names no model"},
		"sim://9999":                    {"9999"},
		"sim://403?serial=x&nosuch=1":   {"serial", "nosuch"},
		"sim://403?a=1;b":               {"bad options"},
		"sim://me@403":                  {"me@403"},
		"sim://403?speed=1e9&echo=hmm":  {"speed", "echo"},
		"sim://403?integration=1s&x=%z": {"bad options"},
	} {
		_, err := Parse(raw)
		if err == nil {
			t.Errorf("%s: no error", raw)
			continue
		}
		for _, text := range want {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: error %q does not say %q", raw, err, text)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %q is more than one line", raw, err)
		}
	}
	if _, err := Parse("sim://403?serial=x&nosuch=1"); !errors.Is(err, sim.ErrOption) {
		t.Errorf("error %v, want sim.ErrOption", err)
	}
}

func TestOpenSimErrors(t *testing.T) {
	for _, target := range []Target{
		{Scheme: SchemeSim, Model: "no such"},
		{Scheme: SchemeSim, Model: "403", Options: "%zz"},
	} {
		if line, err := Open(context.Background(), target); err == nil || line != nil {
			t.Errorf("Open(%+v) = %v, %v; want an error alone", target, line, err)
		}
	}
}
