package fuse

import (
	"context"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
)

// Write implements gofuse.RawFileSystem. The bytes are acknowledged from the
// stage; fsync and close commit them.
func (fs *FS) Write(_ <-chan struct{}, in *gofuse.WriteIn, data []byte) (uint32, gofuse.Status) {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return 0, fs.status("write", nil, err)
	}
	if err := fs.writable(); err != nil {
		return 0, fs.status("write", n, err)
	}
	ctx, done := fs.changing()
	defer done()
	end, err := n.begin(ctx)
	if err != nil {
		return 0, fs.status("write", n, err)
	}
	defer end()
	near, err := fs.table.path(n)
	if err != nil {
		near = "" // without a name, by now: nothing is uploaded before it must
	}
	var put int
	var wait <-chan struct{}
	err = fs.fitting(ctx, func(some bool) (err error) {
		put, wait, err = fs.write(n, near, in, data, some)
		return err
	})
	if err != nil {
		return 0, fs.status("write", n, err)
	}
	hold(ctx, wait)
	return uint32(put), gofuse.OK
}

// write puts data into the stage. It returns how much, and what the writer should
// wait for before it goes on, if anything. some: when there is no room for all, what
// fits is enough. The caller holds the turn.
func (fs *FS) write(n *node, near storage.Path, in *gofuse.WriteIn, data []byte, some bool) (int, <-chan struct{}, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	unique, off := uint64(0), int64(in.Offset)
	if in.Flags&syscall.O_APPEND != 0 {
		if _, done := fs.memo.before(in.Unique); done { // by the mounter before
			return len(data), nil, nil
		}
		unique, off = in.Unique&^replayBit, n.sizeLocked()
	}
	// A page of a mapping is written whole or not: nobody would write the rest. Nor
	// does a successor know how much of an append was taken.
	some = some && in.Flags&syscall.O_APPEND == 0 && in.WriteFlags&gofuse.WRITE_CACHE == 0
	d, err := n.takeLocked(span{off, off + int64(len(data))}, some)
	if err != nil {
		return 0, nil, err
	}
	data = data[:d.to-d.from]
	s, err := fs.stageLocked(n)
	if err == nil {
		err = s.write(fs, n.id, unique, data, off)
	}
	if err != nil {
		n.settleLocked()
		n.recountLocked()
		return 0, nil, err
	}
	if unique != 0 { // a compaction before the answer has to tell of it
		fs.memo.remember(unique, intent{inode: n.id, brief: true})
	}
	n.touchLocked()
	n.wroteLocked(d)
	if near == "" {
		return len(data), nil, nil
	}
	return len(data), fs.aheadLocked(n, s, near, d), nil
}

// touchLocked sets the times of a file that was written.
func (n *node) touchLocked() {
	now := time.Now()
	touched := patch{Mtime: &now, Ctime: &now}
	n.mu.pending.add(touched)
	n.changedLocked(touched)
}

// stageLocked returns the stage of a node, begun if need be.
func (fs *FS) stageLocked(n *node) (*stage, error) {
	fs.follower.add(n)
	if n.mu.stage == nil {
		s := &stage{base: uncut}
		if err := fs.memo.write(record{kind: recStage, id: n.id, a: uint64(s.base)}); err != nil {
			return nil, err
		}
		n.mu.stage = s
	}
	return n.mu.stage, n.mu.stage.lost
}

// settleLocked drops a stage in which nothing stands, as after a first write
// that failed.
func (n *node) settleLocked() {
	if s := n.mu.stage; s != nil && s.empty() && s.file == nil {
		n.mu.stage = nil
	}
}

// Flush implements gofuse.RawFileSystem: close(2) returns when the content is
// committed. Of durability node it waits for nothing, and tells what the background
// has met.
func (fs *FS) Flush(_ <-chan struct{}, in *gofuse.FlushIn) gofuse.Status {
	if fs.follower == nil {
		return fs.sync("close", in.NodeId, fs.commit)
	}
	return fs.sync("close", in.NodeId, func(_ context.Context, n *node) error { return fs.follower.trouble(n) })
}

// Fsync implements gofuse.RawFileSystem. O_SYNC and msync(2) come as this, too.
func (fs *FS) Fsync(_ <-chan struct{}, in *gofuse.FsyncIn) gofuse.Status {
	if fs.follower == nil {
		return fs.sync("fsync", in.NodeId, fs.commit)
	}
	return fs.sync("fsync", in.NodeId, fs.keepHere)
}

// FsyncDir implements gofuse.RawFileSystem: names are in the store when the call
// that made them returns.
func (fs *FS) FsyncDir(<-chan struct{}, *gofuse.FsyncIn) gofuse.Status { return gofuse.OK }

func (fs *FS) sync(op string, id uint64, safe func(context.Context, *node) error) gofuse.Status {
	n, err := fs.node(id)
	if err != nil {
		return fs.status(op, nil, err)
	}
	ctx, done := fs.changing()
	defer done()
	return fs.status(op, n, safe(ctx, n))
}

// Release implements gofuse.RawFileSystem. The content of a file whose last name
// went while it was open is freed here.
func (fs *FS) Release(_ <-chan struct{}, in *gofuse.ReleaseIn) {
	n := fs.table.get(in.NodeId) // the handle is gone, whatever can be learnt of the file
	if n == nil {
		return
	}
	ctx, done := fs.changing()
	defer done()
	if fs.follower != nil {
		fs.leftovers.CompareAndSwap(false, fs.follower.trouble(n) != nil) // it may have to be kept aside
	} else if n.dirty() { // a commit at close failed, or pages of a mapping came late
		if err := fs.commit(ctx, n); err != nil {
			fs.log.Warn("content waits for its commit after the last close", "op", "release", "node", n.id, "err", err)
			fs.leftovers.Store(true)
		}
	}
	if fs.table.release(n, in.Unique) {
		fs.free(ctx, n)
	}
	fs.table.drop(n)
}

// free gives up a file whose last name and last handle are gone.
func (fs *FS) free(ctx context.Context, n *node) {
	if n.dirty() && !n.isKept() { // somebody else took its name: it is kept aside
		fs.leftovers.Store(true)
		return
	}
	n.discard(ctx, fs)
	if !n.takeFreed() {
		return
	}
	if err := fs.vol.Orphans.FreeOrphan(ctx, storage.Orphan{Holder: fs.holder, ID: n.id}); err != nil {
		fs.log.Warn("the content of a removed file stays", "op", "release", "node", n.id, "err", err)
	}
}

// takeFreed reports whether this node's last name was removed with its content
// kept for the open handles.
func (n *node) takeFreed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	kept := n.mu.kept
	n.mu.kept = false
	n.recountLocked()
	return kept
}
