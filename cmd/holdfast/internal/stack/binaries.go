package stack

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/state"
)

// binaries are the programs that are started.
type binaries struct {
	holdfast, mount, weed string
}

// FindMount returns holdfast-mount, which lies beside this program.
func FindMount() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(self), "holdfast-mount")
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return "", fmt.Errorf("holdfast-mount is not beside %s", self)
	}
	return path, nil
}

// findBinaries names the programs, or copies of them where the services, which
// run as other users, cannot reach the originals.
func findBinaries(dir state.Dir, weed string) (binaries, error) {
	mount, err := FindMount()
	if err != nil {
		return binaries{}, err
	}
	b := binaries{holdfast: filepath.Join(filepath.Dir(mount), "holdfast"), mount: mount, weed: weed}
	self, err := os.Executable()
	if err != nil {
		return binaries{}, err
	}
	b.holdfast = self
	if os.Getuid() != 0 {
		return b, nil
	}
	for _, path := range []*string{&b.holdfast, &b.mount, &b.weed} {
		if err := reachable(dir, path); err != nil {
			return binaries{}, err
		}
	}
	return b, nil
}

// reachable replaces path by a copy below the state, if others may not run it
// where it is.
func reachable(dir state.Dir, path *string) error {
	info, err := os.Stat(*path)
	if err != nil {
		return err
	}
	if state.Closed(filepath.Dir(*path)) == "" && info.Mode().Perm()&0o005 == 0o005 {
		return nil
	}
	if err := os.MkdirAll(dir.Bin(), 0o755); err != nil {
		return err
	}
	to := filepath.Join(dir.Bin(), filepath.Base(*path))
	if old, err := os.Stat(to); err != nil || old.Size() != info.Size() || !old.ModTime().Equal(info.ModTime()) {
		if err := copyProgram(*path, to, info); err != nil {
			return fmt.Errorf("copy %s to where the services can run it: %w", *path, err)
		}
	}
	*path = to
	return nil
}

// copyProgram replaces to as a whole: the old one may be running.
func copyProgram(from, to string, info fs.FileInfo) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.CreateTemp(filepath.Dir(to), ".new-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(out.Name())
		}
	}()
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Chmod(0o755), out.Close()); err != nil {
		return err
	}
	if err := os.Chtimes(out.Name(), info.ModTime(), info.ModTime()); err != nil {
		return err
	}
	return os.Rename(out.Name(), to)
}
