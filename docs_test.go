package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// Every link between the documents leads to a file and a heading that are there.
func TestLinks(t *testing.T) {
	pages := documents(t)
	if !slices.Contains(pages, "README.md") || !slices.Contains(pages, "docs/architecture.md") {
		t.Fatalf("documents found: %q", pages)
	}
	headings := map[string][]string{}
	for _, page := range pages {
		headings[page] = anchors(prose(t, page))
	}
	links := regexp.MustCompile(`\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)|(?:src|href)="([^"]+)"`)
	for _, page := range pages {
		for number, line := range prose(t, page) {
			for _, m := range links.FindAllStringSubmatch(unquoted(line), -1) {
				if fault := broken(page, m[1]+m[2]+m[3], headings); fault != "" {
					t.Errorf("%s:%d: %s", page, number+1, fault)
				}
			}
		}
	}
}

// broken says what is wrong with a link on a page; empty: nothing.
func broken(page, link string, headings map[string][]string) string {
	if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
		return ""
	}
	file, anchor, hasAnchor := strings.Cut(link, "#")
	target := page
	if file != "" {
		target = path.Join(path.Dir(page), file)
	}
	if _, err := os.Stat(target); err != nil {
		return fmt.Sprintf("%s leads to no file", link)
	}
	if known, is := headings[target]; hasAnchor && is && !slices.Contains(known, anchor) {
		return fmt.Sprintf("%s: %s has no such heading", link, target)
	}
	return ""
}

// documents are the project's own Markdown files, with slashes.
func documents(t *testing.T) []string {
	t.Helper()
	var pages []string
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (name == ".git" || name == "dist" || d.Name() == "node_modules" || d.Name() == "generated") {
			return filepath.SkipDir // what was made or installed here
		}
		if path.Ext(name) == ".md" {
			pages = append(pages, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

// prose are the lines of a page, those of blocks of code emptied.
func prose(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	code := false
	for i, line := range lines {
		fence := strings.HasPrefix(strings.TrimSpace(line), "```")
		if fence || code {
			lines[i] = ""
		}
		code = code != fence
	}
	return lines
}

// unquoted is a line without what stands between backquotes.
func unquoted(line string) string {
	return regexp.MustCompile("`[^`]*`").ReplaceAllString(line, "")
}

// anchors are what the headings can be linked as: in small letters, without punctuation, a
// hyphen for each space. One that is there already is counted.
func anchors(lines []string) []string {
	heading := regexp.MustCompile(`^#{1,6} +(.*?) *$`)
	text := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	var found []string
	times := map[string]int{}
	for _, line := range lines {
		m := heading.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, text.ReplaceAllString(m[1], "$1"))
		times[anchor]++
		if n := times[anchor]; n > 1 {
			anchor = fmt.Sprintf("%s-%d", anchor, n-1)
		}
		found = append(found, anchor)
	}
	return found
}

func TestBroken(t *testing.T) {
	headings := map[string][]string{
		"README.md":      anchors([]string{"# kmp2mqtt", "## See [it](docs/page.png) work: `demo`", "## Twice", "## Twice", "#no heading"}),
		"docs/topics.md": anchors([]string{"## `DATA_DIR`"}),
	}
	tests := []struct {
		page, link string
		broken     bool
	}{
		{"README.md", "docs/topics.md", false},
		{"README.md", "docs/nothing.md", true},
		{"README.md", "docs/topics.md#data_dir", false},
		{"README.md", "docs/topics.md#data-dir", true},
		{"docs/topics.md", "#data_dir", false},
		{"docs/topics.md", "../README.md#see-it-work-demo", false},
		{"docs/topics.md", "README.md", true},
		{"README.md", "#twice-1", false},
		{"README.md", "#twice-2", true},
		{"README.md", "#no-heading", true},
		{"README.md", "main.go#anything", false},
		{"README.md", "http://127.0.0.1:8099", false},
	}
	for _, test := range tests {
		if fault := broken(test.page, test.link, headings); (fault != "") != test.broken {
			t.Errorf("%s on %s: %q", test.link, test.page, fault)
		}
	}
}

// NOTICE names every module that is part of the program, on whatever system.
func TestNotice(t *testing.T) {
	text, err := os.ReadFile("NOTICE")
	if err != nil {
		t.Fatal(err)
	}
	// A comma is one prefix for several: golang.org/x/net, sync.
	list, _, _ := strings.Cut(string(text), "The tests also use")
	prefix := ""
	named := map[string]bool{}
	for name := range strings.FieldsFuncSeq(list, func(r rune) bool { return unicode.IsSpace(r) || r == ',' }) {
		if host, _, ok := strings.Cut(name, "/"); ok && strings.Contains(host, ".") {
			prefix = path.Dir(name)
			named[name] = true
			continue
		}
		named[prefix+"/"+name] = true
	}
	for _, goos := range []string{"linux", "windows", "darwin", "freebsd"} {
		command := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", ".")
		command.Env = append(os.Environ(), "GOOS="+goos, "GOARCH=amd64", "CGO_ENABLED=0")
		out, err := command.Output()
		if err != nil {
			t.Fatalf("%v: %v", command, err)
		}
		modules := slices.Compact(slices.Sorted(strings.FieldsSeq(string(out))))
		if len(modules) == 0 {
			t.Fatal("go list tells no modules")
		}
		for _, module := range modules {
			if !named[regexp.MustCompile(`/v[0-9]+$`).ReplaceAllString(module, "")] {
				t.Errorf("%s is part of the program for %s, and not in NOTICE", module, goos)
			}
		}
	}
	if !strings.Contains(list, "bridge/web/assets/uplot") {
		t.Error("uPlot is part of the program, and not in NOTICE")
	}
}

// The README's table of commands has every verb, and no other.
func TestCommandsTable(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n## Commands\n")
	section, _, _ := strings.Cut(rest, "\n## ")
	var listed []string
	for _, m := range regexp.MustCompile("(?m)^\\| .*?`kmp2mqtt ([a-z]+)").FindAllStringSubmatch(section, -1) {
		listed = append(listed, m[1])
	}
	var there []string
	for _, v := range verbs() {
		there = append(there, v.name)
	}
	slices.Sort(listed)
	slices.Sort(there)
	if !slices.Equal(listed, there) {
		t.Errorf("README.md lists %q, there are %q", listed, there)
	}
}

// The README leads to every page in docs.
func TestPagesAreLinked(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob("docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("pages %q, %v", pages, err)
	}
	for _, page := range pages {
		if !strings.Contains(string(text), "]("+filepath.ToSlash(page)) {
			t.Errorf("README.md does not lead to %s", page)
		}
	}
}
