package fuse

import (
	"fmt"
	"testing"

	"github.com/holdfast-csi/holdfast/storage/memory"
)

// TestHalfReplaced: the store died when it had taken the target of a rename away and
// not yet put the file there, and so did the mounter. A name that is replaced is
// never without a file.
func TestHalfReplaced(t *testing.T) {
	for _, fresh := range []bool{false, true} {
		t.Run(fmt.Sprint("fresh ", fresh), func(t *testing.T) {
			bucket := memory.NewBucket(1 << 30)
			c := begin(t, bucket.Volume())
			var ids []uint64
			for _, name := range []string{"new", "old"} {
				id, st := c.create(1, name)
				c.ok("create", st)
				c.ok("write", c.write(id, []byte(name), 0))
				c.ok("close", c.close(id))
				ids = append(ids, id)
			}
			if err := c.fs.plan(&redo{
				Unique: 60, Op: redoRename, From: "new", To: "old", Dir: 1, Name: "new", ToDir: 1, ToName: "old",
				Node: ids[0], Inode: ids[0], Target: ids[1], TargetInode: ids[1],
			}); err != nil {
				t.Fatal(err)
			}
			others := bucket.Volume().Files
			e, err := others.Lookup(t.Context(), "old")
			if err == nil {
				err = others.Remove(t.Context(), "old", e, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			c = c.crash(fresh)
			id, st := c.lookup(1, "old")
			c.ok("look-up of the replaced name", st)
			if got := c.read(id, 0, 10); string(got) != "new" {
				t.Errorf("it reads %q", got)
			}
			if _, st := c.lookup(1, "new"); st.Ok() {
				t.Error("the old name is there still")
			}
		})
	}
}
