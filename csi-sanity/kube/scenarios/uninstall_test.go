package scenarios

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/csi-sanity/kube/internal/build"
	"github.com/holdfast-csi/holdfast/csi-sanity/kube/internal/cluster"
)

// uninstall is the guide's command. Its outcome is the caller's.
func uninstall(t *testing.T) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "helm"), "uninstall", "holdfast", "--namespace", "holdfast-system", "--wait", "--timeout=5m")
	cmd.Env = append(cmd.Environ(), "KUBECONFIG="+folder.Kubeconfig(), "HOME="+filepath.Join(string(folder), "home"))
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestInstallAgain: with a volume mounted an uninstall is refused, and without one
// what volumes hold outlives the release.
func TestInstallAgain(t *testing.T) {
	settle(t)
	name := newNamespace(t)
	space := "--namespace=" + name
	user := pod("user", "data", 0, build.ShellImage, idle)
	withInput(t, time.Minute, claim("data", "ReadWriteOnce")+user, "apply", space, "-f", "-")
	within(t, time.Minute, "wait", space, "pod/user", "--for=condition=Ready", "--timeout=50s")
	if !t.Run("RefusedWhileMounted", func(t *testing.T) { uninstallRefused(t, name) }) {
		t.FailNow() // what it has left of the release is for nobody to go on with
	}
	within(t, 20*time.Second, "exec", space, "user", "--", "sh", "-c", "echo kept > /data/file")
	within(t, time.Minute, "delete", space, "pod/user", "--timeout=50s")

	if out, err := uninstall(t); err != nil {
		t.Fatalf("helm uninstall: %v\n%s", err, out)
	}
	shell(t, 6*time.Minute, "helm install holdfast deploy/helm/holdfast --namespace holdfast-system --values "+withValues(t, build.Versions[0]))
	withInput(t, time.Minute, user, "apply", space, "-f", "-")
	within(t, 5*time.Minute, "wait", space, "pod/user", "--for=condition=Ready", "--timeout=290s")
	if got := within(t, 20*time.Second, "exec", space, "user", "--", "cat", "/data/file"); got != "kept" {
		t.Errorf("in the new release the file holds %q, want %q", got, "kept")
	}
}

// uninstallRefused: the refusal names the pod, the pod goes on, and a rollback makes
// the release one again.
func uninstallRefused(t *testing.T, name string) {
	space := "--namespace=" + name
	out, err := uninstall(t)
	if err == nil {
		t.Fatalf("an uninstall under a mounted volume was not refused:\n%s", out)
	}
	if !regexp.MustCompile(name + `/user\b`).MatchString(out) {
		t.Errorf("the refusal does not name pod %s/user:\n%s", name, out)
	}
	within(t, 20*time.Second, "exec", space, "user", "--", "sh", "-c", "echo on > /data/file && sync /data/file && cat /data/file")

	revision := shell(t, time.Minute, `helm list --namespace holdfast-system --output json | sed -n 's/.*"revision":"\([0-9]*\)".*/\1/p'`)
	shell(t, time.Minute, "helm rollback holdfast "+revision+" --namespace holdfast-system")
	if status := shell(t, time.Minute, "helm list --namespace holdfast-system --output json"); !strings.Contains(status, `"deployed"`) {
		t.Errorf("after the rollback the release is not deployed: %s", status)
	}
}

// TestUninstall is the guide's last section: nothing stays.
func TestUninstall(t *testing.T) {
	settle(t)
	// A node that was drained took the guide's pod with it, and nobody makes it again.
	if within(t, 10*time.Second, "get", "pod/photos", "--ignore-not-found", "-o", "name") == "" {
		withInput(t, time.Minute, pod("photos", "photos", 0, build.ShellImage, idle), "apply", "-f", "-")
		within(t, 2*time.Minute, "wait", "pod/photos", "--for=condition=Ready", "--timeout=110s")
		if got := within(t, 30*time.Second, "exec", "photos", "--", "cat", "/data/hello.txt"); got != "hello" {
			t.Errorf("at the end the guide's file holds %q, want %q", got, "hello")
		}
	}
	section(t, "Uninstall")
	for node := 1; node <= 2; node++ {
		if left := volumesOn(t.Context(), t, node); len(left) > 0 {
			t.Errorf("node %d still has mounts:\n%s", node, strings.Join(left, "\n"))
		}
		if left := processesOn(t, node); left != "" {
			t.Errorf("node %d still has processes:\n%s", node, left)
		}
	}
	for _, kind := range []string{
		"csidriver", "storageclass", "clusterrole", "clusterrolebinding", "persistentvolume", "priorityclass",
		"role,rolebinding,secret,configmap,lease,csistoragecapacity,networkpolicy,job --all-namespaces",
	} {
		args := append([]string{"get"}, strings.Fields(kind)...)
		if left := within(t, 20*time.Second, append(args, "-l", "app.kubernetes.io/name=holdfast", "-o", "name")...); left != "" {
			t.Errorf("left behind: %s", left)
		}
	}
	if left := within(t, 20*time.Second, "get", "csinode", "-o", "jsonpath={.items[*].spec.drivers[*].name}"); left != "" {
		t.Errorf("nodes still have the driver: %s", left)
	}
}

// processesOn are those of Holdfast and of SeaweedFS that a node has.
func processesOn(t *testing.T, node int) string {
	t.Helper()
	line, err := cluster.EnterNode(folder, node, "sh", "-c", `for p in /proc/[0-9]*; do case $(readlink $p/exe) in */holdfast|*/holdfast-mount|*/weed) tr '\0' ' ' < $p/cmdline; echo;; esac; done`)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, line[0], line[1:]...).Output()
	if err != nil {
		t.Fatal(fmt.Errorf("processes of node %d: %w", node, err))
	}
	return strings.TrimSpace(string(out))
}
