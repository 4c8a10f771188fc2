package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/cluster/supervise"
	"github.com/holdfast-csi/holdfast/storage/cluster/wholefile"
)

// folder is a cluster's folder: what lies where.
//
//	VERSION   the build that writes it
//	lock      held while any process lives
//	conf      configuration, HOME and working directory of all processes
//	secret    what only we read
//	master, volume1, volume2, …, filer    data
//	run, tmp  sockets, temporary files
//	log       a log for each process
type folder string

func (d folder) path(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}
func (d folder) version() string           { return d.path("VERSION") }
func (d folder) lock() string              { return d.path("lock") }
func (d folder) conf() string              { return d.path("conf") }
func (d folder) secret() string            { return d.path("secret") }
func (d folder) data(name string) string   { return d.path(name) }
func (d folder) socket(name string) string { return d.path("run", name+".sock") }
func (d folder) tmp() string               { return d.path("tmp") }
func (d folder) log(name string) string    { return d.path("log", name+".log") }

// create makes the folder itself when it is missing, open just enough for user.
func (d folder) create(user *supervise.User) error {
	mode := fs.FileMode(0o700)
	if user != nil {
		mode = 0o711
	}
	if err := os.MkdirAll(filepath.Dir(string(d)), 0o755); err != nil {
		return fileError(err)
	}
	err := os.Mkdir(string(d), mode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = os.Chmod(string(d), mode) // whatever the umask
	}
	return fileError(err)
}

// claim checks that the folder, which we have locked, is new or was written by
// the same build, and marks a new one.
func (d folder) claim(volumeServers int) error {
	mark, err := os.ReadFile(d.version())
	switch {
	case err == nil:
		if got := strings.TrimSpace(string(mark)); got != Build {
			return storage.Errorf(storage.Unsupported, "folder %s was written by SeaweedFS %q, this is %q: another build must not open its data", d, got, Build)
		}
		beyond := d.data(volumeName(volumeServers))
		if _, err := os.Stat(beyond); err == nil {
			return storage.Errorf(storage.Invalid, "folder %s exists: with %d volume servers its data would be missing", beyond, volumeServers)
		}
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fileError(err)
	}
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return fileError(err)
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(d.lock()) && e.Name() != "lost+found" && !strings.HasPrefix(e.Name(), wholefile.TempPrefix) {
			return storage.Errorf(storage.Exists, "folder %s holds %s and no VERSION file: it is not a cluster's folder", d, e.Name())
		}
	}
	return writeFile(d.version(), []byte(Build+"\n"), 0o644, nil)
}

// prepare makes the sub-folders and gives user those that weed writes into.
func (d folder) prepare(volumeServers int, user *supervise.User) error {
	ours := []string{d.conf(), d.secret(), filepath.Dir(d.log(""))}
	theirs := []string{d.data(masterName), d.data(filerName), d.tmp(), filepath.Dir(d.socket(""))}
	for i := range volumeServers {
		theirs = append(theirs, d.data(volumeName(i)))
	}
	for _, dir := range append(ours, theirs...) {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fileError(err)
		}
	}
	if user == nil {
		return nil
	}
	if err := os.Chmod(d.conf(), 0o711); err != nil {
		return fileError(err)
	}
	for _, dir := range theirs {
		if err := giveTo(dir, *user); err != nil {
			return err
		}
	}
	return nil
}

// giveTo makes user the owner of a tree. Links are not followed. A start without
// a user may have left files of root's anywhere below, so all are looked at.
func giveTo(dir string, user supervise.User) error {
	return fileError(filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid == user.UID && st.Gid == user.GID {
			return nil
		}
		return os.Lchown(path, int(user.UID), int(user.GID))
	}))
}

// reach checks that user can get to path: every folder above must let it through,
// and path itself must grant want (a bit of rwx, 4, 2 or 1, or a sum of them).
func reach(path string, user supervise.User, want uint32) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fileError(err)
	}
	for at, need := path, want; ; at, need = filepath.Dir(at), 1 {
		var st unix.Stat_t
		if err := unix.Stat(at, &st); err != nil {
			return fileError(fmt.Errorf("%s: %w", at, err))
		}
		granted := st.Mode & 7
		switch {
		case st.Uid == user.UID:
			granted = st.Mode >> 6 & 7
		case st.Gid == user.GID:
			granted = st.Mode >> 3 & 7
		}
		if granted&need != need {
			return storage.Errorf(storage.Denied, "uid %d cannot use %s: %s has mode %04o; choose another place or open that one", user.UID, path, at, st.Mode&0o7777)
		}
		if at == "/" {
			return nil
		}
	}
}

// adoptPort renames the master's state, which weed keeps under the master's port,
// to the present port. Left behind, the master would give out volume numbers a
// second time, and with them chunk ids.
func (d folder) adoptPort(port int) error {
	now := filepath.Join(d.data(masterName), fmt.Sprintf("m%d", port))
	old, err := filepath.Glob(filepath.Join(d.data(masterName), "m[0-9]*"))
	if err != nil {
		return fmt.Errorf("folder %s: %w", d, err)
	}
	switch {
	case len(old) == 0 || len(old) == 1 && old[0] == now:
		return nil
	case len(old) > 1:
		return storage.Errorf(storage.Corrupt, "folder %s holds the state of %d masters, not one", d.data(masterName), len(old))
	}
	return fileError(os.Rename(old[0], now))
}

// space returns the bytes that weed could still write.
func (d folder) space() (free uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(string(d), &st); err != nil {
		return 0, fileError(fmt.Errorf("%s: %w", d, err))
	}
	return st.Bavail * uint64(st.Bsize), nil
}

// fileError classifies an error of the local file system; nil stays nil.
func fileError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return storage.Errorf(storage.Full, "%w", err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EROFS):
		return storage.Errorf(storage.Denied, "%w", err)
	case errors.Is(err, fs.ErrNotExist):
		return storage.Errorf(storage.NotFound, "%w", err)
	}
	return storage.Errorf(storage.Other, "%w", err)
}
