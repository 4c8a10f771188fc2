package fuse

import (
	iofs "io/fs"
	"slices"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
)

// blockSize is what stat(2) calls the preferred size of I/O.
const blockSize = 4096

// modeTypes pairs Go's types with the kernel's.
var modeTypes = map[iofs.FileMode]uint32{
	0:                                     syscall.S_IFREG,
	iofs.ModeDir:                          syscall.S_IFDIR,
	iofs.ModeSymlink:                      syscall.S_IFLNK,
	iofs.ModeNamedPipe:                    syscall.S_IFIFO,
	iofs.ModeSocket:                       syscall.S_IFSOCK,
	iofs.ModeDevice:                       syscall.S_IFBLK,
	iofs.ModeDevice | iofs.ModeCharDevice: syscall.S_IFCHR,
}

// modeBits pairs the bits above the permissions.
var modeBits = map[iofs.FileMode]uint32{
	iofs.ModeSetuid: syscall.S_ISUID, iofs.ModeSetgid: syscall.S_ISGID, iofs.ModeSticky: syscall.S_ISVTX,
}

// kernelMode turns a mode into st_mode.
func kernelMode(m iofs.FileMode) uint32 {
	out := uint32(m.Perm()) | modeTypes[m.Type()]
	for mode, bit := range modeBits {
		if m&mode != 0 {
			out |= bit
		}
	}
	return out
}

// goPerm turns the lower twelve bits of st_mode into Go's.
func goPerm(bits uint32) iofs.FileMode {
	out := iofs.FileMode(bits & 0o777)
	for mode, bit := range modeBits {
		if bits&bit != 0 {
			out |= mode
		}
	}
	return out
}

// goType turns the type of st_mode into Go's; ok is false for an unknown one.
func goType(bits uint32) (m iofs.FileMode, ok bool) {
	for mode, t := range modeTypes {
		if bits&syscall.S_IFMT == t {
			return mode, true
		}
	}
	return 0, bits&syscall.S_IFMT == 0
}

// dress gives an entry that was made over S3 the volume's owner and mode.
func (fs *FS) dress(e *storage.Entry) {
	if e.Native {
		return
	}
	e.UID, e.GID = fs.opts.UID, fs.opts.GID
	perm := fs.opts.FileMode
	if e.IsDir() {
		perm = fs.opts.DirMode
	}
	e.Mode = e.Mode.Type() | perm
}

// dressed is the entry of a node as it is shown: the root belongs to the group that
// shall have the volume, whatever it is in the store, and so does what a group owns
// that had it before.
func (fs *FS) dressed(n *node, e storage.Entry) storage.Entry {
	fs.dress(&e)
	switch group := fs.opts.Group; {
	case group == nil:
	case n == fs.table.root:
		e.GID = *group
		e.Mode |= iofs.ModeSetgid | 0o070
	case slices.Contains(fs.opts.Groups, e.GID):
		e.GID = *group
	}
	return e
}

// attr fills in what stat(2) shows.
func (fs *FS) attr(n *node, out *gofuse.Attr) {
	e := fs.dressed(n, n.shown())
	*out = gofuse.Attr{
		Ino: n.id, Size: uint64(e.Size), Blocks: uint64(n.takes()+511) / 512, Mode: kernelMode(e.Mode),
		Nlink: 1, Owner: gofuse.Owner{Uid: e.UID, Gid: e.GID}, Rdev: e.Rdev, Blksize: blockSize,
	}
	switch orphan, _ := fs.table.state(n); {
	case orphan:
		out.Nlink = 0
	case e.IsDir():
		out.Nlink = 2
	case e.Links > 1:
		out.Nlink = uint32(e.Links)
	}
	if e.Mode.Type()&iofs.ModeSymlink != 0 {
		out.Size = uint64(len(e.Target))
	}
	atime, ctime := e.Atime, e.Ctime
	if atime.IsZero() {
		atime = e.Mtime
	}
	if ctime.IsZero() {
		ctime = e.Mtime
	}
	out.Mtime, out.Mtimensec = kernelTime(e.Mtime)
	out.Atime, out.Atimensec = kernelTime(atime)
	out.Ctime, out.Ctimensec = kernelTime(ctime)
}

func kernelTime(t time.Time) (uint64, uint32) {
	if t.IsZero() {
		return 0, 0
	}
	return uint64(t.Unix()), uint32(t.Nanosecond())
}

// entryOut answers a look-up.
func (fs *FS) entryOut(n *node, out *gofuse.EntryOut) {
	out.NodeId, out.Generation = n.id, 1
	fs.attr(n, &out.Attr)
	out.SetEntryTimeout(fs.ttl())
	out.SetAttrTimeout(fs.ttl())
}
