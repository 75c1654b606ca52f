package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.yaml.in/yaml/v3"

	"kmp2mqtt/kmp/diagnosis"
)

// node is an object of the description.
type node = map[string]any

// description is docs/openapi.yaml, and what of it was seen in answers.
type description struct {
	t    *testing.T
	root node
	seen map[string]bool // members of schemas by their place, "GET /healthz 200", events
}

func readDescription(t *testing.T) *description {
	t.Helper()
	text, err := os.ReadFile("../../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d := &description{t: t, seen: map[string]bool{}}
	if err := yaml.Unmarshal(text, &d.root); err != nil {
		t.Fatal(err)
	}
	return d
}

// resolve follows a reference. It returns the place that it leads to, too.
func (d *description) resolve(place string, n node) (string, node) {
	ref, ok := n["$ref"].(string)
	if !ok {
		return place, n
	}
	var at any = d.root
	for part := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		object, _ := at.(node)
		at = object[part]
	}
	found, ok := at.(node)
	if !ok {
		d.t.Fatalf("%s: %s leads nowhere", place, ref)
	}
	return ref, found
}

// check compares a value of JSON with a schema. It knows the words that the description uses,
// and no other.
func (d *description) check(place string, schema node, value any) (problems []string) {
	place, schema = d.resolve(place, schema)
	d.seen[place] = true
	wrong := func(format string, args ...any) {
		problems = append(problems, place+": "+fmt.Sprintf(format, args...))
	}
	for word, want := range schema {
		switch word {
		case "description", "examples", "default", "required", "additionalProperties":
		case "type":
			if types := asList(want); !slices.ContainsFunc(types, func(t any) bool { return isType(value, t.(string)) }) {
				wrong("%v is not %v", value, types)
			}
		case "enum":
			if !slices.Contains(want.([]any), value) {
				wrong("%v is not one of %v", value, want)
			}
		case "format":
			if s, ok := value.(string); ok {
				if _, err := time.Parse(time.RFC3339, s); err != nil || want != "date-time" {
					wrong("%s: %v", want, err)
				}
			}
		case "minimum", "maximum":
			if n, ok := value.(json.Number); ok {
				f, _ := n.Float64()
				if bound := float64(want.(int)); word == "minimum" && f < bound || word == "maximum" && f > bound {
					wrong("%v is beyond the %s", value, word)
				}
			}
		case "minItems", "maxItems":
			if l, ok := value.([]any); ok && (word == "minItems" && len(l) < want.(int) || word == "maxItems" && len(l) > want.(int)) {
				wrong("%d items", len(l))
			}
		case "items":
			if l, ok := value.([]any); ok {
				for _, item := range l {
					problems = append(problems, d.check(place+"/items", want.(node), item)...)
				}
			}
		case "properties":
			if object, ok := value.(map[string]any); ok {
				problems = append(problems, d.members(place, schema, object)...)
			}
		default:
			d.t.Fatalf("%s: nothing checks %s", place, word)
		}
	}
	return problems
}

// members compares the members of an object with a schema.
func (d *description) members(place string, schema node, object map[string]any) (problems []string) {
	properties := schema["properties"].(node)
	for name, value := range object {
		if property, ok := properties[name].(node); ok {
			problems = append(problems, d.check(place+"/properties/"+name, property, value)...)
			d.seen[place+"/properties/"+name] = true // also where that is a reference
		} else if more, said := schema["additionalProperties"].(bool); said && !more {
			problems = append(problems, place+": "+name+" is not described")
		}
	}
	for _, name := range asList(schema["required"]) {
		if _, ok := object[name.(string)]; !ok {
			problems = append(problems, fmt.Sprintf("%s: %s is missing", place, name))
		}
	}
	return problems
}

func asList(v any) []any {
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		return v
	}
	return []any{v}
}

// isType reports whether a value of JSON has a type of the description.
func isType(value any, name string) bool {
	switch value := value.(type) {
	case nil:
		return name == "null"
	case string:
		return name == "string"
	case bool:
		return name == "boolean"
	case []any:
		return name == "array"
	case map[string]any:
		return name == "object"
	case json.Number:
		_, err := value.Int64()
		return name == "number" || name == "integer" && err == nil
	}
	return false
}

func decode(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	err := d.Decode(&v)
	return v, err
}

// document checks JSON against a schema.
func (d *description) document(place string, schema node, text []byte) {
	value, err := decode(text)
	if err != nil {
		d.t.Errorf("%s: %v in %.200s", place, err, text)
		return
	}
	for _, problem := range d.check(place, schema, value) {
		d.t.Errorf("%s: %s", place, problem)
	}
}

// operation returns what the description says about a path and method.
func (d *description) operation(path, method string) node {
	item, _ := d.root["paths"].(node)[path].(node)
	op, _ := item[strings.ToLower(method)].(node)
	return op
}

// answer checks an answer: its status, its media type and what it holds.
func (d *description) answer(path, method string, rw *httptest.ResponseRecorder) {
	place := fmt.Sprintf("%s %s %d", method, path, rw.Code)
	d.seen[place] = true
	described, ok := d.operation(path, method)["responses"].(node)[fmt.Sprint(rw.Code)].(node)
	if !ok {
		d.t.Errorf("%s is not described: %s", place, rw.Body)
		return
	}
	_, described = d.resolve(place, described)
	media, _, err := mime.ParseMediaType(rw.Header().Get("Content-Type"))
	if err != nil {
		d.t.Errorf("%s: %v", place, err)
	}
	content, ok := described["content"].(node)[media].(node)
	if !ok {
		d.t.Errorf("%s: %s is not described", place, media)
		return
	}
	d.seen[place+" "+media] = true
	schema := content["schema"].(node)
	events, _ := content["x-events"].(node)
	switch {
	case events != nil:
		for _, e := range all(d.t, rw.Body.String()) {
			if e.name == "" {
				continue
			}
			event, ok := events[e.name].(node)
			if !ok {
				d.t.Errorf("%s: event %s is not described", place, e.name)
				continue
			}
			d.seen[place+" "+e.name] = true
			d.document(place+" "+e.name, event, []byte(e.data))
		}
	case strings.HasSuffix(media, "json"):
		d.document(place, schema, rw.Body.Bytes())
	}
}

// expected are all places that answers must have been seen at.
func (d *description) expected() []string {
	var places []string
	for path, item := range d.root["paths"].(node) {
		for method, op := range item.(node) {
			for status, response := range op.(node)["responses"].(node) {
				place := fmt.Sprintf("%s %s %s", strings.ToUpper(method), path, status)
				_, response := d.resolve(place, response.(node))
				for media, content := range response["content"].(node) {
					if path != "/assets/{file}" {
						places = append(places, place+" "+media)
					}
					events, _ := content.(node)["x-events"].(node)
					for name := range maps.Keys(events) {
						places = append(places, place+" "+name)
					}
				}
				places = append(places, place)
			}
		}
	}
	for name, schema := range d.root["components"].(node)["schemas"].(node) {
		places = append(places, d.inside("#/components/schemas/"+name, schema.(node))...)
	}
	return places
}

// inside are the places of a schema's members.
func (d *description) inside(place string, schema node) []string {
	places := []string{place}
	if _, ok := schema["$ref"]; ok {
		return nil
	}
	properties, _ := schema["properties"].(node)
	for name, property := range properties {
		places = append(places, place+"/properties/"+name)
		places = append(places, d.inside(place+"/properties/"+name, property.(node))...)
	}
	if items, ok := schema["items"].(node); ok {
		places = append(places, d.inside(place+"/items", items)...)
	}
	return places
}

// scenario is a request, and what the bridge is like.
type scenario struct {
	path, method string // as described
	query        string
	want         int
	cfg          Config
	with         []func(*http.Request)
	src          func(*fakeSource)
	before       func(http.Handler)
	crowded      bool // by other connections
}

// run has a scenario's request answered. A stream is shown one message of each kind and then
// left.
func (s scenario) run(t *testing.T) *httptest.ResponseRecorder {
	t.Helper()
	src := newFake(time.Now())
	if s.src != nil {
		s.src(src)
	}
	if s.cfg.Listen == "" {
		s.cfg = openConfig
	}
	target := strings.NewReplacer("{name}", "house", "{file}", "uplot/LICENSE").Replace(s.path) + s.query
	if strings.Contains(s.query, "cellar") {
		target = strings.Replace(s.path, "{name}", "cellar", 1)
		if !strings.Contains(s.path, "{name}") {
			target += s.query
		}
	}
	h := Handler(s.cfg, src)
	if s.before != nil {
		s.before(h)
	}
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), crowdedKey{}, s.crowded))
	defer cancel()
	rw := httptest.NewRecorder()
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.ServeHTTP(rw, request(s.method, target, s.with...).WithContext(ctx))
	}()
	synctest.Wait()
	for _, m := range []Message{
		{Topic: "kmp2mqtt/house", Meter: "house", Kind: "state", Payload: []byte(`{"power_kw":6.50}`)},
		{Topic: "kmp2mqtt/house/availability", Meter: "house", Kind: "availability", Payload: []byte("offline")},
		{Topic: "kmp2mqtt/house/diagnostics", Meter: "house", Kind: "diagnostics", Payload: []byte(`{}`)},
		{Topic: "kmp2mqtt/house/diagnosis", Meter: "house", Kind: "diagnosis", Payload: []byte(`{}`)},
		{Topic: "kmp2mqtt/house/history", Meter: "house", Kind: "history", Payload: []byte(`{}`)},
		{Topic: "kmp2mqtt/bridge/event", Kind: "event", Payload: []byte(`{}`)},
		{Topic: "kmp2mqtt/bridge/info", Kind: "info", Payload: []byte(`{}`)},
		{Topic: "kmp2mqtt/bridge/health", Kind: "health", Payload: []byte(`{}`)},
	} {
		src.publish(m)
	}
	synctest.Wait()
	cancel()
	<-done
	return rw
}

// The description and the server are the same: each route is described, each thing that is
// described happens, and each answer is as described.
func TestDescription(t *testing.T) {
	d := readDescription(t)
	var routes, described []string
	for _, r := range (&window{source: newFake(fakeTime)}).routes() {
		routes = append(routes, r.method+" "+strings.NewReplacer("{$}", "", "{file...}", "{file}").Replace(r.path))
	}
	for path, item := range d.root["paths"].(node) {
		for method := range item.(node) {
			described = append(described, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(routes)
	slices.Sort(described)
	if !slices.Equal(routes, described) {
		t.Fatalf("served: %q\ndescribed: %q", routes, described)
	}

	var scenarios []scenario
	add := func(want int, method, path, query string, src func(*fakeSource), with ...func(*http.Request)) {
		scenarios = append(scenarios, scenario{path: path, method: method, query: query, want: want, src: src, with: with})
	}
	for _, route := range described {
		method, path, _ := strings.Cut(route, " ")
		if path == healthPath || path == readyPath {
			continue
		}
		add(200, method, path, "", nil)
		guessed := func(h http.Handler) {
			for range freeGuesses {
				h.ServeHTTP(httptest.NewRecorder(), request(method, "/", login("owner", "wrong")))
			}
		}
		scenarios = append(scenarios,
			scenario{path: path, method: method, want: 401, cfg: passwordConfig},
			scenario{path: path, method: method, want: 429, cfg: passwordConfig, before: guessed, with: []func(*http.Request){login("owner", "käse")}},
			scenario{path: path, method: method, want: 503, crowded: true},
		)
		add(403, method, path, "", nil, from("192.0.2.66"))
		if strings.HasPrefix(path, apiPrefix) {
			add(406, method, path, "", nil, header("Accept", "text/html"))
		}
		if strings.Contains(path, "{name}") || path == "/api/v1/events" {
			add(404, method, path, "?meter=cellar", nil)
		}
	}
	const get, post, read, align = http.MethodGet, http.MethodPost, "/api/v1/meters/{name}/read", "/api/v1/meters/{name}/align"
	reads := func(answer string, err error) func(*fakeSource) {
		return func(f *fakeSource) {
			f.read = func(context.Context, string, []byte) ([]byte, error) { return []byte(answer), err }
		}
	}
	aligns := func(samples int, err error) func(*fakeSource) {
		return func(f *fakeSource) {
			f.align = func(_ context.Context, _ string, _ time.Duration, show func(diagnosis.Sample)) (diagnosis.Summary, error) {
				for range samples {
					show(diagnosis.Sample{Code: diagnosis.Silent})
				}
				return diagnosis.Summary{Code: diagnosis.Failed}, err
			}
		}
	}
	const refused = `{"status":"error","error":"why","data":{"retry_after_s":60,"retry_at":"2026-11-21T08:00:00Z"}}`
	busy := &RetryError{After: time.Minute, Err: errors.New("too much")}
	add(404, get, "/assets/{file}", "x", nil)
	add(200, post, read, "", reads(`{"status":"ok","data":{"energy_gj":227.4450},"unsupported":[371],"transaction":"x"}`, nil))
	add(400, post, read, "", reads(refused, ErrRequest))
	add(400, post, read, "", nil, broken)
	add(429, post, read, "", reads(refused, busy))
	add(502, post, read, "", reads(refused, errors.New("silence")))
	add(503, post, read, "", reads(refused, ErrStopping))
	for _, path := range []string{read, align} {
		add(413, post, path, "", nil, sent("application/json", strings.Repeat(" ", maxBody+1)))
		add(415, post, path, "", nil, sent("text/plain", "{}"))
	}
	add(200, post, align, "", aligns(1, errors.New("the line is gone")))
	add(400, post, align, "?length=forever", nil)
	add(429, post, align, "", aligns(0, busy))
	add(502, post, align, "", aligns(0, errors.New("no line")))
	add(503, post, align, "", aligns(0, ErrStopping))
	add(200, get, healthPath, "", nil)
	add(503, get, healthPath, "", func(f *fakeSource) { f.bridge.Stuck = []string{"/dev/ttyUSB0"} })
	add(200, get, readyPath, "", func(f *fakeSource) { f.meters = f.meters[:1] })
	add(503, get, readyPath, "", nil)

	synctest.Test(t, func(t *testing.T) {
		for _, s := range scenarios {
			rw := s.run(t)
			if rw.Code != s.want {
				t.Errorf("%s %s%s: %d, want %d: %s", s.method, s.path, s.query, rw.Code, s.want, rw.Body)
			}
			if later := rw.Header().Get("Retry-After") != ""; later != (s.path != healthPath && s.path != readyPath && (rw.Code == 429 || rw.Code == 503)) {
				t.Errorf("%s %s: %d, Retry-After: %t", s.method, s.path, rw.Code, later)
			}
			d.answer(s.path, s.method, rw)
		}
	})
	d.document("what a read is asked", node{"$ref": "#/components/schemas/ReadRequest"}, []byte(`{"registers":["energy",80,"0x4A"],"transaction":{"id":1}}`))

	for _, place := range d.expected() {
		if !d.seen[place] {
			t.Errorf("described, but never seen: %s", place)
		}
	}
}

// The page about the API names each route.
func TestRoutesPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range (&window{source: newFake(fakeTime)}).routes() {
		if r.media != "" && !bytes.Contains(page, []byte("| `"+r.method+" "+r.path)) {
			t.Errorf("docs/api.md does not name %s %s", r.method, r.path)
		}
	}
	reasons := lateness(newFake(time.Now()), time.Now())
	if example, _ := json.Marshal(reasons); !bytes.Contains(page, example) {
		t.Errorf("docs/api.md does not have %s", example)
	}
}

// The check of the description finds what is wrong.
func TestDescriptionCheck(t *testing.T) {
	d := readDescription(t)
	const meter = `"title":"House","serial":null,"model":null,"software_revision":null,"line":"x","interval_s":1.5,"availability":null,"last_reading":null,"next_reading":null,"diagnosis_code":"ok"`
	for text, problems := range map[string]int{
		`{"name":"house","link_quality":95,` + meter + `}`:                     0,
		`{"name":"house","link_quality":101,` + meter + `}`:                    1,
		`{"name":"house","link_quality":9.5,` + meter + `}`:                    1,
		`{"link_quality":null,` + meter + `}`:                                  1,
		`{"name":1,"link_quality":null,` + meter + `}`:                         1,
		`{"name":"house","more":1,"link_quality":null,` + meter + `}`:          1,
		`{"name":"house","link_quality":null,` + meter + `,"availability":""}`: 1,
		`{"name":"house","link_quality":null,` + meter + `,"last_reading":1}`:  1,
		`{"name":"house","link_quality":null,` + meter + `,"last_reading":""}`: 1,
		`[]`: 1,
	} {
		value, err := decode([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := d.check("", node{"$ref": "#/components/schemas/Summary"}, value); len(got) != problems {
			t.Errorf("%s: %q, want %d problems", text, got, problems)
		}
	}
}
