package fuse

import (
	"slices"
	"sort"

	"github.com/holdfast-csi/holdfast/storage"
)

// What a file takes of its volume, with what is not committed. A file that has
// something staged and is small is committed as a whole, so its holes count.

// storedLocked is what the volume's entries hold of n: nothing when it has no name.
func (n *node) storedLocked() int64 {
	if n.mu.kept {
		return 0
	}
	return n.mu.entry.Held
}

// takesLocked is what n takes.
func (n *node) takesLocked() int64 { return n.storedLocked() + n.mu.grown }

// recountLocked counts anew what n takes over what its entry holds, whether there
// is room for it or not.
func (n *node) recountLocked() {
	grown := int64(0)
	switch size := n.sizeLocked(); {
	case n.mu.stage == nil && n.mu.kept:
		grown = n.mu.entry.Held
	case n.mu.stage == nil:
	case size <= smallFile:
		grown = size - n.storedLocked()
	default:
		spans, _ := n.filledLocked()
		for _, d := range spans {
			grown += d.to - d.from
		}
		grown -= n.storedLocked()
	}
	if grown == n.mu.grown {
		return
	}
	n.room.stage(grown - n.mu.grown)
	n.mu.grown = grown
}

// growthLocked is how much more n takes when d is written.
func (n *node) growthLocked(d span) int64 {
	size := n.sizeLocked()
	switch after := max(size, d.to); {
	case after <= smallFile:
		return after - n.takesLocked()
	case d.from >= size && size > smallFile:
		return d.to - d.from
	case size <= smallFile:
		spans, _ := n.filledLocked()
		grown := -n.takesLocked()
		for _, s := range addSpan(spans, d) {
			grown += s.to - s.from
		}
		return grown
	}
	return n.missingLocked(d)
}

// takeLocked sets aside what n takes more when d is written. With some, a part of d
// will do, when all of it is new.
func (n *node) takeLocked(d span, some bool) (span, error) {
	grow := n.growthLocked(d)
	if grow <= 0 {
		n.room.stage(grow)
	} else if !n.room.take(grow) {
		need := grow
		if grow = 0; some && need == d.to-d.from {
			grow = n.room.takeSome(need)
		}
		if grow == 0 {
			return span{}, noRoom{need}
		}
		d.to = d.from + grow
	}
	n.mu.grown += grow
	return d, nil
}

// takeSizeLocked is takeLocked for a size that is set. A truncation is never refused.
func (n *node) takeSizeLocked(size int64) error {
	grow := size - n.takesLocked()
	if size > smallFile || size <= n.sizeLocked() || grow <= 0 {
		return nil
	}
	if !n.room.take(grow) {
		return noRoom{grow}
	}
	n.mu.grown += grow
	return nil
}

// missingLocked is how much of d no byte was written to.
func (n *node) missingLocked(d span) int64 {
	e, base := n.mu.entry, n.mu.entry.Size
	rest := []span{d}
	if s := n.mu.stage; s != nil {
		base = s.base
		for i := sort.Search(len(s.dirty), func(i int) bool { return s.dirty[i].to > d.from }); i < len(s.dirty) && s.dirty[i].from < d.to; i++ {
			rest = cutSpans(rest, s.dirty[i])
		}
		for _, c := range s.laid {
			if c.Offset < d.to && c.End() > d.from {
				rest = cutSpans(rest, span{c.Offset, c.End()})
			}
		}
	}
	if len(rest) > 0 && len(e.Inline) > 0 {
		rest = cutSpans(rest, span{0, min(int64(len(e.Inline)), base)})
	} else if len(rest) > 0 && d.from < base {
		layout := n.layout(e)
		for i := storage.Find(layout, d.from); i < len(layout) && layout[i].Offset < min(d.to, base); i++ {
			rest = cutSpans(rest, span{layout[i].Offset, min(layout[i].End(), base)})
		}
	}
	missing := int64(0)
	for _, m := range rest {
		missing += m.to - m.from
	}
	return missing
}

// recount is recountLocked for who does not hold the lock.
func (n *node) recount() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.recountLocked()
}

// takes is takesLocked for who does not hold the lock.
func (n *node) takes() int64 {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.takesLocked()
}

// missing is missingLocked for who does not hold the lock.
func (n *node) missing(d span) int64 {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.missingLocked(d)
}

// holesIn is how much of d a layout shows nothing of.
func holesIn(layout []storage.Extent, d span) int64 {
	missing := d.to - d.from
	for i := storage.Find(layout, d.from); i < len(layout) && layout[i].Offset < d.to; i++ {
		missing -= min(layout[i].End(), d.to) - max(layout[i].Offset, d.from)
	}
	return missing
}

// clip returns what of spans lies within d.
func clip(spans []span, d span) []span {
	spans = slices.Clone(spans)
	spans = cutSpans(spans, span{0, d.from})
	return cutSpans(spans, span{d.to, uncut})
}
