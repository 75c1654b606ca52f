package web

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
)

// Config says where the window is and who may look.
type Config struct {
	Listen   string // host:port
	Username string // empty: nobody needs a password
	Password string
	Ingress  netip.Addr // Home Assistant's ingress, which needs no password; zero: there is none
	Log      *slog.Logger
}

// Server is a window that is open.
type Server struct {
	config Config
	source Source
}

// Handler returns everything that the window serves.
func Handler(cfg Config, src Source) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics(src))
	return mux
}

// Run serves until ctx ends.
func Run(ctx context.Context, cfg Config, src Source) error {
	<-ctx.Done()
	return nil
}
