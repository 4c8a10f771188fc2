package fuse

import (
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// TestTurnedInsideOut: others put a folder below one that was below it, where the
// path of the lower one stays. What is known of the two must not become a ring: a
// path would have no end, for the next mounter too.
func TestTurnedInsideOut(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	c := begin(t, bucket.Volume())
	a, st := c.mkdir(1, "a")
	c.ok("mkdir", st)
	b, st := c.mkdir(a, "b")
	c.ok("mkdir", st)

	others, ctx := bucket.Volume().Files, t.Context()
	move := func(from, to storage.Path) {
		t.Helper()
		e, err := others.Lookup(ctx, from)
		if err == nil {
			err = others.Rename(ctx, from, to, e, nil, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	move("a", "away")
	if _, err := others.Create(ctx, "a", storage.Entry{Mode: 0o755 | 1<<31, Inode: newInode(), Native: true}, false); err != nil {
		t.Fatal(err)
	}
	move("away/b", "a/b")
	move("away", "a/b/a")

	// Somebody stands in b, and asks for what is in it.
	if id, st := c.lookup(b, "a"); st.Ok() && id != a {
		t.Errorf("node %d, want %d", id, a)
	}
	for n, seen := c.fs.table.get(b), 0; n != nil && n != c.fs.table.root; seen++ {
		if seen > 3 {
			t.Fatal("the folders are a ring")
		}
		places := c.fs.table.names(n)
		if len(places) == 0 {
			break
		}
		n = places[0].dir
	}
	// Who comes from the root finds all.
	c = c.crash(false)
	at := uint64(1)
	for _, name := range []string{"a", "b", "a"} {
		at, st = c.lookup(at, name)
		c.ok("look-up", st)
	}
	if at != a {
		t.Errorf("a/b/a is node %d, want %d", at, a)
	}
}
