package fuse

import (
	"context"
	"crypto/md5"
	"fmt"
	"slices"

	"github.com/holdfast-csi/holdfast/storage"
)

// What a file shows lies in three layers: what is written and stands on this
// node, what of that was uploaded already and is in no entry yet, and what the
// store has committed.

// readBelow fills b, at off, from the second layer and the third. laid are the
// chunks of the second, base is how much of the committed content is seen.
func (fs *FS) readBelow(ctx context.Context, n *node, e storage.Entry, laid []storage.Chunk, base int64, b []byte, off int64) error {
	end := off + int64(len(b))
	at := off
	for _, x := range storage.Layout(ordered(laid, 1)) {
		from, to := max(x.Offset, at), min(x.End(), end)
		if from >= to {
			continue
		}
		if err := fs.readStored(ctx, n, e, base, b[at-off:from-off], at); err != nil {
			return err
		}
		if err := fs.vol.Chunks.Read(ctx, x.Chunk, b[from-off:to-off], x.At+from-x.Offset); err != nil {
			return fmt.Errorf("read what waits for its commit: %w", err)
		}
		at = to
	}
	return fs.readStored(ctx, n, e, base, b[at-off:], at)
}

// ordered gives chunks an order: each is seen over those before it.
func ordered(chunks []storage.Chunk, first int64) []storage.Chunk {
	out := slices.Clone(chunks)
	for i := range out {
		out[i].Modified = first + int64(i)
	}
	return out
}

// contentOf names a content, so that two can be compared: the ids of its chunks,
// or a sum of what the entry itself holds.
func contentOf(e storage.Entry) []storage.ChunkID {
	all := ids(e.Chunks)
	if len(e.Inline) > 0 {
		all = append(all, storage.ChunkID(fmt.Sprintf("inline %x", md5.Sum(e.Inline))))
	}
	slices.Sort(all)
	return all
}

func ids(chunks []storage.Chunk) []storage.ChunkID {
	out := make([]storage.ChunkID, 0, len(chunks))
	for _, c := range chunks {
		out = append(out, c.ID)
	}
	return out
}
