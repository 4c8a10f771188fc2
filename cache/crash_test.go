package cache

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// material is what the crash tests read: chunks of all kinds of sizes.
type material struct {
	store  *counting
	chunks []storage.Chunk
	data   [][]byte
}

func newMaterial(t *testing.T, sizes ...int) *material {
	m := &material{store: newStore()}
	for _, n := range sizes {
		ch, data := fill(t, m.store.Chunks, n)
		m.chunks, m.data = append(m.chunks, ch), append(m.data, data)
	}
	return m
}

func openMem(t *testing.T, m *memFolder, log *slog.Logger) *Cache {
	t.Helper()
	c, err := Open(t.Context(), Options{Dir: "/nowhere", Limit: MinLimit, Memory: MinMemory, folder: m.take, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// scenario fills the cache over its limit, reads again, in pieces too, and adds
// written chunks, for a volume without a bound and then for one with.
func (m *material) scenario(t *testing.T, c *Cache) {
	t.Helper()
	for round, v := range []storage.Chunks{c.Chunks(m.store), c.Bounded(m.store, "b", MinLimit/2)} {
		for i, ch := range m.chunks {
			n := min(len(m.data[i]), 200_000)
			mustRead(t, v, ch, m.data[i], 0, n)
			c.settle()
			if round == 1 {
				mustRead(t, v, ch, m.data[i], len(m.data[i])-n, n)
				c.settle()
			}
			if n > 4*pieceSize {
				mustRead(t, v, ch, m.data[i], len(m.data[i])-3*pieceSize-7, 5)
				c.settle()
			}
			cut := ch
			cut.Size = (ch.Size + 1) / 2
			mustRead(t, v, cut, m.data[i], int(cut.Size)-1, 1)
			c.settle()
		}
		small, data := fill(t, v, 3000+round)
		c.settle()
		mustRead(t, v, small, data, 10, 100)
		m.leave(t, c)
	}
	if s := c.slab.Load(); s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, o := range s.mu.t.owners[1:] {
			if o.coming != 0 || o.pages > MinLimit/2/pageSize {
				t.Errorf("a volume has %d pages, and %d are still to come", o.pages, o.coming)
			}
		}
	}
}

// leave has a reader leave in the middle of a fetch, of a block that is nowhere.
func (m *material) leave(t *testing.T, c *Cache) {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	ch := storage.Chunk{ID: "left", Size: BlockSize}
	err := c.Chunks(leaving{m.store, leave}).Read(ctx, ch, make([]byte, 10), 50)
	if !storage.IsContext(err) {
		t.Errorf("a reader who left got %v", err)
	}
	c.settle()
}

// leaving is a store whose reader leaves.
type leaving struct {
	storage.Chunks
	leave func()
}

func (l leaving) Read(ctx context.Context, _ storage.Chunk, b []byte, _ int64) error {
	b[0]++
	l.leave()
	return ctx.Err()
}

func (m *material) all(t *testing.T, c *Cache) {
	t.Helper()
	v := c.Chunks(m.store)
	for i, ch := range m.chunks {
		mustRead(t, v, ch, m.data[i], 0, len(m.data[i]))
		mustRead(t, v, ch, m.data[i], len(m.data[i])/2, 1)
		c.settle()
	}
}

// Each step on the disk fails in turn, in each way, and once for good. Readers
// never notice, neither those of that process nor those of the next.
func TestFaultAtEachStep(t *testing.T) {
	m := newMaterial(t, BlockSize, 5000, 3*BlockSize+77, 100, 40_000, 2*BlockSize, 4096)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	count := newMemFolder(seed)
	c := openMem(t, count, nil)
	m.scenario(t, c)
	_ = c.Close(context.WithoutCancel(t.Context()))
	if st := c.Stats(); st.Evictions == 0 || st.Bad > 0 || st.Failures > 0 {
		t.Fatalf("without a fault: %+v", st)
	}
	for f, name := range faultNames {
		for _, lasts := range []int{1, 1 << 30} {
			if f == noFault || lasts > 1 && f >= killed {
				continue // the dead stay dead
			}
			for step := 1; step <= count.steps; step++ {
				disk := newMemFolder(seed + uint64(step))
				disk.failAt, disk.failFor, disk.fault = step, lasts, f
				c := openMem(t, disk, nil)
				m.scenario(t, c)
				_ = c.Close(context.WithoutCancel(t.Context()))
				next := disk.reboot()
				c = openMem(t, next, nil)
				m.all(t, c)
				if step%3 == 0 { // the whole of it takes minutes with the race detector
					m.scenario(t, c)
				}
				if peak := max(disk.most(), next.most()); peak > MinLimit {
					t.Fatalf("seed %d, %s at step %d: %d bytes on the disk", seed, name, step, peak)
				}
				if st := c.Stats(); !st.Disk {
					t.Fatalf("seed %d, %s at step %d: the next process has no disk: %+v", seed, name, step, st)
				}
				_ = c.Close(context.WithoutCancel(t.Context()))
				if t.Failed() {
					t.Fatalf("seed %d, %s at step %d", seed, name, step)
				}
			}
		}
	}
	t.Logf("%d steps", count.steps)
}

// Random reads, writes, ends, kills and power cuts: only right bytes are served.
func TestModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	m := newMaterial(t)
	disk := newMemFolder(seed)
	c := openMem(t, disk, nil)
	lives, bad, hits := 0, uint64(0), uint64(0)
	steps := 1500
	if testing.Short() {
		steps = 300
	}
	for range steps {
		v := c.Chunks(m.store)
		switch rng.IntN(20) {
		case 0: // a new chunk, as the file system writes it
			ch, data := fill(t, v, 1+rng.IntN([]int{100, 5000, 300_000, 3 << 20}[rng.IntN(4)]))
			m.chunks, m.data = append(m.chunks, ch), append(m.data, data)
		case 1: // the end of a process, in one of the ways
			bad, hits, lives = bad+c.Stats().Bad, hits+c.Stats().Hits, lives+1
			if rng.IntN(2) == 0 {
				disk.mu.Lock()
				disk.failAt, disk.failFor, disk.fault = disk.steps+1+rng.IntN(4), 1<<30, fault(1+rng.IntN(4))
				disk.mu.Unlock()
				for range 4 {
					m.random(t, rng, c.Chunks(m.store))
				}
			}
			_ = c.Close(context.WithoutCancel(t.Context()))
			disk = disk.reboot()
			c = openMem(t, disk, nil)
		case 2: // a reader leaves
			m.leave(t, c)
		case 3: // bytes rot
			disk.rot(rng)
		default:
			m.random(t, rng, v)
		}
		if peak := disk.most(); peak > MinLimit {
			t.Fatalf("seed %d: %d bytes on the disk", seed, peak)
		}
	}
	_ = c.Close(context.WithoutCancel(t.Context()))
	t.Logf("%d processes, %d bad blocks, %d hits", lives, bad, hits)
	if !testing.Short() && (bad == 0 || hits == 0) {
		t.Errorf("seed %d: the faults hit nothing", seed)
	}
}

func (m *material) random(t *testing.T, rng *rand.Rand, v storage.Chunks) {
	t.Helper()
	if len(m.chunks) == 0 {
		return
	}
	i := rng.IntN(len(m.chunks))
	ch := m.chunks[i]
	if rng.IntN(4) == 0 {
		ch.Size = 1 + rng.Int64N(ch.Size)
	}
	off := rng.IntN(int(ch.Size))
	mustRead(t, v, ch, m.data[i], off, min(1+rng.IntN(100_000), int(ch.Size)-off))
}

// rot flips bytes on the disk.
func (m *memFolder) rot(rng *rand.Rand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.files {
		for i, p := range f.pages {
			if i > 0 && rng.IntN(20) == 0 {
				f.touchLocked(i)
				p[rng.IntN(pageSize)] ^= byte(1 + rng.IntN(255))
			}
		}
	}
}

// A block that rotted is fetched again, and counted.
func TestRottenBlock(t *testing.T) {
	m := newMaterial(t, BlockSize)
	disk := newMemFolder(1)
	c := openMem(t, disk, nil)
	v := c.Chunks(m.store)
	mustRead(t, v, m.chunks[0], m.data[0], 0, BlockSize)
	c.settle()
	disk.mu.Lock()
	disk.files[blocksName].pages[10][7]++
	disk.mu.Unlock()
	mustRead(t, v, m.chunks[0], m.data[0], 0, 10) // another unit: still good
	mustRead(t, v, m.chunks[0], m.data[0], 0, BlockSize)
	c.settle()
	mustRead(t, v, m.chunks[0], m.data[0], 0, BlockSize)
	if st := c.Stats(); st.Bad != 1 || m.store.reads.Load() != 2 || st.Hits != 2 {
		t.Errorf("%+v, %d reads", st, m.store.reads.Load())
	}
	_ = c.Close(context.WithoutCancel(t.Context()))
}

// A disk that is full or broken is left alone for a while. Readers get their
// bytes, the log one warning.
func TestDiskFull(t *testing.T) {
	m := newMaterial(t, BlockSize, BlockSize, BlockSize, BlockSize, 100)
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		disk := newMemFolder(1)
		disk.capacity = BlockSize + BlockSize/2
		c := openMem(t, disk, slog.New(slog.NewTextHandler(&log, nil)))
		for range 3 {
			m.all(t, c)
		}
		st := c.Stats()
		if st.Failures != 1 || st.Refused == 0 || st.Disk || bytes.Count(log.Bytes(), []byte("level=WARN")) != 1 {
			t.Errorf("%+v\n%s", st, &log)
		}
		if st.Bytes > 2*BlockSize {
			t.Errorf("the block that did not fit still counts: %+v", st)
		}
		time.Sleep(firstPause) //nolint:forbidigo // a bubble's time
		m.all(t, c)
		if bytes.Count(log.Bytes(), []byte("level=WARN")) != 1 || c.Stats().Failures < 2 {
			t.Errorf("after the first pause: %+v\n%s", c.Stats(), &log)
		}
		disk.mu.Lock()
		disk.capacity = 0
		disk.mu.Unlock()
		time.Sleep(lastPause) //nolint:forbidigo // a bubble's time
		m.all(t, c)
		if st := c.Stats(); !st.Disk || !bytes.Contains(log.Bytes(), []byte("works again")) {
			t.Errorf("the disk is well again: %+v\n%s", st, &log)
		}
		_ = c.Close(context.WithoutCancel(t.Context()))
	})
}

// The second process works without the folder, and takes it when the first ends.
func TestSecondProcessWaits(t *testing.T) {
	m := newMaterial(t, BlockSize, 100)
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		disk := newMemFolder(1)
		first := openMem(t, disk, nil)
		second := openMem(t, disk, slog.New(slog.NewTextHandler(&log, nil)))
		v := second.Chunks(m.store)
		mustRead(t, v, m.chunks[0], m.data[0], 5, 4000)
		if st := second.Stats(); st.Disk || bytes.Count(log.Bytes(), []byte("level=WARN")) != 1 {
			t.Errorf("%+v\n%s", st, &log)
		}
		_ = first.Close(context.WithoutCancel(t.Context()))
		time.Sleep(2 * lockedPause) //nolint:forbidigo // a bubble's time
		mustRead(t, v, m.chunks[1], m.data[1], 0, 100)
		synctest.Wait()
		if st := second.Stats(); !st.Disk || st.Blocks != 1 {
			t.Errorf("%+v\n%s", st, fmt.Sprint(&log))
		}
		_ = second.Close(context.WithoutCancel(t.Context()))
	})
}

// A header of the index that was torn in its first bytes is no foreign file
// (TestFaultAtEachStep, seed 3978860308751831291).
func TestTornIndexHeader(t *testing.T) {
	m := newMaterial(t, 100)
	for n := range len(indexHeader(bootID{1})) {
		disk := newMemFolder(1)
		f, err := disk.open(indexName)
		if err != nil {
			t.Fatal(err)
		}
		if err := writeAll(f, [][]byte{indexHeader(bootID{1})[:n]}, 0); err != nil {
			t.Fatal(err)
		}
		if err := f.resize(20_000); err != nil {
			t.Fatal(err)
		}
		c := openMem(t, disk, nil)
		m.all(t, c)
		if st := c.Stats(); !st.Disk || st.Blocks != 1 {
			t.Errorf("%d bytes of it: %+v", n, st)
		}
		_ = c.Close(context.WithoutCancel(t.Context()))
	}
}
