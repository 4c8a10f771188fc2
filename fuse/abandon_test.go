package fuse

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-csi/holdfast/storage/memory"
)

// TestAbandonedAndTakenAgain: a session that cannot be served after all leaves no
// descriptor open, and all that waits to whoever tries again.
func TestAbandonedAndTakenAgain(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	c := begin(t, bucket.Volume())
	dir := c.fs.opts.Dir
	id, st := c.create(1, "f")
	c.ok("create", st)
	want := streamed(700 << 10)
	c.stream(id, want, 0)
	c = c.crash(false)
	c.fs.Leave()
	c.fs.running.Wait()
	if err := c.fs.Abandon(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		before := openIn(t, dir) // of those that a crash has left
		fs := New(bucket.Volume(), Options{Dir: dir})
		if err := fs.Recover(); err != nil {
			t.Fatal(err)
		}
		if openIn(t, dir) <= before {
			t.Error("nothing is open: this test sees nothing")
		}
		if err := fs.Abandon(); err != nil {
			t.Fatal(err)
		}
		if n := openIn(t, dir); n > before {
			t.Errorf("%d descriptors stay open, %d were before", n, before)
		}
	}
	next := New(bucket.Volume(), Options{Dir: dir})
	if err := next.Recover(); err != nil {
		t.Fatal(err)
	}
	next.Start(silent{})
	c = &caller{t, next}
	c.same("taken again", id, want)
	c.ok("close", c.close(id))
	c.end()
}

// openIn counts this process's descriptors of files in dir.
func openIn(t *testing.T, dir string) (n int) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, dir+"/") {
			n++
		}
	}
	return n
}
