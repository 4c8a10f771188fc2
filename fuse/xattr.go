package fuse

import (
	"slices"
	"strings"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
)

// maxXattr is XATTR_SIZE_MAX of linux/limits.h.
const maxXattr = 64 << 10

// Flags of setxattr(2), from linux/xattr.h.
const (
	xattrCreate  = 1
	xattrReplace = 2
)

// servedXattr says which name spaces are kept. POSIX ACLs are not: a mode that
// looks honoured and is not would be worse than an error.
func servedXattr(name string) bool {
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.") || strings.HasPrefix(name, "security.")
}

// GetXAttr implements gofuse.RawFileSystem.
func (fs *FS) GetXAttr(cancel <-chan struct{}, in *gofuse.InHeader, name string, dest []byte) (uint32, gofuse.Status) {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return 0, fs.status("getxattr", nil, err)
	}
	if !servedXattr(name) {
		return 0, gofuse.Status(syscall.ENOTSUP)
	}
	ctx, done := fs.reading(in.Unique, cancel)
	defer done()
	if err := fs.refresh(ctx, n, false); err != nil {
		return 0, fs.status("getxattr", n, err)
	}
	value, ok := n.stored().Xattr[name]
	if !ok {
		return 0, gofuse.ENODATA
	}
	return fill(dest, value)
}

// ListXAttr implements gofuse.RawFileSystem.
func (fs *FS) ListXAttr(cancel <-chan struct{}, in *gofuse.InHeader, dest []byte) (uint32, gofuse.Status) {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return 0, fs.status("listxattr", nil, err)
	}
	ctx, done := fs.reading(in.Unique, cancel)
	defer done()
	if err := fs.refresh(ctx, n, false); err != nil {
		return 0, fs.status("listxattr", n, err)
	}
	var names []string
	for name := range n.stored().Xattr {
		names = append(names, name+"\x00")
	}
	slices.Sort(names)
	return fill(dest, []byte(strings.Join(names, "")))
}

// fill answers with a value, or with its size when there is no room: the caller
// asks for the size with an empty buffer.
func fill(dest, value []byte) (uint32, gofuse.Status) {
	if len(dest) < len(value) {
		return uint32(len(value)), gofuse.ERANGE
	}
	return uint32(copy(dest, value)), gofuse.OK
}

// SetXAttr implements gofuse.RawFileSystem.
func (fs *FS) SetXAttr(_ <-chan struct{}, in *gofuse.SetXAttrIn, name string, value []byte) gofuse.Status {
	if len(value) > maxXattr {
		return gofuse.Status(syscall.E2BIG)
	}
	return fs.changeXattr("setxattr", in.NodeId, name, func(attrs map[string][]byte) error {
		_, there := attrs[name]
		switch {
		case in.Flags&xattrCreate != 0 && there:
			return storage.Errorf(storage.Exists, "attribute %q exists", name)
		case in.Flags&xattrReplace != 0 && !there:
			return storage.Errorf(storage.NoData, "no attribute %q", name)
		}
		attrs[name] = slices.Clone(value)
		return nil
	})
}

// RemoveXAttr implements gofuse.RawFileSystem.
func (fs *FS) RemoveXAttr(_ <-chan struct{}, in *gofuse.InHeader, name string) gofuse.Status {
	return fs.changeXattr("removexattr", in.NodeId, name, func(attrs map[string][]byte) error {
		if _, ok := attrs[name]; !ok {
			return storage.Errorf(storage.NoData, "no attribute %q", name)
		}
		delete(attrs, name)
		return nil
	})
}

func (fs *FS) changeXattr(op string, id uint64, name string, edit func(map[string][]byte) error) gofuse.Status {
	n, err := fs.node(id)
	if err != nil {
		return fs.status(op, nil, err)
	}
	if err := fs.writable(); err != nil {
		return fs.status(op, n, err)
	}
	if !servedXattr(name) {
		return gofuse.Status(syscall.ENOTSUP)
	}
	ctx, done := fs.changing()
	defer done()
	end, err := n.begin(ctx)
	if err != nil {
		return fs.status(op, n, err)
	}
	defer end()
	if err := fs.commitInTurn(ctx, n); err != nil {
		return fs.status(op, n, err)
	}
	if err := fs.refresh(ctx, n, false); err != nil {
		return fs.status(op, n, err)
	}
	var refusal error
	err = fs.change(ctx, n, func(e *storage.Entry) {
		if e.Xattr == nil {
			e.Xattr = map[string][]byte{}
		}
		refusal = edit(e.Xattr)
		e.Ctime = time.Now()
	})
	if refusal != nil {
		err = refusal
	}
	return fs.status(op, n, err)
}
