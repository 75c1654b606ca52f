package discovery

import "slices"

// The codes of a diagnosis that are no problem: read, not tried yet, and a single reading
// without an answer.
const (
	codeOK      = "ok"
	codeNotRead = "not_read"
	codeMissed  = "missed"
)

// diagnosis returns the entities that say whether and how well the meter is read, and
// what that costs. They must say why a meter is silent, so they need the bridge only.
// None without a topic.
//
// The evidence of a diagnosis is no attribute: it differs from reading to reading, and
// Home Assistant would store each.
func (d Device) diagnosis() components {
	if d.DiagnosisTopic == "" {
		return nil
	}
	disabled, whole := false, 0
	cs := components{
		{
			id:                 "diagnosis",
			Platform:           "sensor",
			Name:               "Diagnosis",
			ValueTemplate:      "{{ value_json.code }}",
			DeviceClass:        "enum",
			EntityCategory:     "diagnostic",
			Options:            slices.Clone(d.Diagnoses),
			StateTopic:         d.DiagnosisTopic,
			AttributesTopic:    d.DiagnosisTopic,
			AttributesTemplate: "{{ {'text': value_json.text, 'next_step': value_json.next_step, 'since': value_json.since} | tojson }}",
		},
		{
			id:             "reading_problem",
			Platform:       "binary_sensor",
			Name:           "Reading problem",
			ValueTemplate:  "{{ none if value_json.code is none else 'OFF' if value_json.code in ['" + codeOK + "', '" + codeNotRead + "', '" + codeMissed + "'] else 'ON' }}",
			DeviceClass:    "problem",
			EntityCategory: "diagnostic",
			PayloadOn:      "ON",
			PayloadOff:     "OFF",
			StateTopic:     d.DiagnosisTopic,
		},
		{
			id:             "link_quality",
			Platform:       "sensor",
			Name:           "Link quality",
			ValueTemplate:  "{{ value_json.link_quality }}",
			Unit:           "%",
			StateClass:     "measurement",
			Precision:      &whole,
			EntityCategory: "diagnostic",
			StateTopic:     d.DiagnosticsTopic,
		},
		{
			id:             "reads_today",
			Platform:       "sensor",
			Name:           "Reads today",
			ValueTemplate:  "{{ value_json.reads_today }}",
			StateClass:     "total_increasing", // starts again at midnight
			EntityCategory: "diagnostic",
			StateTopic:     d.DiagnosticsTopic,
		},
		{
			id:               "awake_today",
			Platform:         "sensor",
			Name:             "Awake today",
			ValueTemplate:    "{{ value_json.awake_today_s }}",
			Unit:             "s",
			DeviceClass:      "duration",
			StateClass:       "total_increasing",
			Precision:        &whole,
			EntityCategory:   "diagnostic",
			EnabledByDefault: &disabled,
			StateTopic:       d.DiagnosticsTopic,
		},
	}
	if d.HasClock { // get: the broker may still hold diagnostics of an older version
		cs = append(cs, component{
			id:             "clock_drift",
			Platform:       "sensor",
			Name:           "Clock drift",
			ValueTemplate:  "{{ value_json.get('clock_drift_s') }}",
			Unit:           "s",
			DeviceClass:    "duration",
			StateClass:     "measurement",
			Precision:      &whole,
			EntityCategory: "diagnostic",
			StateTopic:     d.DiagnosticsTopic,
		})
	}
	return cs
}

// problem returns the entity that tells whether the meter itself reports something,
// by its info codes. It is as available as the values that come with it.
func (d Device) problem() components {
	if !d.HasInfo {
		return nil
	}
	// get: the broker may still hold a state of an older version, without the key.
	return components{{
		id:                 "problem",
		Platform:           "binary_sensor",
		Name:               "Problem",
		ValueTemplate:      "{{ none if value_json.get('info') is none else 'ON' if value_json.info else 'OFF' }}",
		DeviceClass:        "problem",
		PayloadOn:          "ON",
		PayloadOff:         "OFF",
		AttributesTopic:    d.StateTopic,
		AttributesTemplate: "{{ {'info': value_json.get('info')} | tojson }}",
	}}
}
