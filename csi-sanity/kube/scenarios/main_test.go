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

	"github.com/holdfast-csi/holdfast/csi-sanity/kube/internal/cluster"
)

// Where things are, by holdfast-e2e's word.
var (
	folder = cluster.Folder(os.Getenv("HOLDFAST_E2E_FOLDER"))
	bin    = os.Getenv("HOLDFAST_E2E_BIN")
	root   = os.Getenv("HOLDFAST_E2E_ROOT")
)

func TestMain(m *testing.M) {
	if folder == "" || bin == "" || root == "" {
		fmt.Fprintln(os.Stderr, "These tests run inside a cluster: use  holdfast-e2e test  (make e2e does)")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// kubectl runs as the administrator; stdin may be empty.
func kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "kubectl"), append([]string{"--kubeconfig", folder.Kubeconfig()}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.WaitDelay = 5 * time.Second
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return string(out), fmt.Errorf("kubectl %s: %w\n%s%s", strings.Join(args, " "), err, out, &stderr)
	}
	return strings.TrimSpace(string(out)), nil
}

// within runs kubectl, which must succeed in that time.
func within(t *testing.T, limit time.Duration, args ...string) string {
	t.Helper()
	return withInput(t, limit, "", args...)
}

func withInput(t *testing.T, limit time.Duration, stdin string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	out, err := kubectl(ctx, stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// eventually repeats a question until its answer is no error.
func eventually(t *testing.T, limit time.Duration, question func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		err := question(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("after %v: %v", limit, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// newNamespace is one for this test, which is removed at its end, with what is in it.
func newNamespace(t *testing.T) string {
	t.Helper()
	name := "e2e-" + strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(strings.TrimPrefix(t.Name(), "Test")))
	within(t, time.Minute, "create", "namespace", name)
	t.Cleanup(func() {
		if t.Failed() {
			showNamespace(t, name)
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
		defer cancel()
		if _, err := kubectl(ctx, "", "delete", "namespace", name, "--timeout=110s"); err != nil {
			t.Errorf("remove what the test has made: %v", err)
		}
	})
	return name
}

// showNamespace logs what one would look at after a failure.
func showNamespace(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	for _, args := range [][]string{
		{"get", "pods,persistentvolumeclaims", "-o", "wide"},
		{"get", "events", "--sort-by=.lastTimestamp"},
	} {
		out, err := kubectl(ctx, "", append([]string{"--namespace", name}, args...)...)
		if err != nil {
			out = err.Error()
		}
		t.Logf("%s:\n%s", strings.Join(args, " "), out)
	}
}

// ask has the cluster do something to a node.
func ask(t *testing.T, command string, node int) {
	t.Helper()
	if err := cluster.Ask(t.Context(), node, command); err != nil {
		t.Fatal(err)
	}
}
