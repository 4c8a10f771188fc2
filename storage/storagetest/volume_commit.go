package storagetest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// The part of the volume suite that is about one update after the other.

// testUpdateAgain: what Create and Update return is what the store holds now, so
// the next update can be conditioned on it, whatever the store fills in by
// itself.
func testUpdateAgain(t *testing.T, a, b storage.Volume) {
	e := write(t, a, "f", "0")
	for i := range 3 {
		c, err := a.Chunks.Write(t.Context(), "f", []byte(fmt.Sprint(i+1)))
		if err != nil {
			t.Fatal(err)
		}
		c.Offset, c.Modified = e.Size, storage.NextModified(e.Chunks)
		e.Chunks = append(e.Chunks, c)
		e.Size++
		e.MD5 = nil
		if e, err = a.Files.Update(t.Context(), "f", e); err != nil {
			t.Fatalf("update %d: %v", i+1, err)
		}
		if again := lookup(t, a, "f"); !slices.EqualFunc(e.Chunks, again.Chunks, func(x, y storage.Chunk) bool { return x.ID == y.ID && x.Offset == y.Offset }) {
			t.Fatalf("update %d gave %+v, looked up %+v", i+1, e.Chunks, again.Chunks)
		}
	}
	for range 2 { // one that changes nothing
		var err error
		if e, err = a.Files.Update(t.Context(), "f", e); err != nil {
			t.Fatalf("an update that changes nothing: %v", err)
		}
	}
	e.Mode = 0o600
	if _, err := a.Files.Update(t.Context(), "f", e); err != nil {
		t.Fatalf("update after one that changed nothing: %v", err)
	}
	if got := lookup(t, b, "f"); read(t, b, got) != "0123" || got.Mode != 0o600 {
		t.Errorf("after all updates: %+v", got)
	}
}

// testCommits: an entry says which writers changed it last, eight of them.
func testCommits(t *testing.T, a, b storage.Volume) {
	e := newFile(0)
	e.Commit(storage.Commit{Writer: 7, Number: 1})
	e = create(t, a, "f", e)
	for i := range uint64(10) {
		e.Commit(storage.Commit{Writer: 100 + i, Number: 1<<63 + i})
		e.Commit(storage.Commit{Writer: 109, Number: 5})
		var err error
		if e, err = a.Files.Update(t.Context(), "f", e); err != nil {
			t.Fatal(err)
		}
	}
	got := lookup(t, b, "f")
	if got.Committed(7) != 0 || got.Committed(101) != 0 || got.Committed(102) != 1<<63+2 || got.Committed(109) != 5 || got.Committed(5) != 0 {
		t.Errorf("commits %v", got.Commits)
	}
}
