package fuse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// crash ends a file system as SIGKILL does: what is not on the disk or in the
// store is gone. It returns the successor, on the same folder.
func (c *caller) crash(fresh bool) *caller {
	c.t.Helper()
	c.die()
	return c.successor(fresh)
}

// die is the first half of crash.
func (c *caller) die() {
	c.t.Helper()
	old := c.fs
	old.stop()
	old.running.Wait()
	if err := old.memo.journal.Close(); err != nil {
		c.t.Fatal(err)
	}
	old.memo.journal = nil
	old.room.mu.Lock()
	old.room.mu.kept = nil
	old.room.mu.Unlock()
	for _, n := range old.table.all() { // give the descriptors back, keep the files
		if s := n.mu.stage; s != nil && s.file != nil {
			_ = s.file.Close()
		}
	}
}

// successor is the second.
func (c *caller) successor(fresh bool) *caller {
	c.t.Helper()
	next := New(c.fs.vol, Options{Dir: c.fs.opts.Dir, UID: 5, GID: 6, Fresh: fresh, CommitDelay: c.fs.opts.CommitDelay})
	if err := next.Recover(); err != nil {
		c.t.Fatal(err)
	}
	next.Start(silent{})
	return &caller{c.t, next}
}

func begin(t *testing.T, v storage.Volume) *caller {
	t.Helper()
	fs := New(v, Options{Dir: t.TempDir(), UID: 5, GID: 6, Fresh: true})
	if err := fs.Recover(); err != nil {
		t.Fatal(err)
	}
	fs.Start(silent{})
	return &caller{t, fs}
}

// TestTakeOverModel writes, truncates, renames and commits with handles open all
// the time, while the mounter dies at random: every acknowledged byte is read
// back, by the handles that were open before.
func TestTakeOverModel(t *testing.T) {
	seed := seedOf(t)
	rng := rand.New(rand.NewPCG(seed, 4))
	bucket := memory.NewBucket(1 << 30)
	c := begin(t, bucket.Volume())
	type file struct {
		node uint64
		name string
		data []byte
	}
	var files []*file
	for i := range 4 {
		f := &file{name: fmt.Sprintf("f%d", i)}
		id, st := c.create(1, f.name)
		c.ok("create", st)
		f.node = id
		files = append(files, f)
	}
	crashes := 0
	for step := range 400 {
		f := files[rng.IntN(len(files))]
		limit := int64(4096)
		if f == files[0] {
			limit = 2 << 20 // large enough for a stage's file, and for chunks
		}
		off := rng.Int64N(limit)
		switch rng.IntN(9) {
		case 0:
			c = c.crash(false)
			crashes++
		case 8: // the journal is compacted while the file is written and committed
			around := func() {
				data := []byte{byte(step), byte(step >> 8)}
				c.ok("write", c.write(f.node, data, off))
				f.data = append(f.data, make([]byte, max(0, off+2-int64(len(f.data))))...)
				copy(f.data[off:], data)
				if rng.IntN(2) == 0 {
					c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(f.node)}))
				}
			}
			if err := c.fs.memo.journal.Compact(func(emit func([]byte) error) error {
				around()
				err := c.fs.live(emit)
				around()
				return err
			}); err != nil {
				t.Fatal(err)
			}
		case 1:
			c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(f.node)}))
		case 2:
			c.ok("truncate", c.truncate(f.node, off))
			f.data = append(f.data[:min(off, int64(len(f.data)))], make([]byte, max(0, off-int64(len(f.data))))...)
		case 3:
			to := fmt.Sprintf("%s-%d", f.name[:2], step)
			c.ok("rename", c.fs.Rename(nil, &gofuse.RenameIn{InHeader: header(1), Newdir: 1}, f.name, to))
			f.name = to
		default:
			data := make([]byte, 1+rng.Int64N(limit/4))
			for i := range data {
				data[i] = byte(rng.Uint32())
			}
			c.ok("write", c.write(f.node, data, off))
			f.data = append(f.data, make([]byte, max(0, off+int64(len(data))-int64(len(f.data))))...)
			copy(f.data[off:], data)
		}
		if got := c.whole(f.node, f.data); !bytes.Equal(got, f.data) {
			t.Fatalf("seed %d step %d, %d crashes: %s has %d bytes that differ from the model's %d", seed, step, crashes, f.name, len(got), len(f.data))
		}
	}
	// All die at once: the next session knows no handles, and commits what waits.
	c = c.crash(true)
	if !c.fs.sweep(t.Context()) {
		t.Fatal("something is left")
	}
	for _, f := range files {
		id, st := c.lookup(1, f.name)
		c.ok("lookup "+f.name, st)
		if got := c.whole(id, f.data); !bytes.Equal(got, f.data) {
			t.Fatalf("seed %d: %s differs after everything died", seed, f.name)
		}
	}
	left, err := os.ReadDir(c.fs.opts.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range left {
		if strings.HasPrefix(l.Name(), stagePrefix) {
			t.Errorf("%s is left", filepath.Join(c.fs.opts.Dir, l.Name()))
		}
	}
	t.Logf("%d crashes", crashes)
	if err := c.fs.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.fs.Retire(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.fs.opts.Dir); !os.IsNotExist(err) {
		t.Errorf("the volume's folder: %v", err)
	}
}

// again marks a request as one that the mounter before had read.
func again(h gofuse.InHeader, unique uint64) gofuse.InHeader {
	h.Unique = unique | replayBit
	return h
}

// TestReplayedOnce: what a dead mounter had done, and not answered, is answered
// by the next one as if it had just been done, and not done twice.
func TestReplayedOnce(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	c := begin(t, bucket.Volume())
	first := header(1)
	first.Unique = 100
	var made gofuse.CreateOut
	c.ok("create", c.fs.Create(nil, &gofuse.CreateIn{InHeader: first, Mode: 0o644}, "f", &made))
	first.Unique = 102
	var dir gofuse.EntryOut
	c.ok("mkdir", c.fs.Mkdir(nil, &gofuse.MkdirIn{InHeader: first, Mode: 0o755}, "d", &dir))
	add := header(made.NodeId)
	add.Unique = 104
	if _, st := c.fs.Write(nil, &gofuse.WriteIn{InHeader: add, Flags: syscall.O_APPEND}, []byte("once")); !st.Ok() {
		t.Fatal(st)
	}
	first.Unique = 106
	c.ok("rename", c.fs.Rename(nil, &gofuse.RenameIn{InHeader: first, Newdir: 1}, "f", "g"))
	first.Unique = 108
	c.ok("rmdir", c.fs.Rmdir(nil, &first, "d"))
	first.Unique = 110
	var linked gofuse.EntryOut
	c.ok("link", c.fs.Link(nil, &gofuse.LinkIn{InHeader: first, Oldnodeid: made.NodeId}, "h", &linked))

	c = c.crash(false)
	// Another writer comes between: its names must stay.
	other := bucket.Volume()
	if _, err := other.Files.Create(t.Context(), "d", storage.Entry{Mode: 0o644, Inode: 7}, false); err != nil {
		t.Fatal(err)
	}
	if _, st := c.fs.Write(nil, &gofuse.WriteIn{InHeader: again(add, 104), Flags: syscall.O_APPEND}, []byte("once")); !st.Ok() {
		t.Errorf("append: %v", st)
	}
	h := header(1)
	if st := c.fs.Rename(nil, &gofuse.RenameIn{InHeader: again(h, 106), Newdir: 1}, "f", "g"); !st.Ok() {
		t.Errorf("rename: %v", st)
	}
	gone := again(h, 108)
	if st := c.fs.Rmdir(nil, &gone, "d"); !st.Ok() {
		t.Errorf("rmdir: %v", st)
	}
	if st := c.fs.Link(nil, &gofuse.LinkIn{InHeader: again(h, 110), Oldnodeid: made.NodeId}, "h", &linked); !st.Ok() || linked.NodeId != made.NodeId {
		t.Errorf("link: %v", st)
	}
	if got := c.read(made.NodeId, 0, 100); string(got) != "once" {
		t.Errorf("appended %q", got)
	}
	if e, err := other.Files.Lookup(t.Context(), "d"); err != nil || e.Inode != 7 {
		t.Errorf("the other writer's file: %+v, %v", e, err)
	}
	// A creation that was done, and one that somebody else has done.
	var out gofuse.EntryOut
	first.Unique = 112
	c.ok("mkdir", c.fs.Mkdir(nil, &gofuse.MkdirIn{InHeader: first}, "e", &out))
	c = c.crash(false)
	var same gofuse.EntryOut
	if st := c.fs.Mkdir(nil, &gofuse.MkdirIn{InHeader: again(h, 112)}, "e", &same); !st.Ok() || same.NodeId != out.NodeId {
		t.Errorf("mkdir: %v, node %d, want %d", st, same.NodeId, out.NodeId)
	}
	if st := c.fs.Mkdir(nil, &gofuse.MkdirIn{InHeader: again(h, 114)}, "d", &same); st != gofuse.Status(syscall.EEXIST) {
		t.Errorf("mkdir of another's name: %v", st)
	}
	if err := c.fs.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestOrphanIsSwept: a file that was unlinked while open lives over a take-over,
// and its chunks are freed when everything has died.
func TestOrphanIsSwept(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	c := begin(t, bucket.Volume())
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("write", c.write(id, []byte("still here"), 0))
	c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(id)}))
	h := header(1)
	c.ok("unlink", c.fs.Unlink(nil, &h, "f"))
	c = c.crash(false)
	if got := c.read(id, 0, 100); string(got) != "still here" {
		t.Errorf("read %q", got)
	}
	c = c.crash(true)
	if !c.fs.sweep(t.Context()) || bucket.ChunkCount() != 0 {
		t.Errorf("%d chunks stay", bucket.ChunkCount())
	}
	if err := c.fs.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestUnlinkCutShort: the mounter died between the removal in the store and its
// own record of it; the open handle goes on, also when the next one dies before
// the removal was asked for again.
func TestUnlinkCutShort(t *testing.T) {
	for deaths := 1; deaths <= 3; deaths++ {
		t.Run(fmt.Sprint(deaths), func(t *testing.T) { unlinkCutShort(t, deaths) })
	}
}

func unlinkCutShort(t *testing.T, deaths int) {
	bucket := memory.NewBucket(1 << 30)
	c := begin(t, bucket.Volume())
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("write", c.write(id, []byte("still here"), 0))
	c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(id)}))
	if err := c.fs.plan(&redo{Unique: 50, Op: redoRemove, From: "f", Dir: 1, Name: "f", Node: id, Inode: id, Held: true}); err != nil {
		t.Fatal(err)
	}
	if err := c.fs.noteKept(c.fs.table.get(id)); err != nil {
		t.Fatal(err)
	}
	if err := bucket.Volume().Files.Remove(t.Context(), "f", c.fs.table.get(id).stored(), &storage.Orphan{Holder: c.fs.holder, ID: id}); err != nil {
		t.Fatal(err)
	}
	for range deaths {
		c = c.crash(false)
	}
	again := again(header(1), 50)
	c.ok("unlink, replayed", c.fs.Unlink(nil, &again, "f"))
	c.ok("write", c.write(id, []byte("!"), 10))
	if got := c.read(id, 0, 100); string(got) != "still here!" {
		t.Errorf("read %q", got)
	}
	c.ok("close", c.close(id))
	if n := bucket.ChunkCount(); n != 0 {
		t.Errorf("%d chunks stay", n)
	}
	if err := c.fs.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestUnlinkCutShortByCompaction: the journal is compacted while an open file is
// being unlinked, and the mounter dies then: the handle goes on.
func TestUnlinkCutShortByCompaction(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	v := bucket.Volume()
	store := &compacting{Files: v.Files}
	v.Files = store
	c := begin(t, v)
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("write", c.write(id, []byte("still here"), 0))
	c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(id)}))
	store.compact = c.fs.compact
	h := header(1)
	h.Unique = 70
	if st := c.fs.Unlink(nil, &h, "f"); st != gofuse.EIO {
		t.Fatalf("unlink without an answer: %v", st)
	}
	c = c.crash(false)
	again := again(header(1), 70)
	c.ok("unlink, replayed", c.fs.Unlink(nil, &again, "f"))
	if got := c.read(id, 0, 100); string(got) != "still here" {
		t.Errorf("read %q", got)
	}
	c.ok("close", c.close(id))
	if n := bucket.ChunkCount(); n != 0 {
		t.Errorf("%d chunks stay", n)
	}
	if err := c.fs.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// compacting is a store that has the journal compacted while it removes a name,
// and gives no answer.
type compacting struct {
	storage.Files
	compact func() error
}

func (s *compacting) Remove(ctx context.Context, p storage.Path, e storage.Entry, o *storage.Orphan) error {
	if err := s.Files.Remove(ctx, p, e, o); err != nil {
		return err
	}
	return errors.Join(storage.Errorf(storage.Unavailable, "no answer"), s.compact())
}

// TestHalfMovedFolder: the store died while it moved a directory, child by child,
// and so did the mounter; the next one moves the rest.
func TestHalfMovedFolder(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	c := begin(t, bucket.Volume())
	var dir, sub gofuse.EntryOut
	c.ok("mkdir", c.fs.Mkdir(nil, &gofuse.MkdirIn{InHeader: header(1), Mode: 0o755}, "d", &dir))
	c.ok("mkdir", c.fs.Mkdir(nil, &gofuse.MkdirIn{InHeader: header(dir.NodeId), Mode: 0o755}, "s", &sub))
	var ids []uint64
	for _, in := range []uint64{dir.NodeId, sub.NodeId} {
		for _, name := range []string{"a", "b"} {
			id, st := c.create(in, name)
			c.ok("create", st)
			c.ok("write", c.write(id, []byte(name), 0))
			c.ok("close", c.close(id))
			ids = append(ids, id)
		}
	}
	if err := c.fs.plan(&redo{
		Unique: 60, Op: redoRename, From: "d", To: "e", Dir: 1, Name: "d", ToDir: 1, ToName: "e",
		Node: dir.NodeId, Inode: dir.NodeId,
	}); err != nil {
		t.Fatal(err)
	}
	other := bucket.Volume().Files
	for _, p := range []storage.Path{"d", "d/s"} {
		e, err := other.Lookup(t.Context(), p)
		if err == nil {
			_, err = other.Create(t.Context(), "e"+p[1:], e, false)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []storage.Path{"d/a", "d/s/b"} {
		e, err := other.Lookup(t.Context(), p)
		if err == nil {
			err = other.Rename(t.Context(), p, "e"+p[1:], e, nil, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	c = c.crash(false)
	if _, st := c.lookup(1, "d"); st != gofuse.ENOENT {
		t.Errorf("the old directory: %v", st)
	}
	if id, st := c.lookup(1, "e"); !st.Ok() || id != dir.NodeId {
		t.Errorf("the new directory: %v, node %d", st, id)
	}
	for i, id := range ids {
		if got := c.read(id, 0, 10); string(got) != []string{"a", "b"}[i%2] {
			t.Errorf("file %d reads %q", i, got)
		}
	}
	again := again(header(1), 60)
	c.ok("rename, replayed", c.fs.Rename(nil, &gofuse.RenameIn{InHeader: again, Newdir: 1}, "d", "e"))
	if err := c.fs.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestOrphansOfTheDead: what a node held that died is freed by who mounts the
// volume next, and not what one holds that lives.
func TestOrphansOfTheDead(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	hold := func(node string) *caller {
		fs := New(bucket.Volume(), Options{Dir: t.TempDir(), Node: node, Fresh: true})
		if err := fs.Recover(); err != nil {
			t.Fatal(err)
		}
		fs.Start(silent{})
		c := &caller{t, fs}
		id, st := c.create(1, node)
		c.ok("create", st)
		c.ok("write", c.write(id, bytes.Repeat([]byte(node), 3000), 0))
		c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(id)}))
		h := header(1)
		c.ok("unlink", c.fs.Unlink(nil, &h, node))
		c.ok("write", c.write(id, []byte("!"), 0))
		return c
	}
	living := hold("living")
	for _, node := range []string{"dead", "ours"} {
		c := hold(node)
		c.fs.stop()
		c.fs.running.Wait()
	}
	fs := New(bucket.Volume(), Options{Dir: t.TempDir(), Node: "ours", Fresh: true, Live: func(context.Context) ([]string, error) {
		return []string{"living", "ours"}, nil
	}})
	if err := fs.sweepDead(t.Context()); err != nil {
		t.Fatal(err)
	}
	holders, err := bucket.Volume().Orphans.Holders(t.Context())
	if err != nil || len(holders) != 1 || holders[0] != living.fs.holder {
		t.Errorf("%q hold something, %v; want %q alone", holders, err, living.fs.holder)
	}
	// A session that is over: the same holder, and nothing is open.
	living = living.crash(true)
	for deadline := time.Now().Add(30 * time.Second); bucket.ChunkCount() != 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%d chunks stay", bucket.ChunkCount())
		}
		runtime.Gosched()
	}
	if err := living.fs.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// compactAround compacts the journal while something else happens: it comes
// after the compaction has begun and before it looks at what is known.
func (c *caller) compactAround(meanwhile func()) {
	c.t.Helper()
	if err := c.fs.memo.journal.Compact(func(emit func([]byte) error) error {
		meanwhile()
		return c.fs.live(emit)
	}); err != nil {
		c.t.Fatal(err)
	}
}

// TestUploadedAnewWhileCompacted: a file is cut, written and uploaded beside its
// writer while the journal is compacted, so that the compaction tells of the chunk
// and of what came before it. The successor has the bytes.
func TestUploadedAnewWhileCompacted(t *testing.T) {
	for _, to := range []int64{0, 100, storage.ChunkSize + 5} {
		bucket := memory.NewBucket(1 << 30)
		c := begin(t, bucket.Volume())
		id, st := c.create(1, "f")
		c.ok("create", st)
		c.ok("write", c.write(id, make([]byte, 100), 0))
		want := streamed(3 * storage.ChunkSize)
		c.compactAround(func() {
			c.stream(id, make([]byte, storage.ChunkSize), 0)
			c.ok("truncate", c.truncate(id, min(to, storage.ChunkSize)))
			c.stream(id, want, 0)
			c.land(id)
			c.ok("truncate", c.truncate(id, to+storage.ChunkSize))
		})
		want = want[:to+storage.ChunkSize]
		c = c.crash(false)
		if got := c.read(id, 0, int64(len(want))+1); !bytes.Equal(got, want) {
			t.Errorf("cut to %d: what was written reads differently after a take-over", to)
		}
		c.ok("close", c.close(id))
		if got := c.read(id, 0, int64(len(want))+1); !bytes.Equal(got, want) {
			t.Errorf("cut to %d: what is committed differs", to)
		}
		checkChunks(t, bucket, "f")
		c.crash(true)
	}
}

// TestAppendedBeforeCompaction: an append whose answer the kernel never got is not
// done again, though the journal was compacted in between.
func TestAppendedBeforeCompaction(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	c := begin(t, bucket.Volume())
	id, st := c.create(1, "f")
	c.ok("create", st)
	app := func(unique uint64) gofuse.Status {
		in := &gofuse.WriteIn{InHeader: header(id), Flags: syscall.O_APPEND}
		in.Unique = unique
		_, st := c.fs.Write(nil, in, []byte("line\n"))
		return st
	}
	c.ok("append", app(1000))
	c.compactAround(func() {})
	c = c.crash(false)
	c.ok("append, asked again", app(1000|replayBit))
	if got := c.read(id, 0, 100); string(got) != "line\n" {
		t.Errorf("the file has %q", got)
	}
	c.crash(true)
}

// TestIntentOutlivesAppends: what was about to be done while the store is away is
// remembered, however much is appended meanwhile, through any number of successors.
func TestIntentOutlivesAppends(t *testing.T) {
	c := begin(t, memory.NewBucket(1<<30).Volume())
	id, st := c.create(1, "f")
	c.ok("create", st)
	if err := c.fs.memo.intend(7, 77); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(intentsKept + 1) {
		in := &gofuse.WriteIn{InHeader: header(id), Flags: syscall.O_APPEND}
		in.Unique = 1000 + i
		_, st := c.fs.Write(nil, in, []byte("x"))
		c.ok("append", st)
	}
	for range 3 {
		if was, ok := c.fs.memo.before(7 | replayBit); !ok || was.inode != 77 {
			t.Fatalf("the intent is %v, %v", was, ok)
		}
		if _, ok := c.fs.memo.before(1000 + intentsKept | replayBit); !ok {
			t.Fatal("the last append is forgotten")
		}
		c = c.crash(false)
	}
	c.crash(true)
}
