package storagetest

import (
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// Capacity is the suite of storage.Capacity.
func Capacity(t *testing.T, capacity storage.Capacity) {
	space, err := capacity.Space(t.Context(), storage.Placement{Replication: "000"})
	must(t, "space", err)
	if space.Total <= 0 || space.Free < 0 || space.Free > space.Total {
		t.Errorf("space = %+v", space)
	}
	twice, err := capacity.Space(t.Context(), storage.Placement{Replication: "001"})
	must(t, "space for two copies", err)
	// What others write between the two calls is far less than a percent.
	if half := space.Free / 2; twice.Free < half-half/100 || twice.Free > half+half/100 {
		t.Errorf("%d bytes are free, and %d where all is stored twice", space.Free, twice.Free)
	}
}
