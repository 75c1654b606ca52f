package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/diagnosis"
	"kmp2mqtt/kmp/link"
	"kmp2mqtt/kmp/sim"
)

// newSimLab prepares a bridge that reads simulated meters, by line.
func newSimLab(t *testing.T, sims map[string]sim.Config, environ ...string) (*lab, map[string]*sim.Meter) {
	t.Helper()
	l := newLab(t, nil, environ...)
	l.lines.sims = make(map[string]*sim.Meter)
	for line, cfg := range sims {
		m, err := sim.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		l.lines.sims[line] = m
	}
	return l, l.lines.sims
}

// told is what stands on a meter's diagnosis topic.
type told struct {
	Code     diagnosis.Code
	Text     string
	NextStep string `json:"next_step"`
	Since    time.Time
	Evidence struct {
		Error     *string
		Sent      *uint64    `json:"bytes_sent"`
		Received  uint64     `json:"bytes_received"`
		Echo      bool       `json:"echo"`
		Before    bool       `json:"echo_before"`
		FirstByte *float64   `json:"first_byte_s"`
		Share     *float64   `json:"checksum_share"`
		LastGood  *time.Time `json:"last_good"`
		Sample    string
	}
}

func (l *lab) told(payload string) (d told) {
	l.t.Helper()
	if err := json.Unmarshal([]byte(payload), &d); err != nil {
		l.t.Fatalf("diagnosis %q: %v", payload, err)
	}
	return d
}

// diagnosis is what is retained of a meter.
func (l *lab) diagnosis(meter string) told {
	l.t.Helper()
	return l.told(l.retained("kmp2mqtt/" + meter + "/diagnosis"))
}

// wantDiagnosis checks the retained diagnosis and that it is whole.
func (l *lab) wantDiagnosis(meter string, code diagnosis.Code) told {
	l.t.Helper()
	d := l.diagnosis(meter)
	if d.Code != code {
		l.t.Errorf("the diagnosis is %s, want %s: %s", d.Code, code, l.retained("kmp2mqtt/"+meter+"/diagnosis"))
	}
	if d.Text == "" || d.NextStep == "" && d.Code != diagnosis.OK || d.Since.IsZero() || d.Evidence.Sent == nil {
		l.t.Errorf("something is missing: %s", l.retained("kmp2mqtt/"+meter+"/diagnosis"))
	}
	return d
}

// event is one message on bridge/event.
type event struct {
	Time  time.Time
	Type  string
	Meter string
	Data  map[string]any
}

// eventsOf are the events of some types so far.
func (l *lab) eventsOf(types ...string) []event {
	l.t.Helper()
	var list []event
	for _, payload := range l.sent("kmp2mqtt/bridge/event") {
		var e event
		if err := json.Unmarshal([]byte(payload), &e); err != nil {
			l.t.Fatalf("event %s: %v", payload, err)
		}
		if slices.Contains(types, e.Type) {
			list = append(list, e)
		}
	}
	return list
}

// changes are the diagnosis events so far, as "from>to".
func (l *lab) changes() []string {
	l.t.Helper()
	list := []string{}
	for _, e := range l.eventsOf("diagnosis") {
		from, _ := e.Data["from"].(string)
		list = append(list, fmt.Sprintf("%s>%s", from, e.Data["to"]))
	}
	return list
}

// broken is a dialer that fails on demand.
type broken struct {
	mu    sync.Mutex
	err   error
	dials int
	dial  func(context.Context, string) (kmp.Line, error)
}

func (b *broken) open(ctx context.Context, line string) (kmp.Line, error) {
	b.mu.Lock()
	b.dials++
	err := b.err
	b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return b.dial(ctx, line)
}

func (b *broken) set(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func (b *broken) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dials
}

// TestDiagnosisOfLines has a line that cannot be opened, for every reason, before the first
// reading and after good ones.
func TestDiagnosisOfLines(t *testing.T) {
	dialError := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	linkError := func(err error) error { return &link.Error{Op: "open", Line: "/dev/a", Err: err} }
	for _, tt := range []struct {
		code diagnosis.Code
		err  error
	}{
		{diagnosis.PortMissing, &fs.PathError{Op: "open", Path: "/dev/a", Err: syscall.ENOENT}},
		{diagnosis.PortMissing, linkError(fs.ErrNotExist)},
		{diagnosis.PortPermission, &fs.PathError{Op: "open", Path: "/dev/a", Err: syscall.EACCES}},
		{diagnosis.PortPermission, linkError(fs.ErrPermission)},
		{diagnosis.PortBusy, linkError(link.ErrBusy)},
		{diagnosis.LineStuck, linkError(link.ErrStuck)},
		{diagnosis.ServerRefused, linkError(link.ErrRefused)},
		{diagnosis.ConnectionRefused, linkError(dialError(os.NewSyscallError("connect", syscall.ECONNREFUSED)))},
		{diagnosis.HostUnreachable, linkError(dialError(os.NewSyscallError("connect", syscall.EHOSTUNREACH)))},
		{diagnosis.HostUnreachable, linkError(context.DeadlineExceeded)},
		{diagnosis.HostUnknown, linkError(dialError(&net.DNSError{Err: "no such host", Name: "gateway", IsNotFound: true}))},
		{diagnosis.Failed, errors.New("something else")},
	} {
		t.Run(string(tt.code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				meters, m := one(t)
				l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60", "READ_INTERVAL=10m")
				b := &broken{err: tt.err, dial: l.lines.dial}
				l.dial = b.open
				l.start()
				l.pass(10 * time.Second)
				first := l.wantDiagnosis("house", tt.code)
				if !first.Since.Equal(l.began) || first.Evidence.Error == nil || first.Evidence.LastGood != nil {
					t.Errorf("%s", l.retained("kmp2mqtt/house/diagnosis"))
				}
				l.pass(3 * time.Hour)
				if later := l.wantDiagnosis("house", tt.code); !later.Since.Equal(first.Since) {
					t.Errorf("since went from %v to %v though nothing changed", first.Since, later.Since)
				}
				if n := b.count(); n < 150 || n > 500 { // once a minute, and half of that by chance
					t.Errorf("%d attempts to open the line in three hours", n)
				}
				b.set(nil)
				l.pass(2 * time.Minute)
				fine := l.wantDiagnosis("house", diagnosis.OK)
				if !fine.Since.After(l.began.Add(3*time.Hour)) || fine.Evidence.Error != nil || fine.Evidence.LastGood == nil {
					t.Errorf("%s", l.retained("kmp2mqtt/house/diagnosis"))
				}
				l.pass(30 * time.Minute)

				b.set(tt.err)
				l.lines.cut("/dev/a")
				l.lines.mend("/dev/a")
				before := m.count(kmp.CmdGetRegister)
				l.pass(30 * time.Minute)
				again := l.wantDiagnosis("house", tt.code)
				if again.Evidence.LastGood == nil || !again.Evidence.LastGood.After(fine.Since.Add(-time.Second)) {
					t.Errorf("the last good reading is missing: %s", l.retained("kmp2mqtt/house/diagnosis"))
				}
				if m.count(kmp.CmdGetRegister) != before {
					t.Error("read without a line")
				}
				l.want("kmp2mqtt/house/availability", "offline")
				b.set(nil)
				l.pass(2 * time.Minute)
				l.wantDiagnosis("house", diagnosis.OK)
				code := string(tt.code)
				if diff := cmp.Diff([]string{">" + code, code + ">ok", "ok>" + code, code + ">ok"}, l.changes()); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// TestDiagnosisOfMeters reaches every class that what comes over an open line can give.
func TestDiagnosisOfMeters(t *testing.T) {
	for _, tt := range []struct {
		name   string
		code   diagnosis.Code
		before bool // there are good readings first
		good   sim.Faults
		bad    sim.Faults
		meters string
	}{
		{"nothing at all", diagnosis.Silent, false, sim.Faults{}, sim.Faults{Silence: true}, ""},
		{"only the echo", diagnosis.EchoOnly, false, sim.Faults{}, sim.Faults{Echo: true, Silence: true}, ""},
		{"echo gone", diagnosis.EchoMissing, true, sim.Faults{Echo: true}, sim.Faults{Silence: true}, ""},
		{"silent after good ones", diagnosis.Asleep, true, sim.Faults{Echo: true}, sim.Faults{Echo: true, Silence: true}, ""},
		{"wrong baud", diagnosis.NoFrame, false, sim.Faults{}, sim.Faults{Garbled: true}, ""},
		{"wrong baud after good ones", diagnosis.NoFrame, true, sim.Faults{}, sim.Faults{Garbled: true}, ""},
		{"ASCII dialect", diagnosis.OtherProtocol, false, sim.Faults{Echo: true}, sim.Faults{Echo: true, ASCII: true}, ""},
		{"a badly placed head", diagnosis.BadChecksums, true, sim.Faults{}, sim.Faults{Corrupted: 1}, ""},
		{"answers of another address", diagnosis.WrongAddress, false, sim.Faults{}, sim.Faults{Foreign: 0x7F}, ""},
		{"address of another port", diagnosis.WrongAddress, false, sim.Faults{}, sim.Faults{}, "METERS=house=/dev/a?address=0x7F&interval=10m"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				settings := "METERS=house=/dev/a?interval=10m"
				if tt.meters != "" {
					settings = tt.meters
				}
				l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Seed: 7, Faults: tt.bad}}, settings)
				m := sims["/dev/a"]
				if tt.before {
					m.SetFaults(tt.good)
				}
				l.start()
				l.pass(65 * time.Minute)
				want := []string{}
				if tt.before {
					l.wantDiagnosis("house", diagnosis.OK)
					m.SetFaults(tt.bad)
					l.pass(30 * time.Minute)
					if want = append(want, "ok>"+string(tt.code)); tt.code == diagnosis.Asleep { // not after a single one
						want = []string{"ok>missed", "missed>asleep"}
					}
				} else {
					want = append(want, ">"+string(tt.code))
				}
				d := l.diagnosis("house")
				l.wantDiagnosis("house", tt.code)
				if *d.Evidence.Sent == 0 || d.Evidence.Error == nil {
					t.Errorf("%+v", d)
				}
				if tt.code == diagnosis.BadChecksums && (d.Evidence.Share == nil || !strings.Contains(d.Text, "frames were bad")) {
					t.Errorf("no share: %s", l.retained("kmp2mqtt/house/diagnosis"))
				}
				if tt.bad.Garbled && (d.Evidence.Sample == "" || d.Evidence.FirstByte == nil) {
					t.Errorf("no bytes: %s", l.retained("kmp2mqtt/house/diagnosis"))
				}
				if d.Evidence.Echo != tt.bad.Echo || d.Evidence.Before != (tt.bad.Echo || tt.good.Echo) {
					t.Errorf("echo: %s", l.retained("kmp2mqtt/house/diagnosis"))
				}
				l.want("kmp2mqtt/house/availability", "offline")
				if tt.meters == "" {
					m.SetFaults(tt.good)
					l.pass(11 * time.Minute)
					l.wantDiagnosis("house", diagnosis.OK)
					want = append(want, string(tt.code)+">ok")
				}
				if diff := cmp.Diff(want, l.changes()); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// TestDiagnosisAsleep has a meter whose magnet was taken away.
func TestDiagnosisAsleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Faults: sim.Faults{SleepAfter: 2*time.Hour + 5*time.Minute}}}, "METERS=house=/dev/a")
		m := sims["/dev/a"]
		l.start()
		l.pass(2 * time.Hour)
		l.wantDiagnosis("house", diagnosis.OK)
		before := m.Counts().Requests
		l.pass(24 * time.Hour)
		d := l.wantDiagnosis("house", diagnosis.Asleep)
		if late := d.Since.Sub(l.began); late < 2*time.Hour || late > 2*time.Hour+31*time.Minute {
			t.Errorf("since %v", late)
		}
		if d.Evidence.LastGood == nil || l.began.Add(2*time.Hour).Sub(*d.Evidence.LastGood) > time.Minute {
			t.Errorf("%+v", d.Evidence)
		}
		l.want("kmp2mqtt/house/availability", "offline")
		// Two requests an attempt, an attempt a minute and half of that by chance.
		if n := m.Counts().Requests - before; n > 2*2*24*60 {
			t.Errorf("%d requests to a sleeping meter in a day", n)
		}
		m.Wake()
		l.pass(2 * time.Minute)
		l.wantDiagnosis("house", diagnosis.OK)
		l.want("kmp2mqtt/house/availability", "online")
		if diff := cmp.Diff([]string{"ok>missed", "missed>asleep", "asleep>ok"}, l.changes()); diff != "" {
			t.Error(diff)
		}
	})
}

// TestDiagnosisThrottled has a water meter that closes its port after a few sessions.
func TestDiagnosisThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const shut = 12 * time.Hour
		l, sims := newSimLab(t, map[string]sim.Config{"/dev/w": {Model: "21", Faults: sim.Faults{Throttle: sim.Throttle{Sessions: 5, Shut: shut}}}},
			"METERS=water=/dev/w?interval=30m")
		m := sims["/dev/w"]
		l.start()
		l.pass(8 * time.Hour)
		d := l.wantDiagnosis("water", diagnosis.Throttled)
		l.want("kmp2mqtt/water/availability", "offline")
		before := m.Counts().Throttled
		l.pass(4 * time.Hour)
		if n := m.Counts().Throttled - before; n > 4*2*2 { // once in half an hour at most
			t.Errorf("%d requests in four hours to a port that is shut", n)
		}
		if later := l.diagnosis("water"); !later.Since.Equal(d.Since) {
			t.Errorf("%v and %v", d.Since, later.Since)
		}
		l.pass(shut)
		if got := l.changes(); len(got) < 3 || got[0] != "ok>missed" || got[1] != "missed>throttled" || got[2] != "throttled>ok" {
			t.Errorf("%q", got)
		}
		for _, change := range l.changes() {
			if change != "ok>missed" && change != "missed>throttled" && change != "throttled>ok" {
				t.Errorf("%q", l.changes())
			}
		}
	})
}

// TestDiagnosisNoRegisters has a meter that answers and has nothing of what is asked for.
func TestDiagnosisNoRegisters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=5555,5556", "READ_INTERVAL=10m")
		l.start()
		l.pass(time.Hour)
		l.wantDiagnosis("house", diagnosis.NoRegisters)
		if diff := cmp.Diff([]string{">no_registers"}, l.changes()); diff != "" {
			t.Error(diff)
		}
		// It may come to have them: a new software, a setting.
		m.set(number(t, 5555, kmp.UnitGJ, "1"))
		l.pass(20 * time.Minute)
		l.wantDiagnosis("house", diagnosis.OK)
	})
}

// TestDiagnosisWrongMeter leads two lines to one meter.
func TestDiagnosisWrongMeter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters := map[string]*testMeter{"/dev/a": newTestMeter(t, 1), "/dev/b": newTestMeter(t, 1)}
		l := newLab(t, meters, "METERS=a=/dev/a b=/dev/b", "REGISTERS=60", "READ_INTERVAL=10m")
		l.start()
		l.pass(time.Hour)
		codes := []diagnosis.Code{l.diagnosis("a").Code, l.diagnosis("b").Code}
		slices.Sort(codes)
		if diff := cmp.Diff([]diagnosis.Code{diagnosis.OK, diagnosis.WrongMeter}, codes); diff != "" {
			t.Error(diff)
		}
	})
}

// TestDiagnosisLineLost has a line that opens and is gone at once, for ever.
func TestDiagnosisLineLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, _ := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60")
		dials := 0
		l.dial = func(context.Context, string) (kmp.Line, error) {
			dials++
			near, far := net.Pipe()
			far.Close()
			return near, nil
		}
		l.start()
		l.pass(time.Hour)
		l.wantDiagnosis("house", diagnosis.LineLost)
		if dials < 30 || dials > 150 {
			t.Errorf("opened %d times in an hour", dials)
		}
		if diff := cmp.Diff([]string{">line_lost"}, l.changes()); diff != "" {
			t.Error(diff)
		}
	})
}

// TestDiagnosisInDiscovery holds the entities that must speak when the meter does not.
func TestDiagnosisInDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, m := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", usual, "READ_INTERVAL=10m")
		l.start()
		l.pass(30 * time.Second)
		type entity struct {
			Platform     string
			StateTopic   string `json:"state_topic"`
			DeviceClass  string `json:"device_class"`
			Options      []diagnosis.Code
			Availability []struct{ Topic string }
		}
		var device struct{ Components map[string]entity }
		if err := json.Unmarshal([]byte(l.retained("homeassistant/device/kmp_80123456/config")), &device); err != nil {
			t.Fatal(err)
		}
		for name, topic := range map[string]string{
			"diagnosis": "kmp2mqtt/house/diagnosis", "reading_problem": "kmp2mqtt/house/diagnosis", "link_quality": "kmp2mqtt/house/diagnostics",
			"reads_today": "kmp2mqtt/house/diagnostics", "awake_today": "kmp2mqtt/house/diagnostics",
		} {
			e, ok := device.Components[name]
			if !ok || e.StateTopic != topic || len(e.Availability) != 1 || e.Availability[0].Topic != "kmp2mqtt/bridge/state" {
				t.Errorf("%s is %+v (%t)", name, e, ok)
			}
		}
		if p := device.Components["problem"]; p.Platform != "binary_sensor" || p.DeviceClass != "problem" {
			t.Errorf("problem is %+v", p)
		}
		for _, class := range diagnosis.Classes() {
			if !slices.Contains(device.Components["diagnosis"].Options, class.Code) {
				t.Errorf("%s is no option", class.Code)
			}
		}
		m.change(func(m *testMeter) { m.silent = true })
		l.pass(time.Hour)
		l.want("kmp2mqtt/bridge/state", "online")
		l.want("kmp2mqtt/house/availability", "offline")
		l.wantDiagnosis("house", diagnosis.Asleep)
		for topic, payload := range l.broker.retained() {
			if strings.HasSuffix(topic, "/diagnosis") && payload == "" {
				t.Errorf("%s is empty", topic)
			}
		}
	})
}

// TestDiagnosisAfterRestart knows from DATA_DIR what was before.
func TestDiagnosisAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := "DATA_DIR=" + t.TempDir()
		cfg := map[string]sim.Config{"/dev/a": {Faults: sim.Faults{Echo: true}}}
		l, _ := newSimLab(t, cfg, "METERS=house=/dev/a", dir)
		l.start()
		l.pass(time.Hour)
		l.wantDiagnosis("house", diagnosis.OK)
		last, err := time.Parse(time.RFC3339, *l.diagnostics("house").LastReading)
		if err != nil {
			t.Fatal(err)
		}
		l.stop()

		for _, tt := range []struct {
			faults sim.Faults
			code   diagnosis.Code
		}{
			{sim.Faults{Echo: true, Silence: true}, diagnosis.Asleep},
			{sim.Faults{Silence: true}, diagnosis.EchoMissing},
		} {
			l, _ := newSimLab(t, map[string]sim.Config{"/dev/a": {Faults: tt.faults}}, "METERS=house=/dev/a", dir)
			l.start()
			l.pass(time.Minute)
			if d := l.wantDiagnosis("house", tt.code); d.Evidence.LastGood == nil || !d.Evidence.LastGood.Equal(last) {
				t.Errorf("the last good reading was %v: %s", last, l.retained("kmp2mqtt/house/diagnosis"))
			}
			if got := l.logs.lines("meter is offline"); len(got) != 1 || !strings.Contains(got[0], "diagnosis="+string(tt.code)) {
				t.Errorf("the log tells something else: %q", got)
			}
			l.stop()
		}
	})
}

// TestHealingLongAnswers has a head through which only short answers come unharmed.
func TestHealingLongAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {Faults: sim.Faults{MaxAnswer: 40}}}, "METERS=house=/dev/a?interval=10m", "REGISTERS=60,68,74,80,86,87,89,97,110,99,1004,124")
		m := sims["/dev/a"]
		l.start()
		l.pass(time.Minute)
		l.wantDiagnosis("house", diagnosis.OK)
		if state := l.retained("kmp2mqtt/house"); !strings.Contains(state, "energy_gj") || !strings.Contains(state, "operating_hours_h") {
			t.Errorf("not read: %s", state)
		}
		l.pass(2 * time.Hour)
		d := l.diagnostics("house")
		if d.ReadsFailed != 0 || d.ReadsOK < 12 {
			t.Errorf("%+v", d)
		}
		// A line that is opened again does not begin with long requests.
		l.lines.cut("/dev/a")
		l.lines.mend("/dev/a")
		cut, answers := m.Counts().Cut, m.Counts().Answers
		l.pass(10 * time.Minute)
		if n := m.Counts().Cut - cut; n > 2 || m.Counts().Answers == answers {
			t.Errorf("%d of %d answers were too long after the line was opened again", n, m.Counts().Answers-answers)
		}
		// The head is put right: requests grow again.
		m.SetFaults(sim.Faults{})
		l.pass(3 * time.Hour)
		before := m.Counts().Requests
		l.pass(time.Hour)
		if n := m.Counts().Requests - before; n > 6*3 {
			t.Errorf("%d requests for six readings of 12 registers", n)
		}
		if d := l.diagnostics("house"); d.ReadsFailed != 0 {
			t.Errorf("%+v", d)
		}
	})
}

// TestHealingHalfOpen has a gateway that takes every byte and brings none.
func TestHealingHalfOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters, _ := one(t)
		l := newLab(t, meters, "METERS=house=/dev/a", "REGISTERS=60", "READ_INTERVAL=10m")
		var mu sync.Mutex
		dead := false
		l.dial = func(ctx context.Context, line string) (kmp.Line, error) {
			mu.Lock()
			defer mu.Unlock()
			if !dead {
				return l.lines.dial(ctx, line)
			}
			near, far := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, far) }()
			t.Cleanup(func() { far.Close() })
			return near, nil
		}
		l.start()
		l.pass(time.Minute)
		mu.Lock()
		dead = true
		mu.Unlock()
		l.lines.cut("/dev/a")
		l.lines.mend("/dev/a")
		l.pass(30 * time.Minute)
		l.wantDiagnosis("house", diagnosis.Asleep)
		mu.Lock()
		dead = false
		mu.Unlock()
		l.pass(10 * time.Minute) // some attempts on the old connection, then a new one
		l.wantDiagnosis("house", diagnosis.OK)
	})
}
