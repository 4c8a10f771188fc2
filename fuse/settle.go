package fuse

import (
	"context"
	"slices"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file finds out what became of a change of names that was cut short, and
// brings it to an end: the state is the one before or the one after it, whatever
// others have done meanwhile. It goes by which inode has which name now; nothing
// is done to a file that is not the one of the record.

func (fs *FS) settle(ctx context.Context, r *redo) (outcome, error) {
	switch r.Op {
	case redoLink:
		return fs.settleLink(ctx, r)
	case redoRename:
		return fs.settleRename(ctx, r)
	default:
		return fs.settleRemove(ctx, r)
	}
}

// peek returns the entry at p, or nil.
func (fs *FS) peek(ctx context.Context, p storage.Path) (*storage.Entry, error) {
	e, err := fs.vol.Files.Lookup(ctx, p)
	if storage.Is(err, storage.NotFound) {
		return nil, nil //nolint:nilnil // there is none, which is no error
	}
	return &e, err
}

func (r *redo) is(e *storage.Entry) bool { return e != nil && e.Inode == r.Inode }

func (fs *FS) settleRemove(ctx context.Context, r *redo) (outcome, error) {
	e, err := fs.peek(ctx, r.From)
	if err != nil {
		return unsettled, err
	}
	n, dir := fs.table.get(r.Node), fs.table.get(r.Dir)
	if r.is(e) {
		fs.spare(n, r.Held)
		r.sparedAs(r.Node, *e)
		return undone, nil
	}
	if n != nil && dir != nil && fs.table.child(dir, r.Name) == n {
		fs.bereave(n, r.Held)
		fs.table.unbind(dir, r.Name)
	}
	return happened, nil
}

// bereave keeps in mind that n has lost a name to us; held, that its handles need
// what was written down of it.
func (fs *FS) bereave(n *node, held bool) {
	n.mu.Lock()
	if held && n.mu.perhaps != nil {
		n.mu.entry, n.mu.perhaps = *n.mu.perhaps, nil
		n.loaded.Store(true)
		n.recountLocked()
	}
	kept := held && n.loaded.Load() && n.mu.entry.Links <= 1
	n.mu.Unlock()
	n.lose(kept)
	if kept {
		fs.table.bare(n)
	}
}

// spare takes back that n, which may be nil, was to become an orphan.
func (fs *FS) spare(n *node, held bool) {
	if n == nil || !held {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.perhaps = nil
	fs.memo.note(record{kind: recUnkept, id: n.id})
}

// settleLink goes by the mark in the file's entry. It is there from the first
// step on; the second one takes it away when it makes the name, and so does who
// gives the link up, who notes that before.
func (fs *FS) settleLink(ctx context.Context, r *redo) (outcome, error) {
	from, err := fs.peek(ctx, r.From)
	if err != nil {
		return unsettled, err
	}
	to, err := fs.peek(ctx, r.To)
	if err != nil {
		return unsettled, err
	}
	if n := fs.table.get(r.Node); n != nil {
		defer fs.table.doubt(n) // its count
	}
	at := r.From
	if !r.is(from) || !slices.Contains(from.Linking, r.Link) {
		from, at = to, r.To // it may have lost the name that we knew
	}
	if r.is(from) && slices.Contains(from.Linking, r.Link) {
		return undone, fs.cancelLink(ctx, at, *from, r.Link)
	}
	if r.Begun && r.is(to) {
		return happened, nil
	}
	return undone, nil
}

func (fs *FS) settleRename(ctx context.Context, r *redo) (outcome, error) {
	done, err := fs.tree.alone(ctx, r.From, r.To)
	if err != nil {
		return unsettled, err
	}
	defer done()
	from, err := fs.peek(ctx, r.From)
	if err != nil {
		return unsettled, err
	}
	to, err := fs.peek(ctx, r.To)
	if err != nil {
		return unsettled, err
	}
	switch {
	case r.is(from) && r.is(to) && r.TargetInode == r.Inode:
		return happened, nil // two names of one file: nothing was to be done
	case r.is(from) && r.is(to):
		if err := fs.finishMove(ctx, r.From, r.To, *from, *to); err != nil {
			return unsettled, err
		}
	case r.is(from) && to == nil && r.TargetInode != 0 && r.TargetInode != r.Inode:
		// The store died when the target was away and the file not in its place yet.
		// Neither name may stay without a file that had one all the time.
		if err := fs.vol.Files.Rename(ctx, r.From, r.To, *from, nil, nil); err != nil {
			return unsettled, err
		}
	case r.is(from), to != nil && r.TargetInode != 0 && to.Inode == r.TargetInode:
		fs.spare(fs.table.get(r.Target), r.Held)
		if to != nil {
			r.sparedAs(r.Target, *to)
		}
		return undone, nil
	}
	// It is at its new name, or was there: whoever took it from both has seen it.
	n, dir, toDir := fs.table.get(r.Node), fs.table.get(r.Dir), fs.table.get(r.ToDir)
	if n == nil || dir == nil || toDir == nil || fs.table.child(dir, r.Name) != n {
		return happened, nil
	}
	if target := fs.table.child(toDir, r.ToName); target != nil && target.id == r.Target && target != n {
		fs.bereave(target, r.Held)
	}
	fs.table.move(n, dir, r.Name, toDir, r.ToName)
	return happened, nil
}

// finishMove moves what is left at from to to, where the same file or directory
// is already: the store died while it moved it, which it does one by one. What
// somebody else has put in the way stays, and what it is in the way of.
func (fs *FS) finishMove(ctx context.Context, from, to storage.Path, source, target storage.Entry) error {
	if !source.IsDir() {
		if source.LinkID != "" { // counted for both names
			return gone(fs.vol.Files.Remove(ctx, from, source, nil))
		}
		return gone(fs.vol.Files.Rename(ctx, from, to, source, &target, nil))
	}
	for {
		page, err := fs.vol.Files.List(ctx, from, "", listPage)
		if err != nil {
			return gone(err)
		}
		for _, child := range page {
			there, err := fs.peek(ctx, to.Join(child.Name))
			if err != nil {
				return err
			}
			next, dest := from.Join(child.Name), to.Join(child.Name)
			switch {
			case there == nil:
				err = gone(fs.vol.Files.Rename(ctx, next, dest, child, nil, nil))
			case there.Inode == child.Inode && there.IsDir() == child.IsDir():
				err = fs.finishMove(ctx, next, dest, child, *there)
			default:
				err = storage.Errorf(storage.Exists, "%q: somebody has made another one at %q", next, dest)
			}
			if err != nil {
				return err
			}
		}
		if len(page) < listPage {
			return gone(fs.vol.Files.Remove(ctx, from, source, nil))
		}
	}
}

// gone takes it as done when there is nothing to be moved or removed any more.
func gone(err error) error {
	if storage.Is(err, storage.NotFound) {
		return nil
	}
	return err
}
