package csisanity

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const mebibyte = 1 << 20

// filler writes a file on and on.
type filler struct {
	file *os.File
	at   int64
}

// newFiller begins a file.
func newFiller(t *testing.T, path string) *filler {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return &filler{file: f}
}

// fill writes until the volume is full.
func (f *filler) fill(t *testing.T) {
	t.Helper()
	block := []byte(strings.Repeat("holdfast", 100_000/8))
	for {
		_, err := f.file.WriteAt(block, f.at)
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		f.at += int64(len(block))
		if f.at > 1<<30 {
			t.Fatal("the volume is never full")
		}
	}
	have, err := f.file.Stat() // the last write was a short one
	if err != nil {
		t.Fatal(err)
	}
	f.at = have.Size()
}

// The size of a volume is a hard limit, to the byte, for what the mount and what S3
// writes, over a kill of the mounter and an expansion; df and describe show what the
// writers are held to.
func TestVolumeFull(t *testing.T) {
	in := startState(t)
	v := in.create(t, volumeName(t), "--size", "64Mi")
	dir := v.mount(t)
	a := newFiller(t, filepath.Join(dir, "a"))
	a.fill(t)
	if a.at != 64*mebibyte {
		t.Fatalf("%d bytes fit", a.at)
	}
	shows := func(total, used int64) {
		t.Helper()
		var st syscall.Statfs_t
		if err := syscall.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		var d struct {
			Size int64
			Used *int64
		}
		if err := json.Unmarshal([]byte(in.must(t, "volume", "describe", v.name, "-o", "json")), &d); err != nil {
			t.Fatal(err)
		}
		gotTotal, gotUsed := int64(st.Blocks)*st.Frsize, int64(st.Blocks-st.Bfree)*st.Frsize
		if gotTotal != total || gotUsed != used || d.Size != total || d.Used == nil || *d.Used != used {
			t.Errorf("df has %d of %d bytes, describe %v of %d, want %d of %d", gotUsed, gotTotal, d.Used, d.Size, used, total)
		}
	}
	shows(64*mebibyte, 64*mebibyte)

	// What takes no room goes on, and is in the cluster.
	if _, err := a.file.WriteAt([]byte(strings.Repeat("over", 50_000)), 12_345); err != nil {
		t.Errorf("overwrite: %v", err)
	}
	for what, err := range map[string]error{
		"fsync":  a.file.Sync(),
		"mkdir":  os.Mkdir(filepath.Join(dir, "d"), 0o700),
		"create": os.WriteFile(filepath.Join(dir, "empty"), nil, 0o600),
		"rename": os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")),
	} {
		if err != nil {
			t.Errorf("%s in a full volume: %v", what, err)
		}
	}

	// A mapping that finds no room is told by msync.
	if err := mapPage(filepath.Join(dir, "mapped")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a page of a mapping in a full volume: %v", err)
	}

	// S3 takes room, too.
	if err := a.file.Truncate(10 * mebibyte); err != nil {
		t.Fatal(err)
	}
	a.at = 10 * mebibyte
	for i := range 5 {
		v.put(t, fmt.Sprintf("object-%d", i), strings.Repeat("s", 10*mebibyte))
	}
	eventually(t, 10*time.Second, func() error {
		var st syscall.Statfs_t
		if err := syscall.Statfs(dir, &st); err != nil {
			return err
		}
		if free := int64(st.Bfree) * st.Frsize; free != 4*mebibyte {
			return fmt.Errorf("%d bytes are free", free)
		}
		return nil
	})
	a.fill(t)
	if a.at != 14*mebibyte {
		t.Errorf("%d bytes fit beside 50 MiB of objects", a.at)
	}
	if err := os.Remove(filepath.Join(dir, "object-0")); err != nil {
		t.Fatal(err)
	}
	a.fill(t)
	if a.at != 24*mebibyte {
		t.Errorf("%d bytes fit beside 40 MiB of objects", a.at)
	}

	// The next mounter knows the limit, with what is not committed.
	if err := os.Remove(filepath.Join(dir, "object-1")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.file.WriteAt(make([]byte, 9*mebibyte), a.at); err != nil {
		t.Fatal(err)
	}
	a.at += 9 * mebibyte
	for _, worker := range children(in.mustStatus(t).component(t, "mounter").PID) {
		kill(t, worker)
	}
	a.fill(t)
	if a.at != 34*mebibyte {
		t.Errorf("%d bytes fit beside 30 MiB of objects after a kill", a.at)
	}
	if err := a.file.Sync(); err != nil {
		t.Error(err)
	}
	shows(64*mebibyte, 64*mebibyte)

	// A writer that tries again goes on as soon as the volume is larger.
	in.fails(t, []string{"volume", "expand", v.name, "--size", "10Mi"}, "67108864", "10485760", "shrink")
	in.must(t, "volume", "expand", v.name, "--size", "80Mi")
	a.fill(t)
	if a.at != 50*mebibyte {
		t.Errorf("%d bytes fit after the expansion", a.at)
	}
	shows(80*mebibyte, 80*mebibyte)
	if err := a.file.Close(); err != nil {
		t.Error(err)
	}

	// A new session counts anew.
	v.remount(t, dir)
	shows(80*mebibyte, 80*mebibyte)
	b := newFiller(t, filepath.Join(dir, "more"))
	b.fill(t)
	if b.at != 0 {
		t.Errorf("%d bytes fit into a full volume", b.at)
	}
}

// mapPage makes a file of a MiB without bytes, and writes a page by a mapping.
func mapPage(path string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // what it says, msync has said
	if err := f.Truncate(mebibyte); err != nil {
		return fmt.Errorf("truncate: %w", err)
	}
	b, err := unix.Mmap(int(f.Fd()), 0, mebibyte, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	defer func() { _ = unix.Munmap(b) }()
	b[mebibyte/2] = 1
	return unix.Msync(b, unix.MS_SYNC)
}
