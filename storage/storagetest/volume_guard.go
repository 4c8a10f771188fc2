package storagetest

import (
	"context"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// Gate is a storage.Guard that a test opens and closes.
type Gate struct {
	mu     sync.Mutex
	closed bool
	asked  int
}

var _ storage.Guard = (*Gate)(nil)

// Allow implements storage.Guard.
func (g *Gate) Allow(context.Context) (time.Time, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked++
	if g.closed {
		return time.Time{}, storage.Errorf(storage.Stale, "the gate is closed")
	}
	return time.Now().Add(time.Minute), nil
}

// since returns how often it was asked since the last call.
func (g *Gate) since() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.asked
	g.asked = 0
	return n
}

func (g *Gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

// Guarded is the suite of an adapter's changes under a guard: each asks it, none is
// made that it refuses, and reading asks nobody. open gives two clients of one new,
// empty bucket, the first under the gate.
func Guarded(t *testing.T, open func(t *testing.T, g *Gate) (a, b storage.Volume)) {
	g := &Gate{}
	a, b := open(t, g)
	ctx := t.Context()
	f, other := write(t, a, "f", "content"), write(t, a, "other", "content")
	dir := create(t, a, "dir", newDir())
	must(t, "begin a link", func() error {
		linked, err := a.Files.BeginLink(ctx, "other", other, "op")
		if err == nil {
			other, err = a.Files.CancelLink(ctx, "other", linked, "op")
		}
		return err
	}())
	held := write(t, a, "held", "content")
	orphan := storage.Orphan{Holder: "node.x", ID: 7}
	must(t, "remove to an orphan", a.Files.Remove(ctx, "held", held, &orphan))
	if g.since() < 8 {
		t.Error("changes were made without the guard")
	}
	list := func() []storage.Entry {
		all, err := b.Files.List(ctx, "", "", 100)
		must(t, "list", err)
		for i := range all {
			all[i].Origin = nil
			for j := range all[i].Chunks {
				all[i].Chunks[j].Origin = nil
			}
		}
		return all
	}
	before := list()
	g.close()
	for what, change := range map[string]func() error{
		"create":      func() error { _, err := a.Files.Create(ctx, "new", newFile(0), true); return err },
		"update":      func() error { _, err := a.Files.Update(ctx, "f", f); return err },
		"rename":      func() error { return a.Files.Rename(ctx, "f", "g", f, nil, nil) },
		"replace":     func() error { return a.Files.Rename(ctx, "f", "other", f, &other, nil) },
		"move":        func() error { return a.Files.Rename(ctx, "dir", "dir2", dir, nil, nil) },
		"remove":      func() error { return a.Files.Remove(ctx, "f", f, nil) },
		"rmdir":       func() error { return a.Files.Remove(ctx, "dir", dir, nil) },
		"begin link":  func() error { _, err := a.Files.BeginLink(ctx, "f", f, "op2"); return err },
		"end link":    func() error { _, err := a.Files.EndLink(ctx, "f", "h", f, "op2"); return err },
		"free orphan": func() error { return a.Orphans.FreeOrphan(ctx, orphan) },
		"upload":      func() error { _, err := a.Chunks.Write(ctx, "f", []byte("more")); return err },
		"free chunk":  func() error { return a.Chunks.Delete(ctx, []storage.ChunkID{f.Chunks[0].ID}) },
	} {
		err := change()
		// What is refused anyway may be so before the guard is asked.
		if what == "end link" && storage.Is(err, storage.Changed) {
			continue
		}
		wantKind(t, what, err, storage.Stale)
	}
	if after := list(); !reflect.DeepEqual(after, before) {
		t.Errorf("the bucket holds %+v\nwant %+v", after, before)
	}
	got := make([]byte, 7)
	must(t, "read the chunk that was to be freed", b.Chunks.Read(ctx, f.Chunks[0], got, 0))
	left, err := b.Orphans.Orphans(ctx, orphan.Holder)
	if err != nil || len(left) != 1 {
		t.Errorf("orphans = %v, %v", left, err)
	}
	g.since()
	_, err = a.Files.Lookup(ctx, "f")
	must(t, "look up", err)
	_, err = a.Files.List(ctx, "", "", 100)
	must(t, "list", err)
	must(t, "read", a.Chunks.Read(ctx, f.Chunks[0], got, 0))
	if n := g.since(); n != 0 {
		t.Errorf("reading asked the guard %d times", n)
	}
}
