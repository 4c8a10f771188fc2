package storagetest

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// The part of the volume suite that is about content, changes and space.

func testChunks(t *testing.T, a, b storage.Volume) {
	data := bytes.Repeat([]byte("compressible "), 1<<17)
	c, err := a.Chunks.Write(t.Context(), "f", data)
	if err != nil {
		t.Fatal(err)
	}
	if c.Size != int64(len(data)) || c.MD5 != nil {
		t.Errorf("chunk: %+v", c)
	}
	for range 20 {
		off := rand.IntN(len(data))
		n := 1 + rand.IntN(len(data)-off)
		got := make([]byte, n)
		if err := b.Chunks.Read(t.Context(), c, got, int64(off)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, data[off:off+n]) {
			t.Fatalf("%d bytes at %d differ", n, off)
		}
	}
	want(t, "read behind the end", b.Chunks.Read(t.Context(), c, make([]byte, 10), c.Size-5), storage.Corrupt)
}

// testChunkIDs: ids come back from an entry as they were given.
func testChunkIDs(t *testing.T, a, b storage.Volume) {
	f := newFile(0)
	var given []storage.ChunkID
	for i := range int64(40) {
		c, err := a.Chunks.Write(t.Context(), "f", []byte{byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(given, c.ID) {
			t.Fatalf("%s twice", c.ID)
		}
		c.Offset, c.Modified = i, 1
		f.Chunks, given = append(f.Chunks, c), append(given, c.ID)
	}
	f.Size = int64(len(given))
	create(t, a, "f", f)
	f = lookup(t, b, "f")
	if len(f.Chunks) != len(given) {
		t.Fatalf("%d chunks of %d", len(f.Chunks), len(given))
	}
	for _, c := range f.Chunks {
		got := make([]byte, 1)
		if err := b.Chunks.Read(t.Context(), c, got, 0); err != nil || int64(got[0]) != c.Offset {
			t.Errorf("%s at %d: %v, %v", c.ID, c.Offset, got, err)
		}
		if !slices.Contains(given, c.ID) {
			t.Errorf("%s came back, %v were given", c.ID, given)
		}
	}
}

func testKeepData(t *testing.T, a, b storage.Volume) {
	e := write(t, a, "f", "still read")
	held := storage.Orphan{Holder: "a node", ID: e.Inode}
	if err := a.Files.Remove(t.Context(), "f", e, &held); err != nil {
		t.Fatal(err)
	}
	wait(t, 1500*time.Millisecond)
	if read(t, b, e) != "still read" {
		t.Error("the content went with the name")
	}
	if found, err := b.Orphans.Orphans(t.Context(), "a node"); err != nil || !slices.Equal(found, []storage.Orphan{held}) {
		t.Errorf("orphans: %v, %v", found, err)
	}
	for range 2 {
		if err := a.Orphans.FreeOrphan(t.Context(), held); err != nil {
			t.Error(err)
		}
	}
	// Chunks that no entry has are freed by themselves.
	c, err := a.Chunks.Write(t.Context(), "g", []byte("unused"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.Chunks.Delete(t.Context(), []storage.ChunkID{c.ID}); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
}

func testWatch(t *testing.T, a, b storage.Volume) {
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	events, ready, done := make(chan storage.Event, 100), make(chan struct{}), make(chan error, 1)
	go func() { done <- b.Watcher.Watch(ctx, func() { close(ready) }, func(e storage.Event) { events <- e }) }()
	select {
	case <-ready:
	case <-ctx.Done():
		t.Fatal("never ready")
	}
	create(t, b, "own", newFile(0)) // not told
	f := create(t, a, "f", newFile(0))
	f.Mode = 0o600
	if _, err := a.Files.Update(ctx, "f", f); err != nil {
		t.Fatal(err)
	}
	if err := rename(t, a, "f", "g"); err != nil {
		t.Fatal(err)
	}
	remove(t, a, "g")
	steps := []struct{ old, next storage.Path }{{"", "f"}, {"f", "f"}, {"f", "g"}, {"g", ""}}
	for _, s := range steps {
		select {
		case e := <-events:
			var old, next storage.Path
			if e.Old != nil {
				old = e.Old.Path
			}
			if e.New != nil {
				next = e.New.Path
			}
			if old != s.old || next != s.next {
				t.Errorf("event %q to %q, want %q to %q", old, next, s.old, s.next)
			}
		case <-ctx.Done():
			t.Fatalf("no event for %q to %q", s.old, s.next)
		}
	}
	stop()
	if err := <-done; err == nil {
		t.Error("Watch returned no error")
	}
}

func testUsage(t *testing.T, a, _ storage.Volume) {
	t.Parallel() // the real store counts once a minute
	u, err := a.Meter.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if u.Capacity <= 0 || u.Used < 0 {
		t.Errorf("usage %+v", u)
	}
	write(t, a, "f", string(bytes.Repeat([]byte{'x', 0, 0xff, 7}, 1<<18)))
	deadline := time.Now().Add(3 * time.Minute)
	for {
		now, err := a.Meter.Usage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if now.Used > u.Used {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("usage stays %+v after a write of 1 MiB", now)
		}
		wait(t, 200*time.Millisecond)
	}
}

func testCancelled(t *testing.T, a, _ storage.Volume) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Files.Lookup(ctx, ""); !storage.IsContext(err) {
		t.Errorf("cancelled look-up: %v", err)
	}
	if _, err := a.Chunks.Write(ctx, "f", []byte("x")); !storage.IsContext(err) {
		t.Errorf("cancelled write: %v", err)
	}
}
