package csisanity

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestCacheSize: what is read of a volume with a cacheSize takes no more than that
// of the node's cache on the disk, and with 0 nothing; after the worker's death too.
func TestCacheSize(t *testing.T) {
	const size, pages = 48 << 20, 1 << 20 // and what the file system's own tables take
	in := shared(t)
	kept := func() int64 {
		t.Helper()
		var st syscall.Stat_t
		if err := syscall.Stat(filepath.Join(in.dir, "mounter", "cache", "holdfast.blocks"), &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	for i, bound := range []struct {
		param string
		most  int64
	}{{"cacheSize=0", 0}, {"cacheSize=16Mi", 16 << 20}, {"cacheCapacityMB=20", 20 << 20}, {"onDelete=delete", size + size/16}} {
		param, most := bound.param, bound.most
		name := fmt.Sprint(volumeName(t), "-", i)
		v := in.create(t, name, "--param", param)
		dir := v.mount(t)
		path := filepath.Join(dir, "file")
		f, err := os.Create(path)
		if err == nil {
			_, err = io.Copy(struct{ io.Writer }{f}, io.LimitReader(pattern{}, size))
		}
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		before := kept()
		for range 2 {
			v.remount(t, dir) // the kernel's own cache goes
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, struct{ io.Reader }{f}); err != nil || n != size {
				t.Errorf("%s: read %d bytes: %v", param, n, err)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			if took := kept() - before; took > most+pages {
				t.Errorf("%s: %d MiB were kept, %d may be", param, took>>20, most>>20)
			}
			for _, pid := range children(in.mustStatus(t).component(t, "mounter").PID) {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Error(err)
				}
			}
		}
		// Without a bound all of it is there, so the others' bounds were at work.
		if most > 0 {
			eventually(t, 30*time.Second, func() error {
				if took := kept() - before; took < most/2 {
					return fmt.Errorf("%s: only %d MiB were kept", param, took>>20)
				}
				return nil
			})
		}
		in.drop(t, name)
	}
}
