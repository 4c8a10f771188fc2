package storage

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// slowLayout is Layout byte by byte.
func slowLayout(chunks []Chunk, size int64) []Extent {
	var out []Extent
	for at := range size {
		top := -1
		for i, c := range chunks {
			if c.Offset <= at && at < c.End() && (top < 0 || c.Modified >= chunks[top].Modified) {
				top = i
			}
		}
		if top < 0 {
			continue
		}
		c := chunks[top]
		if n := len(out); n > 0 && out[n-1].Chunk.ID == c.ID && out[n-1].End() == at {
			out[n-1].Size++
			continue
		}
		out = append(out, Extent{Offset: at, Size: 1, Chunk: c, At: at - c.Offset})
	}
	return out
}

// TestLayoutReference compares Layout with the slow one, extent by extent, with
// equal orders, equal offsets and empty chunks among them.
func TestLayoutReference(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	for round := range 3000 {
		const size = 60
		var chunks []Chunk
		for i := range rng.IntN(20) {
			off := rng.Int64N(size)
			chunks = append(chunks, Chunk{ID: ChunkID(fmt.Sprint(i)), Offset: off, Size: rng.Int64N(size - off + 1), Modified: rng.Int64N(8)})
		}
		got, want := Layout(chunks), slowLayout(chunks, size)
		if len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d round %d: %v\n got %v\nwant %v", seed, round, chunks, got, want)
		}
		for off := range int64(size) {
			i := Find(got, off)
			if i > 0 && got[i-1].End() > off || i < len(got) && got[i].End() <= off {
				t.Fatalf("seed %d round %d: byte %d found in extent %d", seed, round, off, i)
			}
		}
	}
}

// many returns the chunks of a file that was written at random, 4 KiB at a time,
// in the order of their offsets or of their making.
func many(n int, sorted bool) []Chunk {
	rng := rand.New(rand.NewPCG(1, 1))
	chunks := []Chunk{{ID: "whole", Size: int64(n) * 4096}}
	for i := range n {
		chunks = append(chunks, Chunk{ID: ChunkID(fmt.Sprint(i)), Offset: rng.Int64N(int64(n)) * 4096, Size: 4096, Modified: int64(i)})
	}
	if sorted {
		slices.SortFunc(chunks, func(a, b Chunk) int { return cmp.Compare(a.Offset, b.Offset) })
	}
	return chunks
}

func BenchmarkLayout(b *testing.B) {
	for _, sorted := range []bool{false, true} {
		chunks := many(100_000, sorted)
		b.Run(fmt.Sprintf("100000/sorted=%t", sorted), func(b *testing.B) {
			for b.Loop() {
				Layout(chunks)
			}
		})
	}
}

func BenchmarkPunch(b *testing.B) {
	chunks := many(100_000, false)
	for b.Loop() {
		Punch(chunks, 1<<20, 300<<20)
	}
}
