package sessiontest

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Settle makes a mount safe to use from the process that serves it. Go registers
// every file that it opens with epoll, which for a FUSE file means a POLL request
// that must be answered while the poller's own lock is held: the process waits for
// itself. so one file of the mount is polled without epoll first; the answer,
// ENOSYS, the kernel keeps for the life of the session, as it does for the flush
// at its close. Other processes need none
// of this.
func Settle(dir, name string) error {
	path := filepath.Join(dir, name)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("settle %s: %w", path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); err != nil {
		return fmt.Errorf("settle %s: %w", path, err)
	}
	return nil
}
