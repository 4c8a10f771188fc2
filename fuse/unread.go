package fuse

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/holdfast-csi/holdfast/storage"
)

// The file of a stage may be missing when the next mounter comes, or be shorter than
// what was acknowledged, as after a power cut, or refuse to be opened, or hold more
// than a damaged journal still knows of (stray.go). That spoils
// this stage alone: its file gets EIO, until its last close, and then what is there
// of it is kept aside (aside.go). Nothing is deleted, and nothing is committed of
// which a part cannot be read.

// reopen opens the file of a stage. It fails when this process lacks descriptors,
// which is no fault of the file.
func (r *replayed) reopen(id uint64) error {
	n := r.node(id)
	s := n.mu.stage
	end := n.staged()
	if w := r.files[id]; w != nil {
		return r.reopenRewritten(n, s, w, end)
	}
	flags := os.O_RDWR
	if end == 0 { // all of it is in the store
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(r.fs.stagePath(id, s.number), flags, 0o600)
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return fmt.Errorf("content that waits for its commit: %w", err)
	}
	if err == nil {
		err = holds(f, end)
	}
	// A power cut damages the end of a journal, and leaves in a file what was not
	// fsynced: of durability node that is no reason to give up what was.
	if err == nil && (r.damaged || r.rebooted()) && r.fs.follower == nil {
		if err = n.explained(f, r.damaged); err != nil {
			s.suspect = true
			err = errors.Join(err, f.Close())
		}
	}
	if err == nil {
		s.file = f
		return nil
	}
	r.lose(n, s, err)
	return nil
}

// lose says that the content of a stage is lost.
func (r *replayed) lose(n *node, s *stage, err error) {
	s.lost = storage.Errorf(storage.Corrupt, "content that waits for its commit cannot be read: %w", err)
	if len(n.mu.sent) == 0 { // else it may have been committed, and is missing for that
		r.fs.log.Error("what was written to a file and not committed cannot be read: its calls get EIO until it is closed",
			"op", "recover", "node", n.id, "path", r.fs.table.lastPath(n), "err", err)
	}
}

// staged is where the bytes end that are in the memory or the file of the node's stage.
func (n *node) staged() (end int64) {
	if spans := n.waitingLocked(); len(spans) > 0 {
		end = spans[len(spans)-1].to
	}
	return end
}

// holds says whether f has size bytes, and closes it otherwise.
func holds(f *os.File, size int64) error {
	info, err := f.Stat()
	if err == nil && info.Size() < size {
		err = fmt.Errorf("%s has %d bytes of %d", f.Name(), info.Size(), size)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return nil
}

// hopeless reports whether what n has written can never be committed: err, with
// which the commit failed, says that somebody else removed or replaced the file, or
// that a part cannot be read.
func (n *node) hopeless(err error) bool {
	return storage.Is(err, storage.Stale) || n.unreadable() && storage.Is(err, storage.Corrupt)
}

func (n *node) unreadable() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.mu.stage != nil && n.mu.stage.lost != nil
}
