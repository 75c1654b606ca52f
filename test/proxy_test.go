//go:build e2e

package test

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// weather is how a proxy treats what passes through it.
type weather int

const (
	fair    weather = iota
	slow            // everything comes late, by longer than anybody waits
	cutting         // a connection ends in the middle of an answer
	jolting         // it is reset there
	mute            // connections swallow everything and stay so for ever: half open
)

// lateBy is how late things are in slow weather.
const lateBy = 3 * time.Second

// proxy stands between a bridge and a simulated meter, as the network does.
type proxy struct {
	t      *testing.T
	listen net.Listener
	meter  string // host:port
	over   chan struct{}
	all    sync.WaitGroup

	mu      sync.Mutex
	weather weather
	open    map[*passage]bool
}

// passage is one connection through a proxy.
type passage struct {
	client, meter *net.TCPConn
	dead          bool // swallows everything
}

// newProxy starts a proxy in front of a meter's line and returns it with its own line.
func newProxy(t *testing.T, line string) (*proxy, string) {
	t.Helper()
	l, err := net.Listen("tcp", address(0)) //nolint:noctx // returns at once
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, listen: l, meter: strings.TrimPrefix(line, "tcp://"), over: make(chan struct{}), open: make(map[*passage]bool)}
	p.all.Go(p.accept)
	t.Cleanup(func() {
		close(p.over)
		l.Close()
		p.mu.Lock()
		for c := range p.open {
			c.client.Close()
			c.meter.Close()
		}
		p.mu.Unlock()
		p.all.Wait()
	})
	return p, "tcp://" + l.Addr().String()
}

func (p *proxy) accept() {
	for {
		client, err := p.listen.Accept()
		if err != nil {
			return
		}
		meter, err := net.Dial("tcp", p.meter) //nolint:noctx // on this machine
		if err != nil {
			client.Close()
			continue
		}
		c := &passage{client: client.(*net.TCPConn), meter: meter.(*net.TCPConn)}
		p.mu.Lock()
		c.dead = p.weather == mute
		p.open[c] = true
		p.mu.Unlock()
		p.all.Go(func() { p.carry(c, c.meter, c.client, false) })
		p.all.Go(func() { p.carry(c, c.client, c.meter, true) })
	}
}

// turn changes the weather. A connection that is open when it turns mute never speaks again.
func (p *proxy) turn(w weather) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.weather = w
	for c := range p.open {
		c.dead = c.dead || w == mute
	}
}

func (p *proxy) now(c *passage) (w weather, dead bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.weather, c.dead
}

// carry passes bytes on in one direction, until one side ends.
func (p *proxy) carry(c *passage, to io.Writer, from io.Reader, answers bool) {
	defer p.close(c)
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		w, dead := p.now(c)
		switch {
		case dead:
			continue
		case w == slow:
			select {
			case <-time.After(lateBy):
			case <-p.over:
				return
			}
		case answers && (w == cutting || w == jolting):
			if w == jolting {
				c.client.SetLinger(0) //nolint:errcheck // without it the connection is cut
			} else {
				to.Write(buffer[:n/2]) //nolint:errcheck // the connection ends here anyway
			}
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (p *proxy) close(c *passage) {
	c.client.Close()
	c.meter.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
}
