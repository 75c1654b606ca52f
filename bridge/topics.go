package bridge

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// topicRow documents one topic.
type topicRow struct {
	topic    string // below the base, or absolute with a slash before it; with <meter>, <key> and <verb> for what varies
	sent     bool   // by the bridge; else it is a command
	retained bool
	payload  string // in Markdown, with ~ for the code mark
}

// topicRows is the table of topics in README.md and docs/topics.md. A test holds what a
// running bridge publishes against it.
func topicRows() []topicRow {
	return []topicRow{
		{"<meter>", true, true, `the state: ~{"time":"2026-11-21T07:45:01Z","energy_gj":227.445,"power_kw":6.4,...}~`},
		{"<meter>/availability", true, true, `~online~ or ~offline~`},
		{"<meter>/diagnostics", true, true, `after each reading, good or not: ~serial~, ~model~, ~software_revision~, ~line~, ~interval_s~, ~last_reading~, ~last_error~, ~reads_ok~, ~reads_failed~, ~read_duration_s~, ~echo~, ~link_quality~ (percent of the last 20 exchanges), ~budget~, ~reads_today~, ~commands_today~, ~frames_today~, ~bytes_today~, ~awake_today_s~, ~next_reading~, ~unknown~ (why values are null or held), ~clock_drift_s~ (what the meter's clock is ahead), ~history_until~ (its newest row that is kept), ~usage~ (by day)`},
		{"<meter>/diagnosis", true, true, `why the last reading failed, or that it did not; when that changes, and after each failed reading: ~{"code":"asleep","text":"...","next_step":"...","since":"...","evidence":{...}}~`},
		{"<meter>/get", false, false, `empty: read now. ~{"registers":["energy",80,"0x4A"],"transaction":"x"}~: read those`},
		{"<meter>/set", false, false, `~{"interval":"10m"}~`},
		{"<meter>/response", true, false, `the answer to get and set: ~{"status":"ok","data":{...},"transaction":"x"}~ or ~{"status":"error","error":"...","data":{}}~`},
		{"<meter>/history", true, false, `a row of the meter's own log, in order, each once as far as the broker acknowledges: ~{"log":"hour","id":188,"serial":"80123456","time":"2026-11-21T07:00:00+01:00","energy_gj":227.445,...}~; ~correction_s~ behind the time of a clock that is wrong. With ~DATA_DIR~`},
		{"<meter>/<key>", true, true, `with ~MQTT_VALUES=true~: one value as plain text`},
		{"bridge/state", true, true, `~online~ or ~offline~; also the last will`},
		{"bridge/info", true, true, `version, commit, started, log level, meters (name, serial, model, line), settings with secrets redacted`},
		{"bridge/health", true, true, `every minute: uptime, memory, queue, and per meter reads by reason, last good read, its duration, checksum errors, echo, diagnosis, link quality`},
		{"bridge/event", true, false, `~{"time","type","meter","data"}~: ~meter_online~, ~meter_offline~, ~diagnosis~, ~meter_changed~, ~info_code~, ~value_held~, ~value_released~, ~value_unknown~, ~fine_learned~, ~power_mismatch~, ~unit_changed~, ~census~`},
		{"bridge/request/<verb>", false, false, `~read~ (a meter's name, ~{"meter":"house"}~, or empty: all), ~census~ (which registers does it have?), ~accept~ (~{"meter":"house","register":"energy"}~: let held values through), ~history~ (~{"meter":"house","log":"hour","since":"2026-11-20","until":"2026-11-21"}~: publish these rows again), ~discovery~ (announce again), ~log_level~ (~debug~, ~info~, ~warn~, ~error~)`},
		{"bridge/response/<verb>", true, false, `the answer, as above`},
		{"/kamstrup/values", true, true, `with ~MQTT_COMPAT=kamstrup-402-mqtt~: what that reader published of its meter, after each good reading: ~{"energy":227.445,"volume":2131.93,...}~, plain numbers without units and time. Of the first meter; any other has ~kamstrup/<meter>/values~`},
	}
}

// WriteTopicsTable writes the topics as a table in Markdown.
func WriteTopicsTable(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprint(b, "| topic | sent by | retained | payload |\n|---|---|---|---|\n")
	for _, r := range topicRows() {
		by, retained := "you", "never"
		if r.sent {
			by, retained = "bridge", "no"
		}
		if r.retained {
			retained = "yes"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", r.below("kmp2mqtt"), by, retained, strings.ReplaceAll(r.payload, "~", "`"))
	}
	return b.Flush()
}

// below is the row's topic where base is the base.
func (r topicRow) below(base string) string {
	if topic, absolute := strings.CutPrefix(r.topic, "/"); absolute {
		return topic
	}
	return base + "/" + r.topic
}
