package fuse

import (
	"context"

	"github.com/holdfast-csi/holdfast/storage"
)

// A view is the committed content of a file, resolved into what is seen of its
// chunks. It is made by the first read of a content and stays with the node until
// there is another one: reading on in a file of 100,000 chunks finds its place by
// halving. Chunks never change, so a reader may go on with a view that is no
// longer the node's; only when a chunk of it has been freed it looks again.

// fewChunks are resolved each time: nothing is gained by keeping the result.
const fewChunks = 4

type view struct {
	// of are the chunks that this is the layout of: the very slice, which nobody
	// changes once the node has learnt it.
	of      []storage.Chunk
	extents []storage.Extent
}

// layout returns what is seen of the content of e, which n has or had.
func (n *node) layout(e storage.Entry) []storage.Extent {
	if len(e.Chunks) <= fewChunks {
		return storage.Layout(e.Chunks)
	}
	if v := n.view.Load(); v != nil && len(v.of) == len(e.Chunks) && &v.of[0] == &e.Chunks[0] {
		return v.extents
	}
	v := &view{e.Chunks, storage.Layout(e.Chunks)}
	n.view.Store(v)
	return v.extents
}

// renewed is asked by a read of e that found a chunk gone. It returns nil when
// the file has another content by now, so that reading again is worth it: one
// that was committed or merged here meanwhile, or else one that the store knows
// of. Otherwise the content was removed or replaced, and cleaned up: Stale.
func (fs *FS) renewed(ctx context.Context, n *node, e storage.Entry, gone error) error {
	if !equalContent(n.stored(), e) {
		return nil
	}
	stale := storage.Errorf(storage.Stale, "%w", gone)
	a := fs.table.ask()
	defer fs.table.answered(a)
	var now storage.Entry
	err := fs.byName(ctx, n, func(p storage.Path) (missing bool, err error) {
		now, missing, err = fs.entryAt(ctx, n, p)
		return missing, err
	})
	switch {
	case storage.Is(err, storage.Stale):
		return stale
	case err != nil:
		return err
	case equalContent(now, e):
		return stale
	case !now.Native && n.dirty(): // S3 put another object in its place: the commit has to see that
		return stale
	}
	fs.table.retake(a, n, now)
	return nil
}
