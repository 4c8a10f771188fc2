package keeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file takes mounts away, and finds out whether one is dead.

const (
	// probeTimeout: a dead session answers at once, an unserved one never.
	probeTimeout = 2 * time.Second
	// umountTimeout: the kernel may write back what was changed through mmap.
	umountTimeout = 30 * time.Second
)

// umount takes away one mount, which must be the one on top at its path. With
// MNT_DETACH it goes even if it is in use: for dead sessions only.
func umount(ctx context.Context, m mount, flags int) error {
	_, err := bounded(ctx, umountTimeout, "unmount "+m.path, func() (struct{}, error) {
		return struct{}{}, umountNow(m, flags)
	}, nil)
	return err
}

func umountNow(m mount, flags int) error {
	dir, name, err := split(m.path)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dir) }()
	if err := onTop(dir, name, m); err != nil {
		return err
	}
	switch err := unix.Unmount(within(dir, name), flags|unix.UMOUNT_NOFOLLOW); {
	case err == nil:
		return nil
	case errors.Is(err, unix.EBUSY):
		return storage.Errorf(storage.InUse, "unmount %s: somebody works there (open files, a working folder or a mount inside)", m.path)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
		return nil // it was gone already
	default:
		return fmt.Errorf("unmount %s: %w", m.path, err)
	}
}

// onTop checks that m is what stands at its path now.
func onTop(dir int, name string, m mount) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return pathError(m.path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	id, err := mountID(fd)
	if err != nil {
		return err
	}
	if id != m.id {
		return storage.Errorf(storage.Busy, "path %s: something else is mounted there now", m.path)
	}
	return nil
}

// dead reports whether the session behind a mount that the keeper does not hold
// has ended. One that hangs is not dead: somebody else holds it.
func (k *Keeper) dead(ctx context.Context, m mount) bool {
	if _, hangs := k.probes.LoadOrStore(m.id, struct{}{}); hangs {
		return false
	}
	state, err := bounded(ctx, probeTimeout, "probe "+m.path, func() (error, error) {
		defer k.probes.Delete(m.id)
		dir, name, err := split(m.path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = unix.Close(dir) }()
		fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		defer func() { _ = unix.Close(fd) }()
		if id, err := mountID(fd); err != nil || id != m.id {
			return nil, storage.Errorf(storage.Busy, "path %s: something is mounted over it", m.path)
		}
		var st unix.Statfs_t
		return unix.Fstatfs(fd, &st), nil
	}, nil)
	if err != nil {
		k.log.Debug("a mount's session could not be probed", "path", m.path, "err", err)
		return false
	}
	return errors.Is(state, unix.ENOTCONN) || errors.Is(state, unix.ECONNABORTED)
}
