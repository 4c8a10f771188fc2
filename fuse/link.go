package fuse

import (
	"context"
	"crypto/rand"
	"errors"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
)

// Link implements gofuse.RawFileSystem.
func (fs *FS) Link(_ <-chan struct{}, in *gofuse.LinkIn, name string, out *gofuse.EntryOut) gofuse.Status {
	dir, err := fs.node(in.NodeId)
	if err != nil {
		return fs.status("link", nil, err)
	}
	n, err := fs.node(in.Oldnodeid)
	if err != nil {
		return fs.status("link", dir, err)
	}
	return fs.status("link", n, fs.link(in.Unique, n, dir, name, out))
}

func (fs *FS) link(unique uint64, n, dir *node, name string, out *gofuse.EntryOut) error {
	if err := fs.writable(); err != nil {
		return err
	}
	if err := storage.CheckName(name); err != nil {
		return err
	}
	ctx, done := fs.changing()
	defer done()
	if err := fs.settled(ctx); err != nil {
		return err
	}
	end, err := n.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	// Both names show what is committed, and the entry must be ours before it is
	// shared: an inode number made by the store is not unique.
	if err := fs.commitInTurn(ctx, n); err != nil {
		return err
	}
	if !n.stored().Native {
		if err := fs.change(ctx, n, func(*storage.Entry) {}); err != nil {
			return err
		}
	}
	return n.eachName(ctx, func() (absence, error) { return fs.linkFrom(ctx, unique, n, dir, name, out) })
}

// linkFrom is link from one of the names of n: nameless when there is none after it,
// or no need of one. The caller holds the turn.
func (fs *FS) linkFrom(ctx context.Context, unique uint64, n, dir *node, name string, out *gofuse.EntryOut) (absence, error) {
	paths, release, err := fs.under(ctx, place{dir: n}, place{dir, name})
	if err != nil {
		return nameless, err
	}
	defer release()
	a := fs.table.ask()
	defer fs.table.answered(a)
	from, to := paths[0], paths[1]
	if was, replayed := fs.memo.before(unique); replayed && was.outcome == happened {
		e, err := fs.vol.Files.Lookup(ctx, to)
		if err == nil && e.Inode != was.inode {
			err = storage.Errorf(storage.Stale, "%q was replaced by somebody else", to)
		}
		if err != nil {
			return nameless, err
		}
		fs.entryOut(fs.bindOwn(dir, name, e), out)
		return nameless, nil
	}
	r := &redo{
		Unique: unique, Op: redoLink, From: from, To: to, ToDir: dir.id, ToName: name,
		Node: n.id, Inode: n.stored().Inode, Link: rand.Text(),
	}
	if err := fs.plan(r); err != nil {
		return nameless, err
	}
	e, err := fs.makeLink(ctx, n, r)
	err = fs.ended(r, err)
	if storage.Is(err, storage.Stale) || storage.Is(err, storage.NotFound) { // it, or the new name's folder
		if _, missing, _ := fs.entryAt(ctx, n, from); missing {
			return fs.table.misses(a, n, from), err
		}
	}
	if err != nil {
		return nameless, err
	}
	fs.entryOut(fs.bindOwn(dir, name, e), out)
	return nameless, nil
}

// makeLink counts one more name and makes it, or takes the count back. When it
// cannot, the error is one that leaves the rest to be settled later.
func (fs *FS) makeLink(ctx context.Context, n *node, r *redo) (storage.Entry, error) {
	begun, err := fs.beginLink(ctx, n, r.From, r.Link)
	if err != nil {
		return storage.Entry{}, err
	}
	fs.table.doubt(n)
	if err := fs.begun(r, true); err != nil {
		return storage.Entry{}, errors.Join(err, fs.cancelLink(ctx, r.From, begun, r.Link))
	}
	made, err := fs.vol.Files.EndLink(ctx, r.From, r.To, begun, r.Link)
	if err == nil || storage.IsContext(err) || storage.Is(err, storage.Unavailable) || storage.Is(err, storage.Other) {
		return made, err
	}
	if err := fs.begun(r, false); err != nil {
		return storage.Entry{}, err
	}
	if undo := fs.cancelLink(ctx, r.From, begun, r.Link); undo != nil && !storage.Is(undo, storage.NotFound) {
		return storage.Entry{}, storage.Errorf(storage.Unavailable, "%w, and its count is to be taken back: %w", err, undo)
	}
	return storage.Entry{}, err
}

// beginLink counts, again when others change the file meanwhile.
func (fs *FS) beginLink(ctx context.Context, n *node, from storage.Path, op string) (storage.Entry, error) {
	for range maxRetries {
		begun, err := fs.vol.Files.BeginLink(ctx, from, n.stored(), op)
		if !storage.Is(err, storage.Changed) {
			return begun, err
		}
		if _, err := fs.rereadAt(ctx, n, from); err != nil {
			return storage.Entry{}, err
		}
	}
	return storage.Entry{}, storage.Errorf(storage.Busy, "link of %q: others changed it %d times meanwhile", from, maxRetries)
}

// cancelLink takes the count back.
func (fs *FS) cancelLink(ctx context.Context, from storage.Path, e storage.Entry, op string) error {
	for range maxRetries {
		_, err := fs.vol.Files.CancelLink(ctx, from, e, op)
		if !storage.Is(err, storage.Changed) {
			return err
		}
		was := e.LinkID
		if e, err = fs.vol.Files.Lookup(ctx, from); err != nil {
			return err
		}
		if e.LinkID != was {
			return nil // another file: nothing was counted there
		}
	}
	return storage.Errorf(storage.Busy, "link of %q: others changed it %d times meanwhile", from, maxRetries)
}
