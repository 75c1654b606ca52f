package former

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// State says how far the adoption of an entity is.
type State string

// The states of an entity.
const (
	StateReady   State = "ready"   // it can be adopted
	StateBegun   State = "begun"   // an earlier run was stopped
	StateAdopted State = "adopted" // it is ours
	StateUnread  State = "unread"  // the bridge does not read its register
	StateUnknown State = "unknown" // nobody knows its register: it stays as it is
	StateFree    State = "free"    // its entity id is not used as far as it can be known
	StateUsed    State = "used"    // its entity id is used by another entity
)

// Entity is one entity of another reader in Home Assistant.
type Entity struct {
	UniqueID     string `json:"unique_id,omitempty"`
	EntityID     string `json:"entity_id,omitempty"`
	Topic        string `json:"topic,omitempty"`    // of its announcement
	Register     uint16 `json:"register,omitempty"` // 0: not known
	RegisterName string `json:"register_name,omitempty"`
	Device       string `json:"device,omitempty"` // ours, by its id in discovery; empty: not announced
	Unit         string `json:"unit,omitempty"`   // as the other reader announced it
	NewUnit      string `json:"new_unit,omitempty"`
	State        State  `json:"state"`
	Warning      string `json:"warning,omitempty"`

	payload []byte // of its announcement; nil: not known any more
	counts  bool   // Home Assistant keeps statistics of it
	begun   bool   // this run has changed its announcement
	newest  []byte // what came last on its topic
	left    bool   // that is something else than what this run knows: it stays
}

// Report is what an adoption would do, or has done.
type Report struct {
	From     string   `json:"from"` // WobwobRt or Golles
	Entities []Entity `json:"entities"`
	Setting  string   `json:"setting,omitempty"` // the line of the settings that it needs, or what to add to it
	Steps    []string `json:"steps,omitempty"`   // what is left to do by hand
	Notes    []string `json:"notes,omitempty"`
	Done     bool     `json:"done"` // nothing is left that could be adopted
}

// Count is how many entities are in a state.
func (r Report) Count(s State) int {
	n := 0
	for _, e := range r.Entities {
		if e.State == s {
			n++
		}
	}
	return n
}

// Outcome says in a line what an adoption that ended with an error has done.
func (r Report) Outcome() string {
	adopted := r.Count(StateAdopted)
	if adopted == 0 {
		return "nothing is adopted"
	}
	return fmt.Sprintf("%d of %d are adopted; run it again", adopted, adopted+r.Count(StateReady)+r.Count(StateBegun))
}

// WriteText writes the report for people.
func (r Report) WriteText(w io.Writer) error {
	b := bufio.NewWriter(w)
	if r.Setting != "" {
		fmt.Fprintf(b, "%s\n\n", r.Setting)
	}
	for i, step := range r.Steps {
		fmt.Fprintf(b, "%d. %s\n", i+1, step)
	}
	if len(r.Steps) > 0 && len(r.Entities) > 0 {
		fmt.Fprintln(b)
	}
	width := 0
	for _, e := range r.Entities {
		width = max(width, len(e.name()))
	}
	for _, e := range r.Entities {
		fmt.Fprintf(b, "%-*s  %s\n", width, e.name(), e.says())
		if e.Warning != "" {
			fmt.Fprintf(b, "%-*s    %s\n", width, "", e.Warning)
		}
	}
	for _, note := range r.Notes {
		fmt.Fprintln(b, note)
	}
	return b.Flush()
}

func (e Entity) name() string {
	if e.EntityID != "" {
		return e.EntityID
	}
	return e.UniqueID
}

// says is the state in words.
func (e Entity) says() string {
	register := strings.TrimSpace(fmt.Sprintf("register %d %s", e.Register, e.RegisterName))
	switch e.State {
	case StateReady:
		return register + " of " + e.Device
	case StateBegun:
		return register + ": begun with, and not finished"
	case StateAdopted:
		return register + " of " + e.Device + ": adopted"
	case StateUnread:
		return register + ", not read"
	case StateFree:
		return register
	case StateUsed:
		return register + ": this id is used"
	}
	return "no register is known for it: it stays as it is"
}
