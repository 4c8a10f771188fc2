package fuse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// What a sequential writer has behind it is uploaded beside it, in whole chunks,
// in parallel, and leaves the node's disk: fsync and close have little left to
// do, and a file may be larger than the disk. The chunk is noted before the bytes
// go, so the next mounter knows of it. A range that is written again while it is
// on its way is not taken: its upload is void, and it goes with the commit.

const (
	// flightsPerFile leaves room for others.
	flightsPerFile = 8
	// backlog is how much of one file may wait behind its uploads before its writer
	// is held up: it would otherwise fill the disk at the difference of speeds.
	backlog = 12 * storage.ChunkSize
	// longestHold of one write. The store may be away: then the disk fills slowly.
	longestHold = 200 * time.Millisecond
	// pauseAfterFailure is how long nothing is tried after an upload that failed.
	pauseAfterFailure = 5 * time.Second
)

// flight is one upload beside the writer.
type flight struct {
	span
	// done is closed when the stage knows the outcome.
	done chan struct{}
	// void: the range is not what it was. Under node.mu.
	void bool
}

// voidLocked gives up flights that overlap d.
func (s *stage) voidLocked(d span) {
	for _, f := range s.flights {
		if f.from < d.to && d.from < f.to {
			f.void = true
		}
	}
}

// aheadLocked starts uploads of what lies behind a sequential writer, who has
// just written d. It returns what the writer should wait for, if anything. near
// is the path of the file.
func (fs *FS) aheadLocked(n *node, s *stage, near storage.Path, d span) <-chan struct{} {
	sequential := d.from == s.head
	s.head = d.to
	if !sequential || s.file == nil || n.mu.kept || len(n.mu.sent) > 0 || fs.life == nil || fs.life.Err() != nil {
		return nil
	}
	if time.Since(s.failed) < pauseAfterFailure {
		return nil
	}
	at, ok := slices.BinarySearchFunc(s.dirty, d.from, func(x span, from int64) int {
		switch {
		case x.to <= from:
			return -1
		case x.from > from:
			return 1
		}
		return 0
	})
	if !ok {
		return nil
	}
	from := s.dirty[at].from
	for _, f := range s.flights {
		if f.from < d.to {
			from = max(from, f.to)
		}
	}
	for ; from+storage.ChunkSize <= d.to && len(s.flights) < flightsPerFile; from += storage.ChunkSize {
		buf := fs.opts.Uploads.tryTake(storage.ChunkSize)
		if buf == nil {
			break
		}
		f := &flight{span: span{from, from + storage.ChunkSize}, done: make(chan struct{})}
		s.flights = append(s.flights, f)
		file := s.file
		fs.running.Go(func() { fs.fly(n, s, file, near, f, buf) })
	}
	if d.to-from > backlog && len(s.flights) > 0 {
		return s.flights[0].done
	}
	return nil
}

// fly uploads one range and takes it out of the stage.
func (fs *FS) fly(n *node, s *stage, file *os.File, near storage.Path, f *flight, buf []byte) {
	ctx, done := context.WithTimeout(fs.life, fs.opts.Deadline)
	defer done()
	var chunk storage.Chunk
	_, err := file.ReadAt(buf, f.from)
	if err == nil {
		chunk, err = fs.vol.Chunks.Write(ctx, near, buf)
	}
	chunk.Offset = f.from
	fs.opts.Uploads.give(buf, storage.ChunkSize)
	n.mu.Lock()
	s.flights = slices.DeleteFunc(s.flights, func(x *flight) bool { return x == f })
	if err == nil && !f.void {
		err = fs.memo.write(laidRecord(n.id, chunk))
	}
	taken := err == nil && !f.void
	if taken {
		s.lay(chunk)
	}
	if taken && fs.follower == nil {
		fs.punched(n, file, []span{f.span})
	}
	if err != nil {
		s.failed = time.Now()
	}
	n.mu.Unlock()
	if taken && fs.follower != nil && fs.flushJournal() == nil { // they may be promised: not before the chunk is known for certain
		n.mu.Lock()
		if n.mu.stage == s && s.file == file {
			rest := []span{f.span}
			for _, d := range s.dirty { // written again meanwhile
				rest = cutSpans(rest, d)
			}
			fs.punched(n, file, rest)
		}
		n.mu.Unlock()
	}
	close(f.done) // what is freed below nobody waits for
	if !taken && chunk.ID != "" {
		fs.freeChunks(ctx, n, []storage.ChunkID{chunk.ID})
	}
	if err != nil && !storage.IsContext(err) {
		fs.log.Warn("an upload beside the writer failed; the commit will bring the bytes", "op", "upload", "node", n.id, "err", err)
	}
}

// punched gives the disk back what ranges of a stage's file take.
func (fs *FS) punched(n *node, file *os.File, spans []span) {
	for _, d := range spans {
		if err := punch(file, d); err != nil {
			fs.log.Warn("uploaded bytes stay on the disk", "op", "upload", "node", n.id, "err", err)
		}
	}
}

// punch gives the disk back what a range of the stage's file takes. Some file
// systems cannot.
func punch(file *os.File, d span) error {
	err := unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, d.from, d.to-d.from)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stage: %w", err)
	}
	return nil
}

// landed waits until no upload beside the writer is under way. The caller holds
// the turn, so that none begins.
func (fs *FS) landed(ctx context.Context, n *node) error {
	n.mu.RLock()
	var flights []*flight
	if n.mu.stage != nil {
		flights = slices.Clone(n.mu.stage.flights)
	}
	n.mu.RUnlock()
	for _, f := range flights {
		select {
		case <-f.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// hold lets a writer wait for an upload, a moment at most.
func hold(ctx context.Context, done <-chan struct{}) {
	if done == nil {
		return
	}
	timer := time.NewTimer(longestHold)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	case <-ctx.Done():
	}
}
