package privilege

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// The node service stays uid 0, since the kubelet's folders are root's, and has
// no capability: it can do what the owner of these folders can, and nothing that
// needs to be root. Giving them up in a running Go program does not work, for it
// is per thread; so one thread empties its bounding set and executes the program
// anew, and what is executed by uid 0 gets what the bounding set leaves: nothing.

// maxCap is beyond the capabilities that any kernel has; PR_CAPBSET_DROP answers
// EINVAL for the first that does not exist.
const maxCap = 63

// Drop executes this program anew without capabilities, with args in place of
// its own. It returns nil if there are none to drop, and never when it has
// worked. To be called from the main thread, whose parent-death signal lasts.
func Drop(args []string) error {
	none, err := empty()
	if err != nil || none {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for c := uintptr(0); c <= maxCap; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break
		}
		if err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear the ambient capabilities: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read the capabilities: %w", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("clear the inheritable capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return fmt.Errorf("execute %s: %w", self, unix.Exec(self, append([]string{os.Args[0]}, args...), os.Environ()))
}

// empty reports whether this thread has no capabilities. After an execution all
// threads come from one.
func empty() (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, fmt.Errorf("read the capabilities: %w", err)
	}
	for _, d := range data {
		if d.Effective|d.Permitted|d.Inheritable != 0 {
			return false, nil
		}
	}
	return true, nil
}
