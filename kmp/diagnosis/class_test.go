package diagnosis

import (
	"regexp"
	"strings"
	"testing"
)

func TestClasses(t *testing.T) {
	code := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	seen := make(map[Code]bool)
	for _, c := range Classes() {
		if !code.MatchString(string(c.Code)) || seen[c.Code] {
			t.Errorf("code %q is not in snake case, or there twice", c.Code)
		}
		seen[c.Code] = true
		if c.Title == "" || strings.HasSuffix(c.Title, ".") {
			t.Errorf("%s: title %q", c.Code, c.Title)
		}
		for _, sentence := range []string{c.Text, c.NextStep} {
			if !strings.HasSuffix(sentence, ".") || strings.Contains(sentence, ". ") || strings.ContainsAny(sentence, "\n|`") {
				t.Errorf("%s: %q is not one plain sentence", c.Code, sentence)
			}
		}
		if got := Lookup(c.Code); got.Title != c.Title {
			t.Errorf("looked up %s, found %s", c.Code, got.Code)
		}
	}
	if got := Lookup("nonsense").Code; got != Failed {
		t.Errorf("an unknown code is %s", got)
	}
	Classes()[0].Title = "spoiled"
	if Lookup(OK).Title == "spoiled" {
		t.Error("the table can be changed from outside")
	}
}

func TestQuality(t *testing.T) {
	var q Quality
	if _, ok := q.Percent(); ok {
		t.Error("a quality of nothing")
	}
	check := func(percent, good, of int) {
		t.Helper()
		p, ok := q.Percent()
		g, n := q.Good()
		if !ok || p != percent || g != good || n != of {
			t.Errorf("%d %% (%v), %d of %d, want %d %%, %d of %d", p, ok, g, n, percent, good, of)
		}
	}
	q.Note(true)
	check(100, 1, 1)
	q.Note(false)
	q.Note(false)
	check(33, 1, 3)
	for range 18 {
		q.Note(true)
	}
	check(90, 18, 20) // the first one has left
	for range 100 {
		q.Note(false)
	}
	check(0, 0, 20)
}
