package fuse

import (
	"context"
	"errors"
	"slices"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
)

// errnos turns kinds into what system calls return. A test demands that every
// kind is in it.
var errnos = map[storage.Kind]syscall.Errno{
	storage.Other:        syscall.EIO,
	storage.NotFound:     syscall.ENOENT,
	storage.Exists:       syscall.EEXIST,
	storage.Invalid:      syscall.EINVAL,
	storage.OutOfRange:   syscall.EINVAL,
	storage.Denied:       syscall.EACCES,
	storage.Busy:         syscall.EBUSY,
	storage.InUse:        syscall.EBUSY,
	storage.Full:         syscall.ENOSPC,
	storage.Stale:        syscall.ESTALE,
	storage.Changed:      syscall.ESTALE,
	storage.Corrupt:      syscall.EIO,
	storage.Unavailable:  syscall.EIO,
	storage.Unsupported:  syscall.ENOTSUP,
	storage.NotDirectory: syscall.ENOTDIR,
	storage.IsDirectory:  syscall.EISDIR,
	storage.NotEmpty:     syscall.ENOTEMPTY,
	storage.NotPermitted: syscall.EPERM,
	storage.ReadOnly:     syscall.EROFS,
	storage.NoData:       syscall.ENODATA,
	storage.CrossDevice:  syscall.EXDEV,
	storage.TooLong:      syscall.ENAMETOOLONG,
	storage.TooManyLinks: syscall.EMLINK,
	storage.Loop:         syscall.ELOOP,
}

// quiet are refusals that are an ordinary answer: not worth a line in the log.
var quiet = []storage.Kind{
	storage.NotFound, storage.Exists, storage.NotEmpty, storage.NotDirectory, storage.IsDirectory, storage.NoData,
	storage.NotPermitted, storage.ReadOnly, storage.TooLong, storage.Invalid, storage.Unsupported,
}

// status turns err into the answer to the kernel, and logs what somebody may
// have to look at.
func (fs *FS) status(op string, n *node, err error) gofuse.Status {
	switch {
	case err == nil:
		return gofuse.OK
	case errors.Is(err, context.Canceled):
		return gofuse.EINTR
	case errors.Is(err, context.DeadlineExceeded):
		fs.log.Warn("operation took too long", "op", op, "node", n.nodeID(), "err", err)
		return gofuse.EIO
	}
	kind := storage.KindOf(err)
	if !slices.Contains(quiet, kind) && !errors.Is(err, errVolumeFull) && fs.opts.Fence.Lost() == nil { // that was told
		fs.log.Warn("operation failed", "op", op, "node", n.nodeID(), "kind", kind.String(), "err", err)
	}
	return gofuse.Status(errnos[kind])
}
