package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// TestMakeFolder: a folder is made for a user once, and what is somebody's stays his.
func TestMakeFolder(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give a folder away")
	}
	const uid = 65531
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	owner := func() (int, os.FileMode) {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return int(info.Sys().(*syscall.Stat_t).Uid), info.Mode()
	}
	for range 2 { // the second changes nothing
		if err := makeFolder(path, uid); err != nil {
			t.Fatal(err)
		}
		if got, mode := owner(); got != uid || mode != os.ModeDir|0o700 {
			t.Fatalf("uid %d, mode %v", got, mode)
		}
	}
	if err := makeFolder(path, uid+1); !storage.Is(err, storage.Denied) {
		t.Errorf("another's folder: %v, want Denied", err)
	}
	if got, _ := owner(); got != uid {
		t.Errorf("another's folder was given to uid %d", got)
	}
	if err := makeFolder(path, 0); !storage.Is(err, storage.Invalid) {
		t.Errorf("a folder for root: %v, want Invalid", err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/etc", link); err != nil {
		t.Fatal(err)
	}
	if err := makeFolder(link, uid); err == nil {
		t.Error("a link was followed")
	}
	if err := makeFolder(filepath.Join(dir, "missing", "state"), uid); err == nil {
		t.Error("more than one folder was made")
	}
}
