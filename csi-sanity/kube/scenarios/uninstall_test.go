package scenarios

import (
	"strings"
	"testing"
	"time"
)

// TestUninstall is the guide's last section.
func TestUninstall(t *testing.T) {
	section(t, "Uninstall")
	for node := 1; node <= 2; node++ {
		if left := volumesOn(t.Context(), t, node); len(left) > 0 {
			t.Errorf("node %d still has mounts:\n%s", node, strings.Join(left, "\n"))
		}
	}
	for _, kind := range []string{"csidriver", "storageclass", "clusterrole", "clusterrolebinding", "persistentvolume"} {
		if left := within(t, 10*time.Second, "get", kind, "-l", "app.kubernetes.io/name=holdfast", "-o", "name"); left != "" {
			t.Errorf("left behind: %s", left)
		}
	}
}
