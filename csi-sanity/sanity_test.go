package csisanity

import (
	"path/filepath"
	"testing"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
)

// runSanity runs the CSI project's own suite against a running installation, with
// its real mounts. tmpDir must be a folder beneath the keeper's allowed roots, as
// short as possible; target and staging folders come and go in it.
func runSanity(t *testing.T, controllerSocket, nodeSocket, tmpDir string) {
	t.Helper()
	config := sanity.NewTestConfig()
	config.Address = "unix:" + nodeSocket
	config.ControllerAddress = "unix:" + controllerSocket
	config.TargetPath = filepath.Join(tmpDir, "target")
	config.StagingPath = filepath.Join(tmpDir, "staging")
	// Small: the suite makes some dozens of volumes on one machine.
	config.TestVolumeSize = 64 << 20
	config.TestVolumeExpandSize = 128 << 20
	sanity.Test(t, config)
}
