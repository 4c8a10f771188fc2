// Package sessiontest has a small file system for the tests of everything that
// serves sessions.
//
// Owns: Tree. Never: real storage; an import from outside tests. Flow: a test
// gives a Tree to session.New. Locks: Tree.mu guards its maps and is held for no
// wait.
package sessiontest

import (
	"fmt"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Tree is one directory with a file for every name of the form nNUMBER, whether
// or not anybody made it. Node ids come from the names, so a new Tree in a new
// process answers for the nodes that an old one handed out. What is written
// stays in memory.
type Tree struct {
	fuse.RawFileSystem

	// Dir, when set, is a folder that keeps the files of names of the form
	// fNUMBER, over the death of processes. These are there when somebody has
	// made them.
	Dir string
	// Timeout of names and attributes; 0 means an hour.
	Timeout time.Duration
	// OnRead, when set, is called before each read of a file. What it returns is
	// the answer unless OK.
	OnRead func(cancel <-chan struct{}, node uint64) fuse.Status
	// Direct opens files for direct I/O. Only then is a read a request that the
	// kernel interrupts: buffered ones wait for read-ahead, which has no owner.
	Direct bool
	// OnWrite is the same for writes.
	OnWrite func(cancel <-chan struct{}, node uint64, data []byte) fuse.Status

	mu      sync.Mutex
	data    map[uint64][]byte
	lookups map[string]int
	ended   bool
}

// firstNode is the node of n0.
const firstNode = 1000

// Name returns the name of file i, and Content what it holds from the start.
func Name(i int) string    { return "n" + strconv.Itoa(i) }
func Content(i int) string { return fmt.Sprintf("content of file %d\n", i) }

// Node returns the node id of file i.
func Node(i int) uint64 { return firstNode + uint64(i) }

// New makes a Tree.
func New() *Tree {
	return &Tree{RawFileSystem: fuse.NewDefaultRawFileSystem(), data: make(map[uint64][]byte), lookups: make(map[string]int)}
}

// Lookups returns how often the kernel has asked for a name.
func (t *Tree) Lookups(name string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lookups[name]
}

// Set replaces the content of file i.
func (t *Tree) Set(i int, content string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data[Node(i)] = []byte(content)
}

// Ended reports whether OnUnmount was called.
func (t *Tree) Ended() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ended
}

func (t *Tree) String() string { return "tree" }

// OnUnmount implements fuse.RawFileSystem.
func (t *Tree) OnUnmount() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
}

func (t *Tree) contentLocked(node uint64) []byte {
	if b, ok := t.data[node]; ok {
		return b
	}
	return []byte(Content(int(node - firstNode)))
}

func (t *Tree) attr(node uint64, a *fuse.Attr) fuse.Status {
	a.Ino, a.Nlink, a.Blksize = node, 1, 4096
	if node == fuse.FUSE_ROOT_ID {
		a.Mode = syscall.S_IFDIR | 0o777
		return fuse.OK
	}
	if t.made(node) {
		return t.madeAttr(node, a)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	a.Mode = syscall.S_IFREG | 0o666
	a.Size = uint64(len(t.contentLocked(node)))
	return fuse.OK
}

func (t *Tree) timeout() time.Duration {
	if t.Timeout == 0 {
		return time.Hour
	}
	return t.Timeout
}

func (t *Tree) entry(name string, out *fuse.EntryOut) fuse.Status {
	t.mu.Lock()
	t.lookups[name]++
	t.mu.Unlock()
	out.Generation = 1
	if i, ok := number(name, "n"); ok {
		out.NodeId = Node(i)
	} else if i, ok := number(name, "f"); ok && t.Dir != "" {
		out.NodeId = MadeNode(i)
	} else {
		return fuse.ENOENT
	}
	if status := t.attr(out.NodeId, &out.Attr); !status.Ok() {
		return status
	}
	out.SetEntryTimeout(t.timeout())
	out.SetAttrTimeout(t.timeout())
	return fuse.OK
}

// Lookup implements fuse.RawFileSystem.
func (t *Tree) Lookup(_ <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return t.entry(name, out)
}

// Create implements fuse.RawFileSystem.
func (t *Tree) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if _, ok := number(name, "f"); ok && t.Dir != "" {
		if status := t.makeFile(name, in); !status.Ok() {
			return status
		}
	}
	return t.entry(name, &out.EntryOut)
}

// GetAttr implements fuse.RawFileSystem.
func (t *Tree) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.SetTimeout(t.timeout())
	return t.attr(in.NodeId, &out.Attr)
}

// SetAttr implements fuse.RawFileSystem; it knows the size.
func (t *Tree) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if size, ok := in.GetSize(); ok && t.made(in.NodeId) {
		if err := syscall.Truncate(t.path(in.NodeId), int64(size)); err != nil {
			return fuse.ToStatus(err)
		}
	} else if ok {
		t.mu.Lock()
		b := make([]byte, size)
		copy(b, t.contentLocked(in.NodeId))
		t.data[in.NodeId] = b
		t.mu.Unlock()
	}
	out.SetTimeout(t.timeout())
	return t.attr(in.NodeId, &out.Attr)
}

// Open implements fuse.RawFileSystem.
func (t *Tree) Open(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if t.Direct {
		out.OpenFlags |= fuse.FOPEN_DIRECT_IO
	}
	return fuse.OK
}

// OpenDir implements fuse.RawFileSystem.
func (t *Tree) OpenDir(_ <-chan struct{}, _ *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	return fuse.OK
}

// Read implements fuse.RawFileSystem.
func (t *Tree) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if t.OnRead != nil {
		if status := t.OnRead(cancel, in.NodeId); !status.Ok() {
			return nil, status
		}
	}
	if t.made(in.NodeId) {
		return t.readMade(in, buf)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.contentLocked(in.NodeId)
	if in.Offset >= uint64(len(b)) {
		return fuse.ReadResultData(nil), fuse.OK
	}
	return fuse.ReadResultData(buf[:copy(buf, b[in.Offset:])]), fuse.OK
}

// Write implements fuse.RawFileSystem.
func (t *Tree) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if t.OnWrite != nil {
		if status := t.OnWrite(cancel, in.NodeId, data); !status.Ok() {
			return 0, status
		}
	}
	if t.made(in.NodeId) {
		return t.writeMade(in, data)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.contentLocked(in.NodeId)
	if end := int(in.Offset) + len(data); end > len(b) {
		b = append(b, make([]byte, end-len(b))...)
	}
	copy(b[in.Offset:], data)
	t.data[in.NodeId] = b
	return uint32(len(data)), fuse.OK
}

// Flush implements fuse.RawFileSystem: no, for the life of the session. A test that
// has a file open and starts the process that is to serve it would hang otherwise:
// between fork and exec the child closes the file, which asks for a flush.
func (t *Tree) Flush(_ <-chan struct{}, _ *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// ReadDir implements fuse.RawFileSystem; the files n0 to n2 are listed.
func (t *Tree) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	for i := int(in.Offset); i < 3; i++ {
		if !out.AddDirEntry(fuse.DirEntry{Name: Name(i), Mode: syscall.S_IFREG, Ino: Node(i), Off: uint64(i + 1)}) {
			break
		}
	}
	return fuse.OK
}

// ReadDirPlus implements fuse.RawFileSystem.
func (t *Tree) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	for i := int(in.Offset); i < 3; i++ {
		entry := out.AddDirLookupEntry(fuse.DirEntry{Name: Name(i), Mode: syscall.S_IFREG, Ino: Node(i), Off: uint64(i + 1)})
		if entry == nil {
			break
		}
		t.entry(Name(i), entry)
	}
	return fuse.OK
}

// StatFs implements fuse.RawFileSystem.
func (t *Tree) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.Blocks, out.Bfree, out.Bavail = 4096, 1<<20, 1<<19, 1<<19
	return fuse.OK
}
