package diagnosis

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table in README.md anew")

const tableBegin, tableEnd = "<!-- diagnosis:begin -->\n", "<!-- diagnosis:end -->"

// The README's table of what can be wrong with a line is the table of classes.
func TestMarkdown(t *testing.T) {
	var b strings.Builder
	if err := WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("..", "..", "README.md")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(page), tableBegin)
	got, after, ended := strings.Cut(rest, tableEnd)
	if !found || !ended {
		t.Fatalf("README.md has no %s...%s", tableBegin, tableEnd)
	}
	if *update {
		got = b.String()
		if err := os.WriteFile(path, []byte(before+tableBegin+got+tableEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got != b.String() {
		t.Error("README.md is not what the classes say: run go test ./kmp/diagnosis -update")
	}
}

// Each symptom stands on the page, each row has as many cells as the head.
func TestWriteTable(t *testing.T) {
	var b strings.Builder
	if err := WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(strings.TrimSpace(b.String()), "\n") {
		if n := strings.Count(line, "|"); n != 5 {
			t.Errorf("line %d has %d cells: %s", i+1, n-1, line)
		}
	}
	for _, c := range Classes() {
		for _, s := range c.Symptoms {
			if !strings.Contains(b.String(), s) {
				t.Errorf("%s: %q is missing", c.Code, s)
			}
		}
	}
}
