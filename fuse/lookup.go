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
	for try := range maxOutdated {
		if err := pause(ctx, try); err != nil {
			return nil, storage.Entry{}, err
		}
		n, e, current, err := fs.look(ctx, dir, name, counted)
		if current {
			return n, e, err
		}
	}
	return nil, storage.Entry{}, storage.Errorf(storage.Busy, "look-up of %q: it was changed %d times meanwhile", name, maxOutdated)
}

// look asks once. current is false when the answer is outdated.
func (fs *FS) look(ctx context.Context, dir *node, name string, counted bool) (n *node, e storage.Entry, current bool, err error) {
	at := []place{{dir, name}}
	paths, done, err := fs.under(ctx, at...)
	if err != nil {
		return nil, e, true, err
	}
	defer done()
	a := fs.table.ask()
	defer fs.table.answered(a)
	e, err = fs.vol.Files.Lookup(ctx, paths[0])
	if !fs.table.stand(at, paths) {
		return nil, e, false, nil // somebody else has moved the directory
	}
	if err != nil {
		if storage.Is(err, storage.NotFound) && !fs.table.unbindHeard(a, dir, name) {
			return nil, e, false, nil
		}
		return nil, e, true, err
	}
	n = fs.bindHeard(ctx, a, dir, name, e, counted)
	return n, e, n != nil, nil
}

// bindHeard gives the entry that an answer has under a name to its node; nil when
// the answer is outdated.
func (fs *FS) bindHeard(ctx context.Context, a *ask, dir *node, name string, e storage.Entry, counted bool) *node {
	n := fs.table.bind(a, dir, name, e, counted)
	if n != nil {
		first := !n.loaded.Load()
		fs.table.hear(a, n, e)
		if first && n.inDoubt() {
			fs.judge(ctx, n, n.stored(), false)
		}
	}
	return n
}

// bindOwn gives what we have made under a name to its node.
func (fs *FS) bindOwn(dir *node, name string, e storage.Entry) *node {
	n := fs.table.bind(nil, dir, name, e, true)
	fs.table.did(n, e)
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

// AttrNow implements session.Prompter: what is known and fresh is said at once.
func (fs *FS) AttrNow(id uint64, out *gofuse.AttrOut) bool {
	n := fs.table.get(id)
	if n == nil || !n.loaded.Load() || fs.opts.Fence.Lost() != nil {
		return false
	}
	ttl := fs.ttl()
	if !n.fresh(ttl) {
		return false
	}
	fs.attr(n, &out.Attr)
	out.SetTimeout(ttl)
	return true
}

// refresh learns the entry of a node again when what is known is too old, or in
// any case when always is set. A file that is open and has lost its name, or
// whose name now stands for another file, is shown as it was.
func (fs *FS) refresh(ctx context.Context, n *node, always bool) error {
	next := false // another name of the same question
	return n.eachName(ctx, func() (absence, error) {
		if !next && n.fresh(fs.ttl()) && !(always && !n.dirty()) {
			return nameless, nil
		}
		p, done, err := fs.at(ctx, n)
		if storage.Is(err, storage.Stale) {
			return nameless, fs.held(n, err)
		}
		if err != nil {
			return nameless, err
		}
		defer done()
		f, err := fs.askAt(ctx, n, p)
		next = f == elsewhere
		always = always && next // what outdated the answer is newer than the question
		return f, err
	})
}

// askAt is one try of refresh, for eachName: by the name p.
func (fs *FS) askAt(ctx context.Context, n *node, p storage.Path) (absence, error) {
	a := fs.table.ask()
	defer fs.table.answered(a)
	e, missing, err := fs.entryAt(ctx, n, p)
	switch {
	case missing: // others removed or replaced it
		return fs.table.lost(a, n, p), fs.held(n, err)
	case err != nil:
		return nameless, err
	case !fs.table.hear(a, n, e):
		return doubtful, nil
	}
	return nameless, nil
}

// held is the error of a call on a file that is not found any more: nil when it is open.
func (fs *FS) held(n *node, err error) error {
	if _, opens := fs.table.state(n); opens > 0 {
		return nil
	}
	return err
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
