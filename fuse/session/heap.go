package session

import "sync"

// This file holds the memory of answers. They come from the heap: each byte of
// them was written before it is sent, so it is there.

// classes are the sizes of heap buffers: an attribute, a name or a link target
// (PATH_MAX and headers), a middle read, the largest read.
var classes = [...]int{1 << 10, 8 << 10, middleAnswer, MaxWrite + 8<<10}

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
