package former

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// kamstrupMQTTKeys are the settings of kamstrup-402-mqtt.
func kamstrupMQTTKeys() []oldKey {
	return []oldKey{
		{"mqtt.host", "", "~MQTT_URL~, ~mqtt://host:port~"},
		{"mqtt.port", "", "~MQTT_URL~"},
		{"mqtt.client", "", "~MQTT_CLIENT_ID~"},
		{"mqtt.topic", "", "~MQTT_COMPAT=kamstrup-402-mqtt:topic~ keeps ~topic/values~; the name of the meter is its last level"},
		{"mqtt.qos", "", "everything is sent with QoS 1"},
		{"mqtt.retain", "", "what a meter shows is retained"},
		{"mqtt.authentication", "", "~MQTT_USERNAME~ and ~MQTT_PASSWORD~ are set or not"},
		{"mqtt.username", "", "~MQTT_USERNAME~"},
		{"mqtt.password", "", "~MQTT_PASSWORD~, better ~MQTT_PASSWORD_FILE~"},
		{"mqtt.tls_enabled", "", "~MQTT_URL~ begins with ~mqtts://~"},
		{"mqtt.tls_ca_cert", "", "~MQTT_CA_FILE~"},
		{"mqtt.tls_cert", "", "~MQTT_CERT_FILE~; it was ignored before"},
		{"mqtt.tls_key", "", "~MQTT_KEY_FILE~; it was ignored before"},
		{"mqtt.tls_insecure", "", "none: a broker has to prove who it is; ~MQTT_CA_FILE~ names who signs its certificate"},
		{"serial_device.com_port", "", "~METERS~, ~name=/dev/serial/by-id/...~; ~socket://~ becomes ~tcp://~"},
		{"kamstrup.parameters", "", "~REGISTERS~, by the names below"},
		{"kamstrup.poll_interval", "", "~READ_INTERVAL~: a number of minutes becomes a duration, ~28~ is ~28m~"},
	}
}

// kamstrupMQTT translates the settings of kamstrup-402-mqtt.
func (m *migrator) kamstrupMQTT() {
	if len(m.values) == 0 {
		m.errorAt("", 0, "there are no settings; name the file config.yaml of %s", KamstrupMQTT)
		return
	}
	topic := m.topic()
	meter := meter{name: meterName(topic)}
	line, comment, ok := m.line("serial_device.com_port")
	if meter.line = line; ok {
		m.set("METERS", meter.String(), strings.TrimSpace("The name before = is a level of the topics. "+comment))
	}
	m.minutes("kamstrup.poll_interval")
	m.registers("kamstrup.parameters", Parameters())
	m.broker(m.text("mqtt.host"))
	m.strictly("mqtt.authentication")
	m.strictly("mqtt.tls_enabled")
	m.compat(topic)

	if m.text("mqtt.tls_cert") != "" || m.text("mqtt.tls_key") != "" {
		m.note(WasWrong, "tls_cert and tls_key were ignored: no client certificate was shown to the broker, whatever the settings said. MQTT_CERT_FILE and MQTT_KEY_FILE are used; the broker may now refuse what it never saw before.")
	}
	m.note(WasWrong, "Numbers went through floating point (0.6000000000000001 kW); now they have the digits that the meter sent.")
	m.note(WasWrong, "When nothing could be read, {} was published and all looked alive. Now nothing is published, %s/availability says offline, and %s/diagnosis says why.", "kmp2mqtt/"+meter.name, "kmp2mqtt/"+meter.name)
	m.note(WasWrong, "Values had no unit, and energy may be GJ, MWh or kWh, as the meter is set. The unit that the meter sends is part of the name now (energy_gj).")
	m.note(Changed, "Values are in one JSON object on kmp2mqtt/%s, with the time of the reading. Home Assistant finds the meter by itself.", meter.name)
	m.steps()
	m.note(DoNext, "Sensors that you wrote yourself for %s/values go on working as long as MQTT_COMPAT is set. When you use the entities that Home Assistant found, remove both.", orElse(topic, "kamstrup"))
}

// strictly tells where the other reader understood a setting as false that means true.
func (m *migrator) strictly(key string) {
	if s := m.text(key); m.truth(key) && !strings.EqualFold(s, "true") {
		m.note(WasWrong, "%s: %s counted as False, since only True is understood; it is taken for true now", key, plain(s))
	}
}

// steps says how one reader takes the place of the other.
func (m *migrator) steps() {
	m.note(DoNext, "Write the settings to a file: kmp2mqtt migrate %s ... > kmp2mqtt.env", m.Reader)
	m.note(DoNext, "Stop %s: two programs cannot share an optical head, nor a client id at the broker.", titleOf(m.Reader))
	m.note(DoNext, "Try the settings: set -a; . ./kmp2mqtt.env; kmp2mqtt check")
	m.note(DoNext, "Start kmp2mqtt with them. Should it not work out, stop it and start %s again: its files were not touched.", titleOf(m.Reader))
}

// topic is the old base topic; empty: it was not set.
func (m *migrator) topic() string { return m.text("mqtt.topic") }

// minutes translates an interval of minutes into READ_INTERVAL.
func (m *migrator) minutes(key string) {
	d, ok := m.interval(key, time.Minute)
	if !ok {
		return
	}
	m.set("READ_INTERVAL", short(d), "It was a number of minutes. A battery is calculated for one reading an hour.")
	m.note(WasWrong, "poll_interval had no unit: %s was minutes, where others count seconds. READ_INTERVAL says it: %s.", plain(m.text(key)), short(d))
}

// broker translates the settings of the broker, which two readers share.
func (m *migrator) broker(host string) {
	secure := m.truth("mqtt.tls_enabled")
	port := orElse(m.text("mqtt.port"), "1883")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		m.fail("mqtt.port", "%q is not a port from 1 to 65535", clip(port))
	}
	switch {
	case host == "":
		m.note(DoNext, "No broker was set (mqtt.host): add MQTT_URL=mqtt://host:1883, else a built-in broker is started.")
	case !isHost(host):
		m.fail("mqtt.host", "%q is not the name or address of a host", clip(host))
	default:
		scheme := "mqtt"
		if secure {
			scheme = "mqtts"
		}
		comment := ""
		if slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, host) {
			comment = "Inside a container localhost is the container itself: write the broker's name there."
		}
		m.set("MQTT_URL", scheme+"://"+net.JoinHostPort(host, strconv.FormatUint(n, 10)), comment)
		m.credentials()
	}
	if id := m.text("mqtt.client"); len(id) > 200 {
		m.note(NoEquivalent, "the client id %s, which is longer than 200 bytes", plain(id))
	} else if id != "" {
		m.set("MQTT_CLIENT_ID", id, "As before: stop the old reader first, two programs with one client id throw each other out. Without this line it is made from topic and host name.")
	}
	m.certificates(secure && host != "")
	if s := m.text("mqtt.qos"); s != "" && s != "1" {
		m.note(Changed, "QoS %s: everything is sent with QoS 1.", plain(s))
	}
	if m.text("mqtt.retain") != "" && !m.truth("mqtt.retain") {
		m.note(Changed, "Nothing was retained: who subscribed later had to wait for the next reading. What a meter shows is retained now.")
	}
}

// credentials translates user name and password.
func (m *migrator) credentials() {
	user, password := m.text("mqtt.username"), m.raw("mqtt.password")
	switch {
	case user == "" && password == "":
	case m.text("mqtt.authentication") != "" && !m.truth("mqtt.authentication"):
		m.note(Changed, "User name and password were in the file but not in use (authentication); they are left out.")
	case user == "":
		m.note(NoEquivalent, "a password without a user name; it is left out")
	default:
		m.set("MQTT_USERNAME", user, "")
		switch {
		case password == "":
		case strings.ContainsFunc(password, unicode.IsControl) || len(password) > 65535:
			m.note(DoNext, "The password cannot stand in an environment file: write it to a file and set MQTT_PASSWORD_FILE to its name.")
		default:
			m.set("MQTT_PASSWORD", password, "Better in a file that only the bridge may read: MQTT_PASSWORD_FILE=/run/secrets/mqtt_password instead of this line.")
		}
	}
}

// certificates translates the settings of TLS.
func (m *migrator) certificates(secure bool) {
	ca, cert, key := m.text("mqtt.tls_ca_cert"), m.text("mqtt.tls_cert"), m.text("mqtt.tls_key")
	insecure := m.truth("mqtt.tls_insecure")
	if !secure {
		if ca+cert+key != "" {
			m.note(Changed, "TLS was not in use (tls_enabled); its certificates are left out.")
		}
		return
	}
	if ca != "" {
		m.set("MQTT_CA_FILE", ca, "")
	}
	switch {
	case cert != "" && key != "":
		m.set("MQTT_CERT_FILE", cert, "")
		m.set("MQTT_KEY_FILE", key, "")
	case cert+key != "":
		m.note(NoEquivalent, "tls_cert or tls_key without the other; left out")
	}
	if ca+cert+key != "" {
		m.note(DoNext, "The paths of the certificates are as they were: see that kmp2mqtt finds them there, in a container above all.")
	}
	if insecure {
		m.note(NoEquivalent, "tls_insecure: the broker's name is always checked. Set MQTT_CA_FILE to the certificate that signs the broker's, and MQTT_URL to a name that stands in it.")
	}
}

// compat proposes to go on publishing on the old topic.
func (m *migrator) compat(topic string) {
	name := orElse(topic, "kamstrup")
	switch {
	case !isTopic(name):
		m.note(NoEquivalent, "the topic %s: it cannot be published on as it is", plain(name))
		return
	case name == ownTopic || strings.HasPrefix(name, ownTopic+"/"):
		m.set("MQTT_TOPIC", ownTopic+"2", "Because "+name+"/values is the old reader's.")
	case name == homeAssistant:
		m.note(NoEquivalent, "the topic %s: Home Assistant's discovery is there", plain(name))
		return
	}
	text := KamstrupMQTT
	if name != "kamstrup" {
		text += ":" + name
	}
	m.set("MQTT_COMPAT", text, "Goes on publishing "+name+"/values with the old names, for what was built on it. Remove it when nothing needs that any more.")
}

// The topics that are taken when nothing else is set.
const ownTopic, homeAssistant = "kmp2mqtt", "homeassistant"

// isTopic reports whether a base topic is possible here.
func isTopic(s string) bool {
	return s != "" && len(s) <= 200 && !strings.ContainsAny(s, "+#") && !strings.HasPrefix(s, "$") &&
		!slices.Contains(strings.Split(s, "/"), "")
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
