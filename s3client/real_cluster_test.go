package s3client

import (
	"os"
	"sync"
	"testing"

	"github.com/holdfast-csi/holdfast/storage/cluster"
	"github.com/holdfast-csi/holdfast/storage/cluster/clustertest"
)

// One cluster serves all tests of the package. It starts with the first test
// that needs it, so that the others run without one.
var running struct {
	sync.Once
	cluster *cluster.Cluster
	stop    func()
	err     error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if running.stop != nil {
		running.stop()
	}
	os.Exit(code)
}

// realOptions leads to the running SeaweedFS.
func realOptions(t *testing.T) Options {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a real cluster")
	}
	running.Do(func() { running.cluster, running.stop, running.err = clustertest.StartForMain() })
	if running.err != nil {
		t.Fatalf("start a cluster: %v", running.err)
	}
	return Options{Endpoint: running.cluster.Endpoints().S3URL, Keys: running.cluster.AdminKeys()}
}
