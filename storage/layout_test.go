package storage_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// TestLayoutModel compares Layout, Cut and Visible with bytes in memory under
// random writes and truncations.
func TestLayoutModel(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	for round := range 300 {
		const size = 200
		var chunks []storage.Chunk
		model := make([]string, size) // which byte of which chunk is seen
		for step := range 1 + rng.IntN(40) {
			if rng.IntN(8) == 0 {
				cut := rng.Int64N(size)
				chunks = storage.Cut(chunks, cut)
				clear(model[cut:])
			} else {
				off := rng.Int64N(size)
				n := 1 + rng.Int64N(size-off)
				id := storage.ChunkID(fmt.Sprint(step))
				chunks = append(chunks, storage.Chunk{ID: id, Offset: off, Size: n, Modified: storage.NextModified(chunks)})
				for i := range n {
					model[off+i] = fmt.Sprintf("%s+%d", id, i)
				}
			}
			if rng.IntN(5) == 0 {
				chunks = storage.Visible(chunks)
			}
			rng.Shuffle(len(chunks), func(i, j int) { chunks[i], chunks[j] = chunks[j], chunks[i] })
		}
		got := make([]string, size)
		end := int64(0)
		for _, e := range storage.Layout(chunks) {
			if e.Offset < end {
				t.Fatalf("seed %d round %d: extents overlap", seed, round)
			}
			end = e.End()
			for i := range e.Size {
				got[e.Offset+i] = fmt.Sprintf("%s+%d", e.Chunk.ID, e.At+i)
			}
		}
		for i := range got {
			if got[i] != model[i] {
				t.Fatalf("seed %d round %d: byte %d is %q, want %q", seed, round, i, got[i], model[i])
			}
		}
	}
}
