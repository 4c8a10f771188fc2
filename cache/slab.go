package cache

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file keeps blocks in the slots of one sparse file. Each slot has room for
// the longest block; a shorter one takes only its own pages, and what a slot no
// longer needs is punched out. One file per block lost; FORMAT.md has the numbers.
//
// Space is counted before it is written, and uncounted after it was given back,
// so that the disk never holds more than the limit.
//
// Nothing is ever synced: a block that a power cut tore is found by its sums, when
// it is read. The risk accepted: the space of a slot whose record was lost in one
// is found at the next start, by comparing with what the file system counts.

const (
	// firstPause is how long the disk is left alone after it failed. It doubles
	// up to lastPause while the disk goes on failing.
	firstPause, lastPause = 10 * time.Second, 5 * time.Minute
	// takeTries bounds the work that one insertion does for its room: a block of
	// 1 MiB may have to take the place of 129 of the smallest.
	takeTries = 300
	// lookEvery so many insertions the file system is asked what it counts: the
	// tables of extents are its own.
	lookEvery = 64
)

// slab is the cache's part on the disk.
type slab struct {
	folder        folder
	blocks, index file
	log           *slog.Logger
	// limit of what blocks may take, in pages; the index and a margin for the
	// file system's tables are left out already.
	limit     int64
	indexSize int64

	mu struct {
		sync.Mutex
		t *table
		// drift is what the file system counts above t.pages.
		drift   int64
		inserts uint64
		stamp   uint64
		closed  bool
		// failing since the first failure until the next success; untouched until
		// then.
		failing bool
		until   time.Time
		pause   time.Duration
		readers int
		idle    chan struct{} // closed when the last reader of a closed slab is out

		bad, evicted, failures, refused uint64
	}
}

// slotsFor is how many blocks a cache of limit bytes keeps at most, since each
// takes memory too: about 13 MiB for 256 GiB, and for any smaller cache of blocks
// that are 64 KiB on average.
func slotsFor(limit int64) int {
	return int(max(1, min(limit/(2*pageSize), max(1<<18, limit/BlockSize*5/4))))
}

// openSlab makes what is in the folder fit for use, and takes the folder over
// when it succeeds.
func openSlab(folder folder, limit int64, log *slog.Logger) (_ *slab, err error) {
	slots := slotsFor(limit)
	s := &slab{folder: folder, log: log, indexSize: (indexSize(slots) + pageSize - 1) / pageSize * pageSize}
	s.limit = (limit - s.indexSize - limit/256 - 64<<10) / pageSize
	s.mu.pause, s.mu.idle = firstPause, make(chan struct{})
	if s.limit < int64(pagesOf(BlockSize)) {
		return nil, storage.Errorf(storage.Invalid, "a limit of %d bytes is too small for a cache", limit)
	}
	s.mu.t = newTable(slots, s.limit)
	if s.index, err = folder.open(indexName); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.index.close()
			if s.blocks != nil {
				_ = s.blocks.close()
			}
		}
	}()
	size, _, err := s.index.stat()
	if err != nil {
		return nil, err
	}
	fresh, sameBoot, err := isIndex(s.index, size, folder.boot())
	if err != nil {
		return nil, err
	}
	if s.blocks, err = folder.open(blocksName); err != nil {
		return nil, err
	}
	if fresh {
		for _, f := range []file{s.index, s.blocks} {
			if err := f.resize(0); err != nil {
				return nil, err
			}
		}
	}
	if err := s.prepare(slots); err != nil {
		return nil, err
	}
	if s.mu.stamp, err = load(s.index, s.mu.t); err != nil {
		return nil, err
	}
	if err := s.fit(sameBoot); err != nil {
		return nil, err
	}
	if sameBoot {
		return s, nil
	}
	return s, writeAll(s.index, [][]byte{indexHeader(folder.boot())}, 0)
}

// prepare gives the files their sizes, so that no write makes one longer: some
// file systems then allocate more than is asked for.
func (s *slab) prepare(slots int) error {
	if err := s.index.resize(indexSize(slots)); err != nil {
		return err
	}
	end := int64(slots) * slotSize
	if err := s.blocks.resize(end + pageSize); err != nil {
		return err
	}
	if err := s.blocks.punch(end, pageSize); err != nil {
		return storage.Errorf(storage.Unsupported, "the file system cannot give back parts of a file: %w", err)
	}
	return nil
}

// fit brings what the disk holds below the limit.
func (s *slab) fit(sameBoot bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.lookLocked(); err != nil {
		return err
	}
	// A crash leaves space that no record knows of; so do extents. After a power
	// cut a slot may also hold less than its record says, which would hide another
	// one that holds more.
	if s.mu.drift > 16 || !sameBoot {
		if err := s.punchRestLocked(!sameBoot); err != nil {
			return err
		}
		if err := s.lookLocked(); err != nil {
			return err
		}
	}
	for s.mu.t.pages+s.mu.drift > s.limit {
		v := s.mu.t.takeDirty()
		if v == none {
			v = s.mu.t.victim()
		}
		if v == none {
			return storage.Errorf(storage.Full, "%s takes more than the limit", blocksName)
		}
		if err := s.emptyLocked(v); err != nil {
			return err
		}
	}
	s.checkLocked()
	return nil
}

func (s *slab) lookLocked() error {
	_, allocated, err := s.blocks.stat()
	if err != nil {
		return err
	}
	_, index, err := s.index.stat()
	if err != nil {
		return err
	}
	s.mu.drift = max(0, (allocated+max(index-s.indexSize, 0)+pageSize-1)/pageSize-s.mu.t.pages)
	return nil
}

// punchRestLocked punches what no block covers: the slots that hold none, and with
// tails the rest of the others too.
func (s *slab) punchRestLocked(tails bool) error {
	from := int64(0) // of the hole that is being looked for
	for slot := range s.mu.t.entries {
		pages := int64(s.mu.t.entries[slot].pages)
		if pages == 0 {
			continue
		}
		at := int64(slot) * slotSize
		if from < at {
			if err := s.blocks.punch(from, at-from); err != nil {
				return err
			}
		}
		if from = at + pages*pageSize; !tails {
			from = at + slotSize
		}
	}
	if end := int64(len(s.mu.t.entries)) * slotSize; from < end {
		return s.blocks.punch(from, end-from)
	}
	return nil
}

// read fills b with the bytes of block k from off, if they are there and right.
func (s *slab) read(k key, b []byte, off int) bool {
	s.mu.Lock()
	slot := s.mu.t.find(&k)
	if slot == none || s.mu.closed {
		s.mu.Unlock()
		return false
	}
	e := &s.mu.t.entries[slot]
	length := int(e.length)
	if off+len(b) > length || e.pins == ^uint16(0) {
		s.mu.Unlock()
		return false
	}
	e.pins++
	s.mu.readers++
	checked := e.checked
	s.mu.t.touch(slot, off, len(b))
	s.mu.Unlock()

	ok := (checked || s.readHeader(slot, k, length)) && s.readUnits(slot, k, length, b, off)

	s.mu.Lock()
	defer s.mu.Unlock()
	if ok {
		e.checked = true
	} else if e.place == inSmall || e.place == inMain {
		s.mu.bad++
		s.dropLocked(slot)
	}
	s.unpinLocked(slot)
	s.checkLocked()
	return ok
}

func (s *slab) readHeader(slot uint32, k key, length int) bool {
	b := make([]byte, headerSize)
	n, err := s.blocks.readv([][]byte{b}, int64(slot)*slotSize)
	return err == nil && n == len(b) && string(b) == string(header(k, length))
}

// has reports whether the first n bytes of block k are there.
func (s *slab) has(k key, n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := s.mu.t.find(&k)
	return slot != none && !s.mu.closed && int(s.mu.t.entries[slot].length) >= n
}

// dropLocked takes a block out of the index. Its slot is free once the last
// reader has left it.
func (s *slab) dropLocked(slot uint32) {
	s.mu.t.remove(slot)
	e := &s.mu.t.entries[slot]
	if e.place = dropped; e.pins == 0 {
		s.mu.t.free(slot)
	}
}

func (s *slab) unpinLocked(slot uint32) {
	e := &s.mu.t.entries[slot]
	if e.pins--; e.pins == 0 && e.place == dropped {
		s.mu.t.free(slot)
	}
	if s.mu.readers--; s.mu.readers == 0 && s.mu.closed {
		close(s.mu.idle)
	}
}

// insert keeps a block, and reports whether it does. A failure is logged here:
// nobody else needs to know.
func (s *slab) insert(k key, data []byte) bool {
	s.mu.Lock()
	if s.mu.closed || s.mu.failing && time.Now().Before(s.mu.until) {
		s.mu.refused++
		s.mu.Unlock()
		return false
	}
	s.mu.readers++
	slot, err := s.takeLocked(pagesOf(len(data)))
	if err == nil && slot == none {
		s.mu.refused++
	}
	s.mu.stamp++
	stamp := s.mu.stamp
	s.mu.Unlock()

	if err == nil && slot != none {
		err = s.write(slot, k, data, stamp)
	}

	s.mu.Lock()
	var tell func()
	switch {
	case err != nil:
		tell = s.failedLocked(slot, err)
	case slot != none:
		tell = s.worksLocked()
		s.addLocked(slot, k, len(data))
	}
	if s.mu.readers--; s.mu.readers == 0 && s.mu.closed {
		close(s.mu.idle)
	}
	s.checkLocked()
	s.mu.Unlock()
	if tell != nil {
		tell()
	}
	return err == nil && slot != none
}

func (s *slab) addLocked(slot uint32, k key, length int) {
	t := s.mu.t
	if old := t.find(&k); old != none {
		if int(t.entries[old].length) >= length { // somebody was faster
			t.free(slot)
			return
		}
		s.dropLocked(old)
	}
	t.add(slot, k, length, false)
	if s.mu.inserts++; s.mu.inserts%lookEvery == 0 {
		_ = s.lookLocked() // fstat does not wait for the disk; the next look will do
	}
}

// takeLocked finds a slot and counts its pages; none when there is no room. The
// lock is given up while others are emptied.
func (s *slab) takeLocked(pages uint16) (uint32, error) {
	t := s.mu.t
	for range takeTries {
		slot := t.takeFree()
		if slot == none {
			if slot = t.victim(); slot == none {
				return none, nil
			}
			s.mu.evicted++
		}
		more := max(0, int64(pages)-int64(t.entries[slot].pages))
		if t.pages+s.mu.drift+more <= s.limit {
			t.resize(slot, max(pages, t.entries[slot].pages))
			return slot, nil
		}
		other := t.takeDirty()
		if other == none {
			if other = t.victim(); other != none {
				s.mu.evicted++
			}
		}
		if other == none {
			t.free(slot)
			return none, nil
		}
		if t.entries[other].pages > t.entries[slot].pages {
			slot, other = other, slot
		}
		t.free(slot) // on top of the list: it is the next one taken
		if t.entries[other].pages == 0 {
			t.free(other)
			continue
		}
		if err := s.emptyLocked(other); err != nil {
			return none, err
		}
	}
	return none, nil
}

// emptyLocked gives the space of a slot in our hands back, and the slot free.
// The lock is given up meanwhile.
func (s *slab) emptyLocked(slot uint32) error {
	e := &s.mu.t.entries[slot]
	pages := e.pages
	s.mu.Unlock()
	err := s.forget(slot)
	if err == nil {
		err = s.blocks.punch(int64(slot)*slotSize, int64(pages)*pageSize)
	}
	s.mu.Lock()
	if err != nil {
		e.place = lost
		return err
	}
	s.mu.t.resize(slot, 0)
	s.mu.t.free(slot)
	return nil
}

// forget removes the record of a slot in our hands before its content changes.
func (s *slab) forget(slot uint32) error {
	e := &s.mu.t.entries[slot] // ours alone, so without the lock
	if !e.recorded {
		return nil
	}
	if err := writeAll(s.index, [][]byte{make([]byte, recordSize)}, recordsAt+int64(slot)*recordSize); err != nil {
		return err
	}
	e.recorded = false
	return nil
}

// write fills a slot in our hands.
func (s *slab) write(slot uint32, k key, data []byte, stamp uint64) error {
	if err := s.forget(slot); err != nil {
		return err
	}
	at := int64(slot) * slotSize
	e := &s.mu.t.entries[slot]
	if need := pagesOf(len(data)); e.pages > need {
		if err := s.blocks.punch(at+int64(need)*pageSize, int64(e.pages-need)*pageSize); err != nil {
			return err
		}
		s.mu.Lock()
		s.mu.t.resize(slot, need)
		s.mu.Unlock()
	}
	if err := writeAll(s.blocks, encode(k, data), at); err != nil {
		return err
	}
	e.recorded = true
	record := make([]byte, recordSize)
	putRecord(record, slot, k, len(data), stamp)
	return writeAll(s.index, [][]byte{record}, recordsAt+int64(slot)*recordSize)
}

// failedLocked leaves the disk alone for a while, and the slot, if there is one,
// for ever, unless it can be emptied. It returns what is to be done without the
// lock.
func (s *slab) failedLocked(slot uint32, err error) func() {
	s.mu.failures++
	if slot != none {
		if failed := s.emptyLocked(slot); failed != nil {
			s.mu.failures++
		}
	}
	s.mu.until = time.Now().Add(s.mu.pause)
	pause := s.mu.pause
	s.mu.pause = min(2*s.mu.pause, lastPause)
	if s.mu.failing {
		return nil
	}
	s.mu.failing = true
	return func() {
		s.log.Warn("the chunk cache takes nothing new for a while: its disk failed", "err", err, "dur", pause)
	}
}

func (s *slab) worksLocked() func() {
	if !s.mu.failing {
		return nil
	}
	s.mu.failing, s.mu.pause = false, firstPause
	return func() { s.log.Info("the chunk cache's disk works again") }
}

// close waits for those who are at the files, and closes these.
func (s *slab) close(ctx context.Context) error {
	s.mu.Lock()
	if s.mu.closed = true; s.mu.readers == 0 {
		close(s.mu.idle)
	}
	s.mu.Unlock()
	select {
	case <-s.mu.idle:
	case <-ctx.Done():
		return ctx.Err() // the process is about to end, and the files with it
	}
	failed := s.blocks.close()
	if err := s.index.close(); failed == nil {
		failed = err
	}
	if err := s.folder.close(); failed == nil {
		failed = err
	}
	return failed
}

// writeAll writes b whole: what a full disk took in part has failed.
func writeAll(f file, b [][]byte, off int64) error {
	want := 0
	for _, part := range b {
		want += len(part)
	}
	n, err := f.writev(b, off)
	if err == nil && n < want {
		err = unix.ENOSPC
	}
	if err == nil || n <= want {
		return err
	}
	return io.ErrShortWrite
}
