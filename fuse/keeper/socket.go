package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file makes and dials the sockets. Both go through a descriptor of the
// folder: a socket's address holds 107 bytes, folders of the kubelet and of users
// are often longer, and the keeper must not be led elsewhere between two steps.

// dial connects to a socket. Unavailable when nobody listens.
func dial(ctx context.Context, path string) (*net.UnixConn, error) {
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, storage.Errorf(storage.Unavailable, "no keeper at %s: %w", path, err)
	}
	defer func() { _ = unix.Close(dir) }()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixpacket", within(dir, filepath.Base(path)))
	if err != nil {
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("connect to %s: %w", path, context.Cause(ctx))
		case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
			return nil, storage.Errorf(storage.Denied, "connect to %s: %w", path, unix.EACCES)
		}
		return nil, storage.Errorf(storage.Unavailable, "no keeper listens at %s: %w", path, errors.Unwrap(err))
	}
	socket, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, storage.Errorf(storage.Other, "connect to %s: not a unix socket", path)
	}
	return socket, nil
}

// listen makes a socket in a folder that only uid (and root) may connect to, in
// place of what a dead keeper left. It gets its name when it is ready: a mounter
// that comes back must not find a door that is not yet its own.
func listen(ctx context.Context, dir int, name string, uid int) (*net.UnixListener, error) {
	fresh := name + ".new"
	for _, n := range []string{name, fresh} {
		if err := onlySocket(dir, n); err != nil {
			return nil, err
		}
	}
	if err := unix.Unlinkat(dir, fresh, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("remove the old socket %s: %w", fresh, err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unixpacket", within(dir, fresh))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", name, err)
	}
	listener, ok := l.(*net.UnixListener)
	if !ok {
		_ = l.Close()
		return nil, storage.Errorf(storage.Other, "listen on %s: not a unix socket", name)
	}
	// The path that Go would unlink goes through a descriptor that is gone then.
	listener.SetUnlinkOnClose(false)
	if err = own(dir, fresh, uid); err == nil {
		err = unix.Renameat(dir, fresh, dir, name)
	}
	if err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("socket %s: %w", name, err)
	}
	return listener, nil
}

// onlySocket refuses a name that something else than a socket has.
func onlySocket(dir int, name string) error {
	var st unix.Stat_t
	switch err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return fmt.Errorf("socket %s: %w", name, err)
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return storage.Errorf(storage.Exists, "%s: there is something that is no socket", name)
	}
	return nil
}

// own gives the fresh socket to uid, mode 0600. The folder may belong to an
// unprivileged user who could have put something else in its place, so it is
// held by a descriptor and must be a socket with one name that is ours. The
// gate is SO_PEERCRED on each connection; this keeps others from trying.
func own(dir int, name string, uid int) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket %s: %w", name, err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("socket %s: %w", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK || st.Nlink != 1 || int(st.Uid) != unix.Geteuid() {
		return storage.Errorf(storage.Denied, "socket %s: was replaced by something else", name)
	}
	if err := unix.Chmod(fdPath(fd), 0o600); err != nil {
		return fmt.Errorf("socket %s: %w", name, err)
	}
	if uid != unix.Geteuid() {
		if err := unix.Fchownat(fd, "", uid, -1, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("socket %s: %w", name, err)
		}
	}
	return nil
}

// lock keeps a second keeper out of the folder. It ends with the process.
func lock(dir int) (int, error) {
	fd, err := unix.Openat(dir, "keeper.lock", unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, fmt.Errorf("keeper.lock: %w", err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = unix.Close(fd)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return -1, storage.Errorf(storage.InUse, "another keeper works in this run folder")
		}
		return -1, fmt.Errorf("keeper.lock: %w", err)
	}
	return fd, nil
}

// fdPath names an open file by its descriptor.
func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// within names a file in a folder that is held by a descriptor.
func within(dir int, name string) string { return fdPath(dir) + "/" + name }

// poll calls done, after a moment that grows to 20 ms, until it says true or ctx
// ends.
func poll(ctx context.Context, done func() bool) error {
	wait := time.Millisecond
	for !done() {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
		wait = min(2*wait, 20*time.Millisecond)
	}
	return nil
}
