package storagetest

import (
	"crypto/md5" //nolint:gosec // S3's sum
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// The part of the volume suite that is about names: moved, linked, removed.

func testRename(t *testing.T, a, b storage.Volume) {
	create(t, a, "d", newDir())
	create(t, a, "d/sub", newDir())
	f := write(t, a, "d/sub/f", "content")
	if err := rename(t, a, "d", "e"); err != nil {
		t.Fatal(err)
	}
	_, err := b.Files.Lookup(t.Context(), "d/sub/f")
	want(t, "the old name", err, storage.NotFound)
	got := lookup(t, b, "e/sub/f")
	if got.Inode != f.Inode || read(t, b, got) != "content" {
		t.Errorf("moved file: %+v", got)
	}
	write(t, a, "target", "old")
	if err := rename(t, a, "e/sub/f", "target"); err != nil {
		t.Fatal(err)
	}
	if got := lookup(t, b, "target"); read(t, b, got) != "content" {
		t.Error("the replaced file kept its content")
	}
	create(t, a, "empty", newDir())
	if err := rename(t, a, "e", "empty"); err != nil {
		t.Errorf("directory over an empty one: %v", err)
	}
	lookup(t, b, "empty/sub")
	if err := rename(t, a, "target", "target"); err != nil {
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
		want(t, fmt.Sprintf("rename %q to %q", tt.from, tt.to), rename(t, a, tt.from, tt.to), tt.kind)
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
	g, err := link(t, a, "f", "d/g")
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
	_, err = link(t, a, "f", "d/g")
	want(t, "link to a taken name", err, storage.Exists)
	_, err = link(t, a, "d", "e")
	want(t, "link to a directory", err, storage.NotPermitted)
	_, err = link(t, a, "missing", "e")
	want(t, "link to nothing", err, storage.NotFound)
	if f := lookup(t, b, "f"); f.Links != 2 {
		t.Errorf("a refused link counted: %d", f.Links)
	}
	remove(t, a, "f")
	if g := lookup(t, b, "d/g"); g.Links != 1 || read(t, b, g) != "changed" {
		t.Errorf("the other name after a removal: %+v", g)
	}
}

func testRenameOverLink(t *testing.T, a, b storage.Volume) {
	write(t, a, "f", "must stay")
	if _, err := link(t, a, "f", "g"); err != nil {
		t.Fatal(err)
	}
	if err := rename(t, a, "f", "g"); err != nil {
		t.Errorf("rename between two names of one file: %v", err)
	}
	lookup(t, b, "f")
	write(t, a, "new", "new")
	if err := rename(t, a, "new", "g"); err != nil {
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

func testLinkInSteps(t *testing.T, a, b storage.Volume) {
	stale := write(t, a, "f", "shared")
	if _, err := a.Files.BeginLink(t.Context(), "f", stale, "one"); err != nil {
		t.Fatal(err)
	}
	_, err := b.Files.BeginLink(t.Context(), "f", stale, "two")
	want(t, "begin a link of what has changed", err, storage.Changed)
	if now := lookup(t, b, "f"); now.Links != 2 || !slices.Equal(now.Linking, []string{"one"}) {
		t.Errorf("begun: %d links, %q", now.Links, now.Linking)
	}
	// Another one is begun, and the file is changed: neither is lost.
	f, err := b.Files.BeginLink(t.Context(), "f", lookup(t, b, "f"), "two")
	if err != nil {
		t.Fatal(err)
	}
	f.Mode = 0o600
	if _, err := b.Files.Update(t.Context(), "f", f); err != nil {
		t.Fatal(err)
	}
	g, err := a.Files.EndLink(t.Context(), "f", "g", f, "one")
	if err != nil {
		t.Fatal(err)
	}
	if g.Name != "g" || g.Links != 3 || g.Mode != 0o600 || !slices.Equal(g.Linking, []string{"two"}) {
		t.Errorf("ended: %+v", g)
	}
	_, err = a.Files.EndLink(t.Context(), "f", "h", g, "one")
	want(t, "end it again", err, storage.Changed)
	_, err = b.Files.EndLink(t.Context(), "f", "missing/h", g, "two")
	want(t, "end it below nothing", err, storage.NotFound)
	_, err = b.Files.EndLink(t.Context(), "f", "g/h", g, "two")
	want(t, "end it below a file", err, storage.NotDirectory)
	_, err = b.Files.EndLink(t.Context(), "f", "g", g, "two")
	want(t, "end it at a taken name", err, storage.Exists)
	for range 2 { // once more does nothing
		f, err = b.Files.CancelLink(t.Context(), "f", lookup(t, b, "f"), "two")
		if err != nil || f.Links != 2 || len(f.Linking) != 0 {
			t.Errorf("cancelled: %d links, %q, %v", f.Links, f.Linking, err)
		}
	}
	if g := lookup(t, a, "g"); g.Links != 2 || read(t, a, g) != "shared" {
		t.Errorf("the other name: %+v", g)
	}
}

func testRemove(t *testing.T, a, _ storage.Volume) {
	d := create(t, a, "d", newDir())
	write(t, a, "d/f", "x")
	want(t, "remove a full directory", a.Files.Remove(t.Context(), "d", d, nil), storage.NotEmpty)
	for _, p := range []storage.Path{"d/f", "d"} {
		e := lookup(t, a, p)
		remove(t, a, p)
		want(t, "remove again", a.Files.Remove(t.Context(), p, e, nil), storage.NotFound)
	}
}

func testRemoveOnCondition(t *testing.T, a, b storage.Volume) {
	was := write(t, a, "f", "x")
	theirs := lookup(t, b, "f")
	theirs.Mode = 0o600
	if _, err := b.Files.Update(t.Context(), "f", theirs); err != nil {
		t.Fatal(err)
	}
	want(t, "remove what has changed", a.Files.Remove(t.Context(), "f", was, nil), storage.Changed)
	was = lookup(t, a, "f")
	remove(t, b, "f")
	write(t, b, "f", "theirs")
	want(t, "remove what was replaced", a.Files.Remove(t.Context(), "f", was, nil), storage.Changed)
	if got := read(t, a, lookup(t, a, "f")); got != "theirs" {
		t.Errorf("read %q", got)
	}
	removeSmallOnCondition(t, a, b)
	// A directory goes by its own entry, not by what is in it.
	d := create(t, a, "d", newDir())
	write(t, b, "d/f", "x")
	remove(t, b, "d/f")
	if err := a.Files.Remove(t.Context(), "d", d, nil); err != nil {
		t.Errorf("remove a directory that was used meanwhile: %v", err)
	}
	// One name of a file that was read by another one.
	write(t, a, "g", "linked")
	if _, err := link(t, a, "g", "h"); err != nil {
		t.Fatal(err)
	}
	e := lookup(t, a, "g")
	if err := a.Files.Remove(t.Context(), "h", e, nil); err != nil {
		t.Errorf("remove a name of a file that was read by another one: %v", err)
	}
	if g := lookup(t, b, "g"); g.Links != 1 || read(t, b, g) != "linked" {
		t.Errorf("the name that stays: %+v", g)
	}
}

// removeSmallOnCondition: a file whose content stands in its entry goes by that
// content, but where it is held for those who have it open.
func removeSmallOnCondition(t *testing.T, a, b storage.Volume) {
	t.Helper()
	small := func(content string) storage.Entry {
		e := newFile(int64(len(content)))
		sum := md5.Sum([]byte(content)) //nolint:gosec // S3's sum, not a secret
		e.Inline, e.MD5 = []byte(content), sum[:]
		return e
	}
	was := create(t, a, "small", small("ours"))
	remove(t, b, "small")
	create(t, b, "small", small("theirs"))
	want(t, "remove a small file that was replaced", a.Files.Remove(t.Context(), "small", was, nil), storage.Changed)
	was = lookup(t, a, "small")
	now := was
	now.Mode = 0o600
	if _, err := b.Files.Update(t.Context(), "small", now); err != nil {
		t.Fatal(err)
	}
	held := storage.Orphan{Holder: "h", ID: was.Inode}
	want(t, "hold a small file that has changed", a.Files.Remove(t.Context(), "small", was, &held), storage.Changed)
	remove(t, b, "small")
	create(t, b, "small", newDir())
	want(t, "remove a small file that is a directory by now", a.Files.Remove(t.Context(), "small", was, nil), storage.Changed)
	remove(t, b, "small")
	was = create(t, a, "small", small("gone"))
	if err := a.Files.Remove(t.Context(), "small", was, nil); err != nil {
		t.Errorf("remove a small file: %v", err)
	}
	want(t, "remove it again", a.Files.Remove(t.Context(), "small", was, nil), storage.NotFound)
}

func testRenameOnCondition(t *testing.T, a, b storage.Volume) {
	f, g := write(t, a, "f", "f"), write(t, a, "g", "g")
	move := func(source storage.Entry, target *storage.Entry) error {
		return a.Files.Rename(t.Context(), "f", "g", source, target, nil)
	}
	touch := func(p storage.Path) storage.Entry {
		was := lookup(t, b, p)
		next := was
		next.UID++
		if _, err := b.Files.Update(t.Context(), p, next); err != nil {
			t.Fatal(err)
		}
		return was
	}
	want(t, "a target that nobody knew of", move(f, nil), storage.Changed)
	f = touch("f")
	want(t, "a source that has changed", move(f, &g), storage.Changed)
	f = lookup(t, a, "f")
	g = touch("g")
	want(t, "a target that has changed", move(f, &g), storage.Changed)
	g = lookup(t, a, "g")
	remove(t, b, "g")
	want(t, "a target that is gone", move(f, &g), storage.Changed)
	remove(t, b, "f")
	want(t, "a source that is gone", move(f, nil), storage.NotFound)
	if _, err := b.Files.Lookup(t.Context(), "g"); !storage.Is(err, storage.NotFound) {
		t.Errorf("a refused rename made its target: %v", err)
	}
}

// testRenameKeepsData: who has the replaced file open reads on.
func testRenameKeepsData(t *testing.T, a, b storage.Volume) {
	source := write(t, a, "f", "new")
	target := write(t, a, "g", "must stay")
	held := storage.Orphan{Holder: "a node", ID: 7}
	if err := a.Files.Rename(t.Context(), "f", "g", source, &target, &held); err != nil {
		t.Fatal(err)
	}
	_, err := b.Files.Lookup(t.Context(), "f")
	want(t, "the old name", err, storage.NotFound)
	if g := lookup(t, b, "g"); g.Inode != source.Inode || read(t, b, g) != "new" {
		t.Errorf("the new name: %+v", g)
	}
	// A hard link in the place of a file: its count stays.
	if _, err := link(t, a, "g", "h"); err != nil {
		t.Fatal(err)
	}
	source, plain := lookup(t, a, "h"), write(t, a, "i", "must stay too")
	if err := a.Files.Rename(t.Context(), "h", "i", source, &plain, &storage.Orphan{Holder: "a node", ID: 8}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []storage.Path{"g", "i"} {
		if e := lookup(t, b, p); e.Links != 2 || e.LinkID != source.LinkID || read(t, b, e) != "new" {
			t.Errorf("%q of two names: %+v", p, e)
		}
	}
	wait(t, 1500*time.Millisecond) // the store frees chunks in the background
	if read(t, b, target) != "must stay" || read(t, b, plain) != "must stay too" {
		t.Error("a replaced file lost its content")
	}
	found, err := b.Orphans.Orphans(t.Context(), "a node")
	if err != nil || len(found) != 2 {
		t.Errorf("orphans: %v, %v", found, err)
	}
	if holders, err := b.Orphans.Holders(t.Context()); err != nil || !slices.Equal(holders, []string{"a node"}) {
		t.Errorf("holders: %q, %v", holders, err)
	}
	for range 2 {
		for _, o := range found {
			if err := b.Orphans.FreeOrphan(t.Context(), o); err != nil {
				t.Error(err)
			}
		}
	}
	if found, err := a.Orphans.Orphans(t.Context(), "a node"); err != nil || len(found) != 0 {
		t.Errorf("orphans that were freed: %v, %v", found, err)
	}
}

func testCreateSure(t *testing.T, a, b storage.Volume) {
	create(t, a, "d", newDir())
	if _, err := a.Files.Create(t.Context(), "d/f", newFile(0), true); err != nil {
		t.Fatal(err)
	}
	lookup(t, b, "d/f")
	_, err := a.Files.Create(t.Context(), "d/f", newFile(0), true)
	want(t, "create what exists", err, storage.Exists)
}

// remove takes a name away as it is now.
func remove(t *testing.T, v storage.Volume, p storage.Path) {
	t.Helper()
	if err := v.Files.Remove(t.Context(), p, lookup(t, v, p), nil); err != nil {
		t.Fatalf("remove %q: %v", p, err)
	}
}

// rename moves a name as both are now.
func rename(t *testing.T, v storage.Volume, from, to storage.Path) error {
	t.Helper()
	source, err := v.Files.Lookup(t.Context(), from)
	if err != nil {
		return err
	}
	var target *storage.Entry
	if e, err := v.Files.Lookup(t.Context(), to); err == nil {
		target = &e
	} else if !storage.Is(err, storage.NotFound) {
		return err
	}
	return v.Files.Rename(t.Context(), from, to, source, target, nil)
}

// link makes a hard link, all steps of it.
func link(t *testing.T, v storage.Volume, from, to storage.Path) (storage.Entry, error) {
	t.Helper()
	const op = "the suite's"
	e, err := v.Files.Lookup(t.Context(), from)
	if err != nil {
		return e, err
	}
	if e, err = v.Files.BeginLink(t.Context(), from, e, op); err != nil {
		return e, err
	}
	made, err := v.Files.EndLink(t.Context(), from, to, e, op)
	if err != nil {
		if _, undo := v.Files.CancelLink(t.Context(), from, e, op); undo != nil {
			t.Errorf("cancel the link %q to %q: %v", to, from, undo)
		}
	}
	return made, err
}
