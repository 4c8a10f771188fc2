package scenarios

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/csi-sanity/kube/internal/build"
)

// startLoad runs the application that notices everything on both nodes, on one
// shared volume, in a folder each.
func startLoad(t *testing.T, space string) {
	t.Helper()
	manifest := claim("load", "ReadWriteMany")
	for node := 1; node <= 2; node++ {
		manifest += pod(fmt.Sprintf("load%d", node), "load", node, build.LoadImage, fmt.Sprintf("[/load, -dir=/data/node%d]", node))
	}
	withInput(t, time.Minute, manifest, "apply", space, "-f", "-")
	within(t, time.Minute, "wait", space, "pod/load1", "pod/load2", "--for=condition=Ready", "--timeout=50s")
	checkLoad(t, space)
}

// checkLoad fails when a load has ended, which it does at its first error, and
// waits until each has gone on.
func checkLoad(t *testing.T, space string) {
	t.Helper()
	for _, name := range []string{"load1", "load2"} {
		before := -1
		eventually(t, 90*time.Second, func(ctx context.Context) error {
			phase, err := kubectl(ctx, "", "get", space, "pod/"+name, "-o", "jsonpath={.status.phase}")
			if err == nil && phase != "Running" {
				log, _ := kubectl(ctx, "", "logs", space, name, "--tail=3")
				t.Fatalf("%s has seen an error (its pod is %s):\n%s", name, phase, log)
			}
			last, err := kubectl(ctx, "", "logs", space, name, "--tail=1")
			if err != nil {
				return err
			}
			var progress struct{ Rounds int }
			if err := json.Unmarshal([]byte(last), &progress); err != nil {
				return fmt.Errorf("%s says %q: %w", name, last, err)
			}
			if before < 0 {
				before = progress.Rounds
			}
			if progress.Rounds <= before {
				return fmt.Errorf("%s stands still after %d rounds", name, progress.Rounds)
			}
			return nil
		})
	}
}

// longest is the longest wait of an operation that both loads have told.
func longest(t *testing.T, space string) float64 {
	t.Helper()
	var most float64
	for _, name := range []string{"load1", "load2"} {
		for line := range strings.Lines(within(t, 20*time.Second, "logs", space, name)) {
			var progress struct {
				LongestSeconds float64 `json:"longestSeconds"`
			}
			if json.Unmarshal([]byte(line), &progress) == nil {
				most = max(most, progress.LongestSeconds)
			}
		}
	}
	return most
}
