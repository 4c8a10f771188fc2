package fuse

import (
	"context"
	"encoding/json"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
)

// SetAttr implements gofuse.RawFileSystem: chmod, chown, utimensat, truncate.
func (fs *FS) SetAttr(_ <-chan struct{}, in *gofuse.SetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return fs.status("setattr", nil, err)
	}
	if err := fs.writable(); err != nil {
		return fs.status("setattr", n, err)
	}
	ctx, done := fs.changing()
	defer done()
	if err := fs.setAttr(ctx, n, in); err != nil {
		return fs.status("setattr", n, err)
	}
	fs.attr(n, &out.Attr)
	out.SetTimeout(fs.ttl())
	return gofuse.OK
}

func (fs *FS) setAttr(ctx context.Context, n *node, in *gofuse.SetAttrIn) error {
	end, err := n.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := fs.refresh(ctx, n, false); err != nil {
		return err
	}
	change := requested(in)
	if size, ok := in.GetSize(); ok {
		if err := fs.truncate(ctx, n, int64(size)); err != nil {
			return err
		}
	}
	orphan, opens := fs.table.state(n)
	if n.dirty() || orphan { // goes with the content
		if err := fs.await(n, change); err != nil {
			return err
		}
		if opens > 0 || fs.follower != nil && n.dirty() {
			return nil
		}
		return fs.commitInTurn(ctx, n)
	}
	return fs.change(ctx, n, change.apply)
}

// requested turns a request into a patch. ctime is ours to set.
func requested(in *gofuse.SetAttrIn) patch {
	now := time.Now()
	p := patch{Ctime: &now}
	if mode, ok := in.GetMode(); ok {
		perm := goPerm(mode)
		p.Perm = &perm
	}
	if uid, ok := in.GetUID(); ok {
		p.UID = &uid
	}
	if gid, ok := in.GetGID(); ok {
		p.GID = &gid
	}
	if t, ok := in.GetMTime(); ok {
		p.Mtime = &t
	} else if _, ok := in.GetSize(); ok {
		p.Mtime = &now
	}
	if t, ok := in.GetATime(); ok {
		p.Atime = &t
	}
	return p
}

// truncate sets the size in the stage; the commit brings it to the store.
func (fs *FS) truncate(ctx context.Context, n *node, size int64) error {
	return fs.fitting(ctx, func(bool) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		if err := n.takeSizeLocked(size); err != nil {
			return err
		}
		defer n.recountLocked()
		s, err := fs.stageLocked(n)
		if err != nil {
			return err
		}
		if err := fs.memo.write(record{kind: recCut, id: n.id, a: uint64(size)}); err != nil {
			return err
		}
		s.truncate(size)
		n.cutLocked(size)
		return nil
	})
}

// await keeps a change of attributes for the next commit.
func (fs *FS) await(n *node, change patch) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	data, err := json.Marshal(change)
	if err != nil {
		return err
	}
	if err := fs.memo.write(record{kind: recPatch, id: n.id, a: 1, data: data}); err != nil {
		return err
	}
	n.mu.pending.add(change)
	n.changedLocked(change)
	fs.follower.add(n)
	return nil
}

// change updates the entry of a clean node, again when others did it meanwhile.
// The caller holds the turn.
func (fs *FS) change(ctx context.Context, n *node, apply func(*storage.Entry)) error {
	for range maxRetries {
		was := n.stored()
		next := was.Clone()
		fs.dress(&next)
		apply(&next)
		err := fs.put(ctx, n, next)
		if !storage.Is(err, storage.Changed) {
			return err
		}
		if err := fs.reread(ctx, n); err != nil {
			return err
		}
	}
	return storage.Errorf(storage.Busy, "node %d: others changed it %d times meanwhile", n.id, maxRetries)
}
