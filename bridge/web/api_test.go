package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
)

// sent gives a request a body.
func sent(media, text string) func(*http.Request) {
	return func(r *http.Request) {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
		if media != "" {
			r.Header.Set("Content-Type", media)
		}
	}
}

func TestMeters(t *testing.T) {
	rw := ask(openConfig, newFake(fakeTime), http.MethodGet, "/api/v1/meters")
	const want = `[{"name":"house","title":"House","serial":"80123456","model":"MULTICAL 403","software_revision":"F1","line":"tcp://192.0.2.7:2001",` +
		`"interval_s":1800,"availability":"online","last_reading":"2026-11-21T07:45:01Z","next_reading":"2026-11-21T08:15:01Z","diagnosis_code":"ok","link_quality":95},` +
		`{"name":"garage","title":"Garage","serial":null,"model":null,"software_revision":null,"line":"tcp://192.0.2.8:2001",` +
		`"interval_s":600,"availability":"offline","last_reading":null,"next_reading":"2026-11-21T07:46:01Z","diagnosis_code":"host_unreachable","link_quality":null}]` + "\n"
	if rw.Body.String() != want || rw.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%s\n%s, want\n%s", rw.Header().Get("Content-Type"), rw.Body, want)
	}
	if rw := ask(openConfig, &fakeSource{}, http.MethodGet, "/api/v1/meters"); rw.Body.String() != "[]\n" {
		t.Errorf("none: %s", rw.Body)
	}
}

// The payloads are those of MQTT, to the last digit.
func TestMeter(t *testing.T) {
	src := newFake(fakeTime)
	rw := ask(openConfig, src, http.MethodGet, "/api/v1/meters/house")
	for name, payload := range map[string]json.RawMessage{
		"state": src.meters[0].State, "diagnostics": src.meters[0].Diagnostics, "diagnosis": src.meters[0].Diagnosis,
	} {
		if want := fmt.Sprintf("%q:%s", name, payload); !strings.Contains(rw.Body.String(), want) {
			t.Errorf("%s\nis not in\n%s", want, rw.Body)
		}
	}
	if !strings.Contains(rw.Body.String(), `"power_kw":6.40,`) {
		t.Errorf("a digit is lost: %s", rw.Body)
	}
	if rw := ask(openConfig, src, http.MethodGet, "/api/v1/meters/garage"); !strings.Contains(rw.Body.String(), `"state":null,"diagnostics":null,"diagnosis":{`) {
		t.Errorf("garage: %s", rw.Body)
	}
	rw = ask(openConfig, src, http.MethodGet, "/api/v1/meters/cellar")
	if want := `{"title":"Not Found","status":404,"detail":"there is no meter \"cellar\"; /api/v1/meters lists them"}`; rw.Code != http.StatusNotFound || rw.Body.String() != want {
		t.Errorf("%d %s", rw.Code, rw.Body)
	}
}

func TestRead(t *testing.T) {
	const answer = `{"status":"error","error":"as it came","data":{"x":1.50}}`
	for name, tt := range map[string]struct {
		err   error
		want  int
		after string
	}{
		"good":     {nil, 200, ""},
		"unknown":  {fmt.Errorf("%w: x", ErrUnknownMeter), 404, ""},
		"request":  {fmt.Errorf("%w: x", ErrRequest), 400, ""},
		"too many": {fmt.Errorf("x: %w", &RetryError{After: 1500 * time.Millisecond, Err: errors.New("x")}), 429, "2"},
		"soon":     {&RetryError{Err: errors.New("x")}, 429, "1"},
		"stopping": {fmt.Errorf("%w: x", ErrStopping), 503, "3"},
		"gone":     {context.Canceled, 503, "3"},
		"silent":   {fmt.Errorf("bridge: %w", kmp.ErrNoReply), 502, ""},
	} {
		t.Run(name, func(t *testing.T) {
			src := newFake(fakeTime)
			var meter, request string
			src.read = func(_ context.Context, m string, r []byte) ([]byte, error) {
				meter, request = m, string(r)
				return []byte(answer), tt.err
			}
			body := `{"registers":["energy",80],"transaction":1.0}`
			rw := ask(openConfig, src, http.MethodPost, "/api/v1/meters/house/read", sent("application/json; charset=utf-8", body))
			if rw.Code != tt.want || rw.Body.String() != answer || rw.Header().Get("Retry-After") != tt.after || rw.Header().Get("Content-Type") != "application/json" {
				t.Errorf("%d %v %s", rw.Code, rw.Header(), rw.Body)
			}
			if meter != "house" || request != body {
				t.Errorf("asked %q for %s", meter, request)
			}

			src.read = func(context.Context, string, []byte) ([]byte, error) { return nil, tt.err }
			if rw := ask(openConfig, src, http.MethodPost, "/api/v1/meters/house/read"); tt.err != nil && (rw.Code != tt.want || !strings.Contains(rw.Body.String(), `"detail":"`)) {
				t.Errorf("without an answer: %d %s", rw.Code, rw.Body)
			}
		})
	}
}

// What a meter is asked is JSON of some kilobytes, or nothing.
func TestReadBody(t *testing.T) {
	most := `{"transaction":"` + strings.Repeat("x", maxBody-18) + `"}`
	for name, tt := range map[string]struct {
		media, text string
		want        int
	}{
		"nothing":       {"", "", 200},
		"nothing typed": {"application/json", "", 200},
		"the most":      {"application/json", most, 200},
		"more":          {"application/json", most + " ", 413},
		"a form":        {"application/x-www-form-urlencoded", "registers=energy", 415},
		"a text":        {"text/plain", "{}", 415},
		"no type":       {"", "{}", 415},
		"odd type":      {"application/jsonp", "{}", 415},
	} {
		src := newFake(fakeTime)
		var request []byte
		src.read = func(_ context.Context, _ string, r []byte) ([]byte, error) {
			request = r
			return []byte("{}"), nil
		}
		rw := ask(openConfig, src, http.MethodPost, "/api/v1/meters/house/read", sent(tt.media, tt.text))
		if rw.Code != tt.want || tt.want == 200 && string(request) != tt.text {
			t.Errorf("%s: %d, want %d: %s", name, rw.Code, tt.want, rw.Body)
		}
	}
	if rw := ask(openConfig, newFake(fakeTime), http.MethodPost, "/api/v1/meters/house/read", broken); rw.Code != http.StatusBadRequest {
		t.Errorf("half a body: %d", rw.Code)
	}
}

// broken is a body that ends before its end.
func broken(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(failing{}), -1 }

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// A reading may take longer than any request may take to come; it ends when nobody waits.
func TestSlowRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(time.Now())
		ended := make(chan error, 2)
		src.read = func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
			select {
			case <-ctx.Done():
			case <-time.After(3 * time.Minute):
			}
			ended <- ctx.Err()
			return []byte("{}"), ctx.Err()
		}
		p := open(t, openConfig, src)
		const ask = "POST /api/v1/meters/house/read HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
		c := p.dial("127.0.0.1")
		io.WriteString(c, ask)
		if text, err := io.ReadAll(io.LimitReader(c, 15)); err != nil || string(text) != "HTTP/1.1 200 OK" {
			t.Errorf("%s, %v", text, err)
		}
		if err := <-ended; err != nil {
			t.Errorf("a long reading ends with %v", err)
		}
		c.Close()
		c = p.dial("127.0.0.1")
		io.WriteString(c, ask)
		synctest.Wait()
		c.Close()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("a reading for nobody ends with %v", err)
		}
	})
}

func TestChart(t *testing.T) {
	src := newFake(fakeTime)
	rw := ask(openConfig, src, http.MethodGet, "/api/v1/meters/house/chart")
	for _, want := range []string{`"key":"power_kw"`, `"values":[33.4,null]`, `"hours":[{"start":"2026-11-21T07:00:00Z","energy":0.021},{"start":"2026-11-21T06:00:00Z","energy":null}]`, `"source":"memory"`} {
		if !strings.Contains(rw.Body.String(), want) {
			t.Errorf("%s is not in %s", want, rw.Body)
		}
	}
	if rw := ask(openConfig, src, http.MethodGet, "/api/v1/meters/garage/chart"); !strings.Contains(rw.Body.String(), `{"times":[],"series":[],"hours":[],"days":[],`) {
		t.Errorf("without any: %s", rw.Body)
	}
	if rw := ask(openConfig, src, http.MethodGet, "/api/v1/meters/cellar/chart"); rw.Code != http.StatusNotFound {
		t.Errorf("of none: %d", rw.Code)
	}
}

func TestFrames(t *testing.T) {
	src := newFake(fakeTime)
	src.frames["house"] = append(src.frames["house"], Frame{Time: fakeTime, Direction: kmp.FromMeter})
	var frames []struct {
		Time, Direction, Wire string
		Explained             [][]string
		Error, Decode         *string
	}
	rw := ask(openConfig, src, http.MethodGet, "/api/v1/meters/house/frames")
	if err := json.Unmarshal(rw.Body.Bytes(), &frames); err != nil || len(frames) != 4 {
		t.Fatalf("%v: %s", err, rw.Body)
	}
	request, answer, noise, silence := frames[0], frames[1], frames[2], frames[3]
	if request.Time != "2026-11-21T07:45:00Z" || request.Direction != "to_meter" || request.Wire != "80 3F 02 35 E9 0D" || *request.Decode != "kmp2mqtt decode 803F0235E90D" || request.Error != nil {
		t.Errorf("request: %+v", request)
	}
	words := fmt.Sprint(answer.Explained)
	if answer.Direction != "from_meter" || !strings.Contains(words, "80123456") || strings.Count(words, "GetSerialNo") != 2 || answer.Error != nil {
		t.Errorf("an echo and the answer: %+v", answer)
	}
	if noise.Wire != "40 3F FF" || noise.Error == nil || len(noise.Explained) != 0 || noise.Decode == nil {
		t.Errorf("noise: %+v", noise)
	}
	if silence.Wire != "" || silence.Error != nil || silence.Explained == nil || silence.Decode != nil {
		t.Errorf("silence: %+v", silence)
	}
	if rw := ask(openConfig, src, http.MethodGet, "/api/v1/meters/garage/frames"); rw.Body.String() != "[]\n" {
		t.Errorf("none: %s", rw.Body)
	}
}

func TestBundle(t *testing.T) {
	src := newFake(fakeTime)
	rw := ask(openConfig, src, http.MethodGet, "/api/v1/meters/house/bundle")
	disposition, params, err := mime.ParseMediaType(rw.Header().Get("Content-Disposition"))
	name, dated := strings.CutPrefix(params["filename"], "kmp2mqtt-house-")
	if err != nil || disposition != "attachment" || !dated {
		t.Errorf("%s: %v", rw.Header().Get("Content-Disposition"), err)
	}
	if _, err := time.Parse(time.DateOnly+".json", name); err != nil {
		t.Error(err)
	}
	if !json.Valid(rw.Body.Bytes()) {
		t.Errorf("%s", rw.Body)
	}

	src.record = func(context.Context, string, io.Writer) error { return errors.New("bridge: the disk is full") }
	rw = ask(openConfig, src, http.MethodGet, "/api/v1/meters/house/bundle")
	if rw.Code != http.StatusBadGateway || rw.Header().Get("Content-Disposition") != "" || !strings.Contains(rw.Body.String(), "the disk is full") {
		t.Errorf("%d %v %s", rw.Code, rw.Header(), rw.Body)
	}
	if rw := ask(openConfig, src, http.MethodHead, "/api/v1/meters/house/bundle"); rw.Code != http.StatusOK || rw.Body.Len() > 0 {
		t.Errorf("HEAD: %d %s", rw.Code, rw.Body)
	}
}

// Half a bundle does not look like a whole one.
func TestHalfBundle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(time.Now())
		src.record = func(_ context.Context, _ string, w io.Writer) error {
			io.WriteString(w, `{"frames":[`+strings.Repeat("1,", 20<<10))
			return errors.New("bridge: the rest is gone")
		}
		p := open(t, openConfig, src)
		response := get(t, p.dial("127.0.0.1"), "/api/v1/meters/house/bundle")
		if _, err := io.Copy(io.Discard, response.Body); err == nil {
			t.Error("it looks whole")
		}
	})
}

// An answer that a slow line takes in pieces is whole: only who takes nothing is cut off.
func TestSlowBundle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(time.Now())
		const size = 200 << 10
		var failed error
		src.record = func(_ context.Context, _ string, w io.Writer) error {
			_, failed = io.WriteString(w, strings.Repeat("x", size))
			return failed
		}
		p := open(t, openConfig, src)
		response := get(t, p.dial("127.0.0.1"), "/api/v1/meters/house/bundle")
		got := 0
		for b := make([]byte, 4<<10); ; {
			n, err := response.Body.Read(b)
			got += n
			if err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if got != size || failed != nil {
			t.Errorf("%d bytes, %v", got, failed)
		}
		deaf := get(t, p.dial("127.0.0.1"), "/api/v1/meters/house/bundle")
		start := time.Now()
		time.Sleep(writeTimeout + time.Second)
		synctest.Wait()
		if failed == nil {
			t.Errorf("after %s nobody was cut off", time.Since(start))
		}
		deaf.Body.Close()
	})
}

// A browser's HEAD is a GET without a body.
func TestHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t, openConfig, newFake(time.Now()))
		for _, path := range []string{"/", "/assets/page.css", "/api/v1/meters", "/api/v1/meters/house", "/api/v1/events", "/metrics", "/healthz"} {
			c := p.dial("127.0.0.1")
			io.WriteString(c, "HEAD "+path+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
			text, err := io.ReadAll(c)
			if head, body, _ := strings.Cut(string(text), "\r\n\r\n"); err != nil || !strings.HasPrefix(head, "HTTP/1.1 200 OK\r\n") || body != "" {
				t.Errorf("%s: %v %q", path, err, text)
			}
		}
	})
}
