package supervisor

import (
	"errors"
	"fmt"
	"image/png"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// The app, as a repository has it.
const (
	repository = "../../deploy/homeassistant"
	app        = repository + "/kmp2mqtt"
)

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func readYAML(t *testing.T, name string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(readFile(t, name)), into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func readConfig(t *testing.T) map[string]any {
	t.Helper()
	var config map[string]any
	readYAML(t, app+"/config.yaml", &config)
	return config
}

// schemaElement is the Supervisor's rule for one element of a schema (Supervisor 2026.8,
// RE_SCHEMA_ELEMENT), without str(1,64) and password(1,64): it takes them, and then refuses
// every value, because it compares the text itself with a number.
var schemaElement = regexp.MustCompile(`^(?:bool|email|url|port|str|password` +
	`|device(?:\(subsystem=[a-z]+\))?` +
	`|int(?:\((-?\d+)?,(-?\d+)?\))?` +
	`|float(?:\((-?\d*\.?\d+)?,(-?\d*\.?\d+)?\))?` +
	`|match\((.*)\)` +
	`|list\((.+)\)` +
	`)\??$`)

// TestConfig checks config.yaml by the Supervisor's own rules, and by the traps that those
// rules leave: keys that it drops without a word, and deprecated values.
func TestConfig(t *testing.T) {
	config := readConfig(t)
	text := func(key string) string {
		s, ok := config[key].(string)
		if !ok {
			t.Errorf("%s is %T %v, should be text", key, config[key], config[key])
		}
		return s
	}
	for key, want := range map[string]string{
		"name":          `^.+$`,
		"version":       `^\d+\.\d+\.\d+$`,
		"slug":          `^[-_.A-Za-z0-9]+$`,
		"description":   `^.{20,160}$`,
		"homeassistant": `^2024\.12\.0$`,
		"startup":       `^(initialize|system|services|application|once)$`,
		"boot":          `^(auto|manual|manual_only)$`,
		"backup":        `^(hot|cold)$`,
		"watchdog":      `^(?:https?|\[PROTO:\w+\]|tcp)://\[HOST\]:(\[PORT:\d+\]|\d+).*$`,
		"panel_icon":    `^mdi:[a-z-]+$`,
		"panel_title":   `^.{1,20}$`,
	} {
		if got := text(key); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s: %q does not match %s", key, got, want)
		}
	}
	known := []string{
		"name", "version", "slug", "description", "arch", "url", "startup", "boot", "init", "stage", "image", "homeassistant", "services",
		"uart", "udev", "devices", "usb", "ports", "ports_description", "ingress", "ingress_port", "ingress_entry", "ingress_stream",
		"panel_icon", "panel_title", "panel_admin", "watchdog", "backup", "backup_exclude", "map", "hassio_api", "homeassistant_api",
		"timeout", "breaking_versions", "options", "schema",
	}
	for key := range config {
		if !slices.Contains(known, key) {
			t.Errorf("%s is no key that the Supervisor knows, or one that is not needed here", key)
		}
	}
	for key, want := range map[string]any{
		"arch": []any{"aarch64", "amd64"}, "services": []any{"mqtt:want"}, "init": false, "uart": true,
		"ingress": true, "ingress_port": 8099, "ingress_stream": true, "homeassistant_api": true, "ports": map[string]any{"8099/tcp": nil},
	} {
		if !reflect.DeepEqual(config[key], want) {
			t.Errorf("%s is %v, should be %v", key, config[key], want)
		}
	}
	// What lowers the rating, or gives away more than the app needs.
	for _, key := range []string{"hassio_api", "map", "usb", "devices", "image"} {
		if v, ok := config[key]; ok {
			t.Errorf("%s: %v", key, v)
		}
	}
	if want := "http://[HOST]:[PORT:8099]/healthz"; text("watchdog") != want || !strings.HasSuffix(listen, ":8099") {
		t.Errorf("watchdog %s, the page listens on %s", text("watchdog"), listen)
	}
	if m := regexp.MustCompile(`(?m)^var version, commit = "([^"]+)"`).FindStringSubmatch(readFile(t, "../../main.go")); m == nil || text("version") != m[1] {
		t.Errorf("version %s is not main.go's %v", text("version"), m)
	}
	if want := "\n## " + text("version") + "\n"; !strings.Contains(readFile(t, app+"/CHANGELOG.md"), want) {
		t.Errorf("CHANGELOG.md has no section %q", want)
	}
}

// TestSchema: what the Supervisor demands of options and schema, and that schema and program
// have the same options.
func TestSchema(t *testing.T) {
	config := readConfig(t)
	schema, defaults := config["schema"].(map[string]any), config["options"].(map[string]any)
	for key, typ := range schema {
		checkSchema(t, key, typ, 0)
		initial, there := defaults[key]
		switch typ := typ.(type) {
		case []any:
			if list, ok := initial.([]any); !ok || len(list) != 0 {
				t.Errorf("%s: a list needs the default [], or the app cannot start; it has %v", key, initial)
			}
		case string:
			if optional := strings.HasSuffix(typ, "?"); optional == there {
				t.Errorf("%s: %s with the default %v: what is optional must have none, what is not must have one", key, typ, initial)
			}
			if there {
				if err := validate(typ, initial); err != nil {
					t.Errorf("%s: default: %v", key, err)
				}
			}
		}
	}
	for key := range defaults {
		if _, ok := schema[key]; !ok {
			t.Errorf("%s has a default and no schema", key)
		}
	}
	same(t, "the options", schema, tags(reflect.TypeFor[chosen]()))
	same(t, "the fields of a meter", schema["meters"].([]any)[0].(map[string]any), tags(reflect.TypeFor[meter]()))
	same(t, "the fields of a setting", schema["settings"].([]any)[0].(map[string]any), tags(reflect.TypeFor[setting]()))
	if got, want := schema["settings"].([]any)[0].(map[string]any)["name"], "list("+strings.Join(Names(), "|")+")"; got != want {
		t.Errorf("settings: %v, should be %s", got, want)
	}
}

// checkSchema checks one element of the schema and those in it.
func checkSchema(t *testing.T, key string, typ any, depth int) {
	t.Helper()
	if depth > 2 {
		t.Errorf("%s: is nested deeper than two", key)
	}
	switch typ := typ.(type) {
	case string:
		m := schemaElement.FindStringSubmatch(typ)
		if m == nil {
			t.Fatalf("%s: the Supervisor knows no type %q", key, typ)
		}
		if _, err := regexp.Compile(m[5]); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	case []any:
		if len(typ) != 1 {
			t.Errorf("%s: a list has one type, not %d", key, len(typ))
		}
		if _, list := typ[0].([]any); list {
			t.Errorf("%s: a list may not hold a list", key)
		}
		checkSchema(t, key, typ[0], depth+1)
	case map[string]any:
		for name, inner := range typ {
			checkSchema(t, key+"."+name, inner, depth)
		}
	default:
		t.Errorf("%s: %T is no type", key, typ)
	}
}

// validate judges a value as the Supervisor does when the owner saves the options.
func validate(typ string, value any) error {
	m := schemaElement.FindStringSubmatch(typ)
	switch kind := strings.TrimSuffix(typ, "?"); {
	case m == nil:
		return fmt.Errorf("unknown type %s", typ)
	case m[6] != "":
		if !slices.Contains(strings.Split(m[6], "|"), fmt.Sprint(value)) {
			return fmt.Errorf("%v is not in %s", value, typ)
		}
	case m[5] != "":
		if loc := regexp.MustCompile(m[5]).FindStringIndex(fmt.Sprint(value)); loc == nil || loc[0] != 0 {
			return fmt.Errorf("%v does not match %s", value, m[5])
		}
	case strings.HasPrefix(kind, "int"):
		n, ok := value.(int)
		if low, err := strconv.Atoi(m[1]); ok && err == nil && n < low {
			ok = false
		}
		if high, err := strconv.Atoi(m[2]); ok && err == nil && n > high {
			ok = false
		}
		if !ok {
			return fmt.Errorf("%v is no %s", value, typ)
		}
	case kind == "str", kind == "password":
		if _, ok := value.(string); !ok {
			return fmt.Errorf("%v is no text", value)
		}
	}
	return nil
}

// TestWhatTheSchemaTakes: what the Supervisor takes, the program takes; what the program
// says is wrong with a name or an interval is refused when the owner saves it.
func TestWhatTheSchemaTakes(t *testing.T) {
	fields := readConfig(t)["schema"].(map[string]any)["meters"].([]any)[0].(map[string]any)
	for value, want := range map[string]bool{"house": true, "a-b_C9": true, "": false, "a b": false, "a=b": false, "ä": false, strings.Repeat("x", 65): false} {
		err := validate(fields["name"].(string), value)
		_, wrong := meter{Name: value, URL: "sim://403"}.word(0)
		if (err == nil) != want || len(value) < 65 && (len(wrong) == 0) != want {
			t.Errorf("name %q: schema %v, program %v", value, err, wrong)
		}
	}
	for value, want := range map[int]bool{1: true, 10080: true, -1: false, 10081: false} {
		if err := validate(fields["interval"].(string), value); (err == nil) != want {
			t.Errorf("interval %d: %v", value, err)
		}
	}
}

// tags are the names of a struct's fields in JSON.
func tags(typ reflect.Type) map[string]bool {
	names := make(map[string]bool)
	for f := range typ.Fields() {
		names[f.Tag.Get("json")] = true
	}
	return names
}

func same[V, W any](t *testing.T, what string, got map[string]V, want map[string]W) {
	t.Helper()
	if a, b := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)); !slices.Equal(a, b) {
		t.Errorf("%s are %v, should be %v", what, a, b)
	}
}

// translation is one entry of a translation.
type translation struct {
	Name        string                 `yaml:"name"`
	Description string                 `yaml:"description"`
	Fields      map[string]translation `yaml:"fields"`
}

// TestTranslations: every option, every field and every port has words in each language.
func TestTranslations(t *testing.T) {
	config := readConfig(t)
	files, err := filepath.Glob(app + "/translations/*")
	if err != nil || len(files) == 0 || !slices.Contains(files, app+"/translations/en.yaml") {
		t.Fatalf("translations: %v, %v", files, err)
	}
	for _, file := range files {
		if !regexp.MustCompile(`/[a-z]{2}\.yaml$`).MatchString(filepath.ToSlash(file)) {
			t.Errorf("%s is no translation", file)
		}
		var words struct {
			Configuration map[string]translation `yaml:"configuration"`
			Network       map[string]string      `yaml:"network"`
		}
		d := yaml.NewDecoder(strings.NewReader(readFile(t, file)))
		d.KnownFields(true) // the Supervisor drops others without a word
		if err := d.Decode(&words); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		same(t, file+": network", words.Network, config["ports"].(map[string]any))
		checkWords(t, file, words.Configuration, config["schema"].(map[string]any))
	}
}

func checkWords(t *testing.T, where string, words map[string]translation, schema map[string]any) {
	t.Helper()
	same(t, where, words, schema)
	for key, typ := range schema {
		w := words[key]
		if w.Name == "" || w.Description == "" || strings.HasSuffix(w.Name, ".") || !strings.HasSuffix(w.Description, ".") {
			t.Errorf("%s: %s: name %q, description %q", where, key, w.Name, w.Description)
		}
		list, _ := typ.([]any)
		if len(list) == 0 {
			continue
		}
		if fields, ok := list[0].(map[string]any); ok {
			checkWords(t, where+": "+key, w.Fields, fields)
		}
	}
}

// TestPictures: the sizes that the store shows.
func TestPictures(t *testing.T) {
	for name, size := range map[string][2]int{"icon.png": {128, 128}, "logo.png": {250, 100}} {
		f, err := os.Open(filepath.Join(app, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		picture, err := png.Decode(f)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if b := picture.Bounds(); b.Dx() != size[0] || b.Dy() != size[1] {
			t.Errorf("%s is %d x %d, should be %v", name, b.Dx(), b.Dy(), size)
		}
		if _, _, _, alpha := picture.At(0, 0).RGBA(); alpha != 0 {
			t.Errorf("%s: its corner is not clear, so it is a box on dark pages", name)
		}
	}
}

// TestFiles: what else a repository and an app consist of, and what must not be there.
func TestFiles(t *testing.T) {
	var repo map[string]string
	readYAML(t, repository+"/repository.yaml", &repo)
	if repo["name"] == "" {
		t.Error("repository.yaml has no name")
	}
	for key, value := range repo {
		if u, err := url.Parse(value); key == "url" && (err != nil || u.Host == "") || !slices.Contains([]string{"name", "url", "maintainer"}, key) {
			t.Errorf("repository.yaml: %s: %s", key, value)
		}
	}
	var configs []string
	err := filepath.WalkDir(repository, func(path string, d fs.DirEntry, err error) error {
		name := d.Name()
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(name, "config.") && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name)):
			configs = append(configs, filepath.ToSlash(path)) // the Supervisor searches all folders
		case strings.HasPrefix(name, "build."):
			t.Errorf("%s is deprecated", path)
		}
		return nil
	})
	if err != nil || !slices.Equal(configs, []string{app + "/config.yaml"}) {
		t.Errorf("configurations %v, %v", configs, err)
	}

	for _, name := range []string{"README.md", "DOCS.md", "CHANGELOG.md"} {
		if len(readFile(t, filepath.Join(app, name))) < 50 {
			t.Errorf("%s says nothing", name)
		}
	}
	config := readConfig(t)["schema"].(map[string]any)
	docs := readFile(t, app+"/DOCS.md")
	for _, key := range slices.Concat(slices.Collect(maps.Keys(config["meters"].([]any)[0].(map[string]any))), Names(), []string{"mqtt_url", "mqtt_username", "mqtt_password", "page_username", "page_password", "settings"}) {
		if !strings.Contains(docs, "`"+key+"`") {
			t.Errorf("DOCS.md does not explain %s", key)
		}
	}

	// The Supervisor puts another name in place of the only one that a line begins with.
	if profiles := regexp.MustCompile(`(?m)^profile ([^ ]+).*$`).FindAllStringSubmatch(readFile(t, app+"/apparmor.txt"), -1); len(profiles) != 1 || profiles[0][1] != "kmp2mqtt" {
		t.Errorf("apparmor.txt has the profiles %v", profiles)
	}
	dockerfile := readFile(t, app+"/Dockerfile")
	for _, want := range []string{`io.hass.version="${BUILD_VERSION}"`, `io.hass.type="app"`, `io.hass.arch="amd64"`, `io.hass.arch="aarch64"`, `CMD ["app"]`} {
		if !strings.Contains(dockerfile, want) {
			t.Errorf("Dockerfile: no %s", want)
		}
	}
	if strings.Contains(dockerfile, "BUILD_FROM") { // there is no default any more
		t.Error("Dockerfile: BUILD_FROM")
	}
}

// TestFreshInstallation: the defaults lead to the page that says what to do.
func TestFreshInstallation(t *testing.T) {
	_, err := Environ(t.Context(), Options{OptionsFile: file(t, `{"meters": [], "log_level": "info", "settings": []}`)})
	if !errors.Is(err, ErrNoMeters) {
		t.Errorf("got %v", err)
	}
	defaults := readConfig(t)["options"]
	if want := map[string]any{"meters": []any{}, "log_level": "info", "settings": []any{}}; !reflect.DeepEqual(defaults, want) {
		t.Errorf("the defaults are %v, should be %v", defaults, want)
	}
}
