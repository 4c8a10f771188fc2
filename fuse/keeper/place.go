package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file turns a path that somebody sent into a directory that is held by a
// descriptor, so that what is checked is what is mounted on. The allowed roots
// are the administrator's word and may be reached over symbolic links
// (/var/lib/kubelet often is one); below them there may be none.

// pathTimeout bounds a walk: it may lead through a file system that hangs.
const pathTimeout = 5 * time.Second

// place is an existing directory.
type place struct {
	fd      int    // O_PATH; it keeps a mount busy, so it is closed before umount
	path    string // as mountinfo writes it
	mount   int    // the id of the mount that it is on, or the root of
	beneath bool   // of an allowed root
}

func (p *place) close() {
	if p != nil && p.fd >= 0 {
		_ = unix.Close(p.fd)
		p.fd = -1
	}
}

const noLinks = unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// resolve walks to a directory.
func (k *Keeper) resolve(ctx context.Context, path string) (*place, error) {
	return bounded(ctx, pathTimeout, "walk to "+path, func() (*place, error) { return k.walk(path) }, (*place).close)
}

func (k *Keeper) walk(path string) (*place, error) {
	p := &place{fd: -1}
	dir, rel, flags := unix.AT_FDCWD, path, uint64(noLinks)
	for _, root := range k.opts.AllowRoots {
		below, ok := strings.CutPrefix(path, root+"/")
		if !ok {
			continue
		}
		fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, pathError(root, err)
		}
		defer func() { _ = unix.Close(fd) }()
		dir, rel, flags, p.beneath = fd, below, noLinks|unix.RESOLVE_BENEATH, true
		break
	}
	fd, err := unix.Openat2(dir, rel, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: flags})
	if err != nil {
		return nil, pathError(path, err)
	}
	p.fd = fd
	if p.mount, err = mountID(fd); err == nil {
		p.path, err = os.Readlink(fdPath(fd))
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("path %s: %w", path, err)
	}
	return p, nil
}

// allow says whether the node may have something mounted at p, which is not a
// mount point.
func (k *Keeper) allow(p *place, all []mount) error {
	if p.beneath {
		return nil
	}
	if k.opts.NodeUID != 0 {
		for _, m := range all {
			if m.id == p.mount && strings.HasPrefix(m.fsType, "fuse") {
				return storage.Errorf(storage.Denied, "path %s: lies inside a FUSE mount", p.path)
			}
		}
		var st unix.Stat_t
		if err := unix.Fstat(p.fd, &st); err != nil {
			return pathError(p.path, err)
		}
		if int(st.Uid) == k.opts.NodeUID {
			return nil
		}
	}
	return storage.Errorf(storage.Denied, "path %s: lies beneath none of the keeper's allowed roots (%s), nor is it a directory of an unprivileged node's own", p.path, strings.Join(k.opts.AllowRoots, ", "))
}

func pathError(path string, err error) error {
	kind := storage.Other
	why := error(err)
	switch {
	case errors.Is(err, unix.ENOENT):
		kind = storage.NotFound
	case errors.Is(err, unix.ENOTDIR):
		kind = storage.NotDirectory
	case errors.Is(err, unix.ELOOP):
		kind, why = storage.Denied, errors.New("leads over a symbolic link")
	case errors.Is(err, unix.EXDEV):
		kind, why = storage.Denied, errors.New("leads out of the allowed root")
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		kind = storage.Denied
	case errors.Is(err, unix.ENOSYS):
		kind, why = storage.Unsupported, errors.New("the kernel has no openat2 (5.6 or newer is needed)")
	case errors.Is(err, unix.ENOTCONN):
		kind, why = storage.Unavailable, errors.New("lies inside a FUSE mount whose server is gone")
	}
	return storage.Errorf(kind, "path %s: %w", path, why)
}

// split opens the folder of a path, for unmounting the last element: it is not
// followed, and nothing of it is asked.
func split(path string) (dir int, name string, err error) {
	parent, name := filepath.Split(path)
	dir, err = unix.Openat2(unix.AT_FDCWD, filepath.Clean(parent), &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: noLinks})
	if err != nil {
		return -1, "", pathError(parent, err)
	}
	return dir, name, nil
}

// bounded runs something that may hang in the kernel in a goroutine of its own
// and leaves it behind at the deadline; dispose then gets its late result.
func bounded[T any](ctx context.Context, d time.Duration, what string, f func() (T, error), dispose func(T)) (T, error) {
	type result struct {
		value T
		err   error
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil && dispose != nil {
				dispose(r.value)
			}
		}()
		var zero T
		return zero, fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
}
