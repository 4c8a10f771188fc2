package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/cluster/supervise"
)

func newFolder(t *testing.T) folder {
	t.Helper()
	d := folder(filepath.Join(t.TempDir(), "c"))
	if err := d.create(nil); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestClaim(t *testing.T) {
	d := newFolder(t)
	for range 2 { // new, then its own
		if err := d.claim(2); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(d.version()); err != nil || string(b) != "8000GB 4.48\n" {
		t.Errorf("%q, %v", b, err)
	}
	if err := d.prepare(3, nil); err != nil {
		t.Fatal(err)
	}
	wantError(t, d.claim(2), storage.Invalid, "volume3")
	if err := d.claim(4); err != nil {
		t.Errorf("more volume servers: %v", err)
	}
	if err := os.WriteFile(d.version(), []byte("30GB 4.48\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	wantError(t, d.claim(3), storage.Unsupported, `"30GB 4.48"`, `"8000GB 4.48"`)
}

func TestForeignFolderIsNotTouched(t *testing.T) {
	d := newFolder(t)
	if err := os.WriteFile(d.path("thesis.tex"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	wantError(t, d.claim(2), storage.Exists, "thesis.tex")
	if _, err := os.Stat(d.version()); err == nil {
		t.Error("it was marked")
	}
}

func TestMasterStateFollowsItsPort(t *testing.T) {
	d := newFolder(t)
	if err := d.prepare(1, nil); err != nil {
		t.Fatal(err)
	}
	if err := d.adoptPort(1000); err != nil {
		t.Errorf("new folder: %v", err)
	}
	state := func(port string) string { return d.path(masterName, "m"+port) }
	if err := os.Mkdir(state("1000"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, port := range []int{1000, 2000, 2000} {
		if err := d.adoptPort(port); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(state("2000")); err != nil {
		t.Error(err)
	}
	if err := os.Mkdir(state("3000"), 0o700); err != nil {
		t.Fatal(err)
	}
	wantError(t, d.adoptPort(2000), storage.Corrupt, "2 masters")
}

func TestKeyIsKept(t *testing.T) {
	d := newFolder(t)
	if err := d.prepare(1, nil); err != nil {
		t.Fatal(err)
	}
	first, err := d.writeConfig(valid())
	if err != nil || len(first) != 64 {
		t.Fatalf("%q, %v", first, err)
	}
	if again, err := d.writeConfig(valid()); err != nil || again != first {
		t.Errorf("%q, then %q, %v", first, again, err)
	}
	for _, path := range []string{filepath.Join(d.secret(), "sse-kek"), filepath.Join(d.conf(), s3ConfigName)} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if err := os.WriteFile(filepath.Join(d.secret(), "sse-kek"), []byte(first[:60]), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = d.kek()
	wantError(t, err, storage.Corrupt, "sse-kek")
}

func TestReachNamesTheClosedFolder(t *testing.T) {
	// Not t.TempDir: the folders above shall be open.
	top, err := os.MkdirTemp("/tmp", "holdfast-reach-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(top) }()
	closed := filepath.Join(top, "closed")
	deep := filepath.Join(closed, "deep")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(top, 0o711); err != nil {
		t.Fatal(err)
	}
	stranger := supervise.User{UID: 4242, GID: 4242}
	if err := reach(deep, stranger, 5); err != nil {
		t.Errorf("all open: %v", err)
	}
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	err = reach(deep, stranger, 1)
	wantError(t, err, storage.Denied, closed+" has mode 0700", "4242")
	if strings.Contains(err.Error(), deep+" has mode") {
		t.Errorf("wrong folder: %v", err)
	}
	wantError(t, reach(filepath.Join(deep, "gone"), stranger, 1), storage.NotFound)
}

func TestFilesUnwritable(t *testing.T) {
	if err := writeFile("/proc/nothing/x", nil, 0o600, nil); !storage.Is(err, storage.NotFound) {
		t.Errorf("%v", err)
	}
}
