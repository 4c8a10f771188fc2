package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// newFolder is for folders of a node that a pod without root's rights is to work in:
// the kubelet makes them root's.
func newFolder(*app) *cobra.Command {
	cmd := &cobra.Command{
		Use:    "folder PATH",
		Short:  "Make a folder for a user, or see that it is (started by the chart)",
		Args:   exactly("PATH"),
		Hidden: true,
	}
	uid := cmd.Flags().Int("uid", -1, "`uid` of the folder's user, and gid of its group")
	required(cmd, "uid")
	cmd.RunE = func(_ *cobra.Command, args []string) error { return makeFolder(args[0], *uid) }
	return cmd
}

// makeFolder makes a folder that is uid's alone, or gives it one that is
// root's. Of root's capabilities it needs CAP_CHOWN, and only where there is something
// to change. What lies in the folder is neither looked at nor changed.
func makeFolder(path string, uid int) error {
	if uid <= 0 {
		return storage.Errorf(storage.Invalid, "--uid %d: must be of a user that is not root", uid)
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("folder: %w", err)
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("folder %s: %w", path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("folder %s: %w", path, err)
	}
	switch int(st.Uid) {
	case uid:
		return nil
	case os.Geteuid():
	default:
		return storage.Errorf(storage.Denied, "folder %s belongs to uid %d and is to be uid %d's: give it to that one, or choose another folder", path, st.Uid, uid)
	}
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), 0o700); err != nil {
		return fmt.Errorf("folder %s: %w", path, err)
	}
	if err := unix.Fchownat(fd, "", uid, uid, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("folder %s: give it to uid %d: %w", path, uid, err)
	}
	return nil
}
