package former

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxInput is the largest file that is read, in bytes.
const maxInput = 1 << 20

// File is a file with another reader's settings.
type File struct {
	Name    string // for messages
	Content io.Reader
}

// InputError is something in another reader's settings that cannot be understood.
type InputError struct {
	File string // empty: the environment
	Line int    // 0: the whole file
	Err  error
}

// Error begins with the place.
func (e *InputError) Error() string {
	place := "the environment"
	if e.File != "" {
		place = e.File
	}
	if e.Line > 0 {
		place = fmt.Sprintf("%s: line %d", place, e.Line)
	}
	return "former: " + place + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *InputError) Unwrap() error { return e.Err }

// oldKey is one setting of another reader.
type oldKey struct {
	key      string // "mqtt.host"
	variable string // in the environment, "MQTT_HOST"; empty: it has none
	now      string // what becomes of it, for the documents; ~ stands for `
}

// value is what a setting was set to.
type value struct {
	list  []string
	wrong string // what it is, if it is neither a scalar nor a list of scalars
	file  string
	line  int
}

// input is another reader's settings as they were found.
type input struct {
	keys     []oldKey
	values   map[string]value // by key
	strange  []string         // names that are no setting
	indirect []string         // variables whose value stands elsewhere
	entries  []entry          // of Home Assistant's storage
	errs     []error
}

func newInput(reader string) *input {
	return &input{keys: keysOf(reader), values: map[string]value{}}
}

// keysOf are the settings of a reader.
func keysOf(reader string) []oldKey {
	switch reader {
	case KamstrupMQTT:
		return kamstrupMQTTKeys()
	case WobwobRt:
		return wobwobrtKeys()
	}
	return gollesKeys()
}

func (in *input) errorAt(file string, line int, format string, args ...any) {
	const most = 20
	err := &InputError{file, line, fmt.Errorf(format, args...)}
	told := slices.ContainsFunc(in.errs, func(e error) bool { return e.Error() == err.Error() })
	if !told && len(in.errs) < most {
		in.errs = append(in.errs, err)
	}
}

// fail says what is wrong with a setting.
func (in *input) fail(key, format string, args ...any) {
	v := in.values[key]
	in.errorAt(v.file, v.line, key+": "+format, args...)
}

// list is what a setting was set to, without empty entries.
func (in *input) list(key string) (list []string) {
	v := in.values[key]
	if v.wrong != "" {
		in.fail(key, "is %s; write a value", v.wrong)
	}
	for _, s := range v.list {
		for part := range strings.SplitSeq(s, ",") {
			if part = strings.TrimSpace(part); part != "" {
				list = append(list, part)
			}
		}
	}
	return list
}

// text is the one value of a setting; empty: it is not set.
func (in *input) text(key string) string {
	s := strings.TrimSpace(in.raw(key))
	if strings.ContainsFunc(s, unicode.IsControl) {
		in.fail(key, "holds a control character")
		return ""
	}
	return s
}

// raw is text with the white space around it.
func (in *input) raw(key string) string {
	v := in.values[key]
	switch {
	case v.wrong != "":
		in.fail(key, "is %s; write a value", v.wrong)
	case len(v.list) > 1:
		in.fail(key, "is a list; write one value")
	case len(v.list) == 1:
		return v.list[0]
	}
	return ""
}

// truth reads a boolean in any of YAML's spellings; false if it is not set.
func (in *input) truth(key string) bool {
	switch s := strings.ToLower(in.text(key)); s {
	case "true", "yes", "on", "y", "1":
		return true
	case "", "false", "no", "off", "n", "0", "none":
		return false
	default:
		in.fail(key, "%q is neither true nor false", clip(s))
		return false
	}
}

// setKey sets a key that a file names.
func (in *input) setKey(key string, v value) {
	if in.known(key) {
		in.values[key] = v
	}
}

// known reports whether the reader has a setting, and remembers those that it has not.
func (in *input) known(key string) bool {
	known := slices.ContainsFunc(in.keys, func(k oldKey) bool { return k.key == key })
	if !known {
		in.strange = append(in.strange, key)
	}
	return known
}

// setVariable sets a variable, or with a reader that has none, the key of that name.
func (in *input) setVariable(name string, v value) {
	for _, k := range in.keys {
		if k.variable == name || k.variable == "" && k.key == name {
			in.values[k.key] = v
			return
		}
	}
	in.strange = append(in.strange, name)
}

// environ takes what is set in a program's environment.
func (in *input) environ(environ []string) {
	for _, e := range environ {
		name, text, _ := strings.Cut(e, "=")
		for _, k := range in.keys {
			if k.variable != "" && k.variable == name {
				in.values[k.key] = value{list: []string{text}}
			}
		}
	}
}

// read takes a file, whatever form it has.
func (in *input) read(f File) {
	text, err := io.ReadAll(io.LimitReader(f.Content, maxInput+1))
	switch {
	case err != nil:
		in.errs = append(in.errs, fmt.Errorf("former: read %s: %w", f.Name, err))
		return
	case len(text) > maxInput:
		in.errorAt(f.Name, 0, "is larger than %d bytes", maxInput)
		return
	case !utf8.Valid(text):
		in.errorAt(f.Name, 0, "is not UTF-8 text")
		return
	}
	text = bytes.TrimPrefix(text, []byte("\uFEFF"))
	if in.lines(f.Name, string(text)) {
		return
	}
	root := in.parse(f.Name, text)
	if root == nil {
		return
	}
	switch {
	case root.Kind == yaml.SequenceNode:
		in.variables(f.Name, root)
	case root.Kind != yaml.MappingNode:
		in.errorAt(f.Name, root.Line, "is neither a table of settings nor lines of NAME=value")
	case child(root, "services") != nil:
		in.compose(f.Name, child(root, "services"))
	case child(root, "environment") != nil:
		in.variables(f.Name, child(root, "environment"))
	case child(child(root, "data"), "entries") != nil:
		in.storage(f.Name, child(child(root, "data"), "entries"))
	case len(root.Content) > 0 && assignment.MatchString(root.Content[0].Value+"=") && strings.ToUpper(root.Content[0].Value) == root.Content[0].Value:
		in.variables(f.Name, root)
	default:
		in.sections(f.Name, root)
	}
}

// assignment is a line of an environment file.
var assignment = regexp.MustCompile(`^(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)$`)

// lines takes lines of NAME=value; false if the text is something else.
func (in *input) lines(file, text string) bool {
	type line struct {
		number      int
		name, value string
	}
	var found []line
	number := 0
	for l := range strings.SplitSeq(text, "\n") {
		number++
		l = strings.TrimSpace(l)
		if l == "" || l[0] == '#' {
			continue
		}
		m := assignment.FindStringSubmatch(l)
		if m == nil {
			return false
		}
		found = append(found, line{number, m[1], unquoted(m[2])})
	}
	for _, l := range found {
		in.setVariable(l.name, value{list: []string{l.value}, file: file, line: l.number})
	}
	return len(found) > 0
}

// unquoted is a value without its quotes, or without the comment behind it.
func unquoted(s string) string {
	s = strings.TrimSpace(s)
	if len(s) < 2 || s[0] != '"' && s[0] != '\'' {
		if i := strings.Index(s, " #"); i >= 0 {
			s = strings.TrimSpace(s[:i])
		}
		return s
	}
	if end := strings.LastIndexByte(s, s[0]); end > 0 {
		inner := s[1:end]
		if s[0] == '"' {
			inner = strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\$`, `$`).Replace(inner)
		}
		return inner
	}
	return s
}

// parse reads one YAML document, or JSON, without following anything in it; nil if it
// cannot be read.
func (in *input) parse(file string, text []byte) *yaml.Node {
	if json.Valid(text) { // YAML lacks some of its escapes
		return readJSON(text)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	err := d.Decode(&doc)
	switch {
	case errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0:
		in.errorAt(file, 0, "is empty")
		return nil
	case err != nil:
		in.errorAt(file, 0, "%w", err)
		return nil
	}
	if err := d.Decode(&second); !errors.Is(err, io.EOF) {
		in.errorAt(file, second.Line, "holds a second document; give one file for each")
		return nil
	}
	return doc.Content[0]
}

// readJSON makes nodes of a valid JSON text.
func readJSON(text []byte) *yaml.Node {
	r := jsonReader{Decoder: json.NewDecoder(bytes.NewReader(text)), text: text, line: 1}
	r.UseNumber()
	return r.node()
}

// jsonReader makes nodes and knows their lines.
type jsonReader struct {
	*json.Decoder
	text     []byte
	line, at int // of what was read last
}

func (r *jsonReader) node() *yaml.Node {
	token, err := r.Token()
	if err != nil {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Line: r.line} // the text is valid
	}
	end := int(r.InputOffset())
	r.line += bytes.Count(r.text[r.at:end], []byte("\n"))
	r.at = end
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Line: r.line}
	switch v := token.(type) {
	case json.Delim:
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		if v == '{' {
			n.Kind, n.Tag = yaml.MappingNode, "!!map"
		}
		for r.More() {
			n.Content = append(n.Content, r.node())
		}
		_, _ = r.Token() // the bracket that closes it
	case string:
		n.Value = v
	case json.Number:
		n.Tag, n.Value = "!!float", v.String()
	case bool:
		n.Tag, n.Value = "!!bool", strconv.FormatBool(v)
	default:
		n.Tag = "!!null"
	}
	return n
}

// child is the value of a key in a mapping; nil if there is none.
func child(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// pairs calls fn with each key and value of a mapping. Keys that are no words, or are there
// twice, and merged mappings are errors.
func (in *input) pairs(file string, n *yaml.Node, fn func(key string, v *yaml.Node)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		switch {
		case k.Kind != yaml.ScalarNode || k.Tag == "!!merge":
			in.errorAt(file, k.Line, "a key that is %s is not understood; write it out", kindOf(k))
		case seen[k.Value] > 0:
			in.errorAt(file, k.Line, "%s is there twice, first in line %d", plain(k.Value), seen[k.Value])
		default:
			seen[k.Value] = k.Line
			fn(k.Value, n.Content[i+1])
		}
	}
}

// kindOf is what a node is, for people.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.AliasNode:
		return "an alias (" + plain("*"+n.Value) + ")"
	case yaml.MappingNode:
		return "a table"
	case yaml.SequenceNode:
		return "a list"
	}
	if n.Tag == "!!merge" {
		return "a merge (<<)"
	}
	return "of the type " + plain(n.Tag)
}

// valueOf is a node as a setting's value. Nothing it refers to is followed.
func valueOf(file string, n *yaml.Node) value {
	v := value{file: file, line: n.Line}
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		items = n.Content
	}
	for _, item := range items {
		switch {
		case item.Kind != yaml.ScalarNode || !slices.Contains([]string{"!!str", "!!int", "!!float", "!!bool", "!!null", "!!timestamp"}, item.Tag):
			v.wrong, v.line = kindOf(item), item.Line
		case item.Tag != "!!null":
			v.list = append(v.list, item.Value)
		}
	}
	return v
}

// sections takes tables of settings, or at the top level settings without a table.
func (in *input) sections(file string, root *yaml.Node) {
	in.pairs(file, root, func(section string, n *yaml.Node) {
		isSection := slices.ContainsFunc(in.keys, func(k oldKey) bool { return strings.HasPrefix(k.key, section+".") })
		switch {
		case !isSection:
			in.setKey(section, valueOf(file, n))
		case n.Kind == yaml.MappingNode:
			in.pairs(file, n, func(key string, v *yaml.Node) { in.setKey(section+"."+key, valueOf(file, v)) })
		case n.Tag != "!!null":
			in.errorAt(file, n.Line, "%s is %s; it should be a table of settings", section, kindOf(n))
		}
	})
}

// variables takes an environment as compose writes it, a list of NAME=value or a table.
func (in *input) variables(file string, n *yaml.Node) {
	take := func(name, text string, line int) {
		known := slices.ContainsFunc(in.keys, func(k oldKey) bool { return k.variable == name })
		if known && (text == "" || strings.Contains(text, "$")) {
			in.indirect = append(in.indirect, name) // its value stands elsewhere
			return
		}
		in.setVariable(name, value{list: []string{text}, file: file, line: line})
	}
	switch n.Kind {
	case yaml.MappingNode:
		in.pairs(file, n, func(name string, item *yaml.Node) {
			switch v := valueOf(file, item); {
			case v.wrong != "" || item.Kind != yaml.ScalarNode:
				in.errorAt(file, item.Line, "%s is %s; write a value", plain(name), kindOf(item))
			case len(v.list) == 0:
				take(name, "", item.Line)
			default:
				take(name, v.list[0], item.Line)
			}
		})
	case yaml.SequenceNode:
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode {
				in.errorAt(file, item.Line, "a variable is %s; write NAME=value", kindOf(item))
				continue
			}
			name, text, _ := strings.Cut(item.Value, "=")
			take(name, text, item.Line)
		}
	default:
		in.errorAt(file, n.Line, "the environment is %s; write a list of NAME=value", kindOf(n))
	}
}

// compose takes the environment of the one service in a compose file that is the reader.
func (in *input) compose(file string, services *yaml.Node) {
	var found []string
	var environment *yaml.Node
	if services.Kind == yaml.MappingNode {
		in.pairs(file, services, func(name string, service *yaml.Node) {
			e := child(service, "environment")
			image := child(service, "image")
			if e != nil && (in.ours(e) || image != nil && strings.Contains(image.Value, "kamstrup")) {
				found, environment = append(found, name), e
			}
		})
	}
	switch len(found) {
	case 0:
		in.errorAt(file, services.Line, "none of the services has the reader's settings in its environment")
	case 1:
		in.variables(file, environment)
	default:
		in.errorAt(file, services.Line, "several services could be it (%s); give the lines under environment: of one alone", enumerate(found))
	}
}

// ours reports whether an environment names the meter's port or what is read of it.
func (in *input) ours(n *yaml.Node) bool {
	return slices.ContainsFunc(n.Content, func(item *yaml.Node) bool {
		return strings.HasPrefix(item.Value, "SERIAL_") || strings.HasPrefix(item.Value, "KAMSTRUP_")
	})
}
