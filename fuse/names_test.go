package fuse

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/fuse/leftovers"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// linked makes a file under the names "f0", "f1", …, all known to the mount.
func (c *caller) linked(names int) uint64 {
	c.t.Helper()
	id, st := c.create(1, "f0")
	c.ok("create", st)
	c.ok("write", c.write(id, []byte("before"), 0))
	c.ok("close", c.close(id))
	for i := 1; i < names; i++ {
		var out gofuse.EntryOut
		c.ok("link", c.fs.Link(nil, &gofuse.LinkIn{InHeader: header(1), Oldnodeid: id}, fmt.Sprintf("f%d", i), &out))
	}
	return id
}

// takeName has somebody else remove a name, or put another file there.
func takeName(t *testing.T, bucket *memory.Bucket, p storage.Path, replace bool) {
	t.Helper()
	files := bucket.Volume().Files
	e, err := files.Lookup(t.Context(), p)
	if err == nil {
		err = files.Remove(t.Context(), p, e, nil)
	}
	if err == nil && replace {
		_, err = files.Create(t.Context(), p, storage.Entry{Mode: 0o644, Size: 6, Inline: []byte("theirs")}, false)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestAnotherNameStands: what was written to a file of several names is committed by
// one that is the file's still, whichever others somebody else has removed or
// replaced. So many are taken that one of them is tried first, whatever the order.
func TestAnotherNameStands(t *testing.T) {
	const names = 12
	for _, replace := range []bool{false, true} {
		for what, change := range map[string]func(c *caller, id uint64){
			"fsync": func(c *caller, id uint64) {
				c.ok("write", c.write(id, []byte("after!"), 0))
				c.ok("fsync", c.fsync(id))
			},
			"truncate": func(c *caller, id uint64) {
				c.ok("truncate", c.truncate(id, 0))
				c.ok("write", c.write(id, []byte("after!"), 0))
			},
			"stat": func(c *caller, id uint64) {
				a, st := c.attr(id)
				c.ok("stat", st)
				if a.Nlink != 1 {
					c.t.Errorf("it has %d names", a.Nlink)
				}
				c.ok("write", c.write(id, []byte("after!"), 0))
			},
			"link": func(c *caller, id uint64) {
				var out gofuse.EntryOut
				c.ok("link", c.fs.Link(nil, &gofuse.LinkIn{InHeader: header(1), Oldnodeid: id}, "more", &out))
				c.ok("write", c.write(id, []byte("after!"), 0))
			},
		} {
			t.Run(fmt.Sprintf("%s, replaced %v", what, replace), func(t *testing.T) {
				bucket := memory.NewBucket(1 << 30)
				c := mount(t, bucket.Volume())
				id := c.linked(names)
				c.ok("open", c.open(id))
				for i := range names - 1 {
					takeName(t, bucket, storage.Path(fmt.Sprintf("f%d", i)), replace)
				}
				change(c, id)
				c.ok("close", c.close(id))
				stands := storage.Path(fmt.Sprintf("f%d", names-1))
				for i := range names - 1 {
					p := storage.Path(fmt.Sprintf("f%d", i))
					e, err := bucket.Volume().Files.Lookup(t.Context(), p)
					if replace && (err != nil || string(e.Inline) != "theirs") || !replace && !storage.Is(err, storage.NotFound) {
						t.Errorf("%q holds %q, %v", p, e.Inline, err)
					}
				}
				e, err := bucket.Volume().Files.Lookup(t.Context(), stands)
				if err != nil || string(e.Inline) != "after!" || e.Inode != id {
					t.Errorf("%q holds %q, %v", stands, e.Inline, err)
				}
				if kept, err := leftovers.Count(c.fs.opts.Dir); err != nil || kept != 0 {
					t.Errorf("%d files are kept aside, %v", kept, err)
				}
			})
		}
	}
}

// TestLastNameTakesGuessesAlong: a file that we have removed by its last name, while
// it was open, is without a name, though we take another one for its: somebody else
// has put another file there. It is read and written until its last close, and what
// was held for it is freed then.
func TestLastNameTakesGuessesAlong(t *testing.T) {
	for _, how := range []string{"unlink", "rename", "unlink without an answer"} {
		t.Run(how, func(t *testing.T) {
			bucket := memory.NewBucket(1 << 30)
			v := bucket.Volume()
			v.Files = mute{v.Files, how == "unlink without an answer"}
			c := mount(t, v)
			id := c.linked(2)
			c.ok("open", c.open(id))
			takeName(t, bucket, "f0", true)
			_, st := c.lookup(1, "f1") // and hears that it has one name less
			c.ok("look-up", st)
			switch how {
			case "unlink":
				c.ok("unlink", c.remove(1, "f1"))
			case "unlink without an answer":
				if st := c.remove(1, "f1"); st != gofuse.EIO {
					t.Fatalf("unlink without an answer: %v", st)
				}
				if err := c.fs.settled(t.Context()); err != nil {
					t.Fatal(err)
				}
			case "rename":
				next, st := c.create(1, "next")
				c.ok("create", st)
				c.ok("close", c.close(next))
				c.ok("rename", c.mv(1, "next", "f1"))
			}
			c.ok("write", c.write(id, []byte("after!"), 0))
			c.ok("fsync", c.fsync(id))
			if a, st := c.attr(id); !st.Ok() || a.Nlink != 0 {
				t.Errorf("stat: %v, %d names", st, a.Nlink)
			}
			if got := c.read(id, 0, 10); string(got) != "after!" {
				t.Errorf("it reads %q", got)
			}
			c.ok("close", c.close(id))
			held, err := bucket.Volume().Orphans.Orphans(t.Context(), c.fs.holder)
			if err != nil || len(held) != 0 {
				t.Errorf("%d files are held after the last close, %v", len(held), err)
			}
			if kept, err := leftovers.Count(c.fs.opts.Dir); err != nil || kept != 0 {
				t.Errorf("%d files are kept aside, %v", kept, err)
			}
			for _, n := range c.fs.table.all() {
				if n.dirty() {
					t.Errorf("node %d waits for a commit still", n.id)
				}
			}
			if e, err := bucket.Volume().Files.Lookup(t.Context(), "f0"); err != nil || string(e.Inline) != "theirs" {
				t.Errorf("the other file holds %q, %v", e.Inline, err)
			}
		})
	}
}

// mute is a store that carries removals out and does not answer.
type mute struct {
	storage.Files
	is bool
}

func (s mute) Remove(ctx context.Context, p storage.Path, e storage.Entry, o *storage.Orphan) error {
	err := s.Files.Remove(ctx, p, e, o)
	if s.is && err == nil {
		err = storage.Errorf(storage.Unavailable, "no answer")
	}
	return err
}

// belated is a store that does not answer the first update of a file. It carries it
// out before another one, once an update has met somebody else's file.
type belated struct {
	storage.Files
	at     storage.Path
	sent   bool
	met    bool
	arrive func() error
}

func (s *belated) Update(ctx context.Context, p storage.Path, e storage.Entry) (storage.Entry, error) {
	switch {
	case p != s.at:
		s.met = s.met || s.sent
	case !s.sent && s.at != "":
		s.sent, s.arrive = true, func() error {
			_, err := s.Files.Update(context.WithoutCancel(ctx), p, e)
			return err
		}
		return storage.Entry{}, storage.Errorf(storage.Unavailable, "no answer")
	case s.met && s.arrive != nil:
		err := s.arrive()
		if s.arrive = nil; err != nil {
			return storage.Entry{}, fmt.Errorf("the late update: %w", err)
		}
	}
	return s.Files.Update(ctx, p, e)
}

// TestOtherFileSaysNothingOfCommits: a commit whose answer is lost may be carried out
// yet, though another name of the file turns out to be somebody else's: nothing of it
// is freed for that.
func TestOtherFileSaysNothingOfCommits(t *testing.T) {
	const names = 12
	try := func(t *testing.T) (tried bool) {
		bucket := memory.NewBucket(1 << 30)
		v := bucket.Volume()
		store := &belated{Files: v.Files}
		v.Files = store
		c := mount(t, v)
		id := c.linked(names)
		c.ok("open", c.open(id))
		want := streamed(20 << 10)
		c.ok("write", c.write(id, want, 0))
		c.ok("fsync", c.fsync(id))
		for i := range names - 1 {
			takeName(t, bucket, storage.Path(fmt.Sprintf("f%d", i)), true)
		}
		store.at = storage.Path(fmt.Sprintf("f%d", names-1))
		_, st := c.lookup(1, string(store.at))
		c.ok("look-up", st)
		copy(want[5<<10:], "in doubt")
		c.ok("write", c.write(id, []byte("in doubt"), 5<<10))
		if st := c.fsync(id); st != gofuse.EIO {
			t.Fatalf("fsync without an answer: %v", st)
		}
		copy(want[6<<10:], "after it")
		c.ok("write", c.write(id, []byte("after it"), 6<<10))
		c.ok("fsync", c.fsync(id))
		c.ok("close", c.close(id))
		if got := c.read(id, 0, 30<<10); !bytes.Equal(got, want) {
			t.Errorf("%d bytes are not the %d that were written", len(got), len(want))
		}
		checkChunks(t, bucket, store.at)
		return store.met
	}
	for !try(t) { // by chance no other file was met after the first update
		continue
	}
}

// TestNameInLostFolder: a file that is known by names in folders that somebody else
// has moved away, and by one in a folder that is where it was, is committed by that.
func TestNameInLostFolder(t *testing.T) {
	const folders = 11
	bucket := memory.NewBucket(1 << 30)
	c := mount(t, bucket.Volume())
	id := c.linked(1)
	others := bucket.Volume().Files
	for i := range folders {
		name := fmt.Sprintf("d%d", i)
		dir, st := c.mkdir(1, name)
		c.ok("mkdir", st)
		var out gofuse.EntryOut
		c.ok("link", c.fs.Link(nil, &gofuse.LinkIn{InHeader: header(dir), Oldnodeid: id}, "f", &out))
		e, err := others.Lookup(t.Context(), storage.Path(name))
		if err == nil {
			err = others.Rename(t.Context(), storage.Path(name), storage.Path("moved-"+name), e, nil, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, st := c.lookup(1, name); st != gofuse.ENOENT {
			t.Fatalf("look-up of a folder that was moved: %v", st)
		}
	}
	c.ok("open", c.open(id))
	c.ok("write", c.write(id, []byte("after!"), 0))
	c.ok("close", c.close(id))
	for _, p := range []storage.Path{"f0", "moved-d0/f"} {
		if e, err := others.Lookup(t.Context(), p); err != nil || string(e.Inline) != "after!" || e.Inode != id {
			t.Errorf("%q holds %q, %v", p, e.Inline, err)
		}
	}
}

// TestReadByAnotherName: a reader whose content another mount has replaced finds the new
// one by a name that stands.
func TestReadByAnotherName(t *testing.T) {
	const names = 12
	bucket := memory.NewBucket(1 << 30)
	a, b := mount(t, bucket.Volume()), mount(t, bucket.Volume())
	id := a.linked(names)
	want := streamed(20 << 10)
	a.ok("open", a.open(id))
	a.ok("write", a.write(id, want, 0))
	a.ok("fsync", a.fsync(id))
	for i := range names - 1 {
		takeName(t, bucket, storage.Path(fmt.Sprintf("f%d", i)), true)
	}
	theirs, st := b.lookup(1, fmt.Sprintf("f%d", names-1))
	b.ok("look-up", st)
	b.ok("open", b.open(theirs))
	copy(want, "another beginning")
	b.ok("write", b.write(theirs, want[:100], 0))
	b.ok("close", b.close(theirs))
	if got := a.read(id, 0, 30<<10); !bytes.Equal(got, want) {
		t.Errorf("%d bytes are not the %d that were written", len(got), len(want))
	}
	a.ok("close", a.close(id))
}

// TestTakeOverByAnotherName: the next mounter commits what was written by a name that
// stands.
func TestTakeOverByAnotherName(t *testing.T) {
	const names = 12
	bucket := memory.NewBucket(1 << 30)
	c := begin(t, bucket.Volume())
	id := c.linked(names)
	c.ok("open", c.open(id))
	c.ok("write", c.write(id, []byte("after!"), 0))
	for i := range names - 1 {
		takeName(t, bucket, storage.Path(fmt.Sprintf("f%d", i)), true)
	}
	c = c.crash(false)
	if _, st := c.attr(id); !st.Ok() {
		t.Errorf("stat: %v", st)
	}
	c.ok("close", c.close(id))
	e, err := bucket.Volume().Files.Lookup(t.Context(), storage.Path(fmt.Sprintf("f%d", names-1)))
	if err != nil || string(e.Inline) != "after!" {
		t.Errorf("it holds %q, %v", e.Inline, err)
	}
	if err := c.fs.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
