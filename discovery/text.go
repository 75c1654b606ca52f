package discovery

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// line makes one printable line of s: bytes that are not UTF-8 become U+FFFD,
// runs of white space and control characters one space.
func line(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}), " ")
}

// title makes a name for people of one for machines: "guest_house" becomes "Guest house".
func title(name string) string {
	name = strings.TrimSpace(strings.NewReplacer("_", " ", "-", " ").Replace(name))
	first, n := utf8.DecodeRuneInString(name)
	if n == 0 {
		return name
	}
	return string(unicode.ToUpper(first)) + name[n:]
}

// idCharacters tells whether s can be an id in a discovery topic: Home Assistant
// ignores topics whose ids hold other characters than these.
func idCharacters(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return s != ""
}

// attribute tells whether s can stand behind the dot in a template.
func attribute(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c == '_' || i > 0 && c >= '0' && c <= '9') {
			return false
		}
	}
	return s != ""
}

// objectID tells whether s can stand behind the dot of an entity id. Home Assistant takes no
// other, and would make one of it.
func objectID(s string) bool {
	for word := range strings.SplitSeq(s, "_") {
		if word == "" || !attribute("_"+word) {
			return false
		}
	}
	return true
}

// topic tells whether messages can be published on s: MQTT forbids wildcards and
// NUL, Home Assistant every control character.
func topic(s string) bool {
	if s == "" || len(s) > 65535 || !utf8.ValidString(s) || strings.ContainsAny(s, "+#") {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || r >= 0xFDD0 && r <= 0xFDEF || r&0xFFFE == 0xFFFE
	}) < 0
}
