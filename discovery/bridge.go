package discovery

import (
	"fmt"
	"hash/crc32"
	"strings"
)

// defaultBase is the base topic whose bridge needs no suffix in its id.
const defaultBase = "kmp2mqtt"

// BridgeDevice is the bridge as Home Assistant shows it.
type BridgeDevice struct {
	BaseTopic string // the topic before /bridge/state, "kmp2mqtt" unless set otherwise
	Version   string // the program's version, may be empty
}

// Bridge returns the discovery message of the bridge itself; it belongs on
// Topic(prefix, BridgeID(b.BaseTopic)). The error is a [*FieldError].
func Bridge(b BridgeDevice) ([]byte, error) {
	if !topic(b.BaseTopic) {
		return nil, &FieldError{"BaseTopic", b.BaseTopic, topicWanted}
	}
	id := BridgeID(b.BaseTopic)
	name := "kmp2mqtt"
	if b.BaseTopic != defaultBase {
		name += " (" + line(b.BaseTopic) + ")"
	}
	state := b.BaseTopic + "/bridge/state"
	return encode(message{
		Device: device{
			Identifiers:  []string{id},
			Name:         name,
			Manufacturer: "kmp2mqtt",
			Model:        "Bridge",
			SWVersion:    line(b.Version),
		},
		Origin: origin{Name: "kmp2mqtt", SWVersion: line(b.Version)},
		Components: components{
			{
				id:             "connection",
				Platform:       "binary_sensor",
				UniqueID:       id + "_connection",
				Name:           "Connection",
				DeviceClass:    "connectivity",
				EntityCategory: "diagnostic",
				StateTopic:     state,
				PayloadOn:      "online",
				PayloadOff:     "offline",
				QoS:            1,
			},
			{
				id:             "log_level",
				Platform:       "select",
				UniqueID:       id + "_log_level",
				Name:           "Log level",
				EntityCategory: "config",
				Options:        []string{"debug", "info", "warn", "error"},
				CommandTopic:   b.BaseTopic + "/bridge/request/log_level",
				StateTopic:     b.BaseTopic + "/bridge/info",
				ValueTemplate:  "{{ value_json.log_level }}",
				Availability:   []availability{{state}},
				QoS:            1,
			},
		},
	})
}

// BridgeID returns the id of the bridge that publishes below base: kmp2mqtt_bridge
// for the default base, with the base behind it for any other, so that two bridges
// on one broker stay apart. Where base holds characters that an id cannot, its
// checksum keeps "a/b" and "a_b" apart.
func BridgeID(base string) string {
	const id = "kmp2mqtt_bridge"
	if base == defaultBase {
		return id
	}
	if idCharacters(base) {
		return id + "_" + base
	}
	readable := strings.Map(func(r rune) rune {
		if r < 0x80 && idCharacters(string(r)) {
			return r
		}
		return '_'
	}, base)
	return fmt.Sprintf("%s_%s_%08x", id, readable, crc32.ChecksumIEEE([]byte(base)))
}
