package storage

import (
	"cmp"
	"slices"
	"sort"
)

const (
	// ChunkSize is how much content one chunk holds at most as it is written: a
	// volume server gives receive buffers back that have grown past 4 MiB, and a
	// request has a head too. Merging makes larger ones of a large file.
	ChunkSize = 4<<20 - 64<<10
	// OrderStep is what NextModified adds: orders between are left for chunks that
	// merging puts above what they were made of and below what is written next.
	OrderStep = 1 << 20
)

// Extent is a run of bytes of a file that one chunk shows.
type Extent struct {
	// Offset in the file, and Size in bytes.
	Offset, Size int64
	// Chunk that holds the bytes, and At, the offset within it.
	Chunk Chunk
	At    int64
}

// End is the offset behind the last byte.
func (e Extent) End() int64 { return e.Offset + e.Size }

// End is the offset in the file behind the chunk's last byte.
func (c Chunk) End() int64 { return c.Offset + c.Size }

// Layout resolves overlapping chunks into what is seen of them: extents that do
// not overlap, by offset. Between them, and up to the size of the file, are
// holes, which read as zeros.
//
// It sweeps over the file: of the chunks that hold the byte at hand the one with
// the greatest order is seen, until it ends or a greater one begins. That is
// n log n however they overlap. Painting them one over the other in their order
// is shorter, and moves half of the list for each chunk.
func Layout(chunks []Chunk) []Extent {
	next := make([]int, 0, len(chunks)) // to come, by offset
	for i, c := range chunks {
		if c.Size > 0 {
			next = append(next, i)
		}
	}
	slices.SortFunc(next, func(i, j int) int {
		return cmp.Or(cmp.Compare(chunks[i].Offset, chunks[j].Offset), cmp.Compare(i, j))
	})
	seen := make([]Extent, 0, len(next))
	here := order{chunks: chunks} // those that hold at, and some that ended before
	at := int64(0)
	for len(here.heap) > 0 || len(next) > 0 {
		if len(here.heap) == 0 {
			at = chunks[next[0]].Offset
		}
		for len(next) > 0 && chunks[next[0]].Offset <= at {
			here.push(next[0])
			next = next[1:]
		}
		top := here.heap[0]
		c := chunks[top]
		if c.End() <= at {
			here.pop()
			continue
		}
		end := c.End()
		for len(next) > 0 && chunks[next[0]].Offset < end {
			if here.above(next[0], top) {
				end = chunks[next[0]].Offset
				break
			}
			here.push(next[0])
			next = next[1:]
		}
		seen = append(seen, Extent{Offset: at, Size: end - at, Chunk: c, At: at - c.Offset})
		at = end
	}
	return seen
}

// order is a heap of chunks by number, the one that is seen before the others
// first. container/heap would box each number.
type order struct {
	chunks []Chunk
	heap   []int
}

// above reports whether chunk i hides chunk j: of equals the later one does.
func (o *order) above(i, j int) bool {
	if a, b := o.chunks[i].Modified, o.chunks[j].Modified; a != b {
		return a > b
	}
	return i > j
}

func (o *order) push(i int) {
	o.heap = append(o.heap, i)
	for at := len(o.heap) - 1; at > 0; {
		up := (at - 1) / 2
		if !o.above(o.heap[at], o.heap[up]) {
			return
		}
		o.heap[at], o.heap[up] = o.heap[up], o.heap[at]
		at = up
	}
}

// pop takes the first one away.
func (o *order) pop() {
	last := len(o.heap) - 1
	o.heap[0] = o.heap[last]
	o.heap = o.heap[:last]
	for at := 0; ; {
		best := at
		for _, down := range []int{2*at + 1, 2*at + 2} {
			if down < last && o.above(o.heap[down], o.heap[best]) {
				best = down
			}
		}
		if best == at {
			return
		}
		o.heap[at], o.heap[best] = o.heap[best], o.heap[at]
		at = best
	}
}

// Find returns the number of the first extent that ends behind off: of a layout
// the one that holds off, or the next one.
func Find(layout []Extent, off int64) int {
	return sort.Search(len(layout), func(i int) bool { return layout[i].End() > off })
}

// Visible returns the chunks of which something is seen, in their order. The
// others can be freed.
func Visible(chunks []Chunk) []Chunk {
	shown := map[ChunkID]bool{}
	for _, e := range Layout(chunks) {
		shown[e.Chunk.ID] = true
	}
	kept := make([]Chunk, 0, len(chunks))
	for _, c := range chunks {
		if shown[c.ID] {
			kept = append(kept, c)
		}
	}
	return kept
}

// Cut returns the chunks of a file that was truncated to size: those behind it
// are left out, the one across it loses its tail, and with it its MD5, which was
// that of the whole.
func Cut(chunks []Chunk, size int64) []Chunk {
	kept := make([]Chunk, 0, len(chunks))
	for _, c := range chunks {
		if c.Offset < size {
			kept = append(kept, c.cut(size))
		}
	}
	return kept
}

// cut takes away what lies from byte end of the file on.
func (c Chunk) cut(end int64) Chunk {
	if c.End() > end {
		c.Size, c.MD5 = end-c.Offset, nil
	}
	return c
}

// NextModified orders a new chunk above all of chunks, whatever the clocks of
// their writers say.
func NextModified(chunks []Chunk) int64 {
	next := int64(1)
	for _, c := range chunks {
		next = max(next, c.Modified+OrderStep)
	}
	return next
}
