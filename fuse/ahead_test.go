package fuse

import (
	"bytes"
	"context"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// streamed returns bytes that do not repeat.
func streamed(n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{1})
	_, _ = src.Read(b)
	return b
}

// stream writes data from off on, in pieces.
func (c *caller) stream(id uint64, data []byte, off int64) {
	c.t.Helper()
	const piece = 128 << 10
	for at := 0; at < len(data); at += piece {
		c.ok("write", c.write(id, data[at:min(at+piece, len(data))], off+int64(at)))
	}
}

// land waits for the uploads of a file.
func (c *caller) land(id uint64) {
	c.t.Helper()
	if err := c.fs.landed(c.t.Context(), c.fs.table.get(id)); err != nil {
		c.t.Fatal(err)
	}
}

// TestUploadedAhead: what a sequential writer has behind it is in the store
// before anybody asks for it, and no longer on the node's disk; and it is read
// from there.
func TestUploadedAhead(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	c := mount(t, bucket.Volume())
	id, st := c.create(1, "f")
	c.ok("create", st)
	want := streamed(3*storage.ChunkSize + 100)
	c.stream(id, want, 0)
	c.land(id)
	if n := bucket.ChunkCount(); n != 3 {
		t.Errorf("%d chunks are in the store before the commit, want 3", n)
	}
	var disk syscall.Stat_t
	if err := syscall.Stat(c.fs.stagePathOf(c.fs.table.get(id)), &disk); err != nil {
		t.Fatal(err)
	}
	if disk.Blocks*512 > storage.ChunkSize {
		t.Errorf("the stage takes %d bytes of the disk", disk.Blocks*512)
	}
	if got := c.read(id, 0, int64(len(want))+1); !bytes.Equal(got, want) {
		t.Error("what was uploaded reads differently")
	}
	copy(want[storage.ChunkSize-3:], "over two chunks")
	c.ok("write", c.write(id, []byte("over two chunks"), storage.ChunkSize-3))
	c.ok("close", c.close(id))
	if got := c.read(id, 0, int64(len(want))+1); !bytes.Equal(got, want) {
		t.Error("what is committed reads differently")
	}
	checkChunks(t, bucket, "f")
}

// gated is a store whose uploads wait until they are let go.
type gated struct {
	storage.Chunks
	gate chan error
}

func (g *gated) Write(ctx context.Context, near storage.Path, data []byte) (storage.Chunk, error) {
	select {
	case err := <-g.gate:
		if err != nil {
			return storage.Chunk{}, err
		}
	case <-ctx.Done():
		return storage.Chunk{}, ctx.Err()
	}
	return g.Chunks.Write(ctx, near, data)
}

// TestWrittenWhileUploaded: a range that is written, or cut off, while it is on
// its way is what was written last.
func TestWrittenWhileUploaded(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	v := bucket.Volume()
	store := &gated{v.Chunks, make(chan error, 100)}
	v.Chunks = store
	c := mount(t, v)
	id, st := c.create(1, "f")
	c.ok("create", st)
	want := streamed(3 * storage.ChunkSize)
	c.stream(id, want, 0)
	n := c.fs.table.get(id)
	n.mu.RLock()
	flights := len(n.mu.stage.flights)
	n.mu.RUnlock()
	if flights != 3 {
		t.Fatalf("%d uploads under way, want 3", flights)
	}
	copy(want[100:], "written meanwhile")
	c.ok("write", c.write(id, []byte("written meanwhile"), 100))
	want = want[:3*storage.ChunkSize-10]
	c.ok("truncate", c.truncate(id, int64(len(want))))
	for range 50 {
		store.gate <- nil
	}
	c.land(id)
	for end := time.Now().Add(30 * time.Second); bucket.ChunkCount() != 1; { // freed after the landing
		if time.Now().After(end) {
			t.Fatalf("%d chunks are kept, want 1", bucket.ChunkCount())
		}
		runtime.Gosched()
	}
	c.ok("close", c.close(id))
	if got := c.read(id, 0, int64(len(want))+1); !bytes.Equal(got, want) {
		t.Error("reads differently")
	}
	checkChunks(t, bucket, "f")
}

// TestUploadAheadFails: the bytes stay on the node and go with the commit.
func TestUploadAheadFails(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	v := bucket.Volume()
	store := &gated{v.Chunks, make(chan error, 100)}
	v.Chunks = store
	c := mount(t, v)
	id, st := c.create(1, "f")
	c.ok("create", st)
	want := streamed(2 * storage.ChunkSize)
	store.gate <- nil
	store.gate <- storage.Errorf(storage.Unavailable, "away")
	c.stream(id, want, 0)
	c.land(id)
	for range 50 {
		store.gate <- nil
	}
	c.ok("close", c.close(id))
	if got := c.read(id, 0, int64(len(want))+1); !bytes.Equal(got, want) {
		t.Error("reads differently")
	}
	checkChunks(t, bucket, "f")
}

// TestUnlinkedWhileUploaded: nothing stays of a file that nobody will read.
func TestUnlinkedWhileUploaded(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	c := mount(t, bucket.Volume())
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.stream(id, streamed(3*storage.ChunkSize), 0)
	h := header(1)
	c.ok("unlink", c.fs.Unlink(nil, &h, "f"))
	c.ok("close", c.close(id))
	c.fs.stop()
	c.fs.running.Wait() // uploads that were under way
	if n := bucket.ChunkCount(); n != 0 {
		t.Errorf("%d chunks stay", n)
	}
}

// TestUploadsAreBounded: as many bytes are on their way as the node allows, for
// all file systems together.
func TestUploadsAreBounded(t *testing.T) {
	u := NewUploads(2 * storage.ChunkSize)
	v := memory.NewBucket(1 << 30).Volume()
	store := &gated{v.Chunks, make(chan error, 100)}
	v.Chunks = store
	c := mount(t, v)
	c.fs.opts.Uploads = u
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.stream(id, streamed(5*storage.ChunkSize), 0)
	n := c.fs.table.get(id)
	n.mu.RLock()
	if got := len(n.mu.stage.flights); got != 2 {
		t.Errorf("%d uploads are under way, want 2", got)
	}
	n.mu.RUnlock()
	for range 50 {
		store.gate <- nil
	}
	c.ok("close", c.close(id))
	ctx, done := context.WithTimeout(t.Context(), 30*time.Second)
	defer done()
	if err := u.room.Acquire(ctx, 2*storage.ChunkSize); err != nil {
		t.Errorf("room is not given back: %v", err)
	}
}

// TestStreamTakeOver streams a large file and overwrites it here and there while
// the mounter dies: what was uploaded is not lost, and nothing is left over.
func TestStreamTakeOver(t *testing.T) {
	rng := rand.New(rand.NewPCG(seedOf(t), 6))
	bucket := memory.NewBucket(1 << 30)
	c := begin(t, bucket.Volume())
	id, st := c.create(1, "f")
	c.ok("create", st)
	var want []byte
	for range 20 {
		switch rng.IntN(8) {
		case 0:
			c = c.crash(false)
		case 1:
			c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(id)}))
		case 2:
			size := rng.Int64N(int64(len(want)) + 1)
			c.ok("truncate", c.truncate(id, size))
			want = want[:size:size]
		case 3:
			off := rng.IntN(len(want) + 1)
			data := streamed(1 + rng.IntN(100<<10))
			c.ok("write", c.write(id, data, int64(off)))
			want = append(want, make([]byte, max(0, off+len(data)-len(want)))...)
			copy(want[off:], data)
		case 4:
			if err := c.fs.compact(); err != nil {
				t.Fatal(err)
			}
		default:
			data := streamed(1 + rng.IntN(3*storage.ChunkSize/2))
			data[0] = byte(rng.Uint32())
			c.stream(id, data, int64(len(want)))
			want = append(want, data...)
		}
		if rng.IntN(3) == 0 {
			if got := c.read(id, 0, int64(len(want))+1); !bytes.Equal(got, want) {
				t.Fatal("reads differently")
			}
		}
	}
	c = c.crash(true)
	if !c.fs.sweep(t.Context()) {
		t.Error("something waits still")
	}
	id, st = c.lookup(1, "f")
	c.ok("lookup", st)
	if got := c.read(id, 0, int64(len(want))+1); !bytes.Equal(got, want) {
		t.Error("reads differently after everything died")
	}
	checkChunks(t, bucket, "f")
	if err := c.fs.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// stuckFree is a store that frees nothing before it is let go.
type stuckFree struct {
	storage.Chunks
	asked, free chan struct{}
}

func (s *stuckFree) Delete(ctx context.Context, ids []storage.ChunkID) error {
	s.asked <- struct{}{}
	<-s.free
	return s.Chunks.Delete(ctx, ids)
}

// TestFreeingHoldsNobody: an upload that is void has its chunk freed, and neither
// the commit nor the uploads of other files wait for that.
func TestFreeingHoldsNobody(t *testing.T) {
	v := memory.NewBucket(1 << 30).Volume()
	gate := &gated{v.Chunks, make(chan error, 100)}
	stuck := &stuckFree{gate, make(chan struct{}, 100), make(chan struct{})}
	v.Chunks = stuck
	c := mount(t, v)
	defer close(stuck.free)
	defer close(gate.gate) // what the test leaves is committed
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.stream(id, streamed(storage.ChunkSize), 0)
	c.ok("write", c.write(id, []byte("void"), 5))
	gate.gate <- nil
	<-stuck.asked
	ctx, done := context.WithTimeout(t.Context(), 5*time.Second)
	defer done()
	if err := c.fs.landed(ctx, c.fs.table.get(id)); err != nil {
		t.Error("a commit would wait:", err)
	}
	if !c.fs.opts.Uploads.room.TryAcquire(uploadsInMemory) {
		t.Error("room for uploads is held")
	} else {
		c.fs.opts.Uploads.room.Release(uploadsInMemory)
	}
}
