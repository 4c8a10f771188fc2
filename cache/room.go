package cache

// This file finds room on the disk for a block: a slot that is free, or whose
// block is the next to go, and as many pages as the block takes. Space is counted
// before it is written and uncounted after it was given back, so the disk never
// holds more than the limit.

const (
	// takeTries bounds the work that one insertion does for its room: a block of
	// 1 MiB may have to take the place of 129 of the smallest.
	takeTries = 300
	// lookEvery so many insertions the file system is asked what it counts: the
	// tables of extents are its own.
	lookEvery = 64
)

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
