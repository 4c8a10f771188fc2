package fuse

import (
	"context"
	"syscall"
	"testing"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// slow is a store whose next answer is held back after it was found.
type slow struct {
	storage.Files
	// hold takes the next look-up of a path; asked is told when it has its answer,
	// which it gives when release is closed.
	hold    chan storage.Path
	asked   chan struct{}
	release chan struct{}
}

func newSlow(f storage.Files) *slow {
	return &slow{Files: f, hold: make(chan storage.Path, 1), asked: make(chan struct{}), release: make(chan struct{})}
}

func (s *slow) Lookup(ctx context.Context, p storage.Path) (storage.Entry, error) {
	e, err := s.Files.Lookup(ctx, p)
	select {
	case q := <-s.hold:
		if q != p {
			s.hold <- q
			break
		}
		close(s.asked)
		<-s.release
	default:
	}
	return e, err
}

// TestStaleAnswers: an answer that was asked for before our own change does not
// undo what we know, however late it comes.
func TestStaleAnswers(t *testing.T) {
	getattr := func(c *caller, id uint64) gofuse.Status {
		c.fs.table.get(id).doubt()
		_, st := c.attr(id)
		return st
	}
	look := func(c *caller, name string) gofuse.Status {
		_, st := c.lookup(1, name)
		return st
	}
	tests := map[string]struct {
		// path is asked for by ask while change is made; check runs after both.
		path   storage.Path
		ask    func(c *caller, id uint64) gofuse.Status
		change func(c *caller, id uint64)
		check  func(c *caller, id uint64)
		want   gofuse.Status
	}{
		"size": {
			path: "f", ask: getattr,
			change: func(c *caller, id uint64) {
				c.ok("write", c.write(id, []byte("longer than before"), 0))
				c.ok("fsync", c.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(id)}))
			},
			check: func(c *caller, id uint64) {
				if got := c.read(id, 0, 100); string(got) != "longer than before" {
					c.t.Errorf("read %q", got)
				}
			},
		},
		"renamed, by its node": {
			path: "f", ask: getattr,
			change: func(c *caller, _ uint64) {
				c.ok("rename", c.fs.Rename(nil, &gofuse.RenameIn{InHeader: header(1), Newdir: 1}, "f", "g"))
			},
			check: func(c *caller, id uint64) {
				if a, st := c.attr(id); !st.Ok() || a.Nlink != 1 {
					c.t.Errorf("the renamed file: %v, %d links", st, a.Nlink)
				}
			},
		},
		"renamed, by its name": {
			path: "f", ask: func(c *caller, _ uint64) gofuse.Status { return look(c, "f") },
			change: func(c *caller, _ uint64) {
				c.ok("rename", c.fs.Rename(nil, &gofuse.RenameIn{InHeader: header(1), Newdir: 1}, "f", "g"))
			},
			check: func(c *caller, id uint64) {
				if n := c.fs.table.child(c.fs.table.root, "g"); n == nil || n.id != id {
					c.t.Error("the new name is not known any more")
				}
			},
			want: gofuse.ENOENT,
		},
		"removed": {
			path: "f", ask: func(c *caller, _ uint64) gofuse.Status { return look(c, "f") },
			change: func(c *caller, _ uint64) {
				h := header(1)
				c.ok("unlink", c.fs.Unlink(nil, &h, "f"))
			},
			check: func(c *caller, _ uint64) {
				if c.fs.table.child(c.fs.table.root, "f") != nil {
					c.t.Error("the removed name is back")
				}
			},
			want: gofuse.ENOENT,
		},
		"made": {
			path: "new", ask: func(c *caller, _ uint64) gofuse.Status { return look(c, "new") },
			change: func(c *caller, _ uint64) {
				_, st := c.create(1, "new")
				c.ok("create", st)
			},
			check: func(c *caller, _ uint64) {
				if c.fs.table.child(c.fs.table.root, "new") == nil {
					c.t.Error("the new name is not known any more")
				}
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v := memory.NewBucket(1 << 30).Volume()
			store := newSlow(v.Files)
			v.Files = store
			c := mount(t, v)
			id, st := c.create(1, "f")
			c.ok("create", st)
			c.ok("write", c.write(id, []byte("before"), 0))
			c.ok("close", c.close(id))
			c.ok("open", c.open(id))
			var dir gofuse.EntryOut
			c.ok("mkdir", c.fs.Mkdir(nil, &gofuse.MkdirIn{InHeader: header(1), Mode: 0o755}, "d", &dir))
			_, st = c.create(dir.NodeId, "x")
			c.ok("create", st)

			store.hold <- tt.path
			answer := make(chan gofuse.Status, 1)
			go func() { answer <- tt.ask(c, id) }()
			await(t, store.asked)
			tt.change(c, id)
			close(store.release)
			if st := <-answer; st != tt.want {
				t.Errorf("the late answer: %v, want %v", st, tt.want)
			}
			tt.check(c, id)
			if c.fs.table.asks.outdated.Load() == 0 && tt.path != "d/x" {
				t.Error("no answer was outdated: nothing was tried")
			}
			if n := len(c.fs.table.asks.open); n != 0 {
				t.Errorf("%d questions stay open", n)
			}
			c.ok("close", c.close(id))
		})
	}
}

// TestStaleListing: names that were listed before they were removed do not come
// back with the listing.
func TestStaleListing(t *testing.T) {
	c := mount(t, memory.NewBucket(1<<30).Volume())
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("close", c.close(id))
	var open gofuse.OpenOut
	c.ok("opendir", c.fs.OpenDir(nil, &gofuse.OpenIn{InHeader: header(1)}, &open))
	list := func(off uint64, size int) {
		in := &gofuse.ReadIn{InHeader: header(1), Fh: open.Fh, Offset: off, Size: uint32(size)}
		c.ok("readdir", c.fs.ReadDirPlus(nil, in, gofuse.NewDirEntryList(make([]byte, size), off)))
	}
	list(0, 4096)
	h := header(1)
	c.ok("unlink", c.fs.Unlink(nil, &h, "f"))
	list(2, 4096)
	if c.fs.table.child(c.fs.table.root, "f") != nil {
		t.Error("the removed name is back")
	}
	c.fs.ReleaseDir(&gofuse.ReleaseIn{InHeader: header(1), Fh: open.Fh})
	if _, st := c.lookup(1, "f"); st != gofuse.Status(syscall.ENOENT) {
		t.Errorf("lookup: %v", st)
	}
}

// await waits for a channel that is closed soon.
func await(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing happened for 30 s")
	}
}

// contended is a store in which somebody else changes the file while it is asked
// for, so many times.
type contended struct {
	storage.Files
	times  int
	change func(p storage.Path)
}

func (s *contended) Lookup(ctx context.Context, p storage.Path) (storage.Entry, error) {
	e, err := s.Files.Lookup(ctx, p)
	if s.times > 0 {
		s.times--
		s.change(p)
	}
	return e, err
}

// TestContendedFile: a burst of changes by others makes those who look wait, and
// fails none of them.
func TestContendedFile(t *testing.T) {
	const burst = 3 * maxRetries
	v := memory.NewBucket(1 << 30).Volume()
	store := &contended{Files: v.Files}
	v.Files = store
	c := begin(t, v)
	store.change = func(p storage.Path) {
		at := storage.Place{Path: p}
		c.fs.changed(storage.Event{Old: &at, New: &at})
	}
	id, st := c.create(1, "f")
	c.ok("create", st)
	c.ok("close", c.close(id))
	store.times = burst
	c.ok("open", c.open(id))
	store.times = burst
	_, st = c.lookup(1, "f")
	c.ok("look-up", st)
	c = c.crash(false)
	store.change = func(p storage.Path) {
		at := storage.Place{Path: p}
		c.fs.changed(storage.Event{Old: &at, New: &at})
	}
	store.times = burst
	_, st = c.attr(id)
	c.ok("getattr after a take-over", st)
	if store.times != 0 {
		t.Errorf("%d changes were not met", store.times)
	}
	if err := c.fs.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
