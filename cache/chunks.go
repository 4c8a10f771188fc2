package cache

import (
	"context"

	"github.com/holdfast-csi/holdfast/storage"
)

// chunks is one volume's view of the cache. Whoever knows which chunk comes next
// in a file may ask for it by Prefetch.
type chunks struct {
	c     *Cache
	store storage.Chunks
}

var (
	_ storage.Chunks = (*chunks)(nil)
	_ interface {
		Prefetch(ctx context.Context, ch storage.Chunk, off, n int64) int64
	} = (*chunks)(nil)
)

// Chunks puts the cache in front of one volume's store. Volumes share blocks: a
// chunk id is given out once per cluster (SeaweedFS: the number of a volume,
// which the master never gives twice, a needle's number, which its sequencer
// never gives twice, and a random cookie), and what stands under it never changes.
func (c *Cache) Chunks(store storage.Chunks) storage.Chunks { return &chunks{c, store} }

// Read implements storage.Chunks. The store's errors pass, the disk's do not.
func (v *chunks) Read(ctx context.Context, ch storage.Chunk, b []byte, off int64) error {
	if off < 0 || off+int64(len(b)) > ch.Size {
		return storage.Errorf(storage.Corrupt, "read chunk %s: %d bytes at %d of %d", ch.ID, len(b), off, ch.Size)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s := v.c.streams.observe(v, ch, off, len(b))
	// What is ahead is asked for behind what is needed now, and before the wait
	// for that.
	ahead := func() {
		if s.from < s.to {
			v.c.streams.asked(s, v.Prefetch(s.ctx, ch, s.from, s.to-s.from))
			s.to = s.from
		}
	}
	waited := false
	for len(b) > 0 {
		n, w, err := v.some(ctx, ch, b, off, s.whole, ahead)
		if err != nil {
			return err
		}
		waited = waited || w
		b, off = b[n:], off+int64(n)
	}
	ahead()
	if waited {
		v.c.streams.waited(s)
	}
	return nil
}

// some fills the beginning of b, and says how much, and whether it took a fetch.
func (v *chunks) some(ctx context.Context, ch storage.Chunk, b []byte, off int64, whole bool, ahead func()) (n int, waited bool, err error) {
	c := v.c
	block := c.want(ch, blockAt(off))
	toBlock, inBlock := clip(b, block, off)
	piece, toPiece, inPiece := block, toBlock, inBlock
	if block.size > 2*pieceSize {
		piece = c.want(ch, pieceAt(off))
		toPiece, inPiece = clip(b, piece, off)
	}
	for try := 0; ; try++ {
		if s := c.slab.Load(); s != nil {
			if s.read(block.key, toBlock, inBlock) {
				c.hits.Add(1)
				return len(toBlock), false, nil
			}
			if piece != block && s.read(piece.key, toPiece, inPiece) {
				c.hits.Add(1)
				return len(toPiece), false, nil
			}
		}
		w := piece
		if whole {
			w = block
		}
		f, found := c.join(ctx, v.store, ch, w, block.key, inBlock+len(toBlock), try == 0)
		switch {
		case f == nil && found: // it has just come to the disk
			continue
		case f == nil:
			c.misses.Add(1)
			return len(toBlock), true, v.store.Read(ctx, ch, toBlock, off)
		case found:
			c.hits.Add(1)
		default:
			c.misses.Add(1)
		}
		ahead()
		waited, err := c.wait(ctx, f)
		if storage.IsContext(err) && c.life.Err() != nil && ctx.Err() == nil { // given up by Close
			continue
		}
		if err != nil {
			return 0, true, err
		}
		n := copy(b, f.data[off-f.off:])
		c.leave(f)
		return n, waited, nil
	}
}

// want is a block or piece as far as a chunk has it. Size may have been cut by a
// truncation: then it is what the file can still see, and another cut of the same
// chunk may want more.
type want struct {
	key  key
	off  int64
	size int
}

func (c *Cache) want(ch storage.Chunk, sp span) want {
	return want{c.scope.key(ch.ID, sp), sp.off, int(min(sp.size, ch.Size-sp.off))}
}

// clip returns the part of b, which begins at off, that w holds, and where it
// begins there.
func clip(b []byte, w want, off int64) (part []byte, in int) {
	in = int(off - w.off)
	return b[:min(len(b), w.size-in)], in
}

// Prefetch begins to fetch the blocks that hold n bytes of ch from off, as far as
// there is room that nobody waits for, and returns where it stopped. What nobody
// has asked for when ctx ends is given up.
func (v *chunks) Prefetch(ctx context.Context, ch storage.Chunk, off, n int64) int64 {
	end := min(off+n, ch.Size)
	for at := off / BlockSize * BlockSize; at < end; at += BlockSize {
		if !v.c.fetchAhead(ctx, v.store, ch, v.c.want(ch, blockAt(at))) {
			return at
		}
	}
	return end
}

// Write implements storage.Chunks. What was written is likely read soon, by the
// one who wrote it or by another node; it costs one copy here.
func (v *chunks) Write(ctx context.Context, near storage.Path, data []byte) (storage.Chunk, error) {
	ch, err := v.store.Write(ctx, near, data)
	if err != nil || v.c.skipWrites {
		return ch, err
	}
	for at := int64(0); at < int64(len(data)); at += BlockSize {
		w := v.c.want(storage.Chunk{ID: ch.ID, Size: int64(len(data))}, blockAt(at))
		v.c.admit(w, data[at:at+int64(w.size)])
	}
	return ch, nil
}

// Delete implements storage.Chunks. The blocks stay: nobody will ask for them,
// except who has the file still open, and so they are the next ones to go.
func (v *chunks) Delete(ctx context.Context, ids []storage.ChunkID) error {
	return v.store.Delete(ctx, ids)
}
