package logbook

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"kmp2mqtt/kmp"
)

func decimal(t testing.TB, id uint16, unit kmp.Unit, text string) kmp.Register {
	t.Helper()
	d, err := kmp.ParseDecimal(text)
	if err != nil {
		t.Fatal(err)
	}
	r, err := kmp.NewRegister(id, unit, d, 4)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// writerRows are two hours of a meter: the second has a date that is none, a text with
// everything that a format may trip over, and a register whose unit nobody knows.
func writerRows(t testing.TB) []Row {
	t.Helper()
	zone := time.FixedZone("", 3600)
	none := kmp.Register{ID: 123, Unit: kmp.UnitDate, Raw: []byte{0, 0, 0, 0}}
	text := kmp.Register{ID: 640, Unit: kmp.UnitASCII, Raw: []byte("a,\"b\\ c=\nd")}
	raw := kmp.Register{ID: 99, Unit: 0x4B, Raw: []byte{0xAB, 0xCD}}
	return []Row{
		{
			Log: kmp.LogHour, ID: 188, Time: time.Date(2026, 11, 21, 7, 0, 0, 0, zone),
			Registers: []kmp.Register{decimal(t, 60, kmp.UnitGJ, "227.450"), none, text, raw},
		},
		{
			Log: kmp.LogHour, ID: 189, Time: time.Date(2026, 11, 21, 8, 0, 0, 0, zone), Correction: -90 * time.Second, Corrected: true,
			Registers: []kmp.Register{decimal(t, 60, kmp.UnitGJ, "1227.460"), none, text, raw},
		},
	}
}

func TestWriter(t *testing.T) {
	rows := writerRows(t)
	untimed := Row{Log: kmp.LogHour, ID: 190, Registers: rows[0].Registers[:1]}
	house := Origin{Serial: "4711", Meter: `Oma's "house", no=1\`}
	tests := []struct {
		format Format
		want   string
	}{
		{Table, `
id   time                       energy_gj  max_flow_year_date  meter_type_text  info_code_unit_75
188  2026-11-21T07:00:00+01:00  227.450    -                   a,"b\ c=
d       ABCD
189  2026-11-21T08:00:00+01:00  1227.460   -                   a,"b\ c=
d       ABCD
id   time  energy_gj
190  -     227.450
`},
		{JSON, `
{"log":"hour","id":188,"serial":"4711","meter":"Oma's \"house\", no=1\\","time":"2026-11-21T07:00:00+01:00","energy_gj":227.450,"max_flow_year_date":null,"meter_type_text":"a,\"b\\ c=\nd","info_code_unit_75":"ABCD"}
{"log":"hour","id":189,"serial":"4711","meter":"Oma's \"house\", no=1\\","time":"2026-11-21T08:00:00+01:00","correction_s":-90,"energy_gj":1227.460,"max_flow_year_date":null,"meter_type_text":"a,\"b\\ c=\nd","info_code_unit_75":"ABCD"}
{"log":"hour","id":190,"serial":"4711","meter":"Oma's \"house\", no=1\\","time":null,"energy_gj":227.450}
`},
		{CSV, `
serial,meter,log,id,time,correction_s,energy_gj,max_flow_year_date,meter_type_text,info_code_unit_75
4711,"Oma's ""house"", no=1\",hour,188,2026-11-21T07:00:00+01:00,,227.450,,"a,""b\ c=
d",ABCD
4711,"Oma's ""house"", no=1\",hour,189,2026-11-21T08:00:00+01:00,-90,1227.460,,"a,""b\ c=
d",ABCD
4711,"Oma's ""house"", no=1\",hour,190,,,227.450,,,
`},
		// 2026-11-21T06:00:00Z is 1795240800; the second hour was 90 s earlier than its meter says.
		{Influx, `
kmp2mqtt,log=hour,meter=Oma's\ "house"\,\ no\=1,serial=4711 id=188i,energy_gj=227.450,meter_type_text="a,\"b\\ c=\nd",info_code_unit_75="ABCD" 1795240800000000000
kmp2mqtt,log=hour,meter=Oma's\ "house"\,\ no\=1,serial=4711 id=189i,energy_gj=1227.460,meter_type_text="a,\"b\\ c=\nd",info_code_unit_75="ABCD" 1795244310000000000
`},
	}
	for _, tt := range tests {
		var out pieces
		w := NewWriter(&out, tt.format)
		if err := w.Write(house, rows...); err != nil {
			t.Errorf("%s: %v", tt.format, err)
		}
		if err := w.Write(house, untimed); err != nil {
			t.Errorf("%s: %v", tt.format, err)
		}
		want := tt.want[1:]
		if tt.format == CSV { // RFC 4180
			want = strings.ReplaceAll(want, "\n", "\r\n")
		}
		if got := out.String(); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", tt.format, got, want)
		}
		skipped := 0
		if tt.format == Influx {
			skipped = 1
		}
		if out.n != 2-skipped || w.Skipped() != skipped {
			t.Errorf("%s: %d pieces, %d rows left out", tt.format, out.n, w.Skipped())
		}
	}
}

// pieces counts how often it is written to.
type pieces struct {
	bytes.Buffer
	n int
}

func (p *pieces) Write(b []byte) (int, error) {
	p.n++
	return p.Buffer.Write(b)
}

// What the writer of JSON and CSV wrote, the standard library reads as it was.
func TestWriterReadBack(t *testing.T) {
	rows := writerRows(t)
	from := Origin{Serial: "4711", Meter: "a\"b,\nc"}
	var out bytes.Buffer
	if err := NewWriter(&out, JSON).Write(from, rows...); err != nil {
		t.Fatal(err)
	}
	for i, line := range bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n")) {
		var got map[string]json.RawMessage
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatal(err)
		}
		if want := []string{"227.450", "1227.460"}[i]; string(got["energy_gj"]) != want {
			t.Errorf("energy %s, want %s", got["energy_gj"], want)
		}
	}
	out.Reset()
	if err := NewWriter(&out, CSV).Write(from, rows...); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(&out).ReadAll()
	if err != nil || len(lines) != 3 {
		t.Fatal(lines, err)
	}
	if got := lines[1]; got[1] != from.Meter || got[8] != "a,\"b\\ c=\nd" {
		t.Errorf("%q", got)
	}
}

// A CSV has the columns that it was given, and refuses, before it writes anything, what it
// has none for.
func TestWriterColumns(t *testing.T) {
	rows := writerRows(t)
	from := Origin{Serial: "1"}
	var out bytes.Buffer
	w := NewWriter(&out, CSV, "volume_m3", "energy_gj", "max_flow_year_date", "meter_type_text", "info_code_unit_75")
	if err := w.Write(from); err != nil {
		t.Fatal(err)
	}
	if want := "serial,meter,log,id,time,correction_s,volume_m3,energy_gj,max_flow_year_date,meter_type_text,info_code_unit_75\r\n"; out.String() != want {
		t.Errorf("%q", out.String())
	}
	out.Reset()
	rows[1].Registers[0].Unit = kmp.UnitMWh
	err := w.Write(from, rows...)
	if e, ok := errors.AsType[*ColumnError](err); !ok || e.Key != "energy_mwh" || e.Row.ID != 189 || out.Len() > 0 {
		t.Errorf("%v, wrote %q", err, out.String())
	}
	if err := w.Write(from, rows[0]); err != nil || !strings.HasPrefix(out.String(), "1,,hour,188,2026-11-21T07:00:00+01:00,,,227.450,") {
		t.Errorf("%q, %v", out.String(), err)
	}
	out.Reset()
	w = NewWriter(&out, CSV)
	w.Continue([]string{"energy_gj"})
	if err := w.Write(from, Row{Log: kmp.LogDay, ID: 7, Registers: rows[0].Registers[:1]}); err != nil || out.String() != "1,,day,7,,,227.450\r\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// Every writer passes the error of what it writes to on.
func TestWriterFails(t *testing.T) {
	for _, f := range []Format{Table, CSV, JSON, Influx} {
		if err := NewWriter(broken{}, f).Write(Origin{Serial: "1"}, writerRows(t)...); !errors.Is(err, errBroken) {
			t.Errorf("%s: %v", f, err)
		}
	}
	if err := NewWriter(broken{}, "xml").Write(Origin{}, writerRows(t)...); err == nil || errors.Is(err, errBroken) {
		t.Error(err)
	}
}

var errBroken = errors.New("broken")

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errBroken }

// Whatever a meter sends and is called, JSON stays JSON of one line, CSV has its columns,
// and a line of Influx ends where it should.
func FuzzWriter(f *testing.F) {
	f.Add("4711", "house", byte(kmp.UnitGJ), byte(0x43), []byte{1, 2, 3, 4}, int64(1795240800))
	f.Add("\\", "a\nb\\", byte(kmp.UnitASCII), byte(0), []byte("\n\"\\,= "), int64(0))
	f.Add("", "", byte(kmp.UnitDate), byte(0), []byte{}, int64(-1))
	f.Fuzz(func(t *testing.T, serial, name string, unit, siEx byte, raw []byte, at int64) {
		at %= 200 * 365 * 24 * 3600 // what RFC 3339 and nanoseconds can say
		row := Row{Log: kmp.LogDay, ID: 1, Time: time.Unix(at, 0).UTC(), Registers: []kmp.Register{{ID: 60, Unit: kmp.Unit(unit), SiEx: siEx, Raw: raw}}}
		from := Origin{Serial: serial, Meter: name}
		text := AppendJSON(nil, from, row)
		if !json.Valid(text) || bytes.ContainsAny(text, "\n") {
			t.Errorf("JSON %s", text)
		}
		var out bytes.Buffer
		if err := NewWriter(&out, CSV).Write(from, row); err != nil {
			t.Fatal(err)
		}
		if lines, err := csv.NewReader(&out).ReadAll(); err != nil || len(lines) != 2 || len(lines[1]) != len(csvColumns)+1 {
			t.Errorf("CSV %q, %v", lines, err)
		}
		out.Reset()
		if err := NewWriter(&out, Influx).Write(from, row); err != nil {
			t.Fatal(err)
		}
		line := out.String()
		if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, fmt.Sprintf(" %d\n", at*1e9)) || strings.ContainsAny(line, "\r") {
			t.Errorf("Influx %q", line)
		}
	})
}
