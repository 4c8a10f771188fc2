package fuse

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"syscall"

	"github.com/holdfast-csi/holdfast/storage"
)

// A stage holds what was written to a file and is not committed: the bytes, in
// memory and in the journal while they are few, in a local file from then on,
// and which ranges of the file they are. Nothing is acknowledged before it
// stands in one of the two, so it outlives the mounter.

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

// write keeps data at off for node id. unique is the request's, when it must not
// be carried out twice.
func (s *stage) write(fs *FS, id, unique uint64, data []byte, off int64) error {
	end := off + int64(len(data))
	if s.file == nil && (end > stageInMemory || fs.memory.Load() > stagesInMemory) {
		if err := s.spill(fs, id); err != nil {
			return err
		}
	}
	if s.file != nil {
		if _, err := s.file.WriteAt(data, off); err != nil {
			return localError(err)
		}
		if err := fs.memo.write(record{kind: recSpan, id: id, unique: unique, a: uint64(off), b: uint64(len(data))}); err != nil {
			return err
		}
	} else {
		if err := fs.memo.write(record{kind: recWrite, id: id, unique: unique, a: uint64(off), data: data}); err != nil {
			return err
		}
		s.keep(fs, data, off)
	}
	s.dirty = addSpan(s.dirty, span{off, end})
	s.size = max(s.size, end)
	return nil
}

// keep puts data into memory.
func (s *stage) keep(fs *FS, data []byte, off int64) {
	if grow := off + int64(len(data)) - int64(len(s.memory)); grow > 0 {
		fs.memory.Add(grow)
		s.memory = append(s.memory, make([]byte, grow)...)
	}
	copy(s.memory[off:], data)
}

// spill moves the bytes to a local file. Without a folder of the volume the file
// has no name and goes with the process.
func (s *stage) spill(fs *FS, id uint64) error {
	f, err := fs.stageFile(id)
	if err != nil {
		return localError(err)
	}
	if _, err := f.WriteAt(s.memory, 0); err != nil {
		return errors.Join(localError(err), f.Close())
	}
	if err := fs.memo.write(record{kind: recSpill, id: id}); err != nil {
		return errors.Join(err, f.Close())
	}
	fs.memory.Add(-int64(len(s.memory)))
	s.file, s.memory = f, nil
	return nil
}

// stagePath is where a stage's bytes lie.
func (fs *FS) stagePath(id uint64) string {
	return filepath.Join(fs.opts.Dir, fmt.Sprintf("%s%d", stagePrefix, id))
}

// stagePrefix begins the names of stages' files in the volume's folder.
const stagePrefix = "stage-"

func (fs *FS) stageFile(id uint64) (*os.File, error) {
	if fs.opts.Dir != "" {
		return os.OpenFile(fs.stagePath(id), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	}
	f, err := os.CreateTemp("", stagePrefix)
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
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

// close frees the bytes. What they were is committed or given up, and noted.
func (s *stage) close(fs *FS) {
	fs.memory.Add(-int64(len(s.memory)))
	s.memory = nil
	if s.file == nil {
		return
	}
	if fs.opts.Dir != "" {
		if err := os.Remove(s.file.Name()); err != nil {
			fs.log.Warn("a committed stage stays on the disk", "op", "commit", "path", s.file.Name(), "err", err)
		}
	}
	_ = s.file.Close() // nothing to lose
	s.file = nil
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
