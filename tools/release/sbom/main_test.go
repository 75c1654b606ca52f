package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestRun describes the test program itself, which is made of the same kind of modules.
func TestRun(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var docs [2][]byte
	for i := range docs {
		name := filepath.Join(dir, "bom.json")
		if err := run([]string{"1.2.3", "2026-01-02T03:04:05+02:00", self, name}); err != nil {
			t.Fatal(err)
		}
		if docs[i], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(docs[0], docs[1]) {
		t.Error("the same program gives two documents")
	}
	var got bom
	if err := json.Unmarshal(docs[0], &got); err != nil {
		t.Fatal(err)
	}
	// As the schema of CycloneDX wants it.
	if want := regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`); !want.MatchString(got.Serial) {
		t.Errorf("serial number %q is no UUID", got.Serial)
	}
	if at := got.Metadata.Timestamp.Format("2006-01-02T15:04:05Z07:00"); at != "2026-01-02T01:04:05Z" {
		t.Errorf("time %s is not the one given, in UTC", at)
	}
	if c := got.Metadata.Component; c.Version != "1.2.3" || len(c.Hashes) != 1 {
		t.Errorf("the program is %+v", c)
	}
	refs := map[string]bool{got.Metadata.Component.Ref: true}
	for _, c := range got.Components {
		if refs[c.Ref] || c.Version == "" {
			t.Errorf("component %+v is there twice or has no version", c)
		}
		refs[c.Ref] = true
	}
	if len(got.Components) == 0 || len(got.Dependencies) != 1 || len(got.Dependencies[0].On) != len(got.Components) {
		t.Fatalf("%d components, dependencies %v", len(got.Components), got.Dependencies)
	}
	for _, ref := range got.Dependencies[0].On {
		if !refs[ref] {
			t.Errorf("it depends on %s, which is not described", ref)
		}
	}
}

// TestRunErrors hands over what cannot be described.
func TestRunErrors(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"nothing":    nil,
		"no time":    {"1", "yesterday", self, text + ".json"},
		"no file":    {"1", "2026-01-02T03:04:05Z", text + ".none", text + ".json"},
		"no program": {"1", "2026-01-02T03:04:05Z", text, text + ".json"},
		"no place":   {"1", "2026-01-02T03:04:05Z", self, filepath.Join(text, "bom.json")},
	} {
		if run(args) == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
