package fuse

import (
	"crypto/md5"
	iofs "io/fs"
	"mime"
	"path"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
)

// maxTarget is PATH_MAX: a symbolic link's target is shorter.
const maxTarget = 4096

// emptyMD5 is the ETag of an empty object.
var emptyMD5 = md5.Sum(nil)

// makeEntry makes a new entry of the caller under a name and returns its node, looked
// up once.
func (fs *FS) makeEntry(op string, in *gofuse.InHeader, name string, mode iofs.FileMode, dress func(*storage.Entry)) (*node, gofuse.Status) {
	dir, err := fs.node(in.NodeId)
	if err != nil {
		return nil, fs.status(op, nil, err)
	}
	if err := fs.writable(); err != nil {
		return nil, fs.status(op, dir, err)
	}
	if err := storage.CheckName(name); err != nil {
		return nil, fs.status(op, dir, err)
	}
	ctx, done := fs.changing()
	defer done()
	paths, release, err := fs.under(ctx, place{dir, name})
	if err != nil {
		return nil, fs.status(op, dir, err)
	}
	defer release()
	now := time.Now()
	inode := newInode()
	was, replayed := fs.memo.before(in.Unique)
	if replayed {
		found, err := fs.vol.Files.Lookup(ctx, paths[0])
		if err == nil && found.Inode == was.inode { // by the mounter before
			return fs.bindOwn(dir, name, found), gofuse.OK
		}
		if err != nil && !storage.Is(err, storage.NotFound) {
			return nil, fs.status(op, dir, err)
		}
	}
	// Not the number of a creation before: it may have been made, and been moved away
	// by somebody else.
	if err := fs.memo.intend(in.Unique, inode); err != nil {
		return nil, fs.status(op, dir, err)
	}
	e := storage.Entry{
		Mode: mode, UID: in.Uid, GID: in.Gid, Inode: inode, Native: true,
		Mtime: now, Ctime: now, Atime: now, Btime: now,
	}
	if up := fs.dressed(dir, dir.stored()); up.Mode&iofs.ModeSetgid != 0 {
		e.GID = up.GID
		if e.IsDir() {
			e.Mode |= iofs.ModeSetgid
		}
	}
	if dress != nil {
		dress(&e)
	}
	made, err := fs.vol.Files.Create(ctx, paths[0], e, fs.vouched(dir))
	if replayed && storage.Is(err, storage.Exists) { // by the mounter before?
		if found, lookErr := fs.vol.Files.Lookup(ctx, paths[0]); lookErr == nil && found.Inode == was.inode {
			made, err = found, nil
		}
	}
	if err != nil {
		return nil, fs.status(op, dir, err)
	}
	return fs.bindOwn(dir, name, made), gofuse.OK
}

// vouched reports whether the stream of changes vouches for what is known of a
// node: it stands where it was, and is what it was.
func (fs *FS) vouched(n *node) bool {
	return fs.watched.Load() && n.loaded.Load() && n.fresh(watchedTTL)
}

// emptyFile gives a new file what S3 shows of an empty object.
func emptyFile(name string) func(*storage.Entry) {
	return func(e *storage.Entry) {
		e.MIME = mime.TypeByExtension(path.Ext(name))
		e.MD5 = emptyMD5[:]
	}
}

// Create implements gofuse.RawFileSystem.
func (fs *FS) Create(_ <-chan struct{}, in *gofuse.CreateIn, name string, out *gofuse.CreateOut) gofuse.Status {
	n, status := fs.makeEntry("create", &in.InHeader, name, goPerm(in.Mode), emptyFile(name))
	if !status.Ok() {
		return status
	}
	fs.table.openNew(n)
	fs.entryOut(n, &out.EntryOut)
	return gofuse.OK
}

// Mknod implements gofuse.RawFileSystem.
func (fs *FS) Mknod(_ <-chan struct{}, in *gofuse.MknodIn, name string, out *gofuse.EntryOut) gofuse.Status {
	kind, ok := goType(in.Mode)
	if !ok || kind == iofs.ModeDir || kind == iofs.ModeSymlink {
		return gofuse.EINVAL
	}
	n, status := fs.makeEntry("mknod", &in.InHeader, name, kind|goPerm(in.Mode), func(e *storage.Entry) {
		e.Rdev = in.Rdev
		if kind == 0 {
			emptyFile(name)(e)
		}
	})
	if !status.Ok() {
		return status
	}
	fs.entryOut(n, out)
	return gofuse.OK
}

// Mkdir implements gofuse.RawFileSystem.
func (fs *FS) Mkdir(_ <-chan struct{}, in *gofuse.MkdirIn, name string, out *gofuse.EntryOut) gofuse.Status {
	n, status := fs.makeEntry("mkdir", &in.InHeader, name, iofs.ModeDir|goPerm(in.Mode), nil)
	if !status.Ok() {
		return status
	}
	fs.entryOut(n, out)
	return gofuse.OK
}

// Symlink implements gofuse.RawFileSystem.
func (fs *FS) Symlink(_ <-chan struct{}, in *gofuse.InHeader, target, name string, out *gofuse.EntryOut) gofuse.Status {
	if len(target) >= maxTarget {
		return gofuse.Status(syscall.ENAMETOOLONG)
	}
	n, status := fs.makeEntry("symlink", in, name, iofs.ModeSymlink|0o777, func(e *storage.Entry) { e.Target = target })
	if !status.Ok() {
		return status
	}
	fs.entryOut(n, out)
	return gofuse.OK
}
