package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// KubernetesVersion is what the module in ./kubernetes pins. A newer kubelet
// wants cgroup v2 and containerd 2.
const KubernetesVersion = "v1.34.4"

// Builder builds one checkout into one folder.
type Builder struct {
	// Root is the checkout, Out the folder, Go the command.
	Root, Out, Go string
	// Progress hears of each step.
	Progress io.Writer
}

// module is a folder with a go.mod, and what is built from it.
type module struct {
	dir   string // from the root
	tests bool   // packages are test packages
	// programs are their names in Out and the packages that they are built from.
	programs map[string]string
	ldflags  string
}

const kubernetesDir = "csi-sanity/kube/kubernetes"

// pinned are built of modules at exact versions, in minutes, and so only when a
// file of ours beside their go.mod has changed.
func pinned() []module {
	const versions = "k8s.io/component-base/version."
	return []module{
		{
			dir:      kubernetesDir,
			programs: map[string]string{"kube": "./cmd/kube"},
			// Else nodes report v0.0.0-master, and clients compare versions.
			ldflags: "-X " + versions + "gitVersion=" + KubernetesVersion + " -X " + versions + "gitMajor=1 -X " + versions + "gitMinor=34",
		},
		{dir: "csi-sanity/kube/coredns", programs: map[string]string{"coredns": "."}},
		{dir: "csi-sanity/kube/sidecars", programs: map[string]string{
			"csi-provisioner": "github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner",
			"csi-resizer":     "github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer",
		}},
		{dir: kubernetesDir, programs: map[string]string{
			"registrar":     "./cmd/registrar",
			"livenessprobe": "./cmd/livenessprobe",
			"agnhost":       "k8s.io/kubernetes/test/images/agnhost",
			"ginkgo":        "github.com/onsi/ginkgo/v2/ginkgo",
		}},
		{dir: "deploy/helm", programs: map[string]string{"helm": "helm.sh/helm/v4/cmd/helm"}},
		{dir: "deploy/examples/go", programs: map[string]string{"example-go": "."}},
		// ginkgo runs a compiled suite only where the name ends so.
		{dir: kubernetesDir, tests: true, programs: map[string]string{"storage-suite.test": "./storagesuite"}},
	}
}

// APITests are the tests that need an API server and no node: their names in Out and
// the folders of their packages, from the root.
var APITests = map[string]string{
	"companion.test": "driver/kube/companion",
	"issuer.test":    "driver/kube/issuer",
}

// links are the names that the multi-call program is called by.
var links = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"}

// Programs builds all programs.
func (b *Builder) Programs(ctx context.Context) error {
	if err := os.MkdirAll(b.Out, 0o755); err != nil {
		return err
	}
	for _, m := range pinned() {
		if err := b.buildPinned(ctx, m); err != nil {
			return err
		}
	}
	for _, link := range links {
		if err := symlink("kube", filepath.Join(b.Out, link)); err != nil {
			return err
		}
	}
	if err := b.clients(ctx); err != nil {
		return err
	}
	return b.buildOwn(ctx)
}

func (b *Builder) buildPinned(ctx context.Context, m module) error {
	files, err := b.hashModule(m.dir)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(keys(m.programs)) {
		inputs := fmt.Sprintf("%s %s %s %s", files, m.programs[name], m.ldflags, b.goVersion(ctx))
		done := filepath.Join(b.Out, "."+name+".inputs")
		if upToDate(filepath.Join(b.Out, name), done, inputs) {
			continue
		}
		if err := b.compile(ctx, m, name); err != nil {
			return err
		}
		if err := os.WriteFile(done, []byte(inputs), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// buildOwn builds the programs of this checkout: go sees what is new in a second.
func (b *Builder) buildOwn(ctx context.Context) error {
	harness := module{dir: "csi-sanity/kube", programs: map[string]string{"pause": "./cmd/pause", "load": "./cmd/load"}}
	scenarios := module{dir: "csi-sanity/kube", tests: true, programs: map[string]string{"scenarios": "./scenarios"}}
	objects := module{dir: ".", tests: true, programs: map[string]string{}}
	for name, dir := range APITests {
		objects.programs[name] = "./" + dir
	}
	product := []module{scenarios, harness, objects}
	for _, version := range Versions {
		// As the Dockerfile builds them.
		product = append(product, module{dir: ".", ldflags: "-X main.version=" + version, programs: map[string]string{
			"holdfast-" + version: "./cmd/holdfast", "holdfast-mount-" + version: "./cmd/holdfast-mount",
		}})
	}
	for _, m := range product {
		for _, name := range slices.Sorted(keys(m.programs)) {
			if err := b.compile(ctx, m, name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *Builder) compile(ctx context.Context, m module, name string) error {
	start := time.Now()
	args := []string{"build"}
	if m.tests {
		args = []string{"test", "-c"}
	}
	args = append(args, "-trimpath", "-buildvcs=false", "-ldflags=-s -w "+m.ldflags, "-o", filepath.Join(b.Out, name), m.programs[name])
	cmd := exec.CommandContext(ctx, b.Go, args...)
	cmd.Dir = filepath.Join(b.Root, m.dir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("in %s: %s: %w\n%s", cmd.Dir, cmd, err, out)
	}
	if took := time.Since(start); took > 2*time.Second {
		b.say("built %s in %d s", name, int(took.Seconds()))
	}
	return nil
}

// hashModule is the state of what is ours in a module; go.sum has the rest.
func (b *Builder) hashModule(dir string) (string, error) {
	sum := sha256.New()
	root := filepath.Join(b.Root, dir)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !slices.Contains([]string{".go", ".mod", ".sum"}, filepath.Ext(path)) {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(sum, "%s %d\n%s", path[len(root):], len(text), text)
		return err
	})
	return hex.EncodeToString(sum.Sum(nil)), err
}

func (b *Builder) goVersion(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, b.Go, "env", "GOVERSION", "GOARCH").Output()
	if err != nil {
		return err.Error() // the build that follows says it better
	}
	return string(bytes.Join(bytes.Fields(out), []byte("/")))
}

func upToDate(product, inputsFile, inputs string) bool {
	had, err := os.ReadFile(inputsFile)
	if err != nil || string(had) != inputs {
		return false
	}
	_, err = os.Stat(product)
	return err == nil
}

func symlink(target, path string) error {
	if had, err := os.Readlink(path); err == nil && had == target {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(target, path)
}

func keys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for key := range m {
			if !yield(key) {
				return
			}
		}
	}
}

func (b *Builder) say(format string, args ...any) {
	if b.Progress != nil {
		_, _ = fmt.Fprintf(b.Progress, format+"\n", args...)
	}
}

// required finds the version of a module in a go.mod of ours.
func (b *Builder) required(dir, path string) (string, error) {
	file := filepath.Join(b.Root, dir, "go.mod")
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(strings.TrimPrefix(line, "require ")); len(fields) >= 2 && fields[0] == path {
			return fields[1], nil
		}
	}
	return "", fmt.Errorf("%s does not require %s", file, path)
}
