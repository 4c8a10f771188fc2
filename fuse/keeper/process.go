package keeper

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file knows who is at the other end of a socket, and when a mounter can no
// longer read requests.

// process is a peer, held by a pidfd so that its number cannot come to mean
// another one.
type process struct {
	pid, uid int
	pidfd    int
}

// peer returns the process at the other end.
func peer(c *net.UnixConn) (process, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return process{}, fmt.Errorf("peer: %w", err)
	}
	p := process{pidfd: -1}
	var inner error
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); inner != nil {
			return
		}
		p.pid, p.uid = int(cred.Pid), int(cred.Uid)
		// Since 6.5; it cannot be fooled by a number that was used again.
		if got, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD); err == nil {
			p.pidfd = got
			unix.CloseOnExec(got)
		}
	})
	if err == nil {
		err = inner
	}
	if err != nil {
		return process{}, fmt.Errorf("peer: %w", err)
	}
	if p.pidfd < 0 && p.pid > 0 {
		if got, err := unix.PidfdOpen(p.pid, 0); err == nil {
			p.pidfd = got
		}
	}
	return p, nil
}

func (p process) close() {
	if p.pidfd >= 0 {
		_ = unix.Close(p.pidfd)
	}
}

// visible says why a process cannot be fenced.
func (p process) visible() error {
	if p.pid == 0 || p.pidfd < 0 {
		return storage.Errorf(storage.Denied, "the mounter's process cannot be seen from the keeper's pid namespace, so its end could not be known: the keeper needs the host's (hostPID)")
	}
	return nil
}

// dead reports whether the whole process has ended.
func (p process) dead() bool {
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1
}

// gone reports whether no thread of the process can read or answer requests any
// more. Threads named linger do not count: one that was killed inside a
// notification stays until a request is answered, which only the successor will
// do. The thread list is read behind the pidfd, so it is of this process.
func (p process) gone(linger string) bool {
	if p.dead() {
		return true
	}
	tasks := filepath.Join("/proc", fmt.Sprint(p.pid), "task")
	entries, err := os.ReadDir(tasks)
	if err != nil {
		return p.dead()
	}
	for _, e := range entries {
		stat, err := os.ReadFile(filepath.Join(tasks, e.Name(), "stat"))
		if err != nil {
			continue // it has just ended
		}
		// The name stands in parentheses and may hold some itself.
		open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
		if open < 0 || end < open || end+2 >= len(stat) {
			return false
		}
		if strings.IndexByte("ZXx", stat[end+2]) >= 0 {
			continue
		}
		if name := string(stat[open+1 : end]); linger == "" || name != linger {
			return false
		}
	}
	return true
}
