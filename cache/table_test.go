package cache

import (
	"math/rand/v2"
	"testing"
	"unsafe"
)

// What a block costs in memory is written in FORMAT.md.
func TestBytesPerBlock(t *testing.T) {
	if n := unsafe.Sizeof(entry{}) + unsafe.Sizeof(uint32(0)) + unsafe.Sizeof(ghost{}); n > 56 {
		t.Errorf("%d bytes per block", n)
	}
}

// sim is a table of 100 blocks without a disk.
type sim struct {
	*table
	hits, misses int
}

func newSim() *sim { return &sim{table: newTable(100, 100*int64(pagesOf(BlockSize)))} }

// read reads n bytes of block i from off.
func (s *sim) read(i, off, n int) {
	k := benchKey(i)
	slot := s.find(&k)
	if slot != none {
		s.hits++
		s.touch(slot, off, n)
		return
	}
	s.misses++
	if slot = s.takeFree(); slot == none {
		slot = s.victim()
	}
	s.resize(slot, pagesOf(BlockSize))
	s.add(slot, k, BlockSize, 0, false)
	s.touch(slot, off, n)
}

// A scan ten times the size of the cache, in small steps, leaves in it what was in
// use before.
func TestScanResistance(t *testing.T) {
	s := newSim()
	for range 5 {
		for i := range 80 {
			s.read(i, 0, BlockSize)
		}
	}
	for i := 1000; i < 2000; i++ {
		for off := 0; off < BlockSize; off += 128 << 10 {
			s.read(i, off, 128<<10)
		}
	}
	s.hits, s.misses = 0, 0
	for i := range 80 {
		s.read(i, 0, BlockSize)
	}
	if s.hits < 75 {
		t.Errorf("of 80 blocks in use %d outlived a scan", s.hits)
	}
}

// What comes back soon after it left gets into the main queue.
func TestGhost(t *testing.T) {
	s := newSim()
	for i := range 150 {
		s.read(i, 0, BlockSize)
	}
	known := 0
	for i := 20; i < 50; i++ {
		s.read(i, 0, BlockSize)
		k := benchKey(i)
		if s.entries[s.find(&k)].place == inMain {
			known++
		}
	}
	if known < 15 { // ghosts share places, so some are forgotten
		t.Errorf("%d of 30 are known", known)
	}
	s.read(100_000, 0, BlockSize)
	k := benchKey(100_000)
	if e := s.entries[s.find(&k)]; e.place != inSmall {
		t.Errorf("a new one is at place %d", e.place)
	}
}

// On a skewed load the table is not worse than keeping the last ones used.
func TestHitRatio(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	zipf := rand.NewZipf(rng, 1.1, 1, 2000)
	s := newSim()
	var lru []uint64
	lruHits := 0
	for range 50_000 {
		x := zipf.Uint64()
		s.read(int(x), 0, BlockSize)
		found := -1
		for i, y := range lru {
			if y == x {
				found = i
			}
		}
		if found >= 0 {
			lruHits++
			lru = append(lru[:found], lru[found+1:]...)
		} else if len(lru) == 100 {
			lru = lru[1:]
		}
		lru = append(lru, x)
	}
	t.Logf("hits: %d, least recently used: %d", s.hits, lruHits)
	if s.hits < lruHits {
		t.Errorf("hits: %d, least recently used: %d", s.hits, lruHits)
	}
}
