package cache_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/holdfast-csi/holdfast/cache"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
	"github.com/holdfast-csi/holdfast/storage/storagetest"
)

// The cache is a storage.Chunks as any other.
func TestVolume(t *testing.T) {
	storagetest.Volume(t, func(*testing.T) (a, b storage.Volume) {
		bucket := memory.NewBucket(1 << 30)
		a, b = bucket.Volume(), bucket.Volume()
		a.Chunks, b.Chunks = cache.New(a.Chunks, 0), cache.New(b.Chunks, 3<<20)
		return a, b
	})
}

// counting counts reads, and holds them while gate is not nil.
type counting struct {
	storage.Chunks
	reads atomic.Int64
	gate  chan struct{}
}

func (c *counting) Read(ctx context.Context, ch storage.Chunk, b []byte, off int64) error {
	c.reads.Add(1)
	if c.gate != nil {
		select {
		case <-c.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return c.Chunks.Read(ctx, ch, b, off)
}

func fill(t *testing.T, s storage.Chunks, n int) (storage.Chunk, []byte) {
	t.Helper()
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	ch, err := s.Write(t.Context(), "f", data)
	if err != nil {
		t.Fatal(err)
	}
	return ch, data
}

func TestOneFetchPerMiss(t *testing.T) {
	store := &counting{Chunks: memory.NewBucket(1 << 30).Volume().Chunks, gate: make(chan struct{})}
	c := cache.New(store, 0)
	ch, data := fill(t, c, cache.BlockSize+5)
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
	store := &counting{Chunks: memory.NewBucket(1 << 30).Volume().Chunks, gate: make(chan struct{})}
	c := cache.New(store, 0)
	ch, data := fill(t, c, 100)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() { left <- c.Read(ctx, ch, make([]byte, 100), 0) }()
	leave()
	if err := <-left; !storage.IsContext(err) {
		t.Errorf("a reader that left got %v", err)
	}
	go func() { store.gate <- struct{}{} }()
	got := make([]byte, 100)
	if err := c.Read(t.Context(), ch, got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the next reader got %v", err)
	}
}

// A chunk whose tail was cut is cached short; the uncut one is not served from
// that.
func TestCutChunk(t *testing.T) {
	c := cache.New(memory.NewBucket(1<<30).Volume().Chunks, 0)
	ch, data := fill(t, c, 1000)
	cut := ch
	cut.Size = 10
	for _, x := range []storage.Chunk{cut, ch, cut} {
		got := make([]byte, x.Size)
		if err := c.Read(t.Context(), x, got, 0); err != nil || !bytes.Equal(got, data[:x.Size]) {
			t.Errorf("%d bytes: %v", x.Size, err)
		}
	}
}

func TestLimit(t *testing.T) {
	store := &counting{Chunks: memory.NewBucket(1 << 30).Volume().Chunks}
	c := cache.New(store, 2*cache.BlockSize)
	a, _ := fill(t, c, cache.BlockSize)
	b, _ := fill(t, c, cache.BlockSize)
	d, _ := fill(t, c, cache.BlockSize)
	for _, x := range []storage.Chunk{a, b, a, d, a, b} { // b leaves for d, d for b
		if err := c.Read(t.Context(), x, make([]byte, 10), 0); err != nil {
			t.Fatal(err)
		}
	}
	if n := store.reads.Load(); n != 4 {
		t.Errorf("%d reads, want 4: a, b, d, b", n)
	}
}
