package scenarios

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
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
	code := m.Run()
	ctx, cancel := context.WithTimeout(context.Background(), leavingTime)
	defer cancel()
	if err := repeat(ctx, nothingLeaves); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
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
	if err := repeat(ctx, question); err != nil {
		t.Fatalf("after %v: %v", limit, err)
	}
}

// repeat returns the last answer when ctx ends.
func repeat(ctx context.Context, question func(context.Context) error) error {
	for {
		err := question(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// leaving are the namespaces of tests that have ended. Their removal takes some fifteen
// seconds each, in which the next tests run; settle waits for it, and so does the end.
var leaving struct {
	sync.Mutex
	names []string
}

const leavingTime = 2 * time.Minute

// settle has a test begin with no pod of another one: before nodes are stopped, and
// Holdfast is uninstalled.
func settle(t *testing.T) {
	t.Helper()
	eventually(t, leavingTime, nothingLeaves)
}

func nothingLeaves(ctx context.Context) error {
	leaving.Lock()
	defer leaving.Unlock()
	for len(leaving.names) > 0 {
		left, err := kubectl(ctx, "", "get", "namespace", leaving.names[0], "--ignore-not-found", "-o", "name")
		if err != nil {
			return err
		}
		if left != "" {
			return fmt.Errorf("%s does not go: is a pod or a volume stuck in it?", left)
		}
		leaving.names = leaving.names[1:]
	}
	return nil
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
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if _, err := kubectl(ctx, "", "delete", "namespace", name, "--wait=false"); err != nil {
			t.Errorf("remove what the test has made: %v", err)
		}
		leaving.Lock()
		defer leaving.Unlock()
		leaving.names = append(leaving.names, name)
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
