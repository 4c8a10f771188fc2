package state

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// This file takes a state away. A walk by path with os.RemoveAll was the
// alternative, and other drivers have deleted their users' data that way: it
// goes into a mount that it did not expect. Here the kernel refuses every step
// into another mount, bind mounts of the same device included.

// known is all that a state consists of. What else lies in the folder is not
// ours and stays. The locks in run/ go last.
var known = []string{
	"mounts", "staging", "mounter", "cluster", "pki", "bin", "logs", "admin.json", "config.json", "run",
}

// MountsBelow returns what is mounted at path or below it.
func MountsBelow(path string) ([]string, error) {
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(path))
	if err != nil {
		return nil, err
	}
	var points []string
	for _, m := range infos {
		if m.Mountpoint == path || strings.HasPrefix(m.Mountpoint, strings.TrimSuffix(path, "/")+"/") {
			points = append(points, m.Mountpoint)
		}
	}
	return points, nil
}

// Remove deletes the state with all data, unless something is mounted below. The
// folder itself goes too if nothing else lies in it.
func (d Dir) Remove() error {
	points, err := MountsBelow(string(d))
	if err != nil {
		return err
	}
	for _, p := range points {
		// The folder may be a disk of its own.
		if p != string(d) {
			return fmt.Errorf("%s is not deleted: %s is still mounted", d, p)
		}
	}
	root, err := os.Open(string(d))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for _, name := range known {
		if err := removeAt(root, name); err != nil {
			return fmt.Errorf("delete %s: %w", d, err)
		}
	}
	err = unix.Rmdir(string(d))
	for _, kept := range []error{unix.ENOTEMPTY, unix.EBUSY, unix.EACCES} {
		if errors.Is(err, kept) {
			return nil
		}
	}
	return err
}

// removeAt deletes name below parent and never leaves parent's mount. A missing
// one is fine.
func removeAt(parent *os.File, name string) error {
	at := int(parent.Fd())
	err := unix.Unlinkat(at, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	// A directory is EISDIR (Linux) or EPERM (POSIX); EPERM can be more.
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%s/%s: %w", parent.Name(), name, err)
	}
	fd, err := unix.Openat2(at, name, &unix.OpenHow{
		Flags:   unix.O_DIRECTORY | unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH,
	})
	if err != nil {
		return fmt.Errorf("%s/%s: %w", parent.Name(), name, err)
	}
	dir := os.NewFile(uintptr(fd), parent.Name()+"/"+name)
	defer func() { _ = dir.Close() }()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := removeAt(dir, n); err != nil {
			return err
		}
	}
	if err := unix.Unlinkat(at, name, unix.AT_REMOVEDIR); err != nil {
		return fmt.Errorf("%s: %w", dir.Name(), err)
	}
	return nil
}
