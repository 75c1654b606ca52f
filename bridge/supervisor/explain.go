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

	"maragu.dev/gomponents"
	"maragu.dev/gomponents/html"
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
func explanation(problem error, devices []string) gomponents.Node {
	main := []gomponents.Node{whatToDo(problem), html.H2(gomponents.Text("Serial devices here"))}
	if len(devices) > 0 {
		main = append(main, html.Ul(gomponents.Map(devices, func(name string) gomponents.Node {
			return html.Li(html.Code(gomponents.Text(name)))
		})))
	} else {
		main = append(main, soft("None that has a lasting name. Plug the optical head in; it appears here within seconds."))
	}
	main = append(main, soft("This page renews itself."))
	return html.Doctype(html.HTML(html.Lang("en"),
		html.Head(
			html.Meta(html.Charset("utf-8")),
			html.Meta(html.Name("viewport"), html.Content("width=device-width, initial-scale=1")),
			html.Meta(gomponents.Attr("http-equiv", "refresh"), html.Content("15")),
			html.TitleEl(gomponents.Text("kmp2mqtt: something to do first")),
			html.StyleEl(gomponents.Raw(explainCSS)),
		),
		html.Body(html.Main(main...)),
	))
}

func soft(text string) gomponents.Node {
	return html.P(html.Class("soft"), gomponents.Text(text))
}

// whatToDo is what the owner has to do first.
func whatToDo(problem error) gomponents.Node {
	text, b, code := gomponents.Text, func(s string) gomponents.Node { return html.B(gomponents.Text(s)) }, func(s string) gomponents.Node { return html.Code(gomponents.Text(s)) }
	if errors.Is(problem, ErrNoMeters) {
		return gomponents.Group{
			html.H1(text("Name your first meter")),
			html.Ol(
				html.Li(text("Plug the optical head in and put it on the meter.")),
				html.Li(text("In Home Assistant open this app's "), b("Configuration"), text(" and add an entry under "), b("Meters"), text(": a name such as "),
					code("house"), text(", and the head's device, or the address of a serial server under "), b("URL"), text(".")),
				html.Li(text("Save, and restart the app. This page then shows the meter.")),
			),
		}
	}
	title := "The app cannot start like this"
	end := html.P(text("In Home Assistant open this app's "), b("Configuration"), text(", correct it, save, and restart the app."))
	if waitsForBroker(problem) {
		title = "Waiting for an MQTT broker"
		end = html.P(text("Nothing else is needed: the app goes on by itself when the broker is there."))
	}
	return gomponents.Group{
		html.H1(text(title)),
		html.Ul(gomponents.Map(problems(problem), func(line string) gomponents.Node { return html.Li(text(line)) })),
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
