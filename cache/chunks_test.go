package cache

import (
	"bytes"
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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

// The reader who misses fetches by himself, under his own context; when he leaves,
// it goes on for those who wait with him, and not when nobody does.
func TestFirstReaderLeaves(t *testing.T) {
	for _, others := range []int{0, 1, 3} {
		store := newStore()
		cache := open(t, Options{Dir: t.TempDir()})
		ch, data := fill(t, store.Chunks, 1000)
		entered, gate := make(chan context.Context, 4), make(chan struct{})
		v := cache.Chunks(&gated{store, entered, gate})
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error)
		go func() { left <- v.Read(ctx, ch, make([]byte, 1000), 0) }()
		if got := <-entered; got != ctx {
			t.Error("somebody else fetches")
		}
		var readers sync.WaitGroup
		for i := range others {
			readers.Go(func() { mustRead(t, v, ch, data, i, 1000-i) })
		}
		cache.untilWaiting(t, 1+others)
		leave()
		if err := <-left; !storage.IsContext(err) {
			t.Errorf("who left got %v", err)
		}
		if others > 0 {
			select {
			case <-entered:
			case <-time.After(time.Minute):
				t.Fatal("the others are forgotten")
			}
		}
		close(gate)
		readers.Wait()
		mustRead(t, v, ch, data, 0, 1000)
		cache.settle()
		// With others: begun, begun anew. Without: begun, and for the last reader.
		if n := store.reads.Load(); n != 1 {
			t.Errorf("%d others: %d reads came through", others, n)
		}
		if st := cache.Stats(); st.Blocks != 1 {
			t.Errorf("%d others: %+v", others, st)
		}
	}
}

// untilWaiting waits for so many readers to wait for one block.
func (c *Cache) untilWaiting(t *testing.T, n int) {
	t.Helper()
	for begun := time.Now(); time.Since(begun) < time.Minute; runtime.Gosched() {
		c.mu.Lock()
		got := 0
		for _, f := range c.mu.fetches {
			got += f.waiters
		}
		c.mu.Unlock()
		if got == n {
			return
		}
	}
	t.Fatalf("there are never %d who wait", n)
}

// gated says who comes, and lets nobody pass before it is opened.
type gated struct {
	storage.Chunks
	entered chan context.Context
	gate    chan struct{}
}

func (g *gated) Read(ctx context.Context, ch storage.Chunk, b []byte, off int64) error {
	g.entered <- ctx
	select {
	case <-g.gate:
		return g.Chunks.Read(ctx, ch, b, off)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Who reads before the disk has a block does not wait for the disk.
func TestDiskIsNotWaitedFor(t *testing.T) {
	m := newMaterial(t, 100_000)
	disk := newMemFolder(1)
	c := openMem(t, disk, nil)
	v := c.Chunks(m.store)
	disk.mu.Lock() // nothing is written, nor read, from now on
	done := make(chan struct{})
	go func() {
		for range 3 {
			mustRead(t, v, m.chunks[0], m.data[0], 0, 100_000)
		}
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("the reader waits for the disk")
	}
	disk.mu.Unlock()
	<-done
	if n := m.store.reads.Load(); n != 1 {
		t.Errorf("%d reads", n)
	}
	_ = c.Close(context.WithoutCancel(t.Context()))
}

// A random read of several pieces has them fetched side by side.
func TestPiecesSideBySide(t *testing.T) {
	m := newMaterial(t, storage.ChunkSize)
	synctest.Test(t, func(t *testing.T) {
		store := &slow{Chunks: m.store, takes: time.Second}
		c := open(t, Options{})
		v := c.Chunks(store)
		begun := time.Now()
		mustRead(t, v, m.chunks[0], m.data[0], 5*pieceSize+100, 5*pieceSize)
		if took, st := time.Since(begun), c.Stats(); took != store.takes || st.Fetches != 6 || st.ReadAhead != 0 {
			t.Errorf("it took %v: %+v", took, st)
		}
	})
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

// A small file that was written here is not fetched, a large one is not kept; with
// SkipWrites nothing is.
func TestWrittenIsKept(t *testing.T) {
	for _, skip := range []bool{false, true} {
		for _, n := range []int{100, BlockSize, BlockSize + 1, storage.ChunkSize} {
			store := newStore()
			cache := open(t, Options{Dir: t.TempDir(), SkipWrites: skip})
			c := cache.Chunks(store)
			ch, data := fill(t, c, n)
			cache.settle()
			if kept := cache.Stats().Blocks > 0; kept != (!skip && n <= BlockSize) {
				t.Errorf("SkipWrites %v: of %d bytes %d blocks are kept", skip, n, cache.Stats().Blocks)
			}
			mustRead(t, c, ch, data, 0, len(data))
			if fetched := store.reads.Load() > 0; fetched == (!skip && n <= BlockSize) {
				t.Errorf("SkipWrites %v: %d reads of %d bytes", skip, store.reads.Load(), n)
			}
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
