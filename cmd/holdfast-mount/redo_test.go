package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/holdfast-csi/holdfast/fuse/redotest"
	"github.com/holdfast-csi/holdfast/s3client"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/cluster/clustertest"
	"github.com/holdfast-csi/holdfast/storage/memory"
	"github.com/holdfast-csi/holdfast/storage/seaweed"
)

// TestRedoOnSeaweed tries some of fuse's TestRedo on a real cluster: what the fake
// does in one step, the filer does in several.
func TestRedoOnSeaweed(t *testing.T) {
	weed := clustertest.Start(t)
	s3, err := s3client.New(s3client.Options{Endpoint: weed.Endpoints().S3URL, Keys: weed.AdminKeys()})
	if err != nil {
		t.Fatal(err)
	}
	client := func() *seaweed.Client {
		config, err := weed.TLS()
		if err != nil {
			t.Fatal(err)
		}
		c, err := seaweed.Open(t.Context(), seaweed.Options{Filer: weed.Endpoints().FilerGRPC, TLS: config})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	ours, theirs := client(), client()
	buckets := 0
	o := redotest.Options{
		Sample: 30, Seed: rand.Uint64(),
		Open: func(t *testing.T) (a, b storage.Volume, chunks func() int) {
			buckets++
			name := storage.BucketName(fmt.Sprintf("redo-%d", buckets))
			if err := s3.CreateBucket(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			if err := ours.Prepare(t.Context(), name, ""); err != nil {
				t.Fatal(err)
			}
			id := storage.VolumeID(name)
			if _, err := ours.CreateRecord(t.Context(), storage.Record{ID: id, Bucket: name, Capacity: 1 << 30, Access: storage.Shared, Phase: storage.Ready}); err != nil {
				t.Fatal(err)
			}
			return ours.Volume(name, id), theirs.Volume(name, id), nil
		},
		Model: func(*testing.T) (a, b storage.Volume, chunks func() int) {
			bucket := memory.NewBucket(1 << 30)
			return bucket.Volume(), bucket.Volume(), nil
		},
	}
	if seed, err := strconv.ParseUint(os.Getenv("HOLDFAST_SEED"), 10, 64); err == nil {
		o.Seed = seed
	}
	if n, err := strconv.Atoi(os.Getenv("HOLDFAST_REDO")); err == nil {
		o.Sample = n
	}
	redotest.Run(t, o)
}
