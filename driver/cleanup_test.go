package driver

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// brokenTable cannot be read.
type brokenTable struct{}

func (brokenTable) Mounted(string) (bool, BindOptions, error) {
	return false, BindOptions{}, errors.New("the mount table cannot be read")
}

func (brokenTable) Context(string) (string, error) {
	return "", errors.New("the mount table cannot be read")
}

// planted is what is below dir, by path: the content of files, the targets of
// links.
func planted(t *testing.T, dir string) map[string]string {
	t.Helper()
	have := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch {
		case e.Type().IsRegular():
			b, err := os.ReadFile(path)
			have[path] = string(b)
			return err
		case e.Type() == fs.ModeSymlink:
			to, err := os.Readlink(path)
			have[path] = "-> " + to
			return err
		}
		return nil
	}))
	return have
}

// TestCleanUpCannotHurt plants a user's files at every path that the kubelet can
// name, has every step fail in every way, and wants that not one file is gone.
func TestCleanUpCannotHurt(t *testing.T) {
	unavailable := storage.Errorf(storage.Unavailable, "no keeper")
	for what, fault := range map[string]func(t *testing.T, b *bench){
		"nothing":             func(*testing.T, *bench) {},
		"umount: EBUSY":       func(_ *testing.T, b *bench) { b.mounter.fail["Unmount"] = storage.Errorf(storage.InUse, "EBUSY") },
		"umount: no answer":   func(_ *testing.T, b *bench) { b.mounter.fail["Unmount"] = unavailable },
		"the keeper is dead":  func(_ *testing.T, b *bench) { b.mounter.fail["Mounts"] = unavailable },
		"the mounter is dead": func(_ *testing.T, b *bench) { b.mounter.hurt("photos") },
		"the mount cannot be made": func(_ *testing.T, b *bench) {
			b.mounter.fail["Mount"], b.mounter.fail["Bind"] = unavailable, unavailable
		},
		"mountinfo is unreadable": func(_ *testing.T, b *bench) { b.node.table = brokenTable{} },
		"everything is mounted":   func(_ *testing.T, b *bench) { b.node.table = alwaysMounted{} },
		// Its mounts are in the kernel's table, and it knows of none.
		"the keeper has lost its memory": func(_ *testing.T, b *bench) { b.mounter.mu.mounts = nil },
		"the record is gone":             func(t *testing.T, b *bench) { must(t, b.store.DeleteRecord(t.Context(), "photos")) },
	} {
		for _, staged := range []bool{true, false} {
			t.Run(what, func(t *testing.T) {
				b := newBench(t)
				b.create(t)
				user := t.TempDir()
				must(t, os.WriteFile(filepath.Join(user, "file"), []byte("a user's"), 0o600))
				for _, dir := range []string{"staging", "pod", "foreign", "foreign/deep"} {
					must(t, os.Mkdir(b.path(dir), 0o750))
				}
				must(t, os.Symlink(user, b.path("link")))
				must(t, os.WriteFile(b.path("plain"), []byte("a user's"), 0o600))
				if staged {
					must(t, b.stage(t, b.node, "staging", everyone))
					must(t, b.publish(t, "pod", everyone, false))
				}
				// What is mounted hides what lies below; here both are the same files, so
				// a removal through the mount is seen.
				for _, dir := range []string{"staging", "pod", "foreign", "foreign/deep"} {
					must(t, os.WriteFile(b.path(dir+"/data"), []byte("a user's"), 0o600))
				}
				here, there := planted(t, b.dir), planted(t, user)
				fault(t, b)
				for _, at := range []string{"staging", "pod", "foreign", "foreign/deep", "link", "plain", "link/file", "foreign/data", "missing"} {
					for range 2 {
						_ = b.stage(t, b.node, at, everyone)
						_ = b.publish(t, at, everyone, false)
						_ = b.unpublish(t, at)
						_ = b.unstage(t, at)
					}
				}
				if now := planted(t, b.dir); !maps.Equal(now, here) {
					t.Errorf("there is %v, there was %v", now, here)
				}
				if now := planted(t, user); !maps.Equal(now, there) {
					t.Errorf("behind the link there is %v, there was %v", now, there)
				}
			})
		}
	}
}
