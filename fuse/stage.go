package fuse

import (
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"syscall"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// A stage holds what was written to a file and is not committed: the bytes, in
// memory and in the journal while they are few, in a local file from then on,
// and which ranges of the file they are. Nothing is acknowledged before it
// stands in one of the two, so it outlives the mounter. What was uploaded
// already is there as chunks that no entry shows yet (content.go).

const (
	// stageInMemory is how large one stage may grow in memory.
	stageInMemory = 256 << 10
	// stagesInMemory bounds all stages of a volume in memory.
	stagesInMemory = 32 << 20
	// uncut is the base of a stage that no truncation has cut.
	uncut = 1 << 62
)

// span is a half-open range of bytes of a file.
type span struct{ from, to int64 }

type stage struct {
	// base is how much of the committed content is still seen: a truncation cuts
	// it, growing again does not bring it back.
	base int64
	// size of the file as far as the stage knows: where the last write ends, and
	// after a truncation the whole truth.
	size int64
	// dirty ranges, by offset, not touching each other: their bytes are here.
	dirty []span
	// laid are chunks in the store that no entry shows yet, the later over the
	// earlier, below dirty and above the committed content.
	laid []storage.Chunk
	// spare are chunks of this stage that nothing shows any more.
	spare []storage.ChunkID
	// memory holds the bytes until file does.
	memory []byte
	file   *os.File
	// number of the file, zero when there is none yet. No two files of a volume have
	// the same: a record that tells the end of one cannot be taken for another's.
	number uint64
	// lost says why the file cannot be read (unread.go); file is nil then.
	lost error
	// suspect: there may be more in the file than the journal says.
	suspect bool
	// unflushed is why the file will not be on the disk: once a flush has failed, a
	// later one that succeeds says nothing (follow.go).
	unflushed error

	// head is where the last write ended; flights are uploads beside the writer
	// (ahead.go), and failed is when the last one did.
	head    int64
	flights []*flight
	failed  time.Time
}

// length of the file, whose committed content has stored bytes: others may have
// made it longer meanwhile.
func (s *stage) length(stored int64) int64 {
	if s.base < uncut {
		return s.size
	}
	return max(s.size, stored)
}

// write keeps data at off for node id. unique is the request's, when it must not
// be carried out twice.
func (s *stage) write(fs *FS, id, unique uint64, data []byte, off int64) error {
	end := off + int64(len(data))
	s.voidLocked(span{off, end})
	if s.file == nil && (end > stageInMemory || fs.memory.Load() > stagesInMemory) {
		if err := s.spill(fs, id); err != nil {
			return err
		}
	}
	if s.file != nil {
		r := record{kind: recSpan, id: id, unique: unique, a: uint64(off), b: uint64(len(data))}
		if fs.follower != nil { // the journal is what is flushed, not the file
			r = record{kind: recWrite, id: id, unique: unique, a: uint64(off), data: data}
		}
		// What is refused must not stand over what was acknowledged, and no record
		// before bytes that are not there.
		over := unique == 0 && s.holds(span{off, end})
		if over {
			if err := fs.memo.write(r); err != nil {
				return err
			}
		}
		if _, err := s.file.WriteAt(data, off); err != nil {
			return localError(err)
		}
		if !over {
			if err := fs.memo.write(r); err != nil {
				return err
			}
		}
	} else {
		if err := fs.memo.write(record{kind: recWrite, id: id, unique: unique, a: uint64(off), data: data}); err != nil {
			return err
		}
		s.keep(fs, data, off)
	}
	s.mark(span{off, end})
	return nil
}

// holds reports whether all of a range is dirty.
func (s *stage) holds(d span) bool {
	at := sort.Search(len(s.dirty), func(i int) bool { return s.dirty[i].to >= d.to })
	return at < len(s.dirty) && s.dirty[at].from <= d.from
}

// mark makes a range dirty.
func (s *stage) mark(d span) {
	s.dirty = addSpan(s.dirty, d)
	s.size = max(s.size, d.to)
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
	number := mathrand.Uint64() | 1
	f, err := fs.stageFile(id, number)
	if err != nil {
		return localError(err)
	}
	if _, err := f.WriteAt(s.memory, 0); err != nil {
		return errors.Join(localError(err), fs.dropFile(f))
	}
	if err := fs.memo.write(record{kind: recSpill, id: id, a: number}); err != nil {
		return errors.Join(err, fs.dropFile(f))
	}
	fs.memory.Add(-int64(len(s.memory)))
	s.file, s.memory, s.number = f, nil, number
	return nil
}

// stagePath is where the bytes of node id lie that are in the file of that number.
func (fs *FS) stagePath(id, number uint64) string {
	return filepath.Join(fs.opts.Dir, stageName(id, number))
}

// stagePrefix begins the names of stages' files in the volume's folder.
const stagePrefix = "stage-"

func stageName(id, number uint64) string {
	if number == 0 { // of an older mounter, which used one name for all files of a node
		return fmt.Sprintf("%s%d", stagePrefix, id)
	}
	return fmt.Sprintf("%s%d-%d", stagePrefix, id, number)
}

// parseStageName is the reverse.
func parseStageName(name string) (id, number uint64, ok bool) {
	if _, err := fmt.Sscanf(name, stagePrefix+"%d-%d", &id, &number); err != nil {
		number = 0
		if _, err := fmt.Sscanf(name, stagePrefix+"%d", &id); err != nil {
			return 0, 0, false
		}
	}
	return id, number, stageName(id, number) == name
}

func (fs *FS) stageFile(id, number uint64) (*os.File, error) {
	if fs.opts.Dir != "" {
		return os.OpenFile(fs.stagePath(id, number), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	}
	f, err := os.CreateTemp("", stagePrefix)
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// dropFile gives a stage's file up.
func (fs *FS) dropFile(f *os.File) error {
	_ = f.Close() // nothing to lose
	if fs.opts.Dir == "" {
		return nil
	}
	return os.Remove(f.Name())
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
	if s.lost != nil {
		return s.lost
	}
	if s.file == nil {
		copy(b, s.memory[off:])
		return nil
	}
	_, err := s.file.ReadAt(b, off)
	return err
}

// truncate sets the size.
func (s *stage) truncate(size int64) {
	s.voidLocked(span{size, uncut})
	s.base = min(s.base, size)
	s.size = size
	s.dirty = cutSpans(s.dirty, span{size, uncut})
	for _, c := range s.laid {
		if c.Offset >= size {
			s.spare = append(s.spare, c.ID)
		}
	}
	s.laid = storage.Cut(s.laid, size)
}

// written are the ranges that the stage holds, by offset, not touching.
func (s *stage) written() []span {
	if len(s.laid) == 0 {
		return s.dirty
	}
	all := slices.Clone(s.dirty)
	for _, c := range s.laid {
		all = addSpan(all, span{c.Offset, c.Offset + c.Size})
	}
	return all
}

// parts are the same, what lies in the store apart from what is here.
func (s *stage) parts() []span {
	all := slices.Clone(s.written())
	for _, d := range s.dirty {
		all = cutSpans(all, d)
	}
	return append(all, s.dirty...)
}

// lay puts a chunk over what the stage had there.
func (s *stage) lay(c storage.Chunk) {
	s.laid = append(s.laid, c)
	s.size = max(s.size, c.Offset+c.Size)
	s.dirty = cutSpans(s.dirty, span{c.Offset, c.Offset + c.Size})
}

// empty reports whether the stage changes nothing.
func (s *stage) empty() bool {
	return len(s.dirty) == 0 && len(s.laid) == 0 && s.base == uncut && s.size == 0
}

// close frees the bytes. What they were is committed or given up. When the journal
// could not be told, the next mounter will look for the file: it is left.
func (s *stage) close(fs *FS, id uint64, told bool) {
	fs.memory.Add(-int64(len(s.memory)))
	s.memory = nil
	if s.lost != nil && told {
		path := fs.stagePath(id, s.number)
		switch _, err := os.Lstat(path); {
		case errors.Is(err, os.ErrNotExist): // kept aside, or never there
		case s.suspect:
			fs.keepStray(id, path, s.lost)
		default:
			if err := os.Remove(path); err != nil {
				fs.log.Warn("a stage that could not be read stays on the disk", "op", "commit", "path", path, "err", err)
			}
		}
	}
	if s.file == nil {
		return
	}
	if !told {
		_ = s.file.Close() // nothing to lose
		s.file = nil
		return
	}
	if err := fs.dropFile(s.file); err != nil {
		fs.log.Warn("a committed stage stays on the disk", "op", "commit", "path", s.file.Name(), "err", err)
	}
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

// cutSpans takes a range away.
func cutSpans(spans []span, cut span) []span {
	from := sort.Search(len(spans), func(i int) bool { return spans[i].to > cut.from })
	to := from
	var put []span
	for to < len(spans) && spans[to].from < cut.to {
		if d := spans[to]; d.from < cut.from {
			put = append(put, span{d.from, cut.from})
		}
		if d := spans[to]; d.to > cut.to {
			put = append(put, span{cut.to, d.to})
		}
		to++
	}
	return slices.Replace(spans, from, to, put...)
}
