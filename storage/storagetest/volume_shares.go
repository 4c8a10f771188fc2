package storagetest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// shares is what a watcher sums up.
type shares struct {
	mu   sync.Mutex
	sum  int64
	told []storage.Event
}

func (s *shares) take(ev storage.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, ev)
	var was, now *storage.Share
	if ev.Old != nil {
		was = &ev.Old.Share
	}
	if ev.New != nil {
		now = &ev.New.Share
	}
	if was == nil || now == nil || ev.Old.Path == ev.New.Path { // else it was moved
		s.sum += storage.Change(was, now)
	}
}

// follow sums up what v is told of.
func follow(t *testing.T, v storage.Volume) *shares {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	s, ready, done := &shares{}, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		_ = v.Watcher.Watch(ctx, sync.OnceFunc(func() { close(ready) }), s.take)
	}()
	t.Cleanup(func() { stop(); <-done })
	select {
	case <-ready:
	case <-time.After(30 * time.Second):
		t.Fatal("never ready")
	}
	return s
}

// taken surveys a volume.
func taken(t *testing.T, v storage.Volume) int64 {
	t.Helper()
	sum, links := int64(0), []string{}
	err := storage.Survey(t.Context(), v.Files, func(_ storage.Path, s storage.Share) {
		if s.LinkID != "" && slices.Contains(links, s.LinkID) {
			return
		}
		links = append(links, s.LinkID)
		sum += s.Held
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// testShares: what a volume takes can be followed by differences. They are told of
// all that others do, and of nothing that is done through the same volume.
func testShares(t *testing.T, a, b storage.Volume) {
	own, others := follow(t, a), follow(t, b)
	is := func(what string, want int64) {
		t.Helper()
		if got := taken(t, a); got != want {
			t.Errorf("%s: the volume takes %d bytes, want %d", what, got, want)
		}
		deadline := time.Now().Add(20 * time.Second)
		for {
			others.mu.Lock()
			sum, told := others.sum, len(others.told)
			others.mu.Unlock()
			if sum == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d events say %d bytes, want %d", what, told, sum, want)
			}
			wait(t, 5*time.Millisecond)
		}
	}
	f := write(t, a, "f", "twelve bytes")
	if f.Held != 12 || lookup(t, b, "f").Held != 12 {
		t.Errorf("%d bytes are held", f.Held)
	}
	is("a file", 12)
	c, err := a.Chunks.Write(t.Context(), "f", make([]byte, 100))
	if err != nil {
		t.Fatal(err)
	}
	c.Offset, c.Modified = 6, storage.NextModified(f.Chunks)
	f.Chunks, f.Size, f.MD5 = append(f.Chunks, c), 1000, nil
	if f, err = a.Files.Update(t.Context(), "f", f); err != nil || f.Held != 106 {
		t.Fatalf("update: %d bytes are held, %v", f.Held, err)
	}
	is("overlapping chunks, and a hole", 106)
	small := newFile(5)
	small.Inline = []byte("small")
	create(t, a, "s", small)
	is("an inline file", 111)
	replace(t, a, "s", "f", nil)
	is("renamed over another", 5)
	link := func(from, to storage.Path) {
		t.Helper()
		begun, err := a.Files.BeginLink(t.Context(), from, lookup(t, a, from), string(to))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Files.EndLink(t.Context(), from, to, begun, string(to)); err != nil {
			t.Fatal(err)
		}
	}
	link("f", "l")
	link("l", "m")
	is("three names", 5)
	remove(t, a, "f")
	is("two names", 5)
	write(t, a, "g", "seven b")
	replace(t, a, "g", "l", nil)
	is("renamed over one of two names", 12)
	l := lookup(t, a, "m")
	l.Inline, l.Size, l.MD5 = []byte("0123456789"), 10, nil
	if _, err := a.Files.Update(t.Context(), "m", l); err != nil {
		t.Fatal(err)
	}
	is("a name that is left of several", 17)
	replace(t, a, "l", "m", nil)
	is("renamed over the last name", 7)
	create(t, a, "d", newDir())
	create(t, a, "d/e", newDir())
	write(t, a, "d/e/x", "xx")
	write(t, a, "d/y", "yyy")
	is("files in directories", 12)
	replace(t, a, "d", "other", nil)
	is("a directory renamed", 12)
	write(t, a, "z", "zzzz")
	replace(t, a, "other/y", "z", &storage.Orphan{Holder: "h", ID: 1})
	is("renamed over an open file", 12)
	if err := a.Files.Remove(t.Context(), "z", lookup(t, a, "z"), &storage.Orphan{Holder: "h", ID: 2}); err != nil {
		t.Fatal(err)
	}
	is("an open file removed", 9)
	for id := range uint64(2) {
		if err := a.Orphans.FreeOrphan(t.Context(), storage.Orphan{Holder: "h", ID: id + 1}); err != nil {
			t.Fatal(err)
		}
	}
	remove(t, a, "m")
	remove(t, a, "other/e/x")
	is("all removed", 0)
	own.mu.Lock()
	defer own.mu.Unlock()
	for _, ev := range own.told {
		t.Errorf("told of what was done through the same volume: %+v %+v", ev.Old, ev.New)
	}
}

// replace renames over whatever is there.
func replace(t *testing.T, v storage.Volume, from, to storage.Path, orphan *storage.Orphan) {
	t.Helper()
	var target *storage.Entry
	if e, err := v.Files.Lookup(t.Context(), to); err == nil {
		target = &e
	}
	if err := v.Files.Rename(t.Context(), from, to, lookup(t, v, from), target, orphan); err != nil {
		t.Fatalf("rename %q to %q: %v", from, to, err)
	}
}
