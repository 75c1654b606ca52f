//go:build e2e

package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// secret is part of everything that must not be told, also where it is escaped.
const secret = "hush7Qx"

// quiet checks that a program has not told a secret.
func quiet(t *testing.T, what string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if before, after, found := strings.Cut(text, secret); found {
			t.Errorf("%s tells a secret: …%s%s%s…", what, before[max(0, len(before)-100):], secret, after[:min(20, len(after))])
		}
	}
}

// TestSecretsInMistakes makes every mistake in settings that hold a secret. The error says what is wrong, but not with
// which secret.
func TestSecretsInMistakes(t *testing.T) {
	t.Parallel()
	const meter, broker = "METERS=house=sim://403", "MQTT_URL=mqtt://127.0.0.1:1"
	for name, settings := range map[string][]string{
		"bad escape":                {meter, "MQTT_URL=mqtt://meters:" + secret + "%zz@127.0.0.1"},
		"bad port":                  {meter, "MQTT_URL=mqtt://meters:" + secret + "@127.0.0.1:many"},
		"bad scheme":                {meter, "MQTT_URL=http://meters:" + secret + "@127.0.0.1"},
		"no scheme":                 {meter, "MQTT_URL=meters:" + secret + "@127.0.0.1"},
		"no host":                   {meter, "MQTT_URL=mqtt://meters:" + secret + "@"},
		"a slash in it":             {meter, "MQTT_URL=mqtt://meters:" + secret + "/1@127.0.0.1"},
		"a question mark in it":     {meter, "MQTT_URL=mqtt://meters:" + secret + "?1@127.0.0.1"},
		"a number sign in it":       {meter, "MQTT_URL=mqtt://meters:" + secret + "#1@127.0.0.1"},
		"a space in it":             {meter, "MQTT_URL=mqtt://meters:my " + secret + "@127.0.0.1"},
		"a tab behind it":           {meter, "MQTT_URL=mqtt://meters:" + secret + "\t@127.0.0.1"},
		"a control character in it": {meter, "MQTT_URL=mqtt://meters:" + secret + "\x01@127.0.0.1"},
		"one of two":                {meter, "MQTT_URL=mqtt://127.0.0.1 mqtt://meters:" + secret + "@[::1"},
		"URL in a file":             {meter, "MQTT_URL_FILE=" + file(t, "mqtt://meters:"+secret+"%zz@127.0.0.1\n")},
		"URL and file":              {meter, "MQTT_URL=mqtt://meters:" + secret + "@127.0.0.1", "MQTT_URL_FILE=" + file(t, "mqtt://x:"+secret+"@127.0.0.1\n")},
		"password and file":         {meter, broker, "MQTT_USERNAME=meters", "MQTT_PASSWORD=" + secret, "MQTT_PASSWORD_FILE=" + file(t, secret)},
		"password alone":            {meter, broker, "MQTT_PASSWORD=" + secret},
		"too large a file":          {meter, broker, "MQTT_USERNAME=meters", "MQTT_PASSWORD_FILE=" + file(t, strings.Repeat(secret, 1<<18))},
		"too long a password":       {meter, broker, "MQTT_USERNAME=meters", "MQTT_PASSWORD=" + strings.Repeat(secret, 10000)},
		"mistyped name":             {meter, broker, "MQTT_PASWORD=" + secret},
		"mistyped file":             {meter, broker, "MQTT_PASSWORD_FIL=" + secret},
		"a key that is none":        {meter, "MQTT_URL=mqtts://127.0.0.1", "MQTT_CERT_FILE=" + file(t, secret), "MQTT_KEY_FILE=" + file(t, secret)},
		"a key that is broken":      {meter, "MQTT_URL=mqtts://127.0.0.1", "MQTT_CERT_FILE=" + file(t, secret), "MQTT_KEY_FILE=" + file(t, "-----BEGIN PRIVATE KEY-----\n"+secret+"\n-----END PRIVATE KEY-----\n")},
		"an authority that is none": {meter, "MQTT_URL=mqtts://127.0.0.1", "MQTT_CA_FILE=" + file(t, secret)},
		"a line that has one":       {broker, "METERS=house=tcp://meters:" + secret + "@127.0.0.1:1"},
		"a port that has one":       {broker, "METERS=house=rfc2217://meters:" + secret + "@127.0.0.1:1"},
		"a line that is wrong, too": {broker, "METERS=house=tcp://meters:" + secret + "@127.0.0.1:1?baud=fast"},
		"a line that is no URL":     {broker, "METERS=house=tcp://meters:" + secret + "%zz@127.0.0.1:1"},
		"an open broker":            {meter, "MQTT_LISTEN=0.0.0.0:1", "MQTT_PASSWORD=" + secret},
		"something else":            {meter, "MQTT_URL=mqtt://meters:" + secret + "@127.0.0.1", "READ_INTERVAL=soon"},
	} {
		for _, verb := range []string{"check", "run"} {
			p := start(t, append(settings, "LOG_LEVEL=debug"), program, verb)
			if code := p.status(t); code != 2 || p.log.String() == "" {
				t.Errorf("%s: %s ends with status %d", name, verb, code)
			}
			quiet(t, name+": "+verb, p.out.String(), p.log.String())
		}
	}
}

// TestSecretsAtBuiltInBroker has the bridge's own broker refuse a stranger whose password is a secret elsewhere.
func TestSecretsAtBuiltInBroker(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	p := bridge(t, "METERS=house="+still("7").line(), "MQTT_LISTEN="+address(port), "MQTT_USERNAME=meters", "MQTT_PASSWORD="+secret, "LOG_LEVEL=debug")
	listens(t, port, p)
	live := subscribe(t, append(clientOptions(port), "-u", "meters", "-P", secret))
	live.any("kmp2mqtt/bridge/info")
	stranger := start(t, nil, "mosquitto_sub", append(clientOptions(port), "-u", "meters", "-P", secret+"2", "-t", "#")...)
	if code := stranger.status(t); code == 0 {
		t.Error("a stranger is let in")
	}
	live.any("kmp2mqtt/house")
	stopped(t, p, syscall.SIGTERM)
	quiet(t, "the bridge", p.out.String(), p.log.String())
	for _, m := range live.all("#") {
		quiet(t, m.Topic, m.Payload)
	}
}

// TestSecrets runs bridges with secrets everywhere, right ones and wrong ones, at level debug, and looks at all that
// they write, publish and keep.
func TestSecrets(t *testing.T) {
	t.Parallel()
	right := secret + " @:/?#%"
	escaped := secret + "%20%40%3A%2F%3F%23%25"
	ours := newAuthority(t, "ours")
	server := ours.issue(t, "broker")
	login := []string{"allow_anonymous false", "password_file " + userFile(t, "meters", right)}
	plain := mosquitto(t, login...)
	withTLS := mosquitto(t, append(login, "cafile "+ours.file, "certfile "+server.cert, "keyfile "+server.key)...)
	websockets := mosquitto(t, append(login, "protocol websockets", fmt.Sprintf("listener %d %s", freePort(t), host))...) // it wants another beside
	at := func(scheme, login string, b *broker) string {
		return fmt.Sprintf("%s://%s@%s", scheme, login, address(b.port))
	}

	for name, c := range map[string]struct {
		settings []string
		says     string
	}{
		"password": {[]string{"MQTT_USERNAME=meters", "MQTT_PASSWORD=" + right, "MQTT_URL=" + plain.url()}, "MQTT connected"},
		"files": {[]string{
			"MQTT_USERNAME_FILE=" + file(t, "meters\n"), "MQTT_PASSWORD_FILE=" + file(t, right+"\n"), "MQTT_URL_FILE=" + file(t, plain.url()+"\n"),
		}, "MQTT connected"},
		"URL":        {[]string{"MQTT_URL=" + at("mqtt", "meters:"+escaped, plain)}, "MQTT connected"},
		"URL, TLS":   {[]string{"MQTT_URL=" + at("mqtts", "meters:"+escaped, withTLS), "MQTT_CA_FILE=" + ours.file}, "MQTT connected"},
		"websockets": {[]string{"MQTT_URL=" + at("ws", "meters:"+escaped, websockets)}, "MQTT connected"},
		"second URL": {[]string{"MQTT_URL=" + at("mqtt", "other:"+secret, plain) + " " + at("mqtt", "meters:"+escaped, plain)}, "MQTT connected"},

		"wrong password":       {[]string{"MQTT_USERNAME=meters", "MQTT_PASSWORD=" + secret, "MQTT_URL=" + plain.url()}, "not authorised"},
		"wrong file":           {[]string{"MQTT_USERNAME=meters", "MQTT_PASSWORD_FILE=" + file(t, secret), "MQTT_URL=" + plain.url()}, "not authorised"},
		"secret user":          {[]string{"MQTT_USERNAME=" + secret, "MQTT_PASSWORD=" + secret, "MQTT_URL=" + plain.url()}, "not authorised"},
		"wrong URL":            {[]string{"MQTT_URL=" + at("mqtt", "other:"+secret, plain)}, "not authorised"},
		"unknown host":         {[]string{"MQTT_URL=mqtt://meters:" + secret + "@host.invalid"}, "cannot be reached"},
		"nobody there":         {[]string{"MQTT_URL=mqtt://meters:" + secret + "@127.0.0.1:1"}, "connection refused"},
		"TLS where none is":    {[]string{"MQTT_URL=" + at("mqtts", "meters:"+secret, plain)}, "cannot be reached"},
		"no websockets there":  {[]string{"MQTT_URL=" + at("ws", "meters:"+secret, plain)}, "cannot be reached"},
		"no secure websockets": {[]string{"MQTT_URL=" + at("wss", "meters:"+secret, websockets)}, "cannot be reached"},
		"unknown authority":    {[]string{"MQTT_URL=" + at("mqtts", "meters:"+secret, withTLS)}, "unknown certificate authority"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := t.TempDir()
			topic := "kmp2mqtt-" + strings.Map(func(r rune) rune {
				if r == ' ' || r == ',' {
					return '-'
				}
				return r
			}, name)
			options := append(plain.client(), "-u", "meters", "-P", right)
			live := subscribe(t, options, topic+"/#", "homeassistant/#")
			settings := append(c.settings, "METERS=house="+still("7").line(), "READ_INTERVAL=1s", "LOG_LEVEL=debug", "MQTT_TOPIC="+topic, "DATA_DIR="+data)
			checked := start(t, settings, program, "check")
			if code := checked.status(t); code != 0 {
				t.Errorf("check ends with status %d", code)
			}
			quiet(t, "check", checked.out.String(), checked.log.String())
			for _, format := range []string{"text", "json"} {
				p := bridge(t, append(settings, "LOG_FORMAT="+format)...)
				p.says(t, c.says)
				if format == "text" && c.says == "MQTT connected" && !strings.Contains(name, ",") && name != "websockets" {
					live.any(topic + "/bridge/info")
					publish(t, options, topic+"/house/get", "")
					live.any(topic + "/house/response")
				}
				eventually(t, "a reading", func() bool { return strings.Contains(p.log.String(), "meter read") })
				stopped(t, p, syscall.SIGTERM)
				quiet(t, "the bridge", p.out.String(), p.log.String())
			}
			for _, m := range live.all("#") {
				quiet(t, m.Topic, m.Payload)
			}
			for _, kept := range []string{"kmp2mqtt.json", "kmp2mqtt.lock"} {
				if text, err := os.ReadFile(filepath.Join(data, kept)); err == nil {
					quiet(t, kept, string(text))
				}
			}
		})
	}
}
