package former

import (
	"strconv"
	"strings"

	"kmp2mqtt/kmp/catalog"
)

// wobwobrtKeys are the settings of WobwobRt's kamstrup2mqtt, in its YAML and in its
// environment.
func wobwobrtKeys() []oldKey {
	return []oldKey{
		{"mqtt.host", "MQTT_HOST", "~MQTT_URL~, ~mqtt://host:port~"},
		{"mqtt.port", "MQTT_PORT", "~MQTT_URL~"},
		{"mqtt.client", "MQTT_CLIENT", "~MQTT_CLIENT_ID~"},
		{"mqtt.topic", "MQTT_TOPIC", "~METERS~: its last level is the name of the meter. ~MQTT_TOPIC~ is the base of all topics here"},
		{"mqtt.qos", "MQTT_QOS", "everything is sent with QoS 1"},
		{"mqtt.retain", "MQTT_RETAIN", "what a meter shows is retained"},
		{"mqtt.authentication", "MQTT_AUTHENTICATION", "~MQTT_USERNAME~ and ~MQTT_PASSWORD~ are set or not"},
		{"mqtt.username", "MQTT_USERNAME", "~MQTT_USERNAME~"},
		{"mqtt.password", "MQTT_PASSWORD", "~MQTT_PASSWORD~, better ~MQTT_PASSWORD_FILE~"},
		{"mqtt.tls_enabled", "MQTT_TLS_ENABLED", "~MQTT_URL~ begins with ~mqtts://~"},
		{"mqtt.tls_ca_cert", "MQTT_TLS_CA_CERT", "~MQTT_CA_FILE~"},
		{"mqtt.tls_cert", "MQTT_TLS_CERT", "~MQTT_CERT_FILE~"},
		{"mqtt.tls_key", "MQTT_TLS_KEY", "~MQTT_KEY_FILE~"},
		{"mqtt.tls_key_password", "MQTT_TLS_KEY_PASSWORD", "none: take the password off the key"},
		{"mqtt.tls_insecure", "MQTT_TLS_INSECURE", "none: a broker has to prove who it is; ~MQTT_CA_FILE~ names who signs its certificate"},
		{"mqtt.tls_version", "MQTT_TLS_VERSION", "none: TLS 1.2 or 1.3, whichever the broker has"},
		{"mqtt.device_id", "", "none: a device is known by the meter's serial number"},
		{"mqtt.device_name", "", "~METERS~, option ~label~"},
		{"serial_device.url", "", "~METERS~, ~name=tcp://host:port~; ~socket://~ becomes ~tcp://~"},
		{"serial_device.com_port", "SERIAL_COM_PORT", "~METERS~, ~name=/dev/serial/by-id/...~"},
		{"serial_device.baudrate", "SERIAL_BAUDRATE", "~METERS~, option ~baud~"},
		{"serial_device.parity", "SERIAL_PARITY", "~METERS~, option ~parity~"},
		{"serial_device.stopbits", "SERIAL_STOPBITS", "~METERS~, option ~stopbits~"},
		{"serial_device.bytesize", "SERIAL_BYTESIZE", "~METERS~, option ~databits~"},
		{"serial_device.timeout", "SERIAL_TIMEOUT", "~METERS~, option ~timeout~, if it is longer than 2 s"},
		{"kamstrup.parameters", "KAMSTRUP_PARAMETERS", "~REGISTERS~, by the names below"},
		{"kamstrup.poll_interval", "KAMSTRUP_POLL_INTERVAL", "~READ_INTERVAL~: a number of minutes becomes a duration, ~28~ is ~28m~"},
		{"kamstrup.version", "KAMSTRUP_VERSION", "~METERS~, option ~model~; without it the meter says what it is"},
		{"logging.level", "LOG_LEVEL", "~LOG_LEVEL~"},
		{"homeassistant.discovery_prefix", "", "~HA_PREFIX~"},
	}
}

// wobwobrt translates the settings of WobwobRt's kamstrup2mqtt.
func (m *migrator) wobwobrt() {
	if len(m.values) == 0 {
		m.errorAt("", 0, "there are no settings; name the file config.yaml of kamstrup2mqtt, the file with its environment or its compose file")
		return
	}
	topic := clip(orElse(m.topic(), "kamstrup"))
	meter := meter{name: meterName(topic)}
	port := "serial_device.url"
	if m.text(port) == "" {
		port = "serial_device.com_port"
	}
	line, comment, ok := m.line(port)
	meter.line = line
	m.port(&meter)
	m.timeout("serial_device.timeout", &meter)
	if version := m.text("kamstrup.version"); version != "" {
		if model, known := catalog.ModelByName(version); known {
			meter.option("model", model.Name)
		} else {
			m.note(NoEquivalent, "version %s, which is no model here; the meter says what it is", plain(version))
		}
	}
	if label := m.text("mqtt.device_name"); len(label) > 200 {
		m.note(NoEquivalent, "the name %s, which is longer than 200 bytes", plain(label))
	} else if label != "" {
		meter.option("label", label)
	}
	meter.option("entities", WobwobRt)
	if ok {
		m.set("METERS", meter.String(), strings.TrimSpace("The name before = is a level of the topics. entities=wobwobrt keeps the unique ids of the entities in Home Assistant, and so their history. "+comment))
	}
	m.minutes("kamstrup.poll_interval")
	if m.text("kamstrup.poll_interval") == "" {
		m.note(Changed, "No interval was set, which was 5 minutes. Without READ_INTERVAL it is 30 minutes, which a battery lasts longer.")
	}
	m.registers("kamstrup.parameters", WobwobRtParameters())
	m.broker(orElse(m.text("mqtt.host"), "localhost"))
	if m.text("mqtt.tls_key_password") != "" {
		m.note(NoEquivalent, "tls_key_password: take the password off the key (openssl pkey -in old.pem -out new.pem) and guard the file")
	}
	if m.text("mqtt.tls_version") != "" {
		m.note(NoEquivalent, "tls_version: TLS 1.2 or 1.3 is used, whichever the broker has")
	}
	m.prefix()
	m.level()

	if id := m.text("mqtt.device_id"); id != "" {
		m.note(NoEquivalent, "device_id %s: a device is known by the meter's serial number", plain(id))
	}
	for _, name := range m.list("kamstrup.parameters") {
		if strings.EqualFold(name, "minflowDate_m") || strings.EqualFold(name, "maxflowDate_m") {
			m.note(WasWrong, "%s was announced to Home Assistant with a capital letter and published without: that entity never had a value. It has one now.", plain(name))
		}
	}
	m.note(WasWrong, "Units were written into the program: energy as kWh, power as W, flow as m³/h, whatever the meter sent. Now a value has the unit that came with it (GJ, kW, l/h). Where it differs, the sum of energy or volume in Home Assistant makes one false step when the entities are adopted; docs/adopt.md, Units, says how to take it out.")
	m.note(WasWrong, "Unique ids and the device's id were the same in every installation: a second meter wrote over the first one's entities.")
	m.note(WasWrong, "What runs when the connection to the broker is lost has the wrong number of parameters there and fails each time. kmp2mqtt comes back by itself.")
	m.note(Changed, "Values were on %s/energy and so on, each by itself. They are in one JSON object on kmp2mqtt/%s now; with MQTT_VALUES=true each is also on a topic of its own, such as kmp2mqtt/%s/energy_gj.", topic, meter.name, meter.name)
	m.note(Changed, "%s/status becomes kmp2mqtt/bridge/state, and kmp2mqtt/%s/availability for the meter alone.", topic, meter.name)
	m.steps()
	m.note(DoNext, "When kmp2mqtt has read the meter once, run kmp2mqtt adopt wobwobrt: it hands the entities over to kmp2mqtt and then removes the old topics, so that Home Assistant keeps their history.")
}

// port translates how the serial port is set, where that is not the usual way.
func (m *migrator) port(to *meter) {
	if s := m.text("serial_device.baudrate"); s != "" && s != "1200" {
		if n, err := strconv.Atoi(s); err != nil || n < 50 || n > 4_000_000 {
			m.fail("serial_device.baudrate", "%q is not a number from 50 to 4000000", clip(s))
		}
		to.option("baud", s)
	}
	if s := m.text("serial_device.bytesize"); s != "" && s != "8" && s != "EIGHTBITS" {
		if len(s) != 1 || s[0] < '5' || s[0] > '8' {
			m.fail("serial_device.bytesize", "%q is not 5, 6, 7 or 8", clip(s))
		}
		to.option("databits", s)
	}
	if s := m.text("serial_device.parity"); s != "" {
		names := map[string]string{"N": "", "E": "even", "O": "odd", "M": "mark", "S": "space"}
		letter := strings.TrimPrefix(strings.ToUpper(s), "PARITY_")
		name, known := names[letter[:min(1, len(letter))]]
		if !known {
			m.fail("serial_device.parity", "%q is not N, E, O, M or S", clip(s))
		} else if name != "" {
			to.option("parity", name)
		}
	}
	switch s := strings.TrimPrefix(strings.ToUpper(m.text("serial_device.stopbits")), "STOPBITS_"); s {
	case "", "2", "2.0", "TWO":
	case "1", "1.0", "ONE":
		to.option("stopbits", "1")
	case "1.5":
		m.note(NoEquivalent, "1.5 stop bits, which few systems have; the usual 2 are taken")
	default:
		m.fail("serial_device.stopbits", "%q is not 1, 1.5 or 2", clip(s))
	}
}

// prefix translates Home Assistant's discovery prefix.
func (m *migrator) prefix() {
	switch prefix := m.text("homeassistant.discovery_prefix"); {
	case prefix == "" || prefix == homeAssistant:
	case !isTopic(prefix) || prefix == ownTopic:
		m.note(NoEquivalent, "the discovery prefix %s, which cannot be one here", plain(prefix))
	default:
		m.set("HA_PREFIX", prefix, "")
	}
}

// level translates the level of the log.
func (m *migrator) level() {
	levels := map[string]string{"DEBUG": "debug", "INFO": "info", "WARNING": "warn", "WARN": "warn", "ERROR": "error", "CRITICAL": "error"}
	s := m.text("logging.level")
	switch level, known := levels[strings.ToUpper(s)]; {
	case s == "" || level == "info":
	case known:
		m.set("LOG_LEVEL", level, "")
	default:
		m.note(NoEquivalent, "the log level %s", plain(s))
	}
}
