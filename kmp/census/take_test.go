package census

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/sim"
)

// A census over a line, in real frames.
func TestTakeSimulated(t *testing.T) {
	for _, model := range []string{"403", "601", "603", "21", "382"} {
		synctest.Test(t, func(t *testing.T) {
			m, err := sim.New(sim.Config{Model: model, Seed: 1, Start: now})
			if err != nil {
				t.Fatal(err)
			}
			conn := kmp.NewConn(m.Line(t.Context()), kmp.Options{})
			defer conn.Close()
			requests := 0
			p := New("80123456")
			err = Take(t.Context(), func(ctx context.Context, ids []uint16) ([]kmp.Register, error) {
				requests++
				return conn.GetRegister(ctx, kmp.HeatMeter, ids...)
			}, &p)
			if err != nil || !p.Complete() || requests > maxRequests {
				t.Fatalf("model %s: %d requests, complete %v: %v", model, requests, p.Complete(), err)
			}
			var want []uint16
			for _, id := range m.Registers() {
				if slices.Contains(catalog.Candidates(p.Family), id) {
					want = append(want, id)
				}
			}
			if !slices.Equal(ids(p), want) {
				t.Errorf("model %s has %v, want %v", model, ids(p), want)
			}
			for _, e := range p.Registers {
				if r, _ := m.Read(e.ID); e != entry(r) {
					t.Errorf("model %s: %+v, want %+v", model, e, entry(r))
				}
			}
		})
	}
}

var errDropped = errors.New("connection is closed")

// A meter that hangs up when it is asked for several registers that it does not have is
// known completely in the end.
func TestTakeHangUp(t *testing.T) {
	for name, patience := range map[string]int{"more than two": 2, "more than one": 1} {
		t.Run(name, func(t *testing.T) {
			m := meter{}
			for i, id := range catalog.Candidates(catalog.Electricity) {
				m[id] = i%8 < 6
			}
			p := New("1")
			p.Model = "382"
			failed, requests := 0, 0
			err := Take(t.Context(), func(_ context.Context, ids []uint16) ([]kmp.Register, error) {
				requests++
				got := m.answer(ids)
				if len(ids)-len(got) > patience {
					failed++
					return nil, errDropped
				}
				return got, nil
			}, &p)
			t.Logf("%d requests, %d failed: %v", requests, failed, err)
			if err != nil || failed == 0 || !p.Complete() {
				t.Fatalf("%d failed, complete %v: %v", failed, p.Complete(), err)
			}
			for id, has := range m {
				if p.Has(id) != has || p.Lacks(id) == has {
					t.Errorf("register %d: has %v, lacks %v, want %v", id, p.Has(id), p.Lacks(id), has)
				}
			}
		})
	}
}

// Without an answer there is no census, and one that is cut off keeps what it learned.
func TestTakeFails(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	for _, tt := range []struct {
		name     string
		ask      func(n int, ids []uint16) ([]kmp.Register, error)
		requests int
		want     error
		learned  int
	}{
		{"silent", func(int, []uint16) ([]kmp.Register, error) { return nil, kmp.ErrNoReply }, maxFailed, kmp.ErrNoReply, 0},
		{"silent later", func(n int, ids []uint16) ([]kmp.Register, error) {
			if n > 2 {
				return nil, kmp.ErrNoReply
			}
			return newMeter(ids...).answer(ids), nil
		}, 2 + maxFailed, kmp.ErrNoReply, 16},
		{"cancelled", func(n int, ids []uint16) ([]kmp.Register, error) {
			if n == 3 {
				cancel()
				return nil, ctx.Err()
			}
			return newMeter(ids...).answer(ids), nil
		}, 3, context.Canceled, 16},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := New("1")
			p.Model = "403"
			n := 0
			err := Take(ctx, func(_ context.Context, ids []uint16) ([]kmp.Register, error) {
				n++
				return tt.ask(n, ids)
			}, &p)
			if !errors.Is(err, tt.want) || n != tt.requests || len(p.Registers) != tt.learned || p.Complete() {
				t.Errorf("%v after %d requests with %d registers, want %v, %d, %d", err, n, len(p.Registers), tt.want, tt.requests, tt.learned)
			}
		})
	}
}
