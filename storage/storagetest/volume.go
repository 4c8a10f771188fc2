package storagetest

import (
	"crypto/md5"
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
		{"AsRead", testAsRead},
		{"Unread", testUnread},
		{"Rename", testRename},
		{"RenameRefuses", testRenameRefuses},
		{"Link", testLink},
		{"RenameOverLink", testRenameOverLink},
		{"LinkInSteps", testLinkInSteps},
		{"Remove", testRemove},
		{"RemoveOnCondition", testRemoveOnCondition},
		{"RenameOnCondition", testRenameOnCondition},
		{"RenameKeepsData", testRenameKeepsData},
		{"CreateSure", testCreateSure},
		{"Chunks", testChunks},
		{"ChunkIDs", testChunkIDs},
		{"KeepData", testKeepData},
		{"Watch", testWatch},
		{"Shares", testShares},
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
	made, err := v.Files.Create(t.Context(), p, e, false)
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
	sum := md5.Sum([]byte(data))
	e.Chunks, e.MD5 = []storage.Chunk{c}, sum[:]
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
	want(t, "remove the root", a.Files.Remove(t.Context(), "", root, nil), storage.InUse)
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
		_, err := a.Files.Create(t.Context(), p, newFile(0), false)
		want(t, fmt.Sprintf("create a file at %q", p), err, k)
		_, err = a.Files.Create(t.Context(), p, newDir(), false)
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
	remove(t, a, "f")
	_, err = a.Files.Update(t.Context(), "f", mine)
	want(t, "update of a missing entry", err, storage.NotFound)
	_, err = a.Files.Lookup(t.Context(), "f")
	want(t, "an update must not bring it back", err, storage.NotFound)
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
