package storage_test

import (
	"fmt"
	"io/fs"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// TestExceeds: what lies in a volume is counted once, and no further than it must be.
func TestExceeds(t *testing.T) {
	files := memory.NewBucket(1 << 30).Volume().Files
	for i := range 3 {
		dir := storage.Path(fmt.Sprintf("d%d", i))
		for _, e := range []struct {
			path storage.Path
			of   storage.Entry
		}{
			{dir, storage.Entry{Mode: fs.ModeDir | 0o755, Inode: uint64(10*i + 1)}},
			{dir.Join("f"), storage.Entry{Mode: 0o644, Inode: uint64(10*i + 2), Size: 1000, Inline: make([]byte, 1000)}},
		} {
			if _, err := files.Create(t.Context(), e.path, e.of, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	for most, want := range map[int64]bool{0: true, 2999: true, 3000: false, 1 << 40: false} {
		if got, err := storage.Exceeds(t.Context(), files, most); err != nil || got != want {
			t.Errorf("more than %d: %v, %v", most, got, err)
		}
	}
}
