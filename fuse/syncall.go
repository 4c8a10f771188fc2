package fuse

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/fuse/syncvolume"
	"github.com/holdfast-csi/holdfast/storage"
)

// syncRound is when the caller of a sync is told to ask again: well before the
// deadline of a call.
const syncRound = 20 * time.Second

// Ioctl implements gofuse.RawFileSystem: fuse/syncvolume.
func (fs *FS) Ioctl(cancel <-chan struct{}, in *gofuse.IoctlIn, _ []byte, _ *gofuse.IoctlOut, _ []byte) gofuse.Status {
	if in.Cmd != syncvolume.Command {
		return gofuse.ENOSYS // which the kernel turns into ENOTTY
	}
	n, err := fs.node(in.NodeId)
	if err != nil {
		return fs.status("sync", nil, err)
	}
	call, done := fs.reading(in.Unique, cancel)
	defer done()
	ctx, stop := context.WithTimeout(call, min(syncRound, fs.opts.Deadline/2))
	defer stop()
	err = fs.syncAll(ctx)
	if ctx.Err() != nil && call.Err() == nil {
		return gofuse.EAGAIN
	}
	return fs.status("sync", n, err)
}

// syncAll returns when all that was written before is in the store.
func (fs *FS) syncAll(ctx context.Context) error {
	if err := fs.settled(ctx); err != nil {
		return err
	}
	var mu sync.Mutex
	var failed []error
	fs.commitAll(ctx, func(n *node, err error) {
		mu.Lock()
		defer mu.Unlock()
		failed = append(failed, fmt.Errorf("%q: %w", fs.table.lastPath(n), err))
	})
	if ctx.Err() != nil {
		return storage.Errorf(storage.Unavailable, "not all is in the cluster yet: %w", ctx.Err())
	}
	if len(failed) > 0 || fs.follower == nil {
		return errors.Join(failed...)
	}
	return fs.flushJournal() // no power cut brings older content over it
}
