package fuse

import (
	"context"
	"fmt"
	"slices"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
)

// Read implements gofuse.RawFileSystem.
func (fs *FS) Read(cancel <-chan struct{}, in *gofuse.ReadIn, buf []byte) (gofuse.ReadResult, gofuse.Status) {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return nil, fs.status("read", nil, err)
	}
	ctx, done := fs.reading(in.Unique, cancel)
	defer done()
	got, err := fs.readAt(ctx, n, buf[:min(len(buf), int(in.Size))], int64(in.Offset))
	if err != nil {
		return nil, fs.status("read", n, err)
	}
	return gofuse.ReadResultData(buf[:got]), gofuse.OK
}

// readAt fills b from off and returns how much of it lies before the end.
//
// A chunk can be gone by the time it is read: merged with others, here or by
// another mount, or replaced. Then the file is looked at again. A server that is
// away is another matter: its chunks are there.
func (fs *FS) readAt(ctx context.Context, n *node, b []byte, off int64) (int, error) {
	for try := 0; ; try++ {
		got, e, err := fs.readOnce(ctx, n, b, off)
		if !storage.Is(err, storage.NotFound) {
			return got, err
		}
		if try == maxRetries {
			return 0, storage.Errorf(storage.Busy, "read of node %d: its content was replaced %d times meanwhile: %w", n.id, try, err)
		}
		if err := fs.renewed(ctx, n, e, err); err != nil {
			return 0, err
		}
	}
}

// readOnce is readAt over the content e that the node has now. Uncommitted bytes
// come from the stage, the rest from the chunks, holes are zeros. The bytes of the
// stage are copied first, under the lock; what a commit does meanwhile does not
// matter to the chunks that were seen.
func (fs *FS) readOnce(ctx context.Context, n *node, b []byte, off int64) (int, storage.Entry, error) {
	n.mu.RLock()
	e, size, base := n.mu.entry, n.sizeLocked(), n.mu.entry.Size
	var staged []span
	var laid []storage.Chunk
	if s := n.mu.stage; s != nil {
		base, laid = s.base, slices.Clone(s.laid)
		for _, d := range s.dirty {
			d.from, d.to = max(d.from, off), min(d.to, off+int64(len(b)))
			if d.from >= d.to {
				continue
			}
			if err := s.read(b[d.from-off:d.to-off], d.from); err != nil {
				n.mu.RUnlock()
				return 0, e, fmt.Errorf("read the stage: %w", err)
			}
			staged = append(staged, d)
		}
	}
	n.mu.RUnlock()
	if off >= size {
		return 0, e, nil
	}
	b = b[:min(int64(len(b)), size-off)]
	at := off
	for _, d := range append(staged, span{off + int64(len(b)), off + int64(len(b))}) {
		if at < d.from {
			if err := fs.readBelow(ctx, n, e, laid, base, b[at-off:d.from-off], at); err != nil {
				return 0, e, err
			}
		}
		at = max(at, d.to)
	}
	return len(b), e, nil
}

// readStored fills b with the committed content e of n, of which the first base
// bytes count; behind them are zeros. NotFound when a chunk is gone.
func (fs *FS) readStored(ctx context.Context, n *node, e storage.Entry, base int64, b []byte, off int64) error {
	if len(e.Inline) > 0 {
		clear(b)
		if off < base {
			copy(b[:min(int64(len(b)), base-off)], e.Inline[min(off, int64(len(e.Inline))):])
		}
		return nil
	}
	at, end := off, min(off+int64(len(b)), base)
	layout := n.layout(e)
	for i := storage.Find(layout, off); i < len(layout); i++ {
		x := layout[i]
		from, to := max(x.Offset, off), min(x.End(), end)
		if from >= to {
			break
		}
		clear(b[at-off : from-off])
		if err := fs.readExtent(ctx, layout, i, b[from-off:to-off], x.At+from-x.Offset); err != nil {
			return err
		}
		at = to
	}
	clear(b[at-off:])
	return nil
}
