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

// remove takes one name away. The content of a file that is open here is kept
// until its last close.
//
// Carried out again for a request that the mounter before had begun, it goes by
// which inode has the name now: when that is another one, or none, it was done.
func (fs *FS) remove(ctx context.Context, unique uint64, dir *node, name string, directory bool) error {
	was, replayed := fs.memo.before(unique)
	n, err := fs.lookup(ctx, dir, name, false)
	if replayed && (storage.Is(err, storage.NotFound) || err == nil && n.stored().Inode != was.inode) {
		return nil
	}
	if err != nil {
		return err
	}
	end, err := n.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	e := n.stored()
	switch {
	case directory && !e.IsDir():
		return storage.Errorf(storage.NotDirectory, "%q is not a directory", name)
	case !directory && e.IsDir():
		return storage.Errorf(storage.IsDirectory, "%q is a directory", name)
	}
	p, err := fs.table.path(dir)
	if err != nil {
		return err
	}
	_, opens := fs.table.state(n)
	keep := opens > 0 && e.Links <= 1 && e.IsRegular()
	if !replayed {
		if err := fs.memo.intend(unique, e.Inode); err != nil {
			return err
		}
	}
	if keep {
		if err := fs.noteKept(n); err != nil {
			return err
		}
	}
	if err := fs.vol.Files.Remove(ctx, p.Join(name), keep); err != nil {
		return err
	}
	n.mu.Lock()
	n.mu.kept = keep
	n.mu.entry.Links = max(e.Links-1, 0)
	if keep {
		n.mu.entry.LinkID = ""
	}
	n.mu.Unlock()
	n.doubt()
	fs.table.unbind(dir, name)
	return nil
}
