package storagetest

import (
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// Capacity is the suite of storage.Capacity.
func Capacity(t *testing.T, capacity storage.Capacity) {
	space, err := capacity.Space(t.Context())
	must(t, "space", err)
	if space.Total <= 0 || space.Free < 0 || space.Free > space.Total {
		t.Errorf("space = %+v", space)
	}
}
