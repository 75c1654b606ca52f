package kmp

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPyKMPTable holds docs/pykmp.md to its promise: a row for every name of PyKMP's
// API, ours exist, and so do the tests and examples that show them.
func TestPyKMPTable(t *testing.T) {
	list, err := os.ReadFile("testdata/pykmp-names.txt")
	if err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile("../docs/pykmp.md")
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	for name := range strings.FieldsSeq(string(list)) {
		if left[name] {
			t.Errorf("%s stands twice in the list", name)
		}
		left[name] = true
	}
	if len(left) == 0 {
		t.Fatal("no names")
	}

	code, tests := declared(t)
	quoted := regexp.MustCompile("`([^`]+)`")
	goName := regexp.MustCompile(`^\*?([A-Z]\w*(?:\.\w+)?)$`)
	for line := range strings.Lines(string(table)) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 4 {
			t.Errorf("a row of %d cells: %s", len(cells), line)
			continue
		}
		theirs := strings.Trim(strings.TrimSpace(cells[0]), "`")
		if !left[theirs] {
			t.Errorf("%s is not in the list, or has two rows", theirs)
		}
		delete(left, theirs)
		for i, cell := range cells {
			if strings.TrimSpace(cell) == "" {
				t.Errorf("%s: cell %d is empty", theirs, i+1)
			}
		}
		for _, m := range quoted.FindAllStringSubmatch(cells[1], -1) {
			if name := goName.FindStringSubmatch(m[1]); name != nil && !code[name[1]] {
				t.Errorf("%s: ours, %s, does not exist", theirs, name[1])
			}
		}
		shown := quoted.FindAllStringSubmatch(cells[3], -1)
		if len(shown) == 0 {
			t.Errorf("%s is shown by nothing", theirs)
		}
		for _, m := range shown {
			if !tests[m[1]] {
				t.Errorf("%s: there is no test or example %s", theirs, m[1])
			}
		}
	}
	for name := range left {
		t.Errorf("%s has no row", name)
	}
}

// declared returns the package's exported names, "Type.Member" for fields and
// methods, and its tests and examples.
func declared(t *testing.T) (code, tests map[string]bool) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no source files", err)
	}
	code, tests = map[string]bool{}, map[string]bool{}
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		isTest := strings.HasSuffix(path, "_test.go")
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				name := d.Name.Name
				switch {
				case d.Recv != nil:
					code[receiver(d)+"."+name] = true
				case isTest && (strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Example")):
					tests[name] = true
				case !isTest:
					code[name] = true
				}
			case *ast.GenDecl:
				if !isTest {
					addSpecs(code, d.Specs)
				}
			}
		}
	}
	return code, tests
}

func receiver(d *ast.FuncDecl) string {
	typ := d.Recv.List[0].Type
	if p, ok := typ.(*ast.StarExpr); ok {
		typ = p.X
	}
	if id, ok := typ.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}

func addSpecs(code map[string]bool, specs []ast.Spec) {
	for _, s := range specs {
		switch s := s.(type) {
		case *ast.ValueSpec:
			for _, n := range s.Names {
				code[n.Name] = true
			}
		case *ast.TypeSpec:
			code[s.Name.Name] = true
			var fields *ast.FieldList
			switch typ := s.Type.(type) {
			case *ast.StructType:
				fields = typ.Fields
			case *ast.InterfaceType:
				fields = typ.Methods
			default:
				continue
			}
			for _, f := range fields.List {
				for _, n := range f.Names {
					code[s.Name.Name+"."+n.Name] = true
				}
			}
		}
	}
}
