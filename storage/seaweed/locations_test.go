package seaweed

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// located gives a client whose look-ups answer one list after the other, the last
// one for ever. No filer is asked.
func located(t *testing.T, lists ...[]string) *Client {
	t.Helper()
	c, err := Open(t.Context(), Options{Filer: "127.0.0.1:1", CallTimeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	var n atomic.Int64
	c.locations = newLocations(func(context.Context, []string) (map[string][]string, error) {
		return map[string][]string{"3": lists[min(int(n.Add(1)), len(lists))-1]}, nil
	})
	return c
}

// holding starts a volume server that answers everything with code.
func holding(t *testing.T, code int) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if code == http.StatusPartialContent {
			w.Header().Set("Content-Range", strings.Replace(r.Header.Get("Range"), "=", " ", 1)+"/5")
		}
		w.WriteHeader(code)
		_, _ = fmt.Fprint(w, "bytes")
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// TestGone: a chunk is gone when the servers that hold its volume now say so, and
// is waited for when one of them, or all, are away.
func TestGone(t *testing.T) {
	has, lacks, away := holding(t, http.StatusPartialContent), holding(t, http.StatusNotFound), "127.0.0.1:1"
	for _, tt := range []struct {
		name  string
		lists [][]string
		want  error
	}{
		{"there", [][]string{{has}}, nil},
		{"moved", [][]string{{lacks}, {has}}, nil},
		{"moved from a server that is away", [][]string{{away}, {has}}, nil},
		{"a replica has it", [][]string{{lacks, away, has}}, nil},
		{"gone", [][]string{{lacks}}, &storage.Error{Kind: storage.NotFound}},
		{"gone from all", [][]string{{lacks, lacks}}, &storage.Error{Kind: storage.NotFound}},
		{"the volume has no server now", [][]string{{lacks}, {}}, &storage.Error{Kind: storage.Unavailable}},
		{"no server at all", [][]string{{}}, &storage.Error{Kind: storage.Unavailable}},
		{"one replica is away", [][]string{{lacks, away}}, &storage.Error{Kind: storage.Unavailable}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := located(t, tt.lists...)
			if _, _, err := c.locations.get(t.Context(), "3"); err != nil && tt.want == nil { // remembered from here on
				t.Fatal(err)
			}
			got := make([]byte, 5)
			err := c.Read(t.Context(), storage.Chunk{ID: "3,01637037d6"}, got, 0)
			if tt.want == nil && (err != nil || string(got) != "bytes") || tt.want != nil && !storage.Is(err, storage.KindOf(tt.want)) {
				t.Errorf("%q, %v, want %v", got, err, tt.want)
			}
		})
	}
}

// TestDeleteMany: chunks are freed side by side, those that do not exist are
// skipped, and a volume without a server is waited for once.
func TestDeleteMany(t *testing.T) {
	var now, freed atomic.Int64
	var once sync.Once
	full := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if now.Add(1) == parallelFrees {
			once.Do(func() { close(full) })
		}
		if now.Load() > parallelFrees {
			t.Error("too many at a time")
		}
		defer now.Add(-1)
		select { // so that they meet
		case <-full:
		case <-time.After(30 * time.Second):
			t.Error("one after the other")
		}
		freed.Add(1)
		if strings.Contains(r.URL.Path, "7f") {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer s.Close()
	c := located(t, []string{strings.TrimPrefix(s.URL, "http://")})
	c.timeout = time.Minute
	var ids []storage.ChunkID
	for i := range 500 {
		ids = append(ids, storage.ChunkID(wireID{3, uint64(i + 1), 7}.String()))
	}
	if err := c.Delete(t.Context(), ids); err != nil {
		t.Fatal(err)
	}
	if freed.Load() < 500 {
		t.Errorf("%d freed", freed.Load())
	}
	c = located(t, []string{})
	began := time.Now()
	if err := c.Delete(t.Context(), ids); !storage.Is(err, storage.Unavailable) {
		t.Errorf("without a server: %v", err)
	}
	if took := time.Since(began); took > 20*c.timeout {
		t.Errorf("took %v", took)
	}
}
