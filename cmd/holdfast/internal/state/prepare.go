package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Prepare makes the folder and what belongs below it, each with the owner that
// works there. What is there already is put right.
func (d Dir) Prepare(a Accounts) error {
	uid := os.Getuid()
	// Others look into no state but root's, whose services are others.
	mode := fs.FileMode(0o700)
	if uid == 0 {
		mode = 0o755
	}
	if err := os.MkdirAll(string(d), mode); err != nil {
		return fmt.Errorf("state folder: %w; choose another with $%s", err, EnvDir)
	}
	info, err := os.Stat(string(d))
	if err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != uid {
		return fmt.Errorf("state folder %s belongs to uid %d and you are uid %d: work as its owner, or choose another with $%s", d, owner, uid, EnvDir)
	}
	me := Account{uid, os.Getgid()}
	for _, f := range []struct {
		path  string
		mode  fs.FileMode
		owner Account
	}{
		{d.Mounts(), 0o700, me},
		{d.Staging(), 0o755, a.Node},
		{d.Mounter(), 0o700, a.Mounter},
		{d.Logs(), 0o755, me},
		// The controller makes its socket here; the sticky bit keeps it from
		// touching those of the others.
		{d.Run(), 0o775 | fs.ModeSticky, Account{uid, a.Services.GID}},
	} {
		if err := own(f.path, f.mode, f.owner); err != nil {
			return fmt.Errorf("state folder: %w", err)
		}
	}
	return d.reachable(a)
}

func own(path string, mode fs.FileMode, a Account) error {
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Lchown(path, a.UID, a.GID); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// reachable says whether the services, which are nobody's friends, can walk to
// the folder.
func (d Dir) reachable(a Accounts) error {
	if uid := os.Getuid(); a.Services.UID == uid && a.Mounter.UID == uid {
		return nil
	}
	if closed := Closed(string(d)); closed != "" {
		return fmt.Errorf("state folder %s: the services run as %s and %s, which may not pass through %s; run chmod o+x %s or choose another folder with $%s",
			d, a.Services, a.Mounter, closed, closed, EnvDir)
	}
	return nil
}

// Closed returns the topmost folder on the way to path, path included, that
// other users may not pass through, or "" when there is none. Access lists are
// not looked at.
func Closed(path string) string {
	if parent := filepath.Dir(path); parent != path {
		if closed := Closed(parent); closed != "" {
			return closed
		}
	}
	info, err := os.Stat(path)
	if err == nil && info.IsDir() && info.Mode().Perm()&0o001 == 0 {
		return path
	}
	return ""
}
