package fuse

import (
	"context"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
)

// Unlink implements gofuse.RawFileSystem.
func (fs *FS) Unlink(_ <-chan struct{}, in *gofuse.InHeader, name string) gofuse.Status {
	return fs.removeName("unlink", in.Unique, in.NodeId, name, false)
}

// Rmdir implements gofuse.RawFileSystem.
func (fs *FS) Rmdir(_ <-chan struct{}, in *gofuse.InHeader, name string) gofuse.Status {
	return fs.removeName("rmdir", in.Unique, in.NodeId, name, true)
}

func (fs *FS) removeName(op string, unique, id uint64, name string, directory bool) gofuse.Status {
	dir, err := fs.node(id)
	if err != nil {
		return fs.status(op, nil, err)
	}
	if err := fs.writable(); err != nil {
		return fs.status(op, dir, err)
	}
	ctx, done := fs.changing()
	defer done()
	return fs.status(op, dir, fs.remove(ctx, unique, dir, name, directory))
}

// remove takes one name away. The content of a file that is open here is held as
// an orphan until its last close.
//
// A request that the mounter before had begun was settled by now.
func (fs *FS) remove(ctx context.Context, unique uint64, dir *node, name string, directory bool) error {
	if err := fs.settled(ctx); err != nil {
		return err
	}
	was, replayed := fs.memo.before(unique)
	if replayed && was.outcome == happened {
		return nil
	}
	for try := range maxRetries {
		n, e, err := fs.current(ctx, dir, name, try == 0 && !replayed)
		if replayed && (storage.Is(err, storage.NotFound) || err == nil && e.Inode != was.inode) {
			return fs.late(was)
		}
		if err != nil {
			return err
		}
		err = fs.removeInTurn(ctx, unique, n, dir, name, e, directory)
		if !storage.Is(err, storage.Changed) {
			if storage.Is(err, storage.NotFound) {
				fs.table.unbind(dir, name)
			}
			return err
		}
	}
	return storage.Errorf(storage.Busy, "remove %q: others changed it %d times meanwhile", name, maxRetries)
}

// removeInTurn removes the name of n, provided that it still stands for e.
func (fs *FS) removeInTurn(ctx context.Context, unique uint64, n, dir *node, name string, e storage.Entry, directory bool) error {
	end, err := n.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	switch {
	case directory && !e.IsDir():
		return storage.Errorf(storage.NotDirectory, "%q is not a directory", name)
	case !directory && e.IsDir():
		return storage.Errorf(storage.IsDirectory, "%q is a directory", name)
	}
	paths, done, err := fs.under(ctx, place{dir, name})
	if err != nil {
		return err
	}
	defer done()
	orphan, held, err := fs.orphaned(n, e)
	if err != nil {
		return err
	}
	r := &redo{
		Unique: unique, Op: redoRemove, From: paths[0], Dir: dir.id, Name: name,
		Node: n.id, Inode: e.Inode, Held: held,
	}
	if err := fs.plan(r); err != nil {
		return err
	}
	err = fs.vol.Files.Remove(ctx, r.From, e, orphan)
	if err == nil && !held && e.Links <= 1 {
		fs.useless(ctx, n)
	}
	if err := fs.ended(r, err); err != nil {
		return err
	}
	n.lose(orphan != nil)
	fs.table.unbind(dir, name)
	if e.Links <= 1 {
		fs.table.bare(n)
	}
	fs.closedMeanwhile(ctx, n, orphan)
	return nil
}

// closedMeanwhile frees what became an orphan for handles that are gone: their release
// came while the name was being removed, and did not find one yet.
func (fs *FS) closedMeanwhile(ctx context.Context, n *node, orphan *storage.Orphan) {
	if _, opens := fs.table.state(n); orphan != nil && opens == 0 {
		fs.free(ctx, n)
	}
}

// orphaned says what becomes of a file that is about to lose a name: an orphan,
// when it is the last one and handles are open. held says that there are handles
// and that what they need is written down: a file that has other names, which we
// may not know of, is read on by them too.
func (fs *FS) orphaned(n *node, e storage.Entry) (orphan *storage.Orphan, held bool, err error) {
	if _, opens := fs.table.state(n); opens == 0 || !e.IsRegular() {
		return nil, false, nil
	}
	if e.Links <= 1 {
		orphan = &storage.Orphan{Holder: fs.holder, ID: n.id}
	}
	return orphan, true, fs.noteKept(n)
}

// lose keeps in mind that a file has one name less; kept, that it has none and
// that its content is held.
func (n *node) lose(kept bool) {
	n.mu.Lock()
	n.mu.kept, n.mu.perhaps = kept, nil
	n.mu.entry.Links = max(n.mu.entry.Links-1, 0)
	n.mu.removed = !kept && n.mu.entry.Links == 0
	if kept {
		n.mu.entry.LinkID = ""
	}
	n.recountLocked()
	n.mu.Unlock()
	n.doubt()
}

// current returns what stands under a name: as it is known, when trusted and
// others' changes are heard of, else as the store has it. What is done with it is
// conditional, so it does no harm when it is outdated.
func (fs *FS) current(ctx context.Context, dir *node, name string, trust bool) (*node, storage.Entry, error) {
	if n := fs.table.child(dir, name); trust && n != nil && fs.vouched(n) {
		return n, n.stored(), nil
	}
	return fs.lookup(ctx, dir, name, false)
}
