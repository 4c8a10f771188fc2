package cache

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// slow is a store that takes a while, and tells how much was going on at a time.
type slow struct {
	storage.Chunks
	takes     time.Duration
	now, most atomic.Int64
	ended     atomic.Int64 // reads that were given up
}

func (s *slow) Read(ctx context.Context, ch storage.Chunk, b []byte, off int64) error {
	n := s.now.Add(int64(len(b)))
	defer s.now.Add(-int64(len(b)))
	for m := s.most.Load(); n > m && !s.most.CompareAndSwap(m, n); m = s.most.Load() {
	}
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		s.ended.Add(1)
		return ctx.Err()
	}
	return s.Chunks.Read(ctx, ch, b, off)
}

// newFile is a file of n chunks as fuse writes them, each behind the other.
func newFile(t *testing.T, n int) (*material, []storage.Extent) {
	m := newMaterial(t, slices.Repeat([]int{storage.ChunkSize}, n)...)
	layout := make([]storage.Extent, n)
	for i := range layout {
		m.chunks[i].Offset = int64(i) * storage.ChunkSize
		layout[i] = storage.Extent{Offset: m.chunks[i].Offset, Size: storage.ChunkSize, Chunk: m.chunks[i]}
	}
	return m, layout
}

// content of the file.
func content(m *material, layout []storage.Extent) []byte {
	byID := map[storage.ChunkID][]byte{}
	for i, ch := range m.chunks {
		byID[ch.ID] = m.data[i]
	}
	b := make([]byte, layout[len(layout)-1].End())
	for _, x := range layout {
		copy(b[x.Offset:x.End()], byID[x.Chunk.ID][x.At:])
	}
	return b
}

// readFile reads n bytes of a file from off on, as fuse does.
func readFile(t *testing.T, c storage.Chunks, layout []storage.Extent, want []byte, off, n int64) {
	t.Helper()
	got := make([]byte, n)
	for i, x := range layout {
		from, to := max(x.Offset, off), min(x.End(), off+n)
		if from >= to {
			continue
		}
		if err := c.(*chunks).ReadAlong(t.Context(), layout, i, got[from-off:to-off], x.At+from-x.Offset); err != nil {
			t.Error(err)
		}
	}
	if !bytes.Equal(got, want[off:off+n]) {
		t.Errorf("%d bytes at %d are wrong", n, off)
	}
}

// A sequential reader of a far store waits a few times at the beginning, then
// reads at the store's speed, over the ends of chunks; in small steps or large.
func TestReadAhead(t *testing.T) {
	m, layout := newFile(t, 8)
	data := content(m, layout)
	for _, step := range []int{4096, 128 << 10, 1 << 20} {
		synctest.Test(t, func(t *testing.T) {
			store := &slow{Chunks: m.store, takes: 100 * time.Millisecond}
			c := open(t, Options{})
			v := c.Chunks(store)
			begun := time.Now()
			for off := 0; off < len(data); off += step {
				readFile(t, v, layout, data, int64(off), int64(min(step, len(data)-off)))
			}
			st := c.Stats()
			t.Logf("steps of %d: %v", step, time.Since(begun))
			if took := time.Since(begun); took > 10*store.takes {
				t.Errorf("steps of %d: 32 blocks of 8 chunks took %v, one after the other 3.2s; %+v", step, took, st)
			}
			if st.Fetches != 32 || store.most.Load() > DefaultMemory/4+2*BlockSize {
				t.Errorf("steps of %d: %d bytes at a time, %+v", step, store.most.Load(), st)
			}
		})
	}
}

// Several readers of one file, each at its place, each with a window of its own,
// over the ends of chunks.
func TestReadersOfOneFile(t *testing.T) {
	m, layout := newFile(t, 12)
	data := content(m, layout)
	synctest.Test(t, func(t *testing.T) {
		store := &slow{Chunks: m.store, takes: 100 * time.Millisecond}
		c := open(t, Options{})
		v := c.Chunks(store)
		begun := time.Now()
		const step = 128 << 10
		third := int64(4 * storage.ChunkSize)
		var readers sync.WaitGroup
		for r := range int64(3) {
			readers.Go(func() {
				for off := r * third; off < (r+1)*third; off += step {
					readFile(t, v, layout, data, off, step)
				}
			})
		}
		readers.Wait()
		// Two of them end in the middle, with a window of 4 MiB before them.
		t.Logf("took %v", time.Since(begun))
		if took, st := time.Since(begun), c.Stats(); took > 15*store.takes || st.Fetches > 48+2*5 {
			t.Errorf("16 blocks each took %v; %+v", took, st)
		}
	})
}

// The kernel's requests of one reader overtake each other, at the end of a chunk
// too.
func TestOvertakingReads(t *testing.T) {
	m, layout := newFile(t, 6)
	data := content(m, layout)
	synctest.Test(t, func(t *testing.T) {
		store := &slow{Chunks: m.store, takes: 100 * time.Millisecond}
		c := open(t, Options{})
		v := c.Chunks(store)
		begun := time.Now()
		const step = 64 << 10
		readFile(t, v, layout, data, 0, step)
		readFile(t, v, layout, data, step, step)
		for off := int64(2 * step); off+2*step <= int64(len(data)); off += 2 * step {
			readFile(t, v, layout, data, off+step, step)
			readFile(t, v, layout, data, off, step)
		}
		t.Logf("took %v", time.Since(begun))
		if took, st := time.Since(begun), c.Stats(); took > 7*store.takes || st.Fetches != 24 {
			t.Errorf("24 blocks took %v; %+v", took, st)
		}
	})
}

// A file that was overwritten here and there is read on as any other.
func TestReadAheadInPieces(t *testing.T) {
	m, whole := newFile(t, 4)
	all := []storage.Chunk{}
	for _, x := range whole {
		all = append(all, x.Chunk)
	}
	for i := range 40 {
		ch, data := fill(t, m.store.Chunks, 4096)
		ch.Offset, ch.Modified = int64(i)*300_000+1000, 1+int64(i)
		m.chunks, m.data, all = append(m.chunks, ch), append(m.data, data), append(all, ch)
	}
	layout := storage.Layout(all)
	data := content(m, layout)
	synctest.Test(t, func(t *testing.T) {
		store := &slow{Chunks: m.store, takes: 100 * time.Millisecond}
		c := open(t, Options{})
		v := c.Chunks(store)
		begun := time.Now()
		const step = 128 << 10
		for off := int64(0); off < int64(len(data)); off += step {
			readFile(t, v, layout, data, off, min(step, int64(len(data))-off))
		}
		t.Logf("took %v", time.Since(begun))
		if took, st := time.Since(begun), c.Stats(); took > 7*store.takes || st.Fetches > 16+40 {
			t.Errorf("16 blocks and 40 pieces took %v; %+v", took, st)
		}
	})
}

// Random readers get no read-ahead, and do not disturb that of another.
func TestRandomReadsAreNotAhead(t *testing.T) {
	m := newMaterial(t, 8<<20, 8<<20)
	store := newStore()
	store.Chunks = m.store.Chunks
	c := open(t, Options{})
	v := c.Chunks(store)
	rng := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		mustRead(t, v, m.chunks[0], m.data[0], 1+rng.IntN(7<<20), 4096)
	}
	c.settle()
	if st := c.Stats(); st.ReadAhead > 0 {
		t.Errorf("%+v", st)
	}
	for off := 0; off < 8<<20; off += 256 << 10 {
		mustRead(t, v, m.chunks[1], m.data[1], off, 256<<10)
		for range 20 {
			mustRead(t, v, m.chunks[0], m.data[0], 1+rng.IntN(7<<20), 4096)
		}
	}
	if st := c.Stats(); st.ReadAhead < 6 {
		t.Errorf("%+v", st)
	}
}

// Reading ahead takes its share of the memory and no more: who needs something
// now gets it at once.
func TestAheadNeverDelays(t *testing.T) {
	m := newMaterial(t, 100<<20, BlockSize)
	layout := []storage.Extent{{Size: 100 << 20, Chunk: m.chunks[0]}}
	synctest.Test(t, func(t *testing.T) {
		c := open(t, Options{Memory: MinMemory})
		store := &slow{Chunks: m.store, takes: time.Hour}
		v := c.Chunks(store).(*chunks)
		ctx, cancel := context.WithCancel(t.Context())
		if got := v.prefetch(ctx, layout, 0, 100<<20); got != 2<<20 {
			t.Errorf("%d bytes are read ahead", got)
		}
		synctest.Wait()
		store.takes = time.Second
		begun := time.Now()
		mustRead(t, v, m.chunks[1], m.data[1], 0, 100)
		if took := time.Since(begun); took != time.Second {
			t.Errorf("it took %v", took)
		}
		cancel()
		synctest.Wait()
		if store.ended.Load() != 2 || c.ahead.Load() != 0 {
			t.Errorf("%d fetches were given up, %d bytes are ahead still", store.ended.Load(), c.ahead.Load())
		}
	})
}

// However many want something, no more is under way than the memory allows.
func TestMemoryIsBounded(t *testing.T) {
	m := newMaterial(t, 64<<20)
	synctest.Test(t, func(t *testing.T) {
		c := open(t, Options{Memory: MinMemory})
		store := &slow{Chunks: m.store, takes: time.Second}
		v := c.Chunks(store)
		var readers sync.WaitGroup
		for i := range 64 {
			readers.Go(func() { mustRead(t, v, m.chunks[0], m.data[0], i*BlockSize, BlockSize) })
		}
		readers.Wait()
		if store.most.Load() > MinMemory {
			t.Errorf("%d bytes at a time", store.most.Load())
		}
	})
}

// A reader that has gone elsewhere and is forgotten has nothing read ahead.
func TestForgottenReaderGivesUp(t *testing.T) {
	m := newMaterial(t, 8<<20, 8<<20)
	synctest.Test(t, func(t *testing.T) {
		c := open(t, Options{})
		store := &slow{Chunks: m.store}
		v := c.Chunks(store)
		mustRead(t, v, m.chunks[0], m.data[0], 0, 100)
		store.takes = time.Hour
		mustRead(t, v, m.chunks[0], m.data[0], 100, 100)
		synctest.Wait()
		if store.now.Load() == 0 {
			t.Fatal("nothing is read ahead")
		}
		store.takes = 0
		for i := range idleAfter + 2*streamCount {
			mustRead(t, v, m.chunks[1], m.data[1], 1+2*i*1000, 10)
		}
		synctest.Wait()
		if store.now.Load() != 0 {
			t.Error("it is still read ahead")
		}
	})
}
