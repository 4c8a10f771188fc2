package seaweed

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// put is an upload as a fake volume server saw it.
type put struct {
	path, md5 string
	body      string
}

// fakeVolume answers each upload as answer says and keeps what it saw.
func fakeVolume(t *testing.T, answer func(n int, p put, w http.ResponseWriter)) (*chunks, func() []put) {
	t.Helper()
	var mu sync.Mutex
	var seen []put
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		p := put{r.URL.Path, r.Header.Get("Content-Md5"), string(body)}
		mu.Lock()
		n := len(seen)
		seen = append(seen, p)
		mu.Unlock()
		answer(n, p, w)
	}))
	t.Cleanup(s.Close)
	c, err := Open(t.Context(), Options{Filer: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	ids := &counter{}
	a := newAssigner("b", "/buckets/b", func(ctx context.Context, r *filerpb.AssignVolumeRequest) (*filerpb.AssignVolumeResponse, error) {
		given, err := ids.ask(ctx, r)
		given.Location.Url = strings.TrimPrefix(s.URL, "http://")
		return given, err
	})
	return &chunks{c, "b", a}, func() []put {
		mu.Lock()
		defer mu.Unlock()
		return seen
	}
}

func created(w http.ResponseWriter, stored string) {
	w.Header().Set("Etag", fmt.Sprintf(`"%08x"`, crc32.Checksum([]byte(stored), castagnoli)))
	w.WriteHeader(http.StatusCreated)
}

// TestUploadIsChecked: bytes that were damaged on their way are stored again
// under another id, then with their MD5.
func TestUploadIsChecked(t *testing.T) {
	s, seen := fakeVolume(t, func(n int, p put, w http.ResponseWriter) {
		if n == 0 {
			p.body = "damaged"
		}
		created(w, p.body)
	})
	c, err := s.Write(t.Context(), "f", []byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	puts := seen()
	if len(puts) != 2 || puts[0].path == puts[1].path || "/"+string(c.ID) != puts[1].path {
		t.Errorf("%s after %+v", c.ID, puts)
	}
	sum := md5.Sum([]byte("content"))
	if puts[0].md5 != "" || puts[1].md5 != base64.StdEncoding.EncodeToString(sum[:]) {
		t.Errorf("MD5 sent: %q, %q", puts[0].md5, puts[1].md5)
	}
}

// TestServerThatCompresses: the checksum of another form of the bytes is no
// error when the server has checked the MD5.
func TestServerThatCompresses(t *testing.T) {
	s, seen := fakeVolume(t, func(_ int, _ put, w http.ResponseWriter) { created(w, "in another form") })
	if _, err := s.Write(t.Context(), "f", []byte("content")); err != nil {
		t.Fatal(err)
	}
	if n := len(seen()); n != 2 {
		t.Errorf("%d uploads", n)
	}
}

// TestRefusedUpload: whatever a volume says against an upload, the next goes to
// another assignment; and an error that no assignment mends is told at once.
func TestRefusedUpload(t *testing.T) {
	for _, code := range []int{http.StatusNotFound, http.StatusBadRequest, http.StatusInternalServerError, http.StatusServiceUnavailable} {
		s, seen := fakeVolume(t, func(n int, p put, w http.ResponseWriter) {
			if n == 0 {
				w.WriteHeader(code)
				_, _ = io.WriteString(w, `{"error":"volume 1 is read only"}`)
				return
			}
			created(w, p.body)
		})
		c, err := s.Write(t.Context(), "f", []byte("content"))
		if err != nil {
			t.Errorf("%d: %v", code, err)
			continue
		}
		if v, _ := volumeOf(c.ID); v != "2" {
			t.Errorf("%d: stored as %s after %+v", code, c.ID, seen())
		}
	}
	s, seen := fakeVolume(t, func(_ int, _ put, w http.ResponseWriter) { w.WriteHeader(http.StatusUnauthorized) })
	if _, err := s.Write(t.Context(), "f", []byte("content")); !storage.Is(err, storage.Denied) {
		t.Errorf("refused token: %v after %d uploads", err, len(seen()))
	}
}
