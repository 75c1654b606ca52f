package web

import (
	"fmt"
	"html"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"regexp"
	"strings"
	"testing"
	"time"

	"kmp2mqtt/bridge/battery"
	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/census"
	"kmp2mqtt/kmp/diagnosis"
)

// visit returns status and body of a page.
func visit(t *testing.T, src Source, query string, header ...string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/"+query, nil)
	if len(header) > 0 {
		r.Header.Set(header[0], header[1])
	}
	w := httptest.NewRecorder()
	page(src).ServeHTTP(w, r)
	if got := w.Header().Get("Content-Type"); got != "text/html; charset=utf-8" {
		t.Errorf("%s: content type %q", query, got)
	}
	return w.Code, w.Body.String()
}

// street is a source with many meters, each like the fake's first.
func street(n int) *fakeSource {
	src := newFake(time.Now().Add(-12 * time.Second))
	one := src.meters[0]
	src.meters = nil
	for i := range n {
		m := one
		m.Name, m.Title, m.Serial = fmt.Sprintf("flat%d", i), fmt.Sprintf("Flat %d", i), fmt.Sprint(80123456+i)
		src.meters = append(src.meters, m)
	}
	return src
}

func TestPageStates(t *testing.T) {
	one := func(change func(*Meter)) *fakeSource {
		src := street(1)
		src.meters[0].Name, src.meters[0].Title = "house", "House"
		change(&src.meters[0])
		return src
	}
	class := func(c diagnosis.Code) Condition {
		k := diagnosis.Lookup(c)
		return Condition{Code: c, Title: k.Title, Text: k.Text, NextStep: k.NextStep, Since: time.Now()}
	}
	asleep := diagnosis.Lookup(diagnosis.Asleep)
	away := street(1)
	away.bridge.Connected, away.bridge.Queue = false, 12
	few := street(3)
	many := street(100)
	many.meters[7].Condition = class(diagnosis.Asleep)

	tests := []struct {
		name   string
		src    Source
		query  string
		status int
		want   []string // in this order
		never  []string
	}{
		{
			"a good reading", one(func(m *Meter) { m.Reading = time.Now().Add(-12 * time.Second) }), "", 200,
			[]string{"<title>House – kmp2mqtt", "Connected to the broker", "House", "MULTICAL 403", "80123456", "Online", ">12 s</span> ago", "in 29 min", "Read now", "227.445", "GJ", "6.4", "kW", "128", "l/h", "69.12", "°C", "95%", "12", "of today’s 96 readings", "16 s awake", "Nothing"},
			[]string{"What to do", "held"},
		},
		{
			"unknown and held", one(func(m *Meter) {
				m.Values[0].Why, m.Values[4].Why = "held: a counter does not fall", "sensor T2 is broken"
				m.Info = []string{"temperature sensor T2 outside range"}
			}), "", 200,
			[]string{"227.445", "held</span>", "a counter does not fall", `aria-label="unknown">–<`, "sensor T2 is broken", "temperature sensor T2 outside range"},
			[]string{">0 <", "null", "nil"},
		},
		{
			"asleep", one(func(m *Meter) {
				m.Availability, m.Condition = "offline", class(diagnosis.Asleep)
				m.Diagnostics = []byte(`{"last_error":"kmp: no reply"}`)
			}), "", 200,
			[]string{"Offline", asleep.Title, html.EscapeString(asleep.Text), "What to do:", html.EscapeString(asleep.NextStep), "kmp: no reply", `href="?view=align&amp;meter=house">Align the head`, "227.445"},
			nil,
		},
		{
			"never read", one(func(m *Meter) {
				*m = Meter{Name: "line-1", Title: "/dev/ttyUSB0", Line: "/dev/ttyUSB0", Condition: Condition{Code: diagnosis.NotRead, Title: "Not read yet"}}
			}), "", 200,
			[]string{"/dev/ttyUSB0", "Type not known yet", "Not read yet", "No reading yet", "No values yet", "Nothing was asked yet", "Not known yet"},
			[]string{"0001", "1 Jan", "No. <"},
		},
		{
			"no budget", one(func(m *Meter) { m.Budget, m.Today = 0, battery.Day{Reads: 1} }), "", 200,
			[]string{"<b>1</b> reading today, no limit set"},
			[]string{"of today"},
		},
		{"the broker is away", away, "", 200, []string{`class="bridge bad"`, "The broker is away; 12 messages wait for it"}, []string{"Connected to the broker"}},
		{"no meter", street(0), "", 200, []string{"No meter yet", "METERS="}, nil},
		{"no meter to align", street(0), "?view=align", 200, []string{"No meter yet"}, nil},
		{"some meters", few, "", 200, []string{"<title>3 meters", "<h1", "Flat 0", "Flat 1", "Flat 2"}, []string{"<details class=\"card\"", "All 3 meters"}},
		{"one of some", few, "?meter=flat1", 200, []string{"<title>Flat 1", "All 3 meters", "Flat 1"}, []string{"Flat 0", "Flat 2"}},
		{"many meters", many, "", 200, []string{"100 meters, 1 in trouble", `<details class="card" data-meter="flat0"`, "Flat 7", asleep.Title, `data-meter="flat99"`, `href="?meter=flat99"`}, []string{"Read now"}},
		{"part", many, "?part=flat7", 200, []string{"flat7-row", asleep.Title, "Read now"}, []string{"<html", "flat8"}},
		{"unknown meter", few, "?meter=%3Cb%3E", 404, []string{"No such meter", "&lt;b&gt;", `href="?"`}, []string{"<b>"}},
		{"unknown part", few, "?part=nobody", 404, []string{"No such meter"}, nil},
		{"unknown view", few, "?view=nothing", 200, []string{"3 meters"}, nil},
		{"align", one(func(*Meter) {}), "?view=align", 200, []string{"House: align the head", `data-align="house"`, "Ready", "Start", "ten good answers in a row", "battery"}, nil},
		{"align one of some", few, "?view=align&meter=flat2", 200, []string{"Flat 2: align the head", `data-align="flat2"`, `href="?view=align&amp;meter=flat0"`, `aria-current="page">Flat 2`}, nil},
		{
			"expert", one(func(m *Meter) {
				m.Profile.Registers = []census.Entry{{ID: 60, Name: "energy", Unit: "GJ", Width: 4, Exponent: -3}}
			}), "?view=expert", 200,
			[]string{
				"House: for experts", "MULTICAL 403, software F1", "tcp://192.0.2.7:2001", "42 s behind", "api/v1/meters/house/bundle", "passwords are not",
				"<td class=\"n\">60</td><td>energy</td><td>GJ</td>", "1.2.3", "12.0 MB", "METERS", "MQTT_PASSWORD", "(redacted)", "metrics",
				"from the meter", `data-copy="kmp2mqtt decode 40 3F FF"`, "to the meter", "GetSerialNo (02)",
			},
			nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, body := visit(t, tt.src, tt.query)
			if status != tt.status {
				t.Errorf("status %d, want %d", status, tt.status)
			}
			rest := body
			for _, want := range tt.want {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Errorf("%q is missing, or in another place", want)
					continue
				}
				rest = after
			}
			for _, never := range tt.never {
				if strings.Contains(body, never) {
					t.Errorf("%q is there", never)
				}
			}
			if strings.Contains(body, "ZgotmplZ") {
				t.Error("a template puts text where it cannot be")
			}
		})
	}
}

// Everything that comes from outside is text, wherever it stands.
func TestPageEscapes(t *testing.T) {
	const evil = `"'><script>alert(1)</script><img src=x onerror=alert(2)>{{.}}` + "\u2028"
	src := newFake(time.Now())
	src.bridge.Version, src.bridge.Commit, src.bridge.Topic, src.bridge.Brokers = evil, evil, evil, []string{evil}
	src.bridge.Settings, src.bridge.Stuck = map[string]string{evil: evil}, []string{evil}
	m := &src.meters[0]
	m.Name, m.Title, m.Serial, m.Model, m.Revision, m.Line = evil, evil, evil, evil, evil, evil
	m.Info, m.ReadsFailed = []string{evil}, map[string]int{evil: 1}
	m.Values = []Value{{Key: evil, Register: evil, Title: evil, Unit: evil, Value: kmp.Text(evil), Why: evil, Counter: true}, {Key: evil, Register: "power", Title: evil, Unit: evil, Why: evil}}
	m.Condition = Condition{Code: evil, Title: evil, Text: evil, NextStep: evil, Since: time.Now()}
	m.Diagnostics = []byte(`{"last_error":"\"'><script>alert(1)</script><img src=x onerror=alert(2)>"}`)
	m.Profile.Registers = []census.Entry{{ID: 1, Name: evil, Unit: evil}}
	m.Total.Date = evil
	src.frames = map[string][]Frame{evil: {{Time: time.Now(), Wire: []byte(evil)}}}
	quiet := newFake(time.Now())
	scripts := func(body string) int { return strings.Count(strings.ToLower(body), "<script") }
	for _, query := range []string{"", "?view=expert", "?view=align", "?meter=", "?part="} {
		mine := query
		if strings.HasSuffix(query, "=") {
			mine += url.QueryEscape(evil)
			query += "house"
		}
		_, body := visit(t, src, mine)
		_, usual := visit(t, quiet, query)
		if got, want := scripts(body), scripts(usual); got != want {
			t.Errorf("%s: %d scripts, want %d", mine, got, want)
		}
		if strings.Contains(body, "<img") || strings.Contains(body, "alert(1)</script>") || strings.Contains(body, "ZgotmplZ") {
			t.Errorf("%s: not escaped", mine)
		}
	}
}

// addresses are what a page links to, loads and sends to.
var addresses = regexp.MustCompile(`(?:href|src|action)="([^"]*)"`)

// All links are relative, so that the page can be shown below any path; what it loads is
// there; nothing is inline, which the content security policy would not let in.
func TestPageLinks(t *testing.T) {
	inline := regexp.MustCompile(`(?i)<style|<script(?: defer| type="module")?>|\sstyle=|\son[a-z]+=|<base|javascript:|https?://`)
	loaded := map[string]bool{}
	for _, query := range []string{"", "?view=expert", "?view=align", "?meter=house", "?meter=nobody", "?part=house"} {
		for prefix, header := range map[string]string{"": "", "/api/hassio_ingress/x-1_Y/": "/api/hassio_ingress/x-1_Y"} {
			_, body := visit(t, newFake(time.Now()), query, "X-Ingress-Path", header)
			found := addresses.FindAllStringSubmatch(body, -1)
			if len(found) == 0 {
				t.Errorf("%s: no links", query)
			}
			for _, f := range found {
				link := html.UnescapeString(f[1])
				rest, below := strings.CutPrefix(link, prefix)
				switch {
				case strings.HasPrefix(link, "?"), strings.HasPrefix(link, "#"):
				case !below, strings.HasPrefix(rest, "/"), strings.Contains(rest, ":"):
					t.Errorf("%s behind %q: %q is not relative", query, prefix, link)
				case strings.HasPrefix(rest, "assets/"):
					loaded[rest] = true
				}
			}
			if got := inline.FindString(body); got != "" {
				t.Errorf("%s: %q", query, got)
			}
		}
	}
	if len(loaded) < 5 {
		t.Errorf("loaded is only %v", loaded)
	}
	for link := range loaded {
		w := httptest.NewRecorder()
		assets().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/"+link, nil))
		if got := w.Header().Get("Cache-Control"); w.Code != http.StatusOK || !strings.Contains(got, "immutable") {
			t.Errorf("%s: %d, cache control %q", link, w.Code, got)
		}
	}
}

// A path of the ingress that is none is not put into links.
func TestPageOddIngress(t *testing.T) {
	for _, odd := range []string{"https://example.com", "//example.com/x", "/a//b", `/a"onload="`, "/a b", "a/b", "/a?b"} {
		_, body := visit(t, newFake(time.Now()), "", "X-Ingress-Path", odd)
		if !strings.Contains(body, `href="assets/page.css`) || strings.Contains(body, "example.com") {
			t.Errorf("%q stands in links", odd)
		}
	}
}

func TestAssets(t *testing.T) {
	get := func(name, query string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/assets/", nil)
		r.URL.Path += name
		r.URL.RawQuery = query
		if len(header) > 0 {
			r.Header.Set(header[0], header[1])
		}
		w := httptest.NewRecorder()
		assets().ServeHTTP(w, r)
		return w
	}
	for name, want := range map[string]string{
		"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8", "common.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
		"uplot/uPlot.iife.min.js": "text/javascript; charset=utf-8", "uplot/uPlot.min.css": "text/css; charset=utf-8", "uplot/LICENSE": "text/plain; charset=utf-8",
	} {
		w := get(name, "")
		if got := w.Header().Get("Content-Type"); w.Code != http.StatusOK || got != want || w.Body.Len() == 0 {
			t.Errorf("%s: %d, %q, %d bytes", name, w.Code, got, w.Body.Len())
		}
		if got := w.Header().Get("Cache-Control"); got != "no-cache" { // it is asked for anew, and is then usually not sent again
			t.Errorf("%s: cache control %q", name, got)
		}
		tag := w.Header().Get("ETag")
		if w := get(name, "", "If-None-Match", tag); w.Code != http.StatusNotModified || w.Body.Len() != 0 {
			t.Errorf("%s with tag %s: %d", name, tag, w.Code)
		}
		if w := get(name, "v="+strings.Trim(tag, `"`)); !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
			t.Errorf("%s with its hash: %q", name, w.Header().Get("Cache-Control"))
		}
		if w := get(name, "v=0123456789abcdef"); w.Header().Get("Cache-Control") != "no-cache" {
			t.Errorf("%s with the hash of another: %q", name, w.Header().Get("Cache-Control"))
		}
	}
	for _, name := range []string{"", "page.html", "uplot", "uplot/", "nothing.css", "../page.go", "uplot/../page.css", "./page.css", "page.css/"} {
		if w := get(name, ""); w.Code != http.StatusNotFound || strings.Contains(w.Body.String(), "package web") {
			t.Errorf("%q: %d", name, w.Code)
		}
	}
}

// The page of one meter, with its style and scripts but without the vendored uPlot, stays
// small: a phone on a bad network in a cellar loads it.
func TestPageSize(t *testing.T) {
	const most = 60_000
	src := newFake(time.Now())
	src.meters = src.meters[:1]
	_, body := visit(t, src, "")
	size := len(body)
	err := fs.WalkDir(embedded, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(name, "/uplot/") || path.Ext(name) == ".html" {
			return err
		}
		info, err := d.Info()
		size += int(info.Size())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if size > most {
		t.Errorf("%d bytes, at most %d", size, most)
	}
	t.Logf("%d bytes", size)
}

// A list of the most meters stays small, too: what is inside comes when it is looked at.
func TestPageSizeMany(t *testing.T) {
	if _, body := visit(t, street(1000), ""); len(body) > 1_500_000 {
		t.Errorf("%d bytes for 1000 meters", len(body))
	}
}

func TestSpell(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", 119 * time.Second: "119 s", 2 * time.Minute: "2 min", 119*time.Minute + 59*time.Second: "119 min", 2 * time.Hour: "2 h", 47 * time.Hour: "47 h", 49 * time.Hour: "2 days",
	} {
		if got := spell(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func FuzzPage(f *testing.F) {
	f.Add("view=expert&meter=house", "/api/hassio_ingress/x")
	f.Add("part=house", "")
	f.Add("meter=%3Cscript%3E&view=align", `//"`)
	src := newFake(fakeTime)
	h := page(src)
	f.Fuzz(func(t *testing.T, query, ingress string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.RawQuery = query
		r.Header.Set("X-Ingress-Path", ingress)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		body := w.Body.String()
		if w.Code != http.StatusOK && w.Code != http.StatusNotFound {
			t.Errorf("status %d", w.Code)
		}
		if strings.Contains(body, "ZgotmplZ") || strings.Count(body, "<script") > 2 {
			t.Error(body)
		}
	})
}
