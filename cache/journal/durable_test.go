package journal

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// promises are what Sync has said to be on the disk, by key.
type promises map[string]string

// durably is what a process does that syncs; errors of the disk do not end it.
func (m *model) durably(l *Log, kept *promises) {
	sync := func() {
		promised := maps.Clone(m.acked)
		if l.Sync() == nil {
			*kept = promised
		}
	}
	for i := range 5 {
		_ = m.append(l, []int{1, 700, 5000}[i%3], i%4 == 3)
		if i%2 == 1 {
			sync()
		}
	}
	_ = l.Compact(func(emit func([]byte) error) error {
		_ = m.append(l, 300, false)
		sync()
		err := m.live(emit)
		_ = m.append(l, 9000, true)
		sync()
		return err
	})
	_ = m.append(l, 50, false)
	sync()
	_ = m.append(l, 5000, false)
}

// kept checks that each promise is in the log, or what was appended for its key
// since.
func (m *model) kept(t *testing.T, when string, l *Log, got map[string]string, kept promises) {
	t.Helper()
	for k, v := range kept {
		if slices.Index(m.ever[k], got[k]) < slices.Index(m.ever[k], v) {
			t.Errorf("%s: %s is %.10q, and %.10q was synced", when, k, got[k], v)
		}
	}
	if l == nil {
		t.Errorf("%s: the journal cannot be opened", when)
	}
}

// reopenDurable is what the next process does.
func reopenDurable(d *memDisk) (*Log, map[string]string) {
	got := map[string]string{}
	l, _ := open(d, func(r []byte) error {
		k, v, _ := bytes.Cut(r, []byte("="))
		got[string(k)] = string(v)
		return nil
	})
	if l == nil || l.keep() != nil {
		return nil, got
	}
	return l, got
}

// The power goes at each step, and in the lives after it at any. What Sync has said
// to be on the disk is there.
func TestSyncedOutlivesThePower(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	count := newMemDisk(seed)
	{
		l, _ := reopenDurable(count)
		kept := promises{}
		newModel().durably(l, &kept)
		if len(kept) != 5 {
			t.Fatalf("%d keys were promised", len(kept))
		}
	}
	for range 20 {
		for step := 1; step <= count.steps+1; step++ {
			d := newMemDisk(rng.Uint64())
			d.failAt, d.failFor, d.fault = step, 1, powerLoss
			m, kept := newModel(), promises{}
			for life := range 3 {
				l, got := reopenDurable(d)
				if life > 0 || l != nil {
					m.acked = got
				}
				if l != nil {
					m.durably(l, &kept)
				}
				d.mu.Lock()
				d.dead = true // also if the step was not reached
				d.mu.Unlock()
				next := d.reboot()
				l, got = reopenDurable(next)
				m.kept(t, "after the cut", l, got, kept)
				if t.Failed() {
					t.Fatalf("seed %d, the power went at step %d of life %d", seed, d.failAt, life)
				}
				_ = l.Close()
				kept = maps.Clone(got) // opening has flushed
				d = next
				d.failAt, d.failFor, d.fault = d.steps+1+rng.IntN(count.steps), 1, powerLoss
			}
		}
	}
	t.Logf("%d steps", count.steps)
}

// Each flush fails once, and the power goes later. The Sync that failed says so, and
// no later one promises what the kernel has forgotten.
func TestFailedSyncIsNotForgotten(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for try := range uint64(20) {
		d := newMemDisk(seed + try)
		m, kept := newModel(), promises{}
		l, _ := reopenDurable(d)
		for range 5 {
			if err := m.append(l, 5000, false); err != nil {
				t.Fatal(err)
			}
		}
		d.failAt, d.failFor, d.fault = d.steps+1, 1, broken
		for i := range 3 {
			if err := l.Sync(); !errors.Is(err, syscall.EIO) {
				t.Fatalf("sync %d after a flush that failed: %v", i, err)
			}
			if err := m.append(l, 10, false); err != nil {
				t.Fatal(err)
			}
		}
		if try%2 == 1 { // written anew it can be promised again
			if err := l.Compact(m.live); err != nil {
				t.Fatal(err)
			}
			if err := l.Sync(); err != nil {
				t.Fatalf("after a compaction: %v", err)
			}
			kept = maps.Clone(m.acked)
		}
		d.mu.Lock()
		d.fault, d.dead = powerLoss, true
		d.mu.Unlock()
		next, got := reopenDurable(d.reboot())
		m.kept(t, "after the cut", next, got, kept)
	}
}

// nameless is a disk that does not flush names.
type nameless struct{ *memDisk }

func (nameless) sync() error { return syscall.EIO }

// A compaction whose new name may not be on the disk leaves a log that takes records
// and promises nothing.
func TestNameThatIsNotFlushed(t *testing.T) {
	d := newMemDisk(1)
	m := newModel()
	l, _ := reopenDurable(d)
	if err := m.append(l, 10, false); err != nil {
		t.Fatal(err)
	}
	l.disk = &failSecond{memDisk: d}
	if err := l.Compact(m.live); !errors.Is(err, syscall.EIO) {
		t.Errorf("compact: %v", err)
	}
	if err := m.append(l, 10, false); err != nil {
		t.Errorf("append: %v", err)
	}
	if err := l.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("sync: %v", err)
	}
	l.disk = d
	if err := l.Compact(m.live); err != nil {
		t.Errorf("compact: %v", err)
	}
	if err := l.Sync(); err != nil {
		t.Errorf("sync: %v", err)
	}
	l.disk = nameless{d}
	if err := l.Compact(m.live); !errors.Is(err, syscall.EIO) {
		t.Errorf("compact: %v", err)
	}
	if err := l.Sync(); err != nil {
		t.Errorf("the old file has its name still: %v", err)
	}
}

// failSecond fails the sync of names after the rename.
type failSecond struct {
	*memDisk
	renamed bool
}

func (f *failSecond) rename(from, to string) error {
	f.renamed = true
	return f.memDisk.rename(from, to)
}

func (f *failSecond) sync() error {
	if f.renamed {
		return syscall.EIO
	}
	return f.memDisk.sync()
}

// Many sync at the same time, while others append and the log is compacted, on a
// real disk.
func TestSyncAlongside(t *testing.T) {
	l, err := OpenDurable(t.TempDir(), func([]byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 30 {
				if err := errors.Join(l.Append(bytes.Repeat([]byte{1}, 4096)), l.Sync()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Go(func() {
		for range 10 {
			if err := l.Compact(func(emit func([]byte) error) error { return emit([]byte("live")) }); err != nil {
				t.Error(err)
			}
		}
	})
	all.Wait()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
