package memory_test

import (
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
	"github.com/holdfast-csi/holdfast/storage/storagetest"
)

func TestVolume(t *testing.T) {
	storagetest.Volume(t, func(*testing.T) (a, b storage.Volume) {
		bucket := memory.NewBucket(1 << 30)
		return bucket.Volume(), bucket.Volume()
	})
}

func TestGuarded(t *testing.T) {
	storagetest.Guarded(t, func(_ *testing.T, g *storagetest.Gate) (a, b storage.Volume) {
		bucket := memory.NewBucket(1 << 30)
		return memory.Guarded(bucket.Volume(), g), bucket.Volume()
	})
}
