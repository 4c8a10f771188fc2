package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"math"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file bounds what one volume has on the disk. A block is its who fetched or
// wrote it first; a volume that is full makes room among its own blocks. Marks of
// volumes are hashes of 24 bits, which stand in the index too, so the next process
// counts on. Two volumes whose marks are equal count as one and have the blocks of
// both together in view: among 100 such volumes one time in 3,000.
//
// The blocks of a volume are in the order that they came, with a second chance for
// those that were asked for again. Another pair of links in each slot lost: eight
// bytes for every block of every cache, and most volumes have no bound.

// quota is what a volume may have, as its blocks know it; nil for no bound.
type quota struct {
	mark  uint32 // not zero, below 1<<24
	limit int64  // pages
}

// of is the mark of its blocks.
func (q *quota) of() uint32 {
	if q == nil {
		return 0
	}
	return q.mark
}

// owned are the blocks of one mark.
//
// INVARIANT: pages and count are those of the slots in the queues with that mark,
// and all of these are in order.
type owned struct {
	number        uint16
	pages, coming int64 // in the queues, and being written
	count         int
	// order has their slots from head on, the oldest first. A slot may be another's
	// by now, or be there twice.
	order []uint32
	head  int
}

// ownTries bounds how long one insertion looks for room among its volume's own.
const ownTries = 64

// Bounded is Chunks for a volume that may have limit bytes of the cache's disk, none
// when zero. Its name tells it from others, from process to process. Pages count,
// of 4 KiB, as on the disk.
func (c *Cache) Bounded(store storage.Chunks, volume string, limit int64) storage.Chunks {
	sum := sha256.Sum256([]byte(volume))
	mark := max(1, binary.LittleEndian.Uint32(sum[:])>>8)
	return &chunks{c, store, &quota{mark, max(0, limit) / pageSize}}
}

// ownedBy gives the blocks of a mark.
func (t *table) ownedBy(mark uint32) *owned {
	n, ok := t.numbers[mark]
	if !ok {
		// Beyond what a number can tell apart, volumes share the last one's bound.
		if n = math.MaxUint16; len(t.owners) <= math.MaxUint16 {
			n = uint16(len(t.owners)) //nolint:gosec // bounded by the line above
			t.owners = append(t.owners, &owned{number: n})
		}
		t.numbers[mark] = n
	}
	return t.owners[n]
}

// reserve counts pages that are about to be written, and takes as many blocks of the
// same volume out of the index as they need. It reports whether there is room, and
// how many went.
func (t *table) reserve(q *quota, pages uint16) (ok bool, evicted uint64) {
	if q == nil {
		return true, 0
	}
	need := int64(pages)
	if need > q.limit {
		return false, 0
	}
	o := t.ownedBy(q.mark)
	for o.pages+o.coming+need > q.limit {
		s := none
		if evicted < ownTries {
			s = t.ownVictim(o)
		}
		if s == none {
			return false, evicted
		}
		t.free(s)
		evicted++
	}
	o.coming += need
	return true, evicted
}

// reserved ends what reserve began.
func (t *table) reserved(q *quota, pages uint16) {
	if q != nil {
		t.ownedBy(q.mark).coming -= int64(pages)
	}
}

// ownVictim takes the block of a volume that is to go out of the index; none when
// all are read right now.
func (t *table) ownVictim(o *owned) uint32 {
	for range min(victimSteps, 4*(len(o.order)-o.head)+4) {
		if o.head == len(o.order) {
			return none
		}
		s := o.order[o.head]
		o.head++
		e := &t.entries[s]
		switch {
		case e.owner != o.number || e.place != inSmall && e.place != inMain:
		case e.pins > 0:
			o.order = append(o.order, s)
		case e.hits > 0:
			e.hits--
			o.order = append(o.order, s)
		default:
			t.remove(s)
			return s
		}
	}
	return none
}

// own and disown keep the account of a block that comes into the queues, and of one
// that goes.
func (t *table) own(s, mark uint32) {
	e := &t.entries[s]
	if e.owner = 0; mark == 0 {
		return
	}
	o := t.ownedBy(mark)
	e.owner = o.number
	o.pages += int64(e.pages)
	o.count++
	o.order = append(o.order, s)
	if o.head > len(o.order)/2 || len(o.order)-o.head > 2*o.count+64 {
		t.tidy(o)
	}
}

func (t *table) disown(s uint32) {
	e := &t.entries[s]
	if e.owner == 0 {
		return
	}
	o := t.owners[e.owner]
	o.pages -= int64(e.pages)
	o.count--
	e.owner = 0
}

// tidy drops from the order what is not the volume's any more.
func (t *table) tidy(o *owned) {
	kept := make([]uint32, 0, 2*o.count)
	seen := make(map[uint32]bool, o.count)
	for _, s := range o.order[o.head:] {
		if t.entries[s].owner == o.number && !seen[s] {
			seen[s] = true
			kept = append(kept, s)
		}
	}
	o.order, o.head = kept, 0
}

// A stamp in the index has the mark in its upper bits: 2^40 insertions are enough.
const stampBits = 40

func marked(stamp uint64, mark uint32) uint64 {
	return stamp&(1<<stampBits-1) | uint64(mark)<<stampBits
}

func unmarked(b uint64) (stamp uint64, mark uint32) {
	return b & (1<<stampBits - 1), uint32(b >> stampBits & math.MaxUint32) //nolint:gosec // 24 bits
}
