package seaweed_test

import (
	"fmt"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// TestManyChunks: an entry with far more chunks than weed's own clients leave
// outside manifests is made, changed twice, looked up and listed.
func TestManyChunks(t *testing.T) {
	name, _ := newBucket(t)
	v := open(t).Volume(name, storage.VolumeID(name))
	const many = 25_000
	e := storage.Entry{Mode: 0o600, Native: true, Inode: 1 << 51, Size: many * 4096}
	for i := range int64(many) {
		e.Chunks = append(e.Chunks, storage.Chunk{ // no such chunks: nobody reads or frees them
			ID: storage.ChunkID(fmt.Sprintf("1,7f%014x%08x", i, 7)), Offset: i * 4096, Size: 4096, Modified: i + 1,
		})
	}
	made, err := v.Files.Create(t.Context(), "f", e, false)
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(2) {
		made.Size += 4096 // chunks that nobody sees are dropped by the filer
		made.Chunks = append(made.Chunks, storage.Chunk{ID: storage.ChunkID(fmt.Sprintf("1,7e%014x%08x", i, 7)), Offset: (many + i) * 4096, Size: 4096, Modified: many * 2})
		if made, err = v.Files.Update(t.Context(), "f", made); err != nil {
			t.Fatal(err)
		}
	}
	found, err := v.Files.Lookup(t.Context(), "f")
	if err != nil || len(found.Chunks) != many+2 {
		t.Errorf("%d chunks, %v", len(found.Chunks), err)
	}
	listed, err := v.Files.List(t.Context(), "", "", 10)
	if err != nil || len(listed) != 1 || len(listed[0].Chunks) != many+2 {
		t.Errorf("%d entries, %v", len(listed), err)
	}
}
