package journal

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The journal's names in its folder.
const (
	name    = "journal"
	freshed = name + ".new"
	// aside is a journal that was found damaged, and with a number behind it another
	// one. Nothing here reads or removes it.
	aside = name + ".damaged"
	// maxKept bounds the names that are tried for one.
	maxKept = 1000
)

// disk is what the journal needs of its folder; the tests have one that fails.
type disk interface {
	// open makes the file when it is missing; fresh empties it.
	open(name string, fresh bool) (file, error)
	rename(from, to string) error
	// link fails with fs.ErrExist when there is something by the name to.
	link(from, to string) error
	// remove of a name that is not there is fine.
	remove(name string) error
	// names reports whether name leads to f.
	names(name string, f file) (bool, error)
	// sync flushes the names.
	sync() error
}

type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	size() (int64, error)
	// allocate makes sure that the range can be written, and leaves the size.
	allocate(off, n int64) error
	// sync flushes what was written.
	sync() error
}

// folder is a disk of the operating system.
type folder string

func (d folder) path(name string) string { return filepath.Join(string(d), name) }

func (d folder) open(name string, fresh bool) (file, error) {
	flags := os.O_RDWR | os.O_CREATE
	if fresh {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(d.path(name), flags, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d folder) rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }
func (d folder) link(from, to string) error   { return os.Link(d.path(from), d.path(to)) }

func (d folder) remove(name string) error {
	if err := os.Remove(d.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (d folder) names(name string, f file) (bool, error) {
	there, err := os.Lstat(d.path(name))
	if err != nil {
		return false, err
	}
	here, err := f.(osFile).Stat()
	return err == nil && os.SameFile(there, here), err
}

func (d folder) sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

type osFile struct{ *os.File }

func (f osFile) sync() error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (f osFile) size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f osFile) allocate(off, n int64) (err error) {
	for {
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, off, n)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
