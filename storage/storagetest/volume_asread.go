package storagetest

import (
	"fmt"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// testAsRead: however an entry came to be known, a condition on it holds as long
// as nobody changes it. One that fails for nothing costs two calls more, each
// time.
func testAsRead(t *testing.T, a, b storage.Volume) {
	for kind, fill := range map[string]func(p storage.Path, e *storage.Entry){
		"empty": func(storage.Path, *storage.Entry) {},
		"inline": func(_ storage.Path, e *storage.Entry) {
			e.Inline, e.Size = []byte("in the entry"), 12
		},
		"chunked": func(p storage.Path, e *storage.Entry) {
			c, err := a.Chunks.Write(t.Context(), p, []byte("a chunk"))
			if err != nil {
				t.Fatal(err)
			}
			c.Modified = 1
			e.Chunks, e.Size = []storage.Chunk{c}, c.Size
		},
	} {
		for how, know := range map[string]func(p storage.Path, updated storage.Entry) storage.Entry{
			"updated":   func(_ storage.Path, e storage.Entry) storage.Entry { return e },
			"looked up": func(p storage.Path, _ storage.Entry) storage.Entry { return lookup(t, b, p) },
			"listed": func(p storage.Path, _ storage.Entry) storage.Entry {
				dir, name := p.Split()
				page, err := b.Files.List(t.Context(), dir, "", 100)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range page {
					if e.Name == name {
						return e
					}
				}
				t.Fatalf("%q is not listed", p)
				return storage.Entry{}
			},
		} {
			p := storage.Path(fmt.Sprintf("%s, %s", kind, how))
			e := create(t, a, p, newFile(0))
			fill(p, &e)
			e, err := a.Files.Update(t.Context(), p, e)
			if err != nil {
				t.Fatal(err)
			}
			e = know(p, e)
			e.UID++
			if e, err = b.Files.Update(t.Context(), p, e); err != nil {
				t.Errorf("update of what is %s: %v", p, err)
				continue
			}
			if err := b.Files.Remove(t.Context(), p, know(p, e), nil); err != nil {
				t.Errorf("removal of what is %s: %v", p, err)
			}
		}
	}
}

// testUnread: what was not read is not changed: there is nothing to hold the change
// to.
func testUnread(t *testing.T, a, _ storage.Volume) {
	made := create(t, a, "f", newFile(0))
	e := made
	e.Origin = nil
	_, err := a.Files.Update(t.Context(), "f", e)
	wantKind(t, "update", err, storage.Invalid)
	wantKind(t, "removal", a.Files.Remove(t.Context(), "f", e, nil), storage.Invalid)
	wantKind(t, "rename", a.Files.Rename(t.Context(), "f", "g", e, nil, nil), storage.Invalid)
	_, err = a.Files.BeginLink(t.Context(), "f", e, "op")
	wantKind(t, "link", err, storage.Invalid)
	if now := lookup(t, a, "f"); now.Inode != made.Inode || len(now.Linking) > 0 {
		t.Errorf("it was changed: %+v", now)
	}
}
