package fuse

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/fuse/syncvolume"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// gate is a store that can be out of reach.
type gate struct {
	storage.Files
	chunks storage.Chunks
	shut   atomic.Bool
}

func behind(v storage.Volume) (storage.Volume, *gate) {
	g := &gate{Files: v.Files, chunks: v.Chunks}
	v.Files, v.Chunks = g, gatedChunks{v.Chunks, g}
	return v, g
}

func (g *gate) err() error {
	if g.shut.Load() {
		return storage.Errorf(storage.Unavailable, "the store is away")
	}
	return nil
}

func (g *gate) Lookup(ctx context.Context, p storage.Path) (storage.Entry, error) {
	if err := g.err(); err != nil {
		return storage.Entry{}, err
	}
	return g.Files.Lookup(ctx, p)
}

func (g *gate) Update(ctx context.Context, p storage.Path, e storage.Entry) (storage.Entry, error) {
	if err := g.err(); err != nil {
		return storage.Entry{}, err
	}
	return g.Files.Update(ctx, p, e)
}

type gatedChunks struct {
	storage.Chunks
	g *gate
}

func (c gatedChunks) Write(ctx context.Context, near storage.Path, b []byte) (storage.Chunk, error) {
	if err := c.g.err(); err != nil {
		return storage.Chunk{}, err
	}
	return c.Chunks.Write(ctx, near, b)
}

// idle reports whether nothing waits.
func (f *follower) idle() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.mu.of) == 0
}

// stored is what the store has of a file.
func stored(t *testing.T, v storage.Volume, name string) []byte {
	t.Helper()
	c := mount(t, v)
	id, st := c.lookup(1, name)
	c.ok("lookup by another mount", st)
	return c.read(id, 0, 4<<20)
}

func within(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not within ten seconds", what)
		}
		wait := time.NewTimer(10 * time.Millisecond)
		<-wait.C
	}
}

// TestFsyncWaitsForTheNodeAlone: while the store is away fsync and close return,
// until it is further behind than the delay; then fsync waits, and what it has waited
// for in vain is committed when the store is there again.
func TestFsyncWaitsForTheNodeAlone(t *testing.T) {
	v, g := behind(memory.NewBucket(1 << 30).Volume())
	c := beginDurable(t, v, t.TempDir(), time.Second, Options{Deadline: 2 * time.Second})
	id, st := c.create(1, "f")
	c.ok("create", st)
	g.shut.Store(true)
	begun := time.Now()
	c.ok("write", c.write(id, []byte("one"), 0))
	c.ok("fsync", c.fsync(id))
	c.ok("close", c.fs.Flush(nil, &gofuse.FlushIn{InHeader: header(id)}))
	if took := time.Since(begun); took > 500*time.Millisecond {
		t.Errorf("fsync and close took %v", took)
	}
	within(t, "the store is behind", func() bool { age, _ := c.fs.Behind(); return age > 0 })
	if _, why := c.fs.Behind(); !storage.Is(why, storage.Unavailable) {
		t.Errorf("behind, since %v", why)
	}
	begun = time.Now()
	if st := c.fsync(id); st != gofuse.EIO {
		t.Errorf("fsync with a store that is further behind than the delay: %v", st)
	}
	if took := time.Since(begun); took < 1500*time.Millisecond {
		t.Errorf("it has waited for %v", took)
	}
	g.shut.Store(false)
	c.ok("fsync", c.fsync(id))
	within(t, "the store follows", func() bool { return !c.fs.table.get(id).dirty() })
	if got := stored(t, v, "f"); string(got) != "one" {
		t.Errorf("the store has %q", got)
	}
	if age, why := c.fs.Behind(); age != 0 {
		t.Errorf("behind by %v, %v", age, why)
	}
	c.end()
}

// TestStoreFollows: what was written and closed is in the store soon, small and large.
func TestStoreFollows(t *testing.T) {
	v := memory.NewBucket(1 << 30).Volume()
	c := beginDurable(t, v, t.TempDir(), 100*time.Millisecond, Options{})
	for i, size := range []int{1, 10 << 10, 100 << 10, 9 << 20} {
		name, data := fmt.Sprintf("f%d", i), bytes.Repeat([]byte{byte(i + 1)}, size)
		id, st := c.create(1, name)
		c.ok("create", st)
		for at := 0; at < size; at += 128 << 10 {
			c.ok("write", c.write(id, data[at:min(at+128<<10, size)], int64(at)))
		}
		n := c.fs.table.get(id)
		c.ok("close", c.close(id))
		within(t, "the store follows", func() bool { return !n.dirty() })
		if got := stored(t, v, name); len(got) != min(size, 4<<20) || !bytes.Equal(got, data[:len(got)]) {
			t.Errorf("%s: the store has %d bytes", name, len(got))
		}
	}
	c.end()
}

// TestFlushThatFails: the fsync whose flush fails says so, and those after it do not
// lie: what they cover is in the store when they return, until the journal could be
// written anew.
func TestFlushThatFails(t *testing.T) {
	v := memory.NewBucket(1 << 30).Volume()
	var l *sickLog
	c := recoverDurable(t, v, t.TempDir(), time.Hour, Options{Fresh: true}, func(fs *FS) {
		l = &sickLog{recordLog: fs.memo.journal}
		fs.memo.journal = l
	})
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("write", c.write(id, []byte("one"), 0))
	l.fail(syscall.EIO, "sync", "compact")
	if st := c.fsync(id); st != gofuse.EIO {
		t.Fatalf("fsync whose flush fails: %v", st)
	}
	l.fail(syscall.EIO, "compact") // the kernel has forgotten by now
	c.ok("fsync", c.fsync(id))
	if got := stored(t, v, "f"); string(got) != "one" {
		t.Errorf("after the second fsync neither the node's disk nor the store has it, which has %q", got)
	}
	l.fail(nil)
	c.recovers(id, []byte("two"), 0, syscall.EIO)
	c.ok("fsync", c.fsync(id))
	if !c.fs.table.get(id).dirty() {
		t.Error("the store was waited for though the disk is well again")
	}
	c.end()
}

// TestReplacedWhileItWaits: somebody else replaces a file before the store has what was
// written to it. fsync and close say so, and what was written is kept aside.
func TestReplacedWhileItWaits(t *testing.T) {
	v := memory.NewBucket(1 << 30).Volume()
	c := beginDurable(t, v, t.TempDir(), 200*time.Millisecond, Options{})
	other := mount(t, v)
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("write", c.write(id, []byte("ours"), 0))
	c.ok("fsync", c.fsync(id))
	theirs, st := other.create(1, "g")
	other.ok("create", st)
	other.ok("close", other.close(theirs))
	other.ok("rename", other.mv(1, "g", "f"))
	within(t, "the background fails", func() bool { return c.fs.follower.trouble(c.fs.table.get(id)) != nil })
	if st := c.fsync(id); st != gofuse.Status(syscall.ESTALE) {
		t.Errorf("fsync: %v", st)
	}
	if st := c.close(id); st != gofuse.Status(syscall.ESTALE) {
		t.Errorf("close: %v", st)
	}
	within(t, "it is kept aside", func() bool { n, err := c.fs.Leftovers(); return n == 1 && err == nil })
	within(t, "nothing waits", c.fs.follower.idle)
	if got := stored(t, v, "f"); len(got) != 0 {
		t.Errorf("the other file has %q", got)
	}
	c.end()
}

// TestRenamedWithItsContent: a file that replaces another has its content in the store
// when rename returns.
func TestRenamedWithItsContent(t *testing.T) {
	v := memory.NewBucket(1 << 30).Volume()
	c := beginDurable(t, v, t.TempDir(), time.Hour, Options{})
	for _, data := range []string{"old", "new"} {
		id, st := c.create(1, "f.tmp")
		c.ok("create", st)
		c.ok("write", c.write(id, []byte(data), 0))
		c.ok("fsync", c.fsync(id))
		c.ok("close", c.close(id))
		c.ok("rename", c.mv(1, "f.tmp", "f"))
		if got := stored(t, v, "f"); string(got) != data {
			t.Errorf("the store has %q, want %q", got, data)
		}
	}
	c.end()
}

// TestRemovedWhileItWaits: what waits of a file that is removed, or replaced, by this
// mount is of no use to anybody, and is not kept aside.
func TestRemovedWhileItWaits(t *testing.T) {
	for _, dies := range []bool{false, true} {
		for _, size := range []int{10, 300 << 10} {
			c := beginDurable(t, memory.NewBucket(1<<30).Volume(), t.TempDir(), time.Hour, Options{})
			c.counted()
			for _, name := range []string{"removed", "replaced"} {
				id, st := c.create(1, name)
				c.ok("create", st)
				c.ok("write", c.write(id, make([]byte, size), 0))
				c.ok("fsync", c.fsync(id))
				c.ok("close", c.close(id))
			}
			c.ok("unlink", c.remove(1, "removed"))
			id, st := c.create(1, "other")
			c.ok("create", st)
			c.ok("close", c.close(id))
			c.ok("rename", c.mv(1, "other", "replaced"))
			if dies {
				c = c.crash(false)
			}
			for _, n := range c.fs.table.all() {
				if n.dirty() {
					t.Errorf("node %d still waits", n.id)
				}
			}
			if !c.fs.sweep(t.Context()) {
				t.Error("something is left")
			}
			if kept, err := c.fs.Leftovers(); kept > 0 || err != nil {
				t.Errorf("something was kept aside, or %v", err)
			}
			if files, err := filepath.Glob(filepath.Join(c.fs.opts.Dir, stagePrefix+"*")); len(files) > 0 || err != nil {
				t.Errorf("%v are left, %v", files, err)
			}
			if c.fs.memory.Load() != 0 {
				t.Errorf("%d bytes of stages are still counted", c.fs.memory.Load())
			}
			c.end()
		}
	}
}

// TestSyncOfAll: the request of holdfast volume sync returns when the store has
// everything.
func TestSyncOfAll(t *testing.T) {
	v, g := behind(memory.NewBucket(1 << 30).Volume())
	c := beginDurable(t, v, t.TempDir(), time.Hour, Options{Deadline: 2 * time.Second})
	var nodes []uint64
	for i := range 20 {
		id, st := c.create(1, fmt.Sprint(i))
		c.ok("create", st)
		c.ok("write", c.write(id, []byte("data"), 0))
		if i%2 == 0 {
			c.ok("close", c.close(id))
		}
		nodes = append(nodes, id)
	}
	ask := func(cmd uint32) gofuse.Status {
		return c.fs.Ioctl(nil, &gofuse.IoctlIn{InHeader: header(1), Cmd: cmd}, nil, &gofuse.IoctlOut{}, nil)
	}
	if st := ask(1); st != gofuse.ENOSYS {
		t.Errorf("another ioctl: %v", st)
	}
	g.shut.Store(true)
	if st := ask(syncvolume.Command); st.Ok() {
		t.Error("all is in a store that is away")
	}
	g.shut.Store(false)
	c.ok("sync", ask(syncvolume.Command))
	for i, id := range nodes {
		if n := c.fs.table.get(id); n != nil && n.dirty() {
			t.Errorf("file %d waits", i)
		}
		if got := stored(t, v, fmt.Sprint(i)); string(got) != "data" {
			t.Errorf("file %d is %q in the store", i, got)
		}
	}
	c.end()
}

// TestCloseOfTheVolumeWaits: an unmounted volume has everything in the store, and one
// that cannot be brought keeps the session.
func TestCloseOfTheVolumeWaits(t *testing.T) {
	v, g := behind(memory.NewBucket(1 << 30).Volume())
	c := beginDurable(t, v, t.TempDir(), time.Hour, Options{Deadline: time.Second})
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("write", c.write(id, bytes.Repeat([]byte{'x'}, 300<<10), 0))
	c.ok("close", c.close(id))
	g.shut.Store(true)
	if err := c.fs.Close(t.Context()); err == nil {
		t.Fatal("closed with a store that is away")
	}
	g.shut.Store(false)
	c.end()
	if got := stored(t, v, "f"); len(got) != 300<<10 {
		t.Errorf("the store has %d bytes", len(got))
	}
	if err := c.fs.Retire(); err != nil {
		t.Error(err)
	}
}

// TestOrderOfCommits: a file that was fsynced comes to the store when all have whose
// changes began before, and no other one with it.
func TestOrderOfCommits(t *testing.T) {
	v := memory.NewBucket(1 << 30).Volume()
	seen := &seenFiles{Files: v.Files, synced: map[string]bool{}}
	v.Files = seen
	c := beginDurable(t, v, t.TempDir(), time.Second, Options{})
	var want []string
	for i := range 20 {
		name := fmt.Sprint("f", i)
		id, st := c.create(1, name)
		c.ok("create", st)
		c.ok("write", c.write(id, []byte("data"), 0))
		if i%3 == 2 {
			seen.synced[name] = true
			c.ok("fsync", c.fsync(id))
		}
		want = append(want, name)
	}
	within(t, "the store follows", c.fs.follower.idle)
	seen.mu.Lock()
	defer seen.mu.Unlock()
	for i, name := range want {
		if seen.synced[name] && seen.done[name] != i {
			t.Errorf("%s came when %d others had", name, seen.done[name])
		}
	}
	if seen.together {
		t.Error("one that was fsynced came together with another")
	}
	c.end()
}

// seenFiles sees the updates, which take a while.
type seenFiles struct {
	storage.Files
	synced map[string]bool

	mu       sync.Mutex
	open     int
	ended    int
	done     map[string]int // how many had come before
	together bool
}

func (s *seenFiles) Update(ctx context.Context, p storage.Path, e storage.Entry) (storage.Entry, error) {
	s.mu.Lock()
	if s.done == nil {
		s.done = map[string]int{}
	}
	s.together = s.together || s.synced[string(p)] && s.open > 0
	s.open++
	s.done[string(p)] = s.ended
	s.mu.Unlock()
	wait := time.NewTimer(10 * time.Millisecond)
	<-wait.C
	e, err := s.Files.Update(ctx, p, e)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	s.ended++
	return e, err
}

// TestFsyncUnderALease: without a lease that lives, a fsync promises nothing.
func TestFsyncUnderALease(t *testing.T) {
	f := newFencing(t)
	fence := f.fence(1)
	dir := t.TempDir()
	c := beginDurable(t, memory.Guarded(f.bucket.Volume(), fence), dir, time.Hour, Options{Node: "a", Fence: fence})
	within(t, "the lease is renewed", func() bool { left, _, _ := fence.left(); return left > 0 })
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("write", c.write(id, []byte("one"), 0))
	c.ok("fsync", c.fsync(id))
	c.ok("write", c.write(id, []byte("two"), 0))
	f.takeover()
	f.pass(storage.LeaseFor+time.Second, storage.LeaseFor+time.Second)
	if st := c.fsync(id); st != gofuse.Status(syscall.ESTALE) {
		t.Errorf("fsync when another node has the volume: %v", st)
	}
	within(t, "it is kept aside", func() bool { return len(leftoversOf(t, dir)) > 0 })
	if e, err := f.bucket.Volume().Files.Lookup(t.Context(), "f"); err != nil || e.Size != 0 {
		t.Errorf("the bucket has %q, %v", e.Inline, err)
	}
	c.end()
}
