package session

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// This file holds the memory of requests and answers.
//
// A request is read into memory that is mapped and populated beforehand: when a
// SIGKILL meets the kernel while it copies into a page that was never touched,
// the request ends with EIO and an application sees it. One such buffer is large
// (a read must have room for the largest WRITE), so small requests are copied to
// the heap and the large buffer is free again at once. Answers come from the
// heap: each byte of them was written before it is sent, so it is there.

const (
	// copyLimit: up to here copying a request out (some microseconds) is cheaper
	// than keeping a large buffer from the reader.
	copyLimit = 64 << 10

	// DefaultBuffers is twice MaxBackground: all that the kernel sends in the
	// background, and as many writers who wait. A session may have half.
	DefaultBuffers = 2 * MaxBackground

	// idleBuffers stay mapped when nobody uses them.
	idleBuffers = 4
)

// Buffers is a pool of prefaulted request buffers, to be shared by all sessions
// of a process. It bounds how many large writes are in memory at a time; small
// requests, FORGET and INTERRUPT need none.
type Buffers struct {
	size int
	room chan struct{} // one token for each buffer in use

	mu   sync.Mutex
	idle [][]byte
}

// NewBuffers makes a pool of at most limit buffers; 0 means DefaultBuffers. No
// memory is taken until it is needed.
func NewBuffers(limit int) *Buffers {
	if limit <= 0 {
		limit = DefaultBuffers
	}
	return &Buffers{size: MaxWrite + requestRoom, room: make(chan struct{}, limit)}
}

// take maps a buffer, or hands out an idle one. It asks for no room: the reader's
// own buffer of each session is beside the limit, so that sessions cannot keep
// each other from reading.
func (b *Buffers) take() ([]byte, error) {
	b.mu.Lock()
	if n := len(b.idle); n > 0 {
		buf := b.idle[n-1]
		b.idle = b.idle[:n-1]
		b.mu.Unlock()
		return buf, nil
	}
	b.mu.Unlock()
	buf, err := unix.Mmap(-1, 0, b.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map a request buffer of %d bytes: %w", b.size, err)
	}
	return buf, nil
}

// give returns a buffer of take.
func (b *Buffers) give(buf []byte) {
	buf = buf[:cap(buf)]
	b.mu.Lock()
	if len(b.idle) < idleBuffers {
		b.idle = append(b.idle, buf)
		b.mu.Unlock()
		return
	}
	b.mu.Unlock()
	_ = unix.Munmap(buf)
}

// drain unmaps what is idle.
func (b *Buffers) drain() {
	b.mu.Lock()
	idle := b.idle
	b.idle = nil
	b.mu.Unlock()
	for _, buf := range idle {
		_ = unix.Munmap(buf)
	}
}

// classes are the sizes of heap buffers: an attribute, a name or a link target
// (PATH_MAX and headers), a middle read, the largest read.
var classes = [...]int{1 << 10, 8 << 10, copyLimit + 8<<10, MaxWrite + 8<<10}

// heap is a set of reusable buffers on the heap, by class.
type heap [len(classes)]sync.Pool

// take returns a buffer of at least n bytes, its content undefined.
func (h *heap) take(n int) *[]byte {
	for i, size := range classes {
		if n <= size {
			if b, ok := h[i].Get().(*[]byte); ok {
				return b
			}
			b := make([]byte, size)
			return &b
		}
	}
	b := make([]byte, n)
	return &b
}

func (h *heap) give(b *[]byte) {
	for i, size := range classes {
		if len(*b) == size {
			h[i].Put(b)
			return
		}
	}
}
