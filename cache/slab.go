package cache

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// This file keeps blocks in the slots of one sparse file. Each slot has room for
// the longest block; a shorter one takes only its own pages, and what a slot no
// longer needs is punched out. One file per block lost; FORMAT.md has the numbers.
//
// Nothing is ever synced: a block that a power cut tore is found by its sums, when
// it is read. The risk accepted: the space of a slot whose record was lost in one
// is found at the next start, by comparing with what the file system counts.

// firstPause is how long the disk is left alone after it failed. It doubles up to
// lastPause while the disk goes on failing.
const firstPause, lastPause = 10 * time.Second, 5 * time.Minute

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

// insert keeps a block, as one of a volume with that bound, and reports whether it
// does. A failure is logged here: nobody else needs to know.
func (s *slab) insert(k key, data []byte, q *quota) bool {
	s.mu.Lock()
	if s.mu.closed || s.mu.failing && time.Now().Before(s.mu.until) {
		s.mu.refused++
		s.mu.Unlock()
		return false
	}
	s.mu.readers++
	pages, slot, err := pagesOf(len(data)), none, error(nil)
	room, evicted := s.mu.t.reserve(q, pages)
	s.mu.evicted += evicted
	if room {
		slot, err = s.takeLocked(pages)
	}
	if err == nil && slot == none {
		s.mu.refused++
	}
	s.mu.stamp++
	stamp := s.mu.stamp
	s.mu.Unlock()

	if err == nil && slot != none {
		err = s.write(slot, k, data, stamp, q.of())
	}

	s.mu.Lock()
	if room {
		s.mu.t.reserved(q, pages)
	}
	var tell func()
	switch {
	case err != nil:
		tell = s.failedLocked(slot, err)
	case slot != none:
		tell = s.worksLocked()
		s.addLocked(slot, k, len(data), q.of())
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

func (s *slab) addLocked(slot uint32, k key, length int, mark uint32) {
	t := s.mu.t
	if old := t.find(&k); old != none {
		if int(t.entries[old].length) >= length { // somebody was faster
			t.free(slot)
			return
		}
		s.dropLocked(old)
	}
	t.add(slot, k, length, mark, false)
	if s.mu.inserts++; s.mu.inserts%lookEvery == 0 {
		_ = s.lookLocked() // fstat does not wait for the disk; the next look will do
	}
}

// write fills a slot in our hands.
func (s *slab) write(slot uint32, k key, data []byte, stamp uint64, mark uint32) error {
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
	putRecord(record, slot, k, len(data), stamp, mark)
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
