package fuse

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/fuse/leftovers"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// TestLeftoversAreKept: what was written to a file that somebody else replaced is
// kept on the node, whether the mounter dies or not, and neither a new session
// nor the end of the volume removes it.
func TestLeftoversAreKept(t *testing.T) {
	for _, how := range []string{"close", "noticed", "unmount", "die", "streamed"} {
		t.Run(how, func(t *testing.T) {
			bucket := memory.NewBucket(1 << 30)
			a, b := begin(t, bucket.Volume()), mount(t, bucket.Volume())
			dir := a.fs.opts.Dir
			id, st := a.create(1, "f")
			a.ok("create", st)
			want := []byte("\x00\x00\x00\x00mine")
			a.ok("write", a.write(id, want[4:], 4))
			if how == "streamed" {
				want = append(want, streamed(3*storage.ChunkSize)...)
				for at := 8; at < len(want); at += 128 << 10 {
					a.ok("write", a.write(id, want[at:min(at+128<<10, len(want))], int64(at)))
				}
			}
			other, st := b.create(1, "g")
			b.ok("create", st)
			b.ok("write", b.write(other, []byte("theirs"), 0))
			b.ok("close", b.close(other))
			b.ok("rename", b.fs.Rename(nil, &gofuse.RenameIn{InHeader: header(1), Newdir: 1}, "g", "f"))
			switch how {
			case "close", "noticed", "streamed":
				if how == "noticed" { // before the close
					if now, st := a.lookup(1, "f"); !st.Ok() || now == id {
						t.Errorf("look-up of the other file: %v, node %d", st, now)
					}
				}
				if st := a.close(id); st != gofuse.Status(errnos[storage.Stale]) {
					t.Errorf("close: %v", st)
				}
				if !a.fs.sweep(t.Context()) {
					t.Error("something waits still")
				}
			case "unmount":
			case "die":
				a = a.crash(true)
				if !a.fs.sweep(t.Context()) {
					t.Error("something waits still")
				}
			}
			if err := a.fs.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := a.fs.Retire(); !storage.Is(err, storage.InUse) {
				t.Errorf("the folder is retired: %v", err)
			}
			// A new session takes the folder over, and leaves them alone.
			next := New(bucket.Volume(), Options{Dir: dir, Fresh: true})
			if err := next.Recover(); err != nil {
				t.Fatal(err)
			}
			next.Start(silent{})
			if err := next.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := next.Retire(); !storage.Is(err, storage.InUse) {
				t.Errorf("the folder is retired: %v", err)
			}
			checkLeftover(t, filepath.Join(dir, leftovers.Dir), want)
			e, err := bucket.Volume().Files.Lookup(t.Context(), "f")
			if err != nil || string(e.Inline) != "theirs" {
				t.Errorf("the other file holds %q, %v", e.Inline, err)
			}
			checkChunks(t, bucket, "f")
		})
	}
}

func checkLeftover(t *testing.T, dir string, want []byte) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, f := range files {
		names = append(names, f.Name())
	}
	if len(names) != 2 || names[1] != names[0]+".json" {
		t.Fatalf("leftovers: %q", names)
	}
	got, err := os.ReadFile(filepath.Join(dir, names[0]))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes are kept, want %d, %v", len(got), len(want), err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, names[1]))
	if err != nil {
		t.Fatal(err)
	}
	var about leftover
	if err := json.Unmarshal(raw, &about); err != nil {
		t.Fatal(err)
	}
	if about.Path != "f" || about.Size != int64(len(want)) || about.Time.IsZero() ||
		!slices.Equal(about.Written, [][2]int64{{4, int64(len(want))}}) || about.Reason == "" {
		t.Errorf("described as %+v", about)
	}
}
