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

// folder is what a target was before it was mounted on. The driver removes the
// target when it unmounts, as CSI has it, so it is made again from this.
type folder struct {
	// Made says that we made it: it goes with the mount.
	Made bool        `json:"made,omitempty"`
	Mode fs.FileMode `json:"mode"`
	UID  int         `json:"uid"`
	GID  int         `json:"gid"`
}

// prepareTarget sees to it that path is an empty directory where the caller may
// mount.
func prepareTarget(path string, uid int) (folder, error) {
	err := os.Mkdir(path, 0o755)
	made := err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return folder{}, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return folder{}, err
	}
	st := info.Sys().(*syscall.Stat_t)
	f := folder{Made: made, Mode: info.Mode().Perm(), UID: int(st.Uid), GID: int(st.Gid)}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return f, fmt.Errorf("%s is a symbolic link: name the folder itself", path)
	case !info.IsDir():
		return f, fmt.Errorf("%s is a file: a volume can be mounted on a folder only", path)
	case uid != 0 && f.UID != uid:
		return f, fmt.Errorf("%s belongs to uid %d: you may mount on folders of your own only", path, f.UID)
	}
	entries, err := os.ReadDir(path)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%s is not empty: a mount would hide what is in it", path)
	}
	return f, err
}

// restore puts the folder back as it was after an unmount.
func (f folder) restore(path string) error {
	if f.Made {
		return remove(path)
	}
	return f.keep(path)
}

// keep sees to it that the folder is there.
func (f folder) keep(path string) error {
	err := os.Mkdir(path, f.Mode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(os.Lchown(path, f.UID, f.GID), os.Chmod(path, f.Mode))
}

// remove takes a directory away, unless somebody has put something there. It never
// is one that is a mount: rmdir(2) refuses that.
func remove(path string) error {
	err := unix.Rmdir(path)
	for _, fine := range []error{unix.ENOENT, unix.ENOTEMPTY, unix.EEXIST} {
		if errors.Is(err, fine) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}
