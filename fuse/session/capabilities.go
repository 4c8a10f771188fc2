package session

import (
	"log/slog"
	"runtime/debug"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// This file is everything that is agreed with the kernel in INIT. It stays the
// same for the life of a session, over all the processes that serve it; a new
// version that changes it does so for new sessions only (see replay.go).

const (
	// MaxWrite is the largest WRITE, and by the mount option max_read the largest
	// READ. 1 MiB is what kernels give without a host-wide sysctl; it costs a
	// third less CPU for each byte than 128 KiB.
	MaxWrite = 1 << 20

	// MaxBackground bounds what the kernel asks in the background (read-ahead,
	// asynchronous direct I/O). The default of 12 leaves a network idle.
	MaxBackground = 64

	// requestRoom is what a READ of /dev/fuse needs behind MaxWrite: the kernel
	// wants its header and one page at least, names and extensions more.
	requestRoom = 64 << 10
)

// extraCapabilities are asked for beside go-fuse's defaults (ASYNC_READ,
// BIG_WRITES, READDIRPLUS, PARALLEL_DIROPS, MAX_PAGES, PASSTHROUGH,
// AUTO_INVAL_DATA, NO_OPEN_SUPPORT).
const extraCapabilities = 0 |
	// Direct I/O of one request is split and sent in parallel.
	fuse.CAP_ASYNC_DIO |
	// A successor may ask for what was read and never answered.
	fuse.CAP_HAS_RESEND |
	// A plain ls of a large directory does not fill the inode cache.
	fuse.CAP_READDIRPLUS_AUTO

// Left out on purpose:
//
//   - CAP_WRITEBACK_CACHE: a write(2) would be acknowledged while only the
//     kernel has the bytes, and the connection's end would lose them.
//   - CAP_HANDLE_KILLPRIV_V2: saves a GETXATTR for each write, but then the file
//     system must clear set-id bits itself. Turn it on together with that.
//   - CAP_POSIX_LOCKS, CAP_FLOCK_LOCKS (EnableLocks): locks are the kernel's,
//     local to the node.
//   - CAP_OVER_IO_URING, CAP_REQUEST_TIMEOUT: each ends requests or the whole
//     connection when a process dies or is late.
//   - CAP_CACHE_SYMLINKS, CAP_EXPLICIT_INVAL_DATA: need a notification for every
//     foreign change, without exception.

// mountOptions returns what is offered for a new session.
func mountOptions(log *slog.Logger) *fuse.MountOptions {
	return &fuse.MountOptions{
		Name:              "holdfast",
		MaxWrite:          MaxWrite,
		MaxBackground:     MaxBackground,
		ExtraCapabilities: extraCapabilities,
		// For pods with a user namespace of their own (FUSE_ALLOW_IDMAP, Linux 6.12). From
		// then on the kernel sends the caller's ids only with what makes an inode, by any
		// mount, and -1 with all else: nothing here may ask for them.
		IDMappedMount: true,
		// ProtocolServer has no pipe to splice from.
		DisableSplice: true,
		Logger:        slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		PanicHandler: func(cause any) fuse.Status {
			log.Error("a file system operation panicked", "err", cause, "stack", string(debug.Stack()))
			return fuse.EIO
		},
	}
}
