package diagnosis

import (
	"fmt"
	"io"
	"strings"
)

// WriteTable writes the classes as a Markdown table: what an owner sees, what it is and
// what to do. Classes without a symptom are left out.
func WriteTable(w io.Writer) error {
	var b strings.Builder
	b.WriteString("| what you see | code | what it is | what to do |\n|---|---|---|---|\n")
	for _, c := range classes() {
		if len(c.Symptoms) == 0 {
			continue
		}
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s |\n", cell(strings.Join(c.Symptoms, "; ")), c.Code, cell(c.Text), cell(c.NextStep))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// cell escapes what would end a table's cell.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
