package metrics

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// TestDocument: METRICS.md is what make generate writes.
func TestDocument(t *testing.T) {
	have, err := os.ReadFile(filepath.Join("..", "..", "..", "METRICS.md"))
	if err != nil || string(have) != Document() {
		t.Errorf("METRICS.md is not as the table has it: run make generate (%v)", err)
	}
}

// TestNames: as Prometheus has them, each once, with its unit and its kind.
func TestNames(t *testing.T) {
	well, seen := regexp.MustCompile(`^holdfast_[a-z][a-z_]*[a-z]$`), map[string]bool{}
	for _, m := range table {
		if !well.MatchString(m.name) || seen[m.name] || m.help == "" || len(m.of) == 0 {
			t.Errorf("%+v", m)
		}
		seen[m.name] = true
		if (m.kind == counter) != strings.HasSuffix(m.name, "_total") || m.kind == histogram && !strings.HasSuffix(m.name, "_seconds") {
			t.Errorf("%s is a %s", m.name, m.kind)
		}
		for _, l := range m.labels {
			if !slices.Contains([]string{"volume", "state", "phase", "method", "code", "opcode", "result", "origin", "process", "version", "go_version"}, l) {
				t.Errorf("%s has the label %s: is it bounded? Then add it here", m.name, l)
			}
		}
	}
}

// serve returns where a set is told.
func serve(t *testing.T, s *Set, ready func(context.Context) error) string {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l, ready, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

func get(t *testing.T, url string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestServe(t *testing.T) {
	s := New(Mounter, "v1.2.3")
	note := s.Histogram(Upload, Calls, Results()...)
	note(2*time.Millisecond, Result(nil))
	note(2*time.Second, Result(errors.New("no")))
	known := true
	s.Collect(func(tell *Tell) {
		if known {
			tell.Value(Journal, 7, "photos")
		}
		tell.Histogram(FUSERequest, []time.Duration{time.Second, 2 * time.Second}, []uint64{1, 3}, 4, 9*time.Second, "read")
		tell.Bool(CacheDisk, true)
	})
	var away error
	at := serve(t, s, func(context.Context) error { return away })
	_, body := get(t, at+"/metrics")
	for _, want := range []string{
		`holdfast_build_info{go_version="go1`, `version="v1.2.3"} 1`,
		`holdfast_upload_duration_seconds_bucket{result="ok",le="0.003"} 1`, `holdfast_upload_duration_seconds_bucket{result="failed",le="1"} 0`,
		`holdfast_upload_duration_seconds_count{result="failed"} 1`, `holdfast_volume_journal_bytes{volume="photos"} 7`,
		`holdfast_fuse_request_duration_seconds_bucket{opcode="read",le="2"} 3`, `holdfast_fuse_request_duration_seconds_count{opcode="read"} 4`,
		`holdfast_fuse_request_duration_seconds_sum{opcode="read"} 9`, "holdfast_cache_disk_usable 1", "go_goroutines", "process_start_time_seconds",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("%s is missing in:\n%s", want, body)
		}
	}
	known = false
	if _, body := get(t, at+"/metrics"); strings.Contains(body, Journal) {
		t.Error("what is not known any more is told")
	}
	for _, away = range []error{nil, errors.New("the filer\nis away")} {
		want, text := http.StatusOK, "ok\n"
		if away != nil {
			want, text = http.StatusServiceUnavailable, "the filer; is away\n"
		}
		if code, body := get(t, at+"/readyz"); code != want || body != text {
			t.Errorf("ready: %d %q", code, body)
		}
		if code, _ := get(t, at+"/livez"); code != http.StatusOK {
			t.Errorf("live: %d", code)
		}
	}
	if code, _ := get(t, at+"/debug/pprof/"); code != http.StatusNotFound {
		t.Errorf("something else is told: %d", code)
	}
}

// TestOnlyTheTable: a metric that no document has cannot be told.
func TestOnlyTheTable(t *testing.T) {
	for _, name := range []string{"holdfast_other", CacheHits} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s was told by the controller", name)
				}
			}()
			New(Controller, "x").Histogram(name, Calls)
		}()
	}
}

func TestAddress(t *testing.T) {
	for _, bad := range []string{"", "x", "127.0.0.1", "127.0.0.1:", ":x", "::1:9809", ":99999"} {
		if err := CheckAddress(bad); !storage.Is(err, storage.Invalid) || !strings.Contains(err.Error(), "--metrics-address") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, good := range []string{":9809", "127.0.0.1:9809", "[::1]:0"} {
		if err := CheckAddress(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Listen(t.Context(), l.Addr().String()); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("a port that is taken: %v", err)
	}
}
