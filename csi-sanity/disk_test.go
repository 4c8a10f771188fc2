package csisanity

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// onSmallDisk gives a test an installation whose folder is a disk of so many MiB.
func onSmallDisk(t *testing.T, mib int) *installation {
	t.Helper()
	in := begin(t)
	if err := os.Mkdir(in.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	options := fmt.Sprintf("size=%dm,mode=0755,uid=%d,gid=%d", mib, os.Getuid(), os.Getgid())
	mustRun(t, asRoot("mount", "-t", "tmpfs", "-o", options, "holdfast-test", in.dir))
	t.Cleanup(func() {
		if _, err := in.run(context.WithoutCancel(t.Context()), "down", "--delete-data", "--yes"); err != nil {
			t.Error(err)
		}
		mustRun(t, asRoot("umount", in.dir))
	})
	return in
}

// Without room from the start: it is said, and nothing is half-made.
func TestNoRoom(t *testing.T) {
	in := onSmallDisk(t, 64)
	out, err := in.run(t.Context(), in.upArgs()...)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.stderr, "little disk space") {
		t.Errorf("up does not say that there is no room: %q", out.stderr)
	}
	in.fails(t, []string{"volume", "create", "too-much", "--size", "1Gi"}, "no space left", in.dir)
	if list := in.must(t, "volume", "list"); strings.Contains(list, "too-much") {
		t.Errorf("a volume is half-made:\n%s", list)
	}
}

// A disk that fills up under the writers: ENOSPC, what was acknowledged stays, and
// with room again all goes on.
func TestDiskFillsUp(t *testing.T) {
	in := onSmallDisk(t, 1200)
	in.up(t)
	v := in.create(t, volumeName(t))
	dir := v.mount(t)
	const content = "written while there was room"
	if err := os.WriteFile(filepath.Join(dir, "before"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	fill := filepath.Join(in.dir, "fill")
	var st syscall.Statfs_t
	if err := syscall.Statfs(in.dir, &st); err != nil {
		t.Fatal(err)
	}
	mustRun(t, asRoot("fallocate", "-l", fmt.Sprint(int64(st.Bavail)*st.Bsize-(8<<20)), fill))
	err := writeFlushed(filepath.Join(dir, "too-much"), make([]byte, 64<<20))
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("writing more than there is room for: %v, want ENOSPC", err)
	}
	t.Logf("the writer gets: %v", err)
	if err := sameContent(filepath.Join(dir, "before"), content); err != nil {
		t.Error(err)
	}
	mustRun(t, asRoot("rm", fill))
	eventually(t, 2*time.Minute, func() error { return writeFlushed(filepath.Join(dir, "after"), []byte(content)) })
	v.remount(t, dir)
	for _, name := range []string{"before", "after"} {
		if err := sameContent(filepath.Join(dir, name), content); err != nil {
			t.Error(err)
		}
	}
}

// writeFlushed writes a file and returns the first error, that of closing too.
func writeFlushed(path string, content []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}
