package storage

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// file is a file of few bytes, as chunks and as the bytes that it should show.
type file struct {
	rng    *rand.Rand
	e      Entry
	stored map[ChunkID][]byte
	want   []byte
}

func newFile(rng *rand.Rand, size int) *file {
	return &file{rng: rng, stored: map[ChunkID][]byte{}, want: make([]byte, size), e: Entry{Size: int64(size)}}
}

// store keeps data as a chunk, with some bytes behind that it was cut from.
func (f *file) store(data []byte) Chunk {
	id := ChunkID(fmt.Sprint(len(f.stored)))
	f.stored[id] = append(slices.Clone(data), 0xee, 0xee)
	return Chunk{ID: id, Size: int64(len(data)), MD5: []byte(id)}
}

func (f *file) write() {
	off := f.rng.IntN(len(f.want))
	data := make([]byte, 1+f.rng.IntN(min(len(f.want)-off, 30)))
	for i := range data {
		data[i] = byte(1 + f.rng.IntN(200))
	}
	copy(f.want[off:], data)
	c := f.store(data)
	c.Offset, c.Modified = int64(off), NextModified(f.e.Chunks)
	f.e.Chunks = append(f.e.Chunks, c)
}

// show reads a run of the file by a layout.
func (f *file) show(t *testing.T, layout []Extent, from, to int64) []byte {
	t.Helper()
	out := make([]byte, to-from)
	end := int64(0)
	for _, x := range layout {
		if x.Offset < end || x.Size <= 0 {
			t.Fatalf("extents overlap, or are empty: %v", layout)
		}
		end = x.End()
		if at, to := max(x.Offset, from), min(end, to); at < to {
			copy(out[at-from:to-from], f.stored[x.Chunk.ID][x.At+at-x.Offset:])
		}
	}
	return out
}

func (f *file) cut() {
	at := f.rng.IntN(len(f.want))
	f.e.Chunks = Cut(f.e.Chunks, int64(at))
	clear(f.want[at:])
}

func (f *file) punch(t *testing.T) {
	from := f.rng.IntN(len(f.want))
	to := from + 1 + f.rng.IntN(len(f.want)-from)
	kept, again := Punch(f.e.Chunks, int64(from), int64(to))
	modified := NextModified(kept)
	for _, x := range again {
		if x.Offset < int64(to) {
			t.Fatalf("%d-%d is to be written again, before the end of the hole at %d", x.Offset, x.End(), to)
		}
		c := f.store(f.stored[x.Chunk.ID][x.At : x.At+x.Size])
		c.Offset, c.Modified = x.Offset, modified
		kept = append(kept, c)
	}
	f.e.Chunks = kept
	clear(f.want[from:to])
	for _, x := range Layout(kept) {
		if x.Offset < int64(to) && x.End() > int64(from) {
			t.Fatalf("bytes %d-%d lie in the hole %d-%d", x.Offset, x.End(), from, to)
		}
	}
}

// merge merges the run that seems best, with something written or cut after it
// was read.
func (f *file) merge(t *testing.T) {
	layout := Layout(f.e.Chunks)
	m, ok := crowded(layout, int64(4<<f.rng.IntN(8)), 2, int64(f.rng.IntN(10)))
	if !ok {
		return
	}
	made := m.Place(f.store(f.show(t, layout, m.From, m.To)))
	between := f.rng.IntN(4)
	before := len(Visible(f.e.Chunks))
	switch between {
	case 0:
		f.write()
	case 1:
		f.cut()
	}
	merged, ok := m.Merged(f.e.Chunks, made)
	if !ok {
		return
	}
	if between > 1 && len(merged) >= before {
		t.Fatalf("merging made %d chunks of %d", len(merged), before)
	}
	f.e.Chunks = merged
}

// TestModel compares what chunks show with bytes in memory, under random writes,
// truncations, holes and mergings.
func TestModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for round := range 500 {
		f := newFile(rng, 1+rng.IntN(300))
		for step := range 1 + rng.IntN(60) {
			switch rng.IntN(12) {
			case 0:
				f.cut()
			case 1:
				f.punch(t)
			case 2, 3:
				f.merge(t)
			case 4:
				f.e.Chunks = Visible(f.e.Chunks)
			default:
				f.write()
			}
			rng.Shuffle(len(f.e.Chunks), func(i, j int) { f.e.Chunks[i], f.e.Chunks[j] = f.e.Chunks[j], f.e.Chunks[i] })
			if got := f.show(t, Layout(f.e.Chunks), 0, int64(len(f.want))); !bytes.Equal(got, f.want) {
				t.Fatalf("seed %d round %d step %d:\n got %v\nwant %v", seed, round, step, got, f.want)
			}
			for _, c := range f.e.Chunks {
				if whole := int64(len(f.stored[c.ID])) - 2; (c.MD5 != nil) != (c.Size == whole) {
					t.Fatalf("seed %d round %d step %d: a chunk of %d bytes shows %d and has MD5 %q", seed, round, step, whole, c.Size, c.MD5)
				}
			}
		}
	}
}
