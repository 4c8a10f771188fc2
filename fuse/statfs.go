package fuse

import (
	"context"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
)

const (
	// spaceTimeout bounds a measurement: df must not hang on a slow cluster.
	spaceTimeout = 10 * time.Second
	// manyInodes is what is shown as free inodes: the store knows no limit.
	manyInodes = 1 << 40
)

// StatFs implements gofuse.RawFileSystem. A measurement that fails is an error,
// never a zero.
func (fs *FS) StatFs(cancel <-chan struct{}, in *gofuse.InHeader, out *gofuse.StatfsOut) gofuse.Status {
	ctx, done := fs.reading(in.Unique, cancel)
	defer done()
	u, err := fs.usage(ctx)
	if err != nil {
		return fs.status("statfs", fs.table.get(in.NodeId), err)
	}
	free := max(u.Capacity-u.Used, 0)
	*out = gofuse.StatfsOut{
		Bsize: blockSize, Frsize: blockSize, NameLen: storage.MaxName,
		Blocks: uint64(u.Capacity / blockSize), Bfree: uint64(free / blockSize), Bavail: uint64(free / blockSize),
		Files: manyInodes, Ffree: manyInodes,
	}
	return gofuse.OK
}

// usage is what the writers of this mount are held to.
func (fs *FS) usage(ctx context.Context) (storage.Usage, error) {
	ctx, cancel := context.WithTimeout(ctx, spaceTimeout)
	defer cancel()
	if err := fs.measured(ctx); err != nil {
		return storage.Usage{}, err
	}
	if _, _, at := fs.room.usage(); time.Since(at) >= sizeTTL {
		if err := fs.readSize(ctx); err != nil {
			return storage.Usage{}, err
		}
	}
	u, _, _ := fs.room.usage()
	return u, nil
}
