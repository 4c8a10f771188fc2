package fuse

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

func (c *caller) mkdir(dir uint64, name string) (uint64, gofuse.Status) {
	var out gofuse.EntryOut
	st := c.fs.Mkdir(nil, &gofuse.MkdirIn{InHeader: header(dir), Mode: 0o755}, name, &out)
	return out.NodeId, st
}

// dirent is one name as the kernel reads it.
type dirent struct {
	name string
	ino  uint64
	off  uint64
}

func (c *caller) opendir(dir uint64) uint64 {
	c.t.Helper()
	var out gofuse.OpenOut
	c.ok("opendir", c.fs.OpenDir(nil, &gofuse.OpenIn{InHeader: header(dir)}, &out))
	return out.Fh
}

// readdir reads what fits into a buffer, from a cookie on.
func (c *caller) readdir(dir, fh, off uint64, room int) ([]dirent, gofuse.Status) {
	list := gofuse.NewDirEntryList(make([]byte, room), off)
	st := c.fs.ReadDir(nil, &gofuse.ReadIn{InHeader: header(dir), Fh: fh, Offset: off, Size: uint32(room)}, list)
	var out []dirent
	for b := list.Bytes(); len(b) > 0; {
		n := binary.NativeEndian.Uint32(b[16:])
		out = append(out, dirent{string(b[24 : 24+n]), binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(b[8:])})
		b = b[(24+n+7)&^7:]
	}
	return out, st
}

// list reads a whole directory.
func (c *caller) list(dir uint64) ([]string, gofuse.Status) {
	fh := c.opendir(dir)
	defer c.fs.ReleaseDir(&gofuse.ReleaseIn{InHeader: header(dir), Fh: fh})
	var names []string
	for off := uint64(0); ; {
		got, st := c.readdir(dir, fh, off, 4096)
		if !st.Ok() || len(got) == 0 {
			return names, st
		}
		for _, d := range got {
			if d.name != "." && d.name != ".." {
				names = append(names, d.name)
			}
			off = d.off
		}
	}
}

// TestCookies reads a directory of several pages while names in it are made and
// removed by us and by others, the reader goes back to cookies of before, and the
// mounter dies: behind each cookie every name that was there all the time comes
// once, and no name comes twice.
func TestCookies(t *testing.T) {
	seed := seedOf(t)
	rng := rand.New(rand.NewPCG(seed, 6))
	bucket := memory.NewBucket(1 << 30)
	other := bucket.Volume()
	const total = 2*listPage + 300
	name := func(i int) string { return fmt.Sprintf("name-%05d", i) }
	there := map[int]bool{} // each third name is never touched
	for i := range total {
		if _, err := other.Files.Create(t.Context(), storage.Path(name(i)), storage.Entry{Mode: 0o644, Inode: uint64(i) + 1<<50, Native: true}, false); err != nil {
			t.Fatal(err)
		}
		there[i] = true
	}
	c := begin(t, bucket.Volume())
	fh := c.opendir(1)
	names := map[uint64]string{0: "", afterDot: "", afterDotDot: ""} // by cookie
	for round := range 12 {
		var last string
		off := uint64(0)
		if round > 0 { // back to somewhere
			all := slices.Sorted(maps.Keys(names))
			off = all[rng.IntN(len(all))]
			last = names[off]
		} else {
			clear(names)
		}
		seen := last
		for step := 0; ; step++ {
			got, st := c.readdir(1, fh, off, 200+rng.IntN(20_000))
			c.ok("readdir", st)
			if len(got) == 0 {
				break
			}
			for _, d := range got[:1+rng.IntN(len(got))] { // the kernel may not use all
				off = d.off
				if d.name == "." || d.name == ".." {
					names[off] = ""
					continue
				}
				if d.name <= seen {
					t.Fatalf("seed %d round %d: %q comes after %q", seed, round, d.name, seen)
				}
				seen, names[off] = d.name, d.name
			}
			for i := 0; i < total; i += 3 {
				if n := name(i); n > last && n <= seen && !slices.ContainsFunc(got, func(d dirent) bool { return d.name == n }) {
					t.Fatalf("seed %d round %d: %q is left out", seed, round, n)
				}
			}
			last = seen
			for range rng.IntN(30) {
				i := rng.IntN(total)
				if i%3 == 0 {
					continue
				}
				switch {
				case there[i] && rng.IntN(2) == 0:
					h := header(1)
					c.ok("unlink", c.fs.Unlink(nil, &h, name(i)))
				case there[i]:
					e, err := other.Files.Lookup(t.Context(), storage.Path(name(i)))
					if err == nil {
						err = other.Files.Remove(t.Context(), storage.Path(name(i)), e, nil)
					}
					if err != nil {
						t.Fatal(err)
					}
				default:
					if _, err := other.Files.Create(t.Context(), storage.Path(name(i)), storage.Entry{Mode: 0o644, Inode: rng.Uint64()>>2 | 1<<50, Native: true}, false); err != nil {
						t.Fatal(err)
					}
				}
				there[i] = !there[i]
			}
			if rng.IntN(6) == 0 {
				c = c.crash(false)
			}
			if round > 0 && rng.IntN(20) == 0 {
				break
			}
		}
		if round == 0 && seen < name(total-3) {
			t.Fatalf("seed %d: the first reading ended at %q", seed, seen)
		}
	}
	c.fs.ReleaseDir(&gofuse.ReleaseIn{InHeader: header(1), Fh: fh})
	if n := len(c.fs.dirs.open); n != 0 {
		t.Errorf("%d directories are open", n)
	}
	if err := c.fs.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// counted counts the questions to the store.
type counted struct {
	storage.Files
	lookups, lists atomic.Int64
}

// Lookup implements storage.Files.
func (f *counted) Lookup(ctx context.Context, p storage.Path) (storage.Entry, error) {
	f.lookups.Add(1)
	return f.Files.Lookup(ctx, p)
}

// List implements storage.Files.
func (f *counted) List(ctx context.Context, p storage.Path, after string, limit int) ([]storage.Entry, error) {
	f.lists.Add(1)
	return f.Files.List(ctx, p, after, limit)
}

// TestListingTellsAttributes: `ls -l` of a large directory asks the store for its
// pages, and not for each file.
func TestListingTellsAttributes(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	const total = 2000
	for i := range total {
		if _, err := bucket.Volume().Files.Create(t.Context(), storage.Path(fmt.Sprint(i)), storage.Entry{Mode: 0o640, Inode: uint64(i) + 1<<50, Native: true}, false); err != nil {
			t.Fatal(err)
		}
	}
	vol := bucket.Volume()
	files := &counted{Files: vol.Files}
	vol.Files = files
	c := mount(t, vol)
	for !c.fs.watched.Load() {
		runtime.Gosched()
	}
	if _, st := c.attr(1); !st.Ok() {
		t.Fatal(st)
	}
	<-c.fs.room.known // a survey lists, too
	files.lookups.Store(0)
	files.lists.Store(0)
	fh := c.opendir(1)
	for off := uint64(0); ; {
		list := gofuse.NewDirEntryList(make([]byte, 4096), off)
		c.ok("readdirplus", c.fs.ReadDirPlus(nil, &gofuse.ReadIn{InHeader: header(1), Fh: fh, Offset: off, Size: 4096}, list))
		if list.Offset == off {
			break
		}
		off = list.Offset
	}
	c.fs.ReleaseDir(&gofuse.ReleaseIn{InHeader: header(1), Fh: fh})
	for i := range total {
		n := c.fs.table.child(c.fs.table.root, fmt.Sprint(i))
		if n == nil {
			t.Fatalf("%d is not known", i)
		}
		if a, st := c.attr(n.id); !st.Ok() || a.Mode&0o777 != 0o640 {
			t.Fatalf("%d: %v, mode %o", i, st, a.Mode)
		}
	}
	if looked, listed := files.lookups.Load(), files.lists.Load(); looked > 0 || listed > total/listPage+1 {
		t.Errorf("%d look-ups, %d pages", looked, listed)
	}
}
