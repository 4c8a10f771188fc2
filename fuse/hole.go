package fuse

import (
	"context"
	"slices"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// Holes: what of a file holds bytes, and how a part of it is made a hole.
//
// A small hole is zeros that are written, as pwrite(2) would: acknowledged from
// the stage, and not worth a chunk less. A large one is punched in the store, since
// there it frees what it held: what waits is committed first, and the call returns
// when the hole is in the store. A hole that is staged like a write lost: it would
// need a third kind of span beside what is written and what is cut, in the stage,
// in the journal and in each of their readers, and nobody punches holes so often.
//
// Doing it twice does no harm, so a successor that is asked again does. One that
// dies between an upload and the update leaves a chunk behind that nobody names.

// smallHole and less is written as zeros.
const smallHole = 64 << 10

// filled returns the ranges of n that hold bytes, staged ones among them, by
// offset and not touching, and the size of the file.
func (n *node) filled() (spans []span, size int64) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.filledLocked()
}

func (n *node) filledLocked() (spans []span, size int64) {
	e, base := n.mu.entry, n.mu.entry.Size
	size = n.sizeLocked()
	var staged []span
	if s := n.mu.stage; s != nil {
		base, staged = s.base, s.written()
	}
	add := func(d span) {
		switch last := len(spans) - 1; {
		case d.from >= d.to:
		case last >= 0 && spans[last].to >= d.from:
			spans[last].to = max(spans[last].to, d.to)
		default:
			spans = append(spans, d)
		}
	}
	at := 0
	before := func(off int64) { // what is staged before off
		for ; at < len(staged) && staged[at].from <= off; at++ {
			add(staged[at])
		}
	}
	if len(e.Inline) > 0 {
		before(0)
		add(span{0, min(int64(len(e.Inline)), base)})
	} else {
		for _, x := range n.layout(e) {
			if x.Offset >= base {
				break
			}
			before(x.Offset)
			add(span{x.Offset, min(x.End(), base)})
		}
	}
	before(size)
	return spans, size
}

// punch makes a hole of the bytes from from to to, as far as there are any. The
// caller holds the turn.
func (fs *FS) punch(ctx context.Context, n *node, from, to int64) error {
	spans, size := n.filled()
	to = min(to, size)
	if len(clip(spans, span{from, to})) == 0 {
		return nil
	}
	// A file that lives in its entry may have grown since, without end.
	if to-from <= smallHole || len(n.stored().Inline) > 0 && to-from <= storage.ChunkSize {
		return fs.writeZeros(n, from, to)
	}
	if orphan, _ := fs.table.state(n); orphan {
		return storage.Errorf(storage.Unsupported, "a large hole in a file without a name")
	}
	if err := fs.commitInTurn(ctx, n); err != nil {
		return err
	}
	for range maxRetries {
		e := n.stored()
		if len(e.Inline) > 0 {
			return fs.writeZeros(n, from, to)
		}
		next := e.Clone()
		fs.dress(&next)
		kept, again := storage.Punch(e.Chunks, from, to)
		made, err := fs.writeAgain(ctx, n, e, again, storage.NextModified(e.Chunks))
		sent := false
		if err == nil {
			now := time.Now()
			next.Chunks, next.MD5 = storage.Visible(append(kept, made...)), nil
			next.Mtime, next.Ctime = now, now
			err, sent = fs.put(ctx, n, next), true
		}
		if err == nil {
			return nil
		}
		changed := storage.Is(err, storage.Changed)
		if changed {
			// It may be another who has changed it since: with what was made here, when
			// only the answer was lost.
			if err := fs.reread(ctx, n); err != nil {
				return err
			}
			now := n.stored()
			made = slices.DeleteFunc(made, func(c storage.Chunk) bool { return hasChunk(now, c.ID) })
		}
		if changed || !sent { // else it may yet be carried out
			if freeErr := fs.vol.Chunks.Delete(context.WithoutCancel(ctx), ids(made)); freeErr != nil {
				fs.log.Warn("unused chunks stay", "op", "fallocate", "node", n.id, "err", freeErr)
			}
		}
		if !sent && storage.Is(err, storage.NotFound) {
			err = fs.reread(ctx, n)
		}
		if err != nil && !changed {
			return err
		}
	}
	return storage.Errorf(storage.Busy, "hole in node %d: others changed it %d times meanwhile", n.id, maxRetries)
}

// writeZeros makes the hole of bytes that are written, where there are any: it takes
// nothing more of the volume.
func (fs *FS) writeZeros(n *node, from, to int64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	spans, _ := n.filledLocked()
	s, err := fs.stageLocked(n)
	if err != nil {
		return err
	}
	defer n.recountLocked()
	defer n.settleLocked()
	for _, d := range clip(spans, span{from, to}) {
		if err := s.write(fs, n.id, 0, make([]byte, d.to-d.from), d.from); err != nil {
			return err
		}
		n.wroteLocked(d)
		n.touchLocked()
	}
	return nil
}

// writeAgain makes chunks of their own of what a hole cuts off from theirs.
func (fs *FS) writeAgain(ctx context.Context, n *node, e storage.Entry, again []storage.Extent, modified int64) ([]storage.Chunk, error) {
	if len(again) == 0 {
		return nil, nil
	}
	near, err := fs.table.path(n)
	if err != nil {
		return nil, err
	}
	made := make([]storage.Chunk, 0, len(again))
	for _, x := range again {
		for at := x.Offset; at < x.End(); at += storage.ChunkSize {
			data := make([]byte, min(storage.ChunkSize, x.End()-at))
			if err := fs.readStored(ctx, n, e, x.End(), data, at); err != nil {
				return made, err
			}
			c, err := fs.vol.Chunks.Write(ctx, near, data)
			if err != nil {
				return made, err
			}
			c.Offset, c.Modified = at, modified
			made = append(made, c)
		}
	}
	return made, nil
}
