package fuse

import (
	"context"

	"github.com/holdfast-csi/holdfast/storage"
)

// along is a store of chunks that reads ahead, and so wants to know what comes
// before and after a chunk in its file. The layout is not its own: it must not
// change it, nor look at it afterwards.
type along interface {
	ReadAlong(ctx context.Context, layout []storage.Extent, i int, b []byte, off int64) error
}

// readExtent fills b with what the chunk of extent i has from byte off of it on.
func (fs *FS) readExtent(ctx context.Context, layout []storage.Extent, i int, b []byte, off int64) error {
	if a, ok := fs.vol.Chunks.(along); ok {
		return a.ReadAlong(ctx, layout, i, b, off)
	}
	return fs.vol.Chunks.Read(ctx, layout[i].Chunk, b, off)
}
