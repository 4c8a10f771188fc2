package seaweed_test

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/holdfast-csi/holdfast/s3client"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/cluster"
	"github.com/holdfast-csi/holdfast/storage/cluster/clustertest"
	"github.com/holdfast-csi/holdfast/storage/seaweed"
	"github.com/holdfast-csi/holdfast/storage/storagetest"
)

// weed is the one real cluster of this package's tests.
var weed *cluster.Cluster

func TestMain(m *testing.M) {
	c, stop, err := clustertest.StartForMain()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	weed = c
	code := m.Run()
	stop()
	os.Exit(code)
}

func open(t *testing.T) *seaweed.Client {
	t.Helper()
	return openCluster(t, weed)
}

// openCluster gives a client of a cluster.
func openCluster(t testing.TB, of *cluster.Cluster) *seaweed.Client {
	t.Helper()
	config, err := of.TLS()
	if err != nil {
		t.Fatal(err)
	}
	c, err := seaweed.Open(t.Context(), seaweed.Options{Filer: of.Endpoints().FilerGRPC, TLS: config})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

var buckets atomic.Int64

// newBucket makes a bucket that is ready to be mounted, and its record.
func newBucket(t *testing.T) (storage.BucketName, *s3client.Client) {
	t.Helper()
	s3, err := s3client.New(s3client.Options{Endpoint: weed.Endpoints().S3URL, Keys: weed.AdminKeys()})
	if err != nil {
		t.Fatal(err)
	}
	name := storage.BucketName(fmt.Sprintf("test-%d", buckets.Add(1)))
	if err := s3.CreateBucket(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	c := open(t)
	if err := c.Prepare(t.Context(), name, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateRecord(t.Context(), storage.Record{ID: storage.VolumeID(name), Bucket: name, Capacity: 1 << 30, Access: storage.Shared, Phase: storage.Ready}); err != nil {
		t.Fatal(err)
	}
	return name, s3
}

func TestVolume(t *testing.T) {
	storagetest.Volume(t, func(t *testing.T) (a, b storage.Volume) {
		name, _ := newBucket(t)
		return open(t).Volume(name, storage.VolumeID(name)), open(t).Volume(name, storage.VolumeID(name))
	})
}

func TestRecords(t *testing.T) { storagetest.Records(t, open(t)) }

func TestReports(t *testing.T) { storagetest.Reports(t, open(t)) }

func TestCapacity(t *testing.T) { storagetest.Capacity(t, open(t)) }

func TestPlacer(t *testing.T) { storagetest.Placer(t, open(t), open(t)) }

// TestPrepareKeepsWhatIsThere: a repeated Prepare changes no mode that a user
// has set since.
func TestPrepareKeepsWhatIsThere(t *testing.T) {
	name, _ := newBucket(t)
	c := open(t)
	v := c.Volume(name, storage.VolumeID(name))
	root, err := v.Files.Lookup(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	root.Mode = root.Mode.Type() | 0o700
	if _, err := v.Files.Update(t.Context(), "", root); err != nil {
		t.Fatal(err)
	}
	if err := c.Prepare(t.Context(), name, ""); err != nil {
		t.Fatal(err)
	}
	if root, err = v.Files.Lookup(t.Context(), ""); err != nil || root.Mode.Perm() != 0o700 {
		t.Errorf("root mode %v, %v", root.Mode, err)
	}
}

func TestGuarded(t *testing.T) {
	storagetest.Guarded(t, func(t *testing.T, g *storagetest.Gate) (a, b storage.Volume) {
		name, _ := newBucket(t)
		return open(t).Under(g).Volume(name, storage.VolumeID(name)), open(t).Volume(name, storage.VolumeID(name))
	})
}
