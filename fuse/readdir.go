package fuse

import (
	"context"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
)

// OpenDir implements gofuse.RawFileSystem.
func (fs *FS) OpenDir(_ <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return fs.status("opendir", nil, err)
	}
	fs.table.open(n, in.Unique)
	out.Fh = fs.dirs.add()
	return gofuse.OK
}

// ReleaseDir implements gofuse.RawFileSystem.
func (fs *FS) ReleaseDir(in *gofuse.ReleaseIn) {
	fs.dirs.remove(fs.table, in.Fh)
	if n := fs.table.get(in.NodeId); n != nil {
		fs.table.release(n, in.Unique)
		fs.table.drop(n)
	}
}

// ReadDir implements gofuse.RawFileSystem.
func (fs *FS) ReadDir(cancel <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	return fs.readDir(cancel, in, func(_ context.Context, _ *node, _ *ask, _ storage.Entry, d gofuse.DirEntry) bool {
		return out.AddDirEntry(d)
	})
}

// ReadDirPlus implements gofuse.RawFileSystem.
func (fs *FS) ReadDirPlus(cancel <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	return fs.readDir(cancel, in, func(ctx context.Context, dir *node, a *ask, e storage.Entry, d gofuse.DirEntry) bool {
		slot := out.AddDirLookupEntry(d)
		if slot == nil {
			return false
		}
		if e.Name == "" { // "." and ".." carry no look-up
			return true
		}
		// Without a node the kernel takes the name alone, and looks it up when it is
		// used.
		if n := fs.bindHeard(ctx, a, dir, e.Name, e, true); n != nil {
			fs.entryOut(n, slot)
		}
		return true
	})
}

// readDir gives the names behind the request's cookie to add, until it has no room
// or has come to the end of what is at hand.
func (fs *FS) readDir(cancel <-chan struct{}, in *gofuse.ReadIn, add func(context.Context, *node, *ask, storage.Entry, gofuse.DirEntry) bool) gofuse.Status {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return fs.status("readdir", nil, err)
	}
	ctx, done := fs.reading(in.Unique, cancel)
	defer done()
	s := fs.dirs.get(in.Fh)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := in.Offset
	if at == 0 {
		fs.dirs.rewind(fs.table, in.Fh, s)
	}
	for ; at < afterDotDot; at++ {
		name := [...]string{".", ".."}[at]
		if !add(ctx, n, nil, storage.Entry{}, gofuse.DirEntry{Name: name, Off: at + 1, Mode: syscall.S_IFDIR, Ino: n.id}) {
			return gofuse.OK
		}
	}
	skip, err := fs.seek(ctx, n, in.Fh, s, at)
	if err != nil {
		if in.Offset < afterDotDot {
			return gofuse.OK // it comes back for the rest
		}
		return fs.status("readdir", n, err)
	}
	for i, e := range s.entries[skip:] {
		d := gofuse.DirEntry{Name: e.Name, Mode: kernelMode(e.Mode), Ino: fs.inodeOf(n, e), Off: s.first + uint64(skip+i)} //nolint:gosec // counts
		if !add(ctx, n, s.asked, e, d) {
			break
		}
	}
	return gofuse.OK
}

// inodeOf is the number that a look-up of the entry would give, as far as it is
// known without one.
func (fs *FS) inodeOf(dir *node, e storage.Entry) uint64 {
	if n := fs.table.child(dir, e.Name); n != nil {
		return n.id
	}
	return e.Inode
}
