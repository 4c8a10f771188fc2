package fuse

import (
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
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
	ctx, done := changing()
	defer done()
	end, err := n.begin(ctx)
	if err != nil {
		return 0, fs.status("write", n, err)
	}
	defer end()
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.stageLocked()
	off := int64(in.Offset)
	if in.Flags&syscall.O_APPEND != 0 {
		off = s.size
	}
	if err := s.write(fs, data, off); err != nil {
		n.settleLocked()
		return 0, fs.status("write", n, err)
	}
	now := time.Now()
	n.mu.pending.add(patch{mtime: &now, ctime: &now})
	return uint32(len(data)), gofuse.OK
}

// stageLocked returns the stage, begun if need be.
func (n *node) stageLocked() *stage {
	if n.mu.stage == nil {
		n.mu.stage = &stage{base: n.mu.entry.Size, size: n.mu.entry.Size}
	}
	return n.mu.stage
}

// settleLocked drops a stage in which nothing stands, as after a first write
// that failed.
func (n *node) settleLocked() {
	if s := n.mu.stage; s != nil && len(s.dirty) == 0 && s.file == nil && s.size == n.mu.entry.Size && s.base == s.size {
		n.mu.stage = nil
	}
}

// Flush implements gofuse.RawFileSystem: close(2) returns when the content is
// committed.
func (fs *FS) Flush(_ <-chan struct{}, in *gofuse.FlushIn) gofuse.Status {
	return fs.sync("close", in.NodeId)
}

// Fsync implements gofuse.RawFileSystem.
func (fs *FS) Fsync(_ <-chan struct{}, in *gofuse.FsyncIn) gofuse.Status {
	return fs.sync("fsync", in.NodeId)
}

// FsyncDir implements gofuse.RawFileSystem: names are in the store when the call
// that made them returns.
func (fs *FS) FsyncDir(<-chan struct{}, *gofuse.FsyncIn) gofuse.Status { return gofuse.OK }

func (fs *FS) sync(op string, id uint64) gofuse.Status {
	n, err := fs.node(id)
	if err != nil {
		return fs.status(op, nil, err)
	}
	ctx, done := changing()
	defer done()
	return fs.status(op, n, fs.commit(ctx, n))
}

// Release implements gofuse.RawFileSystem. The content of a file whose last name
// went while it was open is freed here.
func (fs *FS) Release(_ <-chan struct{}, in *gofuse.ReleaseIn) {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return
	}
	ctx, done := changing()
	defer done()
	if n.dirty() { // a commit at close failed, or pages of a mapping came late
		if err := fs.commit(ctx, n); err != nil {
			fs.log.Error("content was lost at the last close", "op", "release", "node", n.id, "err", err)
		}
	}
	if !fs.table.release(n) {
		return
	}
	n.discard(fs)
	e := n.stored()
	if freed := n.takeFreed(); freed && e.LinkID == "" {
		ids := contentOf(e)
		if err := fs.vol.Chunks.Delete(ctx, ids); err != nil {
			fs.log.Warn("chunks of a removed file stay", "op", "release", "node", n.id, "err", err)
		}
	}
}

// takeFreed reports whether this node's last name was removed with its content
// kept for the open handles.
func (n *node) takeFreed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	kept := n.mu.kept
	n.mu.kept = false
	return kept
}
