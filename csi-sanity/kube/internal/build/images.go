package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/holdfast-csi/holdfast/csi-sanity/kube/internal/images"
)

// Versions of Holdfast's image: the one that is installed, and the one that a
// running installation is upgraded to. They differ in what they call themselves.
var Versions = []string{"v0.0.0-e2e.1", "v0.0.0-e2e.2"}

const (
	// HoldfastImage is the repository of Holdfast's own image.
	HoldfastImage = "holdfast.test/holdfast"
	// PauseImage holds the namespaces of each pod.
	PauseImage = "holdfast.test/pause:1"
	// ShellImage is busybox: a shell and what one expects beside it.
	ShellImage = "holdfast.test/busybox:1"
	// LoadImage has the program that writes, reads and compares without end.
	LoadImage = "holdfast.test/load:1"
	// ExampleImage has the Go program of deploy/examples.
	ExampleImage = "holdfast.test/example-go:1"

	// suiteRegistry is where the storage suite looks for its images.
	suiteRegistry = "holdfast.test/suite"

	busybox  = "/bin/busybox"
	sidecars = "registry.k8s.io/sig-storage/"
)

// Images are the archives, and the names in them that a cluster needs to know.
type Images struct {
	Archives []string
	DNS      string
}

// Images makes all archives.
func (b *Builder) Images(ctx context.Context) (Images, error) {
	all, err := b.images(ctx)
	if err != nil {
		return Images{}, err
	}
	made := Images{}
	dir := filepath.Join(b.Out, "images")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Images{}, err
	}
	for _, image := range all {
		archive := filepath.Join(dir, regexp.MustCompile(`[^a-zA-Z0-9.]+`).ReplaceAllString(image.Ref, "-")+".tar")
		if err := b.archive(image, archive); err != nil {
			return Images{}, err
		}
		made.Archives = append(made.Archives, archive)
		if strings.HasPrefix(image.Ref, dnsRepository) {
			made.DNS = image.Ref
		}
	}
	return made, nil
}

const dnsRepository = "registry.k8s.io/coredns/coredns:"

func (b *Builder) images(ctx context.Context) ([]images.Image, error) {
	applets, err := busyboxLinks(ctx)
	if err != nil {
		return nil, err
	}
	coredns, err := b.required("csi-sanity/kube/coredns", "github.com/coredns/coredns")
	if err != nil {
		return nil, err
	}
	provisioner, err := b.required("csi-sanity/kube/sidecars", "github.com/kubernetes-csi/external-provisioner/v6")
	if err != nil {
		return nil, err
	}
	resizer, err := b.required("csi-sanity/kube/sidecars", "github.com/kubernetes-csi/external-resizer/v2")
	if err != nil {
		return nil, err
	}
	weed, err := b.weed(ctx)
	if err != nil {
		return nil, err
	}

	bin := func(name string) string { return filepath.Join(b.Out, name) }
	single := func(ref, path, program string) images.Image {
		return images.Image{Ref: ref, Files: map[string]string{path: program}, Entrypoint: []string{path}}
	}
	shell := func(ref string) images.Image {
		return images.Image{Ref: ref, Files: map[string]string{busybox: busybox}, Links: applets, Entrypoint: []string{"/bin/sh"}}
	}
	all := []images.Image{
		single(PauseImage, "/pause", bin("pause")),
		single(LoadImage, "/load", bin("load")),
		single(ExampleImage, "/example", bin("example-go")),
		shell(ShellImage),
		shell("docker.io/library/busybox:1.37"), // of deploy/examples
		single(dnsRepository+coredns, "/coredns", bin("coredns")),
		single(sidecars+"csi-provisioner:"+provisioner, "/csi-provisioner", bin("csi-provisioner")),
		single(sidecars+"csi-resizer:"+resizer, "/csi-resizer", bin("csi-resizer")),
		// Stand-ins, under the names of the real ones: see README.md.
		single(sidecars+"csi-node-driver-registrar:"+registrarTag, "/csi-node-driver-registrar", bin("registrar")),
		single(sidecars+"livenessprobe:"+livenessTag, "/livenessprobe", bin("livenessprobe")),
		weedImage(weed, applets),

		// What the storage suite's pods ask for. Its tests of volumes with programs
		// name nginx, and run a shell script in it.
		shell(suiteRegistry + "/busybox:1.37.0-1"),
		shell(suiteRegistry + "/nginx:1.14-4"),
		shell(suiteRegistry + "/jessie-dnsutils:1.7"), // several volumes in a pod
		single(suiteRegistry+"/pause:3.10.1", "/pause", bin("pause")),
	}
	agnhost := shell(suiteRegistry + "/agnhost:2.56")
	agnhost.Files = map[string]string{busybox: busybox, "/agnhost": bin("agnhost")}
	agnhost.Entrypoint = []string{"/agnhost"}
	all = append(all, agnhost)
	for _, version := range Versions {
		all = append(all, images.Image{
			Ref: HoldfastImage + ":" + version,
			Files: map[string]string{
				"/usr/local/bin/holdfast":       bin("holdfast-" + version),
				"/usr/local/bin/holdfast-mount": bin("holdfast-mount-" + version),
			},
			Entrypoint: []string{"/usr/local/bin/holdfast"}, User: "65532:65532",
		})
	}
	return all, nil
}

const (
	// The tags that the chart names.
	registrarTag = "v2.17.0"
	livenessTag  = "v2.19.0"

	findWeed = "./cmd/holdfast/internal/findweed"

	// weedTag is the build with 8000 GB volumes, the only one whose data folders
	// the pinned binary may open.
	weedTag = "4.48_large_disk"
)

// weedImage has the binary where the published image has it. Its entry point
// is not the published one, a script that adds options: who relies on that
// script would be tested with something else, so it refuses.
func weedImage(weed string, applets map[string]string) images.Image {
	const refusal = "#!/bin/sh\necho 'this image is made of the binary alone: give the command, /usr/bin/weed' >&2\nexit 64\n"
	return images.Image{
		Ref:   "docker.io/chrislusf/seaweedfs:" + weedTag,
		Files: map[string]string{"/usr/bin/weed": weed, busybox: busybox}, Links: applets,
		Texts: map[string]string{"/entrypoint.sh": refusal}, Entrypoint: []string{"/entrypoint.sh"},
	}
}

// weed is the path of the pinned binary, which Holdfast itself knows how to find.
func (b *Builder) weed(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, b.Go, "run", "-buildvcs=false", findWeed)
	cmd.Dir = b.Root
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find the pinned weed: %w: %s", err, &said)
	}
	return strings.TrimSpace(string(out)), nil
}

// busyboxLinks are the programs that a static busybox can be called as.
func busyboxLinks(ctx context.Context) (map[string]string, error) {
	out, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("%w: run deploy/dev/prepare.sh e2e", err)
	}
	applets := map[string]string{}
	for name := range strings.FieldsSeq(string(out)) {
		if name != "busybox" {
			applets["/bin/"+name] = "busybox"
		}
	}
	return applets, nil
}

// archive writes an image where its parts are not those of the last time.
func (b *Builder) archive(image images.Image, path string) error {
	inputs, err := describe(image)
	if err != nil {
		return err
	}
	if upToDate(path, path+".inputs", inputs) {
		return nil
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := image.Write(file); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	b.say("made the image %s", image.Ref)
	return os.WriteFile(path+".inputs", []byte(inputs), 0o644)
}

func describe(image images.Image) (string, error) {
	sum := sha256.New()
	_, _ = fmt.Fprintf(sum, "%q %q %q %q %q", image.Ref, image.Links, image.Texts, image.Entrypoint, image.User)
	for _, name := range slices.Sorted(keys(image.Files)) {
		content, err := os.ReadFile(image.Files[name])
		if err != nil {
			return "", err
		}
		_, _ = fmt.Fprintf(sum, " %q %x", name, sha256.Sum256(content))
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
