package fuse

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file is what a mount does that has lost its volume to another node: it
// answers ESTALE, and keeps on this node what was written and not committed.
// Nothing of it is brought to the bucket, neither now nor by a later mount.

// keepLease renews the lease until ctx ends. When it is lost, the kernel is told
// to forget all that it has, and what waits for a commit is kept aside.
func (fs *FS) keepLease(ctx context.Context) {
	err := fs.opts.Fence.keep(ctx)
	if fs.opts.Fence.Lost() == nil {
		return // the end of the mount
	}
	fs.log.Warn("this node has lost the volume: reads and writes of the mount fail, and the bucket is left alone; unmount it", "op", "lease", "epoch", fs.opts.Fence.o.Epoch, "err", err)
	fs.doubtAll()
	notify := *fs.notifier.Load()
	for _, n := range fs.table.all() {
		_ = notify.InvalInode(n.id, 0, -1)
	}
	for {
		failed := fs.abandon(ctx, err)
		if failed == nil || ctx.Err() != nil {
			return
		}
		fs.log.Warn("what cannot be committed waits to be kept aside", "op", "lease", "err", failed)
		select {
		case <-ctx.Done():
			return
		case <-time.After(houseEvery):
		}
	}
}

// ask returns why the volume is lost, after it has asked the record if something
// waits for a commit.
func (fs *FS) ask(ctx context.Context) error {
	if fs.opts.Fence == nil {
		return nil
	}
	if fs.redos.waiting.Load() > 0 || slices.ContainsFunc(fs.table.all(), (*node).dirty) {
		_, _ = fs.opts.Fence.Allow(ctx) // whatever else is wrong, the commit says
	}
	return fs.opts.Fence.Lost()
}

// abandon keeps aside what waits for a commit, and gives up the changes of names
// that were cut short.
func (fs *FS) abandon(ctx context.Context, reason error) error {
	fs.redos.mu.Lock()
	left := slices.Collect(maps.Values(fs.redos.left))
	fs.redos.mu.Unlock()
	for _, r := range left {
		fs.log.Warn("a change of names that was cut short stays as it is", "op", r.Op, "path", r.From, "err", reason)
		fs.conclude(r, undone)
	}
	var failed error
	for _, n := range fs.table.all() {
		switch orphan, _ := fs.table.state(n); {
		case !n.dirty():
		case orphan && n.isKept(): // unlinked while open: nobody else would ever read it
			n.discard(ctx, fs)
		default:
			failed = errors.Join(failed, fs.aside(ctx, n, reason))
		}
	}
	return failed
}

// foreign keeps aside what the journal holds when it is of an epoch before: another
// node has had the volume since. It may have to read chunks from the store, and the
// mount waits for that.
func (fs *FS) foreign(epoch uint64) error {
	now := fs.opts.Fence.epoch()
	if epoch == 0 || epoch == now {
		return nil
	}
	ctx, done := fs.changing()
	defer done()
	return fs.abandon(ctx, storage.Errorf(storage.Stale, "it was written in epoch %d of the volume, and other nodes have had it since (it is at epoch %d now)", epoch, now))
}
