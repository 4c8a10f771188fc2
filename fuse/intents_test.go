package fuse

import (
	"testing"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage/memory"
)

// TestIntentOutlivesHandles: a creation that waits for the store is remembered, however
// many handles are opened and closed meanwhile, which needs no store.
func TestIntentOutlivesHandles(t *testing.T) {
	c := begin(t, memory.NewBucket(1<<30).Volume())
	const unique = 2
	h := header(1)
	h.Unique = unique
	var out gofuse.EntryOut
	c.ok("mkdir", c.fs.Mkdir(nil, &gofuse.MkdirIn{InHeader: h, Mode: 0o755}, "d", &out))
	for i := range uint64(intentsKept + 1) { // the answer to it is not given yet
		h.Unique = 4 + 4*i
		var opened gofuse.OpenOut
		c.ok("opendir", c.fs.OpenDir(nil, &gofuse.OpenIn{InHeader: h}, &opened))
		h.Unique += 2
		c.fs.ReleaseDir(&gofuse.ReleaseIn{InHeader: h, Fh: opened.Fh})
	}
	for range 2 { // by the records, and by what a compaction has kept of them
		c = c.crash(false)
		var again gofuse.EntryOut
		h.Unique = unique | replayBit
		c.ok("mkdir, asked for again", c.fs.Mkdir(nil, &gofuse.MkdirIn{InHeader: h, Mode: 0o755}, "d", &again))
		if again.NodeId != out.NodeId {
			t.Errorf("node %d, want %d", again.NodeId, out.NodeId)
		}
	}
}
