package bridge

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/sim"
)

// noWrongRow holds what is kept against the log, as far as it goes: the rows from the first one
// on, without holes.
func noWrongRow(t *testing.T, what, dir string, log []kmp.LogRow) {
	t.Helper()
	rows := kept(t, dir, "80123456", kmp.LogHour)
	if len(rows) > len(log) {
		t.Fatalf("%s: %d rows are kept, the meter has %d", what, len(rows), len(log))
	}
	keptAsLogged(t, what, rows, log[:len(rows)], 0)
}

// TestLogsFaults reads a log over lines and from meters as bad as they come, mixed by chance. No
// row is ever wrong, and in the end all are there.
func TestLogsFaults(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				toToday()
				random := rand.New(rand.NewPCG(seed, 4))
				chance := func(most float64) float64 {
					if random.IntN(2) == 0 {
						return 0
					}
					return random.Float64() * most
				}
				cfg := sim.Config{
					Model: []string{"403", "603"}[seed%2], Seed: seed, Start: time.Now().UTC(), EmptyLogs: true,
					Faults: sim.Faults{
						Echo: random.IntN(2) == 0, Noise: chance(0.3), StrayBytes: chance(0.2), Lost: chance(0.3), Late: chance(0.3),
						Corrupted: chance(0.3), Truncated: chance(0.3), Duplicated: chance(0.5), ByteByByte: random.IntN(4) == 0,
					},
				}
				if random.IntN(2) == 0 {
					cfg.Faults.MaxAnswer = 60 + random.IntN(200)
				}
				if random.IntN(2) == 0 {
					cfg.LogBuffer = 64 + random.IntN(300)
				}
				sleeps := random.IntN(3) == 0
				if sleeps {
					cfg.Faults.SleepAfter = 4 * time.Minute
				}
				dir := t.TempDir()
				l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": cfg}, "METERS=house=/dev/a?tz=UTC&model="+cfg.Model, "DATA_DIR="+dir)
				m := sims["/dev/a"]
				time.Sleep(90*time.Hour + 5*time.Minute) // the log fills
				m.Wake()
				l.start()
				done := false
				for n := 0; n < 60 && !done; n++ {
					l.pass(30 * time.Minute)
					if n%7 == 6 { // a restart in between, at any moment
						l.pass(time.Duration(random.IntN(60)) * time.Second)
						l.stop()
						l.pass(time.Second)
						l.start()
					}
					if sleeps && n%3 == 0 {
						m.Wake()
						l.pass(3 * time.Minute)
					}
					log := m.Log(kmp.LogHour)
					noWrongRow(t, "on the way", dir, log)
					done = len(kept(t, dir, "80123456", kmp.LogHour)) >= 90
				}
				m.SetFaults(sim.Faults{Echo: cfg.Faults.Echo})
				m.Wake()
				l.stop()
				l.pass(3 * time.Hour)
				missed := len(m.Log(kmp.LogHour))
				l.start()
				l.pass(20 * time.Minute)
				noWrongRow(t, "in the end", dir, m.Log(kmp.LogHour))
				if n := len(kept(t, dir, "80123456", kmp.LogHour)); n < missed {
					t.Errorf("%d of %d rows with %+v, buffer %d", n, missed, cfg.Faults, cfg.LogBuffer)
				}
				told := l.heard("house", "80123456", "hour")
				told = slices.CompactFunc(told, func(a, b toldRow) bool { return a == b }) // one may come again after a restart
				toldAsKept(t, "subscriber", told, kept(t, dir, "80123456", kmp.LogHour))
			})
		})
	}
}

// TestLogsDamagedStore begins with a history that cannot be used: the bridge runs on, and says so.
func TestLogsDamagedStore(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(file string) error
		healed bool // the rows are read again
	}{
		{"cut in the middle", func(file string) error {
			info, err := os.Stat(file)
			if err != nil {
				return err
			}
			return os.Truncate(file, info.Size()/2)
		}, true},
		{"empty", func(file string) error { return os.Truncate(file, 0) }, true},
		{"something else", func(file string) error { return os.WriteFile(file, []byte("{\"rows\":[]}\n"), 0o600) }, true},
		{"overwritten", func(file string) error {
			content, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			for i := len(content) / 3; i < len(content)/2; i++ {
				content[i] = byte(i)
			}
			return os.WriteFile(file, content, 0o600)
		}, true},
		{"a directory", func(file string) error { return errors.Join(os.Remove(file), os.Mkdir(file, 0o700)) }, false},
		{"a way that leads nowhere", func(file string) error { // taking permissions away says nothing to root
			return errors.Join(os.Remove(file), os.Symlink(filepath.Join(filepath.Dir(file), "not", "there"), file))
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				toToday()
				dir := t.TempDir()
				l, sims := newSimLab(t, map[string]sim.Config{"/dev/a": {LogDepth: 60, Start: time.Now().UTC()}}, "METERS=house=/dev/a?model=403&tz=UTC", "DATA_DIR="+dir)
				l.start()
				l.pass(40 * time.Minute)
				l.stop()
				file := filepath.Join(dir, "history.db")
				if err := tt.damage(file); err != nil {
					t.Fatal(err)
				}
				l.pass(3 * time.Hour)
				before := len(l.logs.lines("level=WARN", "level=ERROR"))
				l.start()
				l.pass(10 * time.Minute)
				l.want("kmp2mqtt/bridge/state", "online")
				l.want("kmp2mqtt/house/availability", "online")
				if got := l.logs.lines("level=WARN", "level=ERROR")[before:]; len(got) == 0 || !strings.Contains(got[0], "history.db") {
					t.Errorf("the log says %q", got)
				}
				if tt.healed {
					log := sims["/dev/a"].Log(kmp.LogHour)
					rows := kept(t, dir, "80123456", kmp.LogHour)
					keptAsLogged(t, "store", rows[max(0, len(rows)-len(log)):], log, 0)
				}
			})
		})
	}
}
