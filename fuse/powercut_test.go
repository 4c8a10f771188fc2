package fuse

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
	seed := seedOf(t)
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
			// is in them was not fsynced, or is committed. They are kept aside. Where
			// nothing but what was flushed is left, there are none.
			kept, err := c.fs.Leftovers()
			if err != nil || kept > 0 && (r == flushedAlone || r == allOfJournal) {
				t.Errorf("seed %d step %d, cut %d (%d): %d are kept aside, %v", seed, step, cuts, r, kept, err)
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
		if got := c.whole(f.node, now(f)); f.open && !bytes.Equal(got, now(f)) {
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
