package fuse

import (
	"context"
	"testing"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// meanwhile is a store that lets something happen while it takes a name away.
type meanwhile struct {
	storage.Files
	do func()
}

func (s *meanwhile) Remove(ctx context.Context, p storage.Path, e storage.Entry, o *storage.Orphan) error {
	err := s.Files.Remove(ctx, p, e, o)
	s.do()
	return err
}

func (s *meanwhile) Rename(ctx context.Context, from, to storage.Path, source storage.Entry, target *storage.Entry, o *storage.Orphan) error {
	err := s.Files.Rename(ctx, from, to, source, target, o)
	s.do()
	return err
}

// TestClosedWhileRemoved: the kernel tells of the last close when it likes, also while
// the last name is being removed; then nobody else frees the content, and the volume
// would stay full of it.
func TestClosedWhileRemoved(t *testing.T) {
	for what, take := range map[string]func(*caller) gofuse.Status{
		"unlinked": func(c *caller) gofuse.Status {
			h := header(1)
			return c.fs.Unlink(nil, &h, "f")
		},
		"replaced": func(c *caller) gofuse.Status {
			return c.fs.Rename(nil, &gofuse.RenameIn{InHeader: header(1), Newdir: 1}, "other", "f")
		},
	} {
		t.Run(what, func(t *testing.T) {
			bucket := memory.NewBucket(1 << 30)
			v := bucket.Volume()
			store := &meanwhile{Files: v.Files}
			v.Files = store
			c := begin(t, v)
			other, st := c.create(1, "other")
			c.ok("create", st)
			c.ok("close", c.close(other))
			id, st := c.create(1, "f")
			c.ok("create", st)
			c.ok("write", c.write(id, make([]byte, 1<<20), 0))
			c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(id)}))
			store.do = func() { c.ok("close", c.close(id)) }
			c.ok(what, take(c))
			if n := bucket.ChunkCount(); n != 0 {
				t.Errorf("%d chunks stay", n)
			}
			if u, _, _ := c.fs.room.usage(); u.Used != 0 {
				t.Errorf("the volume holds %d bytes", u.Used)
			}
			if err := c.fs.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}
