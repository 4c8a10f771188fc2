package fuse

import (
	"bytes"
	"context"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// strict refuses an update of what was not read, as a filer's client does.
type strict struct{ storage.Files }

func (s strict) Update(ctx context.Context, p storage.Path, e storage.Entry) (storage.Entry, error) {
	if e.Origin == nil {
		return e, storage.Errorf(storage.Invalid, "update of %q without having read it", p)
	}
	return s.Files.Update(ctx, p, e)
}

// TestCloseOfWhatWasNotAskedFor: a session ends right after a take-over, with handles
// that the kernel never released. What was written is committed all the same.
func TestCloseOfWhatWasNotAskedFor(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	v := bucket.Volume()
	v.Files = strict{v.Files}
	c := begin(t, v)
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("write", c.write(id, bytes.Repeat([]byte("a"), 100_000), 0))
	c.ok("close", c.close(id))
	c.ok("open", c.open(id))
	c.ok("write", c.write(id, []byte("behind"), 100_000))
	c = c.crash(false)
	if err := c.fs.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	e, err := bucket.Volume().Files.Lookup(t.Context(), "f")
	if err != nil || e.Size != 100_006 {
		t.Errorf("%d bytes in the store, %v", e.Size, err)
	}
	next := mount(t, bucket.Volume())
	again, st := next.lookup(1, "f")
	next.ok("look-up", st)
	if got := next.read(again, 99_999, 10); string(got) != "abehind" {
		t.Errorf("read %q", got)
	}
}
