package fuse

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// pattern is n bytes of content that differ from place to place.
func pattern(n, seed int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8*13 + seed)
	}
	return b
}

// pieces makes the file p of chunks of the given size, over the storage.
func pieces(t *testing.T, v storage.Volume, p storage.Path, data []byte, size int) storage.Entry {
	t.Helper()
	e := storage.Entry{Mode: 0o644, Native: true, Inode: newInode(), Size: int64(len(data))}
	for at := 0; at < len(data); at += size {
		c, err := v.Chunks.Write(t.Context(), p, data[at:min(at+size, len(data))])
		if err != nil {
			t.Fatal(err)
		}
		c.Offset, c.Modified = int64(at), storage.NextModified(e.Chunks)
		e.Chunks = append(e.Chunks, c)
	}
	e, err := v.Files.Create(t.Context(), p, e, false)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// replaceChunks does what another mount's merging does: new chunks with the same bytes.
func replaceChunks(ctx context.Context, v storage.Volume, p storage.Path, data []byte, size int) error {
	e, err := v.Files.Lookup(ctx, p)
	if err != nil {
		return err
	}
	e.Chunks = nil
	for at := 0; at < len(data); at += size {
		c, err := v.Chunks.Write(ctx, p, data[at:min(at+size, len(data))])
		if err != nil {
			return err
		}
		c.Offset, c.Modified = int64(at), 1
		e.Chunks = append(e.Chunks, c)
	}
	_, err = v.Files.Update(ctx, p, e)
	return err
}

// awayChunks is a store of chunks whose servers can be away.
type awayChunks struct {
	storage.Chunks
	away atomic.Bool
}

func (a *awayChunks) Read(ctx context.Context, c storage.Chunk, b []byte, off int64) error {
	if a.away.Load() {
		return storage.Errorf(storage.Unavailable, "no server")
	}
	return a.Chunks.Read(ctx, c, b, off)
}

// TestReadOfAChunkThatIsGone: a reader goes on when somebody has merged the
// chunks of an open file, with and without content of its own; it gets ESTALE
// when the file was replaced, and EIO when a server is away.
func TestReadOfAChunkThatIsGone(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	v, other := bucket.Volume(), bucket.Volume()
	chunks := &awayChunks{Chunks: v.Chunks}
	v.Chunks = chunks
	data := pattern(100_000, 1)
	pieces(t, other, "f", data, 4096)
	c := mount(t, v)
	id, st := c.lookup(1, "f")
	c.ok("lookup", st)
	c.ok("open", c.open(id))
	if got := c.read(id, 0, 200_000); !bytes.Equal(got, data) {
		t.Fatal("read differs")
	}
	if err := replaceChunks(t.Context(), other, "f", data, 50_000); err != nil {
		t.Fatal(err)
	}
	if got := c.read(id, 0, 200_000); !bytes.Equal(got, data) {
		t.Fatal("read differs after the chunks were merged by others")
	}
	c.ok("write", c.write(id, []byte("mine"), 5000))
	copy(data[5000:], "mine")
	theirs := bytes.Clone(data)
	copy(theirs[5000:], pattern(5004, 1)[5000:])
	if err := replaceChunks(t.Context(), other, "f", theirs, 20_000); err != nil {
		t.Fatal(err)
	}
	if got := c.read(id, 0, 200_000); !bytes.Equal(got, data) {
		t.Fatal("read of a file with uncommitted bytes differs after its chunks were merged by others")
	}
	c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(id)}))
	if got := c.read(id, 0, 200_000); !bytes.Equal(got, data) {
		t.Fatal("read differs after the commit")
	}
	read := func() gofuse.Status {
		buf := make([]byte, 4096)
		_, st := c.fs.Read(nil, &gofuse.ReadIn{InHeader: header(id), Size: 4096}, buf)
		return st
	}
	chunks.away.Store(true)
	if st := read(); st != gofuse.EIO {
		t.Errorf("read while the server is away: %v, want EIO", st)
	}
	chunks.away.Store(false)
	g := pieces(t, other, "g", pattern(5000, 2), 4096)
	f, err := other.Files.Lookup(t.Context(), "f")
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Files.Rename(t.Context(), "g", "f", g, &f, nil); err != nil {
		t.Fatal(err)
	}
	if st := read(); st != gofuse.Status(syscall.ESTALE) {
		t.Errorf("read of a replaced file whose chunks are gone: %v, want ESTALE", st)
	}
	c.ok("close", c.close(id))
}

// TestReadersBesideMerging: readers see the same bytes all the time while another
// mount merges and merges the chunks below them.
func TestReadersBesideMerging(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	other := bucket.Volume()
	data := pattern(64<<10, 3)
	pieces(t, other, "f", data, 1000)
	c := mount(t, bucket.Volume())
	id, st := c.lookup(1, "f")
	c.ok("lookup", st)
	c.ok("open", c.open(id))
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for r := range 3 {
		readers.Go(func() {
			buf := make([]byte, 10_000)
			for i := r; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				off := i * 977 % len(data)
				res, st := c.fs.Read(nil, &gofuse.ReadIn{InHeader: header(id), Offset: uint64(off), Size: 10_000}, buf)
				if !st.Ok() {
					t.Errorf("read at %d: %v", off, st)
					return
				}
				if got, _ := res.Bytes(buf); !bytes.Equal(got, data[off:min(off+10_000, len(data))]) {
					t.Errorf("read at %d differs", off)
					return
				}
			}
		})
	}
	for i := range 300 {
		if err := replaceChunks(t.Context(), other, "f", data, 500+i*17%9000); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	readers.Wait()
	c.ok("close", c.close(id))
}

// BenchmarkReadOfManyChunks reads on in a file of 100,000 chunks.
func BenchmarkReadOfManyChunks(b *testing.B) {
	n := newTable(newMemo(nil), newRoom()).newNode(7)
	for i := range int64(100_000) {
		n.mu.entry.Chunks = append(n.mu.entry.Chunks, storage.Chunk{ID: "1,1", Offset: i * 4096, Size: 4096, Modified: i})
	}
	n.mu.entry.Size = 100_000 * 4096
	fs := New(storage.Volume{Chunks: zeros{}}, Options{})
	buf := make([]byte, 4096)
	for i := 0; b.Loop(); i++ {
		if _, err := fs.readAt(b.Context(), n, buf, int64(i%100_000)*4096); err != nil {
			b.Fatal(err)
		}
	}
}

type zeros struct{ storage.Chunks }

func (zeros) Read(_ context.Context, _ storage.Chunk, b []byte, _ int64) error {
	clear(b)
	return nil
}
