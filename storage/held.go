package storage

import (
	"cmp"
	"math"
	"slices"
)

// What a volume takes is the sum over its files of the bytes that they hold: those
// that were written and are seen. Holes and what is hidden below newer chunks do
// not count, a file with several names counts once. So a change in place costs
// nothing, whatever the chunks below it, and merging them changes nothing.
// DECISIONS.md says what lost.

// Share is what a name adds to what its volume takes.
type Share struct {
	// Held are the bytes of content.
	Held int64
	// LinkID is shared by the names of one file, of which there are Links.
	LinkID string
	Links  int
}

// Share returns that of an entry, as it was read.
func (e *Entry) Share() Share { return Share{e.Held, e.LinkID, e.Links} }

// Last reports whether the content goes with the name.
func (s Share) Last() bool { return s.LinkID == "" || s.Links <= 1 }

// Change returns how much more a volume takes when was gives way to now under one
// name; either may be nil.
func Change(was, now *Share) int64 {
	if was != nil && now != nil && was.LinkID == now.LinkID {
		return now.Held - was.Held
	}
	more := int64(0)
	if was != nil && was.Last() {
		more -= was.Held
	}
	// A new name of a file that has others adds nothing; a file that is about to get
	// its second one counts on.
	if now != nil && (now.LinkID == "" || was != nil) {
		more += now.Held
	}
	return more
}

// Holds counts the bytes that the content of an entry holds now. Adapters put it
// into Held of what they have read.
func Holds(e *Entry) int64 {
	size := int64(math.MaxInt64)
	if e.IsRegular() {
		size = e.Size
	}
	if len(e.Inline) > 0 {
		return min(int64(len(e.Inline)), size)
	}
	if held, ok := inOrder(e.Chunks, size); ok {
		return held
	}
	chunks := slices.Clone(e.Chunks)
	slices.SortFunc(chunks, func(a, b Chunk) int { return cmp.Compare(a.Offset, b.Offset) })
	held, end := int64(0), int64(0)
	for _, c := range chunks {
		from, to := max(c.Offset, end), min(c.End(), size)
		if to > from {
			held, end = held+to-from, to
		}
	}
	return held
}

// inOrder is Holds for chunks that do not overlap and lie by offset, as most do.
func inOrder(chunks []Chunk, size int64) (held int64, ok bool) {
	end := int64(0)
	for _, c := range chunks {
		if c.Offset < end {
			return 0, false
		}
		end = c.End()
		held += max(0, min(end, size)-c.Offset)
	}
	return held, true
}
