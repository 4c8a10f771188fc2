package fuse

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/fuse/leftovers"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// fencing is a volume of one node, its record, and a clock that the test moves.
type fencing struct {
	t       *testing.T
	records *memory.Store
	bucket  *memory.Bucket
	mu      sync.Mutex
	boot    time.Duration
	wall    time.Time
}

func newFencing(t *testing.T) *fencing {
	t.Helper()
	f := &fencing{t: t, records: memory.New(), bucket: memory.NewBucket(1 << 30), boot: time.Hour, wall: time.Now()}
	r := storage.Record{ID: "v", Access: storage.Single, Phase: storage.Ready}
	r.Grant("a", storage.Lease{}, f.wall)
	if _, err := f.records.CreateRecord(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return f
}

// pass moves the clock of the node.
func (f *fencing) pass(boot, wall time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.boot, f.wall = f.boot+boot, f.wall.Add(wall)
}

func (f *fencing) fence(epoch uint64) *Fence {
	return NewFence(f.records, FenceOptions{Volume: "v", Node: "a", Epoch: epoch, Clock: func() (time.Duration, time.Time) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.boot, f.wall
	}})
}

// mount begins a file system of node a in a folder.
func (f *fencing) mount(dir string, epoch uint64, fresh bool) *caller {
	f.t.Helper()
	fence := f.fence(epoch)
	fs := New(memory.Guarded(f.bucket.Volume(), fence), Options{Dir: dir, Node: "a", Fence: fence, Fresh: fresh})
	if err := fs.Recover(); err != nil {
		f.t.Fatal(err)
	}
	fs.Start(silent{})
	// The first renewal in the background, so that no later one is taken for it.
	for deadline := time.Now().Add(30 * time.Second); fresh; runtime.Gosched() {
		if left, _, _ := fence.left(); left > 0 {
			break
		}
		if time.Now().After(deadline) {
			f.t.Fatal("the lease is not renewed")
		}
	}
	return &caller{f.t, fs}
}

// change changes the record as somebody else does.
func (f *fencing) change(edit func(r *storage.Record)) {
	f.t.Helper()
	for {
		r, err := f.records.GetRecord(f.t.Context(), "v")
		if err != nil {
			f.t.Fatal(err)
		}
		edit(&r)
		_, err = f.records.UpdateRecord(f.t.Context(), r)
		if err == nil {
			return
		}
		if !storage.Is(err, storage.Changed) {
			f.t.Fatal(err)
		}
	}
}

// takeover gives the volume to node b.
func (f *fencing) takeover() {
	f.t.Helper()
	f.change(func(r *storage.Record) {
		r.Return("a")
		r.Grant("b", storage.Lease{}, time.Now())
	})
}

func (f *fencing) renewals() uint64 {
	f.t.Helper()
	r, err := f.records.GetRecord(f.t.Context(), "v")
	if err != nil {
		f.t.Fatal(err)
	}
	return r.Leases["a"].Renewal
}

// holds says what the bucket has, read by somebody else.
func (f *fencing) holds(name, want string) {
	f.t.Helper()
	e, err := f.bucket.Volume().Files.Lookup(f.t.Context(), storage.Path(name))
	if want == "" {
		if !storage.Is(err, storage.NotFound) {
			f.t.Errorf("%s: %+v, %v, want nothing", name, e, err)
		}
		return
	}
	if err != nil || string(e.Inline) != want {
		f.t.Errorf("%s holds %q, %v, want %q", name, e.Inline, err, want)
	}
}

func leftoversOf(t *testing.T, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, leftovers.Dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func refusedBy(_ uint64, st gofuse.Status) gofuse.Status { return st }

// peep reads, and tells only how that ended.
func (c *caller) peep(node uint64) gofuse.Status {
	_, st := c.fs.Read(nil, &gofuse.ReadIn{InHeader: header(node), Size: 10}, make([]byte, 10))
	return st
}

var stale = gofuse.Status(errnos[storage.Stale])

// TestFenceAsksWhenTheLeaseIsOver: a node that slept commits when nobody has taken
// the volume meanwhile, once it has renewed its lease; by whichever clock it slept.
func TestFenceAsksWhenTheLeaseIsOver(t *testing.T) {
	f := newFencing(t)
	c := f.mount(t.TempDir(), 1, true)
	id, st := c.create(1, "f")
	c.ok("create", st)
	for _, sleep := range [][2]time.Duration{{0, 0}, {time.Hour, 0}, {0, time.Hour}, {time.Hour, -24 * time.Hour}} {
		f.pass(sleep[0], sleep[1])
		before := f.renewals()
		c.ok("write", c.write(id, []byte(sleep[0].String()+sleep[1].String()), 0))
		c.ok("fsync", c.fsync(id))
		if asked := f.renewals() > before; asked != (sleep != [2]time.Duration{}) {
			t.Errorf("slept %v: renewed %v", sleep, asked)
		}
	}
	c.ok("close", c.close(id))
	if err := c.fs.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestFencedMount: a node whose volume another one has taken changes nothing in the
// bucket, answers ESTALE, and keeps what it has aside.
func TestFencedMount(t *testing.T) {
	f := newFencing(t)
	dir := t.TempDir()
	c := f.mount(dir, 1, true)
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("write", c.write(id, []byte("committed"), 0))
	c.ok("fsync", c.fsync(id))
	c.ok("write", c.write(id, []byte("too late!"), 0))

	f.takeover()
	f.pass(time.Minute, time.Minute)
	if st := c.fsync(id); st != stale { // which finds out
		t.Errorf("fsync: %v, want ESTALE", st)
	}
	for what, st := range map[string]gofuse.Status{
		"write": c.write(id, []byte("more"), 0),
		"mkdir": refusedBy(c.mkdir(1, "d")),
		"read":  c.peep(id),
	} {
		if st != stale {
			t.Errorf("%s: %v, want ESTALE", what, st)
		}
	}
	if _, st := c.lookup(1, "f"); st != stale {
		t.Errorf("look-up: %v, want ESTALE", st)
	}
	for deadline := time.Now().Add(30 * time.Second); len(leftoversOf(t, dir)) < 2; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("nothing is kept aside")
		}
	}
	f.holds("f", "committed")
	f.holds("d", "")
	// Also when the volume is free again: it is another epoch.
	f.change(func(r *storage.Record) { r.Return("b") })
	if st := c.fsync(id); st != stale {
		t.Errorf("fsync: %v, want ESTALE", st)
	}
	if err := c.fs.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.fs.Retire(); !storage.Is(err, storage.InUse) {
		t.Errorf("the folder is retired: %v", err)
	}
	f.holds("f", "committed")
	if got := leftoversOf(t, dir); len(got) != 2 {
		t.Fatalf("leftovers: %v", got)
	} else if b, err := os.ReadFile(got[0]); err != nil || string(b) != "too late!" {
		t.Errorf("kept %q, %v", b, err)
	}
}

// TestCloseOfALostVolume: what no request has noticed, the end of the mount does.
func TestCloseOfALostVolume(t *testing.T) {
	f := newFencing(t)
	dir := t.TempDir()
	c := f.mount(dir, 1, true)
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("write", c.write(id, []byte("too late"), 0))
	f.takeover()
	f.pass(time.Minute, time.Minute)
	if err := c.fs.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e, err := f.bucket.Volume().Files.Lookup(t.Context(), "f"); err != nil || e.Size != 0 {
		t.Errorf("f has %d bytes, %v", e.Size, err)
	}
	if got := leftoversOf(t, dir); len(got) != 2 {
		t.Errorf("leftovers: %v", got)
	}
}

// TestJournalOfAnEarlierEpoch: what a dead mounter has left is committed by the next
// one as long as no other node had the volume in between, and kept aside otherwise.
func TestJournalOfAnEarlierEpoch(t *testing.T) {
	for _, epoch := range []uint64{1, 3} {
		f := newFencing(t)
		dir := t.TempDir()
		c := f.mount(dir, 1, true)
		id, st := c.create(1, "f")
		c.ok("create", st)
		c.ok("write", c.write(id, []byte("left"), 0))
		if epoch != 1 {
			f.takeover()
			f.change(func(r *storage.Record) { r.Return("b"); r.Grant("a", storage.Lease{}, time.Now()) })
		}
		c.fs.stop()
		c.fs.running.Wait()
		if err := c.fs.memo.journal.Close(); err != nil {
			t.Fatal(err)
		}
		for range 2 { // and the one after that
			c = f.mount(dir, epoch, true)
			if err := c.fs.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		e, err := f.bucket.Volume().Files.Lookup(t.Context(), "f")
		if err != nil {
			t.Fatal(err)
		}
		if kept := len(leftoversOf(t, dir)); (epoch == 1) != (e.Size == 4) || (epoch == 1) != (kept == 0) {
			t.Errorf("epoch %d: %d bytes in the bucket, %d leftovers", epoch, e.Size, kept)
		}
	}
}

// TestFenceWaitsForTheRecord: without an answer nothing is allowed and nothing lost.
func TestFenceWaitsForTheRecord(t *testing.T) {
	f := newFencing(t)
	fence := f.fence(1)
	if _, err := fence.Allow(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.pass(59*time.Second, 59*time.Second)
	until, err := fence.Allow(t.Context())
	if left := time.Until(until); err != nil || left > time.Second+storage.LeaseGrace {
		t.Errorf("a change may take %v, %v: longer than the next owner waits", left, err)
	}
	f.pass(time.Second, time.Second)
	fence.records = away{f.records}
	if _, err := fence.Allow(t.Context()); !storage.Is(err, storage.Unavailable) || fence.Lost() != nil {
		t.Errorf("without an answer: %v, lost %v", err, fence.Lost())
	}
	fence.records = f.records
	if _, err := fence.Allow(t.Context()); err != nil {
		t.Error(err)
	}
	f.change(func(r *storage.Record) { r.Phase = storage.Deleting })
	f.pass(time.Minute, time.Minute)
	if _, err := fence.Allow(t.Context()); !storage.Is(err, storage.Stale) {
		t.Errorf("of a volume that is being deleted: %v", err)
	}
}

// away are records that nobody can reach.
type away struct{ storage.Records }

func (away) GetRecord(context.Context, storage.VolumeID) (storage.Record, error) {
	return storage.Record{}, storage.Errorf(storage.Unavailable, "no answer")
}
