package fuse

import (
	"bytes"
	"context"
	"math/rand/v2"
	"syscall"
	"testing"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

func (c *caller) fallocate(node uint64, mode uint32, off, n int64) gofuse.Status {
	return c.fs.Fallocate(nil, &gofuse.FallocateIn{InHeader: header(node), Mode: mode, Offset: uint64(off), Length: uint64(n)})
}

func (c *caller) lseek(node uint64, whence uint32, off int64) (int64, gofuse.Status) {
	var out gofuse.LseekOut
	st := c.fs.Lseek(nil, &gofuse.LseekIn{InHeader: header(node), Whence: whence, Offset: uint64(off)}, &out)
	return int64(out.Offset), st
}

// holes walks over the file by SEEK_DATA and SEEK_HOLE and checks that no byte of
// a hole is anything but zero. It returns how many bytes lie in holes.
func (c *caller) holes(node uint64, content []byte) (in int64) {
	c.t.Helper()
	size := int64(len(content))
	for at := int64(0); at < size; {
		data, st := c.lseek(node, seekData, at)
		if st == gofuse.Status(syscall.ENXIO) {
			data = size
		} else if !st.Ok() || data < at {
			c.t.Fatalf("SEEK_DATA from %d: %d, %v", at, data, st)
		}
		if !bytes.Equal(content[at:data], make([]byte, data-at)) {
			c.t.Fatalf("the hole %d-%d holds bytes", at, data)
		}
		in += data - at
		if data == size {
			break
		}
		hole, st := c.lseek(node, seekHole, data)
		if !st.Ok() || hole <= data || hole > size {
			c.t.Fatalf("SEEK_HOLE from %d: %d, %v", data, hole, st)
		}
		at = hole
	}
	if _, st := c.lseek(node, seekData, size); st != gofuse.Status(syscall.ENXIO) {
		c.t.Fatalf("SEEK_DATA from the end: %v", st)
	}
	return in
}

// TestHolesModel writes, grows, cuts, punches and zeroes one file at random, with
// commits and deaths of the mounter between, and compares it with bytes in memory.
func TestHolesModel(t *testing.T) {
	seed := seedOf(t)
	rng := rand.New(rand.NewPCG(seed, 5))
	bucket := memory.NewBucket(1 << 30)
	c := begin(t, bucket.Volume())
	id, st := c.create(1, "f")
	c.ok("create", st)
	const limit = 2 << 20
	all := pattern(limit, 1)
	var model []byte
	grow := func(to int64) { model = append(model, make([]byte, max(0, to-int64(len(model))))...) }
	for step := range 60 {
		off := rng.Int64N(limit)
		n := 1 + rng.Int64N(limit-off)
		end := min(off+n, int64(len(model)))
		switch rng.IntN(9) {
		case 0:
			c.ok("truncate", c.truncate(id, off))
			grow(off)
			model = model[:off:off]
		case 1:
			c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(id)}))
		case 2, 3:
			if rng.IntN(2) == 0 {
				n = min(n, smallHole)
				end = min(off+n, int64(len(model)))
			}
			c.ok("punch", c.fallocate(id, fallocPunchHole|fallocKeepSize, off, n))
			if off < end {
				clear(model[off:end])
			}
		case 4:
			c.ok("zero", c.fallocate(id, fallocZeroRange, off, n))
			grow(off + n)
			clear(model[off : off+n])
		case 5:
			c.ok("grow", c.fallocate(id, 0, off, n))
			grow(off + n)
		case 6:
			c = c.crash(false)
		default:
			data := all[step : step+int(min(n, 300_000))]
			c.ok("write", c.write(id, data, off))
			grow(off + int64(len(data)))
			copy(model[off:], data)
		}
		if got := c.whole(id, model); !bytes.Equal(got, model) {
			t.Fatalf("seed %d step %d: %d bytes differ from the model's %d", seed, step, len(got), len(model))
		}
		in := c.holes(id, model)
		a, st := c.attr(id)
		c.ok("getattr", st)
		if int64(a.Size) != int64(len(model)) || int64(a.Blocks) > (int64(len(model))+511)/512 || int64(a.Blocks)*512 < int64(len(model))-in {
			t.Fatalf("seed %d step %d: size %d and %d blocks, want %d, of which %d are holes", seed, step, a.Size, a.Blocks, len(model), in)
		}
	}
	c.ok("close", c.close(id))
	e, err := bucket.Volume().Files.Lookup(t.Context(), "f")
	if err != nil {
		t.Fatal(err)
	}
	if n := bucket.ChunkCount(); n != len(e.Chunks) {
		t.Errorf("%d chunks are kept, %d are used", n, len(e.Chunks))
	}
	if err := c.fs.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestHoleFrees: a large hole frees what it held, and the bytes around it stay.
func TestHoleFrees(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	c := mount(t, bucket.Volume())
	data := pattern(8<<20, 1)
	pieces(t, bucket.Volume(), "f", data, 1<<20)
	id, st := c.lookup(1, "f")
	c.ok("lookup", st)
	c.ok("open", c.open(id))
	c.ok("punch", c.fallocate(id, fallocPunchHole|fallocKeepSize, 1<<20+1000, 5<<20))
	clear(data[1<<20+1000 : 6<<20+1000])
	if got := c.read(id, 0, 16<<20); !bytes.Equal(got, data) {
		t.Error("the bytes around the hole differ")
	}
	if n := bucket.ChunkCount(); n != 4 {
		t.Errorf("%d chunks, want 4: one before, the head of one, the tail of one again, one behind", n)
	}
	if in := c.holes(id, data); in != 5<<20 {
		t.Errorf("%d bytes lie in holes, want %d", in, 5<<20)
	}
	if a, _ := c.attr(id); a.Blocks*512 != 3<<20 {
		t.Errorf("%d blocks, want %d", a.Blocks, 3<<20/512)
	}
	for _, mode := range []uint32{fallocPunchHole, 8, 32, 64} { // without KEEP_SIZE; COLLAPSE, INSERT, UNSHARE
		if st := c.fallocate(id, mode, 0, 4096); st != gofuse.Status(syscall.EOPNOTSUPP) {
			t.Errorf("mode %d: %v", mode, st)
		}
	}
	c.ok("keep size", c.fallocate(id, fallocKeepSize, 0, 1<<30))
	if a, _ := c.attr(id); a.Size != 8<<20 {
		t.Errorf("size %d", a.Size)
	}
	c.ok("close", c.close(id))
}

// lateAnswer is a store that carries an update out, loses the answer, and is asked
// again when somebody else has changed the file.
type lateAnswer struct {
	storage.Files
	next bool
}

func (f *lateAnswer) Update(ctx context.Context, p storage.Path, e storage.Entry) (storage.Entry, error) {
	if !f.next {
		return f.Files.Update(ctx, p, e)
	}
	f.next = false
	now, err := f.Files.Update(ctx, p, e)
	if err != nil {
		return now, err
	}
	now.Mode ^= 0o001
	if _, err := f.Files.Update(ctx, p, now); err != nil {
		return now, err
	}
	return storage.Entry{}, storage.Errorf(storage.Changed, "somebody was here")
}

// TestHoleWithoutAnswer: what was written again behind a hole is not freed when the
// hole was made and only the answer is lost.
func TestHoleWithoutAnswer(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	v := bucket.Volume()
	files := &lateAnswer{Files: v.Files}
	v.Files = files
	c := begin(t, v)
	id, st := c.create(1, "f")
	c.ok("create", st)
	want := streamed(1 << 20)
	c.stream(id, want, 0)
	c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(id)}))
	files.next = true
	c.ok("punch", c.fallocate(id, fallocPunchHole|fallocKeepSize, 100, 200<<10))
	clear(want[100 : 100+200<<10])
	if got := c.read(id, 0, int64(len(want))+1); !bytes.Equal(got, want) {
		t.Error("the file differs")
	}
	checkChunks(t, bucket, "f")
	c.crash(true)
}

// TestHoleInGrownSmallFile: a large hole in a file that lives in its entry
// and has grown is not written as zeros, which would
// take as much memory.
func TestHoleInGrownSmallFile(t *testing.T) {
	c := begin(t, memory.NewBucket(1<<30).Volume())
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("write", c.write(id, []byte("small"), 0))
	c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(id)}))
	const size = 1 << 28
	c.ok("truncate", c.truncate(id, size))
	before := c.fs.memo.journal.Size()
	c.ok("punch", c.fallocate(id, fallocPunchHole|fallocKeepSize, 1, size-1))
	if grown := c.fs.memo.journal.Size() - before; grown > 1<<20 {
		t.Errorf("the journal has grown by %d bytes", grown)
	}
	if n := c.fs.table.get(id); n.mu.stage != nil && n.mu.stage.file != nil {
		t.Error("zeros were written")
	}
	if got := c.read(id, 0, 10); string(got) != "s\x00\x00\x00\x00\x00\x00\x00\x00\x00" {
		t.Errorf("the file begins with %q", got)
	}
	c.crash(true)
}
