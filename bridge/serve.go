package bridge

import (
	"context"
	"fmt"
	"slices"
	"time"

	"kmp2mqtt/bridge/web"
)

const (
	// pagePause is how long a port that is taken is left alone.
	pagePause = 30 * time.Second
	// readyLimit is how long the service manager is kept waiting for lines that take their
	// time: they are being tried, and that is what it wants to know.
	readyLimit = 20 * time.Second
	readyEvery = 100 * time.Millisecond
)

// serve shows the page until ctx ends. That its port is taken costs nobody a reading: it is
// tried again.
func (b *bridge) serve(ctx context.Context) {
	cfg := web.Config{
		Listen: b.cfg.HTTP.Listen, Username: b.cfg.HTTP.Username, Password: b.cfg.HTTP.Password,
		Ingress: b.cfg.HTTP.Ingress, Log: b.deps.Log,
	}
	for told := false; ; {
		server, err := web.Listen(ctx, cfg, b.window)
		if err == nil {
			b.deps.Log.Info("page is served", "address", "http://"+server.Addr().String())
			told = false
			err = server.Run(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		if !told {
			b.deps.Log.Error("cannot serve the page; trying again", "error", err)
			told = true
		}
		pause := time.NewTimer(pagePause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

// stuckAfter is how long a poller may be at one thing without a byte sent or received, at the
// least. The longest that is in order on a usual line: 45 s to open it.
const stuckAfter = 3 * time.Minute

// stuck are the lines whose poller shows no sign of life.
func (b *bridge) stuck() []string {
	var lines []string
	for _, p := range b.pollers {
		if p.idle() > p.patience() {
			lines = append(lines, p.shown)
		}
	}
	return lines
}

// tried reports whether the broker and all lines were tried once, well or not.
func (b *bridge) tried() bool {
	return b.session.tried.Load() && !slices.ContainsFunc(b.pollers, func(p *poller) bool { return !p.tried.Load() })
}

// report tells the service manager that the bridge is ready, then that it lives, for as long
// as every poller does: one that is stuck is reason enough to begin anew.
func (b *bridge) report(ctx context.Context) {
	start := time.Now()
	ticker := time.NewTicker(readyEvery)
	defer ticker.Stop()
	ready, told := false, 0
	for {
		select {
		case <-ctx.Done():
			b.deps.Notify("STOPPING=1")
			return
		case <-ticker.C:
		}
		if !ready {
			if ready = b.tried() || time.Since(start) > readyLimit; !ready {
				continue
			}
			b.deps.Notify("READY=1\nSTATUS=" + b.summary())
			ticker.Reset(reportEvery(b.deps.Watchdog))
		}
		stuck := b.stuck()
		if len(stuck) == 0 {
			b.deps.Notify("WATCHDOG=1\nSTATUS=" + b.summary())
		} else if told == 0 {
			b.deps.Log.Error("a line is stuck; the service manager will start the bridge anew", "lines", stuck)
		}
		told = len(stuck)
	}
}

// reportEvery is how often the service manager hears of the bridge: three times as often as
// it demands.
func reportEvery(watchdog time.Duration) time.Duration {
	if watchdog <= 0 {
		return time.Minute
	}
	return max(readyEvery, watchdog/3)
}

// summary is the bridge's condition in one line.
func (b *bridge) summary() string {
	statuses := b.roster.statuses()
	online := 0
	for _, s := range statuses {
		if s.online {
			online++
		}
	}
	broker := "no broker"
	if b.session.Connected() {
		broker = "broker connected"
	}
	return fmt.Sprintf("%d of %d meters online, %s", online, len(statuses), broker)
}
