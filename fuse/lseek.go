package fuse

import (
	"sort"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
)

// Of linux/fs.h. The kernel answers the others itself.
const (
	seekData = 3
	seekHole = 4
)

// Lseek implements gofuse.RawFileSystem: where the next bytes are, or the next
// hole; the end of the file counts as one.
func (fs *FS) Lseek(_ <-chan struct{}, in *gofuse.LseekIn, out *gofuse.LseekOut) gofuse.Status {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return fs.status("lseek", nil, err)
	}
	if in.Whence != seekData && in.Whence != seekHole {
		return gofuse.EINVAL
	}
	spans, size := n.filled()
	off := int64(in.Offset)
	if off < 0 || off >= size {
		return gofuse.Status(syscall.ENXIO)
	}
	i := sort.Search(len(spans), func(i int) bool { return spans[i].to > off })
	inside := i < len(spans) && spans[i].from <= off
	switch {
	case in.Whence == seekHole && inside:
		off = min(spans[i].to, size)
	case in.Whence == seekData && !inside && i == len(spans):
		return gofuse.Status(syscall.ENXIO)
	case in.Whence == seekData && !inside:
		off = spans[i].from
	}
	out.Offset = uint64(off)
	return gofuse.OK
}
