package storagetest

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// Volume runs the suite of storage.Files, Chunks, Watcher and Meter. open gives
// two clients of one new, empty bucket.
func Volume(t *testing.T, open func(t *testing.T) (a, b storage.Volume)) {
	tests := []struct {
		name string
		run  func(t *testing.T, a, b storage.Volume)
	}{
		{"Root", testRoot},
		{"Attributes", testAttributes},
		{"CreateRefuses", testCreateRefuses},
		{"List", testList},
		{"Update", testUpdate},
		{"UpdateAgain", testUpdateAgain},
		{"Commits", testCommits},
		{"Rename", testRename},
		{"RenameRefuses", testRenameRefuses},
		{"Link", testLink},
		{"RenameOverLink", testRenameOverLink},
		{"Remove", testRemove},
		{"Chunks", testChunks},
		{"KeepData", testKeepData},
		{"Watch", testWatch},
		{"Usage", testUsage},
		{"Cancelled", testCancelled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := open(t)
			tt.run(t, a, b)
		})
	}
}

func newFile(size int64) storage.Entry {
	now := time.Now()
	return storage.Entry{
		Mode: 0o640, UID: 1000, GID: 1001, Size: size, Inode: rand.Uint64()>>2 | 1<<40, Native: true,
		Mtime: now, Ctime: now, Atime: now, Btime: now, MIME: "text/plain",
	}
}

func newDir() storage.Entry {
	e := newFile(0)
	e.Mode, e.MIME = fs.ModeDir|0o750, ""
	return e
}

func create(t *testing.T, v storage.Volume, p storage.Path, e storage.Entry) storage.Entry {
	t.Helper()
	made, err := v.Files.Create(t.Context(), p, e)
	if err != nil {
		t.Fatalf("create %q: %v", p, err)
	}
	return made
}

// write makes a file with one chunk.
func write(t *testing.T, v storage.Volume, p storage.Path, data string) storage.Entry {
	t.Helper()
	c, err := v.Chunks.Write(t.Context(), p, []byte(data))
	if err != nil {
		t.Fatalf("write a chunk: %v", err)
	}
	c.Modified = time.Now().UnixNano()
	e := newFile(int64(len(data)))
	e.Chunks, e.MD5 = []storage.Chunk{c}, c.MD5
	return create(t, v, p, e)
}

func lookup(t *testing.T, v storage.Volume, p storage.Path) storage.Entry {
	t.Helper()
	e, err := v.Files.Lookup(t.Context(), p)
	if err != nil {
		t.Fatalf("look up %q: %v", p, err)
	}
	return e
}

func read(t *testing.T, v storage.Volume, e storage.Entry) string {
	t.Helper()
	out := make([]byte, e.Size)
	for _, c := range e.Chunks {
		if err := v.Chunks.Read(t.Context(), c, out[c.Offset:c.Offset+c.Size], 0); err != nil {
			t.Fatalf("read: %v", err)
		}
	}
	return string(out)
}

func want(t *testing.T, what string, err error, k storage.Kind) {
	t.Helper()
	if !storage.Is(err, k) {
		t.Errorf("%s: got %v (%v), want kind %q", what, err, storage.KindOf(err), k)
	}
}

func testRoot(t *testing.T, a, _ storage.Volume) {
	root := lookup(t, a, "")
	if !root.IsDir() || root.Name != "" {
		t.Errorf("root: %+v", root)
	}
	entries, err := a.Files.List(t.Context(), "", "", 10)
	if err != nil || len(entries) != 0 {
		t.Errorf("a new bucket lists %v, %v", entries, err)
	}
	want(t, "remove the root", a.Files.Remove(t.Context(), "", false), storage.InUse)
	root.Mode = fs.ModeDir | 0o711
	if _, err := a.Files.Update(t.Context(), "", root); err != nil {
		t.Fatalf("update the root: %v", err)
	}
	if again := lookup(t, a, ""); again.Mode.Perm() != 0o711 {
		t.Errorf("root mode %v", again.Mode)
	}
}

func testAttributes(t *testing.T, a, b storage.Volume) {
	e := newFile(0)
	e.Mode |= fs.ModeSetgid
	e.Xattr = map[string][]byte{"user.color": []byte("green"), "user.empty": {}}
	e.Mtime = time.Unix(1_600_000_000, 123_456_789)
	create(t, a, "f", e)
	link := newFile(0)
	link.Mode, link.Target, link.MIME = fs.ModeSymlink|0o777, "some/where", ""
	create(t, a, "l", link)
	got := lookup(t, b, "f")
	if got.Name != "f" || got.Mode != e.Mode || got.UID != e.UID || got.GID != e.GID || got.Inode != e.Inode ||
		!got.Native || got.MIME != e.MIME || !got.Mtime.Equal(e.Mtime) || !got.Ctime.Equal(e.Ctime) || !got.Atime.Equal(e.Atime) || got.Btime.Unix() != e.Btime.Unix() {
		t.Errorf("got %+v\nwant %+v", got, e)
	}
	if string(got.Xattr["user.color"]) != "green" || len(got.Xattr) != 2 {
		t.Errorf("xattr %q", got.Xattr)
	}
	delete(got.Xattr, "user.color")
	if _, err := b.Files.Update(t.Context(), "f", got); err != nil {
		t.Fatal(err)
	}
	if got := lookup(t, a, "f"); len(got.Xattr) != 1 {
		t.Errorf("xattr after removing one: %q", got.Xattr)
	}
	if got := lookup(t, b, "l"); got.Target != "some/where" || got.Mode.Type() != fs.ModeSymlink {
		t.Errorf("symlink: %+v", got)
	}
}

func testCreateRefuses(t *testing.T, a, _ storage.Volume) {
	create(t, a, "d", newDir())
	create(t, a, "f", newFile(0))
	for p, k := range map[storage.Path]storage.Kind{
		"f": storage.Exists, "d": storage.Exists, "missing/x": storage.NotFound, "f/x": storage.NotDirectory,
	} {
		_, err := a.Files.Create(t.Context(), p, newFile(0))
		want(t, fmt.Sprintf("create a file at %q", p), err, k)
		_, err = a.Files.Create(t.Context(), p, newDir())
		want(t, fmt.Sprintf("create a directory at %q", p), err, k)
	}
	if e := lookup(t, a, "f"); e.IsDir() {
		t.Error("a file became a directory")
	}
	_, err := a.Files.Lookup(t.Context(), "missing")
	want(t, "what must not have been made", err, storage.NotFound)
}

func testList(t *testing.T, a, _ storage.Volume) {
	create(t, a, "d", newDir())
	names := []string{"B", "a", "a b", "a.txt", "é", "z"}
	for _, n := range names {
		create(t, a, storage.Path("d").Join(n), newFile(0))
	}
	var got []string
	for after := ""; ; {
		page, err := a.Files.List(t.Context(), "d", after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page {
			got = append(got, e.Name)
			after = e.Name
		}
		if len(page) < 2 {
			break
		}
	}
	slices.Sort(names)
	if !slices.Equal(got, names) {
		t.Errorf("listed %q, want %q", got, names)
	}
	_, err := a.Files.List(t.Context(), "missing", "", 10)
	want(t, "list a missing directory", err, storage.NotFound)
	_, err = a.Files.List(t.Context(), "d/a", "", 10)
	want(t, "list a file", err, storage.NotDirectory)
}

func testUpdate(t *testing.T, a, b storage.Volume) {
	write(t, a, "f", "one")
	mine, theirs := lookup(t, a, "f"), lookup(t, b, "f")
	mine.Mode = 0o600
	mine, err := a.Files.Update(t.Context(), "f", mine)
	if err != nil {
		t.Fatalf("update: %v", err)
	}
	theirs.Mode = 0o666
	_, err = b.Files.Update(t.Context(), "f", theirs)
	want(t, "update of an entry that changed", err, storage.Changed)
	mine.UID = 7 // what Update returned can be updated again
	if _, err = a.Files.Update(t.Context(), "f", mine); err != nil {
		t.Fatalf("second update: %v", err)
	}
	if got := lookup(t, b, "f"); got.Mode != 0o600 || got.UID != 7 || read(t, b, got) != "one" {
		t.Errorf("after two updates: %+v", got)
	}
	if err := a.Files.Remove(t.Context(), "f", false); err != nil {
		t.Fatal(err)
	}
	_, err = a.Files.Update(t.Context(), "f", mine)
	want(t, "update of a missing entry", err, storage.NotFound)
	_, err = a.Files.Lookup(t.Context(), "f")
	want(t, "an update must not bring it back", err, storage.NotFound)
}

func testRename(t *testing.T, a, b storage.Volume) {
	create(t, a, "d", newDir())
	create(t, a, "d/sub", newDir())
	f := write(t, a, "d/sub/f", "content")
	if err := a.Files.Rename(t.Context(), "d", "e"); err != nil {
		t.Fatal(err)
	}
	_, err := b.Files.Lookup(t.Context(), "d/sub/f")
	want(t, "the old name", err, storage.NotFound)
	got := lookup(t, b, "e/sub/f")
	if got.Inode != f.Inode || read(t, b, got) != "content" {
		t.Errorf("moved file: %+v", got)
	}
	write(t, a, "target", "old")
	if err := a.Files.Rename(t.Context(), "e/sub/f", "target"); err != nil {
		t.Fatal(err)
	}
	if got := lookup(t, b, "target"); read(t, b, got) != "content" {
		t.Error("the replaced file kept its content")
	}
	create(t, a, "empty", newDir())
	if err := a.Files.Rename(t.Context(), "e", "empty"); err != nil {
		t.Errorf("directory over an empty one: %v", err)
	}
	lookup(t, b, "empty/sub")
	if err := a.Files.Rename(t.Context(), "target", "target"); err != nil {
		t.Errorf("rename to itself: %v", err)
	}
}

func testRenameRefuses(t *testing.T, a, _ storage.Volume) {
	create(t, a, "full", newDir())
	write(t, a, "full/x", "x")
	create(t, a, "d", newDir())
	write(t, a, "f", "f")
	for _, tt := range []struct {
		from, to storage.Path
		kind     storage.Kind
	}{
		{"missing", "x", storage.NotFound},
		{"f", "missing/x", storage.NotFound},
		{"f", "full/x/y", storage.NotDirectory},
		{"f", "d", storage.IsDirectory},
		{"d", "f", storage.NotDirectory},
		{"d", "full", storage.NotEmpty},
		{"full", "full/sub", storage.Invalid},
	} {
		want(t, fmt.Sprintf("rename %q to %q", tt.from, tt.to), a.Files.Rename(t.Context(), tt.from, tt.to), tt.kind)
	}
	if e := lookup(t, a, "full/x"); read(t, a, e) != "x" {
		t.Error("a refused rename changed a file")
	}
	if e := lookup(t, a, "f"); read(t, a, e) != "f" {
		t.Error("a refused rename changed a file")
	}
	_, err := a.Files.Lookup(t.Context(), "missing")
	want(t, "a refused rename makes no folder", err, storage.NotFound)
}

func testLink(t *testing.T, a, b storage.Volume) {
	f := write(t, a, "f", "shared")
	create(t, a, "d", newDir())
	g, err := a.Files.Link(t.Context(), "f", "d/g")
	if err != nil {
		t.Fatal(err)
	}
	if g.Links != 2 || g.Inode != f.Inode || g.Name != "g" {
		t.Errorf("new name: %+v", g)
	}
	if f := lookup(t, b, "f"); f.Links != 2 || f.LinkID != g.LinkID {
		t.Errorf("old name: %+v", f)
	}
	c, err := a.Chunks.Write(t.Context(), "d/g", []byte("changed"))
	if err != nil {
		t.Fatal(err)
	}
	g.Chunks, g.Size, g.MD5 = []storage.Chunk{c}, c.Size, c.MD5
	if _, err := a.Files.Update(t.Context(), "d/g", g); err != nil {
		t.Fatal(err)
	}
	if f := lookup(t, b, "f"); read(t, b, f) != "changed" {
		t.Error("a change by one name is not seen by the other")
	}
	_, err = a.Files.Link(t.Context(), "f", "d/g")
	want(t, "link to a taken name", err, storage.Exists)
	_, err = a.Files.Link(t.Context(), "d", "e")
	want(t, "link to a directory", err, storage.NotPermitted)
	_, err = a.Files.Link(t.Context(), "missing", "e")
	want(t, "link to nothing", err, storage.NotFound)
	if f := lookup(t, b, "f"); f.Links != 2 {
		t.Errorf("a refused link counted: %d", f.Links)
	}
	if err := a.Files.Remove(t.Context(), "f", false); err != nil {
		t.Fatal(err)
	}
	if g := lookup(t, b, "d/g"); g.Links != 1 || read(t, b, g) != "changed" {
		t.Errorf("the other name after a removal: %+v", g)
	}
}

func testRenameOverLink(t *testing.T, a, b storage.Volume) {
	write(t, a, "f", "must stay")
	if _, err := a.Files.Link(t.Context(), "f", "g"); err != nil {
		t.Fatal(err)
	}
	if err := a.Files.Rename(t.Context(), "f", "g"); err != nil {
		t.Errorf("rename between two names of one file: %v", err)
	}
	lookup(t, b, "f")
	write(t, a, "new", "new")
	if err := a.Files.Rename(t.Context(), "new", "g"); err != nil {
		t.Fatal(err)
	}
	f := lookup(t, b, "f")
	if f.Links > 1 {
		t.Errorf("links after one was replaced: %d", f.Links)
	}
	// The store frees chunks in the background: look more than once.
	for range 20 {
		if read(t, b, f) != "must stay" {
			t.Fatal("the other hard link lost its content")
		}
		wait(t, 100*time.Millisecond)
	}
}

func testRemove(t *testing.T, a, _ storage.Volume) {
	create(t, a, "d", newDir())
	write(t, a, "d/f", "x")
	want(t, "remove a full directory", a.Files.Remove(t.Context(), "d", false), storage.NotEmpty)
	lookup(t, a, "d/f")
	for _, p := range []storage.Path{"d/f", "d"} {
		if err := a.Files.Remove(t.Context(), p, false); err != nil {
			t.Errorf("remove %q: %v", p, err)
		}
		want(t, "remove again", a.Files.Remove(t.Context(), p, false), storage.NotFound)
	}
}

// wait gives background work of the store a moment, or ends with the test.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}
