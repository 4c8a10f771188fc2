package scenarios

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/csi-sanity/kube/internal/build"
)

// Tests run in the order of the files' names and of each file: TestInstall here
// installs Holdfast, uninstall_test.go removes it.

// TestInstall is the newcomer's guide: an empty cluster, one command, a claim, and
// an upgrade that the guide's pod does not notice.
func TestInstall(t *testing.T) {
	section(t, "Install")
	section(t, "Use")
	section(t, "Upgrade")
	ready(t, 4*time.Minute)
	if got := within(t, 30*time.Second, "exec", "photos", "--", "cat", "/photos/hello.txt"); got != "hello" {
		t.Errorf("after the guide's upgrade its file holds %q, want %q", got, "hello")
	}
}

// TestClaimToRunningPod: a claim is bound and its pod runs within 10 seconds, right
// after an upgrade of the controller too.
func TestClaimToRunningPod(t *testing.T) {
	const limit = 10 * time.Second
	space := "--namespace=" + newNamespace(t)
	start := time.Now()
	withInput(t, limit, claim("data", "ReadWriteOnce")+pod("app", "data", 0, build.ShellImage, idle), "apply", space, "-f", "-")
	within(t, time.Minute, "wait", space, "pod/app", "--for=condition=Ready", "--timeout=50s")
	took := time.Since(start)
	t.Logf("from kubectl apply to a ready pod: %.1f s", took.Seconds())
	if took > limit {
		t.Errorf("it took %v, allowed are %v", took, limit)
	}
}

// TestSharedVolume: two pods on two nodes share a volume, and S3 shows its files.
func TestSharedVolume(t *testing.T) {
	space := "--namespace=" + newNamespace(t)
	withInput(t, time.Minute, claim("shared", "ReadWriteMany")+
		pod("one", "shared", 1, build.ShellImage, idle)+pod("two", "shared", 2, build.ShellImage, idle), "apply", space, "-f", "-")
	within(t, time.Minute, "wait", space, "pod/one", "pod/two", "--for=condition=Ready", "--timeout=50s")
	for from, to := range map[string]string{"one": "two", "two": "one"} {
		within(t, 20*time.Second, "exec", space, from, "--", "sh", "-c", "echo hello from "+from+" > /data/"+from)
		eventually(t, 10*time.Second, func(ctx context.Context) error {
			got, err := kubectl(ctx, "", "exec", space, to, "--", "cat", "/data/"+from)
			if want := "hello from " + from; err == nil && got != want {
				return fmt.Errorf("%s reads %q, want %q", to, got, want)
			}
			return err
		})
	}

	volume := within(t, 10*time.Second, "get", space, "persistentvolumeclaim/shared", "-o", "jsonpath={.spec.volumeName}")
	for _, name := range []string{"one", "two"} {
		if got, want := s3Get(t, volume+"/"+name), "hello from "+name+"\n"; got != want {
			t.Errorf("S3 has %q in %s, want %q", got, name, want)
		}
	}
}
