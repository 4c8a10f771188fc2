package fuse

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// What a power cut has left, and what the next session makes of it, one story a test.

// brings has what waits brought to the store, of which another mount shows that content
// then, and ends the mount.
func (c *caller) brings(v storage.Volume, name, want string) {
	c.t.Helper()
	if !c.fs.sweep(c.t.Context()) {
		c.t.Error("something is left")
	}
	c.end()
	if got := stored(c.t, v, name); string(got) != want {
		c.t.Errorf("the store has %q in %s, and %q was written last", got, name, want)
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
		c.brings(v, name, "newer")
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
			c.brings(v, "f", "newer")
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
			c.brings(v, "f", string(want))
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
		c.brings(v, "new", "moved")
		if kept, err := c.fs.Leftovers(); kept > 0 || err != nil {
			t.Errorf("%d: %d are kept aside, %v", r, kept, err)
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
	c.brings(v, "f", "newer")
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

// TestKeptAsideThenCut: what was kept aside before a power cut is not kept aside once
// more after it.
func TestKeptAsideThenCut(t *testing.T) {
	v := memory.NewBucket(1 << 30).Volume()
	c, d := beginOnDisk(t, v, t.TempDir(), time.Hour, true)
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("write", c.write(id, []byte("mine"), 0))
	c.ok("fsync", c.fsync(id))
	c.ok("close", c.close(id))
	e, err := v.Files.Lookup(t.Context(), "f")
	if err == nil {
		err = v.Files.Remove(t.Context(), "f", e, nil) // by somebody else
	}
	if err != nil {
		t.Fatal(err)
	}
	c.fs.sweep(t.Context())
	if kept, err := c.fs.Leftovers(); kept != 1 || err != nil {
		t.Fatalf("%d are kept aside, %v; want what was written to a file that somebody removed", kept, err)
	}
	c, _ = c.powerCut(d, flushedAlone) // to a folder without leftovers
	c.fs.sweep(t.Context())
	if kept, err := c.fs.Leftovers(); kept > 0 || err != nil {
		t.Errorf("%d are kept aside once more, %v", kept, err)
	}
	c.end()
}
