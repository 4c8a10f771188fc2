package fuse

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/cache/journal"
	"github.com/holdfast-csi/holdfast/storage"
)

// What lies in the volume's folder and the journal does not account for. A stage's
// file is removed when a record says of this very file that nothing in it waits, or
// when all that is in it is in the journal too; any other is kept aside, since the
// record that told of it may be the one that cannot be read.
//
// What lost: removing what no record names, as it was. A record that is damaged in
// the middle of the journal took the file with it.

// ended: nothing waits any more of what is in a node's file.
func (r *replayed) ended(id, number uint64) { r.over[stageName(id, number)] = true }

// fileNumber is the number of the file of a stage; there may be neither.
func (s *stage) fileNumber() uint64 {
	if s == nil {
		return 0
	}
	return s.number
}

// spent is the same for the record of the stage's end: nothing waits in that file.
// Of one that may hold more than its stage knew it is not said.
func (s *stage) spent() uint64 {
	if s == nil || s.suspect {
		return 0
	}
	return s.number
}

// stagePathOf is where the stage of a node lies.
func (fs *FS) stagePathOf(n *node) string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return fs.stagePath(n.id, n.mu.stage.fileNumber())
}

// stageFiles calls f for what lies in the volume's folder as the file of a stage.
func (r *replayed) stageFiles(f func(name string, id, number uint64)) error {
	files, err := os.ReadDir(r.fs.opts.Dir)
	if err != nil {
		return err
	}
	for _, file := range files {
		if id, number, ok := parseStageName(file.Name()); ok && file.Type().IsRegular() { // else nobody here made it
			f(file.Name(), id, number)
		}
	}
	return nil
}

// findStages looks for the files of stages of which the record is missing that told
// the file: the one that its node has, if it has one. Whether it is right is seen when
// it is opened.
func (r *replayed) findStages() error {
	if len(r.nameless) == 0 {
		return nil
	}
	found := map[uint64][]uint64{}
	err := r.stageFiles(func(name string, id, number uint64) {
		if r.nameless[id] && !r.over[name] {
			found[id] = append(found[id], number)
		}
	})
	for id, numbers := range found {
		if len(numbers) == 1 {
			r.node(id).mu.stage.number = numbers[0]
		}
	}
	return err
}

// clearStages removes the files of stages that nothing waits in, and keeps aside
// those of which it is not known.
func (r *replayed) clearStages() error {
	fs := r.fs
	return r.stageFiles(func(name string, id, number uint64) {
		var s *stage
		if n := fs.table.byID[id]; n != nil {
			s = n.mu.stage
		}
		if r.spilled[id] && s.fileNumber() == number {
			return
		}
		path := filepath.Join(fs.opts.Dir, name)
		needless, err := r.needless(s, path, number)
		if err == nil && needless {
			err = os.Remove(path)
		}
		if err != nil {
			fs.log.Warn("a committed stage stays on the disk", "op", "recover", "path", path, "err", err)
		} else if !needless {
			fs.keepStray(id, path, storage.Errorf(storage.Corrupt, "no record of the journal says what became of it"))
		}
	})
}

// needless reports whether nothing is lost with a file that is not the one of its
// node's stage s, which may be nil.
func (r *replayed) needless(s *stage, path string, number uint64) (bool, error) {
	// Only files with a number have their name for themselves.
	if r.over[filepath.Base(path)] && (number != 0 || !r.damaged) {
		return true, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err == nil, err
	}
	// The mounter before died when it had copied what is in the journal, or a part of
	// it, and not told of it yet.
	if s == nil || r.damaged || info.Size() > int64(len(s.memory)) {
		return false, nil
	}
	copied := make([]byte, info.Size())
	if _, err := io.ReadFull(f, copied); err != nil {
		return false, err
	}
	return bytes.HasPrefix(s.memory, copied), nil
}

// keepStray moves a file aside that may hold what was acknowledged for node id. One
// that cannot be moved stays where it is, for the next mounter to try.
func (fs *FS) keepStray(id uint64, path string, reason error) {
	left := leftover{Time: time.Now(), Reason: reason.Error()}
	if n := fs.table.get(id); n != nil {
		left.Path = fs.table.lastPath(n)
	}
	if f, err := os.Open(path); err == nil {
		if info, err := f.Stat(); err == nil {
			left.Size = info.Size()
			data, _ := allocated(f, info.Size())
			left.Written = pairs(data)
		}
		_ = f.Close() // it was only read
	}
	fs.keepFile(left, path, fs.leftoverPath(left.Time, id))
}

// keepFile moves a file to place, and describes it.
func (fs *FS) keepFile(left leftover, path, place string) {
	err := fs.makeLeftovers()
	if err == nil {
		err = os.Rename(path, place)
	}
	if err != nil {
		fs.strays.Add(1)
		fs.log.Error("a file that may hold what was written and not committed cannot be kept aside; it stays where it is",
			"op", "recover", "path", path, "err", err)
		return
	}
	if err := left.describe(place); err != nil {
		fs.log.Warn("what is kept aside is not described", "op", "recover", "kept", place, "err", err)
	}
	fs.log.Error("a file that may hold what was written and not committed is kept on this node",
		"op", "recover", "path", left.Path, "kept", place, "reason", left.Reason)
}

// keepJournals moves damaged journals aside: they may hold what was written to small
// files.
func (fs *FS) keepJournals() {
	kept, err := journal.Kept(fs.opts.Dir)
	if err != nil {
		fs.log.Warn("damaged journals are not looked for", "op", "recover", "err", err)
	}
	for _, name := range kept {
		left := leftover{Time: time.Now(), Reason: "the journal was damaged: what was written to small files and not committed may be in it"}
		path := filepath.Join(fs.opts.Dir, name)
		if info, err := os.Lstat(path); err == nil {
			left.Size = info.Size()
		}
		fs.keepFile(left, path, fs.leftoverPath(left.Time, name))
	}
}

// diskBlock is what a disk gives a file at least, so zeros that nobody wrote lie
// beside what was written.
const diskBlock = 4096

// bootNumber tells one boot of the machine from another; zero when it is not known.
func bootNumber() uint64 {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write(id)
	return h.Sum64()
}

// rebooted reports whether the machine has been started anew since the journal was
// written: what was written last may be missing, in any order.
func (r *replayed) rebooted() bool { return r.boot != 0 && r.fs.boot != 0 && r.boot != r.fs.boot }

// explained returns an error when f, the file of the node's stage, holds something
// else than the journal says: nothing where there are to be bytes, as when the record
// is gone that they were uploaded, and in a damaged one bytes that no record tells of.
func (n *node) explained(f *os.File, damaged bool) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	data, err := allocated(f, info.Size())
	if err != nil {
		return err
	}
	told := n.waitingLocked() // of nobody else yet
	missing := slices.Clone(told)
	for _, d := range data {
		missing = cutSpans(missing, d)
	}
	if len(missing) > 0 {
		return fmt.Errorf("the journal does not fit: %s has nothing from %d to %d", f.Name(), missing[0].from, missing[0].to)
	}
	if !damaged { // what the last write had put there may not be told yet
		return nil
	}
	near := []span(nil) // with the rest of their blocks
	for _, d := range told {
		near = addSpan(near, span{d.from &^ (diskBlock - 1), (d.to + diskBlock - 1) &^ (diskBlock - 1)})
	}
	for _, d := range data {
		rest := []span{d}
		for _, t := range told {
			rest = cutSpans(rest, t)
		}
		for _, x := range rest {
			padding, err := padding(f, x, near)
			if err != nil {
				return err
			}
			if !padding {
				return fmt.Errorf("the journal is damaged, and no record tells of what %s has from %d to %d", f.Name(), x.from, x.to)
			}
		}
	}
	return nil
}

// padding reports whether a range holds zeros, and in no block in which nothing else
// is.
func padding(f *os.File, x span, near []span) (bool, error) {
	outside := []span{x}
	for _, d := range near {
		outside = cutSpans(outside, d)
	}
	if len(outside) > 0 {
		return false, nil
	}
	buf := make([]byte, min(x.to-x.from, 1<<20))
	for at := x.from; at < x.to; at += int64(len(buf)) {
		b := buf[:min(int64(len(buf)), x.to-at)]
		if _, err := f.ReadAt(b, at); err != nil {
			return false, err
		}
		if len(bytes.TrimLeft(b, "\x00")) > 0 {
			return false, nil
		}
	}
	return true, nil
}

// allocated are the ranges of a file, up to size, that are no holes. Where the disk
// cannot say, all of it is.
func allocated(f *os.File, size int64) (data []span, err error) {
	for at := int64(0); at < size; {
		from, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if errors.Is(err, unix.EINVAL) {
			return []span{{0, size}}, nil
		}
		if err != nil {
			return data, fmt.Errorf("look for holes: %w", err)
		}
		to, err := unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE)
		if err != nil {
			return data, fmt.Errorf("look for holes: %w", err)
		}
		data = addSpan(data, span{from, min(to, size)})
		at = to
	}
	return data, nil
}
