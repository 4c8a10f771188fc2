package fuse

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/holdfast-csi/holdfast/storage"
)

// The journal of a volume of durability node has the bytes of what was written to
// the files of stages, which are not flushed with it (follow.go). A replay writes them
// again: after the death of a process that changes nothing, after a power cut it
// brings back what the disk has not got.

// rewritten is the file of a stage that a replay writes to.
type rewritten struct {
	file *os.File
	// err is why it cannot be written.
	err error
	// full are ranges for which there was no room. Those that still wait have it:
	// they had it when they were written.
	full []span
}

// rewrite writes bytes of a stage to its file. begins: the file is made for them.
// It fails when this process lacks descriptors.
func (r *replayed) rewrite(id uint64, b []byte, off int64, begins bool) error {
	if len(b) == 0 {
		return nil
	}
	w := r.files[id]
	if w == nil {
		w = &rewritten{}
		r.files[id] = w
		flags, end, s := os.O_RDWR, int64(0), r.node(id).mu.stage
		if dirty := s.dirty; !begins && len(dirty) > 0 {
			end = dirty[len(dirty)-1].to // these bytes are in the file alone
		} else {
			flags |= os.O_CREATE
		}
		w.file, w.err = os.OpenFile(r.fs.stagePath(id, s.number), flags, 0o600)
		if errors.Is(w.err, syscall.EMFILE) || errors.Is(w.err, syscall.ENFILE) {
			return fmt.Errorf("content that waits for its commit: %w", w.err)
		}
		if w.err == nil {
			w.err = holds(w.file, end)
		}
		if w.err != nil {
			w.file = nil
		}
	}
	if w.err != nil {
		return nil //nolint:nilerr // told when it is needed
	}
	d := span{off, off + int64(len(b))}
	_, err := w.file.WriteAt(b, off)
	switch {
	case err == nil:
		w.full = cutSpans(w.full, d)
	case storage.Is(localError(err), storage.Full):
		w.full = addSpan(w.full, d)
	default:
		w.err = errors.Join(err, w.close())
	}
	return nil
}

// reopenRewritten takes over the file of a stage that has bytes up to end.
func (r *replayed) reopenRewritten(n *node, s *stage, w *rewritten, end int64) error {
	delete(r.files, n.id)
	for _, d := range s.dirty {
		if missing := clip(w.full, d); len(missing) > 0 {
			return errors.Join(storage.Errorf(storage.Full, "content that waits for its commit: the node's disk is full"), w.close())
		}
	}
	err := w.err
	if err == nil {
		err = holds(w.file, end)
	}
	if err != nil {
		r.lose(n, s, err)
		return nil
	}
	s.file = w.file
	return nil
}

// forgetFile: what stands in the file of a stage is of no use any more.
func (r *replayed) forgetFile(id uint64) {
	if w := r.files[id]; w != nil {
		_ = w.close() // nothing to lose
		delete(r.files, id)
	}
}

// closeFiles gives the descriptors back.
func (r *replayed) closeFiles() (err error) {
	for id, w := range r.files {
		err = errors.Join(err, w.close())
		delete(r.files, id)
	}
	return err
}

func (w *rewritten) close() error {
	if w.file == nil {
		return nil
	}
	return w.file.Close()
}
