package fuse

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
	"syscall"

	"github.com/holdfast-csi/holdfast/storage"
)

// A stage holds what was written to a file and is not committed: the bytes, in
// memory while they are few and in an unlinked local file from then on, and
// which ranges of the file they are. What was acknowledged and not committed is
// lost with the mounter; a journal that outlives it is to take this place.

const (
	// stageInMemory is how large one stage may grow in memory.
	stageInMemory = 256 << 10
	// stagesInMemory bounds all stages of a volume in memory.
	stagesInMemory = 32 << 20
)

// span is a half-open range of bytes of a file.
type span struct{ from, to int64 }

type stage struct {
	// base is how much of the committed content is still seen: a truncation cuts
	// it, growing again does not bring it back.
	base int64
	// size of the file.
	size int64
	// dirty ranges, by offset, not touching each other.
	dirty []span
	// memory holds the bytes until file does.
	memory []byte
	file   *os.File
}

// write keeps data at off.
func (s *stage) write(fs *FS, data []byte, off int64) error {
	end := off + int64(len(data))
	if s.file == nil && (end > stageInMemory || fs.memory.Load() > stagesInMemory) {
		if err := s.spill(fs); err != nil {
			return err
		}
	}
	if s.file != nil {
		if _, err := s.file.WriteAt(data, off); err != nil {
			return localError(err)
		}
	} else {
		if grow := end - int64(len(s.memory)); grow > 0 {
			fs.memory.Add(grow)
			s.memory = append(s.memory, make([]byte, grow)...)
		}
		copy(s.memory[off:], data)
	}
	s.dirty = addSpan(s.dirty, span{off, end})
	s.size = max(s.size, end)
	return nil
}

// spill moves the stage to a local file that has no name: it goes with the
// process.
func (s *stage) spill(fs *FS) error {
	f, err := os.CreateTemp(fs.opts.StageDir, "stage-")
	if err != nil {
		return localError(err)
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close()
		return localError(err)
	}
	if _, err := f.WriteAt(s.memory, 0); err != nil {
		_ = f.Close()
		return localError(err)
	}
	fs.memory.Add(-int64(len(s.memory)))
	s.file, s.memory = f, nil
	return nil
}

// localError classifies an error of the node's own disk.
func localError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return storage.Errorf(storage.Full, "stage: the node's disk is full: %w", err)
	}
	return fmt.Errorf("stage: %w", err)
}

// read fills b, which lies within a dirty range.
func (s *stage) read(b []byte, off int64) error {
	if s.file == nil {
		copy(b, s.memory[off:])
		return nil
	}
	_, err := s.file.ReadAt(b, off)
	return err
}

// truncate sets the size.
func (s *stage) truncate(size int64) {
	s.base = min(s.base, size)
	s.size = size
	for i, d := range s.dirty {
		if d.to > size {
			s.dirty[i].to = size
			if d.from >= size {
				s.dirty = s.dirty[:i]
			} else {
				s.dirty = s.dirty[:i+1]
			}
			break
		}
	}
}

// whole reports whether the stage holds every byte of the file.
func (s *stage) whole() bool {
	return s.size == 0 || len(s.dirty) == 1 && s.dirty[0] == span{0, s.size}
}

func (s *stage) close(fs *FS) {
	fs.memory.Add(-int64(len(s.memory)))
	s.memory = nil
	if s.file != nil {
		_ = s.file.Close() // unlinked: nothing to lose
	}
}

// addSpan adds a range and joins those that touch.
func addSpan(spans []span, add span) []span {
	from := sort.Search(len(spans), func(i int) bool { return spans[i].to >= add.from })
	to := from
	for to < len(spans) && spans[to].from <= add.to {
		add.from, add.to = min(add.from, spans[to].from), max(add.to, spans[to].to)
		to++
	}
	return slices.Replace(spans, from, to, add)
}
