package cache

import (
	"context"
	"math/rand/v2"
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

// A sequential reader of a far store waits a few times at the beginning, then
// reads at the store's speed, over the ends of chunks; in small steps or large.
func TestReadAhead(t *testing.T) {
	m := newMaterial(t, 8<<20, 8<<20, 8<<20, 8<<20)
	for i := range m.chunks {
		m.chunks[i].Offset = int64(i) * 8 << 20
	}
	for _, step := range []int{4096, 128 << 10, 1 << 20} {
		synctest.Test(t, func(t *testing.T) {
			store := &slow{Chunks: m.store, takes: 100 * time.Millisecond}
			c := open(t, Options{})
			v := c.Chunks(store)
			begun := time.Now()
			for i, ch := range m.chunks {
				for off := 0; off < len(m.data[i]); off += step {
					mustRead(t, v, ch, m.data[i], off, step)
				}
			}
			st := c.Stats()
			t.Logf("steps of %d: %v", step, time.Since(begun))
			if took := time.Since(begun); took > 20*store.takes {
				t.Errorf("steps of %d: 32 blocks took %v, one after the other 3.2s; %+v", step, took, st)
			}
			if st.Fetches > 33 || store.most.Load() > DefaultMemory/4+2*BlockSize {
				t.Errorf("steps of %d: %d bytes at a time, %+v", step, store.most.Load(), st)
			}
		})
	}
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
	synctest.Test(t, func(t *testing.T) {
		c := open(t, Options{Memory: MinMemory})
		store := &slow{Chunks: m.store, takes: time.Hour}
		v := c.Chunks(store).(*chunks)
		ctx, cancel := context.WithCancel(t.Context())
		if got := v.Prefetch(ctx, m.chunks[0], 0, 100<<20); got != 2<<20 {
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
