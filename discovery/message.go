package discovery

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// message is the whole discovery message. Home Assistant refuses it when another
// key stands beside these.
type message struct {
	Device           device         `json:"device"`
	Origin           origin         `json:"origin"`
	Availability     []availability `json:"availability,omitempty"`
	AvailabilityMode string         `json:"availability_mode,omitempty"`
	StateTopic       string         `json:"state_topic,omitempty"`
	Components       components     `json:"components"`
}

type device struct {
	Identifiers  []string `json:"identifiers"`
	Name         string   `json:"name"`
	Manufacturer string   `json:"manufacturer"`
	Model        string   `json:"model,omitempty"`
	SerialNumber string   `json:"serial_number,omitempty"`
	SWVersion    string   `json:"sw_version,omitempty"`
	ViaDevice    string   `json:"via_device,omitempty"`
}

type origin struct {
	Name      string `json:"name"`
	SWVersion string `json:"sw_version,omitempty"`
}

type availability struct {
	Topic string `json:"topic"`
}

// component is one entity. Home Assistant drops keys that it does not know
// without a word, so every key here is one that its platform has.
type component struct {
	id string // the key under "components"

	Platform           string         `json:"platform"`
	UniqueID           string         `json:"unique_id"` // empty: the entity is taken away
	DefaultEntityID    string         `json:"default_entity_id,omitempty"`
	ObjectID           string         `json:"object_id,omitempty"` // the same before Home Assistant 2025.10
	Name               string         `json:"name"`
	ValueTemplate      string         `json:"value_template,omitempty"`
	Unit               string         `json:"unit_of_measurement,omitempty"`
	DeviceClass        string         `json:"device_class,omitempty"`
	StateClass         string         `json:"state_class,omitempty"`
	Precision          *int           `json:"suggested_display_precision,omitempty"`
	EntityCategory     string         `json:"entity_category,omitempty"`
	EnabledByDefault   *bool          `json:"enabled_by_default,omitempty"`
	Options            []string       `json:"options,omitempty"`
	Min                float64        `json:"min,omitempty"`
	Max                float64        `json:"max,omitempty"`
	Step               float64        `json:"step,omitempty"`
	Mode               string         `json:"mode,omitempty"`
	CommandTopic       string         `json:"command_topic,omitempty"`
	CommandTemplate    string         `json:"command_template,omitempty"`
	PayloadPress       string         `json:"payload_press,omitempty"`
	PayloadOn          string         `json:"payload_on,omitempty"`
	PayloadOff         string         `json:"payload_off,omitempty"`
	StateTopic         string         `json:"state_topic,omitempty"`
	AttributesTopic    string         `json:"json_attributes_topic,omitempty"`
	AttributesTemplate string         `json:"json_attributes_template,omitempty"`
	Availability       []availability `json:"availability,omitempty"`
	QoS                int            `json:"qos"` // not inherited from the root by every version
}

// components is the object of all entities, in the order in which they are shown.
type components []component

// MarshalJSON writes the entities as one object and keeps their order, so that an
// unchanged meter gives an unchanged message.
func (cs components) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, c := range cs {
		if i > 0 {
			b = append(b, ',')
		}
		id, err := encode(c.id)
		if err != nil {
			return nil, err
		}
		body, err := c.encode()
		if err != nil {
			return nil, err
		}
		b = append(append(append(b, id...), ':'), body...)
	}
	return append(b, '}'), nil
}

// encode writes one entity. Of one that is taken away only the platform stays: leaving it out
// would leave it in Home Assistant.
func (c component) encode() ([]byte, error) {
	if c.UniqueID == "" {
		return encode(struct {
			Platform string `json:"platform"`
		}{c.Platform})
	}
	return encode(c)
}

// encode is json.Marshal that leaves <, > and & readable.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("discovery: encode message: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), nil
}
