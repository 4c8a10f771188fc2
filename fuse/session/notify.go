package session

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file writes notifications as raw messages: go-fuse's ProtocolServer
// answers ENOSYS to its own.
//
// Each of these calls may wait in the kernel until a request that is not yet
// answered lets go of a page or a folder. So they are never made from a handler
// or under a lock that a handler needs; callers that cannot promise that use the
// Notifier.

// Codes of linux/fuse.h.
const (
	notifyInvalInode = 2
	notifyInvalEntry = 3
	notifyDelete     = 6
	notifyResend     = 7
	notifyIncEpoch   = 8
)

// InvalInode makes the kernel forget the attributes of a node and, unless off is
// negative, the cached content of the range; a length of 0 or less means to the
// end. A node that the kernel does not know is fine.
func (s *Session) InvalInode(node uint64, off, length int64) error {
	m := s.message(notifyInvalInode, 24)
	native.PutUint64(m[16:], node)
	native.PutUint64(m[24:], uint64(off))
	native.PutUint64(m[32:], uint64(length))
	return s.notify("invalidate a node", m)
}

// InvalEntry makes the kernel look a name up again. A name that it does not know
// is fine.
func (s *Session) InvalEntry(parent uint64, name string) error {
	m := s.message(notifyInvalEntry, 16+len(name)+1)
	native.PutUint64(m[16:], parent)
	native.PutUint32(m[24:], uint32(len(name)))
	copy(m[32:], name)
	return s.notify("invalidate a name", m)
}

// Delete tells the kernel that a name is gone, so that inotify watchers hear of
// it. It does nothing when the name stands for another node by now.
func (s *Session) Delete(parent, child uint64, name string) error {
	m := s.message(notifyDelete, 24+len(name)+1)
	native.PutUint64(m[16:], parent)
	native.PutUint64(m[24:], child)
	native.PutUint32(m[32:], uint32(len(name)))
	copy(m[40:], name)
	return s.notify("delete a name", m)
}

// IncEpoch makes the kernel doubt every name of the session at once. Kernels
// before 6.17 cannot: Unsupported.
func (s *Session) IncEpoch() error {
	return s.notify("doubt all names", s.message(notifyIncEpoch, 0))
}

// askAgain makes the kernel send again, with bit 63 of the unique set, whatever
// was read and never answered. Only after a predecessor's last reader is gone,
// with no handler at work, and before the first read. Kernels before 6.9 cannot:
// Unsupported.
func (s *Session) askAgain() error {
	return s.notify("resend", s.message(notifyResend, 0))
}

// message makes one with room for a body. A length of 16 is the header, whose
// unique is 0 and whose error is the code.
func (s *Session) message(code uint32, body int) []byte {
	m := make([]byte, outHeaderSize+body)
	native.PutUint32(m, uint32(len(m)))
	native.PutUint32(m[4:], code)
	return m
}

func (s *Session) notify(what string, m []byte) error {
	for {
		_, err := unix.Write(s.fd, m)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENOTEMPTY):
			// Not known to the kernel, or in use there: it will ask by itself.
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
			return storage.Errorf(storage.Unsupported, "%s: this kernel does not know the notification", what)
		case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOTCONN), errors.Is(err, unix.EPERM), errors.Is(err, unix.ECONNABORTED), errors.Is(err, unix.EBADF):
			return storage.Errorf(storage.Unavailable, "%s: the session has ended: %w", what, err)
		default:
			return fmt.Errorf("%s: %w", what, err)
		}
	}
}
