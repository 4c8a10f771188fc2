package session

import (
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// This file answers in the reader what waits for nothing. A goroutine for it would
// have to be woken, and often a thread with it, which takes longer than the answer:
// of a removal, after which the kernel asks for the folder's attributes, a
// twentieth. What may wait is not for the reader, however short it mostly is: a
// local disk that is slow would keep INTERRUPT and FORGET from being read.

// Prompter is a file system that can say at once what it knows already.
type Prompter interface {
	// AttrNow is GetAttr where that waits for nothing, neither for the store nor
	// for another request. False when it would have to, or would fail: nothing was
	// done then, and GetAttr is called.
	AttrNow(id uint64, out *fuse.AttrOut) bool
}

// attrAnswer is the answer to a GETATTR (struct fuse_out_header, struct
// fuse_attr_out of linux/fuse.h).
type attrAnswer struct {
	head fuse.OutHeader
	attr fuse.AttrOut
}

// prompt answers the request of n bytes in the reader's slot, if that can be done at
// once. The slot is empty then, and stays the reader's.
func (s *Session) prompt(n int) bool {
	if s.prompter == nil || n < inHeaderSize || s.abandoned() {
		return false
	}
	select {
	case <-s.gate:
	default:
		return false // what a predecessor left comes first
	}
	var began time.Time
	if s.counters != nil {
		began = time.Now()
	}
	in := s.spare.request(n)
	s.attr = attrAnswer{}
	if !s.prompter.AttrNow(native.Uint64(in[nodeIDAt:]), &s.attr.attr) {
		return false
	}
	s.attr.head = fuse.OutHeader{Length: uint32(unsafe.Sizeof(s.attr)), Unique: native.Uint64(in[uniqueAt:])}
	s.at("answer", opGetAttr)
	answer := unsafe.Slice((*byte)(unsafe.Pointer(&s.attr)), unsafe.Sizeof(s.attr))
	s.send(opGetAttr, answer)
	if s.counters != nil {
		s.counters.note(opGetAttr, time.Since(began), answer)
	}
	s.at("answered", opGetAttr)
	s.spare.setLength(0)
	return true
}
