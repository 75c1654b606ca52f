package catalog

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write docs/registers.md anew")

// docs/registers.md is the catalog, to read.
func TestMarkdown(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "registers.md")
	page := markdown()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != page {
		t.Errorf("docs/registers.md is not what the catalog says (%v): run go test ./kmp/catalog -update", err)
	}
}

// Every register, unit and source is on the page, and every table row has as many
// cells as its head.
func TestMarkdownContent(t *testing.T) {
	page := markdown()
	for _, r := range Registers() {
		if !strings.Contains(page, "| `"+r.Name+"` | "+r.Title+" |") {
			t.Errorf("register %s is not on the page", r.Name)
		}
	}
	for _, want := range []string{
		"go test ./kmp/catalog -update",
		"| 21 | 15 | W | `w` |",
		"| 55 | 37 | m³ | `m3` | 10 |",
		"| `403` | MULTICAL 403 | heat |",
		"| yes | 30 min | 60 energy, 266 energy_high_resolution, 68 volume, 239 volume_high_resolution, 74 flow,",
		"| 113 info_events, 124 max_flow_year, 123 max_flow_year_date,",
		"| `21` | MULTICAL 21 | water | `62` | 1200 | | yes | 6 h |",
		"| `382` | Kamstrup 382 | electricity | | 9600 | | | 1 min |",
		"| electricity | `382` | 1004 1 2 13 14 ",
		"| counter | yes | each time | 601; 801; 402;",
		"| gauge | | daily | 601; 801; 402;",
		"| `bit 3` | temperature sensor T1 outside range |",
		"| `0001` | `601` | MULTICAL 601 with Pt500 sensors |",
		"5512-447 M1",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	cells := 0
	for i, line := range strings.Split(page, "\n") {
		n := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|")
		if n == 0 || cells == 0 {
			cells = n
		}
		if n != cells {
			t.Errorf("line %d has %d cells, the head of its table %d: %s", i+1, n-1, cells-1, line)
		}
	}
}

// markdown is the whole catalog as the page docs/registers.md: models, units,
// registers, info codes and type codes, each with its sources.
func markdown() string {
	p := &page{numbers: map[string]int{}}
	p.print(`<!-- Generated from kmp/catalog/*.csv by: go test ./kmp/catalog -update. Do not edit. -->

# Registers, units and info codes

What the numbers of the Kamstrup Meter Protocol mean, as far as it is publicly known. Numbers in brackets are the [sources](#sources).

- [Models](#models): the meters, and what is read from them when nothing else is asked for
- [Families](#families): what a meter is asked for when nothing is known of it
- [Units](#units): the unit codes, and the suffix that each gives a JSON key
- [Registers](#registers): what can be read
- [Info codes](#info-codes): what the bits and digits of an info code say
- [Type codes](#type-codes): what a meter answers to GetType
`)
	p.models()
	p.families()
	p.units()
	p.registers()
	p.infoTables()
	p.types()
	p.references()
	return p.text.String()
}

// page collects the parts of the document and numbers the sources in the order in
// which they are cited.
type page struct {
	text    strings.Builder
	sources []string
	numbers map[string]int
}

// print writes text as it is.
func (p *page) print(text string) { p.text.WriteString(text) }

// heading starts a section.
func (p *page) heading(level int, title, text string) {
	p.print("\n" + strings.Repeat("#", level) + " " + title + "\n")
	if text != "" {
		p.print("\n" + text + "\n")
	}
}

// header starts a table.
func (p *page) header(columns ...string) {
	p.print("\n")
	p.row(columns...)
	p.print(strings.Repeat("|---", len(columns)) + "|\n")
}

// row writes one row of a table.
func (p *page) row(cells ...string) {
	for _, cell := range cells {
		p.print("| " + strings.ReplaceAll(cell, "|", `\|`))
		if cell != "" {
			p.print(" ")
		}
	}
	p.print("|\n")
}

// cite returns the numbers of sources that are separated by "; ".
func (p *page) cite(sources string) string {
	if sources == "" {
		return ""
	}
	var numbers []string
	for source := range strings.SplitSeq(sources, "; ") {
		if _, ok := p.numbers[source]; !ok {
			p.sources = append(p.sources, source)
			p.numbers[source] = len(p.sources)
		}
		numbers = append(numbers, fmt.Sprint(p.numbers[source]))
	}
	return "[" + strings.Join(numbers, ", ") + "]"
}

// models writes the section about meters.
func (p *page) models() {
	p.heading(2, "Models", `The usual registers are read, at most 8 in a request, unless REGISTERS or the line's registers option names others: those of the first column at each reading, those of the second once a day. What a meter does not have is left out.
"Read every" is how often that is done unless READ_INTERVAL or the line's interval option says otherwise. Integration is the time between two integrations in the meter's normal mode; its values change no more often.
"Like" says that the sources speak of that model. A meter whose model is not known is read like the model that [stands in](#families) for its family, and once its registers are known like the one that has the most similar ones.`)
	p.header("name", "meter", "family", "like", "baud", "integration", "battery", "read every", "read each time", "read once a day", "notes", "sources")
	for _, m := range Models() {
		interval := ""
		if m.Interval != 0 {
			interval = m.Interval.String()
		}
		var names [Daily + 1][]string
		for _, id := range m.Registers {
			r := Lookup(id)
			names[r.Pace] = append(names[r.Pace], fmt.Sprintf("%d %s", id, r.Name))
		}
		p.row(code(m.Name), m.Title, string(m.Family), code(m.Like), fmt.Sprint(m.Baud), interval, yes(m.Battery), short(m.Usual),
			strings.Join(names[EachTime], ", "), strings.Join(names[Daily], ", "), m.Notes, p.cite(m.Source))
	}
}

// families writes the section about what a census asks for.
func (p *page) families() {
	p.heading(2, "Families", fmt.Sprintf(`At first contact a census asks a meter for up to %d registers that its family may have, the likeliest first: the usual ones of its models, then the others by the number of sources. %s tell the families apart.`,
		MaxCandidates, numbers(Candidates(""))))
	p.header("family", "stands in", "a census asks for")
	for _, f := range Families() {
		p.row(string(f), code(FamilyModel(f).Name), numbers(Candidates(f)))
	}
}

// numbers writes ids in a row.
func numbers(ids []uint16) string { return strings.Trim(fmt.Sprint(ids), "[]") }

// short writes a duration in whole hours or minutes.
func short(d time.Duration) string {
	if d%time.Hour == 0 {
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d min", d/time.Minute)
}

// yes writes what is true, and nothing for what is not.
func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

// units writes the section about unit codes.
func (p *page) units() {
	p.heading(2, "Units", `The meter sends the unit with every value; which one is a matter of its configuration. The suffix makes the key in the JSON state: `+"`energy`"+` in GJ is `+"`energy_gj`"+`. A unit without a suffix gives the name alone.`)
	p.header("code", "hex", "symbol", "suffix", "factor", "meaning", "notes", "sources")
	for _, u := range Units() {
		factor := ""
		if u.Shift != 0 {
			factor = "1" + strings.Repeat("0", u.Shift)
		}
		p.row(fmt.Sprint(byte(u.Code)), fmt.Sprintf("%02X", byte(u.Code)), u.Symbol, code(u.Suffix), factor, u.Meaning, u.Notes, p.cite(u.Source))
	}
}

// registers writes the section about registers.
func (p *page) registers() {
	p.heading(2, "Registers", `A register can be asked for by name, by number (`+"`80`, `0x50`"+`) or as `+"`register_80`"+`. Those marked as usual are enabled in Home Assistant from the start when they are read, the others are there to be enabled. "Read" says how often a register is worth reading.
Models are those that the sources name; another one may have the register as well, and what a meter does not have it leaves out of its answer.`)
	p.header("id", "hex", "name", "title", "description", "unit", "kind", "usual", "read", "models", "label", "notes", "sources")
	for _, r := range Registers() {
		p.row(fmt.Sprint(r.ID), fmt.Sprintf("%04X", r.ID), code(r.Name), r.Title, r.Description, r.Unit, r.Kind.String(), yes(!r.Rare), r.Pace.String(), r.Models, r.Label, r.Notes, p.cite(r.Source))
	}
}

// infoTables writes the section about info codes.
func (p *page) infoTables() {
	p.heading(2, "Info codes", `The same value means different things on different models. In a pattern of 8 digits a dot stands for any digit.`)
	for _, t := range InfoTables() {
		about := "Table " + code(t.Name) + "."
		if len(t.Models) > 0 {
			about += " Models: " + strings.Join(t.Models, ", ") + "."
		}
		if len(t.Registers) > 0 {
			about += " Registers: " + strings.Trim(fmt.Sprint(t.Registers), "[]") + "."
		}
		if t.Notes != "" {
			about += " " + strings.ToUpper(t.Notes[:1]) + t.Notes[1:] + "."
		}
		p.heading(3, t.Title, about)
		p.header("code", "meaning", "sources")
		for _, c := range t.Codes {
			p.row(code(c.Code), c.Meaning, p.cite(c.Source))
		}
	}
}

// types writes the section about type codes.
func (p *page) types() {
	p.heading(2, "Type codes", `In hexadecimal, x stands for any digit. No code of any other meter is published.`)
	p.header("code", "model", "meaning", "sources")
	for _, t := range Types() {
		p.row(code(t.Pattern), code(t.Model), t.Meaning, p.cite(t.Source))
	}
}

// references lists the sources that were cited.
func (p *page) references() {
	p.heading(2, "Sources", "")
	p.print("\n")
	for i, source := range p.sources {
		p.print(fmt.Sprintf("%d. %s\n", i+1, source))
	}
}

// code marks text as literal, nothing as nothing.
func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}
