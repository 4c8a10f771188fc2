package fuse

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// seedOf draws the seed of a test, or takes that of HOLDFAST_SEED, and logs it.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed, err := strconv.ParseUint(os.Getenv("HOLDFAST_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	return seed
}

// caller speaks to a file system as the kernel does.
type caller struct {
	t  *testing.T
	fs *FS
}

// silent is a kernel that caches nothing.
type silent struct{}

func (silent) InvalInode(uint64, int64, int64) error { return nil }
func (silent) InvalEntry(uint64, string) error       { return nil }

func mount(t *testing.T, v storage.Volume) *caller {
	t.Helper()
	fs := New(v, Options{Dir: t.TempDir(), UID: 5, GID: 6, Fresh: true})
	if err := fs.Recover(); err != nil {
		t.Fatal(err)
	}
	fs.Start(silent{})
	t.Cleanup(func() {
		// The test's own context has ended by now, and a close that is cut short leaves
		// what is to be committed or kept aside.
		ctx, done := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
		defer done()
		if err := fs.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
		if fs.memory.Load() != 0 {
			t.Errorf("%d bytes of stages are still counted", fs.memory.Load())
		}
		checkRoom(t, fs)
	})
	return &caller{t, fs}
}

func header(node uint64) gofuse.InHeader {
	return gofuse.InHeader{NodeId: node, Caller: gofuse.Caller{Owner: gofuse.Owner{Uid: 1000, Gid: 1001}}}
}

func (c *caller) lookup(dir uint64, name string) (uint64, gofuse.Status) {
	var out gofuse.EntryOut
	h := header(dir)
	st := c.fs.Lookup(nil, &h, name, &out)
	return out.NodeId, st
}

func (c *caller) create(dir uint64, name string) (uint64, gofuse.Status) {
	var out gofuse.CreateOut
	st := c.fs.Create(nil, &gofuse.CreateIn{InHeader: header(dir), Mode: 0o644, Flags: syscall.O_RDWR}, name, &out)
	return out.NodeId, st
}

func (c *caller) open(node uint64) gofuse.Status {
	var out gofuse.OpenOut
	return c.fs.Open(nil, &gofuse.OpenIn{InHeader: header(node), Flags: syscall.O_RDWR}, &out)
}

func (c *caller) write(node uint64, data []byte, off int64) gofuse.Status {
	n, st := c.fs.Write(nil, &gofuse.WriteIn{InHeader: header(node), Offset: uint64(off)}, data)
	if st.Ok() && int(n) != len(data) {
		c.t.Fatalf("wrote %d of %d", n, len(data))
	}
	return st
}

func (c *caller) read(node uint64, off, n int64) []byte {
	c.t.Helper()
	return c.readInto(node, off, make([]byte, n))
}

func (c *caller) readInto(node uint64, off int64, buf []byte) []byte {
	c.t.Helper()
	for at := copy(buf, "\xaa"); at < len(buf); { // what a reader must overwrite
		at += copy(buf[at:], buf[:at])
	}
	r, st := c.fs.Read(nil, &gofuse.ReadIn{InHeader: header(node), Offset: uint64(off), Size: uint32(len(buf))}, buf)
	if !st.Ok() {
		c.t.Fatalf("read: %v", st)
	}
	got, _ := r.Bytes(buf)
	return got
}

// beyond is how much more is asked for than a file is to have, so that a longer one is
// seen. More would prove no more, and the race detector looks at each byte.
const beyond = 4096

// whole reads a file that is to hold want.
func (c *caller) whole(node uint64, want []byte) []byte {
	c.t.Helper()
	return c.read(node, 0, int64(len(want)+beyond))
}

func (c *caller) close(node uint64) gofuse.Status {
	st := c.fs.Flush(nil, &gofuse.FlushIn{InHeader: header(node)})
	c.fs.Release(nil, &gofuse.ReleaseIn{InHeader: header(node)})
	return st
}

func (c *caller) attr(node uint64) (gofuse.Attr, gofuse.Status) {
	var out gofuse.AttrOut
	st := c.fs.GetAttr(nil, &gofuse.GetAttrIn{InHeader: header(node)}, &out)
	return out.Attr, st
}

func (c *caller) truncate(node uint64, size int64) gofuse.Status {
	var out gofuse.AttrOut
	in := &gofuse.SetAttrIn{}
	in.InHeader, in.Valid, in.Size = header(node), gofuse.FATTR_SIZE, uint64(size)
	return c.fs.SetAttr(nil, in, &out)
}

func (c *caller) ok(what string, st gofuse.Status) {
	c.t.Helper()
	if !st.Ok() {
		c.t.Fatalf("%s: %v", what, st)
	}
}

// TestContentModel writes, truncates, commits and reads one file at random, by
// two mounts in turn, and compares it with bytes in memory: small enough to be
// written as a whole, and large enough for chunks.
func TestContentModel(t *testing.T) {
	for _, limit := range []int64{4096, 3 << 20} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			seed := seedOf(t)
			rng := rand.New(rand.NewPCG(seed, 2))
			bucket := memory.NewBucket(1 << 30)
			a, b := mount(t, bucket.Volume()), mount(t, bucket.Volume())
			node, st := a.create(1, "f")
			a.ok("create", st)
			a.ok("close", a.close(node))
			var model []byte
			for step := range 60 {
				c := []*caller{a, b}[rng.IntN(2)]
				id, st := c.lookup(1, "f")
				c.ok("lookup", st)
				c.ok("open", c.open(id))
				for range 1 + rng.IntN(5) {
					off := rng.Int64N(limit)
					switch rng.IntN(4) {
					case 0:
						c.ok("truncate", c.truncate(id, off))
						if off <= int64(len(model)) {
							model = model[:off:off]
						} else {
							model = append(model, make([]byte, off-int64(len(model)))...)
						}
					case 1:
						if rng.IntN(2) == 0 {
							c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(id)}))
						}
					default:
						data := make([]byte, 1+rng.Int64N(min(limit, 300<<10)))
						for i := range data {
							data[i] = byte(rng.Uint32())
						}
						c.ok("write", c.write(id, data, off))
						if grow := off + int64(len(data)) - int64(len(model)); grow > 0 {
							model = append(model, make([]byte, grow)...)
						}
						copy(model[off:], data)
					}
					if got := c.whole(id, model); !bytes.Equal(got, model) {
						t.Fatalf("seed %d step %d: %d bytes differ from the model's %d", seed, step, len(got), len(model))
					}
				}
				c.ok("close", c.close(id))
				attr, st := c.attr(id)
				c.ok("getattr", st)
				if attr.Size != uint64(len(model)) {
					t.Fatalf("seed %d step %d: size %d, want %d", seed, step, attr.Size, len(model))
				}
			}
			// Everything but the visible chunks was freed.
			e, err := bucket.Volume().Files.Lookup(t.Context(), "f")
			if err != nil {
				t.Fatal(err)
			}
			if got := bucket.ChunkCount(); got != len(e.Chunks) {
				t.Errorf("%d chunks are kept, %d are used", got, len(e.Chunks))
			}
		})
	}
}

// TestUnlinkedWhileOpen: the content lives until the last close, then it goes.
func TestUnlinkedWhileOpen(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	c := mount(t, bucket.Volume())
	node, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("write", c.write(node, []byte("before"), 0))
	c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(node)}))
	h := header(1)
	c.ok("unlink", c.fs.Unlink(nil, &h, "f"))
	if _, st := c.lookup(1, "f"); st != gofuse.ENOENT {
		t.Errorf("lookup after unlink: %v", st)
	}
	c.ok("write", c.write(node, []byte(" and after"), 6))
	if got := c.read(node, 0, 100); string(got) != "before and after" {
		t.Errorf("read %q", got)
	}
	if a, st := c.attr(node); !st.Ok() || a.Nlink != 0 {
		t.Errorf("attr: %v, nlink %d", st, a.Nlink)
	}
	c.ok("close", c.close(node))
	if n := bucket.ChunkCount(); n != 0 {
		t.Errorf("%d chunks stay", n)
	}
}

// TestRenamedOverWhileOpen: the content of a file that another one replaced lives
// until the last close, whatever is written to it meanwhile.
func TestRenamedOverWhileOpen(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	c := mount(t, bucket.Volume())
	old, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("write", c.write(old, []byte("before"), 0))
	c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(old)}))
	next, st := c.create(1, "g")
	c.ok("create", st)
	c.ok("write", c.write(next, []byte("another"), 0))
	c.ok("close", c.close(next))
	c.ok("write", c.write(old, []byte(" and"), 6)) // not committed when it happens
	c.ok("rename", c.fs.Rename(nil, &gofuse.RenameIn{InHeader: header(1), Newdir: 1}, "g", "f"))
	c.ok("write", c.write(old, []byte(" after"), 10))
	c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(old)}))
	if got := c.read(old, 0, 100); string(got) != "before and after" {
		t.Errorf("the replaced file reads %q", got)
	}
	if a, st := c.attr(old); !st.Ok() || a.Nlink != 0 {
		t.Errorf("attr: %v, nlink %d", st, a.Nlink)
	}
	id, st := c.lookup(1, "f")
	c.ok("lookup", st)
	if got := c.read(id, 0, 100); id != next || string(got) != "another" {
		t.Errorf("the name stands for node %d, which reads %q", id, got)
	}
	c.ok("close", c.close(old))
	e, err := bucket.Volume().Files.Lookup(t.Context(), "f")
	if err != nil {
		t.Fatal(err)
	}
	if n := bucket.ChunkCount(); n != len(e.Chunks) {
		t.Errorf("%d chunks stay, %d are used", n, len(e.Chunks))
	}
}

// TestReplacedWhileDirty: another writer put another file in its place, so the
// commit fails with ESTALE and the other file stays.
func TestReplacedWhileDirty(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	a, b := mount(t, bucket.Volume()), mount(t, bucket.Volume())
	mine, st := a.create(1, "f")
	a.ok("create", st)
	a.ok("write", a.write(mine, []byte("mine"), 0))
	theirs, st := b.create(1, "g")
	b.ok("create", st)
	b.ok("write", b.write(theirs, []byte("theirs"), 0))
	b.ok("close", b.close(theirs))
	b.ok("rename", b.fs.Rename(nil, &gofuse.RenameIn{InHeader: header(1), Newdir: 1}, "g", "f"))
	if st := a.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(mine)}); st != gofuse.Status(syscall.ESTALE) {
		t.Errorf("fsync of a replaced file: %v, want ESTALE", st)
	}
	id, st := b.lookup(1, "f")
	b.ok("lookup", st)
	if got := b.read(id, 0, 100); string(got) != "theirs" {
		t.Errorf("the other file reads %q", got)
	}
	a.fs.table.get(mine).discard(t.Context(), a.fs)
	a.fs.Release(nil, &gofuse.ReleaseIn{InHeader: header(mine)})
}

// faulty is a store that can be away.
type faulty struct {
	storage.Files
	away atomic.Bool
}

func (f *faulty) Update(ctx context.Context, p storage.Path, e storage.Entry) (storage.Entry, error) {
	if f.away.Load() {
		return storage.Entry{}, storage.Errorf(storage.Unavailable, "the store is away")
	}
	return f.Files.Update(ctx, p, e)
}

// TestCloseKeepsWhatItCannotCommit: a file system that is closed while the store
// is away says so, and commits when it is closed again.
func TestCloseKeepsWhatItCannotCommit(t *testing.T) {
	v := memory.NewBucket(1 << 30).Volume()
	store := &faulty{Files: v.Files}
	v.Files = store
	c := mount(t, v)
	node, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("write", c.write(node, []byte("kept"), 0))
	store.away.Store(true)
	if err := c.fs.Close(t.Context()); !storage.Is(err, storage.Unavailable) {
		t.Errorf("close while the store is away: %v", err)
	}
	store.away.Store(false)
	if err := c.fs.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e, err := v.Files.Lookup(t.Context(), "f"); err != nil || e.Size != 4 {
		t.Errorf("%d bytes, %v", e.Size, err)
	}
}

// TestForeignObject: what S3 made has the volume's owner and mode, and becomes
// ours with the first change.
func TestForeignObject(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	v := bucket.Volume()
	chunk, err := v.Chunks.Write(t.Context(), "o", []byte("object"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Files.Create(t.Context(), "o", storage.Entry{Mode: 0o660, Size: 6, Inode: 77, Chunks: []storage.Chunk{chunk}}, false); err != nil {
		t.Fatal(err)
	}
	c := mount(t, bucket.Volume())
	id, st := c.lookup(1, "o")
	c.ok("lookup", st)
	a, st := c.attr(id)
	c.ok("getattr", st)
	if a.Mode != syscall.S_IFREG|0o644 || a.Uid != 5 || a.Gid != 6 || a.Size != 6 {
		t.Errorf("attr %+v", a)
	}
	c.ok("open", c.open(id))
	c.ok("write", c.write(id, []byte("!"), 6))
	c.ok("close", c.close(id))
	e, err := v.Files.Lookup(t.Context(), "o")
	if err != nil {
		t.Fatal(err)
	}
	if !e.Native || e.Inode != id || e.UID != 5 || e.Mode != 0o644 || e.Size != 7 {
		t.Errorf("entry %+v", e)
	}
	if again, _ := c.lookup(1, "o"); again != id {
		t.Errorf("node %d became %d", id, again)
	}
}

// TestHardLinks: two names, one node, one count.
func TestHardLinks(t *testing.T) {
	c := mount(t, memory.NewBucket(1<<30).Volume())
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("write", c.write(id, []byte("x"), 0))
	var out gofuse.EntryOut
	c.ok("link", c.fs.Link(nil, &gofuse.LinkIn{InHeader: header(1), Oldnodeid: id}, "g", &out))
	if out.NodeId != id || out.Nlink != 2 {
		t.Errorf("link gives node %d with %d links, want %d with 2", out.NodeId, out.Nlink, id)
	}
	h := header(1)
	c.ok("unlink", c.fs.Unlink(nil, &h, "f"))
	c.ok("write", c.write(id, []byte("y"), 1))
	c.ok("close", c.close(id))
	got, st := c.lookup(1, "g")
	c.ok("lookup", st)
	if a, _ := c.attr(got); got != id || a.Nlink != 1 || string(c.read(id, 0, 10)) != "xy" {
		t.Errorf("node %d, %d links", got, a.Nlink)
	}
}

// TestForgotten: the table is empty when the kernel has forgotten everything.
func TestForgotten(t *testing.T) {
	c := mount(t, memory.NewBucket(1<<30).Volume())
	var out gofuse.EntryOut
	c.ok("mkdir", c.fs.Mkdir(nil, &gofuse.MkdirIn{InHeader: header(1), Mode: 0o755}, "d", &out))
	id, st := c.create(out.NodeId, "f")
	c.ok("create", st)
	c.fs.Forget(out.NodeId, 1) // the parent first: it stays for its child
	if _, st := c.attr(id); !st.Ok() {
		t.Errorf("a file below a forgotten directory: %v", st)
	}
	c.ok("close", c.close(id))
	c.fs.Forget(id, 1)
	if n := len(c.fs.table.all()); n != 1 {
		t.Errorf("%d nodes stay", n)
	}
}

// TestSpans compares addSpan with a set of bytes.
func TestSpans(t *testing.T) {
	rng := rand.New(rand.NewPCG(rand.Uint64(), 3))
	for range 200 {
		var spans []span
		var model [64]bool
		for range 12 {
			from := rng.Int64N(60)
			to := from + 1 + rng.Int64N(64-from-1)
			spans = addSpan(spans, span{from, to})
			for i := from; i < to; i++ {
				model[i] = true
			}
		}
		var got [64]bool
		for i, s := range spans {
			if i > 0 && s.from <= spans[i-1].to {
				t.Fatalf("spans touch: %v", spans)
			}
			for i := s.from; i < s.to; i++ {
				got[i] = true
			}
		}
		if !slices.Equal(got[:], model[:]) {
			t.Fatalf("%v: differs", spans)
		}
	}
}
