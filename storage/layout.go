package storage

import (
	"cmp"
	"slices"
	"sort"
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

// Layout resolves overlapping chunks into what is seen of them: extents that do
// not overlap, by offset. Between them, and up to the size of the file, are
// holes, which read as zeros.
func Layout(chunks []Chunk) []Extent {
	order := make([]int, len(chunks))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(chunks[i].Modified, chunks[j].Modified) })
	var seen []Extent
	for _, i := range order {
		if c := chunks[i]; c.Size > 0 {
			seen = paint(seen, Extent{Offset: c.Offset, Size: c.Size, Chunk: c})
		}
	}
	return seen
}

// paint puts e over what is there.
func paint(seen []Extent, e Extent) []Extent {
	if n := len(seen); n == 0 || seen[n-1].End() <= e.Offset { // the file grows at its end
		return append(seen, e)
	}
	from := sort.Search(len(seen), func(i int) bool { return seen[i].End() > e.Offset })
	to := from
	put := make([]Extent, 0, 3)
	if from < len(seen) && seen[from].Offset < e.Offset {
		head := seen[from]
		head.Size = e.Offset - head.Offset
		put = append(put, head)
	}
	put = append(put, e)
	for to < len(seen) && seen[to].Offset < e.End() {
		if seen[to].End() > e.End() {
			tail := seen[to]
			cut := e.End() - tail.Offset
			tail.Offset, tail.At, tail.Size = tail.Offset+cut, tail.At+cut, tail.Size-cut
			put = append(put, tail)
		}
		to++
	}
	return slices.Replace(seen, from, to, put...)
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
// are left out, the one across it loses its tail.
func Cut(chunks []Chunk, size int64) []Chunk {
	kept := make([]Chunk, 0, len(chunks))
	for _, c := range chunks {
		if c.Offset >= size {
			continue
		}
		c.Size = min(c.Size, size-c.Offset)
		kept = append(kept, c)
	}
	return kept
}

// NextModified orders a new chunk above all of chunks, whatever the clocks of
// their writers say.
func NextModified(chunks []Chunk) int64 {
	next := int64(1)
	for _, c := range chunks {
		next = max(next, c.Modified+1)
	}
	return next
}
