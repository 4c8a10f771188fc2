package cache

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
	"github.com/holdfast-csi/holdfast/storage/storagetest"
)

func open(t *testing.T, o Options) *Cache {
	t.Helper()
	c, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return c
}

// settle waits for what is on its way to the disk.
func (c *Cache) settle() { c.work.Wait() }

// The cache is a storage.Chunks as any other.
func TestVolume(t *testing.T) {
	for name, dir := range map[string]bool{"Disk": true, "Memory": false} {
		t.Run(name, func(t *testing.T) {
			storagetest.Volume(t, func(t *testing.T) (a, b storage.Volume) {
				bucket := memory.NewBucket(1 << 30)
				a, b = bucket.Volume(), bucket.Volume()
				var one, two Options
				if dir {
					one.Dir, two.Dir, two.Limit = t.TempDir(), t.TempDir(), MinLimit
				}
				a.Chunks, b.Chunks = open(t, one).Chunks(a.Chunks), open(t, two).Chunks(b.Chunks)
				return a, b
			})
		})
	}
}

// counting counts reads, and holds them while gate is not nil.
type counting struct {
	storage.Chunks
	reads, bytes atomic.Int64
	gate         chan struct{}
}

func (c *counting) Read(ctx context.Context, ch storage.Chunk, b []byte, off int64) error {
	c.reads.Add(1)
	c.bytes.Add(int64(len(b)))
	if c.gate != nil {
		select {
		case <-c.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return c.Chunks.Read(ctx, ch, b, off)
}

func newStore() *counting { return &counting{Chunks: memory.NewBucket(4 << 30).Volume().Chunks} }

// fill writes a chunk past the cache.
func fill(t testing.TB, s storage.Chunks, n int) (storage.Chunk, []byte) {
	t.Helper()
	data := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(n), byte(rand.Uint32())})
	_, _ = rng.Read(data)
	ch, err := s.Write(t.Context(), "f", data)
	if err != nil {
		t.Fatal(err)
	}
	return ch, data
}

func mustRead(t testing.TB, s storage.Chunks, ch storage.Chunk, data []byte, off, n int) {
	t.Helper()
	got := make([]byte, n)
	if err := s.Read(t.Context(), ch, got, int64(off)); err != nil || !bytes.Equal(got, data[off:off+n]) {
		t.Fatalf("%d bytes at %d of %s: wrong, or %v", n, off, ch.ID, err)
	}
}

func TestOneFetchPerMiss(t *testing.T) {
	store := newStore()
	store.gate = make(chan struct{})
	c := open(t, Options{Dir: t.TempDir()}).Chunks(store)
	ch, data := fill(t, store.Chunks, BlockSize+5)
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			got := make([]byte, len(data))
			if err := c.Read(t.Context(), ch, got, 0); err != nil || !bytes.Equal(got, data) {
				t.Errorf("read: %v", err)
			}
		})
	}
	store.gate <- struct{}{}
	store.gate <- struct{}{}
	readers.Wait()
	if n := store.reads.Load(); n != 2 {
		t.Errorf("%d reads of 2 blocks by 8 readers", n)
	}
}

func TestWaiterCanLeave(t *testing.T) {
	store := newStore()
	store.gate = make(chan struct{})
	c := open(t, Options{Dir: t.TempDir()}).Chunks(store)
	ch, data := fill(t, store.Chunks, 100)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() { left <- c.Read(ctx, ch, make([]byte, 100), 0) }()
	leave()
	if err := <-left; !storage.IsContext(err) {
		t.Errorf("a reader that left got %v", err)
	}
	go func() { store.gate <- struct{}{} }()
	mustRead(t, c, ch, data, 0, 100)
}

// A chunk whose tail was cut is cached short; the uncut one is not served from
// that.
func TestCutChunk(t *testing.T) {
	for _, dir := range []string{t.TempDir(), ""} {
		cache := open(t, Options{Dir: dir})
		store := newStore()
		c := cache.Chunks(store)
		for _, size := range []int{1000, 100_000, BlockSize, 3 * BlockSize} {
			ch, data := fill(t, store, size)
			cut := ch
			cut.Size = int64(size / 100)
			for _, x := range []storage.Chunk{cut, ch, cut, ch} {
				mustRead(t, c, x, data, 0, int(x.Size))
				mustRead(t, c, x, data, int(x.Size)-3, 3)
				cache.settle()
			}
		}
	}
}

// Two clusters give out the same ids.
func TestClustersApart(t *testing.T) {
	dir := t.TempDir()
	for _, cluster := range []string{"one", "two", "one", "two"} {
		c, err := Open(t.Context(), Options{Dir: dir, Cluster: cluster})
		if err != nil {
			t.Fatal(err)
		}
		v := c.Chunks(fixed(cluster + "-content"))
		mustRead(t, v, storage.Chunk{ID: "3,01", Size: 11}, []byte(cluster+"-content"), 0, 11)
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// fixed is a store in which every chunk has the same content.
type fixed string

func (f fixed) Read(_ context.Context, _ storage.Chunk, b []byte, off int64) error {
	copy(b, f[off:])
	return nil
}

func (f fixed) Write(context.Context, storage.Path, []byte) (storage.Chunk, error) {
	return storage.Chunk{ID: "w", Size: int64(len(f))}, nil
}
func (f fixed) Delete(context.Context, []storage.ChunkID) error { return nil }

// What was written here is not fetched; with SkipWrites it is.
func TestWrittenIsKept(t *testing.T) {
	for _, skip := range []bool{false, true} {
		store := newStore()
		cache := open(t, Options{Dir: t.TempDir(), SkipWrites: skip})
		c := cache.Chunks(store)
		ch, data := fill(t, c, 5*BlockSize/2)
		mustRead(t, c, ch, data, 0, len(data))
		cache.settle()
		mustRead(t, c, ch, data, 0, len(data))
		if n := store.reads.Load(); n > 0 != skip {
			t.Errorf("SkipWrites %v: %d reads", skip, n)
		}
	}
}

// A failing store is an error for those who asked, and nothing is kept of it.
func TestStoreFails(t *testing.T) {
	store := newStore()
	cache := open(t, Options{Dir: t.TempDir()})
	c := cache.Chunks(store)
	gone := storage.Chunk{ID: "gone", Size: 9 << 20}
	for range 2 {
		if err := c.Read(t.Context(), gone, make([]byte, 10), 1<<20); !storage.Is(err, storage.NotFound) {
			t.Errorf("got %v", err)
		}
	}
	cache.settle()
	if st := cache.Stats(); st.Blocks != 0 || store.reads.Load() < 2 {
		t.Errorf("%+v after %d reads", st, store.reads.Load())
	}
}

// A random reader of little gets little: not 256 times what it asked for.
func TestRandomReadsFetchPieces(t *testing.T) {
	store := newStore()
	cache := open(t, Options{Dir: t.TempDir()})
	c := cache.Chunks(store)
	ch, data := fill(t, store, 8<<20)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		off := 1 + rng.IntN(len(data)-5000)
		mustRead(t, c, ch, data, off, 4096)
		mustRead(t, c, ch, data, off, 4096)
	}
	if n := store.bytes.Load(); n > 100*pieceSize {
		t.Errorf("%d KiB were fetched for 50 reads of 4 KiB", n>>10)
	}
}

func TestReadAfterClose(t *testing.T) {
	store := newStore()
	cache := open(t, Options{Dir: t.TempDir()})
	c := cache.Chunks(store)
	ch, data := fill(t, c, 3<<20)
	mustRead(t, c, ch, data, 5, 100)
	if err := cache.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustRead(t, c, ch, data, 5, 100)
	fill(t, c, 100)
}

func TestValidate(t *testing.T) {
	for _, o := range []Options{{Dir: "relative"}, {Limit: 1000}, {Limit: -1}, {Memory: 1}} {
		if _, err := Open(t.Context(), o); !storage.Is(err, storage.Invalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
