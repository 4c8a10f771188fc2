package cache

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// onDisk is what the files of a folder take there.
func onDisk(t testing.TB, dir string) (n int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		n += info.Sys().(*syscall.Stat_t).Blocks * 512
	}
	return n
}

// Blocks are there after a restart, in a folder that exists or not.
func TestRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	m := newMaterial(t, BlockSize, 5000, 3*BlockSize+77, 100, 40_000)
	for range 3 {
		c, err := Open(t.Context(), Options{Dir: dir, Limit: 64 << 20})
		if err != nil {
			t.Fatal(err)
		}
		m.all(t, c)
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if st := c.Stats(); st.Bad > 0 || st.Failures > 0 {
			t.Errorf("%+v", st)
		}
	}
	if n := m.store.reads.Load(); n != 8 {
		t.Errorf("%d reads of 8 blocks in three lives", n)
	}
}

// A smaller limit holds from the next start on.
func TestSmallerLimit(t *testing.T) {
	dir := t.TempDir()
	m := newMaterial(t, slices.Repeat([]int{BlockSize, 5000}, 20)...)
	for _, limit := range []int64{32 << 20, MinLimit, 32 << 20} {
		c, err := Open(t.Context(), Options{Dir: dir, Limit: limit})
		if err != nil {
			t.Fatal(err)
		}
		if n := onDisk(t, dir); n > limit {
			t.Errorf("%d bytes on the disk after the start, %d are allowed", n, limit)
		}
		m.all(t, c)
		if n := onDisk(t, dir); n > limit {
			t.Errorf("%d bytes on the disk, %d are allowed", n, limit)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// The file system itself never counts more than the limit, whoever reads what.
func TestLimitUnderConcurrency(t *testing.T) {
	const limit = 12 << 20
	dir := t.TempDir()
	sizes := slices.Repeat([]int{3000, 5000, 70_000, 200_000, BlockSize, 2*BlockSize + 5000}, 8)
	m := newMaterial(t, sizes...)
	c := open(t, Options{Dir: dir, Limit: limit})
	done := make(chan struct{})
	var readers, watcher sync.WaitGroup
	most := int64(0)
	watcher.Go(func() {
		for {
			most = max(most, onDisk(t, dir))
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for r := range 8 {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(r), 3))
			for range 150 {
				m.random(t, rng, c.Chunks(m.store))
			}
		})
	}
	readers.Wait()
	c.settle()
	close(done)
	watcher.Wait()
	st := c.Stats()
	if most > limit || st.Bytes > limit || st.Evictions == 0 || st.Bad > 0 {
		t.Errorf("%d bytes on the disk of %d: %+v", most, limit, st)
	}
	if most < limit/2 {
		t.Errorf("only %d bytes of %d are used", most, limit)
	}
}

// What du says of the folder, which is what a user sees, stays below the limit too:
// with the smallest pieces, small files and large ones in turn, with rest in the
// slots, over restarts, for a small cache and a larger one.
func TestLimitByDu(t *testing.T) {
	if _, err := exec.LookPath("du"); err != nil {
		t.Skip("there is no du")
	}
	for _, limit := range []int64{MinLimit, 24 << 20} {
		dir := filepath.Join(t.TempDir(), "cache")
		m := newMaterial(t, slices.Repeat([]int{100, 5000, 17_000, 300_000, storage.ChunkSize}, 8)...)
		rng := rand.New(rand.NewPCG(uint64(limit), 1))
		most := int64(0)
		for range 3 {
			c, err := Open(t.Context(), Options{Dir: dir, Limit: limit})
			if err != nil {
				t.Fatal(err)
			}
			v := c.Chunks(m.store)
			for round := range 10 {
				for range 100 {
					i := rng.IntN(len(m.chunks))
					off := rng.IntN(int(m.chunks[i].Size))
					n := 4096
					if round%3 == 2 {
						n = BlockSize
					}
					mustRead(t, v, m.chunks[i], m.data[i], off, min(n, int(m.chunks[i].Size)-off))
				}
				fill(t, v, 1+rng.IntN(BlockSize))
				out, err := exec.CommandContext(t.Context(), "du", "-s", "-B1", dir).Output()
				if err != nil {
					t.Fatal(err)
				}
				var n int64
				if _, err := fmt.Sscan(string(out), &n); err != nil {
					t.Fatalf("du says %q", out)
				}
				most = max(most, n)
			}
			if err := c.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if st := c.Stats(); st.Evictions == 0 || st.Failures > 0 || st.Bad > 0 {
				t.Errorf("%+v", st)
			}
		}
		if most > limit || most < limit/2 {
			t.Errorf("du says up to %d bytes, %d are allowed", most, limit)
		}
	}
}

// Others' files in the folder, and what a link in it leads to, stay as they are.
func TestForeignFilesStay(t *testing.T) {
	const text = "not ours"
	outside := filepath.Join(t.TempDir(), "outside")
	for _, x := range []struct {
		name  string
		plant func(path string) error
		works bool // beside what was planted
	}{
		{"notes.txt", func(p string) error { return os.WriteFile(p, []byte(text), 0o600) }, true},
		{"00", func(p string) error { return os.Mkdir(p, 0o700) }, true},
		{indexName, func(p string) error { return os.WriteFile(p, []byte(text), 0o600) }, false},
		{indexName, func(p string) error { return os.Symlink(outside, p) }, false},
		{blocksName, func(p string) error { return os.Symlink(outside, p) }, false},
		{blocksName, func(p string) error { return os.Link(outside, p) }, false},
		{lockName, func(p string) error { return os.Symlink(outside, p) }, false},
		{blocksName, func(p string) error { return syscall.Mkfifo(p, 0o600) }, false},
	} {
		if err := os.WriteFile(outside, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		path := filepath.Join(dir, x.name)
		if err := x.plant(path); err != nil {
			t.Fatal(err)
		}
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		m := newMaterial(t, BlockSize, 100)
		c := open(t, Options{Dir: dir, Limit: MinLimit})
		m.all(t, c)
		if c.Stats().Disk != x.works {
			t.Errorf("%s (%v): %+v", x.name, before.Mode(), c.Stats())
		}
		after, err := os.Lstat(path)
		if err != nil || after.Mode() != before.Mode() || after.Size() != before.Size() {
			t.Errorf("%s was %v and is %v (%v)", x.name, before, after, err)
		}
		if got, err := os.ReadFile(outside); err != nil || string(got) != text {
			t.Errorf("%s: outside is now %q, %v", x.name, got, err)
		}
	}
}

// A folder that cannot be made is no error either.
func TestNoFolder(t *testing.T) {
	var log bytes.Buffer
	m := newMaterial(t, BlockSize, 100)
	c := open(t, Options{Dir: filepath.Join(t.TempDir(), "a", "b"), Log: slog.New(slog.NewTextHandler(&log, nil))})
	m.all(t, c)
	m.all(t, c)
	if n := m.store.reads.Load(); n != 2 || c.Stats().Disk || bytes.Count(log.Bytes(), []byte("WARN")) != 1 {
		t.Errorf("%d reads, %+v\n%s", n, c.Stats(), &log)
	}
}

// Real files and a real lock: as TestSecondProcessWaits, without the wait.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	f, err := openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openFolder(dir); !storage.Is(err, storage.InUse) {
		t.Errorf("a second one: %v", err)
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	f, err = openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.close()
}

// A start with 100,000 blocks: the index alone is read.
func BenchmarkOpen(b *testing.B) {
	for _, x := range []struct {
		name string
		size int
		boot byte
	}{{"4KiB", 4000, 1}, {"4KiB-reboot", 4000, 0}} {
		b.Run(x.name, func(b *testing.B) {
			dir := b.TempDir()
			f, err := openFolder(dir)
			if err != nil {
				b.Fatal(err)
			}
			s, err := openSlab(f, 2<<30, slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			data := make([]byte, x.size)
			for i := range 100_000 {
				if !s.insert(benchKey(i), data, nil) {
					b.Fatalf("block %d: %d pages of %d", i, s.mu.t.pages, s.limit)
				}
			}
			if err := s.close(context.WithoutCancel(b.Context())); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				f, err := openFolder(dir)
				if err != nil {
					b.Fatal(err)
				}
				if x.boot == 0 {
					f = noBoot{f}
				}
				s, err := openSlab(f, 2<<30, slog.New(slog.DiscardHandler))
				if err != nil || s.mu.t.count() != 100_000 {
					b.Fatal(err)
				}
				_ = s.close(context.WithoutCancel(b.Context()))
			}
		})
	}
}

type noBoot struct{ folder }

func (noBoot) boot() bootID { return bootID{} }

func benchKey(i int) key {
	return newScope("").key(storage.ChunkID("bench"), span{int64(i) * BlockSize, BlockSize})
}
