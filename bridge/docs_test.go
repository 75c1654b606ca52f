package bridge

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"kmp2mqtt/bridge/numbers"
)

// The table of what is worked out.
func TestDerivedTable(t *testing.T) {
	b := []byte("| name | unit | what it is |\n|---|---|---|\n")
	for _, r := range numbers.Derived() {
		b = fmt.Appendf(b, "| `%s` | %s | %s |\n", r.Name, r.Unit, r.Description)
	}
	between(t, "../docs/topics.md", "<!-- derived:begin -->\n", "<!-- derived:end -->", b)
}

// The table of events in docs/topics.md has the types of the table of topics, and the two
// together those that the program sends.
func TestEventTypes(t *testing.T) {
	page, err := os.ReadFile("../docs/topics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "\n### Events\n")
	section, _, _ := strings.Cut(rest, "\n## ")
	var described, listed []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(section, -1) {
		described = append(described, m[1])
	}
	for _, r := range topicRows() {
		if r.topic == "bridge/event" {
			_, types, _ := strings.Cut(r.payload, ": ")
			for _, m := range regexp.MustCompile("~([a-z_]+)~").FindAllStringSubmatch(types, -1) {
				listed = append(listed, m[1])
			}
		}
	}
	slices.Sort(described)
	slices.Sort(listed)
	if !slices.Equal(described, listed) {
		t.Errorf("docs/topics.md describes %q, the table of topics lists %q", described, listed)
	}
	for _, kind := range []string{
		numbers.ValueHeld, numbers.ValueReleased, numbers.ValueUnknown, numbers.InfoCode, numbers.FineLearned, numbers.PowerMismatch,
	} {
		if !slices.Contains(listed, kind) {
			t.Errorf("%s is not in the table of topics", kind)
		}
	}
}
