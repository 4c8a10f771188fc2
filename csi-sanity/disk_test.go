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
		if err := in.down(context.WithoutCancel(t.Context()), "--delete-data", "--yes"); err != nil {
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

// The disk under the cache is full: the mounter says so and serves on, right, with what
// fits, and takes more once there is room.
func TestCacheDiskIsFull(t *testing.T) {
	in := begin(t)
	cache := filepath.Join(in.dir, "mounter", "cache")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	owner := os.Getuid()
	if owner == 0 {
		owner = 64801
	}
	mustRun(t, asRoot("chown", fmt.Sprintf("%d:%d", owner, owner), filepath.Dir(cache)))
	options := func(mib int) string { return fmt.Sprintf("size=%dm,mode=0700,uid=%d,gid=%d", mib, owner, owner) }
	mustRun(t, asRoot("mount", "-t", "tmpfs", "-o", options(12), "holdfast-test", cache))
	t.Cleanup(func() {
		if err := in.down(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		mustRun(t, asRoot("umount", cache))
	})
	in.up(t)
	v := in.create(t, volumeName(t))
	dir := v.mount(t)
	const files, size = 4, 8 << 20
	content := func(i int) string { return strings.Repeat(fmt.Sprintf("%07d\n", i), size/8) }
	path := func(i int) string { return filepath.Join(dir, fmt.Sprint(i)) }
	for i := range files {
		if err := writeFlushed(path(i), []byte(content(i))); err != nil {
			t.Fatal(err)
		}
	}
	readAll := func() {
		t.Helper()
		v.remount(t, dir) // the kernel's own cache goes
		for i := range files {
			if err := sameContent(path(i), content(i)); err != nil {
				t.Error(err)
			}
		}
	}
	readAll()
	readAll()
	log := filepath.Join(in.dir, "logs", "mounter.log")
	logged := func(text string) func() error {
		return func() error {
			b, err := os.ReadFile(log)
			if err == nil && !strings.Contains(string(b), text) {
				err = fmt.Errorf("%s does not say %q", log, text)
			}
			return err
		}
	}
	eventually(t, time.Minute, logged("the chunk cache takes nothing new for a while: its disk failed"))
	eventually(t, time.Minute, logged("no space left on device"))
	mustRun(t, asRoot("mount", "-o", "remount,"+options(200), cache))
	eventually(t, 3*time.Minute, func() error {
		readAll()
		return logged("the chunk cache's disk works again")()
	})
}
