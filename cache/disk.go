package cache

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// The names of the cache's files. All others in the folder are somebody's.
const (
	blocksName = "holdfast.blocks"
	indexName  = "holdfast.index"
	lockName   = "holdfast.lock"
)

// folder is what the cache needs of its folder. Nothing is ever removed or
// renamed there, so no name of another can be hit.
type folder interface {
	// open makes the file when it is missing.
	open(name string) (file, error)
	// boot is zero where it is not known.
	boot() bootID
	// close gives the folder free for another process.
	close() error
}

// file reads and writes by position, into and from the caller's memory. The
// mapping of files into memory lost: a disk that fails would kill the process.
type file interface {
	readv(b [][]byte, off int64) (int, error)
	writev(b [][]byte, off int64) (int, error)
	// punch gives the space of a range back; it reads as zeros then.
	punch(off, n int64) error
	resize(size int64) error
	// stat returns the size and what is allocated on the disk.
	stat() (size, allocated int64, err error)
	close() error
}

// osFolder is a folder of the operating system, locked.
type osFolder struct {
	dir  string
	lock *os.File
}

// openFolder makes and locks dir. InUse when another process has it.
func openFolder(dir string) (folder, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	lock, err := openPlain(filepath.Join(dir, lockName))
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, storage.Errorf(storage.InUse, "another process has the lock of %s", dir)
		}
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	return &osFolder{dir: dir, lock: lock}, nil
}

// openPlain opens a file that has one name and is no link, so that nothing
// outside the folder is reached through it.
func openPlain(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 {
		_ = f.Close()
		return nil, storage.Errorf(storage.Exists, "%s is not a plain file of the cache's own", path)
	}
	return f, nil
}

func (o *osFolder) open(name string) (file, error) {
	f, err := openPlain(filepath.Join(o.dir, name))
	if err != nil {
		return nil, err
	}
	return &osFile{f}, nil
}

func (o *osFolder) boot() bootID {
	var id bootID
	if text, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		if b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", "")); err == nil {
			copy(id[:], b)
		}
	}
	return id
}

func (o *osFolder) close() error { return o.lock.Close() }

type osFile struct{ f *os.File }

func (o *osFile) readv(b [][]byte, off int64) (n int, err error) {
	for {
		if n, err = unix.Preadv(int(o.f.Fd()), b, off); !errors.Is(err, unix.EINTR) {
			return max(n, 0), err
		}
	}
}

func (o *osFile) writev(b [][]byte, off int64) (n int, err error) {
	for {
		if n, err = unix.Pwritev(int(o.f.Fd()), b, off); !errors.Is(err, unix.EINTR) {
			return max(n, 0), err
		}
	}
}

func (o *osFile) punch(off, n int64) (err error) {
	for {
		err = unix.Fallocate(int(o.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (o *osFile) resize(size int64) error { return o.f.Truncate(size) }

func (o *osFile) stat() (size, allocated int64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(o.f.Fd()), &st); err != nil {
		return 0, 0, err
	}
	return st.Size, st.Blocks * 512, nil
}

func (o *osFile) close() error { return o.f.Close() }
