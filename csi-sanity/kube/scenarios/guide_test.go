package scenarios

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/csi-sanity/kube/internal/build"
)

// values are what this cluster needs beside the chart's defaults: images that
// its nodes were given, and disks, for it has no default StorageClass. All of
// SeaweedFS is on node 1, since node 2 is the one that tests stop.
const values = `
image: {repository: ` + build.HoldfastImage + `, tag: %VERSION%, pullPolicy: IfNotPresent}
seaweedfs:
  master: {persistence: {hostPath: {path: /var/lib/seaweed, nodes: [node1]}}, nodeSelector: {kubernetes.io/hostname: node1}}
  volume: {replicas: 3, persistence: {hostPath: {path: /var/lib/seaweed, nodes: [node1]}}, nodeSelector: {kubernetes.io/hostname: node1}}
  filer: {persistence: {hostPath: {path: /var/lib/seaweed, nodes: [node1]}}, nodeSelector: {kubernetes.io/hostname: node1}}
  s3: {nodeSelector: {kubernetes.io/hostname: node1}}
`

// command is a line as a newcomer would type it, in the checkout, with kubectl and
// helm in PATH.
func command(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", line)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "KUBECONFIG="+folder.Kubeconfig(), "HOME="+filepath.Join(string(folder), "home"), "PATH="+bin+":"+os.Getenv("PATH"))
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// shell runs such a line, which must succeed.
func shell(t *testing.T, limit time.Duration, line string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	start := time.Now()
	out, err := command(ctx, line).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	t.Logf("%4.1f s  %s", time.Since(start).Seconds(), line)
	return strings.TrimSpace(string(out))
}

// ready waits until what was installed or upgraded runs, as the guide does.
func ready(t *testing.T, limit time.Duration) {
	t.Helper()
	for _, workload := range []string{"deployment/holdfast-controller", "daemonset/holdfast-mounter", "daemonset/holdfast-node"} {
		within(t, limit, "rollout", "status", system, workload, fmt.Sprintf("--timeout=%v", limit-10*time.Second))
	}
}

// withValues writes the values for that version and names the file.
func withValues(t *testing.T, version string) string {
	t.Helper()
	file := filepath.Join(string(folder), "values-"+version+".yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(values, "%VERSION%", version)), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// section runs the commands of one section of the newcomer's guide, line by
// line; `helm install` gets the values besides.
func section(t *testing.T, title string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, part, found := strings.Cut(string(text), "\n## "+title+"\n")
	if !found {
		t.Fatalf("deploy/README.md has no section %q", title)
	}
	part, _, _ = strings.Cut(part, "\n## ")
	ran, in := 0, false
	for line := range strings.Lines(part) {
		line = strings.TrimSpace(line)
		switch {
		case line == "```sh":
			in = true
		case line == "```":
			in = false
		case in && line != "":
			if strings.HasPrefix(line, "helm install ") {
				line += " --values " + withValues(t, build.Versions[0])
			}
			shell(t, 6*time.Minute, line)
			ran++
		}
	}
	if ran == 0 {
		t.Fatalf("section %q of deploy/README.md has no command in a block marked sh", title)
	}
}
