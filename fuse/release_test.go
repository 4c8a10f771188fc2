package fuse

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// blind is a store that cannot be asked for a while.
type blind struct {
	storage.Files
	away *atomic.Bool
}

func (b blind) Lookup(ctx context.Context, p storage.Path) (storage.Entry, error) {
	if b.away.Load() {
		return storage.Entry{}, storage.Errorf(storage.Unavailable, "away")
	}
	return b.Files.Lookup(ctx, p)
}

// TestReleasedWhileTheStoreIsAway: the last handle is closed right after a take-over,
// while nothing can be learnt of the file. The handle is gone all the same, so what
// was written is committed when the store is back.
func TestReleasedWhileTheStoreIsAway(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	v := bucket.Volume()
	away := &atomic.Bool{}
	v.Files = blind{v.Files, away}
	c := begin(t, v)
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("write", c.write(id, []byte("data"), 0))
	away.Store(true)
	c = c.crash(false)
	c.fs.Release(nil, &gofuse.ReleaseIn{InHeader: header(id)})
	away.Store(false)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) { //nolint:forbidigo // of the house
		e, err := bucket.Volume().Files.Lookup(t.Context(), "f")
		if err == nil && string(e.Inline) == "data" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the file holds %q, %v", e.Inline, err)
		}
	}
	if err := c.fs.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
