package storage

// Punch makes a hole of the bytes from from to to. kept are the chunks that
// stay; again is what was seen behind the hole of chunks that reach over its
// end: it must be written again, as new chunks above kept, since a chunk cannot
// lose its head.
//
// What lost is a chunk of zeros over the hole: it takes the space that the hole
// was to free, and a file of 100 GiB has large ones. So does a mark that says
// "this chunk is a hole": the S3 gateway and weed's own mount would not know it.
func Punch(chunks []Chunk, from, to int64) (kept []Chunk, again []Extent) {
	kept = make([]Chunk, 0, len(chunks))
	over := map[ChunkID]bool{}
	for _, c := range chunks {
		switch {
		case c.End() <= from || c.Offset >= to:
			kept = append(kept, c)
			continue
		case c.Offset < from:
			kept = append(kept, c.cut(from))
		}
		if c.End() > to {
			over[c.ID] = true
		}
	}
	if len(over) == 0 {
		return kept, nil
	}
	layout := Layout(chunks)
	for _, e := range layout[Find(layout, to):] {
		if !over[e.Chunk.ID] {
			continue
		}
		if skip := to - e.Offset; skip > 0 {
			e.Offset, e.At, e.Size = e.Offset+skip, e.At+skip, e.Size-skip
		}
		again = append(again, e)
	}
	return kept, again
}
