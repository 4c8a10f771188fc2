package fuse

import (
	"context"
	"testing"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// tardy is a store that carries changes of names out when it is told to, long after
// their mounter has died.
type tardy struct {
	storage.Files
	arrive func() error
}

func (s *tardy) Remove(ctx context.Context, p storage.Path, e storage.Entry, o *storage.Orphan) error {
	return s.send(ctx, func(ctx context.Context) error { return s.Files.Remove(ctx, p, e, o) })
}

func (s *tardy) Rename(ctx context.Context, from, to storage.Path, source storage.Entry, target *storage.Entry, o *storage.Orphan) error {
	return s.send(ctx, func(ctx context.Context) error { return s.Files.Rename(ctx, from, to, source, target, o) })
}

func (s *tardy) send(ctx context.Context, do func(context.Context) error) error {
	if s.arrive != nil { // the first one alone
		return do(ctx)
	}
	s.arrive = func() error { return do(context.WithoutCancel(ctx)) }
	return storage.Errorf(storage.Unavailable, "no answer")
}

// TestLateChangeOfNames: a removal, or a rename, of a dead mounter is carried out
// after its successor has found it not made. Asked again, it is done, and not done
// twice; what the open file needs is there until its last close.
func TestLateChangeOfNames(t *testing.T) {
	for _, op := range []string{"unlink", "rename"} {
		for _, foreign := range []bool{false, true} {
			name := op + map[bool]string{true: ", and somebody has made another one since"}[foreign]
			t.Run(name, func(t *testing.T) { lateChange(t, op, foreign) })
		}
	}
}

func lateChange(t *testing.T, op string, foreign bool) {
	bucket := memory.NewBucket(1 << 30)
	v := bucket.Volume()
	store := &tardy{Files: v.Files}
	v.Files = store
	c := begin(t, v)
	open, st := c.create(1, "open")
	c.ok("create", st)
	want := streamed(100 << 10)
	c.stream(open, want, 0)
	c.ok("fsync", c.fsync(open))
	moved, st := c.create(1, "moved")
	c.ok("create", st)
	c.ok("close", c.close(moved))
	change := func(h gofuse.InHeader) gofuse.Status {
		if op == "unlink" {
			return c.fs.Unlink(nil, &h, "open")
		}
		return c.fs.Rename(nil, &gofuse.RenameIn{InHeader: h, Newdir: 1}, "moved", "open")
	}
	h := header(1)
	h.Unique = 50
	if st := change(h); st != gofuse.EIO {
		t.Fatalf("without an answer: %v", st)
	}
	c = c.crash(false)
	if err := c.fs.settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := store.arrive(); err != nil {
		t.Fatal(err)
	}
	other := bucket.Volume()
	if foreign && op == "unlink" {
		if _, err := other.Files.Create(t.Context(), "open", storage.Entry{Mode: 0o644, Inode: 7}, false); err != nil {
			t.Fatal(err)
		}
	}
	if foreign && op == "rename" {
		if _, err := other.Files.Create(t.Context(), "moved", storage.Entry{Mode: 0o644, Inode: 7}, false); err != nil {
			t.Fatal(err)
		}
	}
	c.ok("asked again", change(again(header(1), 50)))
	c.ok("write", c.write(open, []byte("!"), 0))
	c.ok("fsync", c.fsync(open))
	copy(want, "!")
	c.same("by its handle", open, want)
	c.ok("close", c.close(open))
	p, inode := storage.Path("open"), uint64(7)
	if op == "rename" {
		inode = moved
	}
	if e, err := other.Files.Lookup(t.Context(), p); op == "rename" || foreign {
		if err != nil || e.Inode != inode {
			t.Errorf("%q is %d, %v, want %d", p, e.Inode, err, inode)
		}
	}
	if _, err := other.Files.Lookup(t.Context(), "moved"); foreign && op == "rename" && err != nil {
		t.Errorf("the other one: %v", err)
	}
	if n := bucket.ChunkCount(); n != 0 {
		t.Errorf("%d chunks stay", n)
	}
	c.end()
}

// TestReplayedAfterForeignRename: what a dead mounter made was renamed by somebody
// else before the request is asked for again. The file that is made now is another
// one: two of one number would be taken for each other.
func TestReplayedAfterForeignRename(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	c := begin(t, bucket.Volume())
	h := header(1)
	h.Unique = 60
	var made gofuse.CreateOut
	c.ok("create", c.fs.Create(nil, &gofuse.CreateIn{InHeader: h, Mode: 0o644}, "f", &made))
	c = c.crash(false)
	b := mount(t, bucket.Volume())
	_, st := b.lookup(1, "f")
	b.ok("lookup", st)
	b.ok("rename", b.fs.Rename(nil, &gofuse.RenameIn{InHeader: header(1), Newdir: 1}, "f", "g"))
	var now gofuse.CreateOut
	c.ok("create, asked again", c.fs.Create(nil, &gofuse.CreateIn{InHeader: again(header(1), 60), Mode: 0o644}, "f", &now))
	c.ok("write", c.write(now.NodeId, []byte("mine"), 0))
	c.ok("close", c.close(now.NodeId))
	g, st := c.lookup(1, "g")
	c.ok("lookup", st)
	if g == now.NodeId {
		t.Error("two files have one number")
	}
	c.same("the other name", g, nil)
	f, st := c.lookup(1, "f")
	c.ok("lookup", st)
	c.same("the new file", f, []byte("mine"))
	// And once more: what was made the second time is found by its own number.
	c = c.crash(false)
	c.ok("create, asked a third time", c.fs.Create(nil, &gofuse.CreateIn{InHeader: again(header(1), 60), Mode: 0o644}, "f", &made))
	if made.NodeId != now.NodeId {
		t.Errorf("node %d, was %d", made.NodeId, now.NodeId)
	}
	c.end()
}
