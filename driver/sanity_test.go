package driver

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"

	"github.com/holdfast-csi/holdfast/storage/memory"
)

// TestSanity is the CSI project's own suite, over the store in memory and a
// mounter that has no kernel beneath.
func TestSanity(t *testing.T) {
	dir, err := os.MkdirTemp("", "sanity") // t.TempDir is too long for a socket
	must(t, err)
	t.Cleanup(func() { _ = os.Remove(dir) })
	socket := filepath.Join(dir, "csi.sock")
	store, mounter := memory.New(), newFakeMounter()
	node, err := NewNode(NodeDeps{Records: store, Mounter: mounter, Table: mounter, Measure: measureHere}, NodeOptions{NodeID: "node-1"})
	must(t, err)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	serve(t, socket, log, NewIdentity(IdentityOptions{}), newController(store), node)

	config := sanity.NewTestConfig()
	config.Address = "unix:" + socket
	config.TargetPath = filepath.Join(dir, "target")
	config.StagingPath = filepath.Join(dir, "staging")
	sanity.Test(t, config)
	checkNothing(t, store)
}
