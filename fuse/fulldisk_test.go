package fuse

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// sickLog is a journal whose disk becomes full, or fails.
type sickLog struct {
	recordLog
	mu sync.Mutex
	// refused are the errors of the methods; nil is health.
	refused map[string]error
	asked   []string
	// kind of record that is refused too, with ENOSPC.
	kind recordKind
}

// try is one call of a method.
func (l *sickLog) try(method string, kind recordKind, do func() error) error {
	l.mu.Lock()
	l.asked = append(l.asked, method)
	err := l.refused[method]
	if kind != 0 && l.kind == kind {
		err = storage.Errorf(storage.Full, "journal: %w", syscall.ENOSPC)
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	return do()
}

// fail makes methods fail from now on, and no others.
func (l *sickLog) fail(err error, methods ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused = map[string]error{}
	for _, m := range methods {
		l.refused[m] = err
	}
}

// failKind makes records of one kind fail, and nothing else.
func (l *sickLog) failKind(kind recordKind) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused, l.kind = nil, kind
}

func (l *sickLog) Append(b []byte) error {
	return l.try("append", recordKind(b[0]), func() error { return l.recordLog.Append(b) })
}

func (l *sickLog) AppendHalf(b []byte) error {
	return l.try("half", recordKind(b[0]), func() error { return l.recordLog.AppendHalf(b) })
}

func (l *sickLog) AppendReserved(b []byte) error {
	return l.try("reserved", recordKind(b[0]), func() error { return l.recordLog.AppendReserved(b) })
}

func (l *sickLog) Compact(live func(func([]byte) error) error) error {
	return l.try("compact", 0, func() error { return l.recordLog.Compact(live) })
}

func (l *sickLog) Sync() error {
	return l.try("sync", 0, func() error { return l.recordLog.Sync() })
}

// beginSick is begin on a disk that can fail.
func beginSick(t *testing.T, v storage.Volume, dir string) (*caller, *sickLog) {
	t.Helper()
	fs := New(v, Options{Dir: dir, UID: 5, GID: 6, Fresh: true})
	if err := fs.Recover(); err != nil {
		t.Fatal(err)
	}
	l := &sickLog{recordLog: fs.memo.journal}
	fs.memo.journal = l
	fs.Start(silent{})
	return &caller{t, fs}, l
}

func (c *caller) end() {
	c.t.Helper()
	if err := c.fs.Close(c.t.Context()); err != nil {
		c.t.Error(err)
	}
}

func (c *caller) fsync(node uint64) gofuse.Status {
	return c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(node)})
}

// same compares a file with what it must hold.
func (c *caller) same(when string, node uint64, want []byte) {
	c.t.Helper()
	if got := c.whole(node, want); !bytes.Equal(got, want) {
		c.t.Errorf("%s: %d bytes of node %d differ from the %d that were acknowledged", when, len(got), node, len(want))
	}
}

// recovers waits until a write is taken again.
func (c *caller) recovers(node uint64, data []byte, off int64, refusal syscall.Errno) {
	c.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); ; <-tick.C {
		st := c.write(node, data, off)
		if st.Ok() {
			return
		}
		if st != gofuse.Status(refusal) || time.Now().After(end) {
			c.t.Fatalf("a write, though the disk is well again: %v", st)
		}
	}
}

// Every kind of record has its share of the reserve, and gets that one.
func TestSharesAreTotal(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "record.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	kinds := 0
	for _, d := range file.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.CONST {
			for _, s := range g.Specs {
				kinds += len(s.(*ast.ValueSpec).Names)
			}
		}
	}
	if kinds != len(shares) {
		t.Errorf("%d of %d kinds have a share", len(shares), kinds)
	}
	methods := map[share]string{starts: "append", follows: "half", ends: "reserved"}
	sick := errors.New("this disk takes nothing")
	for kind, s := range shares {
		l := &sickLog{}
		l.fail(sick, "append", "half", "reserved")
		m := newMemo(New(memory.NewBucket(1).Volume(), Options{}).log)
		m.journal = l
		if err := m.write(record{kind: kind}); !errors.Is(err, sick) || !slices.Equal(l.asked, []string{methods[s]}) {
			t.Errorf("a record of kind %d: %v, by %q, want %q", kind, err, l.asked, methods[s])
		}
	}
	for want, some := range map[share][]recordKind{
		starts:  {recStage, recWrite, recSpan, recLaid, recIntent, recRedo},
		follows: {recName, recUnname, recCounts, recGone},
		ends:    {recClean, recCommit, recLanded, recRefused, recRedone},
	} {
		for _, kind := range some {
			if shares[kind] != want {
				t.Errorf("a record of kind %d has share %d, want %d", kind, shares[kind], want)
			}
		}
	}
}

// On a full or failing disk new writes get ENOSPC or EIO, and what was acknowledged
// is read, committed, and found by the next mounter. Once the disk is well, writes
// go on.
func TestSickDisk(t *testing.T) {
	full := storage.Errorf(storage.Full, "journal: %w", syscall.ENOSPC)
	failing := fmt.Errorf("journal: %w", syscall.EIO)
	for name, x := range map[string]struct {
		err     error
		refused []string
		errno   syscall.Errno
		crash   bool
	}{
		"full":               {full, []string{"append", "compact"}, syscall.ENOSPC, false},
		"full, killed":       {full, []string{"append", "compact"}, syscall.ENOSPC, true},
		"no reserve, killed": {full, []string{"append", "half", "reserved", "compact"}, syscall.ENOSPC, true},
		"failing":            {failing, []string{"append", "half", "reserved", "compact"}, syscall.EIO, false},
		"failing, killed":    {failing, []string{"append", "half", "reserved", "compact"}, syscall.EIO, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bucket := memory.NewBucket(1 << 30)
			c, disk := beginSick(t, bucket.Volume(), t.TempDir())
			// Two sizes, of which one is in the journal itself; each once to be
			// committed meanwhile, and once to wait.
			type file struct {
				node   uint64
				data   []byte
				commit bool
			}
			files := map[string]*file{
				"small": {data: streamed(9000), commit: true}, "large": {data: streamed(600 << 10), commit: true},
				"small-waits": {data: streamed(9001)}, "large-waits": {data: streamed(700 << 10)},
			}
			for name, f := range files {
				id, st := c.create(1, name)
				c.ok("create", st)
				f.node = id
				c.stream(id, f.data, 0)
			}
			disk.fail(x.err, x.refused...)
			want := gofuse.Status(x.errno)
			refused := func(when string) {
				t.Helper()
				for name, f := range files {
					for _, off := range []int64{10, int64(len(f.data))} {
						if st := c.write(f.node, []byte("refused"), off); st != want {
							t.Errorf("%s: write at %d of %s: %v, want %v", when, off, name, st, want)
						}
					}
					if attr, st := c.attr(f.node); !st.Ok() || attr.Size != uint64(len(f.data)) {
						t.Errorf("%s: %s has %d bytes, %v", when, name, attr.Size, st)
					}
					if f.commit { // behind the end nothing is shown
						c.same(when, f.node, f.data)
					}
				}
				if _, st := c.create(1, "refused"); st != want {
					t.Errorf("%s: create: %v, want %v", when, st, want)
				}
			}
			refused("at first")
			for _, f := range files {
				if f.commit {
					c.ok("fsync", c.fsync(f.node))
				}
			}
			refused("committed")
			other := mount(t, bucket.Volume())
			for name, f := range files {
				c.same(name+" meanwhile", f.node, f.data)
				if f.commit {
					id, st := other.lookup(1, name)
					c.ok("lookup", st)
					other.same(name+" elsewhere", id, f.data)
				}
			}
			if x.crash {
				c = c.crash(false)
			} else {
				disk.fail(nil)
			}
			for name, f := range files {
				c.same(name+" afterwards", f.node, f.data)
				c.recovers(f.node, []byte("goes on"), 5, x.errno)
				copy(f.data[5:], "goes on")
			}
			c = c.crash(false)
			for name, f := range files {
				c.same(name+" and killed", f.node, f.data)
			}
			c.end()
			for name, f := range files {
				id, st := other.lookup(1, name)
				c.ok("lookup", st)
				other.fs.table.get(id).doubt()
				c.ok("open", other.open(id))
				other.same(name+" at the end", id, f.data)
			}
			if left, _ := filepath.Glob(filepath.Join(c.fs.opts.Dir, stagePrefix+"*")); len(left) > 0 {
				t.Errorf("left: %s", strings.Join(left, ", "))
			}
		})
	}
}

// A name that could not be noted is one that the next mounter would not know: no
// byte is acknowledged for it before a compaction has filled the hole.
func TestNothingRestsOnAHole(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	other := mount(t, bucket.Volume())
	id, st := other.create(1, "foreign")
	other.ok("create", st)
	other.ok("close", other.close(id))
	c, disk := beginSick(t, bucket.Volume(), t.TempDir())
	disk.fail(syscall.EIO, "append", "half", "compact")
	id, st = c.lookup(1, "foreign")
	c.ok("lookup", st)
	c.ok("open", c.open(id))
	disk.fail(syscall.EIO, "compact") // the disk takes records again
	if st := c.write(id, []byte("too early"), 0); st != gofuse.EIO {
		t.Errorf("a write to a file that the journal does not know: %v", st)
	}
	disk.fail(nil)
	data := []byte("acknowledged")
	c.recovers(id, data, 0, syscall.EIO)
	c = c.crash(false)
	c.same("afterwards", id, data)
	c.ok("fsync", c.fsync(id))
	c.end()
}

// A stage's own file fails: EIO, and what stood there before is kept.
func TestStageFileFails(t *testing.T) {
	c := begin(t, memory.NewBucket(1<<30).Volume())
	id, st := c.create(1, "f")
	c.ok("create", st)
	want := streamed(600 << 10)
	c.stream(id, want, 0)
	n := c.fs.table.get(id)
	n.mu.Lock()
	writable := n.mu.stage.file
	unwritable, err := os.Open(writable.Name())
	if err != nil {
		t.Fatal(err)
	}
	n.mu.stage.file = unwritable
	n.mu.Unlock()
	for _, off := range []int64{10, 600 << 10} {
		if st := c.write(id, []byte("refused"), off); st != gofuse.EIO {
			t.Errorf("write at %d: %v", off, st)
		}
	}
	c.same("meanwhile", id, want)
	n.mu.Lock()
	n.mu.stage.file = writable
	n.mu.Unlock()
	if err := unwritable.Close(); err != nil {
		t.Fatal(err)
	}
	c = c.crash(false)
	c.same("afterwards", id, want)
	c.ok("fsync", c.fsync(id))
	c.end()
}

// The same on a real disk that somebody else fills, with the take-over while it is
// full.
func TestFullDiskForReal(t *testing.T) {
	disk := t.TempDir()
	if err := unix.Mount("holdfast-test", disk, "tmpfs", 0, "size=6m"); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil { // a test that failed has files open there
			t.Error(err)
		}
	})
	dir := filepath.Join(disk, "volume")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	bucket := memory.NewBucket(1 << 30)
	c, _ := beginSick(t, bucket.Volume(), dir)
	var nodes []uint64
	contents := map[uint64][]byte{}
	for i := range 4 {
		id, st := c.create(1, fmt.Sprint("f", i))
		c.ok("create", st)
		nodes = append(nodes, id)
	}
	write := func(id uint64, data []byte) gofuse.Status {
		st := c.write(id, data, int64(len(contents[id])))
		if st.Ok() {
			contents[id] = append(contents[id], data...)
		}
		return st
	}
	for _, id := range nodes[:2] { // these have files of their own
		c.ok("write", write(id, streamed(400<<10)))
	}
	ballast := filepath.Join(disk, "ballast")
	fillDisk(t, ballast)
	for _, size := range []int{40 << 10, 1000, 10} {
		for i := 0; ; i++ {
			if st := write(nodes[i%4], streamed(size)); st == gofuse.Status(syscall.ENOSPC) {
				break
			} else if !st.Ok() || i > 100_000 {
				t.Fatalf("write %d of %d bytes: %v", i, size, st)
			}
		}
	}
	fillDisk(t, ballast)
	check := func(when string) {
		t.Helper()
		for _, id := range nodes {
			c.same(when, id, contents[id])
		}
	}
	check("full")
	c = c.crash(false)
	check("full, killed")
	if c.fs.memo.hole.Load() == nil {
		t.Error("what the take-over has settled stands in memory alone, and it is not compacted later")
	}
	if st := write(nodes[3], make([]byte, 1<<20)); st != gofuse.Status(syscall.ENOSPC) {
		t.Errorf("write: %v", st)
	}
	for _, id := range nodes {
		c.ok("fsync", c.fsync(id))
	}
	check("committed")
	other := mount(t, bucket.Volume())
	for i, id := range nodes {
		found, st := other.lookup(1, fmt.Sprint("f", i))
		c.ok("lookup", st)
		other.same("elsewhere", found, contents[id])
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	c.recovers(nodes[0], []byte("goes on"), 0, syscall.ENOSPC)
	copy(contents[nodes[0]], "goes on")
	c = c.crash(false)
	check("at the end")
	c.end()
}

// fillDisk takes what is left of a disk.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 64<<10))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}
