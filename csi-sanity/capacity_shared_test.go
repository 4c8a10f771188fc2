package csisanity

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Two nodes write into one volume: each is refused what does not fit beside all that
// the other has committed. So together they pass the limit by what one of them had
// written and not committed, and by nothing once that is in the cluster.
func TestVolumeFullFromTwoNodes(t *testing.T) {
	// Alone: a program that another test starts has a copy of our open files for a
	// moment, and closing that commits.
	in := beginAlone(t)
	in.up(t)
	b := startNode(t, in, "node-b")
	const size = 64 * mebibyte
	v := in.create(t, volumeName(t), "--size", "64Mi", "--access", "shared")
	dirs := []string{v.mount(t)}
	id := v.describe(t).ID
	if err := b.stage(t, id); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.unstage(context.WithoutCancel(t.Context()), id); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	dirs = append(dirs, b.publish(t, id, "pod", false))
	usedIs := func(want int64) {
		t.Helper()
		eventually(t, 30*time.Second, func() error {
			for _, dir := range dirs {
				var st syscall.Statfs_t
				if err := syscall.Statfs(dir, &st); err != nil {
					return err
				}
				used, free := int64(st.Blocks-st.Bfree)*st.Frsize, int64(st.Bavail)*st.Frsize
				// df shows no more than the size.
				if used != min(want, size) || free != max(0, size-want) {
					return fmt.Errorf("%s: df has %d used and %d free of %d, want %d used", dir, used, free, size, want)
				}
			}
			return nil
		})
	}

	// 40 MiB that are written and not committed are not seen by the other node.
	const uncommitted = 40 * mebibyte
	first, second := newFiller(t, filepath.Join(dirs[0], "first")), newFiller(t, filepath.Join(dirs[1], "second"))
	if _, err := first.file.Write(make([]byte, uncommitted)); err != nil {
		t.Fatal(err)
	}
	second.fill(t)
	if second.at != size {
		t.Errorf("%d bytes fit beside what is not committed, want %d", second.at, size)
	}
	for _, f := range []*filler{second, first} {
		if err := f.file.Sync(); err != nil {
			t.Errorf("fsync of what was acknowledged: %v", err)
		}
	}
	// Then nothing fits, in either.
	usedIs(size + uncommitted)
	for i, dir := range dirs {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("more-%d", i)), []byte("x"), 0o600); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("a byte more on node %d: %v, want ENOSPC", i, err)
		}
	}
	for _, f := range []*filler{first, second} {
		if err := errors.Join(f.file.Truncate(0), f.file.Sync()); err != nil {
			t.Fatal(err)
		}
	}
	usedIs(0)

	// Both write on and on, and commit each MiB.
	var all sync.WaitGroup
	var wrote [2]int64
	for i, dir := range dirs {
		all.Go(func() {
			block := []byte(strings.Repeat("holdfast", mebibyte/8))
			for n := range 4 * size / mebibyte {
				err := writeFlushed(filepath.Join(dir, fmt.Sprintf("%d-%d", i, n)), block)
				if errors.Is(err, syscall.ENOSPC) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				wrote[i] += mebibyte
			}
			t.Errorf("node %d is never refused", i)
		})
	}
	all.Wait()
	over := wrote[0] + wrote[1] - size
	t.Logf("%d and %d MiB, %d bytes more than the volume's size", wrote[0]/mebibyte, wrote[1]/mebibyte, over)
	// One MiB of the other's that is not committed, and what it commits until the
	// stream of changes has told of it: milliseconds, and more where all is slow.
	if over < -2*mebibyte || over > 8*mebibyte {
		t.Errorf("two nodes wrote %d bytes into a volume of %d", wrote[0]+wrote[1], size)
	}
}
