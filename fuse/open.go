package fuse

import (
	"slices"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
)

// Open implements gofuse.RawFileSystem. Close-to-open: what another mount or S3
// has committed by now is seen. The kernel keeps its cached pages when the
// content is still the one that they came from.
func (fs *FS) Open(_ <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return fs.status("open", nil, err)
	}
	write := in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY
	if write {
		if err := fs.writable(); err != nil {
			return fs.status("open", n, err)
		}
	}
	ctx, done := fs.changing()
	defer done()
	if err := fs.refresh(ctx, n, true); err != nil {
		return fs.status("open", n, err)
	}
	if !write {
		out.OpenFlags |= gofuse.FOPEN_NOFLUSH
	}
	n.mu.Lock()
	now := contentOf(n.mu.entry)
	if slices.Equal(now, n.mu.opened) {
		out.OpenFlags |= gofuse.FOPEN_KEEP_CACHE
	}
	n.mu.opened = now
	n.mu.Unlock()
	fs.table.open(n, in.Unique)
	return gofuse.OK
}
