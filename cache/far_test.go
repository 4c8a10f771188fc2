package cache

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// far is a store that answers after 200 us, and does nothing else.
type far struct{ storage.Chunks }

func (far) Read(_ context.Context, _ storage.Chunk, b []byte, _ int64) error {
	// Not time.Sleep: on an idle machine it takes a whole millisecond.
	_ = unix.Nanosleep(&unix.Timespec{Nsec: 200_000}, nil)
	b[0]++
	return nil
}

// BenchmarkFar: hits and misses of random and sequential readers of a store that
// is 200 us away. FORMAT.md has the figures.
func BenchmarkFar(b *testing.B) {
	const chunk, chunks = 4<<20 - 64<<10, 1000
	begin := func(b *testing.B) (*Cache, storage.Chunks, []storage.Extent) {
		c, err := Open(b.Context(), Options{Dir: b.TempDir(), Limit: 256 << 20})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Close(context.WithoutCancel(b.Context())) })
		layout := make([]storage.Extent, chunks)
		for i := range layout {
			layout[i] = storage.Extent{Offset: int64(i) * chunk, Size: chunk}
			layout[i].Chunk = storage.Chunk{ID: storage.ChunkID(rune('a' + i)), Offset: layout[i].Offset, Size: chunk}
		}
		return c, c.Chunks(far{}), layout
	}
	read := func(b *testing.B, v storage.Chunks, layout []storage.Extent, buf []byte, off int64) {
		i := int(off / chunk)
		var err error
		if a, ok := v.(interface {
			ReadAlong(ctx context.Context, layout []storage.Extent, i int, b []byte, off int64) error
		}); ok {
			err = a.ReadAlong(b.Context(), layout, i, buf, off%chunk)
		} else {
			err = v.Read(b.Context(), layout[i].Chunk, buf, off%chunk)
		}
		if err != nil {
			b.Error(err)
		}
	}
	b.Run("hit/4096", func(b *testing.B) {
		c, v, layout := begin(b)
		for off := int64(0); off < chunk; off += BlockSize {
			read(b, v, layout, make([]byte, min(BlockSize, chunk-off)), off)
		}
		c.settle()
		buf, i := make([]byte, 4096), int64(0)
		b.ReportAllocs()
		for b.Loop() {
			i++
			read(b, v, layout, buf, i*69632%chunk/4096*4096)
		}
	})
	b.Run("miss/4096/q1", func(b *testing.B) {
		_, v, layout := begin(b)
		rng := rand.New(rand.NewPCG(1, uint64(b.N)))
		buf := make([]byte, 4096)
		b.ReportAllocs()
		for b.Loop() {
			read(b, v, layout, buf, rng.Int64N(chunk*chunks/4096)*4096)
		}
	})
	b.Run("miss/4096/q16", func(b *testing.B) {
		_, v, layout := begin(b)
		var seed atomic.Uint64
		b.SetParallelism(8) // of two cores
		b.RunParallel(func(pb *testing.PB) {
			rng := rand.New(rand.NewPCG(seed.Add(1), uint64(b.N)))
			buf := make([]byte, 4096)
			for pb.Next() {
				read(b, v, layout, buf, rng.Int64N(chunk*chunks/4096)*4096)
			}
		})
	})
	b.Run("sequential", func(b *testing.B) {
		_, v, layout := begin(b)
		buf, off := make([]byte, 128<<10), int64(0)
		b.SetBytes(int64(len(buf)))
		for b.Loop() {
			// 31.5 of these are a chunk: every second one ends in the middle.
			for done := int64(0); done < int64(len(buf)); {
				n := min(int64(len(buf))-done, chunk-(off+done)%chunk)
				read(b, v, layout, buf[done:done+n], off+done)
				done += n
			}
			off = (off + int64(len(buf))) % (chunk * (chunks - 1))
		}
	})
}
