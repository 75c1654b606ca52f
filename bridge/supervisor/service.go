package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// broker is the service mqtt as the Supervisor tells it.
type broker struct {
	Host     string `json:"host"`
	Port     int    `json:"port"`
	SSL      bool   `json:"ssl"`
	Username string `json:"username"`
	Password string `json:"password"`
}

// url is the broker's address as a setting.
func (b broker) url() string {
	u := url.URL{Scheme: "mqtt", Host: net.JoinHostPort(b.Host, strconv.Itoa(b.Port))}
	if b.SSL {
		u.Scheme = "mqtts"
	}
	return u.String()
}

// check says whether the answer can be used.
func (b broker) check() error {
	switch {
	case b.Host == "" || strings.ContainsFunc(b.Host, notInHost):
		return fmt.Errorf("supervisor: the MQTT broker's host %s is no name or address; restart the broker's app, or set the option mqtt_url", quote(b.Host))
	case b.Port < 1 || b.Port > 65535:
		return fmt.Errorf("supervisor: the MQTT broker's port %d is not in 1 to 65535; restart the broker's app, or set the option mqtt_url", b.Port)
	case strings.ContainsRune(b.Username+b.Password, 0):
		return errors.New("supervisor: the MQTT broker's user or password holds a zero byte; restart the broker's app, or set the option mqtt_url")
	}
	return nil
}

// notInHost finds what neither a host's name nor its address may hold.
func notInHost(r rune) bool { return notInName(r) && r != '.' && r != ':' }

// notReadyError says that asking again may help.
type notReadyError struct{ err error }

func (e *notReadyError) Error() string { return e.err.Error() }

func (e *notReadyError) Unwrap() error { return e.err }

// await asks for the broker until there is an answer, for as long as patience lasts: after
// a power failure everything starts at once, and the Supervisor refuses for a while.
func (o Options) await(ctx context.Context) (broker, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errImpatient)
	defer cancel()
	told := false
	for wait := time.Second; ; wait = min(2*wait, longWait) {
		b, err := o.ask(ctx)
		if _, again := errors.AsType[*notReadyError](err); !again {
			return b, err
		}
		if !told && ctx.Err() == nil {
			o.Log.Info("the Supervisor does not tell the MQTT broker yet; it is asked again", "error", err)
			told = true
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			if !errors.Is(context.Cause(ctx), errImpatient) {
				return broker{}, fmt.Errorf("supervisor: asking for the MQTT broker: %w", context.Cause(ctx))
			}
			return broker{}, fmt.Errorf("supervisor: the Supervisor does not tell the MQTT broker: %w; restart the app, or set the option mqtt_url", err)
		}
	}
}

// errImpatient ends await.
var errImpatient = errors.New("the Supervisor took too long")

// ask asks the Supervisor for its broker, once.
func (o Options) ask(ctx context.Context) (broker, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.Base+"/services/mqtt", http.NoBody)
	if err != nil {
		return broker{}, fmt.Errorf("supervisor: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+o.Token)
	resp, err := o.Client.Do(req)
	if err != nil {
		return broker{}, &notReadyError{err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return broker{}, &notReadyError{err}
	}
	if len(body) > maxAnswer {
		return broker{}, fmt.Errorf("supervisor: the Supervisor's answer is larger than %d bytes; set the option mqtt_url", maxAnswer)
	}
	return judge(resp.StatusCode, body)
}

// judge reads an answer of the Supervisor. It quotes the answer's own message and nothing
// else of it: the rest holds a password.
func judge(status int, body []byte) (broker, error) {
	var answer struct {
		Result  string          `json:"result"`
		Message string          `json:"message"`
		Data    json.RawMessage `json:"data"`
	}
	parseErr := json.Unmarshal(body, &answer)
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return broker{}, fmt.Errorf("supervisor: the Supervisor refuses this app (status %d); reinstall the app, or set the option mqtt_url", status)
	case status == http.StatusNotFound,
		answer.Result == "error" && strings.Contains(strings.ToLower(answer.Message), "not enabled"):
		return broker{}, ErrNoBroker
	case status != http.StatusOK || answer.Result == "error":
		return broker{}, &notReadyError{fmt.Errorf("status %d, message %s", status, quote(answer.Message))}
	case parseErr != nil:
		return broker{}, &notReadyError{errors.New("the answer is no JSON")}
	}
	var b broker
	if err := json.Unmarshal(answer.Data, &b); err != nil {
		return broker{}, errors.New("supervisor: the Supervisor's answer names no broker; restart the broker's app, or set the option mqtt_url")
	}
	return b, b.check()
}
