package fuse

import (
	"context"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
)

// Lookup implements gofuse.RawFileSystem.
func (fs *FS) Lookup(cancel <-chan struct{}, in *gofuse.InHeader, name string, out *gofuse.EntryOut) gofuse.Status {
	dir, err := fs.node(in.NodeId)
	if err != nil {
		return fs.status("lookup", nil, err)
	}
	ctx, done := fs.reading(in.Unique, cancel)
	defer done()
	n, _, err := fs.lookup(ctx, dir, name, true)
	if err != nil {
		return fs.status("lookup", dir, err)
	}
	fs.entryOut(n, out)
	return gofuse.OK
}

// lookup finds a name in the store and returns its node and its entry.
func (fs *FS) lookup(ctx context.Context, dir *node, name string, counted bool) (*node, storage.Entry, error) {
	if err := storage.CheckName(name); err != nil {
		if storage.Is(err, storage.TooLong) {
			return nil, storage.Entry{}, err
		}
		return nil, storage.Entry{}, storage.Errorf(storage.NotFound, "%w", err)
	}
	p, err := fs.table.path(dir)
	if err != nil {
		return nil, storage.Entry{}, err
	}
	e, err := fs.vol.Files.Lookup(ctx, p.Join(name))
	if err != nil {
		if storage.Is(err, storage.NotFound) {
			fs.table.unbind(dir, name)
		}
		return nil, storage.Entry{}, err
	}
	return fs.bind(dir, name, e, counted), e, nil
}

// bind gives the entry found under a name to its node.
func (fs *FS) bind(dir *node, name string, e storage.Entry, counted bool) *node {
	n := fs.table.bind(dir, name, e, counted)
	if !n.dirty() || !n.loaded.Load() { // a commit compares with what it began from
		n.learn(e)
	}
	return n
}

// Forget implements gofuse.RawFileSystem.
func (fs *FS) Forget(id, count uint64) { fs.table.forget(id, count) }

// GetAttr implements gofuse.RawFileSystem.
func (fs *FS) GetAttr(cancel <-chan struct{}, in *gofuse.GetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return fs.status("getattr", nil, err)
	}
	ctx, done := fs.reading(in.Unique, cancel)
	defer done()
	if err := fs.refresh(ctx, n, false); err != nil {
		return fs.status("getattr", n, err)
	}
	fs.attr(n, &out.Attr)
	out.SetTimeout(fs.ttl())
	return gofuse.OK
}

// refresh learns the entry of a node again when what is known is too old, or in
// any case when always is set. A file that is open and has lost its name, or
// whose name now stands for another file, is shown as it was.
func (fs *FS) refresh(ctx context.Context, n *node, always bool) error {
	if n.fresh(fs.ttl()) && !(always && !n.dirty()) {
		return nil
	}
	p, err := fs.table.path(n)
	if err != nil {
		if _, opens := fs.table.state(n); opens > 0 {
			return nil
		}
		return err
	}
	e, err := fs.vol.Files.Lookup(ctx, p)
	if err == nil && (n == fs.table.root || sameFile(n, e)) {
		if !n.dirty() {
			n.learn(e)
		}
		return nil
	}
	if err != nil && !storage.Is(err, storage.NotFound) {
		return err
	}
	// Others removed or replaced it.
	for _, at := range fs.table.names(n) {
		fs.table.unbind(at.dir, at.name)
	}
	if _, opens := fs.table.state(n); opens > 0 {
		return nil
	}
	return storage.Errorf(storage.Stale, "%q was removed or replaced by somebody else", p)
}

// Readlink implements gofuse.RawFileSystem.
func (fs *FS) Readlink(cancel <-chan struct{}, in *gofuse.InHeader) ([]byte, gofuse.Status) {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return nil, fs.status("readlink", nil, err)
	}
	ctx, done := fs.reading(in.Unique, cancel)
	defer done()
	if err := fs.refresh(ctx, n, false); err != nil {
		return nil, fs.status("readlink", n, err)
	}
	return []byte(n.stored().Target), gofuse.OK
}
