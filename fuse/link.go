package fuse

import (
	"context"
	"crypto/rand"

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
	paths, release, err := fs.under(ctx, place{dir: n}, place{dir, name})
	if err != nil {
		return err
	}
	defer release()
	from, to := paths[0], paths[1]
	_, replayed := fs.memo.before(unique)
	if !replayed {
		if err := fs.memo.intend(unique, n.id); err != nil {
			return err
		}
	}
	e, err := fs.makeLink(ctx, n, from, to)
	if replayed && storage.Is(err, storage.Exists) { // by the mounter before?
		if found, lookErr := fs.vol.Files.Lookup(ctx, to); lookErr == nil && found.Inode == n.id {
			e, err = found, nil
		}
	}
	if err != nil {
		return err
	}
	fs.entryOut(fs.bindOwn(dir, name, e), out)
	return nil
}

// makeLink counts one more name and makes it, or takes the count back.
func (fs *FS) makeLink(ctx context.Context, n *node, from, to storage.Path) (storage.Entry, error) {
	op := rand.Text()
	begun, err := fs.beginLink(ctx, n, from, op)
	if err != nil {
		return storage.Entry{}, err
	}
	made, err := fs.vol.Files.EndLink(ctx, from, to, begun, op)
	if err == nil {
		return made, nil
	}
	if undo := fs.cancelLink(context.WithoutCancel(ctx), from, begun, op); undo != nil {
		fs.log.Warn("a hard link's count is one too high", "op", "link", "node", n.id, "err", undo)
	}
	fs.table.doubt(n)
	return storage.Entry{}, err
}

// beginLink counts, again when others change the file meanwhile.
func (fs *FS) beginLink(ctx context.Context, n *node, from storage.Path, op string) (storage.Entry, error) {
	for range maxRetries {
		begun, err := fs.vol.Files.BeginLink(ctx, from, n.stored(), op)
		if !storage.Is(err, storage.Changed) {
			return begun, err
		}
		if err := fs.rereadAt(ctx, n, from); err != nil {
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
