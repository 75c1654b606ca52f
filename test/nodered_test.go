//go:build e2e

package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// nodeRED is a real Node-RED, spoken to by its admin API.
type nodeRED struct {
	*process

	url string
}

func startNodeRED(t *testing.T, brokerPort int) nodeRED {
	t.Helper()
	const script = "node-red/node_modules/node-red/red.js"
	if _, err := os.Stat(script); err != nil {
		t.Fatalf("%v; run test/setup.sh", err)
	}
	dir, port := t.TempDir(), freePort(t)
	settings := fmt.Sprintf("module.exports = {uiHost: %q, uiPort: %d, telemetry: {enabled: false}, externalModules: {palette: {allowInstall: false}}};\n", host, port)
	if err := os.WriteFile(filepath.Join(dir, "settings.js"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, []string{"MQTT_HOST=" + host, fmt.Sprintf("MQTT_PORT=%d", brokerPort)}, "node", script, "--userDir", dir)
	n := nodeRED{p, "http://" + address(port)}
	eventually(t, "Node-RED runs", func() bool {
		if !p.running() {
			t.Fatal("Node-RED has ended")
		}
		status, _ := n.exchange(t, http.MethodGet, "/flows", "")
		return status == http.StatusOK
	})
	return n
}

// exchange sends a request and returns status and answer; the status is 0 without one.
func (n nodeRED) exchange(t *testing.T, method, path, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, n.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, ""
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, ""
	}
	return response.StatusCode, string(b)
}

// context is what the flow keeps under a name: members by meter.
func (n nodeRED) context(t *testing.T, name string) map[string]json.RawMessage {
	t.Helper()
	var kept struct{ Msg string }
	var members map[string]json.RawMessage
	status, body := n.exchange(t, http.MethodGet, "/context/flow/kmp2mqtt-flow/"+name, "")
	if status != http.StatusOK || json.Unmarshal([]byte(body), &kept) != nil || json.Unmarshal([]byte(kept.Msg), &members) != nil {
		return nil // not there yet
	}
	return members
}

// TestNodeRED imports the flow that we ship: values arrive, and its button has the meter
// read.
func TestNodeRED(t *testing.T) {
	t.Parallel()
	b := mosquitto(t, open)
	live := subscribe(t, b.client(), "kmp2mqtt/#")
	p := bridge(t, "METERS=house="+still("7").line(), "MQTT_URL="+b.url())
	n := startNodeRED(t, b.port)
	if status, answer := n.exchange(t, http.MethodPost, "/flows", read(t, "../docs/node-red-flow.json")); status != http.StatusNoContent && status != http.StatusOK {
		t.Fatalf("import: status %d: %s", status, answer)
	}

	var state string
	eventually(t, "the values are in the flow's context", func() bool {
		state = string(n.context(t, "values")["house"])
		return state != ""
	})
	var got, want map[string]any // JavaScript drops the zeros at the end: 0.000 is 0
	if err := json.Unmarshal([]byte(state), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(live.any("kmp2mqtt/house").Payload), &want); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || len(got) != members403() {
		t.Errorf("values are %v\nwant %v", got, want)
	}
	eventually(t, "the availability is there", func() bool {
		a := n.context(t, "availability")
		return string(a["house"]) == `"online"` && string(a["bridge"]) == `"online"`
	})

	before := len(live.all("kmp2mqtt/house"))
	if status, answer := n.exchange(t, http.MethodPost, "/inject/kmp2mqtt-read-now", ""); status != http.StatusOK {
		t.Fatalf("the button: status %d: %s", status, answer)
	}
	eventually(t, "the answer is in the flow's context", func() bool {
		return strings.HasPrefix(string(n.context(t, "responses")["house"]), `{"status":"ok"`)
	})
	eventually(t, "the reading is published", func() bool { return len(live.all("kmp2mqtt/house")) > before })

	stopped(t, p, syscall.SIGTERM)
	eventually(t, "the flow sees that all are offline", func() bool {
		a := n.context(t, "availability")
		return string(a["house"]) == `"offline"` && string(a["bridge"]) == `"offline"`
	})
}
