package statistics

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"

	"github.com/gorilla/websocket"
)

var (
	errToken    = errors.New("statistics: Home Assistant refuses the token")
	errProtocol = errors.New("statistics: what answers does not speak Home Assistant's websocket protocol")
	errNotShown = errors.New("statistics: Home Assistant took the hours and does not show them")
)

// Codes of Home Assistant's error results that every command may have.
const (
	codeUnauthorized = "unauthorized"
	codeUnknown      = "unknown_command"
	codeFormat       = "invalid_format"
)

// CommandError is a command that Home Assistant answered with an error.
type CommandError struct {
	Command       string
	Code, Message string // as Home Assistant said it
}

func (e *CommandError) Error() string {
	return fmt.Sprintf("statistics: %s: %s: %s", e.Command, e.Code, e.Message)
}

// statusError is an answer to the upgrade that is no websocket.
type statusError struct{ status int }

func (e *statusError) Error() string {
	return fmt.Sprintf("statistics: no websocket but HTTP status %d", e.status)
}

// sourceError is a failure on our own side.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return "statistics: " + e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// unexplained is the reason of what has no better one.
const unexplained = "it failed"

// explain says in a few words why an attempt failed, and what to do about it.
func explain(err error) (reason, advice string) {
	var (
		source   *sourceError
		command  *CommandError
		status   *statusError
		dns      *net.DNSError
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		record   tls.RecordHeaderError
		timeout  net.Error
		closed   *websocket.CloseError
	)
	switch {
	case errors.As(err, &source):
		return "own store fails", "see the error; readings and messages go on"
	case errors.Is(err, errToken):
		return "token refused", "make a new long-lived access token in Home Assistant, in the profile of an administrator under Security, and set HA_TOKEN"
	case errors.As(err, &command):
		return explainCommand(command)
	case errors.As(err, &status):
		return explainStatus(status.status)
	case errors.Is(err, errNotShown):
		return "recorder does not write", "see Home Assistant's log: its recorder may be busy, stopped or without space"
	case errors.Is(err, websocket.ErrReadLimit), errors.Is(err, errProtocol):
		return "not Home Assistant's protocol", "check host and port in HA_URL"
	case errors.As(err, &unknown):
		return "unknown certificate authority", "point SSL_CERT_FILE to the certificate of the authority that signed Home Assistant's, or use http:// at home"
	case errors.As(err, &hostname):
		return "certificate is for another host", "use one of the certificate's names in HA_URL"
	case errors.As(err, &invalid):
		return "certificate invalid", "renew Home Assistant's certificate, and check this machine's clock"
	case errors.As(err, &record):
		return "no TLS there", "the port does not speak TLS: use http:// in HA_URL"
	case errors.As(err, &dns) && dns.IsNotFound:
		return "unknown host", "check the host name in HA_URL; in a container, names that end in .local are not known: use the address"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused", "nothing listens there: is Home Assistant running, are host and port in HA_URL right?"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "host unreachable", "check the network and the host in HA_URL"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer", "check host, port and firewall, and whether Home Assistant is busy"
	case errors.As(err, &closed), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe),
		errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection closed", "Home Assistant may be restarting; a port with TLS needs https:// in HA_URL"
	}
	return unexplained, "see the error"
}

func explainCommand(err *CommandError) (reason, advice string) {
	switch err.Code {
	case codeUnauthorized:
		return "not an administrator", "HA_TOKEN must be made by an administrator: only they may import statistics"
	case codeUnknown:
		return "command unknown", "Home Assistant is starting, older than 2024.12, or its recorder is switched off"
	case codeFormat:
		return "message refused", "this version of Home Assistant wants another form: see for a newer kmp2mqtt"
	}
	return "command failed", "see the error and Home Assistant's log"
}

func explainStatus(status int) (reason, advice string) {
	switch {
	case isHTTPRedirect(status):
		return "sent elsewhere", "set HA_URL to the address at which Home Assistant is in the end, often with https://"
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return "refused", "Home Assistant or a proxy bans this machine: see ip_bans.yaml and trusted_proxies in Home Assistant"
	case status >= http.StatusInternalServerError:
		return "Home Assistant is not running", "it may be starting; else see its log, or that of the proxy before it"
	}
	return "no Home Assistant there", "HA_URL is the address of its start page without anything behind it, such as http://homeassistant.local:8123"
}

// ofSeries says whether a failure belongs to one series alone, so that the others can go on.
func ofSeries(err error) bool {
	var command *CommandError
	return errors.As(err, &command) && command.Code != codeUnauthorized && command.Code != codeUnknown
}
