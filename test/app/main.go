// Command app stands in for Home Assistant's Supervisor in test/app.sh, with the bytes that
// the real one sends, and asks for pages as its ingress does.
//
//	app serve TOKEN FILE  answers GET /services/mqtt on port 80 with FILE, or, while that is not
//	                      there, as the Supervisor does when no broker is installed
//	app get URL           prints the status and the page
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 4 && os.Args[1] == "serve":
		err = serve(os.Args[2], os.Args[3])
	case len(os.Args) == 3 && os.Args[1] == "get":
		err = get(os.Args[2])
	default:
		err = errors.New("usage: app serve TOKEN FILE | app get URL")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serve answers as supervisor/api does: an object with result and data, or result and message.
func serve(token, file string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /services/mqtt", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get("Authorization") != "Bearer "+token {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"result": "error", "message": "unknown token"}`)
			return
		}
		data, err := os.ReadFile(file)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"result": "error", "message": "Service not enabled"}`)
			return
		}
		fmt.Fprintf(w, `{"result": "ok", "data": %s}`, data)
	})
	srv := &http.Server{Addr: ":80", Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	return srv.ListenAndServe()
}

// get asks as the ingress does: with the path at which Home Assistant shows the page.
func get(url string) error {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("X-Ingress-Path", "/api/hassio_ingress/abcdef")
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	fmt.Println(resp.StatusCode)
	_, err = io.Copy(os.Stdout, io.LimitReader(resp.Body, 1<<20))
	return err
}
