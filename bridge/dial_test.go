package bridge

import (
	"crypto/tls"
	"encoding/pem"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
)

// TestRefusedBeforeTheFirstWrite has a broker refuse the client's certificate and reset the
// connection before the client says a word. The reason must not be lost with it.
func TestRefusedBeforeTheFirstWrite(t *testing.T) {
	lender := httptest.NewTLSServer(nil) // has a certificate for 127.0.0.1
	defer lender.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: lender.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	reset := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			reset <- err
			return
		}
		handshake := tls.Server(conn, &tls.Config{Certificates: lender.TLS.Certificates, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13}).Handshake()
		err = conn.(*net.TCPConn).SetLinger(0) // Close sends a reset
		conn.Close()
		if handshake == nil {
			t.Error("the server accepts a client without a certificate")
		}
		reset <- err
	}()

	cfg := MQTTConfig{CAFile: ca}
	conn, err := cfg.open(t.Context(), &url.URL{Scheme: "mqtts", Host: l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := <-reset; err != nil {
		t.Fatal(err)
	}
	_, err = conn.Write([]byte("CONNECT"))
	if reason, _ := explain(err, "", cfg); reason != "client certificate required" {
		t.Errorf("the reason is %q: %v", reason, err)
	}
}
