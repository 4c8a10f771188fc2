package cache

import "encoding/binary"

// This file is what the cache knows in memory of its slots: which block is where,
// and which goes next. It does no I/O and takes no lock: slab does.
//
// Replacement is S3-FIFO: a new block stands in a small queue (a tenth of the
// space) and gets into the main one only if it was asked for again, or if it left
// not long ago (the ghosts). A reader that passes over everything once flushes a
// tenth. SIEVE lost: it has one queue, and its authors say themselves that a scan
// empties it. 2Q lost by little: the same idea, but its main queue is an LRU, so
// each hit would move a block; here a hit is a counter.
//
// What counts as asked for again: a reader of 128 KiB at a time touches a block
// eight times and has read it once. So each block remembers how far it was read,
// and only a read that goes back is a hit.
//
// Per slot: 44 bytes here, 4 in buckets, 8 in ghosts. No pointers, so the garbage
// collector never looks inside, and pages of slots not used yet take no memory.

const (
	none     = ^uint32(0)
	maxHits  = 3
	pageSize = 4096
	// reachStep: how far a block was read, in as few bits as will do.
	reachStep = 32
	// victimSteps bounds how long the search for a victim holds the lock. Each
	// step takes a hit away, so the next search goes on where this one stopped.
	victimSteps = 4096
)

// place is where a slot is.
type place uint8

const (
	unused  place = iota // never used, or given back: takes no space
	dirty                // free, with the space of its last block
	inSmall              // holds a block
	inMain               // holds a block
	busy                 // one goroutine's, which writes or empties it
	dropped              // no longer in the index; its readers are still there
	lost                 // could not be emptied: it takes space, and is used no more
)

// entry is one slot.
type entry struct {
	key        key
	next, prev uint32 // in its queue or free list
	chain      uint32 // in its bucket
	length     uint32
	pages      uint16 // allocated on the disk, at most
	pins       uint16 // readers that are at it
	reach      uint16
	owner      uint16 // in owners, of a bounded volume; or zero
	hits       uint8
	place      place
	checked    bool // its header was seen since the start
	recorded   bool // the index on disk may hold a record of it
}

// queue is a list of slots; new ones come in at the head.
type queue struct {
	head, tail uint32
	count      int
	pages      int64
}

type ghost struct{ mark, when uint32 }

// table is the index of a slab.
//
// INVARIANT: a slot is in exactly one of: the queues (then it is in one bucket
// too), the free lists, one goroutine's hands. pages is the sum over all slots.
// No key is in two slots of the queues.
type table struct {
	entries     []entry
	buckets     []uint32
	ghosts      []ghost
	small, main queue
	dirty       uint32 // stacks, by next
	unused      uint32
	fresh       uint32 // slots from here on were never used
	gone        uint32 // blocks that left the small queue so far
	pages       int64
	smallPages  int64             // what the small queue is meant to take
	owners      []*owned          // by number; the first is nobody
	numbers     map[uint32]uint16 // of marks
}

func newTable(slots int, limitPages int64) *table {
	n := 1
	for n < slots {
		n *= 2
	}
	t := &table{
		entries: make([]entry, slots), buckets: make([]uint32, n), ghosts: make([]ghost, n),
		dirty: none, unused: none, smallPages: max(limitPages/10, 1), owners: make([]*owned, 1), numbers: map[uint32]uint16{},
	}
	for i := range t.buckets {
		t.buckets[i] = none
	}
	t.small.head, t.small.tail, t.main.head, t.main.tail = none, none, none, none
	return t
}

func (t *table) count() int { return t.small.count + t.main.count }

func (t *table) bucket(k *key) *uint32 {
	return &t.buckets[binary.LittleEndian.Uint32(k[:])&uint32(len(t.buckets)-1)]
}

func (t *table) find(k *key) uint32 {
	for s := *t.bucket(k); s != none; s = t.entries[s].chain {
		if t.entries[s].key == *k {
			return s
		}
	}
	return none
}

// add puts a block that was written into a busy slot into the index, as one of the
// volume with that mark.
func (t *table) add(s uint32, k key, length int, mark uint32, old bool) {
	e := &t.entries[s]
	e.key, e.length, e.reach, e.hits, e.checked = k, uint32(length), 0, 0, !old
	b := t.bucket(&k)
	e.chain, *b = *b, s
	if old || t.remembered(&k) {
		t.push(&t.main, s, inMain)
	} else {
		t.push(&t.small, s, inSmall)
	}
	t.own(s, mark)
}

// remove takes a block out of the index. The slot is the caller's.
func (t *table) remove(s uint32) {
	e := &t.entries[s]
	for p := t.bucket(&e.key); ; p = &t.entries[*p].chain {
		if *p == s {
			*p = e.chain
			break
		}
	}
	t.unlink(s)
	t.disown(s)
	e.place = busy
}

func (t *table) push(q *queue, s uint32, p place) {
	e := &t.entries[s]
	e.place, e.prev, e.next = p, none, q.head
	if q.head == none {
		q.tail = s
	} else {
		t.entries[q.head].prev = s
	}
	q.head = s
	q.count++
	q.pages += int64(e.pages)
}

func (t *table) queueOf(s uint32) *queue {
	if t.entries[s].place == inSmall {
		return &t.small
	}
	return &t.main
}

func (t *table) unlink(s uint32) {
	e, q := &t.entries[s], t.queueOf(s)
	if e.prev == none {
		q.head = e.next
	} else {
		t.entries[e.prev].next = e.next
	}
	if e.next == none {
		q.tail = e.prev
	} else {
		t.entries[e.next].prev = e.prev
	}
	q.count--
	q.pages -= int64(e.pages)
}

// touch tells that n bytes from off were read.
func (t *table) touch(s uint32, off, n int) {
	e := &t.entries[s]
	if off/reachStep < int(e.reach) {
		e.hits = min(e.hits+1, maxHits)
	}
	e.reach = uint16((off + n) / reachStep)
}

// victim takes the block that is to go out of the index; none when all are read
// right now.
func (t *table) victim() uint32 {
	for range min(victimSteps, 4*t.count()+4) {
		fromSmall := t.small.pages > t.smallPages || t.main.count == 0
		q, p := &t.main, inMain
		if fromSmall {
			q, p = &t.small, inSmall
		}
		s := q.tail
		if s == none {
			return none
		}
		e := &t.entries[s]
		switch {
		case e.pins > 0:
			t.unlink(s)
			t.push(q, s, p)
		case fromSmall && e.hits > 0:
			e.hits = 0
			t.unlink(s)
			t.push(&t.main, s, inMain)
		case e.hits > 0:
			e.hits--
			t.unlink(s)
			t.push(q, s, p)
		default:
			if fromSmall {
				t.remember(&e.key)
			}
			t.remove(s)
			return s
		}
	}
	return none
}

func (t *table) ghost(k *key) (*ghost, uint32) {
	return &t.ghosts[binary.LittleEndian.Uint32(k[4:])&uint32(len(t.ghosts)-1)], binary.LittleEndian.Uint32(k[8:]) | 1
}

func (t *table) remember(k *key) {
	g, mark := t.ghost(k)
	t.gone++
	*g = ghost{mark, t.gone}
}

// remembered reports whether k left so lately that a cache twice as large would
// have kept it.
func (t *table) remembered(k *key) bool {
	g, mark := t.ghost(k)
	return g.mark == mark && t.gone-g.when <= uint32(t.count())
}

// free puts a slot that nobody holds on a free list.
func (t *table) free(s uint32) {
	e := &t.entries[s]
	if e.pages > 0 {
		e.place, e.next, t.dirty = dirty, t.dirty, s
	} else {
		e.place, e.next, t.unused = unused, t.unused, s
	}
}

// takeDirty and takeFree give a free slot to the caller, or none.
func (t *table) takeDirty() uint32 { return t.pop(&t.dirty) }

func (t *table) takeFree() uint32 {
	if s := t.pop(&t.dirty); s != none {
		return s
	}
	if s := t.pop(&t.unused); s != none {
		return s
	}
	if int(t.fresh) == len(t.entries) {
		return none
	}
	t.fresh++
	t.entries[t.fresh-1].place = busy
	return t.fresh - 1
}

func (t *table) pop(list *uint32) uint32 {
	s := *list
	if s != none {
		*list = t.entries[s].next
		t.entries[s].place = busy
	}
	return s
}

// resize changes what a slot that the caller holds takes.
func (t *table) resize(s uint32, pages uint16) {
	t.pages += int64(pages) - int64(t.entries[s].pages)
	t.entries[s].pages = pages
}
