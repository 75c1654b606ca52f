package web

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	g "maragu.dev/gomponents"

	"kmp2mqtt/kmp/census"
)

// The page in HTML. Elements are functions, and all text goes through Text or an attribute,
// which escape it: names, labels and errors of lines are strangers' words. (html/template
// does so as well, but calls methods by name, for which the linker has to keep every method
// of the program: 2 MB.)

// el is an element with attributes and children. (Written out in place, as the compiler would
// have it, the elements of the page take ten times the space.)
//
//go:noinline
func el(name string, children ...g.Node) g.Node { return g.El(name, children...) }

// attr is an attribute; its value is escaped.
//
//go:noinline
func attr(name, value string) g.Node { return g.Attr(name, value) }

// bare is an attribute without a value.
//
//go:noinline
func bare(name string) g.Node { return g.Attr(name) }

// txt is text, escaped.
//
//go:noinline
func txt(s string) g.Node { return g.Text(s) }

// txtf is text with values in them, escaped.
//
//go:noinline
func txtf(format string, args ...any) g.Node { return g.Textf(format, args...) }

func code(s string) g.Node { return el("code", txt(s)) }

// live marks what the page renews; id tells it from others.
func live(id string) g.Node { return g.Group{attr("id", id), bare("data-live")} }

// lamp is the dot whose colour says how something is.
func lamp() g.Node { return el("span", attr("class", "lamp")) }

// when shows a time; the page turns it into that of the visitor's own clock.
func when(t time.Time) g.Node {
	return el("time", attr("datetime", stamp(t)), bare("data-clock"), txt(clock(t)))
}

// fact is a line of a list of facts.
func fact(name string, value ...g.Node) g.Node {
	return el("div", el("dt", txt(name)), el("dd", value...))
}

func percent(n int) string { return strconv.Itoa(min(max(n, 0), 100)) + "%" }

func megabytes(n uint64) string { return strconv.FormatFloat(float64(n)/(1<<20), 'f', 1, 64) + " MB" }

// document is the whole page.
func (v view) document(asset func(string) string) g.Node {
	file := func(name string) string { return v.Base + asset(name) }
	values := v.View == viewValues
	return g.Group{g.Raw("<!doctype html>"), el("html", attr("lang", "en"), attr("data-view", v.View),
		el("head",
			el("meta", attr("charset", "utf-8")),
			el("meta", attr("name", "viewport"), attr("content", "width=device-width, initial-scale=1")),
			el("meta", attr("name", "color-scheme"), attr("content", "light dark")),
			el("meta", attr("name", "theme-color"), attr("content", "#f5f3ef"), attr("media", "(prefers-color-scheme: light)")),
			el("meta", attr("name", "theme-color"), attr("content", "#141312"), attr("media", "(prefers-color-scheme: dark)")),
			el("title", txt(v.title())),
			el("link", attr("rel", "icon"), attr("href", file("icon.svg")), attr("type", "image/svg+xml")),
			el("link", attr("rel", "stylesheet"), attr("href", file("uplot/uPlot.min.css"))),
			el("link", attr("rel", "stylesheet"), attr("href", file("page.css"))),
			g.If(values, g.Group{
				el("noscript", el("meta", attr("http-equiv", "refresh"), attr("content", "60"))),
				el("script", attr("src", file("uplot/uPlot.iife.min.js")), bare("defer")),
			}),
			el("script", attr("src", file("page.js")), attr("type", "module")),
		),
		el("body",
			el("a", attr("class", "skip"), attr("href", "#main"), txt("To the meters")),
			el("header", attr("class", "top"),
				el("a", attr("class", "brand"), attr("href", "?"), g.Raw(brand), txt("kmp2mqtt")),
				v.bridge(),
				g.If(values, el("label", attr("class", "unit"), bare("hidden"),
					el("span", txt("Energy in")), txt(" "),
					el("select", attr("id", "unit"), el("option", attr("value", ""), txt("the meter’s unit")), el("option", txt("kWh")), el("option", txt("MWh")), el("option", txt("GJ"))),
				)),
			),
			el("main", attr("id", "main"), v.main()),
			el("footer", attr("class", "foot"), el("p",
				txt("kmp2mqtt "+v.Bridge.Version+" · "), el("a", attr("href", v.Base+"api/v1/meters"), txt("for programs")),
				txt(" · "), el("a", attr("href", v.Base+"metrics"), txt("numbers for Prometheus")),
			)),
			el("p", attr("id", "lost"), attr("class", "lost"), bare("hidden"),
				el("strong", txt("The page has lost its connection to kmp2mqtt.")), txt(" What it shows may be old. It tries again by itself.")),
			el("p", attr("id", "say"), attr("class", "quiet"), attr("role", "status")),
		),
	)}
}

// brand is the sign of the program.
const brand = `<svg viewBox="0 0 24 24" width="28" height="28" aria-hidden="true"><circle cx="12" cy="12" r="10.5" class="dial"/>` +
	`<path d="M5.5 15.5a7.5 7.5 0 0 1 13 0" class="scale"/><path d="M12 14.5 15.6 8" class="needle"/></svg>`

// part is what the page renews itself with.
func (v view) part() g.Node {
	return g.Group{v.bridge(), v.count(), g.Map(v.Cards, func(c card) g.Node { return g.Group{c.row(), c.full()} })}
}

func (v view) title() string {
	title := fmt.Sprintf("%d meters", len(v.Cards))
	switch {
	case v.Unknown != "":
		title = "No such meter"
	case len(v.Cards) == 1:
		title = v.Cards[0].Title
	}
	switch v.View {
	case viewAlign:
		title += ": align the head"
	case viewExpert:
		title += ": for experts"
	}
	return title + " – kmp2mqtt"
}

func (v view) main() g.Node {
	switch {
	case v.Unknown != "":
		return el("section", attr("class", "card empty"),
			el("h1", txt("No such meter")),
			el("p", txt("No meter is called “"+v.Unknown+"” in the settings.")),
			el("p", el("a", attr("class", "button"), attr("href", "?"), txt("Show the meters that are there"))),
		)
	case len(v.Cards) == 0:
		return el("section", attr("class", "card empty"),
			el("h1", txt("No meter yet")),
			el("p", txt("The settings name no meter. Put one into "), code("METERS"), txt(", such as "), code("METERS=house=/dev/ttyUSB0"), txt(", and start kmp2mqtt again.")),
		)
	case v.View == viewAlign:
		return v.align()
	case v.View == viewExpert:
		return v.expert()
	}
	return v.values()
}

func (v view) bridge() g.Node {
	class, words := "bridge ok", "Connected to the broker"
	if !v.Bridge.Connected {
		class, words = "bridge bad", "The broker is away"
		if v.Bridge.Queue > 0 {
			words += fmt.Sprintf("; %d messages wait for it", v.Bridge.Queue)
		}
	}
	return el("p", live("bridge"), attr("class", class), attr("data-now", strconv.FormatInt(v.Now.UnixMilli(), 10)), lamp(), txt(words))
}

func (v view) count() g.Node {
	words := fmt.Sprintf("%d meters", len(v.All))
	if v.Trouble > 0 {
		words += fmt.Sprintf(", %d in trouble", v.Trouble)
	}
	return el("h1", live("count"), txt(words))
}

// values is the view for the owner.
func (v view) values() g.Node {
	page := g.Group{g.If(v.One, el("p", attr("class", "back"), el("a", attr("href", "?"), txtf("All %d meters", len(v.All)))))}
	if !v.Many {
		heading := "Meters"
		if v.One {
			heading = "A meter"
		}
		return append(page,
			el("h1", attr("class", "quiet"), txt(heading)),
			g.Map(v.Cards, card.full),
		)
	}
	return append(page,
		el("div", attr("class", "list-head"), v.count(),
			el("label", attr("class", "filter"), bare("hidden"), txt("Find "),
				el("input", attr("id", "filter"), attr("type", "search"), attr("placeholder", "name, serial number, trouble"), attr("autocomplete", "off"))),
		),
		el("p", attr("id", "none"), attr("class", "none"), bare("hidden"), txt("No meter is like that.")),
		el("div", attr("class", "list"), g.Map(v.Cards, func(c card) g.Node {
			return el("details", attr("class", "card"), attr("data-meter", c.Name),
				el("summary", c.row()),
				el("div", attr("class", "card-body"), bare("data-later"), el("p", el("a", attr("href", "?meter="+c.Name), txt("Show "+c.Title)))),
			)
		})),
	)
}

// row is a meter in a list.
func (c card) row() g.Node {
	first := func(s *shown, unit bool) g.Node {
		if s == nil {
			return nil
		}
		if s.Text == "" {
			return txt("–")
		}
		number := g.Group{el("b", txt(s.Text)), txt(" "), el("i", txt(s.Unit))}
		if unit {
			return el("span", g.If(s.Unit != "", attr("data-unit", s.Unit)), number)
		}
		return number
	}
	var tile *shown
	if len(c.Tiles) > 0 {
		tile = &c.Tiles[0]
	}
	class, words := "row-state "+c.State, c.state()
	if c.Trouble {
		class, words = class+" bad", c.Condition.Title
	}
	return el("div", attr("class", "row"), live(c.ID+"-row"),
		el("h2", attr("class", "row-title"), txt(c.Title)),
		el("span", attr("class", "row-serial"), txt(c.Serial)),
		el("span", attr("class", "row-value"), first(c.Hero, true)),
		el("span", attr("class", "row-value"), first(tile, false)),
		el("span", attr("class", class), lamp(), txt(words)),
	)
}

func (c card) state() string {
	switch c.State {
	case "online":
		return "Online"
	case "offline":
		return "Offline"
	}
	return "Not read yet"
}

// full is a meter with all that an owner wants to know.
func (c card) full() g.Node {
	charts := g.Group{
		el("div", attr("class", "charts"), attr("data-charts", c.Name), bare("hidden")),
		el("noscript", el("p", attr("class", "none"), txt("Curves need JavaScript. The numbers here renew themselves every minute without it."))),
	}
	return el("section", attr("class", "card"), attr("data-meter", c.Name), attr("aria-labelledby", c.ID+"-title"),
		el("div", attr("class", "card-body"),
			el("div", attr("class", "card-head"),
				el("div", attr("class", "who"),
					el("h2", attr("class", "card-title"), attr("id", c.ID+"-title"), txt(c.Title)),
					el("p", attr("class", "sub"), live(c.ID+"-sub"), txt(cmp.Or(c.Model, "Type not known yet")),
						g.If(c.Serial != "", g.Group{txt(" · "), el("span", attr("class", "serial"), txt("No. "+c.Serial))})),
				),
				c.status(),
				el("form", attr("class", "read"), attr("method", "post"), attr("action", c.Base+"api/v1/meters/"+c.Name+"/read"),
					el("button", attr("class", "button main"), attr("aria-describedby", c.ID+"-cost"), txt("Read now"))),
			),
			el("p", attr("class", "quiet"), attr("id", c.ID+"-cost"), txt("Asks the meter at once. It costs a little of its battery.")),
			el("p", attr("class", "answer"), attr("role", "status")),
			el("div", live(c.ID+"-trouble"), c.trouble()),
			c.now(),
			charts,
			c.health(),
			c.more(),
		),
	)
}

// status says since when the meter is there, and when it is read.
func (c card) status() g.Node {
	read := g.Group{txt("No reading yet")}
	if !c.Reading.IsZero() {
		read = g.Group{
			txt("Read "), when(c.Reading), txt(", "),
			el("span", attr("data-ago", strconv.FormatInt(c.Reading.UnixMilli(), 10)), txt(spell(c.Age))), txt(" ago"),
		}
	}
	if !c.Next.IsZero() {
		in := "now"
		if c.Wait > 0 {
			in = "in " + spell(c.Wait)
		}
		read = append(read, el("br"), txt("Next reading "), el("span", attr("data-in", strconv.FormatInt(c.Next.UnixMilli(), 10)), txt(in)))
	}
	return el("div", attr("class", "status "+c.State), live(c.ID+"-status"),
		el("p", attr("class", "chip"), lamp(), txt(c.state())),
		el("p", attr("class", "when"), read),
	)
}

// trouble says what is wrong and what to do.
func (c card) trouble() g.Node {
	switch {
	case c.Trouble:
		return el("div", attr("class", "trouble"),
			el("h3", txt(c.Condition.Title)),
			el("p", txt(c.Condition.Text)),
			el("p", attr("class", "step"), el("b", txt("What to do:")), txt(" "+c.Condition.NextStep)),
			el("p", attr("class", "since"),
				g.If(!c.Condition.Since.IsZero(), g.Group{txt("Since "), when(c.Condition.Since), txt(". ")}),
				g.If(c.Error != "", g.Group{txt("The program says: "), code(c.Error)})),
			g.If(c.Head, el("p", attr("class", "step"), el("a", attr("class", "button"), attr("href", "?view=align&meter="+c.Name), txt("Align the head")))),
		)
	case len(c.Values) == 0:
		return el("div", attr("class", "first"),
			el("h3", txt("No values yet")),
			el("p", txt("The first reading comes as soon as the meter’s line is there. Then its values stand here, as on its display.")),
		)
	}
	return nil
}

// now are the values that matter most.
func (c card) now() g.Node {
	class := "now"
	if c.State == "offline" {
		class = "now old"
	}
	page := g.Group{attr("class", class), live(c.ID + "-now")}
	if c.Hero != nil {
		page = append(page, el("dl", attr("class", "hero"), el("div", attr("class", c.Hero.Hue), c.Hero.both())))
	}
	if len(c.Tiles) > 0 {
		page = append(page, el("dl", attr("class", "tiles"), g.Map(c.Tiles, func(s shown) g.Node { return el("div", attr("class", "tile "+s.Hue), s.both()) })))
	}
	return el("div", page)
}

// health is how line and battery are, and what the meter says of itself.
func (c card) health() g.Node {
	line := g.Group{el("p", txt("Nothing was asked yet"))}
	if c.Rated {
		line = g.Group{el("p", el("b", txtf("%d%%", c.Quality)), txt(" of the last requests were answered")), bar(c.Quality)}
	}
	readings := "readings"
	if c.Today.Reads == 1 {
		readings = "reading"
	}
	asked := g.Group{el("p", el("b", txtf("%d", c.Today.Reads)), txt(" "+readings+" today, no limit set"))}
	if c.Budget > 0 {
		asked = g.Group{el("p", el("b", txtf("%d", c.Today.Reads)), txtf(" of today’s %d readings", c.Budget)), bar(c.Spent)}
	}
	reports := el("p", txt("Not known yet"))
	switch {
	case len(c.Info) > 0:
		reports = el("ul", attr("class", "info"), g.Map(c.Info, func(s string) g.Node { return el("li", txt(s)) }))
	case len(c.Values) > 0:
		reports = el("p", txt("Nothing"))
	}
	return el("div", attr("class", "health"), live(c.ID+"-health"),
		el("div", el("h3", txt("The line")), line, el("p", attr("class", "note"), txt(c.Condition.Title))),
		el("div", el("h3", txt("The meter’s battery")), asked, el("p", attr("class", "note"), txtf("%.0f s awake today", c.Today.Awake))),
		el("div", el("h3", txt("The meter reports")), reports),
	)
}

// more is what is folded away.
func (c card) more() g.Node {
	rest := g.Group{el("div", el("dt", txt("Nothing else was read")))}
	if len(c.Rest) > 0 {
		rest = g.Map(c.Rest, func(s shown) g.Node { return el("div", s.both()) })
	}
	return el("div", attr("class", "more"),
		el("details", el("summary", txt("All values")), el("div", live(c.ID+"-rest"), el("dl", attr("class", "rest"), rest))),
		el("details", attr("class", "tables"), bare("hidden"), el("summary", txt("The curves as tables")), el("div", attr("data-tables", c.Name))),
		el("nav", attr("aria-label", "More of "+c.Title),
			el("a", attr("href", "?view=align&meter="+c.Name), txt("Align the head")),
			el("a", attr("href", "?view=expert&meter="+c.Name), txt("For experts"))),
	)
}

// both is a value with its name, as two elements of a list.
func (s shown) both() g.Node {
	name := el("dt", txt(s.Label))
	if s.Text == "" {
		return g.Group{name, el("dd",
			el("span", attr("class", "num"), el("b", attr("aria-label", "unknown"), txt("–"))),
			el("span", attr("class", "why"), txt(cmp.Or(s.Why, "not answered, or no value"))),
		)}
	}
	return g.Group{name, el("dd",
		el("span", attr("class", "num"), attr("data-key", s.Key), g.If(s.Unit != "", attr("data-unit", s.Unit)),
			el("b", txt(s.Text)), g.If(s.Unit != "", g.Group{txt(" "), el("i", txt(s.Unit))})),
		g.If(s.Held, g.Group{txt(" "), el("span", attr("class", "held"), txt("held")), el("span", attr("class", "why"), txt(s.Why))}),
	)}
}

// bar shows a part of a hundred.
func bar(n int) g.Node {
	return el("svg", attr("class", "bar"), attr("aria-hidden", "true"), rect("bar-back", "", "100%", "4"), rect("bar-fill", "", percent(n), "4"))
}

// rect is a bar, or the groove that it lies in.
func rect(class, id, width, round string) g.Node {
	return g.El("rect", attr("class", class), g.If(id != "", attr("id", id)), attr("width", width), attr("height", "100%"), attr("rx", round))
}

// pick leads to the same view of another meter.
func (v view) pick() g.Node {
	if !v.One {
		return nil
	}
	return el("nav", attr("class", "pick"), attr("aria-label", "Another meter"), g.Map(v.All, func(c card) g.Node {
		return el("a", attr("href", "?view="+v.View+"&meter="+c.Name), g.If(c.Name == v.Cards[0].Name, attr("aria-current", "page")), txt(c.Title))
	}))
}

// align is the view for a phone beside the meter.
func (v view) align() g.Node {
	c := v.Cards[0]
	said := func(name, id string) g.Node {
		return el("div", el("dt", txt(name)), el("dd", attr("id", id), txt("–")))
	}
	option := func(value, words string, chosen bool) g.Node {
		return el("option", attr("value", value), g.If(chosen, bare("selected")), txt(words))
	}
	return g.Group{
		el("section", attr("class", "align"), attr("data-align", c.Name), attr("aria-labelledby", "align-title"),
			el("p", attr("class", "back"), el("a", attr("href", "?"), txt("Back to the values"))),
			el("h1", attr("id", "align-title"), txt(c.Title+": align the head")),
			el("div", attr("class", "gauge"), attr("data-level", "0"),
				el("p", attr("class", "level"), el("b", attr("id", "level"), txt("–")), el("i", txt("%"))),
				el("svg", attr("class", "big"), attr("role", "img"), attr("aria-label", "Link quality"), rect("bar-back", "", "100%", "14"), rect("bar-fill", "fill", "0%", "14")),
				el("p", attr("class", "verdict"), attr("id", "verdict"), attr("role", "status"), txt("Ready")),
				el("ol", attr("class", "dots"), attr("id", "dots"), attr("aria-hidden", "true")),
			),
			el("dl", attr("class", "heard"), said("The head’s own echo", "echo"), said("First byte after", "byte"), said("Good in a row", "run"), said("Time left", "left")),
			el("form", attr("class", "drive"), attr("id", "drive"),
				el("label", txt("For "), el("select", attr("id", "length"), option("60s", "1 minute", false), option("120s", "2 minutes", true), option("300s", "5 minutes", false))),
				txt(" "),
				el("button", attr("class", "button main huge"), attr("id", "go"), bare("disabled"), txt("Start")),
			),
			el("noscript", el("p", attr("class", "trouble"), txt("This view needs JavaScript. Without it, "), code("kmp2mqtt align"), txt(" does the same in a terminal."))),
			el("div", attr("class", "hints"),
				el("p", txt("Hold the phone where you see it, start, and move the head slowly: turn it by 180°, shift it by millimetres. "+
					"It sounds and says “Locked” when the head sits: ten good answers in a row.")),
				el("p", txt("The meter is asked up to four times a second and stays awake meanwhile: a minute of it costs the battery about as much as a day of readings. "+
					"The usual readings of this line wait until it ends, and it ends by itself.")),
			),
			el("details", attr("class", "last"), el("summary", txt("The last frames")), el("ol", attr("id", "frames"), attr("class", "wire"))),
		),
		v.pick(),
	}
}

// expert is the view with frames, profile and settings.
func (v view) expert() g.Node {
	c := v.Cards[0]
	frames := g.Group{el("li", attr("class", "none"), txt("No frame yet."))}
	if len(v.Frames) > 0 {
		frames = g.Map(v.Frames, frame.item)
	}
	return g.Group{
		el("p", attr("class", "back"), el("a", attr("href", "?"), txt("Back to the values"))),
		el("h1", txt(c.Title+": for experts")),
		v.pick(),
		el("section", attr("class", "card"), attr("data-meter", c.Name), bare("data-whole"), el("div", attr("class", "card-body"),
			el("h2", txt("The meter")),
			el("div", live("facts"), c.facts()),
			el("div", attr("class", "bundle"),
				el("a", attr("class", "button"), attr("href", v.Base+"api/v1/meters/"+c.Name+"/bundle"), bare("download"), txt("Support bundle")),
				el("p", attr("class", "note"), txt("One file with the meter’s profile, the last frames, the diagnosis and the settings, to give to somebody who helps. "+
					"The serial number is in it; passwords are not. "), code("kmp2mqtt simulate -replay FILE"), txt(" makes a meter of it.")),
			),
		)),
		el("section", attr("class", "card"), el("div", attr("class", "card-body"), el("h2", txt("What the meter has")), el("div", live("profile"), profile(c.Profile)))),
		el("section", attr("class", "card"), el("div", attr("class", "card-body"),
			el("h2", txt("The program")),
			el("div", live("program"), v.program()),
			el("h3", txt("Settings")),
			el("dl", attr("class", "facts settings"), g.Map(slices.Sorted(maps.Keys(v.Bridge.Settings)), func(name string) g.Node {
				return el("div", el("dt", code(name)), el("dd", code(v.Bridge.Settings[name])))
			})),
			el("h3", txt("For programs")),
			el("ul", attr("class", "links"),
				el("li", el("a", attr("href", v.Base+"api/v1/meters"), txt("api/v1/meters")), txt(" all meters, as JSON")),
				el("li", el("a", attr("href", v.Base+"api/v1/events"), txt("api/v1/events")), txt(" what is published, as it comes")),
				el("li", el("a", attr("href", v.Base+"metrics"), txt("metrics")), txt(" for Prometheus")),
				el("li", el("a", attr("href", v.Base+"healthz"), txt("healthz")), txt(" and "), el("a", attr("href", v.Base+"readyz"), txt("readyz")), txt(" for what watches the program")),
			),
		)),
		el("section", attr("class", "card"), el("div", attr("class", "card-body"),
			el("h2", txt("The last frames")),
			el("p", attr("class", "note"), txt("The newest first, 50 at most. What is copied can be pasted into a terminal.")),
			el("ol", attr("class", "frames"), live("frames"), frames),
		)),
	}
}

// facts are what the program knows of a meter.
func (c card) facts() g.Node {
	model := cmp.Or(c.Model, "not known yet")
	if c.Revision != "" {
		model += ", software " + c.Revision
	}
	reads := []string{fmt.Sprintf("%d good", c.ReadsOK)}
	for _, why := range slices.Sorted(maps.Keys(c.ReadsFailed)) {
		reads = append(reads, fmt.Sprintf("%d %s", c.ReadsFailed[why], why))
	}
	echo, clock, since := "no", "not known", "Asked of the battery"
	if c.Echo {
		echo = "yes"
	}
	if c.ClockDrift != nil {
		clock = drift(c.ClockDrift)
	}
	if c.Total.Date != "" {
		since += " since " + c.Total.Date
	}
	return el("dl", attr("class", "facts"),
		fact("Model", txt(model)),
		fact("Serial number", txt(cmp.Or(c.Serial, "not known yet"))),
		fact("Line", code(c.Line)),
		fact("Read every", txt(spell(c.Interval))),
		fact("Readings since the start", txt(strings.Join(reads, ", "))),
		fact("Checksum errors", txtf("%d", c.ChecksumErrors)),
		fact("The head hears itself", txt(echo)),
		fact("The meter’s clock", txt(clock)),
		fact("Diagnosis", code(string(c.Condition.Code)), txt(" "+c.Condition.Title)),
		fact(since, txtf("%d readings, %d answers, %d bytes, %.0f s awake", c.Total.Reads, c.Total.Frames, c.Total.Bytes, c.Total.Awake)),
	)
}

// item is a frame in the list of frames.
func (f frame) item() g.Node {
	class, way := "came", "from the meter"
	if f.Direction == "to_meter" {
		class, way = "sent", "to the meter"
	}
	explained := g.Map(f.Explained, func(line []string) g.Node {
		var words g.Group
		for i, word := range line {
			if i == 0 {
				words = append(words, el("dt", txt(word)))
			} else {
				words = append(words, el("dd", txt(word)))
			}
		}
		return el("div", words)
	})
	return el("li", attr("id", f.ID), attr("class", class),
		el("p", attr("class", "frame-head"), when(f.Time), el("span", attr("class", "arrow"), txt(way)),
			el("button", attr("class", "button copy"), attr("data-copy", "kmp2mqtt decode "+f.Wire), attr("aria-label", "Copy as a command: the frame of "+clock(f.Time)), txt("Copy"))),
		el("p", attr("class", "hex"), code(f.Wire)),
		g.If(len(f.Explained) > 0, el("dl", attr("class", "words"), explained)),
		g.Iff(f.Error != nil, func() g.Node { return el("p", attr("class", "why"), txt(*f.Error)) }),
	)
}

// profile lists the registers that a meter has.
func profile(p census.Profile) g.Node {
	if len(p.Registers) == 0 {
		return el("p", attr("class", "none"), txt("Not known yet: the census begins with the first reading."))
	}
	head := func(name, class string) g.Node {
		return el("th", attr("scope", "col"), g.If(class != "", attr("class", class)), txt(name))
	}
	number := func(n int) g.Node { return el("td", attr("class", "n"), txtf("%d", n)) }
	taken := g.Group{txt("; the census is not complete yet")}
	if !p.Taken.IsZero() {
		taken = g.Group{txt(", as of "), when(p.Taken)}
	}
	lacks := ""
	if n := len(p.Absent); n > 0 {
		lacks = fmt.Sprintf(" It lacks %d that its kind may have.", n)
	}
	return g.Group{
		el("div", attr("class", "scroll"), attr("tabindex", "0"), attr("role", "region"), attr("aria-label", "Registers of the meter"),
			el("table",
				el("thead", el("tr", head("Id", "n"), head("Name", ""), head("Unit", ""), head("Bytes", "n"), head("Exponent", "n"))),
				el("tbody", g.Map(p.Registers, func(r census.Entry) g.Node {
					return el("tr", number(int(r.ID)), el("td", txt(r.Name)), el("td", txt(r.Unit)), number(r.Width), number(r.Exponent))
				})),
			)),
		el("p", attr("class", "note"), txtf("%d registers", len(p.Registers)), taken, txt("."+lacks)),
	}
}

// program is what the program knows of itself.
func (v view) program() g.Node {
	b := v.Bridge
	version, broker, waiting := b.Version, "connected", fmt.Sprint(b.Queue)
	if b.Commit != "" {
		version += " (" + b.Commit + ")"
	}
	if !b.Connected {
		broker = "away"
	}
	if b.Dropped > 0 {
		waiting += fmt.Sprintf(", %d dropped", b.Dropped)
	}
	list := func(names []string) g.Node {
		return g.Map(names, func(s string) g.Node { return g.Group{txt(" "), code(s)} })
	}
	return el("dl", attr("class", "facts"),
		fact("Version", txt(version)),
		fact("Started", when(b.Started)),
		fact("Broker", txt(broker), list(b.Brokers)),
		fact("Topics", code(b.Topic+"/…")),
		fact("Waiting messages", txt(waiting)),
		fact("Memory", txt(megabytes(b.Memory))),
		g.If(len(b.Stuck) > 0, el("div", attr("class", "bad"), el("dt", txt("Stuck lines")), el("dd", list(b.Stuck)))),
	)
}
