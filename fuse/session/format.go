package session

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file is the format of the slots: what one process writes into the memfd
// and another one, perhaps of another version, finds there.
//
//	page 0    magic (8 bytes, written last), version (4), number of sizes (4),
//	          then for each size: bytes of a slot (4), number of slots (4)
//	table     for each slot the key of the session it is read for (8 bytes)
//	slots     size by size, each slot of whole pages
//
// A slot holds a request as the kernel wrote it, and the request's first word is
// its length: not zero means that the slot is taken. The kernel writes that word
// as it gives the request away, so no step of ours lies between the two. The key
// stands in the table before the read begins; beside a length of zero it means
// nothing.
//
// A mark of our own was the alternative: a kill between the read and the mark
// would lose the request.

const (
	slotsMagic   = 0x31_53544f4c53_4648 // "HFSLOTS1" in the bytes of a little-endian machine
	slotsVersion = 1

	pageSize = 4096
	keySize  = 8

	versionAt  = 8
	sizesAt    = 12
	geometryAt = 16
)

// The sizes of slots. A read must offer the kernel the largest, whatever comes;
// what is small is then moved, so that few large ones are ever touched.
const (
	small = iota // metadata, writes of a page
	middle
	large
	numSizes
)

// geometry is bytes and number of each size. The memory of a slot that was never
// used does not exist, so there are as many as could be wanted: handlers that
// hang on the network keep theirs.
type geometry [numSizes]struct{ bytes, count int }

var ourGeometry = geometry{
	small:  {8 << 10, 4096},
	middle: {72 << 10, 512},
	large:  {MaxWrite + requestRoom, DefaultLarge + 128},
}

func (g *geometry) slots() (n int) {
	for _, c := range g {
		n += c.count
	}
	return n
}

// start returns where the first slot lies, and size how long the whole is.
func (g *geometry) start() int {
	return pageSize + (g.slots()*keySize+pageSize-1)/pageSize*pageSize
}

func (g *geometry) size() int {
	n := g.start()
	for _, c := range g {
		n += c.bytes * c.count
	}
	return n
}

// place returns where slot i lies, and its size class.
func (g *geometry) place(i int) (off, class int) {
	off = g.start()
	for class := range g {
		if i < g[class].count {
			return off + i*g[class].bytes, class
		}
		i -= g[class].count
		off += g[class].bytes * g[class].count
	}
	panic("no such slot")
}

// readGeometry reads the head of a memfd. ok is false when it is empty: nobody has
// read a request into it yet.
func readGeometry(fd int) (g geometry, ok bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return g, false, fmt.Errorf("slots: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return g, false, storage.Errorf(storage.Corrupt, "slots: the descriptor is no memory")
	}
	head := make([]byte, geometryAt+8*numSizes)
	n, err := unix.Pread(fd, head, 0)
	if err != nil {
		return g, false, fmt.Errorf("slots: %w", err)
	}
	if n < len(head) {
		clear(head[n:])
	}
	switch magic := native.Uint64(head); {
	case magic == 0:
		return g, false, nil
	case magic != slotsMagic:
		return g, false, storage.Errorf(storage.Corrupt, "slots: they begin with %#x, not with the magic number", magic)
	}
	if v := native.Uint32(head[versionAt:]); v != slotsVersion || native.Uint32(head[sizesAt:]) != numSizes {
		return g, false, storage.Errorf(storage.Unsupported, "slots of version %d; this version knows %d", v, slotsVersion)
	}
	for i := range g {
		at := geometryAt + 8*i
		g[i].bytes, g[i].count = int(native.Uint32(head[at:])), int(native.Uint32(head[at+4:]))
		if b := g[i].bytes; b < pageSize || b > 64<<20 || b%pageSize != 0 || g[i].count < 1 || g[i].count > 1<<20 {
			return g, false, storage.Errorf(storage.Corrupt, "slots: %d of %d bytes", g[i].count, b)
		}
	}
	if g[large].bytes < MaxWrite+requestRoom {
		return g, false, storage.Errorf(storage.Unsupported, "slots: the largest are of %d bytes, too small for this version", g[large].bytes)
	}
	if st.Size != int64(g.size()) {
		return g, false, storage.Errorf(storage.Corrupt, "slots: %d bytes, and %d by what they say", st.Size, g.size())
	}
	return g, true, nil
}

// writeGeometry makes an empty memfd one of slots. A process that is killed within
// leaves one without a magic number, which the next one formats again.
func writeGeometry(fd int, g geometry) error {
	if err := unix.Ftruncate(fd, 0); err != nil {
		return fmt.Errorf("slots: %w", err)
	}
	if err := unix.Ftruncate(fd, int64(g.size())); err != nil {
		return fmt.Errorf("slots: make room: %w", err)
	}
	head := make([]byte, geometryAt+8*numSizes)
	native.PutUint32(head[versionAt:], slotsVersion)
	native.PutUint32(head[sizesAt:], numSizes)
	for i, c := range g {
		native.PutUint32(head[geometryAt+8*i:], uint32(c.bytes))
		native.PutUint32(head[geometryAt+8*i+4:], uint32(c.count))
	}
	if _, err := unix.Pwrite(fd, head[versionAt:], versionAt); err != nil {
		return fmt.Errorf("slots: %w", err)
	}
	native.PutUint64(head, slotsMagic)
	if _, err := unix.Pwrite(fd, head[:versionAt], 0); err != nil {
		return fmt.Errorf("slots: %w", err)
	}
	return nil
}

// keyOf makes the key of a session from what names it, over all its processes and
// no other session.
func keyOf(name string) uint64 {
	sum := sha256.Sum256([]byte(name))
	return native.Uint64(sum[:]) | 1 // never 0
}

// slot is one of them. The zero value is none.
type slot struct {
	index, class int
	mem          []byte // all of it
	key          *uint64
	// cold: its memory may not be mapped here, though it has some.
	cold bool
}

func (sl slot) word() *uint32        { return (*uint32)(unsafe.Pointer(&sl.mem[0])) }
func (sl slot) length() int          { return int(atomic.LoadUint32(sl.word())) }
func (sl slot) owner() uint64        { return atomic.LoadUint64(sl.key) }
func (sl slot) own(key uint64)       { atomic.StoreUint64(sl.key, key) }
func (sl slot) none() bool           { return sl.mem == nil }
func (sl slot) setLength(n int)      { atomic.StoreUint32(sl.word(), uint32(n)) }
func (sl slot) opcode() uint32       { return native.Uint32(sl.mem[opcodeAt:]) }
func (sl slot) unique() uint64       { return native.Uint64(sl.mem[uniqueAt:]) }
func (sl slot) remove() error        { return unix.Madvise(sl.mem, unix.MADV_REMOVE) }
func (sl slot) request(n int) []byte { return sl.mem[:n:n] }

// populate makes sure that the kernel can copy into the slot without a page fault:
// one that meets a SIGKILL ends the request with EIO.
func (sl slot) populate() error {
	err := unix.Madvise(sl.mem, unix.MADV_POPULATE_WRITE)
	if errors.Is(err, unix.EINVAL) { // before 5.14
		for at := 0; at < len(sl.mem); at += pageSize {
			atomic.AddUint32((*uint32)(unsafe.Pointer(&sl.mem[at])), 0)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("memory for a request of up to %d bytes: %w", len(sl.mem), err)
	}
	return nil
}
