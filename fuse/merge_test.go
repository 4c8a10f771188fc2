package fuse

import (
	"bytes"
	"context"
	"encoding/binary"
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

const blockBytes = 4096

// block is content that tells which block it is and how new.
func block(i int, version uint32) []byte {
	b := make([]byte, blockBytes)
	for at := 0; at < blockBytes; at += 8 {
		binary.LittleEndian.PutUint32(b[at:], uint32(i))
		binary.LittleEndian.PutUint32(b[at+4:], version)
	}
	return b
}

// versionOf is the reverse; ok is false when the block is not of one piece.
func versionOf(b []byte, i int) (version uint32, ok bool) {
	version = binary.LittleEndian.Uint32(b[4:])
	return version, bytes.Equal(b, block(i, version))
}

// countMerges counts the updates that merging sends.
type countMerges struct {
	storage.Files
	merged atomic.Int64
}

func (f *countMerges) Update(ctx context.Context, p storage.Path, e storage.Entry) (storage.Entry, error) {
	done, err := f.Files.Update(ctx, p, e)
	if err == nil && e.Merged {
		f.merged.Add(1)
	}
	return done, err
}

// TestMergingUnnoticed overwrites a file at random, with an fsync for each piece,
// from two mounts that both merge it, while others read it: no reader sees a block
// torn, or older than what was acknowledged before it asked; few chunks are left,
// and none that nobody names.
func TestMergingUnnoticed(t *testing.T) {
	const blocks = 512
	seed := seedOf(t)
	bucket := memory.NewBucket(1 << 30)
	var first []byte
	for i := range blocks {
		first = append(first, block(i, 0)...)
	}
	pieces(t, bucket.Volume(), "f", first, 256<<10)
	var acknowledged [blocks]atomic.Uint32
	var oneCommits sync.Mutex // a commit gives up when another mount is faster ten times in a row
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	files := make([]*countMerges, 2)
	mounts := make([]*caller, 2)
	for m := range mounts {
		v := bucket.Volume()
		files[m] = &countMerges{Files: v.Files}
		v.Files = files[m]
		mounts[m] = mount(t, v)
		id, st := mounts[m].lookup(1, "f")
		mounts[m].ok("lookup", st)
		mounts[m].ok("open", mounts[m].open(id))
		writers.Go(func() { // the even blocks, or the odd ones
			rng := rand.New(rand.NewPCG(seed, uint64(m)))
			for version := uint32(1); version <= 300 && !t.Failed(); version++ {
				i := rng.IntN(blocks/2)*2 + m
				if _, st := mounts[m].fs.Write(nil, &gofuse.WriteIn{InHeader: header(id), Offset: uint64(i) * blockBytes}, block(i, version)); !st.Ok() {
					t.Errorf("write: %v", st)
				}
				oneCommits.Lock()
				if st := mounts[m].fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(id)}); !st.Ok() {
					t.Errorf("fsync: %v", st)
				}
				oneCommits.Unlock()
				acknowledged[i].Store(version)
			}
		})
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(m+10)))
			buf := make([]byte, 8*blockBytes)
			for {
				select {
				case <-stop:
					return
				default:
				}
				i := rng.IntN(blocks - 8)
				var least [8]uint32
				for k := range least {
					if (i+k)%2 == m { // another mount's are seen after the next look
						least[k] = acknowledged[i+k].Load()
					}
				}
				res, st := mounts[m].fs.Read(nil, &gofuse.ReadIn{InHeader: header(id), Offset: uint64(i) * blockBytes, Size: uint32(len(buf))}, buf)
				if !st.Ok() {
					t.Errorf("read: %v", st)
					return
				}
				got, _ := res.Bytes(buf)
				for k := range least {
					if v, ok := versionOf(got[k*blockBytes:][:blockBytes], i+k); !ok || v < least[k] {
						t.Errorf("seed %d: mount %d reads block %d torn or as of %d, acknowledged was %d", seed, m, i+k, v, least[k])
						return
					}
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	for m, c := range mounts {
		id, _ := c.lookup(1, "f")
		c.ok("close", c.close(id))
		if err := c.fs.mergeFile(t.Context(), c.fs.table.get(id)); err != nil { // as far as it can keep up
			t.Error(err)
		}
		if n := files[m].merged.Load(); n == 0 {
			t.Errorf("mount %d has merged nothing", m)
		}
		if err := c.fs.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	e, err := bucket.Volume().Files.Lookup(t.Context(), "f")
	if err != nil {
		t.Fatal(err)
	}
	if n := bucket.ChunkCount(); n != len(e.Chunks) || n > 2*mergeBegin {
		t.Errorf("%d chunks are kept, %d are used", n, len(e.Chunks))
	}
	c := mount(t, bucket.Volume())
	id, _ := c.lookup(1, "f")
	got := c.read(id, 0, blocks*blockBytes)
	for i := range blocks {
		if v, ok := versionOf(got[i*blockBytes:][:blockBytes], i); !ok || v != acknowledged[i].Load() {
			t.Fatalf("seed %d: block %d is as of %d, want %d", seed, i, v, acknowledged[i].Load())
		}
	}
}

// TestAppendedStaysShort appends 4 KiB at a time with an fsync for each, as a
// database's log does: the entry, of which each commit sends all, has few chunks in
// the end, every byte is right, and no chunk is left that nobody names.
func TestAppendedStaysShort(t *testing.T) {
	const commits = 3000
	bucket := memory.NewBucket(1 << 30)
	c := mount(t, bucket.Volume())
	id, st := c.create(1, "f")
	c.ok("create", st)
	for i := range commits {
		in := &gofuse.WriteIn{InHeader: header(id), Flags: syscall.O_APPEND}
		if _, st := c.fs.Write(nil, in, block(i, 1)); !st.Ok() {
			t.Fatalf("write: %v", st)
		}
		c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(id)}))
	}
	c.fs.stop() // there is one that merges at a time
	c.fs.running.Wait()
	if err := c.fs.mergeFile(t.Context(), c.fs.table.get(id)); err != nil { // what waited in the background
		t.Fatal(err)
	}
	c.ok("close", c.close(id))
	if err := c.fs.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	e, err := bucket.Volume().Files.Lookup(t.Context(), "f")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d chunks after %d commits", len(e.Chunks), commits)
	if n := bucket.ChunkCount(); n != len(e.Chunks) || n > 30 {
		t.Errorf("%d chunks are kept, %d are used", n, len(e.Chunks))
	}
	other := mount(t, bucket.Volume())
	id, st = other.lookup(1, "f")
	other.ok("lookup", st)
	got := other.read(id, 0, commits*blockBytes)
	if len(got) != commits*blockBytes {
		t.Fatalf("%d bytes", len(got))
	}
	for i := range commits {
		if v, ok := versionOf(got[i*blockBytes:][:blockBytes], i); !ok || v != 1 {
			t.Fatalf("block %d differs", i)
		}
	}
}

// cutShort is a store that loses the updates of merging, or their answers.
type cutShort struct {
	storage.Files
	carriedOut bool
	// late is an update that is still on its way.
	late func() error
	// next is set when the next mounter is there: what looks after the house of the
	// one that is to die may try again before that.
	next atomic.Bool
}

func (f *cutShort) Update(ctx context.Context, p storage.Path, e storage.Entry) (storage.Entry, error) {
	if !e.Merged || f.next.Load() {
		return f.Files.Update(ctx, p, e)
	}
	if f.late == nil {
		f.late = func() error {
			_, err := f.Files.Update(context.WithoutCancel(ctx), p, e)
			return err
		}
		if f.carriedOut {
			if err := f.late(); err != nil {
				return storage.Entry{}, err
			}
		}
	}
	return storage.Entry{}, storage.Errorf(storage.Unavailable, "the mounter died")
}

// TestMergeCutShort: a mounter dies when the update of a merging was sent, with
// and without its being carried out; others change the file before the next
// mounter comes. It finds the bytes as they are, no chunk that nobody names, and
// what is still on its way does no harm.
func TestMergeCutShort(t *testing.T) {
	const size = 2 << 20
	between := map[string]func(v storage.Volume) error{
		"nothing": func(storage.Volume) error { return nil },
		"other mode": func(v storage.Volume) error {
			e, err := v.Files.Lookup(t.Context(), "f")
			e.Mode = 0o600
			if err == nil {
				_, err = v.Files.Update(t.Context(), "f", e)
			}
			return err
		},
		"truncated and grown": func(v storage.Volume) error {
			e, err := v.Files.Lookup(t.Context(), "f")
			e.Chunks = storage.Cut(e.Chunks, 1234)
			if err == nil {
				_, err = v.Files.Update(t.Context(), "f", e)
			}
			return err
		},
		"moved": func(v storage.Volume) error {
			f, err := v.Files.Lookup(t.Context(), "f")
			if err != nil {
				return err
			}
			return v.Files.Rename(t.Context(), "f", "g", f, nil, nil)
		},
		"replaced": func(v storage.Volume) error {
			g, err := v.Files.Create(t.Context(), "g", storage.Entry{Mode: 0o644, Native: true, Inode: newInode()}, false)
			if err != nil {
				return err
			}
			f, err := v.Files.Lookup(t.Context(), "f")
			if err != nil {
				return err
			}
			return v.Files.Rename(t.Context(), "g", "f", g, &f, nil)
		},
	}
	for name, change := range between {
		for _, carriedOut := range []bool{false, true} {
			for _, fresh := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/carriedOut=%t/fresh=%t", name, carriedOut, fresh), func(t *testing.T) {
					bucket := memory.NewBucket(1 << 30)
					v := bucket.Volume()
					store := &cutShort{Files: v.Files, carriedOut: carriedOut}
					v.Files = store
					c := begin(t, v)
					want := pattern(size, 1)
					pieces(t, bucket.Volume(), "f", want, 16<<10)
					id, st := c.lookup(1, "f")
					c.ok("lookup", st)
					c.ok("open", c.open(id))
					if err := c.fs.mergeFile(t.Context(), c.fs.table.get(id)); !storage.Is(err, storage.Unavailable) {
						t.Fatalf("merge: %v", err)
					}
					if err := c.fs.compact(); err != nil { // the note lives over that
						t.Fatal(err)
					}
					if err := change(bucket.Volume()); err != nil {
						t.Fatal(err)
					}
					c = c.crash(fresh)
					store.next.Store(true)
					if !c.fs.sweepMerges(t.Context()) {
						t.Fatal("the merging is still in doubt")
					}
					if !carriedOut {
						if err := store.late(); err == nil {
							t.Error("a late update of the dead mounter was carried out")
						}
					}
					at := "f"
					if name == "moved" {
						at = "g"
					}
					e, err := bucket.Volume().Files.Lookup(t.Context(), storage.Path(at))
					if err != nil {
						t.Fatal(err)
					}
					used := len(e.Chunks)
					if (name == "replaced" || name == "moved") && !carriedOut {
						used++ // it may be in use where somebody has moved the file
					}
					if n := bucket.ChunkCount(); n != used {
						t.Errorf("%d chunks are kept, %d are to be", n, used)
					}
					other := mount(t, bucket.Volume())
					id, st = other.lookup(1, at)
					other.ok("lookup", st)
					if name == "truncated and grown" {
						clear(want[1234:])
					}
					if got := other.read(id, 0, size); !bytes.Equal(got, want[:e.Size]) {
						t.Error("the content differs")
					}
					if err := c.fs.Close(t.Context()); err != nil {
						t.Fatal(err)
					}
				})
			}
		}
	}
}

// TestClocksApart: two mounts whose clocks differ by a minute, and a third writer
// who orders by his clock, never hide each other's data: what is committed last
// is seen, by all, also when it is merged in between.
func TestClocksApart(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	v := bucket.Volume()
	data := pattern(2<<20, 1)
	e := pieces(t, v, "f", data, 64<<10)
	fast := time.Now().Add(time.Minute).UnixNano()
	for i := range e.Chunks { // as a node whose clock is a minute ahead, and that goes by it
		e.Chunks[i].Modified = fast + int64(i)
	}
	if _, err := v.Files.Update(t.Context(), "f", e); err != nil {
		t.Fatal(err)
	}
	mounts := []*caller{mount(t, bucket.Volume()), mount(t, bucket.Volume())}
	for i := range 60 {
		c := mounts[i%2]
		id, st := c.lookup(1, "f")
		c.ok("lookup", st)
		c.ok("open", c.open(id))
		off := int64(i%7) * 50_000
		piece := pattern(10_000, i)
		c.ok("write", c.write(id, piece, off))
		copy(data[off:], piece)
		c.ok("close", c.close(id))
		if i%9 == 0 {
			if err := c.fs.mergeFile(t.Context(), c.fs.table.get(id)); err != nil {
				t.Fatal(err)
			}
		}
		for m, c := range mounts {
			id, st := c.lookup(1, "f")
			c.ok("lookup", st)
			if got := c.whole(id, data); !bytes.Equal(got, data) {
				t.Fatalf("step %d: mount %d does not see what was closed last", i, m)
			}
		}
	}
}
