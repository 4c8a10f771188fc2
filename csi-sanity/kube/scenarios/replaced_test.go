package scenarios

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/csi-sanity/kube/internal/build"
)

// TestPodsOfTheNodeReplaced: node plugin and mounter pods are deleted under load,
// and no application sees an error.
func TestPodsOfTheNodeReplaced(t *testing.T) {
	space := "--namespace=" + newNamespace(t)
	startLoad(t, space)
	for _, component := range []string{"node", "mounter", "node", "mounter"} {
		within(t, 2*time.Minute, "delete", system, "pod", "-l", "app.kubernetes.io/component="+component, "--timeout=110s")
		within(t, 2*time.Minute, "rollout", "status", system, "daemonset/holdfast-"+component, "--timeout=110s")
		checkLoad(t, space)
	}
	t.Logf("longest wait of an operation: %.1f s", longest(t, space))
}

// TestUpgrade: a new image under load, and no application sees an error.
func TestUpgrade(t *testing.T) {
	space := "--namespace=" + newNamespace(t)
	startLoad(t, space)
	shell(t, 5*time.Minute, "helm upgrade holdfast deploy/helm/holdfast --namespace holdfast-system --reuse-values --values "+withValues(t, build.Versions[1]))
	ready(t, 4*time.Minute)
	image := within(t, 10*time.Second, "get", system, "pod", "-l", "app.kubernetes.io/component=mounter", "-o", "jsonpath={.items[*].spec.containers[0].image}")
	if strings.Count(image, build.Versions[1]) != 2 {
		t.Errorf("the mounters run %q, want version %s on both nodes", image, build.Versions[1])
	}
	checkLoad(t, space)
	t.Logf("longest wait of an operation: %.1f s", longest(t, space))
}
