package state

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Lock is a held lock of a state: it goes with the process, however that ends.
// A pid file would have to be judged by whether its process still is the same.
type Lock struct{ f *os.File }

// ErrLocked means that another process holds the lock.
var ErrLocked = errors.New("locked by another process")

// LockName names one of the locks of a state.
type LockName string

// The locks: Supervisor is held by the process that runs the installation, for
// as long as it does; Command by an up or a down, while it decides.
const (
	Supervisor LockName = "supervisor.lock"
	Command    LockName = "command.lock"
)

// TryLock takes a lock, or returns ErrLocked at once.
func (d Dir) TryLock(name LockName) (*Lock, error) {
	path := d.join("run", string(name))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	// A lock of the open file: that of the process would be lost with any close
	// of the same file.
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &Lock{f: f}, nil
}

// Locked reports whether somebody holds the lock now. It asks and does not try,
// so that it never stands in the way of one who takes it.
func (d Dir) Locked(name LockName) bool {
	f, err := os.OpenFile(d.join("run", string(name)), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	query := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &query)
	return err == nil && query.Type != unix.F_UNLCK
}

// Unlock gives the lock back.
func (l *Lock) Unlock() error { return l.f.Close() }
