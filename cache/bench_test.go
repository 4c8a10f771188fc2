package cache

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// httpStore is the least that a store behind a network costs: HTTP on this
// machine, from memory.
type httpStore struct {
	fixed
	url string
}

func (h *httpStore) Read(ctx context.Context, _ storage.Chunk, b []byte, off int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url+"?off="+strconv.FormatInt(off, 10)+"&n="+strconv.Itoa(len(b)), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	for n := 0; n < len(b); {
		m, err := resp.Body.Read(b[n:])
		if n += m; err != nil && n < len(b) {
			return err
		}
	}
	return nil
}

func newHTTPStore(b *testing.B, size int) *httpStore {
	data := make([]byte, size)
	var lc net.ListenConfig
	l, err := lc.Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { //nolint:gosec // of a benchmark
		off, _ := strconv.Atoi(r.FormValue("off"))
		n, _ := strconv.Atoi(r.FormValue("n"))
		w.Header().Set("Content-Length", strconv.Itoa(n))
		_, _ = w.Write(data[off : off+n])
	})}
	go func() { _ = srv.Serve(l) }()
	b.Cleanup(func() { _ = srv.Close() })
	return &httpStore{url: "http://" + l.Addr().String() + "/"}
}

// BenchmarkRead: what is on the disk (in the page cache), against a store on the
// same machine.
func BenchmarkRead(b *testing.B) {
	const size = 8 << 20
	store := newHTTPStore(b, size)
	c, err := Open(b.Context(), Options{Dir: b.TempDir(), Limit: 64 << 20})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close(context.WithoutCancel(b.Context())) })
	ch := storage.Chunk{ID: "3,01637037d6", Size: size}
	v := c.Chunks(store)
	if err := v.Read(b.Context(), ch, make([]byte, size), 0); err != nil {
		b.Fatal(err)
	}
	c.settle()
	for _, n := range []int{4096, BlockSize} {
		for _, x := range []struct {
			name string
			read storage.Chunks
		}{{"store", store}, {"warm", v}} {
			b.Run(fmt.Sprintf("%d/%s", n, x.name), func(b *testing.B) {
				buf, i := make([]byte, n), 0
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					i++
					if err := x.read.Read(b.Context(), ch, buf, int64(i)*69632%(size-int64(n)+1)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
