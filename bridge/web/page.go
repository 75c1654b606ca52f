package web

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	g "maragu.dev/gomponents"

	"kmp2mqtt/kmp/diagnosis"
)

// embedded is what the page loads. Nothing changes it.
//
//go:embed assets
var embedded embed.FS

// fewMeters is how many meters are shown in full; more are a list to be opened.
const fewMeters = 5

// The views of the page.
const (
	viewValues = "values" // for the owner
	viewAlign  = "align"  // for a phone that is held beside the meter
	viewExpert = "expert"
)

// page serves the page:
//
//	/                          the values of all meters
//	/?meter=NAME               of one
//	/?view=align&meter=NAME    to align a head
//	/?view=expert&meter=NAME   frames, profile and settings; without meter the first one's
//	/?part=NAME                what the page renews itself with when a meter has news
//
// It works without JavaScript, which makes it live and draws.
func page(src Source) http.Handler {
	files := hashes()
	asset := func(name string) string { return "assets/" + name + "?v=" + files[name] }
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := look(src, r)
		status, shown := http.StatusOK, v.document
		switch {
		case v.Unknown != "":
			status = http.StatusNotFound
		case r.URL.Query().Get("part") != "":
			shown = func(func(string) string) g.Node { return v.part() }
		}
		var b bytes.Buffer
		if err := shown(asset).Render(&b); err != nil {
			http.Error(w, "web: "+err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		w.Write(b.Bytes()) //nolint:errcheck // whoever asked is gone
	})
}

// assets serves what the page loads, below /assets/. A name with the right hash behind
// it never changes and is kept for a year.
func assets() http.Handler {
	files := hashes()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/assets/")
		hash, known := files[name]
		body, err := embedded.ReadFile("assets/" + name)
		if !known || err != nil {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", contentType(name))
		w.Header().Set("ETag", `"`+hash+`"`)
		w.Header().Set("Cache-Control", "no-cache")
		if r.URL.Query().Get("v") == hash {
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	})
}

// contentType is that of an asset. It does not ask the system, whose tables differ.
func contentType(name string) string {
	switch ext := path.Ext(name); ext {
	case ".css", ".js", ".svg":
		return mime.TypeByExtension(ext)
	default: // a licence
		return "text/plain; charset=utf-8"
	}
}

// hashes are the beginnings of the SHA-256 sums of all assets, by name. Templates are none.
func hashes() map[string]string {
	sums := map[string]string{}
	_ = fs.WalkDir(embedded, "assets", func(name string, d fs.DirEntry, err error) error { // what is embedded can be read
		if err != nil || d.IsDir() || path.Ext(name) == ".html" {
			return err
		}
		body, err := embedded.ReadFile(name)
		sum := sha256.Sum256(body)
		sums[strings.TrimPrefix(name, "assets/")] = hex.EncodeToString(sum[:8])
		return err
	})
	return sums
}

// view is the page at one moment.
type view struct {
	Base    string // what links begin with behind an ingress, whose path may lack the slash at its end; else empty
	View    string // viewValues, ...
	Unknown string // a meter that was asked for and that nobody knows
	Now     time.Time
	Bridge  Bridge
	Cards   []card
	Many    bool    // the cards are closed
	Trouble int     // meters that need somebody
	One     bool    // one of several meters was asked for
	All     []card  // in the view of one meter, too
	Frames  []frame // the expert's, newest first
}

// look is what a request sees.
func look(src Source, r *http.Request) view {
	q := r.URL.Query()
	v := view{Base: ingress(r), View: viewValues, Now: time.Now(), Bridge: src.Bridge()}
	if s := q.Get("view"); s == viewAlign || s == viewExpert {
		v.View = s
	}
	for i, m := range src.Meters() {
		c := newCard(i, m, v.Now)
		c.Base = v.Base
		v.Cards = append(v.Cards, c)
		if c.Trouble {
			v.Trouble++
		}
	}
	v.All = v.Cards
	name := cmp.Or(q.Get("part"), q.Get("meter"))
	if name == "" && v.View != viewValues && len(v.Cards) > 0 {
		name = v.Cards[0].Name
	}
	if name != "" {
		i := slices.IndexFunc(v.Cards, func(c card) bool { return c.Name == name })
		if i < 0 {
			v.Unknown = name
			return v
		}
		v.One, v.Cards = len(v.All) > 1, v.All[i:i+1]
	}
	v.Many = len(v.Cards) > fewMeters
	if v.View == viewExpert {
		if name != "" {
			v.Frames = newFrames(src.Frames(name))
		}
	}
	return v
}

// ingress is the path that a proxy such as Home Assistant's says it shows the page at, with
// a slash at its end; empty: it says none, or none that can be one.
func ingress(r *http.Request) string {
	p := r.Header.Get("X-Ingress-Path")
	odd := strings.ContainsFunc(p, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("/-_.~", c))
	})
	if odd || !strings.HasPrefix(p, "/") || strings.Contains(p, "//") {
		return ""
	}
	return strings.TrimSuffix(p, "/") + "/"
}

// card is one meter as the page shows it.
type card struct {
	Meter
	Base    string // as the view's
	ID      string // of its element
	State   string // "online", "offline", "waiting"
	Hero    *shown
	Tiles   []shown
	Rest    []shown
	Trouble bool   // the condition needs somebody
	Head    bool   // to align the head may help
	Error   string // of the newest reading, in the program's own words
	Age     time.Duration
	Wait    time.Duration // to the next reading; 0: it is due, or not known
	Spent   int           // percent of the battery's budget of today
}

// shown is a value as the page shows it.
type shown struct {
	Value
	Label string
	Text  string // digits as the meter sent them; empty: unknown
	Held  bool   // an older value stands in for one that cannot be true
	Hue   string // class of its colour, which its curve has as well
}

// newCard is what is shown of the meter at a place of the settings.
func newCard(place int, m Meter, now time.Time) card {
	c := card{Meter: m, ID: "m-" + m.Name, State: "waiting"}
	if m.Name == "" {
		c.ID = "place-" + strconv.Itoa(place)
	}
	if m.Availability == "online" || m.Availability == "offline" {
		c.State = m.Availability
	}
	c.Trouble = m.Condition.Code != diagnosis.OK && m.Condition.Code != diagnosis.NotRead && m.Condition.Code != ""
	switch m.Condition.Code {
	case diagnosis.Silent, diagnosis.EchoOnly, diagnosis.EchoMissing, diagnosis.Asleep, diagnosis.BadChecksums:
		c.Head = m.Name != ""
	}
	if !m.Reading.IsZero() {
		c.Age = max(0, now.Sub(m.Reading))
	}
	c.Wait = max(0, m.Next.Sub(now))
	if m.Budget > 0 {
		c.Spent = int(min(100, m.Today.Reads*100/uint64(m.Budget)))
	}
	var d struct {
		Error string `json:"last_error"`
	}
	if json.Unmarshal(m.Diagnostics, &d) == nil {
		c.Error = d.Error
	}
	c.sort()
	return c
}

// sort puts the values into the order of a meter's display: the counter that is paid for,
// what happens now, and the rest.
func (c *card) sort() {
	rest := make([]shown, 0, len(c.Values))
	for _, v := range c.Values {
		s := shown{Value: v, Label: cmp.Or(v.Title, v.Register, v.Key)}
		if v.Value != nil {
			s.Text = v.Value.String()
			s.Held = v.Why != ""
			s.Why = strings.TrimPrefix(v.Why, "held: ")
		}
		switch v.Register {
		case "power", "energy", "active_energy_import", "power_import":
			s.Hue = "hue-power"
		case "flow", "volume":
			s.Hue = "hue-flow"
		case "supply_temperature":
			s.Hue = "hue-supply"
		case "return_temperature":
			s.Hue = "hue-return"
		}
		rest = append(rest, s)
	}
	take := func(register string) (shown, bool) {
		i := slices.IndexFunc(rest, func(s shown) bool { return s.Register == register && register != "" })
		if i < 0 {
			return shown{}, false
		}
		s := rest[i]
		rest = slices.Delete(rest, i, i+1)
		return s, true
	}
	first := ""
	if i := slices.IndexFunc(rest, func(s shown) bool { return s.Counter }); i >= 0 {
		first = rest[i].Register
	}
	for _, register := range []string{"energy", "active_energy_import", "volume", first} {
		if s, ok := take(register); ok {
			c.Hero = &s
			break
		}
	}
	for _, register := range []string{
		"power", "power_import", "power_export", "flow", "supply_temperature", "return_temperature", "temperature_difference",
		"volume", "active_energy_export", "voltage_l1", "voltage_l2", "voltage_l3",
	} {
		if s, ok := take(register); ok {
			c.Tiles = append(c.Tiles, s)
		}
	}
	c.Rest = rest
}

// frame is a frame as the expert sees it.
type frame struct {
	shownFrame
	ID string // of its element
}

// newFrames explains frames, the newest first.
func newFrames(frames []Frame) []frame {
	list := make([]frame, 0, len(frames))
	ids := map[string]bool{}
	for _, f := range frames {
		id := "f-" + strconv.FormatInt(f.Time.UnixMicro(), 10)
		for ids[id] {
			id += "-"
		}
		ids[id] = true
		list = append(list, frame{f.shown(), id})
	}
	slices.Reverse(list)
	return list
}

// stamp is a time for machines, "" when there is none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// clock is a time for people, in the bridge's own time zone.
func clock(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.Local().Format("2 Jan 15:04:05")
}

// spell is a duration to the unit that matters: "12 s", "5 min", "3 h", "2 days".
func spell(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return strconv.Itoa(int(d/time.Second)) + " s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + " h"
	default:
		return strconv.Itoa(int(d/(24*time.Hour))) + " days"
	}
}

// drift says how a clock goes wrong.
func drift(seconds *int64) string {
	switch d := time.Duration(*seconds) * time.Second; {
	case d > 0:
		return spell(d) + " ahead"
	case d < 0:
		return spell(-d) + " behind"
	default:
		return "right"
	}
}
