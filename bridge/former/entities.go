package former

import (
	"slices"
	"strings"
)

// The readers whose entities in Home Assistant can be kept: values of the meter option entities.
const (
	WobwobRt = "wobwobrt"
	Golles   = "golles"
)

// WobwobRtParameters are the names that WobwobRt's kamstrup2mqtt knows: those of
// kamstrup-402-mqtt and one more.
func WobwobRtParameters() []Parameter {
	return append(Parameters(), Parameter{"e1highres", 266})
}

// UniqueID is the unique id under which another reader has announced a register to Home
// Assistant by MQTT. False when it did not, and for golles' integration, whose ids Home Assistant
// keeps for it alone.
func UniqueID(reader string, register uint16) (string, bool) {
	list := WobwobRtParameters()
	i := slices.IndexFunc(list, func(p Parameter) bool { return p.Register == register })
	if reader != WobwobRt || i < 0 {
		return "", false
	}
	return wobwobrtPrefix + list[i].Name, true
}

// EntityID is the entity id that golles' integration gave to a register, without "sensor."
// before it. False when it had none, and for other readers, whose entities are found by their
// unique ids.
func EntityID(reader string, register uint16) (string, bool) {
	list := GollesEntities()
	i := slices.IndexFunc(list, func(p Parameter) bool { return p.Register == register })
	if reader != Golles || i < 0 {
		return "", false
	}
	return slug("Kamstrup 403 " + list[i].Name), true
}

// wobwobrtPrefix begins the unique ids of WobwobRt's reader.
const wobwobrtPrefix = "kamstrup_"

// slug makes an entity id of a name as Home Assistant does for these names: small letters and
// digits, everything between them one underscore.
func slug(name string) string {
	words := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
	return strings.Join(words, "_")
}
