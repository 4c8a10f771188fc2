package cluster_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func TestRootRunsItAsAnother(t *testing.T) {
	needRoot(t)
	o := options(t)
	o.User = nobody
	// Where nobody can reach all three.
	o.Weed = openCopy(t, o.Weed)
	for _, dir := range []string{o.Dir, o.PKI} {
		if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
			t.Fatal(err)
		}
	}
	// A life as root leaves files of root's.
	asRoot := o
	asRoot.User = nil
	c := mustLive(t, asRoot)
	c.Kill()
	// That folder was made for root alone.
	_, err := life(t, o)
	wantError(t, err, storage.Denied, o.Dir+" has mode 0700")
	if err := os.Chmod(o.Dir, 0o711); err != nil {
		t.Fatal(err)
	}

	c = mustLive(t, o)
	for _, s := range c.Status() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"Uid:\t65534\t65534\t65534\t65534", "Gid:\t65534\t65534\t65534\t65534", "Groups:\t \n", "CapEff:\t0000000000000000"} {
			if !strings.Contains(string(b), want) {
				t.Errorf("%s: %q misses %q", s.Name, b, want)
			}
		}
	}
	secretsAreOurs(t, o.Dir)
}

// openCopy links the binary into a folder that everybody can reach.
func openCopy(t *testing.T, weed string) string {
	t.Helper()
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(weed)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "weed")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUnreachableBinaryIsNamed(t *testing.T) {
	needRoot(t)
	o := options(t)
	o.User = nobody
	if err := os.Chmod(filepath.Dir(o.Dir), 0o711); err != nil {
		t.Fatal(err)
	}
	closed := shortDir(t) // mode 0700, root's
	link := filepath.Join(closed, "weed")
	b := []byte("#!/bin/sh\necho 'version 8000GB 4.48 x'\n")
	if err := os.WriteFile(link, b, 0o755); err != nil {
		t.Fatal(err)
	}
	o.Weed = link
	_, err := life(t, o)
	wantError(t, err, storage.Denied, link, closed+" has mode 0700", "65534")
}

func TestFullDisk(t *testing.T) {
	needRoot(t)
	for name, size := range map[string]string{"configuration": "4k", "data": "100k"} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			disk := filepath.Dir(o.Dir)
			if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size="+size); err != nil {
				t.Skipf("cannot mount: %v", err)
			}
			defer unix.Unmount(disk, 0) //nolint:errcheck // its folder stays then, and says so
			if name == "data" {
				fill(t, disk)
			}
			c, err := life(t, o)
			wantError(t, err, storage.Full, "no space left on device", o.Dir)
			wantNothing(t, o, c.Status())
		})
	}
}

// fill leaves about 40 KiB.
func fill(t *testing.T, disk string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(disk, "ballast"), make([]byte, 32<<10), 0o600); err != nil {
		t.Fatal(err)
	}
}
