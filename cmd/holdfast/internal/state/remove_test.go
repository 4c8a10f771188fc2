package state

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRemoveTakesKnownNamesOnly(t *testing.T) {
	d := Dir(t.TempDir())
	if err := os.MkdirAll(filepath.Join(d.Cluster(), "volume1", "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(string(d), "mine.txt")
	outside := filepath.Join(t.TempDir(), "outside.txt")
	for _, f := range []string{filepath.Join(d.Cluster(), "volume1", "deep", "1.dat"), d.AdminKeys(), mine, outside} {
		if err := os.WriteFile(f, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Dir(outside), filepath.Join(d.Cluster(), "way-out")); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.Cluster()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("cluster/ is still there: %v", err)
	}
	for _, f := range []string{mine, outside} {
		if _, err := os.Stat(f); err != nil {
			t.Errorf("a file that is not ours is gone: %v", err)
		}
	}
	if err := os.Remove(mine); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(string(d)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the empty folder is still there: %v", err)
	}
	if err := d.Remove(); err != nil {
		t.Errorf("removing what is gone: %v", err)
	}
}

// A bind mount of the same file system has the same st_dev: both fences must
// hold, the look at mountinfo and the walk itself.
func TestRemoveNeverEntersAMount(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	d, precious := Dir(t.TempDir()), t.TempDir()
	point := filepath.Join(d.Staging(), "volume")
	if err := os.MkdirAll(point, 0o755); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(precious, "data")
	if err := os.WriteFile(data, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(precious, point, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("cannot bind here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(point, 0); err != nil {
			t.Error(err)
		}
	})
	if err := d.Remove(); err == nil {
		t.Error("Remove went on with a mount below")
	}
	root, err := os.Open(string(d))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	if err := removeAt(root, "staging"); !errors.Is(err, unix.EXDEV) {
		t.Errorf("the walk went into a mount: %v, want EXDEV", err)
	}
	if _, err := os.Stat(data); err != nil {
		t.Errorf("data below the mount is gone: %v", err)
	}
}
