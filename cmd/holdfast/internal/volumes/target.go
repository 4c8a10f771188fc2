package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// target makes dir absolute and resolves links in all but its last element. It
// does not touch the last one: a mount whose server hangs may be there.
func target(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if abs == "/" {
		return "", errors.New("a volume cannot be mounted at /")
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s cannot be made: its parent folder does not exist", dir)
	}
	if err != nil {
		return "", err
	}
	return filepath.Join(parent, filepath.Base(abs)), nil
}

// mounted returns what is mounted at path, from the kernel's list, or nil.
func mounted(path string) (*mountinfo.Info, error) {
	infos, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(path))
	if err != nil || len(infos) == 0 {
		return nil, err
	}
	return infos[len(infos)-1], nil
}

// makeTarget sees to it that path is a directory where the caller may mount. It
// reports whether it made it.
func makeTarget(path string, uid int) (made bool, err error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.Mkdir(path, 0o755); err != nil {
			return false, err
		}
		return true, nil
	}
	if err != nil {
		return false, err
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return false, fmt.Errorf("%s is a symbolic link: name the folder itself", path)
	case !info.IsDir():
		return false, fmt.Errorf("%s is a file: a volume can be mounted on a folder only", path)
	case uid != 0 && int(info.Sys().(*syscall.Stat_t).Uid) != uid:
		return false, fmt.Errorf("%s belongs to uid %d: you may mount on folders of your own only", path, info.Sys().(*syscall.Stat_t).Uid)
	}
	return false, nil
}

// unmakeTarget takes away what makeTarget made. Only an empty directory goes,
// and never one that is a mount: rmdir(2) refuses both.
func unmakeTarget(path string) error {
	err := unix.Rmdir(path)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}
