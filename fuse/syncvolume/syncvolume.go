// Package syncvolume asks a mount to bring all that was written to the cluster.
//
// Owns: the request, an ioctl(2) on any file or folder of the mount. So it needs no
// way to the mounter but the mount itself, and nobody's rights but those to open it.
//
// Never: what a mount does then (fuse).
package syncvolume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// Command is the request, _IO('H', 1). The answer is EAGAIN while it goes on: ask
// again.
const Command = 'H'<<8 | 1

// Sync returns when all that was written before in the volume of the file or folder
// at path is in the cluster. Invalid when that is no volume of ours.
func Sync(ctx context.Context, path string) error {
	done := make(chan error, 1)
	go func() { done <- ask(ctx, path) }() // a mount may answer late, and a process can end before
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("sync the volume at %s: %w", path, ctx.Err())
	}
}

func ask(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO would wait
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), Command, 0)
		switch {
		case errno == 0:
			return nil
		case (errno == unix.EAGAIN || errno == unix.EINTR) && ctx.Err() == nil:
		case errno == unix.ENOTTY || errno == unix.ENOSYS || errno == unix.EINVAL:
			return storage.Errorf(storage.Invalid, "%s is no volume of Holdfast, or one whose mounter is of a version before this command", path)
		case errors.Is(errno, syscall.ESTALE):
			return storage.Errorf(storage.Stale, "sync the volume at %s: a file was replaced by somebody else, or this node has lost the volume; what cannot be brought is kept on this node, and the mounter's log says where: %w", path, errno)
		default:
			return fmt.Errorf("sync the volume at %s: the mounter's log says which file could not be brought: %w", path, errno)
		}
	}
}
