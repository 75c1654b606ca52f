package supervisor

import (
	"bytes"
	"context"
	_ "embed" // how the page looks
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	g "maragu.dev/gomponents"
)

//go:embed explain.css
var explainCSS string

// maxDevices bounds the list of serial ports on the page.
const maxDevices = 50

// Explain shows on the app's page, and to nobody but Home Assistant's ingress, why the app
// cannot do its work, and which serial ports there are to choose from. It returns nil when
// ctx ends, or when there was no broker and now the Supervisor tells one, so that another try
// may do. The problem is the error of Environ itself, or any other about the settings. The error says that the page cannot be served.
func Explain(ctx context.Context, o Options, problem error) error {
	o = o.filled()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", o.Listen)
	if err != nil {
		return fmt.Errorf("supervisor: %w", err)
	}
	return o.explain(ctx, l, problem)
}

// explain serves the page, and closes l.
func (o Options) explain(ctx context.Context, l net.Listener, problem error) error {
	srv := &http.Server{
		Handler:           o.explainer(problem),
		ReadHeaderTimeout: askTimeout, ReadTimeout: askTimeout, WriteTimeout: askTimeout, IdleTimeout: time.Minute,
		MaxHeaderBytes: maxAnswer,
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	err := o.hold(ctx, problem, served)
	_ = srv.Close() // the page renews itself
	return err
}

// hold waits until the page is of no use any more.
func (o Options) hold(ctx context.Context, problem error, served <-chan error) error {
	ticker := time.NewTicker(longWait)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-served:
			return fmt.Errorf("supervisor: the page ended: %w", err)
		case <-ticker.C:
			if !waitsForBroker(problem) {
				continue
			}
			if _, err := o.ask(ctx); err == nil {
				return nil
			}
		}
	}
}

// waitsForBroker says whether a problem is over when the Supervisor tells a broker.
func waitsForBroker(problem error) bool {
	_, notReady := errors.AsType[*notReadyError](problem)
	return notReady || errors.Is(problem, ErrNoBroker)
}

// explainer is the page. It answers the Supervisor's watchdog as well: restarting the app
// would help nobody.
func (o Options) explainer(problem error) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		if !o.admits(r.RemoteAddr) {
			http.Error(w, "Open this page in Home Assistant, from the app's own page.", http.StatusForbidden)
			return
		}
		var b bytes.Buffer
		if err := explanation(problem, o.devices()).Render(&b); err != nil {
			http.Error(w, "The page cannot be made.", http.StatusInternalServerError)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		_, _ = w.Write(b.Bytes())
	})
	return mux
}

// explanation is the page.
func explanation(problem error, devices []string) g.Node {
	main := []g.Node{whatToDo(problem), el("h2", txt("Serial devices here"))}
	if len(devices) > 0 {
		main = append(main, el("ul", g.Map(devices, func(name string) g.Node {
			return el("li", el("code", txt(name)))
		})))
	} else {
		main = append(main, soft("None that has a lasting name. Plug the optical head in; it appears here within seconds."))
	}
	main = append(main, soft("This page renews itself."))
	return g.Group{g.Raw("<!doctype html>"), el("html", attr("lang", "en"),
		el("head",
			el("meta", attr("charset", "utf-8")),
			el("meta", attr("name", "viewport"), attr("content", "width=device-width, initial-scale=1")),
			el("meta", attr("http-equiv", "refresh"), attr("content", "15")),
			el("title", txt("kmp2mqtt: something to do first")),
			el("style", g.Raw(explainCSS)),
		),
		el("body", el("main", main...)),
	)}
}

// el is an element with attributes and children. It is not inlined, which would take ten times
// the space.
//
//go:noinline
func el(name string, children ...g.Node) g.Node { return g.El(name, children...) }

// attr is an attribute; its value is escaped.
//
//go:noinline
func attr(name, value string) g.Node { return g.Attr(name, value) }

// txt is text, escaped.
//
//go:noinline
func txt(s string) g.Node { return g.Text(s) }

func soft(text string) g.Node {
	return el("p", attr("class", "soft"), txt(text))
}

// whatToDo is what the owner has to do first.
func whatToDo(problem error) g.Node {
	b := func(s string) g.Node { return el("b", txt(s)) }
	code := func(s string) g.Node { return el("code", txt(s)) }
	if errors.Is(problem, ErrNoMeters) {
		return g.Group{
			el("h1", txt("Name your first meter")),
			el("ol",
				el("li", txt("Plug the optical head in and put it on the meter.")),
				el("li", txt("In Home Assistant open this app's "), b("Configuration"), txt(" and add an entry under "), b("Meters"), txt(": a name such as "),
					code("house"), txt(", and the head's device, or the address of a serial server under "), b("URL"), txt(".")),
				el("li", txt("Save, and restart the app. This page then shows the meter.")),
			),
		}
	}
	title := "The app cannot start like this"
	end := el("p", txt("In Home Assistant open this app's "), b("Configuration"), txt(", correct it, save, and restart the app."))
	if waitsForBroker(problem) {
		title = "Waiting for an MQTT broker"
		end = el("p", txt("Nothing else is needed: the app goes on by itself when the broker is there."))
	}
	return g.Group{
		el("h1", txt(title)),
		el("ul", g.Map(problems(problem), func(line string) g.Node { return el("li", txt(line)) })),
		end,
	}
}

// admits says whether somebody may see the page.
func (o Options) admits(remote string) bool {
	addr, err := netip.ParseAddrPort(remote)
	return err == nil && addr.Addr().Unmap() == o.Ingress
}

// problems are the lines of an error.
func problems(err error) []string {
	var lines []string
	for line := range strings.Lines(Translate(err.Error())) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// devices are the serial ports by their lasting names. None is an answer as well.
func (o Options) devices() []string {
	entries, err := os.ReadDir(o.Devices)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries[:min(len(entries), maxDevices)] {
		names = append(names, filepath.Join(o.Devices, e.Name()))
	}
	return names
}
