package fuse

import (
	"fmt"
	"testing"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage/memory"
)

// TestOpenQuestionsStaySmall: a directory that somebody has read and holds open is a
// question for as long as that; what outdates it meanwhile is not kept for ever.
func TestOpenQuestionsStaySmall(t *testing.T) {
	c := mount(t, memory.NewBucket(1<<30).Volume())
	fh := c.opendir(1)
	defer c.fs.ReleaseDir(&gofuse.ReleaseIn{InHeader: header(1), Fh: fh})
	if _, st := c.readdir(1, fh, 0, 4096); !st.Ok() {
		t.Fatal(st)
	}
	for i := range 5000 {
		name := fmt.Sprint("f", i)
		id, st := c.create(1, name)
		c.ok("create", st)
		c.ok("close", c.close(id))
		h := header(1)
		c.ok("unlink", c.fs.Unlink(nil, &h, name))
		c.fs.Forget(id, 1)
	}
	c.fs.table.mu.Lock()
	defer c.fs.table.mu.Unlock()
	for a := range c.fs.table.asks.open {
		if len(a.places)+len(a.nodes) > 4096 {
			t.Errorf("%d names and %d files are kept for a question", len(a.places), len(a.nodes))
		}
	}
}
