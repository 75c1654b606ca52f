// Command sbom writes the bill of materials of a Go program, in CycloneDX's JSON, from
// what the linker wrote into the program: its modules, as `go version -m` prints them.
//
//	sbom VERSION TIME PROGRAM DOCUMENT
//
// TIME is RFC 3339. The same program gives the same bytes.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 4 {
		return errors.New("takes VERSION TIME PROGRAM DOCUMENT")
	}
	at, err := time.Parse(time.RFC3339, args[1])
	if err != nil {
		return err
	}
	program, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	info, err := buildinfo.ReadFile(args[2])
	if err != nil {
		return err
	}
	doc, err := json.MarshalIndent(describe(args[0], at, program, info), "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(args[3], append(doc, '\n'), 0o644)
}

// bom is a document of CycloneDX 1.6, as far as it is used here.
type bom struct {
	Format       string       `json:"bomFormat"`
	Spec         string       `json:"specVersion"`
	Serial       string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp time.Time `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Ref        string     `json:"bom-ref"`
	Type       string     `json:"type"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	Purl       string     `json:"purl,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Licenses   []license  `json:"licenses,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"` // hex
}

type license struct {
	License struct {
		ID string `json:"id"`
	} `json:"license"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref string   `json:"ref"`
	On  []string `json:"dependsOn"`
}

// describe makes the document of a program. What depends on what among the modules is
// not in the program, so all hang on it.
func describe(version string, at time.Time, program []byte, info *debug.BuildInfo) bom {
	sum := sha256.Sum256(program)
	of := component{
		Ref: "program", Type: "application", Name: info.Main.Path, Version: version,
		Hashes:   []hash{{"SHA-256", hex.EncodeToString(sum[:])}},
		Licenses: make([]license, 1),
	}
	of.Licenses[0].License.ID = "Apache-2.0"
	for _, s := range info.Settings {
		of.Properties = append(of.Properties, property{"go:build:" + s.Key, s.Value})
	}
	d := bom{
		Format: "CycloneDX", Spec: "1.6", Version: 1, Serial: urn(sum),
		Metadata: metadata{at.UTC(), of}, Dependencies: []dependency{{Ref: of.Ref}},
	}
	d.Components = []component{library("std", strings.TrimPrefix(info.GoVersion, "go"), "")}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		d.Components = append(d.Components, library(m.Path, m.Version, m.Sum))
	}
	slices.SortFunc(d.Components, func(a, b component) int { return strings.Compare(a.Ref, b.Ref) })
	for _, c := range d.Components {
		d.Dependencies[0].On = append(d.Dependencies[0].On, c.Ref)
	}
	return d
}

// library is a Go module; sum is its line in go.sum, if it has one. That is a hash of
// hashes, none of CycloneDX's, so it goes into a property.
func library(path, version, sum string) component {
	purl := "pkg:golang/" + path + "@" + version
	c := component{Ref: purl, Type: "library", Name: path, Version: version, Purl: purl}
	if sum != "" {
		c.Properties = []property{{"go:sum", sum}}
	}
	return c
}

// urn makes a UUID of version 8 from the program's hash.
func urn(sum [sha256.Size]byte) string {
	b := sum[:16]
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
