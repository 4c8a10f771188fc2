package cache

import (
	"log/slog"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file makes what is in the folder fit for use: files of the right form and
// size, the table filled from the index, and no more on the disk than the limit,
// whatever a crash has left.

// slotsFor is how many blocks a cache of limit bytes keeps at most, since each
// takes memory too: about 13 MiB for 256 GiB, and for any smaller one too. So many
// pieces of 8 KiB are 3 GiB.
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
