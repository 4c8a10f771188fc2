package fuse

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file hands a file system over to another process while the kernel session
// lives on. Close is for its end.

// parallelCommits of commitAll.
const parallelCommits = 4

// Sync commits what waits for it, while requests are served on, until ctx ends. It
// returns how many files still have something: that stays in the journal, for the
// next mounter.
func (fs *FS) Sync(ctx context.Context) (left int) {
	for _, n := range fs.commitAll(ctx, func(n *node, err error) {
		if !storage.IsContext(err) {
			fs.log.Warn("content waits for the next mounter", "op", "sync", "node", n.id, "err", err)
		}
	}) {
		if n.dirty() {
			left++
		}
	}
	return left
}

// commitAll commits what waits for it, some at a time, until ctx ends, and tells of
// each that failed; failed may be called from several goroutines. It returns all nodes
// that there were.
func (fs *FS) commitAll(ctx context.Context, failed func(n *node, err error)) []*node {
	var group errgroup.Group
	group.SetLimit(parallelCommits)
	all := fs.table.all()
	for _, n := range all {
		if ctx.Err() != nil {
			break
		}
		if !n.dirty() {
			continue
		}
		group.Go(func() error {
			if err := fs.commit(ctx, n); err != nil {
				failed(n, err)
			}
			return nil
		})
	}
	_ = group.Wait() // none fails
	return all
}

// Abandon gives up what Recover has opened, when the session cannot be served after
// all: everything stays in the journal, for whoever tries again. Not after Start.
func (fs *FS) Abandon() error {
	fs.room.close()
	err := fs.closeStages()
	if fs.memo.journal != nil {
		err = errors.Join(err, fs.memo.journal.Close())
		fs.memo.journal = nil
	}
	return err
}

// closeStages gives the descriptors of all stages back, and leaves their files.
func (fs *FS) closeStages() (err error) {
	for _, n := range fs.table.all() {
		n.mu.Lock()
		if s := n.mu.stage; s != nil && s.file != nil {
			err = errors.Join(err, s.file.Close())
			s.file = nil
		}
		n.mu.Unlock()
	}
	return err
}

// Leave ends what works in the background. Everything that the next mounter needs
// stands in the journal already, as it does when this one is killed: nothing is
// waited for. The process is to end.
func (fs *FS) Leave() {
	if fs.stop != nil {
		fs.stop()
	}
}
