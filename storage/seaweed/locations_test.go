package seaweed

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/volumepb"
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
	c.locations = newLocations(func(context.Context, []string) (map[string][]holder, error) {
		var found []holder
		for _, at := range lists[min(int(n.Add(1)), len(lists))-1] {
			found = append(found, holder{http: at, grpc: at})
		}
		return map[string][]holder{"3": found}, nil
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

// freer is a volume server that frees what it is told to, at the pace of meet.
type freer struct {
	volumepb.UnimplementedVolumeServerServer

	meet   func()
	answer func(id string) int32
	mu     sync.Mutex
	asked  map[string]int
}

func (f *freer) BatchDelete(_ context.Context, r *volumepb.BatchDeleteRequest) (*volumepb.BatchDeleteResponse, error) {
	if f.meet != nil {
		f.meet()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var out volumepb.BatchDeleteResponse
	for _, id := range r.GetFileIds() {
		f.asked[id]++
		code := f.answer(id)
		out.Results = append(out.Results, &volumepb.DeleteResult{FileId: id, Status: code})
		if code == http.StatusBadRequest {
			break // as weed does
		}
	}
	return &out, nil
}

func (f *freer) serve(t *testing.T) string {
	t.Helper()
	f.asked = map[string]int{}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	volumepb.RegisterVolumeServerServer(s, f)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() { s.Stop(); <-served })
	return l.Addr().String()
}

func chunkIDs(n int) (ids []storage.ChunkID) {
	for i := range n {
		ids = append(ids, storage.ChunkID(wireID{3, uint64(i + 1), 7}.String()))
	}
	return ids
}

// TestDeleteMany: chunks are freed side by side on every server that has them,
// those that do not exist are skipped, and a volume without a server is waited for
// once.
func TestDeleteMany(t *testing.T) {
	const chunks = 20*freedAtOnce + 1
	var now atomic.Int64
	var once sync.Once
	full := make(chan struct{})
	there := func(string) int32 { return http.StatusAccepted }
	first, second := &freer{answer: there}, &freer{answer: func(string) int32 { return http.StatusNotFound }}
	first.meet = func() {
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
	}
	c := located(t, []string{first.serve(t), second.serve(t)})
	c.timeout = time.Minute
	ids := chunkIDs(chunks)
	if err := c.Delete(t.Context(), ids); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*freer{first, second} {
		for _, id := range ids {
			if f.asked[string(id)] != 1 {
				t.Fatalf("a server was asked %d times to free %s", f.asked[string(id)], id)
			}
		}
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

// TestDeleteWithAWrongID: an id that is not the chunk's own is told, and keeps
// nothing else from being freed.
func TestDeleteWithAWrongID(t *testing.T) {
	ids := chunkIDs(10)
	f := &freer{answer: func(id string) int32 {
		if id == string(ids[4]) {
			return http.StatusBadRequest
		}
		return http.StatusAccepted
	}}
	c := located(t, []string{f.serve(t)})
	if err := c.Delete(t.Context(), ids); !storage.Is(err, storage.Invalid) || !strings.Contains(err.Error(), string(ids[4])) {
		t.Errorf("%v, want the name of %s", err, ids[4])
	}
	for _, id := range ids {
		if f.asked[string(id)] == 0 {
			t.Errorf("%s was not freed", id)
		}
	}
}

// TestDeleteWaitsForAReplica: chunks are not freed while a listed server is away.
func TestDeleteWaitsForAReplica(t *testing.T) {
	f := &freer{answer: func(string) int32 { return http.StatusAccepted }}
	at := f.serve(t)
	c := located(t, []string{at, "127.0.0.1:1"})
	if err := c.Delete(t.Context(), chunkIDs(1)); !storage.Is(err, storage.Unavailable) {
		t.Errorf("%v, want it to be unavailable", err)
	}
	c = located(t, []string{at, "127.0.0.1:1"}, []string{at})
	c.timeout = time.Minute
	if err := c.Delete(t.Context(), chunkIDs(1)); err != nil {
		t.Errorf("the server is not listed any more: %v", err)
	}
}
