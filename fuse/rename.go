package fuse

import (
	"context"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
)

// renameNoReplace is RENAME_NOREPLACE of linux/fs.h, the one flag that is
// served; the kernel answers EINVAL for the others as we do.
const renameNoReplace = 1

// Rename implements gofuse.RawFileSystem.
func (fs *FS) Rename(_ <-chan struct{}, in *gofuse.RenameIn, from, to string) gofuse.Status {
	dir, err := fs.node(in.NodeId)
	if err != nil {
		return fs.status("rename", nil, err)
	}
	toDir, err := fs.node(in.Newdir)
	if err != nil {
		return fs.status("rename", dir, err)
	}
	if in.Flags&^renameNoReplace != 0 {
		return gofuse.EINVAL
	}
	if err := fs.writable(); err != nil {
		return fs.status("rename", dir, err)
	}
	ctx, done := fs.changing()
	defer done()
	return fs.status("rename", dir, fs.rename(ctx, in.Unique, dir, from, toDir, to, in.Flags&renameNoReplace != 0))
}

// rename moves a name. A request that the mounter before had begun was settled by
// now.
func (fs *FS) rename(ctx context.Context, unique uint64, dir *node, from string, toDir *node, to string, noReplace bool) error {
	if err := storage.CheckName(to); err != nil {
		return err
	}
	if err := fs.settled(ctx); err != nil {
		return err
	}
	was, replayed := fs.memo.before(unique)
	if replayed && was.outcome == happened {
		return nil
	}
	if err := fs.contentFirst(ctx, dir, from); err != nil {
		return err
	}
	for try := range maxRetries {
		trust := try == 0 && !replayed
		source, moving, missing := fs.current(ctx, dir, from, trust)
		if missing != nil && !storage.Is(missing, storage.NotFound) {
			return missing
		}
		target, replaced, err := fs.current(ctx, toDir, to, trust)
		if err != nil && !storage.Is(err, storage.NotFound) {
			return err
		}
		if replayed && (missing != nil || moving.Inode != was.inode) && target != nil && replaced.Inode == was.inode {
			return fs.late(was)
		}
		if missing != nil {
			return missing
		}
		if noReplace && target != nil {
			return storage.Errorf(storage.Exists, "%q exists", to)
		}
		err = fs.renameInTurn(ctx, unique, &move{dir, from, source, moving, toDir, to, target, replaced})
		if !storage.Is(err, storage.Changed) {
			return err
		}
	}
	return storage.Errorf(storage.Busy, "rename %q: others changed it %d times meanwhile", from, maxRetries)
}

// contentFirst brings what waits of a file to the store before it gets another name,
// and perhaps replaces a file that is there: whoever sees the new name after this node
// was lost must not find it empty. Without a follower fsync and close have done that.
func (fs *FS) contentFirst(ctx context.Context, dir *node, name string) error {
	n := fs.table.child(dir, name)
	if fs.follower == nil || n == nil || !n.dirty() {
		return nil
	}
	if err := fs.commit(ctx, n); err != nil && !n.hopeless(err) { // else another file has the name
		return err
	}
	return nil
}

// move is a rename: a name in a directory, what stands for it, and the same of
// where it goes. target is nil when nothing is there.
type move struct {
	dir      *node
	from     string
	source   *node
	moving   storage.Entry
	toDir    *node
	to       string
	target   *node
	replaced storage.Entry
}

// renameInTurn moves a name, provided that both stand for what is said of them.
func (fs *FS) renameInTurn(ctx context.Context, unique uint64, m *move) error {
	// A commit under way would miss the file at its old place.
	end, err := beginBoth(ctx, m.source, m.target)
	if err != nil {
		return err
	}
	defer end()
	hold := fs.under
	if m.moving.IsDir() {
		hold = fs.moving
	}
	paths, done, err := hold(ctx, place{m.dir, m.from}, place{m.toDir, m.to})
	if err != nil {
		return err
	}
	defer done()
	var replaced *storage.Entry
	var orphan *storage.Orphan
	held := false
	if m.target != nil {
		replaced = &m.replaced
		if m.target != m.source {
			if orphan, held, err = fs.orphaned(m.target, m.replaced); err != nil {
				return err
			}
		}
	}
	r := &redo{
		Unique: unique, Op: redoRename, From: paths[0], To: paths[1],
		Dir: m.dir.id, Name: m.from, ToDir: m.toDir.id, ToName: m.to,
		Node: m.source.id, Inode: m.moving.Inode, Held: held,
	}
	if m.target != nil {
		r.Target, r.TargetInode = m.target.id, m.replaced.Inode
	}
	if err := fs.plan(r); err != nil {
		return err
	}
	err = fs.vol.Files.Rename(ctx, r.From, r.To, m.moving, replaced, orphan)
	if storage.Is(err, storage.NotEmpty) || storage.Is(err, storage.Changed) {
		err = fs.moveRest(ctx, r, err)
	}
	if err == nil && m.target != nil && m.target != m.source && !held && m.replaced.Links <= 1 {
		fs.useless(ctx, m.target)
	}
	if err := fs.ended(r, err); err != nil {
		return err
	}
	if replaced != nil && replaced.LinkID != "" && replaced.LinkID == m.moving.LinkID {
		return nil // two names of one file: rename(2) does nothing
	}
	if m.target != nil {
		m.target.lose(orphan != nil)
	}
	fs.table.move(m.source, m.dir, m.from, m.toDir, m.to)
	if m.target != nil && m.target != m.source && m.replaced.Links <= 1 {
		fs.table.bare(m.target)
	}
	if m.target != nil {
		fs.closedMeanwhile(ctx, m.target, orphan)
	}
	return nil
}

// moveRest moves what is left of a directory when the store died while it moved
// it; refusal is what it answers to a second try, and is returned when there was
// no first one.
func (fs *FS) moveRest(ctx context.Context, r *redo, refusal error) error {
	from, err := fs.peek(ctx, r.From)
	if err != nil {
		return err
	}
	to, err := fs.peek(ctx, r.To)
	if err != nil {
		return err
	}
	if !r.is(from) || !r.is(to) || !from.IsDir() || !to.IsDir() {
		return refusal
	}
	return fs.finishMove(ctx, r.From, r.To, *from, *to)
}

// beginBoth takes the turns of two files, in the order of their numbers: two
// renames over each other's names would wait for ever. b may be nil, or a.
func beginBoth(ctx context.Context, a, b *node) (func(), error) {
	if b == nil || a == b {
		return a.begin(ctx)
	}
	if b.id < a.id {
		a, b = b, a
	}
	endA, err := a.begin(ctx)
	if err != nil {
		return nil, err
	}
	endB, err := b.begin(ctx)
	if err != nil {
		endA()
		return nil, err
	}
	return func() { endB(); endA() }, nil
}
