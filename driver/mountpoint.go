package driver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/moby/sys/mountinfo"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file looks at the folders that the kubelet names. What is a mount point is
// asked of the mount table and never by stat: on a mount that nobody serves, even
// lstat waits. The table also decides whether a folder may be removed, and only
// rmdir removes: a recursive removal would go through a live mount into a
// tenant's data.

// MountTable is the kernel's list of mounts.
type MountTable interface {
	// Mounted reports whether path is a mount point, and with which options.
	Mounted(path string) (mounted bool, o BindOptions, err error)
	// Context is the SELinux context that what is mounted at path was mounted with,
	// empty without one.
	Context(path string) (string, error)
}

// kernelTable reads /proc/self/mountinfo.
type kernelTable struct{}

// Mounted implements MountTable. The last line is the topmost mount.
func (kernelTable) Mounted(path string) (mounted bool, o BindOptions, err error) {
	path = realPath(path)
	list, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) { return i.Mountpoint != path, false })
	if err != nil {
		return false, BindOptions{}, fmt.Errorf("read the mount table: %w", err)
	}
	if len(list) == 0 {
		return false, BindOptions{}, nil
	}
	has := strings.Split(list[len(list)-1].Options, ",")
	return true, BindOptions{ReadOnly: slices.Contains(has, "ro"), NoExec: slices.Contains(has, "noexec")}, nil
}

// Context implements MountTable.
func (kernelTable) Context(path string) (string, error) {
	path = realPath(path)
	list, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) { return i.Mountpoint != path, false })
	if err != nil {
		return "", fmt.Errorf("read the mount table: %w", err)
	}
	if len(list) == 0 {
		return "", nil
	}
	return contextIn(list[len(list)-1].VFSOptions), nil
}

// contextIn finds it among the options of a file system, where it has double quotes if
// there is a comma in it.
func contextIn(options string) string {
	return contextOf(&csi.VolumeCapability{AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{MountFlags: []string{options}}}})
}

// realPath resolves the links of the parent. The last element may be a mount
// that does not answer, so it is not looked at; makeDir has refused links there.
func realPath(path string) string {
	path = filepath.Clean(path)
	if parent, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(parent, filepath.Base(path))
	}
	return path
}

func samePath(a, b string) bool {
	return filepath.Clean(a) == filepath.Clean(b) || realPath(a) == realPath(b)
}

// makeDir makes sure that path is a folder that is no mount point, and reports
// whether it made it. Its parent has to be there.
func (n *Node) makeDir(what, path string) (made bool, err error) {
	err = os.Mkdir(path, 0o750)
	if err == nil {
		return true, nil
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return false, storage.Errorf(storage.Invalid, "the %s %s: its parent is no folder", what, path)
	}
	if !errors.Is(err, fs.ErrExist) {
		return false, fmt.Errorf("make the %s: %w", what, err)
	}
	have, err := os.Lstat(path)
	if err != nil {
		return false, fmt.Errorf("look at the %s: %w", what, err)
	}
	if !have.IsDir() {
		return false, storage.Errorf(storage.Invalid, "the %s %s is no folder", what, path)
	}
	return false, nil
}

// removeDir removes an empty folder that is no mount point. A missing one is
// fine.
func (n *Node) removeDir(path string) error {
	mounted, _, err := n.table.Mounted(path)
	if err != nil {
		return err
	}
	if mounted {
		return storage.Errorf(storage.InUse, "%s is still a mount point", path)
	}
	switch err := syscall.Rmdir(path); {
	case err == nil, errors.Is(err, syscall.ENOENT):
		return nil
	case errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, syscall.EEXIST):
		return storage.Errorf(storage.InUse, "%s is not mounted and has content of its own: look at it and remove it by hand", path)
	case errors.Is(err, syscall.EBUSY):
		return storage.Errorf(storage.InUse, "%s is busy", path)
	case errors.Is(err, syscall.ENOTDIR):
		return storage.Errorf(storage.Invalid, "%s is no folder", path)
	default:
		return fmt.Errorf("remove the folder %s: %w", path, err)
	}
}
