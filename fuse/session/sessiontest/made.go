package sessiontest

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// This file holds the files that somebody makes, in Tree.Dir. What may have run
// before is told from the unique alone, which is enough where nobody else writes.

// firstMade is the node of f0.
const firstMade = 1 << 32

// MadeName returns the name of file i that somebody makes, MadeNode its node.
func MadeName(i int) string { return "f" + strconv.Itoa(i) }
func MadeNode(i int) uint64 { return firstMade + uint64(i) }

func number(name, prefix string) (int, bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	i, err := strconv.Atoi(rest)
	return i, ok && err == nil && i >= 0
}

func (t *Tree) made(node uint64) bool { return t.Dir != "" && node >= firstMade }

func (t *Tree) path(node uint64) string {
	return filepath.Join(t.Dir, MadeName(int(node-firstMade)))
}

func again(h *fuse.InHeader) bool { return h.Unique>>63 == 1 }

func (t *Tree) makeFile(name string, in *fuse.CreateIn) fuse.Status {
	f, err := os.OpenFile(filepath.Join(t.Dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	switch {
	case err == nil:
		return fuse.ToStatus(f.Close())
	case errors.Is(err, os.ErrExist) && (again(&in.InHeader) || in.Flags&syscall.O_EXCL == 0):
		return fuse.OK
	}
	return fuse.ToStatus(err)
}

// Unlink implements fuse.RawFileSystem.
func (t *Tree) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	if _, ok := number(name, "f"); !ok || t.Dir == "" {
		return fuse.EPERM
	}
	err := syscall.Unlink(filepath.Join(t.Dir, name))
	if errors.Is(err, syscall.ENOENT) && again(in) {
		return fuse.OK
	}
	return fuse.ToStatus(err)
}

func (t *Tree) madeAttr(node uint64, a *fuse.Attr) fuse.Status {
	info, err := os.Stat(t.path(node))
	if err != nil {
		return fuse.ToStatus(err)
	}
	a.Mode, a.Size = syscall.S_IFREG|0o666, uint64(info.Size())
	return fuse.OK
}

func (t *Tree) readMade(in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	f, err := os.Open(t.path(in.NodeId))
	if err != nil {
		return nil, fuse.ToStatus(err)
	}
	defer f.Close()
	n, _ := f.ReadAt(buf, int64(in.Offset))
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (t *Tree) writeMade(in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	f, err := os.OpenFile(t.path(in.NodeId), os.O_WRONLY, 0)
	if err != nil {
		return 0, fuse.ToStatus(err)
	}
	defer f.Close()
	n, err := f.WriteAt(data, int64(in.Offset))
	return uint32(n), fuse.ToStatus(err)
}
