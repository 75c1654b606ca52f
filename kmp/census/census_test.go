package census

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/sim"
)

// maxRequests bounds every census: two rounds of a dozen, and two to tell the family.
const maxRequests = 2*catalog.MaxCandidates/kmp.MaxRegisters + 2

// now is when a test's answers come.
var now = time.Date(2026, 11, 21, 7, 45, 1, 500, time.UTC)

// meter answers the registers that it has.
type meter map[uint16]bool

func newMeter(ids ...uint16) meter {
	m := meter{}
	for _, id := range ids {
		m[id] = true
	}
	return m
}

func (m meter) answer(ids []uint16) []kmp.Register {
	var got []kmp.Register
	for _, id := range ids {
		if m[id] {
			got = append(got, register(id))
		}
	}
	return got
}

// register is one in two bytes with two digits after the point.
func register(id uint16) kmp.Register {
	return kmp.Register{ID: id, Unit: kmp.UnitCelsius, SiEx: 0x42, Raw: []byte{0x14, 0xF5}}
}

// simulated is a simulated meter's answers, without a line.
func simulated(t *testing.T, model string) (*sim.Meter, func(ids []uint16) []kmp.Register) {
	t.Helper()
	m, err := sim.New(sim.Config{Model: model, Seed: 1, Start: now})
	if err != nil {
		t.Fatal(err)
	}
	return m, func(ids []uint16) []kmp.Register {
		var got []kmp.Register
		for _, id := range ids {
			if r, ok := m.Read(id); ok {
				got = append(got, r)
			}
		}
		return got
	}
}

// run takes a census to its end and returns how many requests it took.
func run(t testing.TB, p *Profile, answer func(ids []uint16) []kmp.Register) int {
	t.Helper()
	requests := 0
	for ids := p.Next(); len(ids) > 0; ids = p.Next() {
		if requests++; requests > maxRequests {
			t.Fatalf("no end after %d requests, next is %v", maxRequests, ids)
		}
		if len(ids) > kmp.MaxRegisters || p.Complete() {
			t.Fatalf("complete is %v before %v", p.Complete(), ids)
		}
		p.Note(now, ids, answer(ids))
	}
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	if !p.Complete() || !p.Taken.Equal(now.Truncate(time.Second)) {
		t.Fatalf("complete %v, taken %v", p.Complete(), p.Taken)
	}
	return requests
}

// ids returns the registers that a profile has.
func ids(p Profile) []uint16 {
	var list []uint16
	for _, e := range p.Registers {
		list = append(list, e.ID)
	}
	return list
}

// A census of each simulated meter finds exactly what it has among the candidates, and
// what family it is of, whether the model is known or not.
func TestSimulatedMeters(t *testing.T) {
	for _, tt := range []struct {
		model  string
		family catalog.Family
		usual  string // the model whose list it is read by when nobody tells its own
	}{
		{"403", catalog.Heat, "403"},
		{"601", catalog.Heat, "601"},
		{"603", catalog.Heat, "603"},
		{"21", catalog.Water, "62"},
		{"382", catalog.Electricity, "382"},
	} {
		t.Run(tt.model, func(t *testing.T) {
			m, answer := simulated(t, tt.model)
			usual, _ := catalog.ModelByName(tt.usual)
			for _, model := range []string{"", tt.model} {
				p := New("80123456")
				p.Model = model
				requests := run(t, &p, answer)
				t.Logf("model %q: %d requests, has %d, lacks %d", model, requests, len(p.Registers), len(p.Absent))
				if p.Family != tt.family {
					t.Errorf("family %q, want %q", p.Family, tt.family)
				}
				has := m.Registers()
				for _, id := range catalog.Candidates(tt.family) {
					if want := slices.Contains(has, id); p.Has(id) != want || p.Lacks(id) == want {
						t.Errorf("register %d: has %v, lacks %v, want %v", id, p.Has(id), p.Lacks(id), want)
					}
				}
				want := slices.DeleteFunc(slices.Clone(usual.Registers), p.Lacks)
				if model != "" {
					own, _ := catalog.ModelByName(model)
					want = slices.DeleteFunc(own.Registers, p.Lacks)
				}
				if got := p.Usual(); !slices.Equal(got, want) || len(got) < 8 {
					t.Errorf("model %q is read by %v, want %v", model, got, want)
				}
			}
		})
	}
}

// Whatever a meter has, the census ends and finds exactly that.
func TestAnyMeter(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	all := catalog.Registers()
	for i := range 200 {
		m := meter{}
		share := random.Float64()
		family := slices.Concat(catalog.Families(), []catalog.Family{""})[random.IntN(4)]
		for _, r := range all {
			if (family == "" || family.Has(r.ID)) && random.Float64() < share {
				m[r.ID] = true
			}
		}
		p := New("")
		if random.IntN(2) == 0 {
			p.Family = family
		}
		run(t, &p, m.answer)
		candidates := catalog.Candidates(p.Family)
		if p.Family == "" {
			candidates = catalog.Candidates("")
		}
		for _, id := range candidates {
			if p.Has(id) != m[id] || p.Lacks(id) == m[id] {
				t.Fatalf("meter %d of family %q, found %q: register %d: has %v, lacks %v, want %v",
					i, family, p.Family, id, p.Has(id), p.Lacks(id), m[id])
			}
		}
		for _, id := range slices.Concat(ids(p), p.Usual()) {
			if p.Lacks(id) || p.Has(id) != m[id] {
				t.Fatalf("meter %d: register %d: has %v, lacks %v, want %v", i, id, p.Has(id), p.Lacks(id), m[id])
			}
		}
	}
}

func TestFamily(t *testing.T) {
	for _, tt := range []struct {
		name string
		has  []uint16
		want catalog.Family
	}{
		{"heat", []uint16{60, 68, 74, 80, 86, 87}, catalog.Heat},
		{"only energy", []uint16{60}, catalog.Heat},
		{"only a heat register that is not asked for at first", []uint16{89}, catalog.Heat},
		{"water", []uint16{68, 74, 99, 1001, 1004}, catalog.Water},
		{"only volume", []uint16{68}, catalog.Water},
		{"electricity", []uint16{1, 2, 1004, 1023, 1054}, catalog.Electricity},
		{"only voltage", []uint16{1054}, catalog.Electricity},
		{"what all have", []uint16{1001, 1004}, ""},
		{"nothing", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := New("1")
			requests := run(t, &p, newMeter(tt.has...).answer)
			if p.Family != tt.want {
				t.Errorf("family %q, want %q", p.Family, tt.want)
			}
			if !slices.Equal(ids(p), tt.has) {
				t.Errorf("has %v, want %v, after %d requests", ids(p), tt.has, requests)
			}
		})
	}
}

// The first request tells the families apart and the next go to the likeliest; who
// knows the model spares the first.
func TestOrder(t *testing.T) {
	p := New("1")
	if got, want := p.Next(), catalog.Candidates(""); !slices.Equal(got, want) {
		t.Errorf("asks for %v first, want %v", got, want)
	}
	p.Note(now, p.Next(), newMeter(60, 68, 80, 86, 74).answer(p.Next()))
	for _, id := range p.Next() {
		if !slices.Contains(catalog.Candidates(catalog.Heat)[:16], id) {
			t.Errorf("asks a heat meter for %d", id)
		}
	}
	for _, m := range catalog.Models() {
		p := New("1")
		p.Model = m.Name
		listed := 0
		for _, id := range catalog.Candidates(m.Family) {
			if m.Has(id) {
				listed++
			}
		}
		for i := 0; !p.Complete(); i++ {
			for _, id := range p.Next() {
				if (i+1)*kmp.MaxRegisters <= listed && !m.Has(id) {
					t.Errorf("model %s: request %d asks for %d, which no source lists", m.Name, i, id)
				}
			}
			p.Note(now, p.Next(), nil)
		}
	}
}

// Two answers without a register make it absent, one does not, and one with it makes
// all well again.
func TestTwoEmptyAnswers(t *testing.T) {
	asked := []uint16{60, 68}
	for _, tt := range []struct {
		name                 string
		answers              []meter
		has, lacks, doubtful []uint16
	}{
		{"not asked", nil, nil, nil, nil},
		{"answered", []meter{newMeter(60, 68)}, []uint16{60, 68}, nil, nil},
		{"missing once", []meter{newMeter(60)}, []uint16{60}, nil, []uint16{68}},
		{"missing twice", []meter{newMeter(60), newMeter(60)}, []uint16{60}, []uint16{68}, nil},
		{"an answer with nothing", []meter{nil}, nil, nil, []uint16{60, 68}},
		{"two of them", []meter{nil, nil}, nil, []uint16{60, 68}, nil},
		{"missing and answered", []meter{newMeter(60), newMeter(60, 68)}, []uint16{60, 68}, nil, nil},
		{"answered once and lost once", []meter{newMeter(60, 68), newMeter(60)}, []uint16{60, 68}, nil, []uint16{68}},
		{"answered, lost, answered, lost", []meter{newMeter(60, 68), newMeter(60), newMeter(60, 68), newMeter(60)}, []uint16{60, 68}, nil, []uint16{68}},
		{"answered and lost twice", []meter{newMeter(60, 68), newMeter(60), newMeter(60)}, []uint16{60}, []uint16{68}, nil},
		{"absent and answered again", []meter{nil, nil, newMeter(68)}, []uint16{68}, []uint16{60}, nil},
		{"absent for long", []meter{nil, nil, nil, nil, nil}, nil, []uint16{60, 68}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := New("1")
			p.Model = "403"
			for _, m := range tt.answers {
				p.Note(now, asked, m.answer(asked))
			}
			if !slices.Equal(ids(p), tt.has) || !slices.Equal(p.Absent, tt.lacks) || !slices.Equal(p.Doubtful, tt.doubtful) {
				t.Errorf("has %v, lacks %v, doubts %v, want %v, %v, %v", ids(p), p.Absent, p.Doubtful, tt.has, tt.lacks, tt.doubtful)
			}
			if p.Family != catalog.Heat && len(tt.answers) > 0 {
				t.Errorf("family %q", p.Family)
			}
			for _, id := range asked {
				if got := slices.Contains(p.Usual(), id); got == slices.Contains(tt.lacks, id) {
					t.Errorf("register %d is read: %v", id, got)
				}
			}
		})
	}
}

// What a meter or a line does wrong harms nobody.
func TestOddAnswers(t *testing.T) {
	t.Run("asked twice in one request", func(t *testing.T) {
		p := New("1")
		p.Note(now, []uint16{60, 60, 60}, nil)
		if p.Lacks(60) || !slices.Equal(p.Doubtful, []uint16{60}) {
			t.Errorf("one answer made it absent: %+v", p)
		}
	})
	t.Run("answered twice", func(t *testing.T) {
		p := New("1")
		p.Note(now, []uint16{60}, []kmp.Register{register(60), register(60)})
		if !slices.Equal(ids(p), []uint16{60}) {
			t.Errorf("has %v", ids(p))
		}
	})
	t.Run("not asked for", func(t *testing.T) {
		p := New("1")
		p.Note(now, []uint16{60}, []kmp.Register{register(60), register(61)})
		if p.Has(61) || p.Lacks(61) {
			t.Errorf("what nobody asked for counts: %+v", p)
		}
	})
	t.Run("not in the catalog", func(t *testing.T) {
		p := New("1")
		p.Note(now, []uint16{59, 58}, []kmp.Register{register(59)})
		if !p.Has(59) || p.Registers[0].Name != "register_59" || !slices.Equal(p.Doubtful, []uint16{58}) {
			t.Errorf("%+v", p)
		}
	})
	t.Run("no bytes", func(t *testing.T) {
		p := New("1")
		p.Note(now, []uint16{60}, []kmp.Register{{ID: 60, Unit: kmp.UnitGJ}})
		want := Entry{ID: 60, Name: "energy", Unit: "GJ", UnitCode: kmp.UnitGJ}
		if p.Registers[0] != want || p.Check() != nil {
			t.Errorf("%+v, %v", p.Registers, p.Check())
		}
	})
	t.Run("changed width", func(t *testing.T) {
		p := New("1")
		p.Note(now, []uint16{86}, []kmp.Register{register(86)})
		before := p
		p.Note(now, []uint16{86}, []kmp.Register{{ID: 86, Unit: kmp.UnitCelsius, SiEx: 0x41, Raw: make([]byte, 4)}})
		if e := p.Registers[0]; e.Width != 4 || e.Exponent != -1 {
			t.Errorf("%+v", e)
		}
		if e := before.Registers[0]; e.Width != 2 || e.Exponent != -2 {
			t.Errorf("the copy changed to %+v", e)
		}
	})
}

// A copy keeps what it was, whatever is learned later.
func TestCopies(t *testing.T) {
	p := New("1")
	p.Note(now, []uint16{60, 68, 80, 86}, newMeter(60, 80).answer([]uint16{60, 80}))
	p.Note(now, []uint16{68}, nil)
	before := p
	want, err := json.Marshal(before)
	if err != nil {
		t.Fatal(err)
	}
	run(t, &p, newMeter(60, 61, 62, 80).answer)
	p.Note(now, []uint16{60, 68, 86}, nil)
	p.Note(now, []uint16{60, 68, 86}, newMeter(68, 86).answer([]uint16{68, 86}))
	got, err := json.Marshal(before)
	if err != nil || string(got) != string(want) {
		t.Errorf("the copy changed from %s to %s, %v", want, got, err)
	}
}

// Who asks for one number after the other does not fill the memory, and the census still
// ends.
func TestBounded(t *testing.T) {
	if n := len(catalog.Registers()) + maxForeign; n > MaxRegisters {
		t.Errorf("%d registers can be remembered, more than %d", n, MaxRegisters)
	}
	p := New("1")
	all := newMeter()
	for id := range 4096 {
		all[uint16(id)] = id%3 == 0
		ask := []uint16{uint16(id)}
		p.Note(now, ask, all.answer(ask))
		p.Note(now, ask, all.answer(ask))
	}
	if n := len(p.Registers) + len(p.Absent) + len(p.Doubtful); n > MaxRegisters {
		t.Errorf("%d registers are remembered", n)
	}
	if err := p.Check(); err != nil {
		t.Error(err)
	}
	if p.foreign() != maxForeign {
		t.Errorf("%d registers are remembered that the catalog does not have, want %d", p.foreign(), maxForeign)
	}
}

// A census that is complete stays so, and one by a new version of the catalog goes on.
func TestTaken(t *testing.T) {
	p := New("1")
	p.Model = "403"
	m := newMeter(60, 68)
	run(t, &p, m.answer)
	taken := p.Taken
	p.Note(now.Add(time.Hour), []uint16{60, 68}, m.answer([]uint16{60}))
	if p.Taken != taken || !p.Complete() {
		t.Errorf("an ordinary reading moved it from %v to %v", taken, p.Taken)
	}
	p.Absent = without(p.Absent, 86) // as if it were new
	if p.Complete() || !slices.Equal(p.Next(), []uint16{86}) {
		t.Errorf("asks for %v", p.Next())
	}
	p.Note(now.Add(2*time.Hour), []uint16{86}, nil)
	if !p.Taken.IsZero() {
		t.Errorf("taken %v before the end", p.Taken)
	}
	p.Note(now.Add(3*time.Hour), []uint16{86}, nil)
	if want := now.Add(3 * time.Hour).Truncate(time.Second); !p.Taken.Equal(want) {
		t.Errorf("taken %v, want %v", p.Taken, want)
	}
}

// Requests that fail are made shorter, and longer again when they do not.
func TestFail(t *testing.T) {
	p := New("1")
	p.Model = "382"
	var sizes []int
	for range 4 {
		sizes = append(sizes, len(p.Next()))
		p.Fail(now, p.Next())
	}
	if want := []int{8, 4, 2, 1}; !slices.Equal(sizes, want) {
		t.Errorf("asks for %v registers, want %v", sizes, want)
	}
	first := catalog.Candidates(catalog.Electricity)[0]
	if !slices.Equal(p.Doubtful, []uint16{first}) || len(p.Absent) != 0 {
		t.Errorf("doubts %v, lacks %v, want only doubts about %d", p.Doubtful, p.Absent, first)
	}
	sizes = sizes[:0]
	for range 4 {
		sizes = append(sizes, len(p.Next()))
		p.Note(now, p.Next(), newMeter(p.Next()...).answer(p.Next()))
	}
	if want := []int{1, 2, 4, 8}; !slices.Equal(sizes, want) {
		t.Errorf("asks for %v registers, want %v", sizes, want)
	}
}

// The profile as it is written, and as it is read again.
func TestJSON(t *testing.T) {
	p := New("80123456")
	p.MeterType, p.Revision, p.Model = "0403", "F1", "403"
	p.Note(now, []uint16{60, 86, 1003, 371}, []kmp.Register{
		register(86),
		{ID: 60, Unit: kmp.UnitGJ, SiEx: 0x43, Raw: []byte{0, 3, 0x78, 0x75}},
		{ID: 1003, Unit: kmp.UnitDate, Raw: []byte{0, 3, 0xF8, 0x22}},
	})
	const open = `{"serial":"80123456","meter_type":"0403","revision":"F1","model":"403","family":"heat","registers":[` +
		`{"id":60,"name":"energy","unit":"GJ","unit_code":8,"width":4,"exponent":-3},` +
		`{"id":86,"name":"supply_temperature","unit":"°C","unit_code":37,"width":2,"exponent":-2},` +
		`{"id":1003,"name":"date","unit":"","unit_code":48,"width":4,"exponent":0}],"absent":[],"doubtful":[371]}`
	got, err := json.Marshal(p)
	if err != nil || string(got) != open {
		t.Errorf("%s, %v, want\n%s", got, err, open)
	}
	run(t, &p, newMeter(60, 86, 1003).answer)
	data, err := json.Marshal(p)
	if err != nil || !strings.Contains(string(data), `"taken":"2026-11-21T07:45:01Z","registers":[{"id":60,`) {
		t.Errorf("%s, %v", data, err)
	}
	var again Profile
	if err := json.Unmarshal(data, &again); err != nil || again.Check() != nil {
		t.Fatalf("%v, %v", err, again.Check())
	}
	if diff := cmp.Diff(p, again, cmp.AllowUnexported(Profile{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("not what it was: %s", diff)
	}
	if got, err := json.Marshal(New("")); err != nil || !strings.Contains(string(got), `"registers":[],"absent":[]}`) {
		t.Errorf("an empty one is %s, %v", got, err)
	}
}

func TestCheck(t *testing.T) {
	good := New("80123456")
	good.Model = "403"
	run(t, &good, newMeter(60, 68, 86).answer)
	for _, tt := range []struct {
		name   string
		spoil  func(p *Profile)
		reason string // "" when it is sound
	}{
		{"as it was", func(*Profile) {}, ""},
		{"empty", func(p *Profile) { *p = Profile{} }, ""},
		{"unknown model", func(p *Profile) { p.Model = "404" }, `model "404" is not known`},
		{"unknown family", func(p *Profile) { p.Family = "gas" }, `family "gas" is not known`},
		{"other family", func(p *Profile) { p.Family = catalog.Water }, "model 403 is not of the family water"},
		{"long serial", func(p *Profile) { p.Serial = strings.Repeat("1", 65) }, "serial is too long"},
		{"line break", func(p *Profile) { p.Revision = "F1\n" }, "revision is too long or not text"},
		{"line break in a type", func(p *Profile) { p.MeterType = "\x00" }, "meter_type is too long or not text"},
		{"too many", func(p *Profile) { p.Absent = make([]uint16, MaxRegisters+1) }, "more than 1024"},
		{"too many doubts", func(p *Profile) { p.Doubtful = make([]uint16, MaxRegisters+1) }, "more than 1024"},
		{"too many unknown", func(p *Profile) {
			p.Absent = nil
			for id := uint16(20000); len(p.Absent) <= maxForeign; id++ {
				p.Absent = append(p.Absent, id)
			}
		}, "257 registers that the catalog does not have"},
		{"twice", func(p *Profile) { p.Registers = append(p.Registers, p.Registers[2]) }, "register 86 is not in ascending order"},
		{"not in order", func(p *Profile) { p.Absent = []uint16{3, 2} }, "register 2 is not in ascending order"},
		{"doubts not in order", func(p *Profile) { p.Doubtful = []uint16{3, 3} }, "register 3 is not in ascending order"},
		{"there and absent", func(p *Profile) { p.Absent = []uint16{60} }, "register 60 is absent and is not"},
		{"doubtful and absent", func(p *Profile) { p.Absent, p.Doubtful = []uint16{1}, []uint16{1} }, "register 1 is absent and is not"},
		{"doubtful and there", func(p *Profile) { p.Doubtful = []uint16{60} }, ""},
		{"width", func(p *Profile) { p.Registers[0].Width = 256 }, "register 60: width 256"},
		{"negative width", func(p *Profile) { p.Registers[0].Width = -1 }, "register 60: width -1"},
		{"exponent", func(p *Profile) { p.Registers[0].Exponent = -64 }, "exponent -64"},
		{"name", func(p *Profile) { p.Registers[0].Name = strings.Repeat("n", 65) }, "name is too long"},
		{"unit", func(p *Profile) { p.Registers[0].Unit = "\x1b[31m" }, "unit is too long or not text"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := good
			p.Registers = slices.Clone(good.Registers)
			tt.spoil(&p)
			err := p.Check()
			if tt.reason == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrUnsound) || !strings.Contains(err.Error(), tt.reason) {
				t.Errorf("error %v, want one that says %q", err, tt.reason)
			}
		})
	}
}

// A profile from a file, whatever is in it: what Check lets through can be worked with,
// and its census ends.
func FuzzProfile(f *testing.F) {
	for _, model := range []string{"", "403", "21", "382"} {
		p := New("80123456")
		p.Model = model
		p.Note(now, p.Next(), newMeter(60, 68).answer(p.Next()))
		half, _ := json.Marshal(p)
		f.Add(half)
		run(f, &p, newMeter(60, 68, 1, 2).answer)
		whole, _ := json.Marshal(p)
		f.Add(whole)
	}
	f.Add([]byte(`{"registers":[{"id":60,"width":-1}]}`))
	f.Add([]byte(`{"absent":[1,1],"family":"heat","model":"382"}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var p Profile
		if err := json.Unmarshal(data, &p); err != nil {
			return
		}
		if err := p.Check(); err != nil {
			if !errors.Is(err, ErrUnsound) || len(err.Error()) > 400 {
				t.Fatalf("error %q", err)
			}
			return
		}
		for _, id := range p.Usual() {
			if p.Lacks(id) {
				t.Fatalf("register %d is read, but the meter lacks it", id)
			}
		}
		m := meter{}
		for id := range uint16(1500) {
			m[id] = id%2 == 0
		}
		for requests := 0; !p.Complete(); requests++ {
			if requests > maxRequests {
				t.Fatal("no end")
			}
			p.Note(now, p.Next(), m.answer(p.Next()))
		}
		if err := p.Check(); err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var q Profile
		if err := json.Unmarshal(again, &q); err != nil || q.Check() != nil {
			t.Fatalf("%v, %v", err, q.Check())
		}
	})
}

// Whatever is asked, answered and failed, a profile stays sound and no register is
// there and absent.
func FuzzNote(f *testing.F) {
	f.Add([]byte{0, 60, 1, 0, 68, 0, 1, 60, 1, 2, 68, 0}, "403")
	f.Add([]byte{3, 1, 0, 3, 1, 0, 0, 1, 1}, "")
	f.Fuzz(func(t *testing.T, steps []byte, model string) {
		p := New("1")
		if m, ok := catalog.ModelByName(model); ok {
			p.Model = m.Name
		}
		for len(steps) >= 3 {
			kind, id, answered := steps[0], uint16(steps[1])<<3, steps[2]
			steps = steps[3:]
			asked := []uint16{id, id + uint16(kind>>4), 60}
			var got []kmp.Register
			for i, id := range asked {
				if answered>>i&1 != 0 {
					got = append(got, register(id))
				}
			}
			switch kind % 4 {
			case 0:
				p.Note(now, asked, got)
			case 1:
				p.Note(now, p.Next(), got)
			case 2:
				p.Fail(now, asked[:1])
			default:
				p.Fail(now, p.Next())
			}
			if err := p.Check(); err != nil {
				t.Fatal(err)
			}
			if n := len(p.Next()); n > kmp.MaxRegisters || n == 0 != p.Complete() {
				t.Fatalf("next %v, complete %v", p.Next(), p.Complete())
			}
			if p.Complete() == p.Taken.IsZero() {
				t.Fatalf("complete %v, taken %v", p.Complete(), p.Taken)
			}
		}
	})
}
