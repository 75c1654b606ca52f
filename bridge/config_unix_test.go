//go:build unix

package bridge

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestSecretFiles reads real files, and what looks like one but has no end or no beginning.
func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	pipe, secret := filepath.Join(dir, "pipe"), filepath.Join(dir, "secret")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secret, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		secret:      "",
		pipe:        "MQTT_PASSWORD_FILE: " + pipe + " is empty",
		"/dev/zero": "MQTT_PASSWORD_FILE: /dev/zero is larger than",
		dir:         "MQTT_PASSWORD_FILE: cannot read the file",
	} {
		environ := []string{"METERS=a=/dev/x", "MQTT_URL=mqtt://h", "MQTT_USERNAME=u", "MQTT_PASSWORD_FILE=" + file}
		c, err := ParseConfig(environ, ParseOptions{ParseLine: testLine})
		switch {
		case want == "":
			if err != nil || c.MQTT.Password != "hush" {
				t.Errorf("%s: password %q, error %v", file, c.MQTT.Password, err)
			}
		case err == nil || !strings.HasPrefix(err.Error(), want):
			t.Errorf("%s: error %v, want %q", file, err, want)
		}
	}
}
