package fuse

import (
	"bytes"
	"context"
	"testing"

	"github.com/holdfast-csi/holdfast/cache"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// alongChunks notes whose neighbours were told.
type alongChunks struct {
	storage.Chunks
	along
	told []int
}

func (a *alongChunks) ReadAlong(ctx context.Context, layout []storage.Extent, i int, b []byte, off int64) error {
	a.told = append(a.told, len(layout), i)
	return a.along.ReadAlong(ctx, layout, i, b, off)
}

// TestReadTellsTheLayout: the cache hears which chunks come before and after the
// one that is read, or it could not read ahead over the end of a chunk.
func TestReadTellsTheLayout(t *testing.T) {
	v := memory.NewBucket(1 << 30).Volume()
	c, err := cache.Open(t.Context(), cache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	chunks := c.Chunks(v.Chunks)
	seen := &alongChunks{Chunks: chunks, along: chunks.(along)}
	v.Chunks = seen
	data := pattern(100_000, 1)
	pieces(t, v, "f", data, 10_000)
	m := mount(t, v)
	id, st := m.lookup(1, "f")
	m.ok("lookup", st)
	m.ok("open", m.open(id))
	if got := m.read(id, 35_000, 10_000); !bytes.Equal(got, data[35_000:45_000]) {
		t.Error("read differs")
	}
	if len(seen.told) != 4 || seen.told[0] != 10 || seen.told[1] != 3 || seen.told[3] != 4 {
		t.Errorf("told was %v", seen.told)
	}
	m.ok("close", m.close(id))
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
