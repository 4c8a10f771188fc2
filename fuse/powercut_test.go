package fuse

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

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
	if s, err := strconv.ParseUint(os.Getenv("HOLDFAST_SEED"), 10, 64); err == nil {
		seed = s
	}
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

// TestJournalThatLostItsEndTwice: as above, and the session that takes over ends too,
// before or after it has seen the entry, and before its journal was flushed. Numbers of
// commits that it has left out do not hide the one that the first cut took.
func TestJournalThatLostItsEndTwice(t *testing.T) {
	for _, x := range []struct {
		name      string
		seen, cut bool
	}{
		{"the mounter dies before it has seen the entry", false, false},
		{"the power goes before the entry was seen", false, true},
		{"the power goes when the entry was seen", true, true}, // seed 7778885686868397305
	} {
		t.Run(x.name, func(t *testing.T) {
			v, g := behind(memory.NewBucket(1 << 30).Volume())
			c, d := beginOnDisk(t, v, t.TempDir(), time.Hour, true)
			id, st := c.create(1, "f")
			c.ok("create", st)
			c.ok("write", c.write(id, []byte("old and long"), 0))
			c.ok("fsync", c.fsync(id))
			c.ok("truncate", c.truncate(id, 0))
			c.ok("write", c.write(id, []byte("newer"), 0))
			if err := c.fs.commit(t.Context(), c.fs.table.get(id)); err != nil {
				t.Fatal(err)
			}
			c.ok("fsync", c.fsync(id)) // it is in the store
			g.shut.Store(!x.seen)
			c, d = c.powerCut(d, flushedAlone)
			if x.seen && !c.fs.sweep(t.Context()) {
				t.Error("something is left")
			}
			if x.cut {
				c, _ = c.powerCut(d, flushedAlone)
			} else {
				c.die()
				c, _ = beginOnDisk(t, c.fs.vol, c.fs.opts.Dir, time.Hour, false)
			}
			g.shut.Store(false)
			if !c.fs.sweep(t.Context()) {
				t.Error("something is left")
			}
			c.end()
			if got := stored(t, v, "f"); string(got) != "newer" {
				t.Errorf("the store has %q", got)
			}
		})
	}
}

// TestWrittenAfterTheEntryWasSeen: what is written and fsynced after a take-over has
// seen the entry outlives the next power cut, whatever the journal still says of the
// first one.
func TestWrittenAfterTheEntryWasSeen(t *testing.T) {
	for _, x := range []struct {
		name                  string
		lost, between, landed bool
	}{
		{"nothing was lost", false, false, false},
		{"nothing was lost, and it was committed since", false, true, false},
		{"a commit was lost", true, false, false},
		{"a commit was lost, and it was committed since", true, true, false},
		{"a commit was lost, and it was written before that was known", true, false, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			v := memory.NewBucket(1 << 30).Volume()
			c, d := beginOnDisk(t, v, t.TempDir(), time.Hour, true)
			id, st := c.create(1, "f")
			c.ok("create", st)
			c.ok("write", c.write(id, []byte("old and long"), 0))
			c.ok("fsync", c.fsync(id))
			if x.lost {
				c.ok("truncate", c.truncate(id, 0))
				c.ok("write", c.write(id, []byte("newer"), 0))
				if err := c.fs.commit(t.Context(), c.fs.table.get(id)); err != nil {
					t.Fatal(err)
				}
			}
			v, g := behind(v)
			c.fs.vol = v
			g.shut.Store(true)
			c, d = c.powerCut(d, flushedAlone)
			n := c.fs.table.get(id)
			c.fs.table.openNew(n) // so that the background leaves it alone
			g.shut.Store(false)
			if x.landed {
				e, err := v.Files.Lookup(t.Context(), "f")
				if err != nil {
					t.Fatal(err)
				}
				n.learn(e, c.fs.memo)
			} else {
				got, st := c.lookup(1, "f")
				c.ok("lookup", st)
				if got != id {
					t.Fatalf("node %d, and it was %d", got, id)
				}
			}
			c.ok("write", c.write(id, []byte("NEW"), 0))
			if x.between {
				if err := c.fs.commit(t.Context(), n); err != nil {
					t.Fatal(err)
				}
				c.ok("write", c.write(id, []byte("EVER"), 1))
			}
			c.ok("fsync", c.fsync(id))
			want := c.read(id, 0, 4096)
			if x.landed {
				want = []byte("NEWer")
			}
			c, _ = c.powerCut(d, flushedAlone)
			if !c.fs.sweep(t.Context()) {
				t.Error("something is left")
			}
			c.end()
			if got := stored(t, v, "f"); !bytes.Equal(got, want) {
				t.Errorf("the store has %q, and %q was fsynced", got, want)
			}
		})
	}
}

// TestRenamedThenCut: the background has brought a file that was fsynced, and then it
// gets another name, or loses it. A journal that has lost its end does not look for it
// under the old one.
func TestRenamedThenCut(t *testing.T) {
	for _, r := range []remains{flushedAlone, allOfStages} {
		v := memory.NewBucket(1 << 30).Volume()
		c, d := beginOnDisk(t, v, t.TempDir(), time.Hour, true)
		for _, name := range []string{"moved", "removed"} {
			id, st := c.create(1, name)
			c.ok("create", st)
			c.ok("write", c.write(id, []byte(name), 0))
			c.ok("fsync", c.fsync(id))
			if c.fs.bringOne(t.Context(), c.fs.table.get(id)) {
				t.Fatal("the store is away")
			}
			c.ok("close", c.close(id))
		}
		c.ok("rename", c.mv(1, "moved", "new"))
		c.ok("unlink", c.remove(1, "removed"))
		c, _ = c.powerCut(d, r)
		if !c.fs.sweep(t.Context()) {
			t.Error("something is left")
		}
		if kept, err := c.fs.Leftovers(); kept > 0 || err != nil {
			t.Errorf("%d: %d are kept aside, %v", r, kept, err)
		}
		c.end()
		if got := stored(t, v, "new"); string(got) != "moved" {
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
