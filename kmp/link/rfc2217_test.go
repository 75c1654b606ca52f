package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kmp2mqtt/kmp"
)

// What both sides say in the usual opening, at 1200 baud, 8N2.
const (
	hello  = "\xff\xfb\x00\xff\xfd\x00\xff\xfb\x03\xff\xfd\x03\xff\xfb\x2c" // WILL, DO BINARY; WILL, DO SGA; WILL COM-PORT
	agreed = "\xff\xfd\x00\xff\xfb\x00\xff\xfd\x03\xff\xfb\x03\xff\xfd\x2c"

	setUsual = "\xff\xfa\x2c\x01\x00\x00\x04\xb0\xff\xf0" + "\xff\xfa\x2c\x02\x08\xff\xf0" + "\xff\xfa\x2c\x03\x01\xff\xf0" + "\xff\xfa\x2c\x04\x02\xff\xf0"
	purge    = "\xff\xfa\x2c\x0c\x03\xff\xf0"
	isUsual  = "\xff\xfa\x2c\x65\x00\x00\x04\xb0\xff\xf0" + "\xff\xfa\x2c\x66\x08\xff\xf0" + "\xff\xfa\x2c\x67\x01\xff\xf0" + "\xff\xfa\x2c\x68\x02\xff\xf0"
)

// peer is the serial server's side of a connection.
type peer struct {
	t    *testing.T
	conn net.Conn
}

func (p peer) send(s string) {
	p.t.Helper()
	if _, err := io.WriteString(p.conn, s); err != nil {
		p.t.Errorf("the server cannot send % x: %v", s, err)
	}
}

func (p peer) expect(want string) {
	p.t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(p.conn, got); err != nil || string(got) != want {
		p.t.Errorf("the server got % x, %v; want % x", got[:n], err, want)
	}
}

// until reads up to the end of want.
func (p peer) until(want string) {
	p.t.Helper()
	var got []byte
	for b := make([]byte, 1); !strings.HasSuffix(string(got), want); got = append(got, b...) {
		if _, err := io.ReadFull(p.conn, b); err != nil {
			p.t.Errorf("the server got % x, %v; want % x at the end", got, err, want)
			return
		}
	}
}

// usual is the opening with a server that does as it is told.
func (p peer) usual() {
	p.t.Helper()
	p.expect(hello)
	p.send(agreed)
	p.expect(setUsual + purge)
	p.send(isUsual)
}

// control opens a line with the options query while serve plays the server.
func control(ctx context.Context, t *testing.T, query string, serve func(peer)) (kmp.Line, peer, error) {
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	target, err := Parse("rfc2217://" + l.Addr().String() + query)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan peer)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		p := peer{t, conn}
		serve(p)
		served <- p
	}()
	line, err := Open(ctx, target)
	p := <-served
	t.Cleanup(func() { _ = p.conn.Close() })
	if err == nil {
		t.Cleanup(func() { _ = line.Close() })
	}
	return line, p, err
}

// controlled is a line that is open, and its server.
func controlled(t *testing.T) (*rfc2217Line, peer) {
	t.Helper()
	line, p, err := control(t.Context(), t, "", peer.usual)
	if err != nil {
		t.Fatal(err)
	}
	return line.(*rfc2217Line), p
}

func TestRFC2217Open(t *testing.T) {
	tests := []struct{ name, query, wishes, answers, set, is string }{
		{"usual", "", agreed, "", setUsual, isUsual},
		{
			// ser2net asks for everything before it has read anything, and for its
			// echo, too.
			"as ser2net", "",
			"\xff\xfb\x03\xff\xfd\x03\xff\xfb\x01\xff\xfe\x01\xff\xfd\x00\xff\xfb\x00\xff\xfd\x2c", "\xff\xfe\x01",
			setUsual, isUsual + "\xff\xfa\x2c\x70\x03\xff\xf0",
		},
		{
			"strange wishes", "",
			"\xff\xfd\x18\xff\xfb\x05\xff\xfb\xff\xff\xfd\xff\xff\xfb\x2c" + agreed, "\xff\xfc\x18\xff\xfe\x05\xff\xfe\xff\xff\xfc\xff\xff\xfd\x2c",
			setUsual, isUsual,
		},
		{"no SGA", "", "\xff\xfe\x03\xff\xfc\x03\xff\xfd\x00\xff\xfb\x00\xff\xfd\x2c", "", setUsual, isUsual},
		{
			"noise and news", "", "welcome\r\n\xff\xff\xff\xf1\xff\xfa\x2c\x65\x00\x00\x25\x80\xff\xf0" + agreed, "", setUsual,
			"\xff\xfa\x2c\x6b\x00\xff\xf0" + "\xff\xfa\x2c\x64ser2net\xff\xf0" + "\xff\xfa\x18\x01\xff\xf0" + "\xff\xfa\xff\xf0" +
				"\xff\xfa\x2c\x66\xff\xf0" + "\xff\xfa\x2c\x65\x00\x00\xff\xf0" + "old" + isUsual,
		},
		{
			"a command without its end", "", agreed, "", setUsual,
			"\xff\xfa\x2c\x65\xff\xfa\x2c\x66\x08\xff\xf0" + isUsual,
		},
		{
			"all options", "?baud=255&databits=7&parity=even&stopbits=1.5&dtr=on&rts=off", agreed, "",
			"\xff\xfa\x2c\x01\x00\x00\x00\xff\xff\xff\xf0\xff\xfa\x2c\x02\x07\xff\xf0\xff\xfa\x2c\x03\x03\xff\xf0\xff\xfa\x2c\x04\x03\xff\xf0\xff\xfa\x2c\x05\x08\xff\xf0\xff\xfa\x2c\x05\x0c\xff\xf0",
			"\xff\xfa\x2c\x69\x0c\xff\xf0\xff\xfa\x2c\x69\x08\xff\xf0\xff\xfa\x2c\x68\x03\xff\xf0\xff\xfa\x2c\x67\x03\xff\xf0\xff\xfa\x2c\x66\x07\xff\xf0\xff\xfa\x2c\x65\x00\x00\x00\xff\xff\xff\xf0",
		},
		{
			"odd, wires", "?parity=odd&stopbits=1&dtr=off&rts=on", agreed, "",
			"\xff\xfa\x2c\x01\x00\x00\x04\xb0\xff\xf0\xff\xfa\x2c\x02\x08\xff\xf0\xff\xfa\x2c\x03\x02\xff\xf0\xff\xfa\x2c\x04\x01\xff\xf0\xff\xfa\x2c\x05\x09\xff\xf0\xff\xfa\x2c\x05\x0b\xff\xf0",
			"\xff\xfa\x2c\x65\x00\x00\x04\xb0\xff\xf0\xff\xfa\x2c\x66\x08\xff\xf0\xff\xfa\x2c\x67\x02\xff\xf0\xff\xfa\x2c\x68\x01\xff\xf0\xff\xfa\x2c\x69\x09\xff\xf0\xff\xfa\x2c\x69\x0b\xff\xf0",
		},
	}
	for _, tt := range tests {
		for pieces, split := range map[string]func(string) []string{
			"whole": func(s string) []string { return []string{s} },
			"bytes": func(s string) []string { return strings.Split(s, "") },
		} {
			t.Run(tt.name+" "+pieces, func(t *testing.T) {
				line, server, err := control(t.Context(), t, tt.query, func(p peer) {
					p.expect(hello)
					for _, s := range split(latin1(tt.wishes)) {
						p.send(bytesOf(s))
					}
					p.expect(tt.answers + tt.set + purge)
					for _, s := range split(latin1(tt.is)) {
						p.send(bytesOf(s))
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				// Nothing of what was said remains, and the line has no deadline.
				ended := make(chan error)
				go func() {
					got := make([]byte, 5)
					_, err := io.ReadFull(line, got)
					if string(got) != "meter" {
						t.Errorf("Read %q", got)
					}
					ended <- err
				}()
				server.send("meter")
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// latin1 makes a rune of each byte, so that strings.Split takes a string apart by
// bytes; bytesOf undoes it.
func latin1(s string) string {
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i])
	}
	return string(runes)
}

func bytesOf(s string) string {
	var b []byte
	for _, r := range s {
		b = append(b, byte(r))
	}
	return string(b)
}

// every holds each byte value, and runs of those that Telnet quotes.
func every() []byte {
	var p []byte
	for b := range 256 {
		p = append(p, byte(b), iac, byte(b))
	}
	p = append(p, bytes.Repeat([]byte{iac}, 5)...)
	p = append(p, "\r\n\r\x00\r"...)
	return append(p, bytes.Repeat([]byte{iac, cmdSE}, 3)...)
}

func TestRFC2217Bytes(t *testing.T) {
	line, server := controlled(t)
	data := every()
	quoted := bytes.ReplaceAll(data, []byte{iac}, []byte{iac, iac})

	if n, err := line.Write(data); n != len(data) || err != nil {
		t.Fatalf("Write = %d, %v; want %d", n, err, len(data))
	}
	server.expect(string(quoted))
	if n, err := line.Write(nil); n != 0 || err != nil {
		t.Errorf("Write of nothing = %d, %v", n, err)
	}

	go func() {
		server.send(string(quoted))
		for _, b := range quoted {
			server.send(string([]byte{b}))
		}
	}()
	for range 2 {
		got := make([]byte, len(data))
		if _, err := io.ReadFull(line, got); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("Read % x, %v", got, err)
		}
	}
	if n, err := line.Read(nil); n != 0 || err != nil {
		t.Errorf("Read of an empty buffer = %d, %v", n, err)
	}
}

func TestRFC2217Refused(t *testing.T) {
	tests := []struct {
		name, query, wishes, is string
		refused                 bool // errors.Is ErrRefused
		want                    []string
	}{
		{"DONT COM-PORT", "", "\xff\xfe\x2c", "", true, []string{"refuses COM port control", "use tcp://127.0.0.1:", "raw", "telnet(rfc2217)"}},
		{"WONT COM-PORT", "", "\xff\xfc\x2c", "", true, []string{"refuses COM port control", "use tcp://127.0.0.1:"}},
		{"changed its mind", "", "\xff\xfd\x2c\xff\xfe\x2c", "", true, []string{"refuses COM port control"}},
		{"DONT BINARY", "", "\xff\xfd\x2c\xff\xfe\x00", "", true, []string{"refuses binary transmission", "use tcp://"}},
		{"WONT BINARY", "", "\xff\xfd\x2c\xff\xfc\x00", "", true, []string{"refuses binary transmission", "use tcp://"}},
		{"baud", "", agreed, "\xff\xfa\x2c\x65\x00\x00\x25\x80\xff\xf0", true, []string{"refuses baud 1200 and keeps 9600", "use tcp://"}},
		{"data bits", "?databits=7", agreed, "\xff\xfa\x2c\x66\x08\xff\xf0", true, []string{"refuses databits 7 and keeps 8"}},
		{"parity", "", agreed, "\xff\xfa\x2c\x67\x03\xff\xf0", true, []string{"refuses parity none and keeps even"}},
		{"mark", "?parity=mark", agreed, "\xff\xfa\x2c\x67\x05\xff\xf0", true, []string{"refuses parity mark and keeps space"}},
		{"stop bits", "", agreed, "\xff\xfa\x2c\x68\x01\xff\xf0", true, []string{"refuses stopbits 2 and keeps 1"}},
		{"stop bits unheard of", "", agreed, "\xff\xfa\x2c\x68\x09\xff\xf0", true, []string{"refuses stopbits 2 and keeps 9"}},
		{"dtr", "?dtr=on", agreed, "\xff\xfa\x2c\x69\x09\xff\xf0", true, []string{"refuses dtr on and keeps off", "leave out the options dtr and rts"}},
		{"rts", "?rts=off", agreed, "\xff\xfa\x2c\x69\x0b\xff\xf0", true, []string{"refuses rts off and keeps on", "leave out the options dtr and rts"}},
		{"what was sent comes back", "", hello + "\xff\xfd\x2c", setUsual, false, []string{"comes back", "use tcp://"}},
		{"command without end", "", "\xff\xfa\x2c" + strings.Repeat("\xff\xff", maxSubNegotiation+1), "", false, []string{"without end", "use tcp://"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			line, server, err := control(t.Context(), t, tt.query, func(p peer) {
				p.send(tt.wishes)
				if tt.is != "" {
					p.until(purge)
					p.send(tt.is)
				}
			})
			if err == nil || line != nil {
				t.Fatalf("Open = %v, %v; want an error alone", line, err)
			}
			if e, ok := errors.AsType[*Error](err); !ok || e.Op != "open" || e.Line != "rfc2217://"+server.conn.LocalAddr().String()+tt.query {
				t.Errorf("error %#v is not about opening the line", err)
			}
			if errors.Is(err, ErrRefused) != tt.refused {
				t.Errorf("error %v, ErrRefused: want %t", err, tt.refused)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if _, err := io.Copy(io.Discard, server.conn); err != nil && !isReset(err) { // comes to an end: the connection was closed
				t.Error(err)
			}
		})
	}
}

func TestRFC2217Gone(t *testing.T) {
	_, _, err := control(t.Context(), t, "", func(p peer) {
		p.expect(hello)
		_ = p.conn.Close()
	})
	if e, ok := errors.AsType[*Error](err); !errors.Is(err, io.EOF) || !ok || e.Op != "open" || !strings.Contains(err.Error(), "one client") {
		t.Errorf("Open: %v, want io.EOF", err)
	}
	if _, err := Open(t.Context(), closedPort(t)); err == nil || !strings.Contains(err.Error(), "refused") || !strings.Contains(err.Error(), "ser2net") {
		t.Errorf("Open: %v, want what a raw line says", err)
	}
}

func closedPort(t *testing.T) Target {
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	target, err := Parse("rfc2217://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return target
}

// A server that sends back all it gets, as a raw port with an optical head does, is
// noticed at once.
func TestRFC2217Echo(t *testing.T) {
	_, _, err := control(t.Context(), t, "", func(p peer) {
		if _, err := io.Copy(p.conn, p.conn); err != nil && !isReset(err) {
			p.t.Error(err)
		}
	})
	if !errors.Is(err, errEcho) || !strings.Contains(err.Error(), "use tcp://") {
		t.Errorf("Open: %v, want errEcho", err)
	}
}

// isReset tells how a connection ends that was closed with bytes unread.
func isReset(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return ok && !e.Timeout()
}

// pipe is a connection inside a bubble with fake time.
func pipe(t *testing.T, query string) (kmp.Line, Target, peer) {
	t.Helper()
	target, err := Parse("rfc2217://cellar:2217" + query)
	if err != nil {
		t.Fatal(err)
	}
	client, server := net.Pipe()
	t.Cleanup(func() { _ = server.Close() })
	return &tcpLine{conn: client, name: target.String(), writeTimeout: writeTimeout}, target, peer{t, server}
}

func TestRFC2217Silence(t *testing.T) {
	tests := []struct {
		name, query string
		serve       func(peer)
		want        []string
	}{
		{"all", "", func(p peer) { p.expect(hello) }, []string{"does not answer", "COM port control (RFC 2217) and binary", "use tcp://cellar:2217"}},
		{"COM-PORT", "", func(p peer) { p.expect(hello); p.send(agreed[:12]) }, []string{"COM port control (RFC 2217):", "use tcp://cellar:2217"}},
		{"BINARY", "", func(p peer) { p.expect(hello); p.send(agreed[3:]) }, []string{"request for binary", "use tcp://cellar:2217"}},
		{"half a command", "", func(p peer) { p.expect(hello); p.send(agreed[:14]) }, []string{"request for COM port control"}},
		{"nothing but data", "", func(p peer) { p.expect(hello); p.send("login: ") }, []string{"COM port control (RFC 2217) and binary"}},
		{"answers before the question", "", func(p peer) { p.expect(hello); p.send(isUsual + agreed); p.until(purge) }, []string{"baud 1200, databits 8, parity none, stopbits 2"}},
		{"settings", "?dtr=on", func(p peer) {
			p.expect(hello)
			p.send(agreed)
			p.expect(setUsual + "\xff\xfa\x2c\x05\x08\xff\xf0" + purge)
			p.send(isUsual[:len(isUsual)-7])
		}, []string{"does not answer the request for stopbits 2, dtr on", "use tcp://cellar:2217"}},
		{"wires", "?dtr=on&rts=on", func(p peer) {
			p.expect(hello)
			p.send(agreed)
			p.expect(setUsual + "\xff\xfa\x2c\x05\x08\xff\xf0\xff\xfa\x2c\x05\x0b\xff\xf0" + purge)
			p.send(isUsual + "\xff\xfa\x2c\x69\x01\xff\xf0")
		}, []string{"request for dtr on, rts on", "leave out the options dtr and rts"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				raw, target, server := pipe(t, tt.query)
				go tt.serve(server)
				start := time.Now()
				line, err := controlPort(t.Context(), raw, target, start.Add(connectTimeout))
				if err == nil || line != nil {
					t.Fatalf("controlPort = %v, %v; want an error alone", line, err)
				}
				if took := time.Since(start); took != connectTimeout {
					t.Errorf("it took %v, want %v", took, connectTimeout)
				}
				for _, want := range tt.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("error %q does not say %q", err, want)
					}
				}
				if _, err := raw.Write([]byte{1}); err == nil {
					t.Error("the connection is still open")
				}
			})
		})
	}
}

func TestRFC2217Cancelled(t *testing.T) {
	for name, serve := range map[string]func(peer){
		"reading": func(p peer) { p.expect(hello) },
		"writing": func(peer) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				raw, target, server := pipe(t, "")
				go serve(server)
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				start := time.Now()
				line, err := controlPort(ctx, raw, target, start.Add(connectTimeout))
				if !errors.Is(err, context.DeadlineExceeded) || line != nil {
					t.Fatalf("controlPort = %v, %v; want context.DeadlineExceeded alone", line, err)
				}
				if took := time.Since(start); took != 2*time.Second {
					t.Errorf("it took %v, want 2s", took)
				}
				if !strings.Contains(err.Error(), "use tcp://cellar:2217") {
					t.Errorf("error %q does not say what to do", err)
				}
			})
		})
	}
}

// Open's context has no influence once the line is open.
func TestRFC2217ContextAfterOpen(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	line, server, err := control(ctx, t, "", peer.usual)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	server.send("x")
	if n, err := line.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("Read = %d, %v", n, err)
	}
}

// Commands are not data: a read that gets nothing else waits for its deadline.
func TestRFC2217ReadDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raw, target, server := pipe(t, "")
		go server.usual()
		line, err := controlPort(t.Context(), raw, target, time.Now().Add(connectTimeout))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for _, s := range []string{"\xff", "\xf1", "\xff\xfa\x2c\x6b", "\x10\xff\xf0", "\xff\xfb\x2c"} { // NOP; a modem line has changed; WILL COM-PORT
				time.Sleep(100 * time.Millisecond) // fake time
				server.send(s)
			}
			server.expect("\xff\xfd\x2c")
		}()
		start := time.Now()
		if err := line.SetReadDeadline(start.Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := line.Read(make([]byte, 9)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read = %d, %v; want os.ErrDeadlineExceeded", n, err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("the deadline took %v, want 1s", took)
		}
		if err := line.Close(); err != nil {
			t.Error(err)
		}
	})
}

// While the line is in use the server may ask for this and that and tell news.
func TestRFC2217LaterWishes(t *testing.T) {
	line, server := controlled(t)
	read := func(want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(line, got); err != nil || string(got) != want {
			t.Errorf("Read %q, %v; want %q", got, err, want)
		}
	}
	server.send("a\xff\xfd\x06b") // DO TIMING-MARK: are you there?
	read("ab")
	server.expect("\xff\xfc\x06")
	server.send("\xff\xfe\x2cc\xff\xfd\x2cd\xff\xfc\x03e\xff\xfb\x03f") // takes options back and wants them again
	read("cdef")
	server.expect("\xff\xfc\x2c\xff\xfb\x2c\xff\xfe\x03\xff\xfd\x03")
	server.send(agreed + "\xff\xfa\x2c\x65\x00\x00\x25\x80\xff\xf0" + setUsual + "g") // as agreed already: nothing to say
	read("g")
	if _, err := line.Write([]byte("h")); err != nil {
		t.Fatal(err)
	}
	server.expect("h")
}

func TestRFC2217Hostile(t *testing.T) {
	for name, tt := range map[string]struct {
		send string
		want error
	}{
		"command without end": {"x\xff\xfa\x2c" + strings.Repeat("y", maxSubNegotiation+1), errEndless},
		"wishes without end":  {"x" + strings.Repeat("\xff\xfd\x06", maxAnswers+1), errInsistent},
		"text only":           {"x\xff\xfe\x00", ErrRefused},
		"text only to us":     {"x\xff\xfc\x00", ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			line, server := controlled(t)
			go server.send(tt.send)
			got, err := io.ReadAll(line) // shows io.EOF, because it is wrapped
			if string(got) != "x" || !errors.Is(err, tt.want) || !errors.Is(err, io.EOF) {
				t.Errorf("Read %q, %v; want %v", got, err, tt.want)
			}
			if _, again := line.Read(make([]byte, 1)); again == nil || again.Error() != err.Error() {
				t.Errorf("Read once more: %v", again)
			}
		})
	}
}

// Between two requests a server may ask for much, but over days it may ask for more.
func TestRFC2217PatientWithWishes(t *testing.T) {
	line, server := controlled(t)
	for range 3 {
		go server.send(strings.Repeat("\xff\xfd\x06", maxAnswers-1) + "x")
		if n, err := line.Read(make([]byte, 1<<16)); n == 0 || err != nil {
			t.Fatalf("Read = %d, %v", n, err)
		}
		server.expect(strings.Repeat("\xff\xfc\x06", maxAnswers-1))
		if _, err := line.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
		server.expect("?")
	}
}

func TestRFC2217Close(t *testing.T) {
	line, server := controlled(t)
	ended := make(chan error)
	go func() {
		_, err := line.Read(make([]byte, 1))
		ended <- err
	}()
	for range 2 {
		if err := line.Close(); err != nil {
			t.Fatal(err)
		}
	}
	readErr := <-ended
	_, writeErr := line.Write([]byte{1})
	for op, err := range map[string]error{"read": readErr, "write": writeErr, "set deadline": line.SetReadDeadline(time.Now())} {
		if e, ok := errors.AsType[*Error](err); !errors.Is(err, os.ErrClosed) || !ok || e.Op != op || e.Line != line.name {
			t.Errorf("%s: %v, want os.ErrClosed", op, err)
		}
	}
	if rest, err := io.ReadAll(server.conn); len(rest) > 0 || err != nil {
		t.Errorf("the server got % x, %v; want the end", rest, err)
	}
}

// What Write says it has sent is counted in the caller's bytes.
func TestRFC2217WriteStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for read, want := range map[int64]int{0: 0, 1: 1, 2: 1, 3: 2, 4: 3, 5: 3} { // a, FF FF, b, FF FF
			raw, target, server := pipe(t, "")
			go func() {
				server.usual()
				io.CopyN(io.Discard, server.conn, read) // and then no more
			}()
			line, err := controlPort(t.Context(), raw, target, time.Now().Add(connectTimeout))
			if err != nil {
				t.Fatal(err)
			}
			if n, err := line.Write([]byte("a\xffb\xff")); n != want || !errors.Is(err, ErrStuck) {
				t.Errorf("Write with %d bytes read = %d, %v; want %d, ErrStuck", read, n, err, want)
			}
		}
	})
}

// A server that asks but does not read, or that goes away between its answers, ends the line.
func TestRFC2217DoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raw, target, server := pipe(t, "")
		go func() {
			server.usual()
			server.send("\xff\xfd\x06")
		}()
		line, err := controlPort(t.Context(), raw, target, time.Now().Add(connectTimeout))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if n, err := line.Read(make([]byte, 9)); n != 0 || !errors.Is(err, ErrStuck) {
				t.Errorf("Read = %d, %v; want ErrStuck", n, err)
			}
		}
	})
	for name, serve := range map[string]func(peer){
		"before":  func(peer) {},
		"between": func(p peer) { p.expect(hello); p.send(agreed) },
	} {
		raw, target, server := pipe(t, "")
		go func() {
			serve(server)
			_ = server.conn.Close()
		}()
		line, err := controlPort(t.Context(), raw, target, time.Now().Add(connectTimeout))
		if e, ok := errors.AsType[*Error](err); !ok || e.Op != "open" || !errors.Is(err, io.EOF) || line != nil {
			t.Errorf("%s: controlPort = %v, %v; want io.EOF alone", name, line, err)
		}
	}
}

func TestRFC2217Stuck(t *testing.T) {
	line, _ := controlled(t)
	line.Line.(*tcpLine).writeTimeout = 30 * time.Millisecond
	if _, err := line.Write(make([]byte, 64<<20)); !errors.Is(err, ErrStuck) {
		t.Errorf("Write: %v, want ErrStuck", err)
	}
}

// FuzzTelnet feeds a server's bytes to the client, in the opening and later, cut in
// two anywhere.
func FuzzTelnet(f *testing.F) {
	for i, s := range []string{
		"", hello, agreed + isUsual, setUsual + purge, string(every()), "\xff", "\xff\xfa", "\xff\xfa\x2c\x65\xff", "\xff\xfe\x2c", "\xff\xfc\x00",
		"\xff\xfa\x2c\x65\x00\x00\x04\xff\xff\xff\xf0", "\xff\xfa" + strings.Repeat("x", maxSubNegotiation+1), "a\xff\xfb\x01\xff\xfd\x18b",
	} {
		f.Add([]byte(s), uint(len(s)/2), byte(i))
	}
	f.Fuzz(func(t *testing.T, stream []byte, cut uint, step byte) {
		feed := func(pieces ...[]byte) (data, answers []byte, telnet telnet, err error) {
			telnet.begin()
			telnet.settings = portSettings(Target{Baud: 1200, DataBits: 8, Parity: ParityNone, StopBits: 2, DTR: On})
			telnet.phase = phase(step % 3)
			for _, piece := range pieces {
				piece = bytes.Clone(piece)
				n, err := telnet.receive(piece)
				if n < 0 || n > len(piece) {
					t.Fatalf("receive = %d of %d", n, len(piece))
				}
				data = append(data, piece[:n]...)
				answers = append(answers, telnet.answers()...)
				if err != nil {
					return data, answers, telnet, err
				}
			}
			return data, answers, telnet, nil
		}
		cut %= uint(len(stream) + 1)
		data, answers, whole, err := feed(stream)
		cutData, cutAnswers, halves, cutErr := feed(stream[:cut], stream[cut:])
		if !bytes.Equal(data, cutData) || !bytes.Equal(answers, cutAnswers) || (err == nil) != (cutErr == nil) {
			t.Fatalf("% x gives % x, % x, %v; cut at %d it gives % x, % x, %v", stream, data, answers, err, cut, cutData, cutAnswers, cutErr)
		}
		if whole.ours != halves.ours || whole.theirs != halves.theirs || whole.state != halves.state {
			t.Fatalf("% x cut at %d ends in another state", stream, cut)
		}
		if len(answers)%3 != 0 || len(answers) > len(stream) {
			t.Fatalf("% x is answered with % x", stream, answers)
		}
		if cap(whole.sub) > 64 || whole.long > maxSubNegotiation+1 {
			t.Fatalf("a command may grow to %d bytes", cap(whole.sub))
		}
		// What is quoted comes back as it was, after whatever came before.
		if err == nil && whole.state == inData {
			quoted := quote(nil, stream)
			if n, err := whole.receive(quoted); err != nil || !bytes.Equal(quoted[:n], stream) {
				t.Fatalf("% x quoted is read as % x, %v", stream, quoted[:n], err)
			}
		}
	})
}
