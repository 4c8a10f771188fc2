package storage

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestMergedKeepsForeignWrites: what somebody writes while a run is read is seen
// afterwards, also when his clock runs behind those of the others.
func TestMergedKeepsForeignWrites(t *testing.T) {
	base := []Chunk{{ID: "slow", Offset: 0, Size: 10, Modified: 1000}, {ID: "fast", Offset: 10, Size: 10, Modified: 5_000_000}}
	m, ok := crowded(Layout(base), 64, 2, 0)
	if !ok || m.From != 0 || m.To != 20 {
		t.Fatalf("%+v, %t", m, ok)
	}
	made := m.Place(Chunk{ID: "made"})
	if made.Modified <= 5_000_000 || made.Modified >= NextModified(base) {
		t.Errorf("order %d, of chunks up to 5000000; the next one gets %d", made.Modified, NextModified(base))
	}
	behind := append(base[:2:2], Chunk{ID: "behind", Offset: 2, Size: 2, Modified: 2000})
	if _, ok := m.Merged(behind, made); ok {
		t.Error("a chunk by a clock that runs behind is hidden by the merged one")
	}
	above := append(base[:2:2], Chunk{ID: "above", Offset: 2, Size: 2, Modified: NextModified(base)})
	merged, ok := m.Merged(above, made)
	if !ok || len(merged) != 2 || Layout(merged)[1].Chunk.ID != "above" {
		t.Errorf("%v, %t", merged, ok)
	}
	for name, changed := range map[string][]Chunk{
		"gone": base[:1],
		"cut":  Cut(base, 15),
	} {
		if _, ok := m.Merged(changed, made); ok {
			t.Errorf("%s: merged all the same", name)
		}
	}
	if _, ok := m.Merged(merged, made); ok {
		t.Error("merged twice")
	}
}

// TestMergingStops: a file of chunks that are as large as they may be is not
// merged, nor is one whose holes are large, and no block because of a small part of
// it.
func TestMergingStops(t *testing.T) {
	var large, sparse, patched Entry
	for i := range int64(50) {
		large.Chunks = append(large.Chunks, Chunk{ID: ChunkID(fmt.Sprint(i)), Offset: i * blocks[0], Size: blocks[0], Modified: 1})
		sparse.Chunks = append(sparse.Chunks, Chunk{ID: ChunkID(fmt.Sprint(i)), Offset: i << 30, Size: 4096, Modified: 1})
	}
	patched.Chunks = slices.Clone(large.Chunks)
	for i := range int64(20) {
		patched.Chunks = append(patched.Chunks, Chunk{ID: ChunkID(fmt.Sprint("patch", i)), Offset: blocks[0] + i<<16, Size: 4096, Modified: 2})
	}
	large.Size, sparse.Size, patched.Size = 50*blocks[0], 50<<30, 50*blocks[0]
	for name, e := range map[string]*Entry{"large": &large, "sparse": &sparse, "patched": &patched} {
		if m, ok := NextMerge(e, 32); ok && name != "sparse" {
			t.Errorf("%s: %d-%d of %d chunks", name, m.From, m.To, len(m.Seen))
		}
		if m, ok := NextMerge(e, 0); ok && (name == "sparse" || m.To-m.From > maxMerged) {
			t.Errorf("%s, crowded: %d-%d of %d chunks", name, m.From, m.To, len(m.Seen))
		}
	}
	if Crowd(&large, 32) || !Crowd(&sparse, 32) {
		t.Error("what crowds is not counted by content")
	}
}

// TestMergingKeepsUp: a file that is written 4 KiB at a time, and merged as the
// mount merges it, keeps few chunks, and merging does not write without measure.
func TestMergingKeepsUp(t *testing.T) {
	for _, c := range []struct {
		name          string
		base, piece   int64
		commits, most int
		amplified     float64
		size          int64
		at            func(i int, size int64) int64
	}{
		{"append", 0, 4096, 100_000, 60, 5, 0, func(i int, _ int64) int64 { return int64(i) * 4096 }},
		{"append 10,000 bytes", 0, 10_000, 20_000, 50, 5, 0, func(i int, _ int64) int64 { return int64(i) * 10_000 }},
		{"random", 10 << 20, 4096, 2_000, 70, 60, 10 << 20, func(_ int, size int64) int64 { return rand.Int64N(size/4096) * 4096 }},
	} {
		e := Entry{Size: c.base}
		n := 0
		add := func(off, size, modified int64) Chunk {
			n++
			return Chunk{ID: ChunkID(fmt.Sprint(n)), Offset: off, Size: size, Modified: modified}
		}
		for at := int64(0); at < c.base; at += ChunkSize {
			e.Chunks = append(e.Chunks, add(at, min(ChunkSize, c.base-at), 1))
		}
		most, merges, wrote := 0, 0, int64(0)
		for i := range c.commits {
			off := c.at(i, c.size)
			e.Chunks = append(e.Chunks, add(off, c.piece, NextModified(e.Chunks)))
			if off < e.Size {
				e.Chunks = Visible(e.Chunks)
			}
			e.Size = max(e.Size, off+c.piece)
			most = max(most, len(e.Chunks))
			for spare := 32; i%8 == 7; {
				if Crowd(&e, 32) {
					spare = 28
				}
				m, ok := NextMerge(&e, spare)
				if !ok {
					break
				}
				made := m.Place(add(0, 0, 0))
				merges++
				wrote += made.Size
				if e.Chunks, ok = m.Merged(e.Chunks, made); !ok {
					t.Fatal("what was just read is not there")
				}
			}
		}
		amplified := float64(wrote) / float64(int64(c.commits)*c.piece)
		t.Logf("%s: at most %d chunks, %d mergings, %.1f bytes written by them for each byte written", c.name, most, merges, amplified)
		if most > c.most || amplified > c.amplified {
			t.Errorf("%s: want at most %d chunks and %.0f bytes", c.name, c.most, c.amplified)
		}
	}
}

func BenchmarkNextMerge(b *testing.B) {
	e := Entry{Chunks: many(100_000, false), Size: 100_000 * 4096}
	for b.Loop() {
		if _, ok := NextMerge(&e, 32); !ok {
			b.Fatal("nothing to merge")
		}
	}
}
