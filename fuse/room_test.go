package fuse

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// eventually waits until f reports true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: did not come", what)
		}
	}
}

// sumOf sums a volume up.
func sumOf(t *testing.T, files storage.Files) int64 {
	t.Helper()
	s := newSurvey()
	if err := storage.Survey(context.WithoutCancel(t.Context()), files, s.found); err != nil {
		t.Fatal(err)
	}
	return s.sum
}

// checkRoom compares the sum with a survey, and what is staged with the nodes. Files
// without a name are counted by their nodes.
func checkRoom(t *testing.T, fs *FS) {
	t.Helper()
	grown := int64(0)
	for _, n := range fs.table.all() {
		n.mu.Lock()
		was := n.mu.grown
		grown += was
		if n.recountLocked(); n.mu.grown != was {
			t.Errorf("node %d: %d bytes were counted over its entry, it is %d", n.id, was, n.mu.grown)
		}
		n.mu.Unlock()
	}
	fs.room.mu.Lock()
	staged := fs.room.mu.staged
	fs.room.mu.Unlock()
	if staged != grown {
		t.Errorf("%d bytes are staged, the nodes have %d", staged, grown)
	}
}

// counted waits for the first survey.
func (c *caller) counted() {
	c.t.Helper()
	<-c.fs.room.known
}

// taken is what the writers of a mount are held to.
func (c *caller) taken() int64 {
	u, _, _ := c.fs.room.usage()
	return u.Used
}

// put writes and says how much was taken.
func (c *caller) put(node uint64, n, off int64) (int64, gofuse.Status) {
	got, st := c.fs.Write(nil, &gofuse.WriteIn{InHeader: header(node), Offset: uint64(off)}, bytes.Repeat([]byte{7}, int(n)))
	return int64(got), st
}

func (c *caller) remove(dir uint64, name string) gofuse.Status {
	h := header(dir)
	return c.fs.Unlink(nil, &h, name)
}

func (c *caller) mv(dir uint64, from, to string) gofuse.Status {
	return c.fs.Rename(nil, &gofuse.RenameIn{InHeader: header(dir), Newdir: dir}, from, to)
}

const noSpace = gofuse.Status(syscall.ENOSPC)

func (c *caller) full(what string, st gofuse.Status) {
	c.t.Helper()
	if st != noSpace {
		c.t.Fatalf("%s: %v, want no space", what, st)
	}
}

// TestSizeIsALimit quotes SEMANTICS.md: write(2) gets ENOSPC, exactly when the volume
// is full, and everything that takes no room goes on.
func TestSizeIsALimit(t *testing.T) {
	const size = 1 << 20
	c := mount(t, memory.NewBucket(size).Volume())
	a, st := c.create(1, "a")
	c.ok("create", st)
	c.ok("write", c.write(a, make([]byte, size-100<<10), 0))
	b, st := c.create(1, "b")
	c.ok("create", st)
	c.ok("write", c.write(b, make([]byte, 99<<10), 0))
	if got, st := c.put(b, 4<<10, 99<<10); !st.Ok() || got != 1<<10 {
		t.Fatalf("the last KiB: %d bytes, %v", got, st)
	}
	_, st = c.put(b, 1, 100<<10)
	c.full("one byte more", st)
	_, st = c.put(a, 1, 1<<30)
	c.full("one byte behind a hole", st)
	c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(a)}))
	c.ok("close", c.close(b))
	_, st = c.put(a, 10, size-100<<10)
	c.full("after the commit", st)
	if c.taken() != size {
		t.Errorf("%d bytes are taken", c.taken())
	}

	// What takes no room.
	c.ok("overwrite", c.write(a, bytes.Repeat([]byte{1}, 300<<10), 1234))
	d, st := c.mkdir(1, "d")
	c.ok("mkdir", st)
	e, st := c.create(d, "empty")
	c.ok("create", st)
	c.ok("grow without bytes", c.truncate(e, 1<<40))
	c.full("allocate", c.fallocate(e, 0, 0, 1<<20))
	c.ok("cut", c.truncate(e, 0))
	c.full("grow a file that is small", c.truncate(e, 100))
	c.ok("rename", c.mv(1, "b", "c"))
	c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(a)}))

	// What gives room back.
	c.ok("punch", c.fallocate(a, fallocPunchHole|fallocKeepSize, 0, 128<<10))
	if c.taken() != size-128<<10 {
		t.Errorf("%d bytes are taken after a hole", c.taken())
	}
	c.ok("write into the hole", c.write(a, make([]byte, 128<<10), 0))
	_, st = c.put(e, 1, 0)
	c.full("then", st)
	c.ok("truncate", c.truncate(a, 200<<10))
	c.ok("write", c.write(e, make([]byte, 10<<10), 0))
	c.ok("truncate", c.truncate(e, 0))
	if want := int64(300 << 10); c.taken() != want {
		t.Errorf("%d bytes are taken after truncations, want %d", c.taken(), want)
	}
	c.ok("unlink", c.remove(1, "c"))
	if want := int64(200 << 10); c.taken() != want {
		t.Errorf("%d bytes are taken after unlink, want %d", c.taken(), want)
	}
	c.ok("unlink while open", c.remove(1, "a"))
	if want := int64(200 << 10); c.taken() != want {
		t.Errorf("%d bytes are taken after unlink while open, want %d", c.taken(), want)
	}
	c.ok("close", c.close(a))
	c.ok("close", c.close(e))
	if c.taken() != 0 {
		t.Errorf("%d bytes are taken after the last close", c.taken())
	}
}

// TestWritesOfMappingsAreWhole: the kernel would not write the rest of a page.
func TestWritesOfMappingsAreWhole(t *testing.T) {
	c := mount(t, memory.NewBucket(100<<10).Volume())
	a, st := c.create(1, "a")
	c.ok("create", st)
	c.ok("write", c.write(a, make([]byte, 98<<10), 0))
	page := &gofuse.WriteIn{InHeader: header(a), Offset: 98 << 10, WriteFlags: gofuse.WRITE_CACHE}
	if n, st := c.fs.Write(nil, page, make([]byte, 4096)); st != noSpace {
		t.Errorf("a page: %d bytes, %v", n, st)
	}
	add := &gofuse.WriteIn{InHeader: header(a), Flags: syscall.O_APPEND}
	if n, st := c.fs.Write(nil, add, make([]byte, 4096)); st != noSpace {
		t.Errorf("an append: %d bytes, %v", n, st)
	}
	c.ok("close", c.close(a))
}

// TestExpansionIsSeenAtOnce: a writer that was refused goes on as soon as the volume
// is larger.
func TestExpansionIsSeenAtOnce(t *testing.T) {
	bucket := memory.NewBucket(1 << 20)
	c := mount(t, bucket.Volume())
	a, st := c.create(1, "a")
	c.ok("create", st)
	c.ok("write", c.write(a, make([]byte, 1<<20), 0))
	_, st = c.put(a, 1, 1<<20)
	c.full("write", st)
	bucket.Expand(2 << 20)
	c.ok("write", c.write(a, make([]byte, 1<<20), 1<<20))
	_, st = c.put(a, 1, 2<<20)
	c.full("write", st)
	c.ok("close", c.close(a))
}

// TestOthersTakeRoom: what others write counts as soon as it is told of.
func TestOthersTakeRoom(t *testing.T) {
	bucket := memory.NewBucket(1 << 20)
	c := mount(t, bucket.Volume())
	c.counted()
	a, st := c.create(1, "a")
	c.ok("create", st)
	s3 := bucket.Volume()
	chunk, err := s3.Chunks.Write(t.Context(), "o", make([]byte, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	o, err := s3.Files.Create(t.Context(), "o", storage.Entry{Mode: 0o644, Size: 1 << 20, Chunks: []storage.Chunk{chunk}}, false)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "what was written over S3", func() bool { return c.taken() == 1<<20 })
	_, st = c.put(a, 1, 0)
	c.full("write", st)
	if err := s3.Files.Remove(t.Context(), "o", o, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what was removed over S3", func() bool { return c.taken() == 0 })
	c.ok("write", c.write(a, make([]byte, 1<<20), 0))
	c.ok("close", c.close(a))
}

// TestLimitOutlivesTheMounter: the next one knows the sum, with what is staged.
func TestLimitOutlivesTheMounter(t *testing.T) {
	vol := memory.NewBucket(1 << 20).Volume()
	silentStream := deaf{vol.Watcher, &atomic.Bool{}}
	vol.Watcher = silentStream
	c := begin(t, vol)
	c.counted()
	a, st := c.create(1, "a")
	c.ok("create", st)
	c.ok("write", c.write(a, make([]byte, 512<<10), 0))
	c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(a)}))
	c.ok("overwrite", c.write(a, make([]byte, 300<<10), 100<<10))
	c.ok("write", c.write(a, make([]byte, 412<<10), 512<<10))
	silentStream.deaf.Store(true) // no survey
	c = c.crash(false)
	b, st := c.create(1, "b")
	c.ok("create", st)
	if got, st := c.put(b, 200<<10, 0); !st.Ok() || got != 100<<10 {
		t.Errorf("%d bytes, %v, of 100 KiB that are left", got, st)
	}
	_, st = c.put(b, 1, 100<<10)
	c.full("write", st)
	c.ok("overwrite", c.write(a, make([]byte, 300<<10), 100<<10))
	checkRoom(t, c.fs)
	c.end()
}

// TestOldEventsAreNotCounted: a stream begins a little before, with what the mounter
// before has done and counted.
func TestOldEventsAreNotCounted(t *testing.T) {
	vol := memory.NewBucket(1 << 20).Volume()
	files := &heldLists{Files: vol.Files, open: make(chan struct{})}
	close(files.open)
	vol.Files = files
	old := storage.Place{Path: "a", Share: storage.Share{Held: 512 << 10}}
	told := make(chan struct{})
	vol.Watcher = late{vol.Watcher, storage.Event{New: &old}, sync.OnceFunc(func() { close(told) })}
	c := begin(t, vol)
	c.counted()
	a, st := c.create(1, "a")
	c.ok("create", st)
	c.ok("write", c.write(a, make([]byte, 512<<10), 0))
	c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(a)}))
	files.open = make(chan struct{}) // no survey ends
	c = c.crash(false)
	eventually(t, "the stream", c.fs.watched.Load)
	<-told
	if got, st := c.put(a, 512<<10, 512<<10); !st.Ok() || got != 512<<10 {
		t.Errorf("%d bytes, %v, of 512 KiB that are left", got, st)
	}
	c.ok("close", c.close(a))
	c.end()
}

// late is a stream that begins with what was before.
type late struct {
	storage.Watcher
	before storage.Event
	told   func()
}

// Watch implements storage.Watcher.
func (l late) Watch(ctx context.Context, ready func(), each func(storage.Event)) error {
	return l.Watcher.Watch(ctx, func() {
		ready()
		each(l.before)
		l.told()
	}, each)
}

// deaf is a stream that does not come up.
type deaf struct {
	storage.Watcher
	deaf *atomic.Bool
}

// Watch implements storage.Watcher.
func (d deaf) Watch(ctx context.Context, ready func(), each func(storage.Event)) error {
	if d.deaf.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	return d.Watcher.Watch(ctx, ready, each)
}

// TestUnknownIsNoLimit: while what the volume takes is not known, the store's figure
// counts; when that says full, a writer waits for the survey and is not refused.
func TestUnknownIsNoLimit(t *testing.T) {
	bucket := memory.NewBucket(1 << 20)
	vol := bucket.Volume()
	if _, err := vol.Chunks.Write(t.Context(), "garbage", make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	files := &heldLists{Files: vol.Files, open: make(chan struct{})}
	vol.Files = files
	c := mount(t, vol)
	a, st := c.create(1, "a")
	c.ok("create", st)
	done := make(chan gofuse.Status)
	go func() { _, st := c.put(a, 4096, 0); done <- st }()
	select {
	case st := <-done:
		t.Fatalf("write: %v before the survey", st)
	case <-time.After(firstSurvey + 500*time.Millisecond):
	}
	close(files.open)
	c.ok("write", <-done)
	c.ok("close", c.close(a))
}

// heldLists answers no list until it is opened.
type heldLists struct {
	storage.Files
	open chan struct{}
}

// List implements storage.Files.
func (f *heldLists) List(ctx context.Context, p storage.Path, after string, limit int) ([]storage.Entry, error) {
	select {
	case <-f.open:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return f.Files.List(ctx, p, after, limit)
}

// TestSumModel changes a volume at random by two mounts and over S3, with hard links,
// holes and open files, while it is surveyed: both sums come to be what a survey of
// the quiet volume says.
func TestSumModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(seedOf(t), 9))
	bucket := memory.NewBucket(1 << 40)
	a, b := mount(t, bucket.Volume()), mount(t, bucket.Volume())
	names := []string{"a", "b", "c", "d"}
	for step := range 600 {
		c := []*caller{a, b}[rng.IntN(2)]
		name, other := names[rng.IntN(4)], names[rng.IntN(4)]
		if step == 300 {
			a.counted()
			b.counted()
			a.fs.room.missed() // once more, under way
		}
		off, n := rng.Int64N(1<<20), 1+rng.Int64N(200<<10)
		switch rng.IntN(10) {
		case 0:
			_ = c.remove(1, name)
		case 1:
			_ = c.mv(1, name, other)
		case 2:
			if id, st := c.lookup(1, name); st.Ok() {
				var out gofuse.EntryOut
				_ = c.fs.Link(nil, &gofuse.LinkIn{InHeader: header(1), Oldnodeid: id}, other, &out)
			}
		case 3:
			v := bucket.Volume()
			chunk, err := v.Chunks.Write(t.Context(), "", make([]byte, n))
			if err != nil {
				t.Fatal(err)
			}
			if e, err := v.Files.Lookup(t.Context(), storage.Path(name)); err == nil {
				_ = v.Files.Remove(t.Context(), storage.Path(name), e, nil)
			}
			_, _ = v.Files.Create(t.Context(), storage.Path(name), storage.Entry{Mode: 0o644, Size: n, Chunks: []storage.Chunk{chunk}}, false)
		default:
			id, st := c.lookup(1, name)
			if st == gofuse.ENOENT {
				if id, st = c.create(1, name); !st.Ok() {
					continue
				}
			} else if !st.Ok() || !c.open(id).Ok() {
				continue
			}
			for range 1 + rng.IntN(3) {
				switch rng.IntN(5) {
				case 0:
					_ = c.truncate(id, off)
				case 1:
					_ = c.fallocate(id, fallocPunchHole|fallocKeepSize, off, n)
				default:
					_, _ = c.put(id, n, off)
				}
				off = rng.Int64N(1 << 20)
			}
			checkRoom(t, c.fs)
			c.ok(fmt.Sprintf("step %d: close of %q, which nobody has changed since it was looked up", step, name), c.close(id))
		}
	}
	for _, c := range []*caller{a, b} {
		if left := c.fs.Sync(t.Context()); left != 0 {
			t.Errorf("%d files are not committed", left)
		}
	}
	want := sumOf(t, bucket.Volume().Files)
	for i, c := range []*caller{a, b} {
		eventually(t, fmt.Sprintf("the sum of mount %d", i), func() bool {
			c.fs.room.mu.Lock()
			defer c.fs.room.mu.Unlock()
			return c.fs.room.mu.stored == want
		})
		checkRoom(t, c.fs)
	}
}

// TestSurveyTakesWhatIsTold: what is told of during a survey holds, whether the survey
// has seen the name before it or sees it after, as it was.
func TestSurveyTakesWhatIsTold(t *testing.T) {
	s := newSurvey()
	share := func(held int64, link string, links int) *storage.Share {
		return &storage.Share{Held: held, LinkID: link, Links: links}
	}
	is := func(what string, want int64) {
		t.Helper()
		if s.sum != want {
			t.Errorf("%s: %d bytes, want %d", what, s.sum, want)
		}
	}
	s.found("a", *share(10, "", 0))
	s.changed("a", share(10, "", 0), share(15, "", 0))
	is("changed after it was seen", 15)
	s.changed("b", share(10, "", 0), share(7, "", 0))
	s.found("b", *share(10, "", 0))
	is("changed before it was seen", 22)
	s.changed("c", share(10, "", 0), nil)
	s.found("c", *share(10, "", 0))
	is("removed before it was seen", 22)
	s.moved("b", "d", share(7, "", 0), nil)
	s.found("d", *share(7, "", 0))
	is("moved", 22)
	s.found("e", *share(3, "link", 2))
	s.found("f", *share(3, "link", 2))
	is("two names", 25)
	s.changed("e", share(3, "link", 2), nil)
	is("one of two removed", 25)
	s.changed("f", share(3, "link", 1), nil)
	is("the last one removed", 22)
}
