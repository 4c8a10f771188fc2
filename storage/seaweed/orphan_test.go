package seaweed_test

import (
	"path"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed"
)

// TestFreeHeld: what dead mounts held goes with the volume, to the last folder, and
// what somebody else has put there does not.
func TestFreeHeld(t *testing.T) {
	for _, planted := range []bool{false, true} {
		name, _ := newBucket(t)
		c, id := open(t), storage.VolumeID(name)
		v := c.Volume(name, id)
		dir := path.Join(seaweed.OrphansDir, string(name))
		if kept, err := c.FreeHeld(t.Context(), id); err != nil || len(kept) > 0 { // nothing was held
			t.Errorf("kept %q, %v", kept, err)
		}
		var chunks []storage.Chunk
		for i, holder := range []string{"one.x", "two.y", "two.y"} {
			now := time.Now()
			chunk, err := v.Chunks.Write(t.Context(), "f", []byte("held"))
			if err != nil {
				t.Fatal(err)
			}
			e, err := v.Files.Create(t.Context(), "f", storage.Entry{Mode: 0o600, Native: true, Inode: uint64(now.UnixNano()), Mtime: now, Size: 4, Chunks: []storage.Chunk{chunk}}, false)
			if err != nil {
				t.Fatal(err)
			}
			if err := v.Files.Remove(t.Context(), "f", e, &storage.Orphan{Holder: holder, ID: uint64(i)}); err != nil {
				t.Fatal(err)
			}
			chunks = append(chunks, chunk)
		}
		if err := v.Orphans.FreeOrphan(t.Context(), storage.Orphan{Holder: "one.x", ID: 0}); err != nil { // its folder stays, empty
			t.Fatal(err)
		}
		want := []string(nil)
		if planted {
			for _, at := range []string{"", "two.y", "mine/deep"} {
				if err := c.PutFile(t.Context(), path.Join(dir, at), "notes"); err != nil {
					t.Fatal(err)
				}
			}
			want = []string{path.Join(dir, "mine/deep"), path.Join(dir, "notes"), path.Join(dir, "two.y/notes")}
		}
		for range 2 {
			kept, err := c.FreeHeld(t.Context(), id)
			if slices.Sort(kept); err != nil || !slices.Equal(kept, want) {
				t.Errorf("planted %v: kept %q, %v, want %q", planted, kept, err, want)
			}
		}
		names, err := c.Names(t.Context(), seaweed.OrphansDir)
		if err != nil || slices.Contains(names, string(name)) != planted {
			t.Errorf("planted %v: there is %q, %v", planted, names, err)
		}
		if planted {
			for at, want := range map[string][]string{"": {"mine", "notes", "two.y"}, "two.y": {"notes"}, "mine/deep": {"notes"}} {
				if names, err := c.Names(t.Context(), path.Join(dir, at)); err != nil || !slices.Equal(names, want) {
					t.Errorf("%q has %q, %v, want %q", at, names, err, want)
				}
			}
		}
		for _, chunk := range chunks {
			tick := time.NewTicker(100 * time.Millisecond)
			for end := time.Now().Add(30 * time.Second); ; <-tick.C { // the filer frees chunks by and by
				freed, err := c.Freed(t.Context(), chunk.ID)
				if freed {
					break
				}
				if err != nil || time.Now().After(end) {
					t.Fatalf("planted %v: chunk %s is not freed: %v", planted, chunk.ID, err)
				}
			}
			tick.Stop()
		}
		if _, err := v.Files.Lookup(t.Context(), ""); err != nil {
			t.Errorf("the bucket: %v", err)
		}
	}
	for _, id := range []storage.VolumeID{"", ".", "..", "a/b"} {
		if _, err := open(t).FreeHeld(t.Context(), id); !storage.Is(err, storage.Invalid) {
			t.Errorf("%q: %v", id, err)
		}
	}
}
