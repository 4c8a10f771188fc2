package fuse

import (
	"context"
	"io/fs"
	"os"
	"sync"
	"testing"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/cache/journal"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestPatchIsDoneOnce: a mode that was set before a commit whose answer was lost is
// not set again by the next mounter: somebody else has set another one since.
func TestPatchIsDoneOnce(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	v := bucket.Volume()
	store := &lossy{Files: v.Files}
	v.Files = store
	a, b := begin(t, v), mount(t, bucket.Volume())
	id, st := a.create(1, "f")
	a.ok("create", st)
	set := func(c *caller, id uint64, valid uint32) {
		var out gofuse.AttrOut
		in := &gofuse.SetAttrIn{}
		in.InHeader, in.Valid, in.Mode, in.Mtime = header(id), valid, 0o600, 77
		if c == b {
			in.Mode = 0o640
		}
		c.ok("setattr", c.fs.SetAttr(nil, in, &out))
	}
	a.ok("write", a.write(id, []byte("data"), 0))
	set(a, id, gofuse.FATTR_MODE)
	store.expect(answerLost)
	if st := a.fsync(id); st != gofuse.EIO {
		t.Errorf("fsync without an answer: %v", st)
	}
	theirs, st := b.lookup(1, "f")
	b.ok("lookup", st)
	set(b, theirs, gofuse.FATTR_MODE)
	set(a, id, gofuse.FATTR_MTIME)
	a = a.crash(false)
	a.ok("fsync", a.fsync(id))
	e, err := bucket.Volume().Files.Lookup(t.Context(), "f")
	if err != nil || e.Mode != fs.FileMode(0o640) || !e.Mtime.Equal(time.Unix(77, 0)) {
		t.Errorf("mode %v, mtime %v, %v", e.Mode, e.Mtime, err)
	}
	a.end()
}

// TestCommitToldTwice: the journal is compacted around a commit whose answer is lost,
// so that it tells of it twice. What was written before the commit is not committed
// again, over what somebody else has written since.
func TestCommitToldTwice(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	v := bucket.Volume()
	store := &lossy{Files: v.Files}
	v.Files = store
	a, b := begin(t, v), mount(t, bucket.Volume())
	id, st := a.create(1, "f")
	a.ok("create", st)
	a.compactAround(func() {
		a.ok("write", a.write(id, []byte("aaaaaaaa"), 0))
		store.expect(answerLost)
		if st := a.fsync(id); st != gofuse.EIO {
			t.Errorf("fsync without an answer: %v", st)
		}
		a.ok("write", a.write(id, []byte("A"), 7))
	})
	theirs, st := b.lookup(1, "f")
	b.ok("lookup", st)
	b.ok("open", b.open(theirs))
	b.ok("write", b.write(theirs, []byte("b"), 0))
	b.ok("close", b.close(theirs))
	a = a.crash(false)
	if n := len(a.fs.table.get(id).mu.sent); n != 1 {
		t.Errorf("%d commits are in doubt", n)
	}
	a.ok("fsync", a.fsync(id))
	a.same("at last", id, []byte("baaaaaaA"))
	a.end()
}

// copied is what a mounter that dies now leaves on the node.
func copied(t *testing.T, c *caller) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(c.fs.opts.Dir)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// countRecords of a kind in the journal.
func countRecords(t *testing.T, c *caller, kind recordKind) (n int) {
	t.Helper()
	l, err := journal.Open(copied(t, c), func(b []byte) error {
		if recordKind(b[0]) == kind {
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

// slowChunks hold back an upload.
type slowChunks struct {
	storage.Chunks
	mu    sync.Mutex
	count int
	// held is closed when the second upload begins, which waits for free, and fails.
	held, free chan struct{}
}

func (s *slowChunks) Write(ctx context.Context, near storage.Path, data []byte) (storage.Chunk, error) {
	s.mu.Lock()
	s.count++
	second := s.count == 2
	s.mu.Unlock()
	if second {
		close(s.held)
		<-s.free
		return storage.Chunk{}, storage.Errorf(storage.Unavailable, "the mounter is dead")
	}
	return s.Chunks.Write(ctx, near, data)
}

// TestUploadsAreKnownAtOnce: a mounter dies within a commit of several chunks: the
// next one knows those that were uploaded, and none is left behind.
func TestUploadsAreKnownAtOnce(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	v := bucket.Volume()
	slow := &slowChunks{Chunks: v.Chunks, held: make(chan struct{}), free: make(chan struct{})}
	v.Chunks = slow
	c := begin(t, v)
	id, st := c.create(1, "f")
	c.ok("create", st)
	data := streamed(300 << 10)
	for _, at := range []int64{2 << 20, 1 << 20, 0} { // not in a row: nothing is uploaded beside it
		c.ok("write", c.write(id, data, at))
	}
	done := make(chan gofuse.Status)
	go func() { done <- c.fsync(id) }()
	<-slow.held
	eventually(t, "the other uploads", func() bool { return bucket.ChunkCount() == 2 })
	eventually(t, "their notes", func() bool { return countRecords(t, c, recLaid) == 2 })
	dir := copied(t, c)
	close(slow.free)
	if st := <-done; st != gofuse.EIO {
		t.Errorf("fsync of a dead mounter: %v", st)
	}
	c.fs.stop()
	c.fs.running.Wait()
	next := New(bucket.Volume(), Options{Dir: dir})
	if err := next.Recover(); err != nil {
		t.Fatal(err)
	}
	next.Start(silent{})
	c = &caller{t, next}
	c.ok("fsync", c.fsync(id))
	want := make([]byte, 2<<20+len(data))
	for _, at := range []int64{2 << 20, 1 << 20, 0} {
		copy(want[at:], data)
	}
	c.same("at last", id, want)
	checkChunks(t, bucket, "f")
	c.end()
}
