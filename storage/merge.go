package storage

import "slices"

// Merging turns many chunks into one, so that a file that is written a little at
// a time does not grow an entry without end: each commit sends all of it, and
// the filer compares and stores all of it. The bytes stay what they are; only
// what holds them changes. DECISIONS.md says where the numbers come from.

const (
	// maxMerged is how large a chunk merging makes at most, of files that are large
	// enough: it is held in memory as a whole.
	maxMerged = 16 << 20
	// minMerged is the smallest run that is looked for.
	minMerged = 64 << 10
	// mergeCost is what an update of the entry costs, as bytes that could be
	// written again in that time.
	mergeCost = 1 << 20
	// maxFilled is how large a hole a merged chunk may fill with zeros: it costs
	// less than a chunk more.
	maxFilled = 16 << 10
	// FewChunks are left alone: there is nothing to gain.
	FewChunks = 16
)

// blocks are what a file is divided into, from its beginning, the largest first.
// Each is four of the next, so what is appended a little at a time is written again
// once for each of them at most, and one of them is a chunk as it is streamed.
var blocks = [...]int64{4 * ChunkSize, ChunkSize, ChunkSize / 4, ChunkSize / 16, ChunkSize / 64}

// Merge is a run of a file that is to become one chunk.
type Merge struct {
	// From and To are the bytes of the file.
	From, To int64
	// Seen are the chunks that show something there.
	Seen []Chunk
	// Modified is the order of the new chunk: above those, below whatever is
	// written after they were looked at.
	Modified int64
}

// NextMerge returns what of a file is to be merged next: a block that has been
// filled, or, of a file with more chunks than spare and those that its content
// needs, the run that is best merged. ok is false when there is none.
func NextMerge(e *Entry, spare int) (m Merge, ok bool) {
	if len(e.Chunks) <= FewChunks {
		return Merge{}, false
	}
	layout := Layout(e.Chunks)
	if m, ok := filled(layout, content(e)); ok {
		return m, true
	}
	if !Crowd(e, spare) {
		return Merge{}, false
	}
	return crowded(layout, MergeLimit(content(e)), minMerged, maxFilled)
}

// filled finds a block that was filled a little at a time and is followed by
// others: it becomes one chunk. A chunk that is more than half of it is not
// written again for the rest, so each time the bytes of a chunk are written again
// it is for one that is twice as large or larger. A block is at most a quarter of
// what the file holds.
func filled(layout []Extent, held int64) (m Merge, ok bool) {
	if len(layout) == 0 {
		return Merge{}, false
	}
	parts := map[ChunkID]int{}
	for _, x := range layout {
		parts[x.Chunk.ID]++
	}
	for _, size := range blocks {
		if size > held/4 {
			continue
		}
		last := layout[len(layout)-1].Offset / size * size
		for from := 0; layout[from].Offset < last; {
			to, end := from, (layout[from].Offset/size+1)*size
			for layout[to].Offset < end {
				to++
			}
			if grows(layout[from:to], min(size+size/4, maxMerged), parts) {
				return merge(layout[from:to]), true
			}
			from = to
		}
	}
	return Merge{}, false
}

// grows reports whether the run of a layout, of at most limit bytes, is made of
// three chunks or more, of which none shows more than half of it. parts is how many
// extents show a chunk.
func grows(run []Extent, limit int64, parts map[ChunkID]int) bool {
	bytes := run[len(run)-1].End() - run[0].Offset
	if len(run) < 3 || bytes > limit {
		return false
	}
	shown, inside, gone := map[ChunkID]int64{}, map[ChunkID]int{}, 0
	for i, x := range run {
		id := x.Chunk.ID
		if i > 0 && x.Offset-run[i-1].End() > maxFilled {
			return false
		}
		if shown[id] += x.Size; shown[id] > bytes/2 {
			return false
		}
		if inside[id]++; inside[id] == parts[id] {
			gone++
		}
	}
	return gone >= 3
}

// MergeLimit is how large a chunk merging makes of a file with so many bytes: a
// small file is not written anew for a few bytes, and a large one has not many.
func MergeLimit(size int64) int64 {
	return min(max(size/32, ChunkSize), maxMerged)
}

// content is how many bytes the chunks of an entry hold, about: holes do not
// count, what is hidden does.
func content(e *Entry) int64 {
	held := int64(0)
	for _, c := range e.Chunks {
		held += c.Size
	}
	return min(held, e.Size)
}

// Crowd reports whether a file has more chunks than spare and those that its
// content needs: merging begins with one spare and ends with a smaller one.
func Crowd(e *Entry, spare int) bool {
	held := content(e)
	return len(e.Chunks) > spare+int(held/MergeLimit(held)*5/4)
}

// crowded finds the run of a file that is best merged: where the most chunks go
// for the fewest bytes written again. It looks at the longest runs of at most limit
// bytes, of a quarter of that, and so on down to least. Short runs of small chunks
// are the cheap ones; looking at every run would take the square of their number.
func crowded(layout []Extent, limit, least, filled int64) (m Merge, ok bool) {
	w := window{layout: layout, filled: filled, of: make([]int, len(layout))}
	number := map[ChunkID]int{}
	for i, x := range layout {
		at, known := number[x.Chunk.ID]
		if !known {
			at = len(number)
			number[x.Chunk.ID] = at
			w.parts = append(w.parts, 0)
		}
		w.of[i] = at
		w.parts[at]++
	}
	w.inside = make([]int, len(w.parts))
	best := 0.0
	var from, to int
	for ; limit >= least; limit /= 4 {
		w.slide(limit, func(i, j int) {
			bytes := layout[j-1].End() - layout[i].Offset
			if worth := float64(w.gone-1) / float64(bytes+mergeCost); worth > best {
				best, from, to = worth, i, j
			}
		})
	}
	if best == 0 {
		return Merge{}, false
	}
	return merge(layout[from:to]), true
}

// merge describes the merging of a run of a layout.
func merge(run []Extent) Merge {
	m := Merge{From: run[0].Offset, To: run[len(run)-1].End()}
	known := map[ChunkID]bool{}
	for _, x := range run {
		m.Modified = max(m.Modified, x.Chunk.Modified+1)
		if !known[x.Chunk.ID] {
			known[x.Chunk.ID] = true
			m.Seen = append(m.Seen, Chunk{ID: x.Chunk.ID, Offset: x.Chunk.Offset, Size: x.Chunk.Size, Modified: x.Chunk.Modified})
		}
	}
	return m
}

// window is a run of a layout that moves along it.
type window struct {
	layout []Extent
	// filled is how large a hole a run may have.
	filled int64
	// of is the chunk of each extent, by number; parts how many extents show a
	// chunk, inside how many of them are in the window, gone how many chunks have
	// all of them there.
	of, parts, inside []int
	gone              int
}

// slide calls each with every run of at most limit bytes that cannot be longer.
func (w *window) slide(limit int64, each func(from, to int)) {
	from := 0
	leave := func() {
		at := w.of[from]
		if w.inside[at] == w.parts[at] {
			w.gone--
		}
		w.inside[at]--
		from++
	}
	for i, x := range w.layout {
		if i > 0 && from < i && x.Offset-w.layout[i-1].End() > w.filled {
			each(from, i)
			for from < i {
				leave()
			}
		}
		if from < i && x.End()-w.layout[from].Offset > limit {
			each(from, i)
		}
		at := w.of[i]
		w.inside[at]++
		if w.inside[at] == w.parts[at] {
			w.gone++
		}
		for from <= i && x.End()-w.layout[from].Offset > limit {
			leave()
		}
	}
	if from < len(w.layout) {
		each(from, len(w.layout))
	}
	for from < len(w.layout) {
		leave()
	}
}

// Place gives the stored bytes of the run, as a chunk, their place in the file.
func (m Merge) Place(made Chunk) Chunk {
	made.Offset, made.Size, made.Modified = m.From, m.To-m.From, m.Modified
	return made
}

// Merged returns chunks with made, the chunk of Place, instead of those that it
// hides. ok is false when what was read for it is no longer what the file shows
// there: chunks have become shorter or have gone, or somebody has put new ones
// below it, by a clock that runs behind. What was written above it stays above.
func (m Merge) Merged(chunks []Chunk, made Chunk) (merged []Chunk, ok bool) {
	was := map[ChunkID]Chunk{}
	for _, c := range m.Seen {
		was[c.ID] = c
	}
	there := 0
	for _, c := range chunks {
		if w, ok := was[c.ID]; ok && w.Offset == c.Offset && w.Size == c.Size && w.Modified == c.Modified {
			there++
		}
	}
	if there != len(m.Seen) {
		return nil, false
	}
	layout := Layout(chunks)
	for _, x := range layout[Find(layout, m.From):] {
		if x.Offset >= m.To {
			break
		}
		if _, ok := was[x.Chunk.ID]; !ok && x.Chunk.Modified <= m.Modified {
			return nil, false
		}
	}
	return Visible(append(slices.Clone(chunks), made)), true
}
