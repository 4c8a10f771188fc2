package cache

import (
	"bytes"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// readAll reads chunks to their ends and compares.
func readAll(t *testing.T, c storage.Chunks, all []storage.Chunk, want [][]byte) {
	t.Helper()
	for i, ch := range all {
		got := make([]byte, ch.Size)
		if err := c.Read(t.Context(), ch, got, 0); err != nil || !bytes.Equal(got, want[i]) {
			t.Fatalf("chunk %d: %v", i, err)
		}
	}
}

// ownBytes is what the blocks of a volume take, by its view.
func ownBytes(c *Cache, v storage.Chunks) int64 {
	s := c.slab.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.t.ownedBy(v.(*chunks).quota.mark).pages * pageSize
}

// TestBounded: a volume with a bound keeps to it, at the cost of its own blocks and
// of nobody else's, and the next process counts on.
func TestBounded(t *testing.T) {
	const bound = 4 << 20
	dir, store := t.TempDir(), newStore()
	o := Options{Dir: dir, Limit: 64 << 20}
	var all []storage.Chunk
	var want [][]byte
	for range 20 {
		ch, data := fill(t, store, BlockSize)
		all, want = append(all, ch), append(want, data)
	}
	c := open(t, o)
	free, bounded := c.Chunks(store), c.Bounded(store, "b", bound)
	readAll(t, free, all[:8], want[:8])
	c.settle()
	for i := range all[8:] {
		readAll(t, bounded, all[8+i:9+i], want[8+i:9+i])
		c.settle()
		if got := ownBytes(c, bounded); got > bound {
			t.Fatalf("after %d MiB %d bytes are kept, %d may be", i+1, got, bound)
		}
	}
	if got := ownBytes(c, bounded); got < bound/2 {
		t.Errorf("%d bytes are kept of %d that may be", got, bound)
	}
	before := store.reads.Load()
	readAll(t, free, all[:8], want[:8])
	if n := store.reads.Load() - before; n > 0 {
		t.Errorf("%d blocks of another volume had to go", n)
	}
	readAll(t, bounded, all[17:], want[17:])
	if n := store.reads.Load() - before; n > 0 {
		t.Errorf("of the newest three blocks %d had to go", n)
	}
	kept := ownBytes(c, bounded)
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	c = open(t, o)
	bounded = c.Bounded(store, "b", bound)
	if got := ownBytes(c, bounded); got != kept {
		t.Errorf("a new process counts %d bytes, it were %d", got, kept)
	}
	readAll(t, bounded, all[8:14], want[8:14])
	c.settle()
	if got := ownBytes(c, bounded); got > bound || got < bound/2 {
		t.Errorf("a new process keeps %d bytes of %d that may be", got, bound)
	}
}

// TestBoundedKeepsWhatIsUsed: what is asked for again outlives what is read once.
func TestBoundedKeepsWhatIsUsed(t *testing.T) {
	store := newStore()
	c := open(t, Options{Dir: t.TempDir(), Limit: 64 << 20})
	v := c.Bounded(store, "b", 4<<20)
	hot, data := fill(t, store, 64<<10)
	for i := range 40 {
		readAll(t, v, []storage.Chunk{hot}, [][]byte{data})
		ch, once := fill(t, store, BlockSize)
		readAll(t, v, []storage.Chunk{ch}, [][]byte{once})
		c.settle()
		before := store.reads.Load()
		readAll(t, v, []storage.Chunk{hot}, [][]byte{data})
		if i > 0 && store.reads.Load() > before {
			t.Fatalf("what is read all the time had to go after %d others", i+1)
		}
	}
}

// TestBoundedToNothing: a bound of zero, or less than a block takes, keeps nothing on
// the disk, and reads are served all the same.
func TestBoundedToNothing(t *testing.T) {
	for _, bound := range []int64{0, 64 << 10} {
		store := newStore()
		c := open(t, Options{Dir: t.TempDir(), Limit: 64 << 20})
		v := c.Bounded(store, "b", bound)
		ch, data := fill(t, store, BlockSize)
		for range 3 {
			readAll(t, v, []storage.Chunk{ch}, [][]byte{data})
			c.settle()
		}
		if st := c.Stats(); ownBytes(c, v) != 0 || st.Blocks != 0 {
			t.Errorf("bound %d: %d blocks are on the disk", bound, st.Blocks)
		}
	}
}

// TestOwnOrder: the order of a volume's blocks does not grow with what has come and
// gone, whoever took the blocks.
func TestOwnOrder(t *testing.T) {
	s := newSim()
	for i := range 10_000 {
		slot := s.takeFree()
		if slot == none {
			slot = s.victim()
		}
		s.resize(slot, pagesOf(BlockSize))
		s.add(slot, benchKey(i), BlockSize, uint32(1+i%3), false)
		for _, o := range s.owners[1:] {
			if len(o.order) > 4*o.count+128 {
				t.Fatalf("owner %d: %d places for %d blocks", o.number, len(o.order), o.count)
			}
		}
	}
}
