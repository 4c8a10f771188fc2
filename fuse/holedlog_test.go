package fuse

import (
	"path/filepath"
	"syscall"
	"testing"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/fuse/leftovers"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// TestChunksOutliveAHole: a commit whose end could not be noted is made again by the
// next mounter, from chunks that are there still.
func TestChunksOutliveAHole(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	c, disk := beginSick(t, bucket.Volume(), t.TempDir())
	id, st := c.create(1, "f")
	c.ok("create", st)
	want := streamed(3 * storage.ChunkSize)
	c.stream(id, want, 0)
	c.land(id)
	const size = 10 << 10 // written as a whole, and no longer in chunks of its stage
	c.ok("truncate", c.truncate(id, size))
	disk.fail(syscall.EIO, "append", "half", "reserved", "compact")
	c.ok("fsync", c.fsync(id))
	c = c.crash(false)
	c.same("afterwards", id, want[:size])
	c.ok("fsync", c.fsync(id))
	c.same("committed again", id, want[:size])
	c.end()
	checkChunks(t, bucket, "f")
}

// TestLeftoverOutlivesAHole: what was kept aside, and could not be noted as such, is
// kept aside again by the next mounter, and is whole.
func TestLeftoverOutlivesAHole(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	c, disk := beginSick(t, bucket.Volume(), t.TempDir())
	other := mount(t, bucket.Volume())
	dir := c.fs.opts.Dir
	id, st := c.create(1, "f")
	c.ok("create", st)
	want := streamed(storage.ChunkSize)
	c.stream(id, want, 0)
	c.land(id)
	h := header(1)
	other.ok("unlink", other.fs.Unlink(nil, &h, "f"))
	disk.fail(syscall.EIO, "append", "half", "reserved", "compact")
	if st := c.close(id); st != gofuse.Status(syscall.ESTALE) {
		t.Errorf("close: %v", st)
	}
	c.fs.sweep(t.Context())
	c = c.crash(false)
	c.fs.Release(nil, &gofuse.ReleaseIn{InHeader: header(id)})
	c.fs.sweep(t.Context())
	c.end()
	kept, err := filepath.Glob(filepath.Join(dir, leftovers.Dir, "*[0-9]"))
	if err != nil || len(kept) == 0 {
		t.Fatalf("kept: %q, %v", kept, err)
	}
	for _, p := range kept {
		if got := readFile(t, p); string(got) != string(want) {
			t.Errorf("%s has %d bytes that differ", p, len(got))
		}
	}
	if n := bucket.ChunkCount(); n != 0 {
		t.Errorf("%d chunks stay", n)
	}
}

// TestRefusedRemovalIsForgotten: a removal, or a rename over a file, that could not
// be written down was never begun. When somebody else takes the file away, what was
// written to it is kept aside, and nobody is told that it was committed.
func TestRefusedRemovalIsForgotten(t *testing.T) {
	for _, kind := range []recordKind{recRedo, recKept} {
		for _, op := range []string{"unlink", "rename"} {
			bucket := memory.NewBucket(1 << 30)
			c, disk := beginSick(t, bucket.Volume(), t.TempDir())
			other := mount(t, bucket.Volume())
			id, st := c.create(1, "f")
			c.ok("create", st)
			g, st := c.create(1, "g")
			c.ok("create", st)
			c.ok("close", c.close(g))
			disk.failKind(kind)
			h := header(1)
			if op == "unlink" {
				st = c.fs.Unlink(nil, &h, "f")
			} else {
				st = c.fs.Rename(nil, &gofuse.RenameIn{InHeader: h, Newdir: 1}, "g", "f")
			}
			if st != gofuse.Status(syscall.ENOSPC) {
				t.Errorf("%s on a full disk: %v", op, st)
			}
			disk.fail(nil)
			disk.failKind(0)
			c.ok("write", c.write(id, []byte("mine"), 0))
			if err := c.fs.compact(); err != nil {
				t.Fatal(err)
			}
			other.ok("unlink", other.fs.Unlink(nil, &h, "f"))
			c = c.crash(false)
			if st := c.fsync(id); st != gofuse.Status(syscall.ESTALE) {
				t.Errorf("%s, kind %d: fsync of a file that somebody else removed: %v", op, kind, st)
			}
			c.end()
			if left, _ := c.fs.Leftovers(); left == 0 {
				t.Errorf("%s, kind %d: what was written is not kept", op, kind)
			}
		}
	}
}
