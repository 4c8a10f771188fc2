package keeper

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file keeps the memory that requests are read into, so that it outlives the
// mounter. What stands in it the keeper neither knows nor looks at: it makes an
// empty memfd, the mounter gives it a form.
//
// All sessions get the same one, which is what keeps a mounter with many of them
// small. Still each session holds its own copy of the descriptor: after a
// mounter of another version, or a keeper without memory, sessions are moved to
// a new one while others have requests in the old.

// ErrSlots is what Handler.Serve wraps when it cannot use the slots that it was
// granted: they are damaged, or of another version. It must not have read a
// request. The session is then granted with fresh ones and with Resend.
var ErrSlots = errors.New("the slots cannot be used")

// isSlots reports whether fd is a memfd, as far as that can be told.
func isSlots(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 0
}

func sameFile(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}

func duplicate(fd int) (int, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("duplicate a descriptor: %w", err)
	}
	return dup, nil
}

// commonSlots returns a copy of what sessions get that have none. refused, unless
// it is negative, is what a mounter could not use.
func (k *Keeper) commonSlots(refused int) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.slots >= 0 && refused >= 0 && sameFile(k.mu.slots, refused) {
		closeAll([]int{k.mu.slots})
		k.mu.slots = -1
	}
	if k.mu.slots < 0 {
		fd, err := unix.MemfdCreate("holdfast-slots", unix.MFD_CLOEXEC)
		if err != nil {
			return -1, fmt.Errorf("memory for requests: %w", err)
		}
		k.mu.slots = fd
	}
	return duplicate(k.mu.slots)
}

// keepSlots makes what a mounter has brought the slots of sessions to come, if
// there are none yet.
func (k *Keeper) keepSlots(fd int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.slots < 0 {
		if dup, err := duplicate(fd); err == nil {
			k.mu.slots = dup
		}
	}
}

// equip gives a session slots that a mounter can use. Those that it had, if they
// are refused, are dropped: a mounter that served with them may have left
// requests there, so they are sent again.
func (k *Keeper) equip(s *session, refuse bool) error {
	s.mu.Lock()
	old := s.mu.slots
	s.mu.Unlock()
	if old >= 0 && !refuse {
		return nil
	}
	fresh, err := k.commonSlots(old)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.fd < 0 {
		closeAll([]int{fresh})
		return storage.Errorf(storage.NotFound, "session %s has ended", s.id)
	}
	closeAll([]int{old})
	s.mu.slots = fresh
	s.mu.resend = s.mu.resend || refuse || s.mu.reply != nil
	return nil
}
