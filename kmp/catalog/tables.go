package catalog

import (
	"bytes"
	"embed"
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"sync"
)

// files is the catalog as it is written.
//
//go:embed registers.csv units.csv models.csv typecodes.csv infotables.csv infocodes.csv bounds.csv
var files embed.FS

// load parses the embedded files once. They are part of the program and a test
// parses them too, so a failure here is a mistake in the build, not a condition
// that a caller could handle.
var load = sync.OnceValue(func() *tables {
	t, err := parse(files)
	if err != nil {
		panic(err)
	}
	return t
})

// tables is everything the package knows, indexed the ways it is asked for.
// Nothing changes it after parse, so it needs no lock; what leaves the package is
// a copy.
type tables struct {
	registers   []Register // by id
	registerIDs map[uint16]int
	names       map[string]int
	units       [256]Unit // by code, whether it has a row or not
	knownUnits  [256]bool
	unitRows    []Unit  // by code, those with a row
	models      []Model // by name
	modelNames  map[string]int
	types       []Type
	infoTables  []InfoTable
	infoNames   map[string]int
	candidates  map[Family][]uint16
	boundTables
}

// parse reads all tables and checks what one file says about another.
func parse(fsys fs.FS) (*tables, error) {
	t := &tables{
		registerIDs: map[uint16]int{},
		names:       map[string]int{},
		modelNames:  map[string]int{},
		infoNames:   map[string]int{},
		candidates:  map[Family][]uint16{},
	}
	for _, file := range []struct {
		name string
		add  func(row) error
	}{
		{"registers.csv", t.addRegister},
		{"units.csv", t.addUnit},
		{"models.csv", t.addModel},
		{"typecodes.csv", t.addType},
		{"infotables.csv", t.addInfoTable},
		{"infocodes.csv", t.addInfoCodes},
		{"bounds.csv", t.addBound},
	} {
		if err := eachRow(fsys, file.name, file.add); err != nil {
			return nil, err
		}
	}
	t.fillUnits()
	t.fillCandidates()
	return t, t.checkClasses()
}

// row is one line of a CSV file by column name.
type row map[string]string

// eachRow calls add for every row of a file. Its errors name file and line.
func eachRow(fsys fs.FS, name string, add func(row) error) error {
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	records, err := csv.NewReader(bytes.NewReader(data)).ReadAll()
	if err != nil {
		return fmt.Errorf("catalog: %s: %w", name, err)
	}
	if len(records) < 2 {
		return fmt.Errorf("catalog: %s: has no rows", name)
	}
	head := records[0]
	for i, record := range records[1:] {
		columns := make(row, len(head))
		for j, column := range head {
			columns[column] = record[j]
		}
		if err := add(columns); err != nil {
			return fmt.Errorf("catalog: %s: row %d: %w", name, i+2, err)
		}
	}
	return nil
}

// number reads a column as an unsigned decimal number of at most the given bits.
func (r row) number(column string, bits int) (uint64, error) {
	n, err := strconv.ParseUint(r[column], 10, bits)
	if err != nil {
		return 0, fmt.Errorf("column %s: %w", column, err)
	}
	return n, nil
}

// list splits a column at semicolons.
func (r row) list(column string) []string {
	if r[column] == "" {
		return nil
	}
	return strings.Split(r[column], "; ")
}

// checkHex compares the hexadecimal spelling, which stands there for the reader,
// with the number.
func (r row) checkHex(number uint64, digits int) error {
	if want := fmt.Sprintf("0x%0*X", digits, number); r["hex"] != want {
		return fmt.Errorf("column hex: is %s, should be %s", r["hex"], want)
	}
	return nil
}

// errDuplicate says that something which must be unique stands there twice.
var errDuplicate = errors.New("stands there twice")
