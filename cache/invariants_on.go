//go:build invariants

package cache

import (
	"fmt"
	"sync/atomic"
)

var checks atomic.Uint64

// checkLocked panics when the fetches are not as their invariants say.
func (c *Cache) checkLocked() {
	kept, room := int64(0), map[*fetch]bool{}
	for _, f := range c.mu.kept {
		kept += f.room()
		if room[f] || !f.finished || f.users < 1 || f.data == nil {
			panic(fmt.Sprintf("cache: kept fetch %+v", f))
		}
		room[f] = true
	}
	if kept != c.mu.keptBytes || kept > c.share+BlockSize {
		panic(fmt.Sprintf("cache: %d bytes are kept, %d are counted, %d allowed", kept, c.mu.keptBytes, c.share))
	}
	for k, f := range c.mu.fetches {
		if f.key != k || f.gone || f.users < 1 || f.waiters < 0 || f.waiters > f.users || f.finished != (f.data != nil) {
			panic(fmt.Sprintf("cache: fetch %+v", f))
		}
	}
}

// checkLocked panics when the table is not as its invariants say. Large tables
// are looked at now and then only.
func (s *slab) checkLocked() {
	if len(s.mu.t.entries) > 4096 && checks.Add(1)%1024 != 0 {
		return
	}
	if err := s.mu.t.check(); err != nil {
		panic("cache: " + err.Error())
	}
	if s.mu.t.pages > s.limit {
		panic(fmt.Sprintf("cache: %d pages of %d", s.mu.t.pages, s.limit))
	}
}

func (t *table) check() error {
	seen := make([]place, len(t.entries))
	keys := map[key]bool{}
	for _, q := range []struct {
		*queue
		place place
	}{{&t.small, inSmall}, {&t.main, inMain}} {
		count, pages, prev := 0, int64(0), none
		for s := q.head; s != none; prev, s = s, t.entries[s].next {
			e := &t.entries[s]
			if e.place != q.place || e.prev != prev || seen[s] != unused || keys[e.key] || t.find(&e.key) != s {
				return fmt.Errorf("slot %d: %+v in queue %d", s, e, q.place)
			}
			seen[s], keys[e.key] = q.place, true
			count++
			pages += int64(e.pages)
		}
		if q.tail != prev || q.count != count || q.pages != pages {
			return fmt.Errorf("queue %d: %+v, but %d slots with %d pages up to %d", q.place, q.queue, count, pages, prev)
		}
	}
	for _, l := range []struct {
		head  uint32
		place place
	}{{t.dirty, dirty}, {t.unused, unused}} {
		for s := l.head; s != none; s = t.entries[s].next {
			e := &t.entries[s]
			if e.place != l.place || seen[s] != unused || (e.pages > 0) != (l.place == dirty) || e.pins > 0 {
				return fmt.Errorf("slot %d: %+v in free list %d", s, e, l.place)
			}
			seen[s] = busy
		}
	}
	if err := t.checkOwners(); err != nil {
		return err
	}
	sum := int64(0)
	for s := range t.entries {
		e := &t.entries[s]
		sum += int64(e.pages)
		if seen[s] == unused && (e.place == inSmall || e.place == inMain || e.place == dirty) {
			return fmt.Errorf("slot %d: %+v is in no list", s, e)
		}
	}
	if sum != t.pages {
		return fmt.Errorf("%d pages, but %d are counted", sum, t.pages)
	}
	return nil
}

func (t *table) checkOwners() error {
	have := map[uint16]*owned{}
	for s := range t.entries {
		e := &t.entries[s]
		if e.owner == 0 {
			continue
		}
		if e.place != inSmall && e.place != inMain {
			return fmt.Errorf("slot %d: %+v belongs to a volume and is in no queue", s, e)
		}
		if have[e.owner] == nil {
			have[e.owner] = &owned{}
		}
		have[e.owner].pages += int64(e.pages)
		have[e.owner].count++
	}
	for _, o := range t.owners[1:] {
		ordered := map[uint32]bool{}
		for _, s := range o.order[o.head:] {
			if t.entries[s].owner == o.number {
				ordered[s] = true
			}
		}
		h := have[o.number]
		if h == nil {
			h = &owned{}
		}
		if o.pages != h.pages || o.count != h.count || o.coming < 0 || len(ordered) != o.count {
			return fmt.Errorf("owner %d: %d pages in %d blocks (%d in order, %d pages coming), counted are %d in %d", o.number, h.pages, h.count, len(ordered), o.coming, o.pages, o.count)
		}
		delete(have, o.number)
	}
	if len(have) > 0 {
		return fmt.Errorf("blocks of unknown owners: %v", have)
	}
	return nil
}
