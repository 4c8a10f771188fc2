package scenarios

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// suiteSkips are specs that driver.yaml would select and that are not run. Each
// has its reason.
var suiteSkips = []struct{ regexp, why string }{
	{`\[Disruptive\]|\[Serial\]`, "they stop kubelets by ssh; TestNodeAway and TestCluster do that here"},
	{`\[Feature:`, "of features that this cluster has not got, as SELinux and Windows"},
}

const (
	suiteLimit = 25 * time.Minute

	// What is run of the suite, and what is slowest in it, as ginkgo's regular expressions.
	suiteSpecs   = "External.Storage"
	slowestSpecs = "should.support.restarting.containers"
)

// suiteParts run beside each other, and their processes wait most of their time. The
// slowest specs are a part of their own: two minutes each, which would else begin last.
var suiteParts = []struct {
	name, focus, skip string
	processes         int
}{
	{"slowest", suiteSpecs + ".*" + slowestSpecs, "", 2},
	{"others", suiteSpecs, slowestSpecs, 10},
}

// storageSuite is Kubernetes' own suite for CSI drivers, "External Storage",
// with Holdfast's true capabilities: kubernetes/storagesuite/driver.yaml.
func storageSuite(t *testing.T) {
	for _, s := range suiteSkips {
		t.Logf("not run: %s (%s)", s.regexp, s.why)
	}
	ctx, cancel := context.WithTimeout(t.Context(), suiteLimit)
	defer cancel()
	var running sync.WaitGroup
	var reports []string
	for _, part := range suiteParts {
		log := filepath.Join(folder.Logs(), "storage-suite-"+part.name+".log")
		report := strings.TrimSuffix(log, ".log") + ".json"
		reports = append(reports, report)
		cmd := suiteCommand(ctx, report, part.processes, part.focus, part.skip)
		cmd.Dir = filepath.Join(string(folder), "suite", part.name)
		running.Go(func() {
			err := os.MkdirAll(cmd.Dir, 0o755)
			out, ran := cmd.CombinedOutput()
			if err := errors.Join(err, ran, os.WriteFile(log, out, 0o644)); err != nil {
				t.Errorf("the suite: %v; its log is %s", err, log)
			}
		})
	}
	running.Wait()
	if summarize(t, reports) == 0 {
		t.Error("no spec of the suite has run: a suite that selects nothing proves nothing")
	}
}

func suiteCommand(ctx context.Context, report string, processes int, focus, skip string) *exec.Cmd {
	files := filepath.Join(root, "csi-sanity", "kube", "kubernetes", "storagesuite")
	skips := []string{}
	if skip != "" {
		skips = append(skips, skip)
	}
	for _, s := range suiteSkips {
		skips = append(skips, s.regexp)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "ginkgo"), "--no-color", fmt.Sprintf("--procs=%d", processes), "--timeout="+suiteLimit.String(),
		"--focus="+focus, "--skip="+strings.Join(skips, "|"), "--json-report="+filepath.Base(report), "--output-dir="+filepath.Dir(report), "--silence-skips",
		filepath.Join(bin, "storage-suite.test"), "--",
		"-kubeconfig="+folder.Kubeconfig(), "-kubectl-path="+filepath.Join(bin, "kubectl"), "-provider=local",
		"-storage.testdriver="+filepath.Join(files, "driver.yaml"), "-num-nodes=2", "-allowed-not-ready-nodes=0",
		"-minStartupPods=0", "-disable-log-dump", "-delete-namespace=true")
	cmd.Env = append(os.Environ(), "KUBE_TEST_REPO_LIST="+filepath.Join(files, "images.yaml"), "KUBECONFIG="+folder.Kubeconfig(), "HOME="+string(folder))
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// summarize logs each spec of Holdfast that failed, and each that was selected
// and skipped itself, with its reason; it gives back how many passed. What no part
// has selected is counted once.
func summarize(t *testing.T, reports []string) int {
	t.Helper()
	notSelected := map[string]bool{}
	count, skipped := map[string]int{}, map[string]int{}
	for _, report := range reports {
		specs, err := suiteReport(report)
		if err != nil {
			t.Errorf("the suite has left no report: %v", err)
			return 0
		}
		for _, spec := range specs {
			name := strings.Join(append(spec.ContainerHierarchyTexts, spec.LeafNodeText), " ")
			switch {
			case !strings.Contains(name, "External Storage"):
			case spec.State == "skipped" && spec.Failure.Message == "":
				if _, known := notSelected[name]; !known {
					notSelected[name] = true
				}
			case spec.State == "skipped":
				notSelected[name] = false
				skipped[spec.Failure.Message]++
			default:
				notSelected[name] = false
				count[spec.State]++
				if spec.State != "passed" {
					t.Errorf("%s: %s: %s", spec.State, name, spec.Failure.Message)
				}
			}
		}
	}
	for _, not := range notSelected {
		if not {
			count["not selected"]++
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(skipped)) {
		t.Logf("%3d specs skipped themselves: %s", skipped[reason], reason)
	}
	t.Logf("specs: %v", count)
	return count["passed"]
}

// suiteSpec is what matters here of ginkgo's types.SpecReport.
type suiteSpec struct {
	ContainerHierarchyTexts []string
	LeafNodeText, State     string
	Failure                 struct{ Message string }
}

func suiteReport(file string) ([]suiteSpec, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var suites []struct{ SpecReports []suiteSpec }
	if err := json.Unmarshal(text, &suites); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var specs []suiteSpec
	for _, suite := range suites {
		specs = append(specs, suite.SpecReports...)
	}
	return specs, nil
}
