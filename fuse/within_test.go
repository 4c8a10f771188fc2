package fuse

import (
	"context"
	"testing"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// TestAskedWithinRename: who asks for an open file while it is renamed here may find it
// under the new name already, or under no name that we know: it has the new one then.
func TestAskedWithinRename(t *testing.T) {
	for _, how := range []string{"stat", "look-up of the old name", "look-up of the new name"} {
		t.Run(how, func(t *testing.T) {
			bucket := memory.NewBucket(1 << 30)
			v := bucket.Volume()
			store := &renaming{Files: v.Files}
			v.Files = store
			c := mount(t, v)
			id, st := c.create(1, "f")
			c.ok("create", st)
			store.within = func() {
				switch how {
				case "stat":
					c.fs.table.get(id).doubt()
					_, st := c.attr(id)
					c.ok("stat", st)
				case "look-up of the old name":
					if _, st := c.lookup(1, "f"); st != gofuse.ENOENT {
						t.Errorf("look-up: %v", st)
					}
				default:
					got, st := c.lookup(1, "g")
					if c.ok("look-up", st); got != id {
						t.Errorf("node %d is found, not %d", got, id)
					}
				}
			}
			c.ok("rename", c.mv(1, "f", "g"))
			c.ok("write", c.write(id, []byte("after!"), 0))
			c.ok("close", c.close(id))
			if e, err := bucket.Volume().Files.Lookup(t.Context(), "g"); err != nil || string(e.Inline) != "after!" {
				t.Errorf("it holds %q, %v", e.Inline, err)
			}
			if c.fs.table.child(c.fs.table.root, "f") != nil {
				t.Error("it has the old name still")
			}
		})
	}
}

// renaming is a store that does something when a rename is carried out and not yet
// answered.
type renaming struct {
	storage.Files
	within func()
}

func (s *renaming) Rename(ctx context.Context, from, to storage.Path, source storage.Entry, target *storage.Entry, o *storage.Orphan) error {
	err := s.Files.Rename(ctx, from, to, source, target, o)
	s.within()
	return err
}
