package former

import (
	"slices"
	"strings"

	"kmp2mqtt/kmp/catalog"
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

// GollesReport tells how the entities of golles' integration go on: by their entity ids, since
// Home Assistant keeps statistics by these. registers are those that the bridge reads.
func GollesReport(registers []uint16) Report {
	r := Report{From: Golles, Entities: []Entity{}, Done: true, Steps: []string{
		"Note which of the integration's sensors you use, and with which ids, if you have changed them.",
		"Settings > Devices & services > Kamstrup 403: delete the integration. Its entities go, their statistics stay, and the optical head is free.",
		"Start kmp2mqtt with the option entities=golles at its meter, as above. It must not have announced this meter to Home Assistant before: an id is chosen once.",
		"Home Assistant makes the sensors anew with the ids below, and their statistics go on. Those that the integration had switched off are as kmp2mqtt has them.",
	}}
	for _, p := range GollesEntities() {
		id, _ := EntityID(Golles, p.Register)
		e := Entity{EntityID: "sensor." + id, Register: p.Register, RegisterName: catalog.Lookup(p.Register).Name, State: StateFree}
		if !slices.Contains(registers, p.Register) {
			e.State = StateUnread
		}
		r.Entities = append(r.Entities, e)
	}
	if r.Count(StateUnread) > 0 {
		r.Notes = append(r.Notes, unreadNote)
	}
	r.Notes = append(r.Notes, `"Heat Energy to Gas" has no successor: add the energy itself as a gas source, Home Assistant takes GJ, MWh and kWh there.`)
	return r
}
