package fuse_test

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/holdfast-csi/holdfast/fuse/redotest"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// TestRedo kills the mounter at each call of each change of names: a part of the
// combinations, drawn by a seed, or all with HOLDFAST_REDO=all.
func TestRedo(t *testing.T) {
	o := redotest.Options{Sample: 200, Seed: rand.Uint64(), Open: func(*testing.T) (a, b storage.Volume, chunks func() int) {
		bucket := memory.NewBucket(1 << 30)
		return bucket.Volume(), bucket.Volume(), bucket.ChunkCount
	}}
	if seed, err := strconv.ParseUint(os.Getenv("HOLDFAST_SEED"), 10, 64); err == nil {
		o.Seed = seed
	}
	if os.Getenv("HOLDFAST_REDO") == "all" {
		o.Sample = 0
	}
	redotest.Run(t, o)
}
