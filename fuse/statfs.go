package fuse

import (
	"context"
	"sync"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
)

const (
	// spaceTTL is how long a measurement is shown again.
	spaceTTL = 2 * time.Second
	// spaceTimeout bounds one: df must not hang on a slow cluster.
	spaceTimeout = 10 * time.Second
	// manyInodes is what is shown as free inodes: the store knows no limit.
	manyInodes = 1 << 40
)

// spaceCache keeps the last measurement.
type spaceCache struct {
	mu    sync.Mutex
	usage storage.Usage
	at    time.Time
}

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

func (fs *FS) usage(ctx context.Context) (storage.Usage, error) {
	fs.space.mu.Lock()
	u, at := fs.space.usage, fs.space.at
	fs.space.mu.Unlock()
	if time.Since(at) < spaceTTL {
		return u, nil
	}
	ctx, cancel := context.WithTimeout(ctx, spaceTimeout)
	defer cancel()
	u, err := fs.vol.Meter.Usage(ctx)
	if err != nil {
		return u, err
	}
	fs.space.mu.Lock()
	defer fs.space.mu.Unlock()
	fs.space.usage, fs.space.at = u, time.Now()
	return u, nil
}
