package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAssets(t *testing.T) {
	for name, want := range map[string]string{
		"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
		"uplot/uPlot.iife.min.js": "text/javascript; charset=utf-8", "uplot/LICENSE": "text/plain; charset=utf-8",
	} {
		w := httptest.NewRecorder()
		assets().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/assets/"+name, nil))
		if got := w.Header().Get("Content-Type"); w.Code != http.StatusOK || got != want {
			t.Errorf("%s: %d, %q, want %q", name, w.Code, got, want)
		}
	}
	for _, name := range []string{"", "page.html", "uplot", "nothing.css", "../page.go"} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/assets/", nil)
		r.URL.Path += name
		assets().ServeHTTP(w, r)
		if w.Code != http.StatusNotFound || strings.Contains(w.Body.String(), "package web") {
			t.Errorf("%q: %d", name, w.Code)
		}
	}
}
