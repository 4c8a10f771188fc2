package fuse

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/fuse/leftovers"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// TestUnreadableStage: what waits of one file cannot be read by the next mounter.
// All other files are served, this one gets EIO until its last close, and what is
// there of it is kept aside: nothing is deleted, and nothing that was not written is
// committed.
func TestUnreadableStage(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"missing": os.Remove,
		"no file": func(path string) error { // it cannot be opened, and is somebody's
			return errors.Join(os.Rename(path, path+".was"), os.Mkdir(path, 0o700))
		},
		"short": func(path string) error { return os.Truncate(path, 300<<10) },
	} {
		for _, fresh := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", all died"}[fresh], func(t *testing.T) { unreadableStage(t, spoil, name != "missing", fresh) })
		}
	}
}

func unreadableStage(t *testing.T, spoil func(string) error, there, fresh bool) {
	bucket := memory.NewBucket(1 << 30)
	c := begin(t, bucket.Volume())
	dir := c.fs.opts.Dir
	was, want := []byte("committed before"), streamed(700<<10)
	ids := map[string]uint64{}
	for _, name := range []string{"good", "bad", "streamed"} {
		id, st := c.create(1, name)
		c.ok("create", st)
		c.ok("write", c.write(id, was, 0))
		c.ok("fsync", c.fsync(id))
		ids[name] = id
	}
	for _, name := range []string{"good", "bad"} {
		c.stream(ids[name], want, 0)
	}
	// Of this one a part is in the store and in no entry yet.
	part := streamed(storage.ChunkSize + 500<<10)
	c.stream(ids["streamed"], part, 0)
	c.land(ids["streamed"])
	for _, name := range []string{"bad", "streamed"} {
		if err := spoil(c.fs.stagePathOf(c.fs.table.get(ids[name]))); err != nil {
			t.Fatal(err)
		}
	}
	c = c.crash(fresh)
	c = c.crash(fresh) // and once more, from the journal as it was written anew
	if !fresh {
		c.same("of another file", ids["good"], want)
		c.ok("fsync", c.fsync(ids["good"]))
		for _, id := range []uint64{ids["bad"], ids["streamed"]} {
			for op, st := range map[string]gofuse.Status{
				"write": c.write(id, []byte("x"), 3), "truncate": c.truncate(id, 10), "fsync": c.fsync(id),
				"append": c.write(id, []byte("x"), 8<<20),
			} {
				if st != gofuse.EIO {
					t.Errorf("%s: %v", op, st)
				}
			}
			buf := make([]byte, 10)
			if _, st := c.fs.Read(nil, &gofuse.ReadIn{InHeader: header(id), Offset: uint64(storage.ChunkSize), Size: 10}, buf); id == ids["streamed"] && st != gofuse.EIO {
				t.Errorf("read: %v", st)
			}
			if st := c.close(id); st != gofuse.EIO {
				t.Errorf("close: %v", st)
			}
		}
		c.ok("close", c.close(ids["good"]))
	}
	if !c.fs.sweep(t.Context()) {
		t.Error("something waits still")
	}
	for name, content := range map[string][]byte{"good": want, "bad": was, "streamed": was} {
		id, st := c.lookup(1, name)
		c.ok("lookup", st)
		c.same(name+" at last", id, content)
	}
	id, st := c.lookup(1, "bad")
	c.ok("lookup", st)
	c.ok("open", c.open(id))
	c.ok("write", c.write(id, []byte("C"), 0))
	c.ok("close", c.close(id))
	c.end()
	if left, _ := filepath.Glob(filepath.Join(dir, stagePrefix+"*")); slices.ContainsFunc(left, func(p string) bool { return !strings.HasSuffix(p, ".was") }) {
		t.Errorf("left: %s", left)
	}
	checkUnread(t, filepath.Join(dir, leftovers.Dir), part, there)
	if n, err := c.fs.Leftovers(); err != nil || n != 2 {
		t.Errorf("%d leftovers, %v, want 2", n, err)
	}
	used := 0
	for name := range ids {
		e, err := bucket.Volume().Files.Lookup(t.Context(), storage.Path(name))
		if err != nil {
			t.Fatal(err)
		}
		used += len(e.Chunks)
	}
	if n := bucket.ChunkCount(); n != used {
		t.Errorf("%d chunks are kept, %d are used", n, used)
	}
}

// checkUnread demands that what could be read of part is kept, the rest told, and
// the stages' files, where there are any, kept as they are.
func checkUnread(t *testing.T, dir string, part []byte, there bool) {
	t.Helper()
	descriptions, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(descriptions) != 2 {
		t.Fatalf("descriptions: %q, %v", descriptions, err)
	}
	for _, d := range descriptions {
		raw, err := os.ReadFile(d)
		if err != nil {
			t.Fatal(err)
		}
		var about leftover
		if err := json.Unmarshal(raw, &about); err != nil {
			t.Fatal(err)
		}
		kept := strings.TrimSuffix(d, ".json")
		if _, err := os.Lstat(kept + ".unread"); there != (err == nil) || !there && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the stage's file: %v", about.Path, err)
		}
		got, err := os.ReadFile(kept)
		if err != nil {
			t.Fatal(err)
		}
		switch about.Path {
		case "bad":
			if !slices.Equal(about.Unread, [][2]int64{{0, 700 << 10}}) || len(about.Written) != 0 {
				t.Errorf("described as %+v", about)
			}
		case "streamed":
			if !bytes.Equal(got[:storage.ChunkSize], part[:storage.ChunkSize]) || len(got) != len(part) {
				t.Errorf("%d bytes are kept, and differ", len(got))
			}
			if !slices.Equal(about.Written, [][2]int64{{0, storage.ChunkSize}}) || !slices.Equal(about.Unread, [][2]int64{{storage.ChunkSize, int64(len(part))}}) {
				t.Errorf("described as %+v", about)
			}
		default:
			t.Errorf("described is %q", about.Path)
		}
		if about.Reason == "" {
			t.Errorf("no reason for %q", about.Path)
		}
	}
}
