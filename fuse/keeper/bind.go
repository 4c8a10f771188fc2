package keeper

import (
	"context"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file shows a session at one more directory. mount(8) with its bind option
// was the alternative: a program to ship, and two steps for a read-only one.

func (k *Keeper) bind(ctx context.Context, r BindRequest) error {
	if err := r.Validate(); err != nil {
		return err
	}
	leave, err := k.lock(ctx, r.Target, r.ID)
	if err != nil {
		return err
	}
	defer leave()
	s := k.get(r.ID)
	if s == nil {
		all, err := mounts()
		if err != nil {
			return err
		}
		if err := k.elsewhere(ctx, r.ID, all); err != nil {
			return err
		}
		return storage.Errorf(storage.NotFound, "there is no session %s", r.ID)
	}
	path, dev := s.where()
	if dev == "" || s.dead() {
		return storage.Errorf(storage.Unavailable, "session %s is dead: mount it again", r.ID)
	}
	p, all, err := k.vacate(ctx, r.Target, s)
	if err != nil {
		return err
	}
	defer p.close()
	want := r.BindOptions
	want.ReadOnly = want.ReadOnly || s.readOnly
	if m, mounted := at(all, p); mounted {
		if m.options != want || m.path == path {
			return storage.Errorf(storage.Exists, "path %s: session %s is mounted there with other options", r.Target, r.ID)
		}
		return nil
	}
	if err := k.allow(p, all); err != nil {
		return err
	}
	tree, err := k.clone(ctx, s, path, dev, all)
	if err != nil {
		return err
	}
	defer closeAll([]int{tree})
	var attr uint64
	if want.ReadOnly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	if want.NoExec {
		attr |= unix.MOUNT_ATTR_NOEXEC
	}
	if attr != 0 {
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: attr}); err != nil {
			return pathError(p.path, err)
		}
	}
	if err := k.show(ctx, s, tree, p); err != nil {
		return err
	}
	k.log.Info("bound", "volume", s.id, "path", r.Target)
	return nil
}

// clone returns a detached copy of a session's own mount.
func (k *Keeper) clone(ctx context.Context, s *session, path, dev string, all []mount) (int, error) {
	return bounded(ctx, pathTimeout, "open "+path, func() (int, error) {
		fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: noLinks})
		if err != nil {
			return -1, pathError(path, err)
		}
		defer closeAll([]int{fd})
		id, err := mountID(fd)
		if err != nil {
			return -1, err
		}
		if !slices.ContainsFunc(all, func(m mount) bool { return m.id == id && m.dev == dev }) {
			return -1, storage.Errorf(storage.Unavailable, "session %s is no longer seen at %s", s.id, path)
		}
		tree, err := unix.OpenTree(fd, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return -1, pathError(path, err)
		}
		return tree, nil
	}, func(fd int) { closeAll([]int{fd}) })
}
