package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/holdfast-csi/holdfast/storage"
)

const (
	// scrapeFor bounds a scrape, and idleFor a connection that nobody uses.
	scrapeFor = 10 * time.Second
	idleFor   = 2 * time.Minute
	// scrapesAtOnce: more are told to come again.
	scrapesAtOnce = 4
	// goodbye bounds the wait for scrapes under way at the end.
	goodbye = time.Second
)

// CheckAddress says whether address, host:port with a host that may be empty, can be
// listened on.
func CheckAddress(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return storage.Errorf(storage.Invalid, "--metrics-address %q: host:port or :port is needed, such as 127.0.0.1:9809", address)
	}
	return nil
}

// Listen opens an address.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	if err := CheckAddress(address); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--metrics-address %q: %w", address, err)
	}
	return l, nil
}

// Serve tells the set, and whether the process lives and is ready, on l until ctx ends.
// It returns nil then, and closes l.
func (s *Set) Serve(ctx context.Context, l net.Listener, ready func(context.Context) error, log *slog.Logger) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: scrapesAtOnce, Timeout: scrapeFor,
	}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if ready != nil {
			if err := ready(r.Context()); err != nil {
				say(w, http.StatusServiceUnavailable, err.Error())
				return
			}
		}
		say(w, http.StatusOK, "ok")
	})
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: scrapeFor, ReadTimeout: scrapeFor, WriteTimeout: 2 * scrapeFor, IdleTimeout: idleFor,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	log.InfoContext(ctx, "telling metrics", slog.String("address", l.Addr().String()))
	stopped := make(chan struct{})
	serving, cancel := context.WithCancel(ctx)
	go func() {
		defer close(stopped)
		<-serving.Done()
		bye, cancel := context.WithTimeout(context.WithoutCancel(serving), goodbye)
		defer cancel()
		if server.Shutdown(bye) != nil {
			_ = server.Close()
		}
	}()
	err := server.Serve(l)
	cancel()
	<-stopped
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("tell metrics: %w", err)
}

func say(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, strings.ReplaceAll(text, "\n", "; "))
}
