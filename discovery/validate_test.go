package discovery_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// classes is testdata/home-assistant-classes.json: what Home Assistant core 2026.4
// takes together.
type classes struct {
	BinarySensor  []string            `json:"binary_sensor_classes"`
	NumberUnits   map[string][]string `json:"number_units"`
	SensorStates  map[string][]string `json:"sensor_state_classes"`
	SensorUnits   map[string][]string `json:"sensor_units"`
	SourceVersion string              `json:"source"`
}

func readClasses(t testing.TB) classes {
	t.Helper()
	b, err := os.ReadFile("testdata/home-assistant-classes.json")
	if err != nil {
		t.Fatal(err)
	}
	var c classes
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	if len(c.SensorUnits) == 0 || len(c.SensorStates) == 0 || len(c.NumberUnits) == 0 || len(c.BinarySensor) == 0 {
		t.Fatal("testdata/home-assistant-classes.json lacks a table")
	}
	return c
}

// The keys that Home Assistant takes. At the root and in device another one costs the
// whole device, in a component it would be dropped without a word.
var (
	rootKeys   = []string{"device", "origin", "components", "availability", "availability_mode", "availability_topic", "availability_template", "payload_available", "payload_not_available", "state_topic", "command_topic", "qos", "encoding"}
	deviceKeys = []string{"identifiers", "connections", "name", "manufacturer", "model", "model_id", "serial_number", "sw_version", "hw_version", "configuration_url", "via_device", "suggested_area"}
	originKeys = []string{"name", "sw_version", "support_url"}

	entityKeys   = []string{"platform", "unique_id", "name", "entity_category", "enabled_by_default", "availability", "availability_mode", "qos", "device_class", "json_attributes_topic", "json_attributes_template", "default_entity_id", "object_id"}
	platformKeys = map[string][]string{
		"sensor":        {"state_topic", "value_template", "unit_of_measurement", "state_class", "suggested_display_precision", "options"},
		"binary_sensor": {"state_topic", "value_template", "payload_on", "payload_off"},
		"button":        {"command_topic", "command_template", "payload_press"},
		"number":        {"state_topic", "value_template", "command_topic", "command_template", "unit_of_measurement", "min", "max", "step", "mode"},
		"select":        {"state_topic", "value_template", "command_topic", "command_template", "options"},
	}

	// An entity id is taken as it is, so it must be one.
	objectPattern   = regexp.MustCompile(`^[a-z0-9]+(_[a-z0-9]+)*$`)
	idPattern       = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)
	templatePattern = regexp.MustCompile(`^\{\{ value_json\.([a-z_][a-z0-9_]*) \}\}$`)
	// The template of a binary sensor: unknown, or one of two payloads. Without the else
	// it would render True or nothing at all, which Home Assistant takes for neither.
	binaryPattern = regexp.MustCompile(`^\{\{ none if .+ is none else '([^']+)' if .+ else '([^']+)' \}\}$`)
	// The template of attributes: an object of keys of the message.
	attributesPattern = regexp.MustCompile(`^\{\{ \{('[a-z_]+': value_json[a-z_.()']+(?:, )?)+\} \| tojson \}\}$`)
	attributePattern  = regexp.MustCompile(`'([a-z_]+)': value_json(?:\.get\('([a-z_]+)'\)|\.([a-z_]+))`)
	// Attributes that Home Assistant takes from nobody (components/mqtt/entity.py).
	blockedAttributes = []string{"assumed_state", "available", "device_class", "device_info", "entity_category", "entity_id", "entity_picture", "entity_registry_enabled_default", "extra_state_attributes", "force_update", "icon", "friendly_name", "should_poll", "state", "supported_features", "unique_id", "unit_of_measurement"}
	// In a template the methods of a Python dict hide keys of the same name.
	dictMethods = []string{"clear", "copy", "fromkeys", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values"}
)

// object is decoded JSON.
type object = map[string]any

// validate returns what Home Assistant would not take of a discovery message.
func (c classes) validate(payload []byte) []string {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if !utf8.Valid(payload) {
		fault("not UTF-8")
	}
	var m object
	if err := json.Unmarshal(payload, &m); err != nil {
		return append(faults, err.Error())
	}
	onlyKeys := func(where string, o object, allowed ...string) {
		for k := range o {
			if !slices.Contains(allowed, k) {
				fault("%s: unknown key %q", where, k)
			}
		}
	}
	onlyKeys("root", m, rootKeys...)
	dev, _ := m["device"].(object)
	onlyKeys("device", dev, deviceKeys...)
	if ids, _ := dev["identifiers"].([]any); len(ids) != 1 || !idPattern.MatchString(fmt.Sprint(ids[0])) {
		fault("device: identifiers %v", dev["identifiers"])
	}
	name, _ := dev["name"].(string)
	if strings.TrimSpace(name) == "" || strings.ContainsAny(name, "\n\r\t\x00") {
		fault("device: name %q", dev["name"])
	}
	org, _ := m["origin"].(object)
	onlyKeys("origin", org, originKeys...)
	if org["name"] != "kmp2mqtt" {
		fault("origin: name %v", org["name"])
	}
	if len(availabilityTopics(m)) > 1 && m["availability_mode"] != "all" {
		fault("availability_mode %v", m["availability_mode"])
	}
	comps, _ := m["components"].(object)
	if len(comps) == 0 {
		fault("no components")
	}
	unique, names, entities := map[string]bool{}, map[string]bool{}, map[any]bool{}
	for id, v := range comps {
		e, _ := v.(object)
		if len(e) == 1 && platformKeys[fmt.Sprint(e["platform"])] != nil && idPattern.MatchString(id) {
			continue // it is taken away
		}
		for _, f := range c.entity(id, e, m) {
			fault("%s: %s", id, f)
		}
		uid, label := fmt.Sprint(e["unique_id"]), fmt.Sprint(e["name"])
		if unique[uid] {
			fault("%s: unique_id %s given twice", id, uid)
		}
		if names[label] {
			fault("%s: name %q given twice", id, label)
		}
		if entity := e["default_entity_id"]; entity != nil && entities[entity] {
			fault("%s: default_entity_id %v given twice", id, entity)
		}
		unique[uid], names[label], entities[e["default_entity_id"]] = true, true, true
	}
	return faults
}

// entity returns what is wrong with one component of a message.
func (c classes) entity(id string, e, root object) []string {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	str := func(key string) string { s, _ := e[key].(string); return s }
	has := func(key string) bool { _, ok := e[key]; return ok }

	platform := str("platform")
	own, ok := platformKeys[platform]
	if !ok {
		fault("platform %q", platform)
	}
	for k, v := range e {
		if !slices.Contains(entityKeys, k) && !slices.Contains(own, k) {
			fault("%s has no key %q", platform, k)
		}
		if v == nil || v == "" {
			fault("%s is empty", k)
		}
	}
	if !idPattern.MatchString(id) || !idPattern.MatchString(str("unique_id")) {
		fault("id or unique_id %q with other characters than letters, digits, _ and -", str("unique_id"))
	}
	// The older key says the same as the newer one.
	if object := str("object_id"); has("object_id") != has("default_entity_id") || has("object_id") &&
		(str("default_entity_id") != platform+"."+object || !objectPattern.MatchString(object)) {
		fault("default_entity_id %q, object_id %q", str("default_entity_id"), object)
	}
	name := str("name")
	if name == "" || name != strings.TrimSpace(name) || strings.ContainsAny(name, "\n\r\t\x00") {
		fault("name %q", name)
	}
	if e["qos"] != 1.0 {
		fault("qos %v", e["qos"])
	}
	if len(availabilityTopics(e)) == 0 && len(availabilityTopics(root)) == 0 && str("device_class") != "connectivity" {
		fault("no availability")
	}
	for _, topic := range append(availabilityTopics(e), str("command_topic"), str("state_topic"), str("json_attributes_topic")) {
		if strings.ContainsAny(topic, "+#\x00\n") {
			fault("topic %q", topic)
		}
	}
	switch category := str("entity_category"); category {
	case "", "diagnostic":
	case "config":
		if platform == "sensor" || platform == "binary_sensor" {
			fault("a %s of category config is not added", platform)
		}
	default:
		fault("entity_category %q", category)
	}
	switch platform {
	case "button", "number", "select":
		if !has("command_topic") {
			fault("no command_topic")
		}
	default:
		if !has("state_topic") && root["state_topic"] == nil {
			fault("no state_topic")
		}
	}
	faults = append(faults, optionFaults(e)...)
	faults = append(faults, attributeFaults(e)...)

	class, unit, state := str("device_class"), str("unit_of_measurement"), str("state_class")
	units := c.SensorUnits
	switch platform {
	case "binary_sensor":
		if class != "" && !slices.Contains(c.BinarySensor, class) {
			fault("device_class %q", class)
		}
		return append(faults, binaryFaults(e)...)
	case "button", "select":
		if class != "" {
			fault("device_class %q", class)
		}
		return faults
	case "number":
		units = c.NumberUnits
		low, high, step := e["min"].(float64), e["max"].(float64), e["step"].(float64)
		if low >= high || step < 0.001 {
			fault("range %v to %v by %v", low, high, step)
		}
	case "sensor":
		if class != "" && c.SensorStates[class] == nil {
			fault("device_class %q", class)
		}
		if class == "" && state != "" && !slices.Contains([]string{"measurement", "total", "total_increasing"}, state) {
			fault("state_class %q", state)
		}
		if class != "" && state != "" && !slices.Contains(c.SensorStates[class], state) {
			fault("state_class %q with device_class %q", state, class)
		}
	}
	if class != "" && unit != "" && !slices.Contains(units[class], unit) {
		fault("unit %q with device_class %q", unit, class)
	}
	if class != "" && unit == "" && units[class] != nil && !slices.Contains(units[class], "") {
		fault("device_class %q without unit", class)
	}
	if p, ok := e["suggested_display_precision"].(float64); ok && (p != float64(int(p)) || p < 0 || p > 9) {
		fault("suggested_display_precision %v", p)
	}
	if platform == "sensor" {
		match := templatePattern.FindStringSubmatch(str("value_template"))
		if match == nil || slices.Contains(dictMethods, match[1]) {
			fault("value_template %q", str("value_template"))
		}
	}
	return faults
}

// optionFaults returns what is wrong with the options of a select or an enum sensor. Home
// Assistant drops a sensor that has options and a unit, a state class or another class.
func optionFaults(e object) []string {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	list, given := e["options"].([]any)
	enum := e["platform"] == "sensor" && e["device_class"] == "enum"
	if needed := enum || e["platform"] == "select"; needed != given {
		fault("options given: %v, needed: %v", given, needed)
	}
	if given && len(list) == 0 {
		fault("options are empty")
	}
	seen := map[string]bool{}
	for _, o := range list {
		option, ok := o.(string)
		if !ok || option == "" || len(option) > 255 || seen[option] {
			fault("option %v", o)
		}
		seen[option] = true
	}
	for _, key := range []string{"unit_of_measurement", "state_class", "suggested_display_precision"} {
		if _, ok := e[key]; ok && enum {
			fault("an enum with %s", key)
		}
	}
	return faults
}

// attributeFaults returns what is wrong with the topic and the template of attributes.
func attributeFaults(e object) []string {
	template, ok := e["json_attributes_template"].(string)
	if _, topic := e["json_attributes_topic"]; topic != ok {
		return []string{"one of json_attributes_topic and json_attributes_template is missing"}
	}
	if !ok {
		return nil
	}
	if !attributesPattern.MatchString(template) {
		return []string{fmt.Sprintf("json_attributes_template %q", template)}
	}
	var faults []string
	for _, match := range attributePattern.FindAllStringSubmatch(template, -1) {
		if slices.Contains(blockedAttributes, match[1]) || slices.Contains(dictMethods, match[3]) {
			faults = append(faults, fmt.Sprintf("attribute %q", match[0]))
		}
	}
	return faults
}

// binaryFaults returns what is wrong with how a binary sensor gets its two states.
func binaryFaults(e object) []string {
	on, off := fmt.Sprint(e["payload_on"]), fmt.Sprint(e["payload_off"])
	if e["payload_on"] == nil || e["payload_off"] == nil || on == off {
		return []string{fmt.Sprintf("payloads %q and %q", on, off)}
	}
	template, ok := e["value_template"].(string)
	if !ok {
		return nil
	}
	match := binaryPattern.FindStringSubmatch(template)
	if match == nil || !slices.Contains(match[1:], on) || !slices.Contains(match[1:], off) {
		return []string{fmt.Sprintf("value_template %q with payloads %q and %q", template, on, off)}
	}
	return nil
}

// availabilityTopics returns the topics of an object's availability list.
func availabilityTopics(o object) []string {
	var topics []string
	list, _ := o["availability"].([]any)
	for _, a := range list {
		topics = append(topics, fmt.Sprint(a.(object)["topic"]))
	}
	return topics
}
