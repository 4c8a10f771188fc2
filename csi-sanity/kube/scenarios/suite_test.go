package scenarios

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// suiteSkips are specs that driver.yaml would select and that are not run. Each
// has its reason.
var suiteSkips = []struct{ regexp, why string }{
	{`\[Disruptive\]|\[Serial\]`, "they stop kubelets by ssh; TestNodeStopped and TestCluster do that here"},
	{`\[Feature:`, "of features that this cluster has not got, as SELinux and Windows"},
}

// suiteProcesses wait most of their time.
const suiteProcesses = 8

// storageSuite is Kubernetes' own suite for CSI drivers, "External Storage",
// with Holdfast's true capabilities: kubernetes/storagesuite/driver.yaml.
func storageSuite(t *testing.T) {
	const limit = 25 * time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var skip []string
	for _, s := range suiteSkips {
		t.Logf("not run: %s (%s)", s.regexp, s.why)
		skip = append(skip, s.regexp)
	}
	files := filepath.Join(root, "csi-sanity", "kube", "kubernetes", "storagesuite")
	work := filepath.Join(string(folder), "suite")
	if err := os.MkdirAll(work, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "ginkgo"), "--no-color", fmt.Sprintf("--procs=%d", suiteProcesses), "--timeout="+limit.String(),
		"--focus=External.Storage", "--skip="+strings.Join(skip, "|"), "--json-report=storage-suite.json", "--output-dir="+folder.Logs(), "--silence-skips",
		filepath.Join(bin, "storage-suite.test"), "--",
		"-kubeconfig="+folder.Kubeconfig(), "-kubectl-path="+filepath.Join(bin, "kubectl"), "-provider=local",
		"-storage.testdriver="+filepath.Join(files, "driver.yaml"), "-num-nodes=2", "-allowed-not-ready-nodes=0",
		"-minStartupPods=0", "-disable-log-dump", "-delete-namespace=true")
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "KUBE_TEST_REPO_LIST="+filepath.Join(files, "images.yaml"), "KUBECONFIG="+folder.Kubeconfig(), "HOME="+work)
	cmd.WaitDelay = 10 * time.Second
	out, err := os.Create(filepath.Join(folder.Logs(), "storage-suite.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	passed := summarize(t, filepath.Join(folder.Logs(), "storage-suite.json"))
	if err != nil {
		t.Errorf("the suite: %v; its log is %s", err, out.Name())
	}
	if passed == 0 {
		t.Error("no spec of the suite has run: a suite that selects nothing proves nothing")
	}
}

// summarize logs each spec of Holdfast that failed, and each that was selected
// and skipped itself, with its reason; it gives back how many passed.
func summarize(t *testing.T, report string) int {
	t.Helper()
	text, err := os.ReadFile(report)
	if err != nil {
		t.Errorf("the suite has left no report: %v", err)
		return 0
	}
	var suites []struct {
		SpecReports []struct {
			ContainerHierarchyTexts []string
			LeafNodeText, State     string
			Failure                 struct{ Message string }
		}
	}
	if err := json.Unmarshal(text, &suites); err != nil {
		t.Errorf("%s: %v", report, err)
		return 0
	}
	count := map[string]int{}
	skipped := map[string]int{}
	for _, suite := range suites {
		for _, spec := range suite.SpecReports {
			name := strings.Join(append(spec.ContainerHierarchyTexts, spec.LeafNodeText), " ")
			switch {
			case !strings.Contains(name, "External Storage"):
			case spec.State == "skipped" && spec.Failure.Message != "":
				skipped[spec.Failure.Message]++
			case spec.State == "skipped":
				count["not selected"]++
			default:
				count[spec.State]++
				if spec.State != "passed" {
					t.Errorf("%s: %s: %s", spec.State, name, spec.Failure.Message)
				}
			}
		}
	}
	var reasons []string
	for reason := range skipped {
		reasons = append(reasons, reason)
	}
	slices.Sort(reasons)
	for _, reason := range reasons {
		t.Logf("%3d specs skipped themselves: %s", skipped[reason], reason)
	}
	t.Logf("specs: %v", count)
	return count["passed"]
}
