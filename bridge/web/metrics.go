package web

import "net/http"

// metrics serves the numbers for Prometheus.
func metrics(src Source) http.Handler { return http.NotFoundHandler() }
