package cache

import (
	"context"

	"github.com/holdfast-csi/holdfast/storage"
)

// chunks is one volume's view of the cache.
type chunks struct {
	c     *Cache
	store storage.Chunks
	quota *quota
}

var (
	_ storage.Chunks = (*chunks)(nil)
	_ interface {
		ReadAlong(ctx context.Context, layout []storage.Extent, i int, b []byte, off int64) error
	} = (*chunks)(nil)
)

// Chunks puts the cache in front of one volume's store. Volumes share blocks: a
// chunk id is given out once per cluster (SeaweedFS: the number of a volume,
// which the master never gives twice, a needle's number, which its sequencer
// never gives twice, and a random cookie), and what stands under it never changes.
func (c *Cache) Chunks(store storage.Chunks) storage.Chunks { return &chunks{c, store, nil} }

// Read implements storage.Chunks. The store's errors pass, the disk's do not.
func (v *chunks) Read(ctx context.Context, ch storage.Chunk, b []byte, off int64) error {
	return v.ReadAlong(ctx, []storage.Extent{{Offset: ch.Offset, Size: ch.Size, Chunk: ch}}, 0, b, off)
}

// ReadAlong is Read of the chunk of extent i, for one who knows what comes before
// and after it in the file: a reader's window goes over the ends of chunks then.
func (v *chunks) ReadAlong(ctx context.Context, layout []storage.Extent, i int, b []byte, off int64) error {
	ch := layout[i].Chunk
	if off < 0 || off+int64(len(b)) > ch.Size {
		return storage.Errorf(storage.Corrupt, "read chunk %s: %d bytes at %d of %d", ch.ID, len(b), off, ch.Size)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s := v.c.streams.observe(v, layout, i, off, len(b))
	// What is ahead is asked for behind what is needed now, and before the wait
	// for that.
	ahead := func() {
		if s.from < s.to {
			v.c.streams.asked(s, v.prefetch(s.ctx, layout[i:], s.from, s.to))
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
	block := v.want(ch, blockAt(off))
	toBlock, inBlock := clip(b, block, off)
	piece, toPiece, inPiece := block, toBlock, inBlock
	if block.size > 2*pieceSize {
		piece = v.want(ch, pieceAt(off))
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
		f, found := c.join(w, block.key, inBlock+len(toBlock), try == 0)
		switch {
		case f == nil && found: // it has just come to the disk
			continue
		case f == nil:
			c.misses.Add(1)
			return len(toBlock), true, v.store.Read(ctx, ch, toBlock, off)
		case found:
			c.hits.Add(1)
			ahead()
		default:
			c.misses.Add(1)
			if w.key != block.key {
				v.pieces(ctx, ch, off+int64(len(toPiece)), off+int64(len(toBlock)))
			}
			ahead()
			c.fetch(ctx, f, v.store, ch)
		}
		waited, err := c.wait(ctx, f)
		if storage.IsContext(err) && c.life.Err() != nil && ctx.Err() == nil { // given up by Close
			continue
		}
		if err != nil {
			return 0, true, err
		}
		n := copy(b, f.data[off-f.off:])
		c.leave(f)
		return n, waited || !found, nil
	}
}

// pieces has what else a random read wants of a block fetched beside its first
// piece.
func (v *chunks) pieces(ctx context.Context, ch storage.Chunk, from, to int64) {
	for ; from < to; from += pieceSize {
		if _, ok := v.c.fetchAhead(ctx, v.store, ch, v.want(ch, pieceAt(from))); !ok {
			return
		}
	}
}

// want is a block or piece as far as a chunk has it. Size may have been cut by a
// truncation: then it is what the file can still see, and another cut of the same
// chunk may want more.
type want struct {
	key   key
	off   int64
	size  int
	quota *quota // of whom it will be
}

func (v *chunks) want(ch storage.Chunk, sp span) want {
	return want{v.c.scope.key(ch.ID, sp), sp.off, int(min(sp.size, ch.Size-sp.off)), v.quota}
}

// clip returns the part of b, which begins at off, that w holds, and where it
// begins there.
func clip(b []byte, w want, off int64) (part []byte, in int) {
	in = int(off - w.off)
	return b[:min(len(b), w.size-in)], in
}

// prefetch begins to fetch the blocks that hold the bytes of the file from from
// to to, as far as there is room that nobody waits for, and returns where it
// stopped. The block that from lies in is somebody's already. What nobody has
// asked for when ctx ends is given up.
func (v *chunks) prefetch(ctx context.Context, layout []storage.Extent, from, to int64) int64 {
	for _, x := range layout {
		if x.End() <= from {
			continue
		}
		if x.Offset >= to {
			break
		}
		at := x.At / BlockSize * BlockSize
		if from > x.Offset {
			at = (x.At + from - x.Offset + BlockSize - 1) / BlockSize * BlockSize
		}
		for ; at < x.At+min(x.Size, to-x.Offset); at += BlockSize {
			started, ok := v.c.fetchAhead(ctx, v.store, x.Chunk, v.want(x.Chunk, blockAt(at)))
			if !ok {
				return max(from, x.Offset+at-x.At)
			}
			if started {
				v.c.readAhead.Add(1)
			}
		}
		from = max(from, min(x.Offset+at-x.At, x.End()))
	}
	return max(from, to)
}

// Write implements storage.Chunks. A small file that was written is likely read
// soon, by the one who wrote it; it costs one copy here. What is larger than a
// block is not kept: a file that is written on and on would push out what is read,
// and take the disk's time from the stage that it comes from.
func (v *chunks) Write(ctx context.Context, near storage.Path, data []byte) (storage.Chunk, error) {
	ch, err := v.store.Write(ctx, near, data)
	if err != nil || v.c.skipWrites || len(data) == 0 || len(data) > BlockSize {
		return ch, err
	}
	v.c.admit(v.want(storage.Chunk{ID: ch.ID, Size: int64(len(data))}, blockAt(0)), data)
	return ch, nil
}

// Delete implements storage.Chunks. The blocks stay: nobody will ask for them,
// except who has the file still open, and so they are the next ones to go.
func (v *chunks) Delete(ctx context.Context, ids []storage.ChunkID) error {
	return v.store.Delete(ctx, ids)
}
