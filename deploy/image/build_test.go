//go:build image

// Package image builds the project's Dockerfile and looks inside. `make
// image-test` runs it; the tag keeps it out of a plain `go test ./...`, because
// it needs buildah and does not skip itself where that is missing.
//
// No registry is asked. The builder is an image made here, of nothing but
// settings: the machine's own Go, its module cache and its build cache are
// mounted into it. So the test needs minutes less than one with the official
// image, and works without a network; what it cannot prove is that the official
// image exists.
package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const version = "v0.0.0-image-test"

// What the image holds, and all that it holds.
var wantFiles = []string{"usr/local/bin/holdfast", "usr/local/bin/holdfast-mount"}

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

func TestImage(t *testing.T) {
	b := newBuildah(t)
	base := b.commitBuilder(t)

	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			name := "localhost/holdfast:" + arch
			b.build(t, base, arch, name)

			got := b.open(t, name)
			if got.config.Architecture != arch || got.config.OS != "linux" {
				t.Errorf("the image says it is for %s/%s", got.config.OS, got.config.Architecture)
			}
			if user := got.config.Config.User; user != "65532:65532" {
				t.Errorf("the image's user is %q, want 65532:65532: it must not be root by default", user)
			}
			if entry := got.config.Config.Entrypoint; !slices.Equal(entry, []string{"/usr/local/bin/holdfast"}) {
				t.Errorf("the image's entry point is %q", entry)
			}

			var names []string
			for path, file := range got.files {
				names = append(names, path)
				if file.mode != 0o755 || file.uid != 0 {
					t.Errorf("%s has mode %o and owner %d, want 755 and root: the image's user must not be able to change it", path, file.mode, file.uid)
				}
				checkStatic(t, path, file.data, machines[arch])
			}
			slices.Sort(names)
			if !slices.Equal(names, wantFiles) {
				t.Errorf("the image holds %q, want %q", names, wantFiles)
			}

			if arch == runtime.GOARCH {
				for _, path := range wantFiles {
					if out := b.run(t, name, "/"+path, "version"); !strings.Contains(out, version) {
						t.Errorf("%s version, as the image's user, says %q, want %s in it", path, out, version)
					}
				}
			}
		})
	}
}

// TestImages: make images leaves an archive for other machines' image stores, which holds
// the image under the name that deploy/LAPTOP.md installs.
func TestImages(t *testing.T) {
	b := newBuildah(t)
	base := b.commitBuilder(t)
	archive := filepath.Join(b.dir, "tmp", "saved", "image.tar")
	args := []string{
		"-C", filepath.Join("..", ".."), "images", "VERSION=" + version, "IMAGE_ARCHIVE=" + archive,
		"BUILDER=" + strings.Join(slices.Concat(b.as, b.args), " "),
		"IMAGE_FLAGS=" + strings.Join(b.buildFlags(t, base, runtime.GOARCH), " "),
	}
	for range 2 { // the second time the archive is there
		cmd := exec.CommandContext(t.Context(), "make", args...)
		cmd.Env = b.environment()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
	}
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var manifest []struct{ RepoTags []string }
	decode(t, untar(t, f)["manifest.json"], &manifest)
	if len(manifest) != 1 || !slices.Equal(manifest[0].RepoTags, []string{"localhost/holdfast:laptop"}) {
		t.Errorf("the archive holds %v, want one image, localhost/holdfast:laptop", manifest)
	}
	if out := b.run(t, "localhost/holdfast:laptop", "/usr/local/bin/holdfast", "version"); !strings.Contains(out, version) {
		t.Errorf("its program says %q, want %s in it", out, version)
	}
}

// checkStatic: from scratch there is no loader and no library.
func checkStatic(t *testing.T, path string, data []byte, machine elf.Machine) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Errorf("%s is no ELF file: %v", path, err)
		return
	}
	if f.Machine != machine {
		t.Errorf("%s is for %s, want %s", path, f.Machine, machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Errorf("%s asks for a loader: it is not static", path)
		}
	}
	if libs, err := f.ImportedLibraries(); err == nil && len(libs) > 0 {
		t.Errorf("%s asks for the libraries %q: it is not static", path, libs)
	}
}

// buildah is the command with a store of its own, so that the machine's images
// are neither used nor touched.
type buildah struct {
	as   []string // before each command: nothing, or sudo
	dir  string
	args []string
}

// newBuildah finds a way to run buildah here: as root, or in a user namespace,
// or by a sudo that asks nothing. It fails where there is none, for a test that
// skips itself proves nothing for years.
func newBuildah(t *testing.T) *buildah {
	t.Helper()
	if _, err := exec.LookPath("buildah"); err != nil {
		t.Fatal("buildah is missing: run  make image-test  (it installs it), or  apt-get install buildah")
	}
	// Not t.TempDir, which removes everything beneath it, whatever is mounted there.
	dir, err := os.MkdirTemp("", "holdfast-image")
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"tmp", "store", "run"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// vfs and chroot ask nothing of the kernel, so they work in containers too.
	b := &buildah{dir: dir, args: []string{
		"buildah", "--root", filepath.Join(dir, "store"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs",
	}}
	t.Cleanup(func() { b.remove(t) })

	if os.Getuid() == 0 {
		return b
	}
	out, err := b.command(t.Context(), "unshare", "true").CombinedOutput()
	if err == nil {
		return b
	}
	if exec.CommandContext(t.Context(), "sudo", "-n", "true").Run() == nil {
		b.as = []string{"sudo", "-n", "env", "TMPDIR=" + filepath.Join(dir, "tmp")}
		return b
	}
	t.Fatalf(`buildah works here neither in a user namespace (%s)
nor by sudo. One of these mends it:
  sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER
  sudo sysctl kernel.unprivileged_userns_clone=1
  run make image-test as root`, strings.TrimSpace(string(out)))
	return nil
}

func (b *buildah) command(ctx context.Context, args ...string) *exec.Cmd {
	all := slices.Concat(b.as, b.args, args)
	cmd := exec.CommandContext(ctx, all[0], all[1:]...)
	cmd.Env = b.environment()
	return cmd
}

func (b *buildah) environment() []string {
	return append(os.Environ(), "TMPDIR="+filepath.Join(b.dir, "tmp"), "XDG_RUNTIME_DIR="+filepath.Join(b.dir, "run"))
}

// must runs buildah and gives back what it wrote to stdout.
func (b *buildah) must(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := b.command(t.Context(), args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("buildah %s: %v\n%s%s", strings.Join(args, " "), err, &stdout, &stderr)
	}
	return strings.TrimSpace(stdout.String())
}

// commitBuilder makes the image that the Dockerfile's first stage starts from.
// The link is there because buildah's chroot looks for a RUN's program in the
// usual folders, not in the image's PATH.
func (b *buildah) commitBuilder(t *testing.T) string {
	t.Helper()
	root := filepath.Join(b.dir, "builder")
	for _, sub := range []string{"tmp", "usr/bin"} {
		if err := os.MkdirAll(filepath.Join(root, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/usr/local/go/bin/go", filepath.Join(root, "usr/bin/go")); err != nil {
		t.Fatal(err)
	}
	const name = "localhost/go"
	c := b.must(t, "from", "scratch")
	b.must(t, "copy", c, root, "/")
	b.must(t, "config",
		"--env", "PATH=/usr/local/go/bin:/usr/bin", "--env", "HOME=/root",
		"--env", "GOMODCACHE=/go/pkg/mod", "--env", "GOCACHE=/go/build",
		"--env", "GOTOOLCHAIN=local", "--env", "GOPROXY=off", c)
	b.must(t, "commit", "--rm", c, name)
	return name
}

func (b *buildah) build(t *testing.T, base, arch, name string) {
	t.Helper()
	args := append([]string{"build"}, b.buildFlags(t, base, arch)...)
	b.must(t, append(args, "--build-arg", "VERSION="+version, "--tag", name, filepath.Join("..", ".."))...)
}

// buildFlags are what a build needs here, where no registry is asked.
func (b *buildah) buildFlags(t *testing.T, base, arch string) []string {
	t.Helper()
	cache := goEnv(t, "GOCACHE")
	if len(b.as) > 0 { // by sudo: root must leave nothing in the user's cache
		cache = filepath.Join(b.dir, "cache")
		if err := os.MkdirAll(cache, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return []string{
		"--isolation", "chroot", "--pull-never",
		"--platform", "linux/" + arch,
		"--build-arg", "BUILDPLATFORM=linux/" + runtime.GOARCH, // 1.28 does not set it in FROM
		"--build-arg", "GO_IMAGE=" + base,
		"--volume", goEnv(t, "GOROOT") + ":/usr/local/go:ro",
		"--volume", goEnv(t, "GOMODCACHE") + ":/go/pkg/mod:ro",
		"--volume", cache + ":/go/build",
	}
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
	if err != nil {
		t.Fatalf("go env %s: %v", name, err)
	}
	return strings.TrimSpace(string(out))
}

// run starts a program in a container of the image, as the image's user.
func (b *buildah) run(t *testing.T, name string, program ...string) string {
	t.Helper()
	c := b.must(t, "from", "--pull-never", name)
	defer b.must(t, "rm", c)
	return b.must(t, append([]string{"run", "--isolation", "chroot", c, "--"}, program...)...)
}

// image is what a registry would get: a configuration and files.
type image struct {
	config struct {
		Architecture string
		OS           string
		Config       struct {
			User       string
			Entrypoint []string
		}
	}
	files map[string]file
}

type file struct {
	mode int64
	uid  int
	data []byte
}

// open reads an image by way of an OCI archive: buildah's own mount would need
// root, and shows less of what is shipped.
func (b *buildah) open(t *testing.T, name string) image {
	t.Helper()
	archive := filepath.Join(b.dir, "tmp", strings.NewReplacer("/", "-", ":", "-").Replace(name)+".tar")
	b.must(t, "push", name, "oci-archive:"+archive)
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	parts := untar(t, f)

	var index struct{ Manifests []descriptor }
	decode(t, parts["index.json"], &index)
	if len(index.Manifests) != 1 {
		t.Fatalf("the archive of %s has %d manifests, want 1", name, len(index.Manifests))
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	decode(t, parts[index.Manifests[0].path()], &manifest)

	got := image{files: map[string]file{}}
	decode(t, parts[manifest.Config.path()], &got.config)
	for _, layer := range manifest.Layers {
		z, err := gzip.NewReader(bytes.NewReader(parts[layer.path()].data))
		if err != nil {
			t.Fatalf("layer %s: %v", layer.Digest, err)
		}
		maps.Copy(got.files, untar(t, z))
	}
	return got
}

type descriptor struct{ Digest string }

func (d descriptor) path() string { return "blobs/" + strings.Replace(d.Digest, ":", "/", 1) }

func decode(t *testing.T, from file, into any) {
	t.Helper()
	if err := json.Unmarshal(from.data, into); err != nil {
		t.Fatalf("the image's JSON: %v", err)
	}
}

// untar reads everything but folders; a link or a device is a file without data
// here, and is then found to be no program.
func untar(t *testing.T, r io.Reader) map[string]file {
	t.Helper()
	files := map[string]file{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(h.Name, "./")] = file{mode: h.Mode & 0o7777, uid: h.Uid, data: data}
	}
}

// remove takes the store away, unless something is still mounted in it: the
// mounts are the machine's Go and caches, which must not go with it.
func (b *buildah) remove(t *testing.T) {
	ctx := context.WithoutCancel(t.Context()) // which ended before the cleanup
	_ = b.command(ctx, "rm", "--all").Run()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(b.dir)) {
		t.Errorf("something is still mounted beneath %s (or mountinfo cannot be read: %v): not removed", b.dir, err)
		return
	}
	// In a user namespace the files are of other ids, which only it can remove.
	args := []string{"rm", "-rf", "--one-file-system", b.dir}
	switch {
	case len(b.as) > 0:
		args = slices.Concat(b.as, args)
	case os.Getuid() != 0:
		args = slices.Concat(b.args, []string{"unshare"}, args)
	}
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err == nil {
		return
	}
	if os.RemoveAll(b.dir) != nil { // unshare never worked: then all is ours
		t.Errorf("remove %s: %v: %s", b.dir, err, out)
	}
}
