package fuse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
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

// disk is what a power cut leaves of a volume's folder: what was flushed.
type disk struct {
	t   *testing.T
	dir string // with what was flushed
}

// keep copies a file as it is now. One that is not there was committed meanwhile.
func (d *disk) keep(path string) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		d.t.Error(err)
		return
	}
	if err := os.WriteFile(filepath.Join(d.dir, filepath.Base(path)), data, 0o600); err != nil {
		d.t.Error(err)
	}
}

// flushedLog is a journal whose flushes are seen. What the flush itself is worth is
// cache/journal's to prove.
type flushedLog struct {
	recordLog
	mu   sync.Mutex
	path string
	disk *disk
}

func (l *flushedLog) Sync() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.recordLog.Sync()
	if err == nil {
		l.disk.keep(l.path)
	}
	return err
}

func (l *flushedLog) Compact(live func(func([]byte) error) error) error {
	err := l.recordLog.Compact(live)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil { // with the names in the folder
		l.disk.forget(l.disk.dir, filepath.Dir(l.path))
		l.disk.keep(l.path)
	}
	return err
}

// forget removes the files of stages from a folder that another has not any more.
func (d *disk) forget(from, as string) {
	names, err := filepath.Glob(filepath.Join(from, stagePrefix+"*"))
	if err != nil {
		d.t.Error(err)
	}
	for _, path := range names {
		if _, err := os.Lstat(filepath.Join(as, filepath.Base(path))); !errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := os.Remove(path); err != nil {
			d.t.Error(err)
		}
	}
}

// beginDurable is begin for a volume of durability node.
func beginDurable(t *testing.T, v storage.Volume, dir string, delay time.Duration, o Options) *caller {
	t.Helper()
	o.Fresh = true
	return recoverDurable(t, v, dir, delay, o, func(*FS) {})
}

// recoverDurable does something before the start.
func recoverDurable(t *testing.T, v storage.Volume, dir string, delay time.Duration, o Options, before func(*FS)) *caller {
	t.Helper()
	o.Dir, o.UID, o.GID, o.CommitDelay = dir, 5, 6, delay
	fs := New(v, o)
	fs.boot += boots.Load()
	if err := fs.Recover(); err != nil {
		t.Fatal(err)
	}
	before(fs)
	fs.Start(silent{})
	return &caller{t, fs}
}

// beginOnDisk is beginDurable on a disk that says what a power cut leaves.
func beginOnDisk(t *testing.T, v storage.Volume, dir string, delay time.Duration, fresh bool) (c *caller, d *disk) {
	t.Helper()
	d = &disk{t, t.TempDir()}
	return recoverDurable(t, v, dir, delay, Options{Fresh: fresh}, d.watch), d
}

// watch lets what fs flushes be seen.
func (d *disk) watch(fs *FS) {
	d.t.Helper()
	l := &flushedLog{recordLog: fs.memo.journal, path: filepath.Join(fs.opts.Dir, "journal"), disk: d}
	fs.memo.journal = l
	fs.flushFile = func(f *os.File) error {
		err := flushFile(f)
		if err == nil {
			d.keep(f.Name())
		}
		return err
	}
	flushed, err := filepath.Glob(filepath.Join(fs.opts.Dir, stagePrefix+"*")) // by Recover
	if err != nil {
		d.t.Fatal(err)
	}
	for _, path := range append(flushed, l.path) {
		d.keep(path)
	}
}

// what of a folder a power cut leaves, beside what was flushed.
type remains int

const (
	flushedAlone remains = iota
	allOfJournal
	allOfStages
	// holed is all, but for a part of the journal that was not flushed.
	holed
)

// boots is how often the machine was started anew by these tests.
var boots atomic.Uint64

// powerCut ends the machine, and returns the next session on what is left.
func (c *caller) powerCut(d *disk, r remains) (*caller, *disk) {
	c.t.Helper()
	old := c.fs
	old.stop()
	old.running.Wait()
	next := c.t.TempDir()
	take := func(from, pattern string) {
		paths, err := filepath.Glob(filepath.Join(from, pattern))
		if err != nil {
			c.t.Fatal(err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(filepath.Join(next, filepath.Base(path)), data, 0o600)
			}
			if err != nil {
				c.t.Fatal(err)
			}
		}
	}
	take(d.dir, "*")
	switch r {
	case allOfJournal:
		take(old.opts.Dir, "journal")
	case allOfStages:
		take(old.opts.Dir, stagePrefix+"*")
		d.forget(next, old.opts.Dir)
	case holed:
		flushed, err := os.Stat(filepath.Join(d.dir, "journal"))
		if err != nil {
			c.t.Fatal(err)
		}
		take(old.opts.Dir, "journal")
		take(old.opts.Dir, stagePrefix+"*")
		path := filepath.Join(next, "journal")
		b, err := os.ReadFile(path)
		if err == nil && int64(len(b)) > flushed.Size()+100 {
			clear(b[flushed.Size() : flushed.Size()+50])
			err = os.WriteFile(path, b, 0o600)
		}
		if err != nil {
			c.t.Fatal(err)
		}
	case flushedAlone:
	}
	boots.Add(1)
	_ = old.memo.journal.Close()
	old.room.close()
	_ = old.closeStages()
	return beginOnDisk(c.t, old.vol, next, old.opts.CommitDelay, true)
}

// TestSyncedOutlivesThePower writes, truncates, renames, removes and commits in a
// volume of durability node, and the power goes at random, or the mounter dies. What
// was fsynced is there, under its name, or what was written over it since.
func TestSyncedOutlivesThePower(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 5))
	bucket := memory.NewBucket(1 << 30)
	c, d := beginOnDisk(t, bucket.Volume(), t.TempDir(), time.Hour, true)
	type file struct {
		node uint64
		name string
		open bool
		// states since the last fsync, the one at that time first.
		states [][]byte
	}
	now := func(f *file) []byte { return f.states[len(f.states)-1] }
	var files []*file
	made := 0
	begin := func(f *file) {
		made++
		f.name = fmt.Sprintf("f%d", made)
		id, st := c.create(1, f.name)
		c.ok("create", st)
		f.node, f.open, f.states = id, true, [][]byte{{}}
	}
	for range 4 {
		f := &file{}
		begin(f)
		files = append(files, f)
	}
	cuts, deaths := 0, 0
	for step := range 600 {
		i := rng.IntN(len(files))
		f := files[i]
		limit := int64(4096)
		switch i {
		case 0:
			limit = 2 << 20 // large enough for a stage's file
		case 1:
			limit = 300 << 10 // which is when it becomes one
		}
		if !f.open {
			id, st := c.lookup(1, f.name)
			c.ok("lookup", st)
			f.node, f.open = id, true
			c.ok("open", c.open(id))
		}
		switch off := rng.Int64N(limit); rng.IntN(14) {
		case 0:
			c.ok("fsync", c.fsync(f.node))
			f.states = [][]byte{now(f)}
		case 1:
			c.ok("truncate", c.truncate(f.node, off))
			data := append(bytes.Clone(now(f)[:min(off, int64(len(now(f))))]), make([]byte, max(0, off-int64(len(now(f)))))...)
			f.states = append(f.states, data)
		case 2:
			to := fmt.Sprintf("r%d", step)
			c.ok("rename", c.mv(1, f.name, to))
			f.name = to
			f.states = [][]byte{now(f)} // with its content
		case 3:
			c.ok("close", c.close(f.node))
			f.open = false
		case 4: // the background
			if err := c.fs.commit(t.Context(), c.fs.table.get(f.node)); err != nil {
				t.Fatal(err)
			}
			f.states = [][]byte{now(f)}
		case 5:
			if err := c.fs.compact(); err != nil {
				t.Fatal(err)
			}
		case 6:
			if rng.IntN(3) > 0 {
				break
			}
			if rng.IntN(2) == 0 {
				c.ok("close", c.close(f.node))
			}
			c.ok("unlink", c.remove(1, f.name))
			begin(f)
		case 7:
			if rng.IntN(4) > 0 {
				break
			}
			deaths++
			c.die()
			c, d = beginOnDisk(t, c.fs.vol, c.fs.opts.Dir, time.Hour, false)
		case 8:
			if rng.IntN(3) > 0 {
				break
			}
			cuts++
			r := remains(rng.IntN(4))
			c, d = c.powerCut(d, r)
			if !c.fs.sweep(t.Context()) {
				t.Fatalf("seed %d step %d: something is left", seed, step)
			}
			for _, f := range files {
				id, st := c.lookup(1, f.name)
				c.ok("lookup after a power cut", st)
				c.ok("open", c.open(id))
				f.node, f.open = id, true
				got := c.read(id, 0, 4<<20)
				if at := foreignByte(got, f.states, r != holed); at >= 0 {
					t.Fatalf("seed %d step %d, cut %d (%d): byte %d of %s, of %d, is none that was written since its fsync: %d of %d states",
						seed, step, cuts, r, at, f.name, len(got), len(f.states), len(now(f)))
				}
				f.states = [][]byte{got}
			}
			// Files may be there that no record tells of, since the power took it: what
			// is in them was not fsynced, or is committed. They are kept aside.
			if kept, err := c.fs.Leftovers(); kept > 0 || err != nil {
				t.Logf("step %d, cut %d (%d): %d are kept aside, %v", step, cuts, r, kept, err)
			}
		default:
			data := make([]byte, 1+rng.Int64N(limit/4))
			for i := range data {
				data[i] = byte(rng.Uint32())
			}
			c.ok("write", c.write(f.node, data, off))
			next := append(bytes.Clone(now(f)), make([]byte, max(0, off+int64(len(data))-int64(len(now(f)))))...)
			copy(next[off:], data)
			f.states = append(f.states, next)
		}
		if got := c.read(f.node, 0, 4<<20); f.open && !bytes.Equal(got, now(f)) {
			t.Fatalf("seed %d step %d, %d cuts, %d deaths: open %s reads %d bytes that differ from the model's %d", seed, step, cuts, deaths, f.name, len(got), len(now(f)))
		}
	}
	c.end()
	t.Logf("%d power cuts, %d deaths", cuts, deaths)
}

// foreignByte is the first byte of got that is in none of the states, -1 when all are,
// or 0 when none has its size, which is asked for when whole.
func foreignByte(got []byte, states [][]byte, whole bool) int {
	sized := !whole
	for _, s := range states {
		sized = sized || len(s) == len(got)
	}
	if !sized {
		return 0
	}
next:
	for i, b := range got {
		known := false
		for _, s := range states {
			if i < len(s) && s[i] == b {
				continue next
			}
			known = known || i < len(s)
		}
		if whole || known && b != 0 { // a truncation that is missing, or its end
			return i
		}
	}
	if !whole {
		for _, s := range states {
			if len(got) >= len(s) {
				return -1
			}
		}
		return len(got) // shorter than all
	}
	return -1
}

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
			if kept, err := c.fs.hasLeftovers(); kept || err != nil {
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

// TestJournalThatLostItsEnd: the power takes the record that a commit was made. What
// the journal still has of the file must not come over what was committed after it.
func TestJournalThatLostItsEnd(t *testing.T) {
	v := memory.NewBucket(1 << 30).Volume()
	for _, look := range []bool{false, true} {
		c, d := beginOnDisk(t, v, t.TempDir(), time.Hour, true)
		name := fmt.Sprint(look)
		id, st := c.create(1, name)
		c.ok("create", st)
		c.ok("write", c.write(id, []byte("old and long"), 0))
		c.ok("fsync", c.fsync(id))
		n := c.fs.table.get(id)
		for _, data := range []string{"older", "newer"} {
			c.ok("truncate", c.truncate(id, 0))
			c.ok("write", c.write(id, []byte(data), 0))
			if err := c.fs.commit(t.Context(), n); err != nil {
				t.Fatal(err)
			}
		}
		c, _ = c.powerCut(d, flushedAlone)
		if look { // a name is looked up before the background comes
			id, st = c.lookup(1, name)
			c.ok("lookup", st)
			if a, _ := c.attr(id); a.Size != 5 {
				t.Errorf("it is shown with %d bytes", a.Size)
			}
		}
		if !c.fs.sweep(t.Context()) {
			t.Error("something is left")
		}
		c.end()
		if got := stored(t, v, name); string(got) != "newer" {
			t.Errorf("the store has %q", got)
		}
	}
}

// TestJournalThatLostItsMiddle is the same when a record stands behind what the power
// has taken: it looks like damage, and was a power cut.
func TestJournalThatLostItsMiddle(t *testing.T) {
	v := memory.NewBucket(1 << 30).Volume()
	c, d := beginOnDisk(t, v, t.TempDir(), time.Hour, true)
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("write", c.write(id, []byte("old and long"), 0))
	c.ok("fsync", c.fsync(id))
	from := c.fs.memo.journal.Size()
	c.ok("truncate", c.truncate(id, 0))
	c.ok("write", c.write(id, []byte("newer"), 0))
	if err := c.fs.commit(t.Context(), c.fs.table.get(id)); err != nil {
		t.Fatal(err)
	}
	gone := make([]byte, c.fs.memo.journal.Size()-from)
	_, st = c.create(1, "later")
	c.ok("create", st)
	j, err := os.OpenFile(filepath.Join(c.fs.opts.Dir, "journal"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.WriteAt(gone, from); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	c, _ = c.powerCut(d, allOfJournal)
	if !c.fs.sweep(t.Context()) {
		t.Error("something is left")
	}
	c.end()
	if got := stored(t, v, "f"); string(got) != "newer" {
		t.Errorf("the store has %q", got)
	}
}

// TestNumbersAreNotGivenTwice: the power takes the record of a commit, and the first
// commit of the next session gets lost. It is not taken for the one that the entry has.
func TestNumbersAreNotGivenTwice(t *testing.T) {
	v := memory.NewBucket(1 << 30).Volume()
	store := &lossy{Files: v.Files}
	v.Files = store
	c, d := beginOnDisk(t, v, t.TempDir(), time.Hour, true)
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("write", c.write(id, []byte("before"), 0))
	if err := c.fs.commit(t.Context(), c.fs.table.get(id)); err != nil {
		t.Fatal(err)
	}
	c, _ = c.powerCut(d, flushedAlone)
	id, st = c.lookup(1, "f")
	c.ok("lookup", st)
	c.ok("open", c.open(id))
	c.ok("write", c.write(id, []byte("after!"), 0))
	store.expect(requestLost)
	if err := c.fs.commit(t.Context(), c.fs.table.get(id)); !storage.Is(err, storage.Unavailable) {
		t.Fatal(err)
	}
	if err := c.fs.commit(t.Context(), c.fs.table.get(id)); err != nil {
		t.Fatal(err)
	}
	if got := stored(t, v, "f"); string(got) != "after!" {
		t.Errorf("the store has %q", got)
	}
	c.end()
}

// TestMissingBytesAreNotZeros: the file of a stage is gone whose bytes a compaction has
// dropped from the journal. What was written since does not make it whole.
func TestMissingBytesAreNotZeros(t *testing.T) {
	c := beginDurable(t, memory.NewBucket(1<<30).Volume(), t.TempDir(), time.Hour, Options{})
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("write", c.write(id, bytes.Repeat([]byte{'x'}, 300<<10), 0))
	if err := c.fs.compact(); err != nil {
		t.Fatal(err)
	}
	c.ok("write", c.write(id, []byte("since"), 400<<10))
	c.ok("fsync", c.fsync(id))
	if err := os.Remove(c.fs.stagePathOf(c.fs.table.get(id))); err != nil {
		t.Fatal(err)
	}
	c = c.crash(false)
	_, st = c.fs.Read(nil, &gofuse.ReadIn{InHeader: header(id), Size: 4096}, make([]byte, 4096))
	if st != gofuse.EIO {
		t.Errorf("read: %v", st)
	}
	if st := c.fsync(id); st != gofuse.EIO {
		t.Errorf("fsync: %v", st)
	}
}

// TestUploadedThenCut: what a sequential writer has behind it is uploaded, and leaves
// the node's disk. The power takes the end of the journal, which says so.
func TestUploadedThenCut(t *testing.T) {
	v, g := behind(memory.NewBucket(1 << 30).Volume())
	for _, r := range []remains{flushedAlone, allOfJournal, allOfStages} {
		c, d := beginOnDisk(t, v, t.TempDir(), time.Hour, true)
		name, data := fmt.Sprint(r), streamed(9<<20)
		id, st := c.create(1, name)
		c.ok("create", st)
		g.shut.Store(true)
		c.stream(id, data[:8<<20], 0)
		c.ok("fsync", c.fsync(id))
		c.land(id)
		if err := c.fs.compact(); err != nil { // the journal has the bytes no more
			t.Fatal(err)
		}
		g.shut.Store(false)
		c.fs.table.get(id).mu.stage.failed = time.Time{}
		c.stream(id, data[8<<20:], 8<<20)
		c.land(id)
		if laid := c.fs.table.get(id).mu.stage.laid; len(laid) != 2 {
			t.Fatalf("%d chunks are in the store", len(laid))
		}
		c, _ = c.powerCut(d, r)
		id, st = c.lookup(1, name)
		c.ok("lookup", st)
		c.ok("open", c.open(id))
		for at := int64(0); at < 8<<20; at += 1 << 20 {
			if got := c.read(id, at, 1<<20); !bytes.Equal(got, data[at:at+1<<20]) {
				t.Fatalf("%d: what was fsynced at %d is not there", r, at)
			}
		}
		c.end()
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
