package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// mosquitto is what the Supervisor answers when the app Mosquitto broker runs.
const mosquitto = `{"result":"ok","data":{"addon":"core_mosquitto","host":"core-mosquitto","port":1883,"ssl":false,"username":"addons","password":"pa ss=w\"ord","protocol":"3.1.1"}}`

// fake is a Supervisor that gives the same answer whenever the right token asks.
func fake(t *testing.T, status int, body string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/services/mqtt" {
			t.Errorf("asked for %s %s", r.Method, r.URL.Path)
		}
		if r.Header.Get("Authorization") != "Bearer token" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s
}

// file writes the options.
func file(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "options.json")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestEnviron(t *testing.T) {
	const byID = "/dev/serial/by-id/usb-Silicon_Labs_CP2102N_0001-if00-port0"
	always := []string{"DATA_DIR=/data", "HTTP_INGRESS=172.30.32.2", "HTTP_LISTEN=0.0.0.0:8099"}
	broker := []string{"MQTT_PASSWORD=pa ss=w\"ord", "MQTT_URL=mqtt://core-mosquitto:1883", "MQTT_USERNAME=addons"}
	for _, tt := range []struct {
		name, options string
		want          []string // with always, sorted
	}{
		{
			"one meter", `{"meters":[{"name":"house","device":"` + byID + `"}],"log_level":"info","settings":[]}`,
			append([]string{"METERS=house=" + byID, "LOG_LEVEL=info"}, broker...),
		},
		{
			"all of a meter", `{"meters":[{"name":"house","url":"tcp://192.0.2.7:2001","interval":10,"label":"Heat & more=?#","model":"403","options":"address=0x3F&budget=48"}],"interval":60,"log_level":"debug"}`,
			append([]string{"METERS=house=tcp://192.0.2.7:2001?address=0x3F&budget=48&interval=10m&label=Heat+%26+more%3D%3F%23&model=403", "READ_INTERVAL=60m", "LOG_LEVEL=debug"}, broker...),
		},
		{
			"two meters", `{"meters":[{"name":"a","url":" sim://403?echo=true "},{"name":"b","device":"/dev/ttyUSB0","options":" ?baud=2400 & tz=Europe/Copenhagen&"}]}`,
			append([]string{"METERS=a=sim://403?echo=true b=/dev/ttyUSB0?baud=2400&tz=Europe%2FCopenhagen"}, broker...),
		},
		{
			"a strange device", `{"meters":[{"name":"a","device":"/dev/by id/x?interval=1s#%41\u00a0é"}]}`,
			append([]string{"METERS=a=/dev/by%20id/x%3Finterval=1s%23%2541%C2%A0%C3%A9"}, broker...),
		},
		{
			"nulls are nothing", `{"meters":[{"name":"a","device":"/dev/ttyS1","url":null,"interval":null,"label":null}],"interval":null,"mqtt_url":null,"settings":null}`,
			append([]string{"METERS=a=/dev/ttyS1"}, broker...),
		},
		{
			"a broker elsewhere", `{"meters":[{"name":"a","url":"sim://403"}],"mqtt_url":"mqtts://192.0.2.10","mqtt_username":"u","mqtt_password":" p "}`,
			[]string{"METERS=a=sim://403", "MQTT_URL=mqtts://192.0.2.10", "MQTT_USERNAME=u", "MQTT_PASSWORD= p "},
		},
		{
			"page and settings", `{"meters":[{"name":"a","url":"sim://403"}],"page_username":"me","page_password":"secret","settings":[{"name":"MQTT_TOPIC","value":"meters"},{"name":"HA_DISCOVERY","value":"false"}]}`,
			append([]string{"METERS=a=sim://403", "HTTP_USERNAME=me", "HTTP_PASSWORD=secret", "MQTT_TOPIC=meters", "HA_DISCOVERY=false"}, broker...),
		},
		{
			"options of another version", `{"meters":[{"name":"a","url":"sim://403","colour":"red"}],"later":{"x":[1]}}`,
			append([]string{"METERS=a=sim://403"}, broker...),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := fake(t, http.StatusOK, mosquitto)
			got, err := Environ(t.Context(), Options{OptionsFile: file(t, tt.options), Base: s.URL + "/", Environ: []string{
				"SUPERVISOR_TOKEN=token", "TZ=Europe/Copenhagen", "PATH=/usr/bin", "HTTP_USERNAME=old", "METERS=old=sim://21", "DATA_DIR=/old",
			}})
			if err != nil {
				t.Fatal(err)
			}
			kept := []string{"SUPERVISOR_TOKEN=token", "TZ=Europe/Copenhagen", "PATH=/usr/bin"}
			want := slices.Concat(tt.want, always)
			slices.Sort(want)
			if want = slices.Concat(kept, want); !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// TestWrongOptions: each error names the option, and says what to do.
func TestWrongOptions(t *testing.T) {
	long := strings.Repeat("x", 500)
	for _, tt := range []struct {
		options string
		want    []string // each a line of the error
	}{
		{`{"meters":[{"device":"/dev/ttyUSB0"}]}`, []string{`option meters: meter 1: name: is empty; write a short one such as house`}},
		{`{"meters":[{"name":"a b","device":"/dev/ttyUSB0"}]}`, []string{`option meters: meter "a b": name: only letters a to z, digits, - and _ are allowed; what people should read goes into label`}},
		{`{"meters":[{"name":"a=sim://403 b","url":"sim://21"}]}`, []string{`option meters: meter "a=sim://403 b": name: only letters a to z, digits, - and _ are allowed; what people should read goes into label`}},
		{`{"meters":[{"name":"a"}]}`, []string{`option meters: meter "a": device: is empty, and so is url; choose the optical head's device, or write a url such as tcp://192.0.2.7:2001`}},
		{`{"meters":[{"name":"a","device":"/dev/ttyUSB0","url":"tcp://h:1"}]}`, []string{`option meters: meter "a": url: device is set, too; keep one of them`}},
		{`{"meters":[{"name":"a","device":"tcp://h:1"}]}`, []string{`option meters: meter "a": device: "tcp://h:1" is no path that begins with /dev/; choose one from the list, or write a network address into url`}},
		{`{"meters":[{"name":"a","url":"tcp://h:1 b=sim://403"}]}`, []string{`option meters: meter "a": url: holds white space; remove it, or write it as %20`}},
		{`{"meters":[{"name":"a","url":"sim://403","interval":-1}]}`, []string{`option meters: meter "a": interval: -1 is no number of minutes; write 1 to 10080, or leave it empty`}},
		{`{"meters":[{"name":"a","url":"sim://403?model=403","model":"601"}]}`, []string{`option meters: meter "a": options: model is set twice; keep one of them`}},
		{`{"meters":[{"name":"a","url":"sim://403","interval":5,"options":"interval=1m"}]}`, []string{`option meters: meter "a": options: interval is set twice; keep one of them`}},
		{`{"meters":[{"name":"a","url":"sim://403","options":"budget"}]}`, []string{`option meters: meter "a": options: "budget" is not name=value; write options such as address=0x3F&budget=48`}},
		{`{"meters":[{"name":"a","url":"sim://403","options":"b =1"}]}`, []string{`option meters: meter "a": options: "b =1" is not name=value; write options such as address=0x3F&budget=48`}},
		{`{"meters":[{"name":"a","url":"sim://403","options":"label=50%"}]}`, []string{`option meters: meter "a": options: label: a % that is part of a value is written %25`}},
		{`{"meters":[{"name":"a","url":"sim://403","options":"label="}]}`, []string{`option meters: meter "a": options: label has no value; write label=... or remove it`}},
		{`{"meters":[{"name":"` + long + `","url":"sim://403"},{}]}`, []string{
			`option meters: meter 2: name: is empty; write a short one such as house`,
			`option meters: meter 2: device: is empty, and so is url; choose the optical head's device, or write a url such as tcp://192.0.2.7:2001`,
		}},
		{`{"meters":[{"name":"a","url":"sim://403"}],"mqtt_username":"u","mqtt_password":"hunter2"}`, []string{
			`option mqtt_username: is for the broker in mqtt_url, which is empty: set mqtt_url, or clear this one; the broker of Home Assistant tells its own password`,
			`option mqtt_password: is for the broker in mqtt_url, which is empty: set mqtt_url, or clear this one; the broker of Home Assistant tells its own password`,
		}},
		{`{"meters":[{"name":"a","url":"sim://403"}],"settings":[{"name":"DATA_DIR","value":"/"},{"name":"MQTT_TOPIC","value":"a"},{"name":"MQTT_TOPIC","value":"b"}]}`, []string{
			`option settings: "DATA_DIR" cannot be set here; there are HA_DISCOVERY, HA_PREFIX, LOG_FORMAT, MQTT_CLIENT_ID, MQTT_COMPAT, MQTT_TOPIC, MQTT_VALUES, REGISTERS`,
			`option settings: MQTT_TOPIC is there twice; keep one of them`,
		}},
		{`{"meters":[{"name":"a","url":"sim://403"}],"mqtt_url":"mqtt://h","mqtt_password":"hunter2\u0000"}`, []string{`option mqtt_password: holds a zero byte; write it again`}},
		{`{"meters":[],"interval":-5}`, []string{`option interval: -5 is no number of minutes; write 1 to 10080, or leave it empty`}},
		{`{"meters":[]}`, []string{ErrNoMeters.Error()}},
		{`{}`, []string{ErrNoMeters.Error()}},
		{`{"meters":{}}`, []string{`option meters: object stands where a list belongs; correct it in the app's Configuration`}},
		{`{"meters":["a"]}`, []string{`option meters: string stands where an entry with fields belongs; correct it in the app's Configuration`}},
		{`{"meters":[{"name":"a","interval":"5"}]}`, []string{`option meters: interval: string stands where a whole number belongs; correct it in the app's Configuration`}},
		{`{"mqtt_password":4711}`, []string{`option mqtt_password: number stands where text belongs; correct it in the app's Configuration`}},
		{`null`, []string{"supervisor: the app's options are no JSON object; save them again in Home Assistant"}},
		{``, []string{"supervisor: the app's options are no JSON object; save them again in Home Assistant"}},
		{`{"mqtt_password":"hunter2`, []string{"supervisor: the app's options are damaged (unexpected end of JSON input); save them again in Home Assistant"}},
		{`{"x":"` + strings.Repeat("y", maxOptions) + `"}`, []string{"supervisor: the app's options are larger than 1048576 bytes; remove what is not needed"}},
	} {
		_, err := Environ(t.Context(), Options{OptionsFile: file(t, tt.options), Base: "http://127.0.0.1:1", Token: "token"})
		if err == nil {
			t.Errorf("%.200s: no error", tt.options)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "4711") {
			t.Errorf("%.200s: the error quotes a password: %v", tt.options, err)
		}
		lines := strings.Split(err.Error(), "\n")
		for _, want := range tt.want {
			if !slices.Contains(lines, want) {
				t.Errorf("%.200s:\n got %v\nwant %v", tt.options, err, want)
			}
		}
		if len(lines) != len(tt.want) && !strings.Contains(tt.options, long) {
			t.Errorf("%.200s: %d lines: %v", tt.options, len(lines), err)
		}
	}
}

func TestOptionErrorIs(t *testing.T) {
	_, err := Environ(t.Context(), Options{OptionsFile: file(t, `{"meters":[{"name":"a","url":"sim://403","interval":-3}]}`)})
	wrong, ok := errors.AsType[*OptionError](err)
	if !ok || wrong.Option != "meters" || wrong.Meter != `"a"` || wrong.Field != "interval" || errors.Unwrap(wrong) == nil {
		t.Errorf("got %#v", err)
	}
	if _, err := Environ(t.Context(), Options{OptionsFile: file(t, `{"meters":[]}`)}); !errors.Is(err, ErrNoMeters) {
		t.Errorf("got %v", err)
	}
}

func TestOptionsFile(t *testing.T) {
	if _, err := Environ(t.Context(), Options{OptionsFile: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "use the verb run") {
		t.Errorf("got %v", err)
	}
	if _, err := Environ(t.Context(), Options{OptionsFile: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "no ordinary file") {
		t.Errorf("got %v", err)
	}
}

const simulated = `{"meters":[{"name":"a","url":"sim://403"}]}`

// TestBroker: what the Supervisor may say, and what becomes of it at once.
func TestBroker(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		url    string
		err    string
	}{
		{"plain", 200, mosquitto, "mqtt://core-mosquitto:1883", ""},
		{"tls", 200, `{"result":"ok","data":{"host":"broker.example","port":8883,"ssl":true}}`, "mqtts://broker.example:8883", ""},
		{"ipv6", 200, `{"result":"ok","data":{"host":"fd00::7","port":1883}}`, "mqtt://[fd00::7]:1883", ""},
		{"no broker", 400, `{"result":"error","message":"Service not enabled"}`, "", ErrNoBroker.Error()},
		{"no broker, said politely", 200, `{"result":"error","message":"service NOT ENABLED"}`, "", ErrNoBroker.Error()},
		{"no such service", 404, `{"result":"error","message":"Service does not exist"}`, "", ErrNoBroker.Error()},
		{"not found at all", 404, `404: Not Found`, "", ErrNoBroker.Error()},
		{"no right", 403, `{"result":"error","message":"No access to mqtt service!"}`, "", "supervisor: the Supervisor refuses this app (status 403); reinstall the app, or set the option mqtt_url"},
		{"no data", 200, `{"result":"ok","data":[]}`, "", "supervisor: the Supervisor's answer names no broker; restart the broker's app, or set the option mqtt_url"},
		{"no host", 200, `{"result":"ok","data":{}}`, "", `supervisor: the MQTT broker's host "" is no name or address; restart the broker's app, or set the option mqtt_url`},
		{"another setting as host", 200, `{"result":"ok","data":{"host":"a mqtt://b","port":1883}}`, "", `supervisor: the MQTT broker's host "a mqtt://b" is no name or address; restart the broker's app, or set the option mqtt_url`},
		{"no port", 200, `{"result":"ok","data":{"host":"h","port":65536}}`, "", "supervisor: the MQTT broker's port 65536 is not in 1 to 65535; restart the broker's app, or set the option mqtt_url"},
		{"zero byte", 200, `{"result":"ok","data":{"host":"h","port":1,"password":"x\u0000"}}`, "", "supervisor: the MQTT broker's user or password holds a zero byte; restart the broker's app, or set the option mqtt_url"},
		{"endless", 200, strings.Repeat(" ", maxAnswer+1), "", "supervisor: the Supervisor's answer is larger than 65536 bytes; set the option mqtt_url"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := fake(t, tt.status, tt.body)
			environ, err := Environ(t.Context(), Options{OptionsFile: file(t, simulated), Base: s.URL, Token: "token"})
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("got %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil || !slices.Contains(environ, "MQTT_URL="+tt.url) {
				t.Errorf("got %v, %v; want %s", environ, err, tt.url)
			}
		})
	}
	s := fake(t, http.StatusOK, mosquitto)
	if _, err := Environ(t.Context(), Options{OptionsFile: file(t, simulated), Base: s.URL, Token: "another"}); err == nil || !strings.Contains(err.Error(), "status 401") {
		t.Errorf("wrong token: %v", err)
	}
}

// roundTrip is a Supervisor without a network.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func response(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{}}
}

// TestSupervisorStarts: it is asked again while it is not ready, and the log tells once.
func TestSupervisorStarts(t *testing.T) {
	answers := []func() (*http.Response, error){
		func() (*http.Response, error) { return nil, errors.New("connection refused") },
		func() (*http.Response, error) {
			return response(400, `{"result":"error","message":"System is not ready with state: setup"}`), nil
		},
		func() (*http.Response, error) { return response(502, "<html>"), nil },
		func() (*http.Response, error) { return response(200, "<html>"), nil },
		func() (*http.Response, error) { return response(200, mosquitto), nil },
	}
	name := file(t, simulated)
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		asked := 0
		start := time.Now()
		environ, err := Environ(t.Context(), Options{OptionsFile: name, Token: "token", Log: slog.New(slog.NewTextHandler(&log, nil)), Client: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.URL.String() != "http://supervisor/services/mqtt" {
				t.Errorf("asked for %s", r.URL)
			}
			asked++
			return answers[asked-1]()
		})}})
		if err != nil || !slices.Contains(environ, "MQTT_URL=mqtt://core-mosquitto:1883") {
			t.Errorf("got %v, %v", environ, err)
		}
		if got := time.Since(start); got != 15*time.Second { // 1 + 2 + 4 + 8
			t.Errorf("took %v", got)
		}
		if strings.Count(log.String(), "\n") != 1 || strings.Contains(log.String(), "token") {
			t.Errorf("log: %s", log.String())
		}
	})
}

// TestSupervisorNeverReady: after two minutes there is an error, also when it hangs.
func TestSupervisorNeverReady(t *testing.T) {
	name := file(t, simulated)
	for _, hang := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			_, err := Environ(t.Context(), Options{OptionsFile: name, Client: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				if hang {
					<-r.Context().Done()
					return nil, r.Context().Err()
				}
				return response(503, ""), nil
			})}})
			if err == nil || !strings.Contains(err.Error(), "restart the app, or set the option mqtt_url") || !waitsForBroker(err) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(start); took != patience {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestEndedWhileAsking: who ends the app does not wait for the Supervisor.
func TestEndedWhileAsking(t *testing.T) {
	name := file(t, simulated)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		_, err := Environ(ctx, Options{OptionsFile: name, Client: &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			return nil, errors.New("connection refused")
		})}})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
	})
}

func TestTranslate(t *testing.T) {
	in := "the settings are not usable:\n  METERS: meter \"a\": option x: unknown\n  MQTT_TOPIC: \"+\" is a wildcard\n  DATA_DIR: stays\nREAD_INTERVAL: METERS: once"
	want := "the settings are not usable:\n  option meters: meter \"a\": option x: unknown\n  option settings, MQTT_TOPIC: \"+\" is a wildcard\n  DATA_DIR: stays\noption interval: METERS: once"
	if got := Translate(in); got != want {
		t.Errorf("got\n%s", got)
	}
}

// FuzzOptions: whatever the file holds, there is an error or an environment in which each
// meter is one entry that has its own name, and no field but url and options adds an option.
func FuzzOptions(f *testing.F) {
	f.Add([]byte(simulated))
	f.Add([]byte(`{"meters":[{"name":"house","device":"/dev/a b?x=1&y#\u2003","interval":5,"label":"a&b=c d\u00a0","model":"403?x","options":"a=b&c=%20d"}],"settings":[{"name":"MQTT_TOPIC","value":"x\ny"}]}`))
	f.Add([]byte(`{"meters":[{"name":"a","url":"tcp://h:1?x=y#&="},{"name":"a"}],"interval":1e400}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, content []byte) {
		c, err := parseOptions(content)
		if err != nil {
			return
		}
		s, err := c.settings()
		if err != nil {
			return
		}
		words := strings.Fields(s["METERS"])
		if len(words) != len(c.Meters) {
			t.Fatalf("%d meters became %d entries: %q", len(c.Meters), len(words), s["METERS"])
		}
		for i, m := range c.Meters {
			rest, ok := strings.CutPrefix(words[i], m.Name+"=")
			if !ok || strings.ContainsFunc(m.Name, notInName) {
				t.Fatalf("entry %q does not begin with the name %q", words[i], m.Name)
			}
			if m.Device == "" || m.Options != "" {
				continue
			}
			place, query, _ := strings.Cut(rest, "?")
			if back, err := url.PathUnescape(place); err != nil || back != m.Device {
				t.Fatalf("device %q came back as %q, %v", m.Device, back, err)
			}
			values, err := url.ParseQuery(query)
			if err != nil {
				t.Fatal(err)
			}
			want := url.Values{}
			for name, value := range map[string]string{"interval": minutes(m.Interval), "label": m.Label, "model": m.Model} {
				if value != "" {
					want.Set(name, value)
				}
			}
			if fmt.Sprint(values) != fmt.Sprint(want) {
				t.Fatalf("options %v, want %v", values, want)
			}
		}
		for name, value := range s {
			if strings.ContainsRune(value, 0) || optionOf(name) == "" {
				t.Fatalf("%s=%q", name, value)
			}
		}
	})
}

// FuzzAnswer: whatever the Supervisor says, there is an error or a broker whose URL names
// host and port and nothing else.
func FuzzAnswer(f *testing.F) {
	f.Add(200, []byte(mosquitto))
	f.Add(400, []byte(`{"result":"error","message":"Service not enabled"}`))
	f.Add(200, []byte(`{"result":"ok","data":{"host":"[::1]:1/ x","port":-1}}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		b, err := judge(status, body)
		if err != nil {
			var answer struct {
				Data struct {
					Password string `json:"password"`
				} `json:"data"`
			}
			if json.Unmarshal(body, &answer) == nil && len(answer.Data.Password) > 8 && strings.Contains(err.Error(), answer.Data.Password) {
				t.Fatalf("the error quotes the password: %v", err)
			}
			return
		}
		u, err := url.Parse(b.url())
		if err != nil {
			return // ParseConfig says so
		}
		if strings.ContainsAny(b.url(), " \t\n?#@") || u.Path != "" || u.Port() != fmt.Sprint(b.Port) {
			t.Fatalf("broker %+v became %s", b, u)
		}
	})
}
